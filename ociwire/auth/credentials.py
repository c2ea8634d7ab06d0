"""Who one is, to which registry: the value that a source gives out, and the simplest sources.

A `CredentialSource` is the seam for a company's own: a vault, a cloud's exchange, secrets that rotate. It is asked for
the registry's host, never for the token server's, and no repr or message here shows what it answers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Protocol, final, runtime_checkable

from .._arguments import is_number, show
from .._oci.reference import registry_name
from .._oci.scope import Scope
from .._text import SURROGATE
from ..errors import AuthError, UsageError

__all__ = ["Anonymous", "ChainedCredentials", "Credential", "CredentialSource", "StaticCredentials", "first_repository"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VISIBLE = re.compile(r"[!-~]+")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What one is known by. The repr shows no secret; two are equal if they say the same to a server.

    Attributes:
        username: For Basic, and for the token server (RFC 7617: without a colon and without control characters).
        password: Any Unicode text, line breaks included: Google's ``_json_key`` is a JSON file. It is sent as base64.
        identity_token: An OAuth2 refresh token for the token server (in Docker's file, ``identitytoken``): any Unicode
            text. It is sent URL-encoded, in the body of a request.
        registry_token: A bearer token for the registry itself (``registrytoken``). Takes precedence over other fields.
        expires_at: When to ask the source again, in seconds since the epoch or as a `datetime` with a time zone. None
            means never.
        source: Origin of the credential for messages: a file and an entry, or a vault and a path.

    Raises:
        UsageError: A field is no string, holds what cannot be sent, or goes without its other half.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    identity_token: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    expires_at: float | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("username", "password", "identity_token", "registry_token"):
            _check_text(name, getattr(self, name))
        # Passwords and identity tokens are encoded where they are sent; what is sent as it is may end a header.
        for name in ("username", "registry_token"):
            _check_controls(name, getattr(self, name))
        if self.username is not None and ":" in self.username:
            raise UsageError("a credential's username holds a colon, which Basic cannot carry (RFC 7617, section 2)")
        if self.password is not None and self.username is None:
            raise UsageError("a credential has a password but no username")
        if self.registry_token is not None and not _VISIBLE.fullmatch(self.registry_token):
            raise UsageError("a credential's registry_token holds what a header cannot carry (visible ASCII can be)")
        object.__setattr__(self, "expires_at", _moment(self.expires_at))

    @property
    def basic(self) -> str | None:
        """The value of Authorization that says username and password (RFC 7617, in UTF-8); None without both."""
        if self.username is None or self.password is None:
            return None
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"

    def secrets(self) -> tuple[str, ...]:
        """What must not be shown, in every form in which it is sent."""
        encoded = self.basic
        texts = (self.password, self.identity_token, self.registry_token, encoded and encoded.removeprefix("Basic "))
        return tuple(text for text in texts if text)

    def __repr__(self) -> str:
        shown = [f"username={self.username!r}"] if self.username is not None else []
        kinds = ("password", "identity_token", "registry_token")
        shown += [f"{name}=***" for name in kinds if getattr(self, name) is not None]
        shown += [f"expires_at={self.expires_at!r}"] if self.expires_at is not None else []
        return f"Credential({', '.join(shown)})"


@runtime_checkable
class CredentialSource(Protocol):
    """Answers who one is at a registry: the seam for a vault, a cloud's exchange, or secrets that rotate."""

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """The credential for a registry; None is nobody.

        May be called from any thread, one call at a time for each host. The answer is kept for that host and repository
        until it expires or a server rejects it; an exception is not kept, and comes out as `AuthError`.

        Args:
            host: The registry's ``host`` or ``host:port``: lower case, without the scheme's default port; ``docker.io``
                for all that Docker Hub is called.
            repository: The first repository that the request needs, or None.
        """
        ...


@final
class Anonymous:
    """Nobody, everywhere."""

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """None."""
        return None


@final
class StaticCredentials:
    """One credential for one host, and nobody anywhere else.

    Args:
        host: ``host`` or ``host:port``; all that Docker Hub is called counts as one.
        credential: The credential.

    Raises:
        UsageError: The host is not valid, or the credential is no `Credential`.
    """

    def __init__(self, host: str, credential: Credential) -> None:
        if not isinstance(credential, Credential):
            raise UsageError(f"a credential is a Credential, not {type(credential).__name__}")
        self._host = registry_name(host)
        self._credential = credential

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """The credential, if it is for that host."""
        return self._credential if registry_name(host) == self._host else None

    def __repr__(self) -> str:
        return f"StaticCredentials({self._host!r}, {self._credential!r})"


@final
class ChainedCredentials:
    """Several sources: the first that knows a host answers. An exception of one is not passed over.

    Args:
        sources: The sources, in the order in which they are asked.

    Raises:
        UsageError: One of them has no ``lookup``.
    """

    def __init__(self, sources: Iterable[CredentialSource]) -> None:
        self._sources = tuple(sources)
        for source in self._sources:
            check_source(source)

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """What the first source says that says anything."""
        answers = (source.lookup(host, repository) for source in self._sources)
        return next((answer for answer in answers if answer is not None), None)

    def failure(self, host: str, repository: str | None = None, /) -> AuthError | None:
        """The failure of the first source that answered `None` because it failed; see `DockerConfig.failure`.

        Call it after `lookup` returned `None`.
        """
        failures = (failure_of(source, host, repository) for source in self._sources)
        return next((failure for failure in failures if failure is not None), None)

    def __repr__(self) -> str:
        return f"ChainedCredentials({list(self._sources)!r})"


def check_source(source: CredentialSource) -> CredentialSource:
    """Refuse what is no source: a `Credential` alone does not say which host it is for."""
    if isinstance(source, type) or not callable(getattr(source, "lookup", None)):
        hint = " (StaticCredentials(host, credential) says for which host)" if isinstance(source, Credential) else ""
        raise UsageError(f"a credential source has lookup(host, repository): {_name(source)} has not{hint}")
    return source


def failure_of(source: CredentialSource, host: str, repository: str | None) -> AuthError | None:
    """The error because of which a source answered None, if it reports one; see `DockerConfig.failure`."""
    failure = getattr(source, "failure", None)
    found = failure(host, repository) if callable(failure) else None
    return found if isinstance(found, AuthError) else None


def first_repository(scope: Scope) -> str | None:
    """The first repository in a scope's text: of a mount's two, the one that is pushed to."""
    text = str(scope)
    return _first_repository(text) if len(text) <= _LONGEST_CACHED else _first_repository.__wrapped__(text)


_LONGEST_CACHED = 1024
"""Maximum length of a scope's text that is cached: a scope may have any length."""


@lru_cache(maxsize=1024)
def _first_repository(text: str) -> str | None:
    members = (member for word in text.split() for member in Scope.parse(word))
    return next(
        (member.resource for member in members if member.resource_type == "repository" and member.resource), None
    )


def _name(source: object) -> str:
    return source.__name__ if isinstance(source, type) else type(source).__name__


def _check_text(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise UsageError(f"a credential's {name} is a str, not {type(value).__name__}")
    if SURROGATE.search(value):  # an exception of encode() would hold the value
        raise UsageError(f"a credential's {name} is not Unicode text")


def _check_controls(name: str, value: str | None) -> None:
    if value is not None and _CONTROL.search(value):
        ending = " (a newline at its end? strip() it)" if value.endswith(("\n", "\r")) else ""
        raise UsageError(f"a credential's {name} holds a control character{ending}")


def _moment(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise UsageError("a credential's expires_at has no time zone: datetime.now(timezone.utc) has one")
        return value.timestamp()
    if not is_number(value):
        # A value of another type is not shown: it may be a secret that was passed in the wrong place.
        given = show(value) if isinstance(value, (int, float)) else f"of type {type(value).__name__}"
        raise UsageError(
            f"invalid expires_at {given}: expected seconds since the epoch, a datetime with a time zone, or None"
        )
    return float(value)  # type: ignore[arg-type]  # a number, as was just checked
