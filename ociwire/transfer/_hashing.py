"""A hasher in a thread of its own: what is sent is hashed while it goes out, each byte once, however often it is sent.

Hashing lets go of the interpreter's lock, and so does sending: on two cores the one costs the other next to nothing.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from typing import final

from .._oci.digest import Digest, new_hasher
from ._threads import join_all

__all__ = ["HashingThread"]

MOST_PENDING = 2 * 1024 * 1024
"""How many bytes may wait to be hashed before whoever feeds them has to wait; one chunk that is larger may too.

More would be slower: the chunks would no longer be in the processor's cache, nor in memory that was used before.
"""


@final
class HashingThread:
    """Hashes what it is fed, in order. A context manager: the thread has ended when it is left.

    The thread runs in a copy of the context of whoever makes it.

    Args:
        algorithm: sha256, sha384 or sha512.

    Attributes:
        fed: How many bytes it has been given.

    Raises:
        UsageError: The algorithm is none of these.
    """

    def __init__(self, algorithm: str) -> None:
        self.fed = 0
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm)
        # Entered as a lock: a Condition does it in two steps, and a signal that came between them would keep it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._chunks: deque[bytes | memoryview] = deque()
        self._pending = 0  # bytes that wait, or are being hashed
        self._over = False
        self._error: BaseException | None = None
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name="ociwire-hashing", daemon=True)

    def __enter__(self) -> HashingThread:
        try:
            self._thread.start()
        except BaseException:
            self._end()  # what has interrupted it may have come after it began
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()
        join_all([self._thread], lambda error: self._end())

    def _end(self) -> None:
        with self._lock:
            self._over = True
            self._changed.notify_all()

    def feed(self, position: int, chunk: bytes) -> None:
        """Hash a chunk that begins at a position; what was hashed of it before is passed over.

        Raises:
            ValueError: There is a gap before it.
        """
        if position > self.fed:
            raise ValueError(f"bytes {self.fed} to {position} were never hashed")
        if position + len(chunk) <= self.fed:
            return
        piece = chunk if position == self.fed else memoryview(chunk)[self.fed - position :]
        with self._lock:
            self._changed.wait_for(lambda: self._error or not self._pending or self._fits(len(piece)))
            self._raise()
            self._chunks.append(piece)
            self._pending += len(piece)
            self._changed.notify_all()
        self.fed += len(piece)

    def digest(self) -> Digest:
        """The digest of all that was fed; waits until it is hashed."""
        with self._lock:
            self._changed.wait_for(lambda: self._error or not self._pending)
            self._raise()
            return Digest(f"{self._algorithm}:{self._hasher.hexdigest()}")

    def _fits(self, size: int) -> bool:
        return self._pending + size <= MOST_PENDING

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (chunk := self._next()) is not None:
                self._hasher.update(chunk)
                self._done(len(chunk))
        except BaseException as error:  # noqa: BLE001 - it is raised to whoever feeds
            with self._lock:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> bytes | memoryview | None:
        with self._lock:
            self._changed.wait_for(lambda: self._over or self._chunks)
            return None if self._over else self._chunks.popleft()

    def _done(self, size: int) -> None:
        with self._lock:
            self._pending -= size
            self._changed.notify_all()
