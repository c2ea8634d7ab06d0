"""Manifests, tags, mounts and deletions: requests, results, errors, and closed responses."""

from __future__ import annotations

import gc
import io
import itertools
import json
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from ociwire import BlobReader, Client, Descriptor, Digest, FunctionTransport, Headers, Request, Response, Scope, errors
from ociwire.media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST
from ociwire.transport import LogTransport
from tests._support.doubles import FakeReader, RecordingTransport
from tests.client.support import (
    BASE,
    BLOB,
    BLOB_CREATED,
    HOST,
    NAME,
    ScriptedRegistry,
    blob_response,
    error_response,
    headers_from,
    upload_response,
)

MANIFESTS = f"{BASE}/v2/{NAME}/manifests"
CONTENT = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
MANIFEST = Descriptor.of(CONTENT, OCI_MANIFEST)
WITHOUT_MEDIA_TYPE = b'{"schemaVersion": 2}'
OTHER_DIGEST = Digest.of(b"another")
MAX_MANIFEST_SIZE = 4 * 1024 * 1024
UNKNOWN_ALGORITHM = "blake3:abcdef"


def manifest_response(content: bytes = CONTENT, media_type: str | None = OCI_MANIFEST, **fields: str) -> Response:
    """Return a 200 response with a manifest, which is also the response to its HEAD."""
    content_type = {} if media_type is None else {"Content-Type": media_type}
    return Response(200, {"Content-Length": str(len(content)), **content_type, **headers_from(fields)}, content)


def digest_header(digest: str | None) -> dict[str, str]:
    return {} if digest is None else {"Docker_Content_Digest": digest}


READS: dict[str, Callable[[Client], BlobReader]] = {
    "get_manifest": lambda client: client.get_manifest(NAME, MANIFEST.digest),
    "get_tag": lambda client: client.get_tag(NAME, "latest"),
}
RESOLVES: dict[str, Callable[[Client], Descriptor]] = {
    "resolve_manifest": lambda client: client.resolve_manifest(NAME, MANIFEST.digest),
    "resolve_tag": lambda client: client.resolve_tag(NAME, "latest"),
}
DELETES: dict[str, Callable[[Client], None]] = {
    "delete_blob": lambda client: client.delete_blob(NAME, BLOB.digest),
    "delete_manifest": lambda client: client.delete_manifest(NAME, MANIFEST.digest),
    "delete_tag": lambda client: client.delete_tag(NAME, "latest"),
}
each_read = pytest.mark.parametrize("read", READS.values(), ids=READS)
each_resolve = pytest.mark.parametrize("resolve", RESOLVES.values(), ids=RESOLVES)
each_call = pytest.mark.parametrize("call", [*READS.values(), *RESOLVES.values()], ids=[*READS, *RESOLVES])


# --- reading ---


@each_read
def test_get_manifest_and_tag_return_verified_content(read: Callable[[Client], BlobReader]) -> None:
    registry = ScriptedRegistry(manifest_response(Docker_Content_Digest=MANIFEST.digest))
    reader = read(registry.client)
    assert registry.bodies[0].closed  # the manifest was read and verified
    assert reader.descriptor == MANIFEST
    assert json.load(reader) == json.loads(CONTENT)
    assert reader.verified
    registry.assert_done()


@each_call
def test_manifest_reads_send_accept_of_known_types(call: Callable[[Client], Any]) -> None:
    registry = ScriptedRegistry(manifest_response(Docker_Content_Digest=MANIFEST.digest), manifest_response())
    result = call(registry.client)
    if isinstance(result, BlobReader):
        result.close()
    (accept,) = registry.requests[0].headers.get_all("accept")
    media_types = [media_type.strip() for media_type in accept.split(",")]
    assert set(media_types) == {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, "*/*"}
    assert media_types[-1] == "*/*"
    assert len(media_types) == 5


def test_manifest_reads_send_get_or_head() -> None:
    registry = ScriptedRegistry(*[manifest_response(Docker_Content_Digest=MANIFEST.digest)] * 4)
    for call in READS.values():
        call(registry.client).close()
    for resolve in RESOLVES.values():
        resolve(registry.client)
    assert registry.lines == [
        f"GET {MANIFESTS}/{MANIFEST.digest}",
        f"GET {MANIFESTS}/latest",
        f"HEAD {MANIFESTS}/{MANIFEST.digest}",
        f"HEAD {MANIFESTS}/latest",
    ]
    registry.assert_done()


@pytest.mark.parametrize(
    "header", [OTHER_DIGEST, Digest.of(CONTENT, "sha512"), Digest.of(b"", "sha512"), UNKNOWN_ALGORITHM, "x", ""]
)
def test_get_manifest_digest_header_is_ignored(header: str) -> None:
    registry = ScriptedRegistry(manifest_response(Docker_Content_Digest=header))
    with registry.client.get_manifest(NAME, MANIFEST.digest) as reader:
        assert reader.descriptor == MANIFEST
        assert reader.read() == CONTENT
    registry.assert_done()


@pytest.mark.parametrize("header", [OTHER_DIGEST, MANIFEST.digest, None])
def test_get_manifest_other_content_raises_digest_mismatch(header: str | None) -> None:
    registry = ScriptedRegistry(manifest_response(b"another", **digest_header(header)))
    with pytest.raises(errors.DigestMismatch) as caught:
        registry.client.get_manifest(NAME, MANIFEST.digest)
    assert (caught.value.expected, caught.value.actual) == (MANIFEST.digest, OTHER_DIGEST)
    registry.assert_done()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_get_manifest_any_algorithm_is_verified(algorithm: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    registry = ScriptedRegistry(manifest_response(), manifest_response(CONTENT + b" "))
    with registry.client.get_manifest(NAME, digest) as reader:
        assert reader.descriptor.digest == digest
        assert reader.read() == CONTENT
        assert reader.verified
    with pytest.raises(errors.DigestMismatch):
        registry.client.get_manifest(NAME, digest)
    registry.assert_done()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_get_tag_uses_digest_header(algorithm: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    registry = ScriptedRegistry(manifest_response(Docker_Content_Digest=digest))
    with registry.client.get_tag(NAME, "latest") as reader:
        assert reader.descriptor == MANIFEST.replace(digest=digest)
    registry.assert_done()


def test_get_tag_digest_header_differs_raises_digest_mismatch() -> None:
    registry = ScriptedRegistry(manifest_response(Docker_Content_Digest=OTHER_DIGEST))
    with pytest.raises(errors.DigestMismatch) as caught:
        registry.client.get_tag(NAME, "latest")
    assert (caught.value.expected, caught.value.actual) == (OTHER_DIGEST, MANIFEST.digest)
    registry.assert_done()


@pytest.mark.parametrize(
    "header", [None, "", "garbage", UNKNOWN_ALGORITHM, "md5:900150983cd24fb0d6963f7d28e17f72", "sha256:ab"]
)
def test_get_tag_without_usable_digest_header_hashes_content(header: str | None) -> None:
    registry = ScriptedRegistry(manifest_response(**digest_header(header)))
    with registry.client.get_tag(NAME, "latest") as reader:
        assert reader.descriptor == MANIFEST
    registry.assert_done()


@pytest.mark.parametrize(
    ("read", "size", "is_allowed"),
    [
        (name, size, is_allowed)
        for name in READS
        for size, is_allowed in [
            (MAX_MANIFEST_SIZE, True),
            (MAX_MANIFEST_SIZE + 1, False),
            (3 * MAX_MANIFEST_SIZE, False),
        ]
    ],
)
@pytest.mark.parametrize("has_length", [True, False])
def test_manifest_reads_more_than_4_mebibytes_raise_content_error(
    read: str, size: int, is_allowed: bool, has_length: bool
) -> None:
    content = b" " * size
    body = FakeReader(content)
    headers = {"Content-Type": OCI_MANIFEST, **({"Content-Length": str(size)} if has_length else {})}
    registry = ScriptedRegistry(lambda request: Response(200, headers, body))
    call = {
        "get_manifest": lambda: registry.client.get_manifest(NAME, Digest.of(content)),
        "get_tag": lambda: registry.client.get_tag(NAME, "latest"),
    }[read]
    if is_allowed:
        with call() as reader:
            assert reader.descriptor.size == size
    else:
        with pytest.raises(errors.ContentError):
            call()
    assert body.closed


def test_get_tag_endless_body_raises_before_reading_all() -> None:
    body = FakeReader(itertools.repeat(b"x" * 65536), limit=2 * MAX_MANIFEST_SIZE)
    registry = ScriptedRegistry(lambda request: Response(200, (), body))
    with pytest.raises(errors.ContentError):
        registry.client.get_tag(NAME, "latest")
    assert body.closed


@pytest.mark.parametrize(
    ("content_type", "media_type", "expected"),
    [
        (OCI_MANIFEST, OCI_MANIFEST, OCI_MANIFEST),
        (f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST, OCI_MANIFEST),
        (f"{OCI_MANIFEST};charset=utf-8; q=1", None, OCI_MANIFEST),
        (f" {OCI_INDEX} ", None, OCI_INDEX),
        (OCI_INDEX, None, OCI_INDEX),
        (None, OCI_INDEX, OCI_INDEX),
        ("garbage", OCI_INDEX, OCI_INDEX),
        ("application/json", OCI_INDEX, OCI_INDEX),
        ("application/octet-stream", DOCKER_MANIFEST, DOCKER_MANIFEST),
        ("text/plain; charset=utf-8", DOCKER_MANIFEST, DOCKER_MANIFEST),
        (None, None, "application/octet-stream"),
        ("application/vnd.x+json", None, "application/vnd.x+json"),
        (OCI_MANIFEST, 5, OCI_MANIFEST),
        (OCI_MANIFEST, "", OCI_MANIFEST),
    ],
)
@pytest.mark.parametrize("by", ["digest", "tag"])
def test_manifest_reads_media_type_is_normalized(
    content_type: str | None, media_type: Any, expected: str, by: str
) -> None:
    content = json.dumps({"schemaVersion": 2} | ({} if media_type is None else {"mediaType": media_type})).encode()
    registry = ScriptedRegistry(manifest_response(content, content_type))
    client = registry.client
    reader = client.get_tag(NAME, "a") if by == "tag" else client.get_manifest(NAME, Digest.of(content))
    with reader:
        assert reader.descriptor == Descriptor.of(content, expected)
    registry.assert_done()


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [(OCI_MANIFEST, OCI_INDEX), (DOCKER_MANIFEST, OCI_MANIFEST), (f"{OCI_INDEX}; charset=utf-8", DOCKER_MANIFEST_LIST)],
)
@pytest.mark.parametrize("by", ["digest", "tag"])
def test_manifest_reads_contradictory_media_types_raise_content_error(
    content_type: str, media_type: str, by: str
) -> None:
    content = json.dumps({"mediaType": media_type}).encode()
    registry = ScriptedRegistry(manifest_response(content, content_type))
    client = registry.client
    with pytest.raises(errors.ContentError) as caught:
        _ = client.get_tag(NAME, "a") if by == "tag" else client.get_manifest(NAME, Digest.of(content))
    assert type(caught.value) is errors.ContentError
    assert media_type in str(caught.value)
    registry.assert_done()


@pytest.mark.parametrize("content", [b"", b"text", b"[]", b'"x"', b"{", b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_get_tag_content_that_is_not_json_is_returned(content: bytes) -> None:
    registry = ScriptedRegistry(manifest_response(content))
    with registry.client.get_tag(NAME, "a") as reader:
        assert reader.read() == content
        assert reader.descriptor == Descriptor.of(content, OCI_MANIFEST)
    registry.assert_done()


REFUSALS = [
    (error_response(404), errors.ManifestUnknown),
    (error_response(404, "MANIFEST_UNKNOWN"), errors.ManifestUnknown),
    (error_response(404, "NAME_UNKNOWN"), errors.NameUnknown),
    (error_response(401), errors.Unauthorized),
    (error_response(403), errors.Denied),
    (error_response(429), errors.TooManyRequests),
    (error_response(500), errors.RegistryError),
    (Response(206), errors.RegistryError),
    (Response(307, {"Location": "/x"}), errors.RegistryError),
]


@pytest.mark.parametrize(("answer", "kind"), REFUSALS)
@each_call
def test_manifest_reads_error_status_raises_registry_error(
    answer: Response, kind: type[Exception], call: Callable[[Client], Any]
) -> None:
    confirmed = call in RESOLVES.values() and answer.status in (403, 404, 500)  # a GET confirms it
    registry = ScriptedRegistry(*[answer, answer] if confirmed else [answer])
    with pytest.raises(errors.RegistryError) as caught:
        call(registry.client)
    assert type(caught.value) is kind
    registry.assert_done()


# --- lost connections ---


def broken_response(body: FakeReader) -> Callable[[Request], Response]:
    """Return a 200 response with the size of the manifest, and a truncated body."""
    headers = {"Content-Type": OCI_MANIFEST, "Content-Length": str(MANIFEST.size)}
    return lambda request: Response(200, headers, body)


@each_read
@pytest.mark.parametrize("error", [errors.ReadError("reset"), None], ids=["reset", "early end"])
@pytest.mark.parametrize("count", [0, 9])
def test_manifest_reads_connection_lost_repeat_request(
    read: Callable[[Client], BlobReader], error: Exception | None, count: int
) -> None:
    body = FakeReader(CONTENT[:count], error=error)
    registry = ScriptedRegistry(broken_response(body), manifest_response())
    with read(registry.client) as reader:
        assert reader.read() == CONTENT
    first, repeated = registry.requests
    assert repeated == first
    assert "range" not in repeated.headers
    assert repeated.info == first.info
    assert body.closed
    registry.assert_done()


@each_read
def test_manifest_reads_connection_lost_repeatedly_raise_read_error(read: Callable[[Client], BlobReader]) -> None:
    bodies = [FakeReader(CONTENT[:9], error=errors.ReadError(str(number))) for number in range(20)]
    registry = ScriptedRegistry(*map(broken_response, bodies))
    with pytest.raises(errors.ReadError):
        read(registry.client)
    assert 2 <= len(registry.requests) <= 5
    assert all(body.closed for body in bodies[: len(registry.requests)])


@each_read
@pytest.mark.parametrize("error", [errors.TransportTimeout("late"), errors.ProtocolError("x"), OSError("foreign")])
def test_manifest_reads_other_exception_propagates(read: Callable[[Client], BlobReader], error: Exception) -> None:
    body = FakeReader(CONTENT[:9], error=error)
    registry = ScriptedRegistry(broken_response(body))
    with pytest.raises(type(error)) as caught:
        read(registry.client)
    assert caught.value is error
    assert body.closed


# --- resolving ---


@each_resolve
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_resolve_manifest_and_tag_return_descriptor(resolve: Callable[[Client], Descriptor], algorithm: str) -> None:
    header = Digest.of(CONTENT, algorithm)
    registry = ScriptedRegistry(
        manifest_response(media_type=f"{OCI_MANIFEST}; charset=utf-8", Docker_Content_Digest=header)
    )
    by_tag = resolve is RESOLVES["resolve_tag"]
    assert resolve(registry.client) == (MANIFEST.replace(digest=header) if by_tag else MANIFEST)
    assert registry.requests[0].method == "HEAD"
    registry.assert_done()


def test_resolve_manifest_without_digest_header_or_known_algorithm_succeeds() -> None:
    registry = ScriptedRegistry(manifest_response(), manifest_response(Docker_Content_Digest=UNKNOWN_ALGORITHM))
    assert registry.client.resolve_manifest(NAME, MANIFEST.digest) == MANIFEST
    assert registry.client.resolve_manifest(NAME, UNKNOWN_ALGORITHM) == MANIFEST.replace(
        digest=Digest(UNKNOWN_ALGORITHM)
    )
    registry.assert_done()


def test_resolve_manifest_digest_header_differs_raises_digest_mismatch() -> None:
    registry = ScriptedRegistry(manifest_response(Docker_Content_Digest=OTHER_DIGEST))
    with pytest.raises(errors.DigestMismatch) as caught:
        registry.client.resolve_manifest(NAME, MANIFEST.digest)
    assert (caught.value.expected, caught.value.actual) == (MANIFEST.digest, OTHER_DIGEST)
    registry.assert_done()


@pytest.mark.parametrize("header", [Digest.of(b"another", "sha512"), UNKNOWN_ALGORITHM, "garbage", ""])
def test_resolve_manifest_digest_header_of_other_algorithm_is_ignored(header: str) -> None:
    registry = ScriptedRegistry(manifest_response(Docker_Content_Digest=header))
    assert registry.client.resolve_manifest(NAME, MANIFEST.digest) == MANIFEST
    registry.assert_done()


@pytest.mark.parametrize("header", [None, "", "garbage", UNKNOWN_ALGORITHM, "md5:abc"])
def test_resolve_tag_without_usable_digest_header_sends_get(header: str | None) -> None:
    registry = ScriptedRegistry(manifest_response(**digest_header(header)), manifest_response())
    assert registry.client.resolve_tag(NAME, "latest") == MANIFEST
    assert registry.lines == [f"HEAD {MANIFESTS}/latest", f"GET {MANIFESTS}/latest"]
    registry.assert_done()


@each_resolve
@pytest.mark.parametrize("answer", [error_response(405), error_response(405, "UNSUPPORTED")])
def test_resolve_head_not_supported_sends_get(resolve: Callable[[Client], Descriptor], answer: Response) -> None:
    registry = ScriptedRegistry(answer, manifest_response())
    assert resolve(registry.client) == MANIFEST
    assert registry.methods == ["HEAD", "GET"]
    assert registry.requests[1].headers.get_all("accept") == registry.requests[0].headers.get_all("accept")
    registry.assert_done()


@each_resolve
@pytest.mark.parametrize("length", [None, "", "many", "-1"])
def test_resolve_without_content_length_sends_get(resolve: Callable[[Client], Descriptor], length: str | None) -> None:
    content_length = {} if length is None else {"Content-Length": length}
    head = Response(200, {"Docker-Content-Digest": MANIFEST.digest, **content_length})
    registry = ScriptedRegistry(head, manifest_response())
    assert resolve(registry.client) == MANIFEST
    assert registry.methods == ["HEAD", "GET"]
    registry.assert_done()


def test_resolve_by_get_other_content_raises_digest_mismatch() -> None:
    registry = ScriptedRegistry(
        error_response(405),
        manifest_response(b"another"),
        error_response(405),
        manifest_response(Docker_Content_Digest=OTHER_DIGEST),
    )
    with pytest.raises(errors.DigestMismatch):
        registry.client.resolve_manifest(NAME, MANIFEST.digest)
    with pytest.raises(errors.DigestMismatch):
        registry.client.resolve_tag(NAME, "latest")
    registry.assert_done()


# --- arguments ---

INVALID_NAMES: list[Any] = ["", "Upper", "a b", "../a", "a?b", "a/", None, b"a", 5]
INVALID_TAGS: list[Any] = [
    "",
    "a b",
    "a/b",
    "../x",
    "-a",
    ".a",
    "a:b",
    "a?b",
    "a\n",
    "a" * 129,
    MANIFEST.digest,
    None,
    5,
]
INVALID_DIGESTS: list[Any] = ["", "latest", "sha256:abc", "sha256:../x", f"sha256:{'A' * 64}", None, 5]


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_manifest_methods_invalid_repository_sends_nothing(name: Any) -> None:
    registry = ScriptedRegistry()
    client = registry.client
    calls: list[Callable[[], Any]] = [
        lambda: client.get_manifest(name, MANIFEST.digest),
        lambda: client.get_tag(name, "a"),
        lambda: client.resolve_manifest(name, MANIFEST.digest),
        lambda: client.resolve_tag(name, "a"),
        lambda: client.push_manifest(name, CONTENT, OCI_MANIFEST),
        lambda: client.delete_blob(name, BLOB.digest),
        lambda: client.delete_manifest(name, MANIFEST.digest),
        lambda: client.delete_tag(name, "a"),
        lambda: client.mount_blob(name, NAME, BLOB.digest),
        lambda: client.mount_blob(NAME, name, BLOB.digest),
    ]
    for call in calls:
        with pytest.raises(errors.UsageError):
            call()
    assert registry.requests == []


@pytest.mark.parametrize("tag", INVALID_TAGS)
def test_manifest_methods_invalid_tag_sends_nothing(tag: Any) -> None:
    registry = ScriptedRegistry()
    client = registry.client
    calls: list[Callable[[], Any]] = [
        lambda: client.get_tag(NAME, tag),
        lambda: client.resolve_tag(NAME, tag),
        lambda: client.delete_tag(NAME, tag),
        lambda: client.push_manifest(NAME, CONTENT, OCI_MANIFEST, tags=[tag]),
        lambda: client.push_manifest(NAME, CONTENT, OCI_MANIFEST, tags=["a", tag, "b"]),
    ]
    for call in calls:
        with pytest.raises(errors.UsageError):
            call()
    assert registry.requests == []


@pytest.mark.parametrize("digest", INVALID_DIGESTS)
def test_manifest_methods_invalid_digest_sends_nothing(digest: Any) -> None:
    registry = ScriptedRegistry()
    client = registry.client
    calls: list[Callable[[], Any]] = [
        *(
            [lambda: client.get_manifest(NAME, digest), lambda: client.resolve_manifest(NAME, digest)]
            if digest != "latest"  # a tag
            else []
        ),
        lambda: client.delete_manifest(NAME, digest),
        lambda: client.delete_blob(NAME, digest),
        lambda: client.mount_blob("a", NAME, digest),
    ]
    for call in calls:
        with pytest.raises(errors.UsageError):
            call()
    assert registry.requests == []


def test_get_manifest_unknown_algorithm_sends_nothing() -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError, match="blake3"):
        registry.client.get_manifest(NAME, UNKNOWN_ALGORITHM)
    assert registry.requests == []


# --- pushing ---


def push(
    registry: ScriptedRegistry, content: Any = CONTENT, media_type: Any = OCI_MANIFEST, **options: Any
) -> Descriptor:
    return registry.client.push_manifest(NAME, content, media_type, **options)


def test_push_manifest_without_tags_puts_by_digest() -> None:
    registry = ScriptedRegistry(Response(201))
    assert push(registry) == MANIFEST
    assert registry.lines == [f"PUT {MANIFESTS}/{MANIFEST.digest}"]
    assert registry.requests[0].headers.get_all("content-type") == (OCI_MANIFEST,)
    assert registry.transport.bodies == [CONTENT]
    assert registry.requests[0].body is not None
    assert registry.requests[0].body.resendable
    registry.assert_done()


@pytest.mark.parametrize("tags", [["3.20"], ("3.20",), iter(["3.20"]), "3.20", ["3.20", "3.20"]])
def test_push_manifest_one_tag_sends_one_put(tags: Any) -> None:
    registry = ScriptedRegistry(Response(201))
    assert push(registry, tags=tags) == MANIFEST
    assert registry.lines == [f"PUT {MANIFESTS}/3.20"]
    registry.assert_done()


@pytest.mark.parametrize(
    ("headers", "unconfirmed"),
    [
        ([], ["a", "b", "c"]),
        ([("OCI-Tag", "a"), ("OCI-Tag", "b"), ("OCI-Tag", "c")], []),
        ([("OCI-Tag", "a, b, c")], []),
        ([("oci-tag", "c ,b,a")], []),
        ([("OCI-Tag", "a,b"), ("OCI-Tag", "c")], []),
        ([("OCI-Tag", "b")], ["a", "c"]),
        ([("OCI-Tag", "")], ["a", "b", "c"]),
        ([("OCI-Tag", "abc, ab, A")], ["a", "b", "c"]),
    ],
)
def test_push_manifest_several_tags_puts_tags_not_confirmed(
    headers: list[tuple[str, str]], unconfirmed: list[str]
) -> None:
    registry = ScriptedRegistry(Response(201, headers), *[Response(201)] * len(unconfirmed))
    assert push(registry, tags=["a", "b", "c", "a"]) == MANIFEST
    assert registry.lines == [
        f"PUT {MANIFESTS}/{MANIFEST.digest}?tag=a&tag=b&tag=c",
        *(f"PUT {MANIFESTS}/{tag}" for tag in unconfirmed),
    ]
    assert registry.transport.bodies == [CONTENT] * (1 + len(unconfirmed))
    assert {request.headers["content-type"] for request in registry.requests} == {OCI_MANIFEST}
    registry.assert_done()


@pytest.mark.parametrize("content", [CONTENT, bytearray(CONTENT), memoryview(CONTENT)])
def test_push_manifest_any_kind_of_bytes_sends_them(content: Any) -> None:
    registry = ScriptedRegistry(Response(201))
    assert push(registry, content) == MANIFEST
    assert registry.transport.bodies == [CONTENT]


@pytest.mark.parametrize("content", [CONTENT.decode(), None, 5, {"x": object()}, {"x": float("nan")}, [1, 2]])
def test_push_manifest_invalid_content_sends_nothing(content: Any) -> None:
    registry = ScriptedRegistry(Response(201))
    with pytest.raises(errors.UsageError):
        push(registry, content)
    assert registry.requests == []


@pytest.mark.parametrize("content", [WITHOUT_MEDIA_TYPE, b"text", b"[]", b'{"mediaType": null}'])
def test_push_manifest_content_without_media_type_is_sent(content: bytes) -> None:
    registry = ScriptedRegistry(Response(201))
    assert push(registry, content, "application/vnd.x+json") == Descriptor.of(content, "application/vnd.x+json")
    assert registry.transport.bodies == [content]
    registry.assert_done()


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_MANIFEST, "", "garbage", 5, [OCI_MANIFEST]])
def test_push_manifest_contradictory_media_type_sends_nothing(media_type: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        push(registry, json.dumps({"mediaType": media_type}).encode())
    assert registry.requests == []


@pytest.mark.parametrize("media_type", ["", "json", "a/b; charset=utf-8", "a/b\r\nX: y", None, 5])
def test_push_manifest_invalid_media_type_sends_nothing(media_type: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        push(registry, WITHOUT_MEDIA_TYPE, media_type)
    assert registry.requests == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_push_manifest_given_digest_is_used(algorithm: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    registry = ScriptedRegistry(Response(201, {"Docker-Content-Digest": digest}))
    assert push(registry, digest=str(digest)) == MANIFEST.replace(digest=digest)
    assert registry.lines == [f"PUT {MANIFESTS}/{digest}"]
    registry.assert_done()


@pytest.mark.parametrize(
    "digest", [OTHER_DIGEST, Digest.of(b"another", "sha512"), UNKNOWN_ALGORITHM, "latest", "sha256:abc", 5]
)
def test_push_manifest_wrong_digest_sends_nothing(digest: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        push(registry, digest=digest)
    assert registry.requests == []


@pytest.mark.parametrize("tags", [(), ("a",), ("a", "b")])
def test_push_manifest_digest_header_differs_raises_digest_mismatch(tags: tuple[str, ...]) -> None:
    registry = ScriptedRegistry(Response(201, {"Docker-Content-Digest": OTHER_DIGEST}))
    with pytest.raises(errors.DigestMismatch) as caught:
        push(registry, tags=tags)
    assert (caught.value.expected, caught.value.actual) == (MANIFEST.digest, OTHER_DIGEST)
    registry.assert_done()


@pytest.mark.parametrize("header", [MANIFEST.digest, Digest.of(CONTENT, "sha512"), UNKNOWN_ALGORITHM, "garbage", ""])
def test_push_manifest_unusable_digest_header_is_ignored(header: str) -> None:
    registry = ScriptedRegistry(Response(201, {"Docker-Content-Digest": header}))
    assert push(registry) == MANIFEST
    registry.assert_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error_response(400, "MANIFEST_INVALID"), errors.ManifestInvalid),
        (error_response(404, "MANIFEST_BLOB_UNKNOWN"), errors.ManifestBlobUnknown),
        (error_response(400, "BLOB_UNKNOWN"), errors.BlobUnknown),
        (error_response(404, "NAME_UNKNOWN"), errors.NameUnknown),
        (error_response(413), errors.SizeInvalid),
        (error_response(403), errors.Denied),
        (Response(206), errors.RegistryError),
    ],
)
@pytest.mark.parametrize("tags", [(), ("a",), ("a", "b")])
def test_push_manifest_error_status_raises_registry_error(
    answer: Response, kind: type[Exception], tags: tuple[str, ...]
) -> None:
    registry = ScriptedRegistry(answer)
    with pytest.raises(errors.RegistryError) as caught:
        push(registry, tags=tags)
    assert type(caught.value) is kind
    registry.assert_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    "headers", [{"Docker-Content-Digest": MANIFEST.digest}, {"Location": f"{MANIFESTS}/{MANIFEST.digest}"}]
)
@pytest.mark.parametrize("tags", [(), ("a",)])
def test_push_manifest_other_success_status_that_names_digest_is_success(
    status: int, headers: dict[str, str], tags: tuple[str, ...]
) -> None:
    registry = ScriptedRegistry(Response(status, headers))
    assert push(registry, tags=tags) == MANIFEST
    registry.assert_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(("tags", "path"), [((), MANIFEST.digest), (("a",), "a")])
def test_push_manifest_other_success_status_is_confirmed_by_get(status: int, tags: tuple[str, ...], path: str) -> None:
    registry = ScriptedRegistry(Response(status), Response(200, {"Content-Type": MANIFEST.media_type}, CONTENT))
    assert push(registry, tags=tags) == MANIFEST
    assert registry.lines[1:] == [f"GET {MANIFESTS}/{path}"]
    registry.assert_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    "answer",
    [error_response(404), error_response(403), Response(200, {"Content-Type": "text/html"}, b"<html>"), Response(200)],
)
def test_push_manifest_other_success_status_without_manifest_is_error(status: int, answer: Response) -> None:
    registry = ScriptedRegistry(Response(status), answer)
    with pytest.raises(errors.RegistryError, match="expected 201") as caught:
        push(registry, tags=["a"])
    assert caught.value.status == status
    registry.assert_done()


def test_push_manifest_html_page_is_content_error() -> None:
    registry = ScriptedRegistry(Response(201, {"Content-Type": "text/html"}, b"<html>Log in</html>"))
    with pytest.raises(errors.ContentError, match="HTML page"):
        push(registry)
    registry.assert_done()


@pytest.mark.parametrize("delete", ["delete_blob", "delete_manifest", "delete_tag"])
def test_delete_html_page_is_content_error(delete: str) -> None:
    page = Response(200, {"Content-Type": "text/html"}, b"<html>Log in</html>")
    registry = ScriptedRegistry(*[error_response(404)] * (delete == "delete_manifest"), page)
    with pytest.raises(errors.ContentError, match=r"DELETE .* HTML page"):
        getattr(registry.client, delete)(NAME, "a" if delete == "delete_tag" else MANIFEST.digest)


def test_push_manifest_one_tag_refused_raises_denied() -> None:
    registry = ScriptedRegistry(Response(201, {"OCI-Tag": "a"}), error_response(403))
    with pytest.raises(errors.Denied):
        push(registry, tags=["a", "b", "c"])
    assert registry.lines[1:] == [f"PUT {MANIFESTS}/b"]
    registry.assert_done()


# --- warnings ---


def logged_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "ociwire.warnings"]


def test_warning_header_repeated_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fields = [("Warning", '299 - "it is old"'), ("Warning", '299 - "and ends"'), ("Warning", '299 - "it is old"')]
    registry = ScriptedRegistry(*[Response(200, Headers(fields), b"{}")] * 3)
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        for _ in range(2):
            registry.client.get_tag(NAME, "a").close()
        registry.client.with_options(timeout=5).get_tag(NAME, "a").close()
    texts = logged_warnings(caplog)
    assert len(texts) == 2
    assert "it is old" in texts[0]
    assert "and ends" in texts[1]
    assert all("registry.example" in text for text in texts)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_warning_header_with_several_warnings_logs_each(caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Warning": '299 - "one, of two", 299 - "the \\"other\\""'}
    registry = ScriptedRegistry(Response(404, headers), Response(404), Response(202, {"Warning": '299 - "deleted"'}))
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        with pytest.raises(errors.ManifestUnknown):
            registry.client.resolve_tag(NAME, "a")
        registry.client.delete_tag(NAME, "a")
    assert [text.partition(": ")[2] for text in logged_warnings(caplog)] == ["one, of two", 'the "other"', "deleted"]


@pytest.mark.parametrize("warning", ['199 - "misc"', '110 a "stale"', "299 - bare", "299", "", "garbage", '2990 - "x"'])
def test_warning_header_other_than_299_is_not_logged(warning: str, caplog: pytest.LogCaptureFixture) -> None:
    registry = ScriptedRegistry(manifest_response(Warning=warning))
    with caplog.at_level(logging.DEBUG, "ociwire.warnings"):
        registry.client.get_tag(NAME, "a").close()
    assert logged_warnings(caplog) == []


def test_warning_header_long_text_is_bounded_and_sanitized(caplog: pytest.LogCaptureFixture) -> None:
    registry = ScriptedRegistry(manifest_response(Warning=f'299 - "\x1b[2J\x9bx\t{"y" * 10_000}"'))
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        registry.client.get_tag(NAME, "a").close()
    (text,) = logged_warnings(caplog)
    assert len(text) < 1000
    assert text.isprintable()


def test_warning_header_separate_clients_log_separately(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        for _ in range(2):
            ScriptedRegistry(manifest_response(Warning='299 - "old"')).client.get_tag(NAME, "a").close()
    assert len(logged_warnings(caplog)) == 2


# --- mounts ---

UPLOADS = f"{BASE}/v2/{NAME}/blobs/uploads/"
MOUNT = f"POST {UPLOADS}?mount={BLOB.digest}&from=other/source"


def mount(registry: ScriptedRegistry) -> Descriptor:
    return registry.client.mount_blob("other/source", NAME, BLOB.digest)


@pytest.mark.parametrize("answer", [BLOB_CREATED, Response(201)])
def test_mount_blob_created_returns_descriptor(answer: Response) -> None:
    registry = ScriptedRegistry(answer, blob_response())
    assert mount(registry) == BLOB
    assert registry.lines == [MOUNT, f"HEAD {BASE}/v2/{NAME}/blobs/{BLOB.digest}"]
    assert registry.requests[0].body is None
    assert registry.requests[0].info.idempotent is True
    scope = registry.requests[0].info.required_scope
    assert str(scope) == f"repository:{NAME}:pull,push repository:other/source:pull"  # the target repository is first
    registry.assert_done()


@pytest.mark.parametrize(
    "cancelled", [Response(204), Response(202), error_response(404), error_response(500), error_response(405)]
)
def test_mount_blob_not_mounted_cancels_upload_and_raises_unsupported(cancelled: Response) -> None:
    registry = ScriptedRegistry(upload_response(), cancelled)
    with pytest.raises(errors.Unsupported) as caught:
        mount(registry)
    assert caught.value.status == 202
    assert BLOB.digest in str(caught.value)
    assert caught.value.request is not None
    assert caught.value.request.method == "POST"
    assert registry.lines == [MOUNT, f"DELETE {UPLOADS}1"]
    assert Scope.repository(NAME, "pull", "push") <= registry.requests[1].info.required_scope
    registry.assert_done()


@pytest.mark.parametrize("location", [None, "", "http://elsewhere.example/u", "https://user:secret@registry.example/u"])
def test_mount_blob_invalid_location_raises_unsupported(location: str | None) -> None:
    registry = ScriptedRegistry(upload_response(location))
    with pytest.raises(errors.Unsupported) as caught:
        mount(registry)
    assert "secret" not in str(caught.value)
    registry.assert_done()


def test_mount_blob_cross_origin_location_is_cancelled_without_credentials() -> None:
    registry = ScriptedRegistry(upload_response("https://storage.example/u?signature=s"), Response(204))
    with pytest.raises(errors.Unsupported):
        mount(registry)
    assert registry.lines[1] == "DELETE https://storage.example/u?signature=s"
    assert registry.requests[1].info.required_scope == Scope.EMPTY
    registry.assert_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error_response(401), errors.Unauthorized),
        (error_response(401, "UNAUTHORIZED"), errors.Unauthorized),
        (error_response(403), errors.Denied),
        (error_response(403, "DENIED"), errors.Denied),
        (error_response(404, "NAME_UNKNOWN"), errors.NameUnknown),
        (error_response(404), errors.NameUnknown),
        (error_response(405), errors.Unsupported),
        (Response(200), errors.Unsupported),
        (Response(204, {"Location": f"/v2/{NAME}/blobs/{BLOB.digest}"}), errors.Unsupported),
    ],
)
def test_mount_blob_error_status_raises_and_closes_response(answer: Response, kind: type[Exception]) -> None:
    registry = ScriptedRegistry(answer)
    with pytest.raises(errors.RegistryError) as caught:
        mount(registry)
    assert type(caught.value) is kind
    assert len(registry.requests) == 1
    registry.assert_done()


# --- deletions ---


@pytest.mark.parametrize("status", [200, 202, 204])
def test_delete_methods_send_delete(status: int) -> None:
    registry = ScriptedRegistry(Response(status), Response(status), manifest_response(), Response(status))
    client = registry.client
    assert client.delete_blob(NAME, BLOB.digest) is None
    assert client.delete_tag(NAME, "latest") is None
    assert client.delete_manifest(NAME, str(MANIFEST.digest)) is None
    assert registry.lines == [
        f"DELETE {BASE}/v2/{NAME}/blobs/{BLOB.digest}",
        f"DELETE {MANIFESTS}/latest",
        f"GET {MANIFESTS}/{MANIFEST.digest}",
        f"DELETE {MANIFESTS}/{MANIFEST.digest}",
    ]
    registry.assert_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error_response(404), errors.NotFound),
        (error_response(405), errors.Unsupported),
        (error_response(400, "UNSUPPORTED"), errors.Unsupported),
        (error_response(401), errors.Unauthorized),
        (error_response(403), errors.Denied),
        (Response(201), errors.RegistryError),
    ],
)
@pytest.mark.parametrize("name", DELETES)
def test_delete_methods_error_status_raises_registry_error(name: str, answer: Response, kind: type[Exception]) -> None:
    # A DELETE with status 404 succeeds if the manifest could be read before: it has just been deleted.
    read = [error_response(404) if answer.status == 404 else manifest_response()] if name == "delete_manifest" else []
    registry = ScriptedRegistry(*read, answer)
    if answer.status == 404:
        kind = errors.BlobUnknown if name == "delete_blob" else errors.ManifestUnknown
    with pytest.raises(errors.RegistryError) as caught:
        DELETES[name](registry.client)
    assert type(caught.value) is kind
    assert caught.value.request is not None
    assert caught.value.request.method == "DELETE"
    registry.assert_done()


@pytest.mark.parametrize("refusal", [error_response(404), error_response(403), error_response(500)])
def test_delete_manifest_unreadable_manifest_is_deleted(refusal: Response) -> None:
    registry = ScriptedRegistry(refusal, Response(202))
    registry.client.delete_manifest(NAME, MANIFEST.digest)
    assert registry.lines[1:] == [f"DELETE {MANIFESTS}/{MANIFEST.digest}"]
    registry.assert_done()


@pytest.mark.parametrize(
    "invalid",
    [manifest_response(b"another"), manifest_response(b"x" * (MAX_MANIFEST_SIZE + 1)), manifest_response(b"{")],
)
def test_delete_manifest_invalid_manifest_is_read_twice_and_deleted(invalid: Response) -> None:
    registry = ScriptedRegistry(invalid, invalid, Response(202))
    registry.client.delete_manifest(NAME, MANIFEST.digest)
    assert registry.lines[2:] == [f"DELETE {MANIFESTS}/{MANIFEST.digest}"]
    registry.assert_done()


def test_delete_methods_unknown_algorithm_sends_delete() -> None:
    def answer(request: Request) -> Response:
        return Response(202) if request.method == "DELETE" else manifest_response()

    transport = RecordingTransport(answer)
    client = Client(HOST, transport)
    client.delete_blob(NAME, UNKNOWN_ALGORITHM)
    client.delete_manifest(NAME, UNKNOWN_ALGORITHM)
    deleted = [request.url for request in transport.requests if request.method == "DELETE"]
    assert deleted == [f"{BASE}/v2/{NAME}/blobs/{UNKNOWN_ALGORITHM}", f"{MANIFESTS}/{UNKNOWN_ALGORITHM}"]


def test_delete_manifest_connect_error_sends_no_delete() -> None:
    registry = ScriptedRegistry(errors.ConnectError("refused"))
    with pytest.raises(errors.ConnectError):
        registry.client.delete_manifest(NAME, MANIFEST.digest)


# --- unread readers ---


@each_read
@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "streamed"])
def test_manifest_reads_unread_reader_does_not_warn(read: Callable[[Client], BlobReader], streamed: bool) -> None:
    def answer(request: Request) -> Response:
        response = manifest_response(Docker_Content_Digest=MANIFEST.digest)
        return response.replace(body=io.BytesIO(response.read())) if streamed else response

    client = Client(HOST, LogTransport(FunctionTransport(answer)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            read(client)
        gc.collect()
    assert caught == []


# --- confirmation of HEAD, and media types ---


@each_resolve
@pytest.mark.parametrize(
    "content_type", ["text/html", "application/json", "binary/octet-stream", "application/x-troff-man"]
)
def test_resolve_content_type_is_not_a_manifest_sends_get(
    resolve: Callable[[Client], Descriptor], content_type: str
) -> None:
    head = manifest_response(media_type=content_type, Docker_Content_Digest=MANIFEST.digest)
    registry = ScriptedRegistry(head, manifest_response(media_type=content_type))
    assert resolve(registry.client) == MANIFEST
    assert registry.methods == ["HEAD", "GET"]
    registry.assert_done()


def test_resolve_manifest_unknown_algorithm_sends_no_get() -> None:
    """The client could not verify the content of a GET."""
    registry = ScriptedRegistry(error_response(403), manifest_response(media_type="text/html"), manifest_response(b""))
    with pytest.raises(errors.Denied):
        registry.client.resolve_manifest(NAME, UNKNOWN_ALGORITHM)
    assert registry.client.resolve_manifest(NAME, UNKNOWN_ALGORITHM).size == len(CONTENT)
    with pytest.raises(errors.ProtocolError, match="does not state the size"):
        registry.client.resolve_manifest(NAME, UNKNOWN_ALGORITHM)
    assert {request.method for request in registry.requests} == {"HEAD"}
    registry.assert_done()


@pytest.mark.parametrize("status", [401, 410, 429, 502, 503, 504])
@each_resolve
def test_resolve_definite_error_status_sends_no_get(resolve: Callable[[Client], Descriptor], status: int) -> None:
    registry = ScriptedRegistry(error_response(status))
    with pytest.raises(errors.RegistryError):
        resolve(registry.client)
    registry.assert_done()


def test_resolve_tag_head_support_is_shared_by_with_options() -> None:
    registry = ScriptedRegistry(manifest_response(Docker_Content_Digest=MANIFEST.digest), error_response(404))
    assert registry.client.resolve_tag(NAME, "a") == MANIFEST
    with pytest.raises(errors.ManifestUnknown):
        registry.client.with_options(timeout=1).resolve_tag(NAME, "b")
    registry.assert_done()


SCHEMA_1_TYPES = [f"application/vnd.docker.distribution.manifest.v1+{suffix}" for suffix in ("json", "prettyjws")]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        *((b'{"schemaVersion": 1, "fsLayers": []}', kind) for kind in [*SCHEMA_1_TYPES, "application/json", None]),
        *((b'{"fsLayers": []}', kind) for kind in SCHEMA_1_TYPES),
        (json.dumps({"mediaType": SCHEMA_1_TYPES[0]}).encode(), "text/plain"),
    ],
)
def test_manifest_reads_schema_1_raises_unsupported(content: bytes, content_type: str | None) -> None:
    """The error has precedence over a digest mismatch, because the digest of a signed manifest excludes signatures."""
    for call in (*READS.values(), *RESOLVES.values()):
        head = [error_response(405)] if call in RESOLVES.values() else []
        registry = ScriptedRegistry(*head, manifest_response(content, content_type))
        with pytest.raises(errors.Unsupported) as caught:
            call(registry.client)
        assert str(caught.value) == (
            "Docker schema 1 manifests are not supported: push the image again with a current tool"
        )


@pytest.mark.parametrize(
    ("content_type", "fields", "media_type"),
    [
        ("application/json", {"manifests": []}, OCI_INDEX),
        ("text/html; charset=utf-8", {"manifests": [], "config": None}, OCI_INDEX),
        ("binary/octet-stream", {"config": {}, "layers": []}, OCI_MANIFEST),
        ("application/json", {"config": {}}, "application/json"),
        ("application/json", {"mediaType": f"{OCI_INDEX}; charset=utf-8"}, OCI_INDEX),
        ("application/vnd.x+json", {"mediaType": OCI_INDEX.upper()}, OCI_INDEX),
        (OCI_MANIFEST.title(), {"mediaType": OCI_MANIFEST}, OCI_MANIFEST),
        (OCI_MANIFEST, {"mediaType": "application/json"}, OCI_MANIFEST),
        (OCI_INDEX, {"manifests": []}, OCI_INDEX),
        ("application/json", {"manifests": [], "layers": []}, None),
        ("application/json", {"manifests": [], "config": {}, "layers": []}, None),
        (OCI_INDEX, {"manifests": [], "config": {}, "layers": []}, None),
        (OCI_MANIFEST, {"mediaType": "application/vnd.x+json"}, None),
    ],
)
def test_get_tag_media_type_is_detected_from_header_or_content(
    content_type: str, fields: dict[str, Any], media_type: str | None
) -> None:
    client = ScriptedRegistry(
        manifest_response(json.dumps({"schemaVersion": 2, **fields}).encode(), content_type)
    ).client
    if media_type is None:
        with pytest.raises(errors.ContentError):
            client.get_tag(NAME, "a")
    else:
        with client.get_tag(NAME, "a") as reader:
            assert reader.descriptor.media_type == media_type


@pytest.mark.parametrize("content", [b"<html>", b" \n<!DOCTYPE html>", b"\xef\xbb\xbf<html>", b"<?xml version='1.0'?>"])
@pytest.mark.parametrize("content_type", [OCI_MANIFEST, "text/html", None])
def test_manifest_reads_html_page_is_named_in_error(content: bytes, content_type: str | None) -> None:
    registry = ScriptedRegistry(manifest_response(content, content_type), manifest_response(content, content_type))
    with pytest.raises(errors.ContentError, match="HTML page"):
        registry.client.get_tag(NAME, "a")
    with pytest.raises(errors.DigestMismatch, match="HTML page"):
        registry.client.get_manifest(NAME, MANIFEST.digest)
    registry.assert_done()


# --- max_manifest_size ---


def test_max_manifest_size_raised_reads_larger_manifest() -> None:
    content = b'{"schemaVersion": 2, "annotations": {"a": "' + b"x" * MAX_MANIFEST_SIZE + b'"}}'
    registry = ScriptedRegistry(manifest_response(content))
    with pytest.raises(
        errors.ContentError, match=r"limit of .* bytes: raise it with Client\(max_manifest_size="
    ) as caught:
        registry.client.get_tag(NAME, "a")
    assert str(MAX_MANIFEST_SIZE) in str(caught.value)
    registry = ScriptedRegistry(manifest_response(content), max_manifest_size=2 * MAX_MANIFEST_SIZE)
    with registry.client.with_options(timeout=1).get_tag(NAME, "a") as reader:
        assert reader.read() == content


def test_max_manifest_size_lowered_refuses_larger_manifest() -> None:
    for size, is_allowed in ((len(CONTENT), True), (len(CONTENT) - 1, False)):
        registry = ScriptedRegistry(manifest_response(), max_manifest_size=size)
        if is_allowed:
            registry.client.get_tag(NAME, "a").close()
        else:
            with pytest.raises(errors.ContentError):
                registry.client.get_tag(NAME, "a")


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "1"])
def test_max_manifest_size_invalid_raises_usage_error(size: Any) -> None:
    with pytest.raises(errors.UsageError, match="max_manifest_size"):
        Client(HOST, FunctionTransport(lambda request: Response(404)), max_manifest_size=size)
