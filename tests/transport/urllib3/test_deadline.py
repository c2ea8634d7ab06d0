"""Timeouts and deadlines limit all waits."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import threading
import time
from typing import Any

import pytest
import urllib3

from ociwire._http.messages import Request, RequestInfo
from ociwire.errors import ConnectTimeout, ReadTimeout, UsageError
from ociwire.transport import UrllibTransport
from tests._support.doubles import FakeClock
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import (
    CONTINUE,
    PATIENCE,
    Content,
    Peer,
    Script,
    get,
    put,
    read,
    read_until_close,
    reply,
    respond,
    respond_early,
    wait,
)

one_kind = pytest.mark.parametrize("kind", ["http"])


def send_slowly(clock: FakeClock, head: bytes, drop: bytes, start: threading.Event | None = None) -> Script:
    """Return a script that sends a head, then `drop` every second. Only this script advances the clock."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(head)
        if start is not None:
            wait(start)
        try:
            for _ in range(2000):
                peer.send(drop)
                clock.now += 1
        except OSError:
            peer.close()  # the client has closed

    return script


class TestDeadline:
    """`RequestInfo.deadline` limits all work for a request."""

    def test_deadline_slow_head_raises_read_timeout(self, wire: Wire, clock: FakeClock) -> None:
        server = wire.serve(send_slowly(clock, b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"))
        with pytest.raises(ReadTimeout) as raised:
            wire.transport().round_trip(get(server.url, deadline=clock.now + 4))
        assert raised.value.request is not None
        assert isinstance(raised.value, TimeoutError)

    def test_deadline_slow_interim_responses_raise_read_timeout(self, wire: Wire, clock: FakeClock) -> None:
        server = wire.serve(send_slowly(clock, b"HTTP/1.1 103 Hints\r\nX-Drip: ", b"x"))
        content = Content(b"abc")
        with pytest.raises(ReadTimeout):
            wire.transport().round_trip(put(server.url, content.body("sized"), deadline=clock.now + 4))
        assert content.chunks_read == 0

    @pytest.mark.parametrize("chunked", [False, True])
    def test_deadline_slow_body_raises_read_timeout(self, wire: Wire, clock: FakeClock, chunked: bool) -> None:
        framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 5000"
        start = threading.Event()
        server = wire.serve(send_slowly(clock, reply(200, b"", framing), b"1\r\nx\r\n" if chunked else b"x", start))
        response = wire.transport().round_trip(get(server.url, deadline=clock.now + 4))
        start.set()
        with pytest.raises(ReadTimeout) as raised:
            response.read()
        assert raised.value.request is response.request
        server.ended(0)

    def test_deadline_silent_body_raises_read_timeout(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"half", "Content-Length: 8")))
        response = wire.transport().round_trip(get(server.url, deadline=time.monotonic() + 0.1))
        with pytest.raises(ReadTimeout):
            response.read()
        response.close()

    def test_deadline_during_wait_for_100_raises_read_timeout(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            respond(reply(200))(peer)
            peer.read_head()

        server = wire.serve(script)
        transport = wire.transport()
        read(transport.round_trip(get(server.url)))  # connects, so that the deadline does not include a TLS handshake
        content = Content(b"abc")
        body = content.body("sized")
        with pytest.raises(ReadTimeout):
            transport.round_trip(put(server.url, body, deadline=time.monotonic() + 0.1))
        assert body.resendable
        server.ended(0)

    @one_kind
    def test_deadline_body_not_read_by_server_raises_read_timeout(self, wire: Wire) -> None:
        over = threading.Event()

        def script(peer: Peer) -> None:
            peer.read_head()
            peer.send(CONTINUE)
            wait(over)

        server = wire.serve(script)
        try:
            with pytest.raises(ReadTimeout):
                wire.transport().round_trip(put(server.url, b"x" * 50_000_000, deadline=time.monotonic() + 0.2))
        finally:
            over.set()

    @one_kind
    def test_deadline_slow_content_raises_read_timeout(self, wire: Wire, clock: FakeClock) -> None:
        def advance_clock() -> None:
            clock.now += 5

        server = wire.serve(respond_early(CONTINUE))
        content = Content(b"one", b"two", advance_clock, b"three")
        with pytest.raises(ReadTimeout):
            wire.transport().round_trip(put(server.url, content.body("sized"), deadline=clock.now + 4))
        server.ended(0)

    @pytest.mark.parametrize("deadline", [-1.0, 0.0, -math.inf])
    def test_deadline_past_sends_nothing(self, wire: Wire, clock: FakeClock, deadline: float) -> None:
        server = wire.serve()
        with pytest.raises(ConnectTimeout) as raised:
            wire.transport().round_trip(get(server.url, deadline=clock.now + deadline))
        assert raised.value.request is not None

    @one_kind
    def test_deadline_past_on_idle_connection_sends_nothing(self, wire: Wire, clock: FakeClock) -> None:
        server = wire.serve(respond(reply(200, b"first"), reply(200, b"next")))
        transport = wire.transport()
        read(transport.round_trip(get(server.url)))
        with pytest.raises(ConnectTimeout):
            transport.round_trip(get(server.url, deadline=clock.now))
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    def test_deadline_not_reached_changes_nothing(self, wire: Wire, clock: FakeClock) -> None:
        server = wire.serve(respond(reply(200, b"ok"), reply(200, b"next")))
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url, deadline=clock.now + 1000))) == (200, b"ok")
        clock.now += 2000  # the deadline applied to the first request only
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    def test_deadline_silent_tls_handshake_raises_connect_timeout(self, wire: Wire) -> None:
        server = wire.serve(read_until_close, kind="http")
        with pytest.raises(ConnectTimeout):
            wire.transport().round_trip(get(f"https://{server.netloc}", deadline=time.monotonic() + 0.1))

    @one_kind
    def test_deadline_slow_proxy_raises_connect_timeout(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            peer.read_head()
            peer.send(b"HTTP/1.1 200 Yes\r\n")
            with contextlib.suppress(OSError, AssertionError):  # the client has closed
                for _ in range(10):
                    peer.expect_silence(0.03)
                    peer.send(b"X: y\r\n")
                peer.send(b"\r\n")
            peer.close()

        proxy = wire.serve(script)
        transport = wire.transport(proxy=proxy.url)
        with pytest.raises(ConnectTimeout):
            transport.round_trip(get("https://registry.test/", deadline=time.monotonic() + 0.1))


class TestConnecting:
    """All steps of connecting share one timeout, which the deadline limits."""

    @one_kind
    @pytest.mark.parametrize(
        ("timeout", "deadline", "waits"),
        [
            (9, None, [3, 3, 3]),  # an address that drops packets leaves time for the next
            (9, 6, [2, 2, 2]),
            (3, None, [2, 1]),  # at least 2 s per address, until the timeout ends
            (60, 0.5, [0.5]),
            (None, None, [None, None, None]),
        ],
    )
    def test_connect_several_addresses_share_the_timeout(
        self,
        wire: Wire,
        clock: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
        timeout: float | None,
        deadline: float | None,
        waits: list[float | None],
    ) -> None:
        timeouts: list[float | None] = []

        class Silent(socket.socket):
            """Socket to an address that drops packets."""

            def connect(self, address: Any) -> None:
                timeouts.append(self.gettimeout())
                clock.now += self.gettimeout() or 0
                raise TimeoutError("timed out")

        address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 80))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [address] * 3)
        monkeypatch.setattr(socket, "socket", Silent)
        transport = wire.transport(timeout=urllib3.Timeout(connect=timeout, read=60))
        with pytest.raises(ConnectTimeout):
            transport.round_trip(
                get("http://registry.test/", deadline=None if deadline is None else clock.now + deadline)
            )
        assert timeouts == pytest.approx(waits)

    @one_kind
    def test_connect_refused_address_tries_the_next(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        server = wire.serve(respond(reply(200, b"ok")))
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            ports = [unused.getsockname()[1], server.port]
            addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: addresses)
            assert read(wire.transport().round_trip(get(f"http://registry.test:{server.port}"))) == (200, b"ok")

    @pytest.mark.parametrize("kind", ["tls1.3"])
    def test_connect_tls_handshake_has_the_remaining_time(
        self, wire: Wire, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Slow(socket.socket):
            def connect(self, address: Any) -> None:
                super().connect(address)
                clock.now += 3

        waits: list[float | None] = []
        wrap = ssl.SSLContext.wrap_socket

        def record_timeout(context: ssl.SSLContext, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
            if not options.get("server_side"):
                waits.append(sock.gettimeout())
            return wrap(context, sock, **options)

        server = wire.serve(respond(reply(200, b"ok")))
        monkeypatch.setattr(socket, "socket", Slow)
        transport = wire.transport()
        monkeypatch.setattr(ssl.SSLContext, "wrap_socket", record_timeout)
        assert read(transport.round_trip(get(server.url, timeout=60, deadline=clock.now + 4))) == (200, b"ok")
        assert waits == pytest.approx([1])

    @pytest.mark.parametrize("kind", ["http", "tls1.3"])
    def test_connect_timeout_passed_skips_tls_handshake(self, wire: Wire, clock: FakeClock) -> None:
        def script(peer: Peer) -> None:
            peer.read_head()
            clock.now += 5
            peer.send(reply(200, b"", "Content-Length: 0"))

        proxy = wire.serve(script)
        with pytest.raises(ConnectTimeout):
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/", deadline=clock.now + 4))
        assert proxy.ended(0).rest == b""


class TestTimeout:
    """Timeouts of the transport and of the request."""

    @pytest.mark.parametrize("timeout", [0.05, urllib3.Timeout(connect=5, read=0.05), urllib3.Timeout(total=0.05)])
    def test_timeout_no_response_raises_read_timeout(self, wire: Wire, timeout: Any) -> None:
        server = wire.serve(lambda peer: peer.read_head())
        with pytest.raises(ReadTimeout) as raised:
            wire.transport(timeout=timeout).round_trip(get(server.url))
        assert raised.value.request is not None
        assert raised.value.__cause__ is not None

    def test_timeout_incomplete_body_raises_read_timeout(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"half", "Content-Length: 8")), respond(reply(200, b"next")))
        transport = wire.transport(timeout=0.1)
        response = transport.round_trip(get(server.url))
        with pytest.raises(ReadTimeout):
            response.read()
        server.ended(0)
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        response.close()

    def test_timeout_incomplete_status_line_raises_read_timeout(self, wire: Wire) -> None:
        server = wire.serve(lambda peer: (peer.read_head(), peer.send(b"HTTP/1.")))
        content = Content(b"abc")
        timeout = urllib3.Timeout(connect=PATIENCE, read=0.05)
        with pytest.raises(ReadTimeout):
            wire.transport(timeout=timeout).round_trip(put(server.url, content.body("sized")))
        assert content.chunks_read == 0

    def test_timeout_of_request_shorter_applies(self, wire: Wire) -> None:
        server = wire.serve(lambda peer: peer.read_head())
        timeout = urllib3.Timeout(connect=PATIENCE, read=0.05)  # a TLS handshake takes longer on a busy machine
        with pytest.raises(ReadTimeout):
            wire.transport().round_trip(get(server.url, timeout=timeout))

    def test_timeout_of_request_longer_applies(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            respond(reply(200, b"first"))(peer)
            peer.read_request()
            peer.expect_silence(0.25)
            peer.send(reply(200, b"late"))

        server = wire.serve(script)
        transport = wire.transport(timeout=0.2)
        assert read(transport.round_trip(get(server.url))) == (200, b"first")
        assert read(transport.round_trip(get(server.url, timeout=5))) == (200, b"late")

    def test_timeout_after_wait_for_100_is_the_read_timeout(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            peer.read_request()
            peer.expect_silence(0.1)
            peer.send(reply(201))

        server = wire.serve(script)
        transport = wire.transport(expect_timeout=0.02)
        assert read(transport.round_trip(put(server.url, Content(b"abc").body("sized")))) == (201, b"")

    @one_kind
    def test_expect_timeout_does_not_limit_the_response(self, wire: Wire) -> None:
        def script(peer: Peer) -> None:
            peer.read_head()
            peer.send(reply(401, b"", "Content-Length: 4"))
            peer.expect_silence(0.25)
            peer.send(b"late")

        server = wire.serve(script)
        transport = wire.transport(expect_timeout=0.2)
        assert read(transport.round_trip(put(server.url, Content(b"abc").body("sized")))) == (401, b"late")

    @one_kind
    def test_timeout_none_waits_without_limit(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200)))
        timeout = urllib3.Timeout(None)
        assert read(wire.transport(timeout=timeout).round_trip(get(server.url, timeout=timeout))) == (200, b"")

    @pytest.mark.parametrize("timeout", ["soon", -1, 0, True, object()])
    def test_timeout_invalid_raises_usage_error(self, timeout: Any) -> None:
        with pytest.raises(UsageError):
            UrllibTransport(timeout=timeout, trust_env=False)

    @one_kind
    @pytest.mark.parametrize("timeout", ["soon", -1, 0])
    def test_timeout_of_request_invalid_raises_usage_error(self, wire: Wire, timeout: Any) -> None:
        server = wire.serve()
        with pytest.raises(UsageError):
            wire.transport().round_trip(Request("GET", server.url, info=RequestInfo(timeout=timeout)))

    @pytest.mark.parametrize("expect_timeout", ["soon", -1, True, None, math.nan])
    def test_expect_timeout_invalid_raises_usage_error(self, expect_timeout: Any) -> None:
        with pytest.raises(UsageError):
            UrllibTransport(expect_timeout=expect_timeout, trust_env=False)
