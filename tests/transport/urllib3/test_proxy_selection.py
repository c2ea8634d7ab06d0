"""Matching of origins with `no_proxy`, and parsing of proxy URLs."""

from __future__ import annotations

from base64 import b64decode

import pytest

from ociwire._http.urls import Origin
from ociwire.errors import UsageError
from ociwire.transport._urllib3.proxy import ProxySelector, should_bypass_proxy


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", "https://registry.example"),
        ("other, *", "https://[2001:db8::1]"),
        ("registry.example", "https://registry.example"),
        ("Registry.Example", "https://registry.example:8443"),
        ("registry.example.", "https://registry.example"),
        ("example", "https://registry.example"),
        (".example", "https://registry.example"),
        (".registry.example", "https://registry.example"),
        ("*.example", "https://registry.example"),
        ("*.example", "https://a.registry.example"),
        ("*.example:443", "https://registry.example"),
        ("my_domain", "http://my_registry.my_domain"),
        ("registry.example:443", "https://registry.example"),
        ("registry.example:80", "http://registry.example"),
        (".example:5000", "http://registry.example:5000"),
        ("a,registry.example", "https://registry.example"),
        ("a registry.example", "https://registry.example"),
        (" a ,\tregistry.example ,, ", "https://registry.example"),
        ("10.1.2.3", "https://10.1.2.3"),
        ("10.1.2.3:443", "https://10.1.2.3"),
        ("10.0.0.0/8", "https://10.1.2.3:5000"),
        ("10.9.9.9/8", "https://10.1.2.3"),
        ("10.1.2.3/32", "https://10.1.2.3"),
        ("0.0.0.0/0", "https://10.1.2.3"),
        ("10.0.0.0/8", "https://[::ffff:10.1.2.3]"),
        ("2001:db8::1", "https://[2001:db8::1]"),
        ("[2001:db8::1]", "https://[2001:db8::1]"),
        ("[2001:DB8:0::1]", "https://[2001:db8::1]:5000"),
        ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000"),
        ("2001:db8::/32", "https://[2001:db8::1]"),
        ("[2001:db8::]/32", "https://[2001:db8::1]"),
    ],
)
def test_should_bypass_proxy_matching_entry_returns_true(no_proxy: str, url: str) -> None:
    assert should_bypass_proxy(no_proxy, Origin.of(url))


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", "https://registry.example"),
        (" , ", "https://registry.example"),
        (".", "https://registry.example"),
        ("*.", "https://registry.example"),
        ("example.*", "https://registry.example"),
        ("gistry.example", "https://registry.example"),
        ("a.registry.example", "https://registry.example"),
        ("*.registry.example", "https://registry.example"),
        ("*.gistry.example", "https://registry.example"),
        ("registry.example:80", "https://registry.example"),
        ("registry.example:", "https://registry.example"),
        ("registry.example:x", "https://registry.example"),
        ("10.0.0.0/8", "https://11.1.2.3"),
        ("10.0.0.0/33", "https://10.0.0.0"),
        ("10.0.0.0/x", "https://10.0.0.0"),
        ("/8", "https://10.0.0.0"),
        ("2.3", "https://10.1.2.3"),
        ("10.", "https://10.1.2.3"),
        ("10.1.2.3:80", "https://10.1.2.3"),
        ("10.0.0.0/8", "https://registry.example"),
        ("10.0.0.0/8", "https://[2001:db8::1]"),
        ("2001:db8::/32", "https://10.1.2.3"),
        ("2001:db8::/32", "https://[2001:db9::1]"),
        ("[2001:db8::1]:80", "https://[2001:db8::1]"),
        ("2001:db8::2", "https://[2001:db8::1]"),
    ],
)
def test_should_bypass_proxy_no_matching_entry_returns_false(no_proxy: str, url: str) -> None:
    assert not should_bypass_proxy(no_proxy, Origin.of(url))


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_proxy_selector_no_proxy_in_either_case_is_read(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv(variable, "10.0.0.0/8")
    proxies = ProxySelector(None, trust_env=True)
    assert proxies.get(Origin.of("https://10.1.2.3")) is None
    assert proxies.get(Origin.of("https://11.1.2.3")) is not None


def test_proxy_selector_http_proxy_in_cgi_program_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    # "httpoxy" (CVE-2016-5385): the header Proxy of a request to a CGI program becomes HTTP_PROXY.
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://evil.example:3128")
    origin = Origin.of("http://registry.example")
    assert ProxySelector(None, trust_env=True).get(origin) is not None
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert ProxySelector(None, trust_env=True).get(origin) is None


@pytest.mark.parametrize(
    ("url", "proxy", "credentials"),
    [
        ("http://user:pa/ss@proxy.example:3128", "http://proxy.example:3128", b"user:pa/ss"),
        ("http://user:pa?ss@proxy.example", "http://proxy.example", b"user:pa?ss"),
        ("http://user:pa#ss@proxy.example", "http://proxy.example", b"user:pa#ss"),
        ("http://user:pa://ss@proxy.example", "http://proxy.example", b"user:pa://ss"),
        ("user:pa://ss@proxy.example:3128", "http://proxy.example:3128", b"user:pa://ss"),
        ("http://user:p@ss@proxy.example", "http://proxy.example", b"user:p@ss"),
        ("http://user:%FF%00@proxy.example", "http://proxy.example", b"user:\xff\x00"),
        ("http://user:\udcff@proxy.example", "http://proxy.example", b"user:\xff"),
        ("http://user:pä@proxy.example", "http://proxy.example", "user:pä".encode()),
        ("http://my_proxy:3128", "http://my_proxy:3128", None),
        ("my_proxy:3128", "http://my_proxy:3128", None),
        ("HTTPS://user:pass@[::1]", "https://[::1]", b"user:pass"),
    ],
)
def test_proxy_selector_url_with_special_characters_is_parsed(url: str, proxy: str, credentials: bytes | None) -> None:
    selected = ProxySelector(url, trust_env=False).get(Origin.of("https://registry.example"))
    assert selected is not None
    assert str(selected.origin) == proxy
    header = selected.headers.get("Proxy-Authorization")
    assert (None if header is None else b64decode(header.removeprefix("Basic "))) == credentials


@pytest.mark.parametrize(
    "url",
    [
        "socks5://user:sec@ret@proxy.example",
        "ftp://user:secret@proxy.example",
        "secret://ret@proxy.example",
        "http://user:secret@proxy.example:x",
        "http://user:secret@",
        "http://user:secret",
        "http://user:secret/ret",
        "http://user:secret@proxy example",
        "http://user:secret@[proxy]",
        "http://user:secret\ud800@proxy.example",
        "http://secret\ud800@proxy.example",
        "user:secret",
        "http://user:secret@é.example",
    ],
)
def test_proxy_selector_invalid_url_error_has_no_password(url: str) -> None:
    with pytest.raises(UsageError, match="invalid proxy URL: ") as caught:
        ProxySelector(url, trust_env=False)
    error: BaseException | None = caught.value
    while error is not None:
        shown = f"{error} {error!r} {error.args} {vars(error)}"
        assert "sec" not in shown
        assert "ret" not in shown
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
