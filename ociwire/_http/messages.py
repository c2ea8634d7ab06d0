"""HTTP requests and responses, as they pass through the layers of a transport.

A request is immutable: a layer changes it by `Request.replace`, which returns a copy. A response has one owner. A layer
that returns a response transfers ownership; a layer that does not return it must call `Response.drain` or `close`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict, final

from .._argument_checks import check_deadline, check_integer, check_read_size, check_seconds, resolve_timeout, safe_repr
from .._oci.scope import Scope
from ..errors import OciwireError, ProtocolError, UsageError
from .body import Body
from .headers import HTTP_TOKEN, Headers, HeadersLike, content_length, is_bodiless
from .redact import Redactor
from .response_body import BinaryReader, Reader, ResponseContent, ResponseReader, make_reader, shorten_reader_timeout
from .urls import Origin, check_url

if TYPE_CHECKING:
    import urllib3
    from typing_extensions import Buffer, Unpack

    BodyContent = Body | Buffer | BinaryReader | Iterable[Buffer]
    """Type of content that `Body.of` accepts."""

    class RequestInfoFields(TypedDict, total=False):
        """Keyword arguments of `RequestInfo.replace`."""

        required_scope: Scope
        operation: str
        debug_id: str
        timeout: float | urllib3.Timeout | None
        deadline: float | None
        anonymous: bool
        idempotent: bool | None
        extra: Mapping[str, Any]

    class RequestFields(TypedDict, total=False):
        """Keyword arguments of `Request.replace`."""

        method: str
        url: str
        headers: HeadersLike
        body: BodyContent | None
        info: RequestInfo

    class ResponseFields(TypedDict, total=False):
        """Keyword arguments of `Response.replace`."""

        status: int
        headers: HeadersLike
        body: ResponseContent
        request: Request | None


__all__ = [
    "Body",
    "Headers",
    "Request",
    "RequestInfo",
    "Response",
    "exchange_redactor",
    "redactor_of",
    "set_redactor",
    "shorten_timeout",
    "with_redactor",
]

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Idempotent methods (RFC 9110, section 9.2.2)."""
_CHUNK_SIZE = 256 * 1024
# Limits of `Response.drain`: beyond them, a new connection costs less than reading the rest.
_DRAIN_LIMIT = 64 * 1024
_DRAIN_SECONDS = 1.0
_TEXT_LIMIT = 16 * 1024 * 1024
_CHARSET = re.compile(r";\s*charset=\"?([^\s\";]+)", re.IGNORECASE)
_OTHER_NAMES = {
    "status_code": "status",
    "code": "status",
    "reason": "status",
    "ok": "status < 400, or raise_for_status()",
    "is_success": "status < 300, or raise_for_status()",
    "is_error": "status >= 400, or raise_for_status()",
    "url": "request.url",
    "content": "read()",
    "body": "read()",
    "data": "read()",
    "raw": "read()",
    "encoding": "text()",
    "iter_content": "iter_bytes(size)",
    "iter_raw": "iter_bytes(size)",
    "iter_lines": "text().splitlines()",
    "stream": "iter_bytes(size)",
    "getheader": "headers.get(name)",
    "getheaders": "headers",
    "release_conn": "drain()",
}
"""Attributes of responses in other libraries, and their equivalents in `Response`; for messages."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """Metadata of a request for layers. It is not sent. Immutable.

    >>> request = Request("GET", "/v2/", info=RequestInfo(operation="ping", extra={"tenant": "blue"}))
    >>> request.info.extra["tenant"]
    'blue'

    Attributes:
        required_scope: Scope that a token must grant for this request. Defaults to `Scope.EMPTY`.
        operation: Name of the client method that sends the request, such as ``push_blob``, for logs and metrics.
        debug_id: Name of the client, for logs and metrics.
        timeout: Timeout in seconds for connecting and for each wait on the socket, or a `urllib3.Timeout`. Overrides
            the timeout of the transport. `None` leaves it unchanged; infinity means no timeout.
        deadline: A `time.monotonic` value in seconds that bounds all work for this request, including retries and token
            requests. `None` means the deadline of the client, if it has one; infinity means no deadline.
        anonymous: If true, layers must not add credentials; set on cross-origin requests. Defaults to false.
        idempotent: Whether the request may be repeated. `None` means that this depends on its method (RFC 9110, section
            9.2.2).
        extra: Values of the caller for its own layers. ociwire does not read them.

    Raises:
        UsageError: The timeout or the deadline is not a number, is NaN or too large for a float, or the timeout is not
            greater than 0.
    """

    required_scope: Scope = Scope.EMPTY
    operation: str = ""
    debug_id: str = ""
    timeout: float | urllib3.Timeout | None = None
    deadline: float | None = None
    anonymous: bool = False
    idempotent: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    # Shared by all requests of an exchange: each layer adds the secrets that it sends. Not pickled: it holds secrets.
    _redactor: Redactor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.deadline is not None:
            check_deadline(self.deadline)
        if self.timeout is not None:
            resolve_timeout(self.timeout)
        object.__setattr__(self, "extra", MappingProxyType(dict(self.extra)))

    def __reduce__(self) -> tuple[Any, ...]:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init}
        return _restore_info, ({**values, "extra": dict(self.extra)},)

    def replace(self, **changes: Unpack[RequestInfoFields]) -> RequestInfo:
        """Return a copy in which the given fields have other values."""
        return set_redactor(replace(self, **changes), self._redactor)


def _restore_info(values: dict[str, Any]) -> RequestInfo:
    return RequestInfo(**values)


_NO_INFO = RequestInfo()


@final
@dataclass(frozen=True, slots=True)
class Request:
    """HTTP request. Immutable.

    >>> request = Request("GET", "https://registry.example/v2/", {"Accept": "*/*"})
    >>> request.with_headers({"X-Trace": "1"}).headers
    Headers([('Accept', '*/*'), ('X-Trace', '1')])

    Args:
        method: HTTP method, such as ``GET`` or ``PUT``.
        url: Absolute http or https URL. `Client.do` also accepts a path.
        headers: Header fields to send. The base transport adds Host, Connection and the framing (Content-Length,
            Transfer-Encoding). Defaults to none.
        body: A `Body`, or content for `Body.of`. `None` means no body.
        info: Metadata for layers.

    Raises:
        UsageError: The method is not a token, the URL is invalid, or a header cannot be sent.
    """

    method: str
    url: str
    headers: Headers = field(default_factory=Headers)
    body: Body | None = None
    info: RequestInfo = _NO_INFO

    if TYPE_CHECKING:

        def __init__(
            self,
            method: str,
            url: str,
            headers: HeadersLike = (),
            body: BodyContent | None = None,
            info: RequestInfo = _NO_INFO,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or not HTTP_TOKEN.fullmatch(self.method):  # RFC 9110, section 9.1
            raise UsageError(f"invalid method {safe_repr(self.method)}: expected an HTTP token, such as GET")
        check_url(self.url)
        if not isinstance(self.info, RequestInfo):
            raise UsageError(f"info must be a RequestInfo, got {type(self.info).__name__}")
        if type(self.headers) is not Headers:
            object.__setattr__(self, "headers", Headers(self.headers))
        if self.body is not None and type(self.body) is not Body:
            object.__setattr__(self, "body", Body.of(self.body))

    @property
    def idempotent(self) -> bool:
        """Whether the request may be repeated: `RequestInfo.idempotent`, or else whether the method is idempotent."""
        idempotent = self.info.idempotent
        return self.method in _IDEMPOTENT if idempotent is None else idempotent

    def replace(self, **changes: Unpack[RequestFields]) -> Request:
        """Return a copy in which the given fields have other values."""
        return replace(self, **changes)  # type: ignore[arg-type]  # converted by `__post_init__`

    def with_headers(self, changes: Mapping[str, str | None]) -> Request:
        """Return a copy in which the given headers are replaced or added; `None` removes a header.

        Raises:
            UsageError: A header cannot be sent.
        """
        return self._derive(self.headers.updated(changes), self.info)

    def _derive(self, headers: Headers, info: RequestInfo) -> Request:
        """Return a copy with other headers and info, without validating the fields again.

        Layers derive several requests from each request of a caller: validating every one has a measurable cost.
        """
        derived = object.__new__(Request)
        for name, value in (("method", self.method), ("url", self.url), ("headers", headers), ("body", self.body)):
            object.__setattr__(derived, name, value)
        object.__setattr__(derived, "info", info)
        return derived

    def _redacted_for(self, error: Any) -> Request:
        """Mask the secrets of this request's exchange in an exception, and return the request without them."""
        redactor = redactor_of(self)
        redactor.redact_error(error)
        return redactor.redact_request(self)

    def __repr__(self) -> str:
        url, info = redactor_of(self).redact_url(self.url), self.info
        return f"Request({self.method!r}, {url!r}, headers={self.headers!r}, body={self.body!r}, info={info!r})"


def redactor_of(request: Request | None) -> Redactor:
    """Return the redactor of a request's exchange (see `Redactor`), after adding the secrets of the request.

    If there is no request, or its exchange has no redactor yet, a new one is created.
    """
    if request is None:
        return Redactor()
    redactor = request.info._redactor
    if redactor is None:
        has_origin = not request.info.anonymous and not request.url.startswith("/")
        redactor = Redactor(Origin.of(request.url) if has_origin else None)
    redactor.add_request(request)
    return redactor


def with_redactor(request: Request, redactor: Redactor | None = None) -> Request:
    """Return the request with a redactor, which all requests that are derived from it share.

    Args:
        request: The request. It is returned unchanged if it has a redactor and `redactor` is `None`.
        redactor: The redactor of the exchange. `None` creates one for the origin of the request.
    """
    if redactor is None:
        if request.info._redactor is not None:
            return request
        redactor = redactor_of(request)
    return request._derive(request.headers, set_redactor(replace(request.info), redactor))


def exchange_redactor(info: RequestInfo) -> Redactor | None:
    """Return the redactor that the requests of an exchange share; `None` if there is none yet."""
    return info._redactor


def set_redactor(info: RequestInfo, redactor: Redactor | None) -> RequestInfo:
    """Set the redactor of a `RequestInfo`, and return the `RequestInfo`.

    Only for an object that the caller has just created: it is immutable once it is shared.
    """
    object.__setattr__(info, "_redactor", redactor)
    return info


# States of a response, and the next state after each call. The constructor creates a response that is streamed or in
# memory.
#
# | State             | Fields             | readinto, read | drain, close | replace() without `body`               |
# |-------------------|--------------------|----------------|--------------|----------------------------------------|
# | streamed          | `_reader`          | streamed       | closed       | closed; its body moves to the new one  |
# | in memory         | `_data`, `_reader` | in memory      | closed       | in memory; the new one is at its start |
# | closed, streamed  | neither            | UsageError     | closed       | closed; the new one is closed, too     |
# | closed, in memory | `_data`            | UsageError     | closed       | closed; the new one is at its start    |
#
# `replace(body=...)` does not change the state: the new response refers to this one by `_inner`, and its `close` closes
# this one, too. If `replace` is called on the new response without a body, `_inner` moves to the result.


@final
class Response:
    """HTTP response: status, headers, and a body that can be read once. Its context manager closes it.

    A response has one owner, which must read it to its end, drain it or close it. Reading it to its end returns the
    connection to its pool; closing it earlier closes the connection. Not thread-safe. The body of a response that was
    created from bytes can be read several times: `replace` returns a copy that is read from the start.

    >>> with Response(200, {"Content-Type": "application/json"}, b'{"tags": ["v1"]}') as response:
    ...     response.json()
    {'tags': ['v1']}

    Args:
        status: Status code, from 100 to 999.
        headers: Header fields. Defaults to none.
        body: Bytes, a binary reader (with ``readinto`` or ``read``), or an iterable of bytes. Defaults to no bytes.
        request: The request that was sent, after redirects. The URLs in Location and Link are relative to its URL.

    Raises:
        UsageError: The status is invalid, or the body has another type.
    """

    __slots__ = ("_data", "_inner", "_reader", "headers", "request", "status")

    status: int
    headers: Headers
    request: Request | None

    def __init__(
        self, status: int, headers: HeadersLike = (), body: ResponseContent = b"", request: Request | None = None
    ) -> None:
        if not isinstance(status, int) or not 100 <= status <= 999:
            raise UsageError(f"invalid status {safe_repr(status)}: expected an integer from 100 to 999")
        self.status: int = status
        self.headers: Headers = headers if type(headers) is Headers else Headers(headers)
        self.request: Request | None = request
        self._data: bytes | None = bytes(body) if isinstance(body, (bytes, bytearray, memoryview)) else None
        self._reader: Reader | None = make_reader(body if self._data is None else self._data)
        self._inner: Response | None = None

    @property
    def length(self) -> int | None:
        """Length of the body in bytes; `None` if it is unknown until the body is read (RFC 9110, section 8.6)."""
        if self._data is not None:
            return len(self._data)
        if is_bodiless(None if self.request is None else self.request.method, self.status):
            return 0
        length = content_length(self.headers)
        if length is None and isinstance(self._reader, ResponseReader):
            return self._reader.known_length
        return length

    @property
    def in_memory(self) -> bool:
        """Whether the body is in memory, and the response does not own another one with an open connection."""
        return self._data is not None and (self._inner is None or self._inner.closed or self._inner.in_memory)

    @property
    def closed(self) -> bool:
        """Whether the response can no longer be read: it was closed, or `replace` moved its body to another one."""
        return self._reader is None

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read available bytes, at least one, into a buffer; return their number, or 0 at the end.

        Raises:
            UsageError: The response is closed.
            TransportError: The connection failed.
        """
        if self._reader is None:
            raise UsageError("the response is closed, or its body was moved to another response")
        count: int | None = self._reader.readinto(memoryview(buffer))
        if count is None:
            raise UsageError("the reader of the body is in non-blocking mode: expected a reader in blocking mode")
        return count

    def read(self, n: int | None = -1) -> bytes:
        """Read `n` bytes, or fewer at the end; the rest of the body if `n` is negative or `None`.

        Raises:
            UsageError: The response is closed.
            TransportError: The connection failed.
        """
        n = check_read_size(n)
        remaining = float("inf") if n < 0 else n
        pieces = []
        while remaining > 0 and (piece := self._read_some(int(min(remaining, _CHUNK_SIZE)))):
            pieces.append(piece)
            remaining -= len(piece)
        return b"".join(pieces)

    def iter_bytes(self, size: int = _CHUNK_SIZE) -> Iterator[bytes]:
        """Yield the rest of the body in pieces of at most `size` bytes (default 256 KiB), as they arrive.

        Raises:
            UsageError: The response is closed, or `size` is not a positive integer.
            TransportError: The connection failed.
        """
        check_integer("size", size, minimum=1)
        while piece := self._read_some(size):
            yield piece

    def _read_some(self, size: int) -> bytes:
        length = self.length
        buffer = bytearray(size if length is None else max(1, min(size, length)))
        with memoryview(buffer) as view:
            return bytes(view[: self.readinto(view)])

    def text(self, *, limit: int = _TEXT_LIMIT) -> str:
        """Read the rest of the body and decode it with the charset in Content-Type, by default UTF-8.

        Bytes that cannot be decoded are replaced.

        >>> Response(200, body=b"hello").text()
        'hello'

        Args:
            limit: Maximum number of bytes. Defaults to 16 MiB.

        Raises:
            UsageError: The response is closed.
            ProtocolError: The body is longer than `limit`.
            TransportError: The connection failed.
        """
        data = self._read_limited(limit, "body")
        charset = _CHARSET.search(self.headers.get("content-type", ""))
        try:
            return data.decode(charset[1] if charset else "utf-8", "replace")
        except (LookupError, ValueError):  # an unknown charset, or a codec such as base64 that does not decode to text
            return data.decode("utf-8", "replace")

    def json(self, *, limit: int = _TEXT_LIMIT) -> Any:
        """Read the rest of the body and parse it as JSON.

        Args:
            limit: Maximum number of bytes. Defaults to 16 MiB.

        Raises:
            UsageError: The response is closed.
            ProtocolError: The body is not valid JSON, or is longer than `limit`.
            TransportError: The connection failed.
        """
        data = self._read_limited(limit, "JSON body")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            failure = ProtocolError(f"invalid JSON: {error}", request=self.request)
        # Raised outside the handler, without `__context__`: json.JSONDecodeError has the whole body, which may repeat a
        # secret, as an attribute.
        raise failure

    def _read_limited(self, limit: int, name: str) -> bytes:
        check_integer("limit", limit)
        data = self.read(limit + 1)
        if len(data) > limit:
            self.close()
            raise ProtocolError(f"the {name} is longer than the limit of {limit} bytes", request=self.request)
        return data

    def raise_for_status(self) -> Response:
        """Return the response if its status is 2xx; otherwise close it and raise the exception for it.

        >>> Response(404).raise_for_status()
        Traceback (most recent call last):
        ociwire.errors.NotFound: 404 Not Found

        Raises:
            RegistryError: The status is not 2xx; see `check_response`.
        """
        # Imported on use, because `error_mapping` imports this module.
        check_response = import_module("ociwire._client.error_mapping").check_response
        try:
            check_response(self)
        except BaseException:
            self.close()
            raise
        return self

    def drain(self) -> None:
        """Drain the remaining body (up to 64 KiB, 1 s) so that the connection can be reused, then close.

        Exceptions of ociwire are suppressed, because the response is no longer needed.
        """
        remaining = _DRAIN_LIMIT
        try:
            if self._reader is not None and (self.length or 0) <= _DRAIN_LIMIT:
                shorten_timeout(self, _DRAIN_SECONDS)
                while remaining > 0 and (piece := self._read_some(remaining)):
                    remaining -= len(piece)
        except OciwireError:
            pass  # `close` below closes the connection
        finally:
            with suppress(OciwireError):
                self.close()

    def close(self) -> None:
        """Close the response, and its connection if the body was not read to its end. Idempotent."""
        reader, self._reader = self._reader, None
        inner, self._inner = self._inner, None
        try:
            if reader is not None:
                reader.close()
        finally:
            if inner is not None:
                inner.close()

    def with_headers(self, changes: Mapping[str, str | None]) -> Response:
        """Return a response in which the given headers are replaced or added; `None` removes a header.

        The body moves to the new response; see `replace`.

        Raises:
            UsageError: A header is invalid.
        """
        return self.replace(headers=self.headers.updated(changes))

    def replace(self, **changes: Unpack[ResponseFields]) -> Response:
        """Return a response with another ``status``, ``headers``, ``body`` or ``request``.

        The new response takes ownership of this one. Without a new body, the body moves to the new response, and
        this one is closed. A new body may read from this response, which stays open until the new response is closed.
        """
        values: dict[str, Any] = {"status": self.status, "headers": self.headers, "request": self.request, **changes}
        if "body" in changes:
            new = Response(**values)
            new._inner = self
        elif self._data is not None:
            new = Response(body=self._data, **values)
            new._inner, self._inner = self._inner, None
        else:
            new = Response(**values)
            new._data, new._reader, new._inner = None, self._reader, self._inner
            self._reader = self._inner = None
        return new

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.in_memory:
            raise TypeError("cannot pickle or copy a response whose body is not in memory")
        return Response, (self.status, self.headers, self._data, self.request)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.headers!r}>"

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(self, name: str) -> object:
            other = _OTHER_NAMES.get(name)
            hint = "" if other is None else f"; use response.{other}"
            raise AttributeError(f"'Response' object has no attribute {name!r}{hint}")


def shorten_timeout(response: Response, seconds: float) -> None:
    """Limit the total time for reading the rest of a response to `seconds`, if its body supports this.

    Raises:
        UsageError: `seconds` is not a number, or is negative.
    """
    shorten_reader_timeout(response._reader, check_seconds("seconds", seconds))
