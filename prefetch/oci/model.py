"""Manifests and indexes over their raw bytes (image-spec, "Image Manifest" and "Image Index").

A document is parsed once and never serialised again: `raw` is what was received, `digest` is
computed over it. Nothing in a document is believed before it is checked; what could be read in
two ways is refused (CVE-2021-41190), so that every client reads what prefetch has read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from prefetch.errors import InvalidManifest, InvalidReference
from prefetch.oci.platform import Platform
from prefetch.oci.reference import Digest
from prefetch.oci.strictjson import check_nesting, load_object

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"

INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT: Final = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
"""The Accept header of every manifest request."""

MAX_MANIFEST_SIZE: Final = 4 << 20
"""Bytes of a document (distribution-spec, "Pushing Manifests": at least 4 MiB)."""
MAX_INDEX_DEPTH: Final = 8
"""Indexes within indexes that are followed from a root."""
MAX_INDEX_NODES: Final = 256
"""Documents that are followed from a root."""

_SCHEMA_1_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
_UNTOLD_TYPES: Final = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
_MAX_SIZE: Final = (1 << 63) - 1
_MAX_SHOWN: Final = 255
_MEDIA_TYPE: Final = re.compile("[ -~]{1,255}")
_SCHEMA_VERSION: Final = 2
_BARE_KEYS: Final = frozenset({"mediaType", "digest", "size"})
_DESCRIPTOR_KEYS: Final = _BARE_KEYS | {"urls", "annotations", "data", "artifactType", "platform"}
_DOCUMENT_KEYS: Final = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers"}
    | {"manifests", "subject", "annotations", "fsLayers"}
)
_PLATFORM_KEYS: Final = frozenset(
    {"architecture", "os", "os.version", "os.features", "variant", "features"}
)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Points at content (image-spec, "Content Descriptors"); `size` is in bytes.

    `data` is the content itself where the document carries it, already verified. `urls` are
    other places to fetch it from; they are as untrusted as any URL.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    data: bytes | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image (or artifact): its config and its layers, lowest first."""

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def descriptors(self) -> tuple[Descriptor, ...]:
        """The blobs: config, then layers."""
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests, and sometimes indexes, for several platforms."""

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def descriptors(self) -> tuple[Descriptor, ...]:
        """The children."""
        return self.manifests


Document: TypeAlias = Manifest | Index


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether an index's entry is for no platform: BuildKit's attestations, `unknown/unknown`."""
    platform = descriptor.platform
    return platform is not None and platform.os == platform.architecture == "unknown"


def parse_document(raw: bytes, content_type: str | None, *, algorithm: str = "sha256") -> Document:
    """The manifest or index in `raw`, served as `content_type` (None or generic: not told).

    Its digest is computed with `algorithm`; whether it is the wanted one is the caller's to
    check. Raises InvalidManifest for: more than MAX_MANIFEST_SIZE bytes, schema 1, other media
    types, a `mediaType` that contradicts the Content-Type, a document that is both manifest and
    index, JSON of two readings, and descriptors with anything but valid digests and sizes.
    """
    if len(raw) > MAX_MANIFEST_SIZE:
        raise InvalidManifest(f"the manifest is larger than {MAX_MANIFEST_SIZE} bytes")
    served = _served_type(content_type)
    document = _object(load_object(raw), _DOCUMENT_KEYS, "the manifest")
    media_type = _media_type(document, served)
    digest = Digest.of(raw, algorithm)
    subject = document.get("subject")
    about = (
        None if subject is None else _descriptor(subject, "subject"),
        _word(document, "artifactType"),
        _annotations(document.get("annotations")),
    )
    if media_type in INDEX_TYPES:
        return Index(raw, media_type, digest, _descriptors(document, "manifests"), *about)
    config = _descriptor(document.get("config"), "config")
    return Manifest(raw, media_type, digest, config, _descriptors(document, "layers"), *about)


def _served_type(content_type: str | None) -> str | None:
    """The Content-Type without its parameters; None when it says nothing about manifests."""
    served = (content_type or "").partition(";")[0].strip().lower()
    if served in _UNTOLD_TYPES:
        return None
    if served in _SCHEMA_1_TYPES:
        raise _schema_1()
    if served not in INDEX_TYPES and served not in MANIFEST_TYPES:
        raise InvalidManifest(f"the registry answered {served[:_MAX_SHOWN]!a}, not a manifest")
    return served


def _media_type(document: Mapping[str, object], served: str | None) -> str:
    """What the document is: as served, as it says itself, as its shape says, in agreement."""
    told = _word(document, "mediaType")
    version = document.get("schemaVersion", _SCHEMA_VERSION)
    if told in _SCHEMA_1_TYPES or "fsLayers" in document or version == 1:
        raise _schema_1()
    if type(version) is not int or version != _SCHEMA_VERSION:
        raise InvalidManifest(f"the manifest's schemaVersion is not {_SCHEMA_VERSION}")
    if served and told and served != told:
        raise InvalidManifest(f"the manifest says it is {told!a} but was served as {served!a}")
    is_index = _is_index(document)
    media_type = served or told or (OCI_INDEX if is_index else OCI_MANIFEST)
    if media_type not in (INDEX_TYPES if is_index else MANIFEST_TYPES):
        shape = "an index" if is_index else "a manifest"
        raise InvalidManifest(f"the manifest says it is {media_type!a} but is formed as {shape}")
    return media_type


def _is_index(document: Mapping[str, object]) -> bool:
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    if is_index and is_manifest:
        raise InvalidManifest(
            "the manifest is ambiguous: it has both manifests and layers or config",
            hint="CVE-2021-41190",
        )
    if not is_index and not is_manifest:
        raise InvalidManifest("the document is neither a manifest nor an index")
    return is_index


def _schema_1() -> InvalidManifest:
    return InvalidManifest(
        "the image has a Docker schema 1 manifest, which is obsolete and not supported",
        hint="push it again with a current client",
    )


def _descriptors(document: Mapping[str, object], key: str) -> tuple[Descriptor, ...]:
    if key not in document:
        raise InvalidManifest(f"the manifest has no {key}")
    entries = _list(document[key], key)
    return tuple([_descriptor(entry, key, position) for position, entry in enumerate(entries)])


def _descriptor(value: object, key: str, position: int | None = None) -> Descriptor:
    try:
        return _checked_descriptor(_object(value, _DESCRIPTOR_KEYS, "it"))
    except (InvalidManifest, InvalidReference) as error:
        where = key if position is None else f"{key}[{position}]"
        raise InvalidManifest(f"{where}: {error}") from error


def _checked_descriptor(entry: dict[str, object]) -> Descriptor:
    size = entry.get("size")
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise InvalidManifest("size is not a number of bytes")
    media_type = _word(entry, "mediaType")
    if media_type is None:
        raise InvalidManifest("there is no mediaType")
    digest = entry.get("digest")
    if not isinstance(digest, str):
        raise InvalidManifest("digest is not a string")
    digest = Digest.parse(digest)
    if entry.keys() <= _BARE_KEYS:
        return Descriptor(media_type, digest, size)
    return Descriptor(
        media_type,
        digest,
        size,
        _platform(entry.get("platform")),
        _texts(entry.get("urls"), "urls"),
        _data(entry.get("data"), digest, size),
        _annotations(entry.get("annotations")),
        _word(entry, "artifactType"),
    )


def _data(value: object, digest: Digest, size: int) -> bytes | None:
    """Inline content (image-spec, "Embedded Content"): base64, refused unless it is the content."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidManifest("data is not a string")
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidManifest("data is not base64") from error
    if len(data) != size or Digest.of(data, digest.algorithm) != digest:
        raise InvalidManifest("data is not the content that the descriptor names")
    return data


def _platform(value: object) -> Platform | None:
    """None for null, and for an object that names no architecture: such an entry says nothing."""
    if value is None:
        return None
    entry = _object(value, _PLATFORM_KEYS, "platform")
    words = [entry.get(key) for key in ("os", "architecture", "variant", "os.version")]
    _check_texts([word for word in words if word is not None], "platform")
    system, architecture, variant, version = words
    features = _texts(entry.get("os.features"), "os.features")
    if not architecture:
        return None
    return Platform(system or "linux", architecture, variant, version, features)


def _annotations(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidManifest("annotations is not an object")
    _check_texts(value, "annotations")
    _check_texts(value.values(), "annotations")
    return value


def _object(value: object, keys: frozenset[str], where: str) -> dict[str, Any]:
    """An object whose known keys are spelled exactly and whose other values are shallow.

    Clients in Go take `Layers` for `layers`. What the known keys hold is checked by its type.
    """
    if not isinstance(value, dict):
        raise InvalidManifest(f"{where} is not an object")
    if not value.keys() <= keys:
        folded = {key.casefold() for key in keys}
        for key in value.keys() - keys:
            if key.casefold() in folded:
                raise InvalidManifest(f"{key[:_MAX_SHOWN]!a} is a known key in another case")
            check_nesting(value[key])
    return value


def _list(value: object, where: str) -> list[Any]:
    """An array; null is what some encoders write for an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidManifest(f"{where} is not an array")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = _list(value, where)
    _check_texts(texts, where)
    return tuple(texts)


def _check_texts(values: Iterable[Any], where: str) -> None:
    """Strings that can be encoded again: JSON can spell lone surrogates."""
    try:
        text = "\n".join(values)
        if not text.isascii():
            text.encode()
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidManifest(f"{where}: there is something else than valid strings") from error


def _word(entry: Mapping[str, object], key: str) -> str | None:
    """A media type: printable ASCII of bounded length; None when it is absent or empty."""
    value = entry.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value):
        raise InvalidManifest(f"{key} is not a media type")
    return value
