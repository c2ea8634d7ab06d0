"""urllib3's connections, taught to wait for 100 (Continue) before a chunk of the body is pulled.

A connection stands in its pool where urllib3's own would. It overrides public methods only: `request` sends the head,
waits, and sends the body; `getresponse` reads what the wait has not; `close` forgets.
"""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..errors import ProtocolError
from .clock import Clock, Timeouts
from .exchange import Exchange, ReusedConnection
from .head import interim, read_head
from .inbox import Inbox
from .response import WireResponse

__all__ = ["WirePool", "WireTLSPool"]

# What a peer's closing looks like to who is still sending. The last two are TLS's words for it before Python 3.13.
_CLOSED_BY_PEER = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
# A proxy's answer to CONNECT is read under the timeout that the socket has from connecting.
_UNBOUNDED = Clock(Timeouts(urllib3.Timeout(None)), None)


class WireConnection(HTTPConnection):
    """A connection whose `request` takes an `Exchange` in the body's place."""

    _served = False
    _exchange: Exchange
    _inbox: Inbox | None = None  # until the response takes it over

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Send the head, wait where something could be lost, and send the body.

        Returns without having sent the whole of it if the server answers first: `getresponse` has that answer.
        """
        exchange: Exchange = body
        exchange.reused = self._served
        if exchange.fresh and exchange.reused:
            raise ReusedConnection
        if self.is_closed:
            self.connect()
        exchange.connected = True
        self._exchange = exchange
        self._inbox = exchange.inbox = Inbox(self.sock, exchange.clock)
        self.sock.settimeout(exchange.clock.left())
        if exchange.body is not None and exchange.body.length == 0:
            exchange.sent = next(exchange.pieces, None) is None  # the head alone would be the whole of the request
        self.putrequest(method, url, skip_host=True, skip_accept_encoding=True)
        for name, value in exchange.fields:
            self.putheader(name, value)
        for name, value in headers.items():
            self.putheader(name, value)
        self.endheaders()
        if not exchange.sent and self._may_send(exchange):
            self._send(exchange)

    def _may_send(self, exchange: Exchange) -> bool:
        """Wait for 100 (Continue), as long as the exchange says; False if a final status came instead."""
        if exchange.expect_wait is None:
            return True
        ends = time.monotonic() + exchange.expect_wait
        skipped = 0
        while not exchange.continued:
            status = self._inbox.wait_for_status(ends)  # type: ignore[union-attr]
            if status is None:
                exchange.waited_in_vain = True
                return True
            if status >= 200:
                return False
            self._skip_interim(exchange, skipped)
            skipped += 1
        return True

    def _send(self, exchange: Exchange) -> None:
        """Send the body, until it is sent or the server has answered: its answer would be lost behind a broken pipe."""
        while not self._has_answered(exchange):
            piece = next(exchange.pieces, None)
            if piece is None:
                exchange.sent = True
                return
            self.sock.settimeout(exchange.clock.left())
            try:
                self.send(piece)
            except _CLOSED_BY_PEER:
                return  # what it answered, if it did, is still to be read
            except TimeoutError:
                if not self._has_answered(exchange):
                    raise
                return

    def _has_answered(self, exchange: Exchange) -> bool:
        skipped = 0
        try:
            while (status := self._inbox.poll_status()) is not None:  # type: ignore[union-attr]
                if status >= 200:
                    return True
                self._skip_interim(exchange, skipped)
                skipped += 1
        except _CLOSED_BY_PEER:
            return True
        return False

    def _skip_interim(self, exchange: Exchange, skipped: int) -> None:
        """Read a 1xx away, byte by byte: what follows it may be the next response."""
        head = read_head(self._inbox)  # type: ignore[arg-type]
        if not interim(head, skipped):
            raise ProtocolError("a status line changed while it was read")
        exchange.continued = exchange.continued or head.status == 100

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        """The response: urllib3's, which does no more than to take the connection back to its pool."""
        raw: Any = http.client.HTTPConnection.getresponse(self)
        self._exchange.response = raw
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
        inbox, self._inbox = self._inbox, None
        if inbox is None:
            return WireResponse(Inbox(sock, _UNBOUNDED), *args, **options)  # type: ignore[arg-type]
        response = WireResponse(inbox, *args, **options)  # type: ignore[arg-type]
        response.exchange = self._exchange
        return response

    def close(self) -> None:
        """Close the socket, and forget what was under way."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.close()
        self._served = False
        super().close()


class WireTLSConnection(WireConnection, HTTPSConnection):
    """The same over TLS."""


class WirePool(urllib3.HTTPConnectionPool):
    """urllib3's pool for http, with these connections."""

    ConnectionCls = WireConnection


class WireTLSPool(urllib3.HTTPSConnectionPool):
    """urllib3's pool for https, with these connections."""

    ConnectionCls = WireTLSConnection
