"""Tests of `Headers`: kept order, case and repetition, refused names and values, and masked secrets."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from ociwire._http.headers import SENSITIVE_HEADERS, Headers, content_length
from ociwire.errors import UsageError

LINKS = [("Link", "<a>"), ("X-One", "1"), ("link", "<b>"), ("LINK", "<c>")]


@pytest.mark.parametrize(
    "fields",
    [
        {"Accept": "a", "Range": "b"},
        [("Accept", "a"), ("Range", "b")],
        iter([("Accept", "a"), ("Range", "b")]),
        (["Accept", "a"], ["Range", "b"]),
        MappingProxyType({"Accept": "a", "Range": "b"}),
        Headers({"Accept": "a", "Range": "b"}),
    ],
    ids=["dict", "pairs", "iterator", "lists", "mapping", "Headers"],
)
def test_headers_from_mapping_or_pairs(fields: Any) -> None:
    assert list(Headers(fields).items()) == [("Accept", "a"), ("Range", "b")]


def test_headers_without_arguments_are_empty() -> None:
    headers = Headers()
    assert len(headers) == 0
    assert not headers
    assert list(headers) == list(headers.items()) == []


def test_lookup_is_case_insensitive() -> None:
    headers = Headers({"Content-Type": "a/b"})
    assert headers["content-type"] == headers["CONTENT-TYPE"] == headers.get("cOnTeNt-tYpE") == "a/b"
    assert "CONTENT-type" in headers
    assert headers.get_all("content-TYPE") == ("a/b",)


def test_getitem_repeated_name_joins_values() -> None:
    headers = Headers(LINKS)
    assert headers["Link"] == headers.get("link") == "<a>, <b>, <c>"
    assert headers.get_all("Link") == ("<a>", "<b>", "<c>")
    assert headers.get_all("X-One") == ("1",)


def test_lookup_missing_name_returns_default() -> None:
    headers = Headers(LINKS)
    assert headers.get("x-two") is None
    assert headers.get("x-two", "2") == "2"
    assert headers.get_all("x-two") == ()
    assert "x-two" not in headers
    assert 3 not in headers
    with pytest.raises(KeyError):
        headers["x-two"]


def test_items_keep_order_case_and_repetition() -> None:
    items = Headers(LINKS).items()
    assert list(items) == LINKS
    assert len(items) == 4


def test_items_contain_each_item() -> None:
    items = Headers(LINKS).items()
    assert [pair for pair in LINKS if pair not in items] == []
    assert ("Link", "<d>") not in items
    assert ("X-Two", "1") not in items


def test_iter_yields_distinct_names() -> None:
    headers = Headers(LINKS)
    assert [name.lower() for name in headers] == ["link", "x-one"]
    assert len(headers) == 2
    assert {name.lower(): value for name, value in dict(headers).items()} == {"link": "<a>, <b>, <c>", "x-one": "1"}


def test_headers_are_immutable_mapping() -> None:
    headers: Any = Headers({"A": "1"})
    assert isinstance(headers, Mapping)
    with pytest.raises(TypeError):
        headers["A"] = "2"
    with pytest.raises(TypeError):
        del headers["A"]
    with pytest.raises(AttributeError):
        headers.other = 1


def test_headers_source_changed_afterwards_keep_values() -> None:
    fields = {"A": "1"}
    headers = Headers(fields)
    fields["B"] = "2"
    assert list(headers) == list(Headers({"A": "1"}))


def test_equality_ignores_name_case_but_not_order_or_values() -> None:
    headers = Headers([("A", "x"), ("B", "y")])
    assert headers == Headers([("a", "x"), ("b", "y")])
    assert hash(headers) == hash(Headers([("a", "x"), ("b", "y")]))
    assert headers != Headers([("B", "y"), ("A", "x")])
    assert headers != Headers([("A", "X"), ("B", "y")])
    assert Headers([("A", "x, y")]) != Headers([("A", "x"), ("A", "y")])
    assert headers != {"A": "x", "B": "y"}


def test_updated_replaces_adds_and_removes() -> None:
    headers = Headers([*LINKS, ("Range", "x")])
    other = headers.updated({"link": "<d>", "Accept": "*/*", "RANGE": None, "Absent": None})
    assert dict(other.items()) == {"X-One": "1", "link": "<d>", "Accept": "*/*"}
    assert list(headers.items()) == [*LINKS, ("Range", "x")]


def test_updated_invalid_value_raises_usage_error() -> None:
    with pytest.raises(UsageError):
        Headers().updated({"A": "1\r\nB: 2"})


@pytest.mark.parametrize("name", ["A", "x-1", "!#$%&'*+-.^_`|~09Az"])
def test_name_token_is_accepted(name: str) -> None:
    assert Headers({name: "1"})[name] == "1"


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a\n", " a", "é", "a\0", "(a)", "a/b", None, 5, b"a"])
def test_name_not_a_token_raises_usage_error(name: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid header name .*: expected letters, digits and ") as caught:
        Headers([(name, "secret")])
    assert repr(name) in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "stripped"),
    [("", ""), ("a b", "a b"), ("é", "é"), ("\xff", "\xff"), ("a\tb", "a\tb"), (" \ta \t", "a")],
)
def test_value_is_stripped_of_whitespace(value: str, stripped: str) -> None:
    assert Headers({"A": value})["A"] == stripped


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("secret\n", "CR, LF or NUL"),
        ("secret\r", "CR, LF or NUL"),
        ("\0secret", "CR, LF or NUL"),
        ("secret\r\nHost: evil", "CR, LF or NUL"),
        ("secret €", "latin-1"),
        ("secret \ud800", "latin-1"),
        (b"secret", "a str, got bytes"),
        (["secret"], "a str, got list"),
        (None, "a str, got NoneType"),
        (5, "a str, got int"),
    ],
)
def test_value_that_cannot_be_sent_raises_usage_error(value: Any, rule: str) -> None:
    with pytest.raises(UsageError, match=rf"^invalid value of the header X-Name: expected .*{rule}") as caught:
        Headers({"X-Name": value})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        5,
        "Authorization: secret",
        ["Authorization: secret"],
        [("A",)],
        [("A", "secret", "c")],
        [None],
        b"ab",
        object(),
    ],
    ids=lambda fields: type(fields).__name__,
)
def test_headers_from_unsupported_type_raise_usage_error(fields: Any) -> None:
    with pytest.raises(UsageError, match="mapping, or pairs") as caught:
        Headers(fields)
    assert "secret" not in str(caught.value)


def test_received_control_characters_are_kept() -> None:
    headers = Headers.received([("Warning", "299 - \x01"), ("A", "1"), ("a", "2")])
    assert headers["a"] == "1, 2"
    assert headers["warning"] == "299 - \x01"


@pytest.mark.parametrize("name", ["Authorization", "PROXY-AUTHORIZATION", "cookie", "Set-Cookie"])
def test_repr_secret_header_is_masked(name: str) -> None:
    headers = Headers([("Accept", "a/b"), (name, "secret"), (name.lower(), "secret")])
    for text in (repr(headers), str(headers), repr(headers.items()), repr(headers.values()), repr(headers.keys())):
        assert "secret" not in text
    assert repr(headers) == f"Headers([('Accept', 'a/b'), ({name!r}, '***'), ({name.lower()!r}, '***')])"
    assert headers[name] == "secret, secret"


def test_secret_headers_list() -> None:
    assert {"authorization", "proxy-authorization", "cookie", "set-cookie"} == SENSITIVE_HEADERS


def test_pickle_and_copy_keep_fields() -> None:
    headers = Headers([*LINKS, ("Authorization", "secret")])
    for other in (pickle.loads(pickle.dumps(headers)), copy.copy(headers), copy.deepcopy(headers)):
        assert type(other) is Headers
        assert list(other.items()) == list(headers.items())
        assert other["link"] == "<a>, <b>, <c>"


@pytest.mark.parametrize(
    ("values", "length"),
    [
        (["5"], 5),
        (["5", "5"], 5),
        (["5, 5"], 5),
        (["5,\t5 ", "5"], 5),
        (["5", "6"], None),
        (["5, 6"], None),
        (["5,"], None),
        (["5", ""], None),
        (["x", "x"], None),
        (["5", "05"], None),
        ([], None),
    ],
)
def test_content_length_equal_repeats_count_once(values: list[str], length: int | None) -> None:
    assert content_length(Headers([("Content-Length", value) for value in values])) == length


def test_content_length_with_transfer_encoding_is_none() -> None:
    assert content_length(Headers({"Content-Length": "5", "Transfer-Encoding": "chunked"})) is None
