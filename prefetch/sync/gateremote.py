"""A running cache as the gate's shelf: asked as clients ask, with `only-if-cached`.

Such a request never goes upstream, and is answered 504 for what is not whole (docs/serving.md); a
manifest is given only when all that it names is there.
"""

from __future__ import annotations

from prefetch.errors import ContentError, ServerFault
from prefetch.oci.distribution import blob_path, manifest_path
from prefetch.oci.model import ACCEPT, MAX_MANIFEST_SIZE, Document, parse_document
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.direct import DirectServer, Reply
from prefetch.state.records import ChildRecord
from prefetch.sync.documents import platform_of_config, telling_config
from prefetch.sync.probeconnection import Introduction
from prefetch.sync.probereplies import Asked, Fault, NotHere, expect, manifest_head
from prefetch.sync.wanted import Wanted

_OK = 200


class CacheShelf:
    """What a cache would give its clients; `stale` has the names that it warns of."""

    def __init__(self, server: DirectServer, found: Introduction) -> None:
        self._server = server
        self._found = found
        self.stale: set[str] = set()

    async def digest(self, wanted: Wanted) -> str | None:
        """What the cache answers for a tag; one by digest is taken at its word."""
        reference = wanted.reference
        if reference.digest is not None:
            return str(reference.digest)
        path = manifest_path(str(reference.repository), reference.target)
        reply = await self._ask("HEAD", path)
        try:
            head = manifest_head(reply, self._asked(wanted.name), None)
        except NotHere:
            return None
        except Fault as fault:
            raise self._error(fault) from None
        if "Warning" in reply.headers:
            self.stale.add(wanted.name)
        return str(head.digest)

    async def document(self, repository: Repository, digest: Digest) -> Document | None:
        """A manifest with all that it names, or an index of which something is whole."""
        path = manifest_path(str(repository), digest)
        reply = await self._got(repository, path, MAX_MANIFEST_SIZE)
        if reply is None:
            return None
        if reply.more or Digest.of(reply.body, digest.algorithm) != digest:
            raise ContentError(f"{self._server.where} gives other bytes for {digest}")
        return parse_document(reply.body, None, algorithm=digest.algorithm)

    async def platform(self, repository: Repository, document: Document) -> str | None:
        """From the config, which the cache has if it has the manifest."""
        config = telling_config(document)
        if config is None:
            return None
        path = blob_path(str(repository), config.digest)
        reply = await self._got(repository, path, config.size)
        return None if reply is None else platform_of_config(reply.body)

    async def holds(self, repository: Repository, blob: ChildRecord) -> bool:
        """A HEAD tells its size."""
        reply = await self._ask("HEAD", blob_path(str(repository), Digest.parse(blob.digest)))
        try:
            expect(reply, self._asked(str(repository)), _OK)
        except NotHere:
            return False
        except Fault as fault:
            raise self._error(fault) from None
        return reply.header("Content-Length") == str(blob.size)

    async def _got(self, repository: Repository, path: str, limit: int) -> Reply | None:
        reply = await self._ask("GET", path, limit)
        try:
            expect(reply, self._asked(str(repository)), _OK)
        except NotHere:
            return None
        except Fault as fault:
            raise self._error(fault) from None
        return reply

    async def _ask(self, method: str, path: str, limit: int = 0) -> Reply:
        anonymously = self._found.login is None
        headers = {"Accept": ACCEPT}
        return await self._server.ask(method, path, headers, limit=limit, anonymously=anonymously)

    def _asked(self, name: str) -> Asked:
        return Asked(name, self._found.login, self._found.wants_login)

    def _error(self, fault: Fault) -> ServerFault:
        return ServerFault(self._server.clean(f"{self._server.where}: {fault}"))
