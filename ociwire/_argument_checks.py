"""Checks of numeric arguments, shared by the whole public API, and the text of argument values in error messages.

A number is checked once, where the caller passes it. A number that passes can be added, compared, converted and
formatted without an exception: NaN, numbers beyond a float and integers beyond 64 bits are refused.
"""

from __future__ import annotations

import operator
from typing import Any

from ._text import truncate
from .errors import UsageError

__all__ = [
    "MAX_WAIT",
    "check_deadline",
    "check_integer",
    "check_read_size",
    "check_seconds",
    "is_number",
    "resolve_timeout",
    "safe_repr",
]

MAX_WAIT = 1e8
"""Maximum wait in seconds (three years). Longer waits are reduced to it, as sockets and `time.sleep` have a limit."""
_LARGEST = 2**63 - 1
"""Maximum size, offset or count: OCI sizes and file offsets are signed 64-bit integers."""


def safe_repr(value: object, limit: int = 100) -> str:
    """Return the repr of an argument for an error message, cut to `limit` characters. Never raises."""
    try:
        return truncate(repr(value), limit)
    except Exception:  # noqa: BLE001 - a repr may raise anything; that of an int beyond 4300 digits raises ValueError
        size = f" of {value.bit_length()} bits" if isinstance(value, int) else ""
        return f"<{type(value).__name__}{size}>"


def check_integer(name: str, value: Any, *, minimum: int = 0) -> int:
    """Return an integer argument unchanged.

    Raises:
        UsageError: It is not an `int` (`bool` is refused, too), is below the minimum, or needs more than 64 bits.
    """
    if type(value) is not int or not minimum <= value <= _LARGEST:
        raise UsageError(f"invalid {name} {safe_repr(value)}: expected an integer from {minimum} to 2**63 - 1")
    return value


def check_read_size(size: Any) -> int:
    """Return the size that a ``read`` method was asked for; -1, for the rest, if it is `None`.

    As in `io`, what has ``__index__`` is an integer.

    Raises:
        UsageError: It is neither.
    """
    try:
        return -1 if size is None else operator.index(size)
    except TypeError:
        raise UsageError(f"invalid size {safe_repr(size)}: expected an integer, or None to read the rest") from None


def is_number(value: object) -> bool:
    """Whether a value is an `int` or a `float` that a float can hold: not a `bool`, not NaN. Infinity is a number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False
    return number == number  # false for NaN only


def check_seconds(name: str, seconds: Any) -> float:
    """Return a duration in seconds, cut to `MAX_WAIT`; infinity thus means the longest wait.

    Raises:
        UsageError: It is not a number, or is negative.
    """
    if not is_number(seconds) or seconds < 0:
        raise UsageError(f"invalid {name} {safe_repr(seconds)}: expected a number of seconds, 0 or more")
    return min(float(seconds), MAX_WAIT)


def check_deadline(deadline: Any) -> float | None:
    """Return a deadline unchanged: a moment of `time.monotonic`, or `None`.

    A negative deadline may be valid, because the clock may start anywhere. Infinity means no deadline.

    Raises:
        UsageError: It is not a number.
    """
    if deadline is not None and not is_number(deadline):
        raise UsageError(
            f"invalid deadline {safe_repr(deadline)}: expected a moment of time.monotonic() in seconds, such as"
            " time.monotonic() + 60"
        )
    return deadline  # type: ignore[no-any-return]


def resolve_timeout(timeout: Any) -> tuple[float | None, float | None]:
    """Return the connect and the read timeout in seconds; `None` is no timeout.

    Args:
        timeout: A number for both, or a `urllib3.Timeout`, whose ``total`` bounds both.

    Raises:
        UsageError: It is neither, or one of its values is not a number greater than 0.
    """
    if is_number(timeout) and timeout > 0:
        seconds = min(float(timeout), MAX_WAIT)
        return seconds, seconds
    import urllib3  # already imported if the timeout is a urllib3.Timeout

    if isinstance(timeout, urllib3.Timeout):
        try:
            running = timeout.clone()
            running.start_connect()  # with a total, urllib3 computes the read timeout only while its clock runs
            values: tuple[Any, ...] = (running.total, running.connect_timeout, running.read_timeout)
        except (TypeError, ValueError, ArithmeticError):
            values = (False,)  # a value cannot be added to a float, such as a Decimal
        resolved = [urllib3.Timeout.resolve_default_timeout(value) for value in values]
        if all(value is None or is_number(value) for value in resolved):
            _, connect, read = (None if value is None else min(float(value), MAX_WAIT) for value in resolved)
            return connect, read
    raise UsageError(
        f"invalid timeout {safe_repr(timeout)}: expected a number of seconds greater than 0, or a urllib3.Timeout of"
        " such numbers"
    )
