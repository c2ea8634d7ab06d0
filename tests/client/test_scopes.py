"""Every method of the client: what it asks, under which scope, by which name; exactly as the design's table has it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from ociwire import Client, Descriptor, Request, RequestInfo, Response, Scope
from ociwire.media_types import OCI_INDEX, OCI_MANIFEST
from tests.client.test_client import BASE, BLOB, CONTENT, CREATED, Registry, accepted, found, refused

NAME = "library/alpine"
SOURCE = "other/source"
PULL = f"repository:{NAME}:pull"
PUSH = f"repository:{NAME}:pull,push"
DELETE = f"repository:{NAME}:delete"
MOUNT = f"{PUSH} repository:{SOURCE}:pull"
CATALOG = "registry:catalog:*"

BLOBS = f"/v2/{NAME}/blobs/{BLOB.digest}"
UPLOADS = f"/v2/{NAME}/blobs/uploads/"
MANIFESTS = f"/v2/{NAME}/manifests"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST}).encode()
MANIFEST_DIGEST = Descriptor.of(MANIFEST).digest
ATTACHED = json.dumps(
    {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "subject": BLOB.replace(media_type=OCI_MANIFEST).to_dict()}
).encode()
ATTACHED_DIGEST = Descriptor.of(ATTACHED).digest
REFERRERS = f"/v2/{NAME}/referrers/{BLOB.digest}"
FALLBACK = f"{MANIFESTS}/sha256-{BLOB.digest.encoded}"
INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
ENTERED = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [Descriptor.of(ATTACHED, OCI_MANIFEST).to_dict()],
    }
).encode()


class Asked(NamedTuple):
    """A request as the table has it."""

    method: str
    target: str
    scope: str
    operation: str


class Case(NamedTuple):
    """A call, what it is answered, and what it should have asked."""

    method: str
    call: Callable[[Client], Any]
    answers: list[Response]
    asked: list[tuple[str, str, str]]


def manifest(content: bytes = MANIFEST) -> Response:
    return Response(200, {"Content-Type": json.loads(content)["mediaType"]}, content)


def chunked(client: Client) -> None:
    with client.push_blob_chunked(NAME) as writer:
        writer.write(CONTENT)
        writer.commit()


def chunked_in_chunks(client: Client) -> None:
    with client.push_blob_chunked(NAME, len(CONTENT) - 1) as writer:
        writer.write(CONTENT)
        writer.commit()


def cancelled(client: Client) -> None:
    client.push_blob_chunked(NAME).cancel()


def resumed(client: Client) -> None:
    with client.push_blob_chunked_resume(NAME, f"{UPLOADS}1") as writer:
        writer.write(CONTENT)
        writer.commit(BLOB.digest)


CASES = {
    "get_blob": Case(
        "get_blob", lambda client: client.get_blob(NAME, BLOB.digest).read(), [found()], [("GET", BLOBS, PULL)]
    ),
    "get_blob, of unknown length": Case(
        "get_blob",
        lambda client: client.get_blob(NAME, BLOB.digest).read(),
        [Response(200, (), CONTENT), found()],
        [("GET", BLOBS, PULL), ("HEAD", BLOBS, PULL)],
    ),
    "get_blob, cut off": Case(
        "get_blob",
        lambda client: client.get_blob(NAME, BLOB.digest).read(),
        [
            Response(200, {"Content-Length": str(BLOB.size)}, CONTENT[:4]),
            Response(206, {"Content-Range": f"bytes 4-{BLOB.size - 1}/{BLOB.size}"}, CONTENT[4:]),
        ],
        [("GET", BLOBS, PULL), ("GET", BLOBS, PULL)],
    ),
    "get_blob_range": Case(
        "get_blob_range",
        lambda client: client.get_blob_range(NAME, BLOB.digest, 4, 6).read(),
        [Response(206, {"Content-Range": f"bytes 4-5/{BLOB.size}"}, CONTENT[4:6])],
        [("GET", BLOBS, PULL)],
    ),
    "get_manifest": Case(
        "get_manifest",
        lambda client: client.get_manifest(NAME, MANIFEST_DIGEST).read(),
        [manifest()],
        [("GET", f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL)],
    ),
    "get_tag": Case(
        "get_tag",
        lambda client: client.get_tag(NAME, "latest").read(),
        [manifest()],
        [("GET", f"{MANIFESTS}/latest", PULL)],
    ),
    "resolve_blob": Case(
        "resolve_blob", lambda client: client.resolve_blob(NAME, BLOB.digest), [found()], [("HEAD", BLOBS, PULL)]
    ),
    "resolve_blob, of unknown length": Case(
        "resolve_blob",
        lambda client: client.resolve_blob(NAME, BLOB.digest),
        [Response(200), Response(206, {"Content-Range": "bytes 0-0/9"}, b"x")],
        [("HEAD", BLOBS, PULL), ("GET", BLOBS, PULL)],
    ),
    "resolve_manifest": Case(
        "resolve_manifest",
        lambda client: client.resolve_manifest(NAME, MANIFEST_DIGEST),
        [found(MANIFEST)],
        [("HEAD", f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL)],
    ),
    "resolve_manifest, by GET": Case(
        "resolve_manifest",
        lambda client: client.resolve_manifest(NAME, MANIFEST_DIGEST),
        [refused(405), manifest()],
        [(method, f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL) for method in ("HEAD", "GET")],
    ),
    "resolve_tag": Case(
        "resolve_tag",
        lambda client: client.resolve_tag(NAME, "latest"),
        [found(MANIFEST, **{"Docker-Content-Digest": MANIFEST_DIGEST})],
        [("HEAD", f"{MANIFESTS}/latest", PULL)],
    ),
    "resolve_tag, by GET": Case(
        "resolve_tag",
        lambda client: client.resolve_tag(NAME, "latest"),
        [found(MANIFEST), manifest()],
        [(method, f"{MANIFESTS}/latest", PULL) for method in ("HEAD", "GET")],
    ),
    "push_blob": Case(
        "push_blob",
        lambda client: client.push_blob(NAME, BLOB, CONTENT),
        [accepted(), CREATED],
        [("POST", UPLOADS, PUSH), ("PUT", f"{UPLOADS}1?digest={BLOB.digest}", PUSH)],
    ),
    "push_blob, settled": Case(
        "push_blob",
        lambda client: client.push_blob(NAME, BLOB, CONTENT),
        [accepted(), refused(404, "BLOB_UPLOAD_UNKNOWN"), Response(200)],
        [("POST", UPLOADS, PUSH), ("PUT", f"{UPLOADS}1?digest={BLOB.digest}", PUSH), ("HEAD", BLOBS, PUSH)],
    ),
    "push_blob_chunked": Case(
        "push_blob_chunked",
        chunked,
        [accepted(), CREATED],
        [("POST", UPLOADS, PUSH), ("PUT", f"{UPLOADS}1?digest={BLOB.digest}", PUSH)],
    ),
    "push_blob_chunked, in chunks": Case(
        "push_blob_chunked",
        chunked_in_chunks,
        [accepted(), accepted(f"{UPLOADS}2"), CREATED],
        [
            ("POST", UPLOADS, PUSH),
            ("PATCH", f"{UPLOADS}1", PUSH),
            ("PUT", f"{UPLOADS}2?digest={BLOB.digest}", PUSH),
        ],
    ),
    "push_blob_chunked, cancelled": Case(
        "push_blob_chunked",
        cancelled,
        [accepted(), Response(204)],
        [("POST", UPLOADS, PUSH), ("DELETE", f"{UPLOADS}1", PUSH)],
    ),
    "push_blob_chunked_resume": Case(
        "push_blob_chunked_resume",
        lambda client: client.push_blob_chunked_resume(NAME, f"{UPLOADS}1"),
        [Response(204, {"Range": "0-4"})],
        [("GET", f"{UPLOADS}1", PUSH)],
    ),
    "mount_blob": Case(
        "mount_blob",
        lambda client: client.mount_blob(SOURCE, NAME, BLOB.digest),
        [CREATED, found()],
        [("POST", f"{UPLOADS}?mount={BLOB.digest}&from={SOURCE}", MOUNT), ("HEAD", BLOBS, MOUNT)],
    ),
    "push_manifest": Case(
        "push_manifest",
        lambda client: client.push_manifest(NAME, MANIFEST, OCI_MANIFEST),
        [Response(201)],
        [("PUT", f"{MANIFESTS}/{MANIFEST_DIGEST}", PUSH)],
    ),
    "push_manifest, by one tag": Case(
        "push_manifest",
        lambda client: client.push_manifest(NAME, MANIFEST, OCI_MANIFEST, tags=["a"]),
        [Response(201)],
        [("PUT", f"{MANIFESTS}/a", PUSH)],
    ),
    "push_manifest, by several tags": Case(
        "push_manifest",
        lambda client: client.push_manifest(NAME, MANIFEST, OCI_MANIFEST, tags=["a", "b"]),
        [Response(201, {"OCI-Tag": "a"}), Response(201)],
        [("PUT", f"{MANIFESTS}/{MANIFEST_DIGEST}?tag=a&tag=b", PUSH), ("PUT", f"{MANIFESTS}/b", PUSH)],
    ),
    "push_manifest, with a subject": Case(
        "push_manifest",
        lambda client: client.push_manifest(NAME, ATTACHED, OCI_MANIFEST),
        [Response(201), refused(404), Response(201)],
        [
            ("PUT", f"{MANIFESTS}/{ATTACHED_DIGEST}", PUSH),
            ("GET", FALLBACK, PUSH),
            ("PUT", FALLBACK, PUSH),
        ],
    ),
    "delete_blob": Case(
        "delete_blob",
        lambda client: client.delete_blob(NAME, BLOB.digest),
        [Response(202)],
        [("DELETE", BLOBS, DELETE)],
    ),
    # The manifest is read first, under the scope of reading: whether it has a subject, whose list of referrers may be a
    # tag. The deletion itself has the scope of the table.
    "delete_manifest": Case(
        "delete_manifest",
        lambda client: client.delete_manifest(NAME, MANIFEST_DIGEST),
        [manifest(), Response(202)],
        [("GET", f"{MANIFESTS}/{MANIFEST_DIGEST}", PULL), ("DELETE", f"{MANIFESTS}/{MANIFEST_DIGEST}", DELETE)],
    ),
    "delete_manifest, with a subject": Case(
        "delete_manifest",
        lambda client: client.delete_manifest(NAME, ATTACHED_DIGEST),
        [manifest(ATTACHED), refused(404), manifest(ENTERED), Response(201), Response(202)],
        [
            ("GET", f"{MANIFESTS}/{ATTACHED_DIGEST}", PULL),
            ("GET", REFERRERS, PULL),
            ("GET", FALLBACK, PUSH),
            ("PUT", FALLBACK, PUSH),
            ("DELETE", f"{MANIFESTS}/{ATTACHED_DIGEST}", DELETE),
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
        [manifest(INDEX)],
        [("GET", REFERRERS, PULL)],
    ),
    "referrers, by tag": Case(
        "referrers",
        lambda client: list(client.referrers(NAME, BLOB.digest)),
        [refused(404), manifest(INDEX)],
        [("GET", REFERRERS, PULL), ("GET", FALLBACK, PULL)],
    ),
    "do": Case("do", lambda client: client.do(Request("GET", "/v2/")).close(), [Response(200)], [("GET", "/v2/", "")]),
    "do, with a scope": Case(
        "do",
        lambda client: client.do(Request("GET", "/v2/"), scope=Scope.CATALOG).close(),
        [Response(200)],
        [("GET", "/v2/", CATALOG)],
    ),
    "do, with the request's own": Case(
        "do",
        lambda client: client.do(Request("GET", "/v2/", info=RequestInfo(required_scope=Scope.parse(PULL)))).close(),
        [Response(200)],
        [("GET", "/v2/", PULL)],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_client_methods_send_documented_scope_and_operation(case: Case) -> None:
    registry = Registry(*case.answers)
    case.call(registry.client)
    assert [
        Asked(request.method, request.url, str(request.info.required_scope), request.info.operation)
        for request in registry.requests
    ] == [Asked(method, BASE + target, scope, case.method) for method, target, scope in case.asked]
    assert len({request.info.debug_id for request in registry.requests} - {""}) == 1
    registry.check_done()


def test_push_blob_chunked_resume_writes_with_push_scope() -> None:
    registry = Registry(Response(204, {"Range": "0-4"}), CREATED)
    resumed(registry.client)
    assert [str(request.info.required_scope) for request in registry.requests] == [PUSH, PUSH]
    registry.check_done()


def test_mount_blob_cancelled_upload_keeps_scope_and_operation() -> None:
    registry = Registry(accepted(), Response(204))
    with pytest.raises(Exception, match="did not mount"):
        registry.client.mount_blob(SOURCE, NAME, BLOB.digest)
    post, delete = registry.requests
    assert (delete.method, delete.url) == ("DELETE", f"{BASE}{UPLOADS}1")
    assert str(post.info.required_scope) == MOUNT
    assert Scope.parse(PUSH) <= delete.info.required_scope
    assert delete.info.operation == "mount_blob"
    registry.check_done()


def test_client_methods_all_have_a_case() -> None:
    own = {"with_options", "close"}  # these ask nothing
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert {case.method for case in CASES.values()} == public - own
