"""`Client` and its methods for blobs: requests, results, errors, and closed responses."""

from __future__ import annotations

import io
import itertools
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ociwire.transport
from ociwire import (
    Client,
    Descriptor,
    Digest,
    FunctionTransport,
    HeadersTransport,
    Request,
    RequestInfo,
    Response,
    Scope,
    __version__,
    errors,
)
from ociwire.testing import MemoryRegistry, ScriptedTransport
from tests._support.doubles import RecordingTransport
from tests.client.support import (
    BASE,
    BLOB,
    BLOB_CREATED,
    BLOB_PATH,
    CONTENT,
    HOST,
    PULL,
    PUSH,
    UPLOADS_PATH,
    ScriptedRegistry,
    blob_response,
    error_response,
    upload_response,
)

UPLOAD_UNKNOWN = json.dumps({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "over"}]}).encode()


# --- host ---


@pytest.mark.parametrize(
    ("host", "normalized"),
    [
        ("docker.io", "registry-1.docker.io"),
        ("index.docker.io", "registry-1.docker.io"),
        ("Docker.IO", "registry-1.docker.io"),
        ("registry-1.docker.io", "registry-1.docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("GHCR.io", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_client_host_spelling_is_normalized(host: str, normalized: str) -> None:
    registry = ScriptedRegistry(blob_response(), host=host)
    assert registry.client.host == normalized
    registry.client.resolve_blob("a", BLOB.digest)
    assert registry.lines == [f"HEAD https://{normalized}/v2/a/blobs/{BLOB.digest}"]


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "https://ghcr.io",
        "//ghcr.io",
        "ghcr.io/",
        "ghcr.io/library",
        "ghcr.io?a=b",
        "ghcr.io#a",
        "user@ghcr.io",
        "user:secret@ghcr.io",
        "ghcr.io ",
        "gh cr.io",
        "ghcr.io\n",
        "ghcr.io\r\nX: y",
        "ghcr.io\0",
        "ghcr.io:1:2",
        "ghcr.io:",
        "ghcr.io:port",
        "ghcr.io:70000",
        "ghcr.io:-1",
        ":5000",
        "::1",
        "[::1",
        "[nonsense]",
        "ghcr..io",
        "-ghcr.io",
        "gh\\cr.io",
        "gh\N{LATIN SMALL LETTER U WITH DIAERESIS}cr.io",
        "a" * 300,
        None,
        b"ghcr.io",
        5000,
    ],
)
def test_client_invalid_host_raises_usage_error(host: Any) -> None:
    with pytest.raises(errors.UsageError) as caught:
        Client(host, ScriptedTransport([]))
    assert "secret" not in str(caught.value)


def test_client_insecure_uses_plain_http() -> None:
    registry = ScriptedRegistry(blob_response(), host="localhost:5000", insecure=True)
    registry.client.resolve_blob("a", BLOB.digest)
    assert registry.lines == [f"HEAD http://localhost:5000/v2/a/blobs/{BLOB.digest}"]
    assert repr(registry.client) == "<Client http://localhost:5000>"


# --- ownership ---


def test_close_given_transport_stays_open() -> None:
    transport = RecordingTransport()
    client = Client(HOST, transport)
    assert client.transport is transport
    with client:
        pass
    client.close()
    assert transport.closes == 0


def test_close_default_transport_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = RecordingTransport()
    calls: list[dict[str, Any]] = []

    def make(**options: Any) -> RecordingTransport:
        calls.append(options)
        return transport

    monkeypatch.setattr(ociwire.transport, "default_transport", make)
    with Client(HOST, user_agent="me/1") as client:
        assert client.transport is transport
        assert transport.closes == 0
    assert transport.closes >= 1
    assert calls == [{"user_agent": "me/1"}]
    client.close()


def test_close_default_transport_refuses_requests() -> None:
    client = Client("localhost:1", insecure=True)
    client.close()
    with pytest.raises(errors.UsageError, match="closed"):
        client.transport.round_trip(Request("GET", "http://localhost:1/v2/"))


# --- do ---


def test_do_path_is_completed_to_url() -> None:
    registry = ScriptedRegistry(blob_response(b"{}"))
    with registry.client.do(Request("GET", "/v2/_catalog?n=5")) as response:
        assert response.json() == {}
        assert response.request is registry.requests[0]
    assert registry.lines == [f"GET {BASE}/v2/_catalog?n=5"]
    registry.assert_done()


def test_do_absolute_url_is_unchanged() -> None:
    registry = ScriptedRegistry(blob_response(), blob_response())
    registry.client.do(Request("GET", "https://elsewhere.example/x")).close()
    registry.client.do(Request("GET", "http://registry.example/x")).close()
    assert registry.lines == ["GET https://elsewhere.example/x", "GET http://registry.example/x"]


def test_do_double_slash_path_stays_on_registry_host() -> None:
    registry = ScriptedRegistry(blob_response())
    registry.client.do(Request("GET", "//elsewhere.example/x")).close()
    assert registry.lines == [f"GET {BASE}//elsewhere.example/x"]


@pytest.mark.parametrize("status", [200, 202, 304, 307, 401, 404, 429, 500])
def test_do_any_status_returns_response(status: int) -> None:
    registry = ScriptedRegistry(Response(status, {"X-Y": "z"}, b"body"))
    with registry.client.do(Request("DELETE", "/v2/a/manifests/b")) as response:
        assert (response.status, response.headers["x-y"], response.read()) == (status, "z", b"body")
    registry.assert_done()


@pytest.mark.parametrize(
    ("request_scope", "argument", "sent"),
    [
        (Scope.EMPTY, None, Scope.EMPTY),
        (Scope.CATALOG, None, Scope.CATALOG),
        (Scope.EMPTY, Scope.CATALOG, Scope.CATALOG),
        (Scope.CATALOG, Scope.repository("a", "pull"), Scope.repository("a", "pull")),
        (Scope.CATALOG, Scope.EMPTY, Scope.EMPTY),
    ],
)
def test_do_scope_argument_overrides_scope_of_request(
    request_scope: Scope, argument: Scope | None, sent: Scope
) -> None:
    registry = ScriptedRegistry(blob_response())
    request = Request("GET", "/v2/_catalog", info=RequestInfo(required_scope=request_scope))
    registry.client.do(request, scope=argument).close()
    assert registry.requests[0].info.required_scope == sent
    assert request.info.required_scope == request_scope


def test_do_request_info_is_completed_and_not_overwritten() -> None:
    registry = ScriptedRegistry(blob_response(), blob_response(), debug_id="mine")
    registry.client.do(Request("GET", "/v2/")).close()
    info = RequestInfo(
        required_scope=Scope.CATALOG,
        operation="scan",
        debug_id="theirs",
        timeout=3.0,
        deadline=12345.0,
        idempotent=True,
        extra={"tenant": 7},
    )
    registry.client.do(Request("POST", "/v2/", info=info)).close()
    assert registry.requests[0].info == RequestInfo(operation="do", debug_id="mine")
    assert registry.requests[1].info == info


def test_do_headers_of_request_override_defaults() -> None:
    registry = ScriptedRegistry(blob_response(), blob_response(), blob_response(), user_agent="me/1")
    registry.client.do(Request("GET", "/v2/")).close()
    registry.client.do(Request("GET", "/v2/", {"User-Agent": "other/2", "Accept": "*/*"})).close()
    registry.client.do(Request("PUT", "/v2/a/manifests/b", body=b"{}")).close()
    assert [dict(request.headers.items()) for request in registry.requests] == [
        {"User-Agent": "me/1"},
        {"User-Agent": "other/2", "Accept": "*/*"},
        {"User-Agent": "me/1", "Expect": "100-continue"},
    ]
    assert registry.transport.bodies == [None, None, b"{}"]


def test_client_user_agent_defaults_to_version_and_is_validated() -> None:
    registry = ScriptedRegistry(blob_response())
    registry.client.resolve_blob("a", BLOB.digest)
    assert registry.requests[0].headers["user-agent"] == f"ociwire/{__version__}"
    with pytest.raises(errors.UsageError):
        Client(HOST, ScriptedTransport([]), user_agent="a\r\nb: c")


def test_do_request_of_caller_is_not_modified() -> None:
    registry = ScriptedRegistry(blob_response())
    request = Request("GET", "/v2/", {"Accept": "*/*"})
    registry.client.do(request).close()
    assert request == Request("GET", "/v2/", {"Accept": "*/*"})


def test_client_without_debug_id_gets_unique_debug_id() -> None:
    debug_ids = []
    for _ in range(2):
        registry = ScriptedRegistry(blob_response())
        registry.client.resolve_blob("a", BLOB.digest)
        debug_ids.append(registry.requests[0].info.debug_id)
    assert all(debug_id.startswith("client-") for debug_id in debug_ids)
    assert debug_ids[0] != debug_ids[1]


def test_do_response_without_request_gets_sent_request() -> None:
    response = Client(HOST, FunctionTransport(lambda request: Response(200))).do(Request("GET", "/v2/"))
    assert response.request is not None
    assert response.request.url == f"{BASE}/v2/"


def test_do_response_with_other_request_keeps_it() -> None:
    other = Request("GET", "https://cdn.example/x")
    client = Client(HOST, FunctionTransport(lambda request: Response(200, request=other)))
    assert client.do(Request("GET", "/v2/")).request == other


# --- arguments ---


INVALID_NAMES = ["", "Library/alpine", "/a", "a/", "a//b", "a b", "../a", "a?b", "a\n", "a:b", "a" * 256, None, b"a"]
INVALID_DIGESTS = [
    "",
    "latest",
    "sha256:",
    "sha256:abc",
    f"SHA256:{'a' * 64}",
    f"sha256:{'A' * 64}",
    "sha256:../x",
    None,
    5,
]


@pytest.mark.parametrize("name", INVALID_NAMES)
def test_blob_methods_invalid_repository_sends_nothing(name: Any) -> None:
    registry = ScriptedRegistry()
    for call in (
        lambda: registry.client.get_blob(name, BLOB.digest),
        lambda: registry.client.resolve_blob(name, BLOB.digest),
        lambda: registry.client.push_blob(name, BLOB, CONTENT),
    ):
        with pytest.raises(errors.UsageError):
            call()
    assert registry.requests == []


@pytest.mark.parametrize("digest", INVALID_DIGESTS)
def test_blob_methods_invalid_digest_sends_nothing(digest: Any) -> None:
    registry = ScriptedRegistry()
    for call in (registry.client.get_blob, registry.client.resolve_blob):
        with pytest.raises(errors.UsageError):
            call("a", digest)
    assert registry.requests == []


def test_get_blob_unsupported_algorithm_sends_nothing() -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError, match="md5"):
        registry.client.get_blob("a", "md5:900150983cd24fb0d6963f7d28e17f72")
    assert registry.requests == []


@pytest.mark.parametrize("content", ["text", None, 5, io.StringIO("text")])
def test_push_blob_invalid_content_sends_nothing(content: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.push_blob("a", BLOB, content)
    assert registry.requests == []


# --- get_blob ---


def test_get_blob_sends_get_and_verifies_content() -> None:
    registry = ScriptedRegistry(blob_response(Content_Type="application/vnd.x+gzip; a=b"), debug_id="mine")
    reader = registry.client.get_blob("library/alpine", BLOB.digest)
    assert reader.descriptor == BLOB.replace(media_type="application/vnd.x+gzip")
    assert not registry.bodies[0].closed
    assert reader.read() == CONTENT
    assert reader.verified
    assert registry.lines == [f"GET {BASE}{BLOB_PATH}"]
    request = registry.requests[0]
    assert dict(request.headers.items()) == {"User-Agent": f"ociwire/{__version__}"}
    assert request.body is None
    assert str(request.info.required_scope) == PULL
    assert request.info == RequestInfo(required_scope=Scope.parse(PULL), operation="get_blob", debug_id="mine")
    registry.assert_done()


@pytest.mark.parametrize("media_type", [None, "", "garbage", "a/b/c", "text/"])
def test_blob_methods_invalid_content_type_is_octet_stream(media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    for call in (Client.get_blob, Client.resolve_blob):
        registry = ScriptedRegistry(blob_response(**headers))
        result = call(registry.client, "a", BLOB.digest)
        descriptor = result if isinstance(result, Descriptor) else result.descriptor
        assert descriptor.media_type == "application/octet-stream"
        if result is not descriptor:
            result.close()
        registry.assert_done()


def test_get_blob_conflicting_digest_header_is_ignored() -> None:
    other = Digest.of(b"another")
    registry = ScriptedRegistry(
        blob_response(Docker_Content_Digest=other), blob_response(b"another", Docker_Content_Digest=BLOB.digest)
    )
    assert registry.client.get_blob("a", BLOB.digest).read() == CONTENT
    with pytest.raises(errors.DigestMismatch) as caught, registry.client.get_blob("a", BLOB.digest) as reader:
        reader.read()
    assert (caught.value.expected, caught.value.actual) == (BLOB.digest, other)
    registry.assert_done()


def test_get_blob_without_content_length_sends_head() -> None:
    registry = ScriptedRegistry(Response(200, (), CONTENT), blob_response(b"", Content_Length=str(len(CONTENT))))
    with registry.client.get_blob("library/alpine", BLOB.digest) as reader:
        assert reader.descriptor == BLOB
        assert reader.read() == CONTENT
    assert registry.lines == [f"GET {BASE}{BLOB_PATH}", f"HEAD {BASE}{BLOB_PATH}"]
    assert str(registry.requests[1].info.required_scope) == PULL
    registry.assert_done()


@pytest.mark.parametrize("length", ["", "many", "-1", "+5", "0x5", "5, 6", "9" * 30, "\xb2"])
def test_get_blob_invalid_content_length_sends_head(length: str) -> None:
    registry = ScriptedRegistry(Response(200, {"Content-Length": length}, CONTENT), blob_response())
    assert registry.client.get_blob("a", BLOB.digest).read() == CONTENT
    assert registry.methods == ["GET", "HEAD"]
    registry.assert_done()


def test_get_blob_equal_repeated_content_length_sends_no_head() -> None:
    lengths = [("Content-Length", str(len(CONTENT)))] * 2
    registry = ScriptedRegistry(Response(200, lengths, CONTENT))
    with registry.client.get_blob("a", BLOB.digest) as reader:
        assert reader.descriptor.size == len(CONTENT)
        assert reader.read() == CONTENT
    registry.assert_done()


@pytest.mark.parametrize(
    "answers",
    [
        [error_response(404), error_response(404)],
        [error_response(500), error_response(500)],
        [error_response(429)],
        [errors.ReadError("reset")],
        [Response(200), error_response(500)],
        [Response(200), Response(200)],
        [Response(200), errors.ConnectError("refused")],
    ],
)
def test_get_blob_size_lookup_fails_closes_responses(answers: list[Any]) -> None:
    registry = ScriptedRegistry(Response(200, (), CONTENT), *answers)
    with pytest.raises(errors.OciwireError):
        registry.client.get_blob("a", BLOB.digest)
    registry.assert_done()


REFUSALS = [
    (error_response(404), errors.BlobUnknown),
    (error_response(404, "NAME_UNKNOWN"), errors.NameUnknown),
    (error_response(401, "UNAUTHORIZED"), errors.Unauthorized),
    (error_response(403), errors.Denied),
    (error_response(429), errors.TooManyRequests),
    (error_response(500), errors.RegistryError),
    (Response(307, {"Location": "/x"}, b"<a>"), errors.RegistryError),
    (Response(206, {"Content-Length": "1"}, b"x"), errors.RegistryError),
    (Response(204), errors.RegistryError),
]


@pytest.mark.parametrize(("answer", "kind"), REFUSALS)
@pytest.mark.parametrize("call", [Client.get_blob, Client.resolve_blob])
def test_blob_methods_error_status_raises_and_closes_response(
    answer: Response, kind: type[errors.RegistryError], call: Callable[[Client, str, str], Any]
) -> None:
    confirmed = call is Client.resolve_blob and answer.status in (403, 404, 500)  # a GET confirms it
    answers = [answer, answer] if confirmed else [answer]
    registry = ScriptedRegistry(*answers)
    with pytest.raises(errors.RegistryError) as caught:
        call(registry.client, "a", BLOB.digest)
    assert type(caught.value) is kind
    assert caught.value.status == answer.status
    assert caught.value.request is not None
    assert caught.value.request.method == ("HEAD" if call is Client.resolve_blob and not confirmed else "GET")
    assert len(registry.requests) == len(answers)
    registry.assert_done()


CALLS: dict[str, Callable[[Client], Any]] = {
    "do": lambda client: client.do(Request("GET", "/v2/")),
    "get_blob": lambda client: client.get_blob("a", BLOB.digest),
    "resolve_blob": lambda client: client.resolve_blob("a", BLOB.digest),
    "push_blob": lambda client: client.push_blob("a", BLOB, CONTENT),
}


@pytest.mark.parametrize("error", [errors.ConnectError("refused"), OSError("foreign")])
@pytest.mark.parametrize("call", list(CALLS.values()), ids=CALLS)
def test_client_transport_exception_propagates(error: Exception, call: Callable[[Client], Any]) -> None:
    registry = ScriptedRegistry(error)
    with pytest.raises(type(error)) as caught:
        call(registry.client)
    assert caught.value is error


# --- resolve_blob ---


def test_resolve_blob_sends_head() -> None:
    registry = ScriptedRegistry(
        blob_response(b"", Content_Length="12345678901", Docker_Content_Digest=BLOB.digest), debug_id="d"
    )
    assert registry.client.resolve_blob("library/alpine", str(BLOB.digest)) == BLOB.replace(size=12345678901)
    assert registry.lines == [f"HEAD {BASE}{BLOB_PATH}"]
    request = registry.requests[0]
    assert dict(request.headers.items()) == {"User-Agent": f"ociwire/{__version__}"}
    assert str(request.info.required_scope) == PULL
    assert request.info == RequestInfo(required_scope=Scope.parse(PULL), operation="resolve_blob", debug_id="d")
    registry.assert_done()


def test_resolve_blob_unknown_algorithm_is_upload_response() -> None:
    registry = ScriptedRegistry(blob_response())
    digest = Digest("blake3:abcdef")
    assert registry.client.resolve_blob("a", digest).digest == digest


def test_resolve_blob_digest_header_differs_raises_digest_mismatch() -> None:
    other = Digest.of(b"another")
    registry = ScriptedRegistry(blob_response(Docker_Content_Digest=other))
    with pytest.raises(errors.DigestMismatch) as caught:
        registry.client.resolve_blob("a", BLOB.digest)
    assert (caught.value.expected, caught.value.actual) == (BLOB.digest, other)
    registry.assert_done()


@pytest.mark.parametrize("header", [Digest.of(CONTENT, "sha512"), "md5:abc", "garbage", ""])
def test_resolve_blob_digest_header_of_other_algorithm_is_ignored(header: str) -> None:
    registry = ScriptedRegistry(blob_response(Docker_Content_Digest=header))
    assert registry.client.resolve_blob("a", BLOB.digest) == BLOB
    registry.assert_done()


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (Response(206, {"Content-Range": "bytes 0-0/1234", "Content-Length": "1"}, b"x"), 1234),
        (Response(416, {"Content-Range": "bytes */0"}), 0),
        (Response(416), 0),
        (Response(200, {"Content-Length": "77"}, b"x" * 77), 77),
        (Response(200, {"Content-Length": "0"}), 0),
    ],
)
def test_resolve_blob_head_without_content_length_gets_first_byte(answer: Response, size: int) -> None:
    registry = ScriptedRegistry(Response(200, {"Content-Type": "a/b"}), answer)
    assert registry.client.resolve_blob("library/alpine", BLOB.digest) == Descriptor("a/b", BLOB.digest, size)
    assert registry.lines == [f"HEAD {BASE}{BLOB_PATH}", f"GET {BASE}{BLOB_PATH}"]
    assert registry.requests[1].headers["range"] == "bytes=0-0"
    assert registry.requests[1].info.operation == "resolve_blob"
    assert str(registry.requests[1].info.required_scope) == PULL
    registry.assert_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Response(206, (), b"x"), errors.ProtocolError),
        (Response(206, {"Content-Range": "bytes 0-0/*"}, b"x"), errors.ProtocolError),
        (Response(206, {"Content-Range": "0-0"}, b"x"), errors.ProtocolError),
        (Response(206, {"Content-Range": f"bytes 0-0/{'9' * 30}"}, b"x"), errors.ProtocolError),
        (Response(206, {"Content-Range": "bytes 0-0/\xb2"}, b"x"), errors.ProtocolError),
        (Response(200, (), b"x" * 100_000), errors.ProtocolError),
        (Response(416, {"Content-Range": "bytes */7"}), errors.RangeInvalid),
        (error_response(404), errors.BlobUnknown),
        (error_response(403), errors.Denied),
    ],
)
def test_resolve_blob_size_unknown_raises_error(answer: Response, kind: type[Exception]) -> None:
    registry = ScriptedRegistry(Response(200), answer)
    with pytest.raises(errors.OciwireError) as caught:
        registry.client.resolve_blob("a", BLOB.digest)
    assert type(caught.value) is kind
    assert caught.value.request is not None  # type: ignore[attr-defined]
    registry.assert_done()


# --- push_blob ---


def test_push_blob_sends_post_and_put() -> None:
    registry = ScriptedRegistry(upload_response(), BLOB_CREATED, debug_id="mine")
    assert registry.client.push_blob("library/alpine", BLOB, CONTENT) is BLOB
    assert registry.lines == [f"POST {BASE}{UPLOADS_PATH}", f"PUT {BASE}{UPLOADS_PATH}1?digest={BLOB.digest}"]
    post, put = registry.requests
    agent = {"User-Agent": f"ociwire/{__version__}"}
    assert dict(post.headers.items()) == agent
    assert post.body is None
    info = RequestInfo(required_scope=Scope.parse(PUSH), operation="push_blob", debug_id="mine")
    assert post.info == info.replace(idempotent=True)
    assert put.info == info.replace(idempotent=False)  # after a fault, the client checks for the blob first
    assert [str(request.info.required_scope) for request in (post, put)] == [PUSH, PUSH]
    assert dict(put.headers.items()) == {
        **agent,
        "Content-Type": "application/octet-stream",
        "Expect": "100-continue",
    }
    assert put.body is not None
    assert put.body.length == BLOB.size
    assert registry.transport.bodies == [None, CONTENT]
    registry.assert_done()


@pytest.mark.parametrize(
    "content",
    [
        lambda: CONTENT,
        lambda: bytearray(CONTENT),
        lambda: memoryview(CONTENT),
        lambda: io.BytesIO(CONTENT),
        lambda: [CONTENT[:5], CONTENT[5:]],
        lambda: iter([CONTENT[:5], CONTENT[5:]]),
        lambda: (bytes([byte]) for byte in CONTENT),
        lambda: io.BufferedReader(io.BytesIO(CONTENT)),  # type: ignore[arg-type]
    ],
)
def test_push_blob_any_kind_of_content_sends_its_bytes(content: Callable[[], Any]) -> None:
    registry = ScriptedRegistry(upload_response(), BLOB_CREATED)
    registry.client.push_blob("a", BLOB, content())
    assert registry.transport.bodies[1] == CONTENT
    assert registry.requests[1].body.length == BLOB.size  # type: ignore[union-attr]


def test_push_blob_file_is_sent_from_position_and_left_open() -> None:
    file = io.BytesIO(b"skipped" + CONTENT)
    file.seek(7)
    registry = ScriptedRegistry(upload_response(), BLOB_CREATED)
    registry.client.push_blob("a", BLOB, file)
    assert registry.transport.bodies[1] == CONTENT
    assert not file.closed


def test_push_blob_empty_content_sends_no_expect_header() -> None:
    registry = ScriptedRegistry(upload_response(), BLOB_CREATED)
    registry.client.push_blob("a", Descriptor.of(b""), b"")
    assert "expect" not in registry.requests[1].headers
    assert registry.transport.bodies[1] == b""
    assert registry.requests[1].body.length == 0  # type: ignore[union-attr]


def test_push_blob_media_type_is_not_content_type_of_request() -> None:
    registry = ScriptedRegistry(upload_response(), BLOB_CREATED)
    descriptor = BLOB.replace(media_type="application/vnd.oci.image.layer.v1.tar+gzip")
    assert registry.client.push_blob("a", descriptor, CONTENT) == descriptor
    assert registry.requests[1].headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("algorithm", ["sha512", "sha384"])
def test_push_blob_other_algorithm_sends_digest_algorithm(algorithm: str) -> None:
    registry = ScriptedRegistry(upload_response(), BLOB_CREATED)
    descriptor = Descriptor.of(CONTENT, algorithm=algorithm)
    registry.client.push_blob("library/alpine", descriptor, CONTENT)
    assert registry.lines == [
        f"POST {BASE}{UPLOADS_PATH}?digest-algorithm={algorithm}",
        f"PUT {BASE}{UPLOADS_PATH}1?digest={descriptor.digest}",
    ]


DIGEST = f"digest={BLOB.digest}"


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/uploads/1", f"{BASE}/uploads/1?{DIGEST}"),
        ("5f9a", f"{BASE}{UPLOADS_PATH}5f9a?{DIGEST}"),
        ("../uploads/5f9a", f"{BASE}{UPLOADS_PATH}5f9a?{DIGEST}"),
        ("?_state=a", f"{BASE}{UPLOADS_PATH}?_state=a&{DIGEST}"),
        ("/uploads/1?_state=a%2Bb%3D&x=y", f"{BASE}/uploads/1?_state=a%2Bb%3D&x=y&{DIGEST}"),
        (f"{BASE}/uploads/1", f"{BASE}/uploads/1?{DIGEST}"),
        (f"{BASE}:443/uploads/1", f"{BASE}:443/uploads/1?{DIGEST}"),
        ("HTTPS://REGISTRY.example/uploads/1?a", f"https://REGISTRY.example/uploads/1?a&{DIGEST}"),
        ("//registry.example/uploads/1", f"{BASE}/uploads/1?{DIGEST}"),
        # a fragment is not sent (RFC 9110, section 7.1), so the query must precede it
        ("/uploads/1#part", f"{BASE}/uploads/1?{DIGEST}"),
    ],
)
def test_push_blob_location_is_resolved_with_its_query(location: str, url: str) -> None:
    registry = ScriptedRegistry(upload_response(location), BLOB_CREATED)
    registry.client.push_blob("library/alpine", BLOB, CONTENT)
    assert registry.lines[1] == f"PUT {url}"
    assert str(registry.requests[1].info.required_scope) == PUSH
    registry.assert_done()


@pytest.mark.parametrize(
    "location",
    [
        "https://storage.example/u?signature=s",
        "//storage.example/u?signature=s",
        "https://registry.example:8443/u?signature=s",
        "https://sub.registry.example/u?signature=s",
    ],
)
def test_push_blob_cross_origin_location_gets_no_credentials(location: str) -> None:
    registry = ScriptedRegistry(upload_response(location), BLOB_CREATED)
    registry.client.push_blob("library/alpine", BLOB, CONTENT)
    put = registry.requests[1]
    assert put.url.endswith(f"{location.removeprefix('https:')}&{DIGEST}")
    assert put.info.required_scope == Scope.EMPTY
    assert put.info.operation == "push_blob"
    assert "authorization" not in put.headers
    assert registry.transport.bodies[1] == CONTENT
    registry.assert_done()


def test_push_blob_relative_location_is_resolved_against_redirected_url() -> None:
    def redirect(request: Request) -> Response:
        info = request.info.replace(required_scope=Scope.EMPTY)  # as RedirectTransport does for a cross-origin redirect
        redirected = request.replace(url="https://eu.registry.example/v2/x/blobs/uploads/", info=info)
        return Response(202, {"Location": "1"}, request=redirected)

    registry = ScriptedRegistry(redirect, BLOB_CREATED)
    registry.client.push_blob("library/alpine", BLOB, CONTENT)
    put = registry.requests[1]
    assert put.url == f"https://eu.registry.example/v2/x/blobs/uploads/1?{DIGEST}"
    assert put.info.required_scope == Scope.EMPTY  # not the origin of the registry


def test_do_http_url_with_https_client_is_anonymous() -> None:
    transport = RecordingTransport()
    client = Client(HOST, transport)
    for url in ("http://registry.example/v2/", "HTTP://registry.example/v2/", "https://registry.example/v2/", "/v2/"):
        client.do(Request("GET", url), scope=Scope.repository("a", "pull")).close()
    assert [request.info.anonymous for request in transport.requests] == [True, True, False, False]
    assert [bool(request.info.required_scope) for request in transport.requests] == [False, False, True, True]
    insecure = Client(HOST, transport, insecure=True)
    insecure.do(Request("GET", "http://registry.example/v2/")).close()
    assert not transport.requests[-1].info.anonymous


@pytest.mark.parametrize("location", [f"http://{HOST}/uploads/1", "http://storage.example/u", f"http://{HOST}:443/u"])
def test_push_blob_http_location_raises_protocol_error(location: str) -> None:
    registry = ScriptedRegistry(upload_response(location))
    with pytest.raises(errors.ProtocolError, match=r"it goes from https to http .*proxy that terminates TLS"):
        registry.client.push_blob("library/alpine", BLOB, iter([CONTENT]))
    assert len(registry.requests) == 1
    registry.assert_done()


@pytest.mark.parametrize("location", ["http://localhost:5000/u", "http://other.example/u", "https://other.example/u"])
def test_push_blob_insecure_client_follows_any_location(location: str) -> None:
    registry = ScriptedRegistry(upload_response(location), BLOB_CREATED, host="localhost:5000", insecure=True)
    registry.client.push_blob("a", BLOB, CONTENT)
    assert registry.lines[1] == f"PUT {location}?{DIGEST}"
    assert bool(registry.requests[1].info.required_scope) == location.startswith("http://localhost:5000/")


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "ftp://registry.example/u",
        "file:///etc/passwd",
        "https://user:secret@registry.example/u",
        "https://registry.example:port/u",
        "https://registry.example:1:2/u",
        "/a\tb",
        "https://registry.example\\@storage.example/u",
        "https://[::1/u",
        "/\x7f",
    ],
)
def test_push_blob_invalid_location_raises_protocol_error(location: str | None) -> None:
    registry = ScriptedRegistry(upload_response(location))
    with pytest.raises(errors.ProtocolError) as caught:
        registry.client.push_blob("library/alpine", BLOB, CONTENT)
    assert "secret" not in str(caught.value)
    assert len(registry.requests) == 1
    registry.assert_done()


def test_push_blob_created_response_without_location_succeeds() -> None:
    registry = ScriptedRegistry(upload_response(), Response(201))
    assert registry.client.push_blob("a", BLOB, CONTENT) == BLOB
    registry.assert_done()


class CountingContent:
    """Single-use content that counts the bytes that are read from it."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def __iter__(self) -> Iterator[bytes]:
        for byte in CONTENT:
            self.bytes_read += 1
            yield bytes([byte])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error_response(401), errors.Unauthorized),
        (error_response(403, "DENIED"), errors.Denied),
        (error_response(404), errors.NameUnknown),
        (error_response(429), errors.TooManyRequests),
        (Response(302, {"Location": "/u"}), errors.RegistryError),
    ],
)
def test_push_blob_refused_post_reads_no_content(answer: Response, kind: type[errors.RegistryError]) -> None:
    registry = ScriptedRegistry(answer)
    content = CountingContent()
    with pytest.raises(errors.RegistryError) as caught:
        registry.client.push_blob("a", BLOB, content)
    assert type(caught.value) is kind
    assert content.bytes_read == 0
    registry.assert_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error_response(400, "DIGEST_INVALID"), errors.DigestInvalid),
        (error_response(413), errors.SizeInvalid),
        (error_response(401), errors.Unauthorized),
        (error_response(501), errors.Unsupported),
        (Response(206), errors.RegistryError),
    ],
)
def test_push_blob_refused_put_raises_and_closes_response(answer: Response, kind: type[errors.RegistryError]) -> None:
    registry = ScriptedRegistry(upload_response(), answer)
    with pytest.raises(errors.RegistryError) as caught:
        registry.client.push_blob("a", BLOB, CONTENT)
    assert type(caught.value) is kind
    assert len(registry.requests) == 2
    registry.assert_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    "headers",
    [
        {"Docker-Content-Digest": BLOB.digest},
        {"Location": BLOB_PATH},
        {"Location": f"{BASE}{BLOB_PATH}?x=1"},
        {"Location": BLOB_PATH.replace(":", "%3A")},
    ],
)
def test_push_blob_put_of_other_success_status_that_names_digest_is_success(
    status: int, headers: dict[str, str]
) -> None:
    registry = ScriptedRegistry(upload_response(), Response(status, headers))
    assert registry.client.push_blob("library/alpine", BLOB, CONTENT) == BLOB
    registry.assert_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    ("lookups", "methods"),
    [
        ([Response(200)], ["HEAD"]),
        ([Response(404), Response(206)], ["HEAD", "GET"]),
        ([Response(405), Response(200)], ["HEAD", "GET"]),
        ([Response(500), Response(416)], ["HEAD", "GET"]),
        ([Response(200, {"Content-Type": "text/html"}), Response(206)], ["HEAD", "GET"]),
    ],
)
def test_push_blob_put_of_other_success_status_is_confirmed(
    status: int, lookups: list[Response], methods: list[str]
) -> None:
    registry = ScriptedRegistry(upload_response(), Response(status, {"Location": "/u"}), *lookups)
    assert registry.client.push_blob("library/alpine", BLOB, CONTENT) == BLOB
    assert [request.method for request in registry.requests[2:]] == methods
    registry.assert_done()


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    "lookups",
    [[Response(404), Response(404)], [Response(404), Response(200, {"Content-Type": "text/html"}, b"<html>")]],
)
def test_push_blob_put_of_other_success_status_without_blob_is_error(status: int, lookups: list[Response]) -> None:
    other = Digest.of(b"other")
    registry = ScriptedRegistry(upload_response(), Response(status, {"Docker-Content-Digest": other}), *lookups)
    with pytest.raises(
        errors.RegistryError, match=f"^{status} .*expected 201, and the registry does not have {BLOB.digest} "
    ) as caught:
        registry.client.push_blob("library/alpine", BLOB, CONTENT)
    assert caught.value.status == status
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    registry.assert_done()


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204])
def test_push_blob_upload_is_opened_by_any_success_status_with_location(status: int) -> None:
    registry = ScriptedRegistry(Response(status, {"Location": UPLOADS_PATH + "1"}), BLOB_CREATED)
    assert registry.client.push_blob("library/alpine", BLOB, CONTENT) == BLOB
    registry.assert_done()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("media_type", ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"])
def test_push_blob_html_page_is_content_error(number: int, status: int, media_type: str) -> None:
    page = Response(status, {"Content-Type": media_type, "Location": UPLOADS_PATH + "1"}, b"<html>Log in</html>")
    registry = ScriptedRegistry(*[upload_response()] * number, page)
    with pytest.raises(errors.ContentError, match=r"HTML page.*check the host name"):
        registry.client.push_blob("library/alpine", BLOB, CONTENT)
    registry.assert_done()


def test_push_blob_empty_body_labelled_html_is_success() -> None:
    """Flask and Django label an empty body as HTML (Quay, Pulp)."""
    label = {"Content-Type": "text/html; charset=utf-8"}
    opened = Response(202, {"Location": UPLOADS_PATH + "1", "Content-Length": "0", **label})
    registry = ScriptedRegistry(opened, Response(201, label, iter([b""])))
    assert registry.client.push_blob("library/alpine", BLOB, CONTENT) == BLOB
    registry.assert_done()


@pytest.mark.parametrize("error", [OSError("of the content"), errors.ReadError("of the content")])
def test_push_blob_exception_of_content_propagates_without_polls(error: Exception) -> None:
    """An exception of the content is not treated as a fault of the registry, even if it is a `TransportError`."""

    def raise_error() -> Iterator[bytes]:
        yield CONTENT[:5]
        raise error

    registry = ScriptedRegistry(upload_response(), BLOB_CREATED)
    with pytest.raises(type(error)) as caught:
        registry.client.push_blob("a", BLOB, raise_error())
    assert caught.value is error
    assert registry.methods == ["POST", "PUT"]
    assert registry.bodies[0].closed


UNKNOWN_UPLOADS = [Response(404, (), UPLOAD_UNKNOWN), Response(404)]


@pytest.mark.parametrize("answer", UNKNOWN_UPLOADS)
def test_push_blob_unknown_upload_with_stored_blob_succeeds(answer: Response) -> None:
    registry = ScriptedRegistry(upload_response(), answer, Response(200))
    assert registry.client.push_blob("library/alpine", BLOB, CONTENT) == BLOB
    assert registry.lines[2] == f"HEAD {BASE}{BLOB_PATH}"
    assert str(registry.requests[2].info.required_scope) == PUSH
    assert registry.requests[2].info.operation == "push_blob"
    registry.assert_done()


@pytest.mark.parametrize("answer", UNKNOWN_UPLOADS)
def test_push_blob_unknown_upload_without_blob_raises_after_restart(answer: Response) -> None:
    attempt = (upload_response(), answer, Response(404))
    registry = ScriptedRegistry(*attempt, *attempt)
    with pytest.raises(errors.BlobUploadUnknown) as caught:
        registry.client.push_blob("library/alpine", BLOB, CONTENT)
    assert caught.value.request is not None
    assert caught.value.request.method == "PUT"
    registry.assert_done()


@pytest.mark.parametrize("answer", UNKNOWN_UPLOADS)
def test_push_blob_unknown_upload_restarts_only_resendable_content(answer: Response) -> None:
    registry = ScriptedRegistry(upload_response(), answer, Response(404), upload_response(), Response(201))
    assert registry.client.push_blob("library/alpine", BLOB, CONTENT) == BLOB
    registry.assert_done()

    def consume_body(request: Request) -> Response:
        assert request.body is not None
        next(request.body.open())
        return answer.replace()

    registry = ScriptedRegistry(upload_response(), consume_body, Response(404))
    with pytest.raises(errors.BlobUploadUnknown):
        registry.client.push_blob("library/alpine", BLOB, iter([CONTENT]))
    registry.assert_done()


def partial_status(request: Request) -> Response:
    return Response(204, {"Location": UPLOADS_PATH + "2", "Range": "0-4"})


@pytest.mark.parametrize("content", [lambda: CONTENT, lambda: io.BytesIO(CONTENT)])
def test_push_blob_connection_lost_sends_missing_bytes(content: Callable[[], Any]) -> None:
    fault = errors.ReadError("reset")
    registry = ScriptedRegistry(upload_response(), fault, Response(404), partial_status, Response(202), Response(201))
    assert registry.client.push_blob("library/alpine", BLOB, content()) == BLOB
    assert registry.lines[4:] == [f"PATCH {BASE}{UPLOADS_PATH}2", f"PUT {BASE}{UPLOADS_PATH}2?digest={BLOB.digest}"]
    assert registry.transport.bodies[4:] == [CONTENT[5:], None]
    assert {request.info.operation for request in registry.requests} == {"push_blob"}


def test_push_blob_connection_lost_sends_missing_bytes_in_min_length_chunks() -> None:
    content = bytes(12 * 1024 * 1024)
    memory = MemoryRegistry(min_chunk_length=5 * 1024 * 1024)
    faults = [errors.ReadError("reset")]

    def answer(request: Request) -> Response:
        if request.method == "PUT" and faults:
            raise faults.pop()
        return memory.round_trip(request)

    blob = Descriptor.of(content)
    transport = RecordingTransport(answer)
    client = Client(HOST, transport)
    client.push_blob("a", blob, content)
    assert [request.method for request in transport.requests] == ["POST", "PUT", "HEAD", "GET", "PATCH", "PATCH", "PUT"]
    assert client.get_blob("a", blob.digest).read() == content


def test_push_blob_connection_lost_with_single_use_content_raises_fault() -> None:
    fault = errors.ReadError("reset")

    def consume_body(request: Request) -> Exception:
        assert request.body is not None
        next(request.body.open())
        return fault

    registry = ScriptedRegistry(upload_response(), consume_body, Response(404), partial_status)
    with pytest.raises(errors.ReadError) as caught:
        registry.client.push_blob("library/alpine", BLOB, iter([CONTENT]))
    assert caught.value is fault


def test_push_blob_unknown_upload_and_failed_head_raises_registry_error() -> None:
    registry = ScriptedRegistry(upload_response(), Response(404, (), UPLOAD_UNKNOWN), error_response(503))
    with pytest.raises(errors.RegistryError):
        registry.client.push_blob("library/alpine", BLOB, CONTENT)
    registry.assert_done()


# --- layers and repeated calls ---


def test_client_over_layered_transport_sends_one_user_agent() -> None:
    transport = ScriptedTransport([blob_response()])
    client = Client(HOST, HeadersTransport(transport, user_agent="inner/1"), user_agent="outer/1")
    assert client.get_blob("a", BLOB.digest).read() == CONTENT
    assert transport.requests[0].headers.get_all("user-agent") == ("outer/1",)


def test_get_blob_repeated_calls_succeed() -> None:
    registry = ScriptedRegistry(*itertools.repeat(blob_response(), 3))
    for _ in range(3):
        with registry.client.get_blob("a", BLOB.digest) as reader:
            assert reader.read() == CONTENT
    registry.assert_done()
