"""Manifests: small enough to be read whole, and read whole before any of it is believed.

Follows the OCI distribution specification, "Pulling manifests" and "Pushing Manifests".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from .._arguments import show
from .._http.body import Body
from .._http.headers import content_length
from .._http.messages import Response, redactor_of
from .._oci.descriptor import HTML_TYPES, Descriptor, is_media_type, read_media_type
from .._oci.digest import Digest
from .._oci.host import redact_url
from .._oci.scope import Scope
from ..errors import ContentError, DigestMismatch, ProtocolError, RegistryError, Unsupported, UsageError
from ..media_types import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    OCTET_STREAM,
)
from .error_mapping import is_html_body, is_labelled_html
from .session import Session, read_anew, refusal_means_missing

__all__ = [
    "PAGE",
    "VAGUE",
    "IndexText",
    "Manifest",
    "check_claim",
    "check_schema",
    "described",
    "fetch",
    "find",
    "is_empty",
    "is_index",
    "is_stored",
    "media_type_of",
    "media_type_of_content",
    "parse",
    "parse_object",
    "put",
    "read_reference",
    "resolve",
]

ACCEPT = {"Accept": ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, "*/*"))}
VAGUE = HTML_TYPES | {OCTET_STREAM, "binary/octet-stream", "application/json", "text/json", "text/plain"}
"""Content-Types of servers that do not know the type of the content. S3 sends binary/octet-stream."""
PAGE = "; the response is an HTML page: a login page, a captive portal or a firewall may have answered instead"
_SCHEMA_1 = frozenset(f"application/vnd.docker.distribution.manifest.v1+{suffix}" for suffix in ("json", "prettyjws"))


class Manifest(NamedTuple):
    """A manifest as it was served, verified.

    Attributes:
        descriptor: What it is.
        content: Its bytes.
        response: The response that it came with, closed.
    """

    descriptor: Descriptor
    content: bytes
    response: Response


def fetch(session: Session, operation: str, url: str, scope: Scope, digest: Digest | None) -> Manifest:
    """GET a manifest; anew, from its beginning, if the connection is lost in the middle of it.

    Args:
        session: What sends.
        operation: The client's operation.
        url: Where it is.
        scope: What it needs.
        digest: What was asked for; None, for a tag, leaves it to the header, or else to the content.

    Raises:
        DigestMismatch: The content is not that of the digest.
        ContentError: It is larger than `Client(max_manifest_size=)`, contradicts its Content-Type, or is a web page.
        Unsupported: It is a Docker schema 1 manifest.
        RegistryError: The registry said no.
        TransportError: There is no usable answer.
    """
    if digest is not None:
        digest.hasher()  # what cannot be verified is refused before anything is sent
    response, content = _read(session, operation, url, scope)
    parsed, stated = parse(content), media_type_of(response)
    # Before the digest: that of a signed schema 1 manifest does not cover its signatures, and would be a mismatch.
    check_schema(parsed, stated)
    expected = digest or _claimed(response) or Digest.of(content)
    actual = Digest.of(content, expected.algorithm)
    if actual != expected:
        hint = PAGE if is_html_body(response, content) else ""
        raise DigestMismatch(
            f"the manifest is not what was asked for: its digest is {actual}, not {expected}{hint}",
            expected=expected,
            actual=actual,
        )
    if digest is None and not parsed and is_html_body(response, content):
        raise ContentError(f"expected a manifest at {redact_url(url)}{PAGE}")
    try:
        media_type = media_type_of_content(parsed, stated)
    except ContentError as error:
        redactor_of(response.request).error(error)  # it quotes the content
        raise
    return Manifest(Descriptor(media_type, expected, len(content)), content, response)


def resolve(session: Session, operation: str, url: str, scope: Scope, digest: Digest | None) -> Descriptor:
    """Get the descriptor of a manifest by a HEAD, confirmed or completed by a GET where necessary.

    A GET follows a HEAD that is refused although it may only be unsupported (`Session.needs_confirmation`), and one
    without digest or size, or with a Content-Type that is not a manifest type.

    Raises:
        DigestMismatch: The registry claims another digest of the same algorithm.
        OciwireError: As `fetch`.
    """
    verifiable = digest is None or digest.known
    try:
        response = session.head(operation, url, scope, ACCEPT)
    except RegistryError as refusal:
        if not verifiable or not session.needs_confirmation(refusal):
            raise
        return fetch(session, operation, url, scope, digest).descriptor
    check_claim(digest, response)
    size, found, media_type = content_length(response.headers), digest or _claimed(response), media_type_of(response)
    if not verifiable and not size:
        raise ProtocolError(f"the registry does not tell the size of {found}", request=response.request)
    # Without a Content-Type a HEAD is incomplete; another type than a manifest's is wrong, or an HTML page's.
    is_typed = media_type in MANIFEST_TYPES or "content-type" not in response.headers
    is_sized = bool(size) or (size == 0 and found is not None and is_empty(found))
    if found is None or size is None or (verifiable and not (is_typed and is_sized)):
        return fetch(session, operation, url, scope, digest).descriptor
    return Descriptor(media_type, found, size)


def find(session: Session, operation: str, url: str, scope: Scope, digest: Digest | None) -> Digest | None:
    """Get the digest of a manifest before it is pushed; None if it is not there or the registry refuses to tell.

    A refusal is not confirmed by a GET: at worst, an existing manifest is pushed again.

    Raises:
        DigestMismatch: The registry claims another digest of the same algorithm.
        RegistryError: The registry cannot answer at the moment.
        TransportError: There is no usable answer.
    """
    with refusal_means_missing():
        response = session.head(operation, url, scope, ACCEPT)
        check_claim(digest, response)
        claimed = _claimed(response)
        if claimed is not None:
            return digest or claimed
        if digest is not None:
            return None if is_labelled_html(response) else digest
        return fetch(session, operation, url, scope, None).descriptor.digest
    return None


def is_empty(digest: Digest) -> bool:
    """Whether a digest is that of empty content."""
    return digest.known and digest == Digest.of(b"", digest.algorithm)


def put(session: Session, url: str, scope: Scope, descriptor: Descriptor, content: bytes) -> Response:
    """PUT a manifest; returns the answer, closed.

    Raises:
        DigestMismatch: The registry has taken it for another.
        RegistryError: The registry said no.
        TransportError: There is no usable answer.
    """
    operation, path = "push_manifest", url.partition("?")[0]
    response = session.put(
        operation,
        url,
        scope,
        descriptor.digest,
        Body.of(content),
        is_stored=lambda: is_stored(session, operation, path, scope, descriptor.digest),
        headers={"Content-Type": descriptor.media_type},
    )
    check_claim(descriptor.digest, response)
    return response


def is_stored(session: Session, operation: str, url: str, scope: Scope, digest: Digest) -> bool:
    """Return whether a GET of a manifest, by tag or digest, finds the content of a digest."""
    try:
        fetch(session, operation, url, scope, digest)
    except (RegistryError, ContentError):
        return False
    return True


def described(content: bytes, media_type: str, digest: str | None) -> Descriptor:
    """The descriptor of a manifest that is to be pushed.

    Raises:
        UsageError: It has another digest, or says that it is of another media type, or the media type is not valid.
    """
    if not is_media_type(media_type):
        raise UsageError(f"not a media type: {show(media_type, 200)} (it reads type/subtype, without parameters)")
    own = parse(content).get("mediaType")
    if own is not None and own != media_type:
        raise UsageError(f"the manifest says that it is {own!r:.200}, and is pushed as {show(media_type)}")
    wanted = Digest.of(content) if digest is None else Digest(digest)
    actual = Digest.of(content, wanted.algorithm)
    if actual != wanted:
        raise UsageError(f"the manifest's digest is {actual}, not {wanted}")
    return Descriptor(media_type, wanted, len(content))


def check_claim(digest: Digest | None, response: Response) -> None:
    """Refuse a Docker-Content-Digest of the same algorithm as what was asked for, and another value."""
    claimed = response.headers.get("docker-content-digest", "")
    if digest is not None and claimed != digest and claimed.partition(":")[0] == digest.algorithm:
        claimed = redactor_of(response.request).text(claimed)
        raise DigestMismatch(
            f"the registry answers for {digest} with {claimed!r:.200}", expected=digest, actual=claimed
        )


def media_type_of(response: Response) -> str:
    """The Content-Type without its parameters; ``application/octet-stream`` where it is not valid."""
    return read_media_type(response.headers.get("content-type")) or OCTET_STREAM


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object that a manifest is; empty if it is not one."""
    return parse_object(content) or {}


def parse_object(content: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None if the document is not one."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def check_schema(parsed: dict[str, Any], stated: str = "") -> None:
    """Refuse a Docker schema 1 manifest: by its mediaType, its schemaVersion, or its Content-Type.

    Args:
        parsed: The manifest.
        stated: The Content-Type without its parameters, if there is one.

    Raises:
        Unsupported: It is a schema 1 manifest.
    """
    own = read_media_type(parsed.get("mediaType")) or ""
    version = parsed.get("schemaVersion")
    is_version_1 = type(version) is int and version == 1 and own not in MANIFEST_TYPES and stated not in MANIFEST_TYPES
    if is_version_1 or own.lower() in _SCHEMA_1 or stated.lower() in _SCHEMA_1:
        raise Unsupported("Docker schema 1 manifests are not supported; push the image again with a current tool")


def media_type_of_content(parsed: dict[str, Any], stated: str) -> str:
    """Get the media type of a manifest: what the registry states, or else what the content says or looks like.

    Args:
        parsed: The manifest.
        stated: The Content-Type without its parameters. It decides if it is one of `MANIFEST_TYPES`.

    Raises:
        ContentError: Content-Type and ``mediaType`` are two different types; or there is no ``mediaType``, and the
            content looks like an index and an image manifest at once (CVE-2021-41190).
    """
    own = read_media_type(parsed.get("mediaType"))
    if own is not None:
        if stated not in MANIFEST_TYPES:
            return own
        if own != stated and own not in VAGUE:
            raise ContentError(f"a manifest says that it is {own}, and its Content-Type that it is {stated}")
        return stated
    has = {field for field in ("manifests", "config", "layers") if parsed.get(field) is not None}
    if "manifests" in has and len(has) > 1:
        raise ContentError(
            f"a manifest without a mediaType has manifests and {' and '.join(sorted(has - {'manifests'}))}:"
            " expected either an index or an image manifest"
        )
    if stated in MANIFEST_TYPES:
        return stated
    if "manifests" in has:
        return OCI_INDEX
    return OCI_MANIFEST if has == {"config", "layers"} else stated


def is_index(descriptor: Descriptor) -> bool:
    """Whether a descriptor's media type is that of an index."""
    return descriptor.media_type in INDEX_TYPES


def read_reference(entry: Any) -> Descriptor:
    """Read an entry of a list of referrers. Its size does not matter: what it names is verified by its digest.

    A size that is missing or not valid is read as 0.

    Raises:
        UsageError: It is not an object, or has no valid digest.
    """
    try:
        return Descriptor.from_dict(entry)
    except UsageError:
        if not isinstance(entry, dict):
            raise
        return Descriptor.from_dict({**entry, "size": 0})


class IndexText(NamedTuple):
    """The text of an index, divided at its entries, so that it can be written again with other entries.

    Parsing and serializing it would change what is not touched: ``1e400`` would become ``Infinity``, and escapes would
    make it grow.

    Attributes:
        before: The text before the entries, up to the bracket.
        entries: The text of each entry.
        after: The text from the closing bracket on.
    """

    before: str
    entries: tuple[str, ...]
    after: str

    @classmethod
    def split(cls, content: bytes) -> IndexText:
        """Divide an index.

        Raises:
            ContentError: It is not a JSON object in UTF-8, it is nested too deeply, or ``manifests`` is not a list.
        """
        try:
            # As in json.loads: half of a surrogate pair keeps its bytes.
            text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogatepass")
            if not isinstance(_SCANNER.decode(text), dict):
                raise ValueError("expected a JSON object")
            members = {name: span for name, *span in _members(text, text.index("{"))}
            start, stop = members.get("manifests", (0, 0))
            if text[start:stop] == "null":
                return cls(f"{text[:start]}[", (), f"]{text[stop:]}")
            if text[start] != "[":
                raise ValueError("manifests is not a list")
            entries = tuple(text[first:last] for _, first, last in _members(text, start))
        except (ValueError, RecursionError) as error:
            raise ContentError(f"cannot rewrite an index: {error}") from None
        return cls(text[: start + 1], entries, text[stop - 1 :])

    def join(self, entries: Iterable[str]) -> bytes:
        """The index with other entries, and otherwise the same bytes."""
        return f"{self.before}{','.join(entries)}{self.after}".encode("utf-8", "surrogatepass")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # RFC 8259, section 6


_SPACE = re.compile(r"[ \t\n\r]*")
_SEPARATOR = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")
# Numbers stay text: only where a value begins and ends matters, and int() refuses very long ones.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)


def _members(text: str, position: int) -> Iterator[tuple[str, int, int]]:
    """The members of the JSON object or array that begins at a position of valid JSON: name, start and end of each."""
    name, has_names = "", text[position : position + 1] == "{"
    position = _SPACE.match(text, position + 1).end()  # type: ignore[union-attr]
    while text[position] not in "]}":
        if has_names:
            name, position = _SCANNER.raw_decode(text, position)
            position = _SPACE.match(text, text.index(":", position) + 1).end()  # type: ignore[union-attr]
        _, end = _SCANNER.raw_decode(text, position)
        yield name, position, end
        position = _SEPARATOR.match(text, end).end()  # type: ignore[union-attr]


def _read(session: Session, operation: str, url: str, scope: Scope) -> tuple[Response, bytes]:
    response, content = read_anew(
        lambda: session.send(operation, "GET", url, scope, ok=(200,), headers=ACCEPT), limit=session.max_manifest_size
    )
    if len(content) > session.max_manifest_size:
        raise ContentError(
            f"a manifest of more than {session.max_manifest_size} bytes is not read: raise the limit with"
            " Client(max_manifest_size=...)"
        )
    return response, content


def _claimed(response: Response) -> Digest | None:
    """The digest of the header, if it is one that can be verified."""
    try:
        claimed = Digest(response.headers.get("docker-content-digest", ""))
        claimed.hasher()
    except UsageError:
        return None
    return claimed
