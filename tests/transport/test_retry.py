"""Tests of `RetryTransport`: retried requests, their number, their waits, and the result."""

from __future__ import annotations

import gc
import io
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from hypothesis import example, given, settings
from hypothesis import strategies as st
from urllib3 import exceptions

import ociwire.transport.retry
from ociwire import Body, FunctionTransport, Request, RequestInfo, Response
from ociwire._http.body import has_raised
from ociwire._http.urls import Origin
from ociwire.errors import (
    AuthError,
    AuthTimeout,
    BodyConsumedError,
    ConnectError,
    ConnectTimeout,
    CredentialsRejected,
    DeadlinePassed,
    DigestMismatch,
    OciwireError,
    ProtocolError,
    ReadError,
    ReadTimeout,
    RedirectError,
    SizeMismatch,
    TransportError,
    TransportTimeout,
    UsageError,
)
from ociwire.testing import ScriptedTransport
from ociwire.transport import RetryTransport
from tests._support.examples import example_count

URL = "https://registry.example/v2/app/blobs/x?secret=canary"
OTHER = "https://other.example/v2/"
OK = Response(200, (), b"there")
START = 1_000_000.0


class Clock:
    """Clock that only sleeps advance."""

    def __init__(self) -> None:
        self.time = START
        self.sleeps: list[float] = []
        self.during_sleep: list[Callable[[], object]] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.sleeps.append(seconds)
        actions, self.during_sleep = self.during_sleep, []
        for action in actions:
            action()
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    """Return the clock for Retry-After, sleeps and deadlines."""
    return Clock()


def make_transport(inner: Any, clock: Clock, **options: Any) -> RetryTransport:
    transport = RetryTransport(inner, sleep=clock.sleep, clock=clock.now, **options)
    transport._tracker.monotonic = clock.now
    return transport


def attempts(request: Request, answers: list[Any], clock: Clock, **options: Any) -> tuple[int, Any]:
    """Return the number of attempts, and the final response or exception."""
    script = ScriptedTransport(answers)
    try:
        outcome: Any = make_transport(script, clock, **options).round_trip(request)
    except Exception as error:  # noqa: BLE001 - the outcome is inspected
        outcome = error
    assert not isinstance(outcome, AssertionError), outcome
    return len(script.requests), outcome


def get(method: str = "GET", url: str = URL, body: Any = None, **info: Any) -> Request:
    return Request(method, url, {"Authorization": "Bearer canary"}, body, RequestInfo(**info))


def busy(seconds: str | None = None, status: int = 429, body: Any = b"busy") -> Response:
    return Response(status, {} if seconds is None else {"Retry-After": seconds}, body)


class RecordedBody:
    """Response body that records reads and closes."""

    def __init__(self) -> None:
        self.file = io.BytesIO(b"busy")
        self.closed = self.read_to_end = False
        self.on_close: Callable[[], object] = lambda: None

    def readinto(self, buffer: memoryview, /) -> int:
        count = self.file.readinto(buffer)
        self.read_to_end = self.read_to_end or not count
        return count

    def close(self) -> None:
        first, self.closed = not self.closed, True
        if first:
            self.on_close()


# --- the default policy ---

SAFE = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]
UNSAFE = ["POST", "PATCH", "CONNECT", "MKCOL", "get"]
METHODS = [(method, True) for method in SAFE] + [(method, False) for method in UNSAFE]
TRANSIENT = [ConnectError, ConnectTimeout, ReadTimeout, TransportTimeout, ReadError, ProtocolError, TransportError]
PERMANENT: list[type[Exception]] = [
    AuthError,
    AuthTimeout,
    CredentialsRejected,
    SizeMismatch,
    DigestMismatch,
    BodyConsumedError,
    RedirectError,
    DeadlinePassed,
    UsageError,
    OciwireError,
    OSError,
    TimeoutError,
    ConnectionResetError,
    ValueError,
    ZeroDivisionError,
]


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def test_transport_error_every_subclass_is_classified() -> None:
    defined = {kind for kind in subclasses(TransportError) if kind.__module__ == "ociwire.errors"}
    assert defined <= {*TRANSIENT, *PERMANENT}


@pytest.mark.parametrize(("method", "idempotent"), METHODS)
@pytest.mark.parametrize("value", [None, True, False])
@pytest.mark.parametrize("kind", TRANSIENT)
@pytest.mark.parametrize("body", [None, b"content"])
def test_retry_transient_error_idempotent_request_is_retried(
    method: str, idempotent: bool, value: bool | None, kind: type[TransportError], body: Any, clock: Clock
) -> None:
    safe = idempotent if value is None else value
    count, outcome = attempts(get(method, body=body, idempotent=value), [kind("no")] * 4 + [OK], clock)
    assert count == (5 if safe else 1)
    assert isinstance(outcome, Response if safe else kind)


STATUSES = [408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524]


@pytest.mark.parametrize(("method", "idempotent"), METHODS)
@pytest.mark.parametrize("value", [None, True, False])
@pytest.mark.parametrize("status", STATUSES)
def test_retry_transient_status_idempotent_request_is_retried(
    method: str, idempotent: bool, value: bool | None, status: int, clock: Clock
) -> None:
    safe = idempotent if value is None else value
    if value is None and status in (429, 503):
        safe = True
    if method == "HEAD" and status == 500:
        safe = False  # the client falls back to GET at once
    count, outcome = attempts(get(method, idempotent=value), [Response(status)] * 4 + [OK], clock)
    assert count == (5 if safe else 1)
    assert outcome.status == (200 if safe else status)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("content", [lambda: b"content", lambda: io.BytesIO(b"content"), lambda: iter([b"content"])])
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}])
@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
def test_retry_non_idempotent_request_is_retried_only_if_no_byte_was_sent(
    status: int, content: Callable[[], Any], headers: dict[str, str], method: str, clock: Clock
) -> None:
    refusal = Response(status, headers)
    request = get(method, body=Body.of(content()), idempotent=False)
    count, outcome = attempts(request, [refusal, read_body_then(refusal, limit=1), OK], clock)
    assert (count, outcome.status) == (2, status)
    count, outcome = attempts(get(method, body=Body.of(content()), idempotent=False), [refusal, OK], clock)
    assert (count, outcome.status) == (2, 200)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", [None, b""])
def test_retry_non_idempotent_request_without_content_is_sent_once(
    status: int, body: bytes | None, clock: Clock
) -> None:
    assert attempts(get("PATCH", body=body, idempotent=False), [Response(status)], clock)[0] == 1


@pytest.mark.parametrize("status", STATUSES)
def test_retry_non_idempotent_request_blocks_host_for_other_threads(status: int, clock: Clock) -> None:
    layer = make_transport(ScriptedTransport([busy("9", status), OK]), clock)
    assert layer.round_trip(get("PATCH", body=None, idempotent=False)).status == status
    layer.round_trip(get())
    assert clock.sleeps == ([9.0] if status in (429, 503) else [])


@pytest.mark.parametrize("retry", [urllib3.Retry(4, status_forcelist=[500])])
def test_retry_head_500_follows_policy_of_caller(retry: urllib3.Retry, clock: Clock) -> None:
    assert attempts(get("HEAD"), [Response(500), OK], clock, retry=retry)[0] == 2


@pytest.mark.parametrize(
    "status", [100, 200, 201, 202, 206, 301, 304, 307, 400, 401, 403, 404, 413, 416, 417, 425, 501, 505]
)
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Retry-After": "1"}])
def test_retry_other_status_is_returned(status: int, headers: dict[str, str], clock: Clock) -> None:
    if status == 413 and headers:
        pytest.skip("urllib3 respects Retry-After there")
    count, outcome = attempts(get(idempotent=True), [Response(status, headers)], clock)
    assert (count, outcome.status, clock.sleeps) == (1, status, [])


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("POST", 1)])
def test_retry_413_with_retry_after_idempotent_request_is_retried(method: str, times: int, clock: Clock) -> None:
    assert attempts(get(method), [busy("7", 413), OK], clock)[0] == times
    assert clock.sleeps == [7.0] * (times - 1)


def test_retry_default_policy_retries_four_times(clock: Clock) -> None:
    errors = [ReadError(str(number)) for number in range(5)]
    count, outcome = attempts(get(), errors, clock)
    assert count == 5
    assert outcome is errors[-1]
    mixed: list[Any] = [ReadError("a"), busy(), ConnectError("b"), Response(502), Response(504, (), b"last")]
    count, outcome = attempts(get(), mixed, clock)
    assert (count, outcome.read()) == (5, b"last")


def test_backoff_default_policy_first_is_zero_then_doubles(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    attempts(get(), [ReadError("no")] * 5, clock)
    assert clock.sleeps == [1.0, 2.0, 4.0]
    clock.sleeps.clear()
    monkeypatch.setattr("random.random", lambda: 1.0)
    attempts(get(), [Response(503)] * 5, clock)
    assert clock.sleeps == [1.25, 2.25, 4.25]


# --- never retried ---


@pytest.mark.parametrize("kind", PERMANENT)
@pytest.mark.parametrize("retry", [None, urllib3.Retry(9, allowed_methods=None)])
def test_retry_permanent_error_is_raised_at_once(kind: type[Exception], retry: Any, clock: Clock) -> None:
    error = kind("no")
    count, outcome = attempts(get(idempotent=True), [error], clock, retry=retry)
    assert (count, clock.sleeps) == (1, [])
    assert outcome is error
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_retry_base_exception_propagates(kind: type[BaseException], clock: Clock) -> None:
    error = kind()
    with pytest.raises(kind) as caught:
        make_transport(ScriptedTransport([error, OK]), clock).round_trip(get())
    assert caught.value is error


def raised_from(*errors: BaseException) -> ConnectError:
    outer = ConnectError("cannot connect")
    last: BaseException = outer
    for error in errors:
        last.__cause__ = error
        last = error
    return outer


VERIFY = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate"


def certificates() -> dict[str, ConnectError]:
    failed = ssl.SSLCertVerificationError(1, VERIFY)
    mismatch = ssl.SSLCertVerificationError("hostname 'a' doesn't match 'b'")
    ssl_error = exceptions.SSLError(failed)
    pool = urllib3.HTTPSConnectionPool("registry.example")
    name = urllib3.util.ssl_match_hostname.CertificateError("no match")
    return {
        "verification": raised_from(failed),
        "host name": raised_from(mismatch),
        "wrapped": raised_from(ssl_error),
        "wrapped host name": raised_from(exceptions.SSLError(mismatch)),
        "wrapped twice": raised_from(exceptions.MaxRetryError(pool, "/", ssl_error)),
        "below a proxy error": raised_from(exceptions.ProxyError("proxy", ssl_error)),
        "below another error": raised_from(OSError("no"), ssl_error),
        "of urllib3": raised_from(name),
        "of urllib3, wrapped": raised_from(exceptions.SSLError(name)),
        "the CA is unknown to the server": raised_from(ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert")),
        "client certificate required": raised_from(ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert")),
        "client certificate invalid": raised_from(
            exceptions.SSLError(ssl.SSLError(1, "[SSL: SSLV3_ALERT_BAD_CERTIFICATE] alert"))
        ),
    }


@pytest.mark.parametrize("name", certificates())
@pytest.mark.parametrize("retry", [None, urllib3.Retry(9, allowed_methods=None)])
def test_retry_certificate_error_is_raised_at_once(name: str, retry: Any, clock: Clock) -> None:
    error = certificates()[name]
    count, outcome = attempts(get(), [error], clock, retry=retry)
    assert count == 1
    assert outcome is error


def test_retry_tls_to_plain_server_is_raised_at_once(clock: Clock) -> None:
    error = ConnectError("no TLS")
    error.__cause__ = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    assert attempts(get(), [error], clock) == (1, error)


@pytest.mark.parametrize(
    "cause",
    [
        exceptions.SSLError(ssl.SSLError(8, "EOF occurred in violation of protocol")),
        ssl.SSLEOFError(8, "EOF"),
        exceptions.NewConnectionError(urllib3.connection.HTTPConnection("x"), "refused"),
        ConnectionRefusedError(111, "refused"),
    ],
)
def test_retry_other_connect_error_is_retried(cause: BaseException, clock: Clock) -> None:
    assert attempts(get(), [raised_from(cause), OK], clock)[0] == 2


def read_body_then(answer: Callable[[Request], Any] | Any = OK, limit: int | None = None) -> Callable[[Request], Any]:
    """Return a server that reads a body, or its first `limit` chunks, before it responds."""

    def respond(request: Request) -> Any:
        if request.body is not None:
            pieces = request.body.open()
            for _ in pieces if limit is None else (next(pieces) for _ in range(limit)):
                pass
        return answer

    return respond


@pytest.mark.parametrize("kind", [*TRANSIENT, ZeroDivisionError, OSError])
@pytest.mark.parametrize("content", [lambda: b"content", lambda: io.BytesIO(b"content")])
def test_retry_exception_of_content_is_raised_at_once(
    kind: type[Exception], content: Callable[[], Any], clock: Clock
) -> None:
    error = kind("mine")

    def fail(chunk: bytes) -> bytes:
        raise error

    request = get("PUT", body=Body.of(content()).map(fail), idempotent=True)
    count, outcome = attempts(request, [read_body_then(), OK], clock)
    assert count == 1
    assert outcome is error
    assert request.body is not None
    assert has_raised(request.body, error)


def test_retry_network_error_after_content_error_is_retried(clock: Clock) -> None:
    failures = [ReadError("mine")]

    def fail_once(chunk: bytes) -> bytes:
        if failures:
            raise failures.pop()
        return chunk

    request = get("PUT", body=Body.of(b"content").map(fail_once))
    with pytest.raises(ReadError, match="mine"):
        make_transport(ScriptedTransport([read_body_then()]), clock).round_trip(request)
    assert attempts(request, [read_body_then(ReadError("network")), OK], clock)[0] == 2


def test_retry_network_error_at_address_of_content_error_is_retried(clock: Clock) -> None:
    """Python may reuse the address of a freed exception: the record of that exception must not apply to a new one."""

    def fail(chunk: bytes) -> bytes:
        raise ReadError("mine")

    body = Body.of(b"content").map(fail)
    with suppress(ReadError):
        list(body.open())
    gc.collect()
    errors: list[ReadError] = []
    for _ in range(2000):  # one of them gets the address of the freed exception
        errors.append(ReadError("network"))
        assert not has_raised(body, errors[-1])


def test_retry_content_error_body_opened_by_another_request_is_raised_at_once(clock: Clock) -> None:
    """Another thread opens the shared body just after its content has failed in the first thread."""
    first = [True]

    def fail(chunk: bytes) -> bytes:
        if first:
            first.clear()
            raise ReadError("mine")
        return chunk

    body = Body.of(b"content").map(fail)

    def pull(request: Request) -> Response:
        assert request.body is not None
        try:
            list(request.body.open())
        except ReadError:
            assert list(body.open()) == [b"content"]  # the other thread
            raise
        return OK

    count, outcome = attempts(get("PUT", body=body), [pull, OK], clock)
    assert count == 1
    assert isinstance(outcome, ReadError)


def generated() -> Iterator[bytes]:
    yield b"con"
    yield b"tent"


class Pipe:
    """Reader that is not seekable."""

    def __init__(self) -> None:
        self._file = io.BytesIO(b"content")

    def read(self, size: int) -> bytes:
        return self._file.read(size)


SINGLE_USE: list[Callable[[], Any]] = [
    generated,
    Pipe,
    lambda: iter([b"con", b"tent"]),
    lambda: Body.of(generated(), 7),
]


@pytest.mark.parametrize("content", SINGLE_USE)
@pytest.mark.parametrize("failure", [*(kind("no") for kind in TRANSIENT), busy("1"), busy(), busy(status=503)])
@pytest.mark.parametrize("retry", [None, urllib3.Retry(9, allowed_methods=None, status_forcelist=[429, 503])])
def test_retry_single_use_body_is_resent_only_if_unread(
    content: Callable[[], Any], failure: Any, retry: Any, clock: Clock
) -> None:
    request = get("PUT", body=Body.of(content()))
    count, outcome = attempts(request, [lambda request: failure, OK], clock, retry=retry)
    assert (count, outcome.status) == (2, 200)
    request = get("PUT", body=Body.of(content()))
    count, outcome = attempts(request, [read_body_then(failure, limit=1)], clock, retry=retry)
    assert count == 1
    if isinstance(failure, Response):
        assert outcome.status == failure.status
        assert outcome.read() == b"busy"
    else:
        assert outcome is failure


@pytest.mark.parametrize("content", [lambda: b"content", lambda: io.BytesIO(b"content")])
def test_retry_resendable_body_is_sent_from_start_each_time(content: Callable[[], Any], clock: Clock) -> None:
    script = ScriptedTransport([read_body_then(ReadError("no"), 1), read_body_then(busy()), OK])
    make_transport(script, clock).round_trip(get("PUT", body=Body.of(content())))
    assert script.bodies[-1] == b"content"


# --- outcomes ---


@pytest.mark.parametrize("retry", [None, False, urllib3.Retry(1, status_forcelist=[429])])
def test_retry_exhausted_returns_last_response_unchanged(retry: Any, clock: Clock) -> None:
    request = get()
    last = Response(429, {"A": "b"}, RecordedBody(), request)
    before = [busy() for _ in range({None: 4, False: 0}.get(retry, 1))]
    answers = iter([*before, last])
    outcome = make_transport(FunctionTransport(lambda request: next(answers)), clock, retry=retry).round_trip(request)
    assert outcome is last
    assert outcome.read() == b"busy"


def test_retry_response_without_request_gets_the_request(clock: Clock) -> None:
    class Bare:
        def round_trip(self, request: Request, /) -> Response:
            return Response(200)

        def close(self) -> None: ...

    request = get()
    assert make_transport(Bare(), clock).round_trip(request).request is request


def test_retry_attempts_send_the_same_request(clock: Clock) -> None:
    script = ScriptedTransport([ReadError("no"), busy("1"), OK])
    request = get("PUT", body=b"content")
    make_transport(script, clock).round_trip(request)
    assert all(sent is request for sent in script.requests)


def test_retry_exhausted_raises_last_error_with_its_cause(clock: Clock) -> None:
    cause = OSError("why")
    error = ReadError("last")
    error.__cause__ = cause
    _, outcome = attempts(get(), [ReadError("first"), error], clock, retry=urllib3.Retry(1))
    assert outcome is error
    assert outcome.__cause__ is cause
    assert outcome.__context__ is None


def test_retry_discarded_response_is_drained_before_wait(clock: Clock) -> None:
    bodies = [RecordedBody() for _ in range(3)]
    drained: list[bool] = []
    clock.during_sleep.append(lambda: drained.append(bodies[0].closed and bodies[0].read_to_end))
    script = ScriptedTransport([busy("5", body=body) for body in bodies])
    response = make_transport(script, clock, retry=urllib3.Retry(2)).round_trip(get())
    assert drained == [True]
    assert [body.closed for body in bodies] == [True, True, False]
    assert response.read() == b"busy"


def test_retry_transport_close_closes_inner(clock: Clock) -> None:
    closed: list[int] = []
    transport = make_transport(FunctionTransport(lambda request: OK, close=lambda: closed.append(1)), clock)
    transport.close()
    transport.close()
    assert closed == [1]
    with pytest.raises(UsageError, match="closed"):
        transport.round_trip(get())


# --- policies of the caller ---


def make_outcome(kind: str) -> Any:
    return {
        "connect": ConnectError("no"),
        "read": ReadError("no"),
        "other": TransportError("no"),
        "status": Response(503),
    }[kind]


def urllib3_waits(retry: urllib3.Retry, subclasses: list[str], method: str) -> list[float]:
    """Return the waits of urllib3 before each retry, until it stops."""
    exceptions_by_kind = {
        "connect": exceptions.ConnectTimeoutError("no"),
        "read": exceptions.ProtocolError("no"),
        "other": exceptions.SSLError("no"),
    }
    waits = []
    for kind in subclasses:
        try:
            if kind == "status":
                if not retry.is_retry(method, 503):
                    break
                retry = retry.increment(method, "/", response=urllib3.HTTPResponse(status=503))
            else:
                retry = retry.increment(method, "/", error=exceptions_by_kind[kind])
        except exceptions.HTTPError:
            break
        waits.append(retry.get_backoff_time())
    return waits


COUNTS = st.one_of(st.none(), st.just(False), st.integers(0, 4))


@settings(max_examples=example_count(400), deadline=None)
@given(
    counts=st.fixed_dictionaries(dict.fromkeys(("total", "connect", "read", "status", "other"), COUNTS)),
    sequence=st.lists(st.sampled_from(["connect", "read", "other", "status"]), max_size=12),
    forcelist=st.booleans(),
    factor=st.sampled_from([0, 0.1, 0.5, 1, 3]),
    limit=st.sampled_from([0, 1, 2.5, 120]),
    jitter=st.sampled_from([0, 0.25, 2]),
    random_value=st.floats(0, 0.999),
)
@example(dict.fromkeys(("total", "connect", "read", "status", "other")), ["other"] * 12, True, 1, 120, 0, 0.0)
def test_retry_any_policy_counts_and_waits_as_urllib3(
    counts: dict[str, Any],
    sequence: list[str],
    forcelist: bool,
    factor: float,
    limit: float,
    jitter: float,
    random_value: float,
) -> None:
    retry = urllib3.Retry(
        **counts,
        allowed_methods=None,
        status_forcelist=[503] if forcelist else [],
        backoff_factor=factor,
        backoff_max=limit,
        backoff_jitter=jitter,
    )
    clock = Clock()
    waits: list[float] = []
    script = iter(sequence)

    def answer(request: Request) -> Response:
        waits.append(sum(clock.sleeps))
        clock.sleeps.clear()
        outcome = make_outcome(next(script, "ok")) if len(waits) <= len(sequence) else OK
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "random", lambda: random_value)
        expected = urllib3_waits(retry, sequence, "GET")
        transport = make_transport(FunctionTransport(answer), clock, retry=retry, max_wait=1000)
        try:
            outcome: Any = transport.round_trip(get())
        except TransportError as error:
            outcome = error
    assert waits[1:] == expected
    last = "ok" if len(expected) == len(sequence) else sequence[len(expected)]
    expected_outcome = OK if last == "ok" else make_outcome(last)
    assert type(outcome) is type(expected_outcome)
    assert getattr(outcome, "status", None) == getattr(expected_outcome, "status", None)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("connect", ConnectError("no")),
        ("read", ReadError("no")),
        ("connect", ConnectTimeout("no")),
        ("read", ReadTimeout("no")),
        ("read", TransportTimeout("no")),
        ("read", ProtocolError("no")),
        ("other", TransportError("no")),
        ("status", Response(500)),
    ],
)
def test_retry_outcome_is_counted_as_one_kind(kind: str, error: Any, clock: Clock) -> None:
    for name in ("connect", "read", "other", "status"):
        counts: dict[str, Any] = {**dict.fromkeys(COUNTED, 9), name: 1}
        retry = urllib3.Retry(total=None, status_forcelist=[500], **counts)
        assert attempts(get(), [error] * 9 + [OK], clock, retry=retry)[0] == (2 if name == kind else 10)


COUNTED = ("connect", "read", "other", "status")


@pytest.mark.parametrize(("error", "count"), [(ConnectTimeout("no"), 2), (ReadTimeout("no"), 1)])
def test_retry_timeout_kind_is_decided_by_class(error: TransportTimeout, count: int, clock: Clock) -> None:
    error.__cause__ = exceptions.ConnectTimeoutError("timed out")  # ignored
    retry = urllib3.Retry(total=5, connect=5, read=0)
    assert attempts(get(), [error, OK], clock, retry=retry)[0] == count


@pytest.mark.parametrize(("error", "count"), [(ConnectTimeout("no"), 2), (ReadTimeout("no"), 1)])
def test_retry_connect_timeout_of_any_method_is_retried_by_caller_policy(
    error: TransportTimeout, count: int, clock: Clock
) -> None:
    retry = urllib3.Retry(3, allowed_methods=["GET"])
    assert attempts(get("POST"), [error, OK], clock, retry=retry)[0] == count


@pytest.mark.parametrize("failure", [ReadError("no"), Response(503)])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH"])
@pytest.mark.parametrize("value", [None, True])
@pytest.mark.parametrize("allowed", [None, {"GET"}, ["POST", "PUT"], frozenset({"PATCH"})])
def test_retry_allowed_methods_are_obeyed(
    failure: Any, method: str, value: bool | None, allowed: Any, clock: Clock
) -> None:
    retry = urllib3.Retry(3, allowed_methods=allowed, status_forcelist=[503])
    count, _ = attempts(get(method, idempotent=value), [failure, OK], clock, retry=retry)
    assert count == (2 if allowed is None or method in allowed else 1)


@pytest.mark.parametrize("forcelist", [[], [500], [418, 404], range(500, 600), [202], [304]])
@pytest.mark.parametrize("status", [200, 202, 304, 404, 418, 429, 500, 502, 503, 504, 599])
def test_retry_status_forcelist_is_obeyed(forcelist: Any, status: int, clock: Clock) -> None:
    retry = urllib3.Retry(3, status_forcelist=forcelist)
    count, _ = attempts(get(), [Response(status), Response(201)], clock, retry=retry)
    assert count == (2 if status in forcelist else 1)


@pytest.mark.parametrize("status", [413, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("respected", [True, False])
@pytest.mark.parametrize("total", [0, 1, None, False])
@pytest.mark.parametrize("forcelist", [[], [429, 502]])
def test_retry_respect_retry_after_header_is_obeyed(
    status: int, respected: bool, total: Any, forcelist: list[int], clock: Clock
) -> None:
    retry = urllib3.Retry(total, respect_retry_after_header=respected, status_forcelist=forcelist)
    expected = retry.is_retry("GET", status, has_retry_after=True)
    if total in (0, False):
        assert not expected or status in forcelist
        expected = False
    count, _ = attempts(get(), [busy("3", status), OK], clock, retry=retry)
    assert count == (2 if expected else 1)
    assert clock.sleeps == ([3.0] if expected and respected else [])


def test_retry_ignored_retry_after_waits_backoff_and_blocks_no_host(clock: Clock) -> None:
    retry = urllib3.Retry(3, backoff_factor=1, status_forcelist=[429], respect_retry_after_header=False)
    transport = make_transport(ScriptedTransport([busy("30"), busy("9999"), OK, OK]), clock, retry=retry)
    transport.round_trip(get())
    transport.round_trip(get())
    assert clock.sleeps == [2.0]


def test_retry_policy_object_is_not_changed(clock: Clock) -> None:
    retry = urllib3.Retry(2, status_forcelist=[503], backoff_factor=1)
    before = dict(vars(retry))
    for _ in range(2):
        assert attempts(get(), [Response(503)] * 3, clock, retry=retry)[0] == 3
    assert vars(retry) == before


@pytest.mark.parametrize("failure", [ReadError("no"), ConnectError("no"), busy("1"), busy(status=502)])
def test_retry_false_sends_once(failure: Any, clock: Clock) -> None:
    count, _ = attempts(get(), [failure, OK], clock, retry=False)
    assert (count, clock.sleeps) == (1, [])


@pytest.mark.parametrize("retry", [-1, 2**63, True, 1.0, 0.0, "3", object(), urllib3.Retry])
def test_retry_transport_invalid_retry_raises_usage_error(retry: Any) -> None:
    with pytest.raises(UsageError, match="retry"):
        RetryTransport(ScriptedTransport([]), retry=retry)


@pytest.mark.parametrize("seconds", [-1, "60", None, True, float("nan")])
def test_retry_transport_invalid_max_wait_raises_usage_error(seconds: Any) -> None:
    with pytest.raises(UsageError, match="max_wait"):
        RetryTransport(ScriptedTransport([]), max_wait=seconds)


# --- Retry-After ---


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("1", 1),
        ("60", 60),
        (" 7 ", 7),
        ("007", 7),
        (formatdate(START + 5, usegmt=True), 5),
        (formatdate(START + 60, usegmt=True), 60),
        ("Mon, 12 Jan 1970 13:46:45 +0000", 5),
        ("Monday, 12-Jan-70 13:46:45 GMT", 5),
    ],
)
def test_retry_after_valid_value_is_waited(status: int, value: str, wait: int, clock: Clock) -> None:
    assert attempts(get(), [busy(value, status), OK], clock)[0] == 2
    assert clock.sleeps == [wait]


def test_retry_after_date_is_relative_to_the_time_of_the_response(clock: Clock) -> None:
    transport = make_transport(ScriptedTransport([busy(formatdate(START + 50, usegmt=True)), OK]), clock)
    clock.time += 30
    transport.round_trip(get())
    assert clock.sleeps == [20.0]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "-5",
        "1.5",
        "soon",
        "1 minute",
        "1, 2",
        "\xb2",
        "9" * 40,
        "NaN",
        "inf",
        formatdate(START - 100, usegmt=True),
        formatdate(START, usegmt=True),
        "Mon, 99 Foo 1970 13:46:45 GMT",
    ],
)
def test_retry_after_invalid_value_waits_backoff(value: str, clock: Clock) -> None:
    count, _ = attempts(get(), [busy(value), busy(value), OK], clock)
    assert count == 3
    assert len(clock.sleeps) == 1
    assert 1.0 <= clock.sleeps[0] <= 1.25


def test_retry_after_shorter_than_backoff_is_waited(clock: Clock) -> None:
    retry = urllib3.Retry(5, backoff_factor=10, status_forcelist=[503])
    attempts(get(), [Response(503), busy("3", 503), Response(503), OK], clock, retry=retry)
    assert clock.sleeps == [3.0, 40.0]


@pytest.mark.parametrize("value", ["61", "86400", "999999999", formatdate(START + 62, usegmt=True)])
def test_retry_after_beyond_max_wait_returns_response(value: str, clock: Clock) -> None:
    count, outcome = attempts(get(), [busy(value)], clock)
    assert (count, outcome.status, clock.sleeps) == (1, 429, [])
    assert outcome.read() == b"busy"


@pytest.mark.parametrize("limit", [0, 0.5, 5.0])
def test_retry_after_max_wait_is_inclusive(limit: float, clock: Clock) -> None:
    assert attempts(get(), [busy("6")], clock, max_wait=limit)[0] == 1
    assert attempts(get(), [busy("5"), OK], clock, max_wait=5.0)[0] == 2


def test_backoff_beyond_max_wait_is_limited(clock: Clock) -> None:
    retry = urllib3.Retry(3, backoff_factor=100)
    attempts(get(), [ReadError("no")] * 4, clock, retry=retry, max_wait=7)
    assert clock.sleeps == [7.0, 7.0]


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_retry_after_max_of_policy_is_obeyed(limit: int, clock: Clock) -> None:
    if not hasattr(urllib3.Retry, "DEFAULT_RETRY_AFTER_MAX"):
        pytest.skip("this urllib3 has no retry_after_max")
    retry = urllib3.Retry(3, retry_after_max=limit)
    assert attempts(get(), [busy(str(limit + 1))], clock, retry=retry)[0] == 1
    assert clock.sleeps == []


# --- blocked hosts ---


class FakeHosts:
    """Registries that send Retry-After. A request that comes too early fails the test."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.until: dict[Origin, float] = {}
        self.requests_seen: list[tuple[float, str]] = []
        self.answers: list[Response] = []

    def __call__(self, request: Request) -> Response:
        origin = Origin.of(request.url)
        assert self.clock.time >= self.until.get(origin, 0) - 1e-6, "too early"
        return self.answer(request, self.answers.pop(0) if self.answers else OK)

    def answer(self, request: Request, answer: Response) -> Response:
        origin = Origin.of(request.url)
        self.requests_seen.append((self.clock.time - START, origin.netloc))
        if "retry-after" in answer.headers:
            seconds = float(answer.headers["retry-after"])
            self.until[origin] = max(self.until.get(origin, 0), self.clock.time + seconds)
        return answer


class DelayedResponse:
    """Stack over `FakeHosts` with a pending request that was sent before the host was blocked."""

    def __init__(self, hosts: FakeHosts, seconds: str, url: str = URL) -> None:
        self._hosts = hosts
        self._seconds = seconds
        self._arrived, self._released = threading.Event(), threading.Event()
        self.transport = make_transport(FunctionTransport(self._answer), hosts.clock, retry=GETS)
        self._thread = threading.Thread(target=lambda: self.transport.round_trip(get("POST", url)).close())
        self._thread.start()
        assert self._arrived.wait(30)

    def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            return self._hosts(request)
        self._arrived.set()
        assert self._released.wait(30)
        return self._hosts.answer(request, busy(self._seconds))

    def deliver(self) -> None:
        """Deliver the response of the pending request."""
        self._released.set()
        self._thread.join()


# With this policy the response to a POST is returned at once: it blocks the host, but the test does not wait.
GETS = urllib3.Retry(5, allowed_methods=["GET"], status_forcelist=[429, 503])


def test_blocked_host_new_requests_wait_and_other_hosts_do_not(clock: Clock) -> None:
    hosts = FakeHosts(clock)
    transport = make_transport(FunctionTransport(hosts), clock, retry=GETS)
    hosts.answers = [busy("30")]
    assert transport.round_trip(get("POST")).status == 429
    assert clock.sleeps == []
    for url in (OTHER, "https://registry.example:8443/", "http://registry.example/"):
        transport.round_trip(get(url=url))
    assert clock.sleeps == []
    transport.round_trip(get(url="https://registry.example:443/another"))
    assert clock.sleeps == [30.0]
    transport.round_trip(get())
    assert clock.sleeps == [30.0]
    assert hosts.requests_seen[-1] == (30.0, "registry.example")


def test_blocked_host_past_block_is_not_waited_again(clock: Clock) -> None:
    transport = make_transport(ScriptedTransport([busy("30"), OK, OK]), clock, retry=GETS)
    transport.round_trip(get("POST"))
    clock.time += 20
    transport.round_trip(get())
    assert clock.sleeps == [10.0]
    clock.time += 1
    transport.round_trip(get())
    assert clock.sleeps == [10.0]


def test_blocked_host_long_retry_after_blocks_for_max_wait(clock: Clock) -> None:
    transport = make_transport(ScriptedTransport([busy("86400"), OK, OK]), clock, max_wait=20)
    assert transport.round_trip(get()).status == 429
    transport.round_trip(get())
    assert clock.sleeps == [20.0]
    transport.round_trip(get())
    assert clock.sleeps == [20.0]


def test_blocked_host_shorter_block_during_wait_is_ignored(clock: Clock) -> None:
    hosts = FakeHosts(clock)
    delayed = DelayedResponse(hosts, "1")
    hosts.answers = [busy("30")]
    body = RecordedBody()
    body.on_close = delayed.deliver
    hosts.answers = [busy("30", body=body)]
    assert delayed.transport.round_trip(get()).status == 200
    assert clock.sleeps == [30.0]


def test_blocked_host_shorter_later_block_is_ignored(clock: Clock) -> None:
    hosts = FakeHosts(clock)
    delayed = DelayedResponse(hosts, "1")
    hosts.answers = [busy("30")]
    assert delayed.transport.round_trip(get("PUT")).status == 429
    delayed.deliver()
    assert delayed.transport.round_trip(get()).status == 200
    assert clock.sleeps == [30.0]


@pytest.mark.parametrize("own", [busy(status=503), busy("1"), busy("0"), busy("12")])
def test_retry_response_waits_for_block_of_another_request(own: Response, clock: Clock) -> None:
    hosts = FakeHosts(clock)
    first = [True]

    def answer(request: Request) -> Response:
        if request.method == "GET" and first:
            first.clear()
            hosts.answers = [busy("12")]
            transport.round_trip(get("POST")).close()  # another request, while this one is in flight
            return hosts.answer(request, own)
        return hosts(request)

    transport = make_transport(FunctionTransport(answer), clock, retry=GETS)
    assert transport.round_trip(get()).status == 200
    assert clock.sleeps == [12.0]


def test_retry_stopped_clock_waits_for_block_once() -> None:
    waits: list[float] = []
    script = ScriptedTransport([busy("30"), ReadError("no"), OK])
    RetryTransport(script, sleep=waits.append, clock=lambda: START).round_trip(get())
    assert waits[0] == 30.0
    assert len(waits) == 2
    assert waits[1] < 2


@pytest.mark.parametrize(("later", "sleeps"), [("25", [10.0, 15.0]), ("3", [10.0]), ("59", [10.0, 49.0])])
def test_wait_longer_block_of_another_request_extends_it(later: str, sleeps: list[float], clock: Clock) -> None:
    hosts = FakeHosts(clock)
    delayed = DelayedResponse(hosts, later)
    hosts.answers = [busy("10")]
    clock.during_sleep.append(delayed.deliver)
    assert delayed.transport.round_trip(get()).status == 200
    assert clock.sleeps == sleeps


def test_wait_block_of_another_host_does_not_extend_it(clock: Clock) -> None:
    hosts = FakeHosts(clock)
    delayed = DelayedResponse(hosts, "25", OTHER)
    hosts.answers = [busy("10")]
    clock.during_sleep.append(delayed.deliver)
    assert delayed.transport.round_trip(get()).status == 200
    assert clock.sleeps == [10.0]


def test_wait_extended_is_limited_to_max_wait(clock: Clock) -> None:
    hosts = FakeHosts(clock)
    delayed = DelayedResponse(hosts, "59")
    hosts.answers = [busy("59")]

    def deliver() -> None:
        clock.time += 30
        delayed.deliver()
        hosts.until.clear()  # max_wait ends before the block: the next request may come early
        clock.time -= 30

    clock.during_sleep.append(deliver)
    delayed.transport.round_trip(get())
    assert sum(clock.sleeps) == 60.0


def test_wait_block_set_while_draining_is_waited(clock: Clock) -> None:
    """Another request receives a longer Retry-After between a response and the wait after it."""
    hosts = FakeHosts(clock)
    delayed = DelayedResponse(hosts, "30")
    body = RecordedBody()
    body.on_close = delayed.deliver
    hosts.answers = [busy("1", body=body)]
    assert delayed.transport.round_trip(get()).status == 200
    assert clock.time == START + 30


def test_retry_error_waits_for_block_of_another_request(clock: Clock) -> None:
    hosts = FakeHosts(clock)
    failures = [ReadError("no")]

    def answer(request: Request) -> Response:
        if request.method == "GET" and failures:
            hosts.answers = [busy("12")]
            transport.round_trip(get("POST")).close()  # another request, while this one is in flight
            raise failures.pop()
        return hosts(request)

    transport = make_transport(FunctionTransport(answer), clock, retry=GETS)
    assert transport.round_trip(get()).status == 200
    assert clock.sleeps == [12.0]


def test_blocked_hosts_many_are_all_stored(clock: Clock) -> None:
    hosts = FakeHosts(clock)
    transport = make_transport(FunctionTransport(hosts), clock, retry=GETS)
    for number in range(1500):
        hosts.answers = [busy("5")]
        transport.round_trip(get("POST", f"https://r{number}.example/"))
    for number in (0, 700, 1499):
        transport.round_trip(get(url=f"https://r{number}.example/"))


@settings(max_examples=example_count(150), deadline=None)
@given(st.integers(0, 2**32))
def test_retry_any_schedule_is_never_earlier_than_retry_after(seed: int) -> None:
    rng = random.Random(seed)
    clock = Clock()
    hosts = FakeHosts(clock)

    def answer(request: Request) -> Response:
        roll = rng.random()
        if roll < 0.3:
            hosts.answers = [busy(str(rng.randrange(0, 59)), rng.choice([429, 503, 413]))]
        elif roll < 0.4:
            hosts.answers = [Response(rng.choice([429, 502, 503, 504]))]
        response = hosts(request)
        if 0.4 <= roll < 0.5:
            raise ReadError("no")
        return response

    transport = make_transport(FunctionTransport(answer), clock, retry=rng.choice([None, GETS]))
    for _ in range(20):
        clock.time += rng.choice([0, 0, 1, 30])
        before = clock.time
        request = get(rng.choice(["GET", "POST", "HEAD"]), rng.choice([URL, OTHER, "http://third.example/"]))
        try:
            with transport.round_trip(request) as response:
                assert response.read() in (b"busy", b"there", b"")
        except ReadError:
            pass
        assert clock.time - before <= 5 * 60


def test_retry_threads_wait_for_block_of_one_thread() -> None:
    """Each thread has its own clock, which only its own sleeps advance."""
    lock = threading.Lock()
    local = threading.local()
    blocked_until = [0.0]
    early: list[float] = []

    def now() -> float:
        return getattr(local, "time", START)

    def sleep(seconds: float) -> None:
        local.time = now() + seconds

    start = threading.Barrier(8)

    def answer(request: Request) -> Response:
        with lock:
            if now() < blocked_until[0]:
                early.append(blocked_until[0] - now())
            if not blocked_until[0]:
                blocked_until[0] = START + 20
                return busy("20")
            return OK

    transport = RetryTransport(FunctionTransport(answer), sleep=sleep, clock=now)
    transport.round_trip(get()).close()

    def work() -> None:
        start.wait()
        transport.round_trip(get()).close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert early == []


def test_retry_next_request_waits_for_block_once() -> None:
    sleeps: list[float] = []
    script = ScriptedTransport([busy("5"), OK, OK])
    transport = RetryTransport(script, sleep=sleeps.append, clock=lambda: START)  # a stopped clock
    with script:
        for _ in range(2):
            transport.round_trip(get()).close()
    assert sleeps == [5.0]


# --- the deadline ---


@pytest.mark.parametrize("wait", [5.0, 5.001, 30.0])
def test_deadline_before_next_attempt_raises_timeout_at_once(wait: float, clock: Clock) -> None:
    request = get(deadline=START + 5)
    retry = urllib3.Retry(5, backoff_factor=wait / 2)
    error = ReadError("why")
    script = ScriptedTransport([ReadError("first"), error])
    with pytest.raises(TransportTimeout, match="deadline") as caught:
        make_transport(script, clock, retry=retry).round_trip(request)
    assert error in (caught.value.__cause__, caught.value.__context__)
    request_of_error = caught.value.request
    assert request_of_error is not None
    assert (request_of_error.url, len(request_of_error.headers), request_of_error.info) == (
        "https://registry.example/v2/app/blobs/x?secret=***",
        0,
        request.info,
    )
    assert clock.sleeps == []
    assert "canary" not in str(caught.value)
    assert "why" in str(caught.value)


def test_deadline_before_end_of_retry_after_raises_timeout_at_once(clock: Clock) -> None:
    body = RecordedBody()
    with pytest.raises(TransportTimeout, match="429") as caught:
        make_transport(ScriptedTransport([busy("30", body=body)]), clock).round_trip(get(deadline=START + 30))
    assert clock.sleeps == []
    assert body.closed
    assert caught.value.request is not None


def test_deadline_before_end_of_block_raises_timeout_at_once(clock: Clock) -> None:
    script = ScriptedTransport([busy("30")])
    transport = make_transport(script, clock, retry=GETS)
    transport.round_trip(get("POST"))
    with pytest.raises(TransportTimeout, match="Retry-After"):
        transport.round_trip(get(deadline=START + 29))
    assert clock.sleeps == []
    assert len(script.requests) == 1


def test_deadline_default_clock_is_monotonic() -> None:
    transport = RetryTransport(ScriptedTransport([busy("30")]), sleep=lambda seconds: None)
    with pytest.raises(TransportTimeout, match="deadline"):
        transport.round_trip(get(deadline=time.monotonic() + 20))


def test_deadline_after_wait_changes_nothing(clock: Clock) -> None:
    assert attempts(get(deadline=START + 31), [busy("30"), OK], clock)[0] == 2
    assert clock.sleeps == [30.0]


# --- logs and clocks ---


def test_log_retry_has_reason_and_wait(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    attempts(get(), [busy("30"), ConnectError("refused"), OK], clock)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert {record.name for record in caplog.records} == {"ociwire.retry"}
    assert all("GET https://registry.example/v2/app/blobs/x:" in line for line in lines)
    assert "429" in lines[0]
    assert "30.0 s" in lines[0]
    assert "ConnectError: refused" in lines[1]
    assert "canary" not in "".join(lines)


def test_log_success_logs_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    attempts(get(), [OK], clock)
    attempts(get(), [Response(404)], clock)
    assert caplog.records == []


def test_log_blocked_host_names_retry_after(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ociwire.retry")
    transport = make_transport(ScriptedTransport([busy("30"), OK]), clock, retry=GETS)
    transport.round_trip(get("POST"))
    transport.round_trip(get())
    assert len(caplog.records) == 1
    assert "Retry-After" in caplog.records[0].getMessage()


def test_retry_default_clocks_are_looked_up_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = RetryTransport(ScriptedTransport([busy("7"), OK]))
    waits: list[float] = []
    fake = SimpleNamespace(time=lambda: START, sleep=waits.append, monotonic=time.monotonic)
    monkeypatch.setattr(ociwire.transport.retry, "time", fake)
    transport.round_trip(get())
    assert waits == [7.0]


def test_retry_injected_clocks_replace_real_clocks(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> float:
        raise AssertionError("the real clock is used")

    fake = SimpleNamespace(monotonic=never, sleep=never, time=never)
    monkeypatch.setattr(ociwire.transport.retry, "time", fake)
    request = get(deadline=START + 100)
    assert attempts(request, [busy("7"), ReadError("no"), Response(503), OK], clock)[0] == 4
    assert clock.sleeps[0] == 7.0
