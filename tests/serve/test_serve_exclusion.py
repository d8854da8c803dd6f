"""Names that one process at a time holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from prefetch.clock import SystemClock
from prefetch.errors import StateError
from prefetch.filelock import FileLock
from prefetch.server.exclusion import Exclusion


@pytest.fixture
def exclusion(tmp_path: Path) -> Exclusion:
    return Exclusion(tmp_path, SystemClock())


async def test_one_at_a_time(exclusion: Exclusion, tmp_path: Path) -> None:
    inside, most = 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with exclusion.of("tag app:1"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.005)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(10)))

    assert most == 1
    assert list(tmp_path.iterdir()) == []


async def test_names_do_not_hinder_each_other(exclusion: Exclusion) -> None:
    async with exclusion.of("tag app:1"), exclusion.of("tag app:2"):
        async with exclusion.unless_held("tag app:1") as ours:
            assert not ours
        async with exclusion.unless_held("tag app:3") as ours:
            assert ours


async def test_a_name_is_free_after_an_error(exclusion: Exclusion) -> None:
    with pytest.raises(ZeroDivisionError):
        async with exclusion.of("tag app:1"):
            raise ZeroDivisionError
    async with asyncio.timeout(1), exclusion.of("tag app:1"):
        pass


async def test_a_file_that_cannot_be_removed_is_let_go_all_the_same(
    exclusion: Exclusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        async with exclusion.of("tag app:1"):
            pass
    async with asyncio.timeout(1), exclusion.of("tag app:1"):
        pass


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    exclusion = Exclusion(tmp_path / "none", SystemClock())
    with pytest.raises(StateError, match="cannot be used as a lock: No such file"):
        async with exclusion.of("tag app:1"):
            pass


async def test_another_process_is_waited_for(exclusion: Exclusion, tmp_path: Path) -> None:
    async with exclusion.of("tag app:1"):
        [path] = tmp_path.iterdir()
    other = FileLock(path)
    assert other.try_acquire()
    waiting = asyncio.create_task(held(exclusion))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    other.release()
    async with asyncio.timeout(1):
        await waiting


async def held(exclusion: Exclusion) -> None:
    async with exclusion.of("tag app:1"):
        pass
