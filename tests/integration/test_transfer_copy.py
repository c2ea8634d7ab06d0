"""`ociwire.transfer.copy` to Debian's docker-registry: what it mounts, and what is left of a copy that fails."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator, Sequence

import pytest

from ociwire import Client, Descriptor, Request, Response, Transport, UrllibTransport
from ociwire.errors import RegistryError
from ociwire.testing import MemoryRegistry
from ociwire.transfer import copy

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Recorder:
    """Notes which uploads were asked for, and how that was answered."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.seen: list[tuple[str, int]] = []
        self.last = ""

    def round_trip(self, request: Request, /) -> Response:
        response = self._inner.round_trip(request)
        if "/uploads/" in request.url:
            self.seen.append((request.method, response.status))
            self.last = request.url
        return response

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with contextlib.closing(Recorder(UrllibTransport())) as recorder:
        yield recorder


def layers_of(name: str, count: int = 3) -> list[bytes]:
    chance = random.Random(name)
    return [chance.randbytes(100_000) for _ in range(count)]


def push_image(client: Client, name: str, layers: Sequence[bytes]) -> Descriptor:
    for content in layers:
        client.push_blob(name, Descriptor.of(content), content)
    config, *others = [Descriptor.of(content).to_dict() for content in layers]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": others}
    return client.push_manifest(name, json.dumps(manifest).encode(), MANIFEST, tags=["v1"])


def check_there(client: Client, name: str, image: Descriptor, layers: Sequence[bytes]) -> None:
    assert client.resolve_tag(name, "v1") == image
    for content in layers:
        assert client.get_blob(name, Descriptor.of(content).digest).read() == content


def test_copy_blob_exists_is_mounted_from_own_repository(registry_host: str, recorder: Recorder) -> None:
    """One request finds out that it is there, or opens its upload."""
    name = "transfer/copied"
    layers = layers_of(name)
    source = Client("source.example", MemoryRegistry())
    image = push_image(source, name, layers)
    target = Client(registry_host, recorder, insecure=True)
    target.push_blob(name, Descriptor.of(layers[0]), layers[0])  # the config: it is not the one that is asked for first
    recorder.seen.clear()
    copy(source, f"{name}:v1", target, f"{name}:v1", workers=1)
    assert sorted(recorder.seen) == [("POST", 201), ("POST", 202), ("POST", 202), ("PUT", 201), ("PUT", 201)]
    check_there(target, name, image, layers)


def test_copy_within_one_registry_mounts_blobs(registry_host: str, recorder: Recorder) -> None:
    layers = layers_of("mounted")
    client = Client(registry_host, recorder, insecure=True)
    image = push_image(client, "transfer/here", layers)
    recorder.seen.clear()
    copy(client, "transfer/here:v1", client, "transfer/there:v1")
    assert recorder.seen == [("POST", 201)] * 3
    check_there(client, "transfer/there", image, layers)


def test_copy_fails_session_is_cancelled(registry_host: str, recorder: Recorder) -> None:
    class MineError(Exception):
        pass

    def fail(event: object) -> None:
        raise MineError

    name = "transfer/cancelled"
    source = Client("source.example", MemoryRegistry())
    push_image(source, name, [b"{}", random.Random(name).randbytes(3_000_000)])
    target = Client(registry_host, recorder, insecure=True)
    with pytest.raises(MineError):
        copy(source, f"{name}:v1", target, name, workers=1, progress=fail)
    assert [method for method, _ in recorder.seen] == ["POST", "DELETE"]
    assert recorder.seen[1][1] in (204, 404)  # it gives up by itself what breaks in a PUT, sooner or later
    with pytest.raises(RegistryError) as caught:
        target.push_blob_chunked_resume(name, recorder.last)
    assert caught.value.status == 404  # with the code BLOB_UPLOAD_INVALID, as it happens
