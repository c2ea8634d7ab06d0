"""BoundedCache: limits of entries and of bytes."""

from __future__ import annotations

import pytest

from ociwire._bounded_cache import BoundedCache


def test_put_beyond_entry_limit_evicts_oldest() -> None:
    cache: BoundedCache[str, int] = BoundedCache(3)
    for number, key in enumerate("abacd"):  # "b" is older than the second "a"
        cache.put(key, number)
    assert [cache.get(key) for key in "abcd"] == [2, None, 3, 4]
    assert len(cache) == 3


@pytest.mark.parametrize(("weight", "remaining"), [(4, "bcd"), (8, "cd"), (12, "d"), (13, "abc")])
def test_put_beyond_byte_limit_evicts_oldest(weight: int, remaining: str) -> None:
    cache: BoundedCache[str, int] = BoundedCache(10, 12)
    for number, key in enumerate("abc"):
        cache.put(key, number, 4)
    cache.put("d", 3, weight)
    assert "".join(key for key in "abcd" if cache.get(key) is not None) == remaining


def test_remove_matching_entries_frees_their_bytes() -> None:
    cache: BoundedCache[str, int] = BoundedCache(10, 12)
    for number, key in enumerate("abc"):
        cache.put(key, number, 4)
    cache.remove(lambda key, value: key == "a" or value == 1)
    cache.put("d", 3, 8)
    assert [cache.get(key) for key in "abcd"] == [None, None, 2, 3]


def test_find_several_matches_returns_oldest() -> None:
    cache: BoundedCache[str, int] = BoundedCache(10)
    for number, key in enumerate("abc"):
        cache.put(key, number)
    assert cache.find(lambda key, value: key != "a" and value > 0) == 1
    assert cache.find(lambda key, value: value > 2) is None


def test_pop_all_returns_values_and_frees_their_bytes() -> None:
    cache: BoundedCache[str, int] = BoundedCache(10, 12)
    for number, key in enumerate("abc"):
        cache.put(key, number, 4)
    assert cache.pop_all() == [0, 1, 2]
    assert len(cache) == 0
    cache.put("d", 3, 12)
    assert cache.pop_all() == [3]
    assert cache.pop_all() == []
