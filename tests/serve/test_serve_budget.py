"""Clients' misses and the budget: what they may use, and what is answered when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tag_budgets import ONE, TWO, PlaceFactory, is_out_of_budget, places, tag
from tag_serving import (
    ask,
    ask_many,
    asked,
    manifest_path,
    metrics,
    parts_of,
    pulls_whole,
    running,
    sync,
    until,
)

from prefetch.demo.images import Image, manifest
from support.cache import Cache
from support.processes import CommandLine


@pytest.fixture
async def place(cli: CommandLine, tmp_path: Path) -> AsyncIterator[PlaceFactory]:
    async with places(cli, tmp_path) as make:
        yield make


async def test_clients_may_use_the_reserve(place: PlaceFactory) -> None:
    there = await place(limit=10, spent=8)

    deferred = await sync(there.cli, there.config, "one:1", code=75)
    assert deferred.json["images"][0]["outcome"] == "deferred"
    await pulls_whole(there.cache, ONE, "1", there.one)

    assert there.meter.remaining() == 0
    assert is_out_of_budget(await ask(there.cache, tag(TWO)))
    assert there.refused() == 0
    told = await metrics(there.cache)
    assert told['prefetch_errors_total{cause="budget"}'] == 1
    meter = '{identity="anonymous",registry="docker.io"}'
    assert told[f"prefetch_budget_remaining_pulls{meter}"] == 0
    assert told[f"prefetch_budget_reserve_pulls{meter}"] == 2


async def test_unless_the_reserve_is_kept_from_them(place: PlaceFactory) -> None:
    there = await place(limit=10, spent=8, reserve_for_sync=True)

    for method in ("GET", "HEAD"):
        assert (await ask(there.cache, tag(ONE), method=method)).status == 503
    assert is_out_of_budget(await ask(there.cache, tag(ONE)))
    assert there.meter.remaining() == 2
    assert there.upstream.log.pulls == 0


async def test_with_nothing_left_no_pull_leaves(place: PlaceFactory) -> None:
    there = await place(limit=10, spent=10)

    replies = await ask_many(there.cache, [tag(ONE), tag(TWO)] * 100)

    assert {reply.status for reply in replies} == {503}
    assert all(is_out_of_budget(reply) for reply in replies[-5:])
    assert there.upstream.log.counts(kind="manifest", method="GET") == 0
    assert there.refused() == 0
    # Nor are two hundred requests for two images a flood.
    assert asked(there.upstream) <= 10


async def test_retry_after_tells_the_truth(place: PlaceFactory) -> None:
    there = await place(limit=2, window=5)
    await pulls_whole(there.cache, ONE, "1", there.one)

    reply = await ask(there.cache, tag(TWO))

    assert is_out_of_budget(reply)
    assert 1 <= int(reply.headers["retry-after"]) <= 5
    await asyncio.sleep(1)
    later = await ask(there.cache, tag(TWO))
    assert is_out_of_budget(later)
    assert int(later.headers["retry-after"]) < int(reply.headers["retry-after"])
    await asyncio.sleep(int(later.headers["retry-after"]))
    await pulls_whole(there.cache, TWO, "1", there.two)
    assert there.refused() == 0


async def test_budget_that_comes_back_early_is_noticed(place: PlaceFactory) -> None:
    """The registry's word counts, not our forecast."""
    there = await place(limit=10, spent=10, negative_ttl="2s")
    assert int((await ask(there.cache, tag(ONE))).headers["retry-after"]) > 3000
    there.meter.limit = 20

    async def served() -> bool:
        return (await ask(there.cache, tag(ONE))).status == 200

    await until(served, seconds=10)
    await pulls_whole(there.cache, ONE, "1", there.one)


async def pulled(cache: Cache, name: str, item: Image) -> list[int]:
    """A client that gives up at the first refusal: the statuses that it met."""
    statuses = []
    paths = [tag(name), *(path for path, _ in parts_of(name, item))]
    for path in paths:
        statuses.append((await ask(cache, path)).status)
        if statuses[-1] != 200:
            break
    return statuses


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("together", [True, False])
async def test_who_gets_an_index_gets_the_image(
    place: PlaceFactory, together: bool, workers: int
) -> None:
    there = await place(limit=3, workers=workers)
    if together:
        stories = await asyncio.gather(
            pulled(there.cache, ONE, there.one), pulled(there.cache, TWO, there.two)
        )
    else:
        # Between the two requests of the one, the other asks.
        first = [(await ask(there.cache, tag(ONE))).status]
        second = await pulled(there.cache, TWO, there.two)
        stories = [first + await pulled(there.cache, ONE, there.one), second]

    assert sorted(stories) == sorted([[200] * len(max(stories, key=len)), [503]])
    assert there.upstream.log.pulls == 2
    assert there.meter.remaining() == 1
    assert there.refused() == 0


async def test_one_pull_is_too_few_for_an_index(place: PlaceFactory) -> None:
    there = await place(limit=10, spent=9)
    alone = there.upstream.content.put("library/alone", manifest("alone"), "1")

    for method in ("HEAD", "GET"):
        assert (await ask(there.cache, tag(ONE), method=method)).status == 503
    assert there.upstream.log.pulls == 0
    # And enough for an image without one.
    reply = await ask(there.cache, tag("library/alone"))
    assert (reply.status, reply.body) == (200, alone.raw)
    assert there.upstream.log.pulls == 1


async def test_an_index_that_is_here_is_not_served_without_a_child(place: PlaceFactory) -> None:
    there = await place(limit=10, spent=8)
    assert (await ask(there.cache, tag(ONE))).status == 200
    await there.cache.stop()
    there.meter.spend(1)
    async with running(there.cli, there.config) as cache:
        reply = await ask(cache, manifest_path(ONE, there.one.digest))
        assert is_out_of_budget(reply)
        assert is_out_of_budget(await ask(cache, tag(ONE)))
    assert there.meter.remaining() == 0
    assert there.upstream.log.pulls == 1


async def test_what_is_held_for_a_child_comes_back(place: PlaceFactory) -> None:
    """Whoever is refused only because others may yet pull is not sent away for hours."""
    there = await place(limit=3)
    assert (await ask(there.cache, tag(ONE))).status == 200

    reply = await ask(there.cache, tag(TWO))

    assert is_out_of_budget(reply)
    assert int(reply.headers["retry-after"]) <= 60
