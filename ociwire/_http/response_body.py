"""Readers of response bodies: their protocols, adapters for bytes, files and iterables, and a base class for layers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import UsageError
from .body import read_bytes

if TYPE_CHECKING:
    from .messages import Response

__all__ = [
    "BinaryReader",
    "Reader",
    "ResponseContent",
    "ResponseReader",
    "TimedReader",
    "make_reader",
    "shorten_reader_timeout",
    "warn_unclosed",
]

_STANDARD_LIBRARY = ("warnings", "_py_warnings")
"""Modules that define the original `warnings.showwarning`. Since Python 3.14, it is defined in the second module."""


class Reader(Protocol):
    """Source of bytes that a response reads from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read available bytes, at least one, into a buffer; return their number, or 0 at the end.

        Raw files in non-blocking mode may return `None`, which is treated as an error.
        """
        ...

    def close(self) -> None:
        """Release all resources. Idempotent."""
        ...


class BinaryReader(Protocol):
    """Binary file or another object with ``read``."""

    def read(self, size: int, /) -> bytes | None:
        """Read at most `size` bytes; return no bytes at the end."""
        ...


ResponseContent = bytes | bytearray | memoryview | Reader | BinaryReader | Iterable[bytes]
"""Type of the body argument of `Response`."""


@runtime_checkable
class TimedReader(Reader, Protocol):
    """Reader whose remaining time can be limited."""

    def shorten_timeout(self, seconds: float) -> None:
        """Limit the total time for reading the rest of the body to `seconds`."""
        ...


class ResponseReader:
    """Reader of the body of another response. Base class for layers that observe or change a body.

    Args:
        response: The response to read from. It is closed together with the reader.

    Attributes:
        known_length: Length of the body in bytes; `None` if unknown. The length of a body in memory is known even
            without a Content-Length.
    """

    known_length: int | None

    def __init__(self, response: Response) -> None:
        self._response = response
        self.known_length = response.length

    def readinto(self, buffer: memoryview, /) -> int:
        """Read available bytes, at least one, into a buffer; return their number, or 0 at the end."""
        return self._response.readinto(buffer)

    def shorten_timeout(self, seconds: float) -> None:
        """Limit the total time for reading the rest of the body to `seconds`, if the response supports this."""
        shorten_reader_timeout(self._response._reader, seconds)

    def close(self) -> None:
        """Close the response."""
        self._response.close()


def shorten_reader_timeout(reader: Reader | None, seconds: float) -> None:
    """Limit the total time for reading the rest of a body to `seconds`, if its reader supports this."""
    if isinstance(reader, TimedReader):
        reader.shorten_timeout(seconds)


def make_reader(body: Any) -> Reader:
    """Return a `Reader` for bytes, a binary reader or an iterable of bytes.

    Raises:
        UsageError: The body has another type.
    """
    # A text file has `read`, and a str is iterable, but neither yields bytes.
    is_text = isinstance(body, (str, io.TextIOBase, Mapping))  # a mapping may be meant as JSON
    if isinstance(body, bytes):
        return _PieceReader(iter((body,)))
    if hasattr(body, "readinto") and hasattr(body, "close"):
        return body  # type: ignore[no-any-return]
    if hasattr(body, "read") and not is_text:
        return _PieceReader(iter(lambda: read_bytes(body, 64 * 1024), b""), body)
    if isinstance(body, Iterable) and not is_text:
        return _PieceReader(iter(body), body)
    raise UsageError(f"body must be bytes, a binary reader or an iterable of bytes, got {type(body).__name__}")


def warn_unclosed(text: str) -> None:
    """Emit a `ResourceWarning` from a finalizer, unless `warnings.showwarning` was replaced.

    The garbage collector runs finalizers in any thread and at any allocation, even while the thread holds a lock. With
    `logging.captureWarnings`, a warning becomes a log record: a handler with a lock that is not reentrant, such as a
    `QueueHandler` with a `queue.Queue`, would deadlock. Other replacements of `warnings.showwarning` could also
    deadlock.
    """
    if getattr(warnings.showwarning, "__module__", None) in _STANDARD_LIBRARY:
        warnings.warn(text, ResourceWarning, stacklevel=3)


class _PieceReader:
    """Reader of the pieces of an iterator. Several calls are needed to read a piece that is larger than the buffer."""

    def __init__(self, pieces: Iterator[bytes], owner: Any = None) -> None:
        self._pieces = pieces
        self._owner = owner
        self._piece = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._piece:
            try:
                piece = next(self._pieces)
            except StopIteration:
                return 0
            try:
                self._piece = memoryview(piece)
            except TypeError:
                raise UsageError(f"body must yield bytes, got {type(piece).__name__}") from None
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def close(self) -> None:
        self._piece, self._pieces = memoryview(b""), iter(())
        if hasattr(self._owner, "close"):
            self._owner.close()
