"""When an entry of the schedule is to run next, and why: pure, from its line and its history.

What has become of an entry is in the state alone, so every process that has the same schedule
comes to the same answer, and so does one that has been started again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from prefetch.scheduler.ticks import Ticks, Times
from prefetch.state.records import EntryHistory, RunRecord

REMEMBERED = 12
"""So many of an entry's latest runs are looked at."""

# A sync that ends its process, by the memory that it takes, must not do so ever faster: the second
# run in a row that is cut short is gone on with so long after it began, each further one later.
_RESUME_PAUSE = timedelta(seconds=5)
# Retries in a row that bring nothing come ever later: the forecast is a guess.
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=5)
# Ahead of a deadline what has failed is tried again, too, ever later: it may cost pulls.
_FIRST_ATTEMPT = timedelta(minutes=1)
_LONGEST_ATTEMPT = timedelta(hours=1)
# Whatever a registry says of its budget's return, it is asked again a day later.
_LONGEST_WAIT = timedelta(days=1)
# A tick that we come to so much later has been missed; of a run that lies so far in the future
# nobody knows how long ago it was, since the clock has been set back.
_LATE = timedelta(seconds=60)
_A_MOMENT = timedelta(microseconds=1)
# Caches behind one address, whose budget comes back at one moment, do not all ask at that moment.
_RETRY_SPREAD = 0.02
_LONGEST_SPREAD = 60.0


class Cause(StrEnum):
    """Why an entry is run: it is its time, it has never been run, a tick has been missed, the last
    run was cut short (or has failed, and there is a deadline), or budget for what that has put off
    should be back.

    A retry asks for what the last run has not brought to a good end; all others for everything.
    """

    TICK = "tick"
    FIRST = "first"
    MISSED = "missed"
    RESUMED = "resumed"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the schedule: when it comes, and by how many seconds at most it is put off.

    `by` are the moments that everything is to be warm by: by the first after a run has begun.
    """

    name: str
    ticks: Times
    jitter: float = 0.0
    by: Ticks | None = None


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
    plans = [_tick(entry, history.whole or last, now, covered)]
    if _cut_short(last):
        plans.append(_resumption(history.runs, now))
    elif history.deferred and history.retry_at is not None:
        plans.append(_retry(history.runs, history.retry_at, now))
    if entry.by is not None and last.outcome == "failed":
        plans += _attempt(entry.by, history.runs, now)
    # Of two that are due, the one that waits for less.
    return min(plans, key=lambda plan: (max(plan.at, now), plan.spread))


def next_tick(entry: Entry, history: EntryHistory, now: datetime) -> datetime:
    """The first tick after now, for an entry that has been, or is being, run."""
    return entry.ticks.after(now, min(history.whole.started_at, now) if history.whole else now)


def _tick(entry: Entry, whole: RunRecord, now: datetime, covered: datetime | None) -> Plan:
    """The first tick that no run of everything has covered; what was missed, once and now."""
    since = max(whole.finished_at or whole.started_at, covered or whole.started_at)
    if entry.by is not None:
        # It was for that deadline, and for no other.
        since = min(since, entry.by.after(whole.started_at) - _A_MOMENT)
    began = None if _lies_ahead(whole.started_at, now) else whole.started_at
    tick = entry.ticks.after(min(since, now), began)
    if tick <= now - _LATE:
        return Plan(now, Cause.MISSED, _jitter(entry, now))
    return Plan(tick, Cause.TICK, _jitter(entry, tick))


def _jitter(entry: Entry, at: datetime) -> float:
    """What is put off for no good reason must not eat up the time that is left."""
    if entry.by is None:
        return entry.jitter
    return min(entry.jitter, (entry.by.after(at) - at).total_seconds() / 2)


def _resumption(runs: Sequence[RunRecord], now: datetime) -> Plan:
    """At once, unless runs are cut short again and again."""
    times = sum(1 for _ in itertools.takewhile(_cut_short, runs))
    pause = min(_RESUME_PAUSE * 2 ** (times - 2), _LONGEST_PAUSE) if times > 1 else timedelta()
    return Plan(max(min(runs[0].started_at, now) + pause, now), Cause.RESUMED)


def _retry(runs: Sequence[RunRecord], retry_at: datetime, now: datetime) -> Plan:
    ended = runs[0].finished_at or runs[0].started_at
    if _lies_ahead(ended, now):
        return Plan(now, Cause.RETRY)
    fruitless = sum(
        1 for _ in itertools.takewhile(lambda run: run.cause == Cause.RETRY and not run.pulls, runs)
    )
    earliest = ended + min(_FIRST_PAUSE * 2**fruitless, _LONGEST_PAUSE)
    wait = min(retry_at - ended, _LONGEST_WAIT)
    spread = max(0.0, min(_RETRY_SPREAD * wait.total_seconds(), _LONGEST_SPREAD))
    return Plan(max(ended + wait, earliest), Cause.RETRY, spread)


def _attempt(by: Ticks, runs: Sequence[RunRecord], now: datetime) -> list[Plan]:
    """The next attempt at all of what has failed, if there is time for one."""
    failed = list(itertools.takewhile(lambda run: run.outcome == "failed", runs))
    last, first = (min(run.finished_at or run.started_at, now) for run in (failed[0], failed[-1]))
    at = last + min(max(last - first, _FIRST_ATTEMPT), _LONGEST_ATTEMPT)
    in_time = max(at, now) < by.after(min(runs[0].started_at, now))
    return [Plan(at, Cause.RESUMED)] if in_time else []


def _cut_short(run: RunRecord) -> bool:
    return run.outcome in (None, "interrupted")


def _lies_ahead(moment: datetime, now: datetime) -> bool:
    return moment > now + _LATE
