"""Tests of `ociwire._oci.references`: descriptors in manifests, platforms, and edited indexes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ociwire import Descriptor, Digest, Platform
from ociwire._oci.manifest import IndexText
from ociwire._oci.references import index_entries, matches_platform, parse_platform, read_references
from ociwire.errors import ContentError, Unsupported, UsageError
from tests._support.copy_world import INDEX

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
def test_read_references_any_content_is_read_or_refused(content: bytes) -> None:
    try:
        references = read_references(content)
    except (ContentError, Unsupported):
        return
    assert all(isinstance(descriptor, Descriptor) for descriptor in (*references.blobs, *references.manifests))


@given(st.from_regex(r"[a-z0-9]{1,5}/[a-z0-9]{1,5}(/v[0-9])?", fullmatch=True))
def test_matches_platform_same_platform_is_true(text: str) -> None:
    platform = parse_platform(text)
    entry = Descriptor.of(b"").replace(platform=platform)
    assert matches_platform(entry, [platform])
    assert matches_platform(entry, [Platform(platform.architecture, platform.os)])
    assert not matches_platform(entry, [Platform(platform.architecture, platform.os + "x")])
    assert not matches_platform(Descriptor.of(b""), [platform])


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", None, 7])
def test_parse_platform_invalid_raises_usage_error(text: Any) -> None:
    with pytest.raises(UsageError):
        parse_platform(text)


def test_matches_platform_empty_fields_match_anything() -> None:
    windows = Platform("amd64", "windows", os_version="10.0.1", os_features=("win32k",))
    entry = Descriptor.of(b"").replace(platform=windows)
    assert matches_platform(entry, [Platform("amd64", "windows", os_version="10.0.1")])
    assert not matches_platform(entry, [Platform("amd64", "windows", os_version="10.0.2")])
    assert not matches_platform(entry, [Platform("amd64", "windows", os_features=("other",))])
    assert matches_platform(entry.replace(platform=Platform("arm64", "linux")), [parse_platform("linux/arm64/v8")])
    assert not matches_platform(entry.replace(platform=Platform("arm64", "linux")), [parse_platform("linux/arm64/v9")])


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
def test_read_references_not_a_manifest_raises_content_error(content: Any) -> None:
    with pytest.raises(ContentError):
        read_references(json.dumps(content).encode())


@pytest.mark.parametrize("content", [{"schemaVersion": 1, "fsLayers": []}, {"schemaVersion": 1, "signatures": []}])
def test_read_references_schema_1_raises_unsupported(content: Any) -> None:
    with pytest.raises(Unsupported, match="Docker schema 1 manifests are not supported: push the image again"):
        read_references(json.dumps(content).encode())


def test_index_text_join_keeps_other_fields() -> None:
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "x": [1]}
    entry = Descriptor.of(b"")
    raw = json.dumps({**entry.to_dict(), "com.example.unknown": [None]}, indent=1)
    content = IndexText.split(json.dumps(index).encode()).join([raw])
    assert json.loads(content) == {**index, "manifests": [json.loads(raw)]}
    assert index_entries(content) == [(entry, raw)]


@pytest.mark.parametrize("other", ["1e400", "-0.0", "1E5", "9" * 5000, '"\u00e9\\u00e9\\ud800"', '{"manifests": [1]}'])
def test_index_text_join_keeps_untouched_bytes(other: str) -> None:
    entries = [f'{{"digest": "{Digest.of(b"")}", "x" : {other}}}', f'{{ "y":[{other},\t1]}}']
    index = f'\r\n{{"x": {other},\n "manifests" : [ {entries[0]} ,\n{entries[1]}],"z":{other} }}\n'.encode()
    assert IndexText.split(index).entries == tuple(entries)
    for remaining in (entries, entries[:1], entries[1:], []):
        before, after = f'\r\n{{"x": {other},\n "manifests" : [', f'],"z":{other} }}\n'
        assert IndexText.split(index).join(remaining) == f"{before}{','.join(remaining)}{after}".encode()


@given(JSON, JSON, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_index_text_split_any_json_yields_the_entries(x: Any, y: Any, ascii: bool, indent: Any) -> None:  # noqa: A002
    index = {"x": x, "manifests": [x, y], "y": y}
    content = json.dumps(index, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")
    index_text = IndexText.split(content)
    assert [json.loads(entry_text) for entry_text in index_text.entries] == [x, y]
    assert json.loads(index_text.join(index_text.entries)) == index
    assert json.loads(index_text.join([])) == {**index, "manifests": []}


@pytest.mark.parametrize("depth", [1, 300])
def test_index_text_join_of_nested_fields_does_not_grow(depth: int) -> None:
    deep = "[" * depth + ",".join(["0"] * 10_000) + "]" * depth
    content = f'{{"schemaVersion":2,"manifests":[],"x":{deep},"y":"\u00e9"}}'.encode()
    assert IndexText.split(content).join([]) == content


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
def test_index_text_split_invalid_raises_content_error(content: bytes) -> None:
    with pytest.raises(ContentError, match="cannot update the index"):
        IndexText.split(content).join([])


@pytest.mark.parametrize("content", [b'{"manifests": null}', b'\xef\xbb\xbf{"manifests": []}'])
def test_index_text_split_null_or_byte_order_mark_is_accepted(content: bytes) -> None:
    assert IndexText.split(content).join(["1", "2"]) == b'{"manifests": [1,2]}'
