"""Tests of `Body`: resendable content, single-use content, and consumed content, which is never sent again."""

from __future__ import annotations

import copy
import io
import itertools
import mmap
import os
import pickle
import select
import sys
import tempfile
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ociwire._http import body as body_module
from ociwire._http.body import CHUNK_SIZE, STREAM_CHUNK_SIZE, Body, has_raised, open_at, wrap_chunks
from ociwire.errors import BodyConsumedError, UsageError

CONTENT = b"the quick brown fox"


class Pipe:
    """Reader that is not seekable, and records the requested sizes."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)
        self.requested_sizes: list[int] = []
        self.closed = False

    def read(self, size: int) -> bytes:
        self.requested_sizes.append(size)
        return self._file.read(size)

    def close(self) -> None:
        self.closed = True


class Unseekable(io.BytesIO):
    """File whose ``seek`` raises an error, as that of a file over a pipe does."""

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation("seek")


class NoEnd(io.BytesIO):
    """Seekable file that does not support ``SEEK_END``, as some files in /proc."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise OSError(22, "Invalid argument")
        return super().seek(offset, whence)


class NonBlocking:
    """File in non-blocking mode without available data."""

    def read(self, size: int) -> None:
        return None


class Iterable:
    """Iterable that is not an iterator and has no length."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([CONTENT[:5], CONTENT[5:]])


def generator() -> Iterator[bytes]:
    yield CONTENT[:5]
    yield CONTENT[5:]


def file_at_offset() -> io.BytesIO:
    file = io.BytesIO(b"before" + CONTENT)
    file.seek(6)
    return file


RESENDABLE: dict[str, Callable[[], Any]] = {
    "bytes": lambda: CONTENT,
    "bytearray": lambda: bytearray(CONTENT),
    "memoryview": lambda: memoryview(b"x" + CONTENT)[1:],
    "file": lambda: io.BytesIO(CONTENT),
    "file at an offset": file_at_offset,
    "list": lambda: list(generator()),
    "tuple": lambda: tuple(generator()),
    "list of bytes-like": lambda: [bytearray(CONTENT[:5]), b"", memoryview(CONTENT + b"x")[5:-1]],
}
SINGLE_USE: dict[str, Callable[[], Any]] = {
    "generator": generator,
    "iterable": Iterable,
    "bytearrays": lambda: iter([bytearray(CONTENT[:5]), memoryview(CONTENT[5:])]),
    "reader": lambda: Pipe(CONTENT),
    "unseekable file": lambda: Unseekable(CONTENT),
    "file without an end": lambda: NoEnd(CONTENT),
}
ALL = RESENDABLE | SINGLE_USE


def read_all(body: Body) -> bytes:
    return b"".join(body.open())


@pytest.mark.parametrize("make", RESENDABLE.values(), ids=RESENDABLE)
def test_body_bytes_or_seekable_file_is_resendable(make: Callable[[], Any]) -> None:
    body = Body.of(make())
    assert not body.single_use
    assert body.length == len(CONTENT)
    for _ in range(3):
        assert body.resendable
        assert read_all(body) == CONTENT
    next(body.open())
    assert body.resendable
    assert read_all(body) == CONTENT


@pytest.mark.parametrize("make", SINGLE_USE.values(), ids=SINGLE_USE)
def test_body_other_content_is_single_use(make: Callable[[], Any]) -> None:
    body = Body.of(make())
    assert body.single_use
    assert body.length is None
    assert body.resendable
    assert read_all(body) == CONTENT
    assert not body.resendable
    for _ in range(2):
        with pytest.raises(BodyConsumedError, match=r"^cannot resend a single-use body"):
            body.open()


@pytest.mark.parametrize("make", SINGLE_USE.values(), ids=SINGLE_USE)
def test_open_single_use_before_first_chunk_ends_earlier_iterator(make: Callable[[], Any]) -> None:
    body = Body.of(make())
    earlier = body.open()
    later = body.open()
    assert body.resendable
    assert next(earlier, None) is None, "a second open() ends the earlier iterator"
    assert body.resendable
    first = next(later)
    assert not body.resendable
    with pytest.raises(BodyConsumedError):
        body.open()
    assert first + b"".join(later) == CONTENT, (
        "a refused open() does not end the iterator that has read from the content"
    )


def test_open_generator_reads_nothing_before_first_next() -> None:
    read_chunks: list[int] = []

    def counted() -> Iterator[bytes]:
        for number in range(3):
            read_chunks.append(number)
            yield b"x"

    chunks = Body.of(counted()).open()
    assert read_chunks == []
    next(chunks)
    assert read_chunks == [0]
    next(chunks)
    assert read_chunks == [0, 1]


def test_open_file_again_ends_earlier_iterator() -> None:
    body = Body.of(io.BytesIO(b"x" * (CHUNK_SIZE + 1)))
    earlier = body.open()
    next(earlier)
    later = body.open()
    assert next(earlier, None) is None
    assert len(b"".join(later)) == CHUNK_SIZE + 1


def test_open_file_earlier_iterator_started_late_does_not_seek() -> None:
    body = Body.of(io.BytesIO(b"a" * CHUNK_SIZE + b"b"))
    earlier, later = body.open(), body.open()
    first = next(later)
    assert next(earlier, None) is None
    assert first + b"".join(later) == b"a" * CHUNK_SIZE + b"b"


def test_open_bytes_twice_gives_independent_iterators() -> None:
    content = b"a" * CHUNK_SIZE + b"b"
    body = Body.of(content)
    chunks, other_chunks = body.open(), body.open()
    first, second = next(chunks), next(other_chunks)
    assert first + b"".join(chunks) == second + b"".join(other_chunks) == content


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO], ids=lambda make: make.__name__)
def test_open_known_length_yields_chunks_of_one_mebibyte(make: Callable[[bytes], Any]) -> None:
    content = os.urandom(CHUNK_SIZE) + b"end"
    chunks = list(Body.of(make(content)).open())
    assert [len(chunk) for chunk in chunks] == [CHUNK_SIZE, 3]
    assert b"".join(chunks) == content


def test_open_unknown_length_reads_smaller_chunks() -> None:
    unknown, known = Pipe(b"x"), Pipe(b"x")
    read_all(Body.of(unknown))
    read_all(Body.of(known, length=1))
    assert set(unknown.requested_sizes) == {STREAM_CHUNK_SIZE}
    assert set(known.requested_sizes) == {CHUNK_SIZE}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_open_any_content_yields_bytes(make: Callable[[], Any]) -> None:
    assert {type(chunk) for chunk in Body.of(make()).open()} == {bytes}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_length_argument_is_not_checked_by_body(make: Callable[[], Any]) -> None:
    body = Body.of(make(), length=7)
    assert body.length == 7
    assert read_all(body) == CONTENT, "the transport checks the length, the body does not"


@pytest.mark.parametrize("length", [-1, True, 1.0, "1", b"1"])
def test_of_invalid_length_raises_usage_error(length: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid length ") as caught:
        Body.of(b"", length=length)
    assert repr(length) in str(caught.value)


@pytest.mark.parametrize("empty", [b"", bytearray(), io.BytesIO()], ids=lambda empty: type(empty).__name__)
def test_length_empty_bytes_or_file_is_zero(empty: Any) -> None:
    body = Body.of(empty)
    assert body.length == 0
    assert body.resendable
    assert read_all(body) == read_all(body) == b""


def test_length_empty_iterator_is_unknown() -> None:
    body = Body.of(iter(()))
    assert body.length is None
    assert read_all(body) == b""


def test_of_array_of_integers_counts_bytes() -> None:
    numbers = array("i", [1, -2, 3])
    body = Body.of(numbers)
    assert body.length == 3 * numbers.itemsize
    assert read_all(body) == read_all(body) == numbers.tobytes()


def test_of_noncontiguous_memoryview_is_copied() -> None:
    body = Body.of(memoryview(b"a.b.c.")[::2])
    assert body.length == 3
    assert read_all(body) == read_all(body) == b"abc"


def test_of_memory_map_is_resendable() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(CONTENT)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            body = Body.of(mapped)
            assert body.length == len(CONTENT)
            assert read_all(body) == read_all(body) == CONTENT
            del body


def test_of_bytearray_after_sending_can_be_resized() -> None:
    content = bytearray(CONTENT)
    read_all(Body.of(content))
    content += b"!"
    assert bytes(content) == CONTENT + b"!"


def test_of_file_at_offset_starts_there_each_time(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"before" + CONTENT)
    with path.open("rb") as file:
        file.seek(6)
        body = Body.of(file)
        assert file.tell() == 6
        assert (body.length, body.resendable) == (len(CONTENT), True)
        assert read_all(body) == read_all(body) == CONTENT
        assert not file.closed


def test_of_file_beyond_its_end_is_empty() -> None:
    file = io.BytesIO(b"abc")
    file.seek(10)
    body = Body.of(file)
    assert body.length == 0
    assert read_all(body) == b""


def test_of_pipe_is_single_use() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader:
        with open(write_end, "wb") as writer:
            writer.write(CONTENT)
        body = Body.of(reader)
        assert body.single_use
        assert body.length is None
        assert read_all(body) == CONTENT
        assert not body.resendable


@pytest.mark.parametrize("content", [Pipe(CONTENT), io.BytesIO(CONTENT)], ids=["pipe", "file"])
def test_body_deleted_does_not_close_content(content: Any) -> None:
    body = Body.of(content)
    chunks = body.open()
    next(chunks)
    del chunks
    body.map(bytes.upper)
    del body
    assert not content.closed


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("text", "got str: encode the text, or open the file in binary mode$"),
        (io.StringIO("text"), "got StringIO: encode the text, or open the file in binary mode$"),
        (None, "got NoneType$"),
        (5, "got int$"),
        (1.5, "got float$"),
        (object(), "got object$"),
        (Path("x"), "got PosixPath: encode the text, or open the file in binary mode$"),
    ],
)
def test_of_unsupported_type_raises_usage_error(content: Any, rule: str) -> None:
    with pytest.raises(UsageError, match=f"^content must be bytes, a binary file or an iterable of bytes, {rule}"):
        Body.of(content)


def test_of_text_file_raises_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("text")
    with path.open() as file, pytest.raises(UsageError, match=r"got TextIOWrapper: .*open the file in binary mode$"):
        Body.of(file)


@pytest.mark.parametrize("make", [tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile])
def test_of_wrapped_text_file_raises_usage_error(make: Any) -> None:
    with make(mode="w+") as file:
        file.write("text")
        file.seek(0)
        with pytest.raises(UsageError, match=r"got \w+: .*open the file in binary mode$"):
            Body.of(file)


def test_of_write_only_or_closed_file_raises_usage_error(tmp_path: Path) -> None:
    with (tmp_path / "new").open("wb") as file, pytest.raises(UsageError):
        Body.of(file)
    with pytest.raises(UsageError):
        Body.of(file)  # the file is closed


def test_open_content_raises_passes_exception_unchanged() -> None:
    lost = OSError("content failed")

    def failing() -> Iterator[bytes]:
        yield b"abc"
        raise lost

    body = Body.of(failing())
    chunks = body.open()
    assert next(chunks) == b"abc"
    with pytest.raises(OSError, match="content failed") as caught:
        next(chunks)
    assert caught.value is lost
    with pytest.raises(BodyConsumedError):
        body.open()


def test_open_content_raises_at_first_chunk_is_consumed() -> None:
    def failing() -> Iterator[bytes]:
        raise OSError("at once")
        yield b""

    body = Body.of(failing())
    with pytest.raises(OSError, match="at once"):
        next(body.open())
    assert not body.resendable


@pytest.mark.parametrize("chunk", ["text", 5, None, [b"x"]], ids=lambda chunk: type(chunk).__name__)
def test_open_chunk_other_than_bytes_raises_usage_error(chunk: Any) -> None:
    message = f"^each chunk of the content must be bytes, got {type(chunk).__name__}$"
    with pytest.raises(UsageError, match=message):
        read_all(Body.of(iter([b"x", chunk])))
    with pytest.raises(UsageError, match=message):
        Body.of([b"x", chunk])


def test_open_nonblocking_file_raises_usage_error() -> None:
    with pytest.raises(UsageError, match="non-blocking"):
        read_all(Body.of(NonBlocking()))


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_map_function_receives_each_chunk_when_it_is_read(make: Callable[[], Any]) -> None:
    body = Body.of(make())
    mapped_chunks: list[bytes] = []
    mapped = body.map(lambda chunk: mapped_chunks.append(chunk) or chunk).map(bytes.upper)
    assert (mapped.length, mapped.resendable, mapped.single_use) == (body.length, body.resendable, body.single_use)
    chunks = mapped.open()
    assert mapped_chunks == []
    assert b"".join(chunks) == CONTENT.upper()
    assert b"".join(mapped_chunks) == CONTENT
    assert mapped.resendable is body.resendable is (not body.single_use)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("position", [0, 1, 5, 7, len(CONTENT), len(CONTENT) + 1])
def test_open_at_yields_remaining_bytes(make: Callable[[], Any], position: int) -> None:
    assert b"".join(open_at(Body.of(make()), position)) == CONTENT[position:]
    mapped = Body.of(make()).map(bytes.upper)
    assert b"".join(open_at(mapped, position)) == CONTENT.upper()[position:]


def test_open_at_file_is_not_read_before_the_position() -> None:
    mapped_chunks: list[bytes] = []
    body = Body.of(file_at_offset())
    assert next(
        open_at(wrap_chunks(body, lambda chunks: (mapped_chunks.append(chunk) or chunk for chunk in chunks)), 4)
    )
    assert mapped_chunks == [CONTENT], "a mapped function receives all chunks"
    file = file_at_offset()
    reads = []
    file.read = lambda size: reads.append(file.tell()) or io.BytesIO.read(file, size)  # type: ignore[method-assign]
    next(open_at(Body.of(file), 4))
    assert reads == [6, 6 + 4]


def test_map_two_functions_run_in_order() -> None:
    body = Body.of(b"x").map(lambda chunk: chunk + b"1").map(lambda chunk: chunk + b"2")
    assert read_all(body) == b"x12"


def test_map_single_use_consumes_the_original() -> None:
    body = Body.of(generator())
    mapped = body.map(bytes.upper)
    next(mapped.open())
    assert not body.resendable
    with pytest.raises(BodyConsumedError):
        body.open()


def test_wrap_opened_twice_calls_wrapper_for_each_opening() -> None:
    openings: list[bytearray] = []

    def record(chunks: Iterator[bytes]) -> Iterator[bytes]:
        openings.append(bytearray())
        for chunk in chunks:
            openings[-1].extend(chunk)
            yield chunk

    body = wrap_chunks(Body.of(io.BytesIO(CONTENT)), record)
    chunks = body.open()
    assert openings == [], "nothing runs before the first next"
    assert b"".join(chunks) == read_all(body) == CONTENT
    assert openings == [CONTENT, CONTENT]


def test_of_list_changed_afterwards_keeps_its_chunks() -> None:
    content = [b"a", b"b"]
    body = Body.of(content)
    content.append(b"c")
    assert (body.length, read_all(body)) == (2, b"ab")


class CustomError(Exception):
    """Exception that supports weak references, unlike built-in exceptions."""


@pytest.mark.parametrize("kind", [CustomError, OSError, KeyError])
def test_has_raised_content_fails_is_true_for_that_exception_only(kind: type[Exception]) -> None:
    error = kind("content")

    def fail(chunk: bytes) -> bytes:
        raise error

    mapped, other = Body.of(CONTENT).map(fail), Body.of(CONTENT)
    with pytest.raises(kind) as caught:
        read_all(mapped)
    assert caught.value is error
    assert has_raised(mapped, error)
    assert not has_raised(other, error)
    assert not has_raised(mapped, kind("content"))
    assert not vars(error), "nothing is written to the exception"


def test_has_raised_exception_is_not_kept_alive() -> None:
    def fail(chunk: bytes) -> bytes:
        raise CustomError

    body = Body.of(CONTENT).map(fail)
    with suppress(CustomError):
        read_all(body)
    assert [reference() for reference in body._content.errors] == [None]


def test_of_body_with_equal_length_returns_it() -> None:
    body = Body.of(CONTENT)
    assert Body.of(body) is body
    assert Body.of(body, length=len(CONTENT)) is body


def test_of_body_with_other_length_keeps_content_and_functions() -> None:
    body = Body.of(generator()).map(bytes.upper)
    known = Body.of(body, length=len(CONTENT))
    assert (known.length, body.length) == (len(CONTENT), None)
    assert read_all(known) == CONTENT.upper()
    assert not body.resendable


@pytest.mark.parametrize(
    "content",
    [CONTENT, bytearray(CONTENT), memoryview(CONTENT), [CONTENT[:5], CONTENT[5:]]],
    ids=lambda c: type(c).__name__,
)
def test_pickle_bytes_keeps_content(content: Any) -> None:
    arrived = pickle.loads(pickle.dumps(Body.of(content, length=5)))
    assert arrived.length == 5
    assert not arrived.single_use
    assert read_all(arrived) == read_all(arrived) == CONTENT


@pytest.mark.parametrize(
    "body",
    [
        Body.of(generator(), length=5),
        Body.of(io.BytesIO(CONTENT), length=5),
        Body.of(b"abc", length=5).map(bytes.upper),
        Body.of([b"abc"], length=5).map(lambda chunk: chunk[::-1]),
    ],
    ids=["generator", "file", "mapped bytes", "mapped by a closure"],
)
def test_pickle_other_content_arrives_empty(body: Body) -> None:
    arrived = pickle.loads(pickle.dumps(body))
    assert arrived.length == 5
    assert read_all(arrived) == b""
    assert pickle.loads(pickle.dumps(arrived)).length == 5


def test_pickle_other_content_of_unknown_length_arrives_with_wrong_length() -> None:
    arrived = pickle.loads(pickle.dumps(Body.of(generator())))
    assert (arrived.length, read_all(arrived)) == (1, b""), "the wrong length prevents an empty upload"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy])
def test_copy_single_use_shares_consumption(duplicate: Callable[[Body], Body]) -> None:
    body = Body.of(generator())
    other = duplicate(body)
    assert other.single_use
    next(body.open())
    assert not other.resendable
    with pytest.raises(BodyConsumedError):
        other.open()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (Body.of(b"secret"), "<Body of 6 bytes, resendable>"),
        (Body.of([b"secret"]), "<Body of 6 bytes, resendable>"),
        (Body.of(iter([b"secret"])), "<Body of unknown bytes, single-use>"),
        (Body.of(iter([b"secret"]), length=6), "<Body of 6 bytes, single-use>"),
    ],
)
def test_repr_hides_content(body: Body, text: str) -> None:
    assert repr(body) == text


class RecordedContent:
    """Single-use content that records the threads that read from it."""

    def __init__(self) -> None:
        self._file = io.BytesIO(CONTENT)
        self.threads: set[int] = set()

    def read_recorded(self, size: int) -> bytes:
        self.threads.add(threading.get_ident())
        return self._file.read(size)


class RecordedReader(RecordedContent):
    def read(self, size: int) -> bytes:
        return self.read_recorded(min(size, 5))


class RecordedIterable(RecordedContent):
    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read_recorded(5), b"")


def race(work: Callable[[], bytes], line: int, threads: int = 8) -> tuple[list[bytes], bool]:
    """Run a function in several threads, and pause one of them before a line of `ociwire._http.body`.

    The other threads start when this thread reaches the n-th line that it executes in the module. It continues when
    they have finished, or appear to wait for it. Returns the results, and whether the line was reached.
    """
    barrier = threading.Barrier(threads)
    results: list[bytes] = []
    failed: list[BaseException] = []
    lines = 0

    def run() -> None:
        try:
            results.append(read_unless_consumed(work))
        except BaseException as error:  # noqa: BLE001 - asserted in the main thread
            failed.append(error)

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != body_module.__file__:
            return None
        lines += event == "line"
        if event == "line" and lines == line:
            barrier.wait()
            polls = 2000
            while len(results) + len(failed) < threads - 1 and polls:
                select.select((), (), (), 0)  # yields to the other threads and returns at once
                polls -= 1
        return trace

    def run_paused() -> None:
        tracing = sys.gettrace()
        sys.settrace(trace)
        try:
            run()
        finally:
            sys.settrace(tracing)
        if lines < line:
            barrier.wait()

    def run_after_pause() -> None:
        barrier.wait()
        run()

    started = [threading.Thread(target=run_after_pause if number else run_paused) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert failed == []
    return results, lines >= line


def read_unless_consumed(work: Callable[[], bytes]) -> bytes:
    try:
        return work()
    except BodyConsumedError:
        return b""


@pytest.mark.parametrize("make", [RecordedReader, RecordedIterable])
@pytest.mark.parametrize("opened", ["in each thread", "before"])
def test_open_single_use_in_eight_threads_is_read_by_one_thread(make: type[RecordedContent], opened: str) -> None:
    for line in itertools.count(1):
        content = make()
        body = Body.of(content)
        iterators = [body.open() for _ in range(8)] if opened == "before" else []
        results, was_paused = race(lambda: b"".join(iterators.pop() if iterators else body.open()), line)  # noqa: B023
        assert len(content.threads) == 1
        assert sorted(results) == [b""] * 7 + [CONTENT]
        assert not body.resendable
        if not was_paused:
            assert line > 5, "the lines of the module were traced"
            break
