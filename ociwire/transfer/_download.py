"""Downloads a blob to a file, verified before the file has its name, and resumable after any interruption.

`_Download` decides where to start: behind the prefix of an earlier attempt, which is hashed again, or at 0. `_Receiver`
receives the rest. The caller's thread reads one response from there on, hashes it and writes it to the file. If that is
slow and there are several parts, helper threads request parts further on by ranges. From then on, another thread hashes
what is in the file, in order.

A helper whose request is refused, or whose connection is lost, releases its part and ends; the caller's thread receives
what no helper does, and an error in it ends the download. Any other error in any thread ends the download, too.
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
from ._parts import MAX_WORKERS, Part, PartScheduler, part_size_for
from ._progress import ProgressCallback, ProgressReporter
from ._workers import WorkerPool

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["download"]

_BUFFER_SIZE = 1024 * 1024
"""Size in bytes of a buffer that fits the processor's cache."""
_BUFFER_MEMORY = 32 * 1024 * 1024
"""Maximum size in bytes of all buffers of a download."""
_ALONE_SECONDS = 0.1
"""Seconds that the caller's thread receives alone, longer for as long as it is faster than `_FAST_RATE`."""
_FAST_RATE = 200 * 1024 * 1024
"""Bytes per second of one connection above which more connections are hardly faster."""
_FLUSH_INTERVAL = 0.2
"""Seconds after which a buffer is written although it is not full: bytes in the file need not be received again."""
_HASH_LIMIT = 64 * 1024 * 1024
"""Maximum size in bytes of a file on disk that is hashed (40 ms) before the registry is asked for the blob's size."""
_HELPER_TIMEOUT = 10.0
"""Timeout in seconds of a helper's requests if the client's options name none: the download continues without it."""


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
    """Download a blob to a file, which gets its name when it is complete and verified.

    The blob is written to a hidden file beside the target, ``.NAME.DIGEST.part``, which is synced and renamed. If a
    download is interrupted or its process is killed, the next one resumes from that file, whose content is hashed
    again. If the digest is wrong in the end, or the registry does not support ranges, the whole blob is downloaded once
    more. If another download is writing the hidden file, or if it belongs to another user, has a second hard link or is
    not a regular file, a file with a random name is written instead, which no later download resumes.

    If the file at the target has the digest, nothing is sent or written. Any other file is replaced in the end with its
    mode and owner. A symbolic link at the target is replaced and never followed. A file on disk of more than 64 MiB is
    hashed only if its size fits the blob's, for which the registry is asked first (HEAD).

    If one connection delivers less than 200 MiB/s, a blob of at least two parts is received over up to `workers`
    connections by Range requests (RFC 9110, section 14), provided that the registry supports them. After an error, and
    when all bytes are there, no more parts are requested. All threads have ended when this function returns. A helper
    thread that waits for its connection does so until the client's timeout or deadline (`Client.with_options`), or for
    10 seconds if the client has no timeout.

    Args:
        client: Client of the registry.
        repository: Name of the repository.
        digest: Digest of the blob: sha256, sha384 or sha512.
        path: Path of the file, in an existing directory.
        workers: Maximum number of connections, from 1; more than 64 count as 64. All buffers together use at most
            32 MiB. Defaults to 4.
        part_size: Size of a part in bytes, from 1. Defaults to 64 to 256 MiB, depending on the size of the blob. It is
            increased if there would be more than 4096 parts.
        progress: Called with a `Progress` from any thread, one call at a time. An exception that it raises ends the
            download. A download that starts again counts from 0.

    Returns:
        The blob's descriptor, with the media type that the registry states.

    Raises:
        UsageError: An argument is not valid, the path is a directory, a FIFO, a socket or a device, its directory does
            not exist, or the system is not POSIX.
        BlobUnknown: The repository does not have the blob.
        DigestMismatch: The content has another digest. Nothing of it is kept.
        SizeMismatch: The content is longer or shorter than the registry states.
        TransportError: There is no usable response, or the connection is lost and cannot be resumed.
        OSError: The file system fails: the disk is full, the directory is not writable, or another process has replaced
            the file. After this error and all others, the bytes before the first gap are kept for the next download.
    """
    source = repository_of(check_client(client), repository, "get_blob")
    blob_digest = Digest(digest)
    workers = min(check_workers(workers), MAX_WORKERS)
    if part_size is not None:
        check_number("part size", part_size)
    reporter = ProgressReporter(check_progress(progress), "download")
    return _Download(source, blob_digest, _check_target(path), workers, part_size, reporter).run()


@final
class _Download:
    """One call of `download`, with valid arguments."""

    def __init__(
        self,
        source: Repository,
        digest: Digest,
        target: str,
        workers: int,
        part_size: int | None,
        reporter: ProgressReporter,
    ) -> None:
        digest.hasher()  # refuses an algorithm that cannot be verified
        self.source, self.digest, self.reporter = source, digest, reporter
        self.workers, self.part_size = workers, part_size
        self._target = target
        self._descriptor: Descriptor | None = None

    def run(self) -> Descriptor:
        """Download the blob, unless the target has its digest."""
        size = self._verified_size()
        if size is not None:
            self.reporter.report(self.digest, size, size)
            return Descriptor(OCTET_STREAM, self.digest, size)
        file = PartialFile(self._target, self.digest)
        try:
            descriptor = self._resume(file) or self._start(file)
            placed = file.finish()
        except BaseException:
            file.abandon()
            raise
        # Another download of the same blob may have been renamed to the target in the same moment.
        if not placed and self._verified_size(descriptor.size) is None:
            raise OSError(
                f"{self._target} does not hold {self.digest}: another process replaced the file when the download was"
                " complete; download again"
            )
        return descriptor

    def _resume(self, file: PartialFile) -> Descriptor | None:
        """Complete the partial file; `None` if that is not possible, so that the blob is downloaded from its start."""
        start = file.prefix
        if not start or not self._may_have_size(start, at_least=True):
            return None
        hasher = self._hash_file(file.read, start)
        if hashed_digest(hasher, self.digest.algorithm) == self.digest:  # the process was killed before the rename
            self.reporter.report(self.digest, start, start)
            return Descriptor(OCTET_STREAM, self.digest, start)
        try:
            descriptor = self._resolve()
            if start >= descriptor.size:
                return None
            # A response with the whole blob is refused: `_start` requests that without a range.
            size = descriptor.size
            reader = open_blob(self.source, self.digest, start, size, verify=False, size=size, max_skip=0)
        except (ProtocolError, RegistryError) as error:
            if not _may_concern_range(error):
                raise
            return None
        try:
            _Receiver(self, file, descriptor, hasher).run(reader)
        except DigestMismatch:  # the bytes on disk may be the wrong ones
            return None
        return descriptor

    def _start(self, file: PartialFile) -> Descriptor:
        """Download the whole blob."""
        with open_blob(self.source, self.digest, verify=False) as reader:
            file.truncate(0)
            _Receiver(self, file, reader.descriptor, self.digest.hasher()).run(reader)
        return reader.descriptor

    def _verified_size(self, expected: int | None = None) -> int | None:
        """Return the size of the file at the target if it has the digest (and the expected size), otherwise `None`."""
        file = open_regular(self._target)
        if file is None:
            return None
        try:
            size = os.fstat(file).st_size
            if size != expected if expected is not None else not self._may_have_size(size):
                return None
            hasher = self._hash_file(lambda view, offset: read_at(file, view, offset), size)
            unchanged = os.fstat(file).st_size == size and is_at(file, self._target)
            return size if unchanged and hashed_digest(hasher, self.digest.algorithm) == self.digest else None
        finally:
            os.close(file)

    def _may_have_size(self, size: int, *, at_least: bool = False) -> bool:
        """Whether a file of that size is worth hashing: the blob may have that size, or at least that size.

        If hashing would take longer than a request, the registry is asked: a file may have any size at no cost, and a
        sparse file of 1 TiB takes many minutes to hash.
        """
        if size <= _HASH_LIMIT:
            return True
        try:
            return size <= self._resolve().size if at_least else size == self._resolve().size
        except (ProtocolError, RegistryError) as error:
            if not _may_concern_range(error):
                raise
            return False  # the registry does not state the size: the blob is downloaded instead

    def _resolve(self) -> Descriptor:
        """Return the blob's descriptor, requested by HEAD at the first call."""
        if self._descriptor is None:
            self._descriptor = resolve_blob(self.source, self.digest)
        return self._descriptor

    def _hash_file(self, read: Callable[[memoryview, int], object], size: int) -> _Hash:
        """Hash the first `size` bytes of a file."""
        hasher = self.digest.hasher()
        with memoryview(bytearray(min(_BUFFER_SIZE, size))) as buffer:
            for position in range(0, size, _BUFFER_SIZE):
                self.check_deadline()
                with buffer[: size - position] as view:
                    read(view, position)
                    hasher.update(view)
        return hasher

    def check_deadline(self) -> None:
        """Raise `TransportTimeout` if the client's deadline has passed: hashing sends nothing that would be refused."""
        deadline = self.source.sender.defaults.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise TransportTimeout(f"the deadline passed while {self.digest} was hashed on disk")


@final
class _Receiver:
    """Receives the bytes behind the file's prefix, and hashes them; see the head of the module."""

    def __init__(self, download: _Download, file: PartialFile, descriptor: Descriptor, hasher: _Hash) -> None:
        self._download, self._source = download, download.source
        self._file, self._descriptor, self._hasher = file, descriptor, hasher
        self._done, size, workers = file.prefix, descriptor.size, download.workers
        part_size = size if workers == 1 else part_size_for(size - self._done, workers, download.part_size)
        self._parts = PartScheduler(self._done, size, part_size, workers)
        self._pool = WorkerPool("ociwire-download", on_cancel=self._parts.wake)
        self._parts.check = self._pool.check
        self._helpers = min(workers, len(self._parts.parts)) - 1
        self._is_alone = True  # the caller's thread receives and hashes everything, until there are helpers
        self._began = time.monotonic()
        self._report_lock = threading.Lock()

    def run(self, reader: BlobReader) -> None:
        """Receive and verify the rest of the file. The reader, which begins at the prefix, is closed in the end."""
        error: BaseException | None = None
        try:
            with reader:
                self._report(0)
                part = self._parts.follow(0)
                while part is not None:
                    self._receive(reader, part)
                    part = self._parts.follow(part.index + 1)
            self._receive_parts(self._source, max_skip=None)
        except BaseException as caught:  # noqa: BLE001 - raised by `join`, when all threads have ended
            error = caught
        try:
            self._pool.join(error)
        finally:
            self._file.prefix = self._parts.prefix
        try:
            verify_digest(self._hasher, self._descriptor.digest)
        except DigestMismatch:
            self._file.prefix = 0  # none of it is kept
            raise

    def _start_helpers_if_slow(self) -> None:
        """Start the other threads once the caller's connection is slower than more connections could be.

        Where one connection is fast, its thread is as fast as several, and hashes what is still in its processor's
        cache, while what several receive must be read back from the file.
        """
        received = self._parts.prefix - self._parts.parts[0].start
        if not self._helpers or time.monotonic() - self._began < _ALONE_SECONDS + received / _FAST_RATE:
            return
        helpers, self._helpers = self._helpers, 0
        if self._file.allow_gaps(self._descriptor.size):
            with suppress(RuntimeError):  # the system has no more threads: continue with fewer
                self._pool.start(self._hash_file)
                self._is_alone = False
                for _ in range(helpers):
                    self._pool.start(self._help)

    def _help(self) -> None:
        """Receive parts in a helper thread, for as long as the registry answers with ranges."""
        has_timeout = self._source.sender.defaults.timeout is not None
        source = self._source if has_timeout else self._source.with_options(timeout=_HELPER_TIMEOUT)
        with suppress(TransportError, AuthError, RegistryError):
            self._receive_parts(source, max_skip=0)

    def _receive_parts(self, source: Repository, *, max_skip: int | None) -> None:
        """Request and receive one part after the other, until all are done."""
        digest, size, check = self._descriptor.digest, self._descriptor.size, self._pool.check
        while (part := self._parts.take()) is not None:
            start, stop, taken = part.position, part.stop, False
            try:
                with open_blob(
                    source, digest, start, stop, verify=False, size=size, max_skip=max_skip, before_reopen=check
                ) as reader:
                    taken = self._parts.begin(part, start)
                    if taken:
                        self._receive(reader, part)
            finally:
                self._parts.release(part, taken=taken)

    def _receive(self, reader: BlobReader, part: Part) -> None:
        """Write the bytes of a part to the file as they arrive."""
        # With several threads, larger buffers mean fewer TCP acknowledgements and thread switches: 12 % less CPU time.
        size = min(_BUFFER_SIZE if self._is_alone else 4 * _BUFFER_SIZE, _BUFFER_MEMORY // (self._download.workers + 1))
        with memoryview(bytearray(min(size, part.stop - part.position))) as buffer:
            while part.position < part.stop:
                self._pool.check()
                if self._is_alone:
                    self._start_helpers_if_slow()
                filled, began = 0, time.monotonic()
                with buffer[: part.stop - part.position] as view:
                    while filled < len(view) and (not filled or time.monotonic() - began < _FLUSH_INTERVAL):
                        count = reader.readinto(view[filled:])
                        if count == 0:
                            raise ReadError(f"the content of {self._descriptor.digest} ends too early")
                        filled += count
                    self._file.write(view[:filled], part.position)
                    if self._is_alone:
                        self._hash(view[:filled], part.position)
                self._parts.advance(part, filled)
                self._report(filled)

    def _hash_file(self) -> None:
        """Hash the file from the prefix on, as far as it has no gap."""
        hashed = self._file.prefix
        with memoryview(bytearray(min(_BUFFER_SIZE, self._descriptor.size - hashed))) as buffer:
            while hashed < self._descriptor.size:
                prefix = self._parts.wait_beyond(hashed)
                while hashed < prefix:
                    with buffer[: prefix - hashed] as view:
                        # From the page cache: not slower than to pass the buffers from thread to thread in order.
                        self._file.read(view, hashed)
                        self._hash(view, hashed)
                        hashed += len(view)

    def _hash(self, view: memoryview, position: int) -> None:
        """Hash bytes at a position up to which the file has no gap."""
        self._download.check_deadline()
        self._hasher.update(view)
        self._file.record_prefix(position + len(view))

    def _report(self, count: int) -> None:
        with self._report_lock:
            self._done += count
            try:
                self._download.reporter.report(self._descriptor.digest, self._done, self._descriptor.size)
            except BaseException as error:
                self._pool.cancel(error)  # before `_help` takes it for a failure of the network
                raise


def _may_concern_range(error: ProtocolError | RegistryError) -> bool:
    """Whether a registry that refuses a range may serve the whole blob."""
    if isinstance(error, ProtocolError):
        return True
    # A request without a Range would be answered 401, 403, 404, 429 or a server's error, too.
    return error.status not in (401, 403, 404, 429) and (error.status < 500 or error.status == 501)


def _check_target(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of the target; `UsageError` if there can be no file."""
    target = check_path(path)
    directory, name = os.path.split(target)
    if not os.path.isdir(directory or "."):
        raise UsageError(f"cannot download to {target}: the directory {directory} does not exist; create it first")
    try:
        mode = os.lstat(target).st_mode  # not `stat`: a symbolic link is replaced, and may be dangling or a loop
    except FileNotFoundError:
        mode = stat.S_IFREG
    if name in ("", ".", "..") or stat.S_ISDIR(mode):
        raise UsageError(f"cannot download to {target}: it is a directory; expected the path of a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"cannot download to {target}: it exists and is not a regular file")
    return os.path.abspath(target)
