"""One run of an entry of the schedule: what `sync`, or with a deadline `warm`, does with its
sources."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from prefetch.app.noticing import failing_aloud, open_noticing_runtime, why_failed
from prefetch.app.requests import Place
from prefetch.app.runlog import tell_end, tell_failure, telling
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
from prefetch.state.runs import Runs
from prefetch.sync.admission import Patience
from prefetch.sync.deadlinereport import Deadline
from prefetch.sync.report import SyncReport


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
            runs, clock = runtime.state.runs, runtime.clock
            began = clock.now()
            warm = await self._deadline(runtime, began)
            only = await self._only(runs)
            run_id = await runs.start(
                "schedule", began, entry=self.entry.name, cause=str(self.cause)
            )
            facts = {"entry": self.entry.name, "run": run_id}
            self.log.info("sync", **facts, cause=self.cause)
            try:
                with failing_aloud(runtime, run_id):
                    report, deadline = await self._sync(runtime, run_id, only, warm)
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
                tell_end(self.log, self.entry.name, report, deadline)

    async def _deadline(self, runtime: Runtime, began: datetime) -> TimedWarm | None:
        entry, runs = self.entry, runtime.state.runs
        if entry.by is None:
            return None
        warm = TimedWarm(Ticks(entry.by, entry.timezone), entry.timezone, began)
        history = await runs.of_entry(entry.name, 1)
        if history.runs:
            warm.look_back(runtime, history.runs[0], await runs.unsettled(entry.name))
        return warm

    async def _only(self, runs: Runs) -> frozenset[str] | None:
        """The references that the run is about; None: all."""
        name = self.entry.name
        if self.cause is not Cause.RETRY:
            return None
        whole = (await runs.of_entry(name, REMEMBERED)).whole
        if self.entry.by is not None and whole is not None and whole.outcome == "failed":
            # Perhaps there is more than it came to know of.
            return None
        return await runs.unsettled(name)

    async def _sync(
        self, runtime: Runtime, run_id: str, only: frozenset[str] | None, warm: TimedWarm | None
    ) -> tuple[SyncReport, Deadline | None]:
        settings, entry = self.settings, self.entry
        parsed = await read_specs(
            entry.sources or settings.sources, settings, by_nodes=entry.platforms is None
        )
        for note in parsed.notes:
            runtime.emit(Remark(str(note)))
        platforms = settings.platforms if entry.platforms is None else entry.platforms
        job = Job(run_id, parsed, platforms, Patience(), only)
        if warm is None:
            return await sync_all(runtime, job, self.stopping), None
        warmed = await warm.run(runtime, job, self.stopping, self.log, entry.name)
        return warmed.sync, warmed.deadline
