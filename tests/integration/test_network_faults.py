"""Every operation of the client, over the whole stack and real sockets, against a network that fails.

Each cell is an operation, one of its requests, and what happens to that request: once, or to it and all that follow. It
is recovered with the right result, or ends in the error that `expected` names; never in wrong bytes, never in a hang,
and nothing is left open or half-written.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

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
    TransportTimeout,
    UsageError,
)
from ociwire.media_types import OCI_MANIFEST
from ociwire.transport import UrllibTransport
from ociwire.transport._urllib3.connection import WireConnection
from tests.transport.urllib3.fault_proxy import KINDS, FaultProxy, NetworkFault

BOUND = 30.0
"""Within which each cell must end, in seconds: reached only by what hangs."""
TIMEOUT = 10.0
SHORT, SHORTEST = 0.15, 0.02
"""The client's timeout, in seconds, where a request is stalled once, and where all are and nothing is to be got."""
EXPECT = 0.2
READ, WRITE = "faults/read", "faults/write"
CONFIG = Descriptor.of(b"{}", "application/vnd.oci.image.config.v1+json")
CHUNK = 2000
LARGE = 300 * 1024
"""More than the 256 KiB from which on the wire waits for a 100 (Continue), in bytes."""


@dataclass
class Scene:
    """What a cell is about, that no other cell is.

    Attributes:
        direct: A client without the proxy.
        name: The cell's.
        size: How much content it has, in bytes.
        pushed: What has been prepared.
    """

    direct: Client
    name: str
    size: int = 3 * CHUNK
    pushed: dict[str, Any] = field(default_factory=dict)

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


def nothing(scene: Scene) -> None:
    """Nothing to prepare."""


@dataclass(frozen=True)
class Operation:
    """An operation of the client's.

    Attributes:
        requests: The methods of its requests where nothing fails; ``+`` behind it: with a body, ``-``: the answer has
            one.
        run: Does it, and asserts that the result is right.
        prepare: What has to be there before.
        verify: Looks, without the proxy, whether all is well, and whole where it is claimed to be done.
        waits: Whether it has to do without a 100 (Continue), where that never comes.
        size: How much content, in bytes.
    """

    requests: str
    run: Callable[[Client, Scene], object]
    prepare: Callable[[Scene], object] = nothing
    verify: Callable[[Scene, bool], object] = lambda scene, claimed: None
    waits: bool = False
    size: int = 3 * CHUNK

    @property
    def methods(self) -> list[str]:
        return [request.strip("+-") for request in self.requests.split()]

    def has_body(self, number: int) -> bool:
        return "+" in self.requests.split()[number]

    def has_answer(self, number: int) -> bool:
        return "-" in self.requests.split()[number]


# --- what is done ---


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


def put_of_unknown_length(client: Client, scene: Scene) -> None:
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


def begin(scene: Scene) -> None:
    with scene.direct.push_blob_chunked(WRITE, CHUNK) as writer:
        writer.write(scene.content[: 2 * CHUNK])
    scene.pushed["id"] = writer.id


def push_blob_chunked_resume(client: Client, scene: Scene) -> None:
    id_ = scene.pushed["id"].replace(scene.direct.host, client.host)  # the registry says what it is called
    with client.push_blob_chunked_resume(WRITE, id_, chunk_size=CHUNK) as writer:
        assert writer.size == 2 * CHUNK
        writer.write(scene.content[2 * CHUNK :])
        assert writer.commit(scene.blob.digest) == scene.blob


def is_stored(scene: Scene, claimed: bool) -> None:
    try:
        with scene.direct.get_blob(WRITE, scene.blob.digest) as reader:
            assert reader.read() == scene.content
    except BlobUnknown:
        assert not claimed


def mount_blob(client: Client, scene: Scene) -> None:
    assert client.mount_blob(READ, WRITE, scene.blob.digest) == scene.blob


def push_manifest(*tags: str) -> Callable[[Client, Scene], None]:
    def run(client: Client, scene: Scene) -> None:
        wanted = [scene.tag + tag for tag in tags]
        assert client.push_manifest(WRITE, scene.image(), OCI_MANIFEST, tags=wanted) == scene.manifest

    return run


def is_tagged(*tags: str) -> Callable[[Scene, bool], None]:
    def verify(scene: Scene, claimed: bool) -> None:
        for tag in tags:
            try:
                with scene.direct.get_tag(WRITE, scene.tag + tag) as reader:
                    assert reader.read() == scene.image()
            except ManifestUnknown:
                assert not claimed

    return verify


def push_a_referrer(client: Client, scene: Scene) -> None:
    described = client.push_manifest(WRITE, scene.referrer, OCI_MANIFEST)
    assert described.digest == Digest.of(scene.referrer)


def is_referred_to(scene: Scene, claimed: bool) -> None:
    """The referrer is there before its subject's list says so."""
    listed = [one.digest for one in scene.direct.referrers(WRITE, scene.manifest.digest)]
    assert listed in ([], [Digest.of(scene.referrer)])
    assert listed or not claimed
    for digest in listed:
        assert scene.direct.get_manifest(WRITE, digest).read() == scene.referrer


def delete_blob(client: Client, scene: Scene) -> None:
    client.delete_blob(READ, scene.blob.digest)


def is_gone(scene: Scene, claimed: bool) -> None:
    try:
        with scene.direct.get_blob(READ, scene.blob.digest) as reader:
            assert reader.read() == scene.content
            assert not claimed
    except BlobUnknown:
        pass


def delete_manifest(client: Client, scene: Scene) -> None:
    client.delete_manifest(WRITE, scene.manifest.digest)


def is_untagged(scene: Scene, claimed: bool) -> None:
    try:
        with scene.direct.get_tag(WRITE, scene.tag) as reader:
            assert reader.read() == scene.image()
            assert not claimed
    except ManifestUnknown:
        pass


def delete_a_referrer(client: Client, scene: Scene) -> None:
    client.delete_manifest(WRITE, Digest.of(scene.referrer))


def is_no_longer_referred_to(scene: Scene, claimed: bool) -> None:
    """It is gone from its subject's list too; where it failed, it is after doing it again."""
    if not claimed:
        with contextlib.suppress(ManifestUnknown):
            scene.direct.delete_manifest(WRITE, Digest.of(scene.referrer))
    with pytest.raises(ManifestUnknown):
        scene.direct.resolve_manifest(WRITE, Digest.of(scene.referrer))
    assert list(scene.direct.referrers(WRITE, scene.manifest.digest)) == []


def tags(client: Client, scene: Scene) -> None:
    assert sorted(client.tags(READ)) == ["one", "two"]


def repositories(client: Client, scene: Scene) -> None:
    assert list(client.repositories(start_after="faults/", limit=2)) == [READ, WRITE]


def referrers(client: Client, scene: Scene) -> None:
    found = [one.digest for one in client.referrers(WRITE, scene.manifest.digest)]
    assert found == [Digest.of(scene.referrer)]


UNKNOWN_LENGTH = "PUT, iterator of no length"
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
    UNKNOWN_LENGTH: Operation("POST PUT+", put_of_unknown_length, verify=is_stored, waits=True),
    "push_blob_chunked": Operation("POST PATCH+ PATCH+ PUT+", push_blob_chunked, verify=is_stored),
    "push_blob_chunked_resume": Operation("GET PUT+", push_blob_chunked_resume, begin, is_stored),
    "mount_blob": Operation("POST HEAD", mount_blob, push, is_stored),
    "push_manifest, a tag": Operation("PUT+", push_manifest(""), verify=is_tagged("")),
    "push_manifest, two tags": Operation("PUT+ PUT+ PUT+", push_manifest("a", "b"), verify=is_tagged("a", "b")),
    "push_manifest, subject": Operation("PUT+ GET- PUT+", push_a_referrer, push_image, is_referred_to),
    "delete_blob": Operation("DELETE", delete_blob, push, is_gone),
    "delete_manifest": Operation("GET- DELETE", delete_manifest, push_image, is_untagged),
    "delete_manifest, subject": Operation(
        "GET- GET- GET- PUT+ DELETE", delete_a_referrer, push_referrer, is_no_longer_referred_to
    ),
    "tags": Operation("GET-", tags),
    "repositories": Operation("GET-", repositories),
    "referrers": Operation("GET- GET-", referrers, push_referrer),
}

# --- what happens, and what is to come of it ---

REFUSED = "refused"
"""Nobody listens from the beginning; `NetworkFault` has what happens to requests."""
CUTS = ("reset in answer", "short answer", "stall in answer")
AGAIN = ("push_blob, file", "push_blob, iterator", "push_blob, many bytes", "push_blob, large file", UNKNOWN_LENGTH)
"""Operations that begin as another one does: their first request is not tried again."""
ONE_SHOT = ("push_blob, iterator", UNKNOWN_LENGTH)
UNREAD = {("referrers", 0), ("delete_manifest, subject", 1), ("push_manifest, subject", 1)}
"""Requests that are answered 404 without anything in its body that would count."""
LASTING: dict[str, tuple[type[OciwireError], ...]] = {
    REFUSED: (ConnectError,),
    "goes down": (ConnectError,),
    "reset at accept": (ReadError, ConnectError),  # it comes before the connection is seen, or after
    "request lost": (ReadError,),
    "reset in request": (ReadError,),
    "answer lost": (ReadError,),
    "reset in answer": (ReadError,),
    "short answer": (ReadError,),
    "flipped byte": (DigestMismatch,),
    "stall": (TransportTimeout,),
    "stall in answer": (TransportTimeout,),
}
"""What each ends in where it does not pass."""
UNSETTLED = (BlobUploadInvalid, BlobUploadUnknown, DigestInvalid)
"""What docker-registry 2.8 says to an upload in which a body broke: it gives it up, or has taken a part of it."""


@dataclass(frozen=True)
class Cell:
    """An operation, a request of it, and what happens to that: once, or to it and to all that follow."""

    operation: str
    number: int
    kind: str
    at: int
    always: bool

    def __str__(self) -> str:
        where = f" at {self.at}" if self.kind in CUTS else ""
        return f"{self.operation} {self.number}: {self.kind}{where}, {'always' if self.always else 'once'}"

    @property
    def of(self) -> Operation:
        return OPERATIONS[self.operation]

    @property
    def method(self) -> str:
        return self.of.methods[self.number]


def cells() -> Iterator[Cell]:
    for name, operation in OPERATIONS.items():
        for number in range(1 if name in AGAIN else 0, len(operation.methods)):
            for kind in (REFUSED, *KINDS):
                for at in places(name, number, kind):
                    yield Cell(name, number, kind, at, always=False)
                    if lasts(name, number, kind):
                        yield Cell(name, number, kind, at, always=True)


def lasts(name: str, number: int, kind: str) -> bool:
    """Whether it is worth the time to have it happen again and again."""
    if name == "delete_manifest, subject" and (number, kind) == (0, "flipped byte"):
        return False  # what cannot be read, now or ever, is deleted all the same: who it referred to, nobody can tell
    return name == "get_blob" if kind.startswith("stall") else kind != "no 100"


def places(name: str, number: int, kind: str) -> tuple[int, ...]:
    """Where in a body it can happen; none where it cannot happen at all."""
    operation = OPERATIONS[name]
    if kind in (REFUSED, "reset at accept"):
        return (0,) if number == 0 else ()
    if kind in CUTS:
        inside = 1000 if name.startswith("get_blob") else 10
        return (0, inside)[kind == "stall in answer" :] if operation.has_answer(number) else ()
    if kind == "flipped byte":  # what nobody can see in a range has a test of its own
        return (0,) if operation.has_answer(number) and name != "get_blob_range" else ()
    if kind == "reset in request":
        return (50,) if operation.has_body(number) else ()
    if kind == "no 100":
        return (0,) if operation.waits and operation.has_body(number) else ()
    return () if kind == "stall" and number > 1 else (0,)  # each of them takes its time


def expected(cell: Cell) -> tuple[type[OciwireError] | None, ...]:
    """What may come of it: errors, by their exact class; None is the right result."""
    if cell.kind == "no 100" or (cell.kind in CUTS and passes(cell)):
        return (None,)
    if cell.kind == "flipped byte":
        return after_a_flipped_byte(cell)
    if cell.operation == "push_blob, iterator" and cell.kind == "answer lost" and not cell.always:
        return (None,)  # the blob is there
    if cell.operation in ONE_SHOT and cell.kind in ("reset in request", "answer lost", "stall"):
        return LASTING[cell.kind]  # a chunk is gone: it cannot be sent again
    if cell.operation.startswith("push_blob") and cell.kind == "reset in request":
        return (*LASTING[cell.kind], *UNSETTLED) if cell.always else (None, *UNSETTLED)
    if cell.kind == "stall in answer":
        return LASTING[cell.kind]
    if cell.always:
        return LASTING[cell.kind]
    if cell.kind == "answer lost" and cell.method == "PATCH":
        return (BlobUploadInvalid,)  # docker-registry 2.8 gives up an upload that is asked for in a state that is past
    if cell.kind == "answer lost" and cell.method == "DELETE":
        return (BlobUnknown,) if cell.operation == "delete_blob" else (None,)  # a manifest was read before
    return (None,)


def passes(cell: Cell) -> bool:
    """Whether an answer's body that is cut off is of no matter, or made up for."""
    if (cell.operation, cell.number) in UNREAD:
        return not cell.always or cell.operation == "push_manifest, subject"
    if cell.kind == "stall in answer":
        return False
    return not cell.always or (cell.operation.startswith("get_blob") and cell.at > 0)  # bounded by progress alone


def after_a_flipped_byte(cell: Cell) -> tuple[type[OciwireError] | None, ...]:
    if (cell.operation, cell.number) in UNREAD and passes(cell):
        return (None,)
    if cell.operation.startswith("delete_manifest") and cell.number == 0:
        return (None,)  # what is to be deleted need not be right
    if cell.operation in ("tags", "repositories"):
        return (ProtocolError,)  # its first byte, that is: in a name nobody would see it
    return LASTING[cell.kind]


# --- how it is played ---


@pytest.fixture(scope="module")
def direct(registry_host: str) -> Iterator[Client]:
    """A client without the proxy; whatever was left open is found when it is closed."""
    with contextlib.closing(UrllibTransport(timeout=TIMEOUT, trust_env=False)) as transport:
        client = Client(registry_host, transport, insecure=True)
        for repository in (READ, WRITE):
            client.push_blob(repository, CONFIG, b"{}")
        client.push_manifest(READ, Scene(client, "lists").image(), OCI_MANIFEST, tags=["one", "two"])
        yield client
    gc.collect()


class Stage:
    """A client of the whole stack behind the proxy, which notes each socket that is made.

    Args:
        chaos: The proxy.
        patch: Undone after the test.
        comes_back: Whether the registry, if it refuses connections, takes them again while a retry waits.
    """

    def __init__(self, chaos: FaultProxy, patch: pytest.MonkeyPatch, *, comes_back: bool) -> None:
        create = WireConnection._new_conn
        self.sockets: list[Any] = []

        def noting(*args: Any, **options: Any) -> Any:
            self.sockets.append(create(*args, **options))
            return self.sockets[-1]

        def sleep(seconds: float) -> None:
            if comes_back:
                chaos.listen()

        patch.setattr(WireConnection, "_new_conn", noting)
        clock = SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic)
        patch.setattr(ociwire.transport.retry, "time", clock)
        base = UrllibTransport(timeout=TIMEOUT, expect_timeout=EXPECT, trust_env=False)
        self.transport = default_transport(base=base, credentials=Anonymous())
        self.client = Client(chaos.host, self.transport, insecure=True)
        self._chaos = chaos

    def close(self) -> None:
        """Close the transport: no connection is left, on either side."""
        self.transport.close()
        assert [sock for sock in self.sockets if sock.fileno() >= 0] == []
        assert self._chaos.open_connections() == 0


def within_bounds(call: Callable[[], object]) -> Exception | None:
    """What a call raises; it must end in time."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - handed to the test's own thread
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(BOUND)
    assert not thread.is_alive(), "it hangs"
    return raised[0] if raised else None


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_without_faults_sends_expected_requests(
    name: str, registry_host: str, direct: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation has the requests that the cells count on, on one connection."""
    operation = OPERATIONS[name]
    scene = Scene(direct, f"{name}, quiet", operation.size)
    operation.prepare(scene)
    with FaultProxy(registry_host) as chaos:
        stage = Stage(chaos, monkeypatch, comes_back=False)
        operation.run(stage.client, scene)
        assert [line.split(" ")[0] for line in chaos.requests] == operation.methods
        assert len(stage.sockets) == 1
        stage.close()
    operation.verify(scene, True)


@pytest.mark.slow
@pytest.mark.parametrize("cell", list(cells()), ids=str)
def test_operation_with_network_fault_recovers_or_raises_expected_error(
    cell: Cell, registry_host: str, direct: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(direct, str(cell), cell.of.size)
    cell.of.prepare(scene)
    troubles = (
        [] if cell.kind == REFUSED else [NetworkFault(cell.kind, cell.number, None if cell.always else 1, cell.at)]
    )
    with FaultProxy(registry_host, troubles) as chaos:
        stage = Stage(chaos, monkeypatch, comes_back=not cell.always)
        client = stage.client
        if cell.kind == REFUSED:
            chaos.refuse()
        if cell.kind.startswith("stall"):
            client = client.with_options(timeout=SHORTEST if cell.always and cell.number == 0 else SHORT)
        error = within_bounds(lambda: cell.of.run(client, scene))
        if error is not None and not isinstance(error, OciwireError):
            raise error
        assert set(chaos.injected) == ({cell.kind} if cell.kind != REFUSED else set())
        assert (None if error is None else type(error)) in expected(cell), error
        stage.close()
    cell.of.verify(scene, error is None)


def test_get_blob_range_flipped_byte_is_not_verified(
    registry_host: str, direct: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(direct, "flipped in a range")
    push(scene)
    with FaultProxy(registry_host, [NetworkFault("flipped byte", at=3)]) as chaos:
        stage = Stage(chaos, monkeypatch, comes_back=False)
        with stage.client.get_blob_range(READ, scene.blob.digest, 1000, 2000) as reader:
            content = reader.read()
            assert [place for place in range(1000) if content[place] != scene.content[1000 + place]] == [3]
            assert not reader.verified
            with pytest.raises(UsageError):
                reader.verify()
        stage.close()
