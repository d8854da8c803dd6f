"""A registry's meter as a world of its own, without any of the forecast's code: for a clock that
only the test turns."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class World:
    """`limit` pulls in `window` seconds, given back `rolling` or all at once, a window after the
    first of them. Every `counted`th GET costs a pull; others pull once every `every` seconds."""

    limit: int
    window: float
    rolling: bool
    counted: int
    every: float | None
    now: float = 0.0
    pulls: deque[float] = field(default_factory=deque)
    gets: int = 0
    next_burn: float = 0.0

    def copy(self) -> World:
        return World(
            *(self.limit, self.window, self.rolling, self.counted, self.every, self.now),
            pulls=deque(self.pulls),
            gets=self.gets,
            next_burn=self.next_burn,
        )

    def go_to(self, moment: float) -> None:
        """Time passes, and others pull."""
        while self.every and self.next_burn <= moment:
            self._return(self.next_burn)
            if len(self.pulls) < self.limit:
                self.pulls.append(self.next_burn)
            self.next_burn += self.every
        self._return(moment)
        self.now = moment

    @property
    def remaining(self) -> int:
        return self.limit - len(self.pulls)

    def get(self) -> None:
        """A GET of ours now."""
        assert self.remaining > 0
        self.gets += 1
        if self.gets % self.counted == 0:
            self.pulls.append(self.now)

    def changes_at(self) -> float:
        """When something comes back next."""
        return self.pulls[0] + self.window if self.pulls else self.now + self.window

    def _return(self, moment: float) -> None:
        if not self.rolling:
            if self.pulls and self.pulls[0] + self.window <= moment:
                self.pulls.clear()
            return
        while self.pulls and self.pulls[0] + self.window <= moment:
            self.pulls.popleft()


def most_gets(world: World, reserve: int, by: float) -> int:
    """What somebody who knows the world, and looks at every moment, gets out of it by then."""
    world, begun = world.copy(), world.gets
    while True:
        while world.remaining > reserve:
            world.get()
            if world.gets - begun > 100_000:
                return world.gets - begun
        moment = world.changes_at()
        if moment > by:
            return world.gets - begun
        world.go_to(moment)


def finished(
    world: World, reserve: int, prices: list[int], by: float, pause: float
) -> float | None:
    """When somebody is done who looks once in `pause` seconds, and begins no image (whose price in
    GETs is given) before all of it is there; None: not by then."""
    world = world.copy()
    for price in prices:
        left = price
        while left:
            there = world.remaining - reserve
            whole = min(left, world.limit - reserve)
            if there >= whole:
                for _ in range(min(left, there)):
                    if world.remaining > reserve:
                        world.get()
                        left -= 1
                continue
            if world.now + pause > by:
                return None
            world.go_to(world.now + pause)
    return world.now
