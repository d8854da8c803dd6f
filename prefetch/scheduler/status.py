"""What `prefetch schedule --list` shows: the entries, what they did, and what is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prefetch.clock import rfc3339, rfc3339_due
from prefetch.filelock import Lease
from prefetch.oci.platform import PlatformSet
from prefetch.scheduler.keeper import lock_name
from prefetch.scheduler.plan import REMEMBERED, Cause, Entry, Plan, next_run, next_tick
from prefetch.scheduler.ticks import Ahead
from prefetch.sources.selector import platforms_words
from prefetch.state.records import EntryHistory, RunRecord
from prefetch.state.runs import Runs

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """An entry of the schedule; `platforms` are its own, `plan` is what comes next, less jitter.

    `by_at` is the deadline of the run that is under way, or of the next one.
    """

    entry: Entry
    platforms: PlatformSet | None
    history: EntryHistory
    plan: Plan
    running: bool
    by_at: datetime | None = None

    @property
    def last(self) -> RunRecord | None:
        """Its latest run."""
        return self.history.runs[0] if self.history.runs else None

    def document(self) -> JSON:
        """One object of `schedule --list -o json`."""
        return {
            "name": self.entry.name,
            **self.entry.ticks.document(),
            **_deadlines(self.entry),
            "by_at": self.by_at and rfc3339(self.by_at),
            "platforms": None if self.platforms is None else platforms_words(self.platforms),
            "jitter": self.entry.jitter,
            "next_at": rfc3339_due(self.plan.at),
            "cause": str(self.plan.cause),
            "running": self.running,
            "last": None if self.last is None else _last(self.last),
            "deferred": self.history.deferred,
            "retry_at": self.history.retry_at and rfc3339_due(self.history.retry_at),
        }


def _deadlines(entry: Entry) -> JSON:
    lead = entry.ticks.seconds if isinstance(entry.ticks, Ahead) else None
    if entry.by is None:
        return {"by": None, "lead": lead}
    return {"timezone": entry.by.timezone, "by": entry.by.cron, "lead": lead}


def _last(run: RunRecord) -> JSON:
    return {
        "run_id": run.id,
        "cause": run.cause,
        "outcome": run.outcome,
        "started_at": rfc3339(run.started_at),
        "finished_at": run.finished_at and rfc3339(run.finished_at),
    }


async def statuses(
    entries: Sequence[tuple[Entry, PlatformSet | None]], runs: Runs, locks: Path, now: datetime
) -> list[Status]:
    """Each entry, given with its platforms, as the state has it; `locks` is the state's lock files'
    directory.
    """
    found = []
    for entry, platforms in entries:
        history = await runs.of_entry(entry.name, REMEMBERED)
        running = Lease.alive(locks, lock_name(entry.name))
        # What a run under way puts off is not known yet.
        tick = Plan(next_tick(entry, history, now), Cause.TICK)
        plan = tick if running else next_run(entry, history, now)
        begins = history.runs[0].started_at if running and history.runs else max(plan.at, now)
        by_at = None if entry.by is None else entry.by.after(begins)
        found.append(Status(entry, platforms, history, plan, running, by_at))
    return found
