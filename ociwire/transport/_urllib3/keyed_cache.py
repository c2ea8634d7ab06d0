"""Cache that creates the value of each key only once, even if several threads request it at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..._bounded_cache import BoundedCache

__all__ = ["KeyedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class KeyedCache(Generic[K, V]):
    """Thread-safe cache with a lock for each key: creating a value blocks only threads that request the same key.

    Args:
        limit: Maximum number of values. If it is exceeded, the oldest value is evicted.
    """

    def __init__(self, limit: int) -> None:
        self._values: BoundedCache[K, V] = BoundedCache(limit)
        self._lock = threading.Lock()
        # Reentrant, because `factory` may call `get`: the TLS context of a host falls back to the shared context. The
        # lock of a host is always acquired before the lock of the shared context, so that threads cannot deadlock.
        self._key_locks: dict[K, threading.RLock] = {}

    def get(self, key: K, factory: Callable[[K], V]) -> V:
        """Return the value of a key. `factory` creates a missing value; an exception that it raises is not cached."""
        value = self._values.get(key)
        if value is not None:
            return value
        with self._lock:
            key_lock = self._key_locks.setdefault(key, threading.RLock())
        try:
            with key_lock:
                value = self._values.get(key)  # another thread may have created it during the wait
                if value is None:
                    value = factory(key)
                    self._values.put(key, value)
                return value
        finally:
            with self._lock:
                self._key_locks.pop(key, None)

    def pop_all(self) -> list[V]:
        """Remove all values from the cache and return them."""
        return self._values.pop_all()
