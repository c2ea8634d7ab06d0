"""A pool of connections for each origin, made once with the TLS context and the proxy that the origin gets."""

from __future__ import annotations

import threading
from typing import Any, final

import urllib3

from ..errors import UsageError
from ..origin import Origin
from .connection import WirePool, WireTLSPool
from .proxy import Proxies
from .tls import Contexts

__all__ = ["OriginPool", "Pools"]

_MAX_ORIGINS = 256
"""How many pools are kept; beyond it the oldest is let go, with its idle connections."""


@final
class OriginPool:
    """The connections of one origin.

    Attributes:
        urllib3_pool: urllib3's pool, whose connections are ours.
        target_prefix: What stands before a request's target: the origin itself where a proxy forwards plain http
            (RFC 9112, section 3.2.2), else nothing.
    """

    __slots__ = ("target_prefix", "urllib3_pool")

    def __init__(self, urllib3_pool: urllib3.HTTPConnectionPool, target_prefix: str) -> None:
        self.urllib3_pool = urllib3_pool
        self.target_prefix = target_prefix


@final
class Pools:
    """The pools of a transport. Shared by threads.

    Args:
        contexts: Where TLS contexts come from.
        proxies: Which proxy an origin is reached through.
        pool_size: How many idle connections a pool keeps.
    """

    def __init__(self, contexts: Contexts, proxies: Proxies, pool_size: int) -> None:
        self._contexts = contexts
        self._proxies = proxies
        self._pool_size = pool_size
        self._lock = threading.Lock()
        self._pools: dict[Origin, OriginPool] = {}
        self._making: dict[Origin, threading.RLock] = {}
        self._closed = False

    def of(self, origin: Origin) -> OriginPool:
        """The pool of an origin.

        Raises:
            UsageError: The pools are closed, or the origin's certificates or proxy cannot be used.
        """
        pool = self._pools.get(origin)
        if pool is not None:
            return pool
        with self._lock:
            self._check_open()
            making = self._making.setdefault(origin, threading.RLock())
        # One lock an origin: a caller's function may be asked for the context, once, and may take its time.
        try:
            with making:
                return self._pools.get(origin) or self._keep(origin, self._make(origin))
        finally:
            with self._lock:
                self._making.pop(origin, None)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the transport is closed")

    def _keep(self, origin: Origin, pool: OriginPool) -> OriginPool:
        with self._lock:
            self._check_open()
            if len(self._pools) >= _MAX_ORIGINS:
                self._pools.pop(next(iter(self._pools)))
            self._pools[origin] = pool
        return pool

    def _make(self, origin: Origin) -> OriginPool:
        options: dict[str, Any] = {"maxsize": self._pool_size, "block": False}
        if origin.scheme == "https":
            options["ssl_context"] = self._contexts.of(origin)
        proxy = self._proxies.of(origin)
        manager: urllib3.PoolManager
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            secure = proxy.origin.scheme == "https"
            manager = urllib3.ProxyManager(
                str(proxy.origin),
                proxy_headers=proxy.headers,
                proxy_ssl_context=self._contexts.of(proxy.origin) if secure else None,
                **options,
            )
        manager.pool_classes_by_scheme = {"http": WirePool, "https": WireTLSPool}
        pool = manager.connection_from_host(origin.host, origin.port, origin.scheme)
        forwarded = proxy is not None and origin.scheme == "http"
        return OriginPool(pool, str(origin) if forwarded else "")

    def close(self) -> None:
        """Close all idle connections and refuse further pools. Connections in use are closed when they come back."""
        with self._lock:
            self._closed = True
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.urllib3_pool.close()
