"""Tags and repositories, page by page: by Link, else by ``last=``, each name once, and never for ever."""

from __future__ import annotations

import json
import tracemalloc
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire import Client, FunctionTransport, Request, Response, errors
from tests.client.test_client import BASE, Registry, Tracked, refused

LIST = "/v2/a/tags/list"
NEXT = f"<{LIST}?last=b>; rel=next"


def page(names: Any, *links: str, key: str = "tags") -> Response:
    return Response(200, [("Link", link) for link in links], json.dumps({"name": "a", key: names}).encode())


def targets(registry: Registry) -> list[str]:
    return [request.url.removeprefix(BASE) for request in registry.requests]


@pytest.mark.parametrize("limit", [None, 2000])
@pytest.mark.parametrize("odd", ["\ud800", None, 5, ["a"], {}])
def test_tags_entry_that_is_not_text_is_skipped_and_logged(
    limit: int | None, odd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"t{number}" for number in range(999)]
    registry = Registry(page([*names[:500], odd, *names[500:]]), *([] if limit is None else [page(["z"])]))
    with caplog.at_level("WARNING", "ociwire.client"):
        assert list(registry.client.tags("a", limit=limit)) == [*names, *([] if limit is None else ["z"])]
    assert [record.getMessage() for record in caplog.records] == ["skipped 1 of 1000 entries of tags: expected text"]
    registry.check_done()


# --- Link ---


@pytest.mark.parametrize(
    "links",
    [
        [f"<{LIST}?last=b>; rel=next"],
        [f'<{LIST}?last=b>; rel="next"'],
        [f"<{LIST}?last=b>;rel=next"],
        [f'<{LIST}?last=b> ; rel = "next"'],
        [f"<{LIST}?last=b>; REL=NEXT"],
        [f'<{LIST}?last=b>; rel="next last"'],
        [f'<{LIST}?last=b>; rel="index  Next"'],
        [f'<{LIST}?last=b>; title="a, b; <c>"; rel=next'],
        [f'<{LIST}?last=b>; rel=next; title="x"'],
        [f"<{LIST}?last=b>; crossorigin; rel=next"],
        [f"<{LIST}?last=b>"],
        [f'<{LIST}?last=b>; title="the rest"'],
        [f"<{BASE}{LIST}?last=b>; rel=next"],
        [f"<{BASE}:443{LIST}?last=b>; rel=next"],
        ["<list?last=b>; rel=next"],
        ["<../tags/list?last=b>; rel=next"],
        ["<?last=b>; rel=next"],
        [f"<//registry.example{LIST}?last=b>; rel=next"],
        [f"<{LIST}?last=b#part>; rel=next"],
        [f"</v2/a/tags/list?first>; rel=prev, <{LIST}?last=b>; rel=next"],
        [f'</first>; rel="first", <{LIST}?last=b>; rel="next", </last>; rel="last"'],
        ["</first>; rel=first", f"<{LIST}?last=b>; rel=next"],
        ["</first>; rel=first", f"<{LIST}?last=b>; rel=next", "</last>; rel=last"],
        [f'</x>; title="rel=next"; rel=prev, <{LIST}?last=b>; rel=next'],
        [f'</x>; title="a; rel=next"; rel=prev, <{LIST}?last=b>; rel=next'],
        [f'</x>; rel="nextish", <{LIST}?last=b>; rel=next'],
    ],
)
def test_tags_link_to_next_page_is_followed(links: list[str]) -> None:
    registry = Registry(page(["a", "b"], *links), page(["c"]))
    assert list(registry.client.tags("a")) == ["a", "b", "c"]
    where = registry.requests[1].url.replace(":443/", "/")
    assert where == f"{BASE}{LIST}?last=b"
    registry.check_done()


@pytest.mark.parametrize(
    "links",
    [
        [],
        [""],
        ["</v2/a/tags/list?x>; rel=prev"],
        ["</v2/a/tags/list?x>; rel=first, </v2/a/tags/list?y>; rel=last"],
        ['</v2/a/tags/list?x>; rel="next-archive"'],
        ['</v2/a/tags/list?x>; title="rel=next"; rel=prev'],
    ],
)
def test_tags_without_link_to_next_page_ends(links: list[str]) -> None:
    registry = Registry(page(["a", "b"], *links))
    assert list(registry.client.tags("a")) == ["a", "b"]
    assert targets(registry) == [LIST]
    registry.check_done()


def test_tags_relative_link_is_resolved_against_redirected_url() -> None:
    def moved(request: Request) -> Response:
        asked = request.replace(url=f"{BASE}/v2/elsewhere/tags/list")
        return Response(200, {"Link": "<list?last=a>; rel=next"}, b'{"tags": ["a"]}', asked)

    registry = Registry(moved, page(["b"]))
    assert list(registry.client.tags("a")) == ["a", "b"]
    assert targets(registry)[1] == "/v2/elsewhere/tags/list?last=a"


@pytest.mark.parametrize(
    "target",
    [
        "https://elsewhere.example/v2/a/tags/list",
        "//elsewhere.example/v2/a/tags/list",
        "http://registry.example/v2/a/tags/list",
        "https://registry.example:8443/v2/a/tags/list",
        "https://user:secret@registry.example/v2/a/tags/list",
        "https://sub.registry.example/",
        "ftp://registry.example/",
        "https://registry.example\\@elsewhere.example/",
        "https://[::1/",
        "/a\tb",
    ],
)
@pytest.mark.parametrize("rel", ["; rel=next", ""])
def test_tags_cross_origin_link_raises_protocol_error(target: str, rel: str) -> None:
    registry = Registry(page(["a"], f"<{target}>{rel}"))
    tags = registry.client.tags("a")
    with pytest.raises(errors.ProtocolError) as caught:
        list(tags)
    assert "secret" not in str(caught.value)
    assert caught.value.request is registry.requests[0]
    registry.check_done()


@pytest.mark.parametrize("target", [LIST, f"{BASE}{LIST}", "?", "", "list", f"{LIST}#b"])
def test_tags_link_to_same_page_raises_protocol_error(target: str) -> None:
    registry = Registry(*[page(["a", "b"], f"<{target}>; rel=next")] * 3)
    tags = registry.client.tags("a")
    with pytest.raises(errors.ProtocolError) as caught:
        list(tags)
    assert len(registry.requests) <= 2
    assert caught.value.request is registry.requests[-1]
    assert all(body.closed for body in registry.bodies[: len(registry.requests)])


def in_a_circle(length: int, requests: list[Request]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        requests.append(request)
        assert len(requests) < 10 * length, "it goes on for ever"
        number = int(parse_qs(urlsplit(request.url).query).get("p", ["0"])[0])
        return page([f"t{number}"], f"<?p={(number + 1) % length}>; rel=next")

    return answer


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_tags_pagination_loop_raises_protocol_error(length: int) -> None:
    requests: list[Request] = []
    client = Client("registry.example", FunctionTransport(in_a_circle(length, requests)))
    read: list[str] = []
    with pytest.raises(errors.ProtocolError, match="circle"):
        read.extend(client.tags("a"))
    assert length <= len(requests) <= length + 1


def test_tags_pagination_loop_by_redirect_raises_protocol_error() -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Response:
        requests.append(request)
        assert len(requests) < 20, "it goes on for ever"
        moved = request.replace(url=f"{BASE}/moved")
        return Response(200, {"Link": f"<{LIST}>; rel=next"}, b'{"tags": ["a"]}', moved)

    client = Client("registry.example", FunctionTransport(answer))
    with pytest.raises(errors.ProtocolError, match="circle"):
        list(client.tags("a"))


# --- limits, and pages without a Link ---


@pytest.mark.parametrize(("limit", "asked"), [(1, 1), (2, 2), (999, 999), (1000, 1000), (1001, 1000), (10**9, 1000)])
def test_lists_page_size_is_limit_up_to_1000(limit: int, asked: int) -> None:
    registry = Registry(page([]), page([], key="repositories"))
    assert list(registry.client.tags("a", limit=limit)) == []
    assert list(registry.client.repositories(limit=limit)) == []
    assert targets(registry) == [f"{LIST}?n={asked}", f"/v2/_catalog?n={asked}"]
    registry.check_done()


def test_lists_without_limit_send_no_page_size() -> None:
    registry = Registry(page(["a"] * 1000), page(["a"] * 1000, key="repositories"))
    assert len(list(registry.client.tags("a"))) == 1000
    assert len(list(registry.client.repositories())) == 1000
    assert targets(registry) == [LIST, "/v2/_catalog"]
    registry.check_done()


def test_lists_limit_of_0_sends_nothing() -> None:
    registry = Registry()
    assert list(registry.client.tags("a", limit=0)) == []
    assert list(registry.client.repositories(limit=0)) == []
    assert registry.requests == []


def test_tags_limit_counts_all_pages() -> None:
    registry = Registry(page(["a", "b", "c"], NEXT), page(["d", "e", "f"], "<?last=f>; rel=next"))
    assert list(registry.client.tags("a", limit=5)) == ["a", "b", "c", "d", "e"]
    registry.check_done()


@pytest.mark.parametrize("links", [[], [NEXT]])
def test_tags_limit_reached_requests_no_further_page(links: list[str]) -> None:
    registry = Registry(page(["a", "b"], *links))
    assert list(registry.client.tags("a", limit=2)) == ["a", "b"]
    registry.check_done()


def test_tags_page_longer_than_limit_is_cut() -> None:
    registry = Registry(page(["a", "b", "c"]))
    assert list(registry.client.tags("a", limit=2)) == ["a", "b"]
    registry.check_done()


def numbered(start: int, stop: int) -> list[str]:
    return [f"t{number:06}" for number in range(start, stop)]


def test_tags_full_page_without_link_requests_page_after_last_name() -> None:
    registry = Registry(page(numbered(0, 1000)), page(numbered(1000, 2000)), page(numbered(2000, 2100)))
    assert list(registry.client.tags("a", limit=5000)) == numbered(0, 2100)
    assert targets(registry) == [f"{LIST}?n=1000{last}" for last in ("", "&last=t000999", "&last=t001999")]
    registry.check_done()


def test_tags_partial_page_without_link_ends() -> None:
    registry = Registry(page(numbered(0, 999)))
    assert list(registry.client.tags("a", limit=5000)) == numbered(0, 999)
    registry.check_done()


def test_tags_empty_page_ends() -> None:
    registry = Registry(page(numbered(0, 1000)), page([]))
    assert list(registry.client.tags("a", limit=5000)) == numbered(0, 1000)
    registry.check_done()


def test_tags_last_page_after_link_ends() -> None:
    registry = Registry(page(numbered(0, 1000), "<?x>; rel=next"), page(numbered(1000, 2000)))
    assert list(registry.client.tags("a", limit=5000)) == numbered(0, 2000)
    registry.check_done()


@pytest.mark.parametrize("extra", [0, 500])
def test_tags_server_without_pagination_lists_each_name_once(extra: int) -> None:
    """It sends the same list whatever it is asked; with `extra`, more than it was asked for."""
    registry = Registry(*[page(numbered(0, 1000 + extra))] * 2)
    assert list(registry.client.tags("a", limit=5000)) == numbered(0, 1000 + extra)
    registry.check_done()


def test_lists_start_after_is_sent_as_last() -> None:
    registry = Registry(page(["c"]), page(["x"], key="repositories"), page([]))
    assert list(registry.client.tags("a", start_after="b")) == ["c"]
    assert list(registry.client.repositories(start_after="b/c d&e", limit=7)) == ["x"]
    assert list(registry.client.tags("a", start_after="b", limit=1)) == []
    assert targets(registry) == [
        f"{LIST}?last=b",
        "/v2/_catalog?n=7&last=b%2Fc+d%26e",
        f"{LIST}?n=1&last=b",
    ]
    registry.check_done()


# --- pages ---


@pytest.mark.parametrize("body", [b'{"tags": null}', b'{"tags": []}', b'{"name": "a"}', b"{}"])
def test_lists_empty_or_null_returns_no_names(body: bytes) -> None:
    registry = Registry(Response(200, (), body), Response(200, (), body))
    assert list(registry.client.tags("a")) == []
    assert list(registry.client.repositories(limit=5)) == []
    registry.check_done()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"[]",
        b'["a"]',
        b"null",
        b'"tags"',
        b'{"tags": "abc"}',
        b'{"tags": {"a": 1}}',
        b'{"tags": 5}',
        b'{"tags": ["a"',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_tags_invalid_page_raises_protocol_error(body: bytes) -> None:
    registry = Registry(Response(200, (), body))
    tags = registry.client.tags("a")
    with pytest.raises(errors.ProtocolError) as caught:
        next(tags)
    assert caught.value.request is registry.requests[0]
    registry.check_done()


def test_tags_endless_page_raises_protocol_error() -> None:
    class Endless:
        read = 0
        closed = False

        def readinto(self, buffer: memoryview, /) -> int:
            buffer[:] = b" " * len(buffer)
            self.read += len(buffer)
            assert self.read <= 128 * 1024 * 1024, "it is read without a bound"
            return len(buffer)

        def close(self) -> None:
            self.closed = True

    body = Endless()
    registry = Registry(lambda request: Response(200, (), body))
    with pytest.raises(errors.ProtocolError):
        next(registry.client.tags("a"))
    assert body.closed
    assert body.read < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(404), errors.NameUnknown),
        (refused(404, "NAME_UNKNOWN"), errors.NameUnknown),
        (refused(401), errors.Unauthorized),
        (refused(429), errors.TooManyRequests),
        (Response(204), errors.RegistryError),
    ],
)
def test_tags_second_page_refused_raises_registry_error(answer: Response, kind: type[Exception]) -> None:
    registry = Registry(page(["a"], NEXT), answer)
    tags = registry.client.tags("a")
    assert next(tags) == "a"
    with pytest.raises(errors.RegistryError) as caught:
        next(tags)
    assert type(caught.value) is kind
    assert list(tags) == []
    registry.check_done()


# --- the call, and the iteration ---


@pytest.mark.parametrize("name", ["", "Upper", "a b", "../a", "a?b", None, 5])
def test_tags_invalid_repository_raises_at_call(name: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        registry.client.tags(name)
    assert registry.requests == []


@pytest.mark.parametrize("limit", [-1, 1.0, "1", True, b"1"])
def test_lists_invalid_limit_raises_at_call(limit: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        registry.client.tags("a", limit=limit)
    with pytest.raises(errors.UsageError):
        registry.client.repositories(limit=limit)
    assert registry.requests == []


@pytest.mark.parametrize("start_after", [5, b"a", ["a"], True])
def test_lists_invalid_start_after_raises_at_call(start_after: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        registry.client.tags("a", start_after=start_after)
    with pytest.raises(errors.UsageError):
        registry.client.repositories(start_after=start_after)
    assert registry.requests == []


def test_tags_iteration_requests_pages_on_demand_and_closes_them() -> None:
    registry = Registry(page(["a", "b"], NEXT), page(["c"], "<?last=c>; rel=next"), page([]))
    tags = registry.client.tags("a")
    assert iter(tags) is tags
    assert registry.requests == []
    for expected, asked in [("a", 1), ("b", 1), ("c", 2)]:
        assert next(tags) == expected
        assert len(registry.requests) == asked
        assert [body.closed for body in registry.bodies[:asked]] == [True] * asked
    assert list(tags) == []
    registry.check_done()


def test_tags_abandoned_iteration_leaves_nothing_open() -> None:
    registry = Registry(page(["a", "b"], NEXT))
    tags = registry.client.tags("a")
    assert next(tags) == "a"
    del tags
    registry.check_done()


# --- many ---


class Many:
    """A registry of ``t000000``, ``t000001``, … that answers as a real one: ordered, with ``n`` and ``last``.

    Args:
        names: What it has.
        page_size: The most it gives in a page, whatever is asked for; None gives all.
        links: Whether it sends Link.
        knows_last: Whether it begins after ``last``.
        knows_n: Whether it gives no more than ``n``.
    """

    def __init__(
        self,
        names: list[str],
        page_size: int | None,
        *,
        links: bool = True,
        knows_last: bool = True,
        knows_n: bool = True,
    ) -> None:
        self.open = 0
        self.pages = 0
        self._names = names
        self._page_size = page_size or max(1, len(names))
        self._links = links
        self._knows_last = knows_last
        self._knows_n = knows_n
        self.client = Client("registry.example", FunctionTransport(self._answer))

    def _answer(self, request: Request) -> Response:
        self.pages += 1
        assert self.pages <= 3 * len(self._names) + 10, "it goes on for ever"
        query = parse_qs(urlsplit(request.url).query)
        start = bisect_right(self._names, query["last"][0]) if "last" in query and self._knows_last else 0
        count = min(int(query["n"][0]) if "n" in query and self._knows_n else self._page_size, self._page_size)
        found = self._names[start : start + count]
        more = self._links and start + count < len(self._names)
        link = [("Link", f'</v2/a/tags/list?last={found[-1]}&n={count}>; rel="next"')] if more else []
        return Response(200, link, Tracked(json.dumps({"tags": found}).encode()))


def peak_of(tags: Iterator[str]) -> tuple[int, int]:
    """How many there are, and the most memory that was in use beside what was before, in bytes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        count = sum(1 for _ in tags)
        return count, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("limit", [None, 20_000])
def test_tags_ten_thousand_names_use_memory_of_one_page(limit: int | None) -> None:
    names = [f"t{number:05}{'x' * 90}" for number in range(10_000)]
    peaks = {}
    for page_size in (100, 10_000):
        many = Many(names, page_size, links=True)
        count, peaks[page_size] = peak_of(many.client.tags("a", limit=limit))
        assert count == len(names)
    # A page of 100 is some 15 KB beside a buffer of 256; all of them, as they are in the other case, are some 3 MB.
    assert peaks[100] < 600_000
    assert limit is not None or peaks[10_000] > 2 * peaks[100]


@given(
    count=st.integers(0, 60),
    page_size=st.none() | st.integers(1, 20),
    limit=st.none() | st.integers(0, 70),
    start=st.none() | st.integers(0, 60),
    links=st.booleans(),
    knows_n=st.booleans(),
)
def test_tags_any_pages_and_limit_lists_each_name_once_in_order(
    count: int, page_size: int | None, limit: int | None, start: int | None, links: bool, knows_n: bool
) -> None:
    names = numbered(0, count)
    if not links:
        page_size = None  # without Link, a page that is not full is the last: a server that cuts more cannot be read
    many = Many(names, page_size, links=links, knows_n=knows_n)
    start_after = None if start is None else f"t{start:06}"
    after = names if start_after is None else [name for name in names if name > start_after]
    assert list(many.client.tags("a", start_after=start_after, limit=limit)) == after[:limit]


@given(count=st.integers(0, 30), limit=st.none() | st.integers(0, 40))
def test_tags_any_count_without_pagination_lists_each_name_once(count: int, limit: int | None) -> None:
    names = numbered(0, count)
    many = Many(names, None, links=False, knows_last=False, knows_n=False)
    assert list(many.client.tags("a", limit=limit)) == names[:limit]


@pytest.mark.parametrize("page_size", [1, 7, 999, 1000, 1001])
@pytest.mark.parametrize("links", [True, False])
def test_tags_limit_over_several_pages_lists_first_names(page_size: int, links: bool) -> None:
    names = numbered(0, 2500)
    many = Many(names, page_size if links else None, links=links)
    assert list(many.client.tags("a", limit=2400)) == names[:2400]


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("code", ["", "NAME_UNKNOWN", "UNSUPPORTED", "DENIED"])
def test_repositories_without_catalog_raises_unsupported(status: int, code: str) -> None:
    body = f'{{"errors": [{{"code": "{code}"}}]}}'.encode() if code else b"404 page not found"
    client = Client("ghcr.example", FunctionTransport(lambda request: Response(status, (), body)))
    with pytest.raises(errors.Unsupported, match=r"ghcr.example has no catalog .* own API or web") as caught:
        next(client.repositories())
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.request is not None


@pytest.mark.parametrize("status", [401, 403, 404])
def test_tags_refused_does_not_raise_unsupported(status: int) -> None:
    client = Client("ghcr.example", FunctionTransport(lambda request: Response(status)))
    with pytest.raises(errors.RegistryError) as caught:
        next(client.tags("a"))
    assert not isinstance(caught.value, errors.Unsupported)


def test_tags_suspended_iterator_keeps_no_bytes_of_the_page() -> None:
    padding = 4 * 1024 * 1024

    def answer(request: Request) -> Response:
        return Response(200, (), [b'{"tags": ["a", "b"]', b" " * padding, b"}"], request=request)

    tracemalloc.start()
    try:
        names = Client("registry.example", FunctionTransport(answer)).tags("a")
        assert next(names) == "a"
        kept, _ = tracemalloc.get_traced_memory()
        assert kept < padding / 2
    finally:
        tracemalloc.stop()
    assert list(names) == ["b"]
