"""Endpoints for blobs.

Implements the OCI distribution specification 1.1, "Pulling blobs" and "Deleting Blobs".
"""

from __future__ import annotations

import re
from typing import final

from .._http.messages import Response
from ..media_types import OCTET_STREAM
from ._messages import ErrorResponse, RegistryRequest, make_response, parse_digest
from ._storage import Storage

__all__ = ["BlobEndpoints"]

# A single range of bytes (RFC 9110, section 14.1.2). A request for several ranges gets the whole blob, as the RFC
# allows.
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


@final
class BlobEndpoints:
    """Handlers of the blob endpoints. Thread-safe.

    Args:
        storage: The storage.
        digest_header: Whether responses have a Docker-Content-Digest header.
    """

    def __init__(self, storage: Storage, *, digest_header: bool) -> None:
        self._storage = storage
        self._digest_header = digest_header

    def get(self, request: RegistryRequest) -> Response:
        """Handle ``GET /v2/NAME/blobs/DIGEST``: return the blob, or the requested range."""
        digest = parse_digest(request.reference)
        content = self._storage.get_blob(request.name, digest)
        if content is None:
            raise _unknown_blob(request)
        headers = {"Accept-Ranges": "bytes"}
        if self._digest_header:
            headers["Docker-Content-Digest"] = digest
        byte_range = _parse_range(request, len(content))
        if byte_range is None:
            return make_response(200, headers, content, OCTET_STREAM)
        first, last = byte_range
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return make_response(206, headers, content[first : last + 1], OCTET_STREAM)

    def delete(self, request: RegistryRequest) -> Response:
        """Handle ``DELETE /v2/NAME/blobs/DIGEST``: remove the blob from the repository."""
        if not self._storage.delete_blob(request.name, parse_digest(request.reference)):
            raise _unknown_blob(request)
        return make_response(202)


def _unknown_blob(request: RegistryRequest) -> ErrorResponse:
    return ErrorResponse(404, "BLOB_UNKNOWN", f"repository {request.name} has no blob {request.reference}")


def _parse_range(request: RegistryRequest, size: int) -> tuple[int, int] | None:
    """Return the positions of the first and the last requested byte, or None for the whole blob.

    Raises:
        ErrorResponse: The range is not satisfiable (416).
    """
    match = _RANGE.fullmatch(request.http_request.headers.get("range", ""))
    # RFC 9110, section 14.2: Range is defined for GET only. Section 13.1.5: Range is ignored if If-Range does not
    # match. If-Range never matches here, because blobs are sent without an ETag and a Last-Modified.
    if request.http_request.method != "GET" or match is None or "if-range" in request.http_request.headers:
        return None
    first, last = match.groups()
    if (not first and not last) or (first and last and int(last) < int(first)):
        return None  # RFC 9110, section 14.2: an invalid Range is ignored
    if first:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    else:  # a suffix range: the last N bytes
        start, end = max(size - int(last), 0), size - 1
        if not size and int(last):
            return None  # satisfiable (section 14.1.2), but a Content-Range cannot describe zero bytes
    if start > end:
        reason = f"range not satisfiable: the blob has {size} bytes"
        raise ErrorResponse(416, "", reason, headers={"Content-Range": f"bytes */{size}"})
    return start, end
