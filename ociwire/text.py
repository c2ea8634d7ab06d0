"""What strangers and secrets may look like in a message or a log: in one line, short, and masked."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import suppress

from .headers import SECRET_HEADERS, Headers

__all__ = ["one_line", "size", "without_echo"]

_SHORTEST_SECRET = 4
"""Fewer characters stand in any text by chance."""


def one_line(value: object, longest: int) -> str:
    """What a stranger wrote, as it may stand in a message: in one line, and without escapes for a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", value[:longest]) if isinstance(value, str) else ""


def without_echo(body: bytes, headers: Headers) -> bytes:
    """A body without the secrets of its request: there are proxies that repeat a request on their error pages."""
    values = [value for name in SECRET_HEADERS for value in headers.get_all(name)] if body else []
    for secret in sorted({secret for value in values for secret in _secrets(value)}, key=len, reverse=True):
        escaped = json.dumps(secret)[1:-1]
        for form in (secret, escaped, escaped.replace("/", r"\/")):
            body = body.replace(form.encode(), b"***")
    return body


def _secrets(value: str) -> Iterator[str]:
    """What is secret in the value of a header: what follows the scheme, the password in it, the values of cookies."""
    scheme, _, proof = value.partition(" ")
    found = [proof or value, *(cookie.partition("=")[2] for cookie in value.split("; "))]
    if scheme.lower() == "basic":
        with suppress(ValueError):
            found.append(base64.b64decode(proof).partition(b":")[2].decode())
    return (secret for secret in found if len(secret) >= _SHORTEST_SECRET)


def size(count: int) -> str:
    """A number of bytes for people: ``512 B``, ``5.0 MiB``."""
    amount, units = float(count), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    for larger in units:
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
