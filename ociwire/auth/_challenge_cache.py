"""Remember how a registry authenticates: its challenge, and the scopes that it names for what was requested.

The scope of a challenge can only be guessed in advance. The guess is wrong behind a proxy that rewrites paths
(Artifactory), where an endpoint needs another action (``metadata_read`` at Azure Container Registry), and where the
repositories of one host have different token servers. The accepted scope is remembered per required scope and endpoint.
"""

from __future__ import annotations

import re
from typing import NamedTuple, final
from urllib.parse import urlsplit

from .._bounded_cache import BoundedCache
from .._http.urls import Origin
from .._oci.scope import Scope
from .challenge import Challenge

__all__ = ["AcceptedChallenge", "ChallengeCache", "OriginState"]

_MAX_ENTRIES = 1024
_MAX_BYTES = 4 * 1024 * 1024
_ENDPOINT = re.compile(r"/v2/.+/(blobs|manifests|tags|referrers)(?:/|$)")


class OriginState(NamedTuple):
    """What is known about an origin."""

    challenge: Challenge | None = None  # the last one, without its scope, which belongs to another request
    is_open: bool = False  # it does not authenticate
    is_predictable: bool = True  # it has one token server, which was never refused a guessed scope


class AcceptedChallenge(NamedTuple):
    """A challenge that was answered successfully, and the scope that the accepted token was requested for."""

    challenge: Challenge
    scope: Scope


@final
class ChallengeCache:
    """Caches the state of origins and the scopes that they accept, 1,024 entries and 4 MiB of each. Thread-safe."""

    def __init__(self) -> None:
        self._origins: BoundedCache[Origin, OriginState] = BoundedCache(_MAX_ENTRIES, _MAX_BYTES)
        self._accepted: BoundedCache[tuple[Origin, Scope, str], AcceptedChallenge] = BoundedCache(
            _MAX_ENTRIES, _MAX_BYTES
        )

    def get(self, origin: Origin) -> OriginState:
        """Return what is known about an origin."""
        return self._origins.get(origin) or OriginState()

    def update(self, origin: Origin, *, is_open: bool = False, is_predictable: bool = True) -> None:
        """Mark an origin as one that does not authenticate, or whose challenges cannot be predicted."""
        state = self.get(origin)
        is_open, is_predictable = is_open or state.is_open, is_predictable and state.is_predictable
        self._put(origin, OriginState(state.challenge, is_open, is_predictable))

    def put(self, origin: Origin, challenge: Challenge) -> None:
        """Remember the last challenge of an origin. A second token server makes the origin unpredictable."""
        last, _, is_predictable = self.get(origin)
        if last is not None and last.scheme == challenge.scheme == "bearer":
            names = ("realm", "service")
            is_predictable &= all(last.params.get(name) == challenge.params.get(name) for name in names)
        params = {name: value for name, value in challenge.params.items() if name != "scope"}
        self._put(origin, OriginState(Challenge(challenge.scheme, params), is_predictable=is_predictable))

    def get_accepted(self, origin: Origin, required: Scope, url: str) -> AcceptedChallenge | None:
        """Return what was accepted for a required scope at the endpoint of a URL.

        If the URL has none (an upload's Location may be any path), or if the origin is unpredictable, this is what was
        accepted last at any endpoint.
        """
        endpoint = _parse_endpoint(url)
        accepted = self._accepted.get((origin, required, endpoint))
        return accepted or (None if self.get(origin).is_predictable else self._accepted.get((origin, required, "")))

    def put_accepted(self, origin: Origin, required: Scope, url: str, accepted: AcceptedChallenge) -> None:
        """Remember what was accepted for a required scope at the endpoint of a URL."""
        for endpoint in {_parse_endpoint(url), ""}:
            self._accepted.put((origin, required, endpoint), accepted, _weigh(accepted.challenge))

    def invalidate(self, origin: Origin, required: Scope) -> None:
        """Forget what was accepted for a required scope, at all endpoints."""
        self._accepted.remove(lambda key, _: key[:2] == (origin, required))

    def _put(self, origin: Origin, state: OriginState) -> None:
        self._origins.put(origin, state, 0 if state.challenge is None else _weigh(state.challenge))


def _parse_endpoint(url: str) -> str:
    match = _ENDPOINT.search(urlsplit(url).path)
    return "" if match is None else match[1]


def _weigh(challenge: Challenge) -> int:
    """Estimate the memory size in bytes; a parsed scope takes about 30 times its text."""
    params = challenge.params
    return 500 + sum(len(name) + len(value) for name, value in params.items()) + 29 * len(params.get("scope", ""))
