"""Blobs on their way in: read once, and never whole without having been verified.

A connection that is lost half-way is taken up again where it broke, under the same hash.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from .._arguments import check_read_size
from .._http.body_reader import warn_left_open
from .._http.messages import Response, redactor_of
from .._oci.descriptor import HTML_TYPES, Descriptor
from .._oci.digest import check_hashed
from ..errors import OciwireError, ReadError, RegistryError, SizeMismatch, TransportError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BlobReader"]

_PIECE = 1024 * 1024


@final
class BlobReader(io.RawIOBase):
    """A binary file over a response, which it owns, that hashes what it reads.

    The call that takes the last byte of the known size checks size and digest, and raises instead of returning it: a
    reader that returned all of its bytes has verified them. It has one owner; closed early, it drops its connection.

    Args:
        response: What is read.
        descriptor: What it should be; `descriptor.digest` decides, whatever the response's headers say.
        start: The first byte that the response has.
        stop: The byte before which to end; None is the end.
        part: Whether this is only a part, which verifies nothing, though it be all of the bytes.
        reopen: Called with a position when the connection is lost there: returns a response that begins with that byte.
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
        self._whole = not part
        self._ended = part and start == self._stop
        self._reopen = reopen
        self._reopened_at: int | None = None
        self.descriptor = descriptor

    @property
    def verified(self) -> bool:
        """Whether all bytes have been read, and were the right ones. Never so of a part."""
        return self._ended and self._whole

    def _redact(self, error: OciwireError) -> None:
        """Mask the secrets of the request in an exception that quotes the content."""
        redactor_of(self._response.request).error(error)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read into a buffer what is there, at least one byte; 0 at the end.

        Raises:
            UsageError: The reader is closed.
            SizeMismatch: There are fewer bytes, or more, than the descriptor says.
            DigestMismatch: The bytes are not those that were asked for.
            TransportError: The connection failed.
        """
        if self.closed:
            raise UsageError("the blob's reader is closed")
        view = memoryview(buffer).cast("B")
        if self._ended or (not view and self._left):
            return 0
        taken = False
        try:
            count = self._take(view[: self._left])
            taken = True
        finally:
            if not taken:
                self.close()
        return count

    @property
    def _left(self) -> int:
        return self._stop - self._position

    def _take(self, view: memoryview) -> int:
        count = self._receive(view) if view else 0
        if self._whole:
            self._hasher.update(view[:count])
        self._position += count
        if self._position == self._stop:
            self._end()
        return count

    def _receive(self, view: memoryview) -> int:
        """At least one byte, from the response at hand or from the one that takes over from it."""
        while True:
            lost: Exception
            try:
                count = self._response.readinto(view)
                if count:
                    return count
                lost = self._wrong_size(f"ended {self._left} bytes short", self._position)
            except ReadError as error:
                lost = error
            self._take_up_again(lost)

    def _take_up_again(self, lost: Exception) -> None:
        if self._reopen is None or self._reopened_at == self._position:
            raise lost
        self._reopened_at = self._position
        self._response.close()
        try:
            self._response = self._reopen(self._position)
        except RegistryError as refused:
            raise lost from refused

    def _end(self) -> None:
        if self._stop == self.descriptor.size and self._goes_on():
            raise self._wrong_size("goes on beyond them", self._stop + 1)
        if self._whole:
            check_hashed(self._hasher, self.descriptor.digest, self._hint())
        self._ended = True
        self._response.close()

    def _goes_on(self) -> bool:
        try:
            return bool(self._response.read(1))
        except TransportError:
            return False  # a connection that is lost after the last byte has lost nothing

    def _wrong_size(self, what: str, actual: int) -> SizeMismatch:
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
        """Read `size` bytes, fewer only at the end; all that is left if `size` is negative or None.

        Raises:
            OciwireError: As `readinto`.
        """
        size = check_read_size(size)
        wanted = self._left if size < 0 else min(size, self._left)
        pieces = []
        while True:
            buffer = bytearray(min(wanted, _PIECE))
            with memoryview(buffer) as view:
                count = self.readinto(view)
                pieces.append(bytes(view[:count]))
            wanted -= count
            if wanted <= 0:
                return b"".join(pieces)

    def readall(self) -> bytes:
        """Read all that is left.

        Raises:
            OciwireError: As `readinto`.
        """
        return self.read()

    def verify(self) -> None:
        """Read away what is left, and return if all of it was right.

        Raises:
            UsageError: This is a part of a blob, which cannot be verified.
            OciwireError: As `readinto`.
        """
        if not self._whole:
            raise UsageError("a part of a blob cannot be verified: its digest is of the whole")
        buffer = bytearray(min(max(self._left, 1), _PIECE))
        while not self._ended:
            self.readinto(buffer)

    def close(self) -> None:
        """Close the response. May be called again."""
        if not self.closed:
            super().close()
            self._response.close()

    def __del__(self) -> None:
        # This replaces io.IOBase's finalizer, which calls close(): that goes through every layer's body, and may log or
        # wait for a lock. The connection is dropped by the finalizer of the wire's own body.
        response: Response | None = getattr(self, "_response", None)
        if response is not None and not response.closed and not response.in_memory:
            warn_left_open(f"{self.descriptor.digest} was not read to its end or closed")
