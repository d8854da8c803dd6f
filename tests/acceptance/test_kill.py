"""Killed at any instant, it goes on where it stopped; told to stop, it says what it did."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from acceptance_support import BlobAudit, inventory, warm_names, write_list

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine, UpstreamProcess, finish

MIB = 1 << 20
KILLS = 20
IN_FLIGHT = 8  # max_concurrency's default

# 6 images of 2 platforms with 2 layers each, none shared; what is sent comes slowly enough for
# a kill to strike in the middle of it.
SIX = {"repository": "app{n}", "count": 6, "layers": 2, "layer_size": 3 * MIB}
PULLS = 6 * 3


def slowly(bytes_per_second: int) -> list[dict[str, Any]]:
    return [{"name": "slow", "kind": "cdn", "count": None, "bytes_per_second": bytes_per_second}]


@dataclass
class Damage:
    """What the kills have cost, as the disk and the upstream's log tell."""

    ingests: list[dict[str, int]] = field(default_factory=list)
    pulls: list[int] = field(default_factory=list)

    def take(self, cli: CommandLine, upstream: UpstreamProcess) -> None:
        """After a kill: the sizes of the ingests, by digest, and the pulls so far."""
        self.ingests.append(ingest_sizes(cli))
        self.pulls.append(upstream.pulls)


def ingest_sizes(cli: CommandLine) -> dict[str, int]:
    """The sizes of the blobs under way, by digest."""
    sizes = {}
    for path in (cli.data_dir / "ingest").glob("*-*"):
        with contextlib.suppress(FileNotFoundError):  # it is whole by now
            sizes[path.name.replace("-", ":", 1)] = path.stat().st_size
    return sizes


async def kill_while_running(
    cli: CommandLine, upstream: UpstreamProcess, words: list[str | Path], chance: random.Random
) -> bool:
    """SIGKILL at a random moment; whether it was still running.

    One in five strikes while it starts, the others after its first request has come.
    """
    before = await heard(upstream)
    process = await cli.start(*words)
    if chance.random() < 0.2:
        await asyncio.sleep(chance.uniform(0.1, 0.8))
    else:
        while process.returncode is None and await heard(upstream) == before:
            await asyncio.sleep(0.02)
        await asyncio.sleep(chance.uniform(0.0, 1.2))
    running = process.returncode is None
    if running:
        process.kill()
    await process.communicate()
    return running


async def heard(upstream: UpstreamProcess) -> int:
    """How many requests the upstream has had."""
    return sum((await asyncio.to_thread(upstream.counts)).values())


def asked_again(upstream: UpstreamProcess) -> dict[str, list[int]]:
    """For each blob, the bytes that were sent again after each time it had been broken off."""
    sent: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for request in upstream.requests():
        if request["kind"] == "cdn" and request["status"] in (200, 206):
            start = int((request["range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            sent[request["reference"]].append((start, start + request["bytes_sent"]))
    return {
        digest: [max(0, stop - start) for (_, stop), (start, _) in itertools.pairwise(spans)]
        for digest, spans in sent.items()
    }


@pytest.mark.timeout(240)
async def test_twenty_kills_lose_nothing(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    chance = random.Random(20261124)
    upstream = await upstream_process(
        settings={"limit": 1000}, images=[SIX], faults=slowly(MIB // 2)
    )
    references = upstream.references()
    listed = write_list(tmp_path / "images.txt", references)
    words = ["sync", listed, "--platform", "all", "-o", "json"]
    audit = BlobAudit(cli.cache)
    damage = Damage()
    kills = 0

    while kills < KILLS:
        assert await kill_while_running(cli, upstream, words, chance), f"ended after {kills} kills"
        kills += 1
        damage.take(cli, upstream)
        assert audit.wrong() == []
    upstream.ask("faults", method="DELETE")
    ended = await cli(*words)

    assert ended.code == 0, ended.stderr
    assert ended.json["outcome"] == "complete"
    assert audit.wrong() == []
    assert warm_names(cli.cache) == set(references)
    assert list((cli.data_dir / "ingest").iterdir()) == []

    pulls = upstream.pulls
    repeated = [again for each in asked_again(upstream).values() for again in each]
    print(
        f"{pulls - PULLS} pulls and {sum(repeated) / MIB:.2f} MiB again over {KILLS} kills, at "
        f"most {max(repeated) / MIB:.2f} MiB at once; {audit.checked} blobs checked"
    )
    assert pulls <= PULLS + KILLS * IN_FLIGHT
    assert_resumed(upstream, damage)
    assert len(repeated) > KILLS, "the kills met too few blobs"
    assert max(repeated) <= MIB


def assert_resumed(upstream: UpstreamProcess, damage: Damage) -> None:
    """Whatever was asked for after a kill began where an ingest file had ended."""
    sizes: dict[str, set[int]] = defaultdict(lambda: {0})
    for ingests in damage.ingests:
        for digest, size in ingests.items():
            sizes[digest].add(size)
    for request in upstream.requests():
        if request["kind"] == "cdn":
            start = int((request["range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            assert start in sizes[request["reference"]], request


async def test_a_database_made_anew_tells_the_same(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    orders = [
        {"repository": "index{n}", "count": 3, "docker": True},
        {"repository": "single", "single": True},
        {"repository": "attested", "attestations": True, "tags": ["1", "2"]},
        {"repository": "strong", "algorithm": "sha512"},
    ]
    upstream = await upstream_process(settings={"limit": 1000}, images=orders)
    references = upstream.references()
    [some, *others] = references
    digest = upstream.ask("images")[0]["digest"]
    everything = [word for reference in others for word in ("--image", reference)]
    for words in (
        ("--platform", "linux/amd64", "--image", some),
        ("--platform", "linux/arm64", "--image", f"{some.partition(':latest')[0]}@{digest}"),
        ("--platform", "all", *everything),
    ):
        synced = await cli("sync", *words)
        assert synced.code in (0, 1), synced.stderr
    before = await inventory(cli)
    assert len(before) == len(references) + 1
    assert all(warm for _, _, _, warm, _ in before)
    for name in ("prefetch.db", "prefetch.db-wal", "prefetch.db-shm"):
        (cli.data_dir / name).unlink(missing_ok=True)

    rebuilt = await cli("db", "rebuild")

    assert rebuilt.code == 0, rebuilt.stderr
    assert await inventory(cli) == before
    upstream.reset()
    again = await cli("sync", "--platform", "all", *everything, "-o", "json")
    assert again.json["totals"]["unchanged"] == len(others)
    assert upstream.pulls == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"]
)
async def test_a_signal_ends_it_with_its_report(
    cli: CommandLine,
    upstream_process: UpstreamProcessFactory,
    tmp_path: Path,
    number: int,
    status: int,
) -> None:
    small = {"repository": "small{n}", "count": 4}
    upstream = await upstream_process(
        settings={"limit": 1000}, images=[small, {**SIX, "count": 3}], faults=slowly(2 * MIB)
    )
    references = upstream.references()
    listed = write_list(tmp_path / "images.txt", references)
    words = ("sync", listed, "--platform", "all", "-o", "json")

    process = await cli.start(*words)
    await ingest_of(cli, 300_000)
    process.send_signal(number)
    ended = await finish(process)

    assert ended.code == status, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.json["outcome"] == "interrupted"
    assert [image["reference"] for image in ended.json["images"]] == references
    synced = {i["reference"] for i in ended.json["images"] if i["outcome"] == "synced"}
    assert synced
    assert warm_names(cli.cache) == synced
    assert {each[0] for each in await inventory(cli) if each[3]} == synced
    assert ended.json["totals"]["pulls"] == upstream.pulls
    kept = ingest_sizes(cli)
    assert kept
    pulls = upstream.pulls

    again = await cli(*words)

    assert again.code == 0, again.stderr
    assert again.json["totals"]["synced"] == len(references) - len(synced)
    assert upstream.pulls <= 7 * 3 + IN_FLIGHT
    assert upstream.pulls == pulls + again.json["totals"]["pulls"]
    starts = [request["range"] for request in upstream.requests() if request["kind"] == "cdn"]
    for size in kept.values():
        assert f"bytes={size}-" in starts


async def ingest_of(cli: CommandLine, size: int) -> None:
    """Wait until some blob under way has come to `size` bytes."""
    async with asyncio.timeout(30):
        while max(ingest_sizes(cli).values(), default=0) <= size:
            await asyncio.sleep(0.02)


async def test_a_second_signal_ends_it_at_once(
    cli: CommandLine, upstream_process: UpstreamProcessFactory
) -> None:
    upstream = await upstream_process(images=[{**SIX, "count": 1}], faults=slowly(MIB))
    [reference] = upstream.references()

    process = await cli.start("sync", "--image", reference, "--platform", "all")
    await ingest_of(cli, 100_000)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    ended = await finish(process, timeout=5)

    assert ended.code == 130
