"""Whoever has started threads goes on when they have ended, and not before, whatever comes meanwhile."""

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
from ociwire.transfer._hashing import HashingThread
from ociwire.transfer._workers import WorkerPool, join_all
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


@pytest.mark.parametrize("interrupts", [INTERRUPTS[:1], INTERRUPTS[1:2], INTERRUPTS, INTERRUPTS[::-1]], ids=len)
def test_join_all_interrupted_waits_and_returns_the_first(
    monkeypatch: pytest.MonkeyPatch, interrupts: list[BaseException]
) -> None:
    gate, reported, expected = threading.Event(), [], interrupts[0]

    def stop(error: BaseException) -> None:
        reported.append(error)
        gate.set()

    threads = [threading.Thread(target=gate.wait, args=(30,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    interrupting(monkeypatch, list(interrupts))
    assert join_all(threads, stop) is expected
    assert reported == [expected]
    assert threads == []


def test_join_all_not_interrupted_returns_none() -> None:
    threads = [threading.Thread(target=int) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert join_all(threads, lambda error: pytest.fail("not called")) is None
    assert threads == []


def test_join_all_thread_starts_another_waits_for_both() -> None:
    threads: list[threading.Thread] = []
    ended: list[str] = []

    def second() -> None:
        ended.append("second")

    def first() -> None:
        other = threading.Thread(target=second)
        other.start()
        threads.append(other)
        ended.append("first")

    threads.append(threading.Thread(target=first))
    threads[0].start()
    join_all(threads, lambda error: None)
    assert set(ended) == {"first", "second"}


def test_join_all_on_error_interrupted_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, reported = threading.Event(), []

    def stop(error: BaseException) -> None:
        reported.append(error)
        if len(reported) == 1:
            raise SystemExit(2)
        gate.set()

    thread = threading.Thread(target=gate.wait, args=(30,))
    thread.start()
    interrupting(monkeypatch, [KeyboardInterrupt()])
    assert isinstance(join_all([thread], stop), KeyboardInterrupt)
    assert len(reported) == 2


def test_join_all_join_returns_early_waits_for_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CPython's does before 3.13, once it has been interrupted: it returns at once."""
    gate, ended = threading.Event(), []

    def work() -> None:
        gate.wait(30)
        ended.append(1)

    class Waited:
        def wait(self, timeout: float) -> None:
            gate.set()

    thread = threading.Thread(target=work)
    thread.start()
    real = threading
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: None)
    monkeypatch.setattr(ociwire.transfer._workers, "threading", SimpleNamespace(enumerate=real.enumerate, Event=Waited))
    join_all([thread], lambda error: None)
    assert ended == [1]


def test_join_all_signal_waits_for_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
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

    thread = threading.Thread(target=work)
    thread.start()
    monkeypatch.setattr(threading.Thread, "join", seen)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert isinstance(join_all([thread], lambda error: gate.set()), SystemExit)
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


def test_join_all_start_interrupted_waits_for_the_thread() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        assert go.wait(30)
        done.set()

    class Interrupted(threading.Thread):
        def start(self) -> None:
            super().start()
            raise KeyboardInterrupt

    thread, never = Interrupted(target=work), threading.Thread(target=work)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
    go.set()
    join_all([thread, never], lambda error: None)
    assert done.is_set()
    assert not thread.is_alive()


def test_hashing_thread_start_interrupted_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    start, before = threading.Thread.start, set(threading.enumerate())

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), HashingThread("sha256"):
        raise AssertionError("it was not entered")
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
