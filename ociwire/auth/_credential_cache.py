"""Cache the answers of a credential source until they expire or a server rejects them."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple, final

from ..errors import AuthError
from ._single_flight import SingleFlight
from .credentials import Credential, CredentialSource, check_source, failure_of

__all__ = ["Answer", "CredentialCache", "CredentialKey"]

_MAX_ANSWERS = 4096
_REFRESH_INTERVAL = 60.0
"""Minimum time in seconds between two refreshes of a credential that a registry answers with 403."""


class CredentialKey(NamedTuple):
    """The arguments of a look-up at a source.

    Attributes:
        host: The registry's host, in the form that `CredentialSource.lookup` documents.
        repository: The first repository that the request needs, or None.
    """

    host: str
    repository: str | None


class Answer(NamedTuple):
    """An answer of a source.

    Attributes:
        credential: None for anonymous access.
        failure: The error because of which the source answered None, if any.
        expires_at: Expiry in seconds since the epoch; None means never.
    """

    credential: Credential | None
    failure: AuthError | None
    expires_at: float | None


@final
class CredentialCache:
    """Asks a source, one call at a time per host, and caches its answers, None included. Thread-safe.

    Exceptions are not cached. An exception other than `AuthError` is raised as the cause of an `AuthError`, so that the
    retry layer does not repeat the request.

    Args:
        source: The credential source.

    Raises:
        UsageError: The source has no ``lookup`` method.
    """

    def __init__(self, source: CredentialSource) -> None:
        self._source = check_source(source)
        self._lock = threading.Lock()
        self._answers: dict[CredentialKey, Answer] = {}
        self._refreshed: dict[tuple[str, Credential], float] = {}
        self._single_flight: SingleFlight[Answer] = SingleFlight("a credential")
        self._refreshes: SingleFlight[bool] = SingleFlight("a credential")

    @property
    def source_name(self) -> str:
        """Name of the source for messages about credentials that do not name their own."""
        return type(self._source).__name__

    def cached(self, key: CredentialKey) -> Credential | None:
        """The cached credential, without asking the source."""
        answer = self.find(key)
        return None if answer is None else answer.credential

    def get(self, key: CredentialKey, deadline: float | None) -> Credential | None:
        """The credential, from the cache or from the source.

        Raises:
            AuthError: The source failed.
            AuthTimeout: The deadline passed while another thread was asking.
        """
        return self.get_answer(key, deadline).credential

    def get_after_rejection(
        self, key: CredentialKey, rejected: Credential | None, deadline: float | None
    ) -> Credential | None:
        """Ask the source again after a server rejected its last answer.

        Of many threads whose credential was rejected, one asks the source.

        Raises:
            AuthError: As `get`.
        """
        self.invalidate(key, rejected)
        return self.get(key, deadline)

    def refresh(self, key: CredentialKey, used: Credential, deadline: float | None) -> Credential | None:
        """Ask the source again for a credential that may have expired. Returns `used` if nothing changed.

        Asks the source again at most once per host, credential and minute.

        Raises:
            AuthError: As `get`.
        """
        cached = self.find(key)
        if cached is not None and cached.credential != used:
            return cached.credential
        recent = self._refreshed_recently
        refreshed = (key.host, used)
        self._refreshes.fetch(
            refreshed, used, lambda: recent(refreshed), lambda: self._refresh(key, used, deadline), deadline
        )
        return self.get(key, deadline)

    def _refreshed_recently(self, refreshed: tuple[str, Credential]) -> bool | None:
        at = self._refreshed.get(refreshed)
        return True if at is not None and time.monotonic() < at + _REFRESH_INTERVAL else None

    def _refresh(self, key: CredentialKey, used: Credential, deadline: float | None) -> bool:
        now = time.monotonic()
        with self._lock:
            self._refreshed = {one: at for one, at in self._refreshed.items() if now < at + _REFRESH_INTERVAL}
            if len(self._refreshed) >= _MAX_ANSWERS:
                return False
        try:
            credential = self.get_after_rejection(key, used, deadline)
        finally:  # not before: threads that come meanwhile wait for the answer
            with self._lock:
                self._refreshed[key.host, used] = now
        if credential != used:  # the other repositories of the host would otherwise keep it for a minute
            with self._lock:
                stale = [one for one, answer in self._answers.items() if one.host == key.host]
                for one in stale:
                    if self._answers[one].credential == used:
                        del self._answers[one]
        return True

    def invalidate(self, key: CredentialKey, rejected: Credential | None) -> None:
        """Ask the source the next time, if the cached answer is still the one that was rejected."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None and answer.credential is rejected:
                del self._answers[key]

    def get_answer(self, key: CredentialKey, deadline: float | None) -> Answer:
        """The credential, or why there is none. Raises the same errors as `get`."""
        answer = self.find(key)
        if answer is None:
            answer = self._single_flight.fetch(key.host, key, lambda: self.find(key), lambda: self._ask(key), deadline)
        return answer

    def find(self, key: CredentialKey) -> Answer | None:
        """The source's cached answer, None included."""
        answer = self._answers.get(key)
        if answer is None or answer.expires_at is None or time.time() < answer.expires_at:
            return answer
        return None

    def _ask(self, key: CredentialKey) -> Answer:
        try:
            credential = self._source.lookup(key.host, key.repository)
        except AuthError:
            raise
        except Exception as error:
            # Without the exception's text: only its author knows whether it holds a secret.
            raise AuthError(
                f"the credential source {self.source_name} failed for {key.host}: {type(error).__name__}"
            ) from error
        if credential is not None and not isinstance(credential, Credential):
            raise AuthError(
                f"the credential source {self.source_name} returned {type(credential).__name__}: expected a Credential"
                " or None"
            )
        failure = failure_of(self._source, key.host, key.repository) if credential is None else None
        # A source that failed is asked again after a short time: it remembers its failure itself.
        expires_at = (time.time() + 1.0 if failure else None) if credential is None else credential.expires_at
        answer = Answer(credential, failure, expires_at)
        with self._lock:
            while len(self._answers) >= _MAX_ANSWERS:
                self._answers.pop(next(iter(self._answers)))
            self._answers[key] = answer
        return answer
