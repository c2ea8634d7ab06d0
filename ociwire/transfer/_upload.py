"""A blob, from a path, a file, bytes or a stream, into a registry: what is there, or can be mounted, is not sent.

Each byte is read, hashed and sent once, unless a fault costs more; an upload that fails is cancelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import BinaryIO

from .._arguments import show
from .._client.client import Client
from .._client.uploads import UploadSession
from .._http.body import Body
from .._oci.descriptor import Descriptor, is_media_type
from .._oci.digest import Digest
from .._oci.reference import check_repository
from ..errors import UsageError
from ..media_types import OCTET_STREAM
from ._arguments import check_client, check_number, check_progress
from ._content import Content
from ._progress import ProgressCallback, Teller
from ._repository import Repository
from ._resumable_upload import Meter, Outgoing

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
    """Upload a blob, however large, and tell what it is.

    Without a digest, the content is hashed (sha256) in a thread of its own while it goes out. With one, the registry is
    asked first: what it has, or mounts, is neither read nor sent; and what is sent is verified by the registry alone.

    After a fault that outlasted the retries of the client's transport, it goes on from what the registry has: as long
    as there is progress between one fault and the next, and three times without. A content that can be read only once
    is held in memory for one chunk. Where the registry has given the upload up, or finds another digest than was hashed
    here, content that can be read again is sent again; in the latter case it is hashed again, too, so that a file that
    was modified meanwhile is uploaded with its new digest. If the registry has all bytes and may still be committing
    the blob, the call waits up to ten minutes or until the deadline. An upload that fails, by KeyboardInterrupt too, is
    cancelled if the registry answers within 10 seconds, even after the client's deadline.

    At most about 20 MiB of memory are used, if chunks are as large as by default and the source gives no larger ones.

    Args:
        client: The registry's.
        repository: Where to.
        source: The path of a regular file; a seekable binary file, from where it stands (borrowed, not closed); bytes;
            a `Body`; or any reader or iterable of bytes, which is read once. Open a FIFO, a device or standard input
            yourself and pass the file object.
        digest: What the content is, if that is known.
        chunk_size: How many bytes are sent at a time. None is all at once for what can be had again, if the registry
            takes that; else 4 MiB, or what it was seen to take.
        mount_from: A repository of the same registry that may have the blob (specification, "Mounting a blob from
            another repository"). Needs the digest. Where it is not mounted, whatever the refusal, it is uploaded.
        media_type: Of the descriptor that is returned; the registry is not told.
        progress: Is called with each event, from the caller's thread. Its `Progress.done` counts bytes that were sent,
            or were there, and never falls; `Progress.total` is None where the content can be read only once.

    Returns:
        The blob's descriptor.

    Raises:
        UsageError: A name, digest, number, path or media type is not valid, the path is not that of a regular file, the
            source is no bytes, or can be read only once and was, or there is a `mount_from` without a digest. Nothing
            was sent.
        DigestInvalid: The content does not have the digest that was given; or, without one, became another each time
            that it was sent.
        SizeMismatch: The content became longer or shorter while it was read.
        RegistryError: The registry said no.
        TransportError: There is no usable answer, or no time left.
        OSError: The file cannot be opened or read.
        Exception: Whatever the content or `progress` raised, as it was raised.
    """
    target = Repository(check_client(client), check_repository(repository), "upload")
    wanted = None if digest is None else Digest(digest)
    _check(wanted, chunk_size, mount_from, media_type)
    with Teller(check_progress(progress)) as tell, Content.of(source) as content:
        meter = Meter(tell, wanted, content.size)
        size, opened = (None, None) if wanted is None else _there(target, wanted, mount_from)
        if wanted is None or size is None:
            wanted, size = Outgoing(client, target, content, chunk_size, meter).run(wanted, opened)
        meter.end(wanted, size)
    return Descriptor(media_type, wanted, size)


def _check(digest: Digest | None, chunk_size: int | None, mount_from: str | None, media_type: str) -> None:
    if digest is not None:
        digest.hasher()
    if chunk_size is not None:
        check_number("chunk size", chunk_size)
    if mount_from is not None:
        check_repository(mount_from)
        if digest is None:
            raise UsageError("mount_from needs the digest of the blob that is to be mounted")
    if not is_media_type(media_type):
        raise UsageError(f"not a media type: {show(media_type, 200)} (it reads type/subtype, without parameters)")


def _there(target: Repository, digest: Digest, mount_from: str | None) -> tuple[int | None, UploadSession | None]:
    """The size of a blob that is there, or was mounted; else what the registry has opened instead of mounting it."""
    found, opened = target.find_blob(digest), None
    if found is None and mount_from is not None:
        mounted, opened = target.mount(digest, mount_from)
        found = target.resolve_blob(digest) if mounted else None
    return None if found is None else found.size, opened
