"""SECURITY.md names a test for each of its lines, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/[^`\s:]+\.py)::([^`]+)`")


@lru_cache
def named_in(path: str) -> frozenset[str]:
    """``name`` or ``Class::name`` of every test in a file, which is not imported."""
    found = set()
    for node in ast.parse((ROOT / path).read_text("utf-8"), path).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test_"))


def rows() -> list[list[str]]:
    """The cells of every line of a table, without the heads."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] != "Test" and set("".join(row)) != {"-"}]


def test_tests_are_found() -> None:
    assert "test_tests_are_found" in named_in("tests/test_security_page.py")
    assert "named_in" not in named_in("tests/test_security_page.py")
    assert "TestHeads::test_cut_off" in named_in("tests/wire/test_heads.py")
    assert len(rows()) > 50


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_every_threat_has_a_test_that_exists(row: list[str]) -> None:
    assert len(row) == 3, "a cell too many: a | within it?"
    assert all(row)
    named = NAMED.findall(row[2])
    assert named
    assert NAMED.sub("", row[2]).strip(", ") == "", "what is no test of the form `tests/FILE.py::NAME`"
    missing = [f"{path}::{name}" for path, name in named if name not in named_in(path)]
    assert not missing


def test_no_test_is_named_outside_of_the_tables() -> None:
    outside = "\n".join(line for line in PAGE.splitlines() if not line.startswith("|"))
    assert not NAMED.findall(outside)
