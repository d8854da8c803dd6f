"""Manifests and indexes: what is refused, and that nothing else than a refusal comes of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oci_documents import (
    descriptor,
    encoded,
    index,
    manifest,
    parsed,
)

from prefetch.errors import InvalidManifest
from prefetch.oci.model import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST_SIZE,
    OCI_INDEX,
    OCI_MANIFEST,
    parse_document,
)
from prefetch.oci.reference import Digest
from prefetch.oci.strictjson import MAX_NESTING


def refused(raw: bytes | dict[str, Any], content_type: str | None = None) -> str:
    with pytest.raises(InvalidManifest) as caught:
        parse_document(raw if isinstance(raw, bytes) else encoded(raw), content_type)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700
    return message


@pytest.mark.parametrize("key", ["manifests", "Manifests", "MANIFESTS", "manife\u017fts"])
@pytest.mark.parametrize("value", [None, [], [descriptor()]])
def test_a_manifest_that_is_also_an_index(key: str, value: Any) -> None:
    for content_type in (None, OCI_MANIFEST):
        refused(manifest(**{key: value}), content_type)


@pytest.mark.parametrize("key", ["layers", "config", "Layers", "CONFIG"])
def test_an_index_that_is_also_a_manifest(key: str) -> None:
    for content_type in (None, OCI_INDEX):
        refused(index(**{key: None}), content_type)


def test_ambiguity_is_named() -> None:
    assert "CVE-2021-41190" in refused(manifest(manifests=[]))


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        (manifest(), OCI_INDEX),
        (manifest(), DOCKER_MANIFEST),
        (manifest(mediaType=OCI_INDEX), None),
        (manifest(mediaType=OCI_INDEX), OCI_MANIFEST),
        (manifest(mediaType=None), OCI_INDEX),
        (index(), OCI_MANIFEST),
        (index(), DOCKER_LIST),
        (index(mediaType=OCI_MANIFEST), None),
        (index(mediaType=OCI_MANIFEST), OCI_INDEX),
        (index(mediaType=None), OCI_MANIFEST),
    ],
)
def test_types_that_contradict(document: dict[str, Any], content_type: str | None) -> None:
    refused(document, content_type)


@pytest.mark.parametrize("kind", ["v1+json", "v1+prettyjws"])
def test_schema_1(kind: str) -> None:
    media_type = f"application/vnd.docker.distribution.manifest.{kind}"
    old = {"schemaVersion": 1, "name": "a", "fsLayers": [{"blobSum": "sha256:" + "0" * 64}]}
    signed = old | {"signatures": [{"header": {}, "signature": "x"}]}
    for content_type in (media_type, "application/json", None, OCI_MANIFEST):
        assert "schema 1" in refused(signed, content_type)
    assert "schema 1" in refused({"schemaVersion": 1})
    assert "schema 1" in refused(manifest(fsLayers=[]))
    assert "schema 1" in refused(manifest(mediaType=media_type))


@pytest.mark.parametrize("version", [None, 0, 3, -1, 2.0, "2", True, [2], 10**30])
def test_other_schema_versions(version: Any) -> None:
    refused(manifest(schemaVersion=version))


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "application/vnd.oci.artifact.manifest.v1+json", "image/png", "x\r\nY: z",
     OCI_MANIFEST + ", text/html", "x" * 10_000],
)  # fmt: skip
def test_other_content_types(content_type: str) -> None:
    refused(manifest(), content_type)


def test_other_media_types() -> None:
    refused(manifest(mediaType="application/vnd.oci.artifact.manifest.v1+json"))
    for media_type in (0, False, ["x"], {}, "x\r\ny", "\u00e4", "x" * 256, "\ud800"):
        refused(manifest(mediaType=media_type))
        refused(manifest(artifactType=media_type))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"null",
        b"[]",
        b'"manifest"',
        b"2",
        b"{",
        b"{}",
        b'{"schemaVersion":2}',
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        b"\xff\xfe{\x00}\x00",
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf" + encoded(manifest()),
        encoded(manifest()) + b"x",
        encoded(manifest()) + b"{}",
        encoded(manifest())[:-5],
        encoded(manifest()).replace(b"layers", b"\xfflayers"),
        encoded(manifest(annotations={"a": "b"})).replace(b'"b"', b'"\x01"'),
    ],
    ids=range(19),
)
def test_what_is_no_document(raw: bytes) -> None:
    refused(raw, OCI_MANIFEST)


def test_html_is_called_html() -> None:
    assert "HTML" in refused(b"\n<html></html>")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1.0", "-1", "1e2"])
def test_sizes_that_are_no_sizes(number: str) -> None:
    refused(encoded(manifest()).replace(b'"size": 2', b'"size": ' + number.encode()))


@pytest.mark.parametrize("size", [True, None, "3", [3], {}, 1 << 63, 10**100, -(10**100)])
def test_sizes_of_wrong_types(size: Any) -> None:
    assert "layers[0]" in refused(manifest(layers=[descriptor() | {"size": size}]))


def test_a_number_with_too_many_digits() -> None:
    refused(encoded(manifest()).replace(b'"size": 2', b'"size": ' + b"9" * 100_000))


def test_the_largest_size() -> None:
    document = parsed(manifest(layers=[descriptor() | {"size": (1 << 63) - 1}]))
    assert document.descriptors()[1].size == (1 << 63) - 1


@pytest.mark.parametrize(
    "raw",
    [
        b'{"schemaVersion":2,"schemaVersion":2,"manifests":[]}',
        b'{"manifests":[],"manifests":[]}',
        b'{"manifests":[],"manif\\u0065sts":[]}',
        b'{"manifests":[],"annotations":{"a":"b","a":"c"}}',
        b'{"manifests":[],"other":[{"a":{"b":1,"b":1}}]}',
        b'{"manifests":[{"size":1,"size":2}]}',
    ],
)
def test_duplicate_keys(raw: bytes) -> None:
    assert "duplicate" in refused(raw)


@pytest.mark.parametrize(
    "change",
    [{"Digest": "sha256:" + "0" * 64}, {"SIZE": 9}, {"mediatype": "x"}, {"URLs": []}],
)
def test_descriptor_keys_in_another_case(change: dict[str, Any]) -> None:
    assert "another case" in refused(manifest(layers=[descriptor() | change]))
    assert "another case" in refused(index(descriptor(platform={"OS": "linux"})))


@pytest.mark.parametrize(
    "digest",
    [None, 1, "", "sha256", "sha256:../../x", "sha256:" + "0" * 63, "sha256:" + "A" * 64,
     "md5:" + "0" * 32, "sha256:" + "0" * 64 + "\n", ["sha256:" + "0" * 64], "\ud800", "/" * 70],
)  # fmt: skip
def test_digests_that_are_none(digest: Any) -> None:
    bad = descriptor() | {"digest": digest}
    assert "layers[1]" in refused(manifest(layers=[descriptor(), bad]))
    assert "config" in refused(manifest(config=bad))
    assert "manifests[0]" in refused(index(bad))
    assert "subject" in refused(manifest(subject=bad))


@pytest.mark.parametrize("key", ["mediaType", "digest", "size"])
def test_descriptors_that_lack_something(key: str) -> None:
    bad = descriptor()
    del bad[key]
    refused(manifest(layers=[bad]))
    refused(index(bad))


@pytest.mark.parametrize(
    "change",
    [
        {"platform": "linux/amd64"},
        {"platform": []},
        {"platform": {"os": 1, "architecture": "amd64"}},
        {"platform": {"os": "linux", "architecture": ["amd64"]}},
        {"platform": {"os": "linux", "architecture": "amd64", "variant": {}}},
        {"platform": {"os": "linux", "architecture": "amd64", "os.features": "x"}},
        {"platform": {"os": "linux", "architecture": "amd64", "os.features": [1]}},
        {"platform": {"os": "linux", "architecture": False}},
        {"platform": {"os": "linux\n", "architecture": "amd64"}},
        {"platform": {"os": "../..", "architecture": "a/b"}},
        {"platform": {"os": "linux", "architecture": "a" * 65}},
        {"platform": {"os": "windows", "architecture": "amd64", "os.version": "\ud800"}},
        {"urls": "https://x"},
        {"urls": [1]},
        {"urls": {}},
        {"urls": ["\ud800"]},
        {"annotations": []},
        {"annotations": {"a": 1}},
        {"annotations": {"a": None}},
        {"annotations": {"\ud800": "a"}},
        {"annotations": {"a": "\udfff"}},
        {"artifactType": 1},
        {"data": 1},
        {"data": "not base64!"},
        {"data": "\u00e4"},
        {"data": "eA"},
        {"data": base64.b64encode(b"y").decode()},
        {"data": base64.b64encode(b"xx").decode()},
        {"data": base64.b64encode(b"x").decode(), "size": 2},
    ],
)
def test_descriptors_with_wrong_values(change: dict[str, Any]) -> None:
    entry = descriptor(b"x") | change
    assert "manifests[1]" in refused(index(descriptor(), entry))
    assert "layers[0]" in refused(manifest(layers=[entry]))


@pytest.mark.parametrize("wrong", [1, "x", {}, True, [1], [[]], [None], ["x"]])
def test_arrays_with_wrong_values(wrong: Any) -> None:
    refused(manifest(layers=wrong))
    refused(index(manifests=wrong))


@pytest.mark.parametrize("wrong", [None, 1, "x", [], {}])
def test_configs_with_wrong_values(wrong: Any) -> None:
    refused(manifest(config=wrong))


def test_a_manifest_without_config_or_layers() -> None:
    assert "config" in refused({"schemaVersion": 2, "layers": []})
    assert "layers" in refused({"schemaVersion": 2, "config": descriptor()})


def test_size_limit() -> None:
    padding = MAX_MANIFEST_SIZE - len(encoded(manifest()))
    assert parse_document(encoded(manifest()) + b" " * padding, OCI_MANIFEST).descriptors()
    assert "larger" in refused(encoded(manifest()) + b" " * (padding + 1), OCI_MANIFEST)
    assert "larger" in refused(b"\xff" * (MAX_MANIFEST_SIZE + 1))


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * levels + (b"1" if opening.endswith(b":") else b"") + closing * levels


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 500, 990, 5_000, 1_000_000])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
def test_deep_nesting_is_no_recursion_error(levels: int, pair: tuple[bytes, bytes]) -> None:
    levels = min(levels, MAX_MANIFEST_SIZE // 10)
    deep = nested(levels, *pair)
    refused(deep)
    assert "nested" in refused(b'{"manifests":[],"other":' + deep + b"}")
    refused(b'{"manifests":[],"annotations":' + deep + b"}")
    refused(b'{"manifests":' + deep + b"}")
    refused(pair[0] * levels)


def test_shallow_nesting_is_nobodys_business() -> None:
    raw = b'{"manifests":[],"other":' + nested(MAX_NESTING - 1) + b"}"
    assert parse_document(raw, None).descriptors() == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=8), child),
    max_leaves=8,
)
MORE_KEYS = ["subject", "annotations", "artifactType", "urls", "data", "platform", "os.version"]
PLATFORM_KEYS = ["os", "architecture", "variant", "os.features"]
KEYS = st.sampled_from([*(index() | manifest() | descriptor()), *MORE_KEYS, *PLATFORM_KEYS])
VALUES = st.recursive(
    JSON
    | st.sampled_from([OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, "sha256:" + "0" * 64, 2])
    | st.builds(descriptor, st.binary(max_size=3)),
    lambda child: st.dictionaries(KEYS, child, max_size=5) | st.lists(child, max_size=3),
    max_leaves=10,
)
CONTENT_TYPES = st.sampled_from([None, "", OCI_INDEX, OCI_MANIFEST, "application/json"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES), CONTENT_TYPES)
def test_any_json_parses_or_is_refused(document: dict[str, Any], content_type: str | None) -> None:
    raw = encoded(document)
    try:
        found = parse_document(raw, content_type)
    except InvalidManifest:
        return
    assert found.raw == raw
    assert all(entry.size >= 0 for entry in found.descriptors())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), CONTENT_TYPES)
def test_any_bytes_are_refused(raw: bytes, content_type: str | None) -> None:
    refused(raw, content_type)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_document_parses_or_is_refused(data: st.DataObject) -> None:
    raw = bytearray(encoded(manifest()))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_document(bytes(raw), OCI_MANIFEST)
    except InvalidManifest:
        return
    assert found.digest == Digest.of(bytes(raw))
