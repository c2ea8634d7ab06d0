"""Content digests: ``algorithm:encoded``.

The grammar is that of the OCI image specification, section "Digests". For known algorithms the length and the alphabet
are checked, too. Digests of other algorithms are valid, but content cannot be verified by them.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, final

from .._argument_checks import safe_repr
from ..errors import DigestMismatch, UsageError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Digest", "hashed_digest", "verify_digest", "is_empty_digest", "new_hasher"]

_GRAMMAR = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")
_KNOWN = {
    "sha256": re.compile(r"[a-f0-9]{64}"),
    "sha384": re.compile(r"[a-f0-9]{96}"),
    "sha512": re.compile(r"[a-f0-9]{128}"),
}


@final
class Digest(str):
    """A content digest (``algorithm:encoded``). A `str` that is checked when it is made.

    Args:
        text: The digest, such as ``sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b``.

    Raises:
        UsageError: The text is not a digest, or has the wrong length for its algorithm.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if type(text) is Digest:
            return text
        match = _GRAMMAR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise UsageError(f"not a digest: {safe_repr(text, 300)} (a digest reads sha256:<64 hexadecimal digits>)")
        algorithm, encoded = match.groups()
        known = _KNOWN.get(algorithm)
        if known is not None and not known.fullmatch(encoded):
            raise UsageError(f"not a digest: {safe_repr(text, 300)} ({algorithm} takes {known.pattern})")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        """Hash data and return its digest.

        Raises:
            UsageError: The algorithm is not sha256, sha384 or sha512, or the data is not bytes-like.
        """
        hasher = new_hasher(algorithm)
        try:
            hasher.update(data)
        except (TypeError, BufferError):
            raise UsageError(f"a digest is of bytes, not of {type(data).__name__}") from None
        return hashed_digest(hasher, algorithm)

    @property
    def algorithm(self) -> str:
        """The algorithm, such as ``sha256``."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The encoded hash: hexadecimal digits for known algorithms."""
        return self.partition(":")[2]

    @property
    def known(self) -> bool:
        """Whether content can be verified by it: the algorithm is sha256, sha384 or sha512."""
        return self.algorithm in _KNOWN

    def hasher(self) -> _Hash:
        """Return a new hash object for the algorithm of this digest.

        Raises:
            UsageError: The algorithm is not sha256, sha384 or sha512.
        """
        return new_hasher(self.algorithm)


def new_hasher(algorithm: str) -> _Hash:
    """Return a new hash object for a known algorithm. Raises `UsageError` for another."""
    if algorithm not in _KNOWN:
        raise UsageError(f"cannot hash with {safe_repr(algorithm)} (known are {', '.join(_KNOWN)})")
    return hashlib.new(algorithm)


def hashed_digest(hasher: _Hash, algorithm: str) -> Digest:
    """Return the digest of what was fed to a hash object of an algorithm."""
    return Digest(f"{algorithm}:{hasher.hexdigest()}")


def is_empty_digest(digest: Digest) -> bool:
    """Return whether a digest is that of empty content."""
    return digest.known and digest == Digest.of(b"", digest.algorithm)


def verify_digest(hasher: _Hash, expected: Digest, *, subject: str = "content", hint: str = "") -> None:
    """Compare the hash of received content with the digest that was requested.

    Args:
        hasher: The hash object, fed with the content.
        expected: The digest that was requested.
        subject: What the error message calls the content.
        hint: Appended to the error message.

    Raises:
        DigestMismatch: They differ.
    """
    actual = hashed_digest(hasher, expected.algorithm)
    if actual != expected:
        raise DigestMismatch(
            f"the {subject} is not what was asked for: its digest is {actual}, not {expected}{hint}",
            expected=expected,
            actual=actual,
        )
