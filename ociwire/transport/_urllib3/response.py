"""A response as it comes off the socket: its head read strictly, its body in place, its connection given back.

`WireResponse` is http.client's, as far as urllib3 needs one; `WireBody` is what a `Response` reads from.
"""

from __future__ import annotations

import http.client
import re
import weakref
from typing import TYPE_CHECKING, Any

from ..._http.body_reader import warn_left_open
from ..._http.headers import Headers
from ..._http.messages import Request, exchange_redactor
from ..._oci.host import redact_url
from ...errors import ProtocolError
from .map_exceptions import failures_of
from .response_head import framed_length, read_head

if TYPE_CHECKING:
    import urllib3
    from typing_extensions import Buffer

    from ..._http.redact import Redactor
    from .exchange import Exchange
    from .socket_reader import SocketReader

__all__ = ["WireBody", "WireResponse", "release"]

_MAX_LINE = 4096
_LINE_ENDS = (b"\r\n", b"\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
# What http.client keeps its own reading of the fields in; ours are in `fields`.
_NO_MESSAGE = http.client.HTTPMessage()


class WireResponse(http.client.HTTPResponse):
    """The standard library's response, as far as urllib3 needs one to keep its pool.

    Attributes:
        exchange: What this is the answer of, until the head is read; None for the answer of a proxy to CONNECT.
        fields: The header fields.
        surplus: Whether bytes came beyond the body: the connection is out of step.
    """

    exchange: Exchange | None = None
    fields: Headers
    surplus = False

    def begin(self) -> None:
        """Read the head, past every 1xx, and settle how the body ends and whether the connection lives on."""
        if self.headers is not None:
            return
        exchange, self.exchange = self.exchange, None
        head = read_head(self.fp)
        while exchange is not None and head.status < 200:
            exchange.skip(head)
            head = read_head(self.fp)
        self.code = self.status = head.status
        self.reason = head.reason
        self.version = 10 + head.minor
        self.fields = head.headers
        self.headers = self.msg = _NO_MESSAGE
        self.chunked, self.length = framed_length(head, self._method)
        self.chunk_left = None
        # Where the request did not go out whole, the server cannot tell its rest from the next one.
        self.will_close = self._ends_connection(head.minor) or (exchange is not None and not exchange.sent)

    def _ends_connection(self, minor: int) -> bool:
        options = {option.strip().lower() for option in self.fields.get("connection", "").split(",")}
        if "close" in options or (minor == 0 and "keep-alive" not in options):
            return True
        if self.chunked:
            # RFC 9112, sections 6.1 and 6.3: two framings, or one that HTTP/1.0 does not know, are a sign of smuggling.
            return minor == 0 or "content-length" in self.fields
        return self.length is None

    def readinto(self, buffer: Buffer, /) -> int:
        """Read what is there, at least one byte, straight from the socket where it can; 0 at the end.

        Raises:
            IncompleteRead: The connection ended before the body.
            ProtocolError: The body's framing is broken.
            OSError: The socket failed.
        """
        if self.fp is None:
            return 0
        if self.chunked and not self.chunk_left and not self._next_chunk():
            return 0
        left: int | None = self.chunk_left if self.chunked else self.length
        view = memoryview(buffer).cast("B")
        count = self.fp.readinto1(view if left is None else view[:left])
        if count == 0 and len(view) > 0:
            if left is not None:
                raise http.client.IncompleteRead(b"", left)
            self.finish()
        elif left is not None:
            self._account(left - count)
        return count

    def _account(self, left: int) -> None:
        if self.chunked:
            self.chunk_left = left
        else:
            self.length = left
            if left == 0:
                self.finish()

    def _next_chunk(self) -> bool:
        """Go on to the next chunk (RFC 9112, section 7.1); False after the last one, its trailers read away."""
        if self.chunk_left == 0 and self._framing_line(2) not in _LINE_ENDS:
            raise ProtocolError("the chunked body is broken: a chunk does not end where its size says")
        line = self._framing_line(_MAX_LINE)
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise ProtocolError("the chunked body is broken: expected a chunk size in hexadecimal digits")
        self.chunk_left = int(match[1], 16)
        if self.chunk_left:
            return True
        left = _MAX_LINE
        while (line := self._framing_line(left)) not in _LINE_ENDS:
            left -= len(line)
        self.finish()
        return False

    def _framing_line(self, limit: int) -> bytes:
        line: bytes = self.fp.readline(limit)
        if line.endswith(b"\n"):
            return line
        if len(line) < limit:
            raise http.client.IncompleteRead(b"")
        raise ProtocolError(f"the chunked body is broken: a line is longer than {_MAX_LINE} bytes")

    def finish(self) -> None:
        """End a body that is over. A response that is closed without takes its connection with it."""
        fp: Any = self.fp
        self.fp = None  # type: ignore[assignment]
        fp.raw.finish()
        self.surplus = bool(fp.peek(1))
        fp.close()


_LEFT_OPEN: dict[weakref.ref[WireBody], tuple[SocketReader, str, str, Redactor | None]] = {}
"""The sockets and requests of all open bodies; no value may refer to its body.

In a reference cycle finalizers run in any order. Those of http.client's response or of the socket could run first: then
an unread connection looks like one that was read to its end, or its descriptor is closed while another request uses it.
The callback of a weak reference runs before all of them, and the values in here belong to no cycle. `weakref.finalize`
does the same and takes three times as long.
"""


class WireBody:
    """A response's body, and the connection under it: back to the pool at the end, dropped if closed before.

    Only `readinto` returns a connection to its pool. `close` and the finalizer close the socket and touch nothing else:
    a generator's ``finally`` or an `io.BufferedReader` may call `close` in the garbage collector, in a thread that
    holds the lock of a pool or of a log handler at that moment.

    Args:
        raw: What the bytes come from.
        pooled: urllib3's response, which knows the pool.
        request: The request that was answered.
    """

    __slots__ = ("__weakref__", "_open", "_pooled", "_raw", "_request")
    connected = True  # what goes wrong here is not the connecting

    def __init__(self, raw: WireResponse, pooled: urllib3.HTTPResponse, request: Request) -> None:
        self._raw = raw
        self._pooled = pooled
        self._request = request
        fp: Any = raw.fp
        self._open: weakref.ref[WireBody] | None = weakref.ref(self, _abandon)
        _LEFT_OPEN[self._open] = fp.raw, request.method, request.url, exchange_redactor(request.info)

    def readinto(self, buffer: memoryview, /) -> int:
        """Read what is there, at least one byte; 0 at the end.

        Raises:
            TransportError: The connection failed, or the body is cut off or not framed as it should be.
        """
        if self._open is None:
            return 0
        whole = False
        try:
            with failures_of(self._request, self):
                count = self._raw.readinto(buffer)
            whole = True
        finally:
            if not whole:
                self.close()
        if self._raw.isclosed():
            self._finish()
        return count

    def _shorten_timeout(self, seconds: float) -> None:
        """Have what is still to come come within so many seconds, or not at all."""
        if self._raw.fp is not None:
            fp: Any = self._raw.fp
            fp.raw.shorten(seconds)

    def _finish(self) -> None:
        """Return the connection to its pool, or close it if bytes came behind the body."""
        self._forget()  # first: from then on the socket may be another request's
        release(self._raw, self._pooled)

    def close(self) -> None:
        """Close the connection, unless the body was read to its end. May be called again."""
        if self._open is not None:
            self._forget()
            self._pooled.close()

    def _forget(self) -> None:
        reference, self._open = self._open, None
        if reference is not None:
            _LEFT_OPEN.pop(reference, None)


def release(raw: WireResponse, pooled: urllib3.HTTPResponse) -> None:
    """Return the connection of a response that is over to its pool, or close it if bytes came behind the body."""
    if raw.surplus:
        pooled.close()
    else:
        pooled.release_conn()


def _abandon(reference: weakref.ref[WireBody]) -> None:
    reader, method, url, redactor = _LEFT_OPEN.pop(reference)
    reader.drop()
    shown = redact_url(url)
    if redactor is not None:  # a peer may have written the URL, as a Location that repeats a secret
        shown = redactor.text(shown)
    warn_left_open(f"a response was never read to its end or closed: {method} {shown}")
