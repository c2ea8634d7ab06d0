"""Records the requests and responses at each layer of a stack, and their times.

A tap above each layer records the requests and responses that pass through it. A tap does not read bodies, but it
copies the response of a token server while the layer above reads this response. A trace contains secrets, which
`ociwire._cli.render` masks.
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
    """A request at a layer, and its outcome.

    Attributes:
        layer: Name of the layer.
        request: The request that the layer received.
        children: Spans of the requests that the layer sent to the layer below, in order.
        response: The response that the layer returned. `None` if it raised an exception.
        error: The exception that the layer raised, if any.
        seconds: Duration in seconds, including the layers below.
        sent: Number of bytes of the request's body that were sent.
        first_byte: Time in seconds from the start until the first byte of the request's body was sent.
        token_response: Bytes read so far from the response of a token server.
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
        """Yield this span and all spans below it."""
        yield self
        for span in self.children:
            yield from span.walk()


@final
class Trace:
    """Spans recorded by the taps of a stack. Not thread-safe."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._active: list[Span] = []

    def begin(self, span: Span) -> None:
        """Record the call of a layer, as a child of the innermost layer that has not returned."""
        (self._active[-1].children if self._active else self._spans).append(span)
        self._active.append(span)

    def end(self) -> None:
        """Record that the innermost layer has returned or raised."""
        self._active.pop()

    def pop_spans(self) -> list[Span]:
        """Remove and return the spans recorded since the last call."""
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
    """Return the default stack with a tap above each layer.

    Args:
        trace: The trace in which the taps record.
        credentials: Source of the credentials.
        retry: See `RetryTransport`. `False` disables retries. Defaults to `None`, the default policy.
        tls: Path of a file with the trusted CA certificates. Defaults to the CA certificates of the system.
        proxy: URL of the proxy. Defaults to the proxy in the environment.

    Raises:
        UsageError: The URL of the proxy or the CA file is invalid.
    """
    return compose_default_stack(
        UrllibTransport(tls=tls, proxy=proxy),
        credentials=credentials,
        retry=retry,
        wrap=lambda name, transport: _Tap(transport, layer=name, trace=trace),
    )


@final
class _Tap:
    """Layer that forwards requests and records them with their outcomes."""

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
    """Response body that copies all bytes that are read from it."""

    def __init__(self, response: Response, copy: bytearray) -> None:
        super().__init__(response)
        self._copy = copy

    def readinto(self, buffer: memoryview, /) -> int:
        count = super().readinto(buffer)
        self._copy += buffer[:count]
        return count
