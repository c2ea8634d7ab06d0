"""Connections that a download can do without cost it nothing: they are refused, lost, stalled, and it goes well."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ociwire.transfer._fetch
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
from ociwire.transfer._progress import Progress
from ociwire.transfer._source import PATIENCE
from ociwire.transfer._verifier import Verifier
from tests._support.download_world import Link, Place, linked
from tests._support.fault_world import blob

SIZE = 400_000
PART = 8000


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, blob(1, SIZE))


@pytest.fixture
def link(place: Place, monkeypatch: pytest.MonkeyPatch) -> Link:
    """Each connection is limited: several pay."""
    return linked(place, monkeypatch, shared=False)


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


# Stalled


@pytest.mark.parametrize("error", [None, TransportTimeout("timed out"), ReadError("reset")])
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize(
    ("which", "pieces"),
    [(2, 0), (2, 1), (2, 4), (2, 7), (1, 6), (3, 1)],
    ids=["before a verdict", "within the window", "later", "at a part's end", "the first stream", "another one"],
)
def test_a_stalled_connection_holds_nothing_up(
    place: Place, link: Link, which: int, pieces: int, workers: int, error: BaseException | None
) -> None:
    done, stalling = threading.Event(), []

    def change(number: int, request: Request, response: Response) -> Response:
        if number != which:
            return response
        stalling.append(Stalling(response, link, pieces, done, error))
        return response.replace(body=stalling[-1])

    def look(event: Progress) -> None:
        if event.done == SIZE:
            done.set()

    tampered(place, change)
    place.download(workers=workers, part_size=PART, progress=look)
    place.check()
    assert stalling[0].pieces < 0


def test_a_second_connection_that_trickles_is_given_up_with_all_of_its_part(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = linked(place, monkeypatch, shared=True)
    tampered(place, lambda number, request, response: response)
    place.download(workers=4, part_size=100_000)
    place.check()
    assert link.most == 2
    assert len(place.requests) == 3  # all of it; the second part; what is left from where that was given up


# Refused and lost


REFUSALS = [Response(429), Response(503), Response(403), ConnectError("no"), ReadError("reset"), AuthError("no token")]


@pytest.mark.parametrize("refusal", [*REFUSALS, ProtocolError("odd"), TransportTimeout("late")], ids=repr)
@pytest.mark.parametrize("allowed", [1, 2])
def test_a_connection_too_many_ends_alone(
    place: Place, link: Link, refusal: Response | OciwireError, allowed: int
) -> None:
    """The caller's thread is always answered; of the others so many are, the rest never."""
    answered: set[int] = set()
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
def test_helpers_that_lose_their_connection_leave_it_to_the_first(place: Place, link: Link, pieces: int) -> None:
    gone = threading.Event()
    gone.set()

    def change(number: int, request: Request, response: Response) -> Response:
        if is_caller():
            return response
        return response.replace(body=Stalling(response, link, pieces, gone, TransportTimeout("lost")))

    tampered(place, change)
    place.download(workers=4, part_size=PART)
    place.check()


def test_no_thread_to_be_had(place: Place, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def refuse(self: threading.Thread) -> None:
        if len(started) > 1:  # the hashing one, and the second stream
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    place.download(workers=4, part_size=PART)
    place.check()
    assert link.most == 2


def test_where_there_can_be_no_mark_there_is_one_stream(place: Place, link: Link) -> None:
    place.mark.mkdir()
    place.download(workers=4, part_size=PART)
    assert place.target.read_bytes() == place.content
    assert sorted(os.listdir(place.folder)) == [place.mark.name, "blob.bin"]
    assert len(place.requests) == 2


# What ends it all the same


@pytest.mark.parametrize("error", [TransportTimeout("mine"), ReadError("mine"), OSError("mine"), StopIteration("mine")])
def test_what_progress_raises_in_a_helper_ends_it(place: Place, link: Link, error: BaseException) -> None:
    def refuse(event: Progress) -> None:
        if not is_caller():
            raise error

    with pytest.raises(type(error)) as caught:
        place.download(workers=4, part_size=PART, progress=refuse)
    assert caught.value is error
    place.check_not_done()


def test_a_disk_that_is_full_for_a_helper_ends_it(place: Place, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, hashing = os.pwrite, 20

    def full(descriptor: int, data: Any, offset: int) -> int:
        if not is_caller() and len(data) != hashing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        place.download(workers=4, part_size=PART)
    place.check_not_done()


@pytest.mark.parametrize("error", [SizeMismatch("long", expected=1, actual=2), LookupError("foreign"), SystemExit(1)])
def test_what_is_no_lost_connection_ends_it(place: Place, link: Link, error: BaseException) -> None:
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


def test_the_first_streams_error_ends_it(place: Place, link: Link) -> None:
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


def test_nothing_is_asked_for_once_it_is_over(place: Place, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper waits for its connection as another thread fails; the connection is lost only then."""
    over, asked, end = threading.Event(), [0], Verifier.end

    def ended(self: Verifier) -> None:
        end(self)
        if not over.is_set():
            asked[0] = len(place.requests)
            over.set()

    def change(number: int, request: Request, response: Response) -> Response:
        return response.replace(body=Stalling(response, link, 3, over, ReadError("lost"))) if number == 2 else response

    def interrupt(event: Progress) -> None:
        if is_caller() and len(place.requests) > 1 and event.done > 5 * PART:
            raise KeyboardInterrupt

    monkeypatch.setattr(Verifier, "end", ended)
    tampered(place, change)
    with pytest.raises(KeyboardInterrupt):
        place.download(workers=2, part_size=PART, progress=interrupt)
    assert len(place.requests) == asked[0]
    place.check_not_done()


# Bounds


@pytest.mark.parametrize(("given", "helpers"), [(None, PATIENCE), (3.0, 3.0), (600, 600)])
def test_helpers_are_waited_for_less_long(place: Place, link: Link, given: float | None, helpers: float) -> None:
    seen: dict[bool, set[Any]] = {True: set(), False: set()}

    def change(number: int, request: Request, response: Response) -> Response:
        seen[is_caller()].add(request.info.timeout)
        return response

    tampered(place, change)
    place.client = place.client.with_options(timeout=given)
    place.download(workers=4, part_size=PART)
    assert seen == {True: {given}, False: {helpers}}


def test_there_are_no_more_workers_than_parts(place: Place, link: Link) -> None:
    place.download(workers=10**6, part_size=50_000)
    place.check()
    assert 2 < link.most <= SIZE // 50_000


def test_one_stream_does_not_care_for_small_parts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ociwire.transfer._fetch, "time", SimpleNamespace(monotonic=lambda: 0.0))
    events: list[Progress] = []
    place.download(workers=1, part_size=1, progress=events.append)
    place.check()
    assert place.requests == ["GET"]
    assert len(events) < 20
