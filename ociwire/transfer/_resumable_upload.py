"""How an upload goes out: in one stream or in chunks, gone on with after a fault, and cancelled where it fails.

What can be had again goes out in one stream, and after a fault, or where a registry takes no more at a time, in chunks
from where the registry is. What can be read only once goes out in chunks, of which one is held.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import final

from .._client.blob_writer import DEFAULT_CHUNK_SIZE, BlobWriter
from .._client.client import Client
from .._client.uploads import UploadSession
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
from ._progress import Progress, Teller
from ._repository import Repository, is_transient

__all__ = ["Meter", "Outgoing"]

_SMALL = 4 * 1024 * 1024
"""Up to so many bytes, what has no digest is hashed before it is sent: that saves a request."""
_ONE_PUT = 32 * 1024 * 1024
"""Up to so many bytes, what has a digest goes out in the PUT that closes the upload; a PATCH can be gone on with."""
_FAULTS = 3
"""How many faults in a row, with nothing acknowledged between them, end an upload; each has had the stack's retries."""
_MAY_PASS = (ReadError, ConnectError, TransportTimeout, RegistryError)


@final
class Meter:
    """Tells how far an upload is; never less than before.

    Args:
        tell: Who is told.
        digest: What is uploaded, if that is known.
        total: How many bytes it has, if that is known.
    """

    def __init__(self, tell: Teller, digest: Digest | None, total: int | None) -> None:
        self._teller = tell
        self._digest = digest
        self._total = total
        self._done = -1

    def at(self, position: int) -> None:
        """So many bytes went out; where that is less than before, it is not told."""
        done = position if self._total is None else min(position, self._total)
        if done > self._done:
            self._done = done
            self._tell()

    def end(self, digest: Digest, size: int) -> None:
        """It is done; told, unless the last event said the same."""
        if (self._digest, self._done, self._total) != (digest, size, size):
            self._digest, self._done, self._total = digest, size, size
            self._tell()

    def raised(self, error: BaseException) -> bool:
        """Whether an exception came from who is told."""
        return error is self._teller.raised

    def _tell(self) -> None:
        self._teller(Progress("upload", self._digest, self._done, self._total))


@final
class _Patience:
    """How many faults are borne: any number with progress between them."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._furthest = -1
        self._left = _FAULTS

    def spend(self, error: Exception, acknowledged: int) -> None:
        """Bear one; raises it if it is none that passes, or one too many."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        if late or not _passes(error):
            raise error
        if acknowledged > self._furthest:
            self._furthest, self._left = acknowledged, _FAULTS
        if self._left == 0:
            raise error
        self._left -= 1


@final
class _Sent:
    """Between the content and the wire: hashes what goes by, once, and tells how far it is. For `wrap_chunks`."""

    def __init__(self, hashing: HashingThread | None, meter: Meter) -> None:
        self._hashing = hashing
        self._meter = meter

    def __call__(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        position = 0
        for chunk in chunks:
            if self._hashing is not None:
                self._hashing.feed(position, chunk)
            position += len(chunk)
            self._meter.at(position)
            yield chunk


@final
class Outgoing:
    """One upload, from its POST to its end.

    Args:
        client: The registry's.
        repository: Where to.
        content: What.
        chunk_size: How many bytes are sent at a time; None is as much as is taken.
        meter: Is told how far it is.
    """

    def __init__(
        self, client: Client, repository: Repository, content: Content, chunk_size: int | None, meter: Meter
    ) -> None:
        self._client = client
        self._repository = repository
        self._content = content
        self._chunk_size = chunk_size
        self._meter = meter
        self._threads = ExitStack()
        self._hashing: HashingThread | None = None
        self._digest: Digest | None = None
        self._given = False  # the digest is the caller's: if it is wrong, sending again is of no use
        self._location: str | None = None
        self._patience = _Patience(repository.deadline)

    def run(self, digest: Digest | None, opened: UploadSession | None = None) -> tuple[Digest, int]:
        """Send it, and hash it where its digest is not given; see `ociwire.transfer.upload`.

        Args:
            digest: What it is, if that is known.
            opened: An upload that was opened for it; None is to open one.

        Returns:
            What it is, and how many bytes.
        """
        self._given = digest is not None
        self._location = None if opened is None else opened.location
        with self._threads:
            try:
                self._digest = self._hashed_first() if digest is None else digest
                if self._digest is None:
                    self._hash_afresh()
                return self._anew(opened)
            except BaseException:
                self._cancel()
                raise

    def _hashed_first(self) -> Digest | None:
        """The digest of a content that is small, which is held from now on; None for any other."""
        if self._content.size is None or self._content.size > _SMALL:
            return None
        held = b"".join(self._content.rest(0))
        self._content = Content(held)
        return Digest.of(held)

    def _hash_afresh(self) -> None:
        """Have what goes out from now on hashed, from its beginning."""
        self._threads.close()
        self._hashing, self._digest = self._threads.enter_context(HashingThread("sha256")), None

    def _anew(self, opened: UploadSession | None) -> tuple[Digest, int]:
        """Upload it, and again from the start where the registry has lost what it had of it, or has other bytes."""
        for tries_left in reversed(range(_FAULTS)):
            try:
                return self._once(opened)
            except (BlobUploadUnknown, BlobUploadInvalid, DigestInvalid) as error:
                wrong = isinstance(error, DigestInvalid)
                if self._is_callers(error):
                    raise
                if not wrong and self._is_there():
                    return self._result(self._content.size)
                if (wrong and self._given) or not tries_left or not self._content.resendable:
                    raise
                self._cancel()
                opened = None
                if wrong and self._hashing is not None:  # what was hashed may not be what the file has by now
                    self._hash_afresh()
        raise AssertionError("the last try returns or raises")

    def _is_callers(self, error: BaseException) -> bool:
        """Whether it is nothing that the registry said, whatever its type."""
        return self._meter.raised(error) or self._content.raised(error)

    def _is_there(self) -> bool:
        # An upload that is over is unknown: a PUT whose answer was lost may have succeeded.
        known = self._digest is not None and self._content.size is not None
        return known and self._repository.has_blob(self._known())

    def _once(self, opened: UploadSession | None) -> tuple[Digest, int]:
        if opened is None:
            opened = self._repository.open_upload("sha256" if self._digest is None else self._digest.algorithm)
        self._location = opened.location
        if not self._streams():
            writer = self._repository.writer(opened, self._chunk_size)
        elif self._stream():
            return self._result(self._content.size)
        else:
            writer = self._resumed()
        return self._in_chunks(writer)

    def _streams(self) -> bool:
        """Whether it goes out all at once: it can be sent again, and the registry is not known to take less."""
        size, largest = self._content.size, self._repository.largest_chunk
        return size is not None and self._chunk_size is None and (largest is None or size <= largest)

    def _stream(self) -> bool:
        """Send it all at once, and close the upload; False if it has to be gone on with in chunks."""
        body = wrap_chunks(self._content.body, _Sent(self._hashing, self._meter))
        try:
            if self._digest is not None and (body.length or 0) <= _ONE_PUT:
                unfinished = self._repository.put(self._location or "", self._known(), body if body.length else None)
            else:
                self._location = self._repository.patch(self._location or "", body)
                first = body.length or 0
                unfinished = self._repository.put(self._location, self._known(), None, first)
        except _MAY_PASS as error:
            if has_raised(body, error):
                raise
            if not _is_too_much(error):
                self._patience.spend(error, 0)
            elif (body.length or 0) > DEFAULT_CHUNK_SIZE:
                self._repository.takes_no_more_than(DEFAULT_CHUNK_SIZE)
            return False
        if unfinished is None:
            return True
        if unfinished.offset is None:
            raise unfinished.error()
        self._location = unfinished.location
        self._patience.spend(unfinished.fault, unfinished.offset)
        return False

    def _resumed(self) -> BlobWriter:
        """A writer from where the registry is."""
        while True:
            try:
                location = self._location or ""
                return self._client.push_blob_chunked_resume(self._repository.name, location, None, self._chunk_size)
            except _MAY_PASS as error:
                if isinstance(error, RegistryError) and error.status in (400, 405, 501):
                    # A registry without a GET of uploads (Pulp): how much it has is not known, so start again.
                    raise BlobUploadUnknown("the registry does not tell how much of the upload it has") from error
                self._patience.spend(error, 0)

    def _in_chunks(self, writer: BlobWriter) -> tuple[Digest, int]:
        while True:
            try:
                return self._written(writer)
            except RangeInvalid as error:  # more of what was sent before has arrived meanwhile
                if not self._content.resendable or self._is_callers(error):
                    raise
                self._patience.spend(error, writer.flushed)
                writer = self._resumed()

    def _written(self, writer: BlobWriter) -> tuple[Digest, int]:
        """Write what is left of it, and commit."""
        writer.disable_hashing()  # it would be done in this thread
        position = writer.size
        if position > (self._content.size or 0) and self._content.resendable:
            raise ProtocolError(f"the registry has {position} bytes of an upload of {self._content.size}")
        if self._hashing is not None and position > self._hashing.fed:
            raise ProtocolError(f"the registry has {position} bytes, and was sent {self._hashing.fed}")
        self._meter.at(position)
        for chunk in self._content.rest(position):
            if self._hashing is not None:
                self._hashing.feed(writer.size, chunk)
            self._write(writer, memoryview(chunk))
            self._meter.at(writer.flushed)
        while True:
            try:
                unfinished = self._repository.commit(writer, self._known())
                break
            except _MAY_PASS as error:
                self._bear(error, writer)
            finally:
                self._location = writer.id
        if unfinished is None:
            return self._result(writer.size)
        if unfinished.offset is not None:
            raise RangeInvalid("the registry has fewer bytes of the upload than it acknowledged") from unfinished.fault
        raise unfinished.error()

    def _write(self, writer: BlobWriter, chunk: memoryview) -> None:
        start = writer.size
        while True:
            try:
                writer.write(chunk[writer.size - start :])
                return
            except _MAY_PASS as error:
                self._bear(error, writer)
            finally:
                self._location = writer.id

    def _bear(self, error: Exception, writer: BlobWriter) -> None:
        """Bear a fault that the same writer can go on after; raises it if it is none."""
        if isinstance(error, RangeInvalid):
            raise error
        self._patience.spend(error, writer.flushed)

    def _known(self) -> Digest:
        """The digest: given, or of all that went by."""
        if self._digest is None:
            if self._hashing is None:
                raise AssertionError("without a digest it is hashed")
            self._digest = self._hashing.digest()
        return self._digest

    def _result(self, size: int | None) -> tuple[Digest, int]:
        return self._known(), size or 0

    def _cancel(self) -> None:
        location, self._location = self._location, None
        if location is not None:
            self._repository.cancel_quietly(location)


def _passes(error: Exception) -> bool:
    """Whether it may go away by itself."""
    if isinstance(error, RegistryError):
        return is_transient(error) or isinstance(error, RangeInvalid)
    return not isinstance(error, AuthError)


def _is_too_much(error: Exception) -> bool:
    """Whether a registry takes less at a time; some say so with a 416."""
    return isinstance(error, RegistryError) and error.status in (413, 416)
