"""`ociwire.transfer.copy` to docker-registry: mounts, and cancelled upload sessions."""

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
    """Transport that records the methods and statuses of upload requests."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.upload_requests: list[tuple[str, int]] = []
        self.last_url = ""

    def round_trip(self, request: Request, /) -> Response:
        response = self._inner.round_trip(request)
        if "/uploads/" in request.url:
            self.upload_requests.append((request.method, response.status))
            self.last_url = request.url
        return response

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with contextlib.closing(Recorder(UrllibTransport())) as recorder:
        yield recorder


def make_layers(name: str, count: int = 3) -> list[bytes]:
    rng = random.Random(name)
    return [rng.randbytes(100_000) for _ in range(count)]


def push_image(client: Client, name: str, layers: Sequence[bytes]) -> Descriptor:
    for content in layers:
        client.push_blob(name, Descriptor.of(content), content)
    config, *layer_descriptors = [Descriptor.of(content).to_dict() for content in layers]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layer_descriptors}
    return client.push_manifest(name, json.dumps(manifest).encode(), MANIFEST, tags=["v1"])


def check_image(client: Client, name: str, image: Descriptor, layers: Sequence[bytes]) -> None:
    assert client.resolve_tag(name, "v1") == image
    for content in layers:
        assert client.get_blob(name, Descriptor.of(content).digest).read() == content


def test_copy_blob_exists_is_mounted_from_own_repository(registry_host: str, recorder: Recorder) -> None:
    """One request mounts the blob or opens an upload session."""
    name = "transfer/copied"
    layers = make_layers(name)
    source = Client("source.example", MemoryRegistry())
    image = push_image(source, name, layers)
    target = Client(registry_host, recorder, insecure=True)
    # The config, which is not the first blob that is copied.
    target.push_blob(name, Descriptor.of(layers[0]), layers[0])
    recorder.upload_requests.clear()
    copy(source, f"{name}:v1", target, f"{name}:v1", workers=1)
    assert sorted(recorder.upload_requests) == [("POST", 201), ("POST", 202), ("POST", 202), ("PUT", 201), ("PUT", 201)]
    check_image(target, name, image, layers)


def test_copy_within_one_registry_mounts_blobs(registry_host: str, recorder: Recorder) -> None:
    layers = make_layers("mounted")
    client = Client(registry_host, recorder, insecure=True)
    image = push_image(client, "transfer/here", layers)
    recorder.upload_requests.clear()
    copy(client, "transfer/here:v1", client, "transfer/there:v1")
    assert recorder.upload_requests == [("POST", 201)] * 3
    check_image(client, "transfer/there", image, layers)


def test_copy_fails_session_is_cancelled(registry_host: str, recorder: Recorder) -> None:
    class ProgressError(Exception):
        pass

    def fail(event: object) -> None:
        raise ProgressError

    name = "transfer/cancelled"
    source = Client("source.example", MemoryRegistry())
    push_image(source, name, [b"{}", random.Random(name).randbytes(3_000_000)])
    target = Client(registry_host, recorder, insecure=True)
    with pytest.raises(ProgressError):
        copy(source, f"{name}:v1", target, name, workers=1, progress=fail)
    assert [method for method, _ in recorder.upload_requests] == ["POST", "DELETE"]
    assert recorder.upload_requests[1][1] in (
        204,
        404,
    )  # 404: docker-registry may already have removed the session after the broken PUT
    with pytest.raises(RegistryError) as caught:
        target.push_blob_chunked_resume(name, recorder.last_url)
    assert caught.value.status == 404  # docker-registry sends the code BLOB_UPLOAD_INVALID
