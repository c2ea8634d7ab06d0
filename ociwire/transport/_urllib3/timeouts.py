"""How long each wait of an exchange may last: its timeout, and never beyond the deadline."""

from __future__ import annotations

import time

import urllib3

from ..._arguments import LONGEST, resolve_timeout

__all__ = ["TimeLimit", "Timeouts"]


class Timeouts:
    """A timeout as users give it, made into two numbers once.

    Args:
        timeout: Seconds for connecting and for each wait on the socket, or a `urllib3.Timeout`, whose ``total`` bounds
            both.

    Raises:
        UsageError: It is neither.
    """

    __slots__ = ("connect", "read", "urllib3_timeout")

    def __init__(self, timeout: float | urllib3.Timeout) -> None:
        self.connect, self.read = resolve_timeout(timeout)
        self.urllib3_timeout = urllib3.Timeout(connect=self.connect, read=self.read)


class TimeLimit:
    """Bounds the waits of one exchange.

    Args:
        timeouts: For connecting, and for each other wait.
        deadline: A moment of `time.monotonic` in seconds, or None.
    """

    __slots__ = ("_timeouts", "deadline")

    def __init__(self, timeouts: Timeouts, deadline: float | None) -> None:
        self._timeouts = timeouts
        self.deadline = deadline

    def remaining(self) -> float | None:
        """Seconds that a wait on the socket may last; None is for ever.

        Raises:
            TimeoutError: The deadline has passed.
        """
        return self.clamp(self._timeouts.read)

    def clamp(self, seconds: float | None) -> float | None:
        """`seconds`, or as many as are left before the deadline.

        Raises:
            TimeoutError: The deadline has passed.
        """
        if self.deadline is None:
            return seconds
        left = min(self.deadline - time.monotonic(), LONGEST)
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left if seconds is None else min(left, seconds)

    def check_progress(self, since: float) -> None:
        """Raise `TimeoutError` if a wait that began at a moment of `time.monotonic` has lasted too long."""
        self.remaining()
        if self._timeouts.read is not None and time.monotonic() - since >= self._timeouts.read:
            raise TimeoutError("timed out")

    def shorten(self, seconds: float) -> None:
        """Have the deadline come in so many seconds, if it does not come before."""
        soon = time.monotonic() + seconds
        self.deadline = soon if self.deadline is None else min(soon, self.deadline)

    def for_urllib3(self) -> urllib3.Timeout:
        """What urllib3 is to connect under.

        Raises:
            TimeoutError: The deadline has passed.
        """
        if self.deadline is None:
            return self._timeouts.urllib3_timeout
        return urllib3.Timeout(connect=self.clamp(self._timeouts.connect), read=self.remaining())
