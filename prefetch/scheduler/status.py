"""What `prefetch schedule --list` shows: the entries, what they did, and what is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prefetch.clock import rfc3339, rfc3339_due
from prefetch.filelock import Lease
from prefetch.scheduler.keeper import lock_name
from prefetch.scheduler.plan import REMEMBERED, Cause, Entry, Plan, next_run
from prefetch.state.records import EntryHistory, RunRecord
from prefetch.state.runs import Runs

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """An entry of the schedule; `cron` is its line, `plan` what comes next, less any jitter."""

    entry: Entry
    cron: str
    history: EntryHistory
    plan: Plan
    running: bool

    @property
    def last(self) -> RunRecord | None:
        """Its latest run."""
        return self.history.runs[0] if self.history.runs else None

    def document(self) -> JSON:
        """One object of `schedule --list -o json`."""
        return {
            "name": self.entry.name,
            "cron": self.cron,
            "timezone": self.entry.ticks.timezone,
            "jitter": self.entry.jitter,
            "next_at": rfc3339_due(self.plan.at),
            "cause": str(self.plan.cause),
            "running": self.running,
            "last": None if self.last is None else _last(self.last),
            "deferred": self.history.deferred,
            "retry_at": self.history.retry_at and rfc3339_due(self.history.retry_at),
        }


def _last(run: RunRecord) -> JSON:
    return {
        "run_id": run.id,
        "cause": run.cause,
        "outcome": run.outcome,
        "started_at": rfc3339(run.started_at),
        "finished_at": run.finished_at and rfc3339(run.finished_at),
    }


async def statuses(
    entries: Sequence[tuple[Entry, str]], runs: Runs, locks: Path, now: datetime
) -> list[Status]:
    """Each entry, given with its line, as the state has it; `locks` is the state's directory."""
    found = []
    for entry, cron in entries:
        history = await runs.of_entry(entry.name, REMEMBERED)
        running = Lease.alive(locks, lock_name(entry.name))
        # What is under way covers the ticks until now; what it puts off is not known yet.
        tick = Plan(entry.ticks.after(now), Cause.TICK)
        plan = tick if running else next_run(entry, history, now)
        found.append(Status(entry, cron, history, plan, running))
    return found
