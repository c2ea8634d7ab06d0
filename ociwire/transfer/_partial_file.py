"""The file that a download goes into until it is whole, beside the one that it will be.

It has a name that the next attempt finds, and a lock that a killed process lets go of. Without a mark beside it, all
of it is one prefix of the content; the mark, there while parts are written further on, says how far the prefix goes.
Neither is believed: whoever goes on hashes the prefix again. Nor is a file written that anybody else could have put
there: another user's, one with a second name, a link, anything but a file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import final

from .._oci.digest import Digest

__all__ = ["PartialFile", "is_at", "open_regular", "read_at"]

_LONGEST_NAME = 200
"""Of a target whose partial file has its name in it, in bytes: file systems take 255."""
_OTHERS = 8
"""So many names are tried beside the first, for those who download the same at the same time."""
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FLAGS = os.O_RDWR | os.O_CREAT | _SAFELY
_UNFIT = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM)
"""What opening a link, a folder, a socket, another user's file ends in."""


@final
class PartialFile:
    """An open partial file, which nobody else writes. May be written and read by several threads.

    Args:
        target: What it is to be in the end, in a folder that exists.
        digest: Of the content.

    Attributes:
        prefix: How much there is to go on with, in bytes.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, target: str, digest: Digest) -> None:
        self._target = target
        self._folder, name = os.path.split(target)
        encoded = os.fsencode(name)
        stem = name if len(encoded) <= _LONGEST_NAME else Digest.of(encoded).encoded
        self._stem = os.path.join(self._folder, f".{stem}.{digest.encoded[:12]}")
        self._mark: int | None = None
        self._path, self._descriptor = self._open()
        self.prefix = 0
        found = False
        try:
            self.prefix = self._find_prefix()
            found = True
        finally:
            if not found:
                self.close()

    def write(self, view: memoryview, offset: int) -> None:
        """Write all of it."""
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view, offset = view[count:], offset + count

    def read(self, view: memoryview, offset: int) -> None:
        """Read back what was written there; OSError if it is no longer."""
        if read_at(self._descriptor, view, offset) < len(view):
            raise OSError(f"{self._path} became shorter while it was written")

    def scatter(self) -> bool:
        """From now on there may be gaps behind the prefix, which a mark tells; False if there can be no mark."""
        if self._mark is not None:
            return True
        try:
            self._unmark()
            self._mark = os.open(_mark_of(self._path), _FLAGS | os.O_EXCL, 0o666)
            self.note(self.prefix)
        except OSError:
            with suppress(OSError):
                self._unmark()
            return False
        return True

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

    def finish(self) -> bool:
        """It is whole: give it the name it is for, so that a loss of power leaves it whole or not there.

        It is in place then, whatever the folder's file system answers to being synced.

        Returns:
            Whether the target is this file now. If it is not, another process has replaced it: the caller must check
            the digest of the target before it reports success.

        Raises:
            OSError: The partial file has been replaced by another file, or it cannot be renamed.
        """
        os.fsync(self._descriptor)
        self._unmark()
        # A rename moves whatever file has the name, but the content was verified in the file of the descriptor.
        if not is_at(self._descriptor, self._path):
            raise OSError(
                f"refusing to rename {self._path} to {self._target}: another process has removed or replaced it while"
                " it was written; download again"
            )
        os.replace(self._path, self._target)
        placed = is_at(self._descriptor, self._target)  # it may have been replaced between the check and the rename
        if placed and is_at(self._descriptor, self._path):
            os.unlink(self._path)  # rename(2) does nothing where both names are links to the same file
        with suppress(OSError):
            _sync_folder(self._folder or ".")
        self.close()
        self._sweep()
        return placed

    def leave(self, prefix: int) -> None:
        """It is not whole, and this attempt is over: keep a prefix, in bytes; of nothing, keep nothing."""
        with suppress(OSError):  # what it is left for is what the caller should hear of
            if prefix:
                self.cut(prefix)
            elif is_at(self._descriptor, self._path):  # else another process has put a file of its own there
                os.unlink(self._path)
                self._unmark()
        self.close()

    def close(self) -> None:
        """Let go of it, and of its lock."""
        for descriptor in (self._mark, self._descriptor):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._mark, self._descriptor = None, -1

    def _names(self) -> Iterator[str]:
        """Those that the next attempt finds too."""
        yield f"{self._stem}.part"
        for number in range(1, _OTHERS + 1):
            yield f"{self._stem}.{number}.part"

    def _open(self) -> tuple[str, int]:
        """The first file of these names that is nobody else's, locked; else one whose name nobody knows."""
        for path in self._names():
            descriptor = _claim(path, _FLAGS)
            if descriptor is not None:
                return path, descriptor
        path = f"{self._stem}.{secrets.token_hex(8)}.part"
        descriptor = os.open(path, _FLAGS | os.O_EXCL, 0o666)
        _locked(descriptor)
        return path, descriptor

    def _find_prefix(self) -> int:
        size = os.fstat(self._descriptor).st_size
        try:
            mark = os.open(_mark_of(self._path), os.O_RDONLY | _SAFELY)
        except FileNotFoundError:
            return size
        except OSError:  # a link, or nothing that could be read
            text = b""
        else:
            try:
                regular = stat.S_ISREG(os.fstat(mark).st_mode)
                text = os.read(mark, 21) if regular else b""
            finally:
                os.close(mark)
            if text == b"" and regular:  # made, and not written: nothing was scattered yet
                text = b"%020d" % size
        prefix = min(size, int(text)) if len(text) == 20 and text.isdigit() else 0
        self.cut(prefix)
        return prefix

    def _unmark(self) -> None:
        if self._mark is not None:
            os.close(self._mark)
            self._mark = None
        with suppress(FileNotFoundError, IsADirectoryError):  # under a folder nothing is ever scattered
            os.unlink(_mark_of(self._path))

    def _sweep(self) -> None:
        """Take away what killed processes left under the other names: nobody needs it any more."""
        for path in self._names():
            if path == self._path:  # gone; where there are no locks, the next one may be at work there
                continue
            with suppress(OSError):
                descriptor = _claim(path, os.O_RDWR | _SAFELY)
                if descriptor is not None:
                    try:
                        os.unlink(path)
                        os.unlink(_mark_of(path))
                    finally:
                        os.close(descriptor)


def _mark_of(path: str) -> str:
    return f"{path}.mark"


def _claim(path: str, flags: int) -> int | None:
    """Open the file of that name and lock it; None if somebody else is at work on it, or it is not to be trusted.

    Raises:
        OSError: It is not there and cannot be made.
    """
    while True:
        try:
            # Checked before it is opened, too: opening a device may do something.
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return None
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno in _UNFIT and os.path.lexists(path):
                return None
            raise
        locked = at = False
        try:
            locked = _is_ours(os.fstat(descriptor)) and _locked(descriptor)
            at = locked and is_at(descriptor, path)
        finally:
            if not at:
                os.close(descriptor)
        if at or not locked:
            return descriptor if at else None


def _is_ours(status: os.stat_result) -> bool:
    """Whether it is an ordinary file of this user, with this name only: no other can be written through it."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and status.st_uid == os.geteuid()


def _locked(descriptor: int) -> bool:
    """Lock it for this process; False if another has. Where there are no locks, everybody has one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that knows no locks
    return True


def open_regular(path: str) -> int | None:
    """Open a file for reading, if a regular file has that name. Follows no symbolic link, and never waits for a FIFO.

    Raises:
        OSError: The file system's, other than that there is no such file, or that this user may not read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _SAFELY)
    except (FileNotFoundError, PermissionError):
        return None
    except OSError as error:
        if error.errno in _UNFIT:
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def read_at(descriptor: int, view: memoryview, offset: int) -> int:
    """Read from a position until the buffer is full or the file ends; returns the number of bytes."""
    filled = 0
    while filled < len(view):
        count = os.preadv(descriptor, [view[filled:]], offset + filled)
        if count == 0:
            break
        filled += count
    return filled


def is_at(descriptor: int, path: str) -> bool:
    """Whether a path names the file of a descriptor: another process may have renamed, removed or replaced it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
