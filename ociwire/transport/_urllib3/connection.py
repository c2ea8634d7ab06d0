"""Connections of urllib3, extended to wait for 100 (Continue) before the body is sent.

The classes replace urllib3's connection classes in its pools. `request` sends the head, waits, and sends the body;
`getresponse` reads the final response; `close` resets the state. The module `exchange` lists the states. Two private
methods are overridden to limit their duration: `_new_conn` (which urllib3's own SOCKS connection also overrides) and
`_tunnel`.
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

from ..._http.cancellation import current_cancellation
from .exchange import Exchange, ReusedConnection
from .response import WireResponse
from .response_head import MAX_HEAD, read_head
from .socket_reader import SocketReader, has_pending
from .timeouts import TimeLimit, Timeouts

__all__ = ["IdleConnections", "WirePool", "WireTLSPool"]

# Exceptions that `send` raises if the server has closed the connection. Before Python 3.13, TLS raises the last two.
_CLOSED_BY_PEER = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_MIN_ATTEMPT = 2.0
"""Minimum time in seconds to try each of several addresses, unless less time remains. Same as in Go's net.Dialer."""
_SEND_SLICE = 0.5
"""Maximum seconds for which `send` may block before the connection is checked for an early response."""
_NO_HEADERS = urllib3.HTTPHeaderDict()  # shared, because urllib3 does not modify it
_NO_TIMEOUT = Timeouts(urllib3.Timeout(None))


class WireConnection(HTTPConnection):
    """Connection whose `request` expects an `Exchange` as the body."""

    _has_served = False  # a response was read on this connection
    _connect_limit: TimeLimit  # limits all steps of connecting together
    _exchange: Exchange | None = None  # the current exchange, until the head of its response is read
    _reader: SocketReader | None = None  # set until it is passed to the response
    _tunnel_responses: tuple[WireResponse, ...] = ()  # responses of the proxy to CONNECT

    def connect(self) -> None:
        """Connect, through the proxy if there is one. The connect timeout limits all steps together."""
        self._connect_limit = TimeLimit(_NO_TIMEOUT, None if self.timeout is None else time.monotonic() + self.timeout)
        super().connect()

    def _new_conn(self) -> socket.socket:
        """Connect to the first address of the host that accepts the connection.

        Each address gets a share of the remaining time, so that time remains for the other addresses if the packets to
        one address are dropped. `urllib3.util.connection.create_connection` would apply the whole timeout to each
        address.
        """
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failure: OSError = OSError("the host has no address")
        try:
            for index, address in enumerate(addresses):
                try:
                    return self._connect_to(address, untried=len(addresses) - index)
                except OSError as error:
                    failure = error
            if isinstance(failure, TimeoutError):
                raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from failure
            raise NewConnectionError(self, f"Failed to establish a new connection: {failure}") from failure
        finally:
            del failure  # its traceback forms a reference cycle that would keep the socket open

    def _connect_to(self, address: tuple[Any, ...], untried: int) -> socket.socket:
        remaining = self._connect_limit.remaining()
        sock = socket.socket(*address[:3])
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(None if remaining is None else min(remaining, max(remaining / untried, _MIN_ATTEMPT)))
            sock.connect(address[4])
            sock.settimeout(self._connect_limit.remaining())  # for the TLS handshake, which comes next
        except BaseException:
            sock.close()
            raise
        return sock

    def _tunnel(self) -> None:
        """Send CONNECT and read the response within the remaining time; limit the TLS handshake to the time left."""
        self.sock.settimeout(self._connect_limit.remaining())
        super()._tunnel()
        self.sock.settimeout(self._connect_limit.remaining())

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Send the head, wait for 100 (Continue) if the exchange requires it, and send the body.

        If the server sends an early final response, the rest of the body is not sent, and `getresponse` reads that
        response.

        Raises:
            ReusedConnection: The connection cannot be used for this exchange; see `ReusedConnection`.
        """
        exchange: Exchange = body
        exchange.reused = self._has_served
        if exchange.reused and (exchange.fresh or has_pending(self.sock)):
            raise ReusedConnection
        cancellation = current_cancellation()
        if cancellation is not None:
            cancellation.check()
        if self.is_closed:
            self.connect()  # cannot be cancelled, but is limited by the connect timeout
        exchange.connected = True
        self._exchange = exchange
        self._reader = exchange.reader = SocketReader(self.sock, exchange.time_limit, cancellation=cancellation)
        self.sock.settimeout(exchange.time_limit.remaining())
        if exchange.body is not None and exchange.body.length == 0:
            # The request is complete once the head is sent, so check first that the content is really empty.
            exchange.sent = next(exchange.pieces, None) is None
        self.putrequest(method, exchange.target, skip_host=True, skip_accept_encoding=True)
        put_header = super(HTTPConnection, self).putheader  # http.client's method; urllib3's searches for SKIP_HEADER
        for name, value in exchange.fields:
            put_header(name, value)
        for name, value in headers.items():  # Proxy-Authorization, from urllib3's pool
            put_header(name, value)
        exchange.written = True  # set before sending, because a send that fails may have written a part
        self.endheaders()
        if not exchange.sent and self._await_continue(exchange, exchange.reader):
            self._send_body(exchange, exchange.reader)

    def _await_continue(self, exchange: Exchange, reader: SocketReader) -> bool:
        """Wait for 100 (Continue) for at most `Exchange.expect_wait`; return false if a final response arrives."""
        if exchange.expect_wait is None:
            return True
        end = time.monotonic() + exchange.expect_wait
        while not exchange.continued:
            status = reader.wait_for_status(end)
            if status is None:
                exchange.expect_timed_out = True
                return True
            if status >= 200:
                return False
            exchange.skip_interim(read_head(reader))
        return True

    def _send_body(self, exchange: Exchange, reader: SocketReader) -> None:
        """Send the body until its end, or until the server responds or closes the connection.

        The socket is checked before each piece: if a server responds and closes the connection, the response may be
        lost once sending fails with a reset. docker-registry responds to a large body with a 401 in this way.
        """
        if self._has_response(exchange, reader):
            return
        # urllib3's SSLTransport (TLS in TLS) loses data if a send times out, so each send may use all remaining time.
        send_slice = _SEND_SLICE if isinstance(self.sock, socket.socket) else exchange.time_limit.remaining()
        for piece in exchange.pieces:
            if self._has_response(exchange, reader):
                return
            unsent = memoryview(piece)
            last_progress = time.monotonic()
            while unsent:
                try:
                    self.sock.settimeout(exchange.time_limit.clamp(send_slice))
                    unsent = unsent[self.sock.send(unsent) :]
                    last_progress = time.monotonic()
                except _CLOSED_BY_PEER:
                    return  # the server may have responded before it closed the connection; see `getresponse`
                except TimeoutError:
                    if self._has_response(exchange, reader):
                        return
                    exchange.time_limit.check_progress(last_progress)
        exchange.sent = True

    def _has_response(self, exchange: Exchange, reader: SocketReader) -> bool:
        """Return whether a final status was received, or the connection was closed; skip interim responses."""
        try:
            while (status := reader.poll_status()) is not None:
                if status >= 200:
                    return True
                self.sock.settimeout(exchange.time_limit.remaining())
                exchange.skip_interim(read_head(reader))
        except _CLOSED_BY_PEER:
            return True
        return False

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        """Read the head of the response, and store it in the exchange.

        The returned response is used only to return the connection to urllib3's pool.
        """
        exchange = self._exchange
        if exchange is None:
            raise http.client.ResponseNotReady
        self.sock.settimeout(exchange.time_limit.remaining())
        raw: Any = http.client.HTTPConnection.getresponse(self)
        exchange.response = raw
        self._exchange = None  # an idle connection must not keep the secrets of a request alive
        self._has_served = not self.is_closed
        return urllib3.HTTPResponse(
            body=raw,
            headers=_NO_HEADERS,
            status=raw.status,
            version=raw.version,
            reason=raw.reason,
            preload_content=False,
            decode_content=False,
            original_response=raw,
            enforce_content_length=False,
        )

    def response_class(self, sock: Any, *args: Any, **options: Any) -> WireResponse:  # type: ignore[override]
        """Create the response, which reads buffered bytes first. http.client also calls this method for CONNECT."""
        reader, self._reader = self._reader, None
        if reader is not None:
            response = WireResponse(reader, *args, **options)  # type: ignore[arg-type]
            response.exchange = self._exchange
            return response
        # No request is in progress: this is a proxy's response to CONNECT. Its reader is separate and limited to the
        # size of a head, because the response has no body.
        reader = SocketReader(sock, self._connect_limit, max_bytes=MAX_HEAD)
        response = WireResponse(reader, *args, **options)  # type: ignore[arg-type]
        self._tunnel_responses = (*self._tunnel_responses, response)
        return response

    def close(self) -> None:
        """Close the socket, and reset the state of the exchange."""
        reader, self._reader, self._exchange = self._reader, None, None
        if reader is not None:
            reader.close()
        responses, self._tunnel_responses = self._tunnel_responses, ()
        for response in responses:
            response.close()
        self._has_served = False
        super().close()


class WireTLSConnection(WireConnection, HTTPSConnection):
    """`WireConnection` over TLS."""


class IdleConnections:
    """The idle connections of a pool, last in, first out. Replaces `queue.LifoQueue`, without locks.

    The lock of `queue.LifoQueue` is not reentrant: if the garbage collector runs inside `get`, and a finalizer calls
    `put`, the thread deadlocks. The operations of `collections.deque` are atomic and need no lock. No method blocks.

    Args:
        maxsize: Maximum number of idle connections.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._idle: deque[WireConnection] = deque()
        self._closed = False

    def get(self, **_options: object) -> WireConnection:
        """Remove and return the most recently used connection; raise `queue.Empty` if there is none.

        The pool creates a new connection if `queue.Empty` is raised.
        """
        try:
            return self._idle.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: WireConnection | None, **_options: object) -> None:
        """Add a connection. If the maximum is reached, raise `queue.Full`: the pool closes it. `None` is ignored."""
        if item is None:
            return
        if len(self._idle) >= self._maxsize and not self._closed:
            raise queue.Full
        self._idle.append(item)
        if self._closed:  # another thread closed the pool after urllib3 checked it
            self.close()

    def qsize(self) -> int:
        """Return the number of idle connections."""
        return len(self._idle)

    def close(self) -> None:
        """Close all idle connections, and those that are added later. Idempotent."""
        self._closed = True
        try:
            while True:
                self._idle.pop().close()
        except IndexError:
            pass


class WirePool(urllib3.HTTPConnectionPool):
    """urllib3's pool for http, with the connection class of this module."""

    ConnectionCls = WireConnection
    QueueCls = IdleConnections  # type: ignore[assignment]


class WireTLSPool(urllib3.HTTPSConnectionPool):
    """urllib3's pool for https, with the connection class of this module."""

    ConnectionCls = WireTLSConnection
    QueueCls = IdleConnections  # type: ignore[assignment]
