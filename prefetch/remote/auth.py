"""Who we are to one registry: challenges answered, tokens kept, shared and renewed.

Tokens follow distribution's "Token Authentication" and "OAuth2 Token Authentication". One token
may cover several repositories; where a registry turns out not to honour that, each gets its own.
A login is shown to a registry that asks for none, too (RFC 7617 section 2.2): whose pulls these
are must not depend on whether it asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from yarl import URL

from prefetch.clock import Clock
from prefetch.credentials.credential import IdentityToken, Login
from prefetch.errors import (
    ForbiddenAddress,
    Misrouted,
    RegistryError,
    ServerFault,
    Throttled,
    Unauthorized,
)
from prefetch.remote.addresses import Guard, same_host, untrusted_url
from prefetch.remote.challenges import Challenge, parse_challenges
from prefetch.remote.faults import failure, sanitise
from prefetch.remote.logins import (
    LoginRecord,
    TokenRequest,
    basic,
    batches,
    by_get,
    by_post,
    normalised,
    scope,
    secrets_of,
)
from prefetch.remote.tokens import Token, parse_token
from prefetch.tasks import end_all

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
        self._record = LoginRecord(registry, self._login, clock)
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
        # Repositories whose requests were answered: since the last refusal, and ever.
        self._accepted: set[str] = set()
        self._known: set[str] = set()
        # The shared token that a repository was refused with; those that had a second one.
        self._doubted: dict[str, str] = {}
        self._renewed: set[str] = set()
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
        first, *others = list(batches(lacking)) or [[]]
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
            self._known.add(path)
            self._renewed.discard(path)
            if path in self._doubted:
                # Its own token works where the shared one did not: this service shares none.
                self._batching = False

    def rejected(
        self, path: str, sent: str | None, challenges: Sequence[str], *, counted: bool
    ) -> bool:
        """The registry itself has refused (401, 403) a request; whether to try once more.

        A token that has worked before has expired, one for several repositories may not hold for
        this one, and a registry that asked for nothing so far may ask now. A token of the
        repository's own that has never worked may have been revoked before its first use: it is
        renewed once, but for no `counted` request, which would be spent in vain if it was not.
        """
        asked = parse_challenges(challenges)
        if sent is None:
            self._adopt(asked)
            return self._realm is not None
        if sent == self._basic:
            return self._basic_rejected(asked)
        token = self._tokens.get(path)
        if token is None or token.header != sent:
            # It has been renewed meanwhile.
            return not counted or path in self._known or self._doubted.get(path) == sent
        if path not in self._accepted:
            if len(token.paths) > 1:
                self._doubted[path] = sent
            elif counted or path in self._renewed or _is_out_of_scope(asked):
                return False
            else:
                self._renewed.add(path)
        del self._tokens[path]
        self._accepted.discard(path)
        return True

    def _basic_rejected(self, challenges: Sequence[Challenge]) -> bool:
        """Whether to try with a token what was refused with the login itself."""
        if self._realm is None and not self._adopt_bearer(challenges):
            # Without a challenge it is the repository that is refused, not the login.
            if challenges and not self._accepted:
                self._record.doubted()
            return False
        return True

    async def close(self) -> None:
        """Give up the token requests that are under way."""
        await end_all({fetch.task for fetch in self._fetching.values()})

    async def _discover(self) -> None:
        """Learn what the registry asks for, with one request (distribution-spec, end-1)."""
        async with self._discovering:
            if self._discovered:
                return
            url = self._endpoint / "v2/"
            reply = await self._send("GET", url, {})
            challenged = reply.status == 401 and reply.own  # noqa: PLR2004
            if challenged:
                self._adopt(parse_challenges(reply.challenges))
            else:
                self._raise_passing(reply)
            if self._login is not None and self._realm is None:
                await self._prove(url, self._login, challenged=challenged)
            self._discovered = True

    async def _prove(self, url: URL, login: Login, *, challenged: bool) -> None:
        """Log in once by Basic, before many requests at a time do so in vain.

        An open door that refuses the login with a Bearer challenge wants it elsewhere.
        """
        header = basic(login)
        reply = await self._send("GET", url, {"Authorization": header})
        if reply.status == 401 and reply.own:  # noqa: PLR2004
            if challenged or not self._adopt_bearer(parse_challenges(reply.challenges)):
                raise self._record.refused(self._failure(self._registry, reply))
            return
        self._raise_passing(reply)
        self._basic = header
        if challenged:
            self._record.granted()

    def _adopt(self, challenges: Sequence[Challenge]) -> None:
        """Take up a challenge that can be answered: Bearer; Basic is for `_prove`."""
        if self._adopt_bearer(challenges) or any(each.scheme == "basic" for each in challenges):
            return
        if challenges:
            raise Unauthorized(
                f"{self._registry} asks for {sanitise(challenges[0].scheme, 40)} authentication",
                status=401,
                hint="only Basic and Bearer are supported",
            )

    def _adopt_bearer(self, challenges: Sequence[Challenge]) -> bool:
        """Go on with tokens if a challenge says so."""
        bearer = next((each for each in challenges if each.scheme == "bearer"), None)
        if bearer is None:
            return False
        self._realm = self._checked_realm(bearer), bearer.parameters.get("service")
        return True

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
        """Raise for an answer that says nothing about us, only about the moment or the way.

        A web page in place of the registry is shown no login.
        """
        error = self._failure(self._registry, reply)
        passing = reply.status >= 400 and isinstance(error, Throttled | ServerFault)  # noqa: PLR2004
        if passing or (self._login is not None and isinstance(error, Misrouted)):
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


def _is_out_of_scope(challenges: Iterable[Challenge]) -> bool:
    """Whether a token was good, and is not for this repository (RFC 6750 section 3.1)."""
    return any(each.parameters.get("error") == "insufficient_scope" for each in challenges)
