"""Parses the head of a response (RFC 9112): the status line, the header fields, and the framing of the body.

Stricter than the standard library: a head that is cut off, too long, or frames its body in two ways is refused.
"""

from __future__ import annotations

import re
from http.client import RemoteDisconnected
from typing import NamedTuple, Protocol

from ..._http.headers import TOKEN, Headers
from ...errors import ProtocolError

__all__ = ["Head", "LineReader", "framed_length", "read_head"]

MAX_HEAD = 64 * 1024
"""Maximum size of a head in bytes."""

# Messages quote nothing of an invalid head: it may repeat a part of a secret of the request, cut at a line end, which
# could not be recognized and masked.
NOT_HTTP = "the server does not speak HTTP/1.1: expected a status line, such as HTTP/1.1 200 OK"

_TLS_ALERT = b"\x15\x03"
"""The first bytes of an alert record (RFC 8446, section 5.1): a TLS server answers so to plain http."""
_FIELD = re.compile(rb"(" + TOKEN.pattern.encode() + rb")[ \t]*:([^\0]*)")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([^\r\n]*))?\r?\n")


class LineReader(Protocol):
    """The stream that a head is read from."""

    def readline(self, size: int, /) -> bytes:
        """Read the next line with its end, or its first `size` bytes; empty at the end."""
        ...


class Head(NamedTuple):
    """The head of a response.

    Attributes:
        minor: The minor version of HTTP/1: 0 or 1.
        status: The status code.
        reason: The reason phrase. Clients should ignore it (RFC 9112, section 4).
        headers: The header fields.
        size: Size in bytes, line ends included.
    """

    minor: int
    status: int
    reason: str
    headers: Headers
    size: int = 0


def read_head(stream: LineReader) -> Head:
    """Read one head, interim or final.

    Raises:
        RemoteDisconnected: The stream ended before its first byte.
        ProtocolError: The head is invalid, incomplete, or longer than `MAX_HEAD`.
    """
    line = _read_line(stream, MAX_HEAD, first=True)
    remaining = MAX_HEAD - len(line)
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise ProtocolError(NOT_HTTP)
    minor, status, reason = match.groups(b"")
    fields: list[tuple[str, str]] = []
    while (line := _read_line(stream, remaining)) not in (b"\r\n", b"\n"):
        remaining -= len(line)
        match = _FIELD.fullmatch(line)
        if match is not None:
            fields.append((match[1].decode("latin-1"), _decode_value(match[2])))
        elif b"\0" in line:
            raise ProtocolError("a NUL in the head of the response")
        elif line[:1] not in b" \t":
            raise ProtocolError("invalid header field in the response: expected a name, a colon and a value")
        elif not fields:
            raise ProtocolError("the head of the response begins with a folded line")
        else:  # obsolete line folding (RFC 9112, section 5.2)
            name, value = fields[-1]
            fields[-1] = (name, f"{value} {_decode_value(line)}".strip(" "))
    size = MAX_HEAD - remaining + len(line)
    return Head(min(1, int(minor)), int(status), reason.decode("latin-1"), Headers.received(fields), size)


def framed_length(head: Head, method: str | None) -> tuple[bool, int | None]:
    """Return whether the body is chunked, and its length otherwise (RFC 9112, section 6.3).

    A length of None means that the body ends when the connection is closed.

    Raises:
        ProtocolError: The lengths differ or are invalid, or the transfer coding is not ``chunked``.
    """
    if method == "HEAD" or head.status in (204, 304):
        return False, 0
    coding = head.headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise ProtocolError("unsupported Transfer-Encoding in the response: expected chunked or none")
        return True, None
    stated = head.headers.get("content-length")
    if stated is None:
        return False, None
    # Equal repeated lengths count as one (RFC 9110, section 8.6). Different ones are a sign of response splitting.
    lengths = {length.strip(" \t") for length in stated.split(",")}
    if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", length := lengths.pop()):
        raise ProtocolError("invalid Content-Length in the response: expected one number of at most 18 digits")
    return False, int(length)


def _read_line(stream: LineReader, limit: int, *, first: bool = False) -> bytes:
    line = stream.readline(limit)
    if line.endswith(b"\n"):
        return line
    if not line and first:
        raise RemoteDisconnected("the server closed the connection without a response")
    if first and line.startswith(_TLS_ALERT):
        raise ProtocolError("the server speaks TLS, and was asked by plain http: leave insecure=True out")
    if len(line) >= limit:
        raise ProtocolError(f"the head of the response is longer than {MAX_HEAD} bytes")
    raise ProtocolError("the head of the response was cut off")


def _decode_value(value: bytes) -> str:
    # A bare CR is read as a space (RFC 9112, section 2.2).
    return value.decode("latin-1").replace("\r", " ").strip(" \t\n")
