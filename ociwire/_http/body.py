"""A request's content: borrowed, pulled chunk by chunk, and sent again only where it can be had again.

Bytes and seekable files can be had again. Every other iterable or reader is one-shot: it may be opened again until its
first chunk has been pulled, and never after. Nothing given here is ever closed by ociwire.
"""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol, final

from .._arguments import check_integer
from ..errors import BodyConsumedError, UsageError

__all__ = ["Body", "read_bytes", "skip"]

CHUNK_SIZE = 1024 * 1024
"""How much is read from a file, or cut from bytes, at a time, in bytes."""
_NUMBERS = itertools.count(1)
_MARK = "_ociwire_raised_by"
"""The attribute of an exception that holds the numbers of the contents that it came from."""
STREAM_CHUNK_SIZE = 64 * 1024
"""How much is read at a time where the length is not known: chunked framing copies each chunk."""


class _Source(Protocol):
    """What a content is pulled from; ``single_use`` tells whether it ever could be pulled again."""

    single_use: bool
    openings: int
    number: int

    @property
    def length(self) -> int | None: ...
    @property
    def resendable(self) -> bool: ...
    def open(self, chunk_size: int) -> Iterator[bytes]: ...


@final
class Body:
    """A content, made by `Body.of`.

    A resendable body yields the same bytes however often it is opened. Where it is a file, and where it is one-shot,
    opening again ends the earlier iterator. A body of bytes may be shared by threads; any other has one owner.
    """

    __slots__ = ("_functions", "_length", "_source")

    def __init__(self, source: _Source, length: int | None, functions: tuple[Callable[[bytes], bytes], ...]) -> None:
        self._source = source
        self._length = length
        self._functions = functions

    @classmethod
    def of(cls, content: Any, length: int | None = None) -> Body:
        """Make a body.

        Args:
            content: Bytes-like; a binary file or reader (from where it stands); or an iterable of bytes-like chunks. A
                `Body` is returned as it is, if the length is its own or none is given.
            length: How many bytes it has, if that is known. Where it cannot be known either, the body is sent chunked.

        Raises:
            UsageError: It is text, or nothing that bytes can be read from, or the length is no number or negative.
        """
        if length is not None:
            check_integer("length", length)
        if isinstance(content, Body):
            return content if length in (None, content.length) else cls(content._source, length, content._functions)
        source = _source_of(content)
        return cls(source, source.length if length is None else length, ())

    @property
    def length(self) -> int | None:
        """How many bytes the content is said to have; None where nobody can know."""
        return self._length

    @property
    def single_use(self) -> bool:
        """Whether the content can be pulled only once, being neither bytes nor a seekable file."""
        return self._source.single_use

    @property
    def openings(self) -> int:
        """How often it was opened, where opening again ends what was opened before; else 0."""
        return self._source.openings

    @property
    def resendable(self) -> bool:
        """Whether `open` would yield the whole content; only a one-shot body that was pulled from does not."""
        return self._source.resendable

    def open(self) -> Iterator[bytes]:
        """Begin the content from its start. Nothing is pulled before the first ``next``.

        Raises:
            BodyConsumedError: It is one-shot, and its first chunk has been pulled before.
        """
        chunks = self._source.open(STREAM_CHUNK_SIZE if self._length is None else CHUNK_SIZE)
        for function in self._functions:
            chunks = _mapped(function, chunks)
        return self._marked(chunks)

    def raised(self, error: BaseException) -> bool:
        """Whether an exception came from the content itself: then it is its owner's, and nothing of the network's."""
        return self._source.number in getattr(error, _MARK, ())

    def _marked(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from chunks
        except Exception as error:
            # On the exception itself: a body of bytes may fail in several threads, each time by another exception.
            with suppress(AttributeError, TypeError):
                setattr(error, _MARK, (*getattr(error, _MARK, ()), self._source.number))
            raise

    def map(self, function: Callable[[bytes], bytes]) -> Body:
        """The same content with `function` between each chunk and whoever pulls it: to count, hash or pace it.

        What it returns is sent in the chunk's place; the length is taken to stay what it was. Where the function has a
        method ``begin``, that is called when the content is begun, each time anew.
        """
        return Body(self._source, self._length, (*self._functions, function))

    def __deepcopy__(self, memo: dict[int, Any]) -> Body:
        return self  # the content is borrowed, and what was pulled from it stays pulled

    def __reduce__(self) -> tuple[Any, ...]:
        # A generator, a file or a closure cannot travel: what arrives knows its length and is spent.
        if isinstance(self._source, _Bytes) and _picklable(self._functions):
            return Body, (self._source, self._length, self._functions)
        return Body, (_Spent(), self._length, ())

    def __repr__(self) -> str:
        kind = "one-shot" if self.single_use else "resendable"
        return f"<Body of {'unknown' if self._length is None else self._length} bytes, {kind}>"


class _Bytes:
    """Bytes in memory: each opening is a walk of its own."""

    single_use = False
    resendable = True
    openings = 0

    def __init__(self, content: Any) -> None:
        self.number = next(_NUMBERS)
        self._content = content

    @property
    def length(self) -> int:
        return len(self._content) if isinstance(self._content, bytes) else memoryview(self._content).nbytes

    def open(self, chunk_size: int) -> Iterator[bytes]:
        if isinstance(self._content, bytes) and len(self._content) <= chunk_size:
            yield self._content
            return
        view = memoryview(self._content).cast("B")
        for start in range(0, len(view), chunk_size):
            yield bytes(view[start : start + chunk_size])

    def __reduce__(self) -> tuple[Any, ...]:
        return _Bytes, (bytes(self._content),)


class _File:
    """A seekable file, from the position at which it was given."""

    single_use = False
    resendable = True

    def __init__(self, file: Any) -> None:
        self.number = next(_NUMBERS)
        self._file = file
        self._start: int = file.tell()
        end: int = file.seek(0, io.SEEK_END) or file.tell()
        file.seek(self._start)
        self.length = max(0, end - self._start)
        self.openings = 0

    def open(self, chunk_size: int) -> Iterator[bytes]:
        self.openings += 1
        return self._chunks(self.openings, chunk_size)

    def _chunks(self, opening: int, chunk_size: int) -> Iterator[bytes]:
        if opening == self.openings:
            self._file.seek(self._start)
        while opening == self.openings and (chunk := read_bytes(self._file, chunk_size)):
            yield chunk


class _OneShot:
    """An iterable or a reader that cannot go back. Whoever pulls the first chunk owns the rest."""

    single_use = True
    length = None

    def __init__(self, content: Any) -> None:
        self.number = next(_NUMBERS)
        self._content = content
        self._lock = threading.Lock()
        self.openings = 0
        self._pulled = False

    @property
    def resendable(self) -> bool:
        return not self._pulled

    def open(self, chunk_size: int) -> Iterator[bytes]:
        with self._lock:
            if self._pulled:
                raise BodyConsumedError(
                    "the body was one-shot and part of it has been sent: it cannot be sent again (give bytes or a"
                    " seekable file where a request may have to be repeated)"
                )
            self.openings += 1
            return self._chunks(self.openings, chunk_size)

    def _chunks(self, opening: int, chunk_size: int) -> Iterator[bytes]:
        if not self._claim(opening):
            return
        if hasattr(self._content, "read"):
            while chunk := read_bytes(self._content, chunk_size):
                yield chunk
        else:
            for chunk in self._content:
                yield _bytes(chunk)

    def _claim(self, opening: int) -> bool:
        with self._lock:
            mine = opening == self.openings and not self._pulled
            self._pulled = self._pulled or mine
            return mine


class _Spent:
    """What arrives in another process of a content that could not travel."""

    single_use = True
    length = None
    resendable = False
    openings = 0
    number = 0

    def open(self, chunk_size: int) -> Iterator[bytes]:
        raise BodyConsumedError("the body did not travel with its request: only bytes can be pickled")


def _mapped(function: Callable[[bytes], bytes], chunks: Iterator[bytes]) -> Iterator[bytes]:
    getattr(function, "begin", _nothing)()
    for chunk in chunks:  # not `map`: a StopIteration of the function's would be taken for the end
        yield function(chunk)


def _nothing() -> None:
    pass


def _picklable(functions: tuple[Callable[[bytes], bytes], ...]) -> bool:
    import pickle  # an import that only those pay who pickle

    try:
        pickle.dumps(functions)
    except Exception:  # noqa: BLE001 - pickle raises what it likes
        return False
    return True


def _source_of(content: Any) -> _Source:
    kind = type(content).__name__
    if isinstance(content, (str, io.TextIOBase)):
        raise UsageError(f"a body is bytes, not text: {kind} (encode the text, or open the file in binary mode)")
    try:
        view = memoryview(content)
    except TypeError:
        pass
    else:
        return _Bytes(content if view.c_contiguous else view.tobytes())
    if hasattr(content, "read"):
        if getattr(content, "closed", False) or (hasattr(content, "readable") and not content.readable()):
            raise UsageError(f"not a body: {kind} cannot be read")
        if not _is_seekable(content):
            return _OneShot(content)
        if isinstance(content.read(0), str):
            raise UsageError(f"a body is bytes, not text: {kind} (open the file in binary mode)")
        return _File(content)
    if isinstance(content, Iterable):
        return _OneShot(content)
    hint = " (open it in binary mode)" if hasattr(content, "__fspath__") else ""
    raise UsageError(f"not a body: {kind} is neither bytes, a binary file nor an iterable of bytes{hint}")


def _is_seekable(file: Any) -> bool:
    try:
        start = file.tell()
        file.seek(0, io.SEEK_END)
        file.seek(start)
    except (AttributeError, NotImplementedError, OSError, ValueError):
        return False
    return True


def read_bytes(file: Any, size: int) -> bytes:
    """Read from a caller's file; `UsageError` if it has nothing to read because it does not block, or gives text."""
    chunk = file.read(size)
    if chunk is None:
        raise UsageError("the body's file is in non-blocking mode and has nothing to read: set it to blocking")
    return _bytes(chunk)


def skip(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Yield the bytes after the first `count` ones."""
    for chunk in chunks:
        if count < len(chunk):
            yield chunk[count:] if count else chunk
        count = max(0, count - len(chunk))


def _bytes(chunk: Any) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    try:
        return bytes(memoryview(chunk))
    except TypeError:
        raise UsageError(f"a body's chunks are bytes, not {type(chunk).__name__}") from None
