"""check_layer: every layer of ociwire passes, and each broken rule is reported by its message."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import ociwire.transport
from ociwire import Body, FunctionTransport, Layer, Request, Response, Transport, default_transport, stack
from ociwire.auth import Anonymous, Credential, StaticCredentials
from ociwire.errors import AuthError, ConnectError, ReadError, TransportError
from ociwire.testing import check_layer
from ociwire.transport import AuthTransport, HeadersTransport


def is_layer(value: object) -> bool:
    """Return whether it is a class whose constructor takes ``(inner, *, options)``."""
    return inspect.isclass(value) and next(iter(inspect.signature(value).parameters), "") == "inner"


MINE = StaticCredentials("registry.example", Credential(username="me", password="secret"))
OPTIONS: dict[str, dict[str, Any]] = {
    "AuthTransport": {"credentials": MINE},
    "RetryTransport": {"sleep": lambda seconds: None},
}
LAYERS: dict[str, Layer] = {
    name: partial(value, **OPTIONS.get(name, {}))
    for name in ociwire.transport.__all__
    if is_layer(value := getattr(ociwire.transport, name))
}


def test_layers_of_the_package_are_found() -> None:
    assert set(LAYERS) == {
        "LogTransport",
        "RetryTransport",
        "RedirectTransport",
        "HeadersTransport",
        "AuthTransport",
    }


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_check_layer_each_layer_passes(layer: Layer) -> None:
    check_layer(layer)


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: inner,
        partial(HeadersTransport, user_agent="mine/1"),
        lambda inner: HeadersTransport(HeadersTransport(inner)),
        lambda inner: default_transport(base=inner, credentials=MINE),
        partial(AuthTransport, credentials=Anonymous()),
        lambda inner: stack(inner, *LAYERS.values()),
    ],
    ids=["none", "options", "twice", "default", "anonymous", "all"],
)
def test_check_layer_each_stack_passes(make: Layer) -> None:
    check_layer(make)


# --- layers that break one rule each ---


class Right:
    """Layer that forwards everything. Each subclass breaks one rule."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    def round_trip(self, request: Request, /) -> Response:
        return self.inner.round_trip(request)

    def close(self) -> None:
        self.inner.close()


class NoClose:
    """Has no method close()."""

    def __init__(self, inner: Transport) -> None:
        self.round_trip = inner.round_trip


class NoRoundTrip:
    """Has no method round_trip()."""

    def __init__(self, inner: Transport) -> None:
        self.close = inner.close


class ReturnsNothing(Right):
    """Returns None instead of the response."""

    def round_trip(self, request: Request, /) -> Response:
        super().round_trip(request).close()
        return None  # type: ignore[return-value]


class RaisesAlways(Right):
    """Raises for every request."""

    def round_trip(self, request: Request, /) -> Response:
        raise ReadError("no")


class ChangesHeaders(Right):
    """Changes the headers of the caller's request."""

    def round_trip(self, request: Request, /) -> Response:
        object.__setattr__(request, "headers", request.headers.updated({"X-Added": "1"}))
        return super().round_trip(request)


class LosesRequest(Right):
    """Returns a response without a request."""

    def round_trip(self, request: Request, /) -> Response:
        return super().round_trip(request).replace(request=None)


class ReadsBody(Right):
    """Reads the body of the response that it returns."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        response.read(4)
        return response


class SendsAgain(Right):
    """Base of layers that retry incorrectly. Subclasses say how."""

    again: tuple[int, ...] = ()
    discards = True
    checks = True

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        if response.status not in self.again or (self.checks and request.body and not request.body.resendable):
            return response
        if self.discards:
            response.drain()
        return super().round_trip(request)


class LeavesOpen(SendsAgain):
    """Does not close the response of the first attempt."""

    again = (503,)
    discards = False


class LeavesRedirectOpen(SendsAgain):
    """Does not close the redirect response that it follows."""

    again = (303,)
    discards = False


class LeavesWrappedOpen(Right):
    """Returns a new response whose close() does not close the wrapped one."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        return Response(response.status, response.headers, response.iter_bytes(), request)


class RaisesOverOpen(Right):
    """Raises without closing the response."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        if response.status == 401:
            raise AuthError("no")
        return response


class PullsBody(Right):
    """Reads a single-use body into memory."""

    def round_trip(self, request: Request, /) -> Response:
        if request.body is not None and request.body.resendable:
            request = request.replace(body=b"".join(request.body.open()))
        return super().round_trip(request)


class SendsHalf(Right):
    """Sends a part of the body after a 401."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        if response.status != 401 or request.body is None or not request.body.resendable:
            return response
        response.drain()
        chunks = request.body.open()
        next(chunks)
        return super().round_trip(request.replace(body=Body.of(chunks)))


class SendsRest(SendsAgain):
    """Sends the rest of a single-use body after a 429."""

    again = (429,)
    checks = False


class SendsRestAfterError(Right):
    """Sends the rest of a single-use body after a connection error."""

    def round_trip(self, request: Request, /) -> Response:
        try:
            return super().round_trip(request)
        except ConnectError:
            return super().round_trip(request)


class RedirectsWithTheRest(Right):
    """Sends the rest of a single-use body to the target of a 307."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        if response.status != 307:
            return response
        response.drain()
        return super().round_trip(request.replace(url=response.headers["location"]))


class AuthenticatesWithTheRest(Right):
    """Sends the rest of a single-use body after a 401."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        if response.status != 401:
            return response
        response.drain()
        return super().round_trip(request.with_headers({"Authorization": "Basic bWU6c2VjcmV0"}))


class LogsBodies(Right):
    """Reads a response to log it, and returns it without its content."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        self.logged = response.read()
        return response


class WrapsForeign(Right):
    """Converts every exception to a ReadError."""

    def round_trip(self, request: Request, /) -> Response:
        try:
            return super().round_trip(request)
        except ValueError as error:
            raise ReadError(str(error)) from error


class RetriesForeign(Right):
    """Treats every OSError as a network error."""

    def round_trip(self, request: Request, /) -> Response:
        try:
            return super().round_trip(request)
        except OSError as error:
            if isinstance(error, TransportError) or request.body is not None:
                raise
            return super().round_trip(request)


class RaisesForeignAgain(Right):
    """Retries after an exception that is not an OciwireError, and raises the second one."""

    def round_trip(self, request: Request, /) -> Response:
        if request.body is not None:
            return super().round_trip(request)
        try:
            return super().round_trip(request)
        except ValueError:
            return super().round_trip(request)


class WrapsContent(Right):
    """Converts exceptions that the content raises."""

    def round_trip(self, request: Request, /) -> Response:
        try:
            return super().round_trip(request)
        except Exception as error:
            if request.body is None or isinstance(error, (TransportError, AssertionError)):
                raise
            raise ReadError(str(error)) from error


class SwallowsContent(Right):
    """Returns a response after the content has raised an exception."""

    def round_trip(self, request: Request, /) -> Response:
        try:
            return super().round_trip(request)
        except OSError as error:
            if request.body is None or isinstance(error, TransportError):
                raise
            return Response(500, request=request)


class ResendsContent(Right):
    """Sends another request after the content has raised an exception, then raises it."""

    def round_trip(self, request: Request, /) -> Response:
        try:
            return super().round_trip(request)
        except Exception as error:
            if request.body is not None and not isinstance(error, (TransportError, AssertionError)):
                super().round_trip(request.replace(method="DELETE", body=None)).close()
            raise


class ForeignErrors(Right):
    """Raises a RuntimeError for a transport error."""

    def round_trip(self, request: Request, /) -> Response:
        try:
            return super().round_trip(request)
        except ConnectError as error:
            raise RuntimeError("no answer") from error


class OtherThread(Right):
    """Calls the inner transport in another thread."""

    def round_trip(self, request: Request, /) -> Response:
        outcome: list[Any] = []

        def ask() -> None:
            try:
                outcome.append(self.inner.round_trip(request))
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                outcome.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]


class KeepsOpen(Right):
    """Does not close the inner transport."""

    def close(self) -> None:
        pass


class ClosesOnce(Right):
    """Raises if close() is called twice."""

    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        super().close()


class MixesUp(Right):
    """Stores the last response in an attribute that threads share."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.all_here = threading.Barrier(8)

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        if "/thread-" not in request.url:
            return response
        self.last = response
        self.all_here.wait(10)
        return self.last.replace()


class ReturnsClosed(Right):
    """Returns closed responses."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        response.close()
        return response


class ReturnsClosedToThreads(Right):
    """Returns responses of the thread check closed."""

    def round_trip(self, request: Request, /) -> Response:
        response = super().round_trip(request)
        if "/thread-" in request.url:
            response.close()
        return response


CLOSED = r"the layer left (?:responses|a response) open that it did not return; call drain\(\) or close\(\)"
RESENT = "the layer resent a single-use body of which a chunk was read; check request.body.resendable"
BODY = "the layer changed the body of a response: expected b'the answer', got "
FOREIGN = "an exception that is not an OciwireError"
CONTENT = "an exception that the content raises"
WRONG: list[tuple[Callable[[Transport], Any], str]] = [
    (NoClose, r"the layer has no method close\(\)"),
    (NoRoundTrip, r"the layer has no method round_trip\(\)"),
    (ReturnsNothing, "the layer did not return the response to a request: None"),
    (RaisesAlways, "the layer did not return the response to a request: ReadError"),
    (
        ChangesHeaders,
        r"the layer modified request.headers; use request.with_headers\(\): expected .*X-Own.*, got .*X-Added",
    ),
    (LosesRequest, r"the layer returned a response without a request; use response.replace\(request=request\)$"),
    (ReadsBody, BODY),
    (LeavesOpen, f"{CLOSED}.* open after a 503 response to GET"),
    (LeavesRedirectOpen, f"{CLOSED}.* open after a 303 response to GET"),
    (LeavesWrappedOpen, CLOSED),
    (RaisesOverOpen, f"{CLOSED}.* open after a 401 response to GET"),
    (PullsBody, r"the layer read a single-use body before .*; use body.map\(\) to observe it: 3 chunks were read"),
    (SendsHalf, "the layer sent only a part of a body; .*: sent b'second third' after a 401"),
    (SendsRest, f"{RESENT}: resent after 429"),
    (RedirectsWithTheRest, f"{RESENT}: resent after 307"),
    (AuthenticatesWithTheRest, f"{RESENT}: resent after 401"),
    (LogsBodies, BODY),
    (SendsRestAfterError, f"{RESENT}: resent after a connection error"),
    (
        WrapsForeign,
        f"the layer changed or suppressed {FOREIGN}; let it pass through: expected ValueError.*, got ReadError",
    ),
    (RetriesForeign, f"the layer repeated a request after {FOREIGN}: OSError"),
    (RaisesForeignAgain, f"the layer repeated a request after {FOREIGN}: ValueError"),
    (
        WrapsContent,
        f"the layer changed or suppressed {CONTENT}; let it pass through: expected ForeignError.*, got ReadError",
    ),
    (
        SwallowsContent,
        f"the layer changed or suppressed {CONTENT}; let it pass through: expected OSError.*, got <Response 500",
    ),
    (ResendsContent, f"the layer repeated a request after {CONTENT}: ForeignError"),
    (
        ForeignErrors,
        "the layer turned a transport error into an exception that is not an OciwireError: RuntimeError",
    ),
    (OtherThread, "the layer called the inner transport in another thread or context .*: expected .*caller"),
    (KeepsOpen, r"the layer's close\(\) did not close the inner transport"),
    (ClosesOnce, r"the layer's second close\(\) raised; make close\(\) idempotent: RuntimeError"),
    (MixesUp, "the layer mixed up the responses of threads"),
    (ReturnsClosed, BODY),
    (ReturnsClosedToThreads, "the layer mixed up the responses of threads"),
]


def test_check_layer_correct_layer_passes() -> None:
    check_layer(Right)


def test_check_layer_request_to_other_host_passes() -> None:
    def elsewhere(inner: Transport) -> Transport:
        def ask(request: Request) -> Response:
            return inner.round_trip(request.replace(url=request.url.replace("//registry.", "//mirror.")))

        return FunctionTransport(ask, close=inner.close)

    check_layer(elsewhere)


@pytest.mark.parametrize(("make", "rule"), WRONG, ids=[make.__name__ for make, _ in WRONG])  # type: ignore[attr-defined]
def test_check_layer_broken_rule_is_reported(make: Layer, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"^{rule}"):
        check_layer(make)
