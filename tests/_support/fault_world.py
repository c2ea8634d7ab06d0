"""What the fault matrix and the random schedules share: a registry with something in it, and a network that can fail.

From below: a `MemoryRegistry`, guarded by tokens but for one host that stands for a CDN; a watch that knows which
responses are still open; a `FaultTransport`; the whole default stack; a client.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ociwire import Client, Descriptor, Request, Response, Scope, Transport, default_transport
from ociwire.auth import Credential, StaticCredentials
from ociwire.errors import OciwireError
from ociwire.testing import AuthGuard, FaultTransport, MemoryRegistry
from ociwire.testing.faults import FAULTS, Fault
from ociwire.transfer import copy, download, upload

HOST = "registry.example"
CDN = "cdn.example"
NAME = "team/app"
CREDENTIALS = StaticCredentials(HOST, Credential(username="me", password="secret"))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MOST_REQUESTS = 200
"""More requests for one operation would go on for ever."""


class Watch:
    """Passes requests on, and knows which of the responses are still open."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.open: set[int] = set()
        self.requests = 0

    def round_trip(self, request: Request, /) -> Response:
        self.requests += 1
        assert self.requests < MOST_REQUESTS, f"{request.method} {request.url} goes on for ever"
        response = self._inner.round_trip(request)
        return response.replace(body=Watched(response, self)) if response.length != 0 else response

    def close(self) -> None:
        self._inner.close()


class Watched:
    """A body that tells when it was read to its end, or closed."""

    def __init__(self, response: Response, watch: Watch) -> None:
        self._response = response
        self._watch = watch
        watch.open.add(id(self))

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._response.readinto(buffer)
        if count == 0 and len(buffer):
            self._watch.open.discard(id(self))
        return count

    def close(self) -> None:
        self._watch.open.discard(id(self))
        self._response.close()


def blob(number: int, size: int = 1000) -> bytes:
    """Some content; of one number always the same."""
    return random.Random(number).randbytes(size)


STORED = blob(1)
NEW = blob(2, 3000)


def manifest(subject: Descriptor | None = None, **annotations: str) -> bytes:
    """A manifest of the stored blob."""
    content: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/x-test",
        "config": Descriptor.of(STORED, "application/vnd.oci.image.config.v1+json").to_dict(),
        "layers": [],
        "annotations": annotations,
    }
    if subject is not None:
        content["subject"] = subject.to_dict()
    return json.dumps(content).encode()


class World:
    """A registry with something in it, and a client whose requests may fail on the way there: see `fail`.

    Args:
        registry: For `MemoryRegistry`.
    """

    faults: FaultTransport
    client: Client

    def __init__(self, **registry: Any) -> None:
        self.registry = MemoryRegistry(**registry)
        self.direct = Client(HOST, self.registry)
        self.guard = AuthGuard(self.registry, users={"me": "secret"})
        self.watch = Watch(self)
        self.seed()

    def fail(self, **options: Any) -> None:
        """Have requests fail from now on, as `FaultTransport` is told; with a new client."""
        self.faults = FaultTransport(self.watch, **options)
        self.client = Client(HOST, default_transport(base=self.faults, credentials=CREDENTIALS))

    def round_trip(self, request: Request, /) -> Response:
        return (self.registry if urlsplit(request.url).hostname == CDN else self.guard).round_trip(request)

    def close(self) -> None:
        self.guard.close()

    def seed(self) -> None:
        self.direct.push_blob(NAME, Descriptor.of(STORED), STORED)
        self.direct.push_blob("team/base", Descriptor.of(blob(3)), blob(3))
        self.subject = self.direct.push_manifest(NAME, manifest(), MANIFEST, tags=["v1", "v2", "v3"])
        self.referrer = self.direct.push_manifest(NAME, manifest(self.subject, number="1"), MANIFEST)

    def token_runs_out(self, request: Request, inner: Transport, chance: random.Random) -> Response:
        """A fault: all tokens that were granted before are refused from now on."""
        self.guard.revoke()
        return inner.round_trip(request)


def to_a_cdn(request: Request, inner: Transport, chance: random.Random) -> Response:
    """A fault: what is asked for is at another origin, which knows no tokens."""
    url = urlsplit(request.url)
    return Response(307, {"Location": f"https://{CDN}{url.path}{'?' if url.query else ''}{url.query}"})


def faults_of(world: World) -> dict[str, str | Fault]:
    """All that can happen, by the names that the tables have."""
    return {
        **{name: name for name in FAULTS},
        "token ran out": world.token_runs_out,
        "307 to a CDN": to_a_cdn,
    }


COLD = ", a client's first"
"""Behind an operation: it is the first of its client, which has no token yet."""
FAULT_NAMES = (*FAULTS, "token ran out", "307 to a CDN")

# What is pushed, in every way in which content can be given; a new one for each attempt.
BODIES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda content: content,
    "file": io.BytesIO,
    "one-shot": lambda content: pieces(content),
}


def pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 700):
        yield content[start : start + 700]


def push_chunked(client: Client, content: Iterable[bytes]) -> Descriptor:
    with client.push_blob_chunked(NAME, 1000) as writer:
        try:
            for piece in content:
                writer.write(piece)
            return writer.commit()
        except OciwireError:
            writer.cancel()
            raise


def resume(world: World) -> Descriptor:
    """Begin an upload without faults, and go on with it through them, as another process would."""
    begun = world.direct.push_blob_chunked(NAME, 1000)
    begun.write(NEW[:1500])
    begun.close()
    with world.client.push_blob_chunked_resume(NAME, begun.id, chunk_size=1000) as writer:
        writer.write(NEW[writer.size :])
        return writer.commit(Descriptor.of(NEW).digest)


def fetched(world: World) -> bytes:
    """Download the stored blob; nothing else is under its name, whatever happens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blob"
        try:
            download(world.client, NAME, Descriptor.of(STORED).digest, path, workers=1)
        except OciwireError:
            assert not path.exists()
            raise
        return path.read_bytes()


def operations() -> dict[str, tuple[Callable[[World], Any], Callable[[World], Any]]]:
    """Every operation of a client, and what it should return in a world without faults."""
    digest = Descriptor.of(STORED).digest
    new, base = Descriptor.of(NEW), Descriptor.of(blob(3))
    second = manifest(number="2")
    found: dict[str, tuple[Callable[[World], Any], Callable[[World], Any]]] = {
        "get_blob": (lambda w: w.client.get_blob(NAME, digest).read(), lambda w: STORED),
        "get_blob_range": (lambda w: w.client.get_blob_range(NAME, digest, 100, 900).read(), lambda w: STORED[100:900]),
        "resolve_blob": (lambda w: w.client.resolve_blob(NAME, digest), lambda w: Descriptor.of(STORED)),
        "get_manifest": (lambda w: w.client.get_manifest(NAME, w.subject.digest).read(), lambda w: manifest()),
        "get_tag": (lambda w: w.client.get_tag(NAME, "v1").read(), lambda w: manifest()),
        "resolve_manifest": (lambda w: w.client.resolve_manifest(NAME, w.subject.digest), lambda w: w.subject),
        "resolve_tag": (lambda w: w.client.resolve_tag(NAME, "v1"), lambda w: w.subject),
    }
    for kind, make in BODIES.items():
        found[f"push_blob, {kind}"] = (
            lambda w, make=make: w.client.push_blob(NAME, new, make(NEW)),  # type: ignore[misc]
            lambda w: new,
        )
    found |= {
        "push_blob_chunked": (lambda w: push_chunked(w.client, pieces(NEW)), lambda w: new),
        "push_blob_chunked_resume": (resume, lambda w: new),
        "mount_blob": (lambda w: w.client.mount_blob("team/base", NAME, base.digest), lambda w: base),
        "push_manifest": (
            lambda w: w.client.push_manifest(NAME, second, MANIFEST, tags=["new"]),
            lambda w: Descriptor.of(second, MANIFEST),
        ),
        "push_manifest, two tags": (
            lambda w: w.client.push_manifest(NAME, second, MANIFEST, tags=["new", "newer"]),
            lambda w: Descriptor.of(second, MANIFEST),
        ),
        "push_manifest, a referrer": (
            lambda w: w.client.push_manifest(NAME, manifest(w.subject, number="3"), MANIFEST),
            lambda w: Descriptor.of(manifest(w.subject, number="3"), MANIFEST),
        ),
        "delete_blob": (lambda w: w.client.delete_blob(NAME, digest), lambda w: None),
        "delete_manifest": (lambda w: w.client.delete_manifest(NAME, w.referrer.digest), lambda w: None),
        "delete_tag": (lambda w: w.client.delete_tag(NAME, "v2"), lambda w: None),
        "tags": (lambda w: list(w.client.tags(NAME)), lambda w: ["v1", "v2", "v3"]),
        "repositories": (lambda w: list(w.client.repositories()), lambda w: [NAME, "team/base"]),
        "referrers": (
            lambda w: [one.digest for one in w.client.referrers(NAME, w.subject.digest)],
            lambda w: [w.referrer.digest],
        ),
    }
    found |= {
        "download": (fetched, lambda w: STORED),
        "upload": (lambda w: upload(w.client, NAME, io.BytesIO(NEW)), lambda w: new),
        "copy, from": (
            lambda w: copy(w.client, f"{NAME}:v1", Client(HOST, MemoryRegistry()), "copied:v1", workers=1),
            lambda w: w.subject,
        ),
        "copy, to": (
            lambda w: copy(w.direct, f"{NAME}:v1", w.client, "team/base:v1", workers=1),
            lambda w: w.subject,
        ),
    }
    for operation in ("get_blob", "push_blob, one-shot"):
        found[operation + COLD] = found[operation]
    return found


def warm(world: World) -> None:
    """Have the client get a token for all that the operations need: what follows is in the middle of a session."""
    scope = Scope.repository(NAME, "pull", "push", "delete") | Scope.repository("team/base", "pull")
    world.client.do(Request("GET", f"/v2/{NAME}/tags/list"), scope=scope).drain()
    world.client.do(Request("GET", "/v2/_catalog"), scope=Scope.CATALOG).drain()


def check_done(operation: str, world: World, *, deleted: bool = False) -> None:
    """What was said to be done, is; `deleted` if the first referrer may have been."""
    direct = world.direct
    if operation.startswith("push_blob"):
        assert direct.get_blob(NAME, Descriptor.of(NEW).digest).read() == NEW
    elif operation == "push_manifest, a referrer":
        listed = direct.referrers(NAME, world.subject.digest)
        numbers = {(one.annotations or {}).get("number") for one in listed}
        assert numbers in ({"1", "3"}, {"3"} if deleted else {"1", "3"})
    elif operation.startswith("push_manifest"):
        tags = ["new", "newer"] if "two" in operation else ["new"]
        assert all(direct.get_tag(NAME, tag).read() == manifest(number="2") for tag in tags)
    elif operation == "delete_tag":
        assert "v2" not in list(direct.tags(NAME))


def check_whole(world: World, *, deleted: bool = False) -> None:
    """Whatever has happened, all that the registry has is whole: a reader verifies it.

    Without a referrers API, deleting a manifest takes two steps: where it was `deleted`, its entry may outlive it.
    """
    for tag in world.direct.tags(NAME):
        world.direct.get_tag(NAME, tag).read()
    for referrer in world.direct.referrers(NAME, world.subject.digest):
        if not (deleted and referrer.digest == world.referrer.digest):
            world.direct.get_manifest(NAME, referrer.digest).read()


class Numbered:
    """For `where`: the request with this number, counted from 0 since `begin`, and no other."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._numbers: Iterator[int] | None = None

    def begin(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, request: Request) -> bool:
        return self._numbers is not None and next(self._numbers) == self._number
