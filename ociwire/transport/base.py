"""Compose transports, and make one from a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from .._http.messages import Request, Response
from .._http.transport import Layer, Transport
from ..errors import UsageError

__all__ = ["FunctionTransport", "stack", "with_request"]


def stack(base: Transport, *layers: Layer) -> Transport:
    """Wrap a transport in layers, innermost first: in the order in which they see a response."""
    transport = base
    for layer in layers:
        transport = layer(transport)
    return transport


def with_request(response: Response, request: Request) -> Response:
    """Return the response with `request` as its request, unless it names one already."""
    return response if response.request is not None else response.replace(request=request)


@final
class FunctionTransport:
    """A transport that calls a function: the shortest way to write a fake or a layer.

    Args:
        function: Called with each request, from any thread. A response that names no request is given this one.
        close: Called once, by `close`. A layer passes the `close` of its inner transport.
    """

    def __init__(self, function: Callable[[Request], Response], *, close: Callable[[], None] | None = None) -> None:
        self._function = function
        self._close = close
        self._closed = False

    def round_trip(self, request: Request, /) -> Response:
        """Call the function.

        Raises:
            UsageError: The transport is closed.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        return with_request(self._function(request), request)

    def close(self) -> None:
        """Refuse further requests and call `close`. Idempotent."""
        self._closed = True
        close, self._close = self._close, None
        if close is not None:
            close()
