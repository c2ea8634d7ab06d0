"""Sends the requests of a client: with its options, to its registry, with the secrets of each exchange masked."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

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

__all__ = ["MAX_MANIFEST_SIZE", "ClientState", "RequestSender", "read_with_retry", "treat_refusal_as_missing"]

MAX_MANIFEST_SIZE = 4 * 1024 * 1024
"""Default limit for the size of a manifest in bytes (specification, "Pushing Manifests")."""

_WARNINGS = logging.getLogger("ociwire.warnings")
_MAX_WARNINGS = 1000
_MAX_ATTEMPTS = 3
# Specification, "Warnings": 299 - "text".
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')


@final
class ClientState:
    """The mutable state of a client, shared by all clients that `Client.with_options` derives from it.

    Attributes:
        closed: Whether the client is closed.
        max_chunk_size: The size in bytes of the largest chunk that the registry accepts, once it has refused a larger
            one; else `None`.
        seen_warnings: The hashes of the registry's warnings. The texts may be long.
        head_origins: The origins that have answered a HEAD with 200. Their 404 to a HEAD needs no confirmation.
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
        """Remember that the registry accepts chunks of at most `size` bytes."""
        self.max_chunk_size = min(size, self.max_chunk_size or size)


@final
class RequestSender:
    """Sends requests to one registry through one transport. Thread-safe.

    Args:
        origin: The registry.
        transport: Answers the requests.
        defaults: The options of each request that does not set its own.
        state: The state of the client.
        max_manifest_size: Maximum size in bytes of a manifest that is read, or written as an index of referrers.
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

    def with_options(self, **changes: Any) -> RequestSender:
        """Return a sender of the same client with other values in the named fields of `RequestInfo`."""
        defaults = self.defaults.replace(**changes)
        return RequestSender(self.origin, self._transport, defaults, self.state, self.max_manifest_size)

    def do(self, request: Request, *, scope: Scope | None) -> Response:
        """Complete a request with the client's options and send it; see `Client.do`."""
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
            # A client of an https registry does not send credentials in clear text, whatever URL it is given.
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
        """Send one request of an operation.

        A cross-origin URL is requested without credentials and without a scope.

        Args:
            operation: The name of the client's operation.
            method: The HTTP method.
            url: A path at the registry, or an absolute URL.
            scope: What a token must grant.
            ok: The statuses of success.
            headers: The headers of the request.
            body: The body of the request.
            idempotent: See `RequestInfo.idempotent`.

        Returns:
            The response, open, if its status is one of `ok`.

        Raises:
            RegistryError: The status is another one; the response is closed.
            ContentError: A request other than GET and HEAD was answered with an HTML page; the response is closed.
            TransportError: There is no usable response.
        """
        is_cross_origin = not url.startswith("/") and Origin.of(url) != self.origin
        defaults, redactor = self.defaults, Redactor(self.origin)
        # Set all fields at once: copying an info, as `do` does, takes longer.
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
            with response:
                raise error_from_response(response)
        if method not in ("GET", "HEAD"):
            try:
                check_not_html(response)
            except BaseException:
                response.close()
                raise
        return response

    def _round_trip(self, request: Request, redactor: Redactor) -> Response:
        """Send a complete request, and mask the secrets of its exchange in the response or the error."""
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
    """Send a request and read its small body; both again, up to three times, if the connection is lost meanwhile.

    Args:
        send: Sends a request that may be sent again.
        limit: Maximum number of bytes to read. One more is read, which shows that the body is larger.

    Returns:
        The response, closed, and its body.

    Raises:
        ReadError: The connection was lost three times.
        OciwireError: What `send` raises.
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
    """Suppress the refusal of a request, and a response of the wrong type, such as an HTML page.

    For look-ups before an upload: at worst, existing content is uploaded again.

    Raises:
        DigestMismatch: As raised inside.
        RegistryError: The registry cannot answer at the moment. A 500 is a refusal: some send it to any HEAD.
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
