"""What the pods of a cluster show to registries: `imagePullSecrets`, theirs or their account's.

A secret's credentials are for exactly the repositories whose images its pods run, and for nothing
else that the secret could open. Helpers that a secret names are not run.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final

from prefetch.credentials.authfile import AuthFile
from prefetch.credentials.credential import Login
from prefetch.errors import CredentialError, SourceError
from prefetch.oci.reference import Repository
from prefetch.sources.kubeapi import KubeApi, Refused
from prefetch.sources.nodes import entries, look
from prefetch.sources.selector import Note, Origin, Parsed
from prefetch.sources.yamltree import MapNode, plain

_NOT_FOUND: Final = 404
_DEFAULT_ACCOUNT: Final = "default"
# kubernetes.io, "Types of Secret"; the older one has no `auths` around its entries.
_CONFIG: Final = ".dockerconfigjson"
_OLD_CONFIG: Final = ".dockercfg"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_HINT: Final = "docs/clusters.md has the rights that cluster.use_pull_secrets needs"


class PullSecrets:
    """Collects who uses which secret for what, then reads each of them once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._of_accounts: dict[tuple[str, str], list[str]] = {}
        self._uses: dict[tuple[str, str], Counter[Repository]] = defaultdict(Counter)

    def account(self, item: dict[str, Any]) -> None:
        """Take one of the API's ServiceAccounts."""
        names = _names(look(item, "imagePullSecrets"))
        if names:
            place = str(look(item, "metadata", "namespace"))
            self._of_accounts[place, str(look(item, "metadata", "name"))] = names

    def use(self, namespace: str, spec: MapNode, repositories: Iterable[Repository]) -> None:
        """What pods of this specification pull.

        An account's secrets are for pods that name none (kubernetes.io, "Add ImagePullSecrets to a
        service account").
        """
        account = plain(spec.items.get("serviceAccountName")) or _DEFAULT_ACCOUNT
        own = _names(plain(spec.items.get("imagePullSecrets")))
        for name in own or self._of_accounts.get((namespace, str(account)), []):
            self._uses[namespace, name].update(repositories)

    async def read(self, api: KubeApi, parsed: Parsed) -> None:
        """Fill in the logins of `parsed`, and what could not be read.

        Of several for a repository the one with the most uses comes first.
        """
        found: dict[Repository, Counter[Login]] = defaultdict(Counter)
        for (namespace, name), uses in sorted(self._uses.items()):
            file = await self._file(api, namespace, name, parsed)
            for repository, count in uses.items():
                login = None if file is None else _login(file, repository)
                if login is not None:
                    found[repository][login] += count
        for repository, logins in found.items():
            parsed.logins[repository] = tuple(login for login, _ in logins.most_common())

    async def _file(
        self, api: KubeApi, namespace: str, name: str, parsed: Parsed
    ) -> AuthFile | None:
        called = f"secret {namespace}/{name}"
        try:
            secret = await api.object(f"/api/v1/namespaces/{namespace}/secrets/{name}")
            return _parse(secret, called)
        except Refused as refused:
            if refused.status == _NOT_FOUND:
                # So does a kubelet: it pulls without.
                parsed.note(Note(Origin(self._source), f"{called}: there is none"))
            else:
                error = SourceError(self._source, None, f"{called}: {refused}", hint=_HINT)
                parsed.refuse(error)
        except CredentialError as error:
            parsed.refuse(SourceError(self._source, None, str(error)))
        return None


def _parse(secret: dict[str, Any], called: str) -> AuthFile:
    for key in (_CONFIG, _OLD_CONFIG):
        text = look(secret, "data", key)
        if not isinstance(text, str):
            continue
        try:
            data = base64.b64decode(text, validate=True)
            if key == _OLD_CONFIG:
                data = json.dumps({"auths": json.loads(data)}).encode()
        except (binascii.Error, ValueError, RecursionError):
            raise CredentialError(f"{called}: {key} is not what it should be") from None
        return AuthFile.parse(data, called)
    raise CredentialError(f"{called}: it is no pull secret, there is no {_CONFIG} in it")


def _login(file: AuthFile, repository: Repository) -> Login | None:
    """As kubelets match: also hosts with `*` for a part of them (kubernetes.io, "Images")."""
    found = file.login(repository.registry, repository.path)
    if found is not None:
        return found
    fitting = [key for key in file.logins if "*" in key and _fits(key, repository)]
    return file.logins[max(fitting, key=len)] if fitting else None


def _fits(key: str, repository: Repository) -> bool:
    host, _, path = key.partition("/")
    parts, wanted = host.split("."), repository.registry.split(".")
    below = f"{repository.path}/".startswith(f"{path}/") if path else True
    return (
        below
        and len(parts) == len(wanted)
        and all(_part_fits(*pair) for pair in zip(parts, wanted, strict=True))
    )


def _part_fits(pattern: str, text: str) -> bool:
    start, star, end = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(start + end) and text.startswith(start) and text.endswith(end)


def _names(references: Any) -> list[str]:
    """Of LocalObjectReferences; what can be no object's name is none."""
    names = (look(each, "name") for each in entries(references))
    return [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)]
