"""Uploads a blob in one stream or in chunks. The upload is resumed after a fault, and cancelled if it fails.

Resendable content is sent in one stream. After a fault, or if the registry accepts only smaller requests, the rest is
sent in chunks, from the offset that the registry reports. Single-use content is sent in chunks, and one chunk at a time
is held in memory. The states of `_ResumableUpload`::

    state       event                                           next state
    streaming   2xx                                             committing
                413, 416                                        resuming, in chunks of at most 4 MiB
                a fault                                         resuming
    resuming    the registry reports its offset                 chunks
                the registry reports no offset: 400, 405, 501   a new session
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

A fault is a `TransportError` or a transient status after all retries of the transport. The upload fails at the fourth
fault if there was no progress since the first one. It also fails when a session has to be replaced for the third time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO, TypeVar, final, overload

from .._argument_checks import safe_repr, suggest_options
from .._client.blob_writer import DEFAULT_CHUNK_SIZE, BlobWriter, resume_upload
from .._client.blobs import find_blob, resolve_blob
from .._client.client import Client
from .._client.error_mapping import is_transient
from .._client.repository import Repository, repository_of
from .._client.upload_completion import UploadCompletion
from .._client.uploads import UploadSession, blob_exists, cancel_quietly, open_upload, patch_upload, try_mount
from .._http.body import Body, has_raised, wrap_chunks
from .._oci.descriptor import Descriptor, check_size, is_media_type
from .._oci.digest import Digest
from .._oci.reference import Reference, check_repository
from ..errors import (
    AuthError,
    BlobUploadInvalid,
    BlobUploadUnknown,
    ConnectError,
    DigestInvalid,
    NotFound,
    ProtocolError,
    RangeInvalid,
    ReadError,
    RegistryError,
    TransportTimeout,
    UsageError,
)
from ..media_types import OCTET_STREAM
from ._arguments import OPTIONS_OF_CLIENTS, UPLOAD, bind_arguments, check_number, check_progress, resolve_reference
from ._content import HashingThread, open_content, read_content
from ._progress import ProgressCallback, ProgressReporter

__all__ = ["upload"]

_Result = TypeVar("_Result")
_HASH_FIRST = 4 * 1024 * 1024
"""Maximum size in bytes of content that is hashed before it is sent if no digest is given. This saves a request."""
_SINGLE_PUT = 32 * 1024 * 1024
"""Maximum size in bytes of content that is sent with the closing PUT. Larger content uses PATCH: it can be resumed."""
_MAX_FAULTS = 3
_FAULTS = (ReadError, ConnectError, TransportTimeout, RegistryError)


@overload
def upload(
    client: Client,
    repository: str,
    source: str | os.PathLike[str] | BinaryIO | bytes | Iterable[bytes] | Body,
    *,
    digest: str | Descriptor | None = None,
    chunk_size: int | None = None,
    mount_from: str | None = None,
    media_type: str = OCTET_STREAM,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
def upload(
    reference: str | Reference,
    source: str | os.PathLike[str] | BinaryIO | bytes | Iterable[bytes] | Body,
    *,
    client: Client | None = None,
    digest: str | Descriptor | None = None,
    chunk_size: int | None = None,
    mount_from: str | None = None,
    media_type: str = OCTET_STREAM,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@suggest_options(
    {"part_size": "chunk_size=...", "workers": "no option: an upload has one connection", **OPTIONS_OF_CLIENTS}
)
def upload(
    *args: Any,
    client: Any = None,
    repository: Any = None,
    reference: Any = None,
    source: Any = None,
    digest: str | Descriptor | None = None,
    chunk_size: int | None = None,
    mount_from: str | None = None,
    media_type: str = OCTET_STREAM,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """Upload a blob of any size.

    With a full reference, no client is required: ``upload("ghcr.io/org/app", path)`` opens one and closes it.

    Without a digest, the content is hashed (sha256) in a separate thread while it is sent. With a digest, the blob is
    looked up first (HEAD): if the registry has or mounts it, the content is neither read nor sent. Content that is sent
    with a digest is verified only by the registry.

    If a request fails despite the retries of the transport, the upload is resumed from the offset that the registry
    reports: up to three times without progress, and any number of times if each attempt makes progress. If the registry
    has lost the upload, or computes another digest, resendable content is sent again. If the digests differ, the
    content is also hashed again, so that a file that was modified during the upload is uploaded with its new digest. If
    the registry has all bytes and may still be committing the blob, the call waits up to ten minutes or until the
    deadline. An upload that fails or is interrupted (KeyboardInterrupt) is cancelled if the registry answers within 10
    seconds, even after the client's deadline.

    Uses at most about 20 MiB of memory with the default chunk size, unless the source yields larger chunks.

    Args:
        args: The positional arguments, up to `source`.
        client: Client of the registry. `None` opens a `Client` for the host in the reference, and closes it at the end.
        repository: Name of the repository.
        reference: Reference of the repository, ``HOST/NAME`` or ``HOST/NAME@DIGEST``, instead of `repository`.
        source: Path of a regular file; a seekable binary file, which is read from its current position and not closed;
            bytes; a `Body`; or any reader or iterable of bytes, which is single-use: one chunk is held in memory. Open
            a FIFO, a device or standard input yourself and pass the file object.
        digest: Digest or descriptor of the content, if known. With a descriptor, the size is also verified.
        chunk_size: Number of bytes to send in one request. Defaults to the whole content if it is resendable and the
            registry accepts requests of that size, else to 4 MiB or the largest size that the registry accepts.
        mount_from: Another repository of the registry that may have the blob (specification, "Mounting a blob from
            another repository"). Requires the digest. A blob that is not mounted is uploaded.
        media_type: Media type of the returned descriptor. It is not sent to the registry.
        progress: Called with a `Progress` in the caller's thread. `Progress.done` is the number of bytes that were sent
            or that the registry had, and never decreases; `Progress.total` is `None` if the source is single-use.

    Returns:
        The descriptor of the blob.

    Raises:
        UsageError: An argument is invalid, the path is not a regular file, the source is single-use and was read
            before, or `mount_from` is passed without a digest. Nothing was sent.
        DigestInvalid: The content does not have the given digest; or no digest was given, and the content changed
            during each attempt to send it.
        SizeMismatch: The content became longer or shorter while it was read.
        RegistryError: The registry refused.
        TransportError: There is no usable response, or the deadline has passed.
        OSError: The file cannot be opened or read.
        Exception: The exception that the content or `progress` raised, unchanged.
    """
    names = {"client": client, "repository": repository, "reference": reference, "source": source}
    arguments = bind_arguments(UPLOAD, args, names)
    with ExitStack() as opened:
        client, repository, digest_in_reference = resolve_reference(opened, **arguments)
        target = repository_of(client, repository, "upload")
        known, size = (digest.digest, digest.size) if isinstance(digest, Descriptor) else (digest, None)
        if known is not None and digest_in_reference not in (None, known):
            raise UsageError(f"invalid digest {safe_repr(known)}: expected {digest_in_reference}, as in the reference")
        known = digest_in_reference if known is None else Digest(known)
        if known is not None:
            known.hasher()  # raises if the algorithm is not supported
        elif mount_from is not None:
            raise UsageError("cannot mount without a digest: pass the digest of the blob together with mount_from")
        if mount_from is not None:
            check_repository(mount_from)
        if chunk_size is not None:
            check_number("chunk size", chunk_size)
        if not is_media_type(media_type):
            raise UsageError(f"invalid media type {safe_repr(media_type)}: expected type/subtype without parameters")
        reporter = opened.enter_context(ProgressReporter(check_progress(progress), "upload"))
        body = opened.enter_context(open_content(arguments["source"]))
        check_size("the content", body.length, size)
        stored, session = None if known is None else find_blob(target, known), None
        if known is not None and stored is None and mount_from is not None:
            is_mounted, session = try_mount(target, known, mount_from)
            if is_mounted:
                with suppress(NotFound):  # some registries claim to have mounted a blob that they do not have
                    stored = resolve_blob(target, known, target.push_scope)
        if stored is None:
            stored = _ResumableUpload(target, body, chunk_size, reporter).run(known, session)
        check_size("the content", stored.size, size)
        reporter.report(stored.digest, stored.size, stored.size)
    return Descriptor(media_type, stored.digest, stored.size)


@final
class _ResumableUpload:
    """One upload, in one or more sessions; see the module docstring."""

    def __init__(self, repository: Repository, body: Body, chunk_size: int | None, reporter: ProgressReporter) -> None:
        self._repository = repository
        self._body = body
        self._size = None if body.single_use else body.length
        self._chunk_size = chunk_size
        self._reporter = reporter
        self._reported = -1
        self._threads = ExitStack()
        self._hashing: HashingThread | None = None
        self._digest: Digest | None = None  # None until it is given or all bytes are hashed
        self._location: str | None = None  # URL of the session to cancel if the upload fails
        self._acknowledged, self._faults_left = -1, _MAX_FAULTS  # largest offset; faults allowed until it grows

    def run(self, digest: Digest | None, session: UploadSession | None) -> Descriptor:
        """Upload the content, and return its descriptor. Without a digest, the content is hashed.

        Args:
            digest: Digest of the content, if it is known.
            session: Open upload session to use, if there is one.
        """
        self._digest = digest
        self._location = None if session is None else session.location
        with self._threads:
            try:
                if digest is None and self._size is not None and self._size <= _HASH_FIRST:
                    content = b"".join(read_content(self._body, 0))
                    self._body, self._digest = Body.of(content), Digest.of(content)
                elif digest is None:
                    self._start_hashing()
                size = self._run_with_restarts(session, is_digest_given=digest is not None)
            except BaseException:
                self._cancel()
                raise
        return Descriptor(OCTET_STREAM, self._complete_digest(), size)

    def _run_with_restarts(self, session: UploadSession | None, *, is_digest_given: bool) -> int:
        """Upload the content; open a new session if the registry has lost the session or has other bytes."""
        restarts = 0
        while True:
            try:
                return self._attempt(session)
            except (BlobUploadUnknown, BlobUploadInvalid, DigestInvalid) as error:
                is_digest_wrong = isinstance(error, DigestInvalid)
                if self._size is None or self._is_callers_error(error):
                    raise
                # If the response to a PUT was lost, the PUT may have succeeded. The registry then no longer knows the
                # session.
                if not is_digest_wrong and self._digest is not None and blob_exists(self._repository, self._digest):
                    return self._size
                restarts += 1
                if (is_digest_wrong and is_digest_given) or restarts == _MAX_FAULTS:
                    raise
                self._cancel()
                session = None
                if is_digest_wrong and self._hashing is not None:  # the content may have changed meanwhile
                    self._start_hashing()

    def _start_hashing(self) -> None:
        """Start to hash the content from its first byte, in a new thread."""
        self._threads.close()
        self._hashing, self._digest = HashingThread("sha256"), None
        self._threads.callback(self._hashing.stop)
        self._hashing.start()

    def _attempt(self, session: UploadSession | None) -> int:
        """Upload the content in one session, and return its size."""
        if session is None:
            session = open_upload(self._repository, "sha256" if self._digest is None else self._digest.algorithm)
        self._location = session.location
        size, limit = self._size, self._repository.sender.state.max_chunk_size
        if size is None or self._chunk_size is not None or (limit is not None and size > limit):
            minimum, chunk_size = session.min_chunk_length, self._chunk_size
            writer = BlobWriter(self._repository, session.location, min_chunk_length=minimum, chunk_size=chunk_size)
        elif self._send_stream(session.location, size):
            return size
        else:
            writer = self._resume()
        while True:
            try:
                self._send_chunks(writer)
                return writer.size
            except RangeInvalid as error:  # bytes of an interrupted request arrived later
                if size is None or self._is_callers_error(error):
                    raise
                self._spend_fault(error, writer.flushed)
                writer = self._resume()

    def _send_stream(self, location: str, size: int) -> bool:
        """Send the whole content and close the session. Return false if the upload must be resumed."""
        body = wrap_chunks(self._body, self._hash_and_report)
        try:
            if self._digest is not None and size <= _SINGLE_PUT:
                completion = UploadCompletion(self._repository, location, self._digest, body if size else None)
            else:
                # Not idempotent: the offset must be requested before the PATCH is repeated. Like docker, send no
                # Content-Range: some registries treat a PATCH with Content-Range as a chunk, and accept only small
                # chunks.
                self._location = patch_upload(self._repository, location, body, idempotent=False)
                completion = UploadCompletion(self._repository, self._location, self._complete_digest(), None, size)
            incomplete = completion.run()
        except _FAULTS as error:
            if has_raised(body, error):
                raise
            # Some registries respond with 416 instead of 413 to a request that is too large.
            if not (isinstance(error, RegistryError) and error.status in (413, 416)):
                self._spend_fault(error, 0)
            elif size > DEFAULT_CHUNK_SIZE:
                self._repository.sender.state.record_max_chunk(DEFAULT_CHUNK_SIZE)
            return False
        if incomplete is None:
            return True
        if incomplete.offset is None:
            raise incomplete.error()
        self._location = incomplete.location
        self._spend_fault(incomplete.fault, incomplete.offset)
        return False

    def _hash_and_report(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        position = 0
        for chunk in chunks:
            if self._hashing is not None:
                self._hashing.feed(position, chunk)
            position += len(chunk)
            self._report(position)
            yield chunk

    def _resume(self) -> BlobWriter:
        """Return a writer that continues at the offset that the registry reports."""
        while True:
            try:
                # `resume_upload` does not raise `UsageError`, because the location was validated when it was received.
                return resume_upload(self._repository, self._location or "", None, self._chunk_size)
            except _FAULTS as error:
                if isinstance(error, RegistryError) and error.status in (400, 405, 501):
                    # The registry (Pulp, for example) does not support GET of an upload, so the offset is unknown. The
                    # caller opens a new session.
                    raise BlobUploadUnknown("the registry does not report the offset of the upload") from error
                self._spend_fault(error, 0)

    def _send_chunks(self, writer: BlobWriter) -> None:
        """Send the rest of the content in chunks, and commit the blob."""
        writer.disable_hashing()  # the content is hashed in the hashing thread
        position = writer.size
        if self._size is not None:
            sent = self._size if self._hashing is None else min(self._size, self._hashing.fed)
            if position > sent:
                raise ProtocolError(f"the registry has {position} bytes of the upload, expected at most {sent}")
        self._report(position)
        chunk, start = b"", position

        def write() -> int:
            # Write only the rest of the chunk: a part may have been written before a fault.
            return writer.write(memoryview(chunk)[writer.size - start :])

        for chunk in read_content(self._body, position):
            start = writer.size
            if self._hashing is not None:
                self._hashing.feed(start, chunk)
            self._retry(writer, write)
            self._report(writer.flushed)
        incomplete = self._retry(writer, lambda: writer.try_commit(self._complete_digest()))
        if incomplete is None:
            return
        if incomplete.offset is not None:
            raise RangeInvalid("the registry has fewer bytes of the upload than it acknowledged") from incomplete.fault
        raise incomplete.error()

    def _retry(self, writer: BlobWriter, action: Callable[[], _Result]) -> _Result:
        """Call a method of the writer, repeat the call after each fault, and return the result."""
        while True:
            try:
                return action()
            except _FAULTS as error:
                if isinstance(error, RangeInvalid):
                    raise
                self._spend_fault(error, writer.flushed)
            finally:
                self._location = writer.id

    def _spend_fault(self, error: Exception, acknowledged: int) -> None:
        """Count a fault; raise it if it is permanent, the deadline has passed or there were too many faults.

        Args:
            error: The fault.
            acknowledged: Number of bytes that the registry has acknowledged. The count restarts when it increases.
        """
        deadline = self._repository.sender.defaults.deadline
        is_late = deadline is not None and time.monotonic() >= deadline
        is_passing = isinstance(error, RangeInvalid) or is_transient(error) or not isinstance(error, RegistryError)
        if acknowledged > self._acknowledged:
            self._acknowledged, self._faults_left = acknowledged, _MAX_FAULTS
        if is_late or not is_passing or isinstance(error, AuthError) or self._faults_left == 0:
            raise error
        self._faults_left -= 1

    def _report(self, done: int) -> None:
        """Report that `done` bytes were sent. Smaller numbers than before, after bytes are resent, are not reported."""
        done = done if self._size is None else min(done, self._size)
        if done > self._reported:
            self._reported = done
            self._reporter.report(self._digest, done, self._size)

    def _complete_digest(self) -> Digest:
        """Return the digest of the content. Call it after all bytes were sent."""
        if self._digest is None and self._hashing is not None:
            self._digest = self._hashing.digest()
        return self._digest  # type: ignore[return-value]  # without a given digest the content is hashed

    def _is_callers_error(self, error: BaseException) -> bool:
        """Return whether the progress callback or the content raised the exception. It is not a fault then."""
        return error is self._reporter.error or has_raised(self._body, error)

    def _cancel(self) -> None:
        location, self._location = self._location, None
        if location is not None:
            cancel_quietly(self._repository, location)
