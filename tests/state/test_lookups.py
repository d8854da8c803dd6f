"""What those who serve look up: documents, who names them, a repository's references and links."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from prefetch.oci.model import OCI_INDEX, OCI_MANIFEST, parse_document
from prefetch.state.database import State
from prefetch.state.records import ChildRecord, LinkRecord, ManifestRecord, ReferenceRecord
from prefetch.sync.documents import record_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def document(number: int, *children: int, kind: str = "manifest", subject: int | None = None):
    return ManifestRecord(
        digest(number),
        "type",
        500,
        tuple(ChildRecord(digest(child), kind, "type", 5) for child in children),
        None if subject is None else digest(subject),
    )


async def test_documents_alone(state: State) -> None:
    index, image = document(1, 2, 3), document(2, 10, 11, kind="layer", subject=9)
    empty = document(4, subject=1)
    await state.manifests.save_many([index, image, empty])
    wanted = [digest(4), digest(1), digest(3), digest(1)]
    assert await state.manifests.get_many(wanted) == {digest(1): index, digest(4): empty}
    assert await state.manifests.get_many([digest(2)]) == {digest(2): image}
    assert await state.manifests.get_many([]) == {}


async def test_two_thousand_documents_in_one_call(state: State) -> None:
    documents = {digest(n): document(n, n + 10_000, n + 20_000) for n in range(2000)}
    await state.manifests.save_many(documents.values())
    assert await state.manifests.get_many(documents) == documents


async def test_trees_tell_subjects_too(state: State) -> None:
    documents = [document(1, 2, 3, subject=7), document(2, 9, kind="layer"), document(3, subject=2)]
    await state.manifests.save_many(documents)
    assert await state.manifests.trees([digest(1)]) == {each.digest: each for each in documents}


async def test_parents(state: State) -> None:
    await state.manifests.save_many(
        [document(5, 1, 1), document(4, 1, 2), document(1, 20, kind="layer"), document(3, 20)]
    )
    assert await state.manifests.parents(digest(1)) == [digest(4), digest(5)]
    assert await state.manifests.parents(digest(20)) == [digest(1), digest(3)]
    assert await state.manifests.parents(digest(5)) == []
    await state.manifests.delete([digest(4)])
    assert await state.manifests.parents(digest(1)) == [digest(5)]


async def test_referrers(state: State) -> None:
    await state.manifests.save_many(
        [document(3, subject=1), document(2, subject=1), document(1), document(4, 1)]
    )
    assert await state.manifests.referrers(digest(1)) == [digest(2), digest(3)]
    assert await state.manifests.referrers(digest(2)) == []
    await state.manifests.delete([digest(2)])
    assert await state.manifests.referrers(digest(1)) == [digest(3)]


@pytest.mark.parametrize("shape", ["manifest", "index"])
@pytest.mark.parametrize("subject", [True, False], ids=["subject", "none"])
def test_a_record_names_the_subject_of_its_document(shape: str, subject: bool) -> None:
    about = {"mediaType": OCI_MANIFEST, "digest": digest(7), "size": 5}
    body: dict[str, object] = {"schemaVersion": 2}
    if shape == "manifest":
        body |= {"mediaType": OCI_MANIFEST, "config": {**about, "digest": digest(8)}, "layers": []}
    else:
        body |= {"mediaType": OCI_INDEX, "manifests": [{**about, "digest": digest(8)}]}
    raw = json.dumps(body | ({"subject": about} if subject else {})).encode()
    record = record_of(parse_document(raw, None))
    assert record.digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    assert [child.digest for child in record.children] == [digest(8)]
    assert record.subject == (digest(7) if subject else None)


def reference(registry: str, repository: str, tag: str, known: bool = True) -> ReferenceRecord:
    return ReferenceRecord(
        f"{registry}/{repository}:{tag}", registry, repository, tag, digest(1) if known else None
    )


async def test_the_references_of_a_repository(state: State) -> None:
    records = [
        reference("docker.io", "library/a", "2", known=False),
        reference("docker.io", "library/a", "1"),
        reference("docker.io", "library/ab", "1"),
        reference("quay.io", "library/a", "1"),
    ]
    await state.references.save_many(records)
    found = await state.references.of_repository("docker.io", "library/a")
    assert found == [records[1], records[0]]
    assert await state.references.of_repository("docker.io", "library") == []


async def test_touching_a_reference_moves_when_it_was_resolved_alone(state: State) -> None:
    tags = [reference("docker.io", "a", "1"), replace(reference("docker.io", "a", "2"), warm=True)]
    await state.references.save_many(tags)
    await state.references.touch(tags[1].name, NOW)
    await state.references.touch("docker.io/a:3", NOW)
    expected = [tags[0], replace(tags[1], resolved_at=NOW)]
    assert await state.references.list() == expected
    await state.references.touch(tags[1].name, NOW - timedelta(days=1))
    assert (await state.references.list())[1].resolved_at == NOW - timedelta(days=1)


async def test_which_content_is_linked(state: State) -> None:
    await state.links.add_many(LinkRecord("docker.io", "a", digest(n)) for n in range(1200))
    await state.links.add_many(
        [LinkRecord("docker.io", "b", digest(5000)), LinkRecord("quay.io", "a", digest(5001))]
    )
    wanted = [digest(n) for n in range(600, 1800)] + [digest(5000), digest(5001)]
    linked = await state.links.linked("docker.io", "a", wanted)
    assert linked == {digest(n) for n in range(600, 1200)}
    assert await state.links.linked("docker.io", "a", []) == set()
    assert await state.links.linked("docker.io", "c", wanted) == set()


async def test_repositories_with_content(state: State) -> None:
    await state.references.save_many(
        [
            reference("quay.io", "b", "1"),
            reference("quay.io", "B", "1"),
            reference("quay.io", "b", "2"),
            reference("docker.io", "library/z", "1"),
            reference("docker.io", "library-a", "1"),
            reference("docker.io", "library/only-asked-for", "1", known=False),
        ]
    )
    # Links alone do not make a repository: it must have a name to be asked by.
    await state.links.add_many([LinkRecord("docker.io", "library/linked", digest(1))])
    assert await state.links.repositories() == [
        ("docker.io", "library-a"),
        ("docker.io", "library/z"),
        ("quay.io", "B"),
        ("quay.io", "b"),
    ]
