"""Layer that retries idempotent requests, and applies Retry-After to all threads.

The response of the last attempt is returned, or its exception is raised, unchanged. A partially consumed body is never
resent. Permanent failures are not retried: an exception raised by the content, an invalid certificate, rejected
credentials, or a wrong length. `RetryPolicy` decides what to retry. This module counts the retries and waits:

========  ==============================================  ====================================================  ========
state     event                                           action                                                next
========  ==============================================  ====================================================  ========
start     an earlier Retry-After still blocks the host                                                          waiting
start     otherwise                                                                                             sending
sending   an exception that may be retried                take one retry from the budget                        waiting
sending   any other exception, or no retry remains        raise it                                              (done)
sending   413, 429 or 503 with Retry-After                block the host for all threads; continue below        sending
sending   Retry-After exceeds `max_wait`                  return the response                                   (done)
sending   a response that may be retried                  take one retry from the budget; drain the response    waiting
sending   any other response, or no retry remains         return the response                                   (done)
waiting   the deadline expires before the wait ends       raise `TransportTimeout`                              (done)
waiting   another thread has blocked the host for longer  extend the wait, up to `max_wait` in total            waiting
waiting   the wait is over                                                                                      sending
========  ==============================================  ====================================================  ========
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, final

import urllib3

from .._argument_checks import (
    OTHER_TRANSPORT_OPTIONS,
    check_function,
    check_seconds,
    is_number,
    safe_repr,
    suggest_options,
)
from .._http.cancellation import cancellable_sleep
from .._http.messages import Request, Response, redactor_of
from .._http.transport import BaseTransport, Transport, check_transport
from .._http.urls import Origin
from .._oci.host import redact_url
from ..errors import TransportError, TransportTimeout, UsageError
from .base import with_request
from .retry_policy import MAX_RETRIES, MAX_WAIT, Budget, RetryPolicy

__all__ = ["RetryTransport"]

_LOG = logging.getLogger("ociwire.retry")
_MAX_ORIGINS = 1024
"""If this number of hosts is tracked, expired entries are removed before another host is added."""
_MAX_BLOCKED = 16 * 1024
"""Maximum number of blocked hosts (8 MiB). Beyond it, the oldest is evicted: redirects may lead to many hosts."""


@final
class RetryTransport(BaseTransport):
    """Retries requests according to a `urllib3.util.Retry`, with shared Retry-After. Thread-safe.

    By default, idempotent requests (see `Request.idempotent`) are retried up to four times after a connection error, a
    timeout, or status 408, 429, 500, 502 to 504 or 520 to 524. A HEAD is not retried after 500, because the client
    sends a GET instead. Other requests are retried only after 429 and 503. A request with ``idempotent=False`` is
    retried after these only if no byte of its body was sent, because some servers store the data before they respond
    with 503. The first retry is sent immediately, the others after 1, 2 and 4 seconds plus up to 0.25 seconds of
    jitter. A wait is never shorter than Retry-After. Retry-After applies to the requests of all threads to that host.

    >>> from ociwire import FunctionTransport, Request, Response, RetryTransport
    >>> responses = iter([Response(503), Response(200)])
    >>> transport = RetryTransport(FunctionTransport(lambda request: next(responses)))
    >>> transport.round_trip(Request("GET", "https://registry.example/v2/")).status
    200

    Args:
        inner: The transport to wrap.
        retry: Maximum number of retries of the default policy (0 or more), or a `urllib3.util.Retry`, of which the
            counts, allowed methods, statuses, backoff and ``respect_retry_after_header`` are used; its
            ``increment`` and ``sleep`` are not called. A request with ``idempotent=False`` is not sent again,
            regardless of the allowed methods. `None` means 4 retries of the default policy; 0 and `False` mean no
            retries.
        max_wait: Maximum wait before an attempt, in seconds. Defaults to 60. A response with a longer Retry-After is
            returned immediately.
        sleep: Function that waits for a number of seconds. `None` means `time.sleep`, looked up at each call.
        clock: Function that returns the wall-clock time in seconds since the epoch, for Retry-After. `None` means
            `time.time`, looked up at each call.

    Raises:
        UsageError: `retry` or `max_wait` is invalid.
    """

    @suggest_options(OTHER_TRANSPORT_OPTIONS)
    def __init__(
        self,
        inner: Transport,
        *,
        retry: int | urllib3.Retry | None = None,
        max_wait: float = MAX_WAIT,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._inner = check_transport("inner", inner)
        if sleep is not None:
            check_function("sleep", sleep, "a function that takes seconds, such as lambda seconds: None")
        if clock is not None:
            check_function("clock", clock, "a function that returns seconds since the epoch, such as time.time")
        self._policy = RetryPolicy(_check_retry(retry))
        self._tracker = _RetryAfterTracker(sleep, clock, check_seconds("max_wait", max_wait))

    def round_trip(self, request: Request, /) -> Response:
        """Send the request, and retry it as the policy allows.

        Raises:
            TransportTimeout: The deadline expires before the end of a wait.
            TransportError: The exception of the last attempt, unchanged.
        """
        budget = self._policy.new_budget()
        body_probe = None
        if request.info.idempotent is False and request.body is not None and request.body.length != 0:
            body_probe = _BodyProbe()
            request = request.replace(body=request.body.map(body_probe))
        backoff = _Backoff(self._tracker, request)
        if (blocked := backoff.remaining()) > 0:
            backoff.wait(blocked, "Retry-After")
        while True:
            try:
                response = with_request(self._inner.round_trip(request), request)
            except TransportError as error:
                kind = self._policy.classify(request, error)
                if kind is None or not budget.take(kind):
                    raise
                backoff.wait(max(budget.backoff_time(), backoff.remaining()), f"{type(error).__name__}: {error}")
                continue
            unsent = body_probe is not None and not body_probe.was_read
            delay = self._retry_delay(backoff, request, response, budget, unsent=unsent)
            if delay is None:
                return response
            response.drain()
            backoff.wait(delay, str(response.status))

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def _retry_delay(
        self, backoff: _Backoff, request: Request, response: Response, budget: Budget, *, unsent: bool
    ) -> float | None:
        """Return the seconds to wait before a retry; `None` if the response has to be returned."""
        if response.status < 400 and not self._policy.is_in_forcelist(response.status):
            return None
        blocked = backoff.remaining()
        now = self._tracker.now()
        retry_after = self._policy.retry_after(response, now)
        if retry_after and self._policy.has_retry_after(response):
            # After a redirect, the response comes from another host. Block that host and the host of the request.
            sender = Origin.of(response.request.url)  # type: ignore[union-attr]
            for origin in {backoff.origin, sender}:
                self._tracker.block_until(origin, now + retry_after)
        if retry_after is not None and retry_after > min(self._tracker.max_wait, self._policy.max_retry_after):
            return None
        if not self._policy.should_retry(request, response, unsent=unsent) or not budget.take("status"):
            return None
        return max(retry_after or budget.backoff_time(), blocked)


class _BodyProbe:
    """Records whether any byte of a body was read, because it may have been sent. Passed to `Body.map`."""

    def __init__(self) -> None:
        self.was_read = False

    def __call__(self, chunk: bytes) -> bytes:
        self.was_read = self.was_read or bool(chunk)
        return chunk


def _check_retry(retry: Any) -> urllib3.Retry | int:
    """Return the policy or the number of retries of the option ``retry``.

    Counts and durations are validated, because urllib3 does not validate them. With a total of NaN, for example,
    retries would never end.

    Raises:
        UsageError: The option has another type, or one of its numbers is invalid.
    """
    if retry is None:
        return MAX_RETRIES
    if type(retry) is int and 0 <= retry < 2**63:
        return retry or urllib3.Retry(total=False)
    if retry is False:
        return urllib3.Retry(total=False)
    if not isinstance(retry, urllib3.Retry):
        raise UsageError(
            f"invalid retry {safe_repr(retry)}: expected the number of retries, a urllib3.util.Retry, False for no"
            " retries, or None for the default policy"
        )
    for name in ("total", "connect", "read", "status", "other"):
        value = getattr(retry, name)
        if value is not None and not isinstance(value, int):
            raise UsageError(f"invalid {name} {safe_repr(value)} of retry: expected an integer, False or None")
    # `retry_after_max` is missing in older versions of urllib3.
    for name in ("backoff_factor", "backoff_max", "backoff_jitter", "retry_after_max"):
        if not is_number(getattr(retry, name, 0)):
            raise UsageError(f"invalid {name} {safe_repr(getattr(retry, name))} of retry: expected a number of seconds")
    return retry


class _RetryAfterTracker:
    """Times until which hosts are blocked by Retry-After. Shared by all threads.

    Attributes:
        max_wait: Maximum time in seconds for which a host is blocked.
        monotonic: Clock of the deadlines.
    """

    def __init__(
        self, sleep: Callable[[float], object] | None, clock: Callable[[], float] | None, max_wait: float
    ) -> None:
        self._sleep = sleep
        self._clock = clock
        self.max_wait = max_wait
        self.monotonic: Callable[[], float] = time.monotonic
        self._lock = threading.Lock()
        self._blocked_until: dict[Origin, float] = {}
        self._thread = threading.local()

    def now(self) -> float:
        """Return the wall-clock time in seconds since the epoch."""
        return time.time() if self._clock is None else self._clock()

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds, or until the call is cancelled."""
        if self._sleep is not None:
            self._sleep(seconds)
        else:
            cancellable_sleep(seconds, time.sleep)

    def blocked_until(self, origin: Origin) -> float:
        """Return the time until which a host is or was blocked; 0 if it never was."""
        return self._blocked_until.get(origin, 0.0)

    def block_until(self, origin: Origin, until: float) -> None:
        """Block a host for all threads, for at most `max_wait` seconds. An existing block is not shortened."""
        now = self.now()
        with self._lock:
            if origin not in self._blocked_until and len(self._blocked_until) >= _MAX_ORIGINS:
                self._blocked_until = {host: end for host, end in self._blocked_until.items() if end > now}
                while len(self._blocked_until) >= _MAX_BLOCKED:
                    del self._blocked_until[next(iter(self._blocked_until))]
            # `max`, because a later response with a shorter Retry-After must not shorten the block.
            self._blocked_until[origin] = max(min(until, now + self.max_wait), self.blocked_until(origin))

    def last_waited(self, origin: Origin) -> float:
        """Return the end time of the latest block of a host that this thread has waited for; 0 if there is none.

        The thread does not wait for the same block again, even if the wall clock is set back or does not advance.
        """
        until: float = getattr(self._thread, "waited", {}).get(origin, 0.0)
        return until

    def mark_waited(self, origin: Origin, until: float) -> None:
        """Record that this thread has waited for the block of a host that ends at `until`."""
        waited = getattr(self._thread, "waited", {})
        # Entries may be discarded: without its entry, the thread only waits for a block once more.
        self._thread.waited = {**(waited if len(waited) < _MAX_ORIGINS else {}), origin: until}


class _Backoff:
    """Waits before the attempts of one request.

    Attributes:
        origin: The origin that the request is sent to.
    """

    def __init__(self, tracker: _RetryAfterTracker, request: Request) -> None:
        self.origin = Origin.of(request.url)
        self._tracker = tracker
        self._request = request
        self._waited_until = 0.0  # end of the latest block that this request has waited for

    def remaining(self) -> float:
        """Return the seconds for which the host is still blocked; 0 if this request or thread has waited for it."""
        until = self._tracker.blocked_until(self.origin)
        if until <= self._waited_until or until <= self._tracker.last_waited(self.origin):
            return 0.0
        return min(max(0.0, until - self._tracker.now()), self._tracker.max_wait)

    def wait(self, delay: float, reason: str) -> None:
        """Wait for `delay` seconds, or longer if another thread blocks the host meanwhile, up to `max_wait` in total.

        Raises:
            TransportTimeout: The deadline of the request expires before the end of the wait.
        """
        tracker, request = self._tracker, self._request
        redactor = redactor_of(request)
        target = f"{request.method} {redactor.redact_text(redact_url(request.url))}"
        reason = redactor.redact_text(reason)
        allowance = tracker.max_wait
        delay = max(delay, self.remaining())  # another thread may have blocked the host in the meantime
        while True:
            self._waited_until = tracker.blocked_until(self.origin)
            delay = min(delay, allowance)
            # Raise before the wait instead of after it: the deadline would have expired by then.
            if request.info.deadline is not None and tracker.monotonic() + delay >= request.info.deadline:
                raise TransportTimeout(
                    f"cannot send {target} before the deadline: the wait is {delay:.1f} s ({reason})",
                    request=request,
                )
            _LOG.info("%s: %s; retrying in %.1f s", target, reason, delay)
            if delay > 0:
                tracker.sleep(delay)
            allowance -= delay
            delay = min(tracker.blocked_until(self.origin) - self._waited_until, allowance)
            if delay <= 0:
                tracker.mark_waited(self.origin, self._waited_until)
                return
