"""Groups of status codes that several layers decide by."""

from __future__ import annotations

__all__ = ["REDIRECT_STATUSES", "RETRY_STATUSES", "is_temporary_status"]

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
"""RFC 9110, section 15.4. 300 leaves the choice to the user, and 304 is no redirect."""
RETRY_STATUSES = (408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
"""Temporary statuses after which the default policy retries. 520 to 524 are Cloudflare's: its origin server failed,
refused, was unreachable or timed out."""


def is_temporary_status(status: int) -> bool:
    """Whether a later request may succeed: 408, 429 and all of 500 and above.

    That includes 501 (Not Implemented). Callers for which it is a permanent refusal exclude it.
    """
    return status in (408, 429) or status >= 500
