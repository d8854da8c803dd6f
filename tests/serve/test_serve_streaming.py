"""Blobs go out while they come in, and neither side waits for the other longer than it must."""

from __future__ import annotations

import asyncio
import http.client
from contextlib import closing

import pytest
from blob_serving import (
    MIB,
    NAME,
    PLATFORM,
    Stream,
    blob_path,
    content_gets,
    get,
    ingested,
    introduced,
    one_layer,
    serving,
    stored,
    until,
)

from prefetch.demo.blobs import Blob
from prefetch.demo.images import image
from support.cache import Cache
from support.factories import UpstreamFactory, UpstreamProcessFactory
from support.processes import CommandLine, UpstreamProcess


async def test_first_bytes_and_a_restart(
    cli: CommandLine, upstream_process: UpstreamProcessFactory
) -> None:
    await _begins_early_and_goes_on(cli, upstream_process, size=256 * MIB, rate=96 * MIB)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_first_bytes_and_a_restart_of_a_gigabyte(
    cli: CommandLine, upstream_process: UpstreamProcessFactory
) -> None:
    await _begins_early_and_goes_on(cli, upstream_process, size=1024 * MIB, rate=192 * MIB)


async def test_a_client_that_goes_away(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up, layer = await one_layer(upstream, size=8 * MIB, rate=4 * MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        stream = await Stream.open(cache, path)
        assert await stream.take(MIB)
        stream.close()
        await until(lambda: stored(cli, layer.digest))
        again = await get(cache, path)
        await until(lambda: "499" in cache.log)
    assert (again.complete, again.digest) == (True, layer.digest)
    assert content_gets(up)[layer.digest] == 1


async def test_a_client_that_goes_before_the_first_byte(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up, layer = await one_layer(upstream, size=MIB, rate=None)
    up.faults.add("stall", kind="cdn", reference=layer.digest, at=0, seconds=1)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        opening = asyncio.create_task(Stream.open(cache, path))
        await until(lambda: up.log.counts(kind="cdn"))
        opening.cancel()
        await until(lambda: stored(cli, layer.digest))


async def test_ranges_of_what_arrives(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up, layer = await one_layer(upstream, size=8 * MIB, rate=6 * MIB)
    size = layer.size
    wanted = {
        "bytes=0-": (0, size),
        "bytes=0-0": (0, 1),
        "bytes=1000-": (1000, size),
        f"bytes={4 * MIB}-{4 * MIB + 9999}": (4 * MIB, 4 * MIB + 10000),
        f"bytes={size - 1}-": (size - 1, size),
        f"bytes={size - 1}-{size + 100}": (size - 1, size),
        "bytes=-1": (size - 1, size),
        "bytes=-1000000": (size - 1000000, size),
        f"bytes=-{2 * size}": (0, size),
    }
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        answers = await asyncio.gather(*(get(cache, path, Range=each) for each in wanted))
        beyond = await get(cache, path, Range=f"bytes={size}-")
    for answer, (start, end) in zip(answers, wanted.values(), strict=True):
        assert (answer.status, answer.complete) == (206, True)
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.digest == Blob.of(layer.read(start, end)).digest
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert content_gets(up)[layer.digest] == 1


async def test_a_range_out_of_a_cold_blob_is_refused_while_it_arrives(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up, layer = await one_layer(upstream, size=4 * MIB, rate=4 * MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        answer = await get(cache, path, Range=f"bytes={layer.size}-")
        assert answer.status == 416


async def test_the_end_of_a_range_waits_for_the_whole(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up, layer = await one_layer(upstream, size=4 * MIB, rate=2 * MIB)
    async with serving(cli, up) as cache:
        stream = await Stream.open(
            cache, await introduced(cache, layer.digest), Range="bytes=0-999"
        )
        assert await stream.take(999)
        assert not stored(cli, layer.digest)
        assert await stream.take(1000)
        assert stored(cli, layer.digest)
        stream.close()


async def test_a_head_fetches_nothing(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up, layer = await one_layer(upstream, size=MIB, rate=None)
    async with serving(cli, up) as cache:
        early = await get(cache, blob_path(NAME, layer.digest), method="HEAD")
        path = await introduced(cache, layer.digest)
        head = await get(cache, path, method="HEAD")
        for answer in (early, head):
            assert (answer.status, answer.length) == (200, layer.size)
            assert answer.headers["docker-content-digest"] == layer.digest
        assert not stored(cli, layer.digest)
        assert not ingested(cli, layer.digest)
        assert (await get(cache, path)).complete
        assert (await get(cache, path, method="HEAD")).length == layer.size
    assert content_gets(up)[layer.digest] == 1
    # Asked once: what the manifest says needs no word of the registry.
    assert up.log.counts(kind="blob", method="HEAD") == 1


async def test_killed_between_the_last_byte_and_its_name(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """Whole but not verified, it is; nobody has to be asked for it again."""
    up, layer = await one_layer(upstream, size=4 * MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        await cache.kill()
    (cli.data_dir / "ingest" / layer.digest.replace(":", "-")).write_bytes(layer.read())
    await up.close()
    async with serving(cli, up) as cache:
        answers = await asyncio.gather(get(cache, path), get(cache, path, Range="bytes=-1"))
    assert [answer.complete for answer in answers] == [True, True]
    assert answers[0].digest == layer.digest


async def test_one_connection_for_all(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """It goes on after a body that has arrived meanwhile, after a part of one, and after 416."""
    up, layer = await one_layer(upstream, size=4 * MIB, rate=8 * MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        headers = [{}, {"Range": "bytes=10-19"}, {"Range": f"bytes={layer.size}-"}, {}]
        answers = await asyncio.to_thread(_ask_in_a_row, cache, path, headers)
    whole, part = layer.read(), layer.read(10, 20)
    assert [(status, body) for status, body in answers if status != 416] == [
        (200, whole),
        (206, part),
        (200, whole),
    ]
    assert [status for status, _ in answers] == [200, 206, 416, 200]


async def test_told_to_stop_it_lets_downloads_end(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up, layer = await one_layer(upstream, size=8 * MIB, rate=4 * MIB)
    async with serving(cli, up) as cache:
        stream = await Stream.open(cache, await introduced(cache, layer.digest))
        assert await stream.take(MIB)
        stopping = asyncio.create_task(cache.stop())
        await stream.rest()
        assert (await stopping).code == 0
    assert (stream.complete, stream.digest) == (True, layer.digest)


async def _begins_early_and_goes_on(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, *, size: int, rate: int
) -> None:
    """The first byte before 5 % have come; killed at a third, the fetch goes on from there."""
    up = await upstream_process(
        images=[{"repository": NAME, "tags": ["1"], "layers": 1, "layer_size": size}],
        faults=[{"name": "slow", "kind": "cdn", "count": None, "bytes_per_second": rate}],
    )
    app = image(f"{NAME} 0 1", layers=1, layer_size=size)
    layer = app.child(PLATFORM).blobs[1]
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        stream = await Stream.open(cache, path)
        assert await stream.read(1)
        assert 0 < _sent(up, layer)[-1] < 0.05 * layer.size
        assert await stream.take(layer.size // 3)
        await cache.kill()
        assert not stream.complete
        stream.close()
    here = ingested(cli, layer.digest)
    assert layer.size // 4 < here < layer.size
    async with serving(cli, up) as cache:
        stream = await get(cache, path, seconds=100)
    assert (stream.complete, stream.digest) == (True, layer.digest)
    ranges = [request["range"] for request in _requests(up, layer)]
    assert ranges == [None, f"bytes={here}-"]


def _ask_in_a_row(
    cache: Cache, path: str, headers: list[dict[str, str]]
) -> list[tuple[int, bytes]]:
    """Several requests over one connection, which is never made again."""
    with closing(http.client.HTTPConnection(cache.address, timeout=20)) as connection:
        connection.connect()
        connection.auto_open = False
        answers = []
        for each in headers:
            connection.request("GET", path, headers=each)
            answer = connection.getresponse()
            answers.append((answer.status, answer.read()))
        return answers


def _requests(up: UpstreamProcess, layer: Blob) -> list[dict[str, object]]:
    return [
        each
        for each in up.requests()
        if each["kind"] == "cdn" and each["reference"] == layer.digest
    ]


def _sent(up: UpstreamProcess, layer: Blob) -> list[int]:
    return [int(str(each["bytes_sent"])) for each in _requests(up, layer)]
