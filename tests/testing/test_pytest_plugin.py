"""The fixtures `oci_registry` and `oci_registry_url`, which pytest finds by an entry point."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

TESTS = """
import urllib.request

from ociwire import Client, Descriptor


def test_registry_is_in_memory(oci_registry):
    index = oci_registry.seed("team/app:v1", platforms=["linux/amd64", "linux/arm64"]).root
    assert Client("registry.example", oci_registry).resolve_tag("team/app", "v1") == index


def test_registry_is_empty_for_each_test(oci_registry):
    assert list(Client("registry.example", oci_registry).repositories()) == []


def test_url_serves_the_same_registry(oci_registry, oci_registry_url):
    Client("registry.example", oci_registry).push_blob("team/app", b"hello")
    with Client(oci_registry_url.host, insecure=True) as client:
        assert client.get_blob("team/app", Descriptor.of(b"hello")).read() == b"hello"
    assert urllib.request.urlopen(oci_registry_url + "/v2/").status == 200
"""


def run(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=folder, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_plugin_fixtures_work(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(TESTS)
    assert "3 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py", folder=tmp_path)


def test_plugin_is_an_entry_point() -> None:
    [point] = entry_points(group="pytest11", name="ociwire")
    assert point.value == "ociwire._pytest_plugin"


def test_plugin_imports_only_pytest_before_a_fixture_is_used(tmp_path: Path) -> None:
    script = """
import sys, pytest
before = set(sys.modules)
import ociwire._pytest_plugin
print(*sorted(name for name in set(sys.modules) - before if name.startswith("ociwire")))
assert not {"urllib3", "ssl", "http.client"} & (set(sys.modules) - before)
"""
    allowed = {
        "ociwire",
        "ociwire._lazy",
        "ociwire._pytest_plugin",
        "ociwire._text",
        "ociwire._version",
        "ociwire.errors",
    }
    assert set(run("-c", script, folder=tmp_path).split()) == allowed
