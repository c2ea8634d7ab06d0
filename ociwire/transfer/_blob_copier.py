"""Copies blobs from one repository to another, through memory only, in pieces of 1 MiB.

A blob is offered before it is sent, by the POST that opens its upload session: with ``mount=`` from the source's
repository if both are at one registry, else from the target's own repository. A registry that mounts answers that with
201 if it has the blob already, so that one request finds that out or opens the session (OCI distribution specification,
"Mounting a blob from another repository"). If it refuses, the target is not asked that way again.

`BlobReader` verifies a blob before it returns the last byte, so that the target never gets all of a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import final

from .._client.blob_reader import BlobReader
from .._client.blobs import open_blob, resolve_blob
from .._client.error_mapping import is_transient
from .._client.manifests import find_manifest
from .._client.repository import Repository
from .._client.upload_completion import UploadCompletion
from .._client.uploads import UploadSession, blob_exists, cancel_quietly, open_upload, try_mount
from .._http.body import Body, has_raised
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest
from ..errors import (
    AuthError,
    BlobUploadInvalid,
    BlobUploadUnknown,
    BodyConsumedError,
    NotFound,
    OciwireError,
    ReadError,
    RegistryError,
    SizeMismatch,
    TransportError,
    TransportTimeout,
)

__all__ = ["BlobCopier"]

_MAX_ATTEMPTS = 3
_PIECE_SIZE = 1024 * 1024


@final
class BlobCopier:
    """Copies blobs. May be shared by threads, each with another blob.

    `on_progress` is called with a blob and the number of its bytes that were sent.
    """

    def __init__(self, source: Repository, target: Repository, on_progress: Callable[[Descriptor, int], None]) -> None:
        self._source = source
        self._target = target
        self._on_progress = on_progress
        is_same_registry = source.sender.origin == target.sender.origin
        self._mount_from = source.name if is_same_registry else target.name
        self._can_mount = True
        self._ask_first = False  # the target has a blob of this copy, and may have others
        self._existing: set[Digest] = set()

    def has_manifest(self, digest: Digest, blobs: Sequence[Descriptor]) -> bool:
        """Whether the target has a manifest, and thus all that it references.

        It does not if it lacks the first of the blobs: asked first, because the answer is of use for the blobs, too.
        """
        if blobs and not self._exists(blobs[0].digest):
            return False
        self._ask_first = self._ask_first or bool(blobs)
        return find_manifest(self._target, digest) is not None

    def copy_blob(self, blob: Descriptor) -> None:
        """Copy a blob, unless the target has or mounts it; nor one with ``urls`` that the source does not have."""
        if blob.digest in self._existing or (self._ask_first and self._exists(blob.digest)):
            return
        if blob.urls:
            try:
                resolve_blob(self._source, blob.digest)
            except NotFound:
                return
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            error = self._attempt(blob)
            if error is None or self._exists(blob.digest):
                break
            if not attempts_left:
                raise error
        self._existing.add(blob.digest)

    def _exists(self, digest: Digest) -> bool:
        if digest not in self._existing and blob_exists(self._target, digest):
            self._existing.add(digest)
        return digest in self._existing

    def _attempt(self, blob: Descriptor) -> OciwireError | None:
        """Mount or send a blob; returns an error after which it may be sent again.

        A session that fails is cancelled, unless the way to the target failed: then its state is not known, and the
        registry drops it in its own time.
        """
        is_mounted, session = self._mount(blob.digest)
        if is_mounted:
            return None
        transfer = _BlobTransfer(blob, self._on_progress)
        try:
            with self._open(blob) as content:
                if session is None:
                    session = open_upload(self._target, blob.digest.algorithm)
                body = transfer.start(content)
                incomplete = UploadCompletion(self._target, session.location, blob.digest, body).run()
        except BaseException as error:
            if session is not None and not transfer.has_lost_target(error):
                cancel_quietly(self._target, session.location)
            if transfer.callback_error is not None:
                raise transfer.callback_error  # noqa: B904 - unchanged, with the cause that it had
            if isinstance(error, OciwireError) and transfer.may_retry(error):
                return error
            raise
        if incomplete is None:
            return None
        # Without an offset, waiting and repeating the PUT did not help.
        has_given_up = incomplete.location is not None and incomplete.offset is None
        if incomplete.location is not None and not (has_given_up and isinstance(incomplete.fault, TransportError)):
            cancel_quietly(self._target, incomplete.location)
        if has_given_up:
            raise incomplete.fault
        return incomplete.error()

    def _mount(self, digest: Digest) -> tuple[bool, UploadSession | None]:
        if not self._can_mount:
            return False, None
        is_mounted, session = try_mount(self._target, digest, self._mount_from)
        self._can_mount = is_mounted or session is not None  # a refusal is for all blobs; they may still be sent
        return is_mounted, session

    def _open(self, blob: Descriptor) -> BlobReader | nullcontext[bytes]:
        """The content: embedded in the descriptor (image specification, "Embedded Content"), or from the source."""
        data = b"" if blob.data is None and blob.size == 0 else blob.data
        if data is not None and len(data) == blob.size and Digest.of(data, blob.digest.algorithm) == blob.digest:
            return nullcontext(data)
        reader = open_blob(self._source, blob.digest)
        if reader.descriptor.size != blob.size:
            reader.close()
            raise SizeMismatch(
                f"{blob.digest} has {reader.descriptor.size} bytes, and its manifest says {blob.size}",
                expected=blob.size,
                actual=reader.descriptor.size,
            )
        return reader


@final
class _BlobTransfer:
    """A blob while it is sent: knows which side an error comes from.

    Attributes:
        callback_error: What the progress callback has raised.
    """

    def __init__(self, blob: Descriptor, on_progress: Callable[[Descriptor, int], None]) -> None:
        self._blob = blob
        self._on_progress = on_progress
        self._body: Body | None = None
        self.callback_error: BaseException | None = None

    def start(self, content: BlobReader | bytes) -> Body:
        """Return the body to send. From now on an error may be the target's."""
        if isinstance(content, bytes):
            self._body = Body.of(content)
        else:
            self._body = Body.of(self._read_pieces(content), self._blob.size)
        return self._body

    def _read_pieces(self, reader: BlobReader) -> Iterator[bytes]:
        done = 0
        while piece := reader.read(_PIECE_SIZE):
            yield piece
            done += len(piece)
            try:
                self._on_progress(self._blob, done)
            except BaseException as error:
                self.callback_error = error
                raise

    def has_lost_target(self, error: BaseException) -> bool:
        """Whether the connection to the target has failed."""
        is_ours = self._body is None or has_raised(self._body, error) or self.callback_error is not None
        return isinstance(error, TransportError) and not isinstance(error, BodyConsumedError) and not is_ours

    def may_retry(self, error: OciwireError) -> bool:
        """Whether to send the blob again. The layers below have repeated what they could."""
        if self._body is None or isinstance(error, AuthError):
            return False
        if isinstance(error, (BlobUploadInvalid, BlobUploadUnknown, BodyConsumedError)):
            return True
        if isinstance(error, RegistryError):
            return not self._body.resendable and (is_transient(error) or error.status == 401)
        return not self._body.resendable and isinstance(error, (ReadError, TransportTimeout))
