"""Tests of the origin policy: accepted URLs, and URLs to which credentials may be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ociwire._http.origin_policy import (
    check_realm,
    is_loopback,
    next_page,
    redirect_target,
    upload_location,
)
from ociwire._http.urls import Origin, check_url, split_url
from ociwire._oci.host import check_host, redact_url
from ociwire.errors import OciwireError, ProtocolError, UsageError

REQUEST_URL = "https://registry.example/v2/app/blobs/uploads/?secret=1"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://ghcr.io", Origin("https", "ghcr.io", 443)),
        ("https://ghcr.io/", Origin("https", "ghcr.io", 443)),
        ("https://ghcr.io:443/v2/", Origin("https", "ghcr.io", 443)),
        ("http://ghcr.io", Origin("http", "ghcr.io", 80)),
        ("http://ghcr.io:443", Origin("http", "ghcr.io", 443)),
        ("HTTPS://GHCR.IO/V2/", Origin("https", "ghcr.io", 443)),
        ("https://ghcr.io?x=/y", Origin("https", "ghcr.io", 443)),
        ("https://ghcr.io#x", Origin("https", "ghcr.io", 443)),
        ("https://ghcr.io/x@y", Origin("https", "ghcr.io", 443)),
        ("https://ghcr.io/?x@y#z@w", Origin("https", "ghcr.io", 443)),
        ("http://localhost:5000/v2/", Origin("http", "localhost", 5000)),
        ("https://[2001:DB8::1]/", Origin("https", "[2001:db8::1]", 443)),
        ("https://[::1]:5000/", Origin("https", "[::1]", 5000)),
        ("https://192.0.2.1/", Origin("https", "192.0.2.1", 443)),
    ],
)
def test_origin_of_url(url: str, origin: Origin) -> None:
    assert Origin.of(url) == origin


@pytest.mark.parametrize(
    ("origin", "netloc"),
    [
        (Origin("https", "ghcr.io", 443), "ghcr.io"),
        (Origin("http", "ghcr.io", 80), "ghcr.io"),
        (Origin("https", "ghcr.io", 80), "ghcr.io:80"),
        (Origin("http", "ghcr.io", 443), "ghcr.io:443"),
        (Origin("http", "[::1]", 5000), "[::1]:5000"),
    ],
)
def test_netloc_omits_default_port(origin: Origin, netloc: str) -> None:
    assert origin.netloc == netloc
    assert str(origin) == f"{origin.scheme}://{netloc}"
    assert Origin.of(str(origin)) == origin


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://h", "/"),
        ("https://h/", "/"),
        ("https://h?x=1", "/?x=1"),
        ("https://h/a/b?c=/d#e", "/a/b?c=/d"),
        ("https://h#e", "/"),
        ("https://h//a", "//a"),
        ("https://h/%2F?", "/%2F?"),
    ],
)
def test_split_url_returns_request_target(url: str, target: str) -> None:
    assert split_url(url) == (Origin("https", "h", 443), target)


NOT_ABSOLUTE = ["", "ghcr.io", "ghcr.io/v2/", "//ghcr.io/v2/", "ftp://ghcr.io/", "file:///etc/passwd", "https:/x"]
NO_HOST = [
    "https://",
    "https:///v2/",
    "https://?x",
    "https://:443/",
    "https://a b/",
    "https://h:/",
    "https://h:x/",
    "https://h:1:2/",
    "https://h:65536/",
    "https://h:-1/",
    "https://[::1/",
    "https://[::g]/",
    "https://[::1]x/",
    "https://é/",
    "https://h%41/",
    "https://h./",
    "https://-h/",
]
WITH_USERINFO = [
    "https://user:secret@h/",
    "http://secret@h/",
    "https://user:secret@h:5000/v2/",
    "https://user:se@cret-secret@h/",
    "HTTPS://user:secret@h",
    "https://user:secret@",
    "https://user:secret@h?x",
]
AMBIGUOUS = [
    "https://h\\@evil/",
    "https://h/\\..",
    "https://h/a b",
    "https://h/a\nb",
    "https://h/\t",
    "https://h/\0",
    "https://h/é",
]


@pytest.mark.parametrize("url", [*NOT_ABSOLUTE, *NO_HOST, *WITH_USERINFO, *AMBIGUOUS])
def test_origin_of_invalid_url_raises_usage_error(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Origin.of(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", WITH_USERINFO[:3])
def test_origin_of_url_with_userinfo_names_the_reason(url: str) -> None:
    with pytest.raises(UsageError, match=r"^invalid URL https?://\*\*\*@h(:5000)?: userinfo is not allowed "):
        Origin.of(url)


@pytest.mark.parametrize(
    "url",
    [
        "/v2/",
        "/",
        "/v2/_catalog?n=1",
        "https://ghcr.io",
        "http://localhost:5000/v2/",
        "HTTPS://ghcr.io/",
        "/%C3%A9",
        "/v2/a~b!$&'()*+,;=:@",
    ],
)
def test_check_url_valid_is_accepted(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "v2/",
        "ghcr.io/v2/",
        "ftp://ghcr.io/",
        "https:/ghcr.io",
        "?x",
        "#x",
        "/a b",
        "/a\tb",
        "/a\r\nHost: evil",
        "/\0",
        "/é",
        "/a\\b",
        "/\x7f",
        " /v2/",
        "https://h/a b",
    ],
)
def test_check_url_invalid_raises_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match=r"^invalid URL "):
        check_url(url)


@pytest.mark.parametrize("url", [*NO_HOST, *WITH_USERINFO])
def test_check_url_invalid_host_or_userinfo_raises_usage_error(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("read", [Origin.of, check_url, split_url, check_host])
@pytest.mark.parametrize("value", [None, 5, b"https://h/", ["/"], object()], ids=lambda value: type(value).__name__)
def test_url_or_host_other_than_str_raises_usage_error(read: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(UsageError):
        read(value)


@pytest.mark.parametrize("read", [Origin.of, check_url, check_host])
@pytest.mark.parametrize(
    "text",
    [
        "https://user:secret@h/a b",
        "user:secret@h/v2/",
        "user:secret@h",
        "ftp://user:secret@h/",
        "https://user:se/secret@h/a b",
        "https://h/a b?token=secret",
        "h/v2/?token=secret",
        "not a url?token=secret#secret",
    ],
)
def test_url_error_shows_no_userinfo_or_query(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("read", [Origin.of, check_url, check_host, lambda text: upload_location(REQUEST_URL, text)])
@pytest.mark.parametrize("text", ["x" * 9999 + "!", "https://" + "x" * 9999 + "!/ ", "https://u@" + "x" * 9999 + "/ "])
def test_url_error_long_url_is_cut(read: Callable[[str], object], text: str) -> None:
    with pytest.raises((UsageError, ProtocolError)) as caught:
        read(text + "\\")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("host", "lower"),
    [
        ("ghcr.io", "ghcr.io"),
        ("GHCR.io:443", "ghcr.io:443"),
        ("localhost", "localhost"),
        ("localhost:5000", "localhost:5000"),
        ("a", "a"),
        ("a-b.c-d", "a-b.c-d"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_registry:5000", "my_registry:5000"),
        ("_a_.B_.example", "_a_.b_.example"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::ffff:192.0.2.1]:5000", "[::ffff:192.0.2.1]:5000"),
        ("h:65535", "h:65535"),
    ],
)
def test_check_host_valid_returns_lower_case(host: str, lower: str) -> None:
    assert check_host(host) == lower


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "a b",
        " h",
        "h ",
        "h\n",
        "https://h",
        "h/",
        "h/v2",
        "h?x",
        "h#x",
        "user@h",
        "h:",
        ":5000",
        "h:x",
        "h:5000:5000",
        "h:65536",
        "h:123456",
        "h:-1",
        "h:٣",
        "-h",
        "h-",
        "h..i",
        ".h",
        "é",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::1]5000",
        "[::1%25eth0]",
        "[192.0.2.1]",
        "[1:2]",
        "a" * 254,
        ".".join(["a" * 60] * 5),
    ],
)
def test_check_host_invalid_raises_usage_error(host: str) -> None:
    with pytest.raises(UsageError, match=r"^invalid registry host .*: expected "):
        check_host(host)


@pytest.mark.parametrize("host", ["ghcr.io/team", "https://ghcr.io", "a b", "h:65536", "[1:2]"])
def test_check_host_error_names_the_host(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_host(host)
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "registry.localhost",
        "127.0.0.1",
        "127.255.255.254",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::FFFF:127.0.0.1]",
    ],
)
def test_is_loopback_any_spelling_is_true(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "ghcr.io",
        "localhost.example",
        "notlocalhost",
        "127.0.0.1.example",
        "128.0.0.1",
        "10.0.0.1",
        "1",
        "[::2]",
        "[::ffff:128.0.0.1]",
        "[fe80::1]",
        "",
    ],
)
def test_is_loopback_other_host_is_false(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("location", "url", "secrets"),
    [
        ("/v2/app/blobs/uploads/1?state=x", "https://registry.example/v2/app/blobs/uploads/1?state=x", True),
        ("1?state=x", "https://registry.example/v2/app/blobs/uploads/1?state=x", True),
        ("?state=x", "https://registry.example/v2/app/blobs/uploads/?state=x", True),
        ("https://registry.example/up/1", "https://registry.example/up/1", True),
        ("https://registry.example:443/up/1", "https://registry.example:443/up/1", True),
        ("https://REGISTRY.example/up/1", "https://REGISTRY.example/up/1", True),
        ("//registry.example/up/1", "https://registry.example/up/1", True),
        ("https://registry.example:8443/up/1", "https://registry.example:8443/up/1", False),
        ("https://store.example/up/1", "https://store.example/up/1", False),
        ("//store.example/up/1", "https://store.example/up/1", False),
        ("https://registry.example.evil.example/", "https://registry.example.evil.example/", False),
    ],
)
def test_upload_location_https_registry_resolves_location(location: str, url: str, secrets: bool) -> None:
    resolved = upload_location(REQUEST_URL, location)
    assert resolved == url
    assert (Origin.of(resolved) == Origin.of(REQUEST_URL)) is secrets


@pytest.mark.parametrize(
    ("location", "secrets"),
    [
        ("/up/1", True),
        ("http://h:5000/up/1", True),
        ("https://h:5000/up/1", False),
        ("http://h/up/1", False),
        ("http://store.example/up/1", False),
    ],
)
def test_upload_location_http_registry_compares_origins(location: str, secrets: bool) -> None:
    assert (Origin.of(upload_location("http://h:5000/v2/", location)) == Origin.of("http://h:5000/")) is secrets


@pytest.mark.parametrize("location", ["http://registry.example/up/1", "http://registry.example:443/", "http://o/"])
def test_upload_location_plain_http_is_refused_and_names_tls_proxy(location: str) -> None:
    with pytest.raises(
        ProtocolError, match=r"of https://registry\.example: it goes from https to http .*proxy.*TLS.*X-Forwarded-Proto"
    ) as caught:
        upload_location(REQUEST_URL, location)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("location", [None, ""])
def test_upload_location_missing_raises_protocol_error(location: str | None) -> None:
    with pytest.raises(ProtocolError, match="no Location header") as caught:
        upload_location(REQUEST_URL, location)
    assert "https://registry.example/v2/app/blobs/uploads/" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "ftp://registry.example/up",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user:secret@registry.example/up",
        "https://user:se/secret@registry.example/u p",
        "//user:secret@registry.example/up",
        "https://registry.example:99999/up",
        "https://registry.example:443:80/up",
        "https://[/up",
        "https://registry.example\\@evil.example/up",
        "/u\tp",
        "/up\t",
        "ht\ttps://evil.example/",
        "https://é.example/up",
        "https://user:se?secret@registry.example/up",
        "https://user:se#secret@registry.example/up",
        "https://user:[secret]@registry.example/up",
        "/\x00",
    ],
)
def test_upload_location_invalid_url_raises_protocol_error(location: str) -> None:
    with pytest.raises(
        ProtocolError, match=r"^cannot use the upload Location of https://registry\.example: invalid "
    ) as caught:
        upload_location(REQUEST_URL, location)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/v2/?token=secret", "https://h/v2/"),
        ("https://h/v2/#secret", "https://h/v2/"),
        ("https://h/v2/#a?secret", "https://h/v2/"),
        ("https://user:secret@h/v2/", "https://***@h/v2/"),
        ("https://user:se@secret@h/v2/", "https://***@h/v2/"),
        ("//user:secret@h/v2/", "//***@h/v2/"),
        ("/v2/", "/v2/"),
        ("https://h/" + "a" * 300, "https://h/" + "a" * 189 + "…"),
        ("https://user:sec/ret@h/v2/", "https://***@h/v2/"),
        ("https://user:sec?ret@h/v2/", "https://***"),
        ("https://user:123?4@h/v2/", "https://***"),
        ("https://user:sec#ret@h/v2/", "https://***"),
        ("https://user:sec\\ret@h/v2/", "https://***@h/v2/"),
        ("https://user:secret@h:x/v2/", "https://***"),
        ("https://user:secret@/v2/", "https://***"),
        ("https://user:secret/v2/", "https://***"),
        ("https://h:99999/v2/", "https://***"),
        ("//user:sec?ret@h", "//***"),
        ("user:sec?ret@h", "***"),
        ("user:sec#ret@h", "***"),
        ("https://bucket.example/x?X-Goog-Credential=me@project", "https://bucket.example/x"),
        ("ghcr.io/app", "ghcr.io/app"),
        ("/v2/app@x?y", "/v2/app@x"),
    ],
)
def test_redact_url_removes_query_and_userinfo(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/a b", "https://registry.example/a%20b"),
        ("/é", "https://registry.example/%E9"),
        ("/Ã©", "https://registry.example/%C3%A9"),
        ("/\x80", "https://registry.example/%80"),
        ("/☃", "https://registry.example/%E2%98%83"),
        ('/a?x={"y": 1}|<z>^`', "https://registry.example/a?x=%7B%22y%22:%201%7D%7C%3Cz%3E%5E%60"),
        ("https://my_bucket.store.example/a%20b?sig=%2B+", "https://my_bucket.store.example/a%20b?sig=%2B+"),
        ("https://store.example/a?b=[c]'!$&()*,;=:~@%zz", "https://store.example/a?b=[c]'!$&()*,;=:~@%zz"),
    ],
)
def test_upload_location_unencoded_characters_are_encoded(location: str, url: str) -> None:
    assert upload_location(REQUEST_URL, location) == url
    assert redirect_target(REQUEST_URL, location)[0] == url


def test_next_page_unencoded_characters_are_encoded() -> None:
    base = "https://my_registry.example/v2/_catalog"
    assert next_page(base, "/v2/_catalog?last=a b|c") == "https://my_registry.example/v2/_catalog?last=a%20b%7Cc"


def _upload(text: str) -> object:
    return upload_location(REQUEST_URL, text)


def _redirect(text: str) -> object:
    return redirect_target(REQUEST_URL, text)


def _page(text: str) -> object:
    return next_page(REQUEST_URL, text)


def _realm(text: str) -> object:
    return check_realm(text, Origin.of(REQUEST_URL))


PARSERS: list[Callable[[str], object]] = [Origin.of, check_url, check_host, _upload, _redirect, _page, _realm]
PASSWORDS = ["sec/ret", "sec?ret", "sec#ret", "sec\\ret", "sec?r/t#ret", "[sec]ret", "sec@ret"]
# The start of each looks like a port.
PORTS = ["12/ret", "12?ret", "12#ret"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("form", ["https://user:{}@h/v2/", "HTTP://user:{}@h", "ftp://u:{}@h"])
@pytest.mark.parametrize("call", PARSERS, ids=lambda call: call.__name__)
def test_url_error_shows_no_part_of_password(call: Callable[[str], object], form: str, password: str) -> None:
    with pytest.raises(OciwireError) as caught:
        call(form.format(password))
    assert not any(part in str(caught.value) for part in ("sec", "ret"))


@pytest.mark.parametrize("password", [*PASSWORDS, *PORTS])
@pytest.mark.parametrize("form", ["https://user:{}@h/v2/", "http://{}@h", "//user:{}@h/", "user:{}@h", "ftp://u:{}@h"])
def test_redact_url_shows_no_part_of_password(form: str, password: str) -> None:
    assert not any(part in redact_url(form.format(password)) for part in ("sec", "ret", "12"))
