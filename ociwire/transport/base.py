"""The one idea: whatever can answer a registry request is a `Transport`; a `Layer` answers by asking another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from .._http.messages import Request, Response
from .._http.transport import Layer, Transport
from ..errors import UsageError

__all__ = ["FunctionTransport", "stack"]


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
