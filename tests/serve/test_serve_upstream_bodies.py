"""Upstreams that send bodies badly, while clients read them."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from blob_serving import (
    MIB,
    NAME,
    Stream,
    blob_path,
    content_gets,
    get,
    get_stubbornly,
    ingested,
    introduced,
    one_layer,
    serving,
    starts_at,
)

from prefetch.demo.blobs import Blob
from prefetch.demo.images import image
from prefetch.demo.upstream import Upstream
from support.factories import UpstreamFactory
from support.processes import CommandLine

_SIZE = 4 * MIB
_IMPATIENT = {"idle_timeout": "300ms"}


@pytest.mark.parametrize(
    "fault",
    [
        {"name": "cut", "at": 2 * MIB},
        {"name": "stall", "at": 2 * MIB, "seconds": 60},
        {"name": "truncated", "at": 2 * MIB},
        {"name": "overlong"},
        {"name": "reset"},
        {"name": "server-error"},
        {"name": "link-expired"},
        {"name": "no-length"},
        {"name": "cut-and-expire", "at": 2 * MIB},
    ],
    ids=lambda fault: fault["name"],
)
async def test_once(cli: CommandLine, upstream: UpstreamFactory, fault: dict[str, object]) -> None:
    """A fault that passes is made good behind the clients, who see nothing of it."""
    up, layer = await one_layer(upstream, size=_SIZE)
    up.faults.add(kind="cdn", reference=layer.digest, **fault)
    async with serving(cli, up, registry=_IMPATIENT) as cache:
        path = await introduced(cache, layer.digest)
        answers = await asyncio.gather(
            *(get(cache, path) for _ in range(5)),
            get(cache, path, Range=f"bytes={MIB}-{MIB + 99}"),
            get(cache, path, Range="bytes=-1"),
        )
    assert up.faults.struck(str(fault["name"])) == 1
    assert [answer.complete for answer in answers] == [True] * 7
    assert [answer.digest for answer in answers[:5]] == [layer.digest] * 5


async def test_cut_again_and_again(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """As long as there is some progress it goes on from where it was."""
    up, layer = await one_layer(upstream, size=_SIZE)
    up.faults.add("cut", kind="cdn", reference=layer.digest, count=7, at=MIB // 2)
    async with serving(cli, up) as cache:
        answer = await get(cache, await introduced(cache, layer.digest))
    assert (answer.complete, answer.digest) == (True, layer.digest)
    starts = [starts_at(each.range) for each in up.log.select(kind="cdn", reference=layer.digest)]
    assert starts == sorted(set(starts))
    assert (starts[0], len(starts)) == (0, 8)
    # What the sockets' buffers held when the connection broke may have gone with it.
    assert all(end - start <= MIB // 2 for start, end in pairwise(starts))


@pytest.mark.parametrize("fault", ["ignored-range", "wrong-range"])
async def test_the_range_is_ignored(
    cli: CommandLine, upstream: UpstreamFactory, fault: str
) -> None:
    """It has to begin anew: who has read of the first body is cut off, and nobody mixes them."""
    up, layer = await one_layer(upstream, size=_SIZE, rate=8 * MIB)
    up.faults.add("cut", kind="cdn", reference=layer.digest, at=3 * MIB)
    up.faults.add(fault, kind="cdn", reference=layer.digest, count=None)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        answers = await asyncio.gather(
            *(get(cache, path) for _ in range(3)), get(cache, path, Range="bytes=-1")
        )
        for answer in answers[:3]:
            assert not answer.complete
            assert answer.digest == Blob.of(layer.read(0, answer.received)).digest
        assert answers[3].complete
        assert (await get(cache, path)).digest == layer.digest


async def test_links_that_expire_in_the_middle(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """Each attempt asks the registry, not the CDN, for where to go on (RFC 9110, 15.4)."""
    up, layer = await one_layer(upstream, size=_SIZE, link_lifetime=0.5, rate=4 * MIB)
    up.faults.add("cut", kind="cdn", reference=layer.digest, count=2, at=int(2.5 * MIB))
    async with serving(cli, up) as cache:
        answer = await get(cache, await introduced(cache, layer.digest))
    assert (answer.complete, answer.digest) == (True, layer.digest)
    assert up.log.counts(kind="cdn", status=403) == 0


async def test_tokens_that_expire_in_the_middle(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up, layer = await one_layer(upstream, size=_SIZE, rate=4 * MIB)
    up.faults.add("cut-and-expire", kind="cdn", reference=layer.digest, count=2, at=MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        answers = await asyncio.gather(*(get(cache, path) for _ in range(5)))
        # Asked for with the token that has expired, too.
        head = await get(cache, blob_path(NAME, f"sha256:{'1' * 64}"), method="HEAD")
    assert {(each.complete, each.digest) for each in answers} == {(True, layer.digest)}
    assert content_gets(up)[layer.digest] == 3
    assert head.status == 404


async def test_an_upstream_that_goes_away_and_comes_back(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """Clients are told soon; what has come is kept."""
    up, layer = await one_layer(upstream, size=_SIZE, rate=4 * MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        stream = await Stream.open(cache, path)
        assert await stream.take(2 * MIB)
        port = up.port
        await up.close()
        async with asyncio.timeout(15):
            await stream.rest()
        assert not stream.complete
        here = ingested(cli, layer.digest)
        assert here >= 2 * MIB
        refused = await get(cache, path)
        assert (refused.status, refused.message) == (503, "docker.io cannot be reached")
        again = Upstream(type(up.settings)(port=port))
        again.content.put(NAME, image("app", layers=1, layer_size=_SIZE), "1")
        async with again:
            answer = await get_stubbornly(cache, path)
    assert answer.digest == layer.digest
    assert [each.range for each in again.log.select(kind="cdn")] == [f"bytes={here}-"]
