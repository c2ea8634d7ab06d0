"""Send the requests of a client: add its options, and mask the secrets of each exchange."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from .._http.body import Body
from .._http.messages import (
    Request,
    RequestInfo,
    Response,
    exchange_redactor,
    redactor_of,
    set_redactor,
    with_redactor,
)
from .._http.redact import Redactor
from .._http.transport import Transport
from .._http.urls import Origin
from .._oci.scope import Scope
from .._text import sanitize
from ..errors import ContentError, DigestMismatch, OciwireError, ReadError, RegistryError, UsageError
from .error_mapping import check_not_html, error_from_response, is_transient

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._http.messages import RequestInfoFields

__all__ = ["MAX_MANIFEST_SIZE", "ClientState", "RequestSender", "read_with_retry", "treat_refusal_as_missing"]

MAX_MANIFEST_SIZE = 4 * 1024 * 1024
"""Default maximum size of a manifest in bytes. Registries should accept this size ("Pushing Manifests")."""

_WARNINGS = logging.getLogger("ociwire.warnings")
_MAX_WARNINGS = 1000
_MAX_ATTEMPTS = 3
# Format of a Warning header: 299 - "text" (specification, "Warnings").
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')


@final
class ClientState:
    """Mutable state of a client, shared with the clients that its `Client.with_options` returns.

    Attributes:
        closed: Whether the client is closed.
        max_chunk_size: Maximum size of a chunk in bytes, if the registry has refused a larger chunk; else `None`.
        seen_warnings: Hashes of the warnings that were logged. The texts are not stored, because they may be long.
        head_origins: Origins that have responded to a HEAD with 200, so that a 404 does not have to be confirmed.
    """

    def __init__(self) -> None:
        self.closed = False
        self.max_chunk_size: int | None = None
        self.seen_warnings: set[int] = set()
        self.head_origins: set[str] = set()

    def check_open(self) -> None:
        """Raise `UsageError` if the client is closed."""
        if self.closed:
            raise UsageError("the client is closed")

    def record_max_chunk(self, size: int) -> None:
        """Record that the registry accepts chunks of at most `size` bytes."""
        self.max_chunk_size = min(size, self.max_chunk_size or size)


@final
class RequestSender:
    """Sends requests to one registry. Thread-safe.

    Args:
        origin: Origin of the registry.
        transport: Transport that sends the requests.
        defaults: Options for requests that do not have their own.
        state: State of the client.
        max_manifest_size: Maximum size in bytes of a manifest that is read, and of an index of referrers that is
            written.
    """

    def __init__(
        self,
        origin: Origin,
        transport: Transport,
        defaults: RequestInfo,
        state: ClientState,
        max_manifest_size: int = MAX_MANIFEST_SIZE,
    ) -> None:
        self.origin = origin
        self.state = state
        self.defaults = defaults
        self.max_manifest_size = max_manifest_size
        self._base_url = str(origin)
        self._transport = transport

    def with_options(self, **changes: Unpack[RequestInfoFields]) -> RequestSender:
        """Return a sender for requests with other values in the given fields of `RequestInfo`."""
        defaults = self.defaults.replace(**changes)
        return RequestSender(self.origin, self._transport, defaults, self.state, self.max_manifest_size)

    def do(self, request: Request, *, scope: Scope | None) -> Response:
        """Add the options of the client to a request, and send it; see `Client.do`."""
        info, defaults = request.info, self.defaults
        redactor = Redactor(self.origin)
        completed = info.replace(
            required_scope=info.required_scope if scope is None else scope,
            operation=info.operation or "do",
            debug_id=info.debug_id or defaults.debug_id,
            timeout=defaults.timeout if info.timeout is None else info.timeout,
            deadline=defaults.deadline if info.deadline is None else info.deadline,
            extra={**defaults.extra, **info.extra},
        )
        set_redactor(completed, redactor)
        url = self._base_url + request.url if request.url.startswith("/") else request.url
        if self.origin.scheme == "https" and url[:5].lower() == "http:":
            # A client of an https registry must not send credentials in clear text, even if the caller passes the URL.
            completed = completed.replace(anonymous=True, required_scope=Scope.EMPTY)
        return self._round_trip(Request(request.method, url, request.headers, request.body, completed), redactor)

    def send(
        self,
        operation: str,
        method: str,
        url: str,
        scope: Scope,
        *,
        ok: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        idempotent: bool | None = None,
    ) -> Response:
        """Send one request of an operation. A request to a cross-origin URL has no credentials and no scope.

        Args:
            operation: Name of the operation of the client.
            method: HTTP method.
            url: Path, or absolute URL.
            scope: Scope that a token must grant.
            ok: The successful statuses.
            headers: Headers of the request. `None` means none.
            body: Body of the request. `None` means none.
            idempotent: See `RequestInfo.idempotent`.

        Returns:
            The open response, whose status is one of `ok`.

        Raises:
            RegistryError: The status is not successful. The response is closed.
            ContentError: The response to a request other than GET and HEAD is an HTML page. The response is closed.
            TransportError: No usable response was received.
        """
        is_cross_origin = not url.startswith("/") and Origin.of(url) != self.origin
        defaults, redactor = self.defaults, Redactor(self.origin)
        # Create the object with all fields: `RequestInfo.replace`, which `do` uses, takes longer.
        info = RequestInfo(
            required_scope=Scope.EMPTY if is_cross_origin else scope,
            operation=operation,
            debug_id=defaults.debug_id,
            timeout=defaults.timeout,
            deadline=defaults.deadline,
            anonymous=is_cross_origin,
            idempotent=idempotent,
            extra=defaults.extra,
        )
        set_redactor(info, redactor)
        url = self._base_url + url if url.startswith("/") else url
        response = self._round_trip(Request(method, url, headers or {}, body, info), redactor)
        if response.status not in ok:
            with response:  # closed after its body was read for the exception
                raise error_from_response(response)
        if method not in ("GET", "HEAD"):
            try:
                check_not_html(response)
            except BaseException:
                response.close()
                raise
        return response

    def _round_trip(self, request: Request, redactor: Redactor) -> Response:
        """Send a complete request, and mask the secrets of its exchange in the response or the exception."""
        self.state.check_open()
        try:
            response = self._transport.round_trip(request)
        except OciwireError as error:
            redactor_of(request).redact_error(error)
            raise
        if response.request is None or exchange_redactor(response.request.info) is not redactor:
            response = response.replace(request=with_redactor(response.request or request, redactor))
        if "warning" in response.headers:
            self._log_warnings(response)
        return response

    def _log_warnings(self, response: Response) -> None:
        """Log each warning of the registry once."""
        seen = self.state.seen_warnings
        for quoted in _WARNING.findall(response.headers["warning"]):
            text = redactor_of(response.request).redact_text(re.sub(r"\\(.)", r"\1", quoted))
            text = sanitize(text, len(text))
            if hash(text) not in seen and len(seen) < _MAX_WARNINGS:
                seen.add(hash(text))
                _WARNINGS.warning("%s: %.500s", self.origin.netloc, text)


def read_with_retry(send: Callable[[], Response], limit: int) -> tuple[Response, bytes]:
    """Send a request and read the small response body; try up to three times if the connection is lost while reading.

    Args:
        send: Function that sends an idempotent request.
        limit: Maximum size of the body in bytes. One more byte is read, so that the caller can detect a larger body.

    Returns:
        The closed response, and its body.

    Raises:
        ReadError: The connection was lost three times.
        OciwireError: Raised by `send`.
    """
    attempts = 0
    while True:
        attempts += 1
        with send() as response:
            try:
                body = response.read(limit + 1)
                if len(body) < min(response.length or 0, limit):
                    raise ReadError("the body ended before its Content-Length", request=response.request)
                return response, body
            except ReadError:
                if attempts == _MAX_ATTEMPTS:
                    raise


@contextmanager
def treat_refusal_as_missing() -> Iterator[None]:
    """Suppress error responses and responses of the wrong type, such as an HTML page.

    Used for look-ups before an upload, where the worst consequence is that existing content is uploaded again.

    Raises:
        DigestMismatch: Not suppressed.
        RegistryError: The registry is temporarily unavailable. A 500 is suppressed, because some registries respond
            with it to every HEAD.
    """
    try:
        yield
    except RegistryError as error:
        if error.status != 500 and is_transient(error):
            raise
    except DigestMismatch:
        raise
    except ContentError:
        pass
