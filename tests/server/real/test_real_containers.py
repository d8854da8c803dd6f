"""skopeo and podman pull through the cache: as a mirror in registries.conf, and by its own name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cache import Warm
from support.clients import Clients

NAMES = ["app", "docker"]


def mirrored(warm: Warm, clients: Clients) -> None:
    """docker.io is asked at the cache first, and at the upstream, which is gone, after it."""
    clients.mirror("docker.io", f"{warm.cache.address}/docker.io", location=warm.upstream)


@pytest.mark.real("skopeo")
@pytest.mark.parametrize("through", ["mirror", "name"])
@pytest.mark.parametrize("name", NAMES)
async def test_skopeo_copies_a_warm_image_whole(
    warm: Warm, clients: Clients, tmp_path: Path, name: str, through: str
) -> None:
    made = warm.images[name]
    mirrored(warm, clients)
    source = f"docker.io/library/{name}:1.0"
    if through == "name":
        source = f"{warm.cache.address}/{source}"

    copied = await clients.skopeo(
        "copy", "--all", "--src-tls-verify=false", f"docker://{source}", f"dir:{tmp_path}/out"
    )

    assert copied.code == 0, copied.stderr
    assert (tmp_path / "out/manifest.json").read_bytes() == made.raw
    for digest, blob in made.all_blobs().items():
        assert (tmp_path / "out" / digest.partition(":")[2]).read_bytes() == blob.read()
    for child in made.children:
        hexadecimal = child.digest.partition(":")[2]
        assert (tmp_path / f"out/{hexadecimal}.manifest.json").read_bytes() == child.raw


@pytest.mark.real("skopeo")
async def test_skopeo_lists_the_tags_that_are_here(warm: Warm, clients: Clients) -> None:
    repository = f"{warm.cache.address}/docker.io/library/app"

    listed = await clients.skopeo("list-tags", "--tls-verify=false", f"docker://{repository}")
    unknown = await clients.skopeo(
        "inspect", "--raw", "--tls-verify=false", f"docker://{repository}:2.0"
    )

    assert listed.code == 0, listed.stderr
    assert json.loads(listed.stdout)["Tags"] == ["1.0"]
    assert unknown.code != 0


@pytest.mark.real("root", "podman")
@pytest.mark.parametrize("by", ["tag", "digest"])
@pytest.mark.parametrize("name", NAMES)
async def test_podman_pulls_both_platforms_of_a_warm_image(
    warm: Warm, clients: Clients, name: str, by: str
) -> None:
    made = warm.images[name]
    mirrored(warm, clients)
    repository = f"docker.io/library/{name}"
    reference = f"{repository}:1.0" if by == "tag" else f"{repository}@{made.digest}"

    for architecture in ("amd64", "arm64"):
        pulled = await clients.podman("pull", "--platform", f"linux/{architecture}", reference)
        assert pulled.code == 0, pulled.stderr
        told = await clients.podman("image", "inspect", reference)
        assert told.code == 0, told.stderr
        [facts] = json.loads(told.stdout)
        child = made.child(f"linux/{architecture}")
        assert facts["Architecture"] == architecture
        assert set(facts["RepoDigests"]) == {
            f"{repository}@{made.digest}", f"{repository}@{child.digest}"
        }  # fmt: skip
