"""Number of Hypothesis examples: a third in normal runs, and all of them in the slow run of ``.ci/run``."""

from __future__ import annotations

import os

from hypothesis import settings

__all__ = ["ARE_ALL", "example_count", "load_profile"]

ARE_ALL = os.environ.get("OCIWIRE_EXAMPLES") == "all"
_DIVISOR = 3


def example_count(number: int) -> int:
    """Return the number of examples in this run for a test with `number` examples in a complete run."""
    return number if ARE_ALL else max(number // _DIVISOR, 1)


def load_profile() -> None:
    """Load the default profile. It has no deadline, because tests do not measure time."""
    settings.register_profile("ociwire", max_examples=example_count(100), deadline=None)
    settings.load_profile("ociwire")
