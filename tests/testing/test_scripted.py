"""ScriptedTransport: responses, records, and errors about unexpected and missing requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ociwire import Body, Client, Request, Response, Transport
from ociwire.errors import BodyConsumedError, ReadError, UsageError
from ociwire.testing import ScriptedTransport

URL = "https://registry.example/v2/"


def get(path: str = "") -> Request:
    return Request("GET", URL + path)


def test_scripted_is_transport() -> None:
    assert isinstance(ScriptedTransport([]), Transport)


def test_scripted_answers_in_order_and_records_requests() -> None:
    transport = ScriptedTransport([Response(200, (), b"a"), Response(404, (), b"b")])
    first, second = get("1"), get("2")
    assert transport.round_trip(first).read() == b"a"
    with transport.round_trip(second) as response:
        assert (response.status, response.read()) == (404, b"b")
        assert response.request is second
    assert transport.requests == [first, second]
    assert transport.bodies == [None, None]
    transport.assert_done()


def test_scripted_iterable_is_accepted() -> None:
    transport = ScriptedTransport(Response(status) for status in (200, 201))
    assert [transport.round_trip(get()).status for _ in range(2)] == [200, 201]


def test_scripted_same_response_twice_is_read_twice() -> None:
    canned = Response(200, (), b"content")
    for _ in range(2):
        transport = ScriptedTransport([canned, canned])
        for path in ("1", "2"):
            with transport.round_trip(get(path)) as response:
                assert response.read() == b"content"
                assert response.request == get(path)
    assert canned.request is None


@pytest.mark.parametrize("error", [ReadError("reset"), OSError("foreign"), KeyboardInterrupt()])
def test_scripted_exception_is_raised(error: BaseException) -> None:
    transport = ScriptedTransport([error, Response(200)])
    with pytest.raises(type(error)) as caught:
        transport.round_trip(get("1"))
    assert caught.value is error
    assert transport.round_trip(get("2")).status == 200
    assert transport.requests == [get("1"), get("2")]


def test_scripted_function_gets_request() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        return Response(200, (), request.url.encode())

    def refuse(request: Request) -> Response:
        raise ReadError(request.method)

    transport = ScriptedTransport([answer, refuse])
    response = transport.round_trip(get("1"))
    assert response.read() == (URL + "1").encode()
    assert response.request is seen[0] is transport.requests[0]
    with pytest.raises(ReadError, match="GET"):
        transport.round_trip(get("2"))


def test_scripted_function_response_keeps_its_request() -> None:
    other = get("other")
    transport = ScriptedTransport([lambda request: Response(200, request=other)])
    assert transport.round_trip(get()).request is other


# --- bodies ---


def chunks() -> Iterator[bytes]:
    yield b"a"
    yield b"b"


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_scripted_success_reads_request_body(status: int) -> None:
    transport = ScriptedTransport([Response(status)] * 3)
    body = Body.of(chunks(), 2)
    transport.round_trip(Request("PUT", URL, body=body))
    transport.round_trip(Request("PUT", URL, body=b""))
    transport.round_trip(Request("PUT", URL))
    assert transport.bodies == [b"ab", b"", None]
    assert not body.resendable


@pytest.mark.parametrize("status", [300, 307, 401, 404, 413, 429, 500, 503])
def test_scripted_refusal_leaves_request_body_unread(status: int) -> None:
    transport = ScriptedTransport([lambda request: Response(status), Response(201)])
    request = Request("PUT", URL, body=Body.of(chunks(), 2))
    transport.round_trip(request)
    assert transport.bodies == [None]
    assert request.body is not None
    assert request.body.resendable
    transport.round_trip(request)
    assert transport.bodies == [None, b"ab"]


def test_scripted_exception_leaves_request_body_unread() -> None:
    transport = ScriptedTransport([ReadError("reset")])
    body = Body.of(chunks())
    with pytest.raises(ReadError):
        transport.round_trip(Request("PUT", URL, body=body))
    assert body.resendable
    assert transport.bodies == [None]


def test_scripted_function_may_read_request_body() -> None:
    def answer(request: Request) -> Response:
        assert request.body is not None
        return Response(201, (), b"".join(request.body.open()))

    transport = ScriptedTransport([answer])
    assert transport.round_trip(Request("PUT", URL, body=Body.of(chunks()))).read() == b"ab"


def test_scripted_consumed_body_is_refused() -> None:
    body = Body.of(chunks())
    next(body.open())
    transport = ScriptedTransport([Response(201)])
    with pytest.raises(BodyConsumedError):  # as a transport that sends the body raises
        transport.round_trip(Request("PUT", URL, body=body))


def test_scripted_body_raises_passes_exception_unchanged() -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise error

    error = ZeroDivisionError()
    transport = ScriptedTransport([Response(201)])
    with pytest.raises(ZeroDivisionError) as caught:
        transport.round_trip(Request("PUT", URL, body=Body.of(broken())))
    assert caught.value is error
    assert transport.bodies == [None]


# --- unexpected and missing requests ---


def test_scripted_request_after_the_end_fails() -> None:
    transport = ScriptedTransport([Response(200)])
    transport.round_trip(get("1"))
    with pytest.raises(
        AssertionError, match=r"^unexpected request 2: GET https://registry\.example/v2/2: the script has 1 entries$"
    ):
        transport.round_trip(get("2"))
    with pytest.raises(AssertionError, match=r"^unexpected request 1: .*: the script has 0 entries$"):
        ScriptedTransport([]).round_trip(get())


def test_assert_done_too_few_requests_fails() -> None:
    transport = ScriptedTransport([Response(200)] * 3)
    transport.round_trip(get("1"))
    with pytest.raises(AssertionError, match=r"^2 of 3 script entries were not used; requests:\n  GET \S+/v2/1$"):
        transport.assert_done()


def test_exit_too_few_requests_fails() -> None:
    transport = ScriptedTransport([Response(200)])
    with pytest.raises(AssertionError, match=r"^1 of 1 script entries were not used; requests:$"), transport as entered:
        assert entered is transport
    with pytest.raises(UsageError):
        transport.round_trip(get())


def test_exit_too_few_requests_keeps_exception_of_block() -> None:
    with pytest.raises(ZeroDivisionError), ScriptedTransport([Response(200)]):
        raise ZeroDivisionError


def test_close_too_few_requests_passes() -> None:
    transport = ScriptedTransport([Response(200)])
    transport.close()
    transport.close()
    with pytest.raises(UsageError, match="closed"):
        transport.round_trip(get())
    assert transport.requests == []


def test_assert_done_all_answers_used_passes() -> None:
    with ScriptedTransport([Response(200)]) as transport:
        Client("registry.example", transport).do(get()).close()
    assert len(transport.requests) == 1


def test_scripted_in_threads_gives_each_answer_once() -> None:
    transport = ScriptedTransport([Response(200, (), bytes([number])) for number in range(80)])
    start = threading.Barrier(8)
    got: list[bytes] = []

    def ask() -> None:
        start.wait()
        for _ in range(10):
            got.append(transport.round_trip(get()).read())  # noqa: PERF401 - the others append between

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [bytes([number]) for number in range(80)]
    assert len(transport.bodies) == len(transport.requests) == 80


def test_scripted_function_may_return_exception() -> None:
    failure = ReadError("cut off")
    transport = ScriptedTransport([lambda request: failure])
    with pytest.raises(ReadError) as raised:
        transport.round_trip(get())
    assert raised.value is failure
