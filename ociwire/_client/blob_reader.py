"""Reads a blob and verifies it; a lost connection is resumed at the position where it broke."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from .._argument_checks import check_read_size
from .._http.messages import Response, redactor_of
from .._http.response_body import warn_unclosed
from .._oci.descriptor import HTML_TYPES, Descriptor
from .._oci.digest import verify_digest
from ..errors import OciwireError, ReadError, RegistryError, SizeMismatch, TransportError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BlobReader", "redact_error"]

_BUFFER_SIZE = 1024 * 1024


@final
class BlobReader(io.RawIOBase):
    """A binary file over a response that verifies what it reads. It owns the response.

    The call that takes the last byte of the known size checks size and digest, and raises instead of returning it: a
    reader that has returned all of its bytes has verified them. Not thread-safe. Closing it early drops the connection.

    Args:
        response: The response to read.
        descriptor: The expected size and digest, whatever the headers of the response state.
        start: The position of the first byte of the response.
        stop: The position after the last byte to read. `None` is the end of the blob.
        part: True for range reads, which cannot be verified.
        reopen: Called with a position when the connection is lost there. Returns a response that begins with that byte.
            Without progress between two losses it is not called again.

    Raises:
        UsageError: The digest's algorithm is none of sha256, sha384 and sha512.
    """

    def __init__(
        self,
        response: Response,
        descriptor: Descriptor,
        *,
        start: int = 0,
        stop: int | None = None,
        part: bool = False,
        reopen: Callable[[int], Response] | None = None,
    ) -> None:
        self._hasher = descriptor.digest.hasher()
        self._response = response
        self._position = start
        self._stop = descriptor.size if stop is None else stop
        self._is_whole = not part
        self._is_complete = part and start == self._stop
        self._reopen = reopen
        self._reopened_at: int | None = None
        self.descriptor = descriptor

    @property
    def verified(self) -> bool:
        """Whether all bytes have been read and their digest matched. Always false for a part."""
        return self._is_complete and self._is_whole

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read into a buffer what has arrived, at least one byte. Returns 0 at the end.

        Raises:
            UsageError: The reader is closed.
            SizeMismatch: The content has fewer or more bytes than the descriptor states.
            DigestMismatch: The content has another digest.
            TransportError: The connection failed.
        """
        if self.closed:
            raise UsageError("the blob's reader is closed")
        view = memoryview(buffer).cast("B")
        if self._is_complete or (not view and self._remaining):
            return 0
        try:
            view = view[: self._remaining]
            count = self._receive(view) if view else 0
            if self._is_whole:
                self._hasher.update(view[:count])
            self._position += count
            if self._position == self._stop:
                self._finish()
        except BaseException:
            self.close()
            raise
        return count

    @property
    def _remaining(self) -> int:
        return self._stop - self._position

    def _receive(self, view: memoryview) -> int:
        """Read at least one byte, from the response or from one that resumes it."""
        while True:
            failure: Exception
            try:
                count = self._response.readinto(view)
                if count:
                    return count
                failure = self._size_mismatch(f"ended {self._remaining} bytes short", self._position)
            except ReadError as error:
                failure = error
            if self._reopen is None or self._reopened_at == self._position:
                raise failure
            self._reopened_at = self._position
            self._response.close()
            try:
                self._response = self._reopen(self._position)
            except RegistryError as refusal:
                raise failure from refusal

    def _finish(self) -> None:
        """Check that the content ends here, verify its digest, and close the response."""
        if self._stop == self.descriptor.size and self._has_more():
            raise self._size_mismatch("goes on beyond them", self._stop + 1)
        if self._is_whole:
            verify_digest(self._hasher, self.descriptor.digest, hint=self._hint())
        self._is_complete = True
        self._response.close()

    def _has_more(self) -> bool:
        try:
            return bool(self._response.read(1))
        except TransportError:
            return False  # a connection that is lost after the last byte has lost nothing

    def _size_mismatch(self, what: str, actual: int) -> SizeMismatch:
        size = self.descriptor.size
        return SizeMismatch(
            f"{self.descriptor.digest} should have {size} bytes, but its content {what}{self._hint()}",
            expected=size,
            actual=actual,
        )

    def _hint(self) -> str:
        """A hint for the error message if the Content-Type is HTML. Valid content may have that type, too."""
        if self.descriptor.media_type not in HTML_TYPES:
            return ""
        return " (its Content-Type is that of an HTML page: a login page or a firewall may have answered instead)"

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer only at the end; everything if `size` is negative or `None`.

        Raises:
            OciwireError: As `readinto`.
        """
        size = check_read_size(size)
        wanted = self._remaining if size < 0 else min(size, self._remaining)
        pieces = []
        while True:
            buffer = bytearray(min(wanted, _BUFFER_SIZE))
            with memoryview(buffer) as view:
                count = self.readinto(view)
                pieces.append(bytes(view[:count]))
            wanted -= count
            if wanted <= 0:
                return b"".join(pieces)

    def readall(self) -> bytes:
        """Read everything.

        Raises:
            OciwireError: As `readinto`.
        """
        return self.read()

    def verify(self) -> None:
        """Read the rest of the blob without returning it, and verify the digest.

        Raises:
            UsageError: This is a part of a blob, which cannot be verified.
            OciwireError: As `readinto`.
        """
        if not self._is_whole:
            raise UsageError("a part of a blob cannot be verified: its digest is of the whole")
        buffer = bytearray(min(max(self._remaining, 1), _BUFFER_SIZE))
        while not self._is_complete:
            self.readinto(buffer)

    def close(self) -> None:
        """Close the response. Idempotent."""
        if not self.closed:
            super().close()
            self._response.close()

    def __del__(self) -> None:
        # This replaces io.IOBase's finalizer, which calls close(): that goes through every layer's body, and may log or
        # wait for a lock. The connection is dropped by the finalizer of the base transport's own body.
        response: Response | None = getattr(self, "_response", None)
        if response is not None and not response.closed and not response.in_memory:
            warn_unclosed(f"{self.descriptor.digest} was not read to its end or closed")


def redact_error(error: OciwireError, reader: BlobReader) -> None:
    """Mask the secrets of a reader's request in an exception that quotes the content."""
    redactor_of(reader._response.request).redact_error(error)
