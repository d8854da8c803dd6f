"""Who may see a repository: public content is for everybody, private for whom `access` names.

What took credentials to fetch, and an anonymous HEAD cannot see, is private, and does not exist
for anybody else. Until that is known, a repository for which there are credentials counts as
private.

Nobody can tell what is private from what does not exist: for both, the registry is asked, with the
same answers when it cannot be. That also shows when something has become public.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from prefetch.clock import Clock
from prefetch.errors import NotFound, PrefetchError
from prefetch.oci.distribution import EndpointKind
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.registry import RegistryClient
from prefetch.remote.upstreams import Upstreams
from prefetch.server.access import AccessRules
from prefetch.server.gate import NOBODY, Caller, Gate
from prefetch.server.library import Library
from prefetch.server.refusals import Refusal, unknown
from prefetch.server.shared import Shared
from prefetch.state.meters import ANONYMOUS

# What everybody may see is asked for anew when it was last seen so long ago, behind the answer.
_GOOD_FOR = timedelta(days=1)
_LOOK_AGAIN_SECONDS = 3600.0
_MOST_REMEMBERED = 10_000


class Permits:
    """Decides for each request. Raises StateError."""

    def __init__(
        self,
        *,
        library: Library,
        gate: Gate,
        upstreams: Upstreams,
        rules: AccessRules,
        shared: Shared,
        clock: Clock,
    ) -> None:
        self._library = library
        self._gate = gate
        self._upstreams = upstreams
        self._rules = rules
        self._shared = shared
        self._clock = clock
        self._next_look: dict[Repository, float] = {}

    async def check(
        self, repository: Repository, target: str, kind: EndpointKind, caller: Caller
    ) -> None:
        """Raise Refusal (404) unless the caller may see `repository`.

        `target` is the tag or digest that is asked for. Raises other Refusals where the registry
        would have to be asked about it, and cannot be.
        """
        if await self.may_see(repository, caller.user):
            if not caller.only_cached and await self._is_old(repository):
                await self._look_again(repository, target, kind)
            return
        key = _key(target)
        await self._gate.check(repository, caller, kind, key)
        public = await self._gate.miss(
            self._shared,
            caller,
            (repository, kind, key),
            lambda: self._ask(repository, kind, target),
        )
        if not public:
            refusal = unknown(kind)
            self._gate.remember(repository, kind, key, refusal)
            raise refusal

    async def may_see(self, repository: Repository, user: str) -> bool:
        """Whether the user may, as far as is known."""
        visibility = await self._library.visibility(repository)
        if visibility == "public":
            return True
        if visibility == "unknown" and not await self.has_login(repository):
            return True
        return self._rules.may_see(user, repository.registry, repository.path)

    async def has_login(self, repository: Repository) -> bool:
        """Whether the repository is asked for with credentials; those that fail count, too."""
        if not self._gate.serves(repository.registry):
            # Never asked, so that no helper is run for names that clients make up.
            return bool(await self._library.references(repository))
        try:
            client = await self._upstreams.client_for(repository)
        except PrefetchError:
            return True
        return client.identity != ANONYMOUS

    async def hides(self, repository: Repository) -> bool:
        """Whether something in its registry may be there for some only.

        The same for all repositories that are spoken to alike, whether they are here or not.
        """
        registry = repository.registry
        served = self._gate.serves(registry)
        if served and await self.has_login(repository):
            return True

        async def load() -> bool:
            known = await self._library.visibilities()
            if any(key[0] == registry and found[0] == "private" for key, found in known.items()):
                return True
            here = [] if served else await self._library.repositories()
            return any((r.registry, r.path) not in known for r in here if r.registry == registry)

        return await self._library.remember(("hides", registry), load)

    async def _is_old(self, repository: Repository) -> bool:
        """Whether what everybody may see was last seen long ago."""
        known = (await self._library.visibilities()).get((repository.registry, repository.path))
        if known is None or known[0] != "public" or self._clock.now() - known[1] < _GOOD_FOR:
            return False
        return self._clock.monotonic() >= self._next_look.get(repository, 0.0)

    async def _look_again(self, repository: Repository, target: str, kind: EndpointKind) -> None:
        """Find out, after the answer, whether everybody may still see the repository."""
        if len(self._next_look) >= _MOST_REMEMBERED:
            self._next_look.clear()
        self._next_look[repository] = self._clock.monotonic() + _LOOK_AGAIN_SECONDS
        key = _key(target)
        with suppress(Refusal):
            if await self.has_login(repository):
                await self._gate.check(repository, NOBODY, kind, key)
                self._shared.start(
                    (repository, kind, key), lambda: self._ask(repository, kind, target)
                )

    async def _ask(self, repository: Repository, kind: EndpointKind, target: str) -> bool:
        """Learn by anonymous HEAD who may see the repository; True: everybody. Raises Refusal."""
        try:
            client = await self._upstreams.client_for(repository)
            digest = await self._example(client, repository, kind, target)
            self._gate.answered(repository)
            if digest is None:
                return False
            seen = await client.visible_anonymously(repository, digest)
            if seen is not None:
                await self._library.state.links.set_visibility(
                    repository.registry,
                    repository.path,
                    "public" if seen else "private",
                    self._clock.now(),
                )
                await self._library.refresh()
        except PrefetchError as error:
            raise self._gate.failed(repository, kind, error, _key(target)) from error
        return bool(seen)

    async def _example(
        self, client: RegistryClient, repository: Repository, kind: EndpointKind, target: str
    ) -> Digest | None:
        """A manifest that the repository has, with our credentials; None where none is known.

        Raises NotFound where there is no such `target`: that nobody can see what does not exist
        says nothing.
        """
        if kind is not EndpointKind.BLOB:
            return (await client.resolve(repository, target)).digest
        if await client.blob_size(repository, Digest.parse(target)) is None:
            raise NotFound(f"{repository}@{target}: no such blob")
        known = (await self._library.references(repository)).values()
        digests = [record.digest for record in known if record.digest is not None]
        if not digests:
            return None
        try:
            return (await client.resolve(repository, digests[-1])).digest
        except NotFound:
            return None


def _key(target: str) -> str:
    """What refusals are remembered by that do not hold for whoever may see the repository."""
    return f"{target} for everybody"
