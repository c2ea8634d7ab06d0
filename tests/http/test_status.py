"""Groups of status codes."""

from __future__ import annotations

import pytest

from ociwire._http.status import RETRY_STATUSES, is_temporary_status


@pytest.mark.parametrize("status", [408, 429, 500, 501, 503, 524, 599])
def test_is_temporary_status_later_request_may_succeed_is_true(status: int) -> None:
    assert is_temporary_status(status)


@pytest.mark.parametrize("status", [0, 200, 307, 400, 401, 403, 404, 413, 416, 428, 499])
def test_is_temporary_status_other_status_is_false(status: int) -> None:
    assert not is_temporary_status(status)


def test_retry_statuses_are_temporary() -> None:
    assert all(map(is_temporary_status, RETRY_STATUSES))
