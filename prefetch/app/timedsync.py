"""One run of an entry of the schedule: what `sync`, or with a deadline `warm`, does with its
sources."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from prefetch.app.noticing import failing_aloud, open_noticing_runtime, why_failed
from prefetch.app.requests import Place
from prefetch.app.runlog import tell_deadline, tell_end, tell_failure, telling
from prefetch.app.runtime import Runtime
from prefetch.app.selecting import read_specs
from prefetch.app.signals import first_cause
from prefetch.app.sync import Job, sync_all
from prefetch.app.timedwarm import TimedWarm
from prefetch.config.settings import ScheduleEntry, Settings
from prefetch.events import Remark
from prefetch.ratelimit.pace import Pace
from prefetch.scheduler.plan import REMEMBERED, Cause
from prefetch.scheduler.ticks import Ticks
from prefetch.server.accesslog import ServerLog
from prefetch.state.records import EntryHistory
from prefetch.sync.admission import Patience


@dataclass(frozen=True, slots=True)
class TimedSync:
    """A run of `entry`, which is one of the settings', and where it is told of.

    `stopping` says whether a cancellation means that the run is to end in order.
    """

    settings: Settings
    place: Place
    entry: ScheduleEntry
    cause: Cause
    log: ServerLog
    stopping: Callable[[], bool]

    async def run(self) -> None:
        """Run it, and tell what became of it. Raises what keeps it from being begun at all:
        StoreError, StateError and OSError."""
        emit = telling(self.log, self.entry.name)
        # A deadline is for spending at once, whatever the registries' pace.
        pace = Pace.BURST if self.entry.by is not None else self.entry.pace
        place = self.place if pace is None else replace(self.place, pace=pace)
        # What it has to say is sent by the process that keeps the schedule.
        async with open_noticing_runtime(
            self.settings, place, emit, entry=self.entry.name, deliver=False
        ) as runtime:
            runs, clock, name = runtime.state.runs, runtime.clock, self.entry.name
            began = clock.now()
            history, left = await runs.of_entry(name, REMEMBERED), await runs.unsettled(name)
            warm = self._deadline(began)
            if warm is not None and history.runs:
                warm.look_back(runtime, history.runs[0], left)
            only = self._only(history, left)
            run_id = await runs.start("schedule", began, entry=name, cause=str(self.cause))
            facts = {"entry": name, "run": run_id}
            self.log.info("sync", **facts, cause=self.cause)
            try:
                with failing_aloud(runtime, run_id):
                    job = await self._job(runtime, run_id, only)
                    if warm is None:
                        report, deadline = await sync_all(runtime, job, self.stopping), None
                    else:
                        tell = partial(tell_deadline, self.log, facts)
                        warmed = await warm.run(runtime, job, self.stopping, tell)
                        report, deadline = warmed.sync, warmed.deadline
            except asyncio.CancelledError:
                await runs.finish(run_id, "interrupted", clock.now())
                self.log.info("sync ended", **facts, outcome="interrupted")
                raise
            except Exception as error:  # noqa: BLE001 - no entry may end the schedule of the others
                await runs.finish(run_id, "failed", clock.now())
                tell_failure(self.log, facts, first_cause(error))
                if warm is not None:
                    warm.fail(runtime, why_failed(error))
            else:
                tell_end(self.log, facts, report, deadline)

    def _deadline(self, began: datetime) -> TimedWarm | None:
        by, zone = self.entry.by, self.entry.timezone
        return None if by is None else TimedWarm(Ticks(by, zone), zone, began)

    def _only(self, history: EntryHistory, left: frozenset[str]) -> frozenset[str] | None:
        """The references that the run is about; None: all."""
        if self.cause is not Cause.RETRY:
            return None
        whole = history.whole
        if self.entry.by is not None and whole is not None and whole.outcome == "failed":
            # Perhaps there is more than it came to know of.
            return None
        return left

    async def _job(self, runtime: Runtime, run_id: str, only: frozenset[str] | None) -> Job:
        settings, entry = self.settings, self.entry
        parsed = await read_specs(
            entry.sources or settings.sources, settings, by_nodes=entry.platforms is None
        )
        for note in parsed.notes:
            runtime.emit(Remark(str(note)))
        platforms = settings.platforms if entry.platforms is None else entry.platforms
        return Job(run_id, parsed, platforms, Patience(), only)
