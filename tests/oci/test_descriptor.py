"""Tests of `Descriptor` and `Platform`: fields, checks, and JSON."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from array import array
from typing import Any

import pytest

from ociwire._oci.descriptor import Descriptor, Platform
from ociwire._oci.digest import Digest
from ociwire.errors import UsageError
from ociwire.media_types import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    OCTET_STREAM,
)

DIGEST = "sha256:" + "ab" * 32
REQUIRED = {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 7}
FULL = REQUIRED | {
    "urls": ["https://example.com/x"],
    "annotations": {"org.opencontainers.image.title": "x"},
    "data": "e30=",
    "platform": {
        "architecture": "arm",
        "os": "linux",
        "os.version": "10.0",
        "os.features": ["win32k"],
        "variant": "v7",
        "features": ["sse4"],
    },
    "artifactType": "application/vnd.example+json",
}


def test_descriptor_optional_fields_default_to_empty() -> None:
    descriptor = Descriptor(OCTET_STREAM, DIGEST, 0)  # type: ignore[arg-type]
    assert descriptor.media_type == "application/octet-stream"
    assert descriptor.size == 0
    assert descriptor.urls == ()
    assert descriptor.annotations is descriptor.data is descriptor.platform is descriptor.artifact_type is None


def test_descriptor_digest_str_is_converted() -> None:
    assert type(Descriptor(OCTET_STREAM, DIGEST, 0).digest) is Digest  # type: ignore[arg-type]


def test_descriptor_field_order() -> None:
    assert [field.name for field in dataclasses.fields(Descriptor)] == [
        "media_type",
        "digest",
        "size",
        "urls",
        "annotations",
        "data",
        "platform",
        "artifact_type",
    ]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_of_hashes_and_measures_data(algorithm: str) -> None:
    descriptor = Descriptor.of(b"{}", OCI_MANIFEST, algorithm=algorithm)
    assert descriptor == Descriptor(OCI_MANIFEST, Digest.of(b"{}", algorithm), 2)


def test_of_without_media_type_is_octet_stream() -> None:
    assert Descriptor.of(b"abc").media_type == OCTET_STREAM
    assert Descriptor.of(b"").size == 0


def test_of_memoryview_of_integers_counts_bytes() -> None:
    numbers: Any = memoryview(array("i", [1, 2]))
    assert Descriptor.of(numbers).size == numbers.nbytes


def test_of_unknown_algorithm_raises_usage_error() -> None:
    with pytest.raises(UsageError, match="md5"):
        Descriptor.of(b"", algorithm="md5")


@pytest.mark.parametrize(
    "media_type",
    [
        OCTET_STREAM,
        OCI_MANIFEST,
        OCI_INDEX,
        DOCKER_MANIFEST,
        DOCKER_MANIFEST_LIST,
        "a/b",
        "A/B",
        "x-a/b!#$&^_.+-",
        f"{'a' * 127}/{'b' * 127}",
    ],
)
def test_media_type_valid_is_accepted(media_type: str) -> None:
    assert Descriptor.of(b"", media_type).media_type == media_type
    assert Descriptor.of(b"").replace(artifact_type=media_type).artifact_type == media_type


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "a b/c",
        "a/b; charset=utf-8",
        " a/b",
        "a/b\n",
        "-a/b",
        "a/é",
        f"{'a' * 128}/b",
        f"a/{'b' * 128}",
        None,
        3,
        b"a/b",
    ],
)
def test_media_type_invalid_raises_usage_error(media_type: Any) -> None:
    with pytest.raises(UsageError, match=r"mediaType must be type/subtype") as caught:
        Descriptor(media_type, DIGEST, 0)  # type: ignore[arg-type]
    assert repr(media_type)[:100] in str(caught.value)
    if media_type is not None:
        with pytest.raises(UsageError, match=r"artifactType must be type/subtype"):
            Descriptor.of(b"").replace(artifact_type=media_type)


@pytest.mark.parametrize("size", [-1, 1.0, "1", True, None, [1]])
def test_size_invalid_raises_usage_error(size: Any) -> None:
    with pytest.raises(UsageError, match=r"size must be an integer from 0 to 2\*\*63 - 1, got ") as caught:
        Descriptor(OCTET_STREAM, DIGEST, size)  # type: ignore[arg-type]
    assert repr(size) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("urls", "https://example.com"),
        ("urls", [1]),
        ("urls", 5),
        ("urls", None),
        ("annotations", {"a": 1}),
        ("annotations", {1: "a"}),
        ("annotations", [("a", "b")]),
        ("data", "e30="),
        ("data", [1]),
        ("platform", {"architecture": "arm", "os": "linux"}),
        ("digest", "sha256:ab"),
        ("digest", None),
    ],
)
def test_replace_field_of_wrong_type_raises_usage_error(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match="digest" if field == "digest" else f"{field} must be ") as caught:
        Descriptor.of(b"").replace(**{field: value})
    assert repr(value) in str(caught.value)


def test_replace_returns_copy() -> None:
    descriptor = Descriptor.of(b"abc")
    assert descriptor.replace(media_type=OCI_INDEX).media_type == OCI_INDEX
    assert descriptor.media_type == OCTET_STREAM


def test_descriptor_and_platform_are_frozen() -> None:
    descriptor: Any = Descriptor.of(b"")
    with pytest.raises(dataclasses.FrozenInstanceError):
        descriptor.size = 3
    platform: Any = Platform("arm", "linux")
    with pytest.raises(dataclasses.FrozenInstanceError):
        platform.os = "windows"


def test_descriptor_mutable_arguments_are_copied() -> None:
    urls, annotations, features = ["a"], {"a": "b"}, ["x"]
    descriptor = Descriptor.of(b"").replace(
        urls=urls,
        annotations=annotations,
        platform=Platform("arm", "linux", features=features),  # type: ignore[arg-type]
    )
    urls.append("b")
    annotations["c"] = "d"
    features.append("y")
    assert descriptor.urls == ("a",)
    assert descriptor.annotations == {"a": "b"}
    assert descriptor.platform is not None
    assert descriptor.platform.features == ("x",)


def test_to_dict_result_changed_leaves_descriptor_unchanged() -> None:
    descriptor = Descriptor.from_dict(FULL)
    result = descriptor.to_dict()
    result["annotations"]["new"] = "x"
    result["urls"].append("x")
    result["platform"]["features"].append("x")
    assert descriptor.to_dict() == FULL


def test_equal_descriptors_have_equal_hashes() -> None:
    first, second = Descriptor.from_dict(FULL), Descriptor.from_dict(json.loads(json.dumps(FULL)))
    assert first == second
    assert hash(first) == hash(second)
    assert first != first.replace(annotations=None)
    assert len({first, second}) == 1


@pytest.mark.parametrize("mapping", [REQUIRED, FULL], ids=["required", "full"])
def test_from_dict_and_to_dict_round_trip(mapping: dict[str, Any]) -> None:
    descriptor = Descriptor.from_dict(mapping)
    assert descriptor.to_dict() == mapping
    assert Descriptor.from_dict(json.loads(json.dumps(descriptor.to_dict()))) == descriptor


def test_from_dict_full_object_reads_every_field() -> None:
    assert Descriptor.from_dict(FULL) == Descriptor(
        media_type=OCI_MANIFEST,
        digest=Digest(DIGEST),
        size=7,
        urls=("https://example.com/x",),
        annotations={"org.opencontainers.image.title": "x"},
        data=b"{}",
        platform=Platform("arm", "linux", "10.0", ("win32k",), "v7", ("sse4",)),
        artifact_type="application/vnd.example+json",
    )


def test_to_dict_returns_plain_types() -> None:
    result = Descriptor.from_dict(FULL).to_dict()
    assert type(result["digest"]) is str
    assert type(result["urls"]) is list


def test_from_dict_unknown_fields_are_ignored() -> None:
    assert Descriptor.from_dict(FULL | {"new": 1, "x": None}) == Descriptor.from_dict(FULL)
    assert Platform.from_dict({"architecture": "arm", "os": "linux", "new": 1}) == Platform("arm", "linux")


@pytest.mark.parametrize("missing", ["digest", "size"])
def test_from_dict_required_field_missing_raises_usage_error(missing: str) -> None:
    with pytest.raises(UsageError, match=rf"^invalid descriptor: {missing} missing in "):
        Descriptor.from_dict({key: value for key, value in REQUIRED.items() if key != missing})


@pytest.mark.parametrize("value", [None, [], "x", 3, True, [("mediaType", "a/b")]])
def test_from_dict_other_than_object_raises_usage_error(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid descriptor: expected an object, got "):
        Descriptor.from_dict(value)
    with pytest.raises(UsageError, match=r"^invalid descriptor: platform must be an object, got "):
        Platform.from_dict(value)


@pytest.mark.parametrize("field", ["urls", "annotations", "data", "platform", "artifactType"])
def test_from_dict_null_field_is_absent(field: str) -> None:
    assert Descriptor.from_dict(REQUIRED | {field: None}) == Descriptor.from_dict(REQUIRED)


def test_from_dict_empty_artifact_type_is_none() -> None:
    assert Descriptor.from_dict(REQUIRED | {"artifactType": ""}).artifact_type is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digest", None),
        ("digest", 5),
        ("digest", "sha256:zz"),
        ("size", None),
        ("size", "7"),
        ("size", 7.5),
        ("size", float("inf")),
        ("size", 1e300),
        ("size", -7),
        ("size", -7.0),
        ("size", True),
    ],
)
def test_from_dict_invalid_digest_or_size_raises_usage_error(field: str, value: Any) -> None:
    with pytest.raises(UsageError):
        Descriptor.from_dict(REQUIRED | {field: value})


@pytest.mark.parametrize(
    ("field", "value", "attribute", "parsed"),
    [
        ("mediaType", f"{OCI_MANIFEST}; charset=utf-8", "media_type", OCI_MANIFEST),
        ("mediaType", "text/plain;charset=utf-8", "media_type", "text/plain"),
        ("mediaType", OCI_MANIFEST.upper(), "media_type", OCI_MANIFEST),
        ("mediaType", "Application/X", "media_type", "Application/X"),
        ("mediaType", "", "media_type", OCTET_STREAM),
        ("mediaType", None, "media_type", OCTET_STREAM),
        ("mediaType", "garbage", "media_type", OCTET_STREAM),
        ("mediaType", ["a/b"], "media_type", OCTET_STREAM),
        ("size", 7.0, "size", 7),
        ("urls", ["https://a.example", None, 5], "urls", ("https://a.example",)),
        ("urls", "https://a.example", "urls", ()),
        ("urls", {}, "urls", ()),
        ("urls", 0, "urls", ()),
        (
            "annotations",
            {"a": None, "b": 1, "c": 1.5, "d": True, "e": "x", "f": []},
            "annotations",
            {"b": "1", "c": "1.5", "d": "true", "e": "x"},
        ),
        ("annotations", [], "annotations", None),
        ("annotations", 5, "annotations", None),
        ("data", "e30", "data", None),
        ("data", "\xe9", "data", None),
        ("data", 5, "data", None),
        ("platform", [], "platform", None),
        (
            "platform",
            {"architecture": None, "os": 5, "variant": 8, "os.features": [1, "x"], "new": {}},
            "platform",
            Platform("", "5", variant="8", os_features=("x",)),
        ),
        (
            "platform",
            {"architecture": "arm", "os": "linux", "features": "x", "os.version": 10.0},
            "platform",
            Platform("arm", "linux", "10.0"),
        ),
        ("artifactType", "application/x; a=b", "artifact_type", "application/x"),
        ("artifactType", "x", "artifact_type", None),
        ("artifactType", 0, "artifact_type", None),
        ("artifactType", [], "artifact_type", None),
    ],
)
def test_from_dict_unusual_field_is_read_leniently(field: str, value: Any, attribute: str, parsed: Any) -> None:
    described = Descriptor.from_dict(REQUIRED | {field: value})
    assert getattr(described, attribute) == parsed
    assert type(getattr(described, attribute)) is type(parsed)
    assert described.replace(**{attribute: getattr(Descriptor.from_dict(REQUIRED), attribute)}) == (
        Descriptor.from_dict(REQUIRED)
    )


def test_platform_to_dict_omits_empty_fields() -> None:
    assert Platform("amd64", "linux").to_dict() == {"architecture": "amd64", "os": "linux"}


@pytest.mark.parametrize("field", ["os.version", "os.features", "variant", "features"])
def test_platform_from_dict_null_field_is_absent(field: str) -> None:
    assert Platform.from_dict({"architecture": "arm", "os": "linux", field: None}) == Platform("arm", "linux")


@pytest.mark.parametrize("field", ["architecture", "os", "os_version", "variant", "os_features", "features"])
def test_platform_field_of_wrong_type_raises_usage_error(field: str) -> None:
    values: dict[str, Any] = {"architecture": "arm", "os": "linux", field: 5}
    with pytest.raises(UsageError, match=rf"platform\.{field} must be .*, got 5"):
        Platform(**values)


@pytest.mark.parametrize("value", [Descriptor.from_dict(FULL), Descriptor.of(b""), Platform("arm", "linux")])
def test_pickle_and_copy_are_equal(value: Any) -> None:
    for duplicate in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert duplicate == value
        assert hash(duplicate) == hash(value)
