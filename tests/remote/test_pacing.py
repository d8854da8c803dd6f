"""Slots, in one process and in several."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from prefetch.clock import SystemClock
from prefetch.errors import StateError
from prefetch.filelock import FileLock
from prefetch.remote.pacing import Slots, file_name
from support.clock import ManualClock

HOLDER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from prefetch.clock import SystemClock
    from prefetch.remote.pacing import Slots

    async def hold(slots, log):
        async with slots.hold():
            with log.open("a") as file:
                file.write("+\\n")
            await asyncio.sleep(0.02)
            with log.open("a") as file:
                file.write("-\\n")

    async def main():
        directory = Path(sys.argv[1])
        slots = Slots(directory, "docker.io", 3, SystemClock())
        await asyncio.gather(*(hold(slots, directory / "log") for _ in range(20)))

    asyncio.run(main())
    """
)


@pytest.mark.parametrize(
    ("registry", "name"),
    [("docker.io", "docker.io"), ("quay.io", "quay.io")],
)
def test_plain_names_are_kept(registry: str, name: str) -> None:
    assert file_name(registry) == name


def test_odd_names_stay_apart_and_inside_the_directory() -> None:
    names = [
        file_name(each)
        for each in ("localhost:5000", "localhost_5000", "[::1]:5000", "../../etc/x", "Reg.io")
    ]
    assert len(set(names)) == len(names)
    assert not any("/" in name for name in names)


async def test_no_more_than_count_at_once(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "docker.io", 3, SystemClock())
    running = most = 0

    async def work() -> None:
        nonlocal running, most
        async with slots.hold():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1

    await asyncio.gather(*(work() for _ in range(30)))
    assert most == 3


async def test_two_clients_of_one_process_share_the_slots(tmp_path: Path) -> None:
    one, other = (Slots(tmp_path, "docker.io", 1, SystemClock()) for _ in range(2))
    order = []

    async def wait() -> None:
        async with other.hold():
            order.append("other")

    async with one.hold():
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        order.append("one")
    await waiting
    assert order == ["one", "other"]


async def test_a_slot_is_free_again_after_a_cancelled_wait(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "docker.io", 1, SystemClock())
    taken = FileLock(tmp_path / "docker.io.slot.0")
    assert taken.try_acquire()
    waiting = asyncio.create_task(slots.hold().__aenter__())
    await asyncio.sleep(0.03)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    taken.release()
    async with asyncio.timeout(1), slots.hold():
        pass


async def test_two_processes_share_the_slots(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    holders = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, str(tmp_path))
        for _ in range(2)
    ]
    assert [await each.wait() for each in holders] == [0, 0]
    running = most = 0
    for line in (tmp_path / "log").read_text().splitlines():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert most == 3
    assert running == 0


async def test_a_directory_that_is_gone_is_told_in_one_line(
    tmp_path: Path, clock: ManualClock
) -> None:
    slots = Slots(tmp_path / "gone", "docker.io", 2, clock)
    for _ in range(5):
        with pytest.raises(StateError, match=r"docker\.io\.slot\.\d: cannot be used as a lock"):
            await slots.hold().__aenter__()


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_downloads_leave_a_slot_to_what_is_small(tmp_path: Path, count: int) -> None:
    ours, theirs = (Slots(tmp_path, "docker.io", count, SystemClock()) for _ in range(2))
    running = 0

    async def download(slots: Slots) -> None:
        nonlocal running
        async with slots.hold(download=True):
            running += 1
            await asyncio.sleep(60)

    tasks = [asyncio.create_task(download(each)) for each in (ours, theirs) for _ in range(count)]
    await asyncio.sleep(0.2)
    assert running == max(1, count - 1)
    for slots in (ours, theirs):
        if count > 1:
            async with asyncio.timeout(1), slots.hold():
                pass
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(1), AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(ours.hold())
