"""Parsers raise `UsageError` (`ProtocolError` for data of a server) for invalid input, and values round-trip."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ociwire._http.body import Body
from ociwire._http.headers import Headers
from ociwire._http.messages import Request
from ociwire._http.origin_policy import upload_location
from ociwire._http.urls import Origin, check_url, split_url
from ociwire._oci.descriptor import Descriptor, Platform
from ociwire._oci.digest import Digest
from ociwire._oci.host import check_host
from ociwire._oci.reference import Reference, check_repository, check_tag
from ociwire._oci.scope import Scope
from ociwire.errors import ProtocolError, UsageError

HEX = "0123456789abcdef" * 4
DIGESTS = st.one_of(
    st.binary().map(Digest.of),
    st.binary().map(lambda data: Digest.of(data, "sha512")),
    st.from_regex(r"\A[a-z0-9]{3,5}([+._-][a-z0-9]{1,3})?:[a-zA-Z0-9=_-]{1,20}\Z")
    .filter(lambda text: not text.startswith(("sha256:", "sha384:", "sha512:")))
    .map(Digest),
)

# Nearly valid text reaches more code of a parser than random text.
PIECES = [
    "https://",
    "http://",
    "//",
    "/",
    ":",
    "@",
    "?",
    "#",
    ".",
    "..",
    "-",
    "_",
    "[",
    "]",
    "[::1]",
    "%41",
    "\\",
    " ",
]
PIECES += [
    "\t",
    "\r\n",
    "\0",
    "é",
    "A",
    "a",
    "0",
    ":5000",
    ":99999",
    "localhost",
    "docker.io",
    "sha256",
    f"sha256:{HEX}",
]
PIECES += [
    "library",
    "user:pass@",
    HEX,
    "127.1",
    "*",
    ",",
    ";",
    "=",
    "ftp:",
    "\N{KELVIN SIGN}",
    "\N{ARABIC-INDIC DIGIT ONE}",
]
TEXT = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary())
ODD = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.one_of(st.text(), st.integers()), SCALARS, max_size=3),
    st.builds(object),
    st.just(str),
    st.builds(bytearray, st.binary()),
)

READERS: dict[str, Callable[[Any], object]] = {
    "Digest": Digest,
    "Reference.parse": Reference.parse,
    "Descriptor.from_dict": Descriptor.from_dict,
    "Platform.from_dict": Platform.from_dict,
    "check_host": check_host,
    "check_url": check_url,
    "Origin.of": Origin.of,
    "check_repository": check_repository,
    "check_tag": check_tag,
    "Headers": Headers,
    "Body.of": Body.of,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@given(text=TEXT)
def test_parser_any_text_is_accepted_or_refused(read: Callable[[Any], object], text: str) -> None:
    with contextlib.suppress(UsageError):
        read(text)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@given(value=ODD)
@example(None)
def test_parser_any_object_is_accepted_or_refused(read: Callable[[Any], object], value: object) -> None:
    with contextlib.suppress(UsageError):
        read(value)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
PLATFORM_GARBAGE = st.fixed_dictionaries(
    {},
    optional={
        "architecture": st.one_of(st.just("arm"), JSON),
        "os": st.one_of(st.just("linux"), JSON),
        "os.version": JSON,
        "os.features": JSON,
        "variant": JSON,
        "features": JSON,
        "other": JSON,
    },
)
DESCRIPTOR_GARBAGE = st.fixed_dictionaries(
    {
        "mediaType": st.one_of(st.just("a/b"), JSON),
        "digest": st.one_of(st.just(f"sha256:{HEX}"), JSON),
        "size": st.one_of(st.just(7), JSON),
    },
    optional={
        "urls": JSON,
        "annotations": JSON,
        "data": st.one_of(st.binary().map(lambda data: base64.b64encode(data).decode()), JSON),
        "platform": st.one_of(PLATFORM_GARBAGE, JSON),
        "artifactType": st.one_of(st.just("a/b"), JSON),
        "other": JSON,
    },
)


@given(st.one_of(JSON, DESCRIPTOR_GARBAGE))
def test_descriptor_from_dict_any_json_is_accepted_or_refused(value: Any) -> None:
    try:
        descriptor = Descriptor.from_dict(value)
    except UsageError:
        return
    assert Descriptor.from_dict(json.loads(json.dumps(descriptor.to_dict()))) == descriptor


@given(st.one_of(JSON, PLATFORM_GARBAGE))
def test_platform_from_dict_any_json_is_accepted_or_refused(value: Any) -> None:
    try:
        platform = Platform.from_dict(value)
    except UsageError:
        return
    assert Platform.from_dict(json.loads(json.dumps(platform.to_dict()))) == platform


HEADER_TEXT = st.one_of(st.text(max_size=5), st.sampled_from(["Accept", "Authorization", "A B", "x\r\ny", "é", " a "]))
PAIRS = st.lists(st.one_of(st.tuples(HEADER_TEXT, HEADER_TEXT), st.tuples(SCALARS, SCALARS), SCALARS), max_size=3)


@given(st.one_of(PAIRS, st.dictionaries(HEADER_TEXT, st.one_of(HEADER_TEXT, SCALARS), max_size=3)))
def test_headers_any_fields_are_sendable_or_refused(fields: Any) -> None:
    try:
        headers = Headers(fields)
    except UsageError:
        return
    for name, value in headers.items():
        assert name.isascii()
        assert not set(" \t:\r\n\0") & set(name)
        assert not set("\r\n\0") & set(value)
        assert value == value.strip(" \t")
        value.encode("latin-1")
    assert Headers(list(headers.items())) == headers
    assert sum(len(headers.get_all(name)) for name in headers) == len(headers.items())


@given(
    method=st.one_of(st.sampled_from(["GET", "PUT", "G T", ""]), ODD),
    url=st.one_of(st.just("/v2/"), TEXT.map("/".__add__), TEXT.map("https://".__add__), TEXT, ODD),
    headers=st.one_of(st.just(()), PAIRS, ODD),
    body=st.one_of(st.none(), st.binary(), ODD),
)
@example(method="GET", url="/v2/", headers=None, body=None)
def test_request_any_arguments_are_sendable_or_refused(method: Any, url: Any, headers: Any, body: Any) -> None:
    try:
        request = Request(method, url, headers, body)
    except UsageError:
        return
    line = f"{request.method} {request.url} HTTP/1.1"
    assert len(line.split()) == 3
    assert line.isascii()
    assert line.isprintable()


ASKED = st.sampled_from(["https://registry.example/v2/a/?x=1", "http://localhost:5000/v2/a/", "https://[::1]:1/"])


@given(ASKED, st.one_of(TEXT, TEXT.map("https://".__add__), TEXT.map("//".__add__), TEXT.map("/".__add__)))
def test_upload_location_any_text_is_safe_or_refused(asked: str, location: str) -> None:
    try:
        url = upload_location(asked, location)
    except ProtocolError:
        return
    check_url(url)
    assert not (asked.startswith("https:") and Origin.of(url).scheme == "http")
    assert "@" not in url.split("//", 1)[1].split("/", 1)[0].split("?", 1)[0].split("#", 1)[0]


@given(TEXT)
def test_scope_parse_any_text_round_trips(text: str) -> None:
    scope = Scope.parse(text)
    assert str(scope) == text
    assert Scope.parse(str(scope)) == scope


@given(TEXT)
def test_check_host_any_text_is_lower_case_and_stable(text: str) -> None:
    try:
        host = check_host(text)
    except UsageError:
        return
    assert host == text.lower() == check_host(host)
    assert Origin.of(f"https://{text}") == Origin.of(f"https://{host}/")


@given(st.one_of(TEXT, TEXT.map("https://".__add__), TEXT.map("http://h".__add__)))
def test_split_url_any_text_round_trips(text: str) -> None:
    try:
        origin, target = split_url(text)
    except UsageError:
        return
    assert Origin.of(str(origin)) == origin
    assert split_url(f"{origin}{target}") == (origin, target)


COMPONENT = st.from_regex(r"\A[a-z0-9]{1,4}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}\Z")
REPOSITORIES = st.lists(COMPONENT, min_size=1, max_size=4).map("/".join)
TAGS = st.from_regex(r"\A[a-zA-Z0-9_][a-zA-Z0-9._-]{0,10}\Z")
HOSTS = st.sampled_from(
    [
        "docker.io",
        "ghcr.io",
        "localhost",
        "localhost:5000",
        "registry:80",
        "Registry",
        "GHCR.io",
        "[::1]",
        "[2001:DB8::1]:1",
    ]
)


@given(HOSTS, REPOSITORIES, st.none() | TAGS, st.none() | DIGESTS)
def test_reference_str_round_trips(host: str, repository: str, tag: str | None, digest: Digest | None) -> None:
    if host == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    reference = Reference(host, repository, tag, digest)
    assert Reference.parse(str(reference)) == reference


@given(REPOSITORIES, st.none() | TAGS, st.none() | DIGESTS)
def test_reference_parse_returns_joined_parts(repository: str, tag: str | None, digest: Digest | None) -> None:
    text = f"ghcr.io/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    assert Reference.parse(text) == Reference("ghcr.io", repository, tag, digest)
    assert str(Reference.parse(text)) == text


@given(TEXT)
def test_reference_parse_any_text_round_trips(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(reference)) == reference


MEDIA_TYPES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,5}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,5}\Z")
STRINGS = st.lists(st.text(max_size=5), max_size=3).map(tuple)
PLATFORMS = st.builds(Platform, st.text(), st.text(), st.text(), STRINGS, st.text(), STRINGS)
DESCRIPTORS = st.builds(
    Descriptor,
    MEDIA_TYPES,
    DIGESTS,
    st.integers(0, 2**63 - 1),
    urls=STRINGS,
    annotations=st.none() | st.dictionaries(st.text(), st.text(), max_size=3),
    data=st.none() | st.binary(),
    platform=st.none() | PLATFORMS,
    artifact_type=st.none() | MEDIA_TYPES,
)


@given(DESCRIPTORS)
def test_descriptor_json_round_trips(descriptor: Descriptor) -> None:
    arrived = Descriptor.from_dict(json.loads(json.dumps(descriptor.to_dict())))
    assert arrived == descriptor
    assert hash(arrived) == hash(descriptor)
    assert arrived.to_dict() == descriptor.to_dict()


@given(DIGESTS)
def test_digest_str_round_trips(digest: Digest) -> None:
    assert Digest(str(digest)) == digest
    assert f"{digest.algorithm}:{digest.encoded}" == digest
