"""URLs: parsing, validation, and resolution of URL references from Location and Link headers.

An origin is a scheme, a host and a port, with the default port filled in (RFC 6454). Userinfo in a URL is refused
everywhere: it is a secret, and URLs are logged.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, final
from urllib.parse import urljoin

from .._oci.host import DEFAULT_PORTS, is_host, redact_url, split_port
from ..errors import UsageError

__all__ = ["Origin", "check_url", "resolve_url", "split_url"]

_URL = re.compile(r"(https?)://([^/?#\\]*)([^#]*)(?:#.*)?", re.IGNORECASE)
# References without a host that other parsers complete: https:path and https:///path.
_HOSTLESS = re.compile(r"(?:https?:(?!//[^/?#])|//(?![^/?#]))", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[^!-~]|\\")
# Browsers read a backslash as a slash, other parsers as part of the host, and some drop control characters: a URL that
# can be read in two ways is refused.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f\\]")
# Characters that must be percent-encoded (RFC 3986, section 2), though servers send them in Location and Link. Browsers
# encode them; Tomcat, and so Artifactory, answers 400 to a URL that has them raw.
_UNENCODED = re.compile(r'[^!-~]|["<>^`{|}]')
_MAX_CACHED = 2048
"""Maximum length of a cached URL: a registry may send many Locations and Links of 64 KiB."""


@final
class Origin(NamedTuple):
    """Scheme, host and port of a URL. Credentials belong to an origin.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Lower case; an IPv6 address is in brackets.
        port: The port; the default port of the scheme if the URL has none.
    """

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """``host``, or ``host:port`` if the port is not the default of the scheme, as in the Host header."""
        return self.host if DEFAULT_PORTS[self.scheme] == self.port else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an absolute http or https URL.

        Raises:
            UsageError: The URL is not absolute, has userinfo, or its host or port is not valid.
        """
        return split_url(url)[0]


def split_url(url: str) -> tuple[Origin, str]:
    """Split an absolute URL into its origin and request target (path and query, at least ``/``), without the fragment.

    Raises:
        UsageError: The URL is not an absolute http or https URL, has userinfo, or its host or port is not valid.
    """
    url = _check_type(url)
    return _split(url) if len(url) <= _MAX_CACHED else _split.__wrapped__(url)


@lru_cache(maxsize=1024)  # every layer of a stack parses the URL
def _split(url: str) -> tuple[Origin, str]:
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None:
        raise UsageError(f"not an absolute http or https URL: {redact_url(url)!r}")
    scheme, netloc, target = match.groups()
    origin = _origin(scheme.lower(), netloc)
    return origin, target if target.startswith("/") else f"/{target}"


def check_url(url: str) -> None:
    """Check that a URL can be sent: an absolute http or https URL or a path, without characters that must be encoded.

    Raises:
        UsageError: The URL cannot be sent.
    """
    if _check_type(url).startswith("/"):
        _check_characters(url)
    elif url[:8].lower().startswith(("http://", "https://")):
        split_url(url)
    else:
        _check_characters(url)
        raise UsageError(f"not a URL: {redact_url(url)!r} (a URL begins with http://, https:// or, as a path, with /)")


def _check_type(url: object) -> str:
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
        # The netloc is not shown: in https://user:pass/word@host/ it is the beginning of a password.
        raise UsageError(f"invalid URL {scheme}://***: expected HOST or HOST:PORT after {scheme}://")
    name, port = split_port(netloc.lower())
    return Origin(scheme, name, DEFAULT_PORTS[scheme] if port is None else port)


def resolve_url(base: str, reference: str) -> tuple[str, Origin]:
    """Resolve a URL reference (RFC 3986, section 5). Return the absolute URL without its fragment, and its origin.

    Raises:
        UsageError: The result is not an http or https URL, can be read in two ways, or has userinfo.
    """
    if _AMBIGUOUS.search(reference):
        raise UsageError(
            f"not a URL: {redact_url(reference)!r} holds a control character or a backslash, which parsers read in"
            " different ways"
        )
    reference = _UNENCODED.sub(_percent_encode, reference)
    if _HOSTLESS.match(reference):
        raise UsageError(f"not a URL: {redact_url(reference)!r} has no host where one belongs")
    try:
        url = urljoin(base, reference)
    except ValueError:  # from None: its text repeats the netloc, which may be a password
        raise UsageError(f"not a URL: {redact_url(reference)!r} has no valid host") from None
    return url.partition("#")[0], Origin.of(url)


def _percent_encode(match: re.Match[str]) -> str:
    # Headers are decoded as latin-1: a character up to U+00FF is a byte that the server sent.
    character = match[0]
    data = character.encode("latin-1") if character <= "\xff" else character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)
