"""Upload sessions: opened or mounted by a POST, queried by a GET, closed by a PUT, cancelled by a DELETE.

Follows the OCI distribution specification, "Pushing blobs", and the deviations of deployed registries.

The PUT that closes an upload may outlast every timeout: a registry may need minutes to commit a large blob, and a proxy
in front of it answers 502, 504 or 524, or closes the connection, while the registry goes on. Repeating the PUT then
disturbs the commit (GHCR loses the upload), so that `UploadCompletion` finds out what became of it first::

    HEAD of the blob    GET of the upload        what follows
    found               -                        done
    not found           not found                the upload is gone: start again, if the body can be sent again
    not supported       not found                a GET of the blob's first byte tells which of the two it is
    not found           fewer bytes than sent    resume at once
    not found           all bytes                poll, up to ten minutes or the deadline; after a fault that suggests
                                                 that the registry is not at work (see `_poll_time`), send the PUT again
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from enum import Enum
from typing import NamedTuple, final

from .._http.body import Body
from .._http.messages import Response
from .._oci.digest import Digest
from .._oci.scope import Scope
from ..errors import (
    AuthError,
    BlobUploadInvalid,
    BlobUploadUnknown,
    BodyConsumedError,
    ContentError,
    NotFound,
    OciwireError,
    ProtocolError,
    RedirectError,
    RegistryError,
    TooManyRequests,
    TransportError,
    TransportTimeout,
)
from ..media_types import OCTET_STREAM
from ..transport.retry import sleep
from ..transport.retry_policy import is_connect_failure
from .error_mapping import check_not_html, is_html, is_labelled_html, is_transient, names_digest
from .repository import Repository, add_query
from .session import refusal_means_missing

__all__ = [
    "IncompleteUpload",
    "MountResult",
    "UploadCompletion",
    "UploadSession",
    "UploadStatus",
    "blob_exists",
    "cancel_upload",
    "mount_blob",
    "open_upload",
    "patch_upload",
    "read_status",
]

PATCHED_STATUSES = (200, 201, 202, 204)
"""The statuses of a PATCH that was stored: 202 by the specification, 201 by ECR, 204 by Pulp, 200 by others."""
_OPENED_STATUSES = tuple(range(200, 300))
"""The statuses of a POST that may have opened an upload session: what counts is a usable Location."""

MAX_CHUNK = 1024 * 1024 * 1024
"""Maximum for OCI-Chunk-Min-Length in bytes: a chunk is held in memory."""
_MAX_COMMIT_TIME = 600.0
"""Maximum time in seconds to wait for a registry that has all bytes of an upload."""
_GRACE = 60.0
"""The same after a fault that says neither that the registry is at work nor that it is not."""
_MAX_PAUSE = 30.0
_MAX_RESENDS = 4
"""Maximum number of repetitions of the closing PUT, as in `RetryTransport`."""
_MAX_FAILED_POLLS = 3
"""Maximum number of consecutive polls that fail, each after the retries of the transport."""
_MAX_RETRY_AFTER = 60.0
"""Maximum Retry-After of a 429 in seconds that is waited for, as in `RetryTransport`."""

# 0-99, bytes=0-99, bytes 0-99, 0-99/*, 0-99/100: what counts is the last byte.
_RANGE = re.compile(r"(?:bytes[= ])?\s*[0-9]{1,18}-([0-9]{1,18})(?:/.*)?")


class UploadSession(NamedTuple):
    """An upload session that was opened.

    Attributes:
        location: Its URL.
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
    """The state of an upload session as the registry reports it.

    Attributes:
        location: Its URL from now on.
        offset: The number of bytes that the registry has. It is 0 for ``0-0``, which may mean 0 or 1 byte.
        min_chunk_length: The length of the smallest chunk that the registry accepts, in bytes.
    """

    location: str
    offset: int
    min_chunk_length: int


def open_upload(repository: Repository, algorithm: str) -> UploadSession:
    """Open an upload session with a POST (specification, "Pushing blobs").

    An algorithm other than sha256 is announced (``digest-algorithm=``), so that the registry hashes with it.

    Raises:
        ProtocolError: The response has no usable Location.
        RegistryError: The registry refused.
        TransportError: There is no usable response.
    """
    url = repository.uploads_url(_algorithm_parameter(algorithm))
    response = repository.send("POST", url, repository.push, ok=_OPENED_STATUSES, idempotent=True)
    response.drain()
    return UploadSession(repository.session.upload_location(response), response)


def mount_blob(repository: Repository, digest: Digest, from_name: str) -> MountResult:
    """Mount a blob from another repository, with a POST (specification, "Mounting a blob from another repository").

    Raises:
        RegistryError: The registry refused.
        TransportError: There is no usable response.
    """
    source = Repository(repository.session, from_name, repository.operation)
    parameters = {"mount": str(digest), "from": from_name} | _algorithm_parameter(digest.algorithm)
    url, scope = repository.uploads_url(parameters), repository.push | source.pull
    response = repository.send("POST", url, scope, ok=_OPENED_STATUSES, idempotent=True)
    response.drain()
    session = None
    # Other statuses than 202 open a session if they have a Location that is not the blob itself.
    if response.status == 202 or ("location" in response.headers and not names_digest(response, digest)):
        with suppress(ProtocolError):  # no usable Location: the session expires by itself
            session = UploadSession(repository.session.upload_location(response), response)
    is_mounted = response.status == 201
    return MountResult(is_mounted=is_mounted, session=None if is_mounted else session, response=response, scope=scope)


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
    with repository.send("GET", location, repository.push, ok=(200, 202, 204)) as response:
        check_not_html(response)
        response.drain()
    if "location" in response.headers:
        location = repository.session.upload_location(response)
    return UploadStatus(location, _parse_upload_offset(response), _min_chunk_length(response))


def patch_upload(
    repository: Repository, location: str, body: Body, *, content_range: str | None = None, idempotent: bool
) -> str:
    """Send bytes to an upload session with a PATCH. Returns the URL of the session from now on.

    Args:
        repository: The repository.
        location: The URL of the upload session.
        body: The bytes.
        content_range: The range of a chunk. Without it, registries take a body of any length: some take only small
            chunks.
        idempotent: Whether the request may be repeated: a registry refuses a chunk that it has already.

    Raises:
        RegistryError: The registry refused.
        TransportError: There is no usable response.
    """
    headers = {"Content-Type": OCTET_STREAM} | ({} if content_range is None else {"Content-Range": content_range})
    response = repository.send(
        "PATCH", location, repository.push, ok=PATCHED_STATUSES, headers=headers, body=body, idempotent=idempotent
    )
    response.drain()
    return repository.session.upload_location(response) if "location" in response.headers else location


def cancel_upload(repository: Repository, location: str) -> None:
    """Cancel an upload session (specification, "Canceling an upload"). One that does not exist is no error."""
    with suppress(NotFound):
        repository.send("DELETE", location, repository.push, ok=(200, 202, 204), idempotent=True).drain()


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


class IncompleteUpload(NamedTuple):
    """An upload whose closing PUT failed, and what the registry has of it.

    Attributes:
        fault: The failure of the PUT.
        location: The URL of the upload session; `None` if the registry does not have it any more.
        offset: The number of bytes that the registry has, if it has fewer than were sent. `None` if it has all of them,
            or does not tell: then waiting and repeating the PUT did not help.
        min_chunk_length: The length of the smallest chunk that the registry accepts, in bytes.
    """

    fault: OciwireError
    location: str | None
    offset: int | None
    min_chunk_length: int = 0

    def error(self) -> OciwireError:
        """Return the exception to raise if the upload is not resumed."""
        if self.location is not None:
            return self.fault
        error = BlobUploadUnknown("the registry does not have the upload any more: upload the content again")
        error.__cause__ = self.fault
        return error


class _State(Enum):
    """What is known of an upload whose closing PUT failed."""

    STORED = "the registry has the blob"
    GONE = "the registry does not have the upload any more"
    BEHIND = "the upload has fewer bytes than were sent"
    COMPLETE = "the upload has all bytes"
    UNKNOWN = "the registry does not tell how many bytes the upload has"
    FAILED = "the registry did not answer"
    RESEND = "the PUT is to be repeated"
    GIVEN_UP = "waiting does not help"


@final
class UploadCompletion:
    """Closes an upload with a PUT of the whole, or of its rest; after a fault, finds out what became of it.

    The PUT is marked as not idempotent, so that no layer repeats it after a part of it was sent: see the table at the
    head of this module.

    Args:
        repository: The repository.
        location: The URL of the upload session.
        digest: The digest of the whole.
        body: The content that goes with the PUT.
        first: The position of its first byte: how many bytes were sent before. At 0 there is no Content-Range, which
            some registries refuse.
    """

    def __init__(
        self,
        repository: Repository,
        location: str,
        digest: Digest,
        body: Body | None = None,
        first: int = 0,
    ) -> None:
        self._repository = repository
        self._location = location
        self._digest = digest
        self._body = body
        self._first = first
        self._size = first + ((body.length or 0) if body is not None else 0)
        self._offset = self._min_chunk_length = 0
        self._resends = 0
        self._began: float | None = None
        self._paused = 0.0
        self._limit = ""  # why the wait ended, for the message
        self._failure: OciwireError | None = None  # of the last poll, if the wait ended because of it

    def run(self) -> IncompleteUpload | None:
        """Send the PUT.

        Returns:
            `None` if the registry has the blob; else the state of the upload.

        Raises:
            RegistryError: The registry refused.
            ContentError: The response is an HTML page.
            TransportError: There is no usable response, and waiting does not help.
        """
        while True:
            fault = self._put()
            if fault is None:
                return None
            state = self._determine_state(fault)
            if state is _State.STORED:
                return None
            if state is _State.GONE:
                return IncompleteUpload(fault, None, None)
            if state is _State.BEHIND:
                return IncompleteUpload(fault, self._location, self._offset, self._min_chunk_length)
            if state is _State.GIVEN_UP:
                return IncompleteUpload(self._error(fault), self._location, None)

    def _put(self) -> OciwireError | None:
        """Send the PUT once. Returns a transient fault, or `None` if the registry has the blob."""
        headers = {"Content-Type": OCTET_STREAM}
        if self._first and self._body is not None and self._body.length:
            headers["Content-Range"] = f"{self._first}-{self._first + self._body.length - 1}"
        repository, digest = self._repository, self._digest
        try:
            repository.put(
                add_query(self._location, {"digest": digest}),
                digest,
                self._body,
                is_stored=lambda: blob_exists(repository, digest) or _get_finds_blob(repository, digest),
                headers=headers,
                idempotent=False,
            )
        except (NotFound, BlobUploadInvalid):
            # An upload that was committed is unknown: an earlier PUT may have succeeded.
            if not blob_exists(repository, digest, confirm=True):
                raise
        except (TransportError, RegistryError) as error:
            if not _is_temporary(error) or (self._body is not None and self._body.raised(error)):
                raise
            return error
        return None

    def _determine_state(self, fault: OciwireError) -> _State:
        """Find out what became of the upload, and whether the PUT is to be repeated."""
        self._began = time.monotonic() if self._began is None else self._began
        deadline = self._repository.session.defaults.deadline
        if deadline is not None and time.monotonic() >= deadline:
            return _State.GIVEN_UP
        if is_connect_failure(fault):  # nothing was sent: there is nothing to find out
            return self._wait_before_resend()
        state = self._poll_for(_poll_time(fault))
        if state is _State.UNKNOWN and self._body is not None:
            return _State.GONE  # which bytes to send again is unknown: a new upload is needed
        if state not in (_State.COMPLETE, _State.UNKNOWN):
            return state
        self._body = None  # it has arrived, and some registries append the body of a repeated PUT
        return self._wait_before_resend()

    def _poll_for(self, seconds: float) -> _State:
        """Poll with backoff while the registry has all bytes, or does not tell, for at most `seconds`."""
        began, pause, failed = self._elapsed(), 0.0, 0
        while True:
            state = self._poll()
            if state in (_State.STORED, _State.GONE, _State.BEHIND):
                return state
            failed = failed + 1 if state is _State.FAILED else 0
            remaining = min(seconds - (self._elapsed() - began), _MAX_COMMIT_TIME - self._elapsed())
            if failed == _MAX_FAILED_POLLS or (failed and remaining <= 0):
                return _State.GIVEN_UP
            self._failure = None
            if self._elapsed() >= _MAX_COMMIT_TIME:
                self._limit = f"within {_MAX_COMMIT_TIME:.0f} s"
                return _State.GIVEN_UP
            if remaining <= 0:
                return state
            pause = min(max(1.0, 2 * pause), _MAX_PAUSE, remaining)
            if not self._pause(pause):
                return _State.GIVEN_UP

    def _poll(self) -> _State:
        """HEAD the blob, and GET the upload session if it is not found; see the table at the head of this module."""
        exists: bool | None = False
        try:
            exists = _head_finds_blob(self._repository, self._digest)
            if exists:
                return _State.STORED
            status = read_status(self._repository, self._location)
            self._location, self._min_chunk_length = status.location, status.min_chunk_length
        except (NotFound, BlobUploadInvalid):
            # An upload that was committed is unknown, too. Where HEAD is not supported, only a GET tells.
            is_stored = exists is None and _get_finds_blob(self._repository, self._digest)
            return _State.STORED if is_stored else _State.GONE
        except ContentError:
            return _State.UNKNOWN
        except (TransportError, RegistryError) as error:
            if isinstance(error, AuthError):
                raise
            if isinstance(error, RegistryError) and not is_transient(error):
                return _State.UNKNOWN  # some registries have no GET of uploads (405): only the HEAD tells then
            self._failure = error
            return _State.FAILED
        self._offset = status.offset
        if self._offset == 0 and self._first == 1:
            self._offset = 1  # 0-0 may be one byte, and one was acknowledged
        return _State.BEHIND if self._offset < self._size else _State.COMPLETE

    def _wait_before_resend(self) -> _State:
        """Wait before the PUT is repeated, as `RetryTransport` does: 0, 1, 2 and 4 seconds."""
        pause = 2.0 ** (self._resends - 1) if self._resends else 0.0
        if self._resends == _MAX_RESENDS or not self._pause(pause):
            return _State.GIVEN_UP
        self._resends += 1
        return _State.RESEND

    def _pause(self, seconds: float) -> bool:
        """Sleep. Returns False without sleeping if the deadline is nearer."""
        deadline = self._repository.session.defaults.deadline
        if deadline is not None and time.monotonic() + seconds >= deadline:
            self._limit = "before the deadline"
            return False
        if seconds:
            sleep(seconds)
        self._paused += seconds
        return True

    def _elapsed(self) -> float:
        """Seconds since the first fault; not less than all pauses, whatever the clock says."""
        began = time.monotonic() if self._began is None else self._began
        return max(self._paused, time.monotonic() - began)

    def _error(self, fault: OciwireError) -> OciwireError:
        """Return the exception to raise when waiting did not help: the last failure, as from a retry."""
        if not self._limit:
            return self._failure or fault
        error = TransportTimeout(
            f"the registry did not commit the upload of {self._digest} {self._limit} after this failure: {fault}"
            " (push the blob again later: if it was committed meanwhile, it is not sent again)",
            request=getattr(fault, "request", None),
        )
        error.__cause__ = fault
        return error


def _poll_time(fault: OciwireError) -> float:
    """Seconds for which a registry that has all bytes is polled before the closing PUT is repeated."""
    if isinstance(fault, RegistryError):
        if fault.status in (504, 524):  # a proxy did not wait for the registry, which goes on
            return _MAX_COMMIT_TIME
        if fault.status in (408, 429, 500, 503, 521, 522, 523):  # the registry is not at work, or was not reached
            return 0.0
    return _MAX_COMMIT_TIME if isinstance(fault, TransportTimeout) else _GRACE


def _is_temporary(error: OciwireError) -> bool:
    if isinstance(error, TooManyRequests) and (error.retry_after or 0.0) > _MAX_RETRY_AFTER:
        return False
    if isinstance(error, TransportError):
        return not isinstance(error, (AuthError, BodyConsumedError, RedirectError))
    return is_transient(error)


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
    exists = _head_finds_blob(repository, digest)
    if exists is None and confirm:
        return _get_finds_blob(repository, digest)
    return bool(exists)


def _head_finds_blob(repository: Repository, digest: Digest) -> bool | None:
    """Return whether a HEAD finds a blob; `None` if it is refused and HEAD may not be supported. A 404 is believed."""
    with refusal_means_missing():
        try:
            response = repository.head(repository.blob_url(digest), repository.push)
        except RegistryError as refusal:
            if refusal.status != 404 and repository.session.needs_confirmation(refusal):
                return None
            raise
        return not is_labelled_html(response) or names_digest(response, digest)
    return False


def _get_finds_blob(repository: Repository, digest: Digest) -> bool:
    """Return whether a GET of the first byte finds a blob."""
    url, headers = repository.blob_url(digest), {"Range": "bytes=0-0"}
    try:
        # 416: the blob is empty
        response = repository.send("GET", url, repository.push, ok=(200, 206, 416), headers=headers)
    except RegistryError:
        return False
    with response:
        return not is_html(response)
