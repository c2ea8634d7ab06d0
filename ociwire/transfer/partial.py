"""The file that a download goes into until it is whole, beside the one that it will be.

It has a name that the next attempt finds, and a lock that a killed process lets go of. Without a mark beside it, all
of it is one prefix of the content; the mark, there while parts are written further on, says how far the prefix goes.
Neither is believed: whoever goes on hashes the prefix again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from contextlib import suppress
from typing import final

from ..digest import Digest
from ..errors import UsageError

__all__ = ["PartialFile"]

_LONGEST_NAME = 200
"""Of a target whose partial file has its name in it, in bytes: file systems take 255."""
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@final
class PartialFile:
    """An open partial file, which nobody else writes. May be written and read by several threads.

    Args:
        target: What it is to be in the end, in a folder that exists.
        digest: Of the content.

    Attributes:
        prefix: How much there is to go on with, in bytes.

    Raises:
        UsageError: Something other than a file has its name.
        OSError: It cannot be made.
    """

    def __init__(self, target: str, digest: Digest) -> None:
        self._target = target
        self._folder, name = os.path.split(target)
        encoded = os.fsencode(name)
        stem = name if len(encoded) <= _LONGEST_NAME else Digest.of(encoded).encoded
        self._path = os.path.join(self._folder, f".{stem}.{digest.encoded[:12]}.part")
        self._descriptor = self._open()
        self._mark_path = f"{self._path}.mark"
        self._mark: int | None = None
        self.prefix = self._find_prefix()

    def write(self, view: memoryview, offset: int) -> None:
        """Write all of it."""
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view, offset = view[count:], offset + count

    def read(self, view: memoryview, offset: int) -> None:
        """Read back what was written there; OSError if it is no longer."""
        while view:
            count = os.preadv(self._descriptor, [view], offset)
            if count == 0:
                raise OSError(f"{self._path} became shorter while it was written")
            view, offset = view[count:], offset + count

    def scatter(self) -> None:
        """From now on there may be gaps behind the prefix: leave a mark that says how far it goes."""
        self._mark = os.open(self._mark_path, _FLAGS | os.O_TRUNC, 0o666)
        self.note(self.prefix)

    def note(self, prefix: int) -> None:
        """The prefix goes so far now; all of it is written."""
        self.prefix = prefix
        if self._mark is not None:
            os.pwrite(self._mark, b"%020d" % prefix, 0)

    def cut(self, prefix: int) -> None:
        """Forget all but a prefix, in bytes, which has no gaps."""
        os.ftruncate(self._descriptor, prefix)
        self._unmark()
        self.prefix = prefix

    def finish(self) -> None:
        """It is whole: give it the name it is for, so that a loss of power leaves it whole or not there."""
        os.fsync(self._descriptor)
        self._unmark()
        os.replace(self._path, self._target)
        folder = os.open(self._folder or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.close()

    def leave(self, prefix: int) -> None:
        """It is not whole, and this attempt is over: keep a prefix, in bytes; of nothing, keep nothing."""
        with suppress(OSError):  # what it is left for is what the caller should hear of
            if prefix:
                self.cut(prefix)
            else:
                os.unlink(self._path)
                self._unmark()
        self.close()

    def close(self) -> None:
        """Let go of it, and of its lock."""
        for descriptor in (self._mark, self._descriptor):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._mark, self._descriptor = None, -1

    def _open(self) -> int:
        """The file of that name, locked; one of another name, if somebody else is at work on that."""
        while True:
            descriptor = os.open(self._path, _FLAGS, 0o666)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise UsageError(f"{self._path} is not a file")
                locked = _locked(descriptor)
                if locked and _is_at(descriptor, self._path):
                    kept, descriptor = descriptor, -1
                    return kept
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            if not locked:
                self._path = f"{self._path.removesuffix('.part')}.{secrets.token_hex(4)}.part"

    def _find_prefix(self) -> int:
        size = os.fstat(self._descriptor).st_size
        try:
            with open(self._mark_path, "rb") as mark:
                text = mark.read(21)
        except FileNotFoundError:
            return size
        prefix = min(size, int(text)) if len(text) == 20 and text.isdigit() else 0
        self.cut(prefix)
        return prefix

    def _unmark(self) -> None:
        if self._mark is not None:
            os.close(self._mark)
            self._mark = None
        with suppress(FileNotFoundError):
            os.unlink(self._mark_path)


def _locked(descriptor: int) -> bool:
    """Lock it for this process; False if another has. Where there are no locks, everybody has one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that knows no locks
    return True


def _is_at(descriptor: int, path: str) -> bool:
    """Whether it still has that name: whoever had the lock before may have renamed it, or taken it away."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
