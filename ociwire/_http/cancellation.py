"""Cancellation of a call that runs in another thread, by shutting down its sockets and ending its waits.

`ociwire.aio` runs each call in a thread whose context has a `Cancellation`. The base transport and the waits between
attempts look it up in the context, which the threads of a transfer inherit. Calls without asyncio cannot be cancelled;
for them, the overhead is one look-up per request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final

__all__ = [
    "Cancellation",
    "OperationCancelled",
    "cancellable_by",
    "cancellable_sleep",
    "current_cancellation",
    "ended_by",
]


class OperationCancelled(BaseException):
    """The call was cancelled. Not an `Exception`, so that no layer handles it as an error and retries the request."""


@final
class Cancellation:
    """State of one call: whether it is cancelled, and how to end its waits. Thread-safe."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may call `discard` while this thread holds the lock.
        self._lock = threading.RLock()
        self._cancelled = threading.Event()
        self._callbacks: dict[Callable[[], object], None] = {}

    def cancel(self) -> None:
        """Shut down the sockets of the call, and make its later requests and waits raise. Idempotent."""
        # Under the lock, so that a socket cannot be returned to its pool and used by another call before its shutdown.
        with self._lock:
            self._cancelled.set()
            for callback in list(self._callbacks):
                callback()

    def check(self) -> None:
        """Raise `OperationCancelled` if the call was cancelled."""
        if self._cancelled.is_set():
            raise OperationCancelled

    def add(self, callback: Callable[[], object]) -> None:
        """Register a function that ends a wait of the call, such as the shutdown of its socket.

        `cancel` calls it from another thread.

        Raises:
            OperationCancelled: The call was cancelled.
        """
        with self._lock:
            self.check()
            self._callbacks[callback] = None

    def discard(self, callback: Callable[[], object]) -> None:
        """Unregister a function. After a wait for a socket, another call may use the socket."""
        with self._lock:
            self._callbacks.pop(callback, None)

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


@contextmanager
def ended_by(callback: Callable[[], object]) -> Iterator[None]:
    """Call a function, which ends a wait in the block, if the current call is cancelled during the block.

    Raises:
        OperationCancelled: The call was cancelled before the block.
    """
    cancellation = _CURRENT.get()
    if cancellation is not None:
        cancellation.add(callback)
    try:
        yield
    finally:
        if cancellation is not None:
            cancellation.discard(callback)


def cancellable_sleep(seconds: float, sleep: Callable[[float], object]) -> None:
    """Wait for a number of seconds.

    Args:
        seconds: Duration in seconds. With 0, `sleep` is not called.
        sleep: Function that waits if the current call cannot be cancelled.

    Raises:
        OperationCancelled: The call was cancelled, possibly during the wait.
    """
    cancellation = _CURRENT.get()
    if cancellation is not None:
        cancellation.sleep(seconds)
    elif seconds:
        sleep(seconds)
