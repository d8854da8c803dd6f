"""Events into notices: what is said, and what is one condition."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from prefetch.events import (
    DeadlineMissed,
    Event,
    ImageFinished,
    ImmutableTagMoved,
    ReserveThreatened,
    RunFinished,
    RunStarted,
    ThrottleEvent,
)
from prefetch.sync.hooks import EVENTS
from prefetch.sync.notices import Composer, Ended, Notice
from support.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(hours=2)


def told(*events: Event, entry: str | None = None) -> list[Notice | Ended]:
    found: list[Notice | Ended] = []
    composer = Composer(found.append, ManualClock(NOW), entry)
    for event in events:
        composer.listen(event)
    return found


def notice(*events: Event, entry: str | None = None) -> Notice:
    (found,) = [each for each in told(*events, entry=entry) if isinstance(each, Notice)]
    return found


MISSED = DeadlineMissed(SOON, ("docker.io/library/a:1", "docker.io/library/b:1"), "9 pulls lack")
THREAT = ReserveThreatened("docker.io", "alice", 200, 62, 40, 22, 30.25, 21600.0, SOON)


def test_a_deadline_that_cannot_be_met() -> None:
    found = notice(RunStarted("run-1", 2), MISSED, entry="nightly")
    assert found.text == "2 images will not be warm by 2026-01-01T02:00:00Z: 9 pulls lack."
    assert found.facts == {
        "by": "2026-01-01T02:00:00Z",
        "images": list(MISSED.images),
        "count": 2,
        "reason": "9 pulls lack",
    }
    assert (found.run_id, found.entry) == ("run-1", "nightly")
    assert found.condition == notice(MISSED, entry="nightly").condition
    assert found.condition != notice(MISSED).condition


def test_a_threat() -> None:
    found = notice(THREAT)
    assert found.text == (
        "Others pull from docker.io as alice at 30 an hour: the 22 pulls above the reserve of 40 "
        "will be used up at about 2026-01-01T02:00:00Z."
    )
    assert found.registry == "docker.io"
    assert found.facts["foreign_burn_per_hour"] == 30.25
    assert found.condition is not None
    assert found.condition.until is None


def run(outcome: str, *images: str, message: str | None = None, errors: int = 0) -> list[Event]:
    finished = [
        ImageFinished(f"docker.io/library/{name}:1", each, 1, 2, f"docker.io/library/{name}:1: no")
        for each, names in (pair.split(" ") for pair in images)
        for name in names
    ]
    end = RunFinished("run-1", outcome, errors, message)
    return [RunStarted("run-1", len(finished)), *finished, end]


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (
            run("failed", "failed ab", "synced c"),
            "A sync failed: 2 of 3 images, docker.io/library/a:1: no.",
        ),
        (
            run("failed", "failed a", errors=1),
            "A sync failed: 1 of 1 image, docker.io/library/a:1: no; 1 entry of its sources "
            "cannot be used.",
        ),
        (run("failed", errors=2), "A sync failed: 2 entries of its sources cannot be used."),
        (run("failed", message="the disk is full."), "A sync failed: the disk is full."),
        (
            run("deferred", "deferred ab", "unchanged c"),
            "A sync has put off 2 of 3 images for want of budget.",
        ),
    ],
)
def test_runs(events: list[Event], text: str) -> None:
    assert notice(*events).text == text


def test_what_is_one_failure_and_what_is_another() -> None:
    def condition(*images: str, entry: str | None = None) -> object:
        return notice(*run("failed", *images), entry=entry).condition

    assert condition("failed ab", "synced c") == condition("failed ba", "unchanged c")
    assert condition("failed ab", "synced c") != condition("failed a", "synced bc")
    assert condition("failed a") != condition("failed a", entry="nightly")


def test_a_run_that_is_well_ends_what_was_told() -> None:
    (ended,) = told(*run("complete", "synced a"), entry="nightly")
    assert ended == Ended("entry nightly", ("run_failed", "run_deferred"))
    assert told(*run("interrupted", "synced a")) == []
    # It is the same images that were put off and are complete now, of whatever list.
    first = notice(*run("deferred", "deferred a", "synced b"))
    (later,) = told(*run("complete", "synced a", "unchanged b"))
    assert isinstance(later, Ended)
    assert first.condition is not None
    assert first.condition.subject == later.subject


def test_documents_are_bounded_and_one_line() -> None:
    many = [
        ImageFinished(f"docker.io/a/{number}:1", "failed", message="x\n" * 999)
        for number in range(99)
    ]
    found = notice(RunStarted("run-1", 99), *many, RunFinished("run-1", "failed"))
    document = json.loads(found.body())
    assert len(document["facts"]["images"]) == 20
    assert document["facts"]["totals"]["failed"] == 99
    assert len(document["text"]) <= 500
    assert "\n" not in document["text"]
    assert len(found.body()) < 60_000


def test_each_event_has_its_notice() -> None:
    moved = ImmutableTagMoved("docker.io/library/a:v1", "sha256:1", "sha256:2", kept=False)
    events = [
        *told(*run("failed", "failed a")),
        *told(*run("deferred", "deferred a")),
        *told(MISSED, THREAT, moved, ThrottleEvent("docker.io", SOON)),
    ]
    assert tuple(each.event for each in events if isinstance(each, Notice)) == EVENTS
