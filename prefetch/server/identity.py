"""Who asks: users from an Apache htpasswd file, checked against `Authorization: Basic`.

Only bcrypt hashes are taken. They are dear to check, on purpose: that is done on two threads of
their own, once for however many requests say the same, and remembered for a while. What has been
sent is remembered as an HMAC under a key that this process has made up, never as it is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import bcrypt

from prefetch.clock import Clock
from prefetch.errors import ConfigError
from prefetch.server.settings import ANONYMOUS, EVERY_USER, file_version

MAX_FILE: Final = 1 << 20
"""Bytes of an htpasswd file that are read at most."""
MAX_HEADER: Final = 4096
"""Characters of an Authorization header beyond which it is nobody's."""
MAX_WAITING: Final = 64
"""Passwords that may wait for a thread; whoever comes then is refused at once."""

_THREADS: Final = 2
_LOOK_AGAIN: Final = 1.0
_GOOD_SECONDS: Final = 300.0
_BAD_SECONDS: Final = 10.0
_MOST_REMEMBERED: Final = 4096
# bcrypt reads no more of a password, and the library refuses to be given more (htpasswd(1)).
_PASSWORD_BYTES: Final = 72
# $2y$<cost>$<salt><hash>; costs as htpasswd(1) takes them. A salt's last digit has two bits only.
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-7])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_SETTINGS: Final = len("$2y$05$")
_NO_HASH: Final = "." * 53
_SHOWN: Final = 80
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: a user's name, or `anonymous`.

    `failed` tells whoever showed a name and a password that were not accepted from whoever showed
    none; both are anonymous.
    """

    name: str
    failed: bool = False


NOBODY: Final = Identity(ANONYMOUS)
REFUSED: Final = Identity(ANONYMOUS, failed=True)


@dataclass(frozen=True, slots=True)
class _Login:
    name: str
    password: bytes = field(repr=False)


class Htpasswd:
    """The users of an htpasswd file, as the file is now.

    Reads the file at once, on the caller's thread: raises ConfigError, one line, when it cannot be
    read or an entry cannot be used. Later it is looked at when somebody asks, at most once a
    second; a file that is broken by then changes nothing, and `warn` is given one line about it.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        warn: Callable[[str], None],
    ) -> None:
        self._path = path
        self._clock = clock
        self._warn = warn
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="htpasswd")
        self._closed = False
        self._version = file_version(path)
        self._checks = _Checks(read_users(path), self._clock)
        self._looked = self._clock.monotonic()

    @property
    def users(self) -> frozenset[str]:
        """Their names."""
        return frozenset(self._checks.hashes)

    async def authenticate(self, header: str | None) -> Identity:
        """Who sends this Authorization header (RFC 7617); None is a request without one.

        Nobody: what is not Basic, malformed or too long, and an empty name with an empty password,
        which some clients send for want of any. Refused: a name and a password that are no user's,
        or that would have to wait for too many others.
        """
        if header is None or len(header) > MAX_HEADER:
            return NOBODY
        await self._look()
        checks = self._checks
        key = checks.key(header)
        known = checks.find(key)
        if known is not None:
            return known
        under_way = checks.under_way.get(key)
        if under_way is None:
            login = _parse(header)
            if login is None:
                return NOBODY
            if self._closed or len(checks.under_way) >= MAX_WAITING + _THREADS:
                return REFUSED
            under_way = self._start(checks, key, login)
        # Whoever goes away does not take the answer from the others.
        return await asyncio.shield(under_way)

    async def close(self) -> None:
        """Refuse everybody from now on, and end the threads."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)

    def _start(self, checks: _Checks, key: bytes, login: _Login) -> asyncio.Future[Identity]:
        def check() -> Identity:
            return REFUSED if self._closed else checks.check(login)

        started = asyncio.get_running_loop().run_in_executor(self._pool, check)
        checks.under_way[key] = started
        started.add_done_callback(lambda done: checks.finish(key, done))
        return started

    async def _look(self) -> None:
        """Read the file again if it has changed; whoever comes meanwhile gets the old users."""
        now = self._clock.monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        version = file_version(self._path)  # one stat a second: not worth a thread
        if version == self._version:
            return
        found = await asyncio.to_thread(_users_or_fault, self._path)
        if file_version(self._path) != version:
            return  # somebody is still writing it: look again
        self._version = version
        if isinstance(found, ConfigError):
            self._warn(f"the users stay as they were: {found}")
        else:
            self._checks = _Checks(found, self._clock)


class _Checks:
    """What is known about one version of the file: its users, and who has been checked.

    It is left behind as a whole when the file changes, with the checks that are under way.
    """

    def __init__(self, hashes: Mapping[str, bytes], clock: Clock) -> None:
        self.hashes = hashes
        self.under_way: dict[bytes, asyncio.Future[Identity]] = {}
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        # Two, so that a flood of wrong passwords does not push the right ones out.
        self._good: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._bad: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._decoys = tuple(value[:_SETTINGS] + _NO_HASH.encode() for value in hashes.values())

    def key(self, header: str) -> bytes:
        """Under which a header's answer is remembered."""
        return hmac.digest(self._secret, header.encode(errors="surrogatepass"), hashlib.sha256)

    def find(self, key: bytes) -> Identity | None:
        """What has been found out, while it holds."""
        for answers in (self._good, self._bad):
            found = answers.get(key)
            if found is not None:
                if self._clock.monotonic() < found[0]:
                    return found[1]
                del answers[key]
        return None

    def check(self, login: _Login) -> Identity:
        """Check a password; on a thread. No name tells by the time it takes whether it is known."""
        known = self.hashes.get(login.name)
        stored = known or self._decoy(login.name)
        right = stored is not None and bcrypt.checkpw(login.password[:_PASSWORD_BYTES], stored)
        return Identity(login.name) if right and known is not None else REFUSED

    def finish(self, key: bytes, done: asyncio.Future[Identity]) -> None:
        """Remember what a check has found out."""
        self.under_way.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        found = done.result()
        answers, seconds = (
            (self._bad, _BAD_SECONDS) if found.failed else (self._good, _GOOD_SECONDS)
        )
        answers[key] = (self._clock.monotonic() + seconds, found)
        while len(answers) > _MOST_REMEMBERED:
            answers.popitem(last=False)

    def _decoy(self, name: str) -> bytes | None:
        """A hash that no password has, as dear as that of some user: always the same one's."""
        if not self._decoys:
            return None
        chosen = hmac.digest(self._secret, name.encode(), hashlib.sha256)
        return self._decoys[int.from_bytes(chosen[:8]) % len(self._decoys)]


def read_users(path: Path) -> dict[str, bytes]:
    """The names in an htpasswd file with their bcrypt hashes.

    Blocks. Raises ConfigError, which shows no hash.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"serve.htpasswd_file: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path}: larger than {MAX_FILE} bytes")
    users: dict[str, bytes] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            name, hashed = _entry(entry, f"{path}:{number}")
            if name in users:
                raise ConfigError(f"{path}:{number}: the user {_shown(name)} is there twice")
            users[name] = hashed
    return users


def _users_or_fault(path: Path) -> dict[str, bytes] | ConfigError:
    try:
        return read_users(path)
    except ConfigError as error:
        return error


def _entry(entry: str, where: str) -> tuple[str, bytes]:
    name, colon, hashed = entry.partition(":")
    if not colon or not name or _CONTROLS.search(name):
        raise ConfigError(f"{where}: expected a user's name, a colon and a bcrypt hash")
    if name in (ANONYMOUS, EVERY_USER):
        raise ConfigError(f"{where}: no user can be called {_shown(name)}, which has a meaning")
    if not _BCRYPT.fullmatch(hashed):
        raise ConfigError(
            f"{where}: the password of the user {_shown(name)} is no bcrypt hash of cost 4 to 17",
            hint="make it with `htpasswd -B`",
        )
    return name, hashed.encode()


def _parse(header: str) -> _Login | None:
    """The name and password of a Basic header (RFC 7617, section 2); None for anything else."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(token.strip(" "), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    if not colon or not (name or password) or _CONTROLS.search(text):
        return None
    return _Login(name, password.encode())


def _shown(name: str) -> str:
    return ascii(name)[:_SHOWN]
