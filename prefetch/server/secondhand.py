"""What alternates have of what clients miss: no pull is needed for it, nor held.

An alternate hears of nothing that the registry has not shown to anybody first.
"""

from __future__ import annotations

from collections.abc import Iterable

from prefetch.oci.model import Descriptor, Document
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.registry import RegistryClient
from prefetch.sync.alternates import Alternates
from prefetch.sync.documents import Documents


class Secondhand:
    """Manifests from alternates. Raises what the registry's own HEAD does, and StateError."""

    def __init__(self, alternates: Alternates, documents: Documents) -> None:
        self._alternates = alternates
        self._documents = documents

    async def document(
        self, client: RegistryClient, repository: Repository, descriptor: Descriptor
    ) -> tuple[Document, str | None] | None:
        """The document and the registry that it came from; None: nobody but the registry has it."""
        if not await self._may_ask(client, repository, descriptor.digest):
            return None
        return await self._documents.from_alternates(
            self._alternates, repository, descriptor, on_pull=_nothing
        )

    async def offered(
        self, client: RegistryClient, repository: Repository, digests: Iterable[Digest]
    ) -> bool:
        """Whether an alternate says that it has one of these manifests (free)."""
        for digest in digests:
            if not await self._may_ask(client, repository, digest):
                return False
            offers = await self._alternates.offers(repository, [str(digest)])
            if offers.digests:
                return True
        return False

    async def _may_ask(
        self, client: RegistryClient, repository: Repository, digest: Digest
    ) -> bool:
        """Whether there is an alternate to ask; what the registry shows is found out first."""
        if not self._alternates.of(repository.registry):
            return False
        unknown = self._alternates.is_unknown(repository)
        if unknown and (await client.resolve(repository, str(digest))).digest is None:
            return False  # it knows no HEAD, and has shown nothing
        await self._alternates.introduce(client, repository, digest)
        return True


def _nothing() -> None:
    """A pull of an alternate's is in the ledger, under its own meter."""
