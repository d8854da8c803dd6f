"""Manifests that several images of a run lack: each is pulled once, and one image pays for it.

The first image that is admitted pays for what it lacks, and for what it turns out to lack; the
next ones only for the rest. So a price is known beforehand, whichever of two images that run at
once comes to a shared manifest first: it sends the pull that is the other's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field

from prefetch.errors import PrefetchError
from prefetch.oci.platform import ALL, Platform, PlatformSet
from prefetch.oci.reference import Repository
from prefetch.remote.registry import RegistryClient
from prefetch.state.ledger import Hold
from prefetch.state.records import ManifestRecord
from prefetch.sync.closure import ATTESTATION
from prefetch.sync.wanted import PlannedImage, Spent


@dataclass(slots=True)
class Payer:
    """An image that has yet to be fetched, and what a pull for it takes and is noted in.

    `claims` are the documents that it pays for while it runs, `opens` the index that it is the
    first to see; `priced` tells when it was priced last.
    """

    image: PlannedImage
    client: RegistryClient
    spent: Spent
    hold: Hold | None = None
    claims: list[str] = field(default_factory=list)
    opens: str | None = None
    priced: int = 0

    @property
    def repository(self) -> Repository:
        return self.image.wanted.reference.repository


class Sharing:
    """The images that a run has yet to fetch, and who of them pays for what."""

    def __init__(self) -> None:
        self._payers: dict[str, Payer] = {}
        self._wishes: dict[str, Payer] = {}
        self._claims: dict[str, Payer] = {}
        self._openers: defaultdict[str, list[Payer]] = defaultdict(list)
        self._arrivals: dict[str, int] = {}
        self._moment = 0

    def expect(self, payer: Payer) -> None:
        """An image that waits to be admitted; those that come first are named first."""
        self._payers[payer.image.wanted.name] = payer
        for digest in payer.image.lacks:
            self._wishes.setdefault(digest, payer)

    def price(self, image: PlannedImage) -> tuple[int, int | None]:
        """The least and the most that an image pays if it is admitted now."""
        shared = sum(self.is_anothers(digest, image) for digest in image.lacks)
        # What others pay for, and what alternates have, may be the same.
        least = max(0, image.pulls_min - shared)
        if image.pulls_max == image.pulls_min:
            return least, least
        if image.closure is None and image.digest is not None:
            return least, _plus(len(image.lacks) - shared, self._left_open(image))
        return least, self.most(image)

    def most(self, image: PlannedImage) -> int | None:
        """The most that an image pays if nobody else pays for what its index may name."""
        shared = sum(self.is_anothers(digest, image) for digest in image.lacks)
        return None if image.pulls_max is None else image.pulls_max - shared

    def _left_open(self, image: PlannedImage) -> int | None:
        """How many platforms of an index that is not here nobody else has asked for."""
        others = [p for p in self._openers.get(image.digest or "", ()) if p.image is not image]
        asked = [each.image.wanted.platforms for each in others]
        if image.wanted.platforms is ALL:
            return 0 if ALL in asked else None
        return sum(
            not any(_includes(platforms, platform) for platforms in asked)
            for platform in image.wanted.platforms
        )

    def admit(self, image: PlannedImage, hold: Hold | None) -> None:
        """The image is on its way, and pays for what nobody else does."""
        payer = self._payers[image.wanted.name]
        payer.hold = hold
        for digest in image.lacks:
            self._claim(digest, payer)
        if image.closure is None and image.digest is not None:
            payer.opens = image.digest
            self._openers[image.digest].append(payer)

    def reveal(self, root: str, records: Mapping[str, ManifestRecord]) -> None:
        """Documents below an index are here: those who opened it pay for what it names, in order.

        `records` are the documents, `root` among them.
        """
        for payer in self._openers.get(root, ()):
            try:
                unknown = payer.image.enclose(root, records).unknown
            except PrefetchError:
                continue  # it pays for nothing more
            for child in unknown:
                if self._wisher(child.digest) is None:
                    self._claim(child.digest, payer)

    def is_anothers(self, digest: str, image: PlannedImage) -> bool:
        """Whether another image that runs pays for a document, so that its hold covers it."""
        payer = self._claims.get(digest)
        return payer is not None and payer.image is not image

    def payer_of(self, digest: str, image: PlannedImage) -> Payer | None:
        """Who else pays for a document that the image needs; None: the image itself."""
        payer = self._claims.get(digest) or self._wisher(digest)
        return None if payer is None or payer.image is image else payer

    def arrived(self, digest: str) -> None:
        """A document has come; whoever still waits for it is to be priced anew."""
        self._moment += 1
        self._arrivals[digest] = self._moment

    def is_outdated(self, image: PlannedImage) -> bool:
        """Whether something has come that the image lacked when it was priced last."""
        priced = self._payers[image.wanted.name].priced
        return any(self._arrivals.get(digest, 0) > priced for digest in image.lacks)

    def repriced(self, image: PlannedImage) -> None:
        """The image has been priced just now."""
        self._payers[image.wanted.name].priced = self._moment

    def count_claims(self, image: PlannedImage, digests: Container[str]) -> int:
        """How many of these documents the image pays for."""
        return sum(digest in digests for digest in self._payers[image.wanted.name].claims)

    def withdraw(self, image: PlannedImage) -> None:
        """The image runs no more: it is complete, has failed, or waits again."""
        payer = self._payers[image.wanted.name]
        for digest in payer.claims:
            del self._claims[digest]
            self.arrived(digest)
        if payer.opens is not None:
            self._openers[payer.opens].remove(payer)
        payer.hold, payer.claims, payer.opens = None, [], None

    def forget(self, image: PlannedImage) -> None:
        """Nothing more is fetched for the image in this run."""
        self._payers.pop(image.wanted.name)

    def _claim(self, digest: str, payer: Payer) -> None:
        if digest not in self._claims:
            self._claims[digest] = payer
            payer.claims.append(digest)

    def _wisher(self, digest: str) -> Payer | None:
        """The image that was known to lack a document before anybody found it in an index."""
        payer = self._wishes.get(digest)
        return payer if payer and payer.image.wanted.name in self._payers else None


def unsettled(groups: Collection[Collection[PlannedImage]]) -> set[str]:
    """The documents of which no plan can tell which image will pay; a group is a registry's images.

    Registries are asked side by side; and a tag whose HEAD names no digest is pulled, and may turn
    out to be what another image lacks.
    """
    wanting = Counter(
        digest
        for group in groups
        for digest in frozenset(digest for image in group for digest in image.lacks)
    )
    found = {digest for digest, count in wanting.items() if count > 1}
    images = [image for group in groups for image in group]
    untold = {image.size for image in images if image.digest is None}
    if untold:
        for image in images:
            sizes = _sizes(image)
            alike = (d for d in image.lacks if None in untold or sizes.get(d) in {None, *untold})
            found.update(alike)
    return found


def _sizes(image: PlannedImage) -> dict[str | None, int | None]:
    """The sizes of documents that are not here, as far as they are known."""
    if image.closure is None:
        return {image.digest: image.size}
    return {child.digest: child.size for child in image.closure.unknown}


def _includes(platforms: PlatformSet, platform: Platform) -> bool:
    """Whether whoever wants `platforms` fetches what `platform` needs."""
    if platforms is ALL:
        return str(platform) != ATTESTATION
    return platform in platforms


def _plus(least: int, more: int | None) -> int | None:
    return None if more is None else least + more
