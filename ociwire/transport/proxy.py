"""Which proxy an origin is reached through, if any: the caller's, or the environment's as `urllib.request` reads it."""

from __future__ import annotations

from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote

from ..errors import UsageError
from ..origin import Origin, is_loopback, split_url

__all__ = ["Proxies", "Proxy"]


class Proxy(NamedTuple):
    """Where a proxy listens, and what it is sent. Its repr is without the password.

    Attributes:
        origin: The proxy.
        headers: ``Proxy-Authorization``, if there was userinfo.
    """

    origin: Origin
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"<Proxy {self.origin}{' with credentials' if self.headers else ''}>"


class Proxies:
    """Chooses the proxy for each origin. Loopback is never proxied.

    Args:
        proxy: A proxy's URL, ``http://[user:password@]host[:port]``, for every origin; it wins over the environment.
        trust_env: Whether ``http_proxy`` and ``https_proxy`` count, which are read here, and ``no_proxy``, which is
            read when an origin is first asked.

    Raises:
        UsageError: The proxy's URL is not valid, or of a scheme other than http and https.
    """

    def __init__(self, proxy: str | None, *, trust_env: bool) -> None:
        from urllib.request import getproxies, proxy_bypass  # costs an import that a fake transport does without

        self._given = None if proxy is None else _parse(proxy)
        self._environment = getproxies() if trust_env and proxy is None else {}
        self._bypass = proxy_bypass

    def of(self, origin: Origin) -> Proxy | None:
        """The proxy for an origin, or None.

        Raises:
            UsageError: The environment's proxy URL is not valid, or of a scheme other than http and https.
        """
        if is_loopback(origin.host):
            return None
        if self._given is not None:
            return self._given
        url = self._environment.get(origin.scheme)
        if not url or self._bypass(f"{origin.host.strip('[]')}:{origin.port}"):
            return None
        return _parse(url)


def _parse(url: str) -> Proxy:
    if not isinstance(url, str):
        raise UsageError(f"not a proxy URL: {type(url).__name__} (http://[user:password@]host[:port])")
    # `curl` and the rest of the world take a bare host:port too.
    scheme, separator, rest = url.rpartition("://")
    userinfo, at, address = rest.rpartition("@")
    try:
        origin, _ = split_url(f"{scheme if separator else 'http'}://{address}")
    except UsageError as error:
        raise UsageError(f"not a proxy URL: {error} (http://[user:password@]host[:port])") from None
    if not at:
        return Proxy(origin, {})
    user, _, password = userinfo.partition(":")  # RFC 7617: there is a colon, whether there is a password or not
    credentials = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")
    return Proxy(origin, {"Proxy-Authorization": f"Basic {credentials}"})
