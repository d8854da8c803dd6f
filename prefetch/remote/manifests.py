"""Manifests and indexes: looked at by HEAD, which is free, or pulled, which is counted.

Manifest GETs are sent here and nowhere else, each attempt with a spend drawn from the ledger
(distribution-spec, "Pulling manifests").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from yarl import URL

from prefetch.clock import Clock
from prefetch.errors import DigestMismatch, InvalidManifest
from prefetch.events import Emit, PullSpent
from prefetch.oci.distribution import manifest_path
from prefetch.oci.model import ACCEPT, MAX_MANIFEST_SIZE, Document, parse_document
from prefetch.oci.reference import Digest, Repository
from prefetch.ratelimit.headers import Observation, parse_observation
from prefetch.remote.auth import Authenticator
from prefetch.remote.connections import broken
from prefetch.remote.metering import Meter
from prefetch.remote.transport import Answer
from prefetch.remote.wire import Request, Wire, refuse_encoding, refuse_page
from prefetch.state.meters import Hold, Spend

NO_HEAD: Final = (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
"""What a registry that knows no HEAD answers."""

_WANTED: Final = {"Accept": ACCEPT}


class Manifests:
    """One registry's manifests. `pulls` counts the GETs; methods are single attempts."""

    def __init__(
        self, base: str, wire: Wire, auth: Authenticator, meter: Meter, *, clock: Clock, emit: Emit
    ) -> None:
        self.pulls = 0
        self._base = base
        self._wire = wire
        self._auth = auth
        self._meter = meter
        self._clock = clock
        self._emit = emit

    def request(self, method: str, repository: Repository, reference: str) -> Request:
        """The request for a manifest; a HEAD may be answered by not knowing HEAD."""
        # Repositories, tags and digests hold nothing that would need quoting.
        url = URL(self._base + manifest_path(repository.path, reference), encoded=True)
        head = method == "HEAD"
        accept = (HTTPStatus.OK, *NO_HEAD) if head else (HTTPStatus.OK,)
        subject = named(repository, reference)
        return Request(method, url, repository.path, subject, _WANTED, accept, once=not head)

    async def head(self, repository: Repository, reference: str) -> Answer:
        """Ask what a tag or digest is; the ledger is told what the answer says of the meter."""
        async with self._wire.transport.turn():
            return await self._look(repository, reference)

    async def pull(
        self,
        repository: Repository,
        reference: str,
        *,
        hold: Hold | None,
        on_pull: Callable[[], None] | None,
    ) -> Document:
        """Drawn, sent, settled, read, verified."""
        transport = self._wire.transport
        request = self.request("GET", repository, reference)

        async def look() -> None:
            await self._look(repository, reference)

        async with transport.turn():
            # A token that cannot be had must not cost a pull.
            await self._auth.authorise(repository.path)
            spend = await self._meter.draw(repository.path, as_digest(reference), hold, look)
            self.pulls += 1
            if on_pull is not None:
                on_pull()
            try:
                async with asyncio.timeout(transport.timeouts.document_timeout):
                    answer = await self._get(request, spend)
                    try:
                        return await _read(answer, request.subject, reference)
                    finally:
                        answer.close()
            except TimeoutError as error:
                raise broken(error, request.url) from None

    async def _look(self, repository: Repository, reference: str) -> Answer:
        stamp = await self._meter.head_stamp(repository.path)
        heard = False

        request = self.request("HEAD", repository, reference)

        async def seen(answer: Answer) -> None:
            nonlocal heard
            reading = self._reading(answer)
            # An error without a reading says nothing of the repository.
            if reading is not None or answer.status in request.accept:
                heard = True
                await self._meter.observe(repository.path, stamp, reading)

        try:
            answer = await self._wire.ask(self._auth, request, seen=seen)
        finally:
            if not heard:
                await self._meter.unheard(stamp)
        answer.close()
        return answer

    async def _get(self, request: Request, spend: Spend) -> Answer:
        """Send the counted GET, and settle its spend whatever comes."""
        settled = False

        async def seen(answer: Answer) -> None:
            nonlocal settled
            settled = True
            reading = self._reading(answer)
            await self._meter.settle(spend, reading, found=answer.status == HTTPStatus.OK)
            remaining = None if reading is None else reading.remaining
            key = self._meter.key
            self._emit(PullSpent(key.registry, key.identity, request.subject, remaining))

        try:
            return await self._wire.ask(self._auth, request, seen=seen)
        finally:
            if not settled:
                await self._meter.settle(spend, None, found=False)

    def _reading(self, answer: Answer) -> Observation | None:
        return parse_observation(answer.headers, self._clock.now())


async def _read(answer: Answer, subject: str, reference: str) -> Document:
    """The answer's body, bounded and verified, as a document."""
    refuse_page(subject, answer)
    refuse_encoding(subject, answer)
    too_large = InvalidManifest(f"{subject}: the manifest is larger than {MAX_MANIFEST_SIZE} bytes")
    if (answer.response.content_length or 0) > MAX_MANIFEST_SIZE:
        raise too_large
    raw = await answer.read(MAX_MANIFEST_SIZE)
    if len(raw) > MAX_MANIFEST_SIZE:
        raise too_large
    asked = as_digest(reference)
    algorithm = "sha256" if asked is None else asked.algorithm
    if asked is not None and Digest.of(raw, algorithm) != asked:
        raise DigestMismatch(
            f"{subject}: {answer.url.raw_host} sent other bytes, of {Digest.of(raw, algorithm)}"
        )
    try:
        return parse_document(raw, answer.headers.get("Content-Type"), algorithm=algorithm)
    except InvalidManifest as error:
        raise InvalidManifest(f"{subject}: {error.message}", hint=error.hint) from None


def as_digest(reference: str) -> Digest | None:
    """The digest that a reference is, None for a tag."""
    return Digest.parse(reference) if ":" in reference else None


def named(repository: Repository, reference: str) -> str:
    """What messages call a manifest or a blob."""
    return f"{repository}{'@' if ':' in reference else ':'}{reference}"
