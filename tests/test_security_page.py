"""Every row of SECURITY.md names existing test modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
MODULE = re.compile(r"`(tests/[^`\s:]+/test_[a-z0-9_]+\.py|tests/test_[a-z0-9_]+\.py)`")


def table_rows() -> list[list[str]]:
    """Return the cells of all rows of a table, without the header rows."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] != "Tests" and set("".join(row)) != {"-"}]


def test_security_page_has_rows() -> None:
    assert len(table_rows()) > 50


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: row[0][:40])
def test_security_page_row_names_modules_that_exist(row: list[str]) -> None:
    assert len(row) == 3, "expected three cells: is there a | within one?"
    assert all(row)
    modules = MODULE.findall(row[2])
    assert modules
    assert MODULE.sub("", row[2]).strip(", ") == "", "expected nothing but modules of the form `tests/FILE.py`"
    assert [module for module in modules if not (ROOT / module).is_file()] == []
