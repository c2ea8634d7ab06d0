"""Where the chunks of a request's body come from: objects in memory, files, or anything that can be read only once."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import BodyConsumedError, UsageError

__all__ = ["Buffers", "Source", "Stream", "read_bytes", "make_source"]


class Source:
    """What the chunks of a body come from."""

    single_use = False
    is_consumed = False
    openings = 0

    def __init__(self, length: int | None) -> None:
        self.length = length
        # Threads that share a body of bytes may fail at the same time; more than 64 do not.
        self.errors: deque[Callable[[], BaseException | None]] = deque(maxlen=64)

    def open(self, chunk_size: int) -> Iterator[bytes]:
        raise NotImplementedError


class Buffers(Source):
    """Bytes-like objects in memory. Openings are independent of each other."""

    def __init__(self, buffers: Iterable[Any]) -> None:
        self.buffers = tuple(buffers)
        super().__init__(sum(memoryview(buffer).nbytes for buffer in self.buffers))

    def open(self, chunk_size: int) -> Iterator[bytes]:
        for buffer in self.buffers:
            if isinstance(buffer, bytes) and len(buffer) <= chunk_size:
                yield buffer  # without a copy
                continue
            view = memoryview(buffer).cast("B")
            for start in range(0, len(view), chunk_size):
                yield bytes(view[start : start + chunk_size])


class Stream(Source):
    """A file, a reader or an iterable: opening it again ends the earlier iterator.

    Args:
        content: Where the chunks come from.
        start: The position of a seekable file at its start; None makes the content single-use. The iterator that takes
            the first chunk then owns the content.
        length: Number of bytes from `start`.
    """

    def __init__(self, content: Any, start: int | None = None, length: int | None = None) -> None:
        super().__init__(length)
        self._content = content
        self._start = start
        self.single_use = start is None
        self._lock = threading.Lock()

    def open(self, chunk_size: int) -> Iterator[bytes]:
        with self._lock:
            if self.is_consumed:
                raise BodyConsumedError(
                    "the body is single-use and was read before: it cannot be sent again (give bytes or a seekable file"
                    " if a request may have to be repeated)"
                )
            self.openings += 1
            return self._chunks(self.openings, chunk_size)

    def _chunks(self, opening: int, chunk_size: int) -> Iterator[bytes]:
        with self._lock:
            if opening != self.openings or self.is_consumed:
                return  # a later opening has ended this one, which must neither move the file nor take a chunk
            self.is_consumed = self.single_use
        if self._start is not None:
            self._content.seek(self._start)
        if not hasattr(self._content, "read"):
            yield from map(_to_bytes, self._content)
            return
        while opening == self.openings and (chunk := read_bytes(self._content, chunk_size)):
            yield chunk


def make_source(content: Any) -> Source:
    kind = type(content).__name__
    if isinstance(content, (str, io.TextIOBase)):
        raise UsageError(f"a body is bytes, not text: {kind} (encode the text, or open the file in binary mode)")
    if isinstance(content, (list, tuple)):
        return Buffers(_checked_buffer(chunk) for chunk in content)
    buffer = _get_buffer(content)
    if buffer is not None:
        return Buffers([buffer])
    if hasattr(content, "read"):
        if getattr(content, "closed", False) or (hasattr(content, "readable") and not content.readable()):
            raise UsageError(f"not a body: {kind} cannot be read")
        start_and_length = _measure(content)
        if start_and_length is None:
            return Stream(content)
        if isinstance(content.read(0), str):
            raise UsageError(f"a body is bytes, not text: {kind} (open the file in binary mode)")
        return Stream(content, *start_and_length)
    if isinstance(content, Iterable):
        return Stream(content)
    hint = " (open it in binary mode)" if hasattr(content, "__fspath__") else ""
    raise UsageError(f"not a body: {kind} is neither bytes, a binary file nor an iterable of bytes{hint}")


def _get_buffer(content: Any) -> Any:
    """Bytes-like content as it is, or copied if it has gaps; None if it is not bytes-like."""
    try:
        view = memoryview(content)
    except TypeError:
        return None
    return content if view.c_contiguous else view.tobytes()


def _checked_buffer(chunk: Any) -> Any:
    buffer = _get_buffer(chunk)
    if buffer is None:
        raise UsageError(f"a body's chunks are bytes, not {type(chunk).__name__}")
    return buffer


def _measure(file: Any) -> tuple[int, int] | None:
    """Position of a seekable file and number of bytes after it; None if the file cannot be rewound."""
    try:  # `seekable()` does not tell: files of /proc claim to be, and cannot seek to their end
        start = file.tell()
        end = file.seek(0, io.SEEK_END) or file.tell()  # some file objects return None from seek
        file.seek(start)
    except (AttributeError, NotImplementedError, OSError, ValueError):
        return None
    return start, max(0, end - start)


def read_bytes(file: Any, size: int) -> bytes:
    """Read from a caller's file.

    Raises:
        UsageError: The file is non-blocking and has nothing to read, or yields something other than bytes.
    """
    chunk = file.read(size)
    if chunk is None:
        raise UsageError("the body's file is in non-blocking mode and has nothing to read: set it to blocking")
    return _to_bytes(chunk)


def _to_bytes(chunk: Any) -> bytes:
    return chunk if isinstance(chunk, bytes) else bytes(_checked_buffer(chunk))
