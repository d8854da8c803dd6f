"""Kinds of one's own: custom resources whose objects name images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_PATH: Final = re.compile(r"[A-Za-z_][\w-]*(\[\])?(\.[A-Za-z_][\w-]*(\[\])?){0,15}")
_VERSION: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?v[a-z0-9]{1,62}")
_KIND: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_RESOURCE: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class CustomKind:
    """A kind, and where its objects have images.

    `images` are paths of keys, `[]` behind one standing for each entry of its list: `spec.image`,
    `spec.workers[].image`. What is there is an image, a pod specification or a pod template.
    `resource` is the kind's name in URLs, `sparkapplications`.

    Raises ValueError where one of them cannot be what it should be.
    """

    api_version: str
    kind: str
    resource: str
    images: tuple[str, ...]

    def __post_init__(self) -> None:
        wanted = (
            (_VERSION, self.api_version, "a group and version (`batch.example.com/v1`)"),
            (_KIND, self.kind, "a kind (`SparkApplication`)"),
            (_RESOURCE, self.resource, "a resource's name in URLs (`sparkapplications`)"),
            *((_PATH, path, "a path (`spec.workers[].image`)") for path in self.images),
        )
        for pattern, text, what in wanted:
            if not pattern.fullmatch(text):
                raise ValueError(f"{ascii(text)[:80]} is not {what}")

    @property
    def group(self) -> str:
        """The API group, empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def root(self) -> str:
        """Where the API has it: `/apis/batch.example.com/v1`."""
        return f"/{'apis' if self.group else 'api'}/{self.api_version}"

    @property
    def roots(self) -> frozenset[str]:
        """The first keys of its paths."""
        return frozenset(path.partition(".")[0].removesuffix("[]") for path in self.images)

    def is_of(self, api_version: str, kind: str) -> bool:
        """Whether an object is of this kind, in whatever version."""
        return kind == self.kind and api_version.rpartition("/")[0] == self.group
