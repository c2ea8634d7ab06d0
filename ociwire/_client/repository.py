"""One repository at a registry: its URLs, its scopes, and how its requests are sent.

This is the only module that builds a ``/v2/NAME/…`` URL or a repository scope. The probe ``GET /v2/`` of
`AuthTransport` is the one exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, final
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
    from .client import Client

__all__ = ["Repository", "add_query", "repository_of", "sender_of"]

_MAX_HEAD_ORIGINS = 64
# Registries and signed URLs that do not support HEAD answer it with one of these, whatever a GET would find.
_HEAD_UNSUPPORTED = frozenset({400, 403, 405, 406, 500, 501})


@final
class Repository:
    """A repository bound to one operation of a client. Thread-safe.

    Args:
        sender: Sends the requests.
        name: The repository's name.
        operation: The name of the operation, for `RequestInfo.operation`.

    Raises:
        UsageError: The name is not valid.
    """

    __slots__ = ("name", "operation", "sender")

    def __init__(self, sender: RequestSender, name: str, operation: str) -> None:
        self.name = check_repository(name)
        self.sender = sender
        self.operation = operation

    def with_options(self, **changes: Any) -> Repository:
        """Return the repository with other values in the named fields of `RequestInfo`."""
        return Repository(self.sender.with_options(**changes), self.name, self.operation)

    # Scopes

    @property
    def pull_scope(self) -> Scope:
        """The scope for reading."""
        return _scope(self.name, "pull")

    @property
    def push_scope(self) -> Scope:
        """The scope for writing. It includes reading, so that look-ups before an upload need no second token."""
        return _scope(self.name, "pull", "push")

    @property
    def delete_scope(self) -> Scope:
        """The scope for deleting."""
        return _scope(self.name, "delete")

    # URLs, as paths at the registry (specification, "Endpoints")

    def blob_url(self, digest: Digest) -> str:
        """The URL of a blob."""
        return f"/v2/{self.name}/blobs/{digest}"

    def uploads_url(self, parameters: Mapping[str, str] | None = None) -> str:
        """The URL to which a POST opens an upload session."""
        return add_query(f"/v2/{self.name}/blobs/uploads/", parameters or {})

    def manifest_url(self, reference: str) -> str:
        """The URL of a manifest, by tag or digest."""
        return f"/v2/{self.name}/manifests/{reference}"

    def tags_url(self) -> str:
        """The URL of the list of tags."""
        return f"/v2/{self.name}/tags/list"

    def referrers_url(self, digest: Digest, artifact_type: str | None = None) -> str:
        """The URL of the list of referrers of a manifest."""
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
        """Send a HEAD; returns the 200 response, closed. An error may need confirmation: see `needs_confirmation`.

        Raises:
            RegistryError: The status is another one.
            TransportError: There is no usable response.
        """
        response = self.send("HEAD", url, scope, ok=(200,), headers=headers)
        response.close()
        origins, origin = self.sender.state.head_origins, self._responding_origin(response)
        if origin not in origins and len(origins) < _MAX_HEAD_ORIGINS:
            # A redirect to a CDN that ends in 200 shows that both hosts support HEAD.
            origins.update((origin, str(self.sender.origin)))
        return response

    def needs_confirmation(self, refusal: RegistryError) -> bool:
        """Return whether an error response to a HEAD may only mean that HEAD is not supported: a GET must decide."""
        if refusal.status == 404:
            return self._responding_origin(refusal) not in self.sender.state.head_origins
        return refusal.status in _HEAD_UNSUPPORTED

    def _responding_origin(self, response: Response | RegistryError) -> str:
        """The origin that has sent a response, as text of the form ``scheme://host:port``."""
        url = str(self.sender.origin) if response.request is None else response.request.url
        return "/".join(url.split("/", 3)[:3])

    def get_first_byte(self, digest: Digest, scope: Scope) -> Response:
        """GET the first byte of a blob. Returns the open response; 416 means that the blob is empty."""
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

        201 is success (specification, "Endpoints"). Deployed registries answer 200, 202 and 204, too: these are success
        only if the response names the digest, or the registry has the content.

        Args:
            url: As for `send`.
            digest: The content's digest.
            body: The body of the PUT.
            is_stored: Asks the registry whether it has the content.
            headers: As for `send`.
            idempotent: As for `send`.

        Returns:
            The response, closed.

        Raises:
            RegistryError: The registry refused, or answered 200, 202 or 204 and does not have the content.
            ContentError: The response is an HTML page.
            TransportError: There is no usable response.
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
        error.message = (
            f"unexpected status: expected 201; the response does not name {digest}, and the registry does not have it:"
            " push it again"
        )
        error.args = (error.message,)
        raise error

    def delete(self, url: str, scope: Scope, *, idempotent: bool | None = None) -> None:
        """Send a DELETE.

        Raises:
            RegistryError: The status is none of 200, 202 and 204.
            TransportError: There is no usable response.
        """
        self.send("DELETE", url, scope, ok=(200, 202, 204), idempotent=idempotent).drain()

    def upload_location(self, response: Response) -> str:
        """Get the URL of an upload session from the Location of a response.

        Raises:
            ProtocolError: There is no Location, or it must not be followed.
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
    """Get a repository of a client, for the packages that build on it.

    Raises:
        UsageError: The name is not valid, or the client is closed.
    """
    return Repository(sender_of(client), name, operation)


def sender_of(client: Client) -> RequestSender:
    """Get the sender of a client, with its origin and options.

    Raises:
        UsageError: The client is closed.
    """
    return client._checked_sender


def add_query(url: str, parameters: Mapping[str, str]) -> str:
    """Add parameters to the query of a URL. The colons of digests and the slashes of names are not encoded."""
    if not parameters:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters, safe=':/')}"


@lru_cache(maxsize=1024)  # every request needs one
def _scope(name: str, *actions: str) -> Scope:
    return Scope.repository(name, *actions)
