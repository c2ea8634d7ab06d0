"""A TCP proxy on loopback between a client and a real server that injects network faults.

The proxy forwards bytes. It parses them only to find the end of each head: all bytes after the head of a response are
its body. `FaultProxy.close` ends all waits and joins all threads.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, final

from tests.transport.urllib3.scripted_server import GRACE, PATIENCE

KINDS = {
    "reset at accept": "the connection is reset when it is accepted; connections are counted, not requests",
    "goes down": "the request is lost, and all connections are refused until `FaultProxy.listen`",
    "request lost": "reset after the head of the request was read; nothing is forwarded",
    "reset in request": "reset after `at` bytes of the request's body, which are forwarded",
    "answer lost": "the request is forwarded, and the client gets a reset instead of the response",
    "reset in answer": "reset after `at` bytes of the body of the response",
    "short answer": "closed in order after `at` bytes of the body of the response",
    "flipped byte": "one bit of the byte at `at` of the body of the response is inverted",
    "stall": "nothing is forwarded in either direction until the client gives up",
    "stall in answer": "nothing follows `at` bytes of the body of the response until the client gives up",
    "no 100": "interim responses are dropped",
}
_CUTS = ("reset in answer", "short answer", "stall in answer")
_REQUEST_LINE = re.compile(rb"[A-Z]+ [^ \r\n]+ HTTP/1\.1\r\n")
_END_OF_HEAD = b"\r\n\r\n"


class NetworkFault(NamedTuple):
    """Fault (one of `KINDS`) of `times` requests from the n-th one, counted over all connections. None: all of them."""

    kind: str
    first: int = 0
    times: int | None = 1
    at: int = 0

    def matches(self, number: int) -> bool:
        return self.first <= number and (self.times is None or number < self.first + self.times)


NO_FAULT = NetworkFault("")


class _ConnectionEnded(Exception):
    """Raised to end the thread of a connection."""


@final
class FaultProxy:
    """TCP proxy that injects faults. A context manager.

    Args:
        server: ``host:port`` of the real server.
        faults: The faults. The first one that matches a request applies.
        choose: Returns the fault of a request that matches none of `faults`, by its number and its request line.

    Attributes:
        host: ``127.0.0.1:PORT`` of the proxy.
        requests, injected: The request lines received and the kinds of the faults caused, in order.
    """

    def __init__(
        self,
        server: str,
        faults: Iterable[NetworkFault] = (),
        choose: Callable[[int, str], NetworkFault] = lambda number, line: NO_FAULT,
    ) -> None:
        host, _, port = server.rpartition(":")
        self.server = (host, int(port))
        self.requests: list[str] = []
        self.injected: list[str] = []
        self._faults = tuple(faults)
        assert all(fault.kind in KINDS for fault in self._faults)
        self._choose = choose
        self._lock = threading.Lock()
        self._accepted = 0
        self._connections: list[_Connection] = []
        self._acceptors: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._port = 0
        self.listen()
        self.host = f"127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Accept connections again after `refuse`."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
                self._port = self._listener.getsockname()[1]
                self._acceptors.append(threading.Thread(target=self._accept, args=(self._listener,), daemon=True))
                self._acceptors[-1].start()

    def refuse(self) -> None:
        """Refuse new connections. Open ones continue."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # stops listening at once and wakes the accept thread
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = listener.accept()
                with self._lock:
                    connection, self._accepted = _Connection(self, client, self._accepted), self._accepted + 1
                    self._connections = [other for other in self._connections if other.thread.is_alive()]
                    self._connections.append(connection)
                    connection.thread.start()

    def next_fault(self, line: str) -> NetworkFault:
        """Count a request and return its fault."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(line)
        fault_of_request = self.fault(number)
        return fault_of_request if fault_of_request.kind else self._choose(number, line)

    def fault(self, number: int, *, accepted: bool = False) -> NetworkFault:
        """Return the fault of the n-th request, or, if `accepted`, of the n-th connection."""
        faults = (fault for fault in self._faults if (fault.kind == "reset at accept") == accepted)
        return next((fault for fault in faults if fault.matches(number)), NO_FAULT)

    def open_connections(self, timeout: float = GRACE) -> int:
        """Return the number of connections that the client has not closed after `timeout` seconds."""
        end = time.monotonic() + timeout
        for connection in self._connections:
            connection.thread.join(max(0.0, end - time.monotonic()))
        return sum(connection.thread.is_alive() for connection in self._connections)

    def close(self) -> None:
        """End all connections and join all threads."""
        self.refuse()
        for acceptor in self._acceptors:
            acceptor.join(PATIENCE)
        for connection in self._connections:
            for sock in (connection.client, connection.upstream):
                with contextlib.suppress(OSError):  # closed, or never connected
                    sock.shutdown(socket.SHUT_RDWR)
            connection.thread.join(PATIENCE)
            assert not connection.thread.is_alive(), "a connection thread of the proxy does not end"

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Connection:
    """Connection of the client and its connection to the server, both in one thread."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, number: int) -> None:
        self.client, self.upstream = client, socket.socket()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._proxy = proxy
        self._kind, self._at = proxy.fault(number, accepted=True)[::3]
        self._request: bytes | None = b""  # the received part of a request head; None after its end
        self._answer: bytes | None = None  # likewise for the head of the response
        self._sent = self._forwarded = 0  # forwarded bytes of the bodies

    def _run(self) -> None:
        with (
            self.client,
            self.upstream,
            contextlib.suppress(_ConnectionEnded, OSError),
        ):  # a failure ends this connection only
            if self._kind:
                self._reset()
            self.upstream.connect(self._proxy.server)
            for sock in (self.client, self.upstream):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with selectors.DefaultSelector() as selector:
                selector.register(self.client, selectors.EVENT_READ, self._from_client)
                selector.register(self.upstream, selectors.EVENT_READ, self._from_server)
                while True:
                    for key, _ in selector.select():
                        if not key.data(key.fileobj.recv(65536)):  # type: ignore[union-attr]
                            selector.unregister(self.upstream)
                            self.client.shutdown(socket.SHUT_WR)  # the server has closed; wait for the client

    def _from_client(self, data: bytes) -> bool:
        if not data:
            raise _ConnectionEnded
        if self._request is None and self._answer is None and _REQUEST_LINE.match(data):
            self._request = b""
        if self._request is not None:
            head, mark, data = (self._request + data).partition(_END_OF_HEAD)
            self._request = None if mark else head
            if not mark:
                return True
            self._begin(head + mark)
        if data and self._kind == "reset in request" and self._sent + len(data) >= self._at:
            self._to_server(data[: self._at - self._sent])
            self._reset()
        self._sent += len(data)
        self._to_server(data)
        return True

    def _begin(self, head: bytes) -> None:
        self._answer, self._sent, self._forwarded = b"", 0, 0
        self._kind, self._at = self._proxy.next_fault(head.partition(b"\r\n")[0].decode("latin-1"))[::3]
        if self._kind == "goes down":
            self._proxy.refuse()
        if self._kind in ("goes down", "request lost"):
            self._reset()
        if self._kind == "stall":
            self._wait_for_client()
        self._to_server(head)

    def _from_server(self, data: bytes) -> bool:
        if not data:
            return False
        while self._answer is not None:
            head, mark, data = (self._answer + data).partition(_END_OF_HEAD)
            self._answer = b"" if mark else head
            if not mark:
                return True
            if head[9:10] != b"1":
                self._answer = None
                if self._kind == "answer lost":
                    self._reset()
            elif self._kind == "no 100":
                self._record()
                continue
            self.client.sendall(head + mark)
        offset = self._at - self._forwarded
        if self._kind in _CUTS and offset < len(data):
            self.client.sendall(data[:offset])
            if self._kind == "reset in answer":
                self._reset()
            if self._kind == "short answer":
                self.client.shutdown(socket.SHUT_WR)
            self._wait_for_client()
        if self._kind == "flipped byte" and 0 <= offset < len(data):
            self._record()
            data = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        self._forwarded += len(data)
        self.client.sendall(data)
        return True

    def _to_server(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the server may have closed after a response, which is still forwarded
            self.upstream.sendall(data)

    def _record(self) -> None:
        self._proxy.injected.append(self._kind)

    def _wait_for_client(self) -> None:
        self._record()
        self.upstream.close()
        while self.client.recv(65536):
            pass
        raise _ConnectionEnded

    def _reset(self) -> None:
        self._record()
        for sock in (self.client, self.upstream):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        raise _ConnectionEnded
