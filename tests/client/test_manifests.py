"""Manifests and tags, mounts and deletions: what is asked, what the answers are worth, and that nothing stays open."""

from __future__ import annotations

import gc
import io
import json
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from ociwire import BlobReader, Client, Descriptor, Digest, FunctionTransport, Headers, Request, Response, Scope, errors
from ociwire.media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST
from ociwire.transport import LogTransport
from tests.client.test_client import BASE, BLOB, CREATED, Registry, Tracked, accepted, found, refused

NAME = "library/alpine"
MANIFESTS = f"{BASE}/v2/{NAME}/manifests"
CONTENT = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
MANIFEST = Descriptor.of(CONTENT, OCI_MANIFEST)
SILENT = b'{"schemaVersion": 2}'  # does not say of which media type it is
OTHER = Digest.of(b"another")
LIMIT = 4 * 1024 * 1024
UNKNOWN = "blake3:abcdef"


def served(content: bytes = CONTENT, media_type: str | None = OCI_MANIFEST, **headers: str) -> Response:
    """A manifest, or, without its content, the answer to HEAD."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    typed = {} if media_type is None else {"Content-Type": media_type}
    return Response(200, {"Content-Length": str(len(content)), **typed, **named}, content)


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
reads = pytest.mark.parametrize("read", READS.values(), ids=READS)
resolves = pytest.mark.parametrize("resolve", RESOLVES.values(), ids=RESOLVES)


# --- reading ---


@reads
def test_get_manifest_and_tag_return_verified_content(read: Callable[[Client], BlobReader]) -> None:
    registry = Registry(served(Docker_Content_Digest=MANIFEST.digest))
    reader = read(registry.client)
    assert registry.bodies[0].closed  # it has been read, and verified, whole
    assert reader.descriptor == MANIFEST
    assert json.load(reader) == json.loads(CONTENT)
    assert reader.verified
    registry.check_done()


@pytest.mark.parametrize("call", [*READS.values(), *RESOLVES.values()], ids=[*READS, *RESOLVES])
def test_manifest_reads_send_accept_of_known_types(call: Callable[[Client], Any]) -> None:
    registry = Registry(served(Docker_Content_Digest=MANIFEST.digest), served())
    answer = call(registry.client)
    if isinstance(answer, BlobReader):
        answer.close()
    (accept,) = registry.requests[0].headers.get_all("accept")
    kinds = [kind.strip() for kind in accept.split(",")]
    assert set(kinds) == {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, "*/*"}
    assert kinds[-1] == "*/*"
    assert len(kinds) == 5


def test_manifest_reads_send_get_or_head() -> None:
    registry = Registry(*[served(Docker_Content_Digest=MANIFEST.digest)] * 4)
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
    registry.check_done()


@pytest.mark.parametrize("claimed", [OTHER, Digest.of(CONTENT, "sha512"), Digest.of(b"", "sha512"), UNKNOWN, "x", ""])
def test_get_manifest_digest_header_is_ignored(claimed: str) -> None:
    registry = Registry(served(Docker_Content_Digest=claimed))
    with registry.client.get_manifest(NAME, MANIFEST.digest) as reader:
        assert reader.descriptor == MANIFEST
        assert reader.read() == CONTENT
    registry.check_done()


@pytest.mark.parametrize("claimed", [OTHER, MANIFEST.digest, None])
def test_get_manifest_other_content_raises_digest_mismatch(claimed: str | None) -> None:
    registry = Registry(served(b"another", **({} if claimed is None else {"Docker_Content_Digest": claimed})))
    with pytest.raises(errors.DigestMismatch) as caught:
        registry.client.get_manifest(NAME, MANIFEST.digest)
    assert (caught.value.expected, caught.value.actual) == (MANIFEST.digest, OTHER)
    registry.check_done()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_get_manifest_any_algorithm_is_verified(algorithm: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    registry = Registry(served(), served(CONTENT + b" "))
    with registry.client.get_manifest(NAME, digest) as reader:
        assert reader.descriptor.digest == digest
        assert reader.read() == CONTENT
        assert reader.verified
    with pytest.raises(errors.DigestMismatch):
        registry.client.get_manifest(NAME, digest)
    registry.check_done()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_get_tag_uses_digest_header(algorithm: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    registry = Registry(served(Docker_Content_Digest=digest))
    with registry.client.get_tag(NAME, "latest") as reader:
        assert reader.descriptor == MANIFEST.replace(digest=digest)
    registry.check_done()


def test_get_tag_digest_header_differs_raises_digest_mismatch() -> None:
    registry = Registry(served(Docker_Content_Digest=OTHER))
    with pytest.raises(errors.DigestMismatch) as caught:
        registry.client.get_tag(NAME, "latest")
    assert (caught.value.expected, caught.value.actual) == (OTHER, MANIFEST.digest)
    registry.check_done()


@pytest.mark.parametrize("claimed", [None, "", "garbage", UNKNOWN, "md5:900150983cd24fb0d6963f7d28e17f72", "sha256:ab"])
def test_get_tag_without_usable_digest_header_hashes_content(claimed: str | None) -> None:
    registry = Registry(served(**({} if claimed is None else {"Docker_Content_Digest": claimed})))
    with registry.client.get_tag(NAME, "latest") as reader:
        assert reader.descriptor == MANIFEST
    registry.check_done()


@pytest.mark.parametrize(
    ("read", "size", "fits"),
    [(name, size, fits) for name in READS for size, fits in [(LIMIT, True), (LIMIT + 1, False), (3 * LIMIT, False)]],
)
@pytest.mark.parametrize("stated", [True, False])
def test_manifest_reads_more_than_4_mebibytes_raise_content_error(
    read: str, size: int, fits: bool, stated: bool
) -> None:
    content = b" " * size
    body = Tracked(content)
    headers = {"Content-Type": OCI_MANIFEST, **({"Content-Length": str(size)} if stated else {})}
    registry = Registry(lambda request: Response(200, headers, body))
    call = {
        "get_manifest": lambda: registry.client.get_manifest(NAME, Digest.of(content)),
        "get_tag": lambda: registry.client.get_tag(NAME, "latest"),
    }[read]
    if fits:
        with call() as reader:
            assert reader.descriptor.size == size
    else:
        reads_on = body.file.tell
        with pytest.raises(errors.ContentError):
            call()
        with pytest.raises(ValueError, match="closed"):
            reads_on()
    assert body.closed


def test_get_tag_endless_body_raises_before_reading_all() -> None:
    class Endless:
        read = 0

        def readinto(self, buffer: memoryview, /) -> int:
            self.read += len(buffer)
            assert self.read <= 4 * LIMIT, "it is read without a bound"
            return len(buffer)

        def close(self) -> None:
            pass

    body = Endless()
    registry = Registry(lambda request: Response(200, (), body))
    with pytest.raises(errors.ContentError):
        registry.client.get_tag(NAME, "latest")
    assert body.read <= 2 * LIMIT


@pytest.mark.parametrize(
    ("stated", "own", "found_to_be"),
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
def test_manifest_reads_media_type_is_normalized(stated: str | None, own: Any, found_to_be: str, by: str) -> None:
    content = json.dumps({"schemaVersion": 2} | ({} if own is None else {"mediaType": own})).encode()
    registry = Registry(served(content, stated))
    client = registry.client
    reader = client.get_tag(NAME, "a") if by == "tag" else client.get_manifest(NAME, Digest.of(content))
    with reader:
        assert reader.descriptor == Descriptor.of(content, found_to_be)
    registry.check_done()


@pytest.mark.parametrize(
    ("stated", "own"),
    [(OCI_MANIFEST, OCI_INDEX), (DOCKER_MANIFEST, OCI_MANIFEST), (f"{OCI_INDEX}; charset=utf-8", DOCKER_MANIFEST_LIST)],
)
@pytest.mark.parametrize("by", ["digest", "tag"])
def test_manifest_reads_contradictory_media_types_raise_content_error(stated: str, own: str, by: str) -> None:
    content = json.dumps({"mediaType": own}).encode()
    registry = Registry(served(content, stated))
    client = registry.client
    with pytest.raises(errors.ContentError) as caught:
        _ = client.get_tag(NAME, "a") if by == "tag" else client.get_manifest(NAME, Digest.of(content))
    assert type(caught.value) is errors.ContentError
    assert own in str(caught.value)
    registry.check_done()


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[]", b'"x"', b"{", b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_get_tag_content_that_is_not_json_is_returned(content: bytes) -> None:
    registry = Registry(served(content))
    with registry.client.get_tag(NAME, "a") as reader:
        assert reader.read() == content
        assert reader.descriptor == Descriptor.of(content, OCI_MANIFEST)
    registry.check_done()


REFUSALS = [
    (refused(404), errors.ManifestUnknown),
    (refused(404, "MANIFEST_UNKNOWN"), errors.ManifestUnknown),
    (refused(404, "NAME_UNKNOWN"), errors.NameUnknown),
    (refused(401), errors.Unauthorized),
    (refused(403), errors.Denied),
    (refused(429), errors.TooManyRequests),
    (refused(500), errors.RegistryError),
    (Response(206), errors.RegistryError),
    (Response(307, {"Location": "/x"}), errors.RegistryError),
]


@pytest.mark.parametrize(("answer", "kind"), REFUSALS)
@pytest.mark.parametrize("call", [*READS.values(), *RESOLVES.values()], ids=[*READS, *RESOLVES])
def test_manifest_reads_error_status_raises_registry_error(
    answer: Response, kind: type[Exception], call: Callable[[Client], Any]
) -> None:
    confirmed = call in RESOLVES.values() and answer.status in (403, 404, 500)  # what a HEAD that is unsupported gets
    registry = Registry(*[answer, answer] if confirmed else [answer])
    with pytest.raises(errors.RegistryError) as caught:
        call(registry.client)
    assert type(caught.value) is kind
    registry.check_done()


# --- a connection that is lost ---


class Broken:
    """The beginning of a content, and then an error or an early end."""

    def __init__(self, content: bytes, error: Exception | None) -> None:
        self._pieces: list[bytes | Exception] = [content] if content else []
        self._pieces += [error] if error is not None else []
        self.closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self.closed = True


def breaking(*bodies: Broken) -> list[Callable[[Request], Response]]:
    headers = {"Content-Type": OCI_MANIFEST, "Content-Length": str(MANIFEST.size)}
    return [lambda request, body=body: Response(200, headers, body) for body in bodies]  # type: ignore[misc]


@reads
@pytest.mark.parametrize("lost", [errors.ReadError("reset"), None], ids=["reset", "end"])
@pytest.mark.parametrize("count", [0, 9])
def test_manifest_reads_connection_lost_repeat_request(
    read: Callable[[Client], BlobReader], lost: Exception | None, count: int
) -> None:
    body = Broken(CONTENT[:count], lost)
    registry = Registry(*breaking(body), served())
    with read(registry.client) as reader:
        assert reader.read() == CONTENT
    first, again = registry.requests
    assert again == first  # from the beginning: the same request
    assert "range" not in again.headers
    assert again.info == first.info
    assert body.closed
    registry.check_done()


@reads
def test_manifest_reads_connection_lost_repeatedly_raise_read_error(read: Callable[[Client], BlobReader]) -> None:
    bodies = [Broken(CONTENT[:9], errors.ReadError(str(number))) for number in range(20)]
    registry = Registry(*breaking(*bodies))
    with pytest.raises(errors.ReadError):
        read(registry.client)
    assert 2 <= len(registry.requests) <= 5
    assert all(body.closed for body in bodies[: len(registry.requests)])


@reads
@pytest.mark.parametrize("error", [errors.TransportTimeout("late"), errors.ProtocolError("x"), OSError("foreign")])
def test_manifest_reads_other_exception_propagates(read: Callable[[Client], BlobReader], error: Exception) -> None:
    body = Broken(CONTENT[:9], error)
    registry = Registry(*breaking(body))
    with pytest.raises(type(error)) as caught:
        read(registry.client)
    assert caught.value is error
    assert body.closed


# --- resolving ---


@resolves
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_resolve_manifest_and_tag_return_descriptor(resolve: Callable[[Client], Descriptor], algorithm: str) -> None:
    claimed = Digest.of(CONTENT, algorithm)
    registry = Registry(served(media_type=f"{OCI_MANIFEST}; charset=utf-8", Docker_Content_Digest=claimed))
    by_tag = resolve is RESOLVES["resolve_tag"]
    assert resolve(registry.client) == (MANIFEST.replace(digest=claimed) if by_tag else MANIFEST)
    assert registry.requests[0].method == "HEAD"
    registry.check_done()


def test_resolve_manifest_without_digest_header_or_known_algorithm_succeeds() -> None:
    registry = Registry(served(), served(Docker_Content_Digest=UNKNOWN))
    assert registry.client.resolve_manifest(NAME, MANIFEST.digest) == MANIFEST
    assert registry.client.resolve_manifest(NAME, UNKNOWN) == MANIFEST.replace(digest=Digest(UNKNOWN))
    registry.check_done()


def test_resolve_manifest_digest_header_differs_raises_digest_mismatch() -> None:
    registry = Registry(served(Docker_Content_Digest=OTHER))
    with pytest.raises(errors.DigestMismatch) as caught:
        registry.client.resolve_manifest(NAME, MANIFEST.digest)
    assert (caught.value.expected, caught.value.actual) == (MANIFEST.digest, OTHER)
    registry.check_done()


@pytest.mark.parametrize("claimed", [Digest.of(b"another", "sha512"), UNKNOWN, "garbage", ""])
def test_resolve_manifest_digest_header_of_other_algorithm_is_ignored(claimed: str) -> None:
    registry = Registry(served(Docker_Content_Digest=claimed))
    assert registry.client.resolve_manifest(NAME, MANIFEST.digest) == MANIFEST
    registry.check_done()


@pytest.mark.parametrize("claimed", [None, "", "garbage", UNKNOWN, "md5:abc"])
def test_resolve_tag_without_usable_digest_header_sends_get(claimed: str | None) -> None:
    registry = Registry(served(**({} if claimed is None else {"Docker_Content_Digest": claimed})), served())
    assert registry.client.resolve_tag(NAME, "latest") == MANIFEST
    assert registry.lines == [f"HEAD {MANIFESTS}/latest", f"GET {MANIFESTS}/latest"]
    registry.check_done()


@resolves
@pytest.mark.parametrize("answer", [refused(405), refused(405, "UNSUPPORTED")])
def test_resolve_head_not_supported_sends_get(resolve: Callable[[Client], Descriptor], answer: Response) -> None:
    registry = Registry(answer, served())
    assert resolve(registry.client) == MANIFEST
    assert [request.method for request in registry.requests] == ["HEAD", "GET"]
    assert registry.requests[1].headers.get_all("accept") == registry.requests[0].headers.get_all("accept")
    registry.check_done()


@resolves
@pytest.mark.parametrize("length", [None, "", "many", "-1"])
def test_resolve_without_content_length_sends_get(resolve: Callable[[Client], Descriptor], length: str | None) -> None:
    stated = {} if length is None else {"Content-Length": length}
    head = Response(200, {"Docker-Content-Digest": MANIFEST.digest, **stated})
    registry = Registry(head, served())
    assert resolve(registry.client) == MANIFEST
    assert [request.method for request in registry.requests] == ["HEAD", "GET"]
    registry.check_done()


def test_resolve_by_get_other_content_raises_digest_mismatch() -> None:
    registry = Registry(refused(405), served(b"another"), refused(405), served(Docker_Content_Digest=OTHER))
    with pytest.raises(errors.DigestMismatch):
        registry.client.resolve_manifest(NAME, MANIFEST.digest)
    with pytest.raises(errors.DigestMismatch):
        registry.client.resolve_tag(NAME, "latest")
    registry.check_done()


# --- names ---

BAD_NAMES: list[Any] = ["", "Upper", "a b", "../a", "a?b", "a/", None, b"a", 5]
BAD_TAGS: list[Any] = ["", "a b", "a/b", "../x", "-a", ".a", "a:b", "a?b", "a\n", "a" * 129, MANIFEST.digest, None, 5]
BAD_DIGESTS: list[Any] = ["", "latest", "sha256:abc", "sha256:../x", f"sha256:{'A' * 64}", None, 5]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_manifest_methods_invalid_repository_sends_nothing(name: Any) -> None:
    registry = Registry()
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


@pytest.mark.parametrize("tag", BAD_TAGS)
def test_manifest_methods_invalid_tag_sends_nothing(tag: Any) -> None:
    registry = Registry()
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


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_manifest_methods_invalid_digest_sends_nothing(digest: Any) -> None:
    registry = Registry()
    client = registry.client
    calls: list[Callable[[], Any]] = [
        lambda: client.get_manifest(NAME, digest),
        lambda: client.resolve_manifest(NAME, digest),
        lambda: client.delete_manifest(NAME, digest),
        lambda: client.delete_blob(NAME, digest),
        lambda: client.mount_blob("a", NAME, digest),
    ]
    for call in calls:
        with pytest.raises(errors.UsageError):
            call()
    assert registry.requests == []


def test_get_manifest_unknown_algorithm_sends_nothing() -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError, match="blake3"):
        registry.client.get_manifest(NAME, UNKNOWN)
    assert registry.requests == []


@pytest.mark.parametrize(
    "call",
    [
        *READS.values(),
        *RESOLVES.values(),
        *DELETES.values(),
        lambda client: client.push_manifest(NAME, CONTENT, OCI_MANIFEST),
        lambda client: client.mount_blob("a", "b", BLOB.digest),
        lambda client: client.get_blob_range(NAME, BLOB.digest, 3),
        lambda client: client.tags(NAME),
        lambda client: client.repositories(),
        lambda client: client.referrers(NAME, BLOB.digest),
    ],
)
def test_client_methods_closed_client_sends_nothing(call: Callable[[Client], Any]) -> None:
    registry = Registry()
    registry.client.close()
    with pytest.raises(errors.UsageError, match="closed"):
        call(registry.client)
    assert registry.requests == []


# --- pushing ---


def push(registry: Registry, content: Any = CONTENT, media_type: Any = OCI_MANIFEST, **options: Any) -> Descriptor:
    return registry.client.push_manifest(NAME, content, media_type, **options)


def test_push_manifest_without_tags_puts_by_digest() -> None:
    registry = Registry(Response(201))
    assert push(registry) == MANIFEST
    assert registry.lines == [f"PUT {MANIFESTS}/{MANIFEST.digest}"]
    assert registry.requests[0].headers.get_all("content-type") == (OCI_MANIFEST,)
    assert registry.transport.bodies == [CONTENT]
    assert registry.requests[0].body is not None
    assert registry.requests[0].body.resendable
    registry.check_done()


@pytest.mark.parametrize("tags", [["3.20"], ("3.20",), iter(["3.20"]), "3.20", ["3.20", "3.20"]])
def test_push_manifest_one_tag_sends_one_put(tags: Any) -> None:
    registry = Registry(Response(201))
    assert push(registry, tags=tags) == MANIFEST
    assert registry.lines == [f"PUT {MANIFESTS}/3.20"]
    registry.check_done()


@pytest.mark.parametrize(
    ("headers", "left"),
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
def test_push_manifest_several_tags_puts_tags_not_confirmed(headers: list[tuple[str, str]], left: list[str]) -> None:
    registry = Registry(Response(201, headers), *[Response(201)] * len(left))
    assert push(registry, tags=["a", "b", "c", "a"]) == MANIFEST
    assert registry.lines == [
        f"PUT {MANIFESTS}/{MANIFEST.digest}?tag=a&tag=b&tag=c",
        *(f"PUT {MANIFESTS}/{tag}" for tag in left),
    ]
    assert registry.transport.bodies == [CONTENT] * (1 + len(left))
    assert {request.headers["content-type"] for request in registry.requests} == {OCI_MANIFEST}
    registry.check_done()


@pytest.mark.parametrize("content", [CONTENT, bytearray(CONTENT), memoryview(CONTENT)])
def test_push_manifest_any_kind_of_bytes_sends_them(content: Any) -> None:
    registry = Registry(Response(201))
    assert push(registry, content) == MANIFEST
    assert registry.transport.bodies == [CONTENT]


@pytest.mark.parametrize("content", [CONTENT.decode(), None, 5, {"mediaType": OCI_MANIFEST}, [1, 2]])
def test_push_manifest_invalid_content_sends_nothing(content: Any) -> None:
    registry = Registry(Response(201))
    with pytest.raises(errors.UsageError):
        push(registry, content)
    assert registry.requests == []


@pytest.mark.parametrize("content", [SILENT, b"no JSON", b"[]", b'{"mediaType": null}'])
def test_push_manifest_content_without_media_type_is_sent(content: bytes) -> None:
    registry = Registry(Response(201))
    assert push(registry, content, "application/vnd.x+json") == Descriptor.of(content, "application/vnd.x+json")
    assert registry.transport.bodies == [content]
    registry.check_done()


@pytest.mark.parametrize("own", [OCI_INDEX, DOCKER_MANIFEST, "", "garbage", 5, [OCI_MANIFEST]])
def test_push_manifest_contradictory_media_type_sends_nothing(own: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        push(registry, json.dumps({"mediaType": own}).encode())
    assert registry.requests == []


@pytest.mark.parametrize("media_type", ["", "json", "a/b; charset=utf-8", "a/b\r\nX: y", None, 5])
def test_push_manifest_invalid_media_type_sends_nothing(media_type: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        push(registry, SILENT, media_type)
    assert registry.requests == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_push_manifest_given_digest_is_used(algorithm: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    registry = Registry(Response(201, {"Docker-Content-Digest": digest}))
    assert push(registry, digest=str(digest)) == MANIFEST.replace(digest=digest)
    assert registry.lines == [f"PUT {MANIFESTS}/{digest}"]
    registry.check_done()


@pytest.mark.parametrize("digest", [OTHER, Digest.of(b"another", "sha512"), UNKNOWN, "latest", "sha256:abc", 5])
def test_push_manifest_wrong_digest_sends_nothing(digest: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        push(registry, digest=digest)
    assert registry.requests == []


@pytest.mark.parametrize("tags", [(), ("a",), ("a", "b")])
def test_push_manifest_digest_header_differs_raises_digest_mismatch(tags: tuple[str, ...]) -> None:
    registry = Registry(Response(201, {"Docker-Content-Digest": OTHER}))
    with pytest.raises(errors.DigestMismatch) as caught:
        push(registry, tags=tags)
    assert (caught.value.expected, caught.value.actual) == (MANIFEST.digest, OTHER)
    registry.check_done()


@pytest.mark.parametrize("claimed", [MANIFEST.digest, Digest.of(CONTENT, "sha512"), UNKNOWN, "garbage", ""])
def test_push_manifest_unusable_digest_header_is_ignored(claimed: str) -> None:
    registry = Registry(Response(201, {"Docker-Content-Digest": claimed}))
    assert push(registry) == MANIFEST
    registry.check_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(400, "MANIFEST_INVALID"), errors.ManifestInvalid),
        (refused(404, "MANIFEST_BLOB_UNKNOWN"), errors.ManifestBlobUnknown),
        (refused(400, "BLOB_UNKNOWN"), errors.BlobUnknown),
        (refused(404, "NAME_UNKNOWN"), errors.NameUnknown),
        (refused(413), errors.SizeInvalid),
        (refused(403), errors.Denied),
        (Response(206), errors.RegistryError),
    ],
)
@pytest.mark.parametrize("tags", [(), ("a",), ("a", "b")])
def test_push_manifest_error_status_raises_registry_error(
    answer: Response, kind: type[Exception], tags: tuple[str, ...]
) -> None:
    registry = Registry(answer)
    with pytest.raises(errors.RegistryError) as caught:
        push(registry, tags=tags)
    assert type(caught.value) is kind
    registry.check_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    "headers", [{"Docker-Content-Digest": MANIFEST.digest}, {"Location": f"{MANIFESTS}/{MANIFEST.digest}"}]
)
@pytest.mark.parametrize("tags", [(), ("a",)])
def test_push_manifest_other_success_status_that_names_digest_is_success(
    status: int, headers: dict[str, str], tags: tuple[str, ...]
) -> None:
    registry = Registry(Response(status, headers))
    assert push(registry, tags=tags) == MANIFEST
    registry.check_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(("tags", "path"), [((), MANIFEST.digest), (("a",), "a")])
def test_push_manifest_other_success_status_is_confirmed_by_get(status: int, tags: tuple[str, ...], path: str) -> None:
    registry = Registry(Response(status), Response(200, {"Content-Type": MANIFEST.media_type}, CONTENT))
    assert push(registry, tags=tags) == MANIFEST
    assert registry.lines[1:] == [f"GET {MANIFESTS}/{path}"]
    registry.check_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    "answer", [refused(404), refused(403), Response(200, {"Content-Type": "text/html"}, b"<html>"), Response(200)]
)
def test_push_manifest_other_success_status_without_manifest_is_error(status: int, answer: Response) -> None:
    registry = Registry(Response(status), answer)
    with pytest.raises(errors.RegistryError, match="expected 201") as caught:
        push(registry, tags=["a"])
    assert caught.value.status == status
    registry.check_done()


def test_push_manifest_html_page_is_content_error() -> None:
    registry = Registry(Response(201, {"Content-Type": "text/html"}, b"<html>Log in</html>"))
    with pytest.raises(errors.ContentError, match="HTML page"):
        push(registry)
    registry.check_done()


@pytest.mark.parametrize("delete", ["delete_blob", "delete_manifest", "delete_tag"])
def test_delete_html_page_is_content_error(delete: str) -> None:
    page = Response(200, {"Content-Type": "text/html"}, b"<html>Log in</html>")
    registry = Registry(*[refused(404)] * (delete == "delete_manifest"), page)
    with pytest.raises(errors.ContentError, match=r"DELETE .* HTML page"):
        getattr(registry.client, delete)(NAME, "a" if delete == "delete_tag" else MANIFEST.digest)


def test_push_manifest_one_tag_refused_raises_denied() -> None:
    registry = Registry(Response(201, {"OCI-Tag": "a"}), refused(403))
    with pytest.raises(errors.Denied):
        push(registry, tags=["a", "b", "c"])
    assert registry.lines[1:] == [f"PUT {MANIFESTS}/b"]
    registry.check_done()


# --- warnings ---


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "ociwire.warnings"]


def test_warning_header_repeated_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fields = [("Warning", '299 - "it is old"'), ("Warning", '299 - "and ends"'), ("Warning", '299 - "it is old"')]
    registry = Registry(*[Response(200, Headers(fields), b"{}")] * 3)
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        for _ in range(2):
            registry.client.get_tag(NAME, "a").close()
        registry.client.with_options(timeout=5).get_tag(NAME, "a").close()
    said = warned(caplog)
    assert len(said) == 2
    assert "it is old" in said[0]
    assert "and ends" in said[1]
    assert all("registry.example" in text for text in said)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_warning_header_with_several_warnings_logs_each(caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Warning": '299 - "one, of two", 299 - "the \\"other\\""'}
    registry = Registry(Response(404, headers), Response(404), Response(202, {"Warning": '299 - "deleted"'}))
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        with pytest.raises(errors.ManifestUnknown):
            registry.client.resolve_tag(NAME, "a")
        registry.client.delete_tag(NAME, "a")
    assert [text.partition(": ")[2] for text in warned(caplog)] == ["one, of two", 'the "other"', "deleted"]


@pytest.mark.parametrize("warning", ['199 - "misc"', '110 a "stale"', "299 - bare", "299", "", "garbage", '2990 - "x"'])
def test_warning_header_other_than_299_is_not_logged(warning: str, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(served(Warning=warning))
    with caplog.at_level(logging.DEBUG, "ociwire.warnings"):
        registry.client.get_tag(NAME, "a").close()
    assert warned(caplog) == []


def test_warning_header_long_text_is_bounded_and_sanitized(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(served(Warning=f'299 - "\x1b[2J\x9bx\t{"y" * 10_000}"'))
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        registry.client.get_tag(NAME, "a").close()
    (text,) = warned(caplog)
    assert len(text) < 1000
    assert text.isprintable()


def test_warning_header_separate_clients_log_separately(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        for _ in range(2):
            Registry(served(Warning='299 - "old"')).client.get_tag(NAME, "a").close()
    assert len(warned(caplog)) == 2


# --- mounts ---

UPLOADS = f"{BASE}/v2/{NAME}/blobs/uploads/"
MOUNT = f"POST {UPLOADS}?mount={BLOB.digest}&from=other/source"


def mount(registry: Registry) -> Descriptor:
    return registry.client.mount_blob("other/source", NAME, BLOB.digest)


@pytest.mark.parametrize("answer", [CREATED, Response(201)])
def test_mount_blob_created_returns_descriptor(answer: Response) -> None:
    registry = Registry(answer, found())
    assert mount(registry) == BLOB
    assert registry.lines == [MOUNT, f"HEAD {BASE}/v2/{NAME}/blobs/{BLOB.digest}"]
    assert registry.requests[0].body is None
    assert registry.requests[0].info.idempotent is True
    scope = registry.requests[0].info.required_scope
    assert str(scope) == f"repository:{NAME}:pull,push repository:other/source:pull"  # the target first
    registry.check_done()


@pytest.mark.parametrize("cancelled", [Response(204), Response(202), refused(404), refused(500), refused(405)])
def test_mount_blob_not_mounted_cancels_upload_and_raises_unsupported(cancelled: Response) -> None:
    registry = Registry(accepted(), cancelled)
    with pytest.raises(errors.Unsupported) as caught:
        mount(registry)
    assert caught.value.status == 202
    assert BLOB.digest in str(caught.value)
    assert caught.value.request is not None
    assert caught.value.request.method == "POST"
    assert registry.lines == [MOUNT, f"DELETE {UPLOADS}1"]
    assert Scope.repository(NAME, "pull", "push") <= registry.requests[1].info.required_scope
    registry.check_done()


@pytest.mark.parametrize("location", [None, "", "http://elsewhere.example/u", "https://user:secret@registry.example/u"])
def test_mount_blob_invalid_location_raises_unsupported(location: str | None) -> None:
    registry = Registry(accepted(location))
    with pytest.raises(errors.Unsupported) as caught:
        mount(registry)
    assert "secret" not in str(caught.value)
    registry.check_done()


def test_mount_blob_cross_origin_location_is_cancelled_without_credentials() -> None:
    registry = Registry(accepted("https://storage.example/u?signature=s"), Response(204))
    with pytest.raises(errors.Unsupported):
        mount(registry)
    assert registry.lines[1] == "DELETE https://storage.example/u?signature=s"
    assert registry.requests[1].info.required_scope == Scope.EMPTY
    registry.check_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(401), errors.Unauthorized),
        (refused(401, "UNAUTHORIZED"), errors.Unauthorized),
        (refused(403), errors.Denied),
        (refused(403, "DENIED"), errors.Denied),
        (refused(404, "NAME_UNKNOWN"), errors.NameUnknown),
        (refused(404), errors.NameUnknown),
        (refused(405), errors.Unsupported),
        (Response(200), errors.Unsupported),
        (Response(204, {"Location": f"/v2/{NAME}/blobs/{BLOB.digest}"}), errors.Unsupported),
    ],
)
def test_mount_blob_error_status_raises_and_closes_response(answer: Response, kind: type[Exception]) -> None:
    registry = Registry(answer)
    with pytest.raises(errors.RegistryError) as caught:
        mount(registry)
    assert type(caught.value) is kind
    assert len(registry.requests) == 1
    registry.check_done()


# --- deletions ---


@pytest.mark.parametrize("status", [200, 202, 204])
def test_delete_methods_send_delete(status: int) -> None:
    registry = Registry(Response(status), Response(status), served(), Response(status))
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
    registry.check_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(404), errors.NotFound),
        (refused(405), errors.Unsupported),
        (refused(400, "UNSUPPORTED"), errors.Unsupported),
        (refused(401), errors.Unauthorized),
        (refused(403), errors.Denied),
        (Response(201), errors.RegistryError),
    ],
)
@pytest.mark.parametrize("name", DELETES)
def test_delete_methods_error_status_raises_registry_error(name: str, answer: Response, kind: type[Exception]) -> None:
    # A manifest that was read and then is not there has been deleted: refused is one that was never there.
    read = [refused(404) if answer.status == 404 else served()] if name == "delete_manifest" else []
    registry = Registry(*read, answer)
    if answer.status == 404:
        kind = errors.BlobUnknown if name == "delete_blob" else errors.ManifestUnknown
    with pytest.raises(errors.RegistryError) as caught:
        DELETES[name](registry.client)
    assert type(caught.value) is kind
    assert caught.value.request is not None
    assert caught.value.request.method == "DELETE"
    registry.check_done()


@pytest.mark.parametrize("unread", [refused(404), refused(403), refused(500)])
def test_delete_manifest_unreadable_manifest_is_deleted(unread: Response) -> None:
    registry = Registry(unread, Response(202))
    registry.client.delete_manifest(NAME, MANIFEST.digest)
    assert registry.lines[1:] == [f"DELETE {MANIFESTS}/{MANIFEST.digest}"]
    registry.check_done()


@pytest.mark.parametrize("unfit", [served(b"another"), served(b"x" * (LIMIT + 1)), served(b"{")])
def test_delete_manifest_invalid_manifest_is_read_twice_and_deleted(unfit: Response) -> None:
    registry = Registry(unfit, unfit, Response(202))
    registry.client.delete_manifest(NAME, MANIFEST.digest)
    assert registry.lines[2:] == [f"DELETE {MANIFESTS}/{MANIFEST.digest}"]
    registry.check_done()


def test_delete_methods_unknown_algorithm_sends_delete() -> None:
    def answer(request: Request) -> Response:
        return Response(202) if request.method == "DELETE" else served()

    client = Client("registry.example", FunctionTransport(lambda request: requests.append(request) or answer(request)))
    requests: list[Request] = []
    client.delete_blob(NAME, UNKNOWN)
    client.delete_manifest(NAME, UNKNOWN)
    deleted = [request.url for request in requests if request.method == "DELETE"]
    assert deleted == [f"{BASE}/v2/{NAME}/blobs/{UNKNOWN}", f"{MANIFESTS}/{UNKNOWN}"]


def test_delete_manifest_connect_error_sends_no_delete() -> None:
    registry = Registry(errors.ConnectError("refused"))
    with pytest.raises(errors.ConnectError):
        registry.client.delete_manifest(NAME, MANIFEST.digest)


# --- readers that are never read ---


@reads
@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "streamed"])
def test_manifest_reads_unread_reader_does_not_warn(read: Callable[[Client], BlobReader], streamed: bool) -> None:
    def answer(request: Request) -> Response:
        response = served(Docker_Content_Digest=MANIFEST.digest)
        return response.replace(body=io.BytesIO(response.read())) if streamed else response

    client = Client("registry.example", LogTransport(FunctionTransport(answer)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            read(client)
        gc.collect()
    assert caught == []


# --- what a HEAD states, and what a manifest is ---


@resolves
@pytest.mark.parametrize(
    "content_type", ["text/html", "application/json", "binary/octet-stream", "application/x-troff-man"]
)
def test_resolve_content_type_of_no_manifest_sends_get(
    resolve: Callable[[Client], Descriptor], content_type: str
) -> None:
    head = served(media_type=content_type, Docker_Content_Digest=MANIFEST.digest)
    registry = Registry(head, served(media_type=content_type))
    assert resolve(registry.client) == MANIFEST
    assert [request.method for request in registry.requests] == ["HEAD", "GET"]
    registry.check_done()


def test_resolve_manifest_unknown_algorithm_sends_no_get() -> None:
    """A GET could not be verified."""
    registry = Registry(refused(403), served(media_type="text/html"), served(b""))
    with pytest.raises(errors.Denied):
        registry.client.resolve_manifest(NAME, UNKNOWN)
    assert registry.client.resolve_manifest(NAME, UNKNOWN).size == len(CONTENT)
    with pytest.raises(errors.ProtocolError, match="does not tell the size"):
        registry.client.resolve_manifest(NAME, UNKNOWN)
    assert {request.method for request in registry.requests} == {"HEAD"}
    registry.check_done()


@pytest.mark.parametrize("status", [401, 410, 429, 502, 503, 504])
@resolves
def test_resolve_definite_error_status_sends_no_get(resolve: Callable[[Client], Descriptor], status: int) -> None:
    registry = Registry(refused(status))
    with pytest.raises(errors.RegistryError):
        resolve(registry.client)
    registry.check_done()


def test_resolve_tag_head_support_is_shared_by_with_options() -> None:
    registry = Registry(served(Docker_Content_Digest=MANIFEST.digest), refused(404))
    assert registry.client.resolve_tag(NAME, "a") == MANIFEST
    with pytest.raises(errors.ManifestUnknown):
        registry.client.with_options(timeout=1).resolve_tag(NAME, "b")
    registry.check_done()


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
    """Before the digest is compared: that of a signed one is of something else."""
    for call in (*READS.values(), *RESOLVES.values()):
        first = [refused(405)] if call in RESOLVES.values() else []
        registry = Registry(*first, served(content, content_type))
        with pytest.raises(errors.Unsupported) as caught:
            call(registry.client)
        assert str(caught.value) == (
            "Docker schema 1 manifests are not supported; push the image again with a current tool"
        )


@pytest.mark.parametrize(
    ("content_type", "fields", "found_to_be"),
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
    content_type: str, fields: dict[str, Any], found_to_be: str | None
) -> None:
    client = Registry(served(json.dumps({"schemaVersion": 2, **fields}).encode(), content_type)).client
    if found_to_be is None:
        with pytest.raises(errors.ContentError):
            client.get_tag(NAME, "a")
    else:
        with client.get_tag(NAME, "a") as reader:
            assert reader.descriptor.media_type == found_to_be


@pytest.mark.parametrize("content", [b"<html>", b" \n<!DOCTYPE html>", b"\xef\xbb\xbf<html>", b"<?xml version='1.0'?>"])
@pytest.mark.parametrize("content_type", [OCI_MANIFEST, "text/html", None])
def test_manifest_reads_html_page_is_named_in_error(content: bytes, content_type: str | None) -> None:
    registry = Registry(served(content, content_type), served(content, content_type))
    with pytest.raises(errors.ContentError, match="HTML page"):
        registry.client.get_tag(NAME, "a")
    with pytest.raises(errors.DigestMismatch, match="HTML page"):
        registry.client.get_manifest(NAME, MANIFEST.digest)
    registry.check_done()


# --- max_manifest_size ---


def test_max_manifest_size_raised_reads_larger_manifest() -> None:
    content = b'{"schemaVersion": 2, "annotations": {"a": "' + b"x" * LIMIT + b'"}}'
    registry = Registry(served(content))
    with pytest.raises(errors.ContentError, match=r"raise the limit with Client\(max_manifest_size=") as caught:
        registry.client.get_tag(NAME, "a")
    assert str(LIMIT) in str(caught.value)
    raised = Registry(served(content), max_manifest_size=2 * LIMIT)
    with raised.client.with_options(timeout=1).get_tag(NAME, "a") as reader:
        assert reader.read() == content


def test_max_manifest_size_lowered_refuses_larger_manifest() -> None:
    for size, fits in ((len(CONTENT), True), (len(CONTENT) - 1, False)):
        registry = Registry(served(), max_manifest_size=size)
        if fits:
            registry.client.get_tag(NAME, "a").close()
        else:
            with pytest.raises(errors.ContentError):
                registry.client.get_tag(NAME, "a")


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "1"])
def test_max_manifest_size_invalid_raises_usage_error(size: Any) -> None:
    with pytest.raises(errors.UsageError, match="max_manifest_size"):
        Client("registry.example", FunctionTransport(lambda request: Response(404)), max_manifest_size=size)
