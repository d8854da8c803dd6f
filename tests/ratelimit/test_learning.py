"""What a meter's past teaches."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable

import pytest

from prefetch.ratelimit.learning import MeterModel, Refill, Sample, learn

LIMIT, HOUR = 100, 3600.0


def watched(
    events: Iterable[tuple[float, int, int]], *, rolling: bool, every: int = 1
) -> list[Sample]:
    """Samples of a meter, from `(seconds, GETs of ours, pulls of others)` in order."""
    used: deque[float] = deque()
    samples: list[Sample] = []
    before, since, counted = LIMIT, 0.0, 0
    for at, gets, others in events:
        if rolling:
            while used and used[0] <= at - HOUR:
                used.popleft()
        elif used and used[0] <= at - HOUR:
            used.clear()
        counted += gets
        own = counted // every - (counted - gets) // every
        used.extend([at] * (own + others))
        remaining = LIMIT - len(used)
        if at > since:
            samples.append(Sample(since, at, before - remaining, gets, 0, remaining))
        before, since = remaining, at
    return samples


def model_of(samples: list[Sample]) -> MeterModel:
    return learn(samples, limit=LIMIT, window=HOUR)


def greedy(
    *, rolling: bool, every: int = 1, burn: int = 0, windows: int = 5
) -> list[tuple[float, int, int]]:
    """Somebody who takes what is above 20, looking each three minutes, beside others who pull
    `burn` in an hour."""
    draw = random.Random(7)
    foreign = deque(sorted(draw.uniform(0, windows * HOUR) for _ in range(burn * windows)))
    used: deque[float] = deque()
    events: list[tuple[float, int, int]] = []
    counted = 0
    at = 1.0
    while at < windows * HOUR:
        if rolling:
            while used and used[0] <= at - HOUR:
                used.popleft()
        elif used and used[0] <= at - HOUR:
            used.clear()
        others = 0
        while foreign and foreign[0] <= at:
            foreign.popleft()
            others += 1
        used.extend([at] * others)
        events.append((at, 0, others))
        pulled = 0
        while LIMIT - len(used) > 20:
            pulled += 1
            counted += 1
            if counted % every == 0:
                used.append(at + 10)
        if pulled:
            events.append((at + 10, pulled, 0))
        at += 180.0
    return events


def test_nothing_known_is_read_with_caution() -> None:
    model = learn([], limit=None, window=None)
    assert model.refill is Refill.UNKNOWN
    assert (model.get_cost.value, model.get_cost.confidence) == (1.0, 0.0)
    assert model.window.confidence == 0.0


@pytest.mark.parametrize("rolling", [False, True])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("burn", [0, 15, 35])
def test_five_windows_tell_all(rolling: bool, every: int, burn: int) -> None:
    samples = watched(greedy(rolling=rolling, every=every, burn=burn), rolling=rolling, every=every)
    model = model_of(samples)
    assert model.get_cost.value == 1 / every
    assert model.get_cost.confidence > 0.5
    if burn:
        assert model.refill is (Refill.ROLLING if rolling else Refill.AT_ONCE)
        assert model.refill_confidence > 0.5
    if rolling:
        assert model.burn.value == pytest.approx(burn, rel=0.2, abs=1)
    assert model.burn_low <= model.burn.value <= model.burn_high


def test_a_refill_that_leaves_young_usage_out_is_rolling() -> None:
    events = [(float(minute * 60), 1, 0) for minute in range(1, 61)]
    events += [(3600.0 + minute * 60, 0, 0) for minute in range(1, 30)]
    assert model_of(watched(events, rolling=True)).refill is Refill.ROLLING
    assert model_of(watched(events, rolling=False)).refill is Refill.AT_ONCE


def test_a_burst_that_returns_whole_tells_nothing_of_refill() -> None:
    events = [(1.0, 60, 0), (1800.0, 0, 0), (3700.0, 0, 0)]
    assert model_of(watched(events, rolling=True)).refill is Refill.UNKNOWN


def test_few_gets_do_not_tell_their_cost() -> None:
    events = [(1.0, 4, 0), (2.0, 4, 0)]
    assert model_of(watched(events, rolling=True, every=2)).get_cost.value == 1.0


def test_a_window_that_is_not_reported_is_measured() -> None:
    events = [(60.0 * minute, 20 if minute % 70 == 5 else 0, 0) for minute in range(1, 300)]
    samples = watched(events, rolling=False)
    model = learn(samples, limit=LIMIT, window=None)
    assert model.window.value == pytest.approx(HOUR, rel=0.05)
    assert model.window.confidence > 0.4


def test_the_last_minutes_stand_where_nothing_else_is_known() -> None:
    model = learn([], limit=LIMIT, window=HOUR, burn_rate=10 / HOUR)
    assert model.burn.value == pytest.approx(10)
    assert model.burn_high > 10
