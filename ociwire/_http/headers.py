"""Header fields (RFC 9110, section 5), and parsers for the header fields that ociwire uses.

The constructor of `Headers` validates fields that will be sent. Received fields are passed to `Headers.received`, which
does not validate them, because each parser in this module checks the value that it reads.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, final, overload

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
"""Type of the argument of `Headers`: another `Headers`, a mapping of names to values, or pairs of name and value."""

SENSITIVE_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
"""Lower case names of the headers whose values are masked in reprs, messages and logs."""

URL_HEADERS = frozenset({"location", "content-location"})
"""Lower case names of the headers whose value is an absolute or relative URL. Its query may contain a signature."""

HTTP_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Pattern of header names and methods (RFC 9110, section 5.6.2)."""

# At most 18 digits, so that all numbers fit into a signed 64-bit integer.
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")
_NOT_LATIN_1 = re.compile(r"[^\x00-\xff]")
_LINE_END = re.compile(r"[\r\n\0]")  # these characters allow header injection (RFC 9110, section 5.5)
_MUTATING_METHODS = frozenset({"add", "append", "pop", "setdefault", "update"})
_WORD = re.compile(r"[^\s\"'<>\\]+")


@final
class Headers(Mapping[str, str]):
    """Immutable, ordered mapping of header fields with case-insensitive names, which may be repeated.

    ``headers[name]`` joins repeated fields with a comma (RFC 9110, section 5.3); `get_all` returns them separately.
    Iteration yields the distinct names in the spelling of their first field, so that ``dict(headers)`` keeps the
    spelling. Two `Headers` are equal if they have the same fields in the same order; the case of names is ignored.

    >>> headers = Headers([("Link", "</a>"), ("link", "</b>")])
    >>> headers["LINK"]
    '</a>, </b>'
    >>> headers.get_all("link")
    ('</a>', '</b>')

    Args:
        fields: Another `Headers`, a mapping of names to values, or pairs of name and value. Defaults to no fields.

    Raises:
        UsageError: A name is not a token, or a value contains CR, LF, NUL or a character outside latin-1.
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
                raise UsageError(f"headers must be a mapping, or pairs of name and value, got {type(fields).__name__}")
            self._fields = tuple([_check_field(pair) for pair in pairs])
        self._index = None

    @classmethod
    def received(cls, fields: Iterable[tuple[str, str]]) -> Headers:
        """Return headers from received or already validated fields, without validating them."""
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
        """Return the value of a header, or the default if it is absent. Repeated fields are joined with a comma."""
        # Faster than `Mapping.get`, which raises and catches a KeyError for each absent header (the common case).
        values = self._lookup().get(name.lower())
        return default if values is None else ", ".join(values)

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return the values of all fields with this name. Empty if the header is absent."""
        return tuple(self._lookup().get(name.lower(), ()))

    def items(self) -> ItemsView[str, str]:
        """Return a view of all fields as pairs of name and value, in order, including repeated ones."""
        return _Fields(self)

    def updated(self, changes: Mapping[str, str | None]) -> Headers:
        """Return headers in which the given fields are replaced and moved to the end; `None` removes a field.

        Raises:
            UsageError: A field is invalid; see `Headers`.
        """
        if not isinstance(changes, Mapping) or not all(isinstance(name, str) for name in changes):
            raise UsageError(
                "changes of headers must be a mapping of names to values, such as {'Accept': '*/*'}, got"
                f" {type(changes).__name__}"
            )
        replaced = {name.lower() for name in changes}
        unchanged = [field for field in self._fields if field[0].lower() not in replaced]
        added = [_check_field((name, value)) for name, value in changes.items() if value is not None]
        return Headers.received((*unchanged, *added))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lookup()

    if not TYPE_CHECKING:  # with these, type checkers would accept assignments and unknown attributes

        def __setitem__(self, name: str, value: str) -> None:
            raise TypeError(f"headers are immutable: use request.with_headers({{{safe_repr(name)}: ...}})")

        def __delitem__(self, name: str) -> None:
            raise TypeError(f"headers are immutable: use request.with_headers({{{safe_repr(name)}: None}})")

        def __getattr__(self, name: str) -> object:
            hint = "; use request.with_headers({name: value})" if name in _MUTATING_METHODS else ""
            raise AttributeError(f"'Headers' object has no attribute {name!r}{hint}")

    def __iter__(self) -> Iterator[str]:
        names: dict[str, str] = {}
        for name, _ in self._fields:
            names.setdefault(name.lower(), name)
        return iter(names.values())

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
    """Parse Content-Length (RFC 9110, section 8.6); return `None` if it is absent or invalid.

    Repeated equal lengths are treated as a single length (RFC 9112, section 6.3). Different lengths are invalid,
    because they may result from response splitting.
    """
    # RFC 9112, section 6.3: Transfer-Encoding overrides Content-Length.
    value = "" if "transfer-encoding" in headers else headers.get("content-length", "")
    if "," in value:
        lengths = {length.strip(" \t") for length in value.split(",")}
        value = lengths.pop() if len(lengths) == 1 else ""
    # `int` alone would accept signs, white space, underscores and non-ASCII digits.
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


def is_bodiless(method: str | None, status: int) -> bool:
    """Return whether a response has no body because of the request method or the status (RFC 9112, section 6.3)."""
    return method == "HEAD" or status in (204, 304)


def content_type(headers: Headers) -> str:
    """Return the Content-Type without parameters; ``application/octet-stream`` if it is absent or invalid."""
    return parse_media_type(headers.get("content-type")) or OCTET_STREAM


class ContentRange(NamedTuple):
    """Content-Range header (RFC 9110, section 14.4). Numbers that the header omits are `None`.

    Attributes:
        first: Position of the first byte, counted from 0.
        last: Position of the last byte.
        size: Size of the complete content in bytes.
    """

    first: int | None
    last: int | None
    size: int | None


def content_range(headers: Headers) -> ContentRange:
    """Parse Content-Range; all numbers are `None` if the header is absent or invalid."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return ContentRange(None, None, None)
    return ContentRange(*(None if number in (None, "*") else int(number) for number in match.groups()))


def retry_after(headers: Headers, now: float) -> float | None:
    """Return the delay in seconds from Retry-After; `None` if the header is absent or invalid.

    Args:
        headers: The headers of the response. Retry-After is a number of seconds or a date (RFC 9110, section 10.2.3).
        now: The current time in seconds since the epoch, used to compute the delay until a date.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # HTTP dates are in UTC (RFC 9110, section 5.6.7), but a date without a zone is parsed as a naive datetime.
        aware = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
        return max(0.0, aware.timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class _Fields(ItemsView[str, str]):
    """View returned by `Headers.items`, with one item per field. A plain `ItemsView` has one item per name."""

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
    """Return a header value for a repr, without secrets and without queries of URLs, which may be signatures."""
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
        raise UsageError("headers must be a mapping, or pairs of name and value") from None
    if not isinstance(name, str) or not HTTP_TOKEN.fullmatch(name):
        raise UsageError(f"invalid header name {safe_repr(name)}: expected letters, digits and !#$%&'*+-.^_`|~")
    # The messages below do not quote the value, because it may be a secret.
    if not isinstance(value, str):
        raise UsageError(f"invalid value of the header {name}: expected a str, got {type(value).__name__}")
    if _LINE_END.search(value):
        raise UsageError(f"invalid value of the header {name}: expected no CR, LF or NUL")
    if _NOT_LATIN_1.search(value):
        raise UsageError(f"invalid value of the header {name}: expected latin-1 (RFC 8187 describes how to encode it)")
    return name, value.strip(" \t")
