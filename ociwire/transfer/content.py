"""What is uploaded: a path, a file, bytes or a stream, from any position on where that can be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from ..body import Body
from ..errors import SizeMismatch

__all__ = ["Content"]

_PIECE = 256 * 1024
"""Chunks of a stream that are smaller are put together, up to so many bytes."""


@final
class Content:
    """A content that is to be uploaded. Borrowed: it is never closed here.

    Args:
        given: Bytes, a binary file or reader, or an iterable of bytes.

    Attributes:
        body: All of it.
        size: How many bytes it has; None where it can be read only once, and nobody knows.

    Raises:
        UsageError: It is none of these.
    """

    def __init__(self, given: Any) -> None:
        self.body = Body.of(given)
        self.size = self.body.length
        self._given = given
        self._start = given.tell() if self.resendable and hasattr(given, "read") else None

    @classmethod
    @contextmanager
    def of(cls, source: Any) -> Iterator[Content]:
        """The content of a source; a path is opened, and closed in the end.

        Raises:
            UsageError: It is no source.
            OSError: The file cannot be opened.
        """
        if isinstance(source, (str, os.PathLike)):
            with open(source, "rb", buffering=0) as file:
                yield cls(file)
        else:
            yield cls(source)

    @property
    def resendable(self) -> bool:
        """Whether it can be had again."""
        return not self.body.one_shot

    def rest(self, position: int) -> Iterator[bytes]:
        """The bytes from a position on, which is 0 where it can be read only once.

        Raises:
            SizeMismatch: There are more of them than there were in the beginning, or fewer.
        """
        if self.size is None:
            return _gathered(self.body.open())
        return self._checked(self._from(position).open() if position else self.body.open(), position)

    def _from(self, position: int) -> Body:
        if self._start is None:
            view = memoryview(self._given)
            return Body.of((view if view.c_contiguous else memoryview(view.tobytes())).cast("B")[position:])
        self._given.seek(self._start + position)
        return Body.of(self._given)

    def _checked(self, chunks: Iterator[bytes], position: int) -> Iterator[bytes]:
        for chunk in chunks:
            position += len(chunk)
            if position > (self.size or 0):
                break
            yield chunk
        if position != self.size:
            raise SizeMismatch(
                f"the content had {self.size} bytes when its upload began, and {position} came when it was read",
                expected=self.size or 0,
                actual=position,
            )


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks that are worth their while; what an error comes behind is given out before it."""
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
