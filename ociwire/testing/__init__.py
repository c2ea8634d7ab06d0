"""What users test their own code with: fakes that answer requests, and checks for layers of their own."""

from .conformance import check_transport
from .scripted import ScriptedTransport

__all__ = ["ScriptedTransport", "check_transport"]
