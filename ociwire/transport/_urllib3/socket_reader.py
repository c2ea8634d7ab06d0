"""The receiving side of a connection during one exchange.

The status of an early response (``HTTP/1.1 401``) must be known before the body is sent. `SocketReader` looks at it and
buffers what it has received, for the reader of the head and of the body. A file made by ``socket.makefile`` cannot do
that: it is unusable after its first timeout.
"""

from __future__ import annotations

import io
import socket
import ssl
import sys
import time
from typing import TYPE_CHECKING

from urllib3.util import wait_for_read

from ...errors import ProtocolError
from .response_head import STATUS_LENGTH, cut_off_error, parse_status
from .timeouts import TimeLimit

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["SocketReader", "has_pending"]

_READ_SIZE = 8192
"""Number of bytes to receive at once while a head is read."""


class SocketReader(io.RawIOBase):
    """Reads from a socket, within the time limit of the exchange, through a buffer that is never lost.

    Args:
        sock: The socket, or urllib3's replacement for it for TLS in TLS.
        time_limit: Bounds each wait. Without a deadline the socket's own timeout applies.
        max_bytes: Maximum number of bytes to receive in all; None means no limit.

    Attributes:
        received: Whether any byte has been received.
    """

    def __init__(self, sock: socket.socket, time_limit: TimeLimit, *, max_bytes: int | None = None) -> None:
        self._sock = sock
        self._time_limit = time_limit
        self._allowance = max_bytes
        self._buffer = bytearray()  # received, and not read yet
        self._file: io.RawIOBase | None = None
        self._finished = False
        self.received = False

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a buffered file, as http.client demands of a socket. It keeps the socket open until it is closed."""
        self._file = self._sock.makefile(mode, buffering=0)  # type: ignore[call-overload]
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read buffered bytes if there are any, else receive; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._buffer:
            count = min(len(view), len(self._buffer))
            view[:count] = self._buffer[:count]
            del self._buffer[:count]
            return count
        return self._receive(view)

    def _receive(self, view: memoryview) -> int:
        if self._finished:
            return 0
        if self._time_limit.deadline is not None:
            self._sock.settimeout(self._time_limit.remaining())
        count = self._sock.recv_into(view)
        if count:
            self.received = True
        if self._allowance is not None:
            self._allowance -= count
            if self._allowance < 0:
                raise ProtocolError("the peer sends more than is read of it")
        return count

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read to the next line end, at most `size` bytes; fewer only at the end.

        Overridden because `io.RawIOBase.readline` receives one byte at a time.
        """
        limit = sys.maxsize if size is None or size < 0 else size
        searched = 0
        while (end := self._buffer.find(b"\n", searched, limit)) < 0 and len(self._buffer) < limit:
            searched = len(self._buffer)
            chunk = bytearray(_READ_SIZE)
            count = self._receive(memoryview(chunk))
            if count == 0:
                break
            self._buffer += chunk[:count]
        count = min(len(self._buffer), limit) if end < 0 else end + 1
        line = bytes(self._buffer[:count])
        del self._buffer[:count]
        return line

    def finish(self) -> None:
        """Stop receiving. Later reads return only buffered bytes, which do not belong to the response."""
        self._finished = True

    def shorten(self, seconds: float) -> None:
        """Limit the time for the rest of the response to `seconds` in all."""
        self._time_limit.shorten(seconds)

    def wait_for_status(self, end: float) -> int | None:
        """Wait for the next status code, without consuming the status line; None if nothing was received by `end`.

        Changes the timeout of the socket, as `poll_status` does.

        Args:
            end: A `time.monotonic` value in seconds. A status line that has begun by then is read to its end.

        Raises:
            RemoteDisconnected: The server closed the connection instead.
            ProtocolError: The data is not HTTP/1, or is cut off.
            TimeoutError: The deadline passed, or a status line that had begun was not completed in time.
        """
        while len(self._buffer) < STATUS_LENGTH:
            timeout = self._time_limit.remaining() if self._buffer else self._time_limit.clamp(end - time.monotonic())
            if timeout is not None and timeout <= 0:
                return None
            self._sock.settimeout(timeout)
            try:
                self._fill_buffer()
            except TimeoutError:
                if self._buffer:
                    raise
        return parse_status(self._buffer)[1]

    def poll_status(self) -> int | None:
        """The status code of a response that has been received already, without consuming it; None if there is none.

        Raises:
            RemoteDisconnected: The server closed the connection instead.
            ProtocolError: The data is not HTTP/1, or is cut off.
        """
        # A readable socket may hold no data of the response (TLS 1.3 session tickets), and one that is not readable may
        # have some left: TLS decrypts whole records.
        if not (len(self._buffer) >= STATUS_LENGTH or has_pending(self._sock) or wait_for_read(self._sock, timeout=0)):
            return None
        self._sock.settimeout(0)
        try:
            while len(self._buffer) < STATUS_LENGTH:
                self._fill_buffer()
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        return parse_status(self._buffer)[1]

    def _fill_buffer(self) -> None:
        data = self._sock.recv(_READ_SIZE)
        if not data:
            raise cut_off_error(self._buffer)
        self._buffer += data
        self.received = True

    def close(self) -> None:
        """Release the socket. The owner of the connection closes it."""
        if self._file is not None:
            self._file.close()
        super().close()

    def abort(self) -> None:
        """Close the socket, too. Takes no lock and logs nothing, so that a finalizer may call it."""
        if self._file is not None:
            self._file.close()
        self._sock.close()


def has_pending(sock: socket.socket) -> bool:
    """Whether TLS has decrypted bytes that were not read yet. Polling the socket does not show them."""
    # urllib3's socket for TLS in TLS keeps them in its `sslobj`.
    tls = sock if isinstance(sock, ssl.SSLSocket) else getattr(sock, "sslobj", None)
    return tls is not None and tls.pending() > 0
