"""A repository of a registry: its URLs, its scopes, and requests to it.

URLs of the form ``/v2/NAME/…`` and repository scopes are built only in this module. The only other path of the API is
``/v2/``, which `AuthTransport` requests to probe for a challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, final
from urllib.parse import urlencode

from .._http.body import Body
from .._http.messages import Response
from .._http.origin_policy import upload_location
from .._oci.digest import Digest
from .._oci.reference import check_repository
from .._oci.scope import Scope
from ..errors import ProtocolError, RegistryError
from .error_mapping import error_from_response, names_digest
from .request_sender import RequestSender

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._http.messages import RequestInfoFields
    from .client import Client

__all__ = ["Repository", "add_query", "repository_of", "sender_of"]

_MAX_HEAD_ORIGINS = 64
# Statuses that registries and signed URLs without support for HEAD return for a HEAD, even if a GET would succeed.
_HEAD_UNSUPPORTED = frozenset({400, 403, 405, 406, 500, 501})


@final
class Repository:
    """Repository that sends the requests of one operation of a client. Thread-safe.

    Args:
        sender: Sender of the requests.
        name: Name of the repository.
        operation: Name of the operation, for `RequestInfo.operation`.

    Raises:
        UsageError: The name is invalid.
    """

    __slots__ = ("name", "operation", "sender")
    name: str
    sender: RequestSender
    operation: str

    def __init__(self, sender: RequestSender, name: str, operation: str) -> None:
        self.name: str = check_repository(name)
        self.sender: RequestSender = sender
        self.operation: str = operation

    def with_options(self, **changes: Unpack[RequestInfoFields]) -> Repository:
        """Return a copy whose requests have the given values in the fields of `RequestInfo`."""
        return Repository(self.sender.with_options(**changes), self.name, self.operation)

    # Scopes

    @property
    def pull_scope(self) -> Scope:
        """Scope for reading."""
        return _scope(self.name, "pull")

    @property
    def push_scope(self) -> Scope:
        """Scope for writing. It includes pull, so that lookups before an upload do not require another token."""
        return _scope(self.name, "pull", "push")

    @property
    def delete_scope(self) -> Scope:
        """Scope for deleting."""
        return _scope(self.name, "delete")

    # URLs, as paths (specification, "Endpoints")

    def blob_url(self, digest: Digest) -> str:
        """Return the URL of a blob."""
        return f"/v2/{self.name}/blobs/{digest}"

    def uploads_url(self, parameters: Mapping[str, str] | None = None) -> str:
        """Return the URL for the POST that opens an upload session."""
        return add_query(f"/v2/{self.name}/blobs/uploads/", parameters or {})

    def manifest_url(self, reference: str) -> str:
        """Return the URL of a manifest, by tag or digest."""
        return f"/v2/{self.name}/manifests/{reference}"

    def tags_url(self) -> str:
        """Return the URL of the list of tags."""
        return f"/v2/{self.name}/tags/list"

    def referrers_url(self, digest: Digest, artifact_type: str | None = None) -> str:
        """Return the URL of the list of referrers of a manifest."""
        parameters = {} if artifact_type is None else {"artifactType": artifact_type}
        return add_query(f"/v2/{self.name}/referrers/{digest}", parameters)

    # Requests

    def send(
        self,
        method: str,
        url: str,
        scope: Scope,
        *,
        ok: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        idempotent: bool | None = None,
    ) -> Response:
        """Send one request of the operation; see `RequestSender.send`."""
        return self.sender.send(
            self.operation, method, url, scope, ok=ok, headers=headers, body=body, idempotent=idempotent
        )

    def head(self, url: str, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
        """Send a HEAD, and return the closed response.

        Raises:
            RegistryError: The status is not 200. If `needs_confirmation` is true, confirm the error with a GET.
            TransportError: No usable response was received.
        """
        response = self.send("HEAD", url, scope, ok=(200,), headers=headers)
        response.close()
        origins, origin = self.sender.state.head_origins, self._responding_origin(response)
        if origin not in origins and len(origins) < _MAX_HEAD_ORIGINS:
            # After a redirect to a CDN that responds with 200, both hosts are known to support HEAD.
            origins.update((origin, str(self.sender.origin)))
        return response

    def needs_confirmation(self, refusal: RegistryError) -> bool:
        """Return whether an error response to a HEAD may mean only that the server does not support HEAD."""
        if refusal.status == 404:
            return self._responding_origin(refusal) not in self.sender.state.head_origins
        return refusal.status in _HEAD_UNSUPPORTED

    def _responding_origin(self, response: Response | RegistryError) -> str:
        """Return the origin that sent a response, in the form ``scheme://host:port``."""
        url = str(self.sender.origin) if response.request is None else response.request.url
        return "/".join(url.split("/", 3)[:3])

    def get_first_byte(self, digest: Digest, scope: Scope) -> Response:
        """GET the first byte of a blob, and return the open response. A 416 means that the blob is empty."""
        return self.send("GET", self.blob_url(digest), scope, ok=(200, 206, 416), headers={"Range": "bytes=0-0"})

    def put(
        self,
        url: str,
        digest: Digest,
        body: Body | None,
        *,
        is_stored: Callable[[], bool],
        headers: Mapping[str, str],
        idempotent: bool | None = None,
    ) -> Response:
        """Send the PUT that stores a blob or a manifest.

        A successful response has status 201 (specification, "Endpoints"). Some registries respond with 200, 202 or 204
        instead. Such a response counts as success only if it contains the digest, or if the registry has the content.

        Args:
            url: As for `send`.
            digest: Digest of the content.
            body: Body of the PUT.
            is_stored: Function that queries whether the registry has the content.
            headers: As for `send`.
            idempotent: As for `send`.

        Returns:
            The closed response.

        Raises:
            RegistryError: The registry responded with an error, or with 200, 202 or 204 without storing the content.
            ContentError: The response is an HTML page.
            TransportError: No usable response was received.
        """
        response = self.send(
            "PUT",
            url,
            self.push_scope,
            ok=(200, 201, 202, 204),
            headers=headers,
            body=body,
            idempotent=idempotent,
        )
        response.drain()
        if response.status == 201 or names_digest(response, digest) or is_stored():
            return response
        error = error_from_response(response)
        error.message = f"unexpected status: expected 201, and the registry does not have {digest} (push it again)"
        error.args = (error.message,)
        raise error

    def delete(self, url: str, scope: Scope, *, idempotent: bool | None = None) -> None:
        """Send a DELETE.

        Raises:
            RegistryError: The status is not 200, 202 or 204.
            TransportError: No usable response was received.
        """
        self.send("DELETE", url, scope, ok=(200, 202, 204), idempotent=idempotent).drain()

    def upload_location(self, response: Response) -> str:
        """Return the URL of an upload session from the Location of a response.

        Raises:
            ProtocolError: The Location is missing, is invalid, or changes the scheme from https to http.
        """
        requested = response.request.url if response.request is not None else str(self.sender.origin)
        try:
            return upload_location(requested, response.headers.get("location"))
        except ProtocolError as error:
            error.request = response.request
            raise

    def __repr__(self) -> str:
        return f"<Repository {self.sender.origin.netloc}/{self.name}>"


def repository_of(client: Client, name: str, operation: str) -> Repository:
    """Return a repository of a client, for packages that extend the client.

    Raises:
        UsageError: The name is invalid, or the client is closed.
    """
    return Repository(sender_of(client), name, operation)


def sender_of(client: Client) -> RequestSender:
    """Return the sender of a client, which has its origin and options.

    Raises:
        UsageError: The client is closed.
    """
    return client._checked_sender


def add_query(url: str, parameters: Mapping[str, str]) -> str:
    """Return a URL with parameters added to its query. The : of digests and the / of names are not encoded."""
    if not parameters:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters, safe=':/')}"


@lru_cache(maxsize=1024)  # called for each request
def _scope(name: str, *actions: str) -> Scope:
    return Scope.repository(name, *actions)
