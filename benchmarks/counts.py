"""Number of requests to push and pull an image of six layers with a registry that requires tokens."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure
from ociwire import Client, Descriptor, Request, Response, Transport, default_transport
from ociwire.auth import Credential, StaticCredentials
from ociwire.media_types import OCI_MANIFEST
from ociwire.testing import AuthGuard, MemoryRegistry, serve
from ociwire.transfer import copy

_NAME, _TAG = "team/app", "v1"


class _Counting:
    """Layer that counts requests to the registry and token requests."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.requests = self.tokens = 0

    def round_trip(self, request: Request, /) -> Response:
        with self._lock:
            if "/token" in request.url:
                self.tokens += 1
            else:
                self.requests += 1
        return self._inner.round_trip(request)

    def close(self) -> None:
        self._inner.close()


def figures(folder: Path) -> Iterator[Figure]:
    """Yield the request counts of a push to and a pull from a registry with empty caches, by ociwire and by skopeo."""
    for what, most in (("push", 17), ("pull", 9)):
        with _two_registries(guarded=1 if what == "push" else 0) as (hosts, counting):
            _copy(*hosts)
        yield _figure(f"`transfer.copy`, a cold {what} of six layers", counting, f"at most {most} + 1 token", most)
    for what in ("push", "pull"):
        with _two_registries(guarded=1 if what == "push" else 0) as (hosts, counting):
            _skopeo(hosts, folder)
        yield _figure(f"`skopeo copy`, the same {what}", counting, "", None)


def _figure(what: str, counting: _Counting, bound: str, most: int | None) -> Figure:
    # A second token request counts as exceeding the bound.
    judged = None if most is None else counting.requests + most * (counting.tokens > 1)
    return Figure(what, f"{counting.requests} + {counting.tokens} token", bound=bound, judged=judged)


@contextmanager
def _two_registries(guarded: int) -> Iterator[tuple[tuple[str, str], _Counting]]:
    """Serve a registry with the image and an empty one. The guarded one requires tokens. Yields hosts and counts."""
    registries: list[Transport] = [_with_image(), MemoryRegistry()]
    counting = _Counting(AuthGuard(registries[guarded], users={"me": "secret"}))
    registries[guarded] = counting
    with serve(registries[0]) as source, serve(registries[1]) as target:
        yield (source.host, target.host), counting


def _with_image() -> MemoryRegistry:
    registry = MemoryRegistry()
    client = Client("registry.example", registry)
    archives = [os.urandom(1000) for _ in range(6)]
    ids = [Descriptor.of(archive).digest for archive in archives]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}

    def push(content: bytes, media_type: str) -> dict[str, object]:
        return client.push_blob(_NAME, Descriptor.of(content, media_type), content).to_dict()

    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": push(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [push(gzip.compress(archive), "application/vnd.oci.image.layer.v1.tar+gzip") for archive in archives],
    }
    client.push_manifest(_NAME, json.dumps(manifest).encode(), OCI_MANIFEST, tags=[_TAG])
    return registry


def _copy(source: str, target: str) -> None:
    def client(host: str) -> Client:
        credentials = StaticCredentials(host, Credential(username="me", password="secret"))
        return Client(host, default_transport(credentials=credentials), insecure=True)

    with client(source) as source_client, client(target) as target_client:
        copy(source_client, f"{source}/{_NAME}:{_TAG}", target_client, f"{target}/{_NAME}:{_TAG}")
        source_client.transport.close()
        target_client.transport.close()


def _skopeo(hosts: tuple[str, str], folder: Path) -> None:
    login = folder / "auth.json"
    auth = b64encode(b"me:secret").decode()
    login.write_text(json.dumps({"auths": {host: {"auth": auth} for host in hosts}}))
    source, target = (f"docker://{host}/{_NAME}:{_TAG}" for host in hosts)
    flags = ["--src-tls-verify=false", "--dest-tls-verify=false", "--authfile", str(login), "--quiet"]
    subprocess.run(["skopeo", "--insecure-policy", "copy", *flags, source, target], check=True)
