"""What a client of the wanted platforms asks for."""

from __future__ import annotations

import pytest

from prefetch.errors import InvalidManifest
from prefetch.oci.model import MAX_INDEX_DEPTH, MAX_INDEX_NODES
from prefetch.oci.platform import ALL, Platform
from prefetch.state.records import ChildKind, ChildRecord, ManifestRecord
from prefetch.sync.closure import closure_of

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


def child(digest: str, kind: ChildKind = "manifest", platform: str | None = None) -> ChildRecord:
    return ChildRecord(digest, kind, "type", 10, platform)


def document(digest: str, *children: ChildRecord) -> ManifestRecord:
    return ManifestRecord(digest, "type", 100, children)


def image(digest: str, platform: str | None = None) -> ManifestRecord:
    config = child(f"{digest}-config", "config", platform)
    return document(digest, config, child(f"{digest}-layer", "layer"))


def known(*records: ManifestRecord) -> dict[str, ManifestRecord]:
    return {record.digest: record for record in records}


INDEX = document(
    "index",
    child("amd", platform="linux/amd64"),
    child("arm", platform="linux/arm64"),
    child("att", platform="unknown/unknown"),
)


def test_an_index_gives_the_wanted_platform_alone() -> None:
    closure = closure_of("index", known(INDEX, image("amd"), image("arm")), (AMD64,))
    assert closure.manifests == ("index", "amd")
    assert [blob.digest for blob in closure.blobs] == ["amd-config", "amd-layer"]
    assert closure.platforms == ("linux/amd64",)
    assert closure.missing == ()


def test_all_leaves_attestations_out() -> None:
    closure = closure_of("index", known(INDEX, image("amd"), image("arm")), ALL)
    assert closure.manifests == ("index", "amd", "arm")
    assert closure.platforms == ("linux/amd64", "linux/arm64")


def test_attestations_come_when_asked_for() -> None:
    wanted = (Platform.parse("unknown/unknown"),)
    assert [c.digest for c in closure_of("index", known(INDEX), wanted).unknown] == ["att"]


def test_children_not_seen_yet_are_pulls_to_come() -> None:
    closure = closure_of("index", known(INDEX, image("amd")), ALL)
    assert [unknown.digest for unknown in closure.unknown] == ["arm"]
    assert set(closure.digests) == {"index", "amd", "amd-config", "amd-layer", "arm"}


def test_a_missing_platform_is_told() -> None:
    s390x = Platform.parse("linux/s390x")
    closure = closure_of("index", known(INDEX, image("amd")), (AMD64, s390x))
    assert closure.missing == ("linux/s390x",)


def test_a_lone_manifest_is_judged_by_its_config() -> None:
    records = known(image("one", "linux/arm64"))
    assert closure_of("one", records, (AMD64,)).missing == ("linux/amd64",)
    fits = closure_of("one", records, (ARM64, AMD64))
    assert (fits.platforms, fits.missing) == (("linux/arm64",), ("linux/amd64",))


def test_an_artifact_fits_every_platform() -> None:
    closure = closure_of("chart", known(image("chart")), (AMD64, ARM64))
    assert closure.missing == ()
    assert len(closure.blobs) == 2


def test_nested_indexes_are_followed() -> None:
    outer = document("outer", child("index", "index"))
    closure = closure_of("outer", known(outer, INDEX, image("amd"), image("arm")), (ARM64,))
    assert closure.manifests == ("outer", "index", "arm")
    assert closure.missing == ()


def test_children_without_a_platform_come_after_those_that_name_one() -> None:
    mixed = document("mixed", child("plain"), child("amd", platform="linux/amd64"))
    records = known(mixed, image("amd"), image("plain", "linux/arm64"))
    assert closure_of("mixed", records, (AMD64,)).manifests == ("mixed", "amd")
    assert closure_of("mixed", records, (ARM64,)).manifests == ("mixed", "plain")


def test_an_unseen_child_without_a_platform_may_be_the_one() -> None:
    mixed = document("mixed", child("plain"), child("amd", platform="linux/amd64"))
    closure = closure_of("mixed", known(mixed), (ARM64,))
    assert [unknown.digest for unknown in closure.unknown] == ["plain"]
    assert closure.missing == ()


def test_an_index_that_names_itself_ends() -> None:
    loop = document("loop", child("loop", "index"))
    assert closure_of("loop", known(loop), ALL).manifests == ("loop",)


def test_nesting_is_bounded() -> None:
    levels = [
        document(f"{depth}", child(f"{depth + 1}", "index")) for depth in range(MAX_INDEX_DEPTH + 2)
    ]
    with pytest.raises(InvalidManifest, match="levels"):
        closure_of("0", known(*levels), ALL)


def test_breadth_is_bounded() -> None:
    wide = document("wide", *(child(f"c{n}") for n in range(MAX_INDEX_NODES + 2)))
    with pytest.raises(InvalidManifest, match="documents"):
        closure_of("wide", known(wide), ALL)
