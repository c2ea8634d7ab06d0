"""What a transfer tells of itself while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import final

from .._oci.digest import Digest

__all__ = ["Progress", "ProgressCallback", "Teller"]


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer of one blob or manifest is.

    Attributes:
        operation: ``download``, ``upload`` or ``copy``.
        digest: What is transferred; None as long as nobody knows, as in an upload whose content is still being hashed.
        done: How many bytes are done; what was there before counts as done.
        total: How many there are in all; None where nobody knows.
    """

    operation: str
    digest: Digest | None
    done: int
    total: int | None


ProgressCallback = Callable[[Progress], object]
"""Called with each event, from any thread, one at a time for each digest; what it raises ends the transfer."""


@final
class Teller:
    """Tells of progress, and keeps what that has raised: between the content and the wire it may not stay what it was.

    A generator makes a RuntimeError of a StopIteration, and whoever bears the faults of a network might bear the
    caller's. A context manager: what was raised by a call within leaves it as it was raised.

    Args:
        progress: Who is told; None is nobody.

    Attributes:
        raised: What it has raised; None if nothing.
    """

    def __init__(self, progress: ProgressCallback | None) -> None:
        self._progress = progress
        self.raised: BaseException | None = None

    def __call__(self, event: Progress) -> None:
        """Tell of an event."""
        if self._progress is None:
            return
        try:
            self._progress(event)
        except BaseException as error:
            self.raised = error
            raise

    def __enter__(self) -> Teller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.raised is not None and error is not self.raised:
            raise self.raised
