"""What passes through a stack, layer by layer: who asked what, how often, what was answered, and in what time.

A tap above each layer writes down what passes, and reads no body itself: of a token server's answer it sees what its
owner reads. What is kept here is not fit to be shown as it is: `ociwire._cli.render` shows it without secrets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, final

import urllib3

from .._http.messages import Request, Response
from ..auth import CredentialSource
from ..transport import Transport, UrllibTransport
from ..transport.default import compose_default_stack

__all__ = ["Hop", "Trace", "traced"]


@dataclass(slots=True)
class Hop:
    """A request as one layer got it, and what came of it.

    Attributes:
        layer: The layer's name.
        request: What it got.
        below: What it asked of the layers below, in order.
        response: What it answered; its body is its owner's.
        error: What it raised instead.
        seconds: How long that took.
        sent: How many bytes of the request's body were pulled below it.
        first_byte: When the first of them was pulled, in seconds from the beginning.
        said: What its owner has read of a token server's answer.
    """

    layer: str
    request: Request
    below: list[Hop] = field(default_factory=list)
    response: Response | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    sent: int = 0
    first_byte: float = 0.0
    said: bytearray = field(default_factory=bytearray)

    def walk(self) -> Iterator[Hop]:
        """This hop, and all below it."""
        yield self
        for hop in self.below:
            yield from hop.walk()


@final
class Trace:
    """What has passed through the taps. For one thread."""

    def __init__(self) -> None:
        self._conversation: list[Hop] = []
        self._under_way: list[Hop] = []

    def begin(self, hop: Hop) -> None:
        """A layer is asked."""
        (self._under_way[-1].below if self._under_way else self._conversation).append(hop)
        self._under_way.append(hop)

    def end(self) -> None:
        """It has answered, or failed."""
        self._under_way.pop()

    def take(self) -> list[Hop]:
        """What has passed since the last call."""
        told, self._conversation = self._conversation, []
        return told


def traced(
    trace: Trace,
    credentials: CredentialSource,
    *,
    retry: urllib3.Retry | Literal[False] | None = None,
    tls: str | None = None,
    proxy: str | None = None,
) -> Transport:
    """The default stack, with each of its layers observed.

    Raises:
        UsageError: The URL of the proxy or the CA bundle is invalid.
    """
    return compose_default_stack(
        UrllibTransport(tls=tls, proxy=proxy),
        credentials=credentials,
        retry=retry,
        wrap=lambda name, transport: _Tap(transport, layer=name, trace=trace),
    )


@final
class _Tap:
    """Asks its inner transport, and writes down what it was asked and what it answered."""

    def __init__(self, inner: Transport, *, layer: str, trace: Trace) -> None:
        self._inner = inner
        self._layer = layer
        self._trace = trace

    def round_trip(self, request: Request, /) -> Response:
        hop = Hop(self._layer, request)
        start = time.perf_counter()

        def count(chunk: bytes) -> bytes:
            hop.first_byte = hop.first_byte or time.perf_counter() - start
            hop.sent += len(chunk)
            return chunk

        self._trace.begin(hop)
        try:
            watched = request if request.body is None else request.replace(body=request.body.map(count))
            hop.response = response = self._inner.round_trip(watched)
        except BaseException as error:
            hop.error = error
            raise
        finally:
            hop.seconds = time.perf_counter() - start
            self._trace.end()
        return response.replace(body=_Overheard(response, hop.said)) if request.info.operation == "token" else response

    def close(self) -> None:
        self._inner.close()


class _Overheard:
    """The body of a response, with a copy of what its owner reads."""

    def __init__(self, response: Response, said: bytearray) -> None:
        self._response = response
        self._said = said

    def readinto(self, buffer: memoryview, /) -> Any:
        count = self._response.readinto(buffer)
        self._said += buffer[:count]
        return count

    def close(self) -> None:
        self._response.close()
