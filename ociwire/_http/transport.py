"""The one idea: whatever can answer a registry request is a `Transport`; a `Layer` answers by asking another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from .messages import Request, Response

__all__ = ["Layer", "Transport"]


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
