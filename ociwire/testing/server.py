"""HTTP server on loopback that serves a transport. For tests and demonstrations, not for use on a network.

It is based on the standard library's `http.server`. If a client expects 100 (Continue), it is sent when the transport
starts to read the body, so that the client does not send a single-use body too early. Invalid HTTP is refused. If a
response body fails, the connection is closed before the end of the body, so that the client detects the truncation.
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
"""Maximum number of bytes of an unread request body that are drained before the connection is closed."""
_IDLE_TIMEOUT = 30.0
"""Timeout in seconds of idle connections."""
_CONNECTION_HEADERS = frozenset({"connection", "content-length", "expect", "host", "keep-alive", "transfer-encoding"})
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
"""Size and extensions of a chunk. The extensions are ignored (RFC 9112, sections 7.1 and 7.1.1)."""
_HEADER_DEFECTS = (FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect)
"""Parser defects for which a request is refused: the standard library's parser treats the fields after the defective
line as the body.
"""


@final
class ServerURL(str):
    """URL of a server, such as ``http://127.0.0.1:43127``. A string with the property `host`."""

    __slots__ = ()

    @property
    def host(self) -> str:
        """Host and port for `Client`, such as ``127.0.0.1:43127``."""
        return self.partition("://")[2]


@contextmanager
def serve(transport: Transport, *, tls: ssl.SSLContext | None = None) -> Iterator[ServerURL]:
    """Serve a transport over HTTP on a free port of 127.0.0.1 while the block runs.

    Each connection has its own thread. At the end of the block all connections are closed and all threads have ended.
    The transport is not closed. If the transport raises an exception, it is logged to ``ociwire.testing.serve`` and the
    response is a 500 with JSON, or the connection is closed if the response has started. Requests that are not valid
    HTTP are refused and do not reach the transport. Idle connections are closed after 30 seconds.

    Args:
        transport: The transport, which must be thread-safe. The URLs of its requests contain the value of the Host
            header.
        tls: TLS context of the server. Defaults to `None`, plain HTTP.

    Yields:
        URL of the server. Pass its `host` to `Client`.

    >>> from ociwire import Client, Descriptor
    >>> from ociwire.testing import MemoryRegistry, serve
    >>> with serve(MemoryRegistry()) as url:
    ...     client = Client(url.host, insecure=True)
    ...     descriptor = client.push_blob("models/llm", Descriptor.of(b"weights"), b"weights")
    ...     client.get_blob("models/llm", descriptor.digest).read()
    ...     client.close()
    b'weights'
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
    """Raised if the body of a request or a response is malformed, or the connection is lost."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() joins them
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
                # The handshake runs in the thread of the connection, so that it does not block the accepting thread.
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
        """Shut down all connections, so that their threads end."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    # Do not call SSLSocket.shutdown(): it removes the TLS object, which the thread of the connection
                    # may be using.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # OSError: the client has disconnected. _BodyFailed: the cause is already logged.
        if not isinstance(sys.exc_info()[1], (OSError, _BodyFailed)):
            _LOG.exception("connection closed after an exception")


# A `_Handler` serves the requests of a connection sequentially. `_RequestBody` is the body of the current request, and
# its state decides whether the connection can be reused. A request without a body starts in the state "read".
#
# | State          | Fields                      | Event                        | Next state                         |
# |----------------|-----------------------------|------------------------------|------------------------------------|
# | expected       | `unread`, `_continue_first` | its first chunk is read      | reading, after 100 (Continue)      |
# | reading        | `unread`                    | its end is read              | read                               |
# |                |                             | invalid framing, lost client | broken                             |
# | expected, or   | `unread`                    | the response begins          | unread; closed after it, drained   |
# | reading        |                             |                              |                                    |
# | read           | not `unread`                | the response is sent         | the next request                   |
# | broken         | `unread`, `broken`          | the transport raises         | closed after a 400, drained        |
# |                |                             | the response begins          | unread; closed after it, drained   |
# | unread         | `unread`, `answered`        | a chunk is read to be echoed | unread; 100 (Continue) is not sent |
#
# `send_error` refuses a request that is not valid HTTP: the connection is drained and closed after the response.
# In all cases that are marked "drained", `_must_drain` is set together with `close_connection`, and `finish` drains.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # with the default, HTTP/0.9, error responses have no status line
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered, so that a head and a small body are sent in one packet
    server: _Server
    _must_drain = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve  # the transport decides which methods it supports
        raise AttributeError(name)

    def handle_expect_100(self) -> bool:
        return True  # _RequestBody sends 100 (Continue) when the body is read

    def log_message(self, *args: object) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse an invalid request and close the connection, because the next request's start is unknown."""
        self.close_connection = self._must_drain = True
        self._answer(error_response(code, "UNKNOWN", message or explain or "invalid HTTP request"))

    def finish(self) -> None:
        with suppress(OSError):  # the client has disconnected
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
            if content.broken:  # the root cause, even if the transport raised another exception
                self.send_error(400, content.broken)
                return
            _LOG.exception("%s %s", request.method, request.url)
            response = error_response(500, "UNKNOWN", f"the served transport raised {type(error).__name__}")
        content.answered = True
        if content.unread:
            self.close_connection = self._must_drain = True
        with response:
            self._answer(response)

    def _request(self, content: _RequestBody) -> Request:
        if any(isinstance(defect, _HEADER_DEFECTS) for defect in self.headers.defects):
            raise UsageError("invalid header: expected only lines of the form NAME: VALUE")
        fields = [(name, value) for name, value in self.headers.items() if name.lower() not in _CONNECTION_HEADERS]
        body = Body.of(content.chunks(), content.length) if content.exists else None
        return Request(self.command, self._url(), fields, body)

    def _url(self) -> str:
        """Return the URL of the request. An absolute target overrides the Host header (RFC 9112, section 3.2.2)."""
        hosts = self.headers.get_all("host", [])
        if not hosts and self.request_version < "HTTP/1.1":
            hosts = [f"127.0.0.1:{self.server.server_port}"]
        if len(hosts) != 1:
            raise UsageError(f"invalid Host: expected one header, got {len(hosts)}")  # RFC 9112, section 3.2
        if not self.path.startswith("/"):
            return self.path
        return f"{'http' if self.server.tls is None else 'https'}://{hosts[0]}{self.path}"

    def _answer(self, response: Response) -> None:
        has_body = not is_bodiless(self.command, response.status)
        if has_body and response.length is None and self.request_version < "HTTP/1.1":
            # Buffer the body to determine its length: HTTP/1.0 has no chunked coding, and clients cannot detect a
            # truncation without a length.
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
        """Return the Content-Length of a response without a body, or None if unknown (RFC 9110, section 8.6)."""
        if response.status == 204:
            return None
        length = content_length(response.headers)
        return response.length or None if length is None else length

    def _send_body(self, response: Response, length: int | None) -> None:
        sent = 0
        if not response.in_memory:
            self.wfile.flush()  # send the head now, as the first piece of a stream may be delayed
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
            self.close_connection = (
                True  # so that the client detects a truncation, and does not read excess bytes as a response
            )
            _LOG.error("%s %s: the response body has %d bytes, expected %d", self.command, self.path, sent, length)

    def _pieces(self, response: Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes(_PIECE_SIZE)
        except Exception as error:  # noqa: BLE001 - every exception is logged
            if not isinstance(error, _BodyFailed):  # _BodyFailed: the transport echoes a request body that fails
                _LOG.exception("%s %s: the response body raised an exception", self.command, self.path)
            raise _BodyFailed from None

    def _drain(self) -> None:
        """Drain the request before the socket is closed.

        If a socket is closed while data is unread, the connection is reset, and the client may lose the response (RFC
        9112, section 9.6).
        """
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            remaining = _DRAIN_LIMIT
            while remaining > 0 and (piece := self.connection.recv(_PIECE_SIZE)):
                remaining -= len(piece)


class _RequestBody:
    """Body of a request, read on demand. Reading the first chunk sends 100 (Continue).

    Attributes:
        length: Content-Length in bytes. `None` if the body is chunked.
        unread: Whether the body has not been read to its end.
        broken: Reason why the body could not be read to its end. Empty if there was no error.
        answered: Whether the response has begun. If true, 100 (Continue) must not be sent any more.

    Raises:
        UsageError: The framing is ambiguous or invalid.
    """

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler
        self.length = _parse_framing(handler.headers)
        expects = handler.headers.get("expect", "").lower() == "100-continue"
        # RFC 9110, section 10.1.1: a server must ignore the expectation of an HTTP/1.0 client.
        self._continue_first = expects and handler.request_version >= "HTTP/1.1"
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
                raise self._fail("truncated request body: the connection was closed")
            count -= len(piece)
            yield piece

    def _in_chunks(self) -> Iterator[bytes]:
        """Yield the pieces of a chunked body (RFC 9112, section 7.1)."""
        while size := self._chunk_size():
            yield from self._pieces(size)
            if self._line():
                raise self._fail("invalid chunk: expected a line break after its data")
        for _ in range(_MAX_TRAILERS):
            if not self._line():
                return
        raise self._fail(f"too many trailer fields: expected fewer than {_MAX_TRAILERS}")

    def _chunk_size(self) -> int:
        match = _CHUNK_SIZE.fullmatch(self._line())
        if match is None:
            raise self._fail("invalid chunk size: expected 1 to 15 hexadecimal digits")
        return int(match[1], 16)

    def _line(self) -> bytes:
        line: bytes = self._try(self._handler.rfile.readline, _MAX_LINE)
        if not line.endswith(b"\n"):
            raise self._fail(f"invalid line in a chunked body: expected a line break within {_MAX_LINE} bytes")
        return line.rstrip(b"\r\n")

    def _try(self, function: Callable[..., Any], *args: int) -> Any:
        try:
            return function(*args)
        except (OSError, ValueError):  # ValueError: the file of the connection is closed
            raise self._fail("the connection was closed") from None

    def _fail(self, reason: str) -> _BodyFailed:
        self.broken = reason
        return _BodyFailed(reason)


def _parse_framing(headers: Message) -> int | None:
    """Return the length of a request's body, or None if it is chunked (RFC 9112, section 6.3).

    Raises:
        UsageError: The framing is ambiguous, and could be used for request smuggling.
    """
    codings = [value.strip().lower() for value in headers.get_all("transfer-encoding", [])]
    lengths = {value.strip() for value in headers.get_all("content-length", [])}
    if codings:
        if codings != ["chunked"] or lengths:
            raise UsageError("invalid Transfer-Encoding: expected chunked alone, without a Content-Length")
        return None
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(value) for value in lengths):
        raise UsageError("invalid Content-Length: expected one number of 1 to 18 digits")
    return int(lengths.pop()) if lengths else 0
