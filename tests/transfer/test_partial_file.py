"""Partial files: they are renamed when complete, and files of other users are never written."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ociwire.transfer._partial_file import PartialFile
from tests._support.download_world import DownloadWorld
from tests._support.fault_world import blob

pytestmark = pytest.mark.usefixtures("no_threads_left", "no_files_left")


@pytest.fixture
def world(tmp_path: Path) -> DownloadWorld:
    return DownloadWorld(tmp_path, blob(7, 5000))


# Files that are not private to this user


def link(path: Path, victim: Path) -> None:
    os.link(victim, path)


def symbolic_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("nowhere"))


def fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, victim: Path) -> None:
    path.mkdir()


def unix_socket(path: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


NOT_PRIVATE = [link, symbolic_link, dangling_link, fifo, folder, unix_socket]


@pytest.mark.parametrize("make", NOT_PRIVATE)
def test_partial_file_path_is_not_a_private_file_is_not_changed(
    world: DownloadWorld, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.chdir(world.folder)
    victim = tmp_path_factory.mktemp("other") / "victim"
    victim.write_bytes(b"precious")
    make(world.part, victim)
    before = os.lstat(world.part).st_ino
    assert world.download() == world.descriptor
    assert world.target.read_bytes() == world.content
    assert victim.read_bytes() == b"precious"
    assert sorted(os.listdir(world.folder)) == sorted([world.part.name, "blob.bin"])
    assert os.lstat(world.part).st_ino == before
    assert not (victim.parent / "nowhere").exists()


def test_partial_file_of_another_user_is_not_changed(world: DownloadWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.part.write_bytes(world.content[:1000])
    fstat, uid, inode = os.fstat, os.geteuid(), world.part.stat().st_ino

    class OtherOwner:
        def __init__(self, status: os.stat_result) -> None:
            self._status, self.st_uid = status, uid + 1

        def __getattr__(self, name: str) -> Any:
            return getattr(self._status, name)

    def fstat_with_other_owner(descriptor: int) -> Any:
        status = fstat(descriptor)
        return OtherOwner(status) if status.st_ino == inode else status

    monkeypatch.setattr(os, "fstat", fstat_with_other_owner)
    world.download()
    assert world.target.read_bytes() == world.content
    assert world.target.stat().st_ino != inode
    assert world.part.read_bytes() == world.content[:1000]
    assert world.requests == ["GET"]


def test_partial_file_of_another_user_unreadable_is_not_changed(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.part.write_bytes(b"foreign")
    open_ = os.open

    def fail(path: Any, *arguments: Any, **options: Any) -> int:
        if os.fspath(path) == str(world.part):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fail)
    world.download()
    assert world.target.read_bytes() == world.content
    assert world.part.read_bytes() == b"foreign"


# Footers


def test_partial_file_footer_is_truncated_and_sets_the_prefix(world: DownloadWorld) -> None:
    file = PartialFile(str(world.target), world.descriptor.digest)
    file.write(memoryview(world.content[:1000]), 0)
    file.record_prefix(1000)
    file.allow_gaps(5000)
    file.write(memoryview(world.content[3000:]), 3000)
    file.record_prefix(900)
    assert world.part.stat().st_size == 5036
    file.close()
    file = PartialFile(str(world.target), world.descriptor.digest)
    assert file.prefix == 900
    assert world.part.read_bytes() == world.content[:900]
    file.abandon()


def test_partial_file_complete_after_gaps_has_no_footer(world: DownloadWorld) -> None:
    file = PartialFile(str(world.target), world.descriptor.digest)
    file.allow_gaps(5000)
    file.write(memoryview(world.content), 0)
    file.record_prefix(5000)
    assert file.finish()
    world.check_complete()


def test_partial_file_footer_truncation_fails_releases_the_lock(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.part.write_bytes(world.content[:3000] + b"ociwire partial %020d" % 1000)

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", fail)
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output"):
                world.download()
    world.download()  # the lock was released
    world.check_complete()
    assert world.requests == ["HEAD", "GET bytes=1000-4999"]


# Rename


@pytest.mark.parametrize("error_number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("function", ["fsync", "open"])
def test_partial_file_directory_sync_fails_keeps_the_download(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch, function: str, error_number: int
) -> None:
    original = getattr(os, function)

    def fail(first: Any, *arguments: Any) -> Any:
        if os.path.isdir(first if function == "open" else f"/proc/self/fd/{first}"):
            raise OSError(error_number, os.strerror(error_number))
        return original(first, *arguments)

    monkeypatch.setattr(os, function, fail)
    assert world.download() == world.descriptor
    world.check_complete()


# Other downloads at the same time


def test_partial_file_locked_by_another_uses_a_random_name(world: DownloadWorld) -> None:
    with ExitStack() as stack:
        files = [PartialFile(str(world.target), world.descriptor.digest) for _ in range(12)]
        for file in files:
            stack.callback(file.close)
        assert len(os.listdir(world.folder)) == 12
        world.download()
        assert len(os.listdir(world.folder)) == 13
        for file in files:
            file.abandon()
    world.check_complete()


def test_partial_file_of_a_killed_process_is_resumed(world: DownloadWorld) -> None:
    first = PartialFile(str(world.target), world.descriptor.digest)
    first.write(memoryview(world.content[:1000]), 0)
    first.close()  # the system also closes the files of a killed process
    world.download()
    world.check_complete()
    assert world.requests == ["HEAD", "GET bytes=1000-4999"]


def test_partial_file_renamed_before_it_was_locked_is_opened_again(
    world: DownloadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another download has just completed, the opened file is the complete one, which must not be written."""
    world.part.write_bytes(world.content)
    flock, renamed = fcntl.flock, []

    def flock_after_rename(descriptor: int, operation: int) -> None:
        if not renamed:
            renamed.append(os.replace(world.part, world.folder / "complete"))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_rename)
    file = PartialFile(str(world.target), world.descriptor.digest)
    assert file.prefix == 0
    file.abandon()
    assert (world.folder / "complete").read_bytes() == world.content
