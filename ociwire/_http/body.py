"""A request's content: borrowed, read chunk by chunk, and sent again only where that is possible.

| Content                                      | Opened again before the first chunk | Opened again later     |
|----------------------------------------------|-------------------------------------|------------------------|
| bytes-like, list or tuple of bytes-like      | independent iterator                | independent iterator   |
| seekable file                                | ends the earlier iterator           | ends the earlier one   |
| single-use: other iterables and readers      | ends the earlier iterator           | `BodyConsumedError`    |

ociwire never closes the content.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, final

from .._argument_checks import check_integer
from ..errors import BodyConsumedError, SizeMismatch
from .body_source import Buffers, Source, Stream, make_source

__all__ = ["Body", "has_raised", "length_mismatch", "reopened_error", "skip", "times_opened", "wrap_chunks"]

CHUNK_SIZE = 1024 * 1024
"""Number of bytes that are read from a file, or cut from bytes, at a time."""
STREAM_CHUNK_SIZE = 64 * 1024
"""The same where the length is not known: chunked framing copies each chunk."""


@final
class Body:
    """A request's content, made by `Body.of`.

    A resendable body yields the same bytes however often it is opened. If it is a file or single-use, opening it again
    ends the earlier iterator. A body of bytes may be shared by threads; any other has one owner.
    """

    __slots__ = ("_length", "_source", "_wrappers")

    def __init__(
        self, source: Source, length: int | None, wrappers: tuple[Callable[[Iterator[bytes]], Iterator[bytes]], ...]
    ) -> None:
        self._source = source
        self._length = length
        self._wrappers = wrappers

    @classmethod
    def of(cls, content: Any, length: int | None = None) -> Body:
        """Make a body.

        Args:
            content: Bytes-like; a list or tuple of bytes-like chunks; a binary file or reader, read from its current
                position; or another iterable of bytes-like chunks. A `Body` is returned unchanged, unless `length`
                differs from its own.
            length: Number of bytes of the content. Defaults to the length of bytes, lists, tuples and seekable files;
                without one the body is sent chunked.

        Raises:
            UsageError: The content is text or nothing that bytes can be read from, or the length is not an integer or
                is negative.
        """
        if length is not None:
            check_integer("length", length)
        if isinstance(content, Body):
            return content if length in (None, content.length) else cls(content._source, length, content._wrappers)
        source = make_source(content)
        return cls(source, source.length if length is None else length, ())

    @property
    def length(self) -> int | None:
        """The stated number of bytes of the content; None if it is unknown."""
        return self._length

    @property
    def single_use(self) -> bool:
        """Whether the content can be read only once: it is neither in memory nor a seekable file."""
        return self._source.single_use

    @property
    def resendable(self) -> bool:
        """Whether `open` would yield the whole content: false for a single-use body that has been read from."""
        return not self._source.is_consumed

    def open(self) -> Iterator[bytes]:
        """Return an iterator over the content from its start. Nothing is read before the first ``next``.

        Raises:
            BodyConsumedError: The body is single-use and its first chunk has been read.
        """
        chunks = self._source.open(STREAM_CHUNK_SIZE if self._length is None else CHUNK_SIZE)
        for wrapper in self._wrappers:
            chunks = wrapper(chunks)
        return self._record_errors(chunks)

    def _record_errors(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from chunks
        except Exception as error:
            try:  # without a reference cycle by way of the traceback
                self._source.errors.append(weakref.ref(error))
            except TypeError:  # built-in exceptions cannot be referenced weakly
                self._source.errors.append(lambda error=error: error)  # type: ignore[misc]
            raise

    def map(self, function: Callable[[bytes], bytes]) -> Body:
        """Return a body whose chunks pass through `function`, each time that it is opened: to count or pace them.

        The chunk that the function returns is sent instead; the length is taken to stay the same.
        """
        return wrap_chunks(self, partial(_map_chunks, function))

    def __deepcopy__(self, memo: dict[int, Any]) -> Body:
        return self  # the content is borrowed, and what was read from it stays read

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions hold requests and are pickled, whatever their body is: only plain bytes keep their content.
        if isinstance(self._source, Buffers) and not self._wrappers:
            return Body.of, ([bytes(buffer) for buffer in self._source.buffers], self._length)
        return _consumed_body, (self._length,)

    def __repr__(self) -> str:
        kind = "single-use" if self.single_use else "resendable"
        return f"<Body of {'unknown' if self._length is None else self._length} bytes, {kind}>"


def wrap_chunks(body: Body, wrapper: Callable[[Iterator[bytes]], Iterator[bytes]]) -> Body:
    """Like `Body.map`, but with a generator function, which gets the chunks of each opening.

    For observers that restart when the content is sent again. It must yield as many bytes as it receives.
    """
    return Body(body._source, body._length, (*body._wrappers, wrapper))


def times_opened(body: Body) -> int:
    """How often the content was opened, if opening it again ends the earlier iterator; else 0."""
    return body._source.openings


def has_raised(body: Body, error: BaseException) -> bool:
    """Whether the content, or a function of `Body.map`, raised this exception: the network did not fail then."""
    return any(reference() is error for reference in body._source.errors.copy())


def length_mismatch(length: int, count: int) -> SizeMismatch:
    """An error for a body of which `count` bytes were read: more than its stated length, or fewer at its end."""
    comparison, quantity = ("longer", "at least") if count > length else ("shorter", "only")
    return SizeMismatch(
        f"the body is {comparison} than its length: {length} bytes were announced, and {quantity} {count} came",
        expected=length,
        actual=count,
    )


def reopened_error(activity: str) -> BodyConsumedError:
    """An error for a body that was opened again while it was being read or sent, which ends the earlier iterator."""
    return BodyConsumedError(f"the body was opened again while it was being {activity}")


def _consumed_body(length: int | None) -> Body:
    source = Stream(())
    source.is_consumed = True
    return Body(source, length, ())


def _map_chunks(function: Callable[[bytes], bytes], chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:  # not `map()`: it would take a StopIteration of the function for the end of the content
        yield function(chunk)


def skip(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Yield the bytes after the first `count` ones."""
    for chunk in chunks:
        if count < len(chunk):
            yield chunk[count:] if count else chunk
        count = max(0, count - len(chunk))
