"""The documents that others script against: `sync`, `plan`, `budget`, `images`, `runs` as JSON.

Their shapes are the contract in docs/contract.md: a key may be added, a known one never changes
its meaning. Sizes are bytes, durations seconds, moments RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prefetch.clock import rfc3339, rfc3339_due
from prefetch.errors import SourceError
from prefetch.events import AlternateDropped, PullsSpread
from prefetch.ratelimit.supply import Outlook
from prefetch.sources.selector import Demand
from prefetch.state.ledger import Budget, MeterKey
from prefetch.state.records import RunImageRecord, RunRecord
from prefetch.sync.forecast import forecast_document
from prefetch.sync.wanted import Action, ImageResult, Outcome, PlannedImage, Problem

JSON = dict[str, Any]

EXIT_FAILED = 1
EXIT_DEFERRED = 75


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did; `run_id` is None for one that did not begin: a signal ended it before, or
    another run of the same was under way (`busy`)."""

    run_id: str | None
    results: Sequence[ImageResult]
    errors: Sequence[SourceError]
    budgets: Sequence[Budget]
    requests: int
    seconds: float
    interrupted: bool = False
    spread: Sequence[PullsSpread] = ()
    busy: bool = False
    dropped: Sequence[AlternateDropped] = ()

    @classmethod
    def of_nothing(cls, *, busy: bool = False) -> SyncReport:
        """Of a run that did not begin."""
        return cls(None, (), (), (), requests=0, seconds=0.0, interrupted=not busy, busy=busy)

    @property
    def outcome(self) -> str:
        """`complete`, `deferred`, `failed` or `interrupted`: the worst of what happened."""
        if self.interrupted:
            return "interrupted"
        outcomes = {result.outcome for result in self.results}
        if self.errors or Outcome.FAILED in outcomes:
            return "failed"
        return "deferred" if self.busy or Outcome.DEFERRED in outcomes else "complete"

    def exit_code(self, *, deferred_ok: bool) -> int:
        """The command's exit status, an interruption apart (its signal decides)."""
        codes = {"failed": EXIT_FAILED, "deferred": 0 if deferred_ok else EXIT_DEFERRED}
        return codes.get(self.outcome, 0)

    def count(self, outcome: Outcome) -> int:
        """How many images ended so."""
        return sum(result.outcome is outcome for result in self.results)

    def document(self) -> JSON:
        """`sync -o json`."""
        return {
            "run_id": self.run_id,
            "outcome": self.outcome,
            "images": [_result(result) for result in self.results],
            "errors": source_errors(self.errors),
            "alternates_dropped": [_dropped(event) for event in self.dropped],
            "budgets": [budget_document(budget) for budget in self.budgets],
            "spread": [
                {
                    "registry": each.registry,
                    "identity": each.identity,
                    "pulls": each.pulls,
                    "until": _due(each.until),
                }
                for each in self.spread
            ],
            "totals": {
                "images": len(self.results),
                **{str(outcome): self.count(outcome) for outcome in Outcome},
                "pulls": sum(result.pulls for result in self.results),
                "pulls_alternates": sum(result.pulls_alternates for result in self.results),
                "requests": self.requests,
                "bytes_fetched": sum(result.bytes_fetched for result in self.results),
                "bytes_reused": sum(result.bytes_reused for result in self.results),
                "seconds": round(self.seconds, 3),
            },
        }


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a sync would do and cost; `outlooks` are the forecasts that it rests on, by meter."""

    images: Sequence[PlannedImage]
    errors: Sequence[SourceError]
    budgets: Sequence[Budget]
    finish_at: datetime | None
    outlooks: Mapping[MeterKey, Outlook] = field(default_factory=dict)

    def exit_code(self) -> int:
        """1 when something cannot be fetched at all; a plan that has to wait is a plan."""
        bad = any(
            image.action in (Action.MISSING, Action.ERROR) and not image.absent
            for image in self.images
        )
        return EXIT_FAILED if bad or self.errors else 0

    def pulls(self) -> tuple[int, int | None]:
        """The bounds of the whole price."""
        bounds = [image.pulls_max for image in self.images]
        most = None if None in bounds else sum(bound or 0 for bound in bounds)
        return sum(image.pulls_min for image in self.images), most

    def pulls_expected(self) -> int | None:
        """The upper bound, less what alternates say that they have; None: nothing bounds it."""
        prices = [
            image.pulls_max if image.pulls_expected is None else image.pulls_expected
            for image in self.images
        ]
        return None if None in prices else sum(price or 0 for price in prices)

    def pulls_available(self) -> int | None:
        """What all meters together can give now; None when one of them reports no limit, or
        none was asked."""
        amounts = [budget.available for budget in self.budgets]
        return (
            None
            if None in amounts or not amounts
            else sum(max(0, amount or 0) for amount in amounts)
        )

    def document(self) -> JSON:
        """`plan -o json`."""
        low, high = self.pulls()
        sizes = [image.bytes for image in self.images if image.problem is None]
        return {
            "images": [_planned(image) for image in self.images],
            "errors": source_errors(self.errors),
            "budgets": [
                forecast_budget(budget, self.outlooks.get(budget.meter)) for budget in self.budgets
            ],
            "totals": {
                "images": len(self.images),
                "pulls_min": low,
                "pulls_max": high,
                "pulls_expected": self.pulls_expected(),
                "bytes": None if None in sizes else sum(size or 0 for size in sizes),
                "pulls_available": self.pulls_available(),
                "finish_at": _due(self.finish_at),
            },
        }


def budget_document(budget: Budget) -> JSON:
    """One meter; `limit` and `remaining` are null where the registry reports none."""
    return {
        "registry": budget.meter.registry,
        "identity": budget.meter.identity,
        "source": budget.source,
        "limit": budget.limit,
        "remaining": budget.remaining,
        "reserve": budget.reserve,
        "available": budget.available,
        "window_seconds": budget.window_seconds,
        "observed_at": _moment(budget.observed_at),
        "foreign_burn_per_hour": round(budget.foreign_burn_per_hour, 3),
    }


def forecast_budget(budget: Budget, outlook: Outlook | None) -> JSON:
    """One meter, and what its forecast rests on."""
    return {**budget_document(budget), "forecast": forecast_document(outlook)}


def source_errors(errors: Iterable[SourceError]) -> list[JSON]:
    """Bad entries of the sources."""
    return [
        {"source": error.source, "line": error.line, "message": error.advice} for error in errors
    ]


def run_document(run: RunRecord, images: Sequence[RunImageRecord] | None = None) -> JSON:
    """One run; with `images`, what became of each reference."""
    document: JSON = {
        "run_id": run.id,
        "command": run.command,
        "outcome": run.outcome,
        "started_at": _moment(run.started_at),
        "finished_at": _moment(run.finished_at),
        "images": run.images,
        "pulls": run.pulls,
        "bytes_fetched": run.bytes_fetched,
        "entry": run.entry,
        "cause": run.cause,
    }
    if images is not None:
        document["references"] = [_run_image(image) for image in images]
    return document


def _run_image(image: RunImageRecord) -> JSON:
    error = (
        Problem(image.error_code, image.error or "", image.http_status)
        if (image.error_code)
        else None
    )
    return {
        "reference": image.reference,
        "digest": image.digest,
        "outcome": image.outcome,
        "platforms": [word for word in image.platforms.split(",") if word],
        "pulls": image.pulls,
        "bytes_fetched": image.bytes_fetched,
        "bytes_reused": image.bytes_reused,
        "retry_at": _due(image.retry_at),
        "error": problem_document(error),
    }


def run_image_record(result: ImageResult) -> RunImageRecord:
    """What the history keeps of a result."""
    problem = result.problem
    return RunImageRecord(
        reference=result.reference,
        outcome=str(result.outcome),
        digest=result.digest,
        platforms=",".join(result.platforms),
        pulls=result.pulls,
        bytes_fetched=result.bytes_fetched,
        bytes_reused=result.bytes_reused,
        retry_at=result.retry_at,
        error_code=problem.code if problem else None,
        error=problem.message if problem else None,
        http_status=problem.http_status if problem else None,
    )


def _result(result: ImageResult) -> JSON:
    return {
        "reference": result.reference,
        "digest": result.digest,
        "outcome": str(result.outcome),
        "platforms": list(result.platforms),
        "platforms_missing": list(result.platforms_missing),
        "pulls": result.pulls,
        "pulls_alternates": result.pulls_alternates,
        "bytes_fetched": result.bytes_fetched,
        "bytes_reused": result.bytes_reused,
        "source": result.registry,
        "fetched_from": list(result.fetched_from),
        "visibility": result.visibility,
        "retry_at": _due(result.retry_at),
        "error": problem_document(result.problem),
    }


def _dropped(event: AlternateDropped) -> JSON:
    return {
        "alternate": event.alternate,
        "repository": event.repository,
        "reason": event.reason,
    }


def demand_document(demand: Demand) -> JSON | None:
    """Who asks for an image; None for one that only a list names."""
    if demand == Demand():
        return None
    return {
        "pods": demand.pods,
        "always": demand.always,
        "priority": demand.priority,
        "askers": list(demand.askers),
    }


def _planned(image: PlannedImage) -> JSON:
    return {
        "reference": image.wanted.name,
        "digest": image.digest,
        "action": str(image.action),
        "exact": image.exact,
        "demand": demand_document(image.wanted.demand),
        "optional": image.wanted.optional,
        "pulls": image.pulls_min if image.exact else None,
        "pulls_min": image.pulls_min,
        "pulls_max": image.pulls_max,
        "pulls_expected": image.pulls_max if image.pulls_expected is None else image.pulls_expected,
        "bytes": image.bytes,
        "start_at": _due(image.start_at),
        "error": problem_document(image.problem),
    }


def problem_document(problem: Problem | None) -> JSON | None:
    """Why an image has failed or waits; None for one that does neither."""
    if problem is None:
        return None
    return {
        "code": problem.code,
        "message": problem.message,
        "http_status": problem.http_status,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _due(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339_due(moment)
