"""Who asks, and the token service (distribution, "Token Authentication" and its OAuth2 form)."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefetch.clock import Clock, rfc3339
from prefetch.demo.answers import Answer
from prefetch.demo.content import Content
from prefetch.demo.ratelimits import ANONYMOUS

AuthKind = Literal["none", "basic", "token"]

_SERVICE = "registry.demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody with a password, a refresh token, and a pull limit (None: unlimited)."""

    password: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    limit: int | None = 200


@dataclass(frozen=True, kw_only=True)
class AuthSettings:
    """How clients are told apart.

    `auth`: not at all, by Basic, or by Bearer tokens. `anonymous` lets those in who have no
    account. Tokens live for `token_lifetime` seconds and say so in `expires_in`, or say
    `reported_lifetime`, or nothing when that is 0; `token_fields` is where the token stands.
    `several_scopes` allows a token for several repositories. `oauth2` allows POST.
    """

    auth: AuthKind = "token"
    accounts: Mapping[str, Account] = field(default_factory=dict)
    anonymous: bool = True
    token_lifetime: float = 300
    reported_lifetime: int | None = None
    token_fields: tuple[str, ...] = ("token", "access_token")
    several_scopes: bool = True
    oauth2: bool = True


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token stands for."""

    identity: str
    repositories: frozenset[str]
    expires: float


class Doorkeeper:
    """Names the identity behind a request, or answers with a challenge.

    `realm` is the token service's URL; `issued` are all tokens so far, to look for where they leak.
    """

    def __init__(self, settings: AuthSettings, content: Content, clock: Clock) -> None:
        self.settings = settings
        self.realm = ""
        self.issued: list[str] = []
        self._content = content
        self._clock = clock
        self._grants: dict[str, Grant] = {}

    def identify(self, authorization: str | None, repository: str) -> str | Answer:
        """The account's name or `anonymous`; a 401 with its challenge when that will not do."""
        match self.settings.auth:
            case "none":
                return ANONYMOUS
            case "basic":
                return self._identify_basic(authorization, repository)
            case "token":
                return self._identify_bearer(authorization, repository)

    def challenge(
        self, repository: str = "", error: str | None = None, realm: str | None = None
    ) -> Answer:
        """401, naming where a token is to be had and for what scope."""
        answer = Answer.error(401, "UNAUTHORIZED", "authentication required")
        if self.settings.auth == "basic":
            answer.headers["WWW-Authenticate"] = f'Basic realm="{realm or "demo"}"'
            return answer
        words = [f'realm="{realm or self.realm}"', f'service="{_SERVICE}"']
        if repository:
            words.append(f'scope="repository:{repository}:pull"')
        if error:
            words.append(f'error="{error}"')
        answer.headers["WWW-Authenticate"] = f"Bearer {','.join(words)}"
        return answer

    def issue(
        self, authorization: str | None, scopes: Iterable[str], *, offline: bool = False
    ) -> Answer:
        """The token service's GET: `scopes` are the request's `scope` parameters."""
        identity = self._login(authorization)
        if identity is None:
            return Answer.error(401, "UNAUTHORIZED", "incorrect username or password")
        return self._grant(identity, scopes, offline=offline)

    def exchange(self, form: Mapping[str, str]) -> Answer:
        """The token service's POST: grant types `password` and `refresh_token`."""
        if not self.settings.oauth2:
            return Answer.error(404, "NOT_FOUND", "page not found")
        name = self._owner(form)
        if name is None:
            return Answer.error(401, "UNAUTHORIZED", "incorrect credentials")
        return self._grant(name, [form.get("scope", "")], offline=True)

    def revoke(self) -> None:
        """No token is good any more."""
        self._grants.clear()

    def _identify_basic(self, authorization: str | None, repository: str) -> str | Answer:
        identity = self._login(authorization)
        if identity is None or not self._content.readable(repository, identity):
            return self.challenge(repository)
        return identity

    def _identify_bearer(self, authorization: str | None, repository: str) -> str | Answer:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return self.challenge(repository)
        grant = self._grants.get(token)
        if grant is None or grant.expires <= self._clock.monotonic():
            return self.challenge(repository, "invalid_token")
        if repository and repository not in grant.repositories:
            return self.challenge(repository, "insufficient_scope")
        return grant.identity

    def _login(self, authorization: str | None) -> str | None:
        """The identity behind Basic credentials or none at all; None if refused."""
        if authorization is None:
            return ANONYMOUS if self.settings.anonymous else None
        name, password = _basic(authorization)
        account = self.settings.accounts.get(name)
        return name if account and _same(account.password, password) else None

    def _owner(self, form: Mapping[str, str]) -> str | None:
        """Whose password or refresh token a form carries."""
        for name, account in self.settings.accounts.items():
            match form.get("grant_type"):
                case "password" if form.get("username") == name:
                    if _same(account.password, form.get("password", "")):
                        return name
                case "refresh_token" if account.refresh_token:
                    if _same(account.refresh_token, form.get("refresh_token", "")):
                        return name
        return None

    def _grant(self, identity: str, scopes: Iterable[str], *, offline: bool) -> Answer:
        asked = [name for scope in scopes for name in _pullable(scope)]
        if len(asked) > 1 and not self.settings.several_scopes:
            return Answer.error(400, "UNSUPPORTED", "only one scope a token")
        granted = frozenset(name for name in asked if self._content.readable(name, identity))
        token = secrets.token_urlsafe(24)
        self.issued.append(token)
        lifetime = self.settings.token_lifetime
        self._grants[token] = Grant(identity, granted, self._clock.monotonic() + lifetime)
        body: dict[str, Any] = dict.fromkeys(self.settings.token_fields, token)
        reported = self.settings.reported_lifetime
        if reported != 0:
            body["expires_in"] = int(lifetime) if reported is None else reported
            body["issued_at"] = rfc3339(self._clock.now())
        account = self.settings.accounts.get(identity)
        if offline and account and account.refresh_token:
            body["refresh_token"] = account.refresh_token
        return Answer.json(body)


def _pullable(scope: str) -> list[str]:
    """Repositories in `repository:a/b:pull repository:c:pull,push`."""
    words = (word.split(":") for word in scope.split())
    return [
        ":".join(parts[1:-1]) for parts in words if parts[0] == "repository" and "pull" in parts[-1]
    ]


def _basic(authorization: str) -> tuple[str, str]:
    """Name and password of a Basic header; empty when it is none (RFC 7617)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())
