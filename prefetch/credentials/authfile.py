"""Auth files: Docker's `config.json` and containers' `auth.json`, parsed.

    {"auths": {"quay.io": {"auth": "<base64 of user:password>"},
               "quay.io/corp/app": {"username": "…", "password": "…"},
               "https://index.docker.io/v1/": {"auth": "…", "identitytoken": "…"},
               "ghcr.io": {}},
     "credHelpers": {"public.ecr.aws": "ecr-login"},
     "credsStore": "secretservice"}

Docker writes registries with a scheme and a path, containers-auth.json(5) as hosts or as
repositories; both are read alike. An empty entry says that a helper has the credentials.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prefetch.credentials.credential import Credential, IdentityToken, Login, Secret
from prefetch.errors import CredentialError
from prefetch.oci.registries import HUB_HOSTS

_HUB: Final = "docker.io"
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_API_PATH = re.compile(r"v[12](/|$)")
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class AuthFile:
    """One file's credentials; keys are normalised (`auth_key`), empty entries left out."""

    name: str
    logins: Mapping[str, Login]
    helpers: Mapping[str, str]
    store: str | None

    @classmethod
    def parse(cls, data: bytes, name: str) -> AuthFile:
        """From JSON; `name` is for errors. Raises CredentialError: one line, no secrets."""
        document = _object(_json(data, name), name, "the file")
        entries = _object(document.get("auths"), name, "auths")
        helpers = _object(document.get("credHelpers"), name, "credHelpers")
        logins: dict[str, Login] = {}
        for key, entry in entries.items():
            login = _login(_object(entry, name, _where(key)), name, key)
            if login is not None:
                logins.setdefault(auth_key(key), login)
        store = document.get("credsStore")
        return cls(
            name=name,
            logins=logins,
            helpers={auth_key(key): _helper(value, name) for key, value in helpers.items()},
            store=_helper(store, name) if store else None,
        )

    def login(self, registry: str, repository: str | None) -> Login | None:
        """The entry for a repository, else for the nearest path above it, else for the registry."""
        key = f"{auth_key(registry)}/{repository}" if repository else auth_key(registry)
        while key not in self.logins and "/" in key:
            key = key.rpartition("/")[0]
        return self.logins.get(key)

    def helper(self, registry: str) -> str | None:
        """The helper to ask about a registry: its own, else the store of the whole file."""
        return self.helpers.get(auth_key(registry), self.store)


def auth_key(key: str) -> str:
    """`docker.io` for each of Docker Hub's names, `host[:port][/path]` for others.

    A path after a scheme, and the API's own (`/v1/`), belong to the URL, not to a repository.
    """
    bare = _SCHEME.sub("", key.strip(), count=1)
    host, _, path = bare.partition("/")
    if bare != key.strip() or _API_PATH.match(path):
        path = ""
    host = host.lower()
    host = _HUB if host in HUB_HOSTS else host
    return f"{host}/{path.rstrip('/')}".rstrip("/")


def without_user(key: str) -> str:
    """A key for people: somebody may have put a password into the URL."""
    _, at, shown = key.rpartition("@")
    return f"…@{shown}" if at else shown


def _where(key: str) -> str:
    return f"auths[{_shown(without_user(key))}]"


def _login(entry: Mapping[str, Any], name: str, key: str) -> Login | None:
    where = _where(key)
    fields = {
        field: _text(entry, field, f"{name}: {where}")
        for field in ("auth", "username", "password", "identitytoken", "registrytoken")
    }
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        username, password = _decode(fields["auth"], f"{name}: {where}")
    if fields["identitytoken"]:
        return IdentityToken(
            Secret(fields["identitytoken"]), "" if username == "<token>" else username
        )
    if username or password:
        return Credential(username, Secret(password))
    if fields["registrytoken"]:
        raise CredentialError(
            f"{name}: {where} has only a registrytoken, which is not supported",
            hint="log in with a user name and a password",
        )
    return None


def _decode(auth: str, where: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, ValueError):
        raise CredentialError(f"{where}.auth is not valid base64 of user:password") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise CredentialError(f"{where}.auth is not of the form user:password")
    return username, password.rstrip("\0")


def _json(data: bytes, name: str) -> object:
    try:
        return json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError):
        raise CredentialError(f"{name}: not valid JSON") from None


def _object(value: object, name: str, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CredentialError(f"{name}: {what} is not a JSON object")
    return value


def _text(entry: Mapping[str, Any], field: str, where: str) -> str:
    value = entry.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CredentialError(f"{where}.{field} is not a string")
    return value


def _helper(value: object, name: str) -> str:
    if not isinstance(value, str) or not _HELPER_NAME.fullmatch(value):
        raise CredentialError(
            f"{name}: {_shown(value)} is not the name of a credential helper",
            hint="`ecr-login` stands for the program docker-credential-ecr-login",
        )
    return value


def _shown(value: object) -> str:
    return ascii(value)[:80]
