"""Manifests and indexes: what is read from good documents."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from oci_documents import (
    CONFIG_TYPE,
    FOREIGN_TYPE,
    descriptor,
    encoded,
    first_entry,
    index,
    manifest,
    parsed,
)

from prefetch.oci.model import (
    ACCEPT,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    is_attestation,
    parse_document,
)
from prefetch.oci.platform import Platform
from prefetch.oci.reference import Digest


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_keeps_its_bytes(media_type: str) -> None:
    raw = encoded(manifest(mediaType=media_type))
    document = parse_document(raw, media_type)
    assert isinstance(document, Manifest)
    assert document.raw is raw
    assert document.media_type == media_type
    assert str(document.digest) == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert [d.size for d in document.descriptors()] == [2, 3, 3]
    assert document.config.media_type == CONFIG_TYPE
    assert "raw" not in repr(document)


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_keeps_the_order_of_its_children(media_type: str) -> None:
    names = ["linux/arm64", "linux/amd64", "linux/arm/v7"]
    entries = [
        descriptor(
            name.encode(),
            OCI_MANIFEST,
            platform=dict(zip(["os", "architecture", "variant"], name.split("/"), strict=False)),
        )
        for name in names
    ]
    document = parsed(index(*entries, mediaType=media_type), media_type)
    assert isinstance(document, Index)
    assert [str(d.platform) for d in document.descriptors()] == names
    assert hash(document.manifests[0]) == hash(document.manifests[0])


def test_sha512() -> None:
    raw = encoded(manifest(layers=[descriptor() | {"digest": "sha512:" + "a" * 128}]))
    document = parse_document(raw, None, algorithm="sha512")
    assert document.digest == Digest.of(raw, "sha512")
    assert document.descriptors()[1].digest.algorithm == "sha512"


def test_all_of_a_descriptor() -> None:
    entry = first_entry(
        descriptor(
            b"child",
            OCI_MANIFEST,
            artifactType="application/x",
            annotations={"k": "\u00fc", "K": ""},
            urls=["https://a.example/x"],
            data=base64.b64encode(b"child").decode(),
            platform={
                "os": "windows", "architecture": "amd64", "os.version": "10.0.1", "features": ["f"],
                "os.features": ["win32k"], "variant": None,
            },
        )
    )  # fmt: skip
    assert entry == Descriptor(
        OCI_MANIFEST,
        Digest.of(b"child"),
        5,
        Platform("windows", "amd64", None, "10.0.1", ("win32k",)),
        ("https://a.example/x",),
        b"child",
        {"k": "\u00fc", "K": ""},
        "application/x",
    )


def test_subject_artifact_type_and_annotations() -> None:
    changes = {
        "subject": descriptor(b"s", OCI_MANIFEST),
        "artifactType": "application/x",
        "annotations": {"a": "b"},
        "someday": {"unknown": [1, {"deep": 1.5}]},
    }
    for document in (parsed(manifest(**changes)), parsed(index(**changes))):
        assert document.subject is not None
        assert document.subject.digest == Digest.of(b"s")
        assert document.artifact_type == "application/x"
        assert document.annotations == {"a": "b"}
        assert document.subject not in document.descriptors()


def test_nested_indexes_and_attestations() -> None:
    document = parsed(
        index(
            descriptor(b"nested", OCI_INDEX),
            descriptor(b"att", OCI_MANIFEST, platform={"os": "unknown", "architecture": "unknown"}),
            descriptor(b"m", OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
        )
    )
    assert [is_attestation(d) for d in document.descriptors()] == [False, True, False]
    assert document.descriptors()[0].media_type == OCI_INDEX


@pytest.mark.parametrize("platform", [None, {}, {"os": "", "architecture": ""}, {"os": "linux"}])
def test_a_platform_that_says_nothing(platform: Any) -> None:
    entry = first_entry(descriptor(platform=platform))
    assert entry.platform is None
    assert not is_attestation(entry)


def test_a_platform_without_os_is_linux() -> None:
    assert str(first_entry(descriptor(platform={"architecture": "amd64"})).platform) == (
        "linux/amd64"
    )


def test_foreign_layers_keep_their_urls() -> None:
    urls = ["https://mcr.example/l", "http://169.254.169.254/latest"]
    document = parsed(manifest(layers=[descriptor(b"f", FOREIGN_TYPE, urls=urls)]))
    assert document.descriptors()[1].urls == tuple(urls)


def test_null_is_an_empty_array() -> None:
    assert parsed(manifest(layers=None)).descriptors()[1:] == ()
    assert parsed(index(manifests=None)).descriptors() == ()
    assert first_entry(descriptor(urls=None, annotations=None, data=None)).urls == ()


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "text/plain; charset=utf-8", "application/octet-stream",
     OCI_MANIFEST, OCI_MANIFEST.upper(), f"{OCI_MANIFEST}; charset=utf-8", f" {OCI_MANIFEST} "],
)  # fmt: skip
def test_content_types_that_agree(content_type: str | None) -> None:
    assert parsed(manifest(), content_type).media_type == OCI_MANIFEST


def test_the_type_of_a_document_that_does_not_say() -> None:
    silent_manifest, silent_index = manifest(), index()
    del silent_manifest["mediaType"], silent_index["mediaType"], silent_index["schemaVersion"]
    assert parsed(silent_manifest).media_type == OCI_MANIFEST
    assert parsed(silent_index).media_type == OCI_INDEX
    assert parsed(silent_manifest, DOCKER_MANIFEST).media_type == DOCKER_MANIFEST


def test_accept_names_every_type() -> None:
    assert set(ACCEPT.split(", ")) == {OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST}
