"""A call that has started threads returns when they have ended, and not before, whatever interrupts it."""

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
from tests._support.download_world import Place
from tests._support.fault_world import blob

pytestmark = pytest.mark.usefixtures("no_threads_left")

INTERRUPTS = [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), TimeoutError("a test's")]


def interrupting(monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]) -> None:
    """Joining is interrupted so often, one after the other."""
    join = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if interrupts:
            raise interrupts.pop(0)
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    # A thread that has ended is joined, too, so that the interrupts do not depend on its speed.
    monkeypatch.setattr(threading.Thread, "is_alive", lambda self: self.ident is not None)


@pytest.mark.parametrize("interrupts", [INTERRUPTS[:1], INTERRUPTS[1:2], INTERRUPTS, INTERRUPTS[::-1]], ids=len)
def test_join_interrupted_waits_and_raises_the_first(
    monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]
) -> None:
    gate, expected = threading.Event(), interrupts[0]
    pool = WorkerPool("test", on_cancel=gate.set)
    for _ in range(3):
        pool.start(lambda: gate.wait(30))
    interrupting(monkeypatch, list(interrupts))
    with pytest.raises(type(expected)) as caught:
        pool.join()
    assert caught.value is expected
    assert gate.is_set()
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
    gate, called = threading.Event(), []

    def stop() -> None:
        called.append(1)
        if len(called) == 1:
            raise SystemExit(2)
        gate.set()

    pool = WorkerPool("test", on_cancel=stop)
    pool.start(lambda: gate.wait(30))
    interrupting(monkeypatch, [KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        pool.join()
    assert len(called) == 2


def test_join_returns_early_waits_for_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CPython's does before 3.13, once it has been interrupted: it returns at once."""
    gate, ended = threading.Event(), []

    def work() -> None:
        gate.wait(30)
        ended.append(1)

    class Waited:
        def wait(self, timeout: float) -> None:
            gate.set()

    pool = WorkerPool("test")
    pool.start(work)
    real = threading
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: None)
    monkeypatch.setattr(ociwire.transfer._workers, "threading", SimpleNamespace(enumerate=real.enumerate, Event=Waited))
    pool.join()
    assert ended == [1]


def test_join_signal_waits_for_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    joining, gate, ended, me = threading.Event(), threading.Event(), [], threading.get_ident()
    join = threading.Thread.join

    def handler(number: int, frame: FrameType | None) -> None:
        raise SystemExit(number)

    def work() -> None:
        joining.wait(30)
        signal.pthread_kill(me, signal.SIGUSR1)
        gate.wait(30)
        ended.append(1)

    def seen(self: threading.Thread, timeout: float | None = None) -> None:
        joining.set()
        join(self, timeout)

    pool = WorkerPool("test", on_cancel=gate.set)
    pool.start(work)
    monkeypatch.setattr(threading.Thread, "join", seen)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(SystemExit):
            pool.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended == [1]


# Those that use it


@pytest.mark.parametrize("interrupts", [INTERRUPTS[:1], INTERRUPTS[1:3], INTERRUPTS], ids=len)
def test_pool_interrupted_ends_all_threads(monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]) -> None:
    pool, waiting = WorkerPool("test", 3), threading.Barrier(3)

    def work(item: int) -> None:
        waiting.wait(30)
        while True:
            pool.check()

    interrupting(monkeypatch, list(interrupts))
    with pytest.raises(type(interrupts[0])):
        pool.for_each(work, range(9))


def test_pool_thread_cannot_be_started_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, start = WorkerPool("test", 3), threading.Thread.start
    started: list[threading.Thread] = []

    def refuse(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    def work(item: int) -> None:
        while True:
            pool.check()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="start"):
        pool.for_each(work, range(9))


@pytest.mark.parametrize("interrupts", [INTERRUPTS[:1], INTERRUPTS[1:3], INTERRUPTS], ids=len)
def test_download_interrupted_ends_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]
) -> None:
    place: Any = Place(tmp_path, blob(7, 5000))
    interrupting(monkeypatch, list(interrupts))
    with pytest.raises(type(interrupts[0])) as caught:
        place.download(part_size=1000)
    assert caught.value is interrupts[0]
    place.check_not_done()


def test_join_start_interrupted_waits_for_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    go, done, start, pool = threading.Event(), threading.Event(), threading.Thread.start, WorkerPool("test")
    started: list[threading.Thread] = []

    def work() -> None:
        assert go.wait(30)
        done.set()

    def interrupted(self: threading.Thread) -> None:
        if not started:
            started.append(self)
            start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    for _ in range(2):  # one has started before the interrupt, the other has not
        with pytest.raises(KeyboardInterrupt):
            pool.start(work)
    go.set()
    pool.join()
    assert done.is_set()
    assert not started[0].is_alive()


def test_join_thread_has_ident_and_is_starting_does_not_raise() -> None:
    """As after an interrupt in the middle of a start: such a thread cannot be joined yet."""

    class Starting(threading.Thread):
        ident = 1

    pool = WorkerPool("test")
    pool._threads.append(Starting())
    pool.join()
    assert pool._threads == []


def test_hashing_thread_start_interrupted_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    start, before = threading.Thread.start, set(threading.enumerate())

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    hashing = HashingThread("sha256")
    with pytest.raises(KeyboardInterrupt):
        hashing.start()
    hashing.stop()
    remaining = set(threading.enumerate()) - before
    for thread in remaining:
        thread.join(30)
        assert not thread.is_alive()


def test_transfer_locks_are_entered_in_one_step() -> None:
    # `with condition` enters and leaves its lock in two steps each, and so does an Event within; a signal's exception
    # between them keeps it locked for ever. A plain lock is entered in one.
    for path in Path(ociwire.transfer.__file__).parent.glob("*.py"):
        text = path.read_text()
        for name in re.findall(r"self\.(\w+) = threading\.Condition\(", text):
            assert f"with self.{name}:" not in text, path
        assert not re.search(r"self\.\w+ = threading\.Event\(", text), path
