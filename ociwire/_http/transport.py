"""Protocol of transports, which send requests, and type of layers, which wrap a transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from .messages import Request, Response

__all__ = ["Layer", "Transport"]


@runtime_checkable
class Transport(Protocol):
    """Protocol of objects that send requests and return responses.

    A base transport sends requests over sockets, or answers them from memory or disk. A layer passes them to the inner
    transport that it wraps. Implementations must be thread-safe.

    >>> from ociwire import Client, Request, Response
    >>> class EmptyRegistry:
    ...     def round_trip(self, request: Request, /) -> Response:
    ...         return Response(404, request=request)
    ...
    ...     def close(self) -> None:
    ...         pass
    >>> with Client("registry.example", EmptyRegistry()).do(Request("GET", "/v2/")) as response:
    ...     response.status
    404
    """

    def round_trip(self, request: Request, /) -> Response:
        """Send a request and return the response, whatever its status. The caller owns the response.

        Implementations must not modify or store the request, and must call an inner transport in the caller's thread.

        Raises:
            TransportError: No usable response was received.
            UsageError: The request is invalid for this transport, or the transport is closed.
        """
        ...

    def close(self) -> None:
        """Close all connections and the inner transport. Idempotent."""
        ...


Layer = Callable[[Transport], Transport]
"""Callable that wraps a transport in another one: a class with the constructor ``(inner, *, options)``, or a
`functools.partial` of it."""
