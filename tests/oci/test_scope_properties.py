"""Property tests of `Scope`: set operations, and the text of the result."""

from __future__ import annotations

import copy
import pickle

from hypothesis import assume, given
from hypothesis import strategies as st

from ociwire._oci.scope import ResourceScope, Scope

# Few names, so that scopes overlap.
NAMES = st.sampled_from(["a", "b", "a/b", "h:5000/a", "a:b", "a,b", "*", "catalog", ":", "é"])
TYPES = st.sampled_from(["repository", "registry", "repository(plugin)", "x", "*", "a,b"])
ACTIONS = st.lists(st.sampled_from(["pull", "push", "delete", "*", "é"]), min_size=1, max_size=4).map(",".join)
WELL_FORMED = st.builds("{}:{}:{}".format, TYPES, NAMES, ACTIONS)
OPAQUE = st.sampled_from(["*", "openid", ":", "::", "a:b", "a:b:", ":a:b", "a:b:c,,d", ",", "a:b:,", "repository", "é"])
ANYTHING = st.text(min_size=1, max_size=6).filter(lambda text: len(text.split()) == 1)
SPACES = st.text(" \t\n\u2003", min_size=1, max_size=3)


@st.composite
def texts(draw: st.DrawFn) -> str:
    words = draw(st.lists(st.one_of(WELL_FORMED, OPAQUE, ANYTHING), max_size=5))
    return "".join(f"{draw(SPACES) if number else ''}{word}" for number, word in enumerate(words))


LIMITED = st.one_of(
    texts().map(Scope.parse),
    texts().map(lambda text: Scope(Scope.parse(text))),
    st.sampled_from([Scope.EMPTY, Scope.CATALOG, Scope.parse(" \n"), Scope.repository("a", "push", "pull")]),
)
SCOPES = st.one_of(LIMITED, st.just(Scope.UNLIMITED))
MEMBERS = st.builds(ResourceScope, TYPES, NAMES, st.sampled_from(["pull", "push"]))


@given(SCOPES, SCOPES)
def test_union_is_commutative(a: Scope, b: Scope) -> None:
    assert a | b == b | a
    assert hash(a | b) == hash(b | a)


@given(SCOPES, SCOPES, SCOPES)
def test_union_is_associative(a: Scope, b: Scope, c: Scope) -> None:
    assert (a | b) | c == a | (b | c)
    assert str((a | b) | c).split() == str(a | (b | c)).split() or a | b == Scope.UNLIMITED or b | c == Scope.UNLIMITED


@given(SCOPES)
def test_union_with_itself_or_empty_is_unchanged(a: Scope) -> None:
    assert a | a == a | Scope.EMPTY == Scope.EMPTY | a == a
    assert str(a | a) == str(a)
    assert str(Scope.EMPTY | a) == (str(a) if a else "")


@given(LIMITED, LIMITED)
def test_union_has_members_of_both(a: Scope, b: Scope) -> None:
    assert set(a | b) == set(a) | set(b)


@given(SCOPES)
def test_unlimited_union_is_unlimited(a: Scope) -> None:
    assert a | Scope.UNLIMITED == Scope.UNLIMITED | a == Scope.UNLIMITED


@given(SCOPES, SCOPES, SCOPES)
def test_union_is_least_upper_bound(a: Scope, b: Scope, c: Scope) -> None:
    assert a <= a | b
    assert b <= a | b
    assert (a | b <= c) == (a <= c and b <= c)
    assert a | b <= a | b | c


@given(SCOPES, SCOPES, SCOPES)
def test_le_is_partial_order(a: Scope, b: Scope, c: Scope) -> None:
    assert a <= a
    assert (a <= b and b <= a) == (a == b)
    assert a != b or hash(a) == hash(b)
    assert not (a <= b and b <= c) or a <= c
    assert Scope.EMPTY <= a <= Scope.UNLIMITED
    assert (a >= Scope.UNLIMITED) == (a == Scope.UNLIMITED)


@given(SCOPES, SCOPES)
def test_le_equals_union_changes_nothing(a: Scope, b: Scope) -> None:
    assert (a <= b) == (a | b == b)
    assert (a <= b) == (b >= a)


@given(LIMITED, LIMITED)
def test_le_equals_all_members_contained(a: Scope, b: Scope) -> None:
    assert (a <= b) == all(member in b for member in a)


@given(LIMITED, MEMBERS)
def test_contains_agrees_with_iter(a: Scope, member: ResourceScope) -> None:
    assert (member in a) == (member in list(a))
    assert all(own in a for own in a)
    assert member in Scope.UNLIMITED


@given(LIMITED)
def test_iter_is_sorted_without_duplicates(a: Scope) -> None:
    members = list(a)
    assert members == sorted(set(members))
    assert bool(a) == bool(members)
    assert Scope(members) == Scope(reversed(members)) == a


@given(texts())
def test_parse_and_str_round_trip(text: str) -> None:
    scope = Scope.parse(text)
    assert str(scope) == text
    assert Scope.parse(str(scope)) == scope
    assert scope != Scope.UNLIMITED


@given(LIMITED)
def test_member_str_parses_to_member(a: Scope) -> None:
    for member in a:
        assert list(Scope.parse(str(member))) == [member]


@given(LIMITED, LIMITED)
def test_union_text_is_left_text_and_additions_of_right(a: Scope, b: Scope) -> None:
    union = a | b
    assert Scope.parse(str(union)) == union
    if not a:
        assert str(union) == str(b if b else a)
        return
    assert str(union).startswith(str(a))
    added = Scope.parse(str(union)[len(str(a)) :])
    assert set(added) == set(b) - set(a)


@given(LIMITED, LIMITED)
def test_union_text_keeps_order_of_right(a: Scope, b: Scope) -> None:
    assume(a)
    added = str(a | b)[len(str(a)) :].split()
    in_order = [member for word in str(b).split() for member in _members_in_order(word) if member not in a]
    assert [member for word in added for member in _members_in_order(word)] == list(dict.fromkeys(in_order))


def _members_in_order(word: str) -> list[ResourceScope]:
    """Return the members of a word in their order."""
    members = list(Scope.parse(word))
    actions = word.rpartition(":")[2].split(",")
    return sorted(members, key=lambda member: actions.index(member.action) if member.action else 0)


@given(SCOPES, SCOPES)
def test_canonical_text_identifies_set(a: Scope, b: Scope) -> None:
    assert a.canonical() == a
    assert str(a.canonical().canonical()) == str(a.canonical())
    assume(Scope.UNLIMITED not in (a, b))
    assert (str(a.canonical()) == str(b.canonical())) == (a == b)


@given(LIMITED)
def test_canonical_text_round_trip(a: Scope) -> None:
    text = str(a.canonical())
    assert Scope.parse(text) == a
    assert text == " ".join(text.split())
    assert sum(len(_members_in_order(word)) for word in text.split()) == len(list(a)), "each member appears once"


@given(SCOPES)
def test_pickle_and_deepcopy_are_equal(a: Scope) -> None:
    for other in (pickle.loads(pickle.dumps(a)), copy.deepcopy(a)):
        assert other == a
        assert str(other) == str(a)
