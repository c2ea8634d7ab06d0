"""A thread-safe mapping of bounded size, for data whose amount registries and token servers decide."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Keeps the newest entries. No call blocks on anything but another call.

    Args:
        max_entries: Maximum number of entries.
        max_bytes: Maximum sum of the weights that `put` is given. An entry that weighs more is not kept.
    """

    def __init__(self, max_entries: int, max_bytes: int = 0) -> None:
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._lock = threading.Lock()
        self._entries: dict[K, tuple[V, int]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value of a key, if there is one."""
        entry = self._entries.get(key)  # atomic: no lock on the way of every request
        return None if entry is None else entry[0]

    def find(self, matches: Callable[[K, V], bool]) -> V | None:
        """The oldest value that matches, if there is one."""
        with self._lock:
            return next((value for key, (value, _) in self._entries.items() if matches(key, value)), None)

    def put(self, key: K, value: V, weight: int = 0) -> None:
        """Set the value of a key, and evict the oldest entries beyond the bounds."""
        with self._lock:
            self._remove(key)
            if weight > self._max_bytes:
                return
            while self._entries and (len(self._entries) >= self._max_entries or self._bytes + weight > self._max_bytes):
                self._remove(next(iter(self._entries)))
            self._entries[key] = (value, weight)
            self._bytes += weight

    def remove(self, matches: Callable[[K, V], bool]) -> None:
        """Remove all entries that match."""
        with self._lock:
            for key in [key for key, (value, _) in self._entries.items() if matches(key, value)]:
                self._remove(key)

    def pop_all(self) -> list[V]:
        """Remove all entries and return their values, the oldest first."""
        with self._lock:
            entries, self._entries = self._entries, {}
            self._bytes = 0
        return [value for value, _ in entries.values()]

    def _remove(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]
