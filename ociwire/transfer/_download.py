"""Downloads a blob to a file, verified before the file has its name, and resumable after any interruption.

`_Download` decides where to start. `_PartReceiver` receives the rest: the caller's thread reads one stream of the blob
from the start on, and writes and hashes it. If there are several parts, one thread hashes what is in the file, in
order, and helper threads receive other parts, provided that the registry supports ranges.

A helper that is refused or loses its connection gives the rest of its part back and ends; the caller's thread receives
whatever no helper does, and an error in it ends the download. Any other error in any thread ends the download, too.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, final

from .._client.blob_reader import BlobReader
from .._client.blobs import open_blob, resolve_blob
from .._client.client import Client
from .._client.repository import Repository, repository_of
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest, hashed_digest, verify_digest
from ..errors import (
    AuthError,
    DigestMismatch,
    ProtocolError,
    ReadError,
    RegistryError,
    TransportError,
    TransportTimeout,
    UsageError,
)
from ..media_types import OCTET_STREAM
from ._arguments import check_client, check_number, check_path, check_progress, check_workers
from ._partial_file import PartialFile, is_at, open_regular, read_at
from ._parts import BUFFER_SIZE, MAX_WORKERS, Part, PartScheduler, part_size_for
from ._progress import ProgressCallback, ProgressReporter
from ._workers import WorkerPool

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["download"]

_NOT_ABOUT_RANGES = (401, 403, 404, 429)
"""Statuses that a request without a Range would get, too."""
_HASH_LIMIT = 64 * 1024 * 1024
"""Maximum size in bytes of a file on disk that is hashed (40 ms) before the registry is asked for the blob's size."""
_HELPER_TIMEOUT = 10.0
"""Timeout in seconds of a helper's connection if the client's options name none: the download goes on without it."""
_BUFFER_MEMORY = 32 * 1024 * 1024
"""Maximum size in bytes of all buffers of a download."""
_FLUSH_INTERVAL = 0.2
"""Seconds after which a buffer is written although it is not full: bytes in the file need not be received again."""


def download(
    client: Client,
    repository: str,
    digest: str,
    path: str | os.PathLike[str],
    *,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """Download a blob to a file, which appears under its name when it is complete and verified.

    The blob is written to a hidden file beside the target, ``.NAME.DIGEST.part``, which is synced and renamed. If a
    download is interrupted or its process is killed, the next one resumes from that file: its content is hashed again.
    If the digest is wrong in the end, or the registry does not support ranges, the whole blob is downloaded once more.
    The hidden file is not used if another download is writing it, or if it belongs to another user, has a second hard
    link or is not a regular file: then the download writes to a file with a random name, from which none resumes.

    A file at the target that has the digest is left as it is, and nothing is sent. Any other file is replaced in the
    end, together with its mode and owner. A symbolic link at the target is replaced, never followed.

    A file on disk of more than 64 MiB, at the target or of an interrupted download, is hashed only if its size fits the
    blob: the registry is asked for the size first (HEAD). The deadline bounds the hashing, too.

    A blob of at least two parts is received over up to `workers` connections by Range requests (RFC 9110, section 14),
    if the registry supports them; any other blob over one. A connection that is refused or lost is made up for by the
    others.

    All threads have ended when this function returns. After an error, and when all bytes have come, no more parts are
    requested, but a thread that waits for its connection at that moment does so until the client's timeout or deadline
    (`Client.with_options`); all but the caller's wait 10 s if the client's options name no timeout.

    Args:
        client: Client of the registry.
        repository: Name of the repository.
        digest: Digest of the blob: sha256, sha384 or sha512.
        path: Path of the file, in an existing directory.
        workers: Maximum number of connections, from 1. More than 64 count as 64. All buffers together take at
            most 32 MiB. Defaults to 4.
        part_size: Size of a part in bytes, from 1. Defaults to 64 to 256 MiB, depending on the size of the blob. Parts
            are larger if there were more than 4096 of them.
        progress: Called with a `Progress` from any thread, one call at a time. An exception that it raises ends the
            download. A download that starts again counts from 0.

    Returns:
        The blob's descriptor, with the media type that the registry states.

    Raises:
        UsageError: An argument is not valid, the path is a directory, a FIFO, a socket or a device, or its directory
            does not exist.
        BlobUnknown: The repository does not have the blob.
        DigestMismatch: The content has another digest. Nothing of it is kept.
        SizeMismatch: The content is longer or shorter than the registry states.
        TransportError: There is no usable response, or the connection is lost and cannot be resumed.
        OSError: The file system fails: the disk is full, the directory is not writable, or another process has replaced
            the file. After this error and all others the bytes without a gap are kept, to resume from.
    """
    blob = _Blob(repository_of(check_client(client), repository, "get_blob"), Digest(digest))
    workers = min(check_workers(workers), MAX_WORKERS)
    if part_size is not None:
        check_number("part size", part_size)
    reporter = ProgressReporter(check_progress(progress), "download")
    target = _check_target(path)
    size = _size_if_verified(target, blob)
    if size is not None:
        reporter.report(blob.digest, size, size)
        return Descriptor(OCTET_STREAM, blob.digest, size)
    descriptor, placed = _Download(blob, PartialFile(target, blob.digest), workers, part_size, reporter).run()
    # Another download of the same blob may have been renamed to the target in the same moment.
    if not placed and _size_if_verified(target, blob, descriptor.size) is None:
        raise OSError(
            f"{target} does not hold {blob.digest}: another process has replaced the file when the download was"
            " complete; download again"
        )
    return descriptor


@final
class _Blob:
    """A blob of a repository. May be shared by threads."""

    def __init__(self, repository: Repository, digest: Digest) -> None:
        digest.hasher()  # refuses an algorithm with which nothing could be verified
        self.repository = repository
        self.digest = digest
        self._descriptor: Descriptor | None = None

    def resolve(self) -> Descriptor:
        """Get the descriptor, by a HEAD at the first call."""
        if self._descriptor is None:
            self._descriptor = resolve_blob(self.repository, self.digest)
        return self._descriptor

    def may_hold(self, size: int, *, whole: bool) -> bool:
        """Whether a file of `size` bytes is worth hashing: the blob may be these, or, if not `whole`, begin with them.

        If hashing would take longer than a request, the registry is asked: a file may have any size at no cost, and a
        sparse file of 1 TiB takes many minutes to hash.
        """
        if size <= _HASH_LIMIT:
            return True
        try:
            return size == self.resolve().size if whole else size <= self.resolve().size
        except (ProtocolError, RegistryError) as error:
            if not _may_be_about_ranges(error):
                raise
            return False  # the registry does not state the size: the blob is downloaded instead

    def hash_file(self, read: Callable[[memoryview, int], object], size: int) -> _Hash:
        """Hash the first `size` bytes of a file. Raises `TransportTimeout` if the deadline passes."""
        hasher = self.digest.hasher()
        with memoryview(bytearray(min(BUFFER_SIZE, size))) as buffer:
            for position in range(0, size, BUFFER_SIZE):
                self.check_deadline()
                with buffer[: size - position] as view:
                    read(view, position)
                    hasher.update(view)
        return hasher

    def matches(self, hasher: _Hash) -> bool:
        """Whether a hash object has the blob's digest."""
        return hashed_digest(hasher, self.digest.algorithm) == self.digest

    def check_deadline(self) -> None:
        """Raise `TransportTimeout` if the client's deadline has passed, for work that sends nothing."""
        deadline = self.repository.sender.defaults.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise TransportTimeout(f"the deadline passed while {self.digest} was hashed on disk")


@final
class _Download:
    """One call of `download`, with valid arguments."""

    def __init__(
        self, blob: _Blob, file: PartialFile, workers: int, part_size: int | None, reporter: ProgressReporter
    ) -> None:
        self._blob = blob
        self._file = file
        self._workers = workers
        self._part_size = part_size
        self._reporter = reporter
        self._prefix = file.prefix  # what is kept if the download fails

    def run(self) -> tuple[Descriptor, bool]:
        """Return the blob's descriptor, and whether the target is the file that was written."""
        try:
            descriptor = self._resume() if self._file.prefix else None
            if descriptor is None:
                descriptor = self._start()
            return descriptor, self._file.finish()
        except BaseException:
            self._file.abandon(self._prefix)
            raise

    def _resume(self) -> Descriptor | None:
        """Complete the partial file; `None` if that is not possible, so that the blob is downloaded from its start."""
        start, digest = self._file.prefix, self._blob.digest
        if not self._blob.may_hold(start, whole=False):
            return None
        hasher = self._blob.hash_file(self._file.read, start)
        if self._blob.matches(hasher):  # the process was killed before the rename
            self._reporter.report(digest, start, start)
            return Descriptor(OCTET_STREAM, digest, start)
        try:
            descriptor = self._blob.resolve()
            if start >= descriptor.size:
                return None
            reader = open_blob(
                self._blob.repository, digest, start, descriptor.size, verify=False, size=descriptor.size, max_skip=0
            )
        except (ProtocolError, RegistryError) as error:
            if not _may_be_about_ranges(error):
                raise
            return None
        try:
            self._receive(reader, descriptor, hasher, start)
        except DigestMismatch:  # what was on the disk may be what is wrong
            return None
        return descriptor

    def _start(self) -> Descriptor:
        """Download the whole blob."""
        with open_blob(self._blob.repository, self._blob.digest, verify=False) as reader:
            self._prefix = 0
            self._file.truncate(0)
            self._receive(reader, reader.descriptor, self._blob.digest.hasher(), 0)
        return reader.descriptor

    def _receive(self, reader: BlobReader, descriptor: Descriptor, hasher: _Hash, start: int) -> None:
        """Receive the bytes from `start` on, and verify the whole."""
        remaining = descriptor.size - start
        part_size = remaining if self._workers == 1 else part_size_for(remaining, self._workers, self._part_size)
        scheduler = PartScheduler(start, descriptor.size, max(1, part_size), self._workers)
        receiver = _PartReceiver(self._blob, self._file, descriptor, hasher, scheduler, self._workers, self._reporter)
        try:
            receiver.run(reader)
        finally:
            self._prefix = scheduler.prefix
        try:
            verify_digest(hasher, self._blob.digest)
        except DigestMismatch:
            self._prefix = 0
            raise


@final
class _PartReceiver:
    """Receives parts into a file and hashes the file; see the head of the module.

    The lock guards the scheduler and the positions of the parts. It is entered itself and not by way of the condition,
    which takes two steps: a signal between them would leave the lock locked.
    """

    def __init__(
        self,
        blob: _Blob,
        file: PartialFile,
        descriptor: Descriptor,
        hasher: _Hash,
        scheduler: PartScheduler,
        workers: int,
        reporter: ProgressReporter,
    ) -> None:
        self._blob = blob
        self._source = blob.repository
        self._helper_source = _with_helper_timeout(blob.repository)
        self._file = file
        self._descriptor = descriptor
        self._hasher = hasher
        self._scheduler = scheduler
        self._helpers = min(workers, len(scheduler.parts)) - 1
        self._reporter = reporter
        self._report_lock = threading.Lock()
        self._done = self._start = scheduler.prefix
        # One thread hashes what is still in its processor's cache. With several threads, larger buffers mean fewer TCP
        # acknowledgements and thread switches, which take 12 % less CPU time than with 1 MiB.
        largest = BUFFER_SIZE if self._helpers < 1 else 4 * BUFFER_SIZE
        self._buffer_size = min(largest, _BUFFER_MEMORY // (workers + 1), descriptor.size - self._start)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._hashed_part: Part | None = None
        self._pool = WorkerPool("ociwire-download", on_cancel=self._wake)

    def run(self, reader: BlobReader) -> None:
        """Receive and hash all parts. The reader, which begins at the start, is closed in the end."""
        error: BaseException | None = None
        try:
            with reader:
                self._report(0)
                if self._helpers > 0:
                    self._pool.start(self._hash_parts)
                    self._start_helper(self._probe)
                self._receive_stream(reader)
            self._receive_parts(self._source)
        except BaseException as caught:  # noqa: BLE001 - raised by `join`, when all threads have ended
            error = caught
        self._pool.join(error)

    def _wake(self) -> None:
        with self._lock:
            self._changed.notify_all()

    # Receiving

    def _receive_stream(self, reader: BlobReader) -> None:
        """Receive the first part, and the parts after it for as long as no helper has taken them, from one stream."""
        with self._lock:
            part = self._scheduler.take()
        while part is not None:
            self._receive_part(reader, part)
            with self._lock:
                part = self._scheduler.take_following(part)

    def _receive_parts(self, source: Repository) -> None:
        """Receive one free part after the other, until all are done."""
        while (part := self._take_part()) is not None:
            try:
                with self._open_part(source, part) as reader:
                    self._receive_part(reader, part)
            finally:
                self._release(part)

    def _open_part(self, source: Repository, part: Part, *, max_skip: int | None = None) -> BlobReader:
        self._pool.check()
        return open_blob(
            source,
            self._descriptor.digest,
            part.position,
            part.stop,
            verify=False,
            size=self._descriptor.size,
            max_skip=max_skip,
            before_reopen=self._pool.check,
        )

    def _take_part(self) -> Part | None:
        """Take a part, and wait for one while others may give theirs back; `None` if all are done."""
        with self._lock:
            while True:
                self._pool.check()
                part = self._scheduler.take()
                if part is not None or not self._scheduler.busy:
                    return part
                self._changed.wait()

    def _release(self, part: Part) -> None:
        with self._lock:
            self._scheduler.release(part)
            self._changed.notify_all()

    def _receive_part(self, reader: BlobReader, part: Part) -> None:
        """Write the bytes of a part to the file as they arrive."""
        with memoryview(bytearray(self._buffer_size)) as buffer:
            while not part.done:
                self._pool.check()
                with buffer[: part.stop - part.position] as view:
                    count = self._fill(reader, view)
                    self._file.write(view[:count], part.position)
                    if self._helpers < 1:
                        self._hash(view[:count], part.position)
                with self._lock:
                    part.position += count
                    if part.done or part is self._hashed_part:
                        self._changed.notify_all()
                self._report(count)

    def _fill(self, reader: BlobReader, view: memoryview) -> int:
        """Read until the buffer is full or `_FLUSH_INTERVAL` has passed; returns the number of bytes."""
        filled, began = 0, time.monotonic()
        while filled < len(view) and (not filled or time.monotonic() - began < _FLUSH_INTERVAL):
            count = reader.readinto(view[filled:])
            if count == 0:
                raise ReadError(f"the content of {self._descriptor.digest} ends too early")
            filled += count
        return filled

    # Helpers

    def _start_helper(self, receive: Callable[[], None]) -> None:
        def run() -> None:
            # Refused, or lost: others receive the rest of its part.
            with suppress(TransportError, AuthError, RegistryError):
                receive()

        with suppress(RuntimeError):  # the system has no more threads: it goes without
            self._pool.start(run)

    def _probe(self) -> None:
        """Request a part that the caller's stream will not reach soon. If that gets a range, start the other helpers.

        The part is taken only then: a registry without ranges does not disturb the caller's stream.
        """
        with self._lock:
            part = self._scheduler.peek()
        if part is None:
            return
        with self._open_part(self._helper_source, part, max_skip=0) as reader:
            try:
                self._file.enable_sparse(self._descriptor.size)
            except OSError:
                return  # without the footer there may be no gaps
            with self._lock:
                if self._scheduler.take(part) is None:
                    return  # the caller's stream is faster than the answer to a request
            for _ in range(self._helpers - 1):
                self._start_helper(lambda: self._receive_parts(self._helper_source))
            try:
                self._receive_part(reader, part)
            finally:
                self._release(part)
        self._receive_parts(self._helper_source)

    # Hashing and progress

    def _hash(self, view: memoryview, position: int) -> None:
        """Hash bytes that are in the file up to a position without a gap."""
        self._blob.check_deadline()
        self._hasher.update(view)
        self._file.record_prefix(position + len(view))

    def _hash_parts(self) -> None:
        """Hash the file from the start on, as far as it is written."""
        hashed = self._start
        with memoryview(bytearray(min(BUFFER_SIZE, self._buffer_size))) as buffer:
            for part in self._scheduler.parts:
                while hashed < part.stop:
                    with self._lock:
                        self._hashed_part = part
                        while part.position <= hashed:
                            self._pool.check()
                            self._changed.wait()
                        count = min(part.position - hashed, len(buffer))
                    with buffer[:count] as view:
                        # From the page cache: not slower than to pass the buffers from thread to thread in order.
                        self._file.read(view, hashed)
                        self._hash(view, hashed)
                    hashed += count

    def _report(self, count: int) -> None:
        with self._report_lock:
            self._done += count
            try:
                self._reporter.report(self._descriptor.digest, self._done, self._descriptor.size)
            except BaseException as error:
                self._pool.cancel(error)  # here: a helper's errors of these types would be taken for the network's
                raise


def _with_helper_timeout(source: Repository) -> Repository:
    """Return the repository with a timeout for connections that a download can do without."""
    if source.sender.defaults.timeout is not None:
        return source
    return source.with_options(timeout=_HELPER_TIMEOUT)


def _may_be_about_ranges(error: ProtocolError | RegistryError) -> bool:
    """Whether a registry may refuse a range and serve the whole blob."""
    if isinstance(error, ProtocolError):
        return True
    return error.status not in _NOT_ABOUT_RANGES and (error.status < 500 or error.status == 501)


def _check_target(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of the target; `UsageError` if there can be no file."""
    target = check_path(path)
    directory, name = os.path.split(target)
    if not os.path.isdir(directory or "."):
        raise UsageError(f"cannot download to {target}: {directory} is not a directory that exists")
    try:
        mode = os.lstat(target).st_mode  # not `stat`: a symbolic link is replaced, and may be dangling or a loop
    except FileNotFoundError:
        mode = stat.S_IFREG
    if name in ("", ".", "..") or stat.S_ISDIR(mode):
        raise UsageError(f"cannot download to {target}: it is a directory")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"cannot download to {target}: it exists and is not a regular file")
    return os.path.abspath(target)


def _size_if_verified(target: str, blob: _Blob, expected: int | None = None) -> int | None:
    """Return the size of the file at the target if it has the blob's digest (and size, if known), else `None`."""
    file = open_regular(target)
    if file is None:
        return None
    try:
        size = os.fstat(file).st_size
        if size != expected if expected is not None else not blob.may_hold(size, whole=True):
            return None
        hasher = blob.hash_file(lambda view, offset: read_at(file, view, offset), size)
        unchanged = os.fstat(file).st_size == size and is_at(file, target)
        return size if unchanged and blob.matches(hasher) else None
    finally:
        os.close(file)
