"""A hold that another process finds by its label, spends from, and loses with its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefetch.clock import Clock
from prefetch.ratelimit.budget import Reserve
from prefetch.ratelimit.headers import Observation
from prefetch.state.database import State
from prefetch.state.ledger import Busy, Granted, Hold, Ledger, MeterKey, MeterPolicy

HUB = MeterKey("docker.io")
POLICY = MeterPolicy(Reserve(10))
LABEL = "docker.io/library/a@sha256:1"

OWNER = """
import asyncio, sys
from pathlib import Path
from prefetch.clock import SystemClock
from prefetch.ratelimit.budget import Reserve
from prefetch.state.database import State
from prefetch.state.ledger import *

async def main():
    directory, clock = Path(sys.argv[1]), SystemClock()
    state = await State.open(f"sqlite:///{directory}/prefetch.db", data_dir=directory, clock=clock)
    ledger = await Ledger.open(state, directory=state.locks, clock=clock)
    hold = await ledger.hold(MeterKey("docker.io"), 3, MeterPolicy(Reserve(10)), label=sys.argv[2])
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
async def ledgers(state: State, clock: Clock) -> AsyncIterator[list[Ledger]]:
    """Two owners: the ledger tells processes apart by their leases alone."""
    opened = [await Ledger.open(state, directory=state.locks, clock=clock) for _ in range(2)]
    yield opened
    for ledger in opened:
        await ledger.close()


async def observe(ledger: Ledger, remaining: int) -> None:
    seen = Observation(100, remaining, 21600, None)
    await ledger.observe(HUB, await ledger.stamp(HUB), seen, repository="library/a", method="HEAD")
    assert (await ledger.budget(HUB, POLICY)).remaining == remaining


async def held(ledger: Ledger, pulls: int, label: str = LABEL, meter: MeterKey = HUB) -> Hold:
    answer = await ledger.hold(meter, pulls, POLICY, label=label)
    assert isinstance(answer, Hold)
    return answer


async def spend(ledger: Ledger, hold: Hold | None) -> object:
    answer = await ledger.spend(hold, HUB, POLICY, repository="library/a", digest=None)
    if isinstance(answer, Granted):
        await ledger.settle(answer.spend, None)
    return answer


async def available(ledger: Ledger) -> int | None:
    return (await ledger.budget(HUB, POLICY)).available


async def test_another_process_finds_it_and_spends_it_to_the_end(ledgers: list[Ledger]) -> None:
    owner, other = ledgers
    await observe(owner, 13)
    hold = await held(owner, 3)
    assert await available(other) == 0

    found = await other.hold_named(HUB, LABEL, POLICY)

    assert found == hold
    assert await owner.hold_named(HUB, LABEL, POLICY) == hold
    await observe(other, 23)
    for left in (2, 1, 0):
        assert isinstance(await spend(other, found), Granted)
        assert await available(owner) == 10
        assert (await owner.hold_named(HUB, LABEL, POLICY) is not None) == (left > 0)
    assert await owner.release(hold) == 0


async def test_it_pays_where_nothing_else_is_left(ledgers: list[Ledger]) -> None:
    owner, other = ledgers
    await observe(owner, 20)
    await held(owner, 10)
    await observe(other, 20)
    assert await spend(other, None) == Busy()
    found = await other.hold_named(HUB, LABEL, POLICY)
    assert isinstance(await spend(other, found), Granted)


@pytest.mark.parametrize(
    "label", ["", LABEL[:-1], LABEL + "2", LABEL.upper(), f" {LABEL}", "%", LABEL.replace("1", "_")]
)
async def test_labels_match_exactly(ledgers: list[Ledger], label: str) -> None:
    hold = await held(ledgers[0], 1)
    assert await ledgers[1].hold_named(HUB, label, POLICY) is None
    assert await ledgers[1].hold_named(HUB, LABEL, POLICY) == hold


async def test_each_meter_has_its_own(ledgers: list[Ledger]) -> None:
    await held(ledgers[0], 1, meter=MeterKey("docker.io", "alice"))
    assert await ledgers[1].hold_named(HUB, LABEL, POLICY) is None
    assert await ledgers[1].hold_named(MeterKey("quay.io"), LABEL, POLICY) is None


async def test_the_oldest_that_has_pulls_left(ledgers: list[Ledger]) -> None:
    owner, other = ledgers
    await observe(owner, 100)
    first, second = await held(owner, 1), await held(other, 1)
    assert await other.hold_named(HUB, LABEL, POLICY) == first
    assert isinstance(await spend(other, first), Granted)
    assert await owner.hold_named(HUB, LABEL, POLICY) == second
    assert await owner.grow(first, 1)
    assert await owner.hold_named(HUB, LABEL, POLICY) == first


async def test_whoever_found_it_may_release_it(ledgers: list[Ledger]) -> None:
    owner, other = ledgers
    await observe(owner, 20)
    hold = await held(owner, 10)
    found = await other.hold_named(HUB, LABEL, POLICY)
    assert found is not None
    assert await other.release(found) == 10
    assert await owner.hold_named(HUB, LABEL, POLICY) is None
    assert await available(owner) == 10
    # The owner's own hold is worth nothing any more, and says so.
    assert not await owner.grow(hold, 1)
    assert await owner.release(hold) == 0
    await held(other, 10, "another")
    await observe(owner, 20)
    assert await spend(owner, hold) == Busy()


async def test_one_that_is_gone_is_never_taken_for_another(ledgers: list[Ledger]) -> None:
    owner, other = ledgers
    gone = await held(owner, 1)
    await other.release(gone)
    another = await held(other, 3, "another")
    assert await owner.release(gone) == 0
    assert not await owner.grow(gone, 1)
    await observe(owner, 20)
    assert isinstance(await spend(owner, gone), Granted)
    assert await other.release(another) == 3


async def test_it_ends_with_its_owner(ledgers: list[Ledger]) -> None:
    owner, other = ledgers
    await observe(owner, 20)
    await held(owner, 10)
    found = await other.hold_named(HUB, LABEL, POLICY)
    await owner.close()
    assert await other.hold_named(HUB, LABEL, POLICY) is None
    assert await available(other) == 10
    await held(other, 10, "another")
    await observe(other, 20)
    assert await spend(other, found) == Busy()


async def test_it_dies_with_its_owner(state: State, clock: Clock, tmp_path: Path) -> None:
    other = await Ledger.open(state, directory=state.locks, clock=clock)
    await observe(other, 13)
    command = [sys.executable, "-c", OWNER, str(tmp_path), LABEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert await asyncio.to_thread(owner.stdout.readline) == b"held\n"
        assert await available(other) == 0
        found = await other.hold_named(HUB, LABEL, POLICY)
        assert found is not None
        assert await spend(other, None) == Busy()
        await observe(other, 23)
        assert isinstance(await spend(other, found), Granted)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    assert await other.hold_named(HUB, LABEL, POLICY) is None
    # What was spent from it stays spent, what was left of it is free.
    assert await available(other) == 12
    await held(other, 12, "another")
    await observe(other, 22)
    assert await spend(other, found) == Busy()
    await other.close()
