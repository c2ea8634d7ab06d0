"""Thread-safe cache of bounded size, for data whose amount depends on registries and token servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Cache that evicts its oldest entries when it exceeds its bounds. Thread-safe.

    No I/O is done while its lock is held.

    Args:
        max_entries: Maximum number of entries.
        max_bytes: Maximum total weight of the entries; see `put`. An entry with a greater weight is not stored.
    """

    def __init__(self, max_entries: int, max_bytes: int = 0) -> None:
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._lock = threading.Lock()
        self._entries: dict[K, tuple[V, int]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value of a key, or `None` if the key is not cached."""
        entry = self._entries.get(key)  # no lock: `dict.get` is atomic, and each request looks up entries
        return None if entry is None else entry[0]

    def find(self, matches: Callable[[K, V], bool]) -> V | None:
        """Return the oldest value for which ``matches(key, value)`` is true, or `None` if there is none."""
        with self._lock:
            return next((value for key, (value, _) in self._entries.items() if matches(key, value)), None)

    def put(self, key: K, value: V, weight: int = 0) -> None:
        """Set the value of a key, and evict the oldest entries until the bounds are met.

        Args:
            key: The key. An existing entry is replaced, and counts as the newest one.
            value: The value.
            weight: The size of the entry in bytes, as counted against `max_bytes`. Defaults to 0.
        """
        with self._lock:
            self._remove(key)
            if weight > self._max_bytes:
                return
            while self._entries and (len(self._entries) >= self._max_entries or self._bytes + weight > self._max_bytes):
                self._remove(next(iter(self._entries)))
            self._entries[key] = (value, weight)
            self._bytes += weight

    def remove(self, matches: Callable[[K, V], bool]) -> None:
        """Remove all entries for which ``matches(key, value)`` is true."""
        with self._lock:
            for key in [key for key, (value, _) in self._entries.items() if matches(key, value)]:
                self._remove(key)

    def pop_all(self) -> list[V]:
        """Remove all entries and return their values, oldest first."""
        with self._lock:
            entries, self._entries = self._entries, {}
            self._bytes = 0
        return [value for value, _ in entries.values()]

    def _remove(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]
