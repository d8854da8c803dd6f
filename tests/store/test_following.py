"""Ingests on a local disk, followed: other processes, kills at every step, disks that are full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from reading_conformance import (
    GROWING,
    LOST,
    WHOLE,
    followed,
    follower_of,
    open_descriptors,
    reader_of,
    verdict,
)
from store_processes import BIG, BIG_DIGEST, go_on, lies_in, line, writer_process
from store_suite import DATA, DIGEST, opened

from prefetch.errors import DigestMismatch, NoSpace, StoreError
from prefetch.store.content import Progress
from prefetch.store.filesystem import FilesystemStore
from prefetch.store.follow import Growth

CHUNK = 1 << 16
INGEST = Path("ingest", f"sha256-{DIGEST.hex}")
BLOB = Path("cache", "blobs", "sha256", DIGEST.hex)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FilesystemStore]:
    store = await FilesystemStore.open(tmp_path)
    yield store
    await store.close()


# Zero copies


async def test_descriptors_are_fit_for_sendfile(tmp_path: Path, store: FilesystemStore) -> None:
    writer = await opened(store)
    await writer.write(DATA[:1000])
    follower = await follower_of(store)
    with (tmp_path / "out").open("wb") as out:
        assert os.sendfile(out.fileno(), follower.fileno(), 10, 500) == 500
        await writer.write(DATA[1000:])
        await writer.commit()
        assert await verdict(follower) is WHOLE
        reader = await reader_of(store)
        assert os.sendfile(out.fileno(), reader.fileno(), 510, len(DATA)) == len(DATA) - 510
    assert (tmp_path / "out").read_bytes() == DATA[10:]
    for one in (reader, follower):
        one.close()
        with pytest.raises(ValueError, match=DIGEST.hex):
            one.fileno()


async def test_followers_of_one_ingest_share_a_descriptor_and_the_looking(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = Growth.look

    def counted(growth: Growth) -> None:
        nonlocal looks
        looks += 1
        look(growth)

    monkeypatch.setattr(Growth, "look", counted)
    writer = await opened(store)
    before = await open_descriptors()
    followers = [await follower_of(store) for _ in range(200)]
    assert await open_descriptors() == before + 1
    looks = 0
    waiting = [asyncio.create_task(follower.wait(0)) for follower in followers]
    start = asyncio.get_running_loop().time()
    await asyncio.sleep(0.5)
    assert 1 < looks <= 2 + (asyncio.get_running_loop().time() - start) / 0.01
    await writer.write(b"x")
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    await asyncio.sleep(0.03)
    looks = 0
    await asyncio.sleep(0.05)
    assert looks == 0
    for follower in followers:
        follower.close()
    await writer.close()


async def test_names_that_are_no_files_are_overlooked(
    tmp_path: Path, store: FilesystemStore
) -> None:
    for name in (INGEST, BLOB):
        (tmp_path / name).mkdir()
    before = await open_descriptors()
    assert await store.open_reader(DIGEST) is None
    assert await store.follow(DIGEST) is None
    assert await open_descriptors() == before


async def test_removed_content_is_closed_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last close frees the blocks, which takes long where they are many."""
    store = await FilesystemStore.open(tmp_path)
    before = await open_descriptors()
    await store.put(DIGEST, DATA)
    named, removed = await reader_of(store), await reader_of(store)
    descriptors = [named.fileno(), removed.fileno()]
    in_loop: list[bool] = []
    close = os.close

    def noted(fd: int) -> None:
        if fd in descriptors:
            in_loop.append(threading.current_thread() is threading.main_thread())
        close(fd)

    monkeypatch.setattr(os, "close", noted)
    named.close()
    await store.delete(DIGEST)
    removed.close()
    assert await open_descriptors() == before
    assert in_loop == [True, False]
    await store.put(DIGEST, DATA)
    late = await reader_of(store)
    await store.delete(DIGEST)
    await store.close()
    late.close()
    assert await open_descriptors() == before


async def test_descriptor_stays_while_it_is_read_from(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(DIGEST, DATA)
    before = await open_descriptors()
    reader = await reader_of(store)
    begun, free = threading.Event(), threading.Event()
    pread = os.pread

    def slow(fd: int, length: int, offset: int) -> bytes:
        begun.set()
        free.wait(10)
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", slow)
    reading = [asyncio.create_task(reader.read(0, len(DATA))) for _ in range(2)]
    await asyncio.to_thread(begun.wait, 10)
    await asyncio.sleep(0.05)
    reader.close()
    reading[0].cancel()
    assert await open_descriptors() == before + 1
    free.set()
    assert await reading[1] == DATA
    assert await open_descriptors() == before


async def test_commit_between_two_looks_is_not_overlooked(
    tmp_path: Path, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await opened(store)
    await writer.write(DATA)
    follower = await follower_of(store)
    looked: list[str] = []
    look = Path.stat

    def slow(path: Path) -> os.stat_result:
        try:
            return look(path)
        finally:
            looked.append(path.name)
            if len(looked) == 1:
                (tmp_path / INGEST).rename(tmp_path / BLOB)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", slow)
        progress = await follower.wait(len(DATA), timeout=0)
    assert len(looked) >= 2
    assert progress.state is not LOST
    assert await verdict(follower) is WHOLE
    follower.close()
    (tmp_path / BLOB).rename(tmp_path / INGEST)
    await writer.close()


# Other processes


async def test_follower_of_another_process(tmp_path: Path, store: FilesystemStore) -> None:
    with writer_process(tmp_path, 0.003, hold_at=CHUNK) as process:
        assert int(line(process)) == CHUNK
        followers = [await follower_of(store, BIG_DIGEST) for _ in range(3)]
        go_on(process)
        ends = await asyncio.gather(*(followed(each, BIG) for each in followers))
        assert ends == [(len(BIG), WHOLE)] * 3
        assert process.wait(10) == 0
    for follower in followers:
        follower.close()


async def test_restart_in_another_process_loses_the_followers(
    tmp_path: Path, store: FilesystemStore
) -> None:
    with writer_process(tmp_path, 0.003, hold_at=8 * CHUNK, restarts=True) as process:
        while int(line(process)) < 8 * CHUNK:
            pass
        old = await follower_of(store, BIG_DIGEST)
        assert (await old.wait(0)).offset == 8 * CHUNK
        go_on(process)
        assert await followed(old, BIG, start=8 * CHUNK) == (8 * CHUNK, LOST)
        assert await asyncio.to_thread(process.wait, 10) == 0
        assert await verdict(old) is LOST
    assert await store.read(BIG_DIGEST, limit=len(BIG)) == BIG
    old.close()


async def test_follower_outlives_killed_writers(tmp_path: Path, store: FilesystemStore) -> None:
    with writer_process(tmp_path, 0, hold_at=CHUNK) as process:
        assert int(line(process)) == CHUNK
        follower = await follower_of(store, BIG_DIGEST)
        following = asyncio.create_task(followed(follower, BIG))
        await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    with writer_process(tmp_path, 0.001, hold_at=20 * CHUNK) as process:
        assert int(line(process)) > CHUNK
        process.send_signal(signal.SIGKILL)
    await asyncio.sleep(0.05)
    assert not following.done()
    writer = await opened(store, BIG_DIGEST, len(BIG))
    assert writer.status.offset > CHUNK
    await writer.write(memoryview(BIG)[writer.status.offset :])
    await writer.commit()
    assert await following == (len(BIG), WHOLE)
    follower.close()


# Kills in the middle of a restart

RESTART = """
import fcntl, os, pathlib, signal, sys
from prefetch.oci.reference import Digest
from prefetch.filelock import FileLock
from prefetch.store.ingest import Ingest

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

path, step = pathlib.Path(sys.argv[1]), sys.argv[2]
ingest = Ingest(path, Digest("sha256", path.name.removeprefix("sha256-")), None)
assert ingest.try_lock()
if step == "made":
    fcntl.flock = die
elif step == "locked":
    pathlib.Path.rename = die
elif step == "renamed":
    FileLock.release = die
ingest.restart()
"""


@pytest.mark.parametrize("step", ["made", "locked", "renamed"])
async def test_killed_in_a_restart(tmp_path: Path, store: FilesystemStore, step: str) -> None:
    writer = await opened(store)
    await writer.write(DATA[:1000])
    await writer.close()
    old = await follower_of(store)
    killed = [sys.executable, "-c", RESTART, str(tmp_path / INGEST), step]
    assert subprocess.run(killed, check=False).returncode == -signal.SIGKILL
    left = {str(INGEST)} if step == "renamed" else {str(INGEST), f"{INGEST}.new"}
    assert {name for name in lies_in(tmp_path) if name.startswith("ingest")} == left
    [status] = await store.ingests()
    new = await follower_of(store)
    again = await opened(store, total=len(DATA))
    assert again.status.offset == status.offset == (0 if step == "renamed" else 1000)
    await again.write(DATA[again.status.offset :])
    await again.commit()
    assert await verdict(old) is (LOST if step == "renamed" else WHOLE)
    assert await followed(new, DATA) == (len(DATA), WHOLE)
    assert list((tmp_path / "ingest").iterdir()) == []
    old.close()
    new.close()


@pytest.mark.parametrize("how", ["abort", "restart"])
async def test_what_a_kill_left_goes(tmp_path: Path, store: FilesystemStore, how: str) -> None:
    writer = await opened(store)
    await writer.write(DATA[:1000])
    await writer.close()
    (tmp_path / f"{INGEST}.new").write_bytes(b"")
    if how == "abort":
        assert await store.abort(DIGEST)
        assert list((tmp_path / "ingest").iterdir()) == []
        return
    writer = await opened(store)
    (tmp_path / f"{INGEST}.new").write_bytes(b"not to be taken over")
    await writer.restart()
    assert [path.name for path in (tmp_path / "ingest").iterdir()] == [INGEST.name]
    assert (tmp_path / INGEST).read_bytes() == b""
    await writer.write(DATA)
    await writer.commit()


async def test_many_restarts_leave_nothing(tmp_path: Path, store: FilesystemStore) -> None:
    writer = await opened(store)
    before = await open_descriptors()
    for number in range(300):
        await writer.write(b"%d" % number)
        await writer.restart()
        assert (tmp_path / INGEST).read_bytes() == b""
    assert await open_descriptors() == before
    await writer.close()
    assert list((tmp_path / "ingest").iterdir()) == []


# Outsiders


async def test_ingest_removed_by_hand_never_becomes_content(
    tmp_path: Path, store: FilesystemStore
) -> None:
    neighbour = await FilesystemStore.open(tmp_path)
    first = await opened(store, total=len(DATA))
    await first.write(DATA)
    follower = await follower_of(store)
    (tmp_path / INGEST).unlink()
    second = await opened(neighbour, total=len(DATA))
    await second.write(b"others")
    with pytest.raises(StoreError, match="cannot replace"):
        await first.restart()
    with pytest.raises(StoreError, match="was removed while"):
        await first.commit()
    assert lies_in(tmp_path / "cache" / "blobs") == set()
    assert (tmp_path / INGEST).read_bytes() == b"others"
    assert await verdict(follower) is LOST
    await first.close()
    follower.close()
    await second.restart()
    await second.write(DATA)
    await second.commit()
    assert (tmp_path / BLOB).read_bytes() == DATA
    await neighbour.close()


async def test_bad_bytes_of_a_removed_ingest_take_nothing_with_them(
    tmp_path: Path, store: FilesystemStore
) -> None:
    first = await opened(store)
    await first.write(b"bad")
    (tmp_path / INGEST).unlink()
    second = await opened(store)
    await second.write(DATA)
    with pytest.raises(DigestMismatch):
        await first.commit()
    await second.commit()
    assert (tmp_path / BLOB).read_bytes() == DATA


async def test_truncated_by_hand_is_lost(tmp_path: Path, store: FilesystemStore) -> None:
    writer = await opened(store)
    await writer.write(DATA)
    follower = await follower_of(store)
    assert (await follower.wait(0)).offset == len(DATA)
    os.truncate(tmp_path / INGEST, 10)
    assert await verdict(follower) is LOST
    os.truncate(tmp_path / INGEST, len(DATA))
    assert await verdict(follower) is LOST
    follower.close()
    await writer.close()


async def test_linked_elsewhere_is_lost_all_the_same(
    tmp_path: Path, store: FilesystemStore
) -> None:
    """Backups by hard links keep an inode that is no longer ours."""
    writer = await opened(store)
    await writer.write(DATA)
    follower = await follower_of(store)
    os.link(tmp_path / INGEST, tmp_path / "backup")
    await writer.restart()
    assert await verdict(follower) is LOST
    follower.close()
    await writer.close()


async def test_content_of_another_file_is_lost(tmp_path: Path, store: FilesystemStore) -> None:
    writer = await opened(store)
    await writer.write(DATA)
    follower = await follower_of(store)
    (tmp_path / BLOB).write_bytes(DATA)
    assert await verdict(follower) is LOST
    assert await store.follow(DIGEST) is None
    follower.close()
    await writer.close()


# Disks


async def test_no_restart_without_room_for_a_file(mount_tmpfs: Callable[[str], Path]) -> None:
    place = mount_tmpfs("size=8m,nr_inodes=64")
    store = await FilesystemStore.open(place)
    writer = await opened(store, total=len(DATA))
    await writer.write(DATA[:1000])
    follower = await follower_of(store)
    number = 0
    with contextlib.suppress(OSError):
        while True:
            (place / f"ballast{number}").touch()
            number += 1
    with pytest.raises(NoSpace, match="cannot replace"):
        await writer.restart()
    assert writer.status.offset == 1000
    assert await follower.wait(0) == Progress(1000, GROWING)
    await writer.write(DATA[1000:2000])
    (place / "ballast0").unlink()
    await writer.restart()
    assert [path.name for path in (place / "ingest").iterdir()] == [INGEST.name]
    await writer.write(DATA)
    await writer.commit()
    assert await verdict(follower) is LOST
    follower.close()
    await store.close()


async def test_restart_frees_a_full_disk(mount_tmpfs: Callable[[str], Path]) -> None:
    place = mount_tmpfs("size=3m")
    store = await FilesystemStore.open(place)
    writer = await opened(store, BIG_DIGEST)
    with pytest.raises(NoSpace):
        await writer.write(BIG)
    follower = await follower_of(store, BIG_DIGEST)
    await writer.restart()
    assert await verdict(follower, len(BIG)) is LOST
    follower.close()
    await open_descriptors()
    await writer.write(BIG[: 2 << 20])
    assert writer.status.offset == 2 << 20
    await writer.close()
    await store.close()


async def test_disk_that_fails_is_told_to_all_who_wait(
    tmp_path: Path, store: FilesystemStore
) -> None:
    writer = await opened(store)
    await writer.write(DATA[:1000])
    followers = [await follower_of(store) for _ in range(3)]
    waiting = [asyncio.create_task(follower.wait(1000)) for follower in followers]
    await asyncio.sleep(0.02)
    blobs = tmp_path / "cache" / "blobs" / "sha256"
    blobs.rmdir()
    blobs.touch()
    for task in waiting:
        with pytest.raises(StoreError, match="cannot examine"):
            await asyncio.wait_for(task, 5)
    with pytest.raises(StoreError):
        await followers[0].wait(1000)
    with pytest.raises(StoreError):
        await store.follow(DIGEST)
    with pytest.raises(StoreError, match="Not a directory"):
        await store.open_reader(DIGEST)
    blobs.unlink()
    blobs.mkdir()
    await writer.write(DATA[1000:])
    await writer.commit()
    for follower in followers:
        assert await verdict(follower) is WHOLE
        follower.close()
