"""What users test their own code with: fakes that answer requests, and checks for layers of their own."""

from ..registry.memory import MemoryRegistry
from .auth_guard import AuthGuard
from .faults import FAULTS, FaultTransport
from .layer_check import check_layer
from .scripted import ScriptedTransport
from .server import serve

__all__ = ["ScriptedTransport", "AuthGuard", "FaultTransport", "FAULTS", "MemoryRegistry", "check_layer", "serve"]
