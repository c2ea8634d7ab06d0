"""Tests of `Digest`: the grammar of the image specification, and hashing."""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from ociwire._oci.digest import Digest, new_hasher
from ociwire.errors import UsageError

# FIPS 180-4 example values
ABC = {
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "sha384": "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
    "sha512": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
}
HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("algorithm", ABC)
@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")], ids=["bytes", "bytearray", "view"])
def test_of_returns_digest_of_data(algorithm: str, data: Any) -> None:
    digest = Digest.of(data, algorithm)
    assert type(digest) is Digest
    assert digest == f"{algorithm}:{ABC[algorithm]}"
    assert (digest.algorithm, digest.encoded) == (algorithm, ABC[algorithm])


def test_of_without_algorithm_uses_sha256() -> None:
    assert Digest.of(b"abc") == f"sha256:{ABC['sha256']}"
    assert Digest.of(b"") == f"sha256:{hashlib.sha256().hexdigest()}"


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "SHA256", "sha512-256", "blake3", "", "sha256 ", None])
def test_of_unknown_algorithm_raises_usage_error(algorithm: Any) -> None:
    with pytest.raises(UsageError, match="expected one of sha256, sha384, sha512") as caught:
        Digest.of(b"", algorithm)
    assert repr(algorithm) in str(caught.value)
    with pytest.raises(UsageError, match="expected one of sha256, sha384, sha512"):
        new_hasher(algorithm)


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (f"sha256:{HEX}", "sha256"),
        (f"sha384:{'0a' * 48}", "sha384"),
        (f"sha512:{'0a' * 64}", "sha512"),
        # examples of the image specification, "Digests"
        (f"multihash+base58:{'QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8'}", "multihash+base58"),
        ("sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564", "sha256+b64u"),
        ("a:A", "a"),
        ("a1.b_c-d+e:Az09=_-", "a1.b_c-d+e"),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", "md5"),
    ],
)
def test_digest_valid_text_is_accepted(text: str, algorithm: str) -> None:
    digest = Digest(text)
    assert digest == text
    assert digest.algorithm == algorithm
    assert digest.encoded == text[len(algorithm) + 1 :]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        f":{HEX}",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"sha256:{'g' * 64}",
        f"SHA256:{HEX}",
        f"sha384:{HEX}",
        f"sha512:{HEX}",
        f" sha256:{HEX}",
        f"sha256:{HEX}\n",
        f"sha256:{HEX}:{HEX}",
        f"sha256;{HEX}",
        f"+sha256:{HEX}",
        f"sha256+:{HEX}",
        f"sha256++b:{HEX}",
        "other:a b",
        "other:a/b",
        "other:é",
        "other:",
        "alg/../../x:abc",
    ],
)
def test_digest_invalid_text_raises_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"^invalid digest .*: expected ") as caught:
        Digest(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", [None, 5, b"sha256:" + HEX.encode(), ["sha256"], object()])
def test_digest_other_than_str_raises_usage_error(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid digest .*: expected "):
        Digest(value)


@pytest.mark.parametrize("algorithm", ABC)
@pytest.mark.parametrize(
    "change", [lambda text: text[:-1], lambda text: text + "0", str.upper], ids=["short", "long", "upper"]
)
def test_digest_known_algorithm_with_wrong_length_raises_usage_error(
    algorithm: str, change: Callable[[str], str]
) -> None:
    assert Digest(f"{algorithm}:{ABC[algorithm]}")
    with pytest.raises(UsageError):
        Digest(f"{algorithm}:{change(ABC[algorithm])}")


@pytest.mark.parametrize("algorithm", ABC)
def test_digest_error_names_expected_length(algorithm: str) -> None:
    length = str(len(ABC[algorithm]))
    with pytest.raises(UsageError, match=rf"expected {algorithm}:\[a-f0-9\]\{{{length}\}}$"):
        Digest(f"{algorithm}:abc")


def test_digest_is_str() -> None:
    digest = Digest(f"sha256:{HEX}")
    assert isinstance(digest, str)
    assert hash(digest) == hash(f"sha256:{HEX}")
    assert {f"sha256:{HEX}": 1}[digest] == 1
    assert f"{digest}" == str(digest) == f"sha256:{HEX}"
    assert type(str(digest)) is str


def test_digest_of_digest_returns_it() -> None:
    digest = Digest(f"sha256:{HEX}")
    assert Digest(digest) is digest


def test_digest_has_no_dict() -> None:
    digest: Any = Digest(f"sha256:{HEX}")
    with pytest.raises(AttributeError):
        digest.algorithm = "sha512"
    with pytest.raises(AttributeError):
        digest.other = 1


def test_pickle_and_copy_digest_are_equal() -> None:
    digest = Digest(f"sha256:{HEX}")
    for other in (pickle.loads(pickle.dumps(digest)), copy.copy(digest), copy.deepcopy(digest)):
        assert type(other) is Digest
        assert other == digest


@pytest.mark.parametrize("algorithm", ABC)
def test_hasher_returns_hash_of_algorithm(algorithm: str) -> None:
    digest = Digest(f"{algorithm}:{ABC[algorithm]}")
    hasher = digest.hasher()
    hasher.update(b"ab")
    hasher.update(b"c")
    assert hasher.hexdigest() == digest.encoded
    assert digest.hasher() is not hasher


def test_digest_unknown_algorithm_is_valid_but_has_no_hasher() -> None:
    digest = Digest("blake3:abcd")
    with pytest.raises(UsageError, match=r"^unsupported digest algorithm 'blake3': expected one of "):
        digest.hasher()


@pytest.mark.parametrize("data", ["text", None, 5])
def test_of_other_than_bytes_raises_usage_error(data: Any) -> None:
    with pytest.raises(UsageError, match=f"^data must be bytes, .*, got {type(data).__name__}$"):
        Digest.of(data)
