"""Docker with the `daemon.json` and the `certs.d` that were written for it, and for RKE."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from node_world import CACHE, DEAD_CACHE, PASSWORD, PLAIN_CACHE, SECRET, USER, WARM, World

from prefetch.demo.images import Image
from support.containerd import start_containerd
from support.dockerd import Dockerd, start_dockerd
from support.http import basic

pytestmark = [pytest.mark.real("root", "ip", "containerd", "dockerd", "docker"), pytest.mark.long]

HUB, QUAY, GHCR = WARM
DockerFactory = Callable[..., Awaitable[Dockerd]]


@pytest.fixture
async def docker(world: World, tmp_path: Path) -> AsyncIterator[DockerFactory]:
    """`await docker("docker", "--cache-url", …)`: started once its files are written."""
    async with AsyncExitStack() as stack:

        async def start(target: str, *options: str | Path) -> Dockerd:
            await world.configure(target, *options)
            node = world.node.variables
            below = await start_containerd(tmp_path / "containerd", node=node)
            stack.push_async_callback(below.stop)
            daemon = await start_dockerd(tmp_path / "docker", below, node=node)
            stack.push_async_callback(daemon.stop)
            return daemon

        yield start


async def pulls(daemon: Dockerd, reference: str, made: Image) -> None:
    pulled = await daemon.docker("pull", reference)
    assert pulled.code == 0, pulled.stderr
    assert f"Digest: {made.digest}" in pulled.stdout
    told = await daemon.docker("image", "inspect", reference)
    assert told.code == 0, told.stderr


def over(world: World, way: str) -> tuple[str | Path, ...]:
    """The options for a cache over plain HTTP, or over TLS, checked or not."""
    if way == "http":
        return ("--cache-url", PLAIN_CACHE)
    if way == "--ca-file":
        return ("--cache-url", CACHE, way, world.private.ca_file)
    return ("--cache-url", CACHE, way)


WAYS = pytest.mark.parametrize("way", ["http", "--ca-file", "--insecure-skip-verify"])


@WAYS
async def test_docker_io_is_mirrored(world: World, docker: DockerFactory, way: str) -> None:
    await world.open_cache(tls=way != "http")
    daemon = await docker("docker", *over(world, way))
    await world.registries.stop()

    await pulls(daemon, HUB, world.images[HUB])


async def test_a_cache_that_nobody_knows_is_not_believed(
    world: World, docker: DockerFactory
) -> None:
    await world.open_cache(tls=True)
    daemon = await docker("docker", "--cache-url", CACHE)
    await world.registries.stop()

    assert (await daemon.docker("pull", HUB)).code != 0


async def test_the_second_cache_serves_when_the_first_is_dead(
    world: World, docker: DockerFactory
) -> None:
    await world.open_cache(tls=True)
    daemon = await docker("docker", "--cache-url", DEAD_CACHE, *over(world, "--ca-file"))

    await pulls(daemon, HUB, world.images[HUB])

    assert world.registries.visits == 0


async def test_with_the_cache_stopped_docker_io_serves(world: World, docker: DockerFactory) -> None:
    cache = await world.open_cache()
    daemon = await docker("docker", *over(world, "http"))
    await cache.stop()

    await pulls(daemon, HUB, world.images[HUB])

    assert "GET blob" in world.registries.asked(HUB)


@WAYS
async def test_the_others_are_pulled_as_ever(world: World, docker: DockerFactory, way: str) -> None:
    """This Docker takes no notice of the files that lie there for newer ones."""
    cache = await world.open_cache(tls=way != "http")
    daemon = await docker("docker", *over(world, way))

    for reference in (QUAY, GHCR):
        registry = reference.partition("/")[0]
        assert Path(f"/etc/docker/certs.d/{registry}/hosts.toml").exists()
        await pulls(daemon, reference, world.images[reference])
        assert "GET blob" in world.registries.asked(reference)

    assert "registry=quay.io" not in cache.log
    assert "hosts.toml" not in daemon.log


async def test_a_cache_that_asks_for_a_login_is_passed_by(
    world: World, docker: DockerFactory
) -> None:
    """It would serve docker.io without one; it is shown the one for docker.io, if there is any."""
    await world.open_cache(tls=True, users={USER: PASSWORD})
    daemon = await docker("docker", *over(world, "--ca-file"))

    await pulls(daemon, HUB, world.images[HUB])
    assert "GET blob" in world.registries.asked(HUB)

    assert (await daemon.docker("image", "rm", HUB)).code == 0
    log_in(world, "https://index.docker.io/v1/", USER, PASSWORD)
    await world.registries.stop()
    await pulls(daemon, HUB, world.images[HUB])


@WAYS
async def test_rke_pulls_its_own_images_by_the_caches_name(
    world: World, docker: DockerFactory, way: str
) -> None:
    """And workloads' from docker.io, through the mirror."""
    await world.open_cache(tls=way != "http")
    daemon = await docker("rke", *over(world, way))
    [default] = private_registries(world)
    await world.registries.stop()

    assert default["is_default"] is True
    system_image = f"{default['url']}/{HUB.removeprefix('docker.io/')}"
    await pulls(daemon, system_image, world.images[HUB])
    await pulls(daemon, HUB, world.images[HUB])


async def test_rke_logs_in_to_the_cache(world: World, docker: DockerFactory) -> None:
    """RKE shows Docker the login of the entry that an image's name begins with."""
    await world.open_cache(tls=True, users={USER: PASSWORD})
    daemon = await docker("rke", *over(world, "--ca-file"), *world.login(PASSWORD))
    entries = {each["url"]: each for each in private_registries(world)}
    entry = entries["cache.example:5000/ghcr.io"]
    image = f"{entry['url']}/{SECRET.removeprefix('ghcr.io/')}"
    await world.registries.stop()

    assert (await daemon.docker("pull", image)).code != 0
    log_in(world, "cache.example:5000", entry["user"], entry["password"])
    await pulls(daemon, image, world.images[SECRET])


def private_registries(world: World) -> list[dict[str, Any]]:
    """What RKE is told in its cluster's file."""
    document = yaml.safe_load((world.node.root / "cluster.yml").read_text())
    return list(document["private_registries"])


def log_in(world: World, host: str, user: str, password: str) -> None:
    """As `docker login` does."""
    _, _, auth = basic(user, password)["Authorization"].partition(" ")
    config = world.node.home / ".docker/config.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
