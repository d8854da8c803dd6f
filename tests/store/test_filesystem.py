"""The store on a local disk: the conformance suite, and what only real processes and disks show."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from conformance import ContentStoreConformance
from store_processes import BIG, BIG_DIGEST, lies_in, line, writer_process
from store_suite import DATA, DIGEST, opened, walked

from prefetch.errors import DigestMismatch, NoSpace, StoreError
from prefetch.store import datadir
from prefetch.store.content import ContentStore, Info, Status, Writer
from prefetch.store.filesystem import FilesystemStore

Mount = Callable[[str], Path]


class TestFilesystemStore(ContentStoreConformance):
    async def open_store(self, place: Path) -> FilesystemStore:
        return await FilesystemStore.open(place)

    async def close_store(self, store: ContentStore) -> None:
        assert isinstance(store, FilesystemStore)
        await store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FilesystemStore]:
    store = await FilesystemStore.open(tmp_path)
    yield store
    await store.close()


async def pour(writer: Writer, data: bytes) -> None:
    for start in range(0, len(data), 300_000):
        await writer.write(data[start : start + 300_000])


# On disk


async def test_layout_on_disk(tmp_path: Path, store: FilesystemStore) -> None:
    await store.put(DIGEST, DATA)
    writer = await opened(store, BIG_DIGEST)
    await writer.write(BIG[:10])
    await writer.close()
    blob = tmp_path / "cache" / "blobs" / "sha256" / DIGEST.hex
    assert blob.read_bytes() == DATA
    assert stat.S_IMODE(blob.stat().st_mode) == 0o644
    assert (tmp_path / "cache" / "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'
    assert (tmp_path / "ingest" / f"sha256-{BIG_DIGEST.hex}").read_bytes() == BIG[:10]
    assert (tmp_path / "cache" / "blobs" / "sha512").is_dir()
    assert (tmp_path / "locks").is_dir()


async def test_modes_do_not_follow_a_loose_or_a_tight_umask(tmp_path: Path) -> None:
    for umask in (0, 0o022):
        before = os.umask(umask)
        try:
            place = tmp_path / str(umask)
            store = await FilesystemStore.open(place)
            await store.put(DIGEST, DATA)
            await store.close()
        finally:
            os.umask(before)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (place, *place.rglob("*"))}
        assert modes == {0o755, 0o644}


async def test_written_bytes_are_in_the_file_at_once(
    tmp_path: Path, store: FilesystemStore
) -> None:
    writer = await opened(store)
    await writer.write(b"abc")
    assert (tmp_path / "ingest" / f"sha256-{DIGEST.hex}").read_bytes() == b"abc"
    await writer.close()


async def test_writer_without_bytes_leaves_no_file(tmp_path: Path, store: FilesystemStore) -> None:
    await (await opened(store)).close()
    assert list((tmp_path / "ingest").iterdir()) == []


async def test_files_that_are_not_ours_are_overlooked(
    tmp_path: Path, store: FilesystemStore
) -> None:
    blobs = tmp_path / "cache" / "blobs" / "sha256"
    for name in ("README", "A" * 64, DIGEST.hex[:-1], f"{DIGEST.hex}.tmp"):
        (blobs / name).write_bytes(b"x")
    (blobs / ("0" * 64)).mkdir()
    for name in ("lost+found", "sha256", "md5-00", f"sha256-{DIGEST.hex[:-1]}", "sha256-../x"):
        (tmp_path / "ingest" / name.replace("/", "_")).write_bytes(b"x")
    assert await walked(store) == set()
    assert await store.ingests() == []


async def test_damaged_content_is_not_read(tmp_path: Path, store: FilesystemStore) -> None:
    await store.put(DIGEST, DATA)
    blob = tmp_path / "cache" / "blobs" / "sha256" / DIGEST.hex
    blob.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(StoreError, match="damaged"):
        await store.read(DIGEST, limit=len(DATA))


async def test_bytes_that_rotted_in_the_ingest_are_found_out(
    tmp_path: Path, store: FilesystemStore
) -> None:
    writer = await opened(store, total=len(DATA))
    await writer.write(DATA[:1000])
    await writer.close()
    with (tmp_path / "ingest" / f"sha256-{DIGEST.hex}").open("r+b") as file:
        file.write(b"rot")
    writer = await opened(store, total=len(DATA))
    await writer.write(DATA[1000:])
    with pytest.raises(DigestMismatch):
        await writer.commit()
    assert lies_in(tmp_path / "cache" / "blobs") == set()


# Other processes


async def test_killed_writer_loses_nothing_it_was_told_is_written(tmp_path: Path) -> None:
    store = await FilesystemStore.open(tmp_path)
    reached = 0
    for chunks in (1, 7, 20):
        with writer_process(tmp_path, 0.001) as process:
            for _ in range(chunks):
                reached = int(line(process))
            process.send_signal(signal.SIGKILL)
        assert lies_in(tmp_path / "cache" / "blobs") == set()
        [ingest] = await store.ingests()
        assert ingest.digest == BIG_DIGEST
        assert ingest.offset >= reached
    writer = await opened(store, BIG_DIGEST, len(BIG))
    assert writer.status.offset >= reached >= 28 << 16
    await writer.write(memoryview(BIG)[writer.status.offset :])
    await writer.commit()
    assert await store.read(BIG_DIGEST, limit=len(BIG)) == BIG
    await store.close()


async def test_waiter_finds_what_another_process_has_written(
    tmp_path: Path, store: FilesystemStore
) -> None:
    with writer_process(tmp_path, 0.005) as process:
        assert int(line(process)) == 1 << 16
        assert await asyncio.wait_for(store.open_writer(BIG_DIGEST, len(BIG)), 30) is None
        assert process.wait(10) == 0
    assert await store.info(BIG_DIGEST) == Info(BIG_DIGEST, len(BIG))
    assert await store.ingests() == []


async def test_two_processes_write_one_digest_once(tmp_path: Path) -> None:
    with writer_process(tmp_path, 0.001) as one, writer_process(tmp_path, 0.001) as two:
        outputs = [await asyncio.to_thread(process.communicate) for process in (one, two)]
        assert one.returncode == two.returncode == 0
    assert sorted(output.splitlines()[-1] for output, _ in outputs) == ["committed", "present"]
    store = await FilesystemStore.open(tmp_path)
    assert await store.read(BIG_DIGEST, limit=len(BIG)) == BIG
    await store.close()


async def test_waiter_takes_over_from_a_killed_writer(
    tmp_path: Path, store: FilesystemStore
) -> None:
    with writer_process(tmp_path, 60) as process:
        assert int(line(process)) == 1 << 16
        waiter = asyncio.create_task(store.open_writer(BIG_DIGEST, len(BIG)))
        await asyncio.sleep(0.1)
        assert not waiter.done()
        assert not await store.abort(BIG_DIGEST)
        process.send_signal(signal.SIGKILL)
        writer = await asyncio.wait_for(waiter, 5)
    assert writer is not None
    assert writer.status == Status(BIG_DIGEST, 1 << 16, len(BIG))
    await writer.close()


# Disks that are full, read-only or somewhere else


async def test_large_blob_that_cannot_fit_is_refused_at_once(mount_tmpfs: Mount) -> None:
    place = mount_tmpfs("size=8m")
    store = await FilesystemStore.open(place)
    with pytest.raises(NoSpace, match=r"bytes free, 1073741824 .* needed"):
        await store.open_writer(DIGEST, 1 << 30)
    assert await store.ingests() == []
    await (await opened(store, DIGEST, 1 << 20)).close()
    await store.close()


async def test_full_disk_keeps_what_is_written(mount_tmpfs: Mount) -> None:
    place = mount_tmpfs("size=3m")
    store = await FilesystemStore.open(place)
    writer = await opened(store, BIG_DIGEST)
    with pytest.raises(NoSpace, match="No space left on device"):
        await pour(writer, BIG)
    reached = writer.status.offset
    assert 0 < reached < len(BIG)
    ingest = place / "ingest" / f"sha256-{BIG_DIGEST.hex}"
    assert ingest.stat().st_size == reached
    await writer.close()
    assert lies_in(place / "cache" / "blobs") == set()

    subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
    again = await opened(store, BIG_DIGEST, len(BIG))
    assert again.status.offset == reached
    await again.write(BIG[reached:])
    assert await again.commit() == Info(BIG_DIGEST, len(BIG))
    await store.close()


async def test_writer_goes_on_after_space_is_made(mount_tmpfs: Mount) -> None:
    place = mount_tmpfs("size=5m")
    ballast = place / "ballast"
    store = await FilesystemStore.open(place)
    ballast.write_bytes(bytes(3 << 20))
    writer = await opened(store, BIG_DIGEST)
    with pytest.raises(NoSpace):
        await writer.write(BIG)
    ballast.unlink()
    await writer.write(memoryview(BIG)[writer.status.offset :])
    await writer.commit()
    assert await store.read(BIG_DIGEST, limit=len(BIG)) == BIG
    await store.close()


async def test_put_on_a_full_disk_leaves_no_content(mount_tmpfs: Mount) -> None:
    place = mount_tmpfs("size=1m")
    store = await FilesystemStore.open(place)
    with pytest.raises(NoSpace, match="free some space"):
        await store.put(BIG_DIGEST, BIG)
    assert await walked(store) == set()
    await store.close()


async def test_disk_that_turns_read_only(mount_tmpfs: Mount) -> None:
    place = mount_tmpfs("size=8m")
    store = await FilesystemStore.open(place)
    await store.put(DIGEST, DATA)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    for attempt in (store.open_writer(BIG_DIGEST, None), store.put(BIG_DIGEST, BIG)):
        with pytest.raises(StoreError, match=r"Read-only file system \(mount it read-write"):
            await attempt
    with pytest.raises(StoreError, match="cannot remove"):
        await store.delete(DIGEST)
    assert await store.read(DIGEST, limit=len(DATA)) == DATA
    await store.close()


@pytest.mark.parametrize("prepared", [True, False])
async def test_read_only_directory_is_refused(mount_tmpfs: Mount, prepared: bool) -> None:
    place = mount_tmpfs("size=8m")
    if prepared:
        await (await FilesystemStore.open(place)).close()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with pytest.raises(StoreError, match="read-only") as caught:
        await FilesystemStore.open(place)
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="Read-only file system"):
        await FilesystemStore.open(place / "below")


async def test_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="is not a directory"):
        await FilesystemStore.open(tmp_path / "file")
    with pytest.raises(StoreError, match="Not a directory"):
        await FilesystemStore.open(tmp_path / "file" / "below")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cache").write_bytes(b"")
    with pytest.raises(StoreError, match="is not a directory"):
        await FilesystemStore.open(tmp_path / "data")


async def test_data_directory_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = await FilesystemStore.open(tmp_path / "link")
    await store.put(DIGEST, DATA)
    await store.close()
    assert (tmp_path / "real" / "cache" / "blobs" / "sha256" / DIGEST.hex).is_file()


async def test_network_filesystem_is_refused_before_anything_is_made(
    mount_tmpfs: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mount_tmpfs("size=1m")
    monkeypatch.setattr(datadir, "NETWORK_FILESYSTEMS", frozenset({"tmpfs"}))
    with pytest.raises(StoreError, match=r"network filesystem \(tmpfs\)") as caught:
        await FilesystemStore.open(place / "deep" / "below")
    assert "\n" not in str(caught.value)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("mount_id", "kind"),
    [("36", "ext4"), ("41", "nfs4"), ("42", "fuse.sshfs"), ("43", "cifs"), ("4", None)],
)
def test_mount_type(mount_id: str, kind: str | None) -> None:
    mountinfo = (
        "36 35 98:0 / / rw,noatime master:1 - ext4 /dev/root rw,errors=continue\n"
        "41 36 0:50 / /srv/a\\040b rw shared:9 master:2 - nfs4 server:/export rw,vers=4.2\n"
        "42 36 0:51 / /srv/ssh rw - fuse.sshfs user@host: rw\n"
        "43 36 0:52 /sub /srv/smb rw - cifs //host/share rw\n"
    )
    assert datadir.mount_type(mountinfo, mount_id) == kind
    assert (kind in datadir.NETWORK_FILESYSTEMS) == (kind not in {"ext4", None})
