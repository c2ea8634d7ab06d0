"""Buffered reader of the socket of a connection during one exchange.

The status of an early response, such as ``HTTP/1.1 401``, must be read before the body of the request is sent.
`SocketReader` buffers the bytes that it receives for this purpose, and the head and body of the response are later read
from the buffer. A file of ``socket.makefile`` is not suitable, because it cannot be used after a timeout.
"""

from __future__ import annotations

import io
import socket
import ssl
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from urllib3.util import wait_for_read

from ...errors import ProtocolError
from .response_head import STATUS_LENGTH, cut_off_error, parse_status
from .timeouts import TimeLimit

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..._http.cancellation import Cancellation

__all__ = ["SocketReader", "has_pending"]

_READ_SIZE = 8192
"""Number of bytes to receive at once while a head is read."""


class SocketReader(io.RawIOBase):
    """Reads from a socket through a buffer, within the time limit of the exchange.

    Args:
        sock: The socket, or urllib3's `SSLTransport` for TLS in TLS.
        time_limit: Limit for each wait. Without a deadline, the timeout of the socket applies.
        max_bytes: Maximum number of bytes to receive in total. `None` means no limit.
        cancellation: Shuts the socket down if the call is cancelled.

    Attributes:
        received: Whether any byte has been received.
    """

    def __init__(
        self,
        sock: socket.socket,
        time_limit: TimeLimit,
        *,
        max_bytes: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        self._sock = sock
        self._time_limit = time_limit
        self._bytes_allowed = max_bytes
        self._buffer = bytearray()  # received, but not read yet
        self._file: io.RawIOBase | None = None
        self._finished = False
        self.received = False
        self._cancellation = cancellation
        if cancellation is not None:
            cancellation.add(self.shut_down)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a buffered file, as http.client expects. The socket stays open until the file is closed."""
        self._file = self._sock.makefile(mode, buffering=0)  # type: ignore[call-overload]
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read bytes from the buffer, or from the socket if the buffer is empty. Return their number; 0 at the end."""
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
        if self._bytes_allowed is not None:
            self._bytes_allowed -= count
            if self._bytes_allowed < 0:
                raise ProtocolError("the response of the proxy to CONNECT is too long")
        return count

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to and including the next line end, at most `size` bytes.

        This method is overridden because `io.RawIOBase.readline` receives one byte at a time.
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
        """Stop receiving. Later reads return only bytes that were buffered after the end of the response."""
        self._finished = True
        self._leave_cancellation()

    def shorten(self, seconds: float) -> None:
        """Limit the total time for reading the rest of the response to `seconds`."""
        self._time_limit.shorten(seconds)

    def wait_for_status(self, end: float) -> int | None:
        """Wait for the next status code, without consuming it; return `None` if nothing was received by `end`.

        Like `poll_status`, this changes the timeout of the socket.

        Args:
            end: End of the wait, as a `time.monotonic` value in seconds. If part of a status line has been received
                by then, the read timeout applies to the rest of the line.

        Raises:
            RemoteDisconnected: The server closed the connection without a response.
            ProtocolError: The data is not HTTP/1, or is incomplete.
            TimeoutError: The deadline expired, or the rest of a status line was not received in time.
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
        """Return the status code of a response without consuming it; `None` if no response has been received yet.

        Raises:
            RemoteDisconnected: The server closed the connection without a response.
            ProtocolError: The data is not HTTP/1, or is incomplete.
        """
        # TLS decrypts whole records: decrypted data may be available although the socket is not readable. Conversely,
        # the socket may be readable only because of a TLS 1.3 session ticket (RFC 8446, section 4.6.1).
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
        """Close the file of the socket. The socket itself is closed by the connection, which owns it."""
        self._leave_cancellation()
        if self._file is not None:
            self._file.close()
        super().close()

    def abort(self) -> None:
        """Close the file and the socket. May be called by a finalizer: it does not log, and waits for no other call."""
        self._leave_cancellation()
        if self._file is not None:
            self._file.close()
        self._sock.close()

    def shut_down(self) -> None:
        """Shut the socket down, so that a waiting thread continues as if the peer had closed the connection.

        `Cancellation` calls this method from another thread.
        """
        sock = getattr(self._sock, "socket", self._sock)  # SSLTransport (TLS in TLS) wraps the socket
        with suppress(OSError):  # the socket is closed already
            # Not `SSLSocket.shutdown`, which drops the TLS object that the other thread is using.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _leave_cancellation(self) -> None:
        if self._cancellation is not None:
            self._cancellation.discard(self.shut_down)


def has_pending(sock: socket.socket) -> bool:
    """Return whether TLS has decrypted bytes that were not read yet. Polling the socket does not detect them."""
    # urllib3's SSLTransport (TLS in TLS) stores the TLS object in its attribute `sslobj`.
    tls = sock if isinstance(sock, ssl.SSLSocket) else getattr(sock, "sslobj", None)
    return tls is not None and tls.pending() > 0
