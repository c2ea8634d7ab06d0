"""The one idea: whatever can answer a registry request is a `Transport`; a `Layer` answers by asking another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final, runtime_checkable

from ..errors import UsageError
from ..message import Request, Response

__all__ = ["FunctionTransport", "Layer", "Transport", "stack"]


@runtime_checkable
class Transport(Protocol):
    """Answers requests: from a socket, from another transport, or of itself."""

    def round_trip(self, request: Request, /) -> Response:
        """Send one request and return its answer, whatever its status; the caller owns the response.

        The request is not changed, and nothing is kept of it. What a transport wraps is asked in the caller's thread.

        Raises:
            TransportError: There is no usable answer.
            UsageError: The request could not be sent as it is, or the transport is closed.
        """
        ...

    def close(self) -> None:
        """Let go of all connections, and close what is wrapped. May be called again."""
        ...


Layer = Callable[[Transport], Transport]
"""A transport made around another: a class whose constructor takes ``(inner, *, options)``, or a partial of one."""


def stack(base: Transport, *layers: Layer) -> Transport:
    """Wrap `base` in layers, innermost first: in the order in which an answer comes back."""
    transport = base
    for layer in layers:
        transport = layer(transport)
    return transport


@final
class FunctionTransport:
    """A transport of any function from a request to a response: the shortest fake, and the shortest layer.

    Args:
        function: Called with each request, from any thread. A response without a request of its own is given this one.
        close: Called by `close`, once: a layer gives its inner transport's.
    """

    def __init__(self, function: Callable[[Request], Response], *, close: Callable[[], None] | None = None) -> None:
        self._function = function
        self._close = close
        self._closed = False

    def round_trip(self, request: Request, /) -> Response:
        """Call the function."""
        if self._closed:
            raise UsageError("the transport is closed")
        response = self._function(request)
        return response if response.request is not None else response.replace(request=request)

    def close(self) -> None:
        """Refuse all further requests, and close what was given to be closed."""
        self._closed = True
        close, self._close = self._close, None
        if close is not None:
            close()
