"""What the acceptance tests share: lists, cold facts about a cache, and the budget's referee."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.processes import CommandLine, Result, UpstreamProcess

# Two platforms each: an index and two manifests are three pulls.
FORTY = {"repository": "app{n}", "count": 40, "layers": 1}
UNLIMITED = {"limit": None}

Request = dict[str, Any]


def write_list(path: Path, references: Iterable[str]) -> Path:
    """A text list of references, one a line."""
    path.write_text("".join(f"{reference}\n" for reference in references))
    return path


def outcomes(document: Any) -> set[str]:
    """Every outcome that some image of a sync's document had."""
    return {image["outcome"] for image in document["images"]}


def manifest_requests(upstream: UpstreamProcess) -> int:
    """How often the upstream was asked for a manifest, by whatever method."""
    counts = upstream.counts()
    return counts.get("HEAD manifest", 0) + counts.get("GET manifest", 0)


def refused(upstream: UpstreamProcess) -> list[Request]:
    """The requests that were answered 429."""
    return [request for request in upstream.requests() if request["status"] == 429]


def pulls_by_repository(upstream: UpstreamProcess) -> dict[str, int]:
    """The pulls that each repository has cost."""
    found: dict[str, int] = {}
    for request in upstream.requests():
        if request["counted"]:
            found[request["repository"]] = found.get(request["repository"], 0) + 1
    return found


def breaches(requests: Iterable[Request], reserve: int) -> list[str]:
    """The pulls that left although the meter's last word, less what was spent since, said no.

    The upstream counts in the order of its numbers, so what an answer reports shows every pull
    with a lower number. The last word at a pull's start is the report, among the answers that had
    ended by then, whose request came last; pulls between the two are spends since.
    """
    ordered = sorted(requests, key=lambda request: request["number"])
    reports = [r for r in ordered if r["remaining"] is not None and r["ended"] is not None]
    pulls = [r for r in ordered if r["method"] == "GET" and r["kind"] == "manifest"]
    found = []
    for pull in pulls:
        heard = [r for r in reports if r["ended"] < pull["started"]]
        if not heard:
            found.append(f"pull {pull['number']} left before the meter had been read")
            continue
        word = max(heard, key=lambda report: report["number"])
        since = sum(
            other["counted"] for other in pulls if word["number"] < other["number"] < pull["number"]
        )
        if word["remaining"] - since <= reserve:
            found.append(
                f"pull {pull['number']} left at {word['remaining']} - {since}, reserve {reserve}"
            )
    return found


@dataclass
class BlobAudit:
    """Hashes every file under `cache/blobs`; those that it has seen already, only once."""

    cache: Path
    checked: int = 0

    def __post_init__(self) -> None:
        self._seen: set[tuple[str, int, int, int]] = set()

    def wrong(self) -> list[str]:
        """The names of files that are not what their names say."""
        found = []
        for path in self.cache.glob("blobs/*/*"):
            facts = path.stat()
            key = (str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns)
            if key in self._seen:
                continue
            self._seen.add(key)
            self.checked += 1
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, path.parent.name).hexdigest()
            if digest != path.name:
                found.append(f"{path.parent.name}:{path.name} holds {digest}")
        return found


def warm_names(cache: Path) -> set[str]:
    """The references that `index.json` names."""
    index = json.loads((cache / "index.json").read_text())
    return {
        entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]
    }


async def inventory(cli: CommandLine) -> list[tuple[Any, ...]]:
    """What a rebuilt database must tell again, from `images -o json`."""
    listed = await cli("images", "-o", "json")
    assert listed.code == 0, listed.stderr
    return [
        (each["reference"], each["digest"], tuple(each["platforms"]), each["warm"], each["size"])
        for each in listed.json
    ]


def one_line(result: Result) -> str:
    """The one line of an error; nothing of a traceback beside it."""
    assert "Traceback" not in result.stderr, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]
