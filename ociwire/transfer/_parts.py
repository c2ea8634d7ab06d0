"""Divides a download into parts and assigns them to workers. Bookkeeping only: no I/O, no clock, no lock.

State of a part:

    state     event                                  next state
    free      a worker takes it                      taken
    taken     all of its bytes are in the file       done
    taken     the worker loses its connection        free, from `position` on

A part is only taken if it is one of the first `window` parts that are not done: what is written behind a gap is lost if
the process is killed, and is hashed only when the gap is filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["BUFFER_SIZE", "Part", "PartScheduler", "part_size_for"]

BUFFER_SIZE = 1024 * 1024
"""Size in bytes of a buffer that fits the processor's cache."""
MAX_WORKERS = 64
_MIN_PART_SIZE, _MAX_PART_SIZE = 64 * 1024 * 1024, 256 * 1024 * 1024
_PARTS_PER_WORKER = 16
_MAX_PARTS = 4096
_WINDOW_PER_WORKER = 2


def part_size_for(size: int, workers: int, wanted: int | None) -> int:
    """Return the part size for a download of `size` bytes: as `wanted`, but for no more than 4096 parts.

    By default large, because each part costs a request, and often a redirect; but small enough that all workers end at
    about the same time.
    """
    if wanted is not None:
        return max(wanted, -(-size // _MAX_PARTS))
    return min(max(size // (_PARTS_PER_WORKER * workers), _MIN_PART_SIZE), _MAX_PART_SIZE)


@final
@dataclass(slots=True, eq=False)
class Part:
    """The bytes from `start` to `stop` (exclusive), of which those before `position` are in the file."""

    index: int
    start: int
    stop: int
    position: int
    taken: bool = False

    @property
    def done(self) -> bool:
        """Whether all bytes are in the file."""
        return self.position == self.stop


@final
class PartScheduler:
    """Assigns the parts of the bytes from `start` to `stop` to workers, the first ones first. Callers hold a lock."""

    def __init__(self, start: int, stop: int, part_size: int, workers: int) -> None:
        starts = range(start, stop, part_size)
        self.parts = [Part(index, at, min(at + part_size, stop), at) for index, at in enumerate(starts)]
        self._window = _WINDOW_PER_WORKER * workers
        self._first = 0
        self._start = start

    @property
    def prefix(self) -> int:
        """Position up to which all bytes are in the file."""
        self._advance()
        if self._first < len(self.parts):
            return self.parts[self._first].position
        return self.parts[-1].stop if self.parts else self._start

    @property
    def busy(self) -> bool:
        """Whether a worker has a part that is not done, and may release it."""
        return any(part.taken and not part.done for part in self._in_window())

    def peek(self) -> Part | None:
        """Return the second free part, or the only one. The first one is left to a stream that may go on into it."""
        free = [part for part in self._in_window() if not part.taken]
        return free[min(1, len(free) - 1)] if free else None

    def take(self, part: Part | None = None) -> Part | None:
        """Take a part, by default the first free one; `None` if it is not free or not in the window."""
        free = [candidate for candidate in self._in_window() if not candidate.taken and part in (None, candidate)]
        if not free:
            return None
        free[0].taken = True
        return free[0]

    def take_following(self, part: Part) -> Part | None:
        """Take the part after `part`, into which an open stream can go on; `None` if it is not free and untouched."""
        index = part.index + 1
        following = self.parts[index] if index < len(self.parts) else None
        if following is None or following.position > following.start:
            return None
        return self.take(following)

    def release(self, part: Part) -> None:
        """Give up a part: the rest of it is free. Does nothing if it is done."""
        part.taken = part.done

    def _in_window(self) -> list[Part]:
        """The first parts that are not done."""
        self._advance()
        return self.parts[self._first : self._first + self._window]

    def _advance(self) -> None:
        while self._first < len(self.parts) and self.parts[self._first].done:
            self._first += 1
