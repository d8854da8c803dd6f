"""What may be an alternate: a real registry, another cache, and those that lead astray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from acceptance_support import outcomes
from alternates_support import PREFIX, PRICE, Island

from support.cache import start_cache
from support.factories import DockerRegistryFactory, UpstreamFactory
from support.processes import CommandLine, run

JSON = ("-o", "json")


@pytest.mark.real("docker-registry", "skopeo")
async def test_a_real_registry_that_has_half(
    cli: CommandLine, upstream: UpstreamFactory, docker_registry: DockerRegistryFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 10)
    source = island.copied(await upstream(limit=None))
    for repository, made in island.images.items():
        source.content.put(f"{PREFIX}/{repository}", made, "1")
    registry = await docker_registry()
    half = list(island.images)[::2]
    for repository in half:
        copied = await run(
            "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
            f"docker://{source.address}/{PREFIX}/{repository}:1",
            f"docker://{registry.address}/{PREFIX}/{repository}:1",
        )  # fmt: skip
        assert copied.code == 0, copied.stderr
    island.configure([registry])

    plan = (await island("plan", *JSON)).json
    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == done.json["totals"]["pulls"] == 5 * PRICE
    assert plan["totals"]["pulls_min"] <= 5 * PRICE <= plan["totals"]["pulls_max"]
    came = {each["reference"]: each["fetched_from"] for each in done.json["images"]}
    assert [came[f"docker.io/{each}:1"] for each in half] == [[registry.address]] * 5
    listed = await cli("--config", island.config, "images")
    assert f" {registry.address} " in f" {' '.join(listed.stdout.split())} "
    island.assert_whole()


async def test_another_cache_gives_what_it_has_and_fetches_nothing_for_it(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    limited = await upstream(limit=100)
    island = Island(cli, limited, 6)
    other = CommandLine(tmp_path / "other-home", tmp_path / "other-data")
    other.home.mkdir()
    theirs = other.home / "prefetch.yaml"
    config: dict[str, Any] = {
        "platforms": ["linux/amd64"],
        "registries": {"docker.io": {"endpoint": limited.url}},
    }
    theirs.write_text(json.dumps(config))
    images = [f"--image=docker.io/library/app{number}:1" for number in range(3)]
    filled = await other("--config", theirs, "sync", *images)
    assert filled.code == 0, filled.stderr
    ours = await start_cache(cli, config=_plain(island))
    # Each is the other's alternate.
    config["registries"]["docker.io"]["alternates"] = [f"{ours.address}/docker.io"]
    theirs.write_text(json.dumps(config))
    cache = await start_cache(other, config=theirs)
    try:
        limited.log.reset()
        island.configure([f"{cache.address}/docker.io"])
        done = await island("sync", *JSON)
    finally:
        await ours.stop()
        await cache.stop()

    assert done.code == 0, done.stderr
    assert outcomes(done.json) == {"synced"}
    assert limited.log.pulls == done.json["totals"]["pulls"] == 3 * PRICE
    came = [each["fetched_from"] for each in done.json["images"]]
    assert came == [[cache.address]] * 3 + [["docker.io"]] * 3
    island.assert_whole()


def _plain(island: Island) -> Path:
    island.configure([])
    return island.config


ASTRAY: dict[str, dict[str, Any]] = {
    "into-the-metadata-service": {"name": "redirect", "text": "http://169.254.169.254/latest/"},
    "in-circles": {"name": "redirect-loop"},
    "to-a-web-page": {"name": "html"},
    "to-a-token-service-of-its-choice": {
        "name": "bad-realm",
        "text": "http://169.254.169.254/token",
    },
    "into-a-huge-answer": {"name": "huge-manifest", "method": "GET", "kind": "manifest"},
    "into-an-encoded-answer": {"name": "gzip", "method": "GET", "kind": "manifest"},
    "into-errors": {"name": "server-error"},
    "into-nothing": {"name": "reset"},
    "to-another-digest": {"name": "wrong-digest", "kind": "manifest"},
    "without-heads": {"name": "not-allowed", "method": "HEAD"},
}


@pytest.mark.parametrize("way", ASTRAY)
async def test_an_alternate_that_leads_astray_is_no_help_and_no_harm(
    cli: CommandLine, upstream: UpstreamFactory, way: str
) -> None:
    island = Island(cli, await upstream(limit=100), 4)
    hostile = island.copied(await upstream(limit=None, cdn=False))
    hostile.faults.add(**ASTRAY[way], count=None)
    island.configure([hostile])

    plan = (await island("plan", *JSON)).json
    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert outcomes(done.json) == {"synced"}
    spent = island.limited.log.pulls
    assert spent == done.json["totals"]["pulls"]
    # A header that is not true changes nothing of bytes that are.
    assert spent == (0 if way == "to-another-digest" else 4 * PRICE)
    assert plan["totals"]["pulls_min"] <= spent <= plan["totals"]["pulls_max"]
    assert done.json["totals"]["seconds"] < 60
    island.assert_whole()
