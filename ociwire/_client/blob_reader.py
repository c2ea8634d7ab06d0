"""Reader that verifies a blob, and resumes the download at the current position if the connection is lost."""

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
    """Binary file that reads a blob from a response, and verifies its size and digest.

    The call that reads the last byte verifies the blob before it returns: if all bytes were returned, the blob is
    valid. The reader owns the response. Closing it before the end closes the connection. Not thread-safe.

    >>> from ociwire import BlobReader, Descriptor, Response
    >>> with BlobReader(Response(200, body=b"hello"), Descriptor.of(b"hello")) as reader:
    ...     reader.read(), reader.verified
    (b'hello', True)

    Args:
        response: The response to read.
        descriptor: Expected size and digest. They take precedence over the headers of the response.
        start: Position of the first byte of the response. Defaults to 0.
        stop: Position after the last byte to read. `None` means the end of the blob.
        part: True for range reads, which cannot be verified.
        reopen: Function that is called if the connection is lost. It receives the current position, and returns a
            response that begins with the byte at this position. If the connection is lost again before another byte is
            read, the function is not called. `None` means that a lost connection is an error.

    Attributes:
        descriptor: Descriptor of the blob.

    Raises:
        UsageError: The algorithm of the digest is not sha256, sha384 or sha512.
    """

    descriptor: Descriptor

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
        """Whether all bytes have been read and verified. Always false for a part of a blob."""
        return self._is_complete and self._is_whole

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read available bytes, at least one, into a buffer; return their number, or 0 at the end.

        Raises:
            UsageError: The reader is closed.
            SizeMismatch: The content is shorter or longer than the descriptor states.
            DigestMismatch: The digest of the content differs from the one in the descriptor.
            TransportError: The connection failed.
        """
        if self.closed:
            raise UsageError("the blob reader is closed")
        view = memoryview(buffer).cast("B")
        # Nothing is read into an empty buffer. If no bytes remain, do not return yet: an empty blob is verified below.
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
        """Read at least one byte from the response. Resumes the download with a new response if it is interrupted."""
        while True:
            failure: Exception
            try:
                count = self._response.readinto(view)
                if count:
                    return count
                failure = self._size_mismatch(f"ended at byte {self._position}", self._position)
            except ReadError as error:
                failure = error
            # Proxies and CDNs end long downloads with a reset or with a clean end of the body: both are resumed.
            if self._reopen is None or self._reopened_at == self._position:
                raise failure  # no progress since the last resume
            self._reopened_at = self._position
            self._response.close()
            try:
                self._response = self._reopen(self._position)
            except RegistryError as refusal:
                raise failure from refusal

    def _finish(self) -> None:
        """Check that the content ends here, verify its digest, and close the response."""
        # A part that ends before the end of the blob may come from a 200 response, which contains the rest of the blob.
        if self._stop == self.descriptor.size and self._has_more():
            raise self._size_mismatch("is longer", self._stop + 1)
        if self._is_whole:
            verify_digest(self._hasher, self.descriptor.digest, hint=self._hint())
        self._is_complete = True
        self._response.close()

    def _has_more(self) -> bool:
        try:
            return bool(self._response.read(1))
        except TransportError:
            return False  # the connection was lost after the last byte: all of the content was received

    def _size_mismatch(self, what: str, actual: int) -> SizeMismatch:
        size = self.descriptor.size
        return SizeMismatch(
            f"size mismatch of {self.descriptor.digest}: expected {size} bytes, but the response {what}{self._hint()}",
            expected=size,
            actual=actual,
        )

    def _hint(self) -> str:
        """Return a hint for the error message if the Content-Type is HTML. Valid content may also have this type."""
        if self.descriptor.media_type not in HTML_TYPES:
            return ""
        return " (its Content-Type is that of an HTML page: a login page or a firewall may have answered instead)"

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, or fewer at the end; all remaining bytes if `size` is negative or `None`.

        Raises:
            OciwireError: As `readinto`.
        """
        size = check_read_size(size)
        remaining = self._remaining if size < 0 else min(size, self._remaining)
        pieces = []
        while True:
            buffer = bytearray(min(remaining, _BUFFER_SIZE))
            with memoryview(buffer) as view:
                count = self.readinto(view)
                pieces.append(bytes(view[:count]))
            remaining -= count
            if remaining <= 0:
                return b"".join(pieces)

    def readall(self) -> bytes:
        """Read all remaining bytes.

        Raises:
            OciwireError: As `readinto`.
        """
        return self.read()

    def verify(self) -> None:
        """Read and discard the rest of the blob, and verify the digest.

        Raises:
            UsageError: The reader reads a part of a blob, which cannot be verified.
            OciwireError: As `readinto`.
        """
        if not self._is_whole:
            raise UsageError("cannot verify a part of a blob: the digest covers the whole blob")
        buffer = bytearray(min(max(self._remaining, 1), _BUFFER_SIZE))
        while not self._is_complete:
            self.readinto(buffer)

    def close(self) -> None:
        """Close the reader and its response. Idempotent."""
        if not self.closed:
            super().close()
            self._response.close()

    def __del__(self) -> None:
        # Replaces the finalizer of `io.IOBase`, which calls close(). Calling close() here would call the readers of all
        # layers, which may log or acquire locks. The base transport closes the connection when its own reader is
        # garbage-collected.
        response: Response | None = getattr(self, "_response", None)
        if response is not None and not response.closed and not response.in_memory:
            warn_unclosed(f"a blob reader was neither read to its end nor closed: {self.descriptor.digest}")


def redact_error(error: OciwireError, reader: BlobReader) -> None:
    """Mask the secrets of the request of a reader in an exception that quotes the content."""
    redactor_of(reader._response.request).redact_error(error)
