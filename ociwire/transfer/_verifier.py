"""Hashes a download in order while it arrives, in one thread: out of the buffers it came in, or back from the file.

The file's contiguous prefix is the front; what is written beyond it waits until the front gets there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from ._partial_file import PartialFile
from ._parts import Written

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Verifier"]


@final
class Verifier:
    """Owns the buffers, and hashes what is in them where they are next in line. Shared by the workers.

    Args:
        file: Where the content is written before it comes here.
        hasher: Of what is before `start`.
        start: The first byte to come.
        stop: The byte before which the content ends.
        buffer_size: In bytes.
        workers: How many there may be.
        check: Called before each block is hashed; an exception that it raises ends the hashing.
    """

    def __init__(
        self,
        file: PartialFile,
        hasher: _Hash,
        start: int,
        stop: int,
        *,
        buffer_size: int,
        workers: int,
        check: Callable[[], None],
    ) -> None:
        self.buffer_size = buffer_size
        self._file = file
        self._check = check
        self._hasher = hasher
        self._stop = stop
        self._written = Written(start)
        # Entered as a lock: a Condition does it in two steps, and a signal that came between them would keep it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._full: deque[memoryview] = deque()
        self._empty: list[bytearray] = []
        self._unmade = workers + 2
        self._over = False

    def borrow(self) -> bytearray | None:
        """A buffer to read into, as soon as there is one; None if all is over."""
        with self._lock:
            while not (self._empty or self._unmade or self._over):
                self._changed.wait()
            if self._over:
                return None
            if self._empty:
                return self._empty.pop()
            self._unmade -= 1
        return bytearray(self.buffer_size)

    def hand(self, buffer: bytearray, count: int, position: int) -> None:
        """Give a buffer back, whose first so many bytes are written at that position; none of it may be."""
        with self._lock:
            if count == 0:
                self._empty.append(buffer)
            elif position == self._written.front:
                self._full.append(memoryview(buffer)[:count])
                self._written.front += count
            else:
                self._written.add(position, position + count)
                self._empty.append(buffer)
            self._changed.notify_all()

    def end(self) -> None:
        """Have everybody stop who waits here."""
        with self._lock:
            self._over = True
            self._changed.notify_all()

    def prefix(self) -> int:
        """How many bytes of the file there are without a gap, once all is over."""
        while self._written.advance(self._stop):
            pass
        return self._written.front

    def run(self) -> None:
        """Hash until all is hashed, or over."""
        hashed = self._written.front
        own = bytearray()
        while True:
            full, count = self._next()
            if full is None and count == 0:
                return
            self._check()
            if full is None:
                own = own or bytearray(self.buffer_size)
                with memoryview(own)[:count] as view:
                    self._file.read(view, hashed)
                    self._hasher.update(view)
            else:
                count = len(full)
                self._hasher.update(full)
                self._take_back(full)
            hashed += count
            self._file.note(hashed)

    def _next(self) -> tuple[memoryview | None, int]:
        """A buffer that is next; or how many bytes of the file are; or neither: it is over."""
        with self._lock:
            while not self._over:
                if self._full:
                    return self._full.popleft(), 0
                count = self._written.advance(self.buffer_size)
                if count or self._written.front == self._stop:
                    return None, count
                self._changed.wait()
        return None, 0

    def _take_back(self, view: memoryview) -> None:
        with self._lock:
            buffer: bytearray = view.obj  # type: ignore[assignment]
            view.release()
            self._empty.append(buffer)
            self._changed.notify_all()
