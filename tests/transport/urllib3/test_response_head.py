"""Valid and invalid heads, framing and bodies of responses."""

from __future__ import annotations

import threading

import pytest

from ociwire._http.messages import Request
from ociwire.errors import ProtocolError, ReadError
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import Peer, Script, get, put, read, reply, respond, wait

every_kind = pytest.mark.parametrize("kind", ["http", "tls1.2", "tls1.3"])

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def kind() -> str:
    """Return plain http. Heads do not depend on TLS."""
    return "http"


def send_raw(data: bytes, *, then_close: bool = True) -> Script:
    """Return a script that reads a request, sends data, and closes unless `then_close` is false."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(data)
        if then_close:
            peer.close()

    return script


class TestHeads:
    """The head of a response."""

    @every_kind
    @pytest.mark.parametrize(
        "head",
        [
            b"H",
            b"HTTP/1.1 200",
            b"HTTP/1.1 200 OK\r",
            OK,
            OK + b"Content-Le",
            OK + b"Content-Length: 5",
            OK + b"Content-Length: 0\r",
            OK + b"Content-Length: 0\r\n",
            OK + b"Content-Length: 0\r\n\r",
            b"HTTP/1.1 100 Continue\r\n",
            b"HTTP/1.1 103 Hints\r\nLink: <a",
        ],
    )
    def test_head_cut_off_raises_protocol_error(self, wire: Wire, head: bytes) -> None:
        server = wire.serve(send_raw(head))
        with pytest.raises(ProtocolError) as raised:
            wire.transport().round_trip(get(server.url))
        assert raised.value.request is not None

    @every_kind
    @pytest.mark.parametrize("data", [b"", reply(100), reply(103) + reply(102)])
    def test_head_missing_raises_read_error(self, wire: Wire, data: bytes) -> None:
        server = wire.serve(send_raw(data))
        with pytest.raises(ReadError) as raised:
            wire.transport().round_trip(get(server.url))
        assert raised.value.request is not None
        assert raised.value.__cause__ is not None

    @pytest.mark.parametrize(
        "head",
        [
            b"\r\n" + OK + b"\r\n",
            b"SSH-2.0-OpenSSH_9.6p1\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 +20 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"HTTP/1.1\t200 OK\r\n\r\n",
            b"HTTP/1.10 200 OK\r\n\r\n",
            b"http/1.1 200 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1 \u0662\u0660\u0660 OK\r\n\r\n".encode(),
            b"<!doctype html>" * 10_000,
            b"\x16\x03\x01\x02\x00\n",
            OK + b"no colon\r\n\r\n",
            OK + b": no name\r\n\r\n",
            OK + b"a name: x\r\n\r\n",
            OK + b"\x00Name: x\r\n\r\n",
            OK + b"Name: \x00\r\n\r\n",
            OK + b" Folded: first\r\n\r\n",
            OK + b"Na\rme: x\r\n\r\n",
            OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
            OK + b"X: y\r\n" * 20_000 + b"\r\n",
            OK + b"X: y\r\n" * 20_000,
        ],
        ids=lambda head: repr(head[:30]) if isinstance(head, bytes) else None,
    )
    def test_head_invalid_raises_protocol_error(self, wire: Wire, head: bytes) -> None:
        server = wire.serve(send_raw(head, then_close=False))
        with pytest.raises(ProtocolError) as raised:
            wire.transport(timeout=1).round_trip(get(server.url))
        assert raised.value.request is not None

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            (b"X: y", "y"),
            (b"X:y", "y"),
            (b"X:  \t y \t", "y"),
            (b"x: y", "y"),
            (b"X :y", "y"),
            (b"X:", ""),
            (b"X: a\r\nX: b", "a, b"),
            (b"X: a\r\n  b\r\n\tc", "a b c"),
            (b"X:\r\n a", "a"),
            (b"X: a\r\n \xa0b\x85", "a \xa0b\x85"),
            (b"X: a\rb", "a b"),
            (b"X: caf\xe9", "caf\xe9"),
            (b"X: a: b", "a: b"),
        ],
    )
    def test_head_fields_are_parsed(self, wire: Wire, field: bytes, value: str) -> None:
        server = wire.serve(send_raw(OK + field + b"\r\nContent-Length: 2\r\n\r\nhi"))
        response = wire.transport().round_trip(get(server.url))
        assert response.headers["x"] == value
        assert read(response) == (200, b"hi")

    @pytest.mark.parametrize(
        "line", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 200 All right\x85", b"HTTP/1.9 200 OK"]
    )
    def test_head_status_line_is_parsed(self, wire: Wire, line: bytes) -> None:
        server = wire.serve(send_raw(line + b"\r\nContent-Length: 2\r\n\r\nhi"))
        assert read(wire.transport().round_trip(get(server.url))) == (200, b"hi")

    def test_head_bare_lf_is_accepted(self, wire: Wire) -> None:
        server = wire.serve(send_raw(b"HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nhi"))
        assert read(wire.transport().round_trip(get(server.url))) == (200, b"hi")

    def test_head_fields_keep_order_and_repetition(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"", "Set-Cookie: a", "X: y", "set-cookie: b")))
        with wire.transport().round_trip(get(server.url)) as response:
            assert response.headers.get_all("Set-Cookie") == ("a", "b")
            assert [name for name, _ in response.headers.items()][:3] == ["Set-Cookie", "X", "set-cookie"]


class TestFraming:
    """The framing of the body."""

    @pytest.mark.parametrize(
        "fields",
        [
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 5, 6",
            b"Content-Length: -1",
            b"Content-Length: +5",
            b"Content-Length: 5_0",
            b"Content-Length: 0x5",
            b"Content-Length: 5.0",
            b"Content-Length: 5 5",
            b"Content-Length: \xb2",
            b"Content-Length: 5\x0b",
            b"Content-Length: \xa05",
            b"Content-Length:",
            b"Content-Length: 5,",
            b"Content-Length: " + b"9" * 30,
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked\x0b",
            b"Transfer-Encoding: \xa0chunked",
            b"Transfer-Encoding:",
        ],
    )
    def test_framing_invalid_raises_protocol_error(self, wire: Wire, fields: bytes) -> None:
        server = wire.serve(send_raw(OK + fields + b"\r\n\r\nhello", then_close=False))
        with pytest.raises(ProtocolError) as raised:
            wire.transport().round_trip(get(server.url))
        assert raised.value.request is not None

    @pytest.mark.parametrize(
        ("fields", "body"),
        [
            (b"Content-Length: 5", b"hello"),
            (b"Content-Length: 5\r\nContent-Length: 5", b"hello"),
            (b"Content-Length: 5, 5", b"hello"),
            (b"content-length: 005", b"hello"),
            (b"Transfer-Encoding: Chunked", b"5\r\nhello\r\n0\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b"0005 \t;x=y\r\nhello\r\n0;z\r\nTrailer: x\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b"2\nhe\n3\nllo\n0\n\n"),
            (b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n000\r\n\r\n"),
        ],
    )
    def test_framing_valid_body_is_read(self, wire: Wire, fields: bytes, body: bytes) -> None:
        def script(peer: Peer) -> None:
            send_raw(OK + fields + b"\r\n\r\n" + body, then_close=False)(peer)
            respond(reply(200, b"next"))(peer)

        server = wire.serve(script)
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (200, b"hello")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    def test_framing_length_and_chunked_closes_connection(self, wire: Wire) -> None:
        data = OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        server = wire.serve(send_raw(data, then_close=False), respond(reply(200)))
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (200, b"hello")
        assert read(transport.round_trip(get(server.url))) == (200, b"")

    @every_kind
    def test_framing_missing_body_ends_at_close(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            peer.read_request()
            peer.send(OK + b"\r\nhello", b" and", b" goodbye")
            peer.close(notify=True)

        server = wire.serve(script, respond(reply(200)))
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (200, b"hello and goodbye")
        assert read(transport.round_trip(get(server.url))) == (200, b"")


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class TestBrokenBodies:
    """A body that contradicts its framing raises an error, and its connection is not reused."""

    def check(self, wire: Wire, data: bytes, error: type[Exception], *, then_close: bool = True) -> None:
        server = wire.serve(send_raw(data, then_close=then_close), respond(reply(200, b"next")))
        transport = wire.transport()
        response = transport.round_trip(get(server.url))
        with pytest.raises(error) as raised:
            response.read()
        assert getattr(raised.value, "request", None) is response.request
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        response.close()

    @every_kind
    @pytest.mark.parametrize(
        "data",
        [
            OK + b"Content-Length: 5\r\n\r\n",
            OK + b"Content-Length: 5\r\n\r\nhell",
            OK + b"Content-Length: 500000\r\n\r\n" + b"x" * 400_000,
            CHUNKED,
            CHUNKED + b"5",
            CHUNKED + b"5\r\n",
            CHUNKED + b"5\r\nhell",
            CHUNKED + b"5\r\nhello",
            CHUNKED + b"5\r\nhello\r\n",
            CHUNKED + b"5\r\nhello\r\n0",
            CHUNKED + b"5\r\nhello\r\n0\r\n",
            CHUNKED + b"5\r\nhello\r\n0\r\nTrailer: x\r\n",
        ],
        ids=lambda data: repr(data[17:70]) if isinstance(data, bytes) else None,
    )
    def test_body_cut_short_raises_read_error(self, wire: Wire, data: bytes) -> None:
        self.check(wire, data, ReadError)

    @every_kind
    def test_body_reset_raises_read_error(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            peer.read_request()
            peer.send(OK + b"Content-Length: 5\r\n\r\nhell")
            wait(head_received)  # a reset may discard sent bytes
            peer.reset()

        head_received = threading.Event()
        server = wire.serve(script)
        response = wire.transport().round_trip(get(server.url))
        buffer = bytearray(4)
        assert response.readinto(buffer) == 4
        head_received.set()
        with pytest.raises(ReadError) as raised:
            response.read()
        assert raised.value.__cause__ is not None
        response.close()

    @pytest.mark.parametrize(
        "body",
        [
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"1_0\r\nhellohellohelloo\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"g\r\nhello\r\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b";x\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"5\r\nhello\r\n\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nTrailer: " + b"x" * 5000 + b"\r\n\r\n",
            b"5\r\nhello\r\n0\r\n" + b"Trailer: x\r\n" * 1000 + b"\r\n",
        ],
        ids=lambda body: repr(body[:30]) if isinstance(body, bytes) else None,
    )
    def test_body_invalid_chunk_raises_protocol_error(self, wire: Wire, body: bytes) -> None:
        self.check(wire, CHUNKED + body, ProtocolError, then_close=False)

    def test_body_bytes_before_break_are_read(self, wire: Wire) -> None:
        server = wire.serve(send_raw(OK + b"Content-Length: 9\r\n\r\nhello"))
        response = wire.transport().round_trip(get(server.url))
        assert response.read(5) == b"hello"
        with pytest.raises(ReadError):
            response.read(4)
        response.close()


class TestRequests:
    """The head of a request."""

    def test_request_head_has_expected_lines(self, wire: Wire) -> None:
        server = wire.serve(respond(*[reply(200)] * 3))
        transport = wire.transport()
        read(transport.round_trip(get(f"{server.url}/v2/a/tags/list?n=1&last=b#part")))
        read(transport.round_trip(Request("POST", f"{server.url}/v2/x", [("X-A", "1"), ("x-a", "2"), ("X-B", "\xe9")])))
        read(transport.round_trip(put(f"{server.url}?q", b"abc", expect=False)))
        peer = server.peer(0)
        assert [peer.line(index) for index in range(3)] == [
            b"GET /v2/a/tags/list?n=1&last=b HTTP/1.1",
            b"POST /v2/x HTTP/1.1",
            b"PUT /?q HTTP/1.1",
        ]
        assert [peer.field("host", index) for index in range(3)] == [server.netloc.encode()] * 3
        assert [peer.field("content-length", index) for index in range(3)] == [None, b"0", b"3"]
        assert [peer.field("accept-encoding", index) for index in range(3)] == [b"identity"] * 3
        assert [peer.field("user-agent", index) for index in range(3)] == [None] * 3
        assert b"X-A: 1\r\nx-a: 2\r\nX-B: \xe9\r\n" in peer.heads[1]

    @pytest.mark.parametrize(
        "target",
        ["/v2/a%2fb/", "/a?sig=a%2bb%3d", "/a/../b/./c", "//double//", "/a?b?c", "/a;b=c,d@e:f!$&'()*+~"],
    )
    def test_request_target_is_sent_unchanged(self, wire: Wire, target: str) -> None:
        # A changed target would invalidate a signed URL.
        server = wire.serve(respond(reply(200)))
        read(wire.transport().round_trip(get(server.url + target)))
        assert server.peer(0).line() == f"GET {target} HTTP/1.1".encode()

    def test_request_accept_encoding_of_caller_is_kept(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"\x1f\x8b not decoded", "Content-Encoding: gzip")))
        request = get(server.url).with_headers({"Accept-Encoding": "gzip"})
        assert read(wire.transport().round_trip(request)) == (200, b"\x1f\x8b not decoded")
        assert server.peer(0).field("accept-encoding") == b"gzip"

    def test_response_redirect_or_error_is_returned(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(302, b"", "Location: /"), reply(503, b"", "Retry-After: 0")))
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (302, b"")
        assert read(transport.round_trip(get(server.url))) == (503, b"")
