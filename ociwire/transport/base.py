"""Composition of transports, and a transport that calls a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from .._http.messages import Request, Response
from .._http.transport import Layer, Transport
from ..errors import UsageError

__all__ = ["FunctionTransport", "stack", "with_request"]


def stack(base: Transport, *layers: Layer) -> Transport:
    """Wrap a base transport in layers, innermost first.

    >>> from ociwire import FunctionTransport, LogTransport, Response, RetryTransport, stack
    >>> base = FunctionTransport(lambda request: Response(200))
    >>> transport = stack(base, LogTransport, RetryTransport)  # RetryTransport(LogTransport(base))

    Args:
        base: The innermost transport, which answers requests.
        layers: Callables that wrap a transport. The last one receives each request first.

    Returns:
        The outermost transport. Closing it closes all of them.
    """
    transport = base
    for layer in layers:
        transport = layer(transport)
    return transport


def with_request(response: Response, request: Request) -> Response:
    """Return the response with `request` as its request, unless it has a request already."""
    return response if response.request is not None else response.replace(request=request)


@final
class FunctionTransport:
    """Transport that calls a function, for fakes in tests and for simple layers.

    >>> from ociwire import Client, FunctionTransport, Response
    >>> transport = FunctionTransport(lambda request: Response(200, body=b'{"tags": ["v1"]}'))
    >>> list(Client("registry.example", transport).tags("app"))
    ['v1']

    Args:
        function: Called with each request, possibly by several threads. The request is added to a response that has no
            request.
        close: Called by the first call of `close`. A layer must pass the `close` of its inner transport. `None` means
            that there is nothing to close.
    """

    def __init__(self, function: Callable[[Request], Response], *, close: Callable[[], None] | None = None) -> None:
        self._function = function
        self._close = close
        self._closed = False

    def round_trip(self, request: Request, /) -> Response:
        """Call the function, and return its response.

        Raises:
            UsageError: The transport is closed.
            Exception: Any exception that the function raises, unchanged.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        return with_request(self._function(request), request)

    def close(self) -> None:
        """Close the transport: refuse further requests, and call the function `close`. Idempotent."""
        self._closed = True
        close, self._close = self._close, None
        if close is not None:
            close()
