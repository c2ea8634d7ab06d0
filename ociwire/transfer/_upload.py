"""Uploads a blob from a path, a file, bytes or a stream, unless the registry has it or can mount it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO

from .._argument_checks import safe_repr
from .._client.blobs import find_blob, resolve_blob
from .._client.client import Client
from .._client.repository import repository_of
from .._client.uploads import try_mount
from .._http.body import Body
from .._oci.descriptor import Descriptor, is_media_type
from .._oci.digest import Digest
from .._oci.reference import check_repository
from ..errors import NotFound, UsageError
from ..media_types import OCTET_STREAM
from ._arguments import check_client, check_number, check_progress
from ._content import open_content
from ._progress import ProgressCallback, ProgressReporter
from ._resumable_upload import ResumableUpload

__all__ = ["upload"]


def upload(
    client: Client,
    repository: str,
    source: str | os.PathLike[str] | BinaryIO | bytes | Iterable[bytes] | Body,
    *,
    digest: str | None = None,
    chunk_size: int | None = None,
    mount_from: str | None = None,
    media_type: str = OCTET_STREAM,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """Upload a blob of any size.

    Without a digest, the content is hashed (sha256) in a thread of its own while it is sent. With a digest, the
    registry is asked first, and content that it has or mounts is neither read nor sent; only the registry verifies
    content that is sent.

    After a fault that outlasts the retries of the transport, the upload is resumed from the registry's offset: any
    number of times with progress between the faults, three times without. If the registry has dropped the upload, or
    computes another digest, content that can be read again is sent again. In the latter case it is also hashed again,
    so that a file that was modified meanwhile is uploaded with its new digest. If the registry has all bytes and may
    still be committing the blob, the call waits up to ten minutes or until the deadline. An upload that fails, also by
    KeyboardInterrupt, is cancelled if the registry answers within 10 seconds, even after the client's deadline.

    Uses at most about 20 MiB of memory with the default chunk size, unless the source yields larger chunks.

    Args:
        client: Client of the registry.
        repository: Name of the repository.
        source: Path of a regular file; a seekable binary file, which is read from its current position and not closed;
            bytes; a `Body`; or any reader or iterable of bytes, which is read once, with one chunk held in memory. Open
            a FIFO, a device or standard input yourself and pass the file object.
        digest: Digest of the content, if it is known.
        chunk_size: Number of bytes to send in one request. Defaults to the whole content if it can be sent again and
            the registry accepts that, else to 4 MiB or the largest size that the registry accepts.
        mount_from: Another repository of the registry that may have the blob (specification, "Mounting a blob from
            another repository"). Requires the digest. A blob that is not mounted is uploaded.
        media_type: Media type of the returned descriptor. It is not sent to the registry.
        progress: Called with a `Progress` in the caller's thread. `Progress.done` is the number of bytes that were sent
            or that the registry had, and never decreases; `Progress.total` is `None` if the source can be read only
            once.

    Returns:
        The blob's descriptor.

    Raises:
        UsageError: An argument is not valid, the path is not that of a regular file, the source can be read only once
            and was read before, or `mount_from` is given without a digest. Nothing was sent.
        DigestInvalid: The content does not have the digest; or, without one, it changed each time it was sent.
        SizeMismatch: The content became longer or shorter while it was read.
        RegistryError: The registry refused.
        TransportError: There is no usable response, or the deadline has passed.
        OSError: The file cannot be opened or read.
        Exception: The exception that the content or `progress` raised, unchanged.
    """
    target = repository_of(check_client(client), repository, "upload")
    known = None if digest is None else Digest(digest)
    if known is not None:
        known.hasher()  # refuses an algorithm that is not supported
    elif mount_from is not None:
        raise UsageError("cannot mount without a digest: pass the digest of the blob together with mount_from")
    if mount_from is not None:
        check_repository(mount_from)
    if chunk_size is not None:
        check_number("chunk size", chunk_size)
    if not is_media_type(media_type):
        raise UsageError(
            f"invalid media type {safe_repr(media_type, 200)}: expected the form type/subtype, without parameters"
        )
    with ProgressReporter(check_progress(progress), "upload") as reporter, open_content(source) as content:
        stored, session = None, None
        if known is not None:
            stored = find_blob(target, known)
            if stored is None and mount_from is not None:
                is_mounted, session = try_mount(target, known, mount_from)
                if is_mounted:
                    with suppress(NotFound):  # some registries claim to have mounted a blob that they do not have
                        stored = resolve_blob(target, known, target.push_scope)
        if stored is not None:
            reporter.report(known, stored.size, stored.size)
            return Descriptor(media_type, stored.digest, stored.size)
        return ResumableUpload(target, content, chunk_size, reporter).run(known, session).replace(media_type=media_type)
