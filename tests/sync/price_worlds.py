"""Random upstreams, caches and lists for the question whether a plan's price is what is spent."""

from __future__ import annotations

import base64
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from prefetch.app.requests import Place
from prefetch.app.runtime import Runtime, open_runtime
from prefetch.app.sync import Job, plan_all, sync_all
from prefetch.config.settings import Settings
from prefetch.demo.images import OCI_INDEX, Image, attestation, descriptor, document, index
from prefetch.demo.images import manifest as lone
from prefetch.demo.layers import layer
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from prefetch.oci.platform import ALL
from prefetch.ratelimit.budget import Reserve
from prefetch.remote.settings import RegistrySettings
from prefetch.sources.selector import Parsed
from prefetch.sources.text import parse
from prefetch.sync.admission import Patience

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le")
REPOSITORIES = ("a", "b", "team/c")
WANTED = ("linux/amd64", "linux/amd64,linux/arm64", "all", "linux/arm64", "linux/amd64,linux/s390x")
_LAYERS = [layer(f"shared {number}", 64) for number in range(3)]


@dataclass(frozen=True)
class Leaf:
    """A manifest: of few seeds, so that several indexes and tags come to the same."""

    seed: int
    platform: int
    layers: tuple[int, ...]
    inline: bool = False

    def make(self) -> Image:
        return lone(
            f"leaf {self.seed}",
            platform=PLATFORMS[self.platform],
            layers=[_LAYERS[number] for number in self.layers],
            inline=self.inline,
        )


@dataclass(frozen=True)
class Tree:
    """An index over leaves of different platforms; `nested` puts another index around it."""

    leaves: tuple[Leaf, ...]
    attested: bool = False
    embedded: bool = False
    nested: bool = False

    def make(self) -> Image:
        children = [leaf.make() for leaf in self.leaves]
        if self.attested:
            children += [attestation(child) for child in children]
        made = _embedding(children) if self.embedded else index(children)
        return index([made]) if self.nested else made


def _embedding(children: list[Image]) -> Image:
    """An index that carries its first child within it."""
    entries: list[dict[str, Any]] = []
    for child in children:
        entry = descriptor(child)
        system, architecture = (child.platform or "/").split("/")
        entry["platform"] = {"os": system, "architecture": architecture}
        entries.append(entry)
    entries[0]["data"] = base64.b64encode(children[0].raw).decode()
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return document(body, OCI_INDEX, children=children)


@dataclass(frozen=True)
class Entry:
    """One line of a list: a tag, or a digest, of one of the world's images."""

    registry: int
    repository: int
    root: int
    wanted: int
    priority: int = 0
    by_digest: bool = False


@dataclass(frozen=True)
class Scene:
    """What the upstreams have, what was synced before and lost again, and what is asked for."""

    roots: tuple[Leaf | Tree, ...]
    before: tuple[Entry, ...]
    entries: tuple[Entry, ...]
    lost: frozenset[int] = frozenset()
    limit: int | None = None
    reserve: int = 0
    spent: int = 0
    silent: bool = False
    exempt: bool = False
    concurrency: int = 8
    kept: bool = True


_leaves = st.builds(
    Leaf,
    st.integers(0, 1),
    st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
    st.lists(st.integers(0, 2), max_size=2, unique=True).map(tuple),
    st.booleans(),
)
_trees = st.builds(
    Tree,
    st.lists(_leaves, min_size=1, max_size=4, unique_by=lambda leaf: leaf.platform).map(tuple),
    st.booleans(),
    st.integers(0, 4).map(lambda number: number == 0),
    st.integers(0, 4).map(lambda number: number == 0),
)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Small worlds, in which as much as possible is shared."""
    roots = tuple(draw(st.lists(_trees | _trees | _leaves, min_size=1, max_size=5)))
    registries = draw(st.sampled_from([1, 1, 1, 2]))
    entries = st.builds(
        Entry,
        st.integers(0, registries - 1),
        st.integers(0, len(REPOSITORIES) - 1),
        st.integers(0, len(roots) - 1),
        st.integers(0, len(WANTED) - 1),
        st.sampled_from([0, 0, 5]),
        st.booleans(),
    )
    return Scene(
        roots,
        tuple(draw(st.lists(entries, max_size=4))),
        tuple(draw(st.lists(entries, min_size=1, max_size=8))),
        draw(st.frozensets(st.integers(0, 30), max_size=8)),
        draw(st.none() | st.integers(3, 16)),
        draw(st.integers(0, 2)),
        draw(st.integers(0, 4)),
        draw(st.integers(0, 5)) == 0,
        draw(st.integers(0, 3)) == 0,
        draw(st.sampled_from([1, 2, 8])),
        draw(st.booleans()),
    )


@dataclass
class World:
    """A scene that runs: its upstreams, and a data directory."""

    scene: Scene
    upstreams: list[Upstream]
    directory: Path
    images: list[Image] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def of(cls, scene: Scene, directory: Path) -> AsyncIterator[World]:
        """Start it, sync what was synced before, lose what was lost, and limit it from now on."""
        async with AsyncExitStack() as stack:
            upstreams = []
            for _ in range(2):
                settings = UpstreamSettings(limit=None, window=3600, auth="none")
                upstreams.append(await stack.enter_async_context(Upstream(settings)))
            world = cls(scene, upstreams, directory, [root.make() for root in scene.roots])
            for upstream in upstreams:
                for repository in REPOSITORIES:
                    for number, image in enumerate(world.images):
                        upstream.content.put(repository, image, f"t{number}")
            await world._prepare()
            yield world

    async def _prepare(self) -> None:
        scene = self.scene
        if scene.before:
            async with self.open() as runtime:
                await self.sync(runtime, scene.before)
            self._lose()
        for upstream in self.upstreams:
            limits = upstream.limits
            exempt = REPOSITORIES[:1] if scene.exempt else ()
            limits.settings = replace(limits.settings, limit=scene.limit, exempt=exempt)
            meter = limits.meter()
            if meter is not None:
                meter.spend(scene.spent)
            if scene.silent:
                upstream.faults.add("no-digest", method="HEAD", kind="manifest", count=None)
            upstream.log.reset()

    def _lose(self) -> None:
        """Some files are gone; the meters are forgotten, as if they had never been limitless."""
        files = sorted(self.directory.glob("cache/blobs/*/*"))
        for number in self.scene.lost:
            if number < len(files):
                files[number].unlink()
        with closing(sqlite3.connect(self.directory / "prefetch.db")) as database, database:
            tables = ["observations", "spends", "holds", "meters", "repository_facts"]
            if not self.scene.kept:
                tables += ["children", "manifests", "image_references"]
            for table in tables:
                database.execute(f"DELETE FROM {table}")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Runtime]:
        registries = {
            upstream.address: RegistrySettings(
                upstream.address,
                upstream.url,
                reserve=Reserve(self.scene.reserve),
                max_concurrency=self.scene.concurrency,
            )
            for upstream in self.upstreams
        }
        settings = Settings(self.directory, platforms=ALL, registries=registries)
        async with open_runtime(settings, Place(), lambda _: None) as runtime:
            yield runtime

    def listed(self, entries: Sequence[Entry]) -> Parsed:
        """The list that names these entries."""
        lines = []
        for entry in entries:
            number = entry.root % len(self.images)
            tag = f"@{self.images[number].digest}" if entry.by_digest else f":t{number}"
            name = f"{self.upstreams[entry.registry].address}/{REPOSITORIES[entry.repository]}"
            words = f"platform={WANTED[entry.wanted]} priority={entry.priority}"
            lines.append(f"{name}{tag} {words}")
        return parse("\n".join(lines).encode(), "list")

    async def sync(self, runtime: Runtime, entries: Sequence[Entry]) -> dict[str, Any]:
        run_id = await runtime.state.runs.start("sync", runtime.clock.now())
        job = Job(run_id, self.listed(entries), ALL, Patience())
        return (await sync_all(runtime, job, lambda: False)).document()

    async def priced_and_spent(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The plan for what is asked for, and the sync after it, as two commands would."""
        async with self.open() as runtime:
            parsed = self.listed(self.scene.entries)
            plan = (await plan_all(runtime, parsed, ALL)).document()
        assert not self.pulls(), "a plan has pulled"
        async with self.open() as runtime:
            return plan, await self.sync(runtime, self.scene.entries)

    def pulls(self) -> Counter[str]:
        """The manifest GETs that came, by `address/repository`."""
        return Counter(
            f"{upstream.address}/{request.repository}"
            for upstream in self.upstreams
            for request in upstream.log.select(kind="manifest", method="GET")
        )

    def nesting(self) -> set[str]:
        """Digests of indexes that hold indexes."""
        roots = zip(self.scene.roots, self.images, strict=True)
        return {image.digest for root, image in roots if isinstance(root, Tree) and root.nested}
