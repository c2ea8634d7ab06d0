"""What holds for every test: nobody's own credentials get into it, and no retry waits."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

import ociwire.transport.retry
from tests._support.doubles import FakeClock


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(sleep=lambda seconds: None, time=lambda: time.time(), monotonic=lambda: time.monotonic())
    monkeypatch.setattr(ociwire.transport.retry, "time", clock)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """In the place of `time.monotonic`."""
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock
