"""Caches the results of a credential source until they expire or a server refuses the credential."""

from __future__ import annotations

import math
import time
from typing import NamedTuple, final

from .._bounded_cache import BoundedCache
from ..errors import AuthError
from ._single_flight import SingleFlight
from .credentials import Credential, CredentialFunction, CredentialSource, as_credential_source, get_failure, get_name

__all__ = ["CredentialCache", "CredentialKey", "LookupResult"]

_MAX_ANSWERS = 4096


class CredentialKey(NamedTuple):
    """The arguments of `CredentialSource.lookup`."""

    host: str
    repository: str | None


class LookupResult(NamedTuple):
    """The result of one lookup."""

    credential: Credential | None  # None for anonymous access
    failure: AuthError | None  # the error, if the source returned None because of one
    expires_at: float | None  # expiry in seconds since the epoch; None means never


@final
class CredentialCache:
    """Calls a credential source and caches its results, including None. Thread-safe.

    For each host, only one call of the source runs at a time.

    Raises:
        UsageError: The source has no ``lookup`` method, and is not a function.
    """

    def __init__(self, source: CredentialSource | CredentialFunction) -> None:
        self._source = as_credential_source(source)
        self.source_name = get_name(self._source)
        self._answers: BoundedCache[CredentialKey, LookupResult] = BoundedCache(_MAX_ANSWERS)
        # When the source last returned a credential for a host, as a value of `time.monotonic`.
        self._returned_at: BoundedCache[tuple[str, Credential | None], float] = BoundedCache(_MAX_ANSWERS)
        self._single_flight = SingleFlight("a credential")

    def get(self, key: CredentialKey) -> LookupResult | None:
        """Return the cached result, unless it has expired. Does not call the source."""
        answer = self._answers.get(key)
        expired = answer is not None and answer.expires_at is not None and time.time() >= answer.expires_at
        return None if expired else answer

    def lookup(self, key: CredentialKey, deadline: float | None) -> LookupResult:
        """Return the cached result, or call the source if there is none.

        Raises:
            AuthError: The source failed. Failures are not cached.
            AuthTimeout: The deadline passed while another thread was calling the source.
        """
        return self.get(key) or self._single_flight.fetch(
            key.host, key, lambda: self.get(key), lambda: self._lookup(key), deadline
        )

    def renew(
        self, key: CredentialKey, used: Credential | None, deadline: float | None, *, min_age: float = 0.0
    ) -> LookupResult:
        """Call the source again after a server refused the credential that was used.

        The source is not called if another thread has already replaced the credential, or if the source has returned
        the same credential for this host within the last `min_age` seconds.

        Raises:
            AuthError: See `lookup`.
        """

        def find() -> LookupResult | None:
            answer = self.get(key)
            age = time.monotonic() - (self._returned_at.get((key.host, used)) or -math.inf)
            return answer if answer is not None and (answer.credential is not used or age < min_age) else None

        def lookup() -> LookupResult:
            self.invalidate(key, used)
            return self._lookup(key)

        return self._single_flight.fetch(key.host, key, find, lookup, deadline)

    def invalidate(self, key: CredentialKey, rejected: Credential | None) -> None:
        """Remove the cached result if it still contains the rejected credential."""
        self._answers.remove(lambda cached, answer: cached == key and answer.credential is rejected)

    def _lookup(self, key: CredentialKey) -> LookupResult:
        try:
            credential = self._source.lookup(key.host, key.repository)
        except AuthError:
            raise
        except Exception as error:
            # Raise an AuthError, because the retry layer may retry other exceptions. Omit the text of the original
            # exception, which may contain a secret.
            raise AuthError(
                f"the credential source {self.source_name} failed for {key.host}: {type(error).__name__}"
            ) from error
        if credential is None:
            failure = get_failure(self._source, key.host, key.repository)
            # A failure expires after a second: sources that report failures also cache them.
            answer = LookupResult(None, failure, time.time() + 1.0 if failure else None)
        elif isinstance(credential, Credential):
            answer = LookupResult(credential, None, credential.expires_at)
        else:
            raise AuthError(
                f"the credential source {self.source_name} returned {type(credential).__name__}: expected a Credential"
                " or None"
            )
        self._returned_at.put((key.host, credential), time.monotonic())
        self._answers.put(key, answer)
        return answer
