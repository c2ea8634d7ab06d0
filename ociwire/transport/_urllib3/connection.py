"""urllib3's connections, taught to wait for 100 (Continue) before a chunk of the body is pulled.

These connections replace urllib3's own in its pools. `request` sends the head, waits, and sends the body;
`getresponse` reads the rest of the response; `close` resets the state. Two private methods are overridden to bound
their time: `_new_conn` (urllib3's own SOCKS connection overrides it too) and `_tunnel`.
"""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import time
from collections import deque
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from .exchange import Exchange, ReusedConnection
from .response import WireResponse
from .response_head import MAX_HEAD, read_head
from .socket_reader import SocketReader, has_pending
from .timeouts import TimeLimit, Timeouts

__all__ = ["IdleConnections", "WirePool", "WireTLSPool"]

# What a peer's closing looks like to who is still sending. The last two are TLS's words for it before Python 3.13.
_CLOSED_BY_PEER = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_MIN_ATTEMPT = 2.0
"""Minimum time in seconds for each of several addresses, if that much remains, as in Go's net.Dialer."""
_GLANCE = 0.5
"""How long a send may block, in seconds, before it is looked whether the server has answered meanwhile."""


class WireConnection(HTTPConnection):
    """A connection whose `request` takes an `Exchange` in the body's place."""

    _served = False
    _connecting: TimeLimit  # bounds all steps of connecting together
    _exchange: Exchange | None = None  # while it is under way
    _reader: SocketReader | None = None  # until the response takes it over
    _answers: tuple[WireResponse, ...] = ()  # a proxy's, to CONNECT

    def connect(self) -> None:
        """Connect, through the proxy if there is one. The connect timeout bounds all steps together."""
        self._connecting = TimeLimit(_UNBOUNDED, None if self.timeout is None else time.monotonic() + self.timeout)
        super().connect()

    def _new_conn(self) -> socket.socket:
        """Connect to the first address of the name that answers.

        `urllib3.util.connection.create_connection` gives each address the whole timeout. Here each address has a share
        of the remaining time, so that one that drops packets leaves time for the next.
        """
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failure: OSError = OSError("the name has no address")
        try:
            for index, address in enumerate(addresses):
                try:
                    return self._connect_to(address, left=len(addresses) - index)
                except OSError as error:
                    failure = error
            if isinstance(failure, TimeoutError):
                raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from failure
            raise NewConnectionError(self, f"Failed to establish a new connection: {failure}") from failure
        finally:
            del failure  # its traceback refers to this frame

    def _connect_to(self, address: tuple[Any, ...], left: int) -> socket.socket:
        remaining = self._connecting.remaining()
        sock = socket.socket(*address[:3])
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(None if remaining is None else min(remaining, max(remaining / left, _MIN_ATTEMPT)))
            sock.connect(address[4])
            sock.settimeout(self._connecting.remaining())  # for the TLS handshake, which comes next
        except BaseException:
            sock.close()
            raise
        return sock

    def _tunnel(self) -> None:
        """Send CONNECT and read the response within the remaining time, and leave the rest to the TLS handshake."""
        self.sock.settimeout(self._connecting.remaining())
        super()._tunnel()
        self.sock.settimeout(self._connecting.remaining())

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Send the head, wait where something could be lost, and send the body.

        Returns without having sent the whole of it if the server answers first: `getresponse` has that answer.
        """
        exchange: Exchange = body
        exchange.reused = self._served
        if exchange.reused and (exchange.fresh or has_pending(self.sock)):
            raise ReusedConnection
        if self.is_closed:
            self.connect()
        exchange.connected = True
        self._exchange = exchange
        self._reader = exchange.reader = SocketReader(self.sock, exchange.time_limit)
        self.sock.settimeout(exchange.time_limit.remaining())
        if exchange.body is not None and exchange.body.length == 0:
            exchange.sent = next(exchange.pieces, None) is None  # the head alone would be the whole of the request
        self.putrequest(method, exchange.target, skip_host=True, skip_accept_encoding=True)
        for name, value in exchange.fields:
            self.putheader(name, value)
        for name, value in headers.items():
            self.putheader(name, value)
        exchange.written = True
        self.endheaders()
        if not exchange.sent and self._may_send(exchange, exchange.reader):
            self._send_body(exchange, exchange.reader)

    def _may_send(self, exchange: Exchange, reader: SocketReader) -> bool:
        """Wait for 100 (Continue), as long as the exchange says; False if a final status came instead."""
        if exchange.expect_wait is None:
            return True
        ends = time.monotonic() + exchange.expect_wait
        while not exchange.continued:
            status = reader.wait_for_status(ends)
            if status is None:
                exchange.waited_in_vain = True
                return True
            if status >= 200:
                return False
            exchange.skip(read_head(reader))
        return True

    def _send_body(self, exchange: Exchange, reader: SocketReader) -> None:
        """Send the body, until it is sent or the server has answered: its answer would be lost behind a broken pipe."""
        if self._has_answered(exchange, reader):
            return
        for piece in exchange.pieces:
            if self._has_answered(exchange, reader) or not self._send_piece(memoryview(piece), exchange, reader):
                return
        exchange.sent = True

    def _send_piece(self, left: memoryview, exchange: Exchange, reader: SocketReader) -> bool:
        """Send a piece; False if the server has answered instead, or closed the connection."""
        moved = time.monotonic()
        # urllib3's socket for TLS in TLS loses what it could not send in time: it gets all of the time at once.
        glance = _GLANCE if isinstance(self.sock, socket.socket) else exchange.time_limit.remaining()
        while left:
            try:
                self.sock.settimeout(exchange.time_limit.clamp(glance))
                left = left[self.sock.send(left) :]
                moved = time.monotonic()
            except _CLOSED_BY_PEER:
                return False  # what it answered, if it did, is still to be read
            except TimeoutError:
                if self._has_answered(exchange, reader):
                    return False
                exchange.time_limit.check_progress(moved)
        return True

    def _has_answered(self, exchange: Exchange, reader: SocketReader) -> bool:
        try:
            while (status := reader.poll_status()) is not None:
                if status >= 200:
                    return True
                self.sock.settimeout(exchange.time_limit.remaining())
                exchange.skip(read_head(reader))
        except _CLOSED_BY_PEER:
            return True
        return False

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        """The response: urllib3's, which does no more than to take the connection back to its pool."""
        exchange = self._exchange
        if exchange is None:
            raise http.client.ResponseNotReady
        self.sock.settimeout(exchange.time_limit.remaining())
        raw: Any = http.client.HTTPConnection.getresponse(self)
        exchange.response = raw
        self._exchange = None  # nothing of a request is kept by a connection that waits for the next
        self._served = not self.is_closed
        return urllib3.HTTPResponse(
            body=raw,
            status=raw.status,
            version=raw.version,
            reason=raw.reason,
            preload_content=False,
            decode_content=False,
            original_response=raw,
            enforce_content_length=False,
        )

    def response_class(self, sock: Any, *args: Any, **options: Any) -> WireResponse:  # type: ignore[override]
        """Make the response that reads what the wait has left. A proxy's answer to CONNECT is made here too."""
        reader, self._reader = self._reader, None
        if reader is not None:
            response = WireResponse(reader, *args, **options)  # type: ignore[arg-type]
            response.exchange = self._exchange
            return response
        reader = SocketReader(sock, self._connecting, limit=MAX_HEAD)
        response = WireResponse(reader, *args, **options)  # type: ignore[arg-type]
        self._answers = (*self._answers, response)
        return response

    def close(self) -> None:
        """Close the socket, and forget what was under way."""
        reader, self._reader, self._exchange = self._reader, None, None
        if reader is not None:
            reader.close()
        answers, self._answers = self._answers, ()
        for answer in answers:
            answer.close()
        self._served = False
        super().close()


_UNBOUNDED = Timeouts(urllib3.Timeout(None))


class WireTLSConnection(WireConnection, HTTPSConnection):
    """The same over TLS."""


class IdleConnections:
    """The idle connections of a pool. Replaces `queue.LifoQueue`, and has no lock.

    The lock of `queue.LifoQueue` is not reentrant: a finalizer that runs inside `get` and calls `put` waits for its own
    thread. The operations of `collections.deque` are atomic, so none is needed. Nothing here blocks.

    Args:
        maxsize: The most connections to keep.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._idle: deque[WireConnection] = deque()
        self._closed = False

    def get(self, **_options: object) -> WireConnection:
        """Take the connection that was returned last. If there is none, raise `queue.Empty`: the pool makes one."""
        try:
            return self._idle.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: WireConnection | None, **_options: object) -> None:
        """Keep a connection. If there is no room, raise `queue.Full`: the pool closes it. None is ignored."""
        if item is None:
            return
        if len(self._idle) >= self._maxsize and not self._closed:
            raise queue.Full
        self._idle.append(item)
        if self._closed:  # perhaps after urllib3's own check: a connection put here now would stay open
            self.close()

    def qsize(self) -> int:
        """The number of idle connections."""
        return len(self._idle)

    def close(self) -> None:
        """Close all connections, and those that are put here later. Idempotent."""
        self._closed = True
        try:
            while True:
                self._idle.pop().close()
        except IndexError:
            pass


class WirePool(urllib3.HTTPConnectionPool):
    """urllib3's pool for http, with these connections."""

    ConnectionCls = WireConnection
    QueueCls = IdleConnections  # type: ignore[assignment]


class WireTLSPool(urllib3.HTTPSConnectionPool):
    """urllib3's pool for https, with these connections."""

    ConnectionCls = WireTLSConnection
    QueueCls = IdleConnections  # type: ignore[assignment]
