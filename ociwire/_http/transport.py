"""The interfaces of the stack: `Transport`, which answers requests, and `Layer`, which wraps a transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from .messages import Request, Response

__all__ = ["Layer", "Transport"]


@runtime_checkable
class Transport(Protocol):
    """Answers requests: from a socket, from memory, or by way of another transport."""

    def round_trip(self, request: Request, /) -> Response:
        """Send one request and return the response, whatever its status. The caller owns the response.

        The request is not changed, and no reference to it is kept. An inner transport is called in the caller's thread.

        Raises:
            TransportError: There is no usable response.
            UsageError: The request cannot be sent as it is, or the transport is closed.
        """
        ...

    def close(self) -> None:
        """Close all connections and the inner transport. Idempotent."""
        ...


Layer = Callable[[Transport], Transport]
"""Wraps a transport in another: a class whose constructor takes ``(inner, *, options)``, or a partial of one."""
