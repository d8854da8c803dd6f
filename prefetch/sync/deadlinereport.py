"""What is told of a deadline: the `deadline` of `warm -o json` (docs/contract.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefetch.clock import rfc3339, rfc3339_due
from prefetch.sync.deadline import Kind, Verdict
from prefetch.sync.remedies import Change, Remedy

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A deadline and what can be said of it.

    `by` is in the zone that it was meant in, whose name is `timezone`. `met` is None as long as
    that is open.
    """

    by: datetime
    timezone: str
    verdict: Verdict
    changes: tuple[Change, ...] = ()
    met: bool | None = None

    @property
    def feasible(self) -> bool:
        """Whether everything is promised."""
        return self.verdict.kind is Kind.FEASIBLE

    def document(self) -> JSON:
        """As JSON."""
        verdict = self.verdict
        return {
            "by": rfc3339(self.by),
            "by_local": self.by.isoformat(timespec="seconds"),
            "timezone": self.timezone,
            "verdict": str(verdict.kind),
            "ready_at": _due(verdict.ready_at),
            "expected_at": _due(verdict.expected_at),
            "pulls_min": verdict.pulls_min,
            "pulls_max": verdict.pulls_max,
            "lacking_pulls": verdict.lacking,
            "late": list(verdict.late),
            "at_risk": list(verdict.at_risk),
            "changes": [_change(change) for change in self.changes],
            "met": self.met,
        }


def why_late(verdict: Verdict) -> str:
    """Why a deadline will not be met, in a few words."""
    if len(verdict.lost) == len(verdict.late):
        return f"{'it' if len(verdict.late) == 1 else 'they'} cannot be fetched"
    if verdict.lacking:
        return f"at least {verdict.lacking} pulls are lacking by then"
    if verdict.lost:
        return f"{len(verdict.lost)} of them cannot be fetched"
    if verdict.expected_at is None:
        return "others spend all that comes back"
    return f"all of it is expected by {rfc3339_due(moment_of(verdict.expected_at))}"


def moment_of(seconds: float) -> datetime:
    """Unix seconds as a moment."""
    return datetime.fromtimestamp(seconds, UTC)


def _change(change: Change) -> JSON:
    value: Any = change.value
    if change.remedy in (Remedy.LATER, Remedy.START) and isinstance(value, int | float):
        value = _due(value)
    elif isinstance(value, tuple):
        value = list(value)
    return {
        "change": str(change.remedy),
        "value": value,
        "registry": change.registry,
        "pulls_saved": change.saved,
        "ready_at": _due(change.ready_at),
        "images": list(change.images),
    }


def _due(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339_due(moment_of(seconds))
