"""Cache of the challenges of registries, so that later requests are sent with a token at once.

Before the registry challenges a request, the scope of the challenge can only be guessed. The guess is wrong if a proxy
rewrites paths (Artifactory), if an endpoint requires another action (``metadata_read`` at Azure Container Registry), or
if the repositories of one host have different token servers. Therefore the cache also stores, for each required scope
and endpoint, the challenge and the scope of the last token that the registry accepted.
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
    """State of an origin. The default values mean that no response has been received yet."""

    challenge: Challenge | None = None  # the last challenge, without its scope, which is specific to a request
    is_open: bool = False  # whether the origin requires no authentication
    is_predictable: bool = True  # whether it has one token server, and no guessed scope was refused


class AcceptedChallenge(NamedTuple):
    """A challenge that was answered with a token that the registry accepted, and the requested scope of the token."""

    challenge: Challenge
    scope: Scope


@final
class ChallengeCache:
    """Caches the state of origins and their accepted challenges. Each cache has up to 1,024 entries and 4 MiB.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._origins: BoundedCache[Origin, OriginState] = BoundedCache(_MAX_ENTRIES, _MAX_BYTES)
        self._accepted: BoundedCache[tuple[Origin, Scope, str], AcceptedChallenge] = BoundedCache(
            _MAX_ENTRIES, _MAX_BYTES
        )

    def get(self, origin: Origin) -> OriginState:
        """Return the state of an origin."""
        return self._origins.get(origin) or OriginState()

    def update(self, origin: Origin, *, is_open: bool = False, is_predictable: bool = True) -> None:
        """Record that an origin requires no authentication, or that its challenges cannot be predicted."""
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
        """Return the accepted challenge for a required scope and the endpoint of a URL.

        The result is the last accepted challenge of any endpoint in two cases: if the URL has no known endpoint (the
        Location of an upload may have any path), or if nothing is cached for the endpoint and the origin is
        unpredictable.
        """
        endpoint = _parse_endpoint(url)
        accepted = self._accepted.get((origin, required, endpoint))
        return accepted or (None if self.get(origin).is_predictable else self._accepted.get((origin, required, "")))

    def put_accepted(self, origin: Origin, required: Scope, url: str, accepted: AcceptedChallenge) -> None:
        """Cache an accepted challenge for a required scope and the endpoint of a URL."""
        for endpoint in {_parse_endpoint(url), ""}:  # the empty name stands for any endpoint
            self._accepted.put((origin, required, endpoint), accepted, _weigh(accepted.challenge))

    def invalidate(self, origin: Origin, required: Scope) -> None:
        """Remove the accepted challenges for a required scope, of all endpoints."""
        self._accepted.remove(lambda key, _: key[:2] == (origin, required))

    def _put(self, origin: Origin, state: OriginState) -> None:
        self._origins.put(origin, state, 0 if state.challenge is None else _weigh(state.challenge))


def _parse_endpoint(url: str) -> str:
    """Return the kind of endpoint in a URL, such as ``blobs``; empty if the URL has no known endpoint."""
    match = _ENDPOINT.search(urlsplit(url).path)
    return "" if match is None else match[1]


def _weigh(challenge: Challenge) -> int:
    """Estimate the memory size in bytes. A parsed scope takes about 30 times the size of its text."""
    params = challenge.params
    return 500 + sum(len(name) + len(value) for name, value in params.items()) + 29 * len(params.get("scope", ""))
