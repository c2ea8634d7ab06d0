"""How long a credential lives: what a source has said is kept until it expires, or until a server rejects it."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple, final

from ..errors import AuthError
from .credentials import Credential, CredentialSource, check_source
from .flights import Flights

__all__ = ["Lookups", "Who"]

_MAX_KEPT = 4096


class Who(NamedTuple):
    """Whom a source is asked about.

    Attributes:
        host: The registry, as `CredentialSource.lookup` has it.
        repository: The first repository that is needed, or None.
    """

    host: str
    repository: str | None


class _Answer(NamedTuple):
    """What a source has said; ``credential`` is None for nobody."""

    credential: Credential | None


@final
class Lookups:
    """Asks a source, one call at a time for each host, and keeps what it says, "nobody" included.

    Exceptions are not kept. Those that are none of `AuthError` become one, with the exception as its cause: whatever
    goes wrong in a source, its request is not to be retried.

    Args:
        source: The source.

    Raises:
        UsageError: It has no ``lookup``.
    """

    def __init__(self, source: CredentialSource) -> None:
        self._source = check_source(source)
        self._lock = threading.Lock()
        self._kept: dict[Who, _Answer] = {}
        self._flights: Flights[_Answer] = Flights("a credential")

    @property
    def source_name(self) -> str:
        """What messages call the source, where a credential does not say where it came from."""
        return type(self._source).__name__

    def kept(self, who: Who) -> Credential | None:
        """What is known without asking."""
        answer = self._find(who)
        return None if answer is None else answer.credential

    def of(self, who: Who, deadline: float | None) -> Credential | None:
        """The credential; the source is asked if it has not said, or what it said has expired.

        Raises:
            AuthError: The source failed.
            AuthTimeout: The deadline passed while another thread was asking.
        """
        answer = self._find(who)
        if answer is None:
            answer = self._flights.fetch(who.host, who, lambda: self._find(who), lambda: self._ask(who), deadline)
        return answer.credential

    def after_rejection(self, who: Who, rejected: Credential | None, deadline: float | None) -> Credential | None:
        """What the source says now, once a server has rejected what it said before: it is asked once more.

        Of many threads that had the same answer rejected, one asks; the others are given what it was told.

        Raises what `of` does.
        """
        self.forget(who, rejected)
        return self.of(who, deadline)

    def forget(self, who: Who, rejected: Credential | None) -> None:
        """Ask the source the next time, if what is kept is still the very answer that was rejected."""
        with self._lock:
            answer = self._kept.get(who)
            if answer is not None and answer.credential is rejected:
                del self._kept[who]

    def _find(self, who: Who) -> _Answer | None:
        answer = self._kept.get(who)
        if answer is None or answer.credential is None or answer.credential.expires_at is None:
            return answer
        return answer if time.time() < answer.credential.expires_at else None

    def _ask(self, who: Who) -> _Answer:
        try:
            credential = self._source.lookup(who.host, who.repository)
        except AuthError:
            raise
        except Exception as error:
            # The exception's own text stays out: only its author knows what is in it.
            raise AuthError(
                f"the credential source {self.source_name} failed for {who.host}: {type(error).__name__}"
            ) from error
        if credential is not None and not isinstance(credential, Credential):
            raise AuthError(
                f"the credential source {self.source_name} answered with a {type(credential).__name__}: a Credential"
                " or None is wanted"
            )
        answer = _Answer(credential)
        with self._lock:
            while len(self._kept) >= _MAX_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[who] = answer
        return answer
