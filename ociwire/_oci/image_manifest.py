"""`Manifest` and `Index`: manifests as immutable values that keep all fields, known or not.

Defined by the OCI image specification 1.1, "OCI Image Manifest" and "OCI Image Index"; Docker's manifest and manifest
list have the same fields. The bytes that a value was parsed from are kept, so that its digest stays the same. A new or
changed value is serialized in a fixed order of fields, without spaces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, final

from .._argument_checks import safe_repr
from .._text import sanitize
from ..errors import ContentError, ManifestUnknown, UsageError
from ..media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from .descriptor import Descriptor, Platform, is_media_type, parse_media_type
from .manifest import dump_json, parse_json_object
from .platforms import describe_platform, rank_platform
from .references import parse_platform

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Index", "Manifest"]

_FIELD_ORDER = ("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations")
_MAX_OFFERS = 1000
"""Maximum length in characters of the list of platforms in a message."""
_EMPTY_CONFIG = Descriptor.of(b"{}", OCI_EMPTY)


class _Document:
    """A JSON object, and its bytes as parsed or serialized. Immutable."""

    __slots__ = ("_content", "_object")

    _content: bytes
    _object: dict[str, Any]
    _media_types: ClassVar[tuple[str, ...]]
    _descriptor_fields: ClassVar[tuple[str, ...]]  # JSON fields with one descriptor
    _list_fields: ClassVar[tuple[str, ...]]  # JSON fields with a list of descriptors

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Parse JSON, as leniently as `Descriptor.from_dict`. `to_bytes` returns the same bytes.

        Raises:
            UsageError: The content is not bytes.
            ContentError: The content is not a JSON object, states the media type of another kind of manifest, or has an
                invalid descriptor.
        """
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise UsageError(f"content must be bytes, got {type(content).__name__}")
        content = bytes(content)
        parsed, kind = parse_json_object(content), cls.__name__.lower()
        if parsed is None:
            raise ContentError(f"invalid {kind}: expected a JSON object, got {safe_repr(content)}")
        stated = parse_media_type(parsed.get("mediaType"))
        if stated is not None and stated not in cls._media_types:
            raise ContentError(f"invalid {kind}: expected the mediaType {cls._media_types[0]}, got {stated!r}")
        document = cls._make(parsed, content)
        try:
            for name in cls._descriptor_fields:
                document._descriptor(name)
            for name in cls._list_fields:
                document._descriptors(name)
        except UsageError as error:
            raise ContentError(f"invalid {kind}: {error}") from None
        return document

    @classmethod
    def _make(cls, fields: Mapping[str, Any], content: bytes | None = None) -> Self:
        present = {name: fields[name] for name in _FIELD_ORDER if fields.get(name) is not None}
        if content is None:
            unknown = {name: fields[name] for name in sorted(fields.keys() - set(_FIELD_ORDER))}
            present |= unknown
            try:
                content = dump_json(present).encode()
            except ValueError:
                raise UsageError("cannot write the manifest: NaN and Infinity are not valid JSON (RFC 8259)") from None
        else:
            present = dict(fields)
        document = object.__new__(cls)
        object.__setattr__(document, "_object", present)
        object.__setattr__(document, "_content", content)
        return document

    def to_bytes(self) -> bytes:
        """Return the JSON text: the bytes that were parsed, or the serialization, which is deterministic."""
        return self._content

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the JSON object, with all fields."""
        copied: dict[str, Any] = json.loads(json.dumps(self._object))
        return copied

    @property
    def media_type(self) -> str:
        """Media type: the ``mediaType`` field, or the OCI media type if there is no such field."""
        return parse_media_type(self._object.get("mediaType")) or self._media_types[0]

    @property
    def artifact_type(self) -> str | None:
        """Media type of the artifact; `None` if there is none."""
        return parse_media_type(self._object.get("artifactType"))

    @property
    def subject(self) -> Descriptor | None:
        """Descriptor of the manifest that this one refers to, such as a signed image; `None` if there is none."""
        return self._descriptor("subject")

    @property
    def annotations(self) -> Mapping[str, str]:
        """Annotations; empty if there are none."""
        annotations = self._object.get("annotations")
        texts = annotations if isinstance(annotations, dict) else {}
        return MappingProxyType({name: text for name, text in texts.items() if isinstance(text, str)})

    @property
    def descriptor(self) -> Descriptor:
        """Descriptor of the manifest itself, with a sha256 digest."""
        return Descriptor.of(self._content, self.media_type)

    def _descriptor(self, name: str) -> Descriptor | None:
        value = self._object.get(name)
        return None if value is None else Descriptor.from_dict(value)

    def _descriptors(self, name: str) -> tuple[Descriptor, ...]:
        values = self._object.get(name)
        if values is None:  # absent, or null, which is how Go serializes a nil slice
            return ()
        if not isinstance(values, list):
            raise UsageError(f"{name} must be a list of descriptors, got {safe_repr(values)}")
        return tuple(map(Descriptor.from_dict, values))

    def _json_entries(self, name: str) -> list[Any]:
        """Return the JSON of the descriptors of a field."""
        values = self._object.get(name)
        return values if isinstance(values, list) else [] if values is None else [values]

    def _with(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with changed JSON fields. All other fields are kept."""
        fields = dict(self._object)
        # Descriptors that stay keep their JSON: it may have fields that `Descriptor` lacks.
        for name, value in changes.items():
            if name == "mediaType" and is_media_type(value) and value not in self._media_types:
                expected = " or ".join(self._media_types)
                raise UsageError(f"invalid mediaType {safe_repr(value, 200)}: expected {expected}")
            originals: dict[Descriptor, list[Any]] = {}
            if name in (*self._descriptor_fields, *self._list_fields):
                for original in self._json_entries(name):
                    originals.setdefault(Descriptor.from_dict(original), []).append(original)
            fields[name] = _encode(name, value, originals)
        return self._make(fields)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"cannot assign to {name!r}: {type(self).__name__} is immutable; use replace()")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"cannot delete {name!r}: {type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._object == other._object

    def __hash__(self) -> int:
        # Not the hash of the JSON text: equal numbers such as 2 and 2.0 differ in text. Nor that of all values: the
        # JSON may be nested deeply.
        names = (*self._descriptor_fields, *self._list_fields)
        digests = [entry.digest for name in names for entry in map(Descriptor.from_dict, self._json_entries(name))]
        return hash((type(self), *digests, frozenset(self.annotations.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bytes, (self._content,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.descriptor.digest} of {len(self._content)} bytes>"


@final
class Manifest(_Document):
    """An image manifest, which also describes artifacts other than images. Immutable.

    >>> layer = Descriptor.of(b"weights", "application/vnd.example.weights")
    >>> manifest = Manifest(layers=[layer], artifact_type="application/vnd.example.model")
    >>> manifest.config.media_type
    'application/vnd.oci.empty.v1+json'
    >>> Manifest.from_bytes(manifest.to_bytes()) == manifest
    True

    Args:
        config: Descriptor of the configuration. Defaults to the empty JSON object, as for artifacts without one.
        layers: Descriptors of the layers, or of the content of an artifact.
        artifact_type: Media type of the artifact. Required if the configuration is the empty object.
        subject: Descriptor of the manifest that this one refers to.
        annotations: Arbitrary metadata.
        media_type: The OCI or the Docker media type of a manifest. Defaults to the OCI media type.

    Raises:
        UsageError: A value has the wrong type, or the artifact type is missing.
    """

    __slots__ = ()
    _media_types = (OCI_MANIFEST, DOCKER_MANIFEST)
    _descriptor_fields = ("config", "subject")
    _list_fields = ("layers",)

    def __new__(
        cls,
        config: Descriptor | None = None,
        layers: Iterable[Descriptor] = (),
        *,
        artifact_type: str | None = None,
        subject: Descriptor | None = None,
        annotations: Mapping[str, str] | None = None,
        media_type: str = OCI_MANIFEST,
    ) -> Manifest:
        config = _EMPTY_CONFIG if config is None else config
        fields = {
            "mediaType": media_type,
            "artifactType": artifact_type,
            "config": config,
            "layers": layers,
            "subject": subject,
            "annotations": annotations,
        }
        manifest = cls._make({"schemaVersion": 2})._with(fields)
        if config.media_type == OCI_EMPTY and artifact_type is None:
            raise UsageError(
                "a manifest with an empty config must have an artifact_type, such as 'application/vnd.example'"
            )
        return manifest

    @property
    def config(self) -> Descriptor:
        """Descriptor of the configuration; the descriptor of the empty JSON object if there is none."""
        return self._descriptor("config") or _EMPTY_CONFIG

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """Descriptors of the layers, in their order."""
        return self._descriptors("layers")

    def replace(self, **changes: Any) -> Manifest:
        """Return a copy in which the given constructor arguments have other values. All other fields are kept.

        Raises:
            UsageError: There is no such argument, or a value has the wrong type.
        """
        return self._with(_to_json_names(changes, ("config", "layers")))


@final
class Index(_Document):
    """An image index: a list of manifests, for example one for each platform. Immutable.

    >>> image = Descriptor.of(b"{}", OCI_MANIFEST).replace(platform=Platform("arm64", "linux"))
    >>> Index([image]).select("linux/arm64") == image
    True

    Args:
        manifests: Descriptors of the manifests, with their platforms.
        artifact_type: Media type of the artifact, if the index describes an artifact.
        subject: Descriptor of the manifest that this one refers to.
        annotations: Arbitrary metadata.
        media_type: The OCI or the Docker media type of an index. Defaults to the OCI media type.

    Raises:
        UsageError: A value has the wrong type.
    """

    __slots__ = ()
    _media_types = (OCI_INDEX, DOCKER_MANIFEST_LIST)
    _descriptor_fields = ("subject",)
    _list_fields = ("manifests",)

    def __new__(
        cls,
        manifests: Iterable[Descriptor] = (),
        *,
        artifact_type: str | None = None,
        subject: Descriptor | None = None,
        annotations: Mapping[str, str] | None = None,
        media_type: str = OCI_INDEX,
    ) -> Index:
        fields = {
            "mediaType": media_type,
            "artifactType": artifact_type,
            "manifests": manifests,
            "subject": subject,
            "annotations": annotations,
        }
        return cls._make({"schemaVersion": 2})._with(fields)

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """Descriptors of the manifests, in their order."""
        return self._descriptors("manifests")

    def select(self, platform: str | Platform) -> Descriptor:
        """Return the entry that fits a platform best, as containerd does.

        Images for older variants of the architecture fit, too, and so do 32-bit images on arm64 and amd64. If several
        entries fit equally well, the first one is returned.

        Args:
            platform: ``os/architecture``, ``os/architecture/variant``, or a `Platform`.

        Raises:
            UsageError: The platform has another form.
            ManifestUnknown: No entry fits. The message lists the platforms of the index.
        """
        requested = parse_platform(platform)
        entries = [(entry, entry.platform) for entry in self.manifests if entry.platform is not None]
        ranks = [(rank_platform(requested, offered), entry) for entry, offered in entries]
        fitting = [(rank, entry) for rank, entry in ranks if rank is not None]
        if not fitting:
            offers = ", ".join(dict.fromkeys(describe_platform(offered) for _, offered in entries))
            raise ManifestUnknown(
                f"the index has nothing for {describe_platform(requested)}: expected one of"
                f" {sanitize(offers, _MAX_OFFERS) or 'no platform'}"
            )
        return min(fitting, key=lambda ranked: ranked[0])[1]

    def replace(self, **changes: Any) -> Index:
        """Return a copy in which the given constructor arguments have other values. All other fields are kept.

        Raises:
            UsageError: There is no such argument, or a value has the wrong type.
        """
        return self._with(_to_json_names(changes, ("manifests",)))


def _to_json_names(changes: Mapping[str, Any], own: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of `replace`, keyed by the names of their JSON fields."""
    names = {"media_type": "mediaType", "artifact_type": "artifactType", "subject": "subject"}
    names |= {"annotations": "annotations"} | {name: name for name in own}
    for name in changes:
        if name not in names:
            raise UsageError(f"invalid field {name!r}: expected one of {', '.join(sorted(names))}")
    return {names[name]: value for name, value in changes.items()}


def _encode(name: str, value: Any, originals: Mapping[Descriptor, list[Any]]) -> Any:
    """Return the JSON value of a field.

    Args:
        name: Name of the field.
        value: The new value.
        originals: Present JSON of each descriptor of this field: a list, in order, because equal descriptors may
            differ in other JSON fields.
    """
    if value is None and name in ("artifactType", "subject", "annotations"):
        return None
    if name in ("mediaType", "artifactType"):
        if not is_media_type(value):
            raise UsageError(f"invalid {name} {safe_repr(value, 200)}: expected type/subtype")
        return value
    if name == "annotations":
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
            raise UsageError(f"annotations must be a mapping of strings to strings, got {safe_repr(value, 200)}")
        return dict(sorted(value.items()))
    if name in ("config", "subject"):
        if not isinstance(value, Descriptor):
            raise UsageError(f"{name} must be a Descriptor, got {safe_repr(value)}")
        return _take_json(value, originals)
    entries = list(value) if isinstance(value, Iterable) else [value]
    if not isinstance(value, Iterable) or not all(isinstance(entry, Descriptor) for entry in entries):
        raise UsageError(f"{name} must be an iterable of Descriptors, got {safe_repr(value)}")
    return [_take_json(entry, originals) for entry in entries]


def _take_json(descriptor: Descriptor, originals: Mapping[Descriptor, list[Any]]) -> Any:
    present = originals.get(descriptor)
    if not present:
        return descriptor.to_dict()
    return present.pop(0) if len(present) > 1 else present[0]
