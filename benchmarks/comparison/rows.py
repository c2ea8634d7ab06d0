"""A row of the comparison: a question, and the experiment that settles it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.comparison.clients import Contender, NotOfferedError
from benchmarks.comparison.servers import Lab

Check = Callable[[type[Contender], Lab], bool | str]


@dataclass(frozen=True)
class Row:
    """A question, how it is settled, and what has to be said of a contender's answer unless it is yes."""

    question: str
    check: Check
    notes: dict[str, str]


class Rows(list[Row]):
    """Rows in the order in which their functions are written."""

    def ask(self, question: str, notes: dict[str, str] | None = None) -> Callable[[Check], Check]:
        """Make a row of the function that follows."""

        def add(check: Check) -> Check:
            self.append(Row(question, check, notes or {}))
            return check

        return add


def fails(function: Callable[[], object]) -> bool:
    """Whether it raises; what is not offered has not failed."""
    try:
        function()
    except NotOfferedError:
        raise
    except Exception:  # noqa: BLE001 - each has its own
        return True
    return False
