"""Open files to upload."""

from __future__ import annotations

import io
import os
import stat

from ._text import format_path
from .errors import UsageError

__all__ = ["open_regular_file"]


def open_regular_file(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a regular file for reading. Symbolic links are followed.

    Raises:
        UsageError: The path is not a regular file. Opening a FIFO would block until a writer opens it, and a device may
            have no end.
        OSError: The file does not exist or cannot be opened; `IsADirectoryError` for a directory.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # `open` refuses a directory with IsADirectoryError
        raise UsageError(
            f"cannot upload {format_path(path)}: it is not a regular file; open a FIFO or a device yourself and pass"
            " the file object, which is read once as a stream"
        )
    # O_NONBLOCK has no effect on regular files. If a FIFO has replaced the file in the meantime, `open` does not block.
    extra_flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows has neither
    return io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | extra_flags))
