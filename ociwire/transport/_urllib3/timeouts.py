"""Timeouts and deadlines, which limit the duration of each wait on a socket."""

from __future__ import annotations

import time

import urllib3

from ..._argument_checks import MAX_WAIT, resolve_timeout

__all__ = ["TimeLimit", "Timeouts"]


class Timeouts:
    """Connect timeout and read timeout in seconds, resolved from the argument `timeout`.

    Args:
        timeout: Seconds for connecting and for each wait on the socket, or a `urllib3.Timeout`, whose ``total`` bounds
            both.

    Raises:
        UsageError: The timeout is invalid; see `resolve_timeout`.
    """

    __slots__ = ("connect", "read", "urllib3_timeout")

    def __init__(self, timeout: float | urllib3.Timeout) -> None:
        self.connect, self.read = resolve_timeout(timeout)
        self.urllib3_timeout = urllib3.Timeout(connect=self.connect, read=self.read)


class TimeLimit:
    """Limit for each wait on the socket in an exchange, computed from its timeouts and its deadline.

    Args:
        timeouts: Timeout for connecting, and for each other wait.
        deadline: A `time.monotonic` value in seconds; `None` for no deadline.
    """

    __slots__ = ("_timeouts", "deadline")

    def __init__(self, timeouts: Timeouts, deadline: float | None) -> None:
        self._timeouts = timeouts
        self.deadline = deadline

    def remaining(self) -> float | None:
        """Return the maximum duration of the next wait on the socket in seconds; `None` means no limit.

        Raises:
            TimeoutError: The deadline has passed.
        """
        return self.clamp(self._timeouts.read)

    def clamp(self, seconds: float | None) -> float | None:
        """Return `seconds`, or the seconds until the deadline if that is less; `None` means no limit.

        Raises:
            TimeoutError: The deadline has passed.
        """
        if self.deadline is None:
            return seconds
        remaining = min(self.deadline - time.monotonic(), MAX_WAIT)  # `settimeout` refuses very long timeouts
        if remaining <= 0:
            raise TimeoutError("the deadline has passed")
        return remaining if seconds is None else min(remaining, seconds)

    def check_progress(self, since: float) -> None:
        """Raise `TimeoutError` if a wait that began at `since` (a `time.monotonic` value) exceeds a limit."""
        self.remaining()
        if self._timeouts.read is not None and time.monotonic() - since >= self._timeouts.read:
            raise TimeoutError("timed out")

    def shorten(self, seconds: float) -> None:
        """Move the deadline to `seconds` from now, unless it is already earlier."""
        deadline = time.monotonic() + seconds
        self.deadline = deadline if self.deadline is None else min(deadline, self.deadline)

    def for_urllib3(self) -> urllib3.Timeout:
        """Return the timeouts that urllib3 uses to connect.

        Raises:
            TimeoutError: The deadline has passed.
        """
        if self.deadline is None:
            return self._timeouts.urllib3_timeout
        return urllib3.Timeout(connect=self.clamp(self._timeouts.connect), read=self.remaining())
