"""TokenCache: found by scope, and dropped before they expire."""

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
from ociwire.auth import _token_cache as cache_module
from ociwire.auth._token_cache import Token, TokenCache, TokenKey
from tests._support.doubles import FakeClock

SECRET = "sEcReT-42"
REGISTRY = Origin("https", "ghcr.io", 443)
ME = TokenKey(REGISTRY, Credential(username="me", password=SECRET))
PULL = Scope.parse("repository:app:pull")
PUSH = Scope.parse("repository:app:push")
BOTH = Scope.parse("repository:app:pull,push")
OTHER = Scope.parse("repository:other:pull")
MOUNT = BOTH | OTHER


def token(scope: Scope, good_until: float = float("inf")) -> Token:
    return Token(SECRET, scope, good_until)


def kept(*tokens: Token, holder: TokenKey = ME) -> TokenCache:
    store = TokenCache()
    for one in tokens:
        store.put(holder, one)
    return store


@pytest.mark.parametrize(
    ("scopes", "wanted", "found"),
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
        # What needs nothing is sent with nothing that grants something.
        ([Scope.EMPTY], Scope.EMPTY, Scope.EMPTY),
        ([PULL], Scope.EMPTY, None),
        ([MOUNT, Scope.UNLIMITED, PULL], Scope.EMPTY, None),
        ([PULL, Scope.EMPTY, BOTH], Scope.EMPTY, Scope.EMPTY),
    ],
)
def test_a_token_is_found_exactly_and_else_by_containment(
    scopes: list[Scope], wanted: Scope, found: Scope | None
) -> None:
    one = kept(*map(token, scopes)).get(ME, wanted)
    assert (None if one is None else one.scope) == found


def test_a_token_is_found_for_its_holder_only() -> None:
    one = token(PULL)
    store = kept(one)
    strangers = [
        TokenKey(REGISTRY, None),
        TokenKey(REGISTRY, Credential(username="you", password=SECRET)),
        TokenKey(REGISTRY, Credential(username="me", password="other")),
        TokenKey(Origin("http", "ghcr.io", 80), ME.credential),
        TokenKey(Origin("https", "ghcr.io", 5000), ME.credential),
        TokenKey(Origin("https", "quay.io", 443), ME.credential),
    ]
    assert [store.get(holder, PULL) for holder in strangers] == [None] * len(strangers)
    same = Credential(username="me", password=SECRET, expires_at=5, source="elsewhere")
    assert store.get(TokenKey(REGISTRY, same), PULL) is one


def test_nobody_has_tokens_too() -> None:
    anonymous = TokenKey(REGISTRY, None)
    one = token(PULL)
    assert kept(one, holder=anonymous).get(anonymous, PULL) is one


def test_a_token_takes_the_place_of_one_with_the_same_scope() -> None:
    old, new = token(PULL), token(Scope.parse("repository:app:pull"))
    assert kept(old, new).get(ME, PULL) is new


# --- expiry ---


def test_a_token_is_not_found_when_it_has_expired(clock: FakeClock) -> None:
    one = token(PULL, clock.now + 10)
    store = kept(one)
    clock.now += 9.9
    assert store.get(ME, PULL) is one
    clock.now += 0.1
    assert store.get(ME, PULL) is None


def test_in_the_place_of_one_that_has_expired_another_is_found_that_contains_it(clock: FakeClock) -> None:
    exact, expired, wide = token(PULL, clock.now + 10), token(BOTH, clock.now + 5), token(MOUNT, clock.now + 20)
    store = kept(exact, expired, wide)
    assert store.get(ME, PULL) is exact
    clock.now += 10
    assert store.get(ME, PULL) is wide
    assert store.get(ME, BOTH) is wide
    clock.now += 10
    assert store.get(ME, PULL) is None


# --- eviction ---


def test_only_the_same_token_is_evicted() -> None:
    old, new, wide = token(PULL), token(PULL), token(BOTH)
    store = kept(old, wide)
    store.evict(new)
    assert store.get(ME, PULL) is old
    store.put(ME, new)
    store.evict(old)
    assert store.get(ME, PULL) is new
    store.evict(new)
    assert store.get(ME, PULL) is wide
    store.evict(new)
    assert store.get(ME, BOTH) is wide


def scope(number: int) -> Scope:
    return Scope.repository(f"app-{number}", "pull")


def test_at_most_1024_are_kept_and_the_oldest_is_dropped() -> None:
    tokens = [token(scope(number)) for number in range(1030)]
    store = kept(*tokens)
    found = [one for one in tokens if store.get(ME, one.scope)]
    assert found == tokens[6:]


def test_tokens_with_large_scopes_are_bounded_in_bytes() -> None:
    store = TokenCache()
    scopes = [Scope.parse(f"repository:{number}:" + ",".join(map(str, range(1000)))) for number in range(100)]
    for scope in scopes:
        store.put(ME, token(scope))
    found = [scope for scope in scopes if store.get(ME, scope) is not None]
    assert found == scopes[-len(found) :]
    assert 10 < len(found) < 40  # 8 MiB of about 256 KiB


def test_tokens_with_long_realms_are_bounded_in_bytes() -> None:
    store = TokenCache()
    keys = [TokenKey(REGISTRY, None, f"https://auth.example/{number}/" + "x" * 16_000) for number in range(1000)]
    for key in keys:
        store.put(key, token(PULL))
    assert sum(store.get(key, PULL) is not None for key in keys) < 600  # 8 MiB


def test_token_larger_than_the_cache_is_not_kept_and_evicts_nothing() -> None:
    store = kept(token(PULL))
    huge = Scope.parse("repository:huge:" + ",".join(map(str, range(50_000))))
    store.put(ME, token(huge))
    assert store.get(ME, huge) is None
    assert store.get(ME, PULL) is not None


def test_tokens_of_a_credential_are_evicted_together() -> None:
    store = kept(token(PULL), token(PUSH))
    other = TokenKey(REGISTRY, None)
    store.put(other, token(PULL))
    store.evict_credential(REGISTRY, ME.credential)
    assert [store.get(ME, PULL), store.get(ME, PUSH)] == [None, None]
    assert store.get(other, PULL) is not None


def test_it_is_1024_for_all_holders_together() -> None:
    holders = [TokenKey(REGISTRY, Credential(username=str(number))) for number in range(1030)]
    store = TokenCache()
    for holder in holders:
        store.put(holder, token(PULL))
    assert [holder for holder in holders if store.get(holder, PULL)] == holders[6:]


def test_what_was_evicted_or_replaced_does_not_count() -> None:
    tokens = [token(scope(number)) for number in range(1024)]
    store = kept(*tokens)
    for _ in range(3):
        replaced = token(scope(1023))
        store.put(ME, replaced)
        store.evict(replaced)
        store.evict(replaced)
        store.put(ME, tokens[1023])
    assert all(store.get(ME, one.scope) is one for one in tokens)


def test_of_several_holders_the_oldest_token_is_dropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_MAX_TOKENS", 4)
    you = TokenKey(REGISTRY, None)
    store = TokenCache()
    order = [(ME, scope(0)), (you, scope(1)), (you, scope(2)), (ME, scope(3)), (you, scope(4)), (you, scope(5))]
    for holder, wanted in order:
        store.put(holder, token(wanted))
    assert [one for one in order if store.get(*one)] == order[2:]


# --- the value ---


def test_a_token_compares_by_identity_and_hides_its_value() -> None:
    one = token(PULL)
    assert one == one
    assert one != token(PULL)
    assert len({one, token(PULL)}) == 2
    assert SECRET not in repr(one)
    assert str(PULL) in repr(one)


# --- against a model ---

HOLDERS = [ME, TokenKey(REGISTRY, None), TokenKey(Origin("https", "quay.io", 443), ME.credential)]
WORDS = ["repository:a:pull", "repository:a:pull,push", "repository:b:pull", "registry:catalog:*"]
SCOPES = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join).map(Scope.parse), st.just(Scope.UNLIMITED)
)


class TokensMachine(RuleBasedStateMachine):
    """TokenCache against a plain list of what was kept: what is found is what may be found, and nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.clock = FakeClock()
        self.patch.setattr(time, "monotonic", self.clock)
        self.store = TokenCache()
        self.model: list[tuple[TokenKey, Token]] = []
        self.gone: list[tuple[TokenKey, Token]] = []

    def teardown(self) -> None:
        self.patch.undo()

    def drop(self, holder: TokenKey, wanted: Scope) -> None:
        dropped = [entry for entry in self.model if entry[0] == holder and entry[1].scope == wanted]
        self.model = [entry for entry in self.model if entry not in dropped]
        self.gone += dropped

    @rule(holder=st.sampled_from(HOLDERS), wanted=SCOPES, life=st.integers(-1, 10))
    def keep(self, holder: TokenKey, wanted: Scope, life: int) -> None:
        one = Token("x", wanted, self.clock.now + life)
        self.store.put(holder, one)
        self.drop(holder, wanted)
        self.model.append((holder, one))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def evict(self, data: Any) -> None:
        holder, one = data.draw(st.sampled_from(self.model))
        self.store.evict(one)
        self.drop(holder, one.scope)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def evict_what_is_gone(self, data: Any) -> None:
        self.store.evict(data.draw(st.sampled_from(self.gone))[1])

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(holder=st.sampled_from(HOLDERS), wanted=SCOPES)
    def find(self, holder: TokenKey, wanted: Scope) -> None:
        good = [one for owner, one in self.model if owner == holder and one.good_until > self.clock.now]
        exact = [one for one in good if one.scope == wanted]
        fitting = exact or [one for one in good if wanted <= one.scope and wanted != Scope.EMPTY]
        found = self.store.get(holder, wanted)
        assert found in fitting if fitting else found is None

    @invariant()
    def every_good_token_is_found_by_its_scope(self) -> None:
        for holder, one in self.model:
            assert (self.store.get(holder, one.scope) is one) or one.good_until <= self.clock.now


TestTokensAgainstAModel = TokensMachine.TestCase
TestTokensAgainstAModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class FullTokensMachine(TokensMachine):
    """The same, with room for three: what is found is good and was kept, and the newest three are there."""

    ROOM = 3

    def __init__(self) -> None:
        super().__init__()
        self.patch.setattr(cache_module, "_MAX_TOKENS", self.ROOM)
        self.store = TokenCache()

    @rule(holder=st.sampled_from(HOLDERS), wanted=SCOPES, life=st.integers(-1, 10))
    def keep(self, holder: TokenKey, wanted: Scope, life: int) -> None:
        one = Token("x", wanted, self.clock.now + life)
        self.store.put(holder, one)
        self.drop(holder, wanted)
        self.gone += self.model[: -self.ROOM + 1]
        self.model = [*self.model[-self.ROOM + 1 :], (holder, one)]


TestFullTokensAgainstAModel = FullTokensMachine.TestCase
TestFullTokensAgainstAModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
