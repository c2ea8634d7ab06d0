"""One errand at a time: many threads want the same thing, one fetches it, the others wait for what it brings."""

from __future__ import annotations

import copy
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..errors import AuthError, AuthTimeout

__all__ = ["Flights"]

V = TypeVar("V")


_LOOK_AGAIN = 1.0
"""Seconds after which those who wait look whether their leader is still there."""


class _Leader:
    """Held by the frame of the thread that is on an errand: gone when that frame is, whatever has ended it."""


class _Flight:
    """An errand under way: who is on it, for what, and how it failed."""

    def __init__(self, errand: Hashable, leader: _Leader) -> None:
        self.errand = errand
        self.thread = threading.get_ident()
        self.over = threading.Event()
        self.failure: Exception | None = None
        self._leader = weakref.ref(leader)

    @property
    def abandoned(self) -> bool:
        """Whether it is over, or its leader was killed where not even a `finally` could say so."""
        return self.over.is_set() or self._leader() is None


class Flights(Generic[V]):
    """Runs errands, of each lane one at a time. Nothing is locked while one is under way.

    A failure is raised in all who were waiting for the same errand, and is not kept. A leader that was killed
    (`KeyboardInterrupt`), or whose own deadline had passed, is replaced by one of those who wait.

    Args:
        what: What is fetched, for messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, _Flight] = {}

    def fetch(
        self,
        lane: Hashable,
        errand: Hashable,
        find: Callable[[], V | None],
        fetch: Callable[[], V],
        deadline: float | None,
    ) -> V:
        """What `find` finds, or what one thread, this or another, fetches.

        Args:
            lane: What runs one at a time.
            errand: What is fetched in it: who waits for another errand takes its turn afterwards.
            find: Looks whether it is there by now; called without anything under way in the lane.
            fetch: Fetches it, and keeps it where `find` looks.
            deadline: A moment of `time.monotonic`, in seconds, up to which to wait for other threads.

        Raises:
            AuthTimeout: The deadline passed while another thread was under way.
            AuthError: The errand leads back to itself.
            Exception: Whatever `fetch` raised, here or in the thread that was waited for.
        """
        leader = _Leader()
        while True:
            with self._lock:
                found = find()
                if found is not None:
                    return found
                flight = self._under_way.get(lane)
                leads = flight is None or flight.abandoned
                if flight is None or leads:
                    flight = self._under_way[lane] = _Flight(errand, leader)
            if leads:
                return self._lead(lane, flight, fetch, deadline)
            self._wait(flight, deadline)
            if flight.failure is not None and flight.errand == errand:
                raise _again(flight.failure)

    def _lead(self, lane: Hashable, flight: _Flight, fetch: Callable[[], V], deadline: float | None) -> V:
        try:
            return fetch()
        except Exception as error:
            if deadline is None or time.monotonic() < deadline:
                flight.failure = error
            raise
        finally:
            flight.over.set()
            with self._lock:
                if self._under_way.get(lane) is flight:
                    del self._under_way[lane]

    def _wait(self, flight: _Flight, deadline: float | None) -> None:
        if flight.thread == threading.get_ident():
            raise AuthError(
                f"to get {self._what}, {self._what} is needed: a credential source or token transport must not send"
                " its requests through the layer that asks it"
            )
        while not flight.abandoned:
            left = _LOOK_AGAIN if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise AuthTimeout(f"the deadline passed while another thread was getting {self._what}")
            flight.over.wait(min(left, _LOOK_AGAIN))


def _again(failure: Exception) -> Exception:
    """An exception to be raised in another thread than where it was raised first: with a traceback of its own."""
    try:
        repeated = copy.copy(failure)
    except Exception:  # noqa: BLE001 - a stranger's exception may not know how to be copied
        return failure
    repeated.__cause__ = failure.__cause__
    return repeated
