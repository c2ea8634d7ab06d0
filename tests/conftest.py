"""Fixtures for all tests, which isolate them from credentials and sleeps and detect leaked threads and files."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Generator, Iterator
from types import SimpleNamespace

import pytest

import ociwire._client.upload_completion
import ociwire.transfer._download
import ociwire.transport.retry
from tests._support.doubles import FakeClock
from tests._support.examples import load_profile
from tests._support.messages import recorder

load_profile()
recorder.install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Fail a test during which ociwire has created an error whose message is malformed; see `MessageRecorder`."""
    recorder.pop_violations()
    result = yield
    violations = recorder.pop_violations()
    assert not violations, "\n" + "\n".join(violations)
    return result


# Session scope, because a fixture per test would take seconds for fifteen thousand tests. Tests that change the same
# values use `monkeypatch`, which restores those that are set here.


@pytest.fixture(autouse=True, scope="session")
def _no_credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", "/nonexistent")
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_retry_waits() -> Iterator[None]:
    # default_transport() has no parameter for a sleep function, so the modules' name `time` is replaced.
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
    """Replace `time.monotonic` by a `FakeClock`."""
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Fail if the test leaves a thread running."""
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before, "threads are left"


@pytest.fixture
def no_files_left() -> Iterator[None]:
    """Fail if the test leaves a file descriptor open."""
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before, "file descriptors are left open"
