"""Ingests that are read while they grow: what becomes of them, told to many at once.

A follower has the file open, and so knows it by its inode, which no other file gets meanwhile.
Writers only append to an ingest (prefetch.store.ingest). Verified, the file is renamed to be the
content; else it loses its name, to nothing or to another file. So the two names tell all.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from prefetch.errors import StoreError
from prefetch.oci.reference import Digest
from prefetch.store.content import FollowState, Progress
from prefetch.store.disk import disk_errors
from prefetch.store.read import OpenFile

_LOOK_SECONDS = 0.01


class Growth:
    """The file of one ingest, open, and what is known of it. Belongs to one event loop.

    Any number of followers share it: one descriptor, and one task that looks for all of them
    while anybody waits.
    """

    def __init__(
        self, file: OpenFile, status: os.stat_result, *, ingest: Path, content: Path
    ) -> None:
        self.file = file
        self.progress = Progress(0, FollowState.GROWING)
        self.followers = 0
        self._status = status
        self._ingest = ingest
        self._content = content
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def growing(self) -> bool:
        """Whether it may still grow, for all that is known."""
        return self.progress.state is FollowState.GROWING

    def same(self, other: Growth) -> bool:
        """Whether both are of one file, not only of one name."""
        return os.path.samestat(self._status, other._status)

    def look(self) -> None:
        """Bring `progress` up to date and wake who waited for it; StoreError when the disk fails.

        Two stat(2) of local files, a microsecond each: dearer to hand to a thread than to do.
        """
        if self.growing:
            before, self.progress = self.progress, self._judge(self.progress.offset)
            if self.progress != before:
                self._wake_satisfied()

    async def wait(self, beyond: int) -> None:
        """Until `progress` has passed `beyond`; raises StoreError when the disk fails."""
        if self._has_passed(beyond):
            return
        if self._looking is None or self._looking.done():
            self.look()
            if self._has_passed(beyond):
                return
            self._looking = asyncio.create_task(self._keep_looking())
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[news] = beyond
        try:
            await news
        finally:
            del self._waiting[news]

    def close(self) -> None:
        """Close the file; whoever still waits is told what was known last."""
        if self._looking is not None:
            self._looking.cancel()
        self._wake(None)
        self.file.close()

    def _has_passed(self, beyond: int) -> bool:
        return self.progress.offset > beyond or not self.growing

    async def _keep_looking(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_LOOK_SECONDS)
                self.look()
        except StoreError as error:
            self._wake(error)

    def _wake_satisfied(self) -> None:
        for news, beyond in self._waiting.items():
            if self._has_passed(beyond) and not news.done():
                news.set_result(None)

    def _wake(self, error: StoreError | None) -> None:
        for news in self._waiting:
            if news.done():
                continue
            if error:
                news.set_exception(error)
            else:
                news.set_result(None)

    def _judge(self, seen: int) -> Progress:
        # In this order: a file that leaves the first name for the second between the two looks
        # is found under the second.
        ingest, content = _status(self._ingest), _status(self._content)
        if content is not None and os.path.samestat(content, self._status):
            found = Progress(content.st_size, FollowState.WHOLE)
        elif content is None and ingest is not None and os.path.samestat(ingest, self._status):
            found = Progress(ingest.st_size, FollowState.GROWING)
        else:
            found = Progress(seen, FollowState.LOST)
        # A file that has shrunk took with it what somebody may have read.
        return found if found.offset >= seen else Progress(seen, FollowState.LOST)


class Growths:
    """The ingests that are followed in this process, by digest."""

    def __init__(self) -> None:
        self._growths: dict[Digest, Growth] = {}

    def join(self, digest: Digest, found: Growth) -> Growth:
        """One follower more: of what is known of the file already, else of `found`.

        A follower of an older file keeps to that one, to learn that it is lost.
        """
        known = self._growths.get(digest)
        if known is not None and known.same(found) and known.growing:
            found.close()
            found = known
        self._growths[digest] = found
        found.followers += 1
        return found

    def leave(self, digest: Digest, growth: Growth) -> None:
        """One follower less; the last one closes the file."""
        growth.followers -= 1
        if not growth.followers:
            growth.close()
            if self._growths.get(digest) is growth:
                del self._growths[digest]


def _status(path: Path) -> os.stat_result | None:
    with disk_errors("examine", path):
        try:
            return path.stat()
        except FileNotFoundError:
            return None
