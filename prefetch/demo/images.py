"""Images made on the spot, OCI's and Docker's kind (image-spec, "Image Manifest", "Image Index").

Everything follows from a seed: the same call gives the same digests. Odd ones can be had too:
nested indexes, attestations, foreign layers, inline data, null platforms, sha512, schema 1,
referrers, and `document` for anything else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefetch.demo.blobs import Blob
from prefetch.demo.layers import Layer, layer

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
_EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
_IN_TOTO = "application/vnd.in-toto+json"
_ATTESTED = "unknown/unknown"

_TYPES = {  # (docker?, what) to media type
    (False, "config"): "application/vnd.oci.image.config.v1+json",
    (False, "layer"): "application/vnd.oci.image.layer.v1.tar+gzip",
    (False, "foreign"): "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    (True, "config"): "application/vnd.docker.container.image.v1+json",
    (True, "layer"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    (True, "foreign"): "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
}

JSON = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest or an index, with all that it names.

    `children` are an index's manifests, `blobs` a manifest's config and layers as far as the
    registry has them. `platform` is `os/architecture[/variant]`.
    """

    content: Blob
    media_type: str
    platform: str | None = None
    children: tuple[Image, ...] = ()
    blobs: tuple[Blob, ...] = ()
    subject: str | None = None
    artifact_type: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        return self.content.digest

    @property
    def raw(self) -> bytes:
        return self.content.read()

    def walk(self) -> Iterator[Image]:
        """This document and everything below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def all_blobs(self) -> dict[str, Blob]:
        """Every config and layer below, by digest."""
        return {blob.digest: blob for part in self.walk() for blob in part.blobs}

    def child(self, platform: str) -> Image:
        """The manifest for one platform; KeyError if there is none."""
        for part in self.walk():
            if part.platform == platform:
                return part
        raise KeyError(platform)


def document(
    body: bytes | JSON,
    media_type: str,
    *,
    blobs: Sequence[Blob] = (),
    children: Sequence[Image] = (),
    platform: str | None = None,
    algorithm: str = "sha256",
) -> Image:
    """Any bytes, or any JSON, as a manifest of the given type: for documents that are wrong."""
    raw = body if isinstance(body, bytes) else _encode(body)
    return Image(Blob.of(raw, algorithm), media_type, platform, tuple(children), tuple(blobs))


def manifest(
    seed: str,
    *,
    platform: str = "linux/amd64",
    layers: Sequence[Layer] | None = None,
    docker: bool = False,
    algorithm: str = "sha256",
    inline: bool = False,
) -> Image:
    """An image for one platform. `inline` embeds the config as the descriptor's `data`."""
    chosen = [layer(f"{seed} {platform}")] if layers is None else list(layers)
    config = Blob.of(_encode(_config(seed, platform, chosen)), algorithm)
    configured: dict[str, Any] = _descriptor(config, _TYPES[docker, "config"])
    if inline:
        configured["data"] = base64.b64encode(config.read()).decode()
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    body = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": configured,
        "layers": [_layer_descriptor(each, docker=docker) for each in chosen],
    }
    blobs = [config, *(each.blob for each in chosen if each.held)]
    return document(body, media_type, blobs=blobs, platform=platform, algorithm=algorithm)


def index(
    children: Sequence[Image],
    *,
    docker: bool = False,
    platforms: Literal["given", "null", "absent"] = "given",
    algorithm: str = "sha256",
) -> Image:
    """An index over manifests, or over further indexes; `platforms` may be null or left out."""
    media_type = DOCKER_LIST if docker else OCI_INDEX
    entries = [_child_descriptor(child, platforms) for child in children]
    body = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    return document(body, media_type, children=children, algorithm=algorithm)


def image(
    seed: str,
    *,
    platforms: Sequence[str] = ("linux/amd64", "linux/arm64"),
    layers: int = 2,
    layer_size: int = 4096,
    shared: Sequence[Layer] = (),
    docker: bool = False,
    attestations: bool = False,
    algorithm: str = "sha256",
) -> Image:
    """A multi-platform image: `shared` layers first, then `layers` of its own a platform."""
    children = [
        manifest(
            seed,
            platform=platform,
            layers=[
                *shared,
                *(
                    layer(f"{seed} {platform} {number}", layer_size, algorithm=algorithm)
                    for number in range(layers)
                ),
            ],
            docker=docker,
            algorithm=algorithm,
        )
        for platform in platforms
    ]
    if attestations:
        children += [attestation(child) for child in children]
    return index(children, docker=docker, algorithm=algorithm)


def attestation(subject: Image) -> Image:
    """A build attestation as BuildKit attaches it: a child for platform `unknown/unknown`."""
    statement = Blob.of(_encode({"_type": "in-toto", "subject": subject.digest}))
    config = Blob.of(_encode({"os": "unknown", "architecture": "unknown", "config": {}}))
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(config, _TYPES[False, "config"]),
        "layers": [_descriptor(statement, _IN_TOTO)],
    }
    marks = (
        ("vnd.docker.reference.type", "attestation-manifest"),
        ("vnd.docker.reference.digest", subject.digest),
    )
    content = Blob.of(_encode(body))
    return Image(content, OCI_MANIFEST, _ATTESTED, (), (config, statement), annotations=marks)


def referrer(subject: Image, artifact_type: str, payload: bytes) -> Image:
    """An artifact whose `subject` is an image (distribution-spec, "Listing Referrers")."""
    config, content = Blob.of(b"{}"), Blob.of(payload)
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": _descriptor(config, _EMPTY_CONFIG),
        "layers": [_descriptor(content, artifact_type)],
        "subject": _descriptor(subject.content, subject.media_type),
    }
    return Image(
        Blob.of(_encode(body)),
        OCI_MANIFEST,
        blobs=(config, content),
        subject=subject.digest,
        artifact_type=artifact_type,
    )


def schema1(name: str, tag: str) -> Image:
    """The obsolete signed manifest, as old registries still answer it."""
    body = {"schemaVersion": 1, "name": name, "tag": tag, "fsLayers": [], "history": []}
    return document(body, SCHEMA1)


def descriptor(item: Image) -> dict[str, Any]:
    """What a referrers list or an index says of a manifest."""
    entry: dict[str, Any] = _descriptor(item.content, item.media_type)
    if item.artifact_type:
        entry["artifactType"] = item.artifact_type
    if item.annotations:
        entry["annotations"] = dict(item.annotations)
    return entry


def _child_descriptor(child: Image, platforms: str) -> dict[str, Any]:
    entry = descriptor(child)
    if platforms == "null":
        entry["platform"] = None
    elif platforms == "given" and child.platform:
        entry["platform"] = _platform(child.platform)
    return entry


def _layer_descriptor(item: Layer, *, docker: bool) -> dict[str, Any]:
    entry = _descriptor(item.blob, _TYPES[docker, "foreign" if item.urls else "layer"])
    if item.urls:
        entry["urls"] = list(item.urls)
    return entry


def _descriptor(blob: Blob, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _platform(text: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


def _config(seed: str, platform: str, layers: Sequence[Layer]) -> JSON:
    return {
        "created": "2026-01-01T00:00:00Z",
        **_platform(platform),
        "config": {"Cmd": ["/bin/true"], "Labels": {"demo.seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
        "history": [{"created_by": f"demo layer {number}"} for number in range(len(layers))],
    }


def _encode(body: JSON) -> bytes:
    return json.dumps(body, indent=2).encode()
