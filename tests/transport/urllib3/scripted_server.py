"""A scripted server on raw sockets: each connection runs the next script and records the received bytes.

All waits have a timeout. A failure in a script fails the test when the server is closed.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ociwire._http.messages import Body, Headers, Request, RequestInfo, Response

PATIENCE = 5.0
"""Timeout of all waits in seconds. It is only reached if a test fails."""
GRACE = 1.0
"""Time in seconds that a closed transport has for closing its connections."""

Script = Callable[["Peer"], object]


def reply(status: int, body: bytes = b"", *fields: str, version: str = "1.1") -> bytes:
    """Return a response. Add a Content-Length unless the fields contain the framing."""
    framed = any(field.lower().startswith(("content-length:", "transfer-encoding:")) for field in fields)
    bodiless = status < 200 or status in (204, 304)
    lines = [f"HTTP/{version} {status} Because", *fields]
    if not framed and not bodiless:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


CONTINUE = reply(100)


class Peer:
    """Server side of a connection.

    Attributes:
        heads: The request heads that were read.
        bodies: The request bodies that were read.
        rest: The bytes that were received after the end of the script.
        ended: Set when the client has closed the connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.rest = b""
        self.ended = threading.Event()
        self._buffer = b""

    def _receive(self) -> bool:
        data = self.sock.recv(65536)
        self._buffer += data
        return bool(data)

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._receive():
                raise AssertionError(f"the client closed the connection after {self._buffer[-200:]!r}")
        data, _, self._buffer = self._buffer.partition(mark)
        return data + mark

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        while len(self._buffer) < count:
            if not self._receive():
                raise AssertionError(f"the client closed the connection {count - len(self._buffer)} bytes too early")
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def read_head(self) -> bytes:
        """Read the head of the next request, with its blank line."""
        self.heads.append(self._read_until(b"\r\n\r\n"))
        return self.heads[-1]

    def read_body(self) -> bytes:
        """Read the body that the last head announces."""
        if self.field("transfer-encoding") == b"chunked":
            body = b""
            while size := int(self._read_until(b"\r\n"), 16):
                body += self.read(size)
                assert self.read(2) == b"\r\n"
            assert self.read(2) == b"\r\n"
        else:
            body = self.read(int(self.field("content-length") or 0))
        self.bodies.append(body)
        return body

    def read_request(self) -> bytes:
        """Read a request and return its body."""
        self.read_head()
        return self.read_body()

    def field(self, name: str, index: int = -1) -> bytes | None:
        """Return the value of a field of a received head, or None. A repeated field is an error."""
        values = re.findall(rb"(?im)^%b:[ \t]*(.*?)\r$" % name.encode(), self.heads[index])
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    def line(self, index: int = -1) -> bytes:
        """Return the request line of a received head."""
        return self.heads[index].split(b"\r\n", 1)[0]

    def send(self, *data: bytes) -> None:
        """Send each piece in a separate TLS record."""
        for piece in data:
            self.sock.sendall(piece)

    def send_bytewise(self, data: bytes) -> None:
        """Send byte by byte."""
        self.send(*(data[i : i + 1] for i in range(len(data))))

    def receives_more(self) -> bool:
        """Return whether the client sends more bytes before it closes."""
        return bool(self._buffer) or self._receive()

    def expect_silence(self, seconds: float) -> None:
        """Check that the client sends nothing for `seconds`."""
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(1)
        except TimeoutError:
            self.sock.settimeout(PATIENCE)
        else:
            raise AssertionError(f"expected nothing from the client, got {data!r}")

    def drain(self) -> None:
        """Read until the client closes."""
        try:
            while self._receive():
                pass
        except TimeoutError:
            raise AssertionError("the client left its connection open") from None
        except OSError:
            pass  # a reset, or one of the TLS errors for it, is also an end
        self.rest, self._buffer = self._buffer, b""
        self.ended.set()

    def close(self, *, notify: bool = False) -> None:
        """Close the connection; with `notify`, send the close_notify of TLS first."""
        if notify and isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(0)
            with contextlib.suppress(OSError):
                self.sock.unwrap()  # sends close_notify without waiting for that of the client
        self.sock.close()

    def reset(self) -> None:
        """Close the connection with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """Server on loopback. The n-th connection runs the n-th script and is then read until the client closes it.

    Args:
        scripts: One script per connection. Another number of connections is an error.
        context: The context for TLS. None means plain http.
        host: The host name in `url`.
        handshake_fails: Whether a failed TLS handshake is expected.
    """

    def __init__(
        self,
        *scripts: Script,
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        handshake_fails: bool = False,
    ) -> None:
        self._scripts = scripts
        self._context = context
        self._handshake_fails = handshake_fails
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.netloc = f"{host}:{self.port}"
        self.url = f"{'http' if context is None else 'https'}://{self.netloc}"
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._accepted = threading.Condition()
        self._waker: object = None
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            sock, address = self._listener.accept()
            if address == self._waker:
                sock.close()
                return
            if len(self.peers) == len(self._scripts):
                self.errors.append(AssertionError("more connections than scripts"))
                self._listener.close()  # refuses a client that retries endlessly
                sock.close()
                return
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._accepted:
                self.peers.append(Peer(sock))
                self._accepted.notify_all()
            thread = threading.Thread(target=self._run, args=(len(self.peers) - 1,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def peer(self, index: int) -> Peer:
        """Wait for the n-th connection and return it."""
        with self._accepted:
            assert self._accepted.wait_for(lambda: len(self.peers) > index, PATIENCE), (
                "the client did not open this connection in time"
            )
        return self.peers[index]

    def ended(self, index: int) -> Peer:
        """Wait until the client has closed the n-th connection and return it."""
        wait(self.peer(index).ended)
        return self.peers[index]

    def _run(self, index: int) -> None:
        peer = self.peers[index]
        try:
            if self._context is not None and not self._do_handshake(peer):
                return
            self._scripts[index](peer)
            if peer.sock.fileno() >= 0:
                peer.drain()
        except BaseException as error:  # noqa: BLE001 - raised by close() in the main thread
            self.errors.append(error)
        finally:
            peer.sock.close()
            peer.ended.set()

    def _do_handshake(self, peer: Peer) -> bool:
        assert self._context is not None
        plain = peer.sock
        try:
            peer.sock = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            peer.sock.do_handshake()  # type: ignore[attr-defined]
        except OSError:
            if not self._handshake_fails:
                raise
            # Read the sent bytes: otherwise the close sends a reset, and the client may not receive the alert.
            peer.sock = socket.socket(fileno=peer.sock.detach())
            peer.sock.settimeout(PATIENCE)
            with contextlib.suppress(OSError):  # the client may have closed
                peer.sock.shutdown(socket.SHUT_WR)
            peer.drain()
            return False
        return True

    def close(self) -> None:
        """Stop, join all threads, and raise their first error."""
        with socket.socket() as waker, contextlib.suppress(OSError):  # the server may have stopped already
            waker.bind(("127.0.0.1", 0))
            self._waker = waker.getsockname()
            waker.connect(self._listener.getsockname())
        self._acceptor.join(PATIENCE)
        self._listener.close()
        for index, thread in enumerate(self._threads):
            thread.join(GRACE)
            if thread.is_alive():
                self.errors.append(AssertionError(f"connection {index} was still in use"))
                with contextlib.suppress(OSError):
                    self.peers[index].sock.shutdown(socket.SHUT_RDWR)
                thread.join(PATIENCE)
        if self.errors:
            raise AssertionError(f"the server: {self.errors[0]!r}") from self.errors[0]
        assert len(self.peers) == len(self._scripts), f"only {len(self.peers)} of {len(self._scripts)} scripts were run"


def respond(*responses: bytes) -> Script:
    """Return a script that reads a request and sends a response, for each response."""

    def script(peer: Peer) -> None:
        for response in responses:
            peer.read_request()
            peer.send(response)

    return script


def respond_after_body(*before: bytes, response: bytes = reply(201)) -> Script:
    """Return a script that reads a head, sends `before`, reads the body and sends the response."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(*before)
        peer.read_body()
        peer.send(response)

    return script


def respond_early(response: bytes) -> Script:
    """Return a script that sends a response after the head and does not read the body."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(response)

    return script


def close_after_head(peer: Peer) -> None:
    """Read a head and close the connection without a response."""
    peer.read_head()
    peer.close()


def read_until_close(_peer: Peer) -> None:
    """Do nothing. The server then reads until the client closes."""


def tunnel_to(server: Server, response: bytes = reply(200, b"", "Content-Length: 0")) -> Script:
    """Return a script that reads a CONNECT, responds to it, and relays bytes in both directions."""

    def script(proxy: Peer) -> None:
        proxy.read_head()
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as upstream:
            proxy.send(response)
            _relay(proxy.sock, upstream)
        proxy.close()

    return script


def _relay(client: socket.socket, upstream: socket.socket) -> None:
    targets = {client: upstream, upstream: client}
    with selectors.DefaultSelector() as selector:
        for sock in targets:
            selector.register(sock, selectors.EVENT_READ)
        while True:
            ready = selector.select(PATIENCE)
            assert ready, "the tunnel was left open"
            for key, _ in ready:
                if not _forward(key.fileobj, targets[key.fileobj]):  # type: ignore[index, arg-type]
                    return


def _forward(source: Any, target: socket.socket) -> bool:
    try:
        data = source.recv(65536)
        while isinstance(source, ssl.SSLSocket) and source.pending():
            data += source.recv(65536)
        target.sendall(data)
    except OSError:
        return False
    return bool(data)


class Content:
    """Single-use content that counts the chunks that were read.

    Args:
        chunks: The chunks. Exceptions are raised and callables are called in their position.
    """

    def __init__(self, *chunks: bytes | BaseException | Callable[[], object]) -> None:
        self._chunks: Iterable[bytes | BaseException | Callable[[], object]] = chunks
        self.chunks_read = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            if callable(chunk):
                chunk()
                continue
            self.chunks_read += 1
            yield chunk

    @property
    def data(self) -> bytes:
        """The bytes of all chunks."""
        return b"".join(chunk for chunk in self._chunks if isinstance(chunk, bytes))

    def body(self, framing: str) -> Body:
        """Return a single-use body, ``sized`` or ``chunked``."""
        return Body.of(self, length=len(self.data) if framing == "sized" else None)


class CountingBody:
    """Resendable content that counts the chunks that were read."""

    def __init__(self, data: bytes) -> None:
        self.chunks_read = 0
        self.body = Body.of(data).map(self._count)

    def _count(self, chunk: bytes) -> bytes:
        self.chunks_read += 1
        return chunk


def put(url: str, body: Body | bytes | None, *, expect: bool = True, **info: Any) -> Request:
    """Return a PUT request with ``Expect: 100-continue``, unless `expect` is false."""
    return Request("PUT", url, Headers({"Expect": "100-continue"} if expect else {}), body, RequestInfo(**info))


def get(url: str, **info: Any) -> Request:
    """Return a GET request."""
    return Request("GET", url, Headers(), None, RequestInfo(**info))


def wait(event: threading.Event) -> None:
    """Wait for an event for at most `PATIENCE`."""
    assert event.wait(PATIENCE), "the event was not set in time"


def read(response: Response) -> tuple[int, bytes]:
    """Return the status and the body."""
    with response:
        return response.status, response.read()
