"""Makes a value for each key once, however many threads ask for it at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["KeyedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class KeyedCache(Generic[K, V]):
    """Keeps what was made. A maker that takes its time holds up only those who ask for the same key.

    Args:
        limit: How many values are kept; beyond it the oldest is let go.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._making: dict[K, threading.RLock] = {}
        self._kept: dict[K, V] = {}

    def get(self, key: K, make: Callable[[K], V]) -> V:
        """The value of a key; what `make` raises is passed on, and nothing is kept then."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        with self._lock:
            making = self._making.setdefault(key, threading.RLock())
        try:
            with making:
                made = self._kept.get(key)
                return self._keep(key, make(key)) if made is None else made
        finally:
            with self._lock:
                self._making.pop(key, None)

    def _keep(self, key: K, value: V) -> V:
        with self._lock:
            while len(self._kept) >= self._limit:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = value
        return value

    def take_all(self) -> list[V]:
        """All that is kept; nothing is, afterwards."""
        with self._lock:
            kept, self._kept = self._kept, {}
        return list(kept.values())
