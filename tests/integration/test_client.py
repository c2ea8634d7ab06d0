"""`Client` against docker-registry: manifests, lists, ranges, mounts, deletions, and reuse of connections."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, Request
from ociwire._http.urls import Origin
from ociwire.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    RegistryError,
    Unsupported,
)
from ociwire.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from ociwire.transport import UrllibTransport
from ociwire.transport._urllib3.connection import WireConnection

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
SIGNATURE = "application/vnd.example.signature.v1+json"


@pytest.fixture
def client(registry_host: str) -> Iterator[Client]:
    with Client(registry_host, insecure=True) as client:
        yield client


def push_config(client: Client, repository: str, content: bytes = b"{}", media_type: str = CONFIG_TYPE) -> Descriptor:
    return client.push_blob(repository, Descriptor.of(content, media_type), content)


def image(config: Descriptor, media_type: str = OCI_MANIFEST, **fields: Any) -> bytes:
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config.to_dict(), "layers": [], **fields}
    return json.dumps(manifest).encode()


def push_image(client: Client, repository: str, *tags: str, **fields: Any) -> tuple[bytes, Descriptor]:
    content = image(push_config(client, repository), **fields)
    return content, client.push_manifest(repository, content, OCI_MANIFEST, tags=tags)


# --- manifests and tags ---


@pytest.mark.parametrize("tags", [(), ("a",), ("a", "b", "3.20")])
def test_push_manifest_is_read_back_by_digest_and_tag(client: Client, tags: tuple[str, ...]) -> None:
    repository = f"whole/manifest{len(tags)}"
    content, pushed = push_image(client, repository, *tags, annotations={"tags": ",".join(tags)})
    assert pushed == Descriptor.of(content, OCI_MANIFEST)
    assert client.resolve_manifest(repository, pushed.digest) == pushed
    with client.get_manifest(repository, pushed.digest) as reader:
        assert reader.descriptor == pushed
        assert reader.read() == content
    for tag in tags:
        assert client.resolve_tag(repository, tag) == pushed
        with client.get_tag(repository, tag) as reader:
            assert reader.descriptor == pushed
            assert json.load(reader) == json.loads(content)
            assert reader.verified
    if tags:
        assert sorted(client.tags(repository)) == sorted(tags)


def test_push_manifest_docker_manifest_and_index_are_read_back(client: Client) -> None:
    config = push_config(client, "whole/types", b"{ }", "application/vnd.docker.container.image.v1+json")
    docker = image(config, DOCKER_MANIFEST)
    pushed = client.push_manifest("whole/types", docker, DOCKER_MANIFEST, tags=["docker"])
    assert client.resolve_tag("whole/types", "docker") == pushed
    entry = pushed.replace(platform=None)
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_dict()]}).encode()
    pushed_index = client.push_manifest("whole/types", index, OCI_INDEX, tags=["index"])
    with client.get_tag("whole/types", "index") as reader:
        assert reader.descriptor == pushed_index
        assert Descriptor.from_dict(json.load(reader)["manifests"][0]) == pushed


def test_push_manifest_same_tag_moves_tag(client: Client) -> None:
    _, first = push_image(client, "whole/moves", "latest", annotations={"number": "1"})
    _, second = push_image(client, "whole/moves", "latest", annotations={"number": "2"})
    assert first != second
    assert client.resolve_tag("whole/moves", "latest") == second
    assert client.resolve_manifest("whole/moves", first.digest) == first


def test_client_methods_missing_content_raises_not_found(client: Client) -> None:
    push_image(client, "whole/there", "there")
    absent = Digest.of(b"never pushed")
    calls: list[Callable[[], Any]] = [
        lambda: client.get_manifest("whole/there", absent),
        lambda: client.get_tag("whole/there", "absent"),
        lambda: client.resolve_manifest("whole/there", absent),
        lambda: client.resolve_tag("whole/there", "absent"),
        lambda: client.delete_manifest("whole/there", absent),
        lambda: client.resolve_tag("whole/nowhere", "absent"),
    ]
    for call in calls:
        with pytest.raises(ManifestUnknown) as caught:
            call()
        assert caught.value.status == 404
    for blob in (client.get_blob, client.resolve_blob, client.delete_blob):
        with pytest.raises(BlobUnknown):
            blob("whole/there", absent)
    with pytest.raises(NameUnknown):
        list(client.tags("whole/nowhere"))


def test_push_manifest_missing_blobs_is_refused(client: Client) -> None:
    content = image(Descriptor.of(b"never pushed", CONFIG_TYPE))
    with pytest.raises((ManifestBlobUnknown, BlobUnknown)):
        client.push_manifest("whole/missing", content, OCI_MANIFEST, tags=["a"])
    with pytest.raises(ManifestUnknown):
        client.resolve_tag("whole/missing", "a")


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_push_manifest_other_algorithm_is_stored_or_refused(client: Client, algorithm: str) -> None:
    """A registry may refuse manifests with other digests than sha256, as docker-registry 2.8 does."""
    repository = f"whole/{algorithm}"
    content = image(push_config(client, repository))
    digest = Digest.of(content, algorithm)
    try:
        pushed = client.push_manifest(repository, content, OCI_MANIFEST, digest=digest)
    except RegistryError as error:
        assert 400 <= error.status < 500  # noqa: PT017 - both results are permitted
        return
    with contextlib.suppress(ManifestUnknown), client.get_manifest(repository, digest) as reader:
        assert reader.descriptor == pushed
        assert reader.read() == content


# --- lists ---


def test_tags_with_any_limit_lists_names_once(client: Client) -> None:
    names = [f"v{number:02}" for number in range(12)]
    push_image(client, "whole/tags", *names)
    assert sorted(client.tags("whole/tags")) == names
    for limit in (0, 1, 5, 12, 13, 2000):
        tags = list(client.tags("whole/tags", limit=limit))
        assert len(tags) == len(set(tags)) == min(limit, 12)
        assert set(tags) <= set(names)


def test_repositories_with_start_and_limit_lists_names_in_order(client: Client) -> None:
    pushed = [f"whole/catalog/{number:02}" for number in range(7)]
    for repository in pushed:
        push_config(client, repository)
    names = list(client.repositories())
    assert set(pushed) <= set(names)
    assert len(set(names)) == len(names)
    assert list(client.repositories(start_after=pushed[1], limit=3)) == pushed[2:5]
    assert [name for name in client.repositories(start_after=pushed[4]) if name in pushed] == pushed[5:]
    for limit in (0, 1, 3, len(names), len(names) + 1):
        assert list(client.repositories(limit=limit)) == names[:limit]


# --- ranges ---

CONTENT = bytes(range(256)) * 400


def test_get_blob_range_reads_slice(client: Client) -> None:
    blob = client.push_blob("whole/ranges", Descriptor.of(CONTENT), CONTENT)
    size = len(CONTENT)
    for start, stop in [(0, 1), (0, 1000), (7, 4096), (size - 1, size), (size - 5, size + 5), (3, 3), (100, None)]:
        with client.get_blob_range("whole/ranges", blob.digest, start, stop) as reader:
            assert reader.read() == CONTENT[start:stop]
            assert not reader.verified
            if start != stop:
                assert reader.descriptor.size == size
    for stop in (None, size, size + 1):
        with client.get_blob_range("whole/ranges", blob.digest, 0, stop) as reader:
            assert reader.read() == CONTENT
    with pytest.raises(RangeInvalid):
        client.get_blob_range("whole/ranges", blob.digest, size)
    with pytest.raises(BlobUnknown):
        client.get_blob_range("whole/ranges", Digest.of(b"never pushed"), 1, 2)


# --- mounts and deletions ---


def test_mount_blob_existing_blob_is_mounted(client: Client) -> None:
    blob = client.push_blob("whole/source", Descriptor.of(b"to be mounted"), b"to be mounted")
    with pytest.raises(BlobUnknown):
        client.resolve_blob("whole/target", blob.digest)
    assert client.mount_blob("whole/source", "whole/target", blob.digest) == blob
    with client.get_blob("whole/target", blob.digest) as reader:
        assert reader.read() == b"to be mounted"


def test_mount_blob_missing_blob_raises_unsupported(client: Client) -> None:
    absent = Descriptor.of(b"to be mounted, never pushed")
    for source in ("whole/source", "whole/nowhere"):
        with pytest.raises(Unsupported) as caught:
            client.mount_blob(source, "whole/target", absent.digest)
        assert caught.value.status == 202
    # the upload of the blob still works
    client.push_blob("whole/target", absent, b"to be mounted, never pushed")


def test_delete_manifest_and_blob_removes_them(client: Client) -> None:
    config = push_config(client, "whole/deleted", b'{"a": 1}')
    content = image(config)
    pushed = client.push_manifest("whole/deleted", content, OCI_MANIFEST, tags=["a", "b"])
    client.delete_manifest("whole/deleted", pushed.digest)
    for call in (
        lambda: client.resolve_tag("whole/deleted", "a"),
        lambda: client.resolve_manifest("whole/deleted", pushed.digest),
        lambda: client.delete_manifest("whole/deleted", pushed.digest),
    ):
        with pytest.raises(ManifestUnknown):
            call()
    client.delete_blob("whole/deleted", config.digest)
    for method in (client.resolve_blob, client.delete_blob):
        with pytest.raises(BlobUnknown):
            method("whole/deleted", config.digest)


def test_delete_tag_is_deleted_or_refused(client: Client) -> None:
    _, pushed = push_image(client, "whole/untag", "a", "b")
    try:
        client.delete_tag("whole/untag", "a")
    except RegistryError as error:  # docker-registry deletes manifests by digest only
        assert 400 <= error.status < 500  # noqa: PT017 - both results are permitted
        assert client.resolve_tag("whole/untag", "a") == pushed
    else:
        assert list(client.tags("whole/untag")) == ["b"]
    assert client.resolve_tag("whole/untag", "b") == pushed


# --- the referrers tag ---


def test_referrers_by_tag_follow_pushes_and_deletions(client: Client) -> None:
    repository = "whole/referrers"
    _, subject = push_image(client, repository, "subject")
    assert list(client.referrers(repository, subject.digest)) == []
    config = push_config(client, repository)
    pushed = []
    for number in range(3):
        content = image(
            config,
            subject=subject.to_dict(),
            annotations={"number": str(number)},
            **({"artifactType": SIGNATURE} if number else {}),
        )
        descriptor = client.push_manifest(repository, content, OCI_MANIFEST)
        artifact_type = SIGNATURE if number else CONFIG_TYPE
        pushed.append(descriptor.replace(artifact_type=artifact_type, annotations={"number": str(number)}))
    assert list(client.referrers(repository, subject.digest)) == pushed
    assert list(client.referrers(repository, subject.digest, artifact_type=SIGNATURE)) == pushed[1:]
    assert list(client.referrers(repository, subject.digest, artifact_type="a/b")) == []
    tag = f"sha256-{subject.digest.encoded}"
    assert client.resolve_tag(repository, tag).media_type == OCI_INDEX

    client.delete_manifest(repository, pushed[1].digest)
    assert list(client.referrers(repository, subject.digest)) == [pushed[0], pushed[2]]
    for referrer in (pushed[0], pushed[2]):
        client.delete_manifest(repository, referrer.digest)
    assert list(client.referrers(repository, subject.digest)) == []


# --- connections ---

THREADS = 3
OPERATIONS = 10_000
POOL_SIZE = 2  # fewer than THREADS, so that some connections are closed


@pytest.mark.slow
def test_client_ten_thousand_operations_leave_only_idle_connections(
    registry_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets: list[Any] = []

    def record_socket(*args: Any, **options: Any) -> Any:
        sockets.append(new_connection(*args, **options))
        return sockets[-1]

    new_connection = WireConnection._new_conn
    monkeypatch.setattr(WireConnection, "_new_conn", record_socket)
    transport = UrllibTransport(pool_size=POOL_SIZE, trust_env=False)
    with contextlib.closing(transport):
        client = Client(registry_host, transport, insecure=True)
        workload = MixedWorkload(client)
        workload.run()
        assert workload.errors == []
        assert workload.done == OPERATIONS

        pool = transport._pools.get(Origin.of(f"http://{registry_host}"), anonymous=False).urllib3_pool.pool
        assert pool is not None
        connections = [pool.get(block=False) for _ in range(pool.qsize())]
        assert len(connections) == POOL_SIZE  # all connections were returned to the pool
        idle = {connection.sock.fileno() for connection in connections if connection and connection.sock is not None}
        still_open = {sock.fileno() for sock in sockets if sock.fileno() >= 0}
        assert idle == still_open  # only connections in the pool are open
        assert 1 <= len(idle) <= POOL_SIZE
        for connection in connections:
            pool.put(connection, block=False)


class MixedWorkload:
    """Operations of all kinds in several threads. Most of them are small reads."""

    def __init__(self, client: Client) -> None:
        self.errors: list[str] = []
        self.done = 0
        self._client = client
        self._lock = threading.Lock()
        self._numbers = iter(range(OPERATIONS))
        self._content = b"small " * 50
        self._blob = client.push_blob("whole/mixed", Descriptor.of(self._content), self._content)
        self._manifest, self._descriptor = push_image(client, "whole/mixed", "latest")
        self._absent = Digest.of(b"never pushed")

    def run(self) -> None:
        threads = [threading.Thread(target=self._work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            try:
                self._run_operation(number)
            except Exception as error:  # noqa: BLE001 - asserted in the main thread
                self.errors.append(f"{number}: {error!r}")
                return
            with self._lock:
                self.done += 1

    def _run_operation(self, number: int) -> None:
        kind = number % 200
        if kind < 130:
            with self._client.do(Request("GET", "/v2/")) as response:
                assert response.json() == {}
        elif kind < 160:
            assert self._client.resolve_blob("whole/mixed", self._blob.digest) == self._blob
        elif kind < 175:
            try:
                self._client.resolve_blob("whole/mixed", self._absent)
            except BlobUnknown:
                return
            raise AssertionError("the blob should not exist")
        elif kind < 188:
            with self._client.get_blob("whole/mixed", self._blob.digest) as reader:
                assert reader.read() == self._content
        else:
            self._run_rare_operation(number, kind)

    def _run_rare_operation(self, number: int, kind: int) -> None:
        client = self._client
        if kind < 190:
            with client.get_blob("whole/mixed", self._blob.digest) as reader:
                assert reader.read(5) == self._content[:5]  # the reader is closed before its end
        elif kind < 192:
            with pytest.raises(BlobUnknown):
                client.get_blob("whole/mixed", self._absent)
        elif kind < 194:
            assert client.get_blob_range("whole/mixed", self._blob.digest, 3, 9).read() == self._content[3:9]
        elif kind == 194:
            assert client.resolve_tag("whole/mixed", "latest") == self._descriptor
        elif kind == 195:
            assert client.get_tag("whole/mixed", "latest").read() == self._manifest
        elif kind == 196:
            assert next(client.tags("whole/mixed")) == "latest"
        elif kind == 197:
            assert list(client.referrers("whole/mixed", self._descriptor.digest)) == []
        elif kind == 198:
            with pytest.raises(ManifestUnknown):
                client.get_manifest("whole/mixed", self._absent)
        else:
            content = f"{number}".encode()
            client.push_blob("whole/mixed", Descriptor.of(content), iter([content]))
