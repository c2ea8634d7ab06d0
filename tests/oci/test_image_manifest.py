"""Tests of `Manifest` and `Index`: reading and writing, immutability, and selection of platforms."""

from __future__ import annotations

import copy
import json
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire._oci.descriptor import Descriptor, Platform
from ociwire._oci.image_manifest import Index, Manifest
from ociwire.errors import ContentError, ManifestUnknown, UsageError
from ociwire.media_types import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)

CONFIG = Descriptor.of(b"config", OCI_CONFIG)
LAYERS = (Descriptor.of(b"one", OCI_LAYER), Descriptor.of(b"two", OCI_LAYER))
SUBJECT = Descriptor.of(b"subject", OCI_MANIFEST)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def entry(os: str, architecture: str, variant: str = "", **more: Any) -> Descriptor:
    platform = Platform(architecture, os, variant=variant, **more)
    content = json.dumps(platform.to_dict()).encode()
    return Descriptor.of(content, OCI_MANIFEST).replace(platform=platform)


# Writing


def test_manifest_new_is_written_in_a_fixed_order() -> None:
    manifest = Manifest(CONFIG, LAYERS, subject=SUBJECT, annotations={"b": "2", "a": "1"})
    assert manifest.to_bytes() == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        b'"config":%s,"layers":[%s,%s],"subject":%s,"annotations":{"a":"1","b":"2"}}'
    ) % tuple(
        json.dumps(descriptor.to_dict(), separators=(",", ":")).encode() for descriptor in (CONFIG, *LAYERS, SUBJECT)
    )
    assert (
        manifest.to_bytes()
        == Manifest(CONFIG, list(LAYERS), annotations={"a": "1", "b": "2"}, subject=SUBJECT).to_bytes()
    )
    assert manifest.descriptor == Descriptor.of(manifest.to_bytes(), OCI_MANIFEST)


def test_manifest_fields_have_values_of_arguments() -> None:
    manifest = Manifest(CONFIG, LAYERS, artifact_type="a/b", subject=SUBJECT, annotations={"a": "1"})
    assert (manifest.config, manifest.layers, manifest.subject) == (CONFIG, LAYERS, SUBJECT)
    assert (manifest.artifact_type, manifest.media_type, dict(manifest.annotations)) == (
        "a/b",
        OCI_MANIFEST,
        {"a": "1"},
    )


def test_manifest_of_an_artifact_has_the_empty_config() -> None:
    manifest = Manifest(layers=LAYERS, artifact_type="application/vnd.example")
    assert (manifest.config.media_type, manifest.config.size) == (OCI_EMPTY, 2)
    assert manifest.config == Descriptor.of(b"{}", OCI_EMPTY)


def test_manifest_without_optional_fields_has_none() -> None:
    manifest, index = Manifest.from_bytes(b"{}"), Index.from_bytes(b'{"manifests":null}')
    assert (manifest.layers, manifest.subject, manifest.artifact_type, manifest.annotations) == ((), None, None, {})
    assert manifest.config.media_type == OCI_EMPTY
    assert (index.manifests, index.media_type, manifest.media_type) == ((), OCI_INDEX, OCI_MANIFEST)


def test_docker_manifests_keep_their_media_types() -> None:
    layer = Descriptor.of(b"layer", DOCKER_LAYER_GZIP)
    manifest = Manifest(Descriptor.of(b"{}", DOCKER_CONFIG), [layer], media_type=DOCKER_MANIFEST)
    assert Manifest.from_bytes(manifest.to_bytes()).media_type == DOCKER_MANIFEST
    index = Index([manifest.descriptor], media_type=DOCKER_MANIFEST_LIST)
    assert Index.from_bytes(index.to_bytes()).descriptor.media_type == DOCKER_MANIFEST_LIST


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Manifest(layers=LAYERS), "must have an artifact_type"),
        (lambda: Manifest("config"), "config must be a Descriptor, got 'config'"),
        (lambda: Manifest(CONFIG, LAYERS[0]), "layers must be an iterable of Descriptors, got Descriptor"),
        (lambda: Manifest(CONFIG, [b"layer"]), "layers must be an iterable of Descriptors"),
        (lambda: Manifest(CONFIG, media_type="json"), "invalid mediaType 'json': expected type/subtype"),
        (lambda: Manifest(CONFIG, artifact_type=7), "invalid artifactType 7: expected type/subtype"),
        (lambda: Manifest(CONFIG, annotations={"a": 1}), "annotations must be a mapping of strings to strings"),
        (lambda: Manifest(CONFIG, annotations=["a"]), "annotations must be a mapping"),
        (lambda: Manifest(CONFIG, subject=b"{}"), "subject must be a Descriptor"),
        (lambda: Index([CONFIG.digest]), "manifests must be an iterable of Descriptors"),
        (lambda: Index(7), "manifests must be an iterable of Descriptors, got 7"),
        (lambda: Manifest(CONFIG).replace(layer=LAYERS), "invalid field 'layer': expected one of annotations, "),
        (lambda: Index().replace(config=CONFIG), "invalid field 'config'"),
        (lambda: Manifest.from_bytes("{}"), "content must be bytes, got str"),
        (lambda: Manifest.from_bytes(b'{"x":NaN}').replace(layers=LAYERS), "NaN and Infinity are not valid JSON"),
    ],
)
def test_manifest_invalid_argument_raises_usage_error(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


# Reading


@given(st.dictionaries(st.text(), JSON, max_size=4), st.sampled_from([Manifest, Index]))
def test_manifest_read_and_written_is_unchanged(fields: dict[str, Any], kind: type[Manifest | Index]) -> None:
    known = {"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"}
    content = json.dumps({name: value for name, value in fields.items() if name not in known}, indent=3).encode()
    document = kind.from_bytes(content)
    assert document.to_bytes() == content
    assert document.to_dict() == json.loads(content)
    changed = document.replace(annotations={"a": "1"})
    assert changed.to_dict() == document.to_dict() | {"annotations": {"a": "1"}}
    assert kind.from_bytes(changed.to_bytes()) == changed
    assert changed.to_bytes() == document.replace(annotations={"a": "1"}).to_bytes()


def test_manifest_replace_keeps_unknown_fields_of_descriptors() -> None:
    layers = [{**layer.to_dict(), "x-mine": number} for number, layer in enumerate(LAYERS)]
    content = json.dumps({"schemaVersion": 2, "config": CONFIG.to_dict(), "layers": layers, "x": [1]}).encode()
    manifest = Manifest.from_bytes(content)
    new = Descriptor.of(b"new", OCI_LAYER)
    changed = manifest.replace(layers=[new, *reversed(manifest.layers)])
    assert changed.to_dict()["layers"] == [new.to_dict(), layers[1], layers[0]]
    assert changed.to_dict()["x"] == [1]
    assert changed.layers == (new, LAYERS[1], LAYERS[0])
    assert manifest.to_bytes() == content


def test_manifest_replace_with_none_removes_the_field() -> None:
    manifest = Manifest(CONFIG, subject=SUBJECT, annotations={"a": "1"}, artifact_type="a/b")
    assert manifest.replace(subject=None, annotations=None, artifact_type=None) == Manifest(CONFIG)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (Manifest, b"", "invalid manifest: expected a JSON object"),
        (Manifest, b"[]", "expected a JSON object"),
        (Index, b"<html>", "invalid index: expected a JSON object"),
        (
            Manifest,
            b'{"mediaType":"%s"}' % OCI_INDEX.encode(),
            f"expected the mediaType {OCI_MANIFEST}, got '{OCI_INDEX}'",
        ),
        (Index, b'{"mediaType":"%s"}' % OCI_MANIFEST.encode(), "invalid index: expected the mediaType"),
        (Manifest, b'{"layers":{}}', "invalid manifest: layers must be a list of descriptors"),
        (Manifest, b'{"layers":[{"size":1}]}', "digest missing"),
        (Manifest, b'{"config":7}', "invalid manifest: invalid descriptor"),
        (Index, b'{"manifests":[{}]}', "digest and size missing"),
        (Manifest, b"[" * 100_000, "expected a JSON object"),
    ],
)
def test_manifest_invalid_content_raises_content_error(
    kind: type[Manifest | Index], content: bytes, message: str
) -> None:
    with pytest.raises(ContentError) as caught:
        kind.from_bytes(content)
    assert message in str(caught.value)


def test_manifest_numbers_in_annotations_are_not_strings() -> None:
    assert dict(Manifest.from_bytes(b'{"annotations":{"a":1,"b":"2"}}').annotations) == {"b": "2"}
    assert Manifest.from_bytes(b'{"annotations":7}').annotations == {}


# Values


def test_manifest_is_immutable() -> None:
    manifest = Manifest(CONFIG)
    with pytest.raises(AttributeError, match="immutable; use replace"):
        manifest.config = SUBJECT  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del manifest._content
    with pytest.raises(TypeError):
        manifest.annotations["a"] = "1"  # type: ignore[index]
    manifest.to_dict()["config"]["size"] = 7
    assert manifest.config == CONFIG


def test_manifests_with_equal_fields_are_equal() -> None:
    manifest = Manifest(CONFIG, LAYERS)
    spaced = Manifest.from_bytes(json.dumps(manifest.to_dict(), indent=2).encode())
    assert spaced == manifest
    assert hash(spaced) == hash(manifest)
    assert spaced.descriptor != manifest.descriptor
    assert manifest != Manifest(CONFIG)
    assert Index() != Manifest.from_bytes(Index().to_bytes().replace(b"index", b"manifest"))
    assert copy.deepcopy(spaced).to_bytes() == pickle.loads(pickle.dumps(spaced)).to_bytes() == spaced.to_bytes()
    assert repr(manifest) == f"<Manifest {manifest.descriptor.digest} of {len(manifest.to_bytes())} bytes>"


# Platforms


@pytest.mark.parametrize(
    ("requested", "offered", "selected"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm64", ["linux/arm64"], "linux/arm64"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/arm64"], "linux/arm64"),
        ("linux/aarch64", ["linux/arm64"], "linux/arm64"),
        ("linux/x86_64", ["linux/amd64"], "linux/amd64"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64/v1"], "linux/amd64/v1"),
        ("linux/amd64", ["linux/386"], "linux/386"),
        ("linux/arm", ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/armhf", ["linux/arm/v7", "linux/arm/v6"], "linux/arm/v7"),
        ("linux/armel", ["linux/arm/v7", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm64/v9", ["linux/arm64/v8", "linux/arm64/v8.5", "linux/arm64/v9.1"], "linux/arm64/v8.5"),
        ("linux/riscv64", ["linux/riscv64"], "linux/riscv64"),
        ("linux/mips64le/hardfloat", ["linux/mips64le", "linux/mips64le/hardfloat"], "linux/mips64le/hardfloat"),
    ],
)
def test_index_select_returns_the_best_image(requested: str, offered: list[str], selected: str) -> None:
    entries = {name: entry(*name.split("/")) for name in offered}
    assert Index(entries.values()).select(requested) == entries[selected]


@pytest.mark.parametrize(
    ("requested", "offered"),
    [
        ("linux/arm64", ["linux/amd64", "windows/arm64", "unknown/unknown"]),
        ("linux/arm/v6", ["linux/arm/v7"]),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64/vX"]),
        ("linux/386", ["linux/amd64"]),
        ("linux/arm", ["linux/arm64"]),
        ("linux/mips64le", ["linux/mips64le/hardfloat"]),
    ],
)
def test_index_select_nothing_matches_raises_with_offered_platforms(requested: str, offered: list[str]) -> None:
    index = Index(entry(*name.split("/")) for name in offered)
    with pytest.raises(ManifestUnknown) as caught:
        index.select(requested)
    assert str(caught.value) == f"the index has nothing for {requested}: expected one of {', '.join(offered)}"


def test_index_select_ignores_entries_without_platform() -> None:
    with pytest.raises(ManifestUnknown, match="expected one of no platform"):
        Index([SUBJECT]).select("linux/amd64")


def test_index_select_of_equal_entries_returns_the_first() -> None:
    first, second = entry("linux", "amd64"), entry("linux", "amd64").replace(annotations={"a": "1"})
    assert Index([first, second]).select("linux/amd64") == first


def test_index_select_windows_matches_the_build() -> None:
    old = entry("windows", "amd64", os_version="10.0.17763.1")
    new = entry("windows", "amd64", os_version="10.0.20348.2", os_features=("win32k",))
    index = Index([old, new])
    assert index.select(Platform("amd64", "windows", os_version="10.0.20348")) == new
    assert index.select(Platform("amd64", "windows", os_features=("win32k",))) == new
    assert index.select("windows/amd64") == old
    with pytest.raises(ManifestUnknown):
        index.select(Platform("amd64", "windows", os_version="10.0.1776"))


@pytest.mark.parametrize("platform", ["arm64", "linux/", "linux/arm64/v8/x", "", 7, None])
def test_index_select_invalid_platform_raises_usage_error(platform: Any) -> None:
    with pytest.raises(UsageError):
        Index().select(platform)


# Unusual JSON


def test_manifest_equal_numbers_have_equal_hashes() -> None:
    text = Manifest(CONFIG).to_bytes()
    one, other = (
        Manifest.from_bytes(text),
        Manifest.from_bytes(text.replace(b'"schemaVersion":2', b'"schemaVersion":2.0')),
    )
    assert one == other
    assert hash(one) == hash(other)
    assert {hash(one)} != {hash(Manifest(CONFIG, LAYERS)), hash(Manifest(CONFIG, annotations={"a": "b"}))}


def test_manifest_deeply_nested_field_is_hashed() -> None:
    text = Manifest(CONFIG).to_bytes()[:-1] + b',"x":' + b'{"x":' * 700 + b"1" + b"}" * 700 + b"}"
    assert hash(Manifest.from_bytes(text)) == hash(Manifest.from_bytes(text))


def test_manifest_replace_equal_descriptors_keep_their_json() -> None:
    layer = LAYERS[0].to_dict()
    document = {
        "schemaVersion": 2,
        "config": {**layer, "x": "config"},
        "layers": [{**layer, "x": "first"}, {**layer, "x": "second"}],
    }
    manifest = Manifest.from_bytes(json.dumps(document).encode())
    replaced = manifest.replace(config=manifest.config, layers=manifest.layers)
    assert replaced.to_dict() == document
    assert manifest.replace(layers=manifest.layers[:1] * 3).to_dict()["layers"] == [
        *document["layers"],
        document["layers"][1],
    ]


def test_manifest_lone_surrogate_is_written_as_an_escape() -> None:
    manifest = Manifest(CONFIG, annotations={"a\ud800": "\U0001f600\udfff"})
    assert '{"a\\ud800":"\U0001f600\\udfff"}' in manifest.to_bytes().decode()
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_MANIFEST_LIST, "text/plain"])
def test_manifest_media_type_of_another_kind_raises_usage_error(media_type: str) -> None:
    message = f"invalid mediaType '{media_type}': expected {OCI_MANIFEST} or {DOCKER_MANIFEST}"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        Manifest(CONFIG, media_type=media_type)
    with pytest.raises(UsageError, match=r"^invalid mediaType"):
        Manifest(CONFIG).replace(media_type=media_type)


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_index_media_type_of_another_kind_raises_usage_error(media_type: str) -> None:
    with pytest.raises(UsageError, match=r"^invalid mediaType .*: expected application/vnd.oci.image.index"):
        Index(media_type=media_type)


def test_index_select_lists_hostile_platforms_in_one_printable_line() -> None:
    index = Index([entry("linux\n\x1b[31m", f"a{number}\ud800") for number in range(500)])
    with pytest.raises(ManifestUnknown) as raised:
        index.select("linux/amd64")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1100
