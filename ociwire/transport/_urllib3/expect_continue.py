"""Record of each origin's support for ``Expect: 100-continue`` (RFC 9110, section 10.1.1).

A client must not wait for 100 (Continue) indefinitely, because a server may not support it. Each origin has one of
three states; ``silent`` and ``refused`` expire after ten minutes.

========  =========================================  =====================================  ========
state     how a request with a body is sent          event                                  next
========  =========================================  =====================================  ========
unknown   with Expect; waits for 100 before a large  the wait timed out                     silent
          or single-use body                         417 (Expectation Failed)               refused
silent    with Expect; waits for 100 before a        100, in time or late                   unknown
          single-use body                            417                                    refused
refused   without Expect, without a wait             any                                    refused
========  =========================================  =====================================  ========

`WireConnection._await_continue` implements the wait; `UrllibTransport.round_trip` resends a request after 417.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..._bounded_cache import BoundedCache
from ..._http.body import Body
from ..._http.urls import Origin

__all__ = ["ExpectSupport"]

SMALL_BODY = 256 * 1024
"""Maximum size in bytes of a resendable body that is sent without a wait.

Go's net/http reads up to 256 KiB of an unread request body before it completes a response. If the client holds back a
smaller body while it waits for 100, a 401 of docker-registry 2.8 is delayed by a second.
"""
MAX_AGE = 600.0
"""Seconds after which the state of an origin expires."""
_MAX_ORIGINS = 1024


class _State(NamedTuple):
    expires: float
    refused: bool  # if false, the state is `silent`


class ExpectSupport:
    """Origins that do not send 100 (Continue), and origins that refuse Expect (417). Thread-safe."""

    def __init__(self) -> None:
        self._states: BoundedCache[Origin, _State] = BoundedCache(_MAX_ORIGINS)

    def may_expect(self, origin: Origin) -> bool:
        """Return whether Expect may be sent: false if the origin has responded to it with 417."""
        state = self._get(origin)
        return state is None or not state.refused

    def should_wait(self, origin: Origin, body: Body) -> bool:
        """Return whether to wait for 100 (Continue) before the body is sent.

        True for every single-use body, because it cannot be sent again after an early refusal.
        """
        if body.single_use:
            return True
        return (body.length or 0) > SMALL_BODY and self._get(origin) is None

    def record_timeout(self, origin: Origin) -> None:
        """Record that the origin sent nothing while a request waited for 100."""
        if self.may_expect(origin):
            self._set(origin, refused=False)

    def record_refusal(self, origin: Origin) -> None:
        """Record that the origin responded to Expect with 417."""
        self._set(origin, refused=True)

    def record_continue(self, origin: Origin) -> None:
        """Record that the origin sent 100, in time or late."""
        if self._states.get(origin) is not None and self.may_expect(origin):
            self._states.remove(lambda key, _: key == origin)

    def _get(self, origin: Origin) -> _State | None:
        state = self._states.get(origin)
        return state if state is not None and state.expires > time.monotonic() else None

    def _set(self, origin: Origin, *, refused: bool) -> None:
        self._states.put(origin, _State(time.monotonic() + MAX_AGE, refused))
