"""Client and transfers for asyncio: each call runs in a worker thread, and can be cancelled.

The methods, their arguments, results and errors are those of `Client` and `ociwire.transfer`; transports, layers and
credential sources are the same objects, and are called in the threads, so that a layer is written once for synchronous
and asynchronous programs. A call waits for a free thread if `max_concurrency` calls are running.

A cancelled call raises `asyncio.CancelledError` at once, but occupies its thread until the thread ends: soon, if it
waits between two attempts or for a socket of `UrllibTransport`, which is shut down; at the connect timeout, if it is
connecting; at the client's timeout or deadline with other transports. Before the thread of a cancelled `upload` or
`copy` ends, it cancels the upload sessions. That of a cancelled `AsyncClient.push_blob` expires at the registry.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar, final, overload

from . import transfer
from ._argument_checks import check_integer, safe_repr, suggest_options
from ._client.blob_reader import BlobReader
from ._client.blob_writer import BlobWriter
from ._client.client import (
    OTHER_OPTIONS,
    UNSET,
    Client,
    check_assignment,
    parse_reference,
    resolve_transport,
    unknown_attribute,
)
from ._client.request_sender import MAX_MANIFEST_SIZE
from ._http.body import Body
from ._http.cancellation import Cancellation, OperationCancelled, cancellable_by, ended_by
from ._http.headers import Headers
from ._http.messages import Request, Response
from ._oci.descriptor import Descriptor, Platform
from ._oci.image_manifest import Index, Manifest
from ._oci.reference import Reference
from ._oci.scope import Scope
from .errors import UsageError
from .media_types import OCTET_STREAM
from .transfer import ProgressCallback
from .transfer._arguments import COPY, DOWNLOAD, UPLOAD, bind_arguments
from .transport import Transport

if TYPE_CHECKING:
    import urllib3
    from typing_extensions import Buffer, ParamSpec, Self, Unpack

    from ._client.client import ClientOptions, CredentialsLike, _Unset
    from ._http.messages import BodyContent
    from .transport._urllib3.tls import TLS

    class AsyncClientOptions(ClientOptions, total=False):
        """Keyword arguments of `AsyncClient`."""

        max_concurrency: int

    P = ParamSpec("P")

__all__ = ["AsyncBlobReader", "AsyncBlobWriter", "AsyncClient", "AsyncResponse", "copy", "download", "upload"]

T = TypeVar("T")
R = TypeVar("R", bound="BlobReader | Response")
_CHUNK_SIZE = 256 * 1024
_CLOSE_TIMEOUT = 10.0
_END = object()


class _Call:
    """State of a call. If the call opens a reader, the calls of the reader share this state.

    Attributes:
        cancellation: Shuts down the sockets that these calls use.
        reader: The reader, once it is open.
    """

    def __init__(self) -> None:
        self.cancellation: Cancellation = Cancellation()
        self.reader: Any = None

    def close_reader(self, future: Future[Any]) -> None:
        """Close the reader after one of the calls was cancelled and its thread has ended."""
        if self.reader is None and not future.cancelled() and future.exception() is None:
            self.reader = future.result()  # opened although the call was cancelled
        close = getattr(self.reader, "close", None)
        if close is not None:
            close()


class _Threads:
    """Worker threads of a client, shared with the clients that `AsyncClient.with_options` returns."""

    def __init__(self, max_concurrency: int) -> None:
        self._executor = ThreadPoolExecutor(max_concurrency, "ociwire-aio")
        self.is_shut_down: bool = False
        self._cancelled: set[Future[Any]] = set()  # calls whose threads have not ended

    async def run(self, call: _Call, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread, in a copy of the caller's context."""

        def run() -> T:
            with cancellable_by(call.cancellation):
                return function(*args, **kwargs)

        try:
            future = self._executor.submit(contextvars.copy_context().run, run)
        except RuntimeError as error:  # the executor was shut down
            raise UsageError("the client is closed") from error
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._cancelled.add(future)
            future.add_done_callback(self._cancelled.discard)
            future.add_done_callback(call.close_reader)
            call.cancellation.cancel()
            raise
        except OperationCancelled:
            # The task was not cancelled: an asynchronous iterable of content has raised `CancelledError`.
            raise asyncio.CancelledError from None

    def shutdown(self) -> None:
        """Stop accepting calls, without waiting for the threads."""
        self.is_shut_down = True
        self._executor.shutdown(wait=False)

    async def aclose(self) -> None:
        """Stop accepting calls, and wait up to 10 seconds for the threads of cancelled calls."""
        self.shutdown()
        if self._cancelled:
            await asyncio.to_thread(wait, list(self._cancelled), _CLOSE_TIMEOUT)


class _AsyncReader(Generic[R]):
    """Base of `AsyncBlobReader` and `AsyncResponse`. Not safe for concurrent calls."""

    def __init__(self, threads: _Threads, call: _Call, reader: R) -> None:
        self._threads = threads
        self._call = call
        self._reader = call.reader = reader

    async def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, fewer only at the end; everything if `size` is negative or `None`."""
        return await self._run(self._reader.read, size)

    async def iter_bytes(self, size: int = _CHUNK_SIZE) -> AsyncIterator[bytes]:
        """Iterate over the rest in chunks of `size` bytes; the last one may be shorter.

        `size` must be 1 or more. Defaults to 256 KiB.
        """
        check_integer("size", size, minimum=1)
        while chunk := await self._run(self._reader.read, size):
            yield chunk

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.iter_bytes()

    async def aclose(self) -> None:
        """Close the reader. If it was not read to its end, its connection is closed. Idempotent."""
        if self._threads.is_shut_down:
            self._reader.close()  # does not wait for the network
        else:
            await self._threads.run(_Call(), self._reader.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._threads.run(self._call, function, *args, **kwargs)


@final
class AsyncBlobReader(_AsyncReader[BlobReader]):
    """Reads a blob and verifies it; see `BlobReader`. Iterating yields chunks of 256 KiB.

    A call that is cancelled leaves the reader unusable.
    """

    @property
    def descriptor(self) -> Descriptor:
        """Descriptor of the blob or manifest."""
        return self._reader.descriptor

    @property
    def verified(self) -> bool:
        """Whether all bytes have been read and their digest matched. Always false for a range."""
        return self._reader.verified

    async def verify(self) -> None:
        """Read the rest of the blob without returning it, and verify the digest."""
        await self._run(self._reader.verify)


@final
class AsyncResponse(_AsyncReader[Response]):
    """The response to `AsyncClient.do`; see `Response`. Iterating yields chunks of 256 KiB."""

    @property
    def status(self) -> int:
        """Status code."""
        return self._reader.status

    @property
    def headers(self) -> Headers:
        """Header fields."""
        return self._reader.headers

    async def json(self) -> Any:
        """Read the body and decode it as JSON; see `Response.json`."""
        return await self._run(self._reader.json)


@final
class AsyncBlobWriter:
    """Writes a blob to an upload session; see `BlobWriter`. Calls run one at a time.

    Leaving the asynchronous context manager calls `aclose`, unless the task was cancelled: the upload is kept, and
    can be resumed with `id`. After a cancelled call, the other methods can still be called, for example `cancel`;
    they wait until the thread of the cancelled call ends.
    """

    def __init__(self, threads: _Threads, writer: BlobWriter) -> None:
        self._threads = threads
        self._writer = writer
        self._lock = threading.Lock()  # held by a thread that uses the writer, possibly for a call that was cancelled

    @property
    def id(self) -> str:
        """Identifies the upload for `AsyncClient.push_blob_chunked_resume`."""
        return self._writer.id

    @property
    def size(self) -> int:
        """Number of bytes that were written."""
        return self._writer.size

    @property
    def flushed(self) -> int:
        """Number of bytes that the registry has acknowledged."""
        return self._writer.flushed

    async def write(self, data: Buffer, /) -> int:
        """Buffer the data, and send each chunk that is full."""
        return await self._run(self._writer.write, data)

    async def commit(self, digest: str | None = None) -> Descriptor:
        """Send the rest and close the upload session; see `BlobWriter.commit`."""
        return await self._run(self._writer.commit, digest)

    async def cancel(self) -> None:
        """Cancel the upload."""
        await self._run(self._writer.cancel)

    async def aclose(self) -> None:
        """Send the buffer and keep the upload. Idempotent."""
        await self._run(self._writer.close)

    async def __aenter__(self) -> AsyncBlobWriter:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            await self.aclose()

    async def _run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        def run() -> T:
            with self._lock:
                return function(*args, **kwargs)

        return await self._threads.run(_Call(), run)


@final
class AsyncClient:
    """A client of one registry for asyncio, with the methods of `Client` as coroutines.

    May be used by several tasks, and by several event loops. Example::

        async with AsyncClient("ghcr.io") as client:
            async for tag in client.tags("org/app"):
                print(tag)

    Args:
        host: See `Client`.
        transport: See `Client`. Defaults to `default_transport` with as many idle connections as threads.
        credentials: See `Client`.
        timeout: See `Client`.
        retry: See `Client`.
        tls: See `Client`.
        proxy: See `Client`.
        trust_env: See `Client`.
        insecure: See `Client`.
        user_agent: See `Client`.
        debug_id: See `Client`.
        max_manifest_size: See `Client`.
        max_concurrency: Maximum number of threads, and so of calls that run at a time; others wait. Defaults to 64.

    Raises:
        UsageError: An argument is not valid.
    """

    @suggest_options({name: use for name, use in OTHER_OPTIONS.items() if name != "max_concurrency"})
    def __init__(
        self,
        host: str,
        transport: Transport | None = None,
        *,
        credentials: CredentialsLike | None = None,
        timeout: float | urllib3.Timeout | None = None,
        retry: int | urllib3.Retry | None = None,
        tls: TLS | None = None,
        proxy: str | None = None,
        trust_env: bool | None = None,
        insecure: bool = False,
        user_agent: str | None = None,
        debug_id: str | None = None,
        max_manifest_size: int = MAX_MANIFEST_SIZE,
        max_concurrency: int = 64,
    ) -> None:
        check_integer("max_concurrency", max_concurrency, minimum=1)
        resolved = resolve_transport(
            host,
            transport,
            max_concurrency,
            credentials=credentials,
            retry=retry,
            tls=tls,
            proxy=proxy,
            trust_env=trust_env,
        )
        self._owned = resolved if transport is None else None
        self._client = Client(
            host,
            resolved,
            timeout=timeout,
            insecure=insecure,
            user_agent=user_agent,
            debug_id=debug_id,
            max_manifest_size=max_manifest_size,
        )
        self._threads = _Threads(max_concurrency)

    @classmethod
    def from_reference(
        cls, reference: str | Reference, transport: Transport | None = None, **options: Unpack[AsyncClientOptions]
    ) -> AsyncClient:
        """Return a client of the registry that a reference names; see `Client.from_reference`."""
        return cls(parse_reference(reference).host, transport, **options)

    @property
    def host(self) -> str:
        """``host`` or ``host:port`` of the registry."""
        return self._client.host

    @property
    def transport(self) -> Transport:
        """The transport that sends the requests."""
        return self._client.transport

    def with_options(
        self,
        *,
        timeout: float | urllib3.Timeout | _Unset | None = UNSET,
        deadline: float | _Unset | None = UNSET,
        within: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> AsyncClient:
        """Return a client of the same registry, transport and threads with other options; see `Client.with_options`."""
        derived = object.__new__(AsyncClient)
        derived._owned, derived._threads = self._owned, self._threads
        derived._client = self._client.with_options(timeout=timeout, deadline=deadline, within=within, extra=extra)
        return derived

    async def do(self, request: Request, *, scope: Scope | None = None) -> AsyncResponse:
        """See `Client.do`."""
        call = _Call()
        return AsyncResponse(self._threads, call, await self._threads.run(call, self._client.do, request, scope=scope))

    async def ping(self) -> None:
        """See `Client.ping`."""
        await self._run(self._client.ping)

    # Blobs

    async def get_blob(self, repository: str, digest: str | Descriptor) -> AsyncBlobReader:
        """See `Client.get_blob`."""
        return await self._open(self._client.get_blob, repository, digest)

    async def get_blob_range(
        self, repository: str, digest: str | Descriptor, start: int, stop: int | None = None
    ) -> AsyncBlobReader:
        """See `Client.get_blob_range`."""
        return await self._open(self._client.get_blob_range, repository, digest, start, stop)

    async def resolve_blob(self, repository: str, digest: str | Descriptor) -> Descriptor:
        """See `Client.resolve_blob`."""
        return await self._run(self._client.resolve_blob, repository, digest)

    async def has_blob(self, repository: str, digest: str | Descriptor) -> bool:
        """See `Client.has_blob`."""
        return await self._run(self._client.has_blob, repository, digest)

    @overload
    async def push_blob(self, repository: str, content: bytes | os.PathLike[str] | BinaryIO, /) -> Descriptor: ...

    @overload
    async def push_blob(self, repository: str, *, content: bytes | os.PathLike[str] | BinaryIO) -> Descriptor: ...

    @overload
    async def push_blob(
        self,
        repository: str,
        descriptor: Descriptor,
        content: BodyContent | os.PathLike[str] | AsyncIterable[bytes],
    ) -> Descriptor: ...

    async def push_blob(self, repository: str, descriptor: Any = UNSET, content: Any = UNSET) -> Descriptor:
        """See `Client.push_blob`. The content of a descriptor may also be an asynchronous iterable of bytes.

        If the iterable calls methods of this client, each call occupies a second thread: run fewer such uploads at a
        time than `max_concurrency`, or they deadlock. An `AsyncBlobReader` as content does not need a second thread.
        """
        return await self._run(self._client.push_blob, repository, descriptor, _to_sync(content))

    async def push_blob_chunked(
        self, repository: str, chunk_size: int | None = None, *, algorithm: str = "sha256"
    ) -> AsyncBlobWriter:
        """See `Client.push_blob_chunked`."""
        writer = await self._run(self._client.push_blob_chunked, repository, chunk_size, algorithm=algorithm)
        return AsyncBlobWriter(self._threads, writer)

    async def push_blob_chunked_resume(
        self,
        repository: str,
        id: str,  # noqa: A002 - as in `Client`
        offset: int | None = None,
        chunk_size: int | None = None,
    ) -> AsyncBlobWriter:
        """See `Client.push_blob_chunked_resume`."""
        writer = await self._run(self._client.push_blob_chunked_resume, repository, id, offset, chunk_size)
        return AsyncBlobWriter(self._threads, writer)

    async def mount_blob(self, from_repository: str, to_repository: str, digest: str | Descriptor) -> Descriptor:
        """See `Client.mount_blob`."""
        return await self._run(self._client.mount_blob, from_repository, to_repository, digest)

    async def delete_blob(self, repository: str, digest: str | Descriptor) -> None:
        """See `Client.delete_blob`."""
        await self._run(self._client.delete_blob, repository, digest)

    # Manifests and tags

    async def get_manifest(self, repository: str, reference: str | Descriptor) -> AsyncBlobReader:
        """See `Client.get_manifest`."""
        return await self._open(self._client.get_manifest, repository, reference)

    async def fetch_manifest(self, repository: str, reference: str | Descriptor) -> Manifest | Index:
        """See `Client.fetch_manifest`."""
        return await self._run(self._client.fetch_manifest, repository, reference)

    async def get_tag(self, repository: str, tag: str) -> AsyncBlobReader:
        """See `Client.get_tag`."""
        return await self._open(self._client.get_tag, repository, tag)

    async def resolve_manifest(self, repository: str, reference: str | Descriptor) -> Descriptor:
        """See `Client.resolve_manifest`."""
        return await self._run(self._client.resolve_manifest, repository, reference)

    async def has_manifest(self, repository: str, reference: str | Descriptor) -> bool:
        """See `Client.has_manifest`."""
        return await self._run(self._client.has_manifest, repository, reference)

    async def resolve_tag(self, repository: str, tag: str) -> Descriptor:
        """See `Client.resolve_tag`."""
        return await self._run(self._client.resolve_tag, repository, tag)

    async def push_manifest(
        self,
        repository: str,
        content: bytes | Mapping[str, Any] | Manifest | Index,
        media_type: str | None = None,
        *,
        digest: str | None = None,
        tags: Iterable[str] = (),
    ) -> Descriptor:
        """See `Client.push_manifest`."""
        return await self._run(self._client.push_manifest, repository, content, media_type, digest=digest, tags=tags)

    async def tag(self, repository: str, source: str | Descriptor, *tags: str) -> Descriptor:
        """See `Client.tag`."""
        return await self._run(self._client.tag, repository, source, *tags)

    async def delete_manifest(self, repository: str, digest: str | Descriptor) -> None:
        """See `Client.delete_manifest`."""
        await self._run(self._client.delete_manifest, repository, digest)

    async def delete_tag(self, repository: str, tag: str) -> None:
        """See `Client.delete_tag`."""
        await self._run(self._client.delete_tag, repository, tag)

    # Lists

    def tags(self, repository: str, *, start_after: str | None = None, limit: int | None = None) -> AsyncIterator[str]:
        """See `Client.tags`. An asynchronous iterator."""
        return self._iterate(lambda: self._client.tags(repository, start_after=start_after, limit=limit))

    def repositories(self, *, start_after: str | None = None, limit: int | None = None) -> AsyncIterator[str]:
        """See `Client.repositories`. An asynchronous iterator."""
        return self._iterate(lambda: self._client.repositories(start_after=start_after, limit=limit))

    def referrers(
        self, repository: str, digest: str | Descriptor, *, artifact_type: str | None = None
    ) -> AsyncIterator[Descriptor]:
        """See `Client.referrers`. An asynchronous iterator."""
        return self._iterate(lambda: self._client.referrers(repository, digest, artifact_type=artifact_type))

    async def aclose(self) -> None:
        """Close the client, and the transport if the client made it. Idempotent.

        Later calls raise `UsageError`. Waits up to 10 seconds for the threads of cancelled calls, so that their upload
        sessions are cancelled.
        """
        try:
            await self._threads.aclose()
        finally:  # also if the wait is cancelled
            self._client.close()
            if self._owned is not None:
                self._owned.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return repr(self._client).replace("<Client", "<AsyncClient")

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(self, name: str) -> object:
            if name == "close":
                raise AttributeError("'AsyncClient' object has no attribute 'close'; use await client.aclose()")
            raise unknown_attribute("AsyncClient", name)

        def __setattr__(self, name: str, value: object) -> None:
            check_assignment("AsyncClient", name)
            object.__setattr__(self, name, value)

    async def _run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._threads.run(_Call(), function, *args, **kwargs)

    async def _open(self, function: Callable[P, BlobReader], /, *args: P.args, **kwargs: P.kwargs) -> AsyncBlobReader:
        call = _Call()
        reader = await self._threads.run(call, function, *args, **kwargs)
        return AsyncBlobReader(self._threads, call, reader)

    async def _iterate(self, make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        iterator = await self._run(make)
        while (item := await self._run(next, iterator, _END)) is not _END:
            yield item  # type: ignore[misc]


def _to_sync(content: Any) -> Any:
    """Return content that a thread can read. An asynchronous iterable is iterated in the event loop."""
    if isinstance(content, _AsyncReader):
        return _read_in_thread(content)
    if not isinstance(content, AsyncIterable):
        return content
    loop = asyncio.get_running_loop()

    def chunks() -> Iterator[bytes]:
        iterator = aiter(content)
        while True:
            future = asyncio.run_coroutine_threadsafe(_next(iterator), loop)
            try:
                with ended_by(future.cancel):
                    chunk = future.result()
            except CancelledError:
                raise OperationCancelled from None
            finally:
                future.cancel()  # does nothing if it is done
            if chunk is _END:
                return
            yield chunk

    return chunks()


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator, _END)


def _read_in_thread(reader: _AsyncReader[Any]) -> Iterator[bytes]:
    """Yield the chunks of a reader, read in the thread that sends them.

    A read in another thread of the client could deadlock: the calls that send may occupy all threads.
    """
    with ended_by(reader._call.cancellation.cancel):
        while chunk := reader._reader.read(_CHUNK_SIZE):
            yield chunk


# Transfers


async def _transfer(function: Callable[..., Descriptor], arguments: dict[str, Any], **options: Any) -> Descriptor:
    """Run a transfer in a thread of one of its clients; without a client, in a new thread, which opens the clients."""
    threads = None
    for name in ("client", "source", "target"):
        client = arguments.get(name)
        if client is None or (name == "source" and function is transfer.upload):
            continue
        if not isinstance(client, AsyncClient):
            raise UsageError(f"invalid client {safe_repr(client)}: expected an AsyncClient")
        arguments[name], threads = client._client, threads or client._threads
    if threads is not None:
        return await threads.run(_Call(), function, **arguments, **options)
    threads = _Threads(1)
    try:
        return await threads.run(_Call(), function, **arguments, **options)
    finally:
        threads.shutdown()


@overload
async def download(
    client: AsyncClient,
    repository: str,
    digest: str | Descriptor,
    path: str | os.PathLike[str],
    *,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
async def download(
    reference: str | Reference,
    path: str | os.PathLike[str],
    *,
    client: AsyncClient | None = None,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
async def download(
    client: AsyncClient | None,
    reference: str | Reference,
    path: str | os.PathLike[str],
    *,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


async def download(
    *args: Any,
    client: Any = None,
    repository: Any = None,
    digest: Any = None,
    reference: Any = None,
    path: Any = None,
    workers: int = 4,
    part_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """See `ociwire.transfer.download`. Like in `upload` and `copy`, `progress` is called in worker threads.

    A transfer occupies one thread of the client, or a new thread if there is no client, and starts `workers` more.
    """
    names = {"client": client, "repository": repository, "digest": digest, "reference": reference, "path": path}
    arguments = bind_arguments(DOWNLOAD, args, names)
    return await _transfer(transfer.download, arguments, workers=workers, part_size=part_size, progress=progress)


@overload
async def upload(
    client: AsyncClient,
    repository: str,
    source: str | os.PathLike[str] | BinaryIO | bytes | Iterable[bytes] | AsyncIterable[bytes] | Body,
    *,
    digest: str | Descriptor | None = None,
    chunk_size: int | None = None,
    mount_from: str | None = None,
    media_type: str = OCTET_STREAM,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
async def upload(
    reference: str | Reference,
    source: str | os.PathLike[str] | BinaryIO | bytes | Iterable[bytes] | AsyncIterable[bytes] | Body,
    *,
    client: AsyncClient | None = None,
    digest: str | Descriptor | None = None,
    chunk_size: int | None = None,
    mount_from: str | None = None,
    media_type: str = OCTET_STREAM,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


async def upload(
    *args: Any,
    client: Any = None,
    repository: Any = None,
    reference: Any = None,
    source: Any = None,
    digest: str | Descriptor | None = None,
    chunk_size: int | None = None,
    mount_from: str | None = None,
    media_type: str = OCTET_STREAM,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """See `ociwire.transfer.upload`. The source may also be an asynchronous iterable of bytes."""
    names = {"client": client, "repository": repository, "reference": reference, "source": source}
    arguments = bind_arguments(UPLOAD, args, names)
    arguments["source"] = _to_sync(arguments["source"])
    return await _transfer(
        transfer.upload,
        arguments,
        digest=digest,
        chunk_size=chunk_size,
        mount_from=mount_from,
        media_type=media_type,
        progress=progress,
    )


@overload
async def copy(
    source: AsyncClient,
    source_reference: str | Reference,
    target: AsyncClient,
    target_reference: str | Reference,
    *,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
async def copy(
    source_reference: str | Reference,
    target_reference: str | Reference,
    *,
    source: AsyncClient | None = None,
    target: AsyncClient | None = None,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
async def copy(
    client: AsyncClient,
    source_reference: str | Reference,
    target_reference: str | Reference,
    *,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
async def copy(
    source_reference: str | Reference,
    target_reference: str | Reference,
    *,
    client: AsyncClient,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


async def copy(
    *args: Any,
    client: Any = None,
    source: Any = None,
    source_reference: Any = None,
    target: Any = None,
    target_reference: Any = None,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """See `ociwire.transfer.copy`. Occupies a thread of the source's client, if there is one."""
    names = {
        "client": client,
        "source": source,
        "source_reference": source_reference,
        "target": target,
        "target_reference": target_reference,
    }
    arguments = bind_arguments(COPY, args, names)
    options = {"platforms": platforms, "referrers": referrers, "workers": workers, "progress": progress}
    return await _transfer(transfer.copy, arguments, **options)
