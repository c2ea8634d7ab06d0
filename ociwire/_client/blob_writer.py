"""Uploads in chunks, which can be resumed after a fault, also by another process.

Follows the OCI distribution specification, "Pushing a blob in chunks", and the deviations of deployed registries.

A `BlobWriter` is open, closed (`close`: nothing more is written, but the upload can be resumed or committed) or over
(committed or cancelled). Its buffer is sent in chunks. What follows a chunk (PATCH) depends on the response::

    response    the GET of the session reports      what follows
    2xx                                             acknowledge the chunk, whatever Range says (ECR states it wrongly)
    413                                             halve the chunk size and send again; raise below the minimum
    416         an offset within the chunk          acknowledge the bytes up to it
    416         0, and ``0-0`` may mean one byte    send the rest of the first chunk from byte 1
    416         the same offset as the writer       halve the chunk size if the chunk is large (128 KiB), else raise
    416         any other offset                    raise `RangeInvalid`
    other, or a fault                               raise; from now on the registry may have more than was acknowledged

While the registry may have more than was acknowledged (`_offset_uncertain`), the rest is sent in chunks and not with
the closing PUT: a registry refuses a chunk at the wrong offset, but some append the body of any PUT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._http.body import Body, skip
from .._http.messages import Response
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest, hashed_digest, new_hasher
from ..errors import BlobUploadInvalid, BlobUploadUnknown, ProtocolError, RangeInvalid, RegistryError, UsageError
from ..media_types import OCTET_STREAM
from .repository import Repository
from .upload_completion import IncompleteUpload, UploadCompletion
from .uploads import (
    blob_exists,
    cancel_upload,
    open_upload,
    patch_upload,
    read_status,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DEFAULT_CHUNK_SIZE", "BlobWriter", "begin_upload", "push_blob", "resume_upload"]

DEFAULT_CHUNK_SIZE = 4 * 1024 * 1024
"""Default size of a chunk in bytes: some registries refuse larger ones (GHCR)."""
_LARGE_CHUNK = 128 * 1024
"""Size in bytes from which a 416 without another reason may mean that the chunk is too large."""
_MAX_FAULTS = 3
"""Number of consecutive faults of the closing PUT, without progress between them, that end a commit."""


def push_blob(repository: Repository, digest: Digest, body: Body) -> None:
    """Upload a blob with a POST and a PUT; see `Client.push_blob`.

    If a fault of the PUT left a part of the content at the registry, the rest follows in chunks. If the registry has
    lost the upload, the content is sent to a new one, once. Both need a body that can be sent again.
    """
    for attempts_left in (1, 0):
        session = open_upload(repository, digest.algorithm)
        try:
            incomplete = UploadCompletion(repository, session.location, digest, body).run()
            if incomplete is None:
                return
            if not body.resendable:
                raise incomplete.fault
            if incomplete.location is None or incomplete.offset is None:
                raise incomplete.error()
            writer = BlobWriter(
                repository,
                incomplete.location,
                offset=incomplete.offset,
                min_chunk_length=incomplete.min_chunk_length,
                offset_uncertain=True,  # more of the PUT may arrive
            )
            writer.disable_hashing()
            for chunk in skip(body.open(), incomplete.offset):
                writer.write(chunk)
            writer.commit(digest)
            return
        except (BlobUploadUnknown, BlobUploadInvalid):
            if not body.resendable or not attempts_left:
                raise


def begin_upload(repository: Repository, chunk_size: int | None, algorithm: str) -> BlobWriter:
    """Open an upload session and return its writer; see `Client.push_blob_chunked`."""
    session = open_upload(repository, algorithm)
    return BlobWriter(
        repository,
        session.location,
        min_chunk_length=session.min_chunk_length,
        chunk_size=chunk_size,
        algorithm=algorithm,
    )


def resume_upload(repository: Repository, upload_id: str, offset: int | None, chunk_size: int | None) -> BlobWriter:
    """Return a writer that resumes an upload; see `Client.push_blob_chunked_resume`."""
    try:
        location = repository.upload_location(Response(202, {"Location": upload_id}))
    except ProtocolError as error:
        raise UsageError(f"not the id of an upload: {error}") from None
    # Later requests have the operation name of a chunked upload, whichever process opened the session.
    target = Repository(repository.sender, repository.name, "push_blob_chunked")
    if offset is not None:
        return BlobWriter(target, location, offset=offset, chunk_size=chunk_size)
    status = read_status(repository, location)
    return BlobWriter(
        target,
        status.location,
        offset=status.offset,
        min_chunk_length=status.min_chunk_length,
        chunk_size=chunk_size,
        offset_uncertain=status.offset == 0,
    )


@final
class BlobWriter:
    """An upload session that bytes are written to. They are buffered, and each chunk is sent as it is full.

    Made by `Client.push_blob_chunked` and `Client.push_blob_chunked_resume`. As a context manager it ends in `close`,
    which sends the buffer and keeps the upload: `id` resumes it, in another process too. After an exception nothing
    more is sent. It never commits or cancels by itself. Not thread-safe.

    Attributes:
        flushed: The number of bytes that the registry has acknowledged.
        chunk_size: The size of the next chunk in bytes; less than was requested if the registry refused that.
    """

    def __init__(
        self,
        repository: Repository,
        location: str,
        *,
        offset: int = 0,
        min_chunk_length: int = 0,
        chunk_size: int | None = None,
        algorithm: str = "sha256",
        offset_uncertain: bool = False,
    ) -> None:
        self._repository = repository
        self._location = location
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm) if offset == 0 else None
        self._buffer = bytearray()
        self._min_chunk_length = max(min_chunk_length, 1)
        self._offset_uncertain = offset_uncertain  # the registry may have more than it has acknowledged
        self._is_chunk_reduced = False
        self._is_open = True
        self._is_over = False
        self.flushed = offset
        requested = DEFAULT_CHUNK_SIZE if chunk_size is None else chunk_size
        limit = repository.sender.state.max_chunk_size or requested
        self.chunk_size = max(min(requested, limit), min_chunk_length)

    @property
    def id(self) -> str:
        """The URL of the upload session, for `Client.push_blob_chunked_resume`. It changes with each chunk."""
        return self._location

    @property
    def size(self) -> int:
        """The number of bytes that the upload has in all, sent or buffered."""
        return self.flushed + len(self._buffer)

    def disable_hashing(self) -> None:
        """Stop hashing what is written: the caller hashes it, and passes the digest to `commit`."""
        self._hasher = None

    def write(self, data: Buffer, /) -> int:
        """Buffer bytes, and send each chunk that is full; the last chunk is sent by `commit` or `close`.

        If sending fails, `size` tells how many bytes were taken: the others can be written to this writer again. A
        writer that resumes the upload needs the bytes from its own `size` on.

        Returns:
            The number of bytes, all of them.

        Raises:
            UsageError: The writer is closed.
            RangeInvalid: The registry has other bytes than were sent; the upload can still be resumed.
            RegistryError: The registry refused.
            TransportError: There is no usable response.
        """
        if not self._is_open:
            raise UsageError("the upload's writer is closed")
        view = memoryview(data).cast("B")
        taken = 0
        while taken < len(view):
            if len(self._buffer) >= self.chunk_size:
                self._send_chunk()
            piece = view[taken : taken + max(0, self.chunk_size - len(self._buffer))]
            self._buffer += piece
            taken += len(piece)
            if self._hasher is not None:
                self._hasher.update(piece)
        return taken

    def close(self) -> None:
        """Send the buffer, and accept no more bytes. The upload can be resumed and committed. Idempotent.

        Raises:
            OciwireError: As `write`. The writer is closed all the same.
        """
        if self._is_open:
            self._is_open = False
            while self._buffer and not self._is_over:
                self._send_chunk()

    def commit(self, digest: str | None = None) -> Descriptor:
        """Send the buffer, and make the upload a blob.

        If the closing PUT fails, the client asks whether the blob was stored. It waits up to ten minutes, or until the
        deadline, for a registry that may still be committing the blob, and sends missing bytes.

        Args:
            digest: The digest of the whole content. Defaults to the digest of what was written, which is known if the
                writer began at byte 0.

        Returns:
            The blob's descriptor.

        Raises:
            UsageError: The upload is over, or there is no digest and the writer did not begin at byte 0.
            DigestInvalid: The content does not have the digest.
            BlobUploadUnknown: The registry has lost the upload.
            RangeInvalid: The registry has fewer bytes than it acknowledged; the upload can still be resumed.
            RegistryError: The registry refused.
            TransportTimeout: The registry has all bytes, and did not commit the blob in time.
            TransportError: There is no usable response.
        """
        if self._is_over:
            raise UsageError("the upload is over: it was committed or cancelled")
        if digest is None:
            if self._hasher is None:
                raise UsageError(
                    "the digest is not known: this writer went on with an upload (commit(digest) takes it)"
                )
            digest = hashed_digest(self._hasher, self._algorithm)
        descriptor = Descriptor(OCTET_STREAM, Digest(digest), self.size)
        incomplete = self.try_commit(descriptor.digest)
        if incomplete is not None:
            if incomplete.offset is not None and incomplete.offset < self.flushed:
                raise RangeInvalid(
                    f"the registry has {incomplete.offset} bytes of the upload, and had acknowledged {self.flushed}"
                ) from incomplete.fault
            raise incomplete.error()
        return descriptor

    def try_commit(self, digest: Digest) -> IncompleteUpload | None:
        """Do what `commit` does, but return the state of the upload if faults of the closing PUT prevent it.

        After a fault that leaves bytes unsent, the rest is sent at once, as often as there is progress, and three times
        without.
        """
        furthest, faults = -1, 0
        while True:
            incomplete = self._finish(digest)
            if incomplete is None:
                self._is_open, self._is_over = False, True
                return None
            if incomplete.location is not None:
                self._location = incomplete.location
            if incomplete.offset is None or incomplete.offset < self.flushed:
                return incomplete
            faults = 1 if incomplete.offset > furthest else faults + 1
            furthest = max(furthest, incomplete.offset)
            if faults > _MAX_FAULTS:
                return incomplete
            self._acknowledge(incomplete.offset - self.flushed)
            self._offset_uncertain = True  # more of the PUT may arrive

    def cancel(self) -> None:
        """Cancel the upload. Idempotent; does nothing after `commit`.

        Raises:
            RegistryError: The registry refused.
            TransportError: There is no usable response.
        """
        self._is_open = False
        if self._is_over:
            return
        cancel_upload(self._repository, self._location)
        self._is_over = True

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._is_open = False
        self.close()

    def __repr__(self) -> str:
        return f"<BlobWriter {self._repository.name} {self.size} bytes>"

    def _finish(self, digest: Digest) -> IncompleteUpload | None:
        """Close the upload with a PUT of the buffer; in chunks first if it could repeat bytes, or is refused."""
        if not self._offset_uncertain:
            try:
                return self._put(digest)
            except RegistryError as error:
                if not self._buffer or not (_is_too_large(error) or isinstance(error, RangeInvalid)):
                    raise
                self._offset_uncertain = False  # a refusal is a response: nothing of the PUT was stored
        try:
            while self._buffer:
                self._send_chunk()
        except (BlobUploadUnknown, BlobUploadInvalid):
            # An upload that was committed is unknown: an earlier PUT may have succeeded.
            if not blob_exists(self._repository, digest, confirm=True):
                raise
            return None
        return self._put(digest)

    def _put(self, digest: Digest) -> IncompleteUpload | None:
        body = Body.of(bytes(self._buffer)) if self._buffer else None
        self._offset_uncertain = True  # until there is a response
        incomplete = UploadCompletion(self._repository, self._location, digest, body, self.flushed).run()
        self._offset_uncertain = incomplete is not None
        return incomplete

    def _send_chunk(self) -> None:
        """Send one chunk of the buffer, and drop what is acknowledged; see the table in the module docstring."""
        chunk = bytes(self._buffer[: self.chunk_size])
        was_uncertain, self._offset_uncertain = self._offset_uncertain, True  # until there is a response
        try:
            self._patch(chunk, self.flushed)
        except RegistryError as error:
            if _is_too_large(error):
                self._offset_uncertain = was_uncertain
                can_continue = self._halve(chunk)
            else:
                can_continue = isinstance(error, RangeInvalid) and self._resync(chunk, was_uncertain=was_uncertain)
            if not can_continue:
                raise
        else:
            self._acknowledge(len(chunk))

    def _patch(self, chunk: bytes, first: int) -> None:
        self._location = patch_upload(
            self._repository,
            self._location,
            Body.of(chunk),
            offset=first,
            idempotent=True,
        )
        if self._is_chunk_reduced:
            self._repository.sender.state.record_max_chunk(self.chunk_size)

    def _resync(self, chunk: bytes, *, was_uncertain: bool) -> bool:
        """After a 416, read the offset of the session. Returns whether the upload can continue."""
        status = read_status(self._repository, self._location)
        self._location = status.location
        stored = status.offset - self.flushed
        if 0 < stored <= len(chunk):
            self._acknowledge(stored)
            return True
        if stored:
            return False
        if self.flushed == 0 and (was_uncertain or len(chunk) == 1) and self._probe_ambiguous_offset(chunk):
            return True
        self._offset_uncertain = was_uncertain
        # The offsets agree, so that the registry refuses the chunk for its size, if it is large.
        return len(chunk) >= _LARGE_CHUNK and self._halve(chunk)

    def _probe_ambiguous_offset(self, chunk: bytes) -> bool:
        """Return whether ``0-0`` meant one byte: sends the rest of the first chunk, which is then acknowledged."""
        try:
            if len(chunk) > 1:
                self._patch(chunk[1:], 1)
        except RegistryError as error:
            if not (_is_too_large(error) or isinstance(error, RangeInvalid)):
                raise
            return False
        self._acknowledge(len(chunk))
        return True

    def _halve(self, chunk: bytes) -> bool:
        """Halve the chunk size, as some registries refuse large chunks (416, 413). Returns false below the minimum."""
        half = len(chunk) // 2
        if half < self._min_chunk_length:
            return False
        self.chunk_size, self._is_chunk_reduced = half, True
        return True

    def _acknowledge(self, count: int) -> None:
        del self._buffer[:count]
        self.flushed += count
        self._offset_uncertain = False


def _is_too_large(error: RegistryError) -> bool:
    return error.status == 413
