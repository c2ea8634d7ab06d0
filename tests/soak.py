"""Soak test: ``python -m tests.soak [--seconds S | --operations N] [--seed N] [--threads N] [--memory]``.

The threads use the default stack with a docker-registry that the test starts. Faults are injected below the stack and
in the network, readers are leaked in reference cycles, and garbage is collected at random points of the operations. An
operation may raise an `OciwireError`. It must not return wrong bytes, raise another exception, or hang. At the end, all
content that was reported as stored must be stored, and no connection, thread or memory may be leaked.

With ``--memory`` the registry is a `MemoryRegistry` behind `ociwire.testing.serve` in the same process, and memory is
not measured.

The seed determines the operations and faults of each thread, but not the scheduling of threads.
"""

# ruff: noqa: T201 - it prints a report

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

import ociwire._client.upload_completion
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
"""Fraction of the requests that fail, below the stack and in the proxy."""
PROXY_RATE = 0.25
"""Fraction of the operations that use the proxy."""
COLLECTION_RATE = 0.2
"""Fraction of the operations during which garbage is collected at a random point."""
POINTS = 2000
"""Latest random point: number of calls and returns of functions since the start of the operation."""
PAUSE = 0.002
"""Maximum wait of a retry in seconds."""
TIMEOUT, STALLED = 30.0, 1.0
"""Timeouts in seconds of the clients: of the direct one, and of the one through the proxy."""
GRACE = 60.0
"""Seconds after which a thread that does not end is reported as hanging."""
CONFIG = Descriptor.of(b"{}", "application/vnd.oci.image.config.v1+json")
CHUNK = 20_000
FLIPPED = "flipped byte"
NETWORK = [kind for kind in KINDS if kind not in ("goes down", "reset at accept")]
"""Faults of the proxy: all that do not require a restart of it."""

THREAD = threading.local()
NO_VIOLATION = "no violation"


@dataclass
class Ledger:
    """Results of all threads, updated under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    done: Counter[str] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    blobs: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    verified: int = 0
    """Number of bytes that were pulled and verified."""
    collected: int = 0
    """Number of garbage collections during operations."""

    def wait(self, stop: threading.Event, seconds: float, operations: int | None) -> None:
        """Wait for a number of seconds, or until a number of operations is done."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and (operations is None or self.done.total() < operations):
            stop.wait(0.05)

    def add_violation(self, text: str) -> None:
        with self.lock:
            self.violations.append(text)


class FaultCounter:
    """Number of failed requests per thread."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def round_trip(self, request: Request, /) -> Response:
        try:
            return self._inner.round_trip(request)
        except TransportError:
            THREAD.faults += 1
            raise

    def close(self) -> None:
        self._inner.close()


def counted(name: str) -> Fault:
    """Fault that is counted for its thread."""

    def fault(request: Request, inner: Transport, rng: random.Random) -> Response:
        THREAD.faults += 1
        return FAULTS[name](request, inner, rng)

    fault.__name__ = name
    return fault


class World:
    """Two clients of the registry: one with faults below the stack, and one that also uses the faulty proxy.

    Args:
        registry: ``host:port``.
        seed: The seed of all random choices.
        flips: Whether bits of responses may be flipped, which only a digest detects.
    """

    def __init__(self, registry: str, seed: str, *, flips: bool) -> None:
        kinds = [kind for kind in NETWORK if flips or kind != FLIPPED]
        faults = [counted(name) for name in FAULTS if flips or name != FLIPPED]

        def by_chance(number: int, line: str) -> NetworkFault:
            rng = random.Random(f"{seed}/network/{number}")
            hit = rng.random() < NETWORK_RATE
            return NetworkFault(rng.choice(kinds), at=rng.randrange(500)) if hit else NO_FAULT

        def stack(timeout: float, name: str) -> Transport:
            base = UrllibTransport(timeout=timeout, expect_timeout=0.2, trust_env=False)
            faulty = FaultTransport(FaultCounter(base), seed=seed_of(seed, name), rate=RATE, faults=faults)
            self.faulty.append(faulty)
            return default_transport(base=faulty, credentials=Anonymous())

        self.faulty: list[FaultTransport] = []
        self.proxy = FaultProxy(registry, choose=by_chance)
        self.direct = Client(registry, stack(TIMEOUT, "direct"), insecure=True)
        self.proxied = Client(self.proxy.host, stack(STALLED, "proxied"), insecure=True)

    def client(self, rng: random.Random) -> Client:
        return self.proxied if rng.random() < PROXY_RATE else self.direct

    def injected(self) -> Counter[str]:
        below = Counter(fault.fault for faulty in self.faulty for fault in faulty.injected)
        return below + Counter(f"network: {kind}" for kind in self.proxy.injected)

    def close(self) -> int:
        """Close everything. Return the number of connections that the proxy still had."""
        for client in (self.direct, self.proxied):
            client.transport.close()
            client.close()
        open_connections: int = self.proxy.open_connections()
        self.proxy.close()
        return open_connections


def seed_of(*parts: str) -> int:
    return int(Digest.of("/".join(parts).encode()).encoded[:12], 16)


def make_content(recipe: tuple[str, int]) -> bytes:
    """Return the content of a blob, which is generated from its recipe."""
    name, size = recipe
    return random.Random(name).randbytes(size)


def closing_generator(reader: BlobReader) -> Iterator[None]:
    """Generator that closes a reader when the garbage collector closes the generator."""
    with reader:
        yield


def start_generator(reader: BlobReader) -> Iterator[None]:
    generator = closing_generator(reader)
    next(generator)
    return generator


HOLDERS: tuple[Callable[[BlobReader], object], ...] = (lambda reader: reader, io.BufferedReader, start_generator)
"""Objects that may be leaked together with a reader that they hold."""


class Worker(threading.Thread):
    """Thread that runs operations in its own repositories.

    Args:
        number: The number of the thread.
        seed: The seed of its choices.
        ledger: Records the results.
        verified_world: For operations whose result is verified by a digest: with faults of all kinds.
        unverified_world: For all others: without flipped bits.
        clean: A client without faults.
        stop: Set to end the thread.
    """

    def __init__(
        self,
        number: int,
        seed: str,
        ledger: Ledger,
        verified_world: World,
        unverified_world: World,
        clean: Client,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"soak-{number}", daemon=True)
        self.rng = random.Random(f"{seed}/{number}")
        self.home, self.other = f"soak/{number}/home", f"soak/{number}/other"
        self.ledger, self.verified_world, self.unverified_world, self.clean, self.stop = (
            ledger,
            verified_world,
            unverified_world,
            clean,
            stop,
        )
        self.seed = seed
        self.count = 0
        self.blobs: dict[str, tuple[str, int]] = {}  # blobs in `home`, by digest
        self.digests_by_tag: dict[str, str] = {}  # digests, by tag
        self.referrers_pushed: set[str] = set()  # digests that were, or may have been, pushed with a subject

    def run(self) -> None:
        try:
            for repository in (self.home, self.other):
                self.clean.push_blob(repository, CONFIG, b"{}")
            self.subject = self.clean.push_manifest(self.home, self.image("subject"), OCI_MANIFEST, tags=["subject"])
            operations = list(OPERATIONS)
            weights = [OPERATIONS[operation] for operation in operations]
            while not self.stop.is_set():
                self.count += 1
                self.run_operation(self.rng.choices(operations, weights)[0])
        except Exception:  # noqa: BLE001 - every exception is reported
            self.ledger.add_violation(f"{self.name} {self.count}: {traceback.format_exc()}")

    def run_operation(self, operation: Callable[[Worker], object]) -> None:
        name = operation.__name__
        THREAD.faults = 0
        error: OciwireError | None = None
        try:
            if self.rng.random() < COLLECTION_RATE:
                sys.setprofile(self.profiler_collecting_at(self.rng.randrange(POINTS)))
            operation(self)
        except UsageError:
            raise
        except OciwireError as raised:
            error = raised
        finally:
            sys.setprofile(None)
        with self.ledger.lock:
            self.ledger.done[name] += 1
            if error is not None:
                self.ledger.failed[name] += 1
                self.ledger.errors[type(error).__name__] += 1
            elif THREAD.faults:
                self.ledger.recovered[name] += 1

    def profiler_collecting_at(self, point: int) -> Callable[[FrameType, str, object], None]:
        """Profile function that collects garbage at the n-th call or return of a function."""
        events = 0

        def profile(frame: FrameType, event: str, arg: object) -> None:
            nonlocal events
            events += 1
            if events > point:
                sys.setprofile(None)
                self.ledger.collected += 1
                gc.collect()

        return profile

    # --- helpers ---

    def new_recipe(self) -> tuple[str, int]:
        large = self.rng.random() < 0.1
        size = self.rng.randrange(260_000, 700_000) if large else self.rng.randrange(1, 60_000)
        return f"{self.seed}/{self.name}/{self.count}", size

    def image(self, name: str, **fields: Any) -> bytes:
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG.to_dict(), "layers": []}
        return json.dumps({**manifest, "annotations": {"name": f"{self.name} {name}"}, **fields}).encode()

    def choose(self, candidates: dict[str, Any]) -> str | None:
        return self.rng.choice(list(candidates)) if candidates else None

    def record_stored(self, digest: str, recipe: tuple[str, int]) -> None:
        self.blobs[digest] = recipe
        with self.ledger.lock:
            self.ledger.blobs[self.home, digest] = recipe

    def check_bytes(self, content: bytes, expected: bytes, what: str) -> None:
        if content != expected:
            self.ledger.add_violation(f"{self.name} {self.count}: wrong bytes: {what}")
        with self.ledger.lock:
            self.ledger.verified += len(content)

    # --- operations ---

    def push(self) -> None:
        recipe = self.new_recipe()
        content = make_content(recipe)
        pushed = self.verified_world.client(self.rng).push_blob(self.home, Descriptor.of(content), content)
        self.record_stored(pushed.digest, recipe)

    def push_single_use(self) -> None:
        recipe = self.new_recipe()
        content = make_content(recipe)
        pieces = (content[start : start + 7000] for start in range(0, len(content), 7000))
        pushed = self.verified_world.client(self.rng).push_blob(self.home, Descriptor.of(content), pieces)
        self.record_stored(pushed.digest, recipe)

    def push_chunked(self) -> None:
        recipe = self.new_recipe()
        with self.verified_world.client(self.rng).push_blob_chunked(self.home, CHUNK) as writer:
            writer.write(make_content(recipe))
            pushed = writer.commit()
        self.record_stored(pushed.digest, recipe)

    def pull(self) -> None:
        digest = self.choose(self.blobs)
        if digest is not None:
            with self.verified_world.client(self.rng).get_blob(self.home, digest) as reader:
                self.check_bytes(reader.read(), make_content(self.blobs[digest]), f"get_blob {digest}")

    def pull_and_stop(self) -> None:
        digest = self.choose(self.blobs)
        if digest is not None:
            with self.verified_world.client(self.rng).get_blob(self.home, digest) as reader:
                reader.read(min(100, reader.descriptor.size - 1))

    def leave_open(self) -> None:
        digest = self.choose(self.blobs)
        if digest is not None:
            reader = self.verified_world.client(self.rng).get_blob(self.home, digest)
            reader.read(self.rng.randrange(reader.descriptor.size))
            cycle = [self.rng.choice(HOLDERS)(reader)]
            cycle.append(cycle)

    def pull_range(self) -> None:
        digest = self.choose(self.blobs)
        if digest is not None:
            content = make_content(self.blobs[digest])
            start = self.rng.randrange(len(content))
            stop = self.rng.randrange(start, len(content)) + 1
            with self.unverified_world.client(self.rng).get_blob_range(self.home, digest, start, stop) as reader:
                self.check_bytes(reader.read(), content[start:stop], f"get_blob_range {digest} {start} {stop}")

    def resolve(self) -> None:
        digest = self.choose(self.blobs)
        if digest is not None:
            size = self.verified_world.client(self.rng).resolve_blob(self.home, digest).size
            if size != self.blobs[digest][1]:
                self.ledger.add_violation(f"{self.name} {self.count}: wrong size: resolve_blob {digest}")

    def mount(self) -> None:
        digest = self.choose(self.blobs)
        if digest is not None:
            self.verified_world.client(self.rng).mount_blob(self.home, self.other, digest)
            with self.ledger.lock:
                self.ledger.blobs[self.other, digest] = self.blobs[digest]

    def delete(self) -> None:
        digest = self.choose(self.blobs)
        if digest is not None:
            del self.blobs[digest]  # the blob may be deleted even if the operation failed
            with self.ledger.lock:
                del self.ledger.blobs[self.home, digest]
            self.verified_world.client(self.rng).delete_blob(self.home, digest)
            with contextlib.suppress(BlobUnknown):
                self.clean.resolve_blob(self.home, digest)
                self.ledger.add_violation(f"{self.name} {self.count}: deleted, but still there: {digest}")

    def push_manifest(self) -> None:
        content = self.image(str(self.count))
        tags = [f"t{self.count}-{index}" for index in range(self.rng.randrange(3))]
        pushed = self.verified_world.client(self.rng).push_manifest(self.home, content, OCI_MANIFEST, tags=tags)
        self.digests_by_tag.update(dict.fromkeys(tags, pushed.digest))
        with self.ledger.lock:
            self.ledger.manifests[self.home, pushed.digest] = content

    def pull_tag(self) -> None:
        tag = self.choose(self.digests_by_tag)
        if tag is not None:
            with self.verified_world.client(self.rng).get_tag(self.home, tag) as reader:
                self.check_bytes(
                    reader.read(), self.ledger.manifests[self.home, self.digests_by_tag[tag]], f"get_tag {tag}"
                )

    def list_tags(self) -> None:
        tags = set(self.unverified_world.client(self.rng).tags(self.home))
        if not set(self.digests_by_tag) <= tags:
            self.ledger.add_violation(f"{self.name} {self.count}: tags are missing: {set(self.digests_by_tag) - tags}")

    def list_repositories(self) -> None:
        names = list(self.unverified_world.client(self.rng).repositories(start_after=f"{self.home[:-4]}a", limit=2))
        if names != [self.home, self.other]:
            self.ledger.add_violation(f"{self.name} {self.count}: wrong repositories: {names}")

    def refer(self) -> None:
        content = self.image(str(self.count), subject=self.subject.to_dict())
        self.referrers_pushed.add(Digest.of(content))
        self.verified_world.client(self.rng).push_manifest(self.home, content, OCI_MANIFEST)
        with self.ledger.lock:
            self.ledger.manifests[self.home, Digest.of(content)] = content

    def list_referrers(self) -> None:
        referrers = {
            entry.digest for entry in self.verified_world.client(self.rng).referrers(self.home, self.subject.digest)
        }
        if not referrers <= self.referrers_pushed:
            self.ledger.add_violation(
                f"{self.name} {self.count}: foreign referrers: {referrers - self.referrers_pushed}"
            )

    def delete_manifest(self) -> None:
        digest = next((digest for repository, digest in list(self.ledger.manifests) if repository == self.home), None)
        if digest is not None:
            self.digests_by_tag = {tag: other for tag, other in self.digests_by_tag.items() if other != digest}
            with self.ledger.lock:
                del self.ledger.manifests[self.home, digest]
            self.verified_world.client(self.rng).delete_manifest(self.home, digest)
            with contextlib.suppress(ManifestUnknown):
                self.clean.resolve_manifest(self.home, digest)
                self.ledger.add_violation(f"{self.name} {self.count}: deleted, but still there: {digest}")


OPERATIONS: dict[Callable[[Worker], object], int] = {
    Worker.push: 8,
    Worker.push_single_use: 6,
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
"""Operations and their relative frequencies."""


# --- checks at the end ---


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def connections_to(ports: set[int]) -> list[str]:
    """Return the sockets of this process that are connected to one of the ports, in any state."""
    own = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            own.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [row[2] for row in rows if int(row[2].partition(":")[2], 16) in ports and f"socket:[{row[9]}]" in own]


def verify(ledger: Ledger, clean: Client) -> int:
    """Pull everything that was reported as stored, without faults. Return the number of correct contents."""
    passed = 0
    expected: list[tuple[Callable[[str, str], Any], str, str, Callable[[], bytes]]] = [
        *((clean.get_blob, *key, lambda recipe=recipe: make_content(recipe)) for key, recipe in ledger.blobs.items()),
        *((clean.get_manifest, *key, lambda content=content: content) for key, content in ledger.manifests.items()),
    ]
    for get, repository, digest, make in expected:
        try:
            with get(repository, digest) as reader:
                content = reader.read()
            if content != make():
                raise AssertionError("wrong bytes")
            ledger.verified += len(content)
            passed += 1
        except Exception as error:  # noqa: BLE001 - every exception is counted
            ledger.add_violation(f"reported as stored: {repository} {digest}: {error!r}")
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
    """Run the soak test, print its report and return the exit status.

    Args:
        seconds: Duration.
        operations: Number of operations after which to end, if that is earlier.
        seed: The seed of all random choices.
        threads: Number of threads.
        memory: Whether the registry is in the memory of this process.
    """
    print(f"seed: {seed}", flush=True)
    ledger = Ledger()
    sys.unraisablehook = lambda args: ledger.add_violation(f"ignored: {args.exc_value!r} in {args.object!r}")
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "a (response|blob reader) was neither read to its end nor ", ResourceWarning)
    before_threads = threading.active_count()
    wait = time.sleep
    short_waits: Any = SimpleNamespace(
        sleep=lambda pause: wait(min(pause, PAUSE)), time=time.time, monotonic=time.monotonic
    )
    ociwire.transport.retry.time = ociwire._client.upload_completion.time = short_waits  # type: ignore[attr-defined]
    with registry(memory=memory) as host, contextlib.closing(UrllibTransport(timeout=TIMEOUT, trust_env=False)) as base:
        clean = Client(host, base, insecure=True)
        worlds = World(host, f"{seed}/a", flips=True), World(host, f"{seed}/b", flips=False)
        ports = {int(name.rpartition(":")[2]) for name in (host, *(world.proxy.host for world in worlds))}
        stop = threading.Event()
        workers = [Worker(number, seed, ledger, *worlds, clean, stop) for number in range(threads)]
        for worker in workers:
            worker.start()
        ledger.wait(stop, seconds / 3, operations and operations // 3)
        gc.collect()
        memory_after_warm_up = resident_bytes()
        ledger.wait(stop, seconds * 2 / 3, operations)
        stop.set()
        faulthandler.dump_traceback_later(5 * GRACE, exit=True)
        ends = time.monotonic() + GRACE
        for worker in workers:
            worker.join(max(0.0, ends - time.monotonic()))
            if worker.is_alive():
                ledger.add_violation(f"{worker.name} {worker.count} hangs")
                faulthandler.dump_traceback()
        passed = verify(ledger, clean)
        gc.collect()  # readers that were leaked
        proxy_connections = sum(world.close() for world in worlds)
        base.close()
        faulthandler.cancel_dump_traceback_later()
        connections = connections_to(ports)
        gc.collect()
        connections_after_gc = connections_to(ports)
        end = resident_bytes()
        injected = worlds[0].injected() + worlds[1].injected()
    checks = {
        NO_VIOLATION: not ledger.violations,
        "no connection to the registry or the proxy is left": not connections and not connections_after_gc,
        "no connection of the proxy is left": proxy_connections == 0,
        "memory is flat": memory or end <= memory_after_warm_up * 1.1 + 10 * 1024 * 1024,
        "all threads have ended": threading.active_count() == before_threads,
        "operations succeeded, and faults were recovered from": bool(passed and injected and ledger.recovered),
        "all operations were done": operations is None or ledger.done.total() >= operations,
        "readers were left open and collected": bool(ledger.done["leave_open"] and ledger.collected),
    }
    report(
        ledger,
        injected,
        f"{memory_after_warm_up / 2**20:.1f} / {end / 2**20:.1f} MiB",
        f"{len(connections)} / {len(connections_after_gc)}",
    )
    failed_checks = [name for name, holds in checks.items() if not holds]
    for text in [*ledger.violations[:20], *failed_checks]:
        print(f"VIOLATION: {text}")
    if failed_checks:
        print(f"seed: {seed} (repeat it with --seed {seed} and the same options)")
    failed = len(ledger.violations) + sum(name != NO_VIOLATION for name in failed_checks)
    print(f"{passed + len(checks) - len(failed_checks)} passed, {failed} failed")
    return 1 if failed_checks else 0


def report(ledger: Ledger, injected: Counter[str], memory: str, connections: str) -> None:
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
    print(f"garbage collections during operations: {ledger.collected}")
    print(f"memory after a third / at the end: {memory}")
    print(f"connections left, before / after gc: {connections}")


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
