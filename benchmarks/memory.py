"""Increase of the peak memory of a process during transfers of 1 GiB."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Figure
from ociwire import Client, Digest
from ociwire.transfer import download, upload

_MOST = 40


def figures(host: str, taker: str, small: Path, huge: Path, folder: Path) -> Iterator[Figure]:
    """Yield the increase for a download from ``host`` and an upload to ``taker``, each in its own process."""
    for job, where in (("download", host), ("upload", taker)):
        command = [sys.executable, "-m", "benchmarks.memory", job, where, str(small), str(huge), str(folder / "target")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        idle, peak = (int(word) / 1024 for word in done.stdout.split())
        what = f"`transfer.{job}`, 1 GiB: memory above idle"
        yield Figure(what, f"{peak - idle:.1f} MiB", bound=f"at most {_MOST} MiB", judged=peak - idle)


def main(job: str, host: str, small: str, huge: str, target: str) -> None:
    """Print the peak after the small transfer and after the large one, in KiB."""
    jobs: dict[str, Callable[[Client, Path], object]] = {
        "download": lambda client, path: download(client, "bench", Digest(path.name), target),
        "upload": lambda client, path: upload(client, "bench", path),
    }
    with Client(host, insecure=True) as client:
        for path in (small, huge):
            jobs[job](client, Path(path))
            print(_peak())
    Path(target).unlink(missing_ok=True)


def _peak() -> int:
    """Return the peak of this program alone. `getrusage` includes the memory of the process that started it."""
    match = re.search(r"^VmHWM:\s+([0-9]+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
