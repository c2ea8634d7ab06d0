"""Tests of `make_reader`: bytes, binary readers and iterables are read into a buffer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ociwire._http.response_body import make_reader
from ociwire.errors import UsageError


class ReadOnly:
    """Reader that has only ``read``, and returns fewer bytes than requested."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, 3))


class ReadAndClose(ReadOnly):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def pieces() -> Iterator[bytes]:
    yield b"ab"
    yield b""
    yield b"cdefg"


BODIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"abcdefg",
    "file": lambda: io.BytesIO(b"abcdefg"),
    "read only": lambda: ReadOnly(b"abcdefg"),
    "generator": pieces,
    "list": lambda: list(pieces()),
    "tuple": lambda: (b"abc", b"defg"),
    "bytearrays": lambda: [bytearray(b"abc"), memoryview(b"defg")],
}


def read_all(reader: Any, size: int) -> bytes:
    """Read everything with a buffer of one size. Check that the reader does not write beyond its count."""
    content = b""
    while True:
        buffer = bytearray(b"\xff" * (size + 1))
        count = reader.readinto(memoryview(buffer)[:size])
        assert 0 <= count <= size
        assert buffer[count:] == b"\xff" * (size + 1 - count)
        if not count:
            return content
        content += buffer[:count]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
def test_readinto_any_body_and_buffer_size_reads_everything(make: Callable[[], Any], size: int) -> None:
    reader = make_reader(make())
    assert read_all(reader, size) == b"abcdefg"
    assert reader.readinto(memoryview(bytearray(3))) == 0, "a read after the end returns 0 again"
    reader.close()


@pytest.mark.parametrize(
    "empty",
    [b"", [], [b"", b""], iter(()), io.BytesIO(), ReadOnly(b"")],
    ids=["bytes", "list", "list of nothing", "iterator", "file", "reader"],
)
def test_readinto_empty_body_returns_zero(empty: Any) -> None:
    assert make_reader(empty).readinto(memoryview(bytearray(3))) == 0


def test_readinto_empty_piece_is_not_the_end() -> None:
    assert read_all(make_reader([b"", b"a", b"", b"", b"b", b""]), 4) == b"ab"


def test_make_reader_reader_returns_it() -> None:
    file = io.BytesIO(b"abc")
    assert make_reader(file) is file


def test_readinto_generator_reads_pieces_on_demand() -> None:
    read_pieces: list[int] = []

    def counted() -> Iterator[bytes]:
        for number in range(2):
            read_pieces.append(number)
            yield b"ab"

    reader = make_reader(counted())
    assert read_pieces == []
    assert reader.readinto(memoryview(bytearray(1))) == 1
    assert reader.readinto(memoryview(bytearray(1))) == 1
    assert read_pieces == [0], "the rest of a piece is returned before the next piece is read"


def test_close_reader_closes_its_source() -> None:
    owner = ReadAndClose(b"abc")
    reader = make_reader(owner)
    reader.close()
    assert owner.closed == 1
    assert reader.readinto(memoryview(bytearray(3))) == 0


def test_close_generator_ends_it() -> None:
    ended: list[bool] = []

    def generator() -> Iterator[bytes]:
        try:
            yield b"abc"
        finally:
            ended.append(True)

    reader = make_reader(generator())
    reader.readinto(memoryview(bytearray(1)))
    reader.close()
    assert ended == [True]
    reader.close()
    assert reader.readinto(memoryview(bytearray(3))) == 0


def test_close_discards_rest_of_piece() -> None:
    reader = make_reader(b"abc")
    reader.readinto(memoryview(bytearray(1)))
    reader.close()
    reader.close()
    assert reader.readinto(memoryview(bytearray(3))) == 0


def test_readinto_source_raises_passes_exception_unchanged() -> None:
    lost = OSError("lost")

    def failing() -> Iterator[bytes]:
        yield b"ab"
        raise lost

    reader = make_reader(failing())
    assert reader.readinto(memoryview(bytearray(3))) == 2
    with pytest.raises(OSError, match="lost") as caught:
        reader.readinto(memoryview(bytearray(3)))
    assert caught.value is lost


@pytest.mark.parametrize("body", [None, 5, "text", object(), io.StringIO("text")], ids=lambda b: type(b).__name__)
def test_make_reader_unsupported_type_raises_usage_error(body: Any) -> None:
    with pytest.raises(
        UsageError, match=f"^body must be bytes, a binary reader or an iterable of bytes, got {type(body).__name__}$"
    ):
        make_reader(body)


@pytest.mark.parametrize("piece", ["text", 5, None], ids=lambda piece: type(piece).__name__)
def test_readinto_piece_other_than_bytes_raises_usage_error(piece: Any) -> None:
    reader = make_reader([piece])
    with pytest.raises(UsageError, match=f"^body must yield bytes, got {type(piece).__name__}$"):
        reader.readinto(memoryview(bytearray(3)))


def test_readinto_nonblocking_source_raises_usage_error() -> None:
    class NonBlocking:
        def read(self, size: int) -> None:
            return None

    with pytest.raises(UsageError, match="non-blocking"):
        make_reader(NonBlocking()).readinto(memoryview(bytearray(3)))
