"""Tests of `stack`, `FunctionTransport`, `HeadersTransport` and `default_transport`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import urllib3

from ociwire import (
    Body,
    Client,
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
from ociwire.auth import Anonymous
from ociwire.errors import ReadError, UsageError
from ociwire.testing import ScriptedTransport
from ociwire.transport.default import compose_default_stack

URL = "https://registry.example/v2/"
AGENT = f"ociwire/{__version__}"


class RecordingTransport:
    """Transport that responds with 200 and records the requests."""

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


class RecordingLayer:
    """Layer that records when a request and a response pass through it."""

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


def test_stack_layers_wraps_innermost_first() -> None:
    base, passed = RecordingTransport(), list[str]()
    layers = [partial(RecordingLayer, name=name, passed=passed) for name in ("inner", "middle", "outer")]
    transport = stack(base, *layers)
    assert transport.round_trip(Request("GET", URL)) is base.response
    assert passed == ["> outer", "> middle", "> inner", "< inner", "< middle", "< outer"]
    passed.clear()
    transport.close()
    assert passed == ["close outer", "close middle", "close inner"]
    assert base.closed == 1


def test_stack_no_layers_returns_base() -> None:
    base = RecordingTransport()
    assert stack(base) is base


def test_transport_isinstance_requires_both_methods() -> None:
    for transport in (
        RecordingTransport(),
        FunctionTransport(lambda request: Response(200)),
        HeadersTransport(RecordingTransport()),
    ):
        assert isinstance(transport, Transport)
    assert not isinstance(object(), Transport)
    assert not isinstance(lambda request: Response(200), Transport)


# --- FunctionTransport ---


def test_function_transport_round_trip_calls_function() -> None:
    received: list[Request] = []

    def answer(request: Request) -> Response:
        received.append(request)
        return Response(418, {"A": "b"}, b"teapot")

    request = Request("GET", URL)
    response = FunctionTransport(answer).round_trip(request)
    assert (response.status, response.headers["a"], response.read()) == (418, "b", b"teapot")
    assert received == [request]
    assert response.request is request


def test_function_transport_response_with_request_keeps_it() -> None:
    other = Request("GET", URL + "other")
    response = Response(200, request=other)
    assert FunctionTransport(lambda request: response).round_trip(Request("GET", URL)) is response


def test_function_transport_same_response_twice_is_read_twice() -> None:
    canned = Response(200, (), b"canned")
    transport = FunctionTransport(lambda request: canned)
    for _ in range(2):
        with transport.round_trip(Request("GET", URL)) as response:
            assert response.read() == b"canned"


def test_function_transport_exception_propagates() -> None:
    with pytest.raises(ZeroDivisionError):
        FunctionTransport(lambda request: 1 // 0).round_trip(Request("GET", URL))  # type: ignore[arg-type,return-value]


def test_function_transport_closed_raises_usage_error() -> None:
    base = RecordingTransport()
    transport = FunctionTransport(base.round_trip)
    transport.close()
    transport.close()
    with pytest.raises(UsageError, match="closed"):
        transport.round_trip(Request("GET", URL))
    assert base.requests == []


# --- HeadersTransport ---


def sent(request: Request, **options: Any) -> Request:
    base = RecordingTransport()
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
    (lambda: Body.of(chunks()), True),  # of unknown length: it may have content
]


@pytest.mark.parametrize(("body", "expects"), BODIES)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_headers_transport_missing_headers_are_added(method: str, body: Callable[[], Any], expects: bool) -> None:
    request = Request(method, URL, {"Accept": "*/*"}, body())
    expected = [("Accept", "*/*"), ("User-Agent", AGENT), *([("Expect", "100-continue")] if expects else [])]
    sent_request = sent(request)
    assert list(sent_request.headers.items()) == expected
    assert sent_request.body is request.body
    assert (sent_request.method, sent_request.url, sent_request.info) == (request.method, request.url, request.info)
    assert list(request.headers.items()) == [("Accept", "*/*")]


def test_headers_transport_single_use_body_is_not_read() -> None:
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
def test_headers_transport_present_headers_are_kept(headers: Any) -> None:
    request = Request("PUT", URL, headers, b"a")
    assert sent(request, user_agent="other/2") is request


def test_headers_transport_user_agent_is_sent() -> None:
    assert sent(Request("GET", URL), user_agent="mine/1").headers["user-agent"] == "mine/1"
    assert sent(Request("GET", URL), user_agent="").headers["user-agent"] == ""
    for invalid in ("a\r\nB: c", "\N{SNOWMAN}"):
        with pytest.raises(UsageError):
            HeadersTransport(RecordingTransport(), user_agent=invalid)


@pytest.mark.parametrize("body", [body for body, _ in BODIES])
def test_headers_transport_twice_changes_nothing(body: Callable[[], Any]) -> None:
    request = Request("PUT", URL, body=body())
    wrapped_once, wrapped_twice = RecordingTransport(), RecordingTransport()
    HeadersTransport(wrapped_once).round_trip(request)
    HeadersTransport(HeadersTransport(wrapped_twice)).round_trip(request)
    assert wrapped_once.requests == wrapped_twice.requests


def test_headers_transport_default_of_outer_layer_is_replaced() -> None:
    base = RecordingTransport()
    HeadersTransport(HeadersTransport(base, user_agent="inner/1")).round_trip(Request("GET", URL))
    assert list(base.requests[0].headers.items()) == [("User-Agent", "inner/1")]


# Precedence: the header of the request, the user agent of the client, that of the stack, the default.
@pytest.mark.parametrize(
    ("client", "stacked", "header", "expected"),
    [
        (None, None, None, AGENT),
        ("client/1", None, None, "client/1"),
        (None, "stack/1", None, "stack/1"),
        ("client/1", "stack/1", None, "client/1"),
        ("client/1", "stack/1", "own/1", "own/1"),
        (None, None, "own/1", "own/1"),
    ],
)
def test_client_user_agent_precedence(
    client: str | None, stacked: str | None, header: str | None, expected: str
) -> None:
    base = RecordingTransport()
    transport = default_transport(base=base, credentials=Anonymous(), user_agent=stacked)
    headers = {} if header is None else {"User-Agent": header}
    request = Request("GET", "/v2/", headers)
    Client("registry.example", transport, user_agent=client).do(request).close()
    assert [sent.headers["user-agent"] for sent in base.requests] == [expected]


@pytest.mark.parametrize(("client", "expected"), [(None, AGENT), ("client/1", "client/1")])
def test_client_user_agent_reaches_fake_transport(client: str | None, expected: str) -> None:
    base = RecordingTransport()
    Client("registry.example", base, user_agent=client).do(Request("GET", "/v2/")).close()
    assert [sent.headers["user-agent"] for sent in base.requests] == [expected]


def test_default_transport_token_request_has_user_agent_of_stack() -> None:
    agents: list[str] = []

    def answer(request: Request) -> Response:
        agents.append(request.headers["user-agent"])
        if request.url.startswith("https://registry.example/token"):
            return Response(200, (), b'{"token": "t"}')
        if "authorization" in request.headers:
            return Response(200)
        return Response(401, {"WWW-Authenticate": 'Bearer realm="https://registry.example/token",service="s"'})

    base = FunctionTransport(answer)
    default_transport(base=base, credentials=Anonymous(), user_agent="stack/1").round_trip(Request("GET", URL)).close()
    assert agents == ["stack/1"] * 3


def test_headers_transport_close_closes_inner() -> None:
    base = RecordingTransport()
    HeadersTransport(base).close()
    assert base.closed == 1


# --- default_transport ---


def test_default_transport_base_gets_headers_and_is_closed() -> None:
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


def test_default_transport_options_reach_urllib_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def make(**options: Any) -> RecordingTransport:
        calls.append(options)
        UrllibTransport(**options).close()  # raises if it does not accept them
        return RecordingTransport()

    monkeypatch.setattr("ociwire.transport.default.UrllibTransport", make)
    options: dict[str, Any] = {
        "timeout": 3.0,
        "expect_timeout": 0.5,
        "tls": lambda host: None,
        "proxy": "http://proxy.example:3128",
        "trust_env": False,
        "pool_size": 3,
    }
    with_options = default_transport(**options)
    assert calls == [options]
    assert with_options.round_trip(Request("GET", URL)).status == 200


@pytest.mark.parametrize(
    "options", [{"expect_timeout": -1}, {"timeout": "soon"}, {"proxy": "socks5://p"}, {"user_agent": "a\nb"}]
)
def test_default_transport_invalid_option_raises_usage_error(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        default_transport(**options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 5),
        ("expect_timeout", 1.0),
        ("tls", lambda host: None),
        ("proxy", "http://proxy.example"),
        ("trust_env", True),
        ("trust_env", False),
        ("pool_size", 10),
    ],
)
def test_default_transport_base_with_urllib_option_raises_usage_error(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} cannot be combined with base: .*UrllibTransport\({name}="):
        default_transport(base=RecordingTransport(), credentials=Anonymous(), **{name: value})


@pytest.mark.parametrize("retry", [True, -1, 3.0, "3"])
def test_default_transport_retry_other_type_raises_usage_error(retry: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid retry .*: expected the number of retries, a urllib3\.util"):
        default_transport(base=RecordingTransport(), credentials=Anonymous(), retry=retry)


@pytest.mark.parametrize(
    ("retry", "attempts"), [(False, 1), (0, 1), (None, 5), (1, 2), (3, 4), (7, 8), (urllib3.Retry(2), 3)]
)
def test_default_transport_retry_is_the_policy(retry: Any, attempts: int) -> None:
    base = ScriptedTransport([ReadError("lost")] * attempts)
    transport = default_transport(base=base, credentials=Anonymous(), retry=retry, sleep=lambda seconds: None)
    with pytest.raises(ReadError):
        transport.round_trip(Request("GET", URL))
    assert len(base.requests) == attempts


# --- compose_default_stack ---

LAYERS = ["RecordingTransport", "AuthTransport", "HeadersTransport", "RedirectTransport", "RetryTransport"]


def test_compose_default_stack_wrap_observes_base_and_every_layer() -> None:
    passed: list[str] = []
    base = RecordingTransport()
    transport = compose_default_stack(
        base,
        credentials=Anonymous(),
        wrap=lambda name, inner: RecordingLayer(inner, name=name, passed=passed),
    )
    transport.round_trip(Request("GET", URL)).close()
    assert passed == [*(f"> {name}" for name in reversed(LAYERS)), *(f"< {name}" for name in LAYERS)]


def test_compose_default_stack_without_wrap_has_the_same_layers() -> None:
    transport: Any = default_transport(base=RecordingTransport(), credentials=Anonymous())
    names = [type(transport).__name__]
    while hasattr(transport, "_inner"):
        transport = transport._inner
        names.append(type(transport).__name__)
    assert names == LAYERS[::-1]
