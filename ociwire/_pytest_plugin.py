"""Fixtures for pytest, registered through the ``pytest11`` entry point of the package.

Until a fixture is used, the module imports only pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .registry import MemoryRegistry
    from .testing.server import ServerURL

__all__ = ["oci_registry", "oci_registry_url"]


@pytest.fixture
def oci_registry() -> Iterator[MemoryRegistry]:
    """An empty registry in memory, for ``Client("registry.example", oci_registry)``."""
    from .registry import MemoryRegistry

    registry = MemoryRegistry()
    yield registry
    registry.close()


@pytest.fixture
def oci_registry_url(oci_registry: MemoryRegistry) -> Iterator[ServerURL]:
    """The URL of the registry of `oci_registry`, served over HTTP on a free port of 127.0.0.1, for any client.

    It is a `str`, such as ``http://127.0.0.1:43127``, whose attribute ``host`` is ``127.0.0.1:43127``.
    """
    from .testing import serve

    with serve(oci_registry) as url:
        yield url
