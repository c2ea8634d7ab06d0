"""The two messages that pass through a stack: a `Request` goes down, a `Response` comes up.

A request is frozen: a layer that changes it makes another one with `Request.replace`. A response has one owner. A layer
that returns a response passes ownership on; one that does not return it calls `Response.drain` or `close`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from .._argument_checks import check_deadline, check_integer, check_read_size, check_seconds, resolve_timeout, safe_repr
from .._oci.scope import Scope
from ..errors import OciwireError, ProtocolError, UsageError
from .body import Body
from .headers import HTTP_TOKEN, Headers, HeadersLike, content_length, is_bodiless
from .redact import Redactor
from .response_body import Reader, ResponseReader, make_reader, shorten_reader_timeout
from .urls import Origin, check_url

if TYPE_CHECKING:
    import urllib3

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
_DRAIN_LIMIT = 64 * 1024
_DRAIN_SECONDS = 1.0
_JSON_LIMIT = 16 * 1024 * 1024


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """Metadata of a request for the layers. It is not sent.

    Attributes:
        required_scope: The scope that a token must grant for this request.
        operation: The client method that the request belongs to, such as ``push_blob``: for logs and metrics.
        debug_id: The name of the client: for logs and metrics.
        timeout: Timeout in seconds for connecting and for each wait on the socket, or a `urllib3.Timeout`. Overrides
            the transport's. Infinity means no timeout.
        deadline: A `time.monotonic` value in seconds that bounds all work for this request. Infinity means no deadline,
            and overrides the client's options.
        anonymous: If true, layers must not add credentials; set on cross-origin requests.
        idempotent: Whether the request may be repeated. `None` means that its method decides (RFC 9110, section 9.2.2).
        extra: Values from the caller for layers of its own; ociwire does not read them.

    Raises:
        UsageError: The timeout or the deadline is not a number, is NaN, is too large for a float, or the timeout is
            not greater than 0.
    """

    required_scope: Scope = Scope.EMPTY
    operation: str = ""
    debug_id: str = ""
    timeout: float | urllib3.Timeout | None = None
    deadline: float | None = None
    anonymous: bool = False
    idempotent: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    # Shared by all requests of one exchange; each layer adds the secrets that it sends. Not pickled.
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

    def replace(self, **changes: Any) -> RequestInfo:
        """Return a copy with other values in the named fields."""
        return set_redactor(replace(self, **changes), self._redactor)


def _restore_info(values: dict[str, Any]) -> RequestInfo:
    return RequestInfo(**values)


_NO_INFO = RequestInfo()


@final
@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, as layers see it.

    Args:
        method: ``GET``, ``HEAD``, ``POST``, ``PUT``, ``PATCH``, ``DELETE``, or another token.
        url: An absolute URL. `Client.do` also takes a path.
        headers: The fields to send. The base transport adds Host, Connection and framing (Content-Length,
            Transfer-Encoding).
        body: A `Body`, or content for `Body.of`.
        info: Metadata for the layers.

    Raises:
        UsageError: The method is not a token, the URL is not valid, or a header cannot be sent.
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
            body: Body | bytes | None = None,
            info: RequestInfo = _NO_INFO,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or not HTTP_TOKEN.fullmatch(self.method):  # RFC 9110, section 9.1
            raise UsageError(f"not a method: {safe_repr(self.method)}")
        check_url(self.url)
        if not isinstance(self.info, RequestInfo):
            raise UsageError(f"a request's info is a RequestInfo, not {type(self.info).__name__}")
        if type(self.headers) is not Headers:
            object.__setattr__(self, "headers", Headers(self.headers))
        if self.body is not None and type(self.body) is not Body:
            object.__setattr__(self, "body", Body.of(self.body))

    @property
    def idempotent(self) -> bool:
        """Whether the request may be repeated although it may have had an effect: by `info`, else by its method."""
        idempotent = self.info.idempotent
        return self.method in _IDEMPOTENT if idempotent is None else idempotent

    def replace(self, **changes: Any) -> Request:
        """Return a copy with other values in the named fields."""
        return replace(self, **changes)

    def with_headers(self, changes: Mapping[str, str | None]) -> Request:
        """Return a copy with other values for the named headers; None removes a header."""
        return self._derive(self.headers.updated(changes), self.info)

    def _derive(self, headers: Headers, info: RequestInfo) -> Request:
        """Return a copy with other headers and info, without checking the fields again."""
        derived = object.__new__(Request)
        for name, value in (("method", self.method), ("url", self.url), ("headers", headers), ("body", self.body)):
            object.__setattr__(derived, name, value)
        object.__setattr__(derived, "info", info)
        return derived

    def _redacted_for(self, error: Any) -> Request:
        """Mask the secrets of this request's exchange in an exception; returns the request without them."""
        redactor = redactor_of(self)
        redactor.redact_error(error)
        return redactor.redact_request(self)

    def __repr__(self) -> str:
        url, info = redactor_of(self).redact_url(self.url), self.info
        return f"Request({self.method!r}, {url!r}, headers={self.headers!r}, body={self.body!r}, info={info!r})"


def redactor_of(request: Request | None) -> Redactor:
    """Return the redactor of the exchange that a request belongs to, with the secrets of the request added to it.

    Without a request, or if no layer has made a redactor yet, it is a new one.
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
    """Return the request with a redactor, which the later requests of its exchange share.

    Args:
        request: The request. If it has a redactor and no other is given, it is returned unchanged.
        redactor: The redactor of the exchange; None makes one for the origin of the request.
    """
    if redactor is None:
        if request.info._redactor is not None:
            return request
        redactor = redactor_of(request)
    return request._derive(request.headers, set_redactor(replace(request.info), redactor))


def exchange_redactor(info: RequestInfo) -> Redactor | None:
    """Get the redactor that the requests of an exchange share; `None` before a layer has set one."""
    return info._redactor


def set_redactor(info: RequestInfo, redactor: Redactor | None) -> RequestInfo:
    """Set the redactor of an info that the caller has just made, and return it. An info is not changed afterwards."""
    object.__setattr__(info, "_redactor", redactor)
    return info


# The states of a response: what each call does, and the next state. The constructor makes an open one.
#
# | State             | Fields             | readinto, read | drain, close | replace() without `body`               |
# |-------------------|--------------------|----------------|--------------|----------------------------------------|
# | streamed          | `_reader`          | streamed       | closed       | closed; its body moves to the new one  |
# | in memory         | `_data`, `_reader` | in memory      | closed       | in memory; the new one is at its start |
# | closed, streamed  | neither            | UsageError     | closed       | closed; the new one is closed, too     |
# | closed, in memory | `_data`            | UsageError     | closed       | closed; the new one is at its start    |
#
# `replace(body=...)` changes no state: the new response keeps this one in `_inner`, and closes it when it is closed.
# A later `replace` without a body moves `_inner` to the new response.


@final
class Response:
    """An HTTP response: status, headers, and a body that can be read once.

    It has one owner, which reads it to the end, drains or closes it; as a context manager it is closed. A response that
    is read to the end returns its connection to the pool; one that is closed earlier closes the connection. A response
    that is made of bytes can be used several times: `replace` returns a copy that is read from the start.

    Args:
        status: The status code.
        headers: The header fields.
        body: Bytes; a reader, with ``readinto`` or ``read``; or an iterable of bytes.
        request: The request that was sent, after redirects: Location and Link are relative to its URL.
    """

    __slots__ = ("_data", "_inner", "_reader", "headers", "request", "status")

    def __init__(self, status: int, headers: HeadersLike = (), body: Any = b"", request: Request | None = None) -> None:
        if not isinstance(status, int) or not 100 <= status <= 999:
            raise UsageError(f"invalid status {safe_repr(status)}: expected an integer from 100 to 999")
        self.status = status
        self.headers = headers if type(headers) is Headers else Headers(headers)
        self.request = request
        self._data: bytes | None = bytes(body) if isinstance(body, (bytes, bytearray, memoryview)) else None
        self._reader: Reader | None = make_reader(body if self._data is None else self._data)
        self._inner: Response | None = None

    @property
    def length(self) -> int | None:
        """Number of bytes of the body; None if it is not known before it is read (RFC 9110, section 8.6)."""
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
        """Whether the body is bytes, and no response under it is open."""
        return self._data is not None and (self._inner is None or self._inner.closed or self._inner.in_memory)

    @property
    def closed(self) -> bool:
        """Whether it can no longer be read, because it was closed or `replace` moved its body to another response."""
        return self._reader is None

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read at least one byte into a buffer, as many as are available; return their number, 0 at the end.

        Raises:
            UsageError: The response is closed.
            TransportError: The connection failed.
        """
        if self._reader is None:
            raise UsageError("the response is closed, or its body was handed on to another one")
        count: int | None = self._reader.readinto(memoryview(buffer))
        if count is None:
            raise UsageError("the body's reader is in non-blocking mode and has nothing to read: set it to blocking")
        return count

    def read(self, n: int | None = -1) -> bytes:
        """Read `n` bytes, fewer only at the end; the rest of the body if `n` is negative or None.

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
        """Iterate over the body in pieces of at most `size` bytes, as they arrive."""
        check_integer("size", size, minimum=1)
        while piece := self._read_some(size):
            yield piece

    def _read_some(self, size: int) -> bytes:
        length = self.length
        buffer = bytearray(size if length is None else max(1, min(size, length)))
        with memoryview(buffer) as view:
            return bytes(view[: self.readinto(view)])

    def json(self, *, limit: int = _JSON_LIMIT) -> Any:
        """Read the rest of the body, at most `limit` bytes, as JSON.

        Raises:
            UsageError: The response is closed.
            ProtocolError: It is not JSON, or is longer.
            TransportError: The connection failed.
        """
        check_integer("limit", limit)
        data = self.read(limit + 1)
        if len(data) > limit:
            self.close()
            raise ProtocolError(f"a JSON body longer than {limit} bytes is not read", request=self.request)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            failure = ProtocolError(f"not JSON: {error}", request=self.request)
        raise failure  # outside of the handler: json's exception holds the whole body, which may repeat a secret

    def drain(self) -> None:
        """Drain the remaining body (up to 64 KiB, 1 s) so that the connection can be reused, then close.

        Does not raise exceptions of ociwire: the response is not needed any more.
        """
        remaining = _DRAIN_LIMIT
        try:
            if self._reader is not None and (self.length or 0) <= _DRAIN_LIMIT:
                shorten_timeout(self, _DRAIN_SECONDS)
                while remaining > 0 and (piece := self._read_some(remaining)):
                    remaining -= len(piece)
        except OciwireError:
            pass  # closing drops the connection
        finally:
            with suppress(OciwireError):
                self.close()

    def close(self) -> None:
        """Close the body, and the connection if the body was not read to its end. Idempotent."""
        reader, self._reader = self._reader, None
        inner, self._inner = self._inner, None
        try:
            if reader is not None:
                reader.close()
        finally:
            if inner is not None:
                inner.close()

    def replace(self, **changes: Any) -> Response:
        """Return a response with another ``status``, ``headers``, ``body`` or ``request``; ownership moves to it.

        Without a new body, the body moves to the new response, and this one is closed. A new body is expected to read
        from this response, which is closed together with the new one.
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
            raise TypeError("a response whose body is still to be read cannot be pickled or copied")
        return Response, (self.status, self.headers, self._data, self.request)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.headers!r}>"


def shorten_timeout(response: Response, seconds: float) -> None:
    """Limit the time for the rest of a response's body to `seconds` in all, if the body supports it.

    Raises:
        UsageError: `seconds` is not a number, or is negative.
    """
    shorten_reader_timeout(response._reader, check_seconds("seconds", seconds))
