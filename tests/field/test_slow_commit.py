"""The PUT that closes an upload fails, although the registry commits the blob, or the upload is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import ociwire.transport.retry
from ociwire import Client, Descriptor, Request, Response, Transport, default_transport
from ociwire.auth import Anonymous
from ociwire.errors import BlobUploadUnknown, ReadError, RegistryError, TransportTimeout
from ociwire.testing import MemoryRegistry
from ociwire.transfer import copy, upload
from tests.field.rows import Row

TITLE = "The PUT that closes an upload"

HOST = "registry.example"
NAME = "team/app"
CONTENT = bytes(range(250)) * 12
STREAMED = bytes(5 * 1024 * 1024) + b"end"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, kw_only=True)
class Slow(Row):
    """What the registry does with the first PUT.

    Attributes:
        fault: What the client gets instead of a 201: a response, or an exception.
        keeps: How many bytes of the PUT's body arrive; None is all of them.
        polls: After how many HEADs the blob is there; None is never.
        loses: The upload is gone.
        has_status: Uploads have a GET.
        has_head: Blobs have a HEAD.
        puts: How many PUTs are right.
    """

    fault: Response | Exception
    keeps: int | None = None
    polls: int | None = None
    loses: bool = False
    has_status: bool = True
    has_head: bool = True
    puts: int = 1

    __str__ = Row.__str__


TIMEOUT = TransportTimeout("timed out before a response")
RESET = ReadError("connection reset by peer")
JIB = "[jib#4301](https://github.com/GoogleContainerTools/jib/issues/4301)"


def page(status: int) -> Response:
    return Response(status, {"Content-Type": "text/html"}, b"<html><h1>An error occurred</h1></html>")


ROWS = (
    Slow(
        name="blob_is_there_after_timeout",
        registry="GHCR",
        behaviour="Commits a large blob after the client's read timeout, and answers a repeated PUT with 404.",
        result="Polls the blob instead of repeating the PUT.",
        source=JIB,
        fault=TIMEOUT,
        polls=1,
    ),
    Slow(
        name="upload_is_lost_after_timeout",
        registry="GHCR",
        behaviour="Has neither the blob nor the upload after a timeout (404 with BLOB_UNKNOWN).",
        result="Uploads the content again, if it can be read again.",
        source=JIB,
        fault=TIMEOUT,
        loses=True,
        puts=2,
    ),
    Slow(
        name="registry_without_head_commits_after_reset",
        registry="Servers without a handler for HEAD",
        behaviour="The connection is closed without a response, the blob is committed, and HEAD is answered 405.",
        result="Asks for the first byte of the blob with GET before it takes the upload for lost.",
        source="[kbld#457](https://github.com/carvel-dev/kbld/pull/457)",
        fault=RESET,
        polls=4,
        has_head=False,
    ),
    Slow(
        name="commit_takes_minutes",
        registry="Registries with slow storage",
        behaviour="Need minutes to commit a large blob, longer than containerd waits for the response.",
        result="Polls with backoff, for at most ten minutes.",
        source="[moby#53700](https://github.com/moby/moby/issues/53700)",
        fault=TIMEOUT,
        polls=20,
    ),
    Slow(
        name="proxy_answers_504",
        registry="Harbor behind nginx",
        behaviour="nginx answers 504 while the registry still commits the blob.",
        result="Polls, as after a timeout.",
        source="[harbor#9394](https://github.com/goharbor/harbor/issues/9394)",
        fault=page(504),
        polls=9,
    ),
    Slow(
        name="proxy_answers_524",
        registry="Harbor behind Cloudflare",
        behaviour="Cloudflare answers 524 after 100 seconds while the registry still commits the blob.",
        result="Polls, as after a timeout.",
        source="[harbor#17546](https://github.com/goharbor/harbor/issues/17546)",
        fault=page(524),
        polls=9,
    ),
    Slow(
        name="proxy_answers_502",
        registry="Docker registry behind Apache",
        behaviour="The proxy answers 502 because its own connection to the registry broke; the registry commits.",
        result="Polls for a minute before it repeats the PUT.",
        source="[docker-registry#320](https://github.com/docker-archive/docker-registry/issues/320)",
        fault=page(502),
        polls=5,
    ),
    Slow(
        name="connection_is_closed_while_committing",
        registry="GHCR",
        behaviour="The connection is closed without a response while the registry commits the blob.",
        result="Polls for a minute before it repeats the PUT.",
        source="[build-push-action#251](https://github.com/docker/build-push-action/issues/251)",
        fault=RESET,
        polls=5,
    ),
    Slow(
        name="put_never_arrived",
        registry="Registries behind load balancers",
        behaviour="The connection is closed before the PUT arrives: the upload lacks the bytes of the PUT.",
        result="Sends the missing bytes at once, or repeats the PUT after a minute of polling.",
        source="[regclient#69](https://github.com/regclient/regclient/issues/69)",
        fault=RESET,
        keeps=0,
        puts=2,
    ),
    Slow(
        name="part_of_the_put_arrived",
        registry="ECR",
        behaviour="Keeps what arrived of a PUT that broke, and refuses to get the first byte again.",
        result="Asks for the number of stored bytes and sends the rest.",
        source="[containerization#790](https://github.com/apple/containerization/issues/790)",
        fault=RESET,
        keeps=123,
        puts=2,
    ),
    Slow(
        name="answers_408_to_a_large_layer",
        registry="Docker registry 2",
        behaviour="Answers 408 when a large body arrives too slowly, and keeps a part of it.",
        result="Sends the rest.",
        source="[distribution#755](https://github.com/distribution/distribution/issues/755)",
        fault=Response(408),
        keeps=7,
        puts=2,
    ),
    Slow(
        name="answers_500_when_storage_fails",
        registry="Docker registry on S3",
        behaviour="Answers 500 because the storage failed; the upload has all bytes.",
        result="Repeats the PUT, without the bytes that are stored.",
        source="[distribution#2634](https://github.com/distribution/distribution/issues/2634)",
        fault=Response(500, {}, b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}'),
        puts=2,
    ),
    Slow(
        name="uploads_have_no_status",
        registry="Pulp",
        behaviour="Has no GET of uploads (405).",
        result="Polls the blob alone.",
        source="[pulp_container#2201](https://github.com/pulp/pulp_container/pull/2201)",
        fault=TIMEOUT,
        polls=6,
        has_status=False,
    ),
)


class SlowRegistry:
    """A registry in memory that does with the first closing PUT what a row says."""

    def __init__(self, row: Slow) -> None:
        self.memory = MemoryRegistry()
        self._row = row
        self._url = ""
        self._waits = -1
        self.puts = 0
        self.polls = 0

    def round_trip(self, request: Request, /) -> Response:
        if request.method == "PUT" and "digest=" in request.url:
            self.puts += 1
            assert self._waits < 0, "the registry is at work: a PUT disturbs it"
            if self.puts == 1:
                return self._fail(request)
        if request.method == "HEAD" and self._waits >= 0:
            self.polls += 1
            self._waits -= 1
            if self._waits < 0:
                self.memory.round_trip(Request("PUT", self._url)).drain()
        if request.method == "HEAD" and not self._row.has_head:
            return Response(405)
        if request.method == "GET" and "/blobs/uploads/" in request.url and not self._row.has_status:
            return Response(405)
        return self.memory.round_trip(request)

    def close(self) -> None:
        pass

    def _fail(self, request: Request) -> Response:
        content = b"" if request.body is None else b"".join(request.body.open())[: self._row.keeps]
        if content:
            self.memory.round_trip(Request("PATCH", request.url.partition("?")[0], body=content)).drain()
        if self._row.loses:
            self.memory.round_trip(Request("DELETE", request.url.partition("?")[0])).drain()
        if self._row.polls is not None:
            self._url, self._waits = request.url, self._row.polls - 1
            if self._waits == 0:
                self._waits, self.polls = -1, 1
                self.memory.round_trip(Request("PUT", self._url)).drain()
        if isinstance(self._row.fault, Exception):
            raise self._row.fault
        return self._row.fault.replace()


def push_chunked(client: Client, content: bytes) -> None:
    with client.push_blob_chunked(NAME, 1000) as writer:
        writer.write(content)
        writer.commit()


def copy_image(client: Client, content: bytes) -> None:
    source = Client(HOST, MemoryRegistry())
    source.push_blob(NAME, Descriptor.of(content), content)
    config = Descriptor.of(content, "a/b").to_dict()
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []})
    source.push_manifest(NAME, manifest.encode(), MANIFEST, tags=["v1"])
    copy(source, f"{NAME}:v1", client, f"{NAME}:v1", workers=1)


WAYS: dict[str, tuple[bytes, Callable[[Client, bytes], object]]] = {
    "push_blob": (CONTENT, lambda client, content: client.push_blob(NAME, Descriptor.of(content), content)),
    "push_blob_chunked": (CONTENT, push_chunked),
    "upload": (CONTENT, lambda client, content: upload(client, NAME, content)),
    "upload of a stream": (STREAMED, lambda client, content: upload(client, NAME, content)),
    "upload of one-shot content": (STREAMED, lambda client, content: upload(client, NAME, iter([content]))),
    "copy": (CONTENT, copy_image),
}
CANNOT_START_AGAIN = ("push_blob_chunked", "upload of one-shot content")


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Record the pauses of a test without waiting."""
    sleeps: list[float] = []
    fake = SimpleNamespace(sleep=sleeps.append, time=lambda: 1e9, monotonic=lambda: 1e6 + sum(sleeps))
    monkeypatch.setattr(ociwire.transport.retry, "time", fake)
    yield sleeps
    assert sum(sleeps) <= 600


def stacked(base: Transport) -> Client:
    return Client(HOST, default_transport(base=base, credentials=Anonymous()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_push_closing_put_fails_stores_right_blob(row: Slow, way: str) -> None:
    content, run = WAYS[way]
    registry = SlowRegistry(row)
    if row.loses and way in CANNOT_START_AGAIN:
        with pytest.raises(BlobUploadUnknown) as caught:
            run(stacked(registry), content)
        assert isinstance(caught.value.__cause__, TransportTimeout)
        return
    run(stacked(registry), content)
    assert Client(HOST, registry.memory).get_blob(NAME, Descriptor.of(content).digest).read() == content
    assert registry.puts == row.puts
    assert registry.polls == (row.polls or 0)
    assert registry.memory.open_uploads == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", [TIMEOUT, page(504), page(524)], ids=["timeout", "504", "524"])
def test_push_closing_put_never_commits_times_out_after_ten_minutes(
    fault: Response | Exception, way: str, sleeps: list[float]
) -> None:
    content, run = WAYS[way]
    row = Slow(name="", registry="", behaviour="", result="", source="", fault=fault, polls=1000)
    registry = SlowRegistry(row)
    with pytest.raises(TransportTimeout, match=r"did not commit .* within 600 s .*push the blob again") as caught:
        run(stacked(registry), content)
    assert isinstance(caught.value.__cause__, TransportTimeout if isinstance(fault, Exception) else RegistryError)
    assert registry.puts == 1
    assert sum(sleeps) == 600
    assert sleeps[:6] == [1, 2, 4, 8, 16, 30]
