"""Images that clients have completed: found whole after a blob came, they count as warm."""

from __future__ import annotations

import asyncio

from prefetch.clock import Clock
from prefetch.errors import PrefetchError
from prefetch.oci.platform import ALL
from prefetch.oci.reference import Digest, Repository
from prefetch.server.accesslog import ServerLog
from prefetch.server.library import Library
from prefetch.state.records import BlobRecord, LinkRecord, ReferenceRecord
from prefetch.sync.closure import closure_of
from prefetch.sync.documents import platform_of_image, record_of
from prefetch.sync.wanted import platforms_from_text

# Blobs of one image end together: one look does for all of them.
_DELAY_SECONDS = 0.3
# After a database that could not be written to.
_AGAIN_SECONDS = 5.0


class Settling:
    """Writes down what has come, and looks at its repository's references, a moment later."""

    def __init__(self, library: Library, clock: Clock, log: ServerLog) -> None:
        self._library = library
        self._clock = clock
        self._log = log
        self._came: dict[tuple[Repository, str], BlobRecord] = {}
        self._shown: set[tuple[Repository, str]] = set()
        self._due: set[Repository] = set()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Look soon at all that is not whole, for a killed process that could not any more.

        Raises StateError.
        """
        records = await self._library.state.references.list()
        cold = [record for record in records if record.digest and not record.warm]
        self._expect({Repository(record.registry, record.repository) for record in cold})

    def settle(self, repository: Repository, record: BlobRecord, *, shown: bool) -> None:
        """Content has come: look soon at what of the repository is whole now.

        `shown`: it has come from the repository itself, and not for another one that has it, too.
        """
        self._came[repository, record.digest] = record
        if shown:
            self._shown.add((repository, record.digest))
        self._expect({repository})

    async def close(self) -> None:
        """Do at once what was to be done soon."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._settle()

    def _expect(self, repositories: set[Repository]) -> None:
        self._due |= repositories
        if self._due and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._settle_later())

    async def _settle_later(self) -> None:
        delay = _DELAY_SECONDS
        while self._due:
            await self._clock.sleep(delay)
            delay = _DELAY_SECONDS if await self._settle() else _AGAIN_SECONDS

    async def _settle(self) -> bool:
        """Whether all that was due is done; what is not stays due."""
        for repository in list(self._due):
            self._due.discard(repository)
            done = False
            try:
                await self._write_down()
                await self._look(repository)
                done = True
            except PrefetchError as error:
                self._log.warning("cannot settle", repository=str(repository), reason=str(error))
                return False
            finally:
                if not done:
                    self._due.add(repository)
        return True

    async def _write_down(self) -> None:
        """Have the database know what has come, and from where."""
        came, shown = dict(self._came), set(self._shown)
        await self._library.state.blobs.save_many(came.values())
        await self._library.state.links.add_many(
            LinkRecord(repository.registry, repository.path, digest) for repository, digest in shown
        )
        self._shown -= shown
        for key in came:
            self._came.pop(key, None)

    async def _look(self, repository: Repository) -> None:
        """Find out which of the references are whole."""
        references = self._library.state.references
        records = await references.of_repository(repository.registry, repository.path)
        cold = [record for record in records if record.digest and not record.warm]
        whole = [record for record in cold if await self._is_whole(record)]
        now = self._clock.now()
        await references.complete({r.name: r.digest for r in whole if r.digest}, now)
        await self._library.refresh()

    async def _is_whole(self, record: ReferenceRecord) -> bool:
        """Whether the image is complete for all the platforms that its record names."""
        root = record.digest or ""
        await self._identify(Digest.parse(root))
        records = await self._library.state.manifests.trees([root])
        if root not in records:
            return False
        wanted = platforms_from_text(record.platforms)
        closure = closure_of(root, records, wanted)
        has_none = wanted is not ALL and len(closure.missing) == len(wanted)
        if closure.unknown or has_none:
            return False
        digests = {Digest.parse(digest) for digest in closure.digests}
        return await self._library.store.present(digests) == digests

    async def _identify(self, root: Digest) -> None:
        """Keep what a lone manifest's config says of its platform, once the config is here."""
        held = await self._library.document(root)
        if held is None:
            return
        try:
            platform = await platform_of_image(self._library.store, held.document)
        except PrefetchError:
            return  # the config is not here yet
        if platform is not None:
            record = record_of(held.document, platform=platform)
            await self._library.state.manifests.save_many([record])
