"""Records in and out, many at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from prefetch.state.database import State
from prefetch.state.records import (
    BlobRecord,
    ChildRecord,
    EntryHistory,
    EntryTotal,
    LinkRecord,
    ManifestRecord,
    Pace,
    ReferenceRecord,
    RunImageRecord,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def image(number: int) -> list[ManifestRecord]:
    """An index of two manifests of one config and two layers each."""
    index, *manifests = (digest(number * 100 + i) for i in range(3))
    documents = [
        ManifestRecord(
            index,
            "index",
            900,
            tuple(ChildRecord(m, "manifest", "manifest", 500, f"linux/{m[-1]}") for m in manifests),
        )
    ]
    for position, manifest in enumerate(manifests):
        base = number * 100 + 10 * (position + 1)
        documents.append(
            ManifestRecord(
                manifest,
                "manifest",
                500,
                (
                    ChildRecord(digest(base), "config", "config", 70),
                    ChildRecord(digest(base + 1), "layer", "tar", 1000),
                    ChildRecord(digest(base + 2), "layer", "tar", 2000),
                ),
            )
        )
    return documents


async def test_references(state: State) -> None:
    tag = ReferenceRecord(
        "docker.io/library/a:1", "docker.io", "library/a", "1", digest(1), "index",
        "linux/amd64,linux/arm64", True, False, NOW, NOW, NOW, None, None,
    )  # fmt: skip
    bare = ReferenceRecord(f"quay.io/b@{digest(2)}", "quay.io", "b", digest=digest(2))
    await state.references.save_many([tag, bare])
    assert await state.references.get_many([tag.name, "other"]) == {tag.name: tag}
    moved = replace(tag, digest=digest(3), last_error="gone", deferred_since=NOW)
    await state.references.save_many([moved])
    assert await state.references.list() == [moved, bare]
    assert await state.references.set_pinned([bare.name, "other"], pinned=True) == 1
    assert (await state.references.get_many([bare.name]))[bare.name].pinned
    assert await state.references.delete([tag.name, "other"]) == 1
    assert [r.name for r in await state.references.list()] == [bare.name]


async def test_two_thousand_references_in_one_call(state: State) -> None:
    records = [ReferenceRecord(f"r/{i}:1", "r", str(i), "1") for i in range(2000)]
    await state.references.save_many(records)
    assert len(await state.references.get_many(r.name for r in records)) == 2000


async def test_trees(state: State) -> None:
    documents = [document for number in range(600) for document in image(number)]
    await state.manifests.save_many(documents)
    await state.manifests.save_many(documents[:3])
    assert await state.manifests.trees([digest(0)]) == {d.digest: d for d in documents[:3]}
    assert await state.manifests.trees([digest(100 * n) for n in range(600)]) == {
        document.digest: document for document in documents
    }
    assert await state.manifests.trees([digest(999_999)]) == {}
    manifest = documents[1]
    assert await state.manifests.trees([manifest.digest]) == {manifest.digest: manifest}


async def test_references_that_are_completed(state: State) -> None:
    cold, moved, warm = (
        ReferenceRecord(f"docker.io/library/a:{n}", "docker.io", "library/a", str(n), digest(n))
        for n in (1, 2, 3)
    )
    warm = replace(warm, warm=True, synced_at=NOW)
    await state.references.save_many([cold, moved, warm])
    before = await state.generation()
    later = NOW + timedelta(hours=1)
    found = {cold.name: digest(1), moved.name: digest(9), warm.name: digest(3), "gone": digest(4)}
    await state.references.complete(found, later)
    assert await state.references.list() == [
        replace(cold, warm=True, synced_at=later),
        moved,
        warm,
    ]
    assert await state.generation() == before + 1
    await state.references.complete(found, later)
    await state.references.complete({}, later)
    assert await state.generation() == before + 1


async def test_trees_that_bite_their_tails_or_have_holes(state: State) -> None:
    loop = [
        ManifestRecord(digest(1), "index", 1, (ChildRecord(digest(2), "index", "index", 1),)),
        ManifestRecord(digest(2), "index", 1, (ChildRecord(digest(1), "index", "index", 1),)),
        ManifestRecord(digest(3), "index", 1, (ChildRecord(digest(4), "manifest", "m", 1),)),
        ManifestRecord(digest(5), "index", 1),
    ]
    await state.manifests.save_many(loop)
    found = await state.manifests.trees([digest(1), digest(3), digest(5)])
    assert found == {document.digest: document for document in loop}
    await state.manifests.delete([digest(1)])
    assert list(await state.manifests.trees([digest(1), digest(2)])) == [digest(2)]


async def test_blobs(state: State) -> None:
    blob = BlobRecord(digest(1), 10, "docker.io", NOW)
    await state.blobs.save_many([blob])
    await state.blobs.served([blob.digest], NOW)
    await state.blobs.save_many([replace(blob, registry="quay.io")])
    found = await state.blobs.get_many([blob.digest, digest(2)])
    assert found == {blob.digest: replace(blob, registry="quay.io", last_served_at=NOW)}
    await state.blobs.delete([blob.digest])
    assert await state.blobs.get_many([blob.digest]) == {}


async def test_content_that_is_first_heard_of_when_it_is_served(state: State) -> None:
    layer = ChildRecord(digest(2), "layer", "layer", 20)
    await state.manifests.save_many([ManifestRecord(digest(1), "manifest", 10, (layer,))])
    await state.blobs.save_many([BlobRecord(digest(4), 40, "docker.io", NOW, NOW)])
    later = NOW + timedelta(hours=1)
    wanted = [digest(number) for number in (1, 2, 3, 4)]
    for at in (NOW, later):
        await state.blobs.served(wanted, at)
    assert await state.blobs.get_many(wanted) == {
        digest(1): BlobRecord(digest(1), 10, last_served_at=later),
        digest(2): BlobRecord(digest(2), 20, last_served_at=later),
        digest(4): BlobRecord(digest(4), 40, "docker.io", NOW, later),
    }
    # What a fetch of ours then brings is written down without forgetting that.
    await state.blobs.save_many([BlobRecord(digest(2), 20, "docker.io", later)])
    found = (await state.blobs.get_many([digest(2)]))[digest(2)]
    assert found == BlobRecord(digest(2), 20, "docker.io", later, later)


async def test_links_and_visibility(state: State) -> None:
    links = [
        LinkRecord("docker.io", "library/a", digest(1)),
        LinkRecord("quay.io", "b", digest(1), "private"),
    ]
    await state.links.add_many([*links, LinkRecord("quay.io", "b", digest(2))])
    assert sorted(await state.links.repositories_of(digest(1)), key=str) == links
    await state.links.add_many([replace(links[1], visibility="public")])
    assert (await state.links.repositories_of(digest(1)))[1].visibility == "public"
    await state.links.set_visibility("quay.io", "b", "public", NOW)
    assert await state.links.visibilities() == {("quay.io", "b"): ("public", NOW)}


async def test_runs(state: State) -> None:
    first = await state.runs.start("sync", NOW)
    second = await state.runs.start("sync", NOW.replace(year=2027))
    assert first < second
    done = RunImageRecord("a:1", "synced", digest(1), "all", 3, 10, 0)
    failed = RunImageRecord("b:1", "failed", error_code="X", error="why", http_status=401)
    await state.runs.record(first, [failed, replace(done, outcome="deferred", retry_at=NOW)])
    await state.runs.record(first, [done])
    await state.runs.finish(first, "failed", NOW, images=2, pulls=3, bytes_fetched=10)
    found = await state.runs.get(first)
    assert found is not None
    assert found[1] == [done, failed]
    assert (found[0].outcome, found[0].pulls, found[0].finished_at) == ("failed", 3, NOW)
    assert [run.id for run in await state.runs.list()] == [second, first]
    assert [run.id for run in await state.runs.list(1)] == [second]
    assert await state.runs.get("other") is None


async def test_the_pace_of_past_runs(state: State) -> None:
    assert await state.runs.pace() == Pace()
    # So little tells nothing; one that waited looks slow; one that was killed has no end.
    for size, seconds in ((900_000, 1), (8_000_000, 4), (6_000_000, 600), (5_000_000, None)):
        run = await state.runs.start("sync", NOW)
        images = [
            RunImageRecord("docker.io/library/a:1", "synced", bytes_fetched=size // 2),
            RunImageRecord("docker.io/library/b:1", "synced", bytes_fetched=size - size // 2),
            RunImageRecord("docker.io/library/c:1", "unchanged"),
        ]
        await state.runs.record(run, images)
        if seconds is not None:
            at = NOW + timedelta(seconds=seconds)
            await state.runs.finish(run, "complete", at, images=3, bytes_fetched=size)
    assert await state.runs.pace() == Pace(rate=2_000_000.0, image=3_500_000)


async def test_runs_of_an_entry_of_the_schedule(state: State) -> None:
    later = NOW.replace(year=2027)
    assert await state.runs.of_entry("nightly") == EntryHistory()
    await state.runs.start("sync", NOW)
    first = await state.runs.start("schedule", NOW, entry="nightly", cause="first")
    other = await state.runs.start("schedule", NOW, entry="other", cause="first")
    for run_id, moment in ((first, later), (other, NOW)):
        waiting = RunImageRecord("a:1", "deferred", retry_at=moment)
        failed = RunImageRecord("b:1", "failed", retry_at=NOW)
        await state.runs.record(
            run_id, [waiting, replace(waiting, reference="c:1", retry_at=None), failed]
        )
        await state.runs.finish(run_id, "failed", NOW, images=3)
    history = await state.runs.of_entry("nightly")
    assert [(run.id, run.entry, run.cause) for run in history.runs] == [(first, "nightly", "first")]
    assert (history.deferred, history.retry_at) == (2, later)
    assert await state.runs.unsettled("nightly") == {"a:1", "b:1", "c:1"}
    # What counts is the newest run that has looked at images, and the newest that was for all.
    second = await state.runs.start("schedule", later, entry="nightly", cause="retry")
    for outcome in (None, "interrupted", "failed"):
        if outcome is not None:
            await state.runs.finish(second, outcome, later)
        history = await state.runs.of_entry("nightly")
        assert [run.id for run in history.runs] == [second, first]
        assert (history.deferred, history.retry_at) == (2, later)
        assert history.whole == history.runs[1]
    await state.runs.record(second, [replace(failed, outcome="unchanged"), waiting])
    await state.runs.finish(second, "deferred", later, images=2)
    assert (await state.runs.of_entry("nightly")).deferred == 1
    assert await state.runs.unsettled("nightly") == {"a:1"}
    assert await state.runs.unsettled("none") == frozenset()
    # One that finds nothing to do is the last word, too.
    third = await state.runs.start("schedule", later, entry="nightly", cause="tick")
    await state.runs.finish(third, "complete", later)
    history = await state.runs.of_entry("nightly")
    assert (history.deferred, history.retry_at) == (0, None)
    assert history.whole == history.runs[0]
    assert [run.id for run in (await state.runs.of_entry("nightly", 1)).runs] == [third]
    # One that goes on has no outcome yet.
    fourth = await state.runs.start("schedule", later, entry="nightly", cause="tick")
    assert await state.runs.entry_totals() == [
        EntryTotal("nightly", "complete", 1, later),
        EntryTotal("nightly", "deferred", 1, later),
        EntryTotal("nightly", "failed", 1, NOW),
        EntryTotal("other", "failed", 1, NOW),
    ]
    await state.runs.finish(fourth, "failed", later)
    assert (await state.runs.entry_totals())[2] == EntryTotal("nightly", "failed", 2, later)


async def test_calls_at_once_wait_for_each_other(state: State) -> None:
    await asyncio.gather(
        *(state.references.save_many([ReferenceRecord(f"r/{i}:1", "r", "x")]) for i in range(50))
    )
    assert len(await state.references.list()) == 50
