"""Download of a blob to a file. An interrupted download is resumed, and only a verified file gets the target's name.

Steps:

1. `_Download.run`: if the file at the target already has the digest, nothing is downloaded.
2. `_Download._resume`: hash the partial file of an earlier call (see `_partial_file`), and request the missing bytes
   with a Range header.
3. `_Download._start`: if there is no partial file, if the registry does not support ranges, or if the digest is wrong
   after step 2, download the whole blob.
4. `PartialFile.finish`: sync the file, and rename it to the target.

In steps 2 and 3, `_Receiver` receives the response. The calling thread reads it, hashes the bytes and writes them to
the file. If the connection is slow and there are several parts, helper threads request other parts with Range requests.
From then on, a separate thread hashes the file in order, up to the first gap.

If a helper's request is refused or its connection is lost, the helper releases its part and ends. The calling thread
receives the remaining parts. Any other error in a helper, and any error in the calling thread, ends the download.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, final, overload

from .._argument_checks import suggest_options
from .._client.blob_reader import BlobReader
from .._client.blobs import open_blob, resolve_blob
from .._client.client import Client
from .._client.repository import Repository, repository_of
from .._oci.descriptor import Descriptor, check_size, digest_and_size
from .._oci.digest import Digest, hashed_digest, verify_digest
from .._oci.reference import Reference
from .._text import format_path
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
from ._arguments import (
    DOWNLOAD,
    OPTIONS_OF_CLIENTS,
    bind_arguments,
    check_number,
    check_path,
    check_progress,
    check_workers,
    resolve_reference,
)
from ._partial_file import PartialFile, is_at, open_regular, read_at
from ._parts import MAX_WORKERS, Part, PartScheduler, part_size_for
from ._progress import ProgressCallback, ProgressReporter
from ._workers import WorkerPool

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["download"]

_BUFFER_SIZE = 1024 * 1024
"""Buffer size in bytes, chosen so that a buffer fits in the processor's cache."""
_BUFFER_MEMORY = 32 * 1024 * 1024
"""Maximum size in bytes of all buffers of a download."""
_ALONE_SECONDS = 0.1
"""Minimum time in seconds before helpers are started. They are not started while the rate is above `_FAST_RATE`."""
_FAST_RATE = 200 * 1024 * 1024
"""Rate of one connection, in bytes per second, above which more connections hardly increase the throughput."""
_FLUSH_INTERVAL = 0.2
"""Seconds after which a partially filled buffer is written, so that little is lost if the process is killed."""
_HASH_LIMIT = 64 * 1024 * 1024
"""Maximum size in bytes of a file that is hashed (in 40 ms) before the size of the blob is requested (HEAD)."""
_HELPER_TIMEOUT = 10.0
"""Timeout in seconds of a helper's requests if the client has no timeout. The download continues without the helper."""


@overload
def download(
    client: Client,
    repository: str,
    digest: str | Descriptor,
    path: str | os.PathLike[str],
    *,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
def download(
    reference: str | Reference,
    path: str | os.PathLike[str],
    *,
    client: Client | None = None,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
def download(
    client: Client | None,
    reference: str | Reference,
    path: str | os.PathLike[str],
    *,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@suggest_options(
    {"chunk_size": "part_size=...", "max_workers": "workers=4", "threads": "workers=4", **OPTIONS_OF_CLIENTS}
)
def download(
    *args: Any,
    client: Any = None,
    repository: Any = None,
    digest: Any = None,
    reference: Any = None,
    path: Any = None,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """Download a blob to a file. The file appears at the path only when it is complete and verified.

    With a full reference, no client is required: ``download("ghcr.io/org/app@sha256:...", path)`` opens one and closes
    it.

    The blob is written to a hidden file in the directory of the target, ``.NAME.DIGEST.part``, which is then synced and
    renamed. If a download is interrupted or its process is killed, the next call hashes the content of this file and
    resumes the download. If the registry does not support ranges, or if the digest of the resumed blob is wrong, the
    whole blob is downloaded again. If another download is writing the hidden file, or if the hidden file belongs to
    another user, has a second hard link or is not a regular file, the blob is written to a file with a random name
    instead, and the download cannot be resumed.

    If the file at the target already has the digest, nothing is written, and only the size of the blob may be requested
    (see below). Any other file at the target is replaced, including its mode and owner. A symbolic link at the target
    is replaced and never followed. Before a file of more than 64 MiB is hashed, the size of the blob is requested
    (HEAD): a file at the target is hashed only if it has the same size, and a partial file only if it is not longer.

    If one connection delivers less than 200 MiB/s, a blob of at least two parts is received over up to `workers`
    connections by Range requests (RFC 9110, section 14), provided that the registry supports them. All threads have
    ended when this function returns. A helper thread that is blocked on its connection ends at the latest at the
    client's timeout or deadline (`Client.with_options`), or after 10 seconds if the client has no timeout.

    Args:
        args: The arguments up to `path`, by position.
        client: Client of the registry. `None` means a `Client` of the host in the reference, which is closed at the
            end.
        repository: Name of the repository.
        digest: Digest of the blob (sha256, sha384 or sha512), or its descriptor. With a descriptor, the size is
            verified, too.
        reference: Repository and digest, ``HOST/NAME@DIGEST``, instead of `repository` and `digest`.
        path: Path of the file, in an existing directory.
        workers: Maximum number of connections, from 1. Values above 64 are treated as 64. All buffers together use at
            most 32 MiB. Defaults to 4.
        part_size: Size of a part in bytes, from 1. Defaults to 64 to 256 MiB, depending on the size of the blob. It is
            increased if there would be more than 4096 parts.
        progress: Called with a `Progress` from any thread, one call at a time. An exception that it raises ends the
            download. If the whole blob is downloaded again, the count restarts at 0.

    Returns:
        The descriptor of the blob, with the media type that the registry states, or ``application/octet-stream`` if
        the content was already present.

    Raises:
        UsageError: An argument is invalid; the path is a directory, a FIFO, a socket or a device; its directory does
            not exist; or the system is not POSIX.
        BlobUnknown: The repository does not have the blob.
        DigestMismatch: The content has another digest. The hidden file is removed.
        SizeMismatch: The content is longer or shorter than the registry states.
        TransportError: There is no usable response, or the connection is lost and cannot be resumed.
        OSError: The file system fails: the disk is full, the directory is not writable, or another process has replaced
            the file. After this error and all others except for `DigestMismatch`, the bytes before the first gap are
            kept for the next download.
    """
    names = {"client": client, "repository": repository, "digest": digest, "reference": reference, "path": path}
    arguments = bind_arguments(DOWNLOAD, args, names)
    workers = min(check_workers(workers), MAX_WORKERS)
    if part_size is not None:
        check_number("part size", part_size)
    reporter = ProgressReporter(check_progress(progress), "download")
    with ExitStack() as opened:
        client, repository, digest = resolve_reference(opened, **arguments)
        if digest is None:
            raise UsageError(
                f"cannot download {str(arguments['reference'])!r:.300}: expected the digest of a blob, HOST/NAME@DIGEST"
            )
        source = repository_of(client, repository, "get_blob")
        expected, size = digest_and_size(digest)
        return _Download(source, expected, size, _check_target(arguments["path"]), workers, part_size, reporter).run()


@final
class _Download:
    """One call of `download`, with validated arguments."""

    def __init__(
        self,
        source: Repository,
        digest: Digest,
        size: int | None,
        target: str,
        workers: int,
        part_size: int | None,
        reporter: ProgressReporter,
    ) -> None:
        digest.hasher()  # refuses an algorithm that cannot be verified
        self.source, self.digest, self.reporter = source, digest, reporter
        self.workers, self.part_size = workers, part_size
        self._size = size
        self._target = target
        self._descriptor: Descriptor | None = None

    def run(self) -> Descriptor:
        """Download the blob, unless the target has its digest."""
        size = self._verified_size()
        if size is not None:
            check_size(self.digest, size, self._size)
            self.reporter.report(self.digest, size, size)
            return Descriptor(OCTET_STREAM, self.digest, size)
        file = PartialFile(self._target, self.digest)
        try:
            descriptor = self._resume(file) or self._start(file)
            placed = file.finish()
        except BaseException:
            file.abandon()
            raise
        # If `placed` is false, another process has replaced the file since the rename. This is a success if that
        # process has downloaded the same blob.
        if not placed and self._verified_size(descriptor.size) is None:
            raise OSError(
                f"{self._target} does not hold {self.digest}: another process replaced the file when the download was"
                " complete; download again"
            )
        return descriptor

    def _resume(self, file: PartialFile) -> Descriptor | None:
        """Complete the partial file. Return `None` if this is not possible and the whole blob must be downloaded."""
        start = file.prefix
        if not start or not self._may_have_size(start, at_least=True):
            return None
        hasher = self._hash_prefix(file.read, start)
        if hashed_digest(hasher, self.digest.algorithm) == self.digest:  # the process was killed before the rename
            check_size(self.digest, start, self._size)
            self.reporter.report(self.digest, start, start)
            return Descriptor(OCTET_STREAM, self.digest, start)
        try:
            descriptor = self._resolve()
            if start >= descriptor.size:
                return None
            # `max_skip=0` refuses a response with the whole blob instead of the range: in this case, `_start` requests
            # the whole blob.
            size = descriptor.size
            reader = open_blob(self.source, self.digest, start, size, verify=False, size=size, max_skip=0)
        except (ProtocolError, RegistryError) as error:
            if not _may_serve_whole_blob(error):
                raise
            return None
        try:
            _Receiver(self, file, descriptor, hasher).run(reader)
        except DigestMismatch as error:
            if error is self.reporter.error:  # raised by the progress callback
                raise
            return None  # the partial file may have been corrupt: download the whole blob
        return descriptor

    def _start(self, file: PartialFile) -> Descriptor:
        """Download the whole blob."""
        with open_blob(self.source, self.digest, verify=False) as reader:
            check_size(self.digest, reader.descriptor.size, self._size)
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
            hasher = self._hash_prefix(lambda view, offset: read_at(file, view, offset), size)
            unchanged = os.fstat(file).st_size == size and is_at(file, self._target)
            return size if unchanged and hashed_digest(hasher, self.digest.algorithm) == self.digest else None
        finally:
            os.close(file)

    def _may_have_size(self, size: int, *, at_least: bool = False) -> bool:
        """Whether the blob may have this size (or at least this size), so that a file of this size is worth hashing.

        The size of the blob is requested if hashing would take longer than a request: a sparse file of 1 TiB takes no
        disk space, but many minutes to hash.
        """
        if size <= _HASH_LIMIT:
            return True
        try:
            return size <= self._resolve().size if at_least else size == self._resolve().size
        except (ProtocolError, RegistryError) as error:
            if not _may_serve_whole_blob(error):
                raise
            return False  # the registry does not state the size: the blob is downloaded instead

    def _resolve(self) -> Descriptor:
        """Return the descriptor of the blob. Only the first call sends a request (HEAD)."""
        if self._descriptor is None:
            self._descriptor = resolve_blob(self.source, self.digest)
            check_size(self.digest, self._descriptor.size, self._size)
        return self._descriptor

    def _hash_prefix(self, read: Callable[[memoryview, int], object], size: int) -> _Hash:
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
        """Raise `TransportTimeout` if the client's deadline has passed.

        The transport checks the deadline only when it sends or receives, but hashing a large file may take minutes.
        """
        deadline = self.source.sender.defaults.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise TransportTimeout(f"the deadline passed while {self.digest} was hashed on disk")


@final
class _Receiver:
    """Receives and hashes the bytes that follow the prefix of the partial file; see the module docstring."""

    def __init__(self, download: _Download, file: PartialFile, descriptor: Descriptor, hasher: _Hash) -> None:
        self._download, self._source = download, download.source
        self._file, self._descriptor, self._hasher = file, descriptor, hasher
        self._done, size, workers = file.prefix, descriptor.size, download.workers
        part_size = size if workers == 1 else part_size_for(size - self._done, workers, download.part_size)
        self._parts = PartScheduler(self._done, size, part_size, workers)
        self._pool = WorkerPool("ociwire-download", on_cancel=self._parts.wake)
        self._parts.check = self._pool.check
        self._helpers = min(workers, len(self._parts.parts)) - 1
        self._is_single_threaded = True  # the calling thread also hashes, until the other threads are started
        self._began = time.monotonic()
        self._report_lock = threading.Lock()

    def run(self, reader: BlobReader) -> None:
        """Receive and verify the rest of the blob.

        Args:
            reader: Response that starts at the end of the prefix. It is closed.
        """
        error: BaseException | None = None
        try:
            with reader:
                self._report(0)
                # The response does not end after the first part: continue to read it until a helper has taken the next
                # part.
                part = self._parts.follow(0)
                while part is not None:
                    self._receive(reader, part)
                    part = self._parts.follow(part.index + 1)
            self._receive_parts(self._source, max_skip=None)
        except BaseException as caught:  # noqa: BLE001 - `join` raises it after all threads have ended
            error = caught
        try:
            self._pool.join(error)
        finally:
            self._file.prefix = self._parts.prefix
        try:
            verify_digest(self._hasher, self._descriptor.digest)
        except DigestMismatch:
            self._file.prefix = 0  # it is unknown which bytes are wrong: keep none of them
            raise

    def _start_helpers_if_slow(self) -> None:
        """Start the other threads if the first connection is too slow.

        Several connections are no faster than one fast connection. The bytes from one connection are hashed while they
        are in the processor's cache. The bytes from several connections must be read back from the file to be hashed in
        order.
        """
        received = self._parts.prefix - self._parts.parts[0].start
        if not self._helpers or time.monotonic() - self._began < _ALONE_SECONDS + received / _FAST_RATE:
            return
        helpers, self._helpers = self._helpers, 0
        if self._file.allow_gaps(self._descriptor.size):
            with suppress(RuntimeError):  # the system has no more threads: continue with fewer
                self._pool.start(self._hash_in_order)
                self._is_single_threaded = False
                for _ in range(helpers):
                    self._pool.start(self._run_helper)

    def _run_helper(self) -> None:
        """Receive parts in a helper thread, until all are done or a request fails."""
        has_timeout = self._source.sender.defaults.timeout is not None
        source = self._source if has_timeout else self._source.with_options(timeout=_HELPER_TIMEOUT)
        with suppress(TransportError, AuthError, RegistryError):
            self._receive_parts(source, max_skip=0)

    def _receive_parts(self, source: Repository, *, max_skip: int | None) -> None:
        """Request and receive one part after another, until all are done."""
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
        size = _BUFFER_SIZE if self._is_single_threaded else 4 * _BUFFER_SIZE
        size = min(size, _BUFFER_MEMORY // (self._download.workers + 1))
        with memoryview(bytearray(min(size, part.stop - part.position))) as buffer:
            while part.position < part.stop:
                self._pool.check()
                if self._is_single_threaded:
                    self._start_helpers_if_slow()
                filled, began = 0, time.monotonic()
                with buffer[: part.stop - part.position] as view:
                    while filled < len(view) and (not filled or time.monotonic() - began < _FLUSH_INTERVAL):
                        count = reader.readinto(view[filled:])
                        if count == 0:
                            raise ReadError(f"the content of {self._descriptor.digest} ends too early")
                        filled += count
                    self._file.write(view[:filled], part.position)
                    if self._is_single_threaded:
                        self._hash(view[:filled], part.position)
                self._parts.advance(part, filled)
                self._report(filled)

    def _hash_in_order(self) -> None:
        """Hash the file from the end of its prefix to the end of the file. At each gap, wait until it is filled."""
        hashed = self._file.prefix
        with memoryview(bytearray(min(_BUFFER_SIZE, self._descriptor.size - hashed))) as buffer:
            while hashed < self._descriptor.size:
                prefix = self._parts.wait_beyond(hashed)
                while hashed < prefix:
                    with buffer[: prefix - hashed] as view:
                        # Reads from the page cache, which is as fast as passing buffers between threads in order.
                        self._file.read(view, hashed)
                        self._hash(view, hashed)
                        hashed += len(view)

    def _hash(self, view: memoryview, position: int) -> None:
        """Hash bytes, and record that the file has no gap before their end."""
        self._download.check_deadline()
        self._hasher.update(view)
        self._file.record_prefix(position + len(view))

    def _report(self, count: int) -> None:
        with self._report_lock:
            self._done += count
            try:
                self._download.reporter.report(self._descriptor.digest, self._done, self._descriptor.size)
            except BaseException as error:
                # Cancel at once: if the callback raises a `TransportError`, `_run_helper` suppresses it.
                self._pool.cancel(error)
                raise


def _may_serve_whole_blob(error: ProtocolError | RegistryError) -> bool:
    """Whether the registry may serve the whole blob after a HEAD or Range request failed with this error."""
    if isinstance(error, ProtocolError):
        return True
    # With these statuses, a request without a Range would fail, too.
    return error.status not in (401, 403, 404, 429) and (error.status < 500 or error.status == 501)


def _check_target(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of the target. Raise `UsageError` if no file can be created there."""
    target = check_path(path)
    directory, name = os.path.split(target)
    if not os.path.isdir(directory or "."):
        raise UsageError(
            f"cannot download to {format_path(target)}: the directory {format_path(directory)} does not exist; create"
            " it first"
        )
    try:
        mode = os.lstat(target).st_mode  # not `stat`: a symbolic link is replaced, and may be dangling or a loop
    except FileNotFoundError:
        mode = stat.S_IFREG
    if name in ("", ".", "..") or stat.S_ISDIR(mode):
        raise UsageError(f"cannot download to {format_path(target)}: it is a directory; expected the path of a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"cannot download to {format_path(target)}: it exists and is not a regular file")
    return os.path.abspath(target)
