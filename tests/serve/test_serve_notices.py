"""What workers of `serve` tell hooks: nobody else need run for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tag_serving import ask, blob_path, child_of, configure, manifest_path, put_image, running, sync

from prefetch.demo.upstream import Upstream
from support.factories import UpstreamFactory
from support.processes import CommandLine
from support.receiver import Receiver

NAME = "library/app"


def with_hook(path: Path, upstream: Upstream, receiver: Receiver, **registry: Any) -> Path:
    configure(path, {"docker.io": upstream.url}, tag_ttl="500ms")
    content = json.loads(path.read_text())
    content["registries"]["docker.io"] |= registry
    content["notify"] = [{"name": "ops", "url": receiver.url}]
    path.write_text(json.dumps(content))
    return path


async def test_a_registry_that_throttles_clients_misses(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    source = await upstream()
    put_image(source, NAME, "1")
    async with Receiver() as receiver:
        config = with_hook(tmp_path / "prefetch.yaml", source, receiver)
        async with running(cli, config, "--workers", "2") as cache:
            source.faults.add("throttle", kind="manifest", count=None, seconds=30)
            for _ in range(3):
                assert (await ask(cache, manifest_path(NAME, "1"))).status == 503
            got = await receiver.wait_for("registry_throttled")
        assert got.json["registry"] == "docker.io"
    assert receiver.events == ["registry_throttled"]


async def test_an_immutable_tag_is_what_it_was_even_when_it_has_to_be_fetched_again(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    source = await upstream()
    first = put_image(source, NAME, "v1")
    other = put_image(source, NAME, "v2", version="other")
    async with Receiver() as receiver:
        config = with_hook(tmp_path / "prefetch.yaml", source, receiver, immutable_tags=[r"v\d+"])
        await sync(cli, config, "app:v1")
        source.content.move(NAME, "v1", other.digest)
        lost = child_of(first).blobs[-1].digest
        (cli.cache / "blobs" / lost.replace(":", "/")).unlink()
        async with running(cli, config) as cache:
            await asyncio.sleep(0.6)
            reply = await ask(cache, manifest_path(NAME, "v1"))
            assert (reply.status, reply.digest) == (200, first.digest)
            got = await receiver.wait_for("immutable_tag_moved")
            assert (await ask(cache, blob_path(NAME, lost))).status == 200
            assert "immutable tag moved" in cache.log
    assert receiver.events == ["immutable_tag_moved"]
    assert got.json["registry"] == "docker.io"
    assert got.json["facts"] == {
        "reference": f"docker.io/{NAME}:v1",
        "recorded": first.digest,
        "found": other.digest,
        "kept": True,
    }
