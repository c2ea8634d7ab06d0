"""Measures the figures of `docs/benchmarks.md`: ``python -m benchmarks`` prints them, ``--write`` updates the page."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks import concurrency, counts, heads, imports, memory, transfers
from benchmarks.figures import MIB, Figure
from benchmarks.servers import nginx, sink
from ociwire import Digest

_PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_BEGIN, _END = "<!-- made by `python -m benchmarks --write`: -->\n", "<!-- end of what was made -->\n"
_LIMIT = "12m"


def main() -> None:
    """Measure all figures, print each when it is ready, and write them to the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write the table into {_PAGE.name}")
    write = parser.parse_args().write
    lines = [*_machine(), "", "| what | measured | ratio | should be | |", "|---|---|---|---|---|"]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # in memory, so that the disk is not measured
        folder = Path(name)
        folder.chmod(0o755)
        for figure in _figures(folder):
            lines.append(figure.row)
            print(figure.row, flush=True)
    if write:
        page = _PAGE.read_text("utf-8")
        before, _, rest = page.partition(_BEGIN)
        _, _, after = rest.partition(_END)
        _PAGE.write_text("\n".join([before + _BEGIN, *lines, "", _END + after]), "utf-8")


def _figures(folder: Path) -> Iterator[Figure]:
    yield from imports.figures(folder)
    yield from counts.figures(folder)
    yield from concurrency.figures()
    small, huge = _blob(folder, 4096), _blob(folder, 1024 * MIB)
    with nginx(folder) as host, sink() as taker:
        yield from heads.figures(host, Digest(small.name))
        yield from transfers.figures(host, Digest(huge.name), huge, folder, taker)
        yield from memory.figures(host, taker, small, huge, folder)
    with nginx(folder, limit_rate=_LIMIT) as host:
        yield transfers.limited(host, Digest(huge.name), huge.stat().st_size, folder, _LIMIT)


def _machine() -> Iterator[str]:
    names = {"urllib3": "urllib3", "requests": "requests", "httpx": "httpx", "python-dxf": "dxf", "oras": "oras-py"}
    programs = ", ".join(f"{name} {version(package)}" for package, name in names.items())
    yield f"{_processor()}, {os.cpu_count()} cores; Linux {platform.release()}; loopback; files in memory."
    yield f"CPython {sys.version.split()[0]}, {programs}; nginx {_version('nginx -v')}; {_version('skopeo --version')}."


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(command: str) -> str:
    binary, *arguments = command.split()
    path = shutil.which(binary) or shutil.which(binary, path="/usr/sbin:/sbin")
    if path is None:
        sys.exit(f"{binary} is missing: apt-get install nginx-light skopeo")
    done = subprocess.run([path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    return done.stdout.splitlines()[0].rpartition("/")[2]


def _blob(folder: Path, size: int) -> Path:
    """Create a file of `size` bytes with its digest as the name, at the path that a registry serves."""
    blobs = folder / "v2" / "bench" / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    unnamed = blobs / "unnamed"
    hasher = hashlib.sha256()
    with unnamed.open("wb") as file:
        for number in range(0, size, 4096):
            block = number.to_bytes(8, "big") * 512
            hasher.update(block)
            file.write(block)
    return unnamed.rename(blobs / f"sha256:{hasher.hexdigest()}")


if __name__ == "__main__":
    main()
