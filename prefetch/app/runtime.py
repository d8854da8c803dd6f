"""Everything that a command needs, opened in order and closed in reverse."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from prefetch.app.offloop import off_loop
from prefetch.app.requests import Place
from prefetch.clock import Clock, SystemClock
from prefetch.config.load import load
from prefetch.config.settings import Settings
from prefetch.credentials.credential import Login
from prefetch.credentials.keychain import Keychain
from prefetch.errors import InvalidReference, UsageError
from prefetch.events import Emit
from prefetch.ratelimit.budget import Reserve
from prefetch.ratelimit.pace import Pace
from prefetch.remote.registry import RegistryClient
from prefetch.remote.settings import RegistrySettings
from prefetch.remote.upstreams import Upstreams
from prefetch.state.database import State
from prefetch.state.ledger import Ledger
from prefetch.store.filesystem import FilesystemStore


@dataclass(frozen=True, slots=True)
class Runtime:
    """The open parts."""

    settings: Settings
    clock: Clock
    state: State
    store: FilesystemStore
    ledger: Ledger
    keychain: Keychain
    upstreams: Upstreams
    emit: Emit

    @property
    def data_dir(self) -> Path:
        """Where everything is kept."""
        return self.settings.data_dir


async def settings_for(place: Place) -> Settings:
    """`settings_at`, for a file that may be a pipe. Raises ConfigError."""
    return await off_loop(lambda: settings_at(place))


def settings_at(place: Place) -> Settings:
    """The configuration, with what the command line puts over it. Raises ConfigError."""
    settings = load(place.config, os.environ)
    if place.data_dir is not None:
        settings = replace(settings, data_dir=place.data_dir)
    return settings


@asynccontextmanager
async def open_state(settings: Settings) -> AsyncIterator[State]:
    """The state alone, made where there is none. Raises StateError."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    state = await State.open(settings.database_url, data_dir=settings.data_dir, clock=SystemClock())
    try:
        yield state
    finally:
        await state.close()


@asynccontextmanager
async def open_runtime(settings: Settings, place: Place, emit: Emit) -> AsyncIterator[Runtime]:
    """Open the data directory and all that works on it.

    Raises UsageError, StoreError and StateError.
    """
    data_dir = settings.data_dir
    reserve = _reserve(place.reserve)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        store = await FilesystemStore.open(data_dir)
        stack.push_async_callback(store.close)
        state = await State.open(settings.database_url, data_dir=data_dir, clock=clock)
        stack.push_async_callback(state.close)
        ledger = await Ledger.open(state, directory=state.locks, clock=clock)
        stack.push_async_callback(ledger.close)
        keychain = Keychain(settings.accounts, environ=os.environ)

        def settings_of(registry: str) -> RegistrySettings:
            found = settings.registry(registry)
            if place.pace is not None:
                found = replace(found, pace=Pace(place.pace))
            return found if reserve is None else replace(found, reserve=reserve)

        async def connect(registry: RegistrySettings, login: Login | None) -> RegistryClient:
            return await RegistryClient.open(
                registry, login, ledger=ledger, data_dir=data_dir, clock=clock, emit=emit
            )

        upstreams = Upstreams(settings_of, keychain, connect)
        stack.push_async_callback(upstreams.close)
        yield Runtime(settings, clock, state, store, ledger, keychain, upstreams, emit)


def _reserve(text: str | None) -> Reserve | None:
    try:
        return None if text is None else Reserve.parse(text)
    except (ValueError, InvalidReference) as error:
        raise UsageError(f"--reserve: {error}") from None
