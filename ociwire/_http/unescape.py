"""Decoding of percent-encoding, JSON escapes and HTML character references, with offsets into the original bytes.

`Redactor` searches for secrets in the decoded bytes, and masks the corresponding original bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["ESCAPE_START", "PARTIAL_ESCAPE", "DecodedText", "decoded_forms"]

ESCAPE_START = re.compile(rb"[%\\&]")
"""Pattern of a character that begins an escape."""
PARTIAL_ESCAPE = rb"%[0-9a-f]?|\\u?[0-9a-f]{0,3}|&[#a-z0-9]{0,8}"
"""Source of a case-insensitive pattern of a truncated escape."""

_MAX_NESTING = 3
"""Maximum number of nested encodings to decode. A percent-encoded URL in HTML in JSON has three."""
_FLAGS = re.IGNORECASE | re.DOTALL
_KINDS = (
    rb"%[0-9a-f]{2}",  # RFC 3986, section 2.1
    # JSON (RFC 8259, section 7; a pair of surrogates is one character), and \xNN in the repr of Python strings.
    rb"\\u(?:d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|[0-9a-f]{4})|\\x[0-9a-f]{2}|\\[^ux]",
    rb"&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});",  # HTML character references
)
_ANY_KIND = re.compile(b"|".join(_KINDS), _FLAGS)
_EACH_KIND = tuple(re.compile(kind, _FLAGS) for kind in _KINDS)
_SHORT_JSON_ESCAPES = {b"\\b": b"\b", b"\\f": b"\f", b"\\n": b"\n", b"\\r": b"\r", b"\\t": b"\t"}


class DecodedText(NamedTuple):
    """Bytes in which some escapes are decoded.

    Attributes:
        data: The decoded bytes.
        offsets: Offset in the original bytes of each decoded byte, followed by the offset of the end.
    """

    data: bytes
    offsets: Sequence[int]


def decoded_forms(data: bytes, *, each_kind: bool) -> Iterator[DecodedText]:
    """Yield the original bytes, and each distinct result of decoding up to three levels of escapes.

    Args:
        data: The original bytes.
        each_kind: Whether each kind of escape is also decoded separately, in every order. This is required to find text
            that itself contains a ``%``, a backslash or an ``&``. It yields up to 40 results instead of four.
    """
    patterns = (_ANY_KIND, *_EACH_KIND) if each_kind else (_ANY_KIND,)
    forms, seen = [DecodedText(data, range(len(data) + 1))], {data}
    for depth in range(_MAX_NESTING + 1):
        next_forms = []
        for form in forms:
            yield form
            if depth == _MAX_NESTING or not ESCAPE_START.search(form.data):
                continue
            for pattern in patterns:
                decoded = _decode(form, pattern)
                if decoded.data not in seen:
                    seen.add(decoded.data)
                    next_forms.append(decoded)
        forms = next_forms


def _decode(form: DecodedText, pattern: re.Pattern[bytes]) -> DecodedText:
    data, offsets = form
    pieces: list[bytes] = []
    decoded_offsets: list[int] = []
    position = 0
    for match in pattern.finditer(data):
        start, end = match.span()
        decoded = _decode_escape(match[0])
        pieces += [data[position:start], decoded]
        decoded_offsets += offsets[position:start]
        decoded_offsets += [offsets[start]] * len(decoded)  # all bytes of a character have the offset of its escape
        position = end
    pieces.append(data[position:])
    decoded_offsets += offsets[position:]
    return DecodedText(b"".join(pieces), decoded_offsets)


def _decode_escape(escape: bytes) -> bytes:
    if escape[:1] == b"&":
        from html import unescape  # deferred: the module loads 2,000 names, and only redaction needs it

        return unescape(escape.decode()).encode("utf-8", "surrogatepass")
    if escape[:2].lower() == b"\\u":
        units = bytes.fromhex(escape.lower().replace(b"\\u", b"").decode())
        return units.decode("utf-16-be", "surrogatepass").encode("utf-8", "surrogatepass")
    if escape[:1] == b"%" or escape[:2].lower() == b"\\x":
        return bytes([int(escape[-2:], 16)])
    return _SHORT_JSON_ESCAPES.get(escape, escape[1:])
