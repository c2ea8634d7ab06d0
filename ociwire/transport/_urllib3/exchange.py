"""One request on its way through a connection: what the connection must know, and what it found out.

It travels through urllib3 in the place of the body, which urllib3 hands to the connection untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..._http.body import Body
from ...errors import BodyConsumedError, ProtocolError, SizeMismatch
from .response_head import Head
from .socket_reader import SocketReader
from .timeouts import TimeLimit

if TYPE_CHECKING:
    from .response import WireResponse

__all__ = ["ContentFailed", "Exchange", "ReusedConnection"]

MAX_INTERIM = 32
"""The most 1xx responses that are passed over before a final one."""
MAX_INTERIM_BYTES = 64 * 1024
"""Maximum size in bytes of all interim responses to one request together."""
_PIECE = 1024 * 1024
"""The most that is sent in one go, in bytes: a timeout is for one piece, not for the whole of a large body."""


class ContentFailed(Exception):
    """Carries an exception of the content's own past those who would take it for the network's."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class ReusedConnection(Exception):
    """A fresh connection was asked for, and this one is not."""


class Exchange:
    """What goes out, how, and what became of it.

    Args:
        target: The request target, as it is to be sent.
        fields: The header fields to send, framing included.
        body: The content, or None.
        time_limit: Bounds each wait on the socket.
        expect_wait: How many seconds to wait for a 100 (Continue) before the body; None is not at all.
        fresh: Whether only a connection will do that has not served before.
        idempotent: Whether the request may be sent again after some of it was written.
    """

    response: WireResponse  # the answer, once there is one

    __slots__ = (
        "body",
        "connected",
        "continued",
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
        "waited_in_vain",
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
        self.connected = False  # there was a connection: what fails now is not the connecting
        self.reused = False  # it had served before
        self.written = False  # a byte of the request may have reached the server
        self.pulled = False  # a chunk of the content was taken
        self.sent = body is None  # the request went out whole
        self.interims = 0  # so many 1xx responses came
        self.interim_bytes = 0  # their total size
        self.continued = False  # a 100 came, in time or late
        self.waited_in_vain = False  # no answer came within expect_wait
        self.reader: SocketReader | None = None
        self.pieces: Iterator[bytes | memoryview] = iter(())

    def skip(self, head: Head) -> None:
        """Take note of a 1xx response and pass over it (RFC 9110, section 15.2: any may come, known or not).

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
        """Make `pieces`: the content as it goes over the wire, framed, and never more of it than was said.

        Taking a piece raises `ContentFailed` where the content raised an exception, and `SizeMismatch` where it is
        longer or shorter than its length; the last piece has not been given out then.

        Raises:
            BodyConsumedError: The body is one-shot, and was pulled from before.
        """
        if self.body is not None:
            chunks = self._chunks(self.body.open(), self.body, self.body.openings)
            self.pieces = _chunked(chunks) if self.body.length is None else _sized(chunks, self.body.length)

    def _chunks(self, content: Iterator[bytes], body: Body, opening: int) -> Iterator[memoryview]:
        while True:
            try:
                chunk = memoryview(next(content)).cast("B")
            except StopIteration:
                if body.openings != opening:
                    raise BodyConsumedError("the body was opened again while it was being sent") from None
                return
            except Exception as error:
                self.pulled = True  # it is not the connection that failed
                raise ContentFailed(error) from error
            if chunk:
                self.pulled = True
                yield chunk


def _sized(chunks: Iterator[memoryview], length: int) -> Iterator[memoryview]:
    # What completes the length is held back until the content has ended: a request whose length lied is never whole.
    given, held = 0, memoryview(b"")
    for chunk in chunks:
        given += len(chunk)
        if given > length:
            raise SizeMismatch(
                f"the body is longer than its length: {length} bytes were announced, and at least {given} came",
                expected=length,
                actual=given,
            )
        if given == length:
            held = chunk
        else:
            yield from _cut(chunk)
    if given < length:
        raise SizeMismatch(
            f"the body is shorter than its length: {length} bytes were announced, and only {given} came",
            expected=length,
            actual=given,
        )
    yield from _cut(held)


def _chunked(chunks: Iterator[memoryview]) -> Iterator[bytes]:
    for chunk in chunks:
        for piece in _cut(chunk):
            yield b"%x\r\n%b\r\n" % (len(piece), bytes(piece))
    yield b"0\r\n\r\n"


def _cut(chunk: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(chunk), _PIECE):
        yield chunk[start : start + _PIECE]
