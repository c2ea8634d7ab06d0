"""``Expect: 100-continue``: which bodies wait for 100, for how long, and what is cached per origin."""

from __future__ import annotations

import pytest
import urllib3

from ociwire._http.messages import Body
from ociwire.errors import ProtocolError, ReadError
from tests._support.doubles import FakeClock
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import (
    CONTINUE,
    PATIENCE,
    Content,
    CountingBody,
    Peer,
    Script,
    get,
    put,
    read,
    reply,
    respond,
    respond_after_body,
    respond_early,
)

FRAMINGS = ("sized", "chunked")
SMALL = b"s" * (256 * 1024)
LARGE = b"l" * (256 * 1024 + 1)
HINTS = reply(103, b"", "Link: </style.css>; rel=preload")
PROCESSING = reply(102)
READ_ONLY = urllib3.Timeout(connect=None, read=PATIENCE)
"""No timeout for connecting: the clock of these tests advances far beyond it."""
one_kind = pytest.mark.parametrize("kind", ["http"])


def make_content() -> Content:
    return Content(b"one", b"two" * 1000, b"three")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("status", [401, 307, 413, 429, 503])
def test_expect_early_final_status_body_is_not_read(wire: Wire, framing: str, status: int) -> None:
    server = wire.serve(respond_early(reply(status, b"first log in", "X-Why: so")), respond_after_body(CONTINUE))
    transport = wire.transport()
    content = make_content()
    body = content.body(framing)
    response = transport.round_trip(put(server.url, body))
    assert (response.status, response.headers["x-why"], response.read()) == (status, "so", b"first log in")
    assert content.chunks_read == 0
    assert body.resendable
    assert server.ended(0).rest == b""
    assert read(transport.round_trip(put(server.url, body))) == (201, b"")
    assert server.peer(1).bodies == [content.data]
    assert not body.resendable


@pytest.mark.parametrize("status", [204, 304])
def test_expect_early_final_status_without_body_closes_connection(wire: Wire, status: int) -> None:
    server = wire.serve(respond_early(reply(status)), respond(reply(200)))
    transport = wire.transport()
    content = make_content()
    assert read(transport.round_trip(put(server.url, content.body("sized")))) == (status, b"")
    assert content.chunks_read == 0
    server.ended(0)
    assert read(transport.round_trip(get(server.url))) == (200, b"")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_expect_silent_server_body_is_sent_after_wait(wire: Wire, framing: str) -> None:
    server = wire.serve(respond(reply(201), reply(200, b"next")))
    transport = wire.transport(expect_timeout=0.02)
    content = make_content()
    assert read(transport.round_trip(put(server.url, content.body(framing)))) == (201, b"")
    assert server.peer(0).bodies == [content.data]
    assert read(transport.round_trip(get(server.url))) == (200, b"next")


def test_expect_timeout_zero_body_is_sent_at_once(wire: Wire) -> None:
    server = wire.serve(respond(reply(201)))
    transport = wire.transport(expect_timeout=0)
    assert read(transport.round_trip(put(server.url, make_content().body("chunked")))) == (201, b"")


@pytest.mark.parametrize("data", [SMALL, b"x"])
def test_expect_small_resendable_body_is_sent_at_once(wire: Wire, data: bytes) -> None:
    server = wire.serve(respond(reply(201), reply(200)))
    transport = wire.transport(expect_timeout=10_000)
    assert read(transport.round_trip(put(server.url, data))) == (201, b"")
    assert server.peer(0).field("expect") == b"100-continue"
    assert read(transport.round_trip(get(server.url))) == (200, b"")
    assert server.peer(0).bodies == [data, b""]


@one_kind
@pytest.mark.parametrize("framing", FRAMINGS)
def test_no_expect_body_is_sent_at_once(wire: Wire, framing: str) -> None:
    server = wire.serve(respond(reply(201)))
    transport = wire.transport(expect_timeout=10_000)
    assert read(transport.round_trip(put(server.url, make_content().body(framing), expect=False))) == (201, b"")
    assert server.peer(0).field("expect") is None


@one_kind
@pytest.mark.parametrize("body", [None, b"", Body.of(iter(()), length=0)], ids=["absent", "empty", "length 0"])
def test_expect_without_body_is_not_sent(wire: Wire, body: Body | bytes | None) -> None:
    server = wire.serve(respond(reply(201)))
    response = wire.transport().round_trip(put(server.url, body))
    assert read(response) == (201, b"")
    assert server.peer(0).field("expect") is None
    assert server.peer(0).field("content-length") == b"0"
    assert response.request is not None
    assert "expect" not in response.request.headers


def refuse_early(peer: Peer) -> None:
    """Check that the client does not send a body, and respond with 401."""
    peer.read_head()
    peer.expect_silence(0.05)
    peer.send(reply(401))


def second_request_waits(wire: Wire, clock: FakeClock, *, first: Script, between: float, single_use: bool) -> bool:
    """Return whether a second request waits for 100, after the wait of a first one timed out."""

    # If the request should wait, the server expects no body before its response, otherwise it reads the body first.
    waits = single_use or between > 600 or first is send_100_late
    server = wire.serve(first, refuse_early if waits else respond(reply(201)))
    transport = wire.transport(expect_timeout=1000, timeout=READ_ONLY)
    clock.step = 2000  # each reading of the clock advances it beyond expect_timeout
    read(transport.round_trip(put(server.url, LARGE)))
    clock.step = 0
    clock.now += between
    counted = CountingBody(LARGE)
    content = Content(LARGE)
    read(transport.round_trip(put(server.url, content.body("sized") if single_use else counted.body)))
    return counted.chunks_read + content.chunks_read == 0


send_no_100 = respond_after_body(response=reply(201, b"", "Connection: close"))


def send_100_late(peer: Peer) -> None:
    peer.read_request()
    peer.send(CONTINUE, reply(201, b"", "Connection: close"))


class TestExpectSupport:
    """Cached state of an origin whose wait timed out. Only the fake clock advances."""

    def test_expect_silent_origin_is_cached(self, wire: Wire, clock: FakeClock) -> None:
        assert not second_request_waits(wire, clock, first=send_no_100, between=590, single_use=False)

    def test_expect_silent_origin_single_use_body_waits(self, wire: Wire, clock: FakeClock) -> None:
        assert second_request_waits(wire, clock, first=send_no_100, between=0, single_use=True)

    def test_expect_silent_origin_expires_after_ten_minutes(self, wire: Wire, clock: FakeClock) -> None:
        assert second_request_waits(wire, clock, first=send_no_100, between=601, single_use=False)

    def test_expect_late_100_evicts_silent_origin(self, wire: Wire, clock: FakeClock) -> None:
        assert second_request_waits(wire, clock, first=send_100_late, between=0, single_use=False)

    @one_kind
    def test_expect_100_without_wait_evicts_silent_origin(self, wire: Wire, clock: FakeClock) -> None:
        server = wire.serve(send_no_100, send_100_late, refuse_early)
        transport = wire.transport(expect_timeout=1000, timeout=READ_ONLY)
        clock.step = 2000
        read(transport.round_trip(put(server.url, LARGE)))
        clock.step = 0
        read(transport.round_trip(put(server.url, LARGE)))
        counted = CountingBody(LARGE)
        assert read(transport.round_trip(put(server.url, counted.body))) == (401, b"")
        assert counted.chunks_read == 0

    @one_kind
    def test_expect_silent_origin_does_not_affect_another(self, wire: Wire, clock: FakeClock) -> None:
        server, other = wire.serve(send_no_100), wire.serve(refuse_early)
        transport = wire.transport(expect_timeout=1000, timeout=READ_ONLY)
        clock.step = 2000
        read(transport.round_trip(put(server.url, LARGE)))
        clock.step = 0
        counted = CountingBody(LARGE)
        assert read(transport.round_trip(put(other.url, counted.body))) == (401, b"")
        assert counted.chunks_read == 0

    @one_kind
    def test_expect_100_in_time_next_body_waits(self, wire: Wire) -> None:
        server = wire.serve(respond_after_body(CONTINUE, response=reply(201, b"", "Connection: close")), refuse_early)
        transport = wire.transport()
        assert read(transport.round_trip(put(server.url, LARGE))) == (201, b"")
        counted = CountingBody(LARGE)
        assert read(transport.round_trip(put(server.url, counted.body))) == (401, b"")
        assert counted.chunks_read == 0


def end_connection(body: bytes | None, data: bytes = b"") -> Script:
    """Return a script that sends data instead of a response, and closes. Unread bytes would reset the connection."""

    def script(peer: Peer) -> None:
        peer.read_head()
        if body != LARGE:
            peer.read_body()
        if data:
            peer.send(data)
        peer.close()

    return script


class TestPlainHTTPToTLSServer:
    """A TLS server closes a connection over plain http. The error names the remedy."""

    @one_kind
    @pytest.mark.parametrize("body", [None, b"abc", LARGE], ids=["none", "small", "waiting"])
    def test_closed_without_response_error_names_remedy(self, wire: Wire, body: bytes | None) -> None:
        server = wire.serve(end_connection(body))
        with pytest.raises(ReadError, match=r"without a response.*remove insecure=True"):
            wire.transport().round_trip(put(server.url, body))

    @one_kind
    @pytest.mark.parametrize("body", [None, b"abc", LARGE], ids=["none", "small", "waiting"])
    @pytest.mark.parametrize("code", [b"\x46", b"\n"], ids=["protocol_version", "unexpected_message"])
    def test_tls_alert_error_names_remedy(self, wire: Wire, body: bytes | None, code: bytes) -> None:
        server = wire.serve(end_connection(body, b"\x15\x03\x01\x00\x02\x02" + code))
        with pytest.raises(ProtocolError, match=r"the server speaks TLS.*remove insecure=True"):
            wire.transport().round_trip(put(server.url, body))


class TestInterimResponses:
    """All 1xx responses are skipped, and the next request gets its own response."""

    @pytest.mark.parametrize(
        "interims",
        [
            (CONTINUE,),
            (HINTS, CONTINUE),
            (PROCESSING, HINTS, CONTINUE),
            (CONTINUE, PROCESSING, HINTS),
            (HINTS + PROCESSING + CONTINUE,),
            (CONTINUE + CONTINUE,),
            (reply(199, b"", "X-Long: " + "x" * 10_000), CONTINUE),
        ],
        ids=["100", "103 100", "102 103 100", "100 102 103", "together", "100 twice", "199 100"],
    )
    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_interim_responses_before_body_are_skipped(
        self, wire: Wire, interims: tuple[bytes, ...], framing: str
    ) -> None:
        def script(peer: Peer) -> None:
            respond_after_body(*interims, response=reply(201, b"done"))(peer)
            respond(reply(200, b"next"))(peer)

        server = wire.serve(script)
        transport = wire.transport()
        content = make_content()
        assert read(transport.round_trip(put(server.url, content.body(framing)))) == (201, b"done")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        assert server.peer(0).bodies == [content.data, b""]

    @pytest.mark.parametrize("interims", [CONTINUE, HINTS, PROCESSING + CONTINUE + HINTS])
    @pytest.mark.parametrize("body", [None, b"abc", LARGE])
    def test_interim_responses_after_body_are_skipped(self, wire: Wire, interims: bytes, body: bytes | None) -> None:
        before = (CONTINUE,) if body == LARGE else ()

        def script(peer: Peer) -> None:
            respond_after_body(*before, response=interims + reply(200, b"done"))(peer)
            respond(interims + reply(200, b"next"))(peer)

        server = wire.serve(script)
        transport = wire.transport()
        assert read(transport.round_trip(put(server.url, body))) == (200, b"done")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    def test_interim_responses_without_100_wait_times_out(self, wire: Wire) -> None:
        server = wire.serve(respond_after_body(HINTS, PROCESSING))
        content = make_content()
        assert read(wire.transport(expect_timeout=0.05).round_trip(put(server.url, content.body("sized")))) == (
            201,
            b"",
        )
        assert server.peer(0).bodies == [content.data]

    def test_interim_responses_then_final_status_body_is_not_read(self, wire: Wire) -> None:
        server = wire.serve(respond_early(HINTS + PROCESSING + reply(401, b"no")))
        content = make_content()
        assert read(wire.transport().round_trip(put(server.url, content.body("sized")))) == (401, b"no")
        assert content.chunks_read == 0

    def test_interim_late_100_is_skipped(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            peer.read_request()
            peer.send(CONTINUE, reply(201, b"done"))
            respond(reply(200, b"next"))(peer)

        server = wire.serve(script)
        transport = wire.transport(expect_timeout=0.02)
        assert read(transport.round_trip(put(server.url, make_content().body("chunked")))) == (201, b"done")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    @one_kind
    @pytest.mark.parametrize("position", ["before", "after", "without"])
    def test_interim_101_raises_protocol_error(self, wire: Wire, position: str) -> None:
        switch = reply(101, b"", "Upgrade: h2c", "Connection: Upgrade")

        def script(peer: Peer) -> None:
            peer.read_head()
            if position == "after":
                peer.send(CONTINUE)
                peer.read_body()
            peer.send(switch)

        server = wire.serve(script)
        content = make_content()
        request = get(server.url) if position == "without" else put(server.url, content.body("sized"))
        with pytest.raises(ProtocolError, match="101") as raised:
            wire.transport().round_trip(request)
        assert raised.value.request is not None
        assert (content.chunks_read == 0) == (position != "after")

    @pytest.mark.parametrize("position", ["before", "after", "without"])
    def test_interim_responses_33_raise_protocol_error(self, wire: Wire, position: str) -> None:
        def script(peer: Peer) -> None:
            peer.read_head()
            if position == "after":
                peer.send(CONTINUE)
                peer.read_body()
            peer.send(PROCESSING * 33 + reply(200))

        server = wire.serve(script)
        content = make_content()
        request = get(server.url) if position == "without" else put(server.url, content.body("sized"))
        with pytest.raises(ProtocolError, match="32"):
            wire.transport().round_trip(request)
        assert (content.chunks_read == 0) == (position != "after")

    @pytest.mark.parametrize("position", ["before", "after", "without"])
    @pytest.mark.parametrize("count", [2, 30])
    def test_interim_responses_over_64_kib_raise_protocol_error(self, wire: Wire, position: str, count: int) -> None:
        padded = reply(103, b"", "X-Pad: " + "x" * (66_000 // count))

        def script(peer: Peer) -> None:
            peer.read_head()
            if position == "after":
                peer.send(CONTINUE)
                peer.read_body()
            peer.send(padded * count + reply(200))

        server = wire.serve(script)
        content = make_content()
        request = get(server.url) if position == "without" else put(server.url, content.body("sized"))
        with pytest.raises(ProtocolError, match="are too large: expected at most 65536 bytes"):
            wire.transport().round_trip(request)
        assert (content.chunks_read == 0) == (position != "after")

    @one_kind
    @pytest.mark.parametrize("position", ["before", "after"])
    def test_interim_responses_following_bytes_are_kept(self, wire: Wire, position: str) -> None:
        # Interim responses, the final response and bytes of its body are received together.
        padded = reply(103, b"", "X-Pad: " + "x" * 20_000)
        body = b"x" * 30_000
        together = padded * 3 + reply(400, body)

        def script(peer: Peer) -> None:
            peer.read_head()
            if position == "after":
                peer.send(CONTINUE)
                peer.read_body()
            peer.send(together)

        server = wire.serve(script)
        assert read(wire.transport().round_trip(put(server.url, make_content().body("sized")))) == (400, body)

    @one_kind
    def test_interim_responses_32_are_skipped(self, wire: Wire) -> None:
        server = wire.serve(respond_after_body(PROCESSING * 15 + CONTINUE, response=PROCESSING * 16 + reply(201)))
        assert read(wire.transport().round_trip(put(server.url, make_content().body("sized")))) == (201, b"")


class TestBytewise:
    """A status line that is received in pieces is not lost."""

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_100_sent_bytewise_body_is_sent(self, wire: Wire, framing: str) -> None:
        def script(peer: Peer) -> None:
            peer.read_head()
            peer.send_bytewise(HINTS + CONTINUE)
            peer.read_body()
            peer.send_bytewise(PROCESSING + reply(201, b"done"))
            peer.read_request()
            peer.send_bytewise(reply(200, b"next"))

        server = wire.serve(script)
        transport = wire.transport()
        content = make_content()
        assert read(transport.round_trip(put(server.url, content.body(framing)))) == (201, b"done")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        assert server.peer(0).bodies == [content.data, b""]

    def test_final_status_sent_bytewise_body_is_not_read(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            peer.read_head()
            peer.send_bytewise(HINTS + reply(401, b"no"))

        server = wire.serve(script)
        content = make_content()
        assert read(wire.transport().round_trip(put(server.url, content.body("sized")))) == (401, b"no")
        assert content.chunks_read == 0

    @pytest.mark.parametrize("at", [1, 11, 12, 13, 14, len(reply(401)) - 1])
    def test_final_status_in_two_pieces_body_is_not_read(self, wire: Wire, at: int) -> None:
        response = reply(401, b"no")
        server = wire.serve(lambda peer: (peer.read_head(), peer.send(response[:at], response[at:])))
        content = make_content()
        assert read(wire.transport().round_trip(put(server.url, content.body("sized")))) == (401, b"no")
        assert content.chunks_read == 0

    @pytest.mark.parametrize("first", [CONTINUE, reply(401, b"no")], ids=["100", "401"])
    def test_status_begun_within_wait_is_read_to_its_end(self, wire: Wire, first: bytes) -> None:
        def script(peer: Peer) -> None:
            peer.read_head()
            peer.send(first[:10])
            peer.expect_silence(0.2)
            peer.send(first[10:])
            if first == CONTINUE:
                peer.read_body()
                peer.send(reply(201))

        server = wire.serve(script)
        content = make_content()
        response = wire.transport(expect_timeout=0.15).round_trip(put(server.url, content.body("sized")))
        if first == CONTINUE:
            assert read(response) == (201, b"")
            assert server.peer(0).bodies == [content.data]
        else:
            assert read(response) == (401, b"no")
            assert content.chunks_read == 0


class TestClosedWhileWaiting:
    """The server closes the connection instead of responding."""

    def test_closed_while_waiting_raises_read_error(self, wire: Wire) -> None:
        server = wire.serve(lambda peer: (peer.read_head(), peer.close()))
        content = make_content()
        body = content.body("sized")
        with pytest.raises(ReadError) as raised:
            wire.transport().round_trip(put(server.url, body))
        assert raised.value.request is not None
        assert raised.value.__cause__ is not None
        assert body.resendable

    @pytest.mark.parametrize("data", [b"HTT", b"HTTP/1.1 401", b"HTTP/1.1 401 No\r\nX-Why", b"HTTP/1.1 100 Go\r\n"])
    def test_closed_within_head_while_waiting_raises_protocol_error(self, wire: Wire, data: bytes) -> None:
        server = wire.serve(lambda peer: (peer.read_head(), peer.send(data), peer.close()))
        content = make_content()
        with pytest.raises(ProtocolError):
            wire.transport().round_trip(put(server.url, content.body("sized")))
        assert content.chunks_read == 0

    @pytest.mark.parametrize(
        "data", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/2.0 401 No\r\n\r\n", b"HTTP/1.1 4x1 No\r\n\r\n"]
    )
    def test_not_http_while_waiting_raises_protocol_error(self, wire: Wire, data: bytes) -> None:
        server = wire.serve(lambda peer: (peer.read_head(), peer.send(data)))
        content = make_content()
        with pytest.raises(ProtocolError):
            wire.transport().round_trip(put(server.url, content.body("sized")))
        assert content.chunks_read == 0


class TestExpectationFailed:
    """After 417 the request is resent without Expect, and the origin is cached."""

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_417_unread_body_is_resent_without_expect(self, wire: Wire, framing: str) -> None:
        server = wire.serve(respond_early(reply(417, b"what?")), respond(reply(201), reply(201)))
        transport = wire.transport()
        content, more = make_content(), make_content()
        assert read(transport.round_trip(put(server.url, content.body(framing)))) == (201, b"")
        response = transport.round_trip(put(server.url, more.body(framing)))
        assert read(response) == (201, b"")
        assert response.request is not None
        assert "expect" not in response.request.headers
        assert server.peer(0).field("expect") == b"100-continue"
        assert [server.peer(1).field("expect", index) for index in (0, 1)] == [None, None]
        assert server.peer(1).bodies == [content.data, more.data]

    @one_kind
    def test_417_body_of_bytes_is_resent_without_expect(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(417, b"what?"), reply(201)))
        assert read(wire.transport().round_trip(put(server.url, b"abc"))) == (201, b"")
        assert server.peer(0).bodies == [b"abc", b"abc"]
        assert server.peer(0).field("expect") is None

    @one_kind
    def test_417_consumed_body_is_not_resent(self, wire: Wire) -> None:
        server = wire.serve(respond_after_body(CONTINUE, response=reply(417, b"what?")))
        content = make_content()
        assert read(wire.transport().round_trip(put(server.url, content.body("sized")))) == (417, b"what?")

    @one_kind
    def test_417_without_expect_is_returned(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(417, b"what?")))
        request = put(server.url, b"abc", expect=False)
        assert read(wire.transport().round_trip(request)) == (417, b"what?")

    @one_kind
    def test_417_twice_is_returned(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(417, b"what?"), reply(417, b"what now?")))
        assert read(wire.transport().round_trip(put(server.url, b"abc"))) == (417, b"what now?")

    @one_kind
    def test_417_expires_after_ten_minutes(self, wire: Wire, clock: FakeClock) -> None:
        server = wire.serve(respond(reply(417), reply(201), reply(201)))
        transport = wire.transport()
        assert read(transport.round_trip(put(server.url, b"abc"))) == (201, b"")
        clock.now += 601
        assert read(transport.round_trip(put(server.url, b"abc"))) == (201, b"")
        assert server.peer(0).field("expect") == b"100-continue"
