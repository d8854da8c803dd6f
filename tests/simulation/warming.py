"""One warming of many images, with restarts, by the real admission, metering and ledger."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from prefetch.clock import Clock
from prefetch.errors import BudgetExhausted, PullLimitReached
from prefetch.oci.platform import Platform
from prefetch.oci.reference import Digest, Reference, Repository
from prefetch.ratelimit.budget import Reserve
from prefetch.ratelimit.headers import Observation
from prefetch.ratelimit.pace import Pace
from prefetch.ratelimit.supply import Outlook
from prefetch.remote.metering import Meter
from prefetch.remote.registry import RegistryClient
from prefetch.state.database import State
from prefetch.state.ledger import Ledger
from prefetch.state.meters import Hold, MeterKey, MeterPolicy
from prefetch.sync.admission import Admission, Patience, price_to_hold
from prefetch.sync.planner import Planner
from prefetch.sync.sharing import Payer, Sharing
from prefetch.sync.wanted import Grant, PlannedImage, Spent, Wanted
from simulation.virtual import EPOCH, VirtualClock
from simulation.world import Registry

_CONCURRENCY = 8
_LATENCY = (0.02, 0.2)
_DOWN_SECONDS = (1.0, 60.0)
_PLATFORMS = tuple(Platform.parse(f"linux/{name}") for name in ("amd64", "arm64", "386", "s390x"))


@dataclass
class Watched:
    """What was seen of a warming. `low` are pulls that were sent at or under the reserve as last
    reported; `outlooks` what was forecast at the moments asked for."""

    seconds: float = 0.0
    sent: int = 0
    refused: int = 0
    low: int = 0
    restarts: int = 0
    outlooks: dict[float, tuple[Outlook, int]] = field(default_factory=dict)


class Client:
    """What the admission asks of a registry's client, over the registry on paper."""

    def __init__(
        self, registry: Registry, ledger: Ledger, reserve: int, clock: Clock, seen: Watched
    ) -> None:
        self.meter = MeterKey("docker.io")
        self.policy = MeterPolicy(Reserve(reserve))
        self.settings = SimpleNamespace(max_concurrency=_CONCURRENCY, pace=Pace.BURST)
        self._reserve = reserve
        self._registry = registry
        self._metering = Meter(ledger, self.meter, self.policy, clock)
        self._clock = clock
        self._seen = seen
        self._random = random.Random(registry.gets)
        self._reported: int | None = None
        # GETs sent after the request whose answer reported last.
        self._since = 0

    async def observe(self, reference: Reference) -> None:
        await self._look(reference.repository.path)

    async def pull(self, path: str, hold: Hold | None) -> None:
        """One GET; raises BudgetExhausted."""
        digest = Digest.parse(f"sha256:{'0' * 64}")
        spend = await self._metering.draw(path, digest, hold, lambda: self._look(path))
        self._seen.sent += 1
        if self._reported is not None and self._reported <= self._reserve:
            self._seen.low += 1
        await self._pass()
        answered = self._registry.get(self._clock.monotonic())
        self._seen.refused += not answered
        reading = self._reading()
        await self._pass()
        self._reported = reading.remaining
        if answered:
            await self._metering.settle(spend, reading, found=True)
            return
        await self._metering.settle(spend, reading, found=False)
        error = PullLimitReached("429", status=429, retry_after=None)
        raise await self._metering.exhausted(error)

    async def _look(self, path: str) -> None:
        stamp = await self._metering.head_stamp(path)
        await self._pass()
        reading = self._reading()
        await self._pass()
        self._reported = reading.remaining
        await self._metering.observe(path, stamp, reading)

    def _reading(self) -> Observation:
        terms = self._registry.terms
        remaining = self._registry.remaining(self._clock.monotonic())
        return Observation(terms.limit, remaining, int(terms.window), "203.0.113.7")

    async def _pass(self) -> None:
        await self._clock.sleep(self._random.uniform(*_LATENCY))


class _Planner:
    """Nothing upstream changes here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def refresh(self, images: Sequence[PlannedImage]) -> None:
        for image in images:
            image.checked_at = self._clock.monotonic()

    async def price(self, images: Sequence[PlannedImage]) -> None:
        """Prices are kept up to date by whoever pulls."""


@dataclass
class Warming:
    """Images that cost so many GETs each (`prices`), from a registry, above a reserve.

    `restarts` is how often, in a window and on average, the process is killed; `looks` are the
    moments at which the forecast is noted.
    """

    registry: Registry
    prices: Sequence[int]
    reserve: int
    directory: Path
    restarts: float = 0.0
    looks: Sequence[float] = ()
    longest: float = float("inf")
    seed: int = 0

    async def run(self) -> Watched:
        """Until all is warm, or `longest` seconds have passed."""
        clock, seen = VirtualClock(), Watched()
        draw = random.Random(self.seed)
        images = [_image(number, price) for number, price in enumerate(self.prices)]
        while any(image.pulls_min for image in images) and clock.monotonic() < self.longest:
            url = f"sqlite:///{self.directory}/prefetch.db"
            state = await State.open(url, data_dir=self.directory, clock=clock)
            ledger = await Ledger.open(state, directory=self.directory / "locks", clock=clock)
            life = self.longest - clock.monotonic()
            if self.restarts:
                window = self.registry.terms.window
                life = min(life, draw.expovariate(self.restarts / window))
            work = asyncio.ensure_future(self._live(images, ledger, clock, seen))
            watch = asyncio.ensure_future(self._watch(images, ledger, clock, seen))
            await asyncio.wait([work], timeout=life)
            if work.done():
                work.result()
            else:
                _kill(ledger)
                seen.restarts += 1
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
            await state.close()
            seen.seconds = clock.monotonic()
            if seen.restarts and any(image.pulls_min for image in images):
                await clock.sleep(draw.uniform(*_DOWN_SECONDS))
        return seen

    async def _live(
        self, images: Sequence[PlannedImage], ledger: Ledger, clock: Clock, seen: Watched
    ) -> None:
        client = Client(self.registry, ledger, self.reserve, clock, seen)

        async def start(image: PlannedImage, grant: Grant) -> bool:
            return await _fetch(client, ledger, image, grant)

        wanted = [image for image in images if image.pulls_min]
        sharing = Sharing()
        for image in wanted:
            sharing.expect(Payer(image, cast("RegistryClient", client), Spent()))
        admission = Admission(
            client=cast("RegistryClient", client),
            ledger=ledger,
            planner=cast("Planner", _Planner(clock)),
            clock=clock,
            emit=lambda _: None,
            patience=Patience(wait=True),
            sharing=sharing,
        )
        await admission.run(wanted, start, _never)

    async def _watch(
        self, images: Sequence[PlannedImage], ledger: Ledger, clock: Clock, seen: Watched
    ) -> None:
        for moment in self.looks:
            if moment not in seen.outlooks:
                await clock.sleep(moment - clock.monotonic())
                client = MeterKey("docker.io")
                outlook = await ledger.outlook(client, MeterPolicy(Reserve(self.reserve)))
                seen.outlooks[moment] = outlook, price_of(images)


async def _fetch(client: Client, ledger: Ledger, image: PlannedImage, grant: Grant) -> bool:
    """Pull what the image lacks: its index, then all below it at once."""
    path = image.wanted.reference.repository.path
    try:
        if image.pulls_max != image.pulls_min:
            # An index that is not here: its price is bounded, and known once it has come.
            await client.pull(path, grant.hold)
            image.pulls_max = image.pulls_min = _true_price(image) - 1
        if image.pulls_min:
            pulls = [_one(client, path, image, grant) for _ in range(image.pulls_min)]
            await asyncio.gather(*pulls)
    except BudgetExhausted:
        return True
    return False


async def _one(client: Client, path: str, image: PlannedImage, grant: Grant) -> None:
    await client.pull(path, grant.hold)
    image.pulls_min -= 1
    image.pulls_max = image.pulls_min


def _image(number: int, price: int) -> PlannedImage:
    """An image of that price: a lone manifest, or an index whose price is bounded by platforms."""
    reference = Reference(Repository("docker.io", f"library/image{number}"), "1", None)
    platforms = _PLATFORMS[: max(1, price - 1)]
    image = PlannedImage(Wanted(reference, platforms))
    image.pulls_min, image.pulls_max = 1, price
    image.size = price
    image.digest = f"sha256:{number:064x}"
    return image


def _true_price(image: PlannedImage) -> int:
    return image.size or 0


def _kill(ledger: Ledger) -> None:
    """As `kill -9`: nothing more is written, and the kernel lets go of the lock."""

    async def gone(*_: Any, **__: Any) -> NoReturn:
        raise asyncio.CancelledError

    journal = ledger._journal
    if journal._flusher is not None:
        journal._flusher.cancel()
    if journal._lease is not None:
        journal._lease.release()
    journal.transact = gone  # type: ignore[method-assign]


def _never(image: PlannedImage, moment: object) -> None:
    raise AssertionError(f"{image.wanted.name} was put off until {moment} in spite of patience")


def price_of(images: Sequence[PlannedImage]) -> int:
    """What they still cost at most."""
    return sum(price_to_hold(image) for image in images)


__all__ = ["EPOCH", "Warming", "Watched", "price_of"]
