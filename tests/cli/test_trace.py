"""The taps of a trace: what they record of a token response, and which deadline its body gets."""

from __future__ import annotations

from ociwire import FunctionTransport, Request, RequestInfo, Response
from ociwire._cli.trace import Trace, _Tap
from tests._support.doubles import FakeReader

TOKEN_REQUEST = Request("GET", "https://auth.example/token", info=RequestInfo(operation="token"))


class TimedBody(FakeReader):
    """Body that records the limits set for its remaining time."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.limits: list[float] = []

    def shorten_timeout(self, seconds: float) -> None:
        self.limits.append(seconds)


def get_token(response: Response) -> tuple[Response, Trace]:
    trace = Trace()
    tap = _Tap(FunctionTransport(lambda request: response), layer="UrllibTransport", trace=trace)
    return tap.round_trip(TOKEN_REQUEST), trace


def test_tap_token_response_drain_limits_time() -> None:
    body = TimedBody(b"a page")
    response, trace = get_token(Response(503, (), body))
    response.drain()
    assert body.limits == [1.0]
    assert body.closed
    assert bytes(trace.pop_spans()[0].token_response) == b"a page"


def test_tap_token_response_in_memory_keeps_its_length() -> None:
    response, _ = get_token(Response(200, (), b"content"))
    with response:
        assert response.length == 7
        assert response.read() == b"content"
