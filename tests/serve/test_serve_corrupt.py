"""Corrupt bodies: nobody ever has a complete answer that was not what was asked for."""

from __future__ import annotations

import asyncio

import pytest
from blob_serving import (
    MIB,
    NAME,
    PLATFORM,
    Stream,
    content_gets,
    get,
    get_stubbornly,
    introduced,
    manifest_path,
    metric,
    one_layer,
    serving,
    stored,
)

from prefetch.demo.blobs import Blob
from support.cache import Cache
from support.factories import UpstreamFactory
from support.processes import CommandLine

_SIZE = 4 * MIB
_BAD = 2 * MIB + 1000
"""Where the wrong byte is."""

# What is asked for, from (inclusive) and up to; all of it for None.
_ASKED: dict[str | None, tuple[int, int | None]] = {
    None: (0, None),
    "bytes=0-": (0, None),
    "bytes=0-0": (0, 1),
    "bytes=1000-1999": (1000, 2000),
    f"bytes={_BAD - 10}-{_BAD + 10}": (_BAD - 10, _BAD + 11),
    f"bytes={_BAD}-{_BAD}": (_BAD, _BAD + 1),
    f"bytes={3 * MIB}-": (3 * MIB, None),
    "bytes=-1": (-1, None),
    "bytes=-70000": (-70000, None),
}
_LAST_BYTES = ((0, 1), (_BAD, _BAD + 1), (-1, None))


@pytest.mark.parametrize("workers", [1, 2])
async def test_corrupt_each_time(cli: CommandLine, upstream: UpstreamFactory, workers: int) -> None:
    up, layer = await one_layer(upstream, size=_SIZE, rate=8 * MIB)
    up.faults.add("corrupt", kind="cdn", reference=layer.digest, count=None, at=_BAD)
    async with serving(cli, up, "--workers", str(workers)) as cache:
        path = await introduced(cache, layer.digest)
        for header, answer in zip(_ASKED, await _ask_all(cache, path), strict=True):
            # Of one byte all is held back: nothing has gone out that would have to be broken off.
            statuses = (503,) if _ASKED[header] in _LAST_BYTES else (200, 206, 503)
            assert answer.status in statuses, header
            assert answer.status == 503 or not answer.complete, header
        assert not stored(cli, layer.digest)
        assert 2 <= content_gets(up)[layer.digest] <= 2 * workers
        errors = 'prefetch_errors_total{cause="digest_mismatch"}'
        assert await metric(cache, errors) == len(_ASKED)
        up.faults.clear()
        # Another worker may still be at an attempt that began before, and break this one off, too.
        answer = await get_stubbornly(cache, path)
    assert (answer.complete, answer.digest) == (True, layer.digest)


async def test_corrupt_once(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """Whoever has had something of it is cut off; the others get what comes the second time."""
    up, layer = await one_layer(upstream, size=_SIZE, rate=8 * MIB)
    up.faults.add("corrupt", kind="cdn", reference=layer.digest, at=_BAD)
    honest = layer.read()
    corrupt = honest[:_BAD] + bytes([honest[_BAD] ^ 0xFF]) + honest[_BAD + 1 :]
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        answers = await _ask_all(cache, path)
    for (start, end), answer in zip(_ASKED.values(), answers, strict=True):
        asked = slice(start, end)
        if answer.complete:
            assert answer.digest == Blob.of(honest[asked]).digest
        else:
            assert 0 < answer.received < len(corrupt[asked])
            assert answer.digest == Blob.of(corrupt[asked][: answer.received]).digest
    done = {asked: each.complete for asked, each in zip(_ASKED.values(), answers, strict=True)}
    # What is asked for near the end may not have begun before it was known to be wrong.
    assert not done[0, None]
    assert all(done[asked] for asked in _LAST_BYTES)
    assert content_gets(up)[layer.digest] == 2


async def test_the_last_byte_is_held_back(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """All but it may go out; and nothing says that it will not come."""
    up, layer = await one_layer(upstream, size=_SIZE, rate=8 * MIB)
    up.faults.add("corrupt", kind="cdn", reference=layer.digest, count=None, at=_BAD)
    async with serving(cli, up) as cache:
        answer = await get(cache, await introduced(cache, layer.digest))
    assert (answer.status, answer.length) == (200, layer.size)
    assert layer.size // 2 < answer.received < layer.size


async def test_one_request_after_the_other(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """No request profits from what the ones before it have left."""
    up, layer = await one_layer(upstream, size=_SIZE)
    up.faults.add("corrupt", kind="cdn", reference=layer.digest, count=None, at=_BAD)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        for header in _ASKED:
            answer = await _ask(cache, path, header)
            assert answer.status == 503 or not answer.complete
        up.faults.clear()
        # The second attempt for the last of them, begun before, may still be under way.
        assert (await get_stubbornly(cache, path)).digest == layer.digest


async def test_a_small_corrupt_blob_is_refused(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """Where nothing has gone out yet there is an answer; what has, on a machine that does much
    else, is cut off."""
    up, _ = await one_layer(upstream, size=_SIZE, rate=8 * MIB)
    config = up.content.manifest(NAME, "1").child(PLATFORM).blobs[0]  # type: ignore[union-attr]
    up.faults.add("corrupt", kind="cdn", reference=config.digest, count=None, at=1)
    async with serving(cli, up) as cache:
        path = await introduced(cache, config.digest)
        answer = await get(cache, path)
        if answer.status == 200:
            assert not answer.complete
        else:
            assert (answer.status, answer.message) == (503, "docker.io sent something else")
            assert int(answer.headers["retry-after"]) > 0
        assert not stored(cli, config.digest)
        up.faults.clear()
        # What went wrong is not held against it; an attempt begun before may still be under way.
        assert (await get_stubbornly(cache, path)).digest == config.digest


async def test_an_ingest_that_somebody_has_damaged(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """What a killed process left and a bad disk changed is noticed, and fetched anew."""
    up, layer = await one_layer(upstream, size=_SIZE, rate=8 * MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        stream = await Stream.open(cache, path)
        assert await stream.take(MIB)
        await cache.kill()
        stream.close()
    ingest = cli.data_dir / "ingest" / layer.digest.replace(":", "-")
    with ingest.open("r+b") as file:
        file.write(b"damage")
    async with serving(cli, up) as cache:
        first = await get(cache, path)
        assert not first.complete
        second = await get(cache, path)
    assert (second.complete, second.digest) == (True, layer.digest)


@pytest.mark.parametrize("which", ["index", "child"])
async def test_corrupt_manifests(cli: CommandLine, upstream: UpstreamFactory, which: str) -> None:
    up, _ = await one_layer(upstream, size=_SIZE, rate=8 * MIB)
    top = up.content.manifest(NAME, "1")
    assert top is not None
    digest = top.digest if which == "index" else top.child(PLATFORM).digest
    up.faults.add("corrupt", kind="manifest", method="GET", reference=digest, count=None, at=5)
    async with serving(cli, up) as cache:
        if which == "child":
            assert (await get(cache, manifest_path(NAME, "1"))).complete
        answer = await get(cache, manifest_path(NAME, digest))
        assert answer.status == 503
        assert "retry-after" in answer.headers
        assert not stored(cli, digest)


async def _ask_all(cache: Cache, path: str) -> list[Stream]:
    """Everything in `_ASKED` at once."""
    return await asyncio.gather(*(_ask(cache, path, header) for header in _ASKED))


async def _ask(cache: Cache, path: str, header: str | None) -> Stream:
    return await get(cache, path, **({} if header is None else {"Range": header}))
