"""K3s and RKE2: `registries.yaml` (docs.k3s.io, "Private Registry Configuration"; rancher/wharfie).

Neither reads it again before a restart. An endpoint without a path is asked at `/v2`; any other
path is taken as it is. The registry itself comes last without being named, unless
`disable-default-registry-endpoint` is set, which holds for registries that have mirrors and no
entry under `configs`. Rewrites are not applied to it.
"""

from __future__ import annotations

from typing import Any

from prefetch.clientconfig.endpoints import Endpoint
from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.plan import Mirror, Plan, Tls
from prefetch.clientconfig.target import Output
from prefetch.clientconfig.words import fallback_note, header
from prefetch.credentials.credential import IdentityToken, Login


def k3s(plan: Plan) -> Output:
    """For K3s."""
    return _registries("k3s", plan)


def rke2(plan: Plan) -> Output:
    """For RKE2, which is also called RKE Government."""
    return _registries("rke2", plan)


def _registries(product: str, plan: Plan) -> Output:
    configs = _configs(plan)
    data: dict[str, Any] = {
        "mirrors": {each.registry: _mirror(each, plan) for each in plan.mirrors}
    }
    if configs:
        data["configs"] = configs
    files = [
        ConfigFile(
            f"/etc/rancher/{product}/registries.yaml",
            "yaml",
            data,
            header(product, plan),
            secret=any("auth" in each for each in configs.values()),
        )
    ]
    notes = [fallback_note(plan)]
    if not plan.fallback:
        files.append(
            ConfigFile(
                f"/etc/rancher/{product}/config.yaml.d/50-prefetch.yaml",
                "yaml",
                {"disable-default-registry-endpoint": True},
                header(product, plan),
            )
        )
        notes.append("disable-default-registry-endpoint has to be on every server and agent")
        if plan.registry_logins:
            notes.append(
                "credentials for the registries are left out: an entry under configs would "
                "bring their endpoints back"
            )
    if plan.rewrites and plan.fallback:
        notes.append("rewrites are not applied to the registry itself, only to mirrors")
    return Output(tuple(files), tuple(notes))


def _mirror(mirror: Mirror, plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {"endpoint": [endpoint.url for endpoint in mirror.endpoints]}
    if plan.rewrites:
        found["rewrite"] = dict(plan.rewrites)
    return found


def _configs(plan: Plan) -> dict[str, dict[str, Any]]:
    """By host: mirrors', then those of the registries that are fallen back to."""
    found: dict[str, dict[str, Any]] = {}
    for endpoint in plan.hosts():
        entry = _config(plan.logins.get(endpoint.host), _tls(endpoint, plan))
        if entry:
            found[endpoint.host] = entry
    if plan.fallback:
        for registry in plan.registries:
            entry = _config(plan.registry_logins.get(registry), _fields(plan.tls.get(registry)))
            if entry:
                found[registry] = entry
    return found


def _config(login: Login | None, tls: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(login, IdentityToken):
        found["auth"] = {"identity_token": login.token.reveal()}
    elif login is not None:
        found["auth"] = {"username": login.username, "password": login.password.reveal()}
    if tls:
        found["tls"] = tls
    return found


def _tls(endpoint: Endpoint, plan: Plan) -> dict[str, Any]:
    return _fields(plan.tls_of(endpoint))


def _fields(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    found: dict[str, Any] = {
        "cert_file": tls.cert_file,
        "key_file": tls.key_file,
        "ca_file": tls.ca_file,
        "insecure_skip_verify": tls.skip_verify or None,
    }
    return {key: value for key, value in found.items() if value is not None}
