"""Cancellation of a call that runs in another thread, by shutting down its sockets and ending its waits.

`ociwire.aio` runs each call in a thread whose context has a `Cancellation`. The base transport and the waits between
attempts look it up in the context, which the threads of a transfer inherit. Calls without asyncio cannot be cancelled;
for them, the overhead is one look-up per request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, final

__all__ = ["Cancellation", "OperationCancelled", "current_cancellation", "cancellable_by"]


class OperationCancelled(BaseException):
    """The call was cancelled. Not an `Exception`, so that no layer handles it as an error and retries the request."""


class Abortable(Protocol):
    """Protocol of objects that wait for the network, such as a `SocketReader`."""

    def shut_down(self) -> None:
        """End the current wait and prevent later ones. Called from another thread."""
        ...


@final
class Cancellation:
    """State of one call: whether it is cancelled, and the sockets that it uses. Thread-safe."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may call `discard` while this thread holds the lock.
        self._lock = threading.RLock()
        self._cancelled = threading.Event()
        self._in_use: dict[Abortable, None] = {}

    def cancel(self) -> None:
        """Shut down the sockets of the call, and make its later requests and waits raise. Idempotent."""
        # Under the lock, so that a socket cannot be returned to its pool and used by another call before its shutdown.
        with self._lock:
            self._cancelled.set()
            for abortable in list(self._in_use):
                abortable.shut_down()

    def check(self) -> None:
        """Raise `OperationCancelled` if the call was cancelled."""
        if self._cancelled.is_set():
            raise OperationCancelled

    def add(self, abortable: Abortable) -> None:
        """Register a socket that the call uses. Raises `OperationCancelled` if the call was cancelled."""
        with self._lock:
            self.check()
            self._in_use[abortable] = None

    def discard(self, abortable: Abortable) -> None:
        """Unregister a socket that the call no longer uses, because another call may use it."""
        with self._lock:
            self._in_use.pop(abortable, None)

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds. Raises `OperationCancelled` if the call is cancelled during the wait."""
        self._cancelled.wait(seconds)
        self.check()


_CURRENT: ContextVar[Cancellation | None] = ContextVar("ociwire_cancellation", default=None)


def current_cancellation() -> Cancellation | None:
    """Return the cancellation of the call that runs in this context; `None` if it cannot be cancelled."""
    return _CURRENT.get()


@contextmanager
def cancellable_by(cancellation: Cancellation | None) -> Iterator[None]:
    """Make the code of the block cancellable. `None` protects the block from cancellation, for example for clean-up."""
    token = _CURRENT.set(cancellation)
    try:
        yield
    finally:
        _CURRENT.reset(token)
