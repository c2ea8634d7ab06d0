"""Divides a download into parts and assigns them to threads. No I/O.

State of a part::

    state      event                                                next state
    free       a thread is about to request it                      requested
    requested  the registry answers with that range                 taken
               the registry does not                                free
    free,      the caller's stream reaches its start before that    taken
    requested
    taken      all of its bytes are in the file                     done
               the connection is lost                               free, from `position` on

Only parts in a window after the first incomplete part are assigned. Bytes after a gap are hashed only when the gap is
filled. If the process is killed before that, the next call downloads these bytes again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

__all__ = ["MAX_WORKERS", "Part", "PartScheduler", "part_size_for"]

MAX_WORKERS = 64
_MIN_PART_SIZE, _MAX_PART_SIZE = 64 * 1024 * 1024, 256 * 1024 * 1024
_PARTS_PER_WORKER = 16
_MAX_PARTS = 4096
_WINDOW_PER_WORKER = 2


def part_size_for(size: int, workers: int, requested: int | None) -> int:
    """Return the part size for `size` bytes: the requested size, or a larger one if there would be over 4096 parts.

    The default is large, because each part requires a request and often a redirect, but small enough that all threads
    finish at about the same time.
    """
    if requested is not None:
        return max(requested, -(-size // _MAX_PARTS))
    return min(max(size // (_PARTS_PER_WORKER * workers), _MIN_PART_SIZE), _MAX_PART_SIZE)


@final
@dataclass(slots=True, eq=False)
class Part:
    """The bytes from `start` to `stop` (exclusive). The bytes before `position` are in the file."""

    index: int
    start: int
    stop: int
    position: int
    state: Literal["free", "requested", "taken"] = "free"  # the part is done when `position` equals `stop`


@final
class PartScheduler:
    """Divides the bytes from `start` to `stop` into parts and assigns them in ascending order. Thread-safe.

    `check` is called before each wait, and raises an exception if the download is cancelled; `wake` ends all waits.
    """

    def __init__(
        self, start: int, stop: int, part_size: int, workers: int, check: Callable[[], object] = lambda: None
    ) -> None:
        starts = range(start, stop, max(1, part_size))
        self.parts = [Part(index, at, min(at + part_size, stop), at) for index, at in enumerate(starts)]
        self._first = 0  # index of the first part that is not done
        self._window = _WINDOW_PER_WORKER * workers
        self._stop = stop
        self.check = check
        # Methods enter the lock itself, not the condition. `Condition.__enter__` is written in Python: if a signal
        # handler raises an exception in it after the lock is acquired, the lock stays locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    @property
    def prefix(self) -> int:
        """Position up to which all bytes are in the file."""
        with self._lock:
            undone = self._undone()
            return undone[0].position if undone else self._stop

    def take(self) -> Part | None:
        """Return a part to request, or `None` if all are done. Waits while other threads may release their parts."""
        with self._lock:
            while undone := self._undone():
                self.check()
                for part in undone:
                    if part.state == "free":
                        part.state = "requested"
                        return part
                self._changed.wait()
            return None

    def begin(self, part: Part, position: int) -> bool:
        """Take a part after its bytes from `position` on were requested. False if another thread has taken it."""
        with self._lock:
            if part.state != "requested" or part.position != position:
                return False
            part.state = "taken"
            return True

    def follow(self, index: int) -> Part | None:
        """Take the part at `index` when a stream reaches its start; `None` if another thread is receiving it."""
        with self._lock:
            for part in self._undone():
                if part.index == index and part.state != "taken" and part.position == part.start:
                    part.state = "taken"
                    return part
            return None

    def advance(self, part: Part, count: int) -> None:
        """Record that the next bytes of a taken part are in the file."""
        with self._lock:
            part.position += count
            if part.position == part.stop or part.index == self._first:
                self._changed.notify_all()

    def release(self, part: Part, *, taken: bool) -> None:
        """Make the rest of a part free again. `taken` is the result of `begin`."""
        with self._lock:
            if taken or part.state == "requested":
                part.state = "free"
            self._changed.notify_all()

    def wait_beyond(self, position: int) -> int:
        """Wait until the prefix without gaps is longer than `position`; return its length."""
        with self._lock:
            while (prefix := self.prefix) <= position:
                self.check()
                self._changed.wait()
            return prefix

    def wake(self) -> None:
        """End all waits. The waiting threads then call `check`."""
        with self._lock:
            self._changed.notify_all()

    def _undone(self) -> list[Part]:
        """Return the parts in the window that are not done, in ascending order."""
        while self._first < len(self.parts) and self.parts[self._first].position == self.parts[self._first].stop:
            self._first += 1
        window = self.parts[self._first : self._first + self._window]
        return [part for part in window if part.position < part.stop]
