"""containerd's `hosts.toml`, for all that read it (containerd docs/hosts.md).

One directory a registry. Hosts are asked in order, `server` last; where `server` is left out it
is the registry itself. Everything but `server` and `host` at the top belongs to `server`. A host
whose name is not the registry's is told it as `?ns=`.
"""

from __future__ import annotations

import re
from typing import Any

from prefetch.clientconfig.endpoints import Endpoint
from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.plan import Mirror, Plan, Tls
from prefetch.clientconfig.trust import pem
from prefetch.credentials.credential import Credential
from prefetch.oci.registries import endpoint_for

CERTS_D = "/etc/containerd/certs.d"
_NO_NAME = re.compile(r"[^A-Za-z0-9.-]")


def hosts_files(
    plan: Plan, comments: tuple[str, ...], root: str = CERTS_D, *, inline: bool = False
) -> list[ConfigFile]:
    """`<root>/<registry>/hosts.toml` for each mirror.

    With `inline` the certificates lie beside it, where the node has no others.
    """
    files: list[ConfigFile] = []
    for mirror in plan.mirrors:
        directory = f"{root}/{directory_of(mirror.registry)}"
        beside: dict[str, ConfigFile] = {}
        data = _hosts(mirror, plan, directory if inline else None, beside)
        secret = bool(plan.logins)
        files.append(ConfigFile(f"{directory}/hosts.toml", "toml", data, comments, secret))
        files += beside.values()
    return files


def directory_of(registry: str) -> str:
    """A registry's directory: `host_port_` where it has a port, which every containerd reads."""
    host, colon, port = registry.rpartition(":")
    return f"{host}_{port}_" if colon and port.isdigit() else registry


def _hosts(
    mirror: Mirror, plan: Plan, directory: str | None, beside: dict[str, ConfigFile]
) -> dict[str, Any]:
    endpoints = list(mirror.endpoints)
    if endpoints[-1].is_registry(mirror.registry):
        endpoints.pop()
    if plan.fallback:
        own = Tls() if mirror.registry not in plan.tls else plan.tls[mirror.registry]
        data = {"server": endpoint_for(mirror.registry), **_trust(own, directory, beside, "server")}
    else:
        # The last one stands in the registry's place as well: without `server` it would be asked.
        data = {"server": endpoints[-1].url, **_settings(endpoints[-1], plan, directory, beside)}
    table = {
        endpoint.url: {
            "capabilities": ["pull", "resolve"],
            **_settings(endpoint, plan, directory, beside),
        }
        for endpoint in endpoints
    }
    # What belongs to `server` has to stand before the tables, and its own table last of that.
    return {**data, "host": table}


def _settings(
    endpoint: Endpoint, plan: Plan, directory: str | None, beside: dict[str, ConfigFile]
) -> dict[str, Any]:
    found = _trust(plan.tls_of(endpoint), directory, beside, endpoint.host)
    if not endpoint.plain and not endpoint.api.endswith("/v2"):
        found["override_path"] = True
    login = plan.logins.get(endpoint.host)
    if isinstance(login, Credential):
        found["header"] = {"Authorization": f"Basic {login.basic()}"}
    return found


def _trust(
    tls: Tls, directory: str | None, beside: dict[str, ConfigFile], host: str
) -> dict[str, Any]:
    def place(path: str, ending: str) -> str:
        if directory is None:
            return path
        name = f"{_NO_NAME.sub('_', host)}{ending}"
        beside[name] = ConfigFile(
            f"{directory}/{name}", "pem", pem(path), secret=ending.endswith(".key")
        )
        return name

    found: dict[str, Any] = {}
    if tls.ca_file is not None:
        found["ca"] = place(tls.ca_file, "-ca.pem")
    if tls.cert_file is not None and tls.key_file is not None:
        found["client"] = [
            [place(tls.cert_file, "-client.pem"), place(tls.key_file, "-client.key")]
        ]
    if tls.skip_verify:
        found["skip_verify"] = True
    return found
