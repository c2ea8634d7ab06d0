"""Time of many calls at once from asyncio, at a registry that answers each after half a second."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

from benchmarks.figures import Figure
from ociwire import Client, Descriptor, FunctionTransport, Request, Response
from ociwire.aio import AsyncClient

_CALLS, _DELAY = 200, 0.5
_BLOB = Descriptor.of(b"content")


def _answer(_request: Request) -> Response:
    threading.Event().wait(_DELAY)
    return Response(200, {"Content-Length": str(_BLOB.size)})


async def _with_async_client() -> None:
    async with AsyncClient("registry.example", FunctionTransport(_answer)) as client:
        await asyncio.gather(*(client.resolve_blob("app", _BLOB.digest) for _ in range(_CALLS)))


async def _with_to_thread() -> None:
    client = Client("registry.example", FunctionTransport(_answer))
    await asyncio.gather(*(asyncio.to_thread(client.resolve_blob, "app", _BLOB.digest) for _ in range(_CALLS)))


def figures() -> Iterator[Figure]:
    """`AsyncClient` with its default of 64 threads, and `asyncio.to_thread`, whose threads depend on the processors."""
    seconds = {}
    for name, main in (("`AsyncClient`", _with_async_client), ("`asyncio.to_thread`", _with_to_thread)):
        started = time.perf_counter()
        asyncio.run(main())
        seconds[name] = time.perf_counter() - started
        bound = "at most 3" if name == "`AsyncClient`" else ""
        what = f"{_CALLS} calls of {_DELAY} s each from asyncio, {name}"
        yield Figure(what, f"{seconds[name]:.1f} s", bound=bound, judged=seconds[name])
