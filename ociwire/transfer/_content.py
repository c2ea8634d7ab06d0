"""What is uploaded: a path, a file, bytes, a `Body` or a stream, from any position on where that can be had."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from .._http.body import Body, has_raised, skip
from ..errors import SizeMismatch, UsageError
from ._arguments import check_path

__all__ = ["Content"]

_PIECE = 256 * 1024
"""Chunks of a stream that are smaller are put together, up to so many bytes."""


@final
class Content:
    """A content that is to be uploaded. Borrowed: it is never closed here.

    Args:
        given: Bytes, a binary file or reader, an iterable of bytes, or a `Body`.

    Attributes:
        body: All of it.
        size: How many bytes it has; None where it can be read only once.

    Raises:
        UsageError: It is none of these, or some of it was read before and it cannot be read again.
    """

    def __init__(self, given: Any) -> None:
        self.body = Body.of(given)
        if not self.body.resendable:
            raise UsageError("the body can be read only once, and some of it was read before: make another one")
        self.size = self.body.length if self.resendable else None
        self._given = given
        self._start = given.tell() if self.resendable and hasattr(given, "read") else None
        self._last = self.body

    @classmethod
    @contextmanager
    def of(cls, source: Any) -> Iterator[Content]:
        """The content of a source; a path is opened, and closed in the end.

        Raises:
            UsageError: It is no source, or the path is not that of a regular file.
            OSError: The file cannot be opened.
        """
        if isinstance(source, (str, os.PathLike)):
            with _open_regular(check_path(source)) as file:
                yield cls(file)
        else:
            yield cls(source)

    @property
    def resendable(self) -> bool:
        """Whether it can be had again."""
        return not self.body.single_use

    def raised(self, error: BaseException) -> bool:
        """Whether an exception came from the content itself, and not from whoever sends it."""
        return has_raised(self.body, error) or has_raised(self._last, error)

    def rest(self, position: int) -> Iterator[bytes]:
        """The bytes from a position on, which is 0 where it can be read only once.

        Raises:
            SizeMismatch: There are more of them than there were in the beginning, or fewer.
        """
        chunks, size = self._from(position) if position else self.body.open(), self.body.length
        chunks = chunks if size is None else _checked(chunks, position, size)
        return chunks if self.resendable else _gathered(chunks)

    def _from(self, position: int) -> Iterator[bytes]:
        if isinstance(self._given, (Body, list, tuple)):  # it can only be opened at its start
            return skip(self.body.open(), position)
        if self._start is None:
            view = memoryview(self._given)
            view = (view if view.c_contiguous else memoryview(view.tobytes())).cast("B")
            self._last = Body.of(view[position:])
        else:
            self._given.seek(self._start + position)
            self._last = Body.of(self._given)
        return self._last.open()


def _open_regular(path: str) -> io.FileIO:
    """Open a regular file; symbolic links are followed.

    Opening a FIFO waits for its writer, past any deadline, and a device may have no end.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # `open` refuses a directory with IsADirectoryError
        raise UsageError(
            f"cannot upload {path}: it is not a regular file; open a FIFO or a device yourself and pass the file"
            " object, which is read once as a stream"
        )
    # O_NONBLOCK changes nothing for a regular file. If another one has replaced it since, this does not wait.
    return io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC))


def _checked(chunks: Iterator[bytes], position: int, size: int) -> Iterator[bytes]:
    for chunk in chunks:
        position += len(chunk)
        if position > size:
            break
        yield chunk
    if position != size:
        raise SizeMismatch(
            f"the content had {size} bytes when its upload began, and {position} came when it was read",
            expected=size,
            actual=position,
        )


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks that are worth their while; what was gathered when an error comes is lost with it."""
    gathered = bytearray()
    for chunk in chunks:
        if not gathered and len(chunk) >= _PIECE:
            yield chunk
            continue
        gathered += chunk
        if len(gathered) >= _PIECE:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
