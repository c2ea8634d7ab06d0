"""Referrers: by the API, by the tag that stands in for it, and that tag as it is written, by several at once too."""

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
from tests.client.test_client import BASE, Registry, Tracked, refused

NAME = "library/alpine"
SUBJECT = Descriptor.of(b'{"schemaVersion": 2}', OCI_MANIFEST)
API = f"/v2/{NAME}/referrers/{SUBJECT.digest}"
TAG = f"sha256-{SUBJECT.digest.encoded}"
FALLBACK = f"/v2/{NAME}/manifests/{TAG}"
SIGNATURE = "application/vnd.example.signature.v1+json"
SBOM = "application/vnd.example.sbom.v1+json"


def entry(content: bytes, artifact_type: str | None = None, **annotations: str) -> Descriptor:
    return Descriptor.of(content, OCI_MANIFEST).replace(artifact_type=artifact_type, annotations=annotations or None)


SIGNED = entry(b"signature", SIGNATURE, who="me")
LISTED = entry(b"sbom", SBOM)
BARE = entry(b"bare")
ALL = [SIGNED, LISTED, BARE]


def index_of(*entries: Descriptor | dict[str, Any]) -> bytes:
    listed = [one.to_dict() if isinstance(one, Descriptor) else one for one in entries]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


def index(*entries: Descriptor | dict[str, Any], **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(200, {"Content-Type": OCI_INDEX, **named}, index_of(*entries))


def targets(registry: Registry) -> list[str]:
    return [f"{request.method} {request.url.removeprefix(BASE)}" for request in registry.requests]


def attached(**fields: Any) -> bytes:
    """A manifest that refers to the subject."""
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "subject": SUBJECT.to_dict(), **fields}
    return json.dumps({name: value for name, value in manifest.items() if value is not None}).encode()


# --- read by the API ---


def test_referrers_api_lists_entries() -> None:
    registry = Registry(index(*ALL))
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == ALL
    assert targets(registry) == [f"GET {API}"]
    registry.check_done()


@pytest.mark.parametrize(
    ("applied", "answered"),
    [
        (None, ALL),
        ("", ALL),
        ("annotations", ALL),
        ("artifactType", [SIGNED]),
        ("artifactType, annotations", [SIGNED]),
        ("annotations,artifactType", [SIGNED]),
    ],
)
def test_referrers_by_type_filters_what_server_did_not(applied: str | None, answered: list[Descriptor]) -> None:
    registry = Registry(index(*answered, **({} if applied is None else {"OCI_Filters_Applied": applied})))
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED]
    assert [target.replace("%2F", "/") for target in targets(registry)] == [
        f"GET {API}?artifactType={quote(SIGNATURE, safe='/')}"
    ]
    registry.check_done()


def test_referrers_by_type_keeps_entries_filtered_by_server() -> None:
    """An old manifest's type is its config's, which an entry need not say."""
    registry = Registry(index(SIGNED, BARE, OCI_Filters_Applied="artifactType"))
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED, BARE]


@pytest.mark.parametrize("filtered", [True, False])
def test_referrers_pages_are_followed(filtered: bool) -> None:
    said = {"OCI_Filters_Applied": "artifactType"} if filtered else {}
    registry = Registry(
        index(SIGNED, *([] if filtered else [LISTED]), Link=f"<{API}?page=2>; rel=next", **said),
        index(Link="<?page=3>; rel=next", **said),
        index(SIGNED, **said),
    )
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED, SIGNED]
    assert targets(registry)[1:] == [f"GET {API}?page=2", f"GET {API}?page=3"]
    registry.check_done()


def test_referrers_pages_filtered_by_server_or_client_list_matching_entries() -> None:
    registry = Registry(
        index(SIGNED, Link="<?page=2>; rel=next", OCI_Filters_Applied="artifactType"), index(LISTED, SIGNED)
    )
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED, SIGNED]


def test_referrers_pagination_loop_or_cross_origin_link_raises_protocol_error() -> None:
    for target in (API, "https://elsewhere.example/"):
        registry = Registry(*[index(SIGNED, Link=f"<{target}>; rel=next")] * 3)
        with pytest.raises(errors.ProtocolError):
            list(registry.client.referrers(NAME, SUBJECT.digest))
        assert len(registry.requests) <= 2
        assert all(body.closed for body in registry.bodies[: len(registry.requests)])


def test_referrers_iteration_requests_pages_on_demand_and_closes_them() -> None:
    registry = Registry(index(SIGNED, LISTED, Link="<?page=2>; rel=next"), index())
    found = registry.client.referrers(NAME, SUBJECT.digest)
    assert registry.requests == []
    assert next(found) == SIGNED
    assert registry.bodies[0].closed
    assert next(found) == LISTED
    assert len(registry.requests) == 1
    assert list(found) == []
    registry.check_done()


@pytest.mark.parametrize("digest", ["", "latest", "sha256:abc", None, 5])
def test_referrers_invalid_digest_raises_at_call(digest: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        registry.client.referrers(NAME, digest)
    assert registry.requests == []


@pytest.mark.parametrize("name", ["", "Upper", "a b", None])
def test_referrers_invalid_repository_raises_at_call(name: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        registry.client.referrers(name, SUBJECT.digest)
    assert registry.requests == []


@pytest.mark.parametrize("artifact_type", ["", "signature", "a/b; c=d", "a/b&c=d/e", 5])
def test_referrers_invalid_artifact_type_raises_at_call(artifact_type: Any) -> None:
    registry = Registry()
    with pytest.raises(errors.UsageError):
        registry.client.referrers(NAME, SUBJECT.digest, artifact_type=artifact_type)
    assert registry.requests == []


GOOD = SIGNED.to_dict()
NOT_JSON = [b"", b"no JSON", b"[]", b'"x"']
NO_LISTS = [b'{"manifests": "x"}', b'{"manifests": {}}', b'{"manifests": {"a": 1}}', b'{"manifests": 0}']
NO_ENTRIES: list[Any] = [
    None,
    5,
    "x",
    [],
    {},
    {**GOOD, "digest": "garbage"},
    {**GOOD, "digest": None},
    {name: value for name, value in GOOD.items() if name != "digest"},
]
ODD_ENTRIES: list[tuple[dict[str, Any], Descriptor]] = [
    ({**GOOD, "size": -1}, SIGNED.replace(size=0)),
    ({**GOOD, "size": "1"}, SIGNED.replace(size=0)),
    ({**GOOD, "size": None}, SIGNED.replace(size=0)),
    ({name: value for name, value in GOOD.items() if name != "size"}, SIGNED.replace(size=0)),
    ({**GOOD, "size": 12345}, SIGNED.replace(size=12345)),
    ({**GOOD, "mediaType": ""}, SIGNED.replace(media_type="application/octet-stream")),
    ({**GOOD, "mediaType": f"{OCI_MANIFEST}; charset=utf-8"}, SIGNED),
    ({**GOOD, "artifactType": 5}, SIGNED.replace(artifact_type=None)),
    ({**GOOD, "annotations": {"a": 1, "b": None}}, SIGNED.replace(annotations={"a": "1"})),
]


@pytest.mark.parametrize("odd", NO_ENTRIES)
@pytest.mark.parametrize("by_tag", [False, True])
def test_referrers_unusable_entry_is_skipped_and_logged(
    odd: Any, by_tag: bool, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [GOOD, odd, BARE.to_dict()]}
    ).encode()
    served = Response(200, {"Content-Type": OCI_INDEX}, content)
    registry = Registry(*([refused(404)] if by_tag else []), served)
    with caplog.at_level("WARNING", "ociwire.client"):
        assert list(registry.client.referrers(NAME, SUBJECT.digest)) == [SIGNED, BARE]
    (record,) = caplog.records
    assert record.getMessage().startswith("skipped entry 1 of a list of referrers")
    registry.check_done()


@pytest.mark.parametrize(("odd", "read"), ODD_ENTRIES)
def test_referrers_odd_entry_is_returned(odd: dict[str, Any], read: Descriptor) -> None:
    registry = Registry(index(odd, BARE))
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == [read, BARE]
    registry.check_done()


@pytest.mark.parametrize("stated", ["application/X.Sig; a=b", "APPLICATION/x.sig"])
def test_referrers_by_type_ignores_case_and_parameters(stated: str) -> None:
    registry = Registry(index({**GOOD, "artifactType": stated}, LISTED))
    found = list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type="application/x.sig"))
    assert [one.digest for one in found] == [SIGNED.digest]


@pytest.mark.parametrize("content", [*NOT_JSON, *NO_LISTS])
def test_referrers_api_invalid_index_raises_protocol_error(content: bytes) -> None:
    registry = Registry(Response(200, {"Content-Type": OCI_INDEX}, content))
    with pytest.raises(errors.ProtocolError) as caught:
        list(registry.client.referrers(NAME, SUBJECT.digest))
    assert caught.value.request is registry.requests[0]
    registry.check_done()


@pytest.mark.parametrize("content", [index_of(), b'{"manifests": null}', b'{"manifests": []}'])
def test_referrers_empty_index_lists_nothing(content: bytes) -> None:
    registry = Registry(Response(200, (), content), refused(404), Response(200, {"Content-Type": OCI_INDEX}, content))
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == []
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == []
    registry.check_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(refused(401), errors.Unauthorized), (refused(403), errors.Denied), (refused(500), errors.RegistryError)],
)
def test_referrers_error_status_raises_registry_error(answer: Response, kind: type[Exception]) -> None:
    for before in ([], [refused(404)]):
        registry = Registry(*before, answer)
        with pytest.raises(kind):
            list(registry.client.referrers(NAME, SUBJECT.digest))
        registry.check_done()


# --- read by the tag ---


@pytest.mark.parametrize("missing", [refused(404), refused(404, "NAME_UNKNOWN"), refused(404, "MANIFEST_UNKNOWN")])
def test_referrers_api_missing_reads_tag(missing: Response) -> None:
    registry = Registry(missing, index(*ALL))
    assert list(registry.client.referrers(NAME, SUBJECT.digest)) == ALL
    assert targets(registry) == [f"GET {API}", f"GET {FALLBACK}"]
    registry.check_done()


def test_referrers_tag_by_type_is_filtered_by_client() -> None:
    registry = Registry(refused(404), index(*ALL, OCI_Filters_Applied="artifactType"))
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == [SIGNED]
    registry.check_done()


def test_referrers_api_and_tag_missing_lists_nothing() -> None:
    registry = Registry(refused(404), refused(404))
    assert list(registry.client.referrers(NAME, SUBJECT.digest, artifact_type=SIGNATURE)) == []
    registry.check_done()


@pytest.mark.parametrize(
    ("digest", "tag"),
    [
        (SUBJECT.digest, TAG),
        (Digest(f"sha512:{'a' * 128}"), f"sha512-{'a' * 64}"),
        (Digest(f"{'b' * 40}:{'c' * 70}"), f"{'b' * 32}-{'c' * 64}"),
        (Digest("blake3:abc"), "blake3-abc"),
    ],
)
def test_referrers_tag_is_derived_from_digest(digest: Digest, tag: str) -> None:
    registry = Registry(refused(404), refused(404))
    assert list(registry.client.referrers(NAME, digest)) == []
    assert targets(registry)[1] == f"GET /v2/{NAME}/manifests/{tag}"


@pytest.mark.parametrize("content", [*NOT_JSON, b"<html>", b" <!DOCTYPE html>"])
def test_referrers_tag_not_json_raises_content_error(content: bytes) -> None:
    for content_type in (OCI_INDEX, "text/html", "text/plain"):
        served = Response(200, {"Content-Type": content_type}, content)
        registry = Registry(refused(404), served)
        with pytest.raises(errors.ContentError):
            list(registry.client.referrers(NAME, SUBJECT.digest))
        registry.check_done()
        registry = Registry(Response(201), served)
        with pytest.raises(errors.ReferrersUpdateError) as caught:
            registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
        assert isinstance(caught.value.__cause__, errors.ContentError)
        registry.check_done()


@pytest.mark.parametrize("content", NO_LISTS)
def test_referrers_tag_invalid_index_raises_protocol_error(content: bytes) -> None:
    registry = Registry(refused(404), Response(200, {"Content-Type": OCI_INDEX}, content))
    with pytest.raises(errors.ProtocolError):
        list(registry.client.referrers(NAME, SUBJECT.digest))
    registry.check_done()


SUBJECT_INDEX = index_of(BARE)
NOT_REFERRERS = {
    "the subject": (b'{"schemaVersion": 2}', OCI_MANIFEST, SUBJECT.digest),
    "the subject, an index": (SUBJECT_INDEX, OCI_INDEX, Digest.of(SUBJECT_INDEX)),
    "the subject by sha512": (SUBJECT_INDEX, OCI_INDEX, Digest.of(SUBJECT_INDEX, "sha512")),
    "an image": (attached(config=SUBJECT.to_dict(), layers=[]), OCI_MANIFEST, SUBJECT.digest),
    "an image as plain text": (attached(config=SUBJECT.to_dict(), layers=[]), "text/plain", SUBJECT.digest),
    "nothing": (b"{}", OCI_INDEX, SUBJECT.digest),
    "another type": (b'{"mediaType": "application/x", "manifests": []}', "text/plain", SUBJECT.digest),
}


@pytest.mark.parametrize(("content", "media_type", "subject"), NOT_REFERRERS.values(), ids=NOT_REFERRERS)
def test_referrers_tag_not_an_index_lists_nothing_and_is_not_replaced(
    content: bytes, media_type: str, subject: Digest
) -> None:
    served = Response(200, {"Content-Type": media_type}, content)
    pushed = attached(subject=SUBJECT.replace(digest=subject).to_dict())
    registry = Registry(refused(404), served)
    assert list(registry.client.referrers(NAME, subject)) == []
    registry.check_done()
    registry = Registry(Response(201), served)
    with pytest.raises(errors.ReferrersUpdateError, match="refusing to replace it") as caught:
        registry.client.push_manifest(NAME, pushed, OCI_MANIFEST)
    assert caught.value.descriptor is not None
    assert caught.value.descriptor.digest == Digest.of(pushed)
    assert [request.method for request in registry.requests] == ["PUT", "GET"]
    registry.check_done()
    registry = Registry(Response(200, {"Content-Type": OCI_MANIFEST}, pushed), refused(404), served, Response(202))
    registry.client.delete_manifest(NAME, Digest.of(pushed))  # there is no entry to remove
    registry.check_done()


@pytest.mark.parametrize("media_type", [5, "a/b\r\nX: y", "index", "application/x"])
def test_push_manifest_referrers_tag_of_other_media_type_is_not_replaced(media_type: Any) -> None:
    content = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": []}).encode()
    registry = Registry(Response(201), Response(200, {"Content-Type": "text/plain"}, content))
    with pytest.raises(errors.ReferrersUpdateError, match="refusing to replace it"):
        registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    assert [request.method for request in registry.requests] == ["PUT", "GET"]


# --- written ---


def put_by(*answers: Response, content: bytes | None = None, **options: Any) -> tuple[Registry, Descriptor]:
    registry = Registry(*answers)
    return registry, registry.client.push_manifest(NAME, content or attached(), OCI_MANIFEST, **options)


def test_push_manifest_subject_confirmed_by_registry_writes_no_tag() -> None:
    registry, pushed = put_by(Response(201, {"OCI-Subject": SUBJECT.digest}))
    assert pushed == Descriptor.of(attached(), OCI_MANIFEST)
    assert len(registry.requests) == 1
    registry.check_done()


@pytest.mark.parametrize("subject", [None, "x", {}, {"digest": "garbage"}, {"digest": None}, []])
def test_push_manifest_without_valid_subject_writes_no_tag(subject: Any) -> None:
    registry, _ = put_by(Response(201), content=attached(subject=subject))
    assert len(registry.requests) == 1
    registry.check_done()


def test_push_manifest_first_referrer_creates_index() -> None:
    registry, pushed = put_by(Response(201), refused(404), Response(201))
    assert targets(registry)[1:] == [f"GET {FALLBACK}", f"PUT {FALLBACK}"]
    assert registry.requests[2].headers["content-type"] == OCI_INDEX
    assert "if-match" not in registry.requests[2].headers
    written = json.loads(registry.transport.bodies[2] or b"")
    assert written == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [pushed.to_dict()]}
    registry.check_done()


@pytest.mark.parametrize("etag", ['"abc"', None])
def test_push_manifest_further_referrer_is_appended(etag: str | None) -> None:
    registry, pushed = put_by(
        Response(201), index(*ALL, **({} if etag is None else {"ETag": etag})), Response(201), tags=["v1"]
    )
    assert registry.requests[2].headers.get("if-match") == etag
    written = json.loads(registry.transport.bodies[2] or b"")
    assert written["manifests"] == [*(one.to_dict() for one in ALL), pushed.to_dict()]
    registry.check_done()


def test_push_manifest_unknown_fields_of_index_are_kept() -> None:
    kept = {"schemaVersion": 2, "mediaType": OCI_INDEX, "annotations": {"a": "b"}, "x": 1}
    entries = [{**GOOD, "unknown": {"field": [1]}}]
    before = json.dumps({**kept, "manifests": entries}).encode()
    registry, pushed = put_by(Response(201), Response(200, {"Content-Type": OCI_INDEX}, before), Response(201))
    written = json.loads(registry.transport.bodies[2] or b"")
    assert written == {**kept, "manifests": [*entries, pushed.to_dict()]}


def test_push_manifest_listed_referrer_is_not_written_again() -> None:
    registry, _ = put_by(Response(201), index(SIGNED, Descriptor.of(attached(), OCI_MANIFEST)))
    assert [request.method for request in registry.requests] == ["PUT", "GET"]
    registry.check_done()


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
    content = attached(**fields)
    registry, _ = put_by(Response(201), refused(404), Response(201), content=content)
    (written,) = json.loads(registry.transport.bodies[2] or b"")["manifests"]
    described = Descriptor.from_dict(written)
    assert described.digest == Digest.of(content)
    assert (described.media_type, described.size) == (OCI_MANIFEST, len(content))
    assert described.artifact_type == artifact_type
    assert (described.annotations or {}) == (annotations or {})


def test_push_manifest_index_with_subject_is_listed() -> None:
    content = json.dumps(
        {"mediaType": OCI_INDEX, "manifests": [], "artifactType": SBOM, "subject": SUBJECT.to_dict()}
    ).encode()
    registry = Registry(Response(201), refused(404), Response(201))
    registry.client.push_manifest(NAME, content, OCI_INDEX)
    (written,) = json.loads(registry.transport.bodies[2] or b"")["manifests"]
    assert (written["mediaType"], written["artifactType"]) == (OCI_INDEX, SBOM)


def test_push_manifest_concurrent_update_is_retried() -> None:
    registry = Registry(
        Response(201),
        index(SIGNED, ETag='"1"'),
        Response(412),
        index(SIGNED, LISTED, ETag='"2"'),
        Response(201),
    )
    pushed = registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    assert [request.headers.get("if-match") for request in registry.requests] == [None, None, '"1"', None, '"2"']
    written = json.loads(registry.transport.bodies[4] or b"")
    assert written["manifests"] == [one.to_dict() for one in (SIGNED, LISTED, pushed)]
    registry.check_done()


def test_push_manifest_five_concurrent_updates_raise_referrers_update_error() -> None:
    rounds = [index(SIGNED, ETag='"1"'), Response(412)] * 5
    registry = Registry(Response(201), *rounds)
    with pytest.raises(errors.ReferrersUpdateError) as caught:
        registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    assert caught.value.__cause__.status == 412  # type: ignore[union-attr]
    registry.check_done()


def test_push_manifest_four_concurrent_updates_succeed() -> None:
    rounds = [index(SIGNED, ETag='"1"'), Response(412)] * 4
    registry = Registry(Response(201), *rounds, index(ETag='"2"'), Response(201))
    registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    registry.check_done()


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500])
@pytest.mark.parametrize("reading", [False, True])
def test_push_manifest_refused_tag_update_raises_referrers_update_error(status: int, reading: bool) -> None:
    registry = Registry(Response(201), *([] if reading else [index(SIGNED)]), Response(status))
    with pytest.raises(errors.ReferrersUpdateError, match="was stored, but the referrers tag") as caught:
        registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    assert caught.value.descriptor is not None
    assert caught.value.descriptor.digest == Digest.of(attached())
    assert caught.value.__cause__.status == status  # type: ignore[union-attr]
    assert not isinstance(caught.value, errors.RegistryError)
    registry.check_done()


@pytest.mark.parametrize("error", [errors.ReadError("reset"), errors.TransportTimeout("late"), errors.AuthTimeout("x")])
def test_push_manifest_connection_lost_in_tag_update_raises_transport_error(error: Exception) -> None:
    """As for any other request: a caller that repeats calls after a `TransportError` repeats this one."""
    registry = Registry(Response(201), error)
    with pytest.raises(type(error)) as caught:
        registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    assert caught.value is error


def test_push_manifest_credentials_rejected_in_tag_update_raises_referrers_update_error() -> None:
    registry = Registry(Response(201), errors.CredentialsRejected("no"))
    with pytest.raises(errors.ReferrersUpdateError) as caught:
        registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    assert isinstance(caught.value.__cause__, errors.CredentialsRejected)


# --- what is not touched keeps its bytes ---

ODD_INDEX = (
    '{ "schemaVersion":2,\n"mediaType" : "'
    + OCI_INDEX
    + '", "x":1e400 , "manifests":[\n  {"digest":"'
    + SIGNED.digest
    + '","annotations":{"n":1e400,"e":"\u00e9\\u00e9"},"size" : 1.0},null, {"odd":[1E+2]} ],'
    + '"annotations": {"\u00fc":""}}\n'
)


def test_push_manifest_other_entries_keep_their_bytes() -> None:
    served = Response(200, {"Content-Type": OCI_INDEX}, ODD_INDEX.encode())
    registry, pushed = put_by(Response(201), served, Response(201), content=attached(annotations={"t": "\u00e9\ud800"}))
    written = (registry.transport.bodies[2] or b"").decode()
    head, _, tail = ODD_INDEX.partition("[\n  ")
    entries, _, tail = tail.partition(' ],"annotations"')
    one, two, three = entries.replace("null, ", "null,").split(",null,")[0], "null", '{"odd":[1E+2]}'
    added = written.removeprefix(f"{head}[{one},{two},{three},").removesuffix(f'],"annotations"{tail}')
    assert written == f'{head}[{one},{two},{three},{added}],"annotations"{tail}'
    assert "\u00e9" in added  # not escaped
    assert json.loads(added) == {**pushed.to_dict(), "annotations": {"t": "\u00e9\ud800"}}


def test_delete_manifest_other_entries_keep_their_bytes() -> None:
    content = ODD_INDEX.replace(SIGNED.digest, Digest.of(attached()))
    registry = Registry(
        Response(200, {"Content-Type": OCI_MANIFEST}, attached()),
        refused(404),
        Response(200, {"Content-Type": OCI_INDEX}, content.encode()),
        Response(201),
        Response(202),
    )
    registry.client.delete_manifest(NAME, Digest.of(attached()))
    head, _, tail = content.partition("[\n  ")
    _, _, tail = tail.partition(' ],"annotations"')
    assert (registry.transport.bodies[3] or b"").decode() == f'{head}[null,{{"odd":[1E+2]}}],"annotations"{tail}'
    registry.check_done()


def test_push_manifest_index_beyond_max_manifest_size_is_not_written() -> None:
    before = index_of(*(entry(f"{number}".encode()) for number in range(10))).replace(b"}, {", b"},{")
    content = attached()
    added = len(json.dumps(Descriptor.of(content, OCI_MANIFEST).to_dict(), separators=(",", ":"))) + 1
    for limit, fits in [(len(before) + added, True), (len(before) + added - 1, False)]:
        answers = [
            Response(201),
            Response(200, {"Content-Type": OCI_INDEX}, before),
            *([Response(201)] if fits else []),
        ]
        registry = Registry(*answers, max_manifest_size=limit)
        if fits:
            registry.client.push_manifest(NAME, content, OCI_MANIFEST)
            assert len(registry.transport.bodies[2] or b"") == limit
        else:
            with pytest.raises(errors.ReferrersUpdateError, match=r"raise the limit with Client\(max_manifest_size="):
                registry.client.push_manifest(NAME, content, OCI_MANIFEST)
        registry.check_done()


# --- taken out ---

DELETED = Digest.of(attached())


def served(content: bytes) -> Response:
    return Response(200, {"Content-Type": OCI_MANIFEST}, content)


def test_delete_manifest_referrer_is_removed_from_index() -> None:
    present = entry(attached(), SIGNATURE)
    registry = Registry(
        served(attached()), refused(404), index(SIGNED, present, LISTED, ETag='"7"'), Response(201), Response(202)
    )
    registry.client.delete_manifest(NAME, DELETED)
    assert targets(registry)[1:4] == [f"GET {API}", f"GET {FALLBACK}", f"PUT {FALLBACK}"]
    assert registry.requests[4].method == "DELETE"  # last, so that a deletion that fails half-way can be completed
    assert registry.requests[3].headers["if-match"] == '"7"'
    written = json.loads(registry.transport.bodies[3] or b"")
    assert written["manifests"] == [SIGNED.to_dict(), LISTED.to_dict()]
    registry.check_done()


def test_delete_manifest_unlisted_referrer_writes_no_index() -> None:
    for tagged in (index(SIGNED), refused(404)):
        registry = Registry(served(attached()), refused(404), tagged, Response(202))
        registry.client.delete_manifest(NAME, DELETED)
        registry.check_done()


def test_delete_manifest_with_referrers_api_writes_no_tag() -> None:
    registry = Registry(served(attached()), index(), Response(202))
    registry.client.delete_manifest(NAME, DELETED)
    registry.check_done()


def test_delete_manifest_refused_restores_entry() -> None:
    present = entry(attached(), SIGNATURE)
    registry = Registry(
        *(served(attached()), refused(404), index(SIGNED, present), Response(201), refused(405)),
        *(index(SIGNED), Response(201)),
    )
    with pytest.raises(errors.Unsupported):
        registry.client.delete_manifest(NAME, DELETED)
    written = json.loads(registry.transport.bodies[6] or b"")
    assert [one["digest"] for one in written["manifests"]] == [SIGNED.digest, DELETED]
    registry.check_done()


def test_delete_manifest_refused_with_referrers_api_writes_no_tag() -> None:
    client = Client("registry.example", MemoryRegistry(deletes=False))
    config = client.push_blob(NAME, Descriptor.of(b"{}"), b"{}")
    fields = {"config": config.to_dict(), "layers": [], "subject": SUBJECT.to_dict()}
    content = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **fields}).encode()
    pushed = client.push_manifest(NAME, content, OCI_MANIFEST)
    with pytest.raises(errors.Unsupported):
        client.delete_manifest(NAME, pushed.digest)
    assert list(client.tags(NAME)) == []


def test_delete_manifest_refused_tag_update_deletes_manifest_and_raises() -> None:
    present = entry(attached(), SIGNATURE)
    registry = Registry(served(attached()), refused(404), index(present), refused(403), Response(202))
    with pytest.raises(errors.Denied):
        registry.client.delete_manifest(NAME, DELETED)
    assert registry.requests[4].method == "DELETE"
    registry.check_done()


@pytest.mark.parametrize(
    ("status", "error"), [(401, errors.Unauthorized), (403, errors.Denied)], ids=["unauthorized", "denied"]
)
def test_delete_manifest_referrers_api_refused_deletes_and_raises_the_refusal(
    status: int, error: type[errors.RegistryError]
) -> None:
    registry = Registry(served(attached()), refused(status), Response(202))
    with pytest.raises(error):
        registry.client.delete_manifest(NAME, Digest.of(attached()))
    assert registry.requests[-1].method == "DELETE"
    registry.check_done()


def test_delete_manifest_already_gone_succeeds() -> None:
    """The first answer to the DELETE was lost, and a layer below has sent it again."""
    registry = Registry(served(attached()), index(), refused(404))
    registry.client.delete_manifest(NAME, DELETED)
    registry.check_done()


def test_push_manifest_index_refused_drops_entries_of_missing_manifests() -> None:
    unknown = Response(400, (), b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}')
    registry = Registry(
        *(Response(201), index(SIGNED, LISTED), unknown),
        *(refused(404), refused(404), Response(200)),  # SIGNED is gone, as a GET confirms; LISTED is there
        *(index(SIGNED, LISTED), Response(201)),
    )
    registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    written = json.loads(registry.transport.bodies[7] or b"")
    assert [one["digest"] for one in written["manifests"]] == [LISTED.digest, Descriptor.of(attached()).digest]
    registry.check_done()


def test_push_manifest_index_refused_keeps_entries_found_by_get() -> None:
    unknown = Response(400, (), b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}')
    registry = Registry(Response(201), index(SIGNED), unknown, refused(404), Response(200))
    with pytest.raises(errors.ReferrersUpdateError) as caught:
        registry.client.push_manifest(NAME, attached(), OCI_MANIFEST)
    assert isinstance(caught.value.__cause__, errors.ManifestBlobUnknown)
    registry.check_done()


# --- several at once ---


class Registry412:
    """A registry without the API, in memory, for manifests alone.

    Args:
        etags: Whether it has ETags, and heeds If-Match and If-None-Match (RFC 9110, section 13.1).
        writers: How many writers wait for each other after they have first read the referrers tag.
    """

    def __init__(self, *, etags: bool = True, writers: int = 1) -> None:
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.refused = 0
        self.bodies: list[Tracked] = []
        self._etags = etags
        self._lock = threading.Lock()
        self._all_have_read = threading.Barrier(writers)
        self._have_read: set[int] = set()

    def client(self) -> Client:
        return Client("registry.example", FunctionTransport(self._answer))

    def entries(self) -> list[dict[str, Any]]:
        _, content = self.manifests[TAG]
        listed: list[dict[str, Any]] = json.loads(content)["manifests"]
        return listed

    def _answer(self, request: Request) -> Response:
        match = re.search(r"/manifests/([^/?]+)$", request.url)
        if match is None:
            return self._tracked(Response(404, (), b"<no such thing>"))
        with self._lock:
            response = getattr(self, f"_{request.method.lower()}")(match[1], request)
        if (request.method, match[1]) == ("GET", TAG) and threading.get_ident() not in self._have_read:
            self._have_read.add(threading.get_ident())
            self._all_have_read.wait(10)
        return self._tracked(response)

    def _tracked(self, response: Response) -> Response:
        self.bodies.append(Tracked(response.read()))
        return Response(response.status, response.headers, self.bodies[-1])

    def _etag(self, name: str) -> str | None:
        found = self.manifests.get(name)
        return None if found is None or not self._etags else f'"{hashlib.sha256(found[1]).hexdigest()}"'

    def _get(self, name: str, request: Request) -> Response:
        if name not in self.manifests:
            return Response(404)
        media_type, content = self.manifests[name]
        etag = self._etag(name)
        return Response(200, {"Content-Type": media_type, **({} if etag is None else {"ETag": etag})}, content)

    def _put(self, name: str, request: Request) -> Response:
        if self._etags:
            must = request.headers.get("if-match")
            must_not = request.headers.get("if-none-match")
            if (must is not None and must != self._etag(name)) or (must_not == "*" and name in self.manifests):
                self.refused += 1
                return Response(412)
        assert request.body is not None
        content = b"".join(request.body.open())
        for key in (name, str(Digest.of(content))):
            self.manifests[key] = (request.headers["content-type"], content)
        return Response(201)

    def _delete(self, name: str, request: Request) -> Response:
        return Response(202 if self.manifests.pop(name, None) else 404)


def together(*calls: Callable[[], object]) -> None:
    failed: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    if failed:
        raise failed[0]


def numbered(number: int) -> bytes:
    return attached(annotations={"number": str(number)})


def pushing(registry: Registry412, number: int) -> Callable[[], object]:
    return lambda: registry.client().push_manifest(NAME, numbered(number), OCI_MANIFEST)


def digests(registry: Registry412) -> set[str]:
    return {one["digest"] for one in registry.entries()}


@pytest.mark.parametrize("etags", [True, False])
def test_referrers_tag_sequential_writers_keep_all_entries(etags: bool) -> None:
    registry = Registry412(etags=etags)
    for number in range(5):
        pushing(registry, number)()
    client = registry.client()
    assert [one.digest for one in client.referrers(NAME, SUBJECT.digest)] == [
        Digest.of(numbered(number)) for number in range(5)
    ]
    for number in (1, 4):
        client.delete_manifest(NAME, Digest.of(numbered(number)))
    assert [(one.annotations or {})["number"] for one in client.referrers(NAME, SUBJECT.digest)] == ["0", "2", "3"]
    assert registry.refused == 0
    assert all(body.closed for body in registry.bodies)


@pytest.mark.parametrize("writers", [2, 4])
def test_referrers_tag_concurrent_writers_keep_all_entries(writers: int) -> None:
    registry = Registry412(writers=writers)
    registry.manifests[TAG] = (OCI_INDEX, index_of(SIGNED))
    together(*(pushing(registry, number) for number in range(writers)))
    assert digests(registry) == {SIGNED.digest, *(Digest.of(numbered(number)) for number in range(writers))}
    assert len(registry.entries()) == writers + 1
    assert registry.refused >= writers - 1  # they all had read before one wrote
    assert all(body.closed for body in registry.bodies)


def test_referrers_tag_concurrent_first_writers_keep_both_entries() -> None:
    """There is no ETag to hold to yet: what each writes holds only as long as there is nothing."""
    registry = Registry412(writers=2)
    together(pushing(registry, 0), pushing(registry, 1))
    assert digests(registry) == {Digest.of(numbered(0)), Digest.of(numbered(1))}
    assert registry.refused == 1


def test_referrers_tag_concurrent_push_and_delete_keep_both_changes() -> None:
    registry = Registry412(writers=1)
    pushing(registry, 0)()
    pushing(registry, 1)()
    content = registry.manifests[TAG]
    at_once = Registry412(writers=2)
    at_once.manifests = {**registry.manifests, TAG: content}
    together(pushing(at_once, 2), lambda: at_once.client().delete_manifest(NAME, Digest.of(numbered(0))))
    assert digests(at_once) == {Digest.of(numbered(1)), Digest.of(numbered(2))}
    assert at_once.refused == 1


def test_referrers_tag_without_etags_last_writer_wins() -> None:
    """Nothing can be done about it: what is there is a whole index, with one of the entries at least."""
    registry = Registry412(etags=False, writers=2)
    registry.manifests[TAG] = (OCI_INDEX, index_of(SIGNED))
    together(pushing(registry, 0), pushing(registry, 1))
    entered = {Digest.of(numbered(0)), Digest.of(numbered(1))}
    assert SIGNED.digest in digests(registry)
    assert digests(registry) & entered
    assert registry.refused == 0
