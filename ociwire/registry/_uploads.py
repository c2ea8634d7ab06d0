"""Endpoints for blob uploads.

Implements the OCI distribution specification 1.1, "Pushing blobs". The head of a request is checked before its body is
read. If the body raises an exception, the upload is unchanged.

| State | Request                | Condition                          | Response             | Next state |
|-------|------------------------|------------------------------------|----------------------|------------|
| -     | POST, mount            | blob found, mounts enabled         | 201                  | -          |
| -     | POST, digest           | the content matches                | 201                  | -          |
| -     | POST                   |                                    | 202, Location        | open       |
| open  | GET                    |                                    | 204, Range           | open       |
| open  | PATCH                  | the chunk begins at the offset     | 202, Range           | open       |
| open  | PUT, digest            | the complete content matches       | 201                  | -          |
| open  | DELETE                 |                                    | 204                  | -          |
| open  | PATCH or PUT           | the chunk begins at another offset | 416, Range           | open       |
| open  | PATCH or PUT with body | a chunk below the minimum was sent | 400                  | open       |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import final

from .._http.messages import Response
from .._oci.digest import Digest, hashed_digest, new_hasher
from ..errors import UsageError
from ._messages import ErrorResponse, RegistryRequest, created_response, make_response, parse_digest
from ._request_body import ReceivedBody, receive_body
from ._storage import Storage, Upload

__all__ = ["UploadEndpoints"]

_CONTENT_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


@final
class UploadEndpoints:
    """Handlers of the upload endpoints. Thread-safe.

    Args:
        storage: The storage.
        mounts: Whether blobs can be mounted from other repositories.
        min_chunk_length: Minimum size in bytes of every chunk but the last. 0 means no minimum.
        digest_header: Whether responses have a Docker-Content-Digest header.
    """

    def __init__(self, storage: Storage, *, mounts: bool, min_chunk_length: int, digest_header: bool) -> None:
        self._storage = storage
        self._mounts = mounts
        self._min_chunk_length = min_chunk_length
        self._digest_header = digest_header

    def start(self, request: RegistryRequest) -> Response:
        """Handle ``POST /v2/NAME/blobs/uploads/``: mount or store a blob, or open an upload session."""
        mount, digest_text = request.get_parameter("mount"), request.get_parameter("digest")
        _check_algorithm(request.get_parameter("digest-algorithm"))
        if mount is not None:
            digest = parse_digest(mount, for_verification=True)
            source = request.get_parameter("from") or None
            if self._mounts and self._storage.mount_blob(request.name, digest, source):
                return self._created(request, digest)
        if digest_text is not None:
            digest = parse_digest(digest_text, for_verification=True)
            with receive_body(self._storage, request.http_request.body) as received:
                _verify(digest, [received.content])
                received.stored = self._storage.add_blob(request.name, digest, received.content)
            return self._created(request, digest)
        return make_response(202, self._session_headers(self._storage.open_upload(request.name)))

    def get_status(self, request: RegistryRequest) -> Response:
        """Handle ``GET`` of an upload: return its offset in the Range header."""
        return make_response(204, self._session_headers(self._get_upload(request)))

    def append(self, request: RegistryRequest) -> Response:
        """Handle ``PATCH`` of an upload: append a chunk. Its Content-Range is optional."""
        upload = self._get_upload(request)
        offset = upload.size
        with self._receive_chunk(request, upload, offset) as received:
            is_last = len(received.content) < self._min_chunk_length
            if not self._storage.append_chunk(upload, offset, received.content, is_last=is_last):
                # Another request has changed the upload while this body was received.
                raise self._wrong_offset(self._get_upload(request))
            received.stored = len(received.content)
        return make_response(202, self._session_headers(upload))

    def complete(self, request: RegistryRequest) -> Response:
        """Handle ``PUT`` of an upload: verify the digest and store the blob. The body may be the last chunk."""
        upload, digest = self._get_upload(request), parse_digest(request.get_parameter("digest"), for_verification=True)
        chunks = list(self._storage.read_upload(upload))
        offset = sum(map(len, chunks))  # not `upload.size`, which a concurrent PATCH may have increased meanwhile
        with self._receive_chunk(request, upload, offset) as received:
            _verify(digest, [*chunks, received.content])
            stored = self._storage.complete_upload(upload, offset, digest, received.content)
            if stored is None:
                raise self._wrong_offset(self._get_upload(request))
            received.stored = stored
        return self._created(request, digest)

    def cancel(self, request: RegistryRequest) -> Response:
        """Handle ``DELETE`` of an upload: cancel it."""
        self._storage.cancel_upload(self._get_upload(request))
        return make_response(204)

    def _created(self, request: RegistryRequest, digest: Digest) -> Response:
        headers = {"Docker-Content-Digest": digest} if self._digest_header else {}
        return created_response(request, "blobs", digest, headers)

    def _get_upload(self, request: RegistryRequest) -> Upload:
        upload = self._storage.get_upload(request.name, request.reference)
        if upload is None:
            reason = f"repository {request.name} has no open upload {request.reference}: start a new one"
            raise ErrorResponse(404, "BLOB_UPLOAD_UNKNOWN", reason)
        return upload

    def _session_headers(self, upload: Upload) -> dict[str, str]:
        headers = {
            "Location": f"/v2/{upload.name}/blobs/uploads/{upload.id}",
            "Docker-Upload-UUID": upload.id,
            # The header is mandatory and its end is inclusive, so 0-0 stands for both zero bytes and one byte.
            "Range": f"0-{max(upload.size - 1, 0)}",
        }
        if self._min_chunk_length:  # sent in every response: a client that resumes in another process needs it
            headers["OCI-Chunk-Min-Length"] = str(self._min_chunk_length)
        return headers

    def _wrong_offset(self, upload: Upload) -> ErrorResponse:
        reason = f"wrong offset: expected a chunk that starts at byte {upload.size}"
        return ErrorResponse(416, "", reason, headers=self._session_headers(upload))

    @contextmanager
    def _receive_chunk(self, request: RegistryRequest, upload: Upload, offset: int) -> Iterator[ReceivedBody]:
        """Check the Content-Range of a request, and receive the chunk in its body.

        Raises:
            ErrorResponse: The Content-Range is invalid, does not start at the offset, or does not match the length
                of the body; or the upload already has its last chunk.
        """
        body = request.http_request.body
        length = self._announced_length(request, upload, offset)
        if upload.has_last_chunk and (body is not None and body.length != 0):
            reason = (
                f"unexpected chunk after a chunk of less than {self._min_chunk_length} bytes: only the last chunk may"
                " be smaller"
            )
            raise ErrorResponse(400, "BLOB_UPLOAD_INVALID", reason)
        if length is not None and body is not None and body.length is not None:
            _check_length(length, body.length)
        with receive_body(self._storage, body) as received:
            if length is not None:
                _check_length(length, len(received.content))
            yield received

    def _announced_length(self, request: RegistryRequest, upload: Upload, offset: int) -> int | None:
        """Return the number of bytes that the Content-Range declares, or `None` if there is no Content-Range."""
        content_range = request.http_request.headers.get("content-range")
        if content_range is None:
            return None
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is None or int(match[1]) > int(match[2]):
            reason = f"invalid Content-Range {content_range!r:.100}: expected FIRST-LAST, such as 0-99"
            raise ErrorResponse(400, "BLOB_UPLOAD_INVALID", reason)
        if int(match[1]) != offset:
            raise self._wrong_offset(upload)
        return int(match[2]) + 1 - offset


def _check_length(announced: int, length: int) -> None:
    if announced != length:
        reason = f"size mismatch: the Content-Range declares {announced} bytes, the body has {length}"
        raise ErrorResponse(400, "SIZE_INVALID", reason)


def _check_algorithm(algorithm: str | None) -> None:
    try:
        if algorithm is not None:
            new_hasher(algorithm)
    except UsageError as error:
        raise ErrorResponse(400, "DIGEST_INVALID", str(error)) from None


def _verify(digest: Digest, chunks: Iterable[bytes]) -> None:
    hasher = digest.hasher()
    for chunk in chunks:
        hasher.update(chunk)
    actual = hashed_digest(hasher, digest.algorithm)
    if actual != digest:
        reason = f"digest mismatch: expected {digest}, but the content has the digest {actual}"
        raise ErrorResponse(400, "DIGEST_INVALID", reason)
