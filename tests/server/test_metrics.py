from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from prefetch.server import metrics as module
from prefetch.server.metrics import CAUSES, METRICS, Metrics, Share, forget, shared_directory
from prefetch.state.meters import Budget, MeterKey

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BUDGET = Budget(
    MeterKey("docker.io", "alice"), "203.0.113.7", 200, 150, 40, 110, 21600.0,
    NOW - timedelta(seconds=90), 12.5,
)  # fmt: skip
UNKNOWN = Budget(MeterKey("quay.io"), None, None, None, 0, None, None, None, 0.0)

# Counts one request, says so, and waits to be killed.
WORKER = """
import sys
from pathlib import Path
from prefetch.server.metrics import Metrics, Share
metrics = Metrics(Share(Path(sys.argv[1]), int(sys.argv[2])))
for _ in range(int(sys.argv[3])):
    metrics.begun()
    metrics.ended("blob", "GET", 206, sent=10, seconds=0.1, result="hit")
metrics.begun()
print("counted", flush=True)
sys.stdin.read()
"""

Samples = dict[tuple[str, tuple[str, ...]], float]


def scrape(metrics: Metrics, *budgets: Budget, frozen: bool = False) -> Samples:
    """Every sample, by its name and its labels' values in alphabetical order of the labels."""
    page, content_type = metrics.render(budgets, frozen=frozen, now=NOW)
    assert content_type.startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = sample.name, tuple(v for _, v in sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics()
    yield made
    made.close()


def answer(metrics: Metrics, times: int = 1) -> None:
    for _ in range(times):
        metrics.begun()
        metrics.ended("manifest", "HEAD", 200, sent=0, seconds=0.002, result="hit")


def test_a_request_is_counted_wherever_it_belongs(metrics: Metrics) -> None:
    metrics.begun()
    assert scrape(metrics)["prefetch_requests_under_way", ()] == 1
    metrics.ended("manifest", "GET", 200, sent=500, seconds=0.02, result="miss")
    metrics.begun()
    metrics.ended("blob", "GET", 404, sent=70, seconds=9.0)
    found = scrape(metrics)
    assert found["prefetch_requests_under_way", ()] == 0
    assert found["prefetch_requests_total", ("manifest", "GET", "200")] == 1
    assert found["prefetch_requests_total", ("blob", "GET", "404")] == 1
    assert found["prefetch_sent_bytes_total", ("manifest",)] == 500
    assert found["prefetch_cache_results_total", ("manifest", "miss")] == 1
    assert ("prefetch_cache_results_total", ("blob", "miss")) not in found
    # The blob's nine seconds are not among the manifests' durations.
    durations = "prefetch_manifest_request_duration_seconds"
    assert found[f"{durations}_bucket", ("0.01",)] == 0
    assert found[f"{durations}_bucket", ("0.03",)] == 1
    assert found[f"{durations}_count", ()] == 1


def test_what_happens_besides_requests_is_counted(metrics: Metrics) -> None:
    metrics.error("client_gone")
    metrics.stale("slow", 120.0)
    metrics.stale("slow", -5.0)
    metrics.joined()
    metrics.fetch("tag_check", "failed")
    metrics.received(4096)
    metrics.blobs(1)
    metrics.connections(1)
    metrics.connections(1)
    metrics.connections(-1)
    found = scrape(metrics)
    assert found["prefetch_errors_total", ("client_gone",)] == 1
    assert found["prefetch_errors_total", ("internal",)] == 0
    assert found["prefetch_stale_answers_total", ("slow",)] == 2
    assert found["prefetch_stale_answer_age_seconds_bucket", ("60.0",)] == 1
    assert found["prefetch_stale_answer_age_seconds_bucket", ("300.0",)] == 2
    assert found["prefetch_coalesced_requests_total", ()] == 1
    assert found["prefetch_upstream_fetches_total", ("tag_check", "failed")] == 1
    assert found["prefetch_upstream_received_bytes_total", ()] == 4096
    assert found["prefetch_blobs_under_way", ()] == 1
    assert found["prefetch_connections", ()] == 1


def test_no_client_can_add_series(metrics: Metrics) -> None:
    before = len(scrape(metrics))
    for number in range(300):
        metrics.begun()
        metrics.ended(f"k{number}", f"BREW{number}", 405, sent=1, seconds=0.0)
        metrics.error(f"c{number}")
    found = scrape(metrics)
    assert found["prefetch_requests_total", ("other", "other", "405")] == 300
    assert found["prefetch_sent_bytes_total", ("other",)] == 300
    assert found["prefetch_errors_total", ("internal",)] == 300
    assert len(found) == before + 2
    # Nor can it fill our memory with what is looked up.
    assert len(metrics._requests) == 0
    assert len(metrics._errors) == len(CAUSES)


def test_budgets_are_told_as_they_are_at_the_scrape(metrics: Metrics) -> None:
    found = scrape(metrics, BUDGET, UNKNOWN, frozen=True)
    alice, anonymous = ("alice", "docker.io"), ("anonymous", "quay.io")
    assert found["prefetch_frozen", ()] == 1
    assert found["prefetch_budget_limit_pulls", alice] == 200
    assert found["prefetch_budget_remaining_pulls", alice] == 150
    assert found["prefetch_budget_reserve_pulls", alice] == 40
    assert found["prefetch_budget_available_pulls", alice] == 110
    assert found["prefetch_budget_foreign_burn_pulls_per_hour", alice] == 12.5
    assert found["prefetch_budget_observed_age_seconds", alice] == 90
    # What is not known is absent, never zero.
    known = {name for name, labels in found if labels == anonymous}
    assert known == {
        "prefetch_budget_reserve_pulls",
        "prefetch_budget_foreign_burn_pulls_per_hour",
    }
    again = scrape(metrics)
    assert again["prefetch_frozen", ()] == 0
    assert ("prefetch_budget_limit_pulls", alice) not in again


@pytest.mark.parametrize("shared", [False, True])
def test_the_table_of_metrics_is_what_is_rendered(shared: bool) -> None:
    with shared_directory() as directory:
        metrics = Metrics(Share(directory, 0) if shared else None)
        answer(metrics)
        page, _ = metrics.render([BUDGET], frozen=False, now=NOW)
        metrics.close()
    families = list(text_string_to_metric_families(page.decode()))
    told = [(family.name, family.type, family.documentation) for family in families]
    assert told == [(m.name.removesuffix("_total"), m.type, m.help) for m in METRICS]
    labels = {m.name.removesuffix("_total"): set(m.labels) for m in METRICS}
    for family in families:
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels[family.name]


def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    one, two = Metrics(Share(tmp_path, 0)), Metrics(Share(tmp_path, 1))
    answer(one, times=2)
    answer(two, times=3)
    two.begun()
    one.connections(5)
    two.connections(7)
    for asked in (one, two):
        found = scrape(asked, BUDGET, frozen=True)
        assert found["prefetch_requests_total", ("manifest", "HEAD", "200")] == 5
        assert found["prefetch_manifest_request_duration_seconds_count", ()] == 5
        assert found["prefetch_requests_under_way", ()] == 1
        assert found["prefetch_connections", ()] == 12
        # Whoever is asked tells budgets once, not once a worker.
        assert found["prefetch_frozen", ()] == 1
        assert found["prefetch_budget_limit_pulls", ("alice", "docker.io")] == 200
    one.close()
    two.close()


def test_what_a_dead_worker_counted_stays_and_its_successor_goes_on(tmp_path: Path) -> None:
    survivor = Metrics(Share(tmp_path, 0))
    died = Share(tmp_path, 1)
    command = [sys.executable, "-c", WORKER, str(tmp_path), "1", "4"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"counted\n"
        assert scrape(survivor)["prefetch_requests_under_way", ()] == 1
        worker.kill()
    assert worker.returncode == -signal.SIGKILL
    forget(died)
    forget(died)
    answered = "prefetch_requests_total", ("blob", "GET", "206")
    found = scrape(survivor)
    assert found[answered] == 4
    assert found["prefetch_requests_under_way", ()] == 0

    successor = Metrics(died)
    successor.begun()
    successor.ended("blob", "GET", 206, sent=10, seconds=0.1)
    found = scrape(survivor)
    assert found[answered] == 5
    assert found["prefetch_requests_under_way", ()] == 0
    # A number's files are used again, so that a worker that keeps dying adds none.
    assert len(list(tmp_path.iterdir())) == 2 * 3
    survivor.close()
    successor.close()


def test_a_worker_that_starts_has_nothing_under_way(tmp_path: Path) -> None:
    died = Metrics(Share(tmp_path, 0))
    died.begun()
    died.blobs(1)
    died.connections(3)
    died.close()
    # Nobody has called `forget`.
    successor = Metrics(Share(tmp_path, 0))
    found = scrape(successor)
    for name in ("requests_under_way", "blobs_under_way", "connections"):
        assert found[f"prefetch_{name}", ()] == 0
    successor.close()


def test_shared_files_have_their_space_from_the_start(tmp_path: Path) -> None:
    metrics = Metrics(Share(tmp_path, 0))
    for path in tmp_path.iterdir():
        status = path.stat()
        assert status.st_blocks * 512 >= status.st_size
    for kind in module.KINDS:
        for method in module.METHODS:
            for status_code in range(400, 430):
                metrics.begun()
                metrics.ended(kind, method, status_code, sent=1, seconds=1.0, result="hit")
    # All the series that there can be fit in: no file has grown into blocks that may be missing.
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {module._FILE_SIZE}
    metrics.close()


def test_the_shared_directory_is_gone_at_the_end(tmp_path: Path) -> None:
    def fail() -> None:
        with shared_directory(tmp_path) as directory:
            metrics = Metrics(Share(directory, 0))
            metrics.close()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_importing_it_does_not_import_prometheus_client() -> None:
    program = "import sys, prefetch.server.metrics; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"False\n"
