"""Cache bearer tokens by scope until shortly before they expire."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import NamedTuple, final

from .._bounded_cache import BoundedCache
from .._http.urls import Origin
from .._oci.scope import Scope
from .credentials import Credential

__all__ = ["Token", "TokenCache", "TokenKey"]

_MAX_TOKENS = 1024
_MAX_BYTES = 8 * 1024 * 1024
_BYTES_PER_MEMBER = 256
"""Estimated memory size in bytes of one action of a `Scope`: a hostile challenge may name thousands."""


class TokenKey(NamedTuple):
    """What a token is valid for, apart from its scope. The credential is None for an anonymous token."""

    origin: Origin
    credential: Credential | None
    realm: str = ""
    service: str | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A bearer token. Compares by identity: two requests may be answered with the same text."""

    value: str = field(repr=False)
    scope: Scope  # as it was requested
    valid_until: float  # value of `time.monotonic`, in seconds, after which the token is no longer sent
    requested_at: float = 0.0  # value of `time.monotonic`, in seconds


@final
class TokenCache:
    """At most 1,024 tokens and 8 MiB. Thread-safe."""

    def __init__(self) -> None:
        self._tokens: BoundedCache[tuple[TokenKey, Scope], Token] = BoundedCache(_MAX_TOKENS, _MAX_BYTES)

    def get(self, key: TokenKey, scope: Scope, *, not_before: float = -math.inf) -> Token | None:
        """A valid token with this scope, or else with a larger one, that was not requested before a moment.

        The empty scope, which every scope contains, is matched exactly: a token that grants something must not be sent
        where nothing is needed.
        """
        now = time.monotonic()

        def is_usable(token: Token) -> bool:
            return now < token.valid_until and token.requested_at >= not_before

        token = self._tokens.get((key, scope))
        if token is not None and is_usable(token):
            return token
        if not scope:
            return None
        return self._tokens.find(lambda entry, token: scope <= entry[1] and entry[0] == key and is_usable(token))

    def put(self, key: TokenKey, token: Token) -> None:
        """Cache a token. It replaces one with the same scope."""
        text_size = len(token.value) + len(str(token.scope)) + len(key.realm) + len(key.service or "")
        weight = text_size + _BYTES_PER_MEMBER * (1 + sum(1 for _ in token.scope))
        self._tokens.put((key, token.scope), token, weight)

    def evict(self, token: Token) -> None:
        """Drop a token, unless another one has replaced it."""
        self._tokens.remove(lambda _, cached: cached is token)

    def evict_credential(self, origin: Origin, credential: Credential | None) -> None:
        """Drop all tokens that were requested for an origin with a credential."""
        self._tokens.remove(lambda entry, _: entry[0].origin == origin and entry[0].credential == credential)
