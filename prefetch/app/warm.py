"""`warm`: everything warm by a moment, or said beforehand that it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from prefetch.app.judging import case_of, fewer_platforms, lacking
from prefetch.app.moments import Zone, parse_moment
from prefetch.app.noticing import failing_aloud, open_noticing_runtime
from prefetch.app.requests import SourceRequest
from prefetch.app.runtime import Runtime
from prefetch.app.selecting import read_all
from prefetch.app.signals import Interruption, run
from prefetch.app.sync import Job, Parts, run_plan, sync_all
from prefetch.clock import SystemClock
from prefetch.errors import PrefetchError
from prefetch.events import DeadlineMissed, Emit, Event, ImageFinished, ImageStarted, Stream
from prefetch.sync.admission import Patience
from prefetch.sync.deadline import Verdict, judge
from prefetch.sync.deadlinereport import Deadline, why_late
from prefetch.sync.engine import Run
from prefetch.sync.remedies import remedies
from prefetch.sync.report import EXIT_DEFERRED, EXIT_FAILED, PlanReport, SyncReport
from prefetch.sync.wanted import ImageResult, Outcome, PlannedImage, Problem
from prefetch.tasks import end_all

# Images that wait at the deadline are put off in order; only then is cut short what still runs.
_GRACE_SECONDS = 1.0
_LOOKS = 100
_LONGEST_PAUSE = 60.0
_SHORTEST_PAUSE = 0.5

TIME_HAS_COME = "that time has come"
_NO_PROMISE = "not everything can be promised by then"
_NOT_PLANNED = "what they lack was not known by then"
_NOT_READ = "not all of the sources can be read"

# Tells what can be said before the first pull.
Tell = Callable[[Deadline], None]


@dataclass(frozen=True, slots=True)
class WarmRequest:
    """What is to be warm, and by when, as the user has written it."""

    source: SourceRequest
    by: str
    timezone: str | None = None
    strict: bool = False
    wait: bool = True


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What became of it; `deadline` is None for a run that a signal ended before its plan."""

    sync: SyncReport
    deadline: Deadline | None

    def document(self) -> dict[str, Any]:
        """`warm -o json`."""
        deadline = None if self.deadline is None else self.deadline.document()
        return {**self.sync.document(), "deadline": deadline}

    def exit_code(self, *, wait: bool) -> int:
        """The command's exit status, an interruption apart."""
        code = self.sync.exit_code(deferred_ok=False)
        if code != EXIT_DEFERRED:
            return code
        promised = self.deadline is not None and self.deadline.feasible
        return EXIT_DEFERRED if promised and not wait else EXIT_FAILED


def run_warm(request: WarmRequest, emit: Emit, tell: Tell) -> tuple[WarmReport, int | None]:
    """Warm what is named; returns the report and the signal that ended it early, if one did.

    `tell` hears the verdict before the first pull is spent. Raises UsageError and ConfigError.
    """
    return run(lambda interruption: _warm(request, emit, tell, interruption))


def run_dry(request: WarmRequest, emit: Emit) -> tuple[PlanReport, Deadline]:
    """The plan and the verdict; only free requests are sent. Raises UsageError and ConfigError."""
    zone, by = _moment(request)
    found: list[Deadline] = []

    async def look(runtime: Runtime, parts: Parts, images: Sequence[PlannedImage]) -> None:
        found.append(await judged(runtime, parts, images, zone, by))

    report = run_plan(request.source, emit, look)
    return report, found[0]


async def judged(
    runtime: Runtime, parts: Parts, images: Sequence[PlannedImage], zone: Zone, by: datetime
) -> Deadline:
    """The verdict on a plan, and what would help where it needs help."""
    case = await case_of(runtime, parts, images, by)
    deadline = Deadline(zone.local(by), zone.label(by), judge(case))
    if deadline.feasible:
        return deadline
    fewer = await fewer_platforms(runtime, parts, images)
    return replace(deadline, changes=tuple(remedies(case, fewer)))


def _moment(request: WarmRequest) -> tuple[Zone, datetime]:
    zone = Zone.of(request.timezone)
    return zone, parse_moment(request.by, SystemClock().now(), zone)


async def _warm(
    request: WarmRequest, emit: Emit, tell: Tell, interruption: Interruption
) -> WarmReport:
    zone, by = _moment(request)
    warming = Warming(by, zone, strict=request.strict, wait=request.wait, tell=tell)
    place = request.source.place
    try:
        settings, platforms, parsed = await read_all(request.source, emit)
        hurry = interruption.hurry
        async with open_noticing_runtime(settings, place, emit, hurry=hurry) as runtime:
            run_id = await runtime.state.runs.start("warm", runtime.clock.now())
            job = Job(run_id, parsed, platforms, Patience())
            with failing_aloud(runtime, run_id):
                return await warming.run(runtime, job, interruption.settle)
    except asyncio.CancelledError:
        if interruption.signal is None:
            raise
        return WarmReport(SyncReport.of_nothing(), None)


class Warming:
    """One run with a deadline, `by`, which is told in `zone`.

    A `strict` one spends nothing unless everything is promised; without `wait` what may be spent
    now is.
    """

    def __init__(self, by: datetime, zone: Zone, *, strict: bool, wait: bool, tell: Tell) -> None:
        self._by = by
        self._zone = zone
        self._strict = strict
        self._wait = wait
        self._tell = tell
        self._deadline: Deadline | None = None
        self._parts: Parts | None = None
        self._images: Sequence[PlannedImage] = ()
        self._begun: set[str] = set()
        self._missed = False
        self._told: set[str] = set()
        self._watch: asyncio.Task[None] | None = None

    async def run(self, runtime: Runtime, job: Job, interrupted: Callable[[], bool]) -> WarmReport:
        """Do the job by then; see `sync_all`. How it waits is decided here."""
        follow = partial(self._follow, runtime.emit)
        runtime = replace(runtime, emit=Stream([runtime.emit, follow]).emit)
        clock = runtime.clock
        until = clock.monotonic() + (self._by - clock.now()).total_seconds()
        job = replace(
            job,
            patience=Patience(self._wait, until, insist=self._wait),
            review=partial(self._review, bool(job.parsed.errors)),
            until=until + _GRACE_SECONDS,
        )
        try:
            report = await sync_all(runtime, job, interrupted)
        finally:
            await end_all([self._watch] if self._watch else [])
        return WarmReport(report, await self._ended(runtime, report))

    def _follow(self, emit: Emit, event: Event) -> None:
        match event:
            case ImageStarted(name) | ImageFinished(name):
                self._begun.add(name)
        if self._wait and isinstance(event, ImageFinished) and event.outcome == Outcome.FAILED:
            # Whoever waits for hours wants to know of the first at once, of the rest together.
            self._say_if_failed(emit, [event.reference], at_once=True)

    async def _review(
        self, unread: bool, runtime: Runtime, parts: Parts, work: Run
    ) -> Sequence[PlannedImage]:
        """Say what can be said; what is to be carried out. `unread`: the sources name more."""
        images = await parts.planner.plan(work.wanted)
        self._images = images
        self._deadline = await judged(runtime, parts, images, self._zone, self._by)
        self._parts = parts
        self._tell(self._deadline)
        self._say_if_missed(runtime, self._deadline.verdict)
        if runtime.clock.now() >= self._by:
            return _refuse(images, work, "INTERRUPTED", TIME_HAS_COME)
        if self._strict and not self._deadline.feasible:
            return _refuse(images, work, "DEADLINE_NOT_PROMISED", _NO_PROMISE)
        if self._strict and unread:
            return _refuse(images, work, "DEADLINE_NOT_PROMISED", _NOT_READ)
        self._watch = asyncio.create_task(self._watching(runtime, parts))
        return images

    async def _watching(self, runtime: Runtime, parts: Parts) -> None:
        """Say at once when the forecast has come to be that the deadline will not be met."""
        while True:
            left = (self._by - runtime.clock.now()).total_seconds()
            pause = min(max(left / _LOOKS, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            await runtime.clock.sleep(pause)
            # What has begun holds its pulls already. A look that fails is taken again.
            # What fails for now is tried again.
            waiting = [
                each
                for each in self._images
                if each.wanted.name not in self._begun
                and not (each.problem is not None and each.problem.retryable)
            ]
            with suppress(PrefetchError):
                case = await case_of(runtime, parts, waiting, self._by)
                self._say_if_missed(runtime, judge(case))

    def _say_if_missed(self, runtime: Runtime, verdict: Verdict) -> None:
        """Say that images are expected to be late, where that is news."""
        if verdict.late and not self._missed:
            runtime.emit(DeadlineMissed(self._by, verdict.late, why_late(verdict)))
        self._missed = bool(verdict.late)
        self._told.update(verdict.lost)

    def _say_if_failed(self, emit: Emit, images: Sequence[str], *, at_once: bool = False) -> None:
        """Say that images could not be fetched, where that is news."""
        failed = tuple(each for each in images if each not in self._told)
        if not failed or self._missed or (at_once and self._told):
            return
        self._told.update(failed)
        what = "it" if len(failed) == 1 else "they"
        emit(DeadlineMissed(self._by, failed, f"{what} could not be fetched"))

    async def _ended(self, runtime: Runtime, report: SyncReport) -> Deadline | None:
        """The verdict in the end: without waiting, that on what is left."""
        deadline = self._deadline
        if report.interrupted:
            return deadline
        deferred, failed = (
            tuple(r.reference for r in report.results if r.outcome is outcome)
            for outcome in (Outcome.DEFERRED, Outcome.FAILED)
        )
        if deadline is None:
            if deferred:
                runtime.emit(DeadlineMissed(self._by, deferred, _NOT_PLANNED))
            return None
        self._say_if_failed(runtime.emit, failed)
        if report.outcome == "complete":
            return replace(deadline, met=True)
        in_time = runtime.clock.now() < self._by
        if not in_time and deferred and not self._missed:
            runtime.emit(DeadlineMissed(self._by, deferred, TIME_HAS_COME))
        if report.outcome == "failed" or not in_time:
            return replace(deadline, met=False)
        if self._wait or self._parts is None:
            return deadline
        rest = [image for image in self._images if image.wanted.name in set(deferred)]
        await self._parts.planner.price(rest)
        return await judged(runtime, self._parts, rest, self._zone, self._by)


def _refuse(images: Sequence[PlannedImage], work: Run, code: str, why: str) -> list[PlannedImage]:
    """Spend nothing: what is lacking is put off. What needs no pull is carried out."""
    todo = lacking(images)
    for image in todo:
        work.results[image.wanted.name] = ImageResult(
            image.wanted.name,
            image.wanted.registry,
            Outcome.DEFERRED,
            digest=image.digest,
            problem=Problem(code, f"{image.wanted.name}: not begun, since {why}"),
        )
    refused = set(map(id, todo))
    return [image for image in images if id(image) not in refused]
