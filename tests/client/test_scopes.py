"""Requests of all client methods, with their scopes and operation names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from ociwire import Client, Descriptor, Request, RequestInfo, Response, Scope, errors
from ociwire.media_types import OCI_INDEX, OCI_MANIFEST
from tests.client.support import (
    BASE,
    BLOB,
    BLOB_CREATED,
    BLOB_PATH,
    CONTENT,
    NAME,
    PULL,
    PUSH,
    UPLOADS_PATH,
    ScriptedRegistry,
    blob_response,
    error_response,
    upload_response,
)

SOURCE = "other/source"
DELETE = f"repository:{NAME}:delete"
MOUNT = f"{PUSH} repository:{SOURCE}:pull"
CATALOG = "registry:catalog:*"


MANIFESTS = f"/v2/{NAME}/manifests"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST}).encode()
MANIFEST_DIGEST = Descriptor.of(MANIFEST).digest
REFERRER = json.dumps(
    {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "subject": BLOB.replace(media_type=OCI_MANIFEST).to_dict()}
).encode()
REFERRER_DIGEST = Descriptor.of(REFERRER).digest
REFERRERS_PATH = f"/v2/{NAME}/referrers/{BLOB.digest}"
REFERRERS_TAG = f"{MANIFESTS}/sha256-{BLOB.digest.encoded}"
INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
INDEX_WITH_ENTRY = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [Descriptor.of(REFERRER, OCI_MANIFEST).to_dict()],
    }
).encode()


class ExpectedRequest(NamedTuple):
    """Expected request."""

    method: str
    url: str
    scope: str
    operation: str


class Case(NamedTuple):
    """Call of a client method and its expected requests.

    Attributes:
        method: The name of the method, and of the operation of its requests.
        call: Function that calls the method.
        answers: The responses to its requests, in order.
        requests: The method, the path and the scope of each request.
    """

    method: str
    call: Callable[[Client], Any]
    answers: list[Response]
    requests: list[tuple[str, str, str]]


def manifest_response(content: bytes = MANIFEST) -> Response:
    return Response(200, {"Content-Type": json.loads(content)["mediaType"]}, content)


def push_chunked(client: Client) -> None:
    with client.push_blob_chunked(NAME) as writer:
        writer.write(CONTENT)
        writer.commit()


def push_chunked_in_two_chunks(client: Client) -> None:
    with client.push_blob_chunked(NAME, len(CONTENT) - 1) as writer:
        writer.write(CONTENT)
        writer.commit()


def cancel_upload(client: Client) -> None:
    client.push_blob_chunked(NAME).cancel()


def resume_upload(client: Client) -> None:
    with client.push_blob_chunked_resume(NAME, f"{UPLOADS_PATH}1") as writer:
        writer.write(CONTENT)
        writer.commit(BLOB.digest)


CASES = {
    "get_blob": Case(
        "get_blob",
        lambda client: client.get_blob(NAME, BLOB.digest).read(),
        [blob_response()],
        [("GET", BLOB_PATH, PULL)],
    ),
    "get_blob, without Content-Length": Case(
        "get_blob",
        lambda client: client.get_blob(NAME, BLOB.digest).read(),
        [Response(200, (), CONTENT), blob_response()],
        [("GET", BLOB_PATH, PULL), ("HEAD", BLOB_PATH, PULL)],
    ),
    "get_blob, resumed": Case(
        "get_blob",
        lambda client: client.get_blob(NAME, BLOB.digest).read(),
        [
            Response(200, {"Content-Length": str(BLOB.size)}, CONTENT[:4]),
            Response(206, {"Content-Range": f"bytes 4-{BLOB.size - 1}/{BLOB.size}"}, CONTENT[4:]),
        ],
        [("GET", BLOB_PATH, PULL), ("GET", BLOB_PATH, PULL)],
    ),
    "get_blob_range": Case(
        "get_blob_range",
        lambda client: client.get_blob_range(NAME, BLOB.digest, 4, 6).read(),
        [Response(206, {"Content-Range": f"bytes 4-5/{BLOB.size}"}, CONTENT[4:6])],
        [("GET", BLOB_PATH, PULL)],
    ),
    "get_manifest": Case(
        "get_manifest",
        lambda client: client.get_manifest(NAME, MANIFEST_DIGEST).read(),
        [manifest_response()],
        [("GET", f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL)],
    ),
    "get_tag": Case(
        "get_tag",
        lambda client: client.get_tag(NAME, "latest").read(),
        [manifest_response()],
        [("GET", f"{MANIFESTS}/latest", PULL)],
    ),
    "resolve_blob": Case(
        "resolve_blob",
        lambda client: client.resolve_blob(NAME, BLOB.digest),
        [blob_response()],
        [("HEAD", BLOB_PATH, PULL)],
    ),
    "resolve_blob, without Content-Length": Case(
        "resolve_blob",
        lambda client: client.resolve_blob(NAME, BLOB.digest),
        [Response(200), Response(206, {"Content-Range": "bytes 0-0/9"}, b"x")],
        [("HEAD", BLOB_PATH, PULL), ("GET", BLOB_PATH, PULL)],
    ),
    "resolve_manifest": Case(
        "resolve_manifest",
        lambda client: client.resolve_manifest(NAME, MANIFEST_DIGEST),
        [blob_response(MANIFEST)],
        [("HEAD", f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL)],
    ),
    "resolve_manifest, by GET": Case(
        "resolve_manifest",
        lambda client: client.resolve_manifest(NAME, MANIFEST_DIGEST),
        [error_response(405), manifest_response()],
        [(method, f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL) for method in ("HEAD", "GET")],
    ),
    "resolve_tag": Case(
        "resolve_tag",
        lambda client: client.resolve_tag(NAME, "latest"),
        [blob_response(MANIFEST, Docker_Content_Digest=MANIFEST_DIGEST)],
        [("HEAD", f"{MANIFESTS}/latest", PULL)],
    ),
    "resolve_tag, by GET": Case(
        "resolve_tag",
        lambda client: client.resolve_tag(NAME, "latest"),
        [blob_response(MANIFEST), manifest_response()],
        [(method, f"{MANIFESTS}/latest", PULL) for method in ("HEAD", "GET")],
    ),
    "push_blob": Case(
        "push_blob",
        lambda client: client.push_blob(NAME, BLOB, CONTENT),
        [upload_response(), BLOB_CREATED],
        [("POST", UPLOADS_PATH, PUSH), ("PUT", f"{UPLOADS_PATH}1?digest={BLOB.digest}", PUSH)],
    ),
    "push_blob, unknown upload": Case(
        "push_blob",
        lambda client: client.push_blob(NAME, BLOB, CONTENT),
        [upload_response(), error_response(404, "BLOB_UPLOAD_UNKNOWN"), Response(200)],
        [
            ("POST", UPLOADS_PATH, PUSH),
            ("PUT", f"{UPLOADS_PATH}1?digest={BLOB.digest}", PUSH),
            ("HEAD", BLOB_PATH, PUSH),
        ],
    ),
    "push_blob, without descriptor": Case(
        "push_blob",
        lambda client: client.push_blob(NAME, CONTENT),
        [upload_response(), BLOB_CREATED],
        [("POST", UPLOADS_PATH, PUSH), ("PUT", f"{UPLOADS_PATH}1?digest={BLOB.digest}", PUSH)],
    ),
    "has_blob": Case(
        "has_blob",
        lambda client: client.has_blob(NAME, BLOB.digest),
        [blob_response()],
        [("HEAD", BLOB_PATH, PULL)],
    ),
    "has_manifest": Case(
        "has_manifest",
        lambda client: client.has_manifest(NAME, MANIFEST_DIGEST),
        [blob_response(MANIFEST)],
        [("HEAD", f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL)],
    ),
    "fetch_manifest": Case(
        "fetch_manifest",
        lambda client: client.fetch_manifest(NAME, "latest"),
        [manifest_response()],
        [("GET", f"{MANIFESTS}/latest", PULL)],
    ),
    "get_manifest, by tag": Case(
        "get_manifest",
        lambda client: client.get_manifest(NAME, "latest"),
        [manifest_response()],
        [("GET", f"{MANIFESTS}/latest", PULL)],
    ),
    "tag": Case(
        "tag",
        lambda client: client.tag(NAME, "latest", "a", "b"),
        [manifest_response(), Response(201), Response(201)],
        [("GET", f"{MANIFESTS}/latest", PUSH), ("PUT", f"{MANIFESTS}/a", PUSH), ("PUT", f"{MANIFESTS}/b", PUSH)],
    ),
    "ping": Case("ping", lambda client: client.ping(), [Response(200)], [("GET", "/v2/", "")]),
    "push_blob_chunked": Case(
        "push_blob_chunked",
        push_chunked,
        [upload_response(), BLOB_CREATED],
        [("POST", UPLOADS_PATH, PUSH), ("PUT", f"{UPLOADS_PATH}1?digest={BLOB.digest}", PUSH)],
    ),
    "push_blob_chunked, in chunks": Case(
        "push_blob_chunked",
        push_chunked_in_two_chunks,
        [upload_response(), upload_response(f"{UPLOADS_PATH}2"), BLOB_CREATED],
        [
            ("POST", UPLOADS_PATH, PUSH),
            ("PATCH", f"{UPLOADS_PATH}1", PUSH),
            ("PUT", f"{UPLOADS_PATH}2?digest={BLOB.digest}", PUSH),
        ],
    ),
    "push_blob_chunked, cancelled": Case(
        "push_blob_chunked",
        cancel_upload,
        [upload_response(), Response(204)],
        [("POST", UPLOADS_PATH, PUSH), ("DELETE", f"{UPLOADS_PATH}1", PUSH)],
    ),
    "push_blob_chunked_resume": Case(
        "push_blob_chunked_resume",
        lambda client: client.push_blob_chunked_resume(NAME, f"{UPLOADS_PATH}1"),
        [Response(204, {"Range": "0-4"})],
        [("GET", f"{UPLOADS_PATH}1", PUSH)],
    ),
    "mount_blob": Case(
        "mount_blob",
        lambda client: client.mount_blob(SOURCE, NAME, BLOB.digest),
        [BLOB_CREATED, blob_response()],
        [("POST", f"{UPLOADS_PATH}?mount={BLOB.digest}&from={SOURCE}", MOUNT), ("HEAD", BLOB_PATH, MOUNT)],
    ),
    "push_manifest": Case(
        "push_manifest",
        lambda client: client.push_manifest(NAME, MANIFEST, OCI_MANIFEST),
        [Response(201)],
        [("PUT", f"{MANIFESTS}/{MANIFEST_DIGEST}", PUSH)],
    ),
    "push_manifest, one tag": Case(
        "push_manifest",
        lambda client: client.push_manifest(NAME, MANIFEST, OCI_MANIFEST, tags=["a"]),
        [Response(201)],
        [("PUT", f"{MANIFESTS}/a", PUSH)],
    ),
    "push_manifest, several tags": Case(
        "push_manifest",
        lambda client: client.push_manifest(NAME, MANIFEST, OCI_MANIFEST, tags=["a", "b"]),
        [Response(201, {"OCI-Tag": "a"}), Response(201)],
        [("PUT", f"{MANIFESTS}/{MANIFEST_DIGEST}?tag=a&tag=b", PUSH), ("PUT", f"{MANIFESTS}/b", PUSH)],
    ),
    "push_manifest, with a subject": Case(
        "push_manifest",
        lambda client: client.push_manifest(NAME, REFERRER, OCI_MANIFEST),
        [Response(201), error_response(404), Response(201)],
        [
            ("PUT", f"{MANIFESTS}/{REFERRER_DIGEST}", PUSH),
            ("GET", REFERRERS_TAG, PUSH),
            ("PUT", REFERRERS_TAG, PUSH),
        ],
    ),
    "delete_blob": Case(
        "delete_blob",
        lambda client: client.delete_blob(NAME, BLOB.digest),
        [Response(202)],
        [("DELETE", BLOB_PATH, DELETE)],
    ),
    # The manifest is read first, with the pull scope, because the referrers tag must be updated if it has a subject.
    "delete_manifest": Case(
        "delete_manifest",
        lambda client: client.delete_manifest(NAME, MANIFEST_DIGEST),
        [manifest_response(), Response(202)],
        [("GET", f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL), ("DELETE", f"{MANIFESTS}/{MANIFEST_DIGEST}", DELETE)],
    ),
    "delete_manifest, with a subject": Case(
        "delete_manifest",
        lambda client: client.delete_manifest(NAME, REFERRER_DIGEST),
        [
            manifest_response(REFERRER),
            error_response(404),
            manifest_response(INDEX_WITH_ENTRY),
            Response(201),
            Response(202),
        ],
        [
            ("GET", f"{MANIFESTS}/{REFERRER_DIGEST}", PULL),
            ("GET", REFERRERS_PATH, PULL),
            ("GET", REFERRERS_TAG, PUSH),
            ("PUT", REFERRERS_TAG, PUSH),
            ("DELETE", f"{MANIFESTS}/{REFERRER_DIGEST}", DELETE),
        ],
    ),
    "delete_tag": Case(
        "delete_tag",
        lambda client: client.delete_tag(NAME, "latest"),
        [Response(202)],
        [("DELETE", f"{MANIFESTS}/latest", DELETE)],
    ),
    "tags": Case(
        "tags",
        lambda client: list(client.tags(NAME)),
        [
            Response(200, {"Link": f"</v2/{NAME}/tags/list?last=a>; rel=next"}, b'{"tags": ["a"]}'),
            Response(200, (), b'{"tags": ["b"]}'),
        ],
        [("GET", f"/v2/{NAME}/tags/list", PULL), ("GET", f"/v2/{NAME}/tags/list?last=a", PULL)],
    ),
    "repositories": Case(
        "repositories",
        lambda client: list(client.repositories(limit=2)),
        [Response(200, (), b'{"repositories": ["a"]}')],
        [("GET", "/v2/_catalog?n=2", CATALOG)],
    ),
    "referrers": Case(
        "referrers",
        lambda client: list(client.referrers(NAME, BLOB.digest)),
        [manifest_response(INDEX)],
        [("GET", REFERRERS_PATH, PULL)],
    ),
    "referrers, by tag": Case(
        "referrers",
        lambda client: list(client.referrers(NAME, BLOB.digest)),
        [error_response(404), manifest_response(INDEX)],
        [("GET", REFERRERS_PATH, PULL), ("GET", REFERRERS_TAG, PULL)],
    ),
    "do": Case("do", lambda client: client.do(Request("GET", "/v2/")).close(), [Response(200)], [("GET", "/v2/", "")]),
    "do, scope argument": Case(
        "do",
        lambda client: client.do(Request("GET", "/v2/"), scope=Scope.CATALOG).close(),
        [Response(200)],
        [("GET", "/v2/", CATALOG)],
    ),
    "do, scope of the request": Case(
        "do",
        lambda client: client.do(Request("GET", "/v2/", info=RequestInfo(required_scope=Scope.parse(PULL)))).close(),
        [Response(200)],
        [("GET", "/v2/", PULL)],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_client_methods_send_documented_scope_and_operation(case: Case) -> None:
    registry = ScriptedRegistry(*case.answers)
    case.call(registry.client)
    assert [
        ExpectedRequest(request.method, request.url, str(request.info.required_scope), request.info.operation)
        for request in registry.requests
    ] == [ExpectedRequest(method, BASE + path, scope, case.method) for method, path, scope in case.requests]
    assert len({request.info.debug_id for request in registry.requests} - {""}) == 1
    registry.assert_done()


def test_push_blob_chunked_resume_writes_with_push_scope() -> None:
    registry = ScriptedRegistry(Response(204, {"Range": "0-4"}), BLOB_CREATED)
    resume_upload(registry.client)
    assert [str(request.info.required_scope) for request in registry.requests] == [PUSH, PUSH]
    registry.assert_done()


def test_mount_blob_cancelled_upload_keeps_scope_and_operation() -> None:
    registry = ScriptedRegistry(upload_response(), Response(204))
    with pytest.raises(Exception, match="did not mount"):
        registry.client.mount_blob(SOURCE, NAME, BLOB.digest)
    post, delete = registry.requests
    assert (delete.method, delete.url) == ("DELETE", f"{BASE}{UPLOADS_PATH}1")
    assert str(post.info.required_scope) == MOUNT
    assert Scope.parse(PUSH) <= delete.info.required_scope
    assert delete.info.operation == "mount_blob"
    registry.assert_done()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_client_methods_closed_client_sends_nothing(case: Case) -> None:
    registry = ScriptedRegistry()
    registry.client.close()
    with pytest.raises(errors.UsageError, match="closed"):
        case.call(registry.client)
    assert registry.requests == []


def test_client_methods_all_have_a_case() -> None:
    without_requests = {"with_options", "close"}
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert {case.method for case in CASES.values()} == public - without_requests
