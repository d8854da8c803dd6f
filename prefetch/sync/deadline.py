"""Whether everything can be warm by a moment: what is promised, expected, or beyond hope. Pure.

Three readings of the same forecast decide. *Promised* is what the cautious one has by then: the
upper bound of every price, the most that others have taken, refills noticed late, pulls left over
because images go whole or not at all, transfers at half the best pace that was seen. *Impossible*
is what even the hopeful one lacks: the lower bounds, each shared manifest once, nobody else
pulling, what is used already back at once. Between the two, nothing is sure.

Times are Unix seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from prefetch.ratelimit.budget import (
    DEFAULT_RESERVE,
    Fall,
    Reserve,
    check_interval,
)
from prefetch.ratelimit.learning import MeterModel, Refill
from prefetch.ratelimit.supply import Outlook, Stock, Supply, Terms, View, draw
from prefetch.state.records import Pace

# A manifest's GET, and the HEAD before it near the reserve, take some time; several go at once.
_SECONDS_A_PULL = 0.1
# Of the best pace that past runs have seen, so much is promised.
_PROMISED_PACE = 0.5
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class Claim:
    """An image that is lacking.

    It costs from `least` to `most` pulls (None: nothing bounds it), `hold` are set aside for it;
    `bytes` are to be fetched (None: not known yet).
    """

    name: str
    least: int
    most: int | None
    hold: int
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A meter's forecast, and its images in the order in which they are admitted.

    `reserve` is what is configured; `alternates` says whether the registry has any.
    """

    registry: str
    identity: str
    outlook: Outlook
    claims: tuple[Claim, ...]
    reserve: Reserve = DEFAULT_RESERVE
    alternates: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be judged: all that is lacking, by when. `lost` images cannot be fetched."""

    now: float
    by: float
    queues: tuple[Queue, ...]
    pace: Pace = Pace()  # noqa: RUF009 - frozen
    lost: tuple[str, ...] = ()

    @property
    def claims(self) -> Iterator[Claim]:
        """Every image that is lacking, queue by queue."""
        return (claim for queue in self.queues for claim in queue.claims)


class Kind(StrEnum):
    """What can be said."""

    FEASIBLE = "feasible"
    UNCERTAIN = "uncertain"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a case.

    Everything is promised by `ready_at` and expected by `expected_at` (None: that cannot be said).
    `lacking` pulls are not to be had by then even at best. `late` images are expected too late,
    `at_risk` ones (those among them) are not promised; `lost` ones are in both.
    """

    kind: Kind
    by: float
    ready_at: float | None
    expected_at: float | None
    lacking: int
    late: tuple[str, ...]
    at_risk: tuple[str, ...]
    pulls_min: int
    pulls_max: int | None
    lost: tuple[str, ...] = ()


def judge(case: Case) -> Verdict:
    """The verdict on a case."""
    promised, expected = promises(case), expectations(case)
    lacking = sum(_lacking(queue, case.by) for queue in case.queues)
    at_risk = (*_missing(case, promised), *case.lost)
    kind = Kind.UNCERTAIN if at_risk else Kind.FEASIBLE
    bounds = [claim.most for claim in case.claims]
    return Verdict(
        kind=Kind.IMPOSSIBLE if lacking else kind,
        by=case.by,
        ready_at=None if case.lost else _last(promised, case.now),
        expected_at=None if case.lost else _last(expected, case.now),
        lacking=lacking,
        late=(*_missing(case, expected), *case.lost),
        at_risk=at_risk,
        pulls_min=sum(claim.least for claim in case.claims),
        pulls_max=None if None in bounds else sum(bound or 0 for bound in bounds),
        lost=case.lost,
    )


def promises(case: Case) -> list[float | None]:
    """By when each image can be promised, in the order of `case.claims`; None: it cannot."""
    rate = None if case.pace.rate is None else _PROMISED_PACE * case.pace.rate
    starts = [start for queue in case.queues for start in _promised_starts(queue)]
    return _transferred(case, starts, rate, _SECONDS_A_PULL)


def expectations(case: Case) -> list[float | None]:
    """By when each image is expected; None: never, as things are."""
    starts = [
        start
        for queue in case.queues
        for start in queue.outlook.starts([claim.hold for claim in queue.claims])
    ]
    return _transferred(case, starts, case.pace.rate, 0.0)


def is_promised(case: Case) -> bool:
    """Whether everything is promised in time."""
    return not _missing(case, promises(case))


def _missing(case: Case, ready: Sequence[float | None]) -> tuple[str, ...]:
    claims = zip(case.claims, ready, strict=True)
    return tuple(claim.name for claim, at in claims if at is None or at > case.by)


def _last(ready: Sequence[float | None], now: float) -> float | None:
    known = [at for at in ready if at is not None]
    return None if len(known) < len(ready) else max([now, *known])


def _promised_starts(queue: Queue) -> list[float | None]:
    """When each image can be promised to start."""
    found: list[float | None] = [queue.outlook.now] * len(queue.claims)
    for stock, model in queue.outlook.limits:
        starts = _starts(queue.claims, stock, model)
        found = [
            None if one is None or other is None else max(one, other)
            for one, other in zip(found, starts, strict=True)
        ]
    return found


def _starts(claims: Sequence[Claim], stock: Stock, model: MeterModel) -> Iterator[float | None]:
    """The same by one view of the meter."""
    window = model.window.value
    late = check_interval(math.inf, window, costly=False)
    dearest = max((claim.most or 0 for claim in claims), default=0)
    idle = max(0, min(dearest, stock.capacity) - 1) + math.ceil(model.burn_high * late / window)
    later = _later(stock, model, idle)
    ahead: float = 0
    for claim in claims:
        # Where a price has no bound, nothing can be said of what comes after it either.
        ahead += math.inf if claim.most is None else claim.most
        if claim.most == 0 or ahead <= stock.available:
            yield stock.now
            continue
        moment = later.when(int(ahead)) if later and ahead < math.inf else None
        if moment is not None:
            moment += late * (1 + max(0.0, moment - stock.now) // window)
        yield moment


def _later(stock: Stock, model: MeterModel, idle: int) -> Supply | None:
    """What is promised beyond what is there now, while up to `idle` pulls lie unused; None where a
    window's length is a guess."""
    if model.window.confidence <= 0:
        return None
    spared = replace(stock, reserve=stock.reserve + idle, available=max(0, stock.available - idle))
    if spared.capacity <= 0:
        return None
    if model.refill is Refill.AT_ONCE:
        return draw(_opened_late(spared), Terms.of(model, View.CAUTIOUS))
    if model.burn_high > 0:
        return _window_by_window(spared, model)
    return draw(spared, Terms.of(model, View.CAUTIOUS))


def _opened_late(stock: Stock) -> Stock:
    """Between two looks a window may have ended and another begun: of usage that seems old, only
    the latest is sure to be of this one."""
    if not stock.falls:
        return stock
    seen_at = max(fall.seen_at for fall in stock.falls)
    return replace(stock, falls=(Fall(seen_at, sum(fall.pulls for fall in stock.falls)),))


def _window_by_window(stock: Stock, model: MeterModel) -> Supply:
    """What a rolling window that others pull from gives for sure: in each whole window, what is
    above the most that they take. How old the usage of now is cannot be told, since theirs hides
    what comes back.
    """
    window, cost = model.window.value, model.get_cost.value
    each = max(0.0, stock.capacity - model.burn_high) / cost
    moments = (stock.now, stock.now + window)
    return Supply(moments, (stock.available / cost, stock.available / cost + each), each, window)


def _transferred(
    case: Case, starts: Sequence[float | None], rate: float | None, each_pull: float
) -> list[float | None]:
    """When each image is here: they start then, and all go one after the other through one line."""
    claims = list(case.claims)
    free = case.now
    ready: list[float | None] = [None] * len(claims)
    known = [(start, at) for at, start in enumerate(starts) if start is not None]
    for start, at in sorted(known):
        claim = claims[at]
        size = (case.pace.image if claim.bytes is None else claim.bytes) or 0
        seconds = (size / rate if rate else 0.0) + each_pull * claim.hold
        free = max(free, start) + seconds
        ready[at] = free
    return ready


def _lacking(queue: Queue, by: float) -> int:
    """Pulls that are not to be had by then even at best."""
    wanted = sum(claim.least for claim in queue.claims)
    had = [_hoped(stock, model, by) for stock, model in queue.outlook.limits]
    missing = wanted - min(had, default=math.inf)
    return math.ceil(missing - _TINY) if missing > _TINY else 0


def _hoped(stock: Stock, model: MeterModel, by: float) -> float:
    """The GETs that can have been sent by then at best."""
    if model.window.confidence <= 0:
        return math.inf
    window = model.window.value
    used = sum(fall.pulls for fall in stock.falls)
    # Holds may be given up, and what others are taken to have spent may still be there.
    best = replace(stock, available=max(stock.available, stock.capacity - used))
    if model.refill is Refill.ROLLING:
        best = replace(best, available=best.capacity, falls=())
        by += window / 50 * (2 + max(0.0, by - stock.now) / window)  # a drawn curve has steps
    elif stock.falls and stock.reset_at is None:
        best = replace(best, reset_at=stock.now)
    return draw(best, Terms.of(replace(model, burn_low=0.0), View.HOPEFUL)).by(by)
