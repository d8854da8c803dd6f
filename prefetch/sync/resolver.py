"""Tags to digests, by HEAD, which registries do not count; many at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from prefetch.clock import Clock
from prefetch.errors import BudgetExhausted, NotFound, PrefetchError
from prefetch.events import Emit, ReferenceResolved
from prefetch.oci.reference import Repository
from prefetch.remote.registry import RegistryClient
from prefetch.remote.upstreams import Upstreams
from prefetch.sync.immutable import moved_though_immutable
from prefetch.sync.wanted import Action, PlannedImage

# More tasks than a registry's request slots, so that none of the slots ever lies idle.
_TASKS_PER_REGISTRY = 16


class Resolver:
    """Asks each registry what the images' tags are today."""

    def __init__(self, upstreams: Upstreams, clock: Clock, emit: Emit) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._emit = emit

    async def resolve(self, images: Iterable[PlannedImage]) -> None:
        """Fill in `digest`, `media_type` and `size`; what fails is marked, nothing is raised.

        Where a repository refuses one of several logins, the next is tried, as kubelets do.
        """
        todo = list(images)
        while todo:
            async with asyncio.TaskGroup() as group:
                for client, some in (await self.by_client(todo)).items():
                    group.create_task(self._resolve_all(client, some))
            refused = [image for image in todo if image.problem and image.problem.is_refusal]
            repositories = {image.wanted.reference.repository for image in refused}
            again = {each for each in repositories if self._upstreams.try_next_login(each)}
            todo = [image for image in refused if image.wanted.reference.repository in again]
            for image in todo:
                image.problem, image.action = None, Action.SYNC

    async def client_for(self, repository: Repository) -> RegistryClient:
        """The client that serves a repository. Raises CredentialError and ConfigError."""
        return await self._upstreams.client_for(repository)

    async def by_client(
        self, images: Iterable[PlannedImage]
    ) -> dict[RegistryClient, list[PlannedImage]]:
        """The images by the client that serves them; those without one are marked as failed."""
        found: dict[RegistryClient, list[PlannedImage]] = defaultdict(list)
        for image in images:
            try:
                client = await self._upstreams.client_for(image.wanted.reference.repository)
            except PrefetchError as error:
                self._fail(image, error)
            else:
                found[client].append(image)
        return found

    async def _resolve_all(self, client: RegistryClient, images: Sequence[PlannedImage]) -> None:
        try:
            await client.prepare({image.wanted.reference.repository for image in images})
        except PrefetchError as error:
            for image in images:
                self._fail(image, error)
            return
        queue = deque(images)

        async def worker() -> None:
            while queue:
                await self._resolve(client, queue.popleft())

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(images), _TASKS_PER_REGISTRY)):
                group.create_task(worker())

    async def _resolve(self, client: RegistryClient, image: PlannedImage) -> None:
        reference = image.wanted.reference
        try:
            answer = await client.resolve(reference.repository, reference.target)
        except BudgetExhausted:
            # The registry counts even this: it is asked again when the budget is back.
            self._emit(ReferenceResolved(image.wanted.name, None))
        except NotFound as error:
            self._fail(image, error, Action.MISSING)
        except PrefetchError as error:
            self._fail(image, error)
        else:
            # A registry that names no digest in a HEAD leaves it to the (counted) GET.
            digest = reference.digest or answer.digest
            image.digest = str(digest) if digest else None
            image.media_type = answer.media_type or None
            image.size = answer.size
            image.checked_at = self._clock.monotonic()
            self._emit(ReferenceResolved(image.wanted.name, image.digest))
            self._hold_to_immutable(image)

    def _hold_to_immutable(self, image: PlannedImage) -> None:
        """A tag that was said never to move, and has: what is complete here stays what it is."""
        settings = self._upstreams.settings(image.wanted.registry)
        moved = moved_though_immutable(image.record, image.digest, settings)
        if moved is None:
            return
        self._emit(moved)
        if image.record is not None and moved.kept:
            image.digest, image.media_type, image.size = (
                moved.recorded,
                image.record.media_type,
                None,
            )

    def _fail(
        self, image: PlannedImage, error: PrefetchError, action: Action = Action.ERROR
    ) -> None:
        image.fail(error, action)
        self._emit(ReferenceResolved(image.wanted.name, None))
