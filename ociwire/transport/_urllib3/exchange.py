"""State of a request on its connection.

An `Exchange` is passed to urllib3 as the body, which urllib3 passes to the connection unchanged. It contains the
message to send, and records its progress, so that the transport can decide whether to resend the request.
A request has these states, which `WireConnection.request` implements (RFC 9110, section 10.1.1):

========  ==============================  ===============================================================  ========
state     event                           action                                                           next
========  ==============================  ===============================================================  ========
head      the head is sent, no wait is required                                                            body
head      the head is sent, a wait is required                                                             waiting
waiting   100 (Continue)                  set `continued`                                                  body
waiting   another 1xx                     skip it                                                          waiting
waiting   a status of 200 or more         do not read the content                                          answered
waiting   nothing within `expect_wait`    set `expect_timed_out`                                           body
waiting   the connection is closed        raise; the transport resends if `may_resend`                     (failed)
body      the content ends                set `sent`                                                       answered
body      1xx                             skip it                                                          body
body      a status of 200 or more         stop sending                                                     answered
body      the connection is closed        stop sending: the server may have responded before               answered
answered  1xx                             skip it                                                          answered
answered  a status of 200 or more         read the response; reuse the connection only if `sent`           (done)
========  ==============================  ===============================================================  ========
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..._http.body import Body, length_mismatch, times_opened
from ...errors import BodyConsumedError, ProtocolError
from .response_head import Head
from .socket_reader import SocketReader
from .timeouts import TimeLimit

if TYPE_CHECKING:
    from .response import WireResponse

__all__ = ["ContentFailed", "Exchange", "ReusedConnection"]

MAX_INTERIM = 32
"""Maximum number of interim responses (1xx) to one request."""
MAX_INTERIM_BYTES = 64 * 1024
"""Maximum total size in bytes of all interim responses to one request."""
_PIECE = 1024 * 1024
"""Maximum size in bytes of one send, so that the timeout applies to each piece instead of a large body as a whole."""


class ContentFailed(Exception):
    """Wraps an exception of the caller's content, so that urllib3 does not handle it as a network error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class ReusedConnection(Exception):
    """A kept-alive connection cannot be used: a new connection is required, or it has received unexpected bytes."""


class Exchange:
    """One attempt to send a request: the message to send, and the events so far.

    Args:
        target: Request target.
        fields: Header fields, including the framing.
        body: Content; `None` if there is none.
        time_limit: Limit for each wait on the socket.
        expect_wait: Seconds to wait for 100 (Continue) before the body is sent. `None` means no wait.
        fresh: If true, a kept-alive connection is refused with `ReusedConnection`.
        idempotent: Whether the request may be sent again after part of it was written.

    Attributes:
        connected: Whether a connection was established. Failures after that are not connect errors.
        reused: Whether the connection was used by an earlier request.
        written: Whether a byte of the request may have reached the server.
        pulled: Whether a chunk of the content was read.
        sent: Whether the whole request was sent.
        interims: Number of interim responses (1xx) that were received.
        interim_bytes: Total size of these responses in bytes.
        continued: Whether 100 (Continue) was received, in time or late.
        expect_timed_out: Whether nothing was received within `expect_wait`.
        reader: Reader of the socket; `None` until the connection is in use.
        pieces: The framed body; see `open_body`.
        response: The final response. Not set until its head is read.
    """

    response: WireResponse

    __slots__ = (
        "body",
        "connected",
        "continued",
        "expect_timed_out",
        "expect_wait",
        "fields",
        "fresh",
        "idempotent",
        "interim_bytes",
        "interims",
        "pieces",
        "pulled",
        "reader",
        "response",
        "reused",
        "sent",
        "target",
        "time_limit",
        "written",
    )

    def __init__(
        self,
        target: str,
        fields: list[tuple[str, str]],
        body: Body | None,
        time_limit: TimeLimit,
        *,
        expect_wait: float | None,
        fresh: bool,
        idempotent: bool,
    ) -> None:
        self.target = target
        self.fields = fields
        self.body = body
        self.time_limit = time_limit
        self.expect_wait = expect_wait
        self.fresh = fresh
        self.idempotent = idempotent
        self.connected = False
        self.reused = False
        self.written = False
        self.pulled = False
        self.sent = body is None
        self.interims = 0
        self.interim_bytes = 0
        self.continued = False
        self.expect_timed_out = False
        self.reader: SocketReader | None = None
        self.pieces: Iterator[bytes | memoryview] = iter(())

    def skip_interim(self, head: Head) -> None:
        """Record and skip an interim response. A client must accept any 1xx status (RFC 9110, section 15.2).

        Raises:
            ProtocolError: The status is 101, which was not requested, or the interim responses are too many or too
                long.
        """
        self.interims += 1
        self.interim_bytes += head.size
        if head.status == 101:
            raise ProtocolError("unexpected status 101 (Switching Protocols): no Upgrade was requested")
        if self.interims > MAX_INTERIM:
            raise ProtocolError(f"too many interim responses (1xx): expected at most {MAX_INTERIM}")
        if self.interim_bytes > MAX_INTERIM_BYTES:
            raise ProtocolError(f"interim responses (1xx) are too large: expected at most {MAX_INTERIM_BYTES} bytes")
        self.continued = self.continued or head.status == 100

    @property
    def may_resend(self) -> bool:
        """Whether a request that failed on a kept-alive connection may be sent again on a fresh one.

        If the connection closes without a response, the client cannot know whether the server closed it while idle or
        after it began to process the request. Once a byte was written, only an idempotent request may therefore be sent
        again (RFC 9110, section 9.2.2; RFC 9112, section 9.3.1).
        """
        if not self.reused or (self.reader is not None and self.reader.received):
            return False
        if self.pulled or (self.body is not None and not self.body.resendable):
            return False
        return self.idempotent or not self.written

    def open_body(self) -> None:
        """Set `pieces` to an iterator over the framed content, which never exceeds the announced length.

        The iterator raises `ContentFailed` if the content raises an exception, and `SizeMismatch` if the content is
        longer or shorter than its length. It yields the last piece only after the length was verified.

        Raises:
            BodyConsumedError: The body is single-use, and was consumed before.
        """
        if self.body is not None:
            chunks = self._chunks(self.body.open(), self.body, times_opened(self.body))
            self.pieces = _chunked(chunks) if self.body.length is None else _sized(chunks, self.body.length)

    def _chunks(self, content: Iterator[bytes], body: Body, opening: int) -> Iterator[memoryview]:
        while True:
            try:
                chunk = memoryview(next(content)).cast("B")
            except StopIteration:
                if times_opened(body) != opening:  # the body was opened again in the meantime, which ends this iterator
                    raise BodyConsumedError("the body was opened again while it was being sent") from None
                return
            except Exception as error:
                self.pulled = True  # prevents `may_resend`, because the connection did not cause the failure
                raise ContentFailed(error) from error
            if chunk:
                self.pulled = True
                yield chunk


def _sized(chunks: Iterator[memoryview], length: int) -> Iterator[memoryview]:
    # Hold back the chunk that completes the length until the content ends. A request whose content is longer than its
    # Content-Length is then never complete, and the server does not process it.
    count, last = 0, memoryview(b"")
    for chunk in chunks:
        count += len(chunk)
        if count > length:
            raise length_mismatch(length, count)
        if count == length:
            last = chunk
        else:
            yield from _cut(chunk)
    if count < length:
        raise length_mismatch(length, count)
    yield from _cut(last)


def _chunked(chunks: Iterator[memoryview]) -> Iterator[bytes]:
    # Chunked transfer coding (RFC 9112, section 7.1).
    for chunk in chunks:
        for piece in _cut(chunk):
            yield b"%x\r\n%b\r\n" % (len(piece), bytes(piece))
    yield b"0\r\n\r\n"


def _cut(chunk: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(chunk), _PIECE):
        yield chunk[start : start + _PIECE]
