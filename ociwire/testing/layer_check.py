"""Conformance check for layers.

Each check simulates one situation. It wraps a probe in the layer. The probe records requests and tracks whether its
responses are closed.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .._http.body import Body
from .._http.messages import Request, RequestInfo, Response
from ..errors import ConnectError, OciwireError, SizeMismatch
from ..transport import Layer, Transport

__all__ = ["check_layer"]

_URL = "https://registry.example/v2/conformance/blobs/"
_CHUNKS = (b"first ", b"second ", b"third")
_CONTENT = b"".join(_CHUNKS)
_ANSWERED = b"the answer"
# Statuses that layers may handle. A check answers the first request with one of them, and later requests with success.
_STATUSES = (200, 400, 401, 403, 404, 417, 429, 500, 502, 503)
_REDIRECTS = (301, 302, 303, 307, 308)

_SHORT_DEADLINE = 0.1
"""Time in seconds until the deadline of requests that always fail. It limits how long a layer retries them."""

_CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("ociwire_conformance", default="lost")


class ForeignError(Exception):
    """An exception that is not an `OciwireError`."""


def check_layer(make: Layer) -> None:
    """Check that a layer follows the rules on which the other layers of a stack rely.

    - The layer does not change the caller's request, and forwards its info.
    - It closes every response that it does not return.
    - It does not read a single-use body, and does not resend a single-use body after its first chunk was read.
    - It does not change exceptions that the content raises, or exceptions that are not an `OciwireError`, and does not
      repeat the request after them. It raises transport errors as an `OciwireError`.
    - It calls the inner transport in the caller's thread and context.
    - Its responses have a request.
    - `close` closes the inner transport and is idempotent.
    - It is thread-safe: threads do not get each other's responses.

    The check sends GET and PUT requests for blobs of the repository ``conformance`` at ``https://registry.example``,
    with an empty scope. A layer that blocks requests must allow these.

    Args:
        make: The layer, as for `stack`. If it sleeps, pass it a sleep function that returns immediately. If it
            authenticates, pass it credentials for ``registry.example``, which requires Basic authentication.

    Raises:
        AssertionError: The layer breaks a rule. The message states the violation, what to do, and what was observed.

    >>> from ociwire.testing import check_layer
    >>> from ociwire.transport import RedirectTransport
    >>> check_layer(RedirectTransport)
    """
    for check in _CHECKS:
        check(make)


def _require(holds: bool, rule: str, seen: str = "") -> None:  # noqa: FBT001 - a statement, not an option
    if not holds:
        raise AssertionError(f"{rule}{': ' if seen else ''}{seen}")


class _TrackedBody:
    """Response body that records whether it was read to its end or closed."""

    def __init__(self) -> None:
        self._remaining = memoryview(_ANSWERED)
        self.open = True

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._remaining))
        buffer[:count], self._remaining = self._remaining[:count], self._remaining[count:]
        self.open = self.open and bool(self._remaining)
        return count

    def close(self) -> None:
        self.open = False


class _Probe:
    """Inner transport of the layer under test. Records requests, and answers each with the result of a function."""

    def __init__(self, answer: Callable[[Request, int], Response | BaseException | int]) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.bodies: list[_TrackedBody] = []
        self.closed = 0

    def round_trip(self, request: Request, /) -> Response:
        with self._lock:
            self.requests.append(request)
            index = len(self.requests) - 1
        answer = self._answer(request, index)
        if isinstance(answer, BaseException):
            raise answer
        return self.respond(answer, request) if isinstance(answer, int) else answer

    def respond(self, status: int, request: Request) -> Response:
        body = _TrackedBody()
        self.bodies.append(body)
        # A different path each time, so that redirects do not form a loop.
        headers = {"Location": f"{_URL}elsewhere-{len(self.bodies)}"} if status in _REDIRECTS else {}
        if status == 401:
            headers = {"WWW-Authenticate": 'Basic realm="conformance"'}
        return Response(status, {**headers, "Retry-After": "0"}, body, request)

    def close(self) -> None:
        self.closed += 1


class _SingleUse:
    """Single-use content that counts its chunks as they are read."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.chunks_read = 0
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        for chunk in _CHUNKS:
            self.chunks_read += 1
            yield chunk
            if self._error is not None:
                raise self._error


def _ask(transport: Transport, request: Request) -> Response | BaseException:
    try:
        return transport.round_trip(request)
    except BaseException as error:  # noqa: BLE001 - the exception is checked
        return error


def _request_with_deadline(name: str) -> Request:
    return Request("GET", _URL + name, info=RequestInfo(deadline=time.monotonic() + _SHORT_DEADLINE))


def _content(outcome: Response | BaseException) -> bytes | BaseException:
    try:
        return outcome.read() if isinstance(outcome, Response) else outcome
    except OciwireError as error:
        return error


def _finish(outcome: Response | BaseException) -> None:
    if isinstance(outcome, Response):
        outcome.close()


def _check_shape(make: Layer) -> None:
    made: Any = make(_Probe(lambda request, index: 200))
    for name in ("round_trip", "close"):
        _require(callable(getattr(made, name, None)), f"the layer has no method {name}()", repr(made))


def _check_answer(make: Layer) -> None:
    for body in (None, _CONTENT):
        probe = _Probe(lambda request, index: 200)
        info = RequestInfo(operation="conformance", extra={"tenant": "a"})
        request = Request("GET" if body is None else "PUT", _URL + "answer", {"X-Own": "a"}, body, info)
        before = _fields(request)
        outcome = _ask(make(probe), request)
        for name, value in _fields(request).items():
            remedy = "with_headers()" if name == "headers" else "replace()"
            changed = f"expected {before[name]}, got {value}"
            _require(value == before[name], f"the layer modified request.{name}; use request.{remedy}", changed)
        if not isinstance(outcome, Response):
            raise AssertionError(f"the layer did not return the response to a request: {outcome!r}")
        remedy = "use response.replace(request=request)"
        _require(outcome.request is not None, f"the layer returned a response without a request; {remedy}")
        content = _content(outcome)
        is_complete = not probe.requests or content == _ANSWERED
        _require(is_complete, "the layer changed the body of a response", f"expected {_ANSWERED!r}, got {content!r}")
        for asked in probe.requests:
            is_kept = (asked.info.operation, dict(asked.info.extra)) == ("conformance", {"tenant": "a"})
            _require(is_kept, "the layer dropped the info of a request; use request.replace()", repr(asked.info))
        _finish(outcome)


def _fields(request: Request) -> dict[str, str]:
    return {
        "method": request.method,
        "url": request.url,
        "headers": repr(list(request.headers.items())),
        "body": repr(request.body),
        "info": repr(request.info),
    }


def _check_unreturned_closed(make: Layer) -> None:
    for method in ("GET", "PUT"):
        for status in _STATUSES + _REDIRECTS:
            probe = _Probe(lambda request, index, status=status: status if index == 0 else 200)  # type: ignore[misc]
            body = _CONTENT if method == "PUT" else None
            _finish(_ask(make(probe), Request(method, f"{_URL}swallowed-{status}", body=body)))
            left_open = sum(body.open for body in probe.bodies)
            _require(
                left_open == 0,
                "the layer left responses open that it did not return; call drain() or close() on them, and close the"
                " body that another one wraps",
                f"{left_open} open after a {status} response to {method}",
            )


def _check_unreturned_closed_after_error(make: Layer) -> None:
    for status in (429, 502, 503, 401, 307):
        probe = _Probe(lambda request, index, status=status: status if index == 0 else ConnectError("gone"))  # type: ignore[misc]
        _finish(_ask(make(probe), _request_with_deadline(f"before-an-error-{status}")))
        rule = "the layer left a response open that it did not return; call drain() or close() on it"
        seen = f"a {status} response is open after the next request failed"
        _require(not any(body.open for body in probe.bodies), rule, seen)


def _check_single_use_not_read(make: Layer) -> None:
    """Check that a layer does not read a single-use body itself. It may resend the body if no chunk was read yet."""
    for status in _STATUSES + _REDIRECTS:
        content = _SingleUse()

        def answer(request: Request, index: int, status: int = status, content: _SingleUse = content) -> int:
            if index == 0:
                _require(
                    content.chunks_read == 0,
                    "the layer read a single-use body before it forwarded the request; use body.map() to observe it",
                    f"{content.chunks_read} chunks were read",
                )
                return status
            if request.body is not None:
                sent = b"".join(request.body.open())
                rule = "the layer sent only a part of a body; check request.body.resendable before you repeat a request"
                _require(sent == _CONTENT, rule, f"sent {sent!r} after a {status} response")
            return 201

        body = Body.of(content, len(_CONTENT))
        outcome = _ask(make(_Probe(answer)), Request("PUT", f"{_URL}kept-{status}", body=body))
        if isinstance(outcome, AssertionError):
            raise outcome
        _finish(outcome)


def _check_single_use_not_resent(make: Layer) -> None:
    """Check that a layer does not resend a partially consumed body."""
    for answered in (*_STATUSES, *_REDIRECTS, None):
        content = _SingleUse()

        def answer(request: Request, index: int, answered: int | None = answered) -> int | BaseException:
            if index == 0 and request.body is not None:
                next(request.body.open())
                return ConnectError("reset", request=request) if answered is None else answered
            _require(
                request.body is None,
                "the layer resent a single-use body of which a chunk was read; check request.body.resendable",
                f"resent after {answered or 'a connection error'}",
            )
            return 200

        body = Body.of(content, len(_CONTENT))
        outcome = _ask(make(_Probe(answer)), Request("PUT", f"{_URL}spent-{answered}", body=body))
        if isinstance(outcome, AssertionError):
            raise outcome
        _finish(outcome)


def _check_exceptions(make: Layer) -> None:
    text = "raised by the inner transport"
    for raised in (ForeignError(text), OSError(5, text), ValueError(text), KeyboardInterrupt(text)):
        probe = _Probe(lambda request, index, raised=raised: raised)  # type: ignore[misc]
        kind = "an exception that is not an OciwireError"
        _check_passed_on(make, probe, Request("GET", _URL + "foreign"), raised, kind)


def _check_content_exceptions(make: Layer) -> None:
    def answer(request: Request, index: int) -> int:
        if request.body is not None:
            b"".join(request.body.open())
        return 201

    text = "raised by the content"
    # SizeMismatch: the content may be read from another registry. Errors of that download are not errors of this
    # request.
    for raised in (ForeignError(text), OSError(5, text), SizeMismatch(text)):
        body = Body.of(_SingleUse(raised), len(_CONTENT))
        request = Request("PUT", _URL + "content", body=body)
        _check_passed_on(make, _Probe(answer), request, raised, "an exception that the content raises")


def _check_passed_on(make: Layer, probe: _Probe, request: Request, raised: BaseException, what: str) -> None:
    outcome = _ask(make(probe), request)
    _finish(outcome)
    seen = f"expected {raised!r}, got {outcome!r}"
    _require(outcome is raised, f"the layer changed or suppressed {what}; let it pass through", seen)
    _require(len(probe.requests) == 1, f"the layer repeated a request after {what}", repr(raised))


def _check_transport_errors(make: Layer) -> None:
    outcome = _ask(make(_Probe(lambda request, index: ConnectError("refused"))), _request_with_deadline("refused"))
    _finish(outcome)
    rule = "the layer turned a transport error into an exception that is not an OciwireError"
    _require(isinstance(outcome, (OciwireError, Response)), rule, repr(outcome))


def _check_thread_and_context(make: Layer) -> None:
    calls: list[tuple[int, str]] = []

    def answer(request: Request, index: int) -> int:
        calls.append((threading.get_ident(), _CALLER.get()))
        return 200

    token = _CALLER.set("caller")
    try:
        _finish(_ask(make(_Probe(answer)), Request("GET", _URL + "thread")))
    finally:
        _CALLER.reset(token)
    own = (threading.get_ident(), "caller")
    rule = "the layer called the inner transport in another thread or context than the caller's"
    _require(all(call == own for call in calls), rule, f"expected {own}, got {calls}")


def _check_close(make: Layer) -> None:
    probe = _Probe(lambda request, index: 200)
    transport = make(probe)
    transport.close()
    _require(probe.closed >= 1, "the layer's close() did not close the inner transport; call close() on it")
    again = None
    try:
        transport.close()
    except Exception as error:  # noqa: BLE001 - every exception is a failure
        again = error
    _require(again is None, "the layer's second close() raised; make close() idempotent", repr(again))


def _check_threads(make: Layer) -> None:
    def answer(request: Request, index: int) -> Response:
        # Return only the last path segment of the URL, because a layer may send the request to another host.
        return Response(200, (), request.url.rpartition("/")[2].encode(), request)

    transport = make(_Probe(answer))
    start = threading.Barrier(8)
    wrong: list[str] = []

    def ask(number: int) -> None:
        start.wait()
        for turn in range(20):
            name = f"thread-{number}-{turn}"
            content = _content(_ask(transport, Request("GET", _URL + name)))
            if content != name.encode():
                wrong.append(f"expected {name}, got {content!r}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _require(
        not wrong,
        "the layer mixed up the responses of threads; keep no state of a request in the layer",
        "; ".join(wrong[:3]),
    )


_CHECKS: tuple[Callable[[Layer], None], ...] = (
    _check_shape,
    _check_answer,
    _check_unreturned_closed,
    _check_unreturned_closed_after_error,
    _check_single_use_not_read,
    _check_single_use_not_resent,
    _check_exceptions,
    _check_content_exceptions,
    _check_transport_errors,
    _check_thread_and_context,
    _check_close,
    _check_threads,
)
