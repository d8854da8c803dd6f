"""`cluster images`: what a live cluster runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefetch.app.requests import ClusterRequest
from prefetch.app.selecting import read_cluster_of
from prefetch.app.signals import run
from prefetch.errors import SourceError
from prefetch.sources.selector import Selector, platforms_words
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
                }
                for each in self.selectors
            ],
            "errors": source_errors(self.errors),
        }


def run_cluster_images(request: ClusterRequest) -> ClusterReport:
    """Read the cluster. Raises UsageError, and NetworkError where it does not answer."""
    parsed, _ = run(lambda _: read_cluster_of(request, "nodes"))
    order = sorted(parsed.selectors, key=lambda each: str(each.reference))
    order.sort(key=lambda each: each.demand.rank, reverse=True)
    return ClusterReport(order, parsed.errors)
