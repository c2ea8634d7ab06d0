"""Calls that start threads return only after all threads have ended, even if they are interrupted."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

import ociwire.transfer
import ociwire.transfer._workers
from ociwire.transfer._content import HashingThread
from ociwire.transfer._workers import WorkerPool
from tests._support.download_world import DownloadWorld
from tests._support.fault_world import blob

pytestmark = pytest.mark.usefixtures("no_threads_left")

INTERRUPTS = [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), TimeoutError("test")]


def interrupt_joins(monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]) -> None:
    """Make each of the next calls of `Thread.join` raise one of the interrupts."""
    join = threading.Thread.join

    def interrupted_call(self: threading.Thread, timeout: float | None = None) -> None:
        if interrupts:
            raise interrupts.pop(0)
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted_call)
    # So that ended threads are also joined, and the number of interrupts does not depend on timing.
    monkeypatch.setattr(threading.Thread, "is_alive", lambda self: self.ident is not None)


@pytest.mark.parametrize("interrupts", [INTERRUPTS[:1], INTERRUPTS[1:2], INTERRUPTS, INTERRUPTS[::-1]], ids=len)
def test_join_interrupted_waits_and_raises_the_first(
    monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]
) -> None:
    release, expected = threading.Event(), interrupts[0]
    pool = WorkerPool("test", on_cancel=release.set)
    for _ in range(3):
        pool.start(lambda: release.wait(30))
    interrupt_joins(monkeypatch, list(interrupts))
    with pytest.raises(type(expected)) as caught:
        pool.join()
    assert caught.value is expected
    assert release.is_set()
    assert pool._threads == []


def test_join_not_interrupted_does_not_cancel() -> None:
    pool = WorkerPool("test", on_cancel=lambda: pytest.fail("not called"))
    for _ in range(3):
        pool.start(int)
    pool.join()
    assert pool._threads == []
    assert not pool.cancelled


def test_join_thread_starts_another_waits_for_both() -> None:
    pool, ended = WorkerPool("test"), []

    def first() -> None:
        pool.start(lambda: ended.append("second"))
        ended.append("first")

    pool.start(first)
    pool.join()
    assert set(ended) == {"first", "second"}


def test_join_on_cancel_interrupted_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    release, calls = threading.Event(), []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit(2)
        release.set()

    pool = WorkerPool("test", on_cancel=stop)
    pool.start(lambda: release.wait(30))
    interrupt_joins(monkeypatch, [KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        pool.join()
    assert len(calls) == 2


def test_join_returns_early_waits_for_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before CPython 3.13, `Thread.join` returns at once after it was interrupted."""
    release, ended = threading.Event(), []

    def work() -> None:
        release.wait(30)
        ended.append(1)

    class FakeEvent:
        def wait(self, timeout: float) -> None:
            release.set()

    pool = WorkerPool("test")
    pool.start(work)
    real_threading = threading
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: None)
    monkeypatch.setattr(
        ociwire.transfer._workers, "threading", SimpleNamespace(enumerate=real_threading.enumerate, Event=FakeEvent)
    )
    pool.join()
    assert ended == [1]


def test_join_signal_waits_for_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    joining, release, ended, main_thread = threading.Event(), threading.Event(), [], threading.get_ident()
    join = threading.Thread.join

    def handler(number: int, frame: FrameType | None) -> None:
        raise SystemExit(number)

    def work() -> None:
        joining.wait(30)
        signal.pthread_kill(main_thread, signal.SIGUSR1)
        release.wait(30)
        ended.append(1)

    def recorded_join(self: threading.Thread, timeout: float | None = None) -> None:
        joining.set()
        join(self, timeout)

    pool = WorkerPool("test", on_cancel=release.set)
    pool.start(work)
    monkeypatch.setattr(threading.Thread, "join", recorded_join)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(SystemExit):
            pool.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended == [1]


# Users of the pool


@pytest.mark.parametrize("interrupts", [INTERRUPTS[:1], INTERRUPTS[1:3], INTERRUPTS], ids=len)
def test_pool_interrupted_ends_all_threads(monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]) -> None:
    pool, waiting = WorkerPool("test", 3), threading.Barrier(3)

    def work(item: int) -> None:
        waiting.wait(30)
        while True:
            pool.check()

    interrupt_joins(monkeypatch, list(interrupts))
    with pytest.raises(type(interrupts[0])):
        pool.for_each(work, range(9))


def test_pool_thread_cannot_be_started_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, start = WorkerPool("test", 3), threading.Thread.start
    started: list[threading.Thread] = []

    def fail_second_start(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    def work(item: int) -> None:
        while True:
            pool.check()

    monkeypatch.setattr(threading.Thread, "start", fail_second_start)
    with pytest.raises(RuntimeError, match="start"):
        pool.for_each(work, range(9))


@pytest.mark.parametrize("interrupts", [INTERRUPTS[:1], INTERRUPTS[1:3], INTERRUPTS], ids=len)
def test_download_interrupted_ends_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]
) -> None:
    world: Any = DownloadWorld(tmp_path, blob(7, 5000))
    interrupt_joins(monkeypatch, list(interrupts))
    with pytest.raises(type(interrupts[0])) as caught:
        world.download(part_size=1000)
    assert caught.value is interrupts[0]
    world.check_incomplete()


def test_join_start_interrupted_waits_for_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    release, done, start, pool = threading.Event(), threading.Event(), threading.Thread.start, WorkerPool("test")
    started: list[threading.Thread] = []

    def work() -> None:
        assert release.wait(30)
        done.set()

    def interrupted_call(self: threading.Thread) -> None:
        if not started:
            started.append(self)
            start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted_call)
    for _ in range(2):  # the first thread starts before the interrupt, the second does not
        with pytest.raises(KeyboardInterrupt):
            pool.start(work)
    release.set()
    pool.join()
    assert done.is_set()
    assert not started[0].is_alive()


def test_join_thread_is_starting_does_not_raise() -> None:
    """An interrupt during `Thread.start` leaves such a thread. It cannot be joined yet."""

    class Starting(threading.Thread):
        ident = 1

    pool = WorkerPool("test")
    pool._threads.append(Starting())
    pool.join()
    assert pool._threads == []


def test_hashing_thread_start_interrupted_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    start, before = threading.Thread.start, set(threading.enumerate())

    def interrupted_call(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted_call)
    hashing = HashingThread("sha256")
    with pytest.raises(KeyboardInterrupt):
        hashing.start()
    hashing.stop()
    remaining = set(threading.enumerate()) - before
    for thread in remaining:
        thread.join(30)
        assert not thread.is_alive()


def test_transfer_locks_are_entered_in_one_step() -> None:
    # `with condition`, and so each method of an Event, acquires and releases its lock in two steps. If a signal handler
    # raises between them, the lock is never released. A plain lock is acquired in one step.
    for path in Path(ociwire.transfer.__file__).parent.glob("*.py"):
        text = path.read_text()
        for name in re.findall(r"self\.(\w+) = threading\.Condition\(", text):
            assert f"with self.{name}:" not in text, path
        assert not re.search(r"self\.\w+ = threading\.Event\(", text), path
