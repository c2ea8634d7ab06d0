"""Checks that a layer follows the rules that all layers of a stack rely on.

Each check wraps a probe, which records requests and returns tracked responses, and simulates one situation.
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
# Statuses that layers act upon: each is the first response of a check, and success follows.
_STATUSES = (200, 400, 401, 403, 404, 417, 429, 500, 502, 503)
_REDIRECTS = (301, 302, 303, 307, 308)

_SHORT_DEADLINE = 0.1
"""Deadline in seconds of a request that always fails, so that a layer that waits between attempts gives up."""

_CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("ociwire_conformance", default="lost")


class ForeignError(Exception):
    """An exception that is not one of ociwire."""


def check_layer(make: Layer) -> None:
    """Check that a layer follows the rules for layers.

    - The caller's request is not changed, and its info is passed on.
    - A response that the layer does not return is closed.
    - A single-use body is not read by the layer, and not sent again after its first chunk was read.
    - Exceptions of the content and foreign exceptions pass through unchanged, and nothing is sent again after them.
      Errors of the transport are raised as errors of ociwire.
    - The inner transport is called in the caller's thread and context.
    - A response has a request.
    - ``close`` closes the inner transport, and is idempotent.
    - Threads do not get each other's responses.

    The check sends GET and PUT for blobs of the repository ``conformance`` at ``https://registry.example``, with an
    empty scope. A layer that refuses some requests must allow these.

    Args:
        make: The layer, as for `stack`. Give a layer that sleeps a sleep function that returns at once, and one that
            authenticates credentials for ``registry.example``, which answers 401 with a Basic challenge.

    Raises:
        AssertionError: The layer breaks a rule. The message names the rule and what was observed.
    """
    for check in _CHECKS:
        check(make)


def _require(holds: bool, rule: str, seen: str = "") -> None:  # noqa: FBT001 - a statement, not an option
    if not holds:
        raise AssertionError(f"{rule}{': ' if seen else ''}{seen}")


class _TrackedBody:
    """A response's body that records whether it was read to the end or closed."""

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
    """The inner transport of the layer: answers by a function, and records requests and bodies."""

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
        # Another path each time, so that a redirect is not a loop.
        headers = {"Location": f"{_URL}elsewhere-{len(self.bodies)}"} if status in _REDIRECTS else {}
        if status == 401:
            headers = {"WWW-Authenticate": 'Basic realm="conformance"'}
        return Response(status, {**headers, "Retry-After": "0"}, body, request)

    def close(self) -> None:
        self.closed += 1


class _SingleUse:
    """Single-use content that counts the chunks that were read."""

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
        _require(callable(getattr(made, name, None)), f"a transport has {name}()", repr(made))


def _check_answer(make: Layer) -> None:
    for body in (None, _CONTENT):
        probe = _Probe(lambda request, index: 200)
        info = RequestInfo(operation="conformance", extra={"tenant": "a"})
        request = Request("GET" if body is None else "PUT", _URL + "answer", {"X-Own": "a"}, body, info)
        before = _shown(request)
        outcome = _ask(make(probe), request)
        _require(_shown(request) == before, "the caller's request is not changed", f"{_shown(request)}, was {before}")
        if not isinstance(outcome, Response):
            raise AssertionError(f"a request that is answered returns a response: {outcome!r}")
        _require(outcome.request is not None, "a response names its request (Response.request)")
        content = _content(outcome)
        _require(
            not probe.requests or content == _ANSWERED, "the body of a response comes through whole", repr(content)
        )
        for asked in probe.requests:
            is_kept = (asked.info.operation, dict(asked.info.extra)) == ("conformance", {"tenant": "a"})
            _require(is_kept, "what a request's info carries is handed on", repr(asked.info))
        _finish(outcome)


def _shown(request: Request) -> str:
    return repr((request.method, request.url, list(request.headers.items()), request.body, request.info))


def _check_unreturned_closed(make: Layer) -> None:
    for method in ("GET", "PUT"):
        for status in _STATUSES + _REDIRECTS:
            probe = _Probe(lambda request, index, status=status: status if index == 0 else 200)  # type: ignore[misc]
            body = _CONTENT if method == "PUT" else None
            _finish(_ask(make(probe), Request(method, f"{_URL}swallowed-{status}", body=body)))
            left_open = sum(body.open for body in probe.bodies)
            _require(
                left_open == 0,
                "a response that is not returned is closed, and closing the returned one closes what it wraps",
                f"{left_open} open after {method} was answered {status}",
            )


def _check_unreturned_closed_after_error(make: Layer) -> None:
    for status in (429, 502, 503, 401, 307):
        probe = _Probe(lambda request, index, status=status: status if index == 0 else ConnectError("gone"))  # type: ignore[misc]
        _finish(_ask(make(probe), _request_with_deadline(f"before-an-error-{status}")))
        rule = "a response that is not returned is closed"
        _require(not any(body.open for body in probe.bodies), rule, f"a {status} is open after what followed it failed")


def _check_single_use_not_read(make: Layer) -> None:
    """The body was not read when the response came: the layer may send it, whole, but must not read it."""
    for status in _STATUSES + _REDIRECTS:
        content = _SingleUse()

        def answer(request: Request, index: int, status: int = status, content: _SingleUse = content) -> int:
            if index == 0:
                _require(
                    content.chunks_read == 0,
                    "a layer does not pull a single-use body",
                    f"{content.chunks_read} chunks gone",
                )
                return status
            if request.body is not None:
                sent = b"".join(request.body.open())
                _require(sent == _CONTENT, "a body is sent whole or not at all", f"{sent!r} after a {status}")
            return 201

        body = Body.of(content, len(_CONTENT))
        outcome = _ask(make(_Probe(answer)), Request("PUT", f"{_URL}kept-{status}", body=body))
        if isinstance(outcome, AssertionError):
            raise outcome
        _finish(outcome)


def _check_single_use_not_resent(make: Layer) -> None:
    """A chunk was read when the response came: the rest of the body must not be sent."""
    for answered in (*_STATUSES, *_REDIRECTS, None):
        content = _SingleUse()

        def answer(request: Request, index: int, answered: int | None = answered) -> int | BaseException:
            if index == 0 and request.body is not None:
                next(request.body.open())
                return ConnectError("reset", request=request) if answered is None else answered
            _require(
                request.body is None,
                "a single-use body is never sent again after its first chunk was pulled",
                f"it was, after {answered or 'a connection error'}",
            )
            return 200

        body = Body.of(content, len(_CONTENT))
        outcome = _ask(make(_Probe(answer)), Request("PUT", f"{_URL}spent-{answered}", body=body))
        if isinstance(outcome, AssertionError):
            raise outcome
        _finish(outcome)


def _check_exceptions(make: Layer) -> None:
    own = "of the user's own"
    for raised in (ForeignError(own), OSError(5, own), ValueError(own), KeyboardInterrupt(own)):
        probe = _Probe(lambda request, index, raised=raised: raised)  # type: ignore[misc]
        _check_passed_on(make, probe, Request("GET", _URL + "foreign"), raised, "a foreign exception")


def _check_content_exceptions(make: Layer) -> None:
    def answer(request: Request, index: int) -> int:
        if request.body is not None:
            b"".join(request.body.open())
        return 201

    # SizeMismatch: the content may be a blob of another registry, whose errors are not errors of this request.
    for raised in (ForeignError("foreign"), OSError(5, "of the user's own"), SizeMismatch("of the user's own")):
        body = Body.of(_SingleUse(raised), len(_CONTENT))
        request = Request("PUT", _URL + "content", body=body)
        _check_passed_on(make, _Probe(answer), request, raised, "an exception that the content raises")


def _check_passed_on(make: Layer, probe: _Probe, request: Request, raised: BaseException, what: str) -> None:
    outcome = _ask(make(probe), request)
    _finish(outcome)
    _require(outcome is raised, f"{what} is passed on unchanged", f"{raised!r} became {outcome!r}")
    _require(len(probe.requests) == 1, f"nothing is sent again after {what}", repr(raised))


def _check_transport_errors(make: Layer) -> None:
    outcome = _ask(make(_Probe(lambda request, index: ConnectError("refused"))), _request_with_deadline("refused"))
    _finish(outcome)
    rule = "where there is no answer, an error of ociwire's comes out"
    _require(isinstance(outcome, (OciwireError, Response)), rule, repr(outcome))


def _check_thread_and_context(make: Layer) -> None:
    calls: list[tuple[int, str]] = []

    def answer(request: Request, index: int) -> int:
        calls.append((threading.get_ident(), _CALLER.get()))
        return 200

    token = _CALLER.set("the caller's")
    try:
        _finish(_ask(make(_Probe(answer)), Request("GET", _URL + "thread")))
    finally:
        _CALLER.reset(token)
    own = (threading.get_ident(), "the caller's")
    rule = "the inner transport is asked in the caller's thread and context"
    _require(all(call == own for call in calls), rule, f"{calls} instead of {own}")


def _check_close(make: Layer) -> None:
    probe = _Probe(lambda request, index: 200)
    transport = make(probe)
    transport.close()
    _require(probe.closed >= 1, "close() closes the inner transport")
    again = None
    try:
        transport.close()
    except Exception as error:  # noqa: BLE001 - every exception is a failure
        again = error
    _require(again is None, "close() may be called twice", repr(again))


def _check_threads(make: Layer) -> None:
    def answer(request: Request, index: int) -> Response:
        return Response(200, (), request.url.rpartition("/")[2].encode(), request)  # a layer may ask another host

    transport = make(_Probe(answer))
    start = threading.Barrier(8)
    wrong: list[str] = []

    def ask(number: int) -> None:
        start.wait()
        for turn in range(20):
            name = f"thread-{number}-{turn}"
            content = _content(_ask(transport, Request("GET", _URL + name)))
            if content != name.encode():
                wrong.append(f"{content!r} instead of {name}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _require(not wrong, "threads do not get each other's answers", "; ".join(wrong[:3]))


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
