"""Sends an upload: in one stream or in chunks, resumed after a fault, and cancelled if it fails.

A content that can be sent again goes out in one stream; after a fault, or if the registry accepts only smaller
requests, the rest follows in chunks from the registry's offset. A content that can be read only once goes out in
chunks, one of which is held in memory. What `ResumableUpload` does next::

    state       event                                           next state
    streaming   2xx                                             committing
                413, 416                                        resuming, in chunks of at most 4 MiB
                a fault                                         resuming
    resuming    the registry reports its offset                 chunks
                it does not support that: 400, 405, 501         a new session
                a fault                                         resuming
    chunks      all bytes are acknowledged                      committing
                416 with another offset                         resuming
                a fault                                         chunks (the same one again)
    committing  201                                             done
                the registry has fewer bytes than were sent     resuming
                a fault                                         committing
    any         the session is unknown or has other bytes       done if a HEAD finds the blob, else a new session
                the digest is refused                           a new session, hashed again
                any other error, or one fault too many          failed: the session is cancelled

A fault is a `TransportError` or a transient status after all retries of the transport. Any number of faults is
tolerated with progress between them, three without; so are three sessions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import final

from .._client.blob_writer import DEFAULT_CHUNK_SIZE, BlobWriter, resume_upload
from .._client.error_mapping import is_transient
from .._client.repository import Repository
from .._client.upload_completion import UploadCompletion
from .._client.uploads import (
    UploadSession,
    blob_exists,
    cancel_quietly,
    open_upload,
    patch_upload,
)
from .._http.body import has_raised, wrap_chunks
from .._oci.digest import Digest
from ..errors import (
    AuthError,
    BlobUploadInvalid,
    BlobUploadUnknown,
    ConnectError,
    DigestInvalid,
    ProtocolError,
    RangeInvalid,
    ReadError,
    RegistryError,
    TransportTimeout,
)
from ._content import Content
from ._hashing import HashingThread
from ._progress import ProgressTracker

__all__ = ["ResumableUpload"]

_HASH_FIRST = 4 * 1024 * 1024
"""Maximum size in bytes of a content without digest that is hashed before it is sent: that saves a request."""
_SINGLE_PUT = 32 * 1024 * 1024
"""Maximum size in bytes of a content that is sent with the closing PUT. A PATCH can be resumed."""
_MAX_FAULTS = 3
_FAULTS = (ReadError, ConnectError, TransportTimeout, RegistryError)


@final
class _FaultBudget:
    """Tolerates faults: any number with progress between them, three without."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._furthest = -1
        self._remaining = _MAX_FAULTS

    def spend(self, error: Exception, acknowledged: int) -> None:
        """Tolerate a fault with so many bytes acknowledged; raises it if it will not pass, or if there are too many."""
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        may_pass = isinstance(error, RangeInvalid) or is_transient(error) or not isinstance(error, RegistryError)
        if acknowledged > self._furthest:
            self._furthest, self._remaining = acknowledged, _MAX_FAULTS
        if is_late or not may_pass or isinstance(error, AuthError) or self._remaining == 0:
            raise error
        self._remaining -= 1


@final
class _HashingTap:
    """Hashes what passes by on its way to the socket, and reports the progress. For `wrap_chunks`."""

    def __init__(self, hashing: HashingThread | None, tracker: ProgressTracker) -> None:
        self._hashing = hashing
        self._tracker = tracker

    def __call__(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        position = 0
        for chunk in chunks:
            if self._hashing is not None:
                self._hashing.feed(position, chunk)
            position += len(chunk)
            self._tracker.advance(position)
            yield chunk


@final
class ResumableUpload:
    """One upload, in one or more sessions; see the head of the module."""

    def __init__(
        self, repository: Repository, content: Content, chunk_size: int | None, tracker: ProgressTracker
    ) -> None:
        self._repository = repository
        self._content = content
        self._chunk_size = chunk_size
        self._tracker = tracker
        self._threads = ExitStack()
        self._hashing: HashingThread | None = None
        self._digest: Digest | None = None  # known from the caller, or once all bytes are hashed
        self._location: str | None = None  # of a session that must be cancelled if the upload fails
        self._faults = _FaultBudget(repository.sender.defaults.deadline)

    def run(self, digest: Digest | None, session: UploadSession | None = None) -> tuple[Digest, int]:
        """Send the content, which is hashed if it has no digest yet, and return its digest and size."""
        self._digest = digest
        self._location = None if session is None else session.location
        with self._threads:
            try:
                if digest is None and self._content.size is not None and self._content.size <= _HASH_FIRST:
                    held = b"".join(self._content.read_from(0))
                    self._content, self._digest = Content(held), Digest.of(held)
                elif digest is None:
                    self._start_hashing()
                return self._run_with_restarts(session, is_digest_given=digest is not None)
            except BaseException:
                self._cancel()
                raise

    def _start_hashing(self) -> None:
        """Hash from the first byte on."""
        self._threads.close()
        self._hashing, self._digest = self._threads.enter_context(HashingThread("sha256")), None

    def _run_with_restarts(self, session: UploadSession | None, *, is_digest_given: bool) -> tuple[Digest, int]:
        """Upload the content; in a new session if the registry has lost the session or has other bytes."""
        restarts = 0
        while True:
            try:
                return self._attempt(session)
            except (BlobUploadUnknown, BlobUploadInvalid, DigestInvalid) as error:
                is_digest_wrong = isinstance(error, DigestInvalid)
                if self._is_callers_error(error):
                    raise
                # A session that was committed is unknown: the PUT whose response was lost may have succeeded.
                size = None if is_digest_wrong or self._digest is None else self._content.size
                if size is not None and blob_exists(self._repository, self._complete_digest()):
                    return self._complete_digest(), size
                restarts += 1
                is_useless = (is_digest_wrong and is_digest_given) or not self._content.resendable
                if is_useless or restarts == _MAX_FAULTS:
                    raise
                self._cancel()
                session = None
                if is_digest_wrong and self._hashing is not None:  # the content may have changed meanwhile
                    self._start_hashing()

    def _attempt(self, session: UploadSession | None) -> tuple[Digest, int]:
        """Upload the content in one session."""
        if session is None:
            session = open_upload(self._repository, "sha256" if self._digest is None else self._digest.algorithm)
        self._location = session.location
        size, limit = self._content.size, self._repository.sender.state.max_chunk_size
        if size is None or self._chunk_size is not None or (limit is not None and size > limit):
            minimum = session.min_chunk_length
            writer = BlobWriter(
                self._repository, session.location, min_chunk_length=minimum, chunk_size=self._chunk_size
            )
        elif self._send_stream(session.location, size):
            return self._complete_digest(), size
        else:
            writer = self._resume()
        while True:
            try:
                return self._send_chunks(writer)
            except RangeInvalid as error:  # more of what was sent before has arrived meanwhile
                if not self._content.resendable or self._is_callers_error(error):
                    raise
                self._faults.spend(error, writer.flushed)
                writer = self._resume()

    def _send_stream(self, location: str, size: int) -> bool:
        """Send all of the content and close the session. Returns false if it must be resumed."""
        body = wrap_chunks(self._content.body, _HashingTap(self._hashing, self._tracker))
        try:
            if self._digest is not None and size <= _SINGLE_PUT:
                completion = UploadCompletion(self._repository, location, self._digest, body if size else None)
            else:
                # Not idempotent: before it is repeated, the registry must be asked what has arrived. No Content-Range,
                # as docker sends it: with one it is a chunk, and some registries accept only small ones.
                self._location = patch_upload(self._repository, location, body, idempotent=False)
                completion = UploadCompletion(self._repository, self._location, self._complete_digest(), None, size)
            incomplete = completion.run()
        except _FAULTS as error:
            if has_raised(body, error):
                raise
            if not (isinstance(error, RegistryError) and error.status in (413, 416)):  # 416: sent for too much, too
                self._faults.spend(error, 0)
            elif size > DEFAULT_CHUNK_SIZE:
                self._repository.sender.state.record_max_chunk(DEFAULT_CHUNK_SIZE)
            return False
        if incomplete is None:
            return True
        if incomplete.offset is None:
            raise incomplete.error()
        self._location = incomplete.location
        self._faults.spend(incomplete.fault, incomplete.offset)
        return False

    def _resume(self) -> BlobWriter:
        """Return a writer at the offset of the registry."""
        while True:
            try:
                # `resume_upload` refuses an id that is not a usable URL; the registry's own location always is.
                return resume_upload(self._repository, self._location or "", None, self._chunk_size)
            except _FAULTS as error:
                if isinstance(error, RegistryError) and error.status in (400, 405, 501):
                    # A registry without a GET of uploads (Pulp): its offset is not known, so start again.
                    raise BlobUploadUnknown("the registry does not tell how much of the upload it has") from error
                self._faults.spend(error, 0)

    def _send_chunks(self, writer: BlobWriter) -> tuple[Digest, int]:
        """Send the rest in chunks, and commit."""
        writer.disable_hashing()  # it would hash in this thread
        position = writer.size
        if position > (self._content.size or 0) and self._content.resendable:
            raise ProtocolError(f"the registry has {position} bytes of an upload of {self._content.size}")
        if self._hashing is not None and position > self._hashing.fed:
            raise ProtocolError(f"the registry has {position} bytes, and was sent {self._hashing.fed}")
        self._tracker.advance(position)
        for chunk in self._content.read_from(position):
            if self._hashing is not None:
                self._hashing.feed(writer.size, chunk)
            start = writer.size
            while writer.size < start + len(chunk):
                with self._tolerate(writer):
                    writer.write(memoryview(chunk)[writer.size - start :])
            self._tracker.advance(writer.flushed)
        is_over = False
        while not is_over:
            with self._tolerate(writer):
                incomplete = writer.try_commit(self._complete_digest())
                is_over = True
        if incomplete is None:
            return self._complete_digest(), writer.size
        if incomplete.offset is not None:
            raise RangeInvalid("the registry has fewer bytes of the upload than it acknowledged") from incomplete.fault
        raise incomplete.error()

    @contextmanager
    def _tolerate(self, writer: BlobWriter) -> Iterator[None]:
        """Tolerate a fault after which the same writer can go on."""
        try:
            yield
        except _FAULTS as error:
            if isinstance(error, RangeInvalid):
                raise
            self._faults.spend(error, writer.flushed)
        finally:
            self._location = writer.id

    def _complete_digest(self) -> Digest:
        """Return the digest, once all bytes were sent."""
        if self._digest is None and self._hashing is not None:
            self._digest = self._hashing.digest()
        return self._digest  # type: ignore[return-value]  # without a given digest the content is hashed

    def _is_callers_error(self, error: BaseException) -> bool:
        """Whether the progress callback or the content has raised an exception, whatever its type."""
        return self._tracker.has_raised(error) or self._content.has_raised(error)

    def _cancel(self) -> None:
        location, self._location = self._location, None
        if location is not None:
            cancel_quietly(self._repository, location)
