"""How a figure is taken, and how it is written down."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

MIB = 1024 * 1024


class Figure(NamedTuple):
    """One row of the table.

    Attributes:
        what: What was done.
        measured: How fast, how large or how many, with its unit: for orientation.
        ratio: What is measured, against ``than``; None where a count or a size says it all.
        than: What it is a ratio to.
        bound: ``at most 1.00``, ``at least 2``; nothing for a figure that is only told.
        judged: What the bound is for, where that is not the ratio.
    """

    what: str
    measured: str
    ratio: float | None = None
    than: str = ""
    bound: str = ""
    judged: float | None = None

    @property
    def held(self) -> bool:
        """Whether the bound is kept."""
        if not self.bound:
            return True
        _, way, limit = self.bound.split()[:3]
        value = self.ratio if self.judged is None else self.judged
        assert value is not None, self.what
        return value <= float(limit) if way == "most" else value >= float(limit)

    @property
    def row(self) -> str:
        """As a row of a Markdown table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} of {self.than}"
        return f"| {self.what} | {self.measured} | {ratio} | {self.bound} | {'' if self.held else 'missed'} |"


class Pairs(NamedTuple):
    """Medians of times, in seconds, that were taken in turn; and of what the first is of the second, pair by pair."""

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
    """Time two functions in turn: a machine that becomes slow is slow for both."""
    first(), second()  # warm, both
    taken = [(timed(first, clock), timed(second, clock)) for _ in range(turns)]
    return Pairs(
        statistics.median(one for one, _ in taken),
        statistics.median(other for _, other in taken),
        statistics.median(one / other for one, other in taken),
    )


def timed(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long it takes, in seconds."""
    start = clock()
    function()
    return clock() - start
