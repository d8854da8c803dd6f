"""Upstreams that never send what they should: what clients are told, and that it heals."""

from __future__ import annotations

import asyncio

import pytest
from blob_serving import (
    MIB,
    NAME,
    PLATFORM,
    get,
    get_stubbornly,
    ingested,
    introduced,
    one_layer,
    serving,
    stored,
    until,
)

from prefetch.demo.images import image
from support.factories import UpstreamFactory
from support.processes import CommandLine

_SIZE = 4 * MIB
_IMPATIENT = {"idle_timeout": "300ms"}


@pytest.mark.parametrize(
    "fault",
    [
        {"name": "stall", "at": 2 * MIB, "seconds": 60},
        {"name": "truncated", "at": 2 * MIB},
        {"name": "overlong"},
        {"name": "html"},
        {"name": "gzip"},
        {"name": "not-found"},
    ],
    ids=lambda fault: fault["name"],
)
async def test_for_good(
    cli: CommandLine, upstream: UpstreamFactory, fault: dict[str, object]
) -> None:
    """Nobody gets a complete answer, nobody waits for ever, and it heals."""
    up, layer = await one_layer(upstream, size=_SIZE)
    up.faults.add(kind="cdn", reference=layer.digest, count=None, **fault)
    async with serving(cli, up, registry=_IMPATIENT, negative_ttl="100ms") as cache:
        path = await introduced(cache, layer.digest)
        answers = await asyncio.gather(
            *(get(cache, path, seconds=25) for _ in range(3)),
            get(cache, path, seconds=25, Range=f"bytes={MIB}-{MIB + 99}"),
            get(cache, path, seconds=25, Range="bytes=-1"),
        )
        for answer in answers:
            assert answer.status in (404, 503) or not answer.complete
        # Of its last byte nothing can have gone out.
        assert answers[-1].status == (404 if fault["name"] == "not-found" else 503)
        assert not stored(cli, layer.digest)
        up.faults.clear()
        healed = await get_stubbornly(cache, path, statuses=(200, 404, 503))
    assert healed.digest == layer.digest


async def test_a_blob_of_another_size_than_the_manifest_says(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up, layer = await one_layer(upstream, size=_SIZE)
    larger = image("app", layers=1, layer_size=_SIZE + MIB).child(PLATFORM).blobs[1]
    up.content.repositories[NAME].blobs[layer.digest] = larger
    async with serving(cli, up) as cache:
        answer = await get(cache, await introduced(cache, layer.digest))
        assert answer.status == 503
        assert not stored(cli, layer.digest)
        await until(lambda: not ingested(cli, layer.digest))
