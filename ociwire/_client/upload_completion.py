"""Completion of an upload with the closing PUT, and recovery after it fails.

A registry may need minutes to commit a large blob after the closing PUT. In that time, a proxy may respond with 502,
504 or 524, or close the connection, although the registry continues the commit. A repeated PUT can then disturb the
commit (GHCR loses the upload session). `UploadCompletion` therefore queries the state of the upload first::

    HEAD of the blob    GET of the session       action
    found               -                        done
    not found           not found                the session is lost: start again if the body is resendable
    not supported       not found                GET the blob's first byte: if it is found, done; else as above
    not found           fewer bytes than sent    resume immediately
    not found           not supported, HTML      repeat the PUT without a body; if it had one, start again
    not found           all bytes                poll for up to ten minutes or until the deadline; repeat the PUT if the
                                                 registry is probably not committing the blob (see `_poll_time`)
"""

from __future__ import annotations

import time
from enum import Enum
from typing import NamedTuple, final

from .._http.body import Body, has_raised
from .._http.cancellation import cancellable_sleep
from .._oci.digest import Digest
from ..errors import (
    AuthError,
    BlobUploadInvalid,
    BlobUploadUnknown,
    ConnectError,
    ContentError,
    NotFound,
    OciwireError,
    RegistryError,
    TooManyRequests,
    TransportError,
    TransportTimeout,
)
from ..transport.retry_policy import MAX_RETRIES, MAX_WAIT, PERMANENT_ERRORS
from .error_mapping import is_transient
from .repository import Repository, add_query
from .uploads import blob_exists, get_finds_blob, head_finds_blob, read_status, upload_headers

__all__ = ["IncompleteUpload", "UploadCompletion"]

_MAX_COMMIT_TIME = 600.0
"""Maximum time in seconds to wait for a registry that has all bytes to commit the upload."""
_GRACE = 60.0
"""Maximum time in seconds to wait if the fault does not show whether the registry is committing the blob."""
_MAX_PAUSE = 30.0
_MAX_FAILED_POLLS = 3
"""Maximum number of consecutive failed polls. The transport has already retried each of them."""


class IncompleteUpload(NamedTuple):
    """State of an upload whose closing PUT failed.

    Attributes:
        fault: Exception of the PUT.
        location: URL of the upload session; `None` if the registry has lost it.
        offset: Number of bytes that the registry has, if it has fewer than were sent. `None` if the registry has all
            bytes or does not state the number, and neither waiting nor repeating the PUT succeeded.
        min_chunk_length: Minimum length in bytes of the chunks that the registry accepts.
    """

    fault: OciwireError
    location: str | None
    offset: int | None
    min_chunk_length: int = 0

    def error(self) -> OciwireError:
        """Return the exception to raise if the upload cannot be resumed."""
        if self.location is not None:
            return self.fault
        error = BlobUploadUnknown("the registry has lost the upload session: upload the content again")
        error.__cause__ = self.fault
        return error


class _State(Enum):
    """State of an upload after its closing PUT failed."""

    STORED = "the registry has the blob"
    SESSION_LOST = "the registry has lost the upload session"
    INCOMPLETE = "the registry has fewer bytes than were sent"
    COMPLETE = "the registry has all bytes"
    UNKNOWN = "the registry does not state how many bytes it has"
    FAILED = "the query of the state failed"
    RESEND = "the PUT has to be repeated"
    GIVEN_UP = "waiting did not succeed"


@final
class UploadCompletion:
    """Completes an upload with the closing PUT, and determines after a fault whether the blob was stored.

    The PUT is marked as not idempotent, so that no layer repeats it after a part of the request was sent. The
    module docstring lists the actions after a fault.

    Args:
        repository: The repository.
        location: URL of the upload session.
        digest: Digest of the complete blob.
        body: Content to send with the PUT. `None` means no content.
        offset: Position in the blob of the first byte of `body`: the number of bytes that were sent before. If it is 0,
            no Content-Range is sent, because some registries refuse it.
    """

    def __init__(
        self,
        repository: Repository,
        location: str,
        digest: Digest,
        body: Body | None = None,
        offset: int = 0,
    ) -> None:
        self._repository = repository
        self._location = location
        self._digest = digest
        self._body = body
        self._offset_sent = offset
        self._size = offset + ((body.length or 0) if body is not None else 0)
        self._offset = self._min_chunk_length = 0
        self._resends = 0
        self._began: float | None = None
        self._total_pause = 0.0
        self._limit = ""  # the limit that ended the wait, for the error message
        self._failure: OciwireError | None = None  # exception of the last poll, if it failed

    def run(self) -> IncompleteUpload | None:
        """Send the PUT, and recover from faults.

        Returns:
            `None` if the registry has the blob; otherwise the state of the upload.

        Raises:
            RegistryError: The registry responded with a permanent error.
            ContentError: The response is an HTML page.
            TransportError: No usable response was received, and the error is permanent.
        """
        while True:
            fault = self._put()
            if fault is None:
                return None
            state = self._recover_from(fault)
            if state is _State.STORED:
                return None
            if state is _State.SESSION_LOST:
                return IncompleteUpload(fault, None, None)
            if state is _State.INCOMPLETE:
                return IncompleteUpload(fault, self._location, self._offset, self._min_chunk_length)
            if state is _State.GIVEN_UP:
                return IncompleteUpload(self._error(fault), self._location, None)

    def _put(self) -> OciwireError | None:
        """Send the PUT once; return a transient fault, or `None` if the registry has the blob."""
        repository, digest = self._repository, self._digest
        try:
            repository.put(
                add_query(self._location, {"digest": digest}),
                digest,
                self._body,
                is_stored=lambda: blob_exists(repository, digest) or get_finds_blob(repository, digest),
                headers=upload_headers(self._body, self._offset_sent or None),
                idempotent=False,
            )
        except (NotFound, BlobUploadInvalid):
            # Registries respond in the same way if the upload is already committed: an earlier PUT may have succeeded.
            if not blob_exists(repository, digest, confirm=True):
                raise
        except (TransportError, RegistryError) as error:
            if not _is_temporary(error) or (self._body is not None and has_raised(self._body, error)):
                raise
            return error
        return None

    def _recover_from(self, fault: OciwireError) -> _State:
        """Determine the state of the upload, and wait until it is final or the PUT has to be repeated."""
        self._began = time.monotonic() if self._began is None else self._began
        deadline = self._repository.sender.defaults.deadline
        if deadline is not None and time.monotonic() >= deadline:
            return _State.GIVEN_UP
        if isinstance(fault, ConnectError):  # nothing was sent, so the state is unchanged
            return self._wait_before_resend()
        state = self._poll_for(_poll_time(fault))
        if state is _State.UNKNOWN and self._body is not None:
            return _State.SESSION_LOST  # it is unknown which bytes to resend, so that a new session is required
        if state not in (_State.COMPLETE, _State.UNKNOWN):
            return state
        self._body = None  # the registry has it; some registries would append the body of a repeated PUT
        return self._wait_before_resend()

    def _poll_for(self, seconds: float) -> _State:
        """Poll with backoff for at most `seconds`, while the registry has all bytes or does not state the offset."""
        began, pause, failed = self._elapsed(), 0.0, 0
        while True:
            state = self._poll()
            if state in (_State.STORED, _State.SESSION_LOST, _State.INCOMPLETE):
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
        """HEAD the blob, and GET the upload session if it is not found; see the table in the module docstring."""
        exists: bool | None = False
        try:
            exists = head_finds_blob(self._repository, self._digest)
            if exists:
                return _State.STORED
            status = read_status(self._repository, self._location)
            self._location = status.location
            self._min_chunk_length = status.min_chunk_length
        except (NotFound, BlobUploadInvalid):
            # The session of a committed upload is not found either. If HEAD is not supported, a GET determines whether
            # the blob exists.
            is_stored = exists is None and get_finds_blob(self._repository, self._digest)
            return _State.STORED if is_stored else _State.SESSION_LOST
        except ContentError:
            return _State.UNKNOWN
        except (TransportError, RegistryError) as error:
            if isinstance(error, AuthError):
                raise
            if isinstance(error, RegistryError) and not is_transient(error):
                return _State.UNKNOWN  # some registries do not support the GET of a session (405)
            self._failure = error
            return _State.FAILED
        self._offset = status.offset
        if self._offset == 0 and self._offset_sent == 1:
            self._offset = 1  # Range: 0-0 may mean one byte, and one byte was acknowledged before
        return _State.INCOMPLETE if self._offset < self._size else _State.COMPLETE

    def _wait_before_resend(self) -> _State:
        """Wait for 0, 1, 2 or 4 seconds before the PUT is repeated, as `RetryTransport` does."""
        pause = 2.0 ** (self._resends - 1) if self._resends else 0.0
        if self._resends == MAX_RETRIES or not self._pause(pause):
            return _State.GIVEN_UP
        self._resends += 1
        return _State.RESEND

    def _pause(self, seconds: float) -> bool:
        """Sleep, and return true; return false without sleeping if the deadline would expire first."""
        deadline = self._repository.sender.defaults.deadline
        if deadline is not None and time.monotonic() + seconds >= deadline:
            self._limit = "before the deadline"
            return False
        cancellable_sleep(seconds, time.sleep)
        self._total_pause += seconds
        return True

    def _elapsed(self) -> float:
        """Return the seconds since the first fault: at least the sum of all pauses, as the clock may not advance."""
        began = time.monotonic() if self._began is None else self._began
        return max(self._total_pause, time.monotonic() - began)

    def _error(self, fault: OciwireError) -> OciwireError:
        """Return the exception to raise after waiting did not succeed."""
        if not self._limit:
            return self._failure or fault
        error = TransportTimeout(
            f"the registry did not commit the upload of {self._digest} {self._limit} after this failure: {fault}"
            " (push the blob again later)",
            request=getattr(fault, "request", None),
        )
        error.__cause__ = fault
        return error


def _poll_time(fault: OciwireError) -> float:
    """Return the seconds for which a registry that has all bytes is polled before the closing PUT is repeated."""
    if isinstance(fault, RegistryError):
        if fault.status in (504, 524):  # timeout of a proxy: the registry continues
            return _MAX_COMMIT_TIME
        if fault.status in (408, 429, 500, 503, 521, 522, 523):  # not processed
            return 0.0
    return _MAX_COMMIT_TIME if isinstance(fault, TransportTimeout) else _GRACE


def _is_temporary(error: OciwireError) -> bool:
    if isinstance(error, TooManyRequests) and (error.retry_after or 0.0) > MAX_WAIT:
        return False
    if isinstance(error, TransportError):
        return not isinstance(error, PERMANENT_ERRORS)
    return is_transient(error)
