"""Any transport behind a real HTTP server on loopback: for tests and demonstrations, never for a network.

The standard library's server does the HTTP. A client that expects 100 (Continue) is sent it when the transport begins
to read the body, and not before: what is one-shot stays whole, from end to end, until somebody wants it. What is no
HTTP is refused rather than guessed at, and a body that went wrong half-way never looks like a whole one.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, final

from .._http.body import Body
from .._http.headers import content_length
from .._http.messages import Request, Response
from ..errors import UsageError
from ..transport import Transport

__all__ = ["Served", "serve"]

_LOG = logging.getLogger("ociwire.testing.serve")
_PIECE = 64 * 1024
_LONGEST_LINE = 4096
_MOST_TRAILERS = 100
_LINGER = 64 * 1024 * 1024
"""How much of a body that nobody wanted is read away, in bytes, so that the answer to it is not lost in a reset."""
_PATIENCE = 30.0
"""Seconds after which a connection that does nothing is closed."""
_CONNECTION = frozenset({"connection", "content-length", "expect", "host", "keep-alive", "transfer-encoding"})
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
"""A chunk's size, and its extensions, which mean nothing here (RFC 9112, section 7.1)."""
_NOT_FIELDS = (FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect)
"""What the standard library's parser forgives: after such a line it takes the fields that follow for a body."""


@final
class Served(str):
    """The URL of a server, such as ``http://127.0.0.1:43127``."""

    __slots__ = ()

    @property
    def host(self) -> str:
        """What `Client` takes, such as ``127.0.0.1:43127``."""
        return self.partition("://")[2]


@contextmanager
def serve(transport: Transport, *, tls: ssl.SSLContext | None = None) -> Iterator[Served]:
    """Serve a transport on a free port of 127.0.0.1 for as long as the block lasts; one thread a connection.

    When it ends, all connections are closed and all threads are over. The transport is borrowed: it stays open. What it
    raises is logged to ``ociwire.testing.serve``, and answered 500 with JSON; where the answer has begun, the
    connection is dropped in the middle of it. It sees sound requests only: others are refused without it.

    Args:
        transport: What answers. The URLs that it is asked have the Host header's host.
        tls: A server's context; None is plain http.

    Yields:
        The server's URL, a string; its ``host`` is what a `Client` takes.
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


class _Broken(Exception):
    """A body that cannot be carried on: nobody is there to read more from, or what comes is no part of it."""


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
            try:
                # The handshake is the connection's own affair: it must not hold up the others.
                connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:
                connection.close()  # it was gone before it was here
                raise
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
                    # Not SSLSocket's own, which would take the TLS away from a thread that is using it.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A connection that broke is its client's affair; what the transport raised was logged where it was raised.
        if not isinstance(sys.exc_info()[1], (OSError, _Broken)):
            _LOG.exception("a connection was dropped")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # what cannot be read is answered in full, with a status
    disable_nagle_algorithm = True
    wbufsize = -1  # a head and a small body leave together
    server: _Server
    _lingers = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve  # every method is the transport's to judge
        raise AttributeError(name)

    def handle_expect_100(self) -> bool:
        return True  # it is sent when the body is wanted

    def log_message(self, *args: object) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is not a request; what follows it is not one either."""
        self.close_connection = self._lingers = True
        self._answer(_error(code, message or explain or "this is not a request"))

    def finish(self) -> None:
        with suppress(OSError):  # a client that is gone
            super().finish()
        self.rfile.close()
        if self._lingers:
            self._linger()

    def _serve(self) -> None:
        try:
            content = _Content(self)
            request = self._request(content)
        except UsageError as error:
            self.send_error(400, str(error))
            return
        try:
            response = self.server.transport.round_trip(request)
        except Exception as error:  # noqa: BLE001 - logged, whatever it is
            if content.broken:  # whatever the transport has made of it
                self.send_error(400, content.broken)
                return
            _LOG.exception("%s %s", request.method, request.url)
            response = _error(500, f"{type(error).__name__} in the transport that is served")
        content.answered = True
        if content.unread:
            self.close_connection = self._lingers = True
        with response:
            self._answer(response)

    def _request(self, content: _Content) -> Request:
        if any(isinstance(defect, _NOT_FIELDS) for defect in self.headers.defects):
            raise UsageError("a line in the head is not a field")
        fields = [(name, value) for name, value in self.headers.items() if name.lower() not in _CONNECTION]
        body = Body.of(content.chunks(), content.length) if content.there_is_any else None
        return Request(self.command, self._url(), fields, body)

    def _url(self) -> str:
        """The target with its host; absolute, it has one (RFC 9112, section 3.2)."""
        hosts = self.headers.get_all("host", [])
        if not hosts and self.request_version < "HTTP/1.1":
            hosts = [f"127.0.0.1:{self.server.server_port}"]
        if len(hosts) != 1:
            raise UsageError(f"a request has one Host, not {len(hosts)}")
        if not self.path.startswith("/"):
            return self.path
        return f"{'http' if self.server.tls is None else 'https'}://{hosts[0]}{self.path}"

    def _answer(self, response: Response) -> None:
        has_body = self.command != "HEAD" and response.status not in (204, 304)
        if has_body and response.length is None and self.request_version < "HTTP/1.1":
            # HTTP/1.0 has no chunks, and its clients would take a part for the whole: it is gathered.
            response = response.replace(body=b"".join(self._pieces(response)))
        length = response.length if has_body else self._length_of_nothing(response)
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in _CONNECTION:
                self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        elif has_body:
            self.send_header("Transfer-Encoding", "chunked")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if has_body:
            self._send_body(response, length)
        self.wfile.flush()

    def _length_of_nothing(self, response: Response) -> int | None:
        """What a body would have had, as far as that is known; nobody says 0 by guess (RFC 9110, section 8.6)."""
        if response.status == 204:
            return None
        stated = content_length(response.headers)
        return response.length or None if stated is None else stated

    def _send_body(self, response: Response, length: int | None) -> None:
        sent = 0
        if not response.in_memory:
            self.wfile.flush()  # the rest may be long in coming
        for piece in self._pieces(response):
            if length is None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                self.wfile.write(piece[: max(0, length - sent)])
            sent += len(piece)
            if not response.in_memory:
                self.wfile.flush()
        if length is None:
            self.wfile.write(b"0\r\n\r\n")
        elif sent != length:
            self.close_connection = True  # the transport's body is short, and so is what the client gets
            _LOG.error("%s %s: a body of %d bytes, not the %d it stated", self.command, self.path, sent, length)

    def _pieces(self, response: Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes(_PIECE)
        except Exception as error:  # noqa: BLE001 - logged, whatever it is
            if not isinstance(error, _Broken):  # a body that is the request's own ends with it
                _LOG.exception("%s %s: in the middle of the answer", self.command, self.path)
            raise _Broken from None

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
        unread: Whether there is more of it to come.
        broken: Why it could not be read to its end; empty if nothing has gone wrong.
        answered: Whether the answer has begun: 100 (Continue) comes too late then.

    Raises:
        UsageError: Its framing can be read in more than one way, or in none.
    """

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler
        self.length = _framing(handler.headers)
        expects = handler.headers.get("expect", "").lower() == "100-continue"
        self._continue_first = expects and handler.request_version >= "HTTP/1.1"  # RFC 9110, section 10.1.1
        self.unread = self.there_is_any
        self.broken = ""
        self.answered = False

    @property
    def there_is_any(self) -> bool:
        return self.length != 0

    def chunks(self) -> Iterator[bytes]:
        if self._continue_first and not self.answered:
            self._try(self._send_continue)
        yield from self._in_chunks() if self.length is None else self._pieces(self.length)
        self.unread = False

    def _send_continue(self) -> None:
        self._handler.send_response_only(100)
        self._handler.end_headers()
        self._handler.wfile.flush()

    def _pieces(self, count: int) -> Iterator[bytes]:
        while count:
            piece: bytes = self._try(self._handler.rfile.read1, min(count, _PIECE))
            if not piece:
                raise self._break("the body ends too early")
            count -= len(piece)
            yield piece

    def _in_chunks(self) -> Iterator[bytes]:
        """RFC 9112, section 7.1."""
        while size := self._chunk_size():
            yield from self._pieces(size)
            if self._line():
                raise self._break("a chunk is longer than its size")
        for _ in range(_MOST_TRAILERS):
            if not self._line():
                return
        raise self._break("too many trailers")

    def _chunk_size(self) -> int:
        match = _CHUNK_SIZE.fullmatch(self._line())
        if match is None:
            raise self._break("a chunk has no size")
        return int(match[1], 16)

    def _line(self) -> bytes:
        line: bytes = self._try(self._handler.rfile.readline, _LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise self._break("a line in the body is too long, or cut off")
        return line.rstrip(b"\r\n")

    def _try(self, function: Callable[..., Any], *args: int) -> Any:
        try:
            return function(*args)
        except (OSError, ValueError):  # the client is gone, or its connection was over long ago
            raise self._break("the connection is gone") from None

    def _break(self, reason: str) -> _Broken:
        self.broken = reason
        return _Broken(reason)


def _framing(headers: Message) -> int | None:
    """How long a request's body is; None if it is chunked (RFC 9112, section 6.3).

    Raises:
        UsageError: Two readers could disagree about it.
    """
    codings = [value.strip().lower() for value in headers.get_all("transfer-encoding", [])]
    lengths = {value.strip() for value in headers.get_all("content-length", [])}
    if codings:
        if codings != ["chunked"] or lengths:
            raise UsageError("the one Transfer-Encoding is chunked, and it goes without a Content-Length")
        return None
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(value) for value in lengths):
        raise UsageError("a Content-Length is one number")
    return int(lengths.pop()) if lengths else 0


def _error(status: int, message: str) -> Response:
    content = json.dumps({"errors": [{"code": "UNKNOWN", "message": message}]}).encode()
    return Response(status, {"Content-Type": "application/json"}, content)
