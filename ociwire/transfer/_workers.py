"""Threads of one call: the first error cancels the others, and the call returns when all threads have ended."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar, final

__all__ = ["Cancelled", "WorkerPool"]

_Item = TypeVar("_Item")
_POLL_INTERVAL = 0.02  # seconds between two checks of a thread whose `join` was interrupted


class Cancelled(Exception):
    """Raised in a thread to stop it after another thread of the pool has failed. Never propagates to the caller."""


@final
class WorkerPool:
    """Threads of one call, which run in copies of the context of the thread that starts them.

    Args:
        name: Name of the threads.
        workers: Maximum number of threads of `for_each`.
        on_cancel: Called after an error, possibly more than once and from any thread, to wake threads that wait.
    """

    def __init__(self, name: str, workers: int = 1, on_cancel: Callable[[], object] = lambda: None) -> None:
        self._name = name
        self._workers = workers
        self._on_cancel = on_cancel
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self.cancelled = False

    def check(self) -> None:
        """Raise `Cancelled` if another thread has failed. Call it regularly in long work."""
        if self.cancelled:
            raise Cancelled

    def start(self, function: Callable[[], object]) -> None:
        """Run a function in a new thread. An exception that it raises cancels the pool.

        Raises `Cancelled` if the pool is cancelled, and RuntimeError if the system cannot start a thread.
        """

        def run() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - `join` raises it in the caller's thread
                self.cancel(error)

        thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=self._name)
        with self._lock:
            self.check()
            self._threads.append(thread)  # before `start`: if a signal interrupts `start`, `join` must wait for it
            thread.start()

    def cancel(self, error: BaseException) -> None:
        """Make all threads stop because of an error. Only the first error is stored; `Cancelled` is ignored."""
        with self._lock:
            if self._error is None and not isinstance(error, Cancelled):
                self._error = error
            self.cancelled = True
        self._on_cancel()

    def join(self, error: BaseException | None = None) -> None:
        """Wait until all threads have ended, then raise the first error of the pool.

        An exception during the wait, such as `KeyboardInterrupt`, cancels the pool, but the wait continues.

        Args:
            error: Exception that the calling thread has raised. It cancels the pool. `Cancelled` is not raised.
        """
        while True:
            try:
                if error is not None:
                    self.cancel(error)
                    error = None
                while self._threads:
                    thread = self._threads[-1]  # a running thread may start others
                    if thread.is_alive():
                        thread.join()
                    # Before CPython 3.13, an interrupted `join` marks the thread as ended, and the next `join` returns
                    # immediately. `threading.enumerate` lists a thread from its start until it has ended.
                    while thread in threading.enumerate():
                        threading.Event().wait(_POLL_INTERVAL)
                    self._threads.remove(thread)
                break
            except BaseException as interrupt:  # noqa: BLE001 - such as KeyboardInterrupt; raised after the wait
                error = interrupt if error is None else error
        try:
            if self._error is not None:
                raise self._error
        finally:
            self._error = None  # its traceback refers to this frame: break the reference cycle

    def for_each(self, function: Callable[[_Item], object], items: Iterable[_Item]) -> None:
        """Call a function with each item, from several threads; with one worker or item, from this thread.

        The first exception that a call raises is raised unchanged.
        """
        remaining = list(items)[::-1]

        def work() -> None:
            while remaining and not self.cancelled:
                try:
                    item = remaining.pop()
                except IndexError:  # another thread took the last item
                    return
                function(item)

        workers, error = min(self._workers, len(remaining)), None
        if workers <= 1:
            work()
            return
        try:
            for _ in range(workers):
                self.start(work)
        except BaseException as caught:  # noqa: BLE001 - `join` raises it after all threads have ended
            error = caught
        self.join(error)
