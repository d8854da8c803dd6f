"""The OCI image layout around the blobs: `oci-layout` and `index.json`.

`index.json` names each warm reference once, so that skopeo, crane and oras read the cache as it
lies (image-spec, image-layout.md). It is derived from the database and replaced as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefetch.errors import InvalidManifest, InvalidReference, StoreError
from prefetch.filelock import FileLock
from prefetch.oci.model import Descriptor
from prefetch.oci.reference import Digest
from prefetch.oci.strictjson import load_object
from prefetch.store.disk import disk_errors, replace_file

REFERENCE_NAME = "org.opencontainers.image.ref.name"

_MARKER = {"imageLayoutVersion": "1.0.0"}
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_MAX_INDEX_SIZE = 256 << 20


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One name in `index.json`: what it points to, and what else is known about it.

    Of the descriptor, media type, digest and size are kept. `annotations` are all but the name.
    """

    descriptor: Descriptor
    reference_name: str
    annotations: Mapping[str, str] = field(default_factory=dict)


def initialise(cache: Path) -> None:
    """Make `oci-layout` and an empty `index.json` where they are missing.

    Raises OSError, and StoreError when `cache` is a layout of another version.
    """
    marker = cache / "oci-layout"
    if not marker.exists():
        replace_file(marker, _encode(_MARKER))
    elif _load(marker) != _MARKER:
        raise StoreError(
            f"{marker} is not an OCI image layout of version 1.0.0",
            hint="choose another data directory",
        )
    if not (cache / "index.json").exists():
        replace_file(cache / "index.json", _encode(_document([])))


def write_index(data_dir: Path, entries: Sequence[IndexEntry]) -> None:
    """Replace `cache/index.json` with `entries`, atomically; safe with many processes at once.

    Blocks: call it in a thread. Raises StoreError or NoSpace, and the old index stays.
    """
    path = data_dir / "cache" / "index.json"
    ordered = sorted(entries, key=lambda entry: (entry.reference_name, entry.descriptor.digest))
    data = _encode(_document([_manifest(entry) for entry in ordered]))
    with disk_errors("write", path), FileLock(data_dir / "locks" / "layout.lock"):
        if not path.exists() or path.read_bytes() != data:
            replace_file(path, data)


def read_index(data_dir: Path) -> list[IndexEntry]:
    """The named entries of `cache/index.json`; unnamed ones, which are legal, are left out.

    Blocks: call it in a thread. Raises StoreError when the file is missing or makes no sense.
    """
    path = data_dir / "cache" / "index.json"
    manifests = _load(path).get("manifests")
    if not isinstance(manifests, list):
        raise StoreError(f"{path} is not an OCI image index: it has no list of manifests")
    try:
        entries = [_entry(manifest) for manifest in manifests]
    except (InvalidReference, ValueError) as error:
        raise StoreError(f"{path} holds a bad descriptor: {error}") from error
    return [entry for entry in entries if entry.reference_name]


def _document(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests}


def _manifest(entry: IndexEntry) -> dict[str, Any]:
    return {
        "mediaType": entry.descriptor.media_type,
        "digest": str(entry.descriptor.digest),
        "size": entry.descriptor.size,
        "annotations": {**entry.annotations, REFERENCE_NAME: entry.reference_name},
    }


def _entry(manifest: dict[str, Any]) -> IndexEntry:
    """One descriptor of a file that anybody may have edited."""
    match manifest:
        case {"mediaType": str(media_type), "digest": str(digest), "size": int(size)}:
            annotations = manifest.get("annotations") or {}
        case _:
            raise ValueError(f"mediaType, digest or size is missing in {manifest!r:.200}")
    if isinstance(size, bool) or size < 0:
        raise ValueError(f"the size of {digest!r:.200} is not a number of bytes")
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        raise ValueError(f"the annotations of {digest!r:.200} are not text")
    extra = dict(annotations)
    name = extra.pop(REFERENCE_NAME, "")
    return IndexEntry(Descriptor(media_type, Digest.parse(digest), size), name, extra)


def _encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _load(path: Path) -> dict[str, object]:
    with disk_errors("read", path):
        if path.stat().st_size > _MAX_INDEX_SIZE:
            raise StoreError(f"{path} is larger than {_MAX_INDEX_SIZE} bytes")
        data = path.read_bytes()
    try:
        return load_object(data)
    except InvalidManifest as error:
        raise StoreError(f"{path} cannot be read: {error.message}") from error
