"""What users test their own code with: fakes that answer requests, and checks for layers of their own."""

from .conformance import check_transport
from .faults import FAULTS, FaultTransport
from .guard import AuthGuard
from .memory import MemoryRegistry
from .scripted import ScriptedTransport
from .server import serve

__all__ = ["ScriptedTransport", "AuthGuard", "FaultTransport", "FAULTS", "MemoryRegistry", "check_transport", "serve"]
