"""Large blobs: verified on their way in, hashed on their way out, and over several connections where one is slow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import dxf
import oras.client

from benchmarks.figures import MIB, Figure, pairs, timed
from ociwire import Client, Digest
from ociwire.transfer import download, upload

_TURNS = 25
_BUFFER = 8 * MIB


def figures(host: str, digest: Digest, source: Path, folder: Path, taker: str) -> Iterator[Figure]:
    """Down from ``host`` into a folder, and up to ``taker``.

    Args:
        host: An nginx.
        digest: A blob of it.
        source: The blob's file.
        folder: Where to.
        taker: A sink.
    """
    size = source.stat().st_size
    hashed = _hashing(size)
    target = folder / "target"
    with Client(host, insecure=True) as client, Client(taker, insecure=True) as sink:
        read = _reading(client, digest)
        fetched = _afresh(target, lambda: download(client, "bench", digest, target))
        of_sha = "SHA-256 alone"
        yield _bound_by_hash(
            f"`get_blob`, {size // MIB} MiB, verified, by {_BUFFER // MIB} MiB",
            read,
            hashed,
            size,
            of_sha,
            "at least 0.90",
        )
        yield _bound_by_hash("`transfer.download` of it, into a file", fetched, hashed, size, of_sha, "")
        with_oras = _with_oras(host, digest, target)
        for than, other, bound in (
            ("dxf", _with_dxf(host, digest, target), "at least 2"),
            ("oras-py, and SHA-256 of the file", _verified(with_oras, target), "at least 2"),
            ("oras-py, which does not verify", with_oras, ""),
        ):
            found = pairs(_afresh(target, other), fetched, _TURNS)
            speed = f"{size / found.second / 1e6:.0f} to {size / found.first / 1e6:.0f} MB/s"
            yield Figure("`transfer.download` of it", speed, found.ratio, f"the speed of {than}", bound)
        sent = lambda: upload(sink, "bench", source)  # noqa: E731
        what = "`transfer.upload` of it, its digest computed"
        yield _bound_by_hash(what, sent, hashed, size, of_sha, "at least 0.80")


def limited(host: str, digest: Digest, size: int, folder: Path, rate: str) -> Figure:
    """Four workers beside one, at a server that gives each connection so much and no more."""
    target = folder / "target"

    def fetch(workers: int) -> Callable[[], object]:
        return _afresh(target, lambda: download(client, "bench", digest, target, workers=workers))

    with Client(host, insecure=True) as client:
        one, four = timed(fetch(1)), timed(fetch(4))
    what = f"`transfer.download`, {size // MIB} MiB, 4 workers, nginx with `limit_rate {rate}`"
    return Figure(what, f"{four:.1f} s to {one:.1f} s", one / four, "the speed of 1 worker", "at least 3.8")


def _bound_by_hash(
    what: str, one: Callable[[], object], hashed: Callable[[], object], size: int, than: str, bound: str
) -> Figure:
    found = pairs(hashed, one, _TURNS)
    return Figure(what, f"{size / found.second / 1e6:.0f} MB/s", found.ratio, f"the speed of {than}", bound)


def _hashing(size: int) -> Callable[[], None]:
    block = bytes(_BUFFER)

    def hashed() -> None:
        hasher = hashlib.sha256()
        for _ in range(size // _BUFFER):
            hasher.update(block)

    return hashed


def _reading(client: Client, digest: Digest) -> Callable[[], None]:
    buffer = bytearray(_BUFFER)

    def read() -> None:
        with client.get_blob("bench", digest) as reader:
            while reader.readinto(buffer):
                pass

    return read


def _with_dxf(host: str, digest: Digest, target: Path) -> Callable[[], None]:
    registry = dxf.DXF(host, "bench", insecure=True)

    def pull() -> None:
        with target.open("wb") as file:
            for chunk in registry.pull_blob(digest):
                file.write(chunk)

    return pull


def _verified(download: Callable[[], object], target: Path) -> Callable[[], None]:
    buffer = bytearray(_BUFFER)

    def run() -> None:
        download()
        hasher = hashlib.sha256()
        with target.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(memoryview(buffer)[:count])

    return run


def _with_oras(host: str, digest: Digest, target: Path) -> Callable[[], object]:
    registry = oras.client.OrasClient(host, insecure=True)
    container = registry.get_container(f"{host}/bench:latest")
    return lambda: registry.download_blob(container, digest, str(target))


def _afresh(target: Path, function: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        target.unlink(missing_ok=True)
        function()

    return run
