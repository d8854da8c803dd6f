"""Tags, repositories and referrers, in pages and by type."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from api_serving import Answer, Server, shapes
from api_world import (
    APP,
    DEEP,
    NOWHERE,
    PLAIN,
    SBOM,
    SIGNATURE,
    TAGS,
    TOOL,
    World,
    digest_of,
    next_of,
    open_world,
)

from prefetch.demo.images import OCI_INDEX, OCI_MANIFEST


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("api")) as opened:
        yield opened


def all_pages(server: Server, path: str, key: str) -> tuple[list[str], int]:
    """Everything that the pages list, following the links; and how many pages there were."""
    names: list[str] = []
    pages = 0
    target: str | None = path
    while target is not None:
        answer = server.ask(target)
        assert answer.status == 200, (target, answer)
        assert answer["Content-Type"] == "application/json"
        names += answer.json[key]
        target = next_of(answer)
        pages += 1
        assert pages < 50
    return names, pages


def test_tags(world: World) -> None:
    tags = sorted([*TAGS, "ref0", "ref1", "ref2", "ref3"])
    for path in shapes("docker.io", APP, "tags/list"):
        answer = world.server.ask(path)
        assert answer.json["tags"] == tags
        assert answer.json["name"] == re.split(r"/tags/|/?v2/", path.partition("?")[0])[1]
        head = world.server.ask(path, method="HEAD")
        assert head["Content-Length"] == str(len(answer.body))
    for n in (1, 2, 3, 4, 10, 11, 1000):
        for path in shapes("docker.io", APP, "tags/list", f"n={n}"):
            names, pages = all_pages(world.server, path, "tags")
            assert (names, pages) == (tags, -(-len(tags) // n)), path


def test_pages_of_tags_begin_where_they_are_told(world: World) -> None:
    tags = sorted([*TAGS, "ref0", "ref1", "ref2", "ref3"])
    for last in ("", "1", "1.0", "a", "alpha", "zzz", "%00", "%F0%9F%98%80", "a%26n%3D1"):
        answer = world.server.ask(f"/v2/{APP}/tags/list?last={last}")
        expected = [tag for tag in tags if tag > ("a&n=1" if "%26" in last else last)]
        if last.isalnum() or last in ("", "1.0"):
            assert answer.json["tags"] == expected, last
        assert answer["Link"] is None
    assert world.server.ask(f"/v2/{APP}/tags/list?n=0").json["tags"] == []
    assert world.server.ask(f"/v2/{APP}/tags/list?n=0")["Link"] is None
    answer = world.server.ask(f"/v2/{APP}/tags/list?n=1&last=1&n=5&last=beta")
    assert answer.json["tags"] == ["1.0"]


def test_the_catalog(world: World) -> None:
    everything = [f"docker.io/{APP}", f"docker.io/{DEEP}", f"quay.io/{TOOL}"]
    everything = sorted([*everything, f"{world.far_registry}/some/where"])
    assert world.server.ask("/v2/_catalog").json == {"repositories": everything}
    for n in (1, 2, 3, 4, 100):
        names, pages = all_pages(world.server, f"/v2/_catalog?n={n}", "repositories")
        assert (names, pages) == (everything, -(-len(everything) // n))
    for path in ("/v2/_catalog?ns=docker.io", "/docker.io/v2/_catalog"):
        assert world.server.ask(path).json == {"repositories": [APP, DEEP]}
        more = "&" if "?" in path else "?"
        assert all_pages(world.server, f"{path}{more}n=1", "repositories") == ([APP, DEEP], 2)
    assert world.server.ask("/v2/_catalog?ns=gcr.io").json == {"repositories": []}


def test_what_the_catalog_lists_can_be_asked_for(world: World) -> None:
    for name in world.server.ask("/v2/_catalog").json["repositories"]:
        for tag in world.server.ask(f"/v2/{name}/tags/list").json["tags"]:
            assert world.server.ask(f"/v2/{name}/manifests/{tag}").status == 200


def descriptors(answer: Answer) -> dict[str, dict[str, object]]:
    assert answer.status == 200, answer
    assert answer["Content-Type"] == OCI_INDEX
    body = answer.json
    assert (body["schemaVersion"], body["mediaType"]) == (2, OCI_INDEX)
    return {each["digest"]: each for each in body["manifests"]}


def test_referrers(world: World) -> None:
    """distribution-spec, "Listing Referrers"."""
    sbom, signature, plain, empty = world.referrers
    for path in shapes("docker.io", APP, f"referrers/{world.child.digest}"):
        answer = world.server.ask(path)
        found = descriptors(answer)
        assert set(found) == {each.digest for each in world.referrers}
        assert answer["OCI-Filters-Applied"] is None
        assert found[sbom.digest] == {
            "mediaType": OCI_MANIFEST,
            "digest": sbom.digest,
            "size": len(sbom.raw),
            "artifactType": SBOM,
        }
        assert found[signature.digest]["artifactType"] == SIGNATURE
        assert found[plain.digest]["artifactType"] == PLAIN
        assert found[empty.digest]["artifactType"] == PLAIN
        assert found[plain.digest]["annotations"] == {"org.example.format": "plain"}
        head = world.server.ask(path, method="HEAD")
        assert (head.status, head["Content-Length"]) == (200, str(len(answer.body)))


def test_referrers_by_type(world: World) -> None:
    sbom, signature, plain, empty = world.referrers
    for kind, expected in [
        (SBOM, [sbom]),
        (SIGNATURE, [signature]),
        (PLAIN, [plain, empty]),
        ("", list(world.referrers)),
        ("application/x-none", []),
    ]:
        quoted = kind.replace("/", "%2F")
        rest = f"referrers/{world.child.digest}"
        for path in shapes("docker.io", APP, rest, f"artifactType={quoted}"):
            answer = world.server.ask(path)
            assert set(descriptors(answer)) == {each.digest for each in expected}
            assert answer["OCI-Filters-Applied"] == ("artifactType" if kind else None)


def test_no_referrers_are_an_empty_list(world: World) -> None:
    for digest in (NOWHERE, world.app.digest, digest_of(world.blob), "sha512:" + "0" * 128):
        for path in shapes("docker.io", APP, f"referrers/{digest}"):
            assert descriptors(world.server.ask(path)) == {}
    elsewhere = world.server.ask(f"/v2/{DEEP}/referrers/{world.child.digest}")
    assert descriptors(elsewhere) == {}
