"""Compose files: the images of their services (compose-spec, "services", "include").

    include: [common/compose.yaml]
    services:
      web: {image: "nginx:1.27", platform: linux/amd64}
      app: {build: .}                 # has no image: nothing to fetch
      job: {extends: {service: web, file: base.yaml}}

A service's `platform` is what it is fetched for. `extends` and `include` are followed into other
files, as Docker does it, from the directory of the file that names them. `$$` is a dollar sign;
variables are not known here, so an image that has some is an error: `docker compose config` puts
their values in, and renders whatever else is not followed here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from prefetch.errors import InvalidReference, SourceError
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Reference
from prefetch.sources.composefiles import RENDER, VARIABLE, Files, Service, called
from prefetch.sources.selector import Demand, Note, Origin, Parsed, Selector, parse_platforms, shown
from prefetch.sources.yamltree import MapNode, Node, Scalar

_TOP: Final = frozenset(
    {
        *("version", "name", "include", "services", "networks", "volumes", "configs", "secrets"),
        "models",
    }
)
_FILE: Final = re.compile(r"(docker-)?compose\b.*")
_OVERRIDE: Final = re.compile(r"(docker-)?compose\b.*\boverride\b.*")


def is_compose(node: Node) -> bool:
    """Whether a document says that it is a compose file."""
    return (
        isinstance(node, MapNode)
        and not {"services", "include"}.isdisjoint(node.items)
        and "kind" not in node.items
    )


def is_surely_compose(node: MapNode, name: str) -> bool:
    """Whether `is_compose` is right, where other files may have `services`, too.

    By the file's name; or it has no other keys than a compose file, and services with images.
    """
    if _FILE.fullmatch(Path(name).name):
        return True
    services = node.items.get("services")
    return all(key in _TOP or key.startswith("x-") for key in node.items) and (
        "include" in node.items
        or (
            isinstance(services, MapNode)
            and any(_has_source(each) for each in services.items.values())
        )
    )


def _has_source(service: Node) -> bool:
    """`image` as text: in a chart's values it is a mapping."""
    if not isinstance(service, MapNode):
        return False
    return isinstance(service.items.get("image"), Scalar) or not {"build", "extends"}.isdisjoint(
        service.items
    )


def parse(node: MapNode, name: str) -> Parsed:
    """The images of a compose file; `name` stands in origins and errors. Raises nothing.

    A `name` that is no file's path, such as `-`, has no directory to follow other files from.
    """
    parsed = Parsed()
    files = Files(parsed)
    model = files.model(node, Origin(name))
    override = _OVERRIDE.fullmatch(Path(name).name) is not None
    for key, service in model.services.items():
        if parsed.is_full(service.origin):
            break
        try:
            _take(files.extended(model, key), parsed, override=override)
        except SourceError as error:
            parsed.refuse(error)
    return parsed


def _take(service: Service, parsed: Parsed, *, override: bool) -> None:
    what = called(service.name)
    if "image" in service.fields:
        parsed.selectors.append(_selector(service))
    elif "build" in service.fields or "provider" in service.fields:
        parsed.note(Note(service.origin, f"{what} names no image"))
    elif override:
        # Docker puts it over the file that it belongs to.
        parsed.note(Note(service.origin, f"{what}: an override that names no image"))
    else:
        raise service.origin.error(f"{what} has neither an image nor a build")


def _selector(service: Service) -> Selector:
    what = called(service.name)
    image, source = service.fields["image"]
    origin = Origin(source, image.line)
    text = _scalar(image, origin, f"{what}: image")
    if VARIABLE.search(text):
        raise origin.error(f"{what}: {shown(text)} has variables", hint=RENDER)
    try:
        reference = Reference.parse(text.replace("$$", "$"))
        platforms: PlatformSet | None = None
        if "platform" in service.fields:
            platform, _ = service.fields["platform"]
            platforms = parse_platforms([_scalar(platform, origin, f"{what}: platform")])
    except InvalidReference as error:
        raise origin.error(f"{what}: {error}") from None
    return Selector(origin, reference, platforms=platforms, demand=Demand(1, askers=(what,)))


def _scalar(node: Node, origin: Origin, what: str) -> str:
    if not isinstance(node, Scalar) or node.value is None or not node.text:
        raise origin.error(f"{what} is not text")
    return node.text
