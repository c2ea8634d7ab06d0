"""A pool of connections for each origin, made once with the TLS context and the proxy that the origin gets."""

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
"""How many pools are kept; beyond it the oldest is let go, with its idle connections."""


@final
class OriginPool:
    """The connections of one origin.

    Attributes:
        urllib3_pool: urllib3's pool, whose connections are ours.
        target_prefix: What stands before a request's target: the origin itself where a proxy forwards plain http
            (RFC 9112, section 3.2.2), else nothing.
        proxy: The proxy that they go through, without its password; empty if there is none.
    """

    __slots__ = ("proxy", "target_prefix", "urllib3_pool")

    def __init__(self, urllib3_pool: urllib3.HTTPConnectionPool, target_prefix: str, proxy: str) -> None:
        self.urllib3_pool = urllib3_pool
        self.target_prefix = target_prefix
        self.proxy = proxy

    def close(self) -> None:
        """Close all idle connections; those in use are closed when they come back. Idempotent."""
        idle: Any = self.urllib3_pool.pool  # None once it is closed
        self.urllib3_pool.close()
        if idle is not None:
            idle.close()


@final
class PoolCache:
    """The pools of a transport. Shared by threads.

    Args:
        contexts: Where TLS contexts come from.
        proxies: Which proxy an origin is reached through.
        pool_size: How many idle connections a pool keeps.
    """

    def __init__(self, contexts: TLSContextCache, proxies: ProxySelector, pool_size: int) -> None:
        self._contexts = contexts
        self._proxies = proxies
        self._pool_size = pool_size
        self._pools: KeyedCache[tuple[Origin, bool], OriginPool] = KeyedCache(_MAX_ORIGINS)
        self._closed = False

    def get(self, origin: Origin, *, anonymous: bool) -> OriginPool:
        """The pool of an origin; a TLS connection that was made as somebody is none for what is asked as nobody.

        Raises:
            UsageError: The pools are closed, or the origin's certificates or proxy cannot be used.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        pool = self._pools.get((origin, anonymous and origin.scheme == "https"), self._make)
        if self._closed:  # while the pool was made: close() may not have seen it
            pool.close()
            raise UsageError("the transport is closed")
        return pool

    def _make(self, key: tuple[Origin, bool]) -> OriginPool:
        origin, anonymous = key
        options: dict[str, Any] = {"maxsize": self._pool_size, "block": False}
        if origin.scheme == "https":
            options["ssl_context"] = context = self._contexts.get(origin, anonymous=anonymous)
            if not context.check_hostname:
                options["assert_hostname"] = False  # a caller's context is obeyed; urllib3 would check the name itself
        proxy = self._proxies.get(origin)
        manager: urllib3.PoolManager
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            proxy_context = self._contexts.get(proxy.origin) if proxy.origin.scheme == "https" else None
            if origin.scheme == "http":
                options["ssl_context"] = proxy_context  # where urllib3 2.0 takes it from
            manager = urllib3.ProxyManager(
                str(proxy.origin),
                proxy_headers=proxy.headers,
                proxy_ssl_context=proxy_context,
                **options,
            )
        manager.pool_classes_by_scheme = {"http": WirePool, "https": WireTLSPool}
        pool = manager.connection_from_host(origin.host, origin.port, origin.scheme)
        forwarded = proxy is not None and origin.scheme == "http"
        return OriginPool(pool, str(origin) if forwarded else "", "" if proxy is None else str(proxy.origin))

    def close(self) -> None:
        """Close all idle connections and refuse further pools. Connections in use are closed when they come back."""
        self._closed = True
        for pool in self._pools.take_all():
            pool.close()
