"""`ociwire.transfer.upload` to docker-registry."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ociwire import Client, Descriptor, Request, Response, Transport, UrllibTransport
from ociwire.errors import ReadError
from ociwire.transfer._upload import upload

NAME = "transfer/upload"
SIZE = 9 * 1024 * 1024 + 5


def pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 300_000):
        yield content[start : start + 300_000]


class FailingTransport:
    """Transport that fails in the middle of the first PATCH."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.has_failed = False
        self._sent = 0

    def round_trip(self, request: Request, /) -> Response:
        if request.method != "PATCH" or self.has_failed or request.body is None:
            return self._inner.round_trip(request)
        try:
            return self._inner.round_trip(request.replace(body=request.body.map(self._fail_halfway)))
        except ZeroDivisionError:
            self.has_failed = True
            raise ReadError("connection lost", request=request) from None

    def _fail_halfway(self, chunk: bytes) -> bytes:
        self._sent += len(chunk)
        if self._sent > SIZE // 2:
            raise ZeroDivisionError
        return chunk

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("known", [False, True], ids=["hashed", "digest known"])
@pytest.mark.parametrize("kind", ["path", "single-use", "path, chunks"])
def test_upload_to_docker_registry_stores_content(kind: str, known: bool, registry_host: str, tmp_path: Path) -> None:
    content = random.Random(f"{kind} {known}").randbytes(SIZE)
    path = tmp_path / "content"
    path.write_bytes(content)
    expected = Descriptor.of(content)
    with Client(registry_host, insecure=True) as client:
        for _ in range(2):
            descriptor = upload(
                client,
                NAME,
                pieces(content) if kind == "single-use" else path,
                digest=expected.digest if known else None,
                chunk_size=1024 * 1024 if "chunks" in kind else None,
            )
            assert descriptor == expected
        assert client.get_blob(NAME, expected.digest).read() == content
        upload(client, "transfer/mounted", path, digest=expected.digest, mount_from=NAME)
        assert client.get_blob("transfer/mounted", expected.digest).read() == content


def test_upload_to_docker_registry_connection_lost_resumes(registry_host: str, tmp_path: Path) -> None:
    content = random.Random("broken").randbytes(SIZE)
    path = tmp_path / "content"
    path.write_bytes(content)
    with contextlib.closing(FailingTransport(UrllibTransport())) as transport:
        client = Client(registry_host, transport, insecure=True)
        assert upload(client, NAME, path) == Descriptor.of(content)
        assert transport.has_failed
        assert client.get_blob(NAME, Descriptor.of(content).digest).read() == content
