"""The file that a download writes until it is complete: ``.NAME.DIGEST.part`` in the directory of the target.

A later call finds the file by its name. `flock` prevents two processes from writing it at the same time; the system
releases the lock of a killed process. There are two states:

- Without gaps: the file is a prefix of the content.
- With gaps, if several connections write parts of it: a footer follows the last byte of the content, and states the
  length of the prefix that has no gap::

    prefix without gaps | parts and gaps ... | footer: magic, prefix as 20 decimal digits
    0                                        size of the content

A later call truncates the file to the prefix, and hashes it. Therefore a wrong footer or wrong bytes only cause the
whole blob to be downloaded again. If the content itself ends like a footer, valid bytes are truncated and
downloaded again.

For security, a file that another user could have placed there is never written: a symbolic link, a file with a second
hard link, or a file of another user.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, suppress
from typing import final

from .._oci.digest import Digest
from .._text import format_path
from ..errors import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["PartialFile", "is_at", "open_regular", "read_at"]

_MAGIC = b"ociwire partial "
_FOOTER_SIZE = len(_MAGIC) + 20
_MAX_NAME_LENGTH = 200
"""Maximum length in bytes of the target's name in the name of the partial file; file systems allow 255 in total."""
_SAFE_FLAGS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))
_WRITE_FLAGS = os.O_RDWR | os.O_CREAT | _SAFE_FLAGS
_UNUSABLE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM)
"""Errors of opening a symbolic link, a directory, a socket, or a file of another user."""


@final
class PartialFile:
    """An open partial file, locked for this process. Several threads may write and read it.

    If the file is locked by another download, or is not safe to write, a file with a random name is used instead, which
    a later call cannot resume.

    Attributes:
        prefix: Number of bytes before the first gap.

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
        self._size: int | None = None  # size of the content; `None` if the file has no footer
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
            raise OSError(
                f"cannot read {format_path(self._path)}: another process has truncated it during the download"
            )

    def allow_gaps(self, size: int) -> bool:
        """Write the footer after `size` bytes of content; return false if the file cannot be that large."""
        try:
            os.pwrite(self._descriptor, _MAGIC + b"%020d" % self.prefix, size)
        except OSError:
            return False
        self._size = size
        return True

    def record_prefix(self, prefix: int) -> None:
        """Record the number of bytes before the first gap."""
        self.prefix = prefix
        if self._size is not None:
            os.pwrite(self._descriptor, _MAGIC + b"%020d" % prefix, self._size)

    def truncate(self, prefix: int) -> None:
        """Truncate the file to a prefix without gaps, which also removes the footer."""
        os.ftruncate(self._descriptor, prefix)
        self.prefix, self._size = prefix, None

    def finish(self) -> bool:
        """Sync the complete file, and rename it to the target. After a power loss, the target is complete or unchanged.

        Returns:
            Whether the target is this file. If not, another process has replaced it meanwhile, and the caller must
            verify the digest of the target before it reports success.

        Raises:
            OSError: Another process has replaced the partial file, or it cannot be renamed.
        """
        self.truncate(self.prefix)  # without the footer
        os.fsync(self._descriptor)
        # The descriptor refers to the verified file, but rename(2) takes a path, at which there may be another file.
        if not is_at(self._descriptor, self._path):
            raise OSError(
                f"refusing to rename {format_path(self._path)} to {format_path(self._target)}: another process has"
                " removed or replaced it during the download; download again"
            )
        os.replace(self._path, self._target)
        placed = is_at(self._descriptor, self._target)  # it may have been replaced between the check and the rename
        if placed and is_at(self._descriptor, self._path):
            os.unlink(self._path)  # rename(2) does nothing if both names are hard links to the same file
        with suppress(OSError):  # some file systems cannot sync a directory; the file is in place
            directory = os.open(self._directory or ".", os.O_RDONLY | _SAFE_FLAGS)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        self.close()
        return placed

    def abandon(self) -> None:
        """Keep the prefix for a later call, or remove the file if the prefix is empty; then close it."""
        with suppress(OSError):  # the caller is about to raise another error
            if self.prefix:
                self.truncate(self.prefix)
            elif is_at(self._descriptor, self._path):  # otherwise another process has replaced it: keep its file
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
            # Only a regular file of this user with a single name, so that writing it changes no other file.
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid != os.geteuid():
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            except OSError:
                pass  # a file system without locks, such as some NFS mounts
            if is_at(descriptor, path):
                stack.pop_all()
                return descriptor
        # Another download renamed or removed the file between the open and the lock: open it again.


def open_regular(path: str) -> int | None:
    """Open a regular file for reading; `None` if it does not exist, or if this user has no permission to read it.

    Does not follow a symbolic link, and does not wait for the writer of a FIFO.
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
    """Return whether the open file is still at a path: another process may have renamed, removed or replaced it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
