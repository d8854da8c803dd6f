"""Compose files: the images of their services (compose-spec, "services").

    services:
      web: {image: "nginx:1.27", platform: linux/amd64}
      app: {build: .}                 # has no image: nothing to fetch

A service's `platform` is what it is fetched for. `$$` is a dollar sign; variables are not known
here, so an image that has some is an error: `docker compose config` puts their values in.
"""

from __future__ import annotations

import re
from typing import Final

from prefetch.errors import InvalidReference, SourceError
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Reference
from prefetch.sources.selector import Demand, Note, Origin, Parsed, Selector, parse_platforms, shown
from prefetch.sources.yamltree import MapNode, Node, Scalar

_VARIABLE: Final = re.compile(r"(?<!\$)(?:\$\$)*\$[A-Za-z_{]")


def is_compose(node: Node) -> bool:
    """Whether a document is a compose file."""
    return isinstance(node, MapNode) and "services" in node.items and "kind" not in node.items


def parse(node: MapNode, name: str) -> Parsed:
    """The images of a compose file; `name` stands in origins and errors. Raises nothing."""
    parsed = Parsed()
    services = node.items["services"]
    if isinstance(services, Scalar) and services.value is None:
        return parsed
    if not isinstance(services, MapNode):
        parsed.errors.append(Origin(name, services.line).error("services is not a mapping"))
        return parsed
    for key, service in services.items.items():
        origin = Origin(name, services.key_lines[key])
        called = f"service {shown(key)[1:-1]}"
        if not isinstance(service, MapNode):
            parsed.errors.append(origin.error(f"{called} is not a mapping"))
        elif "image" in service.items:
            try:
                parsed.selectors.append(_selector(service, name, called))
            except SourceError as error:
                parsed.errors.append(error)
        else:
            parsed.notes.append(Note(origin, f"{called} names no image"))
    return parsed


def _selector(service: MapNode, name: str, called: str) -> Selector:
    image = service.items["image"]
    origin = Origin(name, image.line)
    text = _scalar(image, origin, f"{called}: image")
    if _VARIABLE.search(text):
        raise origin.error(
            f"{called}: {shown(text)} has variables",
            hint="docker compose config puts their values in",
        )
    try:
        reference = Reference.parse(text.replace("$$", "$"))
        platforms: PlatformSet | None = None
        if "platform" in service.items:
            words = _scalar(service.items["platform"], origin, f"{called}: platform")
            platforms = parse_platforms([words])
    except InvalidReference as error:
        raise origin.error(f"{called}: {error}") from None
    return Selector(origin, reference, platforms=platforms, demand=Demand(1, askers=(called,)))


def _scalar(node: Node, origin: Origin, what: str) -> str:
    if not isinstance(node, Scalar) or node.value is None or not node.text:
        raise origin.error(f"{what} is not text")
    return node.text
