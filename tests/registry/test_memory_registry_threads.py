"""MemoryRegistry used by several threads: no update is lost, and no request waits for the body of another."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, Request, Response, errors
from ociwire._http.body import Body
from ociwire.media_types import OCI_MANIFEST
from ociwire.registry.memory import MemoryRegistry

UPLOADS = "/v2/a/blobs/uploads/"
PATIENCE = 30
"""Timeout in seconds after which a hanging test fails."""


def send(registry: MemoryRegistry, method: str, url: str, body: Any = None, **headers: str) -> Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return registry.round_trip(Request(method, url, fields, None if body is None else Body.of(body)))


def run_together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Call a function in `count` threads that start together, and return their results."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait(PATIENCE)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def image(number: int, **fields: Any) -> bytes:
    config = Descriptor.of(b"{}", "application/vnd.oci.image.config.v1+json")
    return json.dumps(
        {"schemaVersion": 2, "config": config.to_dict(), "layers": [], "annotations": {"n": str(number)}, **fields}
    ).encode()


def test_threads_thousand_uploads_store_all_blobs() -> None:
    registry = MemoryRegistry()
    everybody_is_half_done = threading.Barrier(100)

    def content(number: int) -> bytes:
        return b"%d " % number * 10

    def push(number: int) -> None:
        location = send(registry, "POST", UPLOADS).headers["location"]
        whole = content(number)

        def chunks() -> Iterator[bytes]:
            yield whole[:7]
            everybody_is_half_done.wait(PATIENCE)
            yield whole[7:]

        assert send(registry, "PUT", f"{location}?digest={Digest.of(whole)}", chunks()).status == 201

    for start in range(0, 1000, 100):
        run_together(100, lambda number, start=start: push(start + number))
    client = Client("registry.example", registry)
    for number in range(1000):
        assert client.get_blob("a", Digest.of(content(number))).read() == content(number)
    assert registry.open_uploads == 0
    assert registry.stored_bytes == sum(len(content(number)) for number in range(1000))


def test_threads_thousand_open_uploads_are_independent() -> None:
    registry = MemoryRegistry()
    locations: list[str] = []
    for found in run_together(50, lambda _: [send(registry, "POST", UPLOADS).headers["location"] for _ in range(20)]):
        locations += found
    assert len(set(locations)) == registry.open_uploads == 1000
    run_together(50, lambda number: [send(registry, "PATCH", one, one.encode()) for one in locations[number::50]])

    def finish(number: int) -> list[int]:
        mine = locations[number::50]
        return [send(registry, "PUT", f"{one}?digest={Digest.of(one.encode())}").status for one in mine]

    assert run_together(50, finish) == [[201] * 20] * 50


def test_threads_blocked_body_blocks_no_other_request() -> None:
    registry = MemoryRegistry()
    content = image(0)
    send(registry, "POST", f"{UPLOADS}?digest={Digest.of(b'{}')}", b"{}")
    upload = send(registry, "POST", UPLOADS).headers["location"]
    asked: list[int] = []

    def asking(*chunks: bytes) -> Iterator[bytes]:
        """Content that sends a request to the same registry from another thread while it is read."""
        for chunk in chunks:
            with ThreadPoolExecutor(1) as pool:
                answers = [
                    pool.submit(send, registry, "GET", upload),
                    pool.submit(send, registry, "GET", "/v2/a/tags/list"),
                    pool.submit(send, registry, "POST", f"/v2/b/blobs/uploads/?mount={Digest.of(b'{}')}"),
                ]
                asked.extend(answer.result(PATIENCE).status for answer in answers)
            yield chunk

    send(registry, "PATCH", upload, asking(b"one"), Content_Range="0-2")
    send(registry, "PUT", f"{upload}?digest={Digest.of(b'onetwo')}", asking(b"two"))
    send(registry, "POST", f"{UPLOADS}?digest={Digest.of(b'x')}", asking(b"x"))
    put = send(registry, "PUT", "/v2/a/manifests/latest", asking(content), Content_Type=OCI_MANIFEST)
    assert put.status == 201
    assert asked == [204, 200, 201] * 2 + [404, 200, 201] * 2


@pytest.mark.parametrize("ranged", [True, False])
def test_threads_two_chunks_at_same_offset_one_is_stored(ranged: bool) -> None:
    registry = MemoryRegistry()
    for _ in range(20):
        location = send(registry, "POST", UPLOADS).headers["location"]
        both_are_being_pulled = threading.Barrier(2)

        def chunk(number: int, barrier: threading.Barrier = both_are_being_pulled) -> Iterator[bytes]:
            barrier.wait(PATIENCE)
            yield b"%d" % number

        headers = {"Content_Range": "0-0"} if ranged else {}
        answers = run_together(
            2,
            lambda number, location=location, headers=headers: send(
                registry, "PATCH", location, chunk(number), **headers
            ),
        )
        assert sorted(answer.status for answer in answers) == [202, 416]
        (taken,) = (number for number, answer in enumerate(answers) if answer.status == 202)
        assert send(registry, "PUT", f"{location}?digest={Digest.of(b'%d' % taken)}").status == 201


def test_threads_chunk_during_closing_put_is_416() -> None:
    registry = MemoryRegistry()
    location = send(registry, "POST", UPLOADS).headers["location"]

    def late() -> Iterator[bytes]:
        assert send(registry, "PATCH", location, b"between").status == 202
        yield b"late"

    answer = send(registry, "PUT", f"{location}?digest={Digest.of(b'late')}", late())
    assert (answer.status, answer.headers["range"]) == (416, "0-6")
    assert send(registry, "HEAD", f"/v2/a/blobs/{Digest.of(b'late')}").status == 404
    assert send(registry, "PUT", f"{location}?digest={Digest.of(b'between')}").status == 201


def test_threads_chunk_after_upload_ended_is_refused() -> None:
    registry = MemoryRegistry()

    def ending(method: str, query: str = "") -> Iterator[bytes]:
        assert send(registry, method, location + query).status in (201, 204)
        yield b"late"

    for method in ("PATCH", "PUT"):
        for body in (ending("DELETE"), ending("PUT", f"?digest={Digest.of(b'')}")):
            location = send(registry, "POST", UPLOADS).headers["location"]
            answer = send(registry, method, f"{location}?digest={Digest.of(b'late')}", body)
            assert (answer.status, answer.json()["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert send(registry, "HEAD", f"/v2/a/blobs/{Digest.of(b'late')}").status == 404
    assert registry.open_uploads == 0


def test_threads_mounts_and_deletes_keep_references_right() -> None:
    registry = MemoryRegistry()
    digest = Digest.of(b"shared")
    for _ in range(20):
        send(registry, "POST", f"{UPLOADS}?digest={digest}", b"shared")

        def mount(number: int) -> tuple[int, int]:
            name = f"m{number}"
            mounted = send(registry, "POST", f"/v2/{name}/blobs/uploads/?mount={digest}&from=a").status
            return mounted, send(registry, "DELETE", f"/v2/{name}/blobs/{digest}").status

        assert run_together(8, mount) == [(201, 202)] * 8
        assert registry.stored_bytes == len(b"shared")
        gone = run_together(8, lambda _: send(registry, "DELETE", f"/v2/a/blobs/{digest}").status)
        assert sorted(gone) == [202] + [404] * 7
        assert registry.stored_bytes == 0


def test_threads_manifests_and_tags_are_all_stored() -> None:
    registry = MemoryRegistry()
    client = Client("registry.example", registry)
    client.push_blob("a", Descriptor.of(b"{}"), b"{}")
    subject = {"mediaType": OCI_MANIFEST, "digest": Digest.of(b"subject"), "size": 7}
    run_together(
        40, lambda n: client.push_manifest("a", image(n, subject=subject), OCI_MANIFEST, tags=[f"t{n:02}", f"u{n:02}"])
    )
    assert list(client.tags("a", limit=40)) == [f"t{n:02}" for n in range(40)]
    assert len(list(client.tags("a"))) == 80
    assert {one.digest for one in client.referrers("a", Digest.of(b"subject"))} == {
        Digest.of(image(n, subject=subject)) for n in range(40)
    }


def test_threads_if_none_match_one_writer_wins() -> None:
    registry = MemoryRegistry()
    send(registry, "POST", f"{UPLOADS}?digest={Digest.of(b'{}')}", b"{}")
    everybody_is_being_pulled = threading.Barrier(8)

    def content(number: int) -> Iterator[bytes]:
        everybody_is_being_pulled.wait(PATIENCE)
        yield image(number)

    def write(number: int) -> int:
        headers = {"If_None_Match": "*", "Content_Type": OCI_MANIFEST}
        return send(registry, "PUT", "/v2/a/manifests/latest", content(number), **headers).status

    statuses = run_together(8, write)
    assert sorted(statuses) == [201] + [412] * 7
    winner = send(registry, "GET", "/v2/a/manifests/latest").read()
    assert winner == image(statuses.index(201))


def test_threads_referrers_tag_writers_lose_nothing() -> None:
    """Without the referrers API the client updates the tag index. The ETag prevents lost updates."""
    registry = MemoryRegistry(referrers_api=False)
    client = Client("registry.example", registry)
    client.push_blob("a", Descriptor.of(b"{}"), b"{}")
    subject = {"mediaType": OCI_MANIFEST, "digest": Digest.of(b"subject"), "size": 7}

    def push(number: int) -> Digest:
        content = image(number, subject=subject)
        while True:
            try:
                return client.push_manifest("a", content, OCI_MANIFEST).digest
            except errors.RegistryError as error:
                if error.status != 412:  # 412: the client gives up after five lost races
                    raise

    pushed = run_together(8, push)
    assert {one.digest for one in client.referrers("a", Digest.of(b"subject"))} == set(pushed)


def test_threads_max_bytes_is_shared() -> None:
    registry = MemoryRegistry(max_bytes=100)
    pulling, go_on = threading.Semaphore(0), threading.Event()

    def content() -> Iterator[bytes]:
        yield b"x" * 60
        pulling.release()
        assert go_on.wait(PATIENCE)

    def upload() -> int:
        location = registry.round_trip(Request("POST", UPLOADS)).headers["location"]
        return registry.round_trip(Request("PATCH", location, body=Body.of(content()))).status

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(upload)
        assert pulling.acquire(timeout=PATIENCE)
        second = registry.round_trip(Request("POST", UPLOADS)).headers["location"]
        assert registry.round_trip(Request("PATCH", second, body=Body.of(b"x" * 41))).status == 413
        assert registry.round_trip(Request("PATCH", second, body=Body.of(b"x" * 40))).status == 202
        go_on.set()
        assert first.result() == 202
