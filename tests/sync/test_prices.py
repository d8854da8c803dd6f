"""What a sync spends is what the plan before it priced, in worlds made at random."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from price_worlds import Entry, Leaf, Scene, Tree, World, scenes

from support.prices import assert_spent_as_planned, assert_totals_add_up

AMD64, BOTH, EVERY, ARM64 = range(4)
PAIR = Tree((Leaf(0, 0, (0,)), Leaf(0, 1, (1,))))


def judge(scene: Scene) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Plan, sync, compare; returns the images of both documents."""
    directory = Path(tempfile.mkdtemp(prefix="prices-"))
    try:
        return asyncio.run(_judge(scene, directory))
    finally:
        shutil.rmtree(directory)


async def _judge(
    scene: Scene, directory: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    async with World.of(scene, directory) as world:
        plan, done = await world.priced_and_spent()
        assert not plan["errors"], plan["errors"]
        assert_totals_add_up(plan)
        nesting = world.nesting()
        unforeseen = {
            each["reference"]
            for each in plan["images"]
            if each["digest"] in nesting or (scene.silent and nesting)
        }
        watched = [upstream.address for upstream in world.upstreams]
        assert_spent_as_planned(plan, done, world.pulls(), watched=watched, unforeseen=unforeseen)
        return plan["images"], done["images"]


def prices(images: list[dict[str, Any]]) -> list[tuple[int, int | None]]:
    return [(each["pulls_min"], each["pulls_max"]) for each in images]


def pulls(images: list[dict[str, Any]]) -> list[int]:
    return [each["pulls"] for each in images]


@settings(max_examples=40, derandomize=True)
@given(scenes())
def test_what_is_spent_is_what_was_priced(scene: Scene) -> None:
    judge(scene)


@pytest.mark.parametrize(
    ("wanted", "priced", "spent"),
    [
        ((BOTH, BOTH), [(1, 3), (0, 0)], [3, 0]),
        ((AMD64, ARM64), [(1, 2), (0, 1)], [2, 1]),
        # The cheapest goes first, and pays; those that want more pay for the rest.
        ((BOTH, BOTH, ARM64), [(0, 1), (0, 0), (1, 2)], [1, 0, 2]),
    ],
)
def test_names_of_one_index_cost_what_one_costs(
    wanted: tuple[int, ...], priced: list[tuple[int, int]], spent: list[int]
) -> None:
    """And the budget of one is enough for all."""
    entries = tuple(Entry(0, number, 0, platforms) for number, platforms in enumerate(wanted))
    planned, done = judge(Scene((PAIR,), (), entries, limit=3))
    assert (prices(planned), pulls(done)) == (priced, spent)
    assert {each["outcome"] for each in done} == {"synced"}


def test_a_manifest_that_an_index_of_a_higher_priority_names_is_the_lone_image_s() -> None:
    entries = (Entry(0, 0, 0, BOTH, priority=5), Entry(0, 1, 1, AMD64))
    for concurrency in (1, 8):
        scene = Scene((PAIR, PAIR.leaves[0]), (), entries, concurrency=concurrency)
        planned, done = judge(scene)
        assert prices(planned) == [(1, 3), (1, 1)]
        assert pulls(done) == [2, 1]


def test_a_manifest_at_two_registries_is_paid_for_by_either() -> None:
    entries = (Entry(0, 0, 0, AMD64), Entry(1, 0, 0, AMD64))
    planned, done = judge(Scene((PAIR.leaves[0],), (), entries))
    assert prices(planned) == [(0, 1), (0, 1)]
    assert sum(pulls(done)) == 1


@pytest.mark.parametrize("lost", [0, 1])
def test_a_manifest_without_its_config_is_here(lost: int) -> None:
    """As a kill leaves it: the document in the store, the database without it; and the reverse."""
    entry = Entry(0, 0, 0, AMD64)
    scene = Scene((Leaf(0, 0, ()),), (entry,), (entry,), lost=frozenset([lost]), kept=False)
    planned, done = judge(scene)
    assert planned[0]["exact"] is True
    assert pulls(done) == [planned[0]["pulls"]]


def test_a_manifest_that_stands_in_its_index_costs_nothing() -> None:
    embedding = Tree(PAIR.leaves, embedded=True)
    before = (Entry(0, 0, 0, ARM64),)
    planned, done = judge(Scene((embedding,), before, (Entry(0, 0, 0, BOTH),)))
    assert (prices(planned), pulls(done)) == ([(0, 0)], [0])
    assert planned[0]["action"] == "sync"


def test_a_manifest_may_stand_in_its_index_that_is_lost() -> None:
    """The database knows what the index names, but not what stands in it."""
    embedding = Tree(PAIR.leaves, embedded=True)
    entry = Entry(0, 0, 0, EVERY)
    scene = Scene((embedding,), (entry,), (entry,), lost=frozenset(range(31)))
    planned, done = judge(scene)
    assert (prices(planned), pulls(done)) == ([(1, 3)], [2])


def test_an_exempt_repository_waits_behind_nobody() -> None:
    entries = (Entry(0, 1, 0, BOTH), Entry(0, 0, 1, BOTH))
    other = Tree((Leaf(1, 0, (0,)), Leaf(1, 1, (1,))))
    scene = Scene((PAIR, other), (), entries, limit=4, spent=3, exempt=True)
    planned, done = judge(scene)
    assert [each["action"] for each in planned] == ["defer", "sync"]
    assert [each["outcome"] for each in done] == ["deferred", "synced"]


def test_what_is_less_important_goes_now_where_the_rest_does_not_fit() -> None:
    """As admission does it, so does the plan."""
    entries = (Entry(0, 0, 0, BOTH, priority=5), Entry(0, 1, 1, AMD64))
    scene = Scene((PAIR, Leaf(1, 0, (0,))), (), entries, limit=4, spent=2)
    planned, _ = judge(scene)
    assert [each["action"] for each in planned] == ["defer", "sync"]


def test_what_an_index_without_a_bound_leaves_half_done_is_not_called_exact() -> None:
    """It takes three pulls and needs five: what others want of it they pay for themselves."""
    tree = Tree(tuple(Leaf(1, platform, ()) for platform in range(4)))
    entries = (
        Entry(0, 0, 0, AMD64),
        Entry(0, 0, 0, AMD64, by_digest=True),
        Entry(0, 1, 1, EVERY, priority=5),
    )
    for concurrency in (1, 8):
        scene = Scene(
            (tree, tree), (), entries, limit=5, reserve=1, spent=1, concurrency=concurrency
        )
        planned, done = judge(scene)
        assert prices(planned) == [(0, 1), (0, 1), (1, None)]
        assert [each["outcome"] for each in done] == ["synced", "synced", "deferred"]


def test_what_an_index_without_a_bound_takes_from_the_next_one_is_not_called_exact() -> None:
    """It grows to five pulls of six: the important one is put off, and the other pays itself."""
    unknown = Tree(tuple(Leaf(1, platform, ()) for platform in range(4)))
    known = Tree(tuple(Leaf(0, platform, ()) for platform in range(3)))
    entries = (
        Entry(0, 0, 0, EVERY, priority=5),
        Entry(0, 1, 1, EVERY, priority=4),
        Entry(0, 2, 2, AMD64),
    )
    before = (Entry(0, 0, 1, ARM64, by_digest=True),)
    scene = Scene((unknown, known, known.leaves[0]), before, entries, limit=6, concurrency=1)
    planned, done = judge(scene)
    assert prices(planned) == [(1, None), (1, 2), (0, 1)]
    assert pulls(done) == [5, 0, 1]


async def test_who_pays_in_vain_keeps_nobody_from_the_content(tmp_path: Path) -> None:
    """The first image's repository does not give what its tag names; the second one's does."""
    entries = (Entry(0, 0, 0, BOTH), Entry(0, 1, 0, BOTH))
    async with World.of(Scene((PAIR,), (), entries, limit=10), tmp_path) as world:
        world.upstreams[0].faults.add(
            "not-found", method="GET", kind="manifest", repository="a", count=None
        )
        async with world.open() as runtime:
            done = (await world.sync(runtime, entries))["images"]
    assert [each["outcome"] for each in done] == ["failed", "synced"]
    assert pulls(done)[1] == 3
