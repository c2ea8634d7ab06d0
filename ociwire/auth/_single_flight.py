"""Share one fetch among the threads that need its result.

============================  ==============================================================
the other thread's fetch      what a waiting thread does
============================  ==============================================================
succeeded                     takes the cached result
failed, for the same key      raises a copy of the error
failed, for another key       fetches its own key
was interrupted by a signal   fetches itself
failed after its deadline     fetches itself
waits for this thread         raises `AuthError`: the fetches need each other
is still running              waits until its own deadline, a second after the fetch's, or 120 s
============================  ==============================================================
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Hashable
from typing import ClassVar, TypeVar

from ..errors import AuthError, AuthTimeout

__all__ = ["SingleFlight", "copy_error"]

V = TypeVar("V")
E = TypeVar("E", bound=Exception)

_MAX_WAIT = 120.0
"""Maximum wait in seconds for another thread's fetch: twice what a credential helper may take."""
_POLL_INTERVAL = 1.0
_GRACE = 1.0
"""Seconds that a fetch has after its deadline to end by itself, before a waiting thread raises."""


class _Call:
    """A fetch that one thread runs, and for which others may wait."""

    def __init__(self, key: Hashable, deadline: float | None) -> None:
        self.key, self.deadline = key, deadline
        self.thread = threading.get_ident()
        self.done = False
        self.error: Exception | None = None
        # A plain lock, held while the fetch runs: a signal handler that raises within the Python code of an Event, a
        # Condition or a Future can leave their internal lock held for ever.
        self.running = threading.Lock()
        self.running.acquire()

    def finish(self) -> None:
        if not self.done:
            self.done = True
            self.running.release()


class SingleFlight:
    """Runs one fetch at a time per group, and shares its result. No lock is held while a fetch runs.

    Args:
        what: What is fetched, for messages: ``a token``.
    """

    # Which thread waits for which call, of all instances: a source may need a token, and a token a credential.
    _waiting: ClassVar[dict[int, _Call]] = {}

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._calls: dict[Hashable, _Call] = {}

    def fetch(
        self,
        group: Hashable,
        key: Hashable,
        find: Callable[[], V | None],
        fetch: Callable[[], V],
        deadline: float | None,
    ) -> V:
        """Return what `find` finds in a cache, or else what `fetch` returns and caches, here or in another thread.

        Fetches of the same group run one after the other. Only threads that wait for the same key share an error.

        Raises:
            AuthTimeout: The wait for another thread reached a deadline, or 120 seconds.
            AuthError: The other thread's fetch waits for this thread.
        """
        call = _Call(key, deadline)
        give_up = time.monotonic() + _MAX_WAIT if deadline is None else min(deadline, time.monotonic() + _MAX_WAIT)
        try:
            try:
                while True:
                    with self._lock:
                        cached = find()
                        other = self._calls.get(group)
                        if cached is None and (other is None or other.done):
                            self._calls[group] = call
                            break
                    if cached is not None:
                        return cached
                    if other is not None:
                        self._wait(other, give_up)
                        if other.error is not None and other.key == key:
                            raise copy_error(other.error)
                return fetch()
            except Exception as error:
                if deadline is None or time.monotonic() < deadline:
                    call.error = error
                raise
            finally:
                call.finish()
        finally:  # again: a signal may interrupt the inner `finally`
            call.finish()
            with self._lock:
                if self._calls.get(group) is call:
                    del self._calls[group]

    def _wait(self, other: _Call, give_up: float) -> None:
        # The fetch's own deadline counts, too: it may wait for this thread in a way that cannot be detected.
        if other.deadline is not None:
            give_up = min(give_up, other.deadline + _GRACE)
        thread = threading.get_ident()
        self._waiting[thread] = other
        try:
            while not other.done:
                # Each thread registers before it follows the chain, so that the last one to close a cycle sees it.
                chain: list[_Call] = []
                call: _Call | None = other
                while call is not None and not call.done and call not in chain:
                    if call.thread == thread:
                        raise AuthError(
                            f"getting {self._what} requires {self._what}: a credential source or token transport must"
                            " not send its requests through the layer that calls it"
                        )
                    chain.append(call)
                    call = self._waiting.get(call.thread)
                remaining = give_up - time.monotonic()
                if remaining <= 0:
                    raise AuthTimeout(f"timed out while another thread was getting {self._what}")
                if other.running.acquire(timeout=min(remaining, _POLL_INTERVAL)):
                    other.running.release()
        finally:
            self._waiting.pop(thread, None)


def copy_error(error: E) -> E:
    """Copy an error, to raise it in another thread with a traceback of its own. Returns it if it cannot be copied."""
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001 - a user's exception may not support copying
        return error
    copied.__cause__ = error.__cause__
    return copied
