"""Kernel file locks, between handles and between processes."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prefetch.filelock import FileLock, Lease

HOLD = """
import sys, time
from pathlib import Path
from prefetch.filelock import Lease
print(Lease.acquire(Path(sys.argv[1])).id, flush=True)
time.sleep(60)
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert not one.held
    assert one.try_acquire()
    assert one.try_acquire()
    assert one.held
    assert not two.try_acquire()
    one.release()
    one.release()
    assert not one.held
    assert two.try_acquire()
    two.release()


def test_descriptor_only_while_held(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(ValueError, match="not locked"):
        lock.fileno()
    with lock:
        assert lock.fileno() >= 0
    assert not lock.held


def test_context_manager_waits(tmp_path: Path) -> None:
    first = FileLock(tmp_path / "lock")
    got = threading.Event()

    def second() -> None:
        with FileLock(tmp_path / "lock"):
            got.set()

    with first:
        thread = threading.Thread(target=second)
        thread.start()
        assert not got.wait(0.1)
    assert got.wait(5)
    thread.join()


def test_waiter_does_not_end_up_with_a_removed_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock(path)
    held: list[bool] = []

    def second() -> None:
        lock = FileLock(path)
        lock.acquire()
        held.append(path.exists())
        lock.release()

    first.acquire()
    thread = threading.Thread(target=second)
    thread.start()
    thread.join(0.1)
    path.unlink()
    first.release()
    thread.join(5)
    assert held == [True]


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "no" / "lock").try_acquire()


def test_lease_lives_until_released(tmp_path: Path) -> None:
    lease, other = Lease.acquire(tmp_path), Lease.acquire(tmp_path)
    assert lease.id != other.id
    assert Lease.alive(tmp_path, lease.id)
    lease.release()
    lease.release()
    assert not Lease.alive(tmp_path, lease.id)
    assert Lease.alive(tmp_path, other.id)
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_lease_that_never_was(tmp_path: Path) -> None:
    assert not Lease.alive(tmp_path, "0" * 32)


def test_named_lease_has_one_holder(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path, "scheduler")
    assert lease.id == "scheduler"
    assert Lease.alive(tmp_path, "scheduler")
    with pytest.raises(BlockingIOError, match="scheduler"):
        Lease.acquire(tmp_path, "scheduler")
    lease.release()
    Lease.acquire(tmp_path, "scheduler").release()


def test_lease_dies_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lease_id = process.stdout.readline().strip()
        assert Lease.alive(tmp_path, lease_id)
        process.send_signal(signal.SIGSTOP)
        assert Lease.alive(tmp_path, lease_id)
        process.kill()
    assert not Lease.alive(tmp_path, lease_id)
    assert (tmp_path / f"{lease_id}.lock").exists()
    lease = Lease.acquire(tmp_path)
    assert [path.stem for path in tmp_path.iterdir()] == [lease.id]
    lease.release()


def test_sweeping_spares_the_living_and_what_is_not_a_lease(tmp_path: Path) -> None:
    (tmp_path / "layout.lock").touch()
    leases = [Lease.acquire(tmp_path) for _ in range(20)]
    assert all(Lease.alive(tmp_path, lease.id) for lease in leases)
    for lease in leases:
        lease.release()
    assert [path.name for path in tmp_path.iterdir()] == ["layout.lock"]


def test_leases_taken_at_once_are_all_alive(tmp_path: Path) -> None:
    leases: list[Lease] = []

    def take() -> None:
        leases.extend(Lease.acquire(tmp_path) for _ in range(25))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases) == 100
    assert all(Lease.alive(tmp_path, lease.id) for lease in leases)
    for lease in leases:
        lease.release()


def test_renewed_lock_holds_a_new_file(tmp_path: Path) -> None:
    path, scratch = tmp_path / "lock", tmp_path / "scratch"
    lock = FileLock(path)
    with pytest.raises(ValueError, match="not locked"):
        lock.renew(scratch)
    assert lock.try_acquire()
    path.write_bytes(b"old")
    before = path.stat().st_ino
    with path.open("rb") as old:
        scratch.write_bytes(b"left by the dead")
        lock.renew(scratch)
        assert old.read() == b"old"
    assert path.read_bytes() == b""
    assert path.stat().st_ino != before
    assert lock.intact()
    assert not FileLock(path).try_acquire()
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]
    lock.release()
    assert FileLock(path).try_acquire()


def test_failed_renewal_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    lock = FileLock(path)
    assert lock.try_acquire()
    path.write_bytes(b"old")
    for scratch in (tmp_path / "no" / "scratch", tmp_path):
        with pytest.raises(OSError, match=r"No such file|Is a directory"):
            lock.renew(scratch)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        lock.renew(tmp_path / "scratch")
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]
    assert path.read_bytes() == b"old"
    assert not FileLock(path).try_acquire()
    lock.release()


def test_nothing_is_renewed_once_an_outsider_has_removed_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock, other = FileLock(path), FileLock(path)
    assert lock.try_acquire()
    assert lock.intact()
    path.unlink()
    assert not lock.intact()
    assert other.try_acquire()
    with pytest.raises(FileNotFoundError):
        lock.renew(tmp_path / "scratch")
    assert other.intact()
    lock.release()
    assert not FileLock(path).try_acquire()
    other.release()


def test_nobody_slips_in_while_a_lock_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path)
    assert lock.try_acquire()
    taken: list[bool] = []
    tries = [0]
    done = threading.Event()

    def slip_in() -> None:
        other = FileLock(path)
        while not done.is_set():
            tries[0] += 1
            if other.try_acquire():
                taken.append(True)
                other.release()

    def wait() -> None:
        with FileLock(path):
            taken.append(done.is_set())

    threads = [threading.Thread(target=target) for target in (slip_in, wait)]
    for thread in threads:
        thread.start()
    for _ in range(1000):
        lock.renew(tmp_path / "scratch")
    assert taken == []
    done.set()
    threads[0].join()
    assert taken == []
    lock.release()
    threads[1].join()
    assert taken == [True]
    assert tries[0] > 100
