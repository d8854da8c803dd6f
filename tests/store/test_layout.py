"""`oci-layout` and `index.json`: what we write is read by us and by others, and hostile files."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prefetch.errors import NoSpace, StoreError
from prefetch.oci.model import Descriptor
from prefetch.oci.reference import Digest
from prefetch.store.filesystem import FilesystemStore
from prefetch.store.layout import REFERENCE_NAME, IndexEntry, read_index, write_index

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NAMES = (
    "docker.io/library/nginx:1.27",
    "localhost:5000/a/b_c/d-e:v1.2.3_rc.1",
    f"quay.io/org/app:2@sha256:{'0' * 64}",
    f"registry.k8s.io/pause@sha256:{'1' * 64}",
    f"ghcr.io/org/app@sha512:{'2' * 128}",
)


def entry(name: str, **annotations: str) -> IndexEntry:
    return IndexEntry(Descriptor(MANIFEST, Digest.of(name.encode()), len(name)), name, annotations)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data directory with an empty store."""

    async def prepare() -> None:
        await (await FilesystemStore.open(tmp_path)).close()

    asyncio.run(prepare())
    return tmp_path


def index_of(place: Path) -> dict[str, Any]:
    document = json.loads((place / "cache" / "index.json").read_bytes())
    assert isinstance(document, dict)
    return document


def test_new_store_is_an_empty_layout(place: Path) -> None:
    assert json.loads((place / "cache" / "oci-layout").read_bytes()) == {
        "imageLayoutVersion": "1.0.0"
    }
    assert index_of(place) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    }
    assert read_index(place) == []


def test_entries_come_back(place: Path) -> None:
    entries = [entry(name, **{"org.example.resolved": "2026-01-02T03:04:05Z"}) for name in NAMES]
    write_index(place, entries)
    assert sorted(read_index(place), key=lambda found: found.reference_name) == sorted(
        entries, key=lambda wanted: wanted.reference_name
    )
    assert index_of(place)["manifests"][0] == {
        "mediaType": MANIFEST,
        "digest": str(Digest.of(NAMES[0].encode())),
        "size": len(NAMES[0]),
        "annotations": {
            "org.example.resolved": "2026-01-02T03:04:05Z",
            REFERENCE_NAME: NAMES[0],
        },
    }


def test_order_of_entries_does_not_matter(place: Path) -> None:
    path = place / "cache" / "index.json"
    write_index(place, [entry(name) for name in NAMES])
    first = path.read_bytes(), path.stat().st_ino
    write_index(place, [entry(name) for name in reversed(NAMES)])
    assert (path.read_bytes(), path.stat().st_ino) == first
    write_index(place, [])
    assert read_index(place) == []


def test_opening_again_keeps_the_index(place: Path) -> None:
    write_index(place, [entry(NAMES[0])])

    async def reopen() -> None:
        await (await FilesystemStore.open(place)).close()

    asyncio.run(reopen())
    assert read_index(place) == [entry(NAMES[0])]


def test_readers_never_see_half_an_index(place: Path) -> None:
    sets = [[entry(f"quay.io/a/b:{number}") for number in range(size)] for size in (0, 3, 500)]
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(write_index, place, sets[turn % 3]) for turn in range(60)]
        while not all(write.done() for write in writes):
            assert len(read_index(place)) in {0, 3, 500}
        assert [write.exception() for write in writes] == [None] * 60
    assert {path.name for path in (place / "cache").iterdir()} == {
        "blobs",
        "index.json",
        "oci-layout",
    }


def test_unnamed_descriptors_are_left_out(place: Path) -> None:
    document = index_of(place)
    digest = str(Digest.of(b"x"))
    document["manifests"] = [
        {"mediaType": MANIFEST, "digest": digest, "size": 1},
        {"mediaType": MANIFEST, "digest": digest, "size": 1, "annotations": None},
        {"mediaType": MANIFEST, "digest": digest, "size": 1, "annotations": {"a": "b"}},
    ]
    (place / "cache" / "index.json").write_text(json.dumps(document))
    assert read_index(place) == []


def manifests(**changes: object) -> str:
    good = {"mediaType": MANIFEST, "digest": str(Digest.of(b"x")), "size": 1}
    return json.dumps({"schemaVersion": 2, "manifests": [{**good, **changes}]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "[]",
        "{}",
        '{"manifests": {}}',
        '{"manifests": [7]}',
        '{"manifests": [{}]}',
        '{"manifests": [], "manifests": []}',
        "[" * 100_000,
        '{"manifests": ' + "[" * 5000 + "]" * 5000 + "}",
        manifests(digest="sha256:../../../etc/passwd"),
        manifests(digest="md5:00"),
        manifests(digest=None),
        manifests(size=-1),
        manifests(size=True),
        manifests(size="1"),
        manifests(size=1.5),
        manifests(mediaType=None),
        manifests(annotations=["x"]),
        manifests(annotations={REFERENCE_NAME: 7}),
    ],
)
def test_hostile_index_is_one_clear_line(place: Path, text: str) -> None:
    (place / "cache" / "index.json").write_text(text)
    with pytest.raises(StoreError, match=r"index\.json") as caught:
        read_index(place)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_missing_index(place: Path) -> None:
    (place / "cache" / "index.json").unlink()
    with pytest.raises(StoreError, match="No such file"):
        read_index(place)


@pytest.mark.parametrize("text", ["{}", "no", '{"imageLayoutVersion": "2.0.0"}'])
async def test_another_layout_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "oci-layout").write_text(text)
    with pytest.raises(StoreError, match="oci-layout"):
        await FilesystemStore.open(tmp_path)
    assert (tmp_path / "cache" / "oci-layout").read_text() == text


async def test_full_disk_keeps_the_old_index(mount_tmpfs: Callable[[str], Path]) -> None:
    place = mount_tmpfs("size=1m")
    store = await FilesystemStore.open(place)
    write_index(place, [entry(NAMES[0])])
    with pytest.raises(NoSpace, match=r"index\.json"):
        write_index(place, [entry(f"quay.io/a/b:{number}") for number in range(10_000)])
    assert read_index(place) == [entry(NAMES[0])]
    assert not (place / "cache" / "index.json.new").exists()
    write_index(place, [entry(NAMES[1])])
    assert read_index(place) == [entry(NAMES[1])]
    await store.close()


async def put(store: FilesystemStore, media_type: str, data: bytes) -> dict[str, object]:
    digest = Digest.of(data)
    await store.put(digest, data)
    return {"mediaType": media_type, "digest": str(digest), "size": len(data)}


async def put_image(store: FilesystemStore) -> tuple[bytes, bytes]:
    """A one-layer image; returns its manifest and its layer."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("hello")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"world"))
    layer = gzip.compress(archive.getvalue(), mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(archive.getvalue()))]},
    }
    config_type = "application/vnd.oci.image.config.v1+json"
    layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": await put(store, config_type, json.dumps(config).encode()),
            "layers": [await put(store, layer_type, layer)],
        }
    ).encode()
    await put(store, MANIFEST, manifest)
    return manifest, layer


@pytest.mark.real("skopeo")
@pytest.mark.parametrize("name", NAMES)
async def test_skopeo_reads_the_cache_as_it_lies(tmp_path: Path, name: str) -> None:
    place = tmp_path / "data"
    store = await FilesystemStore.open(place)
    manifest, layer = await put_image(store)
    descriptor = Descriptor(MANIFEST, Digest.of(manifest), len(manifest))
    # skopeo cannot name a repository with `__` in it, but must not stumble over its entry.
    other = IndexEntry(descriptor, "quay.io/other__image/x:latest")
    write_index(place, [IndexEntry(descriptor, name, {"org.example.private": "no"}), other])
    source = f"oci:{place / 'cache'}:{name}"
    inspected = subprocess.run(
        ["skopeo", "inspect", source], check=True, capture_output=True, text=True
    )
    assert json.loads(inspected.stdout)["Digest"] == str(Digest.of(manifest))
    out = tmp_path / "out"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", source, f"dir:{out}"], check=True)
    assert (out / "manifest.json").read_bytes() == manifest
    assert (out / Digest.of(layer).hex).read_bytes() == layer
    await store.close()
