"""Downloads to files: each ends with the correct file or a documented error, and leaves no open response or thread."""

from __future__ import annotations

import contextvars
import errno
import fcntl
import inspect
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ociwire import Client, Descriptor, Digest, FunctionTransport, Request, Response
from ociwire.errors import (
    BlobUnknown,
    DigestMismatch,
    OciwireError,
    ProtocolError,
    ReadError,
    RegistryError,
    TransportTimeout,
    UsageError,
)
from ociwire.testing import MemoryRegistry
from ociwire.transfer._download import download
from ociwire.transfer._progress import Progress
from tests._support.download_world import (
    DownloadWorld,
    full_response,
    limit_bandwidth,
    restore_responses,
    truncate_responses,
)
from tests._support.fault_world import FAULT_NAMES, HOST, NAME, STORED, Numbered, World, blob, faults_of

pytestmark = pytest.mark.usefixtures("no_threads_left")

MIB = 1024 * 1024


def footer(prefix: int) -> bytes:
    return b"ociwire partial %020d" % prefix


@pytest.fixture
def world(tmp_path: Path) -> DownloadWorld:
    return DownloadWorld(tmp_path, blob(7, 5000))


# Complete downloads


def test_download_blob_sends_one_request(world: DownloadWorld) -> None:
    assert world.download() == world.descriptor
    world.check_complete()
    assert world.requests == ["GET"]


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 9 * MIB])
def test_download_any_size_sends_one_request(tmp_path: Path, size: int) -> None:
    world = DownloadWorld(tmp_path, blob(1, size))
    assert world.download().size == size
    world.check_complete()
    assert world.requests == ["GET"]


def test_download_target_matches_sends_no_request(world: DownloadWorld) -> None:
    world.target.write_bytes(world.content)
    inode = world.target.stat().st_ino
    events: list[Progress] = []
    assert world.download(progress=events.append) == world.descriptor
    assert world.requests == []
    assert world.target.stat().st_ino == inode
    assert events == [Progress("download", world.descriptor.digest, 5000, 5000)]


@pytest.mark.parametrize("old", [b"", b"something else", bytes(5000)])
def test_download_other_file_is_replaced_at_the_end(world: DownloadWorld, old: bytes) -> None:
    world.target.write_bytes(old)
    truncate_responses(world, 2000, ReadError("lost"))
    with pytest.raises(ReadError):
        world.download()
    assert world.target.read_bytes() == old
    restore_responses(world)
    world.download()
    world.check_complete()


def test_download_relative_path_with_long_name_creates_file(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.folder)
    name = "é" * 127
    download(world.client, NAME, world.descriptor.digest, name)
    assert (world.folder / name).read_bytes() == world.content
    assert os.listdir(world.folder) == [name]


def test_download_progress_reports_in_order(tmp_path: Path) -> None:
    world = DownloadWorld(tmp_path, blob(1, 9 * MIB))
    events: list[Progress] = []
    world.download(progress=events.append)
    assert [event.done for event in events] == [number * MIB for number in range(10)]
    assert {(event.operation, event.digest, event.total) for event in events} == {
        ("download", world.descriptor.digest, 9 * MIB)
    }


def test_download_progress_raises_ends_the_download(world: DownloadWorld) -> None:
    def fail(event: Progress) -> None:
        if event.done:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        world.download(progress=fail)
    world.check_incomplete()


def test_download_progress_of_a_resumed_download_raises_digest_mismatch_ends_the_download(world: DownloadWorld) -> None:
    world.part.write_bytes(world.content[:1000])
    error = DigestMismatch("of the callback")

    def fail(event: Progress) -> None:
        if event.done == event.total:
            raise error

    with pytest.raises(DigestMismatch, match="of the callback") as raised:
        world.download(progress=fail)
    assert raised.value is error
    assert "GET" not in world.requests  # the whole blob is not requested
    world.check_incomplete()


# Interrupted downloads


@pytest.mark.parametrize("error", [ReadError("lost"), TransportTimeout("late"), KeyboardInterrupt(), SystemExit()])
@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 4999])
def test_download_interrupted_resumes_at_position(world: DownloadWorld, count: int, error: BaseException) -> None:
    truncate_responses(world, count, error)
    with pytest.raises(type(error)):
        world.download()
    world.check_incomplete()
    prefix = world.part.stat().st_size if world.part.exists() else 0
    assert prefix <= count
    restore_responses(world)
    events: list[Progress] = []
    assert world.download(progress=events.append) == world.descriptor
    world.check_complete()
    assert world.requests == (["HEAD", f"GET bytes={prefix}-4999"] if prefix else ["GET"])
    assert events[0].done == prefix


@pytest.mark.parametrize("count", [1, 999, 4999])
def test_download_partial_file_of_killed_process_is_resumed(world: DownloadWorld, count: int) -> None:
    world.part.write_bytes(world.content[:count])
    world.download()
    world.check_complete()
    assert world.requests == ["HEAD", f"GET bytes={count}-4999"]


def test_download_partial_file_is_complete_sends_no_request(world: DownloadWorld) -> None:
    world.part.write_bytes(world.content)
    assert world.download() == world.descriptor
    world.check_complete()
    assert world.requests == []


@pytest.mark.parametrize("prefix", [1000, 0])
def test_download_partial_file_with_gaps_resumes_at_the_prefix(world: DownloadWorld, prefix: int) -> None:
    world.part.write_bytes(world.content[:1000] + bytes(4000) + footer(prefix))
    world.download()
    world.check_complete()
    assert world.requests == (["HEAD", f"GET bytes={prefix}-4999"] if prefix else ["GET"])


@pytest.mark.parametrize("number", [b"", b"12", b"x" * 20, b"%021d" % 4, b"%020d" % (2 * 10**19), b"%020d" % 5000])
def test_download_partial_file_with_wrong_footer_downloads_the_blob(world: DownloadWorld, number: bytes) -> None:
    world.part.write_bytes(world.content[:3000] + b"ociwire partial " + number)
    world.download()
    world.check_complete()


def test_download_content_ends_like_a_footer_resumes_at_its_prefix(tmp_path: Path) -> None:
    world = DownloadWorld(tmp_path, blob(1, 3000) + footer(2000) + blob(2, 1000))
    world.part.write_bytes(world.content[:3036])
    world.download()
    world.check_complete()
    assert world.requests == ["HEAD", "GET bytes=2000-4035"]


@pytest.mark.parametrize("data", [b"x", bytes(4999), bytes(5000), bytes(5001), bytes(9000)])
def test_download_partial_file_is_wrong_restarts(world: DownloadWorld, data: bytes) -> None:
    world.part.write_bytes(data)
    world.download()
    world.check_complete()
    assert world.requests[-1] == "GET"


def test_download_wrong_content_after_resume_restarts_once(world: DownloadWorld) -> None:
    world.modify_response = lambda request, response: (
        response.replace(body=bytes(response.length or 0)) if request.method == "GET" else response
    )
    world.part.write_bytes(world.content[:1000])
    with pytest.raises(DigestMismatch) as caught:
        world.download()
    assert caught.value.expected == world.descriptor.digest
    assert world.requests == ["HEAD", "GET bytes=1000-4999", "GET"]
    world.check_incomplete()
    assert os.listdir(world.folder) == []


def test_download_resume_without_range_support_restarts(world: DownloadWorld) -> None:
    world.modify_response = lambda request, response: full_response(world) if "range" in request.headers else response
    world.part.write_bytes(world.content[:1000])
    world.download()
    world.check_complete()
    assert world.requests == ["HEAD", "GET bytes=1000-4999", "GET"]


def test_download_partial_file_locked_writes_another_file(world: DownloadWorld) -> None:
    with world.part.open("wb") as other:
        other.write(b"foreign")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        world.download()
        assert world.target.read_bytes() == world.content
        assert sorted(os.listdir(world.folder)) == [world.part.name, "blob.bin"]
        assert world.part.read_bytes() == b"foreign"


# Errors


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("fault", FAULT_NAMES)
def test_download_fault_at_each_request_completes_or_raises(
    tmp_path: Path, fault: str, resumed: bool, workers: int
) -> None:
    digest, target = Descriptor.of(STORED).digest, tmp_path / "it"
    for number in range(40):
        world, where = World(), Numbered(number)
        world.fail(rate=1.0, faults=[faults_of(world)[fault]], where=where)
        where.begin()
        if resumed:
            (tmp_path / f".it.{digest.encoded[:12]}.part").write_bytes(STORED[:300])
        try:
            download(world.client, NAME, digest, target, workers=workers, part_size=100)
        except OciwireError:
            assert not target.exists()
            world.fail(rate=0.0)
            download(world.client, NAME, digest, target)
        assert target.read_bytes() == STORED
        assert os.listdir(tmp_path) == ["it"]
        assert not world.watch.open
        target.unlink()
        if not world.faults.injected and number > 5:
            return
    pytest.fail("too many requests")


def test_download_blob_missing_raises_blob_unknown(world: DownloadWorld) -> None:
    with pytest.raises(BlobUnknown):
        download(world.client, NAME, Descriptor.of(b"no").digest, world.target)
    assert os.listdir(world.folder) == []


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": True},
        {"workers": 1.5},
        {"part_size": 0},
        {"part_size": "1"},
        {"progress": 3},
    ],
)
def test_download_invalid_options_raise_usage_error(world: DownloadWorld, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        world.download(**options)
    assert world.requests == []
    assert os.listdir(world.folder) == []


@pytest.mark.parametrize("path", ["", "there", "there/", ".", "..", "missing/x", "file/x", "a\0b", "fifo", "/dev/null"])
def test_download_invalid_paths_raise_usage_error(
    world: DownloadWorld, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.folder)
    os.mkdir("there")
    os.mkfifo("fifo")
    Path("file").touch()
    with pytest.raises(UsageError):
        download(world.client, NAME, world.descriptor.digest, path)
    assert world.requests == []
    assert sorted(os.listdir()) == ["fifo", "file", "there"]


@pytest.mark.parametrize("client", [None, "registry.example", MemoryRegistry()], ids=["none", "host", "transport"])
def test_download_invalid_client_raises_usage_error(world: DownloadWorld, client: Any) -> None:
    with pytest.raises(UsageError, match="client"):
        download(client, NAME, world.descriptor.digest, world.target)
    assert os.listdir(world.folder) == []


def test_download_link_at_the_target_is_not_followed(world: DownloadWorld) -> None:
    other = world.folder / "other"
    other.write_bytes(b"another")
    world.target.symlink_to(other)
    world.download()
    assert not world.target.is_symlink()
    assert world.target.read_bytes() == world.content
    assert other.read_bytes() == b"another"


@pytest.mark.parametrize("path", [None, 3, b"bytes"])
def test_download_path_of_wrong_type_raises_usage_error(world: DownloadWorld, path: Any) -> None:
    with pytest.raises(UsageError):
        download(world.client, NAME, world.descriptor.digest, path)


def test_download_invalid_names_raise_usage_error(world: DownloadWorld) -> None:
    for repository, digest in (("No", world.descriptor.digest), (NAME, "sha256:1"), (NAME, "md5:abc")):
        with pytest.raises(UsageError):
            download(world.client, repository, digest, world.target)
    assert os.listdir(world.folder) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write to every directory")
def test_download_read_only_directory_raises_permission_error(world: DownloadWorld) -> None:
    world.folder.chmod(0o500)
    with pytest.raises(PermissionError):
        world.download()
    assert world.requests == []


def test_download_directory_refuses_raises_permission_error(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(PermissionError):
        world.download()
    assert world.requests == []


@pytest.mark.parametrize("workers", [1, 4])
def test_download_full_disk_raises_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    world, pwrite = DownloadWorld(tmp_path, blob(1, 9 * MIB)), os.pwrite

    def pwrite_to_full_disk(descriptor: int, data: Any, offset: int) -> int:
        available = 5 * MIB - offset
        if available <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data[:available], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite_to_full_disk)
        with pytest.raises(OSError, match="No space left") as caught:
            world.download(workers=workers)
        assert caught.value.errno == errno.ENOSPC
    world.check_incomplete()
    assert world.part.stat().st_size == 5 * MIB
    world.download()
    world.check_complete()


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_download_sync_or_rename_fails_raises_and_resumes(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, function, fail)
        with pytest.raises(OSError, match="Input/output"):
            world.download()
    world.check_incomplete()
    restore_responses(world)
    world.download()
    world.check_complete()
    assert world.requests == []


def test_download_syncs_file_before_and_directory_after_rename(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def record_replace(source: str, target: str) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    world.download()
    assert calls == ["file", "rename", "folder"]


def test_download_leaves_no_open_file(world: DownloadWorld) -> None:
    before = os.listdir("/proc/self/fd")
    world.download()
    world.target.unlink()
    truncate_responses(world, 2000, ReadError("lost"))
    with pytest.raises(ReadError):
        world.download()
    assert os.listdir("/proc/self/fd") == before


# Several connections


@pytest.mark.parametrize("workers", [2, 4, 7])
def test_download_several_workers_use_as_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    limiter = limit_bandwidth(world, connections=2)
    events: list[Progress] = []
    assert world.download(workers=workers, part_size=8000, progress=events.append).size == 400_000
    world.check_complete()
    assert limiter.max_open == workers
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == 400_000


def test_download_one_worker_uses_one_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    limit_bandwidth(world)
    world.download(workers=1, part_size=8000)
    assert world.requests == ["GET"]


def test_download_no_range_support_uses_one_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    limiter = limit_bandwidth(world)
    throttle = limiter.modify_response
    world.modify_response = lambda request, response: (
        full_response(world) if "range" in request.headers else throttle(request, response)
    )
    world.download(workers=4, part_size=8000)
    world.check_complete()
    assert len(world.requests) <= 4, "expected at most one request per helper"
    assert world.requests.count("GET") == 1


@pytest.mark.parametrize("status", [403, 429, 500])
def test_download_range_refused_uses_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    limiter = limit_bandwidth(world)
    throttle = limiter.modify_response
    world.modify_response = lambda request, response: (
        Response(status) if "range" in request.headers else throttle(request, response)
    )
    world.download(workers=4, part_size=8000)
    world.check_complete()
    assert len(world.requests) <= 4, "expected at most one request per helper"
    assert world.requests.count("GET") == 1


def test_download_wrong_part_raises_digest_mismatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    limiter = limit_bandwidth(world)
    throttle = limiter.modify_response

    def modify_response(request: Request, response: Response) -> Response:
        if "range" in request.headers and len(world.requests) == 6:
            response = response.replace(body=iter([bytes(response.length or 0)]))
        return throttle(request, response)

    world.modify_response = modify_response
    with pytest.raises(DigestMismatch):
        world.download(workers=4, part_size=8000)
    world.check_incomplete()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [3, 4, 7, 20])
@pytest.mark.parametrize("error", [ReadError("lost"), KeyboardInterrupt()])
def test_download_first_error_ends_all_workers_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException
) -> None:
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    limiter = limit_bandwidth(world)
    throttle = limiter.modify_response
    has_prefix = threading.Event()

    def modify_response(request: Request, response: Response) -> Response:
        if len(world.requests) >= number and request.method == "GET":
            response.close()
            assert has_prefix.wait(30)
            raise error
        return throttle(request, response)

    def report(event: Progress) -> None:
        if event.done and threading.current_thread() is threading.main_thread():  # this thread receives the first part
            has_prefix.set()

    world.modify_response = modify_response
    with pytest.raises(type(error)):
        world.download(workers=4, part_size=8000, progress=report)
    world.check_incomplete()
    assert world.part.exists()
    prefix = world.part.stat().st_size
    assert world.part.read_bytes() == world.content[:prefix]
    assert prefix > 0
    restore_responses(world)
    world.download()
    world.check_complete()
    assert world.requests == ["HEAD", f"GET bytes={prefix}-399999"]


def test_download_file_with_gaps_always_has_a_footer_within_the_prefix(tmp_path: Path) -> None:
    world, prefixes = DownloadWorld(tmp_path, blob(1, 400_000)), []
    limit_bandwidth(world, connections=2)

    def check_footer(event: Progress) -> None:
        with world.part.open("rb") as file:
            file.seek(len(world.content))
            footer = file.read()  # read before the content, because the prefix grows
            file.seek(0)
            data = file.read()
        if footer:
            assert footer.startswith(b"ociwire partial ")
            prefix = int(footer[-20:])
            assert data[:prefix] == world.content[:prefix]
            prefixes.append(prefix)

    world.download(workers=4, part_size=8000, progress=check_footer)
    assert prefixes
    world.check_complete()


def test_download_workers_run_in_the_callers_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = contextvars.ContextVar("tenant", default="none")
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    throttle, contexts = limit_bandwidth(world).modify_response, []

    def modify_response(request: Request, response: Response) -> Response:
        contexts.append((tenant.get(), threading.get_ident()))
        return throttle(request, response)

    world.modify_response = modify_response
    tenant.set("me")
    world.download(workers=4, part_size=8000)
    assert {name for name, _ in contexts} == {"me"}
    assert len({thread for _, thread in contexts}) == 4


def test_download_deadline_is_in_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, deadlines = DownloadWorld(tmp_path, blob(1, 400_000)), []
    throttle = limit_bandwidth(world).modify_response

    def modify_response(request: Request, response: Response) -> Response:
        deadlines.append(request.info.deadline)
        return throttle(request, response)

    world.modify_response = modify_response
    world.client = world.client.with_options(deadline=time.monotonic() + 1e6)
    world.download(workers=4, part_size=8000)
    assert len(deadlines) > 4
    assert None not in deadlines


def test_download_interrupt_during_join_is_raised(world: DownloadWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    join, interrupts = threading.Thread.join, [KeyboardInterrupt()]

    def interrupted_join(self: threading.Thread, timeout: float | None = None) -> None:
        if interrupts:
            raise interrupts.pop()
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted_join)
    with pytest.raises(KeyboardInterrupt):
        world.download(part_size=1000)
    world.check_incomplete()


# Behaviour of registries


def without_length(request: Request, response: Response) -> Response:
    if request.method != "GET":
        return response
    return Response(response.status, {}, iter([response.read()]))


def test_download_no_content_length_sends_head(world: DownloadWorld) -> None:
    world.modify_response = without_length
    world.download()
    world.check_complete()
    assert world.requests == ["GET", "HEAD"]


def test_download_size_unknown_raises_protocol_error(world: DownloadWorld) -> None:
    def modify_response(request: Request, response: Response) -> Response:
        return without_length(request, response) if request.method == "GET" else Response(404)

    world.modify_response = modify_response
    with pytest.raises(ProtocolError, match="does not state the size"):
        world.download()
    assert not world.watch.open
    assert os.listdir(world.folder) == []


RANGES = [None, "bytes 0-4999/5000", "bytes 1001-4999/5000", "bytes 1000-4999/6000", "garbage"]


@pytest.mark.parametrize("content_range", RANGES)
def test_download_resume_with_wrong_content_range_restarts(world: DownloadWorld, content_range: str | None) -> None:
    world.modify_response = lambda request, response: (
        response.replace(headers=response.headers.updated({"Content-Range": content_range}))
        if response.status == 206
        else response
    )
    world.part.write_bytes(world.content[:1000])
    world.download()
    world.check_complete()
    assert world.requests == ["HEAD", "GET bytes=1000-4999", "GET"]


@pytest.mark.parametrize("status", [400, 405, 409, 410, 416, 501])
def test_download_resume_range_refused_restarts(world: DownloadWorld, status: int) -> None:
    world.modify_response = lambda request, response: Response(status) if "range" in request.headers else response
    world.part.write_bytes(world.content[:1000])
    world.download()
    world.check_complete()
    assert world.requests == ["HEAD", "GET bytes=1000-4999", "GET"]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
def test_download_resume_refused_for_other_reasons_raises(world: DownloadWorld, status: int) -> None:
    world.modify_response = lambda request, response: Response(status) if "range" in request.headers else response
    world.part.write_bytes(world.content[:1000])
    with pytest.raises(RegistryError) as caught:
        world.download()
    assert caught.value.status == status
    assert world.part.read_bytes() == world.content[:1000]
    assert world.requests == ["HEAD", "GET bytes=1000-4999"]


def test_download_range_support_ends_completes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    throttle = limit_bandwidth(world).modify_response

    def modify_response(request: Request, response: Response) -> Response:
        is_ignored = "range" in request.headers and len(world.requests) > 8
        return full_response(world) if is_ignored else throttle(request, response)

    world.modify_response = modify_response
    world.download(workers=4, part_size=8000)
    world.check_complete()


# Other processes that change the files


def swap(path: Path, content: bytes) -> None:
    """Replace a file with a new one, as another process can."""
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("replacement", ["replaced", "removed", "link", "symbolic link", "directory"])
def test_download_partial_file_is_swapped_raises_os_error(world: DownloadWorld, replacement: str, workers: int) -> None:
    world.target.write_bytes(b"old")
    other = world.folder / "other"
    other.write_bytes(b"foreign")

    def progress(event: Progress) -> None:
        if event.done != event.total:
            return
        world.part.unlink()
        if replacement == "replaced":
            world.part.write_bytes(b"foreign")
        elif replacement == "link":
            os.link(other, world.part)
        elif replacement == "symbolic link":
            world.part.symlink_to(other)
        elif replacement == "directory":
            world.part.mkdir()

    with pytest.raises(OSError, match=r"refusing to rename .* removed or replaced it during the download"):
        world.download(workers=workers, progress=progress)
    assert world.target.read_bytes() == b"old"
    assert other.read_bytes() == b"foreign"
    assert os.path.lexists(world.part) == (replacement != "removed"), "the file of another process must not be removed"
    assert not world.watch.open


def test_download_complete_partial_file_is_swapped_raises_os_error(world: DownloadWorld) -> None:
    world.part.write_bytes(world.content)
    with pytest.raises(OSError, match="refusing to rename"):
        world.download(progress=lambda event: swap(world.part, b"foreign"))
    world.check_incomplete()


def test_download_fails_keeps_swapped_partial_file(world: DownloadWorld) -> None:
    def progress(event: Progress) -> None:
        swap(world.part, b"foreign")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.download(progress=progress)
    assert world.part.read_bytes() == b"foreign"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("content", ["foreign", "right"])
def test_download_file_swapped_around_rename_is_checked_by_content(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch, when: str, content: str
) -> None:
    """The file is swapped after the last check of the partial file, or after the rename."""
    replace, new_content = os.replace, world.content if content == "right" else b"x" * len(world.content)

    def swap_during_call(source: str, target: str) -> None:
        if when == "before":
            swap(Path(source), new_content)
        replace(source, target)
        if when == "after":
            swap(Path(target), new_content)

    monkeypatch.setattr(os, "replace", swap_during_call)
    if content == "right":  # as a concurrent download of the same blob can
        assert world.download() == world.descriptor
        world.check_complete()
    else:
        with pytest.raises(OSError, match=f"does not hold {world.descriptor.digest}"):
            world.download()
    assert not world.watch.open


def test_download_partial_file_linked_to_the_target_leaves_one_name(world: DownloadWorld) -> None:
    def progress(event: Progress) -> None:
        if event.done == event.total:
            os.link(world.part, world.target)  # rename(2) does nothing if both names are links to the same file

    assert world.download(progress=progress) == world.descriptor
    world.check_complete()


def test_download_target_is_swapped_during_hashing_downloads_blob(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.target.write_bytes(world.content)
    preadv = os.preadv

    def swap_during_call(*arguments: Any) -> int:
        monkeypatch.setattr(os, "preadv", preadv)
        count = preadv(*arguments)
        swap(world.target, b"foreign")
        return count

    monkeypatch.setattr(os, "preadv", swap_during_call)
    assert world.download() == world.descriptor
    world.check_complete()
    assert world.requests == ["GET"]


# Large files, special files and links

SPARSE_SIZE = 1024**4


def create_sparse_file(path: Path, beginning: bytes = b"") -> None:
    """Create a file of 1 TiB that uses no disk space and takes half an hour to hash."""
    path.write_bytes(beginning)
    os.truncate(path, SPARSE_SIZE)


def limit_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test after 1,000 reads, instead of hashing a large file for half an hour."""
    preadv, reads = os.preadv, [0]

    def counted_preadv(*arguments: Any) -> int:
        reads[0] += 1
        assert reads[0] < 1000, "the file must not be hashed"
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", counted_preadv)


def test_download_sparse_target_is_replaced_without_being_hashed(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_reads(monkeypatch)
    create_sparse_file(world.target, world.content)
    assert world.download() == world.descriptor
    world.check_complete()
    assert world.requests == ["HEAD", "GET"]


def test_download_sparse_partial_file_is_discarded_without_being_hashed(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_reads(monkeypatch)
    create_sparse_file(world.part, world.content)
    assert world.download() == world.descriptor
    world.check_complete()
    assert world.requests == ["HEAD", "GET"]


@pytest.mark.parametrize("name", ["target", "part"])
def test_download_large_file_of_the_expected_size_is_hashed_and_kept(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(inspect.unwrap(download).__globals__, "_HASH_LIMIT", 4999)
    getattr(world, name).write_bytes(world.content)
    assert world.download() == world.descriptor
    world.check_complete()
    assert world.requests == ["HEAD"]


def test_download_large_partial_file_is_resumed_with_one_head(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(inspect.unwrap(download).__globals__, "_HASH_LIMIT", 999)
    world.part.write_bytes(world.content[:1000])
    assert world.download() == world.descriptor
    world.check_complete()
    assert world.requests == ["HEAD", "GET bytes=1000-4999"]


@pytest.mark.parametrize("name", ["target", "part"])
def test_download_large_file_and_head_refused_downloads_blob(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(inspect.unwrap(download).__globals__, "_HASH_LIMIT", 999)
    getattr(world, name).write_bytes(world.content)
    world.modify_response = lambda request, response: Response(405) if request.method == "HEAD" else response
    assert world.download() == world.descriptor
    world.check_complete()


@pytest.mark.parametrize("name", ["target", "part"])
def test_download_hashing_ends_with_the_deadline(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    size = 2 * SPARSE_SIZE
    digest = Digest.of(b"other")
    part = world.folder / f".blob.bin.{digest.encoded[:12]}.part"
    path = world.target if name == "target" else part
    create_sparse_file(path)
    os.truncate(path, size)
    limit_reads(monkeypatch)
    started, ticks = time.monotonic(), itertools.count(1)
    monkeypatch.setattr(time, "monotonic", lambda: started + next(ticks) / 1000)
    head = FunctionTransport(lambda request: Response(200, {"Content-Length": str(size)}))
    client = Client(HOST, head).with_options(deadline=started + 0.05)
    with pytest.raises(TransportTimeout, match="the deadline passed while"):
        download(client, NAME, digest, world.target)
    assert path.stat().st_size == size


@pytest.mark.parametrize("part_size", [None, 100_000], ids=["one part", "several"])
def test_download_deadline_ends_the_hashing_of_received_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_size: int | None
) -> None:
    world = DownloadWorld(tmp_path, blob(1, 400_000))
    started, deadline_passed = time.monotonic(), threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: started + 1e6 * deadline_passed.is_set())
    world.client = world.client.with_options(deadline=started + 1000)
    with pytest.raises(TransportTimeout, match="the deadline passed"):
        world.download(part_size=part_size, progress=lambda event: deadline_passed.set())
    world.check_incomplete()


LINKS = {
    "loop": "blob.bin",
    "too long a name": "x" * 300,
    "long": "/".join(["x" * 200] * 19),
    "a directory": ".",
    "a fifo": "fifo",
    "a device": "/dev/zero",
    "nowhere": "nowhere",
    "right content": "right",
}


@pytest.mark.parametrize("link_target", list(LINKS.values()), ids=list(LINKS))
def test_download_link_at_the_target_is_replaced_and_never_followed(world: DownloadWorld, link_target: str) -> None:
    os.mkfifo(world.folder / "fifo")
    (world.folder / "right").write_bytes(world.content)
    world.target.symlink_to(link_target)
    assert world.download() == world.descriptor
    assert not world.target.is_symlink()
    assert world.target.read_bytes() == world.content
    assert sorted(os.listdir(world.folder)) == ["blob.bin", "fifo", "right"]
    assert world.requests == ["GET"]


def test_download_target_becomes_a_fifo_after_the_check_is_replaced(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat

    def lstat_regular_file(path: Any) -> Any:
        return lstat(world.folder / "file") if Path(path) == world.target else lstat(path)

    (world.folder / "file").write_bytes(b"regular")
    os.mkfifo(world.target)
    monkeypatch.setattr(os, "lstat", lstat_regular_file)
    assert world.download() == world.descriptor
    assert world.target.read_bytes() == world.content


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_download_target_not_a_regular_file_raises_usage_error(
    world: DownloadWorld, make: Callable[[Path], None]
) -> None:
    make(world.target)
    with pytest.raises(UsageError, match="cannot download to"):
        world.download()
    assert world.requests == []
