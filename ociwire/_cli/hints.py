"""Hints for the command line: the step at which an error happened, and what usually helps."""

from __future__ import annotations

from .. import errors
from ..errors import OciwireError

__all__ = ["get_hint"]

# The first class that matches decides: subclasses stand before their bases.
_HINTS: tuple[tuple[type[OciwireError], str], ...] = (
    (
        errors.CredentialsRejected,
        "Step: the token. Log in (docker login), anew if you have before; or log out, if what you want is public.",
    ),
    (
        errors.AuthTimeout,
        "Step: the token. The token server does not answer: is it reachable from here, is a proxy needed?",
    ),
    (errors.AuthError, "Step: the token. The credentials or the token server are at fault, not the registry."),
    (
        errors.ConnectError,
        "Step: the connection. Is the host right? Does it want a proxy (--proxy), a CA (--ca), http (--insecure)?",
    ),
    (errors.TransportTimeout, "Step: the answer. The registry took the request, and did not answer in time."),
    (
        errors.RedirectError,
        "Step: a redirect. The registry sends its clients where they must not go: its operator can mend it.",
    ),
    (errors.TransportError, "Step: the answer. What came back is not what a registry may say: is this one?"),
    (
        errors.Unauthorized,
        "Step: the registry. It does not know who you are, or does not believe you: docker login to it.",
    ),
    (
        errors.Denied,
        "Step: the registry. You may not: ask for access. Some registries say so of what is not there, too.",
    ),
    (
        errors.NotFound,
        "Step: the registry. It has no such thing: is the name right, and the tag? Some hide what is private.",
    ),
    (
        errors.TooManyRequests,
        "Step: the registry. It is asked too often from here: wait, or log in for a higher limit.",
    ),
    (errors.Unsupported, "Step: the registry. It does not do that."),
    (errors.ContentError, "Step: the content. It is not what its digest says: a proxy or a mirror has changed it."),
)


def get_hint(error: OciwireError) -> str:
    """Return the step at which an error happened, and what to do about it."""
    headers = error.headers if isinstance(error, errors.Unauthorized) else None
    if headers and "insufficient_scope" in headers.get("www-authenticate", ""):
        error = errors.Denied()  # RFC 6750, section 3.1: the token is valid
    return next((text for kind, text in _HINTS if isinstance(error, kind)), "Step: the registry. It said no.")
