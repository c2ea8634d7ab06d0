"""Writes down what passes, wherever in a stack it stands: a line for each exchange, and one for what was read of it.

Secrets are never logged: headers are masked as in their repr, and the secrets of the exchange in all text of a peer.
Only query parameters that the OCI distribution specification defines are shown, and none of a cross-origin URL. The
body of a token server's response is withheld. The layer never reads a body itself: it sees the bytes that its owner
reads.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from typing import final

from .._http.headers import SECRET_HEADERS, Headers
from .._http.messages import Request, Response, redactor_of
from .._http.redact import Redactor
from .._http.transport import Transport
from .._text import format_size, sanitize, status_line
from ..errors import OciwireError

__all__ = ["LogTransport"]

_LOGGER = logging.getLogger("ociwire.wire")
_TELLING = ("Location", "Retry-After", "WWW-Authenticate", "Range", "Content-Range", "OCI-Chunk-Min-Length", "Warning")
_QUOTED = 500
"""How many bytes of an error's body a line shows."""


@final
class LogTransport:
    """Logs each exchange: who asked (``debug_id``, operation) and its number, method, URL, status, time and bytes.

    INFO is what went well, and 401 and 404, which are often part of that; WARNING is every other refusal, and every
    exception. DEBUG adds the headers. Where the logger takes no INFO, requests pass at no cost.

    Args:
        inner: The transport to ask.
        logger: Where to; None is ``ociwire.wire``.
    """

    def __init__(self, inner: Transport, *, logger: logging.Logger | None = None) -> None:
        self._inner = inner
        self._log = _LOGGER if logger is None else logger
        self._numbers = itertools.count(1)

    def round_trip(self, request: Request, /) -> Response:
        """Ask the inner transport, and write down what came of it."""
        if not self._log.isEnabledFor(logging.INFO):
            return self._inner.round_trip(request)
        exchange = _Exchange(self._log, request, next(self._numbers))
        if request.body is not None:
            request = request.replace(body=request.body.map(exchange.sent))
        try:
            response = self._inner.round_trip(request)
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.answered(response)
        if response.request is None:
            response = response.replace(request=request)
        return response.replace(body=_Watched(response, exchange)) if response.length != 0 else response

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()


class _Exchange:
    """One request and its answer, as the log tells of them."""

    def __init__(self, log: logging.Logger, request: Request, number: int) -> None:
        self._log = log
        self._request = request
        self._start = time.perf_counter()
        self.sent = _Sent()
        self._level = logging.INFO
        self._quotes = False
        info = request.info
        self._who = " ".join(word for word in (info.debug_id, info.operation, f"[{number}]") if word)

    def _asked(self) -> str:
        """The request, masked when it is logged: only then all secrets that inner layers have sent are known.

        A peer may repeat one of them in the Location or the Link that this request follows.
        """
        return f"{self._request.method} {redactor_of(self._request).url(self._request.url)}{_proof(self._request)}"

    def failed(self, error: BaseException) -> None:
        """The exchange ended in an exception. Only of ociwire's own is the text known to hold no secret."""
        said = f"{type(error).__name__}: {error}" if isinstance(error, OciwireError) else type(error).__name__
        said = redactor_of(self._request).text(said)
        after = f"{self._time()}{self._uploaded()}"
        self._log.warning("%s %s -> failed after %s: %s", self._who, self._asked(), after, sanitize(said, _QUOTED))
        self._show_headers("sent", self._request.headers, None)

    def answered(self, response: Response) -> None:
        """The head of an answer came."""
        self._quotes = response.status >= 400 and self._request.info.operation != "token"
        if response.status >= 400 and response.status not in (401, 404):
            self._level = logging.WARNING
        redactor, headers = redactor_of(response.request or self._request), response.headers
        telling = [f"; {name}: {_value(name, headers[name], redactor)}" for name in _TELLING if name in headers]
        line = f"{status_line(response.status)} in {self._time()}{self._uploaded()}{''.join(telling)}"
        self._log.log(self._level, "%s %s -> %s", self._who, self._asked(), line)
        self._show_headers("sent", self._request.headers, None)
        self._show_headers("received", headers, redactor)

    def read(self, count: int, length: int | None, said: bytes, error: BaseException | None) -> None:
        """What was read of the body, by its owner, when it was let go of."""
        whole = length is None or count == length
        of = "" if length is None or whole else f" of {_bytes(length)}"
        quote = f": {sanitize(said.decode('utf-8', 'replace'), _QUOTED)}" if said and self._quotes else ""
        lost = "" if error is None else f", then {type(error).__name__}"
        level = self._level if error is None else logging.WARNING
        self._log.log(level, "%s <- %s%s in %s%s%s", self._who, _bytes(count), of, self._time(), lost, quote)

    def _uploaded(self) -> str:
        body = self._request.body
        if body is None or body.length == 0:
            return ""
        if body.length is None or body.length == self.sent.count:
            return f", {_bytes(self.sent.count)} sent"
        return f", {_bytes(self.sent.count)} of {_bytes(body.length)} sent"

    def _time(self) -> str:
        seconds = time.perf_counter() - self._start
        return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1e3:.0f} ms"

    def _show_headers(self, which: str, headers: Headers, redactor: Redactor | None) -> None:
        if self._log.isEnabledFor(logging.DEBUG):
            fields = headers.items() if redactor is None else [(redactor.text(n), v) for n, v in headers.items()]
            shown = Headers.received((name, _value(name, value, redactor)) for name, value in fields)
            self._log.debug("%s %s %r", self._who, which, shown)


class _Sent:
    """Counts the bytes of a request's body that were sent. For `Body.map`.

    Refers to no request: an exception keeps the body, and its request's headers may be secret.
    """

    def __init__(self) -> None:
        self.count = 0

    def begin(self) -> None:
        """The body is sent, perhaps not for the first time."""
        self.count = 0

    def __call__(self, chunk: bytes) -> bytes:
        """A chunk of the body passes."""
        self.count += len(chunk)
        return chunk


class _Watched:
    """A response's body: counts what its owner reads, keeps the beginning of a refusal, and tells once."""

    def __init__(self, response: Response, exchange: _Exchange) -> None:
        self._response = response
        self._exchange = exchange
        self.known_length = response.length
        self._count = 0
        self._said = bytearray()
        self._told = False

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            count = self._response.readinto(buffer)
        except BaseException as error:
            self._tell(error)
            raise
        self._count += count
        if self._response.status >= 400 and len(self._said) < _QUOTED:
            self._said += buffer[:count]
        if (count == 0 and len(buffer)) or self._count == self.known_length:
            self._tell(None)
        return count

    def _shorten_timeout(self, seconds: float) -> None:
        self._response._shorten_timeout(seconds)

    def close(self) -> None:
        self._tell(None)
        self._response.close()

    def _tell(self, error: BaseException | None) -> None:
        if not self._told:
            self._told = True
            said = bytes(self._said)
            if said:
                redactor = redactor_of(self._response.request)
                said = redactor.data(said, is_cut=len(said) != self.known_length)
            self._exchange.read(self._count, self.known_length, said, error)


def _proof(request: Request) -> str:
    """How a request is authorized: by which scheme, where it is one that is known. Anything else may be a secret."""
    if "authorization" not in request.headers:
        return ""
    scheme, space, _ = request.headers["authorization"].partition(" ")
    return f" (with {scheme.title()})" if space and scheme.lower() in ("basic", "bearer") else " (with credentials)"


def _value(name: str, value: str, redactor: Redactor | None) -> str:
    """A header's value without secrets. Headers that were sent need no redactor."""
    if name.lower() in SECRET_HEADERS:
        return "***"  # masked here, not only in the repr: handlers see the record's arguments
    if redactor is None:
        return sanitize(value, 300)
    if name.lower() in ("location", "content-location"):
        value = redactor.url(value)
    elif name.lower() == "link":
        value = re.sub("<([^>]*)>", lambda match: f"<{redactor.url(match[1])}>", value)
    return sanitize(redactor.text(value), 300)


def _bytes(count: int) -> str:
    """A number of bytes, to the byte: of two sizes that differ by one, both are to be seen."""
    return f"{count} B" if count < 10_000 else f"{count} B ({format_size(count)})"
