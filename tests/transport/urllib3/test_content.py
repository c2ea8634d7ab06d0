"""Request content: its types, content of the wrong length, and content that raises an exception."""

from __future__ import annotations

import io
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from ociwire._http.messages import Body
from ociwire.errors import BodyConsumedError, ConnectError, ReadError, SizeMismatch, UsageError
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import (
    CONTINUE,
    Content,
    Peer,
    get,
    put,
    read,
    read_until_close,
    reply,
    respond,
    respond_after_body,
)

FRAMINGS = ("sized", "chunked")
one_kind = pytest.mark.parametrize("kind", ["http"])
two_kinds = pytest.mark.parametrize("kind", ["http", "tls1.3"])


def send_continue(peer: Peer) -> None:
    """Read any part of a body."""
    peer.read_head()
    peer.send(CONTINUE)


class Unseekable(io.BytesIO):
    """File over a pipe."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise OSError("a pipe has no position")


class Seekable(io.BytesIO):
    """Seekable file."""


def list_of(data: bytes) -> list[bytes]:
    return [data[:5], b"", data[5:]]


def iter_of(data: bytes) -> Iterator[bytes]:
    return iter(list_of(data))


class TestContent:
    """Content of all types is sent unchanged."""

    @two_kinds
    @pytest.mark.parametrize("length", [None, 3_000_000])
    @pytest.mark.parametrize("make", [Unseekable, Seekable, bytearray, list_of, iter_of])
    def test_content_any_type_is_sent(self, wire: Wire, make: Any, length: int | None) -> None:
        data = bytes(range(250)) * 12_000
        server = wire.serve(respond_after_body(CONTINUE))
        assert read(wire.transport().round_trip(put(server.url, Body.of(make(data), length=length)))) == (201, b"")
        assert server.peer(0).bodies == [data]
        chunked = length is None and make not in (Seekable, bytearray, list_of)
        assert server.peer(0).field("transfer-encoding") == (b"chunked" if chunked else None)
        assert server.peer(0).field("content-length") == (None if chunked else b"3000000")

    @one_kind
    @pytest.mark.parametrize("length", [None, 0])
    def test_content_empty_sends_length_zero(self, wire: Wire, length: int | None) -> None:
        server = wire.serve(respond_after_body(CONTINUE if length is None else b""), respond(reply(200)))
        transport = wire.transport()
        body = Body.of(iter(()), length=length)
        with transport.round_trip(put(server.url, body)) as response:
            assert response.status == 201
        assert server.peer(0).bodies == [b""]
        server.peer(0).close()
        assert read(transport.round_trip(get(server.url))) == (200, b"")

    @one_kind
    def test_content_file_is_sent_from_its_position(self, wire: Wire) -> None:
        file = io.BytesIO(b"0123456789")
        file.seek(4)
        server = wire.serve(respond(reply(201)))
        assert read(wire.transport().round_trip(put(server.url, Body.of(file)))) == (201, b"")
        assert server.peer(0).bodies == [b"456789"]
        assert not file.closed

    @one_kind
    def test_content_consumed_body_sends_nothing(self, wire: Wire) -> None:
        body = Content(b"abc").body("sized")
        next(body.open())
        server = wire.serve()  # no connection is opened
        with pytest.raises(BodyConsumedError) as raised:
            wire.transport().round_trip(put(server.url, body))
        assert raised.value.request is not None


class TestWrongLength:
    """The transport checks the length while it sends: the server never receives a complete request."""

    @pytest.mark.parametrize(
        ("chunks", "length", "actual"),
        [
            ((b"abc",), 5, 3),
            ((b"abc", b"d"), 5, 4),
            ((), 1, 0),
            ((b"x" * 100_000,) * 30, 3_000_001, 3_000_000),
            ((b"abcdef",), 5, 6),
            ((b"abc", b"def"), 5, 6),
            ((b"abcde", b"f"), 5, 6),
            ((b"abcde", b"", b"f"), 5, 6),
            ((b"x" * 100_000,) * 31, 3_000_000, 3_100_000),
        ],
    )
    def test_content_wrong_length_raises_size_mismatch(
        self, wire: Wire, chunks: tuple[bytes, ...], length: int, actual: int
    ) -> None:
        server = wire.serve(send_continue, respond(reply(200)))
        transport = wire.transport()
        with pytest.raises(SizeMismatch) as raised:
            transport.round_trip(put(server.url, Body.of(iter(chunks), length=length)))
        assert (raised.value.expected, raised.value.actual) == (length, actual)
        assert server.ended(0).field("content-length") == str(length).encode()
        assert len(server.peer(0).rest) < length
        assert b"".join(chunks).startswith(server.peer(0).rest)
        assert read(transport.round_trip(get(server.url))) == (200, b"")

    @one_kind
    @pytest.mark.parametrize("length", [2, 4])
    def test_content_wrong_length_of_bytes_raises_size_mismatch(self, wire: Wire, length: int) -> None:
        server = wire.serve(read_until_close)
        with pytest.raises(SizeMismatch):
            wire.transport().round_trip(put(server.url, Body.of(b"abc", length=length)))
        server.ended(0)
        assert len(server.peer(0).rest.partition(b"\r\n\r\n")[2]) < length

    @two_kinds
    def test_content_longer_than_zero_length_sends_nothing(self, wire: Wire) -> None:
        server = wire.serve(read_until_close)
        with pytest.raises(SizeMismatch):
            wire.transport().round_trip(put(server.url, Body.of(iter([b"x"]), length=0)))
        assert server.ended(0).rest == b""


ERRORS = [
    ValueError("mine"),
    OSError(5, "mine"),
    BrokenPipeError("mine"),
    ConnectionResetError("mine"),
    TimeoutError("mine"),
    ssl.SSLEOFError("mine"),
    urllib3.exceptions.HTTPError("mine"),
    urllib3.exceptions.ProtocolError("mine"),
    urllib3.exceptions.ReadTimeoutError(None, "/", "mine"),  # type: ignore[arg-type]
    ReadError("mine"),
    ConnectError("mine"),
    UsageError("mine"),
    SizeMismatch("mine"),
    KeyboardInterrupt("mine"),
    SystemExit("mine"),
]


def exception_id(value: object) -> str | None:
    return f"{type(value).__module__}.{type(value).__name__}" if isinstance(value, BaseException) else None


class TestContentException:
    """The exception is raised unchanged, and the server never receives a complete request."""

    @two_kinds
    @pytest.mark.parametrize("framing", FRAMINGS)
    @pytest.mark.parametrize("error", ERRORS, ids=exception_id)
    def test_content_exception_in_middle_is_raised_unchanged(
        self, wire: Wire, framing: str, error: BaseException
    ) -> None:
        server = wire.serve(send_continue, respond(reply(200)))
        transport = wire.transport()
        recorded = Content(b"one", b"two", error, b"three")
        with pytest.raises(type(error)) as raised:
            transport.round_trip(put(server.url, recorded.body(framing)))
        check_unchanged(raised.value, error)
        server.ended(0)
        assert not server.peer(0).rest.endswith(b"\r\n0\r\n\r\n")
        assert len(server.peer(0).rest) < len(recorded.data) or framing == "chunked"
        assert read(transport.round_trip(get(server.url))) == (200, b"")

    @one_kind
    @pytest.mark.parametrize("framing", FRAMINGS)
    @pytest.mark.parametrize("error", ERRORS, ids=exception_id)
    def test_content_exception_on_reused_connection_is_raised_unchanged(
        self, wire: Wire, framing: str, error: BaseException
    ) -> None:
        # No byte was received or sent, but the connection did not fail: the request must not be resent.
        server = wire.serve(respond(reply(200)))
        transport = wire.transport(expect_timeout=0)
        assert read(transport.round_trip(get(server.url))) == (200, b"")
        recorded = Content(error, b"never")
        with pytest.raises(type(error)) as raised:
            transport.round_trip(put(server.url, recorded.body(framing)))
        check_unchanged(raised.value, error)
        assert recorded.chunks_read == 0

    @one_kind
    def test_content_exception_in_mapped_function_is_raised_unchanged(self, wire: Wire) -> None:
        error = ConnectionResetError("mine")

        def fail(_chunk: bytes) -> bytes:
            raise error

        server = wire.serve(send_continue)
        with pytest.raises(ConnectionResetError) as raised:
            wire.transport().round_trip(put(server.url, Body.of(b"x" * 300_000).map(fail)))
        check_unchanged(raised.value, error)

    @one_kind
    def test_content_exception_keeps_its_cause(self, wire: Wire) -> None:
        def content() -> Iterator[bytes]:
            yield b"one"
            try:
                raise KeyError("why")
            except KeyError as error:
                raise OSError("mine") from error

        server = wire.serve(send_continue)
        with pytest.raises(OSError, match="mine") as raised:
            wire.transport().round_trip(put(server.url, Body.of(content())))
        assert isinstance(raised.value.__cause__, KeyError)

    @one_kind
    @pytest.mark.parametrize("chunk", ["text", 5, None])
    def test_content_chunk_of_other_type_raises_usage_error(self, wire: Wire, chunk: Any) -> None:
        server = wire.serve(send_continue)
        with pytest.raises(UsageError, match="chunk of the content must be bytes"):
            wire.transport().round_trip(put(server.url, Body.of(iter([b"one", chunk]))))


def check_unchanged(raised: BaseException, error: BaseException) -> None:
    try:
        assert raised is error
        assert (raised.__cause__, raised.__context__) == (None, None)
        assert not getattr(raised, "__notes__", None)
        assert getattr(raised, "request", None) is None
    finally:
        error.__traceback__ = None  # another test raises it again
        error.__cause__ = error.__context__ = None
