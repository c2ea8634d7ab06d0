"""`ociwire.aio`: the client and the transfers as coroutines, the limit of threads, and cancelling."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from ociwire import (
    Client,
    Descriptor,
    FunctionTransport,
    Request,
    Response,
    RetryTransport,
    UrllibTransport,
    aio,
    stack,
    transfer,
)
from ociwire._http.cancellation import OperationCancelled, current_cancellation
from ociwire.aio import AsyncClient
from ociwire.errors import BlobUnknown, UsageError
from ociwire.media_types import OCI_MANIFEST
from ociwire.testing import AuthGuard, MemoryRegistry, serve

HOST, NAME, CONTENT = "registry.example", "team/app", b"content"
BLOB = Descriptor.of(CONTENT)
MANIFEST = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}'
PATIENCE = 30.0
T = TypeVar("T")


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine, which may not take longer than 30 seconds, and wait for the threads of its clients."""
    result = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    for thread in threading.enumerate():
        if thread.name.startswith("ociwire-aio"):
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread of a closed client does not end"
    return result


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    Client(HOST, registry).push_blob(NAME, BLOB, CONTENT)
    return registry


class Gate:
    """A transport whose requests wait until `open` is called.

    Attributes:
        waiting: Incremented when a request begins to wait.
        most: The largest number of requests that have waited at the same time.
    """

    def __init__(self, response: Callable[[Request], Response]) -> None:
        self._response = response
        self.opened = threading.Event()
        self._lock = threading.Lock()
        self._now = self.most = 0
        self.waiting = threading.Semaphore(0)

    def round_trip(self, request: Request, /) -> Response:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.waiting.release()
        assert self.opened.wait(PATIENCE)
        with self._lock:
            self._now -= 1
        return self._response(request)

    def open(self) -> None:
        self.opened.set()

    def close(self) -> None:
        pass

    async def wait(self, count: int = 1) -> None:
        """Wait until so many requests have arrived."""
        with ThreadPoolExecutor(1) as threads:
            for _ in range(count):
                assert await asyncio.get_running_loop().run_in_executor(threads, self.waiting.acquire, True, PATIENCE)


def blob_head(_request: Request) -> Response:
    return Response(200, {"Content-Length": str(BLOB.size), "Docker-Content-Digest": BLOB.digest})


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# The same as the client


def parameters(function: Callable[..., object]) -> list[tuple[Any, ...]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", [name for name in vars(Client) if not name.startswith("_") and name != "close"])
def test_async_client_method_has_the_parameters_of_the_client(name: str) -> None:
    assert parameters(getattr(AsyncClient, name)) == parameters(getattr(Client, name))


def test_async_client_constructor_has_the_parameters_of_the_client() -> None:
    own = [parameter for parameter in parameters(AsyncClient) if parameter[0] != "max_concurrency"]
    assert own == parameters(Client)


@pytest.mark.parametrize("name", ["copy", "download", "upload"])
def test_aio_transfer_has_the_parameters_of_the_transfer(name: str) -> None:
    assert parameters(getattr(aio, name)) == parameters(getattr(transfer, name))


def test_async_client_is_constructed_as_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    guard = AuthGuard(MemoryRegistry(), users={"me": "secret"})
    monkeypatch.setattr("ociwire.transport.default.UrllibTransport", lambda **options: (made.append(options), guard)[1])

    async def main() -> None:
        pair = ("me", "secret")
        async with AsyncClient(
            HOST, credentials=pair, timeout=5, retry=1, trust_env=False, max_concurrency=7
        ) as client:
            assert await client.push_blob(NAME, CONTENT) == BLOB
        async with AsyncClient.from_reference(f"{HOST}/{NAME}:v1", guard, max_concurrency=1) as client:
            assert client.host == HOST
        for arguments, options in (
            ((HOST, MemoryRegistry), {}),
            ((HOST, "me"), {}),
            ((HOST, guard), {"credentials": pair}),
            ((HOST,), {"auth": pair}),
        ):
            with pytest.raises(UsageError):
                AsyncClient(*arguments, **options)

    run(main)
    assert made == [{"trust_env": False, "pool_size": 7}]


def test_aio_transfers_take_full_references(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry = MemoryRegistry()
    closed: list[bool] = []
    shared = FunctionTransport(registry.round_trip)
    monkeypatch.setattr(
        "ociwire.transport.default.UrllibTransport",
        lambda **options: FunctionTransport(shared.round_trip, close=lambda: closed.append(True)),
    )
    image = registry.seed(f"{NAME}:v1").root

    async def main() -> None:
        assert await aio.upload(f"{HOST}/{NAME}", CONTENT) == BLOB
        assert await aio.download(f"{HOST}/{NAME}@{BLOB.digest}", tmp_path / "one") == BLOB
        assert await aio.copy(f"{HOST}/{NAME}:v1", f"{HOST}/other:v1") == image
        assert len(closed) == 3
        async with AsyncClient(HOST, registry) as client:
            assert await aio.download(client, f"{NAME}@{BLOB.digest}", tmp_path / "two") == BLOB
            assert await aio.upload(NAME, CONTENT, client=client, digest=BLOB) == BLOB
            assert await aio.copy(client, f"{NAME}:v1", "third:v1", platforms="linux/amd64") == image
            assert await aio.copy(f"{NAME}:v1", f"{HOST}/fourth:v1", source=client) == image
        assert len(closed) == 3
        with Client(HOST, registry) as sync, pytest.raises(UsageError, match="expected an AsyncClient"):
            await aio.download(f"{NAME}@{BLOB.digest}", tmp_path / "two", client=sync)  # type: ignore[call-overload]
        with pytest.raises(UsageError, match="without a Client: expected one with a host"):
            await aio.copy(NAME, "other")

    run(main)
    assert (tmp_path / "two").read_bytes() == CONTENT


def test_async_client_every_operation_works() -> None:
    async def main() -> None:
        async with AsyncClient(HOST, MemoryRegistry()) as client:
            assert client.host == HOST
            assert await client.push_blob(NAME, BLOB, CONTENT) == BLOB
            assert await client.resolve_blob(NAME, BLOB.digest) == BLOB
            assert await client.mount_blob(NAME, "other", BLOB.digest) == BLOB
            async with await client.get_blob(NAME, BLOB.digest) as reader:
                assert reader.descriptor.digest == BLOB.digest
                assert [chunk async for chunk in reader] == [CONTENT]
                assert reader.verified
            async with await client.get_blob_range(NAME, BLOB.digest, 1, 4) as reader:
                assert [chunk async for chunk in reader.iter_bytes(2)] == [b"on", b"t"]
            async with await client.push_blob_chunked(NAME) as writer:
                await writer.write(b"one ")
            async with await client.push_blob_chunked_resume(NAME, writer.id) as writer:
                assert writer.flushed == 4
                assert await writer.write(b"two") == 3
                assert writer.size == 7
                two = await writer.commit(Descriptor.of(b"one two").digest)
            await (await client.get_blob(NAME, two.digest)).verify()
            writer = await client.push_blob_chunked(NAME)
            await writer.cancel()
            manifest = await client.push_manifest(NAME, MANIFEST, OCI_MANIFEST, tags=["v1", "v2"])
            assert await client.resolve_manifest(NAME, manifest.digest) == manifest
            assert await client.resolve_tag(NAME, "v1") == manifest
            assert await (await client.get_manifest(NAME, manifest.digest)).read() == MANIFEST
            assert await (await client.get_tag(NAME, "v2")).read() == MANIFEST
            assert [tag async for tag in client.tags(NAME)] == ["v1", "v2"]
            assert [name async for name in client.repositories(limit=1)] == ["other"]
            assert [descriptor async for descriptor in client.referrers(NAME, manifest.digest)] == []
            async with await client.do(Request("GET", f"/v2/{NAME}/tags/list")) as response:
                assert (response.status, response.headers["content-type"]) == (200, "application/json")
                assert await response.json() == {"name": NAME, "tags": ["v1", "v2"]}
            await client.delete_tag(NAME, "v2")
            await client.delete_manifest(NAME, manifest.digest)
            await client.delete_blob(NAME, BLOB.digest)
            with pytest.raises(BlobUnknown):
                await client.resolve_blob(NAME, BLOB.digest)
            later = client.with_options(timeout=3.0)
            assert await later.resolve_blob(NAME, two.digest)
        with pytest.raises(UsageError, match="closed"):
            await later.resolve_blob(NAME, two.digest)

    run(main)


def test_aio_transfers_work(tmp_path: Path, registry: MemoryRegistry) -> None:
    async def main() -> None:
        async with AsyncClient(HOST, registry) as source, AsyncClient("other.example", MemoryRegistry()) as target:
            assert (await aio.download(source, NAME, BLOB.digest, tmp_path / "blob")).size == BLOB.size
            uploaded = await aio.upload(source, NAME, tmp_path / "blob")
            assert uploaded.digest == BLOB.digest
            pushed = await source.push_manifest(NAME, MANIFEST, OCI_MANIFEST, tags=["v1"])
            assert await aio.copy(source, f"{NAME}:v1", target, "copied:v1") == pushed
            with pytest.raises(UsageError, match="expected an AsyncClient"):
                await aio.copy(source, f"{NAME}:v1", Client(HOST, registry), "copied:v1")  # type: ignore[arg-type]

    run(main)


@pytest.mark.parametrize("send", ["push_blob", "upload"])
def test_async_content_is_read_in_the_event_loop(registry: MemoryRegistry, send: str) -> None:
    loops = []

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"one ", b"two"):
            loops.append(asyncio.get_running_loop())
            yield chunk

    async def main() -> None:
        expected = Descriptor.of(b"one two")
        async with AsyncClient(HOST, registry) as client:
            if send == "push_blob":
                await client.push_blob(NAME, expected, chunks())
            else:
                assert (await aio.upload(client, NAME, chunks())).digest == expected.digest
            assert await (await client.get_blob(NAME, expected.digest)).read() == b"one two"
        assert loops == [asyncio.get_running_loop()] * 2

    run(main)


def test_async_content_raises_is_raised_unchanged(registry: MemoryRegistry) -> None:
    error = LookupError("mine")

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        raise error

    async def main() -> None:
        async with AsyncClient(HOST, registry) as client:
            with pytest.raises(LookupError) as caught:
                await client.push_blob(NAME, Descriptor.of(b"one two"), chunks())
            assert caught.value is error

    run(main)


def test_async_client_layers_see_the_callers_context(registry: MemoryRegistry) -> None:
    tenant = contextvars.ContextVar("tenant", default="none")
    seen = []

    def record(request: Request) -> Response:
        seen.append(tenant.get())
        return registry.round_trip(request)

    async def main() -> None:
        async with AsyncClient(HOST, FunctionTransport(record)) as client:
            tenant.set("blue")
            await client.resolve_blob(NAME, BLOB.digest)

    run(main)
    assert seen == ["blue"]


def test_async_client_closes_only_the_transport_that_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    monkeypatch.setattr(UrllibTransport, "close", lambda self: closed.append(self))

    async def main() -> None:
        with ExitStack() as resources:
            given = UrllibTransport()
            resources.callback(given.close)
            async with AsyncClient(HOST, given):
                pass
            assert closed == []
        closed.clear()
        async with AsyncClient(HOST):
            pass
        assert len(closed) == 1

    run(main)


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "4", None])
def test_async_client_invalid_concurrency_raises_usage_error(count: Any) -> None:
    with pytest.raises(UsageError, match="invalid max_concurrency"):
        AsyncClient(HOST, max_concurrency=count)


# The limit of threads


@pytest.mark.parametrize("limit", [1, 3])
def test_async_client_runs_no_more_calls_than_the_limit(limit: int) -> None:
    gate = Gate(blob_head)

    async def main() -> None:
        async with AsyncClient(HOST, gate, max_concurrency=limit) as client:
            tasks = [asyncio.create_task(client.resolve_blob(NAME, BLOB.digest)) for _ in range(3 * limit)]
            await gate.wait(limit)
            assert not gate.waiting.acquire(blocking=False)
            gate.open()
            assert await asyncio.gather(*tasks) == [BLOB.replace(media_type="application/octet-stream")] * (3 * limit)

    run(main)
    assert gate.most == limit


def test_async_client_call_that_waits_for_a_thread_is_cancelled_sends_nothing() -> None:
    requests = []
    gate = Gate(lambda request: requests.append(request.url) or blob_head(request))  # type: ignore[func-returns-value]

    async def main() -> None:
        async with AsyncClient(HOST, gate, max_concurrency=1) as client:
            first = asyncio.create_task(client.resolve_blob("first", BLOB.digest))
            await gate.wait()
            second = asyncio.create_task(client.resolve_blob("second", BLOB.digest))
            await asyncio.sleep(0)
            await cancel(second)
            gate.open()
            await first
            await client.resolve_blob("third", BLOB.digest)

    run(main)
    assert [url.split("/")[4] for url in requests] == ["first", "third"]


# Cancelling


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest) -> Iterator[tuple[ssl.SSLContext, ssl.SSLContext] | None]:
    """The contexts of a server and a client; `None` for plain http."""
    if request.param == "http":
        yield None
        return
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    yield server, client


@pytest.mark.parametrize("what", ["head", "body"])
def test_async_client_cancelled_during_a_request_frees_its_thread(
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None, what: str
) -> None:
    """The server never answers the first request; the only thread serves the next call all the same."""
    gate, first = Gate(lambda request: Response(200, {"Content-Length": "7"}, b"content")), threading.Event()

    class Stuck:
        def readinto(self, buffer: memoryview) -> int:
            gate.round_trip(Request("GET", "/"))
            return 0

        def close(self) -> None:
            pass

    def answer(request: Request) -> Response:
        if first.is_set():
            return blob_head(request)
        first.set()
        return gate.round_trip(request) if what == "head" else Response(200, {"Content-Length": "7"}, Stuck())

    async def main() -> None:
        with serve(FunctionTransport(answer), tls=tls and tls[0]) as url, ExitStack() as resources:
            resources.callback(gate.open)
            transport = RetryTransport(UrllibTransport(tls=tls and tls[1], timeout=PATIENCE))
            resources.callback(transport.close)
            async with AsyncClient(url.host, transport, insecure=tls is None, max_concurrency=1) as client:

                async def read() -> bytes:
                    return await (await client.get_blob(NAME, BLOB.digest)).read()

                task = asyncio.create_task(read())
                await gate.wait()
                await cancel(task)
                assert (await client.resolve_blob(NAME, BLOB.digest)).size == BLOB.size

    run(main)


def test_async_client_cancelled_does_not_touch_connections_of_other_calls() -> None:
    gate = Gate(blob_head)

    def answer(request: Request) -> Response:
        return gate.round_trip(request) if "slow" in request.url else blob_head(request)

    async def main() -> None:
        with serve(FunctionTransport(answer)) as url, ExitStack() as resources:
            resources.callback(gate.open)
            transport = UrllibTransport(timeout=PATIENCE)
            resources.callback(transport.close)
            async with AsyncClient(url.host, transport, insecure=True) as client:
                await client.resolve_blob("fast", BLOB.digest)  # its connection is idle now
                slow = asyncio.create_task(client.resolve_blob("slow", BLOB.digest))
                await gate.wait()
                kept = asyncio.create_task(client.resolve_blob("slow", BLOB.digest))
                await gate.wait()
                await cancel(slow)
                gate.open()
                assert (await kept).size == BLOB.size

    run(main)


def test_async_client_cancelled_before_a_retry_frees_its_thread() -> None:
    busy = threading.Semaphore(0)

    def answer(request: Request) -> Response:
        if "busy" in request.url:
            busy.release()
            return Response(429, {"Retry-After": "25"})
        return blob_head(request)

    async def main() -> None:
        transport = stack(FunctionTransport(answer), RetryTransport)
        async with AsyncClient(HOST, transport, max_concurrency=1) as client:
            task = asyncio.create_task(client.resolve_blob("busy", BLOB.digest))
            with ThreadPoolExecutor(1) as threads:
                assert await asyncio.get_running_loop().run_in_executor(threads, busy.acquire, True, PATIENCE)
            await cancel(task)
            assert (await client.do(Request("GET", "https://other.example/"))).status == 200

    run(main)


def test_async_client_cancelled_other_transport_holds_its_thread_until_it_returns() -> None:
    gate = Gate(blob_head)

    async def main() -> None:
        async with AsyncClient(HOST, gate, max_concurrency=1) as client:
            first = asyncio.create_task(client.resolve_blob(NAME, BLOB.digest))
            await gate.wait()
            await cancel(first)
            second = asyncio.create_task(client.resolve_blob(NAME, BLOB.digest))
            await asyncio.sleep(0)
            assert not gate.waiting.acquire(blocking=False)
            gate.open()
            await second

    run(main)


def test_async_client_cancelled_closes_the_reader_that_nobody_receives() -> None:
    closed = threading.Event()

    class Body:
        def readinto(self, buffer: memoryview) -> int:
            raise AssertionError("not read")

        def close(self) -> None:
            closed.set()

    gate = Gate(lambda request: Response(200, {"Content-Length": "7"}, Body()))

    async def main() -> None:
        async with AsyncClient(HOST, gate) as client:
            task = asyncio.create_task(client.get_blob(NAME, BLOB.digest))
            await gate.wait()
            await cancel(task)
            gate.open()

    run(main)
    assert closed.wait(PATIENCE)


@pytest.mark.parametrize("send", ["push_blob", "upload"])
def test_async_client_cancelled_upload_cancels_its_session(registry: MemoryRegistry, send: str) -> None:
    async def main() -> None:
        reached, ended = asyncio.Event(), asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"x" * 300_000
                reached.set()
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with AsyncClient(HOST, registry) as client:
            if send == "push_blob":
                content = Descriptor("application/octet-stream", BLOB.digest, 400_000)
                task: asyncio.Task[Any] = asyncio.create_task(client.push_blob(NAME, content, chunks()))
            else:
                task = asyncio.create_task(aio.upload(client, NAME, chunks()))
            await reached.wait()
            await cancel(task)
            await ended.wait()

    run(main)
    assert registry.open_uploads <= (send == "push_blob")


def test_async_client_cancelled_download_leaves_its_prefix(tmp_path: Path) -> None:
    content = b"x" * 300_000
    gate, descriptor = Gate(lambda request: Response(200)), Descriptor.of(content)

    def chunks() -> Iterator[bytes]:
        yield content[:200_000]
        gate.round_trip(Request("GET", "/"))

    def answer(request: Request) -> Response:
        return Response(200, {"Content-Length": str(len(content))}, chunks())

    async def main() -> None:
        with serve(FunctionTransport(answer)) as url, ExitStack() as resources:
            resources.callback(gate.open)
            async with AsyncClient(url.host, insecure=True, max_concurrency=1) as client:
                task = asyncio.create_task(aio.download(client, NAME, descriptor.digest, tmp_path / "blob"))
                await gate.wait()
                await cancel(task)

    run(main)
    parts = list(tmp_path.iterdir())
    assert [part.read_bytes() == content[: part.stat().st_size] for part in parts] in ([], [True])
    assert not (tmp_path / "blob").exists()


# After a cancellation, and after `aclose`


class StalledPatch:
    """A transport whose first PATCH fails when `fail` is called; others are answered by a registry."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry
        self._first = True
        self._failed = threading.Event()
        self.reached = threading.Event()

    def round_trip(self, request: Request, /) -> Response:
        cancellation = current_cancellation()
        assert cancellation is not None
        cancellation.check()  # as `UrllibTransport` does
        if request.method == "PATCH" and self._first:
            self._first = False
            self.reached.set()
            assert self._failed.wait(PATIENCE)
            raise OperationCancelled
        return self._registry.round_trip(request)

    def fail(self) -> None:
        self._failed.set()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("method", ["cancel", "commit", "aclose"])
def test_async_blob_writer_after_a_cancelled_write_can_be_used(registry: MemoryRegistry, method: str) -> None:
    async def main() -> None:
        stalled = StalledPatch(registry)
        async with AsyncClient(HOST, stalled) as client:
            writer = await client.push_blob_chunked(NAME, chunk_size=3)
            task = asyncio.create_task(writer.write(b"12345"))
            assert await asyncio.to_thread(stalled.reached.wait, PATIENCE)
            await cancel(task)
            following = asyncio.create_task(getattr(writer, method)())  # waits for the thread of the cancelled call
            asyncio.get_running_loop().call_soon(stalled.fail)
            result = await following
            assert method != "commit" or result.digest == Descriptor.of(b"123").digest

    run(main)
    assert registry.open_uploads == (method == "aclose")


@pytest.mark.parametrize("send", ["push_blob", "upload"])
def test_async_content_that_raises_cancelled_error_is_raised_unchanged(registry: MemoryRegistry, send: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield CONTENT[:1]
        raise asyncio.CancelledError

    async def main() -> None:
        async with AsyncClient(HOST, registry) as client:
            sent = client.push_blob(NAME, BLOB, chunks()) if send == "push_blob" else aio.upload(client, NAME, chunks())
            with pytest.raises(asyncio.CancelledError):
                await sent

    run(main)


@pytest.mark.parametrize("send", ["push_blob", "upload"])
def test_async_content_is_a_reader_of_the_same_client_needs_no_other_thread(
    registry: MemoryRegistry, send: str
) -> None:
    async def main() -> None:
        async with AsyncClient(HOST, registry, max_concurrency=1) as client:
            async with await client.get_blob(NAME, BLOB) as reader:
                if send == "push_blob":
                    await client.push_blob("copy", BLOB, reader)
                else:
                    await aio.upload(client, "copy", reader)
            assert await client.has_blob("copy", BLOB)

    run(main)


def test_async_content_is_a_reader_cancelled_shuts_down_its_connection() -> None:
    first = b"x" * 256 * 1024
    gate = Gate(lambda request: Response(201))

    def answer(request: Request) -> Response:
        if request.method == "POST":
            return Response(202, {"Location": "/upload"})
        if request.method == "PUT":
            assert request.body is not None
            received, chunks = 0, iter(request.body.open())
            while received < len(first):
                received += len(next(chunks))
            return gate.round_trip(request)  # now the client reads the next chunk, which is never sent
        return Response(200, {"Content-Length": str(len(first) + 1)}, stalled(request))

    def stalled(request: Request) -> Iterator[bytes]:
        yield first
        assert gate.opened.wait(PATIENCE)

    async def main() -> None:
        with serve(FunctionTransport(answer)) as url, ExitStack() as resources:
            resources.callback(gate.open)
            async with AsyncClient(url.host, insecure=True, max_concurrency=1) as client:
                blob = Descriptor("application/octet-stream", BLOB.digest, len(first) + 1)
                reader = await client.get_blob(NAME, blob)
                task = asyncio.create_task(client.push_blob("copy", blob, reader))
                await gate.wait()
                await cancel(task)
                await reader.aclose()  # runs in the only thread of the client

    run(main)


def test_async_reader_aclose_after_its_client_closes_it() -> None:
    closed = threading.Event()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield CONTENT

        def close(self) -> None:
            closed.set()

    def answer(_request: Request) -> Response:
        return Response(200, {"Content-Length": str(BLOB.size)}, Body())

    async def main() -> None:
        client = AsyncClient(HOST, FunctionTransport(answer))
        async with await client.get_blob(NAME, BLOB):
            await client.aclose()

    run(main)
    assert closed.is_set()


def test_async_client_aclose_is_cancelled_closes_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(blob_head)
    closed = threading.Event()
    monkeypatch.setattr(gate, "close", closed.set)
    monkeypatch.setattr("ociwire.transport.default.UrllibTransport", lambda **options: gate)

    async def main() -> None:
        client = AsyncClient(HOST)
        task = asyncio.create_task(client.ping())
        await gate.wait()
        await cancel(task)
        closing = asyncio.create_task(client.aclose())
        await asyncio.sleep(0)
        await cancel(closing)
        assert closed.is_set()
        gate.open()

    run(main)
