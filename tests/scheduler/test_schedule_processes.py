"""Schedules as processes, against an upstream whose window is seconds long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from scheduling import NEVER_SOON, Start, past_runs, turn_back, write_schedule

from support.cache import Cache, ServeFactory
from support.factories import UpstreamProcessFactory
from support.processes import CommandLine

NIGHTLY = {"name": "nightly", "cron": NEVER_SOON, "timezone": "UTC"}
DAILY = {"name": "nightly", "cron": "0 3 * * *", "timezone": "UTC"}
WINDOW = 4.0
MIB = 1 << 20
FOUR = {"repository": "app{n}", "count": 4, "single": True, "layers": 1}
INDEX = {"repository": "app", "layers": 1}
SLOW = {"name": "slow", "kind": "cdn", "count": None, "bytes_per_second": MIB}


async def until(done: Callable[[], Any]) -> Any:
    async with asyncio.timeout(30):
        while not (found := done()):
            await asyncio.sleep(0.05)
    return found


def under_way(cli: CommandLine) -> int:
    """Bytes on disk of blobs that are not whole yet."""
    found = 0
    for each in (cli.data_dir / "ingest").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # it is whole by now
            found += each.stat().st_size
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


# ── prefetch schedule ───────────────────────────────────────────────────────────────────────────


async def test_what_was_put_off_comes_when_the_window_returns_and_survives_a_kill(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 2, "window": WINDOW}, images=[FOUR])
    config = write_schedule(tmp_path, upstream, NIGHTLY)
    first = await start(config)
    (ended,) = await first.wait_for("sync ended", entry="nightly")
    assert (ended["outcome"], ended["synced"], ended["deferred"]) == ("deferred", 2, 2)
    assert (ended["pulls"], ended["failed"], ended["unchanged"]) == (2, 0, 0)
    assert ended["bytes"] > 0
    assert await first.end(signal.SIGKILL) == -signal.SIGKILL

    second = await start(config)
    (again,) = await second.wait_for("sync ended", entry="nightly")
    # It has asked for what was put off, and for nothing else.
    assert (again["outcome"], again["synced"], again["unchanged"]) == ("complete", 2, 0)
    assert "retry_at" not in again
    assert await second.end() == 0

    assert past_runs(cli, "nightly") == [("first", "deferred"), ("retry", "complete")]
    told = await cli("runs", "latest", "-o", "json")
    assert [image["outcome"] for image in told.json["references"]] == ["synced", "synced"]
    pulls = [each for each in upstream.requests() if each["counted"]]
    assert len(pulls) == upstream.pulls == 4
    # No tick comes for months: the window's return alone has brought it.
    waited = pulls[2]["started"] - pulls[0]["started"]
    assert WINDOW <= waited <= WINDOW + 5.0


async def test_an_entry_at_a_smooth_pace_spreads_its_pulls(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    settings = {"limit": 6, "window": 3 * WINDOW}
    upstream = await upstream_process(settings=settings, images=[FOUR])
    scheduling = await start(write_schedule(tmp_path, upstream, {**NIGHTLY, "pace": "smooth"}))
    (spread,) = await scheduling.wait_for("pulls spread", entry="nightly")
    (ended,) = await scheduling.wait_for("sync ended", entry="nightly")
    assert ended["synced"] == 4
    assert spread["pulls"] >= 4
    moments = sorted(each["started"] for each in upstream.requests() if each["counted"])
    # Four of at most six in twelve seconds: the last one comes after half of that.
    assert moments[3] - moments[0] >= 4.0
    assert await scheduling.end() == 0


async def test_a_missed_run_is_caught_up_once(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[FOUR])
    config = write_schedule(tmp_path, upstream, DAILY)
    running = await start(config)
    await running.wait_for("sync ended", cause=None)
    await running.end(signal.SIGKILL)
    turn_back(cli, 50 * 3600)

    for _ in range(3):
        running = await start(config)
        # When it waits for a tick, all that was due has been run.
        await running.wait_for("scheduled", cause="tick")
        await running.end(signal.SIGKILL)
    assert past_runs(cli, "nightly") == [("first", "complete"), ("missed", "complete")]


async def test_two_on_one_state_run_an_entry_once(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(
        settings={"limit": None}, images=[FOUR], faults=[{**SLOW, "bytes_per_second": 4000}]
    )
    config = write_schedule(tmp_path, upstream, NIGHTLY, {**NIGHTLY, "name": "other"})
    both = [await start(config), await start(config)]
    for each in both:
        await each.wait_for("scheduled", 2)
    await until(lambda: sum(len(each.of("sync ended")) for each in both) == 2)
    for each in both:
        assert await each.end(signal.SIGINT) == 0
    for entry in ("nightly", "other"):
        assert past_runs(cli, entry) == [("first", "complete")]
    assert upstream.pulls == 4


async def test_told_to_stop_it_cuts_a_sync_short_and_goes_on_later(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    images = [{**FOUR, "count": 1, "layer_size": 4 * MIB}]
    upstream = await upstream_process(settings={"limit": None}, images=images, faults=[SLOW])
    config = write_schedule(tmp_path, upstream, NIGHTLY)
    running = await start(config)
    await until(lambda: under_way(cli) >= MIB // 2)
    began = asyncio.get_running_loop().time()
    assert await running.end() == 0
    assert asyncio.get_running_loop().time() - began < 5
    (ended,) = running.of("sync ended")
    assert (ended["outcome"], ended["deferred"], ended["pulls"]) == ("interrupted", 1, 1)
    assert past_runs(cli, "nightly") == [("first", "interrupted")]

    upstream.ask("faults", method="DELETE")
    running = await start(config)
    (again,) = await running.wait_for("sync ended")
    assert (again["outcome"], again["pulls"]) == ("complete", 0)
    assert again["bytes"] < 4 * MIB
    assert await running.end() == 0
    assert past_runs(cli, "nightly")[1:] == [("resumed", "complete")]


async def test_what_fails_is_named_and_ends_nothing(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[FOUR])
    lacking = {**NIGHTLY, "name": "lacking", "sources": ["none.txt"]}
    wrong = {**NIGHTLY, "name": "wrong", "sources": ["wrong.txt"]}
    (tmp_path / "wrong.txt").write_text(f"{upstream.address}/app0:none\n")
    config = write_schedule(tmp_path, upstream, lacking, wrong, NIGHTLY)
    running = await start(config)
    await running.wait_for("sync ended", entry="nightly", outcome="complete")
    (failed,) = await running.wait_for("sync failed", entry="lacking")
    assert failed["reason"].startswith("no such file: ")
    (named,) = await running.wait_for("image failed", entry="wrong")
    assert (named["reference"], named["code"]) == (f"{upstream.address}/app0:none", "NOT_FOUND")
    await running.wait_for("sync ended", entry="wrong", outcome="failed", level="warning")
    assert await running.end() == 0
    listed = await cli("--config", config, "schedule", "--list", "-o", "json")
    assert listed.code == 0, listed.stderr
    assert [each["last"]["outcome"] for each in listed.json] == ["failed", "failed", "complete"]


async def test_the_configuration_is_read_again_and_a_bad_one_refused(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[FOUR])
    config = write_schedule(tmp_path, upstream, NIGHTLY)
    running = await start(config)
    await running.wait_for("scheduled", cause="tick")
    good = config.read_text()
    config.write_text(good.replace("nightly", "daily").replace(NEVER_SOON, "61 * * * *"))
    running.process.send_signal(signal.SIGHUP)
    (refused,) = await running.wait_for("the configuration is not used")
    assert "schedule.0.cron: expected a minute from 0 to 59" in refused["reason"]
    config.write_text(good.replace("{", f'{{"data_dir": "{tmp_path}/elsewhere", ', 1))
    running.process.send_signal(signal.SIGHUP)
    # --data-dir goes before the file's.
    await running.wait_for("configuration reloaded")
    config.write_text(good.replace("nightly", "daily"))
    running.process.send_signal(signal.SIGHUP)
    await running.wait_for("sync ended", entry="daily")
    assert await running.end() == 0
    assert past_runs(cli, "daily") == [("first", "complete")]
    assert past_runs(cli, "nightly") == [("first", "complete")]


async def test_a_changed_file_is_read_again_whoever_changed_it(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[FOUR])
    good = write_schedule(tmp_path, upstream, NIGHTLY).read_text().replace("images.txt", "../list")
    (tmp_path / "list").write_text("\n".join(upstream.references()))

    def named(name: str) -> str:
        return good.replace("nightly", name)

    # As kubelets mount a ConfigMap: config/prefetch.yaml -> ..data/prefetch.yaml, ..data -> ..1.
    mounted = tmp_path / "config"
    mounted.mkdir()
    config = mounted / "prefetch.yaml"
    for number, name in enumerate(("first", "second")):
        (mounted / f"..{number}").mkdir()
        (mounted / f"..{number}" / "prefetch.yaml").write_text(named(name))
    (mounted / "..data").symlink_to("..0")
    config.symlink_to("..data/prefetch.yaml")
    running = await start(config)
    await running.wait_for("scheduled", entry="first", cause="tick")

    (mounted / "..new").symlink_to("..1")
    (mounted / "..new").rename(mounted / "..data")
    await running.wait_for("sync ended", entry="second")
    # As editors save: another file, renamed over it.
    (mounted / "new").write_text(named("third"))
    (mounted / "new").rename(config)
    await running.wait_for("sync ended", entry="third")
    # Bad ones are refused, once each, and what was before goes on.
    config.write_text(named("bad").replace(NEVER_SOON, "61 * * * *"))
    (refused,) = await running.wait_for("the configuration is not used")
    assert "schedule.0.cron: expected a minute from 0 to 59" in refused["reason"]
    await asyncio.sleep(5)
    assert len(running.of("the configuration is not used")) == 1
    config.unlink()
    (_, gone) = await running.wait_for("the configuration is not used", 2)
    assert gone["reason"] == f"{config}: cannot be read: No such file or directory"
    config.write_text(named("third"))
    # It is as it was: there is nothing to tell. It may come in pieces, too.
    await asyncio.sleep(5)
    assert len(running.of("configuration reloaded")) == 2
    with config.open("w") as file:
        text = named("fourth")
        for piece in (text[:40], text[40:90], text[90:]):
            file.write(piece)
            file.flush()
            await asyncio.sleep(1)
    await running.wait_for("sync ended", entry="fourth")
    assert len(running.of("the configuration is not used")) == 2
    assert await running.end() == 0


async def test_told_to_stop_before_it_has_begun_it_is_done(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[FOUR])
    config = write_schedule(tmp_path, upstream, NIGHTLY)
    for number in range(8):
        process = await cli.start("--config", config, "schedule")
        try:
            # Python itself takes some of this to start; from then on each moment is as good.
            status = Path(f"/proc/{process.pid}/status")
            await until(lambda status=status: catches_sigterm(status.read_text()))  # type: ignore[misc]
            assert number or not cli.data_dir.exists()
            await asyncio.sleep(number * 0.1)
            process.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()


def catches_sigterm(status: str) -> bool:
    """Whether a process has a handler for it (proc_pid_status(5), SigCgt)."""
    mask = re.search(r"SigCgt:\s*(\S+)", status)
    return mask is not None and bool(int(mask[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_entries_come_by_intervals_and_for_platforms_of_their_own(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[INDEX])
    (tmp_path / "named.yaml").write_text(
        f"images: [{{repository: {upstream.address}/app, tags: {{names: [latest]}}, "
        "platforms: [linux/arm64]}]"
    )
    often = {"name": "often", "every": "2s", "platforms": ["linux/amd64"]}
    named = {
        "name": "named",
        "every": 3600,
        "platforms": ["linux/amd64"],
        "sources": ["named.yaml"],
    }
    config = write_schedule(tmp_path, upstream, often, named)
    running = await start(config)
    await running.wait_for("sync ended", entry="named")
    await running.wait_for("sync ended", 3, entry="often")
    began = [moment(line["time"]) for line in running.of("sync", entry="often")]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(began)]
    assert all(1.9 <= gap <= 3.5 for gap in gaps), gaps
    assert [line["cause"] for line in running.of("sync", entry="often")][:3] == [
        "first",
        "tick",
        "tick",
    ]
    listed = await cli("--config", config, "schedule", "--list", "-o", "json")
    first, second = listed.json
    assert (first["cron"], first["every"], first["timezone"]) == (None, 2.0, None)
    assert first["platforms"] == second["platforms"] == ["linux/amd64"]
    table = await cli("--config", config, "schedule", "--list")
    assert max(map(len, table.stdout.splitlines())) <= 80
    assert await running.end() == 0
    for entry, platform in (("often", "linux/amd64"), ("named", "linux/arm64")):
        run = (await running_of(cli, entry))[-1]
        shown = (await cli("runs", run, "-o", "json")).json
        # What the list itself says goes first, as with --platform.
        assert shown["references"][0]["platforms"] == [platform]


async def running_of(cli: CommandLine, entry: str) -> list[str]:
    """The ids of an entry's runs."""
    return [
        run["run_id"] for run in (await cli("runs", "-o", "json")).json if run["entry"] == entry
    ]


async def test_without_a_schedule_there_is_one_clear_line(cli: CommandLine, tmp_path: Path) -> None:
    for words in (["schedule"], ["schedule", "--list", "-o", "json"]):
        result = await cli(*words)
        assert (result.code, result.stdout) == (2, "")
        assert result.stderr.startswith("prefetch: there is no schedule and no configuration file")
        assert result.stderr.count("\n") == 1
    config = tmp_path / "other.yaml"
    config.write_text("sources: [a]\n")
    result = await cli("--config", config, "schedule")
    assert (result.code, result.stdout) == (2, "")
    assert f"there is no schedule in {config}" in result.stderr
    assert (await cli("--config", config, "schedule", "-o", "json")).code == 2


@pytest.mark.long
async def test_the_clocks_minute_is_a_tick(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[FOUR])
    config = write_schedule(tmp_path, upstream, {**NIGHTLY, "cron": "* * * * *"})
    running = await start(config)
    async with asyncio.timeout(90):
        while not running.of("sync", cause="tick"):
            await asyncio.sleep(0.1)
    assert moment(running.of("sync", cause="tick")[0]["time"]).second < 2
    assert await running.end() == 0


# ── prefetch serve ──────────────────────────────────────────────────────────────────────────────


def children(cache: Cache) -> list[int]:
    """The processes that the supervisor has, the oldest first."""
    found = Path(f"/proc/{cache.pid}/task/{cache.pid}/children").read_text().split()
    return sorted(map(int, found))


def descriptors(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(each) for each in folder.iterdir() if each.is_symlink()]


Scheduled = Callable[..., Awaitable[tuple[Cache, Path]]]


@pytest.fixture
def scheduled(
    serve: ServeFactory, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> Scheduled:
    """`cache, config = await scheduled(DAILY)`: it serves, and has done what was due at once."""

    async def start(*entries: Mapping[str, Any]) -> tuple[Cache, Path]:
        upstream = await upstream_process(settings={"limit": None}, images=[FOUR])
        config = write_schedule(tmp_path, upstream, *entries)
        cache = await serve(config=config)
        await until(lambda: "cause=tick" in cache.log)
        return cache, config

    return start


async def test_serve_runs_the_schedule_and_does_without_it(
    scheduled: Scheduled, cli: CommandLine
) -> None:
    cache, _ = await scheduled(DAILY)
    assert past_runs(cli, "nightly") == [("first", "complete")]
    worker, scheduler = children(cache)
    # It has no share in the port.
    assert len([each for each in descriptors(worker) if each.startswith("socket:")]) > len(
        [each for each in descriptors(scheduler) if each.startswith("socket:")]
    )
    turn_back(cli, 50 * 3600)
    os.kill(scheduler, signal.SIGKILL)
    # The next one finds what has been missed meanwhile.
    await until(lambda: past_runs(cli, "nightly")[1:] == [("missed", "complete")])
    assert "[info] scheduler died status=-9 restart_in=" in cache.log
    assert "worker died" not in cache.log
    assert cache.get("/readyz")[0] == cache.get("/healthz")[0] == 200
    assert worker in children(cache)
    page = cache.get("/metrics")[2].decode()
    assert 'prefetch_schedule_runs_total{entry="nightly",outcome="complete"} 2.0' in page
    (found,) = re.findall(r'last_success_timestamp_seconds\{entry="nightly"\} (\S+)', page)
    assert abs(float(found) - time.time()) < 30


async def test_a_scheduler_that_is_started_again_has_the_configuration_of_now(
    scheduled: Scheduled, cli: CommandLine
) -> None:
    cache, config = await scheduled(NIGHTLY)
    config.write_text(config.read_text().replace("nightly", "daily"))
    os.kill(cache.pid, signal.SIGHUP)
    await until(lambda: past_runs(cli, "daily") == [("first", "complete")])
    config.write_text("schedule: all")
    os.kill(children(cache)[-1], signal.SIGKILL)
    # Now it can only go on with what serve began with.
    await until(lambda: "the configuration is not used" in cache.log)
    await until(lambda: cache.log.count("scheduled entry=nightly cause=tick") == 2)
    assert cache.get("/readyz")[0] == 200


async def test_stopped_serve_cuts_a_sync_short_in_order(
    serve: ServeFactory, upstream_process: UpstreamProcessFactory, cli: CommandLine, tmp_path: Path
) -> None:
    images = [{**FOUR, "count": 1, "layer_size": 4 * MIB}]
    upstream = await upstream_process(settings={"limit": None}, images=images, faults=[SLOW])
    config = write_schedule(tmp_path, upstream, NIGHTLY, serve={"drain": "3s"})
    cache = await serve("--workers", "2", config=config)
    assert len(children(cache)) == 3
    await until(lambda: under_way(cli) >= MIB // 2)
    assert (await cache.stop()).code == 0
    assert "outcome=interrupted" in cache.log
    assert past_runs(cli, "nightly") == [("first", "interrupted")]
    assert under_way(cli) >= MIB // 2


async def test_a_killed_supervisor_takes_the_scheduler_with_it(
    scheduled: Scheduled, serve: ServeFactory, cli: CommandLine
) -> None:
    cache, config = await scheduled(DAILY)
    left = children(cache)
    await cache.kill()
    await until(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in left))
    turn_back(cli, 50 * 3600)
    again = await serve(config=config)
    await until(lambda: "cause=tick" in again.log)
    assert past_runs(cli, "nightly") == [("first", "complete"), ("missed", "complete")]
