"""Pulls spread over a window: properties of a pure function."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.ratelimit.pace import Spread

PRICES = st.lists(st.integers(1, 9), min_size=1, max_size=60)


@given(
    prices=PRICES,
    more=st.integers(0, 50),
    window=st.floats(1, 86400),
    jitter=st.lists(st.floats(0, 1), min_size=60, max_size=60),
)
def test_all_that_is_available_starts_before_the_end(
    prices: list[int], more: int, window: float, jitter: list[float]
) -> None:
    """As a run does it: each gap from what is available and left by then."""
    available, now = sum(prices) + more, 1000.0
    end = now + window
    for price, chance in zip(prices, jitter, strict=False):
        assert now <= end
        gap = Spread(available, now, end).gap(price, chance)
        assert gap >= 0
        now, available = now + gap, available - price
    assert now <= end + 1e-6


@given(prices=PRICES, more=st.integers(0, 50), window=st.floats(1, 86400))
def test_without_jitter_the_meter_falls_in_a_straight_line(
    prices: list[int], more: int, window: float
) -> None:
    whole = sum(prices) + more
    available, now, end = whole, 0.0, window
    for price, start in zip(prices, Spread(whole, 0.0, end).starts(prices), strict=True):
        assert now == pytest.approx(start, abs=1e-6 * window)
        assert now == pytest.approx(window * (whole - available) / whole, abs=1e-6 * window)
        now += Spread(available, now, end).gap(price)
        available -= price


@given(prices=PRICES, available=st.integers(0, 300))
def test_only_what_is_available_is_spread(prices: list[int], available: int) -> None:
    starts = Spread(available, 0.0, 100.0).starts(prices)
    assert sum(prices[: len(starts)]) <= available
    assert len(starts) == len(prices) or sum(prices[: len(starts) + 1]) > available
    assert starts == sorted(starts)


def test_others_who_spend_slow_us_down() -> None:
    assert Spread(10, 0.0, 100.0).gap(1) == pytest.approx(10.0)
    assert Spread(5, 0.0, 100.0).gap(1) == pytest.approx(20.0)


@pytest.mark.parametrize(("available", "end"), [(0, 100.0), (-3, 100.0), (10, -5.0), (10, 0.0)])
def test_nothing_left_and_windows_that_are_over(available: int, end: float) -> None:
    assert 0 <= Spread(available, 0.0, end).gap(2) <= max(end, 0.0)
