"""Talos: registries in the machine's configuration, in both of its forms.

Up to 1.11 they are `machine.registries` (talos machinery, config/types/v1alpha1); since 1.12 there
are documents of their own: RegistryMirrorConfig, RegistryTLSConfig, RegistryAuthConfig
(config/types/cri). Certificates are given by content.
"""

from __future__ import annotations

import base64
from typing import Any

from prefetch.clientconfig.endpoints import API, Endpoint
from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.plan import Mirror, Plan
from prefetch.clientconfig.target import Output
from prefetch.clientconfig.trust import pem
from prefetch.clientconfig.words import fallback_note, header
from prefetch.credentials.credential import IdentityToken, Login


def talos(plan: Plan) -> Output:
    """A patch for every version, and documents for 1.12 and later: one of the two is enough."""
    secret = bool(plan.logins or plan.registry_logins) or any(t.key_file for t in plan.tls.values())
    comments = header("talos", plan)
    patch = ConfigFile(
        "/talos-registries.patch.yaml",
        "yaml",
        {"machine": {"registries": _registries(plan)}},
        (*comments, "A patch of the machine configuration, as up to Talos 1.11."),
        secret,
    )
    documents = ConfigFile(
        "/talos-registries.yaml",
        "yaml",
        tuple(_documents(plan)),
        (*comments, "Documents of their own, as since Talos 1.12."),
        secret,
    )
    notes = (
        fallback_note(plan),
        *(
            ["Talos 1.12.0 and 1.12.1 crash on a TLS document without a client certificate"]
            if any(not tls.cert_file for tls in plan.tls.values())
            else []
        ),
        "one of the two files: talosctl patch machineconfig --patch @FILE",
    )
    return Output((documents, patch), notes)


def _registries(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {"mirrors": {m.registry: _mirror(m, plan) for m in plan.mirrors}}
    config: dict[str, Any] = {}
    for host, login, endpoint in _hosts(plan):
        entry: dict[str, Any] = {}
        if tls := _tls(endpoint, plan):
            entry["tls"] = {
                **({"ca": _encoded(tls["ca"])} if "ca" in tls else {}),
                **_identity(tls, "crt", encoded=True),
                **({"insecureSkipVerify": True} if "insecureSkipVerify" in tls else {}),
            }
        if login is not None:
            entry["auth"] = _auth(login)
        if entry:
            config[host] = entry
    return {**found, "config": config} if config else found


def _mirror(mirror: Mirror, plan: Plan) -> dict[str, Any]:
    """The old form knows one `overridePath` for all endpoints of a registry."""
    override = any(not endpoint.plain for endpoint in mirror.endpoints)
    endpoints = [f"{e.root}{e.api}" if override else e.url for e in mirror.endpoints]
    found: dict[str, Any] = {"endpoints": endpoints}
    if override:
        found["overridePath"] = True
    if not plan.fallback:
        found["skipFallback"] = True
    return found


def _documents(plan: Plan) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for mirror in plan.mirrors:
        endpoints: list[dict[str, Any]] = []
        for endpoint in mirror.endpoints:
            override = {} if endpoint.api == API else {"overridePath": True}
            endpoints.append({"url": endpoint.url, **override})
        own = {} if plan.fallback else {"skipFallback": True}
        found.append(_document("RegistryMirrorConfig", mirror.registry, endpoints=endpoints, **own))
    for host, login, place in _hosts(plan):
        if tls := _tls(place, plan):
            identity = _identity(tls, "cert", encoded=False)
            plain = {k: v for k, v in tls.items() if k in ("ca", "insecureSkipVerify")}
            found.append(_document("RegistryTLSConfig", host, **plain, **identity))
        if login is not None:
            found.append(_document("RegistryAuthConfig", host, **_auth(login)))
    return found


def _document(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1alpha1", "kind": kind, "name": name, **fields}


def _hosts(plan: Plan) -> list[tuple[str, Login | None, Endpoint | None]]:
    """Every host that something is known of: mirrors, then the registries themselves."""
    found: list[tuple[str, Login | None, Endpoint | None]] = [
        (endpoint.host, plan.logins.get(endpoint.host), endpoint) for endpoint in plan.hosts()
    ]
    if plan.fallback:
        found += [(name, login, None) for name, login in plan.registry_logins.items()]
    return found


def _tls(endpoint: Endpoint | None, plan: Plan) -> dict[str, Any]:
    if endpoint is None:
        return {}
    tls = plan.tls_of(endpoint)
    found: dict[str, Any] = {}
    if tls.ca_file is not None:
        found["ca"] = pem(tls.ca_file)
    if tls.cert_file is not None and tls.key_file is not None:
        found["cert"], found["key"] = pem(tls.cert_file), pem(tls.key_file)
    if tls.skip_verify:
        found["insecureSkipVerify"] = True
    return found


def _identity(tls: dict[str, Any], certificate: str, *, encoded: bool) -> dict[str, Any]:
    if "cert" not in tls:
        return {}
    pair = {certificate: tls["cert"], "key": tls["key"]}
    return {"clientIdentity": {k: _encoded(v) if encoded else v for k, v in pair.items()}}


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _auth(login: Login) -> dict[str, str]:
    if isinstance(login, IdentityToken):
        return {"identityToken": login.token.reveal()}
    return {"username": login.username, "password": login.password.reveal()}
