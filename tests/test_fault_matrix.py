"""Every operation with every fault at each of its requests: the result is correct, or a documented error is raised.

The table in docs/faults.md is generated from the results. ``OCIWIRE_WRITE_DOCS=1`` writes it. Otherwise the test fails
if the page differs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ociwire.errors import OciwireError
from tests._support.fault_world import (
    COLD,
    FAULT_NAMES,
    Numbered,
    World,
    check_done,
    check_whole,
    faults_of,
    operations,
    warm,
)

PAGE = Path(__file__).parent.parent / "docs" / "faults.md"
BEGIN, END = "<!-- The matrix is written by tests/test_fault_matrix.py. -->\n", "<!-- Here it ends. -->\n"
OPERATIONS = operations()
MOST_REQUESTS = 40
OK, UNVERIFIED = "✓", "(✓)"
# Content without a digest cannot be verified: a flipped byte is detected only if it breaks the JSON. TLS prevents it.
UNVERIFIABLE = ("get_blob_range", "tags", "repositories", "referrers")


def outcome_of(operation: str, fault: str, number: int) -> str | None:
    """Return the outcome of an operation whose request with this number fails, or None if it has no such request."""
    world, where = World(), Numbered(number)
    world.fail(rate=1.0, faults=[faults_of(world)[fault]], where=where)
    if not operation.endswith(COLD):
        warm(world)
    where.begin()
    run, expected = OPERATIONS[operation]
    try:
        result = run(world)
    except OciwireError as error:
        outcome = type(error).__name__
    else:
        outcome = UNVERIFIED if fault == "flipped byte" and operation in UNVERIFIABLE else OK
        assert outcome == UNVERIFIED or result == expected(world), f"wrong, after request {number} met: {fault}"
        check_done(operation, world)
    assert not world.watch.open, f"a response is left open after request {number} met: {fault}"
    check_whole(world)
    return outcome if world.faults.injected else None


def outcomes_of(operation: str, fault: str) -> Iterator[str]:
    """Return the outcomes of an operation, one for each of its requests."""
    for number in range(MOST_REQUESTS):
        outcome = outcome_of(operation, fault, number)
        if outcome is None:
            assert number > 0, "no request was made"
            return
        yield outcome
    pytest.fail(f"more than {MOST_REQUESTS} requests")


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, str], str]:
    """Results of the tests below."""
    return {}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", FAULT_NAMES)
def test_operation_under_fault_succeeds_or_raises(
    operation: str, fault: str, cells: dict[tuple[str, str], str]
) -> None:
    found = set(outcomes_of(operation, fault))
    cells[operation, fault] = " ".join(sorted(found, key=lambda outcome: (outcome.isalpha(), outcome)))


def test_page_has_table_of_results(cells: dict[tuple[str, str], str]) -> None:
    if len(cells) < len(OPERATIONS) * len(FAULT_NAMES):
        pytest.skip("not all of the cells were run")
    rows = [["", *FAULT_NAMES], ["---"] * (1 + len(FAULT_NAMES))]
    rows += [[operation, *(cells[operation, fault] for fault in FAULT_NAMES)] for operation in OPERATIONS]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page = f"{before}{BEGIN}\n{table}\n{END}{after}"
    if os.environ.get("OCIWIRE_WRITE_DOCS") == "1":
        PAGE.write_text(page)
    assert PAGE.read_text() == page
