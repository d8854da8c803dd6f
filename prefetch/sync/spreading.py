"""Smooth spending: when the next image of one meter may start.

A run at a smooth pace spends what it finds available evenly until that is back; without `--wait` it
ends then, and what has not had its turn is put off.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Final

from prefetch.clock import Clock
from prefetch.events import Emit, PullsSpread, Remark
from prefetch.ratelimit.pace import Pace, Spread
from prefetch.state.ledger import Budget

_NEVER: Final = float("inf")


class Spreading:
    """One meter's pulls, spread; or not, at pace `burst`.

    Without `wait` the run keeps to the window that it begins in. `deadline` (monotonic seconds)
    ends it earlier.
    """

    def __init__(
        self, pace: Pace, *, wait: bool, deadline: float | None, clock: Clock, emit: Emit
    ) -> None:
        self.begun: PullsSpread | None = None
        self._smooth = pace is Pace.SMOOTH
        self._wait = wait
        self._last = _NEVER if deadline is None else deadline
        self._clock = clock
        self._emit = emit
        self._random = random.SystemRandom()
        self._end: float | None = None
        self._available = 0
        self._remaining = 0
        self._next = 0.0

    def learn(self, budget: Budget) -> None:
        """Take in what the meter has now, and when it is back."""
        if not self._smooth:
            return
        if budget.back_at is None or budget.available is None:
            self._smooth = False
            registry = budget.meter.registry
            why = f"{registry} does not tell its window, and no limit is configured"
            self._emit(Remark(f"{why}: its pulls are not spread"))
            return
        remaining = budget.remaining or 0
        known = min(self._available, remaining - budget.reserve)
        # A window that has begun anew is spread anew.
        if self._end is None or self._now >= self._end or remaining > self._remaining:
            self._end = self._now + (budget.back_at - self._clock.now()).total_seconds()
            if self.begun is None and not self._wait:
                self._last = min(self._last, self._end)
            known = budget.available
        # The ledger's estimate is too low for as long as no reading shows the latest pulls.
        self._available, self._remaining = max(known, budget.available), remaining
        if self.begun is None and budget.available > 0:
            seconds = max(min(self._end, self._last) - self._now, 0.0)
            until = self._clock.now() + timedelta(seconds=seconds)
            meter = budget.meter
            self.begun = PullsSpread(meter.registry, meter.identity, budget.available, until)
            self._emit(self.begun)

    def started(self, pulls: int) -> None:
        """An image has been admitted for so many pulls."""
        if self._end is None or not self._smooth:
            return
        gap = Spread(self._available, self._now, self._end).gap(pulls, self._random.random())
        self._next = self._now + gap
        self._available -= pulls

    @property
    def pause(self) -> float:
        """Seconds until the next image that costs pulls may be admitted; 0: now."""
        return max(min(self._next, self._last) - self._now, 0.0) if self._smooth else 0.0

    @property
    def over(self) -> bool:
        """Whether the run has come to its end, and admits nothing more that costs a pull."""
        return self._smooth and self._end is not None and self._now >= self._last

    def starts(self, budget: Budget, prices: list[int]) -> list[datetime]:
        """When the first of images with these prices start: those that can be had by then."""
        now = self._clock.now()
        if not self._smooth or budget.back_at is None or budget.available is None:
            return []
        spread = Spread(budget.available, now.timestamp(), budget.back_at.timestamp())
        return [datetime.fromtimestamp(each, UTC) for each in spread.starts(prices)]

    @property
    def _now(self) -> float:
        return self._clock.monotonic()
