"""Completes an upload with the closing PUT, and finds out after a fault whether the registry has the blob.

The PUT that closes an upload may outlast every timeout: a registry may need minutes to commit a large blob, and a proxy
in front of it answers 502, 504 or 524, or closes the connection, while the registry goes on. Repeating the PUT then
disturbs the commit (GHCR loses the upload), so that `UploadCompletion` queries the state of the upload first::

    HEAD of the blob    GET of the upload        what follows
    found               -                        done
    not found           not found                the upload is gone: start again, if the body can be sent again
    not supported       not found                a GET of the blob's first byte tells which of the two it is
    not found           fewer bytes than sent    resume at once
    not found           not supported, HTML      repeat the PUT without a body, or start again if it had one
    not found           all bytes                poll, up to ten minutes or the deadline; after a fault that suggests
                                                 that the registry is not at work (see `_poll_time`), send the PUT again
"""

from __future__ import annotations

import time
from enum import Enum
from typing import NamedTuple, final

from .._http.body import Body, has_raised
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
"""Maximum time in seconds to wait for a registry that has all bytes of an upload."""
_GRACE = 60.0
"""The same after a fault that says neither that the registry is at work nor that it is not."""
_MAX_PAUSE = 30.0
_MAX_FAILED_POLLS = 3
"""Maximum number of consecutive polls that fail, each after the retries of the transport."""


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
    SESSION_LOST = "the registry does not have the upload any more"
    INCOMPLETE = "the upload has fewer bytes than were sent"
    COMPLETE = "the upload has all bytes"
    UNKNOWN = "the registry does not tell how many bytes the upload has"
    FAILED = "the registry did not answer"
    RESEND = "the PUT is to be repeated"
    GIVEN_UP = "waiting does not help"


@final
class UploadCompletion:
    """Completes an upload with the closing PUT; after a fault, determines whether the blob was stored.

    The PUT is marked as not idempotent, so that no layer repeats it after a part of it was sent: see the table in
    the module docstring.

    Args:
        repository: The repository.
        location: The URL of the upload session.
        digest: The digest of the complete blob.
        body: The content that goes with the PUT.
        offset: The position of its first byte: the number of bytes that were sent before. At 0 there is no
            Content-Range, which some registries refuse.
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
        """Send the PUT once. Returns a transient fault, or `None` if the registry has the blob."""
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
            # An upload that was committed is unknown: an earlier PUT may have succeeded.
            if not blob_exists(repository, digest, confirm=True):
                raise
        except (TransportError, RegistryError) as error:
            if not _is_temporary(error) or (self._body is not None and has_raised(self._body, error)):
                raise
            return error
        return None

    def _recover_from(self, fault: OciwireError) -> _State:
        """Determine the state of the upload, and wait until it is decided or the PUT is to be repeated."""
        self._began = time.monotonic() if self._began is None else self._began
        deadline = self._repository.sender.defaults.deadline
        if deadline is not None and time.monotonic() >= deadline:
            return _State.GIVEN_UP
        if isinstance(fault, ConnectError):  # nothing was sent: there is nothing to find out
            return self._wait_before_resend()
        state = self._poll_for(_poll_time(fault))
        if state is _State.UNKNOWN and self._body is not None:
            return _State.SESSION_LOST  # which bytes to send again is unknown: a new upload is needed
        if state not in (_State.COMPLETE, _State.UNKNOWN):
            return state
        self._body = None  # it has arrived, and some registries append the body of a repeated PUT
        return self._wait_before_resend()

    def _poll_for(self, seconds: float) -> _State:
        """Poll with backoff while the registry has all bytes, or does not tell, for at most `seconds`."""
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
        """HEAD the blob, and GET the upload session if it is not found; see the table at the head of this module."""
        exists: bool | None = False
        try:
            exists = head_finds_blob(self._repository, self._digest)
            if exists:
                return _State.STORED
            status = read_status(self._repository, self._location)
            self._location = status.location
            self._min_chunk_length = status.min_chunk_length
        except (NotFound, BlobUploadInvalid):
            # An upload that was committed is unknown, too. Where HEAD is not supported, only a GET tells.
            is_stored = exists is None and get_finds_blob(self._repository, self._digest)
            return _State.STORED if is_stored else _State.SESSION_LOST
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
        if self._offset == 0 and self._offset_sent == 1:
            self._offset = 1  # 0-0 may be one byte, and one was acknowledged
        return _State.INCOMPLETE if self._offset < self._size else _State.COMPLETE

    def _wait_before_resend(self) -> _State:
        """Wait before the PUT is repeated, as `RetryTransport` does: 0, 1, 2 and 4 seconds."""
        pause = 2.0 ** (self._resends - 1) if self._resends else 0.0
        if self._resends == MAX_RETRIES or not self._pause(pause):
            return _State.GIVEN_UP
        self._resends += 1
        return _State.RESEND

    def _pause(self, seconds: float) -> bool:
        """Sleep. Returns False without sleeping if the deadline is nearer."""
        deadline = self._repository.sender.defaults.deadline
        if deadline is not None and time.monotonic() + seconds >= deadline:
            self._limit = "before the deadline"
            return False
        if seconds:
            time.sleep(seconds)
        self._total_pause += seconds
        return True

    def _elapsed(self) -> float:
        """Seconds since the first fault; not less than all pauses, whatever the clock says."""
        began = time.monotonic() if self._began is None else self._began
        return max(self._total_pause, time.monotonic() - began)

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
    if isinstance(error, TooManyRequests) and (error.retry_after or 0.0) > MAX_WAIT:
        return False
    if isinstance(error, TransportError):
        return not isinstance(error, PERMANENT_ERRORS)
    return is_transient(error)
