"""Text for messages and logs: untrusted text on one line, statuses with their names, sizes with their units."""

from __future__ import annotations

import re
from http import HTTPStatus

__all__ = ["CUT", "SURROGATE", "cut", "sanitize", "format_size", "status_line"]

# Control characters, ends of lines, what turns the direction of text (Unicode, UAX #9), and halves of characters.
_HARMFUL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Half of a character: JSON can spell it, and nothing can write it."""

CUT = "…"
"""Stands where text was cut. `Redactor` masks the beginning of a secret in front of it."""


def cut(text: str, longest: int) -> str:
    """Return a text of at most `longest` characters; one that is longer ends in `CUT`.

    Text of a peer that is quoted before its secrets are masked must be cut by this: of a secret that was cut, only the
    beginning is left, and nothing but the mark tells that it was longer.
    """
    return text if len(text) <= longest else text[: longest - len(CUT)] + CUT


def sanitize(value: object, longest: int) -> str:
    """Sanitize untrusted text for single-line output: no control characters, at most `longest` characters."""
    return _HARMFUL.sub(" ", value[:longest]) if isinstance(value, str) else ""


def status_line(status: int) -> str:
    """A status code with its registered name: ``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def format_size(count: int) -> str:
    """A number of bytes for people: ``512 B``, ``5.0 MiB``."""
    if count < 1024:
        return f"{count} B"
    power = 1 if count < 1024**2 * 0.9995 else 2 if count < 1024**3 * 0.9995 else 3
    return f"{count / 1024**power:.1f} {('', 'KiB', 'MiB', 'GiB')[power]}"
