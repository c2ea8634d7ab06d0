"""Part arithmetic: whatever the size, the parts, the workers and the prefix, every byte is somebody's, once."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ociwire.transfer.parts import (
    BUFFER,
    LARGEST_PART,
    LEAST_PART,
    MEMORY,
    SPARE_BUFFERS,
    Claim,
    Plan,
    Probe,
    Verdict,
    Written,
    buffer_size_for,
    next_reserve,
    part_size_for,
    pays,
)

MIB = 1024 * 1024


class Worker:
    """Reads its claim, up to some bytes at a time, from a stream that ends somewhere."""

    def __init__(self, claim: Claim, until: int) -> None:
        self.claim, self.position, self.until = claim, claim.start, until


def new_worker(plan: Plan, chance: random.Random) -> Worker | None:
    ahead = plan.ahead()
    leaps = ahead is not None and chance.random() < 0.3
    claim = plan.take_at(ahead) if leaps and ahead is not None else plan.take() or plan.steal()
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
    chance = random.Random(seed)
    size = prefix + left
    plan, written, read = Plan(prefix, size, part), Written(prefix), bytearray(size)
    at_work: list[Worker] = []
    while True:
        if len(at_work) < workers and (not at_work or chance.random() < 0.5):
            made = new_worker(plan, chance)
            if made is not None:
                at_work.append(made)
        if not at_work:
            break
        worker = chance.choice(at_work)
        stop = plan.reserve(worker.claim, worker.position, most, worker.until)
        assert worker.position <= stop <= min(worker.until, size)
        if stop == worker.position:
            at_work.remove(worker)
            continue
        stop = chance.randint(worker.position + 1, stop)  # a read may be short
        for index in range(worker.position, stop):
            read[index] += 1
        written.add(worker.position, stop)
        worker.position = stop
        if chance.random() < 0.5:
            before = written.front
            assert written.advance(most) == written.front - before <= most
            assert all(read[before : written.front])
    while written.advance(most):
        pass
    assert read == bytes(prefix) + b"\x01" * left
    assert written.front == size
    assert plan.take() is None
    assert plan.steal() is None


def test_a_lone_worker_goes_through_all_in_one_stream() -> None:
    plan = Plan(5, 1000, 10)
    claim = plan.take()
    assert claim is not None
    position = 5
    while (stop := plan.reserve(claim, position, 64, 1000)) > position:
        position = stop
    assert position == 1000


def test_a_byte_that_is_somebodys_is_not_given_out_again() -> None:
    plan = Plan(0, 100, 10)
    assert plan.take_at(50) is not None
    assert plan.take_at(55) is None
    assert plan.take_at(100) is None


def test_who_has_nothing_to_do_takes_half_of_the_most() -> None:
    plan = Plan(0, 100, 100)
    first = plan.take()
    assert first is not None
    assert plan.reserve(first, 0, 1, 100) == 1
    assert plan.steal() is None  # less than a part is left
    plan = Plan(0, 10 * MIB, 4 * MIB)
    claims = [plan.take(), plan.take(), plan.take()]
    first = claims[0]
    assert first is not None
    assert plan.reserve(first, 0, MIB, 10 * MIB) == MIB
    assert plan.take() is None
    second = claims[1]
    assert second is not None
    stolen = plan.steal()
    assert stolen is not None
    assert stolen.stop - stolen.start == 2 * MIB


@given(st.integers(0, 2**45), st.integers(1, 10_000))
def test_sizes_have_bounds(left: int, workers: int) -> None:
    assert LEAST_PART <= part_size_for(left, workers) <= LARGEST_PART
    size = buffer_size_for(left, workers)
    assert 1 <= size <= BUFFER
    assert size == 1 or size * (workers + SPARE_BUFFERS) <= MEMORY


@given(st.integers(1, BUFFER), st.integers(1, BUFFER), st.integers(0, BUFFER), st.integers(1, BUFFER))
def test_what_is_reserved_grows_and_shrinks_with_what_comes(reserved: int, got: int, missed: int, largest: int) -> None:
    assert 1 <= next_reserve(reserved, got, missed, largest) <= largest
    assert next_reserve(reserved, got, 1, BUFFER) <= 2 * got


def probe_with(alone: float, second: float, *, left: int = 1000 * MIB, step: float = 0.1) -> list[Verdict]:
    """What a probe says, of a first stream that is so fast alone, and of both (in bytes a second)."""
    probe, now, found = Probe(4, left, 32 * MIB), 0.0, []
    both = False
    for _ in range(40):
        for stream in (0, 1) if both else (0,):
            verdict = probe.sample(stream, now, int(step * (second / 2 if both else alone)))
            if verdict is not Verdict.WAIT:
                found.append(verdict)
            if verdict is Verdict.ASK:
                probe.opened(ranges=True)
                both = True
        now += step
    assert probe.over
    return found


def test_a_second_stream_that_adds_to_the_first_pays() -> None:
    assert probe_with(10 * MIB, 20 * MIB) == [Verdict.ASK, Verdict.GROW]


def test_a_second_stream_that_takes_from_the_first_does_not() -> None:
    assert probe_with(10 * MIB, 10 * MIB) == [Verdict.ASK, Verdict.STAY]


def test_what_is_soon_over_is_not_probed() -> None:
    assert probe_with(2000 * MIB, 2000 * MIB) == [Verdict.STAY]


def test_a_stream_in_bursts_is_measured_over_more_than_one() -> None:
    assert probe_with(MIB, 2 * MIB, step=1.0) == [Verdict.ASK, Verdict.GROW]
    assert probe_with(MIB, MIB, step=1.0) == [Verdict.ASK, Verdict.STAY]


@given(st.integers(0, 64 * MIB - 1))
def test_one_worker_or_less_than_two_parts_never_probe(left: int) -> None:
    assert Probe(1, 1000 * MIB, 32 * MIB).over
    assert Probe(4, left, 32 * MIB).over


def test_a_gain_of_a_third_pays() -> None:
    assert pays(3.0, 4.0)
    assert not pays(3.0, 3.5)
