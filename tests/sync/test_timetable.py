"""When deferred images can start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from prefetch.sync.timetable import Windows

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REFILL = NOW + timedelta(seconds=100)


def test_what_fits_starts_now_and_the_rest_window_by_window() -> None:
    windows = Windows(available=5, capacity=6, window_seconds=600, refill=REFILL)
    starts = windows.starts([3, 2, 3, 3, 1], NOW)
    later = REFILL + timedelta(seconds=600)
    assert starts == [NOW, NOW, REFILL, REFILL, later]


def test_an_image_dearer_than_a_window_ends_in_a_later_one() -> None:
    windows = Windows(available=0, capacity=4, window_seconds=60, refill=REFILL)
    assert windows.starts([10], NOW) == [REFILL + timedelta(seconds=120)]


@given(
    prices=st.lists(st.integers(0, 50), max_size=30),
    available=st.integers(-5, 100),
    capacity=st.integers(1, 50),
)
def test_starts_never_go_back(prices: list[int], available: int, capacity: int) -> None:
    starts = Windows(available, capacity, 60.0, REFILL).starts(prices, NOW)
    assert starts == sorted(starts)
    spent = 0
    for price, start in zip(prices, starts, strict=True):
        spent += price
        assert (start == NOW) == (spent <= max(0, available))
