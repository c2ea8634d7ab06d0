"""`CredentialCache`: expiry, rejections, errors of sources, and threads."""

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
KEY = CredentialKey("ghcr.io", "app")
OLD = Credential(username="me", password="old")
NEW = Credential(username="me", password="new")


def get(cache: CredentialCache, key: CredentialKey, deadline: float | None) -> Credential | None:
    return cache.lookup(key, deadline).credential


def cached(cache: CredentialCache, key: CredentialKey) -> Credential | None:
    answer = cache.get(key)
    return None if answer is None else answer.credential


def get_after_rejection(
    cache: CredentialCache, key: CredentialKey, rejected: Credential | None, deadline: float | None
) -> Credential | None:
    cache.invalidate(key, rejected)
    return get(cache, key, deadline)


class ScriptedSource:
    """Source that returns credentials from a list, and repeats the last one."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.lookups: list[tuple[str, str | None]] = []

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        self.lookups.append((host, repository))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]


class Clock:
    """Replacement of `time.time` that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


# --- caching ---


@pytest.mark.parametrize("answer", [OLD, Credential(), None])
def test_lookup_repeated_calls_source_once(answer: Credential | None) -> None:
    source = ScriptedSource(answer, NEW)
    cache = CredentialCache(source)
    assert [get(cache, KEY, None) for _ in range(3)] == [answer] * 3
    assert source.lookups == [("ghcr.io", "app")]


def test_lookup_other_host_or_repository_calls_source() -> None:
    source = ScriptedSource(None)
    cache = CredentialCache(source)
    keys = [
        CredentialKey("ghcr.io", "app"),
        CredentialKey("ghcr.io", "other"),
        CredentialKey("ghcr.io", None),
        CredentialKey("quay.io", "app"),
    ]
    for _ in range(2):
        for key in keys:
            get(cache, key, None)
    assert source.lookups == keys


def test_get_never_calls_source() -> None:
    source = ScriptedSource(OLD)
    cache = CredentialCache(source)
    assert cached(cache, KEY) is None
    assert source.lookups == []
    get(cache, KEY, None)
    assert cached(cache, KEY) is OLD
    assert cached(cache, CredentialKey("ghcr.io", None)) is None
    assert len(source.lookups) == 1


def test_lookup_expired_answer_calls_source(clock: Clock) -> None:
    source = ScriptedSource(
        Credential(username="me", password="old", expires_at=clock.now + 10),
        Credential(username="me", password="new", expires_at=clock.now + 20),
        None,
    )
    cache = CredentialCache(source)
    results = []
    for _ in range(4):
        results.append([get(cache, KEY, None), cached(cache, KEY)])
        clock.now += 9.5
    assert results == [[OLD, OLD], [OLD, OLD], [NEW, NEW], [None, None]]
    clock.now += 1e9
    assert get(cache, KEY, None) is None
    assert len(source.lookups) == 3


def test_lookup_at_expiry_calls_source(clock: Clock) -> None:
    source = ScriptedSource(Credential(username="me", password="old", expires_at=clock.now + 10), NEW)
    cache = CredentialCache(source)
    get(cache, KEY, None)
    clock.now += 10
    assert cached(cache, KEY) is None
    assert get(cache, KEY, None) == NEW


def test_lookup_expired_answer_is_returned_and_not_cached(clock: Clock) -> None:
    source = ScriptedSource(Credential(username="me", password="old", expires_at=clock.now - 1))
    cache = CredentialCache(source)
    assert [get(cache, KEY, None) for _ in range(2)] == [OLD, OLD]
    assert len(source.lookups) == 2


def test_lookup_without_expiry_is_cached_forever(clock: Clock) -> None:
    cache = CredentialCache(ScriptedSource(OLD, NEW))
    get(cache, KEY, None)
    clock.now += 1e9
    assert get(cache, KEY, None) == OLD


def test_lookup_many_keys_evicts_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_MAX_ANSWERS", 3)
    source = ScriptedSource(OLD)
    cache = CredentialCache(source)
    keys = [CredentialKey("ghcr.io", str(number)) for number in range(10)]
    for key in keys:
        get(cache, key, None)
    assert [key for key in keys if cached(cache, key)] == keys[-3:]


# --- rejections ---


@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (OLD, None), (None, NEW), (OLD, OLD), (None, None)])
def test_lookup_after_rejection_calls_source_once(old: Credential | None, new: Credential | None) -> None:
    source = ScriptedSource(old, new, Credential(username="never"))
    cache = CredentialCache(source)
    assert get(cache, KEY, None) == old
    assert get_after_rejection(cache, KEY, old, None) == new
    assert get(cache, KEY, None) == new
    assert len(source.lookups) == 2


def test_invalidate_replaced_answer_keeps_new_one() -> None:
    source = ScriptedSource(OLD, NEW, Credential(username="never"))
    cache = CredentialCache(source)
    get(cache, KEY, None)
    get_after_rejection(cache, KEY, OLD, None)
    assert get_after_rejection(cache, KEY, OLD, None) == NEW
    assert len(source.lookups) == 2


def test_invalidate_one_key_keeps_others() -> None:
    source = ScriptedSource(OLD)
    cache = CredentialCache(source)
    others = [CredentialKey("ghcr.io", "other"), CredentialKey("quay.io", "app")]
    for key in (KEY, *others):
        get(cache, key, None)
    get_after_rejection(cache, KEY, OLD, None)
    assert source.lookups == [KEY, *others, KEY]
    assert all(cached(cache, key) == OLD for key in others)


def test_lookup_source_fails_after_rejection_caches_nothing() -> None:
    cache = CredentialCache(ScriptedSource(OLD, AuthError("broken"), NEW))
    get(cache, KEY, None)
    with pytest.raises(AuthError, match="broken"):
        get_after_rejection(cache, KEY, OLD, None)
    assert cached(cache, KEY) is None
    assert get(cache, KEY, None) == NEW


# --- errors ---


class FailingSource:
    """Source that raises an exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        raise self.error


def test_lookup_source_raises_caches_nothing() -> None:
    source = ScriptedSource(AuthError("broken"), ValueError("broken"), OLD)
    cache = CredentialCache(source)
    for _ in range(2):
        with pytest.raises(AuthError):
            get(cache, KEY, None)
        assert cached(cache, KEY) is None
    assert get(cache, KEY, None) == OLD
    assert len(source.lookups) == 3


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
def test_lookup_source_raises_other_exception_raises_auth_error(error: Exception) -> None:
    with pytest.raises(AuthError) as caught:
        get(CredentialCache(FailingSource(error)), KEY, None)
    assert type(caught.value) is AuthError
    assert caught.value.__cause__ is error
    message = str(caught.value)
    assert all(word in message for word in ("FailingSource", "ghcr.io", type(error).__name__))
    assert SECRET not in message


@pytest.mark.parametrize("error", [AuthError("x"), CredentialsRejected("x", host="h", status=401), AuthTimeout("x")])
def test_lookup_source_raises_auth_error_raises_it(error: AuthError) -> None:
    with pytest.raises(AuthError) as caught:
        get(CredentialCache(FailingSource(error)), KEY, None)
    assert caught.value is error


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_lookup_source_interrupted_propagates(signal: type[BaseException]) -> None:
    cache = CredentialCache(ScriptedSource(signal(), OLD))
    with pytest.raises(signal):
        get(cache, KEY, None)
    assert get(cache, KEY, None) == OLD


@pytest.mark.parametrize(
    "answer", [SECRET, ("me", SECRET), {"username": "me", "password": SECRET}, True, False, 0, "", b"", (), Credential]
)
def test_lookup_source_returns_wrong_type_raises_auth_error(answer: Any) -> None:
    source = ScriptedSource(answer, OLD)
    cache = CredentialCache(source)
    with pytest.raises(AuthError) as caught:
        get(cache, KEY, None)
    assert "ScriptedSource" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert cached(cache, KEY) is None
    assert get(cache, KEY, None) == OLD


@pytest.mark.parametrize("source", [Anonymous(), StaticCredentials("ghcr.io", OLD)])
def test_source_name_is_class_name(source: CredentialSource) -> None:
    assert CredentialCache(source).source_name == type(source).__name__


def test_lookup_source_calls_itself_raises_auth_error() -> None:
    class RecursiveSource:
        def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
            return get(cache, CredentialKey(host, "another"), None)

    cache = CredentialCache(RecursiveSource())
    with pytest.raises(AuthError, match="credential"):
        get(cache, KEY, None)


def test_lookup_source_looks_up_other_host_returns_credential() -> None:
    class ForwardingSource:
        def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
            return OLD if host == "quay.io" else get(cache, CredentialKey("quay.io", None), None)

    cache = CredentialCache(ForwardingSource())
    assert get(cache, KEY, None) == OLD


# --- threads ---


class BlockedSource:
    """Source that counts its concurrent calls for each host, and blocks until the test releases it."""

    def __init__(self, answer: Any = OLD) -> None:
        self.answer = answer
        self.entered = threading.Semaphore(0)
        self.released = threading.Event()
        self.lookups: list[tuple[str, str | None]] = []
        self.max_concurrent: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        with self._lock:
            self.lookups.append((host, repository))
            self._running[host] = self._running.get(host, 0) + 1
            self.max_concurrent[host] = max(self.max_concurrent.get(host, 0), self._running[host])
        self.entered.release()
        assert self.released.wait(PATIENCE)
        with self._lock:
            self._running[host] -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


def start_together(number: int, function: Callable[[int], object]) -> list[Call]:
    """Start calls at the same time, each in a thread."""
    barrier = threading.Barrier(number + 1)

    def call(index: int) -> object:
        barrier.wait(PATIENCE)
        return function(index)

    calls = [Call(lambda index=index: call(index)) for index in range(number)]  # type: ignore[misc]
    barrier.wait(PATIENCE)
    return calls


def test_lookup_same_host_calls_source_one_call_at_a_time() -> None:
    source = BlockedSource()
    cache = CredentialCache(source)
    calls = start_together(6, lambda index: get(cache, CredentialKey("ghcr.io", f"app-{index}"), None))
    assert source.entered.acquire(timeout=PATIENCE)
    source.released.set()
    assert [call.join().result for call in calls] == [OLD] * 6
    assert source.max_concurrent == {"ghcr.io": 1}
    assert sorted(source.lookups) == [("ghcr.io", f"app-{index}") for index in range(6)]


def test_lookup_several_hosts_calls_source_concurrently() -> None:
    source = BlockedSource()
    cache = CredentialCache(source)
    calls = start_together(4, lambda index: get(cache, CredentialKey(f"host-{index}", "app"), None))
    for _ in calls:
        assert source.entered.acquire(timeout=PATIENCE), "a lookup for one host waits for another host"
    source.released.set()
    assert [call.join().result for call in calls] == [OLD] * 4


def test_lookup_same_key_from_threads_calls_source_once() -> None:
    source = BlockedSource()
    cache = CredentialCache(source)
    calls = start_together(6, lambda _: get(cache, KEY, None))
    assert source.entered.acquire(timeout=PATIENCE)
    source.released.set()
    assert [call.join().result for call in calls] == [OLD] * 6
    assert source.lookups == [KEY]


def test_lookup_cached_answer_while_source_is_busy_returns_immediately() -> None:
    source = BlockedSource()
    source.released.set()
    cache = CredentialCache(source)
    get(cache, KEY, None)
    source.entered.acquire()
    source.released.clear()
    call = Call(lambda: get(cache, CredentialKey("ghcr.io", "other"), None))
    assert source.entered.acquire(timeout=PATIENCE)
    assert get(cache, KEY, time.monotonic() - 1) == OLD
    source.released.set()
    assert call.join().result == OLD


def test_lookup_deadline_passed_while_waiting_raises_timeout() -> None:
    source = BlockedSource()
    cache = CredentialCache(source)
    owner = Call(lambda: get(cache, KEY, None))
    assert source.entered.acquire(timeout=PATIENCE)
    for key in (KEY, CredentialKey("ghcr.io", "other")):
        with pytest.raises(AuthTimeout) as caught:
            get(cache, key, time.monotonic() - 1)
        assert isinstance(caught.value, TransportTimeout)
    source.released.set()
    assert owner.join().result == OLD
    assert source.lookups == [KEY]
