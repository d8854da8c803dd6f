"""What every content store must do, whatever it stores on.

A test module for one implementation subclasses `ContentStoreConformance` under a name that pytest
collects, and says how a store is opened. Opening the same place twice stands for two processes.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_conformance import ReadingConformance
from store_suite import DATA, DIGEST, OTHER, opened, walked

from prefetch.errors import DigestMismatch, SizeMismatch, StoreError
from prefetch.oci.reference import Digest
from prefetch.store.content import ContentStore, Info, Status

Step = tuple[int, bool]


class ContentStoreConformance(ReadingConformance):
    """The suite. Subclasses implement `open_store` and `close_store`."""

    # From absent to content

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_written_content_is_found_everywhere(
        self, store: ContentStore, algorithm: str
    ) -> None:
        digest = Digest.of(DATA, algorithm)
        writer = await opened(store, digest, len(DATA))
        await writer.write(DATA[:1000])
        await writer.write(bytearray(DATA[1000:2000]))
        await writer.write(memoryview(DATA)[2000:])
        assert writer.status == Status(digest, len(DATA), len(DATA))
        assert await writer.commit() == Info(digest, len(DATA))
        assert await store.info(digest) == Info(digest, len(DATA))
        assert await store.read(digest, limit=len(DATA)) == DATA
        assert await store.present([digest, OTHER]) == {digest}
        assert await walked(store) == {Info(digest, len(DATA))}
        assert await store.ingests() == []

    async def test_empty_store(self, store: ContentStore) -> None:
        assert await store.info(DIGEST) is None
        assert await store.present([DIGEST]) == set()
        assert await store.present([]) == set()
        assert await walked(store) == set()
        assert await store.ingests() == []

    async def test_empty_content(self, store: ContentStore) -> None:
        empty = Digest.of(b"")
        writer = await opened(store, empty, 0)
        assert await writer.commit() == Info(empty, 0)
        assert await store.present([empty]) == {empty}
        assert await store.read(empty, limit=0) == b""

    async def test_unknown_total(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(DATA)
        assert writer.status.total is None
        assert await writer.commit() == Info(DIGEST, len(DATA))

    async def test_nothing_shows_before_commit(self, store: ContentStore) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(DATA)
        assert await store.info(DIGEST) is None
        assert await store.present([DIGEST]) == set()
        assert await walked(store) == set()
        with pytest.raises(StoreError):
            await store.read(DIGEST, limit=len(DATA))
        await writer.close()

    async def test_content_needs_no_writer(self, store: ContentStore) -> None:
        await store.put(DIGEST, DATA)
        assert await store.open_writer(DIGEST, len(DATA)) is None
        assert await store.ingests() == []

    async def test_close_after_commit_does_nothing(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(DATA)
        await writer.commit()
        await writer.close()
        assert await store.present([DIGEST]) == {DIGEST}

    # What is wrong never becomes content

    async def test_wrong_digest_drops_the_ingest(self, store: ContentStore) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(DATA[:-1] + b"!")
        with pytest.raises(DigestMismatch, match=DIGEST.hex):
            await writer.commit()
        await writer.close()
        assert await store.info(DIGEST) is None
        assert await store.ingests() == []
        assert (await opened(store)).status.offset == 0

    async def test_short_content_stays_and_is_resumed(self, store: ContentStore) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(DATA[:-1])
        with pytest.raises(SizeMismatch, match=str(len(DATA))):
            await writer.commit()
        assert await store.info(DIGEST) is None
        await writer.close()
        again = await opened(store, total=len(DATA))
        assert again.status.offset == len(DATA) - 1
        await again.write(DATA[-1:])
        await again.commit()
        assert await store.read(DIGEST, limit=len(DATA)) == DATA

    async def test_writing_past_the_total_is_refused(self, store: ContentStore) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(DATA[:-1])
        with pytest.raises(SizeMismatch):
            await writer.write(b"12")
        assert writer.status.offset == len(DATA) - 1
        await writer.write(DATA[-1:])
        await writer.commit()

    # Resuming

    async def test_bytes_stay_after_close(self, store: ContentStore) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(DATA[:70_000])
        await writer.close()
        await writer.close()
        assert await store.ingests() == [Status(DIGEST, 70_000, None)]
        again = await opened(store, total=len(DATA))
        assert again.status == Status(DIGEST, 70_000, len(DATA))
        await again.write(DATA[70_000:])
        await again.commit()
        assert await store.read(DIGEST, limit=len(DATA)) == DATA

    async def test_whole_ingest_needs_only_a_commit(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(DATA)
        await writer.close()
        again = await opened(store, total=len(DATA))
        assert again.status.offset == len(DATA)
        await again.commit()
        assert await store.present([DIGEST]) == {DIGEST}

    async def test_ingest_larger_than_the_total_starts_again(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(DATA + b"more")
        await writer.close()
        again = await opened(store, total=len(DATA))
        assert again.status.offset == 0
        await again.write(DATA)
        await again.commit()
        assert await store.read(DIGEST, limit=len(DATA)) == DATA

    async def test_restart_forgets_what_was_written(self, store: ContentStore) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(b"wrong from the start")
        await writer.restart()
        assert writer.status.offset == 0
        await writer.write(DATA)
        await writer.commit()
        assert await store.read(DIGEST, limit=len(DATA)) == DATA

    @settings(max_examples=40, deadline=None)
    @given(
        data=st.binary(max_size=4096),
        steps=st.lists(st.tuples(st.integers(1, 700), st.booleans()), max_size=20),
    )
    def test_any_split_with_any_reopening_gives_the_same(
        self, data: bytes, steps: list[Step]
    ) -> None:
        asyncio.run(self._write_in_steps(data, steps))

    async def _write_in_steps(self, data: bytes, steps: list[Step]) -> None:
        digest = Digest.of(data)
        with tempfile.TemporaryDirectory() as place:
            store = await self.open_store(Path(place))
            writer = await opened(store, digest, len(data))
            for length, reopen in steps:
                offset = writer.status.offset
                await writer.write(data[offset : offset + length])
                if reopen:
                    await writer.close()
                    await self.close_store(store)
                    store = await self.open_store(Path(place))
                    writer = await opened(store, digest, len(data))
                    assert writer.status.offset == min(offset + length, len(data))
            await writer.write(data[writer.status.offset :])
            await writer.commit()
            assert await store.read(digest, limit=len(data)) == data
            await self.close_store(store)

    # One writer at a time

    async def test_second_writer_waits_and_finds_the_content(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        first = await opened(store, total=len(DATA))
        second = asyncio.create_task(neighbour.open_writer(DIGEST, len(DATA)))
        await asyncio.sleep(0.1)
        assert not second.done()
        await first.write(DATA)
        await first.commit()
        assert await asyncio.wait_for(second, 5) is None
        assert await neighbour.ingests() == []

    async def test_second_writer_takes_over(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        first = await opened(store, total=len(DATA))
        second = asyncio.create_task(neighbour.open_writer(DIGEST, len(DATA)))
        await first.write(DATA[:1000])
        await first.close()
        writer = await asyncio.wait_for(second, 5)
        assert writer is not None
        assert writer.status.offset == 1000
        await writer.write(DATA[1000:])
        await writer.commit()

    async def test_second_writer_starts_afresh_after_bad_content(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        first = await opened(store, total=4)
        second = asyncio.create_task(neighbour.open_writer(DIGEST, len(DATA)))
        await first.write(b"evil")
        with pytest.raises(DigestMismatch):
            await first.commit()
        writer = await asyncio.wait_for(second, 5)
        assert writer is not None
        assert writer.status.offset == 0
        await writer.close()

    async def test_many_writers_of_one_digest_make_one_commit(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        async def mirror(where: ContentStore) -> bool:
            writer = await where.open_writer(DIGEST, len(DATA))
            if writer is None:
                return False
            await writer.write(DATA[writer.status.offset :])
            await writer.commit()
            return True

        tasks = [mirror(where) for where in (store, neighbour) * 8]
        assert sum(await asyncio.wait_for(asyncio.gather(*tasks), 20)) == 1
        assert await store.ingests() == []

    async def test_cancelled_waiter_leaves_no_lock_behind(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        first = await opened(store)
        await first.write(DATA[:10])
        for pause in (0.0, 0.001, 0.02):
            waiter = asyncio.create_task(neighbour.open_writer(DIGEST, None))
            await asyncio.sleep(pause)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        await first.close()
        assert (await opened(neighbour)).status.offset == 10

    async def test_cancelled_opening_leaves_no_lock_behind(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        for spins in range(12):
            opening = asyncio.create_task(store.open_writer(DIGEST, None))
            for _ in range(spins):
                await asyncio.sleep(0)
            opening.cancel()
            try:
                writer = await opening
            except asyncio.CancelledError:
                continue
            assert writer is not None
            await writer.close()
        await (await opened(neighbour)).close()

    async def test_cancelled_write_is_whole_or_absent_after_close(
        self, store: ContentStore
    ) -> None:
        writer = await opened(store, total=len(DATA))
        for spins in range(6):
            start = writer.status.offset
            task = asyncio.create_task(writer.write(DATA[start : start + 5000]))
            for _ in range(spins):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await writer.close()
            writer = await opened(store, total=len(DATA))
            assert writer.status.offset in {start, start + 5000}
        await writer.write(DATA[writer.status.offset :])
        await writer.commit()
        assert await store.read(DIGEST, limit=len(DATA)) == DATA

    # Small documents

    async def test_put_is_idempotent(self, store: ContentStore) -> None:
        for _ in range(2):
            assert await store.put(DIGEST, DATA) == Info(DIGEST, len(DATA))
        assert await store.read(DIGEST, limit=len(DATA)) == DATA
        assert await walked(store) == {Info(DIGEST, len(DATA))}

    async def test_put_by_many_at_once(self, store: ContentStore, neighbour: ContentStore) -> None:
        await asyncio.gather(*(where.put(DIGEST, DATA) for where in (store, neighbour) * 10))
        assert await store.read(DIGEST, limit=len(DATA)) == DATA
        assert await store.ingests() == []

    async def test_put_refuses_the_wrong_digest(self, store: ContentStore) -> None:
        with pytest.raises(DigestMismatch):
            await store.put(OTHER, DATA)
        assert await walked(store) == set()
        assert await store.ingests() == []

    async def test_put_replaces_what_a_dead_writer_left(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(b"half of something else")
        await writer.close()
        await store.put(DIGEST, DATA)
        assert await store.read(DIGEST, limit=len(DATA)) == DATA
        assert await store.ingests() == []

    async def test_put_waits_for_a_writer(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store)
        await writer.write(DATA[:5])
        task = asyncio.create_task(neighbour.put(DIGEST, DATA))
        await asyncio.sleep(0.05)
        assert not task.done()
        await writer.close()
        assert await asyncio.wait_for(task, 5) == Info(DIGEST, len(DATA))

    # Reading and looking after

    async def test_read_is_bounded(self, store: ContentStore) -> None:
        await store.put(DIGEST, DATA)
        with pytest.raises(StoreError, match="larger than"):
            await store.read(DIGEST, limit=len(DATA) - 1)

    async def test_read_of_absent_content(self, store: ContentStore) -> None:
        with pytest.raises(StoreError, match=OTHER.hex):
            await store.read(OTHER, limit=10)

    @pytest.mark.parametrize("absent", [3, 2000])
    async def test_present_for_few_and_many(self, store: ContentStore, absent: int) -> None:
        documents = [str(number).encode() for number in range(20)]
        here = {Digest.of(text, kind) for text in documents for kind in ("sha256", "sha512")}
        for text in documents:
            await store.put(Digest.of(text), text)
            await store.put(Digest.of(text, "sha512"), text)
        others = {Digest.of(f"absent {number}".encode()) for number in range(absent)}
        assert await store.present(here | others) == here

    async def test_walk_sees_all(self, store: ContentStore) -> None:
        documents = {Digest.of(text): text for text in (b"", b"a", b"bc", DATA)}
        for digest, text in documents.items():
            await store.put(digest, text)
        sizes = {Info(digest, len(text)) for digest, text in documents.items()}
        assert await walked(store) == sizes

    async def test_walk_may_delete(self, store: ContentStore) -> None:
        for number in range(50):
            await store.put(Digest.of(b"%d" % number), b"%d" % number)
        async for info in store.walk():
            assert await store.delete(info.digest)
        assert await walked(store) == set()

    async def test_delete(self, store: ContentStore) -> None:
        await store.put(DIGEST, DATA)
        assert await store.delete(DIGEST)
        assert not await store.delete(DIGEST)
        assert await store.info(DIGEST) is None
        await (await opened(store)).close()

    async def test_abort(self, store: ContentStore, neighbour: ContentStore) -> None:
        assert not await store.abort(DIGEST)
        writer = await opened(store)
        await writer.write(b"some")
        assert not await neighbour.abort(DIGEST)
        await writer.close()
        assert await neighbour.abort(DIGEST)
        assert await store.ingests() == []
