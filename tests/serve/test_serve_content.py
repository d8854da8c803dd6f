"""Content of every kind, and content that nobody has announced."""

from __future__ import annotations

import asyncio

from blob_serving import (
    MIB,
    NAME,
    PLATFORM,
    blob_path,
    content_gets,
    get,
    introduced,
    manifest_path,
    one_layer,
    pull,
    serving,
    starts_at,
    stored,
    whole,
)

from prefetch.demo.blobs import Blob
from prefetch.demo.images import Image, image, index, manifest
from prefetch.demo.layers import Layer, layer
from support.cache import Cache
from support.factories import UpstreamFactory
from support.processes import CommandLine


async def test_a_foreign_layer(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """The registry is asked first, then its own address, without any authorisation."""
    up, elsewhere = await upstream(), await upstream(auth="none", cdn=False)
    there = layer("foreign", 4 * MIB)
    elsewhere.content.put("layers", manifest("any", layers=[there]))
    url = f"{elsewhere.url}/v2/layers/blobs/{there.blob.digest}"
    announced = layer("foreign", 4 * MIB, urls=("gopher://nowhere", url), held=False)
    up.content.put(NAME, index([manifest("app", layers=[announced])]), "1")
    elsewhere.faults.add("cut", kind="blob", at=MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, there.blob.digest)
        answers = await asyncio.gather(*(get(cache, path) for _ in range(5)))
    assert {(each.complete, each.digest) for each in answers} == {(True, there.blob.digest)}
    begun, resumed = elsewhere.log
    assert begun.range is None
    assert 0 < starts_at(resumed.range) <= MIB
    assert not any(each.has_authorization for each in elsewhere.log)


async def test_a_foreign_layer_that_is_not_there(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up, elsewhere = await upstream(), await upstream(auth="none", cdn=False)
    lost = layer("lost", urls=(f"{elsewhere.url}/v2/layers/blobs/lost",), held=False)
    up.content.put(NAME, index([manifest("app", layers=[lost])]), "1")
    async with serving(cli, up) as cache:
        path = await introduced(cache, lost.blob.digest)
        assert (await get(cache, path)).status == 404


async def test_inline_content_is_not_asked_for(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = up.content.put(NAME, index([manifest("app", inline=True)]), "1")
    config = app.child(PLATFORM).blobs[0]
    async with serving(cli, up) as cache:
        assert await pull(lambda path: get(cache, path), NAME, "1") == whole(app)
    assert config.digest not in {each.reference for each in up.log}


async def test_an_empty_blob(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    nothing = Blob.of(b"")
    up.content.put(NAME, index([manifest("app", layers=[Layer(nothing, nothing.digest)])]), "1")
    async with serving(cli, up) as cache:
        path = await introduced(cache, nothing.digest)
        for _ in range(2):
            answer = await get(cache, path)
            assert (answer.status, answer.headers["content-length"]) == (200, "0")
            assert (await get(cache, path, Range="bytes=0-")).status == 416
            assert (await get(cache, path, Range="bytes=-1")).status == 416
        head = await get(cache, path, method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, "0")
    assert content_gets(up)[nothing.digest] == 1


async def test_sha512(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = up.content.put(NAME, image("app", algorithm="sha512"), "1")
    bad = app.child(PLATFORM).blobs[1]
    async with serving(cli, up) as cache:
        await _has_all(cache, app, but=bad)
        up.faults.add("corrupt", kind="cdn", reference=bad.digest, count=None)
        answer = await get(cache, blob_path(NAME, bad.digest))
        assert answer.status == 503 or not answer.complete
        assert not stored(cli, bad.digest)
        up.faults.clear()
        await _has_all(cache, app)


async def test_indexes_within_indexes(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = index([index([manifest("app"), manifest("app", platform="linux/arm64")])])
    up.content.put(NAME, app, "1")
    async with serving(cli, up) as cache:
        await _has_all(cache, app)


async def test_attestations(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """Nobody needs them to run anything; who asks for them gets them."""
    up = await upstream()
    app = up.content.put(NAME, image("app", attestations=True), "1")
    async with serving(cli, up) as cache:
        assert await pull(lambda path: get(cache, path), NAME, "1") == whole(app)
        assert set(content_gets(up)) == {*whole(app).documents, *whole(app).blobs}
        await _has_all(cache, app)


async def test_platforms_that_nobody_configured(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up = await upstream()
    app = up.content.put(NAME, image("app", platforms=("linux/amd64", "linux/s390x")), "1")
    async with serving(cli, up) as cache:
        got = await pull(lambda path: get(cache, path), NAME, "1", "linux/s390x")
    assert got == whole(app, "linux/s390x")


async def test_a_blob_before_any_manifest(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """The registry says by HEAD that it has it, once for all who ask."""
    up, blob = await one_layer(upstream, size=4 * MIB, rate=4 * MIB)
    async with serving(cli, up) as cache:
        path = blob_path(NAME, blob.digest)
        answers = await asyncio.gather(*(get(cache, path) for _ in range(20)))
        again = await get(cache, path)
    assert {(each.complete, each.digest) for each in (*answers, again)} == {(True, blob.digest)}
    assert content_gets(up) == {blob.digest: 1}
    assert up.log.counts(kind="blob", method="HEAD") == 1
    assert up.log.pulls == 0


async def test_a_blob_that_does_not_exist(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """It is remembered for a while, and then asked for again."""
    up, blob = await one_layer(upstream, size=MIB)
    absent = blob_path(NAME, f"sha256:{'5' * 64}")
    async with serving(cli, up, negative_ttl="1s") as cache:
        for _ in range(10):
            assert (await get(cache, absent)).status == 404
            assert (await get(cache, absent, method="HEAD")).status == 404
        assert up.log.counts(kind="blob") == 1
        await asyncio.sleep(1.1)
        assert (await get(cache, absent)).status == 404
        assert up.log.counts(kind="blob") == 2
        assert (await get(cache, blob_path(NAME, blob.digest))).complete


async def test_a_blob_of_another_repository(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """It is served where the registry says that it is, without being fetched again."""
    up, blob = await one_layer(upstream, size=MIB)
    app = up.content.manifest(NAME, "1")
    assert app is not None
    up.content.put("library/twin", app, "1")
    up.content.put("library/other", image("other"), "1")
    async with serving(cli, up) as cache:
        assert (await get(cache, await introduced(cache, blob.digest))).complete
        other = await get(cache, blob_path("library/other", blob.digest))
        assert other.status == 404
        head = await get(cache, blob_path("library/other", blob.digest), method="HEAD")
        assert head.status == 404
        for _ in range(3):
            twin = await get(cache, blob_path("library/twin", blob.digest))
            assert (twin.complete, twin.digest) == (True, blob.digest)
    assert content_gets(up)[blob.digest] == 1
    asked = [each.repository for each in up.log.select(kind="blob", method="HEAD")]
    assert sorted(asked) == ["library/other", "library/twin"]


async def test_a_blob_of_another_repository_while_the_upstream_is_down(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up, blob = await one_layer(upstream, size=MIB)
    async with serving(cli, up) as cache:
        path = await introduced(cache, blob.digest)
        assert (await get(cache, path)).complete
        await up.close()
        assert (await get(cache, blob_path("library/twin", blob.digest))).status == 503
        assert (await get(cache, path)).complete


async def _has_all(cache: Cache, app: Image, *, but: Blob | None = None) -> None:
    """All documents and blobs below the image, byte for byte."""
    paths = {manifest_path(NAME, part.digest): part.content for part in app.walk()}
    blobs = app.all_blobs().values()
    paths |= {blob_path(NAME, blob.digest): blob for blob in blobs if blob is not but}
    for path, content in paths.items():
        answer = await get(cache, path)
        assert (answer.status, bytes(answer.first)) == (200, content.read()), path
        assert answer.headers["docker-content-digest"] == content.digest
