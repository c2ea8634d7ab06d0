"""A download ends in the right file or in an error with a name; never in a wrong file, an open response, a thread."""

from __future__ import annotations

import contextvars
import errno
import fcntl
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
from tests._support.download_world import Place, breaks_after, limited, mends, whole
from tests._support.fault_world import FAULT_NAMES, HOST, NAME, STORED, Numbered, World, blob, faults_of

pytestmark = pytest.mark.usefixtures("no_threads_left")

MIB = 1024 * 1024


def footer(prefix: int) -> bytes:
    return b"ociwire partial %020d" % prefix


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, blob(7, 5000))


# What it does


def test_download_blob_takes_one_request(place: Place) -> None:
    assert place.download() == place.described
    place.check()
    assert place.requests == ["GET"]


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 9 * MIB])
def test_download_any_size_arrives(tmp_path: Path, size: int) -> None:
    place = Place(tmp_path, blob(1, size))
    assert place.download().size == size
    place.check()
    assert place.requests == ["GET"]


def test_download_target_is_right_sends_nothing(place: Place) -> None:
    place.target.write_bytes(place.content)
    inode = place.target.stat().st_ino
    events: list[Progress] = []
    assert place.download(progress=events.append) == place.described
    assert place.requests == []
    assert place.target.stat().st_ino == inode
    assert events == [Progress("download", place.described.digest, 5000, 5000)]


@pytest.mark.parametrize("old", [b"", b"something else", bytes(5000)])
def test_download_other_file_is_replaced_at_the_end(place: Place, old: bytes) -> None:
    place.target.write_bytes(old)
    breaks_after(place, 2000, ReadError("lost"))
    with pytest.raises(ReadError):
        place.download()
    assert place.target.read_bytes() == old
    mends(place)
    place.download()
    place.check()


def test_download_relative_path_and_long_name_arrives(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    name = "é" * 127
    download(place.client, NAME, place.described.digest, name)
    assert (place.folder / name).read_bytes() == place.content
    assert os.listdir(place.folder) == [name]


def test_download_progress_reports_in_order(tmp_path: Path) -> None:
    place = Place(tmp_path, blob(1, 9 * MIB))
    events: list[Progress] = []
    place.download(progress=events.append)
    assert [event.done for event in events] == [number * MIB for number in range(10)]
    assert {(event.operation, event.digest, event.total) for event in events} == {
        ("download", place.described.digest, 9 * MIB)
    }


def test_download_progress_raises_ends_the_download(place: Place) -> None:
    def refuse(event: Progress) -> None:
        if event.done:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        place.download(progress=refuse)
    place.check_not_done()


# What is interrupted


@pytest.mark.parametrize("error", [ReadError("lost"), TransportTimeout("late"), KeyboardInterrupt(), SystemExit()])
@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 4999])
def test_download_interrupted_resumes_at_position(place: Place, count: int, error: BaseException) -> None:
    breaks_after(place, count, error)
    with pytest.raises(type(error)):
        place.download()
    place.check_not_done()
    prefix = place.part.stat().st_size if place.part.exists() else 0
    assert prefix <= count
    mends(place)
    events: list[Progress] = []
    assert place.download(progress=events.append) == place.described
    place.check()
    assert place.requests == (["HEAD", f"GET bytes={prefix}-4999"] if prefix else ["GET"])
    assert events[0].done == prefix


@pytest.mark.parametrize("count", [1, 999, 4999])
def test_download_partial_file_of_killed_process_is_resumed(place: Place, count: int) -> None:
    place.part.write_bytes(place.content[:count])
    place.download()
    place.check()
    assert place.requests == ["HEAD", f"GET bytes={count}-4999"]


def test_download_partial_file_is_complete_sends_nothing(place: Place) -> None:
    place.part.write_bytes(place.content)
    assert place.download() == place.described
    place.check()
    assert place.requests == []


@pytest.mark.parametrize("prefix", [1000, 0])
def test_download_partial_file_with_gaps_resumes_at_the_prefix(place: Place, prefix: int) -> None:
    place.part.write_bytes(place.content[:1000] + bytes(4000) + footer(prefix))
    place.download()
    place.check()
    assert place.requests == (["HEAD", f"GET bytes={prefix}-4999"] if prefix else ["GET"])


@pytest.mark.parametrize("number", [b"", b"12", b"x" * 20, b"%021d" % 4, b"%020d" % (2 * 10**19), b"%020d" % 5000])
def test_download_partial_file_with_wrong_footer_downloads_the_blob(place: Place, number: bytes) -> None:
    place.part.write_bytes(place.content[:3000] + b"ociwire partial " + number)
    place.download()
    place.check()


def test_download_content_that_looks_like_a_footer_is_resumed_at_a_true_prefix(tmp_path: Path) -> None:
    place = Place(tmp_path, blob(1, 3000) + footer(2000) + blob(2, 1000))
    place.part.write_bytes(place.content[:3036])
    place.download()
    place.check()
    assert place.requests == ["HEAD", "GET bytes=2000-4035"]


@pytest.mark.parametrize("data", [b"x", bytes(4999), bytes(5000), bytes(5001), bytes(9000)])
def test_download_partial_file_is_wrong_starts_again(place: Place, data: bytes) -> None:
    place.part.write_bytes(data)
    place.download()
    place.check()
    assert place.requests[-1] == "GET"


def test_download_wrong_content_after_resume_starts_again_once(place: Place) -> None:
    place.tamper = lambda request, response: (
        response.replace(body=bytes(response.length or 0)) if request.method == "GET" else response
    )
    place.part.write_bytes(place.content[:1000])
    with pytest.raises(DigestMismatch) as caught:
        place.download()
    assert caught.value.expected == place.described.digest
    assert place.requests == ["HEAD", "GET bytes=1000-4999", "GET"]
    place.check_not_done()
    assert os.listdir(place.folder) == []


def test_download_resume_without_range_support_starts_again(place: Place) -> None:
    place.tamper = lambda request, response: whole(place) if "range" in request.headers else response
    place.part.write_bytes(place.content[:1000])
    place.download()
    place.check()
    assert place.requests == ["HEAD", "GET bytes=1000-4999", "GET"]


def test_download_partial_file_locked_writes_another_file(place: Place) -> None:
    with place.part.open("wb") as other:
        other.write(b"another's")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        place.download()
        assert place.target.read_bytes() == place.content
        assert sorted(os.listdir(place.folder)) == [place.part.name, "blob.bin"]
        assert place.part.read_bytes() == b"another's"


# What is wrong


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("fault", FAULT_NAMES)
def test_download_fault_at_each_request_ends_right_or_raises(
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


def test_download_blob_missing_raises_blob_unknown(place: Place) -> None:
    with pytest.raises(BlobUnknown):
        download(place.client, NAME, Descriptor.of(b"no").digest, place.target)
    assert os.listdir(place.folder) == []


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
def test_download_invalid_options_raise_usage_error(place: Place, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        place.download(**options)
    assert place.requests == []
    assert os.listdir(place.folder) == []


@pytest.mark.parametrize("path", ["", "there", "there/", ".", "..", "missing/x", "file/x", "a\0b", "fifo", "/dev/null"])
def test_download_invalid_paths_raise_usage_error(place: Place, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.folder)
    os.mkdir("there")
    os.mkfifo("fifo")
    Path("file").touch()
    with pytest.raises(UsageError):
        download(place.client, NAME, place.described.digest, path)
    assert place.requests == []
    assert sorted(os.listdir()) == ["fifo", "file", "there"]


@pytest.mark.parametrize("client", [None, "registry.example", MemoryRegistry()], ids=["none", "host", "transport"])
def test_download_invalid_client_raises_usage_error(place: Place, client: Any) -> None:
    with pytest.raises(UsageError, match="client"):
        download(client, NAME, place.described.digest, place.target)
    assert os.listdir(place.folder) == []


def test_download_link_at_the_target_is_not_followed(place: Place) -> None:
    other = place.folder / "other"
    other.write_bytes(b"another")
    place.target.symlink_to(other)
    place.download()
    assert not place.target.is_symlink()
    assert place.target.read_bytes() == place.content
    assert other.read_bytes() == b"another"


@pytest.mark.parametrize("path", [None, 3, b"bytes"])
def test_download_path_of_wrong_type_raises_usage_error(place: Place, path: Any) -> None:
    with pytest.raises(UsageError):
        download(place.client, NAME, place.described.digest, path)


def test_download_invalid_names_raise_usage_error(place: Place) -> None:
    for repository, digest in (("No", place.described.digest), (NAME, "sha256:1"), (NAME, "md5:abc")):
        with pytest.raises(UsageError):
            download(place.client, repository, digest, place.target)
    assert os.listdir(place.folder) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_download_read_only_directory_raises_permission_error(place: Place) -> None:
    place.folder.chmod(0o500)
    with pytest.raises(PermissionError):
        place.download()
    assert place.requests == []


def test_download_directory_refuses_raises_permission_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        place.download()
    assert place.requests == []


@pytest.mark.parametrize("workers", [1, 4])
def test_download_full_disk_raises_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    place, pwrite = Place(tmp_path, blob(1, 9 * MIB)), os.pwrite

    def full(descriptor: int, data: Any, offset: int) -> int:
        room = 5 * MIB - offset
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data[:room], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left") as caught:
            place.download(workers=workers)
        assert caught.value.errno == errno.ENOSPC
    place.check_not_done()
    assert place.part.stat().st_size == 5 * MIB
    place.download()
    place.check()


@pytest.mark.parametrize("what", ["fsync", "replace"])
def test_download_sync_or_rename_fails_raises_and_resumes(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, what, fail)
        with pytest.raises(OSError, match="Input/output"):
            place.download()
    place.check_not_done()
    mends(place)
    place.download()
    place.check()
    assert place.requests == []


def test_download_syncs_file_before_and_directory_after_rename(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def see_fsync(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def see_replace(source: str, target: str) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", see_fsync)
    monkeypatch.setattr(os, "replace", see_replace)
    place.download()
    assert done == ["file", "rename", "folder"]


def test_download_leaves_no_descriptor(place: Place) -> None:
    before = os.listdir("/proc/self/fd")
    place.download()
    place.target.unlink()
    breaks_after(place, 2000, ReadError("lost"))
    with pytest.raises(ReadError):
        place.download()
    assert os.listdir("/proc/self/fd") == before


# Several connections


@pytest.mark.parametrize("workers", [2, 4, 7])
def test_download_several_workers_use_as_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    place = Place(tmp_path, blob(1, 400_000))
    link = limited(place, connections=2)
    events: list[Progress] = []
    assert place.download(workers=workers, part_size=8000, progress=events.append).size == 400_000
    place.check()
    assert link.most == workers
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == 400_000


def test_download_one_worker_uses_one_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, blob(1, 400_000))
    limited(place)
    place.download(workers=1, part_size=8000)
    assert place.requests == ["GET"]


def test_download_no_range_support_uses_one_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, blob(1, 400_000))
    link = limited(place)
    slow = link.tamper
    place.tamper = lambda request, response: whole(place) if "range" in request.headers else slow(request, response)
    place.download(workers=4, part_size=8000)
    place.check()
    assert len(place.requests) <= 4, "each helper sends one request and ends"
    assert place.requests.count("GET") == 1


@pytest.mark.parametrize("status", [403, 429, 500])
def test_download_range_refused_uses_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    place = Place(tmp_path, blob(1, 400_000))
    link = limited(place)
    slow = link.tamper
    place.tamper = lambda request, response: Response(status) if "range" in request.headers else slow(request, response)
    place.download(workers=4, part_size=8000)
    place.check()
    assert len(place.requests) <= 4, "each helper sends one request and ends"
    assert place.requests.count("GET") == 1


def test_download_wrong_part_raises_digest_mismatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, blob(1, 400_000))
    link = limited(place)
    slow = link.tamper

    def tamper(request: Request, response: Response) -> Response:
        if "range" in request.headers and len(place.requests) == 6:
            response = response.replace(body=iter([bytes(response.length or 0)]))
        return slow(request, response)

    place.tamper = tamper
    with pytest.raises(DigestMismatch):
        place.download(workers=4, part_size=8000)
    place.check_not_done()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [3, 4, 7, 20])
@pytest.mark.parametrize("error", [ReadError("lost"), KeyboardInterrupt()])
def test_download_first_error_ends_all_workers_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException
) -> None:
    place = Place(tmp_path, blob(1, 400_000))
    link = limited(place)
    slow = link.tamper
    has_prefix = threading.Event()

    def tamper(request: Request, response: Response) -> Response:
        if len(place.requests) >= number and request.method == "GET":
            response.close()
            assert has_prefix.wait(30)
            raise error
        return slow(request, response)

    def report(event: Progress) -> None:
        if event.done and threading.current_thread() is threading.main_thread():  # it receives the first part
            has_prefix.set()

    place.tamper = tamper
    with pytest.raises(type(error)):
        place.download(workers=4, part_size=8000, progress=report)
    place.check_not_done()
    assert place.part.exists()
    prefix = place.part.stat().st_size
    assert place.part.read_bytes() == place.content[:prefix]
    assert prefix > 0
    mends(place)
    place.download()
    place.check()
    assert place.requests == ["HEAD", f"GET bytes={prefix}-399999"]


def test_download_file_with_gaps_always_has_a_footer_within_the_prefix(tmp_path: Path) -> None:
    place, prefixes = Place(tmp_path, blob(1, 400_000)), []
    limited(place, connections=2)

    def look(event: Progress) -> None:
        with place.part.open("rb") as file:
            file.seek(len(place.content))
            footer = file.read()  # before the content, which grows
            file.seek(0)
            data = file.read()
        if footer:
            assert footer.startswith(b"ociwire partial ")
            prefix = int(footer[-20:])
            assert data[:prefix] == place.content[:prefix]
            prefixes.append(prefix)

    place.download(workers=4, part_size=8000, progress=look)
    assert prefixes
    place.check()


def test_download_workers_run_in_the_callers_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    place = Place(tmp_path, blob(1, 400_000))
    slow, seen = limited(place).tamper, []

    def tamper(request: Request, response: Response) -> Response:
        seen.append((tenant.get(), threading.get_ident()))
        return slow(request, response)

    place.tamper = tamper
    tenant.set("me")
    place.download(workers=4, part_size=8000)
    assert {name for name, _ in seen} == {"me"}
    assert len({thread for _, thread in seen}) == 4


def test_download_deadline_is_in_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, deadlines = Place(tmp_path, blob(1, 400_000)), []
    slow = limited(place).tamper

    def tamper(request: Request, response: Response) -> Response:
        deadlines.append(request.info.deadline)
        return slow(request, response)

    place.tamper = tamper
    place.client = place.client.with_options(deadline=time.monotonic() + 1e6)
    place.download(workers=4, part_size=8000)
    assert len(deadlines) > 4
    assert None not in deadlines


def test_download_interrupt_during_join_is_raised(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    join, interrupts = threading.Thread.join, [KeyboardInterrupt()]

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if interrupts:
            raise interrupts.pop()
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        place.download(part_size=1000)
    place.check_not_done()


# What registries do


def without_length(request: Request, response: Response) -> Response:
    if request.method != "GET":
        return response
    return Response(response.status, {}, iter([response.read()]))


def test_download_no_content_length_asks_with_head(place: Place) -> None:
    place.tamper = without_length
    place.download()
    place.check()
    assert place.requests == ["GET", "HEAD"]


def test_download_size_unknown_raises_protocol_error(place: Place) -> None:
    def tamper(request: Request, response: Response) -> Response:
        return without_length(request, response) if request.method == "GET" else Response(404)

    place.tamper = tamper
    with pytest.raises(ProtocolError, match="does not state the size"):
        place.download()
    assert not place.watch.open
    assert os.listdir(place.folder) == []


RANGES = [None, "bytes 0-4999/5000", "bytes 1001-4999/5000", "bytes 1000-4999/6000", "garbage"]


@pytest.mark.parametrize("content_range", RANGES)
def test_download_resume_with_wrong_content_range_starts_again(place: Place, content_range: str | None) -> None:
    place.tamper = lambda request, response: (
        response.replace(headers=response.headers.updated({"Content-Range": content_range}))
        if response.status == 206
        else response
    )
    place.part.write_bytes(place.content[:1000])
    place.download()
    place.check()
    assert place.requests == ["HEAD", "GET bytes=1000-4999", "GET"]


@pytest.mark.parametrize("status", [400, 405, 409, 410, 416, 501])
def test_download_resume_range_refused_starts_again(place: Place, status: int) -> None:
    place.tamper = lambda request, response: Response(status) if "range" in request.headers else response
    place.part.write_bytes(place.content[:1000])
    place.download()
    place.check()
    assert place.requests == ["HEAD", "GET bytes=1000-4999", "GET"]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
def test_download_resume_refused_for_other_reasons_raises(place: Place, status: int) -> None:
    place.tamper = lambda request, response: Response(status) if "range" in request.headers else response
    place.part.write_bytes(place.content[:1000])
    with pytest.raises(RegistryError) as caught:
        place.download()
    assert caught.value.status == status
    assert place.part.read_bytes() == place.content[:1000]
    assert place.requests == ["HEAD", "GET bytes=1000-4999"]


def test_download_range_support_ends_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, blob(1, 400_000))
    slow = limited(place).tamper

    def tamper(request: Request, response: Response) -> Response:
        stopped = "range" in request.headers and len(place.requests) > 8
        return whole(place) if stopped else slow(request, response)

    place.tamper = tamper
    place.download(workers=4, part_size=8000)
    place.check()


# --- another process at work in the same folder ---


def swap(path: Path, content: bytes) -> None:
    """Remove a file and put another one there, as another process may."""
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("how", ["replaced", "removed", "link", "symbolic link", "directory"])
def test_download_partial_file_is_swapped_raises_os_error(place: Place, how: str, workers: int) -> None:
    place.target.write_bytes(b"old")
    other = place.folder / "other"
    other.write_bytes(b"foreign")

    def progress(event: Progress) -> None:
        if event.done != event.total:
            return
        place.part.unlink()
        if how == "replaced":
            place.part.write_bytes(b"foreign")
        elif how == "link":
            os.link(other, place.part)
        elif how == "symbolic link":
            place.part.symlink_to(other)
        elif how == "directory":
            place.part.mkdir()

    with pytest.raises(OSError, match=r"refusing to rename .* removed or replaced it while it was written"):
        place.download(workers=workers, progress=progress)
    assert place.target.read_bytes() == b"old"
    assert other.read_bytes() == b"foreign"
    assert os.path.lexists(place.part) == (how != "removed"), "the file of another process is left alone"
    assert not place.watch.open


def test_download_partial_file_that_was_whole_is_swapped_raises_os_error(place: Place) -> None:
    place.part.write_bytes(place.content)
    with pytest.raises(OSError, match="refusing to rename"):
        place.download(progress=lambda event: swap(place.part, b"foreign"))
    place.check_not_done()


def test_download_fails_a_swapped_partial_file_is_left_alone(place: Place) -> None:
    def progress(event: Progress) -> None:
        swap(place.part, b"foreign")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.download(progress=progress)
    assert place.part.read_bytes() == b"foreign"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("content", ["foreign", "right"])
def test_download_swapped_around_the_rename_is_judged_by_content(
    place: Place, monkeypatch: pytest.MonkeyPatch, when: str, content: str
) -> None:
    """After the last check of the partial file, or after the rename: what is at the target decides."""
    replace, put = os.replace, place.content if content == "right" else b"x" * len(place.content)

    def swapping(source: str, target: str) -> None:
        if when == "before":
            swap(Path(source), put)
        replace(source, target)
        if when == "after":
            swap(Path(target), put)

    monkeypatch.setattr(os, "replace", swapping)
    if content == "right":  # as another download of the same blob may
        assert place.download() == place.described
        place.check()
    else:
        with pytest.raises(OSError, match=f"does not hold {place.described.digest}"):
            place.download()
    assert not place.watch.open


def test_download_partial_file_linked_to_the_target_leaves_one_name(place: Place) -> None:
    def progress(event: Progress) -> None:
        if event.done == event.total:
            os.link(place.part, place.target)  # rename(2) does nothing where both names are links to the same file

    assert place.download(progress=progress) == place.described
    place.check()


def test_download_target_is_swapped_while_it_is_hashed_is_fetched(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.target.write_bytes(place.content)
    preadv = os.preadv

    def swapping(*arguments: Any) -> int:
        monkeypatch.setattr(os, "preadv", preadv)
        count = preadv(*arguments)
        swap(place.target, b"foreign")
        return count

    monkeypatch.setattr(os, "preadv", swapping)
    assert place.download() == place.described
    place.check()
    assert place.requests == ["GET"]


# --- files on disk that are too large, endless or links ---

SPARSE = 1024**4


def sparse(path: Path, beginning: bytes = b"") -> None:
    """A file of 1 TiB that takes no room on disk, and half an hour to hash."""
    path.write_bytes(beginning)
    os.truncate(path, SPARSE)


def few_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail, and do not read for half an hour, where a file is hashed that cannot be right."""
    preadv, reads = os.preadv, [0]

    def counted(*arguments: Any) -> int:
        reads[0] += 1
        assert reads[0] < 1000, "the file is hashed"
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", counted)


def test_download_sparse_target_is_replaced_without_being_hashed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    few_reads(monkeypatch)
    sparse(place.target, place.content)
    assert place.download() == place.described
    place.check()
    assert place.requests == ["HEAD", "GET"]


def test_download_sparse_partial_file_is_discarded_without_being_hashed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_reads(monkeypatch)
    sparse(place.part, place.content)
    assert place.download() == place.described
    place.check()
    assert place.requests == ["HEAD", "GET"]


@pytest.mark.parametrize("name", ["target", "part"])
def test_download_large_file_of_the_right_size_is_hashed_and_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(download.__globals__, "_HASH_LIMIT", 4999)
    getattr(place, name).write_bytes(place.content)
    assert place.download() == place.described
    place.check()
    assert place.requests == ["HEAD"]


def test_download_large_partial_file_is_resumed_with_one_head(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(download.__globals__, "_HASH_LIMIT", 999)
    place.part.write_bytes(place.content[:1000])
    assert place.download() == place.described
    place.check()
    assert place.requests == ["HEAD", "GET bytes=1000-4999"]


@pytest.mark.parametrize("name", ["target", "part"])
def test_download_large_file_where_head_is_refused_is_fetched(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(download.__globals__, "_HASH_LIMIT", 999)
    getattr(place, name).write_bytes(place.content)
    place.tamper = lambda request, response: Response(405) if request.method == "HEAD" else response
    assert place.download() == place.described
    place.check()


@pytest.mark.parametrize("name", ["target", "part"])
def test_download_hashing_ends_with_the_deadline(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    size = 2 * SPARSE
    digest = Digest.of(b"other")
    part = place.folder / f".blob.bin.{digest.encoded[:12]}.part"
    path = place.target if name == "target" else part
    sparse(path)
    os.truncate(path, size)
    few_reads(monkeypatch)
    started, ticks = time.monotonic(), itertools.count(1)
    monkeypatch.setattr(time, "monotonic", lambda: started + next(ticks) / 1000)
    head = FunctionTransport(lambda request: Response(200, {"Content-Length": str(size)}))
    client = Client(HOST, head).with_options(deadline=started + 0.05)
    with pytest.raises(TransportTimeout, match="the deadline passed while"):
        download(client, NAME, digest, place.target)
    assert path.stat().st_size == size


@pytest.mark.parametrize("part_size", [None, 100_000], ids=["one part", "several"])
def test_download_deadline_ends_the_hashing_of_what_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_size: int | None
) -> None:
    place = Place(tmp_path, blob(1, 400_000))
    started, over = time.monotonic(), threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: started + 1e6 * over.is_set())
    place.client = place.client.with_options(deadline=started + 1000)
    with pytest.raises(TransportTimeout, match="the deadline passed"):
        place.download(part_size=part_size, progress=lambda event: over.set())
    place.check_not_done()


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


@pytest.mark.parametrize("leads_to", list(LINKS.values()), ids=list(LINKS))
def test_download_link_at_the_target_is_replaced_and_never_followed(place: Place, leads_to: str) -> None:
    os.mkfifo(place.folder / "fifo")
    (place.folder / "right").write_bytes(place.content)
    place.target.symlink_to(leads_to)
    assert place.download() == place.described
    assert not place.target.is_symlink()
    assert place.target.read_bytes() == place.content
    assert sorted(os.listdir(place.folder)) == ["blob.bin", "fifo", "right"]
    assert place.requests == ["GET"]


def test_download_target_becomes_a_fifo_after_the_check_is_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat

    def late(path: Any) -> Any:
        return lstat(place.folder / "file") if Path(path) == place.target else lstat(path)

    (place.folder / "file").write_bytes(b"regular")
    os.mkfifo(place.target)
    monkeypatch.setattr(os, "lstat", late)
    assert place.download() == place.described
    assert place.target.read_bytes() == place.content


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_download_target_not_a_regular_file_raises_usage_error(place: Place, make: Callable[[Path], None]) -> None:
    make(place.target)
    with pytest.raises(UsageError, match="cannot download to"):
        place.download()
    assert place.requests == []
