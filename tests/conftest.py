"""Fixtures for all tests: no credentials of the machine are read, no retry waits, and checks for leftover resources."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import ociwire._client.upload_completion
import ociwire.transfer._download
import ociwire.transport.retry
from tests._support.doubles import FakeClock
from tests._support.examples import load_profile

load_profile()


# Once for the session: a fixture for each of fifteen thousand tests would take seconds. A test that changes any of this
# uses `monkeypatch`, which restores what is set here.


@pytest.fixture(autouse=True, scope="session")
def _no_credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", "/nonexistent")
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_retry_waits() -> Iterator[None]:
    # Patched, not injected: hundreds of tests get a RetryTransport from default_transport(), whose parameters are
    # public and have no place for a sleep function. Only the modules' name for `time` is replaced.
    clock = SimpleNamespace(sleep=lambda seconds: None, time=lambda: time.time(), monotonic=lambda: time.monotonic())
    with pytest.MonkeyPatch.context() as patch:
        for module in (ociwire.transport.retry, ociwire._client.upload_completion):
            patch.setattr(module, "time", clock)
        yield


@pytest.fixture(autouse=True, scope="session")
def _downloads_start_helpers_at_once() -> Iterator[None]:
    # A registry in memory is fast: without this no test would use several connections.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ociwire.transfer._download, "_ALONE_SECONDS", 0.0)
        patch.setattr(ociwire.transfer._download, "_FAST_RATE", math.inf)
        yield


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """A `FakeClock` in place of `time.monotonic`."""
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Fail the test if a thread that it started is alive at its end."""
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before, "threads are left"


@pytest.fixture
def no_files_left() -> Iterator[None]:
    """Fail the test if it leaves a file descriptor open."""
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before, "file descriptors are left open"
