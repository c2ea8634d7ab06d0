"""Transfers of large blobs: CPU time compared with a minimal loop, and wall time compared with other programs.

The server runs in another process. CPU times are those of this process, measured alternately in one run.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dxf
import oras.client

from benchmarks.figures import MIB, Figure, pairs, timed
from ociwire import Client, Digest
from ociwire.media_types import OCI_MANIFEST
from ociwire.transfer import download, upload

_TURNS = 7
_BUFFER = 256 * 1024
"""Buffer size of the minimal loops in bytes. It fits the processor's cache."""


def figures(host: str, digest: Digest, source: Path, folder: Path, taker: str) -> Iterator[Figure]:
    """Yield the figures of downloads from ``host`` to a folder and of uploads to ``taker``.

    Args:
        host: Host of an nginx.
        digest: Digest of a blob that it serves.
        source: File with the content of the blob.
        folder: Folder for downloads.
        taker: Host of a sink.
    """
    size, target = source.stat().st_size, folder / "target"
    what = f"{size // MIB} MiB"
    with Client(host, insecure=True) as client, Client(taker, insecure=True) as sink:
        plain = _without_target(target, lambda: _receive(host, digest, target))
        for workers in (1, 4):
            get = _without_target(target, _download(client, digest, target, workers))
            name = f"`transfer.download`, {what}, {workers} worker{'s' * (workers > 1)}"
            yield _cpu(name, get, plain, size, "a loop of receive, hash, write", "at most 1.10")
        plain = lambda: _receive(host, digest, None)  # noqa: E731
        name, than = f"`get_blob`, {what}", "a loop of receive, hash"
        yield _cpu(name, lambda: _read(client, digest), plain, size, than, "at most 1.05")
        plain = lambda: _send(taker, source)  # noqa: E731
        name, than = f"`transfer.upload`, {what}, its digest computed", "a loop of read, hash, send"
        yield _cpu(name, lambda: upload(sink, "bench", source), plain, size, than, "at most 1.10")
        get = _without_target(target, _download(client, digest, target, 4))
        for than, other, bound in (
            ("dxf", _with_dxf(host, digest, target), "at least 2"),
            ("oras-py, and SHA-256 of the file", _verified(_with_oras(host, digest, target), target), "at least 2"),
            ("oras-py, which does not verify", _with_oras(host, digest, target), ""),
        ):
            times = pairs(_without_target(target, other), get, _TURNS)
            speed = f"{size / times.second / 1e6:.0f} to {size / times.first / 1e6:.0f} MB/s"
            yield Figure("`transfer.download` of it", speed, times.ratio, f"the speed of {than}", bound)
    yield from _as_processes(host, digest, folder, target)


def limited(host: str, digest: Digest, size: int, folder: Path, rate: str) -> Figure:
    """Compare four workers with one, at a server that limits the rate of each connection."""
    target = folder / "target"
    with Client(host, insecure=True) as client:
        alone = timed(_without_target(target, _download(client, digest, target, 1)))
        together = timed(_without_target(target, _download(client, digest, target, 4)))
    what = f"`transfer.download`, {size // MIB} MiB, 4 workers, nginx with `limit_rate {rate}`"
    return Figure(what, f"{together:.1f} s to {alone:.1f} s", alone / together, "the speed of 1 worker", "at least 3.8")


def _cpu(
    what: str, ours: Callable[[], object], plain: Callable[[], object], size: int, than: str, bound: str
) -> Figure:
    times = pairs(ours, plain, _TURNS, clock=time.process_time)
    scale = 1024 * MIB / size
    measured = f"{times.first * scale:.2f} to {times.second * scale:.2f} s of CPU per GiB"
    return Figure(what, measured, times.ratio, f"the CPU time of {than}", bound)


def _as_processes(host: str, digest: Digest, folder: Path, target: Path) -> Iterator[Figure]:
    """Yield the wall times of complete programs that verify the blob."""
    url = f"http://{host}/v2/bench/blobs/{digest}"
    program = (
        "import sys; from ociwire import Client; from ociwire.transfer import download;"
        " download(Client(sys.argv[1], insecure=True), 'bench', sys.argv[2], sys.argv[3])"
    )
    image = folder / "image"
    _put_image(folder, digest)
    commands = {
        "ociwire": [sys.executable, "-c", program, host, digest, str(target)],
        "curl, tee and sha256sum": ["sh", "-c", shlex.join(["curl", "-s", url]) + f" | tee {target} | sha256sum"],
        "skopeo copy": [
            *("skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"),
            *(f"docker://{host}/bench:v1", f"dir:{image}"),
        ],
    }

    def run(name: str) -> Callable[[], object]:
        def program() -> None:
            subprocess.run(["rm", "-rf", str(image)], check=True)
            subprocess.run(commands[name], check=True, stdout=subprocess.DEVNULL)

        return _without_target(target, program)

    for name in list(commands)[1:]:
        times = pairs(run("ociwire"), run(name), _TURNS)
        measured = f"{times.first:.2f} s to {times.second:.2f} s"
        yield Figure(
            "`transfer.download` of it, as a process", measured, times.ratio, f"the time of {name}", "at most 0.90"
        )


def _put_image(folder: Path, digest: Digest) -> None:
    """Put an image whose only layer is the blob in the folder that nginx serves."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]}})
    blobs, manifests = folder / "v2" / "bench" / "blobs", folder / "v2" / "bench" / "manifests"
    manifests.mkdir(exist_ok=True)
    config_digest = Digest.of(config.encode())
    (blobs / config_digest).write_text(config)
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": digest,
        "size": (blobs / digest).stat().st_size,
    }
    entry = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": [layer]}
    (manifests / "v1").write_text(json.dumps(manifest))


def _download(client: Client, digest: Digest, target: Path, workers: int) -> Callable[[], object]:
    return lambda: download(client, "bench", digest, target, workers=workers)


def _receive(host: str, digest: Digest, target: Path | None) -> None:
    """Receive and hash the blob, and write it if there is a target."""
    connection = http.client.HTTPConnection(host)
    connection.request("GET", f"/v2/bench/blobs/{digest}")
    response = connection.getresponse()
    remaining = response.length or 0
    hasher = hashlib.sha256()
    file = None if target is None else os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with memoryview(bytearray(_BUFFER)) as buffer:
        while remaining:
            count = response.fp.readinto1(buffer[: min(remaining, _BUFFER)])
            with buffer[:count] as view:
                hasher.update(view)
                if file is not None:
                    os.write(file, view)
            remaining -= count
    if file is not None:
        os.close(file)
    connection.close()
    assert hasher.hexdigest() == digest.encoded


def _send(host: str, source: Path) -> None:
    """Read, hash and send the blob."""
    connection = http.client.HTTPConnection(host)
    connection.putrequest("PATCH", "/v2/bench/blobs/uploads/1")
    connection.putheader("Content-Length", str(source.stat().st_size))
    connection.endheaders()
    hasher = hashlib.sha256()
    with source.open("rb", buffering=0) as file, memoryview(bytearray(_BUFFER)) as buffer:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            connection.send(buffer[:count])
    connection.getresponse().read()
    connection.close()


def _read(client: Client, digest: Digest) -> None:
    buffer = bytearray(_BUFFER)
    with client.get_blob("bench", digest) as reader:
        while reader.readinto(buffer):
            pass


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


def _without_target(target: Path, function: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        target.unlink(missing_ok=True)
        function()

    return run
