"""Copies of whatever may be nested: each manifest after all that it names, each blob at most once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ociwire import Descriptor, Digest, Platform, Request, Response, Transport
from ociwire._oci.manifest import IndexText
from ociwire.errors import ContentError, Unsupported, UsageError
from ociwire.transfer import copy
from ociwire.transfer._graph import entries_of, matches, names, platform_of, with_entries
from tests._support.copy_world import INDEX, NAME, Side, check_whole
from tests._support.examples import example_count

# Each manifest: the blobs of an image, or the earlier manifests of an index; and which earlier one it refers to.
NODES = st.lists(
    st.tuples(
        st.one_of(st.lists(st.integers(0, 4), max_size=3), st.frozensets(st.integers(0, 7), min_size=1, max_size=4)),
        st.none() | st.integers(0, 7),
    ),
    min_size=1,
    max_size=8,
)


class InOrder:
    """A registry that sees to it that whatever a manifest names came before it, and no blob came twice."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.manifests: list[str] = []
        self.blobs: list[str] = []

    def round_trip(self, request: Request, /) -> Response:
        response = self._inner.round_trip(request)
        if request.method == "PUT" and response.status == 201:
            if "/manifests/" in request.url:
                self._check(json.loads(b"".join(request.body.open())))  # type: ignore[union-attr]
                self.manifests.append(response.headers["docker-content-digest"])
            else:
                self.blobs.append(request.url.partition("digest=")[2])
        return response

    def _check(self, manifest: dict[str, Any]) -> None:
        for one in manifest.get("manifests", ()):
            assert one["digest"] in self.manifests
        for one in [*manifest.get("layers", ()), *([manifest["config"]] if "config" in manifest else [])]:
            assert one["digest"] in self.blobs

    def close(self) -> None:
        self._inner.close()


def build(source: Side, nodes: list[tuple[Any, int | None]]) -> list[Descriptor]:
    made: list[Descriptor] = []
    for number, (content, subject) in enumerate(nodes):
        fields: dict[str, Any] = {"annotations": {"number": str(number)}}
        if subject is not None and made:
            fields["subject"] = made[subject % len(made)].to_dict()
        if isinstance(content, frozenset) and made:
            made.append(source.index(*(made[one % len(made)] for one in content), **fields))
        else:
            made.append(source.image(*(content if isinstance(content, list) else ()), **fields))
    return made


@settings(deadline=None, max_examples=example_count(60))
@given(nodes=NODES, workers=st.integers(1, 3), referrers=st.booleans())
def test_everything_comes_after_what_it_names(
    nodes: list[tuple[Any, int | None]], workers: int, referrers: bool
) -> None:
    source, target = Side("source.example", guarded=False), Side("target.example", guarded=False)
    root = build(source, nodes)[-1]
    order = InOrder(target.registry)
    copied = copy(
        source.client,
        f"{NAME}@{root.digest}",
        target.through(order),
        f"{NAME}:v1",
        workers=workers,
        referrers=referrers,
    )
    assert copied == root == target.direct.resolve_tag(NAME, "v1")
    there = check_whole(target.direct, NAME, root.digest)
    assert len(order.blobs) == len(set(order.blobs))
    assert order.manifests[-1] == root.digest
    if referrers:
        for digest in there & set(order.manifests):
            expected = {one.digest for one in source.direct.referrers(NAME, digest)}
            assert {one.digest for one in target.direct.referrers(NAME, digest)} == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.text(max_size=5) | st.just(str(Digest.of(b""))),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mediaType", "digest", "size", "manifests", "urls", "data"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(["schemaVersion", "config", "layers", "blobs", "manifests", "subject", "mediaType"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(FIELDS, JSON, max_size=4).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50))
def test_whatever_comes_is_read_or_refused(content: bytes) -> None:
    try:
        named = names(content)
    except (ContentError, Unsupported):
        return
    assert all(isinstance(one, Descriptor) for one in (*named.blobs, *named.manifests))


@given(st.from_regex(r"[a-z0-9]{1,5}/[a-z0-9]{1,5}(/v[0-9])?", fullmatch=True))
def test_a_platform_matches_itself(text: str) -> None:
    platform = platform_of(text)
    entry = Descriptor.of(b"").replace(platform=platform)
    assert matches(entry, [platform])
    assert matches(entry, [Platform(platform.architecture, platform.os)])
    assert not matches(entry, [Platform(platform.architecture, platform.os + "x")])
    assert not matches(Descriptor.of(b""), [platform])


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", None, 7])
def test_what_is_no_platform(text: Any) -> None:
    with pytest.raises(UsageError):
        platform_of(text)


def test_what_a_platform_leaves_open() -> None:
    windows = Platform("amd64", "windows", os_version="10.0.1", os_features=("win32k",))
    entry = Descriptor.of(b"").replace(platform=windows)
    assert matches(entry, [Platform("amd64", "windows", os_version="10.0.1")])
    assert not matches(entry, [Platform("amd64", "windows", os_version="10.0.2")])
    assert not matches(entry, [Platform("amd64", "windows", os_features=("other",))])
    assert matches(entry.replace(platform=Platform("arm64", "linux")), [platform_of("linux/arm64/v8")])
    assert not matches(entry.replace(platform=Platform("arm64", "linux")), [platform_of("linux/arm64/v9")])


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"hello": 1},
        {"schemaVersion": 2, "layers": {}},
        {"schemaVersion": 2, "layers": [{"mediaType": "a/b", "digest": "blake3:aa", "size": 1}]},
        {"manifests": [{**Descriptor.of(b"").to_dict(), "size": size} for size in (0, 1)]},
        [],
    ],
)
def test_what_is_no_manifest(content: Any) -> None:
    with pytest.raises(ContentError):
        names(json.dumps(content).encode())


@pytest.mark.parametrize("content", [{"schemaVersion": 1, "fsLayers": []}, {"schemaVersion": 1, "signatures": []}])
def test_names_of_a_schema_1_manifest_is_unsupported(content: Any) -> None:
    with pytest.raises(Unsupported, match="Docker schema 1 manifests are not supported; push the image again"):
        names(json.dumps(content).encode())


def test_an_index_with_other_entries_keeps_the_rest() -> None:
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "x": [1]}
    entry = Descriptor.of(b"")
    raw = json.dumps({**entry.to_dict(), "com.example.unknown": [None]}, indent=1)
    content = with_entries(json.dumps(index).encode(), [raw])
    assert json.loads(content) == {**index, "manifests": [json.loads(raw)]}
    assert entries_of(content) == [(entry, raw)]


@pytest.mark.parametrize("other", ["1e400", "-0.0", "1E5", "9" * 5000, '"\u00e9\\u00e9\\ud800"', '{"manifests": [1]}'])
def test_with_entries_keeps_the_bytes_of_what_is_not_touched(other: str) -> None:
    entries = [f'{{"digest": "{Digest.of(b"")}", "x" : {other}}}', f'{{ "y":[{other},\t1]}}']
    index = f'\r\n{{"x": {other},\n "manifests" : [ {entries[0]} ,\n{entries[1]}],"z":{other} }}\n'.encode()
    assert IndexText.split(index).entries == tuple(entries)
    for kept in (entries, entries[:1], entries[1:], []):
        before, after = f'\r\n{{"x": {other},\n "manifests" : [', f'],"z":{other} }}\n'
        assert with_entries(index, kept) == f"{before}{','.join(kept)}{after}".encode()


@given(JSON, JSON, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_an_index_is_divided_at_its_entries(x: Any, y: Any, ascii: bool, indent: Any) -> None:  # noqa: A002
    index = {"x": x, "manifests": [x, y], "y": y}
    content = json.dumps(index, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")
    divided = IndexText.split(content)
    assert [json.loads(one) for one in divided.entries] == [x, y]
    assert json.loads(divided.join(divided.entries)) == index
    assert json.loads(divided.join([])) == {**index, "manifests": []}


@pytest.mark.parametrize("depth", [1, 300])
def test_an_index_with_other_entries_is_not_much_larger(depth: int) -> None:
    deep = "[" * depth + ",".join(["0"] * 10_000) + "]" * depth
    content = f'{{"schemaVersion":2,"manifests":[],"x":{deep},"y":"\u00e9"}}'.encode()
    assert with_entries(content, []) == content


@pytest.mark.parametrize(
    "content",
    [
        b'{"manifests": [], "x": NaN}',
        b'{"manifests": [], "x": -Infinity}',
        b'{"manifests": {}}',
        b'{"manifests": 5}',
        b"{}",
        b"[]",
        b'{"manifests": [],}',
        b'{"manifests": []} x',
        b'{"manifests": [],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        '{"manifests": []}'.encode("utf-16"),
    ],
)
def test_an_index_that_cannot_be_divided_is_a_content_error(content: bytes) -> None:
    with pytest.raises(ContentError, match="cannot rewrite an index"):
        with_entries(content, [])


@pytest.mark.parametrize("content", [b'{"manifests": null}', b'\xef\xbb\xbf{"manifests": []}'])
def test_an_index_with_null_entries_or_a_byte_order_mark_is_divided(content: bytes) -> None:
    assert with_entries(content, ["1", "2"]) == b'{"manifests": [1,2]}'
