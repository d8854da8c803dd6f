"""A freeze that begins while something is being fetched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tag_freezing import (
    BEHIND,
    COLD,
    FROZEN,
    NAME,
    TAG,
    Place,
    is_frozen_503,
    nothing_asked,
    place_to_freeze,
)
from tag_serving import (
    ask,
    blob_path,
    child_of,
    manifest_path,
    pulls_whole,
    put_image,
    running,
    sync,
    until,
)

from support.processes import CommandLine


@pytest.fixture
async def place(cli: CommandLine, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_to_freeze(cli, tmp_path) as made:
        yield made


async def test_a_download_under_way_is_brought_to_its_end(place: Place) -> None:
    name, upstream = "library/cold", place.upstream
    layer = child_of(place.cold).blobs[-1]
    upstream.faults.add("slow", kind="cdn", reference=layer.digest, bytes_per_second=600)
    async with running(place.cli, place.config) as cache:
        await ask(cache, COLD)
        await ask(cache, manifest_path(name, child_of(place.cold).digest))
        download = asyncio.create_task(ask(cache, blob_path(name, layer.digest)))

        async def begun() -> bool:
            return upstream.log.counts(kind="cdn") > 0

        await until(begun)
        await place.freeze()
        assert not download.done()
        async with nothing_asked(upstream):
            config = blob_path(name, child_of(place.cold).blobs[0].digest)
            assert is_frozen_503(await ask(cache, config), longest=60)
            reply = await download
            assert (reply.status, reply.body) == (200, layer.read())


async def test_a_moved_tag_that_is_being_fetched_stays_where_it_is(place: Place) -> None:
    """What was proven warm is what is pulled, all through the window."""
    upstream = place.upstream
    new = put_image(upstream, NAME, version="new")
    upstream.faults.add("slow", kind="cdn", bytes_per_second=600, count=None)
    async with running(place.cli, place.config) as cache:
        upstream.content.move(NAME, "1", new.digest)

        async def behind() -> bool:
            return BEHIND in (await ask(cache, TAG)).warning

        await until(behind)

        async def fetching() -> bool:
            return upstream.log.counts(kind="cdn") > 2

        await until(fetching)
        await place.freeze()
        upstream.faults.clear()
        async with nothing_asked(upstream):
            for _ in range(15):
                reply = await ask(cache, TAG)
                assert (reply.digest, FROZEN in reply.warning) == (place.app.digest, True)
                await asyncio.sleep(0.2)
        pulls = upstream.log.pulls
        await place.thaw()

        async def served() -> bool:
            return (await ask(cache, TAG)).digest == new.digest

        await until(served)
        # What had come of it before the freeze was not paid for twice.
        assert upstream.log.pulls == pulls
        await pulls_whole(cache, NAME, "1", new)


async def test_who_syncs_while_frozen_means_it(place: Place) -> None:
    async with running(place.cli, place.config) as cache:
        await place.freeze()
        new = put_image(place.upstream, NAME, "1", version="new")
        assert (await ask(cache, TAG)).digest == place.app.digest
        await sync(place.cli, place.config, "app:1", "cold:1")

        async def served() -> bool:
            return (await ask(cache, TAG)).digest == new.digest

        assert await until(served) < 1
        async with nothing_asked(place.upstream):
            await pulls_whole(cache, NAME, "1", new)
            await pulls_whole(cache, "library/cold", "1", place.cold)
