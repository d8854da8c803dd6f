"""The database or the disk in trouble, while clients pull."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tag_serving import (
    ask,
    blob_path,
    child_of,
    configure,
    manifest_path,
    parts_of,
    pulls_whole,
    put_image,
    running,
    sync,
    until,
)

from prefetch.demo.images import Image
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.cache import Cache
from support.processes import CommandLine

MIB = 1 << 20
APP, OTHER, COLD = "library/app", "library/other", "library/cold"
TAG = manifest_path(APP, "1")
_POWERS = "-dac_override,-dac_read_search,-fowner"


class Subdued(CommandLine):
    """The command without root's power to write what is read-only."""

    def arguments(self, *words: str | Path, data_dir: Path | None = None) -> list[str]:
        command = super().arguments(*words, data_dir=data_dir)
        if os.geteuid() != 0:
            return command
        return ["setpriv", f"--bounding-set={_POWERS}", f"--inh-caps={_POWERS}", "--", *command]


@dataclass(frozen=True)
class Place:
    """A running cache; `app` and `other` are whole, `cold` is not here.

    The server has been asked for all of `app` before; tags are checked each second.
    """

    cache: Cache
    upstream: Upstream
    app: Image
    other: Image
    cold: Image
    data_dir: Path

    async def serves_what_is_warm(self) -> None:
        """All of the image, again and again, and at once."""
        for _ in range(3):
            await pulls_whole(self.cache, APP, "1", self.app)
            for path in (TAG, *(path for path, _ in parts_of(APP, self.app))):
                assert (await ask(self.cache, path)).seconds < 3

    async def is_ready(self) -> bool:
        return (await ask(self.cache, "/readyz")).status == 200

    async def is_not_ready(self) -> bool:
        reply = await ask(self.cache, "/readyz")
        assert reply.seconds < 5
        return reply.status == 503 and reply.body.startswith(b"not ready: ")

    async def is_alive(self) -> bool:
        return (await ask(self.cache, "/healthz")).status == 200


@asynccontextmanager
async def placed(
    cli: CommandLine, directory: Path, *, ends_with: tuple[int, ...] = (0,)
) -> AsyncIterator[Place]:
    async with Upstream(UpstreamSettings(limit=1000)) as upstream:
        app, cold = put_image(upstream, APP, "1"), put_image(upstream, COLD, "1")
        other = put_image(upstream, OTHER, "1")
        config = configure(
            directory / "prefetch.yaml", {"docker.io": upstream.url}, tag_ttl="1s", drain="5s"
        )
        await sync(cli, config, "app:1", "other:1")
        async with running(cli, config, ends_with=ends_with) as cache:
            await pulls_whole(cache, APP, "1", app)
            yield Place(cache, upstream, app, other, cold, cli.data_dir)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    holder = sqlite3.connect(database, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        yield
    finally:
        holder.close()


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """No file can be made in any directory below."""
    directories = [path for path in (root, *root.rglob("*")) if path.is_dir()]
    for each in directories:
        each.chmod(0o555)
    try:
        yield
    finally:
        for each in directories:
            each.chmod(0o755)


@contextmanager
def full(directory: Path) -> Iterator[None]:
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Sixteen MiB of a file system of its own."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", mounted]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"may not mount: {made.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", "--lazy", mounted], check=True)


async def test_a_database_that_is_locked_for_a_while(cli: CommandLine, tmp_path: Path) -> None:
    async with placed(cli, tmp_path) as there:
        with locked(there.data_dir / "prefetch.db"):
            await asyncio.sleep(1.2)
            await there.serves_what_is_warm()
            # Also what nobody has asked for since the server was started.
            await pulls_whole(there.cache, OTHER, "1", there.other)
            assert await there.is_not_ready()
            assert await there.is_alive()
            counted = await ask(there.cache, "/metrics")
            assert (counted.status, b"prefetch_requests_total" in counted.body) == (200, True)
            assert counted.seconds < 5
            cold = asyncio.create_task(ask(there.cache, manifest_path(COLD, "1")))
            await asyncio.sleep(2)
            await there.serves_what_is_warm()
        # Whoever wanted something new has waited, and gets it now.
        assert (await cold).status == 200
        await until(there.is_ready)
        await pulls_whole(there.cache, COLD, "1", there.cold)


@pytest.mark.long
async def test_a_database_that_is_locked_for_longer(cli: CommandLine, tmp_path: Path) -> None:
    async with placed(cli, tmp_path) as there:
        with locked(there.data_dir / "prefetch.db"):
            reply = await ask(there.cache, manifest_path(COLD, "1"))
            assert reply.status == 503
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.seconds < 25
            await there.serves_what_is_warm()
        await until(there.is_ready)

        async def served() -> bool:
            return (await ask(there.cache, manifest_path(COLD, "1"))).status == 200

        await until(served)


async def test_a_data_directory_that_has_become_read_only(tmp_path: Path) -> None:
    cli = Subdued(tmp_path / "home", tmp_path / "data")
    cli.home.mkdir()
    async with placed(cli, tmp_path) as there:
        with read_only(there.data_dir):
            await asyncio.sleep(1.2)
            await there.serves_what_is_warm()
            await pulls_whole(there.cache, OTHER, "1", there.other)
            assert "could not be asked" in (await ask(there.cache, TAG)).warning
            assert await there.is_not_ready()
            assert await there.is_alive()
            reply = await ask(there.cache, manifest_path(COLD, "1"))
            assert (reply.status, reply.message) == (503, "the cache cannot write")
            assert int(reply.headers["retry-after"]) >= 1
            # No pull for what could not be kept.
            assert there.upstream.log.pulls == 4
        assert await there.is_ready()

        async def served() -> bool:
            return (await ask(there.cache, manifest_path(COLD, "1"))).status == 200

        await until(served)
        await pulls_whole(there.cache, COLD, "1", there.cold)
    assert "cannot be used as a lock: Permission denied" in there.cache.log


async def test_a_disk_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    cli = CommandLine(tmp_path / "home", small_disk / "data")
    cli.home.mkdir()
    async with placed(cli, tmp_path) as there:
        with full(small_disk):
            await asyncio.sleep(1.2)
            await there.serves_what_is_warm()
            assert await there.is_not_ready()
            assert b"NO_SPACE" in (await ask(there.cache, "/readyz")).body
            reply = await ask(there.cache, manifest_path(COLD, "1"))
            assert (reply.status, reply.message) == (503, "the cache cannot write")
            blob = child_of(there.cold).blobs[0].digest
            assert (await ask(there.cache, blob_path(COLD, blob))).status == 503
            await there.serves_what_is_warm()
        assert await there.is_ready()

        async def served() -> bool:
            return (await ask(there.cache, manifest_path(COLD, "1"))).status == 200

        await until(served)
        await pulls_whole(there.cache, COLD, "1", there.cold)
    lines = [line for line in there.cache.log.splitlines() if "fetch failed" in line]
    assert 1 <= len(lines) <= 10


async def test_a_database_that_is_damaged_under_the_server(
    cli: CommandLine, tmp_path: Path
) -> None:
    # Whether something is left to be written at the end is chance.
    async with placed(cli, tmp_path, ends_with=(0, 1)) as there:
        database = there.data_dir / "prefetch.db"

        async def damaged() -> bool:
            # What is still in the write-ahead log would mend it.
            with contextlib.suppress(sqlite3.DatabaseError):
                connection = sqlite3.connect(database)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.close()
            os.truncate(database, 4096)
            return await there.is_not_ready()

        await until(damaged)
        await asyncio.sleep(1.2)

        await there.serves_what_is_warm()

        assert await there.is_not_ready()
        assert (await ask(there.cache, manifest_path(COLD, "1"))).status == 503
        assert there.upstream.log.pulls == 4
