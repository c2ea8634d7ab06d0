"""A scripted server on raw sockets: each connection runs the next script and records what it receives.

Every wait is bounded. A failure in a script fails the test when the server is closed.
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
"""Maximum wait of either side for the other, in seconds. Only broken code reaches it."""
GRACE = 1.0
"""Seconds within which a closed transport must have closed its connections."""

Script = Callable[["Peer"], object]


def reply(status: int, body: bytes = b"", *fields: str, version: str = "1.1") -> bytes:
    """A response, with a Content-Length unless the fields frame it."""
    framed = any(field.lower().startswith(("content-length:", "transfer-encoding:")) for field in fields)
    bodiless = status < 200 or status in (204, 304)
    lines = [f"HTTP/{version} {status} Because", *fields]
    if not framed and not bodiless:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


CONTINUE = reply(100)


class Peer:
    """The server's side of one connection.

    Attributes:
        heads: The request heads that were read.
        bodies: The request bodies that were read.
        rest: Bytes received after the script had ended.
        ended: Set when the client has closed the connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.rest = b""
        self.ended = threading.Event()
        self._buffer = b""

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._more():
                raise AssertionError(f"the client closed the connection after {self._buffer[-200:]!r}")
        data, _, self._buffer = self._buffer.partition(mark)
        return data + mark

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        while len(self._buffer) < count:
            if not self._more():
                raise AssertionError(f"the client closed the connection {count - len(self._buffer)} bytes too early")
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def read_head(self) -> bytes:
        """Read the head of the next request, with its blank line."""
        self.heads.append(self._until(b"\r\n\r\n"))
        return self.heads[-1]

    def read_body(self) -> bytes:
        """Read the body that the last head announces."""
        if self.field("transfer-encoding") == b"chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self.read(size)
                assert self.read(2) == b"\r\n"
            assert self.read(2) == b"\r\n"
        else:
            body = self.read(int(self.field("content-length") or 0))
        self.bodies.append(body)
        return body

    def read_request(self) -> bytes:
        """Read a whole request and return its body."""
        self.read_head()
        return self.read_body()

    def field(self, name: str, index: int = -1) -> bytes | None:
        """The value of a field of a head that was read; None if it is missing. A repeated field is an error."""
        values = re.findall(rb"(?im)^%b:[ \t]*(.*?)\r$" % name.encode(), self.heads[index])
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    def line(self, index: int = -1) -> bytes:
        """The request line of a head that was read."""
        return self.heads[index].split(b"\r\n", 1)[0]

    def send(self, *data: bytes) -> None:
        """Send each piece by itself, in its own TLS record."""
        for piece in data:
            self.sock.sendall(piece)

    def send_bytewise(self, data: bytes) -> None:
        """Send byte by byte."""
        self.send(*(data[i : i + 1] for i in range(len(data))))

    def receives_more(self) -> bool:
        """Whether the client sends anything else before it closes."""
        return bool(self._buffer) or self._more()

    def expect_silence(self, seconds: float) -> None:
        """Check that the client sends nothing for some seconds."""
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(1)
        except TimeoutError:
            self.sock.settimeout(PATIENCE)
        else:
            raise AssertionError(f"expected nothing from the client, got {data!r}")

    def drain(self) -> None:
        """Read on until the client closes."""
        try:
            while self._more():
                pass
        except TimeoutError:
            raise AssertionError("the client left its connection open") from None
        except OSError:
            pass  # a reset is an end, too, and so is each of TLS's errors for one
        self.rest, self._buffer = self._buffer, b""
        self.ended.set()

    def close(self, *, notify: bool = False) -> None:
        """Close the connection; with `notify`, send the close_notify of TLS first."""
        if notify and isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(0)
            with contextlib.suppress(OSError):
                self.sock.unwrap()  # sends close_notify, and does not wait for the other's
        self.sock.close()

    def reset(self) -> None:
        """Close the connection with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """Listens on loopback. The n-th connection runs the n-th script, then is read until the client closes it.

    Args:
        scripts: One per connection. More or fewer connections than scripts are an error.
        context: For TLS.
        host: The name for `url`.
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
                self._listener.close()  # a client that retries without end is refused from now on
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
            assert self._accepted.wait_for(lambda: len(self.peers) > index, PATIENCE), "no such connection was made"
        return self.peers[index]

    def ended(self, index: int) -> Peer:
        """Wait until the client has closed the n-th connection and return it."""
        wait(self.peer(index).ended)
        return self.peers[index]

    def _run(self, index: int) -> None:
        peer = self.peers[index]
        try:
            if self._context is not None and not self._shake_hands(peer):
                return
            self._scripts[index](peer)
            if peer.sock.fileno() >= 0:
                peer.drain()
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self.errors.append(error)
        finally:
            peer.sock.close()
            peer.ended.set()

    def _shake_hands(self, peer: Peer) -> bool:
        assert self._context is not None
        plain = peer.sock
        try:
            peer.sock = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            peer.sock.do_handshake()  # type: ignore[attr-defined]
        except OSError:
            if not self._handshake_fails:
                raise
            # Read what the client has sent: otherwise the close sends a reset, which may overtake the alert.
            peer.sock = socket.socket(fileno=peer.sock.detach())
            peer.sock.settimeout(PATIENCE)
            with contextlib.suppress(OSError):  # the client may have gone
                peer.sock.shutdown(socket.SHUT_WR)
            peer.drain()
            return False
        return True

    def close(self) -> None:
        """Stop, join all threads, and raise their first error."""
        with socket.socket() as waker, contextlib.suppress(OSError):  # it may have stopped already
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
    """For each response, read a whole request and send the response."""

    def script(peer: Peer) -> None:
        for response in responses:
            peer.read_request()
            peer.send(response)

    return script


def respond_after_body(*before: bytes, response: bytes = reply(201)) -> Script:
    """Read a head, send `before`, read the body and send the response."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(*before)
        peer.read_body()
        peer.send(response)

    return script


def respond_early(response: bytes) -> Script:
    """Send a response after the head, and read no body."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(response)

    return script


def close_after_head(peer: Peer) -> None:
    """Read a head and close the connection without a response."""
    peer.read_head()
    peer.close()


def read_until_close(_peer: Peer) -> None:
    """Only read until the client closes."""


def tunnel_to(server: Server, response: bytes = reply(200, b"", "Content-Length: 0")) -> Script:
    """Read a CONNECT, respond to it, and relay bytes in both directions."""

    def script(proxy: Peer) -> None:
        proxy.read_head()
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as far:
            proxy.send(response)
            _relay(proxy.sock, far)
        proxy.close()

    return script


def _relay(near: socket.socket, far: socket.socket) -> None:
    other = {near: far, far: near}
    with selectors.DefaultSelector() as selector:
        for sock in other:
            selector.register(sock, selectors.EVENT_READ)
        while True:
            ready = selector.select(PATIENCE)
            assert ready, "the tunnel was left open"
            for key, _ in ready:
                if not _carry(key.fileobj, other[key.fileobj]):  # type: ignore[index, arg-type]
                    return


def _carry(source: Any, target: socket.socket) -> bool:
    try:
        data = source.recv(65536)
        while isinstance(source, ssl.SSLSocket) and source.pending():
            data += source.recv(65536)
        target.sendall(data)
    except OSError:
        return False
    return bool(data)


class Content:
    """Single-use content that counts the chunks pulled from it.

    Args:
        chunks: Its chunks. An exception among them is raised in its turn, and a callable is called.
    """

    def __init__(self, *chunks: bytes | BaseException | Callable[[], object]) -> None:
        self._chunks: Iterable[bytes | BaseException | Callable[[], object]] = chunks
        self.pulled = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            if callable(chunk):
                chunk()
                continue
            self.pulled += 1
            yield chunk

    @property
    def whole(self) -> bytes:
        """All chunks, unpulled."""
        return b"".join(chunk for chunk in self._chunks if isinstance(chunk, bytes))

    def body(self, framing: str) -> Body:
        """Return a single-use body, ``sized`` or ``chunked``."""
        return Body.of(self, length=len(self.whole) if framing == "sized" else None)


class CountingBody:
    """Resendable content that counts the chunks pulled from it."""

    def __init__(self, data: bytes) -> None:
        self.pulled = 0
        self.body = Body.of(data).map(self._count)

    def _count(self, chunk: bytes) -> bytes:
        self.pulled += 1
        return chunk


def put(url: str, body: Body | bytes | None, *, expect: bool = True, **info: Any) -> Request:
    """A PUT with ``Expect: 100-continue``."""
    return Request("PUT", url, Headers({"Expect": "100-continue"} if expect else {}), body, RequestInfo(**info))


def get(url: str, **info: Any) -> Request:
    """A GET."""
    return Request("GET", url, Headers(), None, RequestInfo(**info))


def wait(event: threading.Event) -> None:
    """Wait for an event, at most `PATIENCE`."""
    assert event.wait(PATIENCE), "the event was not set in time"


def read(response: Response) -> tuple[int, bytes]:
    """Return the status and the whole body."""
    with response:
        return response.status, response.read()
