"""Adds the headers that every request has: User-Agent, and Expect if there is a body.

Headers that a request has already are not changed, so that a stack may have several of these layers: a client adds
one above the transport that it is given.
"""

from __future__ import annotations

from typing import final

from .._http.headers import Headers
from .._http.messages import Request, Response
from .._http.transport import Transport
from .._version import __version__
from .base import with_request

__all__ = ["HeadersTransport"]

_DEFAULT_USER_AGENT = f"ociwire/{__version__}"


@final
class HeadersTransport:
    """Adds ``User-Agent`` and, to a request with content, ``Expect: 100-continue`` (RFC 9110, section 10.1.1).

    Args:
        inner: The transport to wrap.
        user_agent: The User-Agent of requests that have none, or only the default ``ociwire/VERSION`` of a layer above.
            `None` means that default.

    Raises:
        UsageError: The user agent is not a valid header value.
    """

    def __init__(self, inner: Transport, *, user_agent: str | None = None) -> None:
        self._inner = inner
        self._user_agent = _DEFAULT_USER_AGENT if user_agent is None else user_agent
        Headers([("User-Agent", self._user_agent)])  # validates it

    def round_trip(self, request: Request, /) -> Response:
        """Send the request with the missing headers."""
        changes: dict[str, str | None] = {}
        current = request.headers.get("user-agent")
        # An explicit user agent replaces the default of an outer layer: the client above does not know whether the
        # transport that it was given has a user agent of its own.
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
