"""Tags that have moved: what is served until the new image is whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tag_aging import (
    BEHIND,
    FAILED,
    NAME,
    NO_PULLS,
    TAG,
    configured,
    expired,
)
from tag_serving import (
    ask,
    ask_together,
    child_of,
    manifest_path,
    parts_of,
    pulls_whole,
    put_image,
    running,
    sync,
    until,
)

from support.clock import ManualClock
from support.factories import UpstreamFactory
from support.processes import CommandLine


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_moved_tag_is_fetched_behind_and_then_served(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path, workers: int
) -> None:
    source = await upstream()
    old = put_image(source, NAME, "1")
    config = configured(tmp_path, source)
    await sync(cli, config, "app:1")
    new = put_image(source, NAME, version="new")
    source.faults.add("slow", kind="cdn", bytes_per_second=2500, count=None)
    async with running(cli, config, "--workers", str(workers)) as cache:
        source.content.move(NAME, "1", new.digest)
        await expired()
        source.log.reset()

        first = await ask(cache, TAG)
        assert (first.digest, first.body) == (old.digest, old.raw)
        assert BEHIND in first.warning
        seen = set()

        async def served() -> bool:
            reply = await ask(cache, TAG)
            seen.add((reply.digest, BEHIND in reply.warning))
            for path, _ in parts_of(NAME, old):
                assert (await ask(cache, path)).status == 200
            return reply.digest == new.digest

        await until(served)
        await asyncio.sleep(1)
        assert {reply.digest for reply in await ask_together(cache, [TAG] * 20)} == {new.digest}
        assert seen == {(old.digest, True), (new.digest, False)}
        await pulls_whole(cache, NAME, "1", new)
        # The old one is still here, by its digest.
        assert (await ask(cache, manifest_path(NAME, old.digest))).status == 200
    assert source.log.pulls == 2
    images = (await cli("images", "-o", "json")).json
    assert [(each["digest"], each["warm"]) for each in images] == [(new.digest, True)]


async def test_without_budget_the_old_image_stays_until_there_is_some(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    clock = ManualClock()
    source = await upstream(clock=clock, limit=10, window=3600)
    old = put_image(source, NAME, "1")
    config = configured(tmp_path, source)
    await sync(cli, config, "app:1")
    new = put_image(source, NAME, version="new")
    meter = source.limits.meter()
    assert meter is not None
    async with running(cli, config) as cache:
        meter.spend(6)
        source.content.move(NAME, "1", new.digest)
        await expired()
        source.log.reset()
        assert (await ask(cache, TAG)).digest == old.digest

        async def told() -> bool:
            return NO_PULLS in (await ask(cache, TAG)).warning

        await until(told)
        replies = await ask_together(cache, [TAG] * 50)

        assert {(reply.status, reply.digest) for reply in replies} == {(200, old.digest)}
        assert all(NO_PULLS in reply.warning for reply in replies)
        # The reserve of two is for others.
        assert (source.log.pulls, meter.remaining()) == (0, 2)
        await pulls_whole(cache, NAME, "1", old)
        clock.advance(3600)

        async def served() -> bool:
            return (await ask(cache, TAG)).digest == new.digest

        await until(served)
        assert source.log.pulls == 2
        assert not (await ask(cache, TAG)).warning


async def test_a_tag_that_has_come_back_is_no_longer_behind(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    source = await upstream(limit=10, window=600)
    old = put_image(source, NAME, "1")
    config = configured(tmp_path, source)
    await sync(cli, config, "app:1")
    new = put_image(source, NAME, version="new")
    meter = source.limits.meter()
    assert meter is not None
    meter.spend(6)
    async with running(cli, config) as cache:
        source.content.move(NAME, "1", new.digest)

        async def told() -> bool:
            return NO_PULLS in (await ask(cache, TAG)).warning

        await until(told)
        source.content.move(NAME, "1", old.digest)

        async def well() -> bool:
            reply = await ask(cache, TAG)
            return not reply.warning and reply.digest == old.digest

        await until(well)
        assert not (await ask(cache, TAG)).warning


async def test_a_new_image_that_cannot_be_fetched_leaves_the_old_one(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    source = await upstream()
    old = put_image(source, NAME, "1")
    config = configured(tmp_path, source)
    await sync(cli, config, "app:1")
    new = put_image(source, NAME, version="new")
    layer = child_of(new).blobs[-1].digest
    source.faults.add("corrupt", kind="cdn", reference=layer, count=None)
    async with running(cli, config) as cache:
        source.content.move(NAME, "1", new.digest)

        async def told() -> bool:
            return FAILED in (await ask(cache, TAG)).warning

        await until(told)
        await pulls_whole(cache, NAME, "1", old)
        source.faults.clear()

        async def served() -> bool:
            return (await ask(cache, TAG)).digest == new.digest

        await until(served)
        await pulls_whole(cache, NAME, "1", new)
    # What had come of it before was not pulled again.
    assert source.log.counts(kind="manifest", method="GET") == 4


async def test_an_image_that_never_was_whole_gives_way_at_once(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    source = await upstream()
    old = put_image(source, NAME, "1")
    config = configured(tmp_path, source)
    new = put_image(source, NAME, version="new")
    async with running(cli, config) as cache:
        # A client that has gone away after the index.
        assert (await ask(cache, TAG)).digest == old.digest
        source.content.move(NAME, "1", new.digest)
        await expired()

        reply = await ask(cache, TAG)

        assert (reply.status, reply.digest, reply.warning) == (200, new.digest, "")
        await pulls_whole(cache, NAME, "1", new)


async def test_an_image_that_is_not_whole_is_not_served_without_its_upstream(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    source = await upstream()
    app = put_image(source, NAME, "1")
    config = configured(tmp_path, source)
    async with running(cli, config) as cache:
        for path, _ in parts_of(NAME, app)[:-1]:
            assert (await ask(cache, TAG)).status == 200
            assert (await ask(cache, path)).status == 200
        await source.close()
        await expired()

        async def refused() -> bool:
            replies = [await ask(cache, TAG), await ask(cache, manifest_path(NAME, app.digest))]
            return all(reply.status == 503 for reply in replies)

        await until(refused)
        reply = await ask(cache, TAG)
        assert reply.status == 503
        assert int(reply.headers["retry-after"]) >= 1
        assert "cannot be reached" in reply.message
