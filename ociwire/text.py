"""What strangers and secrets may look like in a message or a log: in one line, short, and masked."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

from .headers import SECRET_HEADERS, Headers
from .origin import without_query

__all__ = ["SURROGATE", "one_line", "phrase", "shown_url", "size", "without_echo"]

# Control characters, ends of lines, what turns the direction of text (Unicode, UAX #9), and halves of characters.
_HARMFUL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Half of a character: JSON can spell it, and nothing can write it."""
_SHORTEST_SECRET = 4
"""Fewer characters stand in any text by chance."""


_LONGEST_URL = 500
# What the queries of registries and token servers may hold; everything else may be a signature.
_SHOWN_IN_QUERY = frozenset(
    {"artifactType", "digest", "digest-algorithm", "from", "last", "mount", "n", "scope", "service", "tag"}
)


def one_line(value: object, longest: int) -> str:
    """What a stranger wrote, as it may stand in a message: in one line, in its order, with nothing for a terminal."""
    return _HARMFUL.sub(" ", value[:longest]) if isinstance(value, str) else ""


def without_echo(body: bytes, headers: Headers, *, is_cut: bool = False) -> bytes:
    """A body without the secrets of its request: there are proxies that repeat a request on their error pages.

    Args:
        body: The body.
        headers: The request's.
        is_cut: Whether it is only the beginning of one: then what ends it may be the beginning of a secret.
    """
    values = [value for name in SECRET_HEADERS for value in headers.get_all(name)] if body else []
    for secret in sorted({secret for value in values for secret in _secrets(value)}, key=len, reverse=True):
        escaped = json.dumps(secret)[1:-1]
        for form in (secret.encode(), escaped.encode(), escaped.replace("/", r"\/").encode()):
            body = body.replace(form, b"***")
            part = next((n for n in range(len(form) - 1, 0, -1) if is_cut and body.endswith(form[:n])), 0)
            body = body[:-part] + b"***" if part else body
    return body


def _secrets(value: str) -> Iterator[str]:
    """What is secret in the value of a header: what follows the scheme, the password in it, the values of cookies."""
    scheme, _, proof = value.partition(" ")
    found = [proof or value, *(cookie.partition("=")[2] for cookie in re.split("; *", value))]
    if scheme.lower() == "basic":
        with suppress(ValueError):
            found.append(base64.b64decode(proof).partition(b":")[2].decode())
    return (secret for secret in found if len(secret) >= _SHORTEST_SECRET)


def shown_url(url: str) -> str:
    """A URL as a log may have it: of its query what the specifications define, and ``***`` for the rest of it."""
    query = url.partition("#")[0].partition("?")[2]
    parts = [part if part.partition("=")[0] in _SHOWN_IN_QUERY else "***" for part in query.split("&") if part]
    return one_line(without_query(url) + (f"?{'&'.join(dict.fromkeys(parts))}" if parts else ""), _LONGEST_URL)


def phrase(status: int) -> str:
    """A status code with its registered name: ``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def size(count: int) -> str:
    """A number of bytes for people: ``512 B``, ``5.0 MiB``."""
    if count < 1024:
        return f"{count} B"
    power = 1 if count < 1024**2 * 0.9995 else 2 if count < 1024**3 * 0.9995 else 3
    return f"{count / 1024**power:.1f} {('', 'KiB', 'MiB', 'GiB')[power]}"
