"""The arithmetic of budgets. Pure: numbers in, numbers out; times are seconds.

A *meter* counts the pulls of one identity at one registry. Its last reading, less what has been
spent since, is an *estimate*; what the estimate has beyond the reserve is *available*.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from prefetch.errors import ConfigError

_RESERVE = re.compile(r"(\d{1,12})(?:(\.\d{1,6})?\s*(%))?")
_MAX_FALLS = 64

FRESH_SECONDS = 60.0
NEAR_RESERVE = 5
UNKNOWN_WINDOW = 3600.0


@dataclass(frozen=True, slots=True)
class Reserve:
    """Pulls that are not ours to spend: a number, or a share of the limit in percent."""

    pulls: int = 0
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`5` or `20%`. Raises ConfigError."""
        match = _RESERVE.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f"reserve {text!r} is neither a number of pulls nor a percentage")
        number, fraction, sign = match.groups()
        if not sign:
            return cls(pulls=int(number))
        percent = float(number + (fraction or ""))
        if percent > 100:  # noqa: PLR2004
            raise ConfigError(f"reserve {text!r} is more than 100 %")
        return cls(percent=percent)

    def of(self, limit: int | None) -> int:
        """The reserve in pulls, rounded up; a share of an unknown limit is nothing."""
        if self.percent is None:
            return self.pulls
        if limit is None:
            return 0
        # Rounding first keeps 20 % of 5 from becoming 2 by a float's last bit.
        return math.ceil(round(limit * self.percent / 100, 6))

    def __str__(self) -> str:
        return str(self.pulls) if self.percent is None else f"{self.percent:g}%"


DEFAULT_RESERVE = Reserve(percent=20.0)


@dataclass(frozen=True, slots=True)
class Burn:
    """How fast others spend: pulls a second, averaged exponentially in continuous time."""

    rate: float = 0.0

    def sampled(self, pulls: int, seconds: float, window: float | None) -> Burn:
        """After `pulls` that were not ours fell in the last `seconds` (> 0)."""
        tau = min(max((window or UNKNOWN_WINDOW) / 4, 5.0), 1800.0)
        keep = math.exp(-seconds / tau)
        return Burn(keep * self.rate + (1 - keep) * pulls / seconds)

    def expected(self, age: float, window: float | None) -> int:
        """Whole pulls that others have probably spent within `age` seconds.

        Rounding down is exact here: an integer exceeds a number when it exceeds its floor.
        """
        return math.floor(self.rate * min(max(age, 0.0), window or UNKNOWN_WINDOW))


@dataclass(frozen=True, slots=True)
class Fall:
    """Usage first seen at `seen_at`: it leaves the meter one window later at the latest."""

    seen_at: float
    pulls: int


def follow_usage(
    falls: Sequence[Fall], used: int, now: float, window: float | None
) -> tuple[Fall, ...]:
    """Usage by the time it was first seen, brought up to a meter that has `used` pulls in it.

    New usage was seen now; what has left was the oldest.
    """
    horizon = now - (window or UNKNOWN_WINDOW)
    kept = [fall for fall in falls if horizon < fall.seen_at <= now]
    surplus = sum(fall.pulls for fall in kept) - used
    while surplus > 0:
        oldest = kept.pop(0)
        left = min(oldest.pulls, surplus)
        surplus -= left
        if oldest.pulls > left:
            kept.insert(0, Fall(oldest.seen_at, oldest.pulls - left))
    if surplus < 0:
        kept.append(Fall(now, -surplus))
    while len(kept) > _MAX_FALLS:
        first, second = kept[:2]
        kept[:2] = [Fall(second.seen_at, first.pulls + second.pulls)]
    return tuple(kept)


def refill_at(
    falls: Sequence[Fall],
    *,
    available: int,
    price: int,
    now: float,
    window: float | None,
    burn: Burn,
    reset_at: float | None = None,
) -> float:
    """The moment at which `price` pulls will be available: never before now.

    Reads the window as rolling, which is the later of the possibilities. A moment that the
    registry itself named wins. Never later than one window from now.
    """
    if available >= price:
        return now
    latest = now + (window or UNKNOWN_WINDOW)
    if reset_at is not None and reset_at > now:
        return reset_at
    for fall in sorted(falls, key=lambda fall: fall.seen_at):
        leaves = min(max(fall.seen_at + (latest - now), now), latest)
        available += fall.pulls
        if available - burn.rate * (leaves - now) >= price:
            return leaves
    return latest


def check_interval(until_forecast: float, window: float | None, *, costly: bool) -> float:
    """Seconds until the next free look at an empty meter, before jitter.

    At the forecast moment, and at most min(5 min, window / 20) from now; ten times as long when
    a look costs a pull itself.
    """
    longest = min(300.0, (window or UNKNOWN_WINDOW) / 20)
    if costly:
        longest *= 10
    return max(min(until_forecast, longest), 0.1)
