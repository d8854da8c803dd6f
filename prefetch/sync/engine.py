"""A plan run: everything that is wanted, within the budget, and what became of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from prefetch.clock import Clock, rfc3339_due
from prefetch.errors import BudgetExhausted, PrefetchError
from prefetch.events import Emit, ImageFinished, ImageStarted, PlanReady, PullsSpread, Remark
from prefetch.oci.reference import Digest
from prefetch.remote.registry import RegistryClient
from prefetch.state.database import State
from prefetch.state.ledger import Ledger
from prefetch.state.records import ReferenceRecord
from prefetch.sync.admission import Admission, Patience
from prefetch.sync.closure import Closure
from prefetch.sync.fetcher import Fetcher
from prefetch.sync.planner import Planner
from prefetch.sync.resolver import Resolver
from prefetch.sync.sharing import Payer, Sharing
from prefetch.sync.visibility import Visibilities
from prefetch.sync.wanted import Grant, ImageResult, Outcome, PlannedImage, Problem, Spent, Wanted

# Between two attempts at what has failed, twice as long each time.
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
# With so little time left nothing is tried again.
_TOO_LATE = 1.0

_NO_TURN = "its turn at the smooth pace had not come when the run's time was over; run again"


@dataclass(slots=True)
class Run:
    """The results of a run so far, in the order of the references, what each has cost, and whose
    pulls were spread.

    `cut_at` is when its time was over, if it was: from then on what is left may be tried again.
    Where it `insists`, `failing` images are tried again before they count as failed; `told` is
    what was said of them last.
    """

    wanted: Sequence[Wanted] = ()
    results: dict[str, ImageResult] = field(default_factory=dict)
    spent: defaultdict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    spread: list[PullsSpread] = field(default_factory=list)
    cut_at: datetime | None = None
    insists: bool = False
    failing: dict[str, Problem] = field(default_factory=dict)
    told: str | None = None

    def ordered(self) -> list[ImageResult]:
        """One result a reference; what an interruption left undone counts as deferred."""
        return [self.results.get(wanted.name) or self._undone(wanted) for wanted in self.wanted]

    def _undone(self, wanted: Wanted) -> ImageResult:
        spent = self.spent[wanted.name]
        return ImageResult(
            wanted.name,
            wanted.registry,
            Outcome.DEFERRED,
            pulls=spent.pulls,
            pulls_alternates=spent.pulls_alternates,
            fetched_from=spent.sources,
            bytes_fetched=spent.bytes_fetched,
            retry_at=self.cut_at,
            problem=Problem("INTERRUPTED", "the run was interrupted before this image was whole"),
        )


class Engine:
    """Runs the main job."""

    def __init__(
        self,
        *,
        state: State,
        ledger: Ledger,
        planner: Planner,
        fetcher: Fetcher,
        resolver: Resolver,
        visibilities: Visibilities,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._planner = planner
        self._fetcher = fetcher
        self._resolver = resolver
        self._visibilities = visibilities
        self._clock = clock
        self._emit = emit

    async def run(
        self, run: Run, patience: Patience, images: Sequence[PlannedImage] | None = None
    ) -> None:
        """Fill in `run.results`; what fails is told there. Raises StateError and StoreError.

        `images` are the plan, or what is to be carried out of it; None: it is made here.

        When cancelled, what has been fetched stays and what was finished is recorded.
        """
        if images is None:
            images = await self._planner.plan(run.wanted)
        run.insists = patience.insist
        latest = {image.wanted.name: image for image in images}
        self._emit(_plan_ready(images, [i for i in images if not self._is_settled(i)]))
        try:
            await self._carry_out(images, run, patience)
            pause = _FIRST_PAUSE
            while await self._may_try_again(run, patience, pause):
                failing = [wanted for wanted in run.wanted if wanted.name in run.failing]
                again = await self._planner.plan(failing)
                latest |= {image.wanted.name: image for image in again}
                await self._carry_out(again, run, patience)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            for name, problem in list(run.failing.items()):
                self._finish(run, latest[name], Outcome.FAILED, problem=problem)
            await asyncio.shield(self._remember(list(latest.values()), run))

    async def _carry_out(
        self, images: Sequence[PlannedImage], run: Run, patience: Patience
    ) -> None:
        """Bring each image to an end, or among those that are `failing`."""
        sharing = Sharing()
        todo = [image for image in images if not self._is_settled(image)]
        await self._settle([image for image in images if self._is_settled(image)], run)
        async with asyncio.TaskGroup() as group:
            for client, some in (await self._resolver.by_client(todo)).items():
                group.create_task(self._run_client(client, some, run, patience, sharing))

    async def _may_try_again(self, run: Run, patience: Patience, pause: float) -> bool:
        """Whether something is failing that has time left, after a pause."""
        if not run.failing:
            return False
        if patience.deadline is not None:
            left = patience.deadline - self._clock.monotonic()
            if left < _TOO_LATE:
                return False
            pause = min(pause, left / 2)
        self._tell_failing(run)
        await self._clock.sleep(pause)
        return True

    @staticmethod
    def _is_settled(image: PlannedImage) -> bool:
        return image.problem is not None or image.needs_nothing

    def _tell_failing(self, run: Run) -> None:
        """Say what is tried again, where that is news."""
        count, reason = len(run.failing), next(iter(run.failing.values())).message
        news = f"not fetched yet, and tried again ({count} of {len(run.wanted)}): {reason}"
        if news != run.told:
            run.told = news
            self._emit(Remark(news))

    async def _settle(self, images: Sequence[PlannedImage], run: Run) -> None:
        """Images that need no transfer: failed, unchanged, or here under another name."""
        for image in images:
            if image.problem is not None:
                self._fail(run, image, image.problem)
                continue
            record = image.record
            unchanged = record is not None and record.warm and record.digest == image.digest
            if not unchanged and image.closure is not None:
                try:
                    await self._link(image, image.closure)
                except PrefetchError as error:
                    self._fail(run, image, Problem.of(error))
                    continue
            self._finish(run, image, Outcome.UNCHANGED if unchanged else Outcome.SYNCED)

    async def _link(self, image: PlannedImage, closure: Closure) -> None:
        repository = image.wanted.reference.repository
        client = await self._resolver.client_for(repository)
        await self._fetcher.link(client, repository, closure)
        await self._learn(client, image)

    async def _learn(self, client: RegistryClient, image: PlannedImage) -> None:
        """Find out who may see the image's repository."""
        if image.digest is not None:
            repository = image.wanted.reference.repository
            await self._visibilities.learn(client, repository, Digest.parse(image.digest))

    async def _run_client(
        self,
        client: RegistryClient,
        images: Sequence[PlannedImage],
        run: Run,
        patience: Patience,
        sharing: Sharing,
    ) -> None:
        admission = Admission(
            client=client,
            ledger=self._ledger,
            planner=self._planner,
            clock=self._clock,
            emit=self._emit,
            patience=patience,
            sharing=sharing,
        )
        for image in admission.ordered(images):
            sharing.expect(Payer(image, client, run.spent[image.wanted.name]))

        async def start(image: PlannedImage, grant: Grant) -> bool:
            return await self._fetch(client, image, grant, run, sharing)

        def defer(image: PlannedImage, retry_at: datetime) -> None:
            problem = Problem("BUDGET_EXHAUSTED", self._deferral_message(client, retry_at))
            if admission.spreading.over:
                problem = Problem("PACED", _NO_TURN)
            self._finish(run, image, Outcome.DEFERRED, problem=problem, retry_at=retry_at)

        try:
            await admission.run(images, start, defer)
        finally:
            if admission.spreading.begun is not None:
                run.spread.append(admission.spreading.begun)

    async def _fetch(
        self,
        client: RegistryClient,
        image: PlannedImage,
        grant: Grant,
        run: Run,
        sharing: Sharing,
    ) -> bool:
        if self._is_settled(image):
            await self._settle([image], run)
            return False
        self._emit(ImageStarted(image.wanted.name))
        try:
            image.closure = await self._fetcher.fetch(
                client, image, grant, run.spent[image.wanted.name], sharing
            )
            await self._learn(client, image)
        except BudgetExhausted:
            return True
        except PrefetchError as error:
            image.fail(error)
            self._fail(run, image, Problem.of(error))
            return False
        self._finish(run, image, Outcome.SYNCED)
        await self._state.references.save_many([self._record(image, run)])
        return False

    def _fail(self, run: Run, image: PlannedImage, problem: Problem) -> None:
        if run.insists and problem.retryable:
            run.failing[image.wanted.name] = problem
            return
        outcome = Outcome.ABSENT if image.absent else Outcome.FAILED
        self._finish(run, image, outcome, problem=problem)

    def _finish(
        self,
        run: Run,
        image: PlannedImage,
        outcome: Outcome,
        *,
        problem: Problem | None = None,
        retry_at: datetime | None = None,
    ) -> None:
        run.failing.pop(image.wanted.name, None)
        spent = run.spent[image.wanted.name]
        closure = image.closure or Closure()
        run.results[image.wanted.name] = ImageResult(
            reference=image.wanted.name,
            registry=image.wanted.registry,
            outcome=outcome,
            digest=image.digest,
            platforms=closure.platforms,
            platforms_missing=closure.missing,
            pulls=spent.pulls,
            pulls_alternates=spent.pulls_alternates,
            fetched_from=spent.sources,
            bytes_fetched=spent.bytes_fetched,
            bytes_reused=_reused(closure, spent) if problem is None else 0,
            visibility=self._visibilities.of(image.wanted.reference.repository),
            retry_at=retry_at,
            problem=problem,
        )
        self._emit(
            ImageFinished(
                image.wanted.name,
                str(outcome),
                spent.pulls,
                spent.bytes_fetched,
                problem.message if problem else None,
                retry_at,
            )
        )

    def _deferral_message(self, client: RegistryClient, retry_at: datetime) -> str:
        return (
            f"{client.meter.registry} has no pulls left above the reserve for this image "
            f"(as {client.meter.identity}); expected back at {rfc3339_due(retry_at)}"
        )

    async def _remember(self, images: Sequence[PlannedImage], run: Run) -> None:
        """Write what became of each reference, in one transaction."""
        done = [image for image in images if image.wanted.name in run.results]
        await self._state.references.save_many([self._record(image, run) for image in done])

    def _record(self, image: PlannedImage, run: Run) -> ReferenceRecord:
        """The reference's row after this run: a failure or a deferral leaves what was warm."""
        now = self._clock.now()
        reference, result = image.wanted.reference, run.results[image.wanted.name]
        old = image.record or ReferenceRecord(
            image.wanted.name,
            reference.repository.registry,
            reference.repository.path,
            reference.tag,
        )
        if result.outcome in (Outcome.SYNCED, Outcome.UNCHANGED):
            return replace(
                old,
                digest=image.digest,
                media_type=image.media_type or old.media_type,
                platforms=image.wanted.platforms_text,
                warm=True,
                resolved_at=now if image.checked_at is not None else old.resolved_at or now,
                changed_at=now if old.digest != image.digest else old.changed_at,
                synced_at=now if result.outcome is Outcome.SYNCED else old.synced_at,
                deferred_since=None,
                absent_since=None,
                last_error=None,
            )
        error = result.problem.message if result.problem else None
        deferred = result.outcome is Outcome.DEFERRED
        absent = result.outcome is Outcome.ABSENT
        return replace(
            old,
            platforms=old.platforms or image.wanted.platforms_text,
            resolved_at=now if image.checked_at is not None else old.resolved_at,
            deferred_since=(old.deferred_since or now) if deferred else None,
            absent_since=(old.absent_since or now) if absent else None,
            last_error=error,
        )


def _reused(closure: Closure, spent: Spent) -> int:
    """Bytes of the image that were here before, or came with another image."""
    return sum(blob.size for blob in closure.blobs if blob.digest not in spent.fetched)


def _plan_ready(images: Sequence[PlannedImage], todo: Sequence[PlannedImage]) -> PlanReady:
    bounds = [image.pulls_max for image in todo]
    lacked = [digest for image in todo for digest in image.lacks]
    shared = len(lacked) - len(set(lacked))
    return PlanReady(
        images=len(images),
        to_fetch=len(todo),
        pulls_min=sum(image.pulls_min for image in todo) - shared,
        pulls_max=None if None in bounds else sum(bound or 0 for bound in bounds) - shared,
    )
