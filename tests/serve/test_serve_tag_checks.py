"""Checks of tags: how many there are, and what they cost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tag_aging import (
    NAME,
    NO_PULLS,
    TAG,
    configured,
    expired,
    heads,
)
from tag_serving import (
    ask,
    ask_together,
    manifest_path,
    metrics,
    put_image,
    running,
    sync,
)

from support.cache import Cache
from support.factories import UpstreamFactory
from support.processes import CommandLine


async def coalesced(cache: Cache) -> float:
    return (await metrics(cache))["prefetch_coalesced_requests_total"]


@pytest.mark.parametrize("workers", [1, 2])
async def test_one_question_for_all_who_ask(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path, workers: int
) -> None:
    source = await upstream()
    app = put_image(source, NAME, "1")
    config = configured(tmp_path, source)
    await sync(cli, config, "app:1")
    async with running(cli, config, "--workers", str(workers)) as cache:
        for _ in range(2):
            await expired()
            source.log.reset()

            replies = await ask_together(cache, [TAG] * 100)

            assert {(reply.status, reply.digest) for reply in replies} == {(200, app.digest)}
            assert not any(reply.warning for reply in replies)
            assert (heads(source), source.log.pulls) == (1, 0)
        assert await coalesced(cache) > 100
        counted = await metrics(cache)
        assert counted['prefetch_upstream_fetches_total{kind="tag_check",outcome="ok"}'] == 2


async def test_within_its_time_a_tag_is_answered_from_memory(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    """Nobody asks the registry, and nobody joins a check, either."""
    source = await upstream()
    put_image(source, NAME, "1")
    config = configured(tmp_path, source, tag_ttl="4s")
    await sync(cli, config, "app:1")
    synced = time.monotonic()
    async with running(cli, config) as cache:
        for _ in range(2):
            source.log.reset()
            joined = await coalesced(cache)
            replies = await ask_together(cache, [TAG] * 50)
            assert time.monotonic() - synced < 4, "too slow a machine for this"
            assert {reply.status for reply in replies} == {200}
            assert len(source.log) == 0
            assert await coalesced(cache) == joined
            await asyncio.sleep(synced + 4.1 - time.monotonic())
            await ask(cache, TAG)
            assert heads(source) == 1
            synced = time.monotonic()


async def test_where_heads_cost_pulls_tags_are_asked_for_rarely(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    """And never out of the reserve: some proxies turn each HEAD into a GET."""
    source = await upstream(limit=100, heads_counted=True)
    names = [f"library/app{number}" for number in range(6)]
    for name in names:
        put_image(source, name, "1")
    config = configured(tmp_path, source, tag_ttl="200ms", negative_ttl="1s")
    await sync(cli, config, *(f"{name}:1" for name in names))
    meter = source.limits.meter()
    assert meter is not None
    async with running(cli, config) as cache:

        async def heads_of_two_seconds() -> int:
            source.log.reset()
            began = time.monotonic()
            while time.monotonic() - began < 2:
                for name in names:
                    assert (await ask(cache, manifest_path(name, "1"))).status == 200
            return heads(source)

        # Until it is noticed, each costs one; then ten times as long passes between two.
        await heads_of_two_seconds()
        assert await heads_of_two_seconds() <= 2 * len(names)
        meter.spend(meter.remaining() - 22)
        for _ in range(3):
            await heads_of_two_seconds()
        assert meter.remaining() >= 20
        stale = [await ask(cache, manifest_path(name, "1")) for name in names]
        assert any(NO_PULLS in reply.warning for reply in stale)
