"""How an upstream is set up, from keywords or from a JSON specification."""

from __future__ import annotations

import dataclasses
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from prefetch.demo.content import Content
from prefetch.demo.images import Image, image, manifest
from prefetch.demo.layers import layer
from prefetch.demo.ratelimits import LimitSettings
from prefetch.demo.tokens import Account, AuthSettings
from prefetch.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True)
class UpstreamSettings(LimitSettings, AuthSettings):
    """Everything about an upstream but its content and its faults.

    With `cdn` blobs are redirected to another port, under the name `cdn_host`, by links that
    last `link_lifetime` seconds; the CDN refuses requests that carry Authorization.
    `token_port` gives the token service a port of its own. `page_size` caps tag lists;
    `referrers` answers the referrers API (Docker Hub does not). `port` 0 takes a free one.
    """

    port: int = 0
    token_port: bool = False
    cdn: bool = True
    cdn_host: str = "localhost"
    link_lifetime: float = 600
    page_size: int = 100
    referrers: bool = False
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOrder:
    """Images to make: `count` of them, `{n}` in `repository` and `tags` being their number.

    All tags of one repository differ unless `same_content`. With `shared_layers` all images
    of the order have the same layers, which makes thousands of them cheap. `single` makes a
    manifest for the first platform alone. An image follows from `seed`, its number and tag; the
    seed is the repository unless given.
    """

    repository: str
    count: int = 1
    tags: tuple[str, ...] = ("latest",)
    platforms: tuple[str, ...] = ("linux/amd64", "linux/arm64")
    layers: int = 2
    layer_size: int = 4096
    shared_layers: bool = False
    docker: bool = False
    attestations: bool = False
    single: bool = False
    same_content: bool = False
    algorithm: str = "sha256"
    readers: tuple[str, ...] | None = None
    seed: str = ""

    def fill(self, content: Content) -> list[tuple[str, str, Image]]:
        """Make the images and put them; returns repository, tag and image of each."""
        made: list[tuple[str, str, Image]] = []
        shared = (
            [layer(f"{self._seed} {number}", self.layer_size) for number in range(self.layers)]
            if self.shared_layers
            else []
        )
        for number in range(self.count):
            repository = self.repository.format(n=number)
            for template in self.tags:
                tag = template.format(n=number)
                seed = f"{self._seed} {number}" + ("" if self.same_content else f" {tag}")
                item = content.put(repository, self._make(seed, shared), tag, readers=self.readers)
                made.append((repository, tag, item))
        return made

    @property
    def _seed(self) -> str:
        return self.seed or self.repository

    def _make(self, seed: str, shared: list[Any]) -> Image:
        own = 0 if self.shared_layers else self.layers
        if self.single:
            layers = [layer(f"{seed} {number}", self.layer_size) for number in range(own)]
            return manifest(
                seed,
                platform=self.platforms[0],
                layers=[*shared, *layers],
                docker=self.docker,
                algorithm=self.algorithm,
            )
        return image(
            seed,
            platforms=self.platforms,
            layers=own,
            layer_size=self.layer_size,
            shared=shared,
            docker=self.docker,
            attestations=self.attestations,
            algorithm=self.algorithm,
        )


@dataclass(frozen=True, slots=True)
class Specification:
    """A whole upstream in one JSON document:

    `{"settings": {UpstreamSettings}, "images": [{ImageOrder}], "faults": [{Fault}], "burn": 0.3}`

    `settings.accounts` maps names to `{password, refresh_token, limit}`; `burn` is what others
    pull, a second, from the anonymous address.
    """

    settings: UpstreamSettings = field(default_factory=UpstreamSettings)
    images: tuple[ImageOrder, ...] = ()
    faults: tuple[Mapping[str, Any], ...] = ()
    burn: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Specification:
        """Read the document; ConfigError if it is no JSON object or has unknown keys."""
        try:
            body = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the specification is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise ConfigError("the specification is not a JSON object")
        settings = dict(body.get("settings", {}))
        accounts = settings.pop("accounts", {})
        settings["accounts"] = {name: build(Account, details) for name, details in accounts.items()}
        return cls(
            build(UpstreamSettings, settings),
            image_orders(body.get("images", ())),
            tuple(body.get("faults", ())),
            float(body.get("burn", 0.0)),
        )


def image_orders(items: Iterable[Mapping[str, Any]]) -> tuple[ImageOrder, ...]:
    """Orders from JSON objects."""
    return tuple(build(ImageOrder, item) for item in items)


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from a JSON object, lists made tuples; ConfigError names an unknown key."""
    known = {each.name for each in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(f"{kind.__name__} has no {key!r}", hint=f"it has {sorted(known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
