"""`sync` and `plan`: the main job, and its price."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from prefetch.app.noticing import failing_aloud, open_noticing_runtime
from prefetch.app.requests import SourceRequest, SyncRequest
from prefetch.app.runtime import Runtime, open_runtime
from prefetch.app.selecting import read_all, select
from prefetch.app.signals import Interruption, run
from prefetch.app.turns import job_name, turn
from prefetch.config.settings import Settings
from prefetch.errors import SourceError, UsageError
from prefetch.events import Emit, Remark, RunFinished, RunStarted
from prefetch.oci.platform import PlatformSet
from prefetch.ratelimit.pace import Pace
from prefetch.remote.registry import RegistryClient
from prefetch.sources.selector import Parsed
from prefetch.state.ledger import Budget
from prefetch.sync.admission import Admission, Patience
from prefetch.sync.alternates import Alternates
from prefetch.sync.catalog import Catalog
from prefetch.sync.documents import Documents
from prefetch.sync.engine import Engine, Run
from prefetch.sync.fetcher import Fetcher
from prefetch.sync.planner import Planner
from prefetch.sync.report import PlanReport, SyncReport, run_image_record
from prefetch.sync.resolver import Resolver
from prefetch.sync.sharing import Payer, Sharing, unsettled
from prefetch.sync.transfer import Transfer
from prefetch.sync.visibility import Visibilities
from prefetch.sync.wanted import Action, Outcome, PlannedImage, Spent

# So long a run waits for the one before it, without --wait.
_TURN_SECONDS = 30.0
_NOT_EXPANDED = "the run's time was over before it was known which tags they name"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a plan and a run are made with."""

    resolver: Resolver
    planner: Planner
    documents: Documents
    transfer: Transfer
    visibilities: Visibilities
    alternates: Alternates


def parts_of(runtime: Runtime) -> Parts:
    """The planner and what it needs, and what a run needs besides."""
    documents = Documents(runtime.store)
    visibilities = Visibilities(runtime.state, runtime.clock)
    alternates = Alternates(
        runtime.alternates,
        lambda registry: runtime.upstreams.settings(registry).alternates,
        state=runtime.state,
        ledger=runtime.ledger,
        visibilities=visibilities,
        clock=runtime.clock,
        emit=runtime.emit,
    )
    resolver = Resolver(runtime.upstreams, runtime.clock, runtime.emit)
    planner = Planner(
        state=runtime.state,
        store=runtime.store,
        documents=documents,
        upstreams=runtime.upstreams,
        resolver=resolver,
        alternates=alternates,
    )
    return Parts(
        resolver,
        planner,
        documents,
        Transfer(runtime.store, alternates, runtime.clock, runtime.emit),
        visibilities,
        alternates,
    )


Review = Callable[[Runtime, Parts, Run], Awaitable[Sequence[PlannedImage]]]
Look = Callable[[Runtime, Parts, Sequence[PlannedImage]], Awaitable[None]]


def run_sync(request: SyncRequest, emit: Emit) -> tuple[SyncReport, int | None]:
    """Sync; returns the report and the signal that ended the run early, if one did."""
    return run(lambda interruption: _sync(request, emit, interruption))


async def _sync(request: SyncRequest, emit: Emit, interruption: Interruption) -> SyncReport:
    try:
        return await _synced(request, emit, interruption)
    except asyncio.CancelledError:
        if interruption.signal is None:
            raise
        return SyncReport.of_nothing()


async def _synced(request: SyncRequest, emit: Emit, interruption: Interruption) -> SyncReport:
    settings, platforms, parsed = await read_all(request.source, emit)
    if request.timeout is not None and not (request.wait or _is_smooth(request, settings)):
        raise UsageError("--timeout goes with --wait or --pace smooth")
    async with open_noticing_runtime(
        settings, request.source.place, emit, hurry=interruption.hurry
    ) as runtime:
        clock = runtime.clock
        deadline = None if request.timeout is None else clock.monotonic() + request.timeout
        until = deadline if request.wait else clock.monotonic() + _TURN_SECONDS
        name = job_name(request.source, parsed)
        async with turn(runtime.state.locks, name, clock, until) as ours:
            if not ours:
                return SyncReport.of_nothing(busy=True)
            run_id = await runtime.state.runs.start("sync", clock.now())
            job = Job(run_id, parsed, platforms, Patience(request.wait, deadline))
            with failing_aloud(runtime, run_id):
                return await sync_all(runtime, job, interruption.settle)


def _is_smooth(request: SyncRequest, settings: Settings) -> bool:
    """Whether pulls at some registry are spread."""
    if request.source.place.pace is not None:
        return Pace(request.source.place.pace) is Pace.SMOOTH
    every = [*settings.registries.values(), settings.any_registry]
    return any(each is not None and each.pace is Pace.SMOOTH for each in every)


@dataclass(frozen=True, slots=True)
class Job:
    """A run that has begun: its id, what the sources name, for which platforms where they do not
    say, and whether it waits for budget. `only` are the references that it is about, None: all.

    `review` makes the plan, before the first pull, and answers what is to be carried out of it.
    `until` (monotonic seconds) ends the run in order; what was fetched stays.
    """

    run_id: str
    parsed: Parsed
    platforms: PlatformSet
    patience: Patience
    only: frozenset[str] | None = None
    review: Review | None = None
    until: float | None = None


async def sync_all(runtime: Runtime, job: Job, interrupted: Callable[[], bool]) -> SyncReport:
    """Do a run and keep what became of it.

    Cancelled while `interrupted()`, it ends in order, and returns. Raises StateError and
    StoreError, perhaps in a group.
    """
    clock, emit = runtime.clock, runtime.emit
    started = clock.monotonic()
    work, parts = Run(), parts_of(runtime)
    errors = [*job.parsed.errors]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(job.until) as timer:
                selection = await select(job.parsed, runtime, job.platforms)
                errors = [*selection.errors]
                work.wanted = [
                    each for each in selection.wanted if job.only is None or each.name in job.only
                ]
                emit(RunStarted(job.run_id, len(work.wanted)))
                await parts.visibilities.load()
                images = None if job.review is None else await job.review(runtime, parts, work)
                await engine_of(runtime, parts).run(work, job.patience, images)
        if timer.expired():
            work.cut_at = clock.now()
            if not work.wanted:
                errors.append(SourceError("sources", None, _NOT_EXPANDED))
    except asyncio.CancelledError:
        if not interrupted():
            raise
    cut_short = interrupted()
    clients = [*runtime.upstreams.opened(), *runtime.alternates.opened()]
    report = SyncReport(
        run_id=job.run_id,
        results=work.ordered(),
        errors=errors,
        budgets=await _budgets(runtime, clients),
        spread=work.spread,
        requests=sum(client.requests for client in clients),
        seconds=clock.monotonic() - started,
        interrupted=cut_short,
        dropped=parts.alternates.dropped,
    )
    await _remember(runtime, job.run_id, report)
    private = sum(result.visibility == "private" for result in work.results.values())
    warn_of_private(runtime.settings, private, emit)
    emit(RunFinished(job.run_id, report.outcome, len(report.errors)))
    return report


def engine_of(runtime: Runtime, parts: Parts) -> Engine:
    """What runs a plan."""
    fetcher = Fetcher(
        state=runtime.state,
        ledger=runtime.ledger,
        store=runtime.store,
        documents=parts.documents,
        transfer=parts.transfer,
        alternates=parts.alternates,
        clock=runtime.clock,
    )
    return Engine(
        state=runtime.state,
        ledger=runtime.ledger,
        planner=parts.planner,
        fetcher=fetcher,
        resolver=parts.resolver,
        visibilities=parts.visibilities,
        clock=runtime.clock,
        emit=runtime.emit,
    )


def admission_of(
    runtime: Runtime, parts: Parts, client: RegistryClient, sharing: Sharing
) -> Admission:
    """What knows in which order a registry's images go, and when."""
    return Admission(
        client=client,
        ledger=runtime.ledger,
        planner=parts.planner,
        clock=runtime.clock,
        emit=runtime.emit,
        patience=Patience(),
        sharing=sharing,
    )


def warn_of_private(settings: Settings, private: int, emit: Emit) -> None:
    """Say when nodes would need credentials that `serve` is not set up to ask for."""
    if private and settings.path is not None and not settings.serve.admits_to_private:
        emit(
            Remark(
                f"{private} of the images are private: `prefetch serve` shows them to nobody "
                "without serve.htpasswd_file or a rule in serve.access for anonymous"
            )
        )


async def _remember(runtime: Runtime, run_id: str, report: SyncReport) -> None:
    """Keep the history, and `index.json` where it may have changed."""
    runs = runtime.state.runs
    await runs.record(run_id, [run_image_record(result) for result in report.results])
    await runs.finish(
        run_id,
        report.outcome,
        runtime.clock.now(),
        images=len(report.results),
        pulls=sum(result.pulls for result in report.results),
        bytes_fetched=sum(result.bytes_fetched for result in report.results),
    )
    previous = [other for other in await runs.list(2) if other.id != run_id]
    # A run without an outcome was killed (or goes on): what it did is not in the index yet.
    settled = all(other.outcome is not None for other in previous) and bool(previous)
    if not settled or report.count(Outcome.SYNCED):
        await Catalog(runtime.state, runtime.store).write_index(runtime.data_dir)


async def _budgets(runtime: Runtime, clients: Iterable[RegistryClient]) -> list[Budget]:
    """What is left, as far as this run's meters are known; a meter may have two clients."""
    meters = {client.meter: client.policy for client in clients}
    return [await runtime.ledger.budget(meter, policy) for meter, policy in meters.items()]


def run_plan(request: SourceRequest, emit: Emit, look: Look | None = None) -> PlanReport:
    """Resolve and price everything; only free requests are sent. `look` is shown the result."""
    report, _ = run(lambda _: _plan(request, emit, look))
    return report


async def _plan(request: SourceRequest, emit: Emit, look: Look | None) -> PlanReport:
    settings, platforms, parsed = await read_all(request, emit)
    async with open_runtime(settings, request.place, emit) as runtime:
        return await plan_all(runtime, parsed, platforms, look)


async def plan_all(
    runtime: Runtime, parsed: Parsed, platforms: PlatformSet, look: Look | None = None
) -> PlanReport:
    """What `sync_all` would do now, and cost; `look` is shown it. Raises StateError and
    StoreError."""
    selection = await select(parsed, runtime, platforms)
    parts = parts_of(runtime)
    await parts.visibilities.load()
    images = await parts.planner.plan(selection.wanted)
    for image in images:
        if image.needs_nothing:
            image.action = Action.NONE
    await _rehearse(runtime, parts, [image for image in images if image.action is Action.SYNC])
    if look is not None:
        await look(runtime, parts, images)
    starts = [image.start_at for image in images if image.start_at is not None]
    never = any(image.action is Action.DEFER and image.start_at is None for image in images)
    return PlanReport(
        images=images,
        errors=selection.errors,
        budgets=await _budgets(runtime, runtime.upstreams.opened()),
        finish_at=None if never else max(starts, default=runtime.clock.now()),
        outlooks={
            client.meter: await runtime.ledger.outlook(client.meter, client.policy)
            for client in runtime.upstreams.opened()
        },
    )


async def _rehearse(runtime: Runtime, parts: Parts, images: Sequence[PlannedImage]) -> None:
    """Find out when each image would start, and what it would pay itself."""
    clients = await parts.resolver.by_client(images)
    unsure = unsettled(list(clients.values()))
    for client, some in clients.items():
        sharing = Sharing()
        admission = admission_of(runtime, parts, client, sharing)
        for image in admission.ordered(some):
            sharing.expect(Payer(image, client, Spent()))
        for image, start in await admission.rehearse(some, unsure):
            image.start_at = start
