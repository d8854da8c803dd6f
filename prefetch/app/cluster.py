"""`cluster images`: what a live cluster runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefetch.app.requests import ClusterRequest, Place
from prefetch.app.runtime import settings_for
from prefetch.app.selecting import read_cluster_of
from prefetch.app.signals import run
from prefetch.errors import SourceError
from prefetch.events import Emit, Remark
from prefetch.sources.selector import Parsed, Selector, merge, platforms_words
from prefetch.sync.report import EXIT_FAILED, demand_document, source_errors


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """Each image once, the most wanted first; and what could not be read."""

    selectors: Sequence[Selector]
    errors: Sequence[SourceError]

    def exit_code(self) -> int:
        """1 when something could not be read."""
        return EXIT_FAILED if self.errors else 0

    def document(self) -> dict[str, Any]:
        """`cluster images -o json`."""
        return {
            "images": [
                {
                    "reference": str(each.reference),
                    "platforms": platforms_words(each.platforms or ()),
                    "demand": demand_document(each.demand),
                    "optional": each.optional,
                }
                for each in self.selectors
            ],
            "errors": source_errors(self.errors),
        }


def run_cluster_images(place: Place, request: ClusterRequest, emit: Emit) -> ClusterReport:
    """Read the cluster, no secrets. Raises UsageError and ConfigError."""

    async def read() -> Parsed:
        without = replace(request, use_pull_secrets=False)
        return await read_cluster_of(without, await settings_for(place))

    parsed, _ = run(lambda _: read())
    for note in parsed.notes:
        emit(Remark(str(note)))
    # Nothing stands in for the platforms of nodes that could not be listed.
    order = sorted(merge(parsed.selectors, ()), key=lambda each: str(each.reference))
    order.sort(key=lambda each: each.demand.rank, reverse=True)
    return ClusterReport(order, parsed.errors)
