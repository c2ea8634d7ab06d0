"""Debian's docker-registry on a free loopback port, with its storage in a temporary directory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ATTEMPTS = 400
PAUSE = 0.05
"""Seconds between two attempts to reach the registry; all of them together are its time to start."""


@pytest.fixture(scope="session")
def registry_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``127.0.0.1:PORT`` of a registry that answers, for all tests of a session."""
    binary = shutil.which("docker-registry")
    if binary is None:
        reason = "docker-registry is not installed"
        if os.environ.get("OCIWIRE_REQUIRE_REGISTRY") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("registry")
    port = free_port()
    config = directory / "config.yml"
    config.write_text(json.dumps(configuration(directory, port)))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([binary, "serve", str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_for_answer(process, port, directory / "log")
            yield f"127.0.0.1:{port}"
        finally:
            stop(process)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def configuration(directory: Path, port: int) -> dict[str, object]:
    return {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "storage")},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
    }


def wait_for_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    never = threading.Event()
    for _ in range(ATTEMPTS):
        if answers(port):
            return
        if process.poll() is not None:
            break
        never.wait(PAUSE)
    pytest.fail(f"docker-registry does not answer; its log: {log.read_text('utf-8', 'replace')[-2000:]}")


def answers(port: int) -> bool:
    """Whether ``GET /v2/`` is answered 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return sock.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
