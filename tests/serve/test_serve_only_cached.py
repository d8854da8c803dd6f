"""`Cache-Control: only-if-cached`: 504 unless all is here, and never a word to the upstream."""

from __future__ import annotations

import asyncio

import pytest
from blob_serving import (
    MIB,
    NAME,
    PLATFORM,
    Stream,
    blob_path,
    get,
    manifest_path,
    one_layer,
    pull,
    serving,
    until,
    whole,
)

from prefetch.demo.images import Image, image
from prefetch.demo.upstream import Upstream
from support.cache import Cache
from support.factories import UpstreamFactory
from support.processes import CommandLine


async def test_step_by_step(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = up.content.put(NAME, image("app"), "1")
    child = app.child(PLATFORM)
    parts = [manifest_path(NAME, "1"), manifest_path(NAME, child.digest)]
    parts += [blob_path(NAME, blob.digest) for blob in child.blobs]
    # The tag is asked for again all the time, were it not for the header.
    async with serving(cli, up, tag_ttl="1ms") as cache:
        assert await _answers(cache, up, app) == dict.fromkeys(_paths(app), 504)
        for path in parts[:-1]:
            assert (await get(cache, path)).complete
            found = await _answers(cache, up, app)
            here = {
                each
                for each in parts
                if "/blobs/" in each and each in parts[: parts.index(path) + 1]
            }
            assert found == {each: 200 if each in here else 504 for each in _paths(app)}
        assert (await get(cache, parts[-1])).complete
        assert await _answers(cache, up, app) == dict.fromkeys(_paths(app), 200)
        await up.close()
        assert await _answers(cache, up, app) == dict.fromkeys(_paths(app), 200)


async def test_one_platform_of_two_will_do(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """As the index is served: when one of the wanted platforms is whole."""
    up = await upstream()
    app = up.content.put(NAME, image("app"), "1")
    async with serving(cli, up, platforms=["linux/amd64", "linux/arm64"]) as cache:
        assert await pull(lambda path: get(cache, path), NAME, "1") == whole(app)
        assert await _answers(cache, up, app) == dict.fromkeys(_paths(app), 200)
        arm = app.child("linux/arm64")
        others = [manifest_path(NAME, arm.digest), blob_path(NAME, arm.blobs[0].digest)]
        assert await _ask(cache, up, others) == dict.fromkeys(others, 504)


async def test_what_arrives_is_not_here(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up, layer = await one_layer(upstream, size=4 * MIB, rate=4 * MIB)
    path = blob_path(NAME, layer.digest)
    async with serving(cli, up) as cache:
        stream = await Stream.open(cache, path)
        assert await stream.take(MIB)
        assert await _ask(cache, up, [path]) == {path: 504}
        await stream.rest()
        assert await _ask(cache, up, [path]) == {path: 200}


@pytest.mark.parametrize(
    "header", ["only-if-cached", "no-transform, Only-If-Cached", "ONLY-IF-CACHED,max-age=0"]
)
async def test_what_does_not_exist(
    cli: CommandLine, upstream: UpstreamFactory, header: str
) -> None:
    """Nobody asks whether it does; nor for other repositories' blobs, nor for other registries."""
    up, layer = await one_layer(upstream, size=MIB)
    async with serving(cli, {"docker.io": up.url, "quay.io": up.url}) as cache:
        assert (await get(cache, blob_path(NAME, layer.digest))).complete
        await until(lambda: up.log.requests[-1].ended)
        up.log.reset()
        for path in (
            manifest_path(NAME, "no-such-tag"),
            manifest_path(NAME, f"sha256:{'0' * 64}"),
            blob_path(NAME, f"sha256:{'0' * 64}"),
            blob_path("library/other", layer.digest),
            blob_path("quay.io/library/app", layer.digest),
        ):
            for method in ("GET", "HEAD"):
                answer = await get(cache, path, method=method, Cache_Control=header)
                assert (answer.status, answer.headers.get("retry-after")) == (504, None), path
    assert up.log.requests == []


def _paths(app: Image) -> list[str]:
    child = app.child(PLATFORM)
    references = ("1", app.digest, child.digest)
    return [
        *(manifest_path(NAME, each) for each in references),
        *(blob_path(NAME, blob.digest) for blob in child.blobs),
    ]


async def _answers(cache: Cache, up: Upstream, app: Image) -> dict[str, int]:
    return await _ask(cache, up, _paths(app))


async def _ask(cache: Cache, up: Upstream, paths: list[str]) -> dict[str, int]:
    """What is answered, to GET and HEAD alike; the upstream hears of none of it."""
    before = len(up.log)
    statuses = {}
    for path in paths:
        found = await asyncio.gather(
            *(
                get(cache, path, method=each, Cache_Control="only-if-cached")
                for each in ("GET", "HEAD")
            )
        )
        assert found[0].status == found[1].status
        assert found[0].status == 504 or found[0].complete
        statuses[path] = found[0].status
    assert len(up.log) == before
    return statuses
