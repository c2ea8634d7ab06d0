"""The state of one request on its connection.

An `Exchange` travels through urllib3 in the place of the body, which urllib3 passes to the connection unchanged. It
tells the connection what to send, and records what happened, so that the transport can decide whether to resend. With
``Expect: 100-continue`` (RFC 9110, section 10.1.1) a request passes through these states (`WireConnection.request`):

========  ==============================  ===============================================================  ========
state     event                           action                                                           next
========  ==============================  ===============================================================  ========
head      the head is sent, no wait                                                                        body
head      the head is sent, must wait                                                                      waiting
waiting   100 (Continue)                  set `continued`                                                  body
waiting   another 1xx                     skip it                                                          waiting
waiting   a status of 200 or more         take nothing from the content                                    answered
waiting   nothing within `expect_wait`    set `expect_timed_out`                                           body
waiting   the connection is closed        raise; the transport resends if `may_resend`                     (failed)
body      the content ends                set `sent`                                                       answered
body      1xx                             skip it                                                          body
body      a status of 200 or more         stop sending                                                     answered
body      the connection is closed        stop sending: a response may have been sent before               answered
answered  1xx                             skip it                                                          answered
answered  a status of 200 or more         read the response; reuse the connection only if `sent`           (done)
========  ==============================  ===============================================================  ========
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..._http.body import Body, length_mismatch, reopened_error, times_opened
from ...errors import ProtocolError
from .response_head import Head
from .socket_reader import SocketReader
from .timeouts import TimeLimit

if TYPE_CHECKING:
    from .response import WireResponse

__all__ = ["ContentFailed", "Exchange", "ReusedConnection"]

MAX_INTERIM = 32
"""Maximum number of 1xx responses before the final one."""
MAX_INTERIM_BYTES = 64 * 1024
"""Maximum size in bytes of all interim responses to one request together."""
_PIECE = 1024 * 1024
"""Maximum size in bytes of one send. The timeout applies to each piece, not to the whole of a large body."""


class ContentFailed(Exception):
    """Carries an exception of the caller's content past the handlers that would take it for a network error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class ReusedConnection(Exception):
    """A fresh connection is required, and this one has served before, or has bytes that no request asked for."""


class Exchange:
    """One attempt to send a request: what to send, how, and what happened.

    Args:
        target: The request target, as it is to be sent.
        fields: The header fields to send, framing included.
        body: The content, or None.
        time_limit: Bounds each wait on the socket.
        expect_wait: Seconds to wait for 100 (Continue) before the body is sent. None means no wait.
        fresh: If true, a connection that has served before is refused with `ReusedConnection`.
        idempotent: Whether the request may be sent again after part of it was written.

    Attributes:
        connected: A connection was established. Later failures are not connect failures.
        reused: The connection had served before.
        written: A byte of the request may have reached the server.
        pulled: A chunk of the content was taken.
        sent: The whole request was sent.
        interims: Number of 1xx responses received.
        interim_bytes: Their total size in bytes.
        continued: A 100 (Continue) was received, in time or late.
        expect_timed_out: Nothing was received within `expect_wait`.
        reader: Receives from the socket; None until the connection is in use.
        pieces: The framed body; see `open_body`.
        response: The final response; set when its head was read.
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
        """Record a 1xx response and skip it. Any may come, known or not (RFC 9110, section 15.2).

        Raises:
            ProtocolError: It is a 101, which was not requested, or the interim responses are too many or too long.
        """
        self.interims += 1
        self.interim_bytes += head.size
        if head.status == 101:
            raise ProtocolError("the server switches protocols (101), which was not asked for")
        if self.interims > MAX_INTERIM:
            raise ProtocolError(f"more than {MAX_INTERIM} interim responses (1xx) and no final one")
        if self.interim_bytes > MAX_INTERIM_BYTES:
            raise ProtocolError(f"the interim responses (1xx) are longer than {MAX_INTERIM_BYTES} bytes in all")
        self.continued = self.continued or head.status == 100

    @property
    def may_resend(self) -> bool:
        """Whether a failed request may be sent again on a fresh connection, because a kept-alive one was found closed.

        A server that closes an idle connection and one that acts and closes before it answers look the same: only an
        idempotent request may be sent again once a byte of it was written (RFC 9110, section 9.2.2; RFC 9112, section
        9.3.1).
        """
        if not self.reused or (self.reader is not None and self.reader.received):
            return False
        if self.pulled or (self.body is not None and not self.body.resendable):
            return False
        return self.idempotent or not self.written

    def open_body(self) -> None:
        """Set `pieces` to the framed content, which never exceeds the announced length.

        Taking a piece raises `ContentFailed` if the content raised an exception, and `SizeMismatch` if the content is
        longer or shorter than its length. The last piece is not yielded before the length is known to be right.

        Raises:
            BodyConsumedError: The body is single-use, and was pulled from before.
        """
        if self.body is not None:
            chunks = self._chunks(self.body.open(), self.body, times_opened(self.body))
            self.pieces = _chunked(chunks) if self.body.length is None else _sized(chunks, self.body.length)

    def _chunks(self, content: Iterator[bytes], body: Body, opening: int) -> Iterator[memoryview]:
        while True:
            try:
                chunk = memoryview(next(content)).cast("B")
            except StopIteration:
                if times_opened(body) != opening:  # opening a body again ends this iterator early
                    raise reopened_error("sent") from None
                return
            except Exception as error:
                self.pulled = True  # a failure of the content is no reason to resend
                raise ContentFailed(error) from error
            if chunk:
                self.pulled = True
                yield chunk


def _sized(chunks: Iterator[memoryview], length: int) -> Iterator[memoryview]:
    # The chunk that completes the length is held back until the content has ended. A request whose content is longer
    # than its Content-Length is thus never complete, and the server does not act on it.
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
    # RFC 9112, section 7.1
    for chunk in chunks:
        for piece in _cut(chunk):
            yield b"%x\r\n%b\r\n" % (len(piece), bytes(piece))
    yield b"0\r\n\r\n"


def _cut(chunk: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(chunk), _PIECE):
        yield chunk[start : start + _PIECE]
