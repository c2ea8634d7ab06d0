"""`tags` and `repositories`: pages by Link or by ``last=``, limits, and pagination loops."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire import Client, Digest, FunctionTransport, Request, Response, errors
from tests._support.doubles import FakeReader, RecordingTransport
from tests.client.support import BASE, HOST, ScriptedRegistry, error_response

TAGS_PATH = "/v2/a/tags/list"
NEXT = f"<{TAGS_PATH}?last=b>; rel=next"


def page(names: Any, *links: str, key: str = "tags") -> Response:
    return Response(200, [("Link", link) for link in links], json.dumps({"name": "a", key: names}).encode())


@pytest.mark.parametrize("limit", [None, 2000])
@pytest.mark.parametrize("entry", ["\ud800", None, 5, ["a"], {}])
def test_tags_entry_that_is_not_text_is_skipped_and_logged(
    limit: int | None, entry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"t{number}" for number in range(999)]
    registry = ScriptedRegistry(page([*names[:500], entry, *names[500:]]), *([] if limit is None else [page(["z"])]))
    with caplog.at_level("WARNING", "ociwire.client"):
        assert list(registry.client.tags("a", limit=limit)) == [*names, *([] if limit is None else ["z"])]
    assert [record.getMessage() for record in caplog.records] == ["skipped 1 of 1000 entries of tags: expected strings"]
    registry.assert_done()


# --- Link ---


@pytest.mark.parametrize(
    "links",
    [
        [f"<{TAGS_PATH}?last=b>; rel=next"],
        [f'<{TAGS_PATH}?last=b>; rel="next"'],
        [f"<{TAGS_PATH}?last=b>;rel=next"],
        [f'<{TAGS_PATH}?last=b> ; rel = "next"'],
        [f"<{TAGS_PATH}?last=b>; REL=NEXT"],
        [f'<{TAGS_PATH}?last=b>; rel="next last"'],
        [f'<{TAGS_PATH}?last=b>; rel="index  Next"'],
        [f'<{TAGS_PATH}?last=b>; title="a, b; <c>"; rel=next'],
        [f'<{TAGS_PATH}?last=b>; rel=next; title="x"'],
        [f"<{TAGS_PATH}?last=b>; crossorigin; rel=next"],
        [f"<{TAGS_PATH}?last=b>"],
        [f'<{TAGS_PATH}?last=b>; title="the rest"'],
        [f"<{BASE}{TAGS_PATH}?last=b>; rel=next"],
        [f"<{BASE}:443{TAGS_PATH}?last=b>; rel=next"],
        ["<list?last=b>; rel=next"],
        ["<../tags/list?last=b>; rel=next"],
        ["<?last=b>; rel=next"],
        [f"<//registry.example{TAGS_PATH}?last=b>; rel=next"],
        [f"<{TAGS_PATH}?last=b#part>; rel=next"],
        [f"</v2/a/tags/list?first>; rel=prev, <{TAGS_PATH}?last=b>; rel=next"],
        [f'</first>; rel="first", <{TAGS_PATH}?last=b>; rel="next", </last>; rel="last"'],
        ["</first>; rel=first", f"<{TAGS_PATH}?last=b>; rel=next"],
        ["</first>; rel=first", f"<{TAGS_PATH}?last=b>; rel=next", "</last>; rel=last"],
        [f'</x>; title="rel=next"; rel=prev, <{TAGS_PATH}?last=b>; rel=next'],
        [f'</x>; title="a; rel=next"; rel=prev, <{TAGS_PATH}?last=b>; rel=next'],
        [f'</x>; rel="nextish", <{TAGS_PATH}?last=b>; rel=next'],
    ],
)
def test_tags_link_to_next_page_is_followed(links: list[str]) -> None:
    registry = ScriptedRegistry(page(["a", "b"], *links), page(["c"]))
    assert list(registry.client.tags("a")) == ["a", "b", "c"]
    url = registry.requests[1].url.replace(":443/", "/")
    assert url == f"{BASE}{TAGS_PATH}?last=b"
    registry.assert_done()


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
    registry = ScriptedRegistry(page(["a", "b"], *links))
    assert list(registry.client.tags("a")) == ["a", "b"]
    assert registry.paths == [TAGS_PATH]
    registry.assert_done()


def test_tags_relative_link_is_resolved_against_redirected_url() -> None:
    def redirect(request: Request) -> Response:
        redirected = request.replace(url=f"{BASE}/v2/elsewhere/tags/list")
        return Response(200, {"Link": "<list?last=a>; rel=next"}, b'{"tags": ["a"]}', redirected)

    registry = ScriptedRegistry(redirect, page(["b"]))
    assert list(registry.client.tags("a")) == ["a", "b"]
    assert registry.paths[1] == "/v2/elsewhere/tags/list?last=a"


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
    registry = ScriptedRegistry(page(["a"], f"<{target}>{rel}"))
    tags = registry.client.tags("a")
    with pytest.raises(errors.ProtocolError) as caught:
        list(tags)
    assert "secret" not in str(caught.value)
    assert caught.value.request is registry.requests[0]
    registry.assert_done()


@pytest.mark.parametrize("target", [TAGS_PATH, f"{BASE}{TAGS_PATH}", "?", "", "list", f"{TAGS_PATH}#b"])
def test_tags_link_to_same_page_raises_protocol_error(target: str) -> None:
    registry = ScriptedRegistry(*[page(["a", "b"], f"<{target}>; rel=next")] * 3)
    tags = registry.client.tags("a")
    with pytest.raises(errors.ProtocolError) as caught:
        list(tags)
    assert len(registry.requests) <= 2
    assert caught.value.request is registry.requests[-1]
    assert all(body.closed for body in registry.bodies[: len(registry.requests)])


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_tags_pagination_loop_raises_protocol_error(length: int) -> None:
    def answer(request: Request) -> Response:
        assert len(transport.requests) < 10 * length, "the list does not end"
        number = int(parse_qs(urlsplit(request.url).query).get("p", ["0"])[0])
        return page([f"t{number}"], f"<?p={(number + 1) % length}>; rel=next")

    transport = RecordingTransport(answer)
    with pytest.raises(errors.ProtocolError, match=r"^pagination loop: "):
        list(Client(HOST, transport).tags("a"))
    assert length <= len(transport.requests) <= length + 1


def test_tags_pagination_loop_by_redirect_raises_protocol_error() -> None:
    def redirect(request: Request) -> Response:
        assert len(transport.requests) < 20, "the list does not end"
        redirected = request.replace(url=f"{BASE}/moved")
        return Response(200, {"Link": f"<{TAGS_PATH}>; rel=next"}, b'{"tags": ["a"]}', redirected)

    transport = RecordingTransport(redirect)
    with pytest.raises(errors.ProtocolError, match=r"^pagination loop: "):
        list(Client(HOST, transport).tags("a"))


# --- limits, and pages without a Link ---


@pytest.mark.parametrize(
    ("limit", "page_size"), [(1, 1), (2, 2), (999, 999), (1000, 1000), (1001, 1000), (10**9, 1000)]
)
def test_lists_page_size_is_limit_up_to_1000(limit: int, page_size: int) -> None:
    registry = ScriptedRegistry(page([]), page([], key="repositories"))
    assert list(registry.client.tags("a", limit=limit)) == []
    assert list(registry.client.repositories(limit=limit)) == []
    assert registry.paths == [f"{TAGS_PATH}?n={page_size}", f"/v2/_catalog?n={page_size}"]
    registry.assert_done()


def test_lists_without_limit_send_no_page_size() -> None:
    registry = ScriptedRegistry(page(["a"] * 1000), page(["a"] * 1000, key="repositories"))
    assert len(list(registry.client.tags("a"))) == 1000
    assert len(list(registry.client.repositories())) == 1000
    assert registry.paths == [TAGS_PATH, "/v2/_catalog"]
    registry.assert_done()


def test_lists_limit_of_0_sends_nothing() -> None:
    registry = ScriptedRegistry()
    assert list(registry.client.tags("a", limit=0)) == []
    assert list(registry.client.repositories(limit=0)) == []
    assert registry.requests == []


def test_tags_limit_counts_all_pages() -> None:
    registry = ScriptedRegistry(page(["a", "b", "c"], NEXT), page(["d", "e", "f"], "<?last=f>; rel=next"))
    assert list(registry.client.tags("a", limit=5)) == ["a", "b", "c", "d", "e"]
    registry.assert_done()


@pytest.mark.parametrize("links", [[], [NEXT]])
def test_tags_limit_reached_requests_no_further_page(links: list[str]) -> None:
    registry = ScriptedRegistry(page(["a", "b"], *links))
    assert list(registry.client.tags("a", limit=2)) == ["a", "b"]
    registry.assert_done()


def test_tags_page_longer_than_limit_is_truncated() -> None:
    registry = ScriptedRegistry(page(["a", "b", "c"]))
    assert list(registry.client.tags("a", limit=2)) == ["a", "b"]
    registry.assert_done()


def numbered(start: int, stop: int) -> list[str]:
    return [f"t{number:06}" for number in range(start, stop)]


def test_tags_full_page_without_link_requests_page_after_last_name() -> None:
    registry = ScriptedRegistry(page(numbered(0, 1000)), page(numbered(1000, 2000)), page(numbered(2000, 2100)))
    assert list(registry.client.tags("a", limit=5000)) == numbered(0, 2100)
    assert registry.paths == [f"{TAGS_PATH}?n=1000{last}" for last in ("", "&last=t000999", "&last=t001999")]
    registry.assert_done()


@pytest.mark.parametrize(
    ("pages", "count"),
    [
        ([page(numbered(0, 999))], 999),
        ([page(numbered(0, 1000)), page([])], 1000),
        ([page(numbered(0, 1000), "<?x>; rel=next"), page(numbered(1000, 2000))], 2000),
    ],
    ids=["partial page", "empty page", "full page after a Link"],
)
def test_tags_last_page_without_link_ends(pages: list[Response], count: int) -> None:
    registry = ScriptedRegistry(*pages)
    assert list(registry.client.tags("a", limit=5000)) == numbered(0, count)
    registry.assert_done()


@pytest.mark.parametrize("extra", [0, 500])
def test_tags_server_without_pagination_lists_each_name_once(extra: int) -> None:
    """The server ignores ``n`` and ``last``. With `extra`, its list has more than ``n`` names."""
    registry = ScriptedRegistry(*[page(numbered(0, 1000 + extra))] * 2)
    assert list(registry.client.tags("a", limit=5000)) == numbered(0, 1000 + extra)
    registry.assert_done()


def test_lists_start_after_is_sent_as_last() -> None:
    registry = ScriptedRegistry(page(["c"]), page(["x"], key="repositories"), page([]))
    assert list(registry.client.tags("a", start_after="b")) == ["c"]
    assert list(registry.client.repositories(start_after="b/c d&e", limit=7)) == ["x"]
    assert list(registry.client.tags("a", start_after="b", limit=1)) == []
    assert registry.paths == [
        f"{TAGS_PATH}?last=b",
        "/v2/_catalog?n=7&last=b%2Fc+d%26e",
        f"{TAGS_PATH}?n=1&last=b",
    ]
    registry.assert_done()


# --- pages ---


@pytest.mark.parametrize("body", [b'{"tags": null}', b'{"tags": []}', b'{"name": "a"}', b"{}"])
def test_lists_empty_or_null_returns_no_names(body: bytes) -> None:
    registry = ScriptedRegistry(Response(200, (), body), Response(200, (), body))
    assert list(registry.client.tags("a")) == []
    assert list(registry.client.repositories(limit=5)) == []
    registry.assert_done()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"text",
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
    registry = ScriptedRegistry(Response(200, (), body))
    tags = registry.client.tags("a")
    with pytest.raises(errors.ProtocolError) as caught:
        next(tags)
    assert caught.value.request is registry.requests[0]
    registry.assert_done()


def test_tags_endless_page_raises_protocol_error() -> None:
    body = FakeReader(itertools.repeat(b" " * 65536), limit=64 * 1024 * 1024)
    registry = ScriptedRegistry(lambda request: Response(200, (), body))
    with pytest.raises(errors.ProtocolError):
        next(registry.client.tags("a"))
    assert body.closed


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error_response(404), errors.NameUnknown),
        (error_response(404, "NAME_UNKNOWN"), errors.NameUnknown),
        (error_response(401), errors.Unauthorized),
        (error_response(429), errors.TooManyRequests),
        (Response(204), errors.RegistryError),
    ],
)
def test_tags_second_page_refused_raises_registry_error(answer: Response, kind: type[Exception]) -> None:
    registry = ScriptedRegistry(page(["a"], NEXT), answer)
    tags = registry.client.tags("a")
    assert next(tags) == "a"
    with pytest.raises(errors.RegistryError) as caught:
        next(tags)
    assert type(caught.value) is kind
    assert list(tags) == []
    registry.assert_done()


# --- arguments and iteration ---


@pytest.mark.parametrize("name", ["", "Upper", "a b", "../a", "a?b", None, 5])
def test_tags_invalid_repository_raises_at_call(name: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.tags(name)
    assert registry.requests == []


@pytest.mark.parametrize(
    "call",
    [Client.repositories, lambda client: client.tags("a"), lambda client: client.referrers("a", Digest.of(b""))],
    ids=["repositories", "tags", "referrers"],
)
def test_lists_closed_client_raises_at_call(call: Callable[[Client], Iterator[object]]) -> None:
    registry = ScriptedRegistry()
    registry.client.close()
    with pytest.raises(errors.UsageError, match="closed"):
        call(registry.client)
    assert registry.requests == []


@pytest.mark.parametrize("limit", [-1, 1.0, "1", True, b"1"])
def test_lists_invalid_limit_raises_at_call(limit: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.tags("a", limit=limit)
    with pytest.raises(errors.UsageError):
        registry.client.repositories(limit=limit)
    assert registry.requests == []


@pytest.mark.parametrize("start_after", [5, b"a", ["a"], True])
def test_lists_invalid_start_after_raises_at_call(start_after: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.tags("a", start_after=start_after)
    with pytest.raises(errors.UsageError):
        registry.client.repositories(start_after=start_after)
    assert registry.requests == []


def test_tags_iteration_requests_pages_on_demand_and_closes_them() -> None:
    registry = ScriptedRegistry(page(["a", "b"], NEXT), page(["c"], "<?last=c>; rel=next"), page([]))
    tags = registry.client.tags("a")
    assert iter(tags) is tags
    assert registry.requests == []
    for expected, requests in [("a", 1), ("b", 1), ("c", 2)]:
        assert next(tags) == expected
        assert len(registry.requests) == requests
        assert [body.closed for body in registry.bodies[:requests]] == [True] * requests
    assert list(tags) == []
    registry.assert_done()


def test_tags_abandoned_iteration_leaves_nothing_open() -> None:
    registry = ScriptedRegistry(page(["a", "b"], NEXT))
    tags = registry.client.tags("a")
    assert next(tags) == "a"
    del tags
    registry.assert_done()


# --- a registry with many tags ---


class PagedRegistry:
    """Registry that lists tags in order, with ``n`` and ``last``.

    Args:
        names: The tags.
        page_size: Maximum number of tags in a page. None means no limit.
        links: Whether the registry sends a Link to the next page. Defaults to true.
        supports_last: Whether lists start after ``last``. Defaults to true.
        supports_n: Whether pages have at most ``n`` tags. Defaults to true.
    """

    def __init__(
        self,
        names: list[str],
        page_size: int | None,
        *,
        links: bool = True,
        supports_last: bool = True,
        supports_n: bool = True,
    ) -> None:
        self.pages = 0
        self._names = names
        self._page_size = page_size or max(1, len(names))
        self._links = links
        self._supports_last = supports_last
        self._supports_n = supports_n
        self.client = Client(HOST, FunctionTransport(self._answer))

    def _answer(self, request: Request) -> Response:
        self.pages += 1
        assert self.pages <= 3 * len(self._names) + 10, "the list does not end"
        query = parse_qs(urlsplit(request.url).query)
        start = bisect_right(self._names, query["last"][0]) if "last" in query and self._supports_last else 0
        count = min(int(query["n"][0]) if "n" in query and self._supports_n else self._page_size, self._page_size)
        names = self._names[start : start + count]
        more = self._links and start + count < len(self._names)
        link = [("Link", f'</v2/a/tags/list?last={names[-1]}&n={count}>; rel="next"')] if more else []
        return Response(200, link, FakeReader(json.dumps({"tags": names}).encode()))


def count_with_peak(tags: Iterator[str]) -> tuple[int, int]:
    """Return the number of tags, and the peak of additional memory in bytes."""
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
        registry = PagedRegistry(names, page_size, links=True)
        count, peaks[page_size] = count_with_peak(registry.client.tags("a", limit=limit))
        assert count == len(names)
    # A page of 100 tags needs about 15 KB, the read buffer 256 KB, and a page of all tags about 3 MB.
    assert peaks[100] < 600_000
    assert limit is not None or peaks[10_000] > 2 * peaks[100]


@given(
    count=st.integers(0, 60),
    page_size=st.none() | st.integers(1, 20),
    limit=st.none() | st.integers(0, 70),
    start=st.none() | st.integers(0, 60),
    links=st.booleans(),
    supports_n=st.booleans(),
)
def test_tags_any_pages_and_limit_lists_each_name_once_in_order(
    count: int, page_size: int | None, limit: int | None, start: int | None, links: bool, supports_n: bool
) -> None:
    names = numbered(0, count)
    if not links:
        page_size = None  # without a Link, a page of fewer than n tags is the last one
    registry = PagedRegistry(names, page_size, links=links, supports_n=supports_n)
    start_after = None if start is None else f"t{start:06}"
    after = names if start_after is None else [name for name in names if name > start_after]
    assert list(registry.client.tags("a", start_after=start_after, limit=limit)) == after[:limit]


@given(count=st.integers(0, 30), limit=st.none() | st.integers(0, 40))
def test_tags_any_count_without_pagination_lists_each_name_once(count: int, limit: int | None) -> None:
    names = numbered(0, count)
    registry = PagedRegistry(names, None, links=False, supports_last=False, supports_n=False)
    assert list(registry.client.tags("a", limit=limit)) == names[:limit]


@pytest.mark.parametrize("page_size", [1, 7, 999, 1000, 1001])
@pytest.mark.parametrize("links", [True, False])
def test_tags_limit_over_several_pages_lists_first_names(page_size: int, links: bool) -> None:
    names = numbered(0, 2500)
    registry = PagedRegistry(names, page_size if links else None, links=links)
    assert list(registry.client.tags("a", limit=2400)) == names[:2400]


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("code", ["", "NAME_UNKNOWN", "UNSUPPORTED", "DENIED"])
def test_repositories_without_catalog_raises_unsupported(status: int, code: str) -> None:
    body = f'{{"errors": [{{"code": "{code}"}}]}}'.encode() if code else b"404 page not found"
    client = Client("ghcr.example", FunctionTransport(lambda request: Response(status, (), body)))
    with pytest.raises(errors.Unsupported, match=r"ghcr.example does not support listing .* own API or web") as caught:
        next(client.repositories())
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.request is not None


@pytest.mark.parametrize("status", [401, 403, 404])
def test_tags_refused_does_not_raise_unsupported(status: int) -> None:
    client = Client("ghcr.example", FunctionTransport(lambda request: Response(status)))
    with pytest.raises(errors.RegistryError) as caught:
        next(client.tags("a"))
    assert not isinstance(caught.value, errors.Unsupported)


def test_tags_suspended_iterator_keeps_no_bytes_of_page() -> None:
    padding = 4 * 1024 * 1024

    def answer(request: Request) -> Response:
        return Response(200, (), [b'{"tags": ["a", "b"]', b" " * padding, b"}"], request=request)

    tracemalloc.start()
    try:
        tags = Client(HOST, FunctionTransport(answer)).tags("a")
        assert next(tags) == "a"
        memory, _ = tracemalloc.get_traced_memory()
        assert memory < padding / 2
    finally:
        tracemalloc.stop()
    assert list(tags) == ["b"]
