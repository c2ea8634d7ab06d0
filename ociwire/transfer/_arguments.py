"""The arguments that transfers have in common, checked when they are called, before anything is sent."""

from __future__ import annotations

import os
from typing import Any

from .._argument_checks import check_integer, safe_repr
from .._client.client import Client
from ..errors import UsageError
from ._progress import ProgressCallback

__all__ = ["check_client", "check_number", "check_path", "check_progress", "check_workers"]


def check_client(client: Any) -> Client:
    """A registry's client, as it is; `UsageError` for anything else."""
    if not isinstance(client, Client):
        raise UsageError(f"not a client: {safe_repr(client)} (a registry is given by its Client: Client('ghcr.io'))")
    return client


def check_number(what: str, value: Any) -> int:
    """A whole number, 1 or more, as it is; `UsageError` for anything else, which calls it `what`."""
    return check_integer(what, value, minimum=1)


def check_workers(workers: Any) -> int:
    """A number of workers, as it is; `UsageError` for anything else."""
    return check_number("number of workers", workers)


def check_progress(progress: Any) -> ProgressCallback | None:
    """What is called with progress, as it is, or None; `UsageError` for anything else."""
    if progress is not None and not callable(progress):
        raise UsageError(f"not a progress callback: {safe_repr(progress)} (a function that takes a Progress, or None)")
    return progress  # type: ignore[no-any-return]


def check_path(path: Any) -> str:
    """A path as text; `UsageError` for anything else."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"not a path: {safe_repr(path, 300)} (text or a pathlib.Path, not empty, without NUL)")
    return text
