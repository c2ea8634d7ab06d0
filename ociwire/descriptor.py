"""Descriptors: what a content is called, how long it is and what it means.

They follow the OCI image specification, "OCI Content Descriptors" (and, for `Platform`, "OCI Image Index").
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from .arguments import show
from .digest import Digest
from .errors import UsageError

__all__ = [
    "Descriptor",
    "Platform",
    "OCTET_STREAM",
    "OCI_MANIFEST",
    "OCI_INDEX",
    "DOCKER_MANIFEST",
    "DOCKER_MANIFEST_LIST",
    "is_media_type",
]

OCTET_STREAM = "application/octet-stream"
"""Bytes of which nothing is known: what a blob is where nobody said otherwise."""
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

# RFC 6838, section 4.2: the restricted names of a type and a subtype.
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(f"{_NAME}/{_NAME}")


@final
@dataclass(frozen=True, slots=True)
class Platform:
    """The platform that an image of an index is for. The fields are the specification's, its dots as underscores."""

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
        """The JSON object of the specification, without the fields that are empty."""
        optional = {
            "os.version": self.os_version,
            "os.features": list(self.os_features),
            "variant": self.variant,
            "features": list(self.features),
        }
        return {"architecture": self.architecture, "os": self.os} | {key: v for key, v in optional.items() if v}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Platform:
        """Read the JSON object of the specification; fields that it does not know are passed over.

        Raises:
            UsageError: It is not an object, or a field has the wrong type.
        """
        _check(isinstance(mapping, Mapping), "platform", "an object", mapping)
        return cls(
            architecture=mapping.get("architecture", ""),
            os=mapping.get("os", ""),
            os_version=_get(mapping, "os.version", ""),
            os_features=_get(mapping, "os.features", ()),
            variant=_get(mapping, "variant", ""),
            features=_get(mapping, "features", ()),
        )


@final
@dataclass(frozen=True, slots=True)
class Descriptor:
    """A content's media type, digest and size in bytes, with what else is known of it.

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
        """The descriptor of `data`, which is hashed.

        Raises:
            UsageError: The media type is not valid, or the algorithm is none of sha256, sha384 and sha512.
        """
        return cls(media_type, Digest.of(data, algorithm), memoryview(data).nbytes)

    def replace(self, **changes: Any) -> Descriptor:
        """The same descriptor with other values in the named fields."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the specification, without the fields that are empty; `data` is in base64."""
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
        """Read the JSON object of the specification; fields that it does not know are passed over.

        Raises:
            UsageError: A required field is missing, or a field is not what it should be.
        """
        _check(isinstance(mapping, Mapping), "itself", "an object", mapping)
        missing = [key for key in ("mediaType", "digest", "size") if key not in mapping]
        if missing:
            raise UsageError(f"not a descriptor: {', '.join(missing)} missing in {show(dict(mapping), 200)}")
        platform = mapping.get("platform")
        return cls(
            media_type=mapping["mediaType"],
            digest=mapping["digest"],
            size=mapping["size"],
            urls=_get(mapping, "urls", ()),
            annotations=mapping.get("annotations"),
            data=_from_base64(mapping.get("data")),
            platform=None if platform is None else Platform.from_dict(platform),
            artifact_type=None if mapping.get("artifactType") == "" else mapping.get("artifactType"),
        )


def _check(holds: bool, field: str, wanted: str, value: object) -> None:  # noqa: FBT001 - a statement, not an option
    if not holds:
        raise UsageError(f"not a descriptor: {field} must be {wanted}, not {show(value, 200)}")


def is_media_type(value: object) -> bool:
    """Whether it reads ``type/subtype`` (RFC 6838, section 4.2), without parameters."""
    return isinstance(value, str) and _MEDIA_TYPE.fullmatch(value) is not None


def _get(mapping: Mapping[str, Any], key: str, absent: Any) -> Any:
    """A field; null is an absence, as it is to Go."""
    value = mapping.get(key)
    return absent if value is None else value


def _check_media_type(field: str, value: object) -> None:
    _check(is_media_type(value), field, "type/subtype", value)


def _strings(field: str, value: object) -> tuple[str, ...]:
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    _check(listed and all(isinstance(item, str) for item in value), field, "a list of strings", value)  # type: ignore[attr-defined]
    return tuple(value)  # type: ignore[arg-type]


def _is_string_map(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


def _from_base64(value: object) -> bytes | None:
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError, binascii.Error):
        raise UsageError(f"not a descriptor: data must be base64, not {show(value, 200)}") from None
