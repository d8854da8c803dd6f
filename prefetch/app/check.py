"""`check`: the gate before a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prefetch.app.cacheserver import CacheOptions, server_of
from prefetch.app.requests import SourceRequest, seconds
from prefetch.app.runtime import Runtime, open_runtime
from prefetch.app.selecting import read_all, select
from prefetch.app.signals import run
from prefetch.app.sync import warn_of_private
from prefetch.clock import SystemClock
from prefetch.errors import NetworkError, UsageError
from prefetch.events import Emit
from prefetch.oci.reference import Repository
from prefetch.remote.direct import DirectServer
from prefetch.state.records import ReferenceRecord
from prefetch.sync.gate import Freshness, Gate, GateImage, StoreShelf
from prefetch.sync.gateremote import CacheShelf
from prefetch.sync.gatereport import GateReport
from prefetch.sync.probeconnection import Introducer
from prefetch.sync.resolver import Resolver
from prefetch.sync.selection import expand
from prefetch.sync.wanted import PlannedImage, Problem, Wanted


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What has to be warm; `max_age` is a duration. With `fresh` tags are asked for now.

    `cache` is a running one, which is asked in place of the store of this data directory.
    """

    source: SourceRequest
    verify: bool = False
    max_age: str | None = None
    fresh: bool = False
    cache: CacheOptions | None = None


def run_check(request: CheckRequest, emit: Emit) -> GateReport:
    """Check all that the sources name; nothing is fetched.

    Raises UsageError, and NetworkError for a cache that cannot be asked.
    """
    if request.cache is None:
        report, _ = run(lambda _: _check(request, emit))
        return report
    if request.verify or request.fresh or request.max_age is not None:
        raise UsageError("--verify, --fresh and --max-age are about this store, not a --cache-url")
    server = server_of(request.cache)
    report, _ = run(lambda _: _check_remote(request, server, emit))
    return report


async def _check(request: CheckRequest, emit: Emit) -> GateReport:
    max_age = None if request.max_age is None else seconds(request.max_age, "--max-age")
    settings, platforms, parsed = await read_all(request.source, emit, secrets=request.fresh)
    async with open_runtime(settings, request.source.place, emit) as runtime:
        selection = await select(parsed, runtime, platforms)
        names = [each.name for each in selection.wanted]
        records = await runtime.state.references.get_many(names)
        shelf = _Shelf(runtime, records, verify=request.verify)
        if request.fresh:
            await shelf.refresh(selection.wanted, records)
        images = await Gate(shelf).check(selection.wanted)
        for image in images:
            if (problem := shelf.problem(image.wanted)) is not None:
                image.problem, image.missing = problem, []
        await _judge(runtime, shelf, images, records, None if request.fresh else max_age)
        warn_of_private(settings, sum(i.visibility == "private" for i in images), emit)
        return GateReport(images, selection.errors, str(runtime.data_dir))


async def _check_remote(request: CheckRequest, server: DirectServer, emit: Emit) -> GateReport:
    """Nothing of this data directory is opened: it says nothing about another cache."""
    _, platforms, parsed = await read_all(request.source, emit, secrets=False)
    selection = await expand(parsed.selectors, _no_tags, platforms)
    try:
        found = await Introducer(server, any_registry=False, now=SystemClock().now).meet()
        if not found.usable:
            broken = next((step for step in found.steps if not step.ok), found.steps[-1])
            raise NetworkError(f"{server.where}: {broken.message}", hint="prefetch probe says more")
        shelf = CacheShelf(server, found)
        images = await Gate(shelf).check(selection.wanted)
    finally:
        await server.close()
    for image in images:
        image.stale = image.wanted.name in shelf.stale
    return GateReport(images, [*parsed.errors, *selection.errors], str(server.url))


async def _no_tags(_: Repository) -> list[str]:
    raise UsageError("patterns over tags are for this store", hint="name the tags")


async def _judge(
    runtime: Runtime,
    shelf: _Shelf,
    images: list[GateImage],
    records: Mapping[str, ReferenceRecord],
    max_age: float | None,
) -> None:
    """Fill in what the database knows: how old an answer is, and who may see it."""
    now = runtime.clock.now()
    frozen = await runtime.state.freezes.get(now) is not None
    freshness = Freshness(now, max_age, frozen)
    seen = await runtime.state.links.visibilities()
    for image in images:
        repository = image.wanted.reference.repository
        record = records.get(image.wanted.name)
        image.stale = freshness.is_stale(image.wanted, record)
        image.absent = not image.warm and shelf.lacks(image.wanted, record)
        known = seen.get((repository.registry, repository.path))
        image.visibility = known[0] if known else "unknown"


class _Shelf(StoreShelf):
    """The store; with tags as the registries have them now, once they have been asked."""

    def __init__(
        self, runtime: Runtime, records: Mapping[str, ReferenceRecord], *, verify: bool
    ) -> None:
        super().__init__(records, runtime.store, verify=verify)
        self._resolver = Resolver(runtime.upstreams, runtime.clock, runtime.emit)
        self._now: dict[str, PlannedImage] = {}

    async def refresh(self, wanted: list[Wanted], records: Mapping[str, ReferenceRecord]) -> None:
        """Ask the registries, by HEAD, what each tag is."""
        # A digest is what it is; only whether what nobody asks for is still there has to be asked.
        tags = [
            PlannedImage(each, records.get(each.name))
            for each in wanted
            if each.reference.digest is None or each.optional
        ]
        await self._resolver.resolve(tags)
        self._now = {image.wanted.name: image for image in tags}

    def lacks(self, wanted: Wanted, record: ReferenceRecord | None) -> bool:
        """Whether its upstream does not have what nobody asks for by name: now, or last time."""
        asked = self._now.get(wanted.name)
        if asked is not None:
            return asked.absent
        return wanted.optional and record is not None and record.absent_since is not None

    async def digest(self, wanted: Wanted) -> str | None:
        """What the registry has said, or what is known here."""
        asked = self._now.get(wanted.name)
        return await super().digest(wanted) if asked is None else asked.digest

    def problem(self, wanted: Wanted) -> Problem | None:
        """Why a registry could not say what a tag is."""
        asked = self._now.get(wanted.name)
        return None if asked is None else asked.problem
