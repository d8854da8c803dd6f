"""Reads what is configured on a node: the other way round from the targets' modules.

Each reader takes the file (or directory) that the target's page in `docs/clients` names, and the
registries that are asked about, and returns a route for each. Sources as in those modules.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from prefetch.clientconfig.files import check_yaml, read_text
from prefetch.clientconfig.hosts import directory_of
from prefetch.clientconfig.routes import Place, Route
from prefetch.errors import UsageError
from prefetch.oci.reference import DEFAULT_REGISTRY
from prefetch.oci.registries import HUB_HOSTS

Reader = Callable[[Path, Sequence[str]], list[Route]]


def read_routes(target: str, path: Path, registries: Sequence[str]) -> list[Route]:
    """Where a node with this configuration pulls each registry's images from.

    Raises UsageError for a file that cannot be read, or is not what the target reads.
    """
    reader = READERS.get(target)
    if reader is None:
        known = ", ".join(READERS)
        raise UsageError(f"{target}: its configuration is not read", hint=f"known are {known}")
    try:
        return reader(path, registries)
    except (AttributeError, TypeError, KeyError):
        raise UsageError(f"{path}: this is not what {target} reads") from None


def _rancher(path: Path, registries: Sequence[str]) -> list[Route]:
    tree = _yaml(path)
    mirrors, configs = _table(tree, "mirrors"), _table(tree, "configs")
    settings = [path.parent / "config.yaml", *sorted(path.parent.glob("config.yaml.d/*.yaml"))]
    off = any(
        _yaml(each).get("disable-default-registry-endpoint") is True
        for each in settings
        if each.is_file()
    )
    routes = []
    for registry in registries:
        mirror = mirrors.get(registry, mirrors.get("*"))
        places = tuple(Place.parse(url) for url in _texts(mirror or {}, "endpoint"))
        itself = not (off and mirror is not None and registry not in configs)
        note = ""
        if off and mirror is not None and itself:
            note = "its entry under configs keeps its own endpoint"
        routes.append(_route(registry, places, itself=itself, note=note))
    return routes


def _hosts(path: Path, registries: Sequence[str]) -> list[Route]:
    if not path.is_dir():
        raise UsageError(f"{path}: expected the directory that config_path names")
    return [_hosts_of(path, registry) for registry in registries]


def _hosts_of(path: Path, registry: str) -> Route:
    for name in (directory_of(registry), registry, "_default"):
        file = path / name / "hosts.toml"
        if file.is_file():
            tree = _toml(file)
            break
    else:
        return Route(registry)
    hosts = _table(tree, "host")
    server = tree.get("server")
    places = tuple(Place.parse(url) for url in hosts)
    partial = [str(Place.parse(url)) for url, host in hosts.items() if not _pulls_all(host)]
    note = f"{', '.join(partial)}: not for all pulls (capabilities)" if partial else ""
    if server is not None:
        last = Place.parse(server)
        return _route(registry, (*places, last), itself=False, note=note)
    return _route(registry, places, itself=True, note=note)


def _pulls_all(host: Mapping[str, Any]) -> bool:
    return "capabilities" not in host or {"pull", "resolve"} <= set(_texts(host, "capabilities"))


def _docker(path: Path, registries: Sequence[str]) -> list[Route]:
    tree = _json(path)
    mirrors = tuple(Place.parse(url, namespaced=False) for url in _texts(tree, "registry-mirrors"))
    certs = path.parent / "certs.d"
    routes = []
    for registry in registries:
        note = ""
        if (certs / directory_of(registry) / "hosts.toml").is_file():
            note = f"with the containerd image store: {_hosts_of(certs, registry).described()}"
        places = mirrors if registry == DEFAULT_REGISTRY else ()
        routes.append(Route(registry, places, note=note))
    return routes


def _containers(path: Path, registries: Sequence[str]) -> list[Route]:
    beside = path.with_name("registries.conf.d") if path.name == "registries.conf" else path
    drop_ins = sorted(beside.glob("*.conf")) if beside.is_dir() else []
    # Drop-ins alone will do: the file itself need not be there.
    own = [] if path.is_dir() or (drop_ins and not path.exists()) else [path]
    files = [*own, *drop_ins]
    if not files:
        raise UsageError(f"{path}: there is no *.conf in it")
    tables: dict[str, Mapping[str, Any]] = {}
    for file in files:
        for table in _toml(file).get("registry", []):
            tables[table.get("prefix") or table["location"]] = table
    return [_containers_of(registry, tables) for registry in registries]


def _containers_of(registry: str, tables: Mapping[str, Mapping[str, Any]]) -> Route:
    table = tables.get(registry)
    notes = []
    parts = [prefix for prefix in tables if prefix.startswith(f"{registry}/")]
    if parts:
        notes.append(f"{', '.join(parts)} have tables of their own")
    if table is None:
        return Route(registry, note="; ".join(notes))
    mirrors = table.get("mirror", [])
    if table.get("blocked"):
        notes.append("blocked: nothing is pulled")
    digests = table.get("mirror-by-digest-only") or any(m.get("pull-from-mirror") for m in mirrors)
    if digests:
        notes.append("mirrors are not asked for all pulls")
    places = [Place.parse(mirror["location"], namespaced=False) for mirror in mirrors]
    location = table.get("location") or registry
    if location != registry:
        places.append(Place.parse(location, namespaced=False))
    return _route(registry, tuple(places), itself=location == registry, note="; ".join(notes))


def _buildkit(path: Path, registries: Sequence[str]) -> list[Route]:
    tables = _table(_toml(path), "registry")
    return [
        Route(
            registry,
            tuple(Place.parse(m) for m in _texts(tables.get(registry, {}), "mirrors")),
        )
        for registry in registries
    ]


def _talos(path: Path, registries: Sequence[str]) -> list[Route]:
    found: dict[str, Route] = {}
    for document in _documents(path):
        if document.get("kind") == "RegistryMirrorConfig":
            urls = [entry["url"] for entry in document.get("endpoints") or []]
            found[document["name"]] = _talos_route(document["name"], urls, document)
        mirrors = _table(_table(_table(document, "machine"), "registries"), "mirrors")
        for registry, mirror in mirrors.items():
            found[registry] = _talos_route(registry, _texts(mirror, "endpoints"), mirror)
    default = found.get("*")
    return [
        found.get(name) or (Route(name, default.places, default.itself) if default else Route(name))
        for name in registries
    ]


def _talos_route(registry: str, urls: Iterable[str], settings: Mapping[str, Any]) -> Route:
    places = tuple(Place.parse(url) for url in urls)
    return _route(registry, places, itself=settings.get("skipFallback") is not True)


def _rke(path: Path, registries: Sequence[str]) -> list[Route]:
    entries = _yaml(path).get("private_registries") or []
    default = next((entry["url"] for entry in entries if entry.get("is_default")), None)
    routes = []
    for registry in registries:
        if registry == DEFAULT_REGISTRY and default is not None:
            place = Place.parse(default, namespaced=False)
            note = "system images; what workloads do, daemon.json says"
            routes.append(Route(registry, (place,), itself=False, note=note))
        else:
            routes.append(Route(registry, note="private_registries are no mirrors"))
    return routes


def _route(registry: str, places: tuple[Place, ...], *, itself: bool, note: str = "") -> Route:
    """The registry itself may be listed, too: then it is asked, and what follows it hardly ever."""
    for number, place in enumerate(places):
        if place.host == registry or (registry == DEFAULT_REGISTRY and place.host in HUB_HOSTS):
            return Route(registry, places[:number], itself=True, note=note)
    return Route(registry, places, itself=itself, note=note)


def _documents(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = read_text(path)
        check_yaml(text, str(path))
        found = [each for each in yaml.safe_load_all(text) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UsageError(f"{path}: not valid YAML") from None
    if not all(isinstance(each, Mapping) for each in found):
        raise UsageError(f"{path}: expected a mapping at the top")
    return found


def _yaml(path: Path) -> Mapping[str, Any]:
    found = _documents(path)
    if len(found) > 1:
        raise UsageError(f"{path}: more than one document")
    return found[0] if found else {}


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError):
        raise UsageError(f"{path}: not valid TOML") from None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(read_text(path) or "{}")
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: not valid JSON") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected an object at the top")
    return found


def _table(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key) or {}
    if not isinstance(found, Mapping):
        raise TypeError(key)
    return found


def _texts(tree: Mapping[str, Any], key: str) -> Sequence[str]:
    found = tree.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TypeError(key)
    return found


READERS: Final[Mapping[str, Reader]] = {
    "k3s": _rancher,
    "rke2": _rancher,
    "rke": _rke,
    "containerd": _hosts,
    "docker": _docker,
    "podman": _containers,
    "crio": _containers,
    "talos": _talos,
    "kind": _hosts,
    "minikube": _hosts,
    "buildkit": _buildkit,
    "nerdctl": _hosts,
}
"""By target. Terraform's files are a language, of which only Terraform knows the values."""
