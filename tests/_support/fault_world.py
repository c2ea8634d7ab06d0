"""Setup of the fault matrix and the random schedules: a registry with content, and a network that can fail.

From the bottom to the top: a `MemoryRegistry`, which requires tokens except on one host that represents a CDN, a
`ResponseTracker`, a `FaultTransport`, the default stack, and a client.
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
"""Maximum number of requests of an operation. More requests indicate an endless loop."""


class ResponseTracker:
    """Layer that records which responses are open.

    Attributes:
        open: Ids of the responses that were neither read to their end nor closed.
        requests: Number of requests.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.open: set[int] = set()
        self.requests = 0

    def round_trip(self, request: Request, /) -> Response:
        self.requests += 1
        assert self.requests < MOST_REQUESTS, f"{request.method} {request.url} loops"
        response = self._inner.round_trip(request)
        return response.replace(body=_ObservedBody(response, self)) if response.length != 0 else response

    def close(self) -> None:
        self._inner.close()


class _ObservedBody:
    """Body that notifies the tracker when it is read to its end or closed."""

    def __init__(self, response: Response, watch: ResponseTracker) -> None:
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
    """Return deterministic content for a number."""
    return random.Random(number).randbytes(size)


STORED = blob(1)
NEW = blob(2, 3000)


def manifest(subject: Descriptor | None = None, **annotations: str) -> bytes:
    """Return a manifest whose config is the stored blob."""
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
    """A registry with content, and a client whose requests may fail; see `fail`.

    Args:
        registry: Options of `MemoryRegistry`.
    """

    faults: FaultTransport
    client: Client

    def __init__(self, **registry: Any) -> None:
        self.registry = MemoryRegistry(**registry)
        self.direct = Client(HOST, self.registry)
        self.guard = AuthGuard(self.registry, users={"me": "secret"})
        self.watch = ResponseTracker(self)
        self.seed()

    def fail(self, **options: Any) -> None:
        """Make a new client whose requests fail. The arguments are options of `FaultTransport`."""
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

    def revoke_tokens(self, request: Request, inner: Transport, chance: random.Random) -> Response:
        """Fault that revokes all tokens before the request."""
        self.guard.revoke()
        return inner.round_trip(request)


def redirect_to_cdn(request: Request, inner: Transport, chance: random.Random) -> Response:
    """Fault that redirects to another origin, which requires no tokens."""
    url = urlsplit(request.url)
    return Response(307, {"Location": f"https://{CDN}{url.path}{'?' if url.query else ''}{url.query}"})


def faults_of(world: World) -> dict[str, str | Fault]:
    """Return all faults by their names in the tables."""
    return {
        **{name: name for name in FAULTS},
        "token ran out": world.revoke_tokens,
        "307 to a CDN": redirect_to_cdn,
    }


COLD = ", a client's first"
"""Suffix of operations that are the first of their client, which has no token yet."""
FAULT_NAMES = (*FAULTS, "token ran out", "307 to a CDN")

# Kinds of content of a push. Each attempt gets new content.
BODIES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda content: content,
    "file": io.BytesIO,
    "single-use": lambda content: pieces(content),
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
    """Start an upload without faults, and resume it with faults, as another process can."""
    started = world.direct.push_blob_chunked(NAME, 1000)
    started.write(NEW[:1500])
    started.close()
    with world.client.push_blob_chunked_resume(NAME, started.id, chunk_size=1000) as writer:
        writer.write(NEW[writer.size :])
        return writer.commit(Descriptor.of(NEW).digest)


def download_stored(world: World) -> bytes:
    """Download the stored blob. A failed download must not leave a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blob"
        try:
            download(world.client, NAME, Descriptor.of(STORED).digest, path, workers=1)
        except OciwireError:
            assert not path.exists()
            raise
        return path.read_bytes()


def operations() -> dict[str, tuple[Callable[[World], Any], Callable[[World], Any]]]:
    """Return each operation of a client and its result without faults, by name."""
    digest = Descriptor.of(STORED).digest
    new, base = Descriptor.of(NEW), Descriptor.of(blob(3))
    second = manifest(number="2")
    table: dict[str, tuple[Callable[[World], Any], Callable[[World], Any]]] = {
        "get_blob": (lambda w: w.client.get_blob(NAME, digest).read(), lambda w: STORED),
        "get_blob_range": (lambda w: w.client.get_blob_range(NAME, digest, 100, 900).read(), lambda w: STORED[100:900]),
        "resolve_blob": (lambda w: w.client.resolve_blob(NAME, digest), lambda w: Descriptor.of(STORED)),
        "get_manifest": (lambda w: w.client.get_manifest(NAME, w.subject.digest).read(), lambda w: manifest()),
        "get_tag": (lambda w: w.client.get_tag(NAME, "v1").read(), lambda w: manifest()),
        "resolve_manifest": (lambda w: w.client.resolve_manifest(NAME, w.subject.digest), lambda w: w.subject),
        "resolve_tag": (lambda w: w.client.resolve_tag(NAME, "v1"), lambda w: w.subject),
    }
    for kind, make in BODIES.items():
        table[f"push_blob, {kind}"] = (
            lambda w, make=make: w.client.push_blob(NAME, new, make(NEW)),  # type: ignore[misc]
            lambda w: new,
        )
    table |= {
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
            lambda w: [entry.digest for entry in w.client.referrers(NAME, w.subject.digest)],
            lambda w: [w.referrer.digest],
        ),
    }
    table |= {
        "download": (download_stored, lambda w: STORED),
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
    for operation in ("get_blob", "push_blob, single-use"):
        table[operation + COLD] = table[operation]
    return table


def warm(world: World) -> None:
    """Make the client get tokens for all operations, as in a running session."""
    scope = Scope.repository(NAME, "pull", "push", "delete") | Scope.repository("team/base", "pull")
    world.client.do(Request("GET", f"/v2/{NAME}/tags/list"), scope=scope).drain()
    world.client.do(Request("GET", "/v2/_catalog"), scope=Scope.CATALOG).drain()


def check_done(operation: str, world: World, *, deleted: bool = False) -> None:
    """Check the effect of an operation that succeeded.

    Args:
        operation: The name of the operation.
        world: The registry.
        deleted: Whether the first referrer may have been deleted. Defaults to false.
    """
    direct = world.direct
    if operation.startswith("push_blob"):
        assert direct.get_blob(NAME, Descriptor.of(NEW).digest).read() == NEW
    elif operation == "push_manifest, a referrer":
        listed = direct.referrers(NAME, world.subject.digest)
        numbers = {(entry.annotations or {}).get("number") for entry in listed}
        assert numbers in ({"1", "3"}, {"3"} if deleted else {"1", "3"})
    elif operation.startswith("push_manifest"):
        tags = ["new", "newer"] if "two" in operation else ["new"]
        assert all(direct.get_tag(NAME, tag).read() == manifest(number="2") for tag in tags)
    elif operation == "delete_tag":
        assert "v2" not in list(direct.tags(NAME))


def check_whole(world: World, *, deleted: bool = False) -> None:
    """Check that all content of the registry is complete, by reading it.

    Without a referrers API, a manifest is deleted in two steps. If it was `deleted`, its entry may still exist.
    """
    for tag in world.direct.tags(NAME):
        world.direct.get_tag(NAME, tag).read()
    for referrer in world.direct.referrers(NAME, world.subject.digest):
        if not (deleted and referrer.digest == world.referrer.digest):
            world.direct.get_manifest(NAME, referrer.digest).read()


class Numbered:
    """Predicate for ``where`` that selects one request by its number, counted from 0 since `begin`."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._numbers: Iterator[int] | None = None

    def begin(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, request: Request) -> bool:
        return self._numbers is not None and next(self._numbers) == self._number
