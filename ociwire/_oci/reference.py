"""References in the syntax of ``docker pull``, and validation of repository names and tags.

References follow the grammar of the distribution project (``HOST/NAME:TAG@DIGEST``), except that hosts may contain
underscores, which Docker refuses. Repository names and tags follow the OCI distribution specification, "Pulling
manifests".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

from .._argument_checks import safe_repr
from ..errors import UsageError
from .digest import Digest
from .host import DEFAULT_PORTS, check_host, redact_url

__all__ = ["DOCKER_HUB", "Reference", "check_repository", "check_tag", "registry_name"]

DOCKER_HUB = "docker.io"
"""The host of Docker Hub in references. Requests go to ``registry-1.docker.io``."""

_HUB_ALIASES = frozenset({DOCKER_HUB, f"index.{DOCKER_HUB}", f"registry-1.{DOCKER_HUB}"})

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_MAX_NAME = 255
# The name ends where a tag begins (the last colon, if no slash follows it) or where a digest begins (an @).
_REFERENCE = re.compile(r"([^@]+?)(?::([^/:@]*))?(?:@(.*))?", re.DOTALL)


def registry_name(host: str, scheme: str = "https") -> str:
    """Return the name under which credentials of a registry are stored: lower case, without the default port.

    All hosts of Docker Hub have the same name, `DOCKER_HUB`.

    Args:
        host: ``host`` or ``host:port``.
        scheme: The scheme whose default port is removed. Defaults to ``https``.

    Raises:
        UsageError: The host is invalid.
    """
    name = check_host(host).removesuffix(f":{DEFAULT_PORTS.get(scheme, DEFAULT_PORTS['https'])}")
    return DOCKER_HUB if name in _HUB_ALIASES else name


def check_repository(name: str) -> str:
    """Validate the name of a repository, such as ``library/alpine``, and return it.

    Raises:
        UsageError: The name is invalid, or longer than 255 characters.
    """
    if not isinstance(name, str) or not _REPOSITORY.fullmatch(name):
        raise UsageError(
            f"invalid repository name {safe_repr(name, 300)}: expected components of lower case letters and digits,"
            " separated by '/', with '.', '_', '__' or any number of '-' inside a component"
        )
    if len(name) > _MAX_NAME:
        raise UsageError(
            f"invalid repository name {safe_repr(name, 80)}: expected at most {_MAX_NAME} characters, got {len(name)}"
        )
    return name


def check_tag(tag: str) -> str:
    """Validate a tag, such as ``3.20``, and return it.

    Raises:
        UsageError: The tag is invalid.
    """
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise UsageError(
            f"invalid tag {safe_repr(tag, 300)}: expected 1 to 128 characters of [A-Za-z0-9_.-], the first of"
            " [A-Za-z0-9_]"
        )
    return tag


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """Reference to a repository of a registry, with an optional tag and an optional digest.

    >>> reference = Reference.parse("alpine:3.20")
    >>> reference.host, reference.repository, reference.tag
    ('docker.io', 'library/alpine', '3.20')
    >>> str(Reference("ghcr.io", "org/app", "v1"))
    'ghcr.io/org/app:v1'

    Attributes:
        host: Host of the registry, unchanged; ``docker.io`` if the parsed text has no host.
        repository: Name of the repository, such as ``library/alpine`` if ``alpine`` was parsed.
        tag: Tag, or `None`. It does not default to ``latest``.
        digest: Digest, or `None`.

    Raises:
        UsageError: A field is invalid.
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
        """Parse a reference in the same way as ``docker pull``.

        The first component is the host if it contains a dot, a colon or an upper case letter, or is ``localhost``.
        Otherwise the host is Docker Hub, and a name of one component is prefixed with ``library/``.

        Raises:
            UsageError: The text is not a reference, or is an image ID of 64 hexadecimal digits.
        """
        match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise UsageError(f"invalid reference {safe_repr(text, 300)}: expected HOST/NAME:TAG or HOST/NAME@DIGEST")
        name, tag, digest = match.groups()
        if re.fullmatch(r"[a-f0-9]{64}", text):
            raise UsageError(
                f"invalid reference {safe_repr(text, 300)}: expected HOST/NAME:TAG or HOST/NAME@DIGEST, got an image ID"
            )
        if "://" in name:
            raise UsageError(
                f"invalid reference {safe_repr(redact_url(text), 300)}: expected HOST/NAME:TAG or HOST/NAME@DIGEST,"
                " without a scheme"
            )
        host, repository = _split_host(name)
        if repository != repository.lower():
            raise UsageError(f"invalid reference {safe_repr(text, 300)}: expected a repository name in lower case")
        return cls(host, repository, tag, None if digest is None else Digest(digest))

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.host}/{self.repository}{tag}{digest}"


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = slash and (any(c in first for c in ".:") or first == "localhost" or first != first.lower())
    host, repository = (first, rest) if is_host else (DOCKER_HUB, name)
    if host == "index.docker.io":  # the host of the index in Docker's registry API version 1
        host = DOCKER_HUB
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return host, repository
