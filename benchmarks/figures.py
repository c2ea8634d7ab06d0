"""Measurement and formatting of figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

MIB = 1024 * 1024


class Figure(NamedTuple):
    """A row of the table.

    Attributes:
        what: The operation.
        measured: Absolute value with its unit.
        ratio: Ratio of the measured value to that of ``than``. None for counts and sizes.
        than: What the ratio is relative to.
        bound: ``at most 1.00`` or ``at least 2``. Empty if the figure has no bound.
        judged: Value to which the bound applies. None means the ratio.
    """

    what: str
    measured: str
    ratio: float | None = None
    than: str = ""
    bound: str = ""
    judged: float | None = None

    @property
    def held(self) -> bool:
        """Whether the figure is within its bound."""
        if not self.bound:
            return True
        _, way, limit = self.bound.split()[:3]
        value = self.ratio if self.judged is None else self.judged
        assert value is not None, self.what
        return value <= float(limit) if way == "most" else value >= float(limit)

    @property
    def row(self) -> str:
        """The figure as a row of a Markdown table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} of {self.than}"
        return f"| {self.what} | {self.measured} | {ratio} | {self.bound} | {'' if self.held else 'missed'} |"


class Pairs(NamedTuple):
    """Median times in seconds of two functions that ran alternately, and the median of their ratios per pair."""

    first: float
    second: float
    ratio: float


def pairs(
    first: Callable[[], object],
    second: Callable[[], object],
    turns: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Pairs:
    """Time two functions alternately, so that a slowdown of the machine affects both."""
    first(), second()  # warm up both
    taken = [(timed(first, clock), timed(second, clock)) for _ in range(turns)]
    return Pairs(
        statistics.median(one for one, _ in taken),
        statistics.median(other for _, other in taken),
        statistics.median(one / other for one, other in taken),
    )


def timed(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the duration of a call in seconds."""
    start = clock()
    function()
    return clock() - start
