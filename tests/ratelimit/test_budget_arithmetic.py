"""Reserves, foreign burn, usage and the forecast."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.errors import ConfigError
from prefetch.ratelimit.budget import (
    Burn,
    Fall,
    Reserve,
    check_interval,
    follow_usage,
    refill_at,
)


@pytest.mark.parametrize(
    ("text", "limit", "pulls"),
    [
        ("5", 100, 5),
        ("5", None, 5),
        ("0", 100, 0),
        ("20%", 100, 20),
        ("20%", 5, 1),
        ("20%", 101, 21),
        ("12.5%", 8, 1),
        ("20%", None, 0),
        ("100%", 7, 7),
        ("7%", 100, 7),
    ],
)
def test_reserve(text: str, limit: int | None, pulls: int) -> None:
    reserve = Reserve.parse(text)
    assert reserve.of(limit) == pulls
    assert Reserve.parse(str(reserve)) == reserve


@pytest.mark.parametrize("text", ["", "-1", "101%", "many", "1.5", "5 pulls", "1e3", "9" * 99])
def test_reserve_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match="reserve"):
        Reserve.parse(text)


def test_burn_approaches_what_is_measured_and_fades() -> None:
    burn = Burn()
    for _ in range(100):
        burn = burn.sampled(3, 10.0, 100.0)
    assert burn.rate == pytest.approx(0.3)
    assert burn.expected(20.0, 100.0) in (5, 6)
    assert burn.expected(-50.0, 100.0) == 0
    assert burn.expected(1e9, 100.0) <= 30
    for _ in range(100):
        burn = burn.sampled(0, 10.0, 100.0)
    assert burn.rate < 0.001


def test_usage_is_dated_by_when_it_was_first_seen() -> None:
    falls = follow_usage((), 3, 100.0, 60.0)
    falls = follow_usage(falls, 5, 110.0, 60.0)
    assert falls == (Fall(100.0, 3), Fall(110.0, 2))
    assert follow_usage(falls, 4, 120.0, 60.0) == (Fall(100.0, 2), Fall(110.0, 2))
    assert follow_usage(falls, 1, 120.0, 60.0) == (Fall(110.0, 1),)
    assert follow_usage(falls, 0, 120.0, 60.0) == ()
    assert follow_usage(falls, 5, 165.0, 60.0) == (Fall(110.0, 2), Fall(165.0, 3))


def test_forecast_is_when_enough_has_left_the_window() -> None:
    falls = (Fall(100.0, 3), Fall(110.0, 2))

    def at(price: int, available: int = 0, **more: float) -> float:
        burn = Burn(more.get("rate", 0.0))
        return refill_at(
            falls,
            available=available,
            price=price,
            now=120.0,
            window=60.0,
            burn=burn,
            reset_at=more.get("reset_at"),
        )

    assert at(1, available=1) == 120.0
    assert at(3) == 160.0
    assert at(4) == 170.0
    assert at(9) == 180.0
    assert at(3, rate=0.05) == 180.0
    assert at(1, reset_at=125.0) == 125.0
    assert at(1, reset_at=90.0) == 160.0


PULLS = st.integers(0, 50)
TIMES = st.floats(-1e6, 1e6)


@given(
    st.lists(st.builds(Fall, TIMES, PULLS)), st.integers(-99, 99), PULLS, TIMES, st.floats(1, 1e5)
)
def test_forecast_is_never_past_and_never_beyond_a_window(
    falls: list[Fall], available: int, price: int, now: float, window: float
) -> None:
    moment = refill_at(
        falls, available=available, price=price, now=now, window=window, burn=Burn(0.1)
    )
    assert now <= moment <= now + window


@given(st.lists(st.tuples(st.floats(0, 100), PULLS), max_size=200))
def test_usage_always_adds_up(steps: list[tuple[float, int]]) -> None:
    now, falls = 0.0, ()
    for seconds, used in steps:
        now += seconds
        falls = follow_usage(falls, used, now, 60.0)
        assert sum(fall.pulls for fall in falls) == used
        assert len(falls) <= 64


def test_checks_come_with_the_forecast_and_often_enough() -> None:
    assert check_interval(5.0, 21600.0, costly=False) == 5.0
    assert check_interval(9999.0, 21600.0, costly=False) == 300.0
    assert check_interval(9999.0, 20.0, costly=False) == 1.0
    assert check_interval(9999.0, 20.0, costly=True) == 10.0
    assert check_interval(0.0, 20.0, costly=False) > 0
