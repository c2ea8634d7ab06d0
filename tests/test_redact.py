"""Secrets are masked in whatever encoding they are repeated, and nothing else is."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire import Headers, Origin
from ociwire.redact import Redactor

SECRET = 'c4n4ry+/="\\'
HOME = Origin.of("https://registry.example")
SIGNED = "https://cdn.example/blob?X-Amz-Signature=0123456789abcdef&n=5&X-Amz-Security-Token=c4n4ry%2Fc4n4ry%3D%3D&v=1"


def masked(body: bytes, headers: Headers, *, is_cut: bool = False) -> bytes:
    redactor = Redactor(HOME)
    redactor.add_headers(headers)
    return redactor.data(body, is_cut=is_cut)


# --- secret headers ---


def echoes(secret: str) -> list[str]:
    escaped = json.dumps(secret)[1:-1]
    return [secret, escaped, escaped.replace("/", "\\/")]


@pytest.mark.parametrize("name", ["Authorization", "proxy-authorization", "COOKIE", "Set-Cookie"])
@pytest.mark.parametrize("value", ["Bearer {}", "{}", "Custom {}"])
def test_a_header_s_secret_is_masked_however_it_is_repeated(name: str, value: str) -> None:
    headers = Headers({name: value.format(SECRET), "Accept": "a/b"})
    for form in echoes(SECRET):
        assert masked(f"you sent {form}, {form}; a/b".encode(), headers) == b"you sent ***, ***; a/b"


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_a_password_is_masked_and_so_is_its_encoding(scheme: str) -> None:
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    headers = Headers({"Authorization": f"{scheme} {encoded}"})
    for form in (*echoes(SECRET), *echoes(encoded)):
        assert masked(f"<{form}>".encode(), headers) == b"<***>"


def test_a_password_with_colons_is_masked_whole() -> None:
    encoded = base64.b64encode(b"me:one:two:three").decode()
    assert masked(b"<one:two:three>", Headers({"Authorization": f"Basic {encoded}"})) == b"<***>"


@pytest.mark.parametrize("separator", ["; ", ";"])
def test_the_values_of_cookies_are_masked(separator: str) -> None:
    headers = Headers({"Cookie": separator.join(("a=first-secret", "b=second=secret"))})
    assert masked(b"<first-secret> <second=secret>", headers) == b"<***> <***>"


def test_every_field_of_a_name_is_masked() -> None:
    headers = Headers([("Cookie", "a=first-secret"), ("Cookie", "b=second-secret"), ("Authorization", "Bearer third")])
    assert masked(b"first-secret second-secret third", headers) == b"*** *** ***"


def test_the_longest_secret_is_masked_first() -> None:
    headers = Headers([("Cookie", "a=abcd"), ("Authorization", "Bearer abcdefgh")])
    assert masked(b"abcdefgh abcd", headers) == b"*** ***"


@pytest.mark.parametrize("value", ["Bearer abc", "Basic !!!", "Basic gA==", "a", ""])
def test_what_is_no_secret_is_left(value: str) -> None:
    body = b"abc a Bearer Basic, and the like \xff\x00"
    assert masked(body, Headers({"Authorization": value})) == body


def test_without_secrets_nothing_changes() -> None:
    assert masked(b"body", Headers({"Accept": "body", "X-Token": "body"})) == b"body"
    assert masked(b"", Headers({"Authorization": "Bearer secret"})) == b""


@given(st.binary(), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4), st.binary())
def test_no_body_keeps_a_secret(before: bytes, secret: str, after: bytes) -> None:
    if set(secret) <= {"*"}:
        return
    shown = masked(before + secret.encode() + after, Headers({"Authorization": f"Bearer {secret}"}))
    assert secret.encode() not in shown
