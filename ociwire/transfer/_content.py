"""The content of an upload: a path, a file, bytes, a `Body` or a stream; read from any position if possible."""

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

__all__ = ["Content", "open_content"]

_MIN_CHUNK = 256 * 1024
"""Smaller chunks of a stream are merged into chunks of at least so many bytes."""


@final
class Content:
    """The content of an upload. It is borrowed: never closed here.

    Attributes:
        body: All of it.
        resendable: Whether it can be read again.
        size: Number of bytes; `None` if it can be read only once.

    Raises:
        UsageError: It is none of these, or some of it was read before and it cannot be read again.
    """

    def __init__(self, source: Any) -> None:
        self.body = Body.of(source)
        if not self.body.resendable:
            raise UsageError("the body can be read only once, and some of it was read before: make another one")
        self.resendable = not self.body.single_use
        self.size = self.body.length if self.resendable else None
        is_file = self.resendable and hasattr(source, "read")
        self._file = source if is_file else None
        self._file_start = source.tell() if is_file else 0
        self._tail = self.body

    def has_raised(self, error: BaseException) -> bool:
        """Whether the content itself has raised an exception, and not what sends it."""
        return has_raised(self.body, error) or has_raised(self._tail, error)

    def read_from(self, position: int) -> Iterator[bytes]:
        """Yield the bytes from a position on, which is 0 if the content can be read only once.

        Raises `SizeMismatch` if there are more or fewer of them than when the upload began.
        """
        if position and self._file is not None:
            self._file.seek(self._file_start + position)
            self._tail = Body.of(self._file)
            chunks = self._tail.open()
        else:
            chunks = skip(self.body.open(), position) if position else self.body.open()
        if self.body.length is not None:
            chunks = _check_size(chunks, position, self.body.length)
        return chunks if self.resendable else _merge_small(chunks)


@contextmanager
def open_content(source: Any) -> Iterator[Content]:
    """The content of a source. A path is opened, and closed in the end; `UsageError` if it is not a regular file."""
    if not isinstance(source, (str, os.PathLike)):
        yield Content(source)
        return
    path = check_path(source)
    mode = os.stat(path).st_mode  # symbolic links are followed
    # Opening a FIFO waits for its writer, past any deadline, and a device may have no end.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # `open` refuses a directory with IsADirectoryError
        raise UsageError(
            f"cannot upload {path}: it is not a regular file; open a FIFO or a device yourself and pass the file"
            " object, which is read once as a stream"
        )
    # O_NONBLOCK changes nothing for a regular file. If a FIFO has replaced it since, this does not wait.
    with io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
        yield Content(file)


def _check_size(chunks: Iterator[bytes], position: int, size: int) -> Iterator[bytes]:
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


def _merge_small(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Merge small chunks. An error drops what is merged so far."""
    merged = bytearray()
    for chunk in chunks:
        if not merged and len(chunk) >= _MIN_CHUNK:
            yield chunk
            continue
        merged += chunk
        if len(merged) >= _MIN_CHUNK:
            yield bytes(merged)
            merged.clear()
    if merged:
        yield bytes(merged)
