"""The PUT that closes an upload fails, and the registry commits the blob, stores a part of it, or loses the upload."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import ociwire._client.upload_completion
import ociwire.transport.retry
from ociwire import Client, Descriptor, Request, Response, Transport, default_transport
from ociwire.auth import Anonymous
from ociwire.errors import BlobUploadUnknown, ReadError, RegistryError, TransportTimeout
from ociwire.testing import MemoryRegistry
from ociwire.transfer import copy, upload
from tests._support.doubles import FakeClock, content_of
from tests.field.rows import Row

TITLE = "The PUT that closes an upload"

HOST = "registry.example"
NAME = "team/app"
CONTENT = bytes(range(250)) * 12
STREAMED = bytes(5 * 1024 * 1024) + b"end"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, kw_only=True)
class SlowCommit(Row):
    """Behaviour of a registry when it receives the first closing PUT.

    Attributes:
        fault: The response or the exception that the client gets instead of a 201.
        stored: Number of bytes of the body of the PUT that arrive. None means all.
        polls: Number of HEAD requests after which the blob exists. None means that it never exists.
        deletes_upload: Whether the upload is deleted. Defaults to false.
        supports_status: Whether the registry supports GET of uploads. Defaults to true.
        supports_head: Whether the registry supports HEAD of blobs. Defaults to true.
        puts: The expected number of PUTs. Defaults to 1.
    """

    fault: Response | Exception
    stored: int | None = None
    polls: int | None = None
    deletes_upload: bool = False
    supports_status: bool = True
    supports_head: bool = True
    puts: int = 1


TIMEOUT = TransportTimeout("timed out before a response")
RESET = ReadError("connection reset by peer")
JIB = "[jib#4301](https://github.com/GoogleContainerTools/jib/issues/4301)"


def html_page(status: int) -> Response:
    return Response(status, {"Content-Type": "text/html"}, b"<html><h1>An error occurred</h1></html>")


ROWS = (
    SlowCommit(
        name="blob_is_there_after_timeout",
        registry="GHCR",
        behaviour="Commits a large blob after the client's read timeout, and answers a repeated PUT with 404.",
        result="Polls the blob instead of repeating the PUT.",
        source=JIB,
        fault=TIMEOUT,
        polls=1,
    ),
    SlowCommit(
        name="upload_is_lost_after_timeout",
        registry="GHCR",
        behaviour="Has neither the blob nor the upload after a timeout (404 with BLOB_UNKNOWN).",
        result="Uploads the content again unless it is single-use.",
        source=JIB,
        fault=TIMEOUT,
        deletes_upload=True,
        puts=2,
    ),
    SlowCommit(
        name="registry_without_head_commits_after_reset",
        registry="Servers without a handler for HEAD",
        behaviour="The connection is closed without a response, the blob is committed, and HEAD is answered with 405.",
        result="Requests the first byte of the blob with GET before it treats the upload as lost.",
        source="[kbld#457](https://github.com/carvel-dev/kbld/pull/457)",
        fault=RESET,
        polls=4,
        supports_head=False,
    ),
    SlowCommit(
        name="commit_takes_minutes",
        registry="Registries with slow storage",
        behaviour="Need minutes to commit a large blob, longer than containerd waits for the response.",
        result="Polls with backoff, for at most ten minutes.",
        source="[moby#53700](https://github.com/moby/moby/issues/53700)",
        fault=TIMEOUT,
        polls=20,
    ),
    SlowCommit(
        name="proxy_answers_504",
        registry="Harbor behind nginx",
        behaviour="nginx answers with 504 while the registry still commits the blob.",
        result="Polls, as after a timeout.",
        source="[harbor#9394](https://github.com/goharbor/harbor/issues/9394)",
        fault=html_page(504),
        polls=9,
    ),
    SlowCommit(
        name="proxy_answers_524",
        registry="Harbor behind Cloudflare",
        behaviour="Cloudflare answers with 524 after 100 seconds while the registry still commits the blob.",
        result="Polls, as after a timeout.",
        source="[harbor#17546](https://github.com/goharbor/harbor/issues/17546)",
        fault=html_page(524),
        polls=9,
    ),
    SlowCommit(
        name="proxy_answers_502",
        registry="Docker registry behind Apache",
        behaviour="The proxy answers with 502 because it loses its connection to the registry, which commits the blob.",
        result="Polls for a minute before it repeats the PUT.",
        source="[docker-registry#320](https://github.com/docker-archive/docker-registry/issues/320)",
        fault=html_page(502),
        polls=5,
    ),
    SlowCommit(
        name="connection_is_closed_while_committing",
        registry="GHCR",
        behaviour="The connection is closed without a response while the registry commits the blob.",
        result="Polls for a minute before it repeats the PUT.",
        source="[build-push-action#251](https://github.com/docker/build-push-action/issues/251)",
        fault=RESET,
        polls=5,
    ),
    SlowCommit(
        name="put_never_arrived",
        registry="Registries behind load balancers",
        behaviour="The connection is closed before the PUT arrives: the upload lacks the bytes of the PUT.",
        result="Sends the missing bytes immediately, or repeats the PUT after a minute of polling.",
        source="[regclient#69](https://github.com/regclient/regclient/issues/69)",
        fault=RESET,
        stored=0,
        puts=2,
    ),
    SlowCommit(
        name="part_of_the_put_arrived",
        registry="ECR",
        behaviour="Stores the received part of an interrupted PUT, and refuses bytes that it already has.",
        result="Requests the offset of the upload and sends the remaining bytes.",
        source="[containerization#790](https://github.com/apple/containerization/issues/790)",
        fault=RESET,
        stored=123,
        puts=2,
    ),
    SlowCommit(
        name="answers_408_to_a_large_layer",
        registry="Docker registry 2",
        behaviour="Responds with 408 when a large body arrives too slowly, and stores a part of it.",
        result="Sends the remaining bytes.",
        source="[distribution#755](https://github.com/distribution/distribution/issues/755)",
        fault=Response(408),
        stored=7,
        puts=2,
    ),
    SlowCommit(
        name="answers_500_when_storage_fails",
        registry="Docker registry on S3",
        behaviour="Responds with 500 because the storage failed; the upload has all bytes.",
        result="Repeats the PUT, without the bytes that are stored.",
        source="[distribution#2634](https://github.com/distribution/distribution/issues/2634)",
        fault=Response(500, {}, b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}'),
        puts=2,
    ),
    SlowCommit(
        name="uploads_have_no_status",
        registry="Pulp",
        behaviour="Does not support GET of uploads (405).",
        result="Polls only the blob.",
        source="[pulp_container#2201](https://github.com/pulp/pulp_container/pull/2201)",
        fault=TIMEOUT,
        polls=6,
        supports_status=False,
    ),
)


class SlowRegistry:
    """Registry in memory whose first closing PUT fails as defined by a row."""

    def __init__(self, row: SlowCommit) -> None:
        self.memory = MemoryRegistry()
        self._row = row
        self._url = ""
        self._polls_left = -1
        self.puts = 0
        self.polls = 0

    def round_trip(self, request: Request, /) -> Response:
        if request.method == "PUT" and "digest=" in request.url:
            self.puts += 1
            assert self._polls_left < 0, "no PUT may be sent while the registry commits the blob"
            if self.puts == 1:
                return self._fail(request)
        if request.method == "HEAD" and self._polls_left >= 0:
            self.polls += 1
            self._polls_left -= 1
            if self._polls_left < 0:
                self.memory.round_trip(Request("PUT", self._url)).drain()
        if request.method == "HEAD" and not self._row.supports_head:
            return Response(405)
        if request.method == "GET" and "/blobs/uploads/" in request.url and not self._row.supports_status:
            return Response(405)
        return self.memory.round_trip(request)

    def close(self) -> None:
        pass

    def _fail(self, request: Request) -> Response:
        content = content_of(request.body)[: self._row.stored]
        if content:
            self.memory.round_trip(Request("PATCH", request.url.partition("?")[0], body=content)).drain()
        if self._row.deletes_upload:
            self.memory.round_trip(Request("DELETE", request.url.partition("?")[0])).drain()
        if self._row.polls is not None:
            self._url, self._polls_left = request.url, self._row.polls - 1
            if self._polls_left == 0:
                self._polls_left, self.polls = -1, 1
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


PUSHES: dict[str, tuple[bytes, Callable[[Client, bytes], object]]] = {
    "push_blob": (CONTENT, lambda client, content: client.push_blob(NAME, Descriptor.of(content), content)),
    "push_blob_chunked": (CONTENT, push_chunked),
    "upload": (CONTENT, lambda client, content: upload(client, NAME, content)),
    "upload of a stream": (STREAMED, lambda client, content: upload(client, NAME, content)),
    "upload of single-use content": (STREAMED, lambda client, content: upload(client, NAME, iter([content]))),
    "copy": (CONTENT, copy_image),
}
WITHOUT_RESTART = ("push_blob_chunked", "upload of single-use content")


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Replace the pauses between polls and return their durations. The total must be at most ten minutes."""
    # Patched, because neither default_transport() nor the client has a parameter for a clock.
    clock = FakeClock()
    fake_time = SimpleNamespace(sleep=clock.sleep, time=clock, monotonic=clock)
    monkeypatch.setattr(ociwire.transport.retry, "time", fake_time)
    # Deadlines of the client are values of the real clock.
    polling_time = SimpleNamespace(sleep=clock.sleep, monotonic=time.monotonic)
    monkeypatch.setattr(ociwire._client.upload_completion, "time", polling_time)
    yield clock.sleeps
    assert sum(clock.sleeps) <= 600


def client_with_default_stack(base: Transport) -> Client:
    return Client(HOST, default_transport(base=base, credentials=Anonymous()))


@pytest.mark.parametrize("name", PUSHES)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_push_closing_put_fails_stores_blob(row: SlowCommit, name: str) -> None:
    content, push_content = PUSHES[name]
    registry = SlowRegistry(row)
    if row.deletes_upload and name in WITHOUT_RESTART:
        with pytest.raises(BlobUploadUnknown) as caught:
            push_content(client_with_default_stack(registry), content)
        assert isinstance(caught.value.__cause__, TransportTimeout)
        return
    push_content(client_with_default_stack(registry), content)
    assert Client(HOST, registry.memory).get_blob(NAME, Descriptor.of(content).digest).read() == content
    assert registry.puts == row.puts
    assert registry.polls == (row.polls or 0)
    assert registry.memory.open_uploads == 0


@pytest.mark.parametrize("name", PUSHES)
@pytest.mark.parametrize("fault", [TIMEOUT, html_page(504), html_page(524)], ids=["timeout", "504", "524"])
def test_push_closing_put_never_commits_times_out_after_ten_minutes(
    fault: Response | Exception, name: str, sleeps: list[float]
) -> None:
    content, push_content = PUSHES[name]
    row = SlowCommit(name="", registry="", behaviour="", result="", source="", fault=fault, polls=1000)
    registry = SlowRegistry(row)
    with pytest.raises(TransportTimeout, match=r"did not commit .* within 600 s .*push the blob again") as caught:
        push_content(client_with_default_stack(registry), content)
    assert isinstance(caught.value.__cause__, TransportTimeout if isinstance(fault, Exception) else RegistryError)
    assert registry.puts == 1
    assert sum(sleeps) == 600
    assert sleeps[:6] == [1, 2, 4, 8, 16, 30]
