"""What admission would do now, gone through without a pull: who starts, and what each one pays.

The same order and the same rules as `admission`, on the assumption that each image spends all that
is held for it, and that nobody else spends anything. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeAlias

from prefetch.sync.sharing import Sharing
from prefetch.sync.wanted import PlannedImage

# An index of unknown size, wanted for all platforms, is admitted for this many pulls; its hold
# grows once the index is here.
_TYPICAL_INDEX = 3


Bounds: TypeAlias = tuple[int, int | None]
"""The least and the most pulls; None: nothing bounds them."""


def to_hold(image: PlannedImage, price: Bounds) -> int:
    """The pulls to hold for an image of this price before its first one is sent: none for what
    alternates will give."""
    if image.pulls_expected is not None:
        return image.pulls_expected
    least, most = price
    return max(least, _TYPICAL_INDEX) if most is None else most


@dataclass(frozen=True, slots=True)
class Turn:
    """An image in the order of admission.

    Budget is saved for one that `saves`; `exempt` ones take nothing from the meter.
    """

    image: PlannedImage
    saves: bool = False
    exempt: bool = False


@dataclass(slots=True)
class Rehearsal:
    """What comes of a queue: the images that start now, and those that wait, with their prices.

    `left` is what remains of the meter then, None where nothing limits it; `certain` says that
    it can be no more. Those `growing` start, and are put off half done if they need more than is
    held for them and do not get it; the `doubtful` ones may then not start, or pay for nothing.
    """

    left: int | None
    capacity: int | None
    starting: list[PlannedImage] = field(default_factory=list)
    waiting: list[tuple[PlannedImage, int]] = field(default_factory=list)
    certain: bool = True
    growing: list[PlannedImage] = field(default_factory=list)
    doubtful: list[PlannedImage] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        turns: Sequence[Turn],
        sharing: Sharing,
        *,
        available: int | None,
        capacity: int | None,
        unsure: AbstractSet[str] = frozenset(),
    ) -> Rehearsal:
        """Go through the queue; each image gets the bounds of what it pays itself.

        `sharing` must expect the images. A meter gives `available` pulls now, and `capacity` a
        window. Of `unsure` documents it is not known who pays.
        """
        found = cls(available, capacity)
        prices: dict[str, Bounds] = {}
        later: list[Turn] = []
        saving = False
        for turn in turns:
            bounds = sharing.price(turn.image)
            price = found._widened(turn.image, bounds, sharing)
            if saving or not found._starts(turn, bounds):
                later.append(turn)
                saving = saving or turn.saves
            else:
                prices[turn.image.wanted.name] = price
                sharing.admit(turn.image, None)
                found.starting.append(turn.image)
        for turn in later:
            bounds = sharing.price(turn.image)
            prices[turn.image.wanted.name] = found._widened(turn.image, bounds, sharing)
            sharing.admit(turn.image, None)
            found.waiting.append((turn.image, 0 if turn.exempt else to_hold(turn.image, bounds)))
        if not found.certain:
            found.doubtful += [turn.image for turn in later]
        loose = unsure | _shared(found.doubtful, turns)
        for turn in turns:
            _name_price(turn.image, prices[turn.image.wanted.name], sharing, loose)
        return found

    def _starts(self, turn: Turn, bounds: Bounds) -> bool:
        """Whether the image is complete at once; one that is dearer than a window never is."""
        if self.left is None or turn.exempt:
            return True
        price = to_hold(turn.image, bounds)
        if self.capacity is not None and price > self.capacity:
            # It goes in parts, the first of which is all that there is.
            self.left, self.certain = 0, False
        if price > self.left:
            return False
        self.left -= price
        self.certain = self.certain and bounds[0] == bounds[1]
        if turn.image.pulls_expected is not None or (price and self.growing):
            self.doubtful.append(turn.image)
        if bounds[1] is None or bounds[1] > price:
            self.growing.append(turn.image)
        return True

    def _widened(self, image: PlannedImage, bounds: Bounds, sharing: Sharing) -> Bounds:
        """The bounds, if those that grow may leave to the image what their common index names."""
        left = image.closure is None and image.digest in {each.digest for each in self.growing}
        return (bounds[0], sharing.most(image)) if left else bounds


def _shared(doubtful: Iterable[PlannedImage], turns: Iterable[Turn]) -> set[str]:
    """The documents that doubtful images lack, and others too: with more left than is certain, or
    less, another one may come first, and pay."""
    lacked = Counter(digest for turn in turns for digest in turn.image.lacks)
    return {digest for image in doubtful for digest in image.lacks if lacked[digest] > 1}


def _name_price(
    image: PlannedImage, bounds: Bounds, sharing: Sharing, loose: AbstractSet[str]
) -> None:
    """The bounds; whoever lacks something `loose` may pay for it, or not."""
    if image.lacks.isdisjoint(loose):
        image.pulls_min, image.pulls_max = bounds
    else:
        image.pulls_min = max(0, bounds[0] - sharing.count_claims(image, loose))
