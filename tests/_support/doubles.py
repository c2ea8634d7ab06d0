"""Test doubles for all tests: a response body, a transport, a clock, and a function call in a thread."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ociwire import Body, Request, Response, Transport

PATIENCE = 30.0
"""Timeout in seconds of waits that only fail if the code hangs."""


class FakeClock:
    """Clock that a test sets. A call returns the time, as `time.monotonic` and `time.time` do.

    Attributes:
        now: Current time in seconds.
        step: Seconds by which each call advances the clock before it returns. Defaults to 0.
        sleeps: Arguments of `sleep`, in order.
        on_sleep: Functions that are called at the start of the next `sleep`, and then removed.
    """

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.step = 0.0
        self.sleeps: list[float] = []
        self.on_sleep: list[Callable[[], object]] = []

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        """Record the wait and advance the clock, in place of `time.sleep`."""
        assert seconds > 0, f"sleep({seconds})"
        self.sleeps.append(seconds)
        actions, self.on_sleep = self.on_sleep, []
        for action in actions:
            action()
        self.now += seconds


class FakeReader:
    """Response body whose pieces are read in order. A read after `close` fails the test.

    Args:
        content: The bytes, or an iterable of pieces. A piece is bytes, an exception that is raised, or a function that
            is called (to block, for example) before the next piece is read. An infinite iterator, such as
            ``itertools.repeat(b"x")``, makes an endless body.
        error: Exception that every read at the end of the content raises. Defaults to None, a normal end.
        max_read: Maximum number of bytes per read. Defaults to the size of the buffer.
        limit: Number of bytes after which another read fails the test. Defaults to no limit.
        on_close: Function that the first `close` calls.

    Attributes:
        reads: Number of calls of `readinto`.
        bytes_read: Number of bytes returned.
        at_end: Whether a read has returned 0.
        closes: Number of calls of `close`.
    """

    def __init__(
        self,
        content: bytes | Iterable[bytes | BaseException | Callable[[], object]] = b"",
        *,
        error: BaseException | None = None,
        max_read: int | None = None,
        limit: int | None = None,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self._pieces: Iterator[Any] = iter((content,) if isinstance(content, bytes) else content)
        self._piece = memoryview(b"")
        self._error = error
        self._max_read = max_read
        self._limit = limit
        self.on_close = on_close
        self.reads = 0
        self.bytes_read = 0
        self.at_end = False
        self.closes = 0

    @property
    def closed(self) -> bool:
        return self.closes > 0

    def readinto(self, buffer: memoryview, /) -> int:
        assert not self.closed, "the body is read after close"
        self.reads += 1
        if not self._piece and not self._fetch_piece():
            if self._error is not None:
                raise self._error
            self.at_end = self.at_end or len(buffer) > 0
            return 0
        assert self._limit is None or self.bytes_read < self._limit, f"more than {self._limit} bytes are read"
        part = self._piece[: min(len(buffer), self._max_read or len(buffer))]
        buffer[: len(part)] = part
        self._piece = self._piece[len(part) :]
        self.bytes_read += len(part)
        return len(part)

    def close(self) -> None:
        self.closes += 1
        if self.closes == 1:
            self.on_close()

    def _fetch_piece(self) -> bool:
        """Move to the next piece that is not empty. Return False at the end."""
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            if callable(piece):
                piece()
            elif piece:
                self._piece = memoryview(piece)
                return True
        return False


class UnseekableFile(io.RawIOBase):
    """Binary file that can be read once and not seeked, such as a pipe.

    Attributes:
        bytes_read: Number of bytes returned.
    """

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count = self._file.readinto(buffer)
        self.bytes_read += count
        return count


class RecordingTransport:
    """Transport that records requests and answers from a response, a function or an inner transport. Thread-safe.

    Args:
        answer: A response for all requests (made from bytes), a function from a request to a response, or an inner
            transport. Defaults to ``200`` without a body.

    Attributes:
        requests: The requests, in order.
        exchanges: Each request with the status of its response. The status is None if an exception was raised.
        closes: Number of calls of `close`.
    """

    def __init__(self, answer: Response | Callable[[Request], Response] | Transport | None = None) -> None:
        self._answer = Response(200) if answer is None else answer
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.exchanges: list[tuple[Request, int | None]] = []
        self.closes = 0

    def round_trip(self, request: Request, /) -> Response:
        with self._lock:
            self.requests.append(request)
        status = None
        try:
            if isinstance(self._answer, Response):
                response = self._answer
            elif isinstance(self._answer, Transport):
                response = self._answer.round_trip(request)
            else:
                response = self._answer(request)
            status = response.status
        finally:
            with self._lock:
                self.exchanges.append((request, status))
        return response if response.request is not None else response.replace(request=request)

    def close(self) -> None:
        self.closes += 1
        if isinstance(self._answer, Transport):
            self._answer.close()


class Call:
    """Function call in its own thread.

    Attributes:
        result: Result of the function. None before it returns.
        error: Exception that the function raised. None without one.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:  # noqa: BLE001 - the test checks it
            self.error = error

    def join(self) -> Call:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call does not return"
        return self

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()


def content_of(body: Body | None) -> bytes:
    """Return the complete content of a request's body. Empty without a body."""
    return b"" if body is None else b"".join(body.open())
