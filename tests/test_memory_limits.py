"""Everything that a client remembers about a hostile registry is bounded in bytes, not only in entries."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

import ociwire.transport.retry
from ociwire import Client, FunctionTransport, Origin, Request, Response, Scope
from ociwire._client import pagination as listing
from ociwire._client.pagination import iter_pages
from ociwire._http.origin_policy import next_page, redirect_target, upload_location
from ociwire._http.urls import check_url, split_url
from ociwire.auth.credentials import first_repository
from ociwire.errors import ProtocolError, UsageError
from ociwire.transport import RedirectTransport, RetryTransport

MIB = 1024 * 1024
COUNT = 1100
"""More entries than any cache has."""
LONG = "x" * 60_000
"""Approximately the maximum length of a value in a response head."""
LONG_COUNT = 100
"""Number of long texts: 6 MB, if a cache keeps them."""
NUMBERS = itertools.count()
"""Makes the URLs of all tests different, so that no test finds entries of another in a cache."""
STDLIB = 128 * 2 * len(LONG)
"""Size of the cache of `urllib.parse.urlsplit`: 128 URLs and their parts."""


@pytest.fixture
def held_bytes() -> Iterator[Callable[[], int]]:
    """Return the number of bytes allocated since the start of the test that are still in use."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "parse",
    [
        split_url,
        Origin.of,
        check_url,
        lambda url: Request("GET", url),
    ],
    ids=["split_url", "Origin.of", "check_url", "Request"],
)
def test_url_cache_long_url_is_not_kept(held_bytes: Callable[[], int], parse: Callable[[str], object]) -> None:
    for _ in range(LONG_COUNT):
        parse(f"https://registry.example/{LONG}?{next(NUMBERS)}")
    assert held_bytes() < MIB


@pytest.mark.slow
@pytest.mark.parametrize("follow", [upload_location, redirect_target, next_page])
def test_url_cache_long_url_from_registry_is_not_kept(
    held_bytes: Callable[[], int], follow: Callable[[str, str], object]
) -> None:
    for number in range(COUNT):
        follow("https://registry.example/v2/", f"https://registry.example/{LONG}?{number}")
    assert held_bytes() < STDLIB + MIB


def test_url_cache_is_bounded_in_bytes(held_bytes: Callable[[], int]) -> None:
    for number in range(2 * COUNT):
        split_url(f"https://registry.example/{'x' * 2000}?{number}")
    assert held_bytes() < 6 * MIB


def test_url_cache_long_host_is_not_kept(held_bytes: Callable[[], int]) -> None:
    for number in range(LONG_COUNT):
        with pytest.raises(UsageError):
            split_url(f"https://{LONG}{number}/")
    assert held_bytes() < MIB


def test_scope_cache_long_text_is_not_kept(held_bytes: Callable[[], int]) -> None:
    for number in range(LONG_COUNT):
        assert first_repository(Scope.parse(f"repository:a/{LONG}{number}:pull")) == f"a/{LONG}{number}"
    assert held_bytes() < MIB


@pytest.mark.slow
def test_seen_warnings_are_not_kept_as_text(held_bytes: Callable[[], int], caplog: pytest.LogCaptureFixture) -> None:
    numbers = iter(range(COUNT))

    def answer(request: Request) -> Response:
        return Response(200, {"Warning": f'299 - "{LONG}{next(numbers)}"', "Content-Length": "1"})

    caplog.set_level("ERROR", "ociwire.warnings")
    client = Client("registry.example", FunctionTransport(answer))
    for _ in range(COUNT):
        client.do(Request("GET", "/v2/")).close()
    assert held_bytes() < MIB


def page(here: int, there: int) -> Response:
    request = Request("GET", f"https://registry.example/v2/a/tags/list?p={here}")
    return Response(200, {"Link": f"<?p={there}>; rel=next"}, b'{"tags": ["a"]}', request)


def test_pagination_remembered_urls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MAX_SEEN", 10)
    numbers = itertools.count()
    found = iter_pages(lambda url: page(number := next(numbers), number + 1), "/v2/a/tags/list", "tags")
    for _ in range(500):
        next(found)
        assert len(found.gi_frame.f_locals["seen"]) <= 12  # type: ignore[attr-defined]  # a generator


def test_pagination_loop_after_the_bound_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MAX_SEEN", 10)
    requests: list[str] = []

    def send(url: str) -> Response:
        requests.append(url)
        assert len(requests) < 1000, "it goes on for ever"
        number = len(requests) - 1
        here, there = (n if n < 500 else 500 + n % 6 for n in (number, number + 1))
        return page(here, there)

    with pytest.raises(ProtocolError, match=r"^pagination loop: "):
        list(iter_pages(send, "/v2/a/tags/list", "tags"))
    assert 506 <= len(requests) <= 520


def test_retry_after_of_many_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ociwire.transport.retry, "_MAX_BLOCKED", 1500)

    def answer(request: Request) -> Response:
        return Response(503, {"Retry-After": "50"}, b"", request)

    retry = RetryTransport(FunctionTransport(answer), retry=False)
    for number in range(2 * COUNT):
        retry.round_trip(Request("GET", f"https://host{number}.example/v2/")).close()
    assert len(retry._tracker._blocked_until) == 1500
    assert Origin.of(f"https://host{2 * COUNT - 1}.example/") in retry._tracker._blocked_until, (
        "the latest is remembered"
    )


@pytest.mark.slow
def test_redirect_long_url_is_not_kept(held_bytes: Callable[[], int]) -> None:
    numbers = iter(range(10**6))

    def answer(request: Request) -> Response:
        number = next(numbers)
        moved = {"Location": f"https://elsewhere.example/{LONG}{number}"}
        return Response(307, moved, b"", request) if number % 2 == 0 else Response(200, (), b"", request)

    redirects = RedirectTransport(FunctionTransport(answer))
    for _ in range(COUNT):
        redirects.round_trip(Request("GET", "https://registry.example/v2/")).close()
    assert held_bytes() < STDLIB + MIB
