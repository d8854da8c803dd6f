"""What compose files say together: `include`, and services that extend others.

Other files are regular ones of this machine, found from the directory of the file that names them
(compose-spec, "include", "extends"). Chains are bounded, loops refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from prefetch.errors import SourceError
from prefetch.regular import open_regular
from prefetch.sources.selector import Origin, Parsed, shown
from prefetch.sources.yamltree import ListNode, MapNode, Node, Scalar, is_null, read

MAX_CHAIN: Final = 32
"""Services that extend one another, and files that include one another, at most."""
MAX_FILES: Final = 256
"""Other files that a compose file leads to, at most."""
MAX_FILE: Final = 1 << 20
"""Bytes of such a file at most."""
VARIABLE: Final = re.compile(r"(?<!\$)(?:\$\$)*\$[A-Za-z_{]")
RENDER: Final = "docker compose config renders it"


@dataclass(frozen=True, slots=True)
class Service:
    """A service; each of its fields with the name of the source that it stands in."""

    name: str
    origin: Origin
    fields: Mapping[str, tuple[Node, str]]


@dataclass(frozen=True, slots=True)
class Model:
    """The services of a file, those that it includes among them."""

    services: Mapping[str, Service]


def called(name: str) -> str:
    """`service web`, safe to print."""
    return f"service {shown(name)[1:-1]}"


class Files:
    """Reads the files of one compose file; what is wrong in them goes into `parsed`."""

    def __init__(self, parsed: Parsed) -> None:
        self._parsed = parsed
        self._models: dict[str, Model] = {}

    def model(self, node: Node, origin: Origin, chain: tuple[str, ...] = ()) -> Model:
        """The services of a document; `chain` are the files that have led to it."""
        services: dict[str, Service] = {}
        if not isinstance(node, MapNode):
            self._parsed.refuse(origin.error("not a compose file"))
            return Model(services)
        for include, place in _entries(node.items.get("include"), origin.source):
            try:
                services |= self._included(_paths(include, place), place, chain)
            except SourceError as error:
                self._parsed.refuse(error)
        own = node.items.get("services")
        if isinstance(own, MapNode):
            for key, service in own.items.items():
                place = Origin(origin.source, own.key_lines[key])
                if isinstance(service, MapNode):
                    fields = {k: (v, origin.source) for k, v in service.items.items()}
                    services[key] = Service(key, place, fields)
                else:
                    self._parsed.refuse(place.error(f"{called(key)} is not a mapping"))
        elif own is not None and not is_null(own):
            self._parsed.refuse(Origin(origin.source, own.line).error("services is not a mapping"))
        return Model(services)

    def _included(
        self, paths: list[str], origin: Origin, chain: tuple[str, ...]
    ) -> dict[str, Service]:
        """The services of files that are laid over one another."""
        services: dict[str, Service] = {}
        for path in paths:
            for key, over in self._other(path, origin, chain).services.items():
                under = services.get(key, over)
                services[key] = replace(under, fields={**under.fields, **over.fields})
        return services

    def extended(self, model: Model, name: str) -> Service:
        """A service with what those that it extends say besides. Raises SourceError."""
        service = model.services[name]
        fields = dict(service.fields)
        seen: set[tuple[str, str]] = set()
        current = service
        while "extends" in current.fields and not is_null(current.fields["extends"][0]):
            extends, source = current.fields["extends"]
            origin = Origin(source, extends.line)
            if (source, current.name) in seen or len(seen) >= MAX_CHAIN:
                raise origin.error(f"{called(name)} extends services in a circle, or too many")
            seen.add((source, current.name))
            wanted, path = _extends(extends, origin, name)
            if path is not None:
                model = self._other(path, origin, ())
            if wanted not in model.services:
                raise origin.error(
                    f"{called(name)} extends {shown(wanted)}, which is not there", hint=RENDER
                )
            current = model.services[wanted]
            fields = {**current.fields, **fields}
        return Service(name, service.origin, fields)

    def _other(self, path: str, origin: Origin, chain: tuple[str, ...]) -> Model:
        """Another file's services, read once. Raises SourceError where it cannot be read."""
        file = _beside(path, origin)
        name = str(file)
        if name in chain or len(chain) >= MAX_CHAIN:
            raise origin.error(f"{shown(path)} is included in a circle, or too deep")
        if name not in self._models:
            if len(self._models) >= MAX_FILES:
                raise origin.error(f"more than {MAX_FILES} other files", hint=RENDER)
            node = _read(file, path, origin)
            self._models[name] = self.model(node, Origin(name), (*chain, name))
        return self._models[name]


def _entries(node: Node | None, source: str) -> Iterator[tuple[Node, Origin]]:
    """`include` is a list; what else it is, its use will say."""
    if node is None or is_null(node):
        return
    for entry in node.items if isinstance(node, ListNode) else [node]:
        yield entry, Origin(source, entry.line)


def _paths(node: Node, origin: Origin) -> list[str]:
    """An entry of `include`: a path, or `path` with one or several."""
    found = node.items.get("path") if isinstance(node, MapNode) else node
    nodes = found.items if isinstance(found, ListNode) and found is not node else [found]
    return [_path(each, origin, "include") for each in nodes]


def _extends(node: Node, origin: Origin, name: str) -> tuple[str, str | None]:
    """The service that is extended, and the file that has it, if it is another one."""
    if isinstance(node, Scalar):
        return node.text, None
    service = node.items.get("service") if isinstance(node, MapNode) else None
    if not isinstance(node, MapNode) or not isinstance(service, Scalar):
        raise origin.error(f"{called(name)}: extends names no service")
    file = node.items.get("file")
    return service.text, None if file is None else _path(file, origin, f"{called(name)}: extends")


def _path(node: Node | None, origin: Origin, what: str) -> str:
    if not isinstance(node, Scalar) or is_null(node) or not node.text:
        raise origin.error(f"{what} names no file")
    if VARIABLE.search(node.text):
        raise origin.error(f"{what}: {shown(node.text)} has variables", hint=RENDER)
    return node.text.replace("$$", "$")


def _beside(path: str, origin: Origin) -> Path:
    """Where a file is that another one names. Raises SourceError where that one is none."""
    base = Path(origin.source)
    if not base.is_file():
        raise origin.error(f"{shown(path)}: there is no directory to find it from", hint=RENDER)
    if "://" in path or path.startswith("git@"):
        raise origin.error(f"{shown(path)} is not a file here", hint=RENDER)
    return Path(os.path.normpath(base.parent / path))


def _read(file: Path, path: str, origin: Origin) -> Node:
    try:
        with open_regular(file) as opened:
            data = opened.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise origin.error(f"{shown(path)} is larger than {MAX_FILE >> 20} MiB", hint=RENDER)
        node = read(data.decode("utf-8-sig"), str(file))
    except OSError as error:
        raise origin.error(f"{shown(path)}: {error.strerror}", hint=RENDER) from None
    except ValueError:  # not UTF-8, or no path
        raise origin.error(f"{shown(path)} cannot be read", hint=RENDER) from None
    if node is None:
        raise origin.error(f"{shown(path)} is empty")
    return node
