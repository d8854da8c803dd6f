"""What the cache holds, what ran, what is left: commands that fetch nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prefetch.app.requests import Place
from prefetch.app.runtime import Runtime, open_runtime, settings_for
from prefetch.app.signals import run
from prefetch.errors import NotFound, PrefetchError, Unauthorized, UsageError
from prefetch.events import Emit, Stream
from prefetch.oci.reference import Reference
from prefetch.ratelimit.supply import Outlook
from prefetch.remote.registry import RegistryClient
from prefetch.state.ledger import Budget
from prefetch.state.records import RunImageRecord, RunRecord
from prefetch.sync.catalog import Catalog, CatalogEntry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Readings:
    """Each meter's budget and forecast, and which registries could not be asked and why."""

    budgets: list[Budget]
    outlooks: list[Outlook]
    errors: list[str]


def list_images(place: Place) -> list[CatalogEntry]:
    """All references with content, by name."""
    return _with(
        place, lambda runtime: Catalog(runtime.state, runtime.store).entries(provenance=True)
    )


def list_runs(place: Place, limit: int) -> list[RunRecord]:
    """The latest runs, newest first."""
    return _with(place, lambda runtime: runtime.state.runs.list(limit))


def show_run(place: Place, run_id: str) -> tuple[RunRecord, list[RunImageRecord]]:
    """One run and what became of each reference; `latest` is the newest. Raises UsageError."""

    async def work(runtime: Runtime) -> tuple[RunRecord, list[RunImageRecord]]:
        runs = runtime.state.runs
        newest = await runs.list(1) if run_id == "latest" else []
        found = await runs.get(newest[0].id if newest else run_id)
        if found is None:
            raise UsageError(f"there is no run {run_id!a}", hint="prefetch runs lists them")
        return found

    return _with(place, work)


def read_budgets(place: Place, registries: Sequence[str], emit: Emit) -> Readings:
    """Ask each registry's meter now, with a free request.

    Without names: the registries that the cache has references of, else Docker Hub.
    """

    async def work(runtime: Runtime) -> Readings:
        references = await runtime.state.references.list()
        known = {record.registry: Reference.parse(record.name) for record in references}
        readings = Readings([], [], [])
        for registry in registries or sorted(known) or ["docker.io"]:
            reference = known.get(registry)
            path = reference.repository.path if reference else None
            client = await runtime.upstreams.client(registry, path)
            try:
                await _look(client, reference)
            except PrefetchError as error:
                readings.errors.append(f"{registry}: {error}")
            readings.budgets.append(await runtime.ledger.budget(client.meter, client.policy))
            readings.outlooks.append(await runtime.ledger.outlook(client.meter, client.policy))
        return readings

    return _with(place, work, emit)


async def _look(client: RegistryClient, reference: Reference | None) -> None:
    """A HEAD of the registry's probe image, or else of something that it is known to have."""
    try:
        if await client.probe() is not None:
            return
    except (NotFound, Unauthorized):
        # A mirror need not have the probe image.
        if reference is None:
            raise
    if reference is not None:
        await client.observe(reference)


def _with(place: Place, work: Callable[[Runtime], Awaitable[T]], emit: Emit | None = None) -> T:
    """Do `work` with everything open; without `emit` nobody listens."""

    async def opened() -> T:
        settings = await settings_for(place)
        async with open_runtime(settings, place, emit or Stream().emit) as runtime:
            return await work(runtime)

    result, _ = run(lambda _: opened())
    return result
