"""Decides which requests may be retried, by a `urllib3.util.Retry` that is read as data. Waits for nothing.

``Retry.increment`` is not used: it raises `MaxRetryError` in the place of the original exception, and its sleep cannot
be replaced.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator
from typing import Any, final

import urllib3

from .._http.body import has_raised
from .._http.headers import retry_after
from .._http.messages import Request, Response
from .._http.status import RETRY_STATUSES
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

__all__ = ["MAX_RETRIES", "MAX_WAIT", "PERMANENT_ERRORS", "Budget", "RetryPolicy"]

MAX_RETRIES = 4
"""Number of retries of the default policy."""
MAX_WAIT = 60.0
"""Default maximum wait before an attempt, in seconds, by Retry-After too."""

# Statuses that say that the server has not acted. Some servers act first (a PATCH stored and answered 503), so that a
# request that is marked as not idempotent is repeated only if no byte of its body was sent.
_UNPROCESSED_STATUSES = frozenset({429, 503})
_PERMANENT_TLS_ERRORS = ("CERTIFICATE", "UNKNOWN_CA", "WRONG_VERSION_NUMBER", "HTTP_REQUEST")
"""Parts of OpenSSL's error texts after which another attempt would fail in the same way."""
PERMANENT_ERRORS = (AuthError, BodyConsumedError, RedirectError)
"""Errors that another attempt would end in, too."""


@final
class Budget:
    """The retries that remain for one request, by kind (``connect``, ``read``, ``status``, ``other``) and in total.

    Args:
        retry: The initial counts: a number, None for no limit, False for none.
    """

    def __init__(self, retry: urllib3.Retry) -> None:
        self._retry = retry
        self._remaining: dict[str, Any] = {}  # read from `retry` when first needed: most requests need no retry
        self.taken = 0

    def take(self, kind: str) -> bool:
        """Take one retry of a kind. Return false if none remains of it, or in total."""
        if not self._remaining:
            names = ("total", "connect", "read", "status", "other")
            self._remaining = {name: getattr(self._retry, name) for name in names}
        limited = [name for name in ("total", kind) if self._remaining[name] is not None]
        if any(self._remaining[name] <= 0 for name in limited):
            return False
        for name in limited:
            self._remaining[name] -= 1
        self.taken += 1
        return True

    def backoff_time(self) -> float:
        """Seconds to wait before the retry that was taken last, by urllib3's formula: none before the first."""
        if self.taken <= 1:
            return 0.0
        jitter = random.random() * self._retry.backoff_jitter if self._retry.backoff_jitter else 0.0  # noqa: S311
        # The exponent is bounded because 2.0**1024 overflows.
        seconds = float(self._retry.backoff_factor) * 2.0 ** min(self.taken - 1, 1000) + jitter
        return float(max(0.0, min(self._retry.backoff_max, seconds)))


@final
class RetryPolicy:
    """Which failures and responses may be retried.

    Args:
        retry: The policy. None means the default: four retries of idempotent requests (by method, or as
            `RequestInfo.idempotent` says), and of other requests after 429 and 503, unless they are marked as not
            idempotent and part of their body was sent.

    Attributes:
        max_retry_after: Maximum Retry-After in seconds that is obeyed.
    """

    def __init__(self, retry: urllib3.Retry | None) -> None:
        self._is_default = retry is None
        self._retry = retry or urllib3.Retry(
            MAX_RETRIES, backoff_factor=0.5, backoff_jitter=0.25, status_forcelist=RETRY_STATUSES, allowed_methods=None
        )
        # Older versions of urllib3 do not have it.
        self.max_retry_after = float(getattr(self._retry, "retry_after_max", float("inf")))

    def new_budget(self) -> Budget:
        """The retries for a new request."""
        return Budget(self._retry)

    def classify(self, request: Request, error: TransportError) -> str | None:
        """The kind of retry for a failure: ``connect``, ``read`` or ``other``; None if it must not be retried."""
        if isinstance(error, PERMANENT_ERRORS) or _is_permanent_tls_failure(error):
            return None
        if request.body is not None and (not request.body.resendable or has_raised(request.body, error)):
            return None
        is_connect = isinstance(error, ConnectError)
        # Without a connection nothing was sent: urllib3 retries any method then. The default policy does not.
        if not (self._allows(request) or (is_connect and not self._is_default)):
            return None
        if is_connect:
            return "connect"
        return "read" if isinstance(error, (ReadError, TransportTimeout, ProtocolError)) else "other"

    def should_retry(self, request: Request, response: Response, *, unsent: bool) -> bool:
        """Whether the request may be sent again after a response.

        Args:
            request: The request.
            response: Its response.
            unsent: The request has a body, and no byte of it was sent.
        """
        status = response.status
        # The client confirms such a HEAD by a GET at once: some registries answer 500 to every HEAD.
        if self._is_default and request.method == "HEAD" and status == 500:
            return False
        by_header = (
            self._retry.total  # without a total, urllib3 retries only listed statuses
            and self._retry.respect_retry_after_header
            and self.has_retry_after(response)
        )
        resendable = request.body is None or request.body.resendable
        unprocessed = status in _UNPROCESSED_STATUSES and (unsent or request.info.idempotent is None)
        allowed = self._allows(request) or (self._is_default and unprocessed)
        return resendable and (self.is_in_forcelist(status) or bool(by_header)) and allowed

    def is_in_forcelist(self, status: int) -> bool:
        """Whether the policy lists a status as one to retry."""
        return status in (self._retry.status_forcelist or ())

    def has_retry_after(self, response: Response) -> bool:
        """Whether a response has a Retry-After header, and one of the statuses with which urllib3 obeys it."""
        return response.status in urllib3.Retry.RETRY_AFTER_STATUS_CODES and "retry-after" in response.headers

    def retry_after(self, response: Response, now: float) -> float | None:
        """Seconds of a valid Retry-After header; None if there is none, or if the policy ignores it."""
        return retry_after(response.headers, now) if self._retry.respect_retry_after_header else None

    def _allows(self, request: Request) -> bool:
        if self._is_default:
            return request.idempotent
        methods = self._retry.allowed_methods  # urllib3 reads None and an empty collection as every method
        return request.info.idempotent is not False and (not methods or request.method.upper() in methods)


def _is_permanent_tls_failure(error: BaseException) -> bool:
    """Whether TLS failed because of a certificate (the server's or the client's), or because the server has no TLS."""
    return any(
        isinstance(cause, (ssl.CertificateError, urllib3.util.ssl_match_hostname.CertificateError))
        or (isinstance(cause, ssl.SSLError) and any(text in str(cause) for text in _PERMANENT_TLS_ERRORS))
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from, or that urllib3 has wrapped in it."""
    seen = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        yield error
        seen.add(id(error))
        nested = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = error.__cause__ or nested or getattr(error, "reason", None)
