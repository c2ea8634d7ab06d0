"""Blobs against docker-registry: pushes are read back, and wrong content is not stored."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest
from ociwire.errors import BlobUnknown, DigestInvalid, SizeMismatch, UsageError
from ociwire.transport._urllib3.connection import WireConnection
from tests._support.doubles import PATIENCE, Call, UnseekableFile

MEBIBYTE = 1024 * 1024
LARGE = 50


@pytest.fixture
def client(registry_host: str) -> Iterator[Client]:
    with Client(registry_host, insecure=True) as client:
        yield client


def large_chunks() -> Iterator[bytes]:
    """Yield 50 different chunks of 1 MiB."""
    noise = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(MEBIBYTE // 32))
    for number in range(LARGE):
        yield noise[number:] + noise[:number]


def single_use(content: bytes) -> Iterator[bytes]:
    """Yield the content in three chunks."""
    third = len(content) // 3 + 1
    for start in range(0, len(content), third):
        yield content[start : start + third]


def test_push_blob_large_single_use_body_is_read_back(client: Client) -> None:
    hasher = hashlib.sha256()
    for chunk in large_chunks():
        hasher.update(chunk)
    large = Descriptor("application/octet-stream", Digest(f"sha256:{hasher.hexdigest()}"), LARGE * MEBIBYTE)
    assert client.push_blob("real/large", large, large_chunks()) is large
    assert client.resolve_blob("real/large", large.digest) == large

    hasher = hashlib.sha256()
    with client.get_blob("real/large", large.digest) as reader:
        assert reader.descriptor.size == large.size
        while piece := reader.read(MEBIBYTE):
            hasher.update(piece)
        assert reader.verified
    assert hasher.hexdigest() == large.digest.encoded


CONTENTS: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda content: content,
    "file": io.BytesIO,
    "generator": single_use,
    "pipe": lambda content: io.BufferedReader(UnseekableFile(content)),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
def test_push_blob_any_kind_of_content_is_read_back(client: Client, kind: str, size: int) -> None:
    content = (f"{kind} " * (size // len(kind) + 1)).encode()[:size]
    blob = Descriptor.of(content)
    repository = f"real/{kind}"
    assert client.push_blob(repository, blob, CONTENTS[kind](content)) == blob
    assert client.resolve_blob(repository, blob.digest) == blob
    with client.get_blob(repository, blob.digest) as reader:
        assert reader.read() == content
        assert reader.verified


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_push_blob_other_algorithm_is_read_back(client: Client, algorithm: str) -> None:
    content = f"hashed with {algorithm}".encode()
    blob = Descriptor.of(content, algorithm=algorithm)
    assert client.push_blob("real/algorithms", blob, single_use(content)) == blob
    assert client.resolve_blob("real/algorithms", blob.digest) == blob
    assert client.get_blob("real/algorithms", blob.digest).read() == content


def test_push_blob_repeated_succeeds(client: Client) -> None:
    content = b"twice"
    for _ in range(2):
        client.push_blob("real/twice", Descriptor.of(content), single_use(content))
    assert client.get_blob("real/twice", Descriptor.of(content).digest).read() == content


@pytest.mark.parametrize("call", [Client.get_blob, Client.resolve_blob])
def test_blob_methods_missing_blob_raises_blob_unknown(client: Client, call: Callable[[Client, str, str], Any]) -> None:
    with pytest.raises(BlobUnknown) as caught:
        call(client, "real/nothing", Digest.of(b"never pushed"))
    assert caught.value.status == 404
    assert str(caught.value).startswith("404 Not Found")


@pytest.mark.parametrize("make", [bytes, single_use], ids=["bytes", "generator"])
def test_push_blob_wrong_digest_raises_digest_invalid(client: Client, make: Callable[[bytes], Any]) -> None:
    wrong = Descriptor.of(b"this")
    with pytest.raises(DigestInvalid) as caught:
        client.push_blob("real/wrong", wrong, make(b"that"))
    assert (caught.value.status, caught.value.code) == (400, "DIGEST_INVALID")
    for digest in (wrong.digest, Digest.of(b"that")):
        with pytest.raises(BlobUnknown):
            client.resolve_blob("real/wrong", digest)


@pytest.mark.parametrize("make", [bytes, io.BytesIO, single_use], ids=["bytes", "file", "generator"])
@pytest.mark.parametrize("size", [0, 1, 9, 11, 1_000_000])
def test_push_blob_wrong_size_raises_and_stores_nothing(
    client: Client, size: int, make: Callable[[bytes], Any]
) -> None:
    content = b"ten bytes."
    wrong = Descriptor.of(content[:size]).replace(size=size)  # the digest of the first `size` bytes
    with pytest.raises(SizeMismatch) as caught:
        client.push_blob("real/wrong-size", wrong, make(content))
    assert caught.value.expected == size
    with pytest.raises(BlobUnknown):
        client.resolve_blob("real/wrong-size", wrong.digest)
    client.push_blob("real/right-size", Descriptor.of(content), make(content))  # the connection is still usable


def test_push_blob_exception_of_content_stores_nothing(client: Client) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half of "
        raise error

    error = OSError("of the content")
    blob = Descriptor.of(b"half of it")
    with pytest.raises(OSError) as caught:
        client.push_blob("real/broken", blob, broken())
    assert caught.value is error
    with pytest.raises(BlobUnknown):
        client.resolve_blob("real/broken", blob.digest)


def test_push_blob_invalid_repository_raises_usage_error(client: Client) -> None:
    with pytest.raises(UsageError):
        client.push_blob("Real/Upper", Descriptor.of(b""), b"")


def test_client_many_blobs_use_one_connection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[Any] = []

    def record_connection(*args: Any, **options: Any) -> Any:
        connections.append(args)
        return create(*args, **options)

    create = WireConnection._new_conn
    monkeypatch.setattr(WireConnection, "_new_conn", record_connection)
    for number in range(25):
        content = f"blob {number}".encode()
        blob = Descriptor.of(content)
        client.push_blob("real/many", blob, single_use(content))
        assert client.get_blob("real/many", blob.digest).read() == content
        with pytest.raises(BlobUnknown):
            client.resolve_blob("real/many", Digest.of(b"not " + content))
    assert len(connections) == 1


def test_client_shared_by_threads_keeps_blobs_apart(client: Client) -> None:
    start = threading.Barrier(8)

    def work(thread: int) -> None:
        start.wait(PATIENCE)
        for number in range(10):
            content = f"thread {thread} blob {number} ".encode() * 1000
            blob = Descriptor.of(content)
            client.push_blob(f"real/thread{thread}", blob, single_use(content))
            assert client.get_blob(f"real/thread{thread}", blob.digest).read() == content

    calls = [Call(partial(work, number)) for number in range(8)]
    assert [call.join().error for call in calls] == [None] * 8
