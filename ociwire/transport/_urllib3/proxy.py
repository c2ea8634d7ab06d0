"""Select the proxy for an origin: the caller's, or that of the environment as curl and Go read it.

``no_proxy`` has no specification. Entries are separated by commas or white space, and match as in curl, with two
additions of Go's golang.org/x/net/http/httpproxy that curl does not have: ``HOST:PORT`` and ``*.DOMAIN``.
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
    """The origin of a proxy, and the headers to send to it. Its repr has no password.

    Attributes:
        origin: The proxy's origin.
        headers: ``Proxy-Authorization``, if the URL had userinfo.
    """

    origin: Origin
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"<Proxy {self.origin}{' with credentials' if self.headers else ''}>"


class ProxySelector:
    """Selects the proxy for each origin. Loopback is never proxied.

    Args:
        proxy: A proxy's URL, ``http://[user:password@]host[:port]``, for every origin. Overrides the environment.
        trust_env: Whether to use ``http_proxy``, ``https_proxy`` and ``no_proxy``, in lower or upper case. They are
            read once, by the constructor. ``HTTP_PROXY`` is ignored if ``REQUEST_METHOD`` is set, because a client of a
            CGI program can set it with a header.

    Raises:
        UsageError: The proxy's URL is not valid, or of a scheme other than http and https.
    """

    def __init__(self, proxy: str | None, *, trust_env: bool) -> None:
        from urllib.request import getproxies  # deferred: a program with a fake transport does not need it

        self._explicit = None if proxy is None else _parse(proxy)
        self._environment = getproxies() if trust_env and proxy is None else {}

    def get(self, origin: Origin) -> Proxy | None:
        """Return the proxy for an origin, or None.

        Raises:
            UsageError: The environment's proxy URL is not valid, or of a scheme other than http and https.
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
    """Whether ``no_proxy`` names an origin. Names are not resolved.

    An entry is ``*`` (everything), an IP address, a network (``10.0.0.0/8``), a domain (which includes its subdomains,
    with or without a leading dot) or ``*.DOMAIN`` (its subdomains alone). All but networks may have a port. IPv6
    addresses may be in brackets.
    """
    address = _address(origin.host)
    return any(_matches(entry, origin, address) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _matches(entry: str, origin: Origin, address: IPv4Address | IPv6Address | None) -> bool:
    if entry == "*":
        return True
    if address is not None and "/" in entry:
        try:  # host bits may be set, as in 10.1.2.3/8: curl and Go ignore them
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
    # curl and others take a bare host:port, too. The scheme ends at the first ://; a password may hold another.
    match = _PROXY.fullmatch(url)
    scheme, userinfo, address = match.groups() if match else ("", None, "")
    if (scheme or "http").lower() not in ("http", "https"):
        # Not shown unless it is a known scheme: in user://word@host it is a user name.
        kind = "SOCKS proxies are not supported" if scheme.lower().startswith("socks") else "unknown scheme"
        raise UsageError(f"invalid proxy URL: {kind}, expected {_EXPECTED}")
    problem = ""
    credentials = b""
    try:
        origin, _ = split_url(f"{scheme or 'http'}://{address}")
        if userinfo is not None:
            user, _, password = userinfo.partition(":")  # RFC 7617: there is a colon, with or without a password
            credentials = b":".join(
                unquote_to_bytes(text.encode("utf-8", "surrogateescape")) for text in (user, password)
            )
    except UnicodeError:  # it holds the password
        problem = "the user or the password is not Unicode text"
    except UsageError:  # it may hold a part of the password
        problem = "the host or port is invalid"
    if problem:
        raise UsageError(
            f"invalid proxy URL: {problem}, expected {_EXPECTED} (percent-encode what has a meaning in URLs)"
        )
    if userinfo is None:
        return Proxy(origin, {})
    return Proxy(origin, {"Proxy-Authorization": f"Basic {b64encode(credentials).decode('ascii')}"})
