"""A layer that injects network faults, reproducibly.

No fault waits: a stall is raised as the timeout that it would end in. The registry is affected as by a real fault: a
request that is reset on its way does not arrive, one whose response is lost does.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import NamedTuple, final

from .._argument_checks import check_integer, is_number, safe_repr
from .._http.messages import Request, Response
from .._http.response_body import ResponseReader
from ..errors import ConnectError, ReadError, TransportTimeout, UsageError
from ..registry._messages import error_response
from ..transport import Transport
from ..transport.base import with_request

__all__ = ["FAULTS", "Fault", "FaultTransport", "InjectedFault"]

Fault = Callable[[Request, Transport, random.Random], Response]
"""Called instead of the inner transport: returns a response, which may come from the inner transport, or raises."""


class InjectedFault(NamedTuple):
    """A fault that was injected.

    Attributes:
        number: The number of the request, from 0.
        fault: The name of the fault.
        method: The request's method.
        url: The request's URL.
    """

    number: int
    fault: str
    method: str
    url: str


@final
class FaultTransport:
    """Passes requests on and makes some of them fail. With the same seed, the same requests fail in the same way.

    Args:
        inner: The inner transport.
        seed: Seed for the choice of requests and faults, and for random values of faults. Defaults to 0.
        rate: Probability that a request fails, from 0 to 1. Defaults to 0.1.
        faults: The faults to choose from: names of `FAULTS`, or functions, which are named by their ``__name__``.
            Defaults to all of `FAULTS`.
        limit: Maximum number of faults. `None` means no limit.
        where: Returns whether a request may fail. `None` means that all may.

    Attributes:
        injected: The faults that were injected, in order.

    Raises:
        UsageError: A name is not in `FAULTS`, or the rate is not between 0 and 1.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        seed: int = 0,
        rate: float = 0.1,
        faults: Iterable[str | Fault] | None = None,
        limit: int | None = None,
        where: Callable[[Request], bool] | None = None,
    ) -> None:
        if not is_number(rate) or not 0 <= rate <= 1:
            raise UsageError(f"invalid rate {safe_repr(rate)}: expected a number from 0 to 1")
        check_integer("seed", seed, minimum=-(2**63))
        if limit is not None:
            check_integer("limit", limit)
        self._inner = inner
        self._seed = seed
        self._rate = rate
        self._faults = [_resolve_fault(fault) for fault in (FAULTS if faults is None else faults)]
        self._limit = limit
        self._where = where
        self._closed = False
        self._lock = threading.Lock()
        self._count = 0
        self.injected: list[InjectedFault] = []

    def round_trip(self, request: Request, /) -> Response:
        """Pass the request on, or inject a fault.

        Raises:
            TransportError: The fault.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        fault, rng = self._choose(request)
        if fault is None:
            return _forward(request, self._inner)
        return with_request(fault(request, self._inner, rng), request)

    def close(self) -> None:
        """Close the inner transport, and refuse further requests."""
        self._closed = True
        self._inner.close()

    def _choose(self, request: Request) -> tuple[Fault | None, random.Random]:
        with self._lock:
            number, self._count = self._count, self._count + 1
            # One generator for each request: what a fault draws from it does not change the later ones.
            rng = random.Random(f"{self._seed}/{number}")  # noqa: S311 - must be reproducible, not secret
            is_exhausted = self._limit is not None and len(self.injected) >= self._limit
            if is_exhausted or not self._faults or rng.random() >= self._rate:
                return None, rng
            if self._where is not None and not self._where(request):
                return None, rng
            name, fault = rng.choice(self._faults)
            self.injected.append(InjectedFault(number, name, request.method, request.url))
            return fault, rng


def _resolve_fault(fault: str | Fault) -> tuple[str, Fault]:
    if isinstance(fault, str):
        if fault not in FAULTS:
            raise UsageError(f"not a fault: {safe_repr(fault)} (FaultTransport knows {', '.join(FAULTS)})")
        return fault, FAULTS[fault]
    return getattr(fault, "__name__", type(fault).__name__), fault


class _TruncatedBody(ResponseReader):
    """A response's body that ends, or raises an error, after so many bytes."""

    def __init__(self, response: Response, at: int, error: Exception | None) -> None:
        super().__init__(response)
        self.known_length = None  # shorter than that of the response
        self._remaining = at
        self._error = error

    def readinto(self, buffer: memoryview, /) -> int:
        if self._remaining > 0:
            count = super().readinto(buffer[: self._remaining])
            self._remaining = self._remaining - count if count else 0
            if count:
                return count
        self.close()
        if self._error is None:
            return 0
        raise self._error


class _FlippedBody(ResponseReader):
    """A response's body with one bit of one byte inverted."""

    def __init__(self, response: Response, at: int, bit: int) -> None:
        super().__init__(response)
        self._at = at
        self._bit = bit

    def readinto(self, buffer: memoryview, /) -> int:
        count = super().readinto(buffer)
        if 0 <= self._at < count:
            buffer[self._at] ^= 1 << self._bit
        self._at -= count
        return count


def _refused(request: Request, inner: Transport, rng: random.Random) -> Response:
    raise ConnectError("connection refused", request=request)


def _reset(request: Request, inner: Transport, rng: random.Random) -> Response:
    raise ReadError("connection reset before the request was sent", request=request)


def _reset_in_upload(request: Request, inner: Transport, rng: random.Random) -> Response:
    if request.body is not None:
        next(request.body.open(), None)
    raise ReadError("connection reset while the request was being sent", request=request)


def _forward(request: Request, inner: Transport) -> Response:
    return with_request(inner.round_trip(request), request)


def _answer_lost(request: Request, inner: Transport, rng: random.Random) -> Response:
    inner.round_trip(request).drain()
    raise ReadError("connection reset before the answer", request=request)


def _reset_in_body(request: Request, inner: Transport, rng: random.Random) -> Response:
    error = ReadError("connection reset in the middle of the answer", request=request)
    return _truncate(_forward(request, inner), rng, error)


def _short_body(request: Request, inner: Transport, rng: random.Random) -> Response:
    return _truncate(_forward(request, inner), rng, None)


def _stall(request: Request, inner: Transport, rng: random.Random) -> Response:
    raise TransportTimeout("timed out before an answer", request=request)


def _stall_in_body(request: Request, inner: Transport, rng: random.Random) -> Response:
    error = TransportTimeout("timed out in the middle of the answer", request=request)
    return _truncate(_forward(request, inner), rng, error)


def _truncate(response: Response, rng: random.Random, error: Exception | None) -> Response:
    length = response.length
    if length == 0:
        return response
    at = rng.randrange(length) if length else 0
    return response.replace(body=_TruncatedBody(response, at, error))


def _flipped_byte(request: Request, inner: Transport, rng: random.Random) -> Response:
    response = _forward(request, inner)
    at = rng.randrange(response.length or 1)
    return response.replace(body=_FlippedBody(response, at, rng.randrange(8)))


def _too_many_requests(request: Request, inner: Transport, rng: random.Random) -> Response:
    return error_response(429, "TOOMANYREQUESTS", "slow down", headers={"Retry-After": "1"})


def _too_many_requests_date(request: Request, inner: Transport, rng: random.Random) -> Response:
    later = formatdate(time.time() + 2, usegmt=True)
    return error_response(429, "TOOMANYREQUESTS", "slow down", headers={"Retry-After": later})


def _unavailable(request: Request, inner: Transport, rng: random.Random) -> Response:
    return error_response(503, "UNAVAILABLE", "down for maintenance")


def _bad_gateway(request: Request, inner: Transport, rng: random.Random) -> Response:
    return Response(502, {"Content-Type": "text/html"}, b"<html><body><h1>502 Bad Gateway</h1></body></html>")


def _never_continues(request: Request, inner: Transport, rng: random.Random) -> Response:
    if request.body is None:
        return inner.round_trip(request)
    for _ in request.body.open():
        pass
    return _unavailable(request, inner, rng)


FAULTS: dict[str, Fault] = {
    "refused": _refused,
    "reset": _reset,
    "reset in upload": _reset_in_upload,
    "answer lost": _answer_lost,
    "reset in body": _reset_in_body,
    "short body": _short_body,
    "flipped byte": _flipped_byte,
    "stall": _stall,
    "stall in body": _stall_in_body,
    "429": _too_many_requests,
    "429 with a date": _too_many_requests_date,
    "503": _unavailable,
    "502 with HTML": _bad_gateway,
    "no 100": _never_continues,
}
"""The faults of `FaultTransport`, by name.

``refused``: the connection is refused. ``reset``, ``reset in upload``: it is reset before the request is sent, or while
its body is sent. ``answer lost``: it is reset after the registry has handled the request. ``reset in body``,
``stall in body``: it is reset, or times out, at some byte of the response's body. ``short body``: the body ends early,
without an error. ``flipped byte``: one bit of the body is inverted. ``stall``: a timeout before the response. ``429``,
``429 with a date``: Retry-After in seconds, and as a date. ``503``, ``502 with HTML``: error responses. ``no 100``: the
body is sent without a 100 (Continue), and the response is 503.
"""
