"""The result of a HEAD is confirmed by a GET before it becomes an error or a size of 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from ociwire import Client, Descriptor, FunctionTransport, Request, Response, default_transport
from ociwire.auth import Anonymous
from ociwire.errors import BlobUnknown, Denied, TooManyRequests
from ociwire.media_types import OCI_MANIFEST
from ociwire.testing import MemoryRegistry
from ociwire.transfer import copy, upload
from tests.field.rows import Row

TITLE = "HEAD results that are confirmed by GET"

HOST, NAME = "registry.example", "team/app"
CONTENT = b"the content of a blob"
BLOB, EMPTY, OTHER = Descriptor.of(CONTENT), Descriptor.of(b""), Descriptor.of(b"another")
IMAGE = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": BLOB.to_dict(), "layers": []}).encode()
MANIFEST = Descriptor.of(IMAGE, OCI_MANIFEST)
SIGNED = "https://s3.example/data?X-Amz-Signature=0123456789"


@dataclass(frozen=True, kw_only=True)
class HeadRow(Row):
    """Response to a HEAD request.

    Attributes:
        answer: Returns the response to a request. Called with the request and the response of a correct registry.
        call: Function that calls the client.
        expected: The result of the call, or the type and the message of the exception that it raises.
        requests: The methods of the requests for blobs and manifests that the call sends, in order.
    """

    answer: Callable[[Request, Response], Response]
    call: Callable[[Client], Any]
    expected: Any
    requests: str


def answer_head(status: int, **headers: str | None) -> Callable[[Request, Response], Response]:
    """Return a function that answers HEAD with this status and these headers, and other requests correctly."""
    changes = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(request: Request, correct: Response) -> Response:
        if request.method != "HEAD":
            return correct
        return Response(status, correct.headers.updated(changes) if status == 200 else {"Content-Length": "9"})

    return answer


def redirect_signed_for_get(request: Request, correct: Response) -> Response:
    """Redirect blobs to a bucket, with a URL whose signature covers the method GET."""
    if urlsplit(request.url).hostname == HOST and "/blobs/" in request.url:
        return Response(307, {"Location": SIGNED})
    if request.url != SIGNED:
        return correct
    if request.method == "HEAD":
        return Response(403, {"Content-Type": "application/xml"})
    return Response(206, {"Content-Range": f"bytes 0-0/{BLOB.size}"}, CONTENT[:1])


def redirect_to_bucket_without_head(request: Request, correct: Response) -> Response:
    """Redirect blobs to a bucket that answers HEAD with 404. The registry itself answers HEAD correctly."""
    if request.url == SIGNED:
        return redirect_signed_for_get(request, correct) if request.method == "GET" else Response(404)
    return redirect_signed_for_get(request, correct)


def deny(request: Request, correct: Response) -> Response:
    body = b'{"errors": [{"code": "DENIED", "message": "your plan has ended"}]}'
    return Response(403, {"Content-Type": "application/json"}, b"" if request.method == "HEAD" else body)


def refuse_head_and_range(request: Request, correct: Response) -> Response:
    return Response(403 if request.method == "HEAD" else 416)


def show_login_page(request: Request, correct: Response) -> Response:
    if request.method == "HEAD":
        return Response(200, {"Content-Type": "text/html", "Content-Length": "1843"})
    return correct


def omit_size(request: Request, correct: Response) -> Response:
    """Send chunked bodies without a size, and ignore ranges."""
    if request.method not in ("GET", "HEAD"):
        return correct
    return Response(200, {}, (CONTENT[i : i + 1] for i in range(len(CONTENT))) if request.method == "GET" else b"")


def resolve_blob(client: Client) -> Descriptor:
    return client.resolve_blob(NAME, BLOB.digest)


def resolve_tag(client: Client) -> Descriptor:
    return client.resolve_tag(NAME, "v1")


def resolve_missing_blob_after_tag(client: Client) -> Descriptor:
    assert resolve_tag(client) == MANIFEST
    return client.resolve_blob(NAME, OTHER.digest)


def upload_new(client: Client) -> bytes:
    upload(client, NAME, b"another", digest=OTHER.digest)
    return client.get_blob(NAME, OTHER.digest).read()


def upload_existing(client: Client) -> Descriptor:
    return upload(client, NAME, CONTENT, digest=BLOB.digest)


def mount(client: Client) -> Descriptor:
    return client.mount_blob(NAME, "team/other", BLOB.digest)


def copy_to(client: Client) -> bytes:
    source = MemoryRegistry()
    Client("source.example", source).push_blob("app", BLOB, CONTENT)
    Client("source.example", source).push_manifest("app", IMAGE, OCI_MANIFEST, tags=["v1"])
    copy(Client("source.example", source), "app:v1", client, f"{NAME}:copied", workers=1)
    return client.get_tag(NAME, "copied").read()


ROWS = (
    HeadRow(
        name="head_of_a_manifest_is_404",
        registry="Nexus 3",
        behaviour="HEAD of a manifest is answered with 404; GET returns it.",
        result="Sends a GET before it reports that a manifest is missing.",
        source="[docker-registry-util#3](https://github.com/merll/docker-registry-util/issues/3),"
        " [registry-cli#14](https://github.com/andrey-pohilko/registry-cli/issues/14)",
        answer=answer_head(404),
        call=resolve_tag,
        expected=MANIFEST,
        requests="HEAD GET",
    ),
    HeadRow(
        name="head_of_a_manifest_is_403",
        registry="registry.centos.org",
        behaviour="HEAD of a manifest is answered with 403; GET returns it.",
        result="Sends a GET, reads the manifest and hashes it.",
        source="[containerd#6684](https://github.com/containerd/containerd/pull/6684)",
        answer=answer_head(403),
        call=lambda client: client.resolve_manifest(NAME, MANIFEST.digest),
        expected=MANIFEST,
        requests="HEAD GET",
    ),
    HeadRow(
        name="head_of_a_manifest_is_405",
        registry="docker/distribution 2.2.1 with token authentication",
        behaviour="HEAD of a manifest is answered with 405.",
        result="Sends a GET.",
        source="[distribution#1485](https://github.com/distribution/distribution/issues/1485)",
        answer=answer_head(405),
        call=resolve_tag,
        expected=MANIFEST,
        requests="HEAD GET",
    ),
    HeadRow(
        name="head_is_400_in_front_of_get_only_routes",
        registry="Gateways that only route GET",
        behaviour="HEAD of a blob is answered with 400.",
        result="Requests the first byte with GET, and reads the size from Content-Range.",
        source="[RFC 9110, section 14.4](https://www.rfc-editor.org/rfc/rfc9110#section-14.4)",
        answer=answer_head(400),
        call=resolve_blob,
        expected=BLOB,
        requests="HEAD GET",
    ),
    *(
        HeadRow(
            name=f"head_is_{status}",
            registry="Servers without a handler for HEAD",
            behaviour=f"HEAD of a blob is answered with {status}.",
            result="Requests the first byte with GET immediately, without retrying the HEAD.",
            source="[kbld#457](https://github.com/carvel-dev/kbld/pull/457)",
            answer=answer_head(status),
            call=resolve_blob,
            expected=BLOB,
            requests="HEAD GET",
        )
        for status in (406, 500, 501)
    ),
    HeadRow(
        name="head_says_content_length_0",
        registry="Registries behind GoDoxy",
        behaviour="HEAD of a blob is answered with 200 and Content-Length: 0.",
        result="Requests the first byte with GET before it treats the blob as empty.",
        source="[godoxy#169](https://github.com/yusing/godoxy/issues/169)",
        answer=answer_head(200, Content_Length="0"),
        call=resolve_blob,
        expected=BLOB,
        requests="HEAD GET",
    ),
    HeadRow(
        name="head_says_content_length_0_before_an_upload",
        registry="Registries behind GoDoxy",
        behaviour="HEAD of a blob that exists is answered with 200 and Content-Length: 0.",
        result="`upload` returns the size that a GET confirms, and sends nothing.",
        source="[godoxy#169](https://github.com/yusing/godoxy/issues/169)",
        answer=answer_head(200, Content_Length="0"),
        call=upload_existing,
        expected=BLOB,
        requests="HEAD GET",
    ),
    HeadRow(
        name="head_of_a_manifest_has_no_content_length",
        registry="registry.ollama.ai",
        behaviour="HEAD of a manifest has no Content-Length.",
        result="Reads the manifest with GET.",
        source="[oras-go#882](https://github.com/oras-project/oras-go/issues/882)",
        answer=answer_head(200, Content_Length=None),
        call=resolve_tag,
        expected=MANIFEST,
        requests="HEAD GET",
    ),
    HeadRow(
        name="head_of_a_manifest_says_content_length_0",
        registry="Registries behind GoDoxy",
        behaviour="HEAD of a manifest is answered with 200 and Content-Length: 0.",
        result="Reads the manifest with GET.",
        source="[godoxy#169](https://github.com/yusing/godoxy/issues/169)",
        answer=answer_head(200, Content_Length="0"),
        call=resolve_tag,
        expected=MANIFEST,
        requests="HEAD GET",
    ),
    HeadRow(
        name="empty_content_needs_no_confirmation",
        registry="Any registry",
        behaviour="HEAD of the digest of empty content is answered with 200 and Content-Length: 0.",
        result="Sends no GET: the digest proves the size.",
        source="[Distribution specification]"
        "(https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#checking-if-content-exists-in-the-registry)",
        answer=answer_head(200),
        call=lambda client: client.resolve_blob(NAME, EMPTY.digest),
        expected=EMPTY,
        requests="HEAD",
    ),
    HeadRow(
        name="first_byte_of_empty_content_is_416",
        registry="Any registry that refuses HEAD",
        behaviour="HEAD is answered with 403, and GET of a part of an empty blob with 416, without Content-Range.",
        result="Reports a size of 0.",
        source="[RFC 9110, section 15.5.17](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.17)",
        answer=refuse_head_and_range,
        call=lambda client: client.resolve_blob(NAME, EMPTY.digest),
        expected=EMPTY,
        requests="HEAD GET",
    ),
    HeadRow(
        name="redirects_head_to_a_url_signed_for_get",
        registry="Registries with blobs in S3 or MinIO",
        behaviour="HEAD of a blob is redirected to a URL signed for GET; the bucket answers the HEAD with 403.",
        result="Sends a GET to the registry, which is redirected to a URL that is signed for GET.",
        source="[minio#6146](https://github.com/minio/minio/issues/6146)",
        answer=redirect_signed_for_get,
        call=resolve_blob,
        expected=BLOB,
        requests="HEAD HEAD GET GET",
    ),
    HeadRow(
        name="bucket_answers_head_with_404",
        registry="Registries with blobs in a bucket",
        behaviour="The registry supports HEAD, but redirects HEAD of a blob to a bucket that answers with 404.",
        result="Confirms the 404, because that host has never answered a HEAD with 200.",
        source="[artifact-keeper#3209](https://github.com/artifact-keeper/artifact-keeper/issues/3209)",
        answer=redirect_to_bucket_without_head,
        call=lambda client: (resolve_tag(client), resolve_blob(client))[1],
        expected=BLOB,
        requests="HEAD HEAD HEAD GET GET",
    ),
    HeadRow(
        name="head_and_get_are_403",
        registry="Any registry",
        behaviour="HEAD and GET are both answered with 403.",
        result="Raises `Denied` with the message of the GET, which has a body.",
        source="[distribution#1217](https://github.com/distribution/distribution/issues/1217)",
        answer=deny,
        call=resolve_blob,
        expected=(Denied, "your plan has ended"),
        requests="HEAD GET",
    ),
    HeadRow(
        name="head_is_404_after_a_head_that_was_200",
        registry="Any registry that supports HEAD",
        behaviour="A HEAD has been answered with 200, and the next one is answered with 404.",
        result="Accepts the 404 without a GET.",
        source="[Distribution specification]"
        "(https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#checking-if-content-exists-in-the-registry)",
        answer=lambda request, correct: correct,
        call=resolve_missing_blob_after_tag,
        expected=(BlobUnknown, "404 Not Found"),
        requests="HEAD HEAD",
    ),
    HeadRow(
        name="head_is_401_before_an_upload",
        registry="Amazon ECR Public",
        behaviour="HEAD of a blob is answered with 401, although the token is valid.",
        result="`upload` treats the blob as missing and uploads it, without a GET.",
        source="[containers-roadmap#2671](https://github.com/aws/containers-roadmap/issues/2671)",
        answer=answer_head(401),
        call=upload_new,
        expected=b"another",
        requests="HEAD PUT GET",
    ),
    HeadRow(
        name="size_is_never_stated_before_an_upload",
        registry="Registries behind a proxy that re-encodes bodies in chunks",
        behaviour="Neither HEAD nor GET of a blob states its size.",
        result="`upload` treats the blob as missing and uploads it.",
        source="[RFC 9112, section 6.3](https://www.rfc-editor.org/rfc/rfc9112#section-6.3)",
        answer=omit_size,
        call=lambda client: upload_existing(client).digest,
        expected=BLOB.digest,
        requests="HEAD GET PUT",
    ),
    HeadRow(
        name="head_is_a_login_page_before_an_upload",
        registry="Registries behind single sign-on",
        behaviour="HEAD of a missing blob is answered with 200 and the headers of a login page.",
        result="`upload` does not accept the page as the blob, and uploads the blob.",
        source="[Cloudflare-Accel#13](https://github.com/fscarmen2/Cloudflare-Accel/issues/13)",
        answer=show_login_page,
        call=upload_new,
        expected=b"another",
        requests="HEAD GET PUT GET",
    ),
    HeadRow(
        name="mount_whose_head_is_403",
        registry="registry.centos.org",
        behaviour="A mount is answered with 201, and HEAD of the mounted blob with 403.",
        result="`mount_blob` requests the first byte with GET to get the size.",
        source="[containerd#6684](https://github.com/containerd/containerd/pull/6684)",
        answer=answer_head(403),
        call=mount,
        expected=BLOB,
        requests="POST HEAD GET",
    ),
    HeadRow(
        name="copy_to_a_registry_that_refuses_head",
        registry="registry.centos.org",
        behaviour="HEAD of blobs and manifests is answered with 403.",
        result="`copy` treats all content as missing, without a GET; existing blobs are mounted.",
        source="[containerd#6684](https://github.com/containerd/containerd/pull/6684)",
        answer=answer_head(403),
        call=copy_to,
        expected=IMAGE,
        requests="HEAD POST PUT GET",
    ),
    HeadRow(
        name="head_is_429",
        registry="Docker Hub",
        behaviour="HEAD of a blob is answered with 429.",
        result="Raises `TooManyRequests`: a GET would also be refused.",
        source="[Docker Hub usage limits](https://docs.docker.com/docker-hub/usage/)",
        answer=answer_head(429),
        call=resolve_blob,
        expected=(TooManyRequests, "429 Too Many Requests"),
        requests="HEAD",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_client_head_of_deployed_registry_is_confirmed_or_accepted(row: HeadRow) -> None:
    registry = MemoryRegistry()
    direct = Client(HOST, registry)
    for descriptor, content in ((BLOB, CONTENT), (EMPTY, b"")):
        direct.push_blob(NAME, descriptor, content)
    direct.push_manifest(NAME, IMAGE, OCI_MANIFEST, tags=["v1"])
    methods: list[str] = []

    def answer(request: Request) -> Response:
        if "/uploads/" not in request.url or "mount=" in request.url or request.method == "PUT":
            methods.append(request.method)
        correct = registry.round_trip(request) if urlsplit(request.url).hostname == HOST else Response(404)
        return row.answer(request, correct)

    is_429 = row.name == "head_is_429"  # the retry layer would wait and repeat the request
    transport = default_transport(
        base=FunctionTransport(answer), credentials=Anonymous(), retry=False if is_429 else None
    )
    with Client(HOST, transport) as client:
        if isinstance(row.expected, tuple):
            kind, message = row.expected
            with pytest.raises(kind, match=message):
                row.call(client)
        else:
            assert row.call(client) == row.expected
    assert " ".join(methods) == row.requests
