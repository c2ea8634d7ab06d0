"""MemoryRegistry: each requirement of the OCI distribution specification 1.1 and of RFC 9110."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, Request, Response, errors
from ociwire._http.body import Body
from ociwire.media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST
from ociwire.registry.memory import MemoryRegistry
from ociwire.transport import Transport

CONTENT = bytes(range(256)) * 4
DIGEST = Digest.of(CONTENT)
ABSENT = Digest.of(b"never pushed")
UNKNOWN_ALGORITHM = "blake3:" + "ab" * 32
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
UPLOADS = "/v2/a/b/blobs/uploads/"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Specification, "Error Codes".
CODES = {
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNSUPPORTED",
}


def send(
    registry: Transport, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Response:
    content = None if body is None else Body.of(body)
    request = Request(method, url, headers or {}, content)
    response = registry.round_trip(request)
    assert response.request is request
    if method == "HEAD" or response.status in (204, 304):
        assert response.length == 0
    if response.status not in (204, 304) and method != "HEAD":
        assert response.headers["content-length"] == str(response.length)
    return response


def assert_refused(response: Response, status: int, code: str = "") -> list[str]:
    """Check an error response and return its messages."""
    assert response.status == status
    if not code:
        assert response.headers["content-type"].startswith("text/plain")
        return [response.read().decode()]
    assert code in CODES
    found = response.json()
    assert list(found) == ["errors"]
    assert {error["code"] for error in found["errors"]} == {code}
    return [error["message"] for error in found["errors"]]


def unread_body() -> Iterator[bytes]:
    """Content that fails the test when it is read."""
    raise AssertionError("a chunk was pulled")
    yield b""


def start_upload(registry: Transport, url: str = UPLOADS) -> str:
    response = send(registry, "POST", url)
    assert response.status == 202
    return response.headers["location"]


def store_blob(registry: Transport, content: bytes = CONTENT, name: str = "a/b", algorithm: str = "sha256") -> Digest:
    digest = Digest.of(content, algorithm)
    assert send(registry, "POST", f"/v2/{name}/blobs/uploads/?digest={digest}", content).status == 201
    return digest


def manifest(registry: Transport | None = None, name: str = "a/b", **fields: Any) -> bytes:
    """Return an image manifest. If a registry is given, its config is stored there."""
    config = b"{}"
    if registry is not None:
        store_blob(registry, config, name)
    described = Descriptor.of(config, CONFIG_TYPE).to_dict()
    content = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": [], **fields}
    return json.dumps({key: value for key, value in content.items() if value is not None}).encode()


def put_manifest(
    registry: Transport, reference: str, content: Any, media_type: str | None = OCI_MANIFEST, **headers: str
) -> Response:
    fields = {"Content-Type": media_type} if media_type else {}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    return send(registry, "PUT", f"/v2/a/b/manifests/{reference}", content, fields)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


# --- determining support ---


def test_base_is_200(registry: MemoryRegistry) -> None:
    response = send(registry, "GET", "/v2/")
    assert (response.status, response.json()) == (200, {})
    assert response.headers["docker-distribution-api-version"] == "registry/2.0"


@pytest.mark.parametrize("url", ["https://one.example/v2/", "http://127.0.0.1:5000/v2/", "/v2/"])
def test_base_any_host_is_200(registry: MemoryRegistry, url: str) -> None:
    store_blob(registry)
    assert send(registry, "GET", url).status == 200
    assert send(registry, "HEAD", f"{url}a/b/blobs/{DIGEST}").status == 200


@pytest.mark.parametrize("path", ["/", "/v2", "/v1/", "/v2/a", "/v2/a/tags", "/v2/a/manifests/", "/v2/_other", ""])
def test_unknown_path_is_404(registry: MemoryRegistry, path: str) -> None:
    assert_refused(send(registry, "GET", f"https://registry.example{path}"), 404)


# --- pulling blobs ---


def test_get_blob_returns_content_and_digest(registry: MemoryRegistry) -> None:
    store_blob(registry)
    response = send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}")
    assert (response.status, response.read()) == (200, CONTENT)
    assert response.headers["docker-content-digest"] == DIGEST
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["accept-ranges"] == "bytes"


def test_head_blob_returns_digest_and_size(registry: MemoryRegistry) -> None:
    store_blob(registry)
    response = send(registry, "HEAD", f"/v2/a/b/blobs/{DIGEST}")
    assert (response.status, response.read()) == (200, b"")
    assert response.headers["docker-content-digest"] == DIGEST
    assert response.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("path", [f"/v2/a/b/blobs/{ABSENT}", f"/v2/no/such/blobs/{DIGEST}"])
def test_get_blob_of_other_repository_is_404(registry: MemoryRegistry, method: str, path: str) -> None:
    store_blob(registry)
    response = send(registry, method, path)
    assert response.status == 404
    if method != "HEAD":
        assert_refused(response, 404, "BLOB_UNKNOWN")


def test_get_blob_unknown_algorithm_is_404(registry: MemoryRegistry) -> None:
    assert_refused(send(registry, "GET", f"/v2/a/b/blobs/{UNKNOWN_ALGORITHM}"), 404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("digest", ["sha256:abc", "latest", "SHA256:" + "0" * 64, "sha256%3A"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_get_blob_invalid_digest_is_refused(registry: MemoryRegistry, method: str, digest: str) -> None:
    assert_refused(send(registry, method, f"/v2/a/b/blobs/{digest}"), 400, "DIGEST_INVALID")


def test_get_blob_percent_encoded_path_is_decoded(registry: MemoryRegistry) -> None:
    store_blob(registry)
    assert send(registry, "GET", f"/v2/a/b/blobs/{DIGEST.replace(':', '%3A')}").read() == CONTENT


SIZE = len(CONTENT)


@pytest.mark.parametrize(
    ("stated", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("bytes=5-", 5, SIZE - 1),
        (f"bytes=0-{SIZE}", 0, SIZE - 1),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=-1", SIZE - 1, SIZE - 1),
        ("bytes=-10", SIZE - 10, SIZE - 1),
        (f"bytes=-{SIZE + 7}", 0, SIZE - 1),
        ("Bytes= 1-2 ", 1, 2),
    ],
)
def test_get_blob_range_is_206(registry: MemoryRegistry, stated: str, first: int, last: int) -> None:
    store_blob(registry)
    response = send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}", headers={"Range": stated})
    assert (response.status, response.read()) == (206, CONTENT[first : last + 1])
    assert response.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"


@pytest.mark.parametrize("stated", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 1}", "bytes=-0"])
def test_get_blob_unsatisfiable_range_is_416(registry: MemoryRegistry, stated: str) -> None:
    store_blob(registry)
    response = send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}", headers={"Range": stated})
    assert_refused(response, 416)
    assert response.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "stated", ["bytes=9-5", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=0-1,4-5", "0-1", "bytes=0-" + "9" * 30]
)
def test_get_blob_invalid_or_multiple_range_is_ignored(registry: MemoryRegistry, stated: str) -> None:
    store_blob(registry)
    response = send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}", headers={"Range": stated})
    assert (response.status, response.read()) == (200, CONTENT)


def test_get_blob_range_of_head_or_with_if_range_is_ignored(registry: MemoryRegistry) -> None:
    store_blob(registry)
    head = send(registry, "HEAD", f"/v2/a/b/blobs/{DIGEST}", headers={"Range": "bytes=0-1"})
    assert (head.status, head.headers["content-length"]) == (200, str(SIZE))
    get = send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}", headers={"Range": "bytes=0-1", "If-Range": '"x"'})
    assert (get.status, get.read()) == (200, CONTENT)


@pytest.mark.parametrize(("stated", "status"), [("bytes=0-", 416), ("bytes=-5", 200), ("bytes=-0", 416)])
def test_get_blob_range_of_empty_blob(registry: MemoryRegistry, stated: str, status: int) -> None:
    empty = store_blob(registry, b"")
    assert send(registry, "GET", f"/v2/a/b/blobs/{empty}", headers={"Range": stated}).status == status


# --- monolithic uploads ---


def test_upload_post_and_put_stores_blob(registry: MemoryRegistry) -> None:
    response = send(registry, "POST", UPLOADS)
    assert response.status == 202
    location = response.headers["location"]
    assert re.fullmatch(rf"{UPLOADS}{UUID}", location), "the location MUST contain a UUID"
    assert response.headers["docker-upload-uuid"] in location
    assert "oci-chunk-min-length" not in response.headers
    done = send(registry, "PUT", f"{location}?digest={DIGEST}", CONTENT)
    assert done.status == 201
    assert done.headers["docker-content-digest"] == DIGEST
    assert send(registry, "GET", done.headers["location"]).read() == CONTENT, "a pullable blob URL"
    assert_refused(send(registry, "GET", location), 404, "BLOB_UPLOAD_UNKNOWN")
    assert registry.open_uploads == 0


def test_upload_sessions_are_unique(registry: MemoryRegistry) -> None:
    assert len({start_upload(registry) for _ in range(10)}) == 10
    assert registry.open_uploads == 10


def test_upload_single_post_stores_blob(registry: MemoryRegistry) -> None:
    done = send(registry, "POST", f"{UPLOADS}?digest={DIGEST}", CONTENT)
    assert done.status == 201
    assert send(registry, "GET", done.headers["location"]).read() == CONTENT
    assert registry.open_uploads == 0


@pytest.mark.parametrize("body", [None, b"", iter([])])
def test_upload_empty_blob_is_stored(registry: MemoryRegistry, body: Any) -> None:
    empty = Digest.of(b"")
    assert send(registry, "PUT", f"{start_upload(registry)}?digest={empty}", body).status == 201
    response = send(registry, "GET", f"/v2/a/b/blobs/{empty}")
    assert (response.status, response.headers["content-length"], response.read()) == (200, "0", b"")


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_upload_blob_of_other_algorithm_is_stored(registry: MemoryRegistry, algorithm: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    location = start_upload(registry, f"{UPLOADS}?digest-algorithm={algorithm}")
    done = send(registry, "PUT", f"{location}?digest={digest}", CONTENT)
    assert (done.status, done.headers["docker-content-digest"]) == (201, digest)
    assert send(registry, "GET", f"/v2/a/b/blobs/{digest}").read() == CONTENT


def test_upload_unsupported_algorithm_is_refused(registry: MemoryRegistry) -> None:
    assert_refused(send(registry, "POST", f"{UPLOADS}?digest-algorithm=md5"), 400, "DIGEST_INVALID")
    assert registry.open_uploads == 0


@pytest.mark.parametrize("digest", ["", "?digest=", "?digest=abc", f"?digest={UNKNOWN_ALGORITHM}", "?digest=sha256:12"])
def test_upload_put_without_known_digest_is_refused_unread(registry: MemoryRegistry, digest: str) -> None:
    location = start_upload(registry)
    assert_refused(send(registry, "PUT", location + digest, unread_body()), 400, "DIGEST_INVALID")
    assert send(registry, "GET", location).status == 204
    if digest:
        assert_refused(send(registry, "POST", UPLOADS + digest, unread_body()), 400, "DIGEST_INVALID")
        assert registry.open_uploads == 1


def test_upload_digest_mismatch_is_refused_and_not_stored(registry: MemoryRegistry) -> None:
    location = start_upload(registry)
    for method, url in [("PUT", f"{location}?digest={ABSENT}"), ("POST", f"{UPLOADS}?digest={ABSENT}")]:
        (message,) = assert_refused(send(registry, method, url, CONTENT), 400, "DIGEST_INVALID")
        assert ABSENT in message
        assert DIGEST in message
    assert registry.stored_bytes == 0
    assert send(registry, "GET", f"/v2/a/b/blobs/{ABSENT}").status == 404
    assert send(registry, "PUT", f"{location}?digest={DIGEST}", CONTENT).status == 201, "the upload is where it was"


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("PUT", f"{UPLOADS}none?digest={DIGEST}", 404),
        ("PATCH", f"{UPLOADS}none", 404),
        ("POST", UPLOADS, 202),
        ("POST", "/v2/A/blobs/uploads/", 400),
        ("PUT", f"/v2/a/b/blobs/{DIGEST}", 405),
        ("PUT", f"/v2/a/b/manifests/{UNKNOWN_ALGORITHM}", 400),
        ("PUT", "/v2/a/b/manifests/-", 400),
        ("PUT", f"/v2/a/b/manifests/{DIGEST}?tag=-", 400),
        ("GET", "/v2/", 200),
        ("PUT", "/elsewhere", 404),
    ],
)
def test_upload_refused_body_is_not_read(registry: MemoryRegistry, method: str, url: str, status: int) -> None:
    body = Body.of(unread_body())
    assert send(registry, method, url, body).status == status
    assert body.resendable


def test_upload_of_other_repository_is_404(registry: MemoryRegistry) -> None:
    elsewhere = start_upload(registry).replace("/a/b/", "/c/")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert_refused(
            send(registry, method, f"{elsewhere}?digest={DIGEST}", unread_body()), 404, "BLOB_UPLOAD_UNKNOWN"
        )


def test_upload_open_creates_no_repository(registry: MemoryRegistry) -> None:
    start_upload(registry)
    assert send(registry, "GET", "/v2/_catalog").json() == {"repositories": []}


# --- chunked uploads ---


def send_chunk(registry: Transport, location: str, first: int, content: Any, length: int | None = None) -> Response:
    last = first + (len(content) if length is None else length) - 1
    return send(registry, "PATCH", location, content, {"Content-Range": f"{first}-{last}"})


def test_upload_chunks_in_order_are_stored(registry: MemoryRegistry) -> None:
    location = start_upload(registry)
    for first in range(0, 300, 100):
        response = send_chunk(registry, location, first, CONTENT[first : first + 100])
        assert (response.status, response.headers["range"]) == (202, f"0-{first + 99}")
        location = response.headers["location"]
    status = send(registry, "GET", location)
    assert (status.status, status.headers["range"]) == (204, "0-299")
    assert status.headers["location"] == location
    assert "content-length" not in status.headers
    done = send(registry, "PUT", f"{location}?digest={Digest.of(CONTENT[:300])}")
    assert done.status == 201
    assert send(registry, "GET", done.headers["location"]).read() == CONTENT[:300]


def test_upload_final_chunk_in_put_is_stored(registry: MemoryRegistry) -> None:
    location = start_upload(registry)
    send_chunk(registry, location, 0, CONTENT[:1000])
    url = f"{location}?digest={DIGEST}"
    headers = {"Content-Range": f"1000-{len(CONTENT) - 1}"}
    assert send(registry, "PUT", url, CONTENT[1000:], headers).status == 201
    assert send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}").read() == CONTENT


def test_upload_closing_put_verifies_whole_content(registry: MemoryRegistry) -> None:
    location = start_upload(registry)
    send_chunk(registry, location, 0, CONTENT[:1000])
    url = f"{location}?digest={Digest.of(CONTENT[1000:])}"
    assert_refused(send(registry, "PUT", url, CONTENT[1000:]), 400, "DIGEST_INVALID")
    assert send(registry, "GET", location).headers["range"] == "0-999"


@pytest.mark.parametrize("first", [0, 99, 101, 200])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_upload_chunk_out_of_order_is_416(registry: MemoryRegistry, method: str, first: int) -> None:
    location = start_upload(registry)
    send_chunk(registry, location, 0, CONTENT[:100])
    headers = {"Content-Range": f"{first}-{first + 9}"}
    response = send(registry, method, f"{location}?digest={DIGEST}", unread_body(), headers)
    (message,) = assert_refused(response, 416)
    assert "100" in message
    assert (response.headers["location"], response.headers["range"]) == (location, "0-99")
    assert send(registry, "GET", location).headers["range"] == "0-99"
    assert send_chunk(registry, location, 100, CONTENT[100:200]).status == 202, "it goes on where it was"


def test_upload_first_chunk_not_at_0_is_416(registry: MemoryRegistry) -> None:
    location = start_upload(registry)
    assert_refused(send_chunk(registry, location, 1, unread_body(), 10), 416)
    assert send(registry, "GET", location).headers["range"] == "0-0"


@pytest.mark.parametrize(
    "stated", ["bytes 0-9", "bytes=0-9", "0-9/10", "9-0", "0-", "-9", "0-9,", "x", " ", "0-" + "9" * 30]
)
def test_upload_invalid_content_range_is_refused(registry: MemoryRegistry, stated: str) -> None:
    location = start_upload(registry)
    response = send(registry, "PATCH", location, unread_body(), {"Content-Range": stated})
    assert_refused(response, 400, "BLOB_UPLOAD_INVALID")
    assert send(registry, "GET", location).headers["range"] == "0-0"


@pytest.mark.parametrize("body", [b"12345", [b"123", b"45"]])
@pytest.mark.parametrize("length", [4, 6])
def test_upload_content_range_of_other_length_is_refused(registry: MemoryRegistry, body: Any, length: int) -> None:
    location = start_upload(registry)
    (message,) = assert_refused(send_chunk(registry, location, 0, body, length), 400, "SIZE_INVALID")
    assert f"{length}" in message
    assert send(registry, "GET", location).headers["range"] == "0-0"


def test_upload_content_range_of_other_known_length_is_refused_unread(
    registry: MemoryRegistry,
) -> None:
    body = Body.of(unread_body(), 5)
    assert_refused(send_chunk(registry, start_upload(registry), 0, body, 4), 400, "SIZE_INVALID")


def test_upload_chunk_without_content_range_is_appended(registry: MemoryRegistry) -> None:
    location = start_upload(registry)
    for chunk in ([b"one ", b"two "], b"three"):
        assert send(registry, "PATCH", location, chunk).status == 202
    assert send(registry, "GET", location).headers["range"] == "0-12"
    assert send(registry, "PATCH", location).headers["range"] == "0-12", "nothing adds nothing"
    assert send(registry, "PUT", f"{location}?digest={Digest.of(b'one two three')}").status == 201


@pytest.mark.parametrize("size", [0, 1])
def test_upload_status_has_range(registry: MemoryRegistry, size: int) -> None:
    location = start_upload(registry)
    send(registry, "PATCH", location, b"x" * size)
    assert send(registry, "GET", location).headers["range"] == "0-0"


def test_upload_cancelled_is_404(registry: MemoryRegistry) -> None:
    location = start_upload(registry)
    send_chunk(registry, location, 0, CONTENT)
    assert send(registry, "DELETE", location).status == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert_refused(send(registry, method, f"{location}?digest={DIGEST}"), 404, "BLOB_UPLOAD_UNKNOWN")
    assert registry.open_uploads == 0


def test_upload_min_chunk_length_is_announced_and_enforced() -> None:
    registry = MemoryRegistry(min_chunk_length=10)
    response = send(registry, "POST", UPLOADS)
    assert response.headers["oci-chunk-min-length"] == "10"
    location = response.headers["location"]
    response = send_chunk(registry, location, 0, b"0123456789")
    assert (response.status, response.headers["oci-chunk-min-length"]) == (202, "10")
    assert send(registry, "GET", location).headers["oci-chunk-min-length"] == "10", "for a writer that resumes it"
    assert send_chunk(registry, location, 10, b"last").status == 202, "the final chunk MAY have any length"
    for method in ("PATCH", "PUT"):
        response = send(registry, method, f"{location}?digest={DIGEST}", unread_body(), {"Content-Range": "14-23"})
        assert_refused(response, 400, "BLOB_UPLOAD_INVALID")
    assert send(registry, "PUT", f"{location}?digest={Digest.of(b'0123456789last')}").status == 201
    assert send(registry, "PUT", f"{start_upload(registry)}?digest={Digest.of(b'x')}", b"x").status == 201


# --- content that raises an exception ---


class Broken(Exception):
    pass


def failing_body(*chunks: bytes) -> Iterator[bytes]:
    yield from chunks
    raise Broken


def test_upload_body_raises_keeps_upload_unchanged(registry: MemoryRegistry) -> None:
    location = start_upload(registry)
    send_chunk(registry, location, 0, b"kept")
    headers = {"Content-Range": "4-12"}
    for method in ("PATCH", "PUT"):
        with pytest.raises(Broken):
            send(registry, method, f"{location}?digest={Digest.of(b'kepthalf')}", failing_body(b"half"), headers)
        assert send(registry, "GET", location).headers["range"] == "0-3"
    with pytest.raises(Broken):
        send(registry, "POST", f"{UPLOADS}?digest={Digest.of(b'half')}", failing_body(b"half"))
    with pytest.raises(Broken):
        put_manifest(registry, "latest", failing_body(b"{"))
    assert registry.stored_bytes == 0
    assert registry.open_uploads == 1
    assert send(registry, "PUT", f"{location}?digest={Digest.of(b'kept')}").status == 201


@pytest.mark.parametrize(("length", "word"), [(3, "longer"), (9, "shorter")])
def test_upload_body_of_wrong_length_raises_size_mismatch(registry: MemoryRegistry, length: int, word: str) -> None:
    location = start_upload(registry)
    with pytest.raises(errors.SizeMismatch, match=word) as caught:
        send(registry, "PUT", f"{location}?digest={DIGEST}", Body.of([b"12", b"345"], length))
    assert (caught.value.expected, caught.value.actual) == (length, 5)
    assert send(registry, "GET", location).headers["range"] == "0-0"


def test_upload_body_longer_than_length_is_read_no_further(registry: MemoryRegistry) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"12", b"345")
        raise AssertionError("a third chunk was pulled")

    with pytest.raises(errors.SizeMismatch):
        send(registry, "PATCH", start_upload(registry), Body.of(chunks(), 4))


def test_upload_consumed_body_is_refused(registry: MemoryRegistry) -> None:
    body = Body.of(iter([b"once"]))
    assert send(registry, "PATCH", start_upload(registry), body).status == 202
    location = start_upload(registry)
    with pytest.raises(errors.BodyConsumedError):
        send(registry, "PATCH", location, body)
    assert send(registry, "GET", location).headers["range"] == "0-0"


def test_upload_body_opened_again_meanwhile_is_refused(registry: MemoryRegistry, tmp_path: Any) -> None:
    (tmp_path / "content").write_bytes(bytes(3 * 64 * 1024))
    location = start_upload(registry)
    with (tmp_path / "content").open("rb") as file:
        body = Body.of(file).map(lambda chunk: (body.open(), chunk)[1])
        assert body.length
        with pytest.raises((errors.BodyConsumedError, errors.SizeMismatch)):
            send(registry, "PATCH", location, body)
    assert send(registry, "GET", location).headers["range"] == "0-0"


# --- mounts ---


def test_mount_from_other_repository_is_201(registry: MemoryRegistry) -> None:
    store_blob(registry, name="source")
    response = send(registry, "POST", f"{UPLOADS}?mount={DIGEST}&from=source")
    assert response.status == 201
    assert response.headers["docker-content-digest"] == DIGEST
    assert response.headers["location"] == f"/v2/a/b/blobs/{DIGEST}"
    assert send(registry, "GET", response.headers["location"]).read() == CONTENT
    assert registry.open_uploads == 0


@pytest.mark.parametrize("source", ["", "&from="])
def test_mount_without_from_finds_blob(registry: MemoryRegistry, source: str) -> None:
    assert_refused(send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}"), 404, "BLOB_UNKNOWN")
    store_blob(registry, name="anywhere")
    assert send(registry, "POST", f"{UPLOADS}?mount={DIGEST}{source}").status == 201
    assert send(registry, "HEAD", f"/v2/a/b/blobs/{DIGEST}").status == 200


@pytest.mark.parametrize("query", [f"mount={ABSENT}&from=source", f"mount={DIGEST}&from=other", f"mount={ABSENT}"])
def test_mount_unknown_blob_opens_upload(registry: MemoryRegistry, query: str) -> None:
    store_blob(registry, name="source")
    store_blob(registry, b"other", name="other")
    response = send(registry, "POST", f"{UPLOADS}?{query}")
    assert response.status == 202
    assert registry.open_uploads == 1
    assert send(registry, "PUT", f"{response.headers['location']}?digest={ABSENT}", b"never pushed").status == 201


def test_mount_disabled_opens_upload() -> None:
    registry = MemoryRegistry(mounts=False)
    store_blob(registry, name="source")
    assert send(registry, "POST", f"{UPLOADS}?mount={DIGEST}&from=source").status == 202
    assert send(registry, "HEAD", f"/v2/a/b/blobs/{DIGEST}").status == 404


@pytest.mark.parametrize("digest", ["", "abc", UNKNOWN_ALGORITHM])
def test_mount_invalid_digest_is_refused(registry: MemoryRegistry, digest: str) -> None:
    assert_refused(send(registry, "POST", f"{UPLOADS}?mount={digest}"), 400, "DIGEST_INVALID")


def test_blob_of_two_repositories_is_stored_once_until_both_delete_it(registry: MemoryRegistry) -> None:
    names = [f"name{number}" for number in range(20)]
    store_blob(registry, name="source")
    store_blob(registry, name="again")
    for name in names:
        assert send(registry, "POST", f"/v2/{name}/blobs/uploads/?mount={DIGEST}").status == 201
        assert send(registry, "POST", f"/v2/{name}/blobs/uploads/?mount={DIGEST}").status == 201
    assert registry.stored_bytes == len(CONTENT)
    for name in ["source", "again", *names]:
        assert registry.stored_bytes == len(CONTENT)
        assert send(registry, "GET", f"/v2/{name}/blobs/{DIGEST}").read() == CONTENT
        assert send(registry, "DELETE", f"/v2/{name}/blobs/{DIGEST}").status == 202
    assert registry.stored_bytes == 0
    assert send(registry, "POST", f"{UPLOADS}?mount={DIGEST}").status == 202


# --- manifests ---


@pytest.mark.parametrize("by_digest", [True, False])
def test_get_manifest_returns_pushed_bytes(registry: MemoryRegistry, by_digest: bool) -> None:
    content = b"  " + manifest(registry) + b"\n"
    digest = Digest.of(content)
    reference = digest if by_digest else "latest"
    response = put_manifest(registry, reference, content)
    assert response.status == 201
    assert response.headers["docker-content-digest"] == digest
    assert "oci-subject" not in response.headers
    assert "oci-tag" not in response.headers
    for url in (response.headers["location"], f"/v2/a/b/manifests/{reference}"):
        found = send(registry, "GET", url)
        assert (found.status, found.read()) == (200, content)
        head = send(registry, "HEAD", url)
        assert (head.status, head.headers["content-length"]) == (200, str(len(content)))
        for one in (found, head):
            assert one.headers["content-type"] == OCI_MANIFEST
            assert one.headers["docker-content-digest"] == digest
    assert send(registry, "GET", f"/v2/a/b/blobs/{digest}").status == 404, "it is no blob"


@pytest.mark.parametrize(
    "path", ["a/b/manifests/none", f"a/b/manifests/{ABSENT}", "no/such/manifests/latest", f"a/b/manifests/{DIGEST}"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_get_manifest_of_other_repository_is_404(registry: MemoryRegistry, method: str, path: str) -> None:
    store_blob(registry)
    put_manifest(registry, "latest", manifest(registry))
    response = send(registry, method, f"/v2/{path}")
    assert response.status == 404
    if method != "HEAD":
        assert_refused(response, 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("reference", ["-latest", ".INVALID", "a b", "x" * 129, "la%2Btest"])
def test_get_manifest_invalid_reference_is_refused(registry: MemoryRegistry, reference: str) -> None:
    url = f"/v2/a/b/manifests/{reference.replace(' ', '%20')}"
    for method in ("GET", "DELETE"):
        assert_refused(send(registry, method, url), 404, "MANIFEST_UNKNOWN")
    assert_refused(send(registry, "PUT", url, unread_body()), 400, "MANIFEST_INVALID")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_get_manifest_malformed_digest_is_refused(registry: MemoryRegistry, method: str) -> None:
    assert_refused(send(registry, method, "/v2/a/b/manifests/sha256:12"), 400, "DIGEST_INVALID")


def test_put_manifest_tag_of_128_characters_is_accepted(registry: MemoryRegistry) -> None:
    assert put_manifest(registry, "x" * 128, manifest(registry)).status == 201


def test_put_manifest_existing_tag_moves(registry: MemoryRegistry) -> None:
    first, second = manifest(registry, annotations={"n": "1"}), manifest(registry, annotations={"n": "2"})
    put_manifest(registry, "latest", first)
    put_manifest(registry, "latest", second)
    assert send(registry, "GET", "/v2/a/b/manifests/latest").read() == second
    assert send(registry, "GET", f"/v2/a/b/manifests/{Digest.of(first)}").read() == first


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_put_manifest_other_algorithm_is_stored(registry: MemoryRegistry, algorithm: str) -> None:
    content = manifest(registry)
    digest = Digest.of(content, algorithm)
    response = put_manifest(registry, f"{digest}?tag=one", content)
    assert (response.status, response.headers["docker-content-digest"]) == (201, digest)
    for reference in (digest, "one"):
        found = send(registry, "GET", f"/v2/a/b/manifests/{reference}")
        assert (found.read(), found.headers["docker-content-digest"]) == (content, digest)


def test_put_manifest_digest_mismatch_is_refused(registry: MemoryRegistry) -> None:
    (message,) = assert_refused(put_manifest(registry, ABSENT, manifest(registry)), 400, "DIGEST_INVALID")
    assert ABSENT in message


def test_put_manifest_tag_parameters_set_tags(registry: MemoryRegistry) -> None:
    content = manifest(registry)
    response = put_manifest(registry, f"{Digest.of(content)}?tag=one&tag=two&tag=one", content)
    assert response.status == 201
    assert response.headers.get_all("oci-tag") == ("one", "two")
    for tag in ("one", "two"):
        assert send(registry, "GET", f"/v2/a/b/manifests/{tag}").read() == content


def test_put_manifest_by_tag_ignores_tag_parameter(registry: MemoryRegistry) -> None:
    response = put_manifest(registry, "one?tag=two", manifest(registry))
    assert "oci-tag" not in response.headers
    assert send(registry, "GET", "/v2/a/b/manifests/two").status == 404


def test_put_manifest_invalid_tag_parameter_sets_no_tag(registry: MemoryRegistry) -> None:
    content = manifest(registry)
    assert_refused(put_manifest(registry, f"{Digest.of(content)}?tag=one&tag=-", content), 400, "MANIFEST_INVALID")
    assert send(registry, "GET", "/v2/a/b/manifests/one").status == 404
    assert send(registry, "GET", f"/v2/a/b/manifests/{Digest.of(content)}").status == 404


def test_put_manifest_content_type_parameters_are_ignored(registry: MemoryRegistry) -> None:
    assert put_manifest(registry, "latest", manifest(registry), f"{OCI_MANIFEST}; charset=utf-8").status == 201
    assert send(registry, "GET", "/v2/a/b/manifests/latest").headers["content-type"] == OCI_MANIFEST


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST, "application/vnd.example+json"])
def test_get_manifest_returns_pushed_content_type(registry: MemoryRegistry, media_type: str) -> None:
    assert put_manifest(registry, "latest", manifest(registry, mediaType=None), media_type).status == 201
    assert send(registry, "GET", "/v2/a/b/manifests/latest").headers["content-type"] == media_type


def test_put_manifest_without_content_type_uses_media_type_field(registry: MemoryRegistry) -> None:
    assert put_manifest(registry, "latest", manifest(registry), None).status == 201
    assert send(registry, "GET", "/v2/a/b/manifests/latest").headers["content-type"] == OCI_MANIFEST
    assert_refused(put_manifest(registry, "none", manifest(registry, mediaType=None), None), 400, "MANIFEST_INVALID")


@pytest.mark.parametrize("content", [b"{}", b'{"schemaVersion": 2}', b'{"layers": []}', b'{"config": null}'])
@pytest.mark.parametrize("media_type", [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST_LIST])
def test_put_manifest_missing_optional_fields_is_accepted(
    registry: MemoryRegistry, content: bytes, media_type: str
) -> None:
    assert put_manifest(registry, "latest", content, media_type).status == 201


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"", OCI_MANIFEST),
        (b"{", OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        (b'"text"', OCI_MANIFEST),
        (b'\xff{"a": 1}', OCI_MANIFEST),
        (b"[" * 100_000, OCI_MANIFEST),
        (b'{"a": NaN}', "application/vnd.example+json"),
        (b"{}", "nonsense"),
        (manifest(mediaType=OCI_INDEX), OCI_MANIFEST),
        (manifest(mediaType=7), OCI_MANIFEST),
        (manifest(schemaVersion=1), OCI_MANIFEST),
        (manifest(config=[]), OCI_MANIFEST),
        (manifest(config={"mediaType": "a/b"}), OCI_MANIFEST),
        (manifest(layers={}), OCI_MANIFEST),
        (manifest(layers=["sha256:12"]), OCI_MANIFEST),
        (manifest(subject="latest"), OCI_MANIFEST),
        (manifest(artifactType="nonsense"), OCI_MANIFEST),
        (manifest(annotations={"number": 1}), OCI_MANIFEST),
        (b'{"schemaVersion": 2, "manifests": 5}', OCI_INDEX),
    ],
)
def test_put_manifest_invalid_content_is_refused(registry: MemoryRegistry, content: bytes, media_type: str) -> None:
    store_blob(registry, b"{}")
    (message,) = assert_refused(put_manifest(registry, "latest", content, media_type), 400, "MANIFEST_INVALID")
    assert message
    assert send(registry, "GET", "/v2/a/b/manifests/latest").status == 404


def test_put_manifest_missing_references_are_listed(registry: MemoryRegistry) -> None:
    store_blob(registry)
    layers = [Descriptor.of(content).to_dict() for content in (b"one", CONTENT, b"two", b"one")]
    messages = assert_refused(
        put_manifest(registry, "latest", manifest(registry, layers=layers)), 404, "MANIFEST_BLOB_UNKNOWN"
    )
    assert len(messages) == 2
    for message, content in zip(messages, (b"one", b"two"), strict=True):
        assert Digest.of(content) in message
    assert send(registry, "GET", "/v2/a/b/manifests/latest").status == 404
    assert_refused(
        put_manifest(registry, "latest", manifest(config=Descriptor.of(b"c").to_dict())), 404, "MANIFEST_BLOB_UNKNOWN"
    )


def test_put_manifest_blob_of_other_repository_is_missing(registry: MemoryRegistry) -> None:
    assert_refused(put_manifest(registry, "latest", manifest(registry, "other")), 404, "MANIFEST_BLOB_UNKNOWN")
    assert send(registry, "GET", "/v2/_catalog").json() == {"repositories": ["other"]}, "and it makes no repository"


def test_put_manifest_layer_with_urls_may_be_missing(registry: MemoryRegistry) -> None:
    layer = Descriptor.of(b"elsewhere").replace(urls=("https://elsewhere.example/layer",)).to_dict()
    assert put_manifest(registry, "latest", manifest(registry, layers=[layer])).status == 201


def test_put_index_missing_manifest_is_refused(registry: MemoryRegistry) -> None:
    content = manifest(registry)
    entry = Descriptor.of(content, OCI_MANIFEST).to_dict()
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    assert_refused(put_manifest(registry, "index", index, OCI_INDEX), 404, "MANIFEST_BLOB_UNKNOWN")
    put_manifest(registry, Digest.of(content), content)
    assert put_manifest(registry, "index", index, OCI_INDEX).status == 201
    blob = Descriptor.of(b"{}").to_dict()
    mixed = json.dumps({"schemaVersion": 2, "manifests": [entry, blob]}).encode()
    assert put_manifest(registry, "mixed", mixed, OCI_INDEX).status == 201


LIMIT = 4 * 1024 * 1024


def test_put_manifest_of_4_megabytes_is_accepted(registry: MemoryRegistry) -> None:
    content = manifest(registry)
    assert put_manifest(registry, "latest", content + b" " * (LIMIT - len(content))).status == 201
    assert_refused(put_manifest(registry, "latest", content + b" " * (LIMIT - len(content) + 1)), 413, "SIZE_INVALID")


def test_put_manifest_beyond_limit_is_413_without_reading_further() -> None:
    registry = MemoryRegistry(manifest_limit=100)
    assert_refused(put_manifest(registry, "latest", Body.of(unread_body(), 101)), 413, "SIZE_INVALID")
    pulled: list[int] = []

    def long() -> Iterator[bytes]:
        for number in range(10):
            pulled.append(number)
            yield b"x" * 60

    assert_refused(put_manifest(registry, "latest", long()), 413, "SIZE_INVALID")
    assert pulled == [0, 1]


def test_put_manifest_without_limit_is_accepted() -> None:
    registry = MemoryRegistry(manifest_limit=None)
    assert put_manifest(registry, "latest", manifest(registry) + b" " * LIMIT).status == 201


# --- conditional requests (RFC 9110, section 13) ---


def test_put_manifest_if_match_or_none_match_is_checked(registry: MemoryRegistry) -> None:
    first, second = manifest(registry, annotations={"n": "1"}), manifest(registry, annotations={"n": "2"})
    assert put_manifest(registry, "latest", unread_body(), If_Match="*").status == 412
    assert put_manifest(registry, "latest", first, If_None_Match="*").status == 201
    assert put_manifest(registry, "latest", unread_body(), If_None_Match="*").status == 412
    etag = send(registry, "GET", "/v2/a/b/manifests/latest").headers["etag"]
    assert_refused(put_manifest(registry, "latest", unread_body(), If_Match='"other"'), 412)
    assert_refused(put_manifest(registry, "latest", unread_body(), If_Match=f"W/{etag}"), 412)
    assert put_manifest(registry, "latest", second, If_Match=f'"other", {etag}').status == 201
    assert put_manifest(registry, "latest", unread_body(), If_Match=etag).status == 412
    assert send(registry, "GET", "/v2/a/b/manifests/latest").read() == second
    assert send(registry, "DELETE", "/v2/a/b/manifests/latest", headers={"If-Match": etag}).status == 412
    assert send(registry, "DELETE", "/v2/a/b/manifests/latest", headers={"If-Match": "*"}).status == 202


def test_get_manifest_if_none_match_is_304(registry: MemoryRegistry) -> None:
    put_manifest(registry, "latest", manifest(registry))
    etag = send(registry, "HEAD", "/v2/a/b/manifests/latest").headers["etag"]
    for stated in (etag, f"W/{etag}", "*", f'"other", {etag}'):
        response = send(registry, "GET", "/v2/a/b/manifests/latest", headers={"If-None-Match": stated})
        assert (response.status, response.headers["etag"], response.read()) == (304, etag, b"")
        assert "content-length" not in response.headers
        assert "content-type" not in response.headers
    assert send(registry, "GET", "/v2/a/b/manifests/latest", headers={"If-None-Match": '"other"'}).status == 200
    assert send(registry, "GET", "/v2/a/b/manifests/none", headers={"If-None-Match": "*"}).status == 404


# --- deletions ---


def test_delete_tag_keeps_manifest(registry: MemoryRegistry) -> None:
    content = manifest(registry)
    put_manifest(registry, f"{Digest.of(content)}?tag=one&tag=two", content)
    assert send(registry, "DELETE", "/v2/a/b/manifests/one").status == 202
    for tag, status in (("one", 404), ("two", 200), (Digest.of(content), 200)):
        assert send(registry, "GET", f"/v2/a/b/manifests/{tag}").status == status
    assert send(registry, "GET", "/v2/a/b/tags/list").json()["tags"] == ["two"]


def test_delete_manifest_removes_its_tags(registry: MemoryRegistry) -> None:
    content, other = manifest(registry), manifest(registry, annotations={})
    digest = Digest.of(content)
    put_manifest(registry, f"{digest}?tag=one&tag=two", content)
    put_manifest(registry, "other", other)
    assert send(registry, "DELETE", f"/v2/a/b/manifests/{digest}").status == 202
    for reference in (digest, "one", "two"):
        assert send(registry, "GET", f"/v2/a/b/manifests/{reference}").status == 404
    assert_refused(send(registry, "DELETE", f"/v2/a/b/manifests/{digest}"), 404, "MANIFEST_UNKNOWN")
    assert send(registry, "GET", "/v2/a/b/tags/list").json()["tags"] == ["other"]


def test_delete_blob_is_404_afterwards(registry: MemoryRegistry) -> None:
    store_blob(registry)
    store_blob(registry, name="c")
    assert send(registry, "DELETE", f"/v2/a/b/blobs/{DIGEST}").status == 202
    assert_refused(send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}"), 404, "BLOB_UNKNOWN")
    assert_refused(send(registry, "DELETE", f"/v2/a/b/blobs/{DIGEST}"), 404, "BLOB_UNKNOWN")
    assert send(registry, "GET", f"/v2/c/blobs/{DIGEST}").read() == CONTENT


def test_delete_last_content_keeps_repository(registry: MemoryRegistry) -> None:
    store_blob(registry)
    send(registry, "DELETE", f"/v2/a/b/blobs/{DIGEST}")
    assert send(registry, "GET", "/v2/a/b/tags/list").json() == {"name": "a/b", "tags": []}


def test_delete_disabled_is_405() -> None:
    registry = MemoryRegistry(deletes=False)
    store_blob(registry)
    put_manifest(registry, "latest", manifest(registry))
    for path, allowed in [
        (f"blobs/{DIGEST}", "GET, HEAD"),
        ("manifests/latest", "GET, HEAD, PUT"),
        (f"manifests/{DIGEST}", "GET, HEAD, PUT"),
    ]:
        response = send(registry, "DELETE", f"/v2/a/b/{path}")
        assert_refused(response, 405, "UNSUPPORTED")
        assert response.headers["allow"] == allowed
    assert send(registry, "DELETE", start_upload(registry)).status == 204, "an upload can be cancelled all the same"


# --- lists of tags ---


def store_tags(registry: Transport, *tags: str) -> None:
    content = manifest(registry)
    query = "&".join(f"tag={tag}" for tag in tags)
    assert put_manifest(registry, f"{Digest.of(content)}?{query}", content).status == 201


def list_page(registry: Transport, query: str = "") -> tuple[list[str], str | None]:
    response = send(registry, "GET", f"/v2/a/b/tags/list{query}")
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    found = response.json()
    assert found["name"] == "a/b"
    return found["tags"], response.headers.get("link")


def test_list_tags_is_case_insensitively_sorted(registry: MemoryRegistry) -> None:
    store_tags(registry, "b", "A", "a", "C", "_1", "10", "9", "B-2", "b.1")
    assert list_page(registry) == (["10", "9", "_1", "A", "a", "b", "B-2", "b.1", "C"], None)


def test_list_tags_of_repository_without_tags_is_empty(registry: MemoryRegistry) -> None:
    store_blob(registry)
    assert list_page(registry) == ([], None)


def test_list_tags_of_unknown_repository_is_404(registry: MemoryRegistry) -> None:
    assert_refused(send(registry, "GET", "/v2/no/such/tags/list"), 404, "NAME_UNKNOWN")


def test_list_tags_n_limits_page_and_links_next(registry: MemoryRegistry) -> None:
    store_tags(registry, *"abcde")
    assert list_page(registry, "?n=2") == (["a", "b"], '</v2/a/b/tags/list?n=2&last=b>; rel="next"')
    assert list_page(registry, "?n=2&last=b") == (["c", "d"], '</v2/a/b/tags/list?n=2&last=d>; rel="next"')
    assert list_page(registry, "?n=2&last=d") == (["e"], None)
    for count in (5, 6, 10**12):
        assert list_page(registry, f"?n={count}") == ([*"abcde"], None)


@pytest.mark.parametrize("query", ["?n=0", "?n=0&last=b"])
def test_list_tags_n_0_is_empty_without_link(registry: MemoryRegistry, query: str) -> None:
    store_tags(registry, *"abc")
    assert list_page(registry, query) == ([], None)


def test_list_tags_last_starts_after_it(registry: MemoryRegistry) -> None:
    store_tags(registry, "a", "B", "c")
    for last, tags in [
        ("a", ["B", "c"]),
        ("aa", ["B", "c"]),
        ("B", ["c"]),
        ("b", ["c"]),
        ("A", ["a", "B", "c"]),
        ("z", []),
    ]:
        assert list_page(registry, f"?last={last}") == (tags, None)


@pytest.mark.parametrize("n", ["-1", "x", "", "1.5", "9" * 30])
def test_list_tags_invalid_n_is_refused(registry: MemoryRegistry, n: str) -> None:
    store_tags(registry, "a")
    assert_refused(send(registry, "GET", f"/v2/a/b/tags/list?n={n}"), 400)


def test_list_tags_page_size_limits_page() -> None:
    registry = MemoryRegistry(page_size=2)
    store_tags(registry, *"abcde")
    assert list_page(registry) == (["a", "b"], '</v2/a/b/tags/list?n=2&last=b>; rel="next"')
    assert list_page(registry, "?n=4") == (["a", "b"], '</v2/a/b/tags/list?n=2&last=b>; rel="next"')
    assert list_page(registry, "?n=1") == (["a"], '</v2/a/b/tags/list?n=1&last=a>; rel="next"')


# --- the catalog ---


def test_catalog_is_paginated(registry: MemoryRegistry) -> None:
    for name in ("c", "a/b", "a-b", "b"):
        store_blob(registry, name=name)
    response = send(registry, "GET", "/v2/_catalog")
    assert (response.json(), "link" in response.headers) == ({"repositories": ["a-b", "a/b", "b", "c"]}, False)
    response = send(registry, "GET", "/v2/_catalog?n=2")
    assert response.json() == {"repositories": ["a-b", "a/b"]}
    assert response.headers["link"] == '</v2/_catalog?n=2&last=a%2Fb>; rel="next"'
    assert send(registry, "GET", "/v2/_catalog?n=2&last=a/b").json() == {"repositories": ["b", "c"]}
    assert send(registry, "GET", "/v2/_catalog?n=0").json() == {"repositories": []}


# --- referrers ---

SBOM = "application/vnd.example.sbom.v1"


def store_referrer(registry: Transport, subject: str, **fields: Any) -> Descriptor:
    described = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7}
    content = manifest(registry, subject=described, **fields)
    response = put_manifest(registry, Digest.of(content), content)
    assert response.status == 201
    assert response.headers["oci-subject"] == subject
    return Descriptor.of(content, OCI_MANIFEST)


def referrers(registry: Transport, subject: str, query: str = "") -> tuple[list[dict[str, Any]], Response]:
    response = send(registry, "GET", f"/v2/a/b/referrers/{subject}{query}")
    assert response.status == 200
    assert response.headers["content-type"] == OCI_INDEX
    index = response.json()
    assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)
    return index["manifests"], response


def test_referrers_subject_pushed_later_has_referrers(registry: MemoryRegistry) -> None:
    subject = manifest(registry)
    referrer = store_referrer(registry, Digest.of(subject))
    put_manifest(registry, "latest", subject)
    (entry,), _ = referrers(registry, Digest.of(subject))
    assert entry["digest"] == referrer.digest


def test_referrers_have_artifact_type_and_annotations(registry: MemoryRegistry) -> None:
    typed = store_referrer(registry, ABSENT, artifactType=SBOM, annotations={"a": "1"})
    untyped = store_referrer(registry, ABSENT, annotations={"a": "2"})
    empty = store_referrer(registry, ABSENT, artifactType="", annotations={})
    found, response = referrers(registry, ABSENT)
    assert "oci-filters-applied" not in response.headers
    assert found == [
        typed.replace(artifact_type=SBOM, annotations={"a": "1"}).to_dict(),
        untyped.replace(artifact_type=CONFIG_TYPE, annotations={"a": "2"}).to_dict(),
        empty.replace(artifact_type=CONFIG_TYPE, annotations={}).to_dict(),
    ]


def test_referrers_index_without_artifact_type_has_none(registry: MemoryRegistry) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": ABSENT, "size": 7}
    contents = [
        json.dumps({"schemaVersion": 2, "manifests": [], "subject": subject, **more}).encode()
        for more in ({}, {"artifactType": SBOM})
    ]
    for content in contents:
        assert put_manifest(registry, Digest.of(content), content, OCI_INDEX).headers["oci-subject"] == ABSENT
    found, _ = referrers(registry, ABSENT)
    assert [entry.get("artifactType") for entry in found] == [None, SBOM]
    assert {entry["mediaType"] for entry in found} == {OCI_INDEX}


def test_referrers_filter_is_applied_and_announced(registry: MemoryRegistry) -> None:
    store_referrer(registry, ABSENT)
    wanted = store_referrer(registry, ABSENT, artifactType=SBOM)
    for query in (f"?artifactType={SBOM}", f"?artifactType={SBOM.replace('/', '%2F')}"):
        found, response = referrers(registry, ABSENT, query)
        assert [entry["digest"] for entry in found] == [wanted.digest]
        assert response.headers["oci-filters-applied"] == "artifactType"
    found, response = referrers(registry, ABSENT, "?artifactType=a/b")
    assert (found, response.headers["oci-filters-applied"]) == ([], "artifactType")
    found, response = referrers(registry, ABSENT, "?artifactType=")
    assert (len(found), "oci-filters-applied" in response.headers) == (2, False)


@pytest.mark.parametrize("path", [f"a/b/referrers/{DIGEST}", f"no/such/referrers/{DIGEST}"])
def test_referrers_of_unknown_digest_are_empty(registry: MemoryRegistry, path: str) -> None:
    store_referrer(registry, ABSENT)
    response = send(registry, "GET", f"/v2/{path}")
    assert (response.status, response.json()["manifests"]) == (200, [])
    assert referrers(registry, UNKNOWN_ALGORITHM)[0] == []


def test_referrers_of_invalid_digest_is_refused(registry: MemoryRegistry) -> None:
    assert_refused(send(registry, "GET", "/v2/a/b/referrers/sha256:12"), 400, "DIGEST_INVALID")


def test_referrers_after_delete_omit_it(registry: MemoryRegistry) -> None:
    first, second = store_referrer(registry, ABSENT), store_referrer(registry, ABSENT, artifactType=SBOM)
    send(registry, "DELETE", f"/v2/a/b/manifests/{first.digest}")
    assert [entry["digest"] for entry in referrers(registry, ABSENT)[0]] == [second.digest]


def test_referrers_of_other_repository_are_separate(registry: MemoryRegistry) -> None:
    store_referrer(registry, ABSENT)
    store_blob(registry, name="c")
    assert send(registry, "GET", f"/v2/c/referrers/{ABSENT}").json()["manifests"] == []


def test_referrers_are_paginated() -> None:
    registry = MemoryRegistry(page_size=2)
    pushed = [store_referrer(registry, ABSENT, artifactType=SBOM, annotations={"n": str(n)}).digest for n in range(5)]
    store_referrer(registry, ABSENT)
    store_referrer(registry, ABSENT, artifactType=SBOM, annotations={"n": "0"})  # must not change its position
    client = Client("registry.example", registry)
    assert [one.digest for one in client.referrers("a/b", ABSENT, artifact_type=SBOM)] == pushed
    assert len(list(client.referrers("a/b", ABSENT))) == 6
    linked = []
    query: str | None = f"?artifactType={SBOM}"
    while query is not None:
        found, response = referrers(registry, ABSENT, query)
        linked.append([entry["digest"] for entry in found])
        assert response.headers["oci-filters-applied"] == "artifactType"
        match = re.fullmatch(rf'</v2/a/b/referrers/{ABSENT}(.*)>; rel="next"', response.headers.get("link", ""))
        query = match and match[1]
    assert linked == [pushed[:2], pushed[2:4], pushed[4:]]


def test_referrers_disabled_is_404() -> None:
    registry = MemoryRegistry(referrers_api=False)
    subject = {"mediaType": OCI_MANIFEST, "digest": ABSENT, "size": 7}
    response = put_manifest(registry, "latest", manifest(registry, subject=subject))
    assert (response.status, "oci-subject" in response.headers) == (201, False)
    assert_refused(send(registry, "GET", f"/v2/a/b/referrers/{ABSENT}"), 404)


# --- methods and names ---


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v2/", "GET, HEAD"),
        ("/v2/_catalog", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        ("/v2/a/blobs/uploads/", "POST"),
        ("/v2/a/blobs/uploads/x", "GET, HEAD, PATCH, PUT, DELETE"),
        (f"/v2/a/blobs/{DIGEST}", "GET, HEAD, DELETE"),
        ("/v2/a/manifests/latest", "GET, HEAD, PUT, DELETE"),
        (f"/v2/a/referrers/{DIGEST}", "GET, HEAD"),
    ],
)
def test_method_not_allowed_is_405(registry: MemoryRegistry, path: str, allowed: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
        response = send(registry, method, path)
        if method in allowed.split(", "):
            assert response.status != 405
            continue
        assert (response.status, response.headers["allow"]) == (405, allowed)
        if method != "HEAD":
            assert_refused(response, 405, "UNSUPPORTED")


@pytest.mark.parametrize("name", ["A", "a/B", "a//b", "-a", "a_", "a..b", "a___b", "a%20b", "a" * 256, "a/"])
def test_repository_name_invalid_is_refused(registry: MemoryRegistry, name: str) -> None:
    requests = [
        ("GET", "tags/list"),
        ("POST", "blobs/uploads/"),
        ("GET", f"blobs/{DIGEST}"),
        ("PUT", "manifests/latest"),
        ("GET", f"referrers/{DIGEST}"),
    ]
    for method, path in requests:
        assert_refused(send(registry, method, f"/v2/{name}/{path}"), 400, "NAME_INVALID")


@pytest.mark.parametrize("name", ["a", "0", "a/b/c/d", "a.b_c__d---e", "blobs/uploads", "tags/list", "a/manifests/b"])
def test_repository_name_valid_is_accepted(registry: MemoryRegistry, name: str) -> None:
    digest = store_blob(registry, name=name)
    assert send(registry, "GET", f"/v2/{name}/blobs/{digest}").read() == CONTENT
    content = manifest(registry, name)
    headers = {"Content-Type": OCI_MANIFEST}
    assert send(registry, "PUT", f"/v2/{name}/manifests/latest", content, headers).status == 201
    assert send(registry, "GET", f"/v2/{name}/tags/list").json() == {"name": name, "tags": ["latest"]}
    assert send(registry, "GET", "/v2/_catalog").json() == {"repositories": [name]}


# --- transport methods ---


def test_memory_registry_is_transport(registry: MemoryRegistry) -> None:
    assert isinstance(registry, Transport)
    registry.close()
    registry.close()
    with pytest.raises(errors.UsageError, match="closed"):
        registry.round_trip(Request("GET", "/v2/"))


@pytest.mark.parametrize("option", ["min_chunk_length", "page_size", "manifest_limit", "max_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1"])
def test_memory_registry_invalid_option_is_refused(option: str, value: Any) -> None:
    with pytest.raises(errors.UsageError, match=option):
        MemoryRegistry(**{option: value})


def test_digest_header_disabled_is_absent() -> None:
    registry = MemoryRegistry(digest_header=False)
    content = manifest(registry)
    asked = [
        send(registry, "POST", f"{UPLOADS}?digest={DIGEST}", CONTENT),
        send(registry, "POST", f"/v2/c/blobs/uploads/?mount={DIGEST}"),
        send(registry, "PUT", f"{start_upload(registry)}?digest={DIGEST}", CONTENT),
        send(registry, "GET", f"/v2/a/b/blobs/{DIGEST}"),
        send(registry, "HEAD", f"/v2/a/b/blobs/{DIGEST}"),
        put_manifest(registry, "latest", content),
        send(registry, "GET", "/v2/a/b/manifests/latest"),
        send(registry, "HEAD", "/v2/a/b/manifests/latest"),
    ]
    for response in asked:
        assert response.status in (200, 201)
        assert "docker-content-digest" not in response.headers
    client = Client("registry.example", registry)
    assert client.resolve_tag("a/b", "latest") == Descriptor.of(content, OCI_MANIFEST)


def test_error_codes_of_specification_are_all_used(registry: MemoryRegistry) -> None:
    store_blob(registry)
    location = start_upload(registry)
    answers = [
        send(registry, "GET", f"/v2/a/b/blobs/{ABSENT}"),
        send(registry, "PATCH", location, b"x", {"Content-Range": "x"}),
        send(registry, "GET", f"{UPLOADS}none"),
        send(registry, "PUT", f"{location}?digest={ABSENT}", b"x"),
        put_manifest(registry, "latest", manifest()),
        put_manifest(registry, "latest", b"{"),
        send(registry, "GET", "/v2/a/b/manifests/latest"),
        send(registry, "GET", "/v2/A/tags/list"),
        send(registry, "GET", "/v2/c/tags/list"),
        send(registry, "PATCH", location, b"x", {"Content-Range": "0-1"}),
        send(registry, "PUT", "/v2/"),
    ]
    # UNAUTHORIZED, DENIED and TOOMANYREQUESTS are never sent by this registry
    assert [response.json()["errors"][0]["code"] for response in answers] == sorted(CODES)


# --- memory limit ---


def has_room(registry: Transport, count: int) -> bool:
    """Return whether `count` bytes are free, without storing anything."""
    response = send(registry, "POST", f"{UPLOADS}?digest={ABSENT}", b"\0" * count)
    assert response.status in (400, 413)
    return response.status == 400


def test_max_bytes_blob_beyond_it_is_413() -> None:
    registry = MemoryRegistry(max_bytes=100)
    store_blob(registry, b"a" * 60)
    location = start_upload(registry)
    for method, url in (
        ("POST", f"{UPLOADS}?digest={DIGEST}"),
        ("PATCH", location),
        ("PUT", f"{location}?digest={DIGEST}"),
    ):
        [message] = assert_refused(send(registry, method, url, Body.of(unread_body(), 41)), 413, "SIZE_INVALID")
        assert "of 100 are in use" in message
    assert store_blob(registry, b"b" * 40) == Digest.of(b"b" * 40)
    assert registry.stored_bytes == 100


def test_max_bytes_body_of_unknown_length_is_read_no_further() -> None:
    registry = MemoryRegistry(max_bytes=100)
    pulled = []

    def endless() -> Iterator[bytes]:
        while True:
            pulled.append(50)
            yield b"x" * 50

    assert_refused(send(registry, "PATCH", start_upload(registry), endless()), 413, "SIZE_INVALID")
    assert len(pulled) == 3
    assert has_room(registry, 100)


def test_max_bytes_counts_manifests_and_open_uploads() -> None:
    registry = MemoryRegistry(max_bytes=1000)
    content = manifest(registry)  # its config has 2 bytes
    assert put_manifest(registry, "v1", content).status == 201
    assert put_manifest(registry, "v2", content).status == 201  # the same manifest is counted once
    assert send(registry, "PATCH", start_upload(registry), b"x" * 100).status == 202
    remaining = 1000 - 2 - len(content) - 100
    assert has_room(registry, remaining)
    assert not has_room(registry, remaining + 1)


@pytest.mark.parametrize("what", ["blob", "manifest", "upload", "finished upload of a known blob"])
def test_max_bytes_delete_frees_space(what: str) -> None:
    registry = MemoryRegistry(max_bytes=1000)
    store_blob(registry, CONTENT[:500])
    before = 500
    if what == "blob":
        url, method, body = f"/v2/a/b/blobs/{store_blob(registry, b'x' * 400)}", "DELETE", None
    elif what == "manifest":
        content = manifest(registry, annotations={"a": "x" * 100})
        before += 2
        put_manifest(registry, "v1", content)
        url, method, body = f"/v2/a/b/manifests/{Digest.of(content)}", "DELETE", None
    else:
        url = start_upload(registry)
        assert send(registry, "PATCH", url, CONTENT[:400]).status == 202
        method, body = "DELETE", None
        if what != "upload":
            url, method, body = f"{url}?digest={Digest.of(CONTENT[:500])}", "PUT", CONTENT[400:500]
    assert not has_room(registry, 1000 - before)
    assert send(registry, method, url, body).status in (201, 202, 204)
    assert has_room(registry, 1000 - before)
    assert not has_room(registry, 1001 - before)


def test_max_bytes_shared_blob_counts_once() -> None:
    registry = MemoryRegistry(max_bytes=100)
    digest = store_blob(registry, b"x" * 60)
    send(registry, "POST", f"/v2/c/blobs/uploads/?mount={digest}&from=a/b")
    assert has_room(registry, 40)
    send(registry, "DELETE", f"/v2/a/b/blobs/{digest}")
    assert not has_room(registry, 41)
    send(registry, "DELETE", f"/v2/c/blobs/{digest}")
    assert has_room(registry, 100)


def test_max_bytes_failed_request_frees_space() -> None:
    registry = MemoryRegistry(max_bytes=100)

    def failing() -> Iterator[bytes]:
        yield b"x" * 50
        raise OSError("broken")

    location = start_upload(registry)
    for method, url in (
        ("PATCH", location),
        ("PUT", f"{location}?digest={DIGEST}"),
        ("POST", f"{UPLOADS}?digest={DIGEST}"),
    ):
        with pytest.raises(OSError, match="broken"):
            send(registry, method, url, failing())
    assert_refused(send(registry, "PUT", f"{location}?digest={ABSENT}", b"x" * 50), 400, "DIGEST_INVALID")
    assert_refused(put_manifest(registry, "v1", b"not a manifest"), 400, "MANIFEST_INVALID")
    assert_refused(put_manifest(registry, "v1", manifest(layers=[])[:100]), 400, "MANIFEST_INVALID")
    assert has_room(registry, 100)


def test_max_bytes_defaults_to_1_gib() -> None:
    registry = MemoryRegistry()
    assert_refused(
        send(registry, "PATCH", start_upload(registry), Body.of(unread_body(), 1024**3 + 1)),
        413,
        "SIZE_INVALID",
    )
    boundless = MemoryRegistry(max_bytes=None)
    with pytest.raises(AssertionError, match="a chunk was pulled"):
        send(boundless, "PATCH", start_upload(boundless), Body.of(unread_body(), 1024**3 + 1))


def test_max_bytes_client_raises_size_invalid() -> None:
    client = Client("registry.example", MemoryRegistry(max_bytes=100))
    with pytest.raises(errors.SizeInvalid) as caught:
        client.push_blob("a/b", Descriptor.of(CONTENT), CONTENT)
    assert caught.value.status == 413
