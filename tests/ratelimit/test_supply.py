"""What a meter will give, and by when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.ratelimit.budget import Fall
from prefetch.ratelimit.learning import Learned, MeterModel, Refill
from prefetch.ratelimit.supply import Outlook, Stock, Supply, Terms, View, draw

NOW = 1_000_000.0
HOUR = 3600.0


def terms(**changes: float | bool) -> Terms:
    settings = {"window": HOUR, "at_once": True, "cost": 1.0, "burn": 0.0} | changes
    return Terms(**settings)  # type: ignore[arg-type]


def test_what_is_left_now_and_then_window_by_window() -> None:
    stock = Stock(NOW, available=5, limit=8, reserve=2, falls=(Fall(NOW - 600, 1),))
    supply = draw(stock, terms())
    assert supply.when(5) == NOW
    assert supply.when(6) == NOW - 600 + HOUR
    assert supply.when(5 + 6) == NOW - 600 + HOUR
    assert supply.when(5 + 6 + 1) == NOW - 600 + 2 * HOUR
    assert supply.by(NOW - 1) == 0
    assert supply.by(NOW) == 5
    assert supply.by(NOW + HOUR) == 11


def test_a_window_that_is_not_open_yet_opens_with_our_first_pull() -> None:
    supply = draw(Stock(NOW, available=6, limit=8, reserve=2), terms())
    assert supply.when(7) == NOW + HOUR


def test_the_moment_that_the_registry_names_wins() -> None:
    stock = Stock(NOW, 0, limit=8, reserve=2, falls=(Fall(NOW - 60, 8),), reset_at=NOW + 90)
    assert draw(stock, terms()).when(1) == NOW + 90


def test_a_rolling_window_gives_each_pull_back_in_its_turn() -> None:
    falls = (Fall(NOW - 3000, 4), Fall(NOW - 600, 4))
    supply = draw(Stock(NOW, available=-2, limit=8, reserve=2, falls=falls), terms(at_once=False))
    step = HOUR / 100
    first, second = supply.when(1), supply.when(3)
    assert first == pytest.approx(NOW + 600, abs=step)
    assert second == pytest.approx(NOW + 3000, abs=step)
    assert supply.steady == pytest.approx(6, abs=0.5)


def test_a_get_that_costs_half_a_pull_makes_twice_as_many() -> None:
    stock = Stock(NOW, available=6, limit=8, reserve=2)
    assert draw(stock, terms(cost=0.5)).by(NOW) == 12


def test_what_others_take_of_a_rolling_window_is_not_ours() -> None:
    stock = Stock(NOW, available=80, limit=100, reserve=20)
    supply = draw(stock, terms(at_once=False, burn=40.0))
    assert supply.steady == pytest.approx(40, rel=0.05)


def test_others_who_take_all_of_it_leave_nothing_for_ever() -> None:
    stock = Stock(NOW, available=0, limit=100, reserve=20, falls=(Fall(NOW - 1800, 80),))
    supply = draw(stock, terms(at_once=False, burn=90.0))
    assert supply.steady == 0
    assert supply.when(10_000) is None


def test_without_a_limit_everything_can_start_at_once() -> None:
    assert Supply().by(NOW) == math.inf
    assert Outlook(NOW).starts([1, 100_000]) == [NOW, NOW]


def test_images_start_when_those_ahead_have_been_paid_for() -> None:
    model = MeterModel(8, Learned(HOUR, 1.0), Refill.AT_ONCE, 0.9)
    stock = Stock(NOW, available=5, limit=8, reserve=2, falls=(Fall(NOW - 600, 1),))
    outlook = Outlook(NOW, ((stock, model),))
    refill = NOW - 600 + HOUR
    assert outlook.starts([3, 2, 3, 3, 0, 1]) == [NOW, NOW, refill, refill, NOW, refill + HOUR]
    assert outlook.without_leftover().starts([6, 1]) == [refill, refill + HOUR]


models = st.builds(
    MeterModel,
    limit=st.just(100),
    window=st.just(Learned(HOUR, 1.0)),
    refill=st.sampled_from(Refill),
    get_cost=st.sampled_from([Learned(1.0), Learned(0.5, 0.9), Learned(1.0, 0.9)]),
    burn=st.floats(0, 60).map(lambda burn: Learned(burn, 0.5)),
    burn_high=st.floats(60, 90),
)
stocks = st.builds(
    lambda used, age, held: Stock(
        NOW, 80 - used - held, limit=100, reserve=20, falls=(Fall(NOW - age, used),) * bool(used)
    ),
    used=st.integers(0, 100),
    age=st.floats(0, HOUR - 1),
    held=st.integers(0, 20),
)


@given(stocks, models, st.lists(st.integers(0, 50), max_size=30))
def test_caution_promises_nothing_that_hope_does_not_have(
    stock: Stock, model: MeterModel, prices: list[int]
) -> None:
    outlook = Outlook(NOW, ((stock, model),))
    views = (View.CAUTIOUS, View.EXPECTED, View.HOPEFUL)
    late, expected, early = (outlook.starts(prices, view) for view in views)
    for moments in (late, expected, early):
        paid = [m or math.inf for m, price in zip(moments, prices, strict=True) if price]
        assert paid == sorted(paid)
    # A curve of steps is as exact as its steps.
    step = HOUR / 60
    for slow, fast in zip(late, early, strict=True):
        assert slow is None or (fast is not None and fast <= slow + step)


@given(stocks, models, st.sampled_from(View), st.integers(1, 2000))
def test_when_and_by_are_two_sides_of_one_curve(
    stock: Stock, model: MeterModel, view: View, gets: int
) -> None:
    supply = draw(stock, Terms.of(model, view))
    moment = supply.when(gets)
    if moment is not None:
        assert supply.by(moment) >= gets - 1e-3
        assert supply.by(moment - supply.window / 50) < gets or moment == stock.now
