"""A maintenance window: nothing is asked, and what was whole is what is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tag_freezing import (
    COLD,
    FROZEN,
    NAME,
    TAG,
    Place,
    is_frozen_503,
    nothing_asked,
    place_to_freeze,
    soon,
)
from tag_serving import (
    ask,
    ask_many,
    blob_path,
    child_of,
    manifest_path,
    metrics,
    parts_of,
    pulls_whole,
    put_image,
    running,
    until,
)

from support.processes import CommandLine


@pytest.fixture
async def place(cli: CommandLine, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_to_freeze(cli, tmp_path) as made:
        yield made


@pytest.mark.parametrize("workers", [1, 2])
async def test_frozen_nothing_is_asked(place: Place, workers: int) -> None:
    upstream, app = place.upstream, place.app
    async with running(place.cli, place.config, "--workers", str(workers)) as cache:
        await place.freeze("--until", soon(3600))
        new = put_image(upstream, NAME, "1", version="new")
        paths = [path for path, _ in parts_of(NAME, app)]
        async with nothing_asked(upstream):
            warm = await ask_many(cache, [TAG, *paths] * 25)
            assert {reply.status for reply in warm} == {200}
            tags = [await ask(cache, TAG) for _ in range(10)]
            assert {(each.digest, FROZEN in each.warning) for each in tags} == {(app.digest, True)}
            assert int(tags[-1].headers["age"]) >= 1
            cold = [
                COLD,
                manifest_path(NAME, new.digest),
                manifest_path(NAME, "none"),
                blob_path(NAME, child_of(new).blobs[0].digest),
            ]
            for path in cold:
                for method in ("GET", "HEAD"):
                    reply = await ask(cache, path, method=method)
                    assert reply.status == 503, path
                assert is_frozen_503(await ask(cache, path), longest=3600), path
            assert "until" in (await ask(cache, COLD)).message
        assert (await ask(cache, "/readyz")).status == 200
        told = await metrics(cache)
        assert told["prefetch_frozen"] == 1
        assert told['prefetch_stale_answers_total{reason="frozen"}'] >= 35
        assert told['prefetch_errors_total{cause="frozen"}'] == 12 + 1

        await place.thaw()

        async def served() -> bool:
            return (await ask(cache, TAG)).digest == new.digest

        await until(served, seconds=5)
        await asyncio.sleep(1)  # for the other worker
        await pulls_whole(cache, "library/cold", "1", place.cold)
        assert (await metrics(cache))["prefetch_frozen"] == 0


async def test_a_freeze_outlives_the_server(place: Place) -> None:
    await place.freeze()
    for _ in range(2):
        async with running(place.cli, place.config) as cache, nothing_asked(place.upstream):
            reply = await ask(cache, TAG)
            assert (reply.status, FROZEN in reply.warning) == (200, True)
            assert is_frozen_503(await ask(cache, COLD), longest=60)
            assert "until" not in (await ask(cache, COLD)).message
            assert (await metrics(cache))["prefetch_frozen"] == 1


async def test_a_freeze_ends_by_itself(place: Place) -> None:
    async with running(place.cli, place.config) as cache:
        end = soon(6)
        await place.freeze("--until", end)
        assert is_frozen_503(await ask(cache, COLD), longest=6)

        async def thawed() -> bool:
            return (await ask(cache, COLD)).status == 200

        await until(thawed)
        assert datetime.now(UTC) >= datetime.fromisoformat(end)
        assert (await metrics(cache))["prefetch_frozen"] == 0
        assert not (await ask(cache, TAG)).warning


@pytest.mark.parametrize("moment", ["2020-01-01T00:00:00Z", "yesterday", ""])
async def test_a_moment_that_makes_no_sense(place: Place, moment: str) -> None:
    done = await place.cli("freeze", "--until", moment)

    assert (done.code, done.stdout) == (2, "")
    assert "--until" in done.stderr
    assert "Traceback" not in done.stderr
    async with running(place.cli, place.config) as cache:
        assert (await ask(cache, COLD)).status == 200


async def test_there_is_nothing_to_thaw(place: Place) -> None:
    done = await place.cli("thaw")
    assert (done.code, done.stdout, done.stderr) == (0, "", "there was no freeze\n")


async def test_the_last_freeze_counts(place: Place) -> None:
    await place.freeze()
    await place.freeze("--until", soon(6))
    async with running(place.cli, place.config) as cache:

        async def thawed() -> bool:
            return (await ask(cache, COLD)).status == 200

        await until(thawed)
