"""A registry that throttles is asked more slowly from then on, by every process and later run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from acceptance_support import write_list

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine, UpstreamProcess

LIMIT = 50
# A lone manifest each, and two layers for all of them: 300 HEADs, 300 pulls, little else.
MANY = {"repository": "app{n}", "count": 300, "single": True, "shared_layers": True}
SETTINGS = {"limit": 100_000, "cdn": False, "requests_per_second": LIMIT}
# With one lesson: what was under way together, or was sent by a process that had not yet heard.
FEW = 20


def throttled(upstream: UpstreamProcess) -> int:
    return sum(each["status"] == 429 for each in upstream.requests())


def busiest(requests: Iterable[dict[str, Any]], seconds: float) -> int:
    """The most requests that reached the upstream within so many seconds."""
    moments = sorted(each["started"] for each in requests)
    return max(sum(0 <= other - each < seconds for other in moments) for each in moments)


def lesson(cli: CommandLine) -> float:
    """The rate that the cache has learned, in requests a second."""
    [file] = (cli.data_dir / "locks").glob("*.rate")
    return float(json.loads(file.read_text())["lesson"][0])


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_limit_on_requests_is_learned_once(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=SETTINGS, images=[MANY])
    listed = write_list(tmp_path / "images.txt", upstream.references())

    planned = await cli("plan", listed, "-o", "json", timeout=120)

    assert planned.code == 0, planned.stderr
    assert 0 < throttled(upstream) <= FEW
    assert LIMIT / 8 <= lesson(cli) < LIMIT

    await asyncio.to_thread(upstream.reset)
    synced = await cli("sync", listed, "-o", "json", timeout=120)
    assert synced.code == 0, synced.stderr
    assert synced.json["totals"]["synced"] == MANY["count"]
    assert throttled(upstream) == 0
    # A tenth of a second's worth at once, as much again within the tenth of a second, and what
    # a busy machine has let pile up on the way.
    assert busiest(upstream.requests(), 0.1) <= 0.1 * LIMIT * 2 + 8

    await asyncio.to_thread(upstream.reset)
    again = await asyncio.gather(*(cli("plan", listed, timeout=120) for _ in range(2)))
    assert [each.code for each in again] == [0, 0]
    assert throttled(upstream) == 0
    assert busiest(upstream.requests(), 1.0) <= LIMIT


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_two_processes_learn_together(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=SETTINGS, images=[MANY])
    # Equal syncs would go one after the other.
    lists = [write_list(tmp_path / name, upstream.references()) for name in ("a.txt", "b.txt")]
    both = "the other one fetches as well"
    synced = await asyncio.gather(
        *(cli("sync", each, "-o", "json", timeout=200, changes=both) for each in lists)
    )

    assert [each.code for each in synced] == [0, 0], synced[0].stderr
    refused = [each["ended"] for each in upstream.requests() if each["status"] == 429]
    lessons = 1 + sum(later - earlier > 1 for earlier, later in pairwise(sorted(refused)))
    assert len(refused) <= FEW * lessons
    assert lessons <= 2
    assert lesson(cli) < LIMIT
