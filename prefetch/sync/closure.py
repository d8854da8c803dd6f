"""What a client of the wanted platforms will ask for, as far as the manifests are known.

Pure: records in, digests out. The planner prices a closure, the engine fills it, and an image is
warm when all of its closure is in the content store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prefetch.errors import InvalidManifest
from prefetch.oci.model import MAX_INDEX_DEPTH, MAX_INDEX_NODES
from prefetch.oci.platform import ALL, Platform, PlatformSet, select
from prefetch.state.records import ChildRecord, ManifestRecord

ATTESTATION: Final = "unknown/unknown"
"""The platform of what BuildKit attaches to an image; `all` leaves it out."""


@dataclass(frozen=True, slots=True)
class Closure:
    """An image's content for a set of platforms.

    `manifests` are digests of known documents (indexes and manifests, root first); `unknown` are
    children whose document has not been seen, each a pull; `blobs` are configs and layers of the
    known manifests. `platforms` are those found, `missing` the wanted ones that the image lacks.
    """

    manifests: tuple[str, ...] = ()
    unknown: tuple[ChildRecord, ...] = ()
    blobs: tuple[ChildRecord, ...] = ()
    platforms: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def documents(self) -> tuple[str, ...]:
        """The indexes and manifests, known or not."""
        return (*self.manifests, *(child.digest for child in self.unknown))

    @property
    def digests(self) -> tuple[str, ...]:
        """Everything that must be in the store for the image to be warm."""
        return (*self.documents, *(child.digest for child in self.blobs))


def closure_of(root: str, records: Mapping[str, ManifestRecord], wanted: PlatformSet) -> Closure:
    """The closure of the document `root` (which must be in `records`) for `wanted`.

    Raises InvalidManifest for an index that nests too deep or holds too much.
    """
    walk = _Walk(records)
    if wanted is ALL:
        walk.everything(root, depth=0)
        return walk.closure(missing=())
    found = walk.chosen(root, list(wanted), depth=0)
    return walk.closure(missing=tuple(str(p) for p in wanted if p not in found))


@dataclass(slots=True)
class _Walk:
    records: Mapping[str, ManifestRecord]
    manifests: dict[str, None] = field(default_factory=dict)
    unknown: dict[str, ChildRecord] = field(default_factory=dict)
    blobs: dict[str, ChildRecord] = field(default_factory=dict)
    platforms: dict[str, None] = field(default_factory=dict)

    def closure(self, *, missing: tuple[str, ...]) -> Closure:
        return Closure(
            manifests=tuple(self.manifests),
            unknown=tuple(self.unknown.values()),
            blobs=tuple(self.blobs.values()),
            platforms=tuple(self.platforms),
            missing=missing,
        )

    def everything(self, digest: str, *, depth: int) -> None:
        """Take every platform, except attestations."""
        for child in self._enter(digest):
            if child.kind not in ("manifest", "index"):
                self._blob(child)
            elif child.platform != ATTESTATION:
                if child.platform:
                    self.platforms[child.platform] = None
                if self._descend(child, depth):
                    self.everything(child.digest, depth=depth + 1)

    def chosen(self, digest: str, wanted: list[Platform], *, depth: int) -> set[Platform]:
        """Take what serves `wanted`; returns those of them that were found."""
        children = self._enter(digest)
        if not any(child.kind in ("manifest", "index") for child in children):
            return self._image(children, wanted)
        named = [child for child in children if child.platform]
        picks = select(wanted, [Platform.parse(child.platform or "") for child in named])
        found: set[Platform] = set()
        for platform, position in picks.items():
            child = named[position]
            self.platforms[child.platform or ""] = None
            found.add(platform)
            if self._descend(child, depth):
                self.chosen(child.digest, [platform], depth=depth + 1)
        # containerd looks at children without a platform after all that name one.
        for child in children:
            rest = [platform for platform in wanted if platform not in found]
            if rest and not child.platform:
                found |= self._nameless(child, rest, depth)
        return found

    def _nameless(self, child: ChildRecord, wanted: list[Platform], depth: int) -> set[Platform]:
        if not self._descend(child, depth):
            return set(wanted)  # not known before it is here: counted as found, and as a pull
        return self.chosen(child.digest, wanted, depth=depth + 1)

    def _image(self, children: Sequence[ChildRecord], wanted: list[Platform]) -> set[Platform]:
        """A manifest: its config says which platform it is; an artifact serves all."""
        own = next((c.platform for c in children if c.kind == "config" and c.platform), None)
        found = set(wanted)
        if own is not None:
            found = set(select(wanted, [Platform.parse(own)]))
            self.platforms[own] = None
        for child in children:
            self._blob(child)
        return found

    def _enter(self, digest: str) -> tuple[ChildRecord, ...]:
        self.manifests[digest] = None
        return self.records[digest].children

    def _descend(self, child: ChildRecord, depth: int) -> bool:
        """Whether to go on below the child: its document is known and was not seen yet."""
        if depth >= MAX_INDEX_DEPTH or len(self.manifests) + len(self.unknown) > MAX_INDEX_NODES:
            raise InvalidManifest(
                f"the index holds more than {MAX_INDEX_NODES} documents, "
                f"or more than {MAX_INDEX_DEPTH} levels of them"
            )
        if child.digest in self.records:
            return child.digest not in self.manifests
        self.unknown[child.digest] = child
        return False

    def _blob(self, child: ChildRecord) -> None:
        self.blobs[child.digest] = child
