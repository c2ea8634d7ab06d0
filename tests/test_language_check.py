"""The check of phrases in ``.ci/language.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def language() -> ModuleType:
    spec = importlib.util.spec_from_file_location("language", Path(__file__).parent.parent / ".ci" / "language.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "text",
    [
        "# followed as nobody\n",
        "The registry says no.\n",
        '"""Goes\n    on with an upload."""\n',
        "# the client goes on\n    # with the upload\n",
        'raise UsageError(f"not a media type: {text}")\n',
        '    """What a layer did."""\n',
    ],
)
def test_findings_phrase_is_found(language: ModuleType, tmp_path: Path, text: str) -> None:
    path = tmp_path / "example.py"
    path.write_text(f"first line\n{text}")
    [line] = language.findings(path)
    assert line.startswith(f"{path}:2: ")
    assert ": write: " in line


@pytest.mark.parametrize(
    "text", ["# says nobody  # language: ok", "<!-- nobody: language: ok -->", "Return the descriptor of a blob.", ""]
)
def test_findings_other_text_is_accepted(language: ModuleType, tmp_path: Path, text: str) -> None:
    path = tmp_path / "example.md"
    path.write_text(text)
    assert language.findings(path) == []


def test_main_directory_checks_its_committed_files(
    language: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "example.md"
    path.write_text("Nobody.")
    monkeypatch.setattr(language, "committed_files", lambda directory: [path] if directory == str(tmp_path) else [])
    monkeypatch.setattr("sys.argv", ["language.py", str(tmp_path)])
    assert language.main() == 1
    assert "1 phrases found" in capsys.readouterr().out


def test_main_exit_status_says_whether_phrases_were_found(
    language: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "example.md"
    monkeypatch.setattr("sys.argv", ["language.py", str(path)])
    path.write_text("Nobody.")
    assert language.main() == 1
    assert "1 phrases found" in capsys.readouterr().out
    path.write_text("Anonymous.")
    assert language.main() == 0
    assert capsys.readouterr().out == "no phrases found\n"


def test_excluded_paths_exist(language: ModuleType) -> None:
    root = Path(__file__).parent.parent
    assert [path for path in language.EXCLUDED if not list(root.glob(f"{path.rstrip('/')}*"))] == []
