"""Formatting for messages and logs: untrusted text, status lines and sizes."""

from __future__ import annotations

import re
from http import HTTPStatus

__all__ = ["ELLIPSIS", "SURROGATE", "truncate", "sanitize", "format_size", "status_line"]

# Control characters, line separators, characters that change the direction of text (UAX #9), and surrogates.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
SURROGATE = re.compile(r"[\ud800-\udfff]")
"""A lone surrogate: JSON can express it, but it cannot be encoded."""

ELLIPSIS = "…"
"""Marks where text was truncated. `Redactor` masks the beginning of a secret in front of it."""


def truncate(text: str, limit: int) -> str:
    """Truncate a text to `limit` characters, with `ELLIPSIS` at its end if it was longer.

    Text of a peer that is quoted before its secrets are masked must be truncated by this function: only the mark tells
    `Redactor` that the text before it may be the beginning of a secret.
    """
    return text if len(text) <= limit else text[: limit - len(ELLIPSIS)] + ELLIPSIS


def sanitize(value: object, limit: int) -> str:
    """Sanitize untrusted text for single-line output: no control characters, at most `limit` characters."""
    return _UNSAFE.sub(" ", value[:limit]) if isinstance(value, str) else ""


def status_line(status: int) -> str:
    """Return a status code with its reason phrase, such as ``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def format_size(count: int) -> str:
    """Format a number of bytes, such as ``512 B`` or ``5.0 MiB``."""
    if count < 1024:
        return f"{count} B"
    power = 1 if count < 1024**2 * 0.9995 else 2 if count < 1024**3 * 0.9995 else 3
    return f"{count / 1024**power:.1f} {('', 'KiB', 'MiB', 'GiB')[power]}"
