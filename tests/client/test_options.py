"""Clients with other options, and deadlines as they end on a wire."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, final

import pytest
import urllib3

import ociwire.transport
from ociwire import Client, Request, RequestInfo, Response, Scope, errors
from ociwire.transport import UrllibTransport
from tests._support.doubles import FakeClock
from tests.client.test_client import BLOB, CONTENT, HOST, Closing, Registry, found

PATIENCE = 5.0
"""The most that either side waits for the other, in seconds: reached only by what is broken."""


def infos(registry: Registry) -> list[RequestInfo]:
    return [request.info for request in registry.requests]


# --- what requests are given ---


def test_with_options_apply_to_every_request() -> None:
    registry = Registry(found(), Response(202, {"Location": "/u"}), Response(201), Response(200, (), b"{}"))
    timeout = urllib3.Timeout(connect=1, read=2)
    client = registry.client.with_options(timeout=timeout, deadline=12.5, extra={"tenant": 7})
    assert client.get_blob("a", BLOB.digest).read() == CONTENT
    client.push_blob("a", BLOB, CONTENT)
    assert list(client.tags("a")) == []
    for info in infos(registry):
        assert info.timeout is timeout
        assert info.deadline == 12.5
        assert dict(info.extra) == {"tenant": 7}
    assert [info.operation for info in infos(registry)] == ["get_blob", "push_blob", "push_blob", "tags"]
    assert str(infos(registry)[0].required_scope) == "repository:a:pull"
    registry.check_done()


def test_with_options_does_not_modify_client() -> None:
    registry = Registry(found(), found())
    registry.client.with_options(timeout=1, deadline=2.0, extra={"a": 1}).resolve_blob("a", BLOB.digest)
    registry.client.resolve_blob("a", BLOB.digest)
    plain = infos(registry)[1]
    assert (plain.timeout, plain.deadline, dict(plain.extra)) == (None, None, {})


def test_with_options_none_removes_timeout_and_deadline() -> None:
    registry = Registry(found(), found())
    client = registry.client.with_options(timeout=1, deadline=5.0, extra={"a": 1})
    client.with_options(timeout=None).resolve_blob("a", BLOB.digest)
    client.with_options(deadline=None).resolve_blob("a", BLOB.digest)
    assert [(info.timeout, info.deadline) for info in infos(registry)] == [(None, 5.0), (1, None)]
    assert all(dict(info.extra) == {"a": 1} for info in infos(registry))


def test_with_options_repeated_merges_options() -> None:
    registry = Registry(*[found()] * 4)
    first = registry.client.with_options(timeout=1, extra={"a": 1, "b": 1})
    for client in (
        first.with_options(deadline=5.0),
        first.with_options(timeout=2, extra={"b": 2, "c": 2}),
        first.with_options(extra={}),
        first.with_options(),
    ):
        client.resolve_blob("a", BLOB.digest)
    assert [(info.timeout, info.deadline, dict(info.extra)) for info in infos(registry)] == [
        (1, 5.0, {"a": 1, "b": 1}),
        (2, None, {"a": 1, "b": 2, "c": 2}),
        (1, None, {"a": 1, "b": 1}),
        (1, None, {"a": 1, "b": 1}),
    ]


def test_with_options_request_info_of_caller_takes_precedence() -> None:
    registry = Registry(found(), found())
    client = registry.client.with_options(timeout=1, deadline=5.0, extra={"a": 1, "b": 1})
    own = RequestInfo(
        required_scope=Scope.CATALOG,
        operation="scan",
        debug_id="mine",
        timeout=9.0,
        deadline=99.0,
        idempotent=False,
        extra={"b": 2, "c": 2},
    )
    client.do(Request("POST", "/v2/", info=own)).close()
    client.do(Request("GET", "/v2/", info=RequestInfo(deadline=99.0))).close()
    assert infos(registry)[0] == own.replace(extra={"a": 1, "b": 2, "c": 2})
    assert infos(registry)[1].replace(debug_id="") == RequestInfo(
        operation="do", timeout=1, deadline=99.0, extra={"a": 1, "b": 1}
    )


def test_with_options_keeps_host_transport_and_debug_id() -> None:
    registry = Registry(found(), found(), debug_id="mine", host="docker.io", user_agent="me/1")
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
        Registry().client.with_options(deadline=deadline)


def test_with_options_shares_seen_warnings(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(*[Response(200, {"Warning": '299 - "old"', "Content-Length": "1"})] * 2)
    with caplog.at_level("WARNING", "ociwire.warnings"):
        registry.client.with_options(timeout=1).resolve_blob("a", BLOB.digest)
        registry.client.resolve_blob("a", BLOB.digest)
    assert len(caplog.records) == 1


# --- the shared life ---


@pytest.mark.parametrize("closed", ["first", "second"])
def test_close_either_client_closes_both(closed: str) -> None:
    registry = Registry()
    first = registry.client
    second = first.with_options(timeout=1)
    (first if closed == "first" else second).close()
    for client in (first, second, second.with_options(timeout=2)):
        with pytest.raises(errors.UsageError, match="closed"):
            client.resolve_blob("a", BLOB.digest)
    assert registry.requests == []


def test_close_with_options_given_transport_stays_open() -> None:
    transport = Closing()
    with Client(HOST, transport).with_options(timeout=1):
        pass
    assert transport.closed == 0


def test_close_with_options_default_transport_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Closing()
    monkeypatch.setattr(ociwire.transport, "default_transport", lambda **options: transport)
    client = Client(HOST)
    with client.with_options(timeout=1) as other:
        assert other.transport is transport
    assert transport.closed == 1
    with pytest.raises(errors.UsageError, match="closed"):
        client.resolve_blob("a", BLOB.digest)


# --- deadlines on the wire ---


@final
class Dripping:
    """A server on loopback that sends what it is given, and then a drop a second by the clock, until nobody listens.

    Args:
        clock: The clock; no second passes for anybody else.
        answers: What each connection begins with; the last one's goes on in drips.
        drop: What drips.
    """

    def __init__(self, clock: FakeClock, *answers: bytes, drop: bytes = b"x") -> None:
        self.heads: list[bytes] = []
        self.begin = threading.Event()
        self.dripped = 0
        self._clock = clock
        self._answers = answers
        self._drop = drop
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            for answer in self._answers[:-1]:
                with self._accept() as sock:
                    sock.sendall(answer)
            with self._accept() as sock:
                sock.sendall(self._answers[-1])
                assert self.begin.wait(PATIENCE)
                with contextlib.suppress(OSError):  # the client has gone, which is what is waited for
                    while self.dripped < 100_000:
                        sock.sendall(self._drop)
                        self.dripped += 1
                        self._clock.now += 1
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self._error = error

    def _accept(self) -> socket.socket:
        sock, _ = self._listener.accept()
        sock.settimeout(PATIENCE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        self.heads.append(head)
        return sock

    def __enter__(self) -> Dripping:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.begin.set()
        if kind is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(4 * PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()
        if kind is None and self._error is not None:
            raise self._error


@pytest.fixture
def transport() -> Iterator[UrllibTransport]:
    transport = UrllibTransport(timeout=PATIENCE, trust_env=False)
    with contextlib.closing(transport):
        yield transport


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
    with Dripping(clock, HEAD) as server:
        client = Client(server.host, transport, insecure=True).with_options(deadline=clock.now + 4)
        with call(client) as reader:
            server.begin.set()
            with pytest.raises(errors.TransportTimeout) as caught:
                reader.read()
        assert caught.value.request is not None
    assert len(server.heads) == 1  # it is not taken up again: there is no time for it
    assert server.dripped >= 4


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_client_slow_body_times_out_at_deadline(
    call: Callable[[Client], Any], clock: FakeClock, transport: UrllibTransport
) -> None:
    with Dripping(clock, HEAD, drop=b" ") as server:
        client = Client(server.host, transport, insecure=True).with_options(deadline=clock.now + 4)
        server.begin.set()
        with pytest.raises(errors.TransportTimeout):
            call(client)
    assert len(server.heads) == 1


@pytest.mark.parametrize("call", [*CALLS.values(), *BLOB_CALLS.values()], ids=[*CALLS, *BLOB_CALLS])
def test_client_slow_response_head_times_out_at_deadline(
    call: Callable[[Client], Any], clock: FakeClock, transport: UrllibTransport
) -> None:
    with Dripping(clock, b"HTTP/1.1 200 OK\r\nX-Drip: ") as server:
        server.begin.set()
        client = Client(server.host, transport, insecure=True).with_options(deadline=clock.now + 4)
        with pytest.raises(errors.TransportTimeout):
            call(client)


def test_blob_reader_resumed_download_keeps_deadline(clock: FakeClock, transport: UrllibTransport) -> None:
    cut = HEAD + b"five!"
    rest = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-{LENGTH - 1}/{LENGTH}\r\n"
        f"Content-Length: {LENGTH - 5}\r\n\r\n"
    ).encode()
    with Dripping(clock, cut, rest) as server:
        client = Client(server.host, transport, insecure=True).with_options(deadline=clock.now + 4)
        with client.get_blob("a", BLOB.digest) as reader:
            server.begin.set()
            with pytest.raises(errors.TransportTimeout):
                reader.read()
    assert f"bytes=5-{LENGTH - 1}".encode() in server.heads[1]


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
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with Dripping(clock, HEAD[:-2], answer) as server:
        client = Client(server.host, transport, insecure=True)
        with pytest.raises(errors.TransportError):  # its head is cut off
            client.with_options(deadline=clock.now + 4).resolve_blob("a", BLOB.digest)
        clock.now += 100
        assert client.do(Request("GET", "/v2/")).json() == {}
