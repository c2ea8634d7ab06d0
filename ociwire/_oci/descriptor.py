"""Descriptors: media type, digest and size of content.

Defined by the OCI image specification, "OCI Content Descriptors", and for `Platform`, "OCI Image Index".
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict, final

from .._argument_checks import safe_repr
from .._files import open_regular_file
from ..errors import SizeMismatch, UsageError
from ..media_types import MANIFEST_TYPES, OCTET_STREAM
from .digest import Digest, hashed_digest, new_hasher

if TYPE_CHECKING:
    from typing_extensions import Unpack

    class DescriptorFields(TypedDict, total=False):
        """Keyword arguments of `Descriptor.replace`."""

        media_type: str
        digest: Digest
        size: int
        urls: tuple[str, ...]
        annotations: Mapping[str, str] | None
        data: bytes | None
        platform: Platform | None
        artifact_type: str | None


__all__ = [
    "Descriptor",
    "Platform",
    "HTML_TYPES",
    "check_size",
    "digest_and_size",
    "is_media_type",
    "parse_media_type",
]

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
"""The media types of web pages."""
_CHUNK_SIZE = 256 * 1024
_COMPARED_TYPES = MANIFEST_TYPES | HTML_TYPES  # `parse_media_type` returns these in lower case

# RFC 6838, section 4.2: type and subtype are restricted names of at most 127 characters.
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(f"{_NAME}/{_NAME}")


@final
@dataclass(frozen=True, slots=True)
class Platform:
    """Platform of an image in an index, such as linux/arm64/v8.

    The fields are named as in the specification, with underscores instead of dots.

    >>> Platform("arm64", "linux", variant="v8").to_dict()
    {'architecture': 'arm64', 'os': 'linux', 'variant': 'v8'}

    Attributes:
        architecture: CPU architecture, such as ``amd64`` (a GOARCH value).
        os: Operating system, such as ``linux`` (a GOOS value).
        os_version: Version of the operating system; empty if unspecified.
        os_features: Required features of the operating system.
        variant: Variant of the CPU, such as ``v8``; empty if unspecified.
        features: Reserved by the specification.

    Raises:
        UsageError: A field has the wrong type.
    """

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
        """Return the platform as the JSON object that the specification defines, without empty optional fields."""
        optional = {
            "os.version": self.os_version,
            "os.features": list(self.os_features),
            "variant": self.variant,
            "features": list(self.features),
        }
        return {"architecture": self.architecture, "os": self.os} | {key: v for key, v in optional.items() if v}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Platform:
        """Parse the JSON object of the specification leniently.

        Numbers and booleans are converted to their JSON text. Unknown fields and values of other types are ignored.

        Raises:
            UsageError: The argument is not a mapping.
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
    """Descriptor of content: media type, digest and size, with optional further properties. Immutable.

    >>> descriptor = Descriptor.of(b"hello", "text/plain")
    >>> descriptor.size
    5
    >>> descriptor.digest
    'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'

    Attributes:
        media_type: Media type of the content, without parameters.
        digest: Digest of the content.
        size: Size of the content in bytes.
        urls: URLs from which the content may also be downloaded.
        annotations: Arbitrary metadata; `None` if there is none.
        data: The content itself, if it is embedded in the descriptor.
        platform: Platform of an image in an index.
        artifact_type: Artifact type of the manifest that the descriptor references.

    Raises:
        UsageError: A field has the wrong type, the digest is invalid, a media type is not ``type/subtype`` (RFC 6838),
            or the size is not an integer from 0 to 2**63 - 1.
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
    def of(
        cls,
        content: bytes | os.PathLike[str] | BinaryIO,
        media_type: str = OCTET_STREAM,
        *,
        algorithm: str = "sha256",
    ) -> Descriptor:
        """Compute the digest of content, and return its descriptor.

        Args:
            content: Bytes; the path of a regular file; or a seekable binary file, which is read from its current
                position. The position is restored.
            media_type: Media type of the content. Defaults to ``application/octet-stream``.
            algorithm: Hash algorithm of the digest: sha256 (default), sha384 or sha512.

        Raises:
            UsageError: The content has another type, such as `str` or an iterable; the file is not seekable; the media
                type is invalid; or the algorithm is not supported.
            OSError: The file cannot be opened or read.
        """
        if isinstance(content, os.PathLike):
            with open_regular_file(content) as opened:
                return cls.of(opened, media_type, algorithm=algorithm)
        hasher, size = new_hasher(algorithm), 0
        if not hasattr(content, "read"):
            try:
                view = memoryview(content)
            except TypeError:
                raise UsageError(
                    f"content must be bytes, a path or a binary file, got {type(content).__name__}: pass text as"
                    " text.encode(), a file name as pathlib.Path(name), and the descriptor of other content"
                ) from None
            hasher.update(view if view.c_contiguous else view.tobytes())
            return cls(media_type, hashed_digest(hasher, algorithm), view.nbytes)
        file: Any = content
        try:
            start = file.tell()
            file.seek(start)
        except (AttributeError, OSError, ValueError):
            raise UsageError(
                "cannot compute the descriptor of a file that is closed or not seekable: pass a descriptor, or use"
                " ociwire.transfer.upload, which hashes what it sends"
            ) from None
        try:
            while chunk := file.read(_CHUNK_SIZE):
                if not isinstance(chunk, (bytes, bytearray, memoryview)):
                    raise UsageError(f"content must be a binary file, got one that yields {type(chunk).__name__}")
                hasher.update(chunk)
                size += len(chunk)
        finally:
            file.seek(start)
        return cls(media_type, hashed_digest(hasher, algorithm), size)

    def replace(self, **changes: Unpack[DescriptorFields]) -> Descriptor:
        """Return a copy with changed fields."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the descriptor as the JSON object that the specification defines.

        Empty fields are omitted, and `data` is encoded in base64.
        """
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
        """Parse the JSON object of the specification leniently, because other tools deviate from it.

        Only digest and size must be valid. Parameters of media types are removed. A missing or invalid ``mediaType`` is
        read as ``application/octet-stream``, an invalid ``artifactType`` as `None`. Numbers and booleans in annotations
        are converted to their JSON text; other values that are not strings are dropped. Unknown fields and optional
        fields of the wrong type are ignored.

        Raises:
            UsageError: The argument is not a mapping, or its digest or size is missing or invalid.
        """
        if not isinstance(mapping, Mapping):
            raise UsageError(f"invalid descriptor: expected an object, got {safe_repr(mapping, 200)}")
        missing = [key for key in ("digest", "size") if key not in mapping]
        if missing:
            raise UsageError(f"invalid descriptor: {' and '.join(missing)} missing in {safe_repr(dict(mapping), 200)}")
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


def digest_and_size(digest: str | Descriptor) -> tuple[Digest, int | None]:
    """Return the digest, and the size if a descriptor is given."""
    return (digest.digest, digest.size) if isinstance(digest, Descriptor) else (Digest(digest), None)


def check_size(name: str, size: int | None, expected: int | None) -> None:
    """Raise `SizeMismatch` if content does not have the size that its descriptor states.

    Args:
        name: Name of the content for the message: its digest, or ``the content``.
        size: Size of the content in bytes; `None` if it is unknown.
        expected: Size in the descriptor; `None` if there is no descriptor.
    """
    if size is not None and expected is not None and size != expected:
        raise SizeMismatch(
            f"{name} has {size} bytes: expected {expected}, as its descriptor states",
            expected=expected,
            actual=size,
        )


def _check(holds: bool, field: str, expected: str, value: object) -> None:  # noqa: FBT001 - the condition to check, not an option
    if not holds:
        raise UsageError(f"invalid descriptor: {field} must be {expected}, got {safe_repr(value, 200)}")


def is_media_type(value: object) -> bool:
    """Return whether a value is a media type (RFC 6838, section 4.2) without parameters."""
    return isinstance(value, str) and _MEDIA_TYPE.fullmatch(value) is not None


def parse_media_type(value: object) -> str | None:
    """Return the media type in a header or a JSON document, without its parameters; `None` if it is invalid.

    The media types of manifests and HTML pages are converted to lower case, because callers compare them, and media
    types are case-insensitive (RFC 6838, section 4.2).
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
    """Return a string unchanged, the JSON text of a number or boolean, and `None` for any other value."""
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
        with suppress(ValueError):  # invalid `data` is ignored: the content can be fetched by its digest
            return base64.b64decode(value, validate=True)
    return None
