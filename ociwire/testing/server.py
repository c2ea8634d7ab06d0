"""Serves a transport by HTTP on loopback, for tests and demonstrations. Not for use on a network.

It is based on the standard library's server. A client that expects 100 (Continue) gets it when the transport begins to
read the body, so that a single-use body is not consumed before. Invalid HTTP is refused, and a body that fails midway
never looks complete.
"""

from __future__ import annotations

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
from .._http.headers import content_length, is_bodiless
from .._http.messages import Request, Response
from ..errors import UsageError
from ..registry._messages import error_response
from ..transport import Transport

__all__ = ["ServerURL", "serve"]

_LOG = logging.getLogger("ociwire.testing.serve")
_PIECE_SIZE = 64 * 1024
_MAX_LINE = 4096
_MAX_TRAILERS = 100
_DRAIN_LIMIT = 64 * 1024 * 1024
"""Number of bytes of an unread request body that are drained, so that a reset does not destroy the response."""
_IDLE_TIMEOUT = 30.0
"""Timeout in seconds of idle connections."""
_CONNECTION_HEADERS = frozenset({"connection", "content-length", "expect", "host", "keep-alive", "transfer-encoding"})
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
"""The size of a chunk, and its extensions, which are ignored (RFC 9112, section 7.1)."""
_HEADER_DEFECTS = (FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect)
"""Defects that the standard library's parser ignores: it reads the fields after such a line as the body."""


@final
class ServerURL(str):
    """The URL of a server, such as ``http://127.0.0.1:43127``."""

    __slots__ = ()

    @property
    def host(self) -> str:
        """The host for `Client`, such as ``127.0.0.1:43127``."""
        return self.partition("://")[2]


@contextmanager
def serve(transport: Transport, *, tls: ssl.SSLContext | None = None) -> Iterator[ServerURL]:
    """Serve a transport on a free port of 127.0.0.1 while the block runs, with one thread for each connection.

    At the end of the block all connections are closed, and all threads have ended. The transport is not closed. An
    exception of the transport is logged to ``ociwire.testing.serve`` and answered 500 with JSON; if the response has
    begun, the connection is closed in the middle of it. Invalid requests are refused, and the transport does not see
    them.

    Args:
        transport: The transport. The URLs of its requests have the host of the Host header.
        tls: The TLS context of the server. Defaults to plain http.

    Yields:
        The URL of the server, a string; its ``host`` is the argument for `Client`.
    """
    server = _Server(transport, tls)
    scheme = "http" if tls is None else "https"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="ociwire serve")
    thread.start()
    try:
        yield ServerURL(f"{scheme}://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.close_connections()
        server.server_close()


class _BodyFailed(Exception):
    """The body of a request or of a response cannot be continued: it is malformed, or the connection is lost."""


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
        connection.settimeout(_IDLE_TIMEOUT)
        if self.tls is not None:
            try:
                # The handshake is done in the thread of the connection: it must not block the others.
                connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:
                connection.close()  # the client has disconnected
                raise
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End all reads and writes of connections, so that their threads end."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    # Not SSLSocket.shutdown, which removes the TLS object that another thread may be using.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A broken connection is not an error of the server, and exceptions of the transport are logged already.
        if not isinstance(sys.exc_info()[1], (OSError, _BodyFailed)):
            _LOG.exception("a connection was dropped")


# A `_Handler` serves the requests of a connection, one after the other. `_RequestBody` is the body of the current one,
# and decides whether another may follow. A request without a body begins in the state "read".
#
# | State          | Fields                      | Event                        | Next state                         |
# |----------------|-----------------------------|------------------------------|------------------------------------|
# | expected       | `unread`, `_continue_first` | its first chunk is read      | reading, after 100 (Continue)      |
# | reading        | `unread`                    | its end is read              | read                               |
# |                |                             | invalid framing, client gone | broken                             |
# | either of them |                             | the response begins          | unread; closed after it, drained   |
# | read           | not `unread`                | the response is sent         | the next request                   |
# | broken         | `unread`, `broken`          | the transport raises         | closed after a 400, drained        |
# |                |                             | the response begins          | unread; closed after it, drained   |
# | unread         | `unread`, `answered`        | a chunk is read (an echo)    | unread; 100 (Continue) is not sent |
#
# `send_error` refuses a request that is not valid HTTP: the connection is closed after the response and drained.
# `_must_drain` is set together with `close_connection` in these cases, and `finish` drains.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # so that an unreadable request gets a status line (not HTTP/0.9)
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered: a head and a small body are sent in one packet
    server: _Server
    _must_drain = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve  # the transport decides which methods it supports
        raise AttributeError(name)

    def handle_expect_100(self) -> bool:
        return True  # _RequestBody sends it when the body is read

    def log_message(self, *args: object) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse an invalid request and close the connection, as the rest of its data cannot be interpreted."""
        self.close_connection = self._must_drain = True
        self._answer(error_response(code, "UNKNOWN", message or explain or "this is not a request"))

    def finish(self) -> None:
        with suppress(OSError):  # a client that is gone
            super().finish()
        self.rfile.close()
        if self._must_drain:
            self._drain()

    def _serve(self) -> None:
        try:
            content = _RequestBody(self)
            request = self._request(content)
        except UsageError as error:
            self.send_error(400, str(error))
            return
        try:
            response = self.server.transport.round_trip(request)
        except Exception as error:  # noqa: BLE001 - every exception is logged
            if content.broken:  # the cause, even if the transport raised another exception
                self.send_error(400, content.broken)
                return
            _LOG.exception("%s %s", request.method, request.url)
            response = error_response(500, "UNKNOWN", f"{type(error).__name__} in the transport that is served")
        content.answered = True
        if content.unread:
            self.close_connection = self._must_drain = True
        with response:
            self._answer(response)

    def _request(self, content: _RequestBody) -> Request:
        if any(isinstance(defect, _HEADER_DEFECTS) for defect in self.headers.defects):
            raise UsageError("a line in the head is not a field")
        fields = [(name, value) for name, value in self.headers.items() if name.lower() not in _CONNECTION_HEADERS]
        body = Body.of(content.chunks(), content.length) if content.exists else None
        return Request(self.command, self._url(), fields, body)

    def _url(self) -> str:
        """The URL of the request. An absolute target overrides the Host header (RFC 9112, section 3.2.2)."""
        hosts = self.headers.get_all("host", [])
        if not hosts and self.request_version < "HTTP/1.1":
            hosts = [f"127.0.0.1:{self.server.server_port}"]
        if len(hosts) != 1:
            raise UsageError(f"a request has one Host, not {len(hosts)}")
        if not self.path.startswith("/"):
            return self.path
        return f"{'http' if self.server.tls is None else 'https'}://{hosts[0]}{self.path}"

    def _answer(self, response: Response) -> None:
        has_body = not is_bodiless(self.command, response.status)
        if has_body and response.length is None and self.request_version < "HTTP/1.1":
            # HTTP/1.0 has no chunked framing: without a length, clients cannot detect a truncated body.
            response = response.replace(body=b"".join(self._pieces(response)))
        length = response.length if has_body else self._length_without_body(response)
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in _CONNECTION_HEADERS:
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

    def _length_without_body(self, response: Response) -> int | None:
        """The Content-Length of a response without a body, if it is known (RFC 9110, section 8.6)."""
        if response.status == 204:
            return None
        length = content_length(response.headers)
        return response.length or None if length is None else length

    def _send_body(self, response: Response, length: int | None) -> None:
        sent = 0
        if not response.in_memory:
            self.wfile.flush()  # the first piece may take long
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
            self.close_connection = True  # so that the client detects that the body is too short
            _LOG.error("%s %s: a body of %d bytes, not the %d it stated", self.command, self.path, sent, length)

    def _pieces(self, response: Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes(_PIECE_SIZE)
        except Exception as error:  # noqa: BLE001 - every exception is logged
            if not isinstance(error, _BodyFailed):  # the transport echoes a request body that failed
                _LOG.exception("%s %s: in the middle of the answer", self.command, self.path)
            raise _BodyFailed from None

    def _drain(self) -> None:
        """Drain the request before the socket is closed: a reset could destroy the response (RFC 9112, section 9.6)."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            remaining = _DRAIN_LIMIT
            while remaining > 0 and (piece := self.connection.recv(_PIECE_SIZE)):
                remaining -= len(piece)


class _RequestBody:
    """The body of a request, read as it arrives. 100 (Continue) is sent when its first chunk is read.

    Attributes:
        length: The Content-Length; None if the body is chunked.
        unread: Whether it was not read to the end.
        broken: Why it could not be read to the end; empty without an error.
        answered: Whether the response has begun, so that 100 (Continue) must not be sent any more.

    Raises:
        UsageError: Its framing is ambiguous or invalid.
    """

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler
        self.length = _parse_framing(handler.headers)
        expects = handler.headers.get("expect", "").lower() == "100-continue"
        self._continue_first = expects and handler.request_version >= "HTTP/1.1"  # RFC 9110, section 10.1.1
        self.unread = self.exists
        self.broken = ""
        self.answered = False

    @property
    def exists(self) -> bool:
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
            piece: bytes = self._try(self._handler.rfile.read1, min(count, _PIECE_SIZE))
            if not piece:
                raise self._fail("the body ends too early")
            count -= len(piece)
            yield piece

    def _in_chunks(self) -> Iterator[bytes]:
        """RFC 9112, section 7.1."""
        while size := self._chunk_size():
            yield from self._pieces(size)
            if self._line():
                raise self._fail("a chunk is longer than its size")
        for _ in range(_MAX_TRAILERS):
            if not self._line():
                return
        raise self._fail("too many trailers")

    def _chunk_size(self) -> int:
        match = _CHUNK_SIZE.fullmatch(self._line())
        if match is None:
            raise self._fail("a chunk has no size")
        return int(match[1], 16)

    def _line(self) -> bytes:
        line: bytes = self._try(self._handler.rfile.readline, _MAX_LINE)
        if not line.endswith(b"\n"):
            raise self._fail("a line in the body is too long, or cut off")
        return line.rstrip(b"\r\n")

    def _try(self, function: Callable[..., Any], *args: int) -> Any:
        try:
            return function(*args)
        except (OSError, ValueError):  # the client has disconnected, or the file of the connection is closed
            raise self._fail("the connection is gone") from None

    def _fail(self, reason: str) -> _BodyFailed:
        self.broken = reason
        return _BodyFailed(reason)


def _parse_framing(headers: Message) -> int | None:
    """The length of a request's body; None if it is chunked (RFC 9112, section 6.3).

    Raises:
        UsageError: The framing is ambiguous: it could be used to smuggle requests.
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
