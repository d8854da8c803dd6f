"""Who would start now, and what each image pays, by arithmetic alone."""

from __future__ import annotations

from typing import Any

from prefetch.oci.platform import Platform
from prefetch.oci.reference import Reference
from prefetch.sync.rehearsal import Rehearsal, Turn
from prefetch.sync.sharing import Payer, Sharing
from prefetch.sync.wanted import PlannedImage, Spent, Wanted

AMD64 = (Platform.parse("linux/amd64"),)
# Never asked for anything here.
CLIENT: Any = None


def image(name: str, *lacks: str, most: int | None = -1) -> PlannedImage:
    """An image that lacks these documents, and may pay up to `most` (-1: that is all)."""
    made = PlannedImage(Wanted(Reference.parse(f"example.com/{name}:1"), AMD64))
    made.lacks = frozenset(lacks)
    made.pulls_min = len(lacks)
    made.pulls_max = len(lacks) if most == -1 else most
    return made


def rehearse(
    *turns: Turn,
    available: int | None,
    capacity: int | None = 10,
    unsure: frozenset[str] = frozenset(),
) -> tuple[list[str], list[str]]:
    """The names of those that start, and of those that wait."""
    sharing = Sharing()
    for turn in turns:
        sharing.expect(Payer(turn.image, CLIENT, Spent()))
    found = Rehearsal.of(turns, sharing, available=available, capacity=capacity, unsure=unsure)
    names = [each.wanted.reference.repository.path for each in found.starting]
    return names, [each.wanted.reference.repository.path for each, _ in found.waiting]


def bounds(*images: PlannedImage) -> list[tuple[int, int | None]]:
    return [(each.pulls_min, each.pulls_max) for each in images]


def test_what_fits_starts_whatever_waits_before_it() -> None:
    turns = [Turn(image("one", "a")), Turn(image("three", "b", "c", "d")), Turn(image("two", "e"))]
    assert rehearse(*turns, available=2) == (["one", "two"], ["three"])


def test_budget_is_saved_for_what_starves() -> None:
    turns = [Turn(image("three", "b", "c", "d"), saves=True), Turn(image("one", "a"))]
    assert rehearse(*turns, available=2) == ([], ["three", "one"])


def test_what_is_dearer_than_a_window_takes_all_that_is_left() -> None:
    turns = [Turn(image("four", "a", "b", "c", "d")), Turn(image("one", "e"))]
    assert rehearse(*turns, available=2, capacity=3) == ([], ["four", "one"])


def test_exempt_images_take_nothing() -> None:
    turns = [Turn(image("free", "a", "b"), exempt=True), Turn(image("one", "c"))]
    assert rehearse(*turns, available=1) == (["free", "one"], [])


def test_the_first_pays_for_what_others_lack_too() -> None:
    first, second, third = image("1", "a", "b"), image("2", "b", "c"), image("3", "a", "b", "c")
    rehearse(Turn(first), Turn(second), Turn(third), available=3)
    assert bounds(first, second, third) == [(2, 2), (1, 1), (0, 0)]


def test_one_that_waits_leaves_what_it_lacks_to_those_that_start() -> None:
    dear, cheap = image("dear", "a", "b", "c"), image("cheap", "c")
    assert rehearse(Turn(dear), Turn(cheap), available=2) == (["cheap"], ["dear"])
    assert bounds(dear, cheap) == [(2, 2), (1, 1)]


def test_bounds_that_may_leave_more_loosen_what_is_shared_with_one_that_waits() -> None:
    index, dear = image("index", "x", most=3), image("dear", "a", "b", "c")
    cheap = image("cheap", "c")
    turns = [Turn(index), Turn(dear), Turn(cheap)]
    assert rehearse(*turns, available=4) == (["index", "cheap"], ["dear"])
    assert bounds(index, dear, cheap) == [(1, 3), (2, 3), (0, 1)]


def test_a_document_of_which_nobody_knows_who_pays_is_no_part_of_the_least() -> None:
    one, other = image("one", "a", "b"), image("other", "c")
    rehearse(Turn(one), Turn(other), available=None, unsure=frozenset("a"))
    assert bounds(one, other) == [(1, 2), (1, 1)]
