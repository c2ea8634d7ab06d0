"""What is uploaded: a path, a file, bytes, a `Body` or a stream, from any position on where that can be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from ..body import Body, skip
from ..errors import SizeMismatch, UsageError
from .arguments import check_path

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
            UsageError: It is no source.
            OSError: The file cannot be opened.
        """
        if isinstance(source, (str, os.PathLike)):
            with open(check_path(source), "rb", buffering=0) as file:
                yield cls(file)
        else:
            yield cls(source)

    @property
    def resendable(self) -> bool:
        """Whether it can be had again."""
        return not self.body.one_shot

    def raised(self, error: BaseException) -> bool:
        """Whether an exception came from the content itself, and not from whoever sends it."""
        return self.body.raised(error) or self._last.raised(error)

    def rest(self, position: int) -> Iterator[bytes]:
        """The bytes from a position on, which is 0 where it can be read only once.

        Raises:
            SizeMismatch: There are more of them than there were in the beginning, or fewer.
        """
        chunks, size = self._from(position) if position else self.body.open(), self.body.length
        chunks = chunks if size is None else _checked(chunks, position, size)
        return chunks if self.resendable else _gathered(chunks)

    def _from(self, position: int) -> Iterator[bytes]:
        if isinstance(self._given, Body):  # only its owner knows how to begin in its middle
            return skip(self._given.open(), position)
        if self._start is None:
            view = memoryview(self._given)
            view = (view if view.c_contiguous else memoryview(view.tobytes())).cast("B")
            self._last = Body.of(view[position:])
        else:
            self._given.seek(self._start + position)
            self._last = Body.of(self._given)
        return self._last.open()


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
