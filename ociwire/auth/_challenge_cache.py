"""Remember how a registry authenticates: its challenge, and the scopes that it names for what was requested.

A client can only guess the scope that a request will be challenged with. The guess is wrong behind a proxy that
rewrites paths (Artifactory), where an endpoint wants another action (``metadata_read`` at Azure Container Registry),
and where the repositories of one host have different token servers. The scope that the registry names is remembered per
required scope and endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, final
from urllib.parse import urlsplit

from .._bounded_cache import BoundedCache
from .._http.urls import Origin
from .._oci.scope import Scope
from .challenge import Challenge

__all__ = ["AcceptedChallenge", "ChallengeCache"]

_MAX_ENTRIES = 1024
_MAX_BYTES = 4 * 1024 * 1024
_ENDPOINT = re.compile(r"/v2/.+/(blobs|manifests|tags|referrers)(?:/|$)")


class AcceptedChallenge(NamedTuple):
    """A challenge that was answered successfully, and the scope that the accepted token was requested for."""

    challenge: Challenge
    scope: Scope


@final
class ChallengeCache:
    """Caches the challenges of registries and the scopes that they name, 1,024 and 4 MiB of each. Thread-safe."""

    def __init__(self) -> None:
        self._challenges: BoundedCache[Origin, Challenge] = BoundedCache(_MAX_ENTRIES, _MAX_BYTES)
        self._accepted: BoundedCache[tuple[Origin, Scope, str], AcceptedChallenge] = BoundedCache(
            _MAX_ENTRIES, _MAX_BYTES
        )
        # "open": the origin does not authenticate. "unpredictable": its scopes and realms cannot be guessed.
        self._marks: BoundedCache[tuple[Origin, str], str] = BoundedCache(2 * _MAX_ENTRIES)

    def get(self, origin: Origin) -> Challenge | None:
        """The last challenge of an origin, without its scope, which belongs to another request."""
        return self._challenges.get(origin)

    def put(self, origin: Origin, challenge: Challenge) -> None:
        """Remember the last challenge of an origin. One that names another token server makes it unpredictable."""
        before = self._challenges.get(origin)
        both_bearer = before is not None and before.scheme == challenge.scheme == "bearer"
        if before is not None and both_bearer and _server(before) != _server(challenge):
            self.mark(origin, "unpredictable")
        if self.is_marked(origin, "open"):
            self._marks.remove(lambda key, _: key == (origin, "open"))
        params = {name: value for name, value in challenge.params.items() if name != "scope"}
        self._challenges.put(origin, Challenge(challenge.scheme, params), _weight(params))

    def get_accepted(self, origin: Origin, required: Scope, url: str) -> AcceptedChallenge | None:
        """The challenge and scope that were learned for a required scope at the endpoint of a URL, if any."""
        if not self._accepted:
            return None
        endpoint = _endpoint(url)
        accepted = self._accepted.get((origin, required, endpoint))
        if accepted is None and (not endpoint or self.is_marked(origin, "unpredictable")):
            return self._accepted.find(lambda key, _: key[:2] == (origin, required))
        return accepted

    def put_accepted(self, origin: Origin, required: Scope, url: str, accepted: AcceptedChallenge) -> None:
        """Remember what a request needed, unless a guess would have been right."""
        key = (origin, required, _endpoint(url))
        if accepted.scope == required and not self.is_marked(origin, "unpredictable"):
            self._accepted.remove(lambda other, _: other == key)
        else:
            self._accepted.put(key, accepted, _weight(accepted.challenge.params))

    def invalidate(self, origin: Origin, required: Scope) -> None:
        """Forget what was learned for a required scope, at all endpoints."""
        self._accepted.remove(lambda key, _: key[:2] == (origin, required))

    def is_marked(self, origin: Origin, mark: Literal["open", "unpredictable"]) -> bool:
        """Whether the origin has a mark."""
        return self._marks.get((origin, mark)) is not None

    def mark(self, origin: Origin, mark: Literal["open", "unpredictable"]) -> None:
        """Mark an origin as one that does not authenticate, or whose challenges cannot be guessed."""
        self._marks.put((origin, mark), mark)


def _server(challenge: Challenge) -> tuple[str, str | None]:
    return challenge.params.get("realm", ""), challenge.params.get("service")


def _endpoint(url: str) -> str:
    match = _ENDPOINT.search(urlsplit(url).path)
    return "" if match is None else match[1]


def _weight(params: Mapping[str, str]) -> int:
    """Estimated memory size in bytes; a parsed scope takes about 30 times its text."""
    return 500 + sum(len(name) + len(value) * (30 if name == "scope" else 1) for name, value in params.items())
