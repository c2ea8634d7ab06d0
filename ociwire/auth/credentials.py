"""The `Credential` value, the `CredentialSource` protocol and simple sources. No repr or message shows a secret."""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any, Protocol, final, runtime_checkable

from .._argument_checks import is_number, safe_repr
from .._oci.reference import registry_name
from .._oci.scope import Scope
from .._text import SURROGATE
from ..errors import AuthError, UsageError

__all__ = ["Anonymous", "ChainedCredentials", "Credential", "CredentialSource", "StaticCredentials", "first_repository"]

_SECRETS = ("password", "identity_token", "registry_token")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VISIBLE = re.compile(r"[!-~]+")
_REPOSITORY = re.compile(r"(?:^|\s)repository:(\S+):[^:,\s]+(?:,[^:,\s]+)*(?=\s|$)")


@final
@dataclass(frozen=True, slots=True)
class Credential:
    """The secrets of one user at one registry.

    Two credentials are equal if their secrets and user names are equal. The repr shows no secret.

        >>> Credential("ci", "s3cret", source="vault kv/registry")
        Credential(username='ci', password=***)

    Attributes:
        username: User name for Basic authentication and for the token server. Must not contain colons or control
            characters (RFC 7617).
        password: Password. Any Unicode text, including line breaks, because the password of Google's ``_json_key`` is a
            JSON file. It is sent as base64.
        identity_token: An OAuth2 refresh token for the token server (``identitytoken`` in Docker's configuration file).
            Any Unicode text. It is sent URL-encoded in the body of a request. If there is also a password, the password
            is sent instead.
        registry_token: A bearer token for the registry itself (``registrytoken`` in Docker's configuration file), in
            visible ASCII. Takes precedence over the other fields.
        expires_at: When to call the source again, in seconds since the epoch or as a `datetime` with a time zone.
            `None`, the default, means never.
        source: Origin of the credential, for use in messages, such as a file and an entry, or a vault and a path.

    Raises:
        UsageError: A field has the wrong type or cannot be sent in a header, or there is a password without a username.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    _: KW_ONLY
    identity_token: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    expires_at: float | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("username", *_SECRETS):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise UsageError(f"credential {name} must be a str, got {type(value).__name__}")
            if value is not None and SURROGATE.search(value):
                # encode() would raise an exception that contains the value.
                raise UsageError(f"credential {name} must be Unicode text, got a lone surrogate")
            # Passwords and identity tokens are encoded before they are sent. The other fields are not encoded, and a
            # control character could end the header.
            if value is not None and name in ("username", "registry_token") and _CONTROL.search(value):
                hint = "; strip() the newline at its end" if value.endswith(("\n", "\r")) else ""
                raise UsageError(f"credential {name} must not contain control characters{hint}")
        if self.username is not None and ":" in self.username:
            raise UsageError("credential username must not contain a colon (RFC 7617, section 2)")
        if self.password is not None and self.username is None:
            raise UsageError("credential must have a username if it has a password")
        if self.registry_token is not None and not _VISIBLE.fullmatch(self.registry_token):
            raise UsageError("credential registry_token must be visible ASCII characters")
        object.__setattr__(self, "expires_at", _to_timestamp(self.expires_at))

    @property
    def basic(self) -> str | None:
        """The Authorization header for the username and password (RFC 7617, in UTF-8); `None` without both."""
        if self.username is None or self.password is None:
            return None
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"

    def secrets(self) -> tuple[str, ...]:
        """Return all secrets, in each form in which they are sent."""
        texts = (*(getattr(self, name) for name in _SECRETS), (self.basic or "").removeprefix("Basic "))
        return tuple(text for text in texts if text)

    def __repr__(self) -> str:
        shown = [f"username={self.username!r}"] if self.username is not None else []
        shown += [f"{name}=***" for name in _SECRETS if getattr(self, name) is not None]
        shown += [f"expires_at={self.expires_at!r}"] if self.expires_at is not None else []
        return f"Credential({', '.join(shown)})"


@runtime_checkable
class CredentialSource(Protocol):
    """Looks up the credentials for a registry.

    Implement this to integrate a vault, the token exchange of a cloud provider, or secrets that rotate.
    """

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """Return the credential for a registry, or `None` for anonymous access.

        May be called from any thread, one call at a time for each host. The answer is cached for that host and
        repository until it expires or a server rejects it. An exception is not cached, and is raised as `AuthError`.

        Args:
            host: ``host`` or ``host:port`` of the registry, never of the token server, in lower case and without the
                default port of the scheme. ``docker.io`` for every name of Docker Hub.
            repository: The first repository that the request needs, or `None`.
        """
        ...


CredentialFunction = Callable[[str, str | None], Credential | None]
"""Type of a function that can be passed instead of a `CredentialSource`. Same arguments as ``lookup``."""


@final
class Anonymous:
    """A source that always returns no credentials."""

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """Return `None`."""
        return None


@final
class StaticCredentials:
    """A source with one credential for one host, and none for other hosts.

        >>> source = StaticCredentials("registry.example", Credential(username="ci", password="s3cret"))
        >>> source.lookup("quay.io") is None
        True

    Args:
        host: ``host`` or ``host:port``. All names of Docker Hub are the same host.
        credential: The credential.

    Raises:
        UsageError: The host is not valid, or the credential is not a `Credential`.
    """

    def __init__(self, host: str, credential: Credential) -> None:
        if not isinstance(credential, Credential):
            raise UsageError(f"credential must be a Credential, got {type(credential).__name__}")
        self._host = registry_name(host)
        self._credential = credential

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """Return the credential if it is for this host, else `None`."""
        return self._credential if registry_name(host) == self._host else None

    def __repr__(self) -> str:
        return f"StaticCredentials({self._host!r}, {self._credential!r})"


@final
class ChainedCredentials:
    """A source that calls several sources in order until one returns a credential. Exceptions are propagated.

    Args:
        sources: The sources, in the order in which they are called.

    Raises:
        UsageError: A source is neither a function nor an object with a ``lookup`` method.
    """

    def __init__(self, sources: Iterable[CredentialSource | CredentialFunction]) -> None:
        self._sources = tuple(map(as_credential_source, sources))

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """Return the first credential that a source returns, or `None`."""
        answers = (source.lookup(host, repository) for source in self._sources)
        return next((answer for answer in answers if answer is not None), None)

    def failure(self, host: str, repository: str | None = None, /) -> AuthError | None:
        """Return the failure of the first source that returned `None` because it failed; see `DockerConfig.failure`.

        Call it after `lookup` returned `None`.
        """
        failures = (get_failure(source, host, repository) for source in self._sources)
        return next((failure for failure in failures if failure is not None), None)

    def __repr__(self) -> str:
        return f"ChainedCredentials({list(self._sources)!r})"


@final
class FunctionCredentials:
    """A source that calls a function.

    Args:
        function: The function, with the arguments of `CredentialSource.lookup`.

    Raises:
        UsageError: The function cannot be called with these arguments.
    """

    def __init__(self, function: CredentialFunction) -> None:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some functions written in C have no signature
            signature = None
        if signature is not None:
            try:
                signature.bind("registry.example", None)
            except TypeError as error:
                raise UsageError(f"a credential function must take (host, repository): {error}") from None
        self._function = function
        self.name: str = getattr(function, "__qualname__", type(function).__name__)

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """Return the result of the function."""
        return self._function(host, repository)

    def __repr__(self) -> str:
        return f"<FunctionCredentials {self.name}>"


def as_credential_source(
    credentials: CredentialSource | CredentialFunction | Credential | tuple[str, str], host: str | None = None
) -> CredentialSource:
    """Convert a value of the option ``credentials`` to a source.

    Args:
        credentials: A source, or a function with the arguments of `CredentialSource.lookup`. If a host is given, this
            can also be a credential, or a pair of user name and password.
        host: The only host for which a credential or a pair is used. If `None`, a credential or a pair is refused.

    Raises:
        UsageError: The value has another type, or a field of the credential is invalid.
    """
    if isinstance(credentials, type):
        name = credentials.__name__
        raise UsageError(f"credentials must be a credential source, got the class {name}: pass an instance of it")
    if callable(getattr(credentials, "lookup", None)):
        return credentials  # type: ignore[return-value]
    if isinstance(credentials, (Credential, tuple, list)):
        if host is None:
            hint = "" if isinstance(credentials, Credential) else " with Credential(username, password)"
            raise UsageError(
                "a credential source must have a method lookup(host, repository), got"
                f" {type(credentials).__name__}: use StaticCredentials(host, credential){hint}"
            )
        if not isinstance(credentials, Credential):
            # Show only the types, because the values may be secret.
            if [isinstance(item, str) for item in credentials] != [True, True]:
                types = ", ".join(type(item).__name__ for item in credentials)
                raise UsageError(f"credentials must be a pair of user name and password, both str, got ({types})")
            credentials = Credential(*credentials)
        return StaticCredentials(host, credentials)
    if callable(credentials):
        return FunctionCredentials(credentials)
    name = type(credentials).__name__
    if host is None:
        raise UsageError(f"a credential source must have a method lookup(host, repository), got {name}")
    raise UsageError(
        "credentials must be a pair (username, password), a Credential, a credential source or a function of (host,"
        f" repository), got {name}"
    )


def get_name(source: CredentialSource) -> str:
    """Return the name of a source for messages: the name of its class or function."""
    return source.name if isinstance(source, FunctionCredentials) else type(source).__name__


def get_failure(source: CredentialSource, host: str, repository: str | None) -> AuthError | None:
    """Return the error that made a source return None, if the source reports it; see `DockerConfig.failure`."""
    failure = getattr(source, "failure", None)
    error = failure(host, repository) if callable(failure) else None
    return error if isinstance(error, AuthError) else None


def first_repository(scope: Scope) -> str | None:
    """Return the first repository in a scope's text. In the scope of a mount, it is the target of the push."""
    match = _REPOSITORY.search(str(scope))
    return None if match is None else match[1]


def _to_timestamp(value: Any) -> float | None:
    if value is None:
        return None
    expected = "seconds since the epoch, a datetime with a time zone, or None"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise UsageError(
                f"invalid expires_at without a time zone: expected {expected}, such as datetime.now(timezone.utc)"
            )
        return value.timestamp()
    if not is_number(value):
        # Do not show a value of another type: it may be a secret that was passed as the wrong argument.
        shown = safe_repr(value) if isinstance(value, (int, float)) else f"of type {type(value).__name__}"
        raise UsageError(f"invalid expires_at {shown}: expected {expected}")
    return float(value)
