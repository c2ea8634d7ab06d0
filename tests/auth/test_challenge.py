"""Parsing of WWW-Authenticate headers in the forms that servers send."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from ociwire.auth import Challenge

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
HUB_PARAMS = {
    "realm": "https://auth.docker.io/token",
    "service": "registry.docker.io",
    "scope": "repository:a/b:pull,push",
}


def parse(*headers: str) -> list[tuple[str, dict[str, str]]]:
    return [(challenge.scheme, dict(challenge.params)) for challenge in Challenge.parse(*headers)]


@pytest.mark.parametrize(
    ("header", "params"),
    [
        (HUB, HUB_PARAMS),
        ('Bearer realm="x"', {"realm": "x"}),
        ('Bearer  realm="x"', {"realm": "x"}),
        ('Bearer\trealm="x"\t', {"realm": "x"}),
        ('Bearer realm = "x" , service\t=\t"y"', {"realm": "x", "service": "y"}),
        ('Bearer realm="x",service="y"', {"realm": "x", "service": "y"}),
        ('Bearer realm="x",,  ,service="y",', {"realm": "x", "service": "y"}),
        (', ,Bearer ,realm="x"', {"realm": "x"}),
        ('Bearer realm="x" service="y"', {"realm": "x", "service": "y"}),
        ('Bearer realm="x"service="y"', {"realm": "x", "service": "y"}),
        ("Bearer realm=x,service=y", {"realm": "x", "service": "y"}),
        ("Bearer realm=x service=y", {"realm": "x", "service": "y"}),
        ("Bearer realm=https://h:1/t?a=b&c=%20,service=y", {"realm": "https://h:1/t?a=b&c=%20", "service": "y"}),
        ('Bearer realm=""', {"realm": ""}),
        ('Bearer realm="a,b=c, Basic realm=d"', {"realm": "a,b=c, Basic realm=d"}),
        (r'Bearer realm="say \"hi\""', {"realm": 'say "hi"'}),
        (r'Bearer realm="a\\b",service="c\d"', {"realm": r"a\b", "service": "cd"}),
        (r'Bearer realm="ends in \\",service="y"', {"realm": "ends in \\", "service": "y"}),
        (r'Bearer realm="\",Basic realm=\"",service="y"', {"realm": '",Basic realm="', "service": "y"}),
        ('Bearer REALM="X",Service="Y"', {"realm": "X", "service": "Y"}),
        ('Bearer realm="x",Realm="y",realm="z"', {"realm": "x"}),
        ('Bearer scope="repository:a:pull repository:b:pull"', {"scope": "repository:a:pull repository:b:pull"}),
        ('Bearer realm="grüße ☃"', {"realm": "grüße ☃"}),
        ('Bearer x-y_z.1!#$%="v"', {"x-y_z.1!#$%": "v"}),
        ("Bearer", {}),
        ("Bearer ", {}),
    ],
)
def test_parse_parameters_returns_them(header: str, params: dict[str, str]) -> None:
    assert parse(header) == [("bearer", params)]


@pytest.mark.parametrize("written", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_parse_scheme_returns_lower_case(written: str) -> None:
    assert parse(f'{written} realm="x"') == [("bearer", {"realm": "x"})]


@pytest.mark.parametrize(
    "header",
    [
        'Bearer realm="x",service="y",Basic realm="z"',
        'Bearer realm="x", service="y", Basic realm="z"',
        'Bearer realm="x",service="y" Basic realm="z"',
        "Bearer realm=x,service=y,Basic realm=z",
        "Bearer realm=x service=y Basic realm=z",
        'Bearer realm="x",service="y",,\t, Basic realm="z"',
    ],
)
def test_parse_several_challenges_in_header_returns_all(header: str) -> None:
    assert parse(header) == [("bearer", {"realm": "x", "service": "y"}), ("basic", {"realm": "z"})]


def test_parse_several_headers_returns_all() -> None:
    assert parse(HUB, 'Basic realm="z"') == [("bearer", HUB_PARAMS), ("basic", {"realm": "z"})]
    assert parse('Basic realm="z"', "", HUB) == [("basic", {"realm": "z"}), ("bearer", HUB_PARAMS)]
    assert parse() == []


def test_parse_several_headers_keeps_them_apart() -> None:
    assert parse("Bearer", 'realm="x"', 'Basic realm="y') == [("bearer", {}), ("basic", {})]


def test_parse_repeated_scheme_returns_two_challenges() -> None:
    assert parse('Basic realm="x", Basic realm="y"') == [("basic", {"realm": "x"}), ("basic", {"realm": "y"})]


@pytest.mark.parametrize(
    "token68", ["YWJj", "YWJjZA=", "YWJj=", "YWJjZA==", "a-b._~+/c", "TlRMTVNTUAACAAAA", "a/b+c==", "x", "1"]
)
def test_parse_token68_skips_it(token68: str) -> None:
    assert parse(f"Negotiate {token68}") == [("negotiate", {})]
    bearer = ("bearer", {"realm": "x"})
    assert parse(f'Negotiate {token68}, Bearer realm="x"') == [("negotiate", {}), bearer]
    assert parse(f'Bearer realm="x", Negotiate {token68} ,Basic') == [bearer, ("negotiate", {}), ("basic", {})]


def test_parse_schemes_without_parameters_returns_them() -> None:
    assert parse("Negotiate, NTLM,Basic") == [("negotiate", {}), ("ntlm", {}), ("basic", {})]
    assert parse('Negotiate Basic realm="x"') == [("negotiate", {}), ("basic", {"realm": "x"})]


GARBAGE = ["", " ", ",", " , ,\t", '""', '"x"', "=", "=x", "realm=x", 'realm="x"', '@Bearer realm="x"', "é", "\0", "\n"]
GARBAGE += ['"Bearer realm=x"', '"a, Bearer realm=\\"x\\""', "Bearer=", "(Bearer)"]


@pytest.mark.parametrize("header", GARBAGE)
def test_parse_garbage_returns_nothing(header: str) -> None:
    assert parse(header) == []
    assert parse(f"{header},{HUB}") == [("bearer", HUB_PARAMS)]


@pytest.mark.parametrize(
    "garbage", ["realm=", 'realm="x', "@", "@@@ @@", "=x", '=","', '"y"', '"a,b=c"', "é=1", "\0", "\n", '("u,v")']
)
def test_parse_garbage_in_challenge_resumes_after_comma(garbage: str) -> None:
    assert parse(f'Bearer service="y",{garbage}') == [("bearer", {"service": "y"})]
    if garbage != 'realm="x':
        assert parse(f'Bearer service="y",{garbage},realm="z"') == [("bearer", {"service": "y", "realm": "z"})]


def test_parse_unclosed_quote_ignores_value() -> None:
    assert parse('Bearer realm="x') == [("bearer", {})]
    assert parse('Bearer realm="x\\') == [("bearer", {})]
    assert parse('Bearer realm="x\\"') == [("bearer", {})]
    assert parse('Basic realm="x", Bearer realm="y') == [("basic", {"realm": "x"}), ("bearer", {})]


def test_parse_long_header_reads_beginning() -> None:
    padding = f'Bearer realm="x",pad="{"p" * 16_000}",'
    assert len(padding) < 16 * 1024
    assert parse(f'{padding}service="y"')[0][1]["service"] == "y"
    assert "service" not in parse(f'{padding}pad2="{"p" * 500}",service="y"')[0][1]
    assert len(parse("a," * 1_000_000)) == 8 * 1024
    assert parse(f'Bearer realm="{"x" * 100_000}"') == [("bearer", {})]
    assert parse("a" * 100_000) == [("a" * 16 * 1024, {})]
    assert parse("a " * 9000 + HUB, 'Basic realm="z"')[-1] == ("basic", {"realm": "z"})


def test_challenge_equal_fields_compares_equal() -> None:
    params = {"realm": "x"}
    challenge = Challenge("bearer", params)
    params["realm"] = "y"
    assert challenge.params == {"realm": "x"}
    assert challenge == Challenge.parse('Bearer realm="x"')[0]
    assert hash(challenge) == hash(Challenge("bearer", {"realm": "x"}))
    assert challenge != Challenge("bearer", {"realm": "y"})
    assert challenge != Challenge("basic", {"realm": "x"})
    assert Challenge("basic").params == {}
    with pytest.raises(TypeError):
        challenge.params["realm"] = "y"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        challenge.scheme = "basic"  # type: ignore[misc]


def test_challenge_pickled_or_copied_keeps_fields() -> None:
    [challenge] = Challenge.parse(HUB)
    assert pickle.loads(pickle.dumps(challenge)) == challenge
    assert copy.deepcopy(challenge) == challenge
    assert copy.copy(challenge) == challenge
