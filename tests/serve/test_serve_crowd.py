"""Many clients want one cold image: the upstream sees one."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from blob_serving import (
    MIB,
    PLATFORM,
    blob_path,
    content_gets,
    get,
    get_stubbornly,
    ingested,
    introduced,
    pull,
    pull_documents,
    serving,
    starts_at,
    until,
    whole,
)

from prefetch.demo.images import Image, image
from prefetch.demo.upstream import Upstream
from support.cache import Cache
from support.factories import UpstreamFactory
from support.processes import CommandLine

_CLIENTS = 100


async def test_one_worker(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = _put(up, layers=2, size=MIB)
    async with serving(cli, up) as cache:
        await _all_get_all(cache, app)
    assert content_gets(up) == _once(app)


async def test_two_workers(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = _put(up, layers=2, size=MIB)
    async with serving(cli, up, "--workers", "2") as cache:
        await _all_get_all(cache, app)
        assert len(_workers(cache)) == 2
    assert content_gets(up) == _once(app)


async def test_the_worker_that_fetches_is_killed(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    up = await upstream()
    app = _put(up, layers=1, size=8 * MIB)
    layer = app.child(PLATFORM).blobs[1]
    async with serving(cli, up, "--workers", "2") as cache:
        clients = asyncio.create_task(_all_get_all(cache, app))
        await until(lambda: ingested(cli, layer.digest) > 3 * MIB)
        victim = _writer(cache, cli.data_dir / "ingest")
        os.kill(victim, signal.SIGKILL)
        await clients
        assert victim not in _workers(cache)
    assert content_gets(up) == _once(app) | {layer.digest: 2}
    first, second = up.log.select(kind="cdn", reference=layer.digest)
    assert 3 * MIB < starts_at(second.range) <= first.bytes_sent


async def test_a_sync_beside_clients(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = _put(up, layers=2, size=2 * MIB)
    async with serving(cli, up) as cache:
        clients = asyncio.create_task(_all_get_all(cache, app, clients=20))
        config = cli.home / "prefetch.yaml"
        synced = await cli("--config", config, "sync", "--image", "app:1", "-o", "json")
        await clients
    assert synced.code == 0, synced.stderr
    assert content_gets(up) == _once(app)


async def test_clients_follow_a_sync(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up = await upstream()
    app = _put(up, layers=1, size=4 * MIB)
    layer = app.child(PLATFORM).blobs[1]
    async with serving(cli, up) as cache:
        config = cli.home / "prefetch.yaml"
        syncing = asyncio.create_task(cli("--config", config, "sync", "--image", "app:1"))
        await until(lambda: ingested(cli, layer.digest) > 0)
        await _all_get_all(cache, app, clients=20)
        assert (await syncing).code == 0
    assert content_gets(up) == _once(app)


async def test_small_requests_do_not_wait_for_downloads(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """However many layers are under way, and waiting for their turn."""
    up = await upstream()
    names = [f"library/big{number}" for number in range(20)]
    layers = [
        up.content.put(name, image(name, layers=1, layer_size=MIB), "1").child(PLATFORM).blobs[1]
        for name in names
    ]
    app = up.content.put("library/app", image("app"), "1")
    async with serving(cli, up, "--workers", "2", max_fetches=9) as cache:
        paths = [
            await introduced(cache, layer.digest, name)
            for name, layer in zip(names, layers, strict=True)
        ]
        up.faults.add("slow", kind="cdn", count=None, bytes_per_second=MIB // 3)
        downloads = [asyncio.create_task(get(cache, path)) for path in paths]
        await until(lambda: up.log.counts(kind="cdn") == 7)
        async with asyncio.timeout(5):
            top, _ = await pull_documents(lambda path: get(cache, path), "library/app", "1")
            missing = await get(cache, blob_path("library/app", f"sha256:{'0' * 64}"))
        assert (top.digest, missing.status) == (app.digest, 404)
        up.faults.clear()
        assert all(each.complete for each in await asyncio.gather(*downloads))
    assert up.log.peak(kind="cdn") == 7


def _put(up: Upstream, *, layers: int, size: int) -> Image:
    """A two-platform image whose blobs take about a second each."""
    up.faults.add("slow", kind="cdn", count=None, bytes_per_second=2 * MIB)
    return up.content.put("library/app", image("app", layers=layers, layer_size=size), "1")


async def _all_get_all(cache: Cache, app: Image, *, clients: int = _CLIENTS) -> None:
    pulls = (
        pull(lambda path: get_stubbornly(cache, path), "library/app", "1") for _ in range(clients)
    )
    assert await asyncio.gather(*pulls) == [whole(app)] * clients


def _once(app: Image) -> dict[str, int]:
    child = app.child(PLATFORM)
    return dict.fromkeys([app.digest, child.digest, *(blob.digest for blob in child.blobs)], 1)


def _workers(cache: Cache) -> list[int]:
    children = Path(f"/proc/{cache.pid}/task/{cache.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def _writer(cache: Cache, directory: Path) -> int:
    """The worker that holds a lock on a file in `directory` (proc(5), fdinfo)."""
    for pid in _workers(cache):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if Path(os.readlink(link)).parent != directory:
                continue
            if "FLOCK" in Path(f"/proc/{pid}/fdinfo/{link.name}").read_text():
                return pid
    raise AssertionError("nobody writes")
