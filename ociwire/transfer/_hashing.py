"""Hashes an upload in its own thread while it is sent: each byte once, however often it is sent.

Hashing and sending both release the interpreter lock, so that on two cores they take hardly longer than one of them.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import final

from .._oci.digest import Digest, hashed_digest, new_hasher
from ._workers import WorkerPool

__all__ = ["HashingThread"]


@final
class HashingThread:
    """Hashes the chunks that it is fed, in order. Leaving its ``with`` block ends the thread and raises its exception.

    One chunk is hashed while the caller sends it and reads the next one. More would not fit into the processor's cache.

    Attributes:
        fed: Number of bytes that were fed.
    """

    def __init__(self, algorithm: str) -> None:
        self.fed = 0
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm)
        # Queues, because they wait in one step: an exception of a signal handler cannot leave a lock held.
        self._chunks: SimpleQueue[bytes | memoryview | None] = SimpleQueue()  # `None` ends the thread
        self._idle: SimpleQueue[None] = SimpleQueue()  # has an item unless a chunk is pending
        self._idle.put(None)
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

    def feed(self, position: int, chunk: bytes) -> None:
        """Hash the bytes of a chunk at a position that were not fed before. Waits until the chunk before is hashed.

        Raises:
            Cancelled: The thread has failed.
        """
        skipped = self.fed - position
        if skipped < 0:
            raise ValueError(f"cannot hash from byte {position}: only {self.fed} bytes were fed")
        if len(chunk) > skipped:
            self._wait()
            self._chunks.put(memoryview(chunk)[skipped:])
            self.fed = position + len(chunk)

    def digest(self) -> Digest:
        """Return the digest of all bytes that were fed. Waits until they are hashed.

        Raises:
            Cancelled: The thread has failed.
        """
        self._wait()
        self._idle.put(None)
        return hashed_digest(self._hasher, self._algorithm)

    def _wait(self) -> None:
        self._idle.get()
        if self._pool.cancelled:
            self._idle.put(None)  # so that later calls do not block
            self._pool.check()

    def _stop(self) -> None:
        self._chunks.put(None)
        self._idle.put(None)

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._hasher.update(chunk)
            self._idle.put(None)
