"""Sends again what is safe to send again, and leaves a registry alone for as long as it asks to be.

What comes out in the end is the last response or the last exception, as it was: nothing is wrapped. Never sent again is
what is left of a body, what its owner's content failed at, and what would only fail again: a certificate, a refusal of
a token server, a length that lied.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import final

import urllib3

from .._arguments import check_seconds, is_number, show
from .._http.messages import Request, Response, redactor_of
from .._http.transport import Transport
from .._http.urls import Origin
from .._oci.host import redact_url
from ..errors import TransportError, TransportTimeout, UsageError
from .retry_policy import Budget, RetryPolicy

__all__ = ["RetryTransport", "sleep"]

_LOG = logging.getLogger("ociwire.retry")
_MAX_ORIGINS = 1024
_MAX_WAITING = 16 * 1024
"""Maximum number of hosts with a pending Retry-After (8 MiB); the oldest is evicted. Redirects may name many hosts."""


@final
class RetryTransport:
    """Sends again what is safe to send again, by a `urllib3.util.Retry`, which is read as data.

    Without one: up to four retries of idempotent requests (by their method, or as `RequestInfo.idempotent` says) after
    a connection error, a timeout, 408, 429, 500, 502 to 504 or 520 to 524. A HEAD is not retried after 500, because the
    client confirms it by a GET. Other requests are retried after 429 and 503; a request with ``idempotent=False`` only
    if no byte of its body was sent, because some servers act before they answer so. There is no wait before the first
    retry; before the others 1, 2 and 4 seconds, and a little at random. Retry-After is never undercut, and what one
    thread is told to wait, all others that talk to that host wait too. May be shared by threads.

    Args:
        inner: The transport to ask.
        retry: A `urllib3.util.Retry`, obeyed to the letter: its counts, methods, statuses and backoff, and
            ``respect_retry_after_header``; but what is said not to be idempotent is sent once. None is what is said
            above, False is no retry.
        max_wait: The longest wait before an attempt, in seconds. A response that asks for more is handed back at once.
        sleep: Waits for so many seconds; None is `time.sleep`, looked up at each call.
        clock: Returns the wall-clock time in seconds since the epoch, for Retry-After. None is `time.time`, looked up
            at each call.

    Raises:
        UsageError: `retry` or `max_wait` is none of these.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        retry: urllib3.Retry | bool | None = None,
        max_wait: float = 60.0,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if retry is not None and retry is not False and not isinstance(retry, urllib3.Retry):
            raise UsageError(f"retry is a urllib3.util.Retry, False or None, not {show(retry)}")
        if isinstance(retry, urllib3.Retry):
            _check_numbers(retry)
        self._inner = inner
        self._policy = RetryPolicy(urllib3.Retry(total=False) if retry is False else retry or None)
        self._hosts = _Hosts(sleep, clock, check_seconds("max_wait", max_wait))

    def round_trip(self, request: Request, /) -> Response:
        """Ask the inner transport, as often as it is safe and of use.

        Raises:
            TransportTimeout: The deadline comes before the next attempt may be made.
            TransportError: What the last attempt ended in.
        """
        budget = self._policy.budget()
        sent = None
        if request.info.idempotent is False and request.body is not None and request.body.length != 0:
            sent = _Sent()
            request = request.replace(body=request.body.map(sent))
        turn = _Turn(self._hosts, request)
        if (left := turn.left()) > 0:
            turn.wait(left, "Retry-After")
        while True:
            try:
                response = self._inner.round_trip(request)
            except TransportError as error:
                kind = self._policy.kind(request, error)
                if kind is None or not budget.spend(kind):
                    raise
                turn.wait(max(budget.backoff(), turn.left()), f"{type(error).__name__}: {error}")
            else:
                unsent = sent is not None and not sent.any
                pause = self._pause(turn, request, response, budget, unsent=unsent)
                if pause is None:
                    return response if response.request is not None else response.replace(request=request)
                response.drain()
                turn.wait(pause, str(response.status))

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def _pause(
        self, turn: _Turn, request: Request, response: Response, budget: Budget, *, unsent: bool
    ) -> float | None:
        """Seconds to wait before the request is sent again; None if the response is the answer."""
        if response.status < 400 and not self._policy.lists(response.status):
            return None
        stated = self._policy.retry_after(response, self._hosts.now())
        left = turn.left()
        if stated and response.status in urllib3.Retry.RETRY_AFTER_STATUS_CODES:
            # Who said so may be another host, by a redirect: neither is asked, nor the one that leads there.
            spoke = turn.origin if response.request is None else Origin.of(response.request.url)
            for origin in {turn.origin, spoke}:
                self._hosts.leave_alone(origin, stated)
        if stated is not None and stated > min(self._hosts.max_wait, self._policy.longest_wait):
            return None
        if not self._policy.wants_retry(request, response, unsent=unsent) or not budget.spend("status"):
            return None
        return max(stated or budget.backoff(), left)


def sleep(seconds: float) -> None:
    """Sleep between two requests of one operation, by `time.sleep`, which is looked up at each call."""
    time.sleep(seconds)


class _Sent:
    """Records whether any byte of a body was read in order to send it. For `Body.map`."""

    def __init__(self) -> None:
        self.any = False

    def __call__(self, chunk: bytes) -> bytes:
        self.any = self.any or bool(chunk)
        return chunk


def _check_numbers(retry: urllib3.Retry) -> None:
    """Check that counts and durations are numbers: a total of NaN would retry for ever."""
    for name in ("total", "connect", "read", "status", "other"):
        value = getattr(retry, name)
        if value is not None and not isinstance(value, int):
            raise UsageError(f"invalid {name} {show(value)} of retry: expected an integer, False or None")
    # Older versions of urllib3 do not have all of them.
    for name in ("backoff_factor", "backoff_max", "backoff_jitter", "retry_after_max"):
        if not is_number(getattr(retry, name, 0)):
            raise UsageError(f"invalid {name} {show(getattr(retry, name))} of retry: expected a number of seconds")


class _Hosts:
    """Which hosts are to be left alone, and until when: what one thread is told holds for all of them."""

    def __init__(
        self, sleep: Callable[[float], object] | None, clock: Callable[[], float] | None, max_wait: float
    ) -> None:
        self._sleep = sleep
        self._clock = clock
        self.max_wait = max_wait
        self._lock = threading.Lock()
        self._until: dict[Origin, float] = {}
        self._mine = threading.local()

    def now(self) -> float:
        return time.time() if self._clock is None else self._clock()

    def sleep(self, seconds: float) -> None:
        (time.sleep if self._sleep is None else self._sleep)(seconds)

    def until(self, origin: Origin) -> float:
        return self._until.get(origin, 0.0)

    def leave_alone(self, origin: Origin, seconds: float) -> None:
        """Let nobody ask a host for so many seconds, `max_wait` at the most."""
        now = self.now()
        with self._lock:
            if origin not in self._until and len(self._until) >= _MAX_ORIGINS:
                self._until = {other: until for other, until in self._until.items() if until > now}
                while len(self._until) >= _MAX_WAITING:
                    del self._until[next(iter(self._until))]
            self._until[origin] = max(now + min(seconds, self.max_wait), self.until(origin))

    def served(self, origin: Origin) -> float:
        """Up to which `until` this thread has waited: it does not wait for the same word twice, whatever its clock."""
        until: float = getattr(self._mine, "served", {}).get(origin, 0.0)
        return until

    def serve(self, origin: Origin, until: float) -> None:
        """This thread has waited."""
        served = getattr(self._mine, "served", {})
        self._mine.served = {**(served if len(served) < _MAX_ORIGINS else {}), origin: until}


class _Turn:
    """The waits of one request."""

    def __init__(self, hosts: _Hosts, request: Request) -> None:
        self.origin = Origin.of(request.url)
        self._hosts = hosts
        self._request = request
        self._served = hosts.served(self.origin)  # up to which `until` of its host it has waited

    def left(self) -> float:
        """Seconds for which the host is still to be left alone, beyond what was waited for."""
        until = self._hosts.until(self.origin)
        return 0.0 if until <= self._served else min(max(0.0, until - self._hosts.now()), self._hosts.max_wait)

    def wait(self, pause: float, why: str) -> None:
        """Sleep; and longer, if another thread is told to meanwhile. `max_wait` at the most.

        Raises:
            TransportTimeout: The deadline comes before the end of it.
        """
        left = self._hosts.max_wait
        pause = max(pause, self.left())  # what another thread was told since
        while True:
            self._served = self._hosts.until(self.origin)
            pause = min(pause, left)
            self._announce(pause, why)
            if pause > 0:
                self._hosts.sleep(pause)
            left -= pause
            pause = min(self._hosts.until(self.origin) - self._served, left)
            if pause <= 0:
                self._hosts.serve(self.origin, self._served)
                return

    def _announce(self, pause: float, why: str) -> None:
        request = self._request
        redactor = redactor_of(request)
        what, why = f"{request.method} {redactor.text(redact_url(request.url))}", redactor.text(why)
        if request.info.deadline is not None and time.monotonic() + pause >= request.info.deadline:
            raise TransportTimeout(
                f"the deadline comes before {what} may be sent again, in {pause:.1f} s ({why})", request=request
            )
        _LOG.info("%s: %s; again in %.1f s", what, why, pause)
