"""Checks of the arguments that several transfers have, made before any request is sent."""

from __future__ import annotations

import os
from typing import Any

from .._argument_checks import check_integer, safe_repr
from .._client.client import Client
from ..errors import UsageError
from ._progress import ProgressCallback

__all__ = ["check_client", "check_number", "check_path", "check_progress", "check_workers"]


def check_client(client: Any) -> Client:
    """Return a `Client` unchanged; `UsageError` for other values."""
    if not isinstance(client, Client):
        raise UsageError(f"invalid client {safe_repr(client)}: expected a Client, such as Client('ghcr.io')")
    return client


def check_number(name: str, value: Any) -> int:
    """Return an integer of 1 or more unchanged; `UsageError` for other values, with the argument's name."""
    return check_integer(name, value, minimum=1)


def check_workers(workers: Any) -> int:
    """Return a number of workers unchanged; `UsageError` for other values."""
    return check_number("number of workers", workers)


def check_progress(progress: Any) -> ProgressCallback | None:
    """Return a progress callback or `None` unchanged; `UsageError` for other values."""
    if progress is not None and not callable(progress):
        raise UsageError(f"invalid progress {safe_repr(progress)}: expected a function that takes a Progress, or None")
    return progress  # type: ignore[no-any-return]


def check_path(path: Any) -> str:
    """Return a path as a string; `UsageError` for other values."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"invalid path {safe_repr(path, 300)}: expected a str or pathlib.Path, not empty, without NUL")
    return text
