"""Hashes an upload in a thread of its own while it is sent: each byte once, however often it is sent.

Hashing and sending both release the interpreter's lock, so that on two cores hashing costs hardly any time.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import final

from .._oci.digest import Digest, hashed_digest, new_hasher
from ._workers import WorkerPool

__all__ = ["MAX_PENDING", "HashingThread"]

MAX_PENDING = 1024 * 1024
"""Maximum number of bytes that wait to be hashed; one larger chunk may, too. More would leave the processor's cache:
two chunks of 1 MiB take a tenth more CPU time than one."""


@final
class HashingThread:
    """Hashes what it is fed, in order. On leaving its ``with`` block the thread has ended, and its exception is raised.

    Attributes:
        fed: Number of bytes that were fed.
    """

    def __init__(self, algorithm: str) -> None:
        self.fed = 0
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm)
        # Entered itself, not by way of the condition: that takes two steps, and a signal between them keeps it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._chunks: deque[bytes | memoryview] = deque()
        self._pending = 0  # number of bytes that wait, or are being hashed
        self._stopped = False
        self._pool = WorkerPool("ociwire-hashing", on_cancel=self._stop)

    def __enter__(self) -> HashingThread:
        try:
            self._pool.start(self._run)
        except BaseException as error:  # noqa: BLE001 - raised by `join`; the thread may have started
            self._pool.join(error)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()
        self._pool.join()

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._changed.notify_all()

    def feed(self, position: int, chunk: bytes) -> None:
        """Hash a chunk at a position, except for what was fed before. Waits while too much is pending.

        Raises:
            Cancelled: The thread has failed.
        """
        skipped = self.fed - position
        if skipped < 0:
            raise ValueError(f"bytes {self.fed} to {position} were never hashed")
        if len(chunk) <= skipped:
            return
        piece = memoryview(chunk)[skipped:] if skipped else chunk
        with self._lock:
            while self._pending and self._pending + len(piece) > MAX_PENDING and not self._stopped:
                self._changed.wait()
            self._pool.check()
            self._chunks.append(piece)
            self._pending += len(piece)
            self._changed.notify_all()
        self.fed += len(piece)

    def digest(self) -> Digest:
        """Return the digest of all bytes that were fed. Waits until they are hashed.

        Raises:
            Cancelled: As `feed`.
        """
        with self._lock:
            while self._pending and not self._stopped:
                self._changed.wait()
            self._pool.check()
            return hashed_digest(self._hasher, self._algorithm)

    def _run(self) -> None:
        while True:
            with self._lock:
                while not (self._chunks or self._stopped):
                    self._changed.wait()
                if self._stopped:
                    return
                chunk = self._chunks.popleft()
            self._hasher.update(chunk)
            with self._lock:
                self._pending -= len(chunk)
                self._changed.notify_all()
