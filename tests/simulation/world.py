"""A registry's pull limit on paper, and others who pull from it.

It shares no code with the forecast: events happen in the order of time, pull by pull.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_BURST_PULLS_A_SECOND = 0.5


@dataclass(frozen=True, slots=True)
class Terms:
    """How a registry limits: `every` says that only each so-manieth GET counts."""

    limit: int
    window: float
    rolling: bool
    every: int = 1


@dataclass(frozen=True, slots=True)
class Burn:
    """What others pull in a window, steadily or all in one burst somewhere within it."""

    pulls: int = 0
    bursts: bool = False

    def moments(self, window: float, seed: int) -> Iterator[float]:
        """When others pull, for ever."""
        draw = random.Random(seed)
        if not self.pulls:
            return
        number = 0
        while True:
            begin = number * window
            if self.bursts:
                length = self.pulls / _BURST_PULLS_A_SECOND
                start = begin + draw.uniform(0, max(0.0, window - length))
                yield from (start + i / _BURST_PULLS_A_SECOND for i in range(self.pulls))
            else:
                yield from sorted(begin + draw.uniform(0, window) for _ in range(self.pulls))
            number += 1


class Registry:
    """A meter from time 0 on; times may not go back."""

    def __init__(self, terms: Terms, burn: Burn, seed: int) -> None:
        self.terms = terms
        self.gets = 0
        self.refused = 0
        self.others = 0
        self._used: deque[float] = deque()
        self._burns = burn.moments(terms.window, seed)
        self._next = next(self._burns, None)

    def remaining(self, now: float) -> int:
        """What it would report."""
        self._advance(now)
        return self.terms.limit - len(self._used)

    def get(self, now: float) -> bool:
        """A manifest GET of ours; False: answered 429."""
        self._advance(now)
        counted = (self.gets + 1) % self.terms.every == 0
        if counted and not self._take(now):
            self.refused += 1
            return False
        self.gets += 1
        return True

    def next_event(self) -> float:
        """When something may change by itself: a pull comes back, or somebody else pulls."""
        returns = self._used[0] + self.terms.window if self._used else None
        known = [moment for moment in (returns, self._next) if moment is not None]
        return min(known, default=float("inf"))

    def _advance(self, now: float) -> None:
        while self._next is not None and self._next <= now:
            self._expire(self._next)
            self.others += self._take(self._next)
            self._next = next(self._burns, None)
        self._expire(now)

    def _take(self, now: float) -> bool:
        if len(self._used) >= self.terms.limit:
            return False
        self._used.append(now)
        return True

    def _expire(self, now: float) -> None:
        # Said as `next_event` says it, or rounding keeps a pull beyond its moment.
        window = self.terms.window
        if self.terms.rolling:
            while self._used and self._used[0] + window <= now:
                self._used.popleft()
        elif self._used and self._used[0] + window <= now:
            # All of a window comes back at once; the next begins with its first pull.
            self._used.clear()


def least_time(registry: Registry, pulls: int, reserve: int) -> float:
    """When so many GETs can have been sent at the earliest, by somebody who knows the future.

    Pulling at once whatever is above the reserve is the best there is: a pull made sooner comes
    back sooner, and what we have others cannot take.
    """
    now = 0.0
    while True:
        while registry.remaining(now) > reserve:
            if registry.get(now) and registry.gets >= pulls:
                return now
        now = registry.next_event()
