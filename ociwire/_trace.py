"""The conversation of a stack, layer by layer: who asked what, what it added, what was answered, and in what time.

A `Tap` above each layer writes down what passes. It shows no secrets: of headers the values of a few names that hold
none, of URLs no query.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import final

from .auth import CredentialSource
from .message import Request, Response
from .origin import without_query
from .transport import (
    AuthTransport,
    HeadersTransport,
    Layer,
    RedirectTransport,
    RetryTransport,
    Transport,
    UrllibTransport,
    stack,
)

__all__ = ["Trace", "traced"]

_SHOWN = frozenset({"user-agent", "expect", "content-type", "accept", "range"})


@dataclass(slots=True)
class _Hop:
    """A request as one layer got it, and what came of it."""

    layer: str
    request: Request
    below: list[_Hop] = field(default_factory=list)
    outcome: str = ""
    seconds: float = 0.0
    first_chunk: float = 0.0
    sent: int = 0


class Trace:
    """What has passed through the taps. For one thread."""

    def __init__(self) -> None:
        self._conversation: list[_Hop] = []
        self._under_way: list[_Hop] = []

    def begin(self, hop: _Hop) -> None:
        """A layer is asked."""
        (self._under_way[-1].below if self._under_way else self._conversation).append(hop)
        self._under_way.append(hop)

    def end(self, outcome: str, seconds: float) -> None:
        """It has answered, or failed."""
        hop = self._under_way.pop()
        hop.outcome, hop.seconds = outcome, seconds

    def take(self) -> list[str]:
        """What has passed since the last call, in lines to print."""
        told, self._conversation = self._conversation, []
        lines = []
        for hop in told:
            query = "?..." if "?" in hop.request.url else ""
            lines.append(f"  {hop.request.method} {without_query(hop.request.url)}{query}")
            lines.append(_line("Client", hop, _fields(hop.request, beyond=None)))
            lines += _lines(hop)
        return lines


def traced(trace: Trace, credentials: CredentialSource) -> Transport:
    """The default layers, each of them watched."""
    transport: Transport = _Tap(UrllibTransport(), layer="UrllibTransport", trace=trace)
    tokens = stack(transport, HeadersTransport, RetryTransport)
    layers: dict[str, Layer] = {
        "AuthTransport": partial(AuthTransport, credentials=credentials, token_transport=tokens),
        "HeadersTransport": HeadersTransport,
        "RedirectTransport": RedirectTransport,
        "RetryTransport": RetryTransport,
    }
    for name, layer in layers.items():
        transport = _Tap(layer(transport), layer=name, trace=trace)
    return transport


@final
class _Tap:
    """Asks its inner transport, and writes down what it was asked and what it answered."""

    def __init__(self, inner: Transport, *, layer: str, trace: Trace) -> None:
        self._inner = inner
        self._layer = layer
        self._trace = trace

    def round_trip(self, request: Request, /) -> Response:
        hop = _Hop(self._layer, request)
        start = time.perf_counter()
        outcome = ""

        def count(chunk: bytes) -> bytes:
            hop.first_chunk = hop.first_chunk or time.perf_counter() - start
            hop.sent += len(chunk)
            return chunk

        self._trace.begin(hop)
        try:
            response = self._inner.round_trip(
                request if request.body is None else request.replace(body=request.body.map(count))
            )
            outcome = _phrase(response.status)
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            self._trace.end(outcome, time.perf_counter() - start)
        return response

    def close(self) -> None:
        self._inner.close()


def _lines(hop: _Hop) -> list[str]:
    # Of several requests below one, the last is what came of the others.
    did = _fields(hop.below[-1].request, beyond=hop.request) if hop.below else _sent(hop)
    lines = [_line(hop.layer, hop, did)]
    for below in hop.below:
        if below.request.url != hop.request.url:
            lines.append(f"    {'':<17} {below.request.method} {without_query(below.request.url)}")
        lines += _lines(below)
    return lines


def _line(layer: str, hop: _Hop, did: str) -> str:
    return f"    {layer:<17} {hop.outcome:<24} {hop.seconds * 1e3:8.1f} ms   {did}".rstrip()


def _fields(request: Request, *, beyond: Request | None) -> str:
    """The headers that a layer has added to those it got, or all of a client's own."""
    known = () if beyond is None else beyond.headers
    added = [(name, value) for name, value in request.headers.items() if name not in known]
    shown = [f"{name}: {value:.40}" if name.lower() in _SHOWN else name for name, value in added]
    return f"+ {', '.join(shown)}" if shown else "+ nothing"


def _sent(hop: _Hop) -> str:
    return f"sent {hop.sent} bytes, the first after {hop.first_chunk * 1e3:.1f} ms" if hop.sent else ""


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
