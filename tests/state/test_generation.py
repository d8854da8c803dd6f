"""The generation moves with what is served, once a transaction, and with nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prefetch.clock import SystemClock
from prefetch.ratelimit.budget import Reserve
from prefetch.ratelimit.headers import Observation
from prefetch.state.database import State
from prefetch.state.generation import bump_generation
from prefetch.state.ledger import Granted, Hold, Ledger, MeterKey, MeterPolicy
from prefetch.state.records import (
    BlobRecord,
    ChildRecord,
    LinkRecord,
    ManifestRecord,
    ReferenceRecord,
    RunImageRecord,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


TAG = ReferenceRecord(
    "docker.io/library/a:1", "docker.io", "library/a", "1", digest(1), "index", "linux/amd64",
    True, False, NOW, NOW, NOW,
)  # fmt: skip
INDEX = ManifestRecord(
    digest(1), "index", 900, (ChildRecord(digest(2), "manifest", "manifest", 500, "linux/amd64"),)
)
IMAGE = ManifestRecord(
    digest(2),
    "manifest",
    500,
    (
        ChildRecord(digest(3), "config", "config", 70, "linux/amd64"),
        ChildRecord(digest(4), "layer", "tar", 1000),
    ),
    subject=digest(9),
)
NEVER_SEEN = ReferenceRecord("docker.io/library/b:1", "docker.io", "library/b", "1")
BLOB = BlobRecord(digest(4), 1000, "docker.io", NOW)
LINK = LinkRecord("docker.io", "library/a", digest(4))

Work = Callable[[State], Awaitable[object]]


@pytest.fixture
async def filled(state: State) -> State:
    """A state that knows one image."""
    await state.references.save_many([TAG, NEVER_SEEN])
    await state.manifests.save_many([INDEX, IMAGE])
    await state.blobs.save_many([BLOB])
    await state.links.add_many([LINK])
    await state.links.set_visibility("docker.io", "library/a", "public", NOW)
    return state


def save(**changes: object) -> Work:
    return lambda state: state.references.save_many([replace(TAG, **changes)])


def keep(record: ManifestRecord) -> Work:
    return lambda state: state.manifests.save_many([record])


def visibility(known: str) -> Work:
    return lambda state: state.links.set_visibility("docker.io", "library/a", known, LATER)


CHANGES: dict[str, Work] = {
    "another digest": save(digest=digest(5)),
    "no digest": save(digest=None),
    "another media type": save(media_type="manifest"),
    "other platforms": save(platforms="all"),
    "no longer warm": save(warm=False),
    "a new reference": save(name="docker.io/library/a:2", tag="2"),
    "a reference forgotten": lambda state: state.references.delete([TAG.name, "other"]),
    "a new document": keep(ManifestRecord(digest(6), "manifest", 5)),
    "a document with one more child": keep(
        replace(INDEX, children=(*INDEX.children, ChildRecord(digest(7), "manifest", "m", 1)))
    ),
    "a subject learned": keep(replace(INDEX, subject=digest(9))),
    "a document forgotten": lambda state: state.manifests.delete([INDEX.digest]),
    "a document that only the store had": lambda state: state.manifests.delete([digest(8)]),
    "a new link": lambda state: state.links.add_many([LINK, replace(LINK, digest=digest(5))]),
    "a link of another visibility": lambda state: state.links.add_many(
        [replace(LINK, visibility="private")]
    ),
    "another visibility": visibility("private"),
    "a first visibility": lambda state: state.links.set_visibility("quay.io", "a", "unknown", NOW),
    "content forgotten": lambda state: state.blobs.delete([BLOB.digest]),
    "content that only the store had": lambda state: state.blobs.delete([digest(8)]),
    "a freeze": lambda state: state.freezes.freeze(NOW, None),
}

REPETITIONS: dict[str, Work] = {
    "the same reference": save(),
    "another time": save(resolved_at=LATER, changed_at=LATER, synced_at=LATER),
    "a failure": save(last_error="gone", resolved_at=None),
    "a deferral": save(deferred_since=LATER),
    "another failure of what never was here": lambda state: state.references.save_many(
        [replace(NEVER_SEEN, last_error="gone", resolved_at=LATER)]
    ),
    "a tag looked at": lambda state: state.references.touch(TAG.name, LATER),
    "a tag that is not known": lambda state: state.references.touch("other", LATER),
    "nothing to forget": lambda state: state.references.delete(["other"]),
    "no references": lambda state: state.references.save_many([]),
    "the same documents": lambda state: state.manifests.save_many([IMAGE, INDEX, IMAGE]),
    "a subject not told": keep(replace(IMAGE, subject=None)),
    "no documents": lambda state: state.manifests.delete([]),
    "the same links": lambda state: state.links.add_many([LINK, LINK]),
    "the same visibility": visibility("public"),
    "content saved": lambda state: state.blobs.save_many([BLOB, BlobRecord(digest(5), 1)]),
    "content served": lambda state: state.blobs.served([BLOB.digest], LATER),
    "no content": lambda state: state.blobs.delete([]),
    "no freeze": lambda state: state.freezes.thaw(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_what_changes_what_is_served_moves_it_once(filled: State, change: Work) -> None:
    before = await filled.generation()
    await change(filled)
    assert await filled.generation() == before + 1


@pytest.mark.parametrize("repetition", REPETITIONS.values(), ids=REPETITIONS.keys())
async def test_all_else_leaves_it(filled: State, repetition: Work) -> None:
    before = await filled.generation()
    await repetition(filled)
    assert await filled.generation() == before


async def test_thawing_moves_it_too(state: State) -> None:
    await state.freezes.freeze(NOW, None)
    before = await state.generation()
    await state.freezes.thaw()
    assert await state.generation() == before + 1


async def test_runs_and_the_ledger_leave_it(filled: State) -> None:
    before = await filled.generation()
    meter, policy = MeterKey("docker.io"), MeterPolicy(Reserve(0))
    ledger = await Ledger.open(filled, directory=filled.locks, clock=filled.clock)
    run_id = await filled.runs.start("sync", NOW)
    await ledger.observe(
        meter,
        await ledger.stamp(meter),
        Observation(100, 90, 21600, None),
        repository="library/a",
        method="HEAD",
    )
    hold = await ledger.hold(meter, 2, policy, label="image")
    assert isinstance(hold, Hold)
    answer = await ledger.spend(hold, meter, policy, repository="library/a", digest=None)
    assert isinstance(answer, Granted)
    await ledger.settle(answer.spend, Observation(100, 89, 21600, None), answered=True)
    await ledger.throttled("docker.io", 5)
    await filled.runs.record(run_id, [RunImageRecord(TAG.name, "synced")])
    await filled.runs.finish(run_id, "complete", LATER)
    await ledger.close()
    assert await filled.generation() == before


async def test_what_does_not_move_it_is_written_all_the_same(filled: State) -> None:
    later = replace(TAG, resolved_at=LATER, last_error="gone", deferred_since=NOW, pinned=True)
    await filled.references.save_many([later])
    assert await filled.references.list() == [later, NEVER_SEEN]
    await filled.links.set_visibility("docker.io", "library/a", "public", LATER)
    assert (await filled.links.visibilities())["docker.io", "library/a"] == ("public", LATER)


async def test_one_change_among_many_moves_it_and_all_are_written(state: State) -> None:
    many = [replace(TAG, name=f"docker.io/library/a:{i:04}", tag=f"{i:04}") for i in range(1200)]
    await state.references.save_many(many)
    before = await state.generation()
    looked_at = [replace(record, resolved_at=LATER) for record in many]
    await state.references.save_many(looked_at)
    assert await state.generation() == before
    looked_at[700] = replace(looked_at[700], digest=digest(5))
    looked_at.append(replace(TAG, name="docker.io/library/b:1", repository="library/b"))
    await state.references.save_many(replace(record, synced_at=LATER) for record in looked_at)
    assert await state.generation() == before + 1
    assert await state.references.list() == [
        replace(record, synced_at=LATER) for record in looked_at
    ]


async def test_what_was_known_of_content_is_not_forgotten_by_who_knows_less(filled: State) -> None:
    config, layer = IMAGE.children
    untold = replace(IMAGE, children=(replace(config, platform=None), layer), subject=None)
    await filled.manifests.save_many([untold])
    assert await filled.manifests.get_many([IMAGE.digest]) == {IMAGE.digest: IMAGE}


async def test_what_is_rolled_back_has_not_moved_it(state: State) -> None:
    before = await state.generation()

    def work(connection: object) -> None:
        bump_generation(connection)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await state.run(work)
    assert await state.generation() == before


async def test_every_process_sees_it_and_none_loses_a_move(tmp_path: Path) -> None:
    async def opened() -> State:
        url = f"sqlite:///{tmp_path}/prefetch.db"
        return await State.open(url, data_dir=tmp_path, clock=SystemClock())

    states = [await opened() for _ in range(3)]
    assert await states[0].generation() == 0

    async def add(state: State, who: int) -> None:
        for number in range(20):
            await state.links.add_many([LinkRecord("docker.io", f"r{who}", digest(number))])

    await asyncio.gather(*(add(state, who) for who, state in enumerate(states)))
    assert [await state.generation() for state in states] == [60] * 3
    for state in states:
        await state.close()
