"""The promise: what `check --cluster` calls warm is pulled whole with the upstream gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prefetch.demo.images import Image, image
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.apiserver import ApiServer, start_api_server
from support.cache import ServeFactory, write_config
from support.containerd import start_containerd
from support.manifests import node, pod
from support.processes import CommandLine, Result

pytestmark = [
    pytest.mark.real("kube-apiserver", "kubectl", "etcd", "root", "containerd", "ctr"),
    pytest.mark.long,
    pytest.mark.timeout(600),
]

IMAGES = 60
ONLY_ARM = 15  # of them


@dataclass
class Rollout:
    """A cluster that runs `IMAGES` images, some of them on its arm64 node alone."""

    cli: CommandLine
    config: Path
    kubeconfig: Path
    upstream: Upstream
    images: dict[str, Image] = field(default_factory=dict)

    async def __call__(self, command: str, *words: str) -> Result:
        return await self.cli(
            *("--config", self.config, command, "--cluster", "--kubeconfig", self.kubeconfig),
            *(*words, "-o", "json"),
        )

    def blob(self, digest: str) -> Path:
        return self.cli.cache / "blobs/sha256" / digest.removeprefix("sha256:")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    running = await start_api_server(tmp_path / "server")
    yield running
    await running.stop()


@pytest.fixture
async def rollout(server: ApiServer, cli: CommandLine, tmp_path: Path) -> AsyncIterator[Rollout]:
    arm = {"kubernetes.io/arch": "arm64"}
    await server.create([node("amd"), node("arm", architecture="arm64")])
    await server.create(
        pod(f"p{n}", f"docker.io/library/app{n}:1", nodeSelector=arm if n < ONLY_ARM else {})
        for n in range(IMAGES)
    )
    async with Upstream(UpstreamSettings(limit=None)) as upstream:
        made = {f"app{n}": image(f"app{n}", layers=1) for n in range(IMAGES)}
        for name, each in made.items():
            upstream.content.put(f"library/{name}", each, "1")
        config = write_config(tmp_path / "prefetch.yaml", upstream)
        kubeconfig = await server.kubeconfig(tmp_path / "kubeconfig")
        yield Rollout(cli, config, kubeconfig, upstream, made)


def wanted(number: int) -> list[str]:
    return ["linux/arm64"] if number < ONLY_ARM else ["linux/amd64", "linux/arm64"]


def lacking(checked: Result) -> list[tuple[str, str, str]]:
    """Image, platform and kind of all that is missing."""
    assert checked.code == 1, checked.stderr
    return [
        (each["reference"].rpartition("/")[2], missing["platform"], missing["kind"])
        for each in checked.json["images"]
        for missing in each["missing"]
    ]


async def test_what_the_gate_calls_warm_is_pulled_with_the_upstream_gone(
    rollout: Rollout, serve: ServeFactory, tmp_path: Path
) -> None:
    cold = await rollout("check")
    assert (cold.code, cold.json["pulls"]) == (1, IMAGES)
    synced = await rollout("sync")
    assert synced.code == 0, synced.stderr
    # An index each, and what the nodes can run: no pull for the platform that no node needs.
    assert synced.json["totals"]["pulls"] == IMAGES * 3 - ONLY_ARM
    asked = len(rollout.upstream.log.requests)
    warm = await rollout("check", "--verify")
    assert (warm.code, warm.json["warm"]) == (0, True), warm.stderr
    assert len(rollout.upstream.log.requests) == asked
    await rollout.upstream.close()

    cache = await serve(config=rollout.config)
    daemon = await start_containerd(tmp_path / "containerd")
    try:
        daemon.hosts("docker.io", cache.url, server=cache.url)
        for number in range(IMAGES):
            reference = f"docker.io/library/app{number}:1"
            pulled = await daemon.pull(reference, platforms=wanted(number))
            assert pulled.code == 0, pulled.stderr
        assert await daemon.digests() == {
            f"docker.io/library/{name}:1": made.digest for name, made in rollout.images.items()
        }
        contents = await daemon.contents()
    finally:
        await daemon.stop()
    for number in range(IMAGES):
        for platform in wanted(number):
            child = rollout.images[f"app{number}"].child(platform)
            assert {child.digest, *child.all_blobs()} <= contents
    remote = await rollout("check", "--cache-url", cache.url)
    assert remote.code == 0, remote.stderr


async def test_what_is_missing_is_named(rollout: Rollout, serve: ServeFactory) -> None:
    assert (await rollout("sync")).code == 0
    cache = await serve(config=rollout.config)
    layer = rollout.images["app30"].child("linux/arm64").blobs[-1]
    rollout.blob(layer.digest).unlink()
    expected: list[Any] = [("app30:1", "linux/arm64", "layer")]
    assert lacking(await rollout("check")) == expected

    manifest = rollout.images["app40"].child("linux/amd64")
    rollout.blob(manifest.digest).unlink()
    expected.append(("app40:1", "linux/amd64", "manifest"))
    assert sorted(lacking(await rollout("check"))) == expected

    # A platform that no node of its pods has is not missed.
    unused = rollout.images["app1"].child("linux/amd64")
    assert not rollout.blob(unused.digest).exists()
    remote = await rollout("check", "--cache-url", cache.url)
    assert {name for name, *_ in lacking(remote)} == {"app30:1", "app40:1"}
