"""Whether more than one connection pays: pure decisions, from numbers that the caller has measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import final

__all__ = ["Probe", "Stage", "pays"]

WINDOW = 0.2
"""How long a rate is measured, at the least, in seconds."""
WORTH = 1.0
"""A transfer that will be over within so many seconds is not worth a second connection."""
GAIN = 1.3
"""A second connection pays if both together are so many times as fast as the first was alone."""
AGAIN = 5.0
"""One that does not pay is tried again after so many seconds, then after twice as many, and so on: what was measured
was short, and a link changes."""
SILENCE = 2.0
"""A second connection from which nothing has come for so many seconds does not pay."""


class Stage(Enum):
    """How far a probe has got."""

    ALONE = auto()
    """The first stream is measured."""
    ASKED = auto()
    """A second one is to be tried, or is not answered yet."""
    TOGETHER = auto()
    """Both are measured."""
    MANY = auto()
    """The decision: more than one connection pays."""
    ONE = auto()
    """The decision: it does not, for now."""


@final
@dataclass(slots=True)
class _Window:
    """Bytes between two moments; those of the sample that opened it were there before."""

    began: float
    count: int = 0
    samples: set[int] = field(default_factory=set)

    def rate(self, now: float, streams: int, least: float) -> float | None:
        """Bytes per second, once the window is at least so many seconds long and every stream has been seen in it.

        It begins and ends with a sample, so that what comes in bursts is measured from burst to burst.
        """
        if now - self.began < least or len(self.samples) < streams:
            return None
        return self.count / (now - self.began)


@final
class Probe:
    """Finds out whether more than one connection pays: the first stream's rate alone, then the rate of two together.

    Where it does not, that is tried again later, with the rate that the first stream has had by then. Where there was
    no second stream to be had, or nothing came of it, it is not.

    Not for several threads at a time.

    Args:
        workers: How many there may be; 1 never probes.
        left: How many bytes are to come.
        part_size: Of what is given out; less than two of them are not worth it.

    Attributes:
        stage: How far it has got.
        final: Whether that is where it stays.
    """

    def __init__(self, workers: int, left: int, part_size: int) -> None:
        self._left = left
        self._least = 2 * part_size
        self._window: _Window | None = None
        self._alone = 0.0
        self._heard = 0.0  # when the second stream was heard of last
        self._patience = AGAIN
        self.final = workers == 1 or left < self._least
        self.stage = Stage.ONE if self.final else Stage.ALONE

    @property
    def over(self) -> bool:
        """Whether a decision has been made; rates are not measured finely any more."""
        return self.stage in (Stage.ONE, Stage.MANY)

    def sample(self, stream: int, now: float, count: int) -> Stage | None:
        """Note that so many bytes have come by a stream (0 is the first, 1 the second).

        Returns:
            The stage, if it is a new one.
        """
        self._left -= count
        before = self.stage
        if before is Stage.ALONE or (before is Stage.ONE and stream == 0 and not self.final):
            self._measure(stream, now, count, 1)
        elif before is Stage.TOGETHER:
            if stream == 1:
                self._heard = now
            elif now - self._heard >= SILENCE:
                self.gone()
            # Both are running only once the second has shown itself.
            if self.stage is before and (stream == 1 or self._window is not None):
                self._measure(stream, now, count, 2)
        return None if self.stage is before else self.stage

    def opened(self, now: float) -> None:
        """The second stream has been answered by a range."""
        self.stage, self._heard, self._window = Stage.TOGETHER, now, None

    def missed(self) -> None:
        """The second stream came too late for the part that it was to get: for now, one has to do."""
        if not self.over:
            self.stage, self._window = Stage.ONE, None

    def gone(self) -> None:
        """There is no second stream, or no longer: unless it has been decided, one has to do."""
        if not self.over:
            self.stage, self.final = Stage.ONE, True

    def _measure(self, stream: int, now: float, count: int, streams: int) -> None:
        if self._window is None:
            self._window = _Window(now)
            return
        self._window.count += count
        self._window.samples.add(stream)
        again = self.stage is Stage.ONE
        rate = self._window.rate(now, streams, self._patience if again else WINDOW)
        if rate is None:
            return
        if streams == 2:
            self.final = pays(self._alone, rate)
            self.stage, self._window = Stage.MANY if self.final else Stage.ONE, None
        elif self._left < self._least or self._left < WORTH * rate:
            self.stage, self.final = Stage.ONE, True
        else:
            self._alone, self.stage = rate, Stage.ASKED
            self._patience *= 2 if again else 1


def pays(alone: float, together: float) -> bool:
    """Whether a second connection pays, by the rates in bytes per second without and with it."""
    return together >= GAIN * alone
