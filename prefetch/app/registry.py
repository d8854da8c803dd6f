"""The embedded registry of one worker, put together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import lru_cache

from prefetch.app.runtime import Runtime
from prefetch.app.sync import Parts, engine_of, parts_of
from prefetch.credentials.credential import Login
from prefetch.credentials.keychain import Keychain
from prefetch.errors import PrefetchError
from prefetch.ratelimit.budget import Reserve
from prefetch.remote.registry import RegistryClient
from prefetch.remote.settings import RegistrySettings, TransportSettings
from prefetch.remote.upstreams import Upstreams
from prefetch.server.access import AccessRules
from prefetch.server.accesslog import Logs, ServerLog
from prefetch.server.belonging import Belonging
from prefetch.server.blobs import BlobService
from prefetch.server.downloads import Downloads
from prefetch.server.exclusion import Exclusion
from prefetch.server.gate import Gate
from prefetch.server.health import Health, MissRate, Negatives
from prefetch.server.identity import Htpasswd
from prefetch.server.library import Library
from prefetch.server.listings import Listings
from prefetch.server.manifests import ManifestService
from prefetch.server.metrics import Metrics
from prefetch.server.permits import Permits
from prefetch.server.pulse import Pulse
from prefetch.server.pump import Pump
from prefetch.server.registry import Registry
from prefetch.server.renewal import Renewals, Sync
from prefetch.server.settling import Settling
from prefetch.server.shared import Shared
from prefetch.server.tags import Tags
from prefetch.server.witness import Witness
from prefetch.server.worker import Service
from prefetch.state.database import State
from prefetch.state.meters import Budget, MeterPolicy
from prefetch.sync.admission import Patience
from prefetch.sync.catalog import Catalog
from prefetch.sync.engine import Run
from prefetch.sync.wanted import ImageResult, Wanted

# A client waits for the answer: what fails is told soon, and tried again by whoever asks next.
# For how long a registry that throttles is left alone is not a matter of patience.
_PATIENCE = TransportSettings(
    connect_timeout=5.0, document_timeout=30.0, attempts=1, throttle_attempts=1
)
# Checks are small and many; that they are many more than fetches does no harm.
_CHECKS_AT_ONCE = 256
_PUMPS = 2
_CACHED_SETTINGS = 1024
_LOGIN_SECONDS = 300.0


@asynccontextmanager
async def open_service(
    runtime: Runtime, *, users: Htpasswd | None, metrics: Metrics, logs: Logs
) -> AsyncIterator[Service]:
    """A registry over an open data directory; closed when the context ends."""
    settings, clock, log = runtime.settings.serve, runtime.clock, logs.server
    parts = parts_of(runtime)
    await parts.visibilities.load()
    async with AsyncExitStack() as stack:
        reading = await State.open(
            runtime.settings.database_url, data_dir=runtime.data_dir, clock=clock
        )
        stack.push_async_callback(reading.close)
        library = Library(runtime.state, reading, runtime.store, parts.documents, clock)
        await library.refresh()
        upstreams = _upstreams(runtime)
        stack.push_async_callback(upstreams.close)
        fetches = Shared(settings.max_fetches, metrics.joined)
        checks = Shared(_CHECKS_AT_ONCE, metrics.joined)
        exclusion = Exclusion(runtime.state.locks, clock)
        gate = Gate(
            library=library,
            ledger=runtime.ledger,
            health=Health(clock),
            negatives=Negatives(clock, settings.negative_ttl),
            rate=MissRate(clock, settings.misses_per_second),
            serves=runtime.settings.serves,
            sync_policy=lambda name: _policy(runtime, name),
            clock=clock,
            log=log,
        )
        renewals = Renewals(_sync(runtime, parts), library, exclusion, log)
        permits = Permits(
            library=library,
            gate=gate,
            upstreams=upstreams,
            rules=AccessRules(settings.access, users is not None),
            shared=checks,
            clock=clock,
        )
        belonging = Belonging(library, permits)
        manifests = ManifestService(
            library=library,
            gate=gate,
            upstreams=upstreams,
            belonging=belonging,
            ledger=runtime.ledger,
            documents=parts.documents,
            visibilities=parts.visibilities,
            shared=fetches,
            clock=clock,
        )
        tags = Tags(
            library=library,
            gate=gate,
            upstreams=upstreams,
            manifests=manifests,
            renewals=renewals,
            shared=checks,
            exclusion=exclusion,
            settings=settings,
            platforms=runtime.settings.platforms,
            clock=clock,
            checked=lambda outcome: metrics.fetch("tag_check", outcome),
            moved=runtime.emit,
        )
        settling = Settling(library, clock, log)
        blobs = BlobService(
            library=library,
            gate=gate,
            upstreams=upstreams,
            belonging=belonging,
            transfer=parts.transfer,
            settling=settling,
            shared=fetches,
            clock=clock,
        )
        pump = Pump(_PUMPS, clock)
        pulse = Pulse(library, metrics, lambda: _budgets(runtime), clock)
        witness = Witness(metrics, logs.access, log, runtime.state, clock)
        await settling.begin()
        write_index = await _index_writer(runtime, log)
        for close in (pump.close, witness.flush, write_index, settling.close, manifests.close):
            stack.push_async_callback(close)
        for close in (checks.close, fetches.close, renewals.close):
            stack.push_async_callback(close)
        registry = Registry(
            library=library,
            permits=permits,
            tags=tags,
            manifests=manifests,
            blobs=blobs,
            downloads=Downloads(pump, settings.client_timeout),
            listings=Listings(library, permits),
            users=users,
            pulse=pulse,
            witness=witness,
        )
        chores = (library.watch, witness.watch, lambda: _renew_logins(runtime, upstreams))
        yield Service(registry, pulse, witness, chores)


def _upstreams(runtime: Runtime) -> Upstreams:
    """The registries as clients' misses meet them: less patient, and free to use the reserve."""
    settings = runtime.settings

    @lru_cache(_CACHED_SETTINGS)
    def settings_for(name: str) -> RegistrySettings:
        found = settings.registry(name)
        if not settings.serve.reserve_for_sync:
            found = replace(found, reserve=Reserve(0))
        return found if settings.named(name) else replace(found, public_only=True)

    async def connect(registry: RegistrySettings, login: Login | None) -> RegistryClient:
        return await RegistryClient.open(
            registry,
            login,
            ledger=runtime.ledger,
            data_dir=runtime.data_dir,
            clock=runtime.clock,
            emit=runtime.emit,
            transport=_PATIENCE,
        )

    return Upstreams(settings_for, Keychain(settings.accounts, environ=os.environ), connect)


def _sync(runtime: Runtime, parts: Parts) -> Sync:
    """Fetches one reference as `prefetch sync` does, by the same transfers as clients' misses."""
    engine = engine_of(runtime, parts)

    async def sync(wanted: Wanted) -> ImageResult:
        job = Run(wanted=[wanted])
        await engine.run(job, Patience())
        return job.ordered()[0]

    return sync


async def _renew_logins(runtime: Runtime, upstreams: Upstreams) -> None:
    """Credentials are changed and expire while the server runs."""
    while True:
        await runtime.clock.sleep(_LOGIN_SECONDS)
        for each in (upstreams, runtime.upstreams):
            each.renew_logins()


async def _index_writer(runtime: Runtime, log: ServerLog) -> Callable[[], Awaitable[None]]:
    """Writes `index.json` when what is served has changed since now."""
    before = await runtime.state.generation()

    async def write() -> None:
        try:
            if await runtime.state.generation() != before:
                await Catalog(runtime.state, runtime.store).write_index(runtime.data_dir)
        except PrefetchError as error:
            log.warning("index.json is not up to date", reason=str(error))

    return write


async def _budgets(runtime: Runtime) -> list[Budget]:
    """What every meter that has ever been used has left, as syncs see it.

    Under `*` clients name registries: those would make ever more of them.
    """
    settings = runtime.settings
    budgets = []
    for key in await runtime.ledger.meters():
        if settings.any_registry is not None and not settings.named(key.registry):
            continue
        policy = _policy(runtime, key.registry)
        budgets.append(await runtime.ledger.budget(key, policy))
    return budgets


def _policy(runtime: Runtime, registry: str) -> MeterPolicy:
    """What syncs may spend at a registry."""
    found = runtime.settings.registry(registry)
    return MeterPolicy(found.reserve, found.limit)
