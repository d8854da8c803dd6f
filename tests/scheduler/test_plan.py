from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from prefetch.scheduler.plan import REMEMBERED, Cause, Entry, Plan, next_run
from prefetch.scheduler.ticks import Ahead, Interval, Ticks
from prefetch.state.records import EntryHistory, RunRecord

NIGHTLY = Entry("nightly", Ticks("0 3 * * *", "UTC"), jitter=300.0)
EVERY_SIX_HOURS = Entry("often", Interval(6 * 3600.0))
NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)
TICK = datetime(2026, 5, 6, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def run(started: datetime, outcome: str | None = "complete", **facts: Any) -> RunRecord:
    finished = None if outcome is None else started + MINUTE
    return RunRecord("id", "schedule", started, finished, outcome, **facts)


def planned(
    *runs: RunRecord, now: datetime = NOON, covered: datetime | None = None, **waiting: Any
) -> Plan:
    return next_run(NIGHTLY, EntryHistory(runs, **waiting), now, covered=covered)


def test_an_entry_that_has_never_been_run_is_run_at_once() -> None:
    assert planned() == Plan(NOON, Cause.FIRST)


def test_then_at_the_next_tick_with_its_jitter() -> None:
    assert planned(run(NOON - MINUTE)) == Plan(TICK, Cause.TICK, 300.0)


@pytest.mark.parametrize("days", [1, 2, 40])
def test_ticks_that_were_missed_are_caught_up_once(days: int) -> None:
    assert planned(run(NOON - timedelta(days=days))) == Plan(NOON, Cause.MISSED, 300.0)
    # Begun at noon, it has them all behind it.
    assert planned(run(NOON), now=NOON + MINUTE).at == TICK


def test_a_tick_that_has_only_just_passed_is_no_missed_one() -> None:
    now = TICK + timedelta(seconds=5)
    assert planned(run(NOON), now=now) == Plan(TICK, Cause.TICK, 300.0)


def test_a_long_run_covers_the_ticks_until_its_end() -> None:
    began = TICK - timedelta(hours=2)
    last = RunRecord("id", "schedule", began, TICK + 3 * MINUTE, "complete")
    assert planned(last, now=TICK + 4 * MINUTE).at == TICK + timedelta(days=1)


def test_a_skipped_tick_is_covered() -> None:
    went_on = run(TICK - MINUTE, "complete")
    now = TICK + timedelta(seconds=1)
    assert planned(went_on, now=now, covered=now).at == TICK + timedelta(days=1)


@pytest.mark.parametrize("outcome", [None, "interrupted"])
def test_what_was_cut_short_is_gone_on_with_at_once(outcome: str | None) -> None:
    for before in (timedelta(hours=1), timedelta(seconds=1)):
        plan = planned(run(NOON - before, outcome))
        assert plan == Plan(NOON, Cause.RESUMED)


def test_but_not_ever_faster_should_it_be_what_ends_the_process() -> None:
    runs, pauses = [run(NOON - timedelta(hours=1))], []
    for _ in range(9):
        runs.insert(0, run(NOON, None))
        plan = planned(*runs)
        assert plan.cause is Cause.RESUMED
        pauses.append((plan.at - NOON).total_seconds())
    assert pauses == [0, 5, 10, 20, 40, 80, 160, 300, 300]
    # The pause is counted from when the last one began.
    assert planned(*runs, now=NOON + timedelta(seconds=301)).at == NOON + timedelta(seconds=301)


def test_what_was_put_off_is_tried_again_when_the_budget_is_back() -> None:
    back = NOON + timedelta(hours=1)
    plan = planned(run(NOON - MINUTE, "deferred"), deferred=3, retry_at=back)
    assert (plan.at, plan.cause) == (back, Cause.RETRY)
    assert plan.spread == pytest.approx(60)
    soon = planned(run(NOON - MINUTE, "failed"), deferred=1, retry_at=NOON + timedelta(seconds=10))
    # In tens of seconds the caches behind one address are not far apart.
    assert (soon.cause, soon.spread) == (Cause.RETRY, pytest.approx(0.2))


def test_a_tick_that_comes_before_the_retry_goes_first() -> None:
    plan = planned(run(NOON, "deferred"), deferred=1, retry_at=TICK + MINUTE)
    assert plan.cause is Cause.TICK


BY = Ticks("0 22 * * *", "UTC")
DRAIN = Entry("drain", Ahead(BY, 12 * 3600.0), by=BY)


def test_ahead_of_a_deadline_what_has_failed_is_tried_again_ever_later() -> None:
    runs, now, pauses = [run(NOON - MINUTE, "failed")], NOON, []
    while len(runs) < 30:
        plan = next_run(DRAIN, EntryHistory(tuple(runs[:REMEMBERED]), whole=runs[0]), now)
        if plan.cause is not Cause.RESUMED:
            break
        pauses.append((plan.at - now) / MINUTE)
        runs.insert(0, run(plan.at, "failed", cause="resumed"))
        now = plan.at + MINUTE
    assert pauses == [1, 2, 5, 11, 23, 47, *[60] * 8]
    # No longer in time: it comes ahead of the next one.
    assert (plan.cause, plan.at) == (Cause.TICK, NOON + timedelta(hours=22))
    done = (run(NOON - MINUTE, cause="resumed"), *runs)
    assert next_run(DRAIN, EntryHistory(done, whole=runs[-1]), NOON).cause is Cause.TICK
    # Nor is it once the deadline has passed and nobody was there.
    failed = run(NOON - MINUTE, "failed")
    late = next_run(DRAIN, EntryHistory((failed,), whole=failed), NOON + timedelta(hours=11))
    assert late == Plan(NOON + timedelta(hours=22), Cause.TICK)
    # Without one it waits for its time.
    assert planned(run(NOON - MINUTE, "failed")).cause is Cause.TICK


def test_a_run_covers_no_tick_that_is_for_another_deadline() -> None:
    entry = Entry("drain", Ahead(BY, 24 * 3600.0), by=BY)
    # It was cut short at its own deadline, a moment after the tick for the next one.
    ten = NOON + timedelta(hours=10)
    last = RunRecord("id", "schedule", NOON, ten + timedelta(seconds=1), "deferred")
    plan = next_run(entry, EntryHistory((last,), whole=last), ten + timedelta(seconds=2))
    assert plan == Plan(ten, Cause.TICK)


def test_jitter_leaves_at_least_half_of_the_time() -> None:
    entry = Entry("drain", Ahead(BY, 12 * 3600.0), jitter=11 * 3600.0, by=BY)
    last = run(NOON - timedelta(days=2))
    history = EntryHistory((last,), whole=last)
    missed = next_run(entry, history, NOON + timedelta(hours=9))
    assert (missed.cause, missed.spread) == (Cause.MISSED, 1800.0)
    tick = next_run(entry, EntryHistory((run(NOON),), whole=run(NOON)), NOON + MINUTE)
    assert (tick.cause, tick.spread) == (Cause.TICK, 6 * 3600.0)


def test_without_a_moment_there_is_no_retry() -> None:
    assert planned(run(NOON - MINUTE, "deferred"), deferred=1).cause is Cause.TICK


def test_retries_that_bring_nothing_come_ever_later() -> None:
    runs = [run(NOON - timedelta(hours=2), "deferred", cause="tick")]
    pauses = []
    for _ in range(12):
        runs.insert(0, run(NOON - MINUTE, "deferred", cause="retry"))
        plan = planned(*runs, deferred=1, retry_at=NOON - MINUTE)
        pauses.append((plan.at - NOON).total_seconds())
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    # One that brings something is a sign that the forecast is good.
    runs.insert(0, run(NOON - MINUTE, "deferred", cause="retry", pulls=1))
    plan = planned(*runs, deferred=1, retry_at=NOON - MINUTE)
    assert plan.at == NOON + timedelta(seconds=1)


def test_a_day_after_it_was_put_off_at_the_latest() -> None:
    """Whatever moment a registry has named."""
    monthly = Entry("monthly", Ticks("0 3 1 * *", "UTC"))
    last = run(NOON - MINUTE, "deferred")
    history = EntryHistory((last,), 1, NOON + timedelta(days=4000))
    plan = next_run(monthly, history, NOON)
    assert (plan.at, plan.cause) == (NOON + timedelta(days=1), Cause.RETRY)


def test_a_clock_that_was_set_back_stops_nothing() -> None:
    future = NOON + timedelta(days=30)
    assert planned(run(future)).at == TICK
    assert planned(run(future, None)).at == NOON
    plan = planned(run(future, "deferred"), deferred=1, retry_at=future)
    assert plan == Plan(NOON, Cause.RETRY)
    history = EntryHistory((run(future),))
    assert next_run(EVERY_SIX_HOURS, history, NOON) == Plan(NOON, Cause.TICK)
    # A second or two is no news.
    history = EntryHistory((run(NOON + timedelta(seconds=2)),))
    assert next_run(EVERY_SIX_HOURS, history, NOON).at > NOON + timedelta(hours=5)


def test_an_interval_keeps_to_the_beginnings() -> None:
    def at(last: RunRecord, now: datetime) -> Plan:
        return next_run(EVERY_SIX_HOURS, EntryHistory((last,)), now)

    six = timedelta(hours=6)
    assert at(run(NOON), NOON + MINUTE) == Plan(NOON + six, Cause.TICK)
    # One that takes longer covers what comes in it, as with a crontab's line.
    long = RunRecord("id", "schedule", NOON, NOON + 2 * six + MINUTE, "complete")
    assert at(long, NOON + 2 * six + 2 * MINUTE) == Plan(NOON + 3 * six, Cause.TICK)
    assert at(run(NOON), NOON + timedelta(days=9)).cause is Cause.MISSED


def test_clocks_that_are_changed_for_summer_do_not_touch_an_interval() -> None:
    before = datetime(2026, 3, 28, 23, 30, tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))
    history = EntryHistory((run(before),))
    plan = next_run(EVERY_SIX_HOURS, history, before + MINUTE)
    assert plan.at == datetime(2026, 3, 29, 5, 30, tzinfo=UTC)


def test_retries_do_not_move_what_comes_for_all_images() -> None:
    whole = run(NOON - timedelta(hours=2))
    history = EntryHistory((run(NOON - MINUTE, cause="retry"),), whole=whole)
    assert next_run(EVERY_SIX_HOURS, history, NOON).at == NOON + timedelta(hours=4)


def test_of_two_that_are_due_the_one_for_all_images_goes_first() -> None:
    last = run(NOON - timedelta(days=1), "deferred")
    waiting = EntryHistory((last,), 1, NOON - timedelta(hours=8))
    assert next_run(EVERY_SIX_HOURS, waiting, NOON).cause is Cause.MISSED
    # Unless jitter would put it off.
    assert next_run(NIGHTLY, waiting, NOON).cause is Cause.RETRY
