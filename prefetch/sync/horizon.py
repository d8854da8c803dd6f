"""The timetable of a plan: which moments bring how many images and pulls, registry by registry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prefetch.clock import rfc3339_due
from prefetch.sync.admission import price_to_hold
from prefetch.sync.wanted import Action, PlannedImage


@dataclass(frozen=True, slots=True)
class Slot:
    """Images of a registry that start at one moment, the pulls held for them, and the sums of both
    up to here."""

    at: datetime
    registry: str
    images: int
    pulls: int
    images_so_far: int
    pulls_so_far: int

    def document(self) -> dict[str, Any]:
        """As JSON (docs/contract.md)."""
        return {
            "at": rfc3339_due(self.at),
            "registry": self.registry,
            "images": self.images,
            "pulls": self.pulls,
            "images_so_far": self.images_so_far,
            "pulls_so_far": self.pulls_so_far,
        }


@dataclass(frozen=True, slots=True)
class Timetable:
    """What starts until `until`, in order of time; `later` images start after that, `never` ones
    not at all, as things are."""

    until: datetime
    slots: Sequence[Slot]
    later: int
    never: int

    @classmethod
    def of(cls, images: Iterable[PlannedImage], until: datetime) -> Timetable:
        """The timetable of a plan's images."""
        starting = [i for i in images if i.action in (Action.SYNC, Action.DEFER)]
        groups: defaultdict[tuple[datetime, str], list[int]] = defaultdict(list)
        for image in starting:
            if image.start_at is not None and image.start_at <= until:
                groups[image.start_at, image.wanted.registry].append(price_to_hold(image))
        never = sum(image.start_at is None for image in starting)
        within = sum(map(len, groups.values()))
        return cls(until, _summed(groups), len(starting) - within - never, never)


def _summed(groups: dict[tuple[datetime, str], list[int]]) -> list[Slot]:
    images: defaultdict[str, int] = defaultdict(int)
    pulls: defaultdict[str, int] = defaultdict(int)
    slots = []
    for (at, registry), prices in sorted(groups.items()):
        images[registry] += len(prices)
        pulls[registry] += sum(prices)
        sums = (images[registry], pulls[registry])
        slots.append(Slot(at, registry, len(prices), sum(prices), *sums))
    return slots
