"""`BlobWriter`: requests of chunked uploads, and how they continue after the responses of registries."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import ociwire._client.upload_completion
from ociwire import BlobWriter, Client, Descriptor, Digest, FunctionTransport, Request, Response, Scope, errors
from ociwire.testing import ScriptedTransport
from tests._support.doubles import FakeClock, RecordingTransport
from tests.client.support import BASE, HOST, NAME, PUSH, UPLOADS_PATH, ScriptedRegistry, error_response, upload_response

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
UPLOAD = f"{BASE}{UPLOADS_PATH}1"
CONTENT = bytes(range(100)) + b"the rest of it"


class UploadRegistry(ScriptedRegistry):
    """Scripted registry with chunked uploads."""

    def begin(self, chunk_size: int | None = None, **options: Any) -> BlobWriter:
        return self.client.push_blob_chunked(NAME, chunk_size, **options)

    def resume(self, offset: int | None = None, chunk_size: int | None = None, id_: str = UPLOAD) -> BlobWriter:
        return self.client.push_blob_chunked_resume(NAME, id_, offset, chunk_size)

    @property
    def lines(self) -> list[str]:
        """``METHOD URL Content-Range`` of each request."""
        return [
            f"{request.method} {request.url} {request.headers.get('content-range', '')}".strip()
            for request in self.requests
        ]

    @property
    def steps(self) -> list[str]:
        """``METHOD Content-Range`` of each request except the first."""
        return [f"{request.method} {request.headers.get('content-range', '')}".strip() for request in self.requests[1:]]


def status_response(range_: str | None, status: int = 204) -> Response:
    """Return the response to a request for the status of an upload."""
    return upload_response(status=status) if range_ is None else upload_response(status=status, Range=range_)


OPENED = upload_response()
ACCEPTED = upload_response()
CREATED = Response(201, {"Location": "/v2/library/alpine/blobs/x"})
UPLOAD_UNKNOWN = error_response(404, "BLOB_UPLOAD_UNKNOWN")
RESPONSE_LOST = errors.ReadError("response lost")


# --- requests ---


def test_blob_writer_sends_post_patches_and_put() -> None:
    registry = UploadRegistry(OPENED, upload_response("/two?_state=b"), upload_response("/three?_state=c"), CREATED)
    writer = registry.begin(50)
    assert writer.write(CONTENT) == len(CONTENT) == 114
    assert (writer.size, writer.flushed, writer.chunk_size, writer.id) == (114, 100, 50, f"{BASE}/three?_state=c")
    blob = Descriptor.of(CONTENT, media_type="application/octet-stream")
    assert writer.commit() == blob
    assert registry.lines == [
        f"POST {BASE}{UPLOADS_PATH}",
        f"PATCH {UPLOAD} 0-49",
        f"PATCH {BASE}/two?_state=b 50-99",
        f"PUT {BASE}/three?_state=c&digest={blob.digest} 100-113",
    ]
    assert registry.transport.bodies == [None, CONTENT[:50], CONTENT[50:100], CONTENT[100:]]
    assert [request.headers.get("content-type") for request in registry.requests] == [
        None,
        *["application/octet-stream"] * 3,
    ]
    for request in registry.requests:
        assert str(request.info.required_scope) == PUSH
        assert request.info.operation == "push_blob_chunked"
    assert [request.info.idempotent for request in registry.requests[:3]] == [True] * 3
    assert all(request.body is None or request.body.resendable for request in registry.requests)
    registry.assert_done()


def test_resume_without_offset_requests_status() -> None:
    registry = UploadRegistry(upload_response("/two", status=204, Range="0-99"), CREATED)
    writer = registry.resume()
    assert (writer.size, writer.flushed, writer.id) == (100, 100, f"{BASE}/two")
    writer.write(CONTENT[100:])
    digest = Digest.of(CONTENT)
    assert writer.commit(digest) == Descriptor("application/octet-stream", digest, 114)
    assert registry.lines == [f"GET {UPLOAD}", f"PUT {BASE}/two?digest={digest} 100-113"]
    assert registry.requests[0].info.operation == "push_blob_chunked_resume"
    assert [str(request.info.required_scope) for request in registry.requests] == [PUSH, PUSH]


def test_resume_with_offset_sends_nothing() -> None:
    registry = UploadRegistry(CREATED)
    writer = registry.resume(100)
    assert (writer.size, registry.requests) == (100, [])
    writer.write(CONTENT[100:])
    writer.commit(Digest.of(CONTENT))
    assert registry.lines == [f"PUT {UPLOAD}?digest={Digest.of(CONTENT)} 100-113"]


def test_cancel_sends_delete() -> None:
    registry = UploadRegistry(OPENED, Response(204))
    registry.begin().cancel()
    assert registry.lines[1] == f"DELETE {UPLOAD}"
    assert str(registry.requests[1].info.required_scope) == PUSH
    assert registry.requests[1].info.operation == "push_blob_chunked"


@pytest.mark.parametrize("chunk_size", [50, 114, 115, None])
@pytest.mark.parametrize("piece", [1, 7, 50, 114])
def test_write_any_piece_size_sends_same_chunks(chunk_size: int | None, piece: int) -> None:
    patches = [ACCEPTED] * (113 // chunk_size if chunk_size else 0)
    registry = UploadRegistry(OPENED, *patches, CREATED)
    writer = registry.begin(chunk_size)
    for start in range(0, 114, piece):
        assert writer.write(CONTENT[start : start + piece]) == len(CONTENT[start : start + piece])
    writer.commit()
    assert b"".join(body or b"" for body in registry.transport.bodies) == CONTENT
    assert all(len(body or b"") == chunk_size for body in registry.transport.bodies[1:-1])
    assert registry.transport.bodies[-1]  # the last chunk is sent with the PUT
    registry.assert_done()


def test_commit_whole_content_in_put_has_no_content_range() -> None:
    registry = UploadRegistry(OPENED, CREATED)
    writer = registry.begin()
    writer.write(CONTENT)
    writer.commit()
    assert registry.steps == ["PUT"]
    assert registry.transport.bodies[1] == CONTENT


def test_commit_without_content_stores_empty_blob() -> None:
    registry = UploadRegistry(OPENED, CREATED)
    with registry.begin() as writer:
        assert writer.write(b"") == 0
    assert writer.commit() == Descriptor("application/octet-stream", Digest.of(b""), 0)
    assert registry.steps == ["PUT"]
    assert registry.requests[1].body is None


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("B", (2, 57))])
def test_write_any_bytes_like_object_is_sent(make: Callable[[bytes], Any]) -> None:
    registry = UploadRegistry(OPENED, *[ACCEPTED] * 2, CREATED)
    writer = registry.begin(50)
    assert writer.write(make(CONTENT)) == 114
    assert writer.commit().digest == Digest.of(CONTENT)


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_push_blob_chunked_other_algorithm_sends_digest_algorithm(algorithm: str) -> None:
    registry = UploadRegistry(OPENED, CREATED)
    writer = registry.begin(algorithm=algorithm)
    writer.write(CONTENT)
    digest = Digest.of(CONTENT, algorithm)
    assert writer.commit().digest == digest
    assert registry.lines == [
        f"POST {BASE}{UPLOADS_PATH}?digest-algorithm={algorithm}",
        f"PUT {UPLOAD}?digest={digest}",
    ]


# --- chunk sizes ---


def test_chunk_size_defaults_to_four_mebibytes() -> None:
    registry = UploadRegistry(OPENED, ACCEPTED)
    writer = registry.begin()
    assert writer.chunk_size == 4 * MEBIBYTE
    writer.write(bytes(4 * MEBIBYTE))
    assert len(registry.requests) == 1
    writer.write(b"1")
    assert registry.steps == [f"PATCH 0-{4 * MEBIBYTE - 1}"]
    assert (writer.flushed, writer.size) == (4 * MEBIBYTE, 4 * MEBIBYTE + 1)


@pytest.mark.parametrize(
    ("requested", "min_length", "chunk_size"),
    [
        (None, str(8 * MEBIBYTE), 8 * MEBIBYTE),
        (None, "1000", 4 * MEBIBYTE),
        (10, "1000", 1000),
        (10, "10", 10),
        (2000, "1000", 2000),
        (10, "garbage", 10),
        (10, "-5", 10),
        (10, "", 10),
    ],
)
def test_chunk_size_below_min_length_is_raised(requested: int | None, min_length: str, chunk_size: int) -> None:
    registry = UploadRegistry(upload_response(OCI_Chunk_Min_Length=min_length))
    assert registry.begin(requested).chunk_size == chunk_size


def test_resume_min_length_in_status_raises_chunk_size() -> None:
    registry = UploadRegistry(upload_response(status=204, Range="0-99", OCI_Chunk_Min_Length="1000"))
    assert registry.resume(chunk_size=10).chunk_size == 1000


@pytest.mark.parametrize("status", [413, 416])
@pytest.mark.parametrize("code", ["", "SIZE_INVALID", "RANGE_INVALID", "BLOB_UPLOAD_INVALID", "UNKNOWN"])
def test_write_first_chunk_too_large_is_halved_and_remembered(status: int, code: str) -> None:
    size = MEBIBYTE
    status_responses = [status_response("0-0")] if status == 416 else []
    refusal = error_response(status, code)
    refusals = [refusal, *status_responses] * 2
    registry = UploadRegistry(OPENED, *refusals, ACCEPTED, ACCEPTED, ACCEPTED, ACCEPTED, CREATED, OPENED, OPENED)
    writer = registry.begin(size)
    content = bytes(range(256)) * 4096 + b"more"
    assert writer.write(content) == len(content)
    writer.commit()
    quarter = size // 4
    get = ["GET"] if status == 416 else []
    assert registry.steps == [
        f"PATCH 0-{size - 1}",
        *get,
        f"PATCH 0-{size // 2 - 1}",
        *get,
        *[f"PATCH {start}-{start + quarter - 1}" for start in range(0, size, quarter)],
        f"PUT {size}-{size + 3}",
    ]
    assert b"".join(body for body in registry.transport.bodies if body) == content
    assert writer.chunk_size == quarter
    # the client and its copies by with_options remember the size
    assert registry.begin().chunk_size == quarter
    small = registry.client.with_options(timeout=5).push_blob_chunked("b", 1000)
    assert small.chunk_size == 1000
    registry.assert_done()


def test_chunk_size_remembered_by_client_is_not_shared_with_others() -> None:
    registry = UploadRegistry(OPENED, error_response(413), ACCEPTED, ACCEPTED)
    writer = registry.begin(MEBIBYTE)
    writer.write(bytes(MEBIBYTE))
    writer.close()
    assert UploadRegistry(OPENED).begin().chunk_size == 4 * MEBIBYTE


def test_chunk_size_min_length_overrides_remembered_maximum() -> None:
    min_length = upload_response(OCI_Chunk_Min_Length=str(MEBIBYTE))
    registry = UploadRegistry(OPENED, error_response(413), ACCEPTED, ACCEPTED, min_length)
    writer = registry.begin(MEBIBYTE)
    writer.write(bytes(MEBIBYTE))
    writer.close()
    assert registry.begin().chunk_size == MEBIBYTE


def test_chunk_size_smallest_remembered_maximum_is_kept() -> None:
    registry = UploadRegistry(
        OPENED, OPENED, error_response(413), ACCEPTED, ACCEPTED, error_response(413), ACCEPTED, ACCEPTED, OPENED
    )
    large, small = registry.begin(4 * MEBIBYTE), registry.begin(MEBIBYTE)
    for writer in (small, large):
        writer.write(bytes(writer.chunk_size))
        writer.close()
    assert registry.begin().chunk_size == MEBIBYTE // 2


def test_write_chunk_always_refused_raises_after_halving_to_64_kib() -> None:
    """The chunk size of later uploads is unchanged, because smaller chunks were also refused."""
    responses = {"POST": OPENED, "PATCH": error_response(416), "GET": status_response("0-0")}
    transport = RecordingTransport(lambda request: responses[request.method].replace())
    client = Client(HOST, transport)
    writer = client.push_blob_chunked("a", MEBIBYTE)
    writer.write(bytes(MEBIBYTE))
    with pytest.raises(errors.RangeInvalid):
        writer.close()
    sizes = [request.body.length for request in transport.requests if request.body is not None]
    assert sizes == [MEBIBYTE, MEBIBYTE // 2, MEBIBYTE // 4, MEBIBYTE // 8, 64 * KIBIBYTE]
    assert client.push_blob_chunked("a").chunk_size == 4 * MEBIBYTE


def test_write_chunk_too_large_is_not_halved_below_min_length() -> None:
    registry = UploadRegistry(upload_response(OCI_Chunk_Min_Length=str(MEBIBYTE)), error_response(413))
    writer = registry.begin(MEBIBYTE)
    with pytest.raises(errors.SizeInvalid):
        writer.write(bytes(MEBIBYTE + 1))
    assert len(registry.requests) == 2


def test_write_chunk_answered_400_is_not_halved() -> None:
    registry = UploadRegistry(OPENED, error_response(400, "SIZE_INVALID"))
    writer = registry.begin(MEBIBYTE)
    with pytest.raises(errors.SizeInvalid):
        writer.write(bytes(MEBIBYTE + 1))
    assert len(registry.requests) == 2


def test_resume_first_chunk_too_large_is_halved() -> None:
    registry = UploadRegistry(error_response(416), status_response("0-9"), ACCEPTED, ACCEPTED)
    writer = registry.resume(10, 256 * KIBIBYTE)
    writer.write(bytes(256 * KIBIBYTE))
    writer.close()
    assert [body and len(body) for body in registry.transport.bodies[2:]] == [128 * KIBIBYTE] * 2


@pytest.mark.parametrize("status", [413, 416])
def test_commit_put_too_large_is_sent_in_chunks(status: int) -> None:
    status_responses = [status_response("0-0")] if status == 416 else []
    refusal = error_response(status)
    registry = UploadRegistry(OPENED, refusal, refusal, *status_responses, ACCEPTED, ACCEPTED, CREATED)
    writer = registry.begin()
    writer.write(bytes(256 * KIBIBYTE))
    assert writer.commit().digest == Digest.of(bytes(256 * KIBIBYTE))
    assert [request.method for request in registry.requests if request.method != "GET"] == [
        *("POST", "PUT", "PATCH", "PATCH", "PATCH", "PUT")
    ]
    assert registry.requests[-1].body is None


# --- responses to a chunk ---


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_write_chunk_answered_200_to_204_is_upload_response(status: int) -> None:
    registry = UploadRegistry(OPENED, upload_response("/two", status=status))
    with registry.begin() as writer:
        writer.write(CONTENT)
    assert (writer.flushed, writer.id) == (114, f"{BASE}/two")


@pytest.mark.parametrize("status", [203, 206, 302, 400, 401, 403, 404, 500])
def test_write_chunk_answered_otherwise_raises_registry_error(status: int) -> None:
    registry = UploadRegistry(OPENED, upload_response("/two", status=status))
    writer = registry.begin()
    writer.write(CONTENT)
    with pytest.raises(errors.RegistryError) as caught:
        writer.close()
    assert caught.value.status == status
    assert (writer.size, writer.flushed) == (114, 0)


@pytest.mark.parametrize("range_", ["0-49", "0-0", "garbage", "0-1000"])
def test_write_range_header_of_response_is_ignored(range_: str) -> None:
    """ECR repeats the Range of the first chunk."""
    registry = UploadRegistry(OPENED, upload_response(Range="0-49"), upload_response(Range=range_), CREATED)
    writer = registry.begin(50)
    writer.write(CONTENT)
    assert writer.commit().size == 114
    assert registry.steps == ["PATCH 0-49", "PATCH 50-99", "PUT 100-113"]


RANGES = [
    ("0-99", 100),
    ("bytes=0-99", 100),
    ("bytes 0-99/*", 100),
    ("0-99/*", 100),
    ("0-99/100", 100),
    ("50-99", 100),
    (" 0-99 ", 100),
    ("0-1", 2),
    ("0-0", 0),
    ("0--1", 0),
    ("", 0),
    ("garbage", 0),
    ("-99", 0),
    ("0-", 0),
    ("0-99-", 0),
    ("0-99999999999999999999999", 0),
    (None, 0),
]


@pytest.mark.parametrize("status", [200, 204])
@pytest.mark.parametrize(("range_", "offset"), RANGES)
def test_resume_range_header_in_any_form_is_parsed(range_: str | None, offset: int, status: int) -> None:
    registry = UploadRegistry(status_response(range_, status))
    writer = registry.resume()
    assert (writer.size, writer.flushed) == (offset, offset)


@pytest.mark.parametrize("code", ["", "RANGE_INVALID", "BLOB_UPLOAD_INVALID"])  # zot sends BLOB_UPLOAD_INVALID
@pytest.mark.parametrize(("range_", "stored"), [("0-49", 50), ("bytes=0-20/*", 21), ("0-1", 2), ("40-48", 49)])
def test_write_first_chunk_answered_416_resumes_at_status(range_: str, stored: int, code: str) -> None:
    chunks = [ACCEPTED] * ((len(CONTENT) - 1 - stored) // 50)
    registry = UploadRegistry(
        OPENED, error_response(416, code), upload_response("/now", status=204, Range=range_), *chunks, CREATED
    )
    writer = registry.begin(50)
    assert writer.write(CONTENT) == 114
    assert writer.commit().digest == Digest.of(CONTENT)
    assert registry.lines[1:4] == [
        f"PATCH {UPLOAD} 0-49",
        f"GET {UPLOAD}",
        f"PATCH {BASE}/now {stored}-{stored + 49}",
    ]
    assert registry.requests[2].info.operation == "push_blob_chunked"
    assert registry.transport.bodies[3] == CONTENT[stored : stored + 50]


def test_write_later_chunk_answered_416_resumes_at_status() -> None:
    registry = UploadRegistry(OPENED, ACCEPTED, error_response(416), status_response("0-69"), CREATED)
    writer = registry.begin(50)
    writer.write(CONTENT)
    writer.commit()
    assert registry.steps == ["PATCH 0-49", "PATCH 50-99", "GET", "PUT 70-113"]
    assert registry.transport.bodies[-1] == CONTENT[70:]


@pytest.mark.parametrize("code", ["", "BLOB_UPLOAD_INVALID"])
@pytest.mark.parametrize("range_", ["0-100", "0-9", "0-999", None])
def test_write_416_with_unreachable_offset_raises_and_stays_writable(range_: str | None, code: str) -> None:
    registry = UploadRegistry(OPENED, ACCEPTED, error_response(416, code), status_response(range_), ACCEPTED, CREATED)
    writer = registry.begin(50)
    with pytest.raises(errors.RangeInvalid):
        writer.write(CONTENT)
    assert (writer.flushed, writer.size) == (50, 100)
    # the registry accepts the repeated chunk
    assert writer.write(CONTENT[writer.size :]) == 14
    assert writer.commit().digest == Digest.of(CONTENT)
    assert registry.steps == ["PATCH 0-49", "PATCH 50-99", "GET", "PATCH 50-99", "PUT 100-113"]


def test_resume_after_416_with_unreachable_offset_uses_new_location() -> None:
    registry = UploadRegistry(
        OPENED,
        ACCEPTED,
        error_response(416),
        upload_response("/now", status=204, Range="0-9"),
        status_response("0-9"),
        CREATED,
    )
    writer = registry.begin(50)
    with pytest.raises(errors.RangeInvalid):
        writer.write(CONTENT)
    resumed = registry.resume(id_=writer.id)
    assert registry.lines[-1] == f"GET {BASE}/now"
    assert resumed.size == 10
    resumed.write(CONTENT[10:])
    resumed.commit(Digest.of(CONTENT))
    assert registry.steps[-1] == "PUT 10-113"


@pytest.mark.parametrize("range_", ["0-0", None, ""])
def test_write_after_range_0_0_retries_from_second_byte(range_: str | None) -> None:
    registry = UploadRegistry(
        status_response(range_), error_response(416), status_response(range_), ACCEPTED, ACCEPTED, CREATED
    )
    writer = registry.resume(chunk_size=50)
    writer.write(CONTENT)
    writer.commit()
    assert registry.steps[:2] == ["PATCH 0-49", "GET"]
    assert registry.steps[2].startswith("PATCH 1-")
    assert b"".join(body or b"" for body in registry.transport.bodies[3:]) == CONTENT[1:]


def test_write_after_range_0_0_retries_from_second_byte_once() -> None:
    transport = RecordingTransport(
        lambda request: error_response(416) if request.method == "PATCH" else status_response("0-0")
    )
    writer = Client(HOST, transport).push_blob_chunked_resume("a", UPLOAD)
    writer.write(CONTENT)
    with pytest.raises(errors.RangeInvalid):
        writer.close()
    patches = [request for request in transport.requests if request.method == "PATCH"]
    assert [request.headers["content-range"] for request in patches] == ["0-113", "1-113"]
    assert (writer.flushed, writer.size) == (0, 114), "no byte was acknowledged"


def test_commit_after_range_0_0_does_not_repeat_byte() -> None:
    """A PUT with all content has no Content-Range, so the registry would append it to the stored byte."""
    registry = UploadRegistry(status_response("0-0"), error_response(416), status_response("0-0"), ACCEPTED, CREATED)
    writer = registry.resume()
    writer.write(CONTENT)
    assert writer.commit(Digest.of(CONTENT)).size == 114
    assert registry.steps == ["PATCH 0-113", "GET", "PATCH 1-113", "PUT"]


def test_write_after_range_0_0_large_chunk_is_halved() -> None:
    size = 256 * KIBIBYTE
    registry = UploadRegistry(
        status_response("0-0"), error_response(416), status_response("0-0"), error_response(416), ACCEPTED, ACCEPTED
    )
    writer = registry.resume(chunk_size=size)
    content = bytes(range(256)) * KIBIBYTE
    writer.write(content)
    writer.close()
    assert registry.steps[-2:] == [f"PATCH 0-{size // 2 - 1}", f"PATCH {size // 2}-{size - 1}"]
    assert b"".join(body or b"" for body in registry.transport.bodies) == content


# --- Location ---


@pytest.mark.parametrize(
    ("location", "id_"),
    [
        ("/u/2?a=b%3D", f"{BASE}/u/2?a=b%3D"),
        ("2", f"{BASE}{UPLOADS_PATH}2"),
        (f"{BASE}:443/u/2", f"{BASE}/u/2"),
        (None, UPLOAD),
    ],
)
def test_write_location_of_response_is_used(location: str | None, id_: str) -> None:
    registry = UploadRegistry(OPENED, upload_response(location), upload_response(location), CREATED)
    writer = registry.begin(50)
    writer.write(CONTENT)
    assert writer.id.replace(":443", "") == id_
    writer.commit()
    assert registry.requests[2].url.replace(":443", "") == id_
    assert registry.requests[3].url.replace(":443", "").startswith(id_)
    assert [str(request.info.required_scope) for request in registry.requests] == [PUSH] * 4


def test_commit_response_without_location_succeeds() -> None:
    registry = UploadRegistry(OPENED, Response(201))
    assert registry.begin().commit().size == 0


def test_push_blob_chunked_without_location_raises_protocol_error() -> None:
    with pytest.raises(errors.ProtocolError, match="no Location"):
        UploadRegistry(upload_response(None)).begin()


@pytest.mark.parametrize("location", ["https://storage.example/u?signature=s", f"{BASE}:8443/u?a=b"])
def test_write_cross_origin_location_gets_no_credentials(location: str) -> None:
    registry = UploadRegistry(OPENED, upload_response(location), upload_response("/v"), Response(404), Response(200))
    writer = registry.begin(50)
    writer.write(CONTENT[:51])
    assert writer.id == location
    writer.write(CONTENT[51:])
    origin = writer.id.removesuffix("/v")
    assert location.startswith(origin), "expected the relative Location to be resolved against the URL of the request"
    writer.commit()  # after a 404 to the PUT, the client checks for the blob at the registry
    assert registry.lines[2:] == [
        f"PATCH {location} 50-99",
        f"PUT {origin}/v?digest={Digest.of(CONTENT)} 100-113",
        f"HEAD {BASE}/v2/library/alpine/blobs/{Digest.of(CONTENT)}",
    ]
    assert [str(request.info.required_scope) for request in registry.requests] == [PUSH, PUSH, "", "", PUSH]
    registry.assert_done()


@pytest.mark.parametrize(
    ("method", "answers"),
    [("GET", [UPLOAD_UNKNOWN]), ("PATCH", [ACCEPTED]), ("DELETE", [Response(204)]), ("PUT", [CREATED])],
)
def test_resume_cross_origin_id_gets_no_credentials(method: str, answers: list[Any]) -> None:
    registry = UploadRegistry(*answers)
    if method == "GET":
        with pytest.raises(errors.BlobUploadUnknown):
            registry.resume(id_="https://storage.example/u")
    else:
        writer = registry.resume(0, id_="https://storage.example/u")
        writer.write(CONTENT)
        {"PATCH": writer.close, "DELETE": writer.cancel, "PUT": writer.commit}[method]()
    assert registry.methods == [method]
    assert registry.requests[0].info.required_scope == Scope.EMPTY


@pytest.mark.parametrize(
    "location", [f"http://{HOST}/u", "http://storage.example/u", "ftp://registry.example/u", "/a\\b"]
)
def test_blob_writer_http_location_raises_protocol_error(location: str) -> None:
    with pytest.raises(errors.ProtocolError):
        UploadRegistry(upload_response(location)).begin()
    with pytest.raises(errors.ProtocolError):
        UploadRegistry(upload_response(location, status=204, Range="0-9")).resume()
    # in the response to a chunk, the upload keeps its URL, and a 416 shows which bytes the registry has stored
    registry = UploadRegistry(OPENED, upload_response(location), error_response(416), status_response("0-49"), CREATED)
    writer = registry.begin(50)
    with pytest.raises(errors.ProtocolError):
        writer.write(CONTENT[:60])
    assert (writer.id, writer.size) == (UPLOAD, 50)
    writer.write(CONTENT[50:60])
    writer.commit()
    assert registry.lines[2] == f"PATCH {UPLOAD} 0-49"
    assert registry.steps[-1] == "PUT 50-59"


# --- close, exit, cancel, commit ---


def test_close_sends_buffered_bytes_and_keeps_upload() -> None:
    registry = UploadRegistry(OPENED, ACCEPTED, upload_response("/two"), CREATED)
    writer = registry.begin(100)
    writer.write(CONTENT)
    for _ in range(2):
        writer.close()
        assert registry.steps == ["PATCH 0-99", "PATCH 100-113"]
        assert (writer.flushed, writer.size, writer.id) == (114, 114, f"{BASE}/two")
    with pytest.raises(errors.UsageError, match="closed"):
        writer.write(b"")
    assert writer.commit().digest == Digest.of(CONTENT)
    assert registry.lines[3] == f"PUT {BASE}/two?digest={Digest.of(CONTENT)}"
    assert registry.requests[3].body is None
    registry.assert_done()


def test_exit_sends_buffered_bytes_and_closes() -> None:
    registry = UploadRegistry(OPENED, ACCEPTED)
    with registry.begin() as writer:
        writer.write(CONTENT)
        assert registry.steps == []
    assert registry.steps == ["PATCH 0-113"]
    with pytest.raises(errors.UsageError):
        writer.write(b"x")


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, GeneratorExit])
def test_exit_after_exception_sends_nothing(kind: type[BaseException]) -> None:
    registry = UploadRegistry(OPENED, ACCEPTED, status_response("0-49"))
    writer = registry.begin(50)
    writer.write(CONTENT[:60])
    with pytest.raises(kind), writer:
        raise kind
    assert registry.steps == ["PATCH 0-49"]
    writer.close()
    with pytest.raises(errors.UsageError):
        writer.write(b"x")
    assert registry.steps == ["PATCH 0-49"]
    assert registry.resume(id_=writer.id).size == 50


def test_exit_after_commit_or_cancel_sends_nothing() -> None:
    registry = UploadRegistry(OPENED, CREATED, OPENED, Response(202))
    with registry.begin() as writer:
        writer.write(CONTENT)
        writer.commit()
    with registry.begin() as writer:
        writer.write(CONTENT)
        writer.cancel()
    assert registry.steps == ["PUT", "POST", "DELETE"]


def test_close_fails_keeps_upload_resumable() -> None:
    registry = UploadRegistry(OPENED, RESPONSE_LOST, error_response(416), status_response("0-113"), CREATED)
    writer = registry.begin()
    writer.write(CONTENT)
    with pytest.raises(errors.ReadError):
        writer.close()
    with pytest.raises(errors.UsageError):
        writer.write(b"x")
    assert (writer.size, writer.flushed, writer.id) == (114, 0, UPLOAD)
    writer.commit()
    assert registry.steps == ["PATCH 0-113", "PATCH 0-113", "GET", "PUT"]
    assert registry.requests[-1].body is None, (
        "a PUT may append its body, so it must not contain bytes that may be stored"
    )


def test_commit_done_refuses_further_calls() -> None:
    registry = UploadRegistry(OPENED, CREATED)
    writer = registry.begin()
    writer.commit()
    for call in (writer.commit, lambda: writer.commit(Digest.of(b"")), lambda: writer.write(b"x")):
        with pytest.raises(errors.UsageError):
            call()
    writer.close()
    writer.cancel()
    assert registry.steps == ["PUT"]


@pytest.mark.parametrize(
    "answer",
    [Response(200), Response(202), Response(204), UPLOAD_UNKNOWN, Response(404), error_response(404, "NAME_UNKNOWN")],
)
def test_cancel_repeated_sends_one_delete(answer: Response) -> None:
    registry = UploadRegistry(OPENED, answer)
    writer = registry.begin()
    writer.write(CONTENT)
    for _ in range(3):
        writer.cancel()
    for call in (writer.commit, lambda: writer.write(b"x")):
        with pytest.raises(errors.UsageError):
            call()
    writer.close()
    assert registry.steps == ["DELETE"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (RESPONSE_LOST, errors.ReadError),
        (error_response(405), errors.Unsupported),
        (error_response(403), errors.Denied),
    ],
)
def test_cancel_failed_can_be_repeated(answer: Any, kind: type[Exception]) -> None:
    registry = UploadRegistry(OPENED, answer, UPLOAD_UNKNOWN)
    writer = registry.begin()
    with pytest.raises(kind):
        writer.cancel()
    with pytest.raises(errors.UsageError):
        writer.write(b"x")
    writer.cancel()
    writer.cancel()
    assert registry.steps == ["DELETE", "DELETE"]


def test_commit_resumed_upload_without_digest_raises_usage_error() -> None:
    registry = UploadRegistry(CREATED)
    writer = registry.resume(1)
    with pytest.raises(errors.UsageError, match="digest"):
        writer.commit()
    assert registry.requests == []
    writer.write(CONTENT[1:])
    assert writer.commit(str(Digest.of(CONTENT))).size == 114


@pytest.mark.parametrize("offset", [0, None])
def test_commit_upload_resumed_at_0_computes_digest(offset: int | None) -> None:
    registry = UploadRegistry(*([status_response("0-0")] if offset is None else []), ACCEPTED, CREATED)
    with registry.resume(offset) as writer:
        writer.write(CONTENT)
    assert writer.commit().digest == Digest.of(CONTENT)


def test_commit_given_digest_is_sent() -> None:
    registry = UploadRegistry(OPENED, CREATED)
    writer = registry.begin()
    writer.write(CONTENT)
    digest = Digest.of(CONTENT, "sha512")
    assert writer.commit(digest) == Descriptor("application/octet-stream", digest, 114)
    assert registry.lines[1] == f"PUT {UPLOAD}?digest={digest}"


def test_commit_wrong_digest_raises_digest_invalid() -> None:
    registry = UploadRegistry(OPENED, error_response(400, "DIGEST_INVALID"))
    writer = registry.begin()
    with pytest.raises(errors.DigestInvalid):
        writer.commit(Digest.of(b"another"))


# --- failures during an upload ---


@pytest.mark.parametrize(
    "fault",
    [
        RESPONSE_LOST,
        errors.TransportTimeout("too long"),
        errors.AuthError("no token"),
        error_response(503),
        error_response(401),
    ],
)
@pytest.mark.parametrize("stored", [0, 30, 50])
def test_write_failed_chunk_can_be_written_again(fault: Any, stored: int) -> None:
    retry = [ACCEPTED] if not stored else [error_response(416), status_response(f"0-{49 + stored}")]
    registry = UploadRegistry(OPENED, ACCEPTED, fault, *retry, CREATED)
    writer = registry.begin(50)
    with pytest.raises(errors.OciwireError):
        writer.write(CONTENT)
    assert (writer.size, writer.flushed) == (100, 50)
    assert writer.write(CONTENT[writer.size :]) == 14
    assert writer.commit().digest == Digest.of(CONTENT)
    assert registry.transport.bodies[-1] == CONTENT[80 if stored == 30 else 100 :]
    registry.assert_done()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_write_foreign_exception_propagates_and_keeps_bytes(kind: type[BaseException]) -> None:
    registry = UploadRegistry(OPENED, kind(), ACCEPTED, ACCEPTED, CREATED)
    writer = registry.begin(50)
    with pytest.raises(kind):
        writer.write(CONTENT)
    assert writer.size == 50
    writer.write(CONTENT[50:])
    assert writer.commit().digest == Digest.of(CONTENT)
    assert registry.steps == ["PATCH 0-49", "PATCH 0-49", "PATCH 50-99", "PUT 100-113"]


@pytest.mark.parametrize("stored", [True, False])
def test_commit_after_lost_patch_response_repeats_no_byte(stored: bool) -> None:
    """The first PUT of an upload has no Content-Range, and some registries ignore the header."""
    retry = [error_response(416), status_response("0-49")] if stored else [ACCEPTED]
    registry = UploadRegistry(OPENED, RESPONSE_LOST, *retry, CREATED)
    writer = registry.begin(50)
    with pytest.raises(errors.ReadError):
        writer.write(CONTENT)
    assert writer.commit().digest == Digest.of(CONTENT[:50])
    assert registry.steps == ["PATCH 0-49", "PATCH 0-49", *(["GET"] if stored else []), "PUT"]
    assert registry.requests[-1].body is None


def test_commit_lost_response_repeats_no_byte() -> None:
    registry = UploadRegistry(OPENED, RESPONSE_LOST, Response(404), status_response("0-49"), ACCEPTED, CREATED)
    writer = registry.begin()
    writer.write(CONTENT)
    assert writer.commit().digest == Digest.of(CONTENT)
    assert registry.steps == ["PUT", "HEAD", "GET", "PATCH 50-113", "PUT"]
    assert registry.transport.bodies[-2] == CONTENT[50:]


# --- failures of the closing PUT ---

TIMEOUT = errors.TransportTimeout("timed out before a response")
ALL_STORED = status_response("0-113")


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> list[float]:
    """Replace the pauses between requests, and return their durations. They advance the clock."""
    # Patched, because the client has no parameter for the function that sleeps between polls.
    time = SimpleNamespace(sleep=clock.sleep, monotonic=clock)
    monkeypatch.setattr(ociwire._client.upload_completion, "time", time)
    return clock.sleeps


def commit(registry: UploadRegistry) -> Descriptor:
    writer = registry.begin()
    writer.write(CONTENT)
    return writer.commit()


@pytest.mark.parametrize(
    "fault", [TIMEOUT, error_response(504), error_response(524), error_response(502), RESPONSE_LOST]
)
def test_commit_failed_put_is_polled_with_backoff(fault: Any, sleeps: list[float]) -> None:
    polls = [Response(404), ALL_STORED] * 5
    registry = UploadRegistry(OPENED, fault, *polls, Response(200))
    assert commit(registry).digest == Digest.of(CONTENT)
    assert registry.steps == ["PUT", *["HEAD", "GET"] * 5, "HEAD"]
    assert sleeps == [1, 2, 4, 8, 16]
    assert registry.requests[1].info.idempotent is False
    registry.assert_done()


def test_commit_polls_until_deadline(sleeps: list[float], clock: FakeClock) -> None:
    registry = UploadRegistry(OPENED, error_response(504), *[Response(404), ALL_STORED] * 3)
    registry.client = registry.client.with_options(deadline=clock.now + 6)
    with pytest.raises(errors.TransportTimeout, match=r"did not commit .* before the deadline after this failure: 504"):
        commit(registry)
    assert sleeps == [1, 2]
    registry.assert_done()


def test_commit_put_at_deadline_is_not_polled(sleeps: list[float], clock: FakeClock) -> None:
    def time_out(request: Request) -> Exception:
        clock.now += 7
        return TIMEOUT

    registry = UploadRegistry(OPENED, time_out)
    registry.client = registry.client.with_options(deadline=clock.now + 6)
    with pytest.raises(errors.TransportTimeout) as caught:
        commit(registry)
    assert caught.value is TIMEOUT
    assert sleeps == []


def test_commit_poll_can_be_interrupted(sleeps: list[float], clock: FakeClock) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    clock.on_sleep.append(interrupt)
    registry = UploadRegistry(OPENED, TIMEOUT, Response(404), ALL_STORED)
    with pytest.raises(KeyboardInterrupt):
        commit(registry)
    registry.assert_done()


@pytest.mark.parametrize("failure", [RESPONSE_LOST, error_response(503), errors.ConnectError("refused")])
def test_commit_failed_polls_raise_last_failure(failure: Any, sleeps: list[float]) -> None:
    registry = UploadRegistry(OPENED, TIMEOUT, *[failure] * 3)
    with pytest.raises(errors.OciwireError) as caught:
        commit(registry)
    assert caught.value is failure or caught.value.status == 503  # type: ignore[attr-defined]
    registry.assert_done()


def test_commit_poll_failed_once_is_repeated(sleeps: list[float]) -> None:
    registry = UploadRegistry(
        OPENED, TIMEOUT, RESPONSE_LOST, RESPONSE_LOST, Response(404), ALL_STORED, RESPONSE_LOST, Response(200)
    )
    assert commit(registry).digest == Digest.of(CONTENT)
    registry.assert_done()


def test_commit_poll_without_token_raises_auth_error(sleeps: list[float]) -> None:
    registry = UploadRegistry(OPENED, TIMEOUT, errors.AuthTimeout("no token"))
    with pytest.raises(errors.AuthTimeout):
        commit(registry)


def test_commit_connect_error_repeats_put_without_polls(sleeps: list[float]) -> None:
    refusal = errors.ConnectError("refused")
    registry = UploadRegistry(OPENED, *[refusal] * 5)
    with pytest.raises(errors.ConnectError) as caught:
        commit(registry)
    assert caught.value is refusal
    assert registry.steps == ["PUT"] * 5
    assert sleeps == [1, 2, 4]
    registry = UploadRegistry(OPENED, refusal, CREATED)
    assert commit(registry).digest == Digest.of(CONTENT)
    assert registry.transport.bodies[-1] == CONTENT


@pytest.mark.parametrize("status", [408, 429, 500, 503, 521, 522, 523])
def test_commit_put_refused_temporarily_is_repeated_without_stored_bytes(status: int, sleeps: list[float]) -> None:
    registry = UploadRegistry(
        OPENED, error_response(status), Response(404), upload_response("/two", status=204, Range="0-113"), CREATED
    )
    assert commit(registry).digest == Digest.of(CONTENT)
    assert registry.lines[-1] == f"PUT {BASE}/two?digest={Digest.of(CONTENT)}"
    assert registry.requests[-1].body is None
    assert sleeps == []
    registry.assert_done()


def test_commit_put_always_refused_raises_registry_error(sleeps: list[float]) -> None:
    registry = UploadRegistry(OPENED, *[error_response(503), Response(404), ALL_STORED] * 5)
    with pytest.raises(errors.RegistryError) as caught:
        commit(registry)
    assert caught.value.status == 503
    assert sleeps == [1, 2, 4]
    registry.assert_done()


def test_commit_put_with_long_retry_after_raises_too_many_requests(sleeps: list[float]) -> None:
    registry = UploadRegistry(OPENED, Response(429, {"Retry-After": "61"}))
    with pytest.raises(errors.TooManyRequests):
        commit(registry)
    assert sleeps == []


@pytest.mark.parametrize("status", [error_response(405), Response(200, {"Content-Type": "text/html"}, b"<html>")])
def test_commit_upload_without_status_is_polled_by_head(status: Response, sleeps: list[float]) -> None:
    registry = UploadRegistry(OPENED, TIMEOUT, *[Response(404), status] * 3, Response(200))
    assert commit(registry).digest == Digest.of(CONTENT)
    registry.assert_done()
    registry = UploadRegistry(OPENED, error_response(503), Response(404), status)
    with pytest.raises(errors.BlobUploadUnknown) as caught:
        commit(registry)
    assert isinstance(caught.value.__cause__, errors.RegistryError)
    registry.assert_done()


def test_commit_registry_losing_bytes_raises_range_invalid(sleeps: list[float]) -> None:
    attempt = [RESPONSE_LOST, Response(404), status_response("0-49"), ACCEPTED]
    registry = UploadRegistry(OPENED, ACCEPTED, *attempt * 4)
    writer = registry.begin(50)
    writer.write(CONTENT[:100])
    with pytest.raises(errors.RangeInvalid, match="has 50 bytes of the upload, but acknowledged 100") as caught:
        writer.commit()
    assert caught.value.__cause__ is RESPONSE_LOST


def test_commit_lost_put_after_one_byte_resumes(sleeps: list[float]) -> None:
    """``0-0`` means one byte or no byte. Here one byte was acknowledged."""
    registry = UploadRegistry(OPENED, ACCEPTED, RESPONSE_LOST, Response(404), status_response("0-0"), ACCEPTED, CREATED)
    writer = registry.begin(1)
    writer.write(b"ab")
    assert writer.commit().digest == Digest.of(b"ab")
    assert registry.steps == ["PATCH 0-0", "PUT 1-1", "HEAD", "GET", "PATCH 1-1", "PUT"]


@pytest.mark.parametrize(
    "poll", [Response(200, {"Content-Type": "text/html"}), error_response(403), error_response(500)]
)
def test_commit_poll_refused_or_html_does_not_find_blob(poll: Response, sleeps: list[float]) -> None:
    registry = UploadRegistry(OPENED, TIMEOUT, poll, ALL_STORED, Response(200))
    assert commit(registry).digest == Digest.of(CONTENT)
    assert sleeps == [1]
    registry.assert_done()


def test_write_one_byte_with_lost_response_is_not_repeated() -> None:
    registry = UploadRegistry(OPENED, RESPONSE_LOST, error_response(416), status_response("0-0"), CREATED)
    writer = registry.begin(1)
    with pytest.raises(errors.ReadError):
        writer.write(b"ab")
    writer.write(b"b")
    assert writer.commit().digest == Digest.of(b"ab")
    assert registry.steps[-1] == "PUT 1-1"


def test_write_lost_status_response_keeps_bytes() -> None:
    registry = UploadRegistry(
        OPENED, error_response(416), RESPONSE_LOST, error_response(416), status_response("0-49"), ACCEPTED, CREATED
    )
    writer = registry.begin(50)
    with pytest.raises(errors.ReadError):
        writer.write(CONTENT)
    writer.write(CONTENT[writer.size :])
    assert writer.commit().digest == Digest.of(CONTENT)


@pytest.mark.parametrize("code", ["BLOB_UPLOAD_UNKNOWN", ""])
@pytest.mark.parametrize("location", [UPLOADS_PATH + "1", "/elsewhere/1"])
def test_commit_unknown_upload_with_stored_blob_succeeds(code: str, location: str) -> None:
    registry = UploadRegistry(upload_response(location), error_response(404, code), Response(200))
    writer = registry.begin()
    writer.write(CONTENT)
    assert writer.commit().size == 114
    assert registry.lines[2] == f"HEAD {BASE}/v2/library/alpine/blobs/{Digest.of(CONTENT)}"
    assert registry.requests[2].info.operation == "push_blob_chunked"
    with pytest.raises(errors.UsageError):
        writer.commit()


@pytest.mark.parametrize("body", [b"", CONTENT])
def test_commit_lost_response_can_be_repeated(body: bytes) -> None:
    """The second commit succeeds with any of its first requests."""
    answers: dict[str, list[Any]] = {
        "POST": [OPENED],
        "PUT": [RESPONSE_LOST, UPLOAD_UNKNOWN],
        "PATCH": [UPLOAD_UNKNOWN],
        "HEAD": [RESPONSE_LOST, RESPONSE_LOST, RESPONSE_LOST, Response(200)],
    }

    def answer(request: Request) -> Response:
        answer = answers[request.method].pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Response)
        return answer

    writer = Client(HOST, FunctionTransport(answer)).push_blob_chunked("a")
    writer.write(body)
    with pytest.raises(errors.ReadError):
        writer.commit()
    assert writer.commit() == Descriptor("application/octet-stream", Digest.of(body), len(body))


@pytest.mark.parametrize("answer", [UPLOAD_UNKNOWN, Response(404)])
def test_commit_unknown_upload_without_blob_raises_upload_unknown(answer: Response) -> None:
    registry = UploadRegistry(OPENED, answer, Response(404))
    writer = registry.begin()
    with pytest.raises(errors.BlobUploadUnknown) as caught:
        writer.commit()
    assert caught.value.request is not None
    assert caught.value.request.method == "PUT"
    assert registry.steps == ["PUT", "HEAD"]


@pytest.mark.parametrize("location", [UPLOADS_PATH + "1", "/elsewhere/1"])
def test_blob_writer_unknown_upload_raises_upload_unknown(location: str) -> None:
    for answer in (UPLOAD_UNKNOWN, Response(404)):
        with pytest.raises(errors.BlobUploadUnknown):
            UploadRegistry(answer).resume(id_=location)
        writer = UploadRegistry(answer).resume(0, id_=location)
        writer.write(CONTENT)
        with pytest.raises(errors.BlobUploadUnknown):
            writer.close()


# --- uploads that take longer than a token is valid ---


def test_write_each_chunk_is_authorized_separately() -> None:
    scopes: list[str] = []
    used_tokens: list[str] = []

    def authorize(request: Request) -> Response:
        """Add a token for one request, as an authentication layer does."""
        scopes.append(str(request.info.required_scope))
        return scripted.round_trip(request.with_headers({"Authorization": f"Bearer {len(scopes)}"}))

    def accept_once(answer: Response) -> Callable[[Request], Response]:
        def check(request: Request) -> Response:
            token = request.headers["authorization"]
            is_new = token not in used_tokens
            used_tokens.append(token)
            return answer if is_new else error_response(401)

        return check

    scripted = ScriptedTransport([accept_once(answer) for answer in (OPENED, ACCEPTED, ACCEPTED, ACCEPTED, CREATED)])
    writer = Client(HOST, FunctionTransport(authorize)).push_blob_chunked(NAME, 30)
    writer.write(CONTENT)
    writer.commit()
    assert scopes == [PUSH] * 5
    assert used_tokens == [f"Bearer {number}" for number in range(1, 6)]


# --- invalid arguments ---


@pytest.mark.parametrize("name", ["", "Library/alpine", "a//b", "/a", "a/", "a:b", "../a", "a b", None, 5])
def test_blob_writer_invalid_repository_sends_nothing(name: Any) -> None:
    registry = UploadRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.push_blob_chunked(name)
    with pytest.raises(errors.UsageError):
        registry.client.push_blob_chunked_resume(name, UPLOAD)
    assert registry.requests == []


@pytest.mark.parametrize("size", [0, -1, 1.5, "1", True, float("nan"), b"1"])
def test_blob_writer_invalid_chunk_size_sends_nothing(size: Any) -> None:
    registry = UploadRegistry()
    for call in (lambda: registry.begin(size), lambda: registry.resume(0, size), lambda: registry.resume(None, size)):
        with pytest.raises(errors.UsageError, match="chunk size"):
            call()
    assert registry.requests == []


@pytest.mark.parametrize("offset", [-1, 1.0, "0", True, b""])
def test_resume_invalid_offset_sends_nothing(offset: Any) -> None:
    registry = UploadRegistry()
    with pytest.raises(errors.UsageError, match="offset"):
        registry.resume(offset)
    assert registry.requests == []


@pytest.mark.parametrize(
    "id_",
    [
        "",
        None,
        5,
        b"/u",
        "/a\tb",
        "/a\n",
        "/a\0",
        "/\u20ac",
        f"http://{HOST}/u",
        "ftp://a/b",
        "https://u:p@a/b",
    ],
)
@pytest.mark.parametrize("offset", [None, 0])
def test_resume_invalid_id_sends_nothing(id_: Any, offset: int | None) -> None:
    registry = UploadRegistry()
    with pytest.raises(errors.UsageError) as caught:
        registry.resume(offset, id_=id_)
    assert "u:p" not in str(caught.value)
    assert registry.requests == []


@pytest.mark.parametrize("algorithm", ["", "md5", "SHA256", "sha1", None, 256])
def test_push_blob_chunked_invalid_algorithm_sends_nothing(algorithm: Any) -> None:
    registry = UploadRegistry()
    with pytest.raises(errors.UsageError):
        registry.begin(algorithm=algorithm)
    assert registry.requests == []


@pytest.mark.parametrize("digest", ["", "sha256:abc", "abc", 5, b"sha256:"])
def test_commit_invalid_digest_sends_nothing(digest: Any) -> None:
    registry = UploadRegistry(OPENED, CREATED)
    writer = registry.begin()
    with pytest.raises(errors.UsageError):
        writer.commit(digest)
    assert registry.steps == []
    writer.commit()  # the writer is still usable


def test_write_text_raises_error() -> None:
    writer = UploadRegistry(OPENED).begin()
    with pytest.raises((TypeError, errors.UsageError)):
        writer.write("text")  # type: ignore[arg-type]
    assert writer.size == 0


@pytest.mark.parametrize("status", [301, 401, 403, 404, 429, 500])
def test_push_blob_chunked_error_status_raises_registry_error(status: int) -> None:
    with pytest.raises(errors.RegistryError) as caught:
        UploadRegistry(upload_response(status=status)).begin()
    assert caught.value.status == status
