"""Overhead of the stack for a HEAD request on a kept-alive connection, compared with other HTTP clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import requests
import urllib3

from benchmarks.figures import Figure, pairs
from ociwire import Client, Digest, Request, default_transport

_BATCH = 200
_TURNS = 25


def figures(host: str, digest: Digest) -> Iterator[Figure]:
    """Yield the ratios of the default stack and of a client method to `PoolManager.urlopen`, requests and httpx."""
    url = f"http://{host}/v2/bench/blobs/{digest}"
    request = Request("HEAD", url)
    with (
        urllib3.PoolManager() as manager,
        requests.Session() as session,
        httpx.Client() as http,
        Client(host, default_transport(), insecure=True) as client,
    ):
        transport = client.transport
        stacked = _often(lambda: transport.round_trip(request).close())
        bare = _often(lambda: manager.urlopen("HEAD", url))
        others = {
            "`PoolManager.urlopen`": (bare, "at most 1.00"),
            "`requests.Session.head`": (_often(lambda: session.head(url)), ""),
            "`httpx.Client.head`": (_often(lambda: http.head(url)), ""),
        }
        for than, (other, bound) in others.items():
            yield _figure("HEAD through the whole stack", stacked, other, than, bound)
        resolved = _often(lambda: client.resolve_blob("bench", digest))
        yield _figure("`Client.resolve_blob`", resolved, bare, "`PoolManager.urlopen`", "")
        transport.close()


def _often(function: Callable[[], object]) -> Callable[[], None]:
    def batch() -> None:
        for _ in range(_BATCH):
            function()

    return batch


def _figure(what: str, one: Callable[[], None], other: Callable[[], None], than: str, bound: str) -> Figure:
    found = pairs(one, other, _TURNS)
    return Figure(what, f"{found.first / _BATCH * 1e6:.0f} µs", found.ratio, than, bound)
