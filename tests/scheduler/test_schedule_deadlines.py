"""Entries of the schedule that have a deadline, as processes."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
    assert (said["verdict"], said["level"], said["late"]) == ("feasible", "info", 0)
    assert said["pulls_max"] == 8
    by = datetime.fromisoformat(said["by"])
    assert (by.astimezone(UTC).hour, by.astimezone(UTC).minute) == (21, 15)
    (first,) = await running.wait_for("sync ended")
    assert (first["outcome"], first["synced"], first["deferred"]) == ("deferred", 3, 5)
    (listed,) = (await cli("--config", config, "schedule", "--list", "-o", "json")).json
    assert (listed["by_at"], listed["lead"]) == (said["by"], 86400.0)
    (ended,) = await running.wait_for("sync ended", outcome="complete")
    assert ended["deadline_met"] is True
    assert {line["by"] for line in running.of("deadline")} == {said["by"]}
    assert sum(line["pulls"] for line in running.of("sync ended")) == upstream.pulls == 8
    assert running.of("pulls spread") == []
    past = past_runs(cli, "drain")
    assert (past[0], past[-1]) == (("first", "deferred"), ("retry", "complete"))
    # The next one comes so long ahead of it.
    (planned,) = await running.wait_for("scheduled", cause="tick")
    assert by - datetime.fromisoformat(planned["at"]) == timedelta(days=1)
    table = await cli("--config", config, "schedule", "--list")
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
    await again.wait_for("sync ended", outcome="complete")
    # So near to the reserve pulls go one by one, and one may have been under way.
    assert 8 <= upstream.pulls <= 9
    assert past_runs(cli, "drain")[0][0] == "first"
    assert await again.end() == 0


async def test_sources_that_are_not_there_yet_are_looked_for_again(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[EIGHT])
    async with Receiver() as receiver:
        hooks = [{"name": "ops", "url": receiver.url, "events": ["deadline_missed"]}]
        lacking = {**DRAIN, "sources": ["later.txt"]}
        config = write_schedule(tmp_path, upstream, lacking, notify=hooks)
        running = await start(config)
        await running.wait_for("sync failed")
        (again,) = await running.wait_for("scheduled", cause="resumed")
        told = await receiver.wait_for("deadline_missed")
        assert await running.end() == 0
    assert "The scheduled sync drain will not be warm by 20" in told.json["text"]
    assert (told.json["facts"]["count"], told.json["facts"]["images"]) == (0, [])
    pause = datetime.fromisoformat(again["at"]) - datetime.fromisoformat(again["time"])
    assert timedelta(seconds=50) < pause <= timedelta(seconds=60)
    (tmp_path / "images.txt").rename(tmp_path / "later.txt")
    turn_back(cli, 61)
    later = await start(config)
    (ended,) = await later.wait_for("sync ended")
    assert (ended["synced"], ended["deadline_met"]) == (8, True)
    assert past_runs(cli, "drain") == [("first", "failed"), ("resumed", "complete")]
    assert await later.end() == 0


async def test_what_it_could_not_know_of_is_part_of_the_next_attempt(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[EIGHT])
    names = upstream.references()
    (tmp_path / "some.txt").write_text("\n".join([*names[:4], "no:such:name"]))
    config = write_schedule(tmp_path, upstream, {**DRAIN, "sources": ["some.txt"]})
    running = await start(config)
    (ended,) = await running.wait_for("sync ended")
    assert (ended["outcome"], ended["synced"], ended["deadline_met"]) == ("failed", 4, False)
    assert await running.end() == 0
    (tmp_path / "some.txt").write_text("\n".join(names))
    turn_back(cli, 61)
    later = await start(config)
    (ended,) = await later.wait_for("sync ended")
    assert (ended["synced"], ended["unchanged"], ended["deadline_met"]) == (4, 4, True)
    assert await later.end() == 0


async def test_a_deadline_that_passed_while_nobody_was_there_is_told_of(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 3, "window": 3600}, images=[EIGHT])
    config = write_schedule(tmp_path, upstream, DRAIN)
    running = await start(config)
    (said,) = await running.wait_for("deadline")
    await running.wait_for("sync ended", outcome="deferred")
    assert await running.end() == 0
    turn_back(cli, 366 * 86400)
    later = await start(config)
    (missed,) = await later.wait_for("deadline missed", reason="that time has come")
    assert missed["images"] == 5
    assert timedelta() < datetime.fromisoformat(said["by"]) - datetime.fromisoformat(missed["by"])
    assert await later.end() == 0


async def test_what_cannot_be_is_said_and_told_and_done_as_far_as_it_goes(
    upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 3, "window": 3600}, images=[EIGHT])
    entry: dict[str, Any] = {"name": "drain", "by": "* * * * *", "lead": "10s"}
    async with Receiver() as receiver:
        hooks = [{"name": "ops", "url": receiver.url, "events": ["deadline_missed"]}]
        config = write_schedule(tmp_path, upstream, entry, notify=hooks)
        # Whatever is left of this minute suffices for what there is.
        if datetime.now(UTC).second > 40:
            await asyncio.sleep(61 - datetime.now(UTC).second)
        running = await start(config)
        (said,) = await running.wait_for("deadline")
        assert (said["verdict"], said["level"]) == ("impossible", "warning")
        # Nobody knows yet that a GET costs a whole pull here.
        assert (said["lacking_pulls"], said["late"]) == (2, 5)
        changes = {line["change"]: line for line in running.of("would do", run=said["run"])}
        assert changes["alternate"]["pulls_saved"] == 8
        assert changes["images"]["images"] == 5
        told = await receiver.wait_for("deadline_missed")
        assert told.json["entry"] == "drain"
        (ended,) = await running.wait_for("sync ended")
        assert (ended["outcome"], ended["synced"], ended["deferred"]) == ("deferred", 3, 5)
        # Ahead of the next minute it is tried again.
        await running.wait_for("scheduled", cause="tick")
        assert await running.end() == 0
    assert upstream.pulls == 3
