"""A TCP proxy on loopback, between a client and a real server, that does to a connection what networks do to it.

It carries bytes, and looks no deeper into them than to see where heads end: whatever the server sends after the head of
its answer is the body. No wait outlasts `Chaos.close`, which joins all threads.
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

from tests.transport.urllib3.scripts import GRACE, PATIENCE

KINDS = {
    "reset at accept": "the connection is reset as soon as it is there; it is connections that are counted",
    "goes down": "the request is lost, and all connections are refused until `Chaos.listen`",
    "request lost": "reset when the head of the request is there; nothing of it is forwarded",
    "reset in request": "reset after `at` bytes of the request's body, which are forwarded",
    "answer lost": "the request is forwarded whole, its answer comes, and the client gets a reset instead",
    "reset in answer": "reset after `at` bytes of the answer's body",
    "short answer": "an orderly end after `at` bytes of the answer's body",
    "flipped byte": "one bit of the byte at `at` of the answer's body is turned over",
    "stall": "nothing of the request is forwarded, and nothing comes, until the client gives up",
    "stall in answer": "nothing comes after `at` bytes of the answer's body, until the client gives up",
    "no 100": "interim answers are swallowed",
}
_CUTS = ("reset in answer", "short answer", "stall in answer")
_REQUEST_LINE = re.compile(rb"[A-Z]+ [^ \r\n]+ HTTP/1\.1\r\n")
_END_OF_HEAD = b"\r\n\r\n"


class Trouble(NamedTuple):
    """What happens (one of `KINDS`) to the n-th request over all connections, and to how many in a row (None: all)."""

    kind: str
    first: int = 0
    times: int | None = 1
    at: int = 0

    def hits(self, number: int) -> bool:
        return self.first <= number and (self.times is None or number < self.first + self.times)


NOTHING = Trouble("")


class _Over(Exception):
    """The connection has ended."""


@final
class Chaos:
    """The proxy. A context manager.

    Args:
        server: The real server's ``host:port``.
        troubles: What happens; the first that hits a request is what happens to it.
        by_chance: Asked with a request's number and line what happens to it, where no trouble hits it.

    Attributes:
        host: ``127.0.0.1:PORT`` of the proxy.
        requests, injected: The request lines that have come, and the kinds of what has happened, in order.
    """

    def __init__(
        self,
        server: str,
        troubles: Iterable[Trouble] = (),
        by_chance: Callable[[int, str], Trouble] = lambda number, line: NOTHING,
    ) -> None:
        host, _, port = server.rpartition(":")
        self.server = (host, int(port))
        self.requests: list[str] = []
        self.injected: list[str] = []
        self._troubles = tuple(troubles)
        assert all(trouble.kind in KINDS for trouble in self._troubles)
        self._by_chance = by_chance
        self._lock = threading.Lock()
        self._accepted = 0
        self._connections: list[_Connection] = []
        self._acceptors: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._port = 0
        self.listen()
        self.host = f"127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Take connections, if they are refused now."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
                self._port = self._listener.getsockname()[1]
                self._acceptors.append(threading.Thread(target=self._accept, args=(self._listener,), daemon=True))
                self._acceptors[-1].start()

    def refuse(self) -> None:
        """Refuse connections from now on. Those that are there go on."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # the port is deaf when this returns, and the acceptor wakes up
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                near, _ = listener.accept()
                with self._lock:
                    connection, self._accepted = _Connection(self, near, self._accepted), self._accepted + 1
                    self._connections = [one for one in self._connections if one.thread.is_alive()] + [connection]
                    connection.thread.start()

    def arrived(self, line: str) -> Trouble:
        """Count a request, and tell what happens to it."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(line)
        hit = self.trouble(number)
        return hit if hit.kind else self._by_chance(number, line)

    def trouble(self, number: int, *, accepted: bool = False) -> Trouble:
        """What happens to the n-th request, or connection, by `troubles`."""
        found = (one for one in self._troubles if (one.kind == "reset at accept") == accepted)
        return next((one for one in found if one.hits(number)), NOTHING)

    def open_connections(self, patience: float = GRACE) -> int:
        """How many connections the client keeps open, after so many seconds in which it may close them."""
        ends = time.monotonic() + patience
        for connection in self._connections:
            connection.thread.join(max(0.0, ends - time.monotonic()))
        return sum(connection.thread.is_alive() for connection in self._connections)

    def close(self) -> None:
        """End all connections and join all threads."""
        self.refuse()
        for acceptor in self._acceptors:
            acceptor.join(PATIENCE)
        for connection in self._connections:
            for sock in (connection.near, connection.far):
                with contextlib.suppress(OSError):  # it is closed, or was never connected
                    sock.shutdown(socket.SHUT_RDWR)
            connection.thread.join(PATIENCE)
            assert not connection.thread.is_alive(), "a connection of the proxy does not end"

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Connection:
    """One connection of the client's, and the one that it is carried on by; both in one thread."""

    def __init__(self, chaos: Chaos, near: socket.socket, number: int) -> None:
        self.near, self.far = near, socket.socket()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._chaos = chaos
        self._kind, self._at = chaos.trouble(number, accepted=True)[::3]
        self._request: bytes | None = b""  # the head of a request, as far as it has come; None behind it
        self._answer: bytes | None = None  # likewise the head of its answer
        self._sent = self._given = 0  # bytes of the bodies that were forwarded

    def _run(self) -> None:
        with self.near, self.far, contextlib.suppress(_Over, OSError):  # whatever breaks here, ends here
            if self._kind:
                self._reset()
            self.far.connect(self._chaos.server)
            for sock in (self.near, self.far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with selectors.DefaultSelector() as selector:
                selector.register(self.near, selectors.EVENT_READ, self._from_client)
                selector.register(self.far, selectors.EVENT_READ, self._from_server)
                while True:
                    for key, _ in selector.select():
                        if not key.data(key.fileobj.recv(65536)):  # type: ignore[union-attr]
                            selector.unregister(self.far)
                            self.near.shutdown(socket.SHUT_WR)  # the server has closed; now it is the client's turn

    def _from_client(self, data: bytes) -> bool:
        if not data:
            raise _Over
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
        self._answer, self._sent, self._given = b"", 0, 0
        self._kind, self._at = self._chaos.arrived(head.partition(b"\r\n")[0].decode("latin-1"))[::3]
        if self._kind == "goes down":
            self._chaos.refuse()
        if self._kind in ("goes down", "request lost"):
            self._reset()
        if self._kind == "stall":
            self._wait_for_the_client()
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
                self._note()
                continue
            self.near.sendall(head + mark)
        offset = self._at - self._given
        if self._kind in _CUTS and offset < len(data):
            self.near.sendall(data[:offset])
            if self._kind == "reset in answer":
                self._reset()
            if self._kind == "short answer":
                self.near.shutdown(socket.SHUT_WR)
            self._wait_for_the_client()
        if self._kind == "flipped byte" and 0 <= offset < len(data):
            self._note()
            data = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        self._given += len(data)
        self.near.sendall(data)
        return True

    def _to_server(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it may have answered and closed: its answer is still to be carried
            self.far.sendall(data)

    def _note(self) -> None:
        self._chaos.injected.append(self._kind)

    def _wait_for_the_client(self) -> None:
        self._note()
        self.far.close()
        while self.near.recv(65536):
            pass
        raise _Over

    def _reset(self) -> None:
        self._note()
        for sock in (self.near, self.far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        raise _Over
