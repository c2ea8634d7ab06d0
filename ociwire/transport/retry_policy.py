"""Rules that determine which requests may be retried, from the attributes of a `urllib3.util.Retry`.

``Retry.increment`` and ``Retry.sleep`` are not used: `MaxRetryError` would replace the original exception, and tests
could not replace the sleep.
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
    DeadlinePassed,
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
"""Default maximum wait before an attempt in seconds, including Retry-After."""

# With these statuses, the server has not processed the request (RFC 6585, section 4; RFC 9110, section 15.6.4). Some
# servers nevertheless process it: for example, they store a PATCH before they respond with 503. A request that is
# marked as not idempotent is therefore retried only if no byte of its body was sent.
_UNPROCESSED_STATUSES = frozenset({429, 503})
_PERMANENT_TLS_ERRORS = ("CERTIFICATE", "UNKNOWN_CA", "WRONG_VERSION_NUMBER", "HTTP_REQUEST")
"""Parts of OpenSSL's error texts for permanent failures: another attempt would fail in the same way."""
PERMANENT_ERRORS = (AuthError, BodyConsumedError, DeadlinePassed, RedirectError)
"""Permanent errors, which are not retried: another attempt would fail in the same way."""


@final
class Budget:
    """Remaining retries of one request, by kind (``connect``, ``read``, ``status``, ``other``) and in total.

    Args:
        retry: The initial counts. A count of `None` means no limit, `False` no retries.

    Attributes:
        taken: Number of retries that were taken.
    """

    taken: int

    def __init__(self, retry: urllib3.Retry) -> None:
        self._retry = retry
        self._remaining: dict[str, Any] = {}  # computed on first use, because most requests need no retry
        self.taken = 0

    def take(self, kind: str) -> bool:
        """Take one retry of a kind. Return false if no retries remain, either of this kind or in total."""
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
        """Return the seconds to wait before the retry that was taken last; 0 before the first one, as in urllib3."""
        if self.taken <= 1:
            return 0.0
        jitter = random.random() * self._retry.backoff_jitter if self._retry.backoff_jitter else 0.0  # noqa: S311
        # The exponent is limited, because 2.0**1024 raises OverflowError.
        seconds = float(self._retry.backoff_factor) * 2.0 ** min(self.taken - 1, 1000) + jitter
        return float(max(0.0, min(self._retry.backoff_max, seconds)))


@final
class RetryPolicy:
    """Policy that decides which exceptions and responses are retried.

    Args:
        retry: The policy of the user, or the number of retries of the default policy; see `RetryTransport`.

    Attributes:
        max_retry_after: Maximum Retry-After in seconds. A response with a larger value is not retried.
    """

    max_retry_after: float

    def __init__(self, retry: urllib3.Retry | int) -> None:
        self._is_default = not isinstance(retry, urllib3.Retry)
        self._retry = (
            retry
            if isinstance(retry, urllib3.Retry)
            else urllib3.Retry(
                retry, backoff_factor=0.5, backoff_jitter=0.25, status_forcelist=RETRY_STATUSES, allowed_methods=None
            )
        )
        # `retry_after_max` is missing in older versions of urllib3.
        self.max_retry_after = float(getattr(self._retry, "retry_after_max", float("inf")))

    def new_budget(self) -> Budget:
        """Return the retries of a new request."""
        return Budget(self._retry)

    def classify(self, request: Request, error: TransportError) -> str | None:
        """Return the kind of retry for an exception: ``connect``, ``read`` or ``other``; `None` for no retry."""
        if isinstance(error, PERMANENT_ERRORS) or _is_permanent_tls_failure(error):
            return None
        if request.body is not None and (not request.body.resendable or has_raised(request.body, error)):
            return None
        is_connect = isinstance(error, ConnectError)
        # If connecting failed, nothing was sent, and urllib3 therefore retries any method. The default policy retries
        # only idempotent requests.
        if not (self._allows(request) or (is_connect and not self._is_default)):
            return None
        if is_connect:
            return "connect"
        return "read" if isinstance(error, (ReadError, TransportTimeout, ProtocolError)) else "other"

    def should_retry(self, request: Request, response: Response, *, unsent: bool) -> bool:
        """Return whether the request may be retried after a response.

        Args:
            request: The request.
            response: Its response.
            unsent: Whether the request has a body of which no byte was sent.
        """
        status = response.status
        # Some registries respond to every HEAD with 500. The client sends a GET immediately to confirm the error.
        if self._is_default and request.method == "HEAD" and status == 500:
            return False
        by_header = (
            self._retry.total  # if `total` is not set, urllib3's `Retry.is_retry` requires a listed status
            and self._retry.respect_retry_after_header
            and self.has_retry_after(response)
        )
        resendable = request.body is None or request.body.resendable
        unprocessed = status in _UNPROCESSED_STATUSES and (unsent or request.info.idempotent is None)
        allowed = self._allows(request) or (self._is_default and unprocessed)
        return resendable and (self.is_in_forcelist(status) or bool(by_header)) and allowed

    def is_in_forcelist(self, status: int) -> bool:
        """Return whether the policy lists a status in ``status_forcelist``."""
        return status in (self._retry.status_forcelist or ())

    def has_retry_after(self, response: Response) -> bool:
        """Return whether a response has a Retry-After header and a status for which urllib3 respects the header."""
        return response.status in urllib3.Retry.RETRY_AFTER_STATUS_CODES and "retry-after" in response.headers

    def retry_after(self, response: Response, now: float) -> float | None:
        """Return the wait in seconds from Retry-After; `None` if the header is absent or the policy ignores it."""
        return retry_after(response.headers, now) if self._retry.respect_retry_after_header else None

    def _allows(self, request: Request) -> bool:
        if self._is_default:
            return request.idempotent
        methods = self._retry.allowed_methods  # in urllib3, None and an empty collection mean any method
        return request.info.idempotent is not False and (not methods or request.method.upper() in methods)


def _is_permanent_tls_failure(error: BaseException) -> bool:
    """Return whether TLS failed because of a certificate of the server or client, or because the server has no TLS."""
    return any(
        isinstance(cause, (ssl.CertificateError, urllib3.util.ssl_match_hostname.CertificateError))
        or (isinstance(cause, ssl.SSLError) and any(text in str(cause) for text in _PERMANENT_TLS_ERRORS))
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, its causes, and the exceptions that urllib3 has wrapped in it."""
    seen = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        yield error
        seen.add(id(error))
        nested = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = error.__cause__ or nested or getattr(error, "reason", None)
