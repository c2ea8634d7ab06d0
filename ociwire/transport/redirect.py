"""Follows redirects, one origin at a time: what leaves the origin that was asked leaves without secrets.

Whoever has left an origin stays a stranger: a redirect that leads back is given no secrets either. What cannot be
followed as `origin_policy` demands, or whose body cannot be sent again, is a `RedirectError`.
"""

from __future__ import annotations

from typing import final

from .._arguments import check_integer
from .._http.headers import SECRET_HEADERS
from .._http.messages import Request, Response, redactor_of, with_redactor
from .._http.origin_policy import redirect_target
from .._http.transport import Transport
from .._http.urls import Origin
from .._oci.host import redact_url
from .._oci.scope import Scope
from ..errors import RedirectError

__all__ = ["RedirectTransport"]

# RFC 9110, section 15.4. A 300 leaves the choice to a person, a 304 is no redirect.
_KEEP_METHOD = (301, 302, 307, 308)
_SEE_OTHER = 303


@final
class RedirectTransport:
    """Follows redirects (RFC 9110, section 15.4), and takes no secret along to another origin.

    301, 302, 307 and 308 keep method and body; 303 becomes a GET without a body (a HEAD stays one). Range and Accept
    stay. At another origin the request has no credentials, its `required_scope` is empty and it is anonymous: whoever
    redirects to another registry cannot have one act there in one's own name. A redirect of a token server is handed
    back: `AuthTransport` refuses it.

    Args:
        inner: The transport to ask.
        max_redirects: How many are followed for one request, 0 or more.

    Raises:
        UsageError: `max_redirects` is no such number.
    """

    def __init__(self, inner: Transport, *, max_redirects: int = 10) -> None:
        self._inner = inner
        self._max_redirects = check_integer("max_redirects", max_redirects)

    def round_trip(self, request: Request, /) -> Response:
        """Ask the inner transport, and whoever it is sent to.

        Raises:
            RedirectError: A redirect leads to where it must not, in a circle, or on and on; or its body is spent.
        """
        seen = {(request.method, request.url)}
        while True:
            response = self._inner.round_trip(request)
            following = None
            if response.status in _KEEP_METHOD or response.status == _SEE_OTHER:
                try:
                    following = _next(request, response)
                    if following is not None:
                        self._check(following, seen)
                except RedirectError as error:
                    error.request = response.request or request
                    response.drain()
                    raise
            if following is None:
                return response if response.request is not None else response.replace(request=request)
            response.drain()
            seen.add((following.method, following.url))
            # Later responses may repeat this URL: its signature must be masked in them, too.
            redactor_of(following)
            request = following

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def _check(self, following: Request, seen: set[tuple[str, str]]) -> None:
        if (following.method, following.url) in seen:
            raise RedirectError(f"redirects lead in a circle, back to {redact_url(following.url)}")
        if len(seen) > self._max_redirects:
            raise RedirectError(f"more than {self._max_redirects} redirects, the last to {redact_url(following.url)}")


def _next(request: Request, response: Response) -> Request | None:
    """The request that a redirect asks for; None where it does not say where to, or is not to be followed here."""
    location = response.headers.get_all("location")
    if not location or request.info.operation == "token":
        return None
    if len(set(location)) > 1:
        raise RedirectError(f"a redirect of {redact_url(request.url)} has {len(location)} Locations")
    request = with_redactor(request)
    asked = request.url if response.request is None else response.request.url
    url, leaves = redirect_target(asked, location[0])
    following = request.replace(url=url)
    if response.status == _SEE_OTHER:
        method = "HEAD" if request.method == "HEAD" else "GET"
        dropped = [name for name in request.headers if name == "expect" or name.startswith("content-")]
        following = following.replace(method=method, body=None).with_headers(dict.fromkeys(dropped))
    elif request.body is not None and not request.body.resendable:
        raise RedirectError(
            f"{request.method} {redact_url(request.url)} is redirected, but its one-shot body has been sent in part"
            " (give bytes or a seekable file)"
        )
    if leaves or Origin.of(url) != Origin.of(request.url):  # a layer below may have asked another than was meant
        stripped = following.with_headers(dict.fromkeys(SECRET_HEADERS))
        following = stripped.replace(info=request.info.replace(required_scope=Scope.EMPTY, anonymous=True))
    return following
