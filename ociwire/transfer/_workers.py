"""Threads that do the same to many things: joined before anybody goes on, and ended by the first that fails."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, final

from ._threads import join_all

__all__ = ["Crew", "Stopped"]

_Item = TypeVar("_Item")


class Stopped(Exception):
    """Another thread has failed: what this one does is of no use any more. Nobody outside gets to see it."""


@final
class Crew:
    """So many threads at the most. What they do runs in a copy of the caller's context.

    Args:
        size: How many threads, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def check(self) -> None:
        """To be called now and then by what takes long.

        Raises:
            Stopped: Another thread has failed.
        """
        if self._error is not None:
            raise Stopped

    def each(self, function: Callable[[_Item], object], items: Iterable[_Item]) -> None:
        """Call a function with each item; returns when no thread is left.

        Raises:
            BaseException: The first that a call has raised, as it was raised.
        """
        listed = list(items)
        if min(self._size, len(listed)) <= 1:
            for item in listed:
                function(item)
            return
        left = iter(listed)
        threads = [
            threading.Thread(
                target=contextvars.copy_context().run, args=(self._work, function, left), name="ociwire-copy"
            )
            for _ in range(min(self._size, len(listed)))
        ]
        started: list[threading.Thread] = []
        try:
            for thread in threads:
                started.append(thread)  # before it starts: what interrupts that leaves it to be joined
                thread.start()
        except BaseException as error:  # noqa: BLE001 - an interrupt, or no thread to be had: raised below
            self._fail(error)
        join_all(started, self._fail)
        if self._error is not None:
            raise self._error

    def _work(self, function: Callable[[_Item], object], left: Iterator[_Item]) -> None:
        while self._error is None:
            with self._lock:
                item = next(left, _END)
            if item is _END:
                return
            try:
                function(item)  # type: ignore[arg-type]
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None and not isinstance(error, Stopped):
                self._error = error


_END = object()
