"""One request on its way through a connection: what the connection must know, and what it found out.

It travels through urllib3 in the place of the body, which urllib3 hands to the connection untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..body import Body
from ..errors import SizeMismatch
from .clock import Clock
from .inbox import Inbox

if TYPE_CHECKING:
    from .response import WireResponse

__all__ = ["ContentFailed", "Exchange", "ReusedConnection"]

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
        fields: The header fields to send, framing included.
        body: The content, or None.
        clock: Bounds each wait on the socket.
        expect_wait: How many seconds to wait for a 100 (Continue) before the body; None is not at all.
        fresh: Whether only a connection will do that has not served before.
    """

    response: WireResponse  # the answer, once there is one

    __slots__ = (
        "body",
        "clock",
        "connected",
        "continued",
        "expect_wait",
        "fields",
        "fresh",
        "inbox",
        "pieces",
        "pulled",
        "response",
        "reused",
        "sent",
        "waited_in_vain",
    )

    def __init__(
        self,
        fields: list[tuple[str, str]],
        body: Body | None,
        clock: Clock,
        *,
        expect_wait: float | None,
        fresh: bool,
    ) -> None:
        self.fields = fields
        self.body = body
        self.clock = clock
        self.expect_wait = expect_wait
        self.fresh = fresh
        self.connected = False  # there was a connection: what fails now is not the connecting
        self.reused = False  # it had served before
        self.pulled = False  # a chunk of the content was taken
        self.sent = body is None  # the request went out whole
        self.continued = False  # a 100 came, in time or late
        self.waited_in_vain = False  # no answer came within expect_wait
        self.inbox: Inbox | None = None
        self.pieces: Iterator[bytes | memoryview] = iter(())

    @property
    def had_no_effect(self) -> bool:
        """Whether it failed as one does that finds its kept-alive connection closed: nothing came, nothing was lost."""
        return self.reused and not self.pulled and not (self.inbox is not None and self.inbox.received)

    def open_body(self) -> None:
        """Make `pieces`: the content as it goes over the wire, framed, and never more of it than was said.

        Taking a piece raises `ContentFailed` where the content raised an exception, and `SizeMismatch` where it is
        longer or shorter than its length; the last piece has not been given out then.

        Raises:
            BodyConsumedError: The body is one-shot, and was pulled from before.
        """
        if self.body is not None:
            chunks = self._chunks(self.body.open())
            self.pieces = _chunked(chunks) if self.body.length is None else _sized(chunks, self.body.length)

    def _chunks(self, content: Iterator[bytes]) -> Iterator[memoryview]:
        while True:
            try:
                chunk = memoryview(next(content)).cast("B")
            except StopIteration:
                return
            except Exception as error:
                raise ContentFailed(error) from error
            self.pulled = True
            if chunk:
                yield chunk


def _sized(chunks: Iterator[memoryview], length: int) -> Iterator[memoryview]:
    # The last chunk is held back until the content has ended: a request whose length lied is never a whole one.
    given, held = 0, memoryview(b"")
    for chunk in chunks:
        if given + len(held) + len(chunk) > length:
            counted = given + len(held) + len(chunk)
            raise SizeMismatch(
                f"the body is longer than its length: {length} bytes were announced, and at least {counted} came",
                expected=length,
                actual=counted,
            )
        yield from _cut(held)
        given, held = given + len(held), chunk
    if given + len(held) < length:
        counted = given + len(held)
        raise SizeMismatch(
            f"the body is shorter than its length: {length} bytes were announced, and only {counted} came",
            expected=length,
            actual=counted,
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
