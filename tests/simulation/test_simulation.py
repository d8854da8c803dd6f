"""Weeks of syncing beside others, on a clock that passes only when nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefetch.ratelimit.learning import Refill
from prefetch.ratelimit.supply import View
from simulation.cases import LIMIT, RESERVE, case_of, try_case
from simulation.table import rows, try_seeds
from simulation.virtual import run
from simulation.warming import Warming
from simulation.world import Burn, Registry, Terms, least_time

HOUR = 3600.0
CAPACITY = LIMIT - RESERVE


def test_the_least_time_is_what_hand_reckoning_gives() -> None:
    once = Registry(Terms(LIMIT, HOUR, rolling=False), Burn(), 1)
    assert least_time(once, 3 * CAPACITY, RESERVE) == 2 * HOUR
    second = Registry(Terms(LIMIT, HOUR, rolling=True, every=2), Burn(), 1)
    assert least_time(second, 3 * CAPACITY, RESERVE) == HOUR
    # Others hold half of a rolling window: the rest of it comes back once an hour.
    shared = Registry(Terms(LIMIT, HOUR, rolling=True), Burn(CAPACITY // 2), 1)
    assert least_time(shared, 10 * CAPACITY, RESERVE) > 15 * HOUR


def test_a_registry_on_paper_refuses_what_is_beyond_its_limit() -> None:
    registry = Registry(Terms(2, HOUR, rolling=True), Burn(), 1)
    assert [registry.get(1.0), registry.get(2.0), registry.get(3.0)] == [True, True, False]
    assert registry.remaining(HOUR + 1.5) == 1


@pytest.mark.parametrize("seed", [0, 9], ids=lambda seed: str(case_of(seed)))
def test_a_case_of_each_refill_and_count(seed: int) -> None:
    result = try_case(case_of(seed))
    assert not result.problems
    assert result.restarts > 0
    assert result.forecast_is_close


def test_others_who_take_all_of_it_are_told_of(tmp_path: Path) -> None:
    """Not one image can be promised, nor is the rest of them hoped for; and the model says why."""
    terms = Terms(LIMIT, HOUR, rolling=True)
    registry = Registry(terms, Burn(round(1.2 * CAPACITY)), 1)
    # At first they only take what we leave them.
    look = 12 * HOUR
    warming = Warming(registry, [2] * 200, RESERVE, tmp_path, looks=(look,), longest=look + 60)
    seen = run(warming.run())
    outlook, left = seen.outlooks[look]
    assert not seen.refused
    assert not seen.low
    assert left > CAPACITY
    assert outlook.starts([left], View.EXPECTED) == [None]
    model = outlook.model
    assert model is not None
    assert model.refill is Refill.ROLLING
    assert model.burn.value > CAPACITY


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_kind_of_case() -> None:
    """One case of each kind; `make simulate` tries them all."""
    results = try_seeds(range(24))
    told = "\n".join(rows(results))
    assert {result.case: result.problems for result in results if result.problems} == {}, told
    foretold = [result for result in results if result.forecast is not None]
    close = sum(result.forecast_is_close for result in foretold)
    assert close >= 0.8 * len(foretold), told
