"""The bucket, and what throttling teaches: properties of pure functions."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.ratelimit.rate import FIRST_LESSON, SLOWEST, Lesson, Pace, bucket, decode

RATES = st.floats(0.05, 5000)
JITTERS = st.floats(0, 1)
DAY = 86400.0
MUCH = 1e9


@given(
    rate=RATES,
    waits=st.lists(st.tuples(st.floats(0, 3), JITTERS), min_size=2, max_size=60),
    span=st.floats(0.01, 10),
)
def test_no_stretch_of_time_sees_more_than_a_burst_and_the_rate(
    rate: float, waits: list[tuple[float, float]], span: float
) -> None:
    now, pace, moments = 1000.0, Pace(), []
    for pause, jitter in waits:
        now += pause
        leaves, pace = pace.taken(rate, now, jitter)
        assert leaves >= now
        moments.append(leaves)
    assert moments == sorted(moments)
    most = max(1.0, rate * 0.1) + rate * span + 1e-3
    for first in range(len(moments)):
        within = sum(1 for each in moments[first:] if each - moments[first] < span)
        assert within <= math.floor(most) + 1


@given(rate=RATES, count=st.integers(50, 300), jitter=JITTERS)
def test_a_queue_leaves_at_the_rate_and_at_most_a_tenth_slower(
    rate: float, count: int, jitter: float
) -> None:
    pace, leaves = Pace(), 0.0
    for _ in range(count):
        leaves, pace = pace.taken(rate, 1000.0, jitter)
    burst = max(1.0, rate * 0.1)
    assert leaves - 1000.0 >= (count - burst - 1) / rate - 1e-6
    assert leaves - 1000.0 <= count * 1.1 / rate + 1e-6


def test_slow_rates_never_send_two_together() -> None:
    pace, moments = Pace(), []
    for now in (0.0, 100.0, 100.1, 100.2, 500.0):
        leaves, pace = pace.taken(5.0, now, 0.5)
        moments.append(leaves)
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(moments))


@given(
    limit=st.floats(24, 2000),
    speed=st.floats(1.2, 50),
    at_once=st.floats(0, 1),
)
def test_the_first_lesson_stays_under_the_limit_that_taught_it(
    limit: float, speed: float, at_once: float
) -> None:
    """A registry with a bucket of up to a second, and a client that knows nothing of it."""
    sent, now, tokens = 0, 1000.0, limit * at_once + 1
    pace = Pace()
    while tokens >= 1 and sent < 40_000:
        step = 1 / (limit * speed)
        now, tokens, sent = now + step, tokens - 1 + limit * step, sent + 1
        pace = pace.counted({bucket(now): 1}, now)
    taught = pace.taught(now, now, MUCH, None).in_force(None, MUCH)
    assert taught is not None
    assert taught <= max(limit * 0.6, FIRST_LESSON)
    if at_once > 0.5:
        assert taught >= limit * 0.22 or tokens >= 1


def test_requests_that_left_before_a_lesson_do_not_teach_again() -> None:
    pace = Pace().counted({bucket(10.0): 100}, 10.0).taught(9.9, 10.0, MUCH, None)
    assert pace.taught(9.95, 10.2, MUCH, None) is pace
    again = pace.taught(11.0, 11.2, MUCH, None)
    assert again.lesson is not None
    assert pace.lesson is not None
    assert again.lesson.per_second == pace.lesson.per_second / 2


@given(times=st.integers(1, 60), ceiling=st.one_of(st.none(), RATES))
def test_lessons_end_at_a_rate_that_still_asks(times: int, ceiling: float | None) -> None:
    pace = Pace()
    for number in range(times):
        moment = 100.0 * (number + 1)
        pace = pace.taught(moment, moment + 1, MUCH, ceiling)
        rate = pace.in_force(ceiling, MUCH)
        assert rate is not None
        assert rate >= min(SLOWEST, ceiling or SLOWEST)
        assert ceiling is None or rate <= ceiling


def test_a_lesson_is_unlearned_in_ten_minutes_of_sending_at_its_rate() -> None:
    pace = Pace(lesson=Lesson(20.0, 20.0, 0.0, MUCH))
    now = 0.0
    while now < 600:
        assert pace.lesson is not None
        now, pace = pace.taken(pace.lesson.per_second, now + 1e-9, 0.0)
    assert pace.lesson is not None
    assert pace.lesson.per_second == pytest.approx(40.0, rel=0.02)


def test_what_is_not_held_up_teaches_nothing() -> None:
    pace = Pace(lesson=Lesson(20.0, 20.0, 0.0, MUCH))
    for second in range(1000):
        leaves, pace = pace.taken(20.0, float(second), 0.0)
        assert leaves == second
    assert pace.lesson == Lesson(20.0, 20.0, 0.0, MUCH)


@pytest.mark.parametrize(("age", "holds"), [(6.9, True), (7.1, False), (-8, False)])
def test_a_lesson_is_remembered_for_a_week(age: float, *, holds: bool) -> None:
    pace = Pace(lesson=Lesson(20.0, 20.0, 0.0, MUCH))
    assert pace.in_force(None, MUCH + age * DAY) == (20.0 if holds else None)
    assert pace.in_force(50.0, MUCH + age * DAY) == (20.0 if holds else 50.0)


def test_what_is_configured_stays_the_ceiling() -> None:
    pace = Pace(lesson=Lesson(99.0, 20.0, 0.0, MUCH))
    assert pace.in_force(10.0, MUCH) == 10.0
    taught = pace.taught(5.0, 6.0, MUCH, 10.0)
    assert taught.in_force(10.0, MUCH) == 5.0


@given(
    ready=st.floats(0, 1e6),
    sent=st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 10**5)), max_size=40),
    lesson=st.one_of(
        st.none(),
        st.builds(Lesson, RATES, RATES, st.floats(0, 1e7), st.floats(0, 2e9)),
    ),
)
def test_what_is_written_is_read(
    ready: float, sent: list[tuple[int, int]], lesson: Lesson | None
) -> None:
    pace = Pace(round(ready, 6), tuple(sent), lesson)
    text = pace.encoded()
    assert decode(text, latest=1e6 + 1) == pace
    assert len(text) <= 1024


@given(st.text(max_size=200))
def test_any_text_is_read_as_something(text: str) -> None:
    assert decode(text, latest=1.0).in_force(None, MUCH) is None


@pytest.mark.parametrize(
    "left",
    [
        {"ready": 1e99, "sent": [], "lesson": None},
        {"ready": float("nan"), "sent": [], "lesson": None},
        {"ready": 0, "sent": [], "lesson": [0, 1, 2, 3]},
        {"ready": 0, "sent": [], "lesson": [1]},
        {"ready": 0, "sent": 5, "lesson": None},
        {"ready": "x"},
        [],
    ],
)
def test_what_makes_no_sense_is_as_if_it_were_not_there(left: object) -> None:
    assert decode(json.dumps(left), latest=1000.0) == Pace()
