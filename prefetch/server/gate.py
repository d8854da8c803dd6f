"""Whether a request may go upstream at all, asked before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from prefetch.clock import Clock
from prefetch.errors import (
    BudgetExhausted,
    ContentError,
    ForbiddenAddress,
    NetworkError,
    PrefetchError,
    RegistryError,
    ServerFault,
)
from prefetch.oci.distribution import EndpointKind
from prefetch.oci.reference import Repository
from prefetch.server.accesslog import ServerLog
from prefetch.server.health import Health, MissRate, Negatives
from prefetch.server.library import Library
from prefetch.server.refusals import Refusal, frozen, no_registry, not_cached, of_error, unavailable
from prefetch.server.shared import Shared
from prefetch.state.ledger import Ledger
from prefetch.state.meters import MeterKey, MeterPolicy

MISS_WAIT: Final = 20.0
"""Seconds that a client waits for something small that is not cached; the fetch goes on alone."""

T = TypeVar("T")

# What may have passed already: a disk, a database.
_BRIEFLY = 2.0


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something is fetched.

    `address` is the client's, `only_cached` that it said `Cache-Control: only-if-cached`.
    """

    address: str
    user: str
    only_cached: bool = False


NOBODY: Final = Caller("", "")
"""For what is done whoever has asked, or though nobody has."""


class Gate:
    """Says why not, and keeps account of which upstreams answer, and of what they said no to.

    A `target` is the tag or digest that is asked for.
    """

    def __init__(
        self,
        *,
        library: Library,
        ledger: Ledger,
        health: Health,
        negatives: Negatives,
        rate: MissRate,
        serves: Callable[[str], bool],
        sync_policy: Callable[[str], MeterPolicy],
        clock: Clock,
        log: ServerLog,
    ) -> None:
        self.serves = serves
        self._library = library
        self._ledger = ledger
        self._health = health
        self._negatives = negatives
        self._rate = rate
        self._sync_policy = sync_policy
        self._costly: set[MeterKey] = set()
        self._clock = clock
        self._log = log

    async def check(
        self, repository: Repository, caller: Caller, kind: EndpointKind, target: str
    ) -> None:
        """Raise Refusal unless a request about the repository may be sent for this caller now.

        504 for only-if-cached; 503 when the cache is frozen, the registry throttles or is down;
        404 when it is none of ours; and what the registry has lately said of `target`.
        """
        if caller.only_cached:
            raise not_cached()
        self.check_memory(repository, kind, target)
        registry = repository.registry
        until = await self._ledger.throttled_until(registry)
        if until is not None:
            left = (until - self._clock.now()).total_seconds()
            raise unavailable(f"{registry} throttles", "throttled", left)

    def check_memory(self, repository: Repository, kind: EndpointKind, target: str) -> None:
        """As `check`, by what is known without looking anywhere; for whoever cannot wait."""
        freeze = self._library.freeze()
        if freeze is not None:
            raise frozen(freeze.until, self._clock.now())
        if not self.serves(repository.registry):
            raise no_registry()
        refusal = self._negatives.find((repository, kind, target))
        if refusal is not None:
            raise refusal
        left = self._health.pause_left(repository)
        if left > 0:
            raise unavailable(f"{repository.registry} cannot be reached", "upstream_down", left)

    async def charge_check(self, meter: MeterKey) -> None:
        """Where HEADs cost pulls, see to it that a check of what is here leaves the reserve alone.

        Raises BudgetExhausted and StateError.
        """
        if not await self._ledger.head_cost(meter):
            self._costly.discard(meter)
            return
        self._costly.add(meter)
        policy = self._sync_policy(meter.registry)
        budget = await self._ledger.budget(meter, policy)
        if budget.available is not None and budget.available <= 0:
            raise BudgetExhausted(
                f"{meter.registry} counts HEADs, and has no pulls left above the reserve",
                retry_at=await self._ledger.forecast(meter, policy, 1),
            )

    def is_costly(self, registry: str) -> bool:
        """Whether checks at the registry were last seen to cost pulls."""
        return any(meter.registry == registry for meter in self._costly)

    def count_miss(self, caller: Caller) -> None:
        """One more fetch that this client causes. Raises Refusal (503) for too many."""
        self._rate.take(caller.address)

    async def miss(
        self,
        shared: Shared,
        caller: Caller,
        key: Hashable,
        work: Callable[[], Coroutine[Any, Any, T]],
    ) -> T:
        """What `work` finds out for a client that waits for it; a miss of its own if it begins it.

        Raises what `work` raises, and Refusal (503) for too many misses or too long a wait.
        """
        if not shared.running(key):
            self.count_miss(caller)
        return await shared.run(key, work, timeout=MISS_WAIT)

    def is_down(self, repository: Repository) -> bool:
        """Whether whoever can do without the registry should."""
        return self._health.is_down(repository)

    def answered(self, repository: Repository) -> None:
        """The registry has answered something that makes sense."""
        if self._health.answered(repository):
            self._log.info("upstream answers again", repository=str(repository))

    def failed(
        self, repository: Repository, kind: EndpointKind, error: PrefetchError, target: str
    ) -> Refusal:
        """What clients are told of an error.

        A registry that is down is remembered as such, and what it refuses as refused.
        """
        refusal = of_error(error, kind, repository.registry, self._clock.now())
        if isinstance(error, NetworkError | ServerFault):
            if self._health.failed(repository):
                self._log.warning("upstream is down", repository=str(repository), reason=str(error))
            return refusal
        if _is_an_answer(error):
            self.answered(repository)
        self.remember(repository, kind, target, refusal)
        if refusal.cause in ("upstream_error", "storage") or isinstance(error, ContentError):
            self._log.warning(
                "fetch failed", repository=str(repository), kind=kind, reason=str(error)
            )
        return refusal

    def remember(
        self, repository: Repository, kind: EndpointKind, target: str, refusal: Refusal
    ) -> None:
        """Let the next who ask for `target` be refused so, too, for a while.

        All who ask are held up while a registry throttles. A blob that came corrupt may be asked
        for again, which costs no pull.
        """
        if refusal.cause == "throttled":
            return
        if kind is EndpointKind.BLOB and refusal.cause != "not_found":
            return
        seconds = _BRIEFLY if refusal.cause == "storage" else math.inf
        self._negatives.remember((repository, kind, target), refusal, seconds)


def _is_an_answer(error: PrefetchError) -> bool:
    """Whether it shows that the registry answers, rather than what went wrong on our side."""
    if isinstance(error, ForbiddenAddress):
        return False
    return isinstance(error, RegistryError | ContentError)
