"""The referee between a plan and the sync that follows it: what was spent is what was priced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

Document = Mapping[str, Any]
Pulls = Mapping[str, int]


def assert_totals_add_up(plan: Document) -> None:
    """A plan's totals are those of its images, and an image's keys do not contradict each other."""
    images, totals = plan["images"], plan["totals"]
    assert totals["images"] == len(images)
    assert totals["pulls_min"] == sum(each["pulls_min"] for each in images)
    assert totals["pulls_max"] == _sum(each["pulls_max"] for each in images)
    assert totals["bytes"] == _sum(e["bytes"] for e in images if e["error"] is None)
    for each in images:
        least, most = each["pulls_min"], each["pulls_max"]
        assert least >= 0, each
        assert most is None or least <= most, each
        assert each["exact"] == (least == most and each["error"] is None), each
        assert each["pulls"] == (least if each["exact"] else None), each
        starts = each["action"] in ("sync", "defer")
        # Where others leave nothing for it, one that is put off has no moment.
        assert starts or each["start_at"] is None, each
        assert each["start_at"] is not None or each["action"] != "sync", each
        if each["action"] == "none":
            assert (most, each["bytes"]) == (0, 0), each
    available = [each["available"] for each in plan["budgets"]]
    assert totals["pulls_available"] == (_sum(available) if available else None)
    if starts := [each["start_at"] for each in images if each["start_at"]]:
        assert totals["finish_at"] == max(starts)


def assert_spent_as_planned(
    plan: Document,
    done: Document,
    pulls: Pulls,
    *,
    watched: Collection[str],
    unforeseen: Iterable[str] = (),
    scripted: Iterable[str] = (),
    waits: bool = False,
) -> None:
    """What a sync spent and put off is what the plan before it said, image by image and together.

    `pulls` are the manifest GETs that reached the upstreams, by `address/repository`, as far as
    these are `watched` (addresses). For the references of `unforeseen` an upper bound was named
    that the plan could not know; those of `scripted` are not judged, they meet faults that cost
    pulls. One that `waits` fetches also what the plan puts off.
    """
    left_out = set(scripted)
    plan, done = _without(plan, left_out), _without(done, left_out)
    for name in left_out:
        pulls = {place: count for place, count in pulls.items() if place != _repository(name)}
    priced = {each["reference"]: each for each in plan["images"]}
    assert list(priced) == [each["reference"] for each in done["images"]]
    unbounded = set(unforeseen)
    reported: Counter[str] = Counter()
    for spent in done["images"]:
        planned = priced[spent["reference"]]
        repository = _repository(spent["reference"])
        if repository.partition("/")[0] in watched:
            reported[repository] += spent["pulls"]
        _check_image(planned, spent, bounded=spent["reference"] not in unbounded)
    assert reported == Counter(pulls), (reported, pulls)
    if not waits:
        _check_deferrals(plan, done)
    total = sum(each["pulls"] for each in done["images"])
    started = [each for each in plan["images"] if each["action"] != "defer"]
    assert sum(each["pulls_min"] for each in started) <= total
    most = _sum(each["pulls_max"] for each in plan["images"])
    assert unbounded or most is None or total <= most


def _without(document: Document, names: Collection[str]) -> Document:
    kept = [each for each in document["images"] if each["reference"] not in names]
    return {**document, "images": kept}


def _check_image(planned: Document, spent: Document, *, bounded: bool) -> None:
    facts = (planned, spent)
    if planned["digest"] is not None and spent["digest"] is not None:
        assert planned["digest"] == spent["digest"], facts
    most = planned["pulls_max"]
    if bounded and most is not None:
        assert spent["pulls"] <= most, facts
    if spent["outcome"] == "deferred":
        return  # it went in parts at most
    assert planned["pulls_min"] <= spent["pulls"], facts
    if planned["exact"]:
        assert spent["pulls"] == planned["pulls"], facts


def _check_deferrals(plan: Document, done: Document) -> None:
    """What was to start now is not put off; what was to wait is, unless bounds left room."""
    outcomes = {each["reference"]: each["outcome"] for each in done["images"]}
    by_action: dict[str, set[str]] = {"sync": set(), "defer": set(), "none": set()}
    for each in plan["images"]:
        by_action.setdefault(each["action"], set()).add(each["reference"])
    put_off = {name for name, outcome in outcomes.items() if outcome == "deferred"}
    started = [each for each in plan["images"] if each["action"] == "sync"]
    if all(each["pulls_max"] is not None for each in started):
        assert not put_off - by_action["defer"], (plan, done)
    if all(each["exact"] for each in started) and not _goes_in_parts(plan):
        assert put_off == by_action["defer"], (plan, done)
    for name in by_action["none"]:
        assert outcomes[name] in ("unchanged", "synced"), (plan, done)


def _goes_in_parts(plan: Document) -> bool:
    """Whether an image may be dearer than a whole window: it takes all that is left."""
    windows = [e["limit"] - e["reserve"] for e in plan["budgets"] if e["limit"] is not None]
    waiting = [each["pulls_max"] for each in plan["images"] if each["action"] == "defer"]
    return any(most is None or most > max(1, min(windows)) for most in waiting)


def _repository(reference: str) -> str:
    """`address/repository` of a canonical reference."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(value or 0 for value in known)
