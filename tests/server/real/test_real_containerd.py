"""containerd pulls through the cache as nodes do: hosts.toml, `?ns=`, and nothing from upstream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from prefetch.demo.images import image
from support.cache import ServeFactory, Warm, write_config
from support.clients import Clients
from support.containerd import Containerd
from support.factories import DockerRegistryFactory, UpstreamFactory
from support.processes import CommandLine

pytestmark = pytest.mark.real("root", "containerd", "ctr")

# What stands in hosts.toml for a cache at `{}`: its root, and the two forms of a path.
ADDRESSES = {
    "root": ("{}", {}),
    "path-override": ("{}/v2/docker.io", {"override_path": "true"}),
    "path-before": ("{}/docker.io", {}),
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("name", ["app", "docker"])
async def test_a_warm_image_is_pulled_whole_with_the_upstream_gone(
    warm: Warm, containerd: Containerd, name: str, address: str
) -> None:
    made = warm.images[name]
    reference = f"docker.io/library/{name}:1.0"
    form, settings = ADDRESSES[address]
    mirror = form.format(warm.cache.url)
    containerd.hosts("docker.io", mirror, server=mirror, settings=settings)

    pulled = await containerd.pull(reference)

    assert pulled.code == 0, pulled.stderr
    assert await containerd.digests() == {reference: made.digest}
    everything = {part.digest for part in made.walk()} | set(made.all_blobs())
    assert await containerd.contents() == everything
    for part in made.walk():
        assert (await containerd.content(part.digest)).encode() == part.raw


@dataclass(frozen=True, slots=True)
class Hello:
    """An image that was built, pushed to a registry that is gone by now, and synced before."""

    config: Path
    digest: str


@pytest.fixture
async def hello(
    cli: CommandLine, docker_registry: DockerRegistryFactory, clients: Clients, tmp_path: Path
) -> Hello:
    registry = await docker_registry()
    digest = await clients.build("kept warm", f"{registry.address}/library/hello:1")
    config = write_config(tmp_path / "prefetch.yaml", registry)
    synced = await cli("--config", config, "sync", "--image", "hello:1")
    assert synced.code == 0, synced.stderr
    registry.stop()
    return Hello(config, digest)


@pytest.mark.real("runc", "buildah", "busybox-static", "docker-registry")
async def test_what_was_synced_runs(
    hello: Hello, serve: ServeFactory, containerd: Containerd
) -> None:
    cache = await serve(config=hello.config)
    containerd.hosts("docker.io", cache.url, server=cache.url)

    pulled = await containerd.pull("docker.io/library/hello:1")
    ran = await containerd.run("docker.io/library/hello:1")

    assert pulled.code == 0, pulled.stderr
    assert await containerd.digests() == {"docker.io/library/hello:1": hello.digest}
    assert (ran.code, ran.stdout) == (0, "kept warm\n"), ran.stderr


async def test_with_the_cache_as_server_the_upstream_is_never_asked(
    cli: CommandLine, upstream: UpstreamFactory, serve: ServeFactory, containerd: Containerd
) -> None:
    """Its name has a port, and no configuration names it: what is cached is served all the same."""
    source = await upstream()
    made = source.content.put("library/app", image("app"), "1.0")
    source.content.put("library/app", image("other"), "cold")
    repository = f"{source.address}/library/app"
    synced = await cli("sync", "--image", f"{repository}:1.0", "--platform", "all")
    assert synced.code == 0, synced.stderr
    cache = await serve()
    asked = len(source.log.requests)

    containerd.hosts(source.address, cache.url, server=cache.url)
    pulled = await containerd.pull(f"{repository}:1.0")
    refused = await containerd.pull(f"{repository}:cold")

    assert pulled.code == 0, pulled.stderr
    assert await containerd.digests() == {f"{repository}:1.0": made.digest}
    assert refused.code != 0
    assert "not found" in refused.stderr
    assert len(source.log.requests) == asked

    # Without `server` the same miss falls through: the cache must be named twice.
    containerd.hosts(source.address, cache.url)
    fallen = await containerd.pull(f"{repository}:cold")
    assert fallen.code == 0, fallen.stderr
    assert len(source.log.requests) > asked
