"""Descriptors: media type, digest and size of content.

They follow the OCI image specification, "OCI Content Descriptors", and for `Platform` "OCI Image Index".
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, final

from .._argument_checks import safe_repr
from ..errors import UsageError
from ..media_types import MANIFEST_TYPES, OCTET_STREAM
from .digest import Digest

__all__ = [
    "Descriptor",
    "Platform",
    "HTML_TYPES",
    "is_media_type",
    "parse_media_type",
]

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
"""The media types of web pages."""
_COMPARED_TYPES = MANIFEST_TYPES | HTML_TYPES

# RFC 6838, section 4.2: the restricted names of a type and a subtype.
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(f"{_NAME}/{_NAME}")


@final
@dataclass(frozen=True, slots=True)
class Platform:
    """The platform of an image in an index. Fields are named as in the specification, with underscores for dots."""

    architecture: str
    os: str
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    variant: str = ""
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("architecture", "os", "os_version", "variant"):
            _check(isinstance(getattr(self, name), str), f"platform.{name}", "a string", getattr(self, name))
        for name in ("os_features", "features"):
            object.__setattr__(self, name, _strings(f"platform.{name}", getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the specification, without empty fields."""
        optional = {
            "os.version": self.os_version,
            "os.features": list(self.os_features),
            "variant": self.variant,
            "features": list(self.features),
        }
        return {"architecture": self.architecture, "os": self.os} | {key: v for key, v in optional.items() if v}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Platform:
        """Parse the JSON object of the specification, leniently.

        Numbers and booleans are read as their JSON text. Unknown fields, and values of other types, are ignored.

        Raises:
            UsageError: The argument is not an object.
        """
        _check(isinstance(mapping, Mapping), "platform", "an object", mapping)
        return cls(
            architecture=_read_text(mapping.get("architecture")) or "",
            os=_read_text(mapping.get("os")) or "",
            os_version=_read_text(mapping.get("os.version")) or "",
            os_features=_read_strings(mapping.get("os.features")),
            variant=_read_text(mapping.get("variant")) or "",
            features=_read_strings(mapping.get("features")),
        )


@final
@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size in bytes of content, with further optional properties.

    Raises:
        UsageError: A field has the wrong type, the digest is not valid, the media type is not
            ``type/subtype`` (RFC 6838), or the size is negative.
    """

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] | None = None
    data: bytes | None = None
    platform: Platform | None = None
    artifact_type: str | None = None

    def __post_init__(self) -> None:
        _check_media_type("mediaType", self.media_type)
        object.__setattr__(self, "digest", Digest(self.digest))
        is_size = type(self.size) is int and 0 <= self.size < 2**63  # image specification, "Properties": an int64
        _check(is_size, "size", "an integer from 0 to 2**63 - 1", self.size)
        object.__setattr__(self, "urls", _strings("urls", self.urls))
        if self.annotations is not None:
            _check(_is_string_map(self.annotations), "annotations", "a map of strings to strings", self.annotations)
            object.__setattr__(self, "annotations", dict(self.annotations))
        _check(self.data is None or isinstance(self.data, bytes), "data", "bytes", self.data)
        _check(self.platform is None or isinstance(self.platform, Platform), "platform", "a Platform", self.platform)
        if self.artifact_type is not None:
            _check_media_type("artifactType", self.artifact_type)

    def __hash__(self) -> int:
        return hash((self.media_type, self.digest, self.size))

    @classmethod
    def of(cls, data: bytes, media_type: str = OCTET_STREAM, *, algorithm: str = "sha256") -> Descriptor:
        """Hash data and return its descriptor.

        Raises:
            UsageError: The media type is not valid, or the algorithm is not sha256, sha384 or sha512.
        """
        return cls(media_type, Digest.of(data, algorithm), memoryview(data).nbytes)

    def replace(self, **changes: Any) -> Descriptor:
        """Return a copy with other values in the named fields."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the specification, without empty fields; `data` is in base64."""
        optional = {
            "urls": list(self.urls),
            "annotations": None if self.annotations is None else dict(self.annotations),
            "data": None if self.data is None else base64.b64encode(self.data).decode("ascii"),
            "platform": None if self.platform is None else self.platform.to_dict(),
            "artifactType": self.artifact_type,
        }
        present = {key: value for key, value in optional.items() if value is not None and value != []}
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size} | present

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Descriptor:
        """Parse the JSON object of the specification, leniently: other tools do not always follow it.

        Media types lose their parameters; one that is absent or not valid is read as ``application/octet-stream``, or
        as None for ``artifactType``. Numbers and booleans among the values of annotations are read as their JSON text,
        and other values that are not strings are dropped. Unknown fields, and optional fields of the wrong type, are
        ignored. Digest and size must be valid.

        Raises:
            UsageError: The argument is not an object, or the digest or the size is missing or not valid.
        """
        _check(isinstance(mapping, Mapping), "itself", "an object", mapping)
        missing = [key for key in ("digest", "size") if key not in mapping]
        if missing:
            raise UsageError(f"not a descriptor: {', '.join(missing)} missing in {safe_repr(dict(mapping), 200)}")
        size, platform = mapping["size"], mapping.get("platform")
        return cls(
            media_type=parse_media_type(mapping.get("mediaType")) or OCTET_STREAM,
            digest=mapping["digest"],
            # 7.0 and 7 are the same number in JSON (RFC 8259, section 6).
            size=int(size) if isinstance(size, float) and size.is_integer() and abs(size) < 2**53 else size,
            urls=_read_strings(mapping.get("urls")),
            annotations=_read_annotations(mapping.get("annotations")),
            data=_read_base64(mapping.get("data")),
            platform=Platform.from_dict(platform) if isinstance(platform, Mapping) else None,
            artifact_type=parse_media_type(mapping.get("artifactType")),
        )


def _check(holds: bool, field: str, expected: str, value: object) -> None:  # noqa: FBT001 - a statement, not an option
    if not holds:
        raise UsageError(f"not a descriptor: {field} must be {expected}, not {safe_repr(value, 200)}")


def is_media_type(value: object) -> bool:
    """Whether a value is ``type/subtype`` (RFC 6838, section 4.2), without parameters."""
    return isinstance(value, str) and _MEDIA_TYPE.fullmatch(value) is not None


def parse_media_type(value: object) -> str | None:
    """Read a media type from a header or a JSON document, without its parameters; None if it is not valid.

    The types of manifests and web pages are returned in lower case, because media types are case-insensitive (RFC 6838,
    section 4.2).
    """
    name = value.partition(";")[0].strip() if isinstance(value, str) else ""
    if not is_media_type(name):
        return None
    lowered = name.lower()
    return lowered if lowered in _COMPARED_TYPES else name


def _check_media_type(field: str, value: object) -> None:
    _check(is_media_type(value), field, "type/subtype", value)


def _strings(field: str, value: object) -> tuple[str, ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    _check(is_list and all(isinstance(item, str) for item in value), field, "a list of strings", value)  # type: ignore[attr-defined]
    return tuple(value)  # type: ignore[arg-type]


def _is_string_map(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


def _read_text(value: object) -> str | None:
    """A string of a JSON document, or the JSON text of a number or a boolean; None for any other value."""
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return value if isinstance(value, str) else None


def _read_strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, (list, tuple)) else ()


def _read_annotations(value: object) -> dict[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    texts = {key: _read_text(item) for key, item in value.items() if isinstance(key, str)}
    return {key: text for key, text in texts.items() if text is not None}


def _read_base64(value: object) -> bytes | None:
    if isinstance(value, (str, bytes)):
        with suppress(ValueError):  # the content can still be fetched by its digest
            return base64.b64decode(value, validate=True)
    return None
