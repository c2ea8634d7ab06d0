"""Tests of `Redactor`: secrets are masked in any encoding, and other text is not changed."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire import Headers, Origin, Request, RequestInfo
from ociwire._http.messages import redactor_of, with_redactor
from ociwire._http.redact import Redactor
from ociwire.auth import Credential
from ociwire.errors import DigestMismatch, ProtocolError, RegistryError
from tests._support.leaks import ENCODINGS

SECRET = 'c4n4ry+/="\\'
HOME = Origin.of("https://registry.example")
SIGNED = "https://cdn.example/blob?X-Amz-Signature=0123456789abcdef&digest=sha256:abcdef&v=1234567&t=c4n4ry%2Fc4n4ry"


def mask(body: bytes, headers: Headers, *, is_truncated: bool = False) -> bytes:
    redactor = Redactor(HOME)
    redactor.add_headers(headers)
    return redactor.redact_bytes(body, is_truncated=is_truncated)


# --- secret headers ---


def repetitions(secret: str) -> list[str]:
    escaped = json.dumps(secret)[1:-1]
    return [secret, escaped, escaped.replace("/", "\\/")]


@pytest.mark.parametrize("name", ["Authorization", "proxy-authorization", "COOKIE", "Set-Cookie"])
@pytest.mark.parametrize("value", ["Bearer {}", "{}", "Custom {}"])
def test_redact_bytes_secret_header_value_is_masked(name: str, value: str) -> None:
    headers = Headers({name: value.format(SECRET), "Accept": "a/b"})
    for form in repetitions(SECRET):
        assert mask(f"you sent {form}, {form}; a/b".encode(), headers) == b"you sent ***, ***; a/b"


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_redact_bytes_basic_password_and_its_encoding_are_masked(scheme: str) -> None:
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    headers = Headers({"Authorization": f"{scheme} {encoded}"})
    for form in (*repetitions(SECRET), *repetitions(encoded)):
        assert mask(f"<{form}>".encode(), headers) == b"<***>"


def test_redact_bytes_password_with_colons_is_masked() -> None:
    encoded = base64.b64encode(b"me:one:two:three").decode()
    assert mask(b"<one:two:three>", Headers({"Authorization": f"Basic {encoded}"})) == b"<***>"


@pytest.mark.parametrize("separator", ["; ", ";"])
def test_redact_bytes_cookie_values_are_masked(separator: str) -> None:
    headers = Headers({"Cookie": separator.join(("a=first-secret", "b=second=secret"))})
    assert mask(b"<first-secret> <second=secret>", headers) == b"<***> <***>"


def test_redact_bytes_repeated_secret_headers_are_all_masked() -> None:
    headers = Headers([("Cookie", "a=first-secret"), ("Cookie", "b=second-secret"), ("Authorization", "Bearer third")])
    assert mask(b"first-secret second-secret third", headers) == b"*** *** ***"


def test_redact_bytes_secret_within_longer_secret_is_masked_once() -> None:
    headers = Headers([("Cookie", "a=abcd"), ("Authorization", "Bearer abcdefgh")])
    assert mask(b"abcdefgh abcd", headers) == b"*** ***"


@pytest.mark.parametrize("value", ["Bearer abc", "Basic !!!", "Basic gA==", "a", ""])
def test_redact_bytes_short_or_invalid_secret_is_not_masked(value: str) -> None:
    body = b"abc a Bearer Basic, and the like \xff\x00"
    assert mask(body, Headers({"Authorization": value})) == body


def test_redact_bytes_without_secrets_is_unchanged() -> None:
    assert mask(b"body", Headers({"Accept": "body", "X-Token": "body"})) == b"body"
    assert mask(b"", Headers({"Authorization": "Bearer secret"})) == b""


@given(st.binary(), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4), st.binary())
def test_redact_bytes_any_body_with_secret_is_masked(before: bytes, secret: str, after: bytes) -> None:
    if set(secret) <= {"*"}:
        return
    shown = mask(before + secret.encode() + after, Headers({"Authorization": f"Bearer {secret}"}))
    assert secret.encode() not in shown


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize(
    "secret",
    [
        SECRET,
        "a b+c/d",
        "p\xe4ss\N{SNOWMAN}w\N{GRINNING FACE}rd",
        "plain-secret",
        "two\nlines\tand",
        "<&'\">%41&amp;",
        r"C:\new\u0041",
    ],
)
def test_redact_text_credential_in_any_encoding_is_masked(secret: str, encode: Any) -> None:
    redactor = Redactor(HOME)
    redactor.add(Credential(username="me", password=secret))
    assert redactor.redact_text(f"it says ({encode(secret)}) and no more") == "it says (***) and no more"


@pytest.mark.parametrize("length", [16, 17, 40, 4000])
def test_redact_text_long_secret_cut_by_a_quote_is_masked(length: int) -> None:
    secret = "".join(f"{number:04x}" for number in range(2000))
    redactor = Redactor(HOME)
    redactor.add(Credential(registry_token=secret))
    assert redactor.redact_text(f"got '{secret[:length]}'") == "got '***'"


@pytest.mark.parametrize("beginning", ["c4n4", "c4n4ry+/", "c4n4ry%2", "c4n4ry\\u00", "c4n4ry&#4", "%63%34%6e%34ry%2"])
def test_redact_text_secret_cut_at_ellipsis_is_masked(beginning: str) -> None:
    redactor = Redactor(HOME)
    redactor.add_headers(Headers({"Authorization": f"Bearer {SECRET}"}))
    assert redactor.redact_text(f"got 'xx{beginning}… and no more") == "got 'xx***… and no more"
    assert redactor.redact_text(f"got 'xx{beginning} and no more") == f"got 'xx{beginning} and no more"


@pytest.mark.parametrize("tail", ["c", "c4n", "c4n4ry%2", "c4n4ry\\u00", "c4n4ry&#4"])
def test_redact_bytes_secret_cut_at_the_end_is_masked(tail: str) -> None:
    headers = Headers({"Authorization": f"Bearer {SECRET}"})
    assert mask(f"it says {tail}".encode(), headers, is_truncated=True) == b"it says ***"
    assert mask(f"it says {tail}".encode(), headers) == f"it says {tail}".encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://cdn.example/a?b=c, d", "see https://cdn.example/a?*** d"),
        ('<a href="https://cdn.example/a?b=c&amp;d=e">x</a>', '<a href="https://cdn.example/a?***">x</a>'),
        (r'{"m": "see \"https://cdn.example/a?b=c\u0026d=e\" now"}', r'{"m": "see \"https://cdn.example/a?***\" now"}'),
        (r"https:\/\/cdn.example\/a?b=c", r"https:\/\/cdn.example\/a?***"),
        ("u=https%3A%2F%2Fcdn.example%2Fa%3Fb%3Dc d", "u=https%3A%2F%2Fcdn.example%2Fa%3F*** d"),
        ("//cdn.example/a?b", "//cdn.example/a?***"),
        ("s3://bucket/a?b", "s3://bucket/a?***"),
        ("http://registry.example/a?b=c", "http://registry.example/a?***"),
        ("https://registry.example:444/a?b=c", "https://registry.example:444/a?***"),
        ("https://registry.example.evil/a?b=c", "https://registry.example.evil/a?***"),
        (
            "https://registry.example/a?u=https://cdn.example/b?c=d",
            "https://registry.example/a?u=https://cdn.example/b?***",
        ),
        ("/a?X-Amz-Signature=0123456789&n=1", "/a?X-Amz-Signature=***&n=1"),
        ("/a?n=1&amp;sig=0123456789", "/a?n=1&amp;sig=***"),
        ("https://registry.example/a?sig=0123456789&n=5", "https://registry.example/a?sig=***&n=5"),
    ],
)
def test_redact_text_cross_origin_or_signed_query_is_masked(text: str, expected: str) -> None:
    assert Redactor(HOME).redact_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "what? // nothing",
        "https://registry.example/v2/a/tags/list?n=5&last=b",
        "HTTPS://REGISTRY.EXAMPLE/a?b=c",
        "https://cdn.example/path/without/query",
        "/v2/a?_state=0123456789",
        "sig=short",
        "design=0123456789",
        "100 %, 50%zz, \\ and & and &unknown; and \\u12",
    ],
)
def test_redact_text_without_secret_returns_same_object(text: str) -> None:
    assert Redactor(HOME).redact_text(text) is text


def test_redact_text_values_of_signed_url_of_eight_characters_are_masked() -> None:
    redactor = Redactor(HOME)
    redactor.add_request(Request("GET", SIGNED))
    text = "0123456789abcdef c4n4ry%2fc4n4ry c4n4ry/c4n4ry 1234567 sha256:abcdef"
    assert redactor.redact_text(text) == "*** *** *** 1234567 sha256:abcdef"


def test_redact_text_same_origin_query_value_is_masked_only_if_signature() -> None:
    redactor = Redactor(HOME)
    redactor.add_request(Request("GET", f"{HOME}/v2/?state=0123456789&sig=abcdefghij"))
    assert redactor.redact_text("0123456789 abcdefghij") == "0123456789 ***"


def test_redact_text_json_stays_valid() -> None:
    redactor = Redactor(HOME)
    redactor.add(Credential(username="me", password=SECRET))
    value = {"m": f'"{SECRET}" and {SIGNED}', "n": [SECRET, f"<a href='{SIGNED}'>"]}
    for text in (json.dumps(value), json.dumps(value).replace("/", r"\/"), json.dumps(value).replace("&", r"\u0026")):
        assert set(json.loads(redactor.redact_text(text))) == {"m", "n"}


def test_redact_error_cause_with_secret_is_removed() -> None:
    request = Request("GET", f"{HOME}/", {"Authorization": f"Bearer {SECRET}"})
    for text, is_kept in (("harmless", True), (f"b'{SECRET}'", False), (quote(SECRET), False)):
        error = ProtocolError("wrong", request=request)
        error.__cause__ = error.__context__ = OSError(text)
        redactor_of(request).redact_error(error)
        assert (error.__cause__ is not None) is (error.__context__ is not None) is is_kept


def test_redact_error_of_other_library_is_not_changed() -> None:
    request = Request("GET", f"{HOME}/", {"Authorization": f"Bearer {SECRET}"})
    outer = ValueError(SECRET)
    error = DigestMismatch(SECRET, actual=SECRET)
    error.__context__ = outer
    redactor_of(request).redact_error(error)
    assert (str(error), error.actual, outer.args) == ("***", "***", (SECRET,))


def test_redact_error_deeply_nested_detail_is_masked() -> None:
    detail: Any = SECRET
    for _ in range(500):
        detail = [detail]
    error = RegistryError("x", detail=detail, request=Request("GET", f"{HOME}/", {"Cookie": f"a={SECRET}"}))
    assert SECRET not in repr(error.detail)


def test_with_redactor_is_kept_by_copies_but_not_pickled() -> None:
    request = with_redactor(Request("GET", f"{HOME}/", info=RequestInfo(operation="x")))
    redactor = request.info._redactor
    assert redactor is not None
    changed = request.with_headers({"A": "b"}).replace(info=request.info.replace(anonymous=True))
    assert changed.info._redactor is redactor
    assert with_redactor(changed) is changed
    assert pickle.loads(pickle.dumps(changed)).info._redactor is None
    assert changed.info == RequestInfo(operation="x", anonymous=True)


@given(st.binary(), st.booleans())
def test_redact_bytes_any_bytes_are_accepted(data: bytes, is_truncated: bool) -> None:
    redactor = Redactor(HOME)
    redactor.add_request(Request("GET", SIGNED, {"Authorization": "Bearer c4n4ry"}))
    assert b"c4n4ry" not in redactor.redact_bytes(data + b" c4n4ry", is_truncated=is_truncated)


@pytest.mark.parametrize(
    "piece", ["a", "/", "//", "?", "//?", f"{HOME}/?", "%", "%41", "\\u0041", "&amp;", "sig=", "a:", "=", "\\"]
)
def test_redact_text_64_kib_of_worst_case_input_is_masked(piece: str) -> None:
    redactor = Redactor(HOME)
    redactor.add(Credential(registry_token="a" * 65536))
    redactor.add(Credential(username="me", password="%\\&<>"))
    text = f"https://registry.example/a?{piece * (65536 // len(piece))}"
    assert redactor.redact_text(f"{text} c {SIGNED}").endswith(" c https://cdn.example/blob?***")


def test_redact_text_latin_1_secret_within_utf_8_characters_is_masked() -> None:
    redactor = Redactor(HOME)
    redactor.add(Credential(username="me", password="\xa9\xc3\xa9\xc3"))
    assert "***" in redactor.redact_text("\xe9\xe9\xe9\xe9")


class LeaseError(RegistryError):
    """Error class of a user, with an additional attribute."""

    def __init__(self, message: str, *, lease: str, **attributes: Any) -> None:
        super().__init__(message, **attributes)
        self.lease = lease


def test_redact_error_users_subclass_keeps_own_attributes() -> None:
    request = Request("GET", f"{HOME}/", {"Authorization": f"Bearer {SECRET}"})
    error = LeaseError(f"refused {SECRET}", lease=SECRET, body=SECRET.encode(), detail=[SECRET])
    redactor_of(request).redact_error(error)
    assert error.lease == SECRET
    assert (str(error), error.message, error.args) == ("refused ***", "refused ***", ("refused ***",))
    assert (error.body, error.detail) == (b"***", ["***"])
    error.request = request
    assert error.lease == SECRET
    assert error.request is not None
    assert "authorization" not in error.request.headers


@pytest.mark.parametrize(("lease", "is_kept"), [("harmless", True), (SECRET, False)])
def test_redact_error_cause_of_users_subclass_is_unchanged_or_removed(lease: str, is_kept: bool) -> None:
    request = Request("GET", f"{HOME}/", {"Authorization": f"Bearer {SECRET}"})
    cause = LeaseError("refused", lease=lease)
    error = ProtocolError("wrong", request=request)
    error.__cause__ = cause
    redactor_of(request).redact_error(error)
    assert cause.lease == lease
    assert (error.__cause__ is cause) is is_kept
