"""Caches that real clients pull from: `prefetch serve` over what `prefetch sync` has fetched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from prefetch.demo.images import image
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.cache import ServeFactory, Warm, write_config
from support.clients import Clients
from support.containerd import Containerd, start_containerd
from support.processes import CommandLine


@pytest.fixture
async def warm(cli: CommandLine, serve: ServeFactory, tmp_path: Path) -> Warm:
    """`app` and `docker`, of OCI's and of Docker's types, each for two platforms."""
    images = {"app": image("app"), "docker": image("docker", docker=True)}
    async with Upstream(UpstreamSettings()) as upstream:
        for name, made in images.items():
            upstream.content.put(f"library/{name}", made, "1.0")
        config = write_config(tmp_path / "prefetch.yaml", upstream)
        synced = await cli(
            *("--config", config, "sync", "--platform", "all"),
            *(word for name in images for word in ("--image", f"docker.io/library/{name}:1.0")),
        )
        assert synced.code == 0, synced.stderr
    # Two workers: whichever answers, the answers are the same.
    cache = await serve("--workers", "2", config=config)
    return Warm(cache, upstream.address, images)


@pytest.fixture
async def containerd(tmp_path: Path) -> AsyncIterator[Containerd]:
    """Needs `real("root", "containerd", "ctr")`."""
    daemon = await start_containerd(tmp_path / "containerd")
    try:
        yield daemon
    finally:
        await daemon.stop()


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[Clients]:
    programs = Clients(tmp_path / "clients")
    yield programs
    programs.close()
