"""One errand at a time: who leads, who waits, and what becomes of a leader that fails."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ociwire.auth import _single_flight
from ociwire.auth._single_flight import SingleFlight
from ociwire.errors import AuthError, AuthTimeout, CredentialsRejected, TransportTimeout
from tests._support.doubles import PATIENCE, Call, FakeClock


class Gate:
    """A fetch that begins, and ends when it is let."""

    def __init__(self, outcome: object = "brought") -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()
        self.outcome = outcome
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.opened.wait(PATIENCE), "nobody opened the gate"
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Bench:
    """Flights whose finds are counted, so that a test knows who waits."""

    def __init__(self) -> None:
        self.flights: SingleFlight = SingleFlight("a thing")
        self.kept: dict[object, object] = {}
        self.looked = threading.Semaphore(0)

    def fetch(
        self, fetch: Callable[[], Any], errand: str = "errand", lane: str = "lane", deadline: float | None = None
    ) -> Any:
        def find() -> Any:
            self.looked.release()
            return self.kept.get(errand)

        def keep() -> Any:
            value = fetch()
            self.kept[errand] = value
            return value

        return self.flights.fetch(lane, errand, find, keep, deadline)

    def start(self, fetch: Callable[[], Any], **where: Any) -> Call:
        return Call(lambda: self.fetch(fetch, **where))

    def lead(self, gate: Gate, **where: Any) -> Call:
        """One who is on the way."""
        call = self.start(gate, **where)
        assert gate.begun.wait(PATIENCE)
        assert self.looked.acquire(timeout=PATIENCE)
        return call

    def wait(self, fetch: Callable[[], Any], number: int = 1, **where: Any) -> list[Call]:
        """Those who come while somebody is on the way: they have looked, and found nothing."""
        calls = [self.start(fetch, **where) for _ in range(number)]
        for _ in calls:
            assert self.looked.acquire(timeout=PATIENCE)
        return calls


@pytest.fixture
def bench() -> Bench:
    return Bench()


def never() -> Any:
    raise AssertionError("this one should have waited")


def test_what_is_found_is_not_fetched(bench: Bench) -> None:
    bench.kept["errand"] = "there"
    assert bench.fetch(never) == "there"


def test_what_is_not_found_is_fetched_once(bench: Bench) -> None:
    assert bench.fetch(lambda: "brought") == "brought"
    assert bench.fetch(never) == "brought"


def test_one_fetches_and_the_others_wait(bench: Bench) -> None:
    gate = Gate()
    leader = bench.lead(gate)
    waiters = bench.wait(never, 5)
    assert all(waiter.alive for waiter in waiters)
    gate.opened.set()
    assert [call.join().result for call in (leader, *waiters)] == ["brought"] * 6
    assert gate.calls == 1


def test_of_many_at_once_one_fetches(bench: Bench) -> None:
    barrier = threading.Barrier(8)
    fetched = []

    def fetch() -> str:
        fetched.append(threading.get_ident())
        return "brought"

    def at_once() -> Any:
        barrier.wait(PATIENCE)
        return bench.fetch(fetch)

    calls = [Call(at_once) for _ in range(8)]
    assert [call.join().result for call in calls] == ["brought"] * 8
    assert len(fetched) == 1


def test_other_lanes_run_at_once(bench: Bench) -> None:
    barrier = threading.Barrier(4)

    def fetch() -> str:
        barrier.wait(PATIENCE)  # which nobody passes before all four are on the way
        return "brought"

    calls = [bench.start(fetch, lane=str(number), errand=str(number)) for number in range(4)]
    assert [call.join().result for call in calls] == ["brought"] * 4


def test_of_a_lane_one_errand_runs_at_a_time(bench: Bench) -> None:
    first, second = Gate("first"), Gate("second")
    second.opened.set()
    leader = bench.lead(first, errand="1")
    [waiter] = bench.wait(second, errand="2")
    assert not second.begun.is_set()
    first.opened.set()
    assert (leader.join().result, waiter.join().result) == ("first", "second")


def test_who_waits_for_another_errand_does_not_share_its_failure(bench: Bench) -> None:
    gate = Gate(AuthError("broken"))
    leader = bench.lead(gate, errand="1")
    [waiter] = bench.wait(lambda: "second", errand="2")
    gate.opened.set()
    assert isinstance(leader.join().error, AuthError)
    assert waiter.join().result == "second"


# --- failures ---


def test_a_failure_is_raised_in_all_who_wait_in_each_its_own(bench: Bench) -> None:
    cause = KeyError("why")
    failure = CredentialsRejected("refused", host="ghcr.io", realm="https://ghcr.io/token", status=401)
    failure.__cause__ = cause
    gate = Gate(failure)
    leader = bench.lead(gate)
    waiters = bench.wait(never, 4)
    gate.opened.set()
    assert leader.join().error is failure
    errors = [waiter.join().error for waiter in waiters]
    assert len({id(error) for error in (failure, *errors)}) == 5
    for error in errors:
        assert isinstance(error, CredentialsRejected)
        assert (str(error), error.host, error.realm, error.status) == ("refused", "ghcr.io", failure.realm, 401)
        assert error.__cause__ is cause
        assert error.__traceback__ is not failure.__traceback__
        assert "KeyError: 'why'" in "".join(traceback.format_exception(error))


def test_a_failure_is_not_kept(bench: Bench) -> None:
    gate = Gate(AuthError("broken"))
    gate.opened.set()
    with pytest.raises(AuthError, match="broken"):
        bench.fetch(gate)
    assert bench.fetch(lambda: "brought") == "brought"


class Uncopyable(Exception):
    """As strangers write them: not made of its `args`."""

    def __init__(self, host: str, status: int) -> None:
        super().__init__(f"{host}: {status}")


class Recursive(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be taken apart")


@pytest.mark.parametrize("failure", [Uncopyable("ghcr.io", 500), Recursive("deep")])
def test_an_exception_that_cannot_be_copied_is_raised_itself(bench: Bench, failure: Exception) -> None:
    gate = Gate(failure)
    leader = bench.lead(gate)
    waiters = bench.wait(never, 2)
    gate.opened.set()
    assert leader.join().error is failure
    assert [waiter.join().error for waiter in waiters] == [failure, failure]


@pytest.mark.parametrize("killed_by", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_leader_that_was_killed_is_replaced(bench: Bench, killed_by: type[BaseException]) -> None:
    gate, next_gate = Gate(killed_by()), Gate("brought by the next")
    next_gate.opened.set()
    leader = bench.lead(gate)
    waiters = bench.wait(next_gate, 3)
    gate.opened.set()
    assert isinstance(leader.join().error, killed_by)
    assert [waiter.join().result for waiter in waiters] == ["brought by the next"] * 3
    assert next_gate.calls == 1


# --- deadlines ---


def test_fetch_that_fails_after_its_deadline_is_repeated_by_a_waiting_thread(bench: Bench, clock: FakeClock) -> None:
    gate, next_gate = Gate(AuthTimeout("too late")), Gate("brought by the next")
    next_gate.opened.set()
    leader = bench.lead(gate, deadline=clock.now + 10)
    waiters = bench.wait(next_gate, 3)
    clock.now += 10.5
    gate.opened.set()
    assert isinstance(leader.join().error, AuthTimeout)
    assert [waiter.join().result for waiter in waiters] == ["brought by the next"] * 3
    assert next_gate.calls == 1


def test_a_leader_that_fails_before_its_deadline_is_not_replaced(bench: Bench) -> None:
    gate = Gate(AuthError("broken"))
    leader = bench.lead(gate, deadline=time.monotonic() + 3600)
    [waiter] = bench.wait(never)
    gate.opened.set()
    assert str(leader.join().error) == str(waiter.join().error) == "broken"


def test_a_waiter_waits_no_longer_than_its_deadline(bench: Bench) -> None:
    gate = Gate()
    leader = bench.lead(gate)
    [late] = bench.wait(never, deadline=time.monotonic() + 0.05)
    [too_late] = bench.wait(never, deadline=time.monotonic() - 1)
    [patient] = bench.wait(never, deadline=time.monotonic() + 3600)
    [boundless] = bench.wait(never, deadline=float("inf"))
    for call in (late.join(), too_late.join()):
        assert isinstance(call.error, AuthTimeout)
        assert isinstance(call.error, AuthError)
        assert isinstance(call.error, TransportTimeout)
        assert isinstance(call.error, TimeoutError)
        assert "a thing" in str(call.error)
    assert leader.alive
    gate.opened.set()
    assert [call.join().result for call in (leader, patient, boundless)] == ["brought"] * 3


def test_a_deadline_that_has_passed_stops_nobody_from_leading(bench: Bench) -> None:
    assert bench.fetch(lambda: "brought", deadline=time.monotonic() - 1) == "brought"


# --- re-entry ---


def test_an_errand_that_leads_back_to_itself_is_an_auth_error(bench: Bench) -> None:
    with pytest.raises(AuthError, match="a thing"):
        bench.fetch(lambda: bench.fetch(never))
    with pytest.raises(AuthError):
        bench.fetch(lambda: bench.fetch(never, errand="2"), errand="1")
    assert bench.fetch(lambda: "brought") == "brought"


def test_fetches_that_need_each_other_fail_instead_of_waiting(bench: Bench) -> None:
    """Two sources, each of which asks the other's registry, from two threads."""
    barrier = threading.Barrier(2)

    def needs(lane: str) -> Callable[[], Any]:
        def fetch() -> Any:
            barrier.wait(PATIENCE)
            return bench.fetch(lambda: "inner", lane=lane, errand=lane)

        return fetch

    first = bench.start(needs("2"), lane="1", errand="1")
    second = bench.start(needs("1"), lane="2", errand="2")
    errors = [call.join().error for call in (first, second)]
    assert any(isinstance(error, AuthError) and "requires a thing" in str(error) for error in errors)
    assert bench.fetch(lambda: "brought", lane="1", errand="3") == "brought"


def test_cycle_across_two_kinds_of_fetch_is_detected() -> None:
    credentials, tokens = Bench(), Bench()
    barrier = threading.Barrier(2)

    def needs(bench: Bench) -> Callable[[], Any]:
        def fetch() -> Any:
            barrier.wait(PATIENCE)
            return bench.fetch(lambda: "inner")

        return fetch

    first, second = credentials.start(needs(tokens)), tokens.start(needs(credentials))
    errors = [call.join().error for call in (first, second)]
    assert any(isinstance(error, AuthError) for error in errors)


def test_fetch_that_waits_for_its_own_thread_pool_ends_after_its_deadline(bench: Bench, clock: FakeClock) -> None:
    """The fetch waits for another thread, which waits for the fetch: no cycle that can be seen."""

    def fetch() -> Any:
        inner = bench.start(never, deadline=None)
        assert bench.looked.acquire(timeout=PATIENCE)
        clock.now += 12
        error = inner.join().error
        assert error is not None
        raise error

    clock.step = 0.01
    with pytest.raises(AuthTimeout, match="a thing"):
        bench.fetch(lambda: (bench.looked.acquire(timeout=PATIENCE), fetch())[1], deadline=clock.now + 10)


def test_wait_without_any_deadline_ends_after_two_minutes(bench: Bench, clock: FakeClock) -> None:
    gate = Gate()
    leader = bench.lead(gate)
    [waiter] = bench.wait(never)
    clock.now += 121
    assert isinstance(waiter.join().error, AuthTimeout)
    gate.opened.set()
    assert leader.join().result == "brought"


def test_fetch_interrupted_at_any_line_leaves_no_thread_waiting(bench: Bench) -> None:
    """A signal handler may raise between any two lines; a kept exception keeps the frames of the fetch."""
    kept: list[BaseException] = []
    source = Path(_single_flight.__file__).read_text("utf-8").splitlines()
    for number in range(1, 200):
        lines = itertools.count(1)

        def interrupt(frame: Any, event: str, _: Any, lines: Any = lines, number: int = number) -> Any:
            if frame.f_code.co_filename != _single_flight.__file__:
                return None
            # CPython handles signals after calls and at jumps, not where `with` leaves its block or `try` begins.
            line = source[frame.f_lineno - 1].strip()
            if event == "line" and not line.startswith(("with ", "try:")) and next(lines) == number:
                raise KeyboardInterrupt
            return interrupt

        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            bench.fetch(lambda: "brought", errand=f"interrupted {number}")
        except KeyboardInterrupt as error:
            kept.append(error)
        else:
            assert len(kept) > 10
            return
        finally:
            sys.settrace(before)
        assert bench.start(lambda: "brought", errand=f"next {number}").join().result == "brought"
    pytest.fail("the fetch has more lines than expected")


def test_an_errand_may_lead_to_another_lane(bench: Bench) -> None:
    assert bench.fetch(lambda: bench.fetch(lambda: "inner", lane="2", errand="2"), lane="1") == "inner"


def test_what_find_raises_leaves_nothing_under_way(bench: Bench) -> None:
    def find() -> Any:
        raise ValueError("find is broken")

    with pytest.raises(ValueError, match="find is broken"):
        bench.flights.fetch("lane", "errand", find, never, None)
    assert bench.fetch(lambda: "brought") == "brought"
