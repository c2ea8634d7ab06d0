"""Everything that ociwire raises of its own accord.

::

    OciwireError
    ├── UsageError(ValueError)                 the call was wrong: nothing was sent
    ├── TransportError                         there is no usable response
    │   ├── ConnectError(ConnectionError)      no connection, no TLS, no way through the proxy
    │   ├── TransportTimeout(TimeoutError)     a timeout or the deadline passed
    │   │   ├── ConnectTimeout(ConnectError)   ... before there was a connection: nothing was sent
    │   │   └── ReadTimeout                    ... while the request was sent or the response read
    │   ├── ReadError                          the connection broke while it was in use
    │   ├── ProtocolError                      what came back is not HTTP, or not what a registry may say
    │   ├── RedirectError                      a redirect that must not, or cannot, be followed
    │   └── BodyConsumedError                  a single-use body would have to be sent again
    ├── AuthError                              a token server, a helper or a credential source failed
    │   ├── CredentialsRejected                ... and it was a refusal
    │   └── AuthTimeout(TransportTimeout)      ... and it was for want of time
    ├── ContentError                           the bytes are not what they should be
    │   ├── DigestMismatch
    │   └── SizeMismatch
    ├── ReferrersUpdateError                   a manifest was stored, but its subject's referrers tag was not updated
    └── RegistryError                          the registry answered, and the answer is no
        ├── NotFound
        │   ├── BlobUnknown
        │   ├── ManifestUnknown
        │   ├── NameUnknown
        │   └── BlobUploadUnknown
        ├── Unauthorized
        ├── Denied
        ├── TooManyRequests
        ├── Unsupported
        ├── BlobUploadInvalid
        ├── DigestInvalid
        ├── ManifestInvalid
        ├── ManifestBlobUnknown
        ├── NameInvalid
        ├── SizeInvalid
        └── RangeInvalid

All of them can be pickled and deep-copied. None holds a secret of its request, in its text or in an attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._text import status_line

if TYPE_CHECKING:
    from ._http.messages import Headers, Request
    from ._oci.descriptor import Descriptor

__all__ = [
    "OciwireError",
    "UsageError",
    "TransportError",
    "ConnectError",
    "TransportTimeout",
    "ConnectTimeout",
    "ReadTimeout",
    "ReadError",
    "ProtocolError",
    "RedirectError",
    "BodyConsumedError",
    "AuthError",
    "CredentialsRejected",
    "AuthTimeout",
    "ContentError",
    "DigestMismatch",
    "SizeMismatch",
    "ReferrersUpdateError",
    "RegistryError",
    "NotFound",
    "BlobUnknown",
    "ManifestUnknown",
    "NameUnknown",
    "BlobUploadUnknown",
    "Unauthorized",
    "Denied",
    "TooManyRequests",
    "Unsupported",
    "BlobUploadInvalid",
    "DigestInvalid",
    "ManifestInvalid",
    "ManifestBlobUnknown",
    "NameInvalid",
    "SizeInvalid",
    "RangeInvalid",
]


class OciwireError(Exception):
    """The root: catch this to catch whatever ociwire raises of its own."""


class UsageError(OciwireError, ValueError):
    """The caller's mistake: a bad name, digest, host, header or length, or a closed client. Nothing was sent."""


class _RedactedRequest:
    """The attribute `request` of an exception.

    Setting it masks the secrets of the request's exchange in the exception, and stores the request without them, so
    that code that raises an exception need not do it.
    """

    def __get__(self, error: BaseException, owner: object = None) -> Request | None:
        request: Request | None = vars(error).get("request")
        return request

    def __set__(self, error: BaseException, request: Request | None) -> None:
        vars(error)["request"] = None if request is None else request._redacted_for(error)


class TransportError(OciwireError):
    """There is no usable response.

    Attributes:
        request: The request that failed, as far as it is known, without its credentials and without the query of a
            cross-origin URL.
    """

    request = _RedactedRequest()

    def __init__(self, message: str, *, request: Request | None = None) -> None:
        super().__init__(message)
        self.request = request


class ConnectError(TransportError, ConnectionError):
    """No connection could be made: name resolution, TCP, TLS (its certificates included) or the proxy."""


class TransportTimeout(TransportError, TimeoutError):
    """A timeout of the transport, or the deadline of the request, has passed."""


class ConnectTimeout(TransportTimeout, ConnectError):
    """No connection was made before the connect timeout or the deadline. Nothing was sent."""


class ReadTimeout(TransportTimeout):
    """Sending the request or reading the response took longer than the read timeout, or the deadline has passed.

    The server may have acted on the request.
    """


class ReadError(TransportError):
    """The connection broke while a request was being sent or its response read."""


class ProtocolError(TransportError):
    """The peer broke HTTP/1.1 (RFC 9112) or the OCI distribution specification."""


class RedirectError(TransportError):
    """A redirect that must not be followed, or cannot be."""


class BodyConsumedError(TransportError):
    """A single-use body was opened after its first chunk had been read: it cannot be sent again."""


class AuthError(OciwireError):
    """A token server, a credential helper or a credential source failed.

    Attributes:
        status: The status code of the token server's answer; 0 if there was none.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class CredentialsRejected(AuthError):
    """A server refused the credentials.

    Attributes:
        host: The registry that the credentials are for.
        realm: The URL of the token server that refused them; empty if it was the registry itself.
        status: The status code of the refusal.
    """

    def __init__(self, message: str, *, host: str = "", realm: str = "", status: int = 0) -> None:
        super().__init__(message, status=status)
        self.host = host
        self.realm = realm


class AuthTimeout(AuthError, TransportTimeout):
    """There was no token before a timeout or the deadline of the request. As an `AuthError`, it is not retried."""

    def __init__(self, message: str, *, status: int = 0, request: Request | None = None) -> None:
        TransportTimeout.__init__(self, message, request=request)
        self.status = status


class ContentError(OciwireError):
    """The bytes are not what they should be."""


class DigestMismatch(ContentError):
    """The content has another digest than it should have.

    Attributes:
        expected: The digest that was asked for.
        actual: The digest that the content has, or that the server claims for it.
    """

    def __init__(self, message: str, *, expected: str = "", actual: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class SizeMismatch(ContentError):
    """The content is longer or shorter than was said.

    Attributes:
        expected: The length that was said, in bytes.
        actual: The bytes counted when the mismatch showed; where the content is too long, what was counted until then.
    """

    def __init__(self, message: str, *, expected: int = 0, actual: int = 0) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class ReferrersUpdateError(OciwireError):
    """A manifest was stored, but the referrers tag of its subject was not updated.

    The registry has no referrers API, so that clients maintain a tag that lists the referrers. The manifest can be read
    by its digest and its tags, but it is not listed among the referrers of its subject. Pushing it again repeats the
    update. ``__cause__`` is the reason: a `RegistryError`, a `ContentError` or an `AuthError`. A `TransportError`
    during the update is raised as it is.

    Attributes:
        descriptor: The descriptor of the manifest that was stored.
    """

    def __init__(self, message: str, *, descriptor: Descriptor | None = None) -> None:
        super().__init__(message)
        self.descriptor = descriptor


class RegistryError(OciwireError):
    """The registry answered, and the answer is not the one that was asked for.

    Reads like ``404 Not Found: manifest unknown: manifest (x) unknown to registry``. The codes are those of the OCI
    distribution specification, section "Error Codes". A code that contradicts the status (416 with BLOB_UNKNOWN) is
    kept in `code`, but the status decides the class.

    Attributes:
        status: The status code of the response.
        code: The first error's ``code``, such as ``MANIFEST_UNKNOWN``; empty if the body had none.
        message: The first error's ``message``; where the body is not the specification's JSON, what it said instead.
        detail: The first error's ``detail``: any JSON value, or None.
        errors: All errors of the body, as they were sent.
        headers: The headers of the response, without cookies.
        body: The first 8 KiB of the body.
        request: The request, without its credentials and without the query of a cross-origin URL.

    In all of them the secrets of the request, of its redirects and of its token requests are masked, and cross-origin
    URLs have no query.
    """

    request = _RedactedRequest()

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        code: str = "",
        detail: Any = None,
        errors: tuple[dict[str, Any], ...] = (),
        headers: Headers | None = None,
        body: bytes = b"",
        request: Request | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.body = body
        self.request = request  # the last one: it masks the others

    def __str__(self) -> str:
        status = status_line(self.status) if self.status else ""
        reason = self.code.lower().replace("_", " ")
        return ": ".join(part for part in (status, reason, self.message) if part)


class NotFound(RegistryError):
    """What was asked for is not there."""


class BlobUnknown(NotFound):
    """``BLOB_UNKNOWN``: no such blob in the repository."""


class ManifestUnknown(NotFound):
    """``MANIFEST_UNKNOWN``: no such manifest or tag in the repository."""


class NameUnknown(NotFound):
    """``NAME_UNKNOWN``: no such repository."""


class BlobUploadUnknown(NotFound):
    """``BLOB_UPLOAD_UNKNOWN``: no such upload, or it is over."""


class Unauthorized(RegistryError):
    """``UNAUTHORIZED``: credentials are needed, or those that were sent are not good.

    Attributes:
        required_scope: The scope that the operation needs, such as ``repository:app:pull``; empty if none.
        challenged_scope: The scope that the registry's challenge names; empty if none. Behind a proxy that rewrites
            paths the two differ.
    """

    def __init__(
        self, message: str = "", *, required_scope: str = "", challenged_scope: str = "", **attributes: Any
    ) -> None:
        super().__init__(message, **attributes)
        self.required_scope = required_scope
        self.challenged_scope = challenged_scope

    def __str__(self) -> str:
        if not self.challenged_scope or self.challenged_scope == self.required_scope:
            return super().__str__()
        return (
            f"{super().__str__()} (the operation needs the scope {self.required_scope!r}, the registry's challenge"
            f" names {self.challenged_scope!r})"
        )


class Denied(RegistryError):
    """``DENIED``: the credentials are good, but not for this."""


class TooManyRequests(RegistryError):
    """``TOOMANYREQUESTS``: slow down.

    Attributes:
        retry_after: How many seconds the registry wants to be left alone; None if it did not say.
        limits: The registry's rate-limit headers (RateLimit-*, X-RateLimit-*, docker-ratelimit-source, Retry-After) in
            one line; empty if it sent none. The text of the error quotes them.
    """

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, limits: str = "", **attributes: Any
    ) -> None:
        super().__init__(message, **attributes)
        self.retry_after = retry_after
        self.limits = limits

    def __str__(self) -> str:
        return f"{super().__str__()}{f' ({self.limits})' if self.limits else ''}; {self._advice()}"

    def _advice(self) -> str:
        wait = "wait" if self.retry_after is None else f"wait {self.retry_after:.0f} s"
        return f"{wait}, send fewer requests, or log in: registries allow more requests with credentials"


class Unsupported(RegistryError):
    """``UNSUPPORTED``: this registry does not do that."""


class BlobUploadInvalid(RegistryError):
    """``BLOB_UPLOAD_INVALID``: the upload is invalid and must be restarted."""


class DigestInvalid(RegistryError):
    """``DIGEST_INVALID``: the content does not have the digest that was given for it."""


class ManifestInvalid(RegistryError):
    """``MANIFEST_INVALID``: the registry does not take this manifest."""


class ManifestBlobUnknown(RegistryError):
    """``MANIFEST_BLOB_UNKNOWN``: the manifest names a blob that the repository does not have."""


class NameInvalid(RegistryError):
    """``NAME_INVALID``: the registry does not take this repository name."""


class SizeInvalid(RegistryError):
    """``SIZE_INVALID``: the content has another length than was said, or is too large."""


class RangeInvalid(RegistryError):
    """``RANGE_INVALID``, or any 416: the range does not fit what the registry has."""
