"""Operations of all kinds at once: ``python -m tests.soak [--seconds 60 | --operations N] [--seed N] [--threads 16]``.

Threads do operations of all kinds, through the whole stack, against a docker-registry of their own, while faults are
injected below the stack and on the network, readers are left open in reference cycles, and garbage is collected at
random points of the operations. An operation may end in a named error. It may not end in wrong bytes or anybody else's
exception, or hang; what it says is stored must be there in the end; and no connection, thread or memory is left.

With ``--memory`` the registry is a `MemoryRegistry` behind `ociwire.testing.serve`, in this process: then its memory is
not measured.

The seed settles what each thread chooses and which of its requests fail; how the threads take turns, nothing does.
"""

# ruff: noqa: T201 - it reports

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import io
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import ociwire.transport.retry
from ociwire import Client, Descriptor, Digest, default_transport
from ociwire._client.blob_reader import BlobReader
from ociwire._http.messages import Request, Response
from ociwire.auth import Anonymous
from ociwire.errors import BlobUnknown, ManifestUnknown, OciwireError, TransportError, UsageError
from ociwire.media_types import OCI_MANIFEST
from ociwire.testing import MemoryRegistry, serve
from ociwire.testing.faults import FAULTS, Fault, FaultTransport
from ociwire.transport import Transport, UrllibTransport
from tests.integration.conftest import Registries
from tests.transport.urllib3.fault_proxy import KINDS, NO_FAULT, FaultProxy, NetworkFault

RATE, NETWORK_RATE = 0.06, 0.15
"""How many of the requests fail, below the stack and in the proxy."""
CHAOS = 0.25
"""How many of the operations go through the proxy."""
COLLECTED = 0.2
"""In how many of the operations the garbage collector runs at a random point."""
POINTS = 2000
"""The latest such point: so many calls and returns of functions after the beginning of the operation."""
PAUSE = 0.002
"""The longest that a retry waits here, in seconds."""
TIMEOUT, STALLED = 30.0, 1.0
"""The client's timeouts, in seconds: for the registry itself, and through the proxy."""
GRACE = 60.0
"""How long the threads may take to end what they are about, in seconds, before it is called a hang."""
CONFIG = Descriptor.of(b"{}", "application/vnd.oci.image.config.v1+json")
CHUNK = 20_000
FLIPPED = "flipped byte"
NETWORK = [kind for kind in KINDS if kind not in ("goes down", "reset at accept")]
"""What happens in the proxy: all but what would need somebody to mend it."""

TROUBLED = threading.local()
NO_VIOLATION = "no violation"


@dataclass
class Ledger:
    """What happened. Shared by the threads, each of which writes under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    done: Counter[str] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    blobs: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    verified: int = 0
    """Bytes that were pulled and found right."""
    collected: int = 0
    """How often the garbage collector ran in the middle of an operation."""

    def wait(self, over: threading.Event, seconds: float, operations: int | None) -> None:
        """Wait for so many seconds, or until so many operations are done."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and (operations is None or self.done.total() < operations):
            over.wait(0.05)

    def violation(self, what: str) -> None:
        with self.lock:
            self.violations.append(what)


class Noting:
    """The base of a stack, which notes in the thread that one of its requests failed."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def round_trip(self, request: Request, /) -> Response:
        try:
            return self._inner.round_trip(request)
        except TransportError:
            TROUBLED.times += 1
            raise

    def close(self) -> None:
        self._inner.close()


def noted(name: str) -> Fault:
    """A fault that notes in the thread that it has happened."""

    def fault(request: Request, inner: Transport, chance: random.Random) -> Response:
        TROUBLED.times += 1
        return FAULTS[name](request, inner, chance)

    fault.__name__ = name
    return fault


class World:
    """The ways to the registry: one with faults below the stack, one through the proxy with both.

    Args:
        registry: ``host:port``.
        seed: For all that is left to chance.
        flips: Whether bytes of answers may be turned over: not where there is no digest to see it by.
    """

    def __init__(self, registry: str, seed: str, *, flips: bool) -> None:
        kinds = [kind for kind in NETWORK if flips or kind != FLIPPED]
        faults = [noted(name) for name in FAULTS if flips or name != FLIPPED]

        def by_chance(number: int, line: str) -> NetworkFault:
            chance = random.Random(f"{seed}/network/{number}")
            hit = chance.random() < NETWORK_RATE
            return NetworkFault(chance.choice(kinds), at=chance.randrange(500)) if hit else NO_FAULT

        def stack(timeout: float, name: str) -> Transport:
            base = UrllibTransport(timeout=timeout, expect_timeout=0.2, trust_env=False)
            faulty = FaultTransport(Noting(base), seed=hash_of(seed, name), rate=RATE, faults=faults)
            self.faulty.append(faulty)
            return default_transport(base=faulty, credentials=Anonymous())

        self.faulty: list[FaultTransport] = []
        self.chaos = FaultProxy(registry, choose=by_chance)
        self.near = Client(registry, stack(TIMEOUT, "near"), insecure=True)
        self.far = Client(self.chaos.host, stack(STALLED, "far"), insecure=True)

    def client(self, chance: random.Random) -> Client:
        return self.far if chance.random() < CHAOS else self.near

    def injected(self) -> Counter[str]:
        below = Counter(one.fault for faulty in self.faulty for one in faulty.injected)
        return below + Counter(f"network: {kind}" for kind in self.chaos.injected)

    def close(self) -> int:
        """Close all; how many connections the proxy then still had."""
        for client in (self.near, self.far):
            client.transport.close()
            client.close()
        left: int = self.chaos.open_connections()
        self.chaos.close()
        return left


def hash_of(*parts: str) -> int:
    return int(Digest.of("/".join(parts).encode()).encoded[:12], 16)


def made(recipe: tuple[str, int]) -> bytes:
    """The content of a blob, which nobody has to keep."""
    name, size = recipe
    return random.Random(name).randbytes(size)


def suspended(reader: BlobReader) -> Iterator[None]:
    """A generator that closes a reader when the garbage collector closes the generator."""
    with reader:
        yield


def begun(reader: BlobReader) -> Iterator[None]:
    generator = suspended(reader)
    next(generator)
    return generator


HOLDERS: tuple[Callable[[BlobReader], object], ...] = (lambda reader: reader, io.BufferedReader, begun)
"""What may be left open with a reader in it."""


class Worker(threading.Thread):
    """One thread: operations in repositories of its own, one after the other.

    Args:
        number: Which thread it is.
        seed: For its choices.
        ledger: Where it writes what happened.
        digests: Where faults of all kinds may be injected.
        plain: Where only those may that show without a digest.
        clean: A client without faults.
        over: When to end.
    """

    def __init__(
        self, number: int, seed: str, ledger: Ledger, digests: World, plain: World, clean: Client, over: threading.Event
    ) -> None:
        super().__init__(name=f"soak-{number}", daemon=True)
        self.chance = random.Random(f"{seed}/{number}")
        self.home, self.other = f"soak/{number}/home", f"soak/{number}/other"
        self.ledger, self.digests, self.plain, self.clean, self.over = ledger, digests, plain, clean, over
        self.seed = seed
        self.count = 0
        self.mine: dict[str, tuple[str, int]] = {}  # blobs in `home`, by digest
        self.tagged: dict[str, str] = {}  # digests, by tag
        self.referring: set[str] = set()  # what has been, or may have been, pushed with a subject

    def run(self) -> None:
        try:
            for repository in (self.home, self.other):
                self.clean.push_blob(repository, CONFIG, b"{}")
            self.subject = self.clean.push_manifest(self.home, self.image("subject"), OCI_MANIFEST, tags=["subject"])
            operations = list(OPERATIONS)
            weights = [OPERATIONS[operation] for operation in operations]
            while not self.over.is_set():
                self.count += 1
                self.one(self.chance.choices(operations, weights)[0])
        except Exception:  # noqa: BLE001 - whatever it is, it is reported
            self.ledger.violation(f"{self.name} {self.count}: {traceback.format_exc()}")

    def one(self, operation: Callable[[Worker], object]) -> None:
        name = operation.__name__
        TROUBLED.times = 0
        error: OciwireError | None = None
        try:
            if self.chance.random() < COLLECTED:
                sys.setprofile(self.collects_at(self.chance.randrange(POINTS)))
            operation(self)
        except UsageError:
            raise
        except OciwireError as named:
            error = named
        finally:
            sys.setprofile(None)
        with self.ledger.lock:
            self.ledger.done[name] += 1
            if error is not None:
                self.ledger.failed[name] += 1
                self.ledger.errors[type(error).__name__] += 1
            elif TROUBLED.times:
                self.ledger.recovered[name] += 1

    def collects_at(self, point: int) -> Callable[[FrameType, str, object], None]:
        """A profiler that runs the garbage collector at the n-th call or return of a function."""
        seen = 0

        def profile(frame: FrameType, event: str, arg: object) -> None:
            nonlocal seen
            seen += 1
            if seen > point:
                sys.setprofile(None)
                self.ledger.collected += 1
                gc.collect()

        return profile

    # --- what it has ---

    def recipe(self) -> tuple[str, int]:
        large = self.chance.random() < 0.1
        size = self.chance.randrange(260_000, 700_000) if large else self.chance.randrange(1, 60_000)
        return f"{self.seed}/{self.name}/{self.count}", size

    def image(self, name: str, **fields: Any) -> bytes:
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG.to_dict(), "layers": []}
        return json.dumps({**manifest, "annotations": {"name": f"{self.name} {name}"}, **fields}).encode()

    def some(self, what: dict[str, Any]) -> str | None:
        return self.chance.choice(list(what)) if what else None

    def stored(self, digest: str, recipe: tuple[str, int]) -> None:
        self.mine[digest] = recipe
        with self.ledger.lock:
            self.ledger.blobs[self.home, digest] = recipe

    def right(self, found: bytes, wanted: bytes, what: str) -> None:
        if found != wanted:
            self.ledger.violation(f"{self.name} {self.count}: wrong bytes: {what}")
        with self.ledger.lock:
            self.ledger.verified += len(found)

    # --- what it does ---

    def push(self) -> None:
        recipe = self.recipe()
        content = made(recipe)
        pushed = self.digests.client(self.chance).push_blob(self.home, Descriptor.of(content), content)
        self.stored(pushed.digest, recipe)

    def push_one_shot(self) -> None:
        recipe = self.recipe()
        content = made(recipe)
        pieces = (content[start : start + 7000] for start in range(0, len(content), 7000))
        pushed = self.digests.client(self.chance).push_blob(self.home, Descriptor.of(content), pieces)
        self.stored(pushed.digest, recipe)

    def push_chunked(self) -> None:
        recipe = self.recipe()
        with self.digests.client(self.chance).push_blob_chunked(self.home, CHUNK) as writer:
            writer.write(made(recipe))
            pushed = writer.commit()
        self.stored(pushed.digest, recipe)

    def pull(self) -> None:
        digest = self.some(self.mine)
        if digest is not None:
            with self.digests.client(self.chance).get_blob(self.home, digest) as reader:
                self.right(reader.read(), made(self.mine[digest]), f"get_blob {digest}")

    def pull_and_stop(self) -> None:
        digest = self.some(self.mine)
        if digest is not None:
            with self.digests.client(self.chance).get_blob(self.home, digest) as reader:
                reader.read(min(100, reader.descriptor.size - 1))

    def leave_open(self) -> None:
        digest = self.some(self.mine)
        if digest is not None:
            reader = self.digests.client(self.chance).get_blob(self.home, digest)
            reader.read(self.chance.randrange(reader.descriptor.size))
            cycle = [self.chance.choice(HOLDERS)(reader)]
            cycle.append(cycle)

    def pull_range(self) -> None:
        digest = self.some(self.mine)
        if digest is not None:
            content = made(self.mine[digest])
            start = self.chance.randrange(len(content))
            stop = self.chance.randrange(start, len(content)) + 1
            with self.plain.client(self.chance).get_blob_range(self.home, digest, start, stop) as reader:
                self.right(reader.read(), content[start:stop], f"get_blob_range {digest} {start} {stop}")

    def resolve(self) -> None:
        digest = self.some(self.mine)
        if digest is not None:
            size = self.digests.client(self.chance).resolve_blob(self.home, digest).size
            if size != self.mine[digest][1]:
                self.ledger.violation(f"{self.name} {self.count}: wrong size: resolve_blob {digest}")

    def mount(self) -> None:
        digest = self.some(self.mine)
        if digest is not None:
            self.digests.client(self.chance).mount_blob(self.home, self.other, digest)
            with self.ledger.lock:
                self.ledger.blobs[self.other, digest] = self.mine[digest]

    def delete(self) -> None:
        digest = self.some(self.mine)
        if digest is not None:
            del self.mine[digest]  # however it ends, nobody says any more that it is there
            with self.ledger.lock:
                del self.ledger.blobs[self.home, digest]
            self.digests.client(self.chance).delete_blob(self.home, digest)
            with contextlib.suppress(BlobUnknown):
                self.clean.resolve_blob(self.home, digest)
                self.ledger.violation(f"{self.name} {self.count}: it was deleted and is there: {digest}")

    def push_manifest(self) -> None:
        content = self.image(str(self.count))
        tags = [f"t{self.count}-{index}" for index in range(self.chance.randrange(3))]
        pushed = self.digests.client(self.chance).push_manifest(self.home, content, OCI_MANIFEST, tags=tags)
        self.tagged.update(dict.fromkeys(tags, pushed.digest))
        with self.ledger.lock:
            self.ledger.manifests[self.home, pushed.digest] = content

    def pull_tag(self) -> None:
        tag = self.some(self.tagged)
        if tag is not None:
            with self.digests.client(self.chance).get_tag(self.home, tag) as reader:
                self.right(reader.read(), self.ledger.manifests[self.home, self.tagged[tag]], f"get_tag {tag}")

    def list_tags(self) -> None:
        found = set(self.plain.client(self.chance).tags(self.home))
        if not set(self.tagged) <= found:
            self.ledger.violation(f"{self.name} {self.count}: tags are missing: {set(self.tagged) - found}")

    def list_repositories(self) -> None:
        found = list(self.plain.client(self.chance).repositories(start_after=f"{self.home[:-4]}a", limit=2))
        if found != [self.home, self.other]:
            self.ledger.violation(f"{self.name} {self.count}: wrong repositories: {found}")

    def refer(self) -> None:
        content = self.image(str(self.count), subject=self.subject.to_dict())
        self.referring.add(Digest.of(content))
        self.digests.client(self.chance).push_manifest(self.home, content, OCI_MANIFEST)
        with self.ledger.lock:
            self.ledger.manifests[self.home, Digest.of(content)] = content

    def list_referrers(self) -> None:
        found = {one.digest for one in self.digests.client(self.chance).referrers(self.home, self.subject.digest)}
        if not found <= self.referring:
            self.ledger.violation(f"{self.name} {self.count}: foreign referrers: {found - self.referring}")

    def delete_manifest(self) -> None:
        digest = next((digest for repository, digest in list(self.ledger.manifests) if repository == self.home), None)
        if digest is not None:
            self.tagged = {tag: named for tag, named in self.tagged.items() if named != digest}
            with self.ledger.lock:
                del self.ledger.manifests[self.home, digest]
            self.digests.client(self.chance).delete_manifest(self.home, digest)
            with contextlib.suppress(ManifestUnknown):
                self.clean.resolve_manifest(self.home, digest)
                self.ledger.violation(f"{self.name} {self.count}: it was deleted and is there: {digest}")


OPERATIONS: dict[Callable[[Worker], object], int] = {
    Worker.push: 8,
    Worker.push_one_shot: 6,
    Worker.push_chunked: 5,
    Worker.pull: 14,
    Worker.pull_and_stop: 3,
    Worker.leave_open: 8,
    Worker.pull_range: 8,
    Worker.resolve: 8,
    Worker.mount: 4,
    Worker.delete: 3,
    Worker.push_manifest: 5,
    Worker.pull_tag: 8,
    Worker.list_tags: 3,
    Worker.list_repositories: 1,
    Worker.refer: 1,
    Worker.list_referrers: 2,
    Worker.delete_manifest: 2,
}
"""How often each of them is chosen, relative to the others."""


# --- what is left ---


def resident() -> int:
    """The memory that this process has, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def connections_to(ports: set[int]) -> list[str]:
    """The sockets of this process that are connected to one of the ports, in whatever state."""
    own = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            own.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [row[2] for row in rows if int(row[2].partition(":")[2], 16) in ports and f"socket:[{row[9]}]" in own]


def verify(ledger: Ledger, clean: Client) -> int:
    """Pull all that is said to be stored, with a client without faults; how much of it was right."""
    passed = 0
    wanted: list[tuple[Callable[[str, str], Any], str, str, Callable[[], bytes]]] = [
        *((clean.get_blob, *key, lambda recipe=recipe: made(recipe)) for key, recipe in ledger.blobs.items()),
        *((clean.get_manifest, *key, lambda content=content: content) for key, content in ledger.manifests.items()),
    ]
    for get, repository, digest, content in wanted:
        try:
            with get(repository, digest) as reader:
                found = reader.read()
            if found != content():
                raise AssertionError("wrong bytes")
            ledger.verified += len(found)
            passed += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            ledger.violation(f"said to be stored: {repository} {digest}: {error!r}")
    return passed


@contextlib.contextmanager
def registry(*, memory: bool) -> Iterator[str]:
    if memory:
        with serve(MemoryRegistry()) as url:
            yield url.host
        return
    binary = shutil.which("docker-registry")
    if binary is None:
        raise SystemExit("docker-registry is not installed")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as processes:
        yield Registries(binary, lambda name: Path(tempfile.mkdtemp(dir=folder)), processes).start()


def soak(seconds: float, operations: int | None, seed: str, threads: int, *, memory: bool) -> int:
    """Run it, print the table and return the exit status.

    Args:
        seconds: When to end.
        operations: After how many operations to end, if that comes first.
        seed: For all that is left to chance.
        threads: How many do operations.
        memory: Whether the registry is in the memory of this process.
    """
    print(f"seed: {seed}", flush=True)
    ledger = Ledger()
    sys.unraisablehook = lambda args: ledger.violation(f"ignored: {args.exc_value!r} in {args.object!r}")
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".* not read to its end or closed|.* never read to its end", ResourceWarning)
    before_threads = threading.active_count()
    wait = time.sleep
    ociwire.transport.retry.time = SimpleNamespace(  # type: ignore[assignment, attr-defined]
        sleep=lambda pause: wait(min(pause, PAUSE)), time=time.time, monotonic=time.monotonic
    )
    with registry(memory=memory) as host, contextlib.closing(UrllibTransport(timeout=TIMEOUT, trust_env=False)) as base:
        clean = Client(host, base, insecure=True)
        worlds = World(host, f"{seed}/a", flips=True), World(host, f"{seed}/b", flips=False)
        ports = {int(name.rpartition(":")[2]) for name in (host, *(world.chaos.host for world in worlds))}
        over = threading.Event()
        workers = [Worker(number, seed, ledger, *worlds, clean, over) for number in range(threads)]
        for worker in workers:
            worker.start()
        ledger.wait(over, seconds / 3, operations and operations // 3)
        gc.collect()
        warm = resident()
        ledger.wait(over, seconds * 2 / 3, operations)
        over.set()
        faulthandler.dump_traceback_later(5 * GRACE, exit=True)
        ends = time.monotonic() + GRACE
        for worker in workers:
            worker.join(max(0.0, ends - time.monotonic()))
            if worker.is_alive():
                ledger.violation(f"{worker.name} {worker.count} hangs")
                faulthandler.dump_traceback()
        passed = verify(ledger, clean)
        gc.collect()  # what was left open
        behind = sum(world.close() for world in worlds)
        base.close()
        faulthandler.cancel_dump_traceback_later()
        left = connections_to(ports)
        gc.collect()
        left_after_gc = connections_to(ports)
        end = resident()
        injected = worlds[0].injected() + worlds[1].injected()
    checks = {
        NO_VIOLATION: not ledger.violations,
        "no connection is left, this side of the proxy": not left and not left_after_gc,
        "no connection is left, that side of the proxy": behind == 0,
        "memory is flat": memory or end <= warm * 1.1 + 10 * 1024 * 1024,
        "all threads have ended": threading.active_count() == before_threads,
        "something was done, and something went wrong": bool(passed and injected and ledger.recovered),
        "all operations were done": operations is None or ledger.done.total() >= operations,
        "readers were left open and collected": bool(ledger.done["leave_open"] and ledger.collected),
    }
    report(ledger, injected, f"{warm / 2**20:.1f} / {end / 2**20:.1f} MiB", f"{len(left)} / {len(left_after_gc)}")
    wrong = [name for name, holds in checks.items() if not holds]
    for text in [*ledger.violations[:20], *wrong]:
        print(f"VIOLATION: {text}")
    if wrong:
        print(f"seed: {seed} (repeat it with --seed {seed} and the same options)")
    failed = len(ledger.violations) + sum(name != NO_VIOLATION for name in wrong)
    print(f"{passed + len(checks) - len(wrong)} passed, {failed} failed")
    return 1 if wrong else 0


def report(ledger: Ledger, injected: Counter[str], memory: str, left: str) -> None:
    print(f"{'operation':24} {'done':>7} {'recovered':>10} {'named error':>12}")
    for name in sorted(ledger.done):
        print(f"{name:24} {ledger.done[name]:7} {ledger.recovered[name]:10} {ledger.failed[name]:12}")
    totals = (sum(counter.values()) for counter in (ledger.done, ledger.recovered, ledger.failed))
    print("{:24} {:7} {:10} {:12}".format("all", *totals))
    rows = {
        f"faults injected ({injected.total()})": injected,
        f"named errors ({ledger.errors.total()})": ledger.errors,
    }
    for title, counter in rows.items():
        print(f"{title}: {', '.join(f'{name} {count}' for name, count in counter.most_common())}")
    print(f"verified: {ledger.verified / 2**20:.1f} MiB, {len(ledger.blobs)} blobs, {len(ledger.manifests)} manifests")
    print(f"garbage collections in the middle of an operation: {ledger.collected}")
    print(f"memory after a third / at the end: {memory}")
    print(f"connections left, before / after gc: {left}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=None, help="defaults to 60, or 600 with --operations")
    parser.add_argument("--operations", type=int, default=None, help="end after so many operations")
    parser.add_argument("--memory", action="store_true", help="against a MemoryRegistry in this process")
    parser.add_argument("--seed", default=None, help="what the last run printed; another one each time if left out")
    parser.add_argument("--threads", type=int, default=16)
    arguments = parser.parse_args()
    seed = arguments.seed or str(random.SystemRandom().randrange(10**9))
    seconds = arguments.seconds or (60.0 if arguments.operations is None else 600.0)
    return soak(seconds, arguments.operations, seed, arguments.threads, memory=arguments.memory)


if __name__ == "__main__":
    sys.exit(main())
