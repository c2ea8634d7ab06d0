"""`ociwire.transfer._arguments`: all transfers raise the same errors for invalid arguments."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from ociwire import Client
from ociwire.errors import UsageError
from ociwire.testing import MemoryRegistry
from ociwire.transfer._arguments import check_client, check_number, check_path, check_progress, check_workers

CLIENT = Client("registry.example", MemoryRegistry())


class BytesPath:
    """Path of bytes, which `os.fspath` accepts."""

    def __fspath__(self) -> bytes:
        return b"a"


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (check_client, CLIENT, CLIENT),
        (check_workers, 1, 1),
        (check_progress, None, None),
        (check_progress, print, print),
        (check_path, "a", "a"),
        (check_path, pathlib.PurePosixPath("a/b"), "a/b"),
    ],
)
def test_check_valid_value_is_returned(check: Callable[[Any], Any], value: Any, expected: Any) -> None:
    assert check(value) == expected


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (check_client, None, "invalid client None: expected a Client, such as Client('ghcr.io')"),
        (check_workers, 0, "invalid number of workers 0: expected an integer from 1 to 2**63 - 1"),
        (check_workers, True, "invalid number of workers True: expected an integer from 1 to 2**63 - 1"),
        (check_workers, 2.0, "invalid number of workers 2.0: expected an integer from 1 to 2**63 - 1"),
        (check_progress, 5, "invalid progress 5: expected a function that takes a Progress, or None, got int"),
        (check_path, "a\0b", r"invalid path 'a\x00b': expected a str or pathlib.Path, not empty, without NUL"),
        (check_path, "", "invalid path '': expected a str or pathlib.Path, not empty, without NUL"),
        (check_path, b"a", "invalid path b'a': expected a str or pathlib.Path, not empty, without NUL"),
        (check_path, 5, "invalid path 5: expected a str or pathlib.Path, not empty, without NUL"),
    ],
)
def test_check_invalid_value_raises_usage_error(check: Callable[[Any], Any], value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(value)
    assert str(caught.value) == message


def test_check_path_of_bytes_raises_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^invalid path <.*BytesPath object at .*>: expected a str"):
        check_path(BytesPath())


@pytest.mark.parametrize("check", [check_client, check_progress, check_workers, check_path])
def test_check_long_value_is_truncated_in_the_message(check: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        check(list(range(10_000)))
    assert len(str(caught.value)) < 400


def test_check_number_names_the_argument() -> None:
    with pytest.raises(UsageError, match=r"^invalid chunk size -1: expected an integer from 1 to "):
        check_number("chunk size", -1)
