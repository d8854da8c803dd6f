"""RKE, its Terraform provider: `private_registries` (rke.docs.rancher.com, "Private Registries").

That is no mirror. The entry with `is_default` is put in front of the names of RKE's own system
images; the others are credentials, for images that are named with that prefix. Workloads ask
Docker, whose `registry-mirrors` serve docker.io alone. `url` has no scheme; the entry that RKE
looks for is the image's domain with all of its path but the last two parts (rke
docker/docker.go), so a cache is named with the registry behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prefetch.clientconfig.docker import CERTS_D, daemon_json
from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.target import Output
from prefetch.clientconfig.trust import certs_directory
from prefetch.clientconfig.words import SPENDS
from prefetch.credentials.credential import Credential
from prefetch.errors import UsageError
from prefetch.oci.reference import DEFAULT_REGISTRY


def rke(plan: Plan) -> Output:
    """For RKE: the cluster's file, and Docker's on each node."""
    main = ConfigFile(
        "/cluster.yml",
        "yaml",
        {"private_registries": _entries(plan)},
        _comments("rke"),
        secret=bool(plan.logins),
    )
    return _with_docker(main, plan)


def merged_rke(tree: Mapping[str, Any]) -> list[str]:
    """What is wrong with a cluster's file as a whole: RKE takes the first default one."""
    entries = [e for e in tree.get("private_registries", []) if isinstance(e, Mapping)]
    default = [
        str(entry.get("url")) for entry in entries if str(entry.get("is_default")).lower() == "true"
    ]
    if len(default) < 2:  # noqa: PLR2004
        return []
    return [f"of several with is_default RKE takes the first, {default[0]}"]


def rke_terraform(plan: Plan) -> Output:
    """For the Terraform provider: blocks of the `rke_cluster` resource."""
    main = ConfigFile(
        "/private_registries.hcl",
        "hcl",
        [("private_registries", entry) for entry in _entries(plan)],
        (
            *_comments("rke-terraform"),
            'These blocks belong into resource "rke_cluster"; the provider has no field for ECR.',
        ),
        secret=bool(plan.logins),
    )
    return _with_docker(main, plan)


def _comments(target: str) -> tuple[str, ...]:
    return (
        f"Written by `prefetch client-config {target}`.",
        "private_registries are no mirrors: is_default is put in front of RKE's system images,",
        "which then have no fallback. Workloads need /etc/docker/daemon.json on each node.",
    )


def _entries(plan: Plan) -> list[dict[str, Any]]:
    """The mirrors that RKE has a use for: the default one, and those with credentials.

    Raises UsageError when there is none.
    """
    entries = {entry["url"]: entry for entry in reversed(list(_candidates(plan)))}
    if not entries:
        raise UsageError(
            f"{', '.join(plan.registries)}: RKE has no mirrors",
            hint="private_registries serve docker.io's system images, or carry credentials",
        )
    return list(reversed(entries.values()))


def _candidates(plan: Plan) -> Iterator[dict[str, Any]]:
    default = True
    for mirror in plan.mirrors:
        hub = mirror.registry == DEFAULT_REGISTRY
        for endpoint in mirror.endpoints:
            login = plan.logins.get(endpoint.host)
            useful = (hub and default) or login is not None
            if endpoint.is_registry(mirror.registry) or not useful:
                continue
            entry: dict[str, Any] = {"url": endpoint.prefix(mirror.registry)}
            if isinstance(login, Credential):
                entry |= {"user": login.username, "password": login.password.reveal()}
            if hub and default:
                entry["is_default"] = True
                default = False
            yield entry


def _with_docker(main: ConfigFile, plan: Plan) -> Output:
    notes = [
        f"workloads: {SPENDS}",
        "system images are named after the default registry and have no fallback",
    ]
    others = [name for name in plan.registries if name != DEFAULT_REGISTRY]
    if others:
        first = next(e for m in plan.mirrors if m.registry == others[0] for e in m.endpoints)
        notes.append(
            f"{', '.join(others)}: not mirrored for workloads; name such images at the cache, "
            f"as in {first.prefix(others[0])}/…"
        )
    hub = plan.mirror(DEFAULT_REGISTRY)
    if hub is not None and not all(endpoint.plain for endpoint in hub.endpoints):
        notes.append("a mirror with a path serves system images alone: Docker allows none")
    # System images are pulled by the cache's own name, which Docker must be allowed to ask so.
    plain = tuple(endpoint.host for endpoint in plan.hosts() if not endpoint.secure)
    if plan.logins:
        notes.append(
            "Docker passes by a mirror that asks for a login, also for public images: workloads "
            "need a cache without users"
        )
    files = (main, daemon_json(plan, plain), *certs_directory(plan, CERTS_D))
    return Output(tuple(file for file in files if file.data), tuple(notes))
