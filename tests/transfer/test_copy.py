"""Copies between registries in memory: the copied content, the order, and the number of requests."""

from __future__ import annotations

import contextvars
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, Platform, Reference, Request, Response, Transport
from ociwire.errors import (
    BlobUnknown,
    BlobUploadInvalid,
    BodyConsumedError,
    ConnectError,
    ContentError,
    Denied,
    DigestMismatch,
    ManifestUnknown,
    NotFound,
    OciwireError,
    ProtocolError,
    ReadError,
    ReferrersUpdateError,
    RegistryError,
    SizeMismatch,
    TransportTimeout,
    UsageError,
)
from ociwire.testing import FaultTransport, MemoryRegistry, ScriptedTransport
from ociwire.testing.faults import FAULTS
from ociwire.transfer import Progress, copy
from ociwire.transfer._walker import ManifestWalker
from ociwire.transfer._workers import WorkerPool
from tests._support.copy_world import INDEX, LAYER, NAME, Side, check_complete
from tests._support.fault_world import MANIFEST, Numbered, blob, redirect_to_cdn

AMD64, ARM64, ARM6 = (
    Platform("amd64", "linux"),
    Platform("arm64", "linux", variant="v8"),
    Platform("arm", "linux", variant="v6"),
)


@pytest.fixture
def source() -> Side:
    return Side("source.example")


@pytest.fixture
def target() -> Side:
    return Side("target.example")


@pytest.fixture(autouse=True)
def _check_no_leaks(source: Side, target: Side) -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before, "a thread is still running"
    assert not source.watch.open, "a response is still open"
    assert not target.watch.open, "a response is still open"
    assert target.registry.open_uploads == 0, "an upload session is still open"


def run(source: Side, target: Side, **options: Any) -> Descriptor:
    return copy(source.client, f"{NAME}:v1", target.client, "other/app:v2", **options)


# Content


def test_copy_image_copies_all_content(source: Side, target: Side) -> None:
    image = source.image(1, 2, 3, tags=["v1"])
    assert run(source, target) == image
    assert target.direct.resolve_tag("other/app", "v2") == image
    assert len(check_complete(target.direct, "other/app", image.digest)) == 5


def test_copy_six_layers_without_token_takes_18_and_10_requests(source: Side, target: Side) -> None:
    source.image(*range(6), tags=["v1"])
    run(source, target)
    assert (source.recorder.count(), source.recorder.tokens()) == (9, 1)  # including the 401
    assert (target.recorder.count(), target.recorder.tokens()) == (17, 1)
    assert source.recorder.count(status=401) == target.recorder.count(status=401) == 1


def test_copy_tag_exists_takes_few_requests(source: Side, target: Side) -> None:
    source.image(*range(6), tags=["v1"])
    run(source, target)
    before = source.recorder.count(), target.recorder.count()
    run(source, target)
    assert source.recorder.count() - before[0] == 1
    assert target.recorder.count() - before[1] == 3
    assert target.recorder.count("PUT", "/manifests/") == 1


def test_copy_manifest_exists_new_tag_sends_one_put(source: Side, target: Side) -> None:
    image = source.image(*range(6), tags=["v1"])
    run(source, target)
    copy(source.client, f"{NAME}:v1", target.client, "other/app:v3")
    assert target.recorder.count("PUT", "/manifests/") == 2
    assert target.recorder.count("PUT", "/uploads/") == 7
    assert target.direct.resolve_tag("other/app", "v3") == image


@pytest.mark.parametrize("existing", [(0,), (3,), (5,), (0, 5)])
def test_copy_blob_exists_is_not_sent(source: Side, target: Side, existing: tuple[int, ...]) -> None:
    image = source.image(*range(6), tags=["v1"])
    for number in existing:
        target.add(blob(number), "other/app")
    run(source, target)
    check_complete(target.direct, "other/app", image.digest)
    assert target.recorder.count("PUT", "/uploads/") == 7 - len(existing)
    assert source.recorder.count("GET", "/blobs/", 200) == 7 - len(existing)


def test_copy_mount_unsupported_and_first_layer_exists_checks_other_layers(source: Side) -> None:
    target = Side("target.example", mounts=False)
    image = source.image(*range(6), tags=["v1"])
    for number in (0, 1, 2):
        target.add(blob(number), "other/app")
    run(source, target)
    check_complete(target.direct, "other/app", image.digest)
    assert target.recorder.count("PUT", "/uploads/") == 4


def test_copy_nested_index_with_shared_layers_sends_each_once(source: Side, target: Side) -> None:
    first, second, third = source.image(1, 2), source.image(2, 3), source.image(3, 1, 4)
    root = source.index(source.index(first, second), third, first, tags=["v1"])
    run(source, target)
    assert len(check_complete(target.direct, "other/app", root.digest)) == 5 + 3 + 4
    assert source.recorder.count("GET", "/blobs/", 200) == target.recorder.count("PUT", "/uploads/") == 7
    assert list(target.direct.tags("other/app")) == ["v2"]


def test_copy_artifact_without_layers_is_copied(source: Side, target: Side) -> None:
    content = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x-test"}
    artifact = source.push(content, MANIFEST, tags=["v1"])
    assert run(source, target) == artifact


def test_copy_index_that_lists_a_blob_copies_it(source: Side, target: Side) -> None:
    layer = source.add(blob(9))
    root = source.index(source.image(1), layer, tags=["v1"])
    assert run(source, target) == root
    assert target.direct.get_blob("other/app", layer.digest).read() == blob(9)


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024 + 1])
def test_copy_blob_of_any_size_is_copied(source: Side, target: Side, size: int) -> None:
    layer = source.add(blob(7, size))
    image = source.push({"schemaVersion": 2, "layers": [layer.to_dict()]}, MANIFEST, tags=["v1"])
    run(source, target)
    check_complete(target.direct, "other/app", image.digest)


def test_copy_blob_with_embedded_data_is_not_requested(source: Side, target: Side) -> None:
    layer = source.add(b"{}").replace(data=b"{}")
    wrong = source.add(b"right").replace(data=b"wrong")
    source.push({"schemaVersion": 2, "layers": [layer.to_dict(), wrong.to_dict()]}, MANIFEST, tags=["v1"])
    image = run(source, target)
    check_complete(target.direct, "other/app", image.digest)
    assert source.recorder.count("GET", "/blobs/", 200) == 1


def test_copy_foreign_layer_missing_at_source_is_skipped(source: Side, target: Side) -> None:
    existing = source.add(blob(1)).replace(urls=("https://elsewhere.example/1",))
    missing = Descriptor.of(blob(2), LAYER).replace(urls=("https://elsewhere.example/2",))
    source.push({"schemaVersion": 2, "layers": [existing.to_dict(), missing.to_dict()]}, MANIFEST, tags=["v1"])
    run(source, target)
    assert target.direct.get_blob("other/app", existing.digest).read() == blob(1)
    with pytest.raises(BlobUnknown):
        target.direct.resolve_blob("other/app", missing.digest)


def test_copy_foreign_layer_skipped_is_reported_as_done(source: Side, target: Side) -> None:
    missing = Descriptor.of(blob(2), LAYER).replace(urls=("https://elsewhere.example/2",))
    source.push({"schemaVersion": 2, "layers": [missing.to_dict()]}, MANIFEST, tags=["v1"])
    events: list[Progress] = []
    run(source, target, progress=events.append)
    assert events[0] == Progress("copy", missing.digest, missing.size, missing.size)


@pytest.mark.parametrize("existing", [0, 1])
@pytest.mark.parametrize("referrers", [False, True])
def test_copy_two_indexes_list_a_blob_copies_it(source: Side, target: Side, existing: int, *, referrers: bool) -> None:
    """An index that exists at the target does not prove that the blobs of another index exist."""
    layer = source.add(blob(9))
    indexes = [source.index(layer, annotations={"number": str(number)}) for number in range(2)]
    root = source.index(*indexes, tags=["v1"])
    target.add(blob(9), "other/app")
    with source.direct.get_manifest(NAME, indexes[existing].digest) as reader:
        target.direct.push_manifest("other/app", reader.read(), reader.descriptor.media_type)
    target.direct.delete_blob("other/app", layer.digest)
    run(source, target, referrers=referrers)
    assert target.direct.get_blob("other/app", layer.digest).read() == blob(9)
    assert target.direct.resolve_tag("other/app", "v2") == root


def test_copy_other_digest_algorithm_is_copied(source: Side, target: Side) -> None:
    layer = Descriptor.of(blob(1), LAYER, algorithm="sha512")
    source.direct.push_blob(NAME, layer, blob(1))
    content = json.dumps({"schemaVersion": 2, "layers": [layer.to_dict()]}).encode()
    digest = Digest.of(content, "sha512")
    source.direct.push_manifest(NAME, content, MANIFEST, digest=digest)
    assert copy(source.client, f"{NAME}@{digest}", target.client, f"other/app@{digest}").digest == digest
    assert target.direct.get_manifest("other/app", digest).read() == content


# Platforms


def test_copy_one_platform_copies_one_image(source: Side, target: Side) -> None:
    image = source.image(1)
    source.index(image.replace(platform=AMD64), source.image(2).replace(platform=ARM64), tags=["v1"])
    assert run(source, target, platforms=["linux/amd64"]).digest == image.digest
    assert target.direct.resolve_tag("other/app", "v2").digest == image.digest
    assert target.recorder.count("PUT", "/uploads/") == 2


def test_copy_several_platforms_pushes_new_index(source: Side, target: Side) -> None:
    entries = [source.image(number).replace(platform=platform) for number, platform in enumerate((AMD64, ARM64, ARM6))]
    nested = source.index(*entries[1:])
    root = source.index(entries[0], nested, tags=["v1"], annotations={"kept": "yes"})
    copied = run(source, target, platforms=["linux/arm", Platform("arm64", "linux")])
    assert copied != root
    with target.direct.get_tag("other/app", "v2") as reader:
        assert reader.descriptor == copied
        index = json.loads(reader.read())
    assert index["annotations"] == {"kept": "yes"}
    assert index["manifests"] == [entries[1].to_dict(), entries[2].to_dict()]
    check_complete(target.direct, "other/app", copied.digest)
    with pytest.raises(ManifestUnknown):
        target.direct.resolve_manifest("other/app", entries[0].digest)


def push_unknown_fields(side: Side, *entries: Descriptor, tags: Sequence[str] = ()) -> tuple[Descriptor, list[Any]]:
    """Push an index whose entries have fields of no specification. Return its descriptor and the entries."""
    raw = [{**entry.to_dict(), "com.example.number": number} for number, entry in enumerate(entries)]
    return side.push({"schemaVersion": 2, "mediaType": INDEX, "manifests": raw}, INDEX, tags=tags), raw


def test_copy_platforms_entries_keep_their_bytes(source: Side, target: Side) -> None:
    entries = [source.image(number).replace(platform=platform) for number, platform in enumerate((AMD64, ARM64, ARM6))]
    _, raw = push_unknown_fields(source, *entries, tags=["v1"])
    run(source, target, platforms=["linux/amd64", "linux/arm64"])
    with target.direct.get_tag("other/app", "v2") as reader:
        assert json.loads(reader.read())["manifests"] == raw[:2]


def test_copy_platforms_select_all_entries_keeps_the_digest(source: Side, target: Side) -> None:
    entries = [source.image(number).replace(platform=platform) for number, platform in enumerate((AMD64, ARM64, ARM6))]
    nested = source.index(*entries[1:])
    root, _ = push_unknown_fields(source, entries[0], nested, nested, tags=["v1"])
    chosen = ["linux/arm/v6", "linux/amd64", "linux/arm64", "linux/s390x"]
    assert run(source, target, platforms=chosen) == root == target.direct.resolve_tag("other/app", "v2")


def test_copy_platforms_entry_without_platform_is_omitted(source: Side, target: Side) -> None:
    entries = [source.image(number).replace(platform=platform) for number, platform in enumerate((AMD64, ARM64))]
    root = source.index(*entries, source.image(3), tags=["v1"])
    copied = run(source, target, platforms=["linux/amd64", "linux/arm64"])
    assert copied != root
    assert len(check_complete(target.direct, "other/app", copied.digest)) == 1 + 2 * 3


def test_copy_platforms_without_a_match_raises_not_found(source: Side, target: Side) -> None:
    source.index(source.image(1).replace(platform=AMD64), tags=["v1"])
    with pytest.raises(NotFound, match="linux/s390x"):
        run(source, target, platforms=["linux/s390x"])
    assert target.recorder.count() == 0


def test_copy_platforms_of_an_image_copies_the_image(source: Side, target: Side) -> None:
    image = source.image(1, tags=["v1"])
    assert run(source, target, platforms=["linux/amd64"]) == image


# Referrers


@pytest.mark.parametrize("api", [True, False])
@pytest.mark.parametrize("again", [False, True])
def test_copy_referrers_are_copied(source: Side, *, api: bool, again: bool) -> None:
    target = Side("target.example", referrers_api=api)
    child = source.image(1)
    root = source.index(child, tags=["v1"])
    sbom = source.image(2, subject=child.to_dict(), artifactType="application/x-sbom")
    signature = source.image(3, subject=sbom.to_dict(), artifactType="application/x-signature")
    others = [source.image(4 + n, subject=root.to_dict(), artifactType="application/x-many") for n in range(5)]
    run(source, target)
    assert not list(target.client.referrers("other/app", child.digest))
    for _ in range(1 + again):
        run(source, target, referrers=True)
    for subject, referrers in ((child, [sbom]), (sbom, [signature]), (root, others)):
        listed = list(target.direct.referrers("other/app", subject.digest))
        assert {descriptor.digest for descriptor in listed} == {descriptor.digest for descriptor in referrers}
        assert all(descriptor.artifact_type for descriptor in listed)
        for descriptor in referrers:
            check_complete(target.direct, "other/app", descriptor.digest)
    assert target.direct.resolve_tag("other/app", "v2") == root


def test_walker_referrers_annotations_are_dropped(source: Side) -> None:
    image = source.image(1, tags=["v1"])
    source.image(2, subject=image.to_dict(), annotations={"long": "x" * 1000})
    walker = ManifestWalker(source.client, NAME, WorkerPool("test"), referrers=True)
    nodes = walker.walk(walker.read(None, tag="v1"), lambda digest, blobs: False)
    [listed] = nodes[image.digest].referrers
    assert listed.digest in nodes
    assert listed == Descriptor(listed.media_type, listed.digest, listed.size)


@pytest.mark.parametrize("media_type", [MANIFEST, "application/vnd.example+json"])
def test_copy_referrer_listed_but_missing_is_skipped(target: Side, media_type: str) -> None:
    source = Side("source.example", referrers_api=False)
    image = source.image(1, tags=["v1"])
    existing = source.image(2, subject=image.to_dict())
    missing = source.add(blob(3)).replace(media_type=media_type)  # it exists as a blob, but not as a manifest
    tag = str(image.digest).replace(":", "-")
    source.index(existing, missing, tags=[tag])
    assert run(source, target, referrers=True) == image
    assert [descriptor.digest for descriptor in target.direct.referrers("other/app", image.digest)] == [existing.digest]
    with pytest.raises(BlobUnknown):
        target.direct.resolve_blob("other/app", missing.digest)


def test_copy_child_missing_and_listed_as_referrer_raises(target: Side) -> None:
    source = Side("source.example", referrers_api=False)
    child = source.image(1)
    root = source.index(child, tags=["v1"])
    source.index(child, tags=[str(root.digest).replace(":", "-")])
    source.direct.delete_manifest(NAME, child.digest)
    with pytest.raises(ManifestUnknown):
        run(source, target, referrers=True)


def test_copy_referrers_are_pushed_before_the_tag(source: Side, target: Side) -> None:
    root = source.image(1, tags=["v1"])
    source.image(2, subject=root.to_dict())
    run(source, target, referrers=True)
    puts = [
        request.url for request in target.recorder.exchanges if request.method == "PUT" and "/manifests/" in request.url
    ]
    assert puts[0].endswith(root.digest)
    assert puts[-1].endswith("/v2")
    assert len(puts) == 3


# One registry


def one_registry(**options: Any) -> tuple[Side, Side]:
    registry = MemoryRegistry(**options)
    return Side("one.example", registry), Side("one.example", registry)


def test_copy_within_one_registry_mounts_blobs() -> None:
    source, target = one_registry()
    image = source.image(*range(6), tags=["v1"])
    run(source, target)
    check_complete(target.direct, "other/app", image.digest)
    assert source.recorder.count("GET", "/blobs/") == target.recorder.count("PUT", "/uploads/") == 0
    assert target.recorder.count("POST", f"from={NAME}", 201) == 7
    assert source.registry.open_uploads == 0


def test_copy_within_one_registry_mount_refused_sends_blobs() -> None:
    source, target = one_registry(mounts=False)
    image = source.image(1, 2, tags=["v1"])
    run(source, target)
    check_complete(target.direct, "other/app", image.digest)
    assert target.recorder.count("POST") == target.recorder.count("PUT", "/uploads/") == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_copy_mount_refused_is_not_requested_again(source: Side, target: Side, status: int) -> None:
    def refuse(request: Request, inner: Transport, chance: object) -> Response:
        return Response(status)

    image = source.image(1, 2, 3, tags=["v1"])
    faults = FaultTransport(target.watch, rate=1, faults=[refuse], where=lambda request: "mount=" in request.url)
    copy(source.client, f"{NAME}:v1", target.through(faults), "other/app", workers=1)
    check_complete(target.direct, "other/app", image.digest)
    assert len({request.url for request in faults.injected}) == 1


def test_copy_within_one_repository_sets_a_tag() -> None:
    source, target = one_registry()
    image = source.image(1, 2, tags=["v1"])
    assert copy(source.client, f"{NAME}:v1", target.client, f"{NAME}:v9") == image
    assert target.recorder.count("POST") == 0
    assert target.direct.resolve_tag(NAME, "v9") == image


# References


@pytest.mark.parametrize(
    "reference",
    [
        NAME,
        f"{NAME}:latest",
        f"source.example/{NAME}:latest",
        Reference("SOURCE.example", NAME),
        "source.example:443/team/app",
    ],
)
def test_copy_reference_forms_are_accepted(source: Side, target: Side, reference: str | Reference) -> None:
    image = source.image(1, tags=["latest"])
    assert copy(source.client, reference, target.client, "target.example/x") == image
    assert copy(source.client, f"{NAME}:gone@{image.digest}", target.client, f"x:y@{image.digest}") == image
    assert list(target.direct.tags("x")) == ["latest", "y"]


def test_copy_docker_hub_name_gets_library_prefix(target: Side) -> None:
    hub = Side("docker.io", guarded=False)
    image = hub.image(1, name="library/alpine", tags=["latest"])
    for reference in (
        "alpine",
        "docker.io/alpine",
        "docker.io/library/alpine:latest",
        "index.docker.io/library/alpine",
    ):
        assert copy(hub.client, reference, target.client, "alpine") == image
    assert list(target.direct.tags("alpine")) == ["latest"]


@pytest.mark.parametrize(
    "reference",
    ["", "UPPER", "a:b:c", "elsewhere.example/a", "docker.io/a", "a@sha256:1", None, Reference("b.example", "a")],
)
def test_copy_reference_of_another_registry_raises_usage_error(source: Side, target: Side, reference: Any) -> None:
    for first, second in ((reference, "a"), ("a", reference)):
        with pytest.raises(UsageError):
            copy(source.client, first, target.client, second)
    assert source.recorder.count() == target.recorder.count() == 0


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": 1.5},
        {"platforms": "linux"},
        {"platforms": "linux/amd64,linux/arm64"},
        {"platforms": ["linux"]},
        {"platforms": 7},
        {"platforms": [7]},
        {"progress": 7},
    ],
)
def test_copy_invalid_options_raise_usage_error(source: Side, target: Side, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        run(source, target, **options)
    assert source.recorder.count() == 0


@pytest.mark.parametrize("client", [None, "registry.example"])
def test_copy_invalid_client_raises_usage_error(source: Side, client: Any) -> None:
    for first, second in ((source.client, client), (client, source.client)):
        with pytest.raises(UsageError, match="Client"):
            copy(first, NAME, second, NAME)
    assert source.recorder.count() == 0


def test_copy_target_digest_differs_raises_usage_error(source: Side, target: Side) -> None:
    source.image(1, tags=["v1"])
    with pytest.raises(UsageError, match=r"^cannot copy sha256:[0-9a-f]{64} to a reference with the digest sha256:"):
        copy(source.client, f"{NAME}:v1", target.client, f"a@{Digest.of(b'')}")
    assert target.recorder.count() == 0


# Errors


def corrupt(what: str, change: Callable[[bytes], bytes]) -> Callable[..., Response]:
    def fault(request: Request, inner: Transport, chance: object) -> Response:
        with inner.round_trip(request) as response:
            content = change(response.read())
            headers = {"Content-Type": response.headers.get("content-type", ""), "Content-Length": str(len(content))}
            return Response(response.status, headers, content)

    return fault


@pytest.mark.parametrize("workers", [1, 4])
def test_copy_wrong_content_raises_digest_mismatch(source: Side, target: Side, workers: int) -> None:
    image = source.image(1, 2, 3, tags=["v1"])
    wrong = Descriptor.of(blob(2)).digest
    fault = corrupt("blob", lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    faults = FaultTransport(source.watch, rate=1, faults=[fault], where=lambda request: request.url.endswith(wrong))
    with pytest.raises(DigestMismatch):
        copy(source.through(faults), f"{NAME}:v1", target.client, "other/app:v2", workers=workers)
    with pytest.raises(NotFound):
        target.direct.resolve_manifest("other/app", image.digest)
    with pytest.raises(NotFound):
        target.direct.resolve_blob("other/app", wrong)


def test_copy_blob_size_wrong_raises_size_mismatch(source: Side, target: Side) -> None:
    layer = source.add(blob(1)).replace(size=999)
    source.push({"schemaVersion": 2, "layers": [layer.to_dict()]}, MANIFEST, tags=["v1"])
    with pytest.raises(SizeMismatch, match=r"has 1000 bytes, but its manifest states 999$"):
        run(source, target)
    assert target.recorder.count("PUT") == 0


def test_copy_manifest_size_wrong_raises_size_mismatch(source: Side, target: Side) -> None:
    source.index(source.image(1).replace(size=7), tags=["v1"])
    with pytest.raises(SizeMismatch, match=r"but the index that references it states 7$"):
        run(source, target)


def test_copy_blob_missing_at_source_raises(source: Side, target: Side) -> None:
    source.image(1, 2, tags=["v1"])
    source.direct.delete_blob(NAME, Descriptor.of(blob(2)).digest)
    with pytest.raises(BlobUnknown):
        run(source, target)
    assert target.recorder.count("PUT", "/manifests/") == 0


def test_copy_manifest_missing_at_source_raises(source: Side, target: Side) -> None:
    child = source.image(1)
    source.index(child, tags=["v1"])
    source.direct.delete_manifest(NAME, child.digest)
    with pytest.raises(ManifestUnknown):
        run(source, target)
    assert target.recorder.count("PUT") == 0


def test_copy_index_nested_too_deeply_raises_content_error(source: Side, target: Side) -> None:
    deepest = source.image(1)
    for _ in range(7):
        deepest = source.index(deepest, tags=["v1"])
    run(source, target)
    for _ in range(2):
        deepest = source.index(deepest, tags=["v1"])
    with pytest.raises(ContentError, match="nested deeper than 8 levels"):
        copy(source.client, f"{NAME}:v1", target.client, "another")
    source.index(deepest, tags=["v1"])
    with pytest.raises(ContentError, match="nested deeper than 8 levels"):
        run(source, target, platforms=["linux/amd64"])


def test_copy_too_many_manifests_raises_content_error(
    source: Side, target: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["ociwire.transfer._walker"], "_MAX_MANIFESTS", 3)
    source.index(*(source.image(number) for number in range(5)), tags=["v1"])
    with pytest.raises(ContentError, match=r"^cannot copy more than "):
        run(source, target)
    assert target.recorder.count("PUT") == 0


def test_copy_manifest_referenced_twice_counts_once(
    source: Side, target: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["ociwire.transfer._walker"], "_MAX_MANIFESTS", 3)
    image = source.image(1, tags=["v1"])
    referrers = {source.image(number, subject=image.to_dict()).digest for number in (2, 3)}
    run(source, target, referrers=True)
    assert {descriptor.digest for descriptor in target.direct.referrers("other/app", image.digest)} == referrers


@pytest.mark.parametrize("referrers", [False, True])
def test_copy_too_many_descriptors_raises_content_error(
    source: Side, target: Side, monkeypatch: pytest.MonkeyPatch, *, referrers: bool
) -> None:
    monkeypatch.setattr(sys.modules["ociwire.transfer._walker"], "_MAX_DESCRIPTORS", 3)
    image = source.image(*(() if referrers else range(3)), tags=["v1"])
    for number in range(3):
        source.image(subject=image.to_dict(), annotations={"number": str(number)})
    with pytest.raises(ContentError, match=r"^cannot copy more than "):
        run(source, target, referrers=referrers)
    assert target.recorder.count("PUT") == 0


@pytest.mark.parametrize("media_type", [5, [], "foo", "a/b;c=d", "x" * 1000 + "/y"])
def test_copy_manifest_with_invalid_media_type_raises_content_error(
    source: Side, target: Side, media_type: Any
) -> None:
    """The error is a ContentError, not a UsageError: the registry has served the manifest without validating it."""
    content = json.dumps({"schemaVersion": 2, "mediaType": media_type, "layers": [source.add(blob(1)).to_dict()]})

    def serve(request: Request, inner: Transport, chance: object) -> Response:
        headers = {"Content-Type": MANIFEST, "Content-Length": str(len(content))}
        return Response(200, headers, content.encode())

    faults = FaultTransport(source.watch, rate=1, faults=[serve], where=lambda request: "/manifests/" in request.url)
    with pytest.raises(ContentError) as caught:
        copy(source.through(faults), f"{NAME}:v1", target.client, "other/app")
    assert len(str(caught.value)) < 300
    assert target.recorder.count() == 0


def test_copy_chain_of_subjects_is_not_recursive(source: Side, target: Side) -> None:
    chain = [source.image(1)]
    for _ in range(60):
        chain.append(source.index(chain[-1]))
    root = source.index(*chain, tags=["v1"])
    assert run(source, target) == root


# Threads


def test_copy_progress_reports_all_bytes(source: Side, target: Side) -> None:
    sizes = {layer.digest: layer.size for layer in (source.add(blob(1, 3_000_000)), source.add(blob(2)))}
    layers = [Descriptor(LAYER, digest, size).to_dict() for digest, size in sizes.items()]
    image = source.push({"schemaVersion": 2, "layers": layers}, MANIFEST, tags=["v1"])
    events: list[Progress] = []
    run(source, target, progress=events.append)
    assert {event.operation for event in events} == {"copy"}
    assert {event.digest: event.done for event in events} == {**sizes, image.digest: image.size}
    assert all(event.total == {**sizes, image.digest: image.size}[event.digest] for event in events if event.digest)
    for digest in sizes:
        done = [event.done for event in events if event.digest == digest]
        assert done == sorted(set(done))
    assert events[-1] == Progress("copy", image.digest, image.size, image.size)
    assert len(events) == 3 + 2


CALLBACK_ERRORS = [
    ZeroDivisionError("from the callback"),
    StopIteration("from the callback"),
    KeyboardInterrupt("from the callback"),
    ReadError("from the callback"),
    TransportTimeout("from the callback"),
    BlobUploadInvalid("from the callback", status=400),
    RegistryError("from the callback", status=503),
    BodyConsumedError("from the callback"),
]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("when", ["in the middle", "at the end"])
@pytest.mark.parametrize("error", CALLBACK_ERRORS, ids=lambda error: type(error).__name__)
def test_copy_progress_raises_ends_the_copy(
    source: Side, target: Side, workers: int, when: str, error: BaseException
) -> None:
    def raises(event: Progress) -> None:
        if (event.done == event.total) == (when == "at the end"):
            calls.append(event)
            raise error

    calls: list[Progress] = []
    layers = [source.add(blob(number, 3_000_000)) for number in range(1 if workers == 1 else 3)]
    source.push({"schemaVersion": 2, "layers": [descriptor.to_dict() for descriptor in layers]}, MANIFEST, tags=["v1"])
    with pytest.raises(type(error)) as caught:
        run(source, target, workers=workers, progress=raises)
    assert caught.value is error
    assert len(calls) <= workers
    assert target.recorder.count("PUT", "/manifests/") == 0


def test_copy_progress_raises_keeps_its_cause(source: Side, target: Side) -> None:
    cause, error = KeyError("from the callback"), StopIteration("from the callback")

    def raises(event: Progress) -> None:
        raise error from cause

    source.push({"schemaVersion": 2, "layers": [source.add(blob(1, 3_000_000)).to_dict()]}, MANIFEST, tags=["v1"])
    with pytest.raises(StopIteration):
        run(source, target, progress=raises)
    assert error.__cause__ is cause


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    ("side", "method", "part"),
    [
        ("source", "GET", "/manifests/"),
        ("source", "GET", "/blobs/"),
        ("target", "POST", "/uploads/"),
        ("target", "PUT", "/uploads/"),
        ("target", "PUT", "/manifests/"),
    ],
)
def test_copy_interrupted_in_a_request_leaves_nothing_open(
    source: Side, target: Side, workers: int, side: str, method: str, part: str
) -> None:
    """The interrupt is raised after all threads have ended and all upload sessions are cancelled."""

    def interrupt(request: Request, inner: Transport, chance: object) -> Response:
        if request.body is not None:
            next(request.body.open())
        raise KeyboardInterrupt

    source.image(*range(6), tags=["v1"])
    sides = {"source": source, "target": target}
    faults = FaultTransport(
        sides[side].watch, rate=1, faults=[interrupt], where=lambda r: r.method == method and part in r.url
    )
    clients = {"source": source.client, "target": target.client, side: sides[side].through(faults)}
    with pytest.raises(KeyboardInterrupt):
        copy(clients["source"], f"{NAME}:v1", clients["target"], "other/app", workers=workers)


def test_copy_workers_run_in_the_callers_context(source: Side, target: Side) -> None:
    variable = contextvars.ContextVar("variable", default="")
    variable.set("value")
    values: set[str] = set()
    source.image(*range(6), tags=["v1"])
    run(source, target, progress=lambda event: values.add(variable.get()))
    assert values == {"value"}


def test_copy_first_error_stops_other_workers(source: Side, target: Side) -> None:
    """One worker fails while another copies a blob: the other worker stops."""
    started, failed = threading.Event(), threading.Event()
    source.image(1, tags=["v1"])
    large = source.add(blob(8, 3_000_000))
    source.push({"schemaVersion": 2, "layers": [large.to_dict(), source.add(blob(2)).to_dict()]}, MANIFEST, tags=["v1"])

    def progress(event: Progress) -> None:
        if event.digest == large.digest:
            started.set()
            assert failed.wait(30)

    def refuse(request: Request, inner: Transport, chance: object) -> Response:
        assert started.wait(30)
        failed.set()
        return Response(403)

    where = Descriptor.of(blob(2)).digest
    faults = FaultTransport(source.watch, rate=1, faults=[refuse], where=lambda request: request.url.endswith(where))
    with pytest.raises(Denied):
        copy(source.through(faults), f"{NAME}:v1", target.client, "other/app", progress=progress, workers=2)


@pytest.mark.parametrize("side", ["source", "target"])
def test_copy_deadline_ends_the_copy(source: Side, target: Side, side: str) -> None:
    source.image(1, tags=["v1"])
    clients = {"source": source.client, "target": target.client}
    late = Client(f"{side}.example", DeadlineTransport(clients[side].transport))
    clients[side] = late.with_options(within=0)
    with pytest.raises(TransportTimeout):
        copy(clients["source"], f"{NAME}:v1", clients["target"], "a")


class DeadlineTransport:
    """Transport that enforces deadlines, as the HTTP transport does."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def round_trip(self, request: Request, /) -> Response:
        if request.info.deadline is not None and time.monotonic() > request.info.deadline:
            raise TransportTimeout("the deadline has passed", request=request)
        return self._inner.round_trip(request)

    def close(self) -> None:
        self._inner.close()


# Cancelled uploads


def fail_blob_downloads(source: Side, fail: Callable[..., Response]) -> Client:
    """Return a client of the source whose requests for blobs fail."""
    where = lambda request: request.method == "GET" and "/blobs/" in request.url  # noqa: E731
    return source.through(FaultTransport(source.watch, rate=1, faults=[fail], where=where))


@pytest.mark.parametrize("error", [ConnectError, ProtocolError, TransportTimeout])
def test_copy_source_unreachable_leaves_no_session(source: Side, target: Side, error: type[OciwireError]) -> None:
    def fail(request: Request, inner: Transport, chance: object) -> Response:
        raise error("source failed")

    source.image(1, tags=["v1"])
    with pytest.raises(error, match="source failed"):
        copy(fail_blob_downloads(source, fail), f"{NAME}:v1", target.client, "other/app")
    assert target.recorder.count("POST", status=202) == target.recorder.count("DELETE", status=204) > 0


@pytest.mark.parametrize("error", [ReadError, TransportTimeout])
def test_copy_source_lost_in_a_blob_leaves_no_session(source: Side, target: Side, error: type[OciwireError]) -> None:
    def pieces(content: bytes) -> Iterator[bytes]:
        yield content[:2_000_000]
        raise error("source failed")

    def fail(request: Request, inner: Transport, chance: object) -> Response:
        if "range" in request.headers:
            raise error("source failed")
        with inner.round_trip(request) as response:
            return Response(response.status, response.headers, pieces(response.read()), request)

    source.push({"schemaVersion": 2, "layers": [source.add(blob(1, 3_000_000)).to_dict()]}, MANIFEST, tags=["v1"])
    client = fail_blob_downloads(source, fail)
    with pytest.raises(error, match="source failed"):
        copy(client, f"{NAME}:v1", target.client, "other/app")
    assert target.recorder.count("DELETE", status=204) == target.recorder.count("POST", status=202) == 3


def test_copy_mount_refused_opens_source_before_session(source: Side, target: Side) -> None:
    def refuse(request: Request, inner: Transport, chance: object) -> Response:
        return Response(405)

    source.image(1, tags=["v1"])
    source.direct.delete_blob(NAME, Descriptor.of(blob(1)).digest)
    faults = FaultTransport(target.watch, rate=1, faults=[refuse], where=lambda request: "mount=" in request.url)
    with pytest.raises(BlobUnknown):
        copy(source.client, f"{NAME}:v1", target.through(faults), "other/app", workers=1)
    assert target.recorder.count("POST", status=202) == 0


@pytest.mark.parametrize("late", [False, True])
def test_copy_cancel_has_its_own_deadline(source: Side, target: Side, *, late: bool) -> None:
    """The request that cancels an upload has ten seconds, even if the client's deadline has passed."""

    def time_out(request: Request, inner: Transport, chance: object) -> Response:
        raise TransportTimeout("the deadline has passed", request=request)

    def record_deadline(request: Request, inner: Transport, chance: object) -> Response:
        deadlines.append(request.info.deadline)
        return inner.round_trip(request)

    deadlines: list[float | None] = []
    source.image(1, tags=["v1"])
    faults = FaultTransport(
        target.watch, rate=1, faults=[record_deadline], where=lambda request: request.method == "DELETE"
    )
    client = target.through(faults).with_options(within=0 if late else 1000)
    deadline = client._checked_sender.defaults.deadline
    assert deadline is not None
    with pytest.raises(TransportTimeout):
        copy(fail_blob_downloads(source, time_out), f"{NAME}:v1", client, "other/app", workers=1)
    assert len(set(deadlines)) == 1
    assert deadlines[0] is not None
    assert deadline < deadlines[0] if late else deadlines[0] < deadline
    assert deadlines[0] <= time.monotonic() + 10


def test_copy_cancel_fails_raises_the_first_error(source: Side, target: Side) -> None:
    def fail(request: Request, inner: Transport, chance: object) -> Response:
        raise ConnectError("source failed")

    def refuse(request: Request, inner: Transport, chance: object) -> Response:
        raise ValueError("target failed")

    source.image(1, tags=["v1"])
    faults = FaultTransport(target.watch, rate=1, faults=[refuse], where=lambda request: request.method == "DELETE")
    with pytest.raises(ConnectError, match="source failed"):
        copy(fail_blob_downloads(source, fail), f"{NAME}:v1", target.through(faults), "other/app", workers=1)
    target.registry._storage._uploads.clear()


# Faults


def test_copy_upload_connection_lost_is_retried(source: Side, target: Side) -> None:
    image = source.image(1, 2, tags=["v1"])
    puts = iter(range(100))
    faults = FaultTransport(
        target.watch,
        rate=1,
        faults=["reset in upload"],
        where=lambda request: request.method == "PUT" and "/uploads/" in request.url and next(puts) < 2,
    )
    copy(source.client, f"{NAME}:v1", target.through(faults), "other/app", workers=1)
    check_complete(target.direct, "other/app", image.digest)
    assert source.recorder.count("GET", "/blobs/", 200) == 3 + 2
    for number in range(target.registry.open_uploads):  # sessions whose PUT was lost cannot be cancelled
        assert number < 2
    target.registry._storage._uploads.clear()


def test_copy_upload_connection_always_lost_raises(source: Side, target: Side) -> None:
    source.image(1, tags=["v1"])
    faults = FaultTransport(
        target.watch, rate=1, faults=["reset in upload"], where=lambda r: r.method == "PUT" and "/uploads/" in r.url
    )
    with pytest.raises(ReadError):
        copy(source.client, f"{NAME}:v1", target.through(faults), "other/app", workers=1)
    assert source.recorder.count("GET", "/blobs/", 200) == 3
    target.registry._storage._uploads.clear()


FAULT_NAMES = (*FAULTS, "307 to a CDN")


USUAL_FAULTS = ("503", "reset", "answer lost", "flipped byte", "short body", "307 to a CDN")
"""Faults that are tested in every run. All others are slow."""


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[] if name in USUAL_FAULTS else pytest.mark.slow) for name in FAULT_NAMES]
)
def test_copy_fault_at_each_request_completes_or_raises(side: str, fault: str) -> None:
    for number in range(60):
        source, target = Side("source.example"), Side("target.example")
        image = source.image(1, 2)
        referrer = source.image(3, subject=image.to_dict())
        root = source.index(image, tags=["v1"])
        failing = source if side == "source" else target
        failing.watch._inner = RegistryWithCdn(failing)
        where = Numbered(number)
        faults = FaultTransport(
            failing.watch, rate=1, faults=[redirect_to_cdn if fault == "307 to a CDN" else fault], where=where
        )
        clients = {"source": source.client, "target": target.client, side: failing.through(faults)}
        where.begin()
        threads = threading.active_count()
        try:
            copied = copy(
                clients["source"],
                f"{NAME}:v1",
                clients["target"],
                "other/app:v2",
                referrers=True,
                workers=1 + number % 2,
            )
        except OciwireError:
            pass  # any other exception fails the test
        else:
            assert copied == root == target.direct.resolve_tag("other/app", "v2")
            assert [descriptor.digest for descriptor in target.direct.referrers("other/app", image.digest)] == [
                referrer.digest
            ]
        assert threading.active_count() == threads
        assert not source.watch.open
        assert not target.watch.open
        assert side == "target" or target.registry.open_uploads == 0
        for descriptor in (root, image, referrer):
            try:
                target.direct.resolve_manifest("other/app", descriptor.digest)
            except NotFound:
                continue
            check_complete(target.direct, "other/app", descriptor.digest)
        if not faults.injected:
            assert number > 5
            return
    pytest.fail("more than 60 requests")


class RegistryWithCdn:
    """The guarded registry, and the same registry without a guard at the host of a CDN."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def round_trip(self, request: Request, /) -> Response:
        is_cdn = "cdn.example" in request.url
        return (self._side.registry if is_cdn else self._side.recorder).round_trip(request)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("status", "attempts"), [(404, 3), (503, 3), (500, 3), (401, 3), (400, 1), (403, 1)])
@pytest.mark.parametrize("failures", [1, 9])
def test_copy_upload_refused_raises(source: Side, target: Side, status: int, attempts: int, failures: int) -> None:
    def read_and_refuse(request: Request, inner: Transport, chance: object) -> Response:
        assert request.body is not None
        for _ in request.body.open():
            pass
        return Response(status)

    layer = source.add(blob(1))
    image = source.push({"schemaVersion": 2, "layers": [layer.to_dict()]}, MANIFEST, tags=["v1"])
    numbers = iter(range(100))
    faults = FaultTransport(
        target.watch,
        rate=1,
        faults=[read_and_refuse],
        where=lambda r: r.method == "PUT" and "/uploads/" in r.url and next(numbers) < failures,
    )
    client = target.through(faults)
    if failures < attempts:
        assert copy(source.client, f"{NAME}:v1", client, "other/app") == image
        check_complete(target.direct, "other/app", image.digest)
    else:
        with pytest.raises(RegistryError) as caught:
            copy(source.client, f"{NAME}:v1", client, "other/app")
        assert caught.value.status == status
        assert len(faults.injected) == attempts
    if status == 401:  # no challenge was sent, so the client has no token for the DELETE
        target.registry._storage._uploads.clear()


def test_copy_referrers_update_fails_raises_after_the_copy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, target = Side("source.example"), Side("target.example", referrers_api=False)
    subject = source.image(1, tags=["v1"])
    signed = [source.image(number, subject=subject.to_dict()) for number in (2, 3)]
    tag = f"sha256-{subject.digest.encoded}"
    other = target.image(9, name="other/app", tags=[tag])  # not an index
    with caplog.at_level("WARNING", "ociwire.client"), pytest.raises(ReferrersUpdateError) as caught:
        copy(source.client, f"{NAME}:v1", target.client, "other/app:v1", referrers=True)
    assert caught.value.descriptor in signed
    assert [record.levelname for record in caplog.records if record.name == "ociwire.client"] == ["WARNING"] * 2
    assert target.direct.resolve_tag("other/app", tag) == other
    assert target.direct.resolve_tag("other/app", "v1") == subject
    for descriptor in (subject, *signed):
        check_complete(target.direct, "other/app", descriptor.digest)
    target.direct.delete_tag("other/app", tag)
    copy(source.client, f"{NAME}:v1", target.client, "other/app:v1", referrers=True)  # adds the missing referrers
    assert {descriptor.digest for descriptor in target.direct.referrers("other/app", subject.digest)} == {
        descriptor.digest for descriptor in signed
    }


@pytest.mark.parametrize("media_type", ["", None, f"{MANIFEST}; charset=utf-8"])
def test_copy_manifest_with_unusual_media_type_keeps_its_bytes(media_type: str | None) -> None:
    content = json.dumps({"schemaVersion": 2, "mediaType": media_type, "layers": []}, indent=2).encode()
    served = Response(200, {"Content-Type": MANIFEST, "Content-Length": str(len(content))}, content)
    with (
        ScriptedTransport([served]) as source,
        ScriptedTransport([Response(404), Response(201)]) as target,
    ):
        clients = Client("source.example", source), Client("target.example", target)
        copied = copy(clients[0], f"{NAME}:v1", clients[1], f"{NAME}:v1", workers=1)
    assert copied == Descriptor.of(content, MANIFEST)
    assert target.bodies[1] == content
    assert target.requests[1].headers["content-type"] == MANIFEST


def test_copy_larger_manifest_needs_max_manifest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit for the total size of all manifests grows with `max_manifest_size`."""
    monkeypatch.setattr(sys.modules["ociwire.transfer._walker"], "_MAX_BYTES", 1)
    source, target = MemoryRegistry(manifest_limit=None), MemoryRegistry(manifest_limit=None)
    config = Descriptor.of(b"{}")
    direct = Client("source.example", source)
    direct.push_blob(NAME, config, b"{}")
    content = json.dumps({"config": config.to_dict(), "layers": [], "x": "x" * 5_000_000}).encode()
    pushed = direct.push_manifest(NAME, content, MANIFEST, tags=["v1"])
    with pytest.raises(ContentError, match="max_manifest_size"):
        copy(direct, f"{NAME}:v1", Client("target.example", target), f"{NAME}:v1")
    larger = Client("source.example", source, max_manifest_size=len(content))
    assert copy(larger, f"{NAME}:v1", Client("target.example", target), f"{NAME}:v1") == pushed
