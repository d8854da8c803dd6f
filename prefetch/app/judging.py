"""From a priced plan to the case that `sync/deadline` judges; no request is sent for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from prefetch.app.runtime import Runtime
from prefetch.app.sync import Parts, admission_of
from prefetch.oci.platform import ALL, Platform, PlatformSet
from prefetch.sync.admission import price_to_hold
from prefetch.sync.deadline import Case, Claim, Queue
from prefetch.sync.remedies import Fewer
from prefetch.sync.sharing import Sharing
from prefetch.sync.wanted import PlannedImage

# So many choices of platforms are tried, each of which prices everything anew.
_MAX_CHOICES = 8


def lacking(images: Iterable[PlannedImage]) -> list[PlannedImage]:
    """Those of a plan that have to be fetched, and can be."""
    return [image for image in images if image.problem is None and not image.needs_nothing]


async def case_of(
    runtime: Runtime, parts: Parts, images: Sequence[PlannedImage], by: datetime
) -> Case:
    """What is lacking of a plan, by its meters, and what these will give."""
    return Case(
        runtime.clock.now().timestamp(),
        by.timestamp(),
        await _queues(runtime, parts, images),
        await runtime.state.runs.pace(),
        lost=tuple(image.wanted.name for image in images if image.problem and not image.absent),
    )


async def fewer_platforms(
    runtime: Runtime, parts: Parts, images: Sequence[PlannedImage]
) -> list[Fewer]:
    """The same for fewer platforms, where an image is wanted for several."""
    found = []
    for kept in _choices(images, runtime.settings.platforms):
        narrowed = [_narrowed(image, kept) for image in lacking(images)]
        await parts.planner.price(narrowed)
        queues = await _queues(runtime, parts, narrowed)
        found.append(Fewer(tuple(map(str, kept)), queues))
    return found


def _choices(images: Iterable[PlannedImage], default: PlatformSet) -> list[tuple[Platform, ...]]:
    """All platforms but one, then one alone; of those that are wanted, or of the default ones."""
    sets = [image.wanted.platforms for image in lacking(images)]
    named = list(dict.fromkeys(each for some in sets if some is not ALL for each in some))
    if ALL in sets:
        usual = (Platform.host(),) if default is ALL else default
        return list(dict.fromkeys([tuple(named), usual] if named else [usual]))
    if max((len(some) for some in sets if some is not ALL), default=0) < 2:  # noqa: PLR2004
        return []
    without = [tuple(each for each in named if each != one) for one in reversed(named)]
    return list(dict.fromkeys([*without, *((one,) for one in named)]))[:_MAX_CHOICES]


def _narrowed(image: PlannedImage, kept: Collection[Platform]) -> PlannedImage:
    """The image for those of the kept platforms that it is wanted for, if there are any."""
    wanted = image.wanted.platforms
    some = tuple(kept) if wanted is ALL else tuple(each for each in wanted if each in kept)
    return replace(
        image,
        wanted=replace(image.wanted, platforms=some or wanted),
        closure=None,
        problem=None,
    )


async def _queues(
    runtime: Runtime, parts: Parts, images: Sequence[PlannedImage]
) -> tuple[Queue, ...]:
    paid: set[str] = set()
    queues: dict[object, Queue] = {}
    for client, some in (await parts.resolver.by_client(lacking(images))).items():
        exempt = await runtime.ledger.exempt_among(client.meter, client.policy, map(_path, some))
        ordered = admission_of(runtime, parts, client, Sharing()).ordered(lacking(some))
        claims = tuple(_claim(image, paid, free=_path(image) in exempt) for image in ordered)
        queue = queues.get(client.meter) or Queue(
            client.meter.registry,
            client.meter.identity,
            await runtime.ledger.outlook(client.meter, client.policy),
            (),
            client.settings.reserve,
            bool(client.settings.alternates),
        )
        queues[client.meter] = replace(queue, claims=(*queue.claims, *claims))
    return tuple(queues.values())


def _claim(image: PlannedImage, paid: set[str], *, free: bool) -> Claim:
    """What the image may cost; what an earlier one has `paid` costs nothing at best."""
    shared = len(image.lacks & paid)
    paid |= image.lacks
    if free:
        return Claim(image.wanted.name, 0, 0, 0, image.bytes)
    least = max(0, image.pulls_min - shared)
    return Claim(image.wanted.name, least, image.pulls_max, price_to_hold(image), image.bytes)


def _path(image: PlannedImage) -> str:
    return image.wanted.reference.repository.path
