"""Blobs on their way in: read once, and never whole without having been verified."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, final

from .descriptor import Descriptor
from .errors import DigestMismatch, SizeMismatch, UsageError
from .message import Response

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

    Raises:
        UsageError: The digest's algorithm is none of sha256, sha384 and sha512.
    """

    def __init__(self, response: Response, descriptor: Descriptor) -> None:
        self._hasher = descriptor.digest.hasher()
        self._response = response
        self._left = descriptor.size
        self._verified = False
        self.descriptor = descriptor

    @property
    def verified(self) -> bool:
        """Whether all bytes have been read, and were the right ones."""
        return self._verified

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
        if self._verified or (not view and self._left):
            return 0
        whole = False
        try:
            count = self._take(view[: self._left])
            whole = True
        finally:
            if not whole:
                self.close()
        return count

    def _take(self, view: memoryview) -> int:
        count = 0
        if view:
            count = self._response.readinto(view)
            self._hasher.update(view[:count])
            self._left -= count
            if count == 0:
                raise self._wrong_size(f"ended {self._left} bytes short", self.descriptor.size - self._left)
        if self._left == 0:
            self._check()
        return count

    def _check(self) -> None:
        if self._response.read(1):
            raise self._wrong_size("goes on beyond them", self.descriptor.size + 1)
        expected = self.descriptor.digest
        actual = f"{expected.algorithm}:{self._hasher.hexdigest()}"
        if actual != expected:
            raise DigestMismatch(
                f"the content is not what was asked for: its digest is {actual}, not {expected}",
                expected=expected,
                actual=actual,
            )
        self._verified = True
        self._response.close()

    def _wrong_size(self, what: str, actual: int) -> SizeMismatch:
        size = self.descriptor.size
        return SizeMismatch(
            f"{self.descriptor.digest} should have {size} bytes, but its content {what}", expected=size, actual=actual
        )

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer only at the end; all that is left if `size` is negative or None.

        Raises:
            OciwireError: As `readinto`.
        """
        wanted = self._left if size is None or size < 0 else min(size, self._left)
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
            OciwireError: As `readinto`.
        """
        buffer = bytearray(min(max(self._left, 1), _PIECE))
        while not self._verified:
            self.readinto(buffer)

    def close(self) -> None:
        """Close the response. May be called again."""
        if not self.closed:
            super().close()
            self._response.close()

    def __del__(self) -> None:
        response: Response | None = getattr(self, "_response", None)
        if response is not None and not response.closed:
            warnings.warn(f"{self.descriptor.digest} was not read to its end or closed", ResourceWarning, stacklevel=2)
            self.close()
