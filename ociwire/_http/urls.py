"""Parsing and validation of URLs, and resolution of URL references in Location and Link headers.

Userinfo in a URL is always refused, because URLs are logged and userinfo is secret.
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
# References that have a scheme or ``//`` but no host: https:path and https:///path. Browsers and other parsers accept
# them.
_HOSTLESS = re.compile(r"(?:https?:(?!//[^/?#])|//(?![^/?#]))", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[^!-~]|\\")
# Browsers treat a backslash as a slash, other parsers treat it as part of the host, and some parsers remove control
# characters. Such a URL is refused, because it could pass a check for one host and be sent to another host.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f\\]")
# Characters that must be percent-encoded (RFC 3986, section 2), but that servers send in Location and Link. They are
# encoded as browsers do: Tomcat, and thus Artifactory, responds with 400 to a URL that contains them.
_UNENCODED = re.compile(r'[^!-~]|["<>^`{|}]')
_MAX_CACHED = 2048
"""Maximum length of a cached URL, because a registry may send many Locations and Links of 64 KiB."""


@final
class Origin(NamedTuple):
    """Origin of a URL: scheme, host and port (RFC 6454). Credentials belong to an origin.

    >>> origin = Origin.of("https://Registry.Example/v2/")
    >>> origin.host, origin.port, str(origin)
    ('registry.example', 443, 'https://registry.example')

    Attributes:
        scheme: ``http`` or ``https``.
        host: Host in lower case; an IPv6 address is in brackets.
        port: Port; the default port of the scheme if the URL has none.
    """

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """The value of the Host header: ``host``, or ``host:port`` if the port is not the default port."""
        return self.host if DEFAULT_PORTS[self.scheme] == self.port else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of an absolute http or https URL.

        Raises:
            UsageError: The URL is not absolute, has userinfo, or its host or port is invalid.
        """
        return split_url(url)[0]


def split_url(url: str) -> tuple[Origin, str]:
    """Split an absolute URL into its origin and its request target.

    The request target is the path (at least ``/``) and the query, without the fragment (RFC 9112, section 3.2.1).

    Raises:
        UsageError: The URL is not an absolute http or https URL, has userinfo, or its host or port is invalid.
    """
    url = _check_type(url)
    return _split(url) if len(url) <= _MAX_CACHED else _split.__wrapped__(url)


@lru_cache(maxsize=1024)  # several layers parse the URL of each request
def _split(url: str) -> tuple[Origin, str]:
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None:
        raise UsageError(f"invalid URL {redact_url(url)!r}: expected an absolute http or https URL")
    scheme, netloc, target = match.groups()
    origin = _origin(scheme.lower(), netloc)
    return origin, target if target.startswith("/") else f"/{target}"


def check_url(url: str) -> None:
    """Validate the URL of a request: an absolute http or https URL, or a path.

    Raises:
        UsageError: The URL is neither, contains a character that must be percent-encoded, has userinfo, or its host or
            port is invalid.
    """
    if _check_type(url).startswith("/"):
        _check_characters(url)
    elif url[:8].lower().startswith(("http://", "https://")):
        split_url(url)
    else:
        _check_characters(url)
        raise UsageError(
            f"invalid URL {redact_url(url)!r}: expected an http or https URL, or a path that begins with /"
        )


def _check_type(url: object) -> str:
    if not isinstance(url, str):
        raise UsageError(f"url must be a str, got {type(url).__name__}")
    return url


def _check_characters(url: str) -> None:
    if _FORBIDDEN.search(url):
        raise UsageError(f"invalid URL {redact_url(url)!r}: it contains a character that must be percent-encoded")


@lru_cache(maxsize=1024)
def _origin(scheme: str, netloc: str) -> Origin:
    if "@" in netloc:
        raise UsageError(
            f"invalid URL {redact_url(f'{scheme}://{netloc}')}: userinfo is not allowed (remove it, and pass"
            " credentials=StaticCredentials(host, credential) to default_transport)"
        )
    if not is_host(netloc):
        # The netloc is not quoted: in https://user:pass/word@host/, it contains the beginning of a password.
        raise UsageError(f"invalid URL {scheme}://***: expected HOST or HOST:PORT after {scheme}://")
    name, port = split_port(netloc.lower())
    return Origin(scheme, name, DEFAULT_PORTS[scheme] if port is None else port)


def resolve_url(base: str, reference: str) -> tuple[str, Origin]:
    """Resolve a URL reference (RFC 3986, section 5); return the absolute URL without its fragment, and its origin.

    Args:
        base: Absolute URL.
        reference: Absolute or relative URL that a server sent. Characters that must be percent-encoded are encoded.

    Raises:
        UsageError: The result is not an http or https URL or has userinfo, or parsers interpret the reference
            differently.
    """
    if _AMBIGUOUS.search(reference):
        raise UsageError(
            f"invalid URL {redact_url(reference)!r}: expected no control character and no backslash, which would make"
            " it ambiguous"
        )
    reference = _UNENCODED.sub(_percent_encode, reference)
    if _HOSTLESS.match(reference):
        raise UsageError(f"invalid URL {redact_url(reference)!r}: expected a host after the scheme")
    try:
        url = urljoin(base, reference)
    except ValueError:  # not chained: its text contains the netloc, which may be a password
        raise UsageError(f"invalid URL {redact_url(reference)!r}: expected a valid host") from None
    return url.partition("#")[0], Origin.of(url)


def _percent_encode(match: re.Match[str]) -> str:
    # Headers are decoded as latin-1, so a character up to U+00FF represents the byte that the server sent.
    character = match[0]
    data = character.encode("latin-1") if character <= "\xff" else character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)
