"""The registry: each request routed, permitted, answered, and accounted for.

request ──► route ──► who asks ──► may they ──► manifest │ blob │ tags │ catalog │ referrers
              │                        │                    │
              └────── Refusal ◄────────┴────────────────────┘
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache

from aiohttp import web

from prefetch.errors import PrefetchError
from prefetch.oci.distribution import EndpointKind
from prefetch.oci.reference import Digest, Repository
from prefetch.server import answers
from prefetch.server.blobs import BlobService, Broken, Lost
from prefetch.server.downloads import Downloads
from prefetch.server.exchange import Exchange, address_of
from prefetch.server.identity import Htpasswd
from prefetch.server.library import Library
from prefetch.server.listings import Listings
from prefetch.server.manifests import ManifestService
from prefetch.server.permits import Permits
from prefetch.server.pulse import Pulse
from prefetch.server.refusals import Refusal, no_registry, of_error, unknown
from prefetch.server.routes import Target, route
from prefetch.server.settings import ANONYMOUS
from prefetch.server.tags import TagAnswer, Tags
from prefetch.server.witness import Witness

_CACHED_ROUTES = 4096
# What logs say of an answer that nobody was there to take; nginx made the number known.
_GONE = 499
_ABSENT = 404
_HIDING = frozenset({_ABSENT, 503})

Endpoint = Callable[[Target, Repository, Exchange], Awaitable[web.StreamResponse]]


class Registry:
    """The handler of all requests. `handle` never raises but for cancellation."""

    def __init__(
        self,
        *,
        library: Library,
        permits: Permits,
        tags: Tags,
        manifests: ManifestService,
        blobs: BlobService,
        downloads: Downloads,
        listings: Listings,
        users: Htpasswd | None,
        pulse: Pulse,
        witness: Witness,
    ) -> None:
        self._library = library
        self._permits = permits
        self._tags = tags
        self._manifests = manifests
        self._blobs = blobs
        self._downloads = downloads
        self._listings = listings
        self._users = users
        self._pulse = pulse
        self._witness = witness
        self._route = lru_cache(_CACHED_ROUTES)(route)
        self._endpoints: dict[EndpointKind, Endpoint] = {
            EndpointKind.MANIFEST: self._manifest,
            EndpointKind.BLOB: self._blob,
            EndpointKind.TAGS: self._tag_list,
            EndpointKind.REFERRERS: self._referrers,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        exchange = Exchange(request, time.perf_counter(), address_of(request))
        self._witness.begun()
        if "Upgrade" in request.headers:
            # aiohttp has stopped reading requests from this connection.
            request.protocol.close()
        status = _GONE
        try:
            response = await self._answered(exchange)
            status = response.status
        except asyncio.CancelledError:
            exchange.cause = "client_gone"
            raise
        except ConnectionError:
            exchange.cause = exchange.cause or "client_gone"
            # aiohttp finds the connection closed, and says nothing.
            response = web.Response(status=_GONE)
            _cut(request)
        finally:
            self._witness.ended(exchange, status)
        return response

    async def _answered(self, exchange: Exchange) -> web.StreamResponse:
        """The response; whatever goes wrong has become one."""
        target: Target | None = None
        try:
            if exchange.request.method not in answers.READ_METHODS:
                return await self._refused(answers.read_only(), None, exchange)
            pulse = await self._pulse.answer(exchange)
            if pulse is not None:
                return pulse
            target = self._route(exchange.target)
            exchange.kind, exchange.registry = str(target.kind), target.registry or ""
            return await self._answer(target, exchange)
        except Refusal as refusal:
            return await self._refused(refusal, target, exchange)
        except Broken as broken:
            return self._break(exchange, broken.cause)
        except TimeoutError:
            return self._break(exchange, "client_stalled")
        except PrefetchError as error:
            self._witness.failed(error, exchange)
            kind = target.kind if target is not None else EndpointKind.PING
            now = self._witness.now()
            return await self._refused(of_error(error, kind, "the cache", now), target, exchange)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - no request may end the server
            self._witness.crashed(error, exchange)
            exchange.cause = "internal"
            return answers.plain("internal error", 500)

    async def _answer(self, target: Target, exchange: Exchange) -> web.StreamResponse:
        await self._identify(exchange)
        if target.kind is EndpointKind.PING:
            if self._wants_login(exchange):
                raise answers.credentials_wanted()
            return answers.document({})
        if target.kind is EndpointKind.CATALOG:
            return await self._listings.catalog(target, exchange.path, exchange.user)
        if target.repository is None:
            raise no_registry()
        return await self._endpoints[target.kind](target, target.repository, exchange)

    # Endpoints

    async def _manifest(
        self, target: Target, repository: Repository, exchange: Exchange
    ) -> web.StreamResponse:
        caller = exchange.caller
        await self._permits.check(repository, target.argument, target.kind, caller)
        answer = (
            TagAnswer(target.digest)
            if target.digest is not None
            else await self._tags.answer(repository, target.argument, caller)
        )
        digest = answer.digest
        exchange.headers = self._named(target) | answers.stale_headers(answer)
        if answer.stale is not None:
            exchange.result = "stale"
            self._witness.stale(answer)
        if not exchange.wants_body and await self._library.document(digest) is None:
            resolved = await self._manifests.head(repository, digest, caller)
            exchange.result = exchange.result or "miss"
            headers = answers.head_headers(digest, resolved.media_type, resolved.size)
            return web.Response(headers=headers | exchange.headers)
        wanted = await self._tags.wanted_of(repository, digest)
        found = await self._manifests.find(repository, digest, wanted, caller)
        exchange.result = exchange.result or ("hit" if found.hit else "miss")
        self._witness.served(digest)
        headers = answers.document_headers(found.held) | exchange.headers
        if answers.matches(exchange.request.headers.get("If-None-Match"), digest):
            return web.Response(status=304, headers=headers)
        exchange.sent = len(found.held.raw) if exchange.wants_body else 0
        return web.Response(body=found.held.raw, headers=headers)

    async def _blob(
        self, target: Target, repository: Repository, exchange: Exchange
    ) -> web.StreamResponse:
        digest = _digest_of(target)
        caller = exchange.caller
        await self._permits.check(repository, target.argument, target.kind, caller)
        headers = answers.blob_headers(digest) | self._named(target)
        if not exchange.wants_body:
            size, here = await self._blobs.size(repository, digest, caller)
            exchange.result = "hit" if here else "miss"
            if answers.matches(exchange.request.headers.get("If-None-Match"), digest):
                return web.Response(status=304, headers=headers)
            return web.Response(headers=headers | {"Content-Length": str(size)})
        source = await self._blobs.open(repository, digest, caller)
        self._witness.served(digest)
        try:
            while True:
                try:
                    return await self._downloads.send(exchange, source, digest, headers)
                except Lost as lost:
                    # Nothing of it has gone out: what comes next will do.
                    source = await self._blobs.again(lost.source)
        finally:
            source.close()

    async def _tag_list(
        self, target: Target, _: Repository, exchange: Exchange
    ) -> web.StreamResponse:
        found = await self._listings.tags(target, exchange.path, exchange.user)
        return self._own(target, found)

    async def _referrers(
        self, target: Target, _: Repository, exchange: Exchange
    ) -> web.StreamResponse:
        return self._own(target, await self._listings.referrers(target, exchange.user))

    # Who asks

    async def _identify(self, exchange: Exchange) -> None:
        """Find out who asks; credentials that came in the clear from afar are not looked at."""
        if self._users is None or not exchange.may_be_asked:
            return
        header = exchange.request.headers.get("Authorization")
        identity = await self._users.authenticate(header)
        exchange.user, exchange.failed = identity.name, identity.failed

    def _wants_login(self, exchange: Exchange) -> bool:
        """Whether credentials could change the answer, and may be asked for."""
        return self._users is not None and exchange.user == ANONYMOUS and exchange.may_be_asked

    # Errors

    async def _refused(
        self, refusal: Refusal, target: Target | None, exchange: Exchange
    ) -> web.StreamResponse:
        """The refusal; for what may exist for others only, a challenge whether it does or not."""
        repository = None if target is None else target.repository
        if (
            repository is not None
            and self._wants_login(exchange)
            and await self._may_be_hidden(repository, refusal.status)
        ):
            refusal = answers.credentials_wanted()
        exchange.cause = refusal.cause
        answer = answers.refused(refusal)
        answer.headers.extend(self._named(target) if target is not None else {})
        return answer

    async def _may_be_hidden(self, repository: Repository, status: int) -> bool:
        """Whether what is refused may be there for those who say who they are.

        What is known to be public, and cannot be had now, cannot be had by anybody.
        """
        if status not in _HIDING or not await self._permits.hides(repository):
            return False
        return status == _ABSENT or not await self._permits.may_see(repository, ANONYMOUS)

    def _break(self, exchange: Exchange, cause: str) -> web.StreamResponse:
        """Break the connection: what was begun must not look complete."""
        exchange.cause = cause
        _cut(exchange.request)
        raise ConnectionResetError(cause)

    def _named(self, target: Target) -> dict[str, str]:
        """`OCI-Namespace`, for clients that said `ns` (distribution-spec, "Registry Proxying").

        It is what they said, which has been found to be a registry's name.
        """
        said = target.parameter("ns")
        return {} if said is None else {"OCI-Namespace": said}

    def _own(self, target: Target, response: web.Response) -> web.Response:
        response.headers.update(self._named(target))
        return response


def _digest_of(target: Target) -> Digest:
    if target.digest is None:
        raise unknown(target.kind)
    return target.digest


def _cut(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
