"""Fills in the two headers that every request of a client has: User-Agent, and Expect where there is a body.

Does nothing else, and nothing where they are there already: a second one in a stack changes nothing.
"""

from __future__ import annotations

from typing import final

from .._http.headers import Headers
from .._http.messages import Request, Response
from .._http.transport import Transport
from .._version import __version__

__all__ = ["HeadersTransport"]


@final
class HeadersTransport:
    """Adds ``User-Agent`` and, on a request with content, ``Expect: 100-continue`` (RFC 9110, section 10.1.1).

    Args:
        inner: The transport to ask.
        user_agent: The value of User-Agent; None is ``ociwire/VERSION``.

    Raises:
        UsageError: The user agent could not be sent as a header.
    """

    def __init__(self, inner: Transport, *, user_agent: str | None = None) -> None:
        self._inner = inner
        self._user_agent = f"ociwire/{__version__}" if user_agent is None else user_agent
        Headers([("User-Agent", self._user_agent)])

    def round_trip(self, request: Request, /) -> Response:
        """Ask the inner transport, with the headers filled in."""
        missing: dict[str, str | None] = {}
        if "user-agent" not in request.headers:
            missing["User-Agent"] = self._user_agent
        if request.body is not None and request.body.length != 0 and "expect" not in request.headers:
            missing["Expect"] = "100-continue"
        sent = request.with_headers(missing) if missing else request
        response = self._inner.round_trip(sent)
        return response if response.request is not None else response.replace(request=sent)

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()
