"""Formatting of untrusted text, status codes and sizes for messages and logs."""

from __future__ import annotations

import os
import re
from http import HTTPStatus

__all__ = ["ELLIPSIS", "SURROGATE", "format_path", "format_size", "sanitize", "status_line", "truncate"]

# Control characters and line separators could forge log lines; characters that change the direction of text (UAX #9)
# could display a URL in another order; surrogates cannot be encoded.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Pattern of a lone surrogate. JSON escapes can represent it, but UTF-8 cannot encode it."""

ELLIPSIS = "…"
"""Marks the end of truncated text. If it follows the beginning of a secret, `Redactor` masks that beginning."""
_MAX_PATH = 4096
"""Maximum length of a path in a message: the limit of Linux."""


def truncate(text: str, limit: int) -> str:
    """Truncate text to `limit` characters, with `ELLIPSIS` at its end if it was longer.

    Untrusted text that is truncated before its secrets are masked must be truncated with this function: `Redactor`
    recognizes the beginning of a secret only in front of `ELLIPSIS`.
    """
    return text if len(text) <= limit else text[: limit - len(ELLIPSIS)] + ELLIPSIS


def sanitize(value: object, limit: int) -> str:
    """Sanitize untrusted text for single-line output: replace control characters by spaces, and truncate it.

    Args:
        value: The text. A value of another type, for example from JSON, becomes an empty string.
        limit: Maximum length in characters.
    """
    return _UNSAFE.sub(" ", value[:limit]) if isinstance(value, str) else ""


def format_path(path: str | os.PathLike[str]) -> str:
    """Format a path for a message. Control characters and surrogates in file names are replaced by spaces."""
    return sanitize(os.fspath(path), _MAX_PATH)


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
    # The factor 0.9995 selects the next larger unit if rounding would give 1024.0 of the smaller unit.
    power = 1 if count < 1024**2 * 0.9995 else 2 if count < 1024**3 * 0.9995 else 3
    return f"{count / 1024**power:.1f} {('', 'KiB', 'MiB', 'GiB')[power]}"
