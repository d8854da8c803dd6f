"""Whether others threaten a meter's reserve. Pure: numbers in, numbers out; times are seconds.

The reserve is threatened when others, going on as fast as they have been seen to, will have used up
what is above it before the window is over, while what has been used comes back as in a rolling
window: the later of the possibilities, as in the forecast. What a few neighbours pull is what a
reserve is for: they are no threat while all that they will pull in that time is less than a
quarter of what a window has above the reserve.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefetch.ratelimit.budget import Burn, Fall

# A threat that has been told lasts until others would have to be so much faster for it.
_CALM_FACTOR = 1.5
_SHARE = 1 / 4
_CALM_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Pressure:
    """A meter as it is `now`, and how others draw on it.

    `above` are the pulls above its reserve, `capacity` those of a whole window of `window` seconds;
    `falls` is its usage by when it was first seen; `reset_at` is a moment at which all comes back,
    if one is known.
    """

    now: float
    above: int
    capacity: int
    window: float
    burn: Burn
    falls: tuple[Fall, ...] = ()
    reset_at: float | None = None

    @property
    def end(self) -> float:
        """When the window is over: all that is used by now has come back."""
        end = self.now + self.window
        if self.reset_at is not None and self.reset_at > self.now:
            return min(self.reset_at, end)
        return end

    def returns(self) -> Iterator[tuple[float, int]]:
        """What comes back before the window is over, and when, in order."""
        if self.reset_at is not None and self.reset_at > self.now:
            return
        for fall in sorted(self.falls, key=lambda fall: fall.seen_at):
            yield max(fall.seen_at + self.window, self.now), fall.pulls


def used_up_at(pressure: Pressure, *, faster: float = 1.0) -> float | None:
    """When others, `faster` times as fast as they are, will have used up what is above the reserve.

    None: not before the window is over.
    """
    rate = pressure.burn.rate * faster
    if rate <= 0:
        return None
    moment, above = pressure.now, float(max(pressure.above, 0))
    for back_at, pulls in pressure.returns():
        if moment + above / rate < min(back_at, pressure.end):
            break
        above += pulls - rate * (back_at - moment)
        moment = back_at
    empty_at = moment + max(above, 0.0) / rate
    return empty_at if empty_at < pressure.end else None


def is_threatened(pressure: Pressure, *, told: bool) -> bool:
    """Whether others threaten the reserve; once `told`, it takes more for them not to."""
    expected = pressure.burn.rate * (pressure.end - pressure.now)
    if expected < pressure.capacity * (_CALM_SHARE if told else _SHARE):
        return False
    return used_up_at(pressure, faster=_CALM_FACTOR if told else 1.0) is not None
