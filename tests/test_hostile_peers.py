"""Attacks by a registry or a peer that no other module tests. SECURITY.md names the test module of each attack."""

from __future__ import annotations

import json
import logging
import ssl
import sys

import pytest

from ociwire import Client, Descriptor, FunctionTransport, Request, Response, UrllibTransport, default_transport
from ociwire.auth import Anonymous
from ociwire.errors import DigestMismatch, OciwireError, UsageError
from ociwire.testing import MemoryRegistry, ScriptedTransport
from ociwire.transfer import copy

HOST = "registry.example"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def test_copy_descriptor_with_urls_requests_none_of_them() -> None:
    registry, asked = MemoryRegistry(), list[Request]()

    def answer(request: Request) -> Response:
        asked.append(request)
        return registry.round_trip(request)

    source, target = Client(HOST, FunctionTransport(answer)), Client("other.example", FunctionTransport(answer))
    there = source.push_blob("app", Descriptor.of(b"there", LAYER), b"there")
    layers = [
        there.replace(urls=("https://169.254.169.254/there", "file:///etc/passwd")),
        Descriptor.of(b"gone", LAYER).replace(urls=("https://internal.example/gone",)),
    ]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer.to_dict() for layer in layers]}
    source.push_manifest("app", json.dumps(manifest).encode(), MANIFEST, tags=["v1"])
    copied = copy(source, "app:v1", target, "copied:v1")
    source.get_manifest("app", copied.digest).read()
    assert {request.url.split("/")[2] for request in asked} == {HOST, "other.example"}


def test_copy_index_that_names_itself_raises_digest_mismatch() -> None:
    digest = f"sha256:{'0' * 64}"
    itself = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": INDEX, "digest": digest, "size": 1}]}
    content = json.dumps(itself).encode()
    asked = list[Request]()

    def answer(request: Request) -> Response:
        asked.append(request)
        assert len(asked) < 10, "it goes on for ever"
        return Response(200, {"Content-Type": INDEX, "Docker-Content-Digest": digest}, content)

    def answer_by_tag(request: Request) -> Response:
        response = answer(request)
        return response.replace(headers={"Content-Type": INDEX}) if request.url.endswith("/v1") else response

    for lying in (answer, answer_by_tag):
        asked.clear()
        with pytest.raises(DigestMismatch):
            copy(Client(HOST, FunctionTransport(lying)), "app:v1", Client("other.example", MemoryRegistry()), "app:v1")


@pytest.mark.parametrize("media_type", ["a/b\r\nX-Evil: 1", "a/b\nX-Evil: 1", "a/b\0", 5, ["a/b"]])
def test_push_manifest_media_type_of_index_with_newline_adds_no_header(media_type: object) -> None:
    subject = Descriptor.of(b"subject", MANIFEST)
    index = Response(200, {"Content-Type": INDEX}, json.dumps({"mediaType": media_type, "manifests": []}).encode())
    transport = ScriptedTransport([Response(201), index])
    content = json.dumps({"schemaVersion": 2, "subject": subject.to_dict()}).encode()
    with pytest.raises(OciwireError):
        Client(HOST, transport).push_manifest("app", content, MANIFEST)
    assert [request.method for request in transport.requests] == ["PUT", "GET"]


def test_default_transport_set_cookie_is_not_sent_back() -> None:
    script = ScriptedTransport([Response(200, {"Set-Cookie": "who=you; Path=/"}), Response(200)])
    transport = default_transport(base=script, credentials=Anonymous())
    for _ in range(2):
        transport.round_trip(Request("GET", f"https://{HOST}/v2/")).close()
    assert "cookie" not in script.requests[1].headers


def test_drain_slow_body_is_bounded_to_one_second() -> None:
    class Dripping:
        seconds: float | None = None

        def shorten_timeout(self, seconds: float) -> None:
            self.seconds = seconds

        def readinto(self, buffer: memoryview, /) -> int:
            assert self.seconds is not None, "it is read without a bound in time"
            return 0

        def close(self) -> None:
            pass

    body = Dripping()
    Response(503, (), body).drain()
    assert body.seconds == 1.0


def test_client_many_different_warnings_logs_bounded_number(caplog: pytest.LogCaptureFixture) -> None:
    limit = sys.modules["ociwire._client.request_sender"]._MAX_WARNINGS
    texts = (f'299 - "number {number}"' for number in range(limit + 500))
    client = Client(HOST, FunctionTransport(lambda request: Response(200, {"Warning": next(texts)})))
    with caplog.at_level(logging.WARNING, "ociwire.warnings"):
        for _ in range(limit + 500):
            client.do(Request("GET", "/v2/")).close()
    assert len(caplog.records) == limit


@pytest.mark.parametrize("host", ["..", ".", "../..", "..:443", "%2e%2e", "a/../..", "~", ".git"])
def test_tls_host_with_dots_never_reaches_certificate_lookup(host: str) -> None:
    asked = list[str]()

    def context_for(name: str) -> ssl.SSLContext | None:
        asked.append(name)
        return None

    transport = UrllibTransport(tls=context_for, trust_env=False)
    with pytest.raises(UsageError):
        Client(host, transport)
    if "/" not in host:  # after a slash it would be a path
        with pytest.raises(UsageError):
            transport.round_trip(Request("GET", f"https://{host}/v2/"))
    transport.close()
    assert asked == []
