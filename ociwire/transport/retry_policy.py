"""When a request may be sent again: a `urllib3.util.Retry`, read as data. Decisions, and no waiting.

urllib3's own `increment` would raise `MaxRetryError` in the place of what went wrong, and its sleep cannot be replaced.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator
from typing import final

import urllib3

from .._http.headers import retry_after
from .._http.messages import Request, Response
from ..errors import (
    AuthError,
    BodyConsumedError,
    ConnectError,
    ProtocolError,
    ReadError,
    RedirectError,
    TransportError,
    TransportTimeout,
)

__all__ = ["Budget", "RetryPolicy", "is_connect_failure"]

# Statuses that say that the server has not acted. Some servers act first (a PATCH stored and answered 503), so that a
# request that is marked as not idempotent is repeated only if no byte of its body was sent.
_NOT_ACTED_UPON = frozenset({429, 503})
# 520 to 524 are Cloudflare's: its origin server failed, refused, was unreachable or timed out.
_STATUSES = (408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
_HOPELESS = ("CERTIFICATE", "UNKNOWN_CA", "WRONG_VERSION_NUMBER", "HTTP_REQUEST")
"""What OpenSSL says where another attempt would find the same."""
_AS_BEFORE = (AuthError, BodyConsumedError, RedirectError)  # what would only happen again


@final
class Budget:
    """How many retries are left for one request, by what they are for.

    Args:
        retry: Where the counts come from: a number, None for no bound, False for none.
    """

    def __init__(self, retry: urllib3.Retry) -> None:
        self._retry = retry
        self._left = {name: getattr(retry, name) for name in ("total", "connect", "read", "status", "other")}
        self.spent = 0

    def spend(self, kind: str) -> bool:
        """Take one retry, of the total and of a kind; False if there is none left."""
        bounded = [name for name in ("total", kind) if self._left[name] is not None]
        if any(self._left[name] <= 0 for name in bounded):
            return False
        for name in bounded:
            self._left[name] -= 1
        self.spent += 1
        return True

    def backoff(self) -> float:
        """Seconds to wait before the retry that was just taken, as urllib3 reckons them: none before the first."""
        if self.spent <= 1:
            return 0.0
        jitter = random.random() * self._retry.backoff_jitter if self._retry.backoff_jitter else 0.0  # noqa: S311
        seconds = float(self._retry.backoff_factor) * 2.0 ** min(self.spent - 1, 1000) + jitter
        return float(max(0.0, min(self._retry.backoff_max, seconds)))


@final
class RetryPolicy:
    """What may be retried.

    Args:
        retry: The policy, or None for ociwire's own: four retries of idempotent requests (by method, or as
            `RequestInfo.idempotent` says), and of other requests after 429 and 503, unless they are marked as not
            idempotent and part of their body was sent.
    """

    def __init__(self, retry: urllib3.Retry | None) -> None:
        self._by_idempotency = retry is None
        self._retry = retry or urllib3.Retry(
            4, backoff_factor=0.5, backoff_jitter=0.25, status_forcelist=_STATUSES, allowed_methods=None
        )
        # Older versions of urllib3 have no such bound.
        self.longest_wait = float(getattr(self._retry, "retry_after_max", float("inf")))

    def budget(self) -> Budget:
        """The retries for a new request."""
        return Budget(self._retry)

    def kind(self, request: Request, error: TransportError) -> str | None:
        """What a failure counts as: ``connect``, ``read`` or ``other``; None if the request is not to be sent again."""
        if isinstance(error, _AS_BEFORE) or _is_of_tls(error):
            return None
        if request.body is not None and (not request.body.resendable or request.body.raised(error)):
            return None
        connecting = is_connect_failure(error)
        # urllib3 asks for no method where there was no connection; by idempotency, a request is safe or it is not.
        if not (self._allows(request) or (connecting and not self._by_idempotency)):
            return None
        if connecting:
            return "connect"
        return "read" if isinstance(error, (ReadError, TransportTimeout, ProtocolError)) else "other"

    def wants_retry(self, request: Request, response: Response, *, unsent: bool) -> bool:
        """Return whether the request may be sent again after a response.

        Args:
            request: The request.
            response: Its response.
            unsent: The request has a body, and no byte of it was sent.
        """
        status = response.status
        # The client confirms such a HEAD by a GET at once: some registries answer 500 to every HEAD.
        if self._by_idempotency and request.method == "HEAD" and status == 500:
            return False
        listed = self.lists(status)
        by_header = (
            self._retry.total  # as urllib3 has it: without a total, only what is listed
            and self._retry.respect_retry_after_header
            and status in urllib3.Retry.RETRY_AFTER_STATUS_CODES
            and "retry-after" in response.headers
        )
        resendable = request.body is None or request.body.resendable
        not_acted_upon = status in _NOT_ACTED_UPON and (unsent or request.info.idempotent is None)
        allowed = self._allows(request) or (self._by_idempotency and not_acted_upon)
        return resendable and (listed or bool(by_header)) and allowed

    def lists(self, status: int) -> bool:
        """Whether a status is one that is retried for its own sake."""
        return status in (self._retry.status_forcelist or ())

    def retry_after(self, response: Response, now: float) -> float | None:
        """Seconds that a response asks to wait, if the policy heeds that; None where it says nothing readable."""
        return retry_after(response.headers, now) if self._retry.respect_retry_after_header else None

    def _allows(self, request: Request) -> bool:
        if not self._by_idempotency:
            methods = self._retry.allowed_methods  # None, or nothing at all, is every method, as urllib3 reads it
            return request.info.idempotent is not False and (not methods or request.method.upper() in methods)
        return request.idempotent


def _is_of_tls(error: BaseException) -> bool:
    """Whether a connection failed for a certificate, the server's or one's own, or for want of TLS at the other end."""
    return any(
        isinstance(one, (ssl.CertificateError, urllib3.util.ssl_match_hostname.CertificateError))
        or (isinstance(one, ssl.SSLError) and any(sign in str(one) for sign in _HOPELESS))
        for one in _causes(error)
    )


def is_connect_failure(error: BaseException) -> bool:
    """Return whether there was no connection, so that nothing was sent."""
    timeout = urllib3.exceptions.ConnectTimeoutError
    return isinstance(error, ConnectError) or any(isinstance(one, timeout) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and what it was raised from or wraps, as urllib3 wraps it."""
    seen = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        yield error
        seen.add(id(error))
        nested = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = error.__cause__ or nested or getattr(error, "reason", None)
