"""Responses of another kind than requested: HTML pages, ambiguous manifests, missing referrers endpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, FunctionTransport, Request, Response, default_transport
from ociwire.auth import Anonymous
from ociwire.errors import ContentError, Denied, ReferrersUpdateError, Unsupported
from ociwire.media_types import OCI_INDEX, OCI_MANIFEST
from ociwire.testing import MemoryRegistry
from ociwire.transfer import copy
from tests.field.rows import Row

TITLE = "Responses that are validated"

HOST, NAME = "registry.example", "team/app"
PAGE = b"<!DOCTYPE html><html><title>Log in</title></html>"
CONFIG = Descriptor.of(b"{}")
IMAGE = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG.to_dict(), "layers": []}).encode()
SUBJECT = Descriptor.of(IMAGE, OCI_MANIFEST)
SIGNATURE = json.dumps({**json.loads(IMAGE), "subject": SUBJECT.to_dict()}).encode()
SIGNED = Descriptor.of(SIGNATURE, OCI_MANIFEST)
SCHEMA_1 = "^Docker schema 1 manifests are not supported: push the image again with a current tool$"
TAG = f"sha256-{SUBJECT.digest.encoded}"

Answer = Callable[[Request, Response], Response]


@dataclass(frozen=True, kw_only=True)
class ValidatedRow(Row):
    """Response of another kind than requested.

    Attributes:
        answer: Returns the response to a request. Called with the request and the response of a registry without the
            referrers API.
        call: Function that calls the client.
        expected: The result of the call, or the type of the exception that it raises and a pattern for its message.
        tagged: The manifests that the referrers tag finally lists, or its digest if it is not an index. None means that
            the tag is not checked. Defaults to None.
    """

    answer: Answer
    call: Callable[[Client], Any]
    expected: Any
    tagged: Any = None


def html_page(request: Request, correct: Response) -> Response:
    return Response(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)


def at_url(part: str, answer: Answer) -> Answer:
    """Return a function that answers URLs that contain `part` with `answer`, and other URLs correctly."""
    return lambda request, correct: answer(request, correct) if part in request.url else correct


def referrers_status(code: int) -> Answer:
    return at_url("/referrers/", lambda request, correct: Response(code, {"Content-Type": "text/html"}, PAGE))


def redirect_referrers(target: str, status: int = 200, body: bytes = PAGE) -> Answer:
    def answer(request: Request, correct: Response) -> Response:
        if "/referrers/" in request.url:
            return Response(302, {"Location": target})
        return Response(status, {}, body) if "login" in request.url else correct

    return answer


def serve_subject_as_tag(request: Request, correct: Response) -> Response:
    """Serve the subject as its referrers tag, because the server treats ``sha256-…`` as a digest."""
    if request.method == "GET" and request.url.endswith(f"/manifests/{TAG}"):
        return Response(200, {"Content-Type": OCI_MANIFEST}, IMAGE)
    return correct


def deny_referrers_tag(request: Request, correct: Response) -> Response:
    is_tag_update = request.method == "PUT" and request.url.endswith(f"/manifests/{TAG}")
    return Response(403, (), b'{"errors": [{"code": "DENIED"}]}') if is_tag_update else correct


def serve_signed_schema_1(request: Request, correct: Response) -> Response:
    content = json.dumps({"schemaVersion": 1, "fsLayers": [], "signatures": [{"protected": "e30"}]}).encode()
    digest = Digest.of(b"signed content")
    headers = {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
    return Response(200, {**headers, "Docker-Content-Digest": digest}, content)


def read(client: Client) -> list[Digest]:
    return [entry.digest for entry in client.referrers(NAME, SUBJECT.digest)]


def push(client: Client) -> Descriptor:
    return client.push_manifest(NAME, SIGNATURE, OCI_MANIFEST, tags=["signature"])


def push_and_delete(client: Client) -> list[Digest]:
    push(client)
    assert read(client) == [SIGNED.digest]
    client.delete_manifest(NAME, SIGNED.digest)
    return read(client)


def push_over_image(client: Client) -> Descriptor:
    client.push_manifest(NAME, IMAGE, OCI_MANIFEST, tags=[TAG])
    return push(client)


def read_beside_image(client: Client) -> list[Digest]:
    client.push_manifest(NAME, IMAGE, OCI_MANIFEST, tags=[TAG])
    return read(client)


def copy_with_signature(client: Client) -> Descriptor:
    """Copy an image with its signature, and check that both are copied even if `copy` raises."""
    source = Client("source.example", MemoryRegistry())
    source.push_blob(NAME, CONFIG, b"{}")
    source.push_manifest(NAME, IMAGE, OCI_MANIFEST, tags=["v1"])
    source.push_manifest(NAME, SIGNATURE, OCI_MANIFEST)
    try:
        return copy(source, f"{NAME}:v1", client, f"{NAME}:copied", referrers=True, workers=1)
    finally:
        assert client.resolve_tag(NAME, "copied") == SUBJECT
        assert client.resolve_manifest(NAME, SIGNED.digest) == SIGNED


def copy_over_image(client: Client) -> Descriptor:
    client.push_manifest(NAME, IMAGE, OCI_MANIFEST, tags=[TAG])
    return copy_with_signature(client)


def copy_from(client: Client) -> Descriptor:
    target = Client("target.example", MemoryRegistry())
    return copy(client, f"{NAME}:v1", target, f"{NAME}:v1")


REFERRERS_TAG = (
    "[Distribution specification]"
    "(https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#unavailable-referrers-api)"
)

ROWS = (
    *(
        ValidatedRow(
            name=f"referrers_api_is_{code}",
            registry=registry,
            behaviour=f"The referrers endpoint is answered with {code}.",
            result="Treats it as a missing referrers API and uses the referrers tag.",
            source=source,
            answer=referrers_status(code),
            call=push_and_delete,
            expected=[],
            tagged=[],
        )
        for code, registry, source in (
            (400, "Registries that refuse unknown paths", REFERRERS_TAG),
            (404, "Registries of the distribution specification 1.0", REFERRERS_TAG),
            (405, "Registries that refuse unknown paths", REFERRERS_TAG),
            (
                406,
                "A registry behind a proxy",
                "[go-containerregistry#1962](https://github.com/google/go-containerregistry/issues/1962)",
            ),
            (501, "Registries that refuse unknown paths", REFERRERS_TAG),
        )
    ),
    ValidatedRow(
        name="referrers_api_is_a_web_page",
        registry="Registries whose web interface answers unknown paths",
        behaviour="The referrers endpoint is answered with 200 and HTML.",
        result="Treats it as a missing referrers API and uses the referrers tag to read, push and delete.",
        source="[sigstore-js#1187](https://github.com/sigstore/sigstore-js/pull/1187)",
        answer=at_url("/referrers/", html_page),
        call=push_and_delete,
        expected=[],
        tagged=[],
    ),
    ValidatedRow(
        name="referrers_api_is_json_without_manifests",
        registry="Registries whose gateway answers unknown paths",
        behaviour="The referrers endpoint is answered with 200 and a JSON object that is not an index.",
        result="Treats it as a missing referrers API.",
        source="[sigstore-js#1187](https://github.com/sigstore/sigstore-js/pull/1187)",
        answer=at_url(
            "/referrers/", lambda request, correct: Response(200, {"Content-Type": "application/json"}, b"{}")
        ),
        call=push_and_delete,
        expected=[],
        tagged=[],
    ),
    ValidatedRow(
        name="referrers_api_is_text",
        registry="Registries whose gateway answers unknown paths",
        behaviour="The referrers endpoint is answered with 200 and the text `OK`.",
        result="Treats it as a missing referrers API and uses the referrers tag to read, push and delete.",
        source="[sigstore-js#1187](https://github.com/sigstore/sigstore-js/pull/1187)",
        answer=at_url("/referrers/", lambda request, correct: Response(200, {"Content-Type": "text/plain"}, b"OK")),
        call=push_and_delete,
        expected=[],
        tagged=[],
    ),
    ValidatedRow(
        name="referrers_api_is_empty",
        registry="Registries whose gateway answers unknown paths",
        behaviour="The referrers endpoint is answered with 200 without a body.",
        result="Treats it as a missing referrers API and uses the referrers tag to read, push and delete.",
        source="[sigstore-js#1187](https://github.com/sigstore/sigstore-js/pull/1187)",
        answer=at_url("/referrers/", lambda request, correct: Response(200)),
        call=push_and_delete,
        expected=[],
        tagged=[],
    ),
    *(
        ValidatedRow(
            name=f"referrers_api_redirects_to_a_login_page_with_{code}",
            registry="Registries behind single sign-on",
            behaviour=f"The referrers endpoint redirects to another host, which answers with {code} and a login page.",
            result="Treats it as a missing referrers API; the login host receives no credentials.",
            source="[Cloudflare-Accel#13](https://github.com/fscarmen2/Cloudflare-Accel/issues/13)",
            answer=redirect_referrers("https://sso.example/login", code),
            call=push_and_delete,
            expected=[],
            tagged=[],
        )
        for code in (401, 403)
    ),
    ValidatedRow(
        name="referrers_api_redirects_to_a_refusal",
        registry="Registries that redirect to a bucket",
        behaviour="The referrers endpoint redirects to another host, which answers with 403 and JSON.",
        result="Raises `Denied`: it is not a login page, and unreadable referrers are not the same as no referrers.",
        source="[cosign#2973](https://github.com/sigstore/cosign/issues/2973)",
        answer=redirect_referrers("https://s3.example/login", 403, b'{"Code": "AccessDenied"}'),
        call=read,
        expected=(Denied, "403"),
    ),
    ValidatedRow(
        name="referrers_tag_names_a_schema_1_manifest",
        registry="Repositories where `sha256-…` was pushed as a tag",
        behaviour="The referrers tag names a Docker schema 1 manifest.",
        result="Returns no referrers.",
        source=REFERRERS_TAG,
        answer=at_url(TAG, serve_signed_schema_1),
        call=read,
        expected=[],
    ),
    ValidatedRow(
        name="referrers_api_redirects_to_a_login_page",
        registry="Registries behind single sign-on",
        behaviour="The referrers endpoint redirects to a login page on another host.",
        result="Treats it as a missing referrers API; the login host receives no credentials.",
        source="[Cloudflare-Accel#13](https://github.com/fscarmen2/Cloudflare-Accel/issues/13)",
        answer=redirect_referrers("https://sso.example/login"),
        call=push_and_delete,
        expected=[],
        tagged=[],
    ),
    ValidatedRow(
        name="referrers_api_redirects_to_plain_http",
        registry="Registries behind a TLS proxy",
        behaviour="The referrers endpoint redirects to a login page with plain http.",
        result="Does not follow the redirect and treats it as a missing referrers API.",
        source=REFERRERS_TAG,
        answer=redirect_referrers("http://registry.example/login"),
        call=push_and_delete,
        expected=[],
        tagged=[],
    ),
    ValidatedRow(
        name="referrers_api_is_403",
        registry="Any registry",
        behaviour="The referrers endpoint is answered with 403.",
        result="Raises `Denied`: unreadable referrers are not the same as no referrers.",
        source="[cosign#2973](https://github.com/sigstore/cosign/issues/2973)",
        answer=referrers_status(403),
        call=read,
        expected=(Denied, "403"),
    ),
    ValidatedRow(
        name="target_of_a_copy_redirects_the_referrers_api",
        registry="Registries behind single sign-on",
        behaviour="The referrers endpoint of the target of a copy redirects to a login page.",
        result="Lists the copied signature under the referrers tag.",
        source="[Cloudflare-Accel#13](https://github.com/fscarmen2/Cloudflare-Accel/issues/13)",
        answer=redirect_referrers("https://sso.example/login"),
        call=copy_with_signature,
        expected=SUBJECT,
        tagged=[SIGNED.digest],
    ),
    ValidatedRow(
        name="referrers_tag_is_read_as_the_subject",
        registry="Registries that accept `sha256-…` as a digest",
        behaviour="The referrers tag is answered with the subject itself.",
        result="Returns no referrers.",
        source=REFERRERS_TAG,
        answer=serve_subject_as_tag,
        call=read,
        expected=[],
    ),
    ValidatedRow(
        name="push_where_the_referrers_tag_is_the_subject",
        registry="Registries that accept `sha256-…` as a digest",
        behaviour="The referrers tag is answered with the subject itself.",
        result="Stores the manifest, does not write the tag and raises `ReferrersUpdateError`.",
        source=REFERRERS_TAG,
        answer=serve_subject_as_tag,
        call=push,
        expected=(
            ReferrersUpdateError,
            "refusing to replace .*: expected an index of referrers, got ",
        ),
    ),
    ValidatedRow(
        name="referrers_tag_names_an_image",
        registry="Repositories where `sha256-…` was pushed as a tag",
        behaviour="The referrers tag names an image.",
        result="Returns no referrers.",
        source="[cosign#4641](https://github.com/sigstore/cosign/issues/4641)",
        answer=referrers_status(404),
        call=read_beside_image,
        expected=[],
        tagged=SUBJECT.digest,
    ),
    ValidatedRow(
        name="push_where_the_referrers_tag_names_an_image",
        registry="Repositories where `sha256-…` was pushed as a tag",
        behaviour="The referrers tag names an image.",
        result="Stores the manifest, does not replace the tag and raises `ReferrersUpdateError`.",
        source="[cosign#4641](https://github.com/sigstore/cosign/issues/4641)",
        answer=referrers_status(404),
        call=push_over_image,
        expected=(
            ReferrersUpdateError,
            "refusing to replace .*: expected an index of referrers, got ",
        ),
        tagged=SUBJECT.digest,
    ),
    ValidatedRow(
        name="copy_where_the_referrers_tag_names_an_image",
        registry="Repositories where `sha256-…` was pushed as a tag",
        behaviour="The referrers tag at the target of a copy names an image.",
        result="Copies all content, sets the tag and raises `ReferrersUpdateError` at the end.",
        source="[cosign#4641](https://github.com/sigstore/cosign/issues/4641)",
        answer=referrers_status(404),
        call=copy_over_image,
        expected=(
            ReferrersUpdateError,
            "refusing to replace .*: expected an index of referrers, got ",
        ),
        tagged=SUBJECT.digest,
    ),
    ValidatedRow(
        name="copy_where_the_referrers_tag_must_not_be_written",
        registry="Registries with rules for tags",
        behaviour="The PUT of the referrers tag is answered with 403.",
        result="Copies all content, sets the tag and raises `ReferrersUpdateError` at the end.",
        source="[cosign#2973](https://github.com/sigstore/cosign/issues/2973)",
        answer=deny_referrers_tag,
        call=copy_with_signature,
        expected=(ReferrersUpdateError, "403 Forbidden: denied"),
    ),
    ValidatedRow(
        name="referrers_tag_is_a_web_page",
        registry="Networks with a captive portal",
        behaviour="The referrers tag is answered with 200 and HTML.",
        result="Raises `ContentError`: a page does not show that there are no referrers.",
        source="[official-images#4309](https://github.com/docker-library/official-images/issues/4309)",
        answer=at_url(TAG, html_page),
        call=read,
        expected=(ContentError, "HTML page"),
    ),
    ValidatedRow(
        name="manifest_is_a_web_page",
        registry="Networks with a captive portal",
        behaviour="A manifest is answered with 200 and HTML.",
        result="Raises `ContentError`, whose message states that it is an HTML page.",
        source="[Cloudflare-Accel#13](https://github.com/fscarmen2/Cloudflare-Accel/issues/13)",
        answer=html_page,
        call=lambda client: client.get_tag(NAME, "v1"),
        expected=(ContentError, "expected a manifest at /v2/team/app/manifests/v1; the response is an HTML page"),
    ),
    ValidatedRow(
        name="head_of_a_manifest_is_a_web_page",
        registry="Networks with a captive portal",
        behaviour="HEAD and GET of a manifest are answered with 200 and HTML.",
        result="Raises `ContentError`, whose message states that it is an HTML page.",
        source="[Cloudflare-Accel#13](https://github.com/fscarmen2/Cloudflare-Accel/issues/13)",
        answer=html_page,
        call=lambda client: client.resolve_manifest(NAME, SUBJECT.digest),
        expected=(ContentError, "HTML page"),
    ),
    ValidatedRow(
        name="blob_is_a_web_page",
        registry="Networks with a captive portal",
        behaviour="A blob is answered with 200 and HTML.",
        result="Raises `SizeMismatch` or `DigestMismatch`, whose message states that it is an HTML page.",
        source="[official-images#4309](https://github.com/docker-library/official-images/issues/4309)",
        answer=lambda request, correct: html_page(request, correct).replace(
            headers={"Content-Type": "text/html", "Content-Length": str(len(PAGE))}
        ),
        call=lambda client: client.get_blob(NAME, CONFIG.digest).read(),
        expected=(ContentError, "HTML page"),
    ),
    ValidatedRow(
        name="size_of_a_blob_is_that_of_a_web_page",
        registry="Networks with a captive portal",
        behaviour="HEAD and GET of a blob are answered with 200 and HTML.",
        result="`resolve_blob` raises `ContentError`.",
        source="[official-images#4309](https://github.com/docker-library/official-images/issues/4309)",
        answer=lambda request, correct: html_page(request, correct).replace(
            headers={"Content-Type": "text/html", "Content-Length": str(len(PAGE))}
        ),
        call=lambda client: client.resolve_blob(NAME, CONFIG.digest),
        expected=(ContentError, "HTML page"),
    ),
    ValidatedRow(
        name="list_of_tags_is_a_web_page",
        registry="Networks with a captive portal",
        behaviour="A list of tags is answered with 200 and HTML.",
        result="Raises `ContentError`, whose message states that it is an HTML page.",
        source="[kubegems#328](https://github.com/kubegems/kubegems/issues/328)",
        answer=html_page,
        call=lambda client: list(client.tags(NAME)),
        expected=(ContentError, "HTML page"),
    ),
    ValidatedRow(
        name="manifest_is_a_signed_schema_1",
        registry="Registries with images from 2015",
        behaviour="A tag names a signed schema 1 manifest, whose digest does not cover its signatures.",
        result="Raises `Unsupported`, whose message says to push the image again.",
        source="[manifest-tool#120](https://github.com/estesp/manifest-tool/issues/120)",
        answer=serve_signed_schema_1,
        call=lambda client: client.get_tag(NAME, "v1"),
        expected=(
            Unsupported,
            "^Docker schema 1 manifests are not supported: push the image again with a current tool$",
        ),
    ),
    ValidatedRow(
        name="copy_of_a_signed_schema_1",
        registry="Registries with images from 2015",
        behaviour="A tag names a signed schema 1 manifest.",
        result="`copy` raises `Unsupported`.",
        source="[cds#7735](https://github.com/ovh/cds/issues/7735)",
        answer=serve_signed_schema_1,
        call=copy_from,
        expected=(
            Unsupported,
            "^Docker schema 1 manifests are not supported: push the image again with a current tool$",
        ),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_client_response_of_deployed_registry_is_used_or_refused(row: ValidatedRow) -> None:
    registry = MemoryRegistry(referrers_api=False)
    direct = Client(HOST, registry)
    direct.push_blob(NAME, CONFIG, b"{}")
    direct.push_manifest(NAME, IMAGE, OCI_MANIFEST)

    def answer(request: Request) -> Response:
        assert "authorization" not in request.headers
        return row.answer(request, Response(404) if "login" in request.url else registry.round_trip(request))

    with Client(HOST, default_transport(base=FunctionTransport(answer), credentials=Anonymous())) as client:
        if isinstance(row.expected, tuple):
            kind, message = row.expected
            with pytest.raises(kind, match=message) as caught:
                row.call(client)
            if isinstance(caught.value, ReferrersUpdateError):
                assert caught.value.descriptor == SIGNED
                assert direct.resolve_manifest(NAME, SIGNED.digest) == SIGNED
        else:
            assert row.call(client) == row.expected
    if row.tagged is not None:
        with direct.get_tag(NAME, TAG) as reader:
            is_index = reader.descriptor.media_type == OCI_INDEX
            digests = [entry["digest"] for entry in json.load(reader)["manifests"]] if is_index else None
        assert (digests if is_index else reader.descriptor.digest) == row.tagged
