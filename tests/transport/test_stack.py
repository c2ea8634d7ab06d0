"""What composes a stack: the order of its layers, a transport of a function, and the headers of every request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ociwire import (
    Body,
    FunctionTransport,
    HeadersTransport,
    Request,
    Response,
    Transport,
    UrllibTransport,
    __version__,
    default_transport,
    stack,
)
from ociwire.errors import UsageError
from ociwire.testing import ScriptedTransport

URL = "https://registry.example/v2/"
AGENT = f"ociwire/{__version__}"


class Base:
    """Answers 200, and remembers."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.response = Response(200)
        self.closed = 0

    def round_trip(self, request: Request, /) -> Response:
        self.requests.append(request)
        self.response = self.response.replace(request=request)
        return self.response

    def close(self) -> None:
        self.closed += 1


class Noted:
    """A layer that writes down when it is passed."""

    def __init__(self, inner: Transport, *, name: str, passed: list[str]) -> None:
        self.inner, self.name, self.passed = inner, name, passed

    def round_trip(self, request: Request, /) -> Response:
        self.passed.append(f"> {self.name}")
        response = self.inner.round_trip(request)
        self.passed.append(f"< {self.name}")
        return response

    def close(self) -> None:
        self.passed.append(f"close {self.name}")
        self.inner.close()


# --- stack ---


def test_a_stack_is_built_innermost_first() -> None:
    base, passed = Base(), list[str]()
    layers = [partial(Noted, name=name, passed=passed) for name in ("inner", "middle", "outer")]
    transport = stack(base, *layers)
    assert transport.round_trip(Request("GET", URL)) is base.response
    assert passed == ["> outer", "> middle", "> inner", "< inner", "< middle", "< outer"]
    passed.clear()
    transport.close()
    assert passed == ["close outer", "close middle", "close inner"]
    assert base.closed == 1


def test_a_stack_of_no_layers_is_its_base() -> None:
    base = Base()
    assert stack(base) is base


def test_what_has_the_two_methods_is_a_transport() -> None:
    for transport in (Base(), FunctionTransport(lambda request: Response(200)), HeadersTransport(Base())):
        assert isinstance(transport, Transport)
    assert not isinstance(object(), Transport)
    assert not isinstance(lambda request: Response(200), Transport)


# --- FunctionTransport ---


def test_a_function_answers() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        return Response(418, {"A": "b"}, b"teapot")

    request = Request("GET", URL)
    response = FunctionTransport(answer).round_trip(request)
    assert (response.status, response.headers["a"], response.read()) == (418, "b", b"teapot")
    assert seen == [request]
    assert response.request is request


def test_a_response_of_another_request_keeps_it() -> None:
    other = Request("GET", URL + "other")
    response = Response(200, request=other)
    assert FunctionTransport(lambda request: response).round_trip(Request("GET", URL)) is response


def test_a_canned_response_may_be_handed_out_again() -> None:
    canned = Response(200, (), b"canned")
    transport = FunctionTransport(lambda request: canned)
    for _ in range(2):
        with transport.round_trip(Request("GET", URL)) as response:
            assert response.read() == b"canned"


def test_an_exception_of_the_function_passes() -> None:
    with pytest.raises(ZeroDivisionError):
        FunctionTransport(lambda request: 1 // 0).round_trip(Request("GET", URL))  # type: ignore[arg-type,return-value]


def test_a_closed_function_is_not_called() -> None:
    base = Base()
    transport = FunctionTransport(base.round_trip)
    transport.close()
    transport.close()
    with pytest.raises(UsageError, match="closed"):
        transport.round_trip(Request("GET", URL))
    assert base.requests == []


# --- HeadersTransport ---


def sent(request: Request, **options: Any) -> Request:
    base = Base()
    assert HeadersTransport(base, **options).round_trip(request) is base.response
    return base.requests[0]


def chunks() -> Iterator[bytes]:
    yield b"a"


BODIES: list[tuple[Callable[[], Any], bool]] = [
    (lambda: None, False),
    (lambda: b"", False),
    (lambda: Body.of(b""), False),
    (lambda: Body.of(chunks(), 0), False),
    (lambda: b"a", True),
    (lambda: Body.of(b"x" * 1_000_000), True),
    (lambda: Body.of(chunks(), 1), True),
    (lambda: Body.of(chunks()), True),  # its length is not known, so it may have one
]


@pytest.mark.parametrize(("body", "expects"), BODIES)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_the_headers_are_filled_in(method: str, body: Callable[[], Any], expects: bool) -> None:
    request = Request(method, URL, {"Accept": "*/*"}, body())
    expected = [("Accept", "*/*"), ("User-Agent", AGENT), *([("Expect", "100-continue")] if expects else [])]
    got = sent(request)
    assert list(got.headers.items()) == expected
    assert got.body is request.body
    assert (got.method, got.url, got.info) == (request.method, request.url, request.info)
    assert list(request.headers.items()) == [("Accept", "*/*")]


def test_no_chunk_is_pulled() -> None:
    body = Body.of(chunks())
    sent(Request("PUT", URL, body=body))
    assert body.resendable


@pytest.mark.parametrize(
    "headers",
    [
        {"user-agent": "mine/1", "EXPECT": "100-continue"},
        {"User-Agent": "", "Expect": ""},
        [("User-Agent", "a"), ("User-Agent", "b"), ("Expect", "something-else")],
    ],
)
def test_what_is_there_is_kept(headers: Any) -> None:
    request = Request("PUT", URL, headers, b"a")
    assert sent(request, user_agent="other/2") is request


def test_the_user_agent_is_a_parameter() -> None:
    assert sent(Request("GET", URL), user_agent="mine/1").headers["user-agent"] == "mine/1"
    assert sent(Request("GET", URL), user_agent="").headers["user-agent"] == ""
    for bad in ("a\r\nB: c", "\N{SNOWMAN}"):
        with pytest.raises(UsageError):
            HeadersTransport(Base(), user_agent=bad)


@pytest.mark.parametrize("body", [body for body, _ in BODIES])
def test_twice_changes_nothing(body: Callable[[], Any]) -> None:
    request = Request("PUT", URL, body=body())
    once, twice = Base(), Base()
    HeadersTransport(once).round_trip(request)
    HeadersTransport(HeadersTransport(twice, user_agent="inner/1")).round_trip(request)
    assert once.requests == twice.requests


def test_closing_closes_what_is_wrapped() -> None:
    base = Base()
    HeadersTransport(base).close()
    assert base.closed == 1


# --- default_transport ---


def test_the_default_stack_over_any_base() -> None:
    base = ScriptedTransport([Response(200), Response(201)])
    transport = default_transport(base=base, user_agent="mine/1")
    transport.round_trip(Request("GET", URL)).close()
    transport.round_trip(Request("PUT", URL, body=b"a")).close()
    assert [dict(request.headers.items()) for request in base.requests] == [
        {"User-Agent": "mine/1"},
        {"User-Agent": "mine/1", "Expect": "100-continue"},
    ]
    transport.close()
    with pytest.raises(UsageError, match="closed"):
        base.round_trip(Request("GET", URL))


def test_the_default_base_is_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def make(**options: Any) -> Base:
        made.append(options)
        UrllibTransport(**options).close()  # which takes them
        return Base()

    monkeypatch.setattr("ociwire.transport.default.UrllibTransport", make)
    options: dict[str, Any] = {
        "timeout": 3.0,
        "expect_timeout": 0.5,
        "tls": lambda host: None,
        "proxy": "http://proxy.example:3128",
        "trust_env": False,
    }
    with_options = default_transport(**options)
    assert made == [options]
    assert with_options.round_trip(Request("GET", URL)).status == 200


@pytest.mark.parametrize(
    "options", [{"expect_timeout": -1}, {"timeout": "soon"}, {"proxy": "socks5://p"}, {"user_agent": "a\nb"}]
)
def test_options_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        default_transport(**options)
