"""Layer that logs requests and responses: one line per exchange, and another when the response body has been read.

The layer can be placed anywhere in a stack, and logs the exchanges at that position. Secrets are never logged:
sensitive headers are masked, and the secrets of the exchange are masked in all text from a server. Only query
parameters of the OCI distribution specification are shown; for a cross-origin URL, no parameters are shown. The body of
a token response is not shown. The layer does not read a body itself: it observes the bytes that the owner of the
response reads.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Iterator
from typing import final

from .._http.body import wrap_chunks
from .._http.headers import SENSITIVE_HEADERS, URL_HEADERS, Headers
from .._http.messages import Request, Response, redactor_of
from .._http.redact import Redactor
from .._http.response_body import ResponseReader
from .._http.transport import BaseTransport, Transport, check_transport
from .._text import format_size, sanitize, status_line
from ..errors import OciwireError
from .base import with_request

__all__ = ["LogTransport"]

_LOGGER = logging.getLogger("ociwire.wire")
_SHOWN_HEADERS = (
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "Range",
    "Content-Range",
    "OCI-Chunk-Min-Length",
    "Warning",
)
"""Headers of responses that are logged at INFO, in the line of the exchange."""
_MAX_TEXT = 500
"""Maximum length of a quoted error body in bytes, and of an error message in characters."""


@final
class LogTransport(BaseTransport):
    """Logs each exchange with client, operation, number, method, URL, status, duration and sizes.

    Successful exchanges, 401 and 404 are logged at INFO, other error statuses and exceptions at WARNING. Headers are
    logged at DEBUG. If the logger is not enabled for INFO, requests are only passed on. Thread-safe.

    >>> from ociwire import LogTransport, UrllibTransport, default_transport
    >>> transport = default_transport(base=LogTransport(UrllibTransport()))  # logs each request that is really sent

    Args:
        inner: The transport to wrap.
        logger: The logger. `None` means the logger ``ociwire.wire``.
    """

    def __init__(self, inner: Transport, *, logger: logging.Logger | None = None) -> None:
        self._inner = check_transport("inner", inner)
        self._log = _LOGGER if logger is None else logger
        self._numbers = itertools.count(1)

    def round_trip(self, request: Request, /) -> Response:
        """Send the request, and log the exchange."""
        if not self._log.isEnabledFor(logging.INFO):
            return self._inner.round_trip(request)
        entry = _LogEntry(self._log, request, next(self._numbers))
        if request.body is not None:
            request = request.replace(body=wrap_chunks(request.body, entry.sent))
        try:
            response = self._inner.round_trip(request)
        except BaseException as error:  # also KeyboardInterrupt and exceptions of the body's content
            entry.log_failure(error)
            raise
        entry.log_response(response)
        response = with_request(response, request)
        return response.replace(body=_ObservedBody(response, entry)) if response.length != 0 else response

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()


class _LogEntry:
    """The log lines of one exchange."""

    def __init__(self, log: logging.Logger, request: Request, number: int) -> None:
        self._log = log
        self._request = request
        self._start = time.perf_counter()
        self.sent = _SentCounter()
        self._level = logging.INFO
        self._quotes_body = False
        info = request.info
        self._name = " ".join(word for word in (info.debug_id, info.operation, f"[{number}]") if word)

    def log_failure(self, error: BaseException) -> None:
        """Log an exception. The text of other libraries' exceptions is omitted, because it may contain secrets."""
        text = f"{type(error).__name__}: {error}" if isinstance(error, OciwireError) else type(error).__name__
        text = sanitize(redactor_of(self._request).redact_text(text), _MAX_TEXT)
        elapsed = f"{self._elapsed()}{self._upload_size()}"
        self._log.warning("%s %s -> failed after %s: %s", self._name, self._target(), elapsed, text)
        self._log_headers("sent", self._request.headers, None)

    def log_response(self, response: Response) -> None:
        """Log the status and the headers of the response."""
        self._quotes_body = response.status >= 400 and self._request.info.operation != "token"
        if response.status >= 400 and response.status not in (401, 404):
            self._level = logging.WARNING
        redactor, headers = redactor_of(response.request or self._request), response.headers
        header_texts = [
            f"; {name}: {_redact(name, headers[name], redactor)}" for name in _SHOWN_HEADERS if name in headers
        ]
        line = f"{status_line(response.status)} in {self._elapsed()}{self._upload_size()}{''.join(header_texts)}"
        self._log.log(self._level, "%s %s -> %s", self._name, self._target(), line)
        self._log_headers("sent", self._request.headers, None)
        self._log_headers("received", headers, redactor)

    def log_body(self, count: int, length: int | None, start: bytes, error: BaseException | None) -> None:
        """Log how many bytes of the body were read. Called when the body has ended, was closed, or has failed.

        Args:
            count: Number of bytes that were read.
            length: Length of the body in bytes; `None` if it is unknown.
            start: Beginning of the body of an error response, with secrets masked; else empty.
            error: The exception that reading raised; `None` if there was none.
        """
        of_length = "" if length is None or count == length else f" of {_format_bytes(length)}"
        quote = f": {sanitize(start.decode('utf-8', 'replace'), _MAX_TEXT)}" if start and self._quotes_body else ""
        failure = "" if error is None else f", then {type(error).__name__}"
        level = self._level if error is None else logging.WARNING
        line = f"{_format_bytes(count)}{of_length} in {self._elapsed()}{failure}{quote}"
        self._log.log(level, "%s <- %s", self._name, line)

    def _target(self) -> str:
        """Return the method, URL and authentication scheme of the request.

        The URL is masked when the line is logged, because the secrets that inner layers send are not known earlier. If
        the URL is from a Location or Link header, the server may have repeated a secret in it.
        """
        target = f"{self._request.method} {redactor_of(self._request).redact_url(self._request.url)}"
        if "authorization" not in self._request.headers:
            return target
        scheme, space, _ = self._request.headers["authorization"].partition(" ")
        if space and scheme.lower() in ("basic", "bearer"):
            return f"{target} (with {scheme.title()})"
        return f"{target} (with credentials)"  # not the scheme, which may be a secret if it is unknown

    def _upload_size(self) -> str:
        body = self._request.body
        if body is None or body.length == 0:
            return ""
        if body.length is None or body.length == self.sent.count:
            return f", {_format_bytes(self.sent.count)} sent"
        return f", {_format_bytes(self.sent.count)} of {_format_bytes(body.length)} sent"

    def _elapsed(self) -> str:
        seconds = time.perf_counter() - self._start
        return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1e3:.0f} ms"

    def _log_headers(self, direction: str, headers: Headers, redactor: Redactor | None) -> None:
        if self._log.isEnabledFor(logging.DEBUG):
            fields = headers.items() if redactor is None else [(redactor.redact_text(n), v) for n, v in headers.items()]
            masked = Headers.received((name, _redact(name, value, redactor)) for name, value in fields)
            self._log.debug("%s %s %r", self._name, direction, masked)


class _SentCounter:
    """Counts the bytes of a request body that were sent. Passed to `wrap_chunks`.

    It must not refer to the request, which has secret headers, because an exception may keep this object alive with the
    body.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks, and count their bytes, starting at 0 each time the body is opened."""
        self.count = 0
        for chunk in chunks:
            self.count += len(chunk)
            yield chunk


class _ObservedBody(ResponseReader):
    """Reader that counts the bytes that are read, keeps the beginning of an error body, and logs both once."""

    def __init__(self, response: Response, entry: _LogEntry) -> None:
        super().__init__(response)
        self._entry = entry
        self._count = 0
        self._start = bytearray()
        self._is_logged = False

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            count = super().readinto(buffer)
        except BaseException as error:
            self._log(error)
            raise
        self._count += count
        if self._response.status >= 400 and len(self._start) < _MAX_TEXT:
            self._start += buffer[:count]
        # Most callers stop reading at the known length, and do not make the last call, which would return 0.
        if (count == 0 and len(buffer)) or self._count == self.known_length:
            self._log(None)
        return count

    def close(self) -> None:
        self._log(None)
        super().close()

    def _log(self, error: BaseException | None) -> None:
        if not self._is_logged:
            self._is_logged = True
            start = bytes(self._start)
            if start:
                redactor = redactor_of(self._response.request)
                start = redactor.redact_bytes(start, is_truncated=len(start) != self.known_length)
            self._entry.log_body(self._count, self.known_length, start, error)


def _redact(name: str, value: str, redactor: Redactor | None) -> str:
    """Return the value of a header without secrets. `redactor` is `None` for headers of the request."""
    if name.lower() in SENSITIVE_HEADERS:
        return "***"  # `Headers.__repr__` masks it, too, but log handlers receive the object itself
    if redactor is None:
        return sanitize(value, 300)
    if name.lower() in URL_HEADERS:
        value = redactor.redact_url(value)
    elif name.lower() == "link":
        value = re.sub("<([^>]*)>", lambda match: f"<{redactor.redact_url(match[1])}>", value)
    return sanitize(redactor.redact_text(value), 300)


def _format_bytes(count: int) -> str:
    """Format a size exactly, so that sizes that differ by one byte look different."""
    return f"{count} B" if count < 10_000 else f"{count} B ({format_size(count)})"
