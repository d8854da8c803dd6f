"""Authorised requests, judged, and repeated where that may help.

What is repeated: broken connections, stalls and 5xx, after a growing, jittered wait that honours
Retry-After (RFC 9110 section 10.2.3); throttled requests, once the registry is open again; refused
ones, with a new token. 4xx are final.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter
from yarl import URL

from prefetch.clock import Clock
from prefetch.errors import (
    DigestMismatch,
    PrefetchError,
    PullLimitReached,
    RegistryError,
    ServerFault,
    Throttled,
    Unauthorized,
)
from prefetch.ratelimit.throttle import classify_429, retry_after
from prefetch.remote.auth import Authenticator, Reply
from prefetch.remote.faults import (
    ERROR_BODY_LIMIT,
    failure,
    is_throttle,
    looks_like_html,
    no_registry,
    redact,
    sanitise,
)
from prefetch.remote.transport import Answer, Transport

_CHALLENGE: Final = "WWW-Authenticate"
_ANONYMOUS_HINT: Final = "it does not exist, or it takes credentials, and none are configured"
_AUTH_ATTEMPTS: Final = 3
_MISMATCH_ATTEMPTS: Final = 2

T = TypeVar("T")


class _Renewable(Unauthorized):
    """Refused, but a new token or a new link may do."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the registry.

    `path` is the repository's, `subject` what error messages call it all, `accept` the statuses
    that are an answer; `once` forbids a resend behind our back.
    """

    method: str
    url: URL
    path: str
    subject: str
    headers: Mapping[str, str]
    accept: Collection[int] = (HTTPStatus.OK,)
    once: bool = False


Seen = Callable[[Answer], Awaitable[None]]


class Wire:
    """Speaks to one registry."""

    def __init__(self, registry: str, transport: Transport, clock: Clock) -> None:
        self.transport = transport
        self._registry = registry
        self._clock = clock

    async def run(self, work: Callable[[], Awaitable[T]], *, attempts: int | None = None) -> T:
        """`work`, repeated. `attempts` bounds those that a fault of the network or the registry
        ended; raises what ended the last one.
        """
        timeouts = self.transport.timeouts
        waits = wait_exponential_jitter(
            initial=timeouts.first_wait, max=timeouts.longest_wait, jitter=timeouts.first_wait
        )

        def wait(state: RetryCallState) -> float:
            error = _error(state)
            # The throttled wait where all requests wait; a new token is worth nothing later.
            if isinstance(error, _Renewable | Throttled):
                return 0.0
            asked = error.retry_after if isinstance(error, RegistryError) else None
            return max(waits(state), min(asked or 0.0, timeouts.longest_wait))

        def stop(state: RetryCallState) -> bool:
            match _error(state):
                case _Renewable():
                    limit = _AUTH_ATTEMPTS
                case Throttled():
                    limit = timeouts.throttle_attempts
                case DigestMismatch():
                    limit = _MISMATCH_ATTEMPTS
                case _:
                    limit = timeouts.attempts if attempts is None else attempts
            return state.attempt_number >= limit

        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_retryable),
            stop=stop,
            wait=wait,
            sleep=self._clock.sleep,
            reraise=True,
        )

        async def attempt() -> T:
            return await work()

        try:
            return await retrying(attempt)
        except _Renewable as error:
            raise _copied(error, Unauthorized) from None

    async def ask(
        self, auth: Authenticator, request: Request, *, seen: Seen | None = None
    ) -> Answer:
        """One attempt: authorised, sent, judged. Called within a turn of the transport's.

        `seen` is shown the answer before it is judged, whatever it is.
        """
        headers = request.headers
        authorization = await auth.authorise(request.path)
        if authorization is not None:
            headers = {**headers, "Authorization": authorization}
        answer = await self.transport.send(request.method, request.url, headers, once=request.once)
        try:
            if seen is not None:
                await seen(answer)
            accepted = answer.status in request.accept
            error = None if accepted else await self._refused(auth, request, answer, authorization)
        except BaseException:
            answer.close()
            raise
        if error is not None:
            answer.close()
            raise error
        auth.accepted(request.path)
        return answer

    async def document(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        """A small answer whole, for the authenticator; throttling raises Throttled."""
        answer, content = await self.transport.fetch(
            method, url, headers, body=body, limit=1024 * 1024
        )
        if answer.status == 429 or is_throttle(answer.status, answer.headers, content):  # noqa: PLR2004
            error = self._failure(f"{self._registry}: logging in", answer, content, ())
            raise await self._too_many(error, answer, content)
        return Reply(
            answer.status,
            answer.headers,
            answer.headers.getall(_CHALLENGE, ()),
            content,
            answer.url,
            answer.own,
        )

    async def _refused(
        self, auth: Authenticator, request: Request, answer: Answer, sent: str | None
    ) -> RegistryError:
        """The error for an answer that was not asked for, after what it calls for was done."""
        body = await answer.read(ERROR_BODY_LIMIT)
        secrets = [*auth.secrets, *([sent.partition(" ")[2]] if sent else [])]
        error = self._failure(request.subject, answer, body, secrets)
        if isinstance(error, Throttled):
            return await self._too_many(error, answer, body)
        if not isinstance(error, Unauthorized):
            return error
        if sent is None or auth.is_anonymous:
            error.hint = _ANONYMOUS_HINT
        challenges = answer.headers.getall(_CHALLENGE, ())
        # Elsewhere a link has expired; only the registry's own word is about who we are.
        if not answer.own or auth.rejected(request.path, sent, challenges):
            return _copied(error, _Renewable)
        return error

    async def _too_many(self, error: RegistryError, answer: Answer, body: bytes) -> RegistryError:
        """The error for a 429, by which of the two it was; throttling closes the gate."""
        asked = retry_after(body, answer.headers, self._clock.now())
        if classify_429(body, answer.headers) == "throttle":
            await self.transport.throttle.close(asked)
            return error
        return PullLimitReached(
            error.message, status=error.status, url=error.url, retry_after=asked
        )

    def _failure(
        self, subject: str, answer: Answer, body: bytes, secrets: Collection[str]
    ) -> RegistryError:
        return failure(
            subject,
            answer.url,
            answer.status,
            answer.headers,
            body,
            now=self._clock.now(),
            secrets=secrets,
        )


def _copied(error: Unauthorized, kind: type[Unauthorized]) -> Unauthorized:
    return kind(error.message, status=error.status, url=error.url, code=error.code, hint=error.hint)


def refuse_page(subject: str, answer: Answer) -> None:
    """Raise ServerFault if a web page came, of which a registry sends none."""
    if looks_like_html(answer.headers.get("Content-Type", ""), b""):
        raise no_registry(subject, answer.url, answer.status)


def refuse_encoding(subject: str, answer: Answer) -> None:
    """Raise ServerFault for a body that is encoded: its bytes are not what the digest is over."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ServerFault(
            f"{subject}: {answer.url.raw_host} sent Content-Encoding {sanitise(encoding, 40)} "
            "though identity was asked for",
            status=answer.status,
            url=redact(answer.url),
        )


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, PrefetchError) and error.retryable
