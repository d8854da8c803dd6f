"""What would make a deadline promised that is not: each change with its figure. Pure.

Every one is found by judging the same case anew with that change alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from prefetch.oci.reference import DEFAULT_REGISTRY
from prefetch.ratelimit.learning import Learned, MeterModel
from prefetch.ratelimit.supply import Outlook, Stock
from prefetch.state.meters import ANONYMOUS
from prefetch.sync.deadline import Case, Claim, Queue, is_promised, promises

# Docker Hub's for an account without a subscription (Docker documentation, "Pull usage and
# limits"), in six hours.
_ACCOUNT_LIMIT = 200
_ACCOUNT_WINDOW = 21600.0
# Whoever reads of a later deadline needs a moment to begin: of the longest window, and seconds.
_SPARE, _LEAST_SPARE = 0.02, 5.0


class Remedy(StrEnum):
    """What is changed."""

    LATER = "later"
    START = "start"
    ACCOUNT = "account"
    ALTERNATE = "alternate"
    RESERVE = "reserve"
    PLATFORMS = "platforms"
    IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Change:
    """A change that would do.

    `value` is a moment (LATER, START: Unix seconds), a number of pulls (ACCOUNT, RESERVE) or of
    images, the PLATFORMS that remain, or nothing; `saved` are pulls less at most, `ready_at` is by
    when everything is promised then.
    """

    remedy: Remedy
    value: float | tuple[str, ...] | None
    ready_at: float
    registry: str | None = None
    saved: int = 0
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fewer:
    """The case for these platforms alone."""

    platforms: tuple[str, ...]
    queues: tuple[Queue, ...]


def remedies(case: Case, fewer: Sequence[Fewer] = ()) -> list[Change]:
    """What would do, what costs least first; nothing for a case that is promised as it is."""
    if is_promised(case):
        return []
    found = (
        *(_later(case), _earlier(case), *_accounts(case), *_alternates(case)),
        *(_reserve(case), _platforms(case, fewer), _images(case)),
    )
    return [change for change in found if change is not None]


def _ready(case: Case) -> float | None:
    """By when everything is promised."""
    moments = promises(case)
    known = [moment for moment in moments if moment is not None]
    return None if len(known) < len(moments) else max([case.now, *known])


def _in_time(case: Case) -> float | None:
    """The same, where that is in time."""
    ready = _ready(case)
    return None if ready is None or ready > case.by else ready


def _later(case: Case) -> Change | None:
    ready = _ready(case)
    if ready is None:
        return None
    # Begun a little later, everything is promised that much later.
    windows = [model.window.value for q in case.queues for _, model in q.outlook.limits]
    spare = max(_LEAST_SPARE, _SPARE * max(windows, default=0.0))
    return Change(Remedy.LATER, math.ceil(ready + spare), ready)


def latest_start(case: Case) -> float | None:
    """The latest moment from which everything is promised by then to who has full meters at that
    time; None: there is none."""
    full = replace(case, queues=tuple(_with_stocks(queue, _full) for queue in case.queues))
    ready = _ready(full)
    return None if ready is None else case.by - (ready - case.now)


def _earlier(case: Case) -> Change | None:
    """For windows that come again: a start that would have been in time."""
    start = latest_start(case)
    if start is None or start >= case.now:
        return None
    return Change(Remedy.START, math.floor(start), case.by)


def _full(stock: Stock, model: MeterModel) -> tuple[Stock, MeterModel]:
    return Stock(stock.now, stock.capacity, stock.limit, stock.reserve), model


def _accounts(case: Case) -> Iterator[Change]:
    """An account in place of an anonymous address, with a meter of its own that is full."""
    for queue in case.queues:
        if (queue.registry, queue.identity) != (DEFAULT_REGISTRY, ANONYMOUS) or not queue.claims:
            continue
        reserve = queue.reserve.of(_ACCOUNT_LIMIT)
        now = queue.outlook.now
        stock = Stock(now, _ACCOUNT_LIMIT - reserve, _ACCOUNT_LIMIT, reserve)
        known = queue.outlook.model or MeterModel(None, Learned(_ACCOUNT_WINDOW, 1.0))
        # Nobody else pulls by that account, unless told otherwise.
        model = MeterModel(
            _ACCOUNT_LIMIT,
            known.window,
            known.refill,
            known.refill_confidence,
            get_cost=known.get_cost,
        )
        changed = replace(queue, outlook=Outlook(now, ((stock, model),)))
        ready = _in_time(_with_queue(case, queue, changed))
        if ready is not None:
            yield Change(Remedy.ACCOUNT, _ACCOUNT_LIMIT, ready, queue.registry)


def _alternates(case: Case) -> Iterator[Change]:
    """A source that has everything, for a registry that has none configured."""
    for queue in case.queues:
        if queue.alternates or not queue.outlook.limits:
            continue
        free = tuple(replace(claim, least=0, most=0, hold=0) for claim in queue.claims)
        ready = _in_time(_with_queue(case, queue, replace(queue, claims=free)))
        if ready is not None:
            yield Change(Remedy.ALTERNATE, None, ready, queue.registry, _price(queue.claims))


def _reserve(case: Case) -> Change | None:
    """The largest reserve that would do, for every registry."""

    def changed(reserve: int) -> Case:
        def less(stock: Stock, model: MeterModel) -> tuple[Stock, MeterModel]:
            freed = max(0, stock.reserve - reserve)
            spent = replace(stock, reserve=stock.reserve - freed, available=stock.available + freed)
            return spent, model

        return replace(case, queues=tuple(_with_stocks(queue, less) for queue in case.queues))

    most = max((s.reserve for q in case.queues for s, _ in q.outlook.limits), default=0)
    if most == 0:
        return None
    less = _least(most, lambda given: is_promised(changed(most - given)))
    ready = None if less is None else _in_time(changed(most - less))
    return None if less is None or ready is None else Change(Remedy.RESERVE, most - less, ready)


def _platforms(case: Case, fewer: Iterable[Fewer]) -> Change | None:
    """Of those that would do, the one that leaves out the least."""
    total = _price(case.claims)
    found = []
    for offer in fewer:
        changed = replace(case, queues=offer.queues)
        ready = _in_time(changed)
        if ready is not None:
            saved = max(0, total - _price(changed.claims))
            found.append(Change(Remedy.PLATFORMS, offer.platforms, ready, saved=saved))
    return max(found, key=lambda change: len(_listed(change)), default=None)


def _listed(change: Change) -> tuple[str, ...]:
    return change.value if isinstance(change.value, tuple) else ()


def _images(case: Case) -> Change | None:
    """The least important ones left out, of each meter as many as it takes."""
    kept: list[Queue] = []
    left_out: list[Claim] = []
    for queue in case.queues:
        cut = _least(len(queue.claims), partial(_fits, case, queue))
        if cut is None:
            return None
        number = len(queue.claims) - cut
        kept.append(replace(queue, claims=queue.claims[:number]))
        left_out += queue.claims[number:]
    ready = _in_time(replace(case, queues=tuple(kept)))
    if ready is None or not left_out or len(left_out) == len(list(case.claims)):
        return None
    names = tuple(claim.name for claim in left_out)
    return Change(Remedy.IMAGES, len(names), ready, saved=_price(left_out), images=names)


def _fits(case: Case, queue: Queue, cut: int) -> bool:
    """Whether the queue alone is in time without its last `cut` images."""
    some = replace(queue, claims=queue.claims[: len(queue.claims) - cut])
    return is_promised(replace(case, queues=(some,)))


def _least(most: int, does: Callable[[int], bool]) -> int | None:
    """The least number up to `most` that does, where any larger one does, too."""
    if not does(most):
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if does(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _price(claims: Iterable[Claim]) -> int:
    """The most that they cost; what has no bound counts as what would be held."""
    return sum(claim.hold if claim.most is None else claim.most for claim in claims)


def _with_queue(case: Case, old: Queue, new: Queue) -> Case:
    return replace(case, queues=tuple(new if each is old else each for each in case.queues))


def _with_stocks(
    queue: Queue, change: Callable[[Stock, MeterModel], tuple[Stock, MeterModel]]
) -> Queue:
    limits = tuple(change(stock, model) for stock, model in queue.outlook.limits)
    return replace(queue, outlook=replace(queue.outlook, limits=limits))
