"""What is known about each origin's support of ``Expect: 100-continue`` (RFC 9110, section 10.1.1).

A client must not wait for 100 (Continue) forever, because a server may not know Expect at all. An origin is in one of
three states. ``silent`` and ``refused`` are forgotten after ten minutes.

========  =========================================  =====================================  ========
state     a request with a body is sent              event                                  becomes
========  =========================================  =====================================  ========
unknown   with Expect; a large or single-use body    the wait timed out                     silent
          waits for 100                              417 (Expectation Failed)               refused
silent    with Expect; a single-use body waits       100, in time or late                   unknown
                                                     417                                    refused
refused   without Expect, without a wait             any                                    refused
========  =========================================  =====================================  ========

The handshake of one request is in `WireConnection._await_continue`; `UrllibTransport.round_trip` resends after 417.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..._bounded_cache import BoundedCache
from ..._http.body import Body
from ..._http.urls import Origin

__all__ = ["ExpectSupport"]

SMALL_BODY = 256 * 1024
"""A resendable body of at most this size in bytes is sent without a wait, as RFC 9110 allows."""
MAX_AGE = 600.0
"""Seconds after which the state of an origin is forgotten."""
_MAX_ORIGINS = 1024


class _State(NamedTuple):
    expires: float
    refused: bool  # else silent


class ExpectSupport:
    """The origins that never send 100 (Continue), and those that refuse Expect (417). Thread-safe."""

    def __init__(self) -> None:
        self._states: BoundedCache[Origin, _State] = BoundedCache(_MAX_ORIGINS)

    def may_expect(self, origin: Origin) -> bool:
        """Whether Expect may be sent: false if the origin has answered 417 to it."""
        state = self._get(origin)
        return state is None or not state.refused

    def should_wait(self, origin: Origin, body: Body) -> bool:
        """Whether to wait for 100 (Continue) before a body is sent.

        A single-use body cannot be sent again after an early refusal, so it always waits.
        """
        if body.single_use:
            return True
        return (body.length or 0) > SMALL_BODY and self._get(origin) is None

    def record_timeout(self, origin: Origin) -> None:
        """The origin sent nothing while a request waited for 100."""
        if self.may_expect(origin):
            self._set(origin, refused=False)

    def record_refusal(self, origin: Origin) -> None:
        """The origin answered 417 to Expect."""
        self._set(origin, refused=True)

    def record_continue(self, origin: Origin) -> None:
        """The origin sent 100, in time or late."""
        if self._states.get(origin) is not None and self.may_expect(origin):
            self._states.remove(lambda key, _: key == origin)

    def _get(self, origin: Origin) -> _State | None:
        state = self._states.get(origin)
        return state if state is not None and state.expires > time.monotonic() else None

    def _set(self, origin: Origin, *, refused: bool) -> None:
        self._states.put(origin, _State(time.monotonic() + MAX_AGE, refused))
