"""`referrers` with the API and with the referrers tag, and updates of that tag, also by concurrent writers."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from ociwire import Client, Descriptor, Digest, FunctionTransport, Request, Response, errors
from ociwire.media_types import OCI_INDEX, OCI_MANIFEST
from ociwire.testing import MemoryRegistry
from tests._support.doubles import PATIENCE, Call, FakeReader, content_of
from tests.client.support import BASE, HOST, NAME, ScriptedRegistry, error_response, headers_from

SUBJECT = Descriptor.of(b'{"schemaVersion": 2}', OCI_MANIFEST)
API_PATH = f"/v2/{NAME}/referrers/{SUBJECT.digest}"
REFERRERS_TAG = f"sha256-{SUBJECT.digest.encoded}"
TAG_PATH = f"/v2/{NAME}/manifests/{REFERRERS_TAG}"
SIGNATURE = "application/vnd.example.signature.v1+json"
SBOM = "application/vnd.example.sbom.v1+json"


def entry(content: bytes, artifact_type: str | None = None, **annotations: str) -> Descriptor:
    return Descriptor.of(content, OCI_MANIFEST).replace(artifact_type=artifact_type, annotations=annotations or None)


SIGNED = entry(b"signature", SIGNATURE, signer="me")
SBOM_ENTRY = entry(b"sbom", SBOM)
PLAIN_ENTRY = entry(b"bare")
ALL = [SIGNED, SBOM_ENTRY, PLAIN_ENTRY]


def index_of(*entries: Descriptor | dict[str, Any]) -> bytes:
    manifests = [entry.to_dict() if isinstance(entry, Descriptor) else entry for entry in entries]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def index_response(*entries: Descriptor | dict[str, Any], **fields: str) -> Response:
    return Response(200, {"Content-Type": OCI_INDEX, **headers_from(fields)}, index_of(*entries))


def manifest_response(content: bytes) -> Response:
    return Response(200, {"Content-Type": OCI_MANIFEST}, content)


def request_paths(registry: ScriptedRegistry) -> list[str]:
    """Return ``METHOD PATH`` of each request."""
    return [line.replace(BASE, "", 1) for line in registry.lines]


def written_index(registry: ScriptedRegistry, number: int) -> Any:
    """Return the parsed body of a request."""
    return json.loads(registry.transport.bodies[number] or b"")


def referrer(**fields: Any) -> bytes:
    """Return a manifest that refers to the subject."""
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "subject": SUBJECT.to_dict(), **fields}
    return json.dumps({name: value for name, value in manifest.items() if value is not None}).encode()


# --- the referrers API ---


def test_referrers_api_lists_entries() -> None:
    registry = ScriptedRegistry(index_response(*ALL))
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == ALL
    assert request_paths(registry) == [f"GET {API_PATH}"]
    registry.assert_done()


@pytest.mark.parametrize(
    ("filters_applied", "entries"),
    [
        (None, ALL),
        ("", ALL),
        ("annotations", ALL),
        ("artifactType", [SIGNED]),
        ("artifactType, annotations", [SIGNED]),
        ("annotations,artifactType", [SIGNED]),
    ],
)
def test_referrers_by_type_filters_unfiltered_response(filters_applied: str | None, entries: list[Descriptor]) -> None:
    fields = {} if filters_applied is None else {"OCI_Filters_Applied": filters_applied}
    registry = ScriptedRegistry(index_response(*entries, **fields))
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED]
    assert [path.replace("%2F", "/") for path in request_paths(registry)] == [
        f"GET {API_PATH}?artifactType={quote(SIGNATURE, safe='/')}"
    ]
    registry.assert_done()


def test_referrers_by_type_keeps_entries_filtered_by_server() -> None:
    """The artifact type of an old manifest is the media type of its config, which the entry may omit."""
    registry = ScriptedRegistry(index_response(SIGNED, PLAIN_ENTRY, OCI_Filters_Applied="artifactType"))
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED, PLAIN_ENTRY]


@pytest.mark.parametrize("filtered", [True, False])
def test_referrers_pages_are_followed(filtered: bool) -> None:
    fields = {"OCI_Filters_Applied": "artifactType"} if filtered else {}
    registry = ScriptedRegistry(
        index_response(SIGNED, *([] if filtered else [SBOM_ENTRY]), Link=f"<{API_PATH}?page=2>; rel=next", **fields),
        index_response(Link="<?page=3>; rel=next", **fields),
        index_response(SIGNED, **fields),
    )
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED, SIGNED]
    assert request_paths(registry)[1:] == [f"GET {API_PATH}?page=2", f"GET {API_PATH}?page=3"]
    registry.assert_done()


def test_referrers_pages_filtered_by_server_or_client_list_matching_entries() -> None:
    registry = ScriptedRegistry(
        index_response(SIGNED, Link="<?page=2>; rel=next", OCI_Filters_Applied="artifactType"),
        index_response(SBOM_ENTRY, SIGNED),
    )
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED, SIGNED]


def test_referrers_pagination_loop_or_cross_origin_link_raises_protocol_error() -> None:
    for target in (API_PATH, "https://elsewhere.example/"):
        registry = ScriptedRegistry(*[index_response(SIGNED, Link=f"<{target}>; rel=next")] * 3)
        with pytest.raises(errors.ProtocolError):
            list(registry.client.referrers(NAME, SUBJECT.digest))
        assert len(registry.requests) <= 2
        assert all(body.closed for body in registry.bodies[: len(registry.requests)])


def test_referrers_iteration_requests_pages_on_demand_and_closes_them() -> None:
    registry = ScriptedRegistry(index_response(SIGNED, SBOM_ENTRY, Link="<?page=2>; rel=next"), index_response())
    referrers = registry.client.referrers(NAME, SUBJECT.digest)
    assert registry.requests == []
    assert next(referrers) == SIGNED
    assert registry.bodies[0].closed
    assert next(referrers) == SBOM_ENTRY
    assert len(registry.requests) == 1
    assert list(referrers) == []
    registry.assert_done()


@pytest.mark.parametrize("digest", ["", "latest", "sha256:abc", None, 5])
def test_referrers_invalid_digest_raises_at_call(digest: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.referrers(NAME, digest)
    assert registry.requests == []


@pytest.mark.parametrize("name", ["", "Upper", "a b", None])
def test_referrers_invalid_repository_raises_at_call(name: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.referrers(name, SUBJECT.digest)
    assert registry.requests == []


@pytest.mark.parametrize("artifact_type", ["", "signature", "a/b; c=d", "a/b&c=d/e", 5])
def test_referrers_invalid_artifact_type_raises_at_call(artifact_type: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.referrers(NAME, SUBJECT.digest, artifact_type=artifact_type)
    assert registry.requests == []


VALID_ENTRY = SIGNED.to_dict()
NOT_JSON = [b"", b"text", b"[]", b'"x"']
INVALID_INDEXES = [b'{"manifests": "x"}', b'{"manifests": {}}', b'{"manifests": {"a": 1}}', b'{"manifests": 0}']
UNUSABLE_ENTRIES: list[Any] = [
    None,
    5,
    "x",
    [],
    {},
    {**VALID_ENTRY, "digest": "garbage"},
    {**VALID_ENTRY, "digest": None},
    {name: value for name, value in VALID_ENTRY.items() if name != "digest"},
]
UNUSUAL_ENTRIES: list[tuple[dict[str, Any], Descriptor]] = [
    ({**VALID_ENTRY, "size": -1}, SIGNED.replace(size=0)),
    ({**VALID_ENTRY, "size": "1"}, SIGNED.replace(size=0)),
    ({**VALID_ENTRY, "size": None}, SIGNED.replace(size=0)),
    ({name: value for name, value in VALID_ENTRY.items() if name != "size"}, SIGNED.replace(size=0)),
    ({**VALID_ENTRY, "size": 12345}, SIGNED.replace(size=12345)),
    ({**VALID_ENTRY, "mediaType": ""}, SIGNED.replace(media_type="application/octet-stream")),
    ({**VALID_ENTRY, "mediaType": f"{OCI_MANIFEST}; charset=utf-8"}, SIGNED),
    ({**VALID_ENTRY, "artifactType": 5}, SIGNED.replace(artifact_type=None)),
    ({**VALID_ENTRY, "annotations": {"a": 1, "b": None}}, SIGNED.replace(annotations={"a": "1"})),
]


@pytest.mark.parametrize("unusable", UNUSABLE_ENTRIES)
@pytest.mark.parametrize("by_tag", [False, True])
def test_referrers_unusable_entry_is_skipped_and_logged(
    unusable: Any, by_tag: bool, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [VALID_ENTRY, unusable, PLAIN_ENTRY.to_dict()]}
    ).encode()
    response = Response(200, {"Content-Type": OCI_INDEX}, content)
    registry = ScriptedRegistry(*([error_response(404)] if by_tag else []), response)
    with caplog.at_level("WARNING", "ociwire.client"):
        assert list(registry.client.referrers(NAME, SUBJECT.digest)) == [SIGNED, PLAIN_ENTRY]
    (record,) = caplog.records
    assert record.getMessage().startswith("skipped entry 1 of a list of referrers")
    registry.assert_done()


@pytest.mark.parametrize(("unusual", "expected"), UNUSUAL_ENTRIES)
def test_referrers_unusual_entry_is_returned(unusual: dict[str, Any], expected: Descriptor) -> None:
    registry = ScriptedRegistry(index_response(unusual, PLAIN_ENTRY))
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == [expected, PLAIN_ENTRY]
    registry.assert_done()


@pytest.mark.parametrize("artifact_type", ["application/X.Sig; a=b", "APPLICATION/x.sig"])
def test_referrers_by_type_ignores_case_and_parameters(artifact_type: str) -> None:
    registry = ScriptedRegistry(index_response({**VALID_ENTRY, "artifactType": artifact_type}, SBOM_ENTRY))
    referrers = registry.client.referrers(NAME, SUBJECT.digest, artifact_type="application/x.sig")
    assert [entry.digest for entry in referrers] == [SIGNED.digest]


@pytest.mark.parametrize("content", [*NOT_JSON, *INVALID_INDEXES])
def test_referrers_api_invalid_index_raises_protocol_error(content: bytes) -> None:
    registry = ScriptedRegistry(Response(200, {"Content-Type": OCI_INDEX}, content))
    with pytest.raises(errors.ProtocolError) as caught:
        list(registry.client.referrers(NAME, SUBJECT.digest))
    assert caught.value.request is registry.requests[0]
    registry.assert_done()


@pytest.mark.parametrize("content", [index_of(), b'{"manifests": null}', b'{"manifests": []}'])
def test_referrers_empty_index_lists_nothing(content: bytes) -> None:
    registry = ScriptedRegistry(
        Response(200, (), content), error_response(404), Response(200, {"Content-Type": OCI_INDEX}, content)
    )
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == []
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == []
    registry.assert_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error_response(401), errors.Unauthorized),
        (error_response(403), errors.Denied),
        (error_response(500), errors.RegistryError),
    ],
)
def test_referrers_error_status_raises_registry_error(answer: Response, kind: type[Exception]) -> None:
    for api in ([], [error_response(404)]):
        registry = ScriptedRegistry(*api, answer)
        with pytest.raises(kind):
            list(registry.client.referrers(NAME, SUBJECT.digest))
        registry.assert_done()


# --- the referrers tag ---


@pytest.mark.parametrize(
    "missing", [error_response(404), error_response(404, "NAME_UNKNOWN"), error_response(404, "MANIFEST_UNKNOWN")]
)
def test_referrers_api_missing_reads_tag(missing: Response) -> None:
    registry = ScriptedRegistry(missing, index_response(*ALL))
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == ALL
    assert request_paths(registry) == [f"GET {API_PATH}", f"GET {TAG_PATH}"]
    registry.assert_done()


def test_referrers_tag_by_type_is_filtered_by_client() -> None:
    registry = ScriptedRegistry(error_response(404), index_response(*ALL, OCI_Filters_Applied="artifactType"))
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED]
    registry.assert_done()


def test_referrers_api_and_tag_missing_lists_nothing() -> None:
    registry = ScriptedRegistry(error_response(404), error_response(404))
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == []
    registry.assert_done()


@pytest.mark.parametrize(
    ("digest", "tag"),
    [
        (SUBJECT.digest, REFERRERS_TAG),
        (Digest(f"sha512:{'a' * 128}"), f"sha512-{'a' * 64}"),
        (Digest(f"{'b' * 40}:{'c' * 70}"), f"{'b' * 32}-{'c' * 64}"),
        (Digest("blake3:abc"), "blake3-abc"),
    ],
)
def test_referrers_tag_is_derived_from_digest(digest: Digest, tag: str) -> None:
    registry = ScriptedRegistry(error_response(404), error_response(404))
    assert list(registry.client.referrers(NAME, digest)) == []
    assert request_paths(registry)[1] == f"GET /v2/{NAME}/manifests/{tag}"


@pytest.mark.parametrize("content", [*NOT_JSON, b"<html>", b" <!DOCTYPE html>"])
def test_referrers_tag_not_json_raises_content_error(content: bytes) -> None:
    for content_type in (OCI_INDEX, "text/html", "text/plain"):
        response = Response(200, {"Content-Type": content_type}, content)
        registry = ScriptedRegistry(error_response(404), response)
        with pytest.raises(errors.ContentError):
            list(registry.client.referrers(NAME, SUBJECT.digest))
        registry.assert_done()
        registry = ScriptedRegistry(Response(201), response)
        with pytest.raises(errors.ReferrersUpdateError) as caught:
            registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
        assert isinstance(caught.value.__cause__, errors.ContentError)
        registry.assert_done()


@pytest.mark.parametrize("content", INVALID_INDEXES)
def test_referrers_tag_invalid_index_raises_protocol_error(content: bytes) -> None:
    registry = ScriptedRegistry(error_response(404), Response(200, {"Content-Type": OCI_INDEX}, content))
    with pytest.raises(errors.ProtocolError):
        list(registry.client.referrers(NAME, SUBJECT.digest))
    registry.assert_done()


SUBJECT_INDEX = index_of(PLAIN_ENTRY)
NOT_REFERRERS = {
    "the subject": (b'{"schemaVersion": 2}', OCI_MANIFEST, SUBJECT.digest),
    "the subject, an index": (SUBJECT_INDEX, OCI_INDEX, Digest.of(SUBJECT_INDEX)),
    "the subject by sha512": (SUBJECT_INDEX, OCI_INDEX, Digest.of(SUBJECT_INDEX, "sha512")),
    "an image": (referrer(config=SUBJECT.to_dict(), layers=[]), OCI_MANIFEST, SUBJECT.digest),
    "an image as plain text": (referrer(config=SUBJECT.to_dict(), layers=[]), "text/plain", SUBJECT.digest),
    "nothing": (b"{}", OCI_INDEX, SUBJECT.digest),
    "another type": (b'{"mediaType": "application/x", "manifests": []}', "text/plain", SUBJECT.digest),
}


@pytest.mark.parametrize(("content", "media_type", "subject"), NOT_REFERRERS.values(), ids=NOT_REFERRERS)
def test_referrers_tag_not_an_index_lists_nothing_and_is_not_replaced(
    content: bytes, media_type: str, subject: Digest
) -> None:
    response = Response(200, {"Content-Type": media_type}, content)
    pushed = referrer(subject=SUBJECT.replace(digest=subject).to_dict())
    registry = ScriptedRegistry(error_response(404), response)
    assert list(registry.client.referrers(NAME, subject)) == []
    registry.assert_done()
    registry = ScriptedRegistry(Response(201), response)
    with pytest.raises(
        errors.ReferrersUpdateError, match=r"refusing to replace .*: expected an index of referrers, got "
    ) as caught:
        registry.client.push_manifest(NAME, pushed, OCI_MANIFEST)
    assert caught.value.descriptor is not None
    assert caught.value.descriptor.digest == Digest.of(pushed)
    assert registry.methods == ["PUT", "GET"]
    registry.assert_done()
    registry = ScriptedRegistry(
        Response(200, {"Content-Type": OCI_MANIFEST}, pushed), error_response(404), response, Response(202)
    )
    registry.client.delete_manifest(NAME, Digest.of(pushed))  # there is no entry to remove
    registry.assert_done()


@pytest.mark.parametrize("media_type", [5, "a/b\r\nX: y", "index", "application/x"])
def test_push_manifest_referrers_tag_of_other_media_type_is_not_replaced(media_type: Any) -> None:
    content = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": []}).encode()
    registry = ScriptedRegistry(Response(201), Response(200, {"Content-Type": "text/plain"}, content))
    with pytest.raises(
        errors.ReferrersUpdateError, match=r"refusing to replace .*: expected an index of referrers, got "
    ):
        registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    assert registry.methods == ["PUT", "GET"]


# --- updates of the referrers tag by push_manifest ---


def push(*answers: Response, content: bytes | None = None, **options: Any) -> tuple[ScriptedRegistry, Descriptor]:
    """Push a referrer to a registry that sends these responses."""
    registry = ScriptedRegistry(*answers)
    return registry, registry.client.push_manifest(NAME, content or referrer(), OCI_MANIFEST, **options)


def test_push_manifest_subject_confirmed_by_registry_writes_no_tag() -> None:
    registry, pushed = push(Response(201, {"OCI-Subject": SUBJECT.digest}))
    assert pushed == Descriptor.of(referrer(), OCI_MANIFEST)
    assert len(registry.requests) == 1
    registry.assert_done()


@pytest.mark.parametrize("subject", [None, "x", {}, {"digest": "garbage"}, {"digest": None}, []])
def test_push_manifest_without_valid_subject_writes_no_tag(subject: Any) -> None:
    registry, _ = push(Response(201), content=referrer(subject=subject))
    assert len(registry.requests) == 1
    registry.assert_done()


def test_push_manifest_first_referrer_creates_index() -> None:
    registry, pushed = push(Response(201), error_response(404), Response(201))
    assert request_paths(registry)[1:] == [f"GET {TAG_PATH}", f"PUT {TAG_PATH}"]
    assert registry.requests[2].headers["content-type"] == OCI_INDEX
    assert "if-match" not in registry.requests[2].headers
    written = written_index(registry, 2)
    assert written == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [pushed.to_dict()]}
    registry.assert_done()


@pytest.mark.parametrize("etag", ['"abc"', None])
def test_push_manifest_further_referrer_is_appended(etag: str | None) -> None:
    registry, pushed = push(
        Response(201), index_response(*ALL, **({} if etag is None else {"ETag": etag})), Response(201), tags=["v1"]
    )
    assert registry.requests[2].headers.get("if-match") == etag
    written = written_index(registry, 2)
    assert written["manifests"] == [*(entry.to_dict() for entry in ALL), pushed.to_dict()]
    registry.assert_done()


def test_push_manifest_unknown_fields_of_index_are_kept() -> None:
    fields = {"schemaVersion": 2, "mediaType": OCI_INDEX, "annotations": {"a": "b"}, "x": 1}
    entries = [{**VALID_ENTRY, "unknown": {"field": [1]}}]
    before = json.dumps({**fields, "manifests": entries}).encode()
    registry, pushed = push(Response(201), Response(200, {"Content-Type": OCI_INDEX}, before), Response(201))
    written = written_index(registry, 2)
    assert written == {**fields, "manifests": [*entries, pushed.to_dict()]}


def test_push_manifest_listed_referrer_is_not_written_again() -> None:
    registry, _ = push(Response(201), index_response(SIGNED, Descriptor.of(referrer(), OCI_MANIFEST)))
    assert registry.methods == ["PUT", "GET"]
    registry.assert_done()


CONFIG = {"mediaType": SBOM, "digest": SUBJECT.digest, "size": 2}


@pytest.mark.parametrize(
    ("fields", "artifact_type", "annotations"),
    [
        ({}, None, None),
        ({"artifactType": SIGNATURE}, SIGNATURE, None),
        ({"config": CONFIG}, SBOM, None),
        ({"artifactType": SIGNATURE, "config": CONFIG}, SIGNATURE, None),
        ({"artifactType": "", "config": CONFIG}, SBOM, None),
        ({"annotations": {"a": "b", "c": "d"}}, None, {"a": "b", "c": "d"}),
        ({"artifactType": SIGNATURE, "annotations": {}}, SIGNATURE, {}),
        ({"config": "x"}, None, None),
        ({"config": {"mediaType": 5}}, None, None),
        ({"annotations": "x"}, None, None),
    ],
)
def test_push_manifest_referrer_entry_has_type_and_annotations(
    fields: dict[str, Any], artifact_type: str | None, annotations: dict[str, str] | None
) -> None:
    content = referrer(**fields)
    registry, _ = push(Response(201), error_response(404), Response(201), content=content)
    (written,) = written_index(registry, 2)["manifests"]
    entry = Descriptor.from_dict(written)
    assert entry.digest == Digest.of(content)
    assert (entry.media_type, entry.size) == (OCI_MANIFEST, len(content))
    assert entry.artifact_type == artifact_type
    assert (entry.annotations or {}) == (annotations or {})


def test_push_manifest_index_with_subject_is_listed() -> None:
    content = json.dumps(
        {"mediaType": OCI_INDEX, "manifests": [], "artifactType": SBOM, "subject": SUBJECT.to_dict()}
    ).encode()
    registry = ScriptedRegistry(Response(201), error_response(404), Response(201))
    registry.client.push_manifest(NAME, content, OCI_INDEX)
    (written,) = written_index(registry, 2)["manifests"]
    assert (written["mediaType"], written["artifactType"]) == (OCI_INDEX, SBOM)


def test_push_manifest_concurrent_update_is_retried() -> None:
    registry = ScriptedRegistry(
        Response(201),
        index_response(SIGNED, ETag='"1"'),
        Response(412),
        index_response(SIGNED, SBOM_ENTRY, ETag='"2"'),
        Response(201),
    )
    pushed = registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    assert [request.headers.get("if-match") for request in registry.requests] == [None, None, '"1"', None, '"2"']
    written = written_index(registry, 4)
    assert written["manifests"] == [entry.to_dict() for entry in (SIGNED, SBOM_ENTRY, pushed)]
    registry.assert_done()


def test_push_manifest_five_concurrent_updates_raise_referrers_update_error() -> None:
    rounds = [index_response(SIGNED, ETag='"1"'), Response(412)] * 5
    registry = ScriptedRegistry(Response(201), *rounds)
    with pytest.raises(errors.ReferrersUpdateError) as caught:
        registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    assert caught.value.__cause__.status == 412  # type: ignore[union-attr]
    registry.assert_done()


def test_push_manifest_four_concurrent_updates_succeed() -> None:
    rounds = [index_response(SIGNED, ETag='"1"'), Response(412)] * 4
    registry = ScriptedRegistry(Response(201), *rounds, index_response(ETag='"2"'), Response(201))
    registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    registry.assert_done()


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500])
@pytest.mark.parametrize("reading", [False, True])
def test_push_manifest_refused_tag_update_raises_referrers_update_error(status: int, reading: bool) -> None:
    registry = ScriptedRegistry(Response(201), *([] if reading else [index_response(SIGNED)]), Response(status))
    with pytest.raises(errors.ReferrersUpdateError, match="was stored, but the referrers tag") as caught:
        registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    assert caught.value.descriptor is not None
    assert caught.value.descriptor.digest == Digest.of(referrer())
    assert caught.value.__cause__.status == status  # type: ignore[union-attr]
    assert not isinstance(caught.value, errors.RegistryError)
    registry.assert_done()


@pytest.mark.parametrize("error", [errors.ReadError("reset"), errors.TransportTimeout("late"), errors.AuthTimeout("x")])
def test_push_manifest_connection_lost_in_tag_update_raises_transport_error(error: Exception) -> None:
    """Callers that retry after a `TransportError` also retry this call."""
    registry = ScriptedRegistry(Response(201), error)
    with pytest.raises(type(error)) as caught:
        registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    assert caught.value is error


def test_push_manifest_credentials_rejected_in_tag_update_raises_referrers_update_error() -> None:
    registry = ScriptedRegistry(Response(201), errors.CredentialsRejected("no"))
    with pytest.raises(errors.ReferrersUpdateError) as caught:
        registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    assert isinstance(caught.value.__cause__, errors.CredentialsRejected)


# --- bytes of other entries ---

UNUSUAL_INDEX = (
    '{ "schemaVersion":2,\n"mediaType" : "'
    + OCI_INDEX
    + '", "x":1e400 , "manifests":[\n  {"digest":"'
    + SIGNED.digest
    + '","annotations":{"n":1e400,"e":"\u00e9\\u00e9"},"size" : 1.0},null, {"odd":[1E+2]} ],'
    + '"annotations": {"\u00fc":""}}\n'
)


def test_push_manifest_other_entries_keep_their_bytes() -> None:
    response = Response(200, {"Content-Type": OCI_INDEX}, UNUSUAL_INDEX.encode())
    registry, pushed = push(Response(201), response, Response(201), content=referrer(annotations={"t": "\u00e9\ud800"}))
    written = (registry.transport.bodies[2] or b"").decode()
    head, _, tail = UNUSUAL_INDEX.partition("[\n  ")
    entries, _, tail = tail.partition(' ],"annotations"')
    others = entries.replace("null, ", "null,")
    added = written.removeprefix(f"{head}[{others},").removesuffix(f'],"annotations"{tail}')
    assert written == f'{head}[{others},{added}],"annotations"{tail}'
    assert "\u00e9" in added  # not escaped
    assert json.loads(added) == {**pushed.to_dict(), "annotations": {"t": "\u00e9\ud800"}}


def test_delete_manifest_other_entries_keep_their_bytes() -> None:
    content = UNUSUAL_INDEX.replace(SIGNED.digest, Digest.of(referrer()))
    registry = ScriptedRegistry(
        Response(200, {"Content-Type": OCI_MANIFEST}, referrer()),
        error_response(404),
        Response(200, {"Content-Type": OCI_INDEX}, content.encode()),
        Response(201),
        Response(202),
    )
    registry.client.delete_manifest(NAME, Digest.of(referrer()))
    head, _, tail = content.partition("[\n  ")
    _, _, tail = tail.partition(' ],"annotations"')
    assert (registry.transport.bodies[3] or b"").decode() == f'{head}[null,{{"odd":[1E+2]}}],"annotations"{tail}'
    registry.assert_done()


def test_push_manifest_index_beyond_max_manifest_size_is_not_written() -> None:
    before = index_of(*(entry(f"{number}".encode()) for number in range(10))).replace(b"}, {", b"},{")
    content = referrer()
    added = len(json.dumps(Descriptor.of(content, OCI_MANIFEST).to_dict(), separators=(",", ":"))) + 1
    for limit, is_allowed in [(len(before) + added, True), (len(before) + added - 1, False)]:
        answers = [
            Response(201),
            Response(200, {"Content-Type": OCI_INDEX}, before),
            *([Response(201)] if is_allowed else []),
        ]
        registry = ScriptedRegistry(*answers, max_manifest_size=limit)
        if is_allowed:
            registry.client.push_manifest(NAME, content, OCI_MANIFEST)
            assert len(registry.transport.bodies[2] or b"") == limit
        else:
            with pytest.raises(errors.ReferrersUpdateError, match=r"limit of .* bytes: raise it with Client\(max"):
                registry.client.push_manifest(NAME, content, OCI_MANIFEST)
        registry.assert_done()


# --- updates of the referrers tag by delete_manifest ---

DELETED = Digest.of(referrer())


def test_delete_manifest_referrer_is_removed_from_index() -> None:
    present = entry(referrer(), SIGNATURE)
    registry = ScriptedRegistry(
        manifest_response(referrer()),
        error_response(404),
        index_response(SIGNED, present, SBOM_ENTRY, ETag='"7"'),
        Response(201),
        Response(202),
    )
    registry.client.delete_manifest(NAME, DELETED)
    assert request_paths(registry)[1:4] == [f"GET {API_PATH}", f"GET {TAG_PATH}", f"PUT {TAG_PATH}"]
    # The manifest is deleted last, so that an interrupted deletion can be repeated.
    assert registry.requests[4].method == "DELETE"
    assert registry.requests[3].headers["if-match"] == '"7"'
    written = written_index(registry, 3)
    assert written["manifests"] == [SIGNED.to_dict(), SBOM_ENTRY.to_dict()]
    registry.assert_done()


def test_delete_manifest_unlisted_referrer_writes_no_index() -> None:
    for tag in (index_response(SIGNED), error_response(404)):
        registry = ScriptedRegistry(manifest_response(referrer()), error_response(404), tag, Response(202))
        registry.client.delete_manifest(NAME, DELETED)
        registry.assert_done()


def test_delete_manifest_with_referrers_api_writes_no_tag() -> None:
    registry = ScriptedRegistry(manifest_response(referrer()), index_response(), Response(202))
    registry.client.delete_manifest(NAME, DELETED)
    registry.assert_done()


def test_delete_manifest_refused_restores_entry() -> None:
    present = entry(referrer(), SIGNATURE)
    registry = ScriptedRegistry(
        *(
            manifest_response(referrer()),
            error_response(404),
            index_response(SIGNED, present),
            Response(201),
            error_response(405),
        ),
        *(index_response(SIGNED), Response(201)),
    )
    with pytest.raises(errors.Unsupported):
        registry.client.delete_manifest(NAME, DELETED)
    written = written_index(registry, 6)
    assert [entry["digest"] for entry in written["manifests"]] == [SIGNED.digest, DELETED]
    registry.assert_done()


def test_delete_manifest_refused_with_referrers_api_writes_no_tag() -> None:
    client = Client(HOST, MemoryRegistry(deletes=False))
    config = client.push_blob(NAME, Descriptor.of(b"{}"), b"{}")
    fields = {"config": config.to_dict(), "layers": [], "subject": SUBJECT.to_dict()}
    content = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **fields}).encode()
    pushed = client.push_manifest(NAME, content, OCI_MANIFEST)
    with pytest.raises(errors.Unsupported):
        client.delete_manifest(NAME, pushed.digest)
    assert list(client.tags(NAME)) == []


def test_delete_manifest_refused_tag_update_deletes_manifest_and_raises() -> None:
    present = entry(referrer(), SIGNATURE)
    registry = ScriptedRegistry(
        manifest_response(referrer()), error_response(404), index_response(present), error_response(403), Response(202)
    )
    with pytest.raises(errors.Denied):
        registry.client.delete_manifest(NAME, DELETED)
    assert registry.requests[4].method == "DELETE"
    registry.assert_done()


@pytest.mark.parametrize(
    ("status", "error"), [(401, errors.Unauthorized), (403, errors.Denied)], ids=["unauthorized", "denied"]
)
def test_delete_manifest_referrers_api_refused_deletes_manifest_and_raises(
    status: int, error: type[errors.RegistryError]
) -> None:
    registry = ScriptedRegistry(manifest_response(referrer()), error_response(status), Response(202))
    with pytest.raises(error):
        registry.client.delete_manifest(NAME, DELETED)
    assert registry.requests[-1].method == "DELETE"
    registry.assert_done()


def test_delete_manifest_already_deleted_succeeds() -> None:
    """A lower layer repeats a DELETE whose response was lost, and gets a 404."""
    registry = ScriptedRegistry(manifest_response(referrer()), index_response(), error_response(404))
    registry.client.delete_manifest(NAME, DELETED)
    registry.assert_done()


def test_push_manifest_index_refused_drops_entries_of_missing_manifests() -> None:
    unknown = Response(400, (), b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}')
    registry = ScriptedRegistry(
        *(Response(201), index_response(SIGNED, SBOM_ENTRY), unknown),
        # SIGNED is missing, which a GET confirms. SBOM_ENTRY exists
        *(error_response(404), error_response(404), Response(200)),
        *(index_response(SIGNED, SBOM_ENTRY), Response(201)),
    )
    registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    written = written_index(registry, 7)
    assert [entry["digest"] for entry in written["manifests"]] == [SBOM_ENTRY.digest, Descriptor.of(referrer()).digest]
    registry.assert_done()


def test_push_manifest_index_refused_keeps_entries_found_by_get() -> None:
    unknown = Response(400, (), b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}')
    registry = ScriptedRegistry(Response(201), index_response(SIGNED), unknown, error_response(404), Response(200))
    with pytest.raises(errors.ReferrersUpdateError) as caught:
        registry.client.push_manifest(NAME, referrer(), OCI_MANIFEST)
    assert isinstance(caught.value.__cause__, errors.ManifestBlobUnknown)
    registry.assert_done()


# --- concurrent writers ---


class ManifestRegistry:
    """Registry in memory for manifests only, without the referrers API.

    Args:
        etags: Whether it supports ETags, If-Match and If-None-Match (RFC 9110, section 13.1). Defaults to true.
        writers: Number of writers that wait for each other after their first read of the referrers tag. Defaults to 1.

    Attributes:
        conflicts: Number of requests that were answered with 412.
    """

    def __init__(self, *, etags: bool = True, writers: int = 1) -> None:
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.conflicts = 0
        self.bodies: list[FakeReader] = []
        self._etags = etags
        self._lock = threading.Lock()
        self._read_barrier = threading.Barrier(writers)
        self._readers: set[int] = set()

    def client(self) -> Client:
        return Client(HOST, FunctionTransport(self._answer))

    def entries(self) -> list[dict[str, Any]]:
        _, content = self.manifests[REFERRERS_TAG]
        entries: list[dict[str, Any]] = json.loads(content)["manifests"]
        return entries

    def _answer(self, request: Request) -> Response:
        match = re.search(r"/manifests/([^/?]+)$", request.url)
        if match is None:
            return self._track(Response(404, (), b"<html>"))
        with self._lock:
            response = getattr(self, f"_{request.method.lower()}")(match[1], request)
        if (request.method, match[1]) == ("GET", REFERRERS_TAG) and threading.get_ident() not in self._readers:
            self._readers.add(threading.get_ident())
            self._read_barrier.wait(PATIENCE)
        return self._track(response)

    def _track(self, response: Response) -> Response:
        self.bodies.append(FakeReader(response.read()))
        return Response(response.status, response.headers, self.bodies[-1])

    def _etag(self, name: str) -> str | None:
        if not self._etags or name not in self.manifests:
            return None
        return f'"{hashlib.sha256(self.manifests[name][1]).hexdigest()}"'

    def _get(self, name: str, request: Request) -> Response:
        if name not in self.manifests:
            return Response(404)
        media_type, content = self.manifests[name]
        etag = self._etag(name)
        return Response(200, {"Content-Type": media_type, **({} if etag is None else {"ETag": etag})}, content)

    def _put(self, name: str, request: Request) -> Response:
        if self._etags:
            if_match = request.headers.get("if-match")
            is_create = request.headers.get("if-none-match") == "*"
            if (if_match is not None and if_match != self._etag(name)) or (is_create and name in self.manifests):
                self.conflicts += 1
                return Response(412)
        content = content_of(request.body)
        for key in (name, str(Digest.of(content))):
            self.manifests[key] = (request.headers["content-type"], content)
        return Response(201)

    def _delete(self, name: str, request: Request) -> Response:
        return Response(202 if self.manifests.pop(name, None) else 404)


def run_concurrently(*functions: Callable[[], object]) -> None:
    for call in [Call(function) for function in functions]:
        if call.join().error is not None:
            raise call.error


def numbered_referrer(number: int) -> bytes:
    return referrer(annotations={"number": str(number)})


def push_numbered(registry: ManifestRegistry, number: int) -> Callable[[], object]:
    return lambda: registry.client().push_manifest(NAME, numbered_referrer(number), OCI_MANIFEST)


def digests(registry: ManifestRegistry) -> set[str]:
    return {entry["digest"] for entry in registry.entries()}


@pytest.mark.parametrize("etags", [True, False])
def test_referrers_tag_sequential_writers_keep_all_entries(etags: bool) -> None:
    registry = ManifestRegistry(etags=etags)
    for number in range(5):
        push_numbered(registry, number)()
    client = registry.client()
    assert [entry.digest for entry in client.referrers(NAME, SUBJECT.digest)] == [
        Digest.of(numbered_referrer(number)) for number in range(5)
    ]
    for number in (1, 4):
        client.delete_manifest(NAME, Digest.of(numbered_referrer(number)))
    assert [(entry.annotations or {})["number"] for entry in client.referrers(NAME, SUBJECT.digest)] == ["0", "2", "3"]
    assert registry.conflicts == 0
    assert all(body.closed for body in registry.bodies)


@pytest.mark.parametrize("writers", [2, 4])
def test_referrers_tag_concurrent_writers_keep_all_entries(writers: int) -> None:
    registry = ManifestRegistry(writers=writers)
    registry.manifests[REFERRERS_TAG] = (OCI_INDEX, index_of(SIGNED))
    run_concurrently(*(push_numbered(registry, number) for number in range(writers)))
    assert digests(registry) == {SIGNED.digest, *(Digest.of(numbered_referrer(number)) for number in range(writers))}
    assert len(registry.entries()) == writers + 1
    assert registry.conflicts >= writers - 1  # all writers have read the tag before the first write
    assert all(body.closed for body in registry.bodies)


def test_referrers_tag_concurrent_first_writers_keep_both_entries() -> None:
    """A tag that does not exist has no ETag, so the writers send ``If-None-Match: *``."""
    registry = ManifestRegistry(writers=2)
    run_concurrently(push_numbered(registry, 0), push_numbered(registry, 1))
    assert digests(registry) == {Digest.of(numbered_referrer(0)), Digest.of(numbered_referrer(1))}
    assert registry.conflicts == 1


def test_referrers_tag_concurrent_push_and_delete_keep_both_changes() -> None:
    registry = ManifestRegistry(writers=1)
    push_numbered(registry, 0)()
    push_numbered(registry, 1)()
    content = registry.manifests[REFERRERS_TAG]
    concurrent = ManifestRegistry(writers=2)
    concurrent.manifests = {**registry.manifests, REFERRERS_TAG: content}
    run_concurrently(
        push_numbered(concurrent, 2), lambda: concurrent.client().delete_manifest(NAME, Digest.of(numbered_referrer(0)))
    )
    assert digests(concurrent) == {Digest.of(numbered_referrer(1)), Digest.of(numbered_referrer(2))}
    assert concurrent.conflicts == 1


def test_referrers_tag_without_etags_last_writer_wins() -> None:
    """A client cannot prevent lost updates without ETags. The index is valid and has at least one of the entries."""
    registry = ManifestRegistry(etags=False, writers=2)
    registry.manifests[REFERRERS_TAG] = (OCI_INDEX, index_of(SIGNED))
    run_concurrently(push_numbered(registry, 0), push_numbered(registry, 1))
    pushed = {Digest.of(numbered_referrer(0)), Digest.of(numbered_referrer(1))}
    assert SIGNED.digest in digests(registry)
    assert digests(registry) & pushed
    assert registry.conflicts == 0
