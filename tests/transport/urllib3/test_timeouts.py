"""How long a wait may last: by its timeout, by the deadline, and by what a socket takes."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import urllib3

from ociwire._arguments import LONGEST, check_seconds
from ociwire.errors import UsageError
from ociwire.transport._urllib3.timeouts import TimeLimit, Timeouts

NOW = 1000.0


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: NOW)


@pytest.mark.parametrize(
    ("timeout", "connect", "read"),
    [
        (3, 3, 3),
        (urllib3.Timeout(connect=1, read=2), 1, 2),
        (urllib3.Timeout(total=1.5, connect=1, read=2), 1, 1.5),
        (urllib3.Timeout(connect=None, read=None), None, None),
        (math.inf, LONGEST, LONGEST),
        (1e12, LONGEST, LONGEST),
    ],
)
def test_timeouts(timeout: Any, connect: float | None, read: float | None) -> None:
    made = Timeouts(timeout)
    assert (made.connect, made.read) == (connect, read)


@pytest.mark.parametrize("timeout", ["1", 0, -1, True, math.nan, object()])
def test_what_is_no_timeout(timeout: Any) -> None:
    with pytest.raises(UsageError):
        Timeouts(timeout)


@pytest.mark.parametrize("seconds", ["1", -1, True, math.nan, None])
def test_what_is_no_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid expect_timeout .*: expected a number of seconds, 0 or more$"):
        check_seconds("expect_timeout", seconds)


@pytest.mark.parametrize(
    ("deadline", "left"), [(None, 5), (NOW + 2, 2), (NOW + 9, 5), (math.inf, 5), (NOW, None), (NOW - 1, None)]
)
def test_a_wait_ends_with_the_timeout_or_the_deadline(deadline: float | None, left: float | None) -> None:
    time_limit = TimeLimit(Timeouts(5), deadline)
    if left is None:
        with pytest.raises(TimeoutError, match="deadline"):
            time_limit.remaining()
    else:
        assert time_limit.remaining() == left


def test_a_deadline_that_is_near_does_not_shorten_a_wait_that_has_lasted() -> None:
    TimeLimit(Timeouts(5), NOW + 0.1).check_progress(NOW - 4)


@pytest.mark.parametrize(("deadline", "since"), [(None, NOW - 5), (NOW + 9, NOW - 6), (NOW - 1, NOW)])
def test_a_wait_that_has_lasted_too_long(deadline: float | None, since: float) -> None:
    with pytest.raises(TimeoutError):
        TimeLimit(Timeouts(5), deadline).check_progress(since)


@pytest.mark.parametrize(("deadline", "becomes"), [(None, NOW + 1), (NOW + 9, NOW + 1), (NOW + 0.5, NOW + 0.5)])
def test_hurry(deadline: float | None, becomes: float) -> None:
    time_limit = TimeLimit(Timeouts(5), deadline)
    time_limit.shorten(1)
    assert time_limit.deadline == becomes
