"""Testing tools: fake registries, fault injection, a local HTTP server, and a conformance check for custom layers."""

from ..registry.memory import MemoryRegistry
from .auth_guard import AuthGuard
from .faults import FAULTS, FaultTransport
from .layer_check import check_layer
from .scripted import ScriptedTransport
from .server import serve

__all__ = ["ScriptedTransport", "AuthGuard", "FaultTransport", "FAULTS", "MemoryRegistry", "check_layer", "serve"]
