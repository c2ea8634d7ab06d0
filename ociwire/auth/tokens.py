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


class _Kept(NamedTuple):
    """A token, and the how manieth it is."""

    token: Token
    number: int


@final
class Tokens:
    """At most 1,024 tokens, the oldest dropped first. Shared by threads.

    Attributes:
        latest: The number of the token that was kept last: tokens are counted from 1.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Holder, dict[Scope, _Kept]] = {}
        self._order: dict[tuple[Holder, Scope], None] = {}
        self.latest = 0

    def find(self, holder: Holder, scope: Scope, *, newer_than: int = 0) -> Token | None:
        """A good token whose scope is this one, or else contains it.

        The empty scope, which every scope contains, is found exactly or not at all: a token that grants something has
        no business where nothing is needed.

        Args:
            holder: Whose it is.
            scope: What it must grant.
            newer_than: Only one that was kept after the token with this number.
        """
        kept = self._kept.get(holder)
        if not kept:
            return None
        exact = kept.get(scope)
        if exact is not None and exact.number > newer_than and exact.token.good:
            return exact.token
        if not scope:
            return None
        with self._lock:
            fitting = (one for one in kept.values() if one.number > newer_than and scope <= one.token.scope)
            return next((one.token for one in fitting if one.token.good), None)

    def keep(self, holder: Holder, token: Token) -> None:
        """Keep a token, in the place of one with the same scope."""
        with self._lock:
            self._drop(holder, token.scope)
            while len(self._order) >= _MAX_TOKENS:
                self._drop(*next(iter(self._order)))
            self.latest += 1
            self._kept.setdefault(holder, {})[token.scope] = _Kept(token, self.latest)
            self._order[holder, token.scope] = None

    def evict(self, holder: Holder, token: Token) -> None:
        """Drop a token, unless another has taken its place."""
        with self._lock:
            kept = self._kept.get(holder, {}).get(token.scope)
            if kept is not None and kept.token is token:
                self._drop(holder, token.scope)

    def _drop(self, holder: Holder, scope: Scope) -> None:
        if self._order.pop((holder, scope), self) is None:
            del self._kept[holder][scope]
            if not self._kept[holder]:
                del self._kept[holder]
