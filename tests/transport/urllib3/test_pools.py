"""Connection pools: reuse of connections, and stale connections."""

from __future__ import annotations

import gc
import io
import threading
import weakref
from typing import Any

import pytest

from ociwire._http.messages import Request, RequestInfo, Response
from ociwire.errors import ReadError, UsageError
from ociwire.transport import UrllibTransport
from ociwire.transport._urllib3.connection import IdleConnections
from ociwire.transport._urllib3.pools import OriginPool, PoolCache
from tests._support.doubles import Call
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import (
    CONTINUE,
    Content,
    Peer,
    Script,
    close_after_head,
    get,
    put,
    read,
    reply,
    respond,
    respond_after_body,
    respond_early,
    wait,
)

one_kind = pytest.mark.parametrize("kind", ["http"])


def respond_then(end: Script) -> Script:
    """Return a script that sends a response that keeps the connection alive, then runs another script."""

    def script(peer: Peer) -> None:
        respond(reply(200, b"first"))(peer)
        end(peer)

    return script


def reset_after_head(peer: Peer) -> None:
    """Read a head and reset the connection."""
    peer.read_head()
    peer.reset()


def respond_and_close(peer: Peer) -> None:
    """Read a head and close the connection, with close_notify if it uses TLS."""
    peer.read_head()
    peer.close(notify=True)


class TestReuse:
    """A response that was read to its end returns its connection to the pool."""

    def test_reuse_sequential_requests_share_a_connection(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"a"), reply(404, b"b" * 100_000), reply(200, b""), reply(201)))
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (200, b"a")
        assert read(transport.round_trip(get(server.url))) == (404, b"b" * 100_000)
        assert read(transport.round_trip(get(server.url))) == (200, b"")
        assert read(transport.round_trip(put(server.url, b"c"))) == (201, b"")

    def test_reuse_body_read_in_pieces_returns_connection(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"abcdef"), reply(200, b"next")))
        transport = wire.transport()
        response = transport.round_trip(get(server.url))
        assert [response.read(4), response.read(2)] == [b"abcd", b"ef"]  # no read() returned b""
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        assert response.read() == b""
        response.close()

    @pytest.mark.parametrize(
        ("method", "response"),
        [
            ("HEAD", reply(200, b"", "Content-Length: 5")),
            ("HEAD", reply(200, b"", "Transfer-Encoding: chunked")),
            ("HEAD", reply(404, b"", "Content-Type: text/plain")),
            ("GET", reply(204)),
            ("GET", reply(304, b"", "Content-Length: 5")),
            ("DELETE", reply(202, b"")),
        ],
    )
    def test_reuse_response_without_body_returns_connection_at_once(
        self, wire: Wire, method: str, response: bytes
    ) -> None:
        server = wire.serve(respond(response, reply(200, b"next")))
        transport = wire.transport()
        first = transport.round_trip(Request(method, server.url))
        assert first.length == 0
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        assert first.read() == b""
        first.close()

    @pytest.mark.parametrize(
        "response",
        [
            reply(200, b"first", "Connection: close"),
            reply(200, b"first", "connection: Keep-Alive, Close"),
            reply(200, b"first", "Connection: x", "Connection: close"),
            reply(200, b"first", version="1.0"),
        ],
    )
    def test_reuse_connection_close_opens_another(self, wire: Wire, response: bytes) -> None:
        server = wire.serve(respond(response), respond(reply(200, b"next")))
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (200, b"first")
        server.ended(0)
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    @one_kind
    def test_reuse_http_1_0_keep_alive_is_kept(self, wire: Wire) -> None:
        first = reply(200, b"first", "Connection: Keep-Alive", version="1.0")
        server = wire.serve(respond(first, reply(200, b"next")))
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (200, b"first")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    def test_reuse_response_closed_early_drops_connection(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"x" * 100)), respond(reply(200, b"next")))
        transport = wire.transport()
        with transport.round_trip(get(server.url)) as response:
            assert response.read(5) == b"xxxxx"
        server.ended(0)
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        with pytest.raises(UsageError):
            response.read()

    @one_kind
    @pytest.mark.parametrize(("size", "is_kept"), [(60_000, True), (70_000, False)])
    def test_reuse_drained_response_keeps_connection_if_body_is_small(
        self, wire: Wire, size: int, is_kept: bool
    ) -> None:
        first, second = reply(404, b"x" * size), reply(200, b"next")
        server = wire.serve(*([respond(first, second)] if is_kept else [respond(first), respond(second)]))
        transport = wire.transport()
        transport.round_trip(get(server.url)).drain()
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    @one_kind
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_reuse_excess_bytes_close_connection(self, wire: Wire, method: str) -> None:
        excess = b"HTTP/1.1 500 Not yours\r\n\r\n"
        server = wire.serve(respond(reply(200, b"hello") + excess), respond(reply(200, b"next")))
        transport = wire.transport()
        read(transport.round_trip(Request(method, server.url)))
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    def test_reuse_excess_bytes_decrypted_by_tls_close_connection(self, wire: Wire) -> None:
        # The first response fills the buffer of the file: the rest of its TLS record is only in the buffer of OpenSSL.
        body = b"x" * 100
        padding = io.DEFAULT_BUFFER_SIZE - len(reply(200, body, "Pad: "))
        server = wire.serve(
            respond(reply(200, body, "Pad: " + "p" * padding) + reply(200, b"not yours")), respond(reply(200, b"next"))
        )
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (200, body)
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    @one_kind
    def test_reuse_idle_connection_holds_no_request(self, wire: Wire) -> None:
        server = wire.serve(respond_after_body(CONTINUE))
        transport = wire.transport()
        content = Content(b"some ", b"content")
        request = put(server.url, content.body("sized"))
        assert read(transport.round_trip(request)) == (201, b"")
        reference = weakref.ref(content)
        del content, request
        gc.collect()
        assert reference() is None

    def test_reuse_concurrent_responses_have_own_connections(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"first")), respond(reply(200, b"second"), reply(200, b"third")))
        transport = wire.transport()
        first, second = transport.round_trip(get(server.url)), transport.round_trip(get(server.url))
        assert second.read() == b"second"
        third = transport.round_trip(get(server.url))
        assert [third.read(), first.read()] == [b"third", b"first"]
        for response in (first, second, third):
            response.close()

    @one_kind
    def test_pool_size_limits_idle_connections(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"first"), reply(200, b"next")), respond(reply(200, b"second")))
        transport = wire.transport(pool_size=1)
        first, second = transport.round_trip(get(server.url)), transport.round_trip(get(server.url))
        assert [first.read(), second.read()] == [b"first", b"second"]
        server.ended(1)
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        first.close()
        second.close()

    @one_kind
    def test_pools_origins_have_own_connections(self, wire: Wire) -> None:
        servers = [wire.serve(respond(reply(200, b"%d" % n), reply(200, b"%d again" % n))) for n in range(3)]
        transport = wire.transport()
        assert [read(transport.round_trip(get(server.url)))[1] for server in servers] == [b"0", b"1", b"2"]
        bodies = [read(transport.round_trip(get(server.url)))[1] for server in servers]
        assert bodies == [b"0 again", b"1 again", b"2 again"]

    @one_kind
    def test_pools_oldest_origin_is_evicted(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ociwire.transport._urllib3.pools._MAX_ORIGINS", 1)
        old = wire.serve(respond(reply(200, b"idle")), respond(reply(200, b"open")))
        new = wire.serve(respond(reply(200)))
        transport = wire.transport()
        idle: Response | None = transport.round_trip(get(old.url))
        response = transport.round_trip(get(old.url))
        assert idle is not None
        assert idle.read() == b"idle"
        del idle
        read(transport.round_trip(get(new.url)))
        assert read(response) == (200, b"open")
        del response
        old.ended(0)
        old.ended(1)

    def test_pools_threads_get_own_responses(self, wire: Wire) -> None:
        count = 6
        all_connected = threading.Barrier(count)

        def echo(peer: Peer) -> None:
            peer.read_request()
            all_connected.wait(5)
            peer.send(reply(200, peer.line()))
            while peer.receives_more():
                peer.read_request()
                peer.send(reply(200, peer.line()))

        server = wire.serve(*[echo] * count)
        transport = wire.transport(pool_size=count)
        wrong: list[Any] = []

        def send_requests(name: int) -> None:
            for number in range(5):
                answer = read(transport.round_trip(get(f"{server.url}/{name}/{number}")))
                if answer != (200, b"GET /%d/%d HTTP/1.1" % (name, number)):
                    wrong.append(answer)

        threads = [threading.Thread(target=send_requests, args=(name,)) for name in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert not wrong


class TestStaleConnection:
    """If the server has closed an idle connection, the request is resent on a new one if that is safe."""

    def first(self, transport: UrllibTransport, url: str) -> None:
        assert read(transport.round_trip(get(url))) == (200, b"first")

    @pytest.mark.parametrize("end", [Peer.close, Peer.reset, lambda peer: peer.close(notify=True)])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_stale_connection_request_uses_new_connection(self, wire: Wire, end: Script, method: str) -> None:
        server = wire.serve(respond_then(end), respond(reply(200, b"next")))
        transport = wire.transport()
        self.first(transport, server.url)
        wait(server.peer(0).ended)
        assert read(transport.round_trip(Request(method, server.url))) == (200, b"next")

    @pytest.mark.parametrize("end", [close_after_head, reset_after_head, respond_and_close])
    @pytest.mark.parametrize(
        ("method", "idempotent"),
        [("GET", None), ("HEAD", None), ("PUT", None), ("DELETE", None), ("POST", True), ("PATCH", True)],
    )
    def test_stale_connection_written_idempotent_request_is_resent(
        self, wire: Wire, end: Script, method: str, idempotent: bool | None
    ) -> None:
        server = wire.serve(respond_then(end), respond(reply(202), reply(202)))
        transport = wire.transport()
        self.first(transport, server.url)
        request = Request(method, server.url, info=RequestInfo(idempotent=idempotent))
        assert read(transport.round_trip(request)) == (202, b"")
        assert read(transport.round_trip(request)) == (202, b"")

    @pytest.mark.parametrize("end", [close_after_head, reset_after_head, respond_and_close])
    @pytest.mark.parametrize(
        ("method", "idempotent"),
        [("POST", None), ("PATCH", None), ("LOCK", None), ("POST", False), ("PUT", False), ("DELETE", False)],
    )
    @pytest.mark.parametrize("body", [None, b"", "single-use"])
    def test_stale_connection_written_non_idempotent_request_is_not_resent(
        self, wire: Wire, end: Script, method: str, idempotent: bool | None, body: bytes | str | None
    ) -> None:
        # The server may have processed the request before it closed the connection: a resend could execute it twice.
        server = wire.serve(respond_then(end))
        transport = wire.transport()
        self.first(transport, server.url)
        content = Content(b"one", b"two")
        request = Request(
            method,
            server.url,
            {"Expect": "100-continue"},
            content.body("sized") if isinstance(body, str) else body,
            RequestInfo(idempotent=idempotent),
        )
        with pytest.raises(ReadError):
            transport.round_trip(request)
        assert content.chunks_read == 0

    @one_kind
    def test_stale_connection_unwritten_non_idempotent_request_is_sent(self, wire: Wire) -> None:
        # The client detects that the connection is closed before it sends the request.
        server = wire.serve(respond_then(Peer.close), respond(reply(202)))
        transport = wire.transport()
        self.first(transport, server.url)
        server.ended(0)
        assert read(transport.round_trip(Request("POST", server.url))) == (202, b"")

    @pytest.mark.parametrize("end", [close_after_head, reset_after_head, respond_and_close])
    @pytest.mark.parametrize("framing", ["sized", "chunked"])
    def test_stale_connection_waiting_body_is_resent(self, wire: Wire, end: Script, framing: str) -> None:
        server = wire.serve(respond_then(end), respond_after_body(CONTINUE))
        transport = wire.transport()
        self.first(transport, server.url)
        content = Content(b"one", b"two")
        assert read(transport.round_trip(put(server.url, content.body(framing)))) == (201, b"")
        assert server.peer(1).bodies == [b"onetwo"]

    @one_kind
    def test_stale_connection_empty_body_is_resent(self, wire: Wire) -> None:
        # An empty body is sent like no body.
        server = wire.serve(respond_then(close_after_head), respond(reply(202)))
        transport = wire.transport()
        self.first(transport, server.url)
        assert read(transport.round_trip(Request("PUT", server.url, body=b""))) == (202, b"")

    @one_kind
    @pytest.mark.parametrize("body", [b"abc", b"x" * 300_000])
    def test_stale_connection_consumed_body_is_not_resent(self, wire: Wire, body: bytes) -> None:
        server = wire.serve(respond_then(lambda peer: (peer.read_head(), peer.read(1), peer.close())))
        transport = wire.transport(expect_timeout=0)
        self.first(transport, server.url)
        with pytest.raises(ReadError) as raised:
            transport.round_trip(put(server.url, body))
        assert raised.value.request is not None

    def test_stale_connection_after_response_bytes_is_not_resent(self, wire: Wire) -> None:
        server = wire.serve(respond_then(lambda peer: (respond_early(CONTINUE)(peer), peer.close())))
        transport = wire.transport()
        self.first(transport, server.url)
        content = Content(b"one", b"two")
        with pytest.raises(ReadError):
            transport.round_trip(put(server.url, content.body("sized")))

    @pytest.mark.parametrize("end", [close_after_head, reset_after_head, respond_and_close])
    def test_closed_new_connection_request_is_not_resent(self, wire: Wire, end: Script) -> None:
        server = wire.serve(end)
        with pytest.raises(ReadError):
            wire.transport().round_trip(get(server.url))

    def test_stale_connection_request_is_resent_once(self, wire: Wire) -> None:
        server = wire.serve(respond_then(close_after_head), close_after_head)
        transport = wire.transport()
        self.first(transport, server.url)
        with pytest.raises(ReadError):
            transport.round_trip(get(server.url))

    @pytest.mark.parametrize("idle", [2, 5])
    def test_stale_connection_resend_uses_no_idle_connection(self, wire: Wire, idle: int) -> None:
        # A restart of the server, for example, closes all connections.
        def close_on_second_request(peer: Peer) -> None:
            respond(reply(200, b"first"))(peer)
            if peer.receives_more():
                peer.close()

        server = wire.serve(*[close_on_second_request] * idle, respond(reply(200, b"next")))
        transport = wire.transport()
        responses = [transport.round_trip(get(server.url)) for _ in range(idle)]
        assert [response.read() for response in responses] == [b"first"] * idle
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        for response in responses:
            response.close()

    @one_kind
    def test_stale_connection_resend_uses_no_connection_returned_meanwhile(self, wire: Wire) -> None:
        request_received, returned = threading.Event(), threading.Event()

        def close_after_request(peer: Peer) -> None:
            respond(reply(200, b"first"))(peer)
            peer.read_head()
            request_received.set()
            wait(returned)
            peer.close()

        server = wire.serve(close_after_request, respond(reply(200, b"second")), respond(reply(200, b"next")))
        transport = wire.transport(pool_size=1)  # so that the other connection fills the pool
        first, second = transport.round_trip(get(server.url)), transport.round_trip(get(server.url))
        assert first.read() == b"first"

        def return_connection() -> None:
            wait(request_received)
            second.read()
            returned.set()

        thread = threading.Thread(target=return_connection)
        thread.start()
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        thread.join()
        assert server.ended(1).rest == b""
        first.close()
        second.close()


class TestClose:
    """Closed transports."""

    def test_close_idle_connections_are_closed_and_requests_refused(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"first")))
        transport = wire.transport()
        assert read(transport.round_trip(get(server.url))) == (200, b"first")
        transport.close()
        transport.close()
        server.ended(0)
        with pytest.raises(UsageError, match="closed"):
            transport.round_trip(get(server.url))

    def test_close_open_response_can_be_read(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"x" * 300_000)))
        transport = wire.transport()
        response = transport.round_trip(get(server.url))
        transport.close()
        assert read(response) == (200, b"x" * 300_000)
        server.ended(0)

    @one_kind
    def test_close_while_pool_is_made_raises_usage_error(self, wire: Wire) -> None:
        server = wire.serve()
        request_received, closed = threading.Event(), threading.Event()

        def slow(host: str) -> None:
            request_received.set()
            wait(closed)

        transport = wire.transport(tls=slow)
        call = Call(lambda: transport.round_trip(get(f"https://{server.netloc}")))
        wait(request_received)
        transport.close()
        closed.set()
        assert isinstance(call.join().error, UsageError)
        with pytest.raises(UsageError, match="closed"):
            transport.round_trip(get(f"https://{server.netloc}"))

    @one_kind
    def test_close_after_pool_look_up_raises_usage_error(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        server = wire.serve()
        transport = wire.transport()
        get_pool = PoolCache.get

        def get_pool_and_close(pools: PoolCache, *args: Any, **options: Any) -> OriginPool:
            pool = get_pool(pools, *args, **options)
            transport.close()
            return pool

        monkeypatch.setattr(PoolCache, "get", get_pool_and_close)
        with pytest.raises(UsageError, match="closed"):
            transport.round_trip(get(server.url))

    @one_kind
    def test_close_connection_returned_meanwhile_is_closed(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        # urllib3 checks whether the pool is closed before it puts the connection into the queue of the pool.
        server = wire.serve(respond(reply(200, b"first")))
        transport = wire.transport()
        response = transport.round_trip(get(server.url))
        put_back = IdleConnections.put

        def close_and_put(idle: IdleConnections, item: Any, **options: Any) -> None:
            transport.close()
            put_back(idle, item, **options)

        monkeypatch.setattr(IdleConnections, "put", close_and_put)
        assert read(response) == (200, b"first")
        server.ended(0)

    @one_kind
    def test_close_before_first_request_raises_usage_error(self, wire: Wire) -> None:
        server = wire.serve()
        transport = wire.transport()
        transport.close()
        with pytest.raises(UsageError, match="closed"):
            transport.round_trip(get(server.url))


class TestLeftOpen:
    """Responses that are neither read nor closed."""

    def test_response_left_open_warns_and_closes_connection(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"unread")))
        transport = wire.transport()
        response: Response | None = transport.round_trip(get(f"{server.url}/v2/?secret"))
        with pytest.warns(ResourceWarning, match=r"GET http.*/v2/$"):
            del response
        server.ended(0)

    @one_kind
    def test_response_read_to_end_does_not_warn(self, wire: Wire) -> None:
        server = wire.serve(respond(reply(200, b"read")))
        response: Response | None = wire.transport().round_trip(get(server.url))
        assert response is not None
        assert response.read() == b"read"
        del response  # a warning would be an error
