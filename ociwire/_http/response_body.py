"""The body of a response: the interfaces of its reader, a base class for readers around another response, adapters."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import UsageError
from .body_source import read_bytes

if TYPE_CHECKING:
    from .messages import Response

__all__ = ["Reader", "ResponseReader", "TimedReader", "make_reader", "shorten_reader_timeout", "warn_unclosed"]

_STANDARD_LIBRARY = ("warnings", "_py_warnings")
"""The modules that define `warnings.showwarning`: the second from Python 3.14 on."""


class Reader(Protocol):
    """A source of bytes that a response reads from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Read at least one byte, as many as are available; return the number of bytes, 0 at the end."""
        ...

    def close(self) -> None:
        """Release the resources. Idempotent."""
        ...


@runtime_checkable
class TimedReader(Reader, Protocol):
    """A reader whose remaining time can be limited."""

    def shorten_timeout(self, seconds: float) -> None:
        """Limit the time for the rest of the body to `seconds` in all."""
        ...


class ResponseReader:
    """Reads the body of another response. Layers that observe or change a body derive from it.

    Args:
        response: The response to read from. It is closed together with the reader.

    Attributes:
        known_length: Number of bytes of the body, which a body of bytes has without a Content-Length; `None` if it is
            not known.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self.known_length = response.length

    def readinto(self, buffer: memoryview, /) -> int:
        """Read at least one byte; return the number of bytes, 0 at the end."""
        return self._response.readinto(buffer)

    def shorten_timeout(self, seconds: float) -> None:
        """Limit the time for the rest of the body to `seconds` in all, if the response supports it."""
        shorten_reader_timeout(self._response._reader, seconds)

    def close(self) -> None:
        """Close the response."""
        self._response.close()


def shorten_reader_timeout(reader: Reader | None, seconds: float) -> None:
    """Limit the time for the rest of a body to `seconds` in all, if its reader supports it."""
    if isinstance(reader, TimedReader):
        reader.shorten_timeout(seconds)


def make_reader(body: Any) -> Reader:
    """Return a `Reader` for bytes, a binary reader or an iterable of bytes.

    Raises:
        UsageError: The body is none of these.
    """
    is_text = isinstance(body, (str, io.TextIOBase))
    if isinstance(body, bytes):
        return _PieceReader(iter((body,)))
    if hasattr(body, "readinto") and hasattr(body, "close"):
        return body  # type: ignore[no-any-return]
    if hasattr(body, "read") and not is_text:
        return _PieceReader(iter(lambda: read_bytes(body, 64 * 1024), b""), body)
    if isinstance(body, Iterable) and not is_text:
        return _PieceReader(iter(body), body)
    raise UsageError(f"not a body: {type(body).__name__} is neither bytes, a binary reader nor an iterable of bytes")


def warn_unclosed(text: str) -> None:
    """Emit a `ResourceWarning` from a finalizer, unless that would run a log handler.

    The garbage collector runs finalizers in any thread, at any allocation, also while that thread holds a lock. With
    `logging.captureWarnings` a warning is a log record: a handler whose lock is not reentrant (`queue.Queue` of a
    `QueueHandler`) would wait for itself. Another replacement of `warnings.showwarning` may do the same.
    """
    if getattr(warnings.showwarning, "__module__", None) in _STANDARD_LIBRARY:
        warnings.warn(text, ResourceWarning, stacklevel=3)


class _PieceReader:
    """Reads the pieces of an iterator; a piece that is larger than the buffer is read in parts."""

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
                raise UsageError(f"a body's pieces are bytes, not {type(piece).__name__}") from None
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def close(self) -> None:
        self._piece, self._pieces = memoryview(b""), iter(())
        if hasattr(self._owner, "close"):
            self._owner.close()
