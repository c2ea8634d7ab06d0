"""Every example in the README and the docs runs, and every link between them leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
# The how-tos want a registry: tests/real/test_howto.py runs them.
RUN_HERE = [page for page in PAGES if page.parent.name != "howto"]


def _blocks() -> list[object]:
    found: list[object] = []
    for page in RUN_HERE:
        for match in re.finditer(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
            line = page.read_text()[: match.start()].count("\n") + 2
            name = f"{page.relative_to(ROOT)}:{line}"
            found.append(pytest.param("\n" * (line - 1) + match[1], str(page), id=name))
    return found


@pytest.mark.parametrize(("source", "page"), _blocks())
def test_example_runs(source: str, page: str) -> None:
    exec(compile(source, page, "exec"), {"__name__": "example"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_there_are_examples() -> None:
    assert len(_blocks()) > 5
