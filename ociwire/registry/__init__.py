"""Registry servers as transports, which implement the OCI distribution specification on top of a storage."""

from ._seed import SeededContent
from .memory import MemoryRegistry

__all__ = ["MemoryRegistry", "SeededContent"]
