"""FaultTransport: the effect of each fault, and reproducibility by seed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from ociwire import Body, FunctionTransport, Request, Response, Transport
from ociwire.errors import BodyConsumedError, ConnectError, ReadError, TransportError, TransportTimeout, UsageError
from ociwire.testing import FaultTransport, ScriptedTransport
from ociwire.testing.faults import FAULTS, Fault, InjectedFault
from tests._support.doubles import FakeReader, content_of

URL = "https://registry.example/v2/app/blobs/x"
CONTENT = bytes(range(256)) * 4
GET = Request("GET", URL)

BEFORE = {"refused": ConnectError, "reset": ReadError, "reset in upload": ReadError, "stall": TransportTimeout}
IN_BODY = {"reset in body": ReadError, "stall in body": TransportTimeout}
STATUSES = {"429": 429, "429 with a date": 429, "503": 503, "502 with HTML": 502, "no 100": 503}


class Registry:
    """Transport that answers all requests with the same content, and records requests and response bodies."""

    def __init__(self, content: bytes = CONTENT, *, states_length: bool = True) -> None:
        self.content = content
        self.headers = {"Content-Length": str(len(content))} if states_length else {}
        self.requests: list[Request] = []
        self.contents: list[bytes] = []
        self.bodies: list[FakeReader] = []
        self.closes = 0

    def round_trip(self, request: Request, /) -> Response:
        self.requests.append(request)
        self.contents.append(content_of(request.body))
        self.bodies.append(FakeReader(b"" if request.method == "HEAD" else self.content))
        return Response(200, self.headers, self.bodies[-1])

    def close(self) -> None:
        self.closes += 1


def always_failing(inner: Transport, *faults: Any, **options: Any) -> FaultTransport:
    return FaultTransport(inner, rate=1, faults=faults, **options)


def chunks() -> Iterator[bytes]:
    yield b"con"
    yield b"tent"


def test_faults_all_are_tested() -> None:
    assert {*BEFORE, *IN_BODY, *STATUSES, "answer lost", "short body", "flipped byte"} == set(FAULTS)


def test_fault_transport_closed_refuses_requests() -> None:
    transport = FaultTransport(FunctionTransport(lambda request: Response(200)), rate=1, faults=["429"])
    transport.close()
    with pytest.raises(UsageError, match="closed"):
        transport.round_trip(Request("GET", "https://registry.example/v2/"))


# --- each fault ---


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("request_", [GET, Request("PUT", URL, body=b"content"), Request("HEAD", URL)])
def test_fault_before_request_reaches_no_registry(name: str, request_: Request) -> None:
    registry = Registry()
    with pytest.raises(BEFORE[name]) as caught:
        always_failing(registry, name).round_trip(request_)
    assert caught.value.request is request_
    assert registry.requests == []


@pytest.mark.parametrize("name", FAULTS)
def test_fault_before_request_pulls_expected_part_of_body(name: str) -> None:
    body = Body.of(chunks())
    registry = Registry()
    with suppress(TransportError):
        always_failing(registry, name).round_trip(Request("PUT", URL, body=body)).close()
    assert body.resendable is (name in {"refused", "reset", "stall", *STATUSES} - {"no 100"})
    arrives = name in {*IN_BODY, "answer lost", "short body", "flipped byte"}
    assert registry.contents == ([b"content"] if arrives else [])


def test_reset_in_upload_pulls_one_chunk() -> None:
    pulled: list[bytes] = []
    body = Body.of(chunks()).map(lambda chunk: pulled.append(chunk) or chunk)  # type: ignore[func-returns-value]
    with pytest.raises(ReadError, match="while the request was being sent"):
        always_failing(Registry(), "reset in upload").round_trip(Request("PUT", URL, body=body))
    assert pulled == [b"con"]
    with pytest.raises(BodyConsumedError):
        body.open()


def test_no_100_pulls_whole_body() -> None:
    pulled: list[bytes] = []
    body = Body.of(chunks()).map(lambda chunk: pulled.append(chunk) or chunk)  # type: ignore[func-returns-value]
    registry = Registry()
    response = always_failing(registry, "no 100").round_trip(Request("PUT", URL, body=body))
    assert (response.status, registry.requests, pulled) == (503, [], [b"con", b"tent"])


def test_no_100_without_body_passes_request() -> None:
    response = always_failing(Registry(), "no 100").round_trip(GET)
    assert (response.status, response.read()) == (200, CONTENT)


@pytest.mark.parametrize("name", ["reset in upload", "no 100"])
def test_fault_body_raises_passes_exception_unchanged(name: str) -> None:
    def fail(chunk: bytes) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        always_failing(Registry(), name).round_trip(Request("PUT", URL, body=Body.of(b"content").map(fail)))


def test_answer_lost_registry_has_acted() -> None:
    registry = Registry()
    request = Request("PUT", URL, body=b"content")
    with pytest.raises(ReadError, match=r"^connection reset before the response$") as caught:
        always_failing(registry, "answer lost").round_trip(request)
    assert caught.value.request is request
    assert registry.requests == [request]
    assert registry.contents == [b"content"]
    assert registry.bodies[0].closed


@pytest.mark.parametrize("name", IN_BODY)
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("states_length", [True, False])
def test_reset_or_stall_in_body_raises_after_part_of_body(name: str, seed: int, states_length: bool) -> None:
    registry = Registry(states_length=states_length)
    response = always_failing(registry, name, seed=seed).round_trip(GET)
    assert response.status == 200
    assert response.request is GET
    assert dict(response.headers.items()) == registry.headers
    got = b""

    def read() -> None:
        nonlocal got
        while piece := response.read(100):
            got += piece

    with pytest.raises(
        IN_BODY[name], match=r"^(connection reset|timed out) while the response was being read$"
    ) as caught:
        read()
    assert caught.value.request is GET
    assert registry.bodies[0].closed
    assert CONTENT.startswith(got)
    assert len(got) < len(CONTENT)
    response.close()
    assert registry.bodies[0].closed


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("states_length", [True, False])
def test_short_body_ends_early_without_error(seed: int, states_length: bool) -> None:
    registry = Registry(states_length=states_length)
    response = always_failing(registry, "short body", seed=seed).round_trip(GET)
    got = response.read()
    assert CONTENT.startswith(got)
    assert len(got) < len(CONTENT)
    assert response.read() == b""
    response.close()
    assert registry.bodies[0].closed


@pytest.mark.parametrize("name", [*IN_BODY, "short body"])
def test_fault_position_in_body_varies(name: str) -> None:
    cuts = set()
    for seed in range(30):
        response = always_failing(Registry(), name, seed=seed).round_trip(GET)
        got = bytearray()
        try:
            for piece in response.iter_bytes(1):
                got += piece
        except TransportError:
            pass
        cuts.add(len(got))
    assert len(cuts) > 15


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("states_length", [True, False])
def test_flipped_byte_changes_one_bit(seed: int, size: int, states_length: bool) -> None:
    registry = Registry(states_length=states_length)
    response = always_failing(registry, "flipped byte", seed=seed).round_trip(GET)
    got = b"".join(response.iter_bytes(size))
    assert len(got) == len(CONTENT)
    differences = [one ^ other for one, other in zip(got, CONTENT, strict=True) if one != other]
    assert len(differences) == 1
    assert differences[0].bit_count() == 1
    response.close()
    assert registry.bodies[0].closed


@pytest.mark.parametrize("name", [*IN_BODY, "short body", "flipped byte"])
@pytest.mark.parametrize("request_", [Request("HEAD", URL), GET])
def test_body_fault_without_body_passes_response(name: str, request_: Request) -> None:
    registry = Registry(CONTENT if request_.method == "HEAD" else b"")
    response = always_failing(registry, name).round_trip(request_)
    assert (response.status, response.read()) == (200, b"")
    response.close()
    assert registry.bodies[0].closed


@pytest.mark.parametrize("name", ["reset in body", "short body", "flipped byte"])
def test_body_fault_of_response_in_memory_breaks(name: str) -> None:
    canned = Response(200, (), CONTENT)
    transport = FaultTransport(FunctionTransport(lambda request: canned), rate=1, faults=[name], limit=1)
    with suppress(ReadError):
        assert transport.round_trip(GET).read() != CONTENT
    assert transport.round_trip(GET).read() == CONTENT


@pytest.mark.parametrize("name", ["429", "429 with a date", "503", "502 with HTML"])
def test_refusal_fault_returns_status(name: str) -> None:
    registry = Registry()
    response = always_failing(registry, name).round_trip(GET)
    assert response.status == STATUSES[name]
    assert response.request is GET
    assert registry.requests == []
    if name == "502 with HTML":
        assert response.headers["content-type"] == "text/html"
        assert response.read().startswith(b"<html>")
    else:
        assert response.headers["content-type"] == "application/json"
        assert len(response.json()["errors"]) == 1


def test_429_fault_has_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.25)
    assert always_failing(Registry(), "429").round_trip(GET).headers["retry-after"] == "1"
    said = always_failing(Registry(), "429 with a date").round_trip(GET).headers["retry-after"]
    assert 0 < parsedate_to_datetime(said).timestamp() - 1_000_000.25 <= 2
    assert "retry-after" not in always_failing(Registry(), "503").round_trip(GET).headers


# --- which requests fail ---


def inject_faults(transport: FaultTransport, count: int = 200) -> list[InjectedFault]:
    for number in range(count):
        with suppress(TransportError):
            transport.round_trip(Request("GET", f"{URL}/{number}")).close()
    return transport.injected


def test_fault_transport_same_seed_is_reproducible() -> None:
    for seed in range(3):
        once, again = (inject_faults(FaultTransport(Registry(), seed=seed, rate=0.3)) for _ in range(2))
        assert once == again
        assert once
    different = [tuple(inject_faults(FaultTransport(Registry(), seed=seed, rate=0.3))) for seed in range(10)]
    assert len(set(different)) == 10


def test_fault_transport_same_seed_breaks_body_at_same_byte() -> None:
    def cuts(seed: int) -> list[bytes]:
        transport = FaultTransport(Registry(), seed=seed, rate=0.5, faults=["short body", "flipped byte"])
        return [transport.round_trip(GET).read() for _ in range(30)]

    assert cuts(1) == cuts(1)
    assert cuts(1) != cuts(2)


def test_fault_choice_is_independent_of_earlier_requests() -> None:
    """The number of a request alone determines its fault, not the outcome of earlier requests."""
    whole = inject_faults(FaultTransport(Registry(), seed=5, rate=0.3))
    other = FaultTransport(Registry(b""), seed=5, rate=0.3)
    for number in range(200):
        try:
            response = other.round_trip(Request("PUT", f"{URL}/{number}", body=Body.of(chunks())))
            response.read(number % 3)  # some responses are left open
            response.close()
        except TransportError:
            pass
    assert [(one.number, one.fault) for one in other.injected] == [(one.number, one.fault) for one in whole]
    late = FaultTransport(Registry(), seed=5, rate=0.3, where=lambda request: int(request.url.rpartition("/")[2]) > 99)
    assert inject_faults(late) == [one for one in whole if one.number > 99]


def test_fault_choice_is_independent_of_random_use_of_faults() -> None:
    def greedy(times: int) -> Fault:
        def fault(request: Request, inner: Transport, chance: random.Random) -> Response:
            for _ in range(times):
                chance.random()
            return Response(500)

        return fault

    results = [inject_faults(FaultTransport(Registry(), rate=0.5, faults=[greedy(times)])) for times in (0, 7)]
    assert results[0] == results[1]


@pytest.mark.parametrize("seed", range(5))
def test_rate_zero_or_one_fails_none_or_all(seed: int) -> None:
    assert inject_faults(FaultTransport(Registry(), seed=seed, rate=0)) == []
    assert [one.number for one in inject_faults(FaultTransport(Registry(), seed=seed, rate=1))] == list(range(200))


def test_rate_fails_about_that_share() -> None:
    assert 150 < len(inject_faults(FaultTransport(Registry(), rate=0.2), 1000)) < 250
    assert 60 < len(inject_faults(FaultTransport(Registry()), 1000)) < 140


def test_fault_transport_default_uses_every_fault() -> None:
    assert {one.fault for one in inject_faults(FaultTransport(Registry(), rate=1), 500)} == set(FAULTS)


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_limit_ends_faults(limit: int) -> None:
    transport = FaultTransport(Registry(), rate=1, limit=limit)
    assert [one.number for one in inject_faults(transport)] == list(range(limit))
    assert transport.round_trip(GET).read() == CONTENT


def test_where_restricts_requests_that_fail() -> None:
    transport = FaultTransport(
        Registry(), rate=1, faults=["503"], limit=2, where=lambda request: request.method == "PUT"
    )
    statuses = [transport.round_trip(Request(method, URL)).status for method in ("GET", "PUT", "HEAD", "PUT", "PUT")]
    assert statuses == [200, 503, 200, 503, 200]
    assert transport.injected == [InjectedFault(1, "503", "PUT", URL), InjectedFault(3, "503", "PUT", URL)]


def test_faults_empty_injects_none() -> None:
    assert inject_faults(FaultTransport(Registry(), rate=1, faults=[])) == []


def test_faults_custom_function_is_called() -> None:
    def gone(request: Request, inner: Transport, chance: random.Random) -> Response:
        return Response(410, (), str(chance.random()).encode())

    class Odd:
        def __call__(self, request: Request, inner: Transport, chance: random.Random) -> Response:
            inner.round_trip(request).drain()
            raise ZeroDivisionError

    registry = Registry()
    transport = always_failing(registry, gone)
    first, second = (transport.round_trip(GET) for _ in range(2))
    assert first.status == 410
    assert first.request is GET
    assert first.read() != second.read()
    assert transport.injected == [InjectedFault(0, "gone", "GET", URL), InjectedFault(1, "gone", "GET", URL)]
    odd = always_failing(registry, Odd())
    with pytest.raises(ZeroDivisionError):
        odd.round_trip(GET)
    assert odd.injected == [InjectedFault(0, "Odd", "GET", URL)]
    assert registry.bodies[0].closed
    assert {one.fault for one in inject_faults(always_failing(registry, gone, "503"))} == {"gone", "503"}


@pytest.mark.parametrize("faults", [["no such"], ["503", "nonsense"], "429", ["REFUSED"]])
def test_faults_unknown_name_is_refused(faults: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid fault .*: expected one of refused, ") as caught:
        FaultTransport(Registry(), faults=faults)
    assert "reset in body" in str(caught.value)


@pytest.mark.parametrize("rate", [-0.1, 1.1, 50, float("nan"), float("inf")])
def test_rate_invalid_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="rate"):
        FaultTransport(Registry(), rate=rate)


# --- forwarded requests and responses ---


def test_request_without_fault_passes_unchanged() -> None:
    answer = Response(200, request=Request("GET", "https://mirror.example/"))
    script = ScriptedTransport([lambda request: answer, ZeroDivisionError()])
    transport = FaultTransport(script, rate=0)
    request = Request("PUT", URL, body=Body.of(chunks()))
    assert transport.round_trip(request) is answer
    assert script.requests[0] is request
    with pytest.raises(ZeroDivisionError):
        transport.round_trip(GET)


def test_response_without_fault_has_request() -> None:
    assert FaultTransport(Registry(), rate=0).round_trip(GET).request is GET


@pytest.mark.parametrize("name", FAULTS)
def test_fault_closes_inner_response(name: str) -> None:
    registry = Registry()
    try:
        with always_failing(registry, name).round_trip(Request("PUT", URL, body=b"content")) as response:
            response.read(3)
    except TransportError:
        pass
    assert all(body.closed for body in registry.bodies)


def test_close_closes_inner_transport() -> None:
    registry = Registry()
    FaultTransport(registry).close()
    assert registry.closes == 1


def test_fault_transport_in_threads_numbers_each_request() -> None:
    lock = threading.Lock()
    statuses: list[int] = []

    def answer(request: Request) -> Response:
        return Response(200)

    transport = FaultTransport(FunctionTransport(answer), seed=3, rate=0.5, faults=["503"], limit=300)
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        mine = [transport.round_trip(GET).status for _ in range(100)]
        with lock:
            statuses.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = inject_faults(FaultTransport(FunctionTransport(answer), seed=3, rate=0.5, faults=["503"], limit=300), 800)
    assert [one.number for one in transport.injected] == [one.number for one in alone]
    assert statuses.count(503) == len(alone) == 300


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_has_request_in_response_or_error(name: str) -> None:
    transport = always_failing(FunctionTransport(lambda request: Response(200, (), CONTENT)), name)
    named: Any = None
    try:
        response = transport.round_trip(GET)
        named = response.request
        response.read()
    except TransportError as error:
        named = error.request
    assert named is GET
