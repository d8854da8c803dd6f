"""The ledger's rules, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from prefetch.ratelimit.budget import Reserve
from prefetch.ratelimit.headers import Observation
from prefetch.state.database import State
from prefetch.state.ledger import (
    Busy,
    Granted,
    Hold,
    Ledger,
    MeterKey,
    MeterPolicy,
    Observe,
    Refused,
    Spend,
    Stamp,
)
from support.turned_clock import TurnedClock

HUB = MeterKey("docker.io")
NONE = MeterPolicy(Reserve(0))
FIVE = MeterPolicy(Reserve(5))
REPOSITORY = "library/a"


def reading(
    remaining: int | None, limit: int | None = 100, source: str | None = "203.0.113.7"
) -> Observation:
    return Observation(limit, remaining, 21600, source)


async def head(ledger: Ledger, seen: Observation | None, repository: str = REPOSITORY) -> None:
    await ledger.observe(HUB, await ledger.stamp(HUB), seen, repository=repository, method="HEAD")


async def ask(
    ledger: Ledger, hold: Hold | None = None, policy: MeterPolicy = NONE, where: str = REPOSITORY
) -> Granted | Observe | Busy | Refused:
    return await ledger.spend(hold, HUB, policy, repository=where, digest="sha256:1")


async def spent(ledger: Ledger, hold: Hold | None = None, policy: MeterPolicy = NONE) -> Spend:
    answer = await ask(ledger, hold, policy)
    assert isinstance(answer, Granted)
    return answer.spend


async def held(ledger: Ledger, pulls: int, policy: MeterPolicy = NONE) -> Hold:
    answer = await ledger.hold(HUB, pulls, policy, label="image")
    assert isinstance(answer, Hold)
    return answer


async def available(ledger: Ledger, policy: MeterPolicy = NONE) -> int | None:
    return (await ledger.budget(HUB, policy)).available


def crash(ledger: Ledger) -> None:
    """The process is gone: the kernel lets go of its lock, nothing else happens."""
    lease = ledger._journal._lease
    assert lease is not None
    lease.release()


@pytest.fixture
async def ledgers(state: State, clock: TurnedClock) -> AsyncIterator[list[Ledger]]:
    opened = [await Ledger.open(state, directory=state.locks, clock=clock) for _ in range(2)]
    yield opened
    for ledger in opened:
        await ledger.close()


@pytest.fixture
def ledger(ledgers: list[Ledger]) -> Ledger:
    return ledgers[0]


# ── observations and what they absorb ───────────────────────────────────────────────────────────


async def test_never_observed_is_observed_first(ledger: Ledger) -> None:
    assert await ask(ledger) == Observe()
    await head(ledger, reading(50))
    assert isinstance(await ask(ledger), Granted)


@pytest.mark.parametrize("seconds", [61, 86400, -1, -86400])
async def test_old_or_future_observations_are_renewed(
    ledger: Ledger, clock: TurnedClock, seconds: float
) -> None:
    await head(ledger, reading(50))
    await spent(ledger)
    clock.jump(seconds)
    assert await ask(ledger) == Observe()
    await head(ledger, reading(50))
    assert isinstance(await ask(ledger), Granted)


async def test_a_spend_counts_until_an_observation_sent_after_its_end(ledger: Ledger) -> None:
    await head(ledger, reading(50))
    spend = await spent(ledger)
    assert await available(ledger) == 49
    early = await ledger.stamp(HUB)
    await ledger.settle(spend, None)
    await ledger.observe(HUB, early, reading(50), repository=REPOSITORY, method="HEAD")
    assert await available(ledger) == 49
    await head(ledger, reading(49))
    assert await available(ledger) == 49


async def test_a_spends_own_answer_does_not_absorb_it(ledger: Ledger) -> None:
    await head(ledger, reading(50))
    first = await spent(ledger)
    await ledger.settle(first, reading(49))
    assert await available(ledger) == 48
    second = await spent(ledger)
    await ledger.settle(second, reading(48))
    assert await available(ledger) == 47


async def test_an_observation_sent_earlier_never_replaces_a_later_one(ledger: Ledger) -> None:
    early = await ledger.stamp(HUB)
    await head(ledger, reading(40))
    await ledger.observe(HUB, early, reading(90), repository=REPOSITORY, method="HEAD")
    assert await available(ledger) == 40
    later = await ledger.stamp(HUB)
    await head(ledger, reading(30))
    assert await available(ledger) == 30
    await ledger.observe(HUB, later, reading(90), repository=REPOSITORY, method="HEAD")
    assert await available(ledger) == 30


async def test_a_reading_taken_later_counts_however_idle_its_process_was(
    ledgers: list[Ledger],
) -> None:
    idle, busy = ledgers
    await busy.budget(HUB, NONE)  # a transaction that the idle one knows nothing of
    await head(busy, reading(6))
    await busy.budget(HUB, NONE)
    await head(idle, reading(2))
    assert await available(idle) == 2


async def test_of_two_processes_readings_at_once_the_lower_stays(ledgers: list[Ledger]) -> None:
    one, two = ledgers
    stamps = await one.stamp(HUB), await two.stamp(HUB)
    await one.observe(HUB, stamps[0], reading(30), repository=REPOSITORY, method="HEAD")
    assert await available(one) == 30
    await two.observe(HUB, stamps[1], reading(31), repository=REPOSITORY, method="HEAD")
    assert await available(two) == 30
    await head(two, reading(31))
    assert await available(two) == 31


async def test_a_spend_stays_spent_when_its_process_dies(ledgers: list[Ledger]) -> None:
    one, two = ledgers
    await head(one, reading(50))
    await held(one, 20)
    await spent(one)
    assert await available(two) == 29
    crash(one)
    assert await available(two) == 49
    await head(two, reading(49))
    assert await available(two) == 49


async def test_absent_headers_exempt_the_repository_alone(ledger: Ledger) -> None:
    await head(ledger, reading(0))
    await head(ledger, None, "docker/exempt")
    assert isinstance(await ask(ledger), Refused)
    assert isinstance(await ask(ledger, where="docker/exempt"), Granted)
    assert (await ledger.budget(HUB, NONE)).remaining == 0
    assert await ledger.exempt(HUB, "docker/exempt")
    await head(ledger, reading(0), "docker/exempt")
    assert not await ledger.exempt(HUB, "docker/exempt")


async def test_a_silent_head_does_not_outweigh_a_counted_get(ledger: Ledger) -> None:
    await head(ledger, reading(50))
    await ledger.settle(await spent(ledger), reading(0))
    await head(ledger, None)
    assert not await ledger.exempt(HUB, REPOSITORY)
    assert isinstance(await ask(ledger), Refused)


async def test_exemption_is_remembered_across_processes(ledgers: list[Ledger]) -> None:
    await head(ledgers[0], None)
    await ledgers[0].close()
    assert isinstance(await ask(ledgers[1]), Granted)


async def test_blank_is_unknown_and_changes_nothing(ledger: Ledger) -> None:
    await head(ledger, reading(None, limit=None))
    assert isinstance(await ask(ledger), Granted)
    assert (await ledger.budget(HUB, NONE)).remaining is None
    await head(ledger, reading(7))
    await head(ledger, reading(None, limit=None))
    assert (await ledger.budget(HUB, NONE)).remaining == 7


async def test_a_meter_that_says_nothing_is_asked_once_a_minute(
    ledger: Ledger, clock: TurnedClock
) -> None:
    await head(ledger, reading(None, limit=None))
    for _ in range(9):
        await ledger.settle(await spent(ledger), reading(None, limit=None))
    clock.turn(61)
    assert await ask(ledger) == Observe()


async def test_the_lowest_active_source_governs(ledger: Ledger, clock: TurnedClock) -> None:
    await head(ledger, reading(4, source="a"))
    clock.turn(30)
    await head(ledger, reading(90, source="b"))
    budget = await ledger.budget(HUB, NONE)
    assert (budget.source, budget.available) == ("a", 4)
    clock.turn(571)
    await head(ledger, reading(90, source="b"))
    assert (await ledger.budget(HUB, NONE)).source == "b"


async def test_a_spend_counts_against_the_source_that_its_answer_named(ledger: Ledger) -> None:
    await head(ledger, reading(50, source="a"))
    await head(ledger, reading(60, source="b"))
    spend = await spent(ledger)
    assert await available(ledger) == 49
    await ledger.settle(spend, reading(59, source="b"))
    assert await available(ledger) == 50
    await ledger.settle(await spent(ledger), None)
    assert await available(ledger) == 49


async def test_ten_thousand_heads_are_few_transactions(ledger: Ledger, state: State) -> None:
    for _ in range(10):
        stamps = await asyncio.gather(*(ledger.stamp(HUB) for _ in range(1000)))
        for number, stamp in enumerate(stamps):
            name = f"library/{number % 500}"
            await ledger.observe(HUB, stamp, reading(90), repository=name, method="HEAD")
    await ledger.budget(HUB, NONE)
    query = text("SELECT value FROM ledger_sequence")
    assert await state.read(lambda c: c.execute(query).scalar_one()) < 50


# ── the reserve ─────────────────────────────────────────────────────────────────────────────────


async def test_a_pull_leaves_only_above_the_reserve(ledger: Ledger) -> None:
    await head(ledger, reading(6))
    await ledger.settle(await spent(ledger, policy=FIVE), reading(5))
    await head(ledger, reading(5))
    answer = await ask(ledger, policy=FIVE)
    assert isinstance(answer, Refused)
    assert not answer.stale
    assert (answer.available, "5 of them reserved" in answer.reason) == (0, True)


async def test_the_default_reserve_is_a_fifth_of_the_reported_limit(ledger: Ledger) -> None:
    await head(ledger, reading(21))
    budget = await ledger.budget(HUB, MeterPolicy())
    assert (budget.limit, budget.reserve, budget.available) == (100, 20, 1)


async def test_near_the_reserve_one_at_a_time_each_after_a_head(ledgers: list[Ledger]) -> None:
    one, two = ledgers
    await head(one, reading(10))
    spend = await spent(one, policy=FIVE)
    assert await ask(one, policy=FIVE) == Busy()
    assert await ask(two, policy=FIVE) == Busy()
    await one.settle(spend, reading(9))
    assert await ask(two, policy=FIVE) == Observe()
    await head(two, reading(9))
    assert isinstance(await ask(two, policy=FIVE), Granted)


async def test_far_from_the_reserve_many_at_once(ledger: Ledger) -> None:
    await head(ledger, reading(20))
    answers = await asyncio.gather(*(ask(ledger, policy=FIVE) for _ in range(12)))
    assert sum(isinstance(answer, Granted) for answer in answers) == 10
    assert sum(answer == Busy() for answer in answers) == 2


async def test_no_refusal_rests_on_spends_that_a_head_would_absorb(ledger: Ledger) -> None:
    await head(ledger, reading(12))
    spends = [await spent(ledger) for _ in range(7)]
    assert await ask(ledger) == Busy()
    for spend in spends:
        await ledger.settle(spend, None)
    hold = await ledger.hold(HUB, 6, NONE, label="x")
    assert isinstance(hold, Refused)
    assert hold.stale
    await head(ledger, reading(12))
    assert isinstance(await ledger.hold(HUB, 6, NONE, label="x"), Hold)


async def test_a_refusal_rests_on_a_recent_word(ledger: Ledger, clock: TurnedClock) -> None:
    await head(ledger, Observation(10, 0, 20, None))
    assert isinstance(await ask(ledger), Refused)
    clock.turn(2)
    assert await ask(ledger) == Observe()


async def test_a_reading_that_its_window_has_outlived_is_renewed(
    ledger: Ledger, clock: TurnedClock
) -> None:
    await head(ledger, Observation(10, 0, 20, None))
    assert isinstance(await ask(ledger), Refused)
    clock.turn(21)
    assert await ask(ledger) == Observe()
    assert await ask(ledger, policy=MeterPolicy(Reserve(0), (50, 100.0))) == Observe()
    await head(ledger, Observation(10, 0, 20, None))
    assert isinstance(await ask(ledger), Refused)


# ── holds ───────────────────────────────────────────────────────────────────────────────────────


async def test_holds_are_taken_off_for_everyone(ledgers: list[Ledger]) -> None:
    one, two = ledgers
    await head(one, reading(20))
    hold = await held(one, 12, FIVE)
    refused = await two.hold(HUB, 4, FIVE, label="other")
    assert isinstance(refused, Refused)
    assert refused.busy
    other = await held(two, 3, FIVE)
    assert await ask(two, policy=FIVE) == Busy()
    assert isinstance(await ask(two, other, FIVE), Granted)
    assert isinstance(await ask(one, hold, FIVE), Granted)
    assert await one.release(hold) == 11
    assert await one.release(hold) == 0
    assert await two.release(other) == 2


async def test_a_hold_grows_or_not_at_all(ledger: Ledger) -> None:
    await head(ledger, reading(20))
    hold = await held(ledger, 5)
    assert not await ledger.grow(hold, 16)
    assert await ledger.grow(hold, 15)
    assert await ledger.release(hold) == 20


async def test_a_retry_beyond_the_hold_is_a_spend_of_its_own(ledger: Ledger) -> None:
    await head(ledger, reading(20))
    hold = await held(ledger, 1)
    await spent(ledger, hold)
    await spent(ledger, hold)
    assert await available(ledger) == 18
    assert await ledger.release(hold) == 0


async def test_holds_on_a_meter_without_reading_are_granted(ledger: Ledger) -> None:
    assert await ledger.release(await held(ledger, 1000)) == 1000


async def test_a_caller_who_leaves_keeps_nothing(ledger: Ledger, state: State) -> None:
    await head(ledger, reading(50))
    await available(ledger)
    for call in (ledger.hold(HUB, 7, NONE, label="x"), ask(ledger)):
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not ledger._journal._abandoned:
            break
    query = "SELECT (SELECT count(*) FROM holds) + count(*) FROM spends WHERE ended_at IS NULL"
    assert await state.read(lambda c: c.execute(text(query)).scalar_one()) == 0


async def test_close_gives_everything_back(ledgers: list[Ledger]) -> None:
    one, two = ledgers
    await head(one, reading(50))
    await held(one, 30)
    await spent(one)
    await one.close()
    assert await available(two) == 49
    await head(two, reading(49))
    assert await available(two) == 49


# ── foreign burn and the forecast ───────────────────────────────────────────────────────────────


async def test_foreign_burn_is_what_our_spends_do_not_explain(
    ledger: Ledger, clock: TurnedClock
) -> None:
    remaining = 1000
    await head(ledger, Observation(1000, remaining, 100, None))
    for _ in range(40):
        spend = await spent(ledger)
        remaining -= 1
        await ledger.settle(spend, Observation(1000, remaining, 100, None))
        clock.turn(10)
        remaining -= 3
        await head(ledger, Observation(1000, remaining, 100, None))
    budget = await ledger.budget(HUB, NONE)
    assert budget.foreign_burn_per_hour == pytest.approx(1080, rel=0.02)
    assert budget.available == remaining
    clock.turn(10)
    assert await available(ledger) in (remaining - 3, remaining - 2)


async def test_a_refill_is_no_burn(ledger: Ledger, clock: TurnedClock) -> None:
    for remaining in (10, 90, 90, 20, 100):
        await head(ledger, Observation(100, remaining, 100, None))
        await available(ledger)
    clock.turn(10)
    await head(ledger, Observation(100, 100, 100, None))
    assert (await ledger.budget(HUB, NONE)).foreign_burn_per_hour == 0


async def test_forecast_is_one_window_after_usage_was_seen(
    ledger: Ledger, clock: TurnedClock
) -> None:
    start = clock.now()
    await head(ledger, Observation(10, 4, 100, None))
    assert await available(ledger) == 4
    clock.turn(40)
    await head(ledger, Observation(10, 0, 100, None))
    answer = await ask(ledger)
    assert isinstance(answer, Refused)
    assert answer.retry_at == start + timedelta(seconds=100)
    assert await ledger.forecast(HUB, NONE, 7) <= start + timedelta(seconds=140)
    assert 0 < await ledger.next_check(HUB, NONE) <= 5


async def test_a_named_reset_wins(ledger: Ledger, clock: TurnedClock) -> None:
    await head(ledger, Observation(10, 0, 100, None, reset_seconds=7.0))
    assert await ledger.forecast(HUB, NONE, 1) == clock.now() + timedelta(seconds=7)


# ── the pull limit ──────────────────────────────────────────────────────────────────────────────


async def test_a_429_empties_the_meter_until_a_later_observation(ledger: Ledger) -> None:
    await head(ledger, reading(50))
    early = await ledger.stamp(HUB)
    spend = await spent(ledger)
    await ledger.pull_limit_reached(HUB, spend, reading(50), None)
    assert await ask(ledger) == Observe()
    await ledger.observe(HUB, early, reading(50), repository=REPOSITORY, method="HEAD")
    assert await ask(ledger) == Observe()
    assert await available(ledger) == 0
    assert isinstance(await ledger.hold(HUB, 1, NONE, label="x"), Refused)
    await head(ledger, reading(50))
    assert isinstance(await ask(ledger), Granted)


@pytest.mark.parametrize(("retry_after", "seconds"), [(30.0, 30), (None, 3600)])
async def test_a_429_without_any_headers_lasts_for_a_while(
    ledger: Ledger, clock: TurnedClock, retry_after: float | None, seconds: int
) -> None:
    blank = reading(None, limit=None)
    await head(ledger, blank)
    await ledger.pull_limit_reached(HUB, await spent(ledger), None, retry_after)
    await head(ledger, blank)
    answer = await ask(ledger)
    assert isinstance(answer, Refused)
    assert answer.retry_at == clock.now() + timedelta(seconds=seconds)
    clock.turn(seconds)
    await head(ledger, blank)
    assert isinstance(await ask(ledger), Granted)


async def test_a_configured_limit_counts_our_own_spends(
    ledgers: list[Ledger], clock: TurnedClock
) -> None:
    policy = MeterPolicy(Reserve(1), (4, 100.0))
    start = clock.now()
    await head(ledgers[0], reading(None, limit=None))
    for number in range(3):
        ledger = ledgers[number % 2]
        await ledger.settle(await spent(ledger, policy=policy), None)
    answer = await ask(ledgers[0], policy=policy)
    assert isinstance(answer, Refused)
    assert "configured" in answer.reason
    assert answer.retry_at == start + timedelta(seconds=100)
    clock.turn(101)
    await head(ledgers[0], reading(None, limit=None))
    assert isinstance(await ask(ledgers[0], policy=policy), Granted)


async def test_a_configured_limit_counts_what_the_registry_exempts(
    ledgers: list[Ledger], clock: TurnedClock
) -> None:
    one, two = ledgers
    policy = MeterPolicy(Reserve(1), (4, 100.0))
    await head(one, None)
    hold = await one.hold(HUB, 2, policy, label="x", exempt=True)
    assert isinstance(hold, Hold)
    assert not await one.grow(hold, 2)
    assert isinstance(await one.hold(HUB, 2, policy, label="y", exempt=True), Refused)
    assert await one.release(hold) == 2
    for _ in range(3):
        await two.settle(await spent(two, policy=policy), None, answered=True)
    refused = await ask(one, policy=policy)
    assert isinstance(refused, Refused)
    assert (refused.stale, "configured" in refused.reason) == (False, True)
    clock.turn(101)
    assert isinstance(await ask(one, policy=policy), Granted)


async def test_what_is_exempt_is_free_of_the_reported_limit_alone(ledger: Ledger) -> None:
    await head(ledger, reading(0))
    await head(ledger, None, "docker/exempt")
    policy = MeterPolicy(Reserve(0), (2, 100.0))
    answers = [await ask(ledger, where="docker/exempt", policy=policy) for _ in range(3)]
    assert [type(each) for each in answers] == [Granted, Granted, Refused]


async def test_of_configured_and_reported_limit_the_lower_counts(ledger: Ledger) -> None:
    await head(ledger, reading(50))
    assert await available(ledger, MeterPolicy(Reserve(0), (10, 100.0))) == 10
    assert await available(ledger, MeterPolicy(Reserve(0), (80, 100.0))) == 50


# ── HEADs that cost ─────────────────────────────────────────────────────────────────────────────


async def test_heads_that_cost_pulls_are_noticed_and_charged(
    ledger: Ledger, clock: TurnedClock
) -> None:
    remaining = 100
    for _ in range(25):
        remaining -= 1
        await head(ledger, reading(remaining))
        await available(ledger)
        clock.turn(1)
    assert await ledger.head_cost(HUB) == 1
    clock.turn(120)
    assert isinstance(await ask(ledger), Granted)


async def test_heads_that_cost_nothing_stay_free(ledger: Ledger, clock: TurnedClock) -> None:
    remaining = 100
    for number in range(40):
        remaining -= number % 2
        await head(ledger, reading(remaining))
        await available(ledger)
        clock.turn(1)
    assert await ledger.head_cost(HUB) == 0


async def costly(ledger: Ledger, clock: TurnedClock, remaining: int = 50) -> int:
    """Let HEADs be seen to cost pulls; returns what is left."""
    for number in range(25):
        await head(ledger, reading(remaining + 25 - number - 1))
        await available(ledger)
        clock.turn(1)
    assert await ledger.head_cost(HUB) == 1
    return remaining


async def answer(ledger: Ledger, stamp: Stamp, remaining: int) -> None:
    """A HEAD's answer has come, and is written."""
    seen = reading(remaining)
    await ledger.observe(HUB, stamp, seen, repository=REPOSITORY, method="HEAD")
    await available(ledger)


async def test_a_head_that_costs_is_charged_before_it_is_answered(
    ledgers: list[Ledger], clock: TurnedClock
) -> None:
    one, two = ledgers
    left = await costly(one, clock)
    stamp = await two.head_stamp(HUB, REPOSITORY)
    assert await available(one) == await available(two) == left - 1
    await answer(two, stamp, left - 1)
    assert await available(one) == left - 1
    assert isinstance(await ask(two), Granted)


async def test_near_the_reserve_no_pull_leaves_beside_a_head_that_costs(
    ledgers: list[Ledger], clock: TurnedClock
) -> None:
    one, two = ledgers
    left = await costly(one, clock, remaining=9)
    stamp = await two.head_stamp(HUB, REPOSITORY)
    assert await ask(one, policy=FIVE) == Busy()
    await answer(two, stamp, left - 1)
    assert isinstance(await ask(one, policy=FIVE), Granted)


async def test_of_heads_under_way_together_a_later_one_may_not_show_the_earlier(
    ledger: Ledger, clock: TurnedClock
) -> None:
    left = await costly(ledger, clock)
    early, late = [await ledger.head_stamp(HUB, REPOSITORY) for _ in range(2)]
    await answer(ledger, late, left - 1)
    assert await available(ledger) == left - 2
    await answer(ledger, early, left - 2)
    assert await available(ledger) == left - 2
    await answer(ledger, await ledger.head_stamp(HUB, REPOSITORY), left - 3)
    assert await available(ledger) == left - 3


async def test_a_head_that_came_to_nothing_stays_charged_until_a_reading(
    ledgers: list[Ledger], clock: TurnedClock
) -> None:
    one, two = ledgers
    left = await costly(one, clock)
    await one.unheard(await one.head_stamp(HUB, REPOSITORY))
    await two.head_stamp(HUB, REPOSITORY)
    crash(two)
    assert await available(one) == left - 2
    await answer(one, await one.head_stamp(HUB, REPOSITORY), left - 1)
    assert await available(one) == left - 1


async def test_heads_that_cost_nothing_are_not_journaled(ledger: Ledger, state: State) -> None:
    await head(ledger, reading(50))
    await ledger.unheard(await ledger.head_stamp(HUB, REPOSITORY))
    assert await available(ledger) == 50
    query = text("SELECT count(*) FROM spends")
    assert await state.read(lambda c: c.execute(query).scalar_one()) == 0


async def test_heads_that_no_longer_cost_are_free_again(ledger: Ledger, clock: TurnedClock) -> None:
    left = await costly(ledger, clock)
    for _ in range(12):
        clock.turn(1)
        await answer(ledger, await ledger.head_stamp(HUB, REPOSITORY), left)
    assert await ledger.head_cost(HUB) == 0


# ── throttling ──────────────────────────────────────────────────────────────────────────────────


async def test_throttling_is_the_registrys_and_everyones(
    ledgers: list[Ledger], clock: TurnedClock
) -> None:
    one, two = ledgers
    assert await two.throttled_until("docker.io") is None
    until = await one.throttled("docker.io", 30.0)
    assert until == clock.now() + timedelta(seconds=30)
    assert await one.throttled_until("docker.io") == until
    assert await one.throttled_until("quay.io") is None
    clock.turn(1.5)
    assert await two.throttled_until("docker.io") == until
    clock.turn(30)
    assert await two.throttled_until("docker.io") is None


async def test_throttling_backs_off_once_for_requests_under_way_together(
    ledger: Ledger, clock: TurnedClock
) -> None:
    waits = []
    for _ in range(4):
        together = {await ledger.throttled("docker.io", None) for _ in range(5)}
        assert len(together) == 1
        waits.append((together.pop() - clock.now()).total_seconds())
        clock.turn(waits[-1] + 0.01)
    for wait, expected in zip(waits, [1, 2, 4, 8], strict=True):
        assert expected <= wait <= expected * 1.25
    clock.turn(1000)
    assert (await ledger.throttled("docker.io", None) - clock.now()).total_seconds() <= 1.25


async def test_a_clock_set_back_does_not_prolong_throttling(
    ledgers: list[Ledger], clock: TurnedClock
) -> None:
    await ledgers[0].throttled("docker.io", 30.0)
    clock.jump(-86400)
    assert await ledgers[1].throttled_until("docker.io") is None
