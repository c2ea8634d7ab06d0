"""A blob, from a path, a file, bytes or a stream, into a registry: what is there, or can be mounted, is not sent.

Each byte is read, hashed and sent once, unless a fault costs more; an upload that fails is cancelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO

from .. import download as blobs
from ..client import Client
from ..descriptor import OCTET_STREAM, Descriptor, is_media_type
from ..digest import Digest
from ..errors import Denied, NotFound, Unauthorized, Unsupported, UsageError
from ..reference import check_repository
from ..scope import Scope
from .content import Content
from .outgoing import Meter, Outgoing
from .progress import ProgressCallback

__all__ = ["upload"]


def upload(
    client: Client,
    repository: str,
    source: str | os.PathLike[str] | BinaryIO | bytes | Iterable[bytes],
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
    is held in memory for one chunk. Where the registry has given the upload up, a content that can be had again is sent
    anew. An upload that fails, by KeyboardInterrupt too, is cancelled if the registry answers within 10 seconds.

    At most about 20 MiB of memory are used, if chunks are as large as by default and the source gives no larger ones.

    Args:
        client: The registry's.
        repository: Where to.
        source: A path; a seekable binary file, from where it stands (borrowed, not closed); bytes; or any reader or
            iterable of bytes, which is read once.
        digest: What the content is, if that is known.
        chunk_size: How many bytes are sent at a time. None is all at once for what can be had again, if the registry
            takes that; else 4 MiB, or what it was seen to take.
        mount_from: A repository of the same registry that may have the blob (specification, "Mounting a blob from
            another repository"). Needs the digest. Where it is not mounted, it is uploaded.
        media_type: Of the descriptor that is returned; the registry is not told.
        progress: Is called with each event, from the caller's thread. Its `Progress.done` counts bytes that were sent,
            or were there, and never falls; `Progress.total` is None where the content can be read only once.

    Returns:
        The blob's descriptor.

    Raises:
        UsageError: A name, digest, number or media type is none, the source is no bytes, or there is a `mount_from`
            without a digest. Nothing was sent.
        DigestInvalid: The content does not have the digest that was given.
        SizeMismatch: The content became longer or shorter while it was read.
        RegistryError: The registry said no.
        TransportError: There is no usable answer, or no time left.
        OSError: The file cannot be opened or read.
        Exception: Whatever the content or `progress` raised, as it was raised.
    """
    check_repository(repository)
    wanted = None if digest is None else Digest(digest)
    _check(wanted, chunk_size, mount_from, media_type)
    with Content.of(source) as content:
        meter = Meter(progress, wanted, content.size)
        if wanted is None or (size := _there(client, repository, wanted, mount_from)) is None:
            wanted, size = Outgoing(client, repository, content, chunk_size, meter).run(wanted)
        meter.end(wanted, size)
    return Descriptor(media_type, wanted, size)


def _check(digest: Digest | None, chunk_size: int | None, mount_from: str | None, media_type: str) -> None:
    if digest is not None:
        digest.hasher()
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise UsageError(f"not a chunk size: {chunk_size!r} (a number of bytes, 1 or more)")
    if mount_from is not None:
        check_repository(mount_from)
        if digest is None:
            raise UsageError("mount_from needs the digest of the blob that is to be mounted")
    if not is_media_type(media_type):
        raise UsageError(f"not a media type: {media_type!r:.200}")


def _there(client: Client, repository: str, digest: Digest, mount_from: str | None) -> int | None:
    """The size of a blob that is there, or was mounted; None if it has to be sent."""
    # The scope is that of the upload that may follow: one token does for all of it.
    scope = Scope.repository(repository, "pull", "push")
    with suppress(NotFound):
        return blobs.resolve_blob(client._session, "upload", repository, digest, scope).size
    if mount_from is not None:
        with suppress(NotFound, Unsupported, Denied, Unauthorized):
            return client.mount_blob(mount_from, repository, digest).size
    return None
