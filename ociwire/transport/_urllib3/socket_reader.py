"""What arrives on a connection for one exchange: each wait under the exchange's clock, and no byte of it lost.

A status that has to be known before the body may go (``HTTP/1.1 401``) is looked at and kept, with what came behind it,
for the reader of the head and of the body. A socket's own file cannot do that: it is dead after its first timeout.
"""

from __future__ import annotations

import io
import socket
import ssl
import sys
import time
from http.client import RemoteDisconnected
from typing import TYPE_CHECKING

from urllib3.util import wait_for_read

from ...errors import ProtocolError
from .response_head import NOT_HTTP
from .timeouts import TimeLimit

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["SocketReader", "has_pending"]

_STATUS_LENGTH = len(b"HTTP/1.1 401")
_READ_SIZE = 8192
"""Number of bytes to receive at once while a head is read."""


class SocketReader(io.RawIOBase):
    """The receiving side of a socket, readable byte by byte and as a buffered file.

    Args:
        sock: The socket, or what urllib3 has in its place for TLS in TLS.
        time_limit: Bounds each wait. Without a deadline the socket's own timeout is taken to be its.
        limit: The most to read in all, in bytes; None is no limit.
    """

    def __init__(self, sock: socket.socket, time_limit: TimeLimit, *, limit: int | None = None) -> None:
        self._sock = sock
        self._time_limit = time_limit
        self._left = limit
        self._kept = bytearray()  # received bytes that were not read yet
        self._hold: io.RawIOBase | None = None
        self._over = False
        self.received = False
        """Whether any byte has come."""

    def makefile(self, mode: str) -> io.BufferedReader:
        """What `http.client` asks a socket for: a buffered file, which keeps the socket open until it is closed."""
        self._hold = self._sock.makefile(mode, buffering=0)  # type: ignore[call-overload]
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read what was kept, else what comes next; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._kept:
            count = min(len(view), len(self._kept))
            view[:count] = self._kept[:count]
            del self._kept[:count]
            return count
        return self._receive(view)

    def _receive(self, view: memoryview) -> int:
        if self._over:
            return 0
        if self._time_limit.deadline is not None:
            self._sock.settimeout(self._time_limit.remaining())
        count = self._sock.recv_into(view)
        self.received = self.received or count > 0
        if self._left is not None:
            self._left -= count
            if self._left < 0:
                raise ProtocolError("the peer sends more than is read of it")
        return count

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read to the next line end, at most `size` bytes; fewer only at the end.

        `io.RawIOBase` asks the socket for one byte at a time.
        """
        wanted = sys.maxsize if size is None or size < 0 else size
        searched = 0
        while (end := self._kept.find(b"\n", searched, wanted)) < 0 and len(self._kept) < wanted:
            searched = len(self._kept)
            chunk = bytearray(_READ_SIZE)
            count = self._receive(memoryview(chunk))
            if count == 0:
                break
            self._kept += chunk[:count]
        count = min(len(self._kept), wanted) if end < 0 else end + 1
        line = bytes(self._kept[:count])
        del self._kept[:count]
        return line

    def finish(self) -> None:
        """Take nothing more from the socket: what is read now is what had come beyond the response."""
        self._over = True

    def shorten(self, seconds: float) -> None:
        """Wait for what is still to come for so many seconds in all."""
        self._time_limit.shorten(seconds)

    def wait_for_status(self, ends: float) -> int | None:
        """The status code of the next response, which is left to be read; None if nothing has come by `ends`.

        Leaves the socket with another timeout than it had, as `poll_status` does.

        Args:
            ends: A moment of `time.monotonic`. A status line that has begun by then is waited for.

        Raises:
            RemoteDisconnected: The server closed the connection instead.
            ProtocolError: What came is not HTTP/1, or is cut off.
            TimeoutError: The deadline passed, or a status line that had begun did not go on.
        """
        while len(self._kept) < _STATUS_LENGTH:
            wait = self._time_limit.remaining() if self._kept else self._time_limit.clamp(ends - time.monotonic())
            if wait is not None and wait <= 0:
                return None
            self._sock.settimeout(wait)
            try:
                self._keep()
            except TimeoutError:
                if self._kept:
                    raise
        return self._status()

    def poll_status(self) -> int | None:
        """The status code of a response that has come already, which is left to be read; None if there is none.

        Raises:
            RemoteDisconnected: The server closed the connection instead.
            ProtocolError: What came is not HTTP/1, or is cut off.
        """
        # Readable is not data: on TLS 1.3 it may be session tickets. Nor is not readable no data: TLS may have it.
        if not (len(self._kept) >= _STATUS_LENGTH or has_pending(self._sock) or wait_for_read(self._sock, timeout=0)):
            return None
        self._sock.settimeout(0)
        try:
            while len(self._kept) < _STATUS_LENGTH:
                self._keep()
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        return self._status()

    def _keep(self) -> None:
        data = self._sock.recv(_READ_SIZE)
        if not data and self._kept:
            raise ProtocolError("the head of the response was cut off")
        if not data:
            raise RemoteDisconnected("the server closed the connection before its response")
        self._kept += data
        self.received = True

    def _status(self) -> int:
        if not (self._kept.startswith(b"HTTP/1.") and self._kept[9:12].isdigit()):
            raise ProtocolError(NOT_HTTP)
        return int(self._kept[9:12])

    def close(self) -> None:
        """Let go of the socket; who made the connection closes it."""
        if self._hold is not None:
            self._hold.close()
        super().close()

    def drop(self) -> None:
        """Close the socket too. Takes no lock and logs nothing, so that a finalizer may call it."""
        if self._hold is not None:
            self._hold.close()
        self._sock.close()


def has_pending(sock: socket.socket) -> bool:
    """Whether TLS has decrypted bytes that nobody has taken: no look at the socket can see them."""
    # urllib3's socket for TLS in TLS keeps them in its `sslobj`.
    holder = sock if isinstance(sock, ssl.SSLSocket) else getattr(sock, "sslobj", None)
    return holder is not None and holder.pending() > 0
