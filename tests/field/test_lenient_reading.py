"""JSON and headers of other tools that are read leniently. Copies keep their bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, FunctionTransport, Request, Response
from ociwire.errors import ContentError, SizeMismatch
from ociwire.media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST
from ociwire.testing import MemoryRegistry, ScriptedTransport
from ociwire.transfer import copy
from tests._support.doubles import content_of
from tests.field.rows import Row

TITLE = "JSON and headers that are read leniently"

NAME = "team/app"
LAYER = b"hello"
CONFIG = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json").to_dict()
ENTRY = Descriptor.of(b"manifest", OCI_MANIFEST).to_dict()


@dataclass(frozen=True, kw_only=True)
class ReadRow(Row):
    """Deviation in JSON or headers.

    Attributes:
        call: Function that reads or copies content with a client.
        expected: The result of the call, or the type of the exception that it raises.
    """

    call: Callable[[], Any]
    expected: Any


def client_of(body: Any, content_type: str) -> Client:
    """Return a client whose first request is answered with this body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client("registry.example", ScriptedTransport([Response(200, {"Content-Type": content_type}, content)]))


def tags(*names: Any) -> list[str]:
    return list(client_of({"name": NAME, "tags": names}, "application/json").tags(NAME))


def referrers(*entries: Any) -> list[Descriptor]:
    client = client_of({"schemaVersion": 2, "manifests": entries}, OCI_INDEX)
    return list(client.referrers(NAME, Digest.of(b"")))


def media_type(content_type: str, **fields: Any) -> str:
    with client_of({"schemaVersion": 2, **fields}, content_type).get_tag(NAME, "v1") as reader:
        return reader.descriptor.media_type


def copy_keeps_bytes(manifest: dict[str, Any], media_type: str = OCI_MANIFEST, **options: Any) -> bool:
    """Copy a manifest with unusual white space. Return whether the target has the same bytes."""
    source, target = Client("source.example", MemoryRegistry()), Client("target.example", MemoryRegistry())
    for content in (LAYER, b"{}"):
        source.push_blob(NAME, Descriptor.of(content), content)
    content = json.dumps({"schemaVersion": 2, **manifest}, indent=3).encode()
    source.push_manifest(NAME, content, media_type, tags=["v1"])
    descriptor = copy(source, f"{NAME}:v1", target, f"{NAME}:v1", workers=1, **options)
    with target.get_manifest(NAME, descriptor.digest) as reader:
        return reader.read() == content


def client_serving(registry: Client, content: bytes, media_type: str) -> Client:
    """Return a client of a registry whose tag v1 is this manifest, which `MemoryRegistry` may refuse to store."""

    def answer(request: Request) -> Response:
        if request.url.endswith("/manifests/v1"):
            return Response(200, {"Content-Type": media_type}, content, request)
        return registry.do(request)

    return Client("source.example", FunctionTransport(answer))


def copy_sends_same_bytes(manifest: dict[str, Any], media_type: str) -> bool:
    """Copy a manifest that `MemoryRegistry` refuses. Return whether the same bytes are sent to the target."""
    source, target = Client("source.example", MemoryRegistry()), MemoryRegistry()
    sent: list[bytes] = []
    content = json.dumps({"schemaVersion": 2, **manifest}, indent=3).encode()
    for blob in (LAYER, b"{}"):
        source.push_blob(NAME, Descriptor.of(blob), blob)

    def answer(request: Request) -> Response:
        if request.method == "PUT" and request.url.endswith("/manifests/v1"):
            sent.append(content_of(request.body))
            return Response(201, request=request)
        return target.round_trip(request)

    client = Client("target.example", FunctionTransport(answer))
    copy(client_serving(source, content, media_type), f"{NAME}:v1", client, f"{NAME}:v1", workers=1)
    return sent == [content]


def image(**layer: Any) -> dict[str, Any]:
    return {"config": CONFIG, "layers": [{**Descriptor.of(LAYER).to_dict(), **layer}]}


def copy_referrer_of_size(size: int) -> list[int]:
    """Copy an image whose referrer is listed with this size. Return the errors of the sizes listed at the target."""
    source, target = MemoryRegistry(), Client("target.example", MemoryRegistry())
    client = Client("source.example", source)
    client.push_blob(NAME, Descriptor.of(b"{}"), b"{}")
    content = json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": []}).encode()
    subject = client.push_manifest(NAME, content, OCI_MANIFEST, tags=["v1"])
    signature = json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [], "subject": subject.to_dict()}).encode()
    signed = client.push_manifest(NAME, signature, OCI_MANIFEST)

    def state_size(request: Request) -> Response:
        response = source.round_trip(request)
        if f"/referrers/{subject.digest}" not in request.url:
            return response
        index = response.json()
        index["manifests"][0]["size"] = size
        return Response(200, {"Content-Type": OCI_INDEX}, json.dumps(index).encode(), request)

    harbor = Client("source.example", FunctionTransport(state_size))
    copy(harbor, f"{NAME}:v1", target, f"{NAME}:v1", referrers=True, workers=1)
    entries = list(target.referrers(NAME, subject.digest))
    assert [entry.digest for entry in entries] == [signed.digest]
    return [entry.size - signed.size for entry in entries]


def copy_selects(platform: Any, *others: Any) -> bool:
    """Copy linux/amd64 of an index with an entry of this platform. Return whether that entry is copied."""
    source, target = Client("source.example", MemoryRegistry()), Client("target.example", MemoryRegistry())
    source.push_blob(NAME, Descriptor.of(b"{}"), b"{}")
    pushed = [
        source.push_manifest(NAME, json.dumps({"config": CONFIG, "layers": [], "n": n}).encode(), OCI_MANIFEST)
        for n in range(2)
    ]
    entries = [{**pushed[0].to_dict(), "platform": platform}, pushed[1].to_dict()]
    source = client_serving(source, json.dumps({"manifests": [*others, *entries]}).encode(), OCI_INDEX)
    descriptor = copy(source, f"{NAME}:v1", target, f"{NAME}:v1", platforms=["linux/amd64"])
    return descriptor.digest == pushed[0].digest


ROWS = (
    ReadRow(
        name="layer_type_has_parameters",
        registry="podman artifact",
        behaviour="The mediaType of a layer is `text/plain; charset=utf-8`.",
        result="Copies the image with the same bytes; the descriptor has `text/plain`.",
        source="[podman#25884](https://github.com/containers/podman/issues/25884)",
        call=lambda: copy_keeps_bytes(image(mediaType="text/plain; charset=utf-8")),
        expected=True,
    ),
    ReadRow(
        name="layer_type_is_no_media_type",
        registry="oras 0.16 on Windows",
        behaviour="The mediaType of a layer is `test:test:test`.",
        result="Copies the image with the same bytes; the descriptor has `application/octet-stream`.",
        source="[oras#697](https://github.com/oras-project/oras/issues/697)",
        call=lambda: copy_keeps_bytes(image(mediaType="test:test:test")),
        expected=True,
    ),
    ReadRow(
        name="layer_type_is_empty",
        registry="Tools that omit the mediaType of a layer",
        behaviour="The mediaType of a layer is empty.",
        result="Copies the image with the same bytes.",
        source="[moby#28894](https://github.com/moby/moby/issues/28894)",
        call=lambda: copy_keeps_bytes(image(mediaType="")),
        expected=True,
    ),
    ReadRow(
        name="annotations_are_null_or_numbers",
        registry="Tools that write annotations without quotes",
        behaviour="Values of annotations are null, numbers or booleans.",
        result="Copies the image with the same bytes.",
        source="[Image specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md#rules)",
        call=lambda: copy_keeps_bytes({**image(annotations={"a": None, "b": 1, "c": True}), "annotations": None}),
        expected=True,
    ),
    ReadRow(
        name="optional_fields_have_odd_types",
        registry="Tools in PHP, which write empty objects as lists",
        behaviour="Annotations and platforms are `[]`, urls and data are null or not valid.",
        result="Copies the image with the same bytes.",
        source="[Image specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#properties)",
        call=lambda: copy_keeps_bytes(image(annotations=[], platform=[], urls=None, data="not base64", artifactType=5)),
        expected=True,
    ),
    ReadRow(
        name="layer_has_a_wrong_size",
        registry="Any registry",
        behaviour="A manifest states a wrong size of a layer.",
        result="Raises `SizeMismatch`: only lists of referrers may state wrong sizes.",
        source="[Image specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#properties)",
        call=lambda: copy_keeps_bytes(image(size=4)),
        expected=SizeMismatch,
    ),
    ReadRow(
        name="platform_has_unknown_fields",
        registry="Builders with platform extensions",
        behaviour="The platform of an index entry has unknown fields, nulls and a number as os.version.",
        result="Selects the entry by architecture and os.",
        source="[Image specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md)",
        call=lambda: copy_selects(
            {"architecture": "amd64", "os": "linux", "os.version": 10.0, "variant": None, "os.features": "x", "cpu": {}}
        ),
        expected=True,
    ),
    ReadRow(
        name="referrers_state_wrong_sizes",
        registry="Harbor 2.10",
        behaviour="The size of an entry in a list of referrers is the sum of the manifest, its config and its layers.",
        result="Copies the referrer: its content is verified by its digest.",
        source="[harbor#20187](https://github.com/goharbor/harbor/issues/20187)",
        call=lambda: copy_referrer_of_size(2621),
        expected=[0],
    ),
    ReadRow(
        name="referrers_state_no_valid_size",
        registry="Registries that do not compute sizes",
        behaviour="Entries of a list of referrers have a negative size or no size.",
        result="Returns the entries with a size of 0.",
        source="[harbor#20187](https://github.com/goharbor/harbor/issues/20187)",
        call=lambda: [
            (entry.digest, entry.size) for entry in referrers({**ENTRY, "size": -1}, {"digest": ENTRY["digest"]})
        ],
        expected=[(ENTRY["digest"], 0), (ENTRY["digest"], 0)],
    ),
    ReadRow(
        name="referrers_have_an_unusable_entry",
        registry="Any registry",
        behaviour="One entry of a list of referrers is null, and another has no valid digest.",
        result="Skips and logs both, and returns the others.",
        source="[Distribution specification]"
        "(https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers)",
        call=lambda: referrers(None, ENTRY, {**ENTRY, "digest": "latest"}),
        expected=[Descriptor.from_dict(ENTRY)],
    ),
    ReadRow(
        name="tags_hold_null",
        registry="Nexus 3.58",
        behaviour="A list of tags contains null.",
        result="Skips and logs the entry.",
        source="[image#2544](https://github.com/containers/image/pull/2544)",
        call=lambda: tags("v1", None, "v2"),
        expected=["v1", "v2"],
    ),
    ReadRow(
        name="tags_are_not_valid",
        registry="Amazon ECR Public (datadog/agent)",
        behaviour="A list of tags contains `-ot-beta`, which is not a valid tag.",
        result="Returns the name as it is.",
        source="[image#2771](https://github.com/containers/image/issues/2771)",
        call=lambda: tags("v1", "-ot-beta"),
        expected=["v1", "-ot-beta"],
    ),
    ReadRow(
        name="tags_are_null",
        registry="docker/distribution 2.1",
        behaviour="The list of tags of an unknown repository is null.",
        result="Returns no tags.",
        source="[distribution#1186](https://github.com/distribution/distribution/issues/1186)",
        call=lambda: list(client_of({"name": NAME, "tags": None}, "application/json").tags(NAME)),
        expected=[],
    ),
    *(
        ReadRow(
            name=f"manifest_is_served_as_{content_type.partition(';')[0].replace('/', '_')}",
            registry=registry,
            behaviour=f"The Content-Type of a manifest is `{content_type}`.",
            result="Uses the mediaType of the manifest.",
            source=source,
            call=lambda content_type=content_type: media_type(content_type, mediaType=DOCKER_MANIFEST),
            expected=DOCKER_MANIFEST,
        )
        for content_type, registry, source in (
            ("text/html", "Crane (Pulp) with a CDN", "[image#58](https://github.com/containers/image/pull/58)"),
            (
                "application/x-troff-man",
                "Crane (Pulp), which guesses from the end of the tag",
                "[image#139](https://github.com/containers/image/pull/139)",
            ),
            (
                "text/plain; charset=utf-8",
                "Registries without media types",
                "[image#418](https://github.com/containers/image/pull/418)",
            ),
            (
                "binary/octet-stream",
                "Registries that redirect manifests to S3",
                "[Amazon S3](https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html)",
            ),
        )
    ),
    ReadRow(
        name="index_has_no_type_at_all",
        registry="Registries that redirect manifests to S3",
        behaviour="An index has no mediaType, and its Content-Type is `binary/octet-stream`.",
        result="Treats it as an index, because it has `manifests`.",
        source="[image-builder#2372](https://github.com/osbuild/image-builder/pull/2372)",
        call=lambda: media_type("binary/octet-stream", manifests=[]),
        expected=OCI_INDEX,
    ),
    ReadRow(
        name="image_manifest_has_no_type_at_all",
        registry="Registries that serve manifests as JSON",
        behaviour="A manifest has no mediaType, and its Content-Type is `application/json`.",
        result="Treats it as an image manifest, because it has `config` and `layers`.",
        source="[image-builder#2372](https://github.com/osbuild/image-builder/pull/2372)",
        call=lambda: media_type("application/json", config=CONFIG, layers=[]),
        expected=OCI_MANIFEST,
    ),
    ReadRow(
        name="manifest_is_ambiguous",
        registry="A hostile registry",
        behaviour="A manifest without a mediaType has `manifests`, `config` and `layers`.",
        result="Raises `ContentError` (CVE-2021-41190).",
        source="[image#1409](https://github.com/containers/image/pull/1409)",
        call=lambda: media_type("application/json", manifests=[], config=CONFIG, layers=[]),
        expected=ContentError,
    ),
    ReadRow(
        name="header_and_manifest_state_different_types",
        registry="A hostile registry",
        behaviour="The Content-Type is that of an index, and the mediaType is that of an image manifest.",
        result="Raises `ContentError`.",
        source="[image#1409](https://github.com/containers/image/pull/1409)",
        call=lambda: media_type(DOCKER_MANIFEST_LIST, mediaType=OCI_MANIFEST),
        expected=ContentError,
    ),
    ReadRow(
        name="index_entry_is_odd_and_not_selected",
        registry="Tools that write indexes by hand",
        behaviour="One entry of an index is null, and another has no valid digest.",
        result="Copies the entry of the requested platform, and logs that two entries were skipped.",
        source="[Image specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md)",
        call=lambda: copy_selects({"architecture": "amd64", "os": "linux"}, None, {**ENTRY, "digest": "latest"}),
        expected=True,
    ),
    ReadRow(
        name="index_entry_is_odd_and_passed_on",
        registry="Tools that write indexes by hand",
        behaviour="One entry of an index is null, and another has no valid digest.",
        result="Copies the index with the same bytes, and logs that two entries were skipped.",
        source="[Image specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md)",
        call=lambda: copy_sends_same_bytes({"manifests": [None, {**ENTRY, "digest": "latest"}]}, OCI_INDEX),
        expected=True,
    ),
    ReadRow(
        name="index_entry_has_a_size_that_is_text",
        registry="A hostile registry",
        behaviour="The size of an entry of an index is a string.",
        result="Raises `ContentError`: only lists of referrers may state wrong sizes.",
        source="[Image specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#properties)",
        call=lambda: copy_sends_same_bytes({"manifests": [{**ENTRY, "size": "8"}]}, OCI_INDEX),
        expected=ContentError,
    ),
    ReadRow(
        name="subject_is_an_empty_list",
        registry="Tools in PHP, which write empty objects as lists",
        behaviour="The subject of a manifest is `[]`.",
        result="Copies the manifest with the same bytes, as one without a subject.",
        source="[Image specification](https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md)",
        call=lambda: copy_sends_same_bytes({**image(), "subject": []}, OCI_MANIFEST),
        expected=True,
    ),
    ReadRow(
        name="media_types_in_upper_case",
        registry="Proxies that rewrite headers",
        behaviour="The Content-Type of a manifest is in upper case.",
        result="Compares media types case-insensitively (RFC 6838, section 4.2).",
        source="[RFC 6838, section 4.2](https://www.rfc-editor.org/rfc/rfc6838#section-4.2)",
        call=lambda: media_type(OCI_MANIFEST.upper(), mediaType=OCI_MANIFEST),
        expected=OCI_MANIFEST,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_client_content_of_deployed_tools_is_read_or_refused(row: ReadRow) -> None:
    if isinstance(row.expected, type) and issubclass(row.expected, Exception):
        with pytest.raises(row.expected):
            row.call()
    else:
        assert row.call() == row.expected
