"""Blobs on their way out, a chunk at a time: an upload that can be gone on with after any fault, in any process.

Follows the OCI distribution specification, "Pushing a blob in chunks", and what registries do instead of it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, final
from urllib.parse import urlencode

from .body import Body
from .descriptor import OCTET_STREAM, Descriptor
from .digest import Digest, new_hasher
from .errors import BlobUploadUnknown, NotFound, ProtocolError, RangeInvalid, SizeInvalid, UsageError
from .message import Response
from .scope import Scope
from .session import Session

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BlobWriter", "begin", "commit", "open_upload", "resume"]

DEFAULT_CHUNK = 4 * 1024 * 1024
"""How much is sent in one chunk, in bytes, where nobody says otherwise: more is refused by some registries (GHCR)."""
_SMALLEST_CHUNK = 64 * 1024

# 0-99, bytes=0-99, bytes 0-99, 0-99/*, 0-99/100: what counts is the last byte.
_RANGE = re.compile(r"(?:bytes[= ])?\s*[0-9]{1,18}-([0-9]{1,18})(?:/.*)?")


def open_upload(session: Session, operation: str, repository: str, algorithm: str) -> Response:
    """Open an upload with a POST (specification, "Pushing blobs"); returns its answer, closed.

    An algorithm other than sha256 is announced (``digest-algorithm=``), so that the registry hashes with it.
    """
    path = f"/v2/{repository}/blobs/uploads/"
    url = path if algorithm == "sha256" else query(path, {"digest-algorithm": algorithm})
    scope = Scope.repository(repository, "pull", "push")
    opened = session.send(operation, "POST", url, scope, ok=(202,), idempotent=True)
    opened.discard()
    return opened


def begin(session: Session, repository: str, chunk_size: int | None, algorithm: str) -> BlobWriter:
    """A writer on a new upload; see `Client.push_blob_chunked`."""
    opened = open_upload(session, "push_blob_chunked", repository, algorithm)
    least = opened.headers.get("oci-chunk-min-length", "")
    return BlobWriter(
        session,
        repository,
        session.location(opened),
        chunk_size=chunk_size,
        minimum=int(least) if re.fullmatch(r"[0-9]{1,18}", least) else 0,
        algorithm=algorithm,
    )


def resume(session: Session, repository: str, id_: str, offset: int | None, chunk_size: int | None) -> BlobWriter:
    """A writer on an upload under way; see `Client.push_blob_chunked_resume`."""
    try:
        location = session.location(Response(202, {"Location": id_}))
    except ProtocolError as error:
        raise UsageError(f"not the id of an upload: {error}") from None
    told = offset is None
    if offset is None:
        scope = Scope.repository(repository, "pull", "push")
        status = session.send("push_blob_chunked_resume", "GET", location, scope, ok=(200, 204))
        status.discard()
        offset = uploaded(status)
        if "location" in status.headers:
            location = session.location(status)
    return BlobWriter(
        session, repository, location, offset=offset, chunk_size=chunk_size, may_have_one=told and offset == 0
    )


def query(url: str, parameters: dict[str, str]) -> str:
    """A URL with more parameters in its query."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters, safe=':')}"


def uploaded(response: Response) -> int:
    """How many bytes an upload has, by its Range; 0 where there is none, and for ``0-0``, which may be 0 or 1."""
    match = _RANGE.fullmatch(response.headers.get("range", "").strip())
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


def commit(
    session: Session, operation: str, repository: str, url: str, digest: Digest, body: Body | None, first: int = 0
) -> None:
    """Close an upload with a PUT of the whole, or of what is left of it.

    Args:
        session: What sends.
        operation: The client's operation.
        repository: Where.
        url: The upload.
        digest: What the registry is to find the content to be.
        body: The content that goes with the PUT.
        first: The position of its first byte. At 0 there is no Content-Range, which some registries refuse.

    Raises:
        RegistryError: The registry said no.
        OciwireError: As the transport.
    """
    headers = {"Content-Type": OCTET_STREAM}
    if first and body is not None and body.length:
        headers["Content-Range"] = f"{first}-{first + body.length - 1}"
    scope = Scope.repository(repository, "pull", "push")
    try:
        session.send(
            operation, "PUT", query(url, {"digest": digest}), scope, ok=(201,), headers=headers, body=body
        ).discard()
    except BlobUploadUnknown:
        # An upload that is over is unknown: a PUT that was sent twice below may have succeeded the first time.
        try:
            session.send(operation, "HEAD", f"/v2/{repository}/blobs/{digest}", scope, ok=(200,)).discard()
            return
        except NotFound:
            pass
        raise


@final
class BlobWriter:
    """An upload under way. Bytes are gathered into chunks, and each chunk is sent as it is full.

    Made by `Client.push_blob_chunked` and `Client.push_blob_chunked_resume`. As a context manager it ends in `close`,
    which sends what is left and keeps the upload: `id` resumes it, in another process too. After an exception nothing
    more is sent. It never commits or cancels by itself. It has one owner.

    Attributes:
        flushed: How many of them the registry has acknowledged.
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
        may_have_one: bool = False,
    ) -> None:
        self._session = session
        self._repository = repository
        self._scope = Scope.repository(repository, "pull", "push")
        self._location = location
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm) if offset == 0 else None
        self._gathered = bytearray()
        self._minimum = max(minimum, _SMALLEST_CHUNK)
        self._may_have_one = may_have_one
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

    def write(self, data: Buffer, /) -> int:
        """Take bytes, and send what fills a chunk; the last chunk waits for `commit` or `close`.

        Where sending fails, `size` tells how many bytes were taken; the rest can be written again.

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

        Args:
            digest: What the whole is; None is what was written, which is known if the writer began at byte 0.

        Returns:
            The blob's descriptor.

        Raises:
            UsageError: The upload is over, or there is no digest and the writer did not begin at byte 0.
            DigestInvalid: The content does not have the digest.
            RegistryError: The registry said no.
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
        try:
            self._put(wanted)
        except (RangeInvalid, SizeInvalid):
            if not self._gathered:
                raise
            while self._gathered:  # as chunks it may pass, or say why not
                self._send_chunk()
            self._put(wanted)
        self._open, self._over = False, True
        return Descriptor(OCTET_STREAM, wanted, size)

    def cancel(self) -> None:
        """Give the upload up. May be called again; after `commit` it does nothing.

        Raises:
            RegistryError: The registry said no.
            TransportError: There is no usable answer.
        """
        self._open = False
        if self._over:
            return
        with suppress(NotFound):  # it is gone, which is what was wanted
            self._ask("DELETE", ok=(200, 202, 204)).discard()
        self._over = True

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._open = False
        self.close()

    def __repr__(self) -> str:
        return f"<BlobWriter {self._repository} {self.size} bytes>"

    def _ask(
        self, method: str, *, ok: tuple[int, ...], headers: dict[str, str] | None = None, body: Body | None = None
    ) -> Response:
        return self._session.send(
            "push_blob_chunked", method, self._location, self._scope, ok=ok, headers=headers, body=body, idempotent=True
        )

    def _put(self, digest: Digest) -> None:
        body = Body.of(bytes(self._gathered)) if self._gathered else None
        commit(self._session, "push_blob_chunked", self._repository, self._location, digest, body, first=self.flushed)

    def _send_chunk(self) -> None:
        """Send one chunk of what was gathered; what is acknowledged of it is dropped."""
        chunk = bytes(self._gathered[: self.chunk_size])
        headers = {
            "Content-Type": OCTET_STREAM,
            "Content-Range": f"{self.flushed}-{self.flushed + len(chunk) - 1}",
        }
        try:
            response = self._ask("PATCH", ok=(201, 202), headers=headers, body=Body.of(chunk))
        except SizeInvalid:
            if not self._halve(chunk):
                raise
        except RangeInvalid:
            if not self._settle(chunk):
                raise
        else:
            # What was sent and accepted outvotes the Range of the answer, which some registries get wrong (ECR).
            self._moved(response)
            self._acknowledge(len(chunk))

    def _settle(self, chunk: bytes) -> bool:
        """After a 416: go on from where the registry says that it is, if that lies within the chunk."""
        response = self._ask("GET", ok=(200, 204))
        self._moved(response)
        stored = uploaded(response) - self.flushed
        if 0 < stored <= len(chunk):
            self._acknowledge(stored)
            return True
        if self.flushed == 0 and uploaded(response) == 0:
            if self._may_have_one:  # 0-0 may have meant one byte
                self._acknowledge(1)
                return True
            return self._halve(chunk)
        return False

    def _halve(self, chunk: bytes) -> bool:
        """Try with half the chunk from now on, at this registry: some refuse what is too large with a 416 or 413."""
        half = len(chunk) // 2
        if half < self._minimum:
            return False
        self.chunk_size = half
        self._session.learnt.largest_chunk = half
        return True

    def _acknowledge(self, count: int) -> None:
        del self._gathered[:count]
        self.flushed += count
        self._may_have_one = False

    def _moved(self, response: Response) -> None:
        response.discard()
        if "location" in response.headers:
            self._location = self._session.location(response)
