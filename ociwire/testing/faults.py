"""A network that fails, on purpose and reproducibly: faults put between a stack and whatever answers below.

Nothing here waits: a stall is the timeout that it would end in. What a fault does to the registry is what it would
do: a request that was reset on its way has not arrived, one whose answer was lost has.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import NamedTuple, final

from .._arguments import check_integer, is_number, show
from .._http.headers import Headers
from .._http.messages import Request, Response
from ..errors import ConnectError, ReadError, TransportTimeout, UsageError
from ..transport import Transport

__all__ = ["FAULTS", "Fault", "FaultTransport", "Injected"]

Fault = Callable[[Request, Transport, random.Random], Response]
"""What happens to a request instead of being passed on: answers it, by way of the inner transport or not, or raises."""


class Injected(NamedTuple):
    """A fault that was injected.

    Attributes:
        number: Which request it was, counted from 0.
        fault: Its name.
        method: The request's method.
        url: The request's URL.
    """

    number: int
    fault: str
    method: str
    url: str


@final
class FaultTransport:
    """Passes requests on, and lets some of them fail. With the same seed the same requests fail in the same way.

    Args:
        inner: The transport to ask.
        seed: For the choice of requests and faults, and for what is random in a fault.
        rate: How likely a request is to fail, from 0 to 1.
        faults: What may happen: names of `FAULTS`, or functions of one's own, which are known by their ``__name__``.
        limit: The most faults in all; None is no bound.
        where: Which requests may fail; None is all of them.

    Attributes:
        injected: What has happened, in order.

    Raises:
        UsageError: A name is none of `FAULTS`, or the rate is not between 0 and 1.
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
            raise UsageError(f"invalid rate {show(rate)}: expected a number from 0 to 1")
        check_integer("seed", seed, minimum=-(2**63))
        if limit is not None:
            check_integer("limit", limit)
        self._inner = inner
        self._seed = seed
        self._rate = rate
        self._faults = [_named(fault) for fault in (FAULTS if faults is None else faults)]
        self._limit = limit
        self._where = where
        self._closed = False
        self._lock = threading.Lock()
        self._count = 0
        self.injected: list[Injected] = []

    def round_trip(self, request: Request, /) -> Response:
        """Pass the request on, or let it fail.

        Raises:
            TransportError: What the fault is.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        fault, chance = self._choose(request)
        if fault is None:
            return _answer(request, self._inner)
        response = fault(request, self._inner, chance)
        return response if response.request is not None else response.replace(request=request)

    def close(self) -> None:
        """Close the inner transport, and refuse further requests."""
        self._closed = True
        self._inner.close()

    def _choose(self, request: Request) -> tuple[Fault | None, random.Random]:
        with self._lock:
            number, self._count = self._count, self._count + 1
            chance = random.Random(f"{self._seed}/{number}")  # noqa: S311 - to be reproduced, not to be secret
            spent = self._limit is not None and len(self.injected) >= self._limit
            if spent or not self._faults or chance.random() >= self._rate or not self._may_fail(request):
                return None, chance
            name, fault = chance.choice(self._faults)
            self.injected.append(Injected(number, name, request.method, request.url))
            return fault, chance

    def _may_fail(self, request: Request) -> bool:
        return self._where is None or self._where(request)


def _named(fault: str | Fault) -> tuple[str, Fault]:
    if isinstance(fault, str):
        if fault not in FAULTS:
            raise UsageError(f"not a fault: {show(fault)} (FaultTransport knows {', '.join(FAULTS)})")
        return fault, FAULTS[fault]
    return getattr(fault, "__name__", type(fault).__name__), fault


class _Cut:
    """A response's body that goes wrong after so many bytes."""

    def __init__(self, response: Response, at: int, error: Exception | None) -> None:
        self._response = response
        self._left = at
        self._error = error

    def readinto(self, buffer: memoryview, /) -> int:
        if self._left > 0:
            count = self._response.readinto(buffer[: self._left])
            self._left = self._left - count if count else 0
            if count:
                return count
        self._response.close()
        if self._error is None:
            return 0
        raise self._error

    def close(self) -> None:
        self._response.close()


class _Flipped:
    """A response's body with one bit of one byte turned over."""

    def __init__(self, response: Response, at: int, bit: int) -> None:
        self._response = response
        self._at = at
        self._bit = bit

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._response.readinto(buffer)
        if 0 <= self._at < count:
            buffer[self._at] ^= 1 << self._bit
        self._at -= count
        return count

    def close(self) -> None:
        self._response.close()


def _refused(request: Request, inner: Transport, chance: random.Random) -> Response:
    raise ConnectError("connection refused", request=request)


def _reset(request: Request, inner: Transport, chance: random.Random) -> Response:
    raise ReadError("connection reset before the request was sent", request=request)


def _reset_in_upload(request: Request, inner: Transport, chance: random.Random) -> Response:
    if request.body is not None:
        next(request.body.open(), None)
    raise ReadError("connection reset while the request was being sent", request=request)


def _answer(request: Request, inner: Transport) -> Response:
    response = inner.round_trip(request)
    return response if response.request is not None else response.replace(request=request)


def _answer_lost(request: Request, inner: Transport, chance: random.Random) -> Response:
    inner.round_trip(request).drain()
    raise ReadError("connection reset before the answer", request=request)


def _reset_in_body(request: Request, inner: Transport, chance: random.Random) -> Response:
    error = ReadError("connection reset in the middle of the answer", request=request)
    return _cut(_answer(request, inner), chance, error)


def _short_body(request: Request, inner: Transport, chance: random.Random) -> Response:
    return _cut(_answer(request, inner), chance, None)


def _stall(request: Request, inner: Transport, chance: random.Random) -> Response:
    raise TransportTimeout("timed out before an answer", request=request)


def _stall_in_body(request: Request, inner: Transport, chance: random.Random) -> Response:
    error = TransportTimeout("timed out in the middle of the answer", request=request)
    return _cut(_answer(request, inner), chance, error)


def _cut(response: Response, chance: random.Random, error: Exception | None) -> Response:
    length = response.length
    if length == 0:
        return response
    at = chance.randrange(length) if length else 0
    return response.replace(body=_Cut(response, at, error))


def _flipped_byte(request: Request, inner: Transport, chance: random.Random) -> Response:
    response = _answer(request, inner)
    at = chance.randrange(response.length or 1)
    return response.replace(body=_Flipped(response, at, chance.randrange(8)))


def _too_many_requests(request: Request, inner: Transport, chance: random.Random) -> Response:
    return _json(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "1"})


def _too_many_requests_date(request: Request, inner: Transport, chance: random.Random) -> Response:
    later = formatdate(time.time() + 2, usegmt=True)
    return _json(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": later})


def _unavailable(request: Request, inner: Transport, chance: random.Random) -> Response:
    return _json(503, "UNAVAILABLE", "down for maintenance")


def _bad_gateway(request: Request, inner: Transport, chance: random.Random) -> Response:
    return Response(502, {"Content-Type": "text/html"}, b"<html><body><h1>502 Bad Gateway</h1></body></html>")


def _never_continues(request: Request, inner: Transport, chance: random.Random) -> Response:
    if request.body is None:
        return inner.round_trip(request)
    for _ in request.body.open():
        pass
    return _unavailable(request, inner, chance)


def _json(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    content = f'{{"errors": [{{"code": "{code}", "message": "{message}"}}]}}'.encode()
    return Response(status, Headers({"Content-Type": "application/json", **(headers or {})}), content)


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
"""What `FaultTransport` can do, by name.

``refused``: no connection. ``reset``, ``reset in upload``: it breaks before the request was sent, or in its body.
``answer lost``: the registry has acted, and its answer is lost. ``reset in body``, ``stall in body``: the answer
breaks, or stops, at a byte of its body. ``short body``: it ends early, and nothing says so. ``flipped byte``: one bit
of it is wrong. ``stall``: nothing comes. ``429``, ``429 with a date``: Retry-After, in seconds and as a date. ``503``,
``502 with HTML``: refusals. ``no 100``: the body is sent unasked, to a registry that then says 503.
"""
