"""Disks that are full or read-only, databases that are locked or damaged, clocks, bad lists."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from acceptance_support import BlobAudit, inventory, one_line, outcomes, warm_names, write_list

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine, Result, UpstreamProcess, finish

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight MiB of a file system of its own."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mounted]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"may not mount: {made.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", "--lazy", mounted], check=True)


@dataclass(frozen=True)
class Synced:
    """A cache with four images, and their upstream."""

    cli: CommandLine
    upstream: UpstreamProcess
    words: tuple[str | Path, ...]
    references: list[str]

    @property
    def database(self) -> Path:
        return self.cli.data_dir / "prefetch.db"


@pytest.fixture
async def synced(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> AsyncIterator[Synced]:
    upstream = await upstream_process(
        settings={"limit": 1000}, images=[{"repository": "app{n}", "count": 4}]
    )
    listed = write_list(tmp_path / "images.txt", upstream.references())
    words = ("sync", listed, "--platform", "all", "-o", "json")
    first = await cli(*words)
    assert first.code == 0, first.stderr
    return Synced(cli, upstream, words, upstream.references())


async def test_a_full_disk_loses_nothing(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, small_disk: Path
) -> None:
    orders = [
        {"repository": "small{n}", "count": 3},
        {"repository": "large", "layer_size": 6 * MIB, "single": True},
    ]
    upstream = await upstream_process(settings={"limit": 1000}, images=orders)
    references = upstream.references()
    listed = write_list(tmp_path / "images.txt", references)
    words = ("sync", listed, "--platform", "all", "-o", "json")
    disk = small_disk / "data"

    full = await cli(*words, data_dir=disk)

    assert full.code == 1, full.stderr
    assert "Traceback" not in full.stderr
    failed = [image for image in full.json["images"] if image["outcome"] == "failed"]
    assert [image["reference"] for image in failed] == [references[3]]
    assert failed[0]["error"]["code"] == "NO_SPACE"
    assert "space" in failed[0]["error"]["message"]
    assert BlobAudit(disk / "cache").wrong() == []
    assert warm_names(disk / "cache") == set(references[:3])

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    pulls = upstream.pulls
    better = await cli(*words, data_dir=disk)

    assert better.code == 0, better.stderr
    assert upstream.pulls == pulls
    assert warm_names(disk / "cache") == set(references)


async def test_a_disk_without_room_for_the_database(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, small_disk: Path
) -> None:
    upstream = await upstream_process(images=[{"repository": "app"}])
    [reference] = upstream.references()
    with (small_disk / "filler").open("wb") as filler, contextlib.suppress(OSError):
        filler.write(bytes(8 * MIB))

    full = await cli("sync", "--image", reference, data_dir=small_disk / "data")

    assert full.code == 1
    assert "space" in one_line(full)
    assert upstream.pulls == 0
    (small_disk / "filler").unlink()
    better = await cli("sync", "--image", reference, data_dir=small_disk / "data")
    assert better.code == 0, better.stderr


async def test_a_read_only_disk(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, small_disk: Path
) -> None:
    upstream = await upstream_process(images=[{"repository": "app{n}", "count": 2}])
    first, second = upstream.references()
    disk = small_disk / "data"
    assert (await cli("sync", "--image", first, data_dir=disk)).code == 0
    pulls = upstream.pulls
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    changes = "a copy of the data directory may be written to"
    refused = await cli("sync", "--image", second, "-o", "json", data_dir=disk, changes=changes)

    assert refused.code == 1
    assert str(disk) in one_line(refused)
    assert refused.stdout == ""
    assert upstream.pulls == pulls


async def test_a_locked_database_is_told_in_one_line(synced: Synced) -> None:
    holder = sqlite3.connect(synced.database, isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        refused = await synced.cli(*synced.words, changes="a copy of the database is not locked")
        waited = time.monotonic() - began
    finally:
        holder.close()

    assert refused.code == 1
    assert "locked" in one_line(refused)
    assert refused.stdout == ""
    assert waited < 30
    after = await synced.cli(*synced.words)
    assert after.code == 0, after.stderr
    assert outcomes(after.json) == {"unchanged"}


def random_bytes_within(database: Path) -> None:
    # The write-ahead log goes too, as a lost disk would take it: nothing mends the pages.
    checkpoint(database)
    noise = random.Random(7).randbytes(8192)
    with database.open("r+b") as file:
        for offset in range(4096, database.stat().st_size, 3 * 4096):
            file.seek(offset)
            file.write(noise)


def cut_in_half(database: Path) -> None:
    checkpoint(database)
    os.truncate(database, database.stat().st_size // 2)


def something_else(database: Path) -> None:
    checkpoint(database)
    database.write_text("this is no database, it is a letter\n" * 1000)


def checkpoint(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize("damage", [random_bytes_within, cut_in_half, something_else])
async def test_a_damaged_database_is_made_anew(
    synced: Synced, damage: Callable[[Path], None]
) -> None:
    before = await inventory(synced.cli)
    damage(synced.database)
    synced.upstream.reset()

    refused = await synced.cli(*synced.words)

    assert refused.code == 1
    assert "db rebuild" in one_line(refused)
    assert refused.stdout == ""
    assert synced.upstream.pulls == 0
    rebuilt = await synced.cli("db", "rebuild")
    assert rebuilt.code == 0, rebuilt.stderr
    assert await inventory(synced.cli) == before
    after = await synced.cli(*synced.words)
    assert after.code == 0, after.stderr
    assert synced.upstream.pulls == 0


@pytest.mark.real("faketime")
async def test_a_clock_set_back_a_day_spends_no_pull_too_many(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(
        settings={"limit": 30, "window": 600}, images=[{"repository": "app{n}", "count": 12}]
    )
    listed = write_list(tmp_path / "images.txt", upstream.references())
    words = ("sync", listed, "--platform", "all", "--reserve", "5", "-o", "json")
    first = await cli(*words)
    assert first.code == 75, first.stderr
    assert upstream.pulls == 24
    upstream.ask("spend", {"pulls": 1})

    yesterday = await faked(cli, "-1d", *words)
    today = await cli(*words)

    for ended in (yesterday, today):
        assert ended.code == 75, ended.stderr
        assert "Traceback" not in ended.stderr
        assert (ended.json["totals"]["unchanged"], ended.json["totals"]["deferred"]) == (8, 4)
    assert upstream.pulls == 24
    assert 429 not in {request["status"] for request in upstream.requests()}


async def faked(cli: CommandLine, shift: str, *words: str | Path) -> Result:
    library = next(Path("/usr/lib").rglob("libfaketime.so.1"))
    env = {"LD_PRELOAD": str(library), "FAKETIME": shift, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return await cli(*words, env=env)


async def test_an_upstream_that_is_not_there(cli: CommandLine, free_port: int) -> None:
    reference = f"127.0.0.1:{free_port}/app:1"

    ended = await cli("sync", "--image", reference, "-o", "json")

    assert ended.code == 1
    assert "Traceback" not in ended.stderr
    [image] = ended.json["images"]
    assert (image["outcome"], image["error"]["code"]) == ("failed", "UNREACHABLE")
    assert f"127.0.0.1:{free_port}" in image["error"]["message"]


async def test_what_is_warm_outlives_its_upstream(synced: Synced) -> None:
    before = await inventory(synced.cli)
    synced.upstream.stop()

    ended = await synced.cli(*synced.words, changes="the upstream can tell of nothing any more")

    assert ended.code == 1
    assert outcomes(ended.json) == {"failed"}
    assert await inventory(synced.cli) == before
    assert warm_names(synced.cli.cache) == set(synced.references)


async def test_a_hundred_thousand_lines(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(
        settings={"limit": 1000}, images=[{"repository": "app{n}", "count": 20}]
    )
    references = upstream.references()
    lines = [references[number % 20] for number in range(100_000)]
    lines[::1000] = [f"NOT A REFERENCE {number}" for number in range(100)]
    lines[1::1000] = ["# a comment"] * 100
    listed = write_list(tmp_path / "images.txt", lines)

    ended = await cli("sync", listed, "--platform", "all", "-o", "json")

    assert ended.code == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.json["images"]) == 20
    assert outcomes(ended.json) == {"synced"}
    assert upstream.pulls == 60
    assert [error["line"] for error in ended.json["errors"]] == list(range(1, 100_000, 1000))
    assert {error["source"] for error in ended.json["errors"]} == {str(listed)}


async def test_a_cache_that_was_moved_is_still_whole(synced: Synced, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(synced.cli.data_dir, moved)
    synced.upstream.reset()

    ended = await synced.cli(*synced.words, data_dir=moved)

    assert ended.code == 0, ended.stderr
    assert outcomes(ended.json) == {"unchanged"}
    assert synced.upstream.pulls == 0


async def test_whoever_reads_the_output_may_leave(synced: Synced) -> None:
    process = await synced.cli.start("images", "-o", "json")
    assert process.stdout is not None
    process.stdout._transport.close()  # type: ignore[attr-defined]
    ended = await finish(process)

    assert ended.code in (0, 1)
    assert ended.stderr == ""
    assert ended.code != -signal.SIGPIPE
