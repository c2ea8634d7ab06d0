"""Layer that follows redirects, without credentials if they are cross-origin.

After a cross-origin redirect, all further redirects are followed without credentials, even one back to the first
origin. A redirect that `ociwire._http.origin_policy` forbids, or whose body cannot be resent, raises `RedirectError`.
"""

from __future__ import annotations

import re
from typing import final

from .._argument_checks import check_integer
from .._http.headers import SENSITIVE_HEADERS
from .._http.messages import Request, Response, redactor_of, with_redactor
from .._http.origin_policy import redirect_target
from .._http.status import REDIRECT_STATUSES
from .._http.transport import BaseTransport, Transport, check_transport
from .._http.urls import Origin
from .._oci.host import redact_url
from .._oci.scope import Scope
from ..errors import RedirectError
from .base import with_request

__all__ = ["RedirectTransport"]

_SEE_OTHER = 303


@final
class RedirectTransport(BaseTransport):
    """Follows redirects (RFC 9110, section 15.4), without credentials if they are cross-origin. Thread-safe.

    301, 302, 307 and 308 preserve method and body; 303 becomes a GET without a body, except for HEAD. Headers such as
    Range and Accept are preserved. A cross-origin request has no credentials, an empty `RequestInfo.required_scope`,
    and is anonymous: a registry must not be able to make the client use its credentials at another
    registry. Redirects of token servers are returned, not followed: `AuthTransport` handles them.

    Args:
        inner: The transport to wrap.
        max_redirects: Maximum number of redirects of one request, 0 or more. Defaults to 10.

    Raises:
        UsageError: `max_redirects` is not an integer of 0 or more.
    """

    def __init__(self, inner: Transport, *, max_redirects: int = 10) -> None:
        self._inner = check_transport("inner", inner)
        self._max_redirects = check_integer("max_redirects", max_redirects)

    def round_trip(self, request: Request, /) -> Response:
        """Send the request, and follow redirects.

        Raises:
            RedirectError: A redirect is refused, there is a redirect loop or more than `max_redirects` redirects, or
                the body was consumed and cannot be sent again.
        """
        visited = {(request.method, request.url)}
        while True:
            response = with_request(self._inner.round_trip(request), request)
            if response.status not in REDIRECT_STATUSES:
                return response
            try:
                target = _build_redirect(request, response)
                if target is not None and (target.method, target.url) in visited:
                    raise RedirectError(f"redirect loop: {redact_url(target.url)} was requested before")
                if target is not None and len(visited) > self._max_redirects:
                    raise RedirectError(
                        f"too many redirects: expected at most {self._max_redirects}, the next one goes to"
                        f" {redact_url(target.url)}"
                    )
            except RedirectError as error:
                error.request = response.request
                response.drain()
                raise
            if target is None:
                return response
            response.drain()
            visited.add((target.method, target.url))
            # Add the signature in this URL to the redactor, because later responses of the exchange may repeat it.
            redactor_of(target)
            request = target

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()


def _build_redirect(request: Request, response: Response) -> Request | None:
    """Return the redirected request; `None` if the redirect has no Location, or is a response to a token request."""
    locations = response.headers.get_all("location")
    if not locations or request.info.operation == "token":
        return None
    if len(set(locations)) > 1:
        raise RedirectError(
            f"invalid redirect of {redact_url(request.url)}: expected one Location header, got {len(locations)}"
        )
    request = with_redactor(request)
    # Not `request.url`: an inner layer may have followed a redirect. `with_request` has set `response.request`.
    url, leaves_origin = redirect_target(response.request.url, locations[0])  # type: ignore[union-attr]
    target = request.replace(url=url)
    if response.status == _SEE_OTHER:
        method = "HEAD" if request.method == "HEAD" else "GET"
        content_headers = [name for name in request.headers if re.fullmatch("expect|content-.*", name, re.IGNORECASE)]
        target = target.replace(method=method, body=None).with_headers(dict.fromkeys(content_headers))
    elif request.body is not None and not request.body.resendable:
        raise RedirectError(
            f"cannot follow the redirect of {request.method} {redact_url(request.url)}: its single-use body was"
            " consumed (pass bytes or a seekable file)"
        )
    # The target is compared with two origins: that of `response.request` (`leaves_origin`) and that of `request`. They
    # differ if an inner layer has followed a redirect. Credentials must not be disclosed; besides, S3 refuses a
    # signed URL with an Authorization header ("Only one auth mechanism allowed").
    if leaves_origin or Origin.of(url) != Origin.of(request.url):
        target = target.with_headers(dict.fromkeys(SENSITIVE_HEADERS))
        target = target.replace(info=request.info.replace(required_scope=Scope.EMPTY, anonymous=True))
    return target
