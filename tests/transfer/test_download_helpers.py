"""Downloads whose additional connections are refused, lost or stalled: the download completes with the others."""

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
from tests._support.download_world import BandwidthLimiter, DownloadWorld, limit_bandwidth
from tests._support.fault_world import blob

pytestmark = pytest.mark.usefixtures("no_threads_left")

SIZE = 400_000
PART = 8000


@pytest.fixture
def world(tmp_path: Path) -> DownloadWorld:
    return DownloadWorld(tmp_path, blob(1, SIZE))


@pytest.fixture
def limiter(world: DownloadWorld) -> BandwidthLimiter:
    return limit_bandwidth(world)


class StallingBody:
    """Body that stalls after `pieces` reads until `resume` is set. It then continues, or raises `error`."""

    def __init__(
        self, inner: Any, limiter: BandwidthLimiter, pieces: int, resume: threading.Event, error: BaseException | None
    ) -> None:
        self._inner, self._limiter, self.pieces, self._resume, self._error = inner, limiter, pieces, resume, error

    def readinto(self, buffer: memoryview) -> int:
        self.pieces -= 1
        if self.pieces == -1:
            self._limiter.close(id(self._inner._reader))  # so that the other connections do not wait for this one
            assert self._resume.wait(30), "the download waits for a stalled connection"
            if self._error is not None:
                raise self._error
        return int(self._inner.readinto(buffer))

    def close(self) -> None:
        self._inner.close()


def modify_gets(world: DownloadWorld, modify: Callable[[int, Request, Response], Response]) -> None:
    """Modify the responses to GET requests, which are numbered from 1."""
    before, numbers, lock = world.modify_response, iter(range(1, 10_000)), threading.Lock()

    def modify_response(request: Request, response: Response) -> Response:
        if request.method != "GET":
            return response
        with lock:
            number = next(numbers)
        return modify(number, request, before(request, response))

    world.modify_response = modify_response


def is_caller() -> bool:
    return threading.current_thread() is threading.main_thread()


# Lost connections


@pytest.mark.parametrize("error", [TransportTimeout("timed out"), ReadError("reset")], ids=repr)
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize(("failing_request", "pieces"), [(2, 0), (2, 1), (2, 4), (2, 7), (3, 1), (5, 3), (9, 7)])
def test_download_helper_connection_lost_others_receive_the_rest(
    world: DownloadWorld, failing_request: int, pieces: int, workers: int, error: BaseException
) -> None:
    lost, resume = [], threading.Event()
    resume.set()
    limiter = limit_bandwidth(world, connections=2)

    def modify(number: int, request: Request, response: Response) -> Response:
        if is_caller() or number < failing_request or lost:
            return response
        lost.append(StallingBody(response, limiter, pieces, resume, error))
        return response.replace(body=lost[0])

    modify_gets(world, modify)
    world.download(workers=workers, part_size=PART)
    world.check_complete()
    assert lost[0].pieces < 0


def test_download_helper_loses_last_part_caller_receives_it(world: DownloadWorld) -> None:
    """The caller's thread has received its part, and waits for parts that the helper may release."""
    lost = threading.Event()
    limiter = limit_bandwidth(world, connections=2)

    def modify(number: int, request: Request, response: Response) -> Response:
        if is_caller() or lost.is_set():
            return response
        return response.replace(body=StallingBody(response, limiter, 3, lost, ReadError("reset")))

    def report(event: Progress) -> None:
        if event.done >= SIZE // 2:
            lost.set()

    modify_gets(world, modify)
    world.download(workers=2, part_size=SIZE // 2, progress=report)
    world.check_complete()


# Refused requests and lost connections


REFUSALS = [
    Response(429),
    Response(503),
    Response(403),
    ConnectError("refused"),
    ReadError("reset"),
    AuthError("no token"),
]


@pytest.mark.parametrize("refusal", [*REFUSALS, ProtocolError("invalid"), TransportTimeout("late")], ids=repr)
@pytest.mark.parametrize("allowed", [1, 2])
def test_download_helper_refused_ends_only_that_helper(
    world: DownloadWorld, refusal: Response | OciwireError, allowed: int
) -> None:
    """The caller's thread and `allowed` helpers get responses. The requests of all other helpers are refused."""
    answered: set[int] = set()
    limiter = limit_bandwidth(world, connections=1 + allowed)
    throttle = world.modify_response

    def modify_response(request: Request, response: Response) -> Response:
        thread = threading.get_ident()
        if is_caller() or thread in answered or len(answered) < allowed:
            answered.update(() if is_caller() else (thread,))
            return throttle(request, response)
        response.close()
        if isinstance(refusal, Response):
            return refusal.replace()
        raise refusal

    world.modify_response = modify_response
    world.download(workers=4, part_size=PART)
    world.check_complete()
    assert limiter.max_open == 1 + allowed


@pytest.mark.parametrize("pieces", [0, 1, 5, 8])
def test_download_all_helpers_lost_caller_receives_the_rest(
    world: DownloadWorld, limiter: BandwidthLimiter, pieces: int
) -> None:
    resume = threading.Event()
    resume.set()

    def modify(number: int, request: Request, response: Response) -> Response:
        if is_caller():
            return response
        return response.replace(body=StallingBody(response, limiter, pieces, resume, TransportTimeout("lost")))

    modify_gets(world, modify)
    world.download(workers=4, part_size=PART)
    world.check_complete()


def test_download_thread_start_fails_uses_fewer_workers(
    world: DownloadWorld, limiter: BandwidthLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def fail(self: threading.Thread) -> None:
        if len(started) > 1:  # the hashing thread and one helper
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", fail)
    world.download(workers=4, part_size=PART)
    world.check_complete()
    assert limiter.max_open == 2


def test_download_footer_cannot_be_written_uses_one_connection(
    world: DownloadWorld, limiter: BandwidthLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def fail(descriptor: int, data: Any, offset: int) -> int:
        if offset >= SIZE:
            raise OSError(errno.EFBIG, "File too large")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fail)
    world.download(workers=4, part_size=PART)
    world.check_complete()
    assert world.requests == ["GET"]


# Errors that end the download


@pytest.mark.parametrize(
    "error",
    [
        TransportTimeout("from the callback"),
        ReadError("from the callback"),
        OSError("from the callback"),
        StopIteration("from the callback"),
    ],
)
def test_download_progress_raises_in_helper_ends_the_download(
    world: DownloadWorld, limiter: BandwidthLimiter, error: BaseException
) -> None:
    def fail(event: Progress) -> None:
        if not is_caller():
            raise error

    with pytest.raises(type(error)) as caught:
        world.download(workers=4, part_size=PART, progress=fail)
    assert caught.value is error
    world.check_incomplete()


def test_download_disk_full_in_helper_ends_the_download(
    world: DownloadWorld, limiter: BandwidthLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def pwrite_to_full_disk(descriptor: int, data: Any, offset: int) -> int:
        if not is_caller() and offset < SIZE:  # the footer, which begins at SIZE, can still be written
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite_to_full_disk)
    with pytest.raises(OSError, match="No space left"):
        world.download(workers=4, part_size=PART)
    world.check_incomplete()


@pytest.mark.parametrize("error", [SizeMismatch("long", expected=1, actual=2), LookupError("foreign"), SystemExit(1)])
def test_download_helper_other_error_ends_the_download(
    world: DownloadWorld, limiter: BandwidthLimiter, error: BaseException
) -> None:
    resume = threading.Event()
    resume.set()

    def modify(number: int, request: Request, response: Response) -> Response:
        if is_caller():
            return response
        return response.replace(body=StallingBody(response, limiter, 3, resume, error))

    modify_gets(world, modify)
    with pytest.raises(type(error)) as caught:
        world.download(workers=4, part_size=PART)
    assert caught.value is error
    world.check_incomplete()


def test_download_callers_connection_fails_ends_the_download(world: DownloadWorld, limiter: BandwidthLimiter) -> None:
    resume = threading.Event()
    resume.set()

    def modify(number: int, request: Request, response: Response) -> Response:
        if not is_caller():
            return response
        return response.replace(body=StallingBody(response, limiter, 5, resume, TransportTimeout("late")))

    modify_gets(world, modify)
    with pytest.raises(TransportTimeout):
        world.download(workers=2, part_size=PART)
    world.check_incomplete()


# After an error


def test_download_after_an_error_sends_no_more_requests(
    world: DownloadWorld, limiter: BandwidthLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper waits for its response while another thread fails, and then loses the connection."""
    cancelled, request_count, cancel = threading.Event(), [0], WorkerPool.cancel

    def record_cancel(self: WorkerPool, error: BaseException) -> None:
        cancel(self, error)
        if not cancelled.is_set():
            request_count[0] = len(world.requests)
            cancelled.set()

    def modify(number: int, request: Request, response: Response) -> Response:
        return (
            response.replace(body=StallingBody(response, limiter, 3, cancelled, ReadError("lost")))
            if number == 2
            else response
        )

    def interrupt(event: Progress) -> None:
        if is_caller() and len(world.requests) > 1 and event.done > 3 * PART:
            raise KeyboardInterrupt

    monkeypatch.setattr(WorkerPool, "cancel", record_cancel)
    modify_gets(world, modify)
    with pytest.raises(KeyboardInterrupt):
        world.download(workers=2, part_size=PART, progress=interrupt)
    assert len(world.requests) == request_count[0]
    world.check_incomplete()


# Start of helpers


@pytest.mark.parametrize(
    ("seconds_per_part", "starts_helpers"),
    [
        ([0.005] * 50, False),
        ([0.25] + [0.0] * 49, True),
        ([0.05] * 50, True),
        ([0.005] * 45 + [0.3] * 5, True),
    ],
    ids=["fast", "slow at first", "slow", "slow after a fast start"],
)
def test_download_starts_helpers_only_if_one_connection_is_slow(
    world: DownloadWorld,
    monkeypatch: pytest.MonkeyPatch,
    clock: FakeClock,
    seconds_per_part: list[float],
    starts_helpers: bool,
) -> None:
    """Here a connection is fast above 1 MB/s, which is a part of 8,000 bytes in less than 8 ms."""
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
    world.download(workers=4, part_size=PART, progress=report)
    world.check_complete()
    assert len(started) == (4 if starts_helpers else 0), "expected the hashing thread and three helpers"


# Bounds


@pytest.mark.parametrize(("timeout_option", "helper_timeout"), [(None, _HELPER_TIMEOUT), (3.0, 3.0), (600, 600)])
def test_download_helpers_have_a_shorter_timeout(
    world: DownloadWorld, limiter: BandwidthLimiter, timeout_option: float | None, helper_timeout: float
) -> None:
    timeouts: dict[bool, set[Any]] = {True: set(), False: set()}

    def modify(number: int, request: Request, response: Response) -> Response:
        timeouts[is_caller()].add(request.info.timeout)
        return response

    modify_gets(world, modify)
    world.client = world.client.with_options(timeout=timeout_option)
    world.download(workers=4, part_size=PART)
    assert timeouts == {True: {timeout_option}, False: {helper_timeout}}


def test_download_uses_at_most_one_worker_per_part(world: DownloadWorld, limiter: BandwidthLimiter) -> None:
    world.download(workers=10**6, part_size=50_000)
    world.check_complete()
    assert 2 < limiter.max_open <= SIZE // 50_000


def test_download_one_worker_ignores_the_part_size(world: DownloadWorld) -> None:
    events: list[Progress] = []
    world.download(workers=1, part_size=1, progress=events.append)
    world.check_complete()
    assert world.requests == ["GET"]
    assert len(events) < 20
