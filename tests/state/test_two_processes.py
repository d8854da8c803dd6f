"""Two real processes spend from one database; one of them is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from prefetch.clock import SystemClock
from prefetch.ratelimit.budget import Reserve
from prefetch.ratelimit.headers import Observation
from prefetch.state.database import State
from prefetch.state.ledger import Hold, Ledger, MeterKey, MeterPolicy, Refused

HUB = MeterKey("docker.io")
POLICY = MeterPolicy(Reserve(10))

# The upstream is a file with a byte for each pull, appended to atomically.
SPENDER = """
import asyncio, os, sys
from pathlib import Path
from prefetch.clock import SystemClock
from prefetch.ratelimit.budget import Reserve
from prefetch.ratelimit.headers import Observation
from prefetch.state.database import State
from prefetch.state.ledger import *

directory, limit = Path(sys.argv[1]), int(sys.argv[2])
pulls = os.open(directory / "pulls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
HUB, POLICY = MeterKey("docker.io"), MeterPolicy(Reserve(10))

def read():
    return Observation(limit, limit - os.fstat(pulls).st_size, 3600, None)

async def spend_all(ledger):
    while True:
        answer = await ledger.spend(None, HUB, POLICY, repository="a", digest=None)
        match answer:
            case Granted():
                await asyncio.sleep(0.002)
                os.write(pulls, b".")
                await ledger.settle(answer.spend, read())
            case Observe():
                stamp = await ledger.stamp(HUB)
                await ledger.observe(HUB, stamp, read(), repository="a", method="HEAD")
            case Busy():
                await asyncio.sleep(0.005)
            case Refused():
                return

async def main():
    clock = SystemClock()
    state = await State.open(f"sqlite:///{directory}/p.db", data_dir=directory, clock=clock)
    ledger = await Ledger.open(state, directory=state.locks, clock=clock)
    await asyncio.gather(*(spend_all(ledger) for _ in range(4)))
    await ledger.close()
    await state.close()

asyncio.run(main())
"""

HOLDER = """
import asyncio, sys
from pathlib import Path
from prefetch.clock import SystemClock
from prefetch.ratelimit.budget import Reserve
from prefetch.state.database import State
from prefetch.state.ledger import *

async def main():
    directory, clock = Path(sys.argv[1]), SystemClock()
    state = await State.open(f"sqlite:///{directory}/p.db", data_dir=directory, clock=clock)
    ledger = await Ledger.open(state, directory=state.locks, clock=clock)
    policy = MeterPolicy(Reserve(10))
    hold = await ledger.hold(MeterKey("docker.io"), 20, policy, label="image")
    await ledger.spend(hold, MeterKey("docker.io"), policy, repository="a", digest=None)
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def opened(directory: Path) -> tuple[State, Ledger]:
    clock = SystemClock()
    state = await State.open(f"sqlite:///{directory}/p.db", data_dir=directory, clock=clock)
    return state, await Ledger.open(state, directory=state.locks, clock=clock)


async def test_together_they_spend_down_to_the_reserve_and_no_further(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPENDER, str(tmp_path), "60"]
    spenders = [await asyncio.create_subprocess_exec(*command) for _ in range(2)]
    assert [await spender.wait() for spender in spenders] == [0, 0]
    assert (tmp_path / "pulls").stat().st_size == 50


async def test_a_killed_process_keeps_no_hold(tmp_path: Path) -> None:
    state, ledger = await opened(tmp_path)
    seen = Observation(60, 60, 3600, None)
    await ledger.observe(HUB, await ledger.stamp(HUB), seen, repository="a", method="HEAD")
    assert (await ledger.budget(HUB, POLICY)).available == 50
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        assert (await ledger.budget(HUB, POLICY)).available == 30
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert (await ledger.budget(HUB, POLICY)).available == 49
    refused = await ledger.hold(HUB, 50, POLICY, label="image")
    assert isinstance(refused, Refused)
    assert refused.stale
    await ledger.observe(HUB, await ledger.stamp(HUB), seen, repository="a", method="HEAD")
    assert isinstance(await ledger.hold(HUB, 50, POLICY, label="image"), Hold)
    await ledger.close()
    await state.close()
