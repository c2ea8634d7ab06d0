"""Waits for threads to end, whatever comes meanwhile: nobody who has started one goes on while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["join_all"]

_PAUSE = 0.02
"""How often it is looked whether a thread has ended whose `join` was interrupted, in seconds."""


def join_all(threads: list[threading.Thread], on_interrupt: Callable[[BaseException], object]) -> None:
    """Wait until all of them have ended; then raise the first exception that came while waiting, if one did.

    What comes is whatever a signal's handler raises: KeyboardInterrupt, SystemExit, a test's timeout.

    Args:
        threads: Those that were started, or whose start was interrupted. They are taken out as they end, the last one
            first, so that one that still runs may append others.
        on_interrupt: Called with that first exception, to have the threads end soon. Called again if another one
            interrupts it; must not raise by itself.
    """
    first: BaseException | None = None
    told = True
    while True:
        try:
            if first is not None and not told:
                on_interrupt(first)
                told = True
            while threads:
                thread = threads[-1]
                _wait_for(thread)
                threads.remove(thread)
            break
        except BaseException as error:  # noqa: BLE001 - raised again when all threads have ended
            if first is None:
                first, told = error, False
    try:
        if first is not None:
            raise first
    finally:
        del first  # its traceback has this frame


def _wait_for(thread: threading.Thread) -> None:
    """Join a thread, which may have been joined before, up to an interrupt, or started up to one."""
    if thread.ident is not None:
        thread.join()
    # Before CPython 3.13 a `join` that is interrupted takes the thread for ended, and the next one returns at once; but
    # the thread itself takes its name off this list.
    while thread in threading.enumerate():
        threading.Event().wait(_PAUSE)
