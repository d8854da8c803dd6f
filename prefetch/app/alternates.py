"""Registries as somebody's alternates: asked briefly, since there is somebody else to ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from prefetch.clock import Clock
from prefetch.credentials.credential import Login
from prefetch.credentials.keychain import Keychain
from prefetch.events import Emit, Event, PullSpent
from prefetch.remote.registry import RegistryClient
from prefetch.remote.settings import RegistrySettings, TransportSettings
from prefetch.remote.upstreams import Upstreams
from prefetch.state.ledger import Ledger

# What they do not give soon is had from the next one, or from the registry itself.
_PATIENCE: Final = TransportSettings(
    connect_timeout=5.0,
    document_timeout=15.0,
    attempts=1,
    throttle_attempts=1,
    least_rate=16 * 1024,
    waits_out_throttling=False,
    only_if_cached=True,
)
_LONGEST_SILENCE: Final = 10.0


def open_alternates(
    settings_of: Callable[[str], RegistrySettings],
    keychain: Keychain,
    *,
    ledger: Ledger,
    data_dir: Path,
    clock: Clock,
    emit: Emit,
) -> Upstreams:
    """Clients for alternates: each with its own login, meter and pace, and none of our patience."""

    async def connect(registry: RegistrySettings, login: Login | None) -> RegistryClient:
        silence = min(registry.idle_timeout, _LONGEST_SILENCE)
        return await RegistryClient.open(
            replace(registry, idle_timeout=silence),
            login,
            ledger=ledger,
            data_dir=data_dir,
            clock=clock,
            emit=_marked(emit),
            transport=_PATIENCE,
        )

    return Upstreams(settings_of, keychain, connect)


def _marked(emit: Emit) -> Emit:
    """Passes events on; pulls as those of an alternate."""

    def listen(event: Event) -> None:
        emit(replace(event, alternate=True) if isinstance(event, PullSpent) else event)

    return listen
