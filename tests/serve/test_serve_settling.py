"""What clients have brought counts like what a sync has, and what they use is remembered."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blob_serving import (
    MIB,
    NAME,
    PLATFORM,
    blob_path,
    content_gets,
    get,
    manifest_path,
    pull,
    pull_documents,
    serving,
    until,
    whole,
)

from prefetch.demo.images import Image, image, manifest
from support.cache import Cache
from support.factories import UpstreamFactory
from support.processes import CommandLine

_REFERENCE = "docker.io/library/app:1"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_an_image_that_clients_complete_is_warm(
    cli: CommandLine, upstream: UpstreamFactory, workers: str
) -> None:
    up = await upstream()
    app = up.content.put(NAME, image("app", layers=3), "1", "same")
    up.content.put("library/half", image("half"), "1")
    async with serving(cli, up, "--workers", workers) as cache:
        for tag in ("1", "same"):
            assert await pull(lambda path: get(cache, path), NAME, tag) == whole(app)
        await pull_documents(lambda path: get(cache, path), "library/half", "1")
        await until(lambda: _is_warm(cli, _REFERENCE))
        found = await _images(cli)
    assert {name: entry["warm"] for name, entry in found.items()} == {
        _REFERENCE: True,
        "docker.io/library/app:same": True,
        "docker.io/library/half:1": False,
    }
    entry = found[_REFERENCE]
    assert (entry["digest"], entry["platforms"]) == (app.digest, [PLATFORM])
    assert entry["synced_at"] is not None
    # A sync finds nothing left to do.
    up.log.reset()
    config = cli.home / "prefetch.yaml"
    done = await cli("--config", config, "sync", "--image", "app:1", "-o", "json")
    assert done.json["images"][0]["outcome"] == "unchanged"
    assert content_gets(up) == {}


async def test_a_lone_manifest_that_clients_complete_is_warm(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """Which platform it is for stands in its config: a blob."""
    up = await upstream()
    app = up.content.put(NAME, manifest("app"), "1")
    async with serving(cli, up) as cache:
        await _takes_all(cache, app)
        await until(lambda: _is_warm(cli, _REFERENCE))
        assert (await _images(cli))[_REFERENCE]["platforms"] == [PLATFORM]


@pytest.mark.parametrize("lone", [True, False])
async def test_what_has_none_of_the_wanted_platforms_is_not(
    cli: CommandLine, upstream: UpstreamFactory, lone: bool
) -> None:
    """A client has had all of it; but none of it is what was wanted."""
    up = await upstream()
    other = "linux/s390x"
    app = manifest("app", platform=other) if lone else image("app", platforms=(other,))
    up.content.put(NAME, app, "1")
    async with serving(cli, up) as cache:
        if lone:
            await _takes_all(cache, app)
        else:
            got = await pull(lambda path: get(cache, path), NAME, "1", other)
            assert got == whole(app, other)
    assert _REFERENCE in await _images(cli)
    assert not await _is_warm(cli, _REFERENCE)


async def test_while_the_database_is_locked_blobs_come_all_the_same(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """What is verified is served; the database hears of it when it can."""
    up = await upstream()
    app = up.content.put(NAME, image("app"), "1")
    async with serving(cli, up) as cache:
        await pull_documents(lambda path: get(cache, path), NAME, "1")
        with closing(sqlite3.connect(cli.data_dir / "prefetch.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for blob in app.child(PLATFORM).blobs:
                answer = await get(cache, blob_path(NAME, blob.digest), seconds=3)
                assert (answer.complete, answer.digest) == (True, blob.digest)
            await asyncio.sleep(0.5)
            other.execute("ROLLBACK")
        await until(lambda: _is_warm(cli, _REFERENCE))


async def test_killed_before_it_has_counted_as_warm(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """Whoever serves next finds it whole."""
    up = await upstream()
    app = up.content.put(NAME, image("app"), "1")
    async with serving(cli, up) as cache:
        assert await pull(lambda path: get(cache, path), NAME, "1") == whole(app)
        await cache.kill()
    assert not await _is_warm(cli, _REFERENCE)
    await up.close()
    async with serving(cli, up) as cache:
        await until(lambda: _is_warm(cli, _REFERENCE))


async def test_the_layout_names_what_clients_have_brought(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up = await upstream()
    app = up.content.put(NAME, image("app"), "1")
    async with serving(cli, up) as cache:
        assert await pull(lambda path: get(cache, path), NAME, "1") == whole(app)
    index = json.loads((cli.cache / "index.json").read_text())
    named = {
        each["annotations"]["org.opencontainers.image.ref.name"]: each["digest"]
        for each in index["manifests"]
    }
    assert named == {_REFERENCE: app.digest}


async def test_a_sync_and_clients_complete_an_image_together(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """What a client has brought a sync need not."""
    up = await upstream()
    app = up.content.put(NAME, image("app", layers=2, layer_size=MIB), "1")
    first, second = app.child(PLATFORM).blobs[1:]
    async with serving(cli, up) as cache:
        await pull_documents(lambda path: get(cache, path), NAME, "1")
        assert (await get(cache, blob_path(NAME, first.digest))).complete
        config = cli.home / "prefetch.yaml"
        done = await cli("--config", config, "sync", "--image", "app:1", "-o", "json")
        assert done.json["images"][0]["bytes_reused"] == first.size
        assert done.json["images"][0]["pulls"] == 0
        assert (await get(cache, blob_path(NAME, second.digest))).complete
    assert set(content_gets(up).values()) == {1}


async def test_what_was_served_is_remembered(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = up.content.put(NAME, image("app"), "1")
    up.content.put("library/idle", image("idle"), "1")
    config = ("--image", "app:1", "--image", "idle:1")
    async with serving(cli, up) as cache:
        synced = await cli("--config", cli.home / "prefetch.yaml", "sync", *config)
        assert synced.code == 0, synced.stderr
        assert await pull(lambda path: get(cache, path), NAME, "1") == whole(app)
        assert (await get(cache, blob_path(NAME, f"sha256:{'9' * 64}"))).status == 404
        before = await _images(cli)
        await cache.stop()
    after = await _images(cli)
    assert before[_REFERENCE]["last_served_at"] is None
    served = datetime.fromisoformat(after[_REFERENCE]["last_served_at"])
    assert abs(datetime.now(UTC) - served) < timedelta(minutes=1)
    assert after["docker.io/library/idle:1"]["last_served_at"] is None
    assert _served(cli) == {*whole(app).documents, *whole(app).blobs}


async def test_heads_and_failures_serve_nothing(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up = await upstream()
    app = up.content.put(NAME, image("app"), "1")
    async with serving(cli, up) as cache:
        top, child = await pull_documents(lambda path: get(cache, path), NAME, "1")
        blob = app.child(PLATFORM).blobs[1]
        await get(cache, blob_path(NAME, blob.digest), method="HEAD")
        await get(cache, blob_path(NAME, blob.digest), Cache_Control="only-if-cached")
    assert _served(cli) == {top.digest, child.digest}


async def _takes_all(cache: Cache, app: Image) -> None:
    assert (await get(cache, manifest_path(NAME, "1"))).complete
    blobs = (get(cache, blob_path(NAME, blob.digest)) for blob in app.blobs)
    assert all(each.complete for each in await asyncio.gather(*blobs))


async def _images(cli: CommandLine) -> dict[str, dict[str, Any]]:
    """`prefetch images`, by reference."""
    done = await cli("images", "-o", "json")
    assert done.code == 0, done.stderr
    return {entry["reference"]: entry for entry in done.json}


async def _is_warm(cli: CommandLine, reference: str) -> bool:
    entry = (await _images(cli)).get(reference)
    return entry is not None and bool(entry["warm"])


def _served(cli: CommandLine) -> set[str]:
    """The digests that were served, out of the database."""
    with closing(sqlite3.connect(cli.data_dir / "prefetch.db")) as database:
        rows = database.execute("SELECT digest FROM blobs WHERE last_served_at IS NOT NULL")
        return {row[0] for row in rows}
