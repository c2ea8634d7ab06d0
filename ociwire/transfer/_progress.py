"""Progress events of transfers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import final

from .._oci.digest import Digest

__all__ = ["Progress", "ProgressCallback", "ProgressReporter"]


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """How far the transfer of one blob or manifest is.

    Attributes:
        operation: ``download``, ``upload`` or ``copy``.
        digest: Digest of the content; `None` while it is not known, as in an upload that is still being hashed.
        done: Number of bytes that are done, including those that were there before.
        total: Number of all bytes; `None` if it is not known.
    """

    operation: str
    digest: Digest | None
    done: int
    total: int | None


ProgressCallback = Callable[[Progress], object]
"""Called with each event, from any thread, one call at a time for each digest. An exception that it raises ends the
transfer."""


@final
class ProgressReporter:
    """Calls the progress callback, if there is one, and raises its exception unchanged from the ``with`` block.

    On the way there, a generator turns StopIteration into RuntimeError, and a retry would tolerate a TransportError.
    """

    def __init__(self, callback: ProgressCallback | None, operation: str) -> None:
        self._callback = callback
        self._operation = operation
        self.error: BaseException | None = None

    def report(self, digest: Digest | None, done: int, total: int | None) -> None:
        """Call the callback."""
        if self._callback is None:
            return
        try:
            self._callback(Progress(self._operation, digest, done, total))
        except BaseException as error:
            self.error = error
            raise

    def has_raised(self, error: BaseException) -> bool:
        """Whether an exception is the one that the callback raised."""
        return error is self.error

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.error is not None and error is not self.error:
            raise self.error


@final
class ProgressTracker:
    """The progress of one upload. Its events never go back, although bytes may be sent again."""

    def __init__(self, reporter: ProgressReporter, digest: Digest | None, total: int | None) -> None:
        self._reporter = reporter
        self._event = (digest, -1, total)

    def advance(self, position: int) -> None:
        """Report that all bytes up to a position were sent."""
        digest, done, total = self._event
        position = position if total is None else min(position, total)
        if position > done:
            self._report(digest, position, total)

    def finish(self, digest: Digest, size: int) -> None:
        """Report that the upload is complete, unless the last event did."""
        if self._event != (digest, size, size):
            self._report(digest, size, size)

    def has_raised(self, error: BaseException) -> bool:
        """Whether an exception is the one that the callback raised."""
        return self._reporter.has_raised(error)

    def _report(self, digest: Digest | None, done: int, total: int | None) -> None:
        self._event = (digest, done, total)
        self._reporter.report(digest, done, total)
