"""Header fields (RFC 9110, section 5): ordered, with case-insensitive names that may be repeated.

The constructor refuses fields that cannot be sent: names that are not tokens, and values that would end their line.
Fields from a server are passed to `Headers.received`, and checked by the code that parses them.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar, final, overload

from .._argument_checks import safe_repr
from .._oci.descriptor import parse_media_type
from ..errors import UsageError
from ..media_types import OCTET_STREAM

__all__ = [
    "ContentRange",
    "Headers",
    "HeadersLike",
    "SENSITIVE_HEADERS",
    "HTTP_TOKEN",
    "URL_HEADERS",
    "content_length",
    "content_range",
    "content_type",
    "is_bodiless",
    "retry_after",
]

T = TypeVar("T")

HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]
"""Arguments of `Headers`: another `Headers`, a mapping, or pairs."""

SENSITIVE_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
"""Names, in lower case, of the headers whose values are masked in reprs, messages and logs."""

URL_HEADERS = frozenset({"location", "content-location"})
"""Names, in lower case, of the headers whose value is a URL, absolute or relative. Its query may be a signature."""

HTTP_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Syntax of header names and methods (RFC 9110, section 5.6.2)."""

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")
_NOT_LATIN_1 = re.compile(r"[^\x00-\xff]")
_LINE_END = re.compile(r"[\r\n\0]")
_WORD = re.compile(r"[^\s\"'<>\\]+")


@final
class Headers(Mapping[str, str]):
    """An immutable mapping of header fields with case-insensitive names, which keeps repeated fields.

    ``h[name]`` joins the values of a name by a comma (RFC 9110, section 5.3); `get_all` keeps them apart; iteration is
    over the distinct names, in lower case. Two `Headers` are equal if they have the same fields in the same order.

    Args:
        fields: Another `Headers`, a mapping of names to values, or pairs of them.

    Raises:
        UsageError: A name is not a token, or a value is not latin-1 or has CR, LF or NUL in it.
    """

    __slots__ = ("_fields", "_index")
    _fields: tuple[tuple[str, str], ...]
    _index: dict[str, list[str]] | None

    def __init__(self, fields: HeadersLike = ()) -> None:
        if isinstance(fields, Headers):
            self._fields = fields._fields
        else:
            pairs = fields.items() if isinstance(fields, Mapping) else fields
            if not isinstance(pairs, Iterable):
                raise UsageError("headers must be a mapping, or pairs of a name and a value")
            self._fields = tuple([_check_field(pair) for pair in pairs])
        self._index = None

    @classmethod
    def received(cls, fields: Iterable[tuple[str, str]]) -> Headers:
        """Make headers of fields that were parsed, and checked, elsewhere."""
        headers = object.__new__(cls)
        headers._fields, headers._index = tuple(fields), None
        return headers

    def _lookup(self) -> dict[str, list[str]]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self._fields:
                index.setdefault(name.lower(), []).append(value)
            self._index = index
        return index

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._lookup()[name.lower()])

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | T) -> str | T: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """The value of a name, or the default. Most look-ups miss: `Mapping.get` would raise and catch for each."""
        values = self._lookup().get(name.lower())
        return default if values is None else ", ".join(values)

    def get_all(self, name: str) -> tuple[str, ...]:
        """The values of a name, one for each of its fields; empty without any."""
        return tuple(self._lookup().get(name.lower(), ()))

    def items(self) -> ItemsView[str, str]:
        """Every field as a pair, in order, repetitions included."""
        return _Fields(self)

    def updated(self, changes: Mapping[str, str | None]) -> Headers:
        """Return headers with other values for the named fields, at the end; None removes a field."""
        replaced = {name.lower() for name in changes}
        unchanged = [field for field in self._fields if field[0].lower() not in replaced]
        added = [_check_field((name, value)) for name, value in changes.items() if value is not None]
        return Headers.received((*unchanged, *added))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lookup()

    def __iter__(self) -> Iterator[str]:
        return iter(self._lookup())

    def __len__(self) -> int:
        return len(self._lookup())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._normalized() == other._normalized()

    def __hash__(self) -> int:
        return hash(self._normalized())

    def _normalized(self) -> tuple[tuple[str, str], ...]:
        return tuple((name.lower(), value) for name, value in self._fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return Headers.received, (self._fields,)

    def __repr__(self) -> str:
        return f"Headers({[(name, _redact_value(name.lower(), value)) for name, value in self._fields]!r})"


def content_length(headers: Headers) -> int | None:
    """The value of Content-Length (RFC 9110, section 8.6); None if it is absent or not a number.

    Equal repeated lengths count as one (RFC 9112, section 6.3). Different ones are a sign of response splitting.
    """
    # RFC 9112, section 6.3: Transfer-Encoding overrides Content-Length.
    value = "" if "transfer-encoding" in headers else headers.get("content-length", "")
    if "," in value:
        lengths = {length.strip(" \t") for length in value.split(",")}
        value = lengths.pop() if len(lengths) == 1 else ""
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


def is_bodiless(method: str | None, status: int) -> bool:
    """Whether a response has no body by its request's method or its status (RFC 9112, section 6.3)."""
    return method == "HEAD" or status in (204, 304)


def content_type(headers: Headers) -> str:
    """Get the Content-Type without its parameters; ``application/octet-stream`` if it is absent or not valid."""
    return parse_media_type(headers.get("content-type")) or OCTET_STREAM


class ContentRange(NamedTuple):
    """A Content-Range header (RFC 9110, section 14.4). A number that it does not state is `None`.

    Attributes:
        first: The position of the first byte.
        last: The position of the last byte.
        size: The size of the whole content in bytes.
    """

    first: int | None
    last: int | None
    size: int | None


def content_range(headers: Headers) -> ContentRange:
    """Parse Content-Range. Each number is `None` if the header is absent or not valid."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return ContentRange(None, None, None)
    return ContentRange(*(None if number in (None, "*") else int(number) for number in match.groups()))


def retry_after(headers: Headers, now: float) -> float | None:
    """The wait in seconds that Retry-After asks for, from `now` (seconds since the epoch); None if it is not valid.

    RFC 9110, section 10.2.3: a number of seconds, or a date.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # A date without a zone is in UTC (section 5.6.7), but is parsed to a naive datetime.
        aware = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
        return max(0.0, aware.timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class _Fields(ItemsView[str, str]):
    """`Headers.items`: a view that has an item for each field, as opposed to each name."""

    _mapping: Headers

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._mapping._fields)

    def __len__(self) -> int:
        return len(self._mapping._fields)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        name, value = item
        return isinstance(name, str) and value in self._mapping.get_all(name)


def _redact_value(name: str, value: str) -> str:
    """A header's value for a repr: without secrets, and without queries of URLs, which may be signatures."""
    if name in SENSITIVE_HEADERS:
        return "***"
    if name in URL_HEADERS:
        value, question_mark, _ = value.partition("?")
        return f"{value}?***" if question_mark else value
    return _WORD.sub(_mask_query, value) if "?" in value else value


def _mask_query(word: re.Match[str]) -> str:
    before, _, query = word[0].partition("?")
    return f"{before}?***" if query and "//" in before else word[0]


def _check_field(pair: tuple[str, str]) -> tuple[str, str]:
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise UsageError("headers must be a mapping, or pairs of a name and a value") from None
    if not isinstance(name, str) or not HTTP_TOKEN.fullmatch(name):
        raise UsageError(f"not a header name: {safe_repr(name)} (RFC 9110 takes letters, digits and !#$%&'*+-.^_`|~)")
    if not isinstance(value, str):
        raise UsageError(f"the value of header {name} must be a str, not {type(value).__name__}")
    # The value itself stays out of the message: it may be a secret.
    if _LINE_END.search(value):
        raise UsageError(f"the value of header {name} holds a CR, LF or NUL, which would end the field")
    if _NOT_LATIN_1.search(value):
        raise UsageError(f"the value of header {name} is not latin-1 (RFC 8187 tells how to encode it)")
    return name, value.strip(" \t")
