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

__all__ = ["Hop", "Trace", "traced"]


@dataclass(slots=True)
class Hop:
    """A request at one layer, and its outcome.

    Attributes:
        layer: The name of the layer.
        request: The request that it got.
        inner: The requests that it sent to the layer below, in order.
        response: The response that it returned.
        error: The exception that it raised instead.
        seconds: How long it took.
        sent: Number of bytes of the request's body that were read below it.
        first_byte: When the first of them was read, in seconds from the start.
        token_response: What was read of the response of a token server.
    """

    layer: str
    request: Request
    inner: list[Hop] = field(default_factory=list)
    response: Response | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    sent: int = 0
    first_byte: float = 0.0
    token_response: bytearray = field(default_factory=bytearray)

    def walk(self) -> Iterator[Hop]:
        """This hop, and all hops below it."""
        yield self
        for hop in self.inner:
            yield from hop.walk()


@final
class Trace:
    """The hops that the taps of a stack have recorded. Not thread-safe."""

    def __init__(self) -> None:
        self._hops: list[Hop] = []
        self._active: list[Hop] = []

    def begin(self, hop: Hop) -> None:
        """A layer is called: by the innermost layer that has not returned."""
        (self._active[-1].inner if self._active else self._hops).append(hop)
        self._active.append(hop)

    def end(self) -> None:
        """The layer returned or raised."""
        self._active.pop()

    def take(self) -> list[Hop]:
        """Return the hops since the last call, and forget them."""
        hops, self._hops = self._hops, []
        return hops


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
    """Passes requests on, and records them with their responses."""

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
            observed = request if request.body is None else request.replace(body=request.body.map(count))
            hop.response = response = self._inner.round_trip(observed)
        except BaseException as error:
            hop.error = error
            raise
        finally:
            hop.seconds = time.perf_counter() - start
            self._trace.end()
        if request.info.operation != "token":
            return response
        return response.replace(body=_ObservedBody(response, hop.token_response))

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
