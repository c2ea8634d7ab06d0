"""Requests of upload sessions: POST opens or mounts, GET queries, PATCH sends, PUT closes, DELETE cancels.

Implements the OCI distribution specification, "Pushing blobs", and tolerates registries that deviate from it.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import NamedTuple

from .._http.body import Body
from .._http.cancellation import cancellable_by
from .._http.messages import Response
from .._oci.digest import Digest
from .._oci.scope import Scope
from ..errors import (
    AuthError,
    NotFound,
    ProtocolError,
    RegistryError,
)
from ..media_types import OCTET_STREAM
from .error_mapping import check_not_html, is_html, is_html_instead_of, is_transient, names_digest
from .repository import Repository
from .request_sender import treat_refusal_as_missing

__all__ = [
    "MountResult",
    "UploadSession",
    "UploadStatus",
    "blob_exists",
    "cancel_quietly",
    "cancel_upload",
    "mount_blob",
    "open_upload",
    "patch_upload",
    "get_finds_blob",
    "head_finds_blob",
    "read_status",
    "try_mount",
    "upload_headers",
]

_PATCHED_STATUSES = (200, 201, 202, 204)
"""Successful statuses of a PATCH. The specification requires 202; ECR sends 201, Pulp 204, and others 200."""
_OPENED_STATUSES = tuple(range(200, 300))
"""Statuses of a POST that may have opened an upload session. The response must also have a usable Location."""

MAX_CHUNK = 1024 * 1024 * 1024
"""Maximum supported OCI-Chunk-Min-Length in bytes, because a chunk is held in memory."""
_CANCEL_TIME = 10.0
# Formats that registries use for Range: 0-99, bytes=0-99, bytes 0-99, 0-99/*, 0-99/100. Only the last byte is used.
_RANGE = re.compile(r"(?:bytes[= ])?\s*[0-9]{1,18}-([0-9]{1,18})(?:/.*)?")


class UploadSession(NamedTuple):
    """A newly opened upload session.

    Attributes:
        location: URL for the next request.
        response: The closed response of the POST.
    """

    location: str
    response: Response

    @property
    def min_chunk_length(self) -> int:
        """Minimum length of a chunk in bytes that the registry accepts.

        Raises:
            ProtocolError: The length is more than 1 GiB.
        """
        return _min_chunk_length(self.response)


class MountResult(NamedTuple):
    """Result of a request to mount a blob.

    Attributes:
        is_mounted: Whether the blob was mounted.
        session: The upload session that was opened instead, or `None`.
        response: The closed response.
        scope: Scope of the request. Later requests with the same scope can use the same token.
    """

    is_mounted: bool
    session: UploadSession | None
    response: Response
    scope: Scope


class UploadStatus(NamedTuple):
    """State of an upload session.

    Attributes:
        location: URL for the next request.
        offset: Number of bytes that the registry has. It is 0 for ``Range: 0-0``, which may mean 0 bytes or 1 byte.
        response: The closed response of the GET.
    """

    location: str
    offset: int
    response: Response

    @property
    def min_chunk_length(self) -> int:
        """Minimum length of a chunk in bytes that the registry accepts; see `UploadSession`."""
        return _min_chunk_length(self.response)


def open_upload(repository: Repository, algorithm: str) -> UploadSession:
    """Open an upload session with a POST (specification, "Pushing blobs").

    If the algorithm is not sha256, it is sent as ``digest-algorithm=``, so that the registry can use it for hashing.

    Raises:
        ProtocolError: The response has no usable Location.
        RegistryError: The registry responded with an error.
        TransportError: No usable response was received.
    """
    url = repository.uploads_url(_algorithm_parameter(algorithm))
    # Idempotent: a repeated POST opens another session, and the unused session expires.
    response = repository.send("POST", url, repository.push_scope, ok=_OPENED_STATUSES, idempotent=True)
    response.drain()
    return UploadSession(repository.upload_location(response), response)


def mount_blob(repository: Repository, digest: Digest, from_name: str) -> MountResult:
    """Mount a blob from another repository, with a POST (specification, "Mounting a blob from another repository").

    Raises:
        RegistryError: The registry responded with an error.
        TransportError: No usable response was received.
    """
    source = Repository(repository.sender, from_name, repository.operation)
    parameters = {"mount": str(digest), "from": from_name} | _algorithm_parameter(digest.algorithm)
    # Docker Hub requires pull access to the source. The target comes first: some servers evaluate only the first scope.
    url, scope = repository.uploads_url(parameters), repository.push_scope | source.pull_scope
    response = repository.send("POST", url, scope, ok=_OPENED_STATUSES, idempotent=True)
    response.drain()
    if response.status == 201:
        return MountResult(is_mounted=True, session=None, response=response, scope=scope)
    session = None
    # For other statuses than 202, a Location that is not the URL of the blob shows that a session was opened.
    if response.status == 202 or ("location" in response.headers and not names_digest(response, digest)):
        with suppress(ProtocolError):  # a session without a usable Location expires
            session = UploadSession(repository.upload_location(response), response)
    return MountResult(is_mounted=False, session=session, response=response, scope=scope)


def try_mount(repository: Repository, digest: Digest, from_name: str) -> tuple[bool, UploadSession | None]:
    """Try to mount a blob instead of uploading it. A refusal is not an error, because an upload may still be permitted.

    Returns:
        Whether the blob was mounted, and the upload session that was opened instead, or `None`.

    Raises:
        RegistryError: The registry is temporarily unavailable.
        TransportError: No usable response was received.
    """
    try:
        result = mount_blob(repository, digest, from_name)
    except (AuthError, RegistryError) as error:
        if is_transient(error):
            raise
        return False, None
    return result.is_mounted, result.session


def _algorithm_parameter(algorithm: str) -> dict[str, str]:
    return {} if algorithm == "sha256" else {"digest-algorithm": algorithm}


def read_status(repository: Repository, location: str) -> UploadStatus:
    """Request the state of an upload session with a GET (specification, "Pushing a blob in chunks").

    Raises:
        BlobUploadUnknown: The upload session is closed or has expired.
        ContentError: The response is an HTML page.
        RegistryError: The registry responded with an error.
        TransportError: No usable response was received.
    """
    # 204 is specified; some registries respond with 200 or 202.
    with repository.send("GET", location, repository.push_scope, ok=(200, 202, 204)) as response:
        check_not_html(response)
        response.drain()
    if "location" in response.headers:
        location = repository.upload_location(response)
    return UploadStatus(location, _parse_upload_offset(response), response)


def patch_upload(
    repository: Repository, location: str, body: Body, *, offset: int | None = None, idempotent: bool
) -> str:
    """Send bytes to an upload session with a PATCH, and return the URL for the next request.

    Args:
        repository: The repository.
        location: URL of the upload session.
        body: The bytes.
        offset: Position of the first byte of a chunk, for Content-Range. `None` sends no Content-Range, as Docker does:
            registries then accept a body of any length, even registries that accept only small chunks.
        idempotent: Whether the request may be repeated. Chunks may be, because a registry refuses a chunk that it
            already has.

    Raises:
        RegistryError: The registry responded with an error.
        TransportError: No usable response was received.
    """
    response = repository.send(
        "PATCH",
        location,
        repository.push_scope,
        ok=_PATCHED_STATUSES,
        headers=upload_headers(body, offset),
        body=body,
        idempotent=idempotent,
    )
    response.drain()
    return repository.upload_location(response) if "location" in response.headers else location


def upload_headers(body: Body | None, offset: int | None) -> dict[str, str]:
    """Return the headers of a PATCH or PUT, with Content-Range if `offset` is the position of the first byte.

    In the distribution specification, the range has no unit, unlike in RFC 9110: ``0-99``.
    """
    headers = {"Content-Type": OCTET_STREAM}
    if offset is not None and body is not None and body.length:
        headers["Content-Range"] = f"{offset}-{offset + body.length - 1}"
    return headers


def cancel_upload(repository: Repository, location: str) -> None:
    """Cancel an upload session (specification, "Canceling an upload"). An unknown session is not an error."""
    with suppress(NotFound):
        repository.delete(location, repository.push_scope, idempotent=True)


def cancel_quietly(repository: Repository, location: str) -> None:
    """Cancel an upload session after a failure, with a deadline of 10 seconds, and suppress all exceptions."""
    # Sent even if the call was cancelled, because the registry would otherwise keep the session for days.
    with cancellable_by(None), suppress(Exception):
        cancel_upload(repository.with_options(deadline=time.monotonic() + _CANCEL_TIME), location)


def _min_chunk_length(response: Response) -> int:
    """Parse OCI-Chunk-Min-Length; return 0 if it is absent or invalid.

    Raises:
        ProtocolError: The length is larger than `MAX_CHUNK`.
    """
    value = response.headers.get("oci-chunk-min-length", "").strip()
    length = int(value) if re.fullmatch(r"[0-9]{1,18}", value) else 0
    if length > MAX_CHUNK:
        raise ProtocolError(
            f"unsupported OCI-Chunk-Min-Length {length}: expected at most {MAX_CHUNK} bytes", request=response.request
        )
    return length


def _parse_upload_offset(response: Response) -> int:
    """Return the number of bytes that a session has, from Range; 0 if the header is absent or ``0-0``."""
    match = _RANGE.fullmatch(response.headers.get("range", "").strip())
    # docker-registry sends 0-0 both for zero bytes and for one byte. Assuming zero never skips a byte.
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


def blob_exists(repository: Repository, digest: Digest, *, confirm: bool = False) -> bool:
    """Return whether a blob exists, to decide whether to upload it.

    The blob counts as missing if the HEAD is refused, or if the response is an HTML page without the digest.

    Args:
        repository: The repository.
        digest: Digest of the blob.
        confirm: Whether to send a GET if HEAD is not supported, because the blob may have just been stored.

    Raises:
        RegistryError: The registry is temporarily unavailable.
        TransportError: No usable response was received.
    """
    exists = head_finds_blob(repository, digest)
    if exists is None and confirm:
        return get_finds_blob(repository, digest)
    return bool(exists)


def head_finds_blob(repository: Repository, digest: Digest) -> bool | None:
    """Return whether a HEAD finds a blob; `None` if HEAD may not be supported. After a 404, return false."""
    with treat_refusal_as_missing():
        try:
            response = repository.head(repository.blob_url(digest), repository.push_scope)
        except RegistryError as refusal:
            if refusal.status != 404 and repository.needs_confirmation(refusal):
                return None
            raise
        return not is_html_instead_of(response, digest)
    return False


def get_finds_blob(repository: Repository, digest: Digest) -> bool:
    """Return whether a GET of the first byte finds a blob."""
    try:
        response = repository.get_first_byte(digest, repository.push_scope)
    except RegistryError:
        return False
    with response:
        return not is_html(response)
