"""docs/registries.md lists every row of this folder. With ``OCIWIRE_WRITE_DOCS=1`` the test writes its tables."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from tests.field.rows import Row

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "registries.md"
BEGIN, END = "<!-- tests/field writes the tables from here. -->\n", "<!-- To here. -->\n"
MODULES = [importlib.import_module(f"tests.field.{path.stem}") for path in sorted(HERE.glob("test_*.py"))]
TABLES = [module for module in MODULES if hasattr(module, "ROWS")]


def cells(row: Row) -> tuple[str, ...]:
    origin = "tested against the server" if row.real else "reproduced from a report"
    return row.registry, row.behaviour, row.result, f"{row.source}, {origin}"


def table(rows: list[Row]) -> str:
    lines = [("Registry or tool", "Behaviour", "What ociwire does", "Source"), ("---",) * 4, *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def test_registries_page_lists_every_row() -> None:
    sections = "\n".join(f"## {module.TITLE}\n\n{table(module.ROWS)}" for module in TABLES)
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page = f"{before}{BEGIN}\n{sections}\n{END}{after}"
    if os.environ.get("OCIWIRE_WRITE_DOCS") == "1":
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page


def test_rows_of_every_module_have_unique_names() -> None:
    for module in TABLES:
        names = [row.name for row in module.ROWS]
        assert len(set(names)) == len(names) >= 4, module.__name__


def test_rows_have_source_link_and_fit_into_table() -> None:
    for row in (row for module in TABLES for row in module.ROWS):
        assert re.search(r"\[[^\]]+\]\(https://[^)\s]+\)", row.source), row.name
        assert not any("|" in cell or "\n" in cell for cell in cells(row)), row.name
