"""`prefetch warm --by`, as a process, against an upstream whose window is seconds long."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from acceptance_support import breaches, one_line, outcomes, refused, write_list

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine, Result, UpstreamProcess, finish

BOTH = ("--platform", "linux/amd64", "--platform", "linux/arm64")
LIMIT, RESERVE, WINDOW = 14, 2, 8
# Longer than a run that waits for nothing takes on a machine that does much else.
LONG = 30
# An index and two manifests each.
PULLS = 3


def order(count: int, **more: Any) -> dict[str, Any]:
    return {"repository": "app{n}", "count": count, "layers": 1, "layer_size": 2000, **more}


def limited(**more: Any) -> dict[str, Any]:
    return {"limit": LIMIT, "window": WINDOW, "auth": "none", **more}


class Site:
    """An upstream with some images, a list of them, and the command."""

    def __init__(self, cli: CommandLine, upstream: UpstreamProcess, listed: Path) -> None:
        self.cli, self.upstream, self.listed = cli, upstream, listed

    def words(self, by: str, *words: str) -> list[str]:
        reserve = ("--reserve", str(RESERVE))
        return ["warm", str(self.listed), *BOTH, *reserve, "--by", by, "-o", "json", *words]

    async def warm(self, by: str, *words: str, timeout: float = 90) -> Result:
        return await self.cli(*self.words(by, *words), timeout=timeout)

    def assert_kept(self) -> None:
        assert refused(self.upstream) == []
        assert breaches(self.upstream.requests(), RESERVE) == []

    async def until_spent(self, pulls: int) -> None:
        async with asyncio.timeout(60):
            while self.upstream.pulls < pulls:
                await asyncio.sleep(0.05)

    async def all_is_warm(self) -> bool:
        checked = await self.cli("check", self.listed, *BOTH)
        return checked.code == 0


@pytest.fixture
def site(cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path) -> Any:
    async def make(
        count: int, *, important: Sequence[int] = (), settings: dict[str, Any] | None = None
    ) -> Site:
        upstream = await upstream_process(settings=settings or limited(), images=[order(count)])
        lines = [
            f"{reference}  priority=10" if number in important else reference
            for number, reference in enumerate(upstream.references())
        ]
        return Site(cli, upstream, write_list(tmp_path / "images.txt", lines))

    return make


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_what_fits_into_one_window_is_promised_and_done(site: Any) -> None:
    here = await site(4)
    began = datetime.now(UTC)
    result = await here.warm("in 30s")
    ended = datetime.now(UTC)
    assert result.code == 0, result.stderr
    document, deadline = result.json, result.json["deadline"]
    assert (document["outcome"], document["totals"]["pulls"]) == ("complete", 4 * PULLS)
    assert deadline["verdict"] == "feasible"
    assert (deadline["met"], deadline["late"], deadline["at_risk"]) == (True, [], [])
    assert (deadline["lacking_pulls"], deadline["changes"]) == (0, [])
    assert (deadline["pulls_min"], deadline["pulls_max"]) == (4, 4 * PULLS)
    # From when it began to read its options, and rounded up to the second.
    assert began + timedelta(seconds=30) <= moment(deadline["by"]) < ended + timedelta(seconds=31)
    assert ended < moment(deadline["by"])
    assert moment(deadline["by_local"]) == moment(deadline["by"])
    assert moment(deadline["ready_at"]) < moment(deadline["by"])
    assert "will be warm by" in result.stderr
    assert await here.all_is_warm()
    runs = await here.cli("runs", "-o", "json")
    assert [(run["command"], run["outcome"]) for run in runs.json] == [("warm", "complete")]


@pytest.mark.long
async def test_over_three_windows_it_is_done_by_then(site: Any) -> None:
    here = await site(11)
    result = await here.warm("in 60s", timeout=120)
    assert result.code == 0, result.stderr
    deadline = result.json["deadline"]
    assert (deadline["verdict"], deadline["met"]) == ("feasible", True)
    assert result.json["totals"]["pulls"] == here.upstream.pulls == 11 * PULLS
    # 12 pulls a window: two refills have to come.
    assert result.json["totals"]["seconds"] > 2 * WINDOW - 1
    (run,) = (await here.cli("runs", "-o", "json")).json
    assert moment(run["finished_at"]) <= moment(deadline["by"])
    here.assert_kept()


async def test_what_is_impossible_is_said_and_strict_spends_nothing(site: Any) -> None:
    here = await site(60, settings=limited(window=3600))
    result = await here.warm("in 30m", "--strict")
    assert result.code == 1
    assert here.upstream.pulls == 0
    document, deadline = result.json, result.json["deadline"]
    assert document["outcome"] == "deferred"
    assert outcomes(document) == {"deferred"}
    assert {image["error"]["code"] for image in document["images"]} == {"DEADLINE_NOT_PROMISED"}
    assert document["totals"]["pulls"] == 0
    assert (deadline["verdict"], deadline["met"]) == ("impossible", None)
    # 60 indexes at least; 12 pulls at once, each of which may do for two GETs.
    assert deadline["lacking_pulls"] == 60 - 24
    assert len(deadline["late"]) == 60 - 12 // PULLS
    assert set(deadline["late"]) <= set(deadline["at_risk"])
    changes = {change["change"]: change for change in deadline["changes"]}
    assert {"later", "alternate", "images"} <= changes.keys()
    assert changes["alternate"]["pulls_saved"] == 60 * PULLS
    assert len(changes["images"]["images"]) == changes["images"]["value"] > 0
    assert "cannot be warm by" in result.stderr
    assert deadline["late"][0] in result.stderr
    assert moment(changes["later"]["value"]) > datetime.now(UTC) + timedelta(hours=4)


@pytest.mark.long
async def test_what_is_impossible_is_warmed_as_far_as_it_goes_by_importance(site: Any) -> None:
    here = await site(12, important=(9, 10, 11), settings=limited(window=LONG))
    result = await here.warm("in 10s")
    assert result.code == 1, result.stderr
    # It ends at TIME, give or take how long the machine takes for anything.
    assert result.json["totals"]["seconds"] < LONG
    document, deadline = result.json, result.json["deadline"]
    assert document["outcome"] == "deferred"
    assert deadline["met"] is False
    synced = [i["reference"] for i in document["images"] if i["outcome"] == "synced"]
    assert len(synced) == 4
    assert {f"{here.upstream.address}/app{n}:latest" for n in (9, 10, 11)} <= set(synced)
    here.assert_kept()


async def test_no_wait_spends_what_it_may_and_the_rest_is_for_later(site: Any) -> None:
    here = await site(7, settings=limited(window=LONG))
    result = await here.warm("in 5m", "--no-wait")
    assert result.code == 75, result.stderr
    assert result.json["totals"]["seconds"] < LONG
    deadline = result.json["deadline"]
    assert (deadline["verdict"], deadline["met"]) == ("feasible", None)
    assert (deadline["pulls_max"], here.upstream.pulls) == (3 * PULLS, 4 * PULLS)
    await asyncio.sleep(LONG)
    done = await here.warm("in 5m", "--no-wait")
    assert (done.code, done.json["deadline"]["met"]) == (0, True), done.stderr
    assert here.upstream.pulls == 7 * PULLS
    again = await here.warm("in 30s", "--strict")
    assert (again.code, again.json["totals"]["unchanged"]) == (0, 7)
    here.assert_kept()


async def test_no_wait_does_not_wait_for_what_is_impossible(site: Any) -> None:
    here = await site(60, settings=limited(window=LONG))
    result = await here.warm("in 1m", "--no-wait")
    assert result.code == 1, result.stderr
    assert result.json["totals"]["seconds"] < LONG
    assert result.json["deadline"]["verdict"] != "feasible"
    assert here.upstream.pulls == 4 * PULLS


async def test_a_dry_run_spends_nothing_and_says_whether_it_could(site: Any) -> None:
    here = await site(7)
    for by, code, verdict in (("in 60s", 0, "feasible"), ("in 2s", 1, "uncertain")):
        result = await here.warm(by, "--dry-run")
        assert result.code == code, result.stderr
        document = result.json
        assert document["deadline"]["verdict"] == verdict
        assert document["deadline"]["met"] is None
        assert document["totals"]["pulls_max"] == 7 * PULLS
        assert {image["action"] for image in document["images"]} == {"sync", "defer"}
    assert here.upstream.pulls == 0
    changes = {change["change"]: change for change in document["deadline"]["changes"]}
    # With one platform it is 14 pulls for 12 that are there; a reserve of none has 14.
    assert "platforms" not in changes
    assert changes["images"]["value"] == 3
    text = await here.cli(*here.words("in 2s", "--dry-run"), "-o", "text")
    assert text.code == 1
    assert "may be late" in text.stdout or "probably not" in text.stdout
    assert "later: --by 20" in text.stdout
    quiet = await here.cli(*here.words("in 60s", "--dry-run"), "-o", "text", "-q")
    assert quiet.code == 0
    assert "promised" not in quiet.stdout


async def test_fewer_platforms_and_a_smaller_reserve_have_their_figures(site: Any) -> None:
    here = await site(6, settings=limited(limit=18, window=3600))
    wide = (*("warm", here.listed, *BOTH, "--by", "in 30m", "--dry-run"), "-o", "json")
    result = await here.cli(*wide, "--reserve", "5")
    changes = {change["change"]: change for change in result.json["deadline"]["changes"]}
    # 18 pulls are needed, 12 with one platform; 13 are there.
    assert changes["reserve"]["value"] == 0
    assert len(changes["platforms"]["value"]) == 1
    assert changes["platforms"]["pulls_saved"] == 6
    fewer = changes["platforms"]["value"][0]
    narrow = ("warm", here.listed, "--platform", fewer, "--by", "in 30m", "-o", "json")
    done = await here.cli(*narrow, "--reserve", "5", "--strict")
    assert (done.code, here.upstream.pulls) == (0, 12), done.stderr


async def test_a_signal_ends_it_in_order_and_it_goes_on(site: Any) -> None:
    here = await site(7)
    process = await here.cli.start(*here.words("in 60s"))
    await here.until_spent(4 * PULLS)
    await asyncio.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    ended = await finish(process)
    assert ended.code == 143, ended.stderr
    assert (ended.json["outcome"], ended.json["deadline"]["met"]) == ("interrupted", None)
    assert ended.json["totals"]["synced"] == 4
    again = await here.warm("in 60s")
    assert again.code == 0, again.stderr
    assert again.json["totals"] | {"unchanged": 4, "synced": 3} == again.json["totals"]
    assert here.upstream.pulls == 7 * PULLS
    here.assert_kept()


@pytest.mark.long
async def test_killed_it_goes_on_and_pays_nothing_twice(site: Any) -> None:
    here = await site(7)
    process = await here.cli.start(*here.words("in 60s"))
    await here.until_spent(4 * PULLS)
    process.kill()
    await finish(process)
    again = await here.warm("in 60s")
    assert (again.code, again.json["deadline"]["met"]) == (0, True), again.stderr
    assert here.upstream.pulls <= 7 * PULLS + 1
    assert await here.all_is_warm()
    here.assert_kept()


@pytest.mark.long
async def test_a_forecast_that_turns_is_told_of_at_once(site: Any) -> None:
    here = await site(8, settings=limited(window_kind="rolling"))
    process = await here.cli.start(
        *here.words("in 25s"), "--log-level", "info", "--log-format", "json"
    )
    await here.until_spent(4 * PULLS)
    # Others begin to take all that comes back.
    here.upstream.ask("burn", {"pulls_per_second": LIMIT / 2})
    ended = await finish(process)
    assert (ended.code, ended.json["deadline"]["verdict"]) == (1, "feasible"), ended.stderr
    assert ended.json["deadline"]["met"] is False
    lines = [line for line in ended.stderr.splitlines() if "deadline missed" in line]
    assert len(lines) >= 1, ended.stderr
    assert "app7" in lines[0]


async def test_what_cannot_be_fetched_cannot_be_promised(site: Any) -> None:
    here = await site(2)
    missing = f"{here.upstream.address}/app0:gone"
    refused = await here.warm("in 60s", "--strict", "--image", missing)
    assert (refused.code, here.upstream.pulls) == (1, 0), refused.stderr
    assert refused.json["deadline"]["late"] == [missing]
    assert f"  {missing}" in refused.stderr
    assert {i["outcome"] for i in refused.json["images"]} == {"deferred", "failed"}
    done = await here.warm("in 60s", "--image", missing)
    assert (done.code, done.json["deadline"]["met"]) == (1, False), done.stderr
    assert done.json["totals"] | {"synced": 2, "failed": 1} == done.json["totals"]


async def test_a_source_that_cannot_be_read_is_nothing_to_promise(site: Any) -> None:
    here = await site(1)
    here.listed.write_text(f"{here.listed.read_text()}no image at all\n")
    refused = await here.warm("in 60s", "--strict")
    assert (refused.code, here.upstream.pulls) == (1, 0), refused.stderr
    (image,) = refused.json["images"]
    assert image["error"]["code"] == "DEADLINE_NOT_PROMISED"
    assert "not all of the sources can be read" in image["error"]["message"]


async def test_what_fails_is_told_of_at_once_while_the_rest_waits(site: Any) -> None:
    here = await site(7)
    gone = {"name": "not-found", "repository": "app0", "kind": "manifest", "method": "GET"}
    here.upstream.ask("faults", [{**gone, "count": None}])
    process = await here.cli.start(*here.words("in 40s"))
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while line := (await process.stderr.readline()).decode():
            if "1 image will not be warm by" in line:
                break
    assert "it could not be fetched" in line
    assert process.returncode is None
    process.send_signal(signal.SIGTERM)
    ended = await finish(process)
    assert ended.json["outcome"] == "interrupted", ended.stderr


async def test_its_time_also_ends_what_comes_before_the_first_pull(site: Any) -> None:
    here = await site(3)
    throttled = {"name": "throttle", "kind": "manifest", "method": "HEAD", "seconds": 60}
    here.upstream.ask("faults", [{**throttled, "count": None}])
    result = await here.warm("in 3s", timeout=30)
    assert (result.code, here.upstream.pulls) == (1, 0), result.stderr
    assert (result.json["outcome"], result.json["deadline"]) == ("deferred", None)
    assert result.json["totals"]["seconds"] < 15
    assert "what they lack was not known by then" in result.stderr


@pytest.mark.long
async def test_what_a_registry_fails_to_give_is_asked_for_again(site: Any) -> None:
    here = await site(5)
    down = {"name": "server-error", "kind": "manifest", "method": "GET", "count": None}
    here.upstream.ask("faults", [down])
    process = await here.cli.start(*here.words("in 100s"))
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while "tried again (" not in (await process.stderr.readline()).decode():
            pass
    here.upstream.ask("faults", method="DELETE")
    ended = await finish(process, timeout=100)
    assert (ended.code, ended.json["deadline"]["met"]) == (0, True), ended.stderr
    assert outcomes(ended.json) == {"synced"}
    assert await here.all_is_warm()


@pytest.mark.long
async def test_what_is_never_given_has_failed_when_the_time_has_come(site: Any) -> None:
    here = await site(2)
    down = {"name": "server-error", "kind": "manifest", "method": "GET", "count": None}
    here.upstream.ask("faults", [{**down, "repository": "app0"}])
    result = await here.warm("in 25s")
    assert (result.code, result.json["deadline"]["met"]) == (1, False), result.stderr
    assert {i["reference"][-11:]: i["outcome"] for i in result.json["images"]} == {
        "app0:latest": "failed",
        "app1:latest": "synced",
    }
    assert 20 < result.json["totals"]["seconds"] < 30
    assert result.stderr.count("1 image will not be warm by") == 1


async def test_without_a_limit_it_is_promised(site: Any) -> None:
    here = await site(20, settings={"limit": None, "auth": "none"})
    result = await here.warm("in 60s", "--strict")
    assert (result.code, result.json["deadline"]["verdict"]) == (0, "feasible"), result.stderr


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ("soon", "this is no time"),
        ("2020-01-01 00:00", "has passed"),
        ("in 6 parsecs", "expected a duration"),
    ],
)
async def test_what_is_no_moment_is_exit_2(cli: CommandLine, by: str, says: str) -> None:
    result = await cli("warm", "--image", "nginx:1.27", "--by", by)
    assert (result.code, result.stdout) == (2, "")
    assert says in one_line(result)


async def test_the_zone_is_shown_back(site: Any) -> None:
    here = await site(1)
    words = ("warm", here.listed, "--by", "23:59", "--timezone", "Asia/Kathmandu", "--dry-run")
    result = await here.cli(*words)
    assert result.code == 0, result.stderr
    assert "23:59:00 Asia/Kathmandu (+05:45)" in result.stdout
    document = (await here.cli(*words, "-o", "json")).json
    assert document["deadline"]["timezone"] == "Asia/Kathmandu"
    assert document["deadline"]["by_local"].endswith("T23:59:00+05:45")


async def test_plan_and_budget_tell_what_their_forecast_rests_on(site: Any) -> None:
    here = await site(9, settings=limited(window=3600))
    planned = await here.cli(
        *("plan", here.listed, *BOTH, "--reserve", str(RESERVE), "--horizon", "7d", "-o", "json")
    )
    assert planned.code == 0, planned.stderr
    slots = planned.json["timetable"]
    assert [(slot["images"], slot["pulls"]) for slot in slots] == [(4, 12), (4, 12), (1, 3)]
    assert (slots[-1]["images_so_far"], slots[-1]["pulls_so_far"]) == (9, 27)
    assert {slot["registry"] for slot in slots} == {here.upstream.address}
    starts = [image["start_at"] for image in planned.json["images"]]
    assert {slot["at"] for slot in slots} == set(starts)
    (budget,) = planned.json["budgets"]
    assert (budget["forecast"]["window_seconds"], budget["forecast"]["full_at"]) == (3600, None)
    assert budget["forecast"]["refill"] == "unknown"

    text = await here.cli("plan", here.listed, *BOTH, "--horizon", "7d")
    assert text.code == 0, text.stderr
    assert "█" in text.stdout
    plain = await here.cli("plan", here.listed, *BOTH, "--horizon", "7d", env={"NO_COLOR": "1"})
    assert plain.stdout.isascii()
    assert "####" in plain.stdout
    (read,) = (await here.cli("budget", here.upstream.address, "-o", "json")).json
    assert read["forecast"].keys() == budget["forecast"].keys()
    shown = await here.cli("budget", here.upstream.address)
    assert f"{LIMIT} pulls in 1 h" in shown.stdout
    wrong = await here.cli("plan", here.listed, "--horizon", "soon")
    assert (wrong.code, wrong.stdout) == (2, "")
    assert "--horizon" in one_line(wrong)


async def test_on_a_terminal_the_verdict_stands_above_the_display(site: Any) -> None:
    here = await site(count=2)
    # So the display is there for a while before the verdict is.
    throttled = {"name": "throttle", "kind": "manifest", "count": 1, "seconds": 1}
    here.upstream.ask("faults", [throttled])
    master, screen = pty.openpty()
    environment = here.cli.environment({"TERM": "xterm", "COLUMNS": "80"})
    process = await asyncio.create_subprocess_exec(
        *here.cli.arguments(*here.words("in 1h")[:-2]),
        stdout=subprocess.PIPE,
        stderr=screen,
        env=environment,
        cwd=here.cli.home,
    )
    os.close(screen)
    written = bytearray()
    with suppress(OSError):  # what Linux says of a terminal that nobody has open any more
        while piece := await asyncio.to_thread(os.read, master, 4096):
            written += piece
    os.close(master)
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"2 synced" in out
    assert b"Resolving" in written
    # Each line of the display is wiped before something else is written in its place.
    before, verdict, _ = written.partition(b"everything will be warm by")
    assert verdict
    assert before.endswith((b"\x1b[2K", b"\n")), bytes(before[-200:])
