"""What the upstream has: repositories with their tags, manifests and blobs."""

from __future__ import annotations

from collections.abc import Iterable

from prefetch.demo.blobs import Blob
from prefetch.demo.images import Image


class RepositoryContent:
    """One repository. `readers` are the accounts that may see it; None is everyone."""

    __slots__ = ("blobs", "manifests", "readers", "tags")

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.manifests: dict[str, Image] = {}
        self.blobs: dict[str, Blob] = {}
        self.readers: frozenset[str] | None = None


class Content:
    """All repositories, by name."""

    def __init__(self) -> None:
        self.repositories: dict[str, RepositoryContent] = {}

    def put(
        self, repository: str, image: Image, *tags: str, readers: Iterable[str] | None = None
    ) -> Image:
        """Store an image with all that it names, and tag it; returns the image."""
        held = self.repositories.setdefault(repository, RepositoryContent())
        for part in image.walk():
            held.manifests[part.digest] = part
        held.blobs.update(image.all_blobs())
        for tag in tags:
            held.tags[tag] = image.digest
        if readers is not None:
            held.readers = frozenset(readers)
        return image

    def move(self, repository: str, tag: str, digest: str) -> None:
        """Point a tag at a manifest that the repository has; KeyError if it does not."""
        held = self.repositories[repository]
        held.tags[tag] = held.manifests[digest].digest

    def manifest(self, repository: str, reference: str) -> Image | None:
        """By tag or by digest."""
        held = self.repositories.get(repository)
        if held is None:
            return None
        return held.manifests.get(held.tags.get(reference, reference))

    def blob(self, repository: str, digest: str) -> Blob | None:
        held = self.repositories.get(repository)
        return held.blobs.get(digest) if held else None

    def tags(self, repository: str) -> list[str] | None:
        """In lexical order, as registries list them; None for an unknown repository."""
        held = self.repositories.get(repository)
        return sorted(held.tags) if held else None

    def referrers(self, repository: str, digest: str) -> list[Image]:
        held = self.repositories.get(repository)
        return [each for each in held.manifests.values() if each.subject == digest] if held else []

    def readable(self, repository: str, identity: str) -> bool:
        """Whether an identity may see a repository; unknown ones are nobody's secret."""
        held = self.repositories.get(repository)
        return held is None or held.readers is None or identity in held.readers
