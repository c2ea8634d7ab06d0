"""`ociwire.transfer._repository`: the one door into a client, and what it says of registries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ociwire import Client, Descriptor, Digest, Response
from ociwire.errors import ConnectError, ProtocolError, RegistryError
from ociwire.testing import MemoryRegistry, ScriptedTransport
from ociwire.transfer._repository import Repository, is_transient, origin_of

NAME = "team/app"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_what_may_pass(status: int) -> None:
    assert is_transient(RegistryError(status=status))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 416, 501])
def test_what_does_not(status: int) -> None:
    assert not is_transient(RegistryError(status=status))
    assert not is_transient(ConnectError("of the network, which is no answer"))


def test_a_blob_is_mounted_from_the_repository_itself() -> None:
    registry = MemoryRegistry()
    client = Client("registry.example", registry)
    blob = client.push_blob(NAME, Descriptor.of(b"content"), b"content")
    repository = Repository(client, NAME, "copy")
    assert repository.mount(blob.digest, NAME).taken
    assert repository.resolve_blob(blob.digest) == blob
    assert registry.open_uploads == 0
    assert origin_of(client) == repository.origin


LOOKUPS: dict[str, Callable[[Repository], object]] = {
    "has_blob": lambda repository: repository.has_blob(Digest.of(b"content")) or None,
    "find_blob": lambda repository: repository.find_blob(Digest.of(b"content")),
    "resolve_manifest": lambda repository: repository.resolve_manifest(Digest.of(b"content")),
    "resolve_manifest, by tag": lambda repository: repository.resolve_manifest("v1"),
}
lookups = pytest.mark.parametrize("look", LOOKUPS.values(), ids=LOOKUPS)


@lookups
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 410, 500, 501])
def test_lookup_before_an_upload_with_a_refusal_is_none(look: Callable[[Repository], object], status: int) -> None:
    with ScriptedTransport([Response(status)]) as script:
        assert look(Repository(Client("registry.example", script), NAME, "copy")) is None
    assert [request.method for request in script.requests] == ["HEAD"]


@lookups
@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 507, 524])
def test_lookup_before_an_upload_with_a_transient_error_raises(
    look: Callable[[Repository], object], status: int
) -> None:
    with ScriptedTransport([Response(status)]) as script, pytest.raises(RegistryError):
        look(Repository(Client("registry.example", script), NAME, "copy"))


@lookups
def test_lookup_before_an_upload_with_a_login_page_is_none(look: Callable[[Repository], object]) -> None:
    page = Response(200, {"Content-Type": "text/html", "Content-Length": "100"}, b"<html>" + b" " * 94)
    answers = [page.replace()] if look in (LOOKUPS["has_blob"], LOOKUPS["resolve_manifest"]) else [page.replace()] * 2
    with ScriptedTransport(answers) as script:
        assert look(Repository(Client("registry.example", script), NAME, "copy")) is None


def test_find_blob_with_a_confirmed_size_of_0_is_none_unless_it_is_empty() -> None:
    """The registry has lost the content, which must be uploaded again."""
    answers = [Response(200, {"Content-Length": "0"}), Response(416), Response(200, {"Content-Length": "0"})]
    with ScriptedTransport(answers) as script:
        repository = Repository(Client("registry.example", script), NAME, "copy")
        assert repository.find_blob(Digest.of(b"content")) is None
        assert repository.find_blob(Digest.of(b"")) == Descriptor.of(b"")


def test_what_is_not_there_is_no_error() -> None:
    repository = Repository(Client("registry.example", MemoryRegistry()), NAME, "copy")
    digest = Digest.of(b"content")
    assert repository.resolve_blob(digest) is None
    assert repository.resolve_manifest("v1") is repository.resolve_manifest(digest) is None
    assert not repository.has_blob(digest)


@pytest.mark.parametrize("minimum", [2**31, 10**17])
def test_chunks_too_large_to_hold_matter_only_to_who_sends_chunks(minimum: int) -> None:
    answer = Response(202, {"Location": "/v2/uploads/1", "OCI-Chunk-Min-Length": str(minimum)})
    repository = Repository(Client("registry.example", ScriptedTransport([answer])), NAME, "copy")
    opened = repository.open_upload("sha256")
    with pytest.raises(ProtocolError, match="too many to hold"):
        repository.writer(opened, None)


def test_the_largest_chunk_only_shrinks() -> None:
    client = Client("registry.example", MemoryRegistry())
    repository = Repository(client, NAME, "copy")
    for size in (9, 7, 8):
        repository.takes_no_more_than(size)
    assert Repository(client, "another", "upload").largest_chunk == 7
