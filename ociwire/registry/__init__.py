"""In-process registries that are used as transports and implement the OCI distribution specification."""

from ._seed import SeededContent
from .memory import MemoryRegistry

__all__ = ["MemoryRegistry", "SeededContent"]
