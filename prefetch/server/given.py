"""What is asked for at a scrape, the same whichever worker is asked: budgets, the schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from prefetch.state.meters import Budget
from prefetch.state.records import EntryTotal

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


@dataclass(frozen=True, slots=True)
class Description:
    """A metric as its documentation shows it; `labels` in their order."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


def counter(name: str, labels: tuple[str, ...], text: str) -> Description:
    """Of `prefetch_<name>_total`."""
    return Description(f"prefetch_{name}_total", "counter", labels, text)


def gauge(name: str, labels: tuple[str, ...], text: str) -> Description:
    """Of `prefetch_<name>`."""
    return Description(f"prefetch_{name}", "gauge", labels, text)


_METER = ("registry", "identity")

_FROZEN = gauge("frozen", (), "1 while the cache is frozen and asks no upstream, else 0.")
_LIMIT = gauge("budget_limit_pulls", _METER, "Pulls that the registry allows in its window.")
_REMAINING = gauge("budget_remaining_pulls", _METER, "Pulls left, by the registry's last word.")
_RESERVE = gauge("budget_reserve_pulls", _METER, "Pulls that are left to others.")
_AVAILABLE = gauge("budget_available_pulls", _METER, "Pulls that may be spent now.")
_BURN = gauge(
    "budget_foreign_burn_pulls_per_hour", _METER, "Pulls an hour that others spend, averaged."
)
_OBSERVED = gauge(
    "budget_observed_age_seconds", _METER, "Time since the registry last said what is left."
)
_RUNS = counter(
    "schedule_runs", ("entry", "outcome"), "Runs of an entry of the schedule that have ended."
)
_SUCCESS = gauge(
    "schedule_last_success_timestamp_seconds",
    ("entry",),
    "When a run of the entry was last complete: nothing failed, nothing was put off.",
)

GIVEN: Final = (
    *(_FROZEN, _LIMIT, _REMAINING, _RESERVE, _AVAILABLE, _BURN, _OBSERVED),
    *(_RUNS, _SUCCESS),
)
"""Every metric of this kind."""


def given(
    budgets: Sequence[Budget], *, frozen: bool, now: datetime, schedule: Sequence[EntryTotal]
) -> Iterator[Metric]:
    """The metrics; `schedule` counts the ended runs of each entry by their outcome."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield GaugeMetricFamily(_FROZEN.name, _FROZEN.help, value=float(frozen))
    values: dict[Description, Callable[[Budget], float | None]] = {
        _LIMIT: lambda budget: budget.limit,
        _REMAINING: lambda budget: budget.remaining,
        _RESERVE: lambda budget: budget.reserve,
        _AVAILABLE: lambda budget: budget.available,
        _BURN: lambda budget: budget.foreign_burn_per_hour,
        _OBSERVED: lambda budget: _age(budget.observed_at, now),
    }
    for description, value_of in values.items():
        family = GaugeMetricFamily(description.name, description.help, labels=_METER)
        for budget in budgets:
            value = value_of(budget)
            if value is not None:
                family.add_metric([budget.meter.registry, budget.meter.identity], value)
        yield family
    runs = CounterMetricFamily(_RUNS.name, _RUNS.help, labels=_RUNS.labels)
    success = GaugeMetricFamily(_SUCCESS.name, _SUCCESS.help, labels=_SUCCESS.labels)
    for total in schedule:
        runs.add_metric([total.entry, total.outcome], total.runs)
        if total.outcome == "complete":
            success.add_metric([total.entry], total.last.timestamp())
    yield runs
    yield success


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max(0.0, (now - moment).total_seconds())
