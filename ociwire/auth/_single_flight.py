"""Share one fetch among all threads that need its result (like Go's ``singleflight``).

============================  ====================================================================================
fetch of the other thread     waiting thread
============================  ====================================================================================
succeeded                     returns the cached result
failed, for the same key      raises a copy of the error
failed, for another key       fetches its own key
was interrupted by a signal   starts its own fetch
failed after its deadline     starts its own fetch
waits for this thread         raises `AuthError`, because this is a deadlock
is still running              waits, but not beyond its own deadline, 120 s, or 1 s after the deadline of the fetch
============================  ====================================================================================
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
"""Maximum wait in seconds for the fetch of another thread: twice the timeout of a credential helper."""
_POLL_INTERVAL = 1.0
"""Seconds between two checks for a deadlock."""
_GRACE = 1.0
"""Seconds for which a thread continues to wait after the deadline of a fetch, before it raises."""


class _Call:
    """A fetch that runs in one thread. Other threads may wait for it."""

    def __init__(self, key: Hashable, deadline: float | None) -> None:
        self.key, self.deadline = key, deadline
        self.thread = threading.get_ident()
        self.done = False
        self.error: Exception | None = None
        # A plain lock, held while the fetch runs. Event, Condition and Future are written in Python: if a signal
        # handler raises an exception in their code, their internal lock may stay locked.
        self.running = threading.Lock()
        self.running.acquire()

    def finish(self) -> None:
        if not self.done:
            self.done = True
            self.running.release()


class SingleFlight:
    """Runs one fetch at a time per group, and shares its result. No lock is held while a fetch runs.

    Args:
        what: Name of the result in messages, such as ``a token``.
    """

    # Maps the id of each waiting thread to the call that it waits for. Shared by all instances, because a credential
    # source may need a token, and the fetch of a token may need a credential.
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
        """Return the cached result. If there is none, fetch it or wait for another thread that fetches it.

        Args:
            group: Fetches of the same group run one after another.
            key: Result to fetch. Only threads that wait for the same key share an error.
            find: Function that returns the cached result; `None` if there is none.
            fetch: Function that fetches and caches the result.
            deadline: Maximum `time.monotonic` value of the fetch; `None` means no deadline.

        Raises:
            AuthTimeout: The wait for another thread reached a deadline or the limit of 120 seconds.
            AuthError: The fetch of the other thread waits for this thread.
        """
        call = _Call(key, deadline)
        wait_until = time.monotonic() + _MAX_WAIT if deadline is None else min(deadline, time.monotonic() + _MAX_WAIT)
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
                        self._wait(other, wait_until)
                        if other.error is not None and other.key == key:
                            raise copy_error(other.error)
                return fetch()
            except Exception as error:
                # An error after the deadline is not shared: other threads may have a later deadline.
                if deadline is None or time.monotonic() < deadline:
                    call.error = error
                raise
            finally:
                call.finish()
        finally:  # repeats `finish`, because a signal may interrupt the inner `finally`
            call.finish()
            with self._lock:
                if self._calls.get(group) is call:
                    del self._calls[group]

    def _wait(self, other: _Call, wait_until: float) -> None:
        # Do not wait longer than the fetch may take: the fetch may wait for this thread in a way that cannot be
        # detected.
        if other.deadline is not None:
            wait_until = min(wait_until, other.deadline + _GRACE)
        thread = threading.get_ident()
        self._waiting[thread] = other
        try:
            while not other.done:
                # Each thread registers before it follows the chain, so that the thread that closes a cycle detects the
                # cycle.
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
                remaining = wait_until - time.monotonic()
                if remaining <= 0:
                    raise AuthTimeout(f"timed out while another thread was getting {self._what}")
                if other.running.acquire(timeout=min(remaining, _POLL_INTERVAL)):
                    other.running.release()
        finally:
            self._waiting.pop(thread, None)


def copy_error(error: E) -> E:
    """Copy an error, so that each thread has a separate traceback. An error that cannot be copied is returned."""
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001 - a user's exception may not support copying
        return error
    copied.__cause__ = error.__cause__
    return copied
