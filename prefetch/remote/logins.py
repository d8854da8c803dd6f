"""Logging in: what is asked of a token service, and when to stop asking.

Registries lock accounts and addresses after a few failed logins, so a login that was refused is
left alone for a while, and never replaced by anonymous requests, which another meter would pay for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from yarl import URL

from prefetch.clock import Clock
from prefetch.credentials.credential import Credential, IdentityToken, Login
from prefetch.errors import RegistryError, Unauthorized

CLIENT_ID: Final = "prefetch"
# What Docker's credential helpers put in place of a user name before an identity token.
TOKEN_USER: Final = "<token>"  # noqa: S105

_DOUBTS: Final = 3
_REFUSED_FOR: Final = 900.0
_BATCH: Final = 20
_BATCH_LENGTH: Final = 4000


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to a token service; `body` is a form, for a POST."""

    method: str
    url: URL
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


def scope(path: str) -> str:
    """The scope of a pull: always the repository's own, whatever a challenge advertises."""
    return f"repository:{path}:pull"


def batches(paths: Sequence[str]) -> Iterator[list[str]]:
    """Repositories to ask a token for together: at most 20, and what a URL may safely hold."""
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


def normalised(login: Login | None) -> Login | None:
    """The login, an identity token told by its user name."""
    if isinstance(login, Credential) and login.username == TOKEN_USER:
        return IdentityToken(login.password)
    return login


def basic(login: Login) -> str:
    """The Authorization value of Basic authentication (RFC 7617, in UTF-8)."""
    if not isinstance(login, Credential):
        login = Credential(login.username or TOKEN_USER, login.token)
    return f"Basic {login.basic()}"


def secrets_of(login: Login | None) -> list[str]:
    """What must not be shown, in every form in which it is sent."""
    if login is None:
        return []
    secret = login.password if isinstance(login, Credential) else login.token
    return [secret.reveal(), basic(login).removeprefix("Basic ")]


def by_get(
    realm: URL, service: str | None, scopes: Iterable[str], login: Login | None
) -> TokenRequest:
    """The Docker token flow: a GET, with Basic authentication if there is a login."""
    query = [("service", service)] if service else []
    query += [("scope", one) for one in scopes]
    headers = {"Accept": "application/json"}
    if login is not None:
        headers["Authorization"] = basic(login)
        if login.username:
            query.append(("account", login.username))
    return TokenRequest("GET", realm.extend_query(query), headers)


def by_post(
    realm: URL, service: str | None, scopes: Iterable[str], login: IdentityToken
) -> TokenRequest:
    """The OAuth2 flow: a POST that trades the identity token for an access token."""
    form = {
        "grant_type": "refresh_token",
        "service": service or "",
        "client_id": CLIENT_ID,
        "scope": " ".join(scopes),
        "refresh_token": login.token.reveal(),
    }
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return TokenRequest("POST", realm, headers, urlencode(form).encode())


class LoginRecord:
    """What became of one login at one registry.

    A refusal holds for a quarter of an hour: longer than the registries lock for, so that a server
    that runs for months gets over it once the account is in order again.
    """

    def __init__(self, registry: str, login: Login | None, clock: Clock) -> None:
        self._registry = registry
        self._login = login
        self._clock = clock
        self._granted = False
        self._doubts = 0
        self._failure: tuple[str, str | None, float] | None = None

    def check(self) -> None:
        """Raise Unauthorized if the login has failed lately."""
        if self._failure is not None:
            why, url, at = self._failure
            if self._clock.monotonic() - at >= _REFUSED_FOR:
                self._failure, self._doubts = None, 0
                return
            raise Unauthorized(
                f"{self._registry} refuses the login{self._of_whom()} {why}",
                status=401,
                url=url,
                hint="check the credentials; nothing is fetched anonymously in their place",
            )

    def granted(self) -> None:
        """The login was accepted."""
        self._granted = True

    def refused(self, error: RegistryError) -> RegistryError:
        """The error to raise for a refusal of the login service's; remembers a failed login.

        401 (and, to an identity token, 400) is a failed login. Some services say 403 for that,
        others for a single repository: three without a success in between are taken for the former.
        """
        if self._login is None:
            return error
        failed = error.status == 401 or (  # noqa: PLR2004
            error.status == 400 and isinstance(self._login, IdentityToken)  # noqa: PLR2004
        )
        if not failed:
            self.doubted()
        if failed or self._doubts >= _DOUBTS:
            self._fail(f"({error.message})", error.url)
            self.check()
        return error

    def doubted(self) -> None:
        """A request was refused that was sent with the login, which has never helped so far."""
        if self._login is not None and not self._granted:
            self._doubts += 1
            if self._doubts >= _DOUBTS:
                self._fail("for every request so far", None)

    def _fail(self, why: str, url: str | None) -> None:
        self._failure = why, url, self._clock.monotonic()

    def _of_whom(self) -> str:
        user = self._login.username if self._login is not None else ""
        return f" of {user!r}" if user else ""
