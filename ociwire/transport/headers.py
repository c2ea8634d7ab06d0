"""Layer that adds the headers User-Agent and Expect.

Headers that are already set are not changed, so that a stack may have several of these layers: `Client` adds one on top
of the transport that is passed to it.
"""

from __future__ import annotations

from typing import final

from .._http.headers import Headers
from .._http.messages import Request, Response
from .._http.transport import BaseTransport, Transport, check_transport
from .._version import __version__
from .base import with_request

__all__ = ["HeadersTransport"]

_DEFAULT_USER_AGENT = f"ociwire/{__version__}"


@final
class HeadersTransport(BaseTransport):
    """Adds ``User-Agent`` and, to requests with a body, ``Expect: 100-continue`` (RFC 9110, section 10.1.1).

    Thread-safe.

    Args:
        inner: The transport to wrap.
        user_agent: The User-Agent of requests that have no User-Agent, or only the default set by an outer layer.
            Defaults to `None`, which means ``ociwire/VERSION``.

    Raises:
        UsageError: The user agent is not a valid header value.
    """

    def __init__(self, inner: Transport, *, user_agent: str | None = None) -> None:
        self._inner = check_transport("inner", inner)
        self._user_agent = _DEFAULT_USER_AGENT if user_agent is None else user_agent
        Headers([("User-Agent", self._user_agent)])  # raises here, not at the first request, if it is invalid

    def round_trip(self, request: Request, /) -> Response:
        """Add the missing headers, and send the request."""
        changes: dict[str, str | None] = {}
        current = request.headers.get("user-agent")
        # An explicit user agent replaces the default that an outer layer has set, because `Client` adds the default
        # regardless of the layers in its transport.
        if current is None or (current == _DEFAULT_USER_AGENT and current != self._user_agent):
            changes["User-Agent"] = self._user_agent
        if request.body is not None and request.body.length != 0 and "expect" not in request.headers:
            changes["Expect"] = "100-continue"
        if changes:
            request = request.with_headers(changes)
        return with_request(self._inner.round_trip(request), request)

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()
