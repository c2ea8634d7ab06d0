"""Two registries that require tokens and record requests, and images to copy from one to the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from ociwire import Client, Descriptor, Digest, Request, Response, Transport, default_transport
from ociwire.auth import Credential, StaticCredentials
from ociwire.testing import AuthGuard, MemoryRegistry
from tests._support.fault_world import MANIFEST, MOST_REQUESTS, ResponseTracker, blob

INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME = "team/app"


class Exchange(NamedTuple):
    """A request and the status of its response."""

    method: str
    url: str
    status: int

    @property
    def is_token(self) -> bool:
        return "/token" in self.url


class Recorder:
    """Layer that records each request and the status of its response."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.exchanges: list[Exchange] = []

    def round_trip(self, request: Request, /) -> Response:
        response = self._inner.round_trip(request)
        with self._lock:
            self.exchanges.append(Exchange(request.method, request.url, response.status))
        assert len(self.exchanges) < 2 * MOST_REQUESTS, "the requests do not end"
        return response

    def close(self) -> None:
        self._inner.close()

    def tokens(self) -> int:
        return sum(request.is_token for request in self.exchanges)

    def count(self, method: str = "", part: str = "", status: int = 0) -> int:
        """Return the number of matching requests, without requests for tokens. Empty arguments match all."""
        return sum(
            method in ("", request.method)
            and part in request.url
            and status in (0, request.status)
            and not request.is_token
            for request in self.exchanges
        )


class Side:
    """Source or target of a copy: a registry, a client that uses it directly, and a client with the default stack."""

    def __init__(
        self, host: str, registry: MemoryRegistry | None = None, *, guarded: bool = True, **options: Any
    ) -> None:
        self.host = host
        self.registry = MemoryRegistry(**options) if registry is None else registry
        self.direct = Client(host, self.registry)
        guard = AuthGuard(self.registry, users={"me": "secret"}) if guarded else self.registry
        self.recorder = Recorder(guard)
        self.watch = ResponseTracker(self.recorder)
        self.client = self.through(self.watch)

    def through(self, base: Transport) -> Client:
        credentials = StaticCredentials(self.host, Credential(username="me", password="secret"))
        return Client(self.host, default_transport(base=base, credentials=credentials))

    def add(self, content: bytes, name: str = NAME) -> Descriptor:
        return self.direct.push_blob(name, Descriptor.of(content, LAYER), content)

    def image(self, *numbers: int, name: str = NAME, tags: Sequence[str] = (), **fields: Any) -> Descriptor:
        """Push an image whose layers are the numbered blobs."""
        config = json.dumps({"layers": numbers}).encode()
        self.add(config, name)
        content = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Descriptor.of(config, CONFIG).to_dict(),
            "layers": [self.add(blob(number), name).to_dict() for number in numbers],
            **fields,
        }
        return self.push(content, MANIFEST, name, tags)

    def index(self, *entries: Descriptor, name: str = NAME, tags: Sequence[str] = (), **fields: Any) -> Descriptor:
        content = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [descriptor.to_dict() for descriptor in entries],
            **fields,
        }
        return self.push(content, INDEX, name, tags)

    def push(self, content: dict[str, Any], media_type: str, name: str = NAME, tags: Sequence[str] = ()) -> Descriptor:
        return self.direct.push_manifest(name, json.dumps(content).encode(), media_type, tags=tags)


def check_complete(client: Client, name: str, digest: str) -> set[Digest]:
    """Check that a manifest and all content that it references exist and are correct. Return all digests."""
    with client.get_manifest(name, digest) as reader:
        manifest = json.loads(reader.read())
    digests = {Digest(digest)}
    for descriptor in [*manifest.get("layers", ()), *([manifest["config"]] if "config" in manifest else [])]:
        if not descriptor.get("urls"):
            client.get_blob(name, descriptor["digest"]).verify()
            digests.add(Digest(descriptor["digest"]))
    for descriptor in manifest.get("manifests", ()):
        digests |= check_complete(client, name, descriptor["digest"])
    return digests
