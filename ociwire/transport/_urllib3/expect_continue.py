"""What is remembered of each origin's way with ``Expect: 100-continue``, and what follows from it for a request.

RFC 9110, section 10.1.1: a client must not wait for ever, and a server may know nothing of Expect at all.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from ..._http.body import Body
from ..._http.urls import Origin

__all__ = ["Expectations"]

SMALL_BODY = 256 * 1024
"""Up to this many bytes, a body that can be sent again follows its head at once, as RFC 9110 allows."""
REMEMBERED = 600.0
"""For how many seconds an origin's way is remembered."""
_MAX_ORIGINS = 1024


class _Known(NamedTuple):
    until: float
    refuses: bool


class Expectations:
    """Which origins never send a 100 (Continue), and which refuse to be asked for one (417). Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Origin, _Known] = {}

    def allow(self, origin: Origin) -> bool:
        """Whether Expect may be sent: not to an origin that answered 417 to it."""
        known = self._recall(origin)
        return known is None or not known.refuses

    def worth_waiting(self, origin: Origin, body: Body) -> bool:
        """Whether to wait for a 100 before a body goes out: only where something could be lost by not waiting."""
        if body.single_use:
            return True
        return (body.length or 0) > SMALL_BODY and self._recall(origin) is None

    def silent(self, origin: Origin) -> None:
        """The origin let a wait run out."""
        if self.allow(origin):
            self._remember(origin, refuses=False)

    def refuses(self, origin: Origin) -> None:
        """The origin answered 417 to Expect."""
        self._remember(origin, refuses=True)

    def continues(self, origin: Origin) -> None:
        """The origin sent a 100, in time or late."""
        if origin in self._known and self.allow(origin):
            self._known.pop(origin, None)

    def _recall(self, origin: Origin) -> _Known | None:
        known = self._known.get(origin)
        return known if known is not None and known.until > time.monotonic() else None

    def _remember(self, origin: Origin, *, refuses: bool) -> None:
        with self._lock:
            if len(self._known) >= _MAX_ORIGINS:
                self._known.pop(next(iter(self._known)))
            self._known[origin] = _Known(time.monotonic() + REMEMBERED, refuses)
