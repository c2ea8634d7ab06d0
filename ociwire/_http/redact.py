"""Redaction of secrets in messages, exceptions and logs: credentials, tokens, and the queries of signed URLs."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol, final
from urllib.parse import unquote

from .._oci.host import redact_url
from .._text import ELLIPSIS, sanitize
from ..errors import OciwireError
from .headers import SENSITIVE_HEADERS, URL_HEADERS, Headers
from .unescape import ESCAPE_START, PARTIAL_ESCAPE, decoded_forms
from .urls import Origin, split_url

if TYPE_CHECKING:
    from .messages import Request

__all__ = ["HasSecrets", "Redactor"]

_MIN_SECRET_LENGTH = 4
"""Minimum length of a credential that is masked. Shorter strings occur in texts by chance."""
_MIN_QUERY_VALUE_LENGTH = 8
"""Minimum length of a query value that is masked. Most shorter values are dates, versions and flags."""
_PREFIX_LENGTH = 16
"""Number of leading bytes that identify a long secret, because a server may quote only its beginning."""
_ELLIPSIS = ELLIPSIS.encode()
_MAX_URL_DECODINGS = 3
_MAX_DEPTH = 100
"""Maximum depth at which JSON is searched for secrets. Deeper lists and objects are masked as a whole."""
_MAX_URL = 500
# Query parameters of the distribution and token specifications. Any other parameter may be a signature.
_SHOWN_IN_QUERY = frozenset(
    {"artifactType", "digest", "digest-algorithm", "from", "last", "mount", "n", "scope", "service", "tag"}
)

# Query parameters that authorize a signed URL of Amazon S3 and CloudFront, Google, Azure, Alibaba OSS or Tencent COS.
_SIGNATURE_NAMES = (
    r"x-(?:amz|goog|oss|cos)-(?:signature|security-token|credential)|(?:aws|oss)accesskeyid|googleaccessid|signature|sig"
    r"|policy|key-pair-id|q-signature|security-token|(?:access_|refresh_|id_)?token"
)
_SIGNATURE_NAME = re.compile(_SIGNATURE_NAMES, re.IGNORECASE)
_SIGNATURE = re.compile(
    rf"(?<![\w-])(?:{_SIGNATURE_NAMES})=([^\s\"'<>\\`&;,]{{{_MIN_QUERY_VALUE_LENGTH},}})".encode(), re.IGNORECASE
)
# A word that may contain a URL. It ends at a backslash, which begins an escape in JSON.
_WORD = re.compile(rb"[^\s\"'<>\\`]+")
_NETLOC = re.compile(rb"//([^/?#]*)")
_PARTIAL_ESCAPE_AT_END = re.compile(b"(?:" + PARTIAL_ESCAPE + rb")\Z", re.IGNORECASE)


class HasSecrets(Protocol):
    """Protocol of objects that can list their secrets, such as a `Credential`."""

    def secrets(self) -> Iterable[str]:
        """Return the secrets, in each form in which they are sent."""
        ...


@final
class Redactor:
    """Masks the secrets of one exchange in messages, exceptions and logs.

    An exchange is a request of the caller, and all requests that layers send for it: token requests, redirects and
    retries. `RequestInfo` passes the redactor through the layers, and each layer adds the secrets that it sends.
    Secrets are recognized unencoded, percent-encoded, JSON-escaped and HTML-escaped, with up to three nested encodings.
    The query of each cross-origin URL is also masked, because it may be a signature.

    Secrets are encoded only when a text has to be masked, because most requests succeed without a message or a log.

    Args:
        origin: The origin whose URLs are shown with their query. `None` masks the query of every absolute URL.
    """

    __slots__ = ("_added", "_needles", "_origin", "_sources", "_values")

    def __init__(self, origin: Origin | None = None) -> None:
        self._origin = origin
        self._sources: list[HasSecrets] = []
        self._values: dict[str, None] = {}
        self._needles: tuple[bytes, ...] | None = None
        self._added: tuple[Headers, str] | None = None  # the last request added: layers often add the same one

    def add(self, source: HasSecrets) -> None:
        """Add the secrets of a credential or another source. Secrets of less than four characters are not masked."""
        self._sources.append(source)
        self._needles = None

    def add_headers(self, headers: Headers) -> None:
        """Add the values of Authorization, Proxy-Authorization and cookies."""
        for name in SENSITIVE_HEADERS:
            for value in headers.get_all(name):
                self._add_values(_header_secrets(value), _MIN_SECRET_LENGTH)

    def add_request(self, request: Request) -> None:
        """Add the secret headers of a request, and the query parameters that authorize it."""
        if self._added is not None and self._added[0] is request.headers and self._added[1] is request.url:
            return
        self._added = (request.headers, request.url)  # not the request itself, which would create a reference cycle
        self.add_headers(request.headers)
        if "?" not in request.url:
            return
        is_same_origin = self.is_same_origin(request.url)
        for part in request.url.partition("#")[0].partition("?")[2].split("&"):
            name, _, value = part.partition("=")
            if name not in _SHOWN_IN_QUERY and (not is_same_origin or _SIGNATURE_NAME.fullmatch(name)):
                self._add_values(_decodings(value or name), _MIN_QUERY_VALUE_LENGTH)

    def _add_values(self, values: Iterable[str], shortest: int) -> None:
        for value in values:
            if len(value) >= shortest and value not in self._values:
                self._values[value] = None
                self._needles = None

    def is_same_origin(self, url: str) -> bool:
        """Return whether the URL of a request is same-origin. A path is always same-origin."""
        return url.startswith("/") or (self._origin is not None and Origin.of(url) == self._origin)

    def redact_url(self, url: str) -> str:
        """Return the URL of a request for a log.

        Query parameters of the specifications are shown; others are masked. The query of a cross-origin URL is masked
        as a whole.
        """
        query = url.partition("#")[0].partition("?")[2]
        try:
            is_same_origin = self.is_same_origin(url)
        except OciwireError:
            is_same_origin = False
        parts = [
            part if is_same_origin and part.partition("=")[0] in _SHOWN_IN_QUERY else "***"
            for part in query.split("&")
            if part
        ]
        # If a server has sent the URL as a Location or a realm, its path may also contain a secret.
        text = self.redact_text(redact_url(url)) + (f"?{'&'.join(dict.fromkeys(parts))}" if parts else "")
        return sanitize(text, _MAX_URL)

    def redact_text(self, value: str) -> str:
        """Return a text in which each secret and the query of each cross-origin URL are replaced by ``***``."""
        data = value.encode("utf-8", "surrogatepass")
        masked = self.redact_bytes(data)
        # "replace": masking a secret that was encoded as latin-1 may leave an incomplete UTF-8 character.
        return value if masked is data else masked.decode("utf-8", "replace")

    def redact_bytes(self, data: bytes, *, is_truncated: bool = False) -> bytes:
        """Return bytes in which each secret and the query of each cross-origin URL are replaced by ``***``.

        Args:
            data: The bytes. The same object is returned if there is nothing to mask.
            is_truncated: Whether the end may be missing. If true, the beginning of a secret at the end is masked, too.
        """
        needles = self._get_needles()
        if not is_truncated and _ELLIPSIS not in data and _is_plain(data) and not _holds_any(data, needles):
            return data  # fast path for most texts, which have no escapes: decoding takes ten times as long
        # If a secret contains a literal %, backslash or &, decoding all kinds of escapes together would alter it.
        each_kind = any(ESCAPE_START.search(needle) for needle in needles)
        spans = [
            (form.offsets[start], form.offsets[end])
            for form in decoded_forms(data, each_kind=each_kind)
            for start, end in self._find_spans(form.data, is_truncated=is_truncated)
        ]
        pieces, position = [], 0
        for start, end in _merge_overlapping(spans):
            pieces += [data[position:start], b"***"]
            position = end
        return b"".join([*pieces, data[position:]]) if pieces else data

    def _find_spans(self, data: bytes, *, is_truncated: bool) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each span to mask in bytes whose escapes are decoded."""
        yield from self._find_secrets(data, is_truncated=is_truncated)
        if b"=" in data:
            for match in _SIGNATURE.finditer(data):
                yield match.span(1)
        if b"?" in data and b"//" in data:
            for word in _WORD.finditer(data):
                query_length = self._cross_origin_query(word[0])
                if query_length:
                    yield word.end() - query_length, word.end()

    def _find_secrets(self, data: bytes, *, is_truncated: bool) -> Iterator[tuple[int, int]]:
        haystack = data.replace(b"+", b" ")  # a space is encoded as + in queries and forms
        text = _PARTIAL_ESCAPE_AT_END.sub(b"", haystack) if is_truncated else b""
        for needle in self._get_needles():
            # Anywhere in the data: match the first bytes of the secret, then extend the match as far as possible.
            head = needle[:_PREFIX_LENGTH]
            start = haystack.find(head)
            while start >= 0:
                end = start + len(head)
                while haystack[end : end + 1] == needle[end - start : end - start + 1] != b"":
                    end += 1
                yield start, end
                start = haystack.find(head, end - len(head) + 1)
            # At the end of truncated data: match a beginning of the secret of any length.
            longest = min(len(needle) - 1, len(text))
            length = next((n for n in range(longest, 0, -1) if text.endswith(needle[:n])), 0)
            if length:
                yield len(text) - length, len(data)
            # Before the ellipsis of text that was already truncated: match at least the first four bytes of the secret.
            if _ELLIPSIS in haystack:
                for match in _truncated_needle_pattern(needle).finditer(haystack):
                    yield match.span(1)

    def _cross_origin_query(self, word: bytes) -> int:
        """Return the length of the query of the first cross-origin URL in a word; 0 if there is none.

        A word may contain several URLs, because the query of a URL may contain another URL.
        """
        for netloc in _NETLOC.finditer(word):
            scheme = word[max(0, netloc.start() - 6) : netloc.start()].lower()
            if not self._is_same_netloc(scheme, netloc[1].lower()):
                question_mark = word.find(b"?", netloc.end())
                return len(word) - question_mark - 1 if question_mark >= 0 else 0
        return 0

    def _is_same_netloc(self, before: bytes, netloc: bytes) -> bool:
        origin = self._origin
        if origin is None or netloc != origin.netloc.encode():
            return False
        return not before.endswith(b":") or before.endswith(f"{origin.scheme}:".encode())

    def _get_needles(self) -> tuple[bytes, ...]:
        """Return all secrets as bytes in each text encoding, with each ``+`` replaced by a space. Computed lazily."""
        if self._needles is None:
            for source in self._sources:
                self._add_values(source.secrets(), _MIN_SECRET_LENGTH)
            self._needles = tuple({form.replace(b"+", b" ") for value in self._values for form in _encodings(value)})
        return self._needles

    def redact_headers(self, headers: Headers) -> Headers:
        """Return headers without the sensitive headers, and with secrets masked in the other headers."""
        fields = [(name, value) for name, value in headers.items() if name.lower() not in SENSITIVE_HEADERS]
        is_changed = len(fields) < len(headers.items())
        # Search all fields at once, because most responses contain no secret.
        lines = "\n".join([f"{name}: {value}" for name, value in fields])
        if "?" in lines or self.redact_text(lines) is not lines:
            fields = [(self.redact_text(name), self.redact_text(_drop_query(name, value))) for name, value in fields]
            is_changed = True
        return Headers.received(fields) if is_changed else headers

    def redact_request(self, request: Request) -> Request:
        """Return a copy of a request that is safe to attach to an exception.

        It has no sensitive headers. The query of a cross-origin or signed URL, and the body of a token request, are
        removed.
        """
        is_signed = not self.is_same_origin(request.url) or _SIGNATURE.search(request.url.encode()) is not None
        url = self._redact_request_url(request.url.partition("?")[0] if is_signed else request.url)
        headers = self.redact_headers(request.headers)
        body = None if request.info.operation == "token" else request.body
        if url == request.url and headers is request.headers and body is request.body and not self._get_needles():
            return request
        info = replace(request.info)  # `dataclasses.replace` does not copy the redactor, which refers to the secrets
        return type(request)(request.method, url, headers, body, info)

    def _redact_request_url(self, url: str) -> str:
        """Return a valid URL with its secrets masked. If the host contains a secret, return only the path."""
        if self.redact_text(url) is url:
            return url
        origin, target = ("", url) if url.startswith("/") else split_url(url)
        target = self.redact_text(target)
        target = target if target.startswith("/") else f"/{target}"
        return f"{origin}{target}" if self.redact_text(str(origin)) == str(origin) else target

    def redact_error(self, error: BaseException) -> None:
        """Mask the secrets in the text and attributes of an exception and of its chained exceptions.

        Chained exceptions whose class is defined by another library or by a user are not modified. If such an exception
        contains a secret, the chain is cut before it. If the class of `error` itself is a subclass that a user defines,
        its text and the attributes that ociwire defines are masked.
        """
        self._redact_error(error, set())

    def _redact_error(self, error: BaseException, seen: set[int]) -> None:
        seen.add(id(error))
        error.args = tuple([self._mask_value(arg) for arg in error.args])
        attributes = vars(error)
        own_names = attributes.keys() if _is_of_ociwire(type(error)) else _inherited_attributes(type(error))
        for name, value in list(attributes.items()):
            if name not in own_names:
                continue
            if name == "request":
                attributes[name] = None if value is None else self.redact_request(value)
            else:
                attributes[name] = self._mask_value(value)
        for name in ("__cause__", "__context__"):
            linked = getattr(error, name)
            if linked is None or id(linked) in seen:
                continue
            if _is_of_ociwire(type(linked)):
                self._redact_error(linked, seen)
            elif self._holds_secret(linked):
                setattr(error, name, None)

    def _mask_value(self, value: Any, depth: int = 0) -> Any:
        """Return the value of an attribute (text, bytes, headers, or a JSON value of these) with its secrets masked."""
        if value is None or type(value) in (int, float, bool):
            return value
        if isinstance(value, str):
            return self.redact_text(value)
        if isinstance(value, bytes):
            return self.redact_bytes(value)
        if type(value) is Headers:
            return self.redact_headers(value)
        if depth > _MAX_DEPTH:
            return "***" if isinstance(value, (dict, list, tuple)) else value
        if type(value) in (list, tuple):
            return type(value)([self._mask_value(item, depth + 1) for item in value])
        if type(value) is dict:
            return {self._mask_value(key): self._mask_value(item, depth + 1) for key, item in value.items()}
        return value

    def _holds_secret(self, error: BaseException) -> bool:
        """Return whether an exception of another library or one of its chained exceptions contains a secret."""
        chain: list[BaseException | None] = [error]
        seen: set[int] = set()
        while chain:
            current = chain.pop()
            if current is None or id(current) in seen:
                continue
            seen.add(id(current))
            try:
                text = f"{current} {current!r} {vars(current)!r}"
            except Exception:  # noqa: BLE001 - a repr may raise any exception; assume a secret if it does
                return True
            if self.redact_text(text) is not text:
                return True
            chain += [current.__cause__, current.__context__]
        return False


def _is_of_ociwire(error_class: type[BaseException]) -> bool:
    """Return whether an exception class is defined by ociwire, not by another library or a user."""
    return issubclass(error_class, OciwireError) and error_class.__module__ == OciwireError.__module__


def _inherited_attributes(error_class: type[BaseException]) -> set[str]:
    """Return the names of the constructor parameters of the ociwire classes that an exception class inherits from."""
    bases = [base for base in error_class.__mro__ if issubclass(base, OciwireError) and _is_of_ociwire(base)]
    return {name for base in bases for name in signature(base.__init__).parameters}


def _drop_query(name: str, value: str) -> str:
    # The search for cross-origin URLs does not find relative URLs, which have no origin.
    return value.partition("?")[0] if name.lower() in URL_HEADERS else value


def _header_secrets(value: str) -> Iterator[str]:
    """Yield the secrets in a header value: the text after the scheme, its decoded password, and values of cookies."""
    scheme, _, proof = value.partition(" ")
    yield proof or value
    for cookie in re.split("; *", value):
        yield cookie.partition("=")[2]
    if scheme.lower() == "basic":
        with suppress(ValueError):
            yield base64.b64decode(proof).partition(b":")[2].decode()


def _decodings(value: str) -> Iterator[str]:
    """Yield the value of a query parameter unchanged, and percent-decoded up to three times."""
    for _ in range(_MAX_URL_DECODINGS):
        yield value
        decoded = unquote(value)
        if decoded == value:
            return
        value = decoded


def _encodings(value: str) -> Iterator[bytes]:
    """Yield a text encoded as UTF-8, and as it is encoded if a server or a header parser treats it as latin-1."""
    data = value.encode("utf-8", "surrogatepass")
    yield data
    if not value.isascii():
        yield data.decode("latin-1").encode()
        with suppress(UnicodeEncodeError):
            yield value.encode("latin-1")


def _truncated_needle_pattern(needle: bytes) -> re.Pattern[bytes]:
    """Return a pattern that matches the beginning of a secret before `ELLIPSIS`. Its first group has to be masked.

    The beginning has at least four bytes, but fewer than are needed to recognize a secret anywhere. An incomplete
    escape may follow it.
    """
    lengths = range(min(len(needle), _PREFIX_LENGTH) - 1, _MIN_SECRET_LENGTH - 1, -1)
    beginnings = b"|".join(re.escape(needle[:length]) for length in lengths)
    return re.compile(b"((?:" + (beginnings or b"(?!)") + b")(?i:" + PARTIAL_ESCAPE + b")?)" + _ELLIPSIS)


def _is_plain(data: bytes) -> bool:
    """Return whether bytes contain no escape, no parameter, and no URL with a query."""
    return ESCAPE_START.search(data) is None and b"=" not in data and (b"?" not in data or b"//" not in data)


def _holds_any(data: bytes, needles: tuple[bytes, ...]) -> bool:
    haystack = data.replace(b"+", b" ")
    return any(needle[:_PREFIX_LENGTH] in haystack for needle in needles)


def _merge_overlapping(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort spans by start, merge spans that overlap or touch, and return the result."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
