"""Chunked uploads, which can be resumed after a fault, possibly from another process.

Implements the OCI distribution specification, "Pushing a blob in chunks", and tolerates registries that deviate from
it.

A `BlobWriter` is open, closed (it accepts no more bytes, but the upload can be resumed or committed), or finished
(committed or cancelled). It sends its buffer in chunks (PATCH), and the response determines the next action. After a
416, the writer sends a GET to the upload session to read the offset of the registry::

    response    offset of the registry              action
    2xx                                             acknowledge the chunk and ignore Range (ECR sends a wrong one)
    413                                             halve the chunk size and resend; raise below the minimum
    416         an offset within the chunk          acknowledge the bytes up to it
    416         0, but ``0-0`` may mean one byte    send the first chunk without its first byte, from offset 1
    416         the same offset as the writer       halve the chunk size if it is at least 128 KiB, else raise
    416         any other offset                    raise `RangeInvalid`
    other, or a fault                               raise; from now on, the offset of the registry is uncertain

While the offset is uncertain, the registry may have more bytes than it has acknowledged. The writer then sends the
remaining bytes in chunks, not with the closing PUT. Registries refuse a chunk at a wrong offset, but some append the
body of any PUT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._http.body import Body, open_at
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
"""Default size of a chunk in bytes. GHCR refuses larger ones."""
_LARGE_CHUNK = 128 * 1024
"""Minimum size in bytes of a chunk for which a 416 with matching offsets may mean that it is too large."""
_MAX_FAULTS = 3
"""Maximum number of consecutive faults of the closing PUT without progress between them."""


def push_blob(repository: Repository, digest: Digest, body: Body) -> None:
    """Upload a blob with a POST and a PUT; see `Client.push_blob`.

    If the PUT fails after a part of the content was stored, the remaining bytes are sent in chunks. If the registry
    has lost the upload session, the whole content is sent once more, to a new session. Both require a body that can be
    sent again.
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
                offset_uncertain=True,  # the registry may still receive more of the PUT
            )
            writer.disable_hashing()
            for chunk in open_at(body, incomplete.offset):
                writer.write(chunk)
            writer.commit(digest)
            return
        except (BlobUploadUnknown, BlobUploadInvalid):  # the registry has lost the session, for example in a restart
            if not body.resendable or not attempts_left:
                raise


def begin_upload(repository: Repository, chunk_size: int | None, algorithm: str) -> BlobWriter:
    """Open an upload session, and return its writer; see `Client.push_blob_chunked`."""
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
        raise UsageError(f"invalid upload id: expected the URL of an upload session: {error}") from None
    # The requests of the writer have the same operation name as those of the writer that opened the session.
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
    """Writer of a chunked upload, which buffers bytes and sends a chunk when the buffer is full.

    Returned by `Client.push_blob_chunked` and `Client.push_blob_chunked_resume`. Not thread-safe.

    At the end of a ``with`` block, the writer is closed: it sends the buffer, or nothing if the block raised an
    exception. The upload session stays open, and the upload is neither committed nor cancelled. Use `id` to resume the
    upload, possibly from another process.

    >>> from ociwire import Client
    >>> from ociwire.testing import MemoryRegistry
    >>> client = Client("registry.example", MemoryRegistry())
    >>> with client.push_blob_chunked("app") as writer:
    ...     _ = writer.write(b"hello")
    ...     writer.commit().digest
    'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'

    Attributes:
        flushed: Number of bytes that the registry has acknowledged.
        chunk_size: Size of the next chunk in bytes. It is less than requested if the registry has refused a larger one.
    """

    flushed: int
    chunk_size: int

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
        self._offset_uncertain = offset_uncertain  # see the module docstring
        self._is_chunk_reduced = False
        self._is_open = True
        self._is_over = False
        self.flushed: int = offset
        requested = DEFAULT_CHUNK_SIZE if chunk_size is None else chunk_size
        limit = repository.sender.state.max_chunk_size or requested
        self.chunk_size: int = max(min(requested, limit), min_chunk_length)

    @property
    def id(self) -> str:
        """URL of the upload session, for `Client.push_blob_chunked_resume`. It may change with each chunk."""
        return self._location

    @property
    def size(self) -> int:
        """Total number of bytes of the upload, sent or buffered."""
        return self.flushed + len(self._buffer)

    def disable_hashing(self) -> None:
        """Stop hashing written bytes, if the caller computes the digest and passes it to `commit`."""
        self._hasher = None

    def write(self, data: Buffer, /) -> int:
        """Write bytes to the buffer, and send each full chunk. `commit` or `close` sends the last chunk.

        If sending fails, `size` is the number of bytes that this writer has accepted. Write the remaining bytes to it
        again. If you resume the upload with another writer, write the bytes that follow the `size` of that writer.

        Args:
            data: Bytes, or another object with the buffer protocol.

        Returns:
            The number of bytes in `data`. All of them are always written.

        Raises:
            UsageError: The writer is closed.
            RangeInvalid: The offset of the registry differs from `flushed`. The upload can still be resumed.
            RegistryError: The registry refused the chunk.
            TransportError: No usable response was received.
        """
        if not self._is_open:
            raise UsageError("the blob writer is closed")
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
        """Send the buffer, and close the writer. The upload can still be resumed or committed. Idempotent.

        Raises:
            OciwireError: Sending failed; see `write` for the errors. The writer is closed nevertheless.
        """
        if self._is_open:
            self._is_open = False
            while self._buffer and not self._is_over:
                self._send_chunk()

    def commit(self, digest: str | None = None) -> Descriptor:
        """Send the buffer, and complete the upload. The repository then has the blob.

        If the closing PUT fails, the client checks whether the blob was stored, and sends the bytes that are missing.
        If the registry may still be committing the blob, the client waits up to ten minutes, or until the deadline.

        Args:
            digest: Digest of the whole content. Defaults to the digest of the written bytes, which is known if the
                writer started at byte 0.

        Returns:
            The descriptor of the blob.

        Raises:
            UsageError: The upload is already committed or cancelled, or the digest is unknown.
            DigestInvalid: The digest of the content differs.
            BlobUploadUnknown: The registry has lost the upload session.
            RangeInvalid: The registry has fewer bytes than it has acknowledged. The upload can still be resumed.
            RegistryError: The registry refused to store the blob.
            TransportTimeout: The registry has all bytes, but did not commit the blob in time.
            TransportError: No usable response was received.
        """
        if self._is_over:
            raise UsageError("the upload is already committed or cancelled")
        if digest is None:
            if self._hasher is None:
                raise UsageError(
                    "the digest is unknown, because this writer resumed an upload: pass it to commit(digest)"
                )
            digest = hashed_digest(self._hasher, self._algorithm)
        descriptor = Descriptor(OCTET_STREAM, Digest(digest), self.size)
        incomplete = self.try_commit(descriptor.digest)
        if incomplete is not None:
            if incomplete.offset is not None and incomplete.offset < self.flushed:
                raise RangeInvalid(
                    f"the registry has {incomplete.offset} bytes of the upload, but acknowledged {self.flushed}"
                ) from incomplete.fault
            raise incomplete.error()
        return descriptor

    def try_commit(self, digest: Digest) -> IncompleteUpload | None:
        """Commit as `commit` does, but return the state of the upload if the closing PUT keeps failing.

        If a fault leaves bytes unsent, they are sent immediately. This is repeated as long as there is progress, and
        up to three times in a row without progress.
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
            self._offset_uncertain = True  # the registry may still receive more of the PUT

    def cancel(self) -> None:
        """Cancel the upload. Idempotent. Does nothing after `commit`.

        Raises:
            RegistryError: The registry refused to cancel the upload.
            TransportError: No usable response was received.
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
        """Send the buffer with the closing PUT. Send chunks first if the offset is uncertain or the PUT was refused."""
        if not self._offset_uncertain:
            try:
                return self._put(digest)
            except RegistryError as error:
                if not self._buffer or not (_is_too_large(error) or isinstance(error, RangeInvalid)):
                    raise
                self._offset_uncertain = False  # the PUT was refused: no byte of it was stored
        try:
            while self._buffer:
                self._send_chunk()
        except (BlobUploadUnknown, BlobUploadInvalid):
            # The session is also unknown if an earlier PUT has committed the upload.
            if not blob_exists(self._repository, digest, confirm=True):
                raise
            return None
        return self._put(digest)

    def _put(self, digest: Digest) -> IncompleteUpload | None:
        body = Body.of(bytes(self._buffer)) if self._buffer else None
        self._offset_uncertain = True  # until a response is received
        incomplete = UploadCompletion(self._repository, self._location, digest, body, self.flushed).run()
        self._offset_uncertain = incomplete is not None
        return incomplete

    def _send_chunk(self) -> None:
        """Send one chunk, and remove the acknowledged bytes from the buffer; see the table in the module docstring."""
        chunk = bytes(self._buffer[: self.chunk_size])
        was_uncertain, self._offset_uncertain = self._offset_uncertain, True  # until a response
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
        """Read the offset of the session after a 416, and return whether the upload can continue."""
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
        # The offsets match. If the chunk is large, assume that the registry refuses it because of its size (GHCR).
        return len(chunk) >= _LARGE_CHUNK and self._halve(chunk)

    def _probe_ambiguous_offset(self, chunk: bytes) -> bool:
        """Send the first chunk without its first byte, and return whether the registry accepts it.

        The registry has reported ``Range: 0-0``, which may mean zero bytes or one byte. If it accepts the chunk, it has
        one byte.
        """
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
        """Halve the chunk size; return false if it would be below the minimum of the registry."""
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
