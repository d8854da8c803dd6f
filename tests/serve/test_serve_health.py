"""What is remembered of upstreams: who is down, for how long, and what was refused."""

from __future__ import annotations

import pytest

from prefetch.oci.distribution import ErrorCode
from prefetch.oci.reference import Repository
from prefetch.server.health import Health, MissRate, Negatives
from prefetch.server.refusals import Refusal, unavailable
from support.turned_clock import TurnedClock

HERE, THERE, ELSEWHERE, ANYWHERE = (
    Repository("docker.io", f"library/{name}") for name in ("here", "there", "elsewhere", "any")
)
QUAY = Repository("quay.io", "library/here")


@pytest.fixture
def turned() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def health(turned: TurnedClock) -> Health:
    return Health(turned)


def test_a_repository_that_fails_is_left_alone(health: Health, turned: TurnedClock) -> None:
    assert not health.is_down(HERE)
    assert health.failed(HERE)
    assert health.is_down(HERE)
    assert 0 < health.pause_left(HERE) <= 2
    turned.turn(2)
    # Nobody waits for it, and somebody may find out.
    assert health.is_down(HERE)
    assert health.pause_left(HERE) == 0


def test_and_no_other_for_its_sake(health: Health) -> None:
    health.failed(HERE)
    assert (health.is_down(THERE), health.pause_left(THERE)) == (False, 0)
    assert not health.is_down(QUAY)


def test_pauses_grow_and_have_an_end(health: Health, turned: TurnedClock) -> None:
    pauses = []
    for _ in range(7):
        health.failed(HERE)
        pauses.append(health.pause_left(HERE))
        turned.turn(pauses[-1])
    assert pauses == [2, 4, 8, 16, 30, 30, 30]


def test_failures_that_come_together_count_as_one(health: Health, turned: TurnedClock) -> None:
    assert [health.failed(HERE) for _ in range(8)] == [True] + [False] * 7
    assert health.pause_left(HERE) == 2
    turned.turn(2)
    health.failed(HERE)
    assert health.pause_left(HERE) == 4


def test_several_that_fail_in_a_row_are_a_registry(health: Health) -> None:
    for each in (HERE, THERE, ELSEWHERE):
        assert health.pause_left(ANYWHERE) == 0
        health.failed(each)
    assert health.is_down(ANYWHERE)
    assert health.pause_left(ANYWHERE) == 2
    assert not health.is_down(QUAY)


def test_an_answer_in_between_shows_that_it_is_there(health: Health) -> None:
    for each in (HERE, THERE):
        health.failed(each)
    assert not health.answered(ANYWHERE)
    health.failed(ELSEWHERE)
    assert not health.is_down(ANYWHERE)
    # What that says nothing of are those that fail by themselves.
    assert health.is_down(HERE)


def test_one_answer_ends_it(health: Health) -> None:
    for each in (HERE, THERE, ELSEWHERE):
        health.failed(each)
    assert health.answered(ANYWHERE)
    assert not health.is_down(ANYWHERE)
    assert not health.answered(ANYWHERE)
    assert health.answered(HERE)
    assert not health.is_down(HERE)


def test_made_up_names_do_not_fill_the_memory(health: Health, turned: TurnedClock) -> None:
    for number in range(30_000):
        health.failed(Repository(f"r{number}.example", "library/app"))
        health.failed(Repository("docker.io", f"library/app{number}"))
    assert len(health._down) <= 20_000
    assert len(health._failing) <= 20_000


REFUSAL = unavailable("no pulls left", "budget", 40)


def test_a_refusal_holds_for_a_while_and_counts_down(turned: TurnedClock) -> None:
    negatives = Negatives(turned, 60)
    negatives.remember("key", REFUSAL)
    turned.turn(10.5)

    found = negatives.find("key")

    assert found is not None
    assert (found.status, found.message, found.cause) == (503, "no pulls left", "budget")
    assert found.retry_after == 30
    # It never outlives what it says itself.
    turned.turn(29.5)
    assert negatives.find("key") is None


@pytest.mark.parametrize(("at_most", "holds"), [(2, 2), (1000, 60)])
def test_how_long_a_refusal_holds(turned: TurnedClock, at_most: float, holds: float) -> None:
    negatives = Negatives(turned, 60)
    missing = Refusal(404, ErrorCode.MANIFEST_UNKNOWN, "unknown", cause="not_found")
    negatives.remember("key", missing, at_most)
    turned.turn(holds - 0.1)
    found = negatives.find("key")
    assert found is not None
    assert found.retry_after is None
    turned.turn(0.1)
    assert negatives.find("key") is None


def test_nothing_is_remembered_for_no_time(turned: TurnedClock) -> None:
    negatives = Negatives(turned, 0)
    negatives.remember("key", REFUSAL)
    assert negatives.find("key") is None


def test_made_up_keys_do_not_fill_the_memory_either(turned: TurnedClock) -> None:
    negatives = Negatives(turned, 60)
    for number in range(30_000):
        negatives.remember(number, REFUSAL)
    assert negatives.find(0) is None
    assert negatives.find(29_999) is not None
    assert len(negatives._known) <= 20_000


def test_misses_are_a_bucket_for_each_address(turned: TurnedClock) -> None:
    rate = MissRate(turned, 5)
    for _ in range(10):
        rate.take("10.0.0.1")
    with pytest.raises(Refusal) as refused:
        rate.take("10.0.0.1")
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    rate.take("10.0.0.2")
    turned.turn(1)
    for _ in range(5):
        rate.take("10.0.0.1")
    with pytest.raises(Refusal):
        rate.take("10.0.0.1")
