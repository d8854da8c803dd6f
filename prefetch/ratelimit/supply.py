"""What a meter will give: by which moment how many GETs can have been sent. Pure.

A forecast is a curve. It is drawn for somebody who pulls as soon as there is something above the
reserve, and who waits at an empty meter. `outlooks` draws three: as it is expected, as it may be
promised, and the best that could still come.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from prefetch.ratelimit.budget import Fall
from prefetch.ratelimit.learning import MeterModel, Refill

_STEPS_A_WINDOW = 120
_WINDOWS_DRAWN = 12
# A rolling window settles over the first few; what it gives later is what the last of these gave.
_WINDOWS_AVERAGED = 4
# Nobody plans for longer.
_LONGEST = 10 * 366 * 86400.0
# Docker Hub has been seen to count every second GET: while its cost is not known, at best this.
_BEST_COST = 0.5
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class Stock:
    """A meter now (Unix seconds).

    `available` is what it has above the reserve, with all taken off that the ledger takes off;
    `falls` is usage by when it was first seen; `reset_at` a moment that the registry named.
    """

    now: float
    available: int
    limit: int
    reserve: int
    falls: tuple[Fall, ...] = ()
    reset_at: float | None = None

    @property
    def capacity(self) -> int:
        """What a whole window has above the reserve."""
        return max(0, self.limit - self.reserve)


class View(StrEnum):
    """How a model is read where it is not sure."""

    EXPECTED = "expected"
    CAUTIOUS = "cautious"
    HOPEFUL = "hopeful"


@dataclass(frozen=True, slots=True)
class Terms:
    """One reading of a model: `cost` pulls a GET, `burn` pulls a window by others."""

    window: float
    at_once: bool
    cost: float
    burn: float

    @classmethod
    def of(cls, model: MeterModel, view: View) -> Terms:
        """Unknown refill counts as rolling, which gives the same or less, unless in hope."""
        known = model.get_cost.confidence > 0
        at_once = model.refill is Refill.AT_ONCE
        cost, burn = model.get_cost.value, model.burn.value
        match view:
            case View.CAUTIOUS:
                burn = model.burn_high
            case View.HOPEFUL:
                at_once = model.refill is not Refill.ROLLING
                burn = model.burn_low
                cost = cost if known else min(cost, _BEST_COST)
        return cls(model.window.value, at_once, cost, burn)


@dataclass(frozen=True, slots=True)
class Supply:
    """The curve: `moments` (Unix seconds, ascending) and the GETs sent by each of them, in all;
    afterwards `steady` GETs in every `window` seconds. No moments: there is no limit.
    """

    moments: tuple[float, ...] = ()
    gets: tuple[float, ...] = ()
    steady: float = math.inf
    window: float = 0.0

    def when(self, gets: int) -> float | None:
        """By when so many GETs can have been sent (`-inf`: at any time); None: never."""
        if not self.moments or gets <= 0:
            return -math.inf
        position = bisect_left(self.gets, gets - _TINY)
        if position < len(self.gets):
            return self.moments[position]
        if self.steady <= _TINY:
            return None
        windows = math.ceil((gets - self.gets[-1]) / self.steady - _TINY)
        moment = self.moments[-1] + windows * self.window
        return None if moment - self.moments[0] > _LONGEST else moment

    def by(self, moment: float) -> float:
        """How many GETs can have been sent by then; infinite without a limit."""
        if not self.moments:
            return math.inf
        if moment < self.moments[0]:
            return 0.0
        if moment <= self.moments[-1]:
            return self.gets[bisect_right(self.moments, moment) - 1]
        windows = math.floor((moment - self.moments[-1]) / self.window + _TINY)
        return self.gets[-1] + windows * self.steady


def draw(stock: Stock, terms: Terms) -> Supply:
    """The curve of one meter, read in one way."""
    return _at_once(stock, terms) if terms.at_once else _rolling(stock, terms)


def _at_once(stock: Stock, terms: Terms) -> Supply:
    """All comes back a window after the first use; the next window begins as we pull again."""
    sent = max(0, stock.available) / terms.cost
    moments, gets = [stock.now], [sent]
    opened = min((fall.seen_at for fall in stock.falls), default=stock.now)
    refill = stock.reset_at or opened + terms.window
    each = stock.capacity / terms.cost
    for number in range(_WINDOWS_DRAWN):
        sent += each
        moments.append(max(refill, stock.now) + number * terms.window)
        gets.append(sent)
    return Supply(tuple(moments), tuple(gets), each, terms.window)


def _rolling(stock: Stock, terms: Terms) -> Supply:
    """Each pull comes back a window after it was made; others take their share of what does."""
    window, step = terms.window, terms.window / _STEPS_A_WINDOW
    leaving = deque(
        (fall.seen_at + window, float(fall.pulls))
        for fall in sorted(stock.falls, key=lambda fall: fall.seen_at)
    )
    out = sum(pulls for _, pulls in leaving)
    # What the reading does not show yet: spends on their way, holds, what others have spent since.
    unseen = stock.capacity - out - stock.available
    out += unseen
    leaving.append((stock.now + window, unseen))
    sent = 0.0
    moments: list[float] = []
    gets: list[float] = []
    for number in range(_WINDOWS_DRAWN * _STEPS_A_WINDOW + 1):
        moment = stock.now + number * step
        while leaving and leaving[0][0] <= moment:
            out -= leaving.popleft()[1]
        others = min(terms.burn / _STEPS_A_WINDOW, max(0.0, stock.limit - out)) if number else 0.0
        ours = max(0.0, stock.capacity - out - others)
        out += others + ours
        leaving.append((moment + window, others + ours))
        if ours > 0 or not moments:
            sent += ours / terms.cost
            moments.append(moment)
            gets.append(sent)
    last = stock.now + (_WINDOWS_DRAWN - _WINDOWS_AVERAGED) * window
    before = gets[max(0, bisect_right(moments, last) - 1)]
    steady = (sent - before) / _WINDOWS_AVERAGED
    return Supply(
        tuple(moments), tuple(gets), steady if steady > 1 / _STEPS_A_WINDOW else 0, window
    )


@dataclass(frozen=True, slots=True)
class Outlook:
    """A meter's forecast: what it rests on, and the curves that follow.

    `limits` has a stock and a model for each view of the meter that limits it (a source that is
    reported, a limit that is configured), the tightest first; none: nothing limits it.
    """

    now: float
    limits: tuple[tuple[Stock, MeterModel], ...] = ()

    @property
    def model(self) -> MeterModel | None:
        """What the tightest view has taught; None without a limit."""
        return self.limits[0][1] if self.limits else None

    def starts(self, prices: Sequence[int], view: View = View.EXPECTED) -> list[float | None]:
        """When each image (its price in GETs), in the order given, can start: Unix seconds, never
        before now, and none before those ahead of it. None: never."""
        # Each view of the meter has its curve, and the slowest of them governs.
        supplies = [draw(stock, Terms.of(model, view)) for stock, model in self.limits]
        moments: list[float | None] = []
        ahead = 0
        for price in prices:
            ahead += price
            found = [supply.when(ahead) for supply in supplies] if price else []
            known = [moment for moment in found if moment is not None]
            moments.append(None if len(known) < len(found) else max([self.now, *known]))
        return moments

    def without_leftover(self) -> Outlook:
        """The same for images of which none fits into what is left now."""
        limits = tuple((replace(stock, available=0), model) for stock, model in self.limits)
        return replace(self, limits=limits)
