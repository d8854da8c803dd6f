"""A node whose files `prefetch client-config` writes, and the systems that pull as they say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from node_world import World
from rancher import ByRancher
from systems import CERTS_D, ByContainerd, ByKubelet, ByPodman, BySkopeo, System

from support.cache import ServeFactory
from support.clients import Clients
from support.containerd import start_containerd
from support.island import Hosts, island
from support.processes import CommandLine


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """The test takes place on an island."""
    with island(tmp_path) as found:
        yield found


@pytest.fixture
async def world(
    hosts: Hosts, cli: CommandLine, serve: ServeFactory, tmp_path: Path
) -> AsyncIterator[World]:
    """Needs `real("root", "ip")`."""
    made = World(cli, tmp_path, hosts, serve)
    try:
        await made.begin()
        yield made
    finally:
        await made.registries.stop()


@pytest.fixture
async def system(
    request: pytest.FixtureRequest, world: World, tmp_path: Path
) -> AsyncIterator[System]:
    """The system that the test's parameter names: one of `EVERYWHERE`."""
    async with AsyncExitStack() as stack:
        yield await _system(str(request.param), world, tmp_path, stack)


async def _system(name: str, world: World, directory: Path, stack: AsyncExitStack) -> System:
    variables = world.node.variables
    if name in ("podman", "skopeo"):
        clients = Clients(world.node.home, node=variables)
        stack.callback(clients.close)
        podman = name == "podman"
        return ByPodman(world, clients) if podman else BySkopeo(world, clients, directory)
    if name in ("k3s", "rke2"):
        return ByRancher(world, name, directory, stack)
    registry = {"config_path": str(CERTS_D)} if name == "kubelet" else None
    daemon = await start_containerd(directory / "containerd", node=variables, registry=registry)
    stack.push_async_callback(daemon.stop)
    daemon.certs_d = CERTS_D
    return ByContainerd(world, daemon, name) if registry is None else ByKubelet(world, daemon)
