"""What the long tests of a deployment share: it takes seconds to start or to build, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.apiserver import ApiServer, start_api_server
from support.containerd import Containerd, start_containerd
from support.kustomize import IMAGE
from support.shippedimage import build_image


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Needs `real("kube-apiserver", "kubectl", "etcd")`; one for a whole module."""
    directory = tmp_path_factory.mktemp("cluster") / "server"
    server = asyncio.run(start_api_server(directory))
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image, as it is carried to nodes. Needs `real("root", "buildah", "dpkg-query")`."""
    return build_image(tmp_path_factory.mktemp("image") / "build", IMAGE)


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Containerd]:
    """With the image. Needs `real("containerd", "ctr", "runc")`, too; one for a whole module."""
    daemon = asyncio.run(_with_image(tmp_path_factory.mktemp("node") / "containerd", archive))
    yield daemon
    asyncio.run(daemon.stop())


async def _with_image(directory: Path, archive: Path) -> Containerd:
    daemon = await start_containerd(directory)
    imported = await daemon.ctr("images", "import", "--snapshotter", "native", archive)
    if imported.code:
        await daemon.stop()
        raise RuntimeError(imported.stderr)
    return daemon
