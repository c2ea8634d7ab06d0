"""Which bytes of a blob are whose: pure bookkeeping and pure decisions, without threads, clocks or files.

Every byte is given out once. What is decided is decided from numbers that the caller has measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import final

__all__ = ["Claim", "Plan", "Probe", "Verdict", "Written", "buffer_size_for", "next_reserve", "part_size_for"]

MIB = 1024 * 1024
LEAST_PART, LARGEST_PART = 32 * MIB, 256 * MIB
"""Between these lies the size of a part, in bytes, where nobody says another."""
BUFFER = 4 * MIB
MEMORY = 32 * MIB
"""How much all buffers together may take, in bytes."""
SPARE_BUFFERS = 3
"""Beside one a worker: two on their way through the hash, and one for what is read back."""
LEAST_STEAL = 2 * MIB
"""Less than so many bytes are not worth a request of their own."""
WINDOW = 0.2
"""How long a rate is measured, at the least, in seconds."""
WORTH = 1.0
"""A transfer that will be over within so many seconds is not worth a second connection."""
GAIN = 1.3
"""A second connection pays if both together are so many times as fast as the first was alone."""


def part_size_for(left: int, workers: int) -> int:
    """How large parts are by default: small enough that all workers end at about the same time."""
    return min(max(left // (16 * workers), LEAST_PART), LARGEST_PART)


def buffer_size_for(left: int, workers: int) -> int:
    """How large a buffer is, in bytes: all of them stay within `MEMORY`, whatever the number of workers."""
    return max(1, min(BUFFER, MEMORY // (workers + SPARE_BUFFERS), left))


def next_reserve(reserved: int, got: int, missed: int, largest: int) -> int:
    """How many bytes a worker reserves next, so that a slow one keeps no more from others than it will soon have.

    Args:
        reserved: How many it reserved before, at the most.
        got: How many it got of them.
        missed: How many it did not get in time.
        largest: The most, in bytes.
    """
    return min(2 * (got if missed > 0 else reserved), largest)


@final
@dataclass(slots=True, eq=False)
class Claim:
    """The bytes from `start` to `stop` (exclusive), which one worker fetches.

    Attributes:
        start: The first byte.
        stop: The byte before which to end; it moves, as the plan extends the claim or gives of it to another.
        reserved: Up to here the worker is reading already.
    """

    start: int
    stop: int
    reserved: int


@final
class Plan:
    """Gives out the bytes from `start` to `stop`: each once, the first ones first. Not for several threads at a time.

    Args:
        start: The first byte.
        stop: The byte before which to end.
        part_size: How many bytes are given out at a time.
    """

    def __init__(self, start: int, stop: int, part_size: int) -> None:
        self._free = [(start, stop)] if start < stop else []
        self._part_size = part_size
        self._claims: list[Claim] = []

    @property
    def part_size(self) -> int:
        """How many bytes are given out at a time."""
        return self._part_size

    def take(self) -> Claim | None:
        """The first part that is nobody's, or None."""
        return self.take_at(self._free[0][0]) if self._free else None

    def take_at(self, start: int) -> Claim | None:
        """The part that begins there, as far as it is nobody's; None if that byte is somebody's."""
        for index, (begin, end) in enumerate(self._free):
            if begin <= start < end:
                stop = min(start + self._part_size, end)
                self._free[index : index + 1] = [(a, b) for a, b in ((begin, start), (stop, end)) if a < b]
                return self._claimed(start, stop)
        return None

    def ahead(self) -> int | None:
        """Where a second stream might begin: a part further on than what comes next, if there is so much."""
        if not self._free:
            return None
        begin, end = self._free[0]
        return begin + self._part_size if begin + self._part_size < end else begin

    def steal(self) -> Claim | None:
        """The second half of what another one still has the most of to do, if that is worth a request; else None."""
        least = min(self._part_size, LEAST_STEAL)
        victim = max(self._claims, key=lambda claim: claim.stop - claim.reserved, default=None)
        if victim is None or victim.stop - victim.reserved < max(least, 2):
            return None
        stop = victim.stop
        victim.stop = victim.reserved + (stop - victim.reserved) // 2
        return self._claimed(victim.stop, stop)

    def reserve(self, claim: Claim, position: int, most: int, until: int) -> int:
        """Up to where the worker may read now from `position` on; `position` itself if its claim is done.

        A claim that is done goes on into what follows it, if that is nobody's and the worker's stream has it.

        Args:
            claim: The worker's.
            position: How far it has got.
            most: How many bytes it can read at once.
            until: Where its stream ends.
        """
        if position >= claim.stop and self._free and self._free[0][0] == claim.stop < until:
            further = self.take()
            if further is not None:
                self._claims.remove(further)
                claim.stop = further.stop
        claim.reserved = max(min(position + most, claim.stop, until), position)
        if claim.reserved == position:
            self._claims.remove(claim)
        return claim.reserved

    def end_of_run(self, claim: Claim) -> int:
        """Up to where nobody has anything from this claim on."""
        return self._free[0][1] if self._free and self._free[0][0] == claim.stop else claim.stop

    def _claimed(self, start: int, stop: int) -> Claim:
        claim = Claim(start, stop, start)
        self._claims.append(claim)
        return claim


@final
class Written:
    """What lies on the disk beyond the part that has no gaps: intervals that neither touch nor overlap.

    Args:
        front: Up to here there is no gap.
    """

    def __init__(self, front: int) -> None:
        self.front = front
        self._stops: dict[int, int] = {}
        self._starts: dict[int, int] = {}

    def add(self, start: int, stop: int) -> None:
        """Note an interval beyond the front, none of which was noted before."""
        if start in self._starts:
            start = self._starts.pop(start)
        if stop in self._stops:
            stop = self._stops.pop(stop)
        self._stops[start], self._starts[stop] = stop, start

    def advance(self, most: int) -> int:
        """Move the front on over what is there, by at most so many bytes; returns by how many."""
        stop = self._stops.pop(self.front, None)
        if stop is None:
            return 0
        start, self.front = self.front, min(self.front + most, stop)
        if self.front < stop:
            self._stops[self.front], self._starts[stop] = stop, self.front
        else:
            del self._starts[stop]
        return self.front - start


class Verdict(Enum):
    """What a probe has found out."""

    WAIT = auto()
    """Nothing yet, or nothing new."""
    ASK = auto()
    """How fast one stream is: try a second one."""
    GROW = auto()
    """More than one connection pays."""
    STAY = auto()
    """It does not."""


@final
@dataclass(slots=True)
class _Window:
    """Bytes between two moments; those of the sample that opened it were there before."""

    began: float
    count: int = 0
    samples: set[int] = field(default_factory=set)

    def rate(self, now: float, streams: int) -> float | None:
        """Bytes per second, once the window is long enough and every stream has been seen in it.

        It begins and ends with a sample, so that what comes in bursts is measured from burst to burst.
        """
        if now - self.began < WINDOW or len(self.samples) < streams:
            return None
        return self.count / (now - self.began)


@final
class Probe:
    """Finds out whether more than one connection pays: the first stream's rate alone, then the rate of two together.

    Args:
        workers: How many there may be; 1 never probes.
        left: How many bytes are to come.
        part_size: Of what is given out; less than two of them are not worth it.
    """

    def __init__(self, workers: int, left: int, part_size: int) -> None:
        self._left = left
        self._least = 2 * part_size
        self._window: _Window | None = None
        self._alone: float | None = None
        self._waits = False
        self.over = workers == 1 or left < self._least
        """Whether the decision has been made."""

    def sample(self, stream: int, now: float, count: int) -> Verdict:
        """Note that so many bytes have come by a stream (0 is the first, 1 the second)."""
        self._left -= count
        if self.over or self._waits:
            return Verdict.WAIT
        if self._window is None:
            if self._alone is None or stream == 1:  # both are running only once the second has shown itself
                self._window = _Window(now)
            return Verdict.WAIT
        self._window.count += count
        self._window.samples.add(stream)
        rate = self._window.rate(now, 1 if self._alone is None else 2)
        return Verdict.WAIT if rate is None else self._judge(rate)

    def opened(self, *, ranges: bool) -> None:
        """The second stream has been answered; by a range, or by nothing of use."""
        self._waits, self.over = False, not ranges

    def _judge(self, rate: float) -> Verdict:
        self._window = None
        if self._alone is not None:
            self.over = True
            return Verdict.GROW if pays(self._alone, rate) else Verdict.STAY
        if self._left < self._least or self._left < WORTH * rate:
            self.over = True
            return Verdict.STAY
        self._alone, self._waits = rate, True
        return Verdict.ASK


def pays(alone: float, together: float) -> bool:
    """Whether a second connection pays, by the rates in bytes per second without and with it."""
    return together >= GAIN * alone
