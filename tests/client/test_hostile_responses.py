"""Hostile or faulty registries: responses are bounded, and contradictory responses raise errors."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, FunctionTransport, Request, Response, errors
from tests.client.support import HOST, ScriptedRegistry

DIGEST = Digest.of(b"0123456789")

UNKNOWN_ALGORITHM = "blake3:" + "a" * 64


def client_of(*answers: Any) -> Client:
    return ScriptedRegistry(*answers).client


def range_response(content_range: str, content: bytes) -> Response:
    return Response(206, {"Content-Range": f"bytes {content_range}"}, content)


@pytest.mark.parametrize("content_range", ["2-9/5", "2-1/10", "2-9/9", "3-9/10", "*/10", "2-*/10"])
def test_get_blob_range_contradictory_content_range_raises_protocol_error(content_range: str) -> None:
    with pytest.raises(errors.ProtocolError, match=r"^invalid Content-Range .*: expected bytes from 2 on$"):
        client_of(range_response(content_range, b"23456789")).get_blob_range("a", DIGEST, 2)


def test_get_blob_range_resumed_with_other_size_raises_protocol_error() -> None:
    reader = client_of(range_response("2-9/10", b"234"), range_response("5-9/999", b"XXXXX")).get_blob_range(
        "a", DIGEST, 2
    )
    with pytest.raises(errors.ProtocolError, match="size of the blob changed from 10 to 999 bytes"):
        reader.read()


def test_tags_endless_empty_pages_raise_protocol_error() -> None:
    numbers = itertools.count(1)

    def page(request: Request) -> Response:
        return Response(200, {"Link": f"</v2/a/tags/list?p={next(numbers)}>; rel=next"}, b'{"tags": []}')

    with pytest.raises(errors.ProtocolError, match="at most 100 consecutive pages without tags"):
        list(Client(HOST, FunctionTransport(page)).tags("a", limit=1))


def test_tags_without_pagination_changed_list_yields_each_name_once() -> None:
    pages = [Response(200, (), b'{"tags": ["a", "b"]}'), Response(200, (), b'{"tags": ["0", "b"]}')]
    assert list(client_of(*pages).tags("a", limit=2)) == ["a", "b"]
    names = [f"t{number:04}" for number in range(1000)]
    pages = [Response(200, (), json.dumps({"tags": tags}).encode()) for tags in (names, ["new", *names[1:]])]
    tags = list(client_of(*pages).tags("a", limit=5000))
    assert len(tags) == len(set(tags)) == 1001


def test_push_blob_chunked_huge_min_chunk_length_raises_protocol_error() -> None:
    opened = Response(202, {"Location": "/u/1", "OCI-Chunk-Min-Length": "999999999999999999"})
    with pytest.raises(errors.ProtocolError, match=r"unsupported OCI-Chunk-Min-Length .* at most 1073741824"):
        client_of(opened).push_blob_chunked("a", 1024)


def test_tags_link_of_brackets_ends_list() -> None:
    assert list(client_of(Response(200, {"Link": "<" * 60_000}, b'{"tags": ["a"]}')).tags("a")) == ["a"]


def test_push_manifest_weak_etag_is_not_sent_in_if_match() -> None:
    subject = Descriptor.of(b"subject", "application/vnd.oci.image.manifest.v1+json")
    content = f'{{"schemaVersion": 2, "subject": {{"digest": "{subject.digest}"}}}}'.encode()
    index = Response(
        200, {"ETag": 'W/"x"', "Content-Type": "application/vnd.oci.image.index.v1+json"}, b'{"manifests": []}'
    )
    registry = ScriptedRegistry(Response(201), index, Response(201))
    registry.client.push_manifest("a", content, subject.media_type)
    assert "if-match" not in registry.requests[-1].headers


def test_referrers_unusual_digest_makes_valid_tag() -> None:
    registry = ScriptedRegistry(Response(404), Response(404))
    assert list(registry.client.referrers("a", "sha256+b64u:LCa0a2j_xo=")) == []
    assert registry.requests[-1].url.endswith("/manifests/sha256-b64u-LCa0a2j_xo-")


def test_manifest_methods_unknown_algorithm_fetch_nothing() -> None:
    with pytest.raises(errors.UsageError):
        client_of().get_manifest("a", UNKNOWN_ALGORITHM)
    with pytest.raises(errors.ProtocolError, match="does not state the size"):
        client_of(Response(200)).resolve_manifest("a", UNKNOWN_ALGORITHM)
    with pytest.raises(errors.Unsupported):
        client_of(Response(405)).resolve_manifest("a", UNKNOWN_ALGORITHM)


@pytest.mark.parametrize("status", [429, 503])
def test_delete_manifest_temporarily_unreadable_is_not_deleted(status: int) -> None:
    with pytest.raises(errors.RegistryError) as caught:
        client_of(Response(status)).delete_manifest("a", DIGEST)
    assert caught.value.status == status


def test_get_blob_error_after_redirect_has_no_signed_url_and_no_cookie() -> None:
    def redirect(request: Request) -> Response:
        redirected = request.replace(url="https://cdn.example/blob?sig=SECRET")
        headers = {"Set-Cookie": "s=SECRET", "Location": "https://cdn.example/x?sig=SECRET"}
        return Response(403, headers, b"", redirected)

    with pytest.raises(errors.Denied) as caught:
        Client(HOST, FunctionTransport(redirect)).get_blob("a", DIGEST)
    error = caught.value
    assert error.request is not None
    assert error.headers is not None
    assert "SECRET" not in f"{error} {error.request.url} {list(error.headers.items())}"


def test_writer_and_iterator_of_closed_client_raise_usage_error() -> None:
    client = client_of(Response(202, {"Location": "/u/1"}))
    writer = client.push_blob_chunked("a")
    tags = client.tags("a")
    client.close()
    with pytest.raises(errors.UsageError, match="the client is closed"):
        writer.commit()
    with pytest.raises(errors.UsageError, match="the client is closed"):
        next(tags)


@pytest.mark.parametrize("options", [{"timeout": "x"}, {"deadline": float("nan")}, {"deadline": "x"}, {"extra": 5}])
def test_with_options_invalid_value_raises_usage_error(options: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError):
        client_of().with_options(**options)


def test_client_methods_arguments_at_bounds_are_checked() -> None:
    assert list(client_of(Response(200, (), b'{"tags": ["a"]}')).tags("a", limit=2**63)) == ["a"]
    with pytest.raises(errors.UsageError):
        client_of().tags("a", start_after="\ud800")
    with pytest.raises(errors.UsageError):
        client_of().push_manifest("a", b"{}", "a/b", tags=None)  # type: ignore[arg-type]
    empty = client_of().get_blob_range("a", DIGEST, 3, 3)
    assert empty.read() == b""
    assert not empty.verified
