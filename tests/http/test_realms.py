"""Tests of `check_realm`: the token servers to which the credentials of a registry may be sent."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire._http.origin_policy import check_realm, is_internal
from ociwire._http.urls import Origin
from ociwire.errors import AuthError

PUBLIC = "https://registry.example"
SECRET = "sEcReT-42"


def is_allowed(realm: str, registry: str = PUBLIC, *trusted: str) -> bool:
    try:
        url = check_realm(realm, Origin.of(registry), [Origin.of(origin) for origin in trusted])
    except AuthError:
        return False
    assert url == realm
    return True


# --- schemes and hosts ---


@pytest.mark.parametrize(
    ("registry", "realm", "accepted"),
    [
        ("https://registry.example", "https://registry.example/token", True),
        ("https://registry.example", "https://registry.example:8443/token", True),
        ("https://registry.example", "https://auth.example/token?x=y", True),
        ("https://registry.example", "HTTPS://AUTH.example/token", True),
        ("https://registry.example", "https://8.8.8.8/token", True),
        ("https://registry.example", "https://[2001:4860:4860::8888]/token", True),
        ("https://registry.example", "http://registry.example:80/token", False),
        ("https://registry.example", "http://sub.registry.example/token", False),
        ("https://registry.example", "http://registry.example:443/token", False),
        ("https://registry.example", "http://auth.example/token", False),
        ("https://registry.example", "HTTP://auth.example/token", False),
        ("https://localhost:5000", "http://localhost:5000/token", False),
        ("https://localhost:5000", "http://localhost:5001/token", False),
        ("http://registry.example", "https://registry.example/token", True),
        ("http://registry.example", "https://auth.example/token", True),
        ("http://registry.example", "http://registry.example/token", True),
        ("http://registry.example", "http://REGISTRY.example/token", True),
        ("http://registry.example:5000", "http://registry.example/token", True),
        ("http://registry.example", "http://registry.example:5001/token", True),
        ("http://registry.example", "http://auth.example/token", False),
        ("http://registry.example", "http://auth.registry.example/token", False),
        ("http://registry.example", "http://registry.example.evil.example/token", False),
        ("http://localhost:5000", "http://localhost:5001/token", True),
        ("http://localhost:5000", "http://auth.example/token", False),
        ("http://localhost:5000", "http://10.0.0.1/token", False),
        ("http://10.0.0.1:5000", "http://10.0.0.1:5001/token", True),
        ("http://10.0.0.1:5000", "http://10.0.0.2:5001/token", False),
        ("http://[::1]:5000", "http://[::1]:5001/token", True),
    ],
)
def test_check_realm_scheme_and_host_rules(registry: str, realm: str, accepted: bool) -> None:
    assert is_allowed(realm, registry) == accepted


@pytest.mark.parametrize(
    ("registry", "realm", "url"),
    [
        (PUBLIC, "http://registry.example/service/token", "https://registry.example/service/token"),
        (PUBLIC, "HTTP://Registry.Example/token?a=b#c", "https://Registry.Example/token?a=b"),
        (PUBLIC, "http://registry.example?a=b", "https://registry.example?a=b"),
        (PUBLIC, "http://registry.example", "https://registry.example"),
        (f"{PUBLIC}:8443", "http://registry.example/token", "https://registry.example/token"),
        ("https://my_registry:5000", "http://my_registry/token", "https://my_registry/token"),
        ("https://[::1]", "http://[::1]/token", "https://[::1]/token"),
        ("http://registry.example", "http://registry.example/token", "http://registry.example/token"),
    ],
)
def test_check_realm_http_on_own_host_without_port_becomes_https(registry: str, realm: str, url: str) -> None:
    assert check_realm(realm, Origin.of(registry)) == url


MALFORMED = [
    "",
    "/token",
    "token",
    "auth.example/token",
    "//auth.example/token",
    "ftp://auth.example/token",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https://",
    "https:///token",
    "https://a b/token",
    "https://auth.example/to ken",
    "https://auth.example/\r\nX-Evil: 1",
    "https://auth.example\\@evil.example/token",
    "https://é.example/token",
    "https://auth.example:99999/token",
    "https://auth.example:/token",
    "https://[::1/token",
    "https://[::1#token",
    "https://[x]#token",
    "https://a]#token",
    "https://[::1",
    "https://127.0.0.1%00.example/",
    "https://%31%32%37.0.0.1/",
    "https://\uff11\uff12\uff17.0.0.1/",
]


@pytest.mark.parametrize("realm", MALFORMED)
@pytest.mark.parametrize("registry", ["https://registry.example", "http://localhost:5000"])
def test_check_realm_invalid_url_raises_auth_error(realm: str, registry: str) -> None:
    with pytest.raises(AuthError) as caught:
        check_realm(realm, Origin.of(registry))
    assert registry in str(caught.value)


@pytest.mark.parametrize("ending", ["", "/", "/token", "/token?service=x", "?service=x"])
def test_check_realm_fragment_is_dropped(ending: str) -> None:
    realm = f"https://auth.example{ending}"
    assert check_realm(f"{realm}#fragment?x@y", Origin.of(PUBLIC)) == realm


@given(st.one_of(st.text(), st.lists(st.sampled_from([*MALFORMED, "#", "?", "@", "[", "]", ":", "x"])).map("".join)))
def test_check_realm_any_text_is_accepted_or_refused(realm: str) -> None:
    with contextlib.suppress(AuthError):
        check_realm(realm, Origin.of(PUBLIC))


# --- addresses ---


INTERNAL = [
    "localhost",
    "LOCALHOST",
    "auth.localhost",
    # loopback
    "127.0.0.1",
    "127.255.255.254",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f.1",
    "0X7F000001",
    "2130706433",
    "017700000001",
    "0177.0x0.0.01",
    # unspecified, "this network"
    "0.0.0.0",
    "0",
    "0x0",
    "0.0.0.1",
    # private
    "10.0.0.1",
    "10.1",
    "012.0.0.1",
    "0xa.1",
    "167772161",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.1",
    "0xc0a80001",
    "3232235521",
    "0300.0250.1",
    # link-local: metadata servers of cloud providers
    "169.254.169.254",
    "169.254.43518",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    # shared, reserved, multicast, broadcast
    "100.64.0.1",
    "240.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    # IPv6
    "[::]",
    "[::0]",
    "[0:0:0:0:0:0:0:0]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[fe80::1]",
    "[FE80::A]",
    "[febf::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    # IPv4 in IPv6: mapped, compatible, NAT64, 6to4
    "[::ffff:127.0.0.1]",
    "[::FFFF:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:0.0.0.0]",
    "[::ffff:100.64.0.1]",
    "[::ffff:224.0.0.1]",
    "[::127.0.0.1]",
    "[::a9fe:a9fe]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::10.0.0.1]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[2002:a9fe:a9fe::1]",
    "[2002:a00:1:1:2:3:4:5]",
]
EXTERNAL = [
    "auth.example",
    "localhost.example",
    "notlocalhost",
    "127.0.0.1.example",
    "10.example",
    "8.8.8.8",
    "134744072",
    "0x08080808",
    "010.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.167.255.255",
    "192.169.0.1",
    "169.253.255.255",
    "169.255.0.1",
    "[2001:4860:4860::8888]",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::8.8.8.8]",
    "[2002:808:808::1]",
]


@pytest.mark.parametrize("host", INTERNAL)
@pytest.mark.parametrize("port", ["", ":8443"])
def test_check_realm_internal_address_for_public_registry_is_refused(host: str, port: str) -> None:
    assert is_internal(host.lower())
    assert not is_allowed(f"https://{host}{port}/token")
    assert not is_allowed(f"https://{host}{port}/token", "http://registry.example")
    assert not is_allowed(f"https://{host}{port}/token", "https://8.8.8.8")
    assert not is_allowed(f"http://{host}{port}/token")


@pytest.mark.parametrize("host", INTERNAL)
def test_check_realm_internal_address_for_internal_registry_is_accepted(host: str) -> None:
    for registry in ("https://localhost:5000", "https://127.0.0.1:5000", "https://10.0.0.5", "https://[fd00::1]"):
        assert is_allowed(f"https://{host}/token", registry)
    assert is_allowed(f"https://{host}/token", f"https://{host}:5000")
    assert is_allowed(f"http://{host}/token", f"http://{host}:5000")


@pytest.mark.parametrize("host", EXTERNAL)
def test_check_realm_public_host_is_accepted(host: str) -> None:
    assert not is_internal(host)
    assert is_allowed(f"https://{host}/token")
    assert is_allowed(f"https://{host}/token", "https://localhost:5000")


@pytest.mark.parametrize("host", ["[64:ff9b:1::808:808]", "[64:ff9b:1:a00:0:100:808:808]", "[64:ff9b:1:ffff::808:808]"])
def test_is_internal_local_use_nat64_is_true(host: str) -> None:
    # RFC 8215, section 4: the prefix is for use within a network. RFC 6052, section 2.2: the position of the IPv4
    # address depends on the prefix length, which is unknown here; with /48, 64:ff9b:1:a00:0:100:: is 10.0.0.1.
    assert is_internal(host)
    assert not is_allowed(f"https://{host}/token")


def test_check_realm_resolves_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise AssertionError("a name was resolved")

    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        monkeypatch.setattr(f"socket.{name}", resolve)
    assert is_allowed("https://auth.example/token")
    assert not is_allowed("https://auth.localhost/token")


INTERNAL_NETWORKS = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
ADDRESSES = st.builds(
    lambda network, offset: network[offset % network.num_addresses],
    st.sampled_from([IPv4Network(network) for network in INTERNAL_NETWORKS]),
    st.integers(0, 2**32 - 1),
)


@st.composite
def spellings(draw: st.DrawFn, address: IPv4Address) -> str:
    """Draw an IPv4 address as inet_aton(3) accepts it: one to four decimal, octal or hexadecimal numbers."""
    parts = draw(st.integers(1, 4))
    value = int(address)
    numbers = [value >> (24 - 8 * i) & 0xFF for i in range(parts - 1)]
    numbers.append(value & ((1 << (8 * (5 - parts))) - 1))
    texts = []
    for number in numbers:
        form = draw(st.sampled_from(["{:d}", "0{:o}", "0x{:x}", "0X{:X}", "0x0{:x}", "000{:o}", "0x{:010x}"]))
        texts.append(form.format(number))
    return ".".join(texts)


def in_ipv6(address: IPv4Address) -> st.SearchStrategy[str]:
    value = int(address)
    high, low = value >> 16, value & 0xFFFF
    tails = st.sampled_from([f"{high:x}:{low:x}", f"{high:04X}:{low:04X}", str(address)])
    prefixes = st.sampled_from(["::ffff:", "0:0:0:0:0:FFFF:", "::0:ffff:", "64:ff9b::", "64:ff9b:0:0:0:0:"])
    embedded = st.tuples(prefixes, tails).map("".join)
    embedded_6to4 = st.sampled_from([f"2002:{high:x}:{low:x}::1", f"2002:{high:x}:{low:x}:0:1:2:3:4"])
    return st.one_of(embedded, embedded_6to4).map("[{}]".format)


@given(
    host=ADDRESSES.flatmap(lambda address: st.one_of(spellings(address), in_ipv6(address))),
    registry=st.sampled_from([PUBLIC, "http://registry.example", "https://8.8.8.8:5000", "https://[2a00::1]"]),
    scheme=st.sampled_from(["https", "http"]),
    port=st.sampled_from(["", ":443", ":80", ":5000"]),
)
def test_check_realm_internal_address_any_spelling_is_refused(host: str, registry: str, scheme: str, port: str) -> None:
    assert not is_allowed(f"{scheme}://{host}{port}/token", registry)
    assert is_internal(host)


def is_public(address: IPv4Address) -> bool:
    """Return whether an address is public. Python calls parts of 192.0.0.0/24 global, see RFC 6890, section 2.2.2."""
    return address.is_global and not address.is_multicast and not str(address).startswith("192.0.0.")


@given(st.ip_addresses(v=4).filter(is_public), st.data())
def test_check_realm_any_spelling_of_public_address_is_accepted(address: IPv4Address, data: st.DataObject) -> None:
    assert is_allowed(f"https://{data.draw(spellings(address))}/token")


# --- trusted realms ---


@pytest.mark.parametrize(
    ("registry", "realm", "trusted", "accepted"),
    [
        (PUBLIC, "http://auth.corp/token", ["http://auth.corp"], True),
        (PUBLIC, "http://auth.corp:80/token", ["http://auth.corp"], True),
        (PUBLIC, "http://auth.corp/token", ["http://other.corp", "HTTP://AUTH.corp:80/"], True),
        (PUBLIC, "http://auth.corp/token", ["http://auth.corp/another/path?x"], True),
        (PUBLIC, "http://auth.corp/token", ["https://auth.corp"], False),
        (PUBLIC, "http://auth.corp/token", ["http://auth.corp:8080"], False),
        (PUBLIC, "http://auth.corp:8080/token", ["http://auth.corp"], False),
        (PUBLIC, "http://auth.corp.evil.example/token", ["http://auth.corp"], False),
        (PUBLIC, "http://x.auth.corp/token", ["http://auth.corp"], False),
        (PUBLIC, "http://auth.corp/token", [], False),
        (PUBLIC, "https://10.0.0.1/token", ["https://10.0.0.1"], True),
        (PUBLIC, "https://10.0.0.1/token", ["https://10.0.0.2"], False),
        (PUBLIC, "http://10.0.0.1:5001/token", ["http://10.0.0.1:5001"], True),
        (PUBLIC, "http://localhost:5001/token", ["http://localhost:5001"], True),
        ("http://registry.example", "http://auth.example/token", ["http://auth.example"], True),
        (PUBLIC, "https://auth.example/token", ["http://auth.corp"], True),
    ],
)
def test_check_realm_trusted_origin_is_accepted(registry: str, realm: str, trusted: list[str], accepted: bool) -> None:
    assert is_allowed(realm, registry, *trusted) == accepted


# --- error messages ---


@pytest.mark.parametrize(
    ("registry", "realm", "rule", "option"),
    [
        (PUBLIC, "http://auth.corp/token", "it goes from https to http", "{'registry.example': ['http://auth.corp']}"),
        (
            "http://registry.example:5000",
            "http://auth.corp:8080/token",
            "plain http is allowed only to the host of the registry",
            "{'registry.example:5000': ['http://auth.corp:8080']}",
        ),
        (
            PUBLIC,
            "https://10.0.0.1/token",
            "it has an internal address, but the registry has a public one",
            "{'registry.example': ['https://10.0.0.1']}",
        ),
        (
            PUBLIC,
            "https://0x7f.1/token",
            "it has an internal address, but the registry has a public one",
            "{'registry.example': ['https://0x7f.1']}",
        ),
    ],
)
def test_check_realm_refused_names_rule_and_option(registry: str, realm: str, rule: str, option: str) -> None:
    with pytest.raises(AuthError) as caught:
        check_realm(f"{realm}?token={SECRET}#{SECRET}", Origin.of(registry))
    message = str(caught.value)
    assert rule in message
    assert f"trusted_realms={option}" in message
    assert registry in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "realm",
    [
        f"https://user:{SECRET}@auth.example/token",
        f"https://{SECRET}@auth.example/token",
        f"http://user:{SECRET}@auth.example/token",
        f"https://user:{SECRET}@auth.example:99999/token",
        f"https://user:{SECRET}@/token",
        f"https://user:{SECRET}@auth.example/to ken",
        f"https://user: {SECRET}@auth.example/token",
        f"https://user:{SECRET}@x@auth.example/token",
        f"https://user:{SECRET}@10.0.0.1/token",
        f"https://user:{SECRET}@auth.example\\token",
        f"https://user:{SECRET}@[::1#",
        f"//user:{SECRET}@auth.example/token",
        f"user:{SECRET}@auth.example/token",
        f"ftp://user:{SECRET}@auth.example/token",
        f"https://user:{SECRET}@registry.example/token",
    ],
)
@pytest.mark.parametrize("trusted", [(), ("https://auth.example", "http://auth.example", PUBLIC)])
def test_check_realm_userinfo_is_refused_and_hidden(realm: str, trusted: tuple[str, ...]) -> None:
    with pytest.raises(AuthError) as caught:
        check_realm(realm, Origin.of(PUBLIC), [Origin.of(origin) for origin in trusted])
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize(
    "host",
    [
        *("192.0.0.192", "[::ffff:0:169.254.169.254]", "[::ffff:0:7f00:1]", "[3fff::1]", "[5f00::1]"),
        *("ip6-localhost", "ip6-loopback", "localhost.localdomain", "LOCALHOST", "a.localhost"),
    ],
)
def test_is_internal_address_that_python_calls_global_is_true(host: str) -> None:
    assert is_internal(host)
    assert not is_allowed(f"https://{host}/token")
