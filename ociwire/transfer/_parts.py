"""Which bytes of a blob are whose: pure bookkeeping and pure decisions, without threads, clocks or files.

Every byte is kept once. Who has a claim on bytes fetches them, and may find when they are there that the claim has gone
to somebody else meanwhile: a worker that says nothing any more holds nobody up. Times are given by the caller, in
seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["Claim", "Plan", "Written", "buffer_size_for", "next_reserve", "part_size_for", "workers_for"]

MIB = 1024 * 1024
LEAST_PART, LARGEST_PART = 32 * MIB, 256 * MIB
"""Between these lies the size of a part, in bytes, where nobody says another."""
MOST_PARTS = 4096
"""A blob is not cut into more, however small the parts are that somebody says."""
MOST_WORKERS = 64
BUFFER = 4 * MIB
MEMORY = 32 * MIB
"""How much all buffers together may take, in bytes."""
SPARE_BUFFERS = 3
"""Beside one a worker: two on their way through the hash, and one for what is read back."""
LEAST_STEAL = 2 * MIB
"""Less than so many bytes are not worth a request of their own, unless they would take `LONG`."""
LONG = 1.0
STALLED = 2.0
"""Of a worker to whom nothing has come for so long, in seconds, others take all that it has."""


def workers_for(left: int, wanted: int, part_size: int | None) -> int:
    """How many workers there may be: not more than there are parts, nor than `MOST_WORKERS`."""
    most = min(wanted, MOST_WORKERS)
    return max(1, min(most, -(-left // part_size_for(left, most, part_size))))


def part_size_for(left: int, workers: int, wanted: int | None = None) -> int:
    """How large parts are: by default small enough that all workers end at about the same time.

    What is wanted counts, but for `MOST_PARTS`.
    """
    if wanted is not None:
        return max(wanted, -(-left // MOST_PARTS))
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
    """The bytes from `position` to `stop` (exclusive), which one worker fetches.

    Attributes:
        worker: Whose it is.
        start: Where it began.
        position: The first byte that is not there yet.
        stop: The byte before which to end; it moves, as the plan extends the claim or gives of it to another.
        reserved: Up to here the worker is reading already.
        began: When it was given out.
        moved: When the last bytes of it came.
        patience: How long it may say nothing before others take it.
    """

    worker: int
    start: int
    position: int
    stop: int
    reserved: int
    began: float
    moved: float
    patience: float

    def takes_long(self, now: float) -> bool:
        """Whether what it has not reserved is going to take `LONG`, as fast as it has been up to now."""
        spent, got = now - self.began, self.position - self.start
        return spent > LONG and (self.stop - self.reserved) * spent > LONG * got


@final
class Plan:
    """Gives out the bytes from `start` to `stop`, the first ones first. Not for several threads at a time.

    A worker, which is a number, has one claim at a time.

    Args:
        start: The first byte.
        stop: The byte before which to end.
        part_size: How many bytes are given out at a time.
    """

    def __init__(self, start: int, stop: int, part_size: int) -> None:
        self.part_size = part_size
        self._free = [(start, stop)] if start < stop else []
        self._claims: dict[int, Claim] = {}

    @property
    def busy(self) -> bool:
        """Whether anybody still has a claim."""
        return bool(self._claims)

    def holds(self, claim: Claim) -> bool:
        """Whether the worker still has that claim: it is not done, nor has it gone to others."""
        return self._claims.get(claim.worker) is claim

    def take(self, worker: int, now: float) -> Claim | None:
        """The first part that is nobody's, or None."""
        return self.take_at(self._free[0][0], worker, now) if self._free else None

    def take_at(self, start: int, worker: int, now: float) -> Claim | None:
        """The part that begins there, as far as it is nobody's; None if that byte is somebody's."""
        for index, (begin, end) in enumerate(self._free):
            if begin <= start < end:
                stop = min(start + self.part_size, end)
                self._free[index : index + 1] = [(a, b) for a, b in ((begin, start), (stop, end)) if a < b]
                return self._claimed(worker, start, stop, now)
        return None

    def ahead(self) -> int | None:
        """Where a second stream might begin: a part further on than what comes next, if there is so much."""
        if not self._free:
            return None
        begin, end = self._free[0]
        return begin + self.part_size if begin + self.part_size < end else begin

    def steal(self, worker: int, now: float) -> Claim | None:
        """What another one has claimed, for somebody who has nothing to do: None if it is not worth a request.

        That is all of what a stalled one has; else the second half of what the one with the most has not reserved yet.
        Whoever takes from a stalled one is waited for twice as long: what comes in rare bursts comes in the end.
        """
        others = [one for one in self._claims.values() if one.worker != worker and one.position < one.stop]
        for claim in others:
            if now - claim.moved >= claim.patience:
                start, stop = claim.position, claim.stop
                self._end(claim)
                return self._claimed(worker, start, stop, now, 2 * claim.patience)
        least = min(self.part_size, LEAST_STEAL)
        for claim in sorted(others, key=lambda claim: claim.reserved - claim.stop):
            left = claim.stop - claim.reserved
            if left >= 2 and (left >= least or claim.takes_long(now)):
                stop, claim.stop = claim.stop, claim.reserved + left // 2
                return self._claimed(worker, claim.stop, stop, now)
        return None

    def reserve(self, claim: Claim, most: int, until: int) -> int:
        """Up to where the worker may read now from its position on; the position itself if its claim is done, or gone.

        A claim goes on into what follows it, if that is nobody's and the worker's stream has it.

        Args:
            claim: The worker's.
            most: How many bytes it can read at once.
            until: Where its stream ends.
        """
        if not self.holds(claim):
            return claim.position
        missing = min(claim.position + most, until) - claim.stop
        if missing > 0 and self._free and self._free[0][0] == claim.stop:
            end = self._free[0][1]
            claim.stop = min(claim.stop + -(-missing // self.part_size) * self.part_size, end)
            self._free[:1] = [(claim.stop, end)] if claim.stop < end else []
        claim.reserved = max(min(claim.position + most, claim.stop, until), claim.position)
        if claim.reserved == claim.position:
            self._give_back(claim)
        return claim.reserved

    def commit(self, claim: Claim, count: int, now: float) -> int:
        """So many bytes have come; returns how many of them are still the worker's to keep."""
        kept = min(count, claim.stop - claim.position)
        claim.position += kept
        claim.moved = now
        return kept

    def give_back(self, worker: int) -> None:
        """What a worker has claimed and not got is nobody's."""
        claim = self._claims.get(worker)
        if claim is not None:
            self._give_back(claim)

    def end_of_run(self, claim: Claim) -> int:
        """Up to where nobody has anything from this claim on."""
        return self._free[0][1] if self._free and self._free[0][0] == claim.stop else claim.stop

    def _claimed(self, worker: int, start: int, stop: int, now: float, patience: float | None = None) -> Claim:
        patience = STALLED if patience is None else patience
        claim = self._claims[worker] = Claim(worker, start, start, stop, start, now, now, patience)
        return claim

    def _give_back(self, claim: Claim) -> None:
        pieces = [*self._free, (claim.position, claim.stop)]
        self._end(claim)
        self._free = []
        for start, stop in sorted(piece for piece in pieces if piece[0] < piece[1]):
            if self._free and self._free[-1][1] == start:
                start = self._free.pop()[0]
            self._free.append((start, stop))

    def _end(self, claim: Claim) -> None:
        del self._claims[claim.worker]
        claim.stop = claim.position


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
