"""Registry servers as transports: the protocol of the OCI distribution specification over a storage."""

from .memory import MemoryRegistry

__all__ = ["MemoryRegistry"]
