"""Upstreams that have had enough of us: what clients are told, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tag_budgets import ONE, TWO, PlaceFactory, places, tag
from tag_serving import (
    ask,
    blob_path,
    child_of,
    manifest_path,
    pulls_whole,
    put_image,
    until,
)

from prefetch.demo.upstream import Upstream
from support.processes import CommandLine


@pytest.fixture
async def place(cli: CommandLine, tmp_path: Path) -> AsyncIterator[PlaceFactory]:
    async with places(cli, tmp_path) as make:
        yield make


@asynccontextmanager
async def fault(upstream: Upstream, name: str, **details: Any) -> AsyncIterator[None]:
    upstream.faults.add(name, **{"count": None, **details})
    yield
    upstream.faults.clear()


async def test_a_client_is_never_told_429(place: PlaceFactory) -> None:
    there = await place(limit=100)
    layer = child_of(there.two).blobs[-1].digest
    await pulls_whole(there.cache, ONE, "1", there.one)
    for path in (tag(TWO), manifest_path(TWO, child_of(there.two).digest)):
        assert (await ask(there.cache, path)).status == 200
    async with fault(there.upstream, "throttle", kind="blob", seconds=1, count=1):
        # Throttled blobs are asked for again by ourselves.
        assert (await ask(there.cache, blob_path(TWO, layer))).status == 200
    for name in ("pull-limit", "throttle"):
        item = put_image(there.upstream, f"library/{name}", "1")
        async with fault(there.upstream, name, kind="manifest", method="GET", seconds=3):
            reply = await ask(there.cache, tag(f"library/{name}"))
            assert reply.status == 503, name
            assert int(reply.headers["retry-after"]) >= 1
            pulls = there.upstream.log.counts(kind="manifest", method="GET")
            for _ in range(10):
                again = await ask(there.cache, tag(f"library/{name}"))
                assert again.status == 503, name
            assert there.upstream.log.counts(kind="manifest", method="GET") == pulls
        assert item


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_who_is_throttled_stays_away_as_long_as_he_is_told(
    place: PlaceFactory, method: str
) -> None:
    there = await place(limit=100)
    await pulls_whole(there.cache, ONE, "1", there.one)
    async with fault(there.upstream, "throttle", kind="manifest", method=method, seconds=8):
        first = await ask(there.cache, tag(TWO))
    assert first.status == 503
    assert 6 <= int(first.headers["retry-after"]) <= 8
    there.upstream.log.reset()

    async def served() -> bool:
        reply = await ask(there.cache, tag(TWO))
        assert reply.status in (200, 503)
        return reply.status == 200

    waited = await until(served)

    assert 6 < waited < 10
    assert there.upstream.log.pulls == 1
