"""The steps of an upload, as requests: opened by a POST, asked how far it is, closed by a PUT.

Follows the OCI distribution specification, "Pushing blobs", and what registries do instead of it.

The PUT that closes an upload may outlast every timeout: a registry may need minutes to commit a large blob, and a proxy
in front of it answers 502, 504 or 524, or closes the connection, while the registry goes on. Repeating the PUT then
disturbs the commit (GHCR loses the upload), so that `UploadCompletion` finds out what became of it first::

    HEAD of the blob    GET of the upload        what follows
    found               -                        done
    not found           not found                the upload is gone: start again, if the body can be sent again
    not supported       not found                a GET of the blob's first byte tells which of the two it is
    not found           fewer bytes than sent    resume at once
    not found           all bytes                poll, up to ten minutes or the deadline; after a fault that suggests
                                                 that the registry is not at work (see `_patience`), send the PUT again
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from enum import Enum
from typing import NamedTuple, final
from urllib.parse import urlencode

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
from .session import Session, refusal_means_missing

__all__ = [
    "OPENED",
    "PATCHED",
    "UploadCompletion",
    "IncompleteUpload",
    "cancel",
    "is_there",
    "open_upload",
    "opens_upload",
    "read_status",
    "smallest_chunk",
    "uploaded",
]

PATCHED = (200, 201, 202, 204)
"""The statuses of a PATCH that was stored: 202 by the specification, 201 by ECR, 204 by Pulp, 200 by others."""
OPENED = tuple(range(200, 300))
"""The statuses of a POST that may have opened an upload: what counts is a usable Location."""

MAX_CHUNK = 1024 * 1024 * 1024
"""The largest chunk that a registry may ask for, in bytes: a chunk is held in memory."""
_LONGEST_COMMIT = 600.0
"""Maximum time in seconds to wait for a registry that has all bytes of an upload."""
_GRACE = 60.0
"""The same after a fault that says neither that the registry is at work nor that it is not."""
_LONGEST_PAUSE = 30.0
_MAX_RESENDS = 4
"""Maximum number of repetitions of the closing PUT, as in `RetryTransport`."""
_MAX_FAILED_POLLS = 3
"""Maximum number of consecutive polls that fail, each after the retries of the transport."""
_LONGEST_RETRY_AFTER = 60.0
"""Maximum Retry-After of a 429 in seconds that is waited for, as in `RetryTransport`."""

# 0-99, bytes=0-99, bytes 0-99, 0-99/*, 0-99/100: what counts is the last byte.
_RANGE = re.compile(r"(?:bytes[= ])?\s*[0-9]{1,18}-([0-9]{1,18})(?:/.*)?")


def open_upload(session: Session, operation: str, repository: str, algorithm: str) -> Response:
    """Open an upload with a POST (specification, "Pushing blobs"); returns its answer, closed.

    An algorithm other than sha256 is announced (``digest-algorithm=``), so that the registry hashes with it.
    """
    path = f"/v2/{repository}/blobs/uploads/"
    url = path if algorithm == "sha256" else query(path, {"digest-algorithm": algorithm})
    scope = Scope.repository(repository, "pull", "push")
    opened = session.send(operation, "POST", url, scope, ok=OPENED, idempotent=True)
    opened.drain()
    return opened


def read_status(session: Session, operation: str, repository: str, url: str) -> Response:
    """GET an upload; returns the response, closed. `uploaded` reads the number of bytes from it.

    Raises:
        BlobUploadUnknown: The upload is over, or the registry has given it up.
        ContentError: The answer is an HTML page.
        RegistryError: The registry refused.
        TransportError: There is no usable answer.
    """
    scope = Scope.repository(repository, "pull", "push")
    with session.send(operation, "GET", url, scope, ok=(200, 202, 204)) as response:
        check_not_html(response)
        response.drain()
    return response


def opens_upload(response: Response, digest: Digest) -> bool:
    """Return whether the 2xx answer to a POST with ``mount=``, neither 201 nor 202, has opened an upload.

    It has if it has a Location that is not the blob itself.
    """
    return "location" in response.headers and not names_digest(response, digest)


def query(url: str, parameters: dict[str, str]) -> str:
    """A URL with more parameters in its query."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters, safe=':')}"


def smallest_chunk(response: Response) -> int:
    """What OCI-Chunk-Min-Length demands, in bytes; 0 where it is absent or garbage.

    Raises:
        ProtocolError: It is more than a client can be asked to hold in memory.
    """
    stated = response.headers.get("oci-chunk-min-length", "").strip()
    least = int(stated) if re.fullmatch(r"[0-9]{1,18}", stated) else 0
    if least > MAX_CHUNK:
        raise ProtocolError(f"the registry wants chunks of {least} bytes, too many to hold", request=response.request)
    return least


def uploaded(response: Response) -> int:
    """How many bytes an upload has, by its Range; 0 where there is none, and for ``0-0``, which may be 0 or 1."""
    match = _RANGE.fullmatch(response.headers.get("range", "").strip())
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


class IncompleteUpload(NamedTuple):
    """An upload whose closing PUT failed, and what the registry has of it.

    Attributes:
        fault: The failure of the PUT.
        location: The URL of the upload; None if the registry does not have it any more.
        offset: The number of bytes that the registry has, if it has fewer than were sent. None if it has all of them,
            or does not tell: then waiting and repeating the PUT did not help.
        minimum: The length of the smallest chunk that the registry takes, in bytes.
    """

    fault: OciwireError
    location: str | None
    offset: int | None
    minimum: int = 0

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
        session: What sends.
        operation: The client's operation.
        repository: The repository's name.
        url: The upload's URL.
        digest: The digest of the whole.
        body: The content that goes with the PUT.
        first: The position of its first byte: how many bytes were sent before. At 0 there is no Content-Range, which
            some registries refuse.
    """

    def __init__(
        self,
        session: Session,
        operation: str,
        repository: str,
        url: str,
        digest: Digest,
        body: Body | None = None,
        first: int = 0,
    ) -> None:
        self._session = session
        self._operation = operation
        self._repository = repository
        self._url = url
        self._digest = digest
        self._body = body
        self._first = first
        self._size = first + ((body.length or 0) if body is not None else 0)
        self._offset = self._minimum = 0
        self._resends = 0
        self._began: float | None = None
        self._paused = 0.0
        self._limit = ""  # why the wait ended, for the message
        self._failure: OciwireError | None = None  # of the last poll, if the wait ended because of it

    def run(self) -> IncompleteUpload | None:
        """Send the PUT.

        Returns:
            None if the registry has the blob; else the state of the upload.

        Raises:
            RegistryError: The registry refused.
            ContentError: The answer is an HTML page.
            TransportError: There is no usable answer, and waiting does not help.
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
                return IncompleteUpload(fault, self._url, self._offset, self._minimum)
            if state is _State.GIVEN_UP:
                return IncompleteUpload(self._error(fault), self._url, None)

    def _put(self) -> OciwireError | None:
        """Send the PUT once; returns a transient fault, or None."""
        headers = {"Content-Type": OCTET_STREAM}
        if self._first and self._body is not None and self._body.length:
            headers["Content-Range"] = f"{self._first}-{self._first + self._body.length - 1}"
        scope = Scope.repository(self._repository, "pull", "push")
        try:
            self._session.put(
                self._operation,
                query(self._url, {"digest": self._digest}),
                scope,
                self._digest,
                self._body,
                is_stored=lambda: _is_stored(self._session, self._operation, self._repository, self._digest),
                headers=headers,
                idempotent=False,
            )
        except (NotFound, BlobUploadInvalid):
            # An upload that was committed is unknown: an earlier PUT may have succeeded.
            if not is_there(self._session, self._operation, self._repository, self._digest, confirm=True):
                raise
        except (TransportError, RegistryError) as error:
            if not _is_temporary(error) or (self._body is not None and self._body.raised(error)):
                raise
            return error
        return None

    def _determine_state(self, fault: OciwireError) -> _State:
        """Find out what became of the upload, and whether the PUT is to be repeated."""
        self._began = time.monotonic() if self._began is None else self._began
        deadline = self._session.defaults.deadline
        if deadline is not None and time.monotonic() >= deadline:
            return _State.GIVEN_UP
        if is_connect_failure(fault):  # nothing was sent: there is nothing to find out
            return self._wait_before_resend()
        state = self._poll_for(_patience(fault))
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
            left = min(seconds - (self._elapsed() - began), _LONGEST_COMMIT - self._elapsed())
            if failed == _MAX_FAILED_POLLS or (failed and left <= 0):
                return _State.GIVEN_UP
            self._failure = None
            if self._elapsed() >= _LONGEST_COMMIT:
                self._limit = f"within {_LONGEST_COMMIT:.0f} s"
                return _State.GIVEN_UP
            if left <= 0:
                return state
            pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE, left)
            if not self._pause(pause):
                return _State.GIVEN_UP

    def _poll(self) -> _State:
        found: bool | None = False
        try:
            found = _head(self._session, self._operation, self._repository, self._digest)
            if found:
                return _State.STORED
            status = read_status(self._session, self._operation, self._repository, self._url)
            if "location" in status.headers:
                self._url = self._session.location(status)
            self._minimum = smallest_chunk(status)
        except (NotFound, BlobUploadInvalid):
            # An upload that was committed is unknown, too. Where HEAD is not supported, only a GET tells.
            is_stored = found is None and _has_first_byte(
                self._session, self._operation, self._repository, self._digest
            )
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
        self._offset = uploaded(status)
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
        deadline = self._session.defaults.deadline
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


def _patience(fault: OciwireError) -> float:
    """Seconds for which a registry that has all bytes is polled before the closing PUT is repeated."""
    if isinstance(fault, RegistryError):
        if fault.status in (504, 524):  # a proxy did not wait for the registry, which goes on
            return _LONGEST_COMMIT
        if fault.status in (408, 429, 500, 503, 521, 522, 523):  # the registry is not at work, or was not reached
            return 0.0
    return _LONGEST_COMMIT if isinstance(fault, TransportTimeout) else _GRACE


def _is_temporary(error: OciwireError) -> bool:
    if isinstance(error, TooManyRequests) and (error.retry_after or 0.0) > _LONGEST_RETRY_AFTER:
        return False
    if isinstance(error, TransportError):
        return not isinstance(error, (AuthError, BodyConsumedError, RedirectError))
    return is_transient(error)


def cancel(session: Session, operation: str, repository: str, url: str) -> None:
    """Cancel an upload (specification, "Canceling an upload"); one that is gone is no error."""
    scope = Scope.repository(repository, "pull", "push")
    with suppress(NotFound):
        session.send(operation, "DELETE", url, scope, ok=(200, 202, 204), idempotent=True).drain()


def is_there(session: Session, operation: str, repository: str, digest: Digest, *, confirm: bool = False) -> bool:
    """Return whether a HEAD finds a blob, to decide whether to upload it.

    Any refusal means that it is not there, and so does an HTML page that does not name the digest.

    Args:
        session: What sends.
        operation: The client's operation.
        repository: The repository's name.
        digest: The blob's digest.
        confirm: Whether a GET decides if HEAD is not supported, because the blob may have been stored a moment ago.

    Raises:
        RegistryError: The registry cannot answer now.
        TransportError: There is no usable answer.
    """
    found = _head(session, operation, repository, digest)
    if found is None and confirm:
        return _has_first_byte(session, operation, repository, digest)
    return bool(found)


def _head(session: Session, operation: str, repository: str, digest: Digest) -> bool | None:
    """Return whether a HEAD finds a blob; `None` if it is refused and HEAD may not be supported. A 404 is believed."""
    scope = Scope.repository(repository, "pull", "push")
    with refusal_means_missing():
        try:
            response = session.head(operation, f"/v2/{repository}/blobs/{digest}", scope)
        except RegistryError as refusal:
            if refusal.status != 404 and session.needs_confirmation(refusal):
                return None
            raise
        return not is_labelled_html(response) or names_digest(response, digest)
    return False


def _is_stored(session: Session, operation: str, repository: str, digest: Digest) -> bool:
    """Return whether a HEAD or else a GET of its first byte finds a blob."""
    return is_there(session, operation, repository, digest) or _has_first_byte(session, operation, repository, digest)


def _has_first_byte(session: Session, operation: str, repository: str, digest: Digest) -> bool:
    scope = Scope.repository(repository, "pull", "push")
    try:
        # 416: the blob is empty
        ok, headers = (200, 206, 416), {"Range": "bytes=0-0"}
        response = session.send(operation, "GET", f"/v2/{repository}/blobs/{digest}", scope, ok=ok, headers=headers)
    except RegistryError:
        return False
    with response:
        return not is_html(response)
