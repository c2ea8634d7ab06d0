"""URLs and passwords that other clients refuse: underscores in hosts, unencoded characters, keys as passwords."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import pytest

from ociwire import (
    Client,
    Descriptor,
    FunctionTransport,
    Origin,
    Reference,
    Request,
    Response,
    Transport,
    default_transport,
)
from ociwire.auth import Credential, StaticCredentials
from ociwire.testing import AuthGuard, MemoryRegistry
from ociwire.transport._urllib3.proxy import ProxySelector
from tests._support.doubles import RecordingTransport
from tests.field.rows import Row

TITLE = "URLs and passwords"

CONTENT = b"content"
DIGEST = Descriptor.of(CONTENT).digest
JSON_KEY = '{\n  "type": "service_account",\n\t"private_key": "-----BEGIN PRIVATE KEY-----\\nMIIE…\\n"\r\n}\n'
PASSWORDS = {"_json_key": JSON_KEY, "me": "tab\t, snowman \N{SNOWMAN} and bell \a"}


@dataclass(frozen=True, kw_only=True)
class Pull(Row):
    """Pull of a blob from an unusual URL or with an unusual password.

    Attributes:
        host: The registry's host.
        fake: Creates the transport that answers requests.
        url: The URL of the last request.
        credential: The credentials for the registry. None means none.
    """

    host: str = "registry.example"
    fake: Callable[[], Transport]
    url: str
    credential: Credential | None = None


@dataclass(frozen=True, kw_only=True)
class ProxyURL(Row):
    """URL of a proxy.

    Attributes:
        url: The URL.
        proxy: The origin of the proxy.
        headers: The headers that are sent to the proxy.
    """

    url: str
    proxy: str
    headers: dict[str, str]


def basic(userinfo: str) -> str:
    return f"Basic {base64.b64encode(userinfo.encode()).decode()}"


def memory_registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    with Client("registry.example", registry) as client:
        client.push_blob("app", Descriptor.of(CONTENT), CONTENT)
    return registry


def redirect_blobs(location: str) -> Callable[[], Transport]:
    """Return a factory of registries that redirect requests for blobs, and send the blob from all other URLs."""

    def answer(request: Request) -> Response:
        if "/blobs/" in request.url:
            return Response(307, {"Location": location}, b"", request)
        assert "authorization" not in request.headers
        return Response(200, {"Content-Length": str(len(CONTENT))}, CONTENT, request)

    return lambda: FunctionTransport(answer)


def guarded_registry(**options: Any) -> Callable[[], Transport]:
    return lambda: AuthGuard(memory_registry(), users=PASSWORDS, **options)


def registry_with_identity_token(token: str) -> Callable[[], Transport]:
    """Return a factory of registries whose token server accepts an identity token."""
    return lambda: AuthGuard(memory_registry(), users=PASSWORDS, identity_tokens={token: "me"})


BLOB = f"https://registry.example/v2/app/blobs/{DIGEST}"
ROWS: tuple[Row, ...] = (
    Pull(
        name="redirect_to_a_host_with_an_underscore",
        registry="S3 and other buckets",
        behaviour="A blob is redirected to a bucket whose host name has an underscore.",
        result="Follows the redirect.",
        source="[moby#27447](https://github.com/moby/moby/issues/27447)",
        fake=redirect_blobs("https://my_bucket.store.example/blob?sig=abc"),
        url="https://my_bucket.store.example/blob?sig=abc",
    ),
    Pull(
        name="registry_host_with_an_underscore",
        registry="Registries in containers",
        behaviour="The host of the registry is the name of a container, such as `qual_registry:5000`.",
        result="Accepts the host, also in references.",
        source="[regclient#933](https://github.com/regclient/regclient/issues/933)",
        host="qual_registry:5000",
        fake=memory_registry,
        url=f"https://qual_registry:5000/v2/app/blobs/{DIGEST}",
    ),
    Pull(
        name="artifactory_host_with_an_underscore",
        registry="Artifactory",
        behaviour="Each repository has its own subdomain, which can contain underscores; the realm has the same host.",
        result="Accepts the host in references, challenges and credentials.",
        source="[moby#34975](https://github.com/moby/moby/issues/34975)",
        host="docker_test.artifactory.example",
        fake=guarded_registry(realm="https://auth_docker.artifactory.example/token"),
        url=f"https://docker_test.artifactory.example/v2/app/blobs/{DIGEST}",
        credential=Credential(username="me", password=PASSWORDS["me"]),
    ),
    Pull(
        name="location_with_spaces",
        registry="Artifactory",
        behaviour="URLs in responses contain spaces and other characters that are not valid in URLs.",
        result="Percent-encodes these characters and follows the redirect.",
        source="[artifactory-client#66](https://github.com/chef/artifactory-client/pull/66)",
        fake=redirect_blobs('https://cdn.example/my repo/blob?name={"a": "b"}|c'),
        url="https://cdn.example/my%20repo/blob?name=%7B%22a%22:%20%22b%22%7D%7Cc",
    ),
    Pull(
        name="location_with_raw_utf_8",
        registry="Azure App Service",
        behaviour="A redirect's Location has UTF-8 bytes that are not percent-encoded.",
        result="Percent-encodes the bytes that the server sent.",
        source="[aspnetcore#18090](https://github.com/dotnet/aspnetcore/issues/18090)",
        fake=redirect_blobs("/store/stenstr\N{LATIN CAPITAL LETTER A WITH TILDE}\N{PILCROW SIGN}ms"),
        url="https://registry.example/store/stenstr%C3%B6ms",
    ),
    Pull(
        name="http_realm_on_the_own_host",
        registry="Harbor",
        behaviour="Behind a proxy that terminates TLS, the challenge names an http realm on the registry's own host.",
        result="Requests the token with https; the password is never sent with http.",
        source="[harbor#3114](https://github.com/goharbor/harbor/issues/3114)",
        fake=lambda: FunctionTransport(harbor),
        url=BLOB,
        credential=Credential(username="me", password=PASSWORDS["me"]),
    ),
    Pull(
        name="json_key_with_line_breaks",
        registry="Google Artifact Registry",
        behaviour="The password of `_json_key` is a JSON file of several lines.",
        result="Sends it unchanged, encoded in base64.",
        source="[buildkite-plugins/docker-login-buildkite-plugin#70]"
        "(https://github.com/buildkite-plugins/docker-login-buildkite-plugin/pull/70)",
        fake=guarded_registry(),
        url=BLOB,
        credential=Credential(username="_json_key", password=JSON_KEY),
    ),
    Pull(
        name="password_with_control_characters_by_basic",
        registry="Registries with Basic authentication",
        behaviour="Passwords contain tabs, other control characters and any Unicode.",
        result="Sends them as UTF-8, encoded in base64.",
        source="[RFC 7617, section 2.1](https://www.rfc-editor.org/rfc/rfc7617#section-2.1)",
        fake=guarded_registry(scheme="basic"),
        url=BLOB,
        credential=Credential(username="me", password=PASSWORDS["me"]),
    ),
    Pull(
        name="identity_token_with_line_breaks",
        registry="Token servers with OAuth2",
        behaviour="An identity token contains characters that are not valid in a header.",
        result="Sends it URL-encoded in a POST.",
        source="[distribution: OAuth2 token authentication](https://distribution.github.io/distribution/spec/auth/oauth/)",
        fake=registry_with_identity_token("line 1\nline 2 \N{SNOWMAN}"),
        url=BLOB,
        credential=Credential(identity_token="line 1\nline 2 \N{SNOWMAN}"),
    ),
    ProxyURL(
        name="proxy_password_with_a_slash",
        registry="Proxies",
        behaviour="The password in the proxy's URL has a slash, a question mark or a number sign that is not encoded.",
        result="Parses all text up to the last `@` as user and password, and never shows it.",
        source="[rosa#3052](https://github.com/openshift/rosa/pull/3052)",
        url="http://proxyuser:Qvo/trk?C#5@10.0.0.161:8080",
        proxy="http://10.0.0.161:8080",
        headers={"Proxy-Authorization": basic("proxyuser:Qvo/trk?C#5")},
    ),
    ProxyURL(
        name="proxy_password_with_a_scheme",
        registry="Proxies",
        behaviour="The password in the proxy's URL contains `://` and `@`.",
        result="The first `://` ends the scheme, and the last `@` ends the password.",
        source="[pypac#49](https://github.com/carsonyl/pypac/issues/49)",
        url="http://proxyuser:https://@:@@proxy.example",
        proxy="http://proxy.example",
        headers={"Proxy-Authorization": basic("proxyuser:https://@:@")},
    ),
    ProxyURL(
        name="proxy_host_with_an_underscore",
        registry="Proxies in containers",
        behaviour="The host of the proxy is the name of a container that has an underscore.",
        result="Accepts the host.",
        source="[distribution#2160](https://github.com/distribution/distribution/issues/2160)",
        url="http://my_proxy_1:3128",
        proxy="http://my_proxy_1:3128",
        headers={},
    ),
)


def harbor(request: Request) -> Response:
    if request.url.startswith("https://registry.example/service/token"):
        assert request.headers["authorization"].startswith("Basic ")
        assert parse_qs(request.url.partition("?")[2])["service"] == ["harbor-registry"]
        return Response(200, (), b'{"token": "good"}', request)
    assert request.url == BLOB
    if request.headers.get("authorization") == "Bearer good":
        return Response(200, {"Content-Length": str(len(CONTENT))}, CONTENT, request)
    realm = "http://registry.example/service/token"
    return Response(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="harbor-registry"'}, b"", request)


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Pull)], ids=str)
def test_get_blob_unusual_url_or_password_succeeds(row: Pull) -> None:
    base = RecordingTransport(row.fake())
    source = StaticCredentials(row.host, row.credential or Credential())
    transport = default_transport(base=base, credentials=source, retry=False)
    client = Client(Reference.parse(f"{row.host}/app").host, transport)
    assert client.get_blob("app", DIGEST).read() == CONTENT
    assert base.requests[-1].url == row.url


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, ProxyURL)], ids=str)
def test_proxy_selector_url_with_special_characters_is_parsed(row: ProxyURL) -> None:
    proxy = ProxySelector(row.url, trust_env=False).get(Origin.of(BLOB))
    assert proxy is not None
    assert str(proxy.origin) == row.proxy
    assert proxy.headers == row.headers
