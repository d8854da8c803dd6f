"""Two minutes of a schedule in real time, its process killed at random moments."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scheduling import NEVER_SOON, Scheduling, write_schedule

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine

WINDOW = 60.0
SECONDS = 130.0
PROMPT = 5.0
EVERY = 20.0
ORDER = {"repository": "app{n}", "count": 8, "single": True, "layers": 1, "layer_size": 200_000}
LISTED = {"repository": "base", "tags": ("1", "2"), "single": True, "layers": 1}
# Long enough for kills to come in the middle of runs.
SLOW = {"name": "slow", "kind": "cdn", "count": None, "bytes_per_second": 200_000}


@dataclass(frozen=True, slots=True)
class Run:
    """A row of the history; its moments are the steady clock's, as the upstream's log has them."""

    entry: str
    cause: str
    began: float
    ended: float | None
    outcome: str | None


def runs_of(cli: CommandLine) -> list[Run]:
    ahead = time.time() - time.monotonic()
    with closing(sqlite3.connect(cli.data_dir / "prefetch.db", timeout=10)) as database:
        rows = database.execute(
            "SELECT entry, cause, started_at, finished_at, outcome FROM runs ORDER BY id"
        ).fetchall()
    return [
        Run(entry, cause, began - ahead, None if ended is None else ended - ahead, outcome)
        for entry, cause, began, ended, outcome in rows
    ]


async def live(cli: CommandLine, config: Path, dice: random.Random) -> list[float]:
    """Keep the schedule for its time, killed and started again; returns when it was down."""
    loop, killed = asyncio.get_running_loop(), []
    end = loop.time() + SECONDS
    while True:
        running = await Scheduling.start(cli, config)
        lives = dice.uniform(4, 22)
        if loop.time() + lives > end:
            await asyncio.sleep(max(0, end - loop.time()))
            assert await running.end() == 0
            return killed
        await asyncio.sleep(lives)
        await running.end(signal.SIGKILL)
        killed.append(time.monotonic())


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fixed", "rolling"])
async def test_killed_at_random_it_runs_each_once_and_comes_back_with_the_window(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, kind: str
) -> None:
    dice = random.Random(f"{kind} 7")
    settings = {"limit": 4, "window": WINDOW, "window_kind": kind}
    upstream = await upstream_process(settings=settings, images=[ORDER], faults=[SLOW])
    free = await upstream_process(settings={"limit": None}, images=[LISTED])
    (tmp_path / "free.txt").write_text("\n".join(free.references()))
    config = write_schedule(
        tmp_path,
        upstream,
        {"name": "limited", "cron": NEVER_SOON, "timezone": "UTC"},
        {"name": "often", "every": EVERY, "sources": ["free.txt"]},
        {"name": "minutely", "cron": "* * * * *", "sources": ["free.txt"]},
    )

    killed = await live(cli, config, dice)

    runs, requests = runs_of(cli), upstream.requests()
    tell(kind, killed, runs, requests)
    assert len(killed) >= 5
    assert [request for request in requests if request["status"] == 429] == []
    # Each image is pulled once, whatever was killed.
    pulls = [request for request in requests if request["counted"]]
    assert Counter(request["repository"] for request in pulls) == {f"app{n}": 1 for n in range(8)}

    # No two runs of an entry at a time: one that has no end was killed before the next began.
    for entry in ("limited", "often", "minutely"):
        own = [run for run in runs if run.entry == entry]
        for one, following in itertools.pairwise(own):
            ended = one.ended or next(kill for kill in killed if kill > one.began)
            assert ended <= following.began
            assert (following.cause == "resumed") == (one.outcome in (None, "interrupted"))
        assert own[0].cause == "first"
        assert own[-1].outcome == "complete"

    # Each tick once: between two there is the interval, or a standstill.
    for entry, step in (("often", EVERY), ("minutely", 60.0)):
        ticks = [run for run in runs if run.entry == entry and run.cause in ("tick", "missed")]
        assert len(ticks) == pytest.approx(SECONDS / step, abs=2)
    minutes = [
        int((run.began + time.time() - time.monotonic()) // 60)
        for run in runs
        if (run.entry, run.cause) == ("minutely", "tick")
    ]
    assert len(set(minutes)) == len(minutes)

    # What was put off comes within seconds of its budget's return, unless the process is down.
    at = [request["started"] for request in pulls]
    for number, came in enumerate(at[4:], start=4):
        returned = at[0 if kind == "fixed" else number - 4] + WINDOW
        down = [kill for kill in killed if returned - PROMPT < kill < came]
        assert 0 <= came - returned <= PROMPT * (1 + len(down)), (number, came - returned, down)


def tell(kind: str, killed: list[float], runs: list[Run], requests: list[dict[str, Any]]) -> None:
    """What is to be seen when it fails, or with -s."""
    pulls = [request["started"] for request in requests if request["counted"]]
    print(f"\n{kind}: killed at", [round(kill - pulls[0], 1) for kill in killed])
    print("pulls at", [round(moment - pulls[0], 1) for moment in pulls])
    for run in runs:
        ended = None if run.ended is None else round(run.ended - pulls[0], 1)
        print(run.entry, run.cause, round(run.began - pulls[0], 1), ended, run.outcome)
