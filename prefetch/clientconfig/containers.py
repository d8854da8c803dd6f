"""Podman and CRI-O: `registries.conf` (containers-registries.conf(5), containers-auth.json(5)).

A mirror is a prefix in front of the repository; the registry itself is `location`, which is asked
last and has to be given. Without a fallback `location` is a cache.
"""

from __future__ import annotations

from typing import Any

from prefetch.clientconfig.endpoints import Endpoint
from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.plan import Mirror, Plan
from prefetch.clientconfig.target import Output
from prefetch.clientconfig.trust import certs_directory
from prefetch.clientconfig.words import fallback_note, header
from prefetch.credentials.credential import Credential, IdentityToken, Login, Secret

_CONF = "/etc/containers/registries.conf.d/50-prefetch.conf"
_CERTS_D = "/etc/containers/certs.d"
_CRIO_AUTH = "/etc/crio/auth.json"


def podman(plan: Plan) -> Output:
    """For Podman, Buildah and skopeo, whose credentials root keeps in a file of their own."""
    logins = _auth_files(plan, "/root/.config/containers/auth.json")
    notes = [fallback_note(plan)]
    if logins:
        notes.append("credentials are for root; other users run podman login")
    return Output((_registries("podman", plan), *logins, *_certs(plan)), tuple(notes))


def crio(plan: Plan) -> Output:
    """For CRI-O, which is told where its credentials are."""
    logins = _auth_files(plan, _CRIO_AUTH)
    if logins:
        data = {"crio": {"image": {"global_auth_file": _CRIO_AUTH}}}
        place = "/etc/crio/crio.conf.d/50-prefetch.conf"
        logins.append(ConfigFile(place, "toml", data, header("crio", plan)))
    files = (_registries("crio", plan), *logins, *_certs(plan))
    return Output(files, (fallback_note(plan),))


def _registries(target: str, plan: Plan) -> ConfigFile:
    data = {"registry": [_registry(mirror, plan) for mirror in plan.mirrors]}
    return ConfigFile(_CONF, "toml", data, header(target, plan))


def _registry(mirror: Mirror, plan: Plan) -> dict[str, Any]:
    places = [
        _place(endpoint, mirror.registry, plan)
        for endpoint in mirror.endpoints
        if not endpoint.is_registry(mirror.registry)
    ]
    own = {"location": mirror.registry} if plan.fallback else places.pop()
    found: dict[str, Any] = {"prefix": mirror.registry, **own}
    if places:
        found["mirror"] = places
    return found


def _place(endpoint: Endpoint, registry: str, plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {"location": endpoint.prefix(registry)}
    if plan.unverified(endpoint):
        found["insecure"] = True
    return found


def _certs(plan: Plan) -> list[ConfigFile]:
    return certs_directory(plan, _CERTS_D)


def _auth_files(plan: Plan, path: str) -> list[ConfigFile]:
    logins = {**plan.logins, **(plan.registry_logins if plan.fallback else {})}
    if not logins:
        return []
    data = {"auths": {host: _auth(login) for host, login in logins.items()}}
    return [ConfigFile(path, "json", data, secret=True)]


def _auth(login: Login) -> dict[str, str]:
    if isinstance(login, IdentityToken):
        nameless = Credential(login.username or "<token>", Secret(""))
        return {"auth": nameless.basic(), "identitytoken": login.token.reveal()}
    return {"auth": login.basic()}
