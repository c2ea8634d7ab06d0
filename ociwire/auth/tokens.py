"""The tokens that were granted: found by scope, exactly or by containment, and dropped before they expire."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple, final

from ..origin import Origin
from ..scope import Scope
from .credentials import Credential

__all__ = ["Holder", "Token", "Tokens"]

_MAX_TOKENS = 1024


class Holder(NamedTuple):
    """Whose tokens they are.

    Attributes:
        origin: The registry's.
        credential: What they were granted for; None is nobody.
    """

    origin: Origin
    credential: Credential | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A bearer token. Compares by identity: two exchanges may be answered with the same text.

    Attributes:
        value: What is sent.
        scope: What was asked for.
        good_until: The moment of `time.monotonic`, in seconds, after which it is not sent any more.
    """

    value: str = field(repr=False)
    scope: Scope
    good_until: float

    @property
    def good(self) -> bool:
        """Whether it may still be sent."""
        return time.monotonic() < self.good_until


@final
class Tokens:
    """At most 1,024 tokens, the oldest dropped first. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Holder, dict[Scope, Token]] = {}
        self._count = 0

    def find(self, holder: Holder, scope: Scope) -> Token | None:
        """A good token whose scope is this one, or else contains it.

        The empty scope, which every scope contains, is found exactly or not at all: a token that grants something has
        no business where nothing is needed.
        """
        kept = self._kept.get(holder)
        if not kept:
            return None
        exact = kept.get(scope)
        if exact is not None and exact.good:
            return exact
        if not scope:
            return None
        with self._lock:
            return next((token for token in kept.values() if scope <= token.scope and token.good), None)

    def keep(self, holder: Holder, token: Token) -> None:
        """Keep a token, in the place of one with the same scope."""
        with self._lock:
            self._drop(holder, token.scope)
            while self._count >= _MAX_TOKENS:
                oldest = next(iter(self._kept))
                self._drop(oldest, next(iter(self._kept[oldest])))
            self._kept.setdefault(holder, {})[token.scope] = token
            self._count += 1

    def evict(self, holder: Holder, token: Token) -> None:
        """Drop a token, unless another has taken its place."""
        with self._lock:
            if self._kept.get(holder, {}).get(token.scope) is token:
                self._drop(holder, token.scope)

    def _drop(self, holder: Holder, scope: Scope) -> None:
        kept = self._kept.get(holder, {})
        if kept.pop(scope, None) is not None:
            self._count -= 1
            if not kept:
                del self._kept[holder]
