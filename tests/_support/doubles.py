"""Stand-ins that several tests share: a clock that is set by hand, and a call in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds after which a test that hangs fails: no test that passes waits for them."""


class FakeClock:
    """A clock, by hand.

    Attributes:
        now: What it shows.
        step: By how much it goes on whenever somebody looks.
    """

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Call:
    """A call in a thread of its own."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:  # noqa: BLE001 - that it is raised is what tests want to see
            self.error = error

    def join(self) -> Call:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "a thread waits for ever"
        return self

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()
