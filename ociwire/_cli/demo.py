"""Demonstrates all layers with a registry on loopback. The command runs it if there are no arguments.

The registry requires tokens, redirects blob downloads to another server, and answers 503 once. It listens on a socket,
so that the demonstration includes connections and 100 (Continue).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .._client.client import Client
from .._http.messages import Request, Response
from .._oci.descriptor import Descriptor
from ..auth import Credential, StaticCredentials
from ..media_types import OCI_MANIFEST
from ..testing import AuthGuard, FaultTransport, MemoryRegistry, serve
from ..transport import FunctionTransport

__all__ = ["LAYER", "STEPS", "get_credentials", "serve_demo"]

_NAME = "demonstration"
_USER, _PASSWORD = "demonstration", "s3cret"
_CHUNK = bytes(range(256)) * 4096
_EMPTY = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")

LAYER = Descriptor.of(_CHUNK * 3)
"""Descriptor of the blob that is pushed and pulled."""

_MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.demonstration",
        "config": _EMPTY.to_dict(),
        "layers": [LAYER.to_dict()],
    }
).encode()


def _chunks() -> Iterator[bytes]:
    yield from (_CHUNK, _CHUNK, _CHUNK)


def _pull(client: Client) -> None:
    with client.get_blob(_NAME, LAYER.digest) as reader:
        reader.verify()


STEPS: tuple[tuple[str, Callable[[Client], object]], ...] = (
    ("push a blob from a generator", lambda client: client.push_blob(_NAME, LAYER, _chunks())),
    ("push the config", lambda client: client.push_blob(_NAME, _EMPTY, b"{}")),
    (
        "push the manifest",
        lambda client: client.push_manifest(_NAME, _MANIFEST, OCI_MANIFEST, tags=["latest"]),
    ),
    ("resolve the tag", lambda client: client.resolve_tag(_NAME, "latest")),
    ("pull and verify the blob", _pull),
)
"""Title and function of each step, in order."""


def get_credentials(host: str) -> StaticCredentials:
    """Return the credentials for the registry."""
    return StaticCredentials(host, Credential(username=_USER, password=_PASSWORD, source="the demonstration"))


@contextmanager
def serve_demo() -> Iterator[str]:
    """Serve the registry on loopback while the block runs. Yields ``HOST:PORT``."""
    registry = MemoryRegistry()
    with serve(registry) as blobs:  # the redirect target; like a CDN, it requires no token

        def redirect_blobs(request: Request) -> Response:
            path = request.url.partition("/v2/")[2]
            if request.method == "GET" and "/blobs/sha256:" in path:
                return Response(307, {"Location": f"{blobs}/v2/{path}"})
            return registry.round_trip(request)

        guard = AuthGuard(FunctionTransport(redirect_blobs), users={_USER: _PASSWORD}, realm="/token")
        overloaded = FaultTransport(
            guard, rate=1, faults=["503"], limit=1, where=lambda request: request.method == "HEAD"
        )
        with serve(overloaded) as url:
            yield url.host
