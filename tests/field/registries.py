"""A fake registry with a token server, for the rows about authentication."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from ociwire import AuthTransport, Request, RequestInfo, Response, Scope
from ociwire.auth import Credential, CredentialSource, StaticCredentials

HOST = "registry.example"
ORIGIN = f"https://{HOST}"
REALM = "https://auth.example/token"
CREDENTIAL = Credential(username="ci", password="sEcReT-42")


def challenge(
    scope: str = "", *, realm: str = REALM, service: str = HOST, status: int = 401, error: str = ""
) -> Response:
    params = {"realm": realm, "service": service, "scope": scope, "error": error}
    text = ",".join(f'{name}="{value}"' for name, value in params.items() if value)
    return Response(status, {"WWW-Authenticate": f"Bearer {text}"}, b'{"errors": [{"code": "UNAUTHORIZED"}]}')


def token(*scopes: str) -> Response:
    """Return the response of a token server. The token consists of the granted scopes, joined by ``+``."""
    return Response(
        200, (), json.dumps({"token": "+".join(scopes).replace(" ", "+") or "none", "expires_in": 300}).encode()
    )


class FakeRegistry:
    """Registry and token server that answer requests with `serve` and `grant`, and record them.

    Args:
        serve: Returns the response to a request. Called with the request and the scopes of its token, None without one.
        grant: Returns the response to a token request. Called with the requested scopes and the URL. Defaults to a
            token with these scopes.

    Attributes:
        sent: ``METHOD PATH AUTHORIZATION`` of each request to the registry.
        token_requests: The scopes of each token request.
        realms: The URL of each token request, without its query.
    """

    def __init__(
        self,
        serve: Callable[[Request, set[str] | None], Response],
        grant: Callable[[list[str], str], Response] = lambda scopes, url: token(*scopes),
    ) -> None:
        self._serve, self._grant = serve, grant
        self.sent: list[str] = []
        self.token_requests: list[list[str]] = []
        self.realms: list[str] = []

    def round_trip(self, request: Request, /) -> Response:
        url = urlsplit(request.url)
        if request.info.operation == "token":
            scopes = parse_qs(url.query).get("scope", [])
            self.token_requests.append(scopes)
            self.realms.append(request.url.partition("?")[0])
            return self._grant(scopes, request.url).replace(request=request)
        authorization = request.headers.get("authorization")
        self.sent.append(f"{request.method} {url.path} {authorization or 'nothing'}")
        scopes_of_token = None if authorization is None else set(authorization.partition(" ")[2].split("+"))
        return self._serve(request, scopes_of_token).replace(request=request)

    def close(self) -> None:
        pass

    def transport(self, credentials: CredentialSource | None = None) -> AuthTransport:
        return AuthTransport(self, credentials=credentials or StaticCredentials(HOST, CREDENTIAL))


def get(path: str, scope: str, method: str = "GET", body: bytes | None = None) -> Request:
    return Request(method, f"{ORIGIN}{path}", (), body, RequestInfo(required_scope=Scope.parse(scope)))


def pull(repository: str) -> Request:
    return get(f"/v2/{repository}/manifests/latest", f"repository:{repository}:pull")
