"""Remember how a registry authenticates: its challenge, and the scopes that it names for what was requested.

A client can only guess the scope that a request will be challenged with. The guess is wrong behind a proxy that
rewrites paths (Artifactory), where an endpoint wants another action (``metadata_read`` at Azure Container Registry),
and where the repositories of one host have different token servers. The scope that the registry names is remembered per
repository and endpoint.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar, final
from urllib.parse import urlsplit

from .._http.urls import Origin
from .._oci.scope import Scope
from .challenge import Challenge

__all__ = ["ChallengeCache", "LearnedChallenge"]

K = TypeVar("K")
V = TypeVar("V")

_MAX_ENTRIES = 1024
_MAX_BYTES = 4 * 1024 * 1024
_ENDPOINT = re.compile(r"/v2/.+/(blobs|manifests|tags|referrers)(?:/|$)")


class LearnedChallenge(NamedTuple):
    """A challenge that was answered successfully.

    Attributes:
        challenge: The challenge: scheme, realm and service.
        scope: The scope that the accepted token was requested for.
    """

    challenge: Challenge
    scope: Scope


class _Key(NamedTuple):
    origin: Origin
    required: str
    endpoint: str


class _BoundedDict(Generic[K, V]):
    """A mapping of at most 1,024 entries and 4 MiB: a registry chooses how long they are. The oldest are evicted."""

    def __init__(self, challenge_of: Callable[[V], Challenge]) -> None:
        self._challenge_of = challenge_of
        self._entries: dict[K, V] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        return self._entries.get(key)

    def items(self) -> Iterable[tuple[K, V]]:
        return self._entries.items()

    def pop(self, key: K) -> V | None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._bytes -= _weight(self._challenge_of(value))
        return value

    def put(self, key: K, value: V) -> None:
        self.pop(key)
        weight = _weight(self._challenge_of(value))
        while self._entries and (len(self._entries) >= _MAX_ENTRIES or self._bytes + weight > _MAX_BYTES):
            self.pop(next(iter(self._entries)))
        self._entries[key] = value
        self._bytes += weight


@final
class ChallengeCache:
    """Caches the challenges of registries and the scopes that they name, 1,024 and 4 MiB of each. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._challenges: _BoundedDict[Origin, Challenge] = _BoundedDict(lambda challenge: challenge)
        self._learned: _BoundedDict[_Key, LearnedChallenge] = _BoundedDict(lambda learned: learned.challenge)
        self._open: set[Origin] = set()
        self._unpredictable: set[Origin] = set()

    def get(self, origin: Origin) -> Challenge | None:
        """The last challenge of an origin, without its scope, which belongs to another request."""
        return self._challenges.get(origin)

    def put(self, origin: Origin, challenge: Challenge) -> None:
        """Remember the last challenge of an origin.

        Another realm or service than before means that the repositories of the host differ: see `is_unpredictable`.
        """
        with self._lock:
            before = self._challenges.get(origin)
            both_bearer = before is not None and before.scheme == challenge.scheme == "bearer"
            if before is not None and both_bearer and _server(before) != _server(challenge):
                _add(self._unpredictable, origin)
            self._open.discard(origin)
            params = {name: value for name, value in challenge.params.items() if name != "scope"}
            self._challenges.put(origin, Challenge(challenge.scheme, params))

    def find(self, origin: Origin, required: Scope, url: str) -> LearnedChallenge | None:
        """The challenge and scope that were learned for a required scope at the endpoint of a URL, if any."""
        if not self._learned:
            return None
        key = _Key(origin, str(required), _endpoint(url))
        learned = self._learned.get(key)
        if learned is None and (origin in self._unpredictable or not key.endpoint):
            with self._lock:
                return next((one for k, one in self._learned.items() if k[:2] == key[:2]), None)
        return learned

    def learn(self, origin: Origin, required: Scope, url: str, learned: LearnedChallenge) -> None:
        """Remember what a request needed, unless a guess would have been right."""
        key = _Key(origin, str(required), _endpoint(url))
        with self._lock:
            if learned.scope == required and origin not in self._unpredictable:
                self._learned.pop(key)
            else:
                self._learned.put(key, learned)

    def forget(self, origin: Origin, required: Scope) -> None:
        """Forget what was learned for this required scope, at all endpoints."""
        with self._lock:
            for key in [key for key, _ in self._learned.items() if key[:2] == (origin, str(required))]:
                self._learned.pop(key)

    def is_unpredictable(self, origin: Origin) -> bool:
        """Whether scopes and realms of this origin's repositories cannot be guessed."""
        return origin in self._unpredictable

    def mark_unpredictable(self, origin: Origin) -> None:
        """Remember that the origin names other resources in its challenges than those requested."""
        with self._lock:
            _add(self._unpredictable, origin)

    def is_open(self, origin: Origin) -> bool:
        """Whether the origin is known not to authenticate."""
        return origin in self._open

    def mark_open(self, origin: Origin) -> None:
        """Remember that the origin does not authenticate."""
        with self._lock:
            _add(self._open, origin)


def _add(origins: set[Origin], origin: Origin) -> None:
    if len(origins) >= _MAX_ENTRIES:
        origins.clear()
    origins.add(origin)


def _server(challenge: Challenge) -> tuple[str, str | None]:
    return challenge.params.get("realm", ""), challenge.params.get("service")


def _endpoint(url: str) -> str:
    match = _ENDPOINT.search(urlsplit(url).path)
    return "" if match is None else match[1]


def _weight(challenge: Challenge) -> int:
    """Estimated memory size in bytes; a parsed scope takes about 30 times its text."""
    return (
        sum(len(name) + len(value) * (30 if name == "scope" else 1) for name, value in challenge.params.items()) + 500
    )
