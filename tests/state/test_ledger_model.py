"""The reserve under any interleaving of spends, burns, crashes, refills and clock jumps."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
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


class StillClock(TurnedClock):
    """Nothing happens by the passing of real time, so that an example can be repeated."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


@dataclass
class Upstream:
    """A registry that limits pulls, in a fixed or a rolling window; its own clock never jumps."""

    limit: int
    window: float
    rolling: bool
    time: float = 0.0
    pulls: deque[float] = field(default_factory=deque)

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        if self.rolling:
            while self.pulls and self.pulls[0] <= self.time - self.window:
                self.pulls.popleft()
        elif self.pulls and self.pulls[0] <= self.time - self.window:
            self.pulls.clear()

    def take(self) -> bool:
        if len(self.pulls) >= self.limit:
            return False
        self.pulls.append(self.time)
        return True

    def read(self) -> Observation:
        return Observation(self.limit, self.limit - len(self.pulls), int(self.window), "source")


@dataclass
class Flight:
    """A pull or a HEAD under way; `answer` once the upstream has dealt with it."""

    ledger: int
    sent: int
    spend: Spend | None = None
    stamp: Stamp | None = None
    answer: Observation | None = None
    limited: bool = False


@pytest.fixture(scope="module", autouse=True)
def _template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One empty database, copied for each example."""
    directory = tmp_path_factory.mktemp("template")

    async def make() -> None:
        url = f"sqlite:///{directory}/prefetch.db"
        await (await State.open(url, data_dir=directory, clock=TurnedClock())).close()

    asyncio.run(make())
    LedgerMachine.template = directory / "prefetch.db"


class LedgerMachine(RuleBasedStateMachine):
    """Two processes on one database, one upstream, and others who spend from the same address."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        shutil.copy(self.template, self.directory / "prefetch.db")
        self.clock = StillClock()
        self.states: list[State] = []
        self.ledgers: list[Ledger] = []
        self.holds: list[tuple[int, Hold]] = []
        self.flights: list[Flight] = []
        self.step = 0
        self.others_spent = False
        # The last word that reached us, by when it was asked for, and when our pulls were sent.
        self.word: tuple[int, int] | None = None
        self.sent: list[int] = []

    @initialize(
        limit=st.integers(8, 40),
        window=st.sampled_from([20.0, 300.0]),
        rolling=st.booleans(),
        reserve=st.integers(0, 8),
    )
    def start(self, limit: int, window: float, rolling: bool, reserve: int) -> None:
        self.upstream = Upstream(limit, window, rolling)
        self.policy = MeterPolicy(Reserve(reserve))
        for _ in range(2):
            self.loop.run_until_complete(self.open())

    async def open(self) -> None:
        url = f"sqlite:///{self.directory}/prefetch.db"
        state = await State.open(url, data_dir=self.directory, clock=self.clock)
        self.states.append(state)
        self.ledgers.append(
            await Ledger.open(state, directory=self.directory / "locks", clock=self.clock)
        )

    def tick(self) -> int:
        self.step += 1
        return self.step

    # ── what processes do ───────────────────────────────────────────────────────────────────────

    @rule(who=st.integers(0, 1), pulls=st.integers(1, 4))
    def hold(self, who: int, pulls: int) -> None:
        answer = self.loop.run_until_complete(
            self.ledgers[who].hold(HUB, pulls, self.policy, label="image")
        )
        if isinstance(answer, Hold):
            self.holds.append((who, answer))

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        who, hold = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        assert self.loop.run_until_complete(self.ledgers[who].release(hold)) >= 0

    @rule(
        who=st.integers(0, 1),
        held=st.booleans(),
        times=st.integers(1, 8),
        looks=st.sampled_from([True, True, False]),
    )
    def spend(self, who: int, held: bool, times: int, looks: bool) -> None:
        hold = next((hold for owner, hold in self.holds if held and owner == who), None)
        for _ in range(times):
            answer = self.ask(who, hold)
            if answer == Observe() and looks:
                self.head(who=who, at_once=True)
                answer = self.ask(who, hold)
            if isinstance(answer, Granted):
                self.check_the_reserve()
                sent = self.tick()
                self.sent.append(sent)
                self.flights.append(Flight(who, sent, spend=answer.spend))

    def ask(self, who: int, hold: Hold | None) -> Granted | Observe | Busy | Refused:
        return self.loop.run_until_complete(
            self.ledgers[who].spend(hold, HUB, self.policy, repository="a", digest=None)
        )

    def check_the_reserve(self) -> None:
        """The upstream's last word, less what we have sent since, must be above the reserve."""
        assert self.word is not None, "a pull was granted before the meter was ever read"
        asked, remaining = self.word
        since = sum(sent > asked for sent in self.sent)
        assert remaining - since > self.policy.reserve.pulls

    @rule(who=st.integers(0, 1), at_once=st.booleans())
    def head(self, who: int, at_once: bool) -> None:
        stamp = self.loop.run_until_complete(self.ledgers[who].stamp(HUB))
        flight = Flight(who, self.tick(), stamp=stamp)
        self.flights.append(flight)
        if at_once:
            self.reach(flight)
            self.deliver(flight)

    # ── what the network and the upstream do ────────────────────────────────────────────────────

    def reach(self, flight: Flight) -> None:
        if flight.answer is not None:
            return
        if flight.spend is not None and not self.upstream.take():
            assert self.others_spent, "429 although nobody else spends"
            flight.limited = True
        flight.answer = self.upstream.read()

    def deliver(self, flight: Flight) -> None:
        self.flights.remove(flight)
        ledger = self.ledgers[flight.ledger]
        if flight.spend is None:
            assert flight.stamp is not None
            work = ledger.observe(HUB, flight.stamp, flight.answer, repository="a", method="HEAD")
        elif flight.limited:
            work = ledger.pull_limit_reached(HUB, flight.spend, flight.answer, None)
        else:
            work = ledger.settle(flight.spend, flight.answer, answered=True)
        self.loop.run_until_complete(work)
        # Written at once: what waits in memory for a tenth of a second, others cannot know.
        self.loop.run_until_complete(ledger.budget(HUB, self.policy))
        assert flight.answer is not None
        remaining = flight.answer.remaining
        assert remaining is not None
        if self.word is None or flight.sent > self.word[0]:
            self.word = flight.sent, remaining

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), deliver=st.booleans())
    def proceed(self, data: st.DataObject, deliver: bool) -> None:
        flight = self.flights[data.draw(st.integers(0, len(self.flights) - 1))]
        self.reach(flight)
        if deliver:
            self.deliver(flight)

    @precondition(lambda self: any(flight.spend for flight in self.flights))
    @rule(data=st.data(), counted=st.booleans())
    def lose_the_answer(self, data: st.DataObject, counted: bool) -> None:
        pulls = [flight for flight in self.flights if flight.spend]
        flight = pulls[data.draw(st.integers(0, len(pulls) - 1))]
        if counted:
            self.reach(flight)
        self.flights.remove(flight)
        assert flight.spend is not None
        self.loop.run_until_complete(self.ledgers[flight.ledger].settle(flight.spend, None))

    # ── what happens to them ────────────────────────────────────────────────────────────────────

    @rule(pulls=st.integers(1, 2))
    def others_spend(self, pulls: int) -> None:
        for _ in range(pulls):
            self.others_spent |= self.upstream.take()

    @rule(seconds=st.sampled_from([0.2, 3.0, 21.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.turn(seconds)
        self.upstream.pass_time(seconds)

    @rule(seconds=st.sampled_from([-86400.0, -30.0, 30.0, 86400.0]))
    def somebody_sets_the_clock(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @rule(who=st.integers(0, 1), counted=st.booleans())
    def kill(self, who: int, counted: bool) -> None:
        """A process dies; what it had sent reaches the upstream now or never."""
        for flight in [flight for flight in self.flights if flight.ledger == who]:
            if counted:
                self.reach(flight)
            self.flights.remove(flight)
        self.holds = [(owner, hold) for owner, hold in self.holds if owner != who]
        journal = self.ledgers[who]._journal
        if journal._flusher is not None:
            journal._flusher.cancel()
        if journal._lease is not None:
            journal._lease.release()
        self.loop.run_until_complete(self.states[who].close())
        self.loop.run_until_complete(self.open())
        self.ledgers[who], self.states[who] = self.ledgers.pop(), self.states.pop()

    @rule()
    def budget_is_never_more_than_the_last_word(self) -> None:
        budget = self.loop.run_until_complete(self.ledgers[0].budget(HUB, self.policy))
        if budget.available is not None and budget.remaining is not None:
            assert 0 <= budget.available <= max(0, budget.remaining - budget.reserve)

    def teardown(self) -> None:
        async def leftovers() -> int:
            for who, hold in self.holds:
                await self.ledgers[who].release(hold)
            for ledger in self.ledgers[:1]:
                await ledger.close()
            if len(self.ledgers) > 1:
                await self.ledgers[1].budget(HUB, MeterPolicy())
                await self.ledgers[1].close()
            query = text("SELECT count(*) FROM holds")
            found = await self.states[0].read(lambda c: c.execute(query).scalar_one())
            for state in self.states:
                await state.close()
            return int(found)

        try:
            if self.ledgers:
                assert self.loop.run_until_complete(leftovers()) == 0
        finally:
            self.loop.close()
            shutil.rmtree(self.directory)


def thorough(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


# Seconds, as long as it passes. A failure is made small for up to five minutes before it is told,
# and a timeout within them would tell nothing of it.
@pytest.mark.timeout(420)
class TestLedger(LedgerMachine.TestCase):
    settings = thorough(30, 40)


@pytest.mark.long
@pytest.mark.timeout(1800)
class TestLedgerAtLength(LedgerMachine.TestCase):
    settings = thorough(600, 60)
