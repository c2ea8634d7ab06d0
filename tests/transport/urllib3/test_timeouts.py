"""Tests of `Timeouts` and `TimeLimit`."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import urllib3

from ociwire._argument_checks import MAX_WAIT, check_seconds
from ociwire.errors import UsageError
from ociwire.transport._urllib3.timeouts import TimeLimit, Timeouts

NOW = 1000.0


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: NOW)


@pytest.mark.parametrize(
    ("timeout", "connect", "read"),
    [
        (3, 3, 3),
        (urllib3.Timeout(connect=1, read=2), 1, 2),
        (urllib3.Timeout(total=1.5, connect=1, read=2), 1, 1.5),
        (urllib3.Timeout(connect=None, read=None), None, None),
        (math.inf, MAX_WAIT, MAX_WAIT),
        (1e12, MAX_WAIT, MAX_WAIT),
    ],
)
def test_timeouts_valid_value_is_resolved(timeout: Any, connect: float | None, read: float | None) -> None:
    made = Timeouts(timeout)
    assert (made.connect, made.read) == (connect, read)


@pytest.mark.parametrize("timeout", ["1", 0, -1, True, math.nan, object()])
def test_timeouts_invalid_value_raises_usage_error(timeout: Any) -> None:
    with pytest.raises(UsageError):
        Timeouts(timeout)


@pytest.mark.parametrize("seconds", ["1", -1, True, math.nan, None])
def test_check_seconds_invalid_value_raises_usage_error(seconds: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid expect_timeout .*: expected a number of seconds, 0 or more$"):
        check_seconds("expect_timeout", seconds)


@pytest.mark.parametrize(
    ("deadline", "remaining"), [(None, 5), (NOW + 2, 2), (NOW + 9, 5), (math.inf, 5), (NOW, None), (NOW - 1, None)]
)
def test_time_limit_remaining_is_timeout_or_deadline(deadline: float | None, remaining: float | None) -> None:
    time_limit = TimeLimit(Timeouts(5), deadline)
    if remaining is None:
        with pytest.raises(TimeoutError, match="deadline"):
            time_limit.remaining()
    else:
        assert time_limit.remaining() == remaining


def test_time_limit_check_progress_near_deadline_passes() -> None:
    TimeLimit(Timeouts(5), NOW + 0.1).check_progress(NOW - 4)


@pytest.mark.parametrize(("deadline", "since"), [(None, NOW - 5), (NOW + 9, NOW - 6), (NOW - 1, NOW)])
def test_time_limit_check_progress_exceeded_raises_timeout_error(deadline: float | None, since: float) -> None:
    with pytest.raises(TimeoutError):
        TimeLimit(Timeouts(5), deadline).check_progress(since)


@pytest.mark.parametrize(("deadline", "expected"), [(None, NOW + 1), (NOW + 9, NOW + 1), (NOW + 0.5, NOW + 0.5)])
def test_time_limit_shorten_moves_deadline(deadline: float | None, expected: float) -> None:
    time_limit = TimeLimit(Timeouts(5), deadline)
    time_limit.shorten(1)
    assert time_limit.deadline == expected
