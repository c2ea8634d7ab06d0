"""Tests of `Reference`: parsing as `docker pull` does it, repository names and tags."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from ociwire._oci.digest import Digest
from ociwire._oci.reference import DOCKER_HUB, Reference, check_repository, check_tag
from ociwire.errors import UsageError

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        # Docker Hub: no host
        ("alpine", "docker.io", "library/alpine", None, None),
        ("alpine:3.20", "docker.io", "library/alpine", "3.20", None),
        (f"alpine@{DIGEST}", "docker.io", "library/alpine", None, DIGEST),
        (f"alpine:3.20@{DIGEST}", "docker.io", "library/alpine", "3.20", DIGEST),
        ("team/app", "docker.io", "team/app", None, None),
        ("team/group/app:x", "docker.io", "team/group/app", "x", None),
        ("docker.io/alpine", "docker.io", "library/alpine", None, None),
        ("docker.io/library/alpine", "docker.io", "library/alpine", None, None),
        ("docker.io/team/app", "docker.io", "team/app", None, None),
        ("index.docker.io/alpine", "docker.io", "library/alpine", None, None),
        ("index.docker.io/team/app:1", "docker.io", "team/app", "1", None),
        # a host has a dot or a colon, is localhost, or is not in lower case
        ("ghcr.io/team/app:1", "ghcr.io", "team/app", "1", None),
        ("ghcr.io/app", "ghcr.io", "app", None, None),
        ("registry:5000/app", "registry:5000", "app", None, None),
        ("localhost/app", "localhost", "app", None, None),
        ("localhost:5000/app:1", "localhost:5000", "app", "1", None),
        (f"localhost:5000/app@{DIGEST}", "localhost:5000", "app", None, DIGEST),
        ("my_registry:5000/app", "my_registry:5000", "app", None, None),
        ("my_registry.corp/app", "my_registry.corp", "app", None, None),
        ("Registry/app", "Registry", "app", None, None),
        ("GHCR.io/app", "GHCR.io", "app", None, None),
        ("192.0.2.1/app", "192.0.2.1", "app", None, None),
        ("[2001:db8::1]:5000/team/app:1", "[2001:db8::1]:5000", "team/app", "1", None),
        ("[::1]/app", "[::1]", "app", None, None),
        # not a host: no slash follows
        ("localhost:5000", "docker.io", "library/localhost", "5000", None),
        ("localhost", "docker.io", "library/localhost", None, None),
        ("ghcr.io", "docker.io", "library/ghcr.io", None, None),
        # only a complete image ID is refused
        (f"team/{HEX}", "docker.io", f"team/{HEX}", None, None),
        (f"ghcr.io/{HEX}", "ghcr.io", HEX, None, None),
        (f"{HEX}:1", "docker.io", f"library/{HEX}", "1", None),
        (f"{HEX}@{DIGEST}", "docker.io", f"library/{HEX}", None, DIGEST),
        (HEX[:-1], "docker.io", f"library/{HEX[:-1]}", None, None),
    ],
)
def test_parse_valid_text_returns_parts(
    text: str, host: str, repository: str, tag: str | None, digest: str | None
) -> None:
    reference = Reference.parse(text)
    assert (reference.host, reference.repository, reference.tag, reference.digest) == (host, repository, tag, digest)
    assert reference.digest is None or type(reference.digest) is Digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/app",
        "app/",
        "ghcr.io/",
        "a//b",
        "ghcr.io//app",
        ":tag",
        "@",
        f"@{DIGEST}",
        "app:",
        "app@",
        "app:1@",
        "app:1:2",
        f"app@{DIGEST}:1",
        f"app@{DIGEST}@{DIGEST}",
        "app@latest",
        f"app@sha256:{HEX[:-1]}",
        "app:-x",
        "app:.x",
        f"app:{'x' * 129}",
        "App",
        "App:1",
        "ghcr.io/App",
        "team/App",
        "app\n",
        "app:1\n",
        " app",
        "app app",
        "a_-b",
        "a..b",
        "a___b",
        "-a",
        "a-",
        "é",
        "host:port/app",
        "host:5000:5000/app",
        "host:65536/app",
        "[::g]/app",
        "https://ghcr.io/team/app",
        "oci://ghcr.io/team/app",
        "user:secret@ghcr.io/team/app",
        "ghcr.io/team/app?x=1",
        f"ghcr.io/{'a' * 256}",
        "a" * 250,
    ],
)
def test_parse_invalid_text_raises_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"^invalid ") as caught:
        Reference.parse(text)
    assert "secret" not in str(caught.value)


def test_parse_image_id_error_names_it() -> None:
    with pytest.raises(UsageError, match=r"got an image ID$"):
        Reference.parse(HEX)


def test_parse_upper_case_repository_error_says_lower_case() -> None:
    with pytest.raises(UsageError, match=r"'ghcr\.io/App'.*lower case"):
        Reference.parse("ghcr.io/App")


@pytest.mark.parametrize("value", [None, 5, b"alpine", ["alpine"], object()])
def test_parse_other_than_str_raises_usage_error(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid reference .*: expected HOST/NAME:TAG "):
        Reference.parse(value)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("alpine", "docker.io/library/alpine"),
        (f"ghcr.io/a:1@{DIGEST}", f"ghcr.io/a:1@{DIGEST}"),
        (f"Registry:5000/a/b@{DIGEST}", f"Registry:5000/a/b@{DIGEST}"),
        ("localhost/a:1", "localhost/a:1"),
    ],
)
def test_str_returns_full_reference(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full
    assert Reference.parse(full) == Reference.parse(text)


def test_reference_invalid_part_raises_usage_error() -> None:
    reference = Reference("ghcr.io", "team/app", "1", DIGEST)  # type: ignore[arg-type]
    assert type(reference.digest) is Digest
    invalid: list[dict[str, Any]] = [{"host": "a b"}, {"repository": "App"}, {"tag": "-"}, {"digest": "x"}, {"tag": ""}]
    for change in invalid:
        with pytest.raises(UsageError):
            dataclasses.replace(reference, **change)


def test_reference_is_frozen_hashable_and_picklable() -> None:
    reference: Any = Reference.parse(f"ghcr.io/team/app:1@{DIGEST}")
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference.tag = "2"
    for other in (pickle.loads(pickle.dumps(reference)), copy.copy(reference), copy.deepcopy(reference)):
        assert other == reference
        assert hash(other) == hash(reference)


def test_registry_name_docker_hub_aliases_are_docker_io() -> None:
    assert DOCKER_HUB == "docker.io"


@pytest.mark.parametrize(
    "name",
    ["a", "0", "library/alpine", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b/c/d", "a0.b1_c2__d3--e4/f", "a" * 255],
)
def test_check_repository_valid_is_accepted(name: str) -> None:
    assert check_repository(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a b",
        "a.",
        ".a",
        "a..b",
        "a___b",
        "a._b",
        "a-",
        "-a",
        "_a",
        "a:b",
        "a@b",
        "a/../b",
        "..",
        "a%2fb",
        "a?b",
        "a\n",
        "é",
        "ａ",  # noqa: RUF001 - a full-width letter, which must be refused
        "٣",
        None,
        5,
        b"a",
        ["a"],
    ],
)
def test_check_repository_invalid_raises_usage_error(name: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid repository name .*: expected components of ") as caught:
        check_repository(name)
    assert repr(name) in str(caught.value)


def test_check_repository_longer_than_255_raises_usage_error() -> None:
    with pytest.raises(UsageError, match=r"expected at most 255 characters, got 256$"):
        check_repository("a" * 256)


@pytest.mark.parametrize("tag", ["a", "A", "0", "_", "3.20", "a.b-c_d", "latest", "x" * 128, "a..b", "a-"])
def test_check_tag_valid_is_accepted(tag: str) -> None:
    assert check_tag(tag) == tag


@pytest.mark.parametrize(
    "tag", ["", ".a", "-a", "a b", "a/b", "a:b", "a@b", "é", "a\n", "a+b", "x" * 129, None, 5, b"a"]
)
def test_check_tag_invalid_raises_usage_error(tag: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid tag .*: expected 1 to 128 characters of ") as caught:
        check_tag(tag)
    assert repr(tag) in str(caught.value)
