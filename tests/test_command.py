"""The command: what a person sees, where it goes, and the exit status."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from ociwire import __version__
from ociwire.__main__ import main
from ociwire._demonstration import serve_blobs

DIGEST = "sha256:" + "0" * 64


def test_without_arguments_a_blob_goes_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    for method, status in (("POST", "202 Accepted"), ("PUT", "201 Created"), ("HEAD", "200 OK"), ("GET", "200 OK")):
        told = re.search(rf"^  {method} http://127\.0\.0\.1:\d+/v2/\S+\n((?:    .*\n)+)", said, re.MULTILINE)
        assert told, said
        layers = [line.split()[0] for line in told[1].splitlines()]
        assert layers == [
            "Client",
            "RetryTransport",
            "RedirectTransport",
            "HeadersTransport",
            "AuthTransport",
            "UrllibTransport",
        ]
        assert all(re.search(rf"{status} +\d+\.\d ms", line) for line in told[1].splitlines())
    assert "sent 3145728 bytes" in said
    assert "Expect: 100-continue" in said


def test_the_wire_pulls_nothing_before_the_server_asked(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    match = re.search(r"the first after (\d+\.\d) ms", capsys.readouterr().out)
    assert match
    assert float(match[1]) > 0


def test_explain_tells_what_the_registry_says(capsys: pytest.CaptureFixture[str]) -> None:
    with serve_blobs() as host:
        assert main(["explain", "--insecure", f"{host}/team/app@{DIGEST}"]) == 1
    said = capsys.readouterr()
    assert f"HEAD http://{host}/v2/team/app/manifests/{DIGEST}" in said.out
    assert said.out.count("404 Not Found") == 6
    assert f"credentials for {host}: nobody (no Docker configuration is there: " in said.out
    assert "404 Not Found" in said.err


def test_explain_tells_why_there_is_no_connection(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--insecure", "127.0.0.1:1/app"]) == 1
    said = capsys.readouterr()
    assert "ConnectError" in said.out
    assert "cannot connect to http://127.0.0.1:1" in said.err


@pytest.mark.parametrize("reference", ["", "Upper:case:twice", "app@sha256:short"])
def test_a_bad_reference_is_a_usage_error(reference: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", reference]) == 2
    assert "not a" in capsys.readouterr().err


def test_it_is_installed_as_a_module() -> None:
    said = subprocess.run([sys.executable, "-m", "ociwire", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"ociwire {__version__}\n"


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    process = subprocess.Popen([sys.executable, "-u", "-m", "ociwire"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=30)
    assert said == b""
    assert process.returncode == 1
