"""Threads that work for one call: the first error cancels the others, and the call returns when all have ended."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar, final

__all__ = ["Cancelled", "WorkerPool", "join_all"]

_Item = TypeVar("_Item")
_POLL_INTERVAL = 0.02
"""Seconds between two looks at a thread whose `join` was interrupted."""


class Cancelled(Exception):
    """Another thread of the pool has failed, so that this one stops. Never leaves the pool."""


@final
class WorkerPool:
    """Threads of one call, which run in copies of the context of the thread that starts them.

    Args:
        name: Name of the threads.
        workers: Maximum number of threads of `for_each`.
        on_cancel: Called after an error, perhaps more than once and from any thread, to wake threads that wait.

    Attributes:
        cancelled: Whether a thread has failed.
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
        """Raise `Cancelled` if another thread has failed. Long work calls this now and then."""
        if self.cancelled:
            raise Cancelled

    def start(self, function: Callable[[], object]) -> None:
        """Run a function in a thread of its own. An exception that it raises cancels the pool.

        Raises:
            Cancelled: The pool is cancelled.
            RuntimeError: The system has no more threads.
        """

        def run() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - `join` raises it in the caller's thread
                self.cancel(error)

        thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=self._name)
        with self._lock:
            self.check()
            self._threads.append(thread)  # before it starts: `join` waits for it even if a signal interrupts `start`
            thread.start()

    def cancel(self, error: BaseException) -> None:
        """Have all threads stop because of an error. Only the first one is kept, and never `Cancelled`."""
        with self._lock:
            if self._error is None and not isinstance(error, Cancelled):
                self._error = error
            self.cancelled = True
        self._on_cancel()

    def join(self, error: BaseException | None = None) -> None:
        """Wait until all threads have ended; then raise the first error of the pool.

        Args:
            error: What the caller's own work has raised: cancels the pool.
        """
        join_all(self._threads, self.cancel, error)
        try:
            if self._error is not None:
                raise self._error
        finally:
            self._error = None  # its traceback refers to this frame: break the reference cycle

    def for_each(self, function: Callable[[_Item], object], items: Iterable[_Item]) -> None:
        """Call a function with each item, from several threads; with one worker or item, from this thread.

        Raises:
            BaseException: The first exception of a call, unchanged.
        """
        remaining = list(items)
        workers = min(self._workers, len(remaining))
        if workers <= 1:
            for item in remaining:
                function(item)
            return
        remaining.reverse()

        def work() -> None:
            while not self.cancelled:
                try:
                    item = remaining.pop()
                except IndexError:
                    return
                function(item)

        error: BaseException | None = None
        try:
            for _ in range(workers):
                self.start(work)
        except BaseException as caught:  # noqa: BLE001 - raised by `join`, when all threads have ended
            error = caught
        self.join(error)


def join_all(
    threads: list[threading.Thread],
    on_error: Callable[[BaseException], object],
    error: BaseException | None = None,
) -> BaseException | None:
    """Wait until all threads have ended, whatever interrupts the waiting: KeyboardInterrupt, SystemExit, a timeout.

    Args:
        threads: Threads that were started, or whose start was interrupted. They are removed as they end, the last one
            first, so that a running one may append others.
        on_error: Called with the first exception, to have the threads end soon. Called again if another exception
            interrupts it; must not raise by itself.
        error: The first exception, if there is one already.

    Returns:
        The first exception: `error`, or what interrupted the waiting.
    """
    reported = False
    while True:
        try:
            if error is not None and not reported:
                on_error(error)
                reported = True
            while threads:
                thread = threads[-1]
                _join(thread)
                threads.remove(thread)
            return error
        except BaseException as interrupt:  # noqa: BLE001 - returned when all threads have ended
            if error is None:
                error = interrupt


def _join(thread: threading.Thread) -> None:
    """Join a thread whose start or join may have been interrupted before."""
    if thread.ident is not None:
        thread.join()
    # Before CPython 3.13, a join that was interrupted marks the thread as ended, and the next join returns at once. The
    # thread itself removes its entry in this list.
    while thread in threading.enumerate():
        threading.Event().wait(_POLL_INTERVAL)
