"""Any transport behind a real HTTP server on loopback: for tests and demonstrations, never for a network.

The standard library's server does the HTTP. A client that expects 100 (Continue) is sent it when the transport begins to
read the body, and not before: what is one-shot stays whole, from end to end, until somebody wants it.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, final

from ..body import Body
from ..errors import UsageError
from ..message import Request, Response
from ..transport import Transport

__all__ = ["Served", "serve"]

_LOG = logging.getLogger("ociwire.testing.serve")
_PIECE = 64 * 1024
_LONGEST_LINE = 4096
_LINGER = 1024 * 1024
"""How much of a body that nobody wanted is read away, in bytes, so that the answer to it is not lost in a reset."""
_PATIENCE = 30.0
"""Seconds after which a connection that does nothing is closed."""
_CONNECTION = frozenset({"connection", "content-length", "expect", "host", "keep-alive", "transfer-encoding"})


@final
class Served(str):
    """The URL of a server, such as ``http://127.0.0.1:43127``."""

    __slots__ = ()

    @property
    def host(self) -> str:
        """``127.0.0.1:43127``: what `Client` takes."""
        return self.partition("://")[2]


@contextmanager
def serve(transport: Transport, *, tls: ssl.SSLContext | None = None) -> Iterator[Served]:
    """Serve a transport on a free port of 127.0.0.1 for as long as the block lasts; one thread a connection.

    When it ends, all connections are closed and all threads are over. The transport is borrowed: it stays open. What it
    raises is logged to ``ociwire.testing.serve``, and answered 500 with JSON.

    Args:
        transport: What answers. The URLs that it is asked have the Host header's host.
        tls: A server's context; None is plain http.
    """
    server = _Server(transport, tls)
    scheme = "http" if tls is None else "https"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="ociwire serve")
    thread.start()
    try:
        yield Served(f"{scheme}://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.close_connections()
        server.server_close()


class _Vanished(Exception):
    """The client is gone in the middle of its request: there is nobody to answer."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for them
    request_queue_size = 128

    def __init__(self, transport: Transport, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.transport = transport
        self.tls = tls
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(_PATIENCE)
        if self.tls is not None:
            # The handshake is the connection's own affair: it must not hold up the others.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Wake all threads that wait for a client's next request."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a connection that broke; what the transport raised was logged where it was raised


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # a head and a small body leave together
    server: _Server

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve  # every method is the transport's to judge
        raise AttributeError(name)

    def handle_expect_100(self) -> bool:
        return True  # it is sent when the body is wanted

    def log_message(self, *args: object) -> None:
        pass

    def _serve(self) -> None:
        content = _Content(self)
        try:
            request = self._request(content)
        except UsageError as error:
            self.close_connection = True
            self._answer(_error(400, str(error)), content)
            return
        try:
            response = self.server.transport.round_trip(request)
        except _Vanished:
            self.close_connection = True
            return
        except Exception as error:
            _LOG.exception("%s %s", request.method, request.url)
            response = _error(500, f"{type(error).__name__} in the transport that is served")
        with response:
            self._answer(response, content)

    def _request(self, content: _Content) -> Request:
        scheme = "http" if self.server.tls is None else "https"
        url = f"{scheme}://{self.headers.get('host', '')}{self.path}" if self.path.startswith("/") else self.path
        fields = [(name, value) for name, value in self.headers.items() if name.lower() not in _CONNECTION]
        body = Body.of(content.chunks(), content.length) if content.there_is_any else None
        return Request(self.command, url, fields, body)

    def _answer(self, response: Response, content: _Content) -> None:
        length = response.length
        chunked = length is None
        has_body = self.command != "HEAD" and response.status not in (204, 304)
        if content.unread:
            self.close_connection = True
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in _CONNECTION:
                self.send_header(name, value)
        if response.status != 204:
            stated = response.headers.get("content-length") if self.command == "HEAD" else None
            if stated is not None or not chunked:
                self.send_header("Content-Length", str(length) if stated is None else stated)
            elif has_body:
                self.send_header("Transfer-Encoding", "chunked")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if has_body:
            self._send_body(response, length)
        self.wfile.flush()
        if content.unread:
            self._linger()

    def _send_body(self, response: Response, length: int | None) -> None:
        sent = 0
        for piece in response.iter(_PIECE):
            sent += len(piece)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if length is None else piece)
        if length is None:
            self.wfile.write(b"0\r\n\r\n")
        elif sent != length:
            self.close_connection = True  # the transport's body is short, and so is what the client gets

    def _linger(self) -> None:
        """Close so that the client reads its answer first (RFC 9112, section 9.6)."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            left = _LINGER
            while left > 0 and (piece := self.connection.recv(_PIECE)):
                left -= len(piece)


class _Content:
    """The body of a request as it comes in; 100 (Continue) goes out when its first byte is wanted.

    Attributes:
        length: Its Content-Length; None where it is chunked.
    """

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler
        self._chunked = "transfer-encoding" in handler.headers
        stated = handler.headers.get("content-length", "0")
        self.length = None if self._chunked or not stated.isdigit() else int(stated)
        self._continue_first = handler.headers.get("expect", "").lower() == "100-continue"
        self.unread = self.there_is_any

    @property
    def there_is_any(self) -> bool:
        return self._chunked or bool(self.length)

    def chunks(self) -> Iterator[bytes]:
        handler = self._handler
        if self._continue_first:
            handler.send_response_only(100)
            handler.end_headers()
            handler.wfile.flush()
        yield from self._in_chunks() if self._chunked else self._pieces(self.length or 0)
        self.unread = False

    def _pieces(self, count: int) -> Iterator[bytes]:
        while count:
            try:
                piece = self._handler.rfile.read1(min(count, _PIECE))  # type: ignore[attr-defined]
            except OSError:
                piece = b""
            if not piece:
                raise _Vanished
            count -= len(piece)
            yield piece

    def _in_chunks(self) -> Iterator[bytes]:
        """RFC 9112, section 7.1."""
        while size := int(self._line().partition(b";")[0] or b"0", 16):
            yield from self._pieces(size)
            self._line()
        while self._line():
            pass  # trailers

    def _line(self) -> bytes:
        line: bytes = self._handler.rfile.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise _Vanished
        return line.strip()


def _error(status: int, message: str) -> Response:
    content = json.dumps({"errors": [{"code": "UNKNOWN", "message": message}]}).encode()
    return Response(status, {"Content-Type": "application/json"}, content)
