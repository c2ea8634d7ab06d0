"""Lookups and mounts before an upload: refusals, and responses that raise errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ociwire import Client, Descriptor, Digest, Response
from ociwire._client.blob_writer import BlobWriter
from ociwire._client.blobs import find_blob, resolve_blob
from ociwire._client.error_mapping import is_transient
from ociwire._client.manifests import find_manifest
from ociwire._client.repository import Repository, repository_of
from ociwire._client.uploads import blob_exists, mount_blob, open_upload
from ociwire.errors import ConnectError, NotFound, ProtocolError, RegistryError
from ociwire.testing import MemoryRegistry, ScriptedTransport

NAME = "team/app"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_is_transient_temporary_status_is_true(status: int) -> None:
    assert is_transient(RegistryError(status=status))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 416, 501])
def test_is_transient_other_errors_is_false(status: int) -> None:
    assert not is_transient(RegistryError(status=status))
    assert not is_transient(ConnectError("no response"))


def test_mount_blob_from_its_own_repository_is_mounted() -> None:
    registry = MemoryRegistry()
    client = Client("registry.example", registry)
    blob = client.push_blob(NAME, Descriptor.of(b"content"), b"content")
    repository = repository_of(client, NAME, "copy")
    assert mount_blob(repository, blob.digest, NAME).is_mounted
    assert resolve_blob(repository, blob.digest, repository.push_scope) == blob
    assert registry.open_uploads == 0


LOOKUPS: dict[str, Callable[[Repository], object]] = {
    "blob_exists": lambda repository: blob_exists(repository, Digest.of(b"content")) or None,
    "find_blob": lambda repository: find_blob(repository, Digest.of(b"content")),
    "find_manifest": lambda repository: find_manifest(repository, Digest.of(b"content")),
    "find_manifest, by tag": lambda repository: find_manifest(repository, "v1"),
}
with_each_lookup = pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)


@with_each_lookup
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 410, 500, 501])
def test_lookup_before_an_upload_with_a_refusal_is_none(lookup: Callable[[Repository], object], status: int) -> None:
    with ScriptedTransport([Response(status)]) as script:
        assert lookup(repository_of(Client("registry.example", script), NAME, "copy")) is None
    assert [request.method for request in script.requests] == ["HEAD"]


@with_each_lookup
@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 507, 524])
def test_lookup_before_an_upload_with_a_transient_error_raises(
    lookup: Callable[[Repository], object], status: int
) -> None:
    with ScriptedTransport([Response(status)]) as script, pytest.raises(RegistryError):
        lookup(repository_of(Client("registry.example", script), NAME, "copy"))


@with_each_lookup
def test_lookup_before_an_upload_with_a_login_page_is_none(lookup: Callable[[Repository], object]) -> None:
    page = Response(200, {"Content-Type": "text/html", "Content-Length": "100"}, b"<html>" + b" " * 94)
    answers = [page.replace()] if lookup in (LOOKUPS["blob_exists"], LOOKUPS["find_manifest"]) else [page.replace()] * 2
    with ScriptedTransport(answers) as script:
        assert lookup(repository_of(Client("registry.example", script), NAME, "copy")) is None


def test_find_blob_size_0_confirmed_is_none_unless_blob_is_empty() -> None:
    """A registry that reports a size of 0 for other content has lost it. The content must be uploaded again."""
    answers = [Response(200, {"Content-Length": "0"}), Response(416), Response(200, {"Content-Length": "0"})]
    with ScriptedTransport(answers) as script:
        repository = repository_of(Client("registry.example", script), NAME, "copy")
        assert find_blob(repository, Digest.of(b"content")) is None
        assert find_blob(repository, Digest.of(b"")) == Descriptor.of(b"")


def test_lookup_before_an_upload_missing_is_none() -> None:
    repository = repository_of(Client("registry.example", MemoryRegistry()), NAME, "copy")
    digest = Digest.of(b"content")
    with pytest.raises(NotFound):
        resolve_blob(repository, digest, repository.push_scope)
    assert find_blob(repository, digest) is None
    assert find_manifest(repository, "v1") is find_manifest(repository, digest) is None
    assert not blob_exists(repository, digest)


@pytest.mark.parametrize("minimum", [2**31, 10**17])
def test_open_upload_min_chunk_length_too_large_raises_only_for_chunks(minimum: int) -> None:
    answer = Response(202, {"Location": "/v2/uploads/1", "OCI-Chunk-Min-Length": str(minimum)})
    repository = repository_of(Client("registry.example", ScriptedTransport([answer])), NAME, "copy")
    session = open_upload(repository, "sha256")
    with pytest.raises(ProtocolError, match=r"unsupported OCI-Chunk-Min-Length .*: expected at most 1073741824 bytes"):
        BlobWriter(repository, session.location, min_chunk_length=session.min_chunk_length)


def test_record_max_chunk_only_shrinks() -> None:
    client = Client("registry.example", MemoryRegistry())
    state = repository_of(client, NAME, "copy").sender.state
    for size in (9, 7, 8):
        state.record_max_chunk(size)
    assert repository_of(client, "another", "upload").sender.state.max_chunk_size == 7
