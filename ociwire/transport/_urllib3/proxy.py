"""Selection of the proxy for an origin, from an argument or from the environment.

There is no specification of ``no_proxy``. Its entries are separated by commas or white space, and match as in curl,
with two additions of Go (golang.org/x/net/http/httpproxy): ``HOST:PORT`` and ``*.DOMAIN``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ..._http.origin_policy import is_loopback
from ..._http.urls import Origin, split_url
from ...errors import UsageError

__all__ = ["ProxySelector", "Proxy"]

_EXPECTED = "http://[user:password@]host[:port]"
_PROXY = re.compile(r"(?:([a-z][a-z0-9+.-]*)://)?(?:(.*)@)?([^@]*)", re.DOTALL | re.IGNORECASE)


class Proxy(NamedTuple):
    """A proxy. Its repr does not contain the password.

    Attributes:
        origin: Origin of the proxy.
        headers: Headers to send to the proxy: ``Proxy-Authorization`` if its URL has userinfo; otherwise empty.
    """

    origin: Origin
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"<Proxy {self.origin}{' with credentials' if self.headers else ''}>"


class ProxySelector:
    """Selects the proxy for each origin. Loopback hosts never use a proxy.

    Args:
        proxy: URL of the proxy for every origin, ``http://[user:password@]host[:port]``. Overrides the environment.
            `None` means the environment.
        trust_env: Whether to use ``http_proxy``, ``https_proxy`` and ``no_proxy``, in lower or upper case. The
            constructor reads them once. ``HTTP_PROXY`` is ignored if ``REQUEST_METHOD`` is set, because the client of a
            CGI program can set it with a header (CVE-2016-1000110).

    Raises:
        UsageError: The URL of the proxy is invalid, or its scheme is not http or https.
    """

    def __init__(self, proxy: str | None, *, trust_env: bool) -> None:
        from urllib.request import getproxies  # deferred: the import is slow, and a fake transport does not need it

        self._explicit = None if proxy is None else _parse(proxy)
        self._environment = getproxies() if trust_env and proxy is None else {}

    def get(self, origin: Origin) -> Proxy | None:
        """Return the proxy for an origin; `None` for a direct connection.

        Raises:
            UsageError: The URL of the proxy in the environment is invalid, or its scheme is not http or https.
        """
        if is_loopback(origin.host):
            return None
        if self._explicit is not None:
            return self._explicit
        url = self._environment.get(origin.scheme)
        if not url or should_bypass_proxy(self._environment.get("no", ""), origin):
            return None
        return _parse(url)


def should_bypass_proxy(no_proxy: str, origin: Origin) -> bool:
    """Return whether ``no_proxy`` matches an origin. Names are not resolved.

    An entry is ``*`` (any host), an IP address, a network (``10.0.0.0/8``), a domain (with its subdomains, with or
    without a leading dot) or ``*.DOMAIN`` (only its subdomains). All except networks may have a port. IPv6 addresses
    may be in brackets.
    """
    address = _address(origin.host)
    return any(_matches(entry, origin, address) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _matches(entry: str, origin: Origin, address: IPv4Address | IPv6Address | None) -> bool:
    if entry == "*":
        return True
    if address is not None and "/" in entry:
        try:  # not strict: curl and Go ignore host bits, as in 10.1.2.3/8
            return address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            return False
    name, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and _address(entry) is None:
        if int(port) != origin.port:
            return False
        entry = name
    if address is not None:
        return _address(entry) == address
    includes_itself = not entry.startswith("*.")
    domain = entry.removeprefix("*").strip(".")
    return origin.host.endswith(f".{domain}") or (includes_itself and origin.host == domain)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _parse(url: str) -> Proxy:
    if not isinstance(url, str):
        raise UsageError(f"invalid proxy URL: expected {_EXPECTED}, got {type(url).__name__}")
    # As in curl, the scheme is optional. It ends at the first ://, because a password may also contain ://.
    match = _PROXY.fullmatch(url)
    scheme, userinfo, address = match.groups() if match else ("", None, "")
    if (scheme or "http").lower() not in ("http", "https"):
        # The scheme is not quoted: in user://word@host, it is a user name.
        kind = "SOCKS proxies are not supported" if scheme.lower().startswith("socks") else "unknown scheme"
        raise UsageError(f"invalid proxy URL: {kind}, expected {_EXPECTED}")
    problem = ""
    credentials = b""
    try:
        origin, _ = split_url(f"{scheme or 'http'}://{address}")
        if userinfo is not None:
            user, _, password = userinfo.partition(":")  # RFC 7617, section 2: the colon is required
            credentials = b":".join(
                unquote_to_bytes(text.encode("utf-8", "surrogateescape")) for text in (user, password)
            )
    except UnicodeError:  # not chained: the exception contains the password
        problem = "the user or the password is not Unicode text"
    except UsageError:  # not chained: the exception may contain a part of the password
        problem = "the host or port is invalid"
    if problem:
        raise UsageError(f"invalid proxy URL: {problem}, expected {_EXPECTED} (percent-encode special characters)")
    if userinfo is None:
        return Proxy(origin, {})
    return Proxy(origin, {"Proxy-Authorization": f"Basic {b64encode(credentials).decode('ascii')}"})
