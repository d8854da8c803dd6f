"""Manifests and indexes for clients: from the cache, an alternate, or by a counted pull; whole.

An index goes out only when one of the wanted platforms is whole, or can be made so: podman and
CRI-O cannot turn to another registry once they have it. A manifest goes out only when its blobs
are here or can be fetched. A cold index holds the pull of a child, too, which whoever asks for
the child then spends, whichever worker it asks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from prefetch.clock import Clock
from prefetch.errors import BudgetExhausted, PrefetchError
from prefetch.oci.distribution import EndpointKind
from prefetch.oci.model import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Document,
    Index,
    is_attestation,
)
from prefetch.oci.platform import ALL, PlatformSet, select
from prefetch.oci.reference import Digest, Reference, Repository
from prefetch.remote.registry import RegistryClient, Resolved
from prefetch.remote.upstreams import Upstreams
from prefetch.server.belonging import Belonging
from prefetch.server.gate import MISS_WAIT, NOBODY, Caller, Gate
from prefetch.server.library import Held, Library
from prefetch.server.refusals import not_cached
from prefetch.server.secondhand import Secondhand
from prefetch.server.shared import Shared
from prefetch.state.ledger import Hold, Ledger, Refused
from prefetch.state.records import BlobRecord, LinkRecord
from prefetch.sync.documents import Documents, record_of
from prefetch.sync.visibility import Visibilities
from prefetch.tasks import end_all

_KIND = EndpointKind.MANIFEST
_DOCUMENTS = INDEX_TYPES | MANIFEST_TYPES
# How long a child's pull is held for the client that has been given an index.
_CHILD_HOLD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """A document to answer with, and whether it was here before."""

    held: Held
    hit: bool


class ManifestService:
    """Gives documents by digest. Raises Refusal, StateError and StoreError."""

    def __init__(
        self,
        *,
        library: Library,
        gate: Gate,
        upstreams: Upstreams,
        belonging: Belonging,
        ledger: Ledger,
        documents: Documents,
        visibilities: Visibilities,
        secondhand: Secondhand,
        shared: Shared,
        clock: Clock,
    ) -> None:
        self._library = library
        self._gate = gate
        self._upstreams = upstreams
        self._belonging = belonging
        self._ledger = ledger
        self._documents = documents
        self._visibilities = visibilities
        self._secondhand = secondhand
        self._shared = shared
        self._clock = clock
        self._holds: set[asyncio.Task[None]] = set()

    async def find(
        self, repository: Repository, digest: Digest, wanted: PlatformSet, caller: Caller
    ) -> Found:
        """The document `digest` of a repository, servable as a whole."""
        held = await self._library.document(digest)
        if held is not None and await self._belonging.holds(repository, digest, caller.user):
            await self._check_servable(repository, held.document, wanted, caller)
            return Found(held, hit=True)
        await self._gate.check(repository, caller, _KIND, str(digest))
        held = await self._gate.miss(
            self._shared,
            caller,
            (repository, digest),
            lambda: self._fetch(repository, digest, wanted),
        )
        return Found(held, hit=False)

    async def head(self, repository: Repository, digest: Digest, caller: Caller) -> Resolved:
        """What a document that is not here is, by HEAD: it is not pulled for a client's HEAD.

        Refused when the GET that follows would be.
        """
        await self._gate.check(repository, caller, _KIND, str(digest))
        return await self._gate.miss(
            self._shared,
            caller,
            ("head", repository, digest),
            lambda: self._look(repository, digest),
        )

    async def _look(self, repository: Repository, digest: Digest) -> Resolved:
        try:
            client = await self._upstreams.client_for(repository)
            resolved = await client.resolve(repository, str(digest))
            self._gate.answered(repository)
            if not await self._secondhand.offered(client, repository, [digest]):
                pulls = 2 if resolved.media_type in INDEX_TYPES else 1
                hold = await self._hold(client, repository, str(digest), pulls)
                await self._ledger.release(hold)
        except PrefetchError as error:
            raise self._gate.failed(repository, _KIND, error, str(digest)) from error
        return resolved

    async def pull_tag(self, reference: Reference) -> Resolved:
        """What a tag is, by a counted pull: for registries whose HEADs do not tell.

        Raises PrefetchError.
        """
        repository, tag = reference.repository, reference.target
        client = await self._upstreams.client_for(repository)
        hold = await self._hold(client, repository, tag, 2)
        try:
            document = await client.manifest(repository, tag, hold=hold)
            await self._library.store.put(document.digest, document.raw)
        finally:
            await self._ledger.release(hold)
        await self._keep(repository, document, repository.registry)
        return Resolved(document.digest, document.media_type, len(document.raw))

    async def close(self) -> None:
        """Give up the holds for children that nobody has asked for."""
        await end_all(self._holds)

    async def _check_servable(
        self, repository: Repository, document: Document, wanted: PlatformSet, caller: Caller
    ) -> None:
        """Raise Refusal unless all that a client will ask for next is here, or can be had."""
        if await self._library.whole(document.digest, wanted):
            return
        if caller.only_cached:
            raise not_cached()
        await self._gate.check(repository, caller, _KIND, str(document.digest))
        if not isinstance(document, Index):
            return
        children = _children(document, wanted)
        # Where one is here, only blobs lack, which are free.
        if children and not await self._library.store.present(children):
            await self._shared.run(
                ("hold", repository, document.digest),
                lambda: self._hold_for_child(repository, document.digest, children),
                timeout=MISS_WAIT,
            )

    async def _hold_for_child(
        self, repository: Repository, index: Digest, children: list[Digest]
    ) -> None:
        """See to it that a pull is set aside for a child, unless an alternate has one.

        Raises Refusal.
        """
        try:
            client = await self._upstreams.client_for(repository)
            if await self._secondhand.offered(client, repository, children):
                return
            label = _label(repository, str(index))
            if await self._ledger.hold_named(client.meter, label, client.policy) is None:
                self._keep_for_child(await self._hold(client, repository, str(index), 1))
        except PrefetchError as error:
            raise self._gate.failed(repository, _KIND, error, str(index)) from error

    async def _fetch(self, repository: Repository, digest: Digest, wanted: PlatformSet) -> Held:
        """Confirm that the repository has it, pull it if it is not here, and keep what it is."""
        try:
            client = await self._upstreams.client_for(repository)
            held = await self._library.document(digest)
            document = held.document if held is not None else None
            media_type = await self._named_as(digest)
            shown = await self._library.linked(repository, digest)
            if document is None and media_type not in _DOCUMENTS:
                # Free, and it tells what is left. A pull would be spent in vain on a layer that is
                # asked for as if it were a manifest.
                media_type = (await client.resolve(repository, str(digest))).media_type
                self._gate.answered(repository)
                shown = True
            source: str | None = None
            if document is None:
                wish = Descriptor(media_type or "", digest, -1)
                document, source = await self._obtain(client, repository, wish)
            if not shown and source != repository.registry:
                # It was here already, came from an alternate, or for another repository.
                await client.resolve(repository, str(digest))
            self._gate.answered(repository)
            await self._keep(repository, document, source)
            await self._visibilities.learn(client, repository, digest)
        except PrefetchError as error:
            raise self._gate.failed(repository, _KIND, error, str(digest)) from error
        await self._check_servable(repository, document, wanted, NOBODY)
        return Held(document, document.media_type)

    async def _obtain(
        self, client: RegistryClient, repository: Repository, wish: Descriptor
    ) -> tuple[Document, str | None]:
        """A document that is not here, and the registry that it has come from.

        None: from nowhere, since it had come for somebody else.
        """
        given = await self._secondhand.document(client, repository, wish)
        if given is not None:
            return given
        document, pulled = await self._pull(client, repository, wish)
        return document, repository.registry if pulled else None

    async def _pull(
        self, client: RegistryClient, repository: Repository, wish: Descriptor
    ) -> tuple[Document, bool]:
        """One counted pull, out of what an index has set aside for it, or held now.

        Also says whether it was sent, or somebody else's for another repository has served.
        """
        digest = wish.digest
        hold = await self._hold_of_parent(client, repository, digest)
        own = hold is None
        if hold is None:
            pulls = 2 if wish.media_type in INDEX_TYPES else 1
            hold = await self._hold(client, repository, str(digest), pulls)
        pulls_sent: list[Digest] = []
        try:
            document = await self._documents.fetch(
                client,
                repository,
                wish,
                hold=hold,
                on_pull=lambda: pulls_sent.append(digest),
            )
        except BaseException:
            if own:
                await self._ledger.release(hold)
            raise
        if own and isinstance(document, Index):
            self._keep_for_child(hold)
        elif own:
            await self._ledger.release(hold)
        return document, bool(pulls_sent)

    async def _named_as(self, digest: Digest) -> str | None:
        """The media type of the digest, as a document that names it has told."""
        for parent in await self._library.parents(digest):
            record = await self._library.record(Digest.parse(parent))
            for child in record.children if record is not None else ():
                if child.digest == str(digest):
                    return child.media_type
        return None

    async def _hold(
        self, client: RegistryClient, repository: Repository, target: str, pulls: int
    ) -> Hold:
        """Set pulls aside for a tag or digest. Raises BudgetExhausted."""
        exempt = await self._ledger.exempt(client.meter, repository.path)
        looked = False
        while True:
            answer = await self._ledger.hold(
                client.meter,
                pulls,
                client.policy,
                label=_label(repository, target),
                exempt=exempt,
            )
            if isinstance(answer, Hold):
                return answer
            if answer.stale and not looked:
                # A refusal rests on the registry's latest word.
                looked = True
                await client.resolve(repository, target)
                continue
            raise self._exhausted(client, answer)

    def _exhausted(self, client: RegistryClient, refused: Refused) -> BudgetExhausted:
        retry_at = refused.retry_at
        if refused.busy:
            # What others hold comes back soon, if they do not use it.
            longest = self._clock.now() + timedelta(seconds=_CHILD_HOLD_SECONDS)
            retry_at = min(retry_at, longest)
        return BudgetExhausted(
            f"{client.meter.registry} has no pulls left for clients: {refused.reason}",
            retry_at=retry_at,
        )

    async def _hold_of_parent(
        self, client: RegistryClient, repository: Repository, digest: Digest
    ) -> Hold | None:
        for parent in await self._library.parents(digest):
            label = _label(repository, parent)
            hold = await self._ledger.hold_named(client.meter, label, client.policy)
            if hold is not None:
                return hold
        return None

    def _keep_for_child(self, hold: Hold) -> None:
        task = asyncio.create_task(self._release_later(hold))
        self._holds.add(task)
        task.add_done_callback(self._holds.discard)

    async def _release_later(self, hold: Hold) -> None:
        try:
            await self._clock.sleep(_CHILD_HOLD_SECONDS)
        finally:
            with suppress(PrefetchError):
                await self._ledger.release(hold)

    async def _keep(self, repository: Repository, document: Document, source: str | None) -> None:
        """Write down the document, where it came from, and that the repository holds it."""
        state, digest = self._library.state, str(document.digest)
        await state.manifests.save_many([record_of(document)])
        if source is not None:
            came = BlobRecord(digest, len(document.raw), source, self._clock.now())
            await state.blobs.save_many([came])
        await state.links.add_many([LinkRecord(repository.registry, repository.path, digest)])
        await self._library.refresh()


def _children(index: Index, wanted: PlatformSet) -> list[Digest]:
    """The documents below an index of which a client of the wanted platforms will ask for one."""
    images = [child for child in index.manifests if not is_attestation(child)]
    if wanted is not ALL:
        picked = select(wanted, [child.platform for child in images])
        images = [images[position] for position in picked.values()] or images
    return [child.digest for child in images]


def _label(repository: Repository, target: str) -> str:
    return f"serve {repository}@{target}"
