"""Requests to one registry: paced, throttled, redirected by hand, bounded.

A request holds one of the registry's slots for as long as it runs, its body included. Redirects
lead only where the guard permits, and Authorization goes to no other origin than it was meant for
(RFC 9110 section 15.4, distribution-spec "Pulling blobs").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from prefetch.clock import Clock
from prefetch.errors import Misrouted
from prefetch.events import Emit, Slowed
from prefetch.remote.addresses import Guard, untrusted_url
from prefetch.remote.connections import Connections, broken
from prefetch.remote.faults import redact
from prefetch.remote.pacing import Slots
from prefetch.remote.rate import Rate
from prefetch.remote.settings import RegistrySettings, TransportSettings
from prefetch.remote.throttling import Throttle
from prefetch.state.ledger import Ledger

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Meant for the origin that was asked: a CDN behind it is not to take them for its own.
_OWN_HEADERS: Final = frozenset({"Authorization", "Cache-Control"})


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers are here, the body is not read yet.

    `own` is false when a redirect has led to another origin, whose word on who we are does not
    count. `left` is when its request was sent, in monotonic seconds. Whoever has the answer reads
    its body or closes it.
    """

    response: aiohttp.ClientResponse
    url: URL
    own: bool
    left: float

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self.response.headers

    def close(self) -> None:
        """Done with it; an unread body takes its connection along."""
        self.response.release()

    async def read(self, limit: int) -> bytes:
        """At most `limit` + 1 bytes of the body: one more than `limit` means that there is more.

        Raises NetworkError or ServerFault.
        """
        content = self.response.content
        chunks, length = [], 0
        try:
            while length <= limit and (chunk := await content.readany()):
                chunks.append(chunk)
                length += len(chunk)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise broken(error, self.url) from None
        return b"".join(chunks)[: limit + 1]


class Transport:
    """Sends requests to one registry. `requests` counts all that were sent, redirects included."""

    def __init__(
        self,
        connections: Connections,
        guard: Guard,
        *,
        slots: Slots,
        rate: Rate,
        throttle: Throttle,
        timeouts: TransportSettings,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self.guard = guard
        self.timeouts = timeouts
        self.requests = 0
        self._connections = connections
        self._slots = slots
        self._throttle = throttle
        self._rate = rate
        self._clock = clock
        self._emit = emit

    @classmethod
    async def open(
        cls,
        settings: RegistrySettings,
        timeouts: TransportSettings,
        *,
        ledger: Ledger,
        data_dir: Path,
        clock: Clock,
        emit: Emit,
    ) -> Transport:
        """Make ready for requests; `<data_dir>/locks` is created.

        Raises ConfigError, and ForbiddenAddress for an endpoint that may not be contacted.
        """
        endpoint = URL(settings.endpoint)
        guard = Guard(settings.name, endpoint.raw_host or "", public_only=settings.public_only)
        guard.check(endpoint)
        locks = data_dir / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        connections = await Connections.open(settings, timeouts, guard)
        count = settings.max_concurrency
        return cls(
            connections,
            guard,
            slots=Slots(locks, settings.name, count, clock),
            rate=Rate(locks, settings.name, settings.requests_per_second, 2 * count, clock),
            throttle=Throttle(
                settings.name,
                ledger,
                clock=clock,
                emit=emit,
                longest=timeouts.longest_wait,
                waits=timeouts.waits_out_throttling,
            ),
            timeouts=timeouts,
            clock=clock,
            emit=emit,
        )

    @asynccontextmanager
    async def turn(self, *, download: bool = False) -> AsyncIterator[None]:
        """Hold a slot: what is sent to the registry is sent within, one request at a time.

        A `download` is what may take long: it leaves a slot to what is small.

        Waits while the registry throttles, or raises Throttled. Within a turn no other must be
        asked for.
        """
        await self._throttle.wait()
        async with self._slots.hold(download=download):
            yield

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        once: bool = False,
    ) -> Answer:
        """One request, its redirects followed (never those of a POST).

        `once` forbids aiohttp to send it again by itself. The answer's head has to be whole within
        the document timeout, however it comes. Raises NetworkError, ServerFault, Misrouted,
        ForbiddenAddress, RegistryError; statuses are for the caller to judge.
        """
        await self._throttle.wait()
        # Should it have closed meanwhile, those who waited do not leave together.
        while await self._rate.wait() and await self._throttle.wait():
            pass
        try:
            async with asyncio.timeout(self.timeouts.document_timeout):
                return await self._followed(method, url, headers, body, once=once)
        except TimeoutError as error:
            raise broken(error, url) from None

    async def _followed(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None, *, once: bool
    ) -> Answer:
        left = self._clock.monotonic()
        origin, asked = url.origin(), url
        for _ in range(self.timeouts.max_redirects + 1):
            self.requests += 1
            response = await self._connections.send(method, url, headers, body=body, once=once)
            own = url.origin() == origin
            if response.status not in _REDIRECTS or body is not None:
                return Answer(response, url, own, left)
            response.release()
            url = self._target(url, response.headers.get("Location"))
            if url.origin() != origin:
                headers = {k: v for k, v in headers.items() if k not in _OWN_HEADERS}
        raise Misrouted(
            f"{asked.raw_host} redirects more than {self.timeouts.max_redirects} times",
            url=redact(asked),
        )

    async def throttled(self, answer: Answer, seconds: float | None) -> None:
        """An answer throttles us: all wait for `seconds` (None: it did not say), then ask slower.

        What another origin says, to which a redirect has led, tells nothing of the registry's rate.
        """
        await self._throttle.close(seconds)
        per_second = await self._rate.throttled(answer.left) if answer.own else None
        if per_second is not None:
            self._emit(Slowed(self._throttle.registry, round(per_second, 1)))

    async def fetch(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        limit: int,
    ) -> tuple[Answer, bytes]:
        """A small document whole, within the document timeout. Raises as `send` and `read` do."""
        await self._throttle.wait()
        try:
            async with asyncio.timeout(self.timeouts.document_timeout):
                answer = await self.send(method, url, headers, body=body)
                try:
                    return answer, await answer.read(limit)
                finally:
                    answer.close()
        except TimeoutError as error:
            raise broken(error, url) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    def _target(self, url: URL, location: str | None) -> URL:
        """Where a redirect leads, if it may. Raises Misrouted or ForbiddenAddress."""
        target = untrusted_url(location, url) if location else None
        if target is None:
            raise Misrouted(
                f"{url.raw_host} redirects to nowhere", status=HTTPStatus.FOUND, url=redact(url)
            )
        self.guard.check(target)
        return target.with_fragment(None)
