"""Cancels the work of one call in another thread: its sockets are shut down, its waits end, and it sends nothing more.

`ociwire.aio` runs each call in a thread, in a context that has a `Cancellation`. The base transport and the waits
between attempts look it up in that context, which threads of a transfer inherit. Code without asyncio has none, and
pays for one look-up in each request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, final

__all__ = ["Cancellation", "OperationCancelled", "current_cancellation", "cancellable_by"]


class OperationCancelled(BaseException):
    """The call was cancelled. Not an `Exception`: no layer may tolerate it or repeat the request."""


class Abortable(Protocol):
    """What waits for the network in the cancelled thread."""

    def shut_down(self) -> None:
        """Make the wait end. Called from another thread."""
        ...


@final
class Cancellation:
    """Whether one call was cancelled, and the sockets that it uses. Thread-safe."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may call `discard` while this thread holds the lock.
        self._lock = threading.RLock()
        self._cancelled = threading.Event()
        self._in_use: dict[Abortable, None] = {}

    def cancel(self) -> None:
        """End the waits of the call, and refuse all that it does from now on. Idempotent."""
        with self._lock:  # a socket that is shut down under the lock has not been returned to its pool
            self._cancelled.set()
            for abortable in list(self._in_use):
                abortable.shut_down()

    def check(self) -> None:
        """Raise `OperationCancelled` if the call was cancelled."""
        if self._cancelled.is_set():
            raise OperationCancelled

    def add(self, abortable: Abortable) -> None:
        """Register a socket that the call uses from now on. Raises `OperationCancelled` if the call was cancelled."""
        with self._lock:
            self.check()
            self._in_use[abortable] = None

    def discard(self, abortable: Abortable) -> None:
        """Forget a socket that the call no longer uses: it may serve another call next."""
        with self._lock:
            self._in_use.pop(abortable, None)

    def sleep(self, seconds: float) -> None:
        """Wait. Raises `OperationCancelled` if the call is cancelled before the end."""
        self._cancelled.wait(seconds)
        self.check()


_CURRENT: ContextVar[Cancellation | None] = ContextVar("ociwire_cancellation", default=None)


def current_cancellation() -> Cancellation | None:
    """Return the cancellation of the call that this thread works for, if it can be cancelled."""
    return _CURRENT.get()


@contextmanager
def cancellable_by(cancellation: Cancellation | None) -> Iterator[None]:
    """Have the block end if a cancellation is cancelled; with `None`, shield it, such as a clean-up after that."""
    token = _CURRENT.set(cancellation)
    try:
        yield
    finally:
        _CURRENT.reset(token)
