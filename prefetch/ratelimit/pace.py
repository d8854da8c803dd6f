"""How a run spreads its pulls over what is left of a window. Pure; times are seconds.

*Burst* spends what is available at once. *Smooth* spends it evenly until the budget is back: the
meter falls slowly, and whoever shares it finds something at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_JITTER: Final = 0.2


class Pace(StrEnum):
    """How pulls are spent."""

    BURST = "burst"
    SMOOTH = "smooth"


@dataclass(frozen=True, slots=True)
class Spread:
    """`available` pulls, evenly from `now` until `end`."""

    available: int
    now: float
    end: float

    def gap(self, pulls: int, jitter: float = 0.5) -> float:
        """Seconds until the next image may start, after one that takes so many `pulls`.

        `jitter`, from 0 to 1, moves it by up to a fifth to either side. What is taken after each
        gap has the same share of what is left in it as before, so the next gap can be computed
        anew from what is available then. Never longer than until the end.
        """
        left = max(self.end - self.now, 0.0)
        even = left * pulls / max(self.available, 1)
        return min(even * (1 - _JITTER + 2 * _JITTER * jitter), left)

    def starts(self, prices: list[int]) -> list[float]:
        """When images of these prices start, in that order: those for which there is enough."""
        moments, moment, spent = [], self.now, 0
        for price in prices:
            if spent + price > self.available:
                break
            moments.append(moment)
            moment += self.gap(price)
            spent += price
        return moments
