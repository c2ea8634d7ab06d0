"""A response as it comes off the socket: its head read strictly, its body in place, its connection given back.

`WireResponse` is http.client's, as far as urllib3 needs one; `WireBody` is what a `Response` reads from.
"""

from __future__ import annotations

import http.client
import re
import warnings
from typing import TYPE_CHECKING, Any

from ..errors import ProtocolError
from ..headers import Headers
from ..message import Request
from ..origin import without_query
from .failures import failures_of
from .head import framed_length, interim, read_head

if TYPE_CHECKING:
    import urllib3
    from typing_extensions import Buffer

    from .exchange import Exchange

__all__ = ["WireBody", "WireResponse"]

_MAX_LINE = 4096
_LINE_ENDS = (b"\r\n", b"\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
# What http.client keeps its own reading of the fields in; ours are in `fields`.
_NO_MESSAGE = http.client.HTTPMessage()


class WireResponse(http.client.HTTPResponse):
    """The standard library's response, as far as urllib3 needs one to keep its pool.

    Attributes:
        exchange: What this is the answer of; None for the answer of a proxy to CONNECT.
        fields: The header fields.
    """

    exchange: Exchange | None = None
    fields: Headers

    def begin(self) -> None:
        """Read the head, past every 1xx, and settle how the body ends and whether the connection lives on."""
        if self.headers is not None:
            return
        skipped = 0
        while interim(head := read_head(self.fp), skipped):
            skipped += 1
            if self.exchange is not None and head.status == 100:
                self.exchange.continued = True
        self.code = self.status = head.status
        self.reason = head.reason
        self.version = 10 + head.minor
        self.fields = head.headers
        self.headers = self.msg = _NO_MESSAGE
        self.chunked, self.length = framed_length(head, self._method)
        self.chunk_left = None
        self.will_close = self._ends_connection(head.minor)

    def _ends_connection(self, minor: int) -> bool:
        if self.exchange is not None and not self.exchange.sent:
            return True  # the server cannot tell the rest of this request from the next one
        options = {option.strip().lower() for option in self.fields.get("connection", "").split(",")}
        if "close" in options or (minor == 0 and "keep-alive" not in options):
            return True
        if self.chunked:
            return "content-length" in self.fields  # RFC 9112, section 6.3: two framings are a sign of smuggling
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
            self._end()
        elif left is not None:
            self._account(left - count)
        return count

    def _account(self, left: int) -> None:
        if self.chunked:
            self.chunk_left = left
        else:
            self.length = left
            if left == 0:
                self._end()

    def _next_chunk(self) -> bool:
        """Go on to the next chunk (RFC 9112, section 7.1); False after the last one, its trailers read away."""
        if self.chunk_left == 0 and self._framing_line(2) not in _LINE_ENDS:
            raise ProtocolError("the chunked body is broken: a chunk does not end where its size says")
        line = self._framing_line(_MAX_LINE)
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise ProtocolError(f"the chunked body is broken: {line[:40]!r} is no chunk size")
        self.chunk_left = int(match[1], 16)
        if self.chunk_left:
            return True
        left = _MAX_LINE
        while (line := self._framing_line(left)) not in _LINE_ENDS:
            left -= len(line)
        self._end()
        return False

    def _framing_line(self, limit: int) -> bytes:
        line: bytes = self.fp.readline(limit)
        if line.endswith(b"\n"):
            return line
        if len(line) < limit:
            raise http.client.IncompleteRead(b"")
        raise ProtocolError(f"the chunked body is broken: {line[:40]!r} is followed by no end of line")

    def _end(self) -> None:
        # Only a body that is over ends so: a response whose file is still there takes its connection with it.
        fp: Any = self.fp
        self.fp = None  # type: ignore[assignment]
        fp.close()


class WireBody:
    """A response's body, and the connection under it: back to the pool at the end, dropped if closed before.

    Args:
        exchange: What was answered, and by which response.
        pooled: urllib3's response, which knows the pool.
        request: The request that was answered.
    """

    __slots__ = ("_exchange", "_open", "_pooled", "_raw", "_request")

    def __init__(self, exchange: Exchange, pooled: urllib3.HTTPResponse, request: Request) -> None:
        self._exchange = exchange
        self._raw = exchange.response
        self._pooled = pooled
        self._request = request
        self._open = True

    def readinto(self, buffer: memoryview, /) -> int:
        """Read what is there, at least one byte; 0 at the end.

        Raises:
            TransportError: The connection failed, or the body is cut off or not framed as it should be.
        """
        if not self._open:
            return 0
        whole = False
        try:
            with failures_of(self._request, self._exchange):
                count = self._raw.readinto(buffer)
            whole = True
        finally:
            if not whole:
                self.close()
        if self._raw.isclosed():
            self.close()
        return count

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        if self._open:
            self._open = False
            if not self._raw.isclosed():
                self._pooled.close()
            self._pooled.release_conn()

    def __del__(self) -> None:
        if self._open:
            asked = f"{self._request.method} {without_query(self._request.url)}"
            warnings.warn(f"a response was never read to its end or closed: {asked}", ResourceWarning, stacklevel=2)
            self.close()
