"""Read the content of an upload from any position, and hash it in a separate thread while it is sent.

Hashing and sending both release the global interpreter lock (GIL), so that they run in parallel on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, final

from .._files import open_regular_file
from .._http.body import CHUNK_SIZE, Body, length_mismatch, open_at
from .._oci.digest import Digest, hashed_digest, new_hasher
from ..errors import UsageError
from ._arguments import check_path
from ._workers import Cancelled, WorkerPool

__all__ = ["HashingThread", "open_content", "read_content"]

_MIN_CHUNK = 256 * 1024  # minimum size in bytes of a chunk of a single-use body, except for the last


@contextmanager
def open_content(source: Any) -> Iterator[Body]:
    """Open the content of a source while the block runs. A file opened from a path is closed; other sources are not.

    Raises `UsageError` if the path is not a regular file, or if the source is single-use and was read before.
    """
    if not isinstance(source, (str, os.PathLike)):
        body = Body.of(source)
        if not body.resendable:
            raise UsageError("cannot upload a single-use body that was read before: it can be read only once")
        yield body
        return
    with open_regular_file(check_path(source)) as file:
        yield Body.of(file)


def read_content(body: Body, position: int) -> Iterator[bytes]:
    """Yield the content from a position. For a single-use body, it must be 0, and small chunks are merged.

    Raises `SizeMismatch` if the content is longer or shorter than it was when the upload began.
    """
    merged = bytearray()
    for chunk in open_at(body, position):
        position += len(chunk)
        if body.length is not None and position > body.length:
            break
        if not body.single_use or (len(chunk) >= _MIN_CHUNK and not merged):
            yield chunk
            continue
        merged += chunk
        if len(merged) >= _MIN_CHUNK:
            yield bytes(merged)
            merged.clear()
    if body.length is not None and position != body.length:
        raise length_mismatch(body.length, position)
    if merged:
        yield bytes(merged)


@final
class HashingThread:
    """Thread that hashes the chunks passed to `feed`, in order.

    At most one chunk is pending: it is hashed while the caller sends it and reads the next one. More chunks would not
    fit into the processor's cache. The methods raise `Cancelled` if the thread has failed.
    """

    def __init__(self, algorithm: str) -> None:
        self.fed = 0  # number of bytes that were passed to `feed`
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm)
        # `SimpleQueue` is written in C: an exception in a signal handler cannot leave its lock held.
        self._chunks: SimpleQueue[bytes | memoryview | None] = SimpleQueue()  # `None` ends the thread
        self._idle: SimpleQueue[None] = SimpleQueue()  # has an item unless a chunk is pending
        self._idle.put(None)
        self._pool = WorkerPool("ociwire-hashing", on_cancel=self._wake)

    def start(self) -> None:
        """Start the thread. Make sure before that `stop` will be called, because a signal may interrupt the start."""
        # Allocate and free a large block once, so that glibc keeps the memory of freed chunks. Otherwise, glibc would
        # return each chunk to the system, and each page of the next chunk would cause a page fault.
        bytes(4 * CHUNK_SIZE)
        self._pool.start(self._run)

    def stop(self) -> None:
        """End the thread, and raise its exception if it has failed."""
        self._pool.join(Cancelled())

    def feed(self, position: int, chunk: bytes) -> None:
        """Hash the chunk at a position, without bytes that were already fed. Wait for the previous chunk first."""
        skipped = self.fed - position
        if skipped < 0:
            raise ValueError(f"cannot hash from byte {position}: only {self.fed} bytes were fed")
        if len(chunk) > skipped:
            self._wait()
            self._chunks.put(memoryview(chunk)[skipped:])
            self.fed = position + len(chunk)

    def digest(self) -> Digest:
        """Wait until all fed bytes are hashed, and return their digest."""
        self._wait()
        self._idle.put(None)
        return hashed_digest(self._hasher, self._algorithm)

    def _wait(self) -> None:
        self._idle.get()
        if self._pool.cancelled:
            self._idle.put(None)  # so that later calls do not block
            self._pool.check()

    def _wake(self) -> None:
        self._chunks.put(None)
        self._idle.put(None)

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._hasher.update(chunk)
            self._idle.put(None)
