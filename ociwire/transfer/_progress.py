"""Progress events of transfers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from .._oci.digest import Digest

__all__ = ["Progress", "ProgressCallback", "ProgressReporter"]


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of the transfer of one blob or manifest.

    Attributes:
        operation: ``download``, ``upload`` or ``copy``.
        digest: Digest of the content; `None` until it is known, for example during an upload that is still being
            hashed.
        done: Number of bytes that are done, including bytes that were already present.
        total: Total number of bytes; `None` if it is unknown.
    """

    operation: str
    digest: Digest | None
    done: int
    total: int | None


ProgressCallback = Callable[[Progress], object]
"""Function that is called with each event. It may be called from any thread, but only once at a time for each digest.
If it raises an exception, the transfer ends."""


@final
class ProgressReporter:
    """Calls the progress callback, if there is one. Omits an event that is equal to the previous one.

    As a context manager, it raises the exception of the callback unchanged, even if other code has replaced this
    exception. For example, a generator replaces StopIteration by RuntimeError, and a `TransportError` of the callback
    is treated as a network failure.

    Attributes:
        error: The exception that the callback has raised; `None` if there is none.
    """

    def __init__(self, callback: ProgressCallback | None, operation: str) -> None:
        self._callback = callback
        self._operation = operation
        self._last: Progress | None = None
        self.error: BaseException | None = None

    def report(self, digest: Digest | None, done: int, total: int | None) -> None:
        """Call the callback."""
        event = Progress(self._operation, digest, done, total)
        if self._callback is None or event == self._last:
            return
        self._last = event
        try:
            self._callback(event)
        except BaseException as error:
            self.error = error
            raise

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and self.error is not None and error is not self.error:
            raise self.error
