"""What all operations of a client share: where the registry is, what it is asked through, and what was learnt of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

from .._http.body import Body
from .._http.messages import Request, RequestInfo, Response, redactor_of, with_redactor
from .._http.origin_policy import upload_location
from .._http.redact import Redactor
from .._http.urls import Origin
from .._oci.digest import Digest
from .._oci.scope import Scope
from .._text import sanitize
from ..errors import ContentError, DigestMismatch, OciwireError, ProtocolError, ReadError, RegistryError, UsageError
from ..transport import Transport
from .error_mapping import check_not_html, error_from_response, is_transient, names_digest

__all__ = ["MAX_MANIFEST_SIZE", "Learnt", "Life", "Session", "read_anew", "refusal_means_missing"]

MAX_MANIFEST_SIZE = 4 * 1024 * 1024
"""Default limit for the size of a manifest in bytes (specification, "Pushing Manifests")."""

_WARNINGS = logging.getLogger("ociwire.warnings")
_MAX_WARNINGS = 1000
_TRIES = 3
_MAX_HEAD_ORIGINS = 64
# Registries and signed URLs that do not support HEAD answer it with one of these, whatever a GET would find.
_HEAD_UNSUPPORTED = frozenset({400, 403, 405, 406, 500, 501})
# Specification, "Warnings": 299 - "text".
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')


@final
@dataclass(slots=True)
class Learnt:
    """What a registry has shown of itself. Shared by all sessions of a client.

    Attributes:
        largest_chunk: The largest chunk that it is known to take, in bytes, once it has refused a larger one.
        warnings: The hashes of its warnings, whose texts may be long.
        head_origins: The origins that have answered a HEAD with 200. Their 404 to a HEAD needs no confirmation.
    """

    largest_chunk: int | None = None
    warnings: set[int] = field(default_factory=set)
    head_origins: set[str] = field(default_factory=set)


@final
class Life:
    """Whether a client is closed: shared by all that goes on by way of it."""

    over = False

    def check(self) -> None:
        """Raise `UsageError` if it is."""
        if self.over:
            raise UsageError("the client is closed")


@final
class Session:
    """Sends the requests of a client's operations. May be shared by threads.

    Args:
        origin: The registry.
        wire: What answers.
        defaults: What each request's info has where its maker left it open.
        learnt: What is known of the registry.
        life: Whether the client is closed.
        max_manifest_size: Maximum size in bytes of a manifest that is read, or written as an index of referrers.
    """

    def __init__(
        self,
        origin: Origin,
        wire: Transport,
        defaults: RequestInfo,
        learnt: Learnt,
        life: Life,
        max_manifest_size: int = MAX_MANIFEST_SIZE,
    ) -> None:
        self.origin = origin
        self._base = str(origin)
        self._life = life
        self.learnt = learnt
        self._wire = wire
        self.defaults = defaults
        self.max_manifest_size = max_manifest_size

    def with_defaults(self, **changes: Any) -> Session:
        """The same registry through the same transport, with other defaults."""
        defaults = self.defaults.replace(**changes)
        return Session(self.origin, self._wire, defaults, self.learnt, self._life, self.max_manifest_size)

    def do(self, request: Request, *, scope: Scope | None) -> Response:
        """Complete a request and send it; see `Client.do`."""
        info, defaults = request.info, self.defaults
        redactor = Redactor(self.origin)
        completed = info._with_redactor(
            redactor,
            required_scope=info.required_scope if scope is None else scope,
            operation=info.operation or "do",
            debug_id=info.debug_id or defaults.debug_id,
            timeout=defaults.timeout if info.timeout is None else info.timeout,
            deadline=defaults.deadline if info.deadline is None else info.deadline,
            extra={**defaults.extra, **info.extra},
        )
        url = self._base + request.url if request.url.startswith("/") else request.url
        if self.origin.scheme == "https" and url[:5].lower() == "http:":
            # A client of an https registry does not send credentials in clear text, whatever URL it is given.
            completed = completed.replace(anonymous=True, required_scope=Scope.EMPTY)
        return self._round_trip(Request(request.method, url, request.headers, request.body, completed), redactor)

    def _round_trip(self, sent: Request, redactor: Redactor) -> Response:
        """Send a complete request, and mask the secrets of its exchange in what comes of it."""
        self._life.check()
        try:
            response = self._wire.round_trip(sent)
        except OciwireError as error:
            redactor_of(sent).error(error)
            raise
        if response.request is None or response.request.info._redactor is not redactor:
            response = response.replace(request=with_redactor(response.request or sent, redactor))
        self._warn(response)
        return response

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
        """One request of an operation.

        A URL at another origin than the registry's is asked as nobody, for nothing: secrets are not that origin's.

        Returns:
            The response, open, if its status is one of `ok`.

        Raises:
            RegistryError: The status is another one; the response is closed.
            ContentError: A request other than GET and HEAD was answered with an HTML page; the response is closed.
            TransportError: There is no usable answer.
        """
        leaves = not url.startswith("/") and Origin.of(url) != self.origin
        defaults, redactor = self.defaults, Redactor(self.origin)
        # Complete from the beginning: a request that `do` completes is made twice.
        info = RequestInfo(
            required_scope=Scope.EMPTY if leaves else scope,
            operation=operation,
            debug_id=defaults.debug_id,
            timeout=defaults.timeout,
            deadline=defaults.deadline,
            anonymous=leaves,
            idempotent=idempotent,
            extra=defaults.extra,
        )._masked_by(redactor)
        url = self._base + url if url.startswith("/") else url
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

    def put(
        self,
        operation: str,
        url: str,
        scope: Scope,
        digest: Digest,
        body: Body | None,
        *,
        is_stored: Callable[[], bool],
        headers: Mapping[str, str],
        idempotent: bool | None = None,
    ) -> Response:
        """Send the PUT that stores a blob or a manifest.

        201 is success (specification, "Endpoints"). Deployed registries answer 200, 202 and 204, too: these are success
        only if the response names the digest, or the registry has the content.

        Args:
            operation: The client's operation.
            url: As for `send`.
            scope: As for `send`.
            digest: The content's digest.
            body: The body of the PUT.
            is_stored: A function that asks the registry whether it has the content.
            headers: As for `send`.
            idempotent: As for `send`.

        Returns:
            The response, closed.

        Raises:
            RegistryError: The registry refused, or answered 200, 202 or 204 and does not have the content.
            ContentError: The answer is an HTML page.
            TransportError: There is no usable answer.
        """
        response = self.send(
            operation, "PUT", url, scope, ok=(200, 201, 202, 204), headers=headers, body=body, idempotent=idempotent
        )
        response.drain()
        if response.status == 201 or names_digest(response, digest) or is_stored():
            return response
        error = error_from_response(response)
        error.message = (
            f"unexpected status: expected 201; the response does not name {digest}, and the registry does not have it:"
            " push it again"
        )
        error.args = (error.message,)
        raise error

    def head(self, operation: str, url: str, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
        """Send a HEAD; returns the 200 response, closed. An error may need confirmation: see `needs_confirmation`.

        Raises:
            RegistryError: The status is another one.
            TransportError: There is no usable answer.
        """
        response = self.send(operation, "HEAD", url, scope, ok=(200,), headers=headers)
        response.close()
        answered = self._answered_by(response)
        if answered not in self.learnt.head_origins and len(self.learnt.head_origins) < _MAX_HEAD_ORIGINS:
            # A redirect to a CDN that ends in 200 shows that both hosts support HEAD.
            self.learnt.head_origins.update((answered, str(self.origin)))
        return response

    def needs_confirmation(self, refusal: RegistryError) -> bool:
        """Whether an error response to a HEAD may only mean that HEAD is not supported, so that a GET must decide."""
        if refusal.status == 404:
            return self._answered_by(refusal) not in self.learnt.head_origins
        return refusal.status in _HEAD_UNSUPPORTED

    def _answered_by(self, answer: Response | RegistryError) -> str:
        """The origin that has answered, as text of the form ``scheme://host:port``."""
        url = str(self.origin) if answer.request is None else answer.request.url
        return "/".join(url.split("/", 3)[:3])

    def location(self, response: Response) -> str:
        """Where an upload goes on.

        Raises:
            ProtocolError: The answer does not tell, or tells what must not be followed.
        """
        asked = response.request.url if response.request is not None else str(self.origin)
        try:
            return upload_location(asked, response.headers.get("location"))
        except ProtocolError as error:
            error.request = response.request
            raise

    def _warn(self, response: Response) -> None:
        if "warning" not in response.headers:
            return
        for quoted in _WARNING.findall(response.headers["warning"]):
            text = redactor_of(response.request).text(re.sub(r"\\(.)", r"\1", quoted))
            text = sanitize(text, len(text))
            if hash(text) not in self.learnt.warnings and len(self.learnt.warnings) < _MAX_WARNINGS:
                self.learnt.warnings.add(hash(text))
                _WARNINGS.warning("%s: %.500s", self.origin.netloc, text)


def read_anew(send: Callable[[], Response], limit: int) -> tuple[Response, bytes]:
    """Send, and read a body that is small; anew from the beginning if the connection is lost in the middle of it.

    Args:
        send: Sends a request that may be sent again.
        limit: How many bytes are read at the most, and one more that tells whether there would be others.

    Returns:
        The response, closed, and its body.

    Raises:
        ReadError: It was lost three times.
        OciwireError: What `send` raises.
    """
    for tries_left in reversed(range(_TRIES)):
        with send() as response:
            try:
                body = response.read(limit + 1)
                if len(body) < min(response.length or 0, limit):
                    raise ReadError("the body ended before its Content-Length", request=response.request)
                break
            except ReadError:
                if not tries_left:
                    raise
    return response, body


@contextmanager
def refusal_means_missing() -> Iterator[None]:
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
