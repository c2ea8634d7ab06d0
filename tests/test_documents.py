"""The examples in the README, the docs and the docstrings run, and links between pages are valid."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

import ociwire

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]
# Examples that require a registry are run by tests/integration/test_howto.py.
RUN_HERE = [page for page in PAGES if page.parent.name != "howto" or "localhost:5000" not in page.read_text()]


def _blocks(page: Path) -> list[str]:
    """Return the examples of a page, each padded to its line number."""
    text = page.read_text()
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return ["\n" * (text[: block.start()].count("\n") + 1) + block[1] for block in blocks]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the files that the examples use."""
    folder = tmp_path_factory.mktemp("examples")
    ca = trustme.CA()
    client = ca.issue_cert("client@registry.example")
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
    client.private_key_pem.write_to_path(str(folder / "client.key"))
    return folder


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_examples_run(page: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    names: dict[str, object] = {"__name__": "example"}
    for source in _blocks(page):
        exec(compile(source, str(page), "exec"), names)  # an example may use the names of earlier ones


def _with_examples() -> list[str]:
    modules = pkgutil.walk_packages(ociwire.__path__, "ociwire.")
    names = ["ociwire", *(module.name for module in modules if not module.name.endswith("__main__"))]
    return [name for name in names if ">>> " in Path(importlib.util.find_spec(name).origin).read_text("utf-8")]  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("name", _with_examples())
def test_docstring_examples_run(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_readme_picture_matches_code() -> None:
    drawn = subprocess.run(
        [sys.executable, ROOT / "docs" / "_ext" / "drawing.py"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert (ROOT / "docs" / "images" / "stack.svg").read_text() == drawn.stdout


@pytest.mark.parametrize("module", ["ociwire", "ociwire.auth", "ociwire.transfer", "ociwire.testing"])
def test_reference_lists_every_public_name(module: str) -> None:
    entries = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = set(re.findall(rf"\.\. (?:auto(?!module)|py:)\w+:: {re.escape(module)}\.(\w+)$", entries, re.MULTILINE))
    assert listed == set(importlib.import_module(module).__all__) - {"__version__"}


def test_pages_have_examples() -> None:
    assert sum(len(_blocks(page)) for page in RUN_HERE) > 10
