"""What arrives on a connection for one exchange: each wait under the exchange's clock, and no byte of it lost.

A status that has to be known before the body may go is read twelve bytes deep (``HTTP/1.1 401``) and kept for whoever
reads the head. A socket's own file cannot do that: it is dead after its first timeout.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from http.client import RemoteDisconnected
from typing import TYPE_CHECKING

from urllib3.util import wait_for_read

from ..errors import ProtocolError
from .clock import Clock

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Inbox"]

_STATUS_LENGTH = len(b"HTTP/1.1 401")


class Inbox(io.RawIOBase):
    """The receiving side of a socket, readable byte by byte and as a buffered file.

    Args:
        sock: The socket, or what urllib3 has in its place for TLS in TLS.
        clock: Bounds each wait. Without a deadline the socket's own timeout is taken to be its.
    """

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock
        self._kept = b""
        self._hold: io.RawIOBase | None = None
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
            view[:count], self._kept = self._kept[:count], self._kept[count:]
            return count
        if self._clock.deadline is not None:
            self._sock.settimeout(self._clock.left())
        count = self._sock.recv_into(view)
        self.received = self.received or count > 0
        return count

    def wait_for_status(self, ends: float) -> int | None:
        """The status code of the next response, which is left to be read; None if nothing has come by `ends`.

        Args:
            ends: A moment of `time.monotonic`. A status line that has begun by then is waited for.

        Raises:
            RemoteDisconnected: The server closed the connection instead.
            ProtocolError: What came is not HTTP/1.
            TimeoutError: The deadline passed, or a status line that had begun did not go on.
        """
        while len(self._kept) < _STATUS_LENGTH:
            wait = self._clock.left() if self._kept else self._clock.at_most(ends - time.monotonic())
            if wait is not None and wait <= 0:
                return None
            self._sock.settimeout(wait)
            try:
                self._keep()
            except TimeoutError:
                if self._kept:
                    raise
        self._sock.settimeout(self._clock.left())
        return self._status()

    def poll_status(self) -> int | None:
        """The status code of a response that has come already, which is left to be read; None if there is none.

        Raises:
            RemoteDisconnected: The server closed the connection instead.
            ProtocolError: What came is not HTTP/1.
        """
        # Readable is not data: on TLS 1.3 it may be session tickets. Not readable, though, is no data.
        if len(self._kept) < _STATUS_LENGTH and not wait_for_read(self._sock, timeout=0):
            return None
        self._sock.settimeout(0)
        try:
            while len(self._kept) < _STATUS_LENGTH:
                self._keep()
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        finally:
            self._sock.settimeout(self._clock.left())
        return self._status()

    def _keep(self) -> None:
        data = self._sock.recv(_STATUS_LENGTH - len(self._kept))
        if not data:
            raise RemoteDisconnected("the server closed the connection before its response")
        self._kept += data
        self.received = True

    def _status(self) -> int:
        if not (self._kept.startswith(b"HTTP/1.") and self._kept[9:12].isdigit()):
            raise ProtocolError(f"not an HTTP/1.1 status line: {self._kept!r}")
        return int(self._kept[9:12])

    def close(self) -> None:
        """Let go of the socket; who made the connection closes it."""
        if self._hold is not None:
            self._hold.close()
        super().close()
