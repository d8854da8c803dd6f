"""Clients that take their time, and those that wait for an upstream that does."""

from __future__ import annotations

import asyncio

import pytest
from blob_serving import (
    MIB,
    Stream,
    content_gets,
    get,
    introduced,
    metric,
    one_layer,
    serving,
    until,
)

from support.factories import UpstreamFactory
from support.processes import CommandLine

_STALLED = 'prefetch_errors_total{cause="client_stalled"}'


async def test_a_slow_client_holds_nobody_up(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up, layer = await one_layer(upstream, size=32 * MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        slow = await Stream.open(cache, path)
        assert await slow.read(1)
        others = await asyncio.gather(*(get(cache, path, seconds=20) for _ in range(8)))
        assert slow.received == 1
        await slow.rest()
    assert {(each.complete, each.digest) for each in (slow, *others)} == {(True, layer.digest)}
    assert content_gets(up)[layer.digest] == 1


@pytest.mark.parametrize("here", [False, True])
async def test_a_client_that_stalls_is_cut_off(
    cli: CommandLine, upstream: UpstreamFactory, here: bool
) -> None:
    up, layer = await one_layer(upstream, size=64 * MIB)
    async with serving(cli, up, client_timeout="500ms") as cache:
        path = await introduced(cache, layer.digest)
        if here:
            await get(cache, path)
        stream = await Stream.open(cache, path)
        assert await stream.read(1)
        await until(lambda: metric(cache, _STALLED))
        await stream.rest()
        assert not stream.complete
        assert (await get(cache, path)).digest == layer.digest


@pytest.mark.parametrize("here", [False, True])
async def test_a_slow_but_steady_client_is_not(
    cli: CommandLine, upstream: UpstreamFactory, here: bool
) -> None:
    up, layer = await one_layer(upstream, size=32 * MIB)
    async with serving(cli, up, client_timeout="2s") as cache:
        path = await introduced(cache, layer.digest)
        if here:
            await get(cache, path)
        stream = await Stream.open(cache, path)
        for _ in range(10):
            assert await stream.take(stream.received + MIB // 4)
            await asyncio.sleep(0.5)
        await stream.rest()
    assert (stream.complete, stream.digest) == (True, layer.digest)


async def test_a_client_may_wait_for_a_slow_upstream(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """Who can take nothing, for there is nothing, does not stall."""
    up, layer = await one_layer(upstream, size=4 * MIB)
    up.faults.add("stall", kind="cdn", reference=layer.digest, at=0, seconds=1.5)
    up.faults.add("stall", kind="cdn", reference=layer.digest, at=2 * MIB, seconds=1.5)
    async with serving(cli, up, client_timeout="500ms") as cache:
        path = await introduced(cache, layer.digest)
        got = await asyncio.gather(
            get(cache, path),
            get(cache, path, Range="bytes=0-99"),
            get(cache, path, Range="bytes=-1"),
        )
    assert [each.complete for each in got] == [True] * 3
    assert got[0].digest == layer.digest
