"""A running cache as the gate's shelf: asked as clients ask, with `only-if-cached`.

Such a request never goes upstream, and is answered 504 for what is not whole (docs/serving.md); a
manifest is given only when all that it names is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
        reply = await self._got("HEAD", wanted.name, path)
        if reply is None:
            return None
        if "Warning" in reply.headers:
            self.stale.add(wanted.name)
        with self._judging():
            return str(manifest_head(reply, self._asked(wanted.name), None).digest)

    async def document(self, repository: Repository, digest: Digest) -> Document | None:
        """A manifest with all that it names, or an index of which something is whole."""
        path = manifest_path(str(repository), digest)
        reply = await self._got("GET", str(repository), path, MAX_MANIFEST_SIZE)
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
        reply = await self._got("GET", str(repository), path, config.size)
        return None if reply is None else platform_of_config(reply.body)

    async def holds(self, repository: Repository, blob: ChildRecord) -> bool:
        """A HEAD tells its size."""
        path = blob_path(str(repository), Digest.parse(blob.digest))
        reply = await self._got("HEAD", str(repository), path)
        return reply is not None and reply.header("Content-Length") == str(blob.size)

    async def _got(self, method: str, name: str, path: str, limit: int = 0) -> Reply | None:
        """The answer; None where the cache does not have it, or not all of it."""
        reply = await self._server.ask(
            method,
            path,
            {"Accept": ACCEPT},
            limit=limit,
            anonymously=self._found.login is None,
        )
        with self._judging():
            try:
                expect(reply, self._asked(name), _OK)
            except NotHere:
                return None
        return reply

    def _asked(self, name: str) -> Asked:
        return Asked(name, self._found.login, self._found.wants_login)

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """What is wrong with an answer is an error of the image's."""
        try:
            yield
        except Fault as fault:
            where = self._server.where
            raise ServerFault(self._server.clean(f"{where}: {fault}")) from None
