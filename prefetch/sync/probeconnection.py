"""What comes before any content: address, TLS, the API, credentials, and whether it is `serve`.

`prefetch serve` is known by what it does. `/readyz` answers in its words, and a HEAD of what
nobody can have, with `only-if-cached`, is 504: so nothing between here and there has dropped the
header that keeps the probe from being a pull. Its `Server` header would tell less, since proxies
write their own.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Final

from prefetch.errors import NetworkError, PrefetchError
from prefetch.oci.distribution import PING_PATH, manifest_path
from prefetch.remote.challenges import parse_challenges
from prefetch.remote.direct import DirectServer, OtherName, Reply
from prefetch.remote.faults import looks_like_html, sanitise
from prefetch.sync.probe import Step
from prefetch.sync.probereplies import is_not_here, redirected

# A registry that cannot be (RFC 6761): were the header dropped, `serve` would know of no upstream.
_NOWHERE: Final = manifest_path("probe.invalid/prefetch/probe", "none")
_READY: Final = re.compile(r"ready|draining|not ready: [^\n]{1,200}")
_SHORT: Final = 4096
_ADVICE: Final = {
    "draining": "it is about to end; ask again when it has been started",
    "not ready": "see its log, and docs/operations.md",
}


@dataclass(slots=True)
class Introduction:
    """What was found.

    `usable` says that content can be asked for, `ours` that it is `prefetch serve` and heeds
    only-if-cached. `login` is who the credentials that it has accepted belong to.
    """

    steps: list[Step] = field(default_factory=list)
    usable: bool = False
    ours: bool = False
    wants_login: bool = False
    login: str | None = None


class _Failed(Exception):
    """The step has failed, and what comes after it cannot be asked for."""


class Introducer:
    """Meets a server; `any_registry`: one that is not `prefetch serve` will do."""

    def __init__(
        self, server: DirectServer, *, any_registry: bool, now: Callable[[], datetime]
    ) -> None:
        self._server = server
        self._any_registry = any_registry
        self._now = now
        self._found = Introduction()

    async def meet(self) -> Introduction:
        """Take all the steps, up to the first that the others need."""
        try:
            await self._reach()
            await self._shake_hands()
            await self._api()
            await self._credentials()
            await self._readiness()
            self._found.usable = self._found.ours or self._any_registry
        except _Failed:
            pass
        return self._found

    async def _reach(self) -> None:
        try:
            address = await self._server.connect()
        except PrefetchError as error:
            raise self._fail("address", str(error)) from None
        self._note("address", f"{self._server.where} answers at {address}")

    async def _shake_hands(self) -> None:
        if not self._server.secure:
            self._note("tls", "plain HTTP")
            return
        try:
            shown = await self._server.handshake()
        except (OtherName, ssl.SSLError, PrefetchError) as error:
            raise self._fail("tls", self._tls_fault(error)) from None
        if shown.expires is None:
            self._note("tls", f"{shown.protocol}, the certificate is not checked")
            return
        days = (shown.expires - self._now()).days
        self._note("tls", f"{shown.protocol}, the certificate is valid for {_days(days)}")

    def _tls_fault(self, error: Exception) -> str:
        where, host = self._server.where, self._server.url.host
        match error:
            case OtherName():
                names = ", ".join(error.names) or "nobody"
                return (
                    f"the certificate is not for {host}, but for {names}: use such a name, or "
                    "have it issued for this one, too"
                )
            case ssl.SSLCertVerificationError():
                reason = sanitise(error.verify_message)
                return (
                    f"the certificate of {where} is not trusted: {reason} (name its authority "
                    "with --ca-file, here and on the nodes)"
                )
            case ssl.SSLError():
                reason = sanitise(error.reason or str(error))
                return f"TLS with {where} failed: {reason} (a cache without TLS is http://)"
            case _:
                return str(error)

    async def _api(self) -> None:
        """`/v2/`, as somebody who has nothing to show."""
        reply = await self._ask("api", "GET", PING_PATH)
        challenges = parse_challenges(reply.headers.getall("WWW-Authenticate", ()))
        schemes = {each.scheme for each in challenges}
        if reply.status == HTTPStatus.OK and not _is_page(reply):
            self._note("api", "/v2/ answers")
        elif reply.status == HTTPStatus.UNAUTHORIZED and "basic" in schemes:
            self._found.wants_login = True
            self._note("api", "/v2/ answers, and asks for credentials (Basic)")
        else:
            raise self._fail("api", _no_api(reply, schemes) + self._other_scheme(reply))

    async def _credentials(self) -> None:
        server, wants = self._server, self._found.wants_login
        if server.credential is None:
            hint = "asked for, none given: what is public is asked for without (--username)"
            self._note("credentials", hint if wants else "none are asked for")
            return
        user = server.credential.username
        if not server.is_private:
            self._miss(
                "credentials",
                f"not sent: {server.url} is plain HTTP, and anybody on the way could read them "
                "(use https://)",
            )
        elif not wants:
            self._note("credentials", "none are asked for; those given are not sent")
        else:
            reply = await self._ask("credentials", "GET", PING_PATH, anonymously=False)
            if reply.status == HTTPStatus.OK:
                self._found.login = user
                self._note("credentials", f"accepted for {user}")
            else:
                self._miss(
                    "credentials",
                    f"not accepted for {user} ({reply.status}): check the name and the password",
                )

    async def _readiness(self) -> None:
        """Whether it is `prefetch serve`, and as it should be."""
        ready = await self._ask("ready", "GET", "/readyz", anonymously=self._found.login is None)
        words = ready.body.decode("utf-8", "replace").strip()
        known = ready.status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
        if not known or ready.more or not _READY.fullmatch(words):
            self._stranger(f"/readyz is {ready.status}, and not as `prefetch serve` has it")
            return
        health = await self._ask("alive", "GET", "/healthz", anonymously=self._found.login is None)
        if health.status != HTTPStatus.OK:
            self._miss("alive", f"/healthz is {health.status}")
        if ready.status == HTTPStatus.OK:
            self._note("ready", "prefetch serve, ready")
        else:
            advice = _ADVICE[words.partition(":")[0]]
            self._miss("ready", f"/readyz is {ready.status}: {words} ({advice})")
        await self._control()

    async def _control(self) -> None:
        """Whether only-if-cached arrives and is heeded, without which a probe might be a pull."""
        reply = await self._ask(
            "only-if-cached", "HEAD", _NOWHERE, anonymously=self._found.login is None
        )
        self._found.ours = is_not_here(reply)
        if self._found.ours:
            self._note("only-if-cached", "heeded: nothing that is asked for here costs a pull")
        else:
            self._stranger(
                f"`only-if-cached` is not heeded ({reply.status}): something in front of the "
                "cache drops the Cache-Control of requests, so a probe could cost pulls",
                step="only-if-cached",
            )

    def _stranger(self, why: str, *, step: str = "ready") -> None:
        """Content is asked for only if that was wanted all the same."""
        if self._any_registry:
            self._note(step, f"{why}; asked all the same (--any-registry)")
        else:
            self._miss(step, f"{why}: no image is asked for (--any-registry asks all the same)")

    async def _ask(self, step: str, method: str, path: str, *, anonymously: bool = True) -> Reply:
        try:
            return await self._server.ask(method, path, limit=_SHORT, anonymously=anonymously)
        except PrefetchError as error:
            raise self._fail(step, f"{error}{self._other_scheme(error)}") from None

    def _other_scheme(self, what: Reply | PrefetchError) -> str:
        """Advice for what a server with TLS does when it is not spoken to so."""
        cut = isinstance(what, NetworkError)
        refused = isinstance(what, Reply) and what.status == HTTPStatus.BAD_REQUEST
        plain = not self._server.secure
        return " (a cache with TLS is https://)" if plain and (cut or refused) else ""

    def _note(self, step: str, message: str) -> None:
        self._found.steps.append(Step(step, True, self._server.clean(message)))

    def _miss(self, step: str, message: str) -> None:
        self._found.steps.append(Step(step, False, self._server.clean(message)))

    def _fail(self, step: str, message: str) -> _Failed:
        self._miss(step, message)
        return _Failed()


def _is_page(reply: Reply) -> bool:
    return looks_like_html(reply.header("Content-Type"), reply.body)


def _no_api(reply: Reply, schemes: set[str]) -> str:
    """What is wrong with an answer to `/v2/`."""
    if reply.status == HTTPStatus.UNAUTHORIZED:
        told = ", ".join(sorted(schemes)) or "no way to show them"
        return f"/v2/ asks for credentials, and names {told}: a cache asks for Basic"
    if HTTPStatus.MULTIPLE_CHOICES <= reply.status < HTTPStatus.BAD_REQUEST:
        return f"/v2/ is {redirected(reply)}"
    what = "a web page" if _is_page(reply) else reply.words
    return f"/v2/ is {reply.status}{f', {what}' if what else ''}: there is no registry here"


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"
