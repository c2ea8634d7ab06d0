"""Upload sessions: opened or mounted by a POST, queried by a GET, closed by a PUT, cancelled by a DELETE.

Follows the OCI distribution specification, "Pushing blobs", and the deviations of deployed registries.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import NamedTuple

from .._http.body import Body
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
"""The statuses of a PATCH that was stored: 202 by the specification, 201 by ECR, 204 by Pulp, 200 by others."""
_OPENED_STATUSES = tuple(range(200, 300))
"""The statuses of a POST that may have opened an upload session: what counts is a usable Location."""

MAX_CHUNK = 1024 * 1024 * 1024
"""Maximum for OCI-Chunk-Min-Length in bytes: a chunk is held in memory."""
_CANCEL_TIME = 10.0
# 0-99, bytes=0-99, bytes 0-99, 0-99/*, 0-99/100: what counts is the last byte.
_RANGE = re.compile(r"(?:bytes[= ])?\s*[0-9]{1,18}-([0-9]{1,18})(?:/.*)?")


class UploadSession(NamedTuple):
    """An upload session that was opened.

    Attributes:
        location: The URL for the next request.
        response: The response that opened it, closed.
    """

    location: str
    response: Response

    @property
    def min_chunk_length(self) -> int:
        """The length of the smallest chunk that the registry accepts, in bytes.

        Raises:
            ProtocolError: It is more than 1 GiB, too much to hold in memory.
        """
        return _min_chunk_length(self.response)


class MountResult(NamedTuple):
    """The result of a request to mount a blob.

    Attributes:
        is_mounted: Whether the repository has the blob now.
        session: The upload session that was opened instead, if one was.
        response: The response, closed.
        scope: What the request needed: the token for it serves the requests that follow.
    """

    is_mounted: bool
    session: UploadSession | None
    response: Response
    scope: Scope


class UploadStatus(NamedTuple):
    """The state of an upload session.

    Attributes:
        location: The URL for the next request.
        offset: The number of bytes that the registry has. It is 0 for ``0-0``, which may mean 0 or 1 byte.
        response: The response that reports it, closed.
    """

    location: str
    offset: int
    response: Response

    @property
    def min_chunk_length(self) -> int:
        """The length of the smallest chunk that the registry accepts, in bytes; see `UploadSession`."""
        return _min_chunk_length(self.response)


def open_upload(repository: Repository, algorithm: str) -> UploadSession:
    """Open an upload session with a POST (specification, "Pushing blobs").

    An algorithm other than sha256 is announced (``digest-algorithm=``), so that the registry hashes with it.

    Raises:
        ProtocolError: The response has no usable Location.
        RegistryError: The registry refused.
        TransportError: There is no usable response.
    """
    url = repository.uploads_url(_algorithm_parameter(algorithm))
    response = repository.send("POST", url, repository.push_scope, ok=_OPENED_STATUSES, idempotent=True)
    response.drain()
    return UploadSession(repository.upload_location(response), response)


def mount_blob(repository: Repository, digest: Digest, from_name: str) -> MountResult:
    """Mount a blob from another repository, with a POST (specification, "Mounting a blob from another repository").

    Raises:
        RegistryError: The registry refused.
        TransportError: There is no usable response.
    """
    source = Repository(repository.sender, from_name, repository.operation)
    parameters = {"mount": str(digest), "from": from_name} | _algorithm_parameter(digest.algorithm)
    url, scope = repository.uploads_url(parameters), repository.push_scope | source.pull_scope
    response = repository.send("POST", url, scope, ok=_OPENED_STATUSES, idempotent=True)
    response.drain()
    if response.status == 201:
        return MountResult(is_mounted=True, session=None, response=response, scope=scope)
    session = None
    # Other statuses than 202 open a session if they have a Location that is not the blob itself.
    if response.status == 202 or ("location" in response.headers and not names_digest(response, digest)):
        with suppress(ProtocolError):  # no usable Location: the session expires by itself
            session = UploadSession(repository.upload_location(response), response)
    return MountResult(is_mounted=False, session=session, response=response, scope=scope)


def try_mount(repository: Repository, digest: Digest, from_name: str) -> tuple[bool, UploadSession | None]:
    """Mount a blob before it is uploaded; a refusal is no error, because the upload may be allowed.

    Returns:
        Whether the blob is mounted, and the upload session that was opened instead, if one was.

    Raises:
        RegistryError: The registry cannot answer at the moment.
        TransportError: There is no usable response.
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
    """GET the state of an upload session (specification, "Pushing a blob in chunks").

    Raises:
        BlobUploadUnknown: The upload session is closed, or the registry has dropped it.
        ContentError: The response is an HTML page.
        RegistryError: The registry refused.
        TransportError: There is no usable response.
    """
    with repository.send("GET", location, repository.push_scope, ok=(200, 202, 204)) as response:
        check_not_html(response)
        response.drain()
    if "location" in response.headers:
        location = repository.upload_location(response)
    return UploadStatus(location, _parse_upload_offset(response), response)


def patch_upload(
    repository: Repository, location: str, body: Body, *, offset: int | None = None, idempotent: bool
) -> str:
    """Send bytes to an upload session with a PATCH. Returns the URL for the next request.

    Args:
        repository: The repository.
        location: The URL of the upload session.
        body: The bytes.
        offset: The position of the first byte of a chunk, for Content-Range. Without it, as docker sends it, registries
            take a body of any length; some take only small chunks.
        idempotent: Whether the request may be repeated: a registry refuses a chunk that it has already.

    Raises:
        RegistryError: The registry refused.
        TransportError: There is no usable response.
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
    """Build the headers of a PATCH or PUT; with Content-Range if `offset` is the position of the first byte.

    The specification writes the range without the unit that RFC 9110 demands: ``0-99``.
    """
    headers = {"Content-Type": OCTET_STREAM}
    if offset is not None and body is not None and body.length:
        headers["Content-Range"] = f"{offset}-{offset + body.length - 1}"
    return headers


def cancel_upload(repository: Repository, location: str) -> None:
    """Cancel an upload session (specification, "Canceling an upload"). One that does not exist is no error."""
    with suppress(NotFound):
        repository.delete(location, repository.push_scope, idempotent=True)


def cancel_quietly(repository: Repository, location: str) -> None:
    """Cancel an upload session that failed, if that is possible within 10 seconds, even after the client's deadline."""
    with suppress(Exception):  # an earlier error is about to be raised, and the session expires by itself
        cancel_upload(repository.with_options(deadline=time.monotonic() + _CANCEL_TIME), location)


def _min_chunk_length(response: Response) -> int:
    """Parse OCI-Chunk-Min-Length; 0 if it is absent or not valid.

    Raises:
        ProtocolError: It is larger than `MAX_CHUNK`.
    """
    stated = response.headers.get("oci-chunk-min-length", "").strip()
    length = int(stated) if re.fullmatch(r"[0-9]{1,18}", stated) else 0
    if length > MAX_CHUNK:
        raise ProtocolError(f"the registry wants chunks of {length} bytes, too many to hold", request=response.request)
    return length


def _parse_upload_offset(response: Response) -> int:
    """Parse the number of bytes of an upload session from Range; 0 if it is absent, and for ``0-0``."""
    match = _RANGE.fullmatch(response.headers.get("range", "").strip())
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


def blob_exists(repository: Repository, digest: Digest, *, confirm: bool = False) -> bool:
    """Return whether a HEAD finds a blob, to decide whether to upload it.

    Any refusal means that it is missing, and so does an HTML page that does not name the digest.

    Args:
        repository: The repository.
        digest: The blob's digest.
        confirm: Whether a GET decides if HEAD is not supported, because the blob may have been stored a moment ago.

    Raises:
        RegistryError: The registry cannot answer at the moment.
        TransportError: There is no usable response.
    """
    exists = head_finds_blob(repository, digest)
    if exists is None and confirm:
        return get_finds_blob(repository, digest)
    return bool(exists)


def head_finds_blob(repository: Repository, digest: Digest) -> bool | None:
    """Return whether a HEAD finds a blob; `None` if it is refused and HEAD may not be supported (not for a 404)."""
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
