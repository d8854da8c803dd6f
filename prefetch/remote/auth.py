"""Who we are to one registry: challenges answered, tokens kept, shared and renewed.

Tokens follow distribution's "Token Authentication" and "OAuth2 Token Authentication". One token
may cover several repositories; where a registry turns out not to honour that, each gets its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from yarl import URL

from prefetch.clock import Clock
from prefetch.credentials.credential import IdentityToken, Login
from prefetch.errors import ForbiddenAddress, RegistryError, ServerFault, Throttled, Unauthorized
from prefetch.remote.addresses import Guard, same_host, untrusted_url
from prefetch.remote.challenges import Challenge, parse_challenges
from prefetch.remote.faults import failure, sanitise
from prefetch.remote.logins import (
    LoginRecord,
    TokenRequest,
    basic,
    by_get,
    by_post,
    normalised,
    scope,
    secrets_of,
)
from prefetch.remote.tokens import Token, parse_token

_BATCH: Final = 20
_BATCH_LENGTH: Final = 4000
_AT_ONCE: Final = 4
_UNSUPPORTED_POST: Final = (404, 405)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole small answer; `own` is false when a redirect has led to another origin."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    challenges: Sequence[str]
    body: bytes = field(repr=False)
    url: URL
    own: bool


@dataclass(frozen=True, slots=True)
class _Fetch:
    """A token request under way."""

    group: frozenset[str]
    task: asyncio.Task[Token]


class Send(Protocol):
    """Sends one request and reads its answer; raises NetworkError and the like, never for 4xx."""

    async def __call__(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply: ...


class Authenticator:
    """Gives each request to a registry its Authorization.

    `login` is None for anonymous. All methods may be called concurrently; equal wishes become
    one request. They raise Unauthorized, ForbiddenAddress, ServerFault, Throttled, NetworkError.
    """

    def __init__(
        self,
        registry: str,
        endpoint: URL,
        login: Login | None,
        *,
        guard: Guard,
        send: Send,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._endpoint = endpoint
        self._login = normalised(login)
        self._record = LoginRecord(registry, self._login)
        self._guard = guard
        self._send = send
        self._clock = clock
        self._discovering = asyncio.Lock()
        self._discovered = False
        self._basic: str | None = None
        self._realm: tuple[URL, str | None] | None = None
        self._posting = isinstance(self._login, IdentityToken)
        self._batching = True
        self._tokens: dict[str, Token] = {}
        self._accepted: set[str] = set()
        self._doubted: set[str] = set()
        self._fetching: dict[str, _Fetch] = {}

    @property
    def is_anonymous(self) -> bool:
        return self._login is None

    @property
    def secrets(self) -> list[str]:
        """What no message may repeat."""
        tokens = {token.header.removeprefix("Bearer ") for token in self._tokens.values()}
        return [*secrets_of(self._login), *tokens]

    async def authorise(self, path: str) -> str | None:
        """The Authorization value for a request to a repository; None where none is needed."""
        token = self._tokens.get(path)
        if token is not None and self._clock.monotonic() < token.renew_at:
            return token.header
        self._record.check()
        await self._discover()
        if self._realm is not None:
            return (await self._token(path)).header
        return self._basic

    async def prepare(self, paths: Iterable[str]) -> None:
        """Ask tokens for several repositories together, ahead of their requests.

        What a repository alone is refused for is left to its own requests to find out.
        """
        self._record.check()
        await self._discover()
        now = self._clock.monotonic()
        lacking = [
            path
            for path in dict.fromkeys(paths)
            if path not in self._tokens or now >= self._tokens[path].renew_at
        ]
        first, *others = list(_batches(lacking)) or [[]]
        # The first shows whether the service grants several at all.
        for some in [[first], *(others[n : n + _AT_ONCE] for n in range(0, len(others), _AT_ONCE))]:
            if self._realm is None or not self._batching:
                return
            await asyncio.gather(*(self._prepare(batch) for batch in some if len(batch) > 1))

    async def _prepare(self, batch: Sequence[str]) -> None:
        try:
            await asyncio.shield(self._start(frozenset(batch)).task)
        except Unauthorized:
            self._record.check()

    def accepted(self, path: str) -> None:
        """The registry has answered a request for the repository as it should."""
        if path not in self._accepted:
            self._accepted.add(path)
            if path in self._doubted:
                # Its own token works where the shared one did not: this service shares none.
                self._batching = False

    def rejected(self, path: str, sent: str | None, challenges: Sequence[str]) -> bool:
        """The registry itself has refused (401, 403) a request; whether to try once more.

        A token that has worked before has expired, one for several repositories may not hold for
        this one, and a registry that asked for nothing so far may ask now. A fresh token of the
        repository's own says that it is not for us.
        """
        if sent is None:
            known = self._basic
            self._adopt(parse_challenges(challenges))
            if self._basic != known:
                self._discovered = False  # the login has yet to be proved
            return self._realm is not None or self._basic is not None
        if sent == self._basic:
            if not self._accepted:
                self._record.doubted()
            return False
        token = self._tokens.get(path)
        if token is None or token.header != sent:
            return self._realm is not None
        shared = len(token.paths) > 1
        if not shared and path not in self._accepted:
            return False
        del self._tokens[path]
        if shared and path not in self._accepted:
            self._doubted.add(path)
        self._accepted.discard(path)
        return True

    async def close(self) -> None:
        """Give up the token requests that are under way."""
        tasks = {fetch.task for fetch in self._fetching.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _discover(self) -> None:
        """Learn what the registry asks for, with one request (distribution-spec, end-1)."""
        async with self._discovering:
            if self._discovered:
                return
            url = self._endpoint / "v2/"
            reply = await self._send("GET", url, {})
            if reply.status == 401 and reply.own:  # noqa: PLR2004
                self._adopt(parse_challenges(reply.challenges))
            else:
                self._raise_passing(reply)
            if self._basic is not None:
                await self._prove(url, self._basic, challenged=reply.status == 401)  # noqa: PLR2004
            self._discovered = True

    async def _prove(self, url: URL, header: str, *, challenged: bool) -> None:
        """Log in once, before many requests at a time do so in vain."""
        reply = await self._send("GET", url, {"Authorization": header})
        if reply.status == 401 and reply.own:  # noqa: PLR2004
            raise self._record.refused(self._failure(self._registry, reply))
        self._raise_passing(reply)
        if challenged:
            self._record.granted()

    def _adopt(self, challenges: Sequence[Challenge]) -> None:
        """Take up the first challenge that can be answered: Bearer, then Basic."""
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if bearer := by_scheme.get("bearer"):
            self._realm = self._checked_realm(bearer), bearer.parameters.get("service")
        elif "basic" in by_scheme:
            self._basic = None if self._login is None else basic(self._login)
        elif challenges:
            raise Unauthorized(
                f"{self._registry} asks for {sanitise(challenges[0].scheme, 40)} authentication",
                status=401,
                hint="only Basic and Bearer are supported",
            )

    def _checked_realm(self, challenge: Challenge) -> URL:
        """The token service's URL, if credentials may go there. Nothing is sent before this."""
        text = challenge.parameters.get("realm", "")
        realm = untrusted_url(text)
        if realm is None or not realm.raw_host:
            raise RegistryError(
                f"{self._registry} names no usable token service: {sanitise(text)!r}"
            )
        self._guard.check(realm)
        host, own = realm.raw_host, self._endpoint.raw_host or ""
        plain = self._endpoint.scheme == "http" and same_host(host, own)
        if realm.scheme != "https" and not plain:
            raise ForbiddenAddress(
                f"{self._registry} wants tokens fetched from {sanitise(host)} "
                "without TLS, which is refused"
            )
        return realm.with_fragment(None)

    async def _token(self, path: str) -> Token:
        fetch = self._fetching.get(path)
        if fetch is None:
            known = self._tokens.get(path)
            together = known.paths if known is not None and self._batching else {path}
            fetch = self._start(frozenset(together))
        try:
            return await asyncio.shield(fetch.task)
        except Unauthorized:
            # Refused for several together: perhaps because of another one of them.
            if len(fetch.group) == 1:
                raise
        return await self._token(path)

    def _start(self, group: frozenset[str]) -> _Fetch:
        """Fetch a token for a group of repositories; who asks for one of them waits for this."""
        fetch = _Fetch(group, asyncio.create_task(self._fetch(group)))
        self._fetching.update(dict.fromkeys(group, fetch))
        fetch.task.add_done_callback(lambda _: self._fetched(fetch))
        return fetch

    def _fetched(self, fetch: _Fetch) -> None:
        for path in fetch.group:
            if self._fetching.get(path) is fetch:
                del self._fetching[path]
        task = fetch.task
        if not task.cancelled() and task.exception() is None:
            self._tokens.update(dict.fromkeys(fetch.group, task.result()))

    async def _fetch(self, group: frozenset[str]) -> Token:
        self._record.check()
        now, monotonic = self._clock.now(), self._clock.monotonic()
        reply = await self._ask(group)
        ok = 200
        if reply.status == ok:
            self._record.granted()
            service = sanitise(reply.url.raw_host or "")
            return parse_token(reply.body, group, service=service, now=now, monotonic=monotonic)
        name = next(iter(group)) if len(group) == 1 else f"{len(group)} repositories"
        error = self._failure(f"a token for {self._registry}/{name}", reply)
        if len(group) > 1 and not isinstance(error, Throttled | ServerFault):
            self._batching = False
            error = Unauthorized(error.message, status=error.status, url=error.url)
            if reply.status != 401:  # noqa: PLR2004
                raise error
        raise self._record.refused(error) if isinstance(error, Unauthorized) else error

    async def _ask(self, group: frozenset[str]) -> Reply:
        if self._realm is None:
            raise ServerFault(f"{self._registry} names no token service")
        realm, service = self._realm
        scopes = [scope(path) for path in sorted(group)]
        if self._posting and isinstance(self._login, IdentityToken):
            reply = await self._sent(by_post(realm, service, scopes, self._login))
            if reply.status not in _UNSUPPORTED_POST:
                return reply
            self._posting = False
        return await self._sent(by_get(realm, service, scopes, self._login))

    async def _sent(self, request: TokenRequest) -> Reply:
        return await self._send(request.method, request.url, request.headers, request.body)

    def _raise_passing(self, reply: Reply) -> None:
        """Raise for an answer that says nothing about us, only about the moment."""
        error = self._failure(self._registry, reply)
        if reply.status >= 400 and isinstance(error, Throttled | ServerFault):  # noqa: PLR2004
            raise error

    def _failure(self, subject: str, reply: Reply) -> RegistryError:
        return failure(
            subject,
            reply.url,
            reply.status,
            reply.headers,
            reply.body,
            now=self._clock.now(),
            secrets=self.secrets,
        )


def _batches(paths: Sequence[str]) -> Iterable[list[str]]:
    """At most 20 repositories each, and no longer than a URL may safely be."""
    batch: list[str] = []
    length = 0
    for path in paths:
        length += len(scope(path)) + len("&scope=")
        if batch and (len(batch) == _BATCH or length > _BATCH_LENGTH):
            yield batch
            batch, length = [], len(scope(path))
        batch.append(path)
    if batch:
        yield batch
