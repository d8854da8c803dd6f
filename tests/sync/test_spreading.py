"""When the next image of a smooth run may start."""

from __future__ import annotations

from datetime import timedelta

import pytest

from prefetch.events import Event, PullsSpread, Remark
from prefetch.ratelimit.pace import Pace
from prefetch.state.ledger import Budget, MeterKey
from prefetch.sync.spreading import Spreading
from support.clock import ManualClock


class Run:
    """A smooth run on a meter of 100 with a reserve of 20, in a window of 100 seconds."""

    def __init__(
        self,
        clock: ManualClock,
        pace: Pace = Pace.SMOOTH,
        *,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.clock = clock
        self.events: list[Event] = []
        self.end = clock.now() + timedelta(seconds=100)
        deadline = None if timeout is None else clock.monotonic() + timeout
        self.spreading = Spreading(
            pace, wait=wait, deadline=deadline, clock=clock, emit=self.events.append
        )

    def learn(
        self, available: int | None, *, window: bool = True, remaining: int | None = None
    ) -> None:
        if remaining is None and available is not None:
            remaining = available + 20
        end = self.end if window else None
        meter = MeterKey("docker.io")
        self.spreading.learn(
            Budget(meter, None, 100, remaining, 20, available, 100.0, None, 0.0, end)
        )


def test_burst_never_waits(clock: ManualClock) -> None:
    run = Run(clock, Pace.BURST)
    run.learn(10)
    run.spreading.started(5)
    assert run.spreading.pause == 0
    clock.advance(1000)
    assert not run.spreading.over
    assert run.events == []


def test_the_first_goes_at_once_and_the_next_in_its_turn(clock: ManualClock) -> None:
    run = Run(clock)
    run.learn(10)
    assert run.spreading.pause == 0
    run.spreading.started(2)
    assert 16 <= run.spreading.pause <= 24
    clock.advance(24)
    assert run.spreading.pause == 0
    assert run.events == [PullsSpread("docker.io", "anonymous", 10, run.end)]
    assert run.spreading.begun == run.events[0]


def test_pulls_that_no_reading_shows_yet_are_taken_off_once(clock: ManualClock) -> None:
    run = Run(clock)
    run.learn(10)
    run.spreading.started(5)
    clock.advance(50)
    run.learn(4, remaining=25)
    run.spreading.started(1)
    assert 8 <= run.spreading.pause <= 12
    clock.advance(10)
    # Others have spent two.
    run.learn(1, remaining=22)
    run.spreading.started(1)
    assert 16 <= run.spreading.pause <= 24


def test_without_wait_the_window_is_the_end(clock: ManualClock) -> None:
    run = Run(clock)
    run.learn(10)
    clock.advance(99)
    assert not run.spreading.over
    clock.advance(1)
    run.end += timedelta(seconds=100)
    run.learn(80)
    assert run.spreading.over


def test_with_wait_each_window_is_spread_anew(clock: ManualClock) -> None:
    run = Run(clock, wait=True)
    run.learn(10)
    run.spreading.started(10)
    clock.advance(100)
    run.end += timedelta(seconds=100)
    run.learn(80)
    assert not run.spreading.over
    assert run.spreading.pause == 0
    run.spreading.started(8)
    assert 8 <= run.spreading.pause <= 12


def test_budget_that_is_back_early_is_spread_from_then_on(clock: ManualClock) -> None:
    run = Run(clock, wait=True)
    run.learn(10)
    run.spreading.started(10)
    clock.advance(90)
    run.end = clock.now() + timedelta(seconds=100)
    run.learn(80)
    run.spreading.started(8)
    assert 8 <= run.spreading.pause <= 12


@pytest.mark.parametrize("wait", [True, False])
def test_a_timeout_ends_it(clock: ManualClock, *, wait: bool) -> None:
    run = Run(clock, wait=wait, timeout=30)
    run.learn(2)
    run.spreading.started(1)
    assert run.spreading.pause == pytest.approx(30)
    assert isinstance(run.events[0], PullsSpread)
    assert run.events[0].until == clock.now() + timedelta(seconds=30)
    clock.advance(30)
    assert run.spreading.over


def test_where_no_window_is_known_nothing_is_spread(clock: ManualClock) -> None:
    run = Run(clock)
    run.learn(10, window=False)
    run.learn(None, window=False)
    run.spreading.started(5)
    assert run.spreading.pause == 0
    assert run.spreading.begun is None
    [remark] = run.events
    assert isinstance(remark, Remark)
    assert remark.text == (
        "docker.io does not tell its window, and no limit is configured: its pulls are not spread"
    )
