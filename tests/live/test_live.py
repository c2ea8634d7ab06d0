"""Ping, push, pull, tags, referrers and deletion at a registry that environment variables select.

Skipped unless OCIWIRE_LIVE_REGISTRY is set. The tests push to the repository OCIWIRE_LIVE_REPOSITORY, and delete the
manifests that they pushed if the registry permits it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from ociwire import Client, Descriptor, Request, default_transport
from ociwire.auth import DockerConfig
from ociwire.errors import Denied, NotFound, Unsupported

HOST = os.environ.get("OCIWIRE_LIVE_REGISTRY", "")
REPOSITORY = os.environ.get("OCIWIRE_LIVE_REPOSITORY", "ociwire-live")
# Read at import, because a fixture in tests/conftest.py removes the credentials of the user from the environment.
ENVIRONMENT = dict(os.environ)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

pytestmark = pytest.mark.skipif(not HOST, reason="OCIWIRE_LIVE_REGISTRY is not set")


@pytest.fixture
def client() -> Iterator[Client]:
    transport = default_transport(credentials=DockerConfig.load(env=ENVIRONMENT))
    yield Client(HOST, transport, insecure=os.environ.get("OCIWIRE_LIVE_INSECURE") == "1")
    transport.close()


@pytest.fixture
def tag() -> str:
    """Return a unique tag."""
    return f"live-{secrets.token_hex(8)}"


def push_image(client: Client, tag: str, subject: Descriptor | None = None) -> tuple[Descriptor, Descriptor]:
    """Push a manifest with one layer of random content. Return both descriptors."""
    content = secrets.token_bytes(100_000)
    layer = client.push_blob(REPOSITORY, Descriptor.of(content, "application/octet-stream"), content)
    empty = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")
    client.push_blob(REPOSITORY, empty, b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.ociwire.live",
        "config": empty.to_dict(),
        "layers": [layer.to_dict()],
        **({} if subject is None else {"subject": subject.to_dict()}),
    }
    tags = () if subject is not None else (tag,)
    return client.push_manifest(REPOSITORY, json.dumps(manifest).encode(), MANIFEST, tags=tags), layer


def delete(client: Client, manifest: Descriptor) -> None:
    try:
        client.delete_manifest(REPOSITORY, manifest.digest)
    except (Unsupported, Denied) as error:
        pytest.skip(f"the registry does not delete manifests: {error}")


def test_ping_returns_200_or_401(client: Client) -> None:
    with client.do(Request("GET", "/v2/")) as response:
        response.read()
        assert response.status in (200, 401)


def test_push_and_pull_image_returns_same_bytes(client: Client, tag: str, tmp_path: Path) -> None:
    manifest, layer = push_image(client, tag)
    assert client.resolve_tag(REPOSITORY, tag).digest == manifest.digest
    assert client.get_tag(REPOSITORY, tag).read() == client.get_manifest(REPOSITORY, manifest.digest).read()
    content = client.get_blob(REPOSITORY, layer.digest).read()
    assert Descriptor.of(content).digest == layer.digest
    delete(client, manifest)


def test_push_blob_chunked_is_stored(client: Client) -> None:
    content = secrets.token_bytes(300_000)
    with client.push_blob_chunked(REPOSITORY) as writer:
        for start in range(0, len(content), 100_000):
            writer.write(content[start : start + 100_000])
        stored = writer.commit()
    assert client.get_blob(REPOSITORY, stored.digest).read() == content


def test_tags_list_pushed_tag(client: Client, tag: str) -> None:
    manifest, _ = push_image(client, tag)
    assert tag in set(client.tags(REPOSITORY))
    delete(client, manifest)


def test_referrers_list_pushed_referrer(client: Client, tag: str) -> None:
    subject, _ = push_image(client, tag)
    referrer, _ = push_image(client, tag, subject)
    assert referrer.digest in {entry.digest for entry in client.referrers(REPOSITORY, subject.digest)}
    delete(client, referrer)
    delete(client, subject)


def test_delete_manifest_is_not_found_afterwards(client: Client, tag: str) -> None:
    manifest, _ = push_image(client, tag)
    delete(client, manifest)
    with pytest.raises(NotFound):
        client.resolve_manifest(REPOSITORY, manifest.digest)
