"""One repository at a registry: its URLs, its scopes, and how its requests are sent.

This is the only module that builds a ``/v2/NAME/…`` URL or a repository scope. The probe ``GET /v2/`` of
`AuthTransport` is the one exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, final
from urllib.parse import urlencode

from .._http.body import Body
from .._http.messages import Response
from .._oci.digest import Digest
from .._oci.reference import check_repository
from .._oci.scope import Scope
from .session import Session

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Repository", "add_query", "repository_of"]


@final
class Repository:
    """A repository, as one operation of a client uses it. May be shared by threads.

    Args:
        session: Sends the requests.
        name: The repository's name.
        operation: The name of the operation, for `RequestInfo.operation`.

    Raises:
        UsageError: The name is not valid.
    """

    __slots__ = ("name", "operation", "session")

    def __init__(self, session: Session, name: str, operation: str) -> None:
        self.name = check_repository(name)
        self.session = session
        self.operation = operation

    # Scopes

    @property
    def pull(self) -> Scope:
        """The scope for reading."""
        return _scope(self.name, "pull")

    @property
    def push(self) -> Scope:
        """The scope for writing. It includes reading, so that look-ups before an upload need no second token."""
        return _scope(self.name, "pull", "push")

    @property
    def delete(self) -> Scope:
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
        """Send one request of the operation; see `Session.send`."""
        return self.session.send(
            self.operation, method, url, scope, ok=ok, headers=headers, body=body, idempotent=idempotent
        )

    def head(self, url: str, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
        """Send a HEAD; see `Session.head`."""
        return self.session.head(self.operation, url, scope, headers)

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
        """Send the PUT that stores a blob or a manifest; see `Session.put`."""
        return self.session.put(
            self.operation,
            url,
            self.push,
            digest,
            body,
            is_stored=is_stored,
            headers=headers,
            idempotent=idempotent,
        )

    def __repr__(self) -> str:
        return f"<Repository {self.session.origin.netloc}/{self.name}>"


def repository_of(client: Client, name: str, operation: str) -> Repository:
    """Get a repository of a client, for the packages that build on it.

    Raises:
        UsageError: The name is not valid, or the client is closed.
    """
    return Repository(client._session, name, operation)


def add_query(url: str, parameters: Mapping[str, str]) -> str:
    """Add parameters to the query of a URL. Colons and slashes stay as they are, as registries expect them."""
    if not parameters:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters, safe=':/')}"


@lru_cache(maxsize=1024)  # every request needs one
def _scope(name: str, *actions: str) -> Scope:
    return Scope.repository(name, *actions)
