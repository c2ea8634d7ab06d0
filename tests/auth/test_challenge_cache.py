"""`ChallengeCache`: the cached challenges of registries, and limits of the cache."""

from __future__ import annotations

from ociwire._http.urls import Origin
from ociwire._oci.scope import Scope
from ociwire.auth import Challenge
from ociwire.auth._challenge_cache import AcceptedChallenge, ChallengeCache, OriginState

REGISTRY = Origin("https", "registry.example", 443)
URL = "https://registry.example/v2/app/manifests/latest"
PULL = Scope.repository("app", "pull")


def bearer(realm: str = "https://auth.example/token", **params: str) -> Challenge:
    return Challenge("bearer", {"realm": realm, **params})


def test_get_challenge_with_scope_returns_it_without_scope() -> None:
    cache = ChallengeCache()
    cache.put(REGISTRY, bearer(scope="repository:app:pull", service="registry"))
    assert cache.get(REGISTRY) == OriginState(bearer(service="registry"))
    assert cache.get(Origin("http", "registry.example", 80)) == OriginState(None, is_open=False, is_predictable=True)


def test_put_other_realm_marks_origin_unpredictable() -> None:
    cache = ChallengeCache()
    cache.put(REGISTRY, bearer(scope="repository:a:pull"))
    cache.put(REGISTRY, bearer(scope="repository:b:pull"))
    assert cache.get(REGISTRY).is_predictable
    cache.put(REGISTRY, Challenge("basic"))
    assert cache.get(REGISTRY).is_predictable
    cache.put(REGISTRY, bearer("https://auth.example/token"))
    cache.put(REGISTRY, bearer("https://other.example/token"))
    assert not cache.get(REGISTRY).is_predictable
    cache.put(REGISTRY, bearer("https://other.example/token"))
    assert not cache.get(REGISTRY).is_predictable


def test_put_other_service_marks_origin_unpredictable() -> None:
    cache = ChallengeCache()
    cache.put(REGISTRY, bearer(service="blobs"))
    cache.put(REGISTRY, bearer(service="manifests"))
    assert not cache.get(REGISTRY).is_predictable


def test_get_accepted_other_endpoint_returns_nothing_unless_unpredictable() -> None:
    cache = ChallengeCache()
    accepted = AcceptedChallenge(bearer(), Scope.repository("app", "metadata_read"))
    tags, blob = "https://registry.example/v2/app/tags/list", "https://registry.example/v2/app/blobs/x"
    cache.put_accepted(REGISTRY, PULL, tags, accepted)
    assert cache.get_accepted(REGISTRY, PULL, f"{tags}?n=10") == accepted
    assert cache.get_accepted(REGISTRY, PULL, blob) is None
    assert cache.get_accepted(REGISTRY, Scope.repository("other", "pull"), tags) is None
    cache.update(REGISTRY, is_predictable=False)
    assert cache.get_accepted(REGISTRY, PULL, blob) == accepted


def test_get_accepted_url_without_repository_returns_scope() -> None:
    """An upload Location can have any path, so the required scope is the only hint at its repository."""
    cache = ChallengeCache()
    accepted = AcceptedChallenge(bearer(), Scope.repository("x", "pull"))
    cache.put_accepted(REGISTRY, PULL, URL, accepted)
    assert cache.get_accepted(REGISTRY, PULL, "https://registry.example/uploads/1234") == accepted


def test_invalidate_several_endpoints_removes_all() -> None:
    cache = ChallengeCache()
    urls = [f"https://registry.example/v2/app/{path}" for path in ("blobs/x", "manifests/x", "tags/list")]
    for url in urls:
        cache.put_accepted(REGISTRY, PULL, url, AcceptedChallenge(bearer(), Scope.repository("x", "pull")))
    cache.invalidate(REGISTRY, PULL)
    assert [cache.get_accepted(REGISTRY, PULL, url) for url in urls] == [None] * 3


def test_put_accepted_scope_equal_to_guess_replaces_entry() -> None:
    cache = ChallengeCache()
    cache.put_accepted(REGISTRY, PULL, URL, AcceptedChallenge(bearer(), Scope.repository("x", "pull")))
    cache.put_accepted(REGISTRY, PULL, URL, AcceptedChallenge(bearer(), PULL))
    assert cache.get_accepted(REGISTRY, PULL, URL) == AcceptedChallenge(bearer(), PULL)


def test_put_open_origin_removes_mark() -> None:
    cache = ChallengeCache()
    cache.update(REGISTRY, is_open=True)
    assert cache.get(REGISTRY).is_open
    cache.put(REGISTRY, bearer())
    assert not cache.get(REGISTRY).is_open


def test_update_keeps_challenge_and_other_mark() -> None:
    cache = ChallengeCache()
    cache.put(REGISTRY, bearer())
    cache.update(REGISTRY, is_predictable=False)
    cache.update(REGISTRY, is_open=True)
    assert cache.get(REGISTRY) == OriginState(bearer(), is_open=True, is_predictable=False)


def test_put_long_challenges_keeps_byte_limit() -> None:
    cache = ChallengeCache()
    for number in range(2000):
        cache.put(Origin("https", f"r{number}.example", 443), bearer("https://auth.example/" + "x" * 16_000))
        accepted = AcceptedChallenge(bearer(scope="y" * 16_000), Scope.repository("x", "pull"))
        cache.put_accepted(REGISTRY, Scope.repository(f"app{number}", "pull"), URL, accepted)
    cached = sum(cache.get(Origin("https", f"r{number}.example", 443)).challenge is not None for number in range(2000))
    assert 100 < cached < 300
    cached = sum(
        cache.get_accepted(REGISTRY, Scope.repository(f"app{number}", "pull"), URL) is not None
        for number in range(2000)
    )
    assert cached == 4  # each entry has 480 KiB and two keys, and the limit is 4 MiB


def test_put_many_origins_keeps_entry_limit() -> None:
    cache = ChallengeCache()
    for number in range(3000):
        origin = Origin("https", f"r{number}.example", 443)
        cache.put(origin, bearer())
        cache.update(origin, is_open=True, is_predictable=False)
    states = [cache.get(Origin("https", f"r{number}.example", 443)) for number in range(3000)]
    assert sum(state.challenge is not None for state in states) == 1024
    assert sum(state.is_open for state in states) == 1024
    assert sum(not state.is_predictable for state in states) == 1024


def test_update_many_origins_without_challenge_keeps_entry_limit() -> None:
    cache = ChallengeCache()
    origins = [Origin("https", f"r{number}.example", 443) for number in range(3000)]
    for origin in origins:
        cache.update(origin, is_open=True)
    assert sum(cache.get(origin).is_open for origin in origins) == 1024
