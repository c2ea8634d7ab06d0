"""Content digests: ``algorithm:encoded``.

The grammar is defined in the OCI image specification, section "Digests". For supported algorithms, the length and the
alphabet of the encoded part are checked as well. Digests of other algorithms are accepted, but cannot be verified.
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
# The image specification registers sha256 and sha512. sha384 is supported by go-digest, which most registries use.
_KNOWN = {
    "sha256": re.compile(r"[a-f0-9]{64}"),
    "sha384": re.compile(r"[a-f0-9]{96}"),
    "sha512": re.compile(r"[a-f0-9]{128}"),
}


@final
class Digest(str):
    """A content digest (``algorithm:encoded``): a `str` that is validated on creation.

    >>> digest = Digest.of(b"hello")
    >>> digest
    'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
    >>> digest.algorithm
    'sha256'

    Args:
        text: The digest, such as ``sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b``.

    Raises:
        UsageError: The text is not a digest, or its encoded part has the wrong length or alphabet for its algorithm.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if type(text) is Digest:
            return text
        match = _GRAMMAR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise UsageError(
                f"invalid digest {safe_repr(text, 300)}: expected ALGORITHM:ENCODED, such as sha256: and 64 hexadecimal"
                " digits"
            )
        algorithm, encoded = match.groups()
        pattern = _KNOWN.get(algorithm)
        if pattern is not None and not pattern.fullmatch(encoded):
            raise UsageError(f"invalid digest {safe_repr(text, 300)}: expected {algorithm}:{pattern.pattern}")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        """Compute the digest of data.

        Args:
            data: The content.
            algorithm: Hash algorithm: sha256 (default), sha384 or sha512.

        Raises:
            UsageError: The algorithm is not supported, or the data is not bytes-like.
        """
        hasher = new_hasher(algorithm)
        try:
            hasher.update(data)
        except (TypeError, BufferError):
            raise UsageError(f"data must be bytes, a bytearray or a memoryview, got {type(data).__name__}") from None
        return hashed_digest(hasher, algorithm)

    @property
    def algorithm(self) -> str:
        """The hash algorithm, such as ``sha256``."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The encoded hash: lower case hexadecimal digits for supported algorithms."""
        return self.partition(":")[2]

    @property
    def known(self) -> bool:
        """Whether the algorithm is supported (sha256, sha384 or sha512), so that content can be verified."""
        return self.algorithm in _KNOWN

    def hasher(self) -> _Hash:
        """Return a new hash object for the algorithm of this digest.

        Raises:
            UsageError: The algorithm is not sha256, sha384 or sha512.
        """
        return new_hasher(self.algorithm)


def new_hasher(algorithm: str) -> _Hash:
    """Return a new hash object for an algorithm. Raises `UsageError` if the algorithm is not supported."""
    if algorithm not in _KNOWN:
        raise UsageError(f"unsupported digest algorithm {safe_repr(algorithm)}: expected one of {', '.join(_KNOWN)}")
    return hashlib.new(algorithm)


def hashed_digest(hasher: _Hash, algorithm: str) -> Digest:
    """Return the digest from a hash object that was updated with the content.

    Args:
        hasher: The hash object.
        algorithm: Its algorithm, such as ``sha256``.
    """
    return Digest(f"{algorithm}:{hasher.hexdigest()}")


def is_empty_digest(digest: Digest) -> bool:
    """Return whether a digest is the digest of empty content."""
    return digest.known and digest == Digest.of(b"", digest.algorithm)


def verify_digest(hasher: _Hash, expected: Digest, *, subject: str = "content", hint: str = "") -> None:
    """Verify that received content has the expected digest.

    Args:
        hasher: Hash object that was updated with the content.
        expected: The digest that was requested.
        subject: Name of the content in the error message. Defaults to ``content``.
        hint: Text that is appended to the error message. Defaults to none.

    Raises:
        DigestMismatch: The digests differ.
    """
    actual = hashed_digest(hasher, expected.algorithm)
    if actual != expected:
        raise DigestMismatch(
            f"{subject} digest mismatch: expected {expected}, got {actual}{hint}",
            expected=expected,
            actual=actual,
        )
