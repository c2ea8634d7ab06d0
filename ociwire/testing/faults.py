"""Layer that injects reproducible network faults.

Faults do not sleep: a stalled connection raises the timeout error immediately. As with a real network, the registry
receives a request whose response is lost, but not a request whose connection is reset before it is sent.
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
from .._http.transport import BaseTransport, check_transport
from ..errors import ConnectError, ReadError, TransportTimeout, UsageError
from ..registry._messages import error_response
from ..transport import Transport
from ..transport.base import with_request

__all__ = ["FAULTS", "Fault", "FaultTransport", "InjectedFault"]

Fault = Callable[[Request, Transport, random.Random], Response]
"""Function that handles a request in place of the inner transport.

It receives the request, the inner transport and a seeded random number generator. It returns a response or raises.
"""


class InjectedFault(NamedTuple):
    """Record of an injected fault.

    Attributes:
        number: Number of the request, counted from 0.
        fault: Name of the fault.
        method: Method of the request.
        url: URL of the request.
    """

    number: int
    fault: str
    method: str
    url: str


@final
class FaultTransport(BaseTransport):
    """Layer that forwards requests and injects faults into some of them. Thread-safe.

    The same seed and the same sequence of requests give the same faults.

    Args:
        inner: The inner transport.
        seed: Seed that determines which requests fail and how. Defaults to 0.
        rate: Probability that a request fails, from 0 to 1. Defaults to 0.1.
        faults: Faults to choose from: names in `FAULTS`, or functions of the type `Fault`. Defaults to all of `FAULTS`.
        limit: Maximum number of faults. Defaults to `None`, no limit.
        where: Function that returns whether a request may fail. Defaults to `None`: all requests may fail.

    Attributes:
        injected: The faults that were injected, in order.

    Raises:
        UsageError: A name is not in `FAULTS`, `rate` is not a number from 0 to 1, or `seed` or `limit` is not an
            integer.

    >>> from ociwire import Client, Descriptor
    >>> from ociwire.testing import FaultTransport, MemoryRegistry
    >>> faults = FaultTransport(MemoryRegistry(), rate=1, faults=["refused"], limit=1)
    >>> client = Client("registry.example", faults)
    >>> client.push_blob("models/llm", Descriptor.of(b"weights"), b"weights")
    Traceback (most recent call last):
        ...
    ociwire.errors.ConnectError: connection refused
    >>> faults.injected[0].fault
    'refused'
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
        self._inner = check_transport("inner", inner)
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
        """Forward the request, or inject a fault.

        Raises:
            TransportError: The injected fault.
            UsageError: The transport is closed.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        fault, rng = self._choose(request)
        if fault is None:
            return _forward(request, self._inner)
        return with_request(fault(request, self._inner, rng), request)

    def close(self) -> None:
        """Close this transport and the inner transport. Idempotent if `close` of the inner transport is idempotent."""
        self._closed = True
        self._inner.close()

    def _choose(self, request: Request) -> tuple[Fault | None, random.Random]:
        with self._lock:
            number, self._count = self._count, self._count + 1
            # A separate generator per request, so that random numbers drawn by a fault do not affect later requests.
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
            raise UsageError(f"invalid fault {safe_repr(fault)}: expected one of {', '.join(FAULTS)}")
        return fault, FAULTS[fault]
    return getattr(fault, "__name__", type(fault).__name__), fault


class _TruncatedBody(ResponseReader):
    """Response body that ends, or raises an exception, after `at` bytes."""

    def __init__(self, response: Response, at: int, error: Exception | None) -> None:
        super().__init__(response)
        self.known_length = None  # not the length of the complete body
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
    """Response body in which one bit is inverted."""

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
    raise ReadError("connection reset before the response", request=request)


def _reset_in_body(request: Request, inner: Transport, rng: random.Random) -> Response:
    error = ReadError("connection reset while the response was being read", request=request)
    return _truncate(_forward(request, inner), rng, error)


def _short_body(request: Request, inner: Transport, rng: random.Random) -> Response:
    return _truncate(_forward(request, inner), rng, None)


def _stall(request: Request, inner: Transport, rng: random.Random) -> Response:
    raise TransportTimeout("timed out before the response", request=request)


def _stall_in_body(request: Request, inner: Transport, rng: random.Random) -> Response:
    error = TransportTimeout("timed out while the response was being read", request=request)
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
    return error_response(503, "UNAVAILABLE", "service unavailable")


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
"""The faults of `FaultTransport` by name.

- ``refused``: the connection is refused.
- ``reset``: the connection is reset before the request is sent.
- ``reset in upload``: the connection is reset while the request's body is sent.
- ``answer lost``: the connection is reset after the registry has handled the request.
- ``reset in body``: the connection is reset at a random byte of the response's body.
- ``short body``: the response's body ends early, without an error.
- ``flipped byte``: one bit of the response's body is inverted.
- ``stall``: the request times out before the response.
- ``stall in body``: the request times out at a random byte of the response's body.
- ``429``: response with Retry-After in seconds.
- ``429 with a date``: response with Retry-After as a date.
- ``503``: error response in the format of the specification.
- ``502 with HTML``: error response of a proxy.
- ``no 100``: the complete body is read without 100 (Continue), and the response is 503.
"""
