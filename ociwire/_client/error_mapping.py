"""Maps an error response to an exception, and recognizes responses that do not come from a registry.

The class comes from the code in the body (OCI distribution specification, "Error Codes"). If there is none, or it is
unknown or contradicts the status, it comes from the status and the operation. At most 64 KiB of a body are read, and
responses are not closed.
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
    "RANGE_INVALID": errors.RangeInvalid,  # the distribution project's own
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
# The classes that a status admits. A code of another class contradicts the status (416 with BLOB_UNKNOWN, 500 with
# MANIFEST_UNKNOWN, 401 with DENIED): then the status decides. Any other status admits every class: a 400, 409 or 412
# says only that the request is at fault.
_ADMITTED_BY_STATUS: dict[int, tuple[type[RegistryError], ...]] = {
    401: (errors.Unauthorized,),
    403: (errors.Denied,),
    # docker-registry 2.8 and ACR answer BLOB_UPLOAD_INVALID for an upload that they have given up.
    404: (errors.NotFound, errors.ManifestBlobUnknown, errors.BlobUploadInvalid),
    405: (errors.Unsupported,),
    413: (errors.SizeInvalid,),
    416: (errors.RangeInvalid,),
    429: (errors.TooManyRequests,),
}
_ADMITTED_BY_SERVER_ERRORS = (errors.Unsupported, errors.TooManyRequests)
# The headers that state a rate limit: Docker Hub (RateLimit-*, docker-ratelimit-source), GitHub and others
# (X-RateLimit-*), the IETF draft (RateLimit, RateLimit-Policy), RFC 9110, section 10.2.3 (Retry-After).
_LIMIT_HEADER = re.compile(r"(x-)?ratelimit(-.*)?|docker-ratelimit-source|retry-after")
# What is missing after a 404, by operation and method: after a redirect the path would be that of a CDN.
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
# The same by path (specification, "Endpoints"), for `Client.do`: the first pattern that matches.
_NOT_FOUND_BY_PATH: tuple[tuple[re.Pattern[str], type[RegistryError]], ...] = (
    (re.compile(r"POST .*/blobs/uploads/?$"), errors.NameUnknown),
    (re.compile(r".*/blobs/uploads/.+"), errors.BlobUploadUnknown),
    (re.compile(r".*/blobs/[^/]+$"), errors.BlobUnknown),
    (re.compile(r".*/manifests/[^/]+$"), errors.ManifestUnknown),
    (re.compile(r".*/(tags/list|referrers/[^/]+)$"), errors.NameUnknown),
)


def check_response(response: Response, *ok: int) -> None:
    """Raise the error of a response whose status is not a success. Its body is read, and not closed.

    Args:
        response: The response.
        ok: The statuses of success. Defaults to all 2xx.

    Raises:
        RegistryError: The status is another one. For a 2xx or 3xx the message is "unexpected status".
    """
    if response.status in ok if ok else 200 <= response.status < 300:
        return
    raise error_from_response(response)


def error_from_response(response: Response) -> RegistryError:
    """Return the exception for a response, whatever its status. At most 64 KiB of its body are read."""
    body = _read_body(response)
    errors_of_body = _parse_errors(body)
    first = errors_of_body[0] if errors_of_body else {}
    code = sanitize(first.get("code"), _MAX_CODE)
    error = _error_class(response, code)(
        _message(response, first, body),
        status=response.status,
        code=code,
        detail=first.get("detail"),
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
        challenges = Challenge.parse(*(error.headers or response.headers).get_all("www-authenticate"))  # masked
        challenged = next((item.params["scope"] for item in challenges if "scope" in item.params), "")
        error.challenged_scope = sanitize(challenged, _MAX_SCOPE)
        error.required_scope = "" if response.request is None else str(response.request.info.required_scope)
    return error


def is_transient(error: Exception) -> bool:
    """Return whether a registry answered that it is temporarily unable to serve: a later request may succeed."""
    if not isinstance(error, RegistryError):
        return False
    return is_temporary_status(error.status) and error.status != 501


def is_html(response: Response) -> bool:
    """Return whether a response is an HTML page: a login page, or one of a proxy or firewall.

    An empty body is no page: Flask and Django label it text/html (Quay, Pulp). At most one byte of the body is read.
    """
    if not is_labelled_html(response) or response.length == 0:
        return False
    return response.length is not None or bool(response.read(1))


def is_labelled_html(response: Response) -> bool:
    """Return whether the Content-Type of a response is HTML, whatever its body."""
    return parse_media_type(response.headers.get("content-type")) in HTML_TYPES


def is_html_body(response: Response, body: bytes) -> bool:
    """Return whether a response whose body was read, and should be JSON, is an HTML page.

    A body that begins with ``<`` counts as one, whatever the Content-Type. JSON does not, even if it is labelled so.
    """
    beginning = body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    return beginning.startswith(b"<") or (not beginning.startswith((b"{", b"[")) and is_labelled_html(response))


def check_not_html(response: Response) -> None:
    """Raise `ContentError` if a response is an HTML page, whatever its status."""
    if is_html(response):
        request = response.request
        target = "the request" if request is None else f"{request.method} {redact_url(request.url)}"
        target = redactor_of(request).redact_text(target)
        raise errors.ContentError(
            f"{target} was answered {response.status} with an HTML page, not by a registry: check the host name, and"
            " whether a login page, a proxy or a firewall answers in its place"
        )


def is_html_instead_of(response: Response, digest: str) -> bool:
    """Return whether a response to a request for a blob is labelled as HTML and does not name the blob's digest."""
    return is_labelled_html(response) and not names_digest(response, digest)


def names_digest(response: Response, digest: str) -> bool:
    """Return whether Docker-Content-Digest is the digest, or Location ends in it."""
    location = unquote(response.headers.get("location", "").partition("?")[0])
    return response.headers.get("docker-content-digest") == digest or location.endswith(f"/{digest}")


def check_digest_header(digest: Digest | None, response: Response) -> None:
    """Refuse a Docker-Content-Digest of the same algorithm as the requested digest, and another value.

    Raises:
        DigestMismatch: The registry claims another digest.
    """
    claimed = response.headers.get("docker-content-digest", "")
    if digest is not None and claimed != digest and claimed.partition(":")[0] == digest.algorithm:
        claimed = redactor_of(response.request).redact_text(claimed)
        raise errors.DigestMismatch(
            f"the registry answers for {digest} with {claimed!r:.200}", expected=digest, actual=claimed
        )


def digest_from_header(response: Response) -> Digest | None:
    """Get the digest of Docker-Content-Digest. Returns `None` if it is absent or cannot be verified."""
    try:
        claimed = Digest(response.headers.get("docker-content-digest", ""))
    except errors.UsageError:
        return None
    return claimed if claimed.known else None


def _read_body(response: Response) -> bytes:
    try:
        body = b"" if response.closed else response.read(_READ_LIMIT)
    except errors.TransportError:
        return b""  # the status alone decides then
    # Masked before it is cut or parsed: half of a secret could not be recognized.
    return redactor_of(response.request).redact_bytes(body)


def _parse_errors(body: bytes) -> tuple[dict[str, Any], ...]:
    try:
        entries = json.loads(body)["errors"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    return tuple(entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _message(response: Response, first: dict[str, Any], body: bytes) -> str:
    if first:
        return sanitize(first.get("message"), _MAX_BODY)
    if response.status < 400:
        return "unexpected status"
    text = body[:_MAX_BODY].decode("utf-8", "replace").strip()
    if text or response.request is None:
        return repr(text) if text else ""
    return f"{response.request.method} {redact_url(response.request.url)}"


def _limits(response: Response) -> str:
    """The rate-limit headers of a response, in one line, for a message: ``RateLimit-Limit: 100;w=21600, ...``."""
    redactor = redactor_of(response.request)
    fields = [(name, value) for name, value in response.headers.items() if _LIMIT_HEADER.fullmatch(name.lower())]
    # A proxy may repeat a secret of the request in any header.
    masked = [(redactor.redact_text(name), redactor.redact_text(value)) for name, value in fields[:_MAX_LIMIT_HEADERS]]
    return ", ".join(f"{name[:_MAX_LIMIT_VALUE]}: {sanitize(value, _MAX_LIMIT_VALUE)}" for name, value in masked)


def _error_class(response: Response, code: str) -> type[RegistryError]:
    """The class for the code, if the status admits it; else the class for the status."""
    by_code, by_status = _BY_CODE.get(code), _class_by_status(response)
    default = _ADMITTED_BY_SERVER_ERRORS if response.status >= 500 else (RegistryError,)
    if by_code is None or not issubclass(by_code, _ADMITTED_BY_STATUS.get(response.status, default)):
        return by_status
    # GHCR answers a request to an upload that it has lost with BLOB_UNKNOWN.
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
