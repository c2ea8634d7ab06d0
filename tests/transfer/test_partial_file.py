"""The file beside the target: nobody else's is written, none is left, and what is whole is in place."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ociwire.transfer._partial_file import PartialFile
from tests._support.download_world import Place
from tests._support.fault_world import blob


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    threads, descriptors = set(threading.enumerate()), os.listdir("/proc/self/fd")
    yield
    assert set(threading.enumerate()) <= threads
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, blob(7, 5000))


def numbered(place: Place, number: int) -> Path:
    return Path(str(place.part).removesuffix("part") + f"{number}.part")


def mark_of(part: Path) -> Path:
    return Path(f"{part}.mark")


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
@pytest.mark.parametrize("names", [1, 9])
def test_what_is_no_file_of_ones_own_is_left_alone(
    place: Place, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, make: Any, names: int
) -> None:
    monkeypatch.chdir(place.folder)
    victim = tmp_path_factory.mktemp("other") / "victim"
    victim.write_bytes(b"precious")
    odd = [place.part, *(numbered(place, number) for number in range(1, names))]
    for path in odd:
        make(path, victim)
    before = [os.lstat(path).st_ino for path in odd]
    assert place.download() == place.described
    assert place.target.read_bytes() == place.content
    assert victim.read_bytes() == b"precious"
    assert sorted(os.listdir(place.folder)) == sorted([*(path.name for path in odd), "blob.bin"])
    assert [os.lstat(path).st_ino for path in odd] == before
    assert not (victim.parent / "nowhere").exists()


def test_another_users_file_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_another_users_file_that_cannot_be_opened(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
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


# Marks


@pytest.mark.parametrize("make", ODDITIES)
def test_a_mark_that_is_no_file_says_nothing(
    place: Place, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.chdir(place.folder)
    victim = tmp_path_factory.mktemp("other") / "victim"
    victim.write_bytes(b"precious")
    place.part.write_bytes(place.content[:3000])
    make(place.mark, victim)
    place.download()
    assert place.requests == ["GET"]
    assert place.target.read_bytes() == place.content
    assert victim.read_bytes() == b"precious"
    assert sorted(os.listdir(place.folder)) == ([place.mark.name] if make is folder else []) + ["blob.bin"]


@pytest.mark.parametrize("make", ODDITIES)
def test_a_mark_is_made_where_there_is_none(
    place: Place, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    """Whatever comes there meanwhile is not written through."""
    monkeypatch.chdir(place.folder)
    victim = tmp_path_factory.mktemp("other") / "victim"
    victim.write_bytes(b"precious")
    file = PartialFile(str(place.target), place.described.digest)
    make(place.mark, victim)
    assert file.scatter() == (make is not folder)
    file.note(7)
    assert victim.read_bytes() == b"precious"
    file.leave(0)


def test_a_mark_that_was_made_and_not_written_costs_nothing(place: Place) -> None:
    place.part.write_bytes(place.content[:3000])
    place.mark.touch()
    place.download()
    place.check()
    assert place.requests == ["HEAD", "GET bytes=3000-4999"]


def test_a_mark_that_cannot_be_written_is_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    file = PartialFile(str(place.target), place.described.digest)

    def full(descriptor: int, data: bytes, position: int) -> int:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert not file.scatter()
    assert not place.mark.exists()
    file.note(0)  # where there is no mark, there is nothing to write
    file.leave(0)


def test_a_mark_that_cannot_be_taken_away_leaves_nothing_open(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.part.write_bytes(place.content[:3000])
    place.mark.write_bytes(b"%020d" % 1000)

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
def test_a_folder_that_cannot_be_synced(place: Place, monkeypatch: pytest.MonkeyPatch, what: str, code: int) -> None:
    real = getattr(os, what)

    def refuse(first: Any, *arguments: Any) -> Any:
        if os.path.isdir(first if what == "open" else f"/proc/self/fd/{first}"):
            raise OSError(code, os.strerror(code))
        return real(first, *arguments)

    monkeypatch.setattr(os, what, refuse)
    assert place.download() == place.described
    place.check()


# Those of others at the same time


def test_a_second_one_that_was_killed_is_gone_on_from(place: Place) -> None:
    with place.part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        numbered(place, 1).write_bytes(place.content[:1000])
        place.download()
        assert sorted(os.listdir(place.folder)) == [place.part.name, "blob.bin"]
    assert place.requests == ["HEAD", "GET bytes=1000-4999"]
    assert place.target.read_bytes() == place.content


def test_what_killed_ones_left_is_taken_away_in_the_end(place: Place) -> None:
    for number in (1, 2, 8):
        numbered(place, number).write_bytes(b"left")
        mark_of(numbered(place, number)).write_bytes(b"%020d" % 0)
    with numbered(place, 4).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        mark_of(numbered(place, 4)).write_bytes(b"%020d" % 0)
        place.download()
        left = [numbered(place, 4).name, mark_of(numbered(place, 4)).name, "blob.bin"]
        assert sorted(os.listdir(place.folder)) == sorted(left)


def test_the_first_ones_file_is_taken_away_once_it_was_killed(place: Place) -> None:
    first = PartialFile(str(place.target), place.described.digest)
    second = PartialFile(str(place.target), place.described.digest)
    assert place.part.exists()
    assert numbered(place, 1).exists()
    first.close()
    second.finish()
    assert os.listdir(place.folder) == ["blob.bin"]


def test_more_at_the_same_time_than_there_are_names(place: Place) -> None:
    with ExitStack() as stack:
        files = [PartialFile(str(place.target), place.described.digest) for _ in range(12)]
        for one in files:
            stack.callback(one.close)
        assert len(os.listdir(place.folder)) == 12
        place.download()
        assert len(os.listdir(place.folder)) == 13
        for one in files:
            one.leave(0)
    place.check()
