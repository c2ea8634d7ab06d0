"""Parse the head and the body of a response from a socket, and return the connection to its pool.

`WireResponse` replaces http.client's response for urllib3. `WireBody` is the reader of the body of a `Response`.
"""

from __future__ import annotations

import http.client
import re
import weakref
from typing import TYPE_CHECKING, Any

from ..._http.headers import Headers
from ..._http.messages import Request, exchange_redactor
from ..._http.response_body import warn_unclosed
from ..._oci.host import redact_url
from ...errors import ProtocolError
from .map_exceptions import map_errors
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
# A placeholder for the attribute `headers` of http.client's response: `WireResponse` stores the fields in `fields`.
_NO_MESSAGE = http.client.HTTPMessage()
_UNCLOSED: dict[weakref.ref[WireBody], tuple[SocketReader, str, str, Redactor | None]] = {}
"""Maps a weak reference to each open body to the socket and the request. A value must not refer to the body.

The finalizers of the objects in a reference cycle run in any order. If the finalizer of http.client's response or of
the socket ran first, an unread connection would appear to be read to its end, or its file descriptor would be closed
while another request uses it. The callback of a weak reference runs before all finalizers, and these values are not
part of a cycle. `weakref.finalize` works in the same way, but takes three times as long.
"""


class WireResponse(http.client.HTTPResponse):
    """Replacement for http.client's response, with the methods that urllib3 and `WireBody` use.

    Attributes:
        exchange: The exchange of the request. `None` after the head has been read, and for a response to CONNECT.
        fields: Header fields.
        has_excess_data: Whether bytes were received after the body, so that the connection must not be reused.
    """

    exchange: Exchange | None = None
    fields: Headers
    has_excess_data = False

    def begin(self) -> None:
        """Read the head, skip interim responses, and determine the framing and whether the connection is reusable."""
        if self.headers is not None:  # the head was read already
            return
        exchange, self.exchange = self.exchange, None
        head = read_head(self.fp)
        while exchange is not None and head.status < 200:
            exchange.skip_interim(head)
            head = read_head(self.fp)
        self.code = self.status = head.status
        self.reason = head.reason
        self.version = 10 + head.minor
        self.fields = head.headers
        self.headers = self.msg = _NO_MESSAGE
        self.chunked, self.length = framed_length(head, self._method)
        self.chunk_left = None
        # If the request was only partly sent, the server would read the next request as the rest of its body.
        self.will_close = self._ends_connection(head.minor) or (exchange is not None and not exchange.sent)

    def _ends_connection(self, minor: int) -> bool:
        options = {option.strip().lower() for option in self.fields.get("connection", "").split(",")}
        if "close" in options or (minor == 0 and "keep-alive" not in options):
            return True
        if self.chunked:
            # A Content-Length in addition to chunked framing, or chunked framing in HTTP/1.0, may be an attempt at
            # response splitting: the connection must be closed (RFC 9112, sections 6.1 and 6.3).
            return minor == 0 or "content-length" in self.fields
        return self.length is None

    def readinto(self, buffer: Buffer, /) -> int:
        """Read available bytes, at least one, into a buffer; return their number, or 0 at the end.

        Raises:
            IncompleteRead: The connection was closed before the end of the body.
            ProtocolError: The chunked framing is invalid.
            OSError: The socket failed.
        """
        if self.fp is None:
            return 0
        if self.chunked and not self.chunk_left and not self._next_chunk():
            return 0
        remaining: int | None = self.chunk_left if self.chunked else self.length
        view = memoryview(buffer).cast("B")
        count = self.fp.readinto1(view if remaining is None else view[:remaining])
        if count == 0 and len(view) > 0:
            if remaining is not None:
                raise http.client.IncompleteRead(b"", remaining)
            self.finish()
        elif remaining is not None:
            remaining -= count
            if self.chunked:
                self.chunk_left = remaining
            else:
                self.length = remaining
                if remaining == 0:
                    self.finish()
        return count

    def _next_chunk(self) -> bool:
        """Read the next chunk size (RFC 9112, section 7.1). At the last chunk, skip the trailers and return false."""
        if self.chunk_left == 0 and self._framing_line(2) not in _LINE_ENDS:
            raise ProtocolError("invalid chunked body in the response: expected a line end after the data of a chunk")
        line = self._framing_line(_MAX_LINE)
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise ProtocolError("invalid chunked body in the response: expected a chunk size in hexadecimal digits")
        self.chunk_left = int(match[1], 16)
        if self.chunk_left:
            return True
        remaining = _MAX_LINE
        while (line := self._framing_line(remaining)) not in _LINE_ENDS:
            remaining -= len(line)
        self.finish()
        return False

    def _framing_line(self, limit: int) -> bytes:
        line: bytes = self.fp.readline(limit)
        if line.endswith(b"\n"):
            return line
        if len(line) < limit:
            raise http.client.IncompleteRead(b"")
        raise ProtocolError(f"invalid chunked body in the response: expected a line of at most {_MAX_LINE} bytes")

    def finish(self) -> None:
        """Mark the body as read to its end. If a response is closed before this call, its connection is closed, too."""
        fp: Any = self.fp
        self.fp = None  # type: ignore[assignment]
        fp.raw.finish()
        self.has_excess_data = bool(fp.peek(1))
        fp.close()


class WireBody:
    """Reads the body of a response, and returns the connection to its pool at the end of the body.

    ================  ======================  =======================================  =========
    state             event                   action                                   next
    ================  ======================  =======================================  =========
    open              `readinto` reads bytes  return their number                      open
    open              `readinto`, at the end  return the connection to its pool        finished
    open              `readinto` fails        close the connection, raise              closed
    open              `close`                 close the connection                     closed
    open              garbage collection      close the socket, warn (`_abandon`)      collected
    finished, closed  `readinto`              return 0                                 unchanged
    finished, closed  any other event         none                                     unchanged
    ================  ======================  =======================================  =========

    Returning a connection to its pool acquires locks. Therefore, only `readinto` returns it, and `close` and the
    finalizer only close the socket: the garbage collector may call `close`, through the ``finally`` of a generator or
    an `io.BufferedReader`, in a thread that holds the lock of a pool or a log handler.

    Args:
        raw: Response to read from.
        pooled: urllib3's response, which returns the connection to its pool.
        request: Request, for error messages.
    """

    __slots__ = ("__weakref__", "_open", "_pooled", "_raw", "_request")
    connected = True  # for `map_errors`: failures of a body are not connect errors

    def __init__(self, raw: WireResponse, pooled: urllib3.HTTPResponse, request: Request) -> None:
        self._raw = raw
        self._pooled = pooled
        self._request = request
        fp: Any = raw.fp
        self._open: weakref.ref[WireBody] | None = weakref.ref(self, _abandon)
        _UNCLOSED[self._open] = fp.raw, request.method, request.url, exchange_redactor(request.info)

    def readinto(self, buffer: memoryview, /) -> int:
        """Read available bytes, at least one, into a buffer; return their number, or 0 at the end.

        Raises:
            TransportError: The connection failed, or the body is incomplete or has invalid framing.
        """
        if self._open is None:
            return 0
        try:
            with map_errors(self._request, self):
                count = self._raw.readinto(buffer)
        except BaseException:
            self.close()
            raise
        if self._raw.isclosed():
            self._forget()  # before the release: afterwards, another request may use the connection
            release(self._raw, self._pooled)
        return count

    def shorten_timeout(self, seconds: float) -> None:
        """Limit the total time for reading the rest of the body to `seconds`."""
        if self._raw.fp is not None:
            fp: Any = self._raw.fp
            fp.raw.shorten(seconds)

    def close(self) -> None:
        """Close the connection, unless the body was read to its end. Idempotent."""
        if self._open is not None:
            self._forget()
            self._pooled.close()

    def _forget(self) -> None:
        reference, self._open = self._open, None
        if reference is not None:
            _UNCLOSED.pop(reference, None)


def release(raw: WireResponse, pooled: urllib3.HTTPResponse) -> None:
    """Return the connection of a finished response to its pool; close it if bytes were received after the body."""
    if raw.has_excess_data:
        pooled.close()
    else:
        pooled.release_conn()


def _abandon(reference: weakref.ref[WireBody]) -> None:
    reader, method, url, redactor = _UNCLOSED.pop(reference)
    reader.abort()
    redacted = redact_url(url)
    if redactor is not None:  # the URL may be a Location from a server, which may repeat a secret
        redacted = redactor.redact_text(redacted)
    warn_unclosed(f"a response was neither read to its end nor closed: {method} {redacted}")
