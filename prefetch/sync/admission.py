"""Which image goes next: by priority and demand, then cheapest first, whole or not at all.

One queue a registry. An image is admitted when the ledger holds its price; what cannot be had is
put off, or waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefetch.clock import Clock
from prefetch.errors import PrefetchError
from prefetch.events import BudgetChanged, Emit, WaitStarted
from prefetch.remote.registry import RegistryClient
from prefetch.state.ledger import Budget, Hold, Ledger, Refused
from prefetch.sync.planner import Planner
from prefetch.sync.rehearsal import Rehearsal, Turn, to_hold
from prefetch.sync.sharing import Sharing
from prefetch.sync.spreading import Spreading
from prefetch.sync.wanted import Action, Grant, PlannedImage

# A tag's digest older than this is asked for again (free) before a pull is spent on it.
_STALE_AFTER_SECONDS = 60.0
_BUSY_POLL_SECONDS = 0.1
# What a meter that never reported its window is taken to have (Docker Hub's).
_DEFAULT_WINDOW_SECONDS = 21600.0
# An image that the ledger admits and then refuses this often without a wait is put off.
_MAX_TRIES = 3
# An image put off for so many windows goes first, and budget is saved for it.
_STARVING_AFTER_WINDOWS = 2
_FREE, _STARVING, _ORDINARY = range(3)

# Completes one image; answers whether it ran out of budget and has to queue again.
Start = Callable[[PlannedImage, Grant], Awaitable[bool]]
Defer = Callable[[PlannedImage, datetime], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """Whether to wait for budget, and until when (monotonic seconds; None: as long as it takes).

    `insist`: what fails and may succeed later is tried again until then.
    """

    wait: bool = False
    deadline: float | None = None
    insist: bool = False


def price_to_hold(image: PlannedImage) -> int:
    """The pulls to hold before an image's first one is sent, if no other image pays for any."""
    return to_hold(image, (image.pulls_min, image.pulls_max))


class Admission:
    """Runs one registry's images through the budget."""

    def __init__(
        self,
        *,
        client: RegistryClient,
        ledger: Ledger,
        planner: Planner,
        clock: Clock,
        emit: Emit,
        patience: Patience,
        sharing: Sharing,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._planner = planner
        self._clock = clock
        self._emit = emit
        self._patience = patience
        self._sharing = sharing
        self._exempt: set[str] = set()
        self._tries: dict[str, int] = {}
        self._running: dict[asyncio.Task[bool], PlannedImage] = {}
        self._slots = client.settings.max_concurrency
        self._window = _DEFAULT_WINDOW_SECONDS
        self._capacity: int | None = None
        self._pause = 0.0
        self.spreading = Spreading(
            client.settings.pace,
            wait=patience.wait,
            deadline=patience.deadline,
            clock=clock,
            emit=emit,
        )

    async def run(self, images: Sequence[PlannedImage], start: Start, defer: Defer) -> None:
        """Start each image when its price is held; `defer` those for which there is no budget."""
        await self._learn()
        await self._learn_exempt(images)
        waiting = self.ordered(images)
        try:
            while waiting or self._running:
                busy = await self._fill(waiting, start)
                if self._running:
                    again = await self._one_finished()
                    # Sorting thousands for each that ends would cost more than fetching them.
                    if again:
                        waiting = self.ordered([*waiting, *again])
                elif busy:
                    await self._clock.sleep(_BUSY_POLL_SECONDS)
                elif waiting and self._pause:
                    await self._clock.sleep(self._pause)
                    await self._learn()
                elif waiting:
                    if self.spreading.over or not await self._wait_for_budget(waiting):
                        await self._defer(waiting, defer)
                        return
                    await self._learn()
                    waiting = self.ordered(waiting)
        finally:
            await self._stop()

    async def _learn(self) -> None:
        """Read the meter, and tell those who watch."""
        budget = await self._budget()
        self._emit(
            BudgetChanged(
                budget.meter.registry,
                budget.meter.identity,
                budget.limit,
                budget.remaining,
                budget.reserve,
                budget.available,
            )
        )
        self.spreading.learn(budget)
        self._window = budget.window_seconds or _DEFAULT_WINDOW_SECONDS
        if budget.limit is not None:
            self._capacity = max(1, budget.limit - budget.reserve)

    async def _learn_exempt(self, images: Iterable[PlannedImage]) -> None:
        """Find out which repositories cost nothing; a configured limit counts all of them."""
        if self._capacity is None:
            return
        paths = {image.wanted.reference.repository.path for image in images}
        client = self._client
        self._exempt |= await self._ledger.exempt_among(client.meter, client.policy, paths)

    def ordered(self, images: Iterable[PlannedImage]) -> list[PlannedImage]:
        """Free ones, then starving ones, then by priority and demand, then cheapest first."""
        return sorted(images, key=self._rank)

    def _rank(self, image: PlannedImage) -> tuple[int, tuple[int, ...], int]:
        price = price_to_hold(image)
        if price == 0 or image.wanted.reference.repository.path in self._exempt:
            return (_FREE, (), 0)
        turn = _STARVING if self._is_starving(image) else _ORDINARY
        urgency = (image.wanted.priority, *image.wanted.demand.rank)
        return (turn, tuple(-each for each in urgency), price)

    def _is_starving(self, image: PlannedImage) -> bool:
        since = image.record.deferred_since if image.record else None
        if since is None:
            return False
        return self._clock.now() - since > timedelta(seconds=_STARVING_AFTER_WINDOWS * self._window)

    async def _fill(self, waiting: list[PlannedImage], start: Start) -> bool:
        """Take from the (ordered) queue what the budget allows; whether the rest is only busy.

        Within one priority prices ascend, so the first refusal settles the rest of its group, less
        what others pay for; what is less important gets a chance once nothing runs that could
        still give budget back.
        """
        busy, position, self._pause = False, 0, 0.0
        while position < len(waiting) and len(self._running) < self._slots:
            if self._is_held_up(waiting[position]):
                break
            refused = await self._admit(waiting[position], start)
            if refused is None:
                del waiting[position]
                continue
            busy |= refused.busy
            group, price = self._rank(waiting[position])[:2], self._price(waiting[position])
            if group[0] == _STARVING or refused.busy or self._running:
                break  # budget is saved for it, or may yet come back to it
            while position < len(waiting) and self._is_dearer(waiting[position], group, price):
                position += 1
        return busy

    def _price(self, image: PlannedImage) -> int:
        """What is held for the image if it is admitted now."""
        return 0 if image.problem is not None else to_hold(image, self._sharing.price(image))

    def _is_dearer(
        self, image: PlannedImage, group: tuple[int, tuple[int, ...]], price: int
    ) -> bool:
        """Whether the budget that had no `price` has nothing for this one of the same group."""
        return (
            self._rank(image)[:2] == group
            and not self._sharing.is_outdated(image)
            and self._price(image) >= price
        )

    def _is_held_up(self, image: PlannedImage) -> bool:
        """Whether the image has to wait for its turn at a smooth pace, or gets none any more."""
        if image.problem is not None or price_to_hold(image) == 0:
            return False
        self._pause = self.spreading.pause
        return self._pause > 0 or self.spreading.over

    async def _admit(self, image: PlannedImage, start: Start) -> Refused | None:
        """Start the image if its price can be held."""
        if self._is_stale(image):
            await self._planner.refresh([image])
        elif self._sharing.is_outdated(image):
            await self._planner.price([image])
        self._sharing.repriced(image)
        grant = Grant()
        price = self._price(image)
        if price:
            whole = self._capacity is None or price <= self._capacity
            if not whole:
                price = await self._affordable(price)
            answer = await self._hold(image, price)
            if isinstance(answer, Refused):
                return answer
            grant = Grant(answer, price, whole)
            if not answer.exempt or self._client.policy.limit is not None:
                self.spreading.started(price)
        self._sharing.admit(image, grant.hold)
        task = asyncio.ensure_future(self._started(image, grant, start))
        self._running[task] = image
        return None

    async def _hold(self, image: PlannedImage, price: int) -> Hold | Refused:
        """Hold the price; a refusal rests on the registry's latest word."""
        reference = image.wanted.reference
        exempt = await self._ledger.exempt(self._client.meter, reference.repository.path)
        looked = False
        while True:
            answer = await self._ledger.hold(
                self._client.meter,
                price,
                self._client.policy,
                label=image.wanted.name,
                exempt=exempt,
            )
            if isinstance(answer, Hold) or not answer.stale or looked or self._running:
                return answer
            with suppress(PrefetchError):
                await self._client.observe(reference)
            looked = True

    def _is_stale(self, image: PlannedImage) -> bool:
        if image.checked_at is None:
            return True  # its HEAD was refused for want of budget
        return self._clock.monotonic() - image.checked_at > _STALE_AFTER_SECONDS

    async def _affordable(self, price: int) -> int:
        """An image dearer than a whole window goes in parts, each as large as can be had now."""
        budget = await self._budget()
        available = price if budget.available is None else budget.available
        return max(1, min(price, available))

    async def _started(self, image: PlannedImage, grant: Grant, start: Start) -> bool:
        try:
            return await start(image, grant)
        finally:
            self._sharing.withdraw(image)
            if grant.hold is not None:
                await self._ledger.release(grant.hold)

    async def _one_finished(self) -> list[PlannedImage]:
        """Wait for a running image, or the next one's turn; returns those that queue again."""
        done, _ = await asyncio.wait(
            self._running, timeout=self._pause or None, return_when=asyncio.FIRST_COMPLETED
        )
        await self._learn()
        again = []
        for task in done:
            image = self._running.pop(task)
            if task.result():
                self._tries[image.wanted.name] = self._tries.get(image.wanted.name, 0) + 1
                await self._planner.price([image])
                again.append(image)
            else:
                self._sharing.forget(image)
        return again

    async def _wait_for_budget(self, waiting: list[PlannedImage]) -> bool:
        """Sleep until the next free look at the meter, and take it; False: put them off."""
        if not self._patience.wait:
            # What came back once may fit now that nothing else holds budget.
            return self._may_try_again(waiting)
        head = self.ordered(waiting)[0]
        until = await self._forecast(price_to_hold(head))
        self._emit(WaitStarted(until, len(waiting)))
        pause = await self._ledger.next_check(
            self._client.meter, self._client.policy, price_to_hold(head)
        )
        if self._patience.deadline is not None:
            remaining = self._patience.deadline - self._clock.monotonic()
            if remaining <= 0:
                return False
            pause = min(pause, remaining)
        await self._clock.sleep(pause)
        # A registry that is out of reach for now is asked again as soon as this time.
        with suppress(PrefetchError):
            await self._client.observe(head.wanted.reference)
        return True

    def _may_try_again(self, waiting: list[PlannedImage]) -> bool:
        tried = [image for image in waiting if self._tries.get(image.wanted.name)]
        fresh = [i for i in tried if self._tries[i.wanted.name] < _MAX_TRIES]
        for image in tried:
            self._tries[image.wanted.name] += 1
        return bool(fresh)

    async def _budget(self) -> Budget:
        return await self._ledger.budget(self._client.meter, self._client.policy)

    async def _forecast(self, pulls: int) -> datetime:
        return await self._ledger.forecast(self._client.meter, self._client.policy, pulls)

    async def _defer(self, waiting: list[PlannedImage], defer: Defer) -> None:
        queue = self.ordered(waiting)
        moments: Sequence[datetime | None] = [self._clock.now()] * len(queue)
        if not self.spreading.over:
            moments = await self._timetable([price_to_hold(image) for image in queue])
        # What others leave nothing for is looked at again in a window.
        later = self._clock.now() + timedelta(seconds=self._window)
        for image, moment in zip(queue, moments, strict=True):
            defer(image, moment or later)
            self._sharing.forget(image)

    async def rehearse(
        self, images: Sequence[PlannedImage], unsure: AbstractSet[str]
    ) -> list[tuple[PlannedImage, datetime | None]]:
        """When `run` would start each image if nothing changed until then (None: never, as things
        are); sends no pull.

        Each image's price becomes what it pays itself, and those that would be put off are
        marked so. All of `images` must be expected by the run's sharing; `unsure` are documents
        of which it is not known who pays.
        """
        await self._learn()
        await self._learn_exempt(images)
        budget = await self._budget()
        turns = [self._turn(image) for image in self.ordered(images)]
        found = Rehearsal.of(
            turns,
            self._sharing,
            available=budget.available,
            capacity=self._capacity,
            unsure=unsure,
        )
        held = [price_to_hold(image) for image in found.starting]
        spread = self.spreading.starts(budget, held)
        at_once = [self._clock.now()] * (len(held) - len(spread))
        starts = await self._timetable([price for _, price in found.waiting])
        for image, _ in found.waiting:
            image.action = Action.DEFER
        images = [*found.starting, *(image for image, _ in found.waiting)]
        return list(zip(images, [*spread, *at_once, *starts], strict=True))

    def _turn(self, image: PlannedImage) -> Turn:
        exempt = image.wanted.reference.repository.path in self._exempt
        return Turn(image, saves=self._rank(image)[0] == _STARVING, exempt=exempt)

    async def _timetable(self, prices: Sequence[int]) -> list[datetime | None]:
        """When images of these prices, in this order, can start, of which none fits into what is
        left now; None: never, as things are."""
        if not prices:
            return []
        outlook = await self._ledger.outlook(self._client.meter, self._client.policy)
        moments = outlook.without_leftover().starts(prices)
        return [None if m is None else datetime.fromtimestamp(m, UTC) for m in moments]

    async def _stop(self) -> None:
        """Cancelled or failed: end what runs; its progress is kept."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
