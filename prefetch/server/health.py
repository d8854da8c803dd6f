"""What keeps requests from going upstream in vain: upstreams that are down, answers that were no,
and clients that cause too many misses. All of it is one worker's memory, bounded.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from prefetch.clock import Clock
from prefetch.oci.reference import Repository
from prefetch.server.refusals import Refusal, unavailable

_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 30.0
# So many repositories that fail one after another are no longer the fault of one image.
_FEW = 3
_WHOLE = ""
_MOST_REMEMBERED = 20_000
_MOST_CLIENTS = 10_000


@dataclass(slots=True)
class _Down:
    failures: int
    ask_again: float


class Health:
    """Which upstreams are down: after a failure nobody waits for them, until one has answered.

    One repository that fails is left alone by itself, so that a broken image keeps nobody from
    the others; a registry is once several of them have failed, and none has answered.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._down: OrderedDict[tuple[str, str], _Down] = OrderedDict()
        self._failing: OrderedDict[str, set[str]] = OrderedDict()

    def is_down(self, repository: Repository) -> bool:
        """Whether the last request for it has failed; whoever can do without it does."""
        return any(key in self._down for key in _keys(repository))

    def pause_left(self, repository: Repository) -> float:
        """Seconds until the registry may be asked for the repository: 0, or what is left of the
        pause after each failure in a row.
        """
        downs = [self._down[key] for key in _keys(repository) if key in self._down]
        until = max((down.ask_again for down in downs), default=0.0)
        return max(0.0, until - self._clock.monotonic())

    def failed(self, repository: Repository) -> bool:
        """It did not answer, or made no sense; True when that is news."""
        own, whole = _keys(repository)
        news = own not in self._down and whole not in self._down
        failing = self._failing.setdefault(repository.registry, set())
        self._pause(own)
        if len(failing) < _FEW:
            failing.add(repository.path)
        if len(failing) == _FEW:
            self._pause(whole)
        while len(self._failing) > _MOST_REMEMBERED:
            self._failing.popitem(last=False)
        return news

    def answered(self, repository: Repository) -> bool:
        """It has answered; True when it was down before."""
        self._failing.pop(repository.registry, None)
        found = [self._down.pop(key, None) for key in _keys(repository)]
        return any(found)

    def _pause(self, key: tuple[str, str]) -> None:
        now, before = self._clock.monotonic(), self._down.get(key)
        if before is not None and now < before.ask_again:
            return  # requests that were under way together count as one
        failures = 1 if before is None else before.failures + 1
        pause = min(_FIRST_PAUSE * 2.0 ** (failures - 1), _LONGEST_PAUSE)
        self._down[key] = _Down(failures, now + pause)
        while len(self._down) > _MOST_REMEMBERED:
            self._down.popitem(last=False)


def _keys(repository: Repository) -> tuple[tuple[str, str], tuple[str, str]]:
    return (repository.registry, repository.path), (repository.registry, _WHOLE)


class Negatives:
    """Refusals that hold for a while: what does not exist is not asked for again at once."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._known: OrderedDict[Hashable, tuple[float, float, Refusal]] = OrderedDict()

    def find(self, key: Hashable) -> Refusal | None:
        """What was remembered for `key`, if it still holds; its Retry-After counts down."""
        found = self._known.get(key)
        if found is None:
            return None
        since, until, refusal = found
        now = self._clock.monotonic()
        if now < until:
            return refusal.later(now - since)
        del self._known[key]
        return None

    def remember(self, key: Hashable, refusal: Refusal, at_most: float = math.inf) -> None:
        """Refuse `key` so for `at_most` seconds, and never for longer than it asks to stay away."""
        seconds = min(self._seconds, at_most, refusal.retry_after or math.inf)
        if seconds > 0:
            now = self._clock.monotonic()
            self._known[key] = (now, now + seconds, refusal)
            self._known.move_to_end(key)
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)


class MissRate:
    """A token bucket a client address: how many new misses it may cause a second."""

    def __init__(self, clock: Clock, per_second: float) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = 2 * per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Count one miss. Raises Refusal (503, in a second) when there are too many."""
        now = self._clock.monotonic()
        level, at = self._buckets.get(client, (self._burst, now))
        level = min(level + (now - at) * self._per_second, self._burst)
        if level < 1:
            raise unavailable("too many requests for what is not cached", "too_many_misses", 1)
        self._buckets[client] = (level - 1, now)
        self._buckets.move_to_end(client)
        while len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
