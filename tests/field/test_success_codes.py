"""Success codes that deviate from the specification, and failures with success codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, FunctionTransport, Request, Response, default_transport
from ociwire.auth import Anonymous
from ociwire.errors import (
    ContentError,
    OciwireError,
    RangeInvalid,
    ReferrersUpdateError,
    RegistryError,
    TooManyRequests,
    Unsupported,
)
from ociwire.testing import MemoryRegistry
from ociwire.transfer import upload
from tests.field.rows import Row

TITLE = "Success codes"

HOST = "registry.example"
NAME = "team/app"
CONTENT = bytes(range(250)) * 12
BLOB = Descriptor.of(CONTENT)
STREAMED = bytes(5 * 1024 * 1024)
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
HTML = {"Content-Type": "text/html; charset=utf-8"}

Answer = Callable[[Request, Callable[[Request], Response]], Response]


@dataclass(frozen=True, kw_only=True)
class SuccessRow(Row):
    """Deviation in status codes.

    Attributes:
        answer: Returns the response to a request. Called with the request and a function that sends it to a
            registry that follows the specification.
        call: Function that calls the client.
        expected: The result of the call, or the type of the exception that it raises.
    """

    answer: Answer
    call: Callable[[Client], Any]
    expected: Any


def replace_status(method: str, part: str, status: int, headers: dict[str, str | None] | None = None) -> Answer:
    """Return a function that replaces the status and headers of successful responses to matching requests."""

    def answer(request: Request, registry: Callable[[Request], Response]) -> Response:
        response = registry(request)
        if request.method != method or part not in request.url or response.status >= 300:
            return response
        return Response(status, response.headers.updated(headers or {}))

    return answer


def refuse(method: str, part: str, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """Return a function that answers all requests of a method to URLs that contain `part` with the same response."""

    def answer(request: Request, registry: Callable[[Request], Response]) -> Response:
        if request.method != method or part not in request.url:
            return registry(request)
        return Response(status, headers or {}, body)

    return answer


def error_body(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "text"}]}).encode()


def push(client: Client) -> Digest:
    client.push_blob(NAME, BLOB, CONTENT)
    assert client.get_blob(NAME, BLOB.digest).read() == CONTENT
    return BLOB.digest


def push_chunked(client: Client) -> Digest:
    with client.push_blob_chunked(NAME, 1000) as writer:
        writer.write(CONTENT)
        return writer.commit().digest


def image(**members: Any) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": BLOB.to_dict(), "layers": [], **members}
    ).encode()


MANIFEST = Descriptor.of(image(), MEDIA_TYPE)
REFERRER = image(subject=MANIFEST.to_dict())


def push_manifest(client: Client) -> Digest:
    client.push_blob(NAME, BLOB, CONTENT)
    pushed = client.push_manifest(NAME, image(), MEDIA_TYPE, tags=["v1"])
    assert client.get_tag(NAME, "v1").read() == image()
    return pushed.digest


def push_referrer(client: Client) -> list[Digest]:
    push_manifest(client)
    client.push_manifest(NAME, REFERRER, MEDIA_TYPE)
    return [entry.digest for entry in client.referrers(NAME, MANIFEST.digest)]


def delete_tag(client: Client) -> list[str]:
    push_manifest(client)
    client.delete_tag(NAME, "v1")
    return list(client.tags(NAME))


def read_part(client: Client) -> bytes:
    push(client)
    return client.get_blob_range(NAME, BLOB.digest, 2990).read()


def catalog_error(client: Client) -> str:
    with pytest.raises(Unsupported) as caught:
        list(client.repositories())
    return str(caught.value).rpartition(": ")[2]


def refuse_open_ranges(request: Request, registry: Callable[[Request], Response]) -> Response:
    is_open = request.headers.get("range", "").endswith("-")
    return Response(416, {}, error_body("BLOB_UNKNOWN")) if is_open else registry(request)


def without_referrers_api(inner: Answer) -> Answer:
    def answer(request: Request, registry: Callable[[Request], Response]) -> Response:
        if "/referrers/" in request.url:
            return Response(404)
        response = inner(request, registry)
        return response.replace(headers=response.headers.updated({"OCI-Subject": None}))

    return answer


def once(method: str, response: Response) -> Answer:
    """Return a function that answers the first request of a method with this response."""
    responses = [response]

    def answer(request: Request, registry: Callable[[Request], Response]) -> Response:
        return responses.pop().replace() if responses and request.method == method else registry(request)

    return answer


def label_empty_bodies(request: Request, registry: Callable[[Request], Response]) -> Response:
    response = registry(request)
    return response.replace(headers=response.headers.updated(HTML)) if response.length == 0 else response


ROWS = (
    SuccessRow(
        name="patch_answered_201",
        registry="ECR",
        behaviour="Answers PATCH with 201.",
        result="Continues the upload.",
        source="[mise#11376](https://github.com/jdx/mise/pull/11376)",
        answer=replace_status("PATCH", "/uploads/", 201),
        call=push_chunked,
        expected=BLOB.digest,
    ),
    SuccessRow(
        name="patch_answered_204",
        registry="Pulp, go-containerregistry's registry",
        behaviour="Answers PATCH with 204.",
        result="Continues the upload.",
        source="[pulp_container#2199](https://github.com/pulp/pulp_container/issues/2199)",
        answer=replace_status("PATCH", "/uploads/", 204),
        call=push_chunked,
        expected=BLOB.digest,
    ),
    SuccessRow(
        name="patch_of_a_stream_answered_200",
        registry="Registries that deviate from the specification",
        behaviour="Answer PATCH with 200 instead of 202.",
        result="Continues the upload.",
        source="[Distribution specification, pushing a blob in chunks]"
        "(https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks)",
        answer=replace_status("PATCH", "/uploads/", 200),
        call=lambda client: upload(client, NAME, STREAMED).digest,
        expected=Digest.of(STREAMED),
    ),
    SuccessRow(
        name="closing_put_answered_204",
        registry="Registries that follow the first drafts of the specification",
        behaviour="Answer the PUT that closes an upload with 204, without a digest.",
        result="Checks whether the registry has the blob.",
        source="[distribution-spec#86](https://github.com/opencontainers/distribution-spec/issues/86)",
        answer=replace_status("PUT", "/uploads/", 204, {"Docker-Content-Digest": None, "Location": None}),
        call=push,
        expected=BLOB.digest,
    ),
    SuccessRow(
        name="closing_put_answered_202_and_nothing_stored",
        registry="Docker registry",
        behaviour="Responds with 202 to a request that completes an upload, and stores no blob.",
        result="Raises an error: the push did not succeed.",
        source="[distribution#3230](https://github.com/distribution/distribution/issues/3230)",
        answer=refuse("PUT", "/uploads/", 202, headers={"Location": "/v2/team/app/blobs/uploads/1"}),
        call=push,
        expected=RegistryError,
    ),
    SuccessRow(
        name="manifest_put_answered_202",
        registry="Quay",
        behaviour="Answers the PUT of a manifest with 202.",
        result="Accepts it, because the response has the digest.",
        source="[containerd#3750](https://github.com/containerd/containerd/pull/3750)",
        answer=replace_status("PUT", "/manifests/", 202),
        call=push_manifest,
        expected=MANIFEST.digest,
    ),
    SuccessRow(
        name="manifest_put_answered_202_without_digest",
        registry="Docker registry before 2.1",
        behaviour="Answers the PUT of a manifest with 202, without a digest.",
        result="Reads the manifest to check whether it is stored.",
        source="[distribution#142](https://github.com/distribution/distribution/issues/142)",
        answer=replace_status("PUT", "/manifests/", 202, {"Docker-Content-Digest": None, "Location": None}),
        call=push_manifest,
        expected=MANIFEST.digest,
    ),
    SuccessRow(
        name="referrers_tag_put_answered_202",
        registry="Quay",
        behaviour="Also answers the PUT of the referrers tag with 202.",
        result="Accepts it if the tag has the new index.",
        source="[image#381](https://github.com/containers/image/issues/381)",
        answer=without_referrers_api(replace_status("PUT", "/manifests/", 202, {"Docker-Content-Digest": None})),
        call=push_referrer,
        expected=[Digest.of(REFERRER)],
    ),
    SuccessRow(
        name="delete_answered_200",
        registry="GitLab",
        behaviour="Answers DELETE with 200.",
        result="Accepts it.",
        source="[werf#2603](https://github.com/werf/werf/pull/2603)",
        answer=replace_status("DELETE", "/manifests/", 200),
        call=delete_tag,
        expected=[],
    ),
    SuccessRow(
        name="upload_opened_with_200",
        registry="Registries that deviate from the specification",
        behaviour="Open an upload with a success code other than 202.",
        result="Uses the Location.",
        source="[Distribution specification, POST then PUT]"
        "(https://github.com/opencontainers/distribution-spec/blob/main/spec.md#post-then-put)",
        answer=replace_status("POST", "/uploads/", 200),
        call=push,
        expected=BLOB.digest,
    ),
    SuccessRow(
        name="proxy_answers_html",
        registry="Proxies and login pages in front of a registry",
        behaviour="Answer requests that store content with an HTML page, also with a success code.",
        result="Raises `ContentError`: nothing was stored.",
        source="[moby#27877](https://github.com/moby/moby/issues/27877)",
        answer=refuse("PUT", "/uploads/", 200, b"<html>Log in</html>", HTML),
        call=push,
        expected=ContentError,
    ),
    SuccessRow(
        name="empty_body_labelled_html",
        registry="Registries made with Flask or Django (Quay, Pulp)",
        behaviour="Send empty bodies with the Content-Type text/html.",
        result="Accepts the response: an empty body is not an HTML page.",
        source="[Flask, Response.default_mimetype](https://flask.palletsprojects.com/en/stable/api/#flask.Response)",
        answer=label_empty_bodies,
        call=push,
        expected=BLOB.digest,
    ),
    SuccessRow(
        name="lost_upload_answered_404_with_blob_upload_invalid",
        registry="ACR",
        behaviour="Responds with 404 and BLOB_UPLOAD_INVALID to a chunk of an upload that cannot be continued.",
        result="Uploads the content again unless it is single-use.",
        source="[azure-sdk-for-python#29738](https://github.com/Azure/azure-sdk-for-python/issues/29738)",
        answer=once("PATCH", Response(404, {}, error_body("BLOB_UPLOAD_INVALID"))),
        call=lambda client: upload(client, NAME, STREAMED).digest,
        expected=Digest.of(STREAMED),
    ),
    SuccessRow(
        name="chunk_out_of_order_answered_416_with_blob_upload_invalid",
        registry="ECR, zot",
        behaviour="Respond with 416 and BLOB_UPLOAD_INVALID to bytes that are out of order.",
        result="Raises `RangeInvalid`, after which the upload can be resumed.",
        source="[containerization#790](https://github.com/apple/containerization/issues/790)",
        answer=refuse("PATCH", "/uploads/", 416, error_body("BLOB_UPLOAD_INVALID")),
        call=push_chunked,
        expected=RangeInvalid,
    ),
    SuccessRow(
        name="open_ended_range_refused",
        registry="go-containerregistry's registry",
        behaviour="Refuses a range without an end with 416.",
        result="Repeats the request with the end of the blob.",
        source="[stereoscope#695](https://github.com/anchore/stereoscope/pull/695)",
        answer=refuse_open_ranges,
        call=read_part,
        expected=CONTENT[2990:],
    ),
    SuccessRow(
        name="catalog_is_missing",
        registry="GHCR and most public registries",
        behaviour="Do not support the catalog of repositories (404).",
        result="Raises `Unsupported`, whose message names the alternatives.",
        source="[oras-go#621](https://github.com/oras-project/oras-go/issues/621)",
        answer=refuse("GET", "/v2/_catalog", 404, b"404 page not found"),
        call=lambda client: list(client.repositories()),
        expected=Unsupported,
    ),
    SuccessRow(
        name="catalog_is_unsupported_by_code",
        registry="Registries that answer unknown paths with an error code",
        behaviour="Respond with 400 and UNSUPPORTED to a request for the catalog.",
        result="Raises `Unsupported`, whose message names the alternatives.",
        source="[specification, error codes](https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes)",
        answer=refuse("GET", "/v2/_catalog", 400, error_body("UNSUPPORTED")),
        call=catalog_error,
        expected="use the registry's own API or web page",
    ),
    SuccessRow(
        name="rate_limit_in_headers",
        registry="Docker Hub",
        behaviour="States the pull rate limit only in headers of the 429.",
        result="Quotes the headers in the error message, with advice.",
        source="[docs#13499](https://github.com/docker/docs/pull/13499)",
        answer=refuse(
            "GET",
            "/manifests/",
            429,
            error_body("TOOMANYREQUESTS"),
            {"RateLimit-Limit": "100;w=21600", "docker-ratelimit-source": "192.0.2.7", "Retry-After": "3600"},
        ),
        call=lambda client: client.get_tag(NAME, "v1"),
        expected=TooManyRequests,
    ),
)


def client_of(answer: Answer) -> Client:
    """Return a client of a registry in memory whose responses `answer` modifies."""
    memory = MemoryRegistry()
    base = FunctionTransport(lambda request: answer(request, memory.round_trip))
    return Client(HOST, default_transport(base=base, credentials=Anonymous()))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_client_success_code_of_deployed_registry_is_handled(row: SuccessRow) -> None:
    client = client_of(row.answer)
    if isinstance(row.expected, type) and issubclass(row.expected, OciwireError):
        with pytest.raises(row.expected):
            row.call(client)
    else:
        assert row.call(client) == row.expected


@pytest.mark.parametrize("status", [200, 202, 204])
def test_push_manifest_referrers_tag_not_stored_raises_referrers_update_error(status: int) -> None:
    client = client_of(without_referrers_api(refuse("PUT", "/manifests/sha256-", status)))
    with pytest.raises(ReferrersUpdateError) as caught:
        push_referrer(client)
    assert isinstance(caught.value.__cause__, RegistryError)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_push_manifest_referrers_tag_answered_with_html_raises_referrers_update_error(status: int) -> None:
    client = client_of(without_referrers_api(refuse("PUT", "/manifests/sha256-", status, b"<html>", HTML)))
    with pytest.raises(ReferrersUpdateError) as caught:
        push_referrer(client)
    assert isinstance(caught.value.__cause__, ContentError)
