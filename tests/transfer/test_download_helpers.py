"""Connections that a download can do without cost it nothing: they are refused, lost, stalled, and it goes well."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ociwire import Request, Response
from ociwire.errors import (
    AuthError,
    ConnectError,
    OciwireError,
    ProtocolError,
    ReadError,
    SizeMismatch,
    TransportTimeout,
)
from ociwire.transfer import _download
from ociwire.transfer._download import _HELPER_TIMEOUT
from ociwire.transfer._progress import Progress
from ociwire.transfer._workers import WorkerPool
from tests._support.doubles import FakeClock
from tests._support.download_world import Link, Place, limited
from tests._support.fault_world import blob

pytestmark = pytest.mark.usefixtures("no_threads_left")

SIZE = 400_000
PART = 8000


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, blob(1, SIZE))


@pytest.fixture
def link(place: Place) -> Link:
    return limited(place)


class Stalling:
    """A body that says nothing after so many pieces, until something has happened; then it goes on, or fails."""

    def __init__(
        self, inner: Any, link: Link, pieces: int, until: threading.Event, error: BaseException | None
    ) -> None:
        self._inner, self._link, self.pieces, self._until, self._error = inner, link, pieces, until, error

    def readinto(self, buffer: memoryview) -> int:
        self.pieces -= 1
        if self.pieces == -1:
            self._link.close(id(self._inner._reader))  # nobody's turn is after this one's
            assert self._until.wait(30), "the download waits for a connection that says nothing"
            if self._error is not None:
                raise self._error
        return int(self._inner.readinto(buffer))

    def close(self) -> None:
        self._inner.close()


def tampered(place: Place, change: Callable[[int, Request, Response], Response]) -> None:
    """Change the answers to GET, which are counted from 1."""
    before, numbers, lock = place.tamper, iter(range(1, 10_000)), threading.Lock()

    def tamper(request: Request, response: Response) -> Response:
        if request.method != "GET":
            return response
        with lock:
            number = next(numbers)
        return change(number, request, before(request, response))

    place.tamper = tamper


def is_caller() -> bool:
    return threading.current_thread() is threading.main_thread()


# Lost


@pytest.mark.parametrize("error", [TransportTimeout("timed out"), ReadError("reset")], ids=repr)
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize(("which", "pieces"), [(2, 0), (2, 1), (2, 4), (2, 7), (3, 1), (5, 3), (9, 7)])
def test_download_helper_connection_lost_others_receive_the_rest(
    place: Place, which: int, pieces: int, workers: int, error: BaseException
) -> None:
    lost, never = [], threading.Event()
    never.set()
    link = limited(place, connections=2)

    def change(number: int, request: Request, response: Response) -> Response:
        if is_caller() or number < which or lost:
            return response
        lost.append(Stalling(response, link, pieces, never, error))
        return response.replace(body=lost[0])

    tampered(place, change)
    place.download(workers=workers, part_size=PART)
    place.check()
    assert lost[0].pieces < 0


def test_download_helper_loses_the_last_part_the_caller_receives_it(place: Place) -> None:
    """The caller has nothing left to do, and waits for what the helper may give back."""
    lost = threading.Event()
    link = limited(place, connections=2)

    def change(number: int, request: Request, response: Response) -> Response:
        if is_caller() or lost.is_set():
            return response
        return response.replace(body=Stalling(response, link, 3, lost, ReadError("reset")))

    def look(event: Progress) -> None:
        if event.done >= SIZE // 2:
            lost.set()

    tampered(place, change)
    place.download(workers=2, part_size=SIZE // 2, progress=look)
    place.check()


# Refused and lost


REFUSALS = [Response(429), Response(503), Response(403), ConnectError("no"), ReadError("reset"), AuthError("no token")]


@pytest.mark.parametrize("refusal", [*REFUSALS, ProtocolError("odd"), TransportTimeout("late")], ids=repr)
@pytest.mark.parametrize("allowed", [1, 2])
def test_download_helper_refused_ends_alone(place: Place, refusal: Response | OciwireError, allowed: int) -> None:
    """The caller's thread is always answered; of the others so many are, the rest never."""
    answered: set[int] = set()
    link = limited(place, connections=1 + allowed)
    slow = place.tamper

    def tamper(request: Request, response: Response) -> Response:
        me = threading.get_ident()
        if is_caller() or me in answered or len(answered) < allowed:
            answered.update(() if is_caller() else (me,))
            return slow(request, response)
        response.close()
        if isinstance(refusal, Response):
            return refusal.replace()
        raise refusal

    place.tamper = tamper
    place.download(workers=4, part_size=PART)
    place.check()
    assert link.most == 1 + allowed


@pytest.mark.parametrize("pieces", [0, 1, 5, 8])
def test_download_all_helpers_lost_caller_receives_the_rest(place: Place, link: Link, pieces: int) -> None:
    gone = threading.Event()
    gone.set()

    def change(number: int, request: Request, response: Response) -> Response:
        if is_caller():
            return response
        return response.replace(body=Stalling(response, link, pieces, gone, TransportTimeout("lost")))

    tampered(place, change)
    place.download(workers=4, part_size=PART)
    place.check()


def test_download_no_more_threads_uses_fewer_workers(place: Place, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def refuse(self: threading.Thread) -> None:
        if len(started) > 1:  # the hashing one and one helper
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    place.download(workers=4, part_size=PART)
    place.check()
    assert link.most == 2


def test_download_footer_cannot_be_written_uses_one_connection(
    place: Place, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def refuse(descriptor: int, data: Any, offset: int) -> int:
        if offset >= SIZE:
            raise OSError(errno.EFBIG, "File too large")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    place.download(workers=4, part_size=PART)
    place.check()
    assert place.requests == ["GET"]


# What ends it all the same


@pytest.mark.parametrize("error", [TransportTimeout("mine"), ReadError("mine"), OSError("mine"), StopIteration("mine")])
def test_download_progress_raises_in_helper_ends_the_download(place: Place, link: Link, error: BaseException) -> None:
    def refuse(event: Progress) -> None:
        if not is_caller():
            raise error

    with pytest.raises(type(error)) as caught:
        place.download(workers=4, part_size=PART, progress=refuse)
    assert caught.value is error
    place.check_not_done()


def test_download_disk_full_in_helper_ends_the_download(
    place: Place, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def full(descriptor: int, data: Any, offset: int) -> int:
        if not is_caller() and offset < SIZE:  # behind them is the footer
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        place.download(workers=4, part_size=PART)
    place.check_not_done()


@pytest.mark.parametrize("error", [SizeMismatch("long", expected=1, actual=2), LookupError("foreign"), SystemExit(1)])
def test_download_helper_other_error_ends_the_download(place: Place, link: Link, error: BaseException) -> None:
    gone = threading.Event()
    gone.set()

    def change(number: int, request: Request, response: Response) -> Response:
        if is_caller():
            return response
        return response.replace(body=Stalling(response, link, 3, gone, error))

    tampered(place, change)
    with pytest.raises(type(error)) as caught:
        place.download(workers=4, part_size=PART)
    assert caught.value is error
    place.check_not_done()


def test_download_callers_connection_fails_ends_the_download(place: Place, link: Link) -> None:
    gone = threading.Event()
    gone.set()

    def change(number: int, request: Request, response: Response) -> Response:
        if not is_caller():
            return response
        return response.replace(body=Stalling(response, link, 5, gone, TransportTimeout("late")))

    tampered(place, change)
    with pytest.raises(TransportTimeout):
        place.download(workers=2, part_size=PART)
    place.check_not_done()


# After the end


def test_download_after_an_error_sends_nothing_more(place: Place, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper waits for its connection as another thread fails; the connection is lost only then."""
    over, asked, cancel = threading.Event(), [0], WorkerPool.cancel

    def ended(self: WorkerPool, error: BaseException) -> None:
        cancel(self, error)
        if not over.is_set():
            asked[0] = len(place.requests)
            over.set()

    def change(number: int, request: Request, response: Response) -> Response:
        return response.replace(body=Stalling(response, link, 3, over, ReadError("lost"))) if number == 2 else response

    def interrupt(event: Progress) -> None:
        if is_caller() and len(place.requests) > 1 and event.done > 3 * PART:
            raise KeyboardInterrupt

    monkeypatch.setattr(WorkerPool, "cancel", ended)
    tampered(place, change)
    with pytest.raises(KeyboardInterrupt):
        place.download(workers=2, part_size=PART, progress=interrupt)
    assert len(place.requests) == asked[0]
    place.check_not_done()


# When helpers start


@pytest.mark.parametrize(
    ("seconds_per_part", "helps"),
    [
        ([0.005] * 50, False),
        ([0.25] + [0.0] * 49, True),
        ([0.05] * 50, True),
        ([0.005] * 45 + [0.3] * 5, True),
    ],
    ids=["fast", "slow at first", "slow", "slow after a fast start"],
)
def test_download_starts_helpers_only_if_one_connection_is_slow(
    place: Place, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, seconds_per_part: list[float], helps: bool
) -> None:
    """One connection is fast above 1 MB/s here: a part of 8,000 bytes in less than 8 ms."""
    monkeypatch.setattr(_download, "_ALONE_SECONDS", 0.2)
    monkeypatch.setattr(_download, "_FAST_RATE", 1_000_000)
    seconds, started, start = iter(seconds_per_part), [], WorkerPool.start

    def report(event: Progress) -> None:
        if event.done and not started:
            clock.now += next(seconds)

    def record_start(self: WorkerPool, function: Callable[[], object]) -> None:
        started.append(function)
        start(self, function)

    monkeypatch.setattr(WorkerPool, "start", record_start)
    place.download(workers=4, part_size=PART, progress=report)
    place.check()
    assert len(started) == (4 if helps else 0), "one thread that hashes, and three helpers"


# Bounds


@pytest.mark.parametrize(("given", "helpers"), [(None, _HELPER_TIMEOUT), (3.0, 3.0), (600, 600)])
def test_download_helpers_have_a_shorter_timeout(place: Place, link: Link, given: float | None, helpers: float) -> None:
    seen: dict[bool, set[Any]] = {True: set(), False: set()}

    def change(number: int, request: Request, response: Response) -> Response:
        seen[is_caller()].add(request.info.timeout)
        return response

    tampered(place, change)
    place.client = place.client.with_options(timeout=given)
    place.download(workers=4, part_size=PART)
    assert seen == {True: {given}, False: {helpers}}


def test_download_has_no_more_workers_than_parts(place: Place, link: Link) -> None:
    place.download(workers=10**6, part_size=50_000)
    place.check()
    assert 2 < link.most <= SIZE // 50_000


def test_download_one_worker_ignores_the_part_size(place: Place) -> None:
    events: list[Progress] = []
    place.download(workers=1, part_size=1, progress=events.append)
    place.check()
    assert place.requests == ["GET"]
    assert len(events) < 20
