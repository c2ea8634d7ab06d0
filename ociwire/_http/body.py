"""The content of a request, which is read in chunks and never closed.

A body is opened for each attempt to send it. Opening it again has these effects:

| Content                                      | Before the first chunk is read      | After it was read      |
|----------------------------------------------|-------------------------------------|------------------------|
| bytes-like, list or tuple of bytes-like      | independent iterator                | independent iterator   |
| seekable file                                | ends the earlier iterator           | ends the earlier one   |
| single-use: other iterables and readers      | ends the earlier iterator           | `BodyConsumedError`    |
"""

from __future__ import annotations

import io
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, final

from .._argument_checks import check_integer
from ..errors import BodyConsumedError, SizeMismatch, UsageError

__all__ = ["Body", "has_raised", "length_mismatch", "open_at", "times_opened", "wrap_chunks"]

CHUNK_SIZE = 1024 * 1024  # maximum size in bytes of a chunk that is read from a file or cut from bytes
STREAM_CHUNK_SIZE = 64 * 1024  # the same if the length is unknown; smaller, because chunked framing copies it
_Wrapper = Callable[[Iterator[bytes]], Iterator[bytes]]


@final
class Body:
    """The content of a request, made by `Body.of`.

    A resendable body yields the same bytes each time it is opened. If it is a file or single-use, opening it again
    ends the earlier iterator. A body of bytes may be shared by threads; any other belongs to one request at a time.
    """

    def __init__(self, content: _Content, length: int | None, wrappers: tuple[_Wrapper, ...]) -> None:
        self._content = content
        self._length = length
        self._wrappers = wrappers

    @classmethod
    def of(cls, content: Any, length: int | None = None) -> Body:
        """Make a body.

        Args:
            content: Bytes-like; a list or tuple of bytes-like chunks; a binary file or reader, read from its current
                position; or another iterable of bytes-like chunks. A `Body` is returned unchanged, unless `length`
                differs from its own.
            length: Length of the content in bytes. Defaults to the length of bytes, lists, tuples and seekable files;
                without one the body is sent chunked.

        Raises:
            UsageError: The content is text or not readable as bytes, or the length is not an integer or is negative.
        """
        if length is not None:
            check_integer("length", length)
        if isinstance(content, Body):
            return content if length in (None, content.length) else cls(content._content, length, content._wrappers)
        shared = _Content(content)
        return cls(shared, shared.length if length is None else length, ())

    @property
    def length(self) -> int | None:
        """The stated length of the content in bytes; `None` if it is unknown."""
        return self._length

    @property
    def single_use(self) -> bool:
        """Whether the content can be read only once: it is neither in memory nor a seekable file."""
        return self._content.single_use

    @property
    def resendable(self) -> bool:
        """Whether `open` would yield the whole content: false for a single-use body that has been read from."""
        return not self._content.is_consumed

    def open(self) -> Iterator[bytes]:
        """Return an iterator over the content from its start. Nothing is read before the first ``next``.

        Raises:
            BodyConsumedError: The body is single-use and its first chunk has been read.
        """
        return open_at(self, 0)

    def _read_from(self, position: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            for chunk in chunks:
                if position < len(chunk):
                    yield chunk[position:] if position else chunk
                position = max(0, position - len(chunk))
        except Exception as error:
            try:  # a strong reference would form a cycle through the traceback
                self._content.errors.append(weakref.ref(error))
            except TypeError:  # built-in exceptions cannot be referenced weakly
                self._content.errors.append(lambda error=error: error)  # type: ignore[misc]
            raise

    def map(self, function: Callable[[bytes], bytes]) -> Body:
        """Return a body that calls a function with each chunk and sends its result, for example to count the bytes.

        The results must have the same total length as the chunks.
        """
        # Not `map()`, which would treat a StopIteration of the function as the end of the content.
        return wrap_chunks(self, lambda chunks: (function(chunk) for chunk in chunks))

    def __copy__(self, memo: object = None) -> Body:
        return self  # a copy would share the position of the caller's file

    __deepcopy__ = __copy__

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled with their request. Other content than bytes cannot be pickled: it is replaced by empty
        # content with a wrong length, which can never be sent.
        if self._content.buffers is None or self._wrappers:
            return Body.of, (b"", self._length or 1)
        return Body.of, ([bytes(buffer) for buffer in self._content.buffers], self._length)

    def __repr__(self) -> str:
        kind = "single-use" if self.single_use else "resendable"
        return f"<Body of {'unknown' if self._length is None else self._length} bytes, {kind}>"


def wrap_chunks(body: Body, wrapper: _Wrapper) -> Body:
    """Return a body like `Body.map` does, for a generator function, which is called each time the body is opened."""
    return Body(body._content, body._length, (*body._wrappers, wrapper))


def times_opened(body: Body) -> int:
    """Return the number of times that the content was opened; 0 for bytes, whose iterators are independent."""
    return body._content.openings


def has_raised(body: Body, error: BaseException) -> bool:
    """Whether an exception was raised by the content or by a function of `Body.map`, not by the transport."""
    return any(reference() is error for reference in body._content.errors.copy())


def open_at(body: Body, position: int) -> Iterator[bytes]:
    """Return an iterator over the content from a position; see `Body.open`.

    A file is read from the position. Any other content, and content with a function of `Body.map`, is read from its
    start, and the bytes before the position are dropped.
    """
    content = body._content
    skipped = 0 if body._wrappers or content.start is None else position
    with content.lock:
        if content.is_consumed:
            raise BodyConsumedError("cannot resend a single-use body that was read: use bytes or a seekable file")
        content.openings += content.buffers is None
        chunks = content.read(content.openings, STREAM_CHUNK_SIZE if body.length is None else CHUNK_SIZE, skipped)
    for wrapper in body._wrappers:
        chunks = wrapper(chunks)
    return body._read_from(position - skipped, chunks)


def length_mismatch(length: int, count: int) -> SizeMismatch:
    """Return the error for a body that has more or fewer bytes than its length; `count` bytes of it were read."""
    text = f"the body is {'longer' if count > length else 'shorter'} than its length of {length} bytes: read {count}"
    return SizeMismatch(text, expected=length, actual=count)


class _Content:
    """Content that is shared by a body and its copies with `Body.map`, and the state of its iterators."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.lock: threading.Lock = threading.Lock()
        self.buffers: list[Any] | None = None
        self.length: int | None = None
        self.start: int | None = None  # position of a seekable file
        self.is_consumed: bool = False
        self.openings: int = 0
        # More than one error, because several threads may send the same bytes; `maxlen` bounds the memory.
        self.errors: deque[Callable[[], BaseException | None]] = deque(maxlen=64)
        is_list = isinstance(source, (list, tuple))
        try:
            self.buffers = [_to_buffer(chunk) for chunk in (source if is_list else [source])]
            self.length = sum(memoryview(buffer).nbytes for buffer in self.buffers)
        except UsageError:
            if is_list:
                raise
            self._inspect(source)
        self.single_use: bool = self.buffers is None and self.start is None

    def _inspect(self, source: Any) -> None:
        kind, is_file, is_path = type(source).__name__, hasattr(source, "read"), hasattr(source, "__fspath__")
        is_text = isinstance(source, (str, io.TextIOBase))
        if is_file and not is_text:
            if getattr(source, "closed", False) or (hasattr(source, "readable") and not source.readable()):
                raise UsageError(f"content must be open for reading, got a closed or write-only {kind}")
            # `seekable()` is not reliable: files of /proc claim to be, and cannot seek to their end.
            with suppress(AttributeError, NotImplementedError, OSError, ValueError):
                start = source.tell()
                end = source.seek(0, io.SEEK_END) or source.tell()  # some file objects return `None` from `seek`
                source.seek(start)
                self.start, self.length = start, max(0, end - start)
                is_text = isinstance(source.read(0), str)
        if is_text or not (is_file or isinstance(source, Iterable)):
            hint = ": encode the text, or open the file in binary mode" if is_text or is_path else ""
            raise UsageError(f"content must be bytes, a binary file or an iterable of bytes, got {kind}{hint}")

    def read(self, opening: int, chunk_size: int, position: int) -> Iterator[bytes]:
        for buffer in self.buffers or ():
            data = buffer if isinstance(buffer, bytes) else memoryview(buffer).cast("B")
            for start in range(0, len(data), chunk_size):
                yield bytes(data[start : start + chunk_size])  # a `bytes` object of one chunk is not copied
        with self.lock:
            if opening != self.openings or self.is_consumed or self.buffers is not None:
                return  # the content was opened again: this iterator must neither seek nor read
            self.is_consumed = self.single_use
        if self.start is not None:
            self._source.seek(self.start + position)
        if hasattr(self._source, "read"):
            while opening == self.openings and (chunk := read_bytes(self._source, chunk_size)):
                yield chunk
        else:
            yield from (bytes(_to_buffer(chunk)) for chunk in self._source)


def read_bytes(file: Any, size: int) -> bytes:
    """Read from a file of the caller; `UsageError` if it is non-blocking and has no data, or does not return bytes."""
    chunk = file.read(size)
    if chunk is None:
        raise UsageError("the file is in non-blocking mode and has no data: set it to blocking mode")
    return bytes(_to_buffer(chunk))


def _to_buffer(chunk: Any) -> Any:
    try:
        view = memoryview(chunk)
    except TypeError:
        raise UsageError(f"each chunk of the content must be bytes, got {type(chunk).__name__}") from None
    return chunk if view.c_contiguous else view.tobytes()
