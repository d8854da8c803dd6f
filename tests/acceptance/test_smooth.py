"""A smooth sync: its pulls reach the registry evenly, above the reserve, whatever befalls it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from acceptance_support import breaches, write_list

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine, UpstreamProcess, finish

WINDOW = 20
RESERVE = 6
SINGLE = {"repository": "app{n}", "single": True, "shared_layers": True}


def limited(limit: int, **more: Any) -> dict[str, Any]:
    return {"limit": limit, "window": WINDOW, "cdn": False, **more}


def pulls(upstream: UpstreamProcess) -> list[float]:
    """When the pulls came, in seconds after the first."""
    moments = sorted(each["started"] for each in upstream.requests() if each["counted"])
    return [each - moments[0] for each in moments]


def assert_even(moments: list[float], seconds: float, *, tolerance: float) -> None:
    """The pulls lie near a straight line over that time, in seconds of `tolerance`."""
    for number, moment in enumerate(moments):
        assert moment == pytest.approx(seconds * number / len(moments), abs=tolerance), moments


def words(listed: Path, *more: str) -> list[str | Path]:
    return ["sync", listed, "--pace", "smooth", "--reserve", str(RESERVE), "-o", "json", *more]


async def test_pulls_are_spread_over_the_window(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    """24 of 30 pulls in 20 seconds: one in 0.83 seconds. What is beyond them is put off."""
    upstream = await upstream_process(settings=limited(30), images=[{**SINGLE, "count": 28}])
    listed = write_list(tmp_path / "images.txt", upstream.references())

    planned = await cli("plan", listed, "--pace", "smooth", "--reserve", RESERVE, "-o", "json")
    ended = await cli(*words(listed))

    actions = [each["action"] for each in planned.json["images"]]
    assert (actions.count("sync"), actions.count("defer")) == (24, 4)
    assert len({each["start_at"] for each in planned.json["images"]}) > 15
    assert ended.code == 75, ended.stderr
    assert ended.json["totals"]["synced"] == 24
    [spread] = ended.json["spread"]
    assert (spread["registry"], spread["pulls"]) == (upstream.address, 24)
    assert WINDOW * 0.85 <= ended.json["totals"]["seconds"] <= WINDOW + 6
    moments = pulls(upstream)
    assert len(moments) == 24
    assert_even(moments, WINDOW, tolerance=4)
    assert breaches(upstream.requests(), RESERVE) == []


async def test_images_are_taken_whole(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    """Indexes with two children each: three pulls together, then a gap of three pulls' time."""
    order = {"repository": "app{n}", "count": 4, "layers": 1}
    upstream = await upstream_process(settings=limited(18), images=[order])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    ended = await cli(*words(listed, "--platform", "all"))
    assert ended.code == 0, ended.stderr
    moments = pulls(upstream)
    assert len(moments) == 12
    firsts = moments[::3]
    assert_even(firsts, WINDOW, tolerance=4)
    assert all(moments[3 * n + 2] - first < 3 for n, first in enumerate(firsts))


async def test_references_by_digest_are_spread_as_well(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    """Their digests are known, but the meter has been read all the same."""
    upstream = await upstream_process(settings=limited(16), images=[{**SINGLE, "count": 5}])
    made = await asyncio.to_thread(upstream.ask, "images")
    named = [f"{upstream.address}/{each['repository']}@{each['digest']}" for each in made]
    ended = await cli(*words(write_list(tmp_path / "images.txt", named)))
    assert ended.code == 0, ended.stderr
    assert [each["pulls"] for each in ended.json["spread"]] == [10]
    assert_even(pulls(upstream), WINDOW / 2, tolerance=4)


async def test_burst_is_the_default(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=limited(40), images=[{**SINGLE, "count": 10}])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    ended = await cli("sync", listed, "-o", "json")
    assert (ended.code, ended.json["spread"]) == (0, [])
    assert pulls(upstream)[-1] < WINDOW / 3


async def test_the_configuration_says_it_for_a_registry(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    """What says nothing is spread over the configured window; an option outweighs the file."""
    upstream = await upstream_process(
        settings={"limit": None, "cdn": False}, images=[{**SINGLE, "count": 6}]
    )
    listed = write_list(tmp_path / "images.txt", upstream.references())
    limit = {"pulls": 12, "window": "12s"}
    config = tmp_path / "prefetch.yaml"
    registry = {"pace": "smooth", "limit": limit, "reserve": 0}
    config.write_text(json.dumps({"registries": {upstream.address: registry}}))
    ended = await cli("--config", config, "sync", listed, "-o", "json", "--timeout", "1m", "--wait")
    assert ended.code == 0, ended.stderr
    assert_even(pulls(upstream), 6, tolerance=3)
    other = tmp_path / "other"
    await asyncio.to_thread(upstream.reset)
    fast = await cli("--config", config, "sync", listed, "--pace", "burst", data_dir=other)
    assert fast.code == 0, fast.stderr
    assert pulls(upstream)[-1] < 3


async def test_where_no_window_is_known_it_says_so(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    settings = {"limit": None, "cdn": False}
    upstream = await upstream_process(settings=settings, images=[{**SINGLE, "count": 3}])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    ended = await cli("sync", listed, "--pace", "smooth")
    assert ended.code == 0, ended.stderr
    assert "does not tell its window, and no limit is configured" in ended.stderr


async def test_a_timeout_ends_it_in_order(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=limited(30), images=[{**SINGLE, "count": 24}])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    ended = await cli(
        *words(listed, "--timeout", "8s"), changes="the run ends before the last turn"
    )
    assert ended.code == 75, ended.stderr
    assert ended.json["totals"]["seconds"] < 14
    waiting = [each for each in ended.json["images"] if each["outcome"] == "deferred"]
    assert 8 <= len(waiting) <= 22
    assert {each["error"]["code"] for each in waiting} == {"PACED"}
    assert all(each["retry_at"] for each in waiting)


@pytest.mark.long
async def test_with_wait_it_goes_on_in_the_next_window(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(
        settings={**limited(12), "window": 10}, images=[{**SINGLE, "count": 9}]
    )
    listed = write_list(tmp_path / "images.txt", upstream.references())
    ended = await cli(*words(listed, "--wait"), timeout=90)
    assert ended.code == 0, ended.stderr
    moments = pulls(upstream)
    assert len(moments) == 9
    assert_even(moments[:6], 10, tolerance=3)
    assert moments[6] >= 9
    assert breaches(upstream.requests(), RESERVE) == []


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_ended_midway_it_goes_on_at_the_same_pace(
    cli: CommandLine,
    upstream_process: UpstreamProcessFactory,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    upstream = await upstream_process(settings=limited(22), images=[{**SINGLE, "count": 14}])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    process = await cli.start(*words(listed))
    async with asyncio.timeout(30):
        while await asyncio.to_thread(lambda: upstream.pulls) < 4:
            await asyncio.sleep(0.05)
    process.send_signal(number)
    ended = await finish(process, timeout=10)
    if number is signal.SIGTERM:
        assert ended.code == 143, ended.stderr
        assert ended.json["outcome"] == "interrupted"
        assert [each["pulls"] for each in ended.json["spread"]] == [16]
    again = await cli(*words(listed))
    assert again.code == 0, again.stderr
    assert again.json["totals"]["unchanged"] >= 3
    moments = pulls(upstream)
    assert len(moments) <= 17
    assert all(sum(m <= each < m + 3 for each in moments) <= 7 for m in moments)
    assert breaches(upstream.requests(), RESERVE) == []
