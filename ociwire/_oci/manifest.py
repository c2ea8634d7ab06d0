"""Manifests and indexes as JSON documents: their media type, their subject, and the entries of an index.

They follow the OCI image specification 1.1 ("Image Manifest", "Image Index"). Reading is lenient, because other tools
do not always follow it: what is missing or has the wrong type is treated as absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from ..errors import ContentError, Unsupported, UsageError
from ..media_types import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, OCTET_STREAM
from .descriptor import HTML_TYPES, Descriptor, parse_media_type
from .digest import Digest

__all__ = [
    "GENERIC_MEDIA_TYPES",
    "IndexText",
    "check_schema",
    "is_index",
    "detect_media_type",
    "parse_json_object",
    "parse_manifest",
    "parse_referrer",
    "refuse_constant",
    "subject_digest",
    "to_referrer_entry",
]

GENERIC_MEDIA_TYPES = HTML_TYPES | {OCTET_STREAM, "binary/octet-stream", "application/json", "text/json", "text/plain"}
"""Content-Types of servers that do not know the type of the content. S3 sends binary/octet-stream."""

_SCHEMA_1_TYPES = frozenset(
    f"application/vnd.docker.distribution.manifest.v1+{suffix}" for suffix in ("json", "prettyjws")
)


def parse_manifest(content: bytes) -> dict[str, Any]:
    """Parse a manifest. Returns an empty dictionary if the content is not a JSON object."""
    return parse_json_object(content) or {}


def parse_json_object(content: bytes) -> dict[str, Any] | None:
    """Parse a JSON object. Returns `None` if the content is not one."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def check_schema(parsed: dict[str, Any], content_type: str = "") -> None:
    """Refuse a Docker schema 1 manifest: by its mediaType, its schemaVersion, or its Content-Type.

    Args:
        parsed: The manifest.
        content_type: The Content-Type without its parameters, if there is one.

    Raises:
        Unsupported: It is a schema 1 manifest.
    """
    own = parse_media_type(parsed.get("mediaType")) or ""
    version = parsed.get("schemaVersion")
    has_version_1 = type(version) is int and version == 1
    if (
        (has_version_1 and own not in MANIFEST_TYPES and content_type not in MANIFEST_TYPES)
        or own.lower() in _SCHEMA_1_TYPES
        or content_type.lower() in _SCHEMA_1_TYPES
    ):
        raise Unsupported("Docker schema 1 manifests are not supported; push the image again with a current tool")


def detect_media_type(parsed: dict[str, Any], content_type: str) -> str:
    """Get the media type of a manifest: what the registry states, or else what the content says or looks like.

    Args:
        parsed: The manifest.
        content_type: The Content-Type without its parameters. It decides if it is one of `MANIFEST_TYPES`.

    Raises:
        ContentError: Content-Type and ``mediaType`` are two different types; or there is no ``mediaType``, and the
            content looks like an index and an image manifest at once (CVE-2021-41190).
    """
    own = parse_media_type(parsed.get("mediaType"))
    if own is not None:
        if content_type not in MANIFEST_TYPES:
            return own
        if own != content_type and own not in GENERIC_MEDIA_TYPES:
            raise ContentError(f"a manifest says that it is {own}, and its Content-Type that it is {content_type}")
        return content_type
    fields = {field for field in ("manifests", "config", "layers") if parsed.get(field) is not None}
    if "manifests" in fields and len(fields) > 1:
        raise ContentError(
            f"a manifest without a mediaType has manifests and {' and '.join(sorted(fields - {'manifests'}))}:"
            " expected either an index or an image manifest"
        )
    if content_type in MANIFEST_TYPES:
        return content_type
    if "manifests" in fields:
        return OCI_INDEX
    return OCI_MANIFEST if fields == {"config", "layers"} else content_type


def is_index(descriptor: Descriptor) -> bool:
    """Return whether a descriptor's media type is that of an index."""
    return descriptor.media_type in INDEX_TYPES


def subject_digest(content: bytes) -> Digest | None:
    """Get the digest of a manifest's subject. Returns `None` if it has none, or its digest is not valid."""
    subject = parse_manifest(content).get("subject")
    try:
        return Digest(subject["digest"]) if isinstance(subject, dict) else None
    except (KeyError, UsageError):
        return None


def to_referrer_entry(content: bytes, descriptor: Descriptor) -> Descriptor:
    """Build the entry of a manifest in a list of referrers: its descriptor, artifact type and annotations.

    Distribution specification, "Listing Referrers": the artifact type is the manifest's, or else the media type of its
    configuration.
    """
    parsed = parse_manifest(content)
    config = parsed.get("config")
    artifact_type = parsed.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    # Read leniently: an annotation that is a number in the manifest becomes its text in the index.
    fields = {"artifactType": artifact_type, "annotations": parsed.get("annotations")}
    return Descriptor.from_dict({**descriptor.to_dict(), **fields})


def parse_referrer(entry: Any) -> Descriptor:
    """Read an entry of a list of referrers. A size that is missing or not valid is read as 0.

    The size does not matter: the content is verified by its digest.

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

    Parsing and serializing it would change other fields: ``1e400`` would become ``Infinity``, and escapes would make it
    grow.

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
        """Return the index with other entries, and otherwise the same bytes."""
        return f"{self.before}{','.join(entries)}{self.after}".encode("utf-8", "surrogatepass")


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser of JSON accepts (RFC 8259, section 6). For ``parse_constant``.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{name} is not JSON")


_SPACE = re.compile(r"[ \t\n\r]*")
_SEPARATOR = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")
# Numbers stay text: only where a value begins and ends matters, and int() refuses very long ones.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=refuse_constant)


def _members(text: str, position: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of each member of the JSON object or array that begins at a position of valid JSON."""
    name, has_names = "", text[position : position + 1] == "{"
    position = _SPACE.match(text, position + 1).end()  # type: ignore[union-attr]
    while text[position] not in "]}":
        if has_names:
            name, position = _SCANNER.raw_decode(text, position)
            position = _SPACE.match(text, text.index(":", position) + 1).end()  # type: ignore[union-attr]
        _, end = _SCANNER.raw_decode(text, position)
        yield name, position, end
        position = _SEPARATOR.match(text, end).end()  # type: ignore[union-attr]
