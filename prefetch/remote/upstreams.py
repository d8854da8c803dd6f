"""The registries of one run: a client for each registry and login, made when first asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prefetch.credentials.credential import Login
from prefetch.credentials.keychain import Keychain
from prefetch.oci.reference import Repository
from prefetch.remote.registry import RegistryClient
from prefetch.remote.settings import RegistrySettings

Connect = Callable[[RegistrySettings, Login | None], Awaitable[RegistryClient]]


class Upstreams:
    """Hands out clients, and closes them all.

    `settings` answers how a registry is spoken to; `connect` makes a client.
    """

    def __init__(
        self,
        settings: Callable[[str], RegistrySettings],
        keychain: Keychain,
        connect: Connect,
    ) -> None:
        self.settings = settings
        self._keychain = keychain
        self._connect = connect
        self._clients: dict[tuple[str, Login | None], asyncio.Task[RegistryClient]] = {}

    async def client(self, registry: str, repository: str | None = None) -> RegistryClient:
        """The client for a registry, with the login that its `repository` (a path) asks for.

        Raises CredentialError and ConfigError. Repositories with the same login share a client.
        """
        login = await self._keychain.resolve(registry, repository)
        key = (registry, login)
        task = self._clients.get(key)
        if task is None:
            task = asyncio.ensure_future(self._open(registry, login))
            self._clients[key] = task
        return await asyncio.shield(task)

    def try_next_login(self, repository: Repository) -> bool:
        """Show a repository another login from now on; False where there is no other."""
        return self._keychain.reject(repository)

    def renew_logins(self) -> None:
        """Look up credentials anew; a login that has changed gets a client of its own."""
        self._keychain.forget()

    async def client_for(self, repository: Repository) -> RegistryClient:
        """The client for one repository."""
        return await self.client(repository.registry, repository.path)

    async def _open(self, registry: str, login: Login | None) -> RegistryClient:
        return await self._connect(self.settings(registry), login)

    def opened(self) -> list[RegistryClient]:
        """The clients that this run has used."""
        done = [task for task in self._clients.values() if task.done() and not task.cancelled()]
        return [task.result() for task in done if task.exception() is None]

    async def close(self) -> None:
        """Close every client."""
        for client in self.opened():
            await client.close()
