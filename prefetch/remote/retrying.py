"""When a request is sent again, and after how long.

Broken connections, stalls, 5xx: after a growing, jittered wait that honours Retry-After (RFC 9110
section 10.2.3). Throttled ones: at once, since all requests wait at the registry's gate. Refused
ones: at once, with a new token or a new link. 4xx are final, and so is a way that leads to no
registry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_exponential,
    wait_random,
)

from prefetch.clock import Clock
from prefetch.errors import (
    DigestMismatch,
    PrefetchError,
    RegistryError,
    Throttled,
    Unauthorized,
)
from prefetch.remote.settings import TransportSettings

_RENEWED_ATTEMPTS: Final = 3
_MISMATCH_ATTEMPTS: Final = 2

T = TypeVar("T")
U = TypeVar("U", bound=Unauthorized)


class Renewable(Unauthorized):
    """Refused, but a new token or a new link may do. Never leaves `retried`."""

    retryable = True

    @classmethod
    def of(cls, error: Unauthorized) -> Renewable:
        """The same error, marked."""
        return _copied(error, cls)


async def retried(
    work: Callable[[], Awaitable[T]],
    *,
    timeouts: TransportSettings,
    clock: Clock,
    attempts: int | None = None,
) -> T:
    """`work`, repeated; raises what ended the last attempt.

    `attempts` bounds those that a fault of the network or the registry ended.
    """
    try:
        return await work()
    except PrefetchError as error:
        if not error.retryable:
            raise
        failure: PrefetchError | None = error

    async def attempt() -> T:
        # Tenacity, which costs as much as a tenth of a request, starts with the known failure.
        nonlocal failure
        if failure is not None:
            known, failure = failure, None
            raise known
        return await work()

    policy = _Policy(timeouts, timeouts.attempts if attempts is None else attempts)
    retrying = AsyncRetrying(
        retry=retry_if_exception(_is_retryable),
        stop=policy.stop,
        wait=policy.wait,
        sleep=clock.sleep,
        reraise=True,
    )
    try:
        return await retrying(attempt)
    except Renewable as error:
        raise _copied(error, Unauthorized) from None


class _Policy:
    def __init__(self, timeouts: TransportSettings, attempts: int) -> None:
        self._timeouts = timeouts
        self._attempts = attempts
        first, longest = timeouts.first_wait, timeouts.longest_wait
        self._growing = wait_exponential(multiplier=first, max=longest) + wait_random(0, first)
        self._failures: Counter[str] = Counter()

    def wait(self, state: RetryCallState) -> float:
        error = _error(state)
        if isinstance(error, Renewable | Throttled):
            return 0.0
        asked = error.retry_after if isinstance(error, RegistryError) else None
        return max(self._growing(state), min(asked or 0.0, self._timeouts.longest_wait))

    def stop(self, state: RetryCallState) -> bool:
        """Each kind of failure is counted apart: a new token takes no attempt from the others."""
        match _error(state):
            case Renewable():
                kind, limit = "refused", _RENEWED_ATTEMPTS
            case Throttled():
                kind, limit = "throttled", self._timeouts.throttle_attempts
            case DigestMismatch():
                kind, limit = "mismatch", min(_MISMATCH_ATTEMPTS, self._attempts)
            case _:
                kind, limit = "failed", self._attempts
        self._failures[kind] += 1
        return self._failures[kind] >= limit


def _copied(error: Unauthorized, kind: type[U]) -> U:
    return kind(error.message, status=error.status, url=error.url, code=error.code, hint=error.hint)


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, PrefetchError) and error.retryable
