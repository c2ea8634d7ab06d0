"""`with_options`, and deadlines with real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

import ociwire.transport
from ociwire import Client, Request, RequestInfo, Response, Scope, errors
from ociwire.transport import UrllibTransport
from tests._support.doubles import PATIENCE, FakeClock, RecordingTransport
from tests.client.support import BLOB, CONTENT, HOST, ScriptedRegistry, blob_response, send_and_close
from tests.transport.urllib3.scripted_server import Peer, Server


def infos(registry: ScriptedRegistry) -> list[RequestInfo]:
    return [request.info for request in registry.requests]


# --- requests ---


def test_with_options_apply_to_every_request() -> None:
    registry = ScriptedRegistry(
        blob_response(), Response(202, {"Location": "/u"}), Response(201), Response(200, (), b"{}")
    )
    timeout = urllib3.Timeout(connect=1, read=2)
    client = registry.client.with_options(timeout=timeout, deadline=1e12, extra={"tenant": 7})
    assert client.get_blob("a", BLOB.digest).read() == CONTENT
    client.push_blob("a", BLOB, CONTENT)
    assert list(client.tags("a")) == []
    for info in infos(registry):
        assert info.timeout is timeout
        assert info.deadline == 1e12
        assert dict(info.extra) == {"tenant": 7}
    assert [info.operation for info in infos(registry)] == ["get_blob", "push_blob", "push_blob", "tags"]
    assert str(infos(registry)[0].required_scope) == "repository:a:pull"
    registry.assert_done()


def test_with_options_does_not_modify_client() -> None:
    registry = ScriptedRegistry(blob_response(), blob_response())
    registry.client.with_options(timeout=1, deadline=2e12, extra={"a": 1}).resolve_blob("a", BLOB.digest)
    registry.client.resolve_blob("a", BLOB.digest)
    info = infos(registry)[1]
    assert (info.timeout, info.deadline, dict(info.extra)) == (None, None, {})


def test_with_options_none_removes_timeout_and_deadline() -> None:
    registry = ScriptedRegistry(blob_response(), blob_response())
    client = registry.client.with_options(timeout=1, deadline=5e12, extra={"a": 1})
    client.with_options(timeout=None).resolve_blob("a", BLOB.digest)
    client.with_options(deadline=None).resolve_blob("a", BLOB.digest)
    assert [(info.timeout, info.deadline) for info in infos(registry)] == [(None, 5e12), (1, None)]
    assert all(dict(info.extra) == {"a": 1} for info in infos(registry))


def test_with_options_repeated_merges_options() -> None:
    registry = ScriptedRegistry(*[blob_response()] * 4)
    first = registry.client.with_options(timeout=1, extra={"a": 1, "b": 1})
    for client in (
        first.with_options(deadline=5e12),
        first.with_options(timeout=2, extra={"b": 2, "c": 2}),
        first.with_options(extra={}),
        first.with_options(),
    ):
        client.resolve_blob("a", BLOB.digest)
    assert [(info.timeout, info.deadline, dict(info.extra)) for info in infos(registry)] == [
        (1, 5e12, {"a": 1, "b": 1}),
        (2, None, {"a": 1, "b": 2, "c": 2}),
        (1, None, {"a": 1, "b": 1}),
        (1, None, {"a": 1, "b": 1}),
    ]


def test_with_options_request_info_of_caller_takes_precedence() -> None:
    registry = ScriptedRegistry(blob_response(), blob_response())
    client = registry.client.with_options(timeout=1, deadline=5e12, extra={"a": 1, "b": 1})
    info = RequestInfo(
        required_scope=Scope.CATALOG,
        operation="scan",
        debug_id="mine",
        timeout=9.0,
        deadline=99.0,
        idempotent=False,
        extra={"b": 2, "c": 2},
    )
    client.do(Request("POST", "/v2/", info=info)).close()
    client.do(Request("GET", "/v2/", info=RequestInfo(deadline=99.0))).close()
    assert infos(registry)[0] == info.replace(extra={"a": 1, "b": 2, "c": 2})
    assert infos(registry)[1].replace(debug_id="") == RequestInfo(
        operation="do", timeout=1, deadline=99.0, extra={"a": 1, "b": 1}
    )


def test_with_options_keeps_host_transport_and_debug_id() -> None:
    registry = ScriptedRegistry(blob_response(), blob_response(), debug_id="mine", host="docker.io", user_agent="me/1")
    client = registry.client.with_options(timeout=1)
    assert type(client) is Client
    assert client.host == registry.client.host == "registry-1.docker.io"
    assert client.transport is registry.client.transport
    assert repr(client) == repr(registry.client)
    client.resolve_blob("a", BLOB.digest)
    registry.client.resolve_blob("a", BLOB.digest)
    assert [info.debug_id for info in infos(registry)] == ["mine", "mine"]
    assert {request.headers["user-agent"] for request in registry.requests} == {"me/1"}
    assert registry.lines[0] == registry.lines[1]


@pytest.mark.parametrize("deadline", ["soon", b"1", True, [1], object()])
def test_with_options_invalid_deadline_raises_usage_error(deadline: Any) -> None:
    with pytest.raises(errors.UsageError, match="deadline"):
        ScriptedRegistry().client.with_options(deadline=deadline)


def test_with_options_shares_seen_warnings(caplog: pytest.LogCaptureFixture) -> None:
    registry = ScriptedRegistry(*[Response(200, {"Warning": '299 - "old"', "Content-Length": "1"})] * 2)
    with caplog.at_level("WARNING", "ociwire.warnings"):
        registry.client.with_options(timeout=1).resolve_blob("a", BLOB.digest)
        registry.client.resolve_blob("a", BLOB.digest)
    assert len(caplog.records) == 1


# --- shared state ---


@pytest.mark.parametrize("closed", ["first", "second"])
def test_close_either_client_closes_both(closed: str) -> None:
    registry = ScriptedRegistry()
    first = registry.client
    second = first.with_options(timeout=1)
    (first if closed == "first" else second).close()
    for client in (first, second, second.with_options(timeout=2)):
        with pytest.raises(errors.UsageError, match="closed"):
            client.resolve_blob("a", BLOB.digest)
    assert registry.requests == []


def test_close_with_options_given_transport_stays_open() -> None:
    transport = RecordingTransport()
    with Client(HOST, transport).with_options(timeout=1):
        pass
    assert transport.closes == 0


def test_close_with_options_default_transport_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = RecordingTransport()
    monkeypatch.setattr(ociwire.transport, "default_transport", lambda **options: transport)
    client = Client(HOST)
    with client.with_options(timeout=1) as derived:
        assert derived.transport is transport
    assert transport.closes == 1
    with pytest.raises(errors.UsageError, match="closed"):
        client.resolve_blob("a", BLOB.digest)


# --- deadlines over sockets ---


class SlowResponse:
    """Script that sends the beginning of a response, and then single bytes until the client closes the connection.

    Args:
        clock: Clock that each byte advances by one second.
        beginning: The beginning of the response.
        byte: The byte that is repeated. Defaults to ``x``.

    Attributes:
        begin: Event that the test sets to start the slow bytes.
        bytes_sent: Number of slow bytes.
    """

    def __init__(self, clock: FakeClock, beginning: bytes, byte: bytes = b"x") -> None:
        self.begin = threading.Event()
        self.bytes_sent = 0
        self._clock = clock
        self._beginning = beginning
        self._byte = byte

    def __call__(self, peer: Peer) -> None:
        peer.read_head()
        peer.send(self._beginning)
        assert self.begin.wait(PATIENCE)
        with contextlib.suppress(OSError):  # the client has closed the connection
            while self.bytes_sent < 100_000:
                peer.send(self._byte)
                self.bytes_sent += 1
                self._clock.now += 1
        peer.close()


LENGTH = 1_000_000
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: {LENGTH}\r\n\r\n".encode()
BLOB_CALLS: dict[str, Callable[[Client], Any]] = {
    "get_blob": lambda client: client.get_blob("a", BLOB.digest),
    "get_blob_range": lambda client: client.get_blob_range("a", BLOB.digest, 0, 900_000),
}
CALLS: dict[str, Callable[[Client], Any]] = {
    "get_blob_range, skipping": lambda client: client.get_blob_range("a", BLOB.digest, 900_000),
    "get_manifest": lambda client: client.get_manifest("a", BLOB.digest),
    "get_tag": lambda client: client.get_tag("a", "b"),
    "tags": lambda client: list(client.tags("a")),
    "repositories": lambda client: list(client.repositories()),
    "referrers": lambda client: list(client.referrers("a", BLOB.digest)),
    "do": lambda client: client.do(Request("GET", "/v2/")).read(),
}


@pytest.mark.parametrize("call", BLOB_CALLS.values(), ids=BLOB_CALLS)
def test_blob_reader_slow_body_times_out_at_deadline(
    call: Callable[[Client], Any], clock: FakeClock, transport: UrllibTransport
) -> None:
    slow = SlowResponse(clock, HEAD)
    with contextlib.closing(Server(slow)) as server:
        client = Client(server.netloc, transport, insecure=True).with_options(deadline=clock.now + 4)
        with call(client) as reader:
            slow.begin.set()
            with pytest.raises(errors.TransportTimeout) as caught:
                reader.read()
        assert caught.value.request is not None
    assert len(server.peers) == 1  # the download is not resumed after the deadline
    assert slow.bytes_sent >= 4


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_client_slow_body_times_out_at_deadline(
    call: Callable[[Client], Any], clock: FakeClock, transport: UrllibTransport
) -> None:
    slow = SlowResponse(clock, HEAD, b" ")
    with contextlib.closing(Server(slow)) as server:
        client = Client(server.netloc, transport, insecure=True).with_options(deadline=clock.now + 4)
        slow.begin.set()
        with pytest.raises(errors.TransportTimeout):
            call(client)
    assert len(server.peers) == 1


@pytest.mark.parametrize("call", [*CALLS.values(), *BLOB_CALLS.values()], ids=[*CALLS, *BLOB_CALLS])
def test_client_slow_response_head_times_out_at_deadline(
    call: Callable[[Client], Any], clock: FakeClock, transport: UrllibTransport
) -> None:
    slow = SlowResponse(clock, b"HTTP/1.1 200 OK\r\nX-Slow: ")
    with contextlib.closing(Server(slow)) as server:
        slow.begin.set()
        client = Client(server.netloc, transport, insecure=True).with_options(deadline=clock.now + 4)
        with pytest.raises(errors.TransportTimeout):
            call(client)


def test_blob_reader_resumed_download_keeps_deadline(clock: FakeClock, transport: UrllibTransport) -> None:
    first = HEAD + b"five!"
    rest = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-{LENGTH - 1}/{LENGTH}\r\n"
        f"Content-Length: {LENGTH - 5}\r\n\r\n"
    ).encode()
    slow = SlowResponse(clock, rest)
    with contextlib.closing(Server(send_and_close(first), slow)) as server:
        client = Client(server.netloc, transport, insecure=True).with_options(deadline=clock.now + 4)
        with client.get_blob("a", BLOB.digest) as reader:
            slow.begin.set()
            with pytest.raises(errors.TransportTimeout):
                reader.read()
    assert f"bytes=5-{LENGTH - 1}".encode() in server.peers[1].heads[0]


def test_client_deadline_passed_sends_nothing(clock: FakeClock, transport: UrllibTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        client = Client(host, transport, insecure=True).with_options(deadline=clock.now)
        for call in (*CALLS.values(), *BLOB_CALLS.values()):
            with pytest.raises(errors.TransportTimeout):
                call(client)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_client_without_deadline_ignores_deadline_of_other_client(clock: FakeClock, transport: UrllibTransport) -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with contextlib.closing(Server(send_and_close(HEAD[:-2]), send_and_close(response))) as server:
        client = Client(server.netloc, transport, insecure=True)
        with pytest.raises(errors.TransportError):  # the response head is incomplete
            client.with_options(deadline=clock.now + 4).resolve_blob("a", BLOB.digest)
        clock.now += 100
        assert client.do(Request("GET", "/v2/")).json() == {}
