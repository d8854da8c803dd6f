"""When an entry of the schedule is to run next, and why: pure, from its line and its history.

What has become of an entry is in the state alone, so every process that has the same schedule
comes to the same answer, and so does one that has been started again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from prefetch.scheduler.ticks import Ticks
from prefetch.state.records import EntryHistory, RunRecord

REMEMBERED = 12
"""So many of an entry's latest runs are looked at."""

# A sync that ends its process, or that is killed with it, must not be begun again ever faster.
_RESUME_AFTER = timedelta(seconds=60)
# Retries in a row that bring nothing come ever later: the forecast is a guess.
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=5)
# A tick that we come to so much later has been missed.
_LATE = timedelta(seconds=60)
# Caches behind one address, whose budget comes back at one moment, do not all ask at that moment.
_RETRY_SPREAD = 0.02
_LONGEST_SPREAD = 60.0


class Cause(StrEnum):
    """Why an entry is run: it is its time, it has never been run, a tick has been missed, the last
    run was cut short, or budget for what that has put off should be back."""

    TICK = "tick"
    FIRST = "first"
    MISSED = "missed"
    RESUMED = "resumed"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the schedule: when it comes, and by how many seconds at most it is put off."""

    name: str
    ticks: Ticks
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The next run: not before `at`, and at random up to `spread` seconds later."""

    at: datetime
    cause: Cause
    spread: float = 0.0


def next_run(
    entry: Entry, history: EntryHistory, now: datetime, *, covered: datetime | None = None
) -> Plan:
    """What comes first for the entry. `covered`: until then ticks have been dealt with."""
    if not history.runs:
        return Plan(now, Cause.FIRST)
    last = history.runs[0]
    plans = [_tick(entry, last, now, covered)]
    if last.outcome in (None, "interrupted"):
        # Should the clock have been set back, it is in the future.
        began = min(last.started_at, now)
        plans.append(Plan(max(began + _RESUME_AFTER, now), Cause.RESUMED))
    elif history.deferred and history.retry_at is not None:
        plans.append(_retry(history.runs, history.retry_at, now))
    return min(plans, key=lambda plan: plan.at)


def _tick(entry: Entry, last: RunRecord, now: datetime, covered: datetime | None) -> Plan:
    """The first tick that no run has covered; what was missed, once and now."""
    since = max(last.finished_at or last.started_at, covered or last.started_at)
    tick = entry.ticks.after(min(since, now))
    if tick <= now - _LATE:
        return Plan(now, Cause.MISSED, entry.jitter)
    return Plan(tick, Cause.TICK, entry.jitter)


def _retry(runs: tuple[RunRecord, ...], retry_at: datetime, now: datetime) -> Plan:
    fruitless = sum(
        1 for _ in itertools.takewhile(lambda run: run.cause == Cause.RETRY and not run.pulls, runs)
    )
    ended = min(runs[0].finished_at or runs[0].started_at, now)
    earliest = ended + min(_FIRST_PAUSE * 2**fruitless, _LONGEST_PAUSE)
    wait = (retry_at - ended).total_seconds()
    spread = max(0.0, min(_RETRY_SPREAD * wait, _LONGEST_SPREAD))
    return Plan(max(retry_at, earliest), Cause.RETRY, spread)
