"""The file that a download is written to until it is complete, beside its target: ``.NAME.DIGEST.part``.

The next attempt finds the file by its name, and `flock` keeps two processes from writing it at the same time; the lock
of a killed process is released. Without a footer, the whole file is one prefix of the content. A file that is written
out of order has a footer behind the last byte of the content, which says how far the prefix without gaps goes::

    prefix without gaps | parts and gaps ... | footer: magic, prefix as 20 decimal digits
    0                                        size of the content

The next attempt cuts the file to the prefix and hashes it again: a wrong footer, or other bytes in the file, cost a
download of the whole and nothing else. Nor can content that looks like a footer do harm: in a file without gaps, every
shorter prefix is one, too.

A file that another user could have put there is not written: a link, a file with a second name, another user's file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import suppress
from typing import final

from .._oci.digest import Digest

__all__ = ["PartialFile", "is_at", "open_regular", "read_at"]

_MAGIC = b"ociwire partial "
_FOOTER_SIZE = len(_MAGIC) + 20
_MAX_NAME_LENGTH = 200
"""Maximum length in bytes of a target's name within the name of the partial file: file systems take 255."""
_SAFE_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE_FLAGS = os.O_RDWR | os.O_CREAT | _SAFE_FLAGS
# What opening a link, a directory, a socket or another user's file fails with.
_UNUSABLE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM)


@final
class PartialFile:
    """An open partial file, locked for this process. Several threads may write and read it.

    If the file of that name is locked, or is not safe to write, a file with a random name takes its place, which no
    later attempt finds.

    Attributes:
        prefix: Number of bytes at the beginning that are in the file without a gap.
    """

    def __init__(self, target: str, digest: Digest) -> None:
        self._target = target
        self._directory, name = os.path.split(target)
        encoded = os.fsencode(name)
        stem = name if len(encoded) <= _MAX_NAME_LENGTH else Digest.of(encoded).encoded
        stem = os.path.join(self._directory, f".{stem}.{digest.encoded[:12]}")
        self._path = f"{stem}.part"
        self._sparse_size: int | None = None  # size of the content once the file has a footer
        descriptor = _open_locked(self._path)
        if descriptor is None:
            self._path = f"{stem}.{secrets.token_hex(8)}.part"
            descriptor = os.open(self._path, _WRITE_FLAGS | os.O_EXCL, 0o666)
        self._descriptor = descriptor
        try:
            self.prefix = self._read_prefix()
        except BaseException:
            self.close()
            raise

    def _read_prefix(self) -> int:
        """Return the length of the prefix that the file has, and cut the rest off."""
        size = os.fstat(self._descriptor).st_size
        footer = os.pread(self._descriptor, _FOOTER_SIZE, max(0, size - _FOOTER_SIZE))
        number = footer[len(_MAGIC) :]
        if not footer.startswith(_MAGIC) or not number.isdigit():
            return size
        prefix = min(int(number), size - _FOOTER_SIZE)
        os.ftruncate(self._descriptor, prefix)
        return prefix

    def write(self, view: memoryview, offset: int) -> None:
        """Write all bytes of a buffer."""
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view, offset = view[count:], offset + count

    def read(self, view: memoryview, offset: int) -> None:
        """Fill a buffer with what was written there."""
        if read_at(self._descriptor, view, offset) < len(view):
            raise OSError(f"{self._path} became shorter while it was written")

    def enable_sparse(self, size: int) -> None:
        """Allow writes behind the prefix: add the footer to the content of `size` bytes."""
        self._write_footer(size, self.prefix)
        self._sparse_size = size

    def record_prefix(self, prefix: int) -> None:
        """Record the number of bytes that are in the file without a gap."""
        self.prefix = prefix
        if self._sparse_size is not None:
            self._write_footer(self._sparse_size, prefix)

    def _write_footer(self, size: int, prefix: int) -> None:
        os.pwrite(self._descriptor, _MAGIC + b"%020d" % prefix, size)

    def truncate(self, prefix: int) -> None:
        """Cut off everything behind a prefix without gaps."""
        os.ftruncate(self._descriptor, prefix)
        self._sparse_size = None
        self.prefix = prefix

    def finish(self) -> bool:
        """Rename the complete file to the target: after a loss of power it is there complete or not at all.

        Returns:
            Whether the target is this file now. If not, another process has replaced it: the caller must check the
            digest of the target before it reports success.

        Raises:
            OSError: Another process has replaced the partial file, or it cannot be renamed.
        """
        self.truncate(self.prefix)  # without the footer
        os.fsync(self._descriptor)
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
        with suppress(OSError):  # some file systems cannot sync a directory; the file is in place
            directory = os.open(self._directory or ".", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        self.close()
        return placed

    def abandon(self, prefix: int) -> None:
        """Keep a prefix for the next attempt, or remove the file if there is none; then close it."""
        with suppress(OSError):  # an earlier error is about to be raised
            if prefix:
                self.truncate(prefix)
            elif is_at(self._descriptor, self._path):  # else the name is that of another process's file
                os.unlink(self._path)
        self.close()

    def close(self) -> None:
        """Close the file, and release its lock."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _open_locked(path: str) -> int | None:
    """Open or create a file and lock it; `None` if it is locked by another, or not safe to write."""
    while True:
        with suppress(FileNotFoundError):
            # Checked before it is opened, too: opening a device may have effects.
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return None
        try:
            descriptor = os.open(path, _WRITE_FLAGS, 0o666)
        except OSError as error:
            if error.errno in _UNUSABLE and os.path.lexists(path):
                return None
            raise
        usable = current = False
        try:
            usable = _is_private(os.fstat(descriptor)) and _lock(descriptor)
            current = usable and is_at(descriptor, path)
        finally:
            if not current:
                os.close(descriptor)
        if current or not usable:
            return descriptor if current else None
        # It was renamed or removed between the open and the lock: by a download that has just ended.


def _is_private(status: os.stat_result) -> bool:
    """Whether it is a regular file of this user with one name: writing it changes no other file."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and status.st_uid == os.geteuid()


def _lock(descriptor: int) -> bool:
    """Lock a file for this process; false if another process has. File systems without locks count as locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def open_regular(path: str) -> int | None:
    """Open a regular file for reading; `None` if there is none, or it is not readable for this user.

    Follows no symbolic link and never waits for a FIFO.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _SAFE_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _UNUSABLE:
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
