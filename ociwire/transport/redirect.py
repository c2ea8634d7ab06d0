"""Follows redirects, and takes no secret along to another origin.

Once a request has left its origin it stays anonymous: a redirect back to that origin is followed without credentials,
too. A redirect that `origin_policy` forbids, or whose body cannot be resent, raises `RedirectError`.
"""

from __future__ import annotations

from typing import final

from .._argument_checks import check_integer
from .._http.headers import SENSITIVE_HEADERS
from .._http.messages import Request, Response, redactor_of, with_redactor
from .._http.origin_policy import redirect_target
from .._http.status import REDIRECT_STATUSES
from .._http.transport import Transport
from .._http.urls import Origin
from .._oci.host import redact_url
from .._oci.scope import Scope
from ..errors import RedirectError
from .base import with_request

__all__ = ["RedirectTransport"]

_SEE_OTHER = 303


@final
class RedirectTransport:
    """Follows redirects (RFC 9110, section 15.4) without credentials at other origins.

    301, 302, 307 and 308 keep method and body; 303 becomes a GET without a body (a HEAD stays one). Range and Accept
    are kept. At another origin the request has no credentials, an empty `required_scope` and is anonymous, so that a
    registry cannot use a redirect to act in the client's name at another one. Redirects of token servers are returned:
    `AuthTransport` refuses them.

    Args:
        inner: The transport to wrap.
        max_redirects: Maximum number of redirects of one request, 0 or more. Defaults to 10.

    Raises:
        UsageError: `max_redirects` is not such a number.
    """

    def __init__(self, inner: Transport, *, max_redirects: int = 10) -> None:
        self._inner = inner
        self._max_redirects = check_integer("max_redirects", max_redirects)

    def round_trip(self, request: Request, /) -> Response:
        """Send the request and follow its redirects.

        Raises:
            RedirectError: A redirect is not allowed, leads into a loop, exceeds the maximum, or needs a consumed body.
        """
        visited = {(request.method, request.url)}
        while True:
            response = with_request(self._inner.round_trip(request), request)
            if response.status not in REDIRECT_STATUSES:
                return response
            try:
                target = _build_redirect(request, response)
                if target is not None and (target.method, target.url) in visited:
                    raise RedirectError(f"redirects lead in a circle, back to {redact_url(target.url)}")
                if target is not None and len(visited) > self._max_redirects:
                    raise RedirectError(
                        f"more than {self._max_redirects} redirects, the last to {redact_url(target.url)}"
                    )
            except RedirectError as error:
                error.request = response.request
                response.drain()
                raise
            if target is None:
                return response
            response.drain()
            visited.add((target.method, target.url))
            # Register the secrets of this URL (a signature): later responses of the exchange may repeat it.
            redactor_of(target)
            request = target

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()


def _build_redirect(request: Request, response: Response) -> Request | None:
    """Return the request that a redirect asks for; None if it has no Location, or must not be followed here."""
    locations = response.headers.get_all("location")
    if not locations or request.info.operation == "token":
        return None
    if len(set(locations)) > 1:
        raise RedirectError(f"a redirect of {redact_url(request.url)} has {len(locations)} Locations")
    request = with_redactor(request)
    # `response.request` is set, and may be another request: an inner layer may have followed a redirect.
    url, leaves_origin = redirect_target(response.request.url, locations[0])  # type: ignore[union-attr]
    target = request.replace(url=url)
    if response.status == _SEE_OTHER:
        method = "HEAD" if request.method == "HEAD" else "GET"
        content_headers = [name for name in request.headers if name == "expect" or name.startswith("content-")]
        target = target.replace(method=method, body=None).with_headers(dict.fromkeys(content_headers))
    elif request.body is not None and not request.body.resendable:
        raise RedirectError(
            f"{request.method} {redact_url(request.url)} is redirected, but its single-use body has been sent in part"
            " (give bytes or a seekable file)"
        )
    # An inner layer may have sent the request to another origin than its URL names, so that both are compared.
    if leaves_origin or Origin.of(url) != Origin.of(request.url):
        target = target.with_headers(dict.fromkeys(SENSITIVE_HEADERS))
        target = target.replace(info=request.info.replace(required_scope=Scope.EMPTY, anonymous=True))
    return target
