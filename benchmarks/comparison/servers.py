"""Servers of the comparison: registries on loopback that have a fault or use an optional feature."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from benchmarks.comparison.clients import PASSWORD, REPOSITORY, USER
from ociwire import Client, Descriptor, FunctionTransport, NotFound, Request, Response, Transport
from ociwire.testing import AuthGuard, MemoryRegistry, serve

CONTENT = bytes(range(256)) * 1024
DESCRIPTOR = Descriptor.of(CONTENT)


@dataclass(frozen=True)
class Lab:
    """Working folder, and certificates for 127.0.0.1 and localhost."""

    folder: Path
    ca: Path
    tls: ssl.SSLContext

    @classmethod
    def furnish(cls, folder: Path) -> Lab:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
        return cls(folder, folder / "ca.pem", tls)

    def file(self) -> Path:
        """Return the path of a file with the content."""
        path = self.folder / "content.bin"
        path.write_bytes(CONTENT)
        return path

    def empty(self, name: str) -> Path:
        """Create and return an empty folder."""
        path = self.folder / name
        path.mkdir()
        return path


@dataclass
class Witness:
    """Layer that records the requests, their times, and the lengths of their bodies."""

    inner: Transport
    requests: list[Request] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    received: int = 0

    def round_trip(self, request: Request, /) -> Response:
        self.times.append(time.monotonic())
        self.requests.append(request)
        if request.body is not None:
            request = request.replace(body=request.body.map(self._count))
        return self.inner.round_trip(request)

    def close(self) -> None:
        self.inner.close()

    def saw_secrets(self) -> bool:
        return any("Authorization" in request.headers for request in self.requests)

    def _count(self, chunk: bytes) -> bytes:
        self.received += len(chunk)
        return chunk


def answering(*answers: Callable[[], Response]) -> Transport:
    """Answer GETs of a blob with responses in order. The last is repeated. Complete responses support ranges."""
    left = list(answers)

    def answer(request: Request) -> Response:
        if request.method != "GET":
            return Response(200, {"Content-Length": str(len(CONTENT))})
        response = left[0]() if len(left) == 1 else left.pop(0)()
        start = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        if int(start) and response.status == 200 and response.in_memory:
            said = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
            return Response(206, said, CONTENT[int(start) :])
        return response

    return FunctionTransport(answer)


def with_content(registry: MemoryRegistry) -> MemoryRegistry:
    """Return a registry that has the blob, and an image with it under the tag ``v1``."""
    client = Client("registry.example", registry)
    blob = client.push_blob(REPOSITORY, DESCRIPTOR, CONTENT).to_dict()
    media_type = "application/vnd.oci.image.manifest.v1+json"
    image = {"schemaVersion": 2, "mediaType": media_type, "config": blob, "layers": [blob]}
    client.push_manifest(REPOSITORY, json.dumps(image).encode(), media_type, tags=["v1"])
    return registry


def guarded(inner: Transport) -> AuthGuard:
    return AuthGuard(inner, users={USER: PASSWORD})


def generous(guard: AuthGuard) -> Transport:
    """Return a layer whose challenges always name the scope for pull and push, as some registries do."""

    def answer(request: Request) -> Response:
        response = guard.round_trip(request)
        challenge = response.headers.get("WWW-Authenticate")
        if challenge is None:
            return response
        return response.replace(headers={"WWW-Authenticate": challenge.replace(':pull"', ':pull,push"')})

    return FunctionTransport(answer)


def has_content(registry: MemoryRegistry) -> bool:
    """Return whether the registry has the complete blob."""
    try:
        with Client("registry.example", registry).get_blob(REPOSITORY, DESCRIPTOR.digest) as blob:
            return blob.read() == CONTENT
    except NotFound:
        return False


@contextmanager
def elsewhere(transport: Transport, lab: Lab) -> Iterator[str]:
    """Serve a transport at another origin, ``https://localhost:PORT``."""
    with serve(transport, tls=lab.tls) as url:
        yield url.replace("127.0.0.1", "localhost")
