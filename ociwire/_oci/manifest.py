"""Manifests and indexes as JSON documents: media type, subject, and the entries of an index.

The formats are defined by the OCI image specification 1.1, "OCI Image Manifest" and "OCI Image Index". Parsing is
lenient, because other tools deviate from the specification: a field of the wrong type is treated as absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from .._text import SURROGATE
from ..errors import ContentError, Unsupported, UsageError
from ..media_types import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, OCTET_STREAM
from .descriptor import HTML_TYPES, Descriptor, parse_media_type
from .digest import Digest

__all__ = [
    "GENERIC_MEDIA_TYPES",
    "IndexText",
    "check_schema",
    "dump_json",
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
"""Content-Types that servers send if they do not know the type of the content. S3 sends binary/octet-stream."""

_SCHEMA_1_TYPES = frozenset(
    f"application/vnd.docker.distribution.manifest.v1+{suffix}" for suffix in ("json", "prettyjws")
)


def parse_manifest(content: bytes) -> dict[str, Any]:
    """Return the JSON object of a manifest; an empty dictionary if the content is not a JSON object."""
    return parse_json_object(content) or {}


def parse_json_object(content: bytes) -> dict[str, Any] | None:
    """Return the parsed JSON object; `None` if the content is not a JSON object."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: deeply nested arrays
        return None
    return parsed if isinstance(parsed, dict) else None


def dump_json(value: object) -> str:
    """Return JSON text without spaces, and with escapes only where they are required.

    Lone surrogates are escaped, because UTF-8 cannot encode them (RFC 8259, section 8.1).

    Raises:
        ValueError: A number is NaN or infinite (RFC 8259, section 6).
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def check_schema(parsed: dict[str, Any], content_type: str = "") -> None:
    """Refuse a Docker schema 1 manifest, identified by its ``mediaType``, ``schemaVersion`` or Content-Type.

    Args:
        parsed: The manifest.
        content_type: The Content-Type without its parameters; empty if there is none.

    Raises:
        Unsupported: The manifest is a schema 1 manifest.
    """
    stated_type = parse_media_type(parsed.get("mediaType")) or ""
    version = parsed.get("schemaVersion")
    has_version_1 = type(version) is int and version == 1
    if (
        (has_version_1 and stated_type not in MANIFEST_TYPES and content_type not in MANIFEST_TYPES)
        or stated_type.lower() in _SCHEMA_1_TYPES
        or content_type.lower() in _SCHEMA_1_TYPES
    ):
        raise Unsupported("Docker schema 1 manifests are not supported: push the image again with a current tool")


def detect_media_type(parsed: dict[str, Any], content_type: str) -> str:
    """Return the media type of a manifest, from its Content-Type, its ``mediaType``, or its fields.

    Args:
        parsed: The manifest.
        content_type: The Content-Type without its parameters. It takes precedence if it is one of `MANIFEST_TYPES`.

    Raises:
        ContentError: Content-Type and ``mediaType`` differ; or there is no ``mediaType``, and the content has fields of
            both an index and an image manifest (CVE-2021-41190).
    """
    stated_type = parse_media_type(parsed.get("mediaType"))
    if stated_type is not None:
        if content_type not in MANIFEST_TYPES:
            return stated_type
        if stated_type != content_type and stated_type not in GENERIC_MEDIA_TYPES:
            raise ContentError(
                f"manifest media type mismatch: mediaType is {stated_type}, but Content-Type is {content_type}"
            )
        return content_type
    fields = {field for field in ("manifests", "config", "layers") if parsed.get(field) is not None}
    # Tools could interpret such a document differently: one tool could verify it as an index, and another could run it
    # as an image.
    if "manifests" in fields and len(fields) > 1:
        raise ContentError(
            f"ambiguous manifest: it has manifests and {' and '.join(sorted(fields - {'manifests'}))}, but no mediaType"
            " (expected an index or an image manifest)"
        )
    if content_type in MANIFEST_TYPES:
        return content_type
    if "manifests" in fields:
        return OCI_INDEX
    return OCI_MANIFEST if fields == {"config", "layers"} else content_type


def is_index(descriptor: Descriptor) -> bool:
    """Return whether the media type of a descriptor is an index type."""
    return descriptor.media_type in INDEX_TYPES


def subject_digest(content: bytes) -> Digest | None:
    """Return the digest of the subject of a manifest; `None` if there is no subject, or its digest is invalid."""
    subject = parse_manifest(content).get("subject")
    try:
        return Digest(subject["digest"]) if isinstance(subject, dict) else None
    except (KeyError, UsageError):
        return None


def to_referrer_entry(content: bytes, descriptor: Descriptor) -> Descriptor:
    """Return the entry of a manifest in a list of referrers: its descriptor with artifact type and annotations.

    The artifact type is the ``artifactType`` of the manifest, or else the media type of its config (distribution
    specification, "Listing Referrers").
    """
    parsed = parse_manifest(content)
    config = parsed.get("config")
    artifact_type = parsed.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    # `from_dict` is lenient: if an annotation of the manifest is a number, it becomes a string in the index.
    fields = {"artifactType": artifact_type, "annotations": parsed.get("annotations")}
    return Descriptor.from_dict({**descriptor.to_dict(), **fields})


def parse_referrer(entry: Any) -> Descriptor:
    """Parse an entry of a list of referrers. A missing or invalid size is read as 0.

    A wrong size is acceptable, because the content is verified by its digest.

    Raises:
        UsageError: The entry is not an object, or has no valid digest.
    """
    try:
        return Descriptor.from_dict(entry)
    except UsageError:
        if not isinstance(entry, dict):
            raise
        return Descriptor.from_dict({**entry, "size": 0})


class IndexText(NamedTuple):
    """JSON text of an index, split at its entries, so that entries can be replaced without changing the rest.

    Parsing and serializing would change other fields: ``1e400`` would become ``Infinity``, and escapes would make the
    text longer.

    Attributes:
        before: Text before the entries, including the opening bracket.
        entries: Text of each entry.
        after: Text after the entries, including the closing bracket.
    """

    before: str
    entries: tuple[str, ...]
    after: str

    @classmethod
    def split(cls, content: bytes) -> IndexText:
        """Split the JSON text of an index.

        Raises:
            ContentError: The content is not a JSON object in UTF-8, is nested too deeply, or ``manifests`` is not a
                list.
        """
        try:
            # Like json.loads, use "surrogatepass" to preserve the bytes of a lone surrogate.
            text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogatepass")
            if not isinstance(_SCANNER.decode(text), dict):
                raise ValueError("it is not a JSON object")
            members = {name: span for name, *span in _members(text, text.index("{"))}
            start, stop = members.get("manifests", (0, 0))
            if text[start:stop] == "null":  # Go serializes an empty list as null
                return cls(f"{text[:start]}[", (), f"]{text[stop:]}")
            if text[start] != "[":
                raise ValueError("manifests is not a list")
            entries = tuple(text[first:last] for _, first, last in _members(text, start))
        except (ValueError, RecursionError) as error:
            raise ContentError(f"cannot update the index: {error}") from None
        return cls(text[: start + 1], entries, text[stop - 1 :])

    def join(self, entries: Iterable[str]) -> bytes:
        """Return the content of the index with other entries and otherwise unchanged bytes."""
        return f"{self.before}{','.join(entries)}{self.after}".encode("utf-8", "surrogatepass")


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which RFC 8259, section 6, forbids but `json` accepts. Passed as ``parse_constant``.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"invalid JSON: {name}")


_SPACE = re.compile(r"[ \t\n\r]*")
_SEPARATOR = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")
# Do not convert numbers: only the position of each value is needed, and int() refuses more than 4300 digits.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=refuse_constant)


def _members(text: str, position: int) -> Iterator[tuple[str, int, int]]:
    """Yield the name, start and end of each member of the JSON object or array at a position. Requires valid JSON."""
    name, has_names = "", text[position : position + 1] == "{"
    position = _SPACE.match(text, position + 1).end()  # type: ignore[union-attr]
    while text[position] not in "]}":
        if has_names:
            name, position = _SCANNER.raw_decode(text, position)
            position = _SPACE.match(text, text.index(":", position) + 1).end()  # type: ignore[union-attr]
        _, end = _SCANNER.raw_decode(text, position)
        yield name, position, end
        position = _SEPARATOR.match(text, end).end()  # type: ignore[union-attr]
