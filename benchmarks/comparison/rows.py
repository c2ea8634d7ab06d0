"""A row of the comparison: a feature, and the experiment that checks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.comparison.clients import Contender, NotOfferedError
from benchmarks.comparison.servers import Lab

Check = Callable[[type[Contender], Lab], bool | str]


@dataclass(frozen=True)
class Row:
    """A feature, its check, and footnotes by contender for results other than "yes"."""

    question: str
    check: Check
    notes: dict[str, str]


class Rows(list[Row]):
    """List of rows in the order of their functions."""

    def ask(self, question: str, notes: dict[str, str] | None = None) -> Callable[[Check], Check]:
        """Add the decorated function as the check of a row."""

        def add(check: Check) -> Check:
            self.append(Row(question, check, notes or {}))
            return check

        return add


def fails(function: Callable[[], object]) -> bool:
    """Return whether the function raises an exception. A missing feature is not a failure and passes through."""
    try:
        function()
    except NotOfferedError:
        raise
    except Exception:  # noqa: BLE001 - each package raises its own exceptions
        return True
    return False
