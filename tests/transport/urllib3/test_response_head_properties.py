"""Property tests of response heads and bodies that are received in pieces."""

from __future__ import annotations

import io
import math
import re
from http.client import IncompleteRead, RemoteDisconnected
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ociwire._http.headers import Headers
from ociwire.errors import ProtocolError
from ociwire.transport._urllib3.response import WireResponse
from ociwire.transport._urllib3.response_head import Head, framed_length, read_head
from ociwire.transport._urllib3.socket_reader import SocketReader
from ociwire.transport._urllib3.timeouts import TimeLimit, Timeouts
from tests._support.examples import example_count

quick = settings(max_examples=example_count(150), deadline=None)

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
names = st.text(TOKEN, min_size=1, max_size=12)
visible = st.characters(min_codepoint=0x21, max_codepoint=0xFF)
values = st.lists(st.text(visible, min_size=1, max_size=12), max_size=4).map(" ".join)
fields = st.lists(st.tuples(names, values), max_size=6)
reasons = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=20)
sizes = st.lists(st.integers(1, 40), min_size=1, max_size=8)
LINE_ENDS = st.sampled_from(["\r\n", "\n"])


class Pieces(io.RawIOBase):
    """Stream that returns one piece per read."""

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        self._data = data
        self._cuts = cuts
        self._reads = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._cuts[self._reads % len(self._cuts)])
        self._reads += 1
        piece, self._data = self._data[:size], self._data[size:]
        buffer[: len(piece)] = piece
        return len(piece)


class FakeSocket:
    """Socket that returns pieces, for `SocketReader`."""

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        self._pieces = Pieces(data, cuts)

    def makefile(self, mode: str, buffering: int | None = None) -> Any:
        return io.BytesIO()

    def recv_into(self, buffer: Any) -> int:
        return self._pieces.readinto(buffer)


def make_reader(data: bytes, cuts: list[int]) -> SocketReader:
    return SocketReader(FakeSocket(data, cuts), TimeLimit(Timeouts(1), None))  # type: ignore[arg-type]


@st.composite
def heads(draw: st.DrawFn) -> tuple[bytes, Head]:
    """Draw the bytes of a head, with optional variations, and the parsed head."""
    minor = draw(st.integers(0, 9))
    status = draw(st.integers(100, 999))
    reason = draw(reasons)
    expected = draw(fields)
    lines = [f"HTTP/1.{minor} {status}" + draw(st.sampled_from(["", " "] if not reason else [" "])) + reason]
    for name, value in expected:
        before, after = draw(st.text(" \t", max_size=2)), draw(st.text(" \t", max_size=2))
        fold = draw(st.sampled_from([" ", "\r\n ", "\n\t"])) if " " in value else " "
        head, space, tail = value.partition(" ")
        lines.append(f"{name}:{before}{head}{fold if space else ''}{tail}{after}")
    ends = [draw(LINE_ENDS) for _ in range(len(lines) + 1)]
    text = "".join(line + end for line, end in zip([*lines, ""], ends, strict=True))
    return text.encode("latin-1"), Head(min(1, minor), status, reason, Headers.received(expected))


@quick
@given(heads(), sizes, st.binary(max_size=20))
def test_read_head_any_cuts_same_result(written: tuple[bytes, Head], cuts: list[int], following: bytes) -> None:
    data, expected = written
    for stream in (
        io.BytesIO(data + following),
        Pieces(data + following, cuts),
        io.BufferedReader(Pieces(data + following, cuts)),
        make_reader(data + following, cuts),
        make_reader(data + following, cuts).makefile("rb"),
    ):
        head = read_head(stream)
        assert (head.minor, head.status, head.reason.strip()) == (
            expected.minor,
            expected.status,
            expected.reason.strip(),
        )
        assert list(head.headers.items()) == list(expected.headers.items())
        assert stream.read() == following  # the bytes after the head are kept


def test_read_head_is_received_in_blocks() -> None:
    # Receiving 2 MiB of interim responses byte by byte took 12 s of processor time.
    class CountingSocket(FakeSocket):
        calls = 0

        def settimeout(self, seconds: float | None) -> None:
            pass

        def recv(self, count: int) -> bytes:
            buffer = bytearray(count)
            return bytes(buffer[: self.recv_into(buffer)])

        def recv_into(self, buffer: Any) -> int:
            self.calls += 1
            return super().recv_into(buffer)

    message = b"HTTP/1.1 103 Hints\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"
    sock = CountingSocket(message + b"body", [len(message)])
    reader = SocketReader(sock, TimeLimit(Timeouts(1), None))  # type: ignore[arg-type]
    assert reader.wait_for_status(math.inf) == 103
    assert read_head(reader).size == len(message)
    assert reader.read() == b"body"
    assert sock.calls < 20


@quick
@given(heads(), st.data())
def test_read_head_cut_off_raises(written: tuple[bytes, Head], data: st.DataObject) -> None:
    message, _ = written
    at = data.draw(st.integers(0, len(message) - 1))
    with pytest.raises(ProtocolError if at else RemoteDisconnected):
        read_head(io.BytesIO(message[:at]))


PARTS = st.sampled_from(
    [
        b"HTTP/1.1 ",
        b"HTTP/1.1 200 OK\r\n",
        b"200",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"X: y\r\n",
        b"\0",
        b"\xff",
        b"x" * 9000,
    ]
)
garbage = st.one_of(st.binary(max_size=100), st.lists(PARTS, max_size=12).map(b"".join))


@quick
@given(garbage)
def test_read_head_garbage_is_valid_or_raises(data: bytes) -> None:
    try:
        head = read_head(io.BytesIO(data))
        framed_length(head, "GET")
    except (ProtocolError, RemoteDisconnected):
        return
    assert 100 <= head.status <= 999
    assert not any(set("\r\n\0") & set(name + value) for name, value in head.headers.items())


@quick
@given(
    st.sampled_from(["Content-Length", "Transfer-Encoding"]), st.text(st.characters(max_codepoint=0xFF), max_size=12)
)
def test_framed_length_is_unambiguous_or_raises(name: str, value: str) -> None:
    head = Head(1, 200, "", Headers.received([(name, value)]))
    try:
        chunked, length = framed_length(head, "GET")
    except ProtocolError:
        return
    if chunked:
        assert (name, value.lower()) == ("Transfer-Encoding", "chunked")
    elif name == "Content-Length":
        assert {re.fullmatch("[ \t]*0*([0-9]+)[ \t]*", part)[1] for part in value.split(",")} == {str(length)}  # type: ignore[index]


@st.composite
def framings(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """Draw a body, a response with it, and whether truncation of the body can be detected."""
    content = draw(st.binary(max_size=200)) * draw(st.sampled_from([1, 1, 100]))
    kind = draw(st.sampled_from(["sized", "chunked", "until close"]))
    if kind == "sized":
        return content, b"Content-Length: %d\r\n\r\n%b" % (len(content), content), True
    if kind == "until close":
        return content, b"\r\n" + content, False
    framed = b"Transfer-Encoding: chunked\r\n\r\n"
    rest = content
    while rest:
        size = draw(st.integers(1, max(1, len(content))))
        chunk, rest = rest[:size], rest[size:]
        extension = draw(st.sampled_from([b"", b" ", b";x", b'; x="y"']))
        framed += b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk)
    return content, framed + b"0\r\n" + draw(st.sampled_from([b"", b"T: x\r\n"])) + b"\r\n", True


def make_response(data: bytes, cuts: list[int]) -> WireResponse:
    response = WireResponse(make_reader(b"HTTP/1.1 200 OK\r\n" + data, cuts), method="GET")  # type: ignore[arg-type]
    response.begin()
    if response.length == 0 and not response.chunked:
        response.close()  # as the transport does
    return response


def read_by(response: WireResponse, buffers: list[int]) -> bytes:
    read, reads = b"", 0
    while True:
        buffer = bytearray(buffers[reads % len(buffers)])
        reads += 1
        count = response.readinto(buffer)
        if count == 0:
            return read
        read += buffer[:count]


@quick
@given(
    framings(),
    st.lists(st.integers(1, 5000), min_size=1, max_size=5),
    st.lists(st.integers(1, 9000), min_size=1, max_size=5),
)
def test_response_any_framing_returns_content(
    framing: tuple[bytes, bytes, bool], cuts: list[int], buffers: list[int]
) -> None:
    content, data, _ = framing
    response = make_response(data, cuts)
    assert read_by(response, buffers) == content
    assert response.isclosed()
    assert response.readinto(bytearray(5)) == 0


@quick
@given(framings(), st.lists(st.integers(1, 300), min_size=1, max_size=5), st.data())
def test_response_body_cut_short_raises(
    framing: tuple[bytes, bytes, bool], buffers: list[int], data: st.DataObject
) -> None:
    _, message, is_detectable = framing
    head = message.index(b"\r\n\r\n") + 4 if not message.startswith(b"\r\n") else 2
    if not is_detectable or head == len(message):
        return
    at = data.draw(st.integers(head, len(message) - 1))
    response = make_response(message[:at], [7])
    with pytest.raises(IncompleteRead):
        read_by(response, buffers)
    assert not response.isclosed()
    response.close()
