"""How long a credential lives, and how a source is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ociwire.auth import Anonymous, Credential, CredentialSource, StaticCredentials
from ociwire.auth import _credential_cache as cache_module
from ociwire.auth._credential_cache import CredentialCache, CredentialKey
from ociwire.errors import AuthError, AuthTimeout, CredentialsRejected, TransportTimeout, UsageError
from tests._support.doubles import PATIENCE, Call

SECRET = "sEcReT-42"
WHO = CredentialKey("ghcr.io", "app")
OLD = Credential(username="me", password="old")
NEW = Credential(username="me", password="new")


def get(cache: CredentialCache, key: CredentialKey, deadline: float | None) -> Credential | None:
    return cache.get(key, deadline).credential


def cached(cache: CredentialCache, key: CredentialKey) -> Credential | None:
    answer = cache.find(key)
    return None if answer is None else answer.credential


def get_after_rejection(
    cache: CredentialCache, key: CredentialKey, rejected: Credential | None, deadline: float | None
) -> Credential | None:
    cache.invalidate(key, rejected)
    return get(cache, key, deadline)


class Script:
    """A source whose answers come from a list; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        self.asked.append((host, repository))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]


class Clock:
    """`time.time`, by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


# --- what is kept ---


@pytest.mark.parametrize("answer", [OLD, Credential(), None])
def test_an_answer_is_kept_nobody_included(answer: Credential | None) -> None:
    source = Script(answer, NEW)
    cache = CredentialCache(source)
    assert [get(cache, WHO, None) for _ in range(3)] == [answer] * 3
    assert source.asked == [("ghcr.io", "app")]


def test_an_answer_is_kept_for_a_host_and_a_repository() -> None:
    source = Script(None)
    cache = CredentialCache(source)
    everyone = [
        CredentialKey("ghcr.io", "app"),
        CredentialKey("ghcr.io", "other"),
        CredentialKey("ghcr.io", None),
        CredentialKey("quay.io", "app"),
    ]
    for _ in range(2):
        for who in everyone:
            get(cache, who, None)
    assert source.asked == everyone


def test_what_is_kept_is_known_without_asking() -> None:
    source = Script(OLD)
    cache = CredentialCache(source)
    assert cached(cache, WHO) is None
    assert source.asked == []
    get(cache, WHO, None)
    assert cached(cache, WHO) is OLD
    assert cached(cache, CredentialKey("ghcr.io", None)) is None
    assert len(source.asked) == 1


def test_an_answer_is_kept_until_it_expires(clock: Clock) -> None:
    source = Script(
        Credential(username="me", password="old", expires_at=clock.now + 10),
        Credential(username="me", password="new", expires_at=clock.now + 20),
        None,
    )
    cache = CredentialCache(source)
    seen = []
    for _ in range(4):
        seen.append([get(cache, WHO, None), cached(cache, WHO)])
        clock.now += 9.5
    assert seen == [[OLD, OLD], [OLD, OLD], [NEW, NEW], [None, None]]
    clock.now += 1e9
    assert get(cache, WHO, None) is None
    assert len(source.asked) == 3


def test_at_the_moment_at_which_it_expires_it_is_asked_for_again(clock: Clock) -> None:
    source = Script(Credential(username="me", password="old", expires_at=clock.now + 10), NEW)
    cache = CredentialCache(source)
    get(cache, WHO, None)
    clock.now += 10
    assert cached(cache, WHO) is None
    assert get(cache, WHO, None) == NEW


def test_an_answer_that_has_expired_already_is_given_out_and_not_kept(clock: Clock) -> None:
    source = Script(Credential(username="me", password="old", expires_at=clock.now - 1))
    cache = CredentialCache(source)
    assert [get(cache, WHO, None) for _ in range(2)] == [OLD, OLD]
    assert len(source.asked) == 2


def test_without_an_expiry_it_is_kept_for_ever(clock: Clock) -> None:
    cache = CredentialCache(Script(OLD, NEW))
    get(cache, WHO, None)
    clock.now += 1e9
    assert get(cache, WHO, None) == OLD


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_MAX_ANSWERS", 3)
    source = Script(OLD)
    cache = CredentialCache(source)
    everyone = [CredentialKey("ghcr.io", str(number)) for number in range(10)]
    for who in everyone:
        get(cache, who, None)
    assert [who for who in everyone if cached(cache, who)] == everyone[-3:]


# --- rejections ---


@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (OLD, None), (None, NEW), (OLD, OLD), (None, None)])
def test_after_a_rejection_the_source_is_asked_once_more(old: Credential | None, new: Credential | None) -> None:
    source = Script(old, new, Credential(username="never"))
    cache = CredentialCache(source)
    assert get(cache, WHO, None) == old
    assert get_after_rejection(cache, WHO, old, None) == new
    assert get(cache, WHO, None) == new
    assert len(source.asked) == 2


def test_the_rejection_of_what_is_no_longer_said_asks_nobody() -> None:
    source = Script(OLD, NEW, Credential(username="never"))
    cache = CredentialCache(source)
    get(cache, WHO, None)
    get_after_rejection(cache, WHO, OLD, None)
    assert get_after_rejection(cache, WHO, OLD, None) == NEW
    assert len(source.asked) == 2


def test_a_rejection_is_that_of_one_host_and_repository() -> None:
    source = Script(OLD)
    cache = CredentialCache(source)
    others = [CredentialKey("ghcr.io", "other"), CredentialKey("quay.io", "app")]
    for who in (WHO, *others):
        get(cache, who, None)
    get_after_rejection(cache, WHO, OLD, None)
    assert source.asked == [WHO, *others, WHO]
    assert all(cached(cache, who) == OLD for who in others)


def test_a_source_that_fails_after_a_rejection_leaves_nothing_behind() -> None:
    cache = CredentialCache(Script(OLD, AuthError("broken"), NEW))
    get(cache, WHO, None)
    with pytest.raises(AuthError, match="broken"):
        get_after_rejection(cache, WHO, OLD, None)
    assert cached(cache, WHO) is None
    assert get(cache, WHO, None) == NEW


# --- exceptions and nonsense ---


class Vault:
    """A source that a company wrote."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        raise self.error


def test_an_exception_is_not_kept() -> None:
    source = Script(AuthError("broken"), ValueError("broken"), OLD)
    cache = CredentialCache(source)
    for _ in range(2):
        with pytest.raises(AuthError):
            get(cache, WHO, None)
        assert cached(cache, WHO) is None
    assert get(cache, WHO, None) == OLD
    assert len(source.asked) == 3


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        OSError(5, SECRET),
        TimeoutError(SECRET),
        ConnectionResetError(SECRET),
        UsageError(SECRET),
        TransportTimeout(SECRET),
        RecursionError(),
        StopIteration(SECRET),
    ],
)
def test_a_foreign_exception_becomes_an_auth_error(error: Exception) -> None:
    with pytest.raises(AuthError) as caught:
        get(CredentialCache(Vault(error)), WHO, None)
    assert type(caught.value) is AuthError
    assert caught.value.__cause__ is error
    message = str(caught.value)
    assert all(word in message for word in ("Vault", "ghcr.io", type(error).__name__))
    assert SECRET not in message


@pytest.mark.parametrize("error", [AuthError("x"), CredentialsRejected("x", host="h", status=401), AuthTimeout("x")])
def test_an_auth_error_stays_what_it_is(error: AuthError) -> None:
    with pytest.raises(AuthError) as caught:
        get(CredentialCache(Vault(error)), WHO, None)
    assert caught.value is error


@pytest.mark.parametrize("killed_by", [KeyboardInterrupt, SystemExit])
def test_what_kills_a_thread_is_not_caught(killed_by: type[BaseException]) -> None:
    cache = CredentialCache(Script(killed_by(), OLD))
    with pytest.raises(killed_by):
        get(cache, WHO, None)
    assert get(cache, WHO, None) == OLD


@pytest.mark.parametrize(
    "answer", [SECRET, ("me", SECRET), {"username": "me", "password": SECRET}, True, False, 0, "", b"", (), Credential]
)
def test_a_source_that_answers_nonsense_is_an_auth_error(answer: Any) -> None:
    source = Script(answer, OLD)
    cache = CredentialCache(source)
    with pytest.raises(AuthError) as caught:
        get(cache, WHO, None)
    assert "Script" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert cached(cache, WHO) is None
    assert get(cache, WHO, None) == OLD


@pytest.mark.parametrize("source", [None, OLD, "me:secret", StaticCredentials, lambda host, repository=None: OLD])
def test_what_is_no_source_is_refused_at_once(source: Any) -> None:
    with pytest.raises(UsageError):
        CredentialCache(source)


@pytest.mark.parametrize("source", [Anonymous(), StaticCredentials("ghcr.io", OLD)])
def test_messages_call_a_source_by_its_class(source: CredentialSource) -> None:
    assert CredentialCache(source).source_name == type(source).__name__


def test_a_source_that_asks_itself_is_an_auth_error() -> None:
    class Ouroboros:
        def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
            return get(cache, CredentialKey(host, "another"), None)

    cache = CredentialCache(Ouroboros())
    with pytest.raises(AuthError, match="credential"):
        get(cache, WHO, None)


def test_a_source_may_ask_about_another_host() -> None:
    class Borrowing:
        def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
            return OLD if host == "quay.io" else get(cache, CredentialKey("quay.io", None), None)

    cache = CredentialCache(Borrowing())
    assert get(cache, WHO, None) == OLD


# --- threads ---


class Busy:
    """A source that counts how many are in it for each host, and lets nobody out before it is told to."""

    def __init__(self, answer: Any = OLD) -> None:
        self.answer = answer
        self.entered = threading.Semaphore(0)
        self.leave = threading.Event()
        self.asked: list[tuple[str, str | None]] = []
        self.most: dict[str, int] = {}
        self._inside: dict[str, int] = {}
        self._lock = threading.Lock()

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        with self._lock:
            self.asked.append((host, repository))
            self._inside[host] = self._inside.get(host, 0) + 1
            self.most[host] = max(self.most.get(host, 0), self._inside[host])
        self.entered.release()
        assert self.leave.wait(PATIENCE)
        with self._lock:
            self._inside[host] -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


def together(number: int, function: Callable[[int], object]) -> list[Call]:
    """Calls that begin at once."""
    barrier = threading.Barrier(number + 1)

    def call(index: int) -> object:
        barrier.wait(PATIENCE)
        return function(index)

    calls = [Call(lambda index=index: call(index)) for index in range(number)]  # type: ignore[misc]
    barrier.wait(PATIENCE)
    return calls


def test_a_source_is_asked_by_one_call_at_a_time_for_each_host() -> None:
    source = Busy()
    cache = CredentialCache(source)
    calls = together(6, lambda index: get(cache, CredentialKey("ghcr.io", f"app-{index}"), None))
    assert source.entered.acquire(timeout=PATIENCE)
    source.leave.set()
    assert [call.join().result for call in calls] == [OLD] * 6
    assert source.most == {"ghcr.io": 1}
    assert sorted(source.asked) == [("ghcr.io", f"app-{index}") for index in range(6)]


def test_a_source_is_asked_about_several_hosts_at_once() -> None:
    source = Busy()
    cache = CredentialCache(source)
    calls = together(4, lambda index: get(cache, CredentialKey(f"host-{index}", "app"), None))
    for _ in calls:
        assert source.entered.acquire(timeout=PATIENCE), "a host waits for another"
    source.leave.set()
    assert [call.join().result for call in calls] == [OLD] * 4


def test_who_wants_the_same_asks_once() -> None:
    source = Busy()
    cache = CredentialCache(source)
    calls = together(6, lambda _: get(cache, WHO, None))
    assert source.entered.acquire(timeout=PATIENCE)
    source.leave.set()
    assert [call.join().result for call in calls] == [OLD] * 6
    assert source.asked == [WHO]


def test_what_is_kept_is_had_while_the_source_is_busy() -> None:
    source = Busy()
    source.leave.set()
    cache = CredentialCache(source)
    get(cache, WHO, None)
    source.entered.acquire()
    source.leave.clear()
    call = Call(lambda: get(cache, CredentialKey("ghcr.io", "other"), None))
    assert source.entered.acquire(timeout=PATIENCE)
    assert get(cache, WHO, time.monotonic() - 1) == OLD
    source.leave.set()
    assert call.join().result == OLD


def test_a_deadline_bounds_the_wait_for_another_thread() -> None:
    source = Busy()
    cache = CredentialCache(source)
    leader = Call(lambda: get(cache, WHO, None))
    assert source.entered.acquire(timeout=PATIENCE)
    for who in (WHO, CredentialKey("ghcr.io", "other")):
        with pytest.raises(AuthTimeout) as caught:
            get(cache, who, time.monotonic() - 1)
        assert isinstance(caught.value, TransportTimeout)
    source.leave.set()
    assert leader.join().result == OLD
    assert source.asked == [WHO]
