"""The cache of TokenProvider: lookup by scope, expiry, eviction, bounds."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ociwire._http.urls import Origin
from ociwire._oci.scope import Scope
from ociwire.auth import Credential
from ociwire.auth import _token_provider as provider_module
from ociwire.auth._token_provider import Token, TokenKey, TokenProvider
from ociwire.testing import ScriptedTransport
from tests._support.doubles import FakeClock
from tests._support.examples import example_count

SECRET = "sEcReT-42"
REGISTRY = Origin("https", "ghcr.io", 443)
KEY = TokenKey(REGISTRY, Credential(username="me", password=SECRET))
PULL = Scope.parse("repository:app:pull")
PUSH = Scope.parse("repository:app:push")
BOTH = Scope.parse("repository:app:pull,push")
OTHER = Scope.parse("repository:other:pull")
MOUNT = BOTH | OTHER


def token(scope: Scope, valid_until: float = float("inf"), key: TokenKey = KEY) -> Token:
    return Token(key, SECRET, scope, valid_until)


def cache_with(*tokens: Token) -> TokenProvider:
    cache = TokenProvider(ScriptedTransport([]).round_trip, trusted_realms={}, source_name="source")
    for cached in tokens:
        cache.put(cached)
    return cache


@pytest.mark.parametrize(
    ("scopes", "required", "result"),
    [
        ([], PULL, None),
        ([PULL], PULL, PULL),
        ([PULL], PUSH, None),
        ([PULL], BOTH, None),
        ([BOTH], PULL, BOTH),
        ([BOTH], PUSH, BOTH),
        ([BOTH], OTHER, None),
        ([BOTH, PULL], PULL, PULL),
        ([PULL, BOTH], PULL, PULL),
        ([MOUNT, BOTH, PULL], PULL, PULL),
        ([PULL, PUSH], BOTH, None),
        ([PULL, MOUNT], BOTH, MOUNT),
        ([MOUNT], MOUNT, MOUNT),
        ([Scope.parse("repository:app:push,pull")], BOTH, BOTH),
        ([Scope.parse("repository:application:pull")], PULL, None),
        ([Scope.UNLIMITED], PULL, Scope.UNLIMITED),
        ([Scope.UNLIMITED], Scope.UNLIMITED, Scope.UNLIMITED),
        ([MOUNT], Scope.UNLIMITED, None),
        ([Scope.EMPTY], PULL, None),
        # A token is not sent with a request that requires no scope.
        ([Scope.EMPTY], Scope.EMPTY, Scope.EMPTY),
        ([PULL], Scope.EMPTY, None),
        ([MOUNT, Scope.UNLIMITED, PULL], Scope.EMPTY, None),
        ([PULL, Scope.EMPTY, BOTH], Scope.EMPTY, Scope.EMPTY),
    ],
)
def test_get_scope_prefers_exact_then_larger(scopes: list[Scope], required: Scope, result: Scope | None) -> None:
    cached = cache_with(*map(token, scopes)).get(KEY, required)
    assert (None if cached is None else cached.scope) == result


def test_get_other_key_returns_none() -> None:
    cached = token(PULL)
    cache = cache_with(cached)
    others = [
        TokenKey(REGISTRY, None),
        TokenKey(REGISTRY, Credential(username="other", password=SECRET)),
        TokenKey(REGISTRY, Credential(username="me", password="other")),
        TokenKey(Origin("http", "ghcr.io", 80), KEY.credential),
        TokenKey(Origin("https", "ghcr.io", 5000), KEY.credential),
        TokenKey(Origin("https", "quay.io", 443), KEY.credential),
    ]
    assert [cache.get(key, PULL) for key in others] == [None] * len(others)
    same = Credential(username="me", password=SECRET, expires_at=5, source="elsewhere")
    assert cache.get(TokenKey(REGISTRY, same), PULL) is cached


def test_get_anonymous_key_returns_token() -> None:
    anonymous = TokenKey(REGISTRY, None)
    cached = token(PULL, key=anonymous)
    assert cache_with(cached).get(anonymous, PULL) is cached


def test_get_exact_ignores_larger_scope() -> None:
    """A token with a larger scope may have been revoked together with the refused one."""
    wide = token(BOTH)
    cache = cache_with(wide)
    assert cache.get(KEY, PULL, exact=True) is None
    assert cache.get(KEY, BOTH, exact=True) is wide


def test_put_same_scope_replaces_token() -> None:
    old, new = token(PULL), token(Scope.parse("repository:app:pull"))
    assert cache_with(old, new).get(KEY, PULL) is new


# --- expiry ---


def test_get_expired_token_returns_none(clock: FakeClock) -> None:
    cached = token(PULL, clock.now + 10)
    cache = cache_with(cached)
    clock.now += 9.9
    assert cache.get(KEY, PULL) is cached
    clock.now += 0.1
    assert cache.get(KEY, PULL) is None


def test_get_expired_token_returns_larger_one(clock: FakeClock) -> None:
    exact, expired, wide = token(PULL, clock.now + 10), token(BOTH, clock.now + 5), token(MOUNT, clock.now + 20)
    cache = cache_with(exact, expired, wide)
    assert cache.get(KEY, PULL) is exact
    clock.now += 10
    assert cache.get(KEY, PULL) is wide
    assert cache.get(KEY, BOTH) is wide
    clock.now += 10
    assert cache.get(KEY, PULL) is None


# --- eviction ---


def test_evict_replaced_token_keeps_new_one() -> None:
    old, new, wide = token(PULL), token(PULL), token(BOTH)
    cache = cache_with(old, wide)
    cache.evict(new)
    assert cache.get(KEY, PULL) is old
    cache.put(new)
    cache.evict(old)
    assert cache.get(KEY, PULL) is new
    cache.evict(new)
    assert cache.get(KEY, PULL) is wide
    cache.evict(new)
    assert cache.get(KEY, BOTH) is wide


def scope(number: int) -> Scope:
    return Scope.repository(f"app-{number}", "pull")


def test_put_beyond_entry_limit_evicts_oldest() -> None:
    tokens = [token(scope(number)) for number in range(1030)]
    cache = cache_with(*tokens)
    result = [cached for cached in tokens if cache.get(KEY, cached.scope)]
    assert result == tokens[6:]


def test_put_large_scopes_keeps_byte_limit() -> None:
    cache = cache_with()
    scopes = [Scope.parse(f"repository:{number}:" + ",".join(map(str, range(1000)))) for number in range(100)]
    for scope in scopes:
        cache.put(token(scope))
    result = [scope for scope in scopes if cache.get(KEY, scope) is not None]
    assert result == scopes[-len(result) :]
    assert 10 < len(result) < 40  # each entry has about 256 KiB, and the limit is 8 MiB


def test_put_long_realms_keeps_byte_limit() -> None:
    cache = cache_with()
    keys = [TokenKey(REGISTRY, None, f"https://auth.example/{number}/" + "x" * 16_000) for number in range(1000)]
    for key in keys:
        cache.put(token(PULL, key=key))
    assert sum(cache.get(key, PULL) is not None for key in keys) < 600  # the limit is 8 MiB


def test_put_token_larger_than_cache_evicts_nothing() -> None:
    cache = cache_with(token(PULL))
    huge = Scope.parse("repository:huge:" + ",".join(map(str, range(50_000))))
    cache.put(token(huge))
    assert cache.get(KEY, huge) is None
    assert cache.get(KEY, PULL) is not None


def test_put_many_keys_share_entry_limit() -> None:
    keys = [TokenKey(REGISTRY, Credential(username=str(number))) for number in range(1030)]
    cache = cache_with()
    for key in keys:
        cache.put(token(PULL, key=key))
    assert [key for key in keys if cache.get(key, PULL)] == keys[6:]


def test_put_after_evict_or_replace_frees_entry() -> None:
    tokens = [token(scope(number)) for number in range(1024)]
    cache = cache_with(*tokens)
    for _ in range(3):
        replaced = token(scope(1023))
        cache.put(replaced)
        cache.evict(replaced)
        cache.evict(replaced)
        cache.put(tokens[1023])
    assert all(cache.get(KEY, cached.scope) is cached for cached in tokens)


def test_put_several_keys_evicts_oldest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "_MAX_TOKENS", 4)
    other = TokenKey(REGISTRY, None)
    cache = cache_with()
    order = [
        (KEY, scope(0)),
        (other, scope(1)),
        (other, scope(2)),
        (KEY, scope(3)),
        (other, scope(4)),
        (other, scope(5)),
    ]
    for key, required in order:
        cache.put(token(required, key=key))
    assert [cached for cached in order if cache.get(*cached)] == order[2:]


# --- the value ---


def test_token_compares_by_identity_and_hides_value() -> None:
    cached = token(PULL)
    assert cached == cached
    assert cached != token(PULL)
    assert len({cached, token(PULL)}) == 2
    assert SECRET not in repr(cached)
    assert str(PULL) in repr(cached)


# --- model ---

KEYS = [KEY, TokenKey(REGISTRY, None), TokenKey(Origin("https", "quay.io", 443), KEY.credential)]
WORDS = ["repository:a:pull", "repository:a:pull,push", "repository:b:pull", "registry:catalog:*"]
SCOPES = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join).map(Scope.parse), st.just(Scope.UNLIMITED)
)


class TokenCacheMachine(RuleBasedStateMachine):
    """State machine that compares the cache of TokenProvider with a list of the cached tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.clock = FakeClock()
        self.patch.setattr(time, "monotonic", self.clock)
        self.cache = cache_with()
        self.model: list[tuple[TokenKey, Token]] = []
        self.evicted: list[tuple[TokenKey, Token]] = []

    def teardown(self) -> None:
        self.patch.undo()

    def remove_from_model(self, key: TokenKey, required: Scope) -> None:
        removed = [entry for entry in self.model if entry[0] == key and entry[1].scope == required]
        self.model = [entry for entry in self.model if entry not in removed]
        self.evicted += removed

    @rule(key=st.sampled_from(KEYS), required=SCOPES, lifetime=st.integers(-1, 10))
    def put(self, key: TokenKey, required: Scope, lifetime: int) -> None:
        cached = Token(key, "x", required, self.clock.now + lifetime)
        self.cache.put(cached)
        self.remove_from_model(key, required)
        self.model.append((key, cached))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def evict(self, data: Any) -> None:
        key, cached = data.draw(st.sampled_from(self.model))
        self.cache.evict(cached)
        self.remove_from_model(key, cached.scope)

    @precondition(lambda self: self.evicted)
    @rule(data=st.data())
    def evict_again(self, data: Any) -> None:
        self.cache.evict(data.draw(st.sampled_from(self.evicted))[1])

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(key=st.sampled_from(KEYS), required=SCOPES)
    def find(self, key: TokenKey, required: Scope) -> None:
        valid = [cached for entry_key, cached in self.model if entry_key == key and cached.valid_until > self.clock.now]
        exact = [cached for cached in valid if cached.scope == required]
        matching = exact or [cached for cached in valid if required <= cached.scope and required != Scope.EMPTY]
        result = self.cache.get(key, required)
        assert result in matching if matching else result is None

    @invariant()
    def valid_tokens_are_found_by_scope(self) -> None:
        for key, cached in self.model:
            assert (self.cache.get(key, cached.scope) is cached) or cached.valid_until <= self.clock.now


TestTokenCache = TokenCacheMachine.TestCase
TestTokenCache.settings = settings(max_examples=example_count(100), stateful_step_count=30, deadline=None)


class FullTokenCacheMachine(TokenCacheMachine):
    """State machine for a cache of three tokens, which contains the three newest ones."""

    MAX_TOKENS = 3

    def __init__(self) -> None:
        super().__init__()
        self.patch.setattr(provider_module, "_MAX_TOKENS", self.MAX_TOKENS)
        self.cache = cache_with()

    @rule(key=st.sampled_from(KEYS), required=SCOPES, lifetime=st.integers(-1, 10))
    def put(self, key: TokenKey, required: Scope, lifetime: int) -> None:
        cached = Token(key, "x", required, self.clock.now + lifetime)
        self.cache.put(cached)
        self.remove_from_model(key, required)
        self.evicted += self.model[: -self.MAX_TOKENS + 1]
        self.model = [*self.model[-self.MAX_TOKENS + 1 :], (key, cached)]


TestFullTokenCache = FullTokenCacheMachine.TestCase
TestFullTokenCache.settings = settings(max_examples=example_count(100), stateful_step_count=30, deadline=None)
