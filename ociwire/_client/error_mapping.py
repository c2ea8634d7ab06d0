"""Mapping of error responses to exceptions, and detection of responses that do not come from a registry.

The code in the body determines the class of the exception (OCI distribution specification, "Error Codes"). If there is
no code, or it is unknown or contradicts the status, the status and the operation determine it. At most 64 KiB of a body
are read, and responses are not closed.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import unquote

from .. import errors
from .._http.headers import retry_after
from .._http.messages import Response, redactor_of
from .._http.status import is_temporary_status
from .._oci.descriptor import HTML_TYPES, parse_media_type
from .._oci.digest import Digest
from .._oci.host import redact_url
from .._text import sanitize
from ..auth.challenge import Challenge
from ..errors import RegistryError, TooManyRequests, Unauthorized

__all__ = [
    "HTML_HINT",
    "check_digest_header",
    "check_not_html",
    "check_response",
    "digest_from_header",
    "error_from_response",
    "is_html",
    "is_html_body",
    "is_html_instead_of",
    "is_labelled_html",
    "is_transient",
    "names_digest",
]

HTML_HINT = "; the response is an HTML page: a login page, a captive portal or a firewall may have answered instead"

_READ_LIMIT = 64 * 1024
_MAX_BODY = 8 * 1024
_MAX_CODE = 100
_MAX_SCOPE = 1000
_MAX_LIMIT_HEADERS = 8
_MAX_LIMIT_VALUE = 100

_BY_CODE: dict[str, type[RegistryError]] = {
    "BLOB_UNKNOWN": errors.BlobUnknown,
    "BLOB_UPLOAD_INVALID": errors.BlobUploadInvalid,
    "BLOB_UPLOAD_UNKNOWN": errors.BlobUploadUnknown,
    "DENIED": errors.Denied,
    "DIGEST_INVALID": errors.DigestInvalid,
    "MANIFEST_BLOB_UNKNOWN": errors.ManifestBlobUnknown,
    "MANIFEST_INVALID": errors.ManifestInvalid,
    "MANIFEST_UNKNOWN": errors.ManifestUnknown,
    "NAME_INVALID": errors.NameInvalid,
    "NAME_UNKNOWN": errors.NameUnknown,
    "RANGE_INVALID": errors.RangeInvalid,  # defined by the distribution project, not by the specification
    "SIZE_INVALID": errors.SizeInvalid,
    "TOOMANYREQUESTS": errors.TooManyRequests,
    "UNAUTHORIZED": errors.Unauthorized,
    "UNSUPPORTED": errors.Unsupported,
}
_BY_STATUS: dict[int, type[RegistryError]] = {
    401: errors.Unauthorized,
    403: errors.Denied,
    405: errors.Unsupported,
    413: errors.SizeInvalid,
    416: errors.RangeInvalid,
    429: errors.TooManyRequests,
    501: errors.Unsupported,
}
# The classes that a status permits. If a code has another class (BLOB_UNKNOWN with 416, MANIFEST_UNKNOWN with 500,
# DENIED with 401), it contradicts the status, and the status determines the class. A status that is not listed, such as
# 400, 409 or 412, is unspecific and permits every class.
_ADMITTED_BY_STATUS: dict[int, tuple[type[RegistryError], ...]] = {
    401: (errors.Unauthorized,),
    403: (errors.Denied,),
    # docker-registry 2.8 and ACR respond with BLOB_UPLOAD_INVALID to requests for an expired upload session.
    404: (errors.NotFound, errors.ManifestBlobUnknown, errors.BlobUploadInvalid),
    405: (errors.Unsupported,),
    413: (errors.SizeInvalid,),
    416: (errors.RangeInvalid,),
    429: (errors.TooManyRequests,),
}
_ADMITTED_BY_SERVER_ERRORS = (errors.Unsupported, errors.TooManyRequests)
# Headers that state a rate limit: RateLimit-* and docker-ratelimit-source of Docker Hub, X-RateLimit-* of GitHub and
# others, RateLimit and RateLimit-Policy of the IETF draft, and Retry-After (RFC 9110, section 10.2.3).
_LIMIT_HEADER = re.compile(r"(x-)?ratelimit(-.*)?|docker-ratelimit-source|retry-after")
# Class for a 404 by operation and method. Not by path: after a redirect, the URL may be that of a CDN.
_NOT_FOUND_BY_OPERATION: dict[str, type[RegistryError]] = {
    "get_blob GET": errors.BlobUnknown,
    "get_blob_range GET": errors.BlobUnknown,
    "get_manifest GET": errors.ManifestUnknown,
    "get_tag GET": errors.ManifestUnknown,
    "resolve_manifest GET": errors.ManifestUnknown,
    "resolve_manifest HEAD": errors.ManifestUnknown,
    "resolve_tag GET": errors.ManifestUnknown,
    "resolve_tag HEAD": errors.ManifestUnknown,
    "resolve_blob GET": errors.BlobUnknown,
    "resolve_blob HEAD": errors.BlobUnknown,
    "push_blob POST": errors.NameUnknown,
    "push_blob PUT": errors.BlobUploadUnknown,
    "push_blob GET": errors.BlobUploadUnknown,
    "push_blob PATCH": errors.BlobUploadUnknown,
    "push_blob HEAD": errors.BlobUnknown,
    "push_blob_chunked PATCH": errors.BlobUploadUnknown,
    "push_blob_chunked PUT": errors.BlobUploadUnknown,
    "push_blob_chunked GET": errors.BlobUploadUnknown,
    "push_blob_chunked DELETE": errors.BlobUploadUnknown,
    "push_blob_chunked_resume GET": errors.BlobUploadUnknown,
    "upload GET": errors.BlobUploadUnknown,
    "upload PATCH": errors.BlobUploadUnknown,
    "upload PUT": errors.BlobUploadUnknown,
    "copy PUT": errors.BlobUploadUnknown,
}
# Class for a 404 by path (specification, "Endpoints"), for requests of `Client.do`. The first match determines it.
_NOT_FOUND_BY_PATH: tuple[tuple[re.Pattern[str], type[RegistryError]], ...] = (
    (re.compile(r"POST .*/blobs/uploads/?$"), errors.NameUnknown),
    (re.compile(r".*/blobs/uploads/.+"), errors.BlobUploadUnknown),
    (re.compile(r".*/blobs/[^/]+$"), errors.BlobUnknown),
    (re.compile(r".*/manifests/[^/]+$"), errors.ManifestUnknown),
    (re.compile(r".*/(tags/list|referrers/[^/]+)$"), errors.NameUnknown),
)


def check_response(response: Response, *ok: int) -> None:
    """Raise an exception if the status of a response is not successful. The response is not closed.

    >>> from ociwire import Response, check_response
    >>> check_response(Response(404, body=b'{"errors": [{"code": "NAME_UNKNOWN", "message": "no such app"}]}'))
    Traceback (most recent call last):
    ociwire.errors.NameUnknown: 404 Not Found: name unknown: no such app

    Args:
        response: The response. Its body is read if its status is not successful.
        ok: The successful statuses. Defaults to all 2xx.

    Raises:
        RegistryError: The status is not successful. For a status below 400, the message is "unexpected status".
    """
    if response.status in ok if ok else 200 <= response.status < 300:
        return
    raise error_from_response(response)


def error_from_response(response: Response) -> RegistryError:
    """Return the exception for a response, whatever its status. The response is not closed.

    Args:
        response: The response. At most 64 KiB of its body are read.

    Returns:
        An exception of the class that corresponds to the code or status; see `ociwire.errors`.
    """
    body = _read_body(response)
    errors_of_body = _parse_errors(body)
    first_error = errors_of_body[0] if errors_of_body else {}
    code = sanitize(first_error.get("code"), _MAX_CODE)
    error = _error_class(response, code)(
        _message(response, first_error, body),
        status=response.status,
        code=code,
        detail=first_error.get("detail"),
        errors=errors_of_body,
        headers=response.headers
        if response.request is not None
        else redactor_of(None).redact_headers(response.headers),
        body=body[:_MAX_BODY],
        request=response.request,
    )
    if isinstance(error, TooManyRequests):
        error.retry_after = retry_after(response.headers, time.time())
        error.limits = _limits(response)
    if isinstance(error, Unauthorized):
        # `error.headers` are the headers of the response with masked secrets.
        challenges = Challenge.parse(*(error.headers or response.headers).get_all("www-authenticate"))
        challenged = next((item.params["scope"] for item in challenges if "scope" in item.params), "")
        error.challenged_scope = sanitize(challenged, _MAX_SCOPE)
        error.required_scope = "" if response.request is None else str(response.request.info.required_scope)
    return error


def is_transient(error: Exception) -> bool:
    """Return whether an exception means that the registry is temporarily unavailable, so that a retry may succeed."""
    if not isinstance(error, RegistryError):
        return False
    return is_temporary_status(error.status) and error.status != 501


def is_html(response: Response) -> bool:
    """Return whether a response is an HTML page, such as a login page, or an error page of a proxy or firewall.

    False for an empty body, which Quay (Flask) and Pulp (Django) label as text/html by default. At most one byte of the
    body is read.
    """
    if not is_labelled_html(response) or response.length == 0:
        return False
    return response.length is not None or bool(response.read(1))


def is_labelled_html(response: Response) -> bool:
    """Return whether the Content-Type of a response is HTML, whatever its body."""
    return parse_media_type(response.headers.get("content-type")) in HTML_TYPES


def is_html_body(response: Response, body: bytes) -> bool:
    """Return whether a response that should be JSON is an HTML page.

    True for a body that begins with ``<``, whatever its Content-Type. False for a body that begins with ``{`` or ``[``,
    even if its Content-Type is HTML.

    Args:
        response: The response.
        body: Its body.
    """
    beginning = body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    return beginning.startswith(b"<") or (not beginning.startswith((b"{", b"[")) and is_labelled_html(response))


def check_not_html(response: Response) -> None:
    """Raise a `ContentError` if a response is an HTML page, whatever its status."""
    if is_html(response):
        request = response.request
        target = "the request" if request is None else f"{request.method} {redact_url(request.url)}"
        target = redactor_of(request).redact_text(target)
        raise errors.ContentError(
            f"{target} was answered with an HTML page (status {response.status}), not by a registry: check the host"
            " name, and whether a login page, a proxy or a firewall responded instead"
        )


def is_html_instead_of(response: Response, digest: str) -> bool:
    """Return whether the response to a blob request is labelled as HTML, and no header of it has the blob's digest."""
    return is_labelled_html(response) and not names_digest(response, digest)


def names_digest(response: Response, digest: str) -> bool:
    """Return whether the Docker-Content-Digest of a response is the digest, or its Location ends with the digest."""
    location = unquote(response.headers.get("location", "").partition("?")[0])
    return response.headers.get("docker-content-digest") == digest or location.endswith(f"/{digest}")


def check_digest_header(digest: Digest | None, response: Response) -> None:
    """Check that Docker-Content-Digest does not contradict a requested digest of the same algorithm.

    Args:
        digest: The requested digest. `None` disables the check.
        response: The response.

    Raises:
        DigestMismatch: The registry states another digest.
    """
    stated_digest = response.headers.get("docker-content-digest", "")
    if digest is not None and stated_digest != digest and stated_digest.partition(":")[0] == digest.algorithm:
        stated_digest = redactor_of(response.request).redact_text(stated_digest)
        raise errors.DigestMismatch(
            f"digest mismatch: requested {digest}, the registry states {stated_digest!r:.200}",
            expected=digest,
            actual=stated_digest,
        )


def digest_from_header(response: Response) -> Digest | None:
    """Return the digest in Docker-Content-Digest; `None` if it is absent, invalid or cannot be verified."""
    try:
        digest = Digest(response.headers.get("docker-content-digest", ""))
    except errors.UsageError:
        return None
    return digest if digest.known else None


def _read_body(response: Response) -> bytes:
    try:
        body = b"" if response.closed else response.read(_READ_LIMIT)
    except errors.TransportError:
        return b""  # the exception is created from the status alone
    # Masked before it is truncated or parsed, because a part of a secret could not be recognized.
    return redactor_of(response.request).redact_bytes(body)


def _parse_errors(body: bytes) -> tuple[dict[str, Any], ...]:
    try:
        entries = json.loads(body)["errors"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    return tuple(entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _message(response: Response, first_error: dict[str, Any], body: bytes) -> str:
    if first_error:
        return sanitize(first_error.get("message"), _MAX_BODY)
    if response.status < 400:
        return "unexpected status"
    text = body[:_MAX_BODY].decode("utf-8", "replace").strip()
    if text or response.request is None:
        return repr(text) if text else ""
    return f"{response.request.method} {redact_url(response.request.url)}"


def _limits(response: Response) -> str:
    """Return the rate-limit headers of a response in one line, such as ``RateLimit-Limit: 100;w=21600, ...``."""
    redactor = redactor_of(response.request)
    fields = [(name, value) for name, value in response.headers.items() if _LIMIT_HEADER.fullmatch(name.lower())]
    # Masked, because a proxy may repeat a secret of the request in any header.
    masked = [(redactor.redact_text(name), redactor.redact_text(value)) for name, value in fields[:_MAX_LIMIT_HEADERS]]
    return ", ".join(f"{name[:_MAX_LIMIT_VALUE]}: {sanitize(value, _MAX_LIMIT_VALUE)}" for name, value in masked)


def _error_class(response: Response, code: str) -> type[RegistryError]:
    """Return the class for the code, if the status permits it, or else the class for the status."""
    by_code, by_status = _BY_CODE.get(code), _class_by_status(response)
    default = _ADMITTED_BY_SERVER_ERRORS if response.status >= 500 else (RegistryError,)
    if by_code is None or not issubclass(by_code, _ADMITTED_BY_STATUS.get(response.status, default)):
        return by_status
    # GHCR responds with BLOB_UNKNOWN to requests for an upload session that it has lost.
    return by_status if by_code is errors.BlobUnknown and by_status is errors.BlobUploadUnknown else by_code


def _class_by_status(response: Response) -> type[RegistryError]:
    if response.status != 404 or response.request is None:
        return _BY_STATUS.get(response.status, errors.NotFound if response.status == 404 else RegistryError)
    request = response.request
    by_operation = _NOT_FOUND_BY_OPERATION.get(f"{request.info.operation} {request.method}")
    if by_operation is not None:
        return by_operation
    target = f"{request.method} {request.url.partition('?')[0]}"
    return next((error for pattern, error in _NOT_FOUND_BY_PATH if pattern.match(target)), errors.NotFound)
