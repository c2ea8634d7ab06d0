"""Prints the figures that `docs/benchmarks.md` speaks of. Each ratio is the median of pairs taken in turn."""

from __future__ import annotations

import hashlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import urllib3

from benchmarks.servers import nginx, sink
from ociwire import Client, Descriptor, Digest, Request, default_transport

MIB = 1024 * 1024
_BLOCK = bytes(range(256)) * (4 * MIB // 256)


def main() -> None:
    """Run all, or the part that a child process was started for."""
    if len(sys.argv) > 1:
        _child(*sys.argv[1:])
        return
    print(f"Python {sys.version.split()[0]}, urllib3 {version('urllib3')}; medians of pairs\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        small, large, huge = (_blob(folder, mib) for mib in (4, 256, 1024))
        with nginx(folder) as host, sink() as taker:
            _heads(host, small)
            _download(host, large)
            _memory("download", host, small, huge)
            _memory("upload", taker, small, huge)


def _blob(folder: Path, mib: int) -> Digest:
    hasher = hashlib.sha256()
    path = folder / "v2" / "bench" / "blobs"
    path.mkdir(parents=True, exist_ok=True)
    with (path / "unnamed").open("wb") as file:
        for number in range(mib // 4):
            block = number.to_bytes(8, "big") + _BLOCK[8:]
            hasher.update(block)
            file.write(block)
    digest = Digest(f"sha256:{hasher.hexdigest()}")
    (path / "unnamed").rename(path / digest)
    return digest


def _pairs(first: Callable[[], object], second: Callable[[], object], turns: int) -> tuple[float, float]:
    """The median time of the first, and the median of its ratio to the second."""
    first(), second()
    times, ratios = [], []
    for _ in range(turns):
        one, other = _timed(first), _timed(second)
        times.append(one)
        ratios.append(one / other)
    return statistics.median(times), statistics.median(ratios)


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _heads(host: str, digest: Digest) -> None:
    url = f"http://{host}/v2/bench/blobs/{digest}"
    batch = range(100)
    manager = urllib3.PoolManager()
    transport = default_transport()
    client = Client(host, insecure=True)

    def bare() -> None:
        for _ in batch:
            manager.urlopen("HEAD", url)

    def stacked() -> None:
        for _ in batch:
            transport.round_trip(Request("HEAD", url)).close()

    def resolved() -> None:
        for _ in batch:
            client.resolve_blob("bench", digest)

    for name, function in (("HEAD through the stack", stacked), ("Client.resolve_blob", resolved)):
        seconds, ratio = _pairs(function, bare, 40)
        print(f"{name:<24} {seconds / len(batch) * 1e6:7.0f} us   {ratio:5.2f} of PoolManager.urlopen (at most 1.10)")
    transport.close()
    client.close()
    manager.clear()


def _download(host: str, digest: Digest) -> None:
    buffer = bytearray(4 * MIB)

    def verified() -> None:
        with Client(host, insecure=True) as client, client.get_blob("bench", digest) as reader:
            while reader.readinto(buffer):
                pass

    def hashed() -> None:
        hasher = hashlib.sha256()
        for _ in range(256 // 4):
            hasher.update(_BLOCK)

    seconds, ratio = _pairs(hashed, verified, 9)
    print(
        f"{'verified download':<24} {256 * MIB / seconds * ratio / 1e6:7.0f} MB/s {ratio:5.2f} of SHA-256 alone (at least 0.80)"
    )


def _memory(job: str, host: str, small: Digest, huge: Digest) -> None:
    """Peak memory of a process that moves 4 MiB, and of one that moves 1 GiB."""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-m", "benchmarks", job, host, digest, str(mib)], stdout=-1, check=True
            ).stdout
        )
        for digest, mib in ((small, 4), (huge, 1024))
    ]
    print(
        f"{'peak memory of an ' + job if job == 'upload' else 'peak memory of a ' + job:<24} {peaks[0] / 1024:7.1f} MiB for 4 MiB, {peaks[1] / 1024:.1f} MiB for 1 GiB"
    )


def _child(job: str, host: str, digest: str, mib: str) -> None:
    with Client(host, insecure=True) as client:
        if job == "download":
            buffer = bytearray(MIB)
            with client.get_blob("bench", digest) as reader:
                while reader.readinto(buffer):
                    pass
        else:
            size = int(mib) * MIB
            client.push_blob("bench", Descriptor("application/octet-stream", Digest(digest), size), _produced(size))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _produced(size: int) -> Iterator[bytes]:
    for _ in range(size // MIB):
        yield _BLOCK[:MIB]


if __name__ == "__main__":
    main()
