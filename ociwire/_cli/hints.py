"""Hints of the command line: the step that failed, and what to do about it."""

from __future__ import annotations

from .. import errors
from ..errors import OciwireError

__all__ = ["get_hint"]

# The first matching class wins, so subclasses must precede their base classes.
_HINTS: tuple[tuple[type[OciwireError], str], ...] = (
    (
        errors.CredentialsRejected,
        "Step: the token. Log in (docker login) again, or log out (docker logout) for public images.",
    ),
    (
        errors.AuthTimeout,
        "Step: the token. The token server did not respond in time. Check the network and the proxy.",
    ),
    (errors.AuthError, "Step: the token. The credentials or the token server failed, not the registry."),
    (
        errors.ConnectError,
        "Step: the connection. Check the host, the proxy (--proxy), the CA (--ca) and plain http (--insecure).",
    ),
    (errors.TransportTimeout, "Step: the response. The registry did not respond in time."),
    (
        errors.RedirectError,
        "Step: a redirect. The redirect is not allowed by the origin policy. Report it to the registry's operator.",
    ),
    (errors.TransportError, "Step: the response. It is not a valid response of a registry. Check the host."),
    (
        errors.Unauthorized,
        "Step: the registry. Authentication failed. Log in (docker login).",
    ),
    (
        errors.Denied,
        "Step: the registry. Access is denied. Some registries also respond so for missing content.",
    ),
    (
        errors.NotFound,
        "Step: the registry. Not found. Check the name and the tag. Some registries hide private content.",
    ),
    (
        errors.TooManyRequests,
        "Step: the registry. The rate limit is exceeded. Wait, or log in for a higher limit.",
    ),
    (errors.Unsupported, "Step: the registry. It does not support the operation."),
    (
        errors.ContentError,
        "Step: the content. The digest does not match. A proxy or a mirror may have changed the content.",
    ),
)


def get_hint(error: OciwireError) -> str:
    """Return a hint for an error: the step that failed, and what to do about it."""
    headers = error.headers if isinstance(error, errors.Unauthorized) else None
    if headers and "insufficient_scope" in headers.get("www-authenticate", ""):
        error = errors.Denied()  # RFC 6750, section 3.1: the token is valid, but its scope is insufficient
    return next(
        (text for kind, text in _HINTS if isinstance(error, kind)), "Step: the registry. It refused the request."
    )
