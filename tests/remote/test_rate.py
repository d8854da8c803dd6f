"""The rate of requests, in one process and in several."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
import time
from pathlib import Path

import pytest

from prefetch.clock import SystemClock
from prefetch.errors import StateError
from prefetch.remote.rate import Rate
from support.clock import ManualClock

SENDER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from prefetch.clock import SystemClock
    from prefetch.remote.rate import Rate

    async def main():
        rate = Rate(Path(sys.argv[1]), "docker.io", float(sys.argv[2]) or None, 16, SystemClock())
        for _ in range(int(sys.argv[3])):
            await rate.wait()
            print(asyncio.get_running_loop().time(), flush=True)

    asyncio.run(main())
    """
)


async def senders(directory: Path, per_second: float, requests: int) -> list[float]:
    """When the requests of two processes left."""
    command = (sys.executable, "-c", SENDER, str(directory), str(per_second), str(requests))
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [(await each.communicate())[0] for each in processes]
    return sorted(float(line) for output in outputs for line in output.split())


async def test_requests_leave_at_the_rate(tmp_path: Path, clock: ManualClock) -> None:
    rate = Rate(tmp_path, "docker.io", 4.0, 8, clock)
    began = clock.monotonic()
    for _ in range(9):
        await rate.wait()
    assert 2.0 <= clock.monotonic() - began <= 2.2


async def test_two_processes_are_paced_together(tmp_path: Path) -> None:
    moments = await senders(tmp_path, 50, 40)
    assert len(moments) == 80
    for first in range(len(moments) - 30):
        # Thirty gaps of 20 ms less what may leave at once; what a busy machine delays comes later.
        assert moments[first + 30] - moments[first] >= 0.6 - 0.1 - 0.15


async def test_what_one_process_learned_holds_for_all_and_later(tmp_path: Path) -> None:
    clock = SystemClock()
    rates = [Rate(tmp_path, "docker.io", None, 16, clock) for _ in range(2)]
    for rate in rates:
        for _ in range(100):
            assert not await rate.wait()
    # Both have sent: the one that is told counts what the other has left in the file.
    await asyncio.sleep(0.3)
    for rate in rates:
        await rate.wait()
    taught = await rates[0].throttled(clock.monotonic())
    assert taught is not None
    assert 50 <= taught <= 100
    moments = await senders(tmp_path, 0, 20)
    assert moments[-1] - moments[0] >= 40 / taught * 0.6
    assert await rates[1].throttled(clock.monotonic() - 60) is None


async def test_where_nothing_throttles_the_file_is_seldom_touched(
    tmp_path: Path, clock: ManualClock
) -> None:
    rate = Rate(tmp_path, "docker.io", None, 16, clock)
    file = tmp_path / "docker.io.rate"
    await rate.wait()
    file.unlink()
    for _ in range(1000):
        await rate.wait()
    assert not file.exists()
    clock.advance(0.3)
    await rate.wait()
    assert sum(count for _, count in json.loads(file.read_text())["sent"]) == 1001


@pytest.mark.parametrize("left", ["9e99", "nan", "garbage", "-5", "1e6", "[" * 2000])
async def test_what_a_reboot_left_behind_blocks_nobody(
    tmp_path: Path, clock: ManualClock, left: str
) -> None:
    (tmp_path / "docker.io.rate").write_text(left)
    rate = Rate(tmp_path, "docker.io", 1.0, 8, clock)
    began = clock.monotonic()
    await rate.wait()
    assert clock.monotonic() - began < 0.01
    await rate.wait()
    assert clock.monotonic() - began == pytest.approx(1.05, abs=0.06)


async def test_a_lesson_outlives_a_reboot(tmp_path: Path, clock: ManualClock) -> None:
    rate = Rate(tmp_path, "docker.io", None, 8, clock)
    await rate.wait()
    clock.advance(5e5)
    assert await rate.throttled(clock.monotonic()) == 10.0
    await rate.wait()
    later = ManualClock(clock.now())
    rate = Rate(tmp_path, "docker.io", None, 8, later)
    began = later.monotonic()
    for _ in range(11):
        await rate.wait()
    assert 1.0 <= later.monotonic() - began <= 1.2


async def test_a_directory_that_is_gone_is_told_in_one_line(
    tmp_path: Path, clock: ManualClock
) -> None:
    rate = Rate(tmp_path / "gone", "docker.io", 1.0, 8, clock)
    with pytest.raises(StateError, match=r"docker\.io\.rate: cannot be used as a lock"):
        await rate.wait()


async def test_a_cancelled_wait_blocks_nobody(tmp_path: Path) -> None:
    rate = Rate(tmp_path, "docker.io", 4.0, 8, SystemClock())
    await rate.wait()
    waiting = asyncio.create_task(rate.wait())
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    began = time.monotonic()
    await rate.wait()
    assert time.monotonic() - began < 1.0
