"""`SingleFlight`: one fetch at a time per group, shared results and failures, deadlines, signals and cycles."""

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


class BlockedFetch:
    """Fetch that blocks until the test releases it."""

    def __init__(self, outcome: object = "value") -> None:
        self.started = threading.Event()
        self.released = threading.Event()
        self.outcome = outcome
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        self.started.set()
        assert self.released.wait(PATIENCE), "the fetch was never released"
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Flight:
    """`SingleFlight` that counts cache lookups, so that a test can detect when a thread waits."""

    def __init__(self) -> None:
        self.single_flight = SingleFlight("a thing")
        self.cached: dict[object, object] = {}
        self.lookups = threading.Semaphore(0)

    def fetch(
        self, fetch: Callable[[], Any], key: str = "key", group: str = "group", deadline: float | None = None
    ) -> Any:
        def find() -> Any:
            self.lookups.release()
            return self.cached.get(key)

        def fetch_and_cache() -> Any:
            value = fetch()
            self.cached[key] = value
            return value

        return self.single_flight.fetch(group, key, find, fetch_and_cache, deadline)

    def start(self, fetch: Callable[[], Any], **options: Any) -> Call:
        return Call(lambda: self.fetch(fetch, **options))

    def start_owner(self, blocked: BlockedFetch, **options: Any) -> Call:
        """Start a call and wait until it runs its fetch."""
        call = self.start(blocked, **options)
        assert blocked.started.wait(PATIENCE)
        assert self.lookups.acquire(timeout=PATIENCE)
        return call

    def wait(self, fetch: Callable[[], Any], number: int = 1, **options: Any) -> list[Call]:
        """Start calls while another one runs, and wait until each has looked up the cache."""
        calls = [self.start(fetch, **options) for _ in range(number)]
        for _ in calls:
            assert self.lookups.acquire(timeout=PATIENCE)
        return calls


@pytest.fixture
def flight() -> Flight:
    return Flight()


def must_not_fetch() -> Any:
    raise AssertionError("fetched instead of waiting")


def test_fetch_cached_value_does_not_call_fetch(flight: Flight) -> None:
    flight.cached["key"] = "there"
    assert flight.fetch(must_not_fetch) == "there"


def test_fetch_missing_value_calls_fetch_once(flight: Flight) -> None:
    assert flight.fetch(lambda: "value") == "value"
    assert flight.fetch(must_not_fetch) == "value"


def test_fetch_while_running_waits_and_shares_result(flight: Flight) -> None:
    blocked = BlockedFetch()
    owner = flight.start_owner(blocked)
    waiting = flight.wait(must_not_fetch, 5)
    assert all(waiter.alive for waiter in waiting)
    blocked.released.set()
    assert [call.join().result for call in (owner, *waiting)] == ["value"] * 6
    assert blocked.calls == 1


def test_fetch_many_threads_calls_fetch_once(flight: Flight) -> None:
    barrier = threading.Barrier(8)
    fetched = []

    def fetch() -> str:
        fetched.append(threading.get_ident())
        return "value"

    def at_once() -> Any:
        barrier.wait(PATIENCE)
        return flight.fetch(fetch)

    calls = [Call(at_once) for _ in range(8)]
    assert [call.join().result for call in calls] == ["value"] * 8
    assert len(fetched) == 1


def test_fetch_other_groups_run_concurrently(flight: Flight) -> None:
    barrier = threading.Barrier(4)

    def fetch() -> str:
        barrier.wait(PATIENCE)  # no thread passes before all four fetch
        return "value"

    calls = [flight.start(fetch, group=str(number), key=str(number)) for number in range(4)]
    assert [call.join().result for call in calls] == ["value"] * 4


def test_fetch_same_group_runs_one_at_a_time(flight: Flight) -> None:
    first, second = BlockedFetch("first"), BlockedFetch("second")
    second.released.set()
    owner = flight.start_owner(first, key="1")
    [waiter] = flight.wait(second, key="2")
    assert not second.started.is_set()
    first.released.set()
    assert (owner.join().result, waiter.join().result) == ("first", "second")


def test_fetch_other_key_of_group_failed_fetches_itself(flight: Flight) -> None:
    blocked = BlockedFetch(AuthError("broken"))
    owner = flight.start_owner(blocked, key="1")
    [waiter] = flight.wait(lambda: "second", key="2")
    blocked.released.set()
    assert isinstance(owner.join().error, AuthError)
    assert waiter.join().result == "second"


# --- failures ---


def test_fetch_failed_raises_copy_in_each_waiting_thread(flight: Flight) -> None:
    cause = KeyError("why")
    failure = CredentialsRejected("refused", host="ghcr.io", realm="https://ghcr.io/token", status=401)
    failure.__cause__ = cause
    blocked = BlockedFetch(failure)
    owner = flight.start_owner(blocked)
    waiting = flight.wait(must_not_fetch, 4)
    blocked.released.set()
    assert owner.join().error is failure
    errors = [waiter.join().error for waiter in waiting]
    assert len({id(error) for error in (failure, *errors)}) == 5
    for error in errors:
        assert isinstance(error, CredentialsRejected)
        assert (str(error), error.host, error.realm, error.status) == ("refused", "ghcr.io", failure.realm, 401)
        assert error.__cause__ is cause
        assert error.__traceback__ is not failure.__traceback__
        assert "KeyError: 'why'" in "".join(traceback.format_exception(error))


def test_fetch_failed_is_not_cached(flight: Flight) -> None:
    blocked = BlockedFetch(AuthError("broken"))
    blocked.released.set()
    with pytest.raises(AuthError, match="broken"):
        flight.fetch(blocked)
    assert flight.fetch(lambda: "value") == "value"


class Uncopyable(Exception):
    """Exception whose constructor does not accept its `args`."""

    def __init__(self, host: str, status: int) -> None:
        super().__init__(f"{host}: {status}")


class Recursive(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be pickled")


@pytest.mark.parametrize("failure", [Uncopyable("ghcr.io", 500), Recursive("deep")])
def test_fetch_uncopyable_failure_raises_same_exception(flight: Flight, failure: Exception) -> None:
    blocked = BlockedFetch(failure)
    owner = flight.start_owner(blocked)
    waiting = flight.wait(must_not_fetch, 2)
    blocked.released.set()
    assert owner.join().error is failure
    assert [waiter.join().error for waiter in waiting] == [failure, failure]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_fetch_owner_interrupted_is_repeated_by_waiting_thread(flight: Flight, interrupt: type[BaseException]) -> None:
    blocked, repeated = BlockedFetch(interrupt()), BlockedFetch("repeated")
    repeated.released.set()
    owner = flight.start_owner(blocked)
    waiting = flight.wait(repeated, 3)
    blocked.released.set()
    assert isinstance(owner.join().error, interrupt)
    assert [waiter.join().result for waiter in waiting] == ["repeated"] * 3
    assert repeated.calls == 1


# --- deadlines ---


def test_fetch_failed_after_deadline_is_repeated_by_waiting_thread(flight: Flight, clock: FakeClock) -> None:
    blocked, repeated = BlockedFetch(AuthTimeout("too late")), BlockedFetch("repeated")
    repeated.released.set()
    owner = flight.start_owner(blocked, deadline=clock.now + 10)
    waiting = flight.wait(repeated, 3)
    clock.now += 10.5
    blocked.released.set()
    assert isinstance(owner.join().error, AuthTimeout)
    assert [waiter.join().result for waiter in waiting] == ["repeated"] * 3
    assert repeated.calls == 1


def test_fetch_failed_before_deadline_raises_in_waiting_thread(flight: Flight) -> None:
    blocked = BlockedFetch(AuthError("broken"))
    owner = flight.start_owner(blocked, deadline=time.monotonic() + 3600)
    [waiter] = flight.wait(must_not_fetch)
    blocked.released.set()
    assert str(owner.join().error) == str(waiter.join().error) == "broken"


def test_fetch_waiting_past_deadline_raises_timeout(flight: Flight) -> None:
    blocked = BlockedFetch()
    owner = flight.start_owner(blocked)
    [waiting_late] = flight.wait(must_not_fetch, deadline=time.monotonic() + 0.05)
    [too_late] = flight.wait(must_not_fetch, deadline=time.monotonic() - 1)
    [in_time] = flight.wait(must_not_fetch, deadline=time.monotonic() + 3600)
    [unbounded] = flight.wait(must_not_fetch, deadline=float("inf"))
    for call in (waiting_late.join(), too_late.join()):
        assert isinstance(call.error, AuthTimeout)
        assert isinstance(call.error, AuthError)
        assert isinstance(call.error, TransportTimeout)
        assert isinstance(call.error, TimeoutError)
        assert "a thing" in str(call.error)
    assert owner.alive
    blocked.released.set()
    assert [call.join().result for call in (owner, in_time, unbounded)] == ["value"] * 3


def test_fetch_deadline_passed_without_other_call_fetches(flight: Flight) -> None:
    assert flight.fetch(lambda: "value", deadline=time.monotonic() - 1) == "value"


# --- re-entry ---


def test_fetch_reentered_in_thread_raises_auth_error(flight: Flight) -> None:
    with pytest.raises(AuthError, match="a thing"):
        flight.fetch(lambda: flight.fetch(must_not_fetch))
    with pytest.raises(AuthError):
        flight.fetch(lambda: flight.fetch(must_not_fetch, key="2"), key="1")
    assert flight.fetch(lambda: "value") == "value"


def test_fetch_dependency_cycle_raises_auth_error(flight: Flight) -> None:
    """Two sources in two threads each need a credential of the other."""
    barrier = threading.Barrier(2)

    def fetch_from(group: str) -> Callable[[], Any]:
        def fetch() -> Any:
            barrier.wait(PATIENCE)
            return flight.fetch(lambda: "inner", group=group, key=group)

        return fetch

    first = flight.start(fetch_from("2"), group="1", key="1")
    second = flight.start(fetch_from("1"), group="2", key="2")
    errors = [call.join().error for call in (first, second)]
    assert any(isinstance(error, AuthError) and "requires a thing" in str(error) for error in errors)
    assert flight.fetch(lambda: "value", group="1", key="3") == "value"


def test_fetch_cycle_across_instances_raises_auth_error() -> None:
    credentials, tokens = Flight(), Flight()
    barrier = threading.Barrier(2)

    def fetch_from(flight: Flight) -> Callable[[], Any]:
        def fetch() -> Any:
            barrier.wait(PATIENCE)
            return flight.fetch(lambda: "inner")

        return fetch

    first, second = credentials.start(fetch_from(tokens)), tokens.start(fetch_from(credentials))
    errors = [call.join().error for call in (first, second)]
    assert any(isinstance(error, AuthError) for error in errors)


def test_fetch_depends_on_itself_through_other_thread_ends_after_deadline(flight: Flight, clock: FakeClock) -> None:
    """The fetch waits for a thread that waits for the fetch. Such a cycle cannot be detected."""

    def fetch() -> Any:
        inner = flight.start(must_not_fetch, deadline=None)
        assert flight.lookups.acquire(timeout=PATIENCE)
        clock.now += 12
        error = inner.join().error
        assert error is not None
        raise error

    clock.step = 0.01
    with pytest.raises(AuthTimeout, match="a thing"):
        flight.fetch(lambda: (flight.lookups.acquire(timeout=PATIENCE), fetch())[1], deadline=clock.now + 10)


def test_fetch_waiting_without_deadline_ends_after_two_minutes(flight: Flight, clock: FakeClock) -> None:
    blocked = BlockedFetch()
    owner = flight.start_owner(blocked)
    [waiter] = flight.wait(must_not_fetch)
    clock.now += 121
    assert isinstance(waiter.join().error, AuthTimeout)
    blocked.released.set()
    assert owner.join().result == "value"


def test_fetch_interrupted_at_any_line_leaves_no_thread_waiting(flight: Flight) -> None:
    """A signal handler can raise between any two lines. Stored exceptions keep the frames of the fetch alive."""
    cached: list[BaseException] = []
    source = Path(_single_flight.__file__).read_text("utf-8").splitlines()
    for number in range(1, 200):
        lines = itertools.count(1)

        def interrupt(frame: Any, event: str, _: Any, lines: Any = lines, number: int = number) -> Any:
            if frame.f_code.co_filename != _single_flight.__file__:
                return None
            # CPython handles signals after calls and at jumps, not at the end of a `with` block or at `try`.
            line = source[frame.f_lineno - 1].strip()
            if event == "line" and not line.startswith(("with ", "try:")) and next(lines) == number:
                raise KeyboardInterrupt
            return interrupt

        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            flight.fetch(lambda: "value", key=f"interrupted {number}")
        except KeyboardInterrupt as error:
            cached.append(error)
        else:
            assert len(cached) > 10
            return
        finally:
            sys.settrace(before)
        assert flight.start(lambda: "value", key=f"next {number}").join().result == "value"
    pytest.fail("the fetch has more lines than expected")


def test_fetch_interrupted_while_finishing_wakes_waiting_threads(
    flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts = [KeyboardInterrupt()]
    finish = _single_flight._Call.finish

    def interrupted_finish(call: _single_flight._Call) -> None:
        if interrupts:
            raise interrupts.pop()
        finish(call)

    monkeypatch.setattr(_single_flight._Call, "finish", interrupted_finish)
    blocked = BlockedFetch()
    owner = flight.start_owner(blocked)
    waiting = flight.wait(must_not_fetch, 2)
    blocked.released.set()
    assert isinstance(owner.join().error, KeyboardInterrupt)
    assert [waiter.join().result for waiter in waiting] == ["value"] * 2


def test_fetch_nested_in_other_group_returns(flight: Flight) -> None:
    assert flight.fetch(lambda: flight.fetch(lambda: "inner", group="2", key="2"), group="1") == "inner"


def test_fetch_find_raises_leaves_no_call(flight: Flight) -> None:
    def find() -> Any:
        raise ValueError("find failed")

    with pytest.raises(ValueError, match="find failed"):
        flight.single_flight.fetch("group", "key", find, must_not_fetch, None)
    assert flight.fetch(lambda: "value") == "value"
