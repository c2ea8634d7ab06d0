"""One connection pool per origin, created on first use with the origin's TLS context and proxy."""

from __future__ import annotations

from typing import Any, final

import urllib3

from ..._http.urls import Origin
from ...errors import UsageError
from .connection import WirePool, WireTLSPool
from .keyed_cache import KeyedCache
from .proxy import ProxySelector
from .tls import TLSContextCache

__all__ = ["OriginPool", "PoolCache"]

_MAX_ORIGINS = 256
"""Maximum number of pools. Beyond it the oldest is evicted together with its idle connections."""


@final
class OriginPool:
    """The connection pool of one origin.

    Attributes:
        urllib3_pool: urllib3's pool, which uses the connection classes of this package.
        target_prefix: Prefix of each request target: the origin if a proxy forwards plain http (absolute form,
            RFC 9112, section 3.2.2), else empty.
        proxy: The proxy's URL without its password; empty if there is none.
    """

    __slots__ = ("proxy", "target_prefix", "urllib3_pool")

    def __init__(self, urllib3_pool: urllib3.HTTPConnectionPool, target_prefix: str, proxy: str) -> None:
        self.urllib3_pool = urllib3_pool
        self.target_prefix = target_prefix
        self.proxy = proxy

    def close(self) -> None:
        """Close idle connections now and the others when they are returned. Idempotent."""
        idle: Any = self.urllib3_pool.pool  # None once the pool is closed
        self.urllib3_pool.close()
        if idle is not None:
            idle.close()


@final
class PoolCache:
    """The pools of a transport. Thread-safe.

    Args:
        contexts: Provides the TLS contexts.
        proxies: Selects the proxy for an origin.
        pool_size: Maximum number of idle connections of a pool.
    """

    def __init__(self, contexts: TLSContextCache, proxies: ProxySelector, pool_size: int) -> None:
        self._contexts = contexts
        self._proxies = proxies
        self._pool_size = pool_size
        self._pools: KeyedCache[tuple[Origin, bool], OriginPool] = KeyedCache(_MAX_ORIGINS)
        self._closed = False

    def get(self, origin: Origin, *, anonymous: bool) -> OriginPool:
        """Return the pool of an origin.

        Anonymous https requests have a pool of their own, because a TLS connection may carry a client certificate.

        Raises:
            UsageError: The pools are closed, or the origin's certificates or proxy cannot be used.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        pool = self._pools.get((origin, anonymous and origin.scheme == "https"), self._make)
        if self._closed:  # close() ran while the pool was made, and may have missed it
            pool.close()
            raise UsageError("the transport is closed")
        return pool

    def _make(self, key: tuple[Origin, bool]) -> OriginPool:
        origin, anonymous = key
        options: dict[str, Any] = {"maxsize": self._pool_size, "block": False}
        if origin.scheme == "https":
            options["ssl_context"] = context = self._contexts.get(origin, anonymous=anonymous)
            if not context.check_hostname:
                # The caller's own context disables the check; without this, urllib3 would check the name itself.
                options["assert_hostname"] = False
        proxy = self._proxies.get(origin)
        manager: urllib3.PoolManager
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            proxy_context = self._contexts.get(proxy.origin) if proxy.origin.scheme == "https" else None
            if origin.scheme == "http":
                options["ssl_context"] = proxy_context  # urllib3 2.0 reads the proxy's context from here
            manager = urllib3.ProxyManager(
                str(proxy.origin),
                proxy_headers=proxy.headers,
                proxy_ssl_context=proxy_context,
                **options,
            )
        manager.pool_classes_by_scheme = {"http": WirePool, "https": WireTLSPool}
        pool = manager.connection_from_host(origin.host, origin.port, origin.scheme)
        is_forwarded = proxy is not None and origin.scheme == "http"
        return OriginPool(pool, str(origin) if is_forwarded else "", "" if proxy is None else str(proxy.origin))

    def close(self) -> None:
        """Close idle connections now and the others when they are returned, and refuse further requests."""
        self._closed = True
        for pool in self._pools.pop_all():
            pool.close()
