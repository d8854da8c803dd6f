"""Keepers over a real state, with a clock that sleeping turns."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefetch.errors import StateError
from prefetch.filelock import FileLock
from prefetch.oci.platform import ALL, Platform
from prefetch.scheduler.keeper import Means, Scheduler, lock_name
from prefetch.scheduler.plan import REMEMBERED, Cause, Entry, next_run
from prefetch.scheduler.status import statuses
from prefetch.scheduler.ticks import Ahead, Interval, Ticks
from prefetch.state.database import State
from prefetch.state.records import RunImageRecord
from support.clock import ManualClock

START = datetime(2026, 1, 1, tzinfo=UTC)
HOURLY = Entry("hourly", Ticks("0 * * * *", "UTC"))
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Sink:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, /, **facts: object) -> None:
        self.lines.append((event, facts))

    warning = info

    def of(self, event: str) -> list[dict[str, Any]]:
        return [facts for each, facts in self.lines if each == event]


class World:
    """A state, and a scheduler whose runs take a minute and do as `outcome` and others say."""

    def __init__(self, state: State, clock: ManualClock) -> None:
        self.state, self.clock, self.log = state, clock, Sink()
        self.begun: list[tuple[str, Cause, datetime]] = []
        self.outcome = "complete"
        self.retry_at: datetime | None = None
        self.during: Callable[[str], Awaitable[None]] | None = None
        self.fault: Exception | None = None
        self.idle = False
        self.stop = asyncio.Event()
        self.left = 1

    async def work(self, name: str, cause: Cause) -> None:
        self.begun.append((name, cause, self.clock.now()))
        try:
            if self.fault is not None:
                raise self.fault
            if not self.idle:
                await self.ran(name, cause)
        finally:
            self.left -= 1
            if self.left <= 0:
                self.stop.set()

    async def ran(self, name: str, cause: Cause, *, outcome: str | None = None) -> None:
        """A run in the state, as any process may leave it."""
        runs = self.state.runs
        run_id = await runs.start("schedule", self.clock.now(), entry=name, cause=str(cause))
        if self.during is not None:
            await self.during(name)
        self.clock.advance(60)
        if self.retry_at is not None:
            waiting = RunImageRecord("image", "deferred", retry_at=self.retry_at)
            await runs.record(run_id, [waiting])
            self.retry_at = None
        await runs.finish(run_id, outcome or self.outcome, self.clock.now(), images=1)

    def lock(self, name: str) -> FileLock:
        return FileLock(self.state.locks / f"{lock_name(name)}.lock")

    def scheduler(self) -> Scheduler:
        means = Means(self.state.runs, self.state.locks, self.work, self.clock, self.log)
        return Scheduler(means)

    async def keep(self, *entries: Entry, runs: int = 1) -> list[tuple[Cause, datetime]]:
        """Keep entries until so many runs have been made; why and when those were begun."""
        self.begun.clear()
        self.stop.clear()
        self.left = runs
        scheduler = self.scheduler()
        scheduler.keep(entries)
        async with asyncio.timeout(20):
            await scheduler.until(self.stop)
            await scheduler.close()
        return [(cause, at) for _, cause, at in self.begun]


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    state = await State.open(f"sqlite:///{tmp_path}/p.db", data_dir=tmp_path, clock=clock)
    state.locks.mkdir()
    yield World(state, clock)
    await state.close()


async def test_it_begins_at_once_and_goes_on_by_the_clock(world: World) -> None:
    assert await world.keep(HOURLY, runs=3) == [
        (Cause.FIRST, START),
        (Cause.TICK, START + HOUR),
        (Cause.TICK, START + 2 * HOUR),
    ]
    assert [line["cause"] for line in world.log.of("scheduled")][:2] == [Cause.FIRST, Cause.TICK]


async def test_jitter_puts_it_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    jittery = Entry("hourly", HOURLY.ticks, 600.0)
    begun = await world.keep(jittery, runs=3)
    late = timedelta(seconds=300)
    assert [at for _, at in begun] == [START, START + HOUR + late, START + 2 * HOUR + late]


async def test_down_over_ticks_it_catches_up_once(world: World) -> None:
    await world.keep(HOURLY)
    world.clock.advance(7.5 * 3600)
    assert await world.keep(HOURLY) == [(Cause.MISSED, world.clock.now() - timedelta(minutes=1))]
    again = await world.keep(HOURLY)
    assert again == [(Cause.TICK, START + 8 * HOUR)]


async def test_what_was_put_off_comes_before_the_tick(world: World) -> None:
    back = START + timedelta(minutes=20)
    world.outcome, world.retry_at = "deferred", back
    first, second = await world.keep(HOURLY, runs=2)
    assert first[0] is Cause.FIRST
    assert second[0] is Cause.RETRY
    assert back <= second[1] <= back + timedelta(seconds=60)


async def test_a_retry_survives_a_restart(world: World) -> None:
    back = START + timedelta(minutes=20)
    world.outcome, world.retry_at = "deferred", back
    await world.keep(HOURLY)
    ((cause, at),) = await world.keep(HOURLY)
    assert cause is Cause.RETRY
    assert back <= at <= back + timedelta(seconds=60)


async def test_what_is_run_elsewhere_is_skipped(world: World) -> None:
    await world.keep(HOURLY)
    elsewhere = world.lock("hourly")
    assert elsewhere.try_acquire()
    world.stop.clear()
    scheduler = world.scheduler()
    scheduler.keep([HOURLY])
    async with asyncio.timeout(20):
        while not world.log.of("skipped: it is being run already"):
            await asyncio.sleep(0)
        elsewhere.release()
        await scheduler.until(world.stop)
    await scheduler.close()
    assert len(world.log.of("skipped: it is being run already")) == 1
    # That tick is gone, although whoever held the lock has left no run.
    assert [(cause, at) for _, cause, at in world.begun[1:]] == [(Cause.TICK, START + 2 * HOUR)]


async def test_what_another_process_has_just_run_is_not_run_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = world.lock("hourly")
    assert elsewhere.try_acquire()
    sleep = world.clock.sleep

    async def ends_meanwhile(seconds: float) -> None:
        if elsewhere.held:
            await world.ran("hourly", Cause.FIRST)
            elsewhere.release()
        await sleep(seconds)

    # It comes to the lock, which is let go of while it waits for a moment.
    monkeypatch.setattr(world.clock, "sleep", ends_meanwhile)
    assert await world.keep(HOURLY) == [(Cause.TICK, START + HOUR)]
    assert world.log.of("skipped: it is being run already") == []


async def test_a_long_run_skips_the_ticks_in_it(world: World) -> None:
    async def for_long(_: str) -> None:
        world.clock.advance(2.5 * 3600)

    world.during = for_long
    begun = await world.keep(HOURLY, runs=2)
    assert begun[1] == (Cause.TICK, START + 3 * HOUR)


async def test_entries_run_beside_each_other(world: World) -> None:
    met = asyncio.Barrier(2)

    async def together(_: str) -> None:
        await met.wait()

    world.during = together
    await world.keep(HOURLY, Entry("other", HOURLY.ticks), runs=2)
    assert {name for name, _, _ in world.begun} == {"hourly", "other"}


async def test_what_was_cut_short_is_gone_on_with(world: World) -> None:
    await world.ran("hourly", Cause.TICK, outcome="interrupted")
    assert await world.keep(HOURLY) == [(Cause.RESUMED, START + MINUTE)]


async def test_what_is_cut_short_over_and_over_comes_ever_later(world: World) -> None:
    world.outcome = "interrupted"
    begun = await world.keep(HOURLY, runs=10)
    assert [cause for cause, _ in begun] == [Cause.FIRST] + [Cause.RESUMED] * 9
    # Each of them takes a minute.
    gaps = [(after[1] - before[1]).total_seconds() for before, after in itertools.pairwise(begun)]
    assert gaps == [60, 60, 60, 60, 60, 80, 160, 300, 300]


async def test_an_interval_counts_from_when_the_last_run_began(world: World) -> None:
    often = Entry("often", Interval(600.0))
    begun = await world.keep(often, runs=3)
    ten = timedelta(minutes=10)
    assert begun == [(Cause.FIRST, START), (Cause.TICK, START + ten), (Cause.TICK, START + 2 * ten)]
    # Killed and started again it goes on as before; down for long it catches up once.
    assert await world.keep(often) == [(Cause.TICK, START + 3 * ten)]
    world.clock.advance(3600)
    late = world.clock.now()
    assert await world.keep(often, runs=2) == [(Cause.MISSED, late), (Cause.TICK, late + ten)]


async def test_a_retry_is_no_run_of_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick that comes while images are tried again is not theirs."""
    monkeypatch.setattr(random, "uniform", lambda low, _: low)
    world.outcome, world.retry_at = "deferred", START + timedelta(minutes=59, seconds=30)
    begun = await world.keep(HOURLY, runs=3)
    assert [cause for cause, _ in begun] == [Cause.FIRST, Cause.RETRY, Cause.TICK]
    assert begun[2][1] - begun[1][1] == MINUTE


async def test_a_tick_is_not_covered_by_a_retry_elsewhere(world: World) -> None:
    await world.ran("hourly", Cause.FIRST)
    world.clock.advance(58 * 60)
    await world.state.runs.start("schedule", world.clock.now(), entry="hourly", cause="retry")
    elsewhere = world.lock("hourly")
    assert elsewhere.try_acquire()
    scheduler = world.scheduler()
    scheduler.keep([HOURLY])
    async with asyncio.timeout(20):
        while world.clock.now() < START + HOUR + timedelta(seconds=10):
            await asyncio.sleep(0)
        elsewhere.release()
        await scheduler.until(world.stop)
    await scheduler.close()
    (begun,) = world.begun[-1:]
    assert begun[2] < START + HOUR + MINUTE


@pytest.mark.parametrize("entry", [HOURLY, Entry("hourly", Interval(3600.0))])
@pytest.mark.parametrize("back", [timedelta(hours=3), timedelta(days=4000)])
async def test_a_clock_set_back_delays_nothing_for_long(
    world: World, entry: Entry, back: timedelta
) -> None:
    await world.keep(entry, runs=2)
    now = world.clock.now() - back
    world.clock.set_wall(now)
    begun = await world.keep(entry, runs=3)
    assert begun[0][1] <= now + HOUR
    gaps = [(after[1] - before[1]) for before, after in itertools.pairwise(begun)]
    assert gaps == [HOUR, HOUR]


@pytest.mark.parametrize("outcome", ["deferred", "interrupted"])
async def test_what_waits_is_not_forgotten_when_the_clock_is_set_back(
    world: World, outcome: str
) -> None:
    world.outcome, world.retry_at = outcome, START + timedelta(minutes=20)
    await world.keep(HOURLY)
    now = START - timedelta(days=4000)
    world.clock.set_wall(now)
    world.outcome = "complete"
    begun = await world.keep(HOURLY, runs=2)
    cause = Cause.RETRY if outcome == "deferred" else Cause.RESUMED
    # Once, although its row tells of an earlier time than the one before.
    assert begun == [(cause, now), (Cause.TICK, now + HOUR)]


async def test_a_clock_set_back_while_it_waits_is_noticed(world: World) -> None:
    """The machine's clock was years ahead until somebody told it the time."""
    await world.ran("hourly", Cause.FIRST)
    sleep, now = world.clock.sleep, START - timedelta(days=4000)
    scheduler = world.scheduler()

    async def told(seconds: float) -> None:
        await sleep(seconds)
        world.clock.sleep = sleep  # type: ignore[method-assign]
        world.clock.set_wall(now)

    world.clock.sleep = told  # type: ignore[method-assign]
    scheduler.keep([HOURLY])
    async with asyncio.timeout(20):
        await scheduler.until(world.stop)
    await scheduler.close()
    assert [(cause, at) for _, cause, at in world.begun] == [(Cause.TICK, now + HOUR)]


async def test_a_retry_that_fails_as_a_whole_forgets_nothing(world: World) -> None:
    back = START + timedelta(minutes=20)
    world.outcome, world.retry_at = "deferred", back
    await world.keep(HOURLY)
    runs = world.state.runs
    failed = await runs.start("schedule", back, entry="hourly", cause="retry")
    await runs.finish(failed, "failed", back)
    world.clock.set_wall(back)
    assert await runs.unsettled("hourly") == {"image"}
    assert await world.keep(HOURLY) == [(Cause.RETRY, back + timedelta(seconds=2))]


async def test_work_that_cannot_begin_is_tried_again_after_a_while(world: World) -> None:
    world.fault = StateError("the disk is full")
    begun = await world.keep(HOURLY, runs=3)
    assert [cause for cause, _ in begun] == [Cause.FIRST] * 3
    gaps = [after[1] - before[1] for before, after in itertools.pairwise(begun)]
    assert all(gap >= timedelta(seconds=60) for gap in gaps)
    assert world.log.of("the schedule waits")[0] == {
        "entry": "hourly",
        "reason": "the disk is full",
    }


async def test_work_that_leaves_nothing_is_not_begun_at_once_again(world: World) -> None:
    world.idle = True
    begun = await world.keep(HOURLY, runs=3)
    gaps = [after[1] - before[1] for before, after in itertools.pairwise(begun)]
    assert all(gap >= timedelta(seconds=60) for gap in gaps)


async def test_a_bug_is_not_swallowed(world: World) -> None:
    world.fault = KeyError("a bug")
    scheduler = world.scheduler()
    scheduler.keep([HOURLY])
    with pytest.raises(KeyError):
        await scheduler.until(asyncio.Event())
    await scheduler.close()


async def test_entries_come_and_go(world: World) -> None:
    await world.ran("hourly", Cause.FIRST)
    scheduler = world.scheduler()
    world.left = 2
    scheduler.keep([Entry("other", HOURLY.ticks)])
    scheduler.keep([Entry("hourly", Ticks("30 * * * *", "UTC"))])
    async with asyncio.timeout(20):
        await scheduler.until(world.stop)
    await scheduler.close()
    assert [(name, cause) for name, cause, _ in world.begun] == [("hourly", Cause.TICK)] * 2
    assert {at.minute for _, _, at in world.begun} == {30}


async def test_what_runs_when_it_is_closed_is_cut_short(world: World) -> None:
    begun = asyncio.Event()

    async def hangs(_: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    world.during = hangs
    scheduler = world.scheduler()
    scheduler.keep([HOURLY])
    await begun.wait()
    await scheduler.close()
    history = await world.state.runs.of_entry("hourly")
    assert [each.outcome for each in history.runs] == [None]
    lock = world.lock("hourly")
    assert lock.try_acquire()
    lock.release()


async def test_the_list_tells_what_was_and_what_comes(world: World) -> None:
    async def listed() -> dict[str, Any]:
        entries = [(HOURLY, None)]
        runs, locks = world.state.runs, world.state.locks
        (found,) = await statuses(entries, runs, locks, world.clock.now())
        return found.document()

    assert (await listed())["last"] is None
    assert (await listed())["cause"] == "first"
    back = START + timedelta(minutes=20)
    world.retry_at = back
    await world.ran("hourly", Cause.FIRST, outcome="deferred")
    document = await listed()
    (run_id,) = [each.id for each in (await world.state.runs.of_entry("hourly")).runs]
    assert document == {
        "name": "hourly",
        "cron": "0 * * * *",
        "every": None,
        "timezone": "UTC",
        "by": None,
        "lead": None,
        "by_at": None,
        "platforms": None,
        "jitter": 0.0,
        "next_at": "2026-01-01T00:20:00Z",
        "cause": "retry",
        "running": False,
        "last": {
            "run_id": run_id,
            "cause": "first",
            "outcome": "deferred",
            "started_at": "2026-01-01T00:00:00Z",
            "finished_at": "2026-01-01T00:01:00Z",
        },
        "deferred": 1,
        "retry_at": "2026-01-01T00:20:00Z",
    }
    with world.lock("hourly"):
        document = await listed()
    assert (document["running"], document["cause"]) == (True, "tick")
    assert document["next_at"] == "2026-01-01T01:00:00Z"


async def test_the_list_tells_of_deadlines(world: World) -> None:
    by = Ticks("0 6 * * *", "Asia/Kathmandu")
    entries = [
        (Entry("ahead", Ahead(by, 7200.0), by=by), None),
        (Entry("often", Interval(900.0), by=by), None),
    ]

    async def listed() -> list[dict[str, Any]]:
        found = await statuses(entries, world.state.runs, world.state.locks, world.clock.now())
        return [each.document() for each in found]

    # It has never been run: it comes at once, and has the rest of the day.
    assert [each["by_at"] for each in await listed()] == ["2026-01-01T00:15:00Z"] * 2
    await world.ran("ahead", Cause.FIRST)
    await world.ran("often", Cause.FIRST)
    world.clock.advance(1200.0)
    ahead, often = await listed()
    assert (ahead["cron"], ahead["every"], often["every"]) == (None, None, 900.0)
    assert ahead["timezone"] == often["timezone"] == "Asia/Kathmandu"
    assert (ahead["by"], ahead["lead"]) == ("0 6 * * *", 7200.0)
    assert (often["by"], often["lead"]) == ("0 6 * * *", None)
    assert (ahead["next_at"], ahead["cause"]) == ("2026-01-01T22:15:00Z", "tick")
    assert ahead["by_at"] == often["by_at"] == "2026-01-02T00:15:00Z"
    # Of a run that is under way it is its own.
    with world.lock("ahead"):
        ahead, _ = await listed()
    assert ahead["by_at"] == "2026-01-01T00:15:00Z"


async def test_what_was_missed_ahead_of_a_deadline_is_caught_up_before_it(world: World) -> None:
    by = Ticks("0 12 * * *", "UTC")
    ahead = Entry("ahead", Ahead(by, 7200.0), jitter=60.0, by=by)
    await world.ran("ahead", Cause.FIRST)
    history = await world.state.runs.of_entry("ahead", REMEMBERED)
    plan = next_run(ahead, history, START + timedelta(hours=11))
    assert (plan.cause, plan.at) == (Cause.MISSED, START + timedelta(hours=11))


async def test_the_list_tells_of_intervals_and_platforms(world: World) -> None:
    often = Entry("often", Interval(900.0))
    await world.ran("often", Cause.FIRST)
    runs, locks = world.state.runs, world.state.locks
    entries = [(often, ALL), (often, (Platform.parse("linux/arm64"),))]
    every, one = await statuses(entries, runs, locks, world.clock.now())
    document = every.document()
    assert (document["cron"], document["every"], document["timezone"]) == (None, 900.0, None)
    assert (document["platforms"], one.document()["platforms"]) == (["all"], ["linux/arm64"])
    assert (document["next_at"], document["cause"]) == ("2026-01-01T00:15:00Z", "tick")
    with world.lock("often"):
        running, _ = await statuses(entries, runs, locks, world.clock.now())
    assert running.document()["next_at"] == "2026-01-01T00:15:00Z"
