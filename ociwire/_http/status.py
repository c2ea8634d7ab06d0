"""Groups of status codes that several layers handle in the same way."""

from __future__ import annotations

__all__ = ["REDIRECT_STATUSES", "RETRY_STATUSES", "is_temporary_status"]

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
"""Statuses of redirects to follow (RFC 9110, section 15.4). 300 requires a choice, and 304 is not a redirect."""
RETRY_STATUSES = (408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
"""Statuses after which the default policy retries. Cloudflare sends 520 to 524 if the origin server failed, refused the
connection, was unreachable or timed out."""


def is_temporary_status(status: int) -> bool:
    """Return whether a status is temporary, so that a later request may succeed: 408, 429, and 500 or above.

    This includes 501 (Not Implemented). Callers that treat it as a permanent refusal must exclude it.
    """
    return status in (408, 429) or status >= 500
