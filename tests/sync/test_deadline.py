"""Deadlines: what is promised holds, what is impossible nobody can do, and what would help."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
from deadline_world import World, finished, most_gets
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from prefetch.ratelimit.budget import DEFAULT_RESERVE, Fall, follow_usage
from prefetch.ratelimit.learning import Learned, MeterModel, Refill, Sample, learn
from prefetch.ratelimit.supply import Outlook, Stock
from prefetch.state.records import Pace
from prefetch.sync.deadline import Case, Claim, Kind, Queue, judge
from prefetch.sync.remedies import Fewer, Remedy, remedies

NOW = 1_000_000.0
HOUR = 3600.0
WINDOW = 6 * HOUR


def meter(
    available: int = 80, limit: int = 100, reserve: int = 20, used_at: float = NOW, **model: Any
) -> Outlook:
    """A meter whose refills are known, and that nobody else uses."""
    used = limit - reserve - available
    falls = (Fall(used_at, used),) if used else ()
    known = {"refill": Refill.AT_ONCE, "refill_confidence": 0.9, "get_cost": Learned(1.0, 0.9)}
    learned = MeterModel(limit, **({"window": Learned(WINDOW, 1.0)} | known | model))
    return Outlook(NOW, ((Stock(NOW, available, limit, reserve, falls), learned),))


def claims(count: int, pulls: int = 3, **more: Any) -> tuple[Claim, ...]:
    return tuple(Claim(f"app{n}", pulls, pulls, pulls, **more) for n in range(count))


def case(outlook: Outlook, wanted: tuple[Claim, ...], hours: float, **more: Any) -> Case:
    queue = Queue("docker.io", "anonymous", outlook, wanted)
    return Case(NOW, NOW + hours * HOUR, (queue,), **more)


def test_what_fits_now_is_promised_at_once() -> None:
    verdict = judge(case(meter(), claims(26), hours=1))
    assert (verdict.kind, verdict.lacking, verdict.late, verdict.at_risk) == (
        *(Kind.FEASIBLE, 0, (), ()),
    )
    assert verdict.ready_at is not None
    assert verdict.ready_at <= NOW + 10
    assert (verdict.pulls_min, verdict.pulls_max) == (78, 78)


def test_over_windows_it_is_promised_with_some_slack() -> None:
    # 80 now, and 78 or 80 at each refill: the third window has what the 80th image costs.
    soon = judge(case(meter(), claims(70), hours=12.1))
    assert (soon.kind, soon.late) == (Kind.UNCERTAIN, ())
    assert set(soon.at_risk) <= {claim.name for claim in claims(70)[50:]}
    later = judge(case(meter(), claims(70), hours=13))
    assert (later.kind, later.at_risk) == (Kind.FEASIBLE, ())
    assert soon.ready_at == later.ready_at
    assert NOW + 12 * HOUR < (later.ready_at or 0) < NOW + 13 * HOUR


def test_what_is_impossible_lacks_the_pulls_that_it_says() -> None:
    verdict = judge(case(meter(), claims(70), hours=11))
    assert verdict.kind is Kind.IMPOSSIBLE
    assert verdict.lacking == 210 - 160
    assert len(verdict.late) == 70 - 160 // 3
    exactly = judge(case(meter(), claims(160, pulls=1), hours=11))
    assert exactly.kind is not Kind.IMPOSSIBLE
    assert judge(case(meter(), claims(161, pulls=1), hours=11)).lacking == 1


def test_a_price_without_a_bound_is_no_promise() -> None:
    wanted = (*claims(2), Claim("all", 1, None, 3), Claim("behind", 1, 1, 1), Claim("no", 0, 0, 0))
    verdict = judge(case(meter(), wanted, hours=20))
    assert (verdict.kind, verdict.at_risk, verdict.late) == (
        *(Kind.UNCERTAIN, ("all", "behind"), ()),
    )
    assert verdict.ready_at is None
    assert verdict.pulls_max is None
    unlimited = judge(case(Outlook(NOW), wanted, hours=1))
    assert unlimited.kind is Kind.FEASIBLE


def test_a_window_that_is_a_guess_promises_what_is_there_and_forbids_nothing() -> None:
    outlook = meter(6, window=Learned(HOUR, 0.0))
    assert judge(case(outlook, claims(2), hours=1)).kind is Kind.FEASIBLE
    verdict = judge(case(outlook, claims(99), hours=1))
    assert (verdict.kind, verdict.ready_at) == (Kind.UNCERTAIN, None)


def test_what_others_take_is_not_promised() -> None:
    some = meter(0, refill=Refill.ROLLING, burn=Learned(40, 0.8), burn_low=30, burn_high=50)
    # 27 of the 80 of a window: 50 may be others', one more while nobody looks, and two lie idle.
    assert judge(case(some, claims(9), hours=7)).kind is Kind.FEASIBLE
    assert judge(case(some, claims(10), hours=7)).kind is Kind.UNCERTAIN
    assert judge(case(some, claims(10), hours=13)).kind is Kind.FEASIBLE
    all_of_it = meter(0, refill=Refill.ROLLING, burn=Learned(70, 0.8), burn_low=60, burn_high=85)
    verdict = judge(case(all_of_it, claims(60), hours=40))
    assert (verdict.kind, verdict.ready_at) == (Kind.UNCERTAIN, None)


def test_what_cannot_be_fetched_is_no_promise() -> None:
    gone = replace(case(meter(), claims(2), hours=1), lost=("gone",))
    verdict = judge(gone)
    assert (verdict.kind, verdict.lacking) == (Kind.UNCERTAIN, 0)
    assert verdict.late == verdict.at_risk == verdict.lost == ("gone",)
    assert verdict.ready_at is verdict.expected_at is None
    assert remedies(gone) == []


def test_transfers_take_their_time() -> None:
    wanted = claims(20, bytes=1_000_000_000)
    assert judge(case(meter(), wanted, hours=1)).kind is Kind.FEASIBLE
    slow = judge(case(meter(), wanted, hours=1, pace=Pace(10_000_000.0)))
    # 2000 s at the pace that was seen, promised at half of it.
    assert slow.kind is Kind.UNCERTAIN
    assert slow.late == ()
    assert slow.expected_at == NOW + 2000
    assert (slow.ready_at or 0) == pytest.approx(NOW + 4000, abs=10)
    unknown = judge(case(meter(), claims(20), hours=1, pace=Pace(1_000_000.0, 250_000_000)))
    assert unknown.expected_at == NOW + 5000
    assert len(unknown.late) == 6


def test_each_meter_has_its_own_budget() -> None:
    one = Queue("docker.io", "anonymous", meter(), claims(26))
    other = Queue("quay.io", "anonymous", meter(0), claims(1))
    both = judge(Case(NOW, NOW + HOUR, (one, other)))
    assert (both.kind, both.at_risk) == (Kind.UNCERTAIN, ("app0",))
    assert judge(Case(NOW, NOW + 7 * HOUR, (one, other))).kind is Kind.FEASIBLE


# ── what would help ─────────────────────────────────────────────────────────────────────────────


def offered(wanted: Case, fewer: tuple[Fewer, ...] = ()) -> dict[str, Any]:
    return {str(change.remedy): change for change in remedies(wanted, fewer)}


def test_nothing_helps_what_needs_no_help() -> None:
    assert remedies(case(meter(), claims(20), hours=1)) == []


def test_each_change_would_do_and_less_of_it_would_not() -> None:
    wanted = case(meter(50), claims(30), hours=5)
    found = offered(wanted)
    assert found.keys() == {"later", "account", "alternate", "images", "start"} | (
        found.keys() & {"reserve"}
    )
    queue = wanted.queues[0]
    later = replace(wanted, by=found["later"].value)
    assert judge(later).kind is Kind.FEASIBLE
    least = found["later"].ready_at
    assert least + 0.02 * 21600 <= later.by  # a moment to begin it
    assert judge(replace(later, by=least - 1)).kind is not Kind.FEASIBLE
    left_out = found["images"].value
    assert found["images"].images == tuple(f"app{n}" for n in range(30 - left_out, 30))
    assert found["images"].saved == 3 * left_out
    for count, kind in ((left_out, Kind.FEASIBLE), (left_out - 1, Kind.UNCERTAIN)):
        some = replace(queue, claims=queue.claims[: 30 - count])
        assert judge(replace(wanted, queues=(some,))).kind is kind
    assert found["alternate"].saved == 90
    assert (found["account"].value, found["account"].registry) == (200, "docker.io")


def test_a_smaller_reserve_is_the_largest_that_does() -> None:
    found = offered(case(meter(), claims(30), hours=5))
    # 90 pulls of a hundred: ten may stay.
    assert found["reserve"].value == 10


def test_a_start_that_would_have_been_in_time_begins_with_a_full_meter() -> None:
    found = offered(case(meter(50), claims(50), hours=5))
    # 80 of 150 at once, the others a window later.
    assert found["start"].value < NOW - HOUR
    assert found["start"].ready_at <= NOW + 5 * HOUR


def test_platforms_that_are_left_out() -> None:
    wanted = case(meter(), claims(30), hours=5)
    queue = wanted.queues[0]
    fewer = tuple(
        Fewer(("linux/amd64",) * kept, (replace(queue, claims=claims(30, pulls=1 + kept)),))
        for kept in (1, 2)
    )
    found = offered(wanted, fewer)
    assert found["platforms"].value == ("linux/amd64",)
    assert found["platforms"].saved == 30


def test_an_account_is_offered_to_the_anonymous_at_docker_hub_alone() -> None:
    wanted = case(meter(), claims(30), hours=5)
    for change in ({"registry": "quay.io"}, {"identity": "alice"}):
        other = replace(wanted, queues=(replace(wanted.queues[0], **change),))
        assert Remedy.ACCOUNT not in {each.remedy for each in remedies(other)}
    # 200 less 20 %: 159 pulls fit, with one of them at once.
    assert "account" in offered(case(meter(), claims(53), hours=5))
    assert "account" not in offered(case(meter(), claims(54), hours=5))
    strict = replace(wanted.queues[0], reserve=DEFAULT_RESERVE, alternates=True)
    assert "alternate" not in offered(replace(wanted, queues=(strict,)))


# ── worlds ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Watched:
    """A world, what has been seen of it, and what is asked of it."""

    world: World
    outlook: Outlook
    reserve: int
    prices: list[tuple[int, int]]
    by: float


@st.composite
def watched(draw: st.DrawFn) -> Watched:
    """A meter that has been watched for some windows, with spends of our own in between; whose
    burn, if others burn, has been seen for three of them. What is asked is near what it can give.
    """
    chance = random.Random(draw(st.integers(0, 2**32)))
    limit, reserve = draw(st.integers(10, 100)), draw(st.integers(0, 5))
    window = draw(st.sampled_from([20.0, HOUR, WINDOW]))
    share = draw(st.sampled_from([0.0, 0.0, 0.1, 0.3, 0.5]))
    every = window / (share * (limit - reserve)) if share else None
    counted = draw(st.sampled_from([1, 1, 2]))
    world = World(limit, window, draw(st.booleans()), counted, every)
    world.go_to(chance.uniform(0, 2) * window)
    windows = draw(st.floats(3.0, 6.0) if share else st.floats(0.0, 4.0))
    outlook = watch(world, reserve, windows, chance)
    by = world.now + draw(st.floats(0.01, 5.0)) * window
    total = most_gets(world, reserve, by) * draw(st.floats(0.3, 2.5))
    prices: list[tuple[int, int]] = []
    while sum(most for _, most in prices) < total:
        least = chance.randint(1, 3)
        prices.append((least, least + chance.choice((0, 0, 1, 2))))
    return Watched(world, outlook, reserve, prices, by)


def watch(world: World, reserve: int, windows: float, chance: random.Random) -> Outlook:
    """Read the meter now and then for so long, and pull a little; what that has taught."""
    window, limit = world.window, world.limit
    until, pause = world.now + windows * window, windows * window / chance.randint(8, 80)
    samples: list[Sample] = []
    at, word = world.now, world.remaining
    falls = follow_usage((), limit - word, at, window)
    while at < until:
        gets = 0
        for _ in range(chance.choice((0, 0, 1, 3, 8))):
            if world.remaining > reserve:
                world.get()
                gets += 1
        world.go_to(min(until, at + (window * 0.002 if gets else pause)))
        now, left = world.now, world.remaining
        samples.append(Sample(at, now, word - left, gets, 0, left))
        falls = follow_usage(falls, limit - left, now, window)
        at, word = now, left
    model = learn(samples, limit=limit, window=window)
    return Outlook(at, ((Stock(at, word - reserve, limit, reserve, falls), model),))


def asked(seen: Watched) -> Case:
    wanted = tuple(
        Claim(f"app{n}", least, most, most) for n, (least, most) in enumerate(seen.prices)
    )
    queue = Queue("docker.io", "anonymous", seen.outlook, wanted)
    return Case(seen.world.now, seen.by, (queue,))


@settings(max_examples=400)
@given(watched())
def test_what_is_promised_does_not_fail_in_a_world_that_goes_on_as_it_was(seen: Watched) -> None:
    verdict = judge(asked(seen))
    event(str(verdict.kind))
    if verdict.kind is not Kind.FEASIBLE:
        return
    world, (_, model) = seen.world, seen.outlook.limits[0]
    # Where a meter stands at nothing, what others take of it cannot be seen.
    assume(world.every is None or model.burn_high >= 0.8 * world.window / world.every)
    prices = [most for _, most in seen.prices]
    pause = min(300.0, seen.world.window / 20)
    assert finished(seen.world, seen.reserve, prices, seen.by, pause) is not None


@settings(max_examples=400)
@given(watched())
def test_what_is_impossible_nobody_can_do(seen: Watched) -> None:
    verdict = judge(asked(seen))
    event(str(verdict.kind))
    had = most_gets(seen.world, seen.reserve, seen.by)
    wanted = sum(least for least, _ in seen.prices)
    if verdict.kind is Kind.IMPOSSIBLE:
        assert had < wanted
        assert had + verdict.lacking <= wanted
    assert not math.isinf(had)
