"""Part arithmetic: whatever the size, the parts, the workers and the prefix, every byte is somebody's, once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire.transfer._parts import (
    BUFFER,
    LARGEST_PART,
    LEAST_PART,
    MEMORY,
    MOST_PARTS,
    MOST_WORKERS,
    SPARE_BUFFERS,
    STALLED,
    Claim,
    Plan,
    Written,
    buffer_size_for,
    next_reserve,
    part_size_for,
    workers_for,
)
from ociwire.transfer._probe import AGAIN, SILENCE, Probe, Stage, pays

MIB = 1024 * 1024


class Worker:
    """Reads its claim, up to some bytes at a time, from a stream that ends somewhere."""

    def __init__(self, claim: Claim, until: int) -> None:
        self.claim, self.until = claim, until
        self.reading = 0  # bytes that it waits for


def new_worker(plan: Plan, number: int, now: float, chance: random.Random) -> Worker | None:
    ahead = plan.ahead()
    if ahead is not None and chance.random() < 0.3:
        claim = plan.take_at(ahead, number, now)
    else:
        claim = plan.take(number, now) or plan.steal(number, now)
    if claim is None:
        return None
    return Worker(claim, claim.stop if chance.random() < 0.5 else plan.end_of_run(claim))


@given(
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.integers(1, 700),
    st.integers(1, 6),
    st.integers(1, 300),
    st.integers(0, 2**32),
)
def test_every_byte_once(prefix: int, left: int, part: int, workers: int, most: int, seed: int) -> None:
    """Whoever is slow, stalls, dies while it reads, or has its claim taken away."""
    chance, now = random.Random(seed), 0.0
    size = prefix + left
    plan, written, kept = Plan(prefix, size, part), Written(prefix), bytearray(size)
    at_work: dict[int, Worker] = {}
    while True:
        now += chance.choice([0.0, 0.1, STALLED])
        idle = [number for number in range(workers) if number not in at_work]
        if idle and (not at_work or chance.random() < 0.5):
            made = new_worker(plan, idle[0], now, chance)
            if made is not None:
                at_work[idle[0]] = made
            elif not at_work:
                break
        if not at_work:
            continue
        number = chance.choice(list(at_work))
        worker = at_work[number]
        if chance.random() < 0.02:  # it dies
            plan.give_back(number)
            del at_work[number]
        elif not worker.reading:
            stop = plan.reserve(worker.claim, most, worker.until)
            assert worker.claim.position <= stop <= min(max(worker.until, worker.claim.position), size)
            worker.reading = stop - worker.claim.position
            if not worker.reading:
                assert not plan.holds(worker.claim)
                del at_work[number]
        else:
            position = worker.claim.position
            count = plan.commit(worker.claim, chance.randint(1, worker.reading), now)  # a read may be short
            assert 0 <= count <= worker.reading
            worker.reading = 0
            for index in range(position, position + count):
                kept[index] += 1
            if count:
                written.add(position, position + count)
        if chance.random() < 0.5:
            before = written.front
            assert written.advance(most) == written.front - before <= most
            assert all(kept[before : written.front])
    while written.advance(most):
        pass
    assert kept == bytes(prefix) + b"\x01" * left
    assert written.front == size
    assert not plan.busy
    assert plan.take(0, now) is None
    assert plan.steal(0, now) is None


def test_a_lone_worker_goes_through_all_in_one_stream() -> None:
    plan = Plan(5, 1000, 10)
    claim = plan.take(0, 0.0)
    assert claim is not None
    reads = 0
    while (stop := plan.reserve(claim, 64, 1000)) > claim.position:
        plan.commit(claim, stop - claim.position, 0.0)
        reads += 1
    assert claim.position == 1000
    assert reads == 16  # not one for each part


def test_a_byte_that_is_somebodys_is_not_given_out_again() -> None:
    plan = Plan(0, 100, 10)
    assert plan.take_at(50, 0, 0.0) is not None
    assert plan.take_at(55, 1, 0.0) is None
    assert plan.take_at(100, 1, 0.0) is None


def test_who_has_nothing_to_do_takes_half_of_the_most() -> None:
    plan = Plan(0, 100, 100)
    first = plan.take(0, 0.0)
    assert first is not None
    assert plan.reserve(first, 1, 100) == 1
    assert plan.steal(1, 0.0) is None  # less than a part is left
    plan = Plan(0, 10 * MIB, 4 * MIB)
    claims = [plan.take(number, 0.0) for number in range(3)]
    first = claims[0]
    assert first is not None
    assert plan.reserve(first, MIB, 10 * MIB) == MIB
    assert plan.take(3, 0.0) is None
    stolen = plan.steal(3, 0.0)
    assert stolen is not None
    assert stolen.stop - stolen.start == 2 * MIB


def test_little_is_worth_a_request_where_it_takes_long() -> None:
    plan = Plan(0, MIB, 32 * MIB)
    slow = plan.take(1, 0.0)
    assert slow is not None
    plan.reserve(slow, 1000, MIB)
    plan.commit(slow, 1000, 1.5)  # at this rate, all of it takes a thousand times as long
    plan.reserve(slow, 1000, MIB)
    assert plan.steal(0, 1.5) is not None
    plan = Plan(0, MIB, 32 * MIB)
    fast = plan.take(1, 0.0)
    assert fast is not None
    plan.reserve(fast, 900_000, MIB)
    plan.commit(fast, 900_000, 1.5)
    plan.reserve(fast, 1000, MIB)
    assert plan.steal(0, 1.5) is None


def test_all_that_a_stalled_one_has_goes_to_others_who_are_waited_for_longer() -> None:
    plan = Plan(0, 1000, 1000)
    first = plan.take(1, 0.0)
    assert first is not None
    plan.reserve(first, 1000, 1000)
    assert plan.steal(0, STALLED - 0.1) is None  # all of it is being read
    second = plan.steal(0, STALLED)
    assert second is not None
    assert (second.start, second.stop) == (0, 1000)
    assert not plan.holds(first)
    assert plan.commit(first, 500, STALLED) == 0  # it comes too late
    assert plan.reserve(first, 100, 1000) == first.position
    plan.reserve(second, 1000, 1000)
    assert plan.steal(1, 2 * STALLED) is None
    assert plan.steal(1, 3 * STALLED) is not None


def test_what_is_given_back_is_one_with_what_is_free_around_it() -> None:
    plan = Plan(0, 100, 10)
    claim = plan.take_at(20, 1, 0.0)
    assert claim is not None
    plan.reserve(claim, 4, 30)
    plan.commit(claim, 4, 0.0)
    plan.give_back(1)
    plan.give_back(1)
    first = plan.take(0, 0.0)
    assert first is not None
    assert plan.end_of_run(first) == 20
    again = plan.take_at(24, 2, 0.0)
    assert again is not None
    assert (again.start, again.stop) == (24, 34)  # over where the claim had ended


@given(st.integers(0, 2**45), st.integers(1, 10_000))
def test_sizes_have_bounds(left: int, workers: int) -> None:
    assert LEAST_PART <= part_size_for(left, workers) <= LARGEST_PART
    size = buffer_size_for(left, workers)
    assert 1 <= size <= BUFFER
    assert size == 1 or size * (workers + SPARE_BUFFERS) <= MEMORY


@given(st.integers(0, 2**45), st.integers(1, 10**9), st.none() | st.integers(1, 2**40))
def test_workers_and_parts_have_bounds(left: int, wanted: int, part_size: int | None) -> None:
    workers = workers_for(left, wanted, part_size)
    size = part_size_for(left, workers, part_size)
    assert 1 <= workers <= min(wanted, MOST_WORKERS)
    assert workers == 1 or (workers - 1) * size < left
    assert part_size is None or left <= size * MOST_PARTS
    assert part_size is None or size == max(part_size, -(-left // MOST_PARTS))


@given(st.integers(1, BUFFER), st.integers(1, BUFFER), st.integers(0, BUFFER), st.integers(1, BUFFER))
def test_what_is_reserved_grows_and_shrinks_with_what_comes(reserved: int, got: int, missed: int, largest: int) -> None:
    assert 1 <= next_reserve(reserved, got, missed, largest) <= largest
    assert next_reserve(reserved, got, 1, BUFFER) <= 2 * got


def probe_with(alone: float, second: float, *, left: int = 1000 * MIB, step: float = 0.1) -> list[Stage]:
    """The stages of a probe, of a first stream that is so fast alone, and of both (in bytes a second)."""
    probe, now, found = Probe(4, left, 32 * MIB), 0.0, []
    both = False
    for _ in range(40):
        for stream in (0, 1) if both else (0,):
            stage = probe.sample(stream, now, int(step * (second / 2 if both else alone)))
            if stage is not None:
                found.append(stage)
            if stage is Stage.ASKED:
                probe.opened(now)
                both = True
        now += step
    assert probe.over
    return found


def test_a_second_stream_that_adds_to_the_first_pays() -> None:
    assert probe_with(10 * MIB, 20 * MIB) == [Stage.ASKED, Stage.MANY]


def test_a_second_stream_that_takes_from_the_first_does_not() -> None:
    assert probe_with(10 * MIB, 10 * MIB) == [Stage.ASKED, Stage.ONE]


def test_what_is_soon_over_is_not_probed() -> None:
    assert probe_with(2000 * MIB, 2000 * MIB) == [Stage.ONE]


def test_a_stream_in_bursts_is_measured_over_more_than_one() -> None:
    assert probe_with(MIB, 2 * MIB, step=1.0) == [Stage.ASKED, Stage.MANY]
    assert probe_with(MIB, MIB, step=1.0)[:2] == [Stage.ASKED, Stage.ONE]


def asked_at(rate: float, seconds: int, *, left: int = 10_000 * MIB) -> list[float]:
    """When a second stream is asked for that never adds anything to the first one's rate."""
    probe, found = Probe(4, left, 32 * MIB), []
    for tick in range(10 * seconds):
        now = tick / 10
        together = probe.stage is Stage.TOGETHER
        for stream in (0, 1) if together else (0,):
            if probe.sample(stream, now, int(rate / (20 if together else 10))) is Stage.ASKED:
                found.append(now)
                probe.opened(now)
    return found


def test_what_does_not_pay_is_tried_again_less_and_less_often() -> None:
    first, *others = asked_at(MIB, 120)
    assert first < 0.5
    gaps = [later - sooner for sooner, later in zip([first, *others], others, strict=False)]
    assert [round(gap) for gap in gaps] == [AGAIN, 2 * AGAIN, 4 * AGAIN, 8 * AGAIN]


def test_a_second_stream_that_came_too_late_is_tried_again() -> None:
    probe = Probe(4, 10_000 * MIB, 32 * MIB)
    assert [probe.sample(0, now, MIB) for now in (0.0, 0.3)] == [None, Stage.ASKED]
    probe.missed()
    probe.gone()  # its thread has ended
    assert (probe.stage, probe.final) == (Stage.ONE, False)
    assert [probe.sample(0, now, MIB) for now in (0.5, 0.5 + AGAIN)] == [None, Stage.ASKED]


def test_what_is_soon_over_is_not_tried_again() -> None:
    assert len(asked_at(10 * MIB, 60, left=100 * MIB)) == 1


def test_what_is_tried_again_is_judged_by_the_rate_that_it_has_had_since() -> None:
    probe = Probe(4, 10_000 * MIB, 32 * MIB)
    assert [probe.sample(0, now, 100 * MIB) for now in (0.0, 0.3)] == [None, Stage.ASKED]  # a burst
    probe.opened(0.3)
    for now in (0.4, 0.6):
        assert probe.sample(1, now, MIB) is None
    assert probe.sample(0, 0.7, MIB) is Stage.ONE
    assert [probe.sample(0, now, 10 * MIB) for now in (1.0, 2.0)] == [None, None]
    assert probe.sample(0, 1.0 + AGAIN, 40 * MIB) is Stage.ASKED  # 10 MiB a second
    probe.opened(6.0)
    assert probe.sample(1, 6.0, 0) is None
    assert probe.sample(0, 6.5, 5 * MIB) is None
    assert probe.sample(1, 7.0, 15 * MIB) is Stage.MANY
    assert probe.final


@pytest.mark.parametrize("samples", [0, 1])
def test_a_second_stream_that_says_nothing_does_not_pay(samples: int) -> None:
    probe = Probe(4, 1000 * MIB, 32 * MIB)
    assert [probe.sample(0, now, MIB) for now in (0.0, 0.3)] == [None, Stage.ASKED]
    assert probe.sample(0, 100.0, MIB) is None  # it is not open yet
    probe.opened(100.0)
    for _ in range(samples):
        assert probe.sample(1, 100.0, 1000) is None
    assert probe.sample(0, 100.0 + SILENCE - 0.1, MIB) is None
    assert probe.sample(0, 100.0 + SILENCE, MIB) is Stage.ONE
    assert probe.sample(1, 100.0 + SILENCE, MIB) is None


def test_a_second_stream_that_is_gone_changes_no_decision() -> None:
    probe = Probe(4, 1000 * MIB, 32 * MIB)
    probe.stage = Stage.MANY
    probe.gone()
    assert probe.stage is Stage.MANY
    probe.stage = Stage.TOGETHER
    probe.gone()
    assert probe.stage is Stage.ONE


@given(st.integers(0, 64 * MIB - 1))
def test_one_worker_or_less_than_two_parts_never_probe(left: int) -> None:
    assert Probe(1, 1000 * MIB, 32 * MIB).over
    assert Probe(4, left, 32 * MIB).over


def test_a_gain_of_a_third_pays() -> None:
    assert pays(3.0, 4.0)
    assert not pays(3.0, 3.5)
