"""When deferred images can start: pure arithmetic over one meter's budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# What a meter that never reported its window is taken to have (Docker Hub's).
DEFAULT_WINDOW_SECONDS = 21600.0


@dataclass(frozen=True, slots=True)
class Windows:
    """What a meter can give, and when.

    `available` pulls now, then `capacity` (limit less reserve) a window, the first at `refill`.
    """

    available: int
    capacity: int
    window_seconds: float
    refill: datetime

    def starts(self, prices: Sequence[int], now: datetime) -> list[datetime]:
        """When each image, in the order given, can start: none before those ahead of it."""
        moments = []
        ahead = 0
        for price in prices:
            ahead += price
            moments.append(self._moment(ahead, now))
        return moments

    def _moment(self, pulls: int, now: datetime) -> datetime:
        if pulls <= max(0, self.available):
            return now
        lacking = pulls - max(0, self.available)
        windows = (lacking - 1) // max(1, self.capacity)
        return self.refill + timedelta(seconds=windows * self.window_seconds)
