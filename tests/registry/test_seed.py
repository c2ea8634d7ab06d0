"""`MemoryRegistry.seed`: an image, an index, or an artifact with referrers in one call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ociwire import Client, Index, Manifest
from ociwire.errors import UsageError
from ociwire.media_types import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from ociwire.registry import MemoryRegistry
from ociwire.transfer import copy

HOST = "registry.example"


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def client(registry: MemoryRegistry) -> Client:
    return Client(HOST, registry)


@pytest.mark.parametrize(("reference", "tag"), [("team/app:v1", "v1"), ("team/app", "latest")])
def test_seed_stores_an_image_under_the_tag(registry: MemoryRegistry, client: Client, reference: str, tag: str) -> None:
    content = registry.seed(reference, layers=[b"one", b"two"])
    assert client.resolve_tag("team/app", tag) == content.root == content.images[0]
    manifest = client.fetch_manifest("team/app", tag)
    assert isinstance(manifest, Manifest)
    assert manifest.layers == content.layers
    assert [client.get_blob("team/app", layer).read() for layer in content.layers] == [b"one", b"two"]
    config = json.loads(client.get_blob("team/app", manifest.config).read())
    assert (config["os"], config["architecture"], len(config["rootfs"]["diff_ids"])) == ("linux", "amd64", 2)
    assert content.referrers == ()


def test_seed_stores_an_index_of_platforms(registry: MemoryRegistry, client: Client) -> None:
    content = registry.seed("app:v1", platforms=["linux/amd64", "linux/arm/v7"])
    index = client.fetch_manifest("app", "v1")
    assert isinstance(index, Index)
    assert (index.manifests, content.root.media_type) == (content.images, OCI_INDEX)
    assert client.has_manifest("app", index.select("linux/arm64"))
    assert registry.seed("app:v2", platforms="linux/amd64").images[0].platform is not None


def test_seed_stores_an_artifact_and_referrers(registry: MemoryRegistry, client: Client) -> None:
    content = registry.seed("app:v1", artifact_type="application/vnd.a", referrers=["application/vnd.b", "c/d"])
    manifest = client.fetch_manifest("app", "v1")
    assert isinstance(manifest, Manifest)
    assert (manifest.artifact_type, manifest.layers, content.images) == (
        "application/vnd.a",
        content.layers,
        (content.root,),
    )
    listed = {referrer.digest: referrer.artifact_type for referrer in client.referrers("app", content.root)}
    assert listed == {content.referrers[0].digest: "application/vnd.b", content.referrers[1].digest: "c/d"}
    assert content.root.media_type == OCI_MANIFEST


def test_seed_artifact_without_content_has_the_empty_layer(registry: MemoryRegistry, client: Client) -> None:
    registry.seed("app:v1", layers=[], artifact_type="a/b")
    manifest = client.fetch_manifest("app", "v1")
    assert isinstance(manifest, Manifest)
    assert [layer.media_type for layer in manifest.layers] == [OCI_EMPTY]
    assert client.get_blob("app", manifest.config).read() == b"{}"


def test_seeded_content_can_be_copied(registry: MemoryRegistry, client: Client) -> None:
    content = registry.seed("app:v1", platforms=["linux/amd64", "linux/arm64"], referrers="a/b")
    target = Client("other.example", MemoryRegistry())
    assert copy(client, "app:v1", target, "app:v1", referrers=True).digest == content.root.digest
    assert len(list(target.referrers("app", content.root))) == 1


@pytest.mark.parametrize(
    ("reference", "options"),
    [
        ("App:v1", {}),
        ("app:a b", {}),
        (f"app@sha256:{'0' * 64}", {}),
        ("app", {"layers": b"one"}),
        ("app", {"layers": "one"}),
        ("app", {"platforms": ["arm64"]}),
        ("app", {"platforms": ["linux/arm64"], "artifact_type": "a/b"}),
        ("app", {"referrers": ["not a type"]}),
        ("app", {"artifact_type": "x"}),
    ],
)
def test_seed_invalid_arguments_raise_usage_error(registry: MemoryRegistry, reference: str, options: Any) -> None:
    with pytest.raises(UsageError):
        registry.seed(reference, **options)
    assert registry.stored_bytes == 0
