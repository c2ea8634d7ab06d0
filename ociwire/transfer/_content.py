"""The content of an upload: a path, a file, bytes, a `Body` or a stream."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from .._http.body import Body, length_mismatch, open_at
from ..errors import UsageError
from ._arguments import check_path

__all__ = ["Content", "open_content"]

_MIN_CHUNK = 256 * 1024
"""Minimum size in bytes of a chunk of a stream. Smaller ones are merged."""


@final
class Content:
    """The content of an upload. It is borrowed and never closed.

    Attributes:
        body: All of it.
        size: Number of bytes; `None` if it can be read only once.

    Raises:
        UsageError: It is none of these, or can be read only once and was read before.
    """

    def __init__(self, source: Any) -> None:
        self.body = Body.of(source)
        if not self.body.resendable:
            raise UsageError("cannot upload a single-use body that was read before: it can be read only once")
        self.size = None if self.body.single_use else self.body.length

    def read_from(self, position: int) -> Iterator[bytes]:
        """Yield the bytes from a position on, which must be 0 if the content can be read only once.

        Raises `SizeMismatch` if their number is not the one that was stated when the upload began.
        """
        length, merged = self.body.length, bytearray()
        for chunk in open_at(self.body, position):
            position += len(chunk)
            if length is not None and position > length:
                break
            if self.size is not None or (len(chunk) >= _MIN_CHUNK and not merged):
                yield chunk
                continue
            merged += chunk
            if len(merged) >= _MIN_CHUNK:
                yield bytes(merged)
                merged.clear()
        if length is not None and position != length:
            raise length_mismatch(length, position)
        if merged:
            yield bytes(merged)


@contextmanager
def open_content(source: Any) -> Iterator[Content]:
    """Provide the content of a source. A path is opened and closed; `UsageError` if it is not a regular file."""
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
    # O_NONBLOCK has no effect on regular files. If a FIFO has replaced the file since, the open does not wait.
    extra = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows has neither
    with io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | extra)) as file:
        yield Content(file)
