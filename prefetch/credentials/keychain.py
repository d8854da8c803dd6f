"""The keychain: every place where credentials may be, asked in order.

    1. the configuration
    2. what was given for just that repository (a cluster's pull secrets)
    3. $REGISTRY_AUTH_FILE
    4. $XDG_RUNTIME_DIR/containers/auth.json      containers-auth.json(5)
    5. $XDG_CONFIG_HOME/containers/auth.json
    6. $DOCKER_CONFIG/config.json                 docker(1), "Configuration files"

Within a file a registry's helper comes before what the file itself holds, as in both tools.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prefetch.credentials import helper
from prefetch.credentials.authfile import AuthFile, auth_key
from prefetch.credentials.credential import Credential, Login, Secret
from prefetch.errors import CredentialError
from prefetch.oci.reference import Repository
from prefetch.oci.registries import credential_keys

MAX_FILE_SIZE: Final = 1 << 20
"""Bytes of an auth file or a password file that are read at most."""


@dataclass(frozen=True, slots=True)
class Account:
    """What the configuration says of a registry's account.

    The password is in an environment variable or in a file, and is read when it is first needed.
    With neither, an auth file must have this account's credentials.
    """

    username: str
    password_env: str | None = None
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class AuthPath:
    """Where an auth file may be; one that was asked for by name must be there."""

    path: Path
    required: bool = False


def discover(environ: Mapping[str, str]) -> list[AuthPath]:
    """The auth files that skopeo and docker would read, in the keychain's order."""
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - never raises
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    docker = environ.get("DOCKER_CONFIG") or f"{home}/.docker"
    named = environ.get("REGISTRY_AUTH_FILE")
    below = "containers/auth.json" if environ.get("XDG_RUNTIME_DIR") else "auth.json"
    return [
        *([AuthPath(Path(named), required=True)] if named else []),
        AuthPath(Path(runtime, below)),
        AuthPath(Path(config, "containers/auth.json")),
        AuthPath(Path(docker, "config.json")),
    ]


class Keychain:
    """Finds credentials by registry and repository.

    `accounts` are the configuration's, by registry name; `files` default to what `discover` finds
    in `environ`. Everything is read once, when first needed, and kept until `forget`: a run needs
    no more, and a server now and then.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account] | None = None,
        *,
        environ: Mapping[str, str],
        files: Sequence[AuthPath] | None = None,
        helper_timeout: float = helper.TIMEOUT,
    ) -> None:
        self._accounts = {auth_key(name): account for name, account in (accounts or {}).items()}
        self._environ = environ
        self._given: dict[Repository, list[Login]] = {}
        self._paths = discover(environ) if files is None else files
        self._timeout = helper_timeout
        self._files: list[AuthFile] | None = None
        self._passwords: dict[str, Secret] = {}
        self._answers: dict[tuple[str, str], Login | None] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def resolve(self, registry: str, repository: str | None = None) -> Login | None:
        """Credentials for a registry, or for one of its repositories; None for anonymous.

        `registry` is a reference's (`docker.io`), `repository` its path (`library/nginx`).
        Concurrent calls ask a helper once. Raises CredentialError: what is configured and cannot
        be had is never replaced by anonymous.
        """
        async with self._locks.setdefault(auth_key(registry), asyncio.Lock()):
            account = self._accounts.get(auth_key(registry))
            if account is None:
                given = self._given.get(Repository(registry, repository or ""))
                return given[0] if given else await self._from_files(registry, repository)
            if account.password_env is None and account.password_file is None:
                return await self._named(account.username, registry, repository)
            return Credential(account.username, await self._password(account, registry))

    def give(self, logins: Mapping[Repository, Sequence[Login]]) -> None:
        """Take logins for just these repositories, in the order in which they are to be tried.

        They are for a run, and are not forgotten.
        """
        self._given.update({repository: list(some) for repository, some in logins.items()})

    def reject(self, repository: Repository) -> bool:
        """Pass by the login that was given for a repository; whether another one is left."""
        left = self._given.get(repository, [])[1:]
        if not left or auth_key(repository.registry) in self._accounts:
            return False
        self._given[repository] = left
        return True

    def forget(self) -> None:
        """Read everything anew when it is next needed: passwords change, and helpers' answers
        expire.
        """
        self._files = None
        self._passwords.clear()
        self._answers.clear()

    async def _named(self, username: str, registry: str, repository: str | None) -> Login:
        found = await self._from_files(registry, repository)
        if found is None or (found.username or username) != username:
            raise CredentialError(
                f"no credentials found for the user {username} of {registry}",
                hint="set password_env or password_file, or log in with docker or skopeo",
            )
        return found

    async def _password(self, account: Account, registry: str) -> Secret:
        if registry not in self._passwords:
            if account.password_env is not None:
                text = self._environ.get(account.password_env)
                where = f"the environment variable {account.password_env}"
            else:
                path = account.password_file or Path()
                text, where = await asyncio.to_thread(_read_password, path, registry), str(path)
            secret = Secret((text or "").rstrip("\r\n"))
            if not secret:
                raise CredentialError(f"the password for {registry} is missing: {where} is empty")
            self._passwords[registry] = secret
        return self._passwords[registry]

    async def _from_files(self, registry: str, repository: str | None) -> Login | None:
        if self._files is None:
            self._files = await asyncio.to_thread(_read_files, self._paths)
        for file in self._files:
            found = await self._from_helper(file, registry) or file.login(registry, repository)
            if found is not None:
                return found
        return None

    async def _from_helper(self, file: AuthFile, registry: str) -> Login | None:
        name = file.helper(registry)
        if name is None:
            return None
        for server in credential_keys(registry):
            if (name, server) not in self._answers:
                self._answers[name, server] = await helper.ask(
                    name, server, environ=self._environ, timeout=self._timeout
                )
            if (answer := self._answers[name, server]) is not None:
                return answer
        return None


def _read_files(paths: Sequence[AuthPath]) -> list[AuthFile]:
    files = []
    for place in paths:
        data = read_secret_file(place.path, required=place.required)
        if data is not None:
            files.append(AuthFile.parse(data, str(place.path)))
    return files


def _read_password(path: Path, registry: str) -> str:
    try:
        return (read_secret_file(path) or b"").decode()
    except UnicodeDecodeError:
        raise CredentialError(f"{path}: the password for {registry} is not UTF-8") from None


def read_secret_file(path: Path, *, required: bool = True) -> bytes | None:
    """A small file's bytes; None where it is missing and not required. Raises CredentialError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError):
        if not required:
            return None
        raise CredentialError(f"{path}: no such file") from None
    except OSError as error:
        raise CredentialError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_SIZE:
        raise CredentialError(f"{path}: larger than {MAX_FILE_SIZE} bytes")
    return data
