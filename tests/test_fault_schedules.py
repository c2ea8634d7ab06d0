"""Random operations under random faults. A failure prints the seed that reproduces it.

``OCIWIRE_SCHEDULES`` is the number of schedules (ten thousand in the slow run of ``.ci/run``). ``OCIWIRE_SEED`` is the
first seed.
"""

from __future__ import annotations

import os
import random

import pytest

from ociwire.errors import OciwireError
from tests._support.fault_world import FAULT_NAMES, World, check_done, check_whole, faults_of, operations

COUNT = int(os.environ.get("OCIWIRE_SCHEDULES", "200"))
FIRST = int(os.environ.get("OCIWIRE_SEED", "0"))
BATCH = 50
OPERATIONS = operations()
# Operations share state, so the result of each depends on those before.
READS = ("get_blob", "get_blob_range", "get_manifest", "resolve_blob", "resolve_manifest")
VERIFIED = ("get_blob", "get_manifest")


def run(seed: int) -> list[str]:
    """Run a session and return the outcome of each operation."""
    chance = random.Random(seed)
    world = World(
        mounts=chance.random() < 0.8,
        referrers_api=chance.random() < 0.8,
        digest_header=chance.random() < 0.8,
        page_size=chance.choice([None, 1, 2]),
        min_chunk_length=chance.choice([None, 500, 2000]),
    )
    faults = faults_of(world)
    names = chance.sample(FAULT_NAMES, chance.randint(1, len(FAULT_NAMES)))
    world.fail(seed=seed, rate=chance.choice([0.05, 0.2, 0.5, 0.9]), faults=[faults[name] for name in names])
    outcomes = []
    for _ in range(chance.randint(2, 6)):
        operation = chance.choice(list(OPERATIONS))
        done, expected = OPERATIONS[operation]
        world.watch.requests = 0
        try:
            result = done(world)
        except OciwireError as error:
            outcomes.append(f"{operation}: {type(error).__name__}")
        else:
            outcomes.append(f"{operation}: ok")
            if operation.startswith("push"):
                check_done(operation, world, deleted=True)
            flipped = any(fault.fault == "flipped byte" for fault in world.faults.injected)
            if operation in VERIFIED or (operation in READS and not flipped):
                assert result == expected(world), operation
        assert not world.watch.open, f"{operation} left a response open"
    check_whole(world, deleted=any(outcome.startswith("delete_manifest") for outcome in outcomes))
    return outcomes


@pytest.mark.parametrize("batch", range(FIRST, FIRST + COUNT, BATCH))
def test_session_under_random_faults_succeeds_or_raises_ociwire_error(batch: int) -> None:
    for seed in range(batch, min(batch + BATCH, FIRST + COUNT)):
        try:
            run(seed)
        except Exception as error:
            raise AssertionError(f"OCIWIRE_SEED={seed} OCIWIRE_SCHEDULES=1 does it again") from error


def test_session_same_seed_is_reproducible() -> None:
    assert [run(seed) for seed in range(10)] == [run(seed) for seed in range(10)]
