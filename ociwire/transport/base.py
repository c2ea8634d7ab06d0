"""Composition of transports, and a transport that calls a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, final

from .._http.messages import Request, Response
from .._http.transport import BaseTransport, Layer, Transport, check_transport
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

    Raises:
        UsageError: The base is not a transport, a layer is not callable, or a layer did not return a transport.
    """
    transport = check_transport("base", base)
    for layer in layers:
        if not callable(layer):
            raise UsageError(
                f"a layer must be a callable that takes a transport and returns one, got {type(layer).__name__}"
                f"{_layer_hint(layer)}"
            )
    for layer in layers:
        transport = check_transport(f"the result of the layer {_name_of(layer)}", layer(transport))
    return transport


def _layer_hint(layer: object) -> str:
    name = type(layer).__name__
    if isinstance(layer, Iterable):
        return ": pass the layers as separate arguments, such as stack(base, *layers)"
    if hasattr(layer, "round_trip"):
        return f": pass the class, such as stack(base, {name}), or functools.partial({name}, option=...)"
    return ""


def _name_of(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    name: str = getattr(function, "__qualname__", type(function).__name__)
    return name


def with_request(response: Response, request: Request) -> Response:
    """Return the response with `request` as its request, unless it has a request already.

    Raises:
        UsageError: `response` is not a `Response`: a transport has returned another object.
    """
    if not isinstance(response, Response):
        raise UsageError(f"round_trip must return a Response, got {type(response).__name__}")
    return response if response.request is not None else response.replace(request=request)


@final
class FunctionTransport(BaseTransport):
    """Transport that calls a function, for fakes in tests and for simple layers.

    >>> from ociwire import Client, FunctionTransport, Response
    >>> transport = FunctionTransport(lambda request: Response(200, body=b'{"tags": ["v1"]}'))
    >>> list(Client("registry.example", transport).tags("app"))
    ['v1']

    Args:
        function: Called with each request, possibly by several threads. If the response that it returns has no request,
            the request is added.
        close: Function that is called once, when the transport is first closed. A layer must pass the `close` of its
            inner transport. `None` means that there is nothing to close.

    Raises:
        UsageError: `function` is not callable.
    """

    def __init__(self, function: Callable[[Request], Response], *, close: Callable[[], None] | None = None) -> None:
        if not callable(function):
            raise UsageError(f"function must take a request and return a response, got {type(function).__name__}")
        self._function = function
        self._close = close
        self._closed = False

    def round_trip(self, request: Request, /) -> Response:
        """Call the function, and return its response.

        Raises:
            UsageError: The transport is closed, or the function did not return a `Response`.
            Exception: Any exception that the function raises, unchanged.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        response = self._function(request)
        if not isinstance(response, Response):
            raise UsageError(f"{_name_of(self._function)} must return a Response, got {type(response).__name__}")
        return with_request(response, request)

    def close(self) -> None:
        """Close the transport: refuse further requests, and call the function `close`. Idempotent."""
        self._closed = True
        close, self._close = self._close, None
        if close is not None:
            close()

    def __repr__(self) -> str:
        return f"<FunctionTransport of {_name_of(self._function)}>"
