"""URLs: parsing, validation, and resolving what a server sends in Location and Link.

An origin is a scheme, a host and a port with its default filled in (RFC 6454). Userinfo in a URL is refused everywhere:
it is a secret in a place that is logged.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, final
from urllib.parse import urljoin

from .._oci.host import is_host, redact_url, split_port
from ..errors import UsageError

__all__ = ["Origin", "check_url", "resolve_url", "split_url"]

_URL = re.compile(r"(https?)://([^/?#\\]*)([^#]*)(?:#.*)?", re.IGNORECASE)
# A backslash is a slash to some and part of the host to others: no URL that can be read in two ways is followed.
_HOSTLESS = re.compile(r"(?:https?:(?!//[^/?#])|//(?![^/?#]))", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[^!-~]|\\")
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f\\]")
# RFC 3986, section 2: characters that no URL has, though servers send them in Location and Link. Browsers encode them;
# Tomcat, and so Artifactory, answers 400 to a raw one.
_UNENCODED = re.compile(r'[^!-~]|["<>^`{|}]')
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST_CACHED = 2048
"""Maximum length of a cached URL: a registry may send many Locations and Links of 64 KiB."""


@final
class Origin(NamedTuple):
    """Scheme, host and port: what a secret belongs to.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Lower case; an IPv6 address in its brackets.
        port: Never the absence of one.
    """

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """What the Host header says, which is ``host``, or ``host:port`` where the port is not the scheme's default."""
        return self.host if _DEFAULT_PORTS[self.scheme] == self.port else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an absolute http or https URL.

        Raises:
            UsageError: It is no such URL, has userinfo in it, or its host or port is not valid.
        """
        return split_url(url)[0]


def split_url(url: str) -> tuple[Origin, str]:
    """An absolute URL as its origin and the request target (path and query, at least ``/``); the fragment is dropped.

    Raises:
        UsageError: It is not an absolute http or https URL, has userinfo in it, or its host or port is not valid.
    """
    text = _text(url)
    return _split(text) if len(text) <= _LONGEST_CACHED else _split.__wrapped__(text)


@lru_cache(maxsize=1024)  # every layer of a stack asks
def _split(url: str) -> tuple[Origin, str]:
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None:
        raise UsageError(f"not an absolute http or https URL: {redact_url(url)!r}")
    scheme, netloc, target = match.groups()
    origin = _origin(scheme.lower(), netloc)
    return origin, target if target.startswith("/") else f"/{target}"


def check_url(url: str) -> None:
    """Refuse a URL that could not be sent as it is: neither absolute nor a path, or with characters that no URL holds.

    Raises:
        UsageError: It is one of these.
    """
    if _text(url).startswith("/"):
        _check_characters(url)
    elif url[:8].lower().startswith(("http://", "https://")):
        split_url(url)
    else:
        _check_characters(url)
        raise UsageError(f"not a URL: {redact_url(url)!r} (a URL begins with http://, https:// or, as a path, with /)")


def _text(url: object) -> str:
    if not isinstance(url, str):
        raise UsageError(f"a URL is a str, not {type(url).__name__}")
    return url


def _check_characters(url: str) -> None:
    if _FORBIDDEN.search(url):
        raise UsageError(f"not a URL: {redact_url(url)!r} holds a character that must be percent-encoded")


@lru_cache(maxsize=1024)
def _origin(scheme: str, netloc: str) -> Origin:
    if "@" in netloc:
        raise UsageError(
            f"userinfo in a URL is refused: {redact_url(f'{scheme}://{netloc}')} (remove it; pass the credentials as"
            " credentials=StaticCredentials(host, credential) to default_transport)"
        )
    if not is_host(netloc):
        # Not shown: in https://user:pass/word@host/ this is the beginning of a password.
        raise UsageError(f"invalid URL {scheme}://***: expected HOST or HOST:PORT after {scheme}://")
    name, port = split_port(netloc.lower())
    return Origin(scheme, name, _DEFAULT_PORTS[scheme] if port is None else port)


def resolve_url(base: str, reference: str) -> tuple[str, Origin]:
    """A URL reference (RFC 3986, section 5) as an absolute URL without its fragment, and its origin.

    Raises:
        UsageError: It is no http or https URL, could be read in two ways, or has userinfo in it.
    """
    if _AMBIGUOUS.search(reference):
        raise UsageError(
            f"not a URL: {redact_url(reference)!r} holds a control character or a backslash, which parsers read in"
            " different ways"
        )
    reference = _UNENCODED.sub(_percent_encoded, reference)
    if _HOSTLESS.match(reference):
        raise UsageError(f"not a URL: {redact_url(reference)!r} has no host where one belongs")
    try:
        url = urljoin(base, reference)
    except ValueError:  # its text repeats the netloc, which may hold a password
        raise UsageError(f"not a URL: {redact_url(reference)!r} has no valid host") from None
    return url.partition("#")[0], Origin.of(url)


def _percent_encoded(match: re.Match[str]) -> str:
    # A header arrives as latin-1: each character up to U+00FF stands for the byte that the server sent.
    character = match[0]
    data = character.encode("latin-1") if character <= "\xff" else character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)
