"""A blob into a file: verified once, in order, while it arrives, and under its name only when it is right."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._client.blob_reader import BlobReader
from .._client.client import Client
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest, check_hashed
from .._oci.reference import check_repository
from ..errors import DigestMismatch, ProtocolError, RegistryError, UsageError
from ..media_types import OCTET_STREAM
from ._arguments import check_client, check_number, check_path, check_progress, check_workers
from ._fetch import Fetch, Options
from ._partial_file import PartialFile, is_at, open_regular, read_at
from ._parts import BUFFER
from ._progress import Progress, ProgressCallback
from ._source import Source

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["download"]

_SAID_OF_ALL = (401, 403, 404, 429)
"""Statuses that say nothing of ranges: without one the answer would be the same."""
_HASH_LIMIT = 64 * 1024 * 1024
"""Maximum size in bytes of a file on disk that is hashed (40 ms) before the registry is asked for the blob's size."""


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
    """Download a blob into a file, which is there when it is whole and right, and not before.

    It goes into a hidden file beside the target, ``.NAME.DIGEST.part``, which is synced and renamed. A download that
    was interrupted, or whose process was killed, goes on from that file: what is there is hashed again, and if the
    digest is wrong in the end, or the registry does not do ranges as it should, all is fetched once more from nothing.
    A file of that name is left alone if it is another user's, hard-linked elsewhere, or not a regular file (a symbolic
    link, a FIFO, a device). Other downloads of the same blob to the same target, at the same time, have files of their
    own, ``.NAME.DIGEST.1.part`` and so on. A download that succeeds removes the files of killed ones.

    A file that is there already and has the digest is left as it is, and nothing is sent. Any other one is replaced in
    the end, and its mode and its owner with it: the new file has those that a new file has. A symbolic link is never
    followed: the link itself is replaced by the file, whatever it leads to.

    A file on disk of more than 64 MiB, at the target or of an interrupted download, is hashed only if its size fits
    the blob: the registry is asked for the size first (HEAD). The deadline bounds the hashing, too.

    If another process replaces the hidden file before it is renamed, or the target right after it, `download` raises
    `OSError`, unless the file at the target has the digest.

    One stream fetches all of it. Where that takes more than about a second, a second connection is tried by Range
    (RFC 9110, section 14): if both together are faster by a third than the one, all `workers` fetch parts; else, or
    where the registry does not do ranges, one goes on alone. The others only help: one that is refused or lost costs
    nothing but itself, and what comes too slowly by one is fetched by another. The buffers take 32 MiB at the most.

    It returns when all of its threads have ended. Once it fails, or all has come, no worker asks for more; but what one
    waits for at that moment lasts as long as the client's timeouts and its deadline let it (`Client.with_options`), and
    for a helper 10 s where the client's options name no timeout. A helper that was told to wait (429, 503) waits as
    the client's transport does, and is waited for.

    Args:
        client: The registry.
        repository: The repository's name.
        digest: The blob's: sha256, sha384 or sha512.
        path: Where it is to be, in a folder that exists.
        workers: The most connections at a time, 1 or more; 1 is one stream, without a probe. There are never more
            than 64, nor more than parts.
        part_size: How many bytes a part has, 1 or more; None is 32 to 256 MiB, by the size of the blob. Parts are
            larger where there would be more than 4096 of them.
        progress: Called with each `Progress`, from any thread, one at a time; what it raises ends the download. A
            download that starts over counts from 0 again.

    Returns:
        What it is: digest, size, and the media type that the registry gives it.

    Raises:
        UsageError: An argument is not valid, the path is a directory, a FIFO, a socket or a device, or its directory
            does not exist.
        BlobUnknown: The repository has no such blob.
        DigestMismatch: The content is another; nothing of it is kept.
        SizeMismatch: It is longer or shorter than the registry says.
        TransportError: There is no usable answer, or the connection broke and could not be taken up again.
        OSError: The file system's: the disk is full, the folder cannot be written, another process has replaced the
            file. After this, and after all others, what has come without gaps is kept, to go on from.
    """
    source = Source(check_client(client), check_repository(repository), _checked_digest(digest))
    if part_size is not None:
        check_number("part size", part_size)
    options = Options(check_workers(workers), part_size, check_progress(progress))
    target = _target(path)
    size = _size_if_right(target, source)
    if size is not None:
        return _done_already(source, size, options)
    descriptor, placed = _Download(source, PartialFile(target, source.digest), options).run()
    # Another download of the same blob may have been renamed to the target in the same moment.
    if not placed and _size_if_right(target, source, descriptor.size) is None:
        raise OSError(
            f"{target} does not hold {source.digest}: another process has replaced the file when the download was"
            " complete; download again"
        )
    return descriptor


class _Download:
    """One call, with all that is known to be good."""

    def __init__(self, source: Source, file: PartialFile, options: Options) -> None:
        self._source = source
        self._file = file
        self._options = options
        self._kept = file.prefix

    def run(self) -> tuple[Descriptor, bool]:
        """What it is, and whether the target is the file that was written."""
        finished = False
        try:
            descriptor = self._go_on() if self._file.prefix else self._begin()
            placed = self._file.finish()
            finished = True
        finally:
            if not finished:
                self._file.leave(self._kept)
        return descriptor, placed

    def _go_on(self) -> Descriptor:
        """From what is there; if that is of no use, from nothing."""
        start, digest = self._file.prefix, self._source.digest
        if start > _expected_size(start, self._source):
            return self._begin()
        hasher = digest.hasher()
        _hash(self._file.read, hasher, start, self._source)
        if _is(hasher, digest):
            return _done_already(self._source, start, self._options)
        try:
            descriptor = self._source.describe()
            reader = self._source.part(descriptor, start, descriptor.size) if start < descriptor.size else None
        except (ProtocolError, RegistryError) as error:
            if not _is_of_ranges(error):
                raise
            reader = None
        if reader is None:
            return self._begin()
        try:
            self._fetch(reader, descriptor, hasher, start)
        except DigestMismatch:  # what was there may have been the part that is wrong
            return self._begin()
        return descriptor

    def _begin(self) -> Descriptor:
        """From nothing."""
        self._source = self._source.anew()
        reader = self._source.whole()
        with reader:
            self._kept = 0
            self._file.cut(0)
            self._fetch(reader, reader.descriptor, self._source.digest.hasher(), 0)
        return reader.descriptor

    def _fetch(self, reader: BlobReader, descriptor: Descriptor, hasher: _Hash, start: int) -> None:
        fetch = Fetch(self._source, self._file, descriptor, hasher, start, self._options)
        try:
            fetch.run(reader)
        finally:
            self._kept = fetch.prefix()
        try:
            check_hashed(hasher, self._source.digest)
        except DigestMismatch:
            self._kept = 0
            raise


def _is_of_ranges(error: ProtocolError | RegistryError) -> bool:
    """Whether the registry may be at odds with ranges only, and have the whole."""
    if isinstance(error, ProtocolError):
        return True
    return error.status not in _SAID_OF_ALL and (error.status < 500 or error.status == 501)


def _done_already(source: Source, size: int, options: Options) -> Descriptor:
    if options.progress is not None:
        options.progress(Progress("download", source.digest, size, size))
    return Descriptor(OCTET_STREAM, source.digest, size)


def _checked_digest(text: str) -> Digest:
    digest = Digest(text)
    digest.hasher()
    return digest


def _target(path: str | os.PathLike[str]) -> str:
    """Where the file is to be, if there can be one."""
    target = check_path(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder or "."):
        raise UsageError(f"cannot download to {target}: {folder} is not a directory that exists")
    try:
        mode = os.lstat(target).st_mode  # not `stat`: a symbolic link is replaced, and may be dangling or a loop
    except FileNotFoundError:
        mode = stat.S_IFREG
    if name in ("", ".", "..") or stat.S_ISDIR(mode):
        raise UsageError(f"cannot download to {target}: it is a directory")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"cannot download to {target}: it exists and is not a regular file")
    return os.path.abspath(target)


def _size_if_right(target: str, source: Source, wanted: int | None = None) -> int | None:
    """The size of the file at the target if it has the digest, else None. `wanted` is the blob's size, if known."""
    descriptor = open_regular(target)
    if descriptor is None:
        return None
    try:
        size = os.fstat(descriptor).st_size
        if size != (_expected_size(size, source) if wanted is None else wanted):
            return None
        hasher = source.digest.hasher()

        def read(view: memoryview, offset: int) -> None:
            read_at(descriptor, view, offset)

        _hash(read, hasher, size, source)
        unchanged = os.fstat(descriptor).st_size == size and is_at(descriptor, target)
        return size if unchanged and _is(hasher, source.digest) else None
    finally:
        os.close(descriptor)


def _expected_size(count: int, source: Source) -> int:
    """The size of the blob, if hashing `count` bytes would take longer than asking for it; else `count` itself.

    A file on disk may have any size at no cost: a sparse file of 1 TiB takes many minutes to hash.
    """
    if count <= _HASH_LIMIT:
        return count
    try:
        return source.describe().size
    except (ProtocolError, RegistryError) as error:
        if not _is_of_ranges(error):
            raise
        return -1  # the registry does not tell the size: the blob is fetched instead


def _hash(read: Callable[[memoryview, int], None], hasher: _Hash, size: int, source: Source) -> None:
    """Hash the first `size` bytes of a file. Raises `TransportTimeout` if the deadline passes."""
    position = 0
    with memoryview(bytearray(min(BUFFER, size))) as buffer:
        while position < size:
            source.check_deadline()
            with buffer[: size - position] as view:
                read(view, position)
                hasher.update(view)
                position += len(view)


def _is(hasher: _Hash, digest: Digest) -> bool:
    return f"{digest.algorithm}:{hasher.hexdigest()}" == digest
