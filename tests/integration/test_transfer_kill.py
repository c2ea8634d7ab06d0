"""Downloads whose process is killed (SIGKILL) at random moments resume, and complete with the right content.

A single-threaded driver imports ociwire once and forks a child for each attempt. The moments depend on a seed, which
the test prints. Attempts that complete before the signal are not counted as killed.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from ociwire import Client, Descriptor
from ociwire.media_types import OCTET_STREAM
from ociwire.testing import MemoryRegistry, serve

NAME = "real/killed"
KILLS = 100
SIZE = 12 * 1024 * 1024
PATIENCE = 60.0

DRIVER = """
import hashlib, os, random, signal, sys, time, traceback
from ociwire import Client
from ociwire.transfer import _download
from ociwire.transfer._download import download

_download._ALONE_SECONDS = 0.0  # use several connections from the start, although loopback is fast
_download._FAST_RATE = float("inf")
host, name, digest, target, seed, kills, workers = sys.argv[1:]
rng, longest = random.Random(int(seed)), 0.02
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
killed = finished = with_gaps = 0

def attempt():
    pid = os.fork()
    if pid:
        return pid
    try:
        with Client(host, insecure=True) as client:
            download(client, name, digest, target, workers=int(workers), part_size=256 * 1024)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

def has_footer():
    for name in os.listdir(os.path.dirname(target)):
        with open(os.path.join(os.path.dirname(target), name), "rb") as file:
            if file.read()[-36:].startswith(b"ociwire partial "):
                return True
    return False

def check():
    with open(target, "rb") as file:
        assert "sha256:" + hashlib.sha256(file.read()).hexdigest() == digest, "the content of the file is wrong"
    os.unlink(target)

while killed < int(kills):
    began, pid = time.monotonic(), attempt()
    if finished:
        signal.sigtimedwait({signal.SIGCHLD}, rng.random() * longest)
        os.kill(pid, signal.SIGKILL)  # no waitpid() yet, so that the pid cannot have been reused
    _, status = os.waitpid(pid, 0)
    signal.sigtimedwait({signal.SIGCHLD}, 0)
    with_gaps += has_footer()
    if os.WIFSIGNALED(status):
        killed += 1
    else:
        assert os.WEXITSTATUS(status) == 0, "an attempt failed"
        longest = longest if finished else 1.2 * (time.monotonic() - began)
        finished += 1
    if os.path.exists(target):
        check()
    else:
        assert os.WIFSIGNALED(status)
_, status = os.waitpid(attempt(), 0)
assert status == 0
check()
print(killed, finished, with_gaps, os.listdir(os.path.dirname(target)))
"""


def run_driver(host: str, digest: str, folder: Path, *, workers: int, kills: int) -> list[str]:
    """Return the numbers of killed, completed and sparse attempts, and the remaining files."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {workers} workers")  # noqa: T201 - shown if the test fails
    arguments = [host, NAME, digest, str(folder / "blob.bin"), str(seed), str(kills), str(workers)]
    process = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    print(process.stdout, process.stderr)  # noqa: T201 - shown if the test fails
    assert process.returncode == 0
    return process.stdout.split(maxsplit=3)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_download_killed_at_random_moments_completes(tmp_path: Path, workers: int) -> None:
    content = random.Random(1).randbytes(SIZE)
    descriptor = Descriptor.of(content, OCTET_STREAM)
    registry = MemoryRegistry()
    with serve(registry) as url, Client(url.host, insecure=True) as client:
        client.push_blob(NAME, descriptor, content)
        killed, finished, with_gaps, remaining = run_driver(
            url.host, descriptor.digest, tmp_path, workers=workers, kills=KILLS
        )
    assert int(killed) == KILLS
    assert int(finished) > 0
    assert (int(with_gaps) > 0) == (workers > 1)
    assert remaining.strip() == "[]"


@pytest.mark.slow
def test_download_from_docker_registry_killed_completes(registry_host: str, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(SIZE)
    descriptor = Descriptor.of(content, OCTET_STREAM)
    with Client(registry_host, insecure=True) as client:
        client.push_blob(NAME, descriptor, content)
    killed, _, _, remaining = run_driver(registry_host, descriptor.digest, tmp_path, workers=4, kills=KILLS // 2)
    assert int(killed) == KILLS // 2
    assert remaining.strip() == "[]"
