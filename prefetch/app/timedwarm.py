"""The deadline of a run of the schedule: what it is, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from prefetch.app.moments import Zone
from prefetch.app.runtime import Runtime
from prefetch.app.sync import Job
from prefetch.app.warm import TIME_HAS_COME, Tell, Warming, WarmReport
from prefetch.events import DeadlineMissed
from prefetch.scheduler.ticks import Ticks
from prefetch.state.records import RunRecord


class TimedWarm:
    """A run that began at `began`, to be warm by the first of the ticks after that.

    It does not wait for budget: that is left to the schedule, whose ticks go on.
    """

    def __init__(self, ticks: Ticks, zone: str | None, began: datetime) -> None:
        self._ticks = ticks
        self._zone = Zone(zone)
        self._began = began
        self.by = ticks.after(began)

    def look_back(self, runtime: Runtime, last: RunRecord, left: Collection[str]) -> None:
        """Tell of a deadline that has passed since the last run, and was not met; `left` is what
        that has not brought to a good end."""
        before = self._ticks.after(min(last.started_at, self._began))
        if before <= self._began and last.outcome != "complete":
            runtime.emit(DeadlineMissed(before, tuple(sorted(left)), TIME_HAS_COME))

    def fail(self, runtime: Runtime, reason: str) -> None:
        """Tell that the run has come to nothing."""
        runtime.emit(DeadlineMissed(self.by, (), reason))

    async def run(
        self, runtime: Runtime, job: Job, stopping: Callable[[], bool], tell: Tell
    ) -> WarmReport:
        """Do the job; see `sync_all`. `tell` hears the verdict before the first pull."""
        if self.by <= runtime.clock.now():
            self.fail(runtime, "its sources were not read by then")
            self.by = self._ticks.after(runtime.clock.now())
        warming = Warming(self.by, self._zone, strict=False, wait=False, tell=tell)
        return await warming.run(runtime, job, stopping)
