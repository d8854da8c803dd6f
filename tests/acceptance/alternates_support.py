"""A limited registry, and alternates that have its content: all of it, some, or something else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from acceptance_support import BlobAudit

from prefetch.demo.images import Image, image
from prefetch.demo.upstream import Upstream
from support.evidence import assert_no_crash
from support.processes import CommandLine, DockerRegistry, Result

PLATFORM = "linux/amd64"
PREFIX = "hub"
# An index and one manifest.
PRICE = 2


class Island:
    """`docker.io`, played by `limited`, with images `library/app<n>:1`, and its alternates."""

    def __init__(self, cli: CommandLine, limited: Upstream, count: int) -> None:
        self.cli = cli
        self.limited = limited
        self.images = {
            f"library/app{number}": image(f"app {number}", layers=1, layer_size=20_000)
            for number in range(count)
        }
        for repository, made in self.images.items():
            limited.content.put(repository, made, "1")
        self._config = cli.home / "prefetch.yaml"

    @property
    def references(self) -> list[str]:
        """What is wanted."""
        return [f"docker.io/{repository}:1" for repository in self.images]

    def copied(self, alternate: Upstream, repositories: Iterable[str] | None = None) -> Upstream:
        """Give an alternate the content of some repositories, of all unless told."""
        for repository in repositories if repositories is not None else self.images:
            alternate.content.put(f"{PREFIX}/{repository}", self.images[repository])
        return alternate

    def configure(
        self,
        alternates: Sequence[Upstream | DockerRegistry | str | Mapping[str, Any]],
        hub: Mapping[str, Any] | None = None,
        **registries: Mapping[str, Any],
    ) -> None:
        """Write a prefetch.yaml in which docker.io has these alternates."""
        names = [
            f"{each.address}/{PREFIX}" if isinstance(each, Upstream | DockerRegistry) else each
            for each in alternates
        ]
        entry = {"endpoint": self.limited.url, "alternates": names, **(hub or {})}
        known = {"docker.io": entry, **registries}
        # YAML has JSON within it.
        self._config.write_text(json.dumps({"platforms": [PLATFORM], "registries": known}))

    async def __call__(
        self, *words: str | Path, images: Iterable[str] | None = None, **options: Any
    ) -> Result:
        """`prefetch WORDS --image …`, for all images unless told; nothing crashed."""
        named = [f"--image={reference}" for reference in images or self.references]
        result = await self.cli("--config", self._config, *words, *named, **options)
        assert_no_crash(result)
        return result

    async def listed(self) -> list[dict[str, Any]]:
        """`images -o json`."""
        result = await self.cli("--config", self._config, "images", "-o", "json")
        assert result.code == 0, result.stderr
        return list(result.json)

    @property
    def config(self) -> Path:
        return self._config

    def assert_whole(self) -> None:
        """Every blob is what its name says, and every wanted one is there."""
        assert not BlobAudit(self.cli.cache).wrong()
        for made in self.images.values():
            for digest in wanted(made):
                algorithm, _, name = digest.partition(":")
                assert (self.cli.cache / "blobs" / algorithm / name).is_file(), digest

    def linked(self, repository: str) -> set[str]:
        """The digests that the state has in a repository."""
        with closing(sqlite3.connect(self.cli.data_dir / "prefetch.db")) as database:
            rows = database.execute("SELECT digest FROM links WHERE repository = ?", [repository])
            return {row[0] for row in rows}

    def facts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What the state remembers, by repository and alternate."""
        with closing(sqlite3.connect(self.cli.data_dir / "prefetch.db")) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute("SELECT * FROM alternate_facts").fetchall()
        return {(row["repository"], row["alternate"]): dict(row) for row in rows}


def wanted(made: Image) -> list[str]:
    """The digests that a client of PLATFORM asks for."""
    child = made.child(PLATFORM)
    return [made.digest, child.digest, *child.all_blobs()]


def named(registry: Upstream) -> set[str]:
    """The repositories that a registry has heard of, in paths and in scopes."""
    heard = {request.repository for request in registry.log if request.repository}
    return heard | {request.query for request in registry.log.select(kind="token")}
