"""Connection pools: one for each origin, created on first use with the TLS context and proxy of the origin."""

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
"""Maximum number of pools. If it is exceeded, the oldest pool is evicted together with its idle connections."""


@final
class OriginPool:
    """Connection pool of an origin.

    Attributes:
        urllib3_pool: Pool of urllib3 with the connection classes of this package.
        target_prefix: Prefix of each request target. This is the origin if a proxy forwards plain http (absolute-form,
            RFC 9112, section 3.2.2); otherwise it is empty.
        proxy: URL of the proxy without its password; empty if no proxy is used.
    """

    __slots__ = ("proxy", "target_prefix", "urllib3_pool")

    def __init__(self, urllib3_pool: urllib3.HTTPConnectionPool, target_prefix: str, proxy: str) -> None:
        self.urllib3_pool = urllib3_pool
        self.target_prefix = target_prefix
        self.proxy = proxy

    def close(self) -> None:
        """Close idle connections immediately, and other connections when they are returned. Idempotent."""
        idle: Any = self.urllib3_pool.pool  # None once the pool is closed
        self.urllib3_pool.close()
        if idle is not None:
            idle.close()


@final
class PoolCache:
    """The connection pools of a transport. Thread-safe.

    Args:
        contexts: Cache of the TLS contexts.
        proxies: Selector of the proxy for an origin.
        pool_size: Maximum number of idle connections in each pool.
    """

    def __init__(self, contexts: TLSContextCache, proxies: ProxySelector, pool_size: int) -> None:
        self._contexts = contexts
        self._proxies = proxies
        self._pool_size = pool_size
        self._pools: KeyedCache[tuple[Origin, bool], OriginPool] = KeyedCache(_MAX_ORIGINS)
        self._closed = False

    def get(self, origin: Origin, *, anonymous: bool) -> OriginPool:
        """Return the pool of an origin.

        Anonymous https requests have a separate pool, because a TLS connection may be authenticated by a client
        certificate.

        Raises:
            UsageError: The transport is closed, or the certificates or the proxy of the origin are invalid.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        pool = self._pools.get((origin, anonymous and origin.scheme == "https"), self._make)
        if self._closed:  # another thread called close() meanwhile, and may not have closed the new pool
            pool.close()
            raise UsageError("the transport is closed")
        return pool

    def _make(self, key: tuple[Origin, bool]) -> OriginPool:
        origin, anonymous = key
        # Do not block when all connections are in use: a response that is left open must not stop other requests.
        # Connections beyond maxsize are closed when they are returned.
        options: dict[str, Any] = {"maxsize": self._pool_size, "block": False}
        if origin.scheme == "https":
            options["ssl_context"] = context = self._contexts.get(origin, anonymous=anonymous)
            if not context.check_hostname:
                # The user has passed a context that does not check host names. Without this option, urllib3 would check
                # the host name itself.
                options["assert_hostname"] = False
        proxy = self._proxies.get(origin)
        manager: urllib3.PoolManager
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            proxy_context = self._contexts.get(proxy.origin) if proxy.origin.scheme == "https" else None
            if origin.scheme == "http":
                options["ssl_context"] = proxy_context  # urllib3 2.0 uses this as the context for the proxy
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
        """Close idle connections, and refuse further requests. Other connections are closed when they are returned."""
        self._closed = True
        for pool in self._pools.pop_all():
            pool.close()
