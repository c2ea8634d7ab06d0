"""What users of other clients write first works, or fails with an error that names the right spelling."""

from __future__ import annotations

import io
import json
import pathlib
import re
from pathlib import Path
from typing import Any

import pytest

from ociwire import Client, Descriptor, Index, Manifest, Request, Response, errors
from ociwire.media_types import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from ociwire.testing import MemoryRegistry, ScriptedTransport

HOST, NAME = "registry.example", "a"
CONFIG, LAYER = Descriptor.of(b"{}", OCI_CONFIG), Descriptor.of(b"layer", OCI_LAYER)
FIELDS = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG.to_dict(), "layers": [LAYER.to_dict()]}


@pytest.fixture
def client() -> Client:
    client = Client(HOST, MemoryRegistry())
    client.push_blob(NAME, CONFIG, b"{}")
    client.push_blob(NAME, LAYER, b"layer")
    return client


# push_blob


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO])
def test_push_blob_without_descriptor_computes_it(client: Client, make: Any) -> None:
    pushed = client.push_blob(NAME, make(b"hello"))
    assert pushed == Descriptor.of(b"hello")
    assert client.get_blob(NAME, pushed).read() == b"hello"
    assert client.push_blob(NAME, content=make(b"hello")) == pushed


def test_push_blob_of_a_path_sends_the_file(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    assert client.push_blob(NAME, tmp_path / "file") == Descriptor.of(b"hello")
    with_type = Descriptor.of(tmp_path / "file", "text/plain")
    assert client.push_blob(NAME, with_type, tmp_path / "file").media_type == "text/plain"


def test_push_blob_of_a_file_starts_at_its_position(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    with (tmp_path / "file").open("rb") as file:
        file.seek(2)
        assert client.push_blob(NAME, file) == Descriptor.of(b"llo")
        assert not file.closed


@pytest.mark.parametrize("arguments", [("hello",), (Descriptor.of(b"hello"), "hello")])
def test_push_blob_of_a_str_names_both_spellings(client: Client, arguments: Any) -> None:
    with pytest.raises(errors.UsageError) as caught:
        client.push_blob(NAME, *arguments)
    assert "text.encode()" in str(caught.value)
    assert "pathlib.Path(name)" in str(caught.value)


@pytest.mark.parametrize("content", [iter([b"hello"]), [b"hello"], {"a": 1}, None, 7])
def test_push_blob_of_other_content_needs_a_descriptor(client: Client, content: Any) -> None:
    with pytest.raises(errors.UsageError, match="descriptor"):
        client.push_blob(NAME, content)


def test_push_blob_of_a_missing_path_raises_os_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.push_blob(NAME, tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        client.push_blob(NAME, tmp_path)
    with pytest.raises(errors.UsageError, match="not a regular file"):
        client.push_blob(NAME, pathlib.Path("/dev/null"))


# Descriptor.of


def test_descriptor_of_a_file_leaves_its_position(tmp_path: Path) -> None:
    file = io.BytesIO(b"hello")
    file.seek(1)
    assert Descriptor.of(file, algorithm="sha512") == Descriptor.of(b"ello", algorithm="sha512")
    assert file.tell() == 1
    assert Descriptor.of(memoryview(b"hello")[::2]) == Descriptor.of(b"hlo")


@pytest.mark.parametrize("content", ["hello", [b"hello"], None, io.StringIO("hello")])
def test_descriptor_of_other_content_raises_usage_error(content: Any) -> None:
    with pytest.raises(errors.UsageError, match="content must be"):
        Descriptor.of(content)


def test_descriptor_of_an_unseekable_file_raises_usage_error() -> None:
    class Pipe(io.RawIOBase):
        def readable(self) -> bool:
            return True

    with pytest.raises(errors.UsageError, match="not seekable"):
        Descriptor.of(Pipe())  # type: ignore[arg-type]


# push_manifest


@pytest.mark.parametrize(
    "content",
    [
        FIELDS,
        json.dumps(FIELDS).encode(),
        Manifest(CONFIG, [LAYER]),
        {k: v for k, v in FIELDS.items() if k != "mediaType"},
    ],
)
def test_push_manifest_without_media_type_takes_that_of_the_content(client: Client, content: Any) -> None:
    pushed = client.push_manifest(NAME, content, tags="latest")
    assert pushed.media_type == OCI_MANIFEST
    assert client.fetch_manifest(NAME, "latest").layers == (LAYER,)  # type: ignore[union-attr]


def test_push_manifest_of_a_mapping_is_written_without_spaces(client: Client) -> None:
    pushed = client.push_manifest(NAME, FIELDS)
    assert client.get_manifest(NAME, pushed.digest).read() == json.dumps(FIELDS, separators=(",", ":")).encode()


@pytest.mark.parametrize("content", [b"text", b"{}", {}, {"layers": []}])
def test_push_manifest_of_unknown_type_raises_usage_error(client: Client, content: Any) -> None:
    with pytest.raises(errors.UsageError, match="the media type of the manifest is unknown"):
        client.push_manifest(NAME, content)


def test_push_manifest_of_another_media_type_raises_usage_error(client: Client) -> None:
    with pytest.raises(errors.UsageError, match=re.escape(f"expected '{OCI_MANIFEST}', the mediaType of the manifest")):
        client.push_manifest(NAME, FIELDS, DOCKER_MANIFEST)


@pytest.mark.parametrize("tags", [[], ["one"], ["one", "two"]])
@pytest.mark.parametrize("supports_tag_parameter", [True, False])
def test_push_manifest_digest_of_another_algorithm_is_stored_under_it(
    client: Client, tags: list[str], supports_tag_parameter: bool
) -> None:
    content = json.dumps(FIELDS).encode()
    digest = Descriptor.of(content, algorithm="sha512").digest
    registry, requests = client.transport, []

    class Registry:
        def round_trip(self, request: Request, /) -> Response:
            if not supports_tag_parameter:
                request = request.replace(url=request.url.partition("?")[0])
            requests.append(f"{request.method} {request.url.rpartition('/')[2]}")
            return registry.round_trip(request)

        def close(self) -> None:
            pass

    other = Client(HOST, Registry())
    assert other.push_manifest(NAME, content, digest=digest, tags=tags).digest == digest
    assert other.fetch_manifest(NAME, digest).to_bytes() == content
    for tag in tags:
        assert other.resolve_manifest(NAME, tag).size == len(content)
    puts = [line for line in requests if line.startswith("PUT")]
    assert len(puts) == 1 + (0 if supports_tag_parameter else len(tags))


# References, digests and descriptors


def test_get_manifest_takes_a_tag_a_digest_or_a_descriptor(client: Client) -> None:
    pushed = client.push_manifest(NAME, Manifest(CONFIG, [LAYER]), tags=["latest"])
    for reference in ("latest", pushed.digest, str(pushed.digest), pushed):
        assert client.get_manifest(NAME, reference).descriptor == pushed
        assert client.resolve_manifest(NAME, reference) == pushed
        assert client.fetch_manifest(NAME, reference) == Manifest(CONFIG, [LAYER])
        assert client.has_manifest(NAME, reference)


def test_fetch_manifest_of_an_index_returns_an_index(client: Client) -> None:
    client.push_manifest(NAME, Index(), tags=["list"])
    assert client.fetch_manifest(NAME, "list") == Index()


@pytest.mark.parametrize("body", [b'{"manifests":[{"size":1}]}', b'{"mediaType":"a/b","manifests":[]}'])
def test_fetch_manifest_of_invalid_content_raises_content_error(body: bytes) -> None:
    client = Client(HOST, ScriptedTransport([Response(200, {"Content-Type": OCI_INDEX}, body)]))
    with pytest.raises(errors.ContentError):
        client.fetch_manifest(NAME, "latest")


WRONG_SIZE = LAYER.replace(size=4)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_blob(NAME, WRONG_SIZE),
        lambda client: client.get_blob_range(NAME, WRONG_SIZE, 1, 3),
        lambda client: client.resolve_blob(NAME, WRONG_SIZE),
        lambda client: client.has_blob(NAME, WRONG_SIZE),
        lambda client: client.mount_blob(NAME, "b", WRONG_SIZE),
    ],
)
def test_descriptor_of_another_size_raises_size_mismatch(client: Client, call: Any) -> None:
    with pytest.raises(errors.SizeMismatch, match="has 5 bytes: expected 4") as caught:
        call(client)
    assert (caught.value.expected, caught.value.actual) == (4, 5)


@pytest.mark.parametrize("method", ["get_manifest", "resolve_manifest", "fetch_manifest", "has_manifest", "tag"])
def test_descriptor_of_a_manifest_of_another_size_raises_size_mismatch(client: Client, method: str) -> None:
    pushed = client.push_manifest(NAME, FIELDS)
    arguments = ["new"] if method == "tag" else []
    with pytest.raises(errors.SizeMismatch):
        getattr(client, method)(NAME, pushed.replace(size=7), *arguments)
    assert not client.has_manifest(NAME, "new")


def test_descriptor_is_taken_wherever_a_digest_is(client: Client) -> None:
    assert client.get_blob(NAME, LAYER).read() == b"layer"
    assert client.get_blob_range(NAME, LAYER, 1, 3).read() == b"ay"
    assert client.resolve_blob(NAME, LAYER).size == 5
    assert client.mount_blob(NAME, "b", LAYER).size == 5
    pushed = client.push_manifest(NAME, FIELDS)
    assert list(client.referrers(NAME, pushed)) == []
    client.delete_manifest(NAME, pushed)
    client.delete_blob(NAME, LAYER)
    assert not client.has_blob(NAME, LAYER)
    assert not client.has_manifest(NAME, pushed)


@pytest.mark.parametrize("status", [401, 500])
def test_has_blob_refused_raises(status: int) -> None:
    client = Client(HOST, ScriptedTransport([Response(status), Response(status)]))
    with pytest.raises(errors.RegistryError):
        client.has_blob(NAME, LAYER)


# tag, ping


def test_tag_adds_and_moves_tags(client: Client) -> None:
    first = client.push_manifest(NAME, FIELDS, tags=["v1", "latest"])
    second = client.push_manifest(NAME, Index(), tags=["v2"])
    assert client.tag(NAME, "v2", "latest", "stable", "latest") == second
    assert client.tag(NAME, first.digest, "old") == client.tag(NAME, first, "older") == first
    assert sorted(client.tags(NAME)) == ["latest", "old", "older", "stable", "v1", "v2"]
    assert client.resolve_tag(NAME, "latest") == client.resolve_tag(NAME, "stable") == second


@pytest.mark.parametrize("tags", [(), ("a b",), (None,), ("ok", "")])
def test_tag_invalid_tags_raise_usage_error(client: Client, tags: Any) -> None:
    client.push_manifest(NAME, FIELDS, tags=["v1"])
    with pytest.raises(errors.UsageError):
        client.tag(NAME, "v1", *tags)
    assert list(client.tags(NAME)) == ["v1"]


def test_ping_returns_or_raises() -> None:
    Client(HOST, MemoryRegistry()).ping()
    with pytest.raises(errors.NotFound):
        Client(HOST, ScriptedTransport([Response(404)])).ping()


# Names of other clients


@pytest.mark.parametrize(
    ("name", "hint"),
    [("list_tags", r"use client\.tags\("), ("pull_blob", r"use client\.get_blob\("), ("catalog", "repositories")],
)
def test_client_names_of_other_clients_name_the_right_one(client: Client, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(client, name)
    assert not hasattr(client, "something_else")
