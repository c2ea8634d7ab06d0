"""`ociwire.transfer._parts`: whatever the size, the parts and the workers do, every byte is received exactly once."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ociwire.transfer._parts import _MAX_PART_SIZE, _MAX_PARTS, _MIN_PART_SIZE, Part, PartScheduler, part_size_for

MIB = 1024 * 1024


@settings(deadline=None)
@given(
    prefix=st.integers(0, 3000),
    remaining=st.integers(0, 3000),
    part_size=st.integers(1, 700),
    workers=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_scheduler_workers_lose_connections_every_byte_is_received_once(
    prefix: int, remaining: int, part_size: int, workers: int, seed: int
) -> None:
    """Workers take, follow, receive some bytes of, and release their parts in any order."""
    chance = random.Random(seed)
    scheduler = PartScheduler(prefix, prefix + remaining, part_size, workers)
    received = bytearray(prefix + remaining)
    busy: dict[int, Part] = {}
    while True:
        worker = chance.randrange(workers)
        if worker not in busy:
            part = scheduler.take(scheduler.peek() if chance.random() < 0.3 else None)
            if part is not None:
                busy[worker] = part
            elif not scheduler.busy:
                break
            continue
        part = busy[worker]
        if chance.random() < 0.1:  # it loses its connection
            scheduler.release(part)
            del busy[worker]
        elif part.done:
            scheduler.release(part)
            following = scheduler.take_following(part)
            del busy[worker]
            if following is not None:
                assert following.position == following.start == part.stop
                busy[worker] = following
        else:
            count = chance.randint(1, part.stop - part.position)
            for index in range(part.position, part.position + count):
                received[index] += 1
            part.position += count
        taken = [part for part in scheduler.parts if part.taken and not part.done]
        assert len(taken) <= workers
        assert all(received[prefix : scheduler.prefix])
        first = next((part.index for part in scheduler.parts if not part.done), None)
        assert all(part.index < (first or 0) + 2 * workers for part in taken), "a part is beyond the window"
    assert received == bytes(prefix) + b"\x01" * remaining
    assert scheduler.prefix == prefix + remaining


def test_scheduler_part_is_taken_is_not_given_to_another() -> None:
    scheduler = PartScheduler(0, 100, 10, 4)
    part = scheduler.peek()
    assert part is not None
    assert (part.start, part.stop) == (10, 20)
    assert scheduler.take(part) is part
    assert scheduler.take(part) is None
    first = scheduler.take()
    assert first is not None
    assert first.start == 0
    assert scheduler.take_following(first) is None


def test_scheduler_window_is_full_has_no_free_part_until_the_first_is_done() -> None:
    scheduler = PartScheduler(0, 100, 10, 1)
    first, second = scheduler.take(), scheduler.take()
    assert first is not None
    assert second is not None
    assert scheduler.take() is None
    second.position = second.stop
    assert scheduler.take() is None
    assert scheduler.busy
    first.position = first.stop
    third = scheduler.take()
    assert third is not None
    assert third.start == 20


def test_scheduler_part_is_released_is_taken_from_its_position() -> None:
    scheduler = PartScheduler(0, 100, 10, 4)
    first = scheduler.take()
    assert first is not None
    first.position = 4
    scheduler.release(first)
    scheduler.release(first)
    assert scheduler.prefix == 4
    assert scheduler.take() is first
    part = scheduler.take()
    assert part is not None
    part.position += 1
    scheduler.release(part)
    assert scheduler.take_following(first) is None, "a stream cannot go on into a part that was begun"


@given(st.integers(0, 2**45), st.integers(1, 64))
def test_part_size_default_is_within_its_bounds(size: int, workers: int) -> None:
    assert _MIN_PART_SIZE <= part_size_for(size, workers, None) <= _MAX_PART_SIZE


@given(st.integers(0, 2**45), st.integers(1, 64), st.integers(1, 2**40))
def test_part_size_given_makes_no_more_than_4096_parts(size: int, workers: int, wanted: int) -> None:
    part_size = part_size_for(size, workers, wanted)
    assert size <= part_size * _MAX_PARTS
    assert part_size == max(wanted, -(-size // _MAX_PARTS))
