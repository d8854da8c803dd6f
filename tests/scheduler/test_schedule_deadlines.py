"""Entries of the schedule that have a deadline, as processes."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scheduling import NEVER_SOON, Start, past_runs, turn_back, write_schedule

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine
from support.receiver import Receiver

EIGHT = {"repository": "app{n}", "count": 8, "single": True, "layers": 1}
DRAIN = {"name": "drain", "by": NEVER_SOON, "timezone": "Asia/Kathmandu"}


async def test_it_says_what_can_be_promised_and_goes_on_until_all_is_warm(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 3, "window": 6}, images=[EIGHT])
    # Whatever the registry's pace, a deadline is for spending at once.
    registries = {upstream.address: {"reserve": 0, "pace": "smooth"}}
    config = write_schedule(tmp_path, upstream, DRAIN, registries=registries)
    running = await start(config)
    (said,) = await running.wait_for("deadline")
    assert upstream.pulls == 0 or said["pulls_max"] == 8
    assert (said["verdict"], said["level"], said["late"]) == ("feasible", "info", 0)
    by = datetime.fromisoformat(said["by"])
    assert (by.astimezone(UTC).hour, by.astimezone(UTC).minute) == (21, 15)
    (listed,) = (await cli("--config", config, "schedule", "--list", "-o", "json")).json
    assert (listed["running"], listed["by_at"], listed["lead"]) == (True, said["by"], 86400.0)
    (ended,) = await running.wait_for("sync ended")
    assert (ended["outcome"], ended["synced"], ended["pulls"]) == ("complete", 8, 8)
    assert ended["deadline_met"] is True
    assert running.of("pulls spread") == []
    assert past_runs(cli, "drain") == [("first", "complete")]
    # The next one comes so long ahead of it.
    (planned,) = await running.wait_for("scheduled", cause="tick")
    assert by - datetime.fromisoformat(planned["at"]) == timedelta(days=1)
    table = await cli("--config", config, "schedule", "--list")
    assert table.stdout.splitlines()[0].split("  ")[0] == "ENTRY"
    assert "WARM BY" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80
    assert await running.end() == 0


async def test_killed_it_goes_on_by_the_same_moment_and_pays_nothing_twice(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 3, "window": 6}, images=[EIGHT])
    config = write_schedule(tmp_path, upstream, DRAIN)
    running = await start(config)
    (said,) = await running.wait_for("deadline")
    await running.end(signal.SIGKILL)
    again = await start(config)
    (later,) = await again.wait_for("deadline")
    assert later["by"] == said["by"]
    (ended,) = await again.wait_for("sync ended")
    assert ended["outcome"] == "complete"
    assert upstream.pulls == 8
    assert past_runs(cli, "drain") == [("first", None), ("resumed", "complete")]
    assert await again.end() == 0


async def test_stopped_it_ends_in_order(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 3, "window": 600}, images=[EIGHT])
    running = await start(write_schedule(tmp_path, upstream, DRAIN))
    await running.wait_for("deadline")
    assert await running.end() == 0
    assert [line["outcome"] for line in running.of("sync ended")] == ["interrupted"]
    assert past_runs(cli, "drain") == [("first", "interrupted")]


async def test_sources_that_are_not_there_yet_are_looked_for_again(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[EIGHT])
    config = write_schedule(tmp_path, upstream, {**DRAIN, "sources": ["later.txt"]})
    # Once it knew of one image, which is gone.
    (tmp_path / "later.txt").write_text(f"{upstream.address}/gone:1")
    before = await start(config)
    await before.wait_for("sync ended", outcome="failed")
    await before.end()
    (tmp_path / "later.txt").unlink()
    turn_back(cli, 20 * 366 * 86400 + 3600)
    running = await start(config)
    await running.wait_for("sync failed", entry="drain")
    (again,) = await running.wait_for("scheduled", cause="retry")
    assert await running.end() == 0
    pause = datetime.fromisoformat(again["at"]) - datetime.fromisoformat(again["time"])
    assert timedelta(seconds=55) < pause <= timedelta(seconds=60)
    (tmp_path / "images.txt").rename(tmp_path / "later.txt")
    turn_back(cli, 61)
    later = await start(config)
    (ended,) = await later.wait_for("sync ended")
    assert (ended["synced"], ended["deadline_met"]) == (8, True)
    assert past_runs(cli, "drain") == [
        ("first", "failed"),
        ("missed", "failed"),
        ("retry", "complete"),
    ]
    assert await later.end() == 0


@pytest.mark.long  # a deadline is a whole minute
async def test_what_cannot_be_is_said_and_told_and_done_as_far_as_it_goes(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 3, "window": 3600}, images=[EIGHT])
    entry: dict[str, Any] = {"name": "drain", "by": "* * * * *", "lead": "10s"}
    async with Receiver() as receiver:
        hooks = [{"name": "ops", "url": receiver.url, "events": ["deadline_missed"]}]
        config = write_schedule(tmp_path, upstream, entry, notify=hooks)
        # Whatever is left of this minute suffices for what there is.
        if datetime.now(UTC).second > 35:
            await asyncio.sleep(61 - datetime.now(UTC).second)
        running = await start(config)
        (said,) = await running.wait_for("deadline")
        by = datetime.fromisoformat(said["by"])
        assert (said["verdict"], said["level"]) == ("impossible", "warning")
        # Nobody knows yet that a GET costs a whole pull here.
        assert (said["lacking_pulls"], said["late"]) == (2, 5)
        changes = {line["change"]: line for line in running.of("would do", run=said["run"])}
        assert changes["alternate"]["pulls_saved"] == 8
        assert changes["images"]["images"] == 5
        told = await receiver.wait_for("deadline_missed")
        assert told.json["entry"] == "drain"
        (ended,) = await running.wait_for("sync ended", patience=80)
        assert (ended["outcome"], ended["synced"], ended["deferred"]) == ("deferred", 3, 5)
        assert ended["deadline_met"] is False
        assert 0 <= (datetime.fromisoformat(ended["time"]) - by).total_seconds() < 5
        assert await running.end() == 0
    assert upstream.pulls == 3
