"""Run the code of the how-to pages against docker-registry, in their reading order."""

from __future__ import annotations

import re
from pathlib import Path

HOWTO = Path(__file__).parent.parent.parent / "docs" / "howto"
ORDER = ["push.md", "pull.md", "list.md", "resume.md"]


def test_howto_pages_with_registry_are_all_listed() -> None:
    pages = [page.name for page in HOWTO.glob("*.md") if "localhost:5000" in page.read_text()]
    assert sorted(pages) == sorted(ORDER)


def test_howto_pages_run_against_registry(registry_host: str) -> None:
    for name in ORDER:
        text = (HOWTO / name).read_text()
        names: dict[str, object] = {"__name__": "howto"}
        blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
        assert blocks, name
        for block in blocks:
            line = text[: block.start()].count("\n") + 1
            source = "\n" * line + block[1].replace("localhost:5000", registry_host)
            exec(compile(source, f"docs/howto/{name}", "exec"), names)
