"""Blobs on their way out, a chunk at a time: an upload that can be gone on with after any fault, in any process.

Follows the OCI distribution specification, "Pushing a blob in chunks", and what registries do instead of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._http.body import Body, skip
from .._http.messages import Response
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest, new_hasher
from .._oci.scope import Scope
from ..errors import BlobUploadInvalid, BlobUploadUnknown, ProtocolError, RangeInvalid, RegistryError, UsageError
from ..media_types import OCTET_STREAM
from .session import Session
from .uploads import (
    PATCHED,
    IncompleteUpload,
    UploadCompletion,
    cancel,
    is_there,
    open_upload,
    read_status,
    smallest_chunk,
    uploaded,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BlobWriter", "begin", "push", "resume"]

DEFAULT_CHUNK = 4 * 1024 * 1024
"""How much is sent in one chunk, in bytes, where nobody says otherwise: more is refused by some registries (GHCR)."""
_LARGE_CHUNK = 128 * 1024
"""From how many bytes on a 416 that says nothing else may mean that the chunk is too large."""
_FAULTS = 3
"""Number of consecutive faults of the closing PUT, without progress between them, that end a commit."""


def push(session: Session, repository: str, digest: Digest, body: Body) -> None:
    """Upload a blob with a POST and a PUT; see `Client.push_blob`.

    If a fault of the PUT left a part of the content at the registry, the rest follows in chunks. If the registry has
    lost the upload, the content is sent to a new one, once. Both need a body that can be sent again.
    """
    for tries_left in (1, 0):
        location = session.location(open_upload(session, "push_blob", repository, digest.algorithm))
        try:
            unfinished = UploadCompletion(session, "push_blob", repository, location, digest, body).run()
            if unfinished is None:
                return
            if not body.resendable:
                raise unfinished.fault
            if unfinished.location is None or unfinished.offset is None:
                raise unfinished.error()
            writer = BlobWriter(
                session,
                repository,
                unfinished.location,
                offset=unfinished.offset,
                minimum=unfinished.minimum,
                unsure=True,  # more of the PUT may arrive
                operation="push_blob",
            )
            writer.leave_hashing()
            for chunk in skip(body.open(), unfinished.offset):
                writer.write(chunk)
            writer.commit(digest)
            return
        except (BlobUploadUnknown, BlobUploadInvalid):
            if not body.resendable or not tries_left:
                raise


def begin(session: Session, repository: str, chunk_size: int | None, algorithm: str) -> BlobWriter:
    """A writer on a new upload; see `Client.push_blob_chunked`."""
    opened = open_upload(session, "push_blob_chunked", repository, algorithm)
    return BlobWriter(
        session,
        repository,
        session.location(opened),
        chunk_size=chunk_size,
        minimum=smallest_chunk(opened),
        algorithm=algorithm,
    )


def resume(session: Session, repository: str, id_: str, offset: int | None, chunk_size: int | None) -> BlobWriter:
    """A writer on an upload under way; see `Client.push_blob_chunked_resume`."""
    try:
        location = session.location(Response(202, {"Location": id_}))
    except ProtocolError as error:
        raise UsageError(f"not the id of an upload: {error}") from None
    told, minimum = offset is None, 0
    if offset is None:
        status = read_status(session, "push_blob_chunked_resume", repository, location)
        offset, minimum = uploaded(status), smallest_chunk(status)
        if "location" in status.headers:
            location = session.location(status)
    return BlobWriter(
        session,
        repository,
        location,
        offset=offset,
        chunk_size=chunk_size,
        minimum=minimum,
        unsure=told and offset == 0,
    )


@final
class BlobWriter:
    """An upload under way. Bytes are gathered into chunks, and each chunk is sent as it is full.

    Made by `Client.push_blob_chunked` and `Client.push_blob_chunked_resume`. As a context manager it ends in `close`,
    which sends what is left and keeps the upload: `id` resumes it, in another process too. After an exception nothing
    more is sent. It never commits or cancels by itself. It has one owner.

    Attributes:
        flushed: How many bytes of it the registry has acknowledged.
        chunk_size: How many bytes the next chunk will have; less than was asked for where the registry refused that.
    """

    def __init__(
        self,
        session: Session,
        repository: str,
        location: str,
        *,
        offset: int = 0,
        chunk_size: int | None = None,
        minimum: int = 0,
        algorithm: str = "sha256",
        unsure: bool = False,
        operation: str = "push_blob_chunked",
    ) -> None:
        self._session = session
        self._operation = operation
        self._repository = repository
        self._scope = Scope.repository(repository, "pull", "push")
        self._location = location
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm) if offset == 0 else None
        self._gathered = bytearray()
        self._minimum = max(minimum, 1)
        self._unsure = unsure  # the registry may have more than it has acknowledged
        self._halved = False
        self._open = True
        self._over = False
        self.flushed = offset
        wanted = DEFAULT_CHUNK if chunk_size is None else chunk_size
        self.chunk_size = max(min(wanted, session.learnt.largest_chunk or wanted), minimum)

    @property
    def id(self) -> str:
        """What resumes the upload (`Client.push_blob_chunked_resume`), in any process; changes with each chunk."""
        return self._location

    @property
    def size(self) -> int:
        """How many bytes the upload has been given in all, sent or not."""
        return self.flushed + len(self._gathered)

    def leave_hashing(self) -> None:
        """Hash nothing from now on: who writes does it elsewhere, and gives `commit` the digest."""
        self._hasher = None

    def write(self, data: Buffer, /) -> int:
        """Take bytes, and send what fills a chunk; the last chunk waits for `commit` or `close`.

        Where sending fails, `size` tells how many bytes were taken: what is beyond can be written to this writer again.
        To one that resumes the upload it has to be written from that one's own `size` on.

        Returns:
            The number of bytes, all of them.

        Raises:
            UsageError: The writer is closed.
            RangeInvalid: The registry has other bytes than were sent; the upload can still be resumed.
            RegistryError: The registry said no.
            TransportError: There is no usable answer.
        """
        if not self._open:
            raise UsageError("the upload's writer is closed")
        view = memoryview(data).cast("B")
        taken = 0
        while taken < len(view):
            if len(self._gathered) >= self.chunk_size:
                self._send_chunk()
            piece = view[taken : taken + max(0, self.chunk_size - len(self._gathered))]
            self._gathered += piece
            taken += len(piece)
            if self._hasher is not None:
                self._hasher.update(piece)
        return taken

    def close(self) -> None:
        """Send what was gathered, and take no more. The upload can be resumed, and committed. May be called again.

        Raises:
            OciwireError: As `write`. The writer is closed all the same.
        """
        if self._open:
            self._open = False
            while self._gathered and not self._over:
                self._send_chunk()

    def commit(self, digest: str | None = None) -> Descriptor:
        """Send what is left, and have the registry make the upload a blob.

        If the closing PUT fails, the client asks what became of it. A registry that may still be committing the blob is
        waited for up to ten minutes or the deadline; bytes that are missing are sent.

        Args:
            digest: What the whole is; None is what was written, which is known if the writer began at byte 0.

        Returns:
            The blob's descriptor.

        Raises:
            UsageError: The upload is over, or there is no digest and the writer did not begin at byte 0.
            DigestInvalid: The content does not have the digest.
            BlobUploadUnknown: The registry has lost the upload.
            RangeInvalid: The registry has fewer bytes than it acknowledged; the upload can still be resumed.
            RegistryError: The registry refused.
            TransportTimeout: The registry has all bytes, and did not commit the blob in time.
            TransportError: There is no usable answer.
        """
        if self._over:
            raise UsageError("the upload is over: it was committed or cancelled")
        if digest is None:
            if self._hasher is None:
                raise UsageError(
                    "the digest is not known: this writer went on with an upload (commit(digest) takes it)"
                )
            digest = f"{self._algorithm}:{self._hasher.hexdigest()}"
        wanted, size = Digest(digest), self.size
        unfinished = self.try_commit(wanted)
        if unfinished is not None:
            if unfinished.offset is not None and unfinished.offset < self.flushed:
                raise RangeInvalid(
                    f"the registry has {unfinished.offset} bytes of the upload, and had acknowledged {self.flushed}"
                ) from unfinished.fault
            raise unfinished.error()
        return Descriptor(OCTET_STREAM, wanted, size)

    def try_commit(self, digest: Digest) -> IncompleteUpload | None:
        """Do what `commit` does, but return the state of the upload if faults of the closing PUT prevent it.

        After a fault that leaves bytes unsent, the rest is sent at once, as often as there is progress, and three times
        without.
        """
        furthest, faults = -1, 0
        while True:
            unfinished = self._finish(digest)
            if unfinished is None:
                self._open, self._over = False, True
                return None
            if unfinished.location is not None:
                self._location = unfinished.location
            if unfinished.offset is None or unfinished.offset < self.flushed:
                return unfinished
            faults = 1 if unfinished.offset > furthest else faults + 1
            furthest = max(furthest, unfinished.offset)
            if faults > _FAULTS:
                return unfinished
            self._acknowledge(unfinished.offset - self.flushed)
            self._unsure = True  # more of the PUT may arrive

    def cancel(self) -> None:
        """Give the upload up. May be called again; after `commit` it does nothing.

        Raises:
            RegistryError: The registry said no.
            TransportError: There is no usable answer.
        """
        self._open = False
        if self._over:
            return
        cancel(self._session, self._operation, self._repository, self._location)
        self._over = True

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._open = False
        self.close()

    def __repr__(self) -> str:
        return f"<BlobWriter {self._repository} {self.size} bytes>"

    def _finish(self, digest: Digest) -> IncompleteUpload | None:
        """Close the upload with a PUT of what is left; if it could repeat bytes, or is refused, as chunks first."""
        if not self._unsure:
            try:
                return self._put(digest)
            except RegistryError as error:
                if not self._gathered or not (_too_large(error) or isinstance(error, RangeInvalid)):
                    raise
                self._unsure = False  # it was an answer
        try:
            while self._gathered:  # a PATCH with a wrong offset is refused; some registries append the body of any PUT
                self._send_chunk()
        except (BlobUploadUnknown, BlobUploadInvalid):
            # An upload that was committed is unknown: an earlier PUT may have succeeded.
            if not is_there(self._session, self._operation, self._repository, digest, confirm=True):
                raise
            return None
        return self._put(digest)

    def _put(self, digest: Digest) -> IncompleteUpload | None:
        body = Body.of(bytes(self._gathered)) if self._gathered else None
        self._unsure = True
        closing = UploadCompletion(
            self._session, self._operation, self._repository, self._location, digest, body, self.flushed
        )
        unfinished = closing.run()
        self._unsure = unfinished is not None
        return unfinished

    def _send_chunk(self) -> None:
        """Send one chunk of what was gathered; what is acknowledged of it is dropped."""
        chunk = bytes(self._gathered[: self.chunk_size])
        unsure, self._unsure = self._unsure, True  # until there is an answer
        try:
            self._patch(chunk, self.flushed)
        except RegistryError as error:
            if _too_large(error):
                self._unsure = unsure
                passes = self._halve(chunk)
            else:
                passes = isinstance(error, RangeInvalid) and self._settle(chunk, unsure=unsure)
            if not passes:
                raise
        else:
            self._acknowledge(len(chunk))

    def _patch(self, chunk: bytes, first: int) -> None:
        headers = {"Content-Type": OCTET_STREAM, "Content-Range": f"{first}-{first + len(chunk) - 1}"}
        # What was sent and accepted outvotes the Range of the answer, which some registries get wrong (ECR).
        response = self._session.send(
            self._operation,
            "PATCH",
            self._location,
            self._scope,
            ok=PATCHED,
            headers=headers,
            body=Body.of(chunk),
            idempotent=True,
        )
        self._moved(response)
        if self._halved:
            learnt = self._session.learnt
            learnt.largest_chunk = min(self.chunk_size, learnt.largest_chunk or self.chunk_size)

    def _settle(self, chunk: bytes, *, unsure: bool) -> bool:
        """After a 416: go on from where the registry says that it is, if that lies within the chunk."""
        response = read_status(self._session, self._operation, self._repository, self._location)
        self._moved(response)
        stored = uploaded(response) - self.flushed
        if 0 < stored <= len(chunk):
            self._acknowledge(stored)
            return True
        if stored:
            return False
        if self.flushed == 0 and (unsure or len(chunk) == 1) and self._follows_one(chunk):
            return True
        self._unsure = unsure
        # It is where this writer is: then it is the chunk that it does not take, if that is large.
        return len(chunk) >= _LARGE_CHUNK and self._halve(chunk)

    def _follows_one(self, chunk: bytes) -> bool:
        """Whether 0-0 meant one byte: tried with the rest of the first chunk, which is then acknowledged."""
        try:
            if len(chunk) > 1:
                self._patch(chunk[1:], 1)
        except RegistryError as error:
            if not (_too_large(error) or isinstance(error, RangeInvalid)):
                raise
            return False
        self._acknowledge(len(chunk))
        return True

    def _halve(self, chunk: bytes) -> bool:
        """Try with half the chunk from now on: some registries refuse what is too large with a 416 or 413."""
        half = len(chunk) // 2
        if half < self._minimum:
            return False
        self.chunk_size, self._halved = half, True
        return True

    def _acknowledge(self, count: int) -> None:
        del self._gathered[:count]
        self.flushed += count
        self._unsure = False

    def _moved(self, response: Response) -> None:
        response.drain()
        if "location" in response.headers:
            self._location = self._session.location(response)


def _too_large(error: RegistryError) -> bool:
    return error.status == 413
