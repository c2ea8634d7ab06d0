"""Cache the answers of a credential source until they expire or a server rejects them."""

from __future__ import annotations

import time
from typing import NamedTuple, final

from .._bounded_cache import BoundedCache
from ..errors import AuthError
from ._single_flight import SingleFlight
from .credentials import Credential, CredentialSource, check_credential_source, get_failure

__all__ = ["CredentialCache", "CredentialKey", "LookupResult"]

_MAX_ANSWERS = 4096
_REFRESH_INTERVAL = 60.0
"""Minimum time in seconds between two refreshes of a credential that a registry answers with 403."""


class CredentialKey(NamedTuple):
    """The arguments of `CredentialSource.lookup`."""

    host: str
    repository: str | None


class LookupResult(NamedTuple):
    """The answer of a source to one look-up."""

    credential: Credential | None  # None for anonymous access
    failure: AuthError | None  # why the source answered None
    expires_at: float | None  # in seconds since the epoch; None means never


@final
class CredentialCache:
    """Asks a source, one call at a time per host, and caches its answers, None included. Thread-safe.

    Raises:
        UsageError: The source has no ``lookup`` method.
    """

    def __init__(self, source: CredentialSource) -> None:
        self._source = check_credential_source(source)
        self.source_name = type(source).__name__
        self._answers: BoundedCache[CredentialKey, LookupResult] = BoundedCache(_MAX_ANSWERS)
        self._refreshed: BoundedCache[tuple[str, Credential], float] = BoundedCache(_MAX_ANSWERS)
        self._single_flight = SingleFlight("a credential")

    def get(self, key: CredentialKey) -> LookupResult | None:
        """The source's cached answer, None included. Does not ask the source."""
        answer = self._answers.get(key)
        expired = answer is not None and answer.expires_at is not None and time.time() >= answer.expires_at
        return None if expired else answer

    def lookup(self, key: CredentialKey, deadline: float | None) -> LookupResult:
        """The answer of the cache or of the source.

        Raises:
            AuthError: The source failed. Failures are not cached.
            AuthTimeout: The deadline passed while another thread was asking.
        """
        answer = self.get(key)
        if answer is not None:
            return answer
        return self._single_flight.fetch(key.host, key, lambda: self.get(key), lambda: self._lookup(key), deadline)

    def invalidate(self, key: CredentialKey, rejected: Credential | None) -> None:
        """Ask the source the next time, if the cached answer is still the one that was rejected."""
        self._answers.remove(lambda cached, answer: cached == key and answer.credential is rejected)

    def refresh(self, key: CredentialKey, used: Credential, deadline: float | None) -> Credential | None:
        """Ask the source again for a credential that may have expired. Returns `used` if nothing changed.

        The source is asked at most once per host, credential and minute; other threads wait for its answer.

        Raises:
            AuthError: As `lookup`.
        """
        cached = self.get(key)
        if cached is not None and cached.credential != used:
            return cached.credential

        def get_recent_refresh() -> bool | None:
            refreshed_at = self._refreshed.get((key.host, used))
            return True if refreshed_at is not None and time.monotonic() < refreshed_at + _REFRESH_INTERVAL else None

        def ask() -> bool:
            started_at = time.monotonic()
            self.invalidate(key, used)
            try:
                answer = self._lookup(key)
            finally:
                self._refreshed.put((key.host, used), started_at)
            if answer.credential != used:  # the host's other repositories would otherwise keep it for a minute
                self._answers.remove(lambda cached, answer: cached.host == key.host and answer.credential == used)
            return True

        self._single_flight.fetch(key.host, used, get_recent_refresh, ask, deadline)
        return self.lookup(key, deadline).credential

    def _lookup(self, key: CredentialKey) -> LookupResult:
        try:
            credential = self._source.lookup(key.host, key.repository)
        except AuthError:
            raise
        except Exception as error:
            # Another exception would be retried by the retry layer. Its text may hold a secret.
            raise AuthError(
                f"the credential source {self.source_name} failed for {key.host}: {type(error).__name__}"
            ) from error
        if credential is not None and not isinstance(credential, Credential):
            raise AuthError(
                f"the credential source {self.source_name} returned {type(credential).__name__}: expected a Credential"
                " or None"
            )
        if credential is not None:
            answer = LookupResult(credential, None, credential.expires_at)
        else:
            failure = get_failure(self._source, key.host, key.repository)
            # A source that failed is asked again after a second: it remembers its failure itself.
            answer = LookupResult(None, failure, time.time() + 1.0 if failure else None)
        self._answers.put(key, answer)
        return answer
