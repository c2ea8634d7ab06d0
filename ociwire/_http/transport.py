"""Protocol of transports, which send requests, and type of layers, which wrap a transport."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import UsageError
from .messages import Request, Response

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BaseTransport", "Layer", "Transport", "check_transport"]


@runtime_checkable
class Transport(Protocol):
    """Protocol of objects that send requests and return responses.

    A base transport sends requests over sockets, or answers them from memory or disk. A layer wraps an inner
    transport and passes requests to it. Implementations must be thread-safe.

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
"""Callable that wraps a transport in another transport: a class with the constructor ``(inner, *, options)``, or a
`functools.partial` of such a class."""


class BaseTransport:
    """Base class of the transports of ociwire.

    It provides a context manager that closes the transport, and a repr that shows the stack.

    Layers store the transport that they wrap as ``_inner``.
    """

    if TYPE_CHECKING:

        def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        inner = getattr(self, "_inner", None)
        # The repr does not contain options, because they may be secret.
        return f"<{type(self).__name__}>" if inner is None else f"<{type(self).__name__} over {inner!r}>"


def check_transport(name: str, transport: Any) -> Transport:
    """Return a transport unchanged after validating that it has the required methods.

    Args:
        name: Name of the argument for the message.
        transport: The argument.

    Raises:
        UsageError: The argument is a class or a function, or lacks ``round_trip`` or ``close``.
    """
    if isinstance(transport, type):
        name_of_class = transport.__name__
        got, hint = f"the class {name_of_class}", f": pass an instance, such as {name_of_class}(...)"
    elif callable(getattr(transport, "round_trip", None)) and callable(getattr(transport, "close", None)):
        if inspect.iscoroutinefunction(transport.round_trip):
            raise UsageError(f"{name} must be a transport whose round_trip(request) is not a coroutine function")
        return transport  # type: ignore[no-any-return]
    else:
        got = type(transport).__name__
        hint = ": use FunctionTransport(function)" if callable(transport) else ""
    # The value is not shown: a password may have been passed as the transport.
    raise UsageError(f"{name} must be a transport with round_trip(request) and close(), got {got}{hint}")
