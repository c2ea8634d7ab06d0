"""`ociwire.transfer._parts`: every byte is received exactly once, for all sizes, part sizes and worker counts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ociwire.transfer._parts import _MAX_PART_SIZE, _MAX_PARTS, _MIN_PART_SIZE, Part, PartScheduler, part_size_for

MIB = 1024 * 1024


class NoFreePart(Exception):
    """Raised instead of waiting for a free part."""


def scheduler_that_never_waits(start: int, stop: int, part_size: int, workers: int) -> PartScheduler:
    """Return a scheduler whose `take` raises `NoFreePart` instead of waiting."""
    scheduler = PartScheduler(start, stop, part_size, workers)

    def check() -> None:
        if all(part.state != "free" for part in scheduler._undone()):
            raise NoFreePart

    scheduler.check = check
    return scheduler


@settings(deadline=None)
@given(
    prefix=st.integers(0, 3000),
    remaining=st.integers(0, 3000),
    part_size=st.integers(1, 700),
    workers=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_scheduler_connections_lost_every_byte_is_received_once(
    prefix: int, remaining: int, part_size: int, workers: int, seed: int
) -> None:
    """A stream, and workers that request parts, receive bytes and lose their connections in any order.

    `parts` maps each worker that has a part to the part, the position from which it was requested, and the result of
    `begin`, which is None before there is a response.
    """
    chance = random.Random(seed)
    scheduler = scheduler_that_never_waits(prefix, prefix + remaining, part_size, workers)
    received = bytearray(prefix + remaining)
    parts: dict[int, tuple[Part, int, bool | None]] = {}
    stream, next_index = 0, 0  # the worker that reads the complete blob, or -1 after it has ended
    while True:
        worker = chance.randrange(workers)
        if worker not in parts:
            if worker == stream:
                part = scheduler.follow(next_index)
                if part is None:
                    stream = -1
                else:
                    assert part.position == part.start
                    parts[worker] = (part, part.position, True)
                    next_index += 1
                continue
            try:
                part = scheduler.take()
            except NoFreePart:
                continue
            if part is None:
                break
            parts[worker] = (part, part.position, None)
            continue
        part, position, taken = parts[worker]
        if taken is None:
            taken = chance.random() < 0.9 and scheduler.begin(part, position)
            parts[worker] = (part, position, taken)
        if not taken or part.position == part.stop or (worker != stream and chance.random() < 0.1):
            if worker != stream:
                scheduler.release(part, taken=taken)
            del parts[worker]
            continue
        count = chance.randint(1, part.stop - part.position)
        for index in range(part.position, part.position + count):
            received[index] += 1
        scheduler.advance(part, count)
        owned = [part for part, _, taken in parts.values() if taken]
        assert len(owned) == len(set(map(id, owned))), "two workers receive the same part"
        assert all(received[prefix : scheduler.prefix])
        undone = [part.index for part in scheduler.parts if part.position < part.stop]
        assert all(part.index < undone[0] + 2 * workers for part in owned if undone), "a part is beyond the window"
    assert received == bytes(prefix) + b"\x01" * remaining
    assert scheduler.prefix == prefix + remaining


def test_scheduler_part_is_requested_is_not_requested_again() -> None:
    scheduler = PartScheduler(0, 100, 10, 4)
    first, second = scheduler.take(), scheduler.take()
    assert first is not None
    assert second is not None
    assert (first.start, first.stop, second.start, second.stop) == (0, 10, 10, 20)
    assert scheduler.begin(first, 0)
    assert not scheduler.begin(first, 0)
    assert scheduler.follow(0) is None


def test_scheduler_stream_reaches_a_requested_part_receives_it() -> None:
    scheduler = PartScheduler(0, 100, 10, 4)
    part = scheduler.take()
    assert part is not None
    assert scheduler.follow(0) is part
    assert not scheduler.begin(part, 0)
    scheduler.release(part, taken=False)
    assert part.state == "taken"


def test_scheduler_part_has_advanced_since_its_request_is_not_begun() -> None:
    scheduler = PartScheduler(0, 10, 10, 1)
    part = scheduler.take()
    assert part is not None
    assert scheduler.begin(part, 0)
    scheduler.advance(part, 4)
    scheduler.release(part, taken=True)
    assert scheduler.prefix == 4
    assert scheduler.take() is part
    assert not scheduler.begin(part, 0), "the response starts before the position"
    assert scheduler.begin(part, 4)


def test_scheduler_window_is_full_has_no_free_part_until_the_first_is_done() -> None:
    scheduler = scheduler_that_never_waits(0, 100, 10, 1)
    first, second = scheduler.take(), scheduler.take()
    assert first is not None
    assert second is not None
    with pytest.raises(NoFreePart):
        scheduler.take()
    assert scheduler.follow(2) is None
    scheduler.advance(second, 10)
    with pytest.raises(NoFreePart):
        scheduler.take()
    scheduler.advance(first, 10)
    third = scheduler.take()
    assert third is not None
    assert third.start == 20


def test_scheduler_part_was_begun_before_is_not_followed() -> None:
    scheduler = PartScheduler(0, 100, 10, 4)
    part = scheduler.take()
    assert part is not None
    assert scheduler.begin(part, 0)
    scheduler.advance(part, 1)
    scheduler.release(part, taken=True)
    assert scheduler.follow(0) is None, "a stream can only continue at the start of a part"


@given(st.integers(0, 2**45), st.integers(1, 64))
def test_part_size_default_is_within_its_bounds(size: int, workers: int) -> None:
    assert _MIN_PART_SIZE <= part_size_for(size, workers, None) <= _MAX_PART_SIZE


@given(st.integers(0, 2**45), st.integers(1, 64), st.integers(1, 2**40))
def test_part_size_given_makes_at_most_4096_parts(size: int, workers: int, requested: int) -> None:
    part_size = part_size_for(size, workers, requested)
    assert size <= part_size * _MAX_PARTS
    assert part_size == max(requested, -(-size // _MAX_PARTS))
