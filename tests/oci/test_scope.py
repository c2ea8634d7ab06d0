"""Tests of `Scope`: parsing, set operations, and its text."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from ociwire._oci.scope import ResourceScope, Scope


def pull(name: str) -> ResourceScope:
    return ResourceScope("repository", name, "pull")


def opaque(word: str) -> ResourceScope:
    return ResourceScope(word, "", "")


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", []),
        (" \t\n", []),
        ("repository:foo/bar:pull", [pull("foo/bar")]),
        ("repository:foo/bar:push,pull", [pull("foo/bar"), ResourceScope("repository", "foo/bar", "push")]),
        ("registry:catalog:*", [ResourceScope("registry", "catalog", "*")]),
        (
            "repository:foo/bar:pull registry:catalog:*",
            [ResourceScope("registry", "catalog", "*"), pull("foo/bar")],
        ),
        ("repository(plugin):a:pull", [ResourceScope("repository(plugin)", "a", "pull")]),
        ("repository:a:pull,pull repository:a:pull", [pull("a")]),
        # a name may contain colons: the actions follow the last one
        ("repository:localhost:5000/a:pull", [pull("localhost:5000/a")]),
        ("repository:a:b:c:pull", [pull("a:b:c")]),
    ],
)
def test_parse_well_formed_text_returns_members(text: str, members: list[ResourceScope]) -> None:
    assert list(Scope.parse(text)) == members


@pytest.mark.parametrize(
    "word", ["*", "openid", "a:b", ":", "::", ":b:c", "a::c", "a:b:", "a:b:,", "a:b:c,,d", "a:b:,c", "a,b", "é"]
)
def test_parse_malformed_word_is_kept(word: str) -> None:
    scope = Scope.parse(f"repository:z:pull {word}")
    assert opaque(word) in scope
    assert len(list(scope)) == 2
    assert str(scope) == f"repository:z:pull {word}"
    assert word in str(scope.canonical()).split()


@pytest.mark.parametrize(
    "text", ["", "  ", "repository:b:push,pull  repository:a:pull", " x ", "repository:a:pull\nrepository:a:pull"]
)
def test_str_returns_parsed_text(text: str) -> None:
    assert str(Scope.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("repository:b:push,pull repository:a:pull", "repository:a:pull repository:b:pull,push"),
        ("repository:a:push repository:a:delete,pull", "repository:a:delete,pull,push"),
        ("repository:a:pull registry:catalog:*", "registry:catalog:* repository:a:pull"),
        ("zzz repository:a:pull openid", "openid repository:a:pull zzz"),
        ("x  x   x", "x"),
    ],
)
def test_canonical_sorts_and_merges_words(text: str, canonical: str) -> None:
    scope = Scope.parse(text)
    assert str(scope.canonical()) == canonical
    assert scope.canonical() == scope
    assert str(scope) == text, "the original keeps its text"


def test_scope_of_members_has_canonical_text() -> None:
    members = [ResourceScope("repository", "a", "push"), pull("b"), pull("a")]
    assert str(Scope(members)) == "repository:a:pull,push repository:b:pull"
    assert Scope(members) == Scope.parse("repository:b:pull repository:a:push,pull")


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        (("pull",), "repository:foo/bar:pull"),
        (("push", "pull"), "repository:foo/bar:push,pull"),
        ((), ""),
    ],
)
def test_repository_returns_scope_of_actions(actions: tuple[str, ...], text: str) -> None:
    scope = Scope.repository("foo/bar", *actions)
    assert str(scope) == text
    assert {member.action for member in scope} == set(actions)


def test_catalog_text_and_members() -> None:
    assert str(Scope.CATALOG) == "registry:catalog:*"
    assert list(Scope.CATALOG) == [ResourceScope("registry", "catalog", "*")]


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (pull("a/b"), "repository:a/b:pull"),
        (ResourceScope("registry", "catalog", "*"), "registry:catalog:*"),
        (opaque("openid"), "openid"),
    ],
)
def test_resource_scope_str_is_its_word(member: ResourceScope, text: str) -> None:
    assert str(member) == text


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        # the left text, then the additions of the right one in its order
        ("repository:b:push", "repository:a:pull", "repository:b:push repository:a:pull"),
        ("repository:a:pull", "z repository:b:pull y", "repository:a:pull z repository:b:pull y"),
        # the missing actions of a word
        ("repository:a:pull", "repository:a:push,pull,delete", "repository:a:pull repository:a:push,delete"),
        ("x  y", "y z", "x  y z"),
        # nothing to add: the left text is unchanged
        ("repository:a:push,pull", "repository:a:pull", "repository:a:push,pull"),
        ("repository:a:pull", "", "repository:a:pull"),
        # the left scope is empty
        ("", "repository:a:push,pull", "repository:a:push,pull"),
        ("", "", ""),
        # no duplicates
        ("x", "y y repository:a:pull,pull repository:a:pull", "x y repository:a:pull"),
    ],
)
def test_union_text_appends_additions(left: str, right: str, text: str) -> None:
    union = Scope.parse(left) | Scope.parse(right)
    assert str(union) == text
    assert set(union) == set(Scope.parse(left)) | set(Scope.parse(right))


@pytest.mark.parametrize(
    ("left", "right", "contained"),
    [
        ("repository:a:pull", "repository:a:pull,push", True),
        ("repository:a:pull,push", "repository:a:pull", False),
        ("repository:a:pull", "repository:b:pull", False),
        ("repository:a:push,pull", "repository:a:pull,push", True),
        ("", "repository:a:pull", True),
        ("", "", True),
        ("x", "x y", True),
        # "*" is an action name, not a wildcard
        ("repository:a:pull", "repository:a:*", False),
    ],
)
def test_le_compares_members(left: str, right: str, contained: bool) -> None:
    assert (Scope.parse(left) <= Scope.parse(right)) is contained
    assert (Scope.parse(right) >= Scope.parse(left)) is contained


def test_contains_member() -> None:
    scope = Scope.parse("repository:a:pull x")
    assert pull("a") in scope
    assert ("repository", "a", "pull") in scope
    assert opaque("x") in scope
    assert pull("b") not in scope


def test_equality_and_hash_ignore_text() -> None:
    left, right = Scope.parse("repository:a:push,pull  x"), Scope.parse("x repository:a:pull repository:a:push")
    assert left == right
    assert hash(left) == hash(right)
    assert str(left) != str(right)
    assert left != Scope.parse("x")
    assert left != "repository:a:push,pull  x"


def test_iter_is_sorted_without_duplicates() -> None:
    scope = Scope.parse("repository:b:pull repository:a:push,pull,pull registry:catalog:* repository:b:pull")
    assert [str(member) for member in scope] == [
        "registry:catalog:*",
        "repository:a:pull",
        "repository:a:push",
        "repository:b:pull",
    ]


def test_bool_only_empty_scope_is_false() -> None:
    assert not Scope.EMPTY
    assert not Scope.parse("  ")
    assert Scope.parse("x")
    assert Scope.UNLIMITED


def test_unlimited_contains_every_scope() -> None:
    assert Scope.CATALOG <= Scope.UNLIMITED
    assert Scope.EMPTY <= Scope.UNLIMITED
    assert Scope.UNLIMITED <= Scope.UNLIMITED
    assert not Scope.UNLIMITED <= Scope.CATALOG
    assert pull("anything") in Scope.UNLIMITED
    assert Scope.UNLIMITED != Scope.EMPTY


@pytest.mark.parametrize("right", [Scope.EMPTY, Scope.CATALOG, Scope.UNLIMITED, Scope.parse("x")])
def test_unlimited_union_is_unlimited(right: Scope) -> None:
    assert Scope.UNLIMITED | right == Scope.UNLIMITED
    assert right | Scope.UNLIMITED == Scope.UNLIMITED
    assert str(right | Scope.UNLIMITED) == "*"


def test_unlimited_has_no_members() -> None:
    assert list(Scope.UNLIMITED) == []
    assert str(Scope.UNLIMITED) == "*"
    assert Scope.UNLIMITED.canonical() == Scope.UNLIMITED


def test_parse_star_is_not_unlimited() -> None:
    assert Scope.parse("*") != Scope.UNLIMITED
    assert ResourceScope("registry", "catalog", "pull") not in Scope.parse("*")


@pytest.mark.parametrize("scope", [Scope.EMPTY, Scope.UNLIMITED, Scope.CATALOG, Scope.parse("b  a repository:a:b")])
def test_pickle_and_copy_scope_are_equal(scope: Scope) -> None:
    every_protocol = [pickle.loads(pickle.dumps(scope, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for duplicate in (*every_protocol, copy.copy(scope), copy.deepcopy(scope)):
        assert duplicate == scope
        assert hash(duplicate) == hash(scope)
        assert str(duplicate) == str(scope)
        assert bool(duplicate) == bool(scope)


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (Scope.parse("repository:a:pull"), "Scope.parse('repository:a:pull')"),
        (Scope.EMPTY, "Scope.parse('')"),
        (Scope.UNLIMITED, "Scope.UNLIMITED"),
    ],
)
def test_repr_evaluates_to_scope(scope: Scope, text: str) -> None:
    assert repr(scope) == text
    assert eval(text, {"Scope": Scope}) == scope


def test_scope_has_no_dict() -> None:
    scope: Any = Scope.parse("x")
    with pytest.raises(AttributeError):
        scope.text = "y"


@pytest.mark.parametrize("right", [3, None, "repository:a:pull", frozenset()])
def test_scope_with_other_type_raises_type_error(right: Any) -> None:
    scope = Scope.parse("repository:a:pull")
    with pytest.raises(TypeError):
        scope <= right  # noqa: B015
    with pytest.raises(TypeError):
        scope | right
