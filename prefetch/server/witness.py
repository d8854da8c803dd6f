"""What is kept of each request: counts, a line in the access log, and when content was served."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from datetime import datetime

from aiohttp.http_exceptions import HttpProcessingError

from prefetch.clock import Clock
from prefetch.errors import PrefetchError
from prefetch.oci.reference import Digest
from prefetch.server.accesslog import AccessLog, ServerLog
from prefetch.server.exchange import Exchange
from prefetch.server.metrics import Metrics
from prefetch.server.tags import TagAnswer
from prefetch.state.database import State

_FLUSH_SECONDS = 10.0
_MOST_SERVED = 10_000
_TRACE_LINES = 6


class Witness:
    """Hears of everything, and holds nobody up."""

    def __init__(
        self, metrics: Metrics, access: AccessLog, log: ServerLog, state: State, clock: Clock
    ) -> None:
        self._metrics = metrics
        self._access = access
        self._log = log
        self._state = state
        self._clock = clock
        self._served: set[str] = set()

    def now(self) -> datetime:
        return self._clock.now()

    def begun(self) -> None:
        """A request has come."""
        self._metrics.begun()

    def ended(self, exchange: Exchange, status: int) -> None:
        """It has been answered with `status`, or (499) its client has gone."""
        seconds = time.perf_counter() - exchange.began
        request = exchange.request
        self._metrics.ended(
            exchange.kind,
            request.method,
            status,
            sent=exchange.sent,
            seconds=seconds,
            result=exchange.result,
        )
        if exchange.cause is not None:
            self._metrics.error(exchange.cause)
        if self._access.enabled:
            self._access.request(
                client=exchange.address,
                user=exchange.user,
                method=request.method,
                target=request.raw_path,
                status=status,
                sent=exchange.sent,
                seconds=seconds,
                result=exchange.result,
                registry=exchange.registry,
                agent=request.headers.get("User-Agent"),
            )

    def connected(self, change: int) -> None:
        """A client has connected (1) or gone (-1)."""
        self._metrics.connections(change)

    def complained(self, error: BaseException) -> None:
        """What no handler saw: a request that cannot be parsed, or a bug."""
        if isinstance(error, HttpProcessingError):
            self._metrics.error("bad_request")
        else:
            self._metrics.error("internal")
            self._log.error("internal error", type=type(error).__name__, where=places(error))

    def stale(self, answer: TagAnswer) -> None:
        """A tag was answered with what may not be its latest digest."""
        if answer.stale is not None:
            self._metrics.stale(answer.stale, answer.age)

    def served(self, digest: Digest) -> None:
        """A document went out."""
        if len(self._served) < _MOST_SERVED:
            self._served.add(str(digest))

    def failed(self, error: PrefetchError, exchange: Exchange) -> None:
        """The cache itself could not do what it should."""
        self._log.error("request failed", code=error.code, reason=str(error), kind=exchange.kind)

    def crashed(self, error: Exception, exchange: Exchange) -> None:
        """A bug: where it is, and never what the request carried."""
        self._log.error(
            "internal error", type=type(error).__name__, where=places(error), kind=exchange.kind
        )

    async def watch(self) -> None:
        """Write down now and then what was served."""
        while True:
            await self._clock.sleep(_FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write down what was served since the last time; a busy database hears of it later."""
        if self._served:
            served, self._served = self._served, set()
            with suppress(PrefetchError):
                await self._state.blobs.served(served, self._clock.now())


def places(error: BaseException) -> str:
    """Where it came from, innermost first: functions and lines, no values."""
    frames = traceback.extract_tb(error.__traceback__)[-_TRACE_LINES:]
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
