"""Fixtures for the tests of the client over real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from ociwire.transport import UrllibTransport
from tests._support.doubles import PATIENCE


@pytest.fixture
def transport() -> Iterator[UrllibTransport]:
    """Base transport that is closed after the test."""
    with contextlib.closing(UrllibTransport(timeout=PATIENCE, trust_env=False)) as transport:
        yield transport
