from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from prefetch.state.database import State
from prefetch.state.models import run_images
from prefetch.state.records import EntryTotal, RunImageRecord
from support.turned_clock import TurnedClock

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def ran(state: State, at: datetime, outcome: str | None = "complete", **facts: Any) -> str:
    """A run that took a second, with one reference."""
    totals = {key: facts.pop(key, 0) for key in ("pulls", "bytes_fetched")}
    command = "schedule" if facts else "sync"
    run_id = await state.runs.start(command, at, **facts)
    await state.runs.record(run_id, [RunImageRecord("a:1", "unchanged")])
    if outcome is not None:
        await state.runs.finish(run_id, outcome, at + timedelta(seconds=1), images=1, **totals)
    return run_id


async def kept(state: State) -> list[str]:
    return [run.id for run in reversed(await state.runs.list(10_000))]


async def rows(state: State) -> int:
    return await state.read(
        lambda connection: connection.execute(
            select(func.count()).select_from(run_images)
        ).scalar_one()
    )


async def test_what_has_fetched_nothing_is_kept_for_two_days(state: State) -> None:
    idle = [await ran(state, NOW + i * HOUR / 60) for i in range(60)]
    fetched = await ran(state, NOW + HOUR, bytes_fetched=1)
    pulled = await ran(state, NOW + HOUR, "failed", pulls=1)
    killed = await ran(state, NOW + HOUR, None)
    latest = [await ran(state, NOW + HOUR) for _ in range(50)]
    assert await kept(state) == [*idle, fetched, pulled, killed, *latest]
    last = await ran(state, NOW + 3 * DAY)
    # The newest fifty stay, this one among them.
    assert await kept(state) == [fetched, pulled, killed, *latest[1:], last]
    assert await rows(state) == 53


async def test_everything_else_is_kept_for_ninety_days(state: State) -> None:
    first = [await ran(state, NOW, pulls=1) for _ in range(60)]
    await ran(state, NOW + 89 * DAY)
    assert len(await kept(state)) == 61
    last = await ran(state, NOW + 91 * DAY)
    assert (await kept(state))[:-2] == first[12:]
    assert (await kept(state))[-1] == last


async def test_each_entry_and_each_command_keeps_its_latest(state: State) -> None:
    nightly = [await ran(state, NOW, entry="nightly", cause="tick") for _ in range(3)]
    gone = [await ran(state, NOW, entry="renamed", cause="tick") for _ in range(2)]
    for _ in range(60):
        await ran(state, NOW)
    await ran(state, NOW + 200 * DAY)
    found = await kept(state)
    assert found[:5] == [*nightly, *gone]
    assert len(found) == 5 + 50


async def test_the_totals_of_an_entry_only_ever_grow(state: State) -> None:
    for number in range(120):
        outcome = "failed" if number < 30 else "complete"
        await ran(state, NOW + number * HOUR, outcome, entry="often", cause="tick")
    before = await state.runs.entry_totals()
    assert [(total.outcome, total.runs) for total in before] == [("complete", 90), ("failed", 30)]
    await ran(state, NOW + 300 * DAY, entry="other", cause="first")
    assert len(await kept(state)) == 51
    last = EntryTotal("other", "complete", 1, NOW + 300 * DAY + timedelta(seconds=1))
    assert await state.runs.entry_totals() == [*before, last]
    # Dropped in two parts they are added up.
    for _ in range(50):
        await ran(state, NOW + 301 * DAY, entry="often", cause="tick")
    await ran(state, NOW + 600 * DAY, entry="often", cause="tick")
    (complete, failed, _) = await state.runs.entry_totals()
    assert (complete.runs, failed.runs) == (90 + 51, 30)
    assert complete.last == NOW + 600 * DAY + timedelta(seconds=1)
    assert failed == before[1]


async def test_it_is_done_once_an_hour_and_a_part_at_a_time(state: State) -> None:
    for _ in range(1100):
        await state.runs.finish(await state.runs.start("sync", NOW), "complete", NOW)
    later = NOW + 3 * DAY
    left = []
    for minutes in (0, 1, 2, 61, 62, 121):
        await state.runs.start("sync", later + timedelta(minutes=minutes))
        left.append(len(await kept(state)))
    assert left == [601, 602, 603, 104, 105, 50]


async def test_ids_sort_as_runs_began_whatever_the_clock_says(
    state: State, clock: TurnedClock
) -> None:
    del clock
    ids = []
    for days in (0, -400, -399, 0, 1):
        ids += [await state.runs.start("sync", NOW + days * DAY) for _ in range(2)]
    assert sorted(ids) == ids == list(reversed([run.id for run in await state.runs.list()]))
    assert [name[:19] for name in ids[::2]] == [
        "20260601T120000.000",
        "20260601T120000.002",
        "20260601T120000.004",
        "20260601T120000.006",
        "20260602T120000.000",
    ]
    newest = (await state.runs.list(10))[-3]
    assert newest.started_at == NOW - 400 * DAY
