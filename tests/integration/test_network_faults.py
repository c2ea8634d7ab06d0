"""All operations of the client with each network fault at each request, over the default stack and real sockets.

A cell is an operation, one of its requests, and a fault of this request, or of this request and all later ones. The
operation recovers and returns the right result, or raises an error that `expected` lists. It never returns wrong bytes
and never hangs. It leaves no open connection and no partial content.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

import ociwire._client.upload_completion
import ociwire.transport.retry
from ociwire import Body, Client, Descriptor, Digest, Request, Scope, check_response, default_transport
from ociwire.auth import Anonymous
from ociwire.errors import (
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    ConnectError,
    DigestInvalid,
    DigestMismatch,
    ManifestUnknown,
    OciwireError,
    ProtocolError,
    ReadError,
    ReadTimeout,
    UsageError,
)
from ociwire.media_types import OCI_MANIFEST
from ociwire.transport import UrllibTransport
from ociwire.transport._urllib3.connection import WireConnection
from tests._support.doubles import Call
from tests.transport.urllib3.fault_proxy import KINDS, FaultProxy, NetworkFault

TIMEOUT = 10.0
STALL_TIMEOUT, REPEATED_STALL_TIMEOUT = 0.15, 0.02
"""Timeouts of the client in seconds, for one stalled request, and for requests that are all stalled."""
EXPECT_TIMEOUT = 0.2
READ, WRITE = "faults/read", "faults/write"
CONFIG = Descriptor.of(b"{}", "application/vnd.oci.image.config.v1+json")
CHUNK = 2000
LARGE = 300 * 1024
"""Size in bytes of content for which the transport waits for a 100 (Continue), as it does from 256 KiB on."""


@dataclass
class Scene:
    """Content of a cell. It is different for each cell.

    Attributes:
        direct: A client without the proxy.
        name: The name of the cell.
        size: The size of the content in bytes.
        upload_id: The ID of the upload that `prepare` has started.
    """

    direct: Client
    name: str
    size: int = 3 * CHUNK
    upload_id: str = ""

    @property
    def content(self) -> bytes:
        return (f"{self.name} ".encode() * self.size)[: self.size]

    @property
    def blob(self) -> Descriptor:
        return Descriptor.of(self.content)

    @property
    def tag(self) -> str:
        return Digest.of(self.name.encode()).encoded[:20]

    def image(self, **fields: Any) -> bytes:
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG.to_dict(), "layers": []}
        return json.dumps({**manifest, "annotations": {"name": self.name}, **fields}).encode()

    @property
    def manifest(self) -> Descriptor:
        return Descriptor.of(self.image(), OCI_MANIFEST)

    @property
    def referrer(self) -> bytes:
        return self.image(subject=self.manifest.to_dict())


def prepare_nothing(scene: Scene) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Operation:
    """Operation of the client.

    Attributes:
        requests: The methods of the requests without faults. ``+`` means that the request has a body, ``-`` that the
            response has a body.
        run: Runs the operation and checks the result.
        prepare: Pushes what the operation needs.
        verify: Checks the state of the registry without the proxy. It also gets whether the operation succeeded.
        waits: Whether the transport waits for a 100 (Continue).
        size: The size of the content in bytes.
    """

    requests: str
    run: Callable[[Client, Scene], object]
    prepare: Callable[[Scene], object] = prepare_nothing
    verify: Callable[[Scene, bool], object] = lambda scene, succeeded: None
    waits: bool = False
    size: int = 3 * CHUNK

    @property
    def methods(self) -> list[str]:
        return [request.strip("+-") for request in self.requests.split()]

    def has_body(self, number: int) -> bool:
        return "+" in self.requests.split()[number]

    def has_answer(self, number: int) -> bool:
        return "-" in self.requests.split()[number]


# --- operations ---


def push(scene: Scene) -> None:
    scene.direct.push_blob(READ, scene.blob, scene.content)


def push_image(scene: Scene) -> None:
    scene.direct.push_manifest(WRITE, scene.image(), OCI_MANIFEST, tags=[scene.tag])


def push_referrer(scene: Scene) -> None:
    push_image(scene)
    scene.direct.push_manifest(WRITE, scene.referrer, OCI_MANIFEST)


def get_blob(client: Client, scene: Scene) -> None:
    with client.get_blob(READ, scene.blob.digest) as reader:
        assert reader.read() == scene.content
        assert reader.verified


def get_blob_range(client: Client, scene: Scene) -> None:
    with client.get_blob_range(READ, scene.blob.digest, 1000, 5000) as reader:
        assert reader.read() == scene.content[1000:5000]


def get_manifest(client: Client, scene: Scene) -> None:
    with client.get_manifest(WRITE, scene.manifest.digest) as reader:
        assert reader.read() == scene.image()


def get_tag(client: Client, scene: Scene) -> None:
    with client.get_tag(WRITE, scene.tag) as reader:
        assert reader.descriptor == scene.manifest
        assert reader.read() == scene.image()


def resolve_blob(client: Client, scene: Scene) -> None:
    assert client.resolve_blob(READ, scene.blob.digest) == scene.blob


def resolve_manifest(client: Client, scene: Scene) -> None:
    assert client.resolve_manifest(WRITE, scene.manifest.digest) == scene.manifest


def resolve_tag(client: Client, scene: Scene) -> None:
    assert client.resolve_tag(WRITE, scene.tag) == scene.manifest


def pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 1500):
        yield content[start : start + 1500]


def push_blob(content_of: Callable[[bytes], Any]) -> Callable[[Client, Scene], None]:
    def run(client: Client, scene: Scene) -> None:
        assert client.push_blob(WRITE, scene.blob, content_of(scene.content)) == scene.blob

    return run


def put_without_length(client: Client, scene: Scene) -> None:
    scope = Scope.repository(WRITE, "pull", "push")
    with client.do(Request("POST", f"/v2/{WRITE}/blobs/uploads/"), scope=scope) as opened:
        check_response(opened, 202)
        url = f"{opened.headers['location']}&digest={scene.blob.digest}"
    with client.do(Request("PUT", url, body=Body.of(pieces(scene.content))), scope=scope) as closed:
        check_response(closed, 201)


def push_blob_chunked(client: Client, scene: Scene) -> None:
    with client.push_blob_chunked(WRITE, CHUNK) as writer:
        writer.write(scene.content)
        assert writer.commit().digest == scene.blob.digest


def begin_upload(scene: Scene) -> None:
    with scene.direct.push_blob_chunked(WRITE, CHUNK) as writer:
        writer.write(scene.content[: 2 * CHUNK])
    scene.upload_id = writer.id


def push_blob_chunked_resume(client: Client, scene: Scene) -> None:
    id_ = scene.upload_id.replace(scene.direct.host, client.host)  # the ID is a URL of the registry
    with client.push_blob_chunked_resume(WRITE, id_, chunk_size=CHUNK) as writer:
        assert writer.size == 2 * CHUNK
        writer.write(scene.content[2 * CHUNK :])
        assert writer.commit(scene.blob.digest) == scene.blob


def is_stored(scene: Scene, succeeded: bool) -> None:
    try:
        with scene.direct.get_blob(WRITE, scene.blob.digest) as reader:
            assert reader.read() == scene.content
    except BlobUnknown:
        assert not succeeded


def mount_blob(client: Client, scene: Scene) -> None:
    assert client.mount_blob(READ, WRITE, scene.blob.digest) == scene.blob


def push_manifest(*tags: str) -> Callable[[Client, Scene], None]:
    def run(client: Client, scene: Scene) -> None:
        names = [scene.tag + tag for tag in tags]
        assert client.push_manifest(WRITE, scene.image(), OCI_MANIFEST, tags=names) == scene.manifest

    return run


def is_tagged(*tags: str) -> Callable[[Scene, bool], None]:
    def verify(scene: Scene, succeeded: bool) -> None:
        for tag in tags:
            try:
                with scene.direct.get_tag(WRITE, scene.tag + tag) as reader:
                    assert reader.read() == scene.image()
            except ManifestUnknown:
                assert not succeeded

    return verify


def run_push_referrer(client: Client, scene: Scene) -> None:
    descriptor = client.push_manifest(WRITE, scene.referrer, OCI_MANIFEST)
    assert descriptor.digest == Digest.of(scene.referrer)


def is_referred_to(scene: Scene, succeeded: bool) -> None:
    """Check that a listed referrer is stored."""
    digests = [entry.digest for entry in scene.direct.referrers(WRITE, scene.manifest.digest)]
    assert digests in ([], [Digest.of(scene.referrer)])
    assert digests or not succeeded
    for digest in digests:
        assert scene.direct.get_manifest(WRITE, digest).read() == scene.referrer


def delete_blob(client: Client, scene: Scene) -> None:
    client.delete_blob(READ, scene.blob.digest)


def is_deleted(scene: Scene, succeeded: bool) -> None:
    try:
        with scene.direct.get_blob(READ, scene.blob.digest) as reader:
            assert reader.read() == scene.content
            assert not succeeded
    except BlobUnknown:
        pass


def delete_manifest(client: Client, scene: Scene) -> None:
    client.delete_manifest(WRITE, scene.manifest.digest)


def is_untagged(scene: Scene, succeeded: bool) -> None:
    try:
        with scene.direct.get_tag(WRITE, scene.tag) as reader:
            assert reader.read() == scene.image()
            assert not succeeded
    except ManifestUnknown:
        pass


def delete_referrer(client: Client, scene: Scene) -> None:
    client.delete_manifest(WRITE, Digest.of(scene.referrer))


def is_unlisted(scene: Scene, succeeded: bool) -> None:
    """Check that the referrer is deleted and not listed, at the latest after a second deletion."""
    if not succeeded:
        with contextlib.suppress(ManifestUnknown):
            scene.direct.delete_manifest(WRITE, Digest.of(scene.referrer))
    with pytest.raises(ManifestUnknown):
        scene.direct.resolve_manifest(WRITE, Digest.of(scene.referrer))
    assert list(scene.direct.referrers(WRITE, scene.manifest.digest)) == []


def tags(client: Client, scene: Scene) -> None:
    assert sorted(client.tags(READ)) == ["a", "b"]


def repositories(client: Client, scene: Scene) -> None:
    assert list(client.repositories(start_after="faults/", limit=2)) == [READ, WRITE]


def referrers(client: Client, scene: Scene) -> None:
    digests = [entry.digest for entry in client.referrers(WRITE, scene.manifest.digest)]
    assert digests == [Digest.of(scene.referrer)]


UNKNOWN_LENGTH = "PUT, iterator without length"
OPERATIONS = {
    "get_blob": Operation("GET-", get_blob, push),
    "get_blob_range": Operation("GET-", get_blob_range, push),
    "get_manifest": Operation("GET-", get_manifest, push_image),
    "get_tag": Operation("GET-", get_tag, push_image),
    "resolve_blob": Operation("HEAD", resolve_blob, push),
    "resolve_manifest": Operation("HEAD", resolve_manifest, push_image),
    "resolve_tag": Operation("HEAD", resolve_tag, push_image),
    "push_blob, bytes": Operation("POST PUT+", push_blob(bytes), verify=is_stored),
    "push_blob, file": Operation("POST PUT+", push_blob(io.BytesIO), verify=is_stored),
    "push_blob, iterator": Operation("POST PUT+", push_blob(pieces), verify=is_stored, waits=True),
    "push_blob, many bytes": Operation("POST PUT+", push_blob(bytes), verify=is_stored, waits=True, size=LARGE),
    "push_blob, large file": Operation("POST PUT+", push_blob(io.BytesIO), verify=is_stored, waits=True, size=LARGE),
    UNKNOWN_LENGTH: Operation("POST PUT+", put_without_length, verify=is_stored, waits=True),
    "push_blob_chunked": Operation("POST PATCH+ PATCH+ PUT+", push_blob_chunked, verify=is_stored),
    "push_blob_chunked_resume": Operation("GET PUT+", push_blob_chunked_resume, begin_upload, is_stored),
    "mount_blob": Operation("POST HEAD", mount_blob, push, is_stored),
    "push_manifest, a tag": Operation("PUT+", push_manifest(""), verify=is_tagged("")),
    "push_manifest, two tags": Operation("PUT+ PUT+ PUT+", push_manifest("a", "b"), verify=is_tagged("a", "b")),
    "push_manifest, subject": Operation("PUT+ GET- PUT+", run_push_referrer, push_image, is_referred_to),
    "delete_blob": Operation("DELETE", delete_blob, push, is_deleted),
    "delete_manifest": Operation("GET- DELETE", delete_manifest, push_image, is_untagged),
    "delete_manifest, subject": Operation("GET- GET- GET- PUT+ DELETE", delete_referrer, push_referrer, is_unlisted),
    "tags": Operation("GET-", tags),
    "repositories": Operation("GET-", repositories),
    "referrers": Operation("GET- GET-", referrers, push_referrer),
}

# --- faults and expected results ---

REFUSED = "refused"
"""The registry refuses all connections. The other faults are the kinds of `NetworkFault`."""
CUTS = ("reset in answer", "short answer", "stall in answer")
SAME_FIRST_REQUEST = (
    "push_blob, file",
    "push_blob, iterator",
    "push_blob, many bytes",
    "push_blob, large file",
    UNKNOWN_LENGTH,
)
"""Operations whose first request is the same as that of another operation, and is not tested again."""
SINGLE_USE = ("push_blob, iterator", UNKNOWN_LENGTH)
IGNORED_BODY = {("referrers", 0), ("delete_manifest, subject", 1), ("push_manifest, subject", 1)}
"""Requests whose response has status 404 and a body that is not used."""
PERMANENT: dict[str, tuple[type[OciwireError], ...]] = {
    REFUSED: (ConnectError,),
    "goes down": (ConnectError,),
    "reset at accept": (ReadError, ConnectError),  # the reset comes before or after the end of the handshake
    "request lost": (ReadError,),
    "reset in request": (ReadError,),
    "answer lost": (ReadError,),
    "reset in answer": (ReadError,),
    "short answer": (ReadError,),
    "flipped byte": (DigestMismatch,),
    "stall": (ReadTimeout,),
    "stall in answer": (ReadTimeout,),
}
"""The errors of each fault from which an operation does not recover."""
BROKEN_UPLOAD = (BlobUploadInvalid, BlobUploadUnknown, DigestInvalid)
"""Errors of docker-registry 2.8 after a broken request body: it has deleted the upload, or stored a part of it."""


@dataclass(frozen=True)
class Cell:
    """Operation, number of one of its requests, and fault of this request.

    Attributes:
        operation: The name of the operation.
        number: The number of the request.
        kind: The kind of fault.
        at: The position in the body at which the fault happens.
        always: Whether the fault also happens to all later requests.
    """

    operation: str
    number: int
    kind: str
    at: int
    always: bool

    def __str__(self) -> str:
        position = f" at {self.at}" if self.kind in CUTS else ""
        return f"{self.operation} {self.number}: {self.kind}{position}, {'always' if self.always else 'once'}"

    @property
    def definition(self) -> Operation:
        return OPERATIONS[self.operation]

    @property
    def method(self) -> str:
        return self.definition.methods[self.number]


def cells() -> Iterator[Cell]:
    for name, operation in OPERATIONS.items():
        for number in range(1 if name in SAME_FIRST_REQUEST else 0, len(operation.methods)):
            for kind in (REFUSED, *KINDS):
                for at in fault_positions(name, number, kind):
                    yield Cell(name, number, kind, at, always=False)
                    if is_repeated(name, number, kind):
                        yield Cell(name, number, kind, at, always=True)


def is_repeated(name: str, number: int, kind: str) -> bool:
    """Return whether there is also a cell in which all later requests have the fault."""
    if name == "delete_manifest, subject" and (number, kind) == (0, "flipped byte"):
        return False  # an invalid manifest is deleted without an update of its subject
    return name == "get_blob" if kind.startswith("stall") else kind != "no 100"  # stalls take time


def fault_positions(name: str, number: int, kind: str) -> tuple[int, ...]:
    """Return the positions of a fault in the body. Empty if the request cannot have the fault."""
    operation = OPERATIONS[name]
    if kind in (REFUSED, "reset at accept"):
        return (0,) if number == 0 else ()
    if kind in CUTS:
        middle = 1000 if name.startswith("get_blob") else 10
        return (0, middle)[kind == "stall in answer" :] if operation.has_answer(number) else ()
    if kind == "flipped byte":  # a flipped byte in a range is not detected, see the last test
        return (0,) if operation.has_answer(number) and name != "get_blob_range" else ()
    if kind == "reset in request":
        return (50,) if operation.has_body(number) else ()
    if kind == "no 100":
        return (0,) if operation.waits and operation.has_body(number) else ()
    return () if kind == "stall" and number > 1 else (0,)  # stalls take time


def expected(cell: Cell) -> tuple[type[OciwireError] | None, ...]:
    """Return the exact classes of the permitted errors. None means the right result."""
    if cell.kind == "no 100" or (cell.kind in CUTS and is_recovered(cell)):
        return (None,)
    if cell.kind == "flipped byte":
        return expected_after_flipped_byte(cell)
    if cell.operation == "push_blob, iterator" and cell.kind == "answer lost" and not cell.always:
        return (None,)  # the blob is stored
    if cell.operation in SINGLE_USE and cell.kind in ("reset in request", "answer lost", "stall"):
        return PERMANENT[cell.kind]  # a consumed body cannot be resent
    if cell.operation.startswith("push_blob") and cell.kind == "reset in request":
        return (*PERMANENT[cell.kind], *BROKEN_UPLOAD) if cell.always else (None, *BROKEN_UPLOAD)
    if cell.kind == "stall in answer":
        return PERMANENT[cell.kind]
    if cell.always:
        return PERMANENT[cell.kind]
    if cell.kind == "answer lost" and cell.method == "PATCH":
        return (BlobUploadInvalid,)  # docker-registry 2.8 deletes an upload that is requested with an old Location
    if cell.kind == "answer lost" and cell.method == "DELETE":
        return (BlobUnknown,) if cell.operation == "delete_blob" else (None,)  # the manifest was read before
    return (None,)


def is_recovered(cell: Cell) -> bool:
    """Return whether a truncated response body is ignored or requested again."""
    if (cell.operation, cell.number) in IGNORED_BODY:
        return not cell.always or cell.operation == "push_manifest, subject"
    if cell.kind == "stall in answer":
        return False
    return not cell.always or (
        cell.operation.startswith("get_blob") and cell.at > 0
    )  # downloads resume while they make progress


def expected_after_flipped_byte(cell: Cell) -> tuple[type[OciwireError] | None, ...]:
    if (cell.operation, cell.number) in IGNORED_BODY and is_recovered(cell):
        return (None,)
    if cell.operation.startswith("delete_manifest") and cell.number == 0:
        return (None,)  # an invalid manifest can be deleted
    if cell.operation in ("tags", "repositories"):
        return (ProtocolError,)  # the first byte; a flipped byte in a name is not detected
    return PERMANENT[cell.kind]


# --- tests ---


@pytest.fixture(scope="module")
def direct(registry_host: str) -> Iterator[Client]:
    """Yield a client without the proxy. The garbage collection at the end reports responses that are still open."""
    with contextlib.closing(UrllibTransport(timeout=TIMEOUT, trust_env=False)) as transport:
        client = Client(registry_host, transport, insecure=True)
        for repository in (READ, WRITE):
            client.push_blob(repository, CONFIG, b"{}")
        client.push_manifest(READ, Scene(client, "lists").image(), OCI_MANIFEST, tags=["a", "b"])
        yield client
    gc.collect()


class ProxiedClient:
    """Client with the default stack behind the proxy. Records all sockets.

    Args:
        fault_proxy: The proxy.
        patch: The fixture that undoes the patches after the test.
        recovers: Whether a registry that refuses connections accepts them again at the first retry.
    """

    def __init__(self, fault_proxy: FaultProxy, patch: pytest.MonkeyPatch, *, recovers: bool) -> None:
        create = WireConnection._new_conn
        self.sockets: list[Any] = []

        def record_socket(*args: Any, **options: Any) -> Any:
            self.sockets.append(create(*args, **options))
            return self.sockets[-1]

        def sleep(seconds: float) -> None:
            if recovers:
                fault_proxy.listen()

        patch.setattr(WireConnection, "_new_conn", record_socket)
        # default_transport() has no parameter for the sleep function.
        clock = SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic)
        for module in (ociwire.transport.retry, ociwire._client.upload_completion):
            patch.setattr(module, "time", clock)
        base = UrllibTransport(timeout=TIMEOUT, expect_timeout=EXPECT_TIMEOUT, trust_env=False)
        self.transport = default_transport(base=base, credentials=Anonymous())
        self.client = Client(fault_proxy.host, self.transport, insecure=True)
        self._proxy = fault_proxy

    def close(self) -> None:
        """Close the transport, and check that neither side has open connections."""
        self.transport.close()
        assert [sock for sock in self.sockets if sock.fileno() >= 0] == []
        assert self._proxy.open_connections() == 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_without_faults_sends_expected_requests(
    name: str, registry_host: str, direct: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check the requests that the cells assume, on one connection."""
    operation = OPERATIONS[name]
    scene = Scene(direct, f"{name}, no fault", operation.size)
    operation.prepare(scene)
    with FaultProxy(registry_host) as fault_proxy:
        proxied = ProxiedClient(fault_proxy, monkeypatch, recovers=False)
        operation.run(proxied.client, scene)
        assert [line.split(" ")[0] for line in fault_proxy.requests] == operation.methods
        assert len(proxied.sockets) == 1
        proxied.close()
    operation.verify(scene, True)


@pytest.mark.slow
@pytest.mark.parametrize("cell", list(cells()), ids=str)
def test_operation_with_network_fault_recovers_or_raises_expected_error(
    cell: Cell, registry_host: str, direct: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(direct, str(cell), cell.definition.size)
    cell.definition.prepare(scene)
    faults = [] if cell.kind == REFUSED else [NetworkFault(cell.kind, cell.number, None if cell.always else 1, cell.at)]
    with FaultProxy(registry_host, faults) as fault_proxy:
        proxied = ProxiedClient(fault_proxy, monkeypatch, recovers=not cell.always)
        client = proxied.client
        if cell.kind == REFUSED:
            fault_proxy.refuse()
        if cell.kind.startswith("stall"):
            client = client.with_options(
                timeout=REPEATED_STALL_TIMEOUT if cell.always and cell.number == 0 else STALL_TIMEOUT
            )
        error = Call(lambda: cell.definition.run(client, scene)).join().error
        if error is not None and not isinstance(error, OciwireError):
            raise error
        assert set(fault_proxy.injected) == ({cell.kind} if cell.kind != REFUSED else set())
        assert (None if error is None else type(error)) in expected(cell), error
        proxied.close()
    cell.definition.verify(scene, error is None)


def test_get_blob_range_flipped_byte_is_not_verified(
    registry_host: str, direct: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(direct, "flipped byte in a range")
    push(scene)
    with FaultProxy(registry_host, [NetworkFault("flipped byte", at=3)]) as fault_proxy:
        proxied = ProxiedClient(fault_proxy, monkeypatch, recovers=False)
        with proxied.client.get_blob_range(READ, scene.blob.digest, 1000, 2000) as reader:
            content = reader.read()
            assert [index for index in range(1000) if content[index] != scene.content[1000 + index]] == [3]
            assert not reader.verified
            with pytest.raises(UsageError):
                reader.verify()
        proxied.close()
