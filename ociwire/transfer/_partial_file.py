"""The file that a download is written to until it is complete, beside its target: ``.NAME.DIGEST.part``.

The next attempt finds the file by its name, and `flock` keeps two processes from writing it at the same time; the lock
of a killed process is released. Normally the whole file is one prefix of the content. A file that is written out of
order ends in a footer behind the last byte of the content, which states how long the prefix without gaps is::

    prefix without gaps | parts and gaps ... | footer: magic, prefix as 20 decimal digits
    0                                        size of the content

The next attempt cuts the file to that prefix and hashes it again, so that a wrong footer, or other bytes in the file,
cost a download of the whole and nothing else. Content that looks like a footer does no harm: in a file without gaps,
each shorter prefix is one, too.

A file that another user could have put there is never written: a link, a file with a second name, another user's file.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, suppress
from typing import final

from .._oci.digest import Digest
from ..errors import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["PartialFile", "is_at", "open_regular", "read_at"]

_MAGIC = b"ociwire partial "
_FOOTER_SIZE = len(_MAGIC) + 20
_MAX_NAME_LENGTH = 200
"""Maximum length in bytes of a target's name within the name of the partial file: file systems take 255."""
_SAFE_FLAGS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))
_WRITE_FLAGS = os.O_RDWR | os.O_CREAT | _SAFE_FLAGS
_UNUSABLE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM)
"""Errors of opening a symbolic link, a directory, a socket, or a file of another user."""


@final
class PartialFile:
    """An open partial file, locked for this process. Several threads may write and read it.

    If the file of that name is locked by another download, or is not safe to write, a file with a random name takes its
    place, which no later attempt finds.

    Attributes:
        prefix: Number of bytes at the beginning that are in the file without a gap.

    Raises:
        UsageError: This system has no `fcntl`.
        OSError: The file cannot be created.
    """

    def __init__(self, target: str, digest: Digest) -> None:
        if fcntl is None:
            raise UsageError(
                "cannot download to a file: expected a POSIX system with fcntl; read from Client.get_blob instead"
            )
        self._target = target
        self._directory, name = os.path.split(target)
        encoded = os.fsencode(name)
        stem = name if len(encoded) <= _MAX_NAME_LENGTH else Digest.of(encoded).encoded
        stem = os.path.join(self._directory, f".{stem}.{digest.encoded[:12]}")
        self._path = f"{stem}.part"
        self._size: int | None = None  # of the content, once the file has a footer
        descriptor = _open_locked(self._path)
        if descriptor is None:
            self._path = f"{stem}.{secrets.token_hex(8)}.part"
            descriptor = os.open(self._path, _WRITE_FLAGS | os.O_EXCL, 0o666)
        self._descriptor = descriptor
        try:
            self.prefix = os.fstat(descriptor).st_size
            footer = os.pread(descriptor, _FOOTER_SIZE, max(0, self.prefix - _FOOTER_SIZE))
            number = footer.removeprefix(_MAGIC)
            if len(footer) - len(number) == len(_MAGIC) and number.isdigit():
                self.truncate(min(int(number), self.prefix - _FOOTER_SIZE))
        except BaseException:
            self.close()
            raise

    def write(self, view: memoryview, offset: int) -> None:
        """Write all bytes of a buffer."""
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view, offset = view[count:], offset + count

    def read(self, view: memoryview, offset: int) -> None:
        """Fill a buffer with bytes that were written before."""
        if read_at(self._descriptor, view, offset) < len(view):
            raise OSError(f"cannot read {self._path}: another process has cut it off while it was written")

    def allow_gaps(self, size: int) -> bool:
        """Add the footer to a content of `size` bytes. False if the file cannot be that large: gaps are not allowed."""
        try:
            os.pwrite(self._descriptor, _MAGIC + b"%020d" % self.prefix, size)
        except OSError:
            return False
        self._size = size
        return True

    def record_prefix(self, prefix: int) -> None:
        """Record the number of bytes that are in the file without a gap."""
        self.prefix = prefix
        if self._size is not None:
            os.pwrite(self._descriptor, _MAGIC + b"%020d" % prefix, self._size)

    def truncate(self, prefix: int) -> None:
        """Cut off everything behind a prefix without gaps."""
        os.ftruncate(self._descriptor, prefix)
        self.prefix, self._size = prefix, None

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
        # A rename moves the file that has the name at that moment, but the file of the descriptor was verified.
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
            directory = os.open(self._directory or ".", os.O_RDONLY | _SAFE_FLAGS)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        self.close()
        return placed

    def abandon(self) -> None:
        """Keep the prefix for the next attempt, or remove the file if there is none; then close it."""
        with suppress(OSError):  # an earlier error is about to be raised
            if self.prefix:
                self.truncate(self.prefix)
            elif is_at(self._descriptor, self._path):  # otherwise the name is that of another process's file
                os.unlink(self._path)
        self.close()

    def close(self) -> None:
        """Close the file, which releases its lock. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _open_locked(path: str) -> int | None:
    """Open or create a file and lock it; `None` if another process has locked it, or if it is not safe to write."""
    while True:
        try:
            descriptor = os.open(path, _WRITE_FLAGS, 0o666)
        except OSError as error:
            if error.errno in _UNUSABLE and os.path.lexists(path):
                return None
            raise
        with ExitStack() as stack:
            stack.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            # A regular file of this user with one name: writing it changes no other file.
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid != os.geteuid():
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            except OSError:
                pass  # a file system without locks, as some NFS
            if is_at(descriptor, path):
                stack.pop_all()
                return descriptor
        # A download that has just ended has renamed or removed the file before it was locked here: open it again.


def open_regular(path: str) -> int | None:
    """Open a regular file for reading; `None` if there is none, or if this user cannot read it.

    Does not follow a symbolic link and does not wait for the writer of a FIFO.
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
    """Read from a position until the buffer is full or the file ends; return the number of bytes."""
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
