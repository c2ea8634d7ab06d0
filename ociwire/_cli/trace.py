"""Records the requests and responses at each layer of a stack, with their times.

A tap above each layer records what passes. It does not read bodies itself: of a token server's response it records what
its owner reads. A trace holds secrets: `ociwire._cli.render` shows it without them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, final

import urllib3

from .._http.messages import Request, Response
from .._http.response_body import ResponseReader
from ..auth import CredentialSource
from ..transport import Transport, UrllibTransport
from ..transport.default import compose_default_stack

__all__ = ["Span", "Trace", "traced_stack"]


@dataclass(slots=True)
class Span:
    """A request at one layer, and its outcome.

    Attributes:
        layer: The name of the layer.
        request: The request that it got.
        children: The requests that it sent to the layer below, in order.
        response: The response that it returned.
        error: The exception that it raised instead.
        seconds: How long it took.
        sent: Number of bytes of the request's body that were read below it.
        first_byte: When the first of them was read, in seconds from the start.
        token_response: What was read of the response of a token server.
    """

    layer: str
    request: Request
    children: list[Span] = field(default_factory=list)
    response: Response | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    sent: int = 0
    first_byte: float = 0.0
    token_response: bytearray = field(default_factory=bytearray)

    def walk(self) -> Iterator[Span]:
        """This span, and all spans below it."""
        yield self
        for span in self.children:
            yield from span.walk()


@final
class Trace:
    """The spans that the taps of a stack have recorded. Not thread-safe."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._active: list[Span] = []

    def begin(self, span: Span) -> None:
        """A layer is called: by the innermost layer that has not returned."""
        (self._active[-1].children if self._active else self._spans).append(span)
        self._active.append(span)

    def end(self) -> None:
        """The layer returned or raised."""
        self._active.pop()

    def pop_spans(self) -> list[Span]:
        """Return the spans since the last call, and forget them."""
        spans, self._spans = self._spans, []
        return spans


def traced_stack(
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
    """Passes requests on, and records them with their responses."""

    def __init__(self, inner: Transport, *, layer: str, trace: Trace) -> None:
        self._inner = inner
        self._layer = layer
        self._trace = trace

    def round_trip(self, request: Request, /) -> Response:
        span = Span(self._layer, request)
        start = time.perf_counter()

        def count(chunk: bytes) -> bytes:
            span.first_byte = span.first_byte or time.perf_counter() - start
            span.sent += len(chunk)
            return chunk

        self._trace.begin(span)
        try:
            observed = request if request.body is None else request.replace(body=request.body.map(count))
            span.response = response = self._inner.round_trip(observed)
        except BaseException as error:
            span.error = error
            raise
        finally:
            span.seconds = time.perf_counter() - start
            self._trace.end()
        if request.info.operation != "token":
            return response
        return response.replace(body=_ObservedBody(response, span.token_response))

    def close(self) -> None:
        self._inner.close()


class _ObservedBody(ResponseReader):
    """The body of a response; what is read is copied."""

    def __init__(self, response: Response, copy: bytearray) -> None:
        super().__init__(response)
        self._copy = copy

    def readinto(self, buffer: memoryview, /) -> int:
        count = super().readinto(buffer)
        self._copy += buffer[:count]
        return count
