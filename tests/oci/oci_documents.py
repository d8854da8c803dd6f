"""Documents for tests: good ones, to be changed at will."""

from __future__ import annotations

import json
from typing import Any

from prefetch.oci.model import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_document,
)
from prefetch.oci.reference import Digest

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN_TYPE = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def descriptor(content: bytes = b"x", media_type: str = LAYER_TYPE, **more: Any) -> dict[str, Any]:
    digest = str(Digest.of(content))
    return {"mediaType": media_type, "digest": digest, "size": len(content)} | more


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(b"{}", CONFIG_TYPE),
        "layers": [descriptor(b"one"), descriptor(b"two")],
    } | changes


def index(*entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)} | changes


def encoded(document: Any) -> bytes:
    return json.dumps(document, indent=3).encode()


def parsed(document: Any, content_type: str | None = None) -> Manifest | Index:
    return parse_document(encoded(document), content_type)


def first_entry(entry: dict[str, Any]) -> Descriptor:
    document = parsed(index(entry))
    assert isinstance(document, Index)
    return document.manifests[0]
