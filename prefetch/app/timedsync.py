"""One run of an entry of the schedule: what `sync`, or with a deadline `warm`, does with its
sources."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from prefetch.app.moments import Zone
from prefetch.app.noticing import failing_aloud, open_noticing_runtime
from prefetch.app.requests import Place
from prefetch.app.runlog import tell_deadline, tell_end, tell_failure, telling
from prefetch.app.runtime import Runtime
from prefetch.app.selecting import read_specs
from prefetch.app.signals import first_cause
from prefetch.app.sync import Job, sync_all
from prefetch.app.warm import Warming
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
            only = await self._only(runs)
            run_id = await runs.start(
                "schedule", clock.now(), entry=self.entry.name, cause=str(self.cause)
            )
            facts = {"entry": self.entry.name, "run": run_id}
            self.log.info("sync", **facts, cause=self.cause)
            try:
                with failing_aloud(runtime, run_id):
                    report, deadline = await self._sync(runtime, run_id, only)
            except asyncio.CancelledError:
                await runs.finish(run_id, "interrupted", clock.now())
                self.log.info("sync ended", **facts, outcome="interrupted")
                raise
            except Exception as error:  # noqa: BLE001 - no entry may end the schedule of the others
                await runs.finish(run_id, "failed", clock.now())
                tell_failure(self.log, facts, first_cause(error))
            else:
                tell_end(self.log, self.entry.name, report, deadline)

    async def _only(self, runs: Runs) -> frozenset[str] | None:
        """The references that the run is about; None: all."""
        name = self.entry.name
        if self.cause is not Cause.RETRY:
            return None
        whole = (await runs.of_entry(name, REMEMBERED)).whole
        if self.entry.by is not None and whole is not None and not whole.images:
            # It had failed before it looked at any, and is tried again as what it was.
            return None
        return await runs.unsettled(name)

    async def _sync(
        self, runtime: Runtime, run_id: str, only: frozenset[str] | None
    ) -> tuple[SyncReport, Deadline | None]:
        settings, entry = self.settings, self.entry
        parsed = await read_specs(
            entry.sources or settings.sources, settings, by_nodes=entry.platforms is None
        )
        for note in parsed.notes:
            runtime.emit(Remark(str(note)))
        platforms = settings.platforms if entry.platforms is None else entry.platforms
        job = Job(run_id, parsed, platforms, Patience(), only)
        if entry.by is None:
            return await sync_all(runtime, job, self.stopping), None
        facts = {"entry": entry.name, "run": run_id}
        warming = Warming(
            Ticks(entry.by, entry.timezone).after(runtime.clock.now()),
            Zone(entry.timezone),
            strict=False,
            wait=True,
            tell=lambda deadline: tell_deadline(self.log, facts, deadline),
        )
        warmed = await warming.run(runtime, job, self.stopping)
        return warmed.sync, warmed.deadline
