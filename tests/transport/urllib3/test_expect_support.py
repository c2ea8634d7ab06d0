"""Cache of the origins that do not support ``Expect``, tested without a server."""

from __future__ import annotations

import pytest

from ociwire._http.messages import Body
from ociwire._http.urls import Origin
from ociwire.transport._urllib3 import expect_continue
from tests._support.doubles import FakeClock

FIRST, SECOND, THIRD = (Origin.of(f"https://{name}.example/") for name in ("first", "second", "third"))
LARGE = Body.of(b"l" * (expect_continue.SMALL_BODY + 1))


def test_record_stored_origin_again_keeps_other_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expect_continue, "_MAX_ORIGINS", 2)
    support = expect_continue.ExpectSupport()
    support.record_refusal(FIRST)
    support.record_refusal(SECOND)
    support.record_refusal(SECOND)
    assert [support.may_expect(origin) for origin in (FIRST, SECOND)] == [False, False]


def test_record_beyond_limit_evicts_oldest_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expect_continue, "_MAX_ORIGINS", 2)
    support = expect_continue.ExpectSupport()
    for origin in (FIRST, SECOND, THIRD):
        support.record_refusal(origin)
    assert [support.may_expect(origin) for origin in (FIRST, SECOND, THIRD)] == [True, False, False]


def test_record_continue_removes_timeout_but_not_refusal(clock: FakeClock) -> None:
    support = expect_continue.ExpectSupport()
    support.record_timeout(FIRST)
    support.record_refusal(SECOND)
    support.record_timeout(SECOND)
    assert not support.should_wait(FIRST, LARGE)
    support.record_continue(FIRST)
    support.record_continue(SECOND)
    assert support.should_wait(FIRST, LARGE)
    assert not support.may_expect(SECOND)
    clock.now += expect_continue.MAX_AGE
    assert support.may_expect(SECOND)
