"""One run of an entry of the schedule: what `prefetch sync` does with its sources."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from prefetch.app.noticing import failed_run, logging_to, open_noticing_runtime
from prefetch.app.requests import Place
from prefetch.app.runtime import Runtime
from prefetch.app.selecting import read_specs
from prefetch.app.signals import first_cause
from prefetch.app.sync import Job, sync_all
from prefetch.config.settings import ScheduleEntry, Settings
from prefetch.errors import PrefetchError
from prefetch.events import Emit, Event, PullsSpread, Remark, Slowed, ThrottleEvent
from prefetch.scheduler.plan import Cause
from prefetch.server.accesslog import ServerLog
from prefetch.server.witness import places
from prefetch.sync.admission import Patience
from prefetch.sync.report import SyncReport
from prefetch.sync.wanted import Outcome


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
        emit = _telling(self.log, self.entry.name)
        place = self.place
        if self.entry.pace is not None:
            place = replace(place, pace=self.entry.pace)
        # What it has to say is sent by the process that keeps the schedule.
        async with open_noticing_runtime(
            self.settings, place, emit, entry=self.entry.name, deliver=False
        ) as runtime:
            runs, clock = runtime.state.runs, runtime.clock
            only = await runs.unsettled(self.entry.name) if self.cause is Cause.RETRY else None
            run_id = await runs.start(
                "schedule", clock.now(), entry=self.entry.name, cause=str(self.cause)
            )
            facts = {"entry": self.entry.name, "run": run_id}
            self.log.info("sync", **facts, cause=self.cause)
            try:
                report = await self._sync(runtime, run_id, only)
            except asyncio.CancelledError:
                await runs.finish(run_id, "interrupted", clock.now())
                self.log.info("sync ended", **facts, outcome="interrupted")
                raise
            except Exception as error:  # noqa: BLE001 - no entry may end the schedule of the others
                await runs.finish(run_id, "failed", clock.now())
                runtime.emit(failed_run(run_id, error))
                _tell_failure(self.log, facts, first_cause(error))
            else:
                _tell(self.log, self.entry.name, report)

    async def _sync(self, runtime: Runtime, run_id: str, only: frozenset[str] | None) -> SyncReport:
        settings, entry = self.settings, self.entry
        parsed = await read_specs(
            entry.sources or settings.sources, settings, by_nodes=entry.platforms is None
        )
        for note in parsed.notes:
            runtime.emit(Remark(str(note)))
        platforms = settings.platforms if entry.platforms is None else entry.platforms
        job = Job(run_id, parsed, platforms, Patience(), only)
        return await sync_all(runtime, job, self.stopping)


def _telling(log: ServerLog, entry: str) -> Emit:
    """A listener that tells what a person may want to know while a run goes on."""
    rest = logging_to(log, entry=entry)

    def listen(event: Event) -> None:
        match event:
            case Remark(text):
                log.info("remark", entry=entry, text=text)
            case ThrottleEvent(registry, until):
                log.warning("registry throttles", entry=entry, registry=registry, until=until)
            case PullsSpread(registry, _, pulls, until):
                log.info("pulls spread", entry=entry, registry=registry, pulls=pulls, until=until)
            case Slowed(registry, per_second):
                log.warning("slowed", entry=entry, registry=registry, per_second=per_second)
            case _:
                rest(event)

    return listen


def _tell_failure(log: ServerLog, facts: Mapping[str, str], error: BaseException) -> None:
    """What kept a run from coming to its end."""
    why = {"code": "INTERNAL", "type": type(error).__name__, "where": places(error)}
    if isinstance(error, PrefetchError):
        why = {"code": error.code, "reason": str(error)}
    elif isinstance(error, OSError):
        why = {"code": PrefetchError.code, "reason": str(error)}
    log.error("sync failed", **facts, **why)


def _tell(log: ServerLog, entry: str, report: SyncReport) -> None:
    """A line for each failure, and one for the run."""
    facts = {"entry": entry, "run": report.run_id}
    for error in report.errors:
        log.error("bad entry in a source", **facts, reason=str(error))
    for result in report.results:
        if result.outcome is Outcome.FAILED and result.problem is not None:
            problem = result.problem
            log.error(
                "image failed",
                **facts,
                reference=result.reference,
                code=problem.code,
                reason=problem.message,
            )
    retries = [result.retry_at for result in report.results if result.retry_at is not None]
    tell = log.warning if report.outcome == "failed" else log.info
    tell(
        "sync ended",
        **facts,
        outcome=report.outcome,
        **{str(outcome): report.count(outcome) for outcome in Outcome},
        pulls=sum(result.pulls for result in report.results),
        bytes=sum(result.bytes_fetched for result in report.results),
        seconds=round(report.seconds, 3),
        retry_at=min(retries, default=None),
    )
