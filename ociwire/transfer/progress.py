"""What a transfer tells of itself while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from ..digest import Digest

__all__ = ["Progress", "ProgressCallback"]


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
