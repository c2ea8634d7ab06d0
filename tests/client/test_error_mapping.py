"""`error_from_response` and `check_response`: the class, text and fields of errors, limits, and redaction."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire import Digest, Headers, Request, RequestInfo, Response, check_response, error_from_response, errors
from ociwire._http.headers import retry_after
from tests._support.doubles import FakeReader

BLOB = Digest.of(b"a blob")
ORIGIN = "https://registry.example"


def error_body(code: str = "", message: str = "", **fields: Any) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, **fields}]}).encode()


def request_to(method: str = "GET", path: str = "/v2/a/manifests/latest", operation: str = "") -> Request:
    return Request(method, ORIGIN + path, info=RequestInfo(operation=operation))


# --- class ---


CODES = {
    "BLOB_UNKNOWN": errors.BlobUnknown,
    "BLOB_UPLOAD_INVALID": errors.BlobUploadInvalid,
    "BLOB_UPLOAD_UNKNOWN": errors.BlobUploadUnknown,
    "DIGEST_INVALID": errors.DigestInvalid,
    "MANIFEST_BLOB_UNKNOWN": errors.ManifestBlobUnknown,
    "MANIFEST_INVALID": errors.ManifestInvalid,
    "MANIFEST_UNKNOWN": errors.ManifestUnknown,
    "NAME_INVALID": errors.NameInvalid,
    "NAME_UNKNOWN": errors.NameUnknown,
    "SIZE_INVALID": errors.SizeInvalid,
    "UNAUTHORIZED": errors.Unauthorized,
    "DENIED": errors.Denied,
    "UNSUPPORTED": errors.Unsupported,
    "TOOMANYREQUESTS": errors.TooManyRequests,
    "RANGE_INVALID": errors.RangeInvalid,
}


@pytest.mark.parametrize(("code", "kind"), CODES.items())
@pytest.mark.parametrize("status", [200, 307, 400, 409, 412, 422])
def test_error_from_response_unspecific_status_uses_code(
    code: str, kind: type[errors.RegistryError], status: int
) -> None:
    error = error_from_response(Response(status, (), error_body(code), request_to()))
    assert type(error) is kind
    assert error.code == code
    assert error.status == status


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    ("status", "matching_codes", "kind"),
    [
        (401, {"UNAUTHORIZED"}, errors.Unauthorized),
        (403, {"DENIED"}, errors.Denied),
        (
            404,
            {
                *("BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_UNKNOWN"),
                "MANIFEST_BLOB_UNKNOWN",  # in the response to a push of a manifest
                "BLOB_UPLOAD_INVALID",  # docker-registry 2.8, for an upload that it has deleted
            },
            errors.ManifestUnknown,
        ),
        (405, {"UNSUPPORTED"}, errors.Unsupported),
        (413, {"SIZE_INVALID"}, errors.SizeInvalid),
        (416, {"RANGE_INVALID"}, errors.RangeInvalid),
        (429, {"TOOMANYREQUESTS"}, errors.TooManyRequests),
        (500, {"UNSUPPORTED", "TOOMANYREQUESTS"}, errors.RegistryError),
        (501, {"UNSUPPORTED", "TOOMANYREQUESTS"}, errors.Unsupported),
        (503, {"UNSUPPORTED", "TOOMANYREQUESTS"}, errors.RegistryError),
        (524, {"UNSUPPORTED", "TOOMANYREQUESTS"}, errors.RegistryError),
    ],
)
def test_error_from_response_contradicting_code_uses_status(
    status: int, matching_codes: set[str], kind: type[errors.RegistryError], code: str
) -> None:
    error = error_from_response(Response(status, (), error_body(code, "text"), request_to()))
    assert type(error) is (CODES[code] if code in matching_codes else kind)
    assert (error.code, error.status, error.message) == (code, status, "text")


@pytest.mark.parametrize(
    ("operation", "method"),
    [
        *[
            ("push_blob", "PUT"),
            ("push_blob_chunked", "PATCH"),
            ("upload", "PATCH"),
            ("upload", "PUT"),
            ("copy", "PUT"),
        ],
        *[(name, "GET") for name in ("push_blob", "push_blob_chunked", "push_blob_chunked_resume", "upload")],
    ],
)
@pytest.mark.parametrize("path", ["/v2/a/blobs/uploads/1", "/elsewhere/1"])
def test_error_from_response_blob_unknown_of_upload_is_upload_unknown(operation: str, method: str, path: str) -> None:
    """GHCR sends BLOB_UNKNOWN for an upload that it has lost. The URL of an upload can have any path."""
    error = error_from_response(Response(404, (), error_body("BLOB_UNKNOWN"), request_to(method, path, operation)))
    assert type(error) is errors.BlobUploadUnknown


def test_registry_errors_all_have_a_code() -> None:
    by_code = {*CODES.values(), errors.NotFound}  # NotFound is raised for a 404 from any other URL
    kinds = {getattr(errors, name) for name in errors.__all__}
    assert {kind for kind in kinds if issubclass(kind, errors.RegistryError)} == {errors.RegistryError, *by_code}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthorized),
        (403, errors.Denied),
        (404, errors.NotFound),
        (405, errors.Unsupported),
        (413, errors.SizeInvalid),
        (416, errors.RangeInvalid),
        (429, errors.TooManyRequests),
        *(
            (status, errors.RegistryError)
            for status in (200, 204, 301, 307, 400, 409, 412, 418, 500, 502, 503, 599, 999)
        ),
        (501, errors.Unsupported),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"errors":[]}', error_body("BANANA"), error_body("")])
def test_error_from_response_without_known_code_uses_status(
    status: int, kind: type[errors.RegistryError], body: bytes
) -> None:
    assert type(error_from_response(Response(status, (), body))) is kind
    assert type(error_from_response(Response(status, (), body, request_to(path="/v2/")))) is kind


@pytest.mark.parametrize(
    ("method", "path", "operation", "kind"),
    [
        # by operation, because after a redirect the path is that of a CDN
        ("GET", "/some/where?X-Amz-Signature=s", "get_blob", errors.BlobUnknown),
        ("HEAD", "/some/where", "resolve_blob", errors.BlobUnknown),
        ("HEAD", f"/v2/a/blobs/{BLOB}", "resolve_blob", errors.BlobUnknown),
        # by path
        ("GET", f"/v2/a/blobs/{BLOB}", "", errors.BlobUnknown),
        ("HEAD", f"/v2/a/blobs/{BLOB}", "push_blob", errors.BlobUnknown),
        ("GET", f"/v2/a/blobs/{BLOB}?ns=docker.io", "do", errors.BlobUnknown),
        ("DELETE", f"/v2/a/b/c/blobs/{BLOB}", "", errors.BlobUnknown),
        ("GET", "/v2/a/manifests/latest", "", errors.ManifestUnknown),
        ("HEAD", f"/v2/a/manifests/{BLOB}", "", errors.ManifestUnknown),
        ("PUT", "/v2/a/manifests/latest?tag=b", "", errors.ManifestUnknown),
        ("GET", "/v2/a/blobs/manifests/latest", "", errors.ManifestUnknown),
        ("GET", f"/v2/manifests/blobs/{BLOB}", "", errors.BlobUnknown),
        ("GET", "/v2/a/tags/list", "", errors.NameUnknown),
        ("GET", "/v2/a/tags/list?n=5&last=x", "", errors.NameUnknown),
        ("GET", f"/v2/a/referrers/{BLOB}", "", errors.NameUnknown),
        # a POST fails if the repository does not exist, and other requests fail if the upload does not exist
        ("POST", "/v2/a/blobs/uploads/", "push_blob", errors.NameUnknown),
        ("POST", f"/v2/a/blobs/uploads/?mount={BLOB}&from=b/c", "", errors.NameUnknown),
        ("POST", "/v2/a/blobs/uploads", "", errors.NameUnknown),
        ("PUT", "/v2/a/blobs/uploads/5f9a?_state=x", "push_blob", errors.BlobUploadUnknown),
        ("PATCH", "/v2/a/blobs/uploads/5f9a", "", errors.BlobUploadUnknown),
        ("GET", "/v2/a/blobs/uploads/5f9a", "", errors.BlobUploadUnknown),
        ("DELETE", "/v2/a/blobs/uploads/5f9a", "", errors.BlobUploadUnknown),
        # other URLs
        ("GET", "/v2/", "", errors.NotFound),
        ("GET", "/v2/_catalog", "", errors.NotFound),
        ("GET", "/token?service=x&scope=/v2/a/manifests/latest", "", errors.NotFound),
    ],
)
def test_error_from_response_404_uses_operation_and_path(
    method: str, path: str, operation: str, kind: type[errors.NotFound]
) -> None:
    error = error_from_response(Response(404, (), b"", request_to(method, path, operation)))
    assert type(error) is kind
    assert isinstance(error, errors.NotFound)


# --- text ---


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (
            404,
            error_body("MANIFEST_UNKNOWN", "manifest (x) unknown to registry"),
            "404 Not Found: manifest unknown: manifest (x) unknown to registry",
        ),
        (404, error_body("MANIFEST_UNKNOWN"), "404 Not Found: manifest unknown"),
        (403, error_body("", "not for you"), "403 Forbidden: not for you"),
        (400, error_body("SHORT_AND_STOUT", "tip me"), "400 Bad Request: short and stout: tip me"),
        (502, b"<html>oops</html>\n", "502 Bad Gateway: '<html>oops</html>'"),
        (502, b'{"message":"no such thing"}', """502 Bad Gateway: '{"message":"no such thing"}'"""),
        (500, b'{"errors":[]}', """500 Internal Server Error: '{"errors":[]}'"""),
        (500, b"a\r\nb\x1b[2J\xff", "500 Internal Server Error: 'a\\r\\nb\\x1b[2J\N{REPLACEMENT CHARACTER}'"),
        (503, b"", "503 Service Unavailable"),
        (503, b" \r\n", "503 Service Unavailable"),
        (599, b"", "599"),
        (200, b"any", "200 OK: unexpected status"),
        (204, b"", "204 No Content: unexpected status"),
        (307, b"<a>", "307 Temporary Redirect: unexpected status"),
    ],
)
def test_error_from_response_text_has_status_code_and_message(status: int, body: bytes, text: str) -> None:
    assert str(error_from_response(Response(status, (), body))) == text


def test_error_from_response_keeps_fields_of_response() -> None:
    entries = [
        {"code": "DENIED", "message": "no", "detail": {"Tag": "x"}},
        {"code": "NAME_INVALID", "message": "too long"},
    ]
    body = json.dumps({"errors": [*entries, "text"]}).encode()
    headers = Headers([("X-Request-Id", "7")])
    error = error_from_response(Response(403, headers, body, request_to()))
    assert type(error) is errors.Denied
    assert (error.status, error.code, error.message, error.detail) == (403, "DENIED", "no", {"Tag": "x"})
    assert error.errors == tuple(entries)
    assert error.headers == headers
    assert error.body == body
    assert error.request == request_to()


def test_error_from_response_other_body_is_quoted_up_to_8_kib() -> None:
    error = error_from_response(Response(500, (), b"x" * 100_000))
    assert error.body == b"x" * 8192
    assert error.message == repr("x" * 8192)
    assert error.code == ""
    assert error.errors == ()


def test_error_from_response_json_beyond_8_kib_is_parsed_and_body_is_truncated() -> None:
    body = error_body("DENIED", "no", detail="d" * 50_000)
    error = error_from_response(Response(403, (), body))
    assert type(error) is errors.Denied
    assert error.detail == "d" * 50_000
    assert error.body == body[:8192]


# --- reading the body ---


@pytest.mark.parametrize("content", [None, b"x" * 1_000_000, error_body("DENIED", "m" * 70_000)])
@pytest.mark.parametrize("max_read", [1000, 1 << 20])
def test_error_from_response_long_body_reads_at_most_64_kib(content: bytes | None, max_read: int) -> None:
    body = FakeReader(itertools.repeat(b"x" * 8192) if content is None else content, max_read=max_read)
    error = error_from_response(Response(403, (), body))
    assert 8192 < body.bytes_read <= 64 * 1024
    assert len(error.body) == 8192
    assert len(error.message) <= 8192 + 2


def test_error_from_response_does_not_close_response() -> None:
    body = FakeReader(b"y" * 70_000)
    response = Response(500, (), body)
    error_from_response(response)
    assert not response.closed
    assert not body.closed
    assert len(response.read()) == 70_000 - 64 * 1024
    with pytest.raises(errors.RegistryError):
        check_response(response)
    assert not body.closed


def test_error_from_response_connection_lost_uses_status() -> None:
    error = error_from_response(Response(404, (), FakeReader(error=errors.ReadError("reset")), request_to()))
    assert type(error) is errors.ManifestUnknown
    assert str(error) == "404 Not Found: GET https://registry.example/v2/a/manifests/latest"


def test_error_from_response_closed_response_uses_status() -> None:
    response = Response(403, (), error_body("NAME_INVALID"))
    response.close()
    assert type(error_from_response(response)) is errors.Denied


# --- check_response ---


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_check_response_without_expected_status_accepts_2xx(status: int) -> None:
    body = FakeReader(b"content")
    check_response(Response(status, (), body))
    assert body.bytes_read == 0
    assert not body.closed


@pytest.mark.parametrize("status", [100, 199, 300, 304, 307, 400, 401, 404, 500])
def test_check_response_without_expected_status_rejects_others(status: int) -> None:
    with pytest.raises(errors.RegistryError) as caught:
        check_response(Response(status))
    assert caught.value.status == status


@pytest.mark.parametrize(("status", "ok"), [(202, (202,)), (201, (201, 202)), (404, (200, 404)), (307, (307,))])
def test_check_response_expected_status_is_accepted(status: int, ok: tuple[int, ...]) -> None:
    body = FakeReader(b"content")
    check_response(Response(status, (), body), *ok)
    assert body.bytes_read == 0


@pytest.mark.parametrize(("status", "ok"), [(200, (202,)), (204, (200, 201)), (302, (200,))])
def test_check_response_other_success_status_is_unexpected(status: int, ok: tuple[int, ...]) -> None:
    with pytest.raises(errors.RegistryError, match=f"^{status} .*unexpected status$") as caught:
        check_response(Response(status, (), b""), *ok)
    assert type(caught.value) is errors.RegistryError


def test_check_response_error_status_raises_error_of_response() -> None:
    with pytest.raises(errors.NameInvalid, match="too long"):
        check_response(Response(400, (), error_body("NAME_INVALID", "too long")), 200)


# --- Retry-After ---

NOW = 1_445_412_420.0  # Wed, 21 Oct 2015 07:27:00 GMT


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XYZ-13")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 2015 09:28:00 +0200", 60.0),
        ("Wed, 21 Oct 2015 07:26:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        # obsolete formats, which must be accepted (RFC 9110, section 5.6.7). All times are UTC
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 60.0),
        ("Wed Oct 21 07:28:00 2015", 60.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 60.0),
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_retry_after_seconds_or_date_is_parsed(value: str, seconds: float) -> None:
    assert retry_after(Headers([("Retry-After", value)]), NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "1e3",
        "+3",
        "0x10",
        "1 2",
        "99999999999999999999",
        "\xb2",
        "21 Oct",
        "Wed, 99 Oct 2015 GMT",
    ],
)
def test_retry_after_invalid_value_is_none(value: str) -> None:
    assert retry_after(Headers([("Retry-After", value)]), NOW) is None


def test_too_many_requests_has_retry_after() -> None:
    for status, body in ((429, b""), (400, error_body("TOOMANYREQUESTS"))):
        for headers, expected in (({"Retry-After": "30"}, 30.0), ({"Retry-After": "soon"}, None), ({}, None)):
            error = error_from_response(Response(status, headers, body))
            assert isinstance(error, errors.TooManyRequests)
            assert error.retry_after == expected
    error = error_from_response(Response(429, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}))
    assert isinstance(error, errors.TooManyRequests)
    assert error.retry_after is not None
    assert error.retry_after > 1e8


# --- rate limits ---


def rate_limit_error(
    headers: Headers | dict[str, str], status: int = 429, **request_headers: str
) -> errors.TooManyRequests:
    request = request_to().with_headers(request_headers)
    error = error_from_response(Response(status, headers, error_body("TOOMANYREQUESTS", "slow down"), request))
    assert isinstance(error, errors.TooManyRequests)
    return error


def test_too_many_requests_rate_limit_headers_are_quoted_with_remedy() -> None:
    """The response is that of Docker Hub to an anonymous pull beyond the limit."""
    headers = {
        "RateLimit-Limit": "100;w=21600",
        "RateLimit-Remaining": "0;w=21600",
        "docker-ratelimit-source": "192.0.2.7",
        "Retry-After": "60",
        "Content-Type": "application/json",
    }
    assert str(rate_limit_error(headers)) == (
        "429 Too Many Requests: toomanyrequests: slow down (RateLimit-Limit: 100;w=21600, RateLimit-Remaining:"
        " 0;w=21600, docker-ratelimit-source: 192.0.2.7, Retry-After: 60); wait 60 s, send fewer requests, or log in:"
        " registries allow more requests with credentials"
    )


@pytest.mark.parametrize(
    "name",
    ["X-RateLimit-Limit", "x-ratelimit-reset", "RateLimit", "RateLimit-Policy", "RATELIMIT-RESET", "X-RateLimit"],
)
def test_too_many_requests_any_rate_limit_header_is_quoted(name: str) -> None:
    assert rate_limit_error({name: "7"}).limits == f"{name}: 7"


def test_too_many_requests_without_rate_limit_headers_states_remedy() -> None:
    error = rate_limit_error({})
    assert error.limits == ""
    assert str(error).startswith("429 Too Many Requests: toomanyrequests: slow down; wait, send fewer requests, or log")


def test_too_many_requests_rate_limit_headers_are_bounded_and_sanitized() -> None:
    headers = Headers.received([(f"X-RateLimit-{n}", "\x1b[2J" + "9" * 5000) for n in range(100)])
    error = rate_limit_error(headers)
    assert len(error.limits) < 2000
    assert "\x1b" not in str(error)
    assert "X-RateLimit-7" in error.limits
    assert "X-RateLimit-8" not in error.limits


def test_too_many_requests_secret_in_rate_limit_header_is_redacted() -> None:
    error = rate_limit_error({"X-RateLimit-Key": "x" * 90 + " secret-token"}, Authorization="Bearer secret-token")
    assert "secret" not in str(error)
    assert error.limits.endswith(" ***")


def test_too_many_requests_pickled_keeps_rate_limit() -> None:
    error = rate_limit_error({"RateLimit-Limit": "1"})
    assert str(pickle.loads(pickle.dumps(error))) == str(copy.deepcopy(error)) == str(error)


MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
DAYS = rf"([A-Z][a-z]{{2}},? )?[0-9]{{1,3}}[ -]({MONTHS})[ -][0-9]{{1,6}}"
TIMES = r"[0-9]{1,3}:[0-9][0-9](:[0-9][0-9])?( GMT| [+-][0-9]{1,6}| EST|)"
DATES = st.from_regex(rf"\A{DAYS} {TIMES}\Z")
LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))


@given(value=LATIN | DATES)
def test_retry_after_any_value_does_not_raise(value: str) -> None:
    seconds = retry_after(Headers([("Retry-After", value)]), NOW)
    assert seconds is None or seconds >= 0.0


# --- invalid bodies ---

KEYS = st.sampled_from(["errors", "code", "message", "detail"]) | st.text(max_size=5)
WORDS = st.sampled_from(sorted(CODES)) | st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)
STATUSES = st.integers(100, 999)


def assert_is_valid_error(status: int, body: bytes, request: Request | None) -> None:
    error = error_from_response(Response(status, (), body, request))
    assert isinstance(error, errors.RegistryError)
    assert error.status == status
    assert isinstance(error.code, str)
    assert isinstance(error.message, str)
    assert all(isinstance(entry, dict) for entry in error.errors)
    assert str(status) in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert copy.deepcopy(error).errors == error.errors or "NaN" in body.decode("utf-8", "replace")


@given(status=STATUSES, value=JSON, request=st.none() | st.just(request_to()))
def test_error_from_response_any_json_returns_error(status: int, value: Any, request: Request | None) -> None:
    assert_is_valid_error(status, json.dumps(value).encode(), request)


@given(status=STATUSES, entries=st.lists(st.dictionaries(KEYS, JSON, max_size=4) | JSON, max_size=3))
def test_error_from_response_any_list_of_errors_returns_error(status: int, entries: list[Any]) -> None:
    assert_is_valid_error(status, json.dumps({"errors": entries}).encode(), None)


@given(status=STATUSES, body=st.binary(max_size=200))
def test_error_from_response_any_bytes_returns_error(status: int, body: bytes) -> None:
    assert_is_valid_error(status, body, request_to())


@pytest.mark.parametrize(
    "body",
    [
        b'{"errors":' + b"[" * 60_000,
        b'{"errors":[{"detail":' + b"1" * 60_000 + b"}]}",
        b'{"errors":[{"code":"\\ud800","message":"\\udfff"}]}',
        b'\xff\xfe{"errors":1}',
        b"\xef\xbb\xbf" + error_body("DENIED"),
        b'{"errors":{"code":"DENIED"}}',
        b'{"errors":[{"code":["DENIED"],"message":{}}]}',
        b'{"errors":[{"code":7,"message":7}]}',
        b'{"errors":"DENIED"}',
        b'"errors"',
        b'["errors"]',
        b"NaN",
    ],
    ids=range(12),
)
def test_error_from_response_hostile_json_returns_error(body: bytes) -> None:
    assert_is_valid_error(500, body, None)


# --- secrets ---


def test_error_from_response_secrets_are_removed() -> None:
    names = ("Authorization", "proxy-authorization", "COOKIE")
    request = request_to().with_headers({**dict.fromkeys(names, "hunter2"), "Accept": "*/*"})
    response = Response(401, {"Set-Cookie": "hunter2"}, error_body("UNAUTHORIZED", "authentication required"), request)
    error = error_from_response(response)
    assert error.request is not None
    assert list(error.request.headers.items()) == [("Accept", "*/*")]
    assert (error.request.method, error.request.url) == (request.method, request.url)
    assert all(request.headers[name] == "hunter2" for name in names)  # the request of the caller is not modified
    for text in (str(error), repr(error), repr(error.request), repr(error.headers)):
        assert "hunter2" not in text
