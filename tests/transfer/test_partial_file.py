"""The partial file: files of other users are not written, none is left behind, a complete one is renamed."""

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
from tests._support.download_world import Place
from tests._support.fault_world import blob

pytestmark = pytest.mark.usefixtures("no_threads_left", "no_files_left")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, blob(7, 5000))


# What is not this user's own


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
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


ODDITIES = [link, symbolic_link, dangling_link, fifo, folder, unix_socket]


@pytest.mark.parametrize("make", ODDITIES)
def test_partial_file_name_is_not_a_private_file_is_left_alone(
    place: Place, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.chdir(place.folder)
    victim = tmp_path_factory.mktemp("other") / "victim"
    victim.write_bytes(b"precious")
    make(place.part, victim)
    before = os.lstat(place.part).st_ino
    assert place.download() == place.described
    assert place.target.read_bytes() == place.content
    assert victim.read_bytes() == b"precious"
    assert sorted(os.listdir(place.folder)) == sorted([place.part.name, "blob.bin"])
    assert os.lstat(place.part).st_ino == before
    assert not (victim.parent / "nowhere").exists()


def test_partial_file_of_another_user_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.part.write_bytes(place.content[:1000])
    fstat, uid, inode = os.fstat, os.geteuid(), place.part.stat().st_ino

    class Foreign:
        def __init__(self, status: os.stat_result) -> None:
            self._status, self.st_uid = status, uid + 1

        def __getattr__(self, name: str) -> Any:
            return getattr(self._status, name)

    def looked(descriptor: int) -> Any:
        status = fstat(descriptor)
        return Foreign(status) if status.st_ino == inode else status

    monkeypatch.setattr(os, "fstat", looked)
    place.download()
    assert place.target.read_bytes() == place.content
    assert place.target.stat().st_ino != inode
    assert place.part.read_bytes() == place.content[:1000]
    assert place.requests == ["GET"]


def test_partial_file_of_another_user_unreadable_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.part.write_bytes(b"another's")
    open_ = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if os.fspath(path) == str(place.part):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    place.download()
    assert place.target.read_bytes() == place.content
    assert place.part.read_bytes() == b"another's"


# Footers


def test_partial_file_footer_is_cut_off_and_tells_the_prefix(place: Place) -> None:
    file = PartialFile(str(place.target), place.described.digest)
    file.write(memoryview(place.content[:1000]), 0)
    file.record_prefix(1000)
    file.allow_gaps(5000)
    file.write(memoryview(place.content[3000:]), 3000)
    file.record_prefix(900)
    assert place.part.stat().st_size == 5036
    file.close()
    file = PartialFile(str(place.target), place.described.digest)
    assert file.prefix == 900
    assert place.part.read_bytes() == place.content[:900]
    file.abandon()


def test_partial_file_complete_after_gaps_has_no_footer(place: Place) -> None:
    file = PartialFile(str(place.target), place.described.digest)
    file.allow_gaps(5000)
    file.write(memoryview(place.content), 0)
    file.record_prefix(5000)
    assert file.finish()
    place.check()


def test_partial_file_footer_cannot_be_cut_off_leaves_nothing_open(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.part.write_bytes(place.content[:3000] + b"ociwire partial %020d" % 1000)

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", fail)
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output"):
                place.download()
    place.download()  # the lock is free
    place.check()
    assert place.requests == ["HEAD", "GET bytes=1000-4999"]


# The end


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("what", ["fsync", "open"])
def test_partial_file_directory_cannot_be_synced_is_in_place(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str, code: int
) -> None:
    real = getattr(os, what)

    def refuse(first: Any, *arguments: Any) -> Any:
        if os.path.isdir(first if what == "open" else f"/proc/self/fd/{first}"):
            raise OSError(code, os.strerror(code))
        return real(first, *arguments)

    monkeypatch.setattr(os, what, refuse)
    assert place.download() == place.described
    place.check()


# Other downloads at the same time


def test_partial_file_locked_by_another_uses_a_random_name(place: Place) -> None:
    with ExitStack() as stack:
        files = [PartialFile(str(place.target), place.described.digest) for _ in range(12)]
        for file in files:
            stack.callback(file.close)
        assert len(os.listdir(place.folder)) == 12
        place.download()
        assert len(os.listdir(place.folder)) == 13
        for file in files:
            file.abandon()
    place.check()


def test_partial_file_of_a_killed_process_is_taken_over(place: Place) -> None:
    first = PartialFile(str(place.target), place.described.digest)
    first.write(memoryview(place.content[:1000]), 0)
    first.close()  # as the system does for a killed process
    place.download()
    place.check()
    assert place.requests == ["HEAD", "GET bytes=1000-4999"]


def test_partial_file_renamed_before_it_was_locked_is_opened_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another download has just ended: what was opened is the complete file, which must not be written."""
    place.part.write_bytes(place.content)
    flock, renamed = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not renamed:
            renamed.append(os.replace(place.part, place.folder / "complete"))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    file = PartialFile(str(place.target), place.described.digest)
    assert file.prefix == 0
    file.abandon()
    assert (place.folder / "complete").read_bytes() == place.content
