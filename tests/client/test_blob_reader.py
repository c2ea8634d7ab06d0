"""`BlobReader`: content is verified before its last byte is returned, and the response is closed."""

from __future__ import annotations

import array
import gc
import gzip
import io
import json
import shutil
import tarfile
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire import BlobReader, Descriptor, Digest, Response
from ociwire.errors import DigestMismatch, ReadError, SizeMismatch, UsageError
from tests._support.doubles import FakeReader

CONTENT = b"the content of a blob, of no great length"


def open_reader(
    *pieces: bytes | Exception, expected: bytes = CONTENT, size: int | None = None, algorithm: str = "sha256"
) -> tuple[BlobReader, FakeReader]:
    """Return a reader that expects the content `expected`, and its body, which delivers `pieces`."""
    body = FakeReader(pieces)
    descriptor = Descriptor.of(expected, algorithm=algorithm)
    return BlobReader(Response(200, (), body), descriptor.replace(size=len(expected) if size is None else size)), body


# --- right content ---


READS: dict[str, Callable[[BlobReader], bytes]] = {
    "read()": lambda reader: reader.read(),
    "read(None)": lambda reader: reader.read(None),
    "read(-1)": lambda reader: reader.read(-1),
    "readall()": lambda reader: reader.readall(),
    "read(size)": lambda reader: reader.read(reader.descriptor.size),
    "read(more)": lambda reader: reader.read(reader.descriptor.size + 1000),
    "read(1)": lambda reader: b"".join(iter(lambda: reader.read(1), b"")),
    "lines": lambda reader: b"".join(reader),
    "iter(read)": lambda reader: b"".join(iter(lambda: reader.read(7), b"")),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_read_right_content_is_verified(read: Callable[[BlobReader], bytes], algorithm: str) -> None:
    reader, body = open_reader(CONTENT[:10], CONTENT[10:], algorithm=algorithm)
    assert not reader.verified
    assert read(reader) == CONTENT
    assert reader.verified
    assert body.closed
    assert reader.read() == b""
    assert reader.read(5) == b""
    assert reader.readinto(bytearray(5)) == 0
    reader.verify()
    reader.close()
    assert reader.verified


def test_blob_reader_is_readable_raw_file() -> None:
    reader, _ = open_reader(CONTENT)
    with reader:
        assert isinstance(reader, io.RawIOBase)
        assert reader.readable()
        assert not reader.writable()
        assert not reader.seekable()
        assert reader.descriptor == Descriptor.of(CONTENT)


def test_read_last_byte_verifies_and_closes_body() -> None:
    reader, body = open_reader(CONTENT)
    assert reader.read(len(CONTENT) - 1) == CONTENT[:-1]
    assert not reader.verified
    assert not body.closed
    assert reader.read(1) == CONTENT[-1:]
    assert reader.verified
    assert body.closed


def test_readinto_large_buffer_returns_available_bytes() -> None:
    reader, _ = open_reader(b"ab", b"cde", expected=b"abcde")
    buffer = bytearray(10)
    assert reader.readinto(buffer) == 2
    assert reader.readinto(memoryview(buffer)[2:]) == 3
    assert buffer[:5] == b"abcde"
    assert reader.verified


def test_readinto_array_of_integers_counts_bytes() -> None:
    content = bytes(range(12))
    reader, _ = open_reader(content, expected=content)
    items = array.array("I", [0] * 4)
    assert reader.readinto(items) == 12
    assert items.tobytes()[:12] == content


def test_read_of_zero_bytes_reads_nothing() -> None:
    reader, body = open_reader(CONTENT)
    assert reader.read(0) == b""
    assert reader.readinto(bytearray()) == 0
    assert not reader.verified
    assert not body.closed
    assert reader.read() == CONTENT


def test_verify_after_partial_read_reads_rest() -> None:
    reader, body = open_reader(CONTENT[:20], CONTENT[20:])
    assert reader.read(5) == CONTENT[:5]
    reader.verify()
    assert reader.verified
    assert body.closed
    reader.verify()


def test_read_large_content_in_pieces_is_verified() -> None:
    content = bytes(range(256)) * 16 * 1024  # 4 MiB
    reader, _ = open_reader(
        *(content[start : start + 100_000] for start in range(0, len(content), 100_000)), expected=content
    )
    assert reader.read(3_000_000) + reader.read() == content
    assert reader.verified


def test_read_empty_content_is_verified() -> None:
    for read in (*READS.values(), lambda reader: reader.verify() or b"", lambda reader: reader.read(0)):
        reader, body = open_reader(expected=b"")
        assert not reader.verified
        assert read(reader) == b""
        assert reader.verified
        assert body.closed


# --- wrong content ---


@pytest.mark.parametrize("read", [*READS.values(), BlobReader.verify], ids=[*READS, "verify()"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_read_wrong_content_raises_digest_mismatch(read: Callable[[BlobReader], Any], algorithm: str) -> None:
    wrong = CONTENT[:-1] + b"!"
    reader, body = open_reader(wrong, algorithm=algorithm)
    with pytest.raises(DigestMismatch) as caught:
        read(reader)
    assert caught.value.expected == Digest.of(CONTENT, algorithm)
    assert caught.value.actual == Digest.of(wrong, algorithm)
    assert str(Digest.of(CONTENT, algorithm)) in str(caught.value)
    assert not reader.verified
    assert body.closed


def test_read_wrong_content_withholds_last_byte() -> None:
    reader, _ = open_reader(b"X" + CONTENT[1:])
    assert reader.read(len(CONTENT) - 1) == b"X" + CONTENT[1:-1]
    with pytest.raises(DigestMismatch):
        reader.read(1)
    with pytest.raises(UsageError):
        reader.read()  # not b"", which would look like the end of correct content


@pytest.mark.parametrize("read", [*READS.values(), BlobReader.verify], ids=[*READS, "verify()"])
@pytest.mark.parametrize(
    ("pieces", "size", "actual"),
    [
        ((CONTENT,), len(CONTENT) + 1, len(CONTENT)),
        ((CONTENT[:3], CONTENT[3:7]), len(CONTENT), 7),
        ((), 1, 0),
        ((CONTENT + b"x",), len(CONTENT), len(CONTENT) + 1),
        ((CONTENT, b"x" * 5000), len(CONTENT), len(CONTENT) + 1),
        ((b"x",), 0, 1),
    ],
)
def test_read_wrong_size_raises_size_mismatch(
    pieces: tuple[bytes, ...], size: int, actual: int, read: Callable[[BlobReader], Any]
) -> None:
    reader, body = open_reader(*pieces, size=size)
    with pytest.raises(SizeMismatch) as caught:
        read(reader)
    assert (caught.value.expected, caught.value.actual) == (size, actual)
    assert not reader.verified
    assert body.closed


def test_read_too_many_bytes_raises_before_reading_all() -> None:
    reader, body = open_reader(CONTENT, *[b"x" * 1024] * 1000)
    with pytest.raises(SizeMismatch, match=r"expected .* bytes, but the response is longer$"):
        reader.read()
    assert body.bytes_read <= len(CONTENT) + 1024


def test_read_empty_content_with_wrong_digest_raises_digest_mismatch() -> None:
    reader, body = open_reader(expected=CONTENT, size=0)
    with pytest.raises(DigestMismatch):
        reader.read()
    assert body.closed


@pytest.mark.parametrize("header", [Digest.of(b"another"), Digest.of(CONTENT, "sha512"), "garbage"])
def test_read_digest_header_is_ignored(header: str) -> None:
    headers = {"Docker-Content-Digest": header}
    assert BlobReader(Response(200, headers, CONTENT), Descriptor.of(CONTENT)).read() == CONTENT
    consistent = Response(200, {"Docker-Content-Digest": Digest.of(b"another")}, b"another")
    with pytest.raises(DigestMismatch):
        BlobReader(consistent, Descriptor.of(b"content")).read()


def test_blob_reader_unknown_algorithm_raises_usage_error() -> None:
    with pytest.raises(UsageError, match="md5"), Response(200, (), b"abc") as response:
        BlobReader(response, Descriptor("a/b", Digest("md5:900150983cd24fb0d6963f7d28e17f72"), 3))


@pytest.mark.parametrize("error", [ReadError("reset"), OSError("of the body"), ZeroDivisionError("foreign")])
def test_read_exception_of_body_propagates_and_closes_body(error: Exception) -> None:
    reader, body = open_reader(CONTENT[:9], error, CONTENT[9:])
    assert reader.read(9) == CONTENT[:9]
    with pytest.raises(type(error)) as caught:
        reader.read()
    assert caught.value is error
    assert body.closed
    assert not reader.verified


# --- arbitrary pieces and buffer sizes ---


@st.composite
def draw_pieces(draw: st.DrawFn, content: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=8)))
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]


def read_in_sizes(reader: BlobReader, sizes: list[int], *, uses_readinto: bool) -> bytes:
    read = b""
    for number in range(10_000):
        if reader.verified:
            return read
        size = sizes[number % len(sizes)]
        if uses_readinto:
            buffer = bytearray(size)
            count = reader.readinto(buffer)
            assert count <= size
            read += buffer[:count]
        else:
            piece = reader.read(size)
            assert len(piece) == min(size, reader.descriptor.size - len(read))
            read += piece
    raise AssertionError("the reader does not reach the end")


SIZES = st.lists(st.integers(0, 70), max_size=5).map(lambda sizes: [*sizes, 1])


@given(data=st.data(), content=st.binary(max_size=200), sizes=SIZES, uses_readinto=st.booleans())
def test_read_any_pieces_and_buffers_returns_content(
    data: st.DataObject, content: bytes, sizes: list[int], uses_readinto: bool
) -> None:
    reader, body = open_reader(*data.draw(draw_pieces(content)), expected=content)
    assert read_in_sizes(reader, sizes, uses_readinto=uses_readinto) == content
    assert body.closed


@given(data=st.data(), content=st.binary(min_size=1, max_size=200), sizes=SIZES, uses_readinto=st.booleans())
def test_read_any_flipped_byte_raises_digest_mismatch(
    data: st.DataObject, content: bytes, sizes: list[int], uses_readinto: bool
) -> None:
    index = data.draw(st.integers(0, len(content) - 1))
    wrong = bytearray(content)
    wrong[index] ^= data.draw(st.integers(1, 255))
    reader, body = open_reader(*data.draw(draw_pieces(bytes(wrong))), expected=content)
    with pytest.raises(DigestMismatch):
        read_in_sizes(reader, sizes, uses_readinto=uses_readinto)
    assert body.closed


# --- readers of the standard library ---


def test_blob_reader_in_copyfileobj_verifies() -> None:
    reader, _ = open_reader(CONTENT[:3], CONTENT[3:])
    target = io.BytesIO()
    shutil.copyfileobj(reader, target, 8)
    assert target.getvalue() == CONTENT
    assert reader.verified

    reader, _ = open_reader(CONTENT[:-1] + b"?")
    target = io.BytesIO()
    with pytest.raises(DigestMismatch):
        shutil.copyfileobj(reader, target, 8)
    assert len(target.getvalue()) < len(CONTENT)


def test_blob_reader_in_buffered_reader_verifies() -> None:
    reader, _ = open_reader(CONTENT[:3], CONTENT[3:])
    with io.BufferedReader(reader, 16) as buffered:
        assert buffered.peek(1)[:1] == CONTENT[:1]
        assert buffered.read(20) + buffered.read() == CONTENT
        assert reader.verified
    assert reader.closed

    reader, body = open_reader(b"?" + CONTENT[1:])
    with io.BufferedReader(reader, 16) as buffered, pytest.raises(DigestMismatch):
        buffered.read()
    assert body.closed


def test_blob_reader_in_json_load_verifies() -> None:
    config = {"architecture": "amd64", "os": "linux"}
    content = json.dumps(config).encode()
    assert json.load(open_reader(content[:5], content[5:], expected=content)[0]) == config
    with pytest.raises(DigestMismatch):
        json.load(open_reader(content.replace(b"amd64", b"arm64"), expected=content)[0])


def test_blob_reader_in_text_wrapper_reads_lines() -> None:
    content = "\N{GREEK SMALL LETTER ALPHA}\nb\n".encode()
    with io.TextIOWrapper(
        io.BufferedReader(open_reader(content[:1], content[1:], expected=content)[0]), "utf-8"
    ) as text:
        assert list(text) == ["\N{GREEK SMALL LETTER ALPHA}\n", "b\n"]


def layer(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def extract(reader: BlobReader) -> dict[str, bytes]:
    with tarfile.open(fileobj=reader, mode="r|gz") as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    reader.verify()  # tarfile may stop reading before the end of the file
    return files


def test_blob_reader_in_tarfile_verifies() -> None:
    noise = b"".join(Digest.of(bytes([a, b])).encode() for a in range(32) for b in range(64))
    files = {"etc/passwd": b"root:x:0:0", "empty": b"", "noise": noise}
    content = layer(files)
    reader, body = open_reader(
        *(content[start : start + 999] for start in range(0, len(content), 999)), expected=content
    )
    assert extract(reader) == files
    assert reader.verified
    assert body.closed


def test_blob_reader_in_tarfile_wrong_content_raises_digest_mismatch() -> None:
    content = layer({"a": b"content"})
    other = layer({"a": b"another"})
    assert gzip.decompress(other) != gzip.decompress(content)
    reader, body = open_reader(other, expected=content, size=len(other))
    with pytest.raises(DigestMismatch):
        extract(reader)
    assert body.closed


# --- closing ---


def test_close_before_end_closes_body_unverified() -> None:
    for count in (0, 5):
        reader, body = open_reader(CONTENT)
        with reader:
            reader.read(count)
            assert not body.closed
        assert body.closed
        assert reader.closed
        assert not reader.verified


@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize(
    "call",
    [
        BlobReader.read,
        BlobReader.readall,
        lambda reader: reader.read(1),
        lambda reader: reader.read(0),
        lambda reader: reader.readinto(bytearray(5)),
        lambda reader: next(reader),
    ],
)
def test_read_after_close_raises_value_error(call: Callable[[BlobReader], Any], is_complete: bool) -> None:
    reader, _ = open_reader(CONTENT)
    reader.read(-1 if is_complete else 5)
    reader.close()
    reader.close()
    with pytest.raises(ValueError):  # like other closed files of Python. UsageError is a ValueError
        call(reader)


def test_verify_after_close_raises_usage_error() -> None:
    reader, _ = open_reader(CONTENT)
    reader.close()
    with pytest.raises(UsageError, match="closed"):
        reader.verify()
    assert not reader.verified


@pytest.mark.parametrize("count", [0, 5])
def test_finalizer_open_reader_warns_and_does_not_close_body(count: int) -> None:
    reader, body = open_reader(CONTENT)
    reader.read(count)
    digest = reader.descriptor.digest
    readers = [reader]
    del reader
    with pytest.warns(ResourceWarning, match=str(digest)):
        readers.clear()
    assert not body.closed  # closing a body may log or wait for a lock, which a finalizer must not do


def test_finalizer_finished_reader_does_not_warn() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reader, _ = open_reader(CONTENT)
        reader.read()
        reader, _ = open_reader(CONTENT)
        reader.close()
        reader, _ = open_reader(b"wrong")
        with pytest.raises(SizeMismatch):
            reader.read()
        with pytest.raises(UsageError):
            BlobReader(Response(200, (), b"abc"), Descriptor("a/b", Digest("md5:abc"), 3))
        del reader
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
