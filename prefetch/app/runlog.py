"""What the log says of a run of the schedule, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Mapping

from prefetch.app.noticing import logging_to
from prefetch.errors import PrefetchError
from prefetch.events import (
    AlternateDropped,
    AlternateRested,
    Emit,
    Event,
    PullsSpread,
    Remark,
    Slowed,
    ThrottleEvent,
)
from prefetch.server.accesslog import ServerLog
from prefetch.server.counting import warn_of_alternate
from prefetch.server.witness import places
from prefetch.sync.deadlinereport import Deadline
from prefetch.sync.report import SyncReport
from prefetch.sync.wanted import Outcome


def telling(log: ServerLog, entry: str) -> Emit:
    """A listener that tells what a person may want to know while a run goes on."""
    rest = logging_to(log, entry=entry)

    def listen(event: Event) -> None:
        match event:
            case Remark(text):
                log.info("remark", entry=entry, text=text)
            case AlternateDropped() | AlternateRested():
                warn_of_alternate(log, event, entry=entry)
            case ThrottleEvent(registry, until):
                log.warning("registry throttles", entry=entry, registry=registry, until=until)
            case PullsSpread(registry, _, pulls, until):
                log.info("pulls spread", entry=entry, registry=registry, pulls=pulls, until=until)
            case Slowed(registry, per_second):
                log.warning("slowed", entry=entry, registry=registry, per_second=per_second)
            case _:
                rest(event)

    return listen


def tell_failure(log: ServerLog, facts: Mapping[str, str], error: BaseException) -> None:
    """What kept a run from coming to its end."""
    why = {"code": "INTERNAL", "type": type(error).__name__, "where": places(error)}
    if isinstance(error, PrefetchError):
        why = {"code": error.code, "reason": str(error)}
    elif isinstance(error, OSError):
        why = {"code": PrefetchError.code, "reason": str(error)}
    log.error("sync failed", **facts, **why)


def tell_end(
    log: ServerLog, facts: Mapping[str, str], report: SyncReport, deadline: Deadline | None
) -> None:
    """A line for each failure, and one for the run."""
    for error in report.errors:
        log.error("bad entry in a source", **facts, reason=str(error))
    for result in report.results:
        if result.outcome is Outcome.FAILED and result.problem is not None:
            problem = result.problem
            log.error(
                "image failed",
                **facts,
                reference=result.reference,
                code=problem.code,
                reason=problem.message,
            )
    retries = [result.retry_at for result in report.results if result.retry_at is not None]
    tell = log.warning if report.outcome == "failed" else log.info
    tell(
        "sync ended",
        **facts,
        outcome=report.outcome,
        **{str(outcome): report.count(outcome) for outcome in Outcome},
        pulls=sum(result.pulls for result in report.results),
        bytes=sum(result.bytes_fetched for result in report.results),
        seconds=round(report.seconds, 3),
        retry_at=min(retries, default=None),
        deadline_met=deadline and deadline.met,
    )


def tell_deadline(log: ServerLog, facts: Mapping[str, str], deadline: Deadline) -> None:
    """What can be said before the first pull: a line for the verdict, one for each change that
    would do."""
    said = deadline.document()
    images = {"late": len(said["late"]), "at_risk": len(said["at_risk"])}
    keys = ("by", "verdict", "ready_at", "expected_at", "pulls_min", "pulls_max", "lacking_pulls")
    tell = log.info if deadline.feasible else log.warning
    tell("deadline", **facts, **{key: said[key] for key in keys}, **images)
    for change in said["changes"]:
        value = change["value"]
        words = " ".join(value) if isinstance(value, list) else value
        told = {**change, "value": words, "images": len(change["images"]) or None}
        log.info("would do", **facts, **told)
