"""The gate: what it calls warm is whole, and what is missing is named and priced."""

from __future__ import annotations

import json
import sqlite3
import xml.etree.ElementTree as Xml
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prefetch.demo.images import Image, image
from prefetch.demo.upstream import Upstream
from support.factories import UpstreamFactory
from support.processes import CommandLine


@dataclass(frozen=True, slots=True)
class Filled:
    """`app:1`, two platforms, all of it synced; and what the upstream was asked until then."""

    cli: CommandLine
    upstream: Upstream
    made: Image
    reference: str

    async def check(self, *words: str, code: int) -> dict[str, Any]:
        done = await self.cli("check", "--image", self.reference, *words, "-o", "json")
        assert done.code == code, done.stdout + done.stderr
        document = json.loads(done.stdout)
        assert document["warm"] is (code == 0)
        assert isinstance(document, dict)
        return document

    def blob(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        return self.cli.cache / "blobs" / algorithm / value

    def move(self) -> Image:
        """The tag is another image from now on."""
        return self.upstream.content.put("library/app", image("moved"), "1")

    def alter(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.cli.data_dir / "prefetch.db")) as database, database:
            assert database.execute(statement, values).rowcount


@pytest.fixture
async def filled(cli: CommandLine, upstream: UpstreamFactory) -> Filled:
    running = await upstream(limit=None)
    made = running.content.put("library/app", image("app"), "1")
    reference = f"{running.address}/library/app:1"
    synced = await cli("sync", "--image", reference, "--platform", "all")
    assert synced.code == 0, synced.stderr
    return Filled(cli, running, made, reference)


async def test_what_is_whole_passes_and_nothing_is_asked(filled: Filled) -> None:
    asked = len(filled.upstream.log.requests)
    document = await filled.check("--platform", "all", "--verify", "--max-age", "1h", code=0)
    assert document == {
        "warm": True,
        "pulls": 0,
        "images": [
            {
                "reference": filled.reference,
                "digest": filled.made.digest,
                "warm": True,
                "missing": [],
                "stale": False,
                "absent": False,
                "visibility": "public",
                "error": None,
            }
        ],
        "errors": [],
    }
    await filled.upstream.close()
    await filled.check("--platform", "linux/arm64", code=0)
    assert len(filled.upstream.log.requests) == asked


async def test_a_layer_that_is_not_there_is_named(filled: Filled) -> None:
    layer = filled.made.child("linux/arm64").blobs[-1]
    filled.blob(layer.digest).unlink()
    document = await filled.check("--platform", "all", code=1)
    assert document["images"][0]["missing"] == [
        {"platform": "linux/arm64", "kind": "layer", "digest": layer.digest, "size": layer.size}
    ]
    assert document["pulls"] == 0
    await filled.check("--platform", "linux/amd64", code=0)


async def test_a_manifest_that_is_not_there_is_named_and_priced(filled: Filled) -> None:
    child = filled.made.child("linux/arm64")
    filled.blob(child.digest).unlink()
    document = await filled.check("--platform", "all", code=1)
    [missing] = document["images"][0]["missing"]
    assert missing == {
        "platform": "linux/arm64",
        "kind": "manifest",
        "digest": child.digest,
        "size": len(child.raw),
    }
    assert document["pulls"] == 1


async def test_the_store_is_looked_at_and_not_the_database(filled: Filled) -> None:
    """The root is gone, or another; the database still calls it warm."""
    root = filled.blob(filled.made.digest)
    raw = root.read_bytes()
    root.unlink()
    document = await filled.check(code=1)
    assert document["images"][0]["missing"][0]["kind"] == "reference"
    root.write_bytes(raw.replace(b"amd64", b"arm64"))
    await filled.check(code=1)
    root.write_bytes(raw)
    await filled.check(code=0)


@pytest.mark.parametrize("damage", ["short", "other"])
async def test_a_damaged_layer(filled: Filled, damage: str) -> None:
    """Its size is always looked at, its bytes with --verify."""
    layer = filled.blob(filled.made.child("linux/amd64").blobs[-1].digest)
    data = layer.read_bytes()
    layer.chmod(0o644)
    layer.write_bytes(data[:-1] if damage == "short" else data[:-1] + bytes([data[-1] ^ 1]))
    await filled.check("--platform", "linux/amd64", code=1 if damage == "short" else 0)
    await filled.check("--platform", "linux/amd64", "--verify", code=1)


async def test_what_was_never_synced(filled: Filled) -> None:
    other = filled.reference.replace("app:1", "other:1")
    document = await filled.check("--image", other, code=1)
    assert [each["warm"] for each in document["images"]] == [True, False]
    assert document["images"][1]["missing"] == [
        {"platform": None, "kind": "reference", "digest": None, "size": None}
    ]
    assert document["pulls"] == 1


async def test_a_platform_that_the_image_lacks(filled: Filled) -> None:
    document = await filled.check("--platform", "linux/s390x", code=1)
    assert document["images"][0]["error"]["code"] == "PLATFORM_MISSING"
    await filled.check("--platform", "linux/s390x,linux/amd64", code=0)


async def test_a_tag_that_was_not_looked_at_lately(filled: Filled) -> None:
    filled.alter("UPDATE image_references SET resolved_at = ?", 1_767_225_600.0)
    await filled.check(code=0)
    document = await filled.check("--max-age", "24h", code=1)
    assert (document["images"][0]["stale"], document["images"][0]["warm"]) == (True, True)
    await filled.check("--max-age", "24h", "--fresh", code=0)
    by_digest = f"{filled.reference.rpartition(':')[0]}@{filled.made.digest}"
    done = await filled.cli("check", "--image", by_digest, "--max-age", "1s")
    assert done.code == 0, done.stdout


async def test_a_tag_that_has_moved(filled: Filled) -> None:
    moved = filled.move()
    await filled.check(code=0)
    asked = len(filled.upstream.log.requests)
    document = await filled.check("--fresh", code=1)
    [found] = document["images"]
    assert found["digest"] == moved.digest
    assert found["missing"][0]["kind"] == "reference"
    assert not any(each.counted for each in filled.upstream.log.requests[asked:])
    assert len(filled.upstream.log.requests) > asked


async def test_a_tag_that_is_known_to_have_moved_passes_only_while_frozen(filled: Filled) -> None:
    filled.alter("UPDATE image_references SET deferred_since = resolved_at")
    document = await filled.check(code=1)
    assert document["images"][0]["stale"] is True
    assert (await filled.cli("freeze")).code == 0
    await filled.check(code=0)


async def test_fresh_says_what_a_registry_no_longer_has(filled: Filled) -> None:
    filled.upstream.content.repositories["library/app"].tags.clear()
    document = await filled.check("--fresh", code=1)
    assert document["images"][0]["error"]["http_status"] == 404


async def test_a_bad_entry_is_no_proof(filled: Filled, tmp_path: Path) -> None:
    listed = tmp_path / "images.txt"
    listed.write_text(f"{filled.reference}\n? bad\n")
    done = await filled.cli("check", listed, "-o", "json")
    assert done.code == 1
    assert [error["line"] for error in done.json["errors"]] == [2]
    assert done.json["images"][0]["warm"] is True


@pytest.mark.parametrize("text", ["", "# none\n", '{"kind": "List", "items": []}'])
async def test_nothing_proves_nothing(cli: CommandLine, text: str) -> None:
    """As where the command in front of a pipe has failed."""
    done = await cli("check", "-", stdin=text)
    assert (done.code, done.stdout) == (1, "not warm: 0 of 0 images\n")


async def test_junit(filled: Filled) -> None:
    other = filled.reference.replace("app:1", "other:1")
    words = ("--image", filled.reference, "--image", other, "--image", "?\x01", "-o", "junit")
    done = await filled.cli("check", *words)
    assert done.code == 1
    suite = Xml.fromstring(done.stdout)
    assert suite.attrib | {"name": ""} == {
        "name": "",
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases][:2] == [filled.reference, other]
    assert [len(case) for case in cases] == [0, 1, 1]


async def test_what_people_read(filled: Filled) -> None:
    other = filled.reference.replace("app:1", "other:1")
    done = await filled.cli("check", "--image", filled.reference, "--image", other)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["REFERENCE", "WARM", "WHY", "NOT"]
    assert lines[1].split()[1:] == ["yes", "-"]
    assert "not in the cache" in lines[2]
    assert lines[3] == "not warm: 1 of 2 images; at least 1 pull to make it so"
    quiet = await filled.cli("check", "-q", "--image", filled.reference)
    assert (quiet.code, quiet.stdout) == (0, "")


@pytest.mark.parametrize("words", [["--max-age", "x"], ["none.txt"], []])
async def test_usage(cli: CommandLine, words: list[str]) -> None:
    done = await cli("check", *words)
    assert (done.code, done.stdout) == (2, "")
