"""Docker: `daemon.json` (docs.docker.com, "Registry mirrors"; moby/moby daemon/hosts.go).

`registry-mirrors` are for docker.io alone, have no path, and are always followed by docker.io. A
daemon with the containerd image store (the default of new installs since 29) also reads
`/etc/docker/certs.d/<registry>/hosts.toml`; others take no notice of that file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.hosts import hosts_files
from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.target import Output
from prefetch.clientconfig.trust import certs_directory
from prefetch.clientconfig.words import fallback_note, header
from prefetch.oci.reference import DEFAULT_REGISTRY

CERTS_D = "/etc/docker/certs.d"


def docker(plan: Plan) -> Output:
    """For Docker."""
    notes = [fallback_note(plan)]
    others = [name for name in plan.registries if name != DEFAULT_REGISTRY]
    if others:
        notes.append(
            f"{', '.join(others)}: only since Docker 28 with the containerd image store, which "
            f"reads {CERTS_D}/<registry>/hosts.toml; otherwise Docker mirrors docker.io alone"
        )
    hosts = hosts_files(_placed(plan), header("docker", plan), CERTS_D)
    files = (daemon_json(plan), *certs_directory(plan, CERTS_D), *hosts)
    return Output(tuple(file for file in files if file.data), tuple(notes))


def _placed(plan: Plan) -> Plan:
    """With certificates where `certs_directory` puts them, which is where the node has them."""
    tls = {
        host: replace(
            each,
            ca_file=each.ca_file and f"{CERTS_D}/{host}/ca.crt",
            cert_file=each.cert_file and f"{CERTS_D}/{host}/client.cert",
            key_file=each.key_file and f"{CERTS_D}/{host}/client.key",
        )
        for host, each in plan.tls.items()
        if host not in plan.registries
    }
    return replace(plan, tls={**plan.tls, **tls})


def daemon_json(plan: Plan, insecure: tuple[str, ...] = ()) -> ConfigFile:
    """`daemon.json`; `insecure` are more hosts that are asked over plain HTTP, by their name."""
    hub = plan.mirror(DEFAULT_REGISTRY)
    data: dict[str, Any] = {}
    if hub is not None:
        data["registry-mirrors"] = [
            endpoint.root
            for endpoint in hub.endpoints
            if endpoint.plain and not endpoint.is_registry(hub.registry)
        ]
    unchecked = [e.host for e in plan.hosts() if e.secure and plan.tls_of(e).skip_verify]
    unsafe = list(dict.fromkeys((*unchecked, *insecure)))
    if unsafe:
        data["insecure-registries"] = unsafe
    return ConfigFile("/etc/docker/daemon.json", "json", data)
