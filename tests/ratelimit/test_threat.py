"""When others threaten a reserve, and for how long that is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.ratelimit.budget import Burn, Fall
from prefetch.ratelimit.threat import Pressure, is_threatened, used_up_at

WINDOW = 21600.0
NOW = 1_000_000.0


def pressure(above: int, an_hour: float, *falls: Fall, reset_in: float | None = None) -> Pressure:
    """80 pulls above the reserve in a window of six hours."""
    reset_at = None if reset_in is None else NOW + reset_in
    return Pressure(NOW, above, 80, WINDOW, Burn(an_hour / 3600), falls, reset_at)


def in_hours(found: float | None) -> float | None:
    return None if found is None else (found - NOW) / 3600


@pytest.mark.parametrize(
    ("case", "hours"),
    [
        (pressure(50, 0), None),
        (pressure(50, 25), 2.0),
        (pressure(50, 10), 5.0),
        (pressure(50, 8), None),  # 48 in six hours
        (pressure(0, 25), 0.0),
        (pressure(-3, 25), 0.0),
        # What comes back in time puts it off, and what comes back too late does not.
        (pressure(50, 25, Fall(NOW - WINDOW + 3600, 25)), 3.0),
        (pressure(50, 25, Fall(NOW - WINDOW + 3 * 3600, 25)), 2.0),
        # Others take as much in a window as comes back in it.
        (pressure(32, 8, *(Fall(NOW - WINDOW + h * 3600, 8) for h in range(1, 7))), None),
        # The registry says when all of it comes back.
        (pressure(50, 25, reset_in=3600), None),
        (pressure(50, 25, reset_in=3 * 3600), 2.0),
        (pressure(50, 25, reset_in=-5), 2.0),
    ],
)
def test_when_what_is_above_the_reserve_will_be_used_up(
    case: Pressure, hours: float | None
) -> None:
    found = in_hours(used_up_at(case))
    assert found == (None if hours is None else pytest.approx(hours))


def test_a_few_neighbours_are_what_a_reserve_is_for() -> None:
    # We have spent all that is ours; 19 of others in six hours are under a quarter of 80.
    assert not is_threatened(pressure(0, 19 / 6), told=False)
    assert is_threatened(pressure(0, 21 / 6), told=False)


def test_a_threat_lasts_until_it_has_clearly_passed() -> None:
    # 50 are above: 8.4 an hour would use them up in six hours.
    assert [is_threatened(pressure(50, rate), told=False) for rate in (8.3, 8.4)] == [False, True]
    assert [is_threatened(pressure(50, rate), told=True) for rate in (5.5, 5.6)] == [False, True]
    assert [is_threatened(pressure(0, rate), told=True) for rate in (1.6, 1.7)] == [False, True]


@given(
    st.integers(-50, 200),
    st.floats(0, 500),
    st.lists(st.tuples(st.floats(0, WINDOW), st.integers(1, 50)), max_size=8),
)
def test_nothing_is_left_then_and_something_at_any_time_before(
    above: int, an_hour: float, falls: list[tuple[float, int]]
) -> None:
    case = pressure(above, an_hour, *(Fall(NOW - age, pulls) for age, pulls in falls))
    found = used_up_at(case)
    backs = [(fall.seen_at + WINDOW, fall.pulls) for fall in case.falls]

    def left(moment: float) -> float:
        """What is left just before what comes back at that moment."""
        back = sum(pulls for at, pulls in backs if at < moment)
        return max(above, 0) + back - case.burn.rate * (moment - NOW)

    last = NOW + WINDOW if found is None else found
    assert all(left(at) > -1e-6 for at, _ in backs if at < last)
    assert found is None or abs(left(found)) < 1e-6
    assert found is not None or case.burn.rate == 0 or left(last) > -1e-6


@given(st.integers(0, 80), st.floats(0, 100))
def test_what_is_a_threat_is_still_one_once_it_is_told(above: int, an_hour: float) -> None:
    case = pressure(above, an_hour)
    if is_threatened(case, told=False):
        assert is_threatened(case, told=True)
        assert is_threatened(replace(case, above=0), told=False)
