"""A download whose process is killed (SIGKILL) at a random moment, again and again, ends in the right file.

A process of one thread has everything imported, and forks: each child is one attempt. The moments are random, by a seed
that is printed; those who got to the end before they were killed do not count as killed.
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
from ociwire.transfer import probe
from ociwire.transfer._download import download

host, name, digest, target, seed, kills, eager = sys.argv[1:]
if eager == "1":  # several connections at once, whether they pay or not
    probe.WINDOW, probe.WORTH, probe.GAIN = 0.0, 0.0, 0.0
chance, longest = random.Random(int(seed)), 0.02
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
killed = finished = scattered = 0

def attempt():
    pid = os.fork()
    if pid:
        return pid
    try:
        with Client(host, insecure=True) as client:
            download(client, name, digest, target, workers=4, part_size=256 * 1024)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

def check():
    with open(target, "rb") as file:
        assert "sha256:" + hashlib.sha256(file.read()).hexdigest() == digest, "a wrong file"
    os.unlink(target)

while killed < int(kills):
    began, pid = time.monotonic(), attempt()
    if finished:
        signal.sigtimedwait({signal.SIGCHLD}, chance.random() * longest)
        os.kill(pid, signal.SIGKILL)  # it is not waited for yet, so this is nobody else
    _, status = os.waitpid(pid, 0)
    signal.sigtimedwait({signal.SIGCHLD}, 0)
    scattered += any(one.endswith(".mark") for one in os.listdir(os.path.dirname(target)))
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
print(killed, finished, scattered, os.listdir(os.path.dirname(target)))
"""


def kill(host: str, digest: str, folder: Path, *, eager: bool, kills: int) -> list[str]:
    """How many were killed, how many got to the end, how many were killed among gaps; and what is left."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, eager {eager}")  # noqa: T201 - to be seen where it fails
    arguments = [host, NAME, digest, str(folder / "blob.bin"), str(seed), str(kills), "1" if eager else "0"]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    print(done.stdout, done.stderr)  # noqa: T201 - to be seen where it fails
    assert done.returncode == 0
    return done.stdout.split(maxsplit=3)


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True], ids=["one stream", "several"])
def test_killed_at_a_random_moment(tmp_path: Path, eager: bool) -> None:
    content = random.Random(1).randbytes(SIZE)
    described = Descriptor.of(content, OCTET_STREAM)
    registry = MemoryRegistry()
    with serve(registry) as url, Client(url.host, insecure=True) as client:
        client.push_blob(NAME, described, content)
        killed, finished, scattered, left = kill(url.host, described.digest, tmp_path, eager=eager, kills=KILLS)
    assert int(killed) == KILLS
    assert int(finished) > 0
    assert (int(scattered) > 0) == eager
    assert left.strip() == "[]"


@pytest.mark.slow
def test_killed_over_a_real_registry(registry_host: str, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(SIZE)
    described = Descriptor.of(content, OCTET_STREAM)
    with Client(registry_host, insecure=True) as client:
        client.push_blob(NAME, described, content)
    killed, _, _, left = kill(registry_host, described.digest, tmp_path, eager=True, kills=KILLS // 2)
    assert int(killed) == KILLS // 2
    assert left.strip() == "[]"
