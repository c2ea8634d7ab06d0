"""Validation of numeric arguments, shared by the whole public API, and formatting of values in error messages.

A number is validated once, where the caller passes it. NaN, numbers too large for a float and integers of more than 64
bits are refused, so that adding, comparing, converting and formatting a valid number does not raise an exception.
"""

from __future__ import annotations

import inspect
import operator
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from ._text import truncate
from .errors import DeadlinePassed, UsageError

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

__all__ = [
    "MAX_WAIT",
    "OTHER_TRANSPORT_OPTIONS",
    "check_boolean",
    "check_deadline",
    "check_function",
    "check_future_deadline",
    "check_integer",
    "check_read_size",
    "check_seconds",
    "is_number",
    "resolve_timeout",
    "safe_repr",
    "suggest_options",
]

R = TypeVar("R")

MAX_WAIT = 1e8
"""Maximum wait in seconds (three years). Longer waits are reduced to it, because `socket.settimeout` and `time.sleep`
raise `OverflowError` for values beyond a platform-dependent limit."""
OTHER_TRANSPORT_OPTIONS = {
    "verify": "tls='ca.pem' for a CA bundle, or tls=context with an ssl.SSLContext; insecure=True means plain http",
    "tls_verify": "tls='ca.pem' for a CA bundle, or tls=context with an ssl.SSLContext; insecure=True means plain http",
    "cert": "tls=TLSConfig(cert='client.pem', key='client.key')",
    "ca": "tls='ca.pem' or tls=TLSConfig(ca='ca.pem')",
    "ssl_context": "tls=context",
    "proxies": "proxy='http://proxy.example:3128'",
    "retries": "retry=3",
    "max_retries": "retry=3",
}
"""Options of transports in other libraries, and what to use instead."""
_LARGEST = 2**63 - 1
"""Maximum size, offset or count: OCI sizes and file offsets are signed 64-bit integers."""


def safe_repr(value: object, limit: int = 100) -> str:
    """Return the repr of an argument for an error message, truncated to `limit` characters. Never raises."""
    try:
        return truncate(repr(value), limit)
    except Exception:  # noqa: BLE001 - a repr may raise any exception; for an int of over 4300 digits, ValueError
        size = f" of {value.bit_length()} bits" if isinstance(value, int) else ""
        return f"<{type(value).__name__}{size}>"


def check_boolean(name: str, value: Any) -> bool:
    """Return a boolean argument unchanged after validating it. Strings are refused: "false" would count as true.

    Raises:
        UsageError: The value is not a `bool`.
    """
    if type(value) is not bool:
        raise UsageError(f"invalid {name} {safe_repr(value)}: expected True or False")
    return value


def check_function(name: str, value: Any, usage: str) -> Any:
    """Return a function argument unchanged after validating it.

    Args:
        name: Name of the argument.
        value: The argument.
        usage: Description of the expected function, for the error message.

    Raises:
        UsageError: The value is not callable, or is a coroutine function, which would never be awaited.
    """
    if not callable(value) or inspect.iscoroutinefunction(value):
        got = "a coroutine function" if callable(value) else type(value).__name__
        raise UsageError(f"invalid {name} {safe_repr(value)}: expected {usage}, got {got}")
    return value


def check_integer(name: str, value: Any, *, minimum: int = 0) -> int:
    """Return an integer argument unchanged after validating it.

    Raises:
        UsageError: The value is not an `int` (a `bool` is refused, too), is below the minimum, or does not fit into a
            signed 64-bit integer.
    """
    if type(value) is not int or not minimum <= value <= _LARGEST:
        raise UsageError(f"invalid {name} {safe_repr(value)}: expected an integer from {minimum} to 2**63 - 1")
    return value


def check_read_size(size: Any) -> int:
    """Return the size argument of a ``read`` method as an integer. `None` becomes -1, which means to read the rest.

    As in `io`, any object with ``__index__`` counts as an integer.

    Raises:
        UsageError: The size is neither an integer nor `None`.
    """
    try:
        return -1 if size is None else operator.index(size)
    except TypeError:
        raise UsageError(f"invalid size {safe_repr(size)}: expected an integer, or None to read the rest") from None


def is_number(value: object) -> bool:
    """Return whether a value is an `int` or a `float`, except for `bool`, NaN and integers too large for a float.

    Infinity counts as a number.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False
    return number == number  # false for NaN only


def check_seconds(name: str, seconds: Any) -> float:
    """Return a duration in seconds, reduced to `MAX_WAIT` if it is longer or infinite.

    Raises:
        UsageError: The duration is not a number, or is negative.
    """
    if not is_number(seconds) or seconds < 0:
        raise UsageError(f"invalid {name} {safe_repr(seconds)}: expected a number of seconds, 0 or more")
    return min(float(seconds), MAX_WAIT)


def check_deadline(deadline: Any) -> float | None:
    """Return a deadline (a `time.monotonic` value in seconds, or `None`) unchanged after validating it.

    A negative deadline is valid, because the reference point of the clock is undefined. Infinity means no deadline.

    Raises:
        UsageError: The deadline is not a number.
    """
    if deadline is not None and not is_number(deadline):
        raise UsageError(
            f"invalid deadline {safe_repr(deadline)}: expected a time.monotonic() value in seconds, such as"
            " time.monotonic() + 60"
        )
    return deadline  # type: ignore[no-any-return]


def check_future_deadline(deadline: Any) -> float | None:
    """Return a deadline that a caller has just set; see `check_deadline`.

    Raises:
        DeadlinePassed: The deadline has passed.
        UsageError: The deadline is not a number, or is a value of `time.time`.
    """
    now = time.monotonic()
    example = "such as time.monotonic() + 60, or within=60 for 60 seconds from now"
    if check_deadline(deadline) is not None and deadline < now:
        raise DeadlinePassed(
            f"the deadline {safe_repr(deadline)} passed {now - deadline:.3g} s ago: expected a time.monotonic() value,"
            f" {example}"
        )
    # Both clocks count seconds, but `time.monotonic` starts near 0: a value of `time.time` would never be reached.
    if deadline is not None and abs(deadline - time.time()) < MAX_WAIT and deadline - now > MAX_WAIT:
        raise UsageError(
            f"invalid deadline {safe_repr(deadline)}, a time.time() value: expected a time.monotonic() value, {example}"
        )
    return deadline  # type: ignore[no-any-return]


def resolve_timeout(timeout: Any) -> tuple[float | None, float | None]:
    """Return the connect timeout and the read timeout in seconds; `None` means no timeout.

    Args:
        timeout: A number of seconds for both timeouts, or a `urllib3.Timeout`, whose ``total`` limits both.

    Raises:
        UsageError: The timeout has another type, or one of its values is not a number greater than 0.
    """
    if is_number(timeout) and timeout > 0:
        seconds = min(float(timeout), MAX_WAIT)
        return seconds, seconds
    import urllib3  # deferred; already imported if the caller has created a urllib3.Timeout

    if isinstance(timeout, urllib3.Timeout):
        try:
            running = timeout.clone()
            running.start_connect()  # if `total` is set, urllib3 computes the read timeout only after this call
            values: tuple[Any, ...] = (running.total, running.connect_timeout, running.read_timeout)
        except (TypeError, ValueError, ArithmeticError):
            values = (False,)  # invalid: a value, such as a Decimal, cannot be added to a float
        resolved = [urllib3.Timeout.resolve_default_timeout(value) for value in values]
        if all(value is None or is_number(value) for value in resolved):
            _, connect, read = (None if value is None else min(float(value), MAX_WAIT) for value in resolved)
            return connect, read
    raise UsageError(
        f"invalid timeout {safe_repr(timeout)}: expected a number of seconds greater than 0, or a urllib3.Timeout of"
        " such numbers, such as urllib3.Timeout(connect=5, read=60)"
    )


def suggest_options(names: Mapping[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that suggests the right option if a function is called with an option of another library.

    Args:
        names: Maps each option of another library to the text that says what to use instead.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs.keys() & names.keys():
                raise UsageError(f"unknown option {name}: use {names[name]}")
            return function(*args, **kwargs)

        return call

    return decorate
