"""Parser for the head of a response (RFC 9112): status line, header fields, and framing of the body.

It is stricter than `http.client`: a head that is incomplete, too long, or has contradictory framing is refused.
"""

from __future__ import annotations

import re
from http.client import RemoteDisconnected
from typing import NamedTuple, Protocol

from ..._http.headers import HTTP_TOKEN, Headers, content_length, is_bodiless
from ...errors import ProtocolError

__all__ = [
    "NO_RESPONSE",
    "SPEAKS_TLS",
    "STATUS_LENGTH",
    "Head",
    "LineReader",
    "cut_off_error",
    "framed_length",
    "parse_status",
    "read_head",
]

MAX_HEAD = 64 * 1024
"""Maximum size of a head in bytes."""

# The messages in this module do not quote an invalid head, because it may contain a part of a secret of the request. If
# a line end splits the secret, it cannot be recognized and masked. `map_exceptions` adds a hint to the first two texts.
NO_RESPONSE = "the server closed the connection without a response"
SPEAKS_TLS = "the server speaks TLS, but the request was sent over plain http"
_CUT_OFF = "the server closed the connection before the end of the response head"
_NOT_HTTP = "the response is not HTTP/1.1: expected a status line, such as HTTP/1.1 200 OK"

_TLS_ALERT = b"\x15\x03"
"""The first bytes of a TLS alert record (RFC 8446, section 5.1). A TLS server responds to plain http with an alert."""
_FIELD = re.compile(rb"(" + HTTP_TOKEN.pattern.encode() + rb")[ \t]*:([^\0]*)")
# A status line is matched in two parts. The first has a fixed length, so that it can be parsed before the line ends.
STATUS_LENGTH = len(b"HTTP/1.1 200")
_VERSION_AND_STATUS = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})")
_REASON = re.compile(rb"(?: ([^\r\n]*))?\r?\n")


class LineReader(Protocol):
    """Protocol for the stream from which a head is read."""

    def readline(self, size: int, /) -> bytes:
        """Read the next line with its line end, or its first `size` bytes. Returns ``b""`` at the end of the stream."""
        ...


class Head(NamedTuple):
    """Head of a response.

    Attributes:
        minor: Minor version of HTTP/1: 0 or 1.
        status: Status code.
        reason: Reason phrase. Clients should ignore it (RFC 9112, section 4).
        headers: Header fields.
        size: Size in bytes, including line ends.
    """

    minor: int
    status: int
    reason: str
    headers: Headers
    size: int = 0


def read_head(stream: LineReader) -> Head:
    """Read the head of an interim or final response.

    Raises:
        RemoteDisconnected: The stream ended before the first byte.
        ProtocolError: The head is invalid, incomplete, or longer than `MAX_HEAD`.
    """
    line = _read_line(stream, MAX_HEAD, first=True)
    remaining = MAX_HEAD - len(line)
    minor, status = parse_status(line)
    match = _REASON.fullmatch(line, STATUS_LENGTH)
    if match is None:
        raise ProtocolError(_NOT_HTTP)
    reason = (match[1] or b"").decode("latin-1")
    fields: list[tuple[str, str]] = []
    while (line := _read_line(stream, remaining)) not in (b"\r\n", b"\n"):
        remaining -= len(line)
        match = _FIELD.fullmatch(line)
        if match is not None:
            fields.append((match[1].decode("latin-1"), _decode_value(match[2])))
        elif b"\0" in line:
            raise ProtocolError("invalid header field in the response: expected no NUL")
        elif line[:1] not in b" \t":
            raise ProtocolError("invalid header field in the response: expected a name, a colon and a value")
        elif not fields:
            raise ProtocolError("invalid header field in the response: the first one begins with white space")
        else:  # obsolete line folding (RFC 9112, section 5.2): append the line to the value of the last field
            name, value = fields[-1]
            fields[-1] = (name, f"{value} {_decode_value(line)}".strip(" "))
    size = MAX_HEAD - remaining + len(line)
    # A higher minor version is processed as HTTP/1.1 (RFC 9110, section 2.5).
    return Head(min(1, minor), status, reason, Headers.received(fields), size)


def parse_status(line: bytes | bytearray) -> tuple[int, int]:
    """Return the minor version and the status code of a status line.

    Args:
        line: At least the first `STATUS_LENGTH` bytes of the line.

    Raises:
        ProtocolError: The line is not a status line of HTTP/1.
    """
    match = _VERSION_AND_STATUS.match(line)
    if match is None:
        raise ProtocolError(SPEAKS_TLS if line.startswith(_TLS_ALERT) else _NOT_HTTP)
    return int(match[1]), int(match[2])


def cut_off_error(received: bytes | bytearray) -> Exception:
    """Return the exception for a connection that was closed after only a part of a status line was received."""
    if not received:
        return RemoteDisconnected(NO_RESPONSE)
    return ProtocolError(SPEAKS_TLS if received.startswith(_TLS_ALERT) else _CUT_OFF)


def framed_length(head: Head, method: str | None) -> tuple[bool, int | None]:
    """Return whether the body is chunked, and otherwise its length in bytes (RFC 9112, section 6.3).

    A length of `None` means that the body ends when the connection is closed.

    Raises:
        ProtocolError: Content-Length is invalid or has different values, or Transfer-Encoding is not ``chunked``.
    """
    if is_bodiless(method, head.status):
        return False, 0
    coding = head.headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise ProtocolError("unsupported Transfer-Encoding in the response: expected chunked or none")
        return True, None
    length = content_length(head.headers)
    if length is None and "content-length" in head.headers:
        raise ProtocolError("invalid Content-Length in the response: expected one number of at most 18 digits")
    return False, length


def _read_line(stream: LineReader, limit: int, *, first: bool = False) -> bytes:
    line = stream.readline(limit)
    if line.endswith(b"\n"):
        return line
    if len(line) >= limit:
        raise ProtocolError(f"the response head is longer than the limit of {MAX_HEAD} bytes")
    raise cut_off_error(line) if first else ProtocolError(_CUT_OFF)


def _decode_value(value: bytes) -> str:
    # A bare CR is replaced by a space (RFC 9112, section 2.2).
    return value.decode("latin-1").replace("\r", " ").strip(" \t\n")
