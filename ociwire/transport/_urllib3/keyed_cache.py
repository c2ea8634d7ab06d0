"""A cache that makes the value of each key once, even if several threads ask for it at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..._bounded_cache import BoundedCache

__all__ = ["KeyedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class KeyedCache(Generic[K, V]):
    """Thread-safe cache. While a value is made, only threads that ask for the same key wait.

    Args:
        limit: Maximum number of values. Beyond it the oldest is evicted.
    """

    def __init__(self, limit: int) -> None:
        self._values: BoundedCache[K, V] = BoundedCache(limit)
        self._lock = threading.Lock()
        # Reentrant, because making a value may get another one: a host's TLS context falls back to the shared one.
        self._key_locks: dict[K, threading.RLock] = {}

    def get(self, key: K, factory: Callable[[K], V]) -> V:
        """Return the value of a key; call `factory` if there is none. An exception of `factory` caches nothing."""
        value = self._values.get(key)
        if value is not None:
            return value
        with self._lock:
            key_lock = self._key_locks.setdefault(key, threading.RLock())
        try:
            with key_lock:
                value = self._values.get(key)  # another thread may have made it meanwhile
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
