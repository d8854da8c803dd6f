"""What the registry counts, for Prometheus to scrape.

Label values come from the closed sets below, or from the configuration: no client can add a series.
What is on the way of every request is looked up once, then counted in half a microsecond a value.

Several workers share their counts through files that prometheus-client maps into memory, one set a
worker. They are named by the worker's number, not its process: a worker that is started again goes
on where the one before it ended, so sums never fall, and the files never become more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefetch.server.given import GIVEN, Description, counter, gauge, given
from prefetch.state.meters import Budget
from prefetch.state.records import EntryTotal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format, in the version that every scraper reads."""

KINDS: Final = ("ping", "manifest", "blob", "tags", "catalog", "referrers", "other")
METHODS: Final = ("GET", "HEAD", "other")
RESULTS: Final = ("hit", "miss", "stale")
FETCHES: Final = ("manifest", "blob", "tag_check")
OUTCOMES: Final = ("ok", "failed", "refused")
STALE_REASONS: Final = ("down", "slow", "throttled", "budget", "frozen", "behind", "failed")
CAUSES: Final = (
    *("upstream_down", "upstream_error", "throttled", "budget", "frozen", "not_found", "denied"),
    *("not_cached", "too_many_misses", "bad_request", "digest_mismatch", "storage"),
    *("client_gone", "client_stalled", "internal"),
)

_DURATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_AGES = (60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 604800.0, 2592000.0)
# A worker's file of one type. Its blocks are taken at the start: a page that finds no block when
# it is written to, on a full disk, would end the process.
_FILE_SIZE = 256 << 10
# Where prometheus-client looks for the directory whenever a series is made.
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_FILE_TYPES = ("counter", "histogram", "gauge_livesum")


_REQUESTS = counter("requests", ("kind", "method", "status"), "Requests answered.")
_DURATION = Description(
    "prefetch_manifest_request_duration_seconds",
    "histogram",
    (),
    "Time from a manifest request to the end of its answer.",
)
_SENT = counter("sent_bytes", ("kind",), "Bytes of bodies sent to clients.")
_RESULTS = counter(
    "cache_results",
    ("kind", "result"),
    "Requests by where the answer came from: the cache (hit), the upstream (miss), or the cache "
    "although it may be out of date (stale).",
)
_FETCHES = counter(
    "upstream_fetches",
    ("kind", "outcome"),
    "Fetches from upstreams and checks of tags; refused are those that were not sent.",
)
_RECEIVED = counter("upstream_received_bytes", (), "Bytes of content received from upstreams.")
_COALESCED = counter(
    "coalesced_requests", (), "Requests that joined a fetch or check that was under way."
)
_STALE = counter(
    "stale_answers", ("reason",), "Answers from the cache that may be out of date, and why."
)
_STALE_AGE = Description(
    "prefetch_stale_answer_age_seconds",
    "histogram",
    (),
    "Time since the upstream last confirmed what a stale answer said.",
)
_ERRORS = counter("errors", ("cause",), "Requests that failed, and why.")
_UNDER_WAY = gauge("requests_under_way", (), "Requests that are being answered.")
_BLOBS = gauge("blobs_under_way", (), "Blobs that are being fetched for clients.")
_CONNECTIONS = gauge("connections", (), "Open connections of clients.")
METRICS: Final = (
    *(_REQUESTS, _DURATION, _SENT, _RESULTS, _FETCHES, _RECEIVED, _COALESCED, _STALE, _STALE_AGE),
    *(_ERRORS, _UNDER_WAY, _BLOBS, _CONNECTIONS),
    *GIVEN,
)
"""Every metric there is."""


@dataclass(frozen=True, slots=True)
class Share:
    """Where the workers of one server keep their counts for each other, and which of them we are.

    Workers that run at the same time have different numbers.
    """

    directory: Path
    worker: int


@contextmanager
def shared_directory(parent: Path | None = None) -> Iterator[Path]:
    """A fresh directory for `Share`, in `parent` or the system's temporary one; gone at the end."""
    directory = tempfile.mkdtemp(prefix="prefetch-metrics-", dir=parent)
    try:
        yield Path(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def forget(share: Share) -> None:
    """A worker has died: nothing of it is under way any more. What it counted stays."""
    (share.directory / f"gauge_livesum_{share.worker}.db").unlink(missing_ok=True)


class Metrics:
    """Counts, and renders what all workers have counted. One a process; `close` it at the end.

    Values that no set above has are counted as its last: `other`, `internal`. Without `share`
    the counts are this process's alone. Raises OSError when the shared files cannot be made.
    """

    def __init__(self, share: Share | None = None) -> None:
        # Imported here, since it costs start-up some 30 ms.
        import prometheus_client

        client: Any = prometheus_client  # some of it has no types
        # When a process began to count is of no use where the next one goes on.
        client.disable_created_metrics()
        values = client.values
        self._share = share
        # prometheus-client lets a program choose the class of its values before it makes metrics.
        values.ValueClass = values.MutexValue
        if share is not None:
            _take_space(share)
            os.environ[_DIRECTORY] = str(share.directory)
            values.ValueClass = values.MultiProcessValue(lambda: share.worker)
        self._values = values.ValueClass
        self._registry = prometheus_client.CollectorRegistry()
        self._make_counts()
        self._make_gauges()

    def _make_counts(self) -> None:
        registry = self._registry
        self._requests = _Children(_REQUESTS, (KINDS, METHODS, None), registry)
        self._sent = _Children(_SENT, (KINDS,), registry)
        self._results = _Children(_RESULTS, (KINDS, RESULTS), registry)
        self._fetches = _Children(_FETCHES, (FETCHES, OUTCOMES), registry)
        self._stale = _Children(_STALE, (STALE_REASONS,), registry)
        self._errors = _Children(_ERRORS, (CAUSES,), registry)
        for children in (self._fetches, self._stale, self._errors):
            children.fill()
        self._received = _make(_RECEIVED, registry).inc
        self._coalesced = _make(_COALESCED, registry).inc
        self._duration = _make(_DURATION, registry, buckets=_DURATIONS).observe
        self._stale_age = _make(_STALE_AGE, registry, buckets=_AGES).observe

    def _make_gauges(self) -> None:
        self._gauges = {
            description.name: _make(description, self._registry, multiprocess_mode="livesum")
            for description in (_UNDER_WAY, _BLOBS, _CONNECTIONS)
        }
        for each in self._gauges.values():
            each.set(0)
        self._under_way = self._gauges[_UNDER_WAY.name].inc
        self._blobs = self._gauges[_BLOBS.name].inc
        self._connections = self._gauges[_CONNECTIONS.name].inc

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    def begun(self) -> None:
        """A request has arrived; `ended` follows, whatever becomes of it."""
        self._under_way(1)

    def ended(
        self,
        kind: str,
        method: str,
        status: int,
        *,
        sent: int,
        seconds: float,
        result: str | None = None,
    ) -> None:
        """A request has been answered, or its client is gone.

        `sent` is how many bytes of the body have left, `seconds` how long it took, `result` one of
        RESULTS where the cache was asked.
        """
        self._under_way(-1)
        self._requests[kind, method, status]()
        self._sent[kind](sent)
        if result is not None:
            self._results[kind, result]()
        if kind == "manifest":
            self._duration(seconds)

    def error(self, cause: str) -> None:
        """A request has failed, for one of CAUSES."""
        self._errors[cause]()

    def stale(self, reason: str, age: float) -> None:
        """An answer went out that may be out of date: one of STALE_REASONS, confirmed so long ago.

        `age` in seconds.
        """
        self._stale[reason]()
        self._stale_age(max(age, 0.0))

    def joined(self) -> None:
        """A request has joined a fetch or a check that somebody else's had begun."""
        self._coalesced()

    def connections(self, change: int) -> None:
        """A client has connected (1) or gone (-1)."""
        self._connections(change)

    # ── upstreams ────────────────────────────────────────────────────────────────────────────────

    def fetch(self, kind: str, outcome: str) -> None:
        """A fetch or a check has ended: one of FETCHES, one of OUTCOMES."""
        self._fetches[kind, outcome]()

    def received(self, count: int) -> None:
        """So many bytes of content have come from an upstream."""
        self._received(count)

    def blobs(self, change: int) -> None:
        """A blob is being fetched (1), or no longer (-1)."""
        self._blobs(change)

    # ── scrapes ──────────────────────────────────────────────────────────────────────────────────

    def render(
        self,
        budgets: Sequence[Budget],
        *,
        frozen: bool,
        now: datetime,
        schedule: Sequence[EntryTotal] = (),
    ) -> tuple[bytes, str]:
        """The page that Prometheus reads, over all workers, and its content type.

        It reads the files of all workers: call it in a thread.
        """
        from prometheus_client import generate_latest, multiprocess

        counted: Any = self._registry
        if self._share is not None:
            files: Any = multiprocess
            counted = files.MultiProcessCollector(None, path=str(self._share.directory))
        page = _Page(
            [*counted.collect(), *given(budgets, frozen=frozen, now=now, schedule=schedule)]
        )
        return generate_latest(page), CONTENT_TYPE

    def close(self) -> None:
        """Close the shared files; nothing may be counted afterwards."""
        if self._share is not None:
            self._values.close_all_files()
            os.environ.pop(_DIRECTORY, None)


class _Children(dict[Any, Callable[..., None]]):
    """By label values: how to add to that series. Made when first wanted, or by `fill`.

    `sets` has what each label may be; None takes any value, and is for numbers of our own.
    """

    def __init__(
        self,
        description: Description,
        sets: tuple[tuple[str, ...] | None, ...],
        registry: CollectorRegistry,
    ) -> None:
        super().__init__()
        self._metric = _make(description, registry)
        self._sets = sets

    def __missing__(self, key: Any) -> Callable[..., None]:
        given = key if isinstance(key, tuple) else (key,)
        pairs = zip(given, self._sets, strict=True)
        labels = [str(v) if s is None or v in s else s[-1] for v, s in pairs]
        add: Callable[..., None] = self._metric.labels(*labels).inc
        # A strange value is looked up each time: kept, clients could fill the memory with them.
        if all(s is None or v in s for v, s in zip(given, self._sets, strict=True)):
            self[key] = add
        return add

    def fill(self) -> None:
        """Make all series now, so that their rates are known from the first event on."""
        (first, *rest) = [each for each in self._sets if each is not None]
        for value in first:
            for key in [(value, other) for other in rest[0]] if rest else [value]:
                self[key]


class _Page:
    """Metrics in the order of METRICS, as something that can be scraped."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        order = {each.name.removesuffix("_total"): place for place, each in enumerate(METRICS)}
        self._metrics = sorted(metrics, key=lambda metric: order[metric.name])

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def _make(description: Description, registry: CollectorRegistry, **options: Any) -> Any:
    import prometheus_client

    make = getattr(prometheus_client, description.type.capitalize())
    return make(
        description.name, description.help, description.labels, registry=registry, **options
    )


def _take_space(share: Share) -> None:
    for name in _FILE_TYPES:
        path = share.directory / f"{name}_{share.worker}.db"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _FILE_SIZE)
        finally:
            os.close(descriptor)
