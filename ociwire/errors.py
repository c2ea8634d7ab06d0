"""Exceptions of ociwire.

Every exception derives from `OciwireError`. A second base class is given in parentheses::

    OciwireError                               base class of all exceptions
    ├── UsageError(ValueError)                 invalid argument, or use of a closed object; nothing was sent
    ├── TransportError                         no usable response was received
    │   ├── ConnectError(ConnectionError)      connecting failed: name resolution, TCP, TLS or the proxy
    │   ├── TransportTimeout(TimeoutError)     a timeout or the deadline expired
    │   │   ├── ConnectTimeout(ConnectError)   ... while connecting; nothing was sent
    │   │   ├── ReadTimeout                    ... while sending the request or reading the response
    │   │   └── DeadlinePassed(UsageError)     ... before the options of a client were changed; nothing was sent
    │   ├── ReadError                          the connection was lost while sending or reading
    │   ├── ProtocolError                      the response violates HTTP/1.1 or the distribution specification
    │   ├── RedirectError                      a redirect is refused, or cannot be followed
    │   └── BodyConsumedError                  a single-use body cannot be sent again
    ├── AuthError                              a token server, credential helper or credential source failed
    │   ├── CredentialsRejected                ... because it rejected the credentials
    │   └── AuthTimeout(TransportTimeout)      ... because a timeout or the deadline expired
    ├── ContentError                           the received content is not the expected content
    │   ├── DigestMismatch
    │   └── SizeMismatch
    ├── ReferrersUpdateError                   a manifest was stored, but the referrers tag of its subject not updated
    └── RegistryError                          the registry responded with an error status
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

All exceptions can be pickled and deep-copied. The secrets of a request are masked in the text and in the attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ._text import status_line

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._http.messages import Headers, Request
    from ._oci.descriptor import Descriptor

    class RegistryErrorFields(TypedDict, total=False):
        """Keyword arguments of `RegistryError`."""

        status: int
        code: str
        detail: Any
        errors: tuple[dict[str, Any], ...]
        headers: Headers | None
        body: bytes
        request: Request | None


__all__ = [
    "OciwireError",
    "UsageError",
    "TransportError",
    "ConnectError",
    "TransportTimeout",
    "ConnectTimeout",
    "ReadTimeout",
    "DeadlinePassed",
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
    """Base class of all exceptions of ociwire."""


class UsageError(OciwireError, ValueError):
    """An argument is invalid, such as a name or digest, or a closed object was used. Nothing was sent."""


class _RedactedRequest:
    """Descriptor for the attribute `request` of an exception.

    Assigning a request masks the secrets of its exchange in the exception, and stores a copy of the request without
    them. Code that raises an exception therefore does not need to mask secrets itself.
    """

    def __get__(self, error: BaseException, owner: object = None) -> Request | None:
        request: Request | None = vars(error).get("request")
        return request

    def __set__(self, error: BaseException, request: Request | None) -> None:
        vars(error)["request"] = None if request is None else request._redacted_for(error)


class TransportError(OciwireError):
    """No usable response was received.

    Attributes:
        request: The request that failed, without its credentials and without the query of a cross-origin URL. `None` if
            it is not known.
    """

    if TYPE_CHECKING:
        request: Request | None
    else:
        request = _RedactedRequest()

    def __init__(self, message: str, *, request: Request | None = None) -> None:
        super().__init__(message)
        self.request = request


class ConnectError(TransportError, ConnectionError):
    """Connecting failed: name resolution, TCP, TLS (including certificate verification) or the proxy."""


class TransportTimeout(TransportError, TimeoutError):
    """A timeout of the transport or the deadline of the request expired."""


class ConnectTimeout(TransportTimeout, ConnectError):
    """The connect timeout or the deadline expired before a connection was established. Nothing was sent."""


class ReadTimeout(TransportTimeout):
    """The read timeout or the deadline expired while sending the request or reading the response.

    The server may have processed the request.
    """


class DeadlinePassed(TransportTimeout, UsageError):
    """The deadline for `Client.with_options` has passed already. Nothing was sent.

    This is a `TransportTimeout`, because the time may have run out, and also a `UsageError`, because the caller may
    have passed a number of seconds instead of a `time.monotonic` value.
    """


class ReadError(TransportError):
    """The connection was lost while sending the request or reading the response."""


class ProtocolError(TransportError):
    """The response violates HTTP/1.1 (RFC 9112) or the OCI distribution specification."""


class RedirectError(TransportError):
    """A redirect is refused for security reasons, or cannot be followed."""


class BodyConsumedError(TransportError):
    """A single-use body cannot be sent again, because part of it was already consumed."""


class AuthError(OciwireError):
    """A token server, a credential helper or a credential source failed.

    Attributes:
        status: The status code of the token server's response; 0 if there was none.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class CredentialsRejected(AuthError):
    """A token server or a registry rejected the credentials.

    Attributes:
        host: The host of the registry that the credentials are for.
        realm: The URL of the token server that rejected the credentials; empty if the registry rejected them.
        status: The status code of the response.
    """

    def __init__(self, message: str, *, host: str = "", realm: str = "", status: int = 0) -> None:
        super().__init__(message, status=status)
        self.host = host
        self.realm = realm


class AuthTimeout(AuthError, TransportTimeout):
    """A timeout or the deadline expired before a token was received. Like every `AuthError`, it is not retried."""

    def __init__(self, message: str, *, status: int = 0, request: Request | None = None) -> None:
        TransportTimeout.__init__(self, message, request=request)
        self.status = status


class ContentError(OciwireError):
    """The received content is not the expected content, such as an HTML page instead of a manifest."""


class DigestMismatch(ContentError):
    """The digest of the content is not the expected one.

    Attributes:
        expected: The digest that was requested.
        actual: The digest of the content, or the digest that the server states.
    """

    def __init__(self, message: str, *, expected: str = "", actual: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class SizeMismatch(ContentError):
    """The content is longer or shorter than expected.

    Attributes:
        expected: The expected size in bytes.
        actual: The size of the content in bytes. If the content is too long, this is a lower bound: the number of bytes
            that were counted when the error was detected.
    """

    def __init__(self, message: str, *, expected: int = 0, actual: int = 0) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class ReferrersUpdateError(OciwireError):
    """A manifest was stored, but the referrers tag of its subject was not updated.

    If a registry has no referrers API, clients maintain a tag that lists the referrers (specification, "Referrers Tag
    Schema"). The manifest can be read by its digest and its tags, but is missing from the referrers of its subject. To
    repeat the update, push the manifest again. ``__cause__`` is the error that occurred: a `RegistryError`, a
    `ContentError` or an `AuthError`. A `TransportError` during the update is raised unchanged.

    Attributes:
        descriptor: The descriptor of the manifest that was stored.
    """

    def __init__(self, message: str, *, descriptor: Descriptor | None = None) -> None:
        super().__init__(message)
        self.descriptor = descriptor


class RegistryError(OciwireError):
    """The registry responded with an error status.

    The text has the form ``404 Not Found: manifest unknown: manifest (x) unknown to registry``. Codes are defined by
    the OCI distribution specification, section "Error Codes". A code that contradicts the status, such as BLOB_UNKNOWN
    with 416, is stored in `code`, but the status determines the class.

    Attributes:
        status: The status code of the response.
        code: The ``code`` of the first error in the body, such as ``MANIFEST_UNKNOWN``; empty if there is none.
        message: The ``message`` of the first error, or the text of the body if it is not a JSON error response.
        detail: The ``detail`` of the first error: any JSON value; `None` if there is none.
        errors: All errors in the body, as the registry sent them.
        headers: The headers of the response, without cookies.
        body: The first 8 KiB of the body.
        request: The request, without its credentials and without the query of a cross-origin URL.

    In all attributes, the secrets of the request, of its redirects and of its token requests are masked, and
    cross-origin URLs have no query.
    """

    if TYPE_CHECKING:
        request: Request | None
    else:
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
        self.request = request  # set last: `_RedactedRequest` masks the attributes that are set already

    def __str__(self) -> str:
        status = status_line(self.status) if self.status else ""
        reason = self.code.lower().replace("_", " ")
        return ": ".join(part for part in (status, reason, self.message) if part)


class NotFound(RegistryError):
    """The requested content does not exist, or the registry hides it (404)."""


class BlobUnknown(NotFound):
    """``BLOB_UNKNOWN``: the repository has no such blob."""


class ManifestUnknown(NotFound):
    """``MANIFEST_UNKNOWN``: the repository has no such manifest or tag."""


class NameUnknown(NotFound):
    """``NAME_UNKNOWN``: the registry has no such repository."""


class BlobUploadUnknown(NotFound):
    """``BLOB_UPLOAD_UNKNOWN``: the upload session does not exist, or is already committed, cancelled or expired."""


class Unauthorized(RegistryError):
    """``UNAUTHORIZED`` (401): credentials are required, or the registry rejected the credentials that were sent.

    Attributes:
        required_scope: The scope that the operation requires, such as ``repository:app:pull``; empty if there is none.
        challenged_scope: The scope in the registry's challenge; empty if there is none. Behind a proxy that rewrites
            paths, it differs from `required_scope`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        required_scope: str = "",
        challenged_scope: str = "",
        **attributes: Unpack[RegistryErrorFields],
    ) -> None:
        super().__init__(message, **attributes)
        self.required_scope = required_scope
        self.challenged_scope = challenged_scope

    def __str__(self) -> str:
        if not self.challenged_scope or self.challenged_scope == self.required_scope:
            return super().__str__()
        return (
            f"{super().__str__()} (the operation requires the scope {self.required_scope!r}, the registry's challenge"
            f" has {self.challenged_scope!r})"
        )


class Denied(RegistryError):
    """``DENIED`` (403): the credentials do not permit the operation."""


class TooManyRequests(RegistryError):
    """``TOOMANYREQUESTS`` (429): the rate limit of the registry is exceeded.

    Attributes:
        retry_after: Number of seconds to wait, from Retry-After; `None` if the header is absent or invalid.
        limits: The rate-limit headers of the response (RateLimit-*, X-RateLimit-*, docker-ratelimit-source,
            Retry-After) in one line; empty if there are none. The text of the exception quotes them.
    """

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        limits: str = "",
        **attributes: Unpack[RegistryErrorFields],
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
    """``UNSUPPORTED``: the registry does not support the operation."""


class BlobUploadInvalid(RegistryError):
    """``BLOB_UPLOAD_INVALID``: the upload is invalid and must be restarted."""


class DigestInvalid(RegistryError):
    """``DIGEST_INVALID``: the digest of the content differs from the digest in the request."""


class ManifestInvalid(RegistryError):
    """``MANIFEST_INVALID``: the registry does not accept the manifest."""


class ManifestBlobUnknown(RegistryError):
    """``MANIFEST_BLOB_UNKNOWN``: the manifest references a blob or manifest that is not in the repository."""


class NameInvalid(RegistryError):
    """``NAME_INVALID``: the registry does not accept the repository name."""


class SizeInvalid(RegistryError):
    """``SIZE_INVALID``, or status 413: the content is too large, or its size differs from the declared size."""


class RangeInvalid(RegistryError):
    """``RANGE_INVALID``, or status 416: the registry cannot serve the range, or store a chunk at that position."""
