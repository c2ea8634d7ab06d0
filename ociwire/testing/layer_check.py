"""Holds a layer to the rules that all layers keep, whoever wrote it: what is checked here is what a stack relies on.

Each check puts the layer over a probe that records what it is asked and hands out tracked responses, and plays one
thing that happens on a wire.
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
# What a layer may want to act upon, each once before all is well.
_STATUSES = (200, 400, 401, 403, 404, 417, 429, 500, 502, 503)
_REDIRECTS = (301, 302, 303, 307, 308)

_AT_ONCE = 0.1
"""Seconds before the deadline of a request that fails again and again: a layer that waits between attempts gives up."""

_CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("ociwire_conformance", default="lost")


class ForeignError(Exception):
    """Stands for an exception that is none of ociwire's."""


def check_layer(make: Layer) -> None:
    """Check a layer: what it makes around another transport must keep the rules of all layers.

    The rules: the caller's request is not changed. What is not returned is closed. A one-shot body is never sent again
    once a chunk of it was pulled, and never pulled by the layer itself. Exceptions of the content and foreign ones pass
    through unchanged, and nothing is sent again after them; errors of the transport come out as such. The inner
    transport is asked in the caller's thread and context. A response names its request. ``close`` closes the inner
    transport and may be called twice. Threads do not get each other's answers.

    It sends GET and PUT for blobs of the repository ``conformance`` at ``https://registry.example``, with an empty
    scope: a layer that refuses some requests on purpose is made such that it lets these pass.

    Args:
        make: The layer, as `stack` takes it. One that sleeps should be given a sleep that does not; one that
            authenticates, credentials for ``registry.example``, which answers 401 with a Basic challenge.

    Raises:
        AssertionError: A rule is broken; the message says which, and what was seen.
    """
    for check in _CHECKS:
        check(make)


def _require(holds: bool, rule: str, seen: str = "") -> None:  # noqa: FBT001 - a statement, not an option
    if not holds:
        raise AssertionError(f"{rule}{': ' if seen else ''}{seen}")


class _Tracked:
    """A response's body that knows whether it was let go of."""

    def __init__(self) -> None:
        self._left = memoryview(_ANSWERED)
        self.open = True

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        self.open = self.open and bool(self._left)
        return count

    def close(self) -> None:
        self.open = False


class _Probe:
    """The transport under the layer: answers with a function, and records."""

    def __init__(self, answer: Callable[[Request, int], Response | BaseException | int]) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.bodies: list[_Tracked] = []
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
        body = _Tracked()
        self.bodies.append(body)
        # Another path each time, so that a redirect is no loop.
        headers = {"Location": f"{_URL}elsewhere-{len(self.bodies)}"} if status in _REDIRECTS else {}
        if status == 401:
            headers = {"WWW-Authenticate": 'Basic realm="conformance"'}
        return Response(status, {**headers, "Retry-After": "0"}, body, request)

    def close(self) -> None:
        self.closed += 1


class _OneShot:
    """Content that counts what is pulled of it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.pulled = 0
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        for chunk in _CHUNKS:
            self.pulled += 1
            yield chunk
            if self._error is not None:
                raise self._error


def _ask(transport: Transport, request: Request) -> Response | BaseException:
    try:
        return transport.round_trip(request)
    except BaseException as error:  # noqa: BLE001 - which exception comes out is what is checked
        return error


def _hurried(name: str) -> Request:
    return Request("GET", _URL + name, info=RequestInfo(deadline=time.monotonic() + _AT_ONCE))


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
            kept = (asked.info.operation, dict(asked.info.extra)) == ("conformance", {"tenant": "a"})
            _require(kept, "what a request's info carries is handed on", repr(asked.info))
        _finish(outcome)


def _shown(request: Request) -> str:
    return repr((request.method, request.url, list(request.headers.items()), request.body, request.info))


def _check_swallowed(make: Layer) -> None:
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


def _check_swallowed_before_an_error(make: Layer) -> None:
    for status in (429, 502, 503, 401, 307):
        probe = _Probe(lambda request, index, status=status: status if index == 0 else ConnectError("gone"))  # type: ignore[misc]
        _finish(_ask(make(probe), _hurried(f"before-an-error-{status}")))
        rule = "a response that is not returned is closed"
        _require(not any(body.open for body in probe.bodies), rule, f"a {status} is open after what followed it failed")


def _check_one_shot_kept(make: Layer) -> None:
    """Nothing was pulled when the answer came: the layer may send the body again, whole, and must not pull it."""
    for status in _STATUSES + _REDIRECTS:
        content = _OneShot()

        def answer(request: Request, index: int, status: int = status, content: _OneShot = content) -> int:
            if index == 0:
                _require(content.pulled == 0, "a layer does not pull a one-shot body", f"{content.pulled} chunks gone")
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


def _check_one_shot_spent(make: Layer) -> None:
    """A chunk was pulled when the answer came: what is left of a body is never sent."""
    for answered in (*_STATUSES, *_REDIRECTS, None):
        content = _OneShot()

        def answer(request: Request, index: int, answered: int | None = answered) -> int | BaseException:
            if index == 0 and request.body is not None:
                next(request.body.open())
                return ConnectError("reset", request=request) if answered is None else answered
            _require(
                request.body is None,
                "a one-shot body is never sent again after its first chunk was pulled",
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

    # The content may itself be what comes from a registry: its errors are not those of this request.
    for raised in (ForeignError("foreign"), OSError(5, "of the user's own"), SizeMismatch("of the user's own")):
        body = Body.of(_OneShot(raised), len(_CONTENT))
        request = Request("PUT", _URL + "content", body=body)
        _check_passed_on(make, _Probe(answer), request, raised, "an exception that the content raises")


def _check_passed_on(make: Layer, probe: _Probe, request: Request, raised: BaseException, what: str) -> None:
    outcome = _ask(make(probe), request)
    _finish(outcome)
    _require(outcome is raised, f"{what} is passed on unchanged", f"{raised!r} became {outcome!r}")
    _require(len(probe.requests) == 1, f"nothing is sent again after {what}", repr(raised))


def _check_transport_errors(make: Layer) -> None:
    outcome = _ask(make(_Probe(lambda request, index: ConnectError("refused"))), _hurried("refused"))
    _finish(outcome)
    rule = "where there is no answer, an error of ociwire's comes out"
    _require(isinstance(outcome, (OciwireError, Response)), rule, repr(outcome))


def _check_thread_and_context(make: Layer) -> None:
    seen: list[tuple[int, str]] = []

    def answer(request: Request, index: int) -> int:
        seen.append((threading.get_ident(), _CALLER.get()))
        return 200

    token = _CALLER.set("the caller's")
    try:
        _finish(_ask(make(_Probe(answer)), Request("GET", _URL + "thread")))
    finally:
        _CALLER.reset(token)
    own = (threading.get_ident(), "the caller's")
    rule = "the inner transport is asked in the caller's thread and context"
    _require(all(one == own for one in seen), rule, f"{seen} instead of {own}")


def _check_close(make: Layer) -> None:
    probe = _Probe(lambda request, index: 200)
    transport = make(probe)
    transport.close()
    _require(probe.closed >= 1, "close() closes the inner transport")
    again = None
    try:
        transport.close()
    except Exception as error:  # noqa: BLE001 - any is one too many
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
    _check_swallowed,
    _check_swallowed_before_an_error,
    _check_one_shot_kept,
    _check_one_shot_spent,
    _check_exceptions,
    _check_content_exceptions,
    _check_transport_errors,
    _check_thread_and_context,
    _check_close,
    _check_threads,
)
