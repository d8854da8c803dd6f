"""crane, as many build pipelines use it, reads a warm image from the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cache import Warm
from support.clients import Clients

# The first run may have to build crane.
pytestmark = [pytest.mark.real("crane"), pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", ["app", "docker"])
async def test_crane_pulls_a_warm_image_whole(
    warm: Warm, clients: Clients, tmp_path: Path, name: str
) -> None:
    made = warm.images[name]
    repository = f"{warm.cache.address}/docker.io/library/{name}"
    reference = f"{repository}:1.0"

    digest = await clients.crane("digest", reference)
    tags = await clients.crane("ls", repository)
    catalog = await clients.crane("catalog", warm.cache.address)
    manifest = await clients.crane("manifest", reference)
    valid = await clients.crane("validate", "--remote", reference)
    pulled = await clients.crane("pull", "--format", "oci", reference, tmp_path / "layout")

    for each in (digest, tags, catalog, manifest, valid, pulled):
        assert each.code == 0, each.stderr
    assert digest.stdout.strip() == made.digest
    assert tags.stdout.split() == ["1.0"]
    assert catalog.stdout.split() == [f"docker.io/library/{each}" for each in sorted(warm.images)]
    assert manifest.stdout.encode() == made.raw
    # A layout has indexes as files of their own, too.
    everything = {part.digest for part in made.walk()} | set(made.all_blobs())
    found = {f"sha256:{path.name}" for path in (tmp_path / "layout/blobs/sha256").iterdir()}
    assert found == everything
