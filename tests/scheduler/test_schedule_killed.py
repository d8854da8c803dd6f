"""Two minutes of a schedule in real time, its process killed at random moments."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from scheduling import NEVER_SOON, Scheduling, write_schedule

from support.factories import UpstreamProcessFactory
from support.history import PastRun, past_runs_of, pulls_at
from support.processes import CommandLine

WINDOW = 60.0
SECONDS = 130.0
PROMPT = 5.0
EVERY = 20.0
ORDER = {"repository": "app{n}", "count": 8, "single": True, "layers": 1, "layer_size": 200_000}
LISTED = {"repository": "base", "tags": ("1", "2"), "single": True, "layers": 1}
# Long enough for kills to come in the middle of runs.
SLOW = {"name": "slow", "kind": "cdn", "count": None, "bytes_per_second": 200_000}


async def live(cli: CommandLine, config: Path, dice: random.Random) -> list[tuple[float, float]]:
    """Keep the schedule for its time, killed at random and started again; returns when it was down,
    which includes the time that a busy machine takes to start it."""
    down, end = [], time.time() + SECONDS
    running = await Scheduling.start(cli, config)
    try:
        await running.wait_for("scheduled", 3)
        while (lives := dice.uniform(2, 20)) < end - time.time():
            await asyncio.sleep(lives)
            await running.end(signal.SIGKILL)
            killed = time.time()
            running = await Scheduling.start(cli, config)
            await running.wait_for("scheduled", 3)
            down.append((killed, time.time()))
        await asyncio.sleep(max(0, end - time.time()))
        assert await running.end() == 0
    finally:
        await running.end(signal.SIGKILL)
    return down


@pytest.mark.long
@pytest.mark.timeout(400)
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

    down = await live(cli, config, dice)

    runs, at = past_runs_of(cli.data_dir), pulls_at(upstream)
    tell(kind, down, runs, at)
    assert len(down) >= 4
    requests = upstream.requests()
    assert all(request["status"] != 429 for request in requests)
    # Each image is pulled once, whatever was killed.
    counted = Counter(request["repository"] for request in requests if request["counted"])
    assert counted == {f"app{number}": 1 for number in range(8)}
    for entry in ("limited", "often", "minutely"):
        assert_one_at_a_time([run for run in runs if run.entry == entry], down)
    assert_on_time([run for run in runs if run.entry == "often"], EVERY, down)
    assert_on_time([run for run in runs if run.entry == "minutely"], 60.0, down)
    # What was put off comes within seconds of its budget's return, or of that of the process.
    for number, came in enumerate(at[4:], start=4):
        returned = at[0 if kind == "fixed" else number - 4] + WINDOW
        there = [ready for killed, ready in down if killed < came and ready > returned]
        assert came - returned >= 0
        assert came - max([returned, *there]) <= PROMPT, (number, came - returned)


def assert_one_at_a_time(runs: list[PastRun], down: list[tuple[float, float]]) -> None:
    """One that has no end was killed, and the next one goes on with it."""
    for one, following in itertools.pairwise(runs):
        killed = [moment for moment, _ in down if moment > one.began]
        assert (one.ended or killed[0]) <= following.began
        assert (following.cause == "resumed") == (one.outcome is None)
    assert runs[0].cause == "first"
    assert "complete" in {run.outcome for run in runs}


def assert_on_time(runs: list[PastRun], step: float, down: list[tuple[float, float]]) -> None:
    """Each run is a step after the one before, neither sooner nor, standstills apart, later."""
    for one, following in itertools.pairwise(runs):
        if following.cause == "resumed":
            continue
        due = one.began + step if step == EVERY else ((one.ended or 0) // step + 1) * step
        there = [ready for killed, ready in down if killed < following.began and ready > due]
        assert due <= following.began <= max([due, *there]) + PROMPT, (one, following)


def tell(kind: str, down: list[tuple[float, float]], runs: list[PastRun], at: list[float]) -> None:
    """What is to be seen when it fails, or with -s."""
    print(f"\n{kind}: down", [(round(a - at[0], 1), round(b - at[0], 1)) for a, b in down])
    print("pulls", [round(moment - at[0], 1) for moment in at])
    for run in runs:
        ended = None if run.ended is None else round(run.ended - at[0], 1)
        print(run.entry, run.cause, round(run.began - at[0], 1), ended, run.outcome, run.pulls)
