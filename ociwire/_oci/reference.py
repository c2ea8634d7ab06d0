"""References in the syntax of ``docker pull``, and the grammar of repository and tag names.

The grammar is that of the distribution project (``HOST/NAME:TAG@DIGEST``), except that a host may have underscores,
which docker refuses. Repository and tag names follow the OCI distribution specification, "Pulling manifests".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

from .._argument_checks import safe_repr
from ..errors import UsageError
from .digest import Digest
from .host import DEFAULT_PORTS, check_host

__all__ = ["DOCKER_HUB", "Reference", "check_repository", "check_tag", "registry_name"]

DOCKER_HUB = "docker.io"
"""The host of Docker Hub in references. Requests go to ``registry-1.docker.io``."""

_HUB_ALIASES = frozenset({DOCKER_HUB, f"index.{DOCKER_HUB}", f"registry-1.{DOCKER_HUB}"})

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_MAX_NAME = 255
# The name ends at a tag (which has no slash) or a digest.
_REFERENCE = re.compile(r"([^@]+?)(?::([^/:@]*))?(?:@(.*))?", re.DOTALL)


def registry_name(host: str, scheme: str = "https") -> str:
    """Return the name by which credentials of a registry are stored: lower case, without the default port.

    All hosts of Docker Hub have one name.

    Args:
        host: ``host`` or ``host:port``.
        scheme: The scheme whose default port is removed. Defaults to ``https``.

    Raises:
        UsageError: The host is not valid.
    """
    name = check_host(host).removesuffix(f":{DEFAULT_PORTS.get(scheme, DEFAULT_PORTS['https'])}")
    return DOCKER_HUB if name in _HUB_ALIASES else name


def check_repository(name: str) -> str:
    """Check the name of a repository, such as ``library/alpine``, and return it.

    Raises:
        UsageError: It is not valid, or has more than 255 characters.
    """
    if not isinstance(name, str) or not _REPOSITORY.fullmatch(name):
        raise UsageError(
            f"not a repository name: {safe_repr(name, 300)} (lower case letters and digits, with a single ., _, __ or"
            " any number of - between them, in components apart by /)"
        )
    if len(name) > _MAX_NAME:
        raise UsageError(f"not a repository name: {name!r:.80} has {len(name)} characters ({_MAX_NAME} are allowed)")
    return name


def check_tag(tag: str) -> str:
    """Check a tag, such as ``3.20``, and return it.

    Raises:
        UsageError: It is not valid.
    """
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise UsageError(
            f"not a tag: {safe_repr(tag, 300)} (up to 128 letters, digits, _, . and -, the first a letter, a digit or"
            " _)"
        )
    return tag


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """A repository of a registry, with a tag, a digest, both or neither.

    Attributes:
        host: The host of the registry, as written; ``docker.io`` if the text has none.
        repository: The name of the repository; ``library/alpine`` for ``alpine``.
        tag: The tag, or None. There is no default.
        digest: The digest, or None.
    """

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        check_host(self.host)
        check_repository(self.repository)
        if self.tag is not None:
            check_tag(self.tag)
        if self.digest is not None:
            object.__setattr__(self, "digest", Digest(self.digest))

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a reference as ``docker pull`` does.

        The first component is a host if it has a dot or a colon, is ``localhost``, or is not in lower case. Otherwise
        the host is Docker Hub, and ``library/`` is added to a name of one component.

        Raises:
            UsageError: The text is not a reference, or is an image id of 64 hexadecimal digits.
        """
        match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise UsageError(
                f"not a reference: {safe_repr(text, 300)} (a reference reads HOST/NAME:TAG or HOST/NAME@DIGEST)"
            )
        name, tag, digest = match.groups()
        if re.fullmatch(r"[a-f0-9]{64}", text):
            raise UsageError(f"not a reference: {text!r:.300} (it reads like an image id, which no registry knows)")
        host, repository = _split_host(name)
        if repository != repository.lower():
            raise UsageError(f"not a reference: {text!r:.300} (a repository name is in lower case)")
        return cls(host, repository, tag, None if digest is None else Digest(digest))

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.host}/{self.repository}{tag}{digest}"


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = slash and (any(c in first for c in ".:") or first == "localhost" or first != first.lower())
    host, repository = (first, rest) if is_host else (DOCKER_HUB, name)
    if host == "index.docker.io":
        host = DOCKER_HUB
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return host, repository
