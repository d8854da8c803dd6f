"""What every content store must do for its readers: of content, and of ingests that grow."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_suite import DATA, DIGEST, OTHER, StoreSuite, opened

from prefetch.errors import DigestMismatch
from prefetch.oci.reference import Digest
from prefetch.store.content import ContentStore, Follower, FollowState, Progress, Reader, Writer

GROWING, WHOLE, LOST = FollowState.GROWING, FollowState.WHOLE, FollowState.LOST

HALF = len(DATA) // 2


async def reader_of(store: ContentStore, digest: Digest = DIGEST) -> Reader:
    reader = await store.open_reader(digest)
    assert reader is not None
    return reader


async def follower_of(store: ContentStore, digest: Digest = DIGEST) -> Follower:
    follower = await store.follow(digest)
    assert follower is not None
    return follower


async def followed(
    follower: Follower, expected: bytes, *, piece: int = 1 << 20, start: int = 0
) -> tuple[int, FollowState]:
    """Read to the end, comparing; how many bytes came, and what became of the ingest."""
    while True:
        progress = await asyncio.wait_for(follower.wait(start), 60)
        if progress.state is LOST:
            return start, LOST
        while start < progress.offset:
            data = await follower.read(start, piece)
            assert data == expected[start : start + len(data)] != b""
            start += len(data)
        if progress.state is WHOLE:
            return start, WHOLE


async def verdict(follower: Follower, beyond: int = len(DATA)) -> FollowState:
    return (await asyncio.wait_for(follower.wait(beyond), 10)).state


async def open_descriptors() -> int:
    """How many this process has, once threads that are at it have closed theirs."""
    await asyncio.sleep(0.05)
    gc.collect()  # what earlier tests have left, which would else be closed at some later time
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass
class Watch:
    """A follower in a story, and what it may see in the end."""

    follower: Follower
    got: bytearray = field(default_factory=bytearray)
    outdated: bool = False
    excused: bool = False

    async def read(self, length: int) -> None:
        progress = await self.follower.wait(len(self.got), timeout=0)
        if progress.state is not LOST:
            self.got += await self.follower.read(len(self.got), length)


class ReadingConformance(StoreSuite):
    # Content, read in pieces

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_reader_gives_any_piece(self, store: ContentStore, algorithm: str) -> None:
        digest = Digest.of(DATA, algorithm)
        await store.put(digest, DATA)
        reader = await reader_of(store, digest)
        assert reader.size == len(DATA)
        for start, length in ((0, len(DATA)), (0, 1), (70_001, 12_345), (len(DATA) - 1, 1)):
            assert await reader.read(start, length) == DATA[start : start + length]
        assert await reader.read(len(DATA) - 3, 1 << 62) == DATA[-3:]
        assert await reader.read(len(DATA), 10) == b""
        assert await reader.read(len(DATA) + 1, 10) == b""
        assert await reader.read(0, 0) == b""
        reader.close()

    async def test_reader_of_empty_content(self, store: ContentStore) -> None:
        empty = Digest.of(b"")
        await store.put(empty, b"")
        reader = await reader_of(store, empty)
        assert reader.size == 0
        assert await reader.read(0, 10) == b""
        reader.close()

    async def test_no_reader_of_what_is_absent(self, store: ContentStore) -> None:
        assert await store.open_reader(DIGEST) is None
        writer = await opened(store)
        await writer.write(DATA)
        assert await store.open_reader(DIGEST) is None
        await writer.close()

    async def test_closed_reader_reads_no_more(self, store: ContentStore) -> None:
        await store.put(DIGEST, DATA)
        reader = await reader_of(store)
        reader.close()
        reader.close()
        with pytest.raises(ValueError, match=DIGEST.hex):
            await reader.read(0, 10)
        with pytest.raises(ValueError, match=DIGEST.hex):
            await reader.read(len(DATA), 10)

    async def test_reader_outlives_deletion(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        await store.put(DIGEST, DATA)
        reader = await reader_of(store)
        assert await neighbour.delete(DIGEST)
        assert await reader.read(0, len(DATA)) == DATA
        assert await store.open_reader(DIGEST) is None
        reader.close()

    async def test_closing_under_a_read_gives_all_or_nothing(self, store: ContentStore) -> None:
        await store.put(DIGEST, DATA)
        for spins in range(20):
            reader = await reader_of(store)
            reading = asyncio.create_task(reader.read(0, len(DATA)))
            for _ in range(spins % 5):
                await asyncio.sleep(0)
            reader.close()
            try:
                assert await reading == DATA
            except ValueError:
                continue

    # Followed to the end

    async def test_nothing_to_follow(self, store: ContentStore) -> None:
        assert await store.follow(DIGEST) is None
        await store.put(DIGEST, DATA)
        assert await store.follow(DIGEST) is None

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_followed_from_the_start(
        self, store: ContentStore, neighbour: ContentStore, algorithm: str
    ) -> None:
        digest = Digest.of(DATA, algorithm)
        writer = await opened(store, digest, len(DATA))
        followers = [await follower_of(where, digest) for where in (store, neighbour)]
        tasks = [asyncio.create_task(followed(each, DATA)) for each in followers]
        for start in range(0, len(DATA), 50_000):
            await writer.write(DATA[start : start + 50_000])
            await asyncio.sleep(0.015)
        assert not any(task.done() for task in tasks)
        await writer.commit()
        assert await asyncio.gather(*tasks) == [(len(DATA), WHOLE)] * 2
        for follower in followers:
            assert await follower.wait(0) == Progress(len(DATA), WHOLE)
            assert await follower.read(0, len(DATA)) == DATA
            follower.close()

    async def test_followed_from_the_middle(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store)
        await writer.write(DATA[:HALF])
        follower = await follower_of(neighbour)
        assert await follower.wait(0) == Progress(HALF, GROWING)
        assert await follower.wait(-1) == Progress(HALF, GROWING)
        await writer.write(DATA[HALF:])
        await writer.commit()
        assert await followed(follower, DATA) == (len(DATA), WHOLE)
        follower.close()

    async def test_whole_is_told_only_after_the_commit(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(DATA)
        for where in (store, neighbour):
            follower = await follower_of(where)
            progress = await follower.wait(len(DATA), timeout=0.05)
            assert progress == Progress(len(DATA), GROWING)
            follower.close()
        followers = [await follower_of(where) for where in (store, neighbour)]
        await writer.commit()
        for follower in followers:
            assert await verdict(follower) is WHOLE
            follower.close()

    async def test_whole_stays_whole(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(DATA)
        follower = await follower_of(store)
        await writer.commit()
        assert await verdict(follower) is WHOLE
        await store.delete(DIGEST)
        assert await verdict(follower) is WHOLE
        assert await follower.read(0, len(DATA)) == DATA
        follower.close()

    async def test_nothing_is_read_that_was_not_told(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(DATA[:10])
        follower = await follower_of(store)
        assert (await follower.wait(0)).offset == 10
        await writer.write(DATA[10:20])
        assert await follower.read(0, 100) == DATA[:10]
        assert (await follower.wait(10)).offset == 20
        assert await follower.read(5, 100) == DATA[5:20]
        assert await follower.read(20, 100) == b""
        follower.close()
        await writer.close()

    async def test_follower_waits_for_the_next_writer(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store)
        await writer.write(DATA[:HALF])
        await writer.close()
        follower = await follower_of(neighbour)
        following = asyncio.create_task(followed(follower, DATA))
        await asyncio.sleep(0.05)
        assert not following.done()
        for end in (HALF + 1000, HALF + 2000, len(DATA)):
            again = await opened(store, total=len(DATA))
            await again.write(DATA[again.status.offset : end])
            await again.close()
        again = await opened(store, total=len(DATA))
        await again.commit()
        assert await following == (len(DATA), WHOLE)
        follower.close()

    # What is lost

    async def test_restart_loses_the_followers(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(DATA[:HALF])
        old = [await follower_of(where) for where in (store, neighbour)]
        await writer.restart()
        new = [await follower_of(where) for where in (store, neighbour)]
        # As long as before and of the same bytes: still not what they have read from.
        await writer.write(DATA[:HALF])
        for follower in old:
            assert await verdict(follower, HALF) is LOST
        for follower in new:
            assert await follower.wait(0) == Progress(HALF, GROWING)
        await writer.write(DATA[HALF:])
        await writer.commit()
        for follower in new:
            assert await followed(follower, DATA) == (len(DATA), WHOLE)
        for follower in old:
            assert await verdict(follower) is LOST
        for follower in old + new:
            follower.close()

    async def test_restart_keeps_other_writers_out(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store, total=len(DATA))
        waiter = asyncio.create_task(neighbour.open_writer(DIGEST, len(DATA)))
        for _ in range(60):
            await writer.write(b"wrong")
            await writer.restart()
            assert writer.status.offset == 0
            assert not await neighbour.abort(DIGEST)
        assert not waiter.done()
        await writer.write(DATA)
        await writer.commit()
        assert await asyncio.wait_for(waiter, 5) is None
        assert await neighbour.ingests() == []

    async def test_wrong_digest_loses_the_followers(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store, total=len(DATA))
        await writer.write(DATA[:-1])
        followers = [await follower_of(where) for where in (store, neighbour)]
        await writer.write(b"!")
        with pytest.raises(DigestMismatch):
            await writer.commit()
        await store.put(DIGEST, DATA)
        for follower in followers:
            assert await verdict(follower) is LOST
            follower.close()

    async def test_abort_loses_the_followers(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store)
        await writer.write(DATA[:HALF])
        await writer.close()
        followers = [await follower_of(where) for where in (store, neighbour)]
        assert await store.abort(DIGEST)
        assert await store.follow(DIGEST) is None
        for follower in followers:
            assert await verdict(follower) is LOST
            follower.close()

    async def test_too_large_an_ingest_loses_the_followers(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        writer = await opened(store)
        await writer.write(b"\0" * HALF)
        # This one has seen half of it, and does not look again until all is over.
        follower = await follower_of(neighbour)
        await writer.write(DATA)
        await writer.close()
        again = await opened(store, total=len(DATA))
        await again.write(DATA)
        await again.commit()
        assert await verdict(follower, HALF) is LOST
        follower.close()

    async def test_put_over_other_bytes_loses_the_followers(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(b"half of something else")
        await writer.close()
        follower = await follower_of(store)
        await store.put(DIGEST, DATA)
        assert await verdict(follower) is LOST
        follower.close()

    async def test_follower_of_nothing_yet_may_begin_anew(self, store: ContentStore) -> None:
        writer = await opened(store)
        follower = await follower_of(store)
        await writer.close()
        assert await verdict(follower) is LOST
        follower.close()
        assert await store.follow(DIGEST) is None

    @settings(max_examples=60, deadline=None)
    @given(
        story=st.lists(
            st.tuples(
                st.sampled_from(["write", "spoil", "restart", "reopen", "abort", "join", "read"]),
                st.integers(1, 900),
            ),
            max_size=30,
        )
    )
    def test_followers_know_whether_their_bytes_are_the_content(
        self, story: list[tuple[str, int]]
    ) -> None:
        asyncio.run(self._play(story))

    async def _play(self, story: list[tuple[str, int]]) -> None:
        """Whatever happens to an ingest: WHOLE for those who saw nothing else, LOST for others."""
        data = DATA[1000:3500]
        digest = Digest.of(data)
        with tempfile.TemporaryDirectory() as place:
            store = await self.open_store(Path(place))
            writer = await opened(store, digest)
            watches: list[Watch] = []
            sound = True
            for step, number in story:
                offset = writer.status.offset
                if step == "write":
                    await writer.write(data[offset : offset + number])
                elif step == "spoil":
                    await writer.write(b"\0" * number)
                    sound = False
                elif step == "join":
                    watches.append(Watch(await follower_of(store, digest)))
                elif step == "read":
                    for watch in watches:
                        await watch.read(number)
                else:
                    writer, dropped = await self._change(store, writer, step)
                    sound = sound or dropped
                    for watch in watches:
                        watch.outdated |= dropped and offset > 0
                        watch.excused |= dropped and offset == 0
            await self._finish(writer, data, sound)
            for watch in watches:
                await self._judge(watch, data, sound)
            await self.close_store(store)

    async def _change(self, store: ContentStore, writer: Writer, step: str) -> tuple[Writer, bool]:
        """Restart, reopen or abort; the writer from then on, and whether the bytes are gone."""
        if step == "restart":
            await writer.restart()
            return writer, True
        empty = writer.status.offset == 0
        await writer.close()
        if step == "abort":
            assert await store.abort(writer.status.digest) == (not empty)
        return await opened(store, writer.status.digest), step == "abort" or empty

    async def _finish(self, writer: Writer, data: bytes, sound: bool) -> None:
        await writer.write(data[writer.status.offset :])
        if sound:
            await writer.commit()
            return
        with pytest.raises(DigestMismatch):
            await writer.commit()

    async def _judge(self, watch: Watch, data: bytes, sound: bool) -> None:
        state = await verdict(watch.follower, 1 << 40)
        if not watch.excused or not sound:
            assert state is (WHOLE if sound and not watch.outdated else LOST)
        if state is WHOLE:
            await watch.read(len(data))
            assert bytes(watch.got) == data
        watch.follower.close()

    # Many, and those who leave

    async def test_two_hundred_followers(
        self, store: ContentStore, neighbour: ContentStore
    ) -> None:
        data = DATA * 32
        digest = Digest.of(data)
        writer = await opened(store, digest, len(data))
        followers = [
            await follower_of(where, digest) for where in (store, neighbour) for _ in range(100)
        ]
        tasks = [asyncio.create_task(followed(each, data)) for each in followers]
        for start in range(0, len(data), 1 << 19):
            await writer.write(data[start : start + (1 << 19)])
            await asyncio.sleep(0.005)
        await writer.commit()
        assert await asyncio.gather(*tasks) == [(len(data), WHOLE)] * 200
        for follower in followers:
            follower.close()

    async def test_each_is_woken_by_what_it_waits_for(self, store: ContentStore) -> None:
        writer = await opened(store)
        followers = [await follower_of(store) for _ in range(3)]
        near, far, end = [
            asyncio.create_task(follower.wait(beyond))
            for follower, beyond in zip(followers, (10, 1000, len(DATA)), strict=True)
        ]
        await writer.write(DATA[:11])
        assert (await asyncio.wait_for(near, 5)).offset == 11
        await writer.write(DATA[11:1000])
        await asyncio.sleep(0.05)
        assert not far.done()
        await writer.write(DATA[1000:])
        assert (await asyncio.wait_for(far, 5)).offset == len(DATA)
        assert not end.done()
        await writer.commit()
        assert (await asyncio.wait_for(end, 5)).state is WHOLE
        for follower in followers:
            follower.close()

    async def test_timeout_tells_what_is_known(self, store: ContentStore) -> None:
        writer = await opened(store)
        follower = await follower_of(store)
        for timeout in (0, -1, 0.03):
            assert await follower.wait(0, timeout) == Progress(0, GROWING)
        await writer.write(DATA[:10])
        assert await follower.wait(10, timeout=0) == Progress(10, GROWING)
        await writer.write(DATA[10:])
        await writer.commit()
        assert await follower.wait(len(DATA), timeout=0) == Progress(len(DATA), WHOLE)
        follower.close()

    async def test_news_that_one_finds_out_reaches_all(self, store: ContentStore) -> None:
        """One that has just come, or that did not wait, may see it first."""
        writer = await opened(store)
        await writer.write(DATA)
        followers = [await follower_of(store) for _ in range(2)]
        waiting = asyncio.create_task(followers[0].wait(len(DATA)))
        await asyncio.sleep(0.02)
        await writer.commit()
        for _ in range(3):
            assert (await followers[1].wait(len(DATA), timeout=0)).state is WHOLE
        assert (await asyncio.wait_for(waiting, 5)).state is WHOLE
        for follower in followers:
            follower.close()

    async def test_one_that_leaves_disturbs_nobody(self, store: ContentStore) -> None:
        writer = await opened(store)
        followers = [await follower_of(store) for _ in range(6)]
        tasks = [asyncio.create_task(followed(follower, DATA)) for follower in followers]
        await writer.write(DATA[:HALF])
        await asyncio.sleep(0.03)
        for task, follower in list(zip(tasks, followers, strict=True))[::2]:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            follower.close()
        await writer.write(DATA[HALF:])
        await writer.commit()
        assert await asyncio.gather(*tasks[1::2]) == [(len(DATA), WHOLE)] * 3
        for follower in followers:
            follower.close()

    async def test_closed_follower_follows_no_more(self, store: ContentStore) -> None:
        writer = await opened(store)
        await writer.write(DATA)
        follower = await follower_of(store)
        waiting = asyncio.create_task(follower.wait(len(DATA)))
        await asyncio.sleep(0.02)
        follower.close()
        follower.close()
        assert (await asyncio.wait_for(waiting, 5)).state is GROWING
        for attempt in (follower.wait(0), follower.read(0, 1)):
            with pytest.raises(ValueError, match=DIGEST.hex):
                await attempt
        await writer.close()

    async def test_nothing_stays_open(self, store: ContentStore, neighbour: ContentStore) -> None:
        await store.put(OTHER, b"something else")
        before = await open_descriptors()
        for round_ in range(3):
            writer = await opened(store, total=len(DATA))
            await writer.write(DATA[:HALF])
            followers = [await follower_of(where) for where in (store, neighbour) * 5]
            readers = [await reader_of(where, OTHER) for where in (store, neighbour) * 5]
            await writer.restart()
            followers += [await follower_of(where) for where in (store, neighbour) * 5]
            assert await open_descriptors() > before
            if round_ == 1:
                await writer.write(DATA)
                await writer.commit()
                await store.delete(DIGEST)
            for opened_here in [*followers, *readers]:
                opened_here.close()
            await writer.close()
            assert await open_descriptors() == before

    async def test_cancelled_opening_leaves_nothing_open(self, store: ContentStore) -> None:
        await store.put(OTHER, b"something else")
        writer = await opened(store)
        await writer.write(DATA)
        before = await open_descriptors()
        for spins in range(30):
            for opening in (store.open_reader(OTHER), store.follow(DIGEST)):
                task = asyncio.create_task(opening)
                for _ in range(spins % 6):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    got = await task
                except asyncio.CancelledError:
                    continue
                assert got is not None
                got.close()
        assert await open_descriptors() == before
        await writer.close()
