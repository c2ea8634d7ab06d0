"""Cache bearer tokens by scope, and drop them before they expire."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple, final

from .._http.urls import Origin
from .._oci.scope import Scope
from .credentials import Credential

__all__ = ["Token", "TokenCache", "TokenKey"]

_MAX_TOKENS = 1024
_MAX_BYTES = 8 * 1024 * 1024
_BYTES_PER_MEMBER = 256
"""Estimated memory size in bytes of one action of a `Scope`: a hostile challenge may name thousands."""


class TokenKey(NamedTuple):
    """What a token is valid for, apart from its scope.

    Attributes:
        origin: The registry's origin.
        credential: The credential it was requested with; None for anonymous access.
        realm: The token server's URL: one host may name several.
        service: The service that the challenge named; None if it named none.
    """

    origin: Origin
    credential: Credential | None
    realm: str = ""
    service: str | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A bearer token. Compares by identity: two requests may be answered with the same text.

    Attributes:
        value: The text that is sent.
        scope: The scope that was requested.
        good_until: The `time.monotonic` value in seconds after which the token is not sent any more.
    """

    value: str = field(repr=False)
    scope: Scope
    good_until: float

    @property
    def good(self) -> bool:
        """Whether the token may still be sent."""
        return time.monotonic() < self.good_until

    @property
    def weight(self) -> int:
        """Estimated memory size in bytes."""
        return len(self.value) + len(str(self.scope)) + _BYTES_PER_MEMBER * (1 + sum(1 for _ in self.scope))


class _Cached(NamedTuple):
    """A cached token and its sequence number."""

    token: Token
    number: int
    weight: int


@final
class TokenCache:
    """At most 1,024 tokens and 8 MiB; the oldest is evicted first. Thread-safe.

    Attributes:
        latest: The sequence number of the newest token, counted from 1.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cached: dict[TokenKey, dict[Scope, _Cached]] = {}
        self._order: dict[tuple[TokenKey, Scope], None] = {}
        self._bytes = 0
        self.latest = 0

    def find(self, key: TokenKey, scope: Scope, *, newer_than: int = 0) -> Token | None:
        """A valid token whose scope equals the requested one or else contains it.

        The empty scope, which every scope contains, is matched exactly: a token that grants something must not be sent
        where nothing is needed.

        Args:
            key: The origin, credential, realm and service that the token must be for.
            scope: The scope that it must grant.
            newer_than: Only tokens with a higher sequence number.
        """
        cached = self._cached.get(key)
        if not cached:
            return None
        exact = cached.get(scope)
        if exact is not None and exact.number > newer_than and exact.token.good:
            return exact.token
        if not scope:
            return None
        with self._lock:
            fitting = (entry for entry in cached.values() if entry.number > newer_than and scope <= entry.token.scope)
            return next((entry.token for entry in fitting if entry.token.good), None)

    def put(self, key: TokenKey, token: Token) -> None:
        """Cache a token; it replaces one with the same scope. A token larger than the cache is not kept."""
        # The realm is the registry's text, too. Its tokens share one copy at best.
        weight = token.weight + len(key.realm) + len(key.service or "")
        with self._lock:
            self._drop(key, token.scope)
            self.latest += 1
            if weight > _MAX_BYTES:
                return
            while len(self._order) >= _MAX_TOKENS or self._bytes + weight > _MAX_BYTES:
                self._drop(*next(iter(self._order)))
            self._cached.setdefault(key, {})[token.scope] = _Cached(token, self.latest, weight)
            self._order[key, token.scope] = None
            self._bytes += weight

    def evict(self, key: TokenKey, token: Token) -> None:
        """Drop a token, unless another one has replaced it."""
        with self._lock:
            cached = self._cached.get(key, {}).get(token.scope)
            if cached is not None and cached.token is token:
                self._drop(key, token.scope)

    def evict_credential(self, origin: Origin, credential: Credential | None) -> None:
        """Drop all tokens that were requested for an origin with a credential."""
        with self._lock:
            for key, scope in list(self._order):
                if key.origin == origin and key.credential == credential:
                    self._drop(key, scope)

    def _drop(self, key: TokenKey, scope: Scope) -> None:
        if self._order.pop((key, scope), self) is None:
            self._bytes -= self._cached[key].pop(scope).weight
            if not self._cached[key]:
                del self._cached[key]
