"""Authorised requests, judged: what a registry answers becomes an answer or an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeVar

from yarl import URL

from prefetch.clock import Clock
from prefetch.errors import (
    PullLimitReached,
    RegistryError,
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
from prefetch.remote.retrying import Renewable, retried
from prefetch.remote.tokens import TOKEN_BODY_LIMIT
from prefetch.remote.transport import Answer, Transport

_CHALLENGE: Final = "WWW-Authenticate"
_ANONYMOUS_HINT: Final = "it does not exist, or it takes credentials, and none are configured"
_LINK_HINT: Final = "each link that the registry gave was refused; it may have expired on the way"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the registry.

    `path` is the repository's, `subject` what error messages call it all, `accept` the statuses
    that are an answer; `once` is for what is counted: no resend behind our back, and none with a
    second token where a first has never worked.
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
        """`work`, repeated where that may help; see `retrying`."""
        return await retried(
            work, timeouts=self.transport.timeouts, clock=self._clock, attempts=attempts
        )

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
        """A small answer whole, for the authenticator; throttling closes the gate."""
        answer, content = await self.transport.fetch(
            method, url, headers, body=body, limit=TOKEN_BODY_LIMIT
        )
        if answer.status == 429 or is_throttle(answer.status, answer.headers, content):  # noqa: PLR2004
            asked = retry_after(content, answer.headers, self._clock.now())
            await self.transport.throttled(answer, asked)
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
        if not answer.own:
            error.hint = _LINK_HINT
        elif sent is None or auth.is_anonymous:
            error.hint = _ANONYMOUS_HINT
        challenges = answer.headers.getall(_CHALLENGE, ())
        # Elsewhere a link has expired; only the registry's own word is about who we are.
        if not answer.own:
            return Renewable.of(error)
        if auth.rejected(request.path, sent, challenges, counted=request.once):
            return Renewable.of(error)
        return error

    async def _too_many(self, error: RegistryError, answer: Answer, body: bytes) -> RegistryError:
        """The error for a 429, by which of the two it was; throttling closes the gate."""
        asked = retry_after(body, answer.headers, self._clock.now())
        if classify_429(body, answer.headers) == "throttle":
            await self.transport.throttled(answer, asked)
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


def refuse_page(subject: str, answer: Answer) -> None:
    """Raise Misrouted if a web page came, of which a registry sends none."""
    if looks_like_html(answer.headers.get("Content-Type", ""), b""):
        raise no_registry(subject, answer.url, answer.status)


def refuse_encoding(subject: str, answer: Answer) -> None:
    """Raise RegistryError for an encoded body: its bytes are not what the digest is over."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RegistryError(
            f"{subject}: {answer.url.raw_host} sent Content-Encoding {sanitise(encoding, 40)} "
            "though identity was asked for",
            status=answer.status,
            url=redact(answer.url),
            hint="check for a proxy that compresses what passes through it",
        )
